"""What only a CUDA card can show; elsewhere all of it is skipped.

`pytest tests/test_cuda.py` on a machine that has one; it takes a minute.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

from phosphene.evaluation.adaptive import AdaptiveEvaluation
from phosphene.evaluation.tiles import exact_tiling, tile_by_tile
from phosphene.evaluation.whole import whole
from phosphene.films.frames import Frame
from phosphene.network.extract import ProgramExtractor
from phosphene.objectives.build import parse
from phosphene.recipes.dream import dream
from phosphene.recipes.film import FilmSettings
from phosphene.recipes.steps.film import film_frames
from phosphene.recipes.visualize import visualize
from phosphene.runtime import capture
from phosphene.runtime.memory import used_memory
from phosphene.runtime.options import Options
from phosphene.zoo import load_network

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA card"),
    pytest.mark.slow,
]

PHOTO = torch.rand(1, 3, 160, 200, generator=torch.Generator().manual_seed(0))
SHORT: dict[str, Any] = {"octaves": 2, "steps": 6, "device": "cuda"}


def gradient(device: str, precision: str, image: Tensor = PHOTO) -> Tensor:
    prepared = load_network().prepared(device, precision)
    goal = parse("mixed4c").bound(prepared)
    dtype = torch.float64 if precision == "fp64" else torch.float32
    _, found = whole(prepared, goal)(image.to(prepared.device, dtype))
    return found.double().cpu()


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.99999), ("bf16", 0.9)])
def test_the_gradient_is_that_of_float64_on_a_processor(precision: str, least: float) -> None:
    expected, found = gradient("cpu", "fp64"), gradient("cuda", precision)
    assert float(torch.cosine_similarity(expected.flatten(), found.flatten(), dim=0)) > least


def test_the_program_is_what_runs() -> None:
    prepared = load_network().prepared("cuda", "fp32")
    prepared.activations(PHOTO.cuda(), ["mixed4c"])
    assert {type(found) for found in prepared._extractors.values()} == {ProgramExtractor}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_dream_comes_out_again_to_the_byte(precision: str) -> None:
    first, again = (
        dream(PHOTO, load_network(), "mixed4c", precision=precision, **SHORT) for _ in range(2)
    )
    assert torch.equal(first, again)


@pytest.mark.parametrize("transforms", ["robust", "none"])
def test_a_drawing_comes_out_alike(transforms: str) -> None:
    """To the byte where nothing is turned; else within what noise of the last bit does."""
    first, again = (
        visualize(
            load_network(), "mixed4c:9", size=96, steps=32, transforms=transforms, device="cuda"
        )
        for _ in range(2)
    )
    apart = float((first - again).abs().mean()) * 255
    assert apart <= (0 if transforms == "none" else 12)


def test_tiles_are_the_whole() -> None:
    prepared = load_network().prepared("cuda", "fp32")
    goal = parse("mixed4c").bound(prepared)
    tiling = exact_tiling(prepared, goal)
    image = torch.rand(1, 3, 512, 640, generator=torch.Generator().manual_seed(1)).cuda()
    _, expected = whole(prepared, goal)(image)
    _, found = tile_by_tile(prepared, goal, tiling, 4 * tiling.smallest)(image)
    assert float((found - expected).norm() / expected.norm()) < 1e-4


def test_two_hundred_dreams_hold_no_more_memory_than_ten() -> None:
    net, held = load_network(), []
    for _ in range(200):
        dream(PHOTO, net, "mixed3b", octaves=2, steps=2, device="cuda")
        held.append(used_memory("cuda"))
    assert held[-1] <= held[9]


def test_a_settled_step_does_not_wait() -> None:
    """PyTorch tells of each operation that waits for the card."""
    reads = []
    steps = dream.steps(PHOTO, load_network(), "mixed4c", octaves=1, steps=9, device="cuda")
    try:
        for step in steps:
            reads.append(step.index)
            torch.cuda.set_sync_debug_mode("error" if 2 <= step.index < 7 else "default")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert reads == list(range(9))


# Captures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_captured_is_what_eager_gives_to_the_byte(precision: str) -> None:
    prepared = load_network().prepared("cuda", precision)
    goal = parse("mixed4c + 0.5*mixed4b:3 - 0.1*tv()").bound(prepared)
    plain, evaluate = whole(prepared, goal, options=Options(captured=False)), whole(prepared, goal)
    assert prepared.captures is not None
    before = len(prepared.captures)
    chance = torch.Generator().manual_seed(0)
    for _ in range(capture.PAYS_AFTER + 20):
        image = torch.rand(1, 3, 160, 200, generator=chance).cuda()
        for found, expected in zip(evaluate(image), plain(image), strict=True):
            assert torch.equal(found, expected)
    assert len(prepared.captures) == before + 1


def test_a_captured_dream_is_the_dream_to_the_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    how: dict[str, Any] = {**SHORT, "steps": 20, "laplacian": 4, "smooth": 0.5, "natural": 0.5}
    monkeypatch.setattr(capture, "PAYS_AFTER", 10**6)
    plain = dream(PHOTO, load_network(), "mixed4c", **how)
    monkeypatch.setattr(capture, "PAYS_AFTER", 4)
    assert torch.equal(dream(PHOTO, load_network(), "mixed4c", **how), plain)


def test_the_frames_of_a_film_replay_what_was_captured_of_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capture, "PAYS_AFTER", 4)
    captured: list[object] = []
    record = capture.CudaGraphs.capture

    def counted(self: capture.CudaGraphs, function: Any) -> Any:
        captured.append(function)
        return record(self, function)

    monkeypatch.setattr(capture.CudaGraphs, "capture", counted)

    def frames() -> Iterator[Frame]:
        for number in range(8):
            yield Frame(number, Fraction(number, 30), PHOTO.roll(number, -1))

    given = {"octaves": 2, "steps": 3, "first_steps": 3, "flow": "off", "device": "cuda"}
    settings = FilmSettings(**given)
    for _ in film_frames(frames(), load_network(), parse("mixed4c"), settings):
        pass
    assert len(captured) == 4  # the evaluation and the gradient's way, in two octaves


def test_where_memory_runs_out_captures_go_and_the_picture_stays_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capture, "PAYS_AFTER", 2)
    prepared = load_network().prepared("cuda", "fp32")
    prepared.__dict__.pop("captures", None)
    goal = parse("mixed4c").bound(prepared)
    image = torch.rand(1, 3, 512, 640).cuda()
    evaluate = AdaptiveEvaluation(prepared, goal, [(512, 640)])
    for _ in range(5):
        evaluate(image)
    assert prepared.captures is not None
    assert len(prepared.captures) == 1
    held = torch.cuda.memory_reserved()
    plain, lacks = prepared.activations, [torch.OutOfMemoryError("CUDA out of memory.")]

    def scarce(*given: Any, **named: Any) -> Any:
        if lacks:
            raise lacks.pop()
        return plain(*given, **named)

    monkeypatch.setattr(prepared, "activations", scarce)
    evaluate(image[..., :500, :].contiguous())
    assert len(prepared.captures) == 0
    assert evaluate.cut()["halved"] == []
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() < held


def test_many_dreams_that_are_captured_hold_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each binds its objective anew: what was captured of the first ones goes."""
    monkeypatch.setattr(capture, "PAYS_AFTER", 2)
    net, held = load_network(), []
    for _ in range(60):
        dream(PHOTO, net, "mixed3b", octaves=2, steps=5, device="cuda")
        held.append(used_memory("cuda"))
    assert held[-1] <= held[2 * capture.MOST]
