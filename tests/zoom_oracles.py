"""The two published zooms, written out plainly, for the presets to be held against.

As in `oracles.py`, nothing of phosphene is used here: Pillow, SciPy and the transcriptions of the
dreams, in float64. Both take a start `(H, W, 3)` in [0, 1] and give the frames, likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.ndimage as nd
from PIL import Image

from tests import oracles

NewShifts = Callable[[], oracles.Shifts]  # those of one dream; each frame has its own


def to_pil(picture: np.ndarray) -> Image.Image:
    """`ToPILImage`: times 255, and the rest cut off.

    White that was clipped is 1 or a rounding below it, which would be white or one level darker by
    chance: a thousandth of a level is added.
    """
    return Image.fromarray((picture * 255 + 1e-3).clip(0, 255).astype(np.uint8))


def inception_zoom(
    start: np.ndarray,
    gradient_of: oracles.GradientOf,
    new_shifts: NewShifts,
    *,
    frames: int,
    steps: int,
) -> Iterator[np.ndarray]:
    """`zoom_dream` of github.com/augustwester/deepdream, the frames after the start itself.

    Each time 1 % of the width and of the height is cropped on each side, Pillow's Lanczos brings
    the rest back to size, and it is dreamt in one octave and made 8-bit again.
    """
    image = to_pil(start)
    for _ in range(frames):
        w, h = image.size
        image = image.crop((w * 0.01, h * 0.01, w - w * 0.01, h - h * 0.01))
        image = image.resize((w, h), Image.Resampling.LANCZOS)
        photo = np.asarray(image).astype(np.float64) / 255
        dreamt = oracles.inception(photo, gradient_of, new_shifts(), octaves=1, steps=steps)
        image = to_pil(dreamt.image)
        yield np.asarray(image).astype(np.float64) / 255


def google2015_zoom(
    start: np.ndarray,
    gradient_of: oracles.GradientOf,
    new_shifts: NewShifts,
    *,
    frames: int,
    s: float = 0.05,
) -> Iterator[np.ndarray]:
    """The last cells of Google's notebook of 2015: dream, and go on 5 % closer, unrounded.

    There the frame is on 0–255, which for a linear map is the same.
    """
    frame = start
    h, w = frame.shape[:2]
    offset: Any = [h * s / 2, w * s / 2, 0]
    for _ in range(frames):
        frame = oracles.google2015(frame, gradient_of, new_shifts()).image
        yield frame
        frame = nd.affine_transform(frame, [1 - s, 1 - s, 1], offset, order=1)
