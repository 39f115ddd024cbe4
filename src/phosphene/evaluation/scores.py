"""A score as sums over the positions of maps, which is what tiles can add up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from phosphene.objectives import Activations, Objective, cells


@dataclass(frozen=True)
class PositionScores:
    """The values `(N, H, W)` of a term over a layer's positions, and how they become its score.

    Attributes:
        weight: the term's, in the objective.
        layer: the layer whose positions they are.
        values: the image's or the tile's.
        margin: positions next to the map's border that count as 0; it leaves one at least.
        mean: their sum is divided by the number of positions of the whole map.
        root: the term's score is the square root of the sum.
    """

    weight: float
    layer: str
    values: Tensor
    margin: int = 0
    mean: bool = True
    root: bool = False


def terms_of(objective: Objective) -> tuple[tuple[float, Objective], ...]:
    """The weighted terms of which an objective is the sum."""
    return objective.terms or ((1.0, objective),)


def position_scores(objective: Objective, activations: Activations) -> Iterator[PositionScores]:
    """What each term scores at each position; nothing for a term that is no sum over positions."""
    for weight, term in terms_of(objective):
        if term.density:
            for layer, values in term.density(activations).items():
                yield PositionScores(weight, layer, values)
        elif term.total:
            t = term.total
            values = t.quantity(cells(activations, t.layer))
            yield PositionScores(weight, t.layer, values, t.margin, t.mean, t.root)
