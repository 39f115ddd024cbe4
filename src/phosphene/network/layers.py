"""The layers of a module: what they are called and give, found by running it once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from phosphene.runtime.geometry import Geometry
from phosphene.runtime.graph import first_of


@dataclass(frozen=True)
class Layer:
    """One layer, as found by running the network once.

    `shape` leaves the batch out: `(C, H, W)`, `(T, C)` or `(C,)`. `stride` and `receptive_field`
    are in px of the picture; None where a position sees everything, or where it cannot be told.
    `calls` counts how often one forward pass uses the module; of several outputs the last counts.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    calls: int = 1
    stride: int | None = None
    receptive_field: int | None = None

    @property
    def channels(self) -> int | None:
        """How many channels there are: first axis of maps and vectors, last of tokens."""
        if not self.shape:
            return None
        return self.shape[-1] if len(self.shape) == 2 else self.shape[0]


@contextmanager
def forward_hooks(
    module: nn.Module, layers: Sequence[str], hook: Callable[[str, object], Any]
) -> Iterator[None]:
    """Inside, `hook(name, output)` is called whenever one of the layers has run."""
    handles, thread = [], threading.get_ident()
    try:
        for name in layers:

            def called(_m: nn.Module, _i: object, output: object, name: str = name) -> Any:
                # Another thread may run the same module for reasons of its own.
                return hook(name, output) if threading.get_ident() == thread else None

            handles.append(module.get_submodule(name).register_forward_hook(called))
        yield
    finally:
        for handle in handles:
            handle.remove()


def find_layers(
    module: nn.Module, values: Tensor, geometry: Callable[[], Mapping[str, Geometry]]
) -> dict[str, Layer]:
    """Every layer that a forward pass of `values` uses, by name, in the order they are done in.

    Raises whatever the module raises.

    Args:
        module: Takes `values`.
        values: Preprocessed pictures `(N, C, H, W)`.
        geometry: Gives strides and receptive fields by layer; asked for once the module has run.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    calls: dict[str, int] = {}

    def note(name: str, output: object) -> None:
        found = first_of(output, Tensor)
        if found is not None:
            shapes.pop(name, None)  # of several calls the last counts, for the order too
            shapes[name] = tuple(found.shape[1:])
            calls[name] = calls.get(name, 0) + 1

    names = [name for name, _ in module.named_modules() if name]
    with torch.no_grad(), forward_hooks(module, names, note):
        module(values)
    kinds = {name: type(part).__name__ for name, part in module.named_modules()}
    known, unknown = geometry(), Geometry(None, None)
    return {
        name: Layer(
            name,
            kinds[name],
            shape,
            calls[name],
            known.get(name, unknown).stride,
            known.get(name, unknown).field,
        )
        for name, shape in shapes.items()
    }


def find_logits(layers: Iterable[Layer], classes: int) -> Layer | None:
    """The last layer that gives a number for each class: a vector, or a map that is averaged.

    classes: How many there are; 0 where nobody knows.
    """
    layers = list(layers)
    single = [x for x in layers if len(x.shape) == 1 or x.shape[1:] == (1, 1)]
    fitting = [x for x in single if classes in (0, x.channels)]
    maps = [x for x in layers if classes and len(x.shape) == 3 and x.channels == classes]
    return (fitting or maps or [None])[-1]
