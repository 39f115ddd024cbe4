"""Captures: what is replayed is what would have been computed, and nothing is held in vain.

There is no card here: `tests.graphs` has the semantics of CUDA's graphs, numbers frozen and all.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from phosphene.evaluation.adaptive import AdaptiveEvaluation
from phosphene.evaluation.whole import whole
from phosphene.objectives import layer
from phosphene.runtime import capture
from phosphene.runtime.capture import Captures, CudaGraphs, Same
from tests.graphs import Recorder, net, pictures, recorded

LACK = "CUDA out of memory. Tried to allocate 2.00 GiB"


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third evaluation is captured."""
    monkeypatch.setattr(capture, "PAYS_AFTER", 2)


def doubled(x: Tensor) -> tuple[Tensor, ...]:
    return (2 * x, (x + 1).sum().reshape(1))


# What runs -------------------------------------------------------------------------------------


def test_it_is_captured_once_it_has_paid_and_gives_the_same() -> None:
    backend = Recorder()
    captures = Captures(backend)
    for number, x in enumerate(pictures(capture.PAYS_AFTER + 5)):
        found = captures.run(doubled, x, "doubled")
        assert all(torch.equal(a, b) for a, b in zip(found, doubled(x), strict=True))
        assert backend.captured == (number >= capture.PAYS_AFTER)
    # The one that is captured is run as it comes besides; the next is compared.
    assert (backend.warmed, backend.captured, backend.replayed) == (1, 1, 4)


@pytest.mark.usefixtures("early")
def test_results_stay_what_they_were() -> None:
    captures = Captures(Recorder())
    given = list(pictures(8))
    found = [captures.run(doubled, x, "doubled")[0] for x in given]
    assert all(torch.equal(2 * x, y) for x, y in zip(given, found, strict=True))


@pytest.mark.usefixtures("early")
def test_each_shape_type_and_layout_has_a_capture_of_its_own() -> None:
    backend = Recorder()
    captures = Captures(backend)
    (x,) = pictures(1)
    kinds = [x, x.float(), x[..., :8].contiguous(), x.to(memory_format=torch.channels_last)]
    for _ in range(5):
        for one in kinds:
            found, _ = captures.run(doubled, one, "doubled")
            assert (found.dtype, found.stride()) == (one.dtype, one.stride())
    assert backend.captured == len(captures) == len(kinds)


@pytest.mark.usefixtures("early")
def test_a_picture_with_gaps_between_its_rows_is_run_as_it_comes() -> None:
    backend = Recorder()
    captures = Captures(backend)
    for x in pictures(6):
        part = x[..., :8]
        assert torch.equal(captures.run(doubled, part, "doubled")[0], 2 * part)
    assert backend.captured == 0


@pytest.mark.usefixtures("early")
def test_numbers_are_frozen_which_shows_at_the_first_replay() -> None:
    backend, number = Recorder(), iter(range(100))
    captures = Captures(backend)
    shown = []

    def other(x: Tensor) -> tuple[Tensor, ...]:
        shown.append(next(number))
        return (x * shown[-1],)

    for x in pictures(8):
        (found,) = captures.run(other, x, "other")
        assert torch.equal(found, x * shown[-1])
    assert (backend.captured, backend.replayed, len(captures)) == (1, 1, 0)


@pytest.mark.usefixtures("early")
def test_numbers_that_change_later_are_frozen_for_good() -> None:
    """So the stand-in can tell; see the dreams below, and `Objective.pure`."""
    captures, number = Captures(Recorder()), [2.0]
    for x in pictures(5):
        captures.run(lambda x: (x * number[0],), x, "number")
    number[0] = 3.0
    (x,) = pictures(1)
    (found,) = captures.run(lambda x: (x * number[0],), x, "number")
    assert torch.equal(found, 2 * x)


@pytest.mark.usefixtures("early")
def test_what_reads_a_number_goes_on_as_it_came() -> None:
    backend = Recorder()
    captures = Captures(backend)

    def asks(x: Tensor) -> tuple[Tensor, ...]:
        return (x / float(x.max()),)

    for x in pictures(8):
        assert torch.equal(captures.run(asks, x, "asks")[0], x / x.max())
    # It is found out before anything is captured, since a capture that breaks off leaves traces.
    assert (backend.warmed, backend.tried, len(captures)) == (1, 0, 0)


@pytest.mark.usefixtures("early")
def test_what_cannot_be_captured_is_tried_once() -> None:
    backend = Recorder()
    backend.lacking = [RuntimeError("operation not permitted when stream is capturing")]
    captures = Captures(backend)
    for x in pictures(8):
        assert torch.equal(captures.run(doubled, x, "doubled")[0], 2 * x)
    assert (backend.lacking, backend.captured, backend.warmed, backend.released) == ([], 0, 1, 0)
    for x in pictures(8, 8, 8):  # another shape is another matter
        captures.run(doubled, x, "doubled")
    assert backend.captured == 1


@pytest.mark.usefixtures("early")
def test_nothing_is_captured_of_what_computes_nothing() -> None:
    backend = Recorder()
    captures = Captures(backend)
    for x in pictures(5):
        captures.run(lambda x: (x,), x, "itself")
    assert backend.captured == 0


# What is held ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("early")
def test_what_a_graph_reads_lives_as_long_as_it() -> None:
    """Such as features of a guide, which their own cache may drop."""
    kept = {"mask": torch.full((24,), 3.0, dtype=torch.float64)}
    captures = Captures(Recorder())

    def masked(x: Tensor) -> tuple[Tensor, ...]:
        return (x * kept["mask"],)

    for x in pictures(4):
        captures.run(masked, x, "masked")
    (held,) = captures._kept.values()
    assert any(one is kept["mask"] for one in held.held)
    mask = weakref.ref(kept.pop("mask").untyped_storage())
    gc.collect()
    assert mask() is not None
    del held
    captures.let_go()
    gc.collect()
    assert mask() is None


@pytest.mark.usefixtures("early")
def test_what_was_made_in_the_warm_up_is_held_as_well() -> None:
    """Where a cache was dropped before, say by another thread."""
    captures, calls = Captures(Recorder()), []
    kept: dict[str, Tensor] = {}

    def masked(x: Tensor) -> tuple[Tensor, ...]:
        calls.append(x.shape)
        if len(calls) in (1, 3):
            kept["mask"] = torch.full((24,), 3.0, dtype=torch.float64)
        return (x * kept["mask"],)

    for x in pictures(4):
        assert torch.equal(captures.run(masked, x, "masked")[0], 3 * x)
    (capture,) = captures._kept.values()
    assert any(one is kept["mask"] for one in capture.held)


@pytest.mark.usefixtures("early")
def test_so_many_captures_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "MOST", 3)
    backend = Recorder()
    captures = Captures(backend)
    for number in range(5):
        for x in pictures(4):
            captures.run(doubled, x, number)
    assert (backend.captured, len(captures)) == (5, 3)
    (x,) = pictures(1)
    captures.run(doubled, x, 2)  # used, so the next goes before it
    for x in pictures(4):
        captures.run(doubled, x, 5)
    assert [key[0] for key in captures._kept] == [4, 2, 5]  # pyright: ignore[reportIndexIssue]


def test_so_many_shapes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "MOST_COUNTED", 4)
    captures = Captures(Recorder())
    for side in range(2, 12):
        (x,) = pictures(1, side, side)
        captures.run(doubled, x, "doubled")
    assert len(captures._counts) == 4


@pytest.mark.usefixtures("early")
def test_counting_holds_nothing() -> None:
    """A mask of each frame would be held for as long as there are counts."""
    captures = Captures(Recorder())
    goal = layer("second")
    (x,) = pictures(1)
    captures.run(doubled, x, Same.of(goal))
    there = weakref.ref(goal)
    del goal
    gc.collect()
    assert there() is None


def test_keys_go_by_identity() -> None:
    one, other = layer("second"), layer("second")
    assert Same.of(one) == Same.of(one)
    assert hash(Same.of(one)) == hash(Same.of(one))
    assert Same.of(one) != Same.of(other)
    gone = Same.of(layer("second"))
    gc.collect()
    assert gone != Same(gone.thing, gone.number)  # what has its number now is another one
    assert gone == gone


@pytest.mark.usefixtures("early")
def test_a_network_goes_with_what_is_captured_of_it() -> None:
    network = net()
    recorded(network)
    evaluate = whole(network, layer("second").bound(network))
    for x in pictures(5):
        evaluate(x)
    assert network.captures is not None
    assert len(network.captures) == 1
    there = weakref.ref(network)
    del network, evaluate
    gc.collect()
    assert there() is None


def test_a_copy_of_captures_is_empty() -> None:
    import copy

    captures = Captures(CudaGraphs(torch.device("cuda:0")))
    captures._counts["some"] = 3
    again = copy.deepcopy(captures)
    assert not again._counts
    assert again._backend.device == torch.device("cuda:0")


# Lack of memory --------------------------------------------------------------------------------


@pytest.mark.usefixtures("early")
def test_lack_of_memory_in_a_capture_lets_all_go_and_the_picture_is_evaluated() -> None:
    backend = Recorder()
    captures = Captures(backend)
    for x in pictures(5):
        captures.run(doubled, x, "first")
    assert len(captures) == 1
    backend.lacking = [RuntimeError(LACK)]
    for x in pictures(5):
        assert torch.equal(captures.run(doubled, x, "second")[0], 2 * x)
    assert (backend.lacking, len(captures), backend.released) == ([], 0, 1)
    for x in pictures(5):  # for good: it would run out again
        captures.run(doubled, x, "first")
    assert (backend.captured, len(captures)) == (1, 0)


@pytest.mark.usefixtures("early")
def test_memory_that_captures_hold_is_had_back_where_it_runs_out() -> None:
    backend = Recorder()
    captures = Captures(backend)
    for x in pictures(5):
        captures.run(doubled, x, "first")

    def scarce(x: Tensor) -> tuple[Tensor, ...]:
        if len(captures):
            raise torch.OutOfMemoryError(LACK)
        return doubled(x)

    (x,) = pictures(1)
    assert torch.equal(captures.run(scarce, x, "scarce")[0], 2 * x)
    assert backend.released == 1

    def lacking(x: Tensor) -> tuple[Tensor, ...]:
        raise torch.OutOfMemoryError(LACK)

    with pytest.raises(torch.OutOfMemoryError):
        captures.run(lacking, x, "lacking")


@pytest.mark.usefixtures("early")
@pytest.mark.parametrize("runs", [3, 4])
def test_the_only_capture_goes_where_its_own_replay_or_check_runs_out(runs: int) -> None:
    backend = Recorder()
    captures = Captures(backend)
    lacks: list[Exception] = []

    def scarce(x: Tensor) -> tuple[Tensor, ...]:
        if lacks and len(captures):
            raise lacks.pop()
        return doubled(x)

    *before, x = pictures(runs + 1)
    for one in before:
        captures.run(scarce, one, "scarce")
    (kept,) = captures._kept.values()

    def lacking() -> None:  # as where there is no room for copies of what a replay gives
        scarce(x)

    if kept.checked:
        kept.replay = lacking
    lacks.append(torch.OutOfMemoryError(LACK))
    assert torch.equal(captures.run(scarce, x, "scarce")[0], 2 * x)
    assert (lacks, len(captures), backend.released) == ([], 0, 1)


@pytest.mark.usefixtures("early")
def test_captures_go_before_a_picture_is_cut_into_tiles() -> None:
    """Of tiles nothing is captured, so the evaluation sees to it."""
    network = net()
    backend = recorded(network)
    goal = layer("second").bound(network)
    evaluate = AdaptiveEvaluation(network, goal, [(64, 64)], tile=32)
    for x in pictures(4):
        whole(network, goal)(x)
    assert network.captures is not None
    assert len(network.captures) == 1
    plain, lacks = network.activations, [torch.OutOfMemoryError(LACK)]

    def scarce(*given: Any, **named: Any) -> Any:
        if lacks:
            raise lacks.pop()
        return plain(*given, **named)

    network.activations = scarce  # pyright: ignore[reportAttributeAccessIssue]
    (x,) = pictures(1, 64, 64)
    evaluate(x)
    assert (len(network.captures), backend.released) == (0, 1)
    assert evaluate.cut()["halved"] == []


# What is asked of PyTorch ----------------------------------------------------------------------


class Cuda:
    """Stands in for `torch.cuda`, and writes down what it is asked for."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.current: Any = "main"
        self.pools = 0
        self.broken = False

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cuda = self

        class Stream:
            def __init__(self, device: torch.device) -> None:
                self.device = device

            def wait_stream(self, other: Any) -> None:
                cuda.told.append(("waits", "side", other))

        class Main:
            def wait_stream(self, other: Any) -> None:
                cuda.told.append(("waits", "main"))

            def wait_event(self, event: Any) -> None:
                cuda.told.append("after")

        class Graph:
            def replay(self) -> None:
                cuda.told.append("replay")

        class Event:
            def record(self, stream: Any) -> None:
                cuda.told.append("done")

        @contextmanager
        def stream(one: Any) -> Iterator[None]:
            before, cuda.current = cuda.current, one
            yield
            cuda.current = before

        @contextmanager
        def graph(one: Any, **how: Any) -> Iterator[None]:
            cuda.told.append(("capture", how["pool"], how["stream"], how["capture_error_mode"]))
            cuda.current = how["stream"]
            yield
            if cuda.broken:
                raise RuntimeError("capture was invalidated")

        @contextmanager
        def device(one: Any) -> Iterator[None]:
            yield

        def pool() -> int:
            self.pools += 1
            return self.pools

        self.current = main = Main()
        for name, value in {
            "Stream": Stream, "CUDAGraph": Graph, "Event": Event, "stream": stream, "graph": graph,
            "device": device, "graph_pool_handle": pool, "empty_cache": lambda: None,
            "current_stream": lambda device=None: cuda.current,
            "set_stream": lambda one: setattr(cuda, "current", one),
        }.items():  # fmt: skip
            monkeypatch.setattr(torch.cuda, name, value)
        self.main = main


def test_graphs_share_a_pool_and_a_stream_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda()
    cuda.patch(monkeypatch)
    backend = CudaGraphs(torch.device("cuda:0"))
    assert cuda.told == []
    streams = []
    backend.warm(lambda: streams.append(cuda.current))
    (x,) = pictures(1)
    for _ in range(2):
        replay, found = backend.capture(lambda: (streams.append(cuda.current), (x,))[1])
        replay()
        assert found == (x,)
    (side,) = set(streams)
    assert side is not cuda.main
    assert cuda.current is cuda.main
    captures = [one for one in cuda.told if one[0] == "capture"]
    assert captures == [("capture", 1, side, "thread_local")] * 2
    # Each time it begins after what was done, and what comes then is after it.
    waits = [one[1] for one in cuda.told if one[0] == "waits"]
    assert waits == ["side", "main"] * 3


def test_a_capture_that_breaks_off_leaves_the_stream_and_another_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = Cuda()
    cuda.patch(monkeypatch)
    backend = CudaGraphs(torch.device("cuda:0"))
    backend.warm(lambda: None)
    cuda.broken = True
    with pytest.raises(RuntimeError, match="invalidated"):
        backend.capture(tuple)
    assert cuda.current is cuda.main
    cuda.broken = False
    backend.capture(tuple)
    assert [one[1] for one in cuda.told if one[0] == "capture"] == [1, 2]


def test_replays_come_after_what_other_streams_did(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda()
    cuda.patch(monkeypatch)
    backend = CudaGraphs(torch.device("cuda:0"))
    for _ in range(2):
        with backend.in_order():
            cuda.told.append("work")
    assert cuda.told == ["after", "work", "done"] * 2
    with pytest.raises(MemoryError), backend.in_order():
        raise MemoryError
    assert cuda.told[-1] == "done"
