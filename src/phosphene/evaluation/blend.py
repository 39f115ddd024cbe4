"""Blended tiles: overlapping ones, each scored by itself; near the whole, not exact."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from phosphene import image as images
from phosphene.errors import SettingsError
from phosphene.evaluation.geometry import Size, Span
from phosphene.evaluation.reach import LIKELY_PERIOD
from phosphene.evaluation.rolled import RolledEvaluate, Shift, add_crop, crop
from phosphene.evaluation.scores import terms_of
from phosphene.evaluation.several import (
    Objectives,
    each_of,
    gradient_of,
    joint,
    options_for,
    require_gradient,
    stacked,
)
from phosphene.network import Network
from phosphene.objectives import Objective
from phosphene.runtime import allocator
from phosphene.runtime.device import exact
from phosphene.runtime.options import DEFAULT, Options


@dataclass(frozen=True)
class BlendedTiling:
    """Tiles of one size, each scored by itself, which overlap by a quarter.

    Attributes:
        smallest: px, the smallest tile; by itself each should show what the network was trained on.
    """

    smallest: int

    def spans(self, side: int, tile: int) -> list[Span]:
        """(first, last + 1) of each tile along a side, all of one length."""
        tile = min(max(tile, self.smallest), side)
        # What a network with strides answers hangs on where a tile begins: as the whole would.
        unit = LIKELY_PERIOD if tile >= 2 * LIKELY_PERIOD else 1
        tile = min(tile + (side - tile) % unit, side)
        far = (side - tile) // unit
        count = math.ceil(far / max((tile - tile // 4) // unit, 1))
        starts = [unit * (k * far // max(count, 1)) for k in range(count + 1)]
        return [(start, start + tile) for start in starts]

    def pixels(self, size: Size, tile: int) -> tuple[int, int]:
        """How many px the largest tile has, and all tiles together."""
        rows, columns = ([last - first for first, last in self.spans(side, tile)] for side in size)
        return max(rows) * max(columns), sum(rows) * sum(columns)


def blended_tiling(network: Network, objective: Objective) -> BlendedTiling:
    """Tiles as large as the images that a network was trained on, or as it needs."""
    return BlendedTiling(max(network.least_size(objective.layers), network.input_size))


def blended(
    network: Network, objective: Objectives, tile: int, *, options: Options = DEFAULT
) -> RolledEvaluate:
    """Score overlapping tiles one by one and blend their gradients: near the whole, not exact.

    For objectives that are no sum over positions, and networks that see all of an image. The score
    is the mean of the tiles' scores; in the gradient each px goes from one tile's to the next one's
    across their overlap. Jitter moves the overlaps from step to step.

    Args:
        network: as prepared.
        objective: bound to it; or several, whose scores and gradients are stacked.
        tile: px, the side of a tile.
        options: how the network is run.

    Raises:
        SettingsError: for an objective that compares with a picture place by place.
    """
    objectives, whole = each_of(objective), joint(objective)
    options = options_for(objective, options)
    positional = [term.text for _, term in terms_of(whole) if term.positional]
    if positional:
        raise SettingsError(
            f"tile: {positional[0]} goes by the places of the whole picture, so it cannot be seen "
            "in tiles"
        )
    tiling = blended_tiling(network, whole)

    def evaluate(image: Tensor, shift: Shift = (0, 0)) -> tuple[Tensor, Tensor]:
        height, width = images.size_of(image)
        rows, columns = (tiling.spans(side, tile) for side in (height, width))
        row_weights, column_weights = (_weights(spans, image) for spans in (rows, columns))
        gradients = image.new_zeros((len(objectives), *image.shape))
        scores = image.new_zeros((len(objectives), len(image)))
        for row, vertical in zip(rows, row_weights, strict=True):
            for column, horizontal in zip(columns, column_weights, strict=True):
                place = row, column
                # A tile's mean is over fewer positions than the whole's.
                weight = vertical[:, None] * horizontal
                weight *= weight.numel() / (height * width)
                with allocator.activations_in_heap():
                    view = crop(image, place, shift).detach().requires_grad_()
                    with exact(network.device), torch.enable_grad():
                        found = network.activations(view, whole.layers, options=options)
                        values = [goal.score(found) for goal in objectives]
                    for k, (goal, value) in enumerate(zip(objectives, values, strict=True)):
                        require_gradient(value, network, goal.layers)
                        part = gradient_of(value, view, keep=k + 1 < len(values))
                        add_crop(gradients[k], part.mul_(weight), place, shift)
                        scores[k] += value.detach() / (len(rows) * len(columns))
        return stacked(objective, scores), stacked(objective, gradients)

    return evaluate


def _weights(spans: Sequence[Span], like: Tensor) -> list[Tensor]:
    """How much each tile counts at each px along a side; all together 1 everywhere."""
    side = spans[-1][1]
    total = like.new_zeros(side)
    ramps = []
    for first, last in spans:
        x = torch.arange(last - first, device=like.device)
        ramp = (1 + torch.minimum(x, x.flip(0))).clamp(max=max(1, (last - first) // 4)).to(like)
        total[first:last] += ramp
        ramps.append(ramp)
    return [ramp / total[first:last] for ramp, (first, last) in zip(ramps, spans, strict=True)]
