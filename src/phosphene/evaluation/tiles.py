"""Exact tiles: the gradient of an image that is larger than memory.

The image is cut into cores, along multiples of the network's period: the px by which an image can
move so that every map moves by whole positions. A tile is a core and a halo around it, so wide that
no position which the core owns sees beyond the tile; at the image's own border there is no halo, so
the padding there is the network's own. Of each map a core owns the positions that lie over it. Each
position has one owner, so the sums over what the cores own add up to the score, and the gradients
of the tiles to *the* gradient.

Whether the tiles of a network agree with the whole is tried once, on small images.
"""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from phosphene import image as images
from phosphene.errors import NetworkError, SettingsError
from phosphene.evaluation.geometry import Box, ExactTiling, Size, round_up
from phosphene.evaluation.reach import (
    LIKELY_PERIOD,
    InexactError,
    find_tiling,
    map_sizes,
    oriented,
)
from phosphene.evaluation.rolled import Place, RolledEvaluate, Shift, add_crop, crop
from phosphene.evaluation.scores import PositionScores, position_scores, terms_of
from phosphene.evaluation.several import (
    Objectives,
    each_of,
    gradient_of,
    joint,
    options_for,
    require_gradient,
    stacked,
)
from phosphene.evaluation.whole import whole
from phosphene.network import Network
from phosphene.objectives import Objective
from phosphene.runtime import allocator
from phosphene.runtime.device import exact
from phosphene.runtime.options import DEFAULT, Options

logger = logging.getLogger("phosphene")

# How far tiles and the whole may differ, relative to the gradient's length: convolutions of two
# shapes round differently.
TOLERANCE = {"fp64": 1e-9, "fp32": 1e-4, "bf16": 0.05}


def tiled(
    network: Network, objective: Objectives, tile: int, *, options: Options = DEFAULT
) -> RolledEvaluate:
    """Evaluate a bound objective tile by tile; score and gradient are those of the whole image.

    Image `(N, 3, H, W)` -> score `(N,)` and d score / d image, as `whole` gives them; of several
    objectives as `each` does, with one pass forward a tile.

    Args:
        network: as prepared.
        objective: bound to it; or several.
        tile: px, the side of a core, rounded up to the network's period. Memory goes by the core
            and its halo together.
        options: how the network is run.

    Raises:
        InexactError: where tiles are not the whole: for an objective that is no sum over
            positions, for a network whose positions see all of the image.
    """
    tiling, core = tiling_and_core(network, objective, tile, options=options)
    return tile_by_tile(network, objective, tiling, core, options)


def tiling_and_core(
    network: Network, objective: Objectives, tile: int, *, options: Options = DEFAULT
) -> tuple[ExactTiling, int]:
    """How to cut, and px of the side of a core for a `tile` that was asked for: see `tiled`."""
    if tile < 1:
        raise SettingsError(f"tile: {tile} px; a tile has at least 1 px a side")
    tiling = exact_tiling(network, joint(objective), options=options)
    core = round_up(tile, tiling.smallest)
    if core != tile:
        logger.info("tile: %d px instead of %d, a multiple of %d", core, tile, tiling.smallest)
    return tiling, core


_TILINGS: weakref.WeakKeyDictionary[Network, dict[Any, ExactTiling | str]] = (
    weakref.WeakKeyDictionary()
)


def exact_tiling(
    network: Network, objective: Objective, *, options: Options = DEFAULT
) -> ExactTiling:
    """How to cut images for a bound objective; found, verified, and cached for the network.

    Raises:
        InexactError: where no tiling gives the whole image's gradient.
    """
    cache = _TILINGS.setdefault(network, {})
    key = (objective.layers, objective.text)
    if key not in cache:
        try:
            tiling = find_tiling(network, objective)
            verify(network, objective, tiling, options=options)
            cache[key] = tiling
        except InexactError as error:
            cache[key] = error.reason
    found = cache[key]
    if isinstance(found, str):
        raise InexactError(found)
    return found


def verify(
    network: Network, objective: Objective, tiling: ExactTiling, *, options: Options = DEFAULT
) -> None:
    """Compare tiles with the whole on small images that are cut along either axis.

    Raises:
        InexactError: if they differ.
    """
    tolerance = TOLERANCE[network.precision]
    dtype = torch.float64 if network.precision == "fp64" else torch.float32
    for index, axis in enumerate(tiling.axes):
        halo = axis.before + axis.after
        core = round_up(max(halo // 3, 8), axis.period)
        # Long enough that a core lies between two cuts, and no multiple of the period.
        long = round_up(max(halo, axis.least), axis.period) + 3 * core + axis.period // 2 + 1
        size = oriented(index, long, round_up(tiling.axes[1 - index].least, LIKELY_PERIOD) + 1)
        worst = math.inf
        # A unit that rounding turns on or off is no fault of the tiles; three times would be.
        for seed in range(3):
            shape = (1, len(network.scale), *size)
            image = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
            image = image.to(network.device)
            _, got = tile_by_tile(network, objective, tiling, core, options)(image)
            _, expected = whole(network, objective, options=options)(image)
            difference, length = float((got - expected).norm()), float(expected.norm())
            worst = min(worst, difference / length if length else difference)
            if worst <= tolerance:
                break
        else:
            raise InexactError(
                f"tried on {network.name}, they differ from the whole by {worst:.1e}, relative"
            )


def tile_by_tile(
    network: Network,
    objective: Objectives,
    tiling: ExactTiling,
    tile: int,
    options: Options = DEFAULT,
) -> RolledEvaluate:
    """Evaluate in cores of `tile` px, a multiple of the period, cut as `tiling` says."""
    sizes: dict[Size, dict[str, Size]] = {}
    objectives, layers = each_of(objective), joint(objective).layers
    options = options_for(objective, options)

    def evaluate(image: Tensor, shift: Shift = (0, 0)) -> tuple[Tensor, Tensor]:
        size = images.size_of(image)
        if size not in sizes:
            sizes[size] = _whole_map_sizes(network, layers, tiling, size)
        counts = sizes[size]
        this = _Pass(network, objectives, layers, tiling, options, counts, image, shift)
        with exact(network.device):
            scores, gradients = this.run(tile)
        return stacked(objective, scores), stacked(objective, gradients)

    return evaluate


class _Pass:
    """One evaluation of one image: scores `(K, N)` and gradients of K objectives."""

    def __init__(
        self,
        network: Network,
        objectives: Sequence[Objective],
        layers: Sequence[str],
        tiling: ExactTiling,
        options: Options,
        counts: dict[str, Size],
        image: Tensor,
        shift: Shift,
    ) -> None:
        self._network, self._objectives, self._tiling = network, objectives, tiling
        self._layers, self._options = layers, options
        self._counts = counts  # (rows, columns) of each layer's map of the whole image
        self._image, self._shift = image, shift
        self._scores = image.new_zeros((len(objectives), len(image)))
        # Of the terms that are one, by the numbers of objective and term.
        self._roots: dict[tuple[int, int], Tensor] = {}

    def run(self, tile: int) -> tuple[Tensor, Tensor]:
        boxes = self._tiling.boxes(images.size_of(self._image), tile)
        self._roots = self._find_roots(boxes)
        gradients = self._image.new_zeros((len(self._objectives), *self._image.shape))
        for number, box in enumerate(boxes):
            # A function of its own, so that no name holds on to a tile's maps beyond it.
            with allocator.activations_in_heap():
                self._add_gradients(gradients, box, first=number == 0)
        return self._scores, gradients

    def _find_roots(self, boxes: Sequence[Box]) -> dict[tuple[int, int], Tensor]:
        """The gradient of a root hangs on the whole sum, which takes a pass of its own."""
        terms = [term for goal in self._objectives for _, term in terms_of(goal)]
        if not any(term.total and term.total.root for term in terms):
            return {}
        sums: dict[tuple[int, int], Tensor] = {}
        with torch.no_grad(), allocator.activations_in_heap():
            for box in boxes:
                view = crop(self._image, _place(box), self._shift)
                for k, owned in enumerate(self._owned_sums(view, box)):
                    for index, (part, value) in enumerate(owned):
                        if part.root:
                            sums[k, index] = sums.get((k, index), 0) + value
        return {index: total.sqrt() for index, total in sums.items()}

    def _owned_sums(self, view: Tensor, box: Box) -> list[list[tuple[PositionScores, Tensor]]]:
        """For each objective the parts of a tile's score, each with the sum `(N,)` of what the core
        owns of it."""
        size = images.size_of(self._image)
        activations = self._network.activations(view, self._layers, options=self._options)
        return [
            [
                (part, _owned(part, self._tiling, box, size, self._counts[part.layer]).sum((1, 2)))
                for part in position_scores(goal, activations)
            ]
            for goal in self._objectives
        ]

    def _add_gradients(self, gradients: Tensor, box: Box, *, first: bool) -> None:
        """Add a tile's share of gradients and scores; all of a root's score with the first tile."""
        view = crop(self._image, _place(box), self._shift).detach().requires_grad_()
        with torch.enable_grad():
            owned = self._owned_sums(view, box)
            gains = [self._gain(k, parts, first=first) for k, parts in enumerate(owned)]
        del owned
        for goal, gain in zip(self._objectives, gains, strict=True):
            require_gradient(gain, self._network, goal.layers)
        for k, gain in enumerate(gains):
            found = gradient_of(gain, view, keep=k + 1 < len(gains))
            add_crop(gradients[k], found, _place(box), self._shift)
            del found  # before the next is there

    def _gain(
        self, k: int, parts: Sequence[tuple[PositionScores, Tensor]], *, first: bool
    ) -> Tensor:
        """What has a tile's share of an objective's gradient, `(N,)`; its score is added."""
        gain = self._image.new_zeros(len(self._image))
        for index, (part, value) in enumerate(parts):
            if part.root:
                root = self._roots[k, index]
                # As torch.linalg.vector_norm has it, 0 at 0.
                derivative = torch.where(root > 0, 1 / (2 * root), 0)
                gain = gain + part.weight * derivative * value
                self._scores[k].add_(part.weight * root if first else 0)
            else:
                rows, columns = self._counts[part.layer]
                value = part.weight * value / (rows * columns if part.mean else 1)
                gain = gain + value
                self._scores[k].add_(value.detach())
        return gain


def _place(box: Box) -> Place:
    """The rows and columns of a tile."""
    rows, columns = box
    return rows.tile, columns.tile


def _owned(part: PositionScores, tiling: ExactTiling, box: Box, size: Size, count: Size) -> Tensor:
    """What a core owns of a tile's values, of the whole map's `count` rows and columns."""
    spans = []
    for index, axis in enumerate(tiling.axes):
        core, (first, last) = box[index]
        begin, end = axis.owned(part.layer, core, size[index], count[index])
        margin = min(part.margin, (count[index] - 1) // 2)
        begin, end = max(begin, margin), min(end, count[index] - margin)
        offset = int(first / axis.strides[part.layer])
        there = part.values.shape[1 + index]
        if end - offset > there or (last == size[index] and offset + there != count[index]):
            raise NetworkError(
                f"tiles do not fit together: of the {count[index]} positions of {part.layer} along "
                f"{size[index]} px, px {first} to {last} give {there} from {offset} on; tile=off "
                "takes the picture whole"
            )
        spans.append(slice(begin - offset, max(begin, end) - offset))
    return part.values[:, spans[0], spans[1]]


def _whole_map_sizes(
    network: Network, layers: Sequence[str], tiling: ExactTiling, size: Size
) -> dict[str, Size]:
    """The sizes of the whole image's maps, found on an image that is smaller by periods."""
    small = []
    for axis, side in zip(tiling.axes, size, strict=True):
        base = round_up(axis.least, LIKELY_PERIOD)
        small.append(side if side < base else base + (side - base) % axis.period)
    found = map_sizes(network, layers, (small[0], small[1]))

    def grown(layer: str, index: int) -> int:
        more = (size[index] - small[index]) / tiling.axes[index].strides[layer]
        return found[layer][index] + int(more)

    return {layer: (grown(layer, 0), grown(layer, 1)) for layer in layers}
