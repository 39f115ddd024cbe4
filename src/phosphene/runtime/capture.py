"""CUDA graphs: what is computed again and again is recorded once, and launched as one.

A step on a card is some hundred small operations, each launched by the processor. A graph of them
is launched at once; it reads and writes the very same memory each time, and whatever the processor
computed is frozen in it. So what is captured is a function of one tensor, and of nothing else that
changes.

    captures.run(function, given, key)  # as function(given)

The first evaluations of a shape are run as they come: these are the warm-up that libraries want,
and fill whatever is computed once and kept. Then one is captured, as the section "CUDA Graphs" of
PyTorch's notes has it; the next is run both ways and compared; from then on the graph is replayed.
It knows tensors only.
"""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from phosphene.runtime.device import free_unused
from phosphene.runtime.memory import out_of_memory

log = logging.getLogger("phosphene")

Function = Callable[[Tensor], tuple[Tensor, ...]]

# Evaluations of one shape after which it is captured. An estimate: nothing of it was measured.
PAYS_AFTER = 30
MOST = 16  # captures that are kept: of four octaves the evaluation and the gradient's way, twice
MOST_COUNTED = 256  # shapes that are counted, as drawings see many
# How far a replay may be from what comes of running it, relative to its length: some operations
# add up in any order.
TOLERANCE = 1e-2

# PyTorch can capture one graph at a time in a process.
_CAPTURING = threading.Lock()


class Backend(Protocol):
    """What captures: CUDA's graphs, or in tests what has their semantics."""

    device: torch.device

    def warm(self, function: Callable[[], object]) -> None:
        """Run a function as a capture will, so that libraries come up before it."""
        ...

    def capture(
        self, function: Callable[[], tuple[Tensor, ...]]
    ) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        """Record a function: what replays it, and the tensors that each replay writes into."""
        ...

    def in_order(self) -> AbstractContextManager[None]:
        """Inside, work on the device comes after all that was done in here before."""
        ...

    def release(self) -> None:
        """Let go the memory that captures share, once they are gone."""
        ...


class CudaGraphs:
    """`torch.cuda.CUDAGraph`: captured on one side stream, in one pool of memory.

    Args:
        device: A CUDA device; nothing is asked of it before the first capture.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream: Any = None
        self._pool: Any = None
        self._done: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return CudaGraphs, (self.device,)

    def warm(self, function: Callable[[], object]) -> None:
        # On the stream of the captures: cuBLAS has a workspace for each, which is not to be the
        # pool's.
        if self._stream is None:
            self._stream = torch.cuda.Stream(self.device)
        with self._aside(self._stream):
            function()

    def capture(
        self, function: Callable[[], tuple[Tensor, ...]]
    ) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads may go on allocating meanwhile.
        how = {"stream": self._stream, "capture_error_mode": "thread_local"}
        try:
            with self._aside(self._stream), torch.cuda.graph(graph, pool=self._pool, **how):
                found = function()
        except BaseException:
            self._pool = None  # nothing is told of what a broken capture leaves in it
            raise
        return graph.replay, found

    @contextmanager
    def _aside(self, stream: Any) -> Iterator[None]:
        with torch.cuda.device(self.device):
            here = torch.cuda.current_stream()
            stream.wait_stream(here)
            try:
                with torch.cuda.stream(stream):
                    yield
            finally:
                # A capture that fails leaves its stream as the current one.
                torch.cuda.set_stream(here)
                here.wait_stream(stream)

    @contextmanager
    def in_order(self) -> Iterator[None]:
        # Threads may have streams of their own, and the memory is one for all of them.
        stream = torch.cuda.current_stream(self.device)
        if self._done is None:
            self._done = torch.cuda.Event()
        stream.wait_event(self._done)
        try:
            yield
        finally:
            self._done.record(stream)

    def release(self) -> None:
        self._pool = None  # its memory is PyTorch's again once the last graph is gone
        free_unused(self.device)


@dataclass(frozen=True, eq=False)
class Same:
    """A part of a key that is equal to that of the very same thing, and keeps it from nothing.

    By identity: objectives of one text may look at other pictures. What is captured holds the
    thing itself.
    """

    thing: weakref.ref[Any]
    number: int

    @classmethod
    def of(cls, thing: Any) -> Same:
        return cls(weakref.ref(thing), id(thing))

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        # A number may be used again, for what came after.
        thing = self.thing()
        return isinstance(other, Same) and thing is not None and thing is other.thing()


@dataclass
class _Capture:
    """What is replayed: it reads `given` and writes `found`; `held` is what it reads besides."""

    replay: Callable[[], None]
    given: Tensor
    found: tuple[Tensor, ...]
    held: list[Any] = field(repr=False)
    checked: bool = False

    def __call__(self, given: Tensor) -> tuple[Tensor, ...]:
        self.given.copy_(given)
        self.replay()
        # The next replay, of whichever capture, may write there: all of them share one memory.
        # That is why their order does not matter, and why one at a time is replayed.
        return tuple(one.clone() for one in self.found)


class _RefusedError(RuntimeError):
    """What must not be captured, found out before it is tried."""


class Captures:
    """Functions that are captured on one device, the least recently used let go.

    Args:
        backend: What captures.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend, self._lock = backend, threading.RLock()
        self._counts: dict[Hashable, int] = {}
        self._kept: dict[Hashable, _Capture] = {}
        self._refused: dict[Hashable, None] = {}
        self._short = False

    def __reduce__(self) -> tuple[Any, ...]:
        return Captures, (self._backend,)  # a copy of a network captures for itself

    def __len__(self) -> int:
        """How many there are now."""
        return len(self._kept)

    def run(self, function: Function, given: Tensor, key: Hashable) -> tuple[Tensor, ...]:
        """`function(given)`, replayed where it has been asked for often enough.

        Args:
            function: Of `given` and of nothing else that changes; it leaves no tensor behind.
            given: A tensor on the device. One without a gradient is what a function sees.
            key: What the function does beside the shape of what is given; see `Same`.
        """
        key = (key, tuple(given.shape), given.stride(), given.dtype)
        try:
            return self._run(function, given.detach(), key)
        except Exception as error:  # a module's own, of any kind
            if not out_of_memory(error) or not self.let_go():
                raise
        # Only here is the error gone, and what its traceback held.
        gc.collect()
        free_unused(self._backend.device)
        return function(given.detach())

    def let_go(self) -> bool:
        """Let all captures go, and their memory, since it ran out: for good. Whether there were."""
        with self._lock:
            there, self._short = bool(self._kept), True
            self._kept.clear()
            self._counts.clear()
            self._backend.release()
            return there

    def _run(self, function: Function, given: Tensor, key: Hashable) -> tuple[Tensor, ...]:
        if not self._due(key, given):
            return function(given)
        with self._lock:
            if self._short or key in self._refused:  # another thread was here before
                return function(given)
            with self._backend.in_order():
                capture = self._kept.get(key)  # it stays there: `let_go` is to find it
                if capture is None:
                    self._settle(key, self._captured(function, given))
                    return function(given)
                found = capture(given)
                if not capture.checked:
                    capture, found = self._checked(capture, found, function, given)
                self._settle(key, capture)
                return found

    def _settle(self, key: Hashable, capture: _Capture | None) -> None:
        """Keep a capture as the one that was used last; refuse what there is none of."""
        if capture is None:
            self._kept.pop(key, None)
            _keep(self._refused, key, None, MOST_COUNTED)
        else:
            _keep(self._kept, key, capture, MOST)

    def _due(self, key: Hashable, given: Tensor) -> bool:
        """Whether this evaluation is one to replay, or to capture."""
        with self._lock:
            if self._short or key in self._refused:
                return False
            if key in self._kept:
                return True
            count = self._counts.pop(key, 0)
            # A picture that lies in memory with gaps is copied into one that has none.
            if count >= PAYS_AFTER and torch.empty_like(given).stride() == given.stride():
                return True
            _keep(self._counts, key, count + 1, MOST_COUNTED)
            return False

    def _captured(self, function: Function, given: Tensor) -> _Capture | None:
        """A function captured; None where it cannot be, or where memory is short."""
        here = given.clone()
        # What is made in the first run and kept by someone comes from outside in the second.
        first, second = _Watch(self._backend.device), _Watch(self._backend.device)

        def watched(watch: _Watch) -> tuple[Tensor, ...]:
            with watch:
                return function(here)

        try:
            with _CAPTURING:
                self._backend.warm(lambda: watched(first))
                if not first.operations:
                    return None
                replay, found = self._backend.capture(lambda: watched(second))
        except Exception as error:  # a module's own, of any kind
            # A capture that is broken off says only that it was; its cause is the context.
            if not out_of_memory(error):
                log.debug("not captured: %s", _message(error))
                return None
            log.debug("not captured, for want of memory: %s", _message(error))
        else:
            # Addresses are all that a graph knows of weights, references and masks.
            return _Capture(replay, here, found, [function, *second.held.values()])
        gc.collect()
        self.let_go()
        return None

    def _checked(
        self, capture: _Capture, found: tuple[Tensor, ...], function: Function, given: Tensor
    ) -> tuple[_Capture | None, tuple[Tensor, ...]]:
        """A capture, if a replay gives what running the function does; and that.

        Of another picture than it was captured with, so what hangs on chance shows.
        """
        expected = function(given)
        if all(_alike(a, b) for a, b in zip(found, expected, strict=True)):
            capture.checked = True
            return capture, expected
        log.debug("not captured: a replay gives something else")
        return None, expected


def _keep(things: dict[Hashable, Any], key: Hashable, value: Any, most: int) -> None:
    """Put it last, and drop what was used longest ago."""
    things.pop(key, None)
    things[key] = value
    while len(things) > most:
        del things[next(iter(things))]


def _alike(found: Tensor, expected: Tensor) -> bool:
    # Not a number is like itself: whoever asked is told so by the values.
    there = torch.isfinite(expected)
    if not torch.equal(there, torch.isfinite(found)):
        return False
    difference, length = ((x * there).nan_to_num().norm() for x in (found - expected, expected))
    return bool(difference <= TOLERANCE * length)


def _message(error: BaseException) -> str:
    cause = error.__context__ if isinstance(error.__context__, RuntimeError) else error
    return next(iter(str(cause).splitlines()), type(error).__name__)


class _Watch(TorchDispatchMode):
    """Keeps what comes from outside, and refuses what waits for the device.

    `held` are the tensors that were not made within, by their storage: a graph reads them where
    they lie, whoever else may drop them.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.operations = device, 0
        self.held: dict[int, Tensor] = {}
        self._made: dict[int, weakref.ref[Any]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to skip it PyTorch would import it, which takes seconds

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        there = [one for one in given if one.device == self.device]
        if there and func in _READS:
            raise _RefusedError(f"{func} waits for the device")
        for one in there:
            number = one.untyped_storage()._cdata
            made = self._made.get(number)
            if made is None or made() is None:
                self.held.setdefault(number, one)
        result = func(*args, **kwargs)
        found = [one for one in tree_leaves(result) if isinstance(one, Tensor)]
        if func in _COPIES and len({one.device for one in (*given, *found)}) > 1:
            raise _RefusedError(f"{func} goes from one device to another")
        for one in found:
            if one.device == self.device:
                self.operations += 1
                storage = one.untyped_storage()
                if storage._cdata not in self.held:
                    self._made[storage._cdata] = weakref.ref(storage)
        return result


_aten = torch.ops.aten
# What gives the processor a number, or a tensor whose size hangs on numbers.
_READS = {
    _aten._local_scalar_dense.default,
    _aten.equal.default,
    _aten.nonzero.default,
    _aten.masked_select.default,
}
_COPIES = {_aten._to_copy.default, _aten.copy_.default}
