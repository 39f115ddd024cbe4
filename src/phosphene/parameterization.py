"""What the optimiser turns. A parameterization is an `nn.Module`; `forward()` gives the image.

The image is `(N, 3, H, W)` in [0, 1], float32, or float64 if it was made from a float64 picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.errors import ImageError, SettingsError
from phosphene.natural import Statistics as Statistics
from phosphene.natural import natural_statistics as natural_statistics
from phosphene.runtime.device import on_processor_where_missing

Squash = Literal["soft", "sigmoid"]

# How near to black and white a picture is taken to be, where black and white lie at infinity:
# a quarter of an 8-bit level.
MARGIN = 1 / 1024
# How faint a frequency becomes at most: a start from a picture has to be divided by it.
FAINTEST = 1e-3
# Where soft_clip() begins to bend. A power of two, so that 1 - KNEE + KNEE is 1 exactly.
KNEE = 1 / 16


def natural_magnitude(size: tuple[int, int]) -> Tensor:
    """The magnitude of a natural picture of `size` (H, W): `(3, H, W // 2 + 1)`, float64, ortho.

    It is read off at the same cycles per px. Natural pictures fall as 1 / f at every scale (Field
    1987), so what is interpolated is f × magnitude, nearly flat, and a picture larger than the
    measured ones continues as 1 / f below their lowest frequency. The mean (f = 0) is 0; each
    channel is scaled to unit variance.
    """
    measured = natural_statistics().spectrum
    side = measured.shape[-2]
    flat = measured * _frequencies((side, side))
    # f × magnitude is 0 at the mean, which is no measurement; its neighbours stand in.
    flat[:, 0, 0] = (flat[:, 1, 0] + flat[:, -1, 0] + flat[:, 0, 1]) / 3
    # Rows from -1/2 to 1/2 cycles per px, both ends there, so that sampling never leaves the array.
    rows = torch.arange(-(side // 2), side // 2 + 1) % side
    flat = flat[:, rows]
    height, width = size
    x = torch.fft.rfftfreq(width, dtype=flat.dtype) * side / (flat.shape[-1] - 1) * 2 - 1
    y = torch.fft.fftfreq(height, dtype=flat.dtype) * side / (side // 2)
    grid = torch.stack(torch.broadcast_tensors(x, y[:, None]), -1)[None]
    flat = F.grid_sample(flat[None], grid, padding_mode="border", align_corners=True)[0]
    f = _frequencies(size)
    magnitude = torch.where(f > 0, flat / f.clamp(min=1e-12), 0)
    # rfft2 leaves out the mirror image of all columns but those that are their own.
    twice = 2.0 - _own_columns(width).double()
    variance = (magnitude.square() * twice).sum((-2, -1), keepdim=True) / (height * width)
    # A picture of one px has no variance to scale.
    return magnitude / variance.sqrt().clamp(min=1e-12)


def _own_columns(width: int) -> Tensor:
    """Which of rfft2's columns hold their own mirror image: the first and, if W is even, the last.

    >>> _own_columns(4)
    tensor([ True, False,  True])
    """
    columns = torch.arange(width // 2 + 1)
    return (columns == 0) | (2 * columns == width)


def _frequencies(size: tuple[int, int]) -> Tensor:
    """Cycles per px of each entry of `rfft2` for a picture of `size`: `(H, W // 2 + 1)` float64."""
    height, width = size
    y = torch.fft.fftfreq(height, dtype=torch.float64)
    return torch.hypot(y[:, None], torch.fft.rfftfreq(width, dtype=torch.float64)[None])


def soft_clip(values: Tensor) -> Tensor:
    """Any number → [0, 1]: unchanged between 1/16 and 15/16, bent smoothly beyond.

    A sigmoid is steepest in the middle and so pulls all tones towards grey; this keeps them.
    """
    low = torch.expm1((values - KNEE).clamp(max=0) / KNEE)
    high = torch.expm1((1 - KNEE - values).clamp(max=0) / KNEE)
    return values.clamp(KNEE, 1 - KNEE) + KNEE * (low - high)


def soft_unclip(image: Tensor) -> Tensor:
    """The values that `soft_clip` turns into `image`, black and white taken as 1/1024 away."""
    image = image.clamp(MARGIN, 1 - MARGIN)
    low, high = ((v / KNEE).clamp(max=1).log() for v in (image, 1 - image))
    return image.clamp(KNEE, 1 - KNEE) + KNEE * (low - high)


def _checked(image: Tensor) -> Tensor:
    """A copy of `image`, float32 unless float64, that shares no memory and no graph with it."""
    if image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape:
        raise ImageError(f"the image has shape {tuple(image.shape)}; it must be (N, 3, H, W)")
    if not image.is_floating_point():
        raise ImageError(f"the image is {image.dtype}; it must be float, in [0, 1]")
    dtype = torch.float64 if image.dtype == torch.float64 else torch.float32
    return image.detach().to(dtype, copy=True, memory_format=torch.contiguous_format)


def _start(size: tuple[int, int], batch: int, image: Tensor | None) -> Tensor | None:
    """Check `size` and `batch`; a copy of `image`, `batch` of them, or None if there is none."""
    if len(size) != 2 or min(size) < 1 or batch < 1:
        raise SettingsError(f"size {size} × batch {batch}: each must be 1 or more, size is (H, W)")
    if image is None:
        return None
    image = _checked(image)
    if tuple(image.shape[-2:]) != tuple(size) or image.shape[0] not in (1, batch):
        raise SettingsError(
            f"the image has shape {tuple(image.shape)}, size and batch say {(batch, 3, *size)}"
        )
    return image.expand(batch, -1, -1, -1)


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
    and shift 0 `forward()` returns the parameter itself. The image's dtype, float32 or float64,
    stays. Nothing but `clamp_()` keeps the image in [0, 1].
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


class Fourier(nn.Module):
    """Decorrelated colours and scaled frequencies: a better-conditioned start for visualisation.

    The parameter `spectrum`, `(N, 3, H, W // 2 + 1, 2)`, holds the real and imaginary parts of each
    frequency. Each is divided by its frequency to the power of `decay`, fades as under a blur of
    deviation `low_pass`, px, is transformed back, given the colours of natural pictures (unless
    `decorrelate=False`) and squashed to [0, 1]:
    "soft", straight around mid-grey and bent at the ends only, or "sigmoid", as in lucid. Both
    start alike, but the sigmoid holds tones and colours back the harder the further they are from
    grey: it leaves pictures paler and fits a photograph 10 dB worse in as many steps.
    `size` is (H, W), any; `std` the deviation of the random start, drawn from `generator` on the
    CPU. With an `image`, `(1 or batch, 3, H, W)` in [0, 1], it starts from that instead.
    Olah et al. 2017, "Feature Visualization"; the constants are those of lucid.
    """

    spectrum_scale: Tensor
    colour: Tensor

    def __init__(
        self,
        size: tuple[int, int],
        *,
        batch: int = 1,
        std: float = 0.01,
        decay: float = 1.0,
        low_pass: float = 0.0,
        decorrelate: bool = True,
        squash: Squash = "soft",
        generator: torch.Generator | None = None,
        image: Tensor | None = None,
    ) -> None:
        super().__init__()
        if squash not in get_args(Squash):
            raise SettingsError(f"squash is {squash!r}; it must be {' or '.join(get_args(Squash))}")
        start = _start(size, batch, image)
        like = torch.empty(0) if start is None else start
        height, width = size
        self.size = (height, width)
        self.squash = squash
        # The lowest frequency of all stands in for 0, as in lucid, so that the mean can move.
        frequencies = _frequencies(size).clamp(min=1 / max(size))
        scale = frequencies**-decay / 4
        if low_pass:
            passed = (-2 * (math.pi * low_pass * _frequencies(size)) ** 2).exp()
            scale = scale * passed.clamp(min=FAINTEST)
        self.register_buffer("spectrum_scale", scale.to(like)[..., None])
        colour = natural_statistics().colour if decorrelate else torch.eye(3, dtype=torch.float64)
        self.register_buffer("colour", colour.to(like))
        if start is None:
            shape = (batch, 3, height, width // 2 + 1, 2)
            spectrum = torch.randn(shape, generator=generator) * std
        else:
            if squash == "soft":
                values = 4 * (soft_unclip(start) - 0.5)
            else:
                values = torch.logit(start.clamp(MARGIN, 1 - MARGIN))
            values = _mix(torch.linalg.inv(self.colour), values)
            spectrum = torch.view_as_real(torch.fft.rfft2(values, norm="ortho"))
            spectrum = spectrum / self.spectrum_scale
        self.spectrum = nn.Parameter(spectrum)

    @classmethod
    def from_image(
        cls,
        image: Tensor,
        *,
        decay: float = 1.0,
        low_pass: float = 0.0,
        decorrelate: bool = True,
        squash: Squash = "soft",
    ) -> Fourier:
        """Start from `image`, `(N, 3, H, W)`: forward() gives it back, to 1/1024 at the ends."""
        image = _checked(image)
        size, batch = (image.shape[-2], image.shape[-1]), image.shape[0]
        return cls(
            size,
            batch=batch,
            decay=decay,
            low_pass=low_pass,
            decorrelate=decorrelate,
            squash=squash,
            image=image,
        )

    def forward(self) -> Tensor:
        spectrum = torch.view_as_complex(self.spectrum * self.spectrum_scale)
        # s, for an odd width cannot be told from the spectrum's.
        values = torch.fft.irfft2(spectrum, s=self.size, norm="ortho")
        values = _mix(self.colour, values)
        # A quarter is the sigmoid's slope at mid-grey.
        return soft_clip(0.5 + values / 4) if self.squash == "soft" else torch.sigmoid(values)


def _mix(matrix: Tensor, image: Tensor) -> Tensor:
    return torch.einsum("oc,nchw->nohw", matrix, image)


class MaCo(nn.Module):
    """Only the phase of the spectrum is turned; its magnitude stays that of natural pictures.

    The parameter `phase`, `(N, 3, H, W // 2 + 1)`, is in radians and starts uniform, drawn from
    `generator` on the CPU. The colours are decorrelated unless `decorrelate=False`. `size` is
    (H, W), any. With an `image`, `(1 or batch, 3, H, W)` in [0, 1], both magnitude and phase start
    as that image's, and the magnitude is kept: the image can be given back exactly, but under the
    natural magnitude no phase fits any given picture.

    Each backward pass through the image adds the gradient's absolute value to
    `accumulated_gradient`, `(N, 3, H, W)`: where the network cared, see `transparency()`.

    Fel et al. 2023, "Unlocking Feature Visualization for Deeper Networks with MAgnitude
    Constrained Optimization". Two departures: the phases of a frequency and of its negative are
    tied, without which the first and last column do not keep their magnitude; and the values have
    nature's mean and contrast and are clipped softly, where the paper's sigmoid turns them pale.
    The paper's steps are NAdam of 1 rad, a thousand; of fewer, smaller ones settle better.
    """

    magnitude: Tensor
    own: Tensor
    free: Tensor
    fixed: Tensor
    mean: Tensor
    colour: Tensor
    accumulated_gradient: Tensor

    def __init__(
        self,
        size: tuple[int, int],
        *,
        batch: int = 1,
        decorrelate: bool = True,
        generator: torch.Generator | None = None,
        image: Tensor | None = None,
    ) -> None:
        super().__init__()
        start = _start(size, batch, image)
        like = torch.empty(0) if start is None else start
        height, width = size
        self.size = (height, width)
        colour = natural_statistics().axes if decorrelate else torch.eye(3, dtype=torch.float64)
        shape = (batch, 3, height, width // 2 + 1)
        if start is None:
            magnitude = natural_magnitude(size)[None]
            if not decorrelate:
                # R, G and B each mostly follow luminance, the first channel.
                deviation = natural_statistics().covariance.diagonal().sqrt()
                magnitude = magnitude[:, :1] * deviation[:, None, None]
            phase = (torch.rand(shape, generator=generator) * 2 - 1) * math.pi
            mean = natural_statistics().mean[None, :, None, None]
        else:
            values = soft_unclip(start)
            mean = values.mean((-2, -1), keepdim=True)
            spectrum = torch.fft.rfft2(
                _mix(torch.linalg.inv(colour).to(like), values - mean), norm="ortho"
            )
            magnitude, phase = spectrum.abs(), spectrum.angle()
        # An entry that is its own mirror image is real: its phase is 0 or π for good.
        own, rows = _own_columns(width), torch.arange(height)
        real = (((rows == 0) | (2 * rows == height))[:, None] & own).to(like.device)
        fixed = torch.where(phase.abs() > math.pi / 2, math.pi, 0.0)
        self.register_buffer("own", own.to(like.device))
        self.register_buffer("free", ~real)
        self.register_buffer("fixed", torch.where(real, fixed, 0.0).to(like))
        self.register_buffer("magnitude", magnitude.to(like))
        self.register_buffer("mean", mean.to(like))
        self.register_buffer("colour", colour.to(like))
        self.register_buffer("accumulated_gradient", like.new_zeros((batch, 3, height, width)))
        self.phase = nn.Parameter(phase)

    @classmethod
    def from_image(cls, image: Tensor, *, decorrelate: bool = True) -> MaCo:
        """Start from `image`, `(N, 3, H, W)`, and keep its own magnitude."""
        image = _checked(image)
        size, batch = (image.shape[-2], image.shape[-1]), image.shape[0]
        return cls(size, batch=batch, decorrelate=decorrelate, image=image)

    def unclipped(self) -> Tensor:
        """The image before its values are clipped softly to [0, 1]."""
        phase = self._odd(self.phase) * self.free + self.fixed
        spectrum = torch.polar(self.magnitude.expand_as(phase), phase)
        values = torch.fft.irfft2(spectrum, s=self.size, norm="ortho")
        return _mix(self.colour, values) + self.mean

    def forward(self) -> Tensor:
        image = soft_clip(self.unclipped())
        if image.requires_grad:
            image.register_hook(self._accumulate)
        return image

    def _odd(self, phase: Tensor) -> Tensor:
        """`phase` with phase(-f) = -phase(f) in the columns that are their own mirror image."""
        height = self.size[0]
        top, bottom = phase[..., : height // 2 + 1, :], phase[..., height // 2 + 1 :, :]
        mirrored = -phase[..., 1 : (height + 1) // 2, :].flip(-2)
        return torch.cat((top, torch.where(self.own, mirrored, bottom)), -2)

    def _accumulate(self, gradient: Tensor) -> None:
        # Not in place: whoever has the sum so far keeps it.
        self.accumulated_gradient = self.accumulated_gradient + gradient.detach().abs()

    def transparency(self, percentile: float = 80.0) -> Tensor:
        """How opaque each place should be shown: `opacity` of `accumulated_gradient`."""
        return opacity(self.accumulated_gradient, percentile)


def opacity(gradient: Tensor, percentile: float = 80.0) -> Tensor:
    """How opaque each place should be shown where so much gradient came, `(N, 1, H, W)` in [0, 1].

    gradient: accumulated, `(N, 3, H, W)`. Its mean over channels counts, relative to its
    `percentile` in (0, 100]; what lies above is 1. Where there was no gradient at all all is 1.
    """
    if not 0 < percentile <= 100:
        raise SettingsError(f"percentile is {percentile}; it must be above 0 and at most 100")
    mean = gradient.mean(1, keepdim=True)
    flat = mean.flatten(1)
    rank = max(1, math.ceil(flat.shape[1] * percentile / 100))
    limit = on_processor_where_missing(lambda values: values.kthvalue(rank, dim=1).values, flat)
    # Few places may have had any gradient at all.
    limit = torch.where(limit > 0, limit, flat.amax(1))[:, None, None, None]
    return torch.where(limit > 0, (mean / limit).clamp(max=1), 1.0)
