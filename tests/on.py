"""Where the tests run: what `pytest --device` says, `cpu` unless it says something."""

from __future__ import annotations

# What `auto` takes where nobody tests: `pytest --device` has it take DEVICE.
from phosphene.network.precision import best_device as best_device

DEVICE = "cpu"  # set before a test's module is imported
