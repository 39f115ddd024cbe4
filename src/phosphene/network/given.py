"""Activations that are given to a network to go on from: which can be, and as it takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from phosphene.errors import NetworkError
from phosphene.network.layers import Layer
from phosphene.objectives import IMAGE
from phosphene.runtime.device import layout_of
from phosphene.runtime.graph import PICTURE


def by_layer(
    given: Mapping[str, Tensor],
    resolve: Callable[[str], str],
    layers: Mapping[str, Layer],
    device: torch.device,
) -> dict[str, Tensor]:
    """What is given, by the layers' own names, in the order in which they are done.

    Raises:
        UnknownLayerError: There is no such layer.
        NetworkError: A layer is named twice, or cannot give what is given for it.
    """
    found: dict[str, Tensor] = {}
    for called, value in given.items():
        name = resolve(called)
        if name == IMAGE:
            raise NetworkError(f"{IMAGE} is no layer; an image goes in as `image`, not as given")
        if name in found:
            raise NetworkError(f"{name} is given twice, as {called} as well")
        _check(layers[name], value, device)
        found[name] = value
    return {name: found[name] for name in layers if name in found}


def _check(layer: Layer, value: object, device: torch.device) -> None:
    expected = f"{layer.name} gives floats {_text(_axes(layer))}"
    if not isinstance(value, Tensor):
        raise NetworkError(f"{expected}; what is given for it is no tensor: {type(value).__name__}")
    known = [side for side in _axes(layer) if isinstance(side, int)]
    sides = [n for n, side in zip(value.shape, _axes(layer), strict=False) if isinstance(side, int)]
    if value.ndim != 1 + len(layer.shape) or sides != known or not value.is_floating_point():
        kind = str(value.dtype).removeprefix("torch.")
        raise NetworkError(f"{expected}; what is given for it is {kind} {_text([*value.shape])}")
    if value.device.type != device.type or device.index not in (None, value.device.index):
        raise NetworkError(f"{layer.name} is given on {value.device}, the network is on {device}")


def _axes(layer: Layer) -> list[int | str]:
    """The axes of a layer's activation: numbers where only these will do."""
    if len(layer.shape) == 2:
        return ["N", "T", layer.shape[1]]
    return ["N", *layer.shape[:1], *"HWDE"[: len(layer.shape) - 1]]


def _text(axes: list[int | str] | list[int]) -> str:
    return f"({', '.join(map(str, axes))}{',' * (len(axes) == 1)})"


def as_taken(value: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy in a network's type and layout, which what follows may work on in place."""
    layout = layout_of(value.device) if value.ndim == 4 else torch.preserve_format
    return value.to(dtype, copy=True, memory_format=layout)


def check_batch(values: Mapping[str, Tensor]) -> None:
    """NetworkError if picture and given activations are not of one N."""
    counts = {"the image" if n == PICTURE else n: len(value) for n, value in values.items()}
    if len({*counts.values()}) > 1:
        said = " and ".join(f"{count} in {name}" for name, count in counts.items())
        raise NetworkError(f"image and given activations need one N; there are {said}")
