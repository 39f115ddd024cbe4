"""Pictures that are kept for the next time, each with a note that says what it is."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

from torch import Tensor

from phosphene import image as images
from phosphene.errors import ImageError


def in_levels(image: Tensor) -> Tensor:
    """A picture in steps of 1/255, as it is kept: the same whether drawn now or long ago."""
    return image.clamp(0, 1).mul(255).round().div(255)


def load_kept(path: Path, key: Any) -> tuple[Tensor, dict[str, Any]] | None:
    """A picture `(3, h, w)` and its note; None if there is none, not a whole one, or of another
    key."""
    if not path.is_file():
        return None
    try:
        note = json.loads(images.read_recipe(path) or "")
        image = images.load_image(path)[0]
        return None if note["key"] != key or note["pixels"] != _hash(image) else (image, note)
    except (ImageError, ValueError, KeyError, TypeError):
        return None


def store_kept(path: Path, key: Any, image: Tensor, note: dict[str, Any]) -> bool:
    """Store a picture `(3, h, w)`; False, after a warning, if it cannot be."""
    # The pixels' own hash, since a file may be damaged where no decoder notices.
    text = json.dumps({"key": key, "pixels": _hash(image), **note})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        images.save_image(image, path, recipe=text)
    except (OSError, ImageError) as error:
        warnings.warn(f"cells are not kept for the next time: {error}", stacklevel=4)
        return False
    return True


def _hash(image: Tensor) -> str:
    return hashlib.sha256(images.to_uint8(image).tobytes()).hexdigest()
