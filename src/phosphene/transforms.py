"""Image → image, by chance, inside the differentiated path: jitter, padding, rotation, scaling.

A transform takes an image `(N, 3, H, W)` and a CPU generator and gives an image with the same N,
channels, dtype and device; H and W may change. Every chance comes from that generator, so one seed
gives one run on any device. Autograd runs back through it: what was rolled is un-rolled.

A factory makes a transform from its settings. To add one, decorate the factory:

    @transform
    def flip(p: float = 0.5) -> Transform:
        def apply(image: Tensor, generator: torch.Generator) -> Tensor: ...

        return apply
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene.errors import SettingsError
from phosphene.plugins import Registry
from phosphene.runtime.device import on_processor_where_missing, uploaded

Transform = Callable[[Tensor, torch.Generator], Tensor]
Factory = TypeVar("Factory", bound=Callable[..., Transform])
Mode = Literal["reflect", "replicate", "circular"]
Border = Literal["reflection", "border"]

TRANSFORMS: Registry[Callable[..., Transform]] = Registry("transform", SettingsError)
"""Every transform that a text can name: "robust, jitter(8)"."""


def transform(factory: Factory) -> Factory:
    """Register a factory of transforms under its own name, so that texts can name it.

    SettingsError if another one has the name, or it is auto, by which a recipe chooses.
    """
    if factory.__name__ == "auto":
        raise SettingsError("a transform is not called auto, by which a recipe chooses itself")
    TRANSFORMS.add(factory.__name__, factory)
    return factory


@transform
def jitter(pixels: int | tuple[int, int], *, wrap: bool = True) -> Transform:
    """Shift the image by an independent whole number of px in [-pixels, pixels], both axes.

    A pair bounds the vertical and the horizontal shift apart; they are drawn in that order.
    `wrap=True` rolls: what leaves on one side comes in on the other, the size stays.
    `wrap=False` cuts a window `pixels` smaller per axis at a random place, as lucid does.
    Mordvintsev et al. 2015, "Inceptionism"; the DeepDream notebook.
    """
    down, right = (pixels, pixels) if isinstance(pixels, int) else pixels
    _not_below("jitter", min(down, right), 0, "px")

    def apply(image: Tensor, generator: torch.Generator) -> Tensor:
        if down == right == 0:
            return image
        if wrap:
            return image.roll(draw_shift((down, right), generator), (-2, -1))
        height, width = image.shape[-2:]
        if down >= height or right >= width:
            raise SettingsError(
                f"jitter without wrap cuts {pixels} px, and the image has {height}×{width}"
            )
        return _window(image, height - down, width - right, generator)

    return apply


def draw_shift(most: tuple[int, int], generator: torch.Generator) -> tuple[int, int]:
    """How far jitter rolls an image down and right, px: each from [-most, most]."""
    down, right = most
    return _whole(-down, down, generator), _whole(-right, right, generator)


def compose(*transforms: Transform) -> Transform:
    """One transform after the other, from left to right; of none, the identity."""

    def apply(image: Tensor, generator: torch.Generator) -> Tensor:
        for each in transforms:
            image = each(image, generator)
        return image

    return apply


@transform
def pad(pixels: int, value: float | Mode = 0.5) -> Transform:
    """Add `pixels` px on each of the four sides.

    `value` is the tone of the border, the same in all channels, or a mode of `F.pad`: "reflect"
    (the image must be larger than `pixels` both ways), "replicate" or "circular" (at least as
    large).
    """
    _not_below("pad", pixels, 0, "px")
    if isinstance(value, str) and value not in get_args(Mode):
        raise SettingsError(f"pad cannot fill with {value!r}; a number, or {_listed(Mode)}")

    def apply(image: Tensor, generator: torch.Generator) -> Tensor:
        if pixels == 0:
            return image
        sides = (pixels,) * 4
        if not isinstance(value, str):
            return F.pad(image, sides, value=value)
        height, width = image.shape[-2:]
        least = {"reflect": pixels + 1, "replicate": 1, "circular": pixels}[value]
        if min(height, width) < least:
            raise SettingsError(
                f"pad {pixels} px, {value}, needs an image of {least} px a side, got "
                f"{height}×{width}"
            )
        return F.pad(image, sides, mode=value)

    return apply


@transform
def rotate(degrees: float, fill: float | Border = "reflection") -> Transform:
    """Turn the image about its centre by an angle drawn evenly from [-degrees, degrees].

    The size stays, the angle is true on any aspect ratio, sampling is bilinear. `fill`, what comes
    in at the corners: a tone, or "reflection" or "border" of `F.grid_sample`.
    """
    _not_below("rotate", degrees, 0, "degrees")
    if isinstance(fill, str) and fill not in get_args(Border):
        raise SettingsError(f"rotate cannot fill with {fill!r}; a number, or {_listed(Border)}")

    def apply(image: Tensor, generator: torch.Generator) -> Tensor:
        angle = math.radians(_uniform(-degrees, degrees, generator))
        if angle == 0:
            return image
        n, _, height, width = image.shape
        # affine_grid counts both axes from -1 to 1, so a turn must undo the aspect ratio.
        sin, cos, aspect = math.sin(angle), math.cos(angle), height / width
        theta = uploaded(
            torch.tensor([[cos, -sin * aspect, 0], [sin / aspect, cos, 0]], dtype=image.dtype),
            image.device,
        )
        grid = F.affine_grid(theta.expand(n, 2, 3), list(image.shape), align_corners=False)
        mode = fill if isinstance(fill, str) else "zeros"

        def sampled(values: Tensor, grid: Tensor) -> Tensor:
            return F.grid_sample(values, grid, padding_mode=mode, align_corners=False)

        if isinstance(fill, str):
            return on_processor_where_missing(sampled, image, grid)
        # Outside is 0, so 0 is made to mean `fill`.
        return on_processor_where_missing(sampled, image - fill, grid) + fill

    return apply


@transform
def scale(low: float, high: float) -> Transform:
    """Resample the image to a size drawn evenly from `low` to `high` times its own.

    Bilinear, and without aliasing when it shrinks. H and W become the nearest whole px, at least 1.
    """
    _range("scale", low, high)

    def apply(image: Tensor, generator: torch.Generator) -> Tensor:
        factor = _uniform(low, high, generator)
        size = [max(1, round(side * factor)) for side in image.shape[-2:]]
        return _resample(image, size)

    return apply


@transform
def random_crop(size: int | tuple[int, int]) -> Transform:
    """Cut a window of `size` px, one side or (H, W), at an evenly drawn place."""
    height, width = _size("random_crop", size)

    def apply(image: Tensor, generator: torch.Generator) -> Tensor:
        if height > image.shape[-2] or width > image.shape[-1]:
            raise SettingsError(
                f"random_crop cuts {height}×{width} px, and the image has "
                f"{image.shape[-2]}×{image.shape[-1]}"
            )
        return _window(image, height, width, generator)

    return apply


@transform
def crops(
    count: int = 4,
    low: float = 0.6,
    high: float = 0.9,
    size: int | tuple[int, int] | None = None,
    *,
    noise: float = 0.02,
) -> Transform:
    """Look at `count` random parts of the image at once: `(N, …)` → `(N * count, …)`.

    Each part is a window whose H and W are the image's times a factor drawn evenly from `low` to
    `high`, wholly inside the image, and resampled to `size`, px, one side or (H, W). Without `size`
    that is the largest that a window can be. Noise of deviation `noise` is added, the same to each
    part. Row `n * count + i` is part `i` of image `n`; all images of a batch are cut alike. This is
    the one transform that does not keep N.
    Fel et al. 2023, "Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained
    Optimization", with 6 parts of 0.20 to 0.25.
    """
    _not_below("crops", count, 1, "parts")
    _range("crops", low, high, most=1)
    to = None if size is None else _size("crops", size)
    noised = _noise(noise)

    def apply(image: Tensor, generator: torch.Generator) -> Tensor:
        sides = image.shape[-2:]
        target = to or [max(1, round(side * high)) for side in sides]
        parts = []
        for _ in range(count):
            factor = _uniform(low, high, generator)
            height, width = (max(1, round(side * factor)) for side in sides)
            parts.append(_resample(_window(image, height, width, generator), target))
        return noised(torch.stack(parts, 1).flatten(0, 1), generator)

    return apply


@transform
def noise(std: float) -> Transform:
    """Add Gaussian noise of deviation `std`, in units of the image's [0, 1].

    It is drawn on the CPU in float32, so that one seed gives one noise on every device; and alike
    for all images of a batch, so that none depends on those beside it.
    """
    return _noise(std)


def _noise(std: float) -> Transform:
    _not_below("noise", std, 0, "deviation")

    def apply(image: Tensor, generator: torch.Generator) -> Tensor:
        if std == 0:
            return image
        drawn = torch.randn(image.shape[1:], generator=generator)
        return image + std * uploaded(drawn, image.device, image.dtype)

    return apply


@transform
def none() -> Transform:
    """Leave the image as it is."""
    return compose()


@transform
def robust() -> Transform:
    """The set that lucid visualises with: padded, shifted, scaled, turned and shifted again.

    An H × W image comes out at about 0.9 to 1.1 times (H + 16) × (W + 16), less 4 px.
    Olah et al. 2017, "Feature Visualization". Two departures: scale and angle are drawn evenly
    from their ranges where lucid draws from a list, and the corners that a turn lays bare are grey,
    as the padding is, where lucid's are black.
    """
    return compose(
        pad(12, 0.5),
        jitter(8, wrap=False),
        scale(0.9, 1.1),
        rotate(10, 0.5),
        jitter(4, wrap=False),
    )


@transform
def gentle() -> Transform:
    """As `robust`, but less of each, and nothing grey comes in: for units that see little."""
    return compose(
        pad(6, "reflect"),
        jitter(6, wrap=False),
        scale(0.95, 1.05),
        rotate(3),
        jitter(2, wrap=False),
    )


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    # float64, so that a seed's draws do not depend on the default dtype.
    return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()


def _whole(low: int, high: int, generator: torch.Generator) -> int:
    """From `low` to `high`, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _window(image: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
    """A `height` × `width` part of `image` at a place drawn evenly."""
    top = _whole(0, image.shape[-2] - height, generator)
    left = _whole(0, image.shape[-1] - width, generator)
    return image[..., top : top + height, left : left + width]


def _resample(image: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    shrinks = any(new < old for new, old in zip(size, image.shape[-2:], strict=True))

    def resized(values: Tensor) -> Tensor:
        return F.interpolate(values, list(size), mode="bilinear", antialias=shrinks)

    return on_processor_where_missing(resized, image) if shrinks else resized(image)


def _size(name: str, size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    _not_below(name, min(height, width), 1, "px a side")
    return height, width


def _not_below(name: str, value: float, least: float, unit: str) -> None:
    if not least <= value < math.inf:
        raise SettingsError(f"{name} is {value} {unit}; it must be {least} or more, and finite")


def _range(name: str, low: float, high: float, most: float = math.inf) -> None:
    if not 0 < low <= high <= most or high == math.inf:
        upto = "" if most == math.inf else f" ≤ {most:g}"
        raise SettingsError(f"{name} is from {low} to {high}; it must be 0 < low ≤ high{upto}")


def _listed(choices: object) -> str:
    return ", ".join(get_args(choices))
