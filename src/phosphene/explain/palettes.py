"""Colours for numbers: from the least to the highest.

viridis, magma and inferno are those of Stéfan van der Walt and Nathaniel Smith (2015, CC0), which
Matplotlib has: equal steps look equal, in grey and to the colour-blind too. Here each is 17 of its
colours, between which lines are drawn, which is never further off than 7 of 255.
"""

from __future__ import annotations

import torch
from torch import Tensor

PALETTES: dict[str, str] = {
    "grey": "ffffff 000000",  # as on paper: darker is higher
    "viridis": "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1fa088 28ae80 3fbc73"
    " 5ec962 84d44b addc30 d8e219 fde725",
    "magma": "000004 0a0822 1d1147 36106b 51127c 6a1c81 832681 9c2e7f b73779 d0416f e75263 f56b5c"
    " fc8961 fea772 fec488 fde2a3 fcfdbf",
    "inferno": "000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754 d24644 e45a31 f1731d"
    " f98e09 fcac11 f9cb35 f2ea69 fcffa4",
}


def coloured(values: Tensor, palette: str) -> Tensor:
    """Numbers `(…, h, w)` in [0, 1] as colours `(…, 3, h, w)` in [0, 1]; those beyond are cut off.

    >>> coloured(torch.tensor([[0.0, 0.25, 1.0]]), "grey")[0]
    tensor([[1.0000, 0.7500, 0.0000]])
    """
    table = torch.tensor([[*bytes.fromhex(code)] for code in PALETTES[palette].split()]) / 255
    place = values.float().clamp(0, 1) * (len(table) - 1)
    below = place.floor().clamp(max=len(table) - 2)
    mixed = torch.lerp(table[below.long()], table[below.long() + 1], (place - below)[..., None])
    return mixed.movedim(-1, -3)
