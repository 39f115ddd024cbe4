"""Whole or in tiles, as memory allows."""

from __future__ import annotations

import logging
import math
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from phosphene import objectives as obj
from phosphene.errors import NetworkError, SettingsError
from phosphene.evaluation import adaptive
from phosphene.evaluation import plan as planning
from phosphene.evaluation.adaptive import AdaptiveEvaluation
from phosphene.evaluation.cost import bytes_per_pixel
from phosphene.evaluation.reach import InexactError
from phosphene.evaluation.tiles import exact_tiling
from phosphene.evaluation.whole import whole
from phosphene.network import Network
from phosphene.runtime import allocator, bands, memory, pooling
from phosphene.runtime.memory import format_bytes
from phosphene.runtime.options import DEFAULT, Options
from tests.on import DEVICE
from tests.tiling_networks import (
    PADDED,
    assert_alike,
    padded,
    picture,
    seeded,
)


class Limited(nn.Module):
    """A network on a machine that has memory for so many px of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.pixels, self.error = padded(), 10**9, Exception()
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.shape[-2] * x.shape[-1])
        if self.seen[-1] > self.pixels:
            raise self.error
        return self.inner(x)


def limited(pixels: int, error: Exception) -> tuple[Network, Limited]:
    network = seeded(Limited())
    assert isinstance(network.module, Limited)
    network.module.pixels, network.module.error = pixels, error
    return network, network.module


LACKS = [
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 67108864 bytes"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
]


@pytest.mark.parametrize("error", LACKS, ids=["linux", "windows", "cuda", "python"])
def test_memory_that_runs_out_halves_the_tiles_and_loses_nothing(error, caplog):
    free = seeded(Limited())
    goal = obj.layer("inner.eight")
    image = picture(300, 341)
    expected = whole(free, goal.bound(free))(image)

    scarce, module = limited(200 * 200, error)
    bound = goal.bound(scarce)
    evaluate = AdaptiveEvaluation(scarce, bound, [(300, 341)])
    assert evaluate.tile((300, 341)) is None
    assert_alike(evaluate(image), expected)
    # A quarter of the picture and its halo are still too much.
    told = "memory ran out at 341×300 px: going on in tiles of {} px"
    assert [r.message for r in caplog.records] == [told.format(192), told.format(96)]
    caplog.clear()
    module.seen.clear()
    assert_alike(evaluate(image), expected)
    assert evaluate.tile((300, 341)) == 96
    larger = picture(310, 350)
    assert_alike(evaluate(larger), whole(free, goal.bound(free))(larger))
    assert max(module.seen) <= 200 * 200  # it has been learnt
    assert not caplog.records


@pytest.mark.slow
def test_memory_that_tiles_cannot_save_is_said():
    scarce, module = limited(200 * 200, MemoryError())
    image = picture(300, 341)
    goal = obj.layer("inner.eight").bound(scarce)
    gram = obj.style("inner.eight", picture(16, 16)).bound(scarce)
    with pytest.raises(SettingsError, match="ran out at 341×300 px, whole; tile=auto"):
        AdaptiveEvaluation(scarce, goal, [], tile="off")(image)
    with pytest.raises(SettingsError, match=r"ran out at .* is no sum.*tile=approximate"):
        AdaptiveEvaluation(scarce, gram, [])(image)
    blend = AdaptiveEvaluation(scarce, gram, [], tile="approximate")
    assert blend(image)[1].shape == image.shape
    assert blend.tile((300, 341)) == 96  # halved twice
    AdaptiveEvaluation(scarce, goal, [])(image)
    module.pixels = 30 * 30
    with pytest.raises(SettingsError, match="ran out at 341×300 px, even in tiles of 32 px"):
        AdaptiveEvaluation(scarce, goal, [])(image)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    broken, _ = limited(200 * 200, RuntimeError("the sizes of tensors must match"))
    goal = obj.layer("inner.eight").bound(broken)
    with pytest.raises(NetworkError, match="must match"):
        AdaptiveEvaluation(broken, goal, [])(picture(300, 341))


def test_a_tile_in_px_is_taken_and_smaller_pictures_are_whole(monkeypatch):
    goal = obj.layer("eight").bound(PADDED)
    calls: list[tuple[int, ...]] = []

    def noted(image: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(tuple(image.shape[-2:]))
        return whole(PADDED, goal)(image)

    monkeypatch.setattr(adaptive, "whole", lambda *_, **__: noted)
    evaluate = AdaptiveEvaluation(PADDED, goal, [(64, 64), (200, 90)], tile=64)
    for size in ((64, 64), (200, 90)):
        image = picture(*size)
        assert_alike(evaluate(image), whole(PADDED, goal)(image))
    assert calls == [(64, 64)]
    style = obj.style("four", picture(32, 32)).bound(PADDED)
    with pytest.raises(InexactError):
        AdaptiveEvaluation(PADDED, style, [(64, 64), (200, 90)], tile=64)


def test_the_tiles_that_a_size_is_evaluated_in_are_told():
    goal = obj.layer("eight").bound(PADDED)
    sizes = [(200, 90), (64, 64), (90, 20)]

    def told(tile: Any) -> list[int | None]:
        evaluate = AdaptiveEvaluation(PADDED, goal, sizes, tile=tile)
        return [evaluate.tile(size) for size in sizes]

    assert told("off") == told("auto") == [None] * 3
    assert told(64) == [64, None, 64]
    assert told(50) == [56, 56, 56]  # whole periods of 8


def test_little_memory_means_tiles_and_the_plan_is_logged(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "phosphene")
    monkeypatch.setattr(memory, "used_memory", lambda _: 0)
    goal = obj.layer("eight").bound(PADDED)
    size = (300, 411)
    need = bytes_per_pixel(PADDED, goal) * math.prod(size)
    little = f"{int(need / 1024)}K"  # what an allocator retains does not fit in, too

    def never(image: Tensor) -> Any:
        pytest.fail("whole")

    image = picture(*size)
    with monkeypatch.context() as patched:
        patched.setattr(adaptive, "whole", lambda *_, **__: never)
        evaluate = AdaptiveEvaluation(PADDED, goal, [size], memory=little)
        assert_alike(evaluate(image), whole(PADDED, goal)(image))
    assert "411×300 px in tiles of" in caplog.text
    plenty = f"{int(need * 4 / 1024)}K"
    caplog.clear()
    AdaptiveEvaluation(PADDED, goal, [size], memory=plenty)(image)
    assert "411×300 px whole" in caplog.text
    with pytest.raises(SettingsError, match=r"memory: 411×300 px take \d+ MiB at least, 1 MiB"):
        AdaptiveEvaluation(PADDED, goal, [size], memory="100K")
    style = obj.style("four", picture(32, 32)).bound(PADDED)
    with pytest.raises(SettingsError, match=r"no sum over the positions.*tile=approximate"):
        AdaptiveEvaluation(PADDED, style, [size], memory=little)
    monkeypatch.setattr(adaptive, "whole", lambda *_, **__: never)
    blend = AdaptiveEvaluation(PADDED, style, [size], memory=little, tile="approximate")
    assert blend(image)[1].shape == image.shape


def test_what_fits_easily_is_measured_and_nothing_of_it_is_saved(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "phosphene")
    goal = obj.layer("eight").bound(PADDED)
    saved: list[bool] = []

    real = Network.activations

    def noted(network: Network, *given: Any, options: Options = DEFAULT) -> Any:
        saved.append(options.memory_efficient)
        return real(network, *given, options=options)

    monkeypatch.setattr(adaptive, "BYTES_PER_PIXEL_BOUND", 2**40)  # so that it is measured
    size = (96, 128)
    taken = math.ceil(bytes_per_pixel(PADDED, goal, options=DEFAULT) * math.prod(size))

    def run(limit: int, **more: Any) -> list[bool]:
        saved.clear()
        limited = planning.Budget(math.ceil(limit / (1 - planning.HEADROOM)), 0)
        monkeypatch.setattr(planning, "budget_of", lambda *_, **__: limited)
        evaluate = AdaptiveEvaluation(PADDED, goal, [size], **more)
        image = picture(*size)
        evaluate(image)  # what else is found out, it is the first time
        with monkeypatch.context() as patched:
            patched.setattr(Network, "activations", noted)
            evaluate(image)
        return sorted({*saved})

    assert run(2 * taken + 2) == [False]
    assert f"128×96 px whole: at most {format_bytes(taken)} of" in caplog.text
    assert run(2 * taken - 2) == [True]
    assert run(2 * taken + 2, memory="4G") == [True]  # a limit is for saving
    monkeypatch.setattr(planning, "CPU_WORKING_SET", taken - 1)
    assert run(10 * taken) == [True]


@pytest.mark.parametrize(("tile", "warm"), [("off", 2), (96, 1)])
def test_what_has_run_is_warm_and_each_tile_has_the_heap(tile, warm, monkeypatch):
    """The weights are laid out the second time; that is the second tile already."""
    goal = obj.layer("eight").bound(PADDED)
    size = (200, 150)
    told: list[bool] = []
    entered: list[int] = []
    real_held, real_heap = allocator.limit_resident, allocator.activations_in_heap

    @contextmanager
    def heap():
        entered[-1] += 1
        with real_heap():
            yield

    def held(most, *, warm):
        told.append(warm)
        entered.append(0)
        return real_held(most, warm=warm)

    monkeypatch.setattr(allocator, "limit_resident", held)
    monkeypatch.setattr(allocator, "activations_in_heap", heap)
    evaluate = AdaptiveEvaluation(PADDED, goal, [size], tile=tile)
    for _ in range(4):
        evaluate(picture(*size))
    assert told == [number >= warm for number in range(4)]
    count = 1 if tile == "off" else len(exact_tiling(PADDED, goal).boxes(size, 96))
    assert entered == [count] * 4


def test_pictures_that_bands_go_over_are_planned_as_such(monkeypatch):
    goal = obj.layer("eight").bound(PADDED)
    asked: list[bool] = []

    def noted(*_: Any, banded: bool = False, **__: Any) -> float:
        asked.append(banded)
        return 1e3

    monkeypatch.setattr(adaptive, "bytes_per_pixel", noted)
    monkeypatch.setattr(adaptive, "BYTES_PER_PIXEL_BOUND", 2**40)
    monkeypatch.setattr(bands, "BAND_PIXELS", 300 * 411)
    for size, banded in ((300, 411), True), ((300, 410), False):
        asked.clear()
        AdaptiveEvaluation(PADDED, goal, [size], memory="4G")
        assert set(asked) == {banded, False}
    asked.clear()
    AdaptiveEvaluation(PADDED, goal, [(300, 411)], memory="900M", tile=96)
    assert set(asked) == {False}  # the tiles are smaller


def test_no_smaller_tile_takes_more_than_is_planned(monkeypatch):
    """Those at the border are smaller, and may be too small for bands."""
    goal = obj.layer("eight").bound(PADDED)
    size, enough = (300, 411), 200 * 411
    bytes_for = {True: 600.0, False: 1000.0}
    monkeypatch.setattr(
        adaptive, "bytes_per_pixel", lambda *_, banded=False, **__: bytes_for[banded]
    )
    monkeypatch.setattr(bands, "BAND_PIXELS", enough)
    asked: list[Any] = []
    real = planning.plan
    monkeypatch.setattr(
        planning,
        "plan",
        lambda size, need, *a, **k: asked.append(need) or real(size, need, *a, **k),
    )
    AdaptiveEvaluation(PADDED, goal, [size], memory="4G", batch=2)
    (need,) = asked
    taken = [need(pixels) * pixels for pixels in range(enough - 500, 2 * enough, 97)]
    assert taken == sorted(taken)
    assert need(enough - 1) == 2000
    assert need(2 * enough) == 1200


@pytest.mark.parametrize(
    ("given", "pixels"),
    [({"tile": "off"}, 300 * 411), ({"tile": 96}, None), ({"memory": "1G"}, 300 * 411), ({}, 0)],
)
def test_what_is_saved_is_held_to_what_was_planned(given, pixels, monkeypatch):
    """Bytes: what was there, the caller's pictures, the gradient's maps of the largest tile, and as
    much for what is kept between them, which of so few is as much again."""
    goal = obj.layer("eight").bound(PADDED)
    size = (300, 411)
    if pixels is None:
        pixels, _ = exact_tiling(PADDED, goal).pixels(size, 96)
    held: list[int | None] = []
    real = allocator.limit_resident
    monkeypatch.setattr(
        allocator, "limit_resident", lambda most, **k: held.append(most) or real(most, **k)
    )
    monkeypatch.setattr(memory, "used_memory", lambda _: 700_000_000)
    monkeypatch.setattr(memory, "available_memory", lambda *_: 2**34)
    if given:
        monkeypatch.setattr(adaptive, "BYTES_PER_PIXEL_BOUND", 2**40)
        monkeypatch.setattr(planning, "CPU_WORKING_SET", 2**20)
    if "memory" not in given:
        given = {**given, "buffers": 2, "between": 3}  # there is room for all at once
    AdaptiveEvaluation(PADDED, goal, [size], **given)(picture(*size))
    reserved = given.get("between", 0) * 3 * 8 * math.prod(size)
    need = math.ceil(2 * bytes_per_pixel(PADDED, goal) * pixels)
    expected = 700_000_000 + reserved + need
    if "memory" in given:
        expected = int(2**30 * (1 - planning.HEADROOM))  # given to be used
        assert expected > 700_000_000 + need
    assert held == [expected if pixels else None]
    # The caller's pictures are so large that nothing may be left behind.
    if reserved:
        given_back: list[bool] = []
        monkeypatch.setattr(allocator, "trim", lambda: given_back.append(True))
        for retained in (reserved, reserved - 1):
            assert not given_back
            monkeypatch.setattr(allocator, "RETAINED", retained)
            AdaptiveEvaluation(PADDED, goal, [size], **given)(picture(*size))
        assert given_back == ([True] if held[0] else [])


def test_maps_lie_where_pictures_do_at_other_times(monkeypatch):
    """What is needed between gradients only is no reason for smaller tiles, nor for more memory."""
    goal = obj.layer("eight").bound(PADDED)
    size = (300, 411)
    picture_bytes = 3 * 8 * math.prod(size)
    taken = planning.with_retained(bytes_per_pixel(PADDED, goal) * math.prod(size))
    monkeypatch.setattr(memory, "used_memory", lambda _: 0)
    monkeypatch.setattr(memory, "available_memory", lambda *_: 2**34)
    monkeypatch.setattr(adaptive, "BYTES_PER_PIXEL_BOUND", 2**40)
    monkeypatch.setattr(planning, "CPU_WORKING_SET", 2**20)
    held: list[int] = []
    real = allocator.limit_resident
    monkeypatch.setattr(
        allocator, "limit_resident", lambda most, **k: held.append(most) or real(most, **k)
    )

    def run(free: int, **given: Any) -> None:
        machine = planning.Budget(math.ceil(free / (1 - planning.HEADROOM)), 0)

        def budget(*_: Any, **counts: int) -> planning.Budget:
            return replace(machine, **counts)

        monkeypatch.setattr(planning, "budget_of", budget)
        AdaptiveEvaluation(PADDED, goal, [size], tile="off", **given)(picture(*size))

    run(picture_bytes + taken, buffers=1, between=4)
    run(picture_bytes + taken + 1000, buffers=1, between=4)
    run(100 * taken, buffers=1, between=4)
    run(100 * taken, buffers=4, between=1)
    fits, more, *plenty = (most - picture_bytes - taken for most in held)
    assert fits in (0, 1)
    assert more - fits == 1000
    assert plenty == [3 * picture_bytes] * 2


def test_all_sizes_of_a_dream_pool_alike(monkeypatch):
    goal = obj.layer("eight").bound(PADDED)
    numba: list[bool] = []

    def noted(*given: Any, options: Options) -> Any:
        def evaluate(image: Tensor) -> tuple[Tensor, Tensor]:
            numba.append(options.numba_pooling)
            return whole(*given, options=options)(image)

        return evaluate

    monkeypatch.setattr(adaptive, "whole", noted)

    small, large = (64, 64), (80, 90)
    monkeypatch.setattr(pooling, "NUMBA_PIXELS", 2 * math.prod(large))
    for sizes, batch, expected in (
        ([small, large], 2, True),
        ([small, large], 1, False),
        ([small], 2, False),
        ([], 1, False),
    ):
        numba.clear()
        AdaptiveEvaluation(PADDED, goal, sizes, batch=batch)(picture(*small))
        assert numba == [expected]


# Dreams


@pytest.mark.parametrize(("precision", "rel", "away"), [("fp64", 1e-6, 1e-6), ("fp32", 0.02, 0.02)])
def test_a_dream_in_tiles_is_the_dream(precision, rel, away):
    from phosphene import dream

    network = seeded(padded(), "fp32")
    photo = picture(96, 117, dtype=torch.float32) / 2 + 0.25
    given = {"octaves": 2, "steps": 3, "jitter": 9, "precision": precision, "device": DEVICE}
    runs = []
    for tile in ("off", 24):
        steps = list(dream.steps(photo, network, "eight + 0.5*four - 0.1*tv()", tile=tile, **given))
        runs.append((steps[-1].picture(), torch.stack([step.score for step in steps])))
    (one, scores), (other, other_scores) = runs
    assert len(scores) == 6
    torch.testing.assert_close(other_scores, scores, rtol=rel, atol=0)
    assert float((one - other).abs().max()) < away
    assert float((one - photo).abs().max()) > 0.01
