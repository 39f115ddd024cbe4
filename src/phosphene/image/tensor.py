"""Images as tensors: their size, resizing, luma, 8-bit pixels, and several laid out as one.

An image is a float32 tensor `(N, 3, H, W)`, sRGB, in [0, 1]. No class wraps it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene.errors import ImageError

Weights = tuple[float, float, float]

REC_601: Weights = (0.299, 0.587, 0.114)
"""The luma weights of red, green and blue in YIQ and in Pillow's greyscale."""

REC_709: Weights = (0.2126, 0.7152, 0.0722)
"""The luma weights that go with sRGB's primaries."""

GRID_GAP = 4
"""px of white between the pictures of a `grid`."""


def size_of(image: Tensor) -> tuple[int, int]:
    """`(H, W)` of an image `(…, H, W)`."""
    return image.shape[-2], image.shape[-1]


def fit(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """`size`, (H, W), brought to a longest side in px; the shape is kept, no side is below 1."""
    H, W = size
    scale = longest / max(H, W)
    return max(1, round(H * scale)), max(1, round(W * scale))


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize `(N, C, H, W)`, of any floating dtype and device, to `size` `(H, W)`.

    Antialiased bicubic (Catmull-Rom, as in Pillow). Bilinear would leave creases at every source
    pixel of an enlargement, and an ascent takes up creases as if they were structure. Bicubic may
    overshoot at edges, and nothing is clamped: so it is linear, and the detail that an octave lost
    can be found by subtraction. Differentiable. The same tensor comes back if the size is equal.

    Raises:
        ImageError: another shape or dtype, or a side below 1.
    """
    if image.ndim != 4 or not image.is_floating_point():
        raise ImageError(
            f"resize takes a floating tensor (N, C, H, W); "
            f"this is {str(image.dtype).removeprefix('torch.')} {tuple(image.shape)}"
        )
    if min(*size, *size_of(image)) < 1:
        raise ImageError(f"cannot resize {size_of(image)} to {tuple(size)}; each side is 1 or more")
    if tuple(size) == size_of(image):
        return image
    # Half precision has no kernel on CPU, and Apple's GPU none in every version of torch.
    work = image if image.dtype == torch.float64 else image.float()
    if image.device.type not in ("cpu", "cuda"):
        work = work.cpu()
    if image.device.type == "cuda":
        # Its filter must fit in shared memory, which a shrink by some forty times overruns.
        for between in _stages(size_of(image), size, 16):
            work = _bicubic(work, between)
    return _bicubic(work, size).to(image)


def _bicubic(image: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(image, list(size), mode="bicubic", align_corners=False, antialias=True)


def _stages(have: tuple[int, int], want: tuple[int, int], most: int) -> list[tuple[int, int]]:
    """The sizes on the way from `have` to `want` where no step shrinks more than `most` times."""
    stages: list[tuple[int, int]] = []
    while any(h > most * w for h, w in zip(have, want, strict=True)):
        have = (max(want[0], -(-have[0] // most)), max(want[1], -(-have[1] // most)))
        stages.append(have)
    return stages


def luma(image: Tensor, weights: Weights = REC_601) -> Tensor:
    """The weighted sum of red, green and blue, `(N, 3, H, W) -> (N, 1, H, W)`; differentiable."""
    red, green, blue = image.split(1, 1)
    total = weights[0] * red
    total += weights[1] * green  # in place: a large image has large planes
    total += weights[2] * blue
    return total


def to_uint8(image: Tensor) -> np.ndarray:
    """`(1, 3, H, W)` or `(3, H, W)` in [0, 1] to `(H, W, 3)` uint8: rounded, clamped.

    Raises:
        ImageError: another shape or dtype, or values that are not finite.
    """
    return quantize(image, 3, "image")


def quantize(image: Tensor, channels: int, what: str) -> np.ndarray:
    """As `to_uint8`, of any number of channels; `what` is the tensor's name in a message."""
    given = f"{str(image.dtype).removeprefix('torch.')} {tuple(image.shape)}"
    shaped = image[0] if image.ndim == 4 and image.shape[0] == 1 else image
    if shaped.ndim != 3 or shaped.shape[0] != channels or not image.is_floating_point():
        raise ImageError(
            f"the {what} is {given}; one floating (1, {channels}, H, W) or ({channels}, H, W) "
            "was expected"
        )
    if shaped.numel() == 0:
        raise ImageError(f"the {what} is {given}; each side must be 1 px or more")
    shaped = shaped.detach()
    bad = int((~shaped.isfinite()).sum())
    if bad:
        raise ImageError(f"the {what} holds {bad} values that are infinite or not a number")
    # Float32 first: bfloat16 cannot count to 255 in single steps.
    levels = (shaped.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return levels.permute(1, 2, 0).cpu().contiguous().numpy()


def grid(
    pictures: Tensor, *, columns: int | None = None, gap: int = GRID_GAP, blank: float = 1.0
) -> Tensor:
    """A batch `(N, C, H, W)` as one picture `(1, C, H', W')`, row by row.

    One picture is returned as it is.

    Args:
        columns: by default as many as make the whole about as wide as it is high.
        gap: px between pictures.
        blank: the value between pictures, and where none is left: white.
    """
    count, channels, height, width = pictures.shape
    if count == 1:
        return pictures
    if columns is None:
        columns = min(count, math.ceil(math.sqrt(count * (height + gap) / (width + gap))))
    rows = -(-count // columns)
    shape = (1, channels, rows * (height + gap) - gap, columns * (width + gap) - gap)
    sheet = pictures.new_full(shape, blank)
    for index, picture in enumerate(pictures):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[0, :, top : top + height, left : left + width] = picture
    return sheet
