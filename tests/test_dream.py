from __future__ import annotations

import gc
import itertools
import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from phosphene import objectives as obj
from phosphene.errors import (
    ImageError,
    InputTooSmallError,
    NonFiniteError,
    ObjectiveError,
    SettingsError,
    UnknownLayerError,
)
from phosphene.network import Network
from phosphene.objectives import Objective
from phosphene.recipes.dream import DreamSettings, dream
from phosphene.recipes.presets import PRESETS
from phosphene.recipes.steps.dream import DreamStep
from phosphene.settings import Settings, checked
from tests.on import DEVICE

# The loop, and not the look: the gradient as it is, but for a little blur.
PLAIN: dict[str, Any] = {"natural": 0, "laplacian": 0, "smooth": 0.5, "smallest_octave": 2}
FIXED: dict[str, Any] = {"device": DEVICE, "precision": "fp32", "octaves": 2, "steps": 3, **PLAIN}


def steps(photo: Tensor, net: Network, what: Any = "third", **given: Any) -> Iterator[DreamStep]:
    return dream.steps(photo, net, what, **(FIXED | given))


def dreamt(photo: Tensor, net: Network, what: Any = "third", **given: Any) -> Tensor:
    return dream(photo, net, what, **(FIXED | given))


def luma(image: Tensor) -> Tensor:
    return (image * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1)


# What comes back


@pytest.mark.parametrize("size", [(48, 40), (31, 47), (17, 90)])
@pytest.mark.parametrize("n", [1, 2])
def test_a_dream_is_a_picture_of_the_same_size(toy: Network, size: tuple[int, int], n: int) -> None:
    photo = torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(0))
    given = photo.clone()
    image = dreamt(photo, toy, octaves=3)
    assert image.shape == photo.shape
    assert (image.dtype, image.device.type) == (torch.float32, "cpu")
    assert image.min() >= 0
    assert image.max() <= 1
    assert not image.requires_grad
    assert (image - photo).abs().mean() > 0.01
    assert torch.equal(photo, given)


def test_a_seed_is_a_picture(toy: Network, photo: Tensor) -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = dreamt(photo, toy, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    again, other = dreamt(photo, toy, seed=5), dreamt(photo, toy, seed=6)
    assert first.numpy().tobytes() == again.numpy().tobytes()
    assert (first - other).abs().max() > 1e-3
    # Without jitter there is no chance.
    still = [dreamt(photo, toy, seed=seed, jitter=0) for seed in (5, 6)]
    assert torch.equal(*still)


@pytest.mark.parametrize("network", ["toy", "another instance"])
def test_a_dream_does_not_depend_on_what_was_dreamt_before(
    toy: Network, photo: Tensor, network: str
) -> None:
    first = dreamt(photo, toy)
    dreamt(photo.flip(-1), toy, "second", seed=9)
    after = toy if network == "toy" else Network(toy.module, mean=M, std=S, input_size=16)
    assert torch.equal(dreamt(photo, after), first)


M, S = (0.48, 0.46, 0.4), (0.23, 0.22, 0.23)


@pytest.mark.parametrize("what", ["third", "second:3", "first + 2*third", "layer(third, norm=l2)"])
def test_the_score_ascends_within_each_octave(toy: Network, photo: Tensor, what: str) -> None:
    # Short steps without jitter and blur: then each must gain.
    taken = list(steps(photo, toy, what, steps=6, step_size=1e-3, jitter=0, smooth=0))
    for octave in (0, 1):
        scores = [step.score.item() for step in taken if step.octave == octave]
        assert all(later > earlier for earlier, later in itertools.pairwise(scores))
    # As it comes, it gains all the same.
    scores = [step.score.item() for step in steps(photo, toy, what, octaves=1, steps=8)]
    assert scores[-1] > scores[0]


def test_steps_are_those_of_the_dream(toy: Network, photo: Tensor) -> None:
    taken = list(steps(photo, toy))
    assert [(s.octave, s.index, s.octaves, s.steps) for s in taken] == [
        (octave, index, 2, 3) for octave in (0, 1) for index in (0, 1, 2)
    ]
    # 48 / 1.4 = 34.3, 40 / 1.4 = 28.6
    sizes = [tuple(s.image.shape[-2:]) for s in taken]
    assert sizes == [(34, 29)] * 3 + [(48, 40)] * 3
    assert torch.equal(taken[-1].picture(), dreamt(photo, toy))


def test_each_step_shows_a_whole_picture(toy: Network, photo: Tensor) -> None:
    pictures = []
    for step in steps(photo, toy, octaves=3):
        picture = step.picture()
        assert picture.shape == photo.shape
        assert picture.min() >= 0
        assert picture.max() <= 1
        assert 0 < (picture - photo).abs().mean() < 0.15
        pictures.append(picture)
    assert not any(torch.equal(*pair) for pair in itertools.pairwise(pictures))
    # One step does not leap, not even to the next octave.
    changes = [(b - a).abs().mean() for a, b in itertools.pairwise(pictures)]
    assert max(changes) < 5 * min(changes)


def test_the_detail_of_the_photograph_comes_back(toy: Network) -> None:
    # Without a step worth the name, the way up through the octaves must give the photograph, and
    # so must a look at it on the way.
    photo = torch.rand(1, 3, 40, 33, generator=torch.Generator().manual_seed(0))
    for step in steps(photo, toy, octaves=4, steps=1, step_size=1e-9):
        torch.testing.assert_close(step.picture(), photo, rtol=0, atol=1e-5)


# Octaves


@pytest.mark.parametrize(("side", "octaves"), [(20, 1), (40, 2), (80, 4)])
def test_octaves_follow_the_size_of_the_picture(toy: Network, side: int, octaves: int) -> None:
    # 32 px is twice what the toy was trained on; 40 / 32 = 1.4^0.7, 80 / 32 = 1.4^2.7
    photo = torch.full((1, 3, side, side + 7), 0.5)
    assert next(steps(photo, toy, octaves="auto")).octaves == octaves


@pytest.fixture
def demanding() -> Network:
    """Two convolutions of 5 px without padding: 9 px is the least that they take."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential()
        module.add_module("upper", nn.Conv2d(3, 4, 5))
        module.add_module("relu", nn.ReLU())
        module.add_module("lower", nn.Conv2d(4, 4, 5))
    return Network(module, input_size=16, name="demanding", copy=False)


def test_octaves_too_small_for_the_network_are_left_out(demanding: Network, photo: Tensor) -> None:
    taken = list(steps(photo, demanding, "lower", octaves=12, steps=1))
    # 40 / 1.4^4 = 10.4, / 1.4^5 = 7.4
    assert [min(s.image.shape[-2:]) for s in taken] == [10, 15, 20, 29, 40]
    assert {s.octaves for s in taken} == {5}
    # 5 px do for the first convolution.
    assert next(steps(photo, demanding, "upper", octaves=12)).octaves == 7


def test_a_picture_too_small_for_the_network_is_refused(demanding: Network) -> None:
    with pytest.raises(InputTooSmallError, match=r"at least 9 px a side .* is 20×8:") as caught:
        dreamt(torch.rand(1, 3, 8, 20), demanding, "lower")
    assert caught.value.least == 9
    assert dreamt(torch.rand(1, 3, 9, 20), demanding, "lower").shape == (1, 3, 9, 20)


# Mask, blend, colours


def test_nothing_is_dreamt_where_the_mask_is_black(toy: Network, photo: Tensor) -> None:
    mask = torch.zeros(1, 1, 48, 40)
    mask[..., 20:] = 1
    image = dreamt(photo, toy, mask=mask, octaves=1)
    assert torch.equal(image[..., :20], photo[..., :20])
    changed = (image - photo).abs()[..., 20:].amax((1, 2))
    assert changed.min() > 0
    # Smaller octaves have the edge of the mask between two of their pixels.
    image = dreamt(photo, toy, mask=mask, octaves=3)
    assert torch.equal(image[..., :8], photo[..., :8])
    assert (image - photo).abs()[..., 30:].mean() > 0.01


def test_a_mask_holds_in_the_full_octave_whatever_came_before(toy: Network, photo: Tensor) -> None:
    mask = torch.zeros(1, 1, 48, 40)
    mask[..., 10:30, 13:] = 1
    last = [s.image for s in steps(photo, toy, mask=mask, octaves=3) if s.octave == 2]
    outside = (mask == 0).expand(1, 3, 48, 40).to(DEVICE)
    assert all(torch.equal(image[outside], last[0][outside]) for image in last)
    assert not torch.equal(last[0], last[-1])


def test_a_grey_mask_dreams_that_much_less(toy: Network, photo: Tensor) -> None:
    white, grey = (
        dreamt(photo, toy, mask=torch.full((1, 1, 48, 40), v), octaves=1, steps=1, jitter=0)
        for v in (1.0, 0.25)
    )
    torch.testing.assert_close(grey - photo, 0.25 * (white - photo), rtol=0, atol=1e-6)


def test_a_mask_of_another_size_is_resized(toy: Network, photo: Tensor) -> None:
    small = torch.zeros(1, 1, 12, 10)
    small[..., 5:] = 1
    image = dreamt(photo, toy, mask=small, octaves=1)
    assert torch.equal(image[..., :10], photo[..., :10])
    assert (image - photo).abs()[..., 28:].mean() > 0.01


def test_blend_is_the_share_of_the_dream(toy: Network, photo: Tensor) -> None:
    whole = dreamt(photo, toy)
    assert torch.equal(dreamt(photo, toy, blend=0), photo)
    half = dreamt(photo, toy, blend=0.5)
    torch.testing.assert_close(half, (whole + photo) / 2)


def test_keep_colors_moves_the_luma_alone(toy: Network, photo: Tensor) -> None:
    plain, kept = (
        dreamt(photo, toy, steps=2, step_size=0.01, keep_colors=keep) for keep in (False, True)
    )
    assert kept.min() > 0
    assert kept.max() < 1
    # I and Q are made of R - G and B - G.
    for a, b in ((0, 1), (2, 1)):
        torch.testing.assert_close(
            kept[:, a] - kept[:, b], photo[:, a] - photo[:, b], rtol=0, atol=1e-6
        )
    torch.testing.assert_close(luma(kept), luma(plain), rtol=0, atol=1e-6)
    assert (luma(kept) - luma(photo)).abs().max() > 0.01


# What is dreamt of


def test_a_text_and_its_objective_are_the_same_dream(toy: Network, photo: Tensor) -> None:
    goal = 2 * obj.layer("second") + obj.channel("third", 3) - 0.1 * obj.tv()
    assert torch.equal(
        dreamt(photo, toy, "2*second + third:3 - 0.1*tv()"), dreamt(photo, toy, goal)
    )
    assert not torch.equal(dreamt(photo, toy, "second"), dreamt(photo, toy, goal))


def test_unknown_layers_and_no_objective_are_told(toy: Network, photo: Tensor) -> None:
    with pytest.raises(UnknownLayerError, match=r"toy has no layer 'thrid'.*third"):
        dreamt(photo, toy, "thrid")
    with pytest.raises(ObjectiveError, match="third has 8 channels"):
        dreamt(photo, toy, "third:8")
    with pytest.raises(SettingsError, match=r"preset 'keras' names no layers of toy.*dreamnet"):
        dreamt(photo, toy, None, preset="keras")


def test_without_an_objective_it_is_the_presets(toy: Network, photo: Tensor) -> None:
    known = Network(
        toy.module,
        mean=M,
        std=S,
        input_size=16,
        name="vgg16",
        aliases={"features.25": "third", "features.30": "second"},
    )
    assert torch.equal(dreamt(photo, known, None), dreamt(photo, toy, "third"))
    theirs = dreamt(photo, known, None, preset="torchvision")
    ours = dreamt(photo, toy, "layer(second, norm=l2)", preset="torchvision")
    assert torch.equal(theirs, ours)


@pytest.mark.parametrize("jitter", [8, "half"])
def test_what_compares_place_by_place_is_not_shifted(
    toy: Network, photo: Tensor, jitter: int | str
) -> None:
    goal = obj.content("third", photo.flip(-1))
    assert goal.positional
    assert torch.equal(dreamt(photo, toy, goal, jitter=jitter), dreamt(photo, toy, goal, jitter=0))
    # What does not compare is.
    shifted, still = (dreamt(photo, toy, jitter=j) for j in (jitter, 0))
    assert not torch.equal(shifted, still)


# When it goes wrong


@pytest.mark.cpu_only("a card looks at every tenth step alone")
def test_a_dream_that_leaves_the_numbers_brings_the_last_good_picture(
    toy: Network, photo: Tensor
) -> None:
    taken = list(steps(photo, toy))
    calls = itertools.count()

    def score(activations: Any) -> Tensor:
        a = activations["third"].square().mean((1, 2, 3))
        return a * math.nan if next(calls) == at else a

    goal = Objective(("third",), score)
    at = 2
    with pytest.raises(NonFiniteError, match="octave 1, step 3") as caught:
        dreamt(photo, toy, goal)
    # The second step's picture gave no number; the first one's did.
    assert caught.value.image is not None
    torch.testing.assert_close(caught.value.image, taken[0].picture())


def test_a_photograph_that_is_no_number_is_told(toy: Network, photo: Tensor) -> None:
    photo[0, 1, 4, 4] = math.nan
    with pytest.raises(ImageError, match="the photo holds 1 value that is infinite or not a"):
        dreamt(photo, toy)


def test_gradients_may_be_turned_off(toy: Network, photo: Tensor) -> None:
    expected = dreamt(photo, toy)
    with torch.no_grad():
        assert torch.equal(dreamt(photo, toy), expected)


# A thousand dreams


def hooks(net: Network) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(m, kind)) for m in net.module.modules() for kind in kinds)


def test_many_dreams_leave_nothing_behind(toy: Network) -> None:
    photo = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    left = []
    for seed in range(30):
        dreamt(photo, toy, seed=seed, steps=1, octaves=1)
        # Some are not waited for.
        next(steps(photo, toy, "second", seed=seed))
        if seed % 10 == 9:
            gc.collect()
            prepared = toy.prepared(DEVICE, "fp32")
            assert hooks(toy) == hooks(prepared) == 0
            left.append((len(gc.get_objects()), len(prepared._extractors), len(toy._prepared)))
    assert left[0][1:] == left[1][1:] == left[2][1:]
    assert left[0][1] == 2
    # Ten dreams more; a single tensor left by each would be ten objects.
    assert left[2][0] - left[1][0] < 10


# Settings


class Toys(Settings):
    step_size: float = Field(0.1, gt=0, le=1)
    steps: int = Field(3, ge=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"step_siz": 1}, r"no setting 'step_siz'; the closest are step_size, steps"),
        ({"step_size": 0}, r"step size: input should be greater than 0 \(given: 0\)"),
        ({"step_size": 1.5}, r"step size: .* less than or equal to 1 \(given: 1\.5\)"),
        ({"step_size": math.nan}, r"step size: .* finite number \(given: nan\)"),
        ({"step_size": math.inf}, r"step size: .* \(given: inf\)"),
        ({"step_size": "much"}, r"step size: .* \(given: 'much'\)"),
        ({"steps": 2.5}, r"steps: .* \(given: 2\.5\)"),
        ({"steps": 0, "step_size": -1}, r"step size: .* \(given: -1\); steps: .* \(given: 0\)"),
    ],
)
def test_a_wrong_setting_is_told_in_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=f"^{message}$") as caught:
        checked(Toys, given)
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_right_settings_are_taken() -> None:
    assert checked(Toys, {"steps": 7}) == Toys(step_size=0.1, steps=7)
    with pytest.raises(ValueError, match="frozen"):
        checked(Toys, {}).steps = 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"octave": 3}, "no setting 'octave'; the closest are octaves"),
        ({"octaves": 41}, "octaves: .*40"),
        ({"octave_scale": 1}, "octave scale: .* greater than 1"),
        ({"steps": 0}, "steps: "),
        ({"step_size": math.nan}, "step size: .* finite"),
        ({"jitter": -1}, "jitter: "),
        ({"jitter": "hlf"}, "jitter: "),
        ({"gradient": "l2"}, "gradient: "),
        ({"blend": 1.01}, "blend: "),
        ({"seed": -1}, "seed: "),
        ({"preset": "gogle2015"}, "no preset 'gogle2015'; the closest are google2015"),
        ({"preset": None}, "no preset None; there are phosphene, calm, fever, menagerie, "),
        ({"preset": ["keras"]}, r"no preset \['keras'\]; there are phosphene, "),
        ({"tile": 0}, r"tile: .* \(given: 0\)"),
        ({"tile": "of"}, r"tile: .* \(given: 'of'\)"),
        ({"memory": "4"}, "memory: '4' is no amount; a number and a unit, such as 512M or 4G"),
        ({"precision": "fp16"}, "precision: input should be 'auto', 'fp32', 'bf16' or 'fp64'"),
    ],
)
def test_a_wrong_setting_is_told_before_anything_runs(
    toy: Network, photo: Tensor, given: dict[str, Any], message: str
) -> None:
    # Even the generator tells at once, not when it is first asked for a step.
    with pytest.raises(SettingsError, match=f"^{message}") as caught:
        dream.steps(photo, toy, "third", **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((np.zeros((8, 8, 3), np.uint8),), r"this is numpy\.ndarray uint8 \(8, 8, 3\)"),
        (("sky.jpg",), "there is no file 'sky.jpg'"),
        ((torch.zeros(3, 8, 8),), r"this is torch\.float32 \(3, 8, 8\)"),
        ((torch.zeros(1, 1, 8, 8),), r"this is torch\.float32 \(1, 1, 8, 8\)"),
        ((torch.zeros(0, 3, 8, 8),), r"this is torch\.float32 \(0, 3, 8, 8\)"),
        ((torch.zeros(1, 3, 8, 8, dtype=torch.uint8),), r"torch\.uint8 .*: photo\.float\(\) / 255"),
        (
            (torch.zeros(1, 3, 8, 8), np.ones((8, 8))),
            r"a mask is .*; this is numpy\.ndarray float64",
        ),
        ((torch.zeros(1, 3, 8, 8), torch.ones(8, 8)), r"a mask is .*\(1, 1, H, W\).*\(8, 8\)"),
        (
            (torch.zeros(2, 3, 8, 8), torch.ones(3, 1, 8, 8)),
            r"for 2 pictures is \(1, 1, H, W\) or \(2, 1, H, W\); this one is .*\(3, 1, 8, 8\)",
        ),
    ],
)
def test_what_is_no_picture_is_told_at_once(
    toy: Network, given: tuple[Any, ...], message: str
) -> None:
    image, mask = (*given, None)[:2]
    with pytest.raises(ImageError, match=message) as caught:
        dream.steps(image, toy, "third", mask=mask)
    assert "\n" not in str(caught.value)


def test_one_mask_serves_a_batch_and_so_does_one_for_each(toy: Network) -> None:
    photos = torch.rand(2, 3, 40, 30, generator=torch.Generator().manual_seed(2))
    left = torch.zeros(1, 1, 40, 30)
    left[..., :15] = 1
    one = dreamt(photos, toy, mask=left)
    assert torch.equal(one, dreamt(photos, toy, mask=left.expand(2, 1, 40, 30)))
    each = dreamt(photos, toy, mask=torch.cat([left, 1 - left]), octaves=1)
    moved = (each - photos).abs().amax((1, 2)) > 0  # (N, W)
    assert moved[0].tolist() == [True] * 15 + [False] * 15
    assert moved[1].tolist() == [False] * 15 + [True] * 15


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_fills_in_what_is_not_given(name: str) -> None:
    settings = DreamSettings.model_validate({"preset": name})
    plain = DreamSettings.model_validate({})
    for field in DreamSettings.model_fields:
        if field != "preset":
            expected = PRESETS[name].settings.get(field, getattr(plain, field))
            assert getattr(settings, field) == expected, field
    own = DreamSettings.model_validate({"preset": name, "steps": 3, "octave_scale": 1.7})
    assert (own.steps, own.octave_scale) == (3, 1.7)
    assert own.step_size == settings.step_size


def test_a_setting_that_is_given_beats_the_preset(toy: Network, photo: Tensor) -> None:
    taken = list(dream.steps(photo, toy, "third", preset="keras", steps=2, stop_above=None))
    assert len(taken) == 3 * 2


# What is held


@pytest.mark.slow
@pytest.mark.parametrize("tile", ["off", 64])
@pytest.mark.parametrize("detail", ["before", "after"])
@pytest.mark.parametrize("masked", [False, True])
def test_a_plan_counts_the_pictures_that_are_there(
    tile: Any, detail: str, masked: bool, toy: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a gradient is found those of full size, besides the photograph, are what is planned."""
    size = (101, 67)
    told: list[int] = []
    recipe = sys.modules[DreamStep.__module__]
    real_evaluation, real_activations = recipe.AdaptiveEvaluation, Network.activations

    def evaluation(*given: Any, buffers: int, between: int, **more: Any) -> Any:
        assert between > buffers
        told.append(buffers)
        return real_evaluation(*given, buffers=buffers, between=between, **more)

    held: list[float] = []

    def activations(self: Network, image: Tensor, layers: Any, **more: Any) -> Any:
        if not image.requires_grad:  # looking about takes long, and only a gradient is planned for
            return real_activations(self, image, layers, **more)
        channels = {
            found.untyped_storage().data_ptr(): found[..., 0, 0].numel()
            for found in gc.get_objects()
            if type(found) in (Tensor, nn.Parameter)
            and found.device == image.device
            and found.shape[-2:] == size
        }
        held.append(sum(channels.values()) / 3)
        return real_activations(self, image, layers, **more)

    monkeypatch.setattr(recipe, "AdaptiveEvaluation", evaluation)
    monkeypatch.setattr(Network, "activations", activations)
    photo = torch.rand(1, 3, *size)
    mask = torch.ones(1, 1, *size) if masked else None
    dreamt(photo, toy, octaves=1, tile=tile, detail=detail, mask=mask)
    (buffers,) = told
    of_the_caller = 1 + (1 / 3 if masked else 0)
    assert buffers - 1 <= max(held) - of_the_caller <= buffers
