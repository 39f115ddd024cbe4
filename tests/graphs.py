"""What has the semantics of CUDA graphs, on the processor, where there is no card."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from phosphene.network import Network
from phosphene.runtime.capture import Captures
from tests import toy_network


class Recorder:
    """A backend that records each operation with its tensors and its numbers as they are.

    A replay runs them again on the very same tensors, into the very same tensors. As on CUDA a
    number that is read meanwhile is an error, and a capture computes nothing: what it gives is
    not a number until it is replayed.

    Attributes:
        tried, captured, replayed, warmed, released: how often.
        lacking: raised by the next captures, such as a lack of memory.
    """

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.tried = self.captured = self.replayed = self.warmed = self.released = 0
        self.lacking: list[Exception] = []
        self.inside = False

    def warm(self, function: Callable[[], object]) -> None:
        self.warmed += 1
        function()

    def capture(
        self, function: Callable[[], tuple[Tensor, ...]]
    ) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        self.tried += 1
        if self.lacking:
            raise self.lacking.pop(0)
        tape = _Tape()
        with tape:
            found = function()
        tape.blank()
        self.captured += 1

        def replay() -> None:
            assert self.inside, "replays of one memory must be in order"
            self.replayed += 1
            tape.replay()

        return replay, found

    @contextmanager
    def in_order(self) -> Iterator[None]:
        assert not self.inside, "one at a time"
        self.inside = True
        try:
            yield
        finally:
            self.inside = False

    def release(self) -> None:
        self.released += 1


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, list[Tensor], list[Tensor]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        given = {one.untyped_storage()._cdata for one in _tensors((args, kwargs))}
        result = func(*args, **kwargs)
        found = _tensors(result)
        made = [one for one in found if one.untyped_storage()._cdata not in given]
        self.operations.append((func, args, kwargs, found, made))
        return result

    def blank(self) -> None:
        for _, _, _, _, made in self.operations:
            for one in made:
                one.fill_(float("nan") if one.is_floating_point() else 0)

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, found, made in self.operations:
            again = _tensors(func(*args, **kwargs))
            for into, one in zip(found, again, strict=True):
                if any(into is each for each in made):
                    into.copy_(one)


def _tensors(tree: Any) -> list[Tensor]:
    return [one for one in tree_leaves(tree) if isinstance(one, Tensor)]


def recorded(network: Network) -> Recorder:
    """Have what is evaluated of a network captured by a recorder."""
    backend = Recorder()
    network.captures = Captures(backend)
    return backend


def net() -> Network:
    """In float64, whose graph is run operation by operation, as on a card."""
    # One of its own: what is captured stays on it.
    return toy_network.net().prepared("cpu", "fp64")


def pictures(count: int, *size: int, seed: int = 0) -> Iterator[Tensor]:
    chance = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield torch.rand(1, 3, *(size or (20, 24)), generator=chance, dtype=torch.float64)
