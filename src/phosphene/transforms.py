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

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from phosphene.errors import SettingsError

Transform = Callable[[Tensor, torch.Generator], Tensor]
F_ = TypeVar("F_", bound=Callable[..., Transform])

TRANSFORMS: dict[str, Callable[..., Transform]] = {}


def transform(factory: F_) -> F_:
    """Register a factory of transforms under its own name."""
    TRANSFORMS[factory.__name__] = factory
    return factory


@transform
def jitter(pixels: int, *, wrap: bool = True) -> Transform:
    """Shift the image by an independent whole number of px in [-pixels, pixels], both axes.

    `wrap=True` rolls: what leaves on one side comes in on the other, the size stays.
    `wrap=False` cuts a window `pixels` smaller per axis at a random place, as lucid does.
    Mordvintsev et al. 2015, "Inceptionism"; the DeepDream notebook.
    """
    if pixels < 0:
        raise SettingsError(f"jitter is {pixels} px; it must be 0 or more")

    def apply(image: Tensor, generator: torch.Generator) -> Tensor:
        if pixels == 0:
            return image
        if wrap:
            down, right = torch.randint(-pixels, pixels + 1, (2,), generator=generator).tolist()
            return image.roll((down, right), (-2, -1))
        height, width = image.shape[-2:]
        if pixels >= min(height, width):
            raise SettingsError(
                f"jitter without wrap cuts {pixels} px, and the image has {height}×{width}"
            )
        top, left = torch.randint(0, pixels + 1, (2,), generator=generator).tolist()
        return image[..., top : top + height - pixels, left : left + width - pixels]

    return apply
