"""Several objectives of one image: one pass forward, one backward for each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from phosphene import load_network
from phosphene import objectives as obj
from phosphene.errors import NetworkError
from phosphene.evaluation.adaptive import AdaptiveEvaluation
from phosphene.evaluation.blend import blended
from phosphene.evaluation.cost import bytes_per_pixel
from phosphene.evaluation.rolled import rolled
from phosphene.evaluation.several import each_of, joint, options_for
from phosphene.evaluation.tiles import tiled
from phosphene.evaluation.whole import each, whole
from phosphene.network import Network
from phosphene.objectives import Objective
from phosphene.runtime import bands, graph, lowering
from phosphene.runtime.lowering import lower
from phosphene.runtime.options import DEFAULT, MEMORY_EFFICIENT, Options
from tests.tiling_networks import MIXED, PADDED, assert_alike, picture, seeded, stack

GOALS = [
    MIXED.bound(PADDED),
    obj.layer("eight", norm="l2").bound(PADDED),
    (obj.channel("four", 2) - 0.2 * obj.tv()).bound(PADDED),
]


def apart(network: Network, goals: list[Objective], image: Tensor) -> tuple[Tensor, Tensor]:
    """Each objective by itself, and then side by side."""
    found = [whole(network, goal)(image) for goal in goals]
    return torch.stack([score for score, _ in found]), torch.stack([grad for _, grad in found])


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The pictures that a network is asked about with a gradient in mind."""
    told: list[int] = []
    real = Network.activations

    def counted(self: Network, image: Tensor, *given: Any, **more: Any) -> Any:
        if image.requires_grad:
            told.append(image[0, 0].numel())
        return real(self, image, *given, **more)

    monkeypatch.setattr(Network, "activations", counted)
    return told


def test_one_pass_forward_serves_all(passes: list[int]) -> None:
    image = picture(61, 83, batch=2)
    expected = apart(PADDED, GOALS, image)
    passes.clear()
    assert_alike(each(PADDED, GOALS)(image), expected)
    assert passes == [61 * 83]
    assert float(expected[1].abs().amax((1, 2, 3, 4)).min()) > 0


def test_one_objective_in_a_list_is_stacked_all_the_same() -> None:
    image = picture(40, 50)
    score, gradient = whole(PADDED, GOALS[0])(image)
    scores, gradients = each(PADDED, GOALS[:1])(image)
    assert torch.equal(scores, score[None])
    assert torch.equal(gradients, gradient[None])


@pytest.mark.parametrize("shift", [(0, 0), (5, 70)])
def test_tiles_are_the_whole_with_one_pass_a_tile(
    shift: tuple[int, int], passes: list[int]
) -> None:
    image = picture(61, 83, batch=2)
    expected = rolled(each(PADDED, GOALS))(image, shift)
    alone = tiled(PADDED, joint(GOALS), 24)
    alone(image, shift)
    passes.clear()
    alone(image, shift)
    count = len(passes)
    passes.clear()
    found = tiled(PADDED, GOALS, 24)(image, shift)
    assert len(passes) == count > 3
    assert_alike(found, expected)
    # A single one, be it in a list or not.
    assert_alike(tiled(PADDED, GOALS[1], 24)(image, shift), [part[1] for part in expected])


def test_roots_of_several_objectives_do_not_mix() -> None:
    roots = [obj.layer(name, norm="l2").bound(PADDED) for name in ("two", "eight", "four")]
    image = picture(50, 66)
    assert_alike(tiled(PADDED, roots, 16)(image), apart(PADDED, roots, image))


def test_blended_tiles_blend_each_alike() -> None:
    goals = [obj.style("four", picture(40, 40)).bound(PADDED), GOALS[0]]
    image = picture(150, 170)
    found = blended(PADDED, goals, 96)(image, (3, 8))
    expected = [blended(PADDED, goal, 96)(image, (3, 8)) for goal in goals]
    assert_alike(found, [torch.stack(parts) for parts in zip(*expected, strict=True)])


def test_rolled_gradients_are_rolled_back() -> None:
    image = picture(30, 36)
    moved = each(PADDED, GOALS)(image.roll((4, 9), (-2, -1)))
    expected = moved[0], moved[1].roll((-4, -9), (-2, -1))
    found = rolled(each(PADDED, GOALS))(image, (4, 9))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("tile", ["off", 24])
def test_the_adaptive_evaluation_takes_several(tile: Any) -> None:
    image = picture(61, 83)
    evaluate = AdaptiveEvaluation(PADDED, GOALS, [(61, 83)], tile=tile)
    assert_alike(evaluate(image, (2, 3)), rolled(each(PADDED, GOALS))(image, (2, 3)))
    assert evaluate.tile((61, 83)) == (None if tile == "off" else 24)


def test_more_gradients_of_one_pass_are_planned_for() -> None:
    network = seeded(stack(a=nn.Conv2d(3, 8, 3), b=nn.ReLU(), c=nn.Conv2d(8, 8, 3)), "fp32")
    goals = [obj.channel("c", k).bound(network) for k in range(3)]
    one, three = bytes_per_pixel(network, goals[0]), bytes_per_pixel(network, goals)
    assert one <= three < 2 * one  # one forward's maps, and one gradient at a time
    with pytest.raises(Exception, match="memory: "):
        AdaptiveEvaluation(PADDED, GOALS, [(200, 200)], memory="100K")


def test_an_objective_without_a_gradient_is_named_by_its_layers() -> None:
    class Counts(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x > 0.5).float()

    network = seeded(stack(soft=nn.Conv2d(3, 4, 3), hard=Counts()), "fp32")
    goals = [obj.layer(name).bound(network) for name in ("soft", "hard")]
    with pytest.raises(NetworkError, match="gives no gradient from hard to the picture"):
        each(network, goals)(picture(20, 20, dtype=torch.float32))


def test_joint_and_each() -> None:
    assert joint(GOALS[0]) is GOALS[0]
    assert each_of(GOALS[0]) == (GOALS[0],)
    assert set(joint(GOALS).layers) == {"two", "four", "eight", obj.IMAGE}
    assert options_for(GOALS[0], DEFAULT) == DEFAULT.unlinked()
    assert options_for(GOALS, MEMORY_EFFICIENT).backward_passes == 3
    # What cancels in a sum is there all the same.
    opposed = [obj.layer("four").bound(PADDED), (-1 * obj.layer("four")).bound(PADDED)]
    image = picture(20, 24)
    _, gradients = each(PADDED, opposed)(image)
    assert torch.equal(gradients[0], -gradients[1])


# What a low-memory pass keeps for another gradient


class Odd(nn.Module):
    """Operations of every kind, one of which a program knows by way of autograd alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 6, 2, 2)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.left, self.right = nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(8, 6, 1)
        self.last = nn.Conv2d(12, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x).relu())
        x = torch.cat([self.left(x).relu(), self.right(x).relu()], 1)
        return self.last(F.softplus(x)).relu()


def two_gradients(run: Callable[[Tensor], dict[str, Tensor]], image: Tensor) -> list[Tensor]:
    """Of a map's channels 1 and 2, of one pass."""
    with torch.enable_grad():
        view = image.clone(memory_format=torch.channels_last).requires_grad_()
        (answer,) = run(view).values()
    parts = [answer[:, k].square().sum() for k in (1, 2)]
    first = torch.autograd.grad(parts[0], view, retain_graph=True)[0]
    return [first, torch.autograd.grad(parts[1], view)[0]]


@pytest.mark.skipif(not lowering.available(), reason="PyTorch without oneDNN")
@pytest.mark.parametrize("banded", [False, True])
@pytest.mark.parametrize("numba", [False, True])
def test_gradients_of_one_pass_are_those_of_passes_of_their_own(banded: bool, numba: bool) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Odd().eval().requires_grad_(False)
    program = lower(graph.trace(module).cut(("last",)))
    runs = bands.banded(program) if banded else program
    assert isinstance(runs, bands.Banded) == banded
    more = Options(memory_efficient=True, numba_pooling=numba, bands="always")
    twice = Options(memory_efficient=True, numba_pooling=numba, bands="always", backward_passes=2)
    image = torch.rand(1, 3, 90, 70, generator=torch.Generator().manual_seed(1))
    got = two_gradients(lambda x: runs(x, options=twice), image)
    for k, found in zip((1, 2), got, strict=True):
        view = image.clone(memory_format=torch.channels_last).requires_grad_()
        (answer,) = runs(view, options=more).values()
        (expected,) = torch.autograd.grad(answer[:, k].square().sum(), view)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        assert float(found.abs().max()) > 0


@pytest.mark.skipif(not lowering.available(), reason="PyTorch without oneDNN")
def test_what_is_saved_goes_with_the_last_gradient() -> None:
    network = load_network().prepared("cpu", "fp32")
    layers = ("mixed4a",)
    for count, options in ((1, MEMORY_EFFICIENT), (2, options_for(GOALS[:2], MEMORY_EFFICIENT))):
        view = torch.rand(1, 3, 64, 64).requires_grad_()
        answer = network.activations(view, layers, options=options)["mixed4a"]
        node: Any = answer.grad_fn
        while not hasattr(node, "saved"):
            node = node.next_functions[0][0]
        there = len(node.saved)
        for k in range(count):
            assert len(node.saved) == there > 0
            torch.autograd.grad(answer.square().sum(), view, retain_graph=True)
            assert bool(node.saved) == (k + 1 < count)


@pytest.mark.parametrize("options", [DEFAULT, MEMORY_EFFICIENT])
def test_googlenet_and_dreamnet_take_several(options: Options) -> None:
    module = torchvision.models.googlenet(weights=None, init_weights=False, aux_logits=False)
    networks = [
        (Network(module, name="googlenet").prepared("cpu", "fp32"), "inception4c", "inception3a"),
        (load_network().prepared("cpu", "fp32"), "mixed5b", "mixed3b"),
    ]
    image = picture(128, 150, dtype=torch.float32)
    for network, *layers in networks:
        goals = [obj.layer(name).bound(network) for name in layers]
        expected = apart(network, goals, image)
        found = each(network, goals, options=options)(image)
        torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=0)
        for a, b in zip(found[1], expected[1], strict=True):
            assert float((a - b).norm() / b.norm()) < 1e-4
            assert math.isfinite(float(a.sum()))
