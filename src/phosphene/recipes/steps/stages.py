"""Which layers of an unknown network to take for near and far, where nobody says."""

from __future__ import annotations

from collections.abc import Sequence

from phosphene.errors import NetworkError
from phosphene.network import Network
from phosphene.objectives import IMAGE
from phosphene.recipes.base import Arguments

# Cells a side: maps of at least so many are of local features.
FINE = 16


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
