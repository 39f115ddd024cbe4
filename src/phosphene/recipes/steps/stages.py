"""Which layers of an unknown network to take for near and far, where nobody says."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from phosphene.errors import NetworkError
from phosphene.network import Layer, Network
from phosphene.objectives import IMAGE
from phosphene.recipes.base import Arguments

# Cells a side: maps of at least so many are of local features.
FINE = 16
# Cells a side, of the maps of things and their parts: stride 16 at 224 px, where GoogLeNet dreams.
OF_THINGS = 14
# How far down the blocks of a transformer these are.
DEPTH_OF_THINGS = 0.6
LEAST_BLOCKS = 4
# Kinds of layers whose maps are of pairs of positions, or no answers of their own.
NO_ANSWERS = ("Dropout", "Softmax", "Identity")


def stages(network: Network) -> list[str]:
    """The last layer of each size of map, from fine to coarse; of tokens, four blocks.

    >>> stages(load_network("dreamnet"))
    ['conv2', 'mixed3b', 'mixed4d', 'mixed5b']
    """
    last: dict[tuple[int, ...], str] = {}
    tokens: dict[str, None] = {}
    for name, layer in network.layers.items():
        if len(layer.shape) == 3 and min(layer.shape[1:]) > 1 and "Pool" not in layer.kind:
            last[layer.shape[1:]] = name
        elif len(layer.shape) == 2 and layer.shape[0] > 1:
            # blocks.0 and not blocks.0.attn: a container answers after all that is in it.
            inside = [n for n in tokens if n.startswith(f"{name}.")]
            for n in inside:
                del tokens[n]
            tokens[name] = None
    if tokens and len(tokens) >= len(last):
        names = list(tokens)
        return [names[len(names) * k // 4] for k in range(1, 4)] + [names[-1]]
    if not last:
        raise NetworkError(f"{network.name} has no layer of maps or tokens; name a layer yourself")
    return list(last.values())


def dreamable(network: Network) -> str:
    """A layer to dream through a network that nobody knows: of things and their parts.

    Of tokens, the block at three fifths of the depth. Of maps, those of about 14 cells a side of
    the pictures that it was trained on (stride 16 at 224 px), and of these the end of the stage:
    the last layer among the least nested. NetworkError if there are neither.

    >>> dreamable(load_network("resnet18:random"))
    'layer3'
    """
    maps = _maps(network)
    blocks = _blocks(network)
    if len(blocks) >= LEAST_BLOCKS and _token_layers(network) > len(maps):
        return blocks[round(DEPTH_OF_THINGS * len(blocks)) - 1]
    if not maps:
        raise NetworkError(
            f"{network.name} has no layer of maps or tokens to choose; name what to dream with an "
            "objective, such as one of its layers"
        )

    def far(layer: Layer) -> float:
        return abs(math.log(layer.shape[1] / OF_THINGS))

    least = min(far(layer) for layer in maps)
    fitting = [layer for layer in maps if far(layer) == least]
    nested = min(layer.name.count(".") for layer in fitting)
    return [layer.name for layer in fitting if layer.name.count(".") == nested][-1]


def _maps(network: Network) -> list[Layer]:
    """Layers of square maps, without what pools and, if others are left, maps of class scores."""
    found = [
        layer
        for layer in network.layers.values()
        if len(layer.shape) == 3
        and layer.shape[1] == layer.shape[2] > 1
        and "Pool" not in layer.kind
        and layer.kind not in NO_ANSWERS
    ]
    vectors = [layer for layer in network.layers.values() if len(layer.shape) == 1]
    classes = vectors[-1].channels if vectors else None
    return [layer for layer in found if layer.channels != classes] or found


def _token_layers(network: Network) -> int:
    return sum(len(layer.shape) == 2 for layer in network.layers.values())


def _blocks(network: Network) -> list[str]:
    """The longest row of like parts one after the other, such as blocks.0 to blocks.11."""
    rows: dict[tuple[str, str, tuple[int, ...]], list[str]] = defaultdict(list)
    for name, layer in network.layers.items():
        if len(layer.shape) == 2 and layer.shape[0] > 1:
            rows[name.rpartition(".")[0], layer.kind, layer.shape].append(name)
    return max(rows.values(), key=len, default=[])


def middle(network: Network) -> str:
    """A layer of things and their parts: neither of edges nor of the whole picture."""
    found = stages(network)
    return found[min(2, len(found) - 1)]


def middle_layer(arguments: Arguments) -> list[str]:
    """The layer that is taken where none is named."""
    return [middle(arguments.network)]


def early(network: Network, layers: Sequence[str]) -> str:
    """A layer of fine, local features before all of `layers`; if there is none, the picture."""
    order = list(network.layers)
    end = min((order.index(layer) for layer in layers if layer in order), default=len(order))
    before = [name for name in stages(network) if order.index(name) < end]
    fine = [n for n in before if min(network.layers[n].shape[-2:]) >= FINE]
    return (fine or before[:1] or [IMAGE])[-1]


def sweep(network: Network) -> list[str]:
    """The layers that a sweep over a network goes through, in the order in which they are done.

    Those of maps or tokens that are nested least, four at least: blocks, and not what is in them.

    >>> sweep(load_network("dreamnet"))[:2]
    ['conv1', 'conv2']
    """
    shown = [
        layer
        for layer in network.layers.values()
        if len(layer.shape) > 1
        and max(layer.shape[1:] if len(layer.shape) == 3 else layer.shape[:1]) > 1
        and "Pool" not in layer.kind
        and layer.kind not in NO_ANSWERS
    ]
    for depth in range(max((layer.name.count(".") for layer in shown), default=0) + 1):
        found = [layer.name for layer in shown if layer.name.count(".") == depth]
        if len(found) >= LEAST_BLOCKS:
            return found
    if not shown:
        raise NetworkError(f"{network.name} has no layer of maps or tokens; name some yourself")
    return [layer.name for layer in shown]
