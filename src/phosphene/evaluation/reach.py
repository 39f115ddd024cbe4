"""Where to cut images into exact tiles: a network's period, its strides, how far a position sees.

How far is found by trying: where nothing changes when half of the image becomes NaN, nothing of
that half is seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

import torch
from torch import Tensor

from phosphene.errors import NetworkError, SettingsError
from phosphene.evaluation.geometry import Axis, ExactTiling, Size, Span, round_up
from phosphene.evaluation.scores import position_scores, terms_of
from phosphene.network import Network
from phosphene.objectives import IMAGE, Objective
from phosphene.runtime.device import PLAIN_CONVOLUTIONS
from phosphene.runtime.memory import out_of_memory
from phosphene.runtime.options import PLAIN_MODULES

# A position that sees more px than this, by nobody knows what, is taken to see everything.
FARTHEST = 1024
# The period of a network that cannot be traced; that it is enough shows when tiles are verified.
LIKELY_PERIOD = 32
# px between the two images that strides are measured with: a multiple of every usual stride.
STRIDE_LENGTH = 960


class InexactError(SettingsError):
    """Tiles would not give the whole image's gradient; `reason` says why not."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"tiles are not exact here: {reason}; tile=approximate blends them")
        self.reason = reason


def find_tiling(network: Network, objective: Objective) -> ExactTiling:
    """How to cut images for a bound objective, from what each position sees.

    Raises:
        InexactError: for an objective that is no sum over positions, and for a network whose
            positions see all of an image, or that takes images of some sizes only.
    """
    for _, term in terms_of(objective):
        if term.positional:
            raise InexactError(f"{term.text} compares with a picture place by place")
        if not (term.density or term.total):
            raise InexactError(f"{term.text} is no sum over the positions of a map")
    least = network.least_size(objective.layers)
    rows, columns = (_find_axis(network, objective, axis, least) for axis in (0, 1))
    return ExactTiling((rows, columns))


def _find_axis(network: Network, objective: Objective, axis: int, least: int) -> Axis:
    # What is not varied stays as narrow as may be.
    across = round_up(least, LIKELY_PERIOD)
    strides = _strides(network, objective.layers, axis, across)
    period = _period(network, objective.layers, strides.values())
    before, after = _reach(network, objective, axis, across, period, strides)
    return Axis(period, before, after, least, strides)


def _strides(
    network: Network, layers: Sequence[str], axis: int, across: int
) -> dict[str, Fraction]:
    """For each layer the px from one position to the next, from the maps of two images."""
    sizes = [oriented(axis, across + more, across) for more in (0, STRIDE_LENGTH)]
    try:
        short, long = (map_sizes(network, layers, size) for size in sizes)
    except NetworkError as error:
        if out_of_memory(error):
            raise
        raise InexactError(f"{network.name} takes pictures of some sizes only ({error})") from error
    strides: dict[str, Fraction] = {}
    for layer in layers:
        grown = long[layer][axis] - short[layer][axis]
        if grown <= 0:
            raise InexactError(f"the map of {layer} does not grow with the picture")
        stride = Fraction(STRIDE_LENGTH, grown)
        rounded = round(stride) if stride > 1 else Fraction(1, round(1 / stride))
        strides[layer] = Fraction(rounded)
    return strides


def oriented(axis: int, along: int, across: int) -> Size:
    """The (H, W) of an image that is so long along an axis, 0 for rows, and so wide across it."""
    return (along, across) if axis == 0 else (across, along)


def map_sizes(network: Network, layers: Sequence[str], size: Size) -> dict[str, Size]:
    """The sizes of the layers' maps of an image of `size` (H, W).

    Raises:
        InexactError: for a layer that gives no map.
    """
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


def _reach(
    network: Network,
    objective: Objective,
    axis: int,
    across: int,
    period: int,
    strides: Mapping[str, Fraction],
) -> Span:
    """The halo, px, that positions need before and after a core: what they see beyond it."""
    fields = [network.layers[n].receptive_field for n in objective.layers if n != IMAGE]
    known = [field for field in fields if field is not None]
    guess = max([*known, 32])
    farthest = 2 * guess if len(known) == len(fields) else 2 * FARTHEST
    side = round_up(2 * guess + 2 * across, 2 * period)
    generator = torch.Generator().manual_seed(0)
    while True:
        middle = side // 2
        before = after = 0
        sees_all = None
        for layer, from_first, from_rest in _seen_from(
            network, objective, axis, oriented(axis, side, across), generator
        ):
            positions = torch.nonzero(from_first).flatten().tolist()
            if positions:
                before = max(before, math.ceil((positions[-1] + 1) * strides[layer]) - middle)
                sees_all = layer if positions[-1] == len(from_first) - 1 else sees_all
            positions = torch.nonzero(from_rest).flatten().tolist()
            if positions:
                after = max(after, middle - math.floor(positions[0] * strides[layer]))
                sees_all = layer if positions[0] == 0 else sees_all
        if sees_all is None:
            return round_up(before, period), round_up(after, period)
        if side > farthest:
            raise InexactError(
                f"each position of {sees_all} of {network.name} sees the whole picture"
            )
        side *= 2


def following_nan(network: Network) -> Network:
    """The network where NaN in a picture comes only to what sees it: within `PLAIN_CONVOLUTIONS`
    and with `PLAIN_MODULES`, since convolutions that do ReLUs make 0 of it.

    How MPS convolves cannot be said: there it is the network on the processor.
    """
    if network.device.type in ("cpu", "cuda"):
        return network
    return network.prepared("cpu", "fp32")


@torch.no_grad()
def _seen_from(
    network: Network, objective: Objective, axis: int, size: Size, generator: torch.Generator
) -> list[tuple[str, Tensor, Tensor]]:
    """For each term's layer which positions along an axis see the image's first half, which the
    other one: two masks.

    NaN shows what is connected, whatever the weights; other numbers show what goes through an
    operation that lets no NaN pass.
    """
    side = size[axis]
    shape = (2, len(network.scale), *size)
    one, other = torch.rand(shape, generator=generator).to(network.device)
    first = torch.arange(side, device=one.device) < side // 2
    first = first.view((-1, 1) if axis == 0 else (1, -1))
    blank = torch.full_like(one, math.nan)
    changed = [torch.where(half, new, one) for new in (blank, other) for half in (first, ~first)]
    asked = following_nan(network)
    with PLAIN_CONVOLUTIONS:
        views = torch.stack([one, *changed]).to(asked.device)
        answers = asked.activations(views, objective.layers, options=PLAIN_MODULES)
    activations = {layer: answer.to(network.device) for layer, answer in answers.items()}
    seen: list[tuple[str, Tensor, Tensor]] = []
    for part in position_scores(objective, activations):
        values = part.values.movedim(1 + axis, 1).flatten(2)
        same = (values - values[:1]).abs() <= 1e-6 * values[0].abs().max()
        differs = ~same.all(2)
        seen.append((part.layer, differs[1] | differs[3], differs[2] | differs[4]))
    return seen
