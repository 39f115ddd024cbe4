"""Where exact tiles of an image begin and end, px; without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

Size = tuple[int, int]  # (H, W)
Span = tuple[int, int]  # (first, last + 1)


class Cut(NamedTuple):
    """A core and its tile, which is the core and its halo, along one axis."""

    core: Span
    tile: Span


Box = tuple[Cut, Cut]  # of rows and of columns


@dataclass(frozen=True)
class Axis:
    """How tiles are cut along one axis of an image, px.

    Attributes:
        period: cores begin at its multiples.
        before, after: the halo on either side of a core.
        least: the shortest side that the network takes.
        strides: for each layer, from one position to the next.
    """

    period: int
    before: int
    after: int
    least: int
    strides: Mapping[str, Fraction]

    def cuts(self, side: int, tile: int) -> list[Cut]:
        """The cores along a side, of at most `tile` px (up to whole periods), and their tiles."""
        count = math.ceil(side / round_up(tile, self.period))
        core = round_up(math.ceil(side / count), self.period)  # alike, no sliver at the end
        # All tiles are as long as the image but for whole periods, since some networks, as
        # TensorFlow's, pad by the length of what they get.
        after = self.after + (side - self.after) % self.period
        cuts: list[Cut] = []
        for begin in range(0, side, core):
            end = min(begin + core, side)
            first = max(0, begin - self.before)
            last = side if end == side else min(side, end + after)
            first = max(0, first - round_up(max(0, self.least - (last - first)), self.period))
            last = min(side, last + round_up(max(0, self.least - (last - first)), self.period))
            cuts.append(Cut((begin, end), (first, last)))
        return cuts

    def owned(self, layer: str, core: Span, side: int, count: int) -> Span:
        """(first, last + 1) of a map's `count` positions of a core; the last one owns the rest."""
        stride = self.strides[layer]
        last = count if core[1] == side else math.ceil(core[1] / stride)
        return min(math.ceil(core[0] / stride), count), min(last, count)


@dataclass(frozen=True)
class ExactTiling:
    """How images are cut for one network and objective: vertically and horizontally."""

    axes: tuple[Axis, Axis]

    @property
    def smallest(self) -> int:
        """The smallest tile, px."""
        return max(axis.period for axis in self.axes)

    def boxes(self, size: Size, tile: int) -> list[Box]:
        """The vertical and the horizontal cut of each tile of an image of `size` (H, W)."""
        rows, columns = (axis.cuts(side, tile) for axis, side in zip(self.axes, size, strict=True))
        return [(row, column) for row in rows for column in columns]

    def pixels(self, size: Size, tile: int) -> tuple[int, int]:
        """How many px the largest tile has, its halo included, and all tiles together."""
        rows, columns = (
            [last - first for _, (first, last) in axis.cuts(side, tile)]
            for axis, side in zip(self.axes, size, strict=True)
        )
        return max(rows) * max(columns), sum(rows) * sum(columns)


def round_up(number: int, multiple: int) -> int:
    """`number`, rounded up to a multiple."""
    return -(-number // multiple) * multiple
