"""Photographs for tests, as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def small_photo(path: Path, seed: int) -> Path:
    """32 × 24 px of soft noise in colour."""
    levels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(levels).resize((32, 24)).save(path)
    return path
