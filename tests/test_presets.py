"""The presets are the published algorithms: each is held to a plain transcription of its loop.

`oracles.py` shares nothing with phosphene. Both sides see the same small seeded network, the same
odd-sized picture and the same shifts, and run the published number of octaves and steps.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.ndimage as nd
import torch
from torch import nn

from phosphene import objectives
from phosphene.network import Network
from phosphene.recipes.dream import dream
from phosphene.recipes.presets import PRESETS
from tests import oracles
from tests.on import DEVICE

SIZE = (61, 83)
SEED = 7
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

# Whose name the toy goes by, so that the preset's own objective text is what is tested; what that
# network takes; which of the toy's layers stand in for the text's.
NETWORKS: dict[str, dict[str, Any]] = {
    "google2015": {
        "name": "googlenet",
        "mean": oracles.CAFFE_MEAN,
        "input_range": (0, 255),
        "aliases": {"inception4c": "third"},
    },
    "inception": {"name": "inception_v3", **IMAGENET, "aliases": {"Mixed_6b": "third"}},
    "keras": {
        "name": "inception_v3",
        "input_range": (-1, 1),
        "aliases": {"mixed2": "first", "mixed3": "second", "mixed4": "third", "mixed5": "fourth"},
    },
    "torchvision": {"name": "vgg16", **IMAGENET, "aliases": {"features.30": "fourth"}},
}

ALL = list(NETWORKS)


@functools.cache
def toy() -> nn.Sequential:
    torch.manual_seed(0)
    module = nn.Sequential()
    channels = 3
    for index, name in enumerate(("first", "second", "third", "fourth")):
        module.add_module(f"conv{index}", nn.Conv2d(channels, 8 + 4 * index, 3, padding=1))
        module.add_module(name, nn.ReLU())
        if index in (0, 1):
            module.add_module(f"pool{index}", nn.MaxPool2d(2))
        channels = 8 + 4 * index
    return module


@functools.cache
def photograph() -> np.ndarray:
    """Soft blobs with true black and white in them, so that a clip has something to do."""
    noise = np.random.default_rng(1).random((*SIZE, 3))
    return np.clip(nd.gaussian_filter(noise, (3, 3, 0)) * 4 - 1.5, 0, 1)


def shifts(steps: int, bounds: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The recipe's: of each step, down then right, uniform in ±bound, from the seed's generator."""
    generator = torch.Generator().manual_seed(SEED)
    for down, right in bounds:
        for _ in range(steps):
            dy = int(torch.randint(-down, down + 1, (), generator=generator))
            dx = int(torch.randint(-right, right + 1, (), generator=generator))
            yield dy, dx


def published_objective(preset: str, weight: float = 1.0) -> oracles.GradientOf:
    module = copy.deepcopy(toy()).double()
    if preset == "google2015":
        return oracles.seen_by(module, ["third"], oracles.half_sum_of_squares)
    if preset == "inception":
        return oracles.seen_by(module, ["third"], oracles.sum_of_activations)
    if preset == "keras":
        weights = {"first": 0.2, "second": 3.0, "third": 2.0, "fourth": 1.5}
        weights = {name: weight * coefficient for name, coefficient in weights.items()}
        return oracles.seen_by(module, list(weights), oracles.borderless_squares(weights))
    return oracles.seen_by(module, ["fourth"], oracles.l2_norm)


@functools.cache
def published(preset: str, *, weight: float = 1.0, **settings: Any) -> oracles.Dream:
    gradient_of = published_objective(preset, weight)
    photo = photograph()
    if preset == "google2015":
        jitter = shifts(10, [(32, 32)] * 4)
        return oracles.google2015(photo, gradient_of, jitter, **settings)
    if preset == "inception":
        sides = [[int(side / 1.25**k) // 2 for side in SIZE] for k in (2, 1, 0)]
        jitter = shifts(100, [(down, right) for down, right in sides])
        return oracles.inception(photo, gradient_of, jitter, **settings)
    loop: Callable[..., oracles.Dream] = (
        oracles.keras if preset == "keras" else oracles.torchvision_vgg
    )
    return loop(photo, gradient_of, **settings)


def ours(
    preset: str,
    *,
    objective: objectives.Objective | str | None = None,
    precision: str = "fp64",
    **settings: Any,
) -> oracles.Dream:
    """The preset's dream in the oracle's form: what each octave ended with, and the scores."""
    net = Network(toy(), input_size=64, **NETWORKS[preset])
    photo = oracles.planes(photograph())
    ends: dict[int, np.ndarray] = {}
    scores = []
    settings = {"preset": preset, "seed": SEED, "device": DEVICE, "precision": precision} | settings
    for step in dream.steps(photo, net, objective, **settings):
        ends[step.octave] = oracles.picture(step.image)
        scores.append(float(step.score))
    return oracles.Dream(list(ends.values())[-1], list(ends.values()), scores)


def farthest(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max()) if a.shape == b.shape else float("inf")


@pytest.mark.parametrize("preset", ALL)
def test_every_octave_and_score_is_the_published_loops(preset: str) -> None:
    expected, got = published(preset), ours(preset)
    assert [e.shape for e in got.octaves] == [e.shape for e in expected.octaves]
    apart = [farthest(*pair) for pair in zip(got.octaves, expected.octaves, strict=True)]
    dreamt = farthest(expected.image, photograph())
    print(f"\n{preset}: octaves apart {[f'{a:.1e}' for a in apart]}, dreamt {dreamt:.3f}")
    assert max(apart) < 1e-6
    np.testing.assert_allclose(got.scores, expected.scores, rtol=1e-6)
    assert dreamt > 1e-2
    assert min(steps_taken(expected)) > 0


def steps_taken(dream: oracles.Dream) -> list[float]:
    """How far each octave's end is from what the photograph is there: nothing dreamt is 0."""
    whole = torch.from_numpy(photograph()).permute(2, 0, 1)[None]
    return [
        farthest(end, oracles.picture(oracles.resize(whole, end.shape[:2])))
        for end in dream.octaves
    ]


@pytest.mark.parametrize("preset", ALL)
def test_the_picture_that_is_returned_is_the_published_one_in_range(preset: str) -> None:
    net = Network(toy(), input_size=64, **NETWORKS[preset])
    photo = oracles.planes(photograph())
    image = dream(photo, net, preset=preset, seed=SEED, device=DEVICE, precision="fp64")
    assert farthest(oracles.picture(image), published(preset).image.clip(0, 1)) < 1e-6


@pytest.mark.parametrize("preset", ALL)
def test_float32_reaches_the_published_score(preset: str) -> None:
    # Rounding sends the pixels of a long ascent elsewhere; how much is seen must not change.
    score = published_objective(preset)
    units = {
        "google2015": lambda x: x * 255 - torch.tensor(oracles.CAFFE_MEAN).view(1, 3, 1, 1),
        "keras": lambda x: x * 2 - 1,
    }.get(preset, lambda x: (x - oracles.IMAGENET_MEAN) / oracles.IMAGENET_STD)

    def reached(image: np.ndarray) -> float:
        return score(units(oracles.planes(image)))[0]

    before = reached(photograph())
    expected = reached(published(preset).image)
    got = reached(ours(preset, precision="fp32").image)
    print(f"\n{preset}: score {before:.4g} -> {expected:.6g}, in float32 {got:.6g}")
    assert got - before == pytest.approx(expected - before, rel=0.02)


@pytest.mark.parametrize(
    ("preset", "setting"),
    [
        ("google2015", {"step_size": 1.51 / 255}),
        ("google2015", {"gradient": "rms"}),
        ("google2015", {"jitter": 31}),
        ("google2015", {"resampling": "bilinear"}),
        ("google2015", {"clamp": "off"}),
        ("google2015", {"smooth": 0.5}),
        ("inception", {"values": "image"}),
        ("keras", {"detail": "before"}),
        ("keras", {"stop_above": 0.3}),
        ("keras", {"clamp": "steps"}),
        ("torchvision", {"values": "image"}),
        ("torchvision", {"gradient": "mean"}),
        ("torchvision", {"resampling": "bilinear"}),
        ("torchvision", {"octave_rounding": "floor"}),
    ],
)
def test_any_other_setting_is_another_picture(preset: str, setting: dict[str, Any]) -> None:
    apart = farthest(ours(preset, **setting).image, published(preset).image)
    print(f"\n{preset}, {setting}: {apart:.1e} apart")
    assert apart > 1e-4


@pytest.mark.cpu_only("a card looks at every tenth score alone")
@pytest.mark.parametrize(
    ("step", "limit", "taken"),
    [(0.01, 0.1, [18, 6, 4]), (0.01, 0.3, [20, 18, 8]), (0.1, 0.02, [1, 0, 0])],
)
def test_keras_stops_an_octave_above_its_loss_before_that_step(
    step: float, limit: float, taken: list[int]
) -> None:
    # Even an octave that stops at once gets its lost detail back.
    expected = published("keras", step=step, max_loss=limit)
    got = ours("keras", step_size=step / 2, stop_above=limit)
    assert len(expected.scores) == sum(taken) + 3
    np.testing.assert_allclose(got.scores, expected.scores, rtol=1e-6)
    for ended, should in zip(got.octaves, expected.octaves, strict=True):
        assert farthest(ended, should) < 1e-6


def test_keras_takes_its_steps_on_a_network_of_the_right_kind() -> None:
    """Its loss stays below 10 for most of its steps, or it would be a test of nothing."""
    scores = published("keras").scores
    assert scores[0] < 10
    assert len(scores) > 3 * 10
    assert max(scores) > 2 * scores[0]


@pytest.mark.parametrize("function", ["channel", "guide"])
def test_the_other_functions_of_the_torchvision_article(function: str) -> None:
    """Channel visualisation and guided dreaming are the preset with one octave."""
    module = copy.deepcopy(toy()).double()
    other = np.ascontiguousarray(photograph()[::-1, ::-1])
    units = (oracles.planes(other) - oracles.IMAGENET_MEAN) / oracles.IMAGENET_STD
    if function == "channel":
        score, goal = oracles.mean_of_channel(5), '"features.30":5'
    else:
        features = {"fourth": module(units).detach()}
        score = oracles.minus_distance_to(features)
        goal = objectives.guide("features.30", oracles.planes(other), by="distance")
    gradient_of = oracles.seen_by(module, ["fourth"], score)
    expected = oracles.torchvision_vgg(photograph(), gradient_of, octaves=1)
    got = ours("torchvision", objective=goal, octaves=1)
    apart = farthest(got.image, expected.image)
    print(f"\n{function}: {apart:.1e} apart, {expected.scores[0]:.4g} -> {expected.scores[-1]:.4g}")
    np.testing.assert_allclose(got.scores, expected.scores, rtol=1e-6)
    assert apart < 1e-9
    assert farthest(expected.image, photograph()) > 1e-3


def test_large_steps_meet_the_torchvision_articles_clamp() -> None:
    """Black and white lie within ±3, so that the published step hardly gets there."""
    expected = published("torchvision", step=8.0)
    got = ours("torchvision", step_size=8.0)
    units = (oracles.planes(expected.image) - oracles.IMAGENET_MEAN) / oracles.IMAGENET_STD
    assert float(units.abs().max()) == pytest.approx(3, abs=1e-12)
    assert farthest(got.image, expected.image) < 1e-9
    for other in (None, 2.9):
        apart = farthest(
            ours("torchvision", step_size=8.0, value_limit=other).image, expected.image
        )
        assert apart > 1e-2


def test_keras_moves_less_where_the_gradient_nearly_vanishes() -> None:
    # Below a mean of 1e-7, on values in [-1, 1], the gradient is divided by 1e-7.
    expected = published("keras", weight=1e-6)
    text = PRESETS["keras"].objectives["inception_v3"]
    got = ours("keras", objective=f"1e-6 * ({text})")
    print(f"\nkeras, faint gradient: {farthest(got.image, expected.image):.1e} apart")
    assert farthest(published("keras").image, expected.image) > 1e-2
    assert farthest(got.image, expected.image) < 1e-6
