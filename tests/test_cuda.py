"""What only a CUDA card can show; elsewhere all of it is skipped.

`pytest tests/test_cuda.py` on a machine that has one; it takes a minute.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from phosphene.evaluation.tiles import exact_tiling, tile_by_tile
from phosphene.evaluation.whole import whole
from phosphene.network.extract import GraphExtractor
from phosphene.objectives.build import parse
from phosphene.recipes.dream import dream
from phosphene.recipes.visualize import visualize
from phosphene.runtime.memory import used_memory
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


def test_the_cut_graph_is_what_runs() -> None:
    prepared = load_network().prepared("cuda", "fp32")
    prepared.activations(PHOTO.cuda(), ["mixed4c"])
    assert {type(found) for found in prepared._extractors.values()} == {GraphExtractor}


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
