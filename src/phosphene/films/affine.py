"""The camera of a zoom: one affine a frame, about a centre that stays, and how it is sampled.

Rates are per second and exponential: two frames of 1/60 s go as far as one of 1/30 s.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from phosphene import image as images
from phosphene.errors import ImageError, SettingsError, suggest

Warp = Literal["lanczos", "linear", "crop"]
WARPS = ("lanczos", "linear", "crop")
LOBES = 3  # of the Lanczos window, px on each side
# Share of linear sampling in it: alone, it strengthens waves of 5 px by 1 % a frame, which dreams
# take up as hatching.
LINEAR = 0.05


@dataclass(frozen=True)
class Affine:
    """How a picture moves: `factor` times larger and turned by `degrees` about `center`.

    Degrees are counter-clockwise, as in Pillow; the centre (x, y) is a share of width and height.
    """

    factor: float = 1.0
    degrees: float = 0.0
    center: tuple[float, float] = (0.5, 0.5)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.factor) and self.factor > 0 and math.isfinite(self.degrees)):
            raise SettingsError(
                f"a zoom by {self.factor:g} and a turn by {self.degrees:g}°: finite numbers were "
                "expected, the first above 0"
            )

    @classmethod
    def over(
        cls, seconds: float, *, zoom: float, turn: float = 0.0, center: tuple[float, float]
    ) -> Affine:
        """That of a time, given `zoom` (a factor) and `turn` (degrees) per second."""
        return cls(zoom**seconds, turn * seconds, center)

    @property
    def inverse(self) -> Affine:
        """The way back."""
        return Affine(1 / self.factor, -self.degrees, self.center)

    @property
    def rests(self) -> bool:
        """Whether nothing moves."""
        return self.factor == 1 and self.degrees % 360 == 0


def warp(image: Tensor, affine: Affine, how: Warp = "lanczos") -> Tensor:
    """`(N, C, H, W)` moved by an affine; the same size, dtype and device.

    lanczos: windowed sinc of three lobes (Duchon, "Lanczos filtering", 1979), constants and ramps
        exact, edges reflected; what shrinks is filtered for it. It overshoots at edges, and nothing
        is clamped.
    linear: between the nearest pixels, about the *index* (H·y, W·x), as
        `scipy.ndimage.affine_transform(…, order=1)` is called in Google's notebook of 2015: half a
        px beside the centre.
    crop: whole px are cut off each side, and the rest is resized by Pillow in 8 bits, as the
        PyTorch article does. It does not turn, and only zooms in.

    Sums are in a fixed order, so that a picture is the same with any number of threads.

    Raises:
        ImageError: another shape or dtype.
        SettingsError: no way of that name; a crop that turns or zooms out.
    """
    if image.ndim != 4 or not image.is_floating_point() or 0 in image.shape:
        raise ImageError(
            f"warp takes a floating tensor (N, C, H, W); this is {image.dtype} {tuple(image.shape)}"
        )
    if how not in WARPS:
        raise SettingsError(f"no warp {how!r}{suggest(how, WARPS)}")
    if affine.rests:
        return image
    if how == "crop":
        return _cropped(image, affine)
    kernel = _lanczos if how == "lanczos" else _triangle
    half_px = 0.5 if how == "lanczos" else 0.0
    height, width = images.size_of(image)
    along = torch.arange(width, dtype=torch.float64) - (width * affine.center[0] - half_px)
    down = torch.arange(height, dtype=torch.float64) - (height * affine.center[1] - half_px)
    if affine.degrees % 360 == 0:
        for axis, offsets in ((-1, along), (-2, down)):
            start = -offsets[0]  # the centre's own index
            positions = start + offsets / affine.factor
            image = _resampled(image, positions, axis, kernel, affine.factor)
        return image
    return _turned(image, down[:, None], along[None], affine, kernel)


# Along one axis, or two ---------------------------------------------------------------------------

Kernel = Callable[[Tensor], Tensor]


def _lanczos(x: Tensor) -> Tensor:
    return torch.sinc(x) * torch.sinc(x / LOBES) * (x.abs() < LOBES)


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp_min(0)


def _taps(
    positions: Tensor, kernel: Kernel, factor: float, dtype: torch.dtype
) -> list[tuple[Tensor, Tensor]]:
    """Index (not yet within the picture) and weight of each pixel that counts at each position.

    The weights sum to 1, and what is left of their first moment goes to the nearest two, or else
    ramps would be sampled beside the position, at every frame on the same side.
    """
    lanczos = kernel is _lanczos
    wide = max(1.0, 1 / factor) if lanczos else 1.0
    reach = math.ceil(LOBES * wide) if lanczos else 1
    first = positions.floor()
    fraction = (positions - first).to(dtype)
    weights = [kernel((k - fraction) / wide) for k in range(1 - reach, reach + 1)]
    total, moment = torch.zeros_like(fraction), torch.zeros_like(fraction)
    for weight in weights:
        total += weight
    for k, weight in zip(range(1 - reach, reach + 1), weights, strict=True):
        weight /= total
        moment += weight * (k - fraction)
    weights[reach - 1] += moment
    weights[reach] -= moment
    for k, weight in enumerate(weights, 1 - reach):
        weight.lerp_(_triangle(k - fraction), LINEAR)
    whole = first.long()
    return [(whole + k, weight) for k, weight in enumerate(weights, 1 - reach)]


def _reflected(index: Tensor, side: int) -> Tensor:
    """Indices within a side: beyond an edge the picture goes on as its mirror image."""
    index = index.remainder(2 * side)
    return torch.minimum(index, 2 * side - 1 - index)


def _resampled(
    image: Tensor, positions: Tensor, axis: int, kernel: Kernel, factor: float
) -> Tensor:
    side = image.shape[axis]
    total = torch.zeros_like(image)
    shape = (-1, 1) if axis == -2 else (-1,)
    for index, weight in _taps(positions, kernel, factor, _precise(image)):
        part = image.index_select(axis, _reflected(index, side).to(image.device))
        total.addcmul_(part, weight.to(image).view(shape))
    return total


def _turned(image: Tensor, down: Tensor, along: Tensor, affine: Affine, kernel: Kernel) -> Tensor:
    """As `_resampled`, on both axes: `down` `(H, 1)`, `along` `(1, W)`, px from the centre."""
    height, width = images.size_of(image)
    angle = math.radians(affine.degrees)
    cosine, sine = math.cos(angle) / affine.factor, math.sin(angle) / affine.factor
    rows = -down[0, 0] + (along * sine + down * cosine)
    columns = -along[0, 0] + (along * cosine - down * sine)
    dtype = _precise(image)
    across = [
        (_reflected(index, width).flatten().to(image.device), weight.flatten().to(image))
        for index, weight in _taps(columns, kernel, affine.factor, dtype)
    ]
    planes = image.flatten(-2)
    total = torch.zeros_like(planes)
    for index, weight in _taps(rows, kernel, affine.factor, dtype):
        start = (_reflected(index, height) * width).flatten().to(image.device)
        row = torch.zeros_like(planes)
        for column, share in across:
            row.addcmul_(planes.index_select(-1, start + column), share)
        total.addcmul_(row, weight.flatten().to(image))
    return total.view(image.shape)


def _precise(image: Tensor) -> torch.dtype:
    return torch.float64 if image.dtype == torch.float64 else torch.float32


# In whole pixels ----------------------------------------------------------------------------------


def _cropped(image: Tensor, affine: Affine) -> Tensor:
    from PIL import Image

    if affine.degrees % 360 or affine.factor < 1:
        raise SettingsError(
            f"warp crop zooms in and does not turn; this is a zoom by {affine.factor:g} and a turn "
            f"by {affine.degrees:g}°: lanczos does both"
        )
    height, width = images.size_of(image)
    # Rounded, or the noise in a root would decide whether half a px is cut off.
    twice = round(1 - 1 / affine.factor, 12)
    left, top = twice * affine.center[0], twice * affine.center[1]
    right, bottom = twice * (1 - affine.center[0]), twice * (1 - affine.center[1])
    box = (width * left, height * top, width - width * right, height - height * bottom)
    pictures = []
    for picture in image:
        pixels = Image.fromarray(images.to_uint8(picture)).crop(box)
        resized = pixels.resize((width, height), Image.Resampling.LANCZOS)
        pictures.append(torch.from_numpy(np.array(resized)).permute(2, 0, 1))
    return torch.stack(pictures).to(image) / 255
