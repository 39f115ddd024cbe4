from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from phosphene import objectives as obj
from phosphene.engine import Ascent, Evaluate, Step, ascend
from phosphene.errors import NetworkError, NonFiniteError
from phosphene.evaluation.whole import whole
from phosphene.network import Network
from phosphene.objectives import IMAGE, Objective
from phosphene.parameterization import Pixels
from phosphene.transforms import jitter


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(value: float = 0.5, n: int = 1, size: tuple[int, int] = (4, 5)) -> Pixels:
    return Pixels(torch.full((n, 3, *size), value, dtype=torch.float64))


def near(target: float) -> Evaluate:
    """Score -Σ (x - target)², greatest at the target."""

    def evaluate(image: Tensor) -> tuple[Tensor, Tensor]:
        return -(image - target).square().sum((1, 2, 3)), -2 * (image - target)

    return evaluate


def scripted(*scores: float) -> Evaluate:
    """These scores, one a step, and a gradient of 1 everywhere."""
    left = iter(scores)

    def evaluate(image: Tensor) -> tuple[Tensor, Tensor]:
        return image.new_full((len(image),), next(left)), torch.ones_like(image)

    return evaluate


def run(
    parameterization: nn.Module | None = None,
    evaluate: Evaluate | None = None,
    *,
    steps: int = 5,
    lr: float = 0.1,
    optimiser: torch.optim.Optimizer | None = None,
    **settings: Any,
) -> Iterator[Step]:
    parameterization = parameterization or pixels()
    settings = {"generator": seeded()} | settings
    return ascend(
        parameterization,
        evaluate or near(0.9),
        optimiser or Ascent(parameterization.parameters(), lr),
        steps=steps,
        **settings,
    )


def adam(parameterization: nn.Module, lr: float = 0.05) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameterization.parameters(), lr, maximize=True)


# Steps


def test_one_step_goes_up_the_gradient() -> None:
    # 0.5 + 0.1 * -2 * (0.5 - 0.9)
    (step,) = run(steps=1)
    torch.testing.assert_close(step.image, torch.full((1, 3, 4, 5), 0.58, dtype=torch.float64))
    # The score is that of the image before.
    assert step.score.tolist() == [pytest.approx(-60 * 0.4**2)]


def test_every_step_is_yielded_and_counted() -> None:
    steps = list(run(steps=4, octave=1, octaves=3))
    assert [(s.octave, s.octaves, s.index, s.steps) for s in steps] == [
        (1, 3, 0, 4),
        (1, 3, 1, 4),
        (1, 3, 2, 4),
        (1, 3, 3, 4),
    ]
    assert [s.last for s in steps] == [False, False, False, True]
    # (x - 0.9) shrinks by 1 - 2 * 0.1 each step; a score belongs to the image of the step before.
    for index, step in enumerate(steps):
        gap = 0.4 * 0.8 ** (index + 1)
        torch.testing.assert_close(step.image, torch.full_like(step.image, 0.9 - gap))
        assert step.score.item() == pytest.approx(-60 * (gap / 0.8) ** 2)
    assert list(run(steps=0)) == []


@pytest.mark.parametrize("kind", ["ascent", "adam", "sgd"])
@pytest.mark.parametrize("units", [{}, {"scale": (0.2, 0.3, 0.4), "shift": 0.45}])
def test_a_step_keeps_its_image(kind: str, units: dict[str, Any]) -> None:
    # Steps that have been kept must not change under their keeper when the ascent goes on.
    start = torch.rand(1, 3, 4, 5, generator=seeded())
    parameterization = Pixels(start, **units)
    optimiser = {
        "ascent": lambda: Ascent(parameterization.parameters(), 0.05),
        "adam": lambda: adam(parameterization),
        "sgd": lambda: torch.optim.SGD(parameterization.parameters(), 0.05, maximize=True),
    }[kind]()
    given, kept, copies = start.clone(), [], []
    for step in run(parameterization, near(1.2), optimiser=optimiser, clamp=True):
        torch.testing.assert_close(step.image, parameterization(), rtol=0, atol=0)
        assert not step.image.requires_grad
        assert not step.score.requires_grad
        kept.append(step.image)
        copies.append(step.image.clone())
    assert all(torch.equal(*pair) for pair in zip(kept, copies, strict=True))
    assert not any(torch.equal(*pair) for pair in itertools.pairwise(kept))
    assert torch.equal(start, given)


def test_ascent_leaves_the_old_tensor() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    before = parameter.data
    parameter.grad = torch.tensor([1.0, -2.0])
    Ascent([parameter], 0.5).step()
    assert before.tolist() == [0, 0]
    assert parameter.tolist() == [0.5, -1]


def test_adam_ascends_when_told_to_maximise() -> None:
    parameterization = pixels(0.2)
    steps = list(run(parameterization, steps=10, optimiser=adam(parameterization)))
    # Adam's first step is lr long, whatever the gradient.
    torch.testing.assert_close(steps[0].image, torch.full_like(steps[0].image, 0.25))
    scores = [s.score.item() for s in steps]
    assert scores == sorted(scores)
    assert scores[-1] > scores[0] / 4


def test_each_picture_of_a_batch_ascends_by_itself() -> None:
    start = torch.rand(3, 3, 4, 5, generator=seeded(), dtype=torch.float64)
    together = list(run(Pixels(start), steps=3))[-1]
    assert together.score.shape == (3,)
    for index in range(3):
        alone = list(run(Pixels(start[index : index + 1]), steps=3))[-1]
        assert torch.equal(together.image[index], alone.image[0])
        torch.testing.assert_close(together.score[index], alone.score[0])


def test_frozen_parameters_are_left_alone() -> None:
    parameterization = pixels()
    fixed = nn.Parameter(torch.ones(3), requires_grad=False)
    parameterization.register_parameter("fixed", fixed)
    list(run(parameterization))
    assert fixed.tolist() == [1, 1, 1]
    assert fixed.grad is None


# Transforms and gradients


def rolled_ones(image: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of one place, in the picture as it is seen."""
    slope = torch.zeros_like(image)
    slope[..., 1, 2] = 1
    return (image * slope).sum((1, 2, 3)), slope


def test_what_the_jitter_rolled_is_unrolled() -> None:
    # What is seen at (1, 2) after a roll by (down, right) stood at (1 - down, 2 - right).
    draws, places = seeded(3), set()
    parameterization = pixels(size=(6, 7))
    before = parameterization().detach()
    for step in run(
        parameterization, rolled_ones, steps=8, transform=jitter(3), generator=seeded(3)
    ):
        down, right = (int(torch.randint(-3, 4, (), generator=draws)) for _ in range(2))
        place = ((1 - down) % 6, (2 - right) % 7)
        expected = before.clone()
        expected[..., place[0], place[1]] += 0.1
        torch.testing.assert_close(step.image, expected)
        before = step.image
        places.add(place)
    assert len(places) > 4


def test_a_cut_window_moves_what_it_showed() -> None:
    def everything(image: Tensor) -> tuple[Tensor, Tensor]:
        assert image.shape[-2:] == (4, 5)
        return image.sum((1, 2, 3)), torch.ones_like(image)

    (step,) = run(pixels(0.0, size=(6, 7)), everything, steps=1, transform=jitter(2, wrap=False))
    moved = (step.image[0, 0] > 0).nonzero()
    assert len(moved) == 4 * 5
    assert (moved.amax(0) - moved.amin(0)).tolist() == [3, 4]


def test_chance_comes_from_the_generator_alone() -> None:
    def dreamt(seed: int) -> Tensor:
        steps = run(evaluate=rolled_ones, transform=jitter(2), generator=seeded(seed))
        return list(steps)[-1].image

    state = torch.get_rng_state()
    assert torch.equal(dreamt(1), dreamt(1))
    assert not torch.equal(dreamt(1), dreamt(2))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_gradient_is_transformed_before_the_step() -> None:
    (step,) = run(steps=1, gradient=lambda g: g.sign() * 0.5)
    torch.testing.assert_close(step.image, torch.full_like(step.image, 0.55))


def test_the_gradient_is_of_the_parameter_in_its_own_units() -> None:
    # x = 4 p, so that d score / dp is four times as much, and so is what a step of p moves.
    parameterization = Pixels(torch.full((1, 3, 2, 2), 0.5, dtype=torch.float64), scale=4.0)
    seen = []

    def noted(g: Tensor) -> Tensor:
        seen.append(g)
        return g

    (step,) = run(parameterization, steps=1, lr=0.01, gradient=noted)
    torch.testing.assert_close(seen[0], torch.full_like(seen[0], 4 * 0.8))
    torch.testing.assert_close(step.image, torch.full_like(step.image, 0.5 + 4 * 0.01 * 4 * 0.8))


@pytest.mark.parametrize(("target", "bound"), [(3.0, 1.0), (-3.0, 0.0)])
def test_clamp_keeps_the_image_in_range(target: float, bound: float) -> None:
    free = list(run(evaluate=near(target)))
    kept = list(run(evaluate=near(target), clamp=True))
    assert all(s.image.min() >= 0 and s.image.max() <= 1 for s in kept)
    assert torch.equal(kept[-1].image, torch.full_like(kept[-1].image, bound))
    assert abs(free[-1].image.mean() - 0.5) > 1


# Ends


def test_an_ascent_ends_before_the_step_that_is_above_the_limit() -> None:
    scores = [s.score.item() for s in run(steps=20)]
    limit = (scores[3] + scores[4]) / 2
    steps = list(run(steps=20, stop_above=limit))
    assert [s.score.item() for s in steps] == scores[:5]
    assert [s.last for s in steps] == [False] * 4 + [True]
    assert torch.equal(steps[4].image, steps[3].image)
    # The limit itself is not above it.
    assert len(list(run(steps=20, stop_above=scores[3]))) == 5
    assert len(list(run(steps=20, stop_above=1.0))) == 20


def test_a_batch_ends_by_its_mean_score() -> None:
    start = torch.tensor([0.9, 0.5]).view(2, 1, 1, 1).expand(2, 3, 4, 5)
    assert len(list(run(Pixels(start), stop_above=-5.0))) == 1
    assert len(list(run(Pixels(start), stop_above=-4.0))) > 1


@pytest.mark.parametrize("kind", ["ascent", "adam"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_brings_the_last_good_image(kind: str, bad: float) -> None:
    parameterization = pixels()
    optimiser = adam(parameterization) if kind == "adam" else None
    images = [parameterization().detach().clone()]
    steps = run(parameterization, scripted(1, 2, 3, bad), optimiser=optimiser, octave=1, octaves=2)
    with pytest.raises(NonFiniteError, match=r"the score .* octave 2, step 4") as caught:
        images.extend(step.image for step in steps)
    assert len(images) == 4
    # images[3] gave the bad score; images[2] is the last that gave a good one.
    assert caught.value.image is not None
    assert torch.equal(caught.value.image, images[2])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_no_number_is_not_stepped_along(bad: float) -> None:
    count = itertools.count(1)

    def evaluate(image: Tensor) -> tuple[Tensor, Tensor]:
        slope = torch.ones_like(image)
        if next(count) == 3:
            slope[0, 1, 2, 3] = bad
        return image.sum((1, 2, 3)), slope

    parameterization, images = pixels(), []
    with pytest.raises(NonFiniteError, match=r"the gradient .* octave 1, step 3") as caught:
        images.extend(step.image for step in run(parameterization, evaluate))
    assert torch.equal(parameterization(), images[1])
    assert caught.value.image is not None
    assert torch.equal(caught.value.image, images[0])


def test_one_bad_score_of_a_batch_is_enough() -> None:
    def evaluate(image: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tensor([1.0, math.nan]), torch.ones_like(image)

    with pytest.raises(NonFiniteError) as caught:
        next(run(pixels(n=2), evaluate))
    # There was no good image yet.
    assert caught.value.image is None


def test_whoever_has_seen_enough_may_leave() -> None:
    seen = []

    def evaluate(image: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(image)
        return near(0.9)(image)

    steps = run(evaluate=evaluate, steps=1000)
    # Nothing runs ahead of its reader.
    assert seen == []
    for _ in range(3):
        next(steps)
    assert len(seen) == 3
    steps.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert next(steps, None) is None
    assert len(seen) == 3


def test_gradients_may_be_turned_off_around_it() -> None:
    expected, images = list(run(transform=jitter(1)))[-1].image, []
    with torch.no_grad():
        for step in run(transform=jitter(1)):
            assert not torch.is_grad_enabled()
            images.append(step.image)
    assert torch.equal(images[-1], expected)
    for _ in run():
        assert torch.is_grad_enabled()


# Evaluation


def test_whole_gives_score_and_slope(toy: Network) -> None:
    net = toy.prepared("cpu", "fp64")
    goal = (obj.layer("second") + 2 * obj.channel("third", 3)).bound(net)
    evaluate = whole(net, goal)
    image = torch.rand(2, 3, 9, 8, generator=seeded(), dtype=torch.float64)
    given = image.clone()
    score, slope = evaluate(image)
    assert score.shape == (2,)
    assert slope.shape == image.shape
    assert not score.requires_grad
    assert not image.requires_grad
    assert torch.equal(image, given)
    # By the module itself, and by small differences.
    maps = net.module.get_submodule
    first = (image - torch.tensor(net.shift).view(3, 1, 1).double()) / torch.tensor(net.scale).view(
        3, 1, 1
    ).double()
    second = maps("second")(maps("first")(first).relu())
    third = maps("third")(second.relu())
    expected = second.square().mean((1, 2, 3)) + 2 * third[:, 3].mean((1, 2))
    torch.testing.assert_close(score, expected)
    for place in ((0, 0, 0, 0), (1, 2, 4, 5), (0, 1, 8, 7)):
        h = torch.zeros_like(image)
        h[place] = 1e-5
        difference = (evaluate(image + h)[0] - evaluate(image - h)[0]) / 2e-5
        assert difference[place[0]].item() == pytest.approx(slope[place].item(), rel=1e-4)
        # The other picture of the batch has no part in it.
        assert difference[1 - place[0]] == 0


def test_whole_of_the_image_itself(toy: Network) -> None:
    goal = Objective((IMAGE,), lambda a: a[IMAGE].square().sum((1, 2, 3)))
    image = torch.rand(1, 3, 4, 5, generator=seeded())
    score, slope = whole(toy, goal)(image)
    torch.testing.assert_close(score, image.square().sum((1, 2, 3)))
    torch.testing.assert_close(slope, 2 * image)


def test_an_objective_without_a_gradient_says_so(toy: Network) -> None:
    goal = Objective(("third",), lambda a: a["third"].detach().mean((1, 2, 3)))
    with pytest.raises(NetworkError, match="toy gives no gradient from third"):
        whole(toy, goal)(torch.rand(1, 3, 8, 8))
