"""Where the tests run: what `pytest --device` says, `cpu` unless it says something."""

from __future__ import annotations

DEVICE = "cpu"  # set before a test's module is imported
