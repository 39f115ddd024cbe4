"""Several pictures on one."""

from __future__ import annotations

import math

from torch import Tensor

GAP = 4  # px of white between pictures


def grid(
    pictures: Tensor, *, columns: int | None = None, gap: int = GAP, blank: float = 1.0
) -> Tensor:
    """A batch `(N, C, H, W)` as one picture `(1, C, H', W')`, row by row.

    blank: the value between pictures, and where none is left: white.

    columns: by default as many as make the whole about as wide as it is high. One picture is
        returned as it is.
    """
    count, channels, height, width = pictures.shape
    if count == 1:
        return pictures
    if columns is None:
        columns = min(count, math.ceil(math.sqrt(count * (height + gap) / (width + gap))))
    rows = -(-count // columns)
    shape = (1, channels, rows * (height + gap) - gap, columns * (width + gap) - gap)
    sheet = pictures.new_full(shape, blank)
    for index, picture in enumerate(pictures):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[0, :, top : top + height, left : left + width] = picture
    return sheet
