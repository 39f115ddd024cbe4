"""Octaves: the sizes at which a picture is dreamt, and how pictures travel between them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from phosphene import image as images
from phosphene.errors import SettingsError

Size = tuple[int, int]
Rounding = Literal["round", "floor", "chain", "chain_floor"]
Resampling = Literal["antialias", "bilinear", "corners", "nearest"]

MOST_OCTAVES = 40
CHAINED: tuple[Rounding, ...] = ("chain", "chain_floor")  # each octave from the one above it


def octave_count(size: Size, *, known: int, scale: float) -> int:
    """How many octaves bring the shorter side of `size` (H, W) down to about `known` px.

    That is the scale at which the network saw whole things in training, so the largest things of
    a dream are as large, in the picture, at 600 px as at 6000 px. Never more than `MOST_OCTAVES`.
    """
    octaves = 1 + round(math.log(max(min(size), 1) / known, scale))
    return min(max(octaves, 1), MOST_OCTAVES)


def octave_sizes(
    size: Size, octaves: int, scale: float, *, rounding: Rounding = "round", least: int = 1
) -> list[Size]:
    """Sizes (H, W) from the smallest octave to `size` itself, each `scale` times the one before.

    `rounding`: `round` and `floor` each divide the full size; `chain` rounds the octave above
    divided by `scale`, as repeated resizing does, and `chain_floor` cuts it off, as
    `F.interpolate` does by a factor. Octaves with a side below `least` px are left
    out, but never the full size.
    """
    if octaves < 1 or octaves > MOST_OCTAVES:
        raise SettingsError(f"octaves: {octaves} is not between 1 and {MOST_OCTAVES}")
    if not scale > 1:
        raise SettingsError(f"octave scale: {scale} is not above 1")
    sizes = [size]
    for k in range(1, octaves):
        if rounding in CHAINED:
            turn = round if rounding == "chain" else int
            height, width = (turn(side * (1 / scale)) for side in sizes[-1])
        else:
            turn = round if rounding == "round" else int
            height, width = (turn(side / scale**k) for side in size)
        if min(height, width) < max(least, 1):
            break
        if (height, width) != sizes[-1]:
            sizes.append((height, width))
    return sizes[::-1]


def _interpolated(mode: str, corners: bool | None = None) -> Callable[[Tensor, Size], Tensor]:
    def resize(image: Tensor, size: Size) -> Tensor:
        if tuple(image.shape[-2:]) == tuple(size):
            return image
        return F.interpolate(image, size, mode=mode, align_corners=corners)

    return resize


# `corners` puts the outermost pixels' centres onto each other, as scipy.ndimage.zoom(order=1) does.
RESAMPLERS: dict[Resampling, Callable[[Tensor, Size], Tensor]] = {
    "antialias": images.resize,
    "bilinear": _interpolated("bilinear", False),
    "corners": _interpolated("bilinear", True),
    "nearest": _interpolated("nearest"),
}


def bases(
    photo: Tensor,
    sizes: list[Size],
    *,
    resampling: Resampling = "antialias",
    chain: bool = False,
    scale: float | None = None,
) -> list[Tensor]:
    """The photograph at each octave's size, in [0, 1]; with `chain` each from the octave above it.

    scale: of one octave to the next, by which `nearest` goes from one to the other, as
        `F.interpolate` does that is given a factor: which px is the nearest hangs on it.

    What bicubic resampling overshoots is cut off here, or else the first clamped step would do it
    and the cut would travel up as if it had been dreamt.
    """
    resize = RESAMPLERS[resampling]
    out = [photo]
    for size in reversed(sizes[:-1]):
        above = out[-1] if chain else photo
        if chain and scale and resampling == "nearest":
            out.append(F.interpolate(above, scale_factor=1 / scale))
        else:
            out.append(resize(above, size).clamp(0, 1))
    return out[::-1]
