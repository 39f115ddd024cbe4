"""What a picture starts from where there is no photograph: noise or a sky."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from phosphene.errors import SettingsError
from phosphene.image.files import PIXEL_LIMIT
from phosphene.image.sky import draw_sky

# Wide enough to dream into, narrow enough that nothing of it is cut off at black or white.
DEVIATION = 1 / 6
# Of natural noise. Its amplitudes fall with frequency, f, as f^-1.6: those of pictures fall as 1/f,
# and the grain of that comes back in every octave. No wave is longer than half the longer side, so
# that one corner is not night and another day; and colours are some way from their extremes.
FALL, LONGEST_WAVE, CONTRAST = 1.6, 0.5, 0.7


def start_picture(
    kind: Literal["noise", "natural noise", "sky"], size: tuple[int, int], seed: int = 0
) -> Tensor:
    """Noise or a sky of `size` (H, W): `(1, 3, H, W)` float32 sRGB in [0, 1], on the CPU.

    Noise is normal about mid-grey, every value by itself. Natural noise has the mean and the
    colours of natural pictures, and falls with frequency as they do, or a little faster.

    Raises:
        SettingsError: sides below 1, more pixels than can be read, or a negative seed.
    """
    height, width = size
    if min(size) < 1 or height * width > PIXEL_LIMIT or seed < 0:
        raise SettingsError(
            f"a start of {width}×{height} px with seed {seed}: sides are 1 or more, "
            f"{PIXEL_LIMIT / 1e6:g} megapixels at most, seeds 0 or more"
        )
    if kind == "sky":
        return draw_sky(height, width, seed)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, 3, height, width, generator=generator)
    if kind == "natural noise":
        return _natural(noise)
    return (0.5 + DEVIATION * noise).clamp(0, 1)


def _natural(noise: Tensor) -> Tensor:
    """White noise with the spectrum and the colours of natural pictures."""
    from phosphene.natural import natural_statistics

    height, width = noise.shape[-2:]
    down = torch.fft.fftfreq(height, 1 / height)[:, None] / height
    frequency = (down.square() + torch.fft.rfftfreq(width).square()).sqrt()
    least = 1 / (LONGEST_WAVE * max(height, width))
    amplitude = frequency.clamp(min=least) ** -FALL
    amplitude[0, 0] = 0
    waves = torch.fft.irfft2(torch.fft.rfft2(noise) * amplitude, s=(height, width))
    waves *= CONTRAST / waves.square().mean().sqrt().clamp(min=1e-6)
    statistics = natural_statistics()
    colours = torch.einsum("cd,ndhw->nchw", statistics.axes.float(), waves)
    return (statistics.mean.float().view(3, 1, 1) + colours).clamp(0, 1)
