"""The gradient of a picture that is larger than memory.

The picture is cut into cores, along multiples of the network's period: the px by which a picture
can move so that every map moves by whole positions. A tile is a core and a halo around it, so wide
that no position which the core owns sees beyond the tile; at the picture's own border there is no
halo, so the padding there is the network's own. Of each map a core owns the positions that lie over
it. Each position has one owner, so the sums over what the cores own add up to the score, and the
gradients of the tiles to *the* gradient.

How far a position sees is found by trying: where nothing changes when half of the picture becomes
NaN, nothing of that half is seen. Whether the tiles of a network agree with the whole is tried,
too, once, on small pictures.
"""

from __future__ import annotations

import functools
import gc
import logging
import math
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from phosphene import memory as planner
from phosphene.errors import NetworkError, SettingsError
from phosphene.evaluation.cost import bytes_per_pixel
from phosphene.evaluation.whole import whole
from phosphene.network import Network
from phosphene.objectives import IMAGE, Activations, Objective, cells
from phosphene.runtime import bands, pooling
from phosphene.runtime.options import DEFAULT, PLAIN_MODULES, Options

Size = tuple[int, int]
Span = tuple[int, int]
Box = tuple[Span, Span]  # rows and columns, or along one axis a core and its tile


class Rolled(Protocol):
    """Score and gradient of an image rolled by (down, right) px, the gradient rolled back again.

    `image.roll` would be one more picture of full size; tiles are taken from where they are.
    """

    def __call__(self, image: Tensor, shift: tuple[int, int] = (0, 0)) -> tuple[Tensor, Tensor]: ...


logger = logging.getLogger("phosphene")

# How far tiles and the whole may differ, relative to the gradient's length: convolutions of two
# shapes round differently.
TOLERANCE = {"fp64": 1e-9, "fp32": 1e-4, "bf16": 0.05}
# A position that sees more px than this, by nobody knows what, is taken to see everything.
FARTHEST = 1024
# The period of a network that cannot be traced; that it is enough shows when tiles are tried.
LIKELY_PERIOD = 32
# px between the two pictures that strides are measured with: a multiple of every usual stride.
STRIDE_LENGTH = 960
# Bytes for each px that no gradient is expected to take; below it nothing need be measured.
ENOUGH = 2048


class InexactError(SettingsError):
    """Tiles would not give the whole picture's gradient; `reason` says why not."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"tiles are not exact here: {reason}; tile=approximate blends them")
        self.reason = reason


# Where to cut -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis:
    """How tiles are cut along one axis of a picture, px.

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

    def cuts(self, side: int, tile: int) -> list[Box]:
        """((first, last + 1) of a core, the same of its tile), for each tile along a side."""
        count = math.ceil(side / up(tile, self.period))
        core = up(math.ceil(side / count), self.period)  # alike, rather than a sliver at the end
        # All tiles are as long as the picture but for whole periods, since some networks, as
        # TensorFlow's, pad by the length of what they get.
        after = self.after + (side - self.after) % self.period
        cuts: list[Box] = []
        for begin in range(0, side, core):
            end = min(begin + core, side)
            first = max(0, begin - self.before)
            last = side if end == side else min(side, end + after)
            first = max(0, first - up(max(0, self.least - (last - first)), self.period))
            last = min(side, last + up(max(0, self.least - (last - first)), self.period))
            cuts.append(((begin, end), (first, last)))
        return cuts

    def owned(self, layer: str, core: Span, side: int, count: int) -> Span:
        """(first, last + 1) of a map's `count` positions of a core; the last one owns the rest."""
        stride = self.strides[layer]
        last = count if core[1] == side else math.ceil(core[1] / stride)
        return min(math.ceil(core[0] / stride), count), min(last, count)


@dataclass(frozen=True)
class Cut:
    """How pictures are cut for one network and objective: vertically and horizontally."""

    axes: tuple[Axis, Axis]

    @property
    def smallest(self) -> int:
        """The smallest tile, px."""
        return max(axis.period for axis in self.axes)

    def tiles(self, size: Size, tile: int) -> list[tuple[Box, Box]]:
        """The vertical and the horizontal cut of each tile of a picture of `size` (H, W)."""
        rows, columns = (axis.cuts(side, tile) for axis, side in zip(self.axes, size, strict=True))
        return [(row, column) for row in rows for column in columns]

    def pixels(self, size: Size, tile: int) -> tuple[int, int]:
        """How many px the largest tile has, its halo included, and all tiles together."""
        rows, columns = (
            [last - first for _, (first, last) in axis.cuts(side, tile)]
            for axis, side in zip(self.axes, size, strict=True)
        )
        return max(rows) * max(columns), sum(rows) * sum(columns)


def up(number: int, multiple: int) -> int:
    """`number`, rounded up to a multiple."""
    return -(-number // multiple) * multiple


_CUTS: weakref.WeakKeyDictionary[Network, dict[Any, Cut | str]] = weakref.WeakKeyDictionary()


def cut_of(network: Network, objective: Objective, *, options: Options = DEFAULT) -> Cut:
    """How to cut pictures for a bound objective; found, tried, and kept for the next time.

    Raises InexactError where no cut gives the whole picture's gradient.
    """
    known = _CUTS.setdefault(network, {})
    key = (objective.layers, objective.text)
    if key not in known:
        try:
            cut = _find_cut(network, objective)
            _try_out(network, objective, cut, options)
            known[key] = cut
        except InexactError as error:
            known[key] = error.reason
    found = known[key]
    if isinstance(found, str):
        raise InexactError(found)
    return found


def _find_cut(network: Network, objective: Objective) -> Cut:
    for _, term in _terms(objective):
        if term.positional:
            raise InexactError(f"{term.text} compares with a picture place by place")
        if not (term.density or term.total):
            raise InexactError(f"{term.text} is no sum over the positions of a map")
    least = network.least_size(objective.layers)
    return Cut((_find_axis(network, objective, 0, least), _find_axis(network, objective, 1, least)))


def _find_axis(network: Network, objective: Objective, axis: int, least: int) -> Axis:
    # What is not varied stays as narrow as may be.
    across = up(least, LIKELY_PERIOD)
    sizes = [_size(axis, across + more, across) for more in (0, STRIDE_LENGTH)]
    try:
        short, long = (_map_sizes(network, objective.layers, size) for size in sizes)
    except NetworkError as error:
        if planner.out_of_memory(error):
            raise
        raise InexactError(f"{network.name} takes pictures of some sizes only ({error})") from error
    strides: dict[str, Fraction] = {}
    for layer in objective.layers:
        grown = long[layer][axis] - short[layer][axis]
        if grown <= 0:
            raise InexactError(f"the map of {layer} does not grow with the picture")
        stride = Fraction(STRIDE_LENGTH, grown)
        whole = round(stride) if stride > 1 else Fraction(1, round(1 / stride))
        strides[layer] = Fraction(whole)
    period = _period(network, objective.layers, strides.values())
    before, after = _reach(network, objective, axis, across, period, strides)
    return Axis(period, before, after, least, strides)


def _size(axis: int, along: int, across: int) -> Size:
    return (along, across) if axis == 0 else (across, along)


def _map_sizes(network: Network, layers: Sequence[str], size: Size) -> dict[str, Size]:
    """The sizes of the layers' maps of a picture of `size` (H, W)."""
    blank = torch.zeros(1, len(network.scale), *size, device=network.device)
    with torch.no_grad():
        found = network.activations(blank, layers)
    for layer, activation in found.items():
        if activation.ndim != 4:
            raise InexactError(f"{layer} of {network.name} gives no map of places")
    return {layer: (a.shape[2], a.shape[3]) for layer, a in found.items()}


def _period(network: Network, layers: Sequence[str], strides: Iterable[Fraction]) -> int:
    """The common multiple of all strides on the way to the deepest layer."""
    names = [layer for layer in layers if layer != IMAGE]
    order = list(network.layers)
    passed = order[: 1 + max((order.index(name) for name in names), default=-1)]
    known = [network.layers[name].stride for name in passed]
    traced = [math.ceil(stride) for stride in known if stride is not None]
    unknown = [LIKELY_PERIOD] if len(traced) < len(known) else []
    return math.lcm(*(math.ceil(stride) for stride in strides), *traced, *unknown)


@torch.no_grad()
def _reach(
    network: Network,
    objective: Objective,
    axis: int,
    across: int,
    period: int,
    strides: Mapping[str, Fraction],
) -> Span:
    """The halo, px, that positions need before and after a core: what they see beyond it.

    NaN shows what is connected, whatever the weights; other numbers show what goes through an
    operation that lets no NaN pass.
    """
    fields = [network.layers[n].receptive_field for n in objective.layers if n != IMAGE]
    told = [field for field in fields if field is not None]
    guess = max([*told, 32])
    farthest = 2 * guess if len(told) == len(fields) else 2 * FARTHEST
    side = up(2 * guess + 2 * across, 2 * period)
    generator = torch.Generator().manual_seed(0)
    while True:
        middle = side // 2
        shape = (2, len(network.scale), *_size(axis, side, across))
        one, other = torch.rand(shape, generator=generator).to(network.device)
        first = torch.arange(side, device=one.device) < middle
        first = first.view((-1, 1) if axis == 0 else (1, -1))
        gone = torch.full_like(one, math.nan)
        changes = [torch.where(half, new, one) for new in (gone, other) for half in (first, ~first)]
        with _plainly_computed():
            views = torch.stack([one, *changes])
            activations = network.activations(views, objective.layers, options=PLAIN_MODULES)
        before = after = 0
        wide = None
        for part in _parts(objective, activations):
            values = part.values.movedim(1 + axis, 1).flatten(2)
            same = (values - values[:1]).abs() <= 1e-6 * values[0].abs().max()
            seen = ~same.all(2)
            from_first, from_rest = (
                torch.nonzero(seen[1 + half] | seen[3 + half]).flatten().tolist() for half in (0, 1)
            )
            stride = strides[part.layer]
            if from_first:
                before = max(before, math.ceil((from_first[-1] + 1) * stride) - middle)
                wide = part.layer if from_first[-1] == len(seen[0]) - 1 else wide
            if from_rest:
                after = max(after, middle - math.floor(from_rest[0] * stride))
                wide = part.layer if from_rest[0] == 0 else wide
        if wide is None:
            return up(before, period), up(after, period)
        if side > farthest:
            raise InexactError(f"each position of {wide} of {network.name} sees the whole picture")
        side *= 2


@contextmanager
def _plainly_computed() -> Iterator[None]:
    """Convolutions position by position: by Winograd or Fourier, NaN would reach neighbours.

    ReLUs are to be by themselves as well (`PLAIN_MODULES`): convolutions that do them make 0 of it.
    """
    held = torch.backends.mkldnn.enabled
    # Its own flags() also sets a precision that not every build of torch has, which warns.
    torch.backends.mkldnn.enabled = False
    try:
        with torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        torch.backends.mkldnn.enabled = held


def _try_out(network: Network, objective: Objective, cut: Cut, options: Options) -> None:
    """Compare tiles with the whole on small pictures that are cut along either axis."""
    tolerance = TOLERANCE[network.precision]
    dtype = torch.float64 if network.precision == "fp64" else torch.float32
    for index, axis in enumerate(cut.axes):
        halo = axis.before + axis.after
        core = up(max(halo // 3, 8), axis.period)
        # Long enough that a core lies between two cuts, and no multiple of the period.
        long = up(max(halo, axis.least), axis.period) + 3 * core + axis.period // 2 + 1
        size = _size(index, long, up(cut.axes[1 - index].least, LIKELY_PERIOD) + 1)
        worst = math.inf
        # A unit that rounding turns on or off is no fault of the tiles; three times would be.
        for seed in range(3):
            shape = (1, len(network.scale), *size)
            image = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
            image = image.to(network.device)
            _, pieced = _evaluator(network, objective, cut, core, options)(image, (0, 0))
            leaf = image.clone().requires_grad_()
            with torch.enable_grad():
                found = network.activations(leaf, objective.layers, options=options)
                score = objective.score(found).sum()
            (slope,) = torch.autograd.grad(score, leaf)
            difference, length = float((pieced - slope).norm()), float(slope.norm())
            worst = min(worst, difference / length if length else difference)
            if worst <= tolerance:
                break
        else:
            raise InexactError(
                f"tried on {network.name}, they differ from the whole by {worst:.1e}, relative"
            )


# Exact tiles --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """The values `(N, H, W)` of a term over a layer's positions, and how they become its score."""

    weight: float
    layer: str
    values: Tensor
    margin: int = 0
    mean: bool = True
    root: bool = False


def _terms(objective: Objective) -> tuple[tuple[float, Objective], ...]:
    return objective.terms or ((1.0, objective),)


def _parts(objective: Objective, activations: Activations) -> Iterator[_Part]:
    for weight, term in _terms(objective):
        if term.density:
            for layer, values in term.density(activations).items():
                yield _Part(weight, layer, values)
        elif term.total:
            t = term.total
            values = t.quantity(cells(activations, t.layer))
            yield _Part(weight, t.layer, values, t.margin, t.mean, t.root)


def tiled(
    network: Network, objective: Objective, tile: int, *, options: Options = DEFAULT
) -> Rolled:
    """Evaluate a bound objective tile by tile; score and gradient are those of the whole picture.

    Image `(N, 3, H, W)` -> score `(N,)` and d score / d image, as `evaluation.whole` gives them.
    tile: px, the side of a core, rounded up to the network's period. Memory goes by the core and
        its halo together.

    Raises InexactError where tiles are not the whole: for an objective that is no sum over
    positions, for a network whose positions see all of the picture.
    """
    return _evaluator(
        network, objective, *_cut_and_core(network, objective, tile, options), options
    )


def _cut_and_core(
    network: Network, objective: Objective, tile: int, options: Options
) -> tuple[Cut, int]:
    """How to cut, and the side of a core in px for one that was asked for."""
    if tile < 1:
        raise SettingsError(f"tile: {tile} px; a tile has at least 1 px a side")
    cut = cut_of(network, objective, options=options)
    core = up(tile, cut.smallest)
    if core != tile:
        logger.info("tile: %d px instead of %d, a multiple of %d", core, tile, cut.smallest)
    return cut, core


def _evaluator(
    network: Network, objective: Objective, cut: Cut, tile: int, options: Options
) -> Rolled:
    maps: dict[Size, dict[str, Size]] = {}

    def evaluate(image: Tensor, shift: tuple[int, int] = (0, 0)) -> tuple[Tensor, Tensor]:
        size = (image.shape[-2], image.shape[-1])
        if size not in maps:
            maps[size] = _whole_maps(network, objective.layers, cut, size)
        counts = maps[size]

        def sums(seen: Tensor, box: tuple[Box, Box]) -> list[tuple[_Part, Tensor]]:
            """The parts of a tile's score, each with the sum `(N,)` of what the core owns of it."""
            found = network.activations(seen, objective.layers, options=options)
            parts = _parts(objective, found)
            return [
                (part, _owned(part, cut, box, size, counts[part.layer]).sum((1, 2)))
                for part in parts
            ]

        boxes = cut.tiles(size, tile)
        score = image.new_zeros(len(image))
        # The slope of a root hangs on the whole sum, which takes a pass of its own.
        roots: dict[int, Tensor] = {}
        if any(term.total and term.total.root for _, term in _terms(objective)):
            with torch.no_grad(), planner.maps_in_heap():
                for box in boxes:
                    seen = _taken(image, _place(box), shift)
                    for index, (part, value) in enumerate(sums(seen, box)):
                        if part.root:
                            roots[index] = roots.get(index, 0) + value
            roots = {index: total.sqrt() for index, total in roots.items()}

        # A function of its own, so that no name holds on to a tile's maps beyond it.
        @planner.maps_in_heap()
        def slope_of(box: tuple[Box, Box], *, first: bool) -> Tensor:
            seen = _taken(image, _place(box), shift).detach().requires_grad_()
            gain = image.new_zeros(len(image))
            with torch.enable_grad():
                for index, (part, value) in enumerate(sums(seen, box)):
                    if part.root:
                        root = roots[index]
                        # As torch.linalg.vector_norm has it, 0 at 0.
                        rise = torch.where(root > 0, 1 / (2 * root), 0)
                        gain = gain + part.weight * rise * value
                        score.add_(part.weight * root if first else 0)
                    else:
                        rows, columns = counts[part.layer]
                        value = part.weight * value / (rows * columns if part.mean else 1)
                        gain = gain + value
                        score.add_(value.detach())
            _needs_gradient(gain, network, objective)
            (slope,) = torch.autograd.grad(gain.sum(), seen)
            return slope

        gradient = torch.zeros_like(image)
        for number, box in enumerate(boxes):
            _add(gradient, slope_of(box, first=number == 0), _place(box), shift)
        return score, gradient

    return evaluate


def _needs_gradient(score: Tensor, network: Network, objective: Objective) -> None:
    if not score.requires_grad:
        raise NetworkError(
            f"{network.name} gives no gradient from {', '.join(objective.layers)} to the picture: "
            "the layer's output is whole numbers, or was computed without gradients"
        )


def _place(box: tuple[Box, Box]) -> Box:
    """The rows and columns of a tile."""
    (_, rows), (_, columns) = box
    return rows, columns


def _pieces(span: Span, shift: int, side: int) -> list[slice]:
    """Where a span of a rolled side lies on the side as it is: in one piece or in two."""
    first = (span[0] - shift) % side
    last = first + span[1] - span[0]
    return [slice(first, last)] if last <= side else [slice(first, side), slice(0, last - side)]


def _taken(image: Tensor, place: Box, shift: tuple[int, int]) -> Tensor:
    """A part of `image.roll(shift, (-2, -1))`, without a copy of the whole picture."""
    rows = _pieces(place[0], shift[0], image.shape[-2])
    columns = _pieces(place[1], shift[1], image.shape[-1])
    parts = [[image[..., row, column] for column in columns] for row in rows]
    if len(rows) == len(columns) == 1:
        return parts[0][0]
    return torch.cat([torch.cat(row, -1) for row in parts], -2)


def _add(total: Tensor, part: Tensor, place: Box, shift: tuple[int, int]) -> None:
    """Add to a picture what belongs to a part of it rolled."""
    top = 0
    for row in _pieces(place[0], shift[0], total.shape[-2]):
        left, bottom = 0, top + row.stop - row.start
        for column in _pieces(place[1], shift[1], total.shape[-1]):
            right = left + column.stop - column.start
            total[..., row, column] += part[..., top:bottom, left:right]
            left = right
        top = bottom


def _owned(part: _Part, cut: Cut, box: tuple[Box, Box], size: Size, count: Size) -> Tensor:
    """What a core owns of a tile's values, of the whole map's `count` rows and columns."""
    spans = []
    for index, axis in enumerate(cut.axes):
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


def _whole_maps(network: Network, layers: Sequence[str], cut: Cut, size: Size) -> dict[str, Size]:
    """The sizes of the whole picture's maps, found on a picture that is smaller by periods."""
    small = []
    for axis, side in zip(cut.axes, size, strict=True):
        base = up(axis.least, LIKELY_PERIOD)
        small.append(side if side < base else base + (side - base) % axis.period)
    found = _map_sizes(network, layers, (small[0], small[1]))

    def grown(layer: str, index: int) -> int:
        more = (size[index] - small[index]) / cut.axes[index].strides[layer]
        return found[layer][index] + int(more)

    return {layer: (grown(layer, 0), grown(layer, 1)) for layer in layers}


# Blended tiles ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Blend:
    """Tiles of one size, each scored by itself, which overlap by a quarter.

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


def blended(
    network: Network, objective: Objective, tile: int, *, options: Options = DEFAULT
) -> Rolled:
    """Score overlapping tiles one by one and blend their gradients: near the whole, not exact.

    For objectives that are no sum over positions, and networks that see all of a picture. The score
    is the mean of the tiles' scores; in the gradient each px goes from one tile's to the next one's
    across their overlap. `tile` is in px. Jitter moves the overlaps from step to step.

    Raises SettingsError for an objective that compares with a picture place by place.
    """
    positional = [term.text for _, term in _terms(objective) if term.positional]
    if positional:
        raise SettingsError(
            f"tile: {positional[0]} goes by the places of the whole picture, so it cannot be seen "
            "in tiles"
        )
    blend = _blend(network, objective)

    def evaluate(image: Tensor, shift: tuple[int, int] = (0, 0)) -> tuple[Tensor, Tensor]:
        height, width = image.shape[-2:]
        rows, columns = (blend.spans(side, tile) for side in (height, width))
        down, right = (_ramps(spans, image) for spans in (rows, columns))
        gradient = torch.zeros_like(image)
        score = image.new_zeros(len(image))
        for row, vertical in zip(rows, down, strict=True):
            for column, horizontal in zip(columns, right, strict=True):
                with planner.maps_in_heap():
                    seen = _taken(image, (row, column), shift).detach().requires_grad_()
                    with torch.enable_grad():
                        found = network.activations(seen, objective.layers, options=options)
                        value = objective.score(found)
                    _needs_gradient(value, network, objective)
                    (slope,) = torch.autograd.grad(value.sum(), seen)
                # A tile's mean is over fewer positions than the whole's.
                slope *= vertical[:, None] * horizontal * (slope[0, 0].numel() / (height * width))
                _add(gradient, slope, (row, column), shift)
                score += value.detach() / (len(rows) * len(columns))
        return score, gradient

    return evaluate


def _blend(network: Network, objective: Objective) -> Blend:
    return Blend(max(network.least_size(objective.layers), network.input_size))


def _ramps(spans: Sequence[Span], like: Tensor) -> list[Tensor]:
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


# As memory allows ---------------------------------------------------------------------------------


def fitted(
    network: Network,
    objective: Objective,
    sizes: Sequence[Size],
    *,
    batch: int = 1,
    tile: int | Literal["auto", "off", "approximate"] = "auto",
    memory: str | None = None,
    buffers: int = 0,
    between: int = 0,
) -> Rolled:
    """Evaluate a bound objective whole or in tiles, as memory allows at each of some sizes.

    sizes: those (H, W) that will come; the plan for the largest is made now, so that an objective
        that cannot be tiled and a limit that is too low are told before any work is done.
    tile: auto; off for always whole; px, the side of a core; approximate: as auto, and where tiles
        cannot be exact they are blended.
    memory: the most to use, such as "4G"; by default what the machine has.
    buffers, between: how many pictures of the full size, `batch` at a time, there will be besides:
        with the maps of a gradient, which is one of them, and when there are no maps.

    Where memory runs out all the same, tiles are halved and the same picture is evaluated again.

    Raises SettingsError: InexactError where tiles are needed and are not the whole; with the least
    memory that works where it is too little.
    """
    # All alike: a library that is there for one size costs the others nothing.
    large = batch * max(map(math.prod, sizes), default=0) >= pooling.NUMBA_PIXELS
    roomy = Options(numba_pooling=large)
    thrifty = Options(numba_pooling=large, memory_efficient=True)
    halved: dict[Size, int] = {}  # px of tiles, at sizes where memory ran out
    done: Counter[Size] = Counter()  # evaluations

    @functools.cache
    def ways() -> Cut | Blend | str:
        try:
            return cut_of(network, objective, options=roomy)
        except InexactError as error:
            if tile == "approximate" and not objective.positional:
                return _blend(network, objective)
            return str(error)

    def means(size: Size) -> tuple[planner.Budget, int | None]:
        itemsize = 8 if network.precision == "fp64" else 4
        picture = len(network.scale) * itemsize * size[0] * size[1] * batch
        budget = planner.budget_of(
            network.device,
            memory,
            reserved=buffers * picture,
            instead=max(0, between - buffers) * picture,
        )
        return budget, planner.COMFORT if network.device.type == "cpu" else None

    def need(pixels: int) -> float:
        """Bytes that a gradient of a picture of so many px takes, for each of them.

        That of no smaller one takes more altogether: tiles at the border are smaller than others.
        """
        if pixels < bands.BAND_PIXELS:
            return bytes_per_pixel(network, objective, options=thrifty) * batch
        banded, plain = (
            bytes_per_pixel(network, objective, options=thrifty, banded=b) for b in (True, False)
        )
        return max(banded, plain * (bands.BAND_PIXELS - 1) / pixels) * batch

    @functools.cache
    def easily(size: Size) -> str | None:
        """How little a whole picture takes, if that is so little that nothing need be saved."""
        if memory is not None:
            return None
        budget, comfort = means(size)
        most = min(budget.free, comfort or budget.free)
        taken = ENOUGH * math.prod(size) * batch
        if taken > most:
            # Not by a margin that holds for anything: measured, with room for as much again.
            taken = math.ceil(
                bytes_per_pixel(network, objective, options=roomy) * math.prod(size) * batch
            )
            most = min(most, budget.free // 2)
        if taken > most:
            return None
        return f"at most {planner.in_words(taken)} of {planner.in_words(budget.free)} free"

    def chosen(size: Size) -> planner.Plan:
        what = f"{size[1]}×{size[0]} px"
        if tile == "off":
            return planner.Plan(None, f"{what} whole: tiles are off")
        if isinstance(tile, int) and max(size) <= tile:
            return planner.Plan(None, f"{what} whole: no larger than a tile")
        if isinstance(tile, int):
            return planner.Plan(tile, f"{what} in tiles of {tile} px, as asked for")
        if told := easily(size):
            return planner.Plan(None, f"{what} whole: {told}")
        # Measuring keeps some memory itself: what is there is asked for after it.
        need(math.prod(size))
        budget, comfort = means(size)
        retained = planner.RETAINED if network.device.type == "cpu" else 0
        return planner.plan(size, need, budget, ways, comfort=comfort, retained=retained)

    @functools.cache
    def planned(size: Size) -> int | None:
        plan = chosen(size)
        logger.info("%s", plan.reason)
        return plan.tile

    @functools.cache
    def held(size: Size) -> tuple[int | None, int]:
        """Bytes that this process is to hold, if that is a question; those of its pictures."""
        if network.device.type != "cpu" or easily(size):
            return None, 0
        side, how = planned(size), ways()
        pixels = math.prod(size)
        if side is not None and not isinstance(how, str):
            pixels, _ = how.pixels(size, side)
        taken = planner.with_retained(need(pixels) * pixels)
        budget, _ = means(size)
        # What is put aside for other times gives the heap room meanwhile.
        room = max(taken, min(taken + budget.instead, budget.free))
        most = budget.used + budget.reserved + room
        # A limit that was given is there to be used.
        given = int(budget.limit * (1 - planner.SPARE)) if budget.given else 0
        return max(most, given), budget.reserved + budget.instead

    def rolled(options: Options) -> Rolled:
        evaluate = whole(network, objective, options=options)

        def moved(image: Tensor, shift: tuple[int, int] = (0, 0)) -> tuple[Tensor, Tensor]:
            image = image.roll(shift, (-2, -1)) if any(shift) else image
            with planner.maps_in_heap():
                score, slope = evaluate(image)
            if not any(shift):
                return score, slope
            return score, slope.roll((-shift[0], -shift[1]), (-2, -1))

        return moved

    @functools.cache
    def core(side: int) -> tuple[Cut, int]:
        return _cut_and_core(network, objective, side, roomy)

    @functools.cache
    def way(side: int | None, options: Options) -> Rolled:
        if side is None:
            return rolled(options)
        if isinstance(ways(), Blend):
            return blended(network, objective, side, options=options)
        return _evaluator(network, objective, *core(side), options)

    for size in sorted(sizes, key=math.prod, reverse=True):
        way(planned(size), roomy)
        held(size)  # before there is more than what stays

    def evaluate(image: Tensor, shift: tuple[int, int] = (0, 0)) -> tuple[Tensor, Tensor]:
        size = (image.shape[-2], image.shape[-1])
        while True:
            # Where a smaller picture was too much, a larger one is.
            known = [side for other, side in halved.items() if math.prod(other) <= math.prod(size)]
            side = min([*known, planned(size) or max(size)]) if known else planned(size)
            try:
                saving = size in halved or not easily(size)
                most, pictures = held(size)
                # The second time weights are laid out; tiles are many already.
                settled = done[size] >= (2 if side is None else 1)
                run = way(side, thrifty if saving else roomy)
                with planner.held_to(most, settled=settled):
                    found = run(image, shift)
                done[size] += 1
                if most is not None and pictures > planner.RETAINED:
                    # The caller's pictures are so large that what maps left behind would add up.
                    planner.give_back()
                return found
            except (RuntimeError, MemoryError, NetworkError) as error:
                if not planner.out_of_memory(error):
                    raise
                told = (str(error).splitlines() or [type(error).__name__])[0]
            # Only here is the error gone, and what its traceback held.
            gc.collect()
            if network.device.type == "cuda":
                torch.cuda.empty_cache()
            halved[size] = smaller(size, side, told)

    def smaller(size: Size, side: int | None, told: str) -> int:
        here = f"memory ran out at {size[1]}×{size[0]} px"
        lack = MemoryError(told)  # so that whoever catches it knows that it is one
        if tile == "off":
            raise SettingsError(f"{here}, whole; tile=auto cuts it ({told})") from lack
        how = ways()
        if isinstance(how, str):
            raise SettingsError(f"{here}; {how} ({told})") from lack
        before = side or max(size)
        if before <= how.smallest:
            raise SettingsError(f"{here}, even in tiles of {before} px ({told})") from lack
        after = max(up(before // 2, how.smallest), how.smallest)
        after = after if after < before else how.smallest
        logger.warning("%s: going on in tiles of %d px", here, after)
        return after

    return evaluate
