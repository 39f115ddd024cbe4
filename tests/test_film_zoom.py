"""The loop of a zoom: the published ones, the journey, what carries on from frame to frame."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from phosphene import objectives
from phosphene.errors import ImageError, ObjectiveError, SettingsError, StateError
from phosphene.films.affine import Affine, warp
from phosphene.network import Network
from phosphene.recipes.dream import DreamSettings, dream
from phosphene.recipes.presets import PRESETS
from phosphene.recipes.steps.frames import FrameStep
from phosphene.recipes.steps.zoom import Timetable, timetable, zoom_frames
from phosphene.recipes.zoom import ZoomSettings
from phosphene.state import State
from tests import oracles, zoom_oracles
from tests.on import DEVICE
from tests.test_film_affine import soft
from tests.test_presets import NETWORKS, SEED, photograph, published_objective, shifts, toy
from tests.toy_network import net

SIZE = (28, 36)
PLAIN: dict[str, Any] = {
    "frames": 4,
    "fps": 30,
    "fade": 0,
    "zoom": 1.5,
    "turn": 0.0,
    "center": (0.5, 0.5),
    "pull": 0.05,
    "source_pull": 0.0,
    "noise": 0.01,
    "warp": "lanczos",
    "eight_bits": False,
    "zoom_first": False,
    "loop": False,
}
DREAM: dict[str, Any] = {"steps": 2, "octaves": 1, "jitter": 3, "device": DEVICE, "seed": 5}


def settings(**given: Any) -> SimpleNamespace:
    journey = {name: given.pop(name, value) for name, value in PLAIN.items()}
    dreamt = DreamSettings(**{**DREAM, "precision": "fp32", **given})
    return SimpleNamespace(**dreamt.model_dump(), **journey)


def start(seed: int = 2) -> Tensor:
    return 0.2 + 0.6 * torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def goals(*texts: str) -> list[objectives.Objective]:
    return [objectives.parse(text) for text in texts]


def steps(*texts: str, state: State | None = None, at: Any = None, **given: Any):
    s = settings(**given)
    what = goals(*(texts or ("second",)))
    return zoom_frames(start(), net(), what, s, settings_at=at, state=state)


def frames(*texts: str, **given: Any) -> list[FrameStep]:
    return [step for step in steps(*texts, **given) if step.done]


def pictures(found: list[FrameStep]) -> list[Tensor]:
    return [step.picture() for step in found]


def farthest(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


# --- the published zooms ---------------------------------------------------------------------

# What is not as published: fewer steps, so that the oracle is done in time.
ZOOMS: dict[str, dict[str, Any]] = {"inception": {"steps": 12}, "google2015": {}}


@functools.cache
def published(preset: str) -> list[np.ndarray]:
    gradient_of = published_objective(preset)
    if preset == "google2015":
        new = functools.partial(shifts, 10, [(32, 32)] * 4)
        return list(zoom_oracles.google2015_zoom(photograph(), gradient_of, new, frames=5))
    half = (photograph().shape[0] // 2, photograph().shape[1] // 2)
    new = functools.partial(shifts, 12, [half])
    zoom = zoom_oracles.inception_zoom(photograph(), gradient_of, new, frames=5, steps=12)
    return list(zoom)


def ours(preset: str, **more: Any) -> Iterator[tuple[np.ndarray, FrameStep]]:
    """The frames of the recipe's preset, in its own precision."""
    given = {"preset": preset, "seed": SEED, "device": DEVICE, "precision": "fp64", "frames": 5}
    s = ZoomSettings.model_validate({**given, **ZOOMS[preset], **more})
    network = Network(toy(), input_size=64, **NETWORKS[preset])
    text = PRESETS[preset].objective_for(network.name)
    for step in zoom_frames(oracles.planes(photograph()), network, goals(text), s):
        if step.done:
            yield oracles.picture(step.state().tensor("dream")), step


@pytest.mark.parametrize("preset", list(ZOOMS))
def test_five_frames_are_the_published_ones(preset: str) -> None:
    expected, got = published(preset), [image for image, _ in ours(preset)]
    apart = [float(np.abs(a - b).max()) for a, b in zip(got, expected, strict=True)]
    moved = [float(np.abs(a - b).mean()) for a, b in itertools.pairwise(got)]
    print(f"\n{preset}: apart {[f'{a:.1e}' for a in apart]}, moved {[f'{m:.3f}' for m in moved]}")
    assert max(apart) < 1e-6
    assert min(moved) > 5e-3


@pytest.mark.parametrize(
    ("preset", "setting"),
    [
        ("google2015", {"warp": "lanczos"}),
        ("google2015", {"zoom": "1.051/f"}),
        ("google2015", {"zoom_first": True}),
        ("google2015", {"eight_bits": True}),
        ("inception", {"zoom_first": False}),
        ("inception", {"eight_bits": False}),
        ("inception", {"warp": "lanczos"}),
        ("inception", {"noise": 0.001}),
        ("inception", {"pull": 0.01}),
    ],
)
def test_any_other_setting_is_another_film(preset: str, setting: dict[str, Any]) -> None:
    *_, (last, _) = ours(preset, frames=2, **setting)
    assert float(np.abs(last - published(preset)[1]).max()) > 1e-4


def test_the_articles_crop_is_whole_pixels() -> None:
    """1 % of 250 px is 2.5, which Pillow rounds to 2 at the left and to 248 at the right."""
    from PIL import Image

    image = torch.rand(1, 3, 250, 250)
    pixels = Image.fromarray((image[0] * 255).round().byte().permute(1, 2, 0).numpy())
    expected = pixels.crop((2.5, 2.5, 247.5, 247.5)).resize((250, 250), Image.Resampling.LANCZOS)
    for rate in (1, 24, 25, 30, 60):
        affine = Affine.over(1 / rate, zoom=(1 / 0.98) ** rate, center=(0.5, 0.5))
        got = (warp(image, affine, "crop")[0] * 255).round().byte().permute(1, 2, 0)
        assert np.array_equal(got.numpy(), np.asarray(expected))


# --- a frame is a dream of the last one ------------------------------------------------------


def test_frames_are_dreams_of_the_last_one_seen_closer() -> None:
    s = settings(pull=0, noise=0, turn=40, center=(0.3, 0.6))
    own = {name: value for name, value in vars(s).items() if name in DreamSettings.model_fields}
    affine = Affine.over(1 / 30, zoom=1.5, turn=40, center=(0.3, 0.6))
    expected = dream(start(), net(), "second", **own)
    for image in pictures(frames(pull=0, noise=0, turn=40, center=(0.3, 0.6))):
        assert farthest(image, expected) < 1e-6
        expected = dream(warp(expected, affine).clamp(0, 1), net(), "second", **own)


def test_each_step_tells_where_it_is() -> None:
    found = list(steps(frames=3, octaves=2, octave_scale=1.2))
    assert len(found) == 3 * 2 * 2
    assert [step.frame for step in found] == [0] * 4 + [1] * 4 + [2] * 4
    assert [step.done for step in found] == [False, False, False, True] * 3
    assert {step.frames for step in found} == {3}
    assert [step.time for step in found[::4]] == [Fraction(0), Fraction(1, 30), Fraction(2, 30)]
    shares = [step.share for step in found]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    last = found[-1]
    assert last.picture() is last.image
    assert last.image is not None
    assert (last.image.dtype, last.image.shape) == (torch.float32, (1, 3, *SIZE))
    assert last.text.startswith("frame 3/3  0:00.07  score ")
    with pytest.raises(StateError, match="when one is done"):
        found[0].state()


def test_the_first_frame_is_the_start_dreamt_without_a_pull_or_noise() -> None:
    one = pictures(frames(frames=1))[0]
    other = pictures(frames(frames=1, pull=0.9, noise=0.5, source_pull=0.5))[0]
    assert torch.equal(one, other)


def test_rates_are_a_seconds_so_that_four_times_the_frames_go_as_far() -> None:
    """Where the dream itself hardly moves."""
    image, once = soft().float(), warp(soft().float(), Affine(2.0, 30))

    def after_a_second(fps: int) -> Tensor:
        s = settings(fps=fps, frames=fps + 1, step_size=1e-9, noise=0, pull=0, zoom=2.0, turn=30)
        *_, last = zoom_frames(image, net(), goals("second"), s)
        return last.picture()

    inner = (..., slice(12, -12), slice(12, -12))
    for fps in (10, 40):
        apart = (after_a_second(fps) - once)[inner].abs()
        assert float(apart.mean()) < 0.005
    assert float((image - once)[inner].abs().mean()) > 0.05


@pytest.mark.parametrize("pull", [{"pull": 0.2}, {"source_pull": 0.2}])
def test_pulls_are_as_strong_at_every_rate(pull: dict[str, float]) -> None:
    elsewhere = State({"dream": start(9) * 0.7}, {"number": 0, "tile": None, "precision": "fp32"})
    reached = {}
    for fps in (10, 30):
        given = {"fps": fps, "frames": fps // 10 + 1, "zoom": 1.0, "noise": 0, "step_size": 1e-9}
        given = {**given, "pull": 0, **pull}
        reached[fps] = pictures(frames(state=elsewhere, **given))[-1]
    assert farthest(reached[10], reached[30]) < 2e-3  # the shoulders are once a frame
    assert farthest(reached[10], elsewhere.tensor("dream")) > 0.02


def test_the_pull_to_the_source_holds_on_to_it() -> None:
    far = pictures(frames(frames=10, noise=0))[-1]
    near = pictures(frames(frames=10, noise=0, source_pull=0.5))[-1]
    assert farthest(near, start()) < 0.5 * farthest(far, start())


def test_noise_is_of_its_seed_and_its_frame_and_adds_what_it_says() -> None:
    plain = {"frames": 3, "pull": 0, "step_size": 1e-9, "zoom": 1.0}
    first, second, third = pictures(frames(noise=0.02, **plain))
    added = second - first
    assert float(added.std()) == pytest.approx(0.02, rel=0.1)
    assert abs(float((added * (third - second)).mean())) < 0.3 * 0.02**2
    other = pictures(frames(noise=0.02, **{**plain, "seed": 6}))[1] - first
    assert abs(float((added * other).mean())) < 0.3 * 0.02**2
    # Four times as many frames add up to as much in the same time.
    often = pictures(frames(noise=0.02, **{**plain, "fps": 120}))
    assert float((often[1] - often[0]).std()) == pytest.approx(0.01, rel=0.1)


def test_colours_are_kept_and_a_share_is_blended() -> None:
    kept = frames(frames=3, keep_colors=True, noise=0, pull=0, zoom=1.0)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    before, after = start(), kept[-1].picture()
    inside = ((after > 1e-3) & (after < 1 - 1e-3)).all(1, keepdim=True)

    def hue(image: Tensor) -> Tensor:
        return image - (image * weights).sum(1, keepdim=True)

    assert float(((hue(after) - hue(before)).abs() * inside).max()) < 1e-5
    whole, half = (pictures(frames(frames=1, blend=blend))[0] for blend in (1.0, 0.5))
    assert farthest(half - start(), (whole - start()) / 2) < 1e-6


# --- one objective after the other -----------------------------------------------------------


def test_a_timetable_fades_each_objective_into_the_next() -> None:
    table = Timetable(Fraction(30), each=4, count=3, fade=1)
    assert table.shown == table.dreamt == 12
    assert [table.shares(frame) for frame in range(6)] == [
        {0: 1.0}, {0: 1.0}, {0: 1.0}, {0: 1.0}, {1: 0.5, 0: 0.5}, {1: 1.0}
    ]  # fmt: skip
    for frame in range(12):
        assert sum(Timetable(Fraction(30), 4, 3, fade=3).shares(frame).values()) == 1
    loop = Timetable(Fraction(30), each=4, count=3, fade=1, lead=2)
    assert loop.dreamt == 14
    assert loop.shares(0) == {0: 0.5, 2: 0.5}  # the last goes over into the first
    assert [loop.frame(number) for number in (0, 1, 2, 13)] == [10, 11, 0, 11]


def test_objectives_are_dreamt_one_after_the_other() -> None:
    both = pictures(frames("first:1", "second:2", frames=3))
    alone = pictures(frames("first:1", frames=3))
    assert len(both) == 6
    assert all(map(torch.equal, both, alone))
    # What follows is the dream of the other one, of the same picture.
    *_, last = frames("first:1", frames=3)
    s = settings(frames=6)
    on = zoom_frames(start(), net(), goals("second:2"), s, state=last.state())
    assert all(map(torch.equal, both[3:], pictures([step for step in on if step.done])))


def test_a_fade_is_the_two_gradients_each_normalised_by_its_shares() -> None:
    given: dict[str, Any] = {"frames": 2, "noise": 0, "pull": 0, "smooth": 0, "zoom": 1.0}
    given |= {"steps": 1, "jitter": 0, "clamp": "off"}
    *_, before = frames("first:1", frames=2, **{k: v for k, v in given.items() if k != "frames"})
    here = before.state().tensor("dream").cpu()
    faded = pictures(frames("first:1", "second:2", fade=1, **given))[2]
    moves = []
    for text in ("first:1", "second:2"):
        s = settings(**{**given, "frames": 3})
        state = before.state()
        (step,) = [f for f in zoom_frames(start(), net(), goals(text), s, state=state) if f.done]
        moves.append(step.picture() - here)
    assert farthest(faded - here, (moves[0] + moves[1]) / 2) < 1e-6
    assert farthest(moves[0], moves[1]) > 1e-3


def test_settings_change_with_the_frame_and_the_time() -> None:
    asked = []

    def at(frame: int, time: Fraction) -> Any:
        asked.append((frame, time))
        return settings(zoom=1.0 if frame < 2 else 3.0, frames=4)

    keyed, plain = pictures(frames(at=at)), pictures(frames(zoom=1.0))
    assert torch.equal(keyed[1], plain[1])
    assert farthest(keyed[2], plain[2]) > 0.05
    assert set(asked) == {(frame, Fraction(frame, 30)) for frame in range(4)}


# --- stop and go on --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"fade": 2, "turn": 5},
        {"loop": True, "fps": 4},
        {"eight_bits": True, "warp": "crop"},
        {"precision": "fp64"},
    ],
)
def test_a_film_goes_on_behind_any_frame_to_the_bit(given: dict[str, Any], tmp_path) -> None:
    texts = ("first", "second")
    whole = frames(*texts, **given)
    assert [step.frame for step in whole] == list(range(8))
    for place in (0, 3, 7):
        whole_state = None
        for step in steps(*texts, **given):
            if step.done and step.frame == place:
                whole_state = step.state()
                break
        assert whole_state is not None
        whole_state.save(tmp_path / "state.safetensors")
        state = State.load(tmp_path / "state.safetensors")
        rest = frames(*texts, state=state, **given)
        assert [step.frame for step in rest] == list(range(place + 1, 8))
        later = pictures(whole)[place + 1 :]
        assert all(map(torch.equal, pictures(rest), later))


def test_the_state_of_another_film() -> None:
    *_, last = frames(frames=3)
    state = last.state()
    with pytest.raises(StateError, match="there are 2"):
        frames(frames=2, state=state)
    with pytest.raises(StateError, match=r"expected torch.float32 \(1, 3, 20, 20\)"):
        list(zoom_frames(start()[..., :20, :20], net(), goals("second"), settings(), state=state))


# --- loops -----------------------------------------------------------------------------------


def test_a_loops_end_leads_to_its_beginning() -> None:
    # A second before the end, the frames are led to what comes before the first one.
    given: dict[str, Any] = {"fps": 6, "frames": 18, "zoom": 1.3, "turn": 10, "step_size": 0.004}
    loop = pictures(frames(loop=True, **given))
    line = pictures(frames(**given))
    assert len(loop) == len(line) == 18

    def next_of(image: Tensor) -> Tensor:
        return warp(image, Affine.over(1 / 6, zoom=1.3, turn=10, center=(0.5, 0.5)))

    def change(one: Tensor, other: Tensor) -> float:
        return float((next_of(one) - other)[..., 4:-4, 4:-4].abs().mean())

    usual = float(np.median([change(*pair) for pair in itertools.pairwise(loop)]))
    print(f"usual {usual:.4f}, at the join {change(loop[-1], loop[0]):.4f}, "
          f"without a loop {change(line[-1], line[0]):.4f}")  # fmt: skip
    assert change(loop[-1], loop[0]) < 1.5 * usual
    assert change(line[-1], line[0]) > 3 * usual


def test_what_is_before_a_loop_is_work_and_no_frame() -> None:
    found = list(steps(loop=True, fps=4, frames=8))
    assert [step.frame for step in found if step.done] == list(range(8))
    before = found[: 4 * 2]
    assert all(step.frame == 0 and not step.done for step in before)
    shares = [step.share for step in found]
    assert shares == sorted(shares)
    assert timetable(settings(loop=True, frames=3, fps=30), 1).lead == 1  # half the film at most


# --- what cannot be --------------------------------------------------------------------------


def test_a_zoom_of_nothing() -> None:
    with pytest.raises(ImageError, match=r"\(2, 3, 28, 36\)"):
        zoom_frames(start().expand(2, 3, *SIZE), net(), goals("second"), settings())
    with pytest.raises(ObjectiveError, match="mixed4c"):
        zoom_frames(start(), net(), [], settings())
    with pytest.raises(SettingsError, match="a fade of 5 frames: 0 to 4"):
        steps("first", "second", fade=5)
    for fps in ("fast", 0, "1/0", -3):
        with pytest.raises(SettingsError, match="30000/1001"):
            steps(fps=fps)
    assert timetable(settings(fps="30000/1001"), 1).rate == Fraction(30000, 1001)
    assert timetable(settings(fps=23.976), 1).rate == Fraction(2997, 125)
