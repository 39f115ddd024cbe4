"""Against drift: what keeps thousands of frames, each dreamt of the last, as light, colourful and
detailed as the first.

Colours are measured in CIE L*a*b* (D65, 2°), where equal distances look about equally far.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from phosphene import image as images
from phosphene.errors import ImageError

# Linear sRGB to XYZ over its white, IEC 61966-2-1; each row sums to 1.
_TO_XYZ = (
    (0.412453 / 0.950456, 0.357580 / 0.950456, 0.180423 / 0.950456),
    (0.212671, 0.715160, 0.072169),
    (0.019334 / 1.088754, 0.119193 / 1.088754, 0.950227 / 1.088754),
)
_FROM_XYZ = torch.linalg.inv(torch.tensor(_TO_XYZ, dtype=torch.float64)).tolist()
_KNEE = 6 / 29  # CIE 15: below its cube the cube root is a line
SHOULDER = 0.08  # of black to white, at each end, in which values are bent away from it
LEAST_DEVIATION = 1e-3  # of a flat channel, which no factor makes lively
FINEST, COARSEST = 2, 8  # px, the grids between which lies the band of the noise
COLOURFUL = 1.5  # how far a* and b* may deviate, of L*, where it is more only from px to px
COLOUR = 0.35  # how strong the noise's three channels are apart, next to what they share


@dataclass(frozen=True)
class LabStatistics:
    """Mean and standard deviation of L*, a* and b*, each `(N, 3, 1, 1)`."""

    mean: Tensor
    deviation: Tensor


def to_lab(image: Tensor) -> Tensor:
    """sRGB `(N, 3, H, W)` in [0, 1] to L* in 0–100 and a*, b* in about ±100."""
    _check(image)
    linear = torch.where(
        image <= 0.04045, image / 12.92, ((image.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    )
    xyz = _mixed(linear, _TO_XYZ)
    root = torch.where(
        xyz > _KNEE**3,
        xyz.clamp_min(_KNEE**3) ** (1 / 3),
        xyz / (3 * _KNEE**2) + 4 / 29,
    )
    x, y, z = root.split(1, 1)
    return torch.cat([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def from_lab(lab: Tensor) -> Tensor:
    """The way back, `(N, 3, H, W)`; what sRGB does not hold is outside [0, 1]."""
    _check(lab)
    lightness, a, b = lab.split(1, 1)
    y = (lightness + 16) / 116
    root = torch.cat([y + a / 500, y, y - b / 200], 1)
    xyz = torch.where(root > _KNEE, root**3, 3 * _KNEE**2 * (root - 4 / 29))
    linear = _mixed(xyz, _FROM_XYZ)
    curved = 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, linear * 12.92, curved)


def _mixed(image: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    """A matrix times the channels, in a fixed order of sums."""
    red, green, blue = image.split(1, 1)
    return torch.cat([row[0] * red + row[1] * green + row[2] * blue for row in matrix], 1)


def _check(image: Tensor) -> None:
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        raise ImageError(
            f"colours are of a floating tensor (N, 3, H, W); this is {image.dtype} "
            f"{tuple(image.shape)}"
        )


def lab_statistics(image: Tensor) -> LabStatistics:
    """Mean and deviation of a picture's colours."""
    return _statistics(to_lab(image))


def _statistics(lab: Tensor) -> LabStatistics:
    # In float64: of a large picture the sums are long.
    deviation, mean = torch.std_mean(
        lab.double() if lab.device.type != "mps" else lab, (2, 3), correction=0, keepdim=True
    )
    return LabStatistics(mean.to(lab), deviation.to(lab))


def colours_to_keep(start: Tensor) -> LabStatistics:
    """Those of a picture that a film comes back to: its own, but for the colours of pixel noise.

    Where a* and b* deviate more than `COLOURFUL` times as L* only because each px has a colour of
    its own, as in white noise, a film as colourful would be neon: they count as far as that, or as
    they are seen at a quarter of the size.
    """
    own = lab_statistics(start)
    height, width = images.size_of(start)
    quarter = (-(-height // 4), -(-width // 4))
    seen = lab_statistics(images.resize(start, quarter).clamp(0, 1))
    most = torch.maximum(seen.deviation, COLOURFUL * own.deviation[:, :1])
    return LabStatistics(own.mean, torch.minimum(own.deviation, most))


def pulled(image: Tensor, target: LabStatistics, share: float) -> Tensor:
    """A picture whose Lab mean and deviation have gone `share` of the way to the target's.

    One factor and one shift for each of L*, a* and b* (Reinhard et al., "Color transfer between
    images", 2001), which neither posterises nor moves an edge, as matching histograms does. What
    comes near black or white is bent away from it, so that the next dream has room to move in and
    a film does not clip more and more.
    """
    if share == 0:
        return image
    lab = to_lab(image.clamp(0, 1))
    have = _statistics(lab)
    want = torch.lerp(have.deviation, target.deviation.to(lab), share)
    factor = want / have.deviation.clamp_min(LEAST_DEVIATION)
    factor = torch.where(have.deviation > LEAST_DEVIATION, factor, torch.ones_like(factor))
    mean = torch.lerp(have.mean, target.mean.to(lab), share)
    return _bent(from_lab((lab - have.mean) * factor + mean))


def _bent(image: Tensor) -> Tensor:
    """Values in [0, 1]: as they are, but for the shoulders at both ends, which level off."""
    over = (image - (1 - SHOULDER)).clamp_min(0)
    under = (SHOULDER - image).clamp_min(0)
    inner = image.clamp(SHOULDER, 1 - SHOULDER)
    return inner - SHOULDER * (torch.expm1(-over / SHOULDER) - torch.expm1(-under / SHOULDER))


def band_noise(size: tuple[int, int], *, seed: int, frame: int, like: Tensor) -> Tensor:
    """Noise of details a few px wide, `(1, 3, H, W)`, deviation 1 in each channel.

    A zoom enlarges what is there, and brings no new detail: this is what the next dream makes
    detail of. White noise less what is finer and coarser than the band, mostly of lightness.

    Args:
        size: (H, W).
        seed, frame: of every number in it.
        like: whose dtype and device it has.
    """
    generator = torch.Generator().manual_seed((seed * 0x9E3779B97F4A7C15 + frame) % 2**63)

    def smaller(times: int) -> tuple[int, int]:
        return -(-size[0] // times), -(-size[1] // times)

    shared = torch.randn(1, 1, *smaller(FINEST), generator=generator)
    apart = torch.randn(1, 3, *smaller(FINEST), generator=generator)
    noise = shared + COLOUR * apart
    coarse = images.resize(images.resize(noise, smaller(COARSEST)), size)
    band = images.resize(noise, size) - coarse
    deviation = band.std((2, 3), correction=0, keepdim=True)
    return (band / deviation.clamp_min(torch.finfo(band.dtype).tiny)).to(like)
