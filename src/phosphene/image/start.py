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


def start_picture(kind: Literal["noise", "sky"], size: tuple[int, int], seed: int = 0) -> Tensor:
    """Noise or a sky of `size` (H, W): `(1, 3, H, W)` float32 sRGB in [0, 1], on the CPU.

    Noise is normal about mid-grey, every value by itself.

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
    return (0.5 + DEVIATION * noise).clamp(0, 1)
