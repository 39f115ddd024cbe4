"""Layers and their channels, as users name them and as pages describe them."""

from __future__ import annotations

import math

from phosphene.errors import ObjectiveError
from phosphene.network import Layer, Network
from phosphene.objectives import IMAGE


def layer_of(network: Network, name: str) -> Layer:
    """A layer by its name or alias.

    UnknownLayerError; ObjectiveError for what has no channels.
    """
    if name == IMAGE:
        raise ObjectiveError(f"{name} is the picture itself; a layer was expected")
    layer = network.layers[network.resolve(name)]
    if layer.channels is None or len(layer.shape) > 3:
        raise ObjectiveError(
            f"{layer.name} gives the shape {layer.shape}; maps (C, H, W), tokens (T, C) or "
            "vectors (C,) were expected"
        )
    return layer


def check_channel(layer: Layer, channel: int) -> None:
    """ObjectiveError if the layer does not have it."""
    count = layer.channels or 0
    if not 0 <= channel < count:
        raise ObjectiveError(
            f"{layer.name} has {count} channels, 0 to {count - 1}; there is no channel {channel}"
        )


def has_classes(network: Network, layer: Layer) -> bool:
    """Whether each channel of a layer is the score of a class that has a name."""
    if layer.channels != len(network.classes):
        return False
    return math.prod(layer.shape) == layer.channels or layer.name == network.logits_layer


def class_of(network: Network, layer: Layer, channel: int) -> str | None:
    """The class that a channel stands for; None unless the layer has a number for each class."""
    return network.classes[channel] if has_classes(network, layer) else None


def label_of(network: Network, layer: Layer, channel: int) -> str:
    """The channel's number, and the name of its class if it has one."""
    name = class_of(network, layer, channel)
    return str(channel) if name is None else f"{channel} {name}"


def describe_layer(layer: Layer) -> str:
    """A layer in a few words."""
    kinds = {1: "a vector", 2: "tokens", 3: "maps"}
    words = [f"{layer.channels} channels", kinds[len(layer.shape)]]
    if layer.stride is not None:
        words.append(f"stride {layer.stride} px")
    words.append(
        "sees all" if layer.receptive_field is None else f"sees {layer.receptive_field} px"
    )
    return ", ".join(words)
