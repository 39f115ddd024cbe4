"""Outlines of where a map is high: closed lines, by marching squares (Lorensen and Cline 1987)."""

from __future__ import annotations

import numpy as np
from torch import Tensor

Point = tuple[float, float]

# By which corners of a square are inside (upper left 8, upper right 4, lower right 2, lower left
# 1): from which of its sides to which the line goes, with the inside at its right hand. Where two
# opposite corners are inside, they are not joined.
_SIDES: dict[int, tuple[str, ...]] = {
    1: ("LB",), 2: ("BR",), 3: ("LR",), 4: ("RT",), 5: ("LB", "RT"), 6: ("BT",), 7: ("LT",),
    8: ("TL",), 9: ("TB",), 10: ("TL", "BR"), 11: ("TR",), 12: ("RL",), 13: ("RB",), 14: ("BL",),
}  # fmt: skip


def outlines(values: Tensor, level: float) -> list[list[Point]]:
    """Closed lines around where a map `(h, w)` is above a level.

    Points are (x, y) in px of the map, whose pixels' centres lie at halves: (0.5, 0.5) is the first
    one's. What is high up to the map's edge is closed along the edge. The first point of a line is
    its last one, too.
    """
    inner = values.cpu().double().numpy() - level
    # Beyond the edge as far below 0 as the edge is above it: the line is then the edge itself.
    field = np.pad(inner, 1, mode="edge")
    rim = np.ones_like(field, dtype=bool)
    rim[1:-1, 1:-1] = False
    field[rim] = -np.abs(field[rim])
    inside = field > 0
    cases = 8 * inside[:-1, :-1] + 4 * inside[:-1, 1:] + 2 * inside[1:, 1:] + 1 * inside[1:, :-1]
    follows: dict[tuple[str, int, int], tuple[str, int, int]] = {}
    for y, x in np.argwhere((cases > 0) & (cases < 15)).tolist():
        sides = {"T": ("h", y, x), "B": ("h", y + 1, x), "L": ("v", y, x), "R": ("v", y, x + 1)}
        for first, last in _SIDES[int(cases[y, x])]:
            follows[sides[first]] = sides[last]
    return [[_point(field, side) for side in line] for line in _lines(follows)]


def _lines(
    follows: dict[tuple[str, int, int], tuple[str, int, int]],
) -> list[list[tuple[str, int, int]]]:
    """The closed lines of what follows upon what, which uses it up."""
    found = []
    while follows:
        line = [next(iter(follows))]
        while (after := follows.pop(line[-1], None)) is not None:
            line.append(after)
        found.append(line)
    return found


def _point(field: np.ndarray, side: tuple[str, int, int]) -> Point:
    """Where a line crosses the side from one corner to the next; the map is padded by 1."""
    kind, y, x = side
    down, right = (0, 1) if kind == "h" else (1, 0)
    a, b = field[y, x], field[y + down, x + right]
    share = 0.5 if a == b else a / (a - b)
    return float(x + share * right - 0.5), float(y + share * down - 0.5)
