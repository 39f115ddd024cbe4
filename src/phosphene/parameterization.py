"""What the optimiser turns. A parameterization is an `nn.Module`; `forward()` gives the image.

The image is `(N, 3, H, W)` in [0, 1], float32, or float64 if it was made from a float64 picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from phosphene.errors import ImageError, SettingsError


def _checked(image: Tensor) -> Tensor:
    """A copy of `image`, float32 unless float64, that shares no memory and no graph with it."""
    if image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape:
        raise ImageError(f"the image has shape {tuple(image.shape)}; it must be (N, 3, H, W)")
    if not image.is_floating_point():
        raise ImageError(f"the image is {image.dtype}; it must be float, in [0, 1]")
    dtype = torch.float64 if image.dtype == torch.float64 else torch.float32
    return image.detach().to(dtype, copy=True, memory_format=torch.contiguous_format)


def _per_channel(name: str, value: Sequence[float] | float) -> Tensor:
    values = [float(v) for v in value] if isinstance(value, Sequence) else [float(value)]
    if len(values) not in (1, 3) or not all(map(math.isfinite, values)):
        raise SettingsError(f"{name} is {value}; it must be one finite number or three")
    return torch.tensor(values, dtype=torch.float64).reshape(1, -1, 1, 1)


class Pixels(nn.Module):
    """The image itself, or the image in a network's own units.

    The parameter `pixels` is `(image - shift) / scale`; `forward()` gives `pixels * scale + shift`.
    `scale` and `shift` are one number or one per channel: the deviation and mean of a network let a
    published loop step in that network's normalised values; 1/255 steps in 0 … 255. With scale 1
    and shift 0 `forward()` returns the parameter itself. The image's dtype (float32, float64) stays.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        image: Tensor,
        *,
        scale: Sequence[float] | float = 1.0,
        shift: Sequence[float] | float = 0.0,
    ) -> None:
        super().__init__()
        values = _checked(image)
        by, plus = _per_channel("scale", scale), _per_channel("shift", shift)
        if not (by > 0).all():
            raise SettingsError(f"scale is {scale}; it must be above 0")
        self._plain = bool((by == 1).all() and (plus == 0).all())
        self.register_buffer("scale", by.to(values))
        self.register_buffer("shift", plus.to(values))
        if not self._plain:
            values = (values - self.shift) / self.scale
        self.pixels = nn.Parameter(values)

    def forward(self) -> Tensor:
        return self.pixels if self._plain else self.pixels * self.scale + self.shift

    @torch.no_grad()
    def clamp_(self, low: float = 0.0, high: float = 1.0) -> None:
        """Clamp the image that the parameter stands for to [low, high], in place."""
        if self._plain:
            self.pixels.clamp_(low, high)
        else:
            self.pixels.clamp_(self._inside(low, math.inf), self._inside(high, -math.inf))

    def _inside(self, bound: float, inwards: float) -> Tensor:
        """The parameter's value for `bound`, nudged `inwards` until forward() does not pass it."""
        value = (bound - self.shift) / self.scale
        # Rounding may put forward() an ulp or two outside, and an image must not be 1.0000001.
        for _ in range(3):
            image = value * self.scale + self.shift
            outside = image < bound if inwards > 0 else image > bound
            nudged = torch.nextafter(value, torch.full_like(value, inwards))
            value = torch.where(outside, nudged, value)
        return value
