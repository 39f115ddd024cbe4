# pyright: reportArgumentType=false
# since wrong arguments are tried on purpose
from __future__ import annotations

import gc
import statistics
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene import objectives as obj
from phosphene import transforms
from phosphene.engine import Step
from phosphene.errors import (
    InputTooSmallError,
    NetworkError,
    NonFiniteError,
    ObjectiveError,
    SettingsError,
    StateError,
    UnknownLayerError,
)
from phosphene.evaluation.leaking import leaking_relus
from phosphene.evaluation.whole import shared, whole
from phosphene.manifest.schema import checked_settings
from phosphene.network import Network
from phosphene.objectives import IMAGE, Objective
from phosphene.recipes.accentuate import AccentuateSettings, accentuate
from phosphene.recipes.caricature import CaricatureSettings, caricature
from phosphene.recipes.invert import InvertSettings, invert
from phosphene.recipes.steps import dead_units, framing
from phosphene.recipes.steps import visualize as module
from phosphene.recipes.steps.stages import early, stages
from phosphene.recipes.steps.visualize import VisualizeStep, relative_content
from phosphene.recipes.style import StyleSettings, style
from phosphene.recipes.visualize import VISUALIZE, VisualizeSettings, visualize
from phosphene.settings import checked
from phosphene.state import State
from tests.on import DEVICE

TINY: dict[str, Any] = {"size": 24, "steps": 4, "device": DEVICE, "precision": "fp32"}
EXACT = TINY | {"precision": "fp64"}
KINDS = ("fourier", "pixels", "maco")


class Untraceable(nn.Module):
    """Asks what a value is, which no tracer can answer: it runs under hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.first(x if float(x.detach().sum()) < 1e9 else -x))


class Patches(nn.Module):
    """A transformer's outside: 16 × 16 px alone, a class token and 4 × 4 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 6, 4, stride=4)
        self.places = nn.Parameter(torch.randn(1, 17, 6))
        self.block = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).mT
        tokens = torch.cat([self.places[:, :1].expand(len(x), -1, -1), tokens], 1) + self.places
        return self.head(self.block(tokens).mean(1))


def network(module: nn.Module, **given: Any) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for p in module.parameters():
            p.data.normal_(0, 0.3)
    return Network(module, input_size=16, name="net", **given)


def score(net: Network, goal: obj.Objective | str, picture: Tensor) -> float:
    bound = (obj.channel(*goal.split(":")) if isinstance(goal, str) else goal).bound(net)
    return float(bound(net.activations(picture, bound.layers)).mean())


# What comes out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("aspect", [1.5, 0.66])
def test_a_picture(kind: str, aspect: float, toy: Network) -> None:
    given = {"size": 49, "aspect": aspect, "steps": 2}
    picture = visualize(toy, "third:2", parameterization=kind, **given)
    assert picture.shape == (1, 3, *((33, 49) if aspect > 1 else (49, 32)))
    assert (picture.dtype, picture.device.type) == (torch.float32, "cpu")
    assert picture.min() >= 0
    assert picture.max() <= 1
    assert picture.std() > 0.005


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("goal", ["third:2", "-third:7"])
def test_it_ascends_on_views_that_it_has_not_seen(kind: str, goal: str, toy: Network) -> None:
    given = {"size": 32, "parameterization": kind, "seed": 3}
    before = next(iter(visualize.steps(toy, goal, steps=1, **given))).image
    after = visualize(toy, goal, steps=20, **given)
    sign = -1 if goal.startswith("-") else 1
    unit = goal.removeprefix("-").split(":")
    bound = obj.channel(unit[0], int(unit[1])).bound(toy)

    def unseen(picture: Tensor) -> float:
        picture = picture.cpu()
        views = torch.cat([picture.roll((k, -2 * k), (2, 3)) for k in range(1, 6)])
        return sign * float(bound(toy.activations(views, bound.layers)).mean())

    assert unseen(after) > unseen(before) + 0.01, (unseen(before), unseen(after))


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_is_a_picture(kind: str, toy: Network) -> None:
    given = TINY | {"size": 32, "parameterization": kind}
    once = visualize(toy, "third:1", seed=1, **given)
    assert torch.equal(once, visualize(toy, "third:1", seed=1, **given))
    assert not torch.equal(once, visualize(toy, "third:1", seed=2, **given))


def test_live_steps(toy: Network) -> None:
    steps = list(visualize.steps(toy, "third:1", **TINY))
    assert [step.index for step in steps] == [0, 1, 2, 3]
    assert [step.last for step in steps] == [False, False, False, True]
    assert all(isinstance(step, VisualizeStep) and isinstance(step, Step) for step in steps)
    assert torch.equal(steps[-1].picture(), visualize(toy, "third:1", **TINY))
    assert not torch.equal(steps[0].picture(), steps[1].picture())
    assert steps[0].score.shape == steps[0].dead.shape == (1,)
    assert not steps[-1].dead.any()
    assert steps[-1].transparency() is None


def test_the_global_random_state_is_left_alone(toy: Network) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    for kind in KINDS:
        visualize(toy, "third:1", **TINY | {"size": 32, "parameterization": kind})
    assert torch.equal(state, torch.get_rng_state())


def test_a_start_is_where_it_starts(toy: Network, photo: Tensor) -> None:
    for kind in KINDS:
        steps = visualize.steps(
            toy, "third:1", start=photo, parameterization=kind, learning_rate=1e-6, steps=1
        )
        picture = next(steps).picture()
        assert picture.shape == photo.shape
        torch.testing.assert_close(picture, photo, atol=2e-3, rtol=0)
    small = visualize(toy, "third:1", start=photo, size=24, steps=1, batch=2)
    assert small.shape == (2, 3, 24, 20)
    with pytest.raises(
        SettingsError, match=r"3 pictures to start from; .* as many as are drawn, 2"
    ):
        visualize(toy, "third:1", start=photo.expand(3, -1, -1, -1), batch=2, steps=1)


def test_maco_keeps_its_magnitude_and_tells_where_the_network_cared(toy: Network) -> None:
    given = TINY | {"size": 32, "parameterization": "maco", "batch": 2}
    *_, step = visualize.steps(toy, "third:1", **given)
    mask = step.transparency()
    assert mask is not None
    assert mask.shape == (2, 1, 32, 32)
    assert mask.min() >= 0
    assert mask.max() == 1
    assert mask.std() > 0


def test_a_mask_is_of_its_step_whenever_it_is_asked_for(toy: Network) -> None:
    given = TINY | {"size": 32, "parameterization": "maco"}
    steps, at_once = [], []
    for step in visualize.steps(toy, "third:1", **given):
        steps.append(step)
        at_once.append(step.transparency())
    assert all(
        torch.equal(step.transparency(), mask) for step, mask in zip(steps, at_once, strict=True)
    )
    assert not torch.equal(at_once[0], at_once[-1])
    dead = replace(steps[-1], dead=torch.tensor([True]))
    assert torch.equal(dead.transparency(), torch.ones(1, 1, 32, 32))


def test_penalties_smooth(toy: Network) -> None:
    rough, smooth = (visualize(toy, "third:1", tv=tv, **TINY) for tv in (0.0, 5.0))
    plain = {IMAGE: rough}, {IMAGE: smooth}
    assert obj.tv()(plain[1]) < obj.tv()(plain[0])
    pale = visualize(toy, "third:1", l2=50.0, **TINY)
    assert obj.l2()({IMAGE: pale}) < obj.l2()({IMAGE: rough})


# Batches


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_objectives_is_the_same_as_each_alone(kind: str, toy: Network) -> None:
    goals = ["third:1", obj.layer("second"), "-third:5", "first:2"]
    given = EXACT | {"size": 32, "parameterization": kind, "batch": 2, "tv": 0.1}
    together = visualize(toy, goals, **given)
    assert together.shape == (8, 3, 32, 32)
    for k, goal in enumerate(goals):
        alone = visualize(toy, goal, **given)
        torch.testing.assert_close(together[2 * k : 2 * k + 2], alone, atol=1e-5, rtol=0)
    assert not torch.allclose(together[0], together[1], atol=1e-3)
    assert not torch.allclose(together[0], together[2], atol=1e-3)


def test_shares_of_a_batch_score_as_the_whole_does(toy: Network) -> None:
    image = torch.rand(6, 3, 12, 12, dtype=torch.float64)
    goals = [g.bound(toy) for g in (obj.channel("third", 1), obj.layer("first"), obj.tv())]
    score, slope = shared(toy, goals)(image)
    for k, goal in enumerate(goals):
        expected = whole(toy, goal)(image[2 * k : 2 * k + 2])
        torch.testing.assert_close(score[2 * k : 2 * k + 2], expected[0])
        torch.testing.assert_close(slope[2 * k : 2 * k + 2], expected[1], rtol=1e-4, atol=1e-7)


def test_diversity_makes_the_pictures_of_a_batch_differ(toy: Network) -> None:
    given = TINY | {"batch": 3, "steps": 12, "transforms": "none"}
    alike, unlike = (
        visualize(toy, goal, **given)
        for goal in ("third:1", obj.channel("third", 1) + 20 * obj.diversity("second"))
    )
    goal = obj.diversity("second").bound(toy)
    told = [float(goal(toy.activations(p, goal.layers)).mean()) for p in (alike, unlike)]
    assert told[1] > told[0] + 0.01


# Nothing is left behind


def hooks(module: nn.Module) -> int:
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
        for m in module.modules()
    )


@pytest.mark.slow
@pytest.mark.parametrize("traced", [True, False])
def test_two_hundred_visualisations_leave_no_hook_and_do_not_slow_down(
    traced: bool, toy: Network
) -> None:
    net = toy if traced else network(Untraceable())
    before = hooks(net.module), len(list(net.module.modules()))
    works, alive = [], []
    for seed in range(200):
        begin = time.process_time()
        visualize(net, "third:1" if traced else "first:1", size=16, steps=1, seed=seed)
        works.append(time.process_time() - begin)
        if seed in (20, 199):
            gc.collect()
            kinds = [type(thing) for thing in gc.get_objects()]
            alive.append(sum(issubclass(kind, (Tensor, nn.Module, Network)) for kind in kinds))
    prepared = net.prepared("auto", "fp32")
    assert (hooks(net.module), len(list(net.module.modules()))) == before == (0, before[1])
    assert hooks(prepared.module) == 0
    assert len(net._prepared) <= 2
    # Weights that are laid out for a size of map come and go with it: once forward, once back.
    convolutions = sum(isinstance(module, nn.Conv2d) for module in net.module.modules())
    assert abs(alive[1] - alive[0]) <= 2 * convolutions < 20
    # A hook left behind each time made peers several times slower by then; median against median.
    assert statistics.median(works[150:]) < 2 * statistics.median(works[10:60])


def test_a_run_that_is_dropped_leaves_no_hook() -> None:
    net = network(Untraceable())
    for _ in zip(range(2), visualize.steps(net, "relu:1", **TINY), strict=False):
        pass
    assert hooks(net.module) == 0


# Dead units


def test_the_leak_is_exact() -> None:
    x = torch.tensor([[-1.0, -2.0, 0.5], [-1.0, -2.0, -3.0]], requires_grad=True)
    toward = torch.tensor([[1.0, -1.0, 0.0], [1.0, -1.0, 2.0]])
    for f in (F.relu, torch.relu, Tensor.relu, F.relu6, nn.ReLU(), nn.ReLU6()):
        with leaking_relus():
            y = f(x)
        assert torch.equal(y, x.detach().clamp(0))
        (slope,) = torch.autograd.grad((y * toward).sum(), x)
        # Nothing gets through in either row (the passing entry of the first is not wanted). What
        # would raise a negative input leaks; what would lower it does not.
        assert slope.tolist() == [[1, 0, 0], [1, 0, 2]]
    with leaking_relus():
        y = torch.relu(x)
    (slope,) = torch.autograd.grad((y * torch.tensor([[1.0, 1, 3], [0, 0, 0]])).sum(), x)
    assert slope.tolist() == [[0, 0, 3], [0, 0, 0]]  # where something gets through, as ever
    (slope,) = torch.autograd.grad(torch.relu(x).sum(), x)
    assert slope.tolist() == [[0, 0, 1], [0, 0, 0]]  # and outside, too


@pytest.mark.parametrize(
    "f", [torch.relu_, F.relu_, Tensor.relu_, nn.ReLU(inplace=True), nn.ReLU6(inplace=True)]
)
def test_the_leak_in_place(f: Any) -> None:
    x = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    copy = x * 1
    with leaking_relus():
        y = f(copy)
    assert y is copy
    assert torch.equal(y, torch.zeros(1, 2))
    (slope,) = torch.autograd.grad((y * torch.tensor([[1.0, -1.0]])).sum(), x)
    assert slope.tolist() == [[1, 0]]


def sleeper(bias: float, *, hooked: bool = False) -> Network:
    """One channel behind a ReLU that the grey start does not reach, and one that it does."""
    module = Untraceable() if hooked else nn.Sequential()
    if not hooked:
        module.add_module("first", nn.Conv2d(3, 4, 3))
        module.add_module("relu", nn.ReLU(inplace=True))
    net = network(module)
    first: Any = net.module.get_submodule("first")
    first.weight.data[:2] = torch.tensor([1.0, -1.0, 0.0]).view(3, 1, 1)  # red less green
    first.bias.data[:2] = torch.tensor([bias, 0.1])
    return net


@pytest.mark.parametrize("hooked", [False, True])
def test_a_unit_that_sleeps_at_the_start_is_woken(hooked: bool) -> None:
    net = sleeper(-1.0, hooked=hooked)
    with pytest.warns(UserWarning, match="^relu:0 gives no gradient at the start: helped") as said:
        *_, step = visualize.steps(net, "relu:0", size=16, steps=40)
    assert len(said) == 1
    assert "\n" not in str(said[0].message)
    assert not step.dead.any()
    assert score(net, obj.channel("relu", 0), step.picture()) > 0.1


def test_help_ends_when_all_are_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    helped = []

    def counted() -> Any:
        helped.append(True)
        return leaking_relus()

    monkeypatch.setattr(dead_units, "leaking_relus", counted)
    with pytest.warns(UserWarning, match="up to 32 steps"):
        *_, step = visualize.steps(sleeper(-0.3), "relu:0", size=16, steps=32)
    woken = len(helped)
    assert not step.dead.any()
    assert 1 <= woken < 16
    with pytest.warns(UserWarning, match="counts as dead"):
        visualize(sleeper(-1e6), ["relu:0", "relu:1"], size=16, steps=40)
    assert (
        len(helped) == woken + dead_units.HELPED_STEPS
    )  # where one sleeps on, all steps that help


def test_without_help_it_would_sleep_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_units, "HELPED_STEPS", 0)
    with pytest.warns(UserWarning, match="counts as dead"):
        visualize(sleeper(-1.0), "relu:0", size=16, steps=8)


def test_a_dead_unit_is_reported_and_left_grey() -> None:
    net = sleeper(-1e6)
    with pytest.warns(UserWarning, match="relu:0") as said:
        *_, step = visualize.steps(net, ["relu:0", "relu:1"], size=16, steps=20, batch=2)
    told = [str(w.message) for w in said]
    assert told[0].startswith("relu:0 gives no gradient at the start")
    assert told[1] == (
        "relu:0 gives no gradient in 20 steps and counts as dead: the picture is left grey"
    )
    assert step.dead.tolist() == [True, True, False, False]
    assert torch.equal(step.picture()[:2], torch.full((2, 3, 16, 16), 0.5))
    assert step.picture()[2:].std() > 0.01


def test_help_changes_nothing_for_the_living() -> None:
    net = sleeper(-1e6)
    given = EXACT | {"steps": 20}
    with pytest.warns(UserWarning, match="relu:0 gives no gradient"):
        together = visualize(net, ["relu:0", "relu:1"], **given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone = visualize(net, "relu:1", **given)
    torch.testing.assert_close(together[1:], alone, atol=1e-6, rtol=0)


def test_many_dead_units_are_told_in_one_line() -> None:
    net = sleeper(0)
    first: Any = net.module.get_submodule("first")
    first.bias.data[:] = -1e6
    with pytest.warns(
        UserWarning, match=r"^each of 4 objectives \(relu:0, relu:1, relu:2, relu:3\)"
    ):
        visualize(net, [f"relu:{i}" for i in range(4)], **TINY)


# References move along


@pytest.mark.parametrize("how", ["robust", "gentle", "crops", "none", "robust, noise(0.1)"])
def test_the_photo_is_seen_as_the_picture_is(how: str, toy: Network, photo: Tensor) -> None:
    photo = photo[..., :40, :]
    goal = obj.content("second", photo) + 0 * obj.caricature("first", photo)
    given = {"transforms": how, "steps": 3, "precision": "fp64", "learning_rate": 1e-9}
    for step in visualize.steps(toy, [goal, "third:1"], start=photo.double(), batch=2, **given):
        # The picture is the photo, so wherever both are moved to there is no distance. Noise is
        # each one's own.
        assert step.score[:2].abs().max() < (1e-3 if how == "crops" else 1e-6)


def test_a_transform_is_done_again_alike() -> None:
    move = module._Repeatable(transforms.robust())
    image = torch.rand(1, 3, 20, 30)
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):
        moved = move(image, generator)
        assert torch.equal(move.again(image), moved)
        assert torch.equal(move.again(image), moved)


def test_a_place_stays_where_it_is(toy: Network) -> None:
    # No jitter: the last neuron of the map is there at every step.
    visualize(toy, obj.neuron("third", 1, y=7, x=7), size=16, steps=3)
    with pytest.raises(ObjectiveError, match="outside of third's"):
        visualize(toy, obj.neuron("third", 1, y=8, x=7), size=16, steps=1)


# Any network


def classifier() -> Network:
    """A map and, of its means over positions, class scores; it knows pictures of 16 px."""
    parts = [nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return network(nn.Sequential(*parts, nn.Linear(4, 3)))


def test_what_answers_to_the_whole_picture_is_drawn_as_a_whole(photo: Tensor) -> None:
    net, given = classifier(), EXACT | {"size": 32}
    drawn = visualize(net, '"3":1', **given)
    plain = visualize(net, '"3":1', **given, framing="detail")
    assert not torch.equal(drawn, plain)
    # Twice what the network knows: seen in parts of 0.9 to 1.35 times that.
    by_hand = {"low_pass": 0.94, "transforms": "crops(4, 0.45, 0.675)"}
    assert torch.equal(drawn, visualize(net, '"3":1', **given, framing="detail", **by_hand))
    by_hand = {"low_pass": 0, "transforms": "robust"}
    assert torch.equal(plain, visualize(net, '"3":1', **given, framing="whole", **by_hand))
    for goal, more in (
        ('"0":1', {}),  # a channel of a map
        ('"0":1 + "3":1', {}),
        ('"3":1', {"size": 16}),  # no larger than it knows
        ('"3":1', {"start": photo, "size": 32}),
        ('"3":1', {"parameterization": "maco", "size": 32}),
    ):
        settings = given | more
        auto = visualize(net, goal, **settings)
        assert torch.equal(auto, visualize(net, goal, **settings, framing="detail"))
    assert not torch.equal(
        visualize(net, '"0":1', **given), visualize(net, '"0":1', **given, framing="whole")
    )


MIXED = ['"3":1', '"0":1', '"3":0', '"0":2 + "3":1']


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_beside_a_channel_is_drawn_as_it_is_alone(kind: str) -> None:
    net, given = classifier(), EXACT | {"size": 32, "batch": 2, "parameterization": kind}
    alone = [[*visualize.steps(net, goal, **given)] for goal in MIXED]
    beside = [*visualize.steps(net, MIXED, **given)]
    assert [step.share for step in beside] == [step.share for step in alone[0]]
    assert beside[0].text.startswith("step 1/4  8 of 32×32")
    for joined, *single in zip(beside, *alone, strict=True):
        for name in ("image", "score", "dead"):
            expected = torch.cat([getattr(step, name) for step in single])
            assert torch.allclose(getattr(joined, name), expected, atol=1e-9)
    if kind == "maco":
        masks = torch.cat([steps[-1].transparency() for steps in alone])
        assert torch.allclose(beside[-1].transparency(), masks, atol=1e-6)


def test_a_class_beside_a_channel_goes_on_from_a_state(tmp_path: Path) -> None:
    net, given = classifier(), EXACT | {"size": 32}
    steps = [*visualize.steps(net, MIXED, **given)]
    for index in (1, 3):
        kept = list(zip(range(index + 1), visualize.steps(net, MIXED, **given), strict=False))
        kept[-1][1].state().save(tmp_path / "state")
        state = State.load(tmp_path / "state")
        assert torch.equal(visualize(net, MIXED, **given, state=state), steps[-1].picture())
    with pytest.raises(StateError, match="ascent0"):
        visualize(net, MIXED, **given, state=State({}))


def test_what_is_lost_beside_a_class_comes_with_it() -> None:
    net, given = classifier(), EXACT | {"size": 32, "steps": 30}
    seen = 0

    def breaks(a: Any) -> Tensor:
        nonlocal seen
        seen += 1
        return a["0"].flatten(1).mean(1) * (float("nan") if seen > 2 else 1.0)

    lost = Objective(("0",), breaks)
    with pytest.raises(NonFiniteError) as caught:
        visualize(net, ['"3":1', lost], **given)
    assert caught.value.image is not None
    assert caught.value.image.shape == (2, 3, 32, 32)


def test_a_whole_is_never_shown_smaller_than_the_network_takes() -> None:
    net = network(nn.Sequential(nn.Conv2d(3, 4, 15), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    # 0.675 of 16 px would be 11 px high.
    picture = visualize(net, '"2":0', size=64, aspect=4.0, steps=8, framing="whole")
    assert picture.shape[2:] == (16, 64)
    goal = obj.channel("2", 0).bound(net)
    assert framing.views(net, [goal], (16, 64)) == "crops(4, 0.225, 0.96875)"
    assert framing.views(net, [goal], (64, 64)) == "crops(4, 0.225, 0.3375)"
    assert framing.views(net, [goal], (20, 20)) == "crops(4, 0.72, 1)"


def test_a_whole_has_a_size_of_its_own() -> None:
    net, given = classifier(), EXACT | {"size": "auto", "steps": 1}
    assert visualize(net, '"3":1', **given).shape[-1] == 24
    assert visualize(net, '"3":1', **given, framing="detail").shape[-1] == 32
    assert visualize(net, '"0":1', **given).shape[-1] == 32
    assert visualize(net, ['"3":1', '"0":1'], **given).shape[-1] == 32  # one for all


def test_an_older_recipe_has_no_framing() -> None:
    given = checked(VisualizeSettings, {}).model_dump(mode="json")
    for name in ("framing", "low_pass"):
        del given[name]
    old = checked_settings(VISUALIZE, given)
    assert (old.framing, old.low_pass) == ("detail", 0.0)  # pyright: ignore


def test_a_network_of_one_size_is_shown_its_size() -> None:
    net = network(Patches())
    with pytest.warns(
        UserWarning, match="^net takes pictures of 16×16 px alone: .* resized"
    ) as said:
        picture = visualize(net, "head:1", **TINY)
    assert len(said) == 1
    assert picture.shape == (1, 3, 24, 24)
    with pytest.warns(UserWarning, match="resized"):
        assert visualize(net, obj.neuron("block", 1, y=3, x=0), steps=2).shape[-1] == 16
    # Up to the embedding it takes any size.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        visualize(net, "embed:1", **TINY)


def test_a_network_of_one_channel_is_shown_luma() -> None:
    net = network(nn.Sequential(nn.Conv2d(1, 2, 3)), mean=(0.5,), std=(0.25,))
    image = torch.rand(2, 3, 8, 8)
    luma = (image * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    expected = net.activations(luma, ["0"])["0"]
    torch.testing.assert_close(net.activations(image, ["0"])["0"], expected)
    assert visualize(net, '"0":1', **TINY).shape == (1, 3, 24, 24)


def test_stages(toy: Network) -> None:
    assert stages(toy) == ["relu1", "third"]
    assert early(toy, ["third"]) == "relu1"
    assert early(toy, ["first"]) == IMAGE
    assert stages(network(Patches()))[-1] == "block"
    flat = network(nn.Sequential(nn.Flatten(), nn.Linear(768, 3)))
    with pytest.raises(NetworkError, match="net has no layer of maps or tokens; name a layer"):
        stages(flat)


# Recipes from a photograph


def test_a_caricature(toy: Network, photo: Tensor) -> None:
    # relu2, since the mean of a unit's caricature is best where the photo's own features are.
    picture = caricature(photo, toy, "relu2", steps=40, size=24)
    assert picture.shape == (1, 3, 24, 20)
    goal = obj.caricature("relu2", photo).bound(toy)
    seen = toy.activations(torch.cat([picture, picture.flip(2)]), goal.layers)
    assert goal(seen)[0] > goal(seen)[1]
    several = caricature(photo, toy, ["relu1", "relu2"], **TINY)
    assert several.shape == (2, 3, 24, 20)


def test_an_inversion_is_nearer_to_the_photo_than_its_start(toy: Network, photo: Tensor) -> None:
    steps = list(invert.steps(photo, toy, "relu1", steps=60, size=24, learning_rate=0.1))
    small = F.interpolate(photo, (24, 20), mode="bilinear", antialias=True)
    away = [float((step.picture() - small).square().mean()) for step in (steps[0], steps[-1])]
    assert away[1] < 0.5 * away[0]
    grey = relative_content(toy, "relu1", photo, 3.0).bound(toy)
    assert grey.text.endswith("content(relu1, <image>)")
    zero = {IMAGE: photo, "relu1": torch.zeros_like(toy.activations(photo, ["relu1"])["relu1"])}
    assert grey(zero).item() == pytest.approx(-3)


def test_accentuation_is_held_by_its_leash(toy: Network, photo: Tensor) -> None:
    given = {"size": 48, "steps": 15, "precision": "fp32"}
    free, held, tight = (
        accentuate(photo, toy, "third:1", leash=leash, **given) for leash in (0.0, 2.0, 50.0)
    )
    assert free.shape == photo.shape
    far = [float((p - photo).square().mean()) for p in (free, held, tight)]
    assert far[0] > far[1] > far[2]
    goal = obj.channel("third", 1)
    assert score(toy, goal, held) > score(toy, goal, photo)


def test_style_moves_the_texture_and_keeps_the_content(toy: Network, photo: Tensor) -> None:
    painting = torch.rand(1, 3, 30, 20, generator=torch.Generator().manual_seed(2))
    given = {"steps": 25, "precision": "fp32"}
    styled = style(photo, painting, toy, style_weight=10.0, **given)
    assert styled.shape == photo.shape
    goal = obj.style("relu1", painting)
    assert score(toy, goal, styled) > score(toy, goal, photo)
    plain = style(photo, painting, toy, style_weight=0.0, **given)
    assert (plain - photo).square().mean() < (styled - photo).square().mean()
    picked = style(photo, painting, toy, style_layers=("first",), content_layer="third", **given)
    assert not torch.equal(picked, styled)


# Bad input


@pytest.mark.parametrize(
    ("goal", "settings", "error", "message"),
    [
        ("third:8", {}, ObjectiveError, "third has 8 channels, 0 to 7; there is no channel 8"),
        (["third:0", "third:9"], {}, ObjectiveError, "there is no channel 9"),
        ("thrid:1", {}, UnknownLayerError, "no layer 'thrid'"),
        ([], {}, SettingsError, "there is no objective in the list"),
        ("third:1", {"size": 8}, SettingsError, "size: .*greater than or equal to 16"),
        ("third:1", {"sise": 8}, SettingsError, "no setting 'sise'; the closest are size"),
        ("third:1", {"transforms": "wild"}, SettingsError, "transforms"),
        (
            "third:1",
            {"parameterization": "maco", "size": 24},
            SettingsError,
            "maco draws pictures of 32 px a side or more, this one is to be 24×24",
        ),
        ("third:1", {"learning_rate": 0}, SettingsError, "learning rate: .*greater than 0"),
        ("third:1", {"device": "cuda:99"}, SettingsError, "device 'cuda:99'"),
    ],
)
def test_what_makes_no_sense(
    goal: Any, settings: dict[str, Any], error: type[Exception], message: str, toy: Network
) -> None:
    with pytest.raises(error, match=message) as caught:
        visualize(toy, goal, **{"steps": 1, **settings})
    assert "\n" not in str(caught.value)


def test_a_network_that_gives_no_gradient() -> None:
    class Deaf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x.detach())

    with pytest.raises(NetworkError, match="net gives no gradient from conv to the picture"):
        visualize(network(Deaf()), "conv:1", **TINY)


def test_a_picture_that_is_too_small() -> None:
    net = network(nn.Sequential(nn.Conv2d(3, 4, 16), nn.Conv2d(4, 4, 16)))
    net.input_size = 64
    with pytest.raises(InputTooSmallError, match="net needs pictures of at least 31 px a side"):
        visualize(net, '"1":0', size=24, steps=1)
    assert visualize(net, '"1":0', size=32, steps=1).shape[-1] == 32


def test_a_place_in_a_vector() -> None:
    net = network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    with pytest.raises(ObjectiveError, match="2 gives a vector: a neuron there takes no y and x"):
        visualize(net, obj.neuron("2", 0, y=1, x=1), steps=1)


def test_settings_that_a_model_and_its_recipes_share() -> None:
    own = {
        CaricatureSettings: {"power"},
        InvertSettings: set(),
        AccentuateSettings: {"leash", "leash_layer"},
        StyleSettings: {"style_weight", "style_layers", "content_layer"},
    }
    for model, more in own.items():
        assert set(model.model_fields) - set(VisualizeSettings.model_fields) == more
        assert all(field.description for field in model.model_fields.values())
