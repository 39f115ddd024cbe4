"""Gradient → gradient: what happens to a gradient `(N, C, H, W)` before the step is taken.

Every transform treats each picture of the batch by itself and keeps shape, dtype and device.
A newcomer's goes into one file: a function that returns such a function, under `@gradient`.

What looks beyond a single px (`smooth`, `laplacian`, `normalise`) takes a `weight`
`(1 or N, 1, H, W)`, 0 or more, within which it looks: means are weighted by it, blurs are
normalised convolutions (Knutsson and Westin 1993), blur(weight · g) / blur(weight), and what lies
where it is 0 changes nothing elsewhere. The weight's own size cancels out: 1 everywhere, or any
other number, is as none. `shares` makes such weights of masks, and `blend` one gradient of several.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene.chain import parse_chain
from phosphene.errors import SettingsError, suggest
from phosphene.natural import natural_statistics
from phosphene.plugins import Registry
from phosphene.plugins.registry import home_of, within
from phosphene.runtime import fused
from phosphene.runtime.device import resident

GradientTransform = Callable[[Tensor], Tensor]
Normalisation = Literal["mean", "std", "norm", "rms", "none"]

GRADIENTS: Registry[Callable[..., GradientTransform]] = Registry(
    "gradient transform", SettingsError, offered=("weight",)
)
"""Every gradient transform that a text can name: "smooth(2), clip(3)"."""

# Below this a gradient counts as none; float32 still divides by it.
EPSILON = 1e-20
PICTURE = (1, 2, 3)
# Pixels of a blur's passes, altogether, that are small beside what else is in memory.
AT_A_TIME = 2**22
LEAST_SIGMA = 0.1  # px, of a blur that does anything
# A band so much fainter than the whole is what rounding left of an empty one.
FAINTEST = 1e-4


def gradient(
    function: Callable[..., GradientTransform],
) -> Callable[..., GradientTransform]:
    """Register a maker of gradient transforms under its own name.

    SettingsError if another one has the name.
    """
    GRADIENTS.add(function.__name__, function)
    return function


def compose(*transforms: GradientTransform) -> GradientTransform:
    """One after the other, the first one first."""

    def composed(g: Tensor) -> Tensor:
        for transform in transforms:
            g = transform(g)
        return g

    return composed


def built_in(text: str | None) -> bool:
    """Whether all that a chain names is phosphene's own, which draws nothing by chance."""
    calls = parse_chain(text, GRADIENTS.kind) if text else ()
    return all(within(home_of(GRADIENTS[call.name])[0], "phosphene") for call in calls)


def shares(masks: Sequence[Tensor], *, rest: bool) -> Tensor:
    """How much each of several objectives counts at each px, `(K, 1 or N, 1, H, W)`.

    wₖ = mₖ / max(1, Σ m): masks that overlap share, soft edges stay soft.

    Args:
        masks: each `(1 or N, 1, H, W)` in [0, 1].
        rest: one more, the last: 1 − Σ w, what the masks leave.
    """
    found = torch.stack(torch.broadcast_tensors(*masks))
    found = found / found.sum(0).clamp_min(1)
    if not rest:
        return found
    left = (1 - found.sum(0)).clamp_min(0)  # rounding may go below
    return torch.cat([found, left[None]])


def blend(weights: Tensor, transforms: Sequence[GradientTransform]) -> GradientTransform:
    """Several gradients as one: `(K, N, C, H, W)` -> `Σ weightₖ · transformₖ(gₖ)`, `(N, C, H, W)`.

    weights: `(K, 1 or N, 1, H, W)`, as `shares` gives them. What a gradient has where its own is 0
        is left out before it is transformed.
    """

    there = resident(weights)

    def blended(several: Tensor) -> Tensor:
        total = torch.zeros_like(several[0])
        for g, weight, transform in zip(several, there(several), transforms, strict=True):
            total.addcmul_(transform(g * (weight > 0)), weight)
        return total

    return blended


def _norm(g: Tensor) -> Tensor:
    """The l2 norm of each picture, `(N, 1, 1, 1)`, wherever it is a number of `g`'s own type."""
    # Squares leave float32 at 1e19, long before their root would, and vanish below 1e-23. Asking
    # for their size would stall an accelerator; CUDA adds them up in float64 in the same call.
    if g.device.type == "cpu":
        norm = torch.linalg.vector_norm(g, dim=PICTURE, keepdim=True)
        if bool(((norm > 1e-12) & (norm < 1e18)).all()):
            return norm
    elif g.device.type != "mps":  # which has no float64
        return _norm_by_float64(g)
    return _scaled_norm(g)


def _scaled_norm(g: Tensor) -> Tensor:
    most = torch.linalg.vector_norm(g, torch.inf, dim=PICTURE, keepdim=True)
    scale = torch.where(most > 0, most, 1)
    return torch.linalg.vector_norm(g / scale, dim=PICTURE, keepdim=True) * scale


def _norm_by_float64(g: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(g, dim=PICTURE, keepdim=True, dtype=torch.float64)
    return norm.to(g.dtype)


def _rms(g: Tensor, weight: Tensor | None = None) -> Tensor:
    """The root mean square of each picture, `(N, 1, 1, 1)`, as the weight counts its px."""
    if weight is None:
        return _norm(g) / math.sqrt(g[0].numel())
    return _norm(g * weight.sqrt()) / _weighed(g, weight).sqrt()


def _mean(g: Tensor, weight: Tensor | None = None) -> Tensor:
    if weight is None:
        return g.mean(PICTURE, keepdim=True)
    return (g * weight).sum(PICTURE, keepdim=True) / _weighed(g, weight)


def _weighed(g: Tensor, weight: Tensor) -> Tensor:
    """How many values a weight counts."""
    return (g.shape[1] * weight.sum(PICTURE, keepdim=True)).clamp_min(EPSILON)


@gradient
def normalise(
    by: Normalisation = "mean", *, epsilon: float = EPSILON, weight: Tensor | None = None
) -> GradientTransform:
    """Scale the gradient so that a step size means the same for every layer and picture.

    - `mean`: divide by mean |g| (Google's 2015 notebook): a typical value moves by one step;
    - `std`: subtract the mean, divide by the (sample) standard deviation;
    - `norm`: divide by the l2 norm of the whole gradient, so a step is that long altogether;
    - `rms`: divide by the root mean square: like `norm`, whatever the picture's size;
    - `none`: leave it.

    A divisor below `epsilon` becomes `epsilon`: a vanished gradient stays zero.

    weight: where it is looked at. `norm` is then the root mean square within, times the root of
        the number of values in the whole picture: parts that fill it make one step of that length.
    """

    def norm(g: Tensor) -> Tensor:
        if weight is None:
            return _norm(g)
        return _rms(g, weight) * math.sqrt(g[0].numel())

    divisors: dict[str, Callable[[Tensor], Tensor]] = {
        "mean": lambda g: _mean(g.abs(), weight),
        "std": lambda g: norm(g) / math.sqrt(max(g[0].numel() - 1, 1)),  # less its mean already
        "norm": norm,
        "rms": lambda g: _rms(g, weight),
    }
    if by == "none":
        return lambda g: g
    if by not in divisors:
        raise SettingsError(f"no normalisation {by!r}{suggest(by, [*divisors, 'none'])}")
    divisor = divisors[by]

    def normalised(g: Tensor) -> Tensor:
        if by == "std":
            g = g - _mean(g, weight)
        return g / divisor(g).clamp_min(epsilon)

    return normalised


def blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `(N, C, H, W)`, `sigma` in px, edges repeated; exact for constants."""
    if sigma < LEAST_SIGMA:  # the next pixel's share would be below any rounding
        return image
    weights = _gaussian(sigma, image.dtype)
    blurred = torch.empty_like(image, memory_format=torch.contiguous_format)
    planes, into = image.flatten(0, 1)[:, None], blurred.view(-1, 1, *image.shape[2:])
    # Of a large picture one channel at a time, as each pass makes copies.
    some = max(1, AT_A_TIME // max(planes[0].numel(), 1))
    for plane, result in zip(planes.split(some), into.split(some), strict=True):
        down = torch.empty_like(plane, memory_format=torch.contiguous_format)
        _blurred_along(plane, 2, sigma, weights, down)
        _blurred_along(down, 3, sigma, weights, result)
    return blurred


def _blurred_along(
    planes: Tensor, axis: int, sigma: float, weights: Sequence[float], into: Tensor
) -> None:
    """A blur of `(N, 1, H, W)` along one axis."""
    # A function of its own, so that what is padded is gone before the next is.
    radius = len(weights) // 2
    if not fused.blurred_along(planes, axis, sigma, radius, into):
        ends = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
        _slid(F.pad(planes, ends, mode="replicate"), weights, axis, into)


@functools.lru_cache(maxsize=64)
def _gaussian(sigma: float, dtype: torch.dtype) -> tuple[float, ...]:
    """The weights of a blur, in a type's precision, from -3 sigma to 3 sigma; they sum to 1."""
    radius = math.ceil(3 * sigma)
    # On the processor, whose numbers can be had at once: to ask an accelerator's would stall it.
    x = torch.arange(-radius, radius + 1, dtype=dtype)
    kernel = torch.exp(-(x**2) / (2 * sigma**2))
    return tuple((kernel / kernel.sum()).tolist())


def _slid(planes: Tensor, kernel: Sequence[float], axis: int, into: Tensor) -> None:
    """A kernel along one axis of `(N, 1, H, W)`, without padding.

    As a sum of shifted planes: a convolution of one channel is ten times as slow.
    """
    length = into.shape[axis]
    torch.mul(planes.narrow(axis, 0, length), kernel[0], out=into)
    for start, weight in enumerate(kernel[1:], 1):
        into.add_(planes.narrow(axis, start, length), alpha=weight)


@gradient
def smooth(sigma: float, *, weight: Tensor | None = None) -> GradientTransform:
    """Blur the gradient, `sigma` in px: larger shapes, less grain. weight: from where it is had."""
    if weight is None or sigma < LEAST_SIGMA:
        return lambda g: blur(g, sigma)
    spread = blur(weight, sigma).clamp_min(EPSILON)
    return lambda g: blur(g * weight, sigma).div_(spread)


@gradient
def laplacian(levels: int = 4, *, weight: Tensor | None = None) -> GradientTransform:
    """Bring all spatial frequencies to equal strength: split into octave bands, scale each, add.

    The Laplacian pyramid normalisation of TensorFlow's DeepDream notebook (Mordvintsev, 2016).
    Fewer levels where the picture is too small for so many.

    weight: where it is looked at. Each band is made by normalised convolution, and measured where
        the weight, made smaller with it, lies.
    """

    def halved(g: Tensor) -> Tensor:
        return F.avg_pool2d(blur(g, 1.0), 2, ceil_mode=True, count_include_pad=False)

    def halved_within(g: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if weight is None:
            return halved(g), None
        smaller = halved(weight)
        return halved(g * weight).div_(smaller.clamp_min(EPSILON)), smaller

    def equalised(g: Tensor) -> Tensor:
        here = weight
        least = (FAINTEST * _rms(g, here)).clamp_min(EPSILON)

        def scaled(band: Tensor, weight: Tensor | None) -> Tensor:
            return band.div_(torch.maximum(_rms(band, weight), least))

        bands = []
        for _ in range(levels):
            if min(g.shape[2:]) < 4:
                break
            low, below = halved_within(g, here)
            up = F.interpolate(low, g.shape[2:], mode="bilinear", align_corners=False)
            bands.append((up.neg_().add_(g), here))  # g - up: no third picture of full size
            g, here = low, below
        out = scaled(g.clone(), here)
        for band, there in reversed(bands):
            up = F.interpolate(out, band.shape[2:], mode="bilinear", align_corners=False)
            out = up.add_(scaled(band, there))
        return out

    return equalised


@gradient
def natural(share: float) -> GradientTransform:
    """Steepest ascent in the metric of natural colours: (1 - share) · g + share · Σ g.

    Σ, `(3, 3)`, is the covariance of R, G and B in natural pictures over its mean diagonal. There
    R, G and B mostly change together, so that a step of one size is one that nature makes often:
    without the magenta and cyan fringes that no photograph has. 0 leaves the gradient, at 1 it is
    nearly without colour. What decorrelated colour is for drawings (Olah et al. 2017, "Feature
    Visualization"); the metric of an ascent, Amari 1998, "Natural gradient".

    Raises:
        SettingsError: for a share that is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise SettingsError(f"natural is {share}; it must be from 0 to 1")
    covariance = natural_statistics().covariance
    covariance = covariance / covariance.diagonal().mean()
    matrix = torch.lerp(torch.eye(3, dtype=covariance.dtype), covariance, share)

    there = resident(matrix)

    def mixed(g: Tensor) -> Tensor:
        return torch.einsum("oc,nchw->nohw", there(g), g)

    return mixed


@gradient
def clip(limit: float) -> GradientTransform:
    """Cut values beyond ±`limit`, in units of the normalised gradient."""
    return lambda g: g.clamp(-limit, limit)


@gradient
def none() -> GradientTransform:
    """Leave the gradient as it is."""
    return compose()


def mask(where: Tensor) -> GradientTransform:
    """Multiply by a mask `(1 or N, 1, H, W)` in [0, 1]: dream where it is white."""
    there = resident(where)
    return lambda g: g * there(g)
