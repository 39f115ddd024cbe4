"""Several pictures on one."""

from __future__ import annotations

import math

from torch import Tensor

GAP = 4  # px of white between pictures


def grid(pictures: Tensor, *, columns: int | None = None, gap: int = GAP) -> Tensor:
    """A batch `(N, 3, H, W)` as one picture `(1, 3, H', W')`, row by row; white where none is left.

    columns: by default as many as make the whole about as wide as it is high. One picture is
        returned as it is.
    """
    count, channels, height, width = pictures.shape
    if count == 1:
        return pictures
    if columns is None:
        columns = min(count, math.ceil(math.sqrt(count * (height + gap) / (width + gap))))
    rows = -(-count // columns)
    sheet = pictures.new_ones(
        1, channels, rows * (height + gap) - gap, columns * (width + gap) - gap
    )
    for index, picture in enumerate(pictures):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[0, :, top : top + height, left : left + width] = picture
    return sheet
