"""The loop of films: what is carried from frame to frame, and what is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from phosphene.errors import ImageError, StateError
from phosphene.films.frames import Frame
from phosphene.image import luma
from phosphene.network import Network
from phosphene.objectives import parse
from phosphene.recipes.base import Region
from phosphene.recipes.dream import DreamSettings, dream
from phosphene.recipes.steps import film as loop
from phosphene.recipes.steps.film import film_frames
from phosphene.recipes.steps.frames import FrameStep
from phosphene.state import State
from tests import clips
from tests.on import DEVICE

pytest.importorskip("cv2")

SIZE = (40, 48)
DREAM: dict[str, Any] = {"octaves": 2, "steps": 2, "device": DEVICE, "precision": "fp32"}


def settings(**given: Any) -> SimpleNamespace:
    film = {
        "first_steps": 4,
        "uncovered_steps": 2,
        "decay": 0.8,
        "calm": 0.8,
        "flow": "dis",
        "cut_difference": 0.08,
        "cut_seen": 0.35,
    }
    known = DreamSettings(**DREAM).model_dump()
    return SimpleNamespace(**(known | film | given))


def source(images: Sequence[Tensor], rate: Fraction = clips.RATE, first: int = 0) -> list[Frame]:
    return [Frame(t, t / rate, image) for t, image in enumerate(images)][first:]


def steps(
    images: Sequence[Tensor], net: Network, what: str | None = "second", **given: Any
) -> Iterator[FrameStep]:
    names = ("mask", "regions", "frames", "settings_at", "state")
    others = {name: given.pop(name) for name in names if name in given}
    first, rate = given.pop("first", 0), given.pop("rate", clips.RATE)
    goal = None if what is None else parse(what)
    return film_frames(iter(source(images, rate, first)), net, goal, settings(**given), **others)


def whole(images: Sequence[Tensor], net: Network, *what: Any, **given: Any) -> list[FrameStep]:
    return [step for step in steps(images, net, *what, **given) if step.done]


def shown(images: Sequence[Tensor], net: Network, *what: Any, **given: Any) -> list[Tensor]:
    found = [step.image for step in whole(images, net, *what, **given)]
    assert all(image is not None for image in found)
    return [image for image in found if image is not None]


def alike(one: Tensor, other: Tensor) -> None:
    """The same but for the rounding of F + (D - F)."""
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


# What a frame is ----------------------------------------------------------------------------------


def test_the_first_frame_is_a_dream_of_it(toy: Network) -> None:
    images = clips.static(1, SIZE).frames
    (found,) = shown(images, toy)
    alike(found, dream(images[0], toy, "second", **(DREAM | {"steps": 4})))


def test_the_next_frame_goes_on_from_what_is_left_of_the_last_dream(toy: Network) -> None:
    """The formula, with nothing of the loop: a still picture, so that nothing moves."""
    still = clips.static(3, SIZE).frames
    found = shown(still, toy, decay=0.8, calm=0.6, rate=Fraction(15))
    rho, kappa = 0.8**2, 0.6**2  # at half as many frames a second twice as much passes
    delta = found[0] - still[0]
    for image in found[1:]:
        start = (still[0] + rho * delta).clamp(0, 1)
        new = dream(start, toy, "second", **DREAM) - still[0]
        delta = (1 - kappa) * new + kappa * delta
        torch.testing.assert_close(image, (still[0] + delta).clamp(0, 1), rtol=0, atol=2e-4)


def test_what_moves_takes_its_dream_along(toy: Network) -> None:
    """Without a step of its own, a frame shows the last one's dream where it has moved to."""
    clip = clips.pan(2, SIZE, speed=(3.0, 0.0))
    first, second = shown(clip.frames, toy, decay=1.0, calm=1.0)
    moved = (first - clip.frames[0])[..., 3:-6]
    there = (second - clip.frames[1])[..., 6:-3]
    assert (moved - there).abs().mean() < 0.05 * moved.abs().mean()
    stuck = shown(clip.frames, toy, decay=1.0, calm=1.0, flow="off")[1] - clip.frames[1]
    assert (stuck - (first - clip.frames[0])).abs().mean() < 0.01 * moved.abs().mean()
    assert (moved - stuck[..., 6:-3]).abs().mean() > 0.2 * moved.abs().mean()


def test_steps_say_where_they_are(toy: Network) -> None:
    images = clips.static(2, SIZE).frames
    found = list(steps(images, toy, frames=2))
    assert [step.done for step in found] == 7 * [False] + [True] + 3 * [False] + [True]
    assert [step.image is not None for step in found] == [step.done for step in found]
    shares = [step.share for step in found]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    last = found[-1]
    assert (last.frame, last.frames, last.time, last.shot) == (1, 2, Fraction(1, 25), 0)
    assert last.dream.octave == 1
    assert "frame 2/2" in last.text


def test_the_dream_is_shown_in_part_and_carried_whole(toy: Network) -> None:
    images = clips.static(3, SIZE).frames
    full, half = whole(images, toy), whole(images, toy, blend=0.25)
    for one, other, image in zip(full, half, images, strict=True):
        assert torch.equal(one.state().tensor("dream"), other.state().tensor("dream"))
        assert other.image is not None
        expected = image + 0.25 * one.state().tensor("dream")
        torch.testing.assert_close(other.image, expected.clamp(0, 1))


def test_colours_stay_where_they_are_to(toy: Network) -> None:
    images = clips.pan(3, SIZE).frames
    for step in whole(images, toy, keep_colors=True):
        delta = step.state().tensor("dream")
        assert torch.equal(delta[:, :1].expand_as(delta), delta)
    first = dream(images[0], toy, "second", **(DREAM | {"steps": 4}))
    expected = (images[0] + luma(first - images[0])).clamp(0, 1)
    torch.testing.assert_close(shown(images, toy, keep_colors=True)[0], expected)


def test_a_dream_stays_bounded(toy: Network) -> None:
    images = clips.static(40, (24, 24)).frames
    found = whole(images, toy, octaves=1)
    early, late = (found[t].state().tensor("dream").abs().mean() for t in (15, 39))
    assert late < 1.5 * early


# Cuts and flashes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{}, {"flow": "off"}, {"cut_difference": 1.0}])
def test_no_dream_crosses_a_cut(toy: Network, given: dict[str, Any]) -> None:
    """By what differs, or by what was not seen before."""
    before, after = clips.static(7, SIZE, seed=1).frames, clips.pan(2, SIZE, seed=2).frames
    found = whole(before + after, toy, rate=Fraction(12), **given)
    assert [step.shot for step in found] == 7 * [0] + 2 * [1]
    alone = shown(after, toy, rate=Fraction(12), **given)
    for step, image in zip(found[7:], alone, strict=True):
        assert step.image is not None
        assert torch.equal(step.image, image)


def test_soon_after_a_cut_there_is_no_other_but_nothing_is_carried(toy: Network) -> None:
    images = [clips.static(1, SIZE, seed=seed).frames[0] for seed in (1, 2, 2)]
    found = whole(images, toy)
    assert [step.shot for step in found] == [0, 0, 0]
    first = dream(images[1], toy, "second", **(DREAM | {"steps": 4}))
    assert found[1].image is not None
    alike(found[1].image, first)


def test_a_dream_outlives_a_flash(toy: Network) -> None:
    images = clips.static(6, SIZE).frames
    images[3] = 0.9 + 0.1 * images[3]
    found = whole(images, toy)
    assert {step.shot for step in found} == {0}
    assert torch.equal(found[3].state().tensor("dream"), found[2].state().tensor("dream"))
    assert torch.equal(found[3].state().tensor("source"), images[2])
    change = [found[t].state().tensor("dream") - found[2].state().tensor("dream") for t in (4, 5)]
    assert all(c.abs().mean() < found[2].state().tensor("dream").abs().mean() for c in change)


# Masks and regions --------------------------------------------------------------------------------


LEFT, RIGHT = (..., slice(0, SIZE[1] // 2 - 8)), (..., slice(SIZE[1] // 2 + 8, None))


def left() -> Tensor:
    """White in the left half; between LEFT and RIGHT octaves make its edge soft."""
    mask = torch.zeros(1, 1, *SIZE)
    mask[..., : SIZE[1] // 2] = 1
    return mask


def test_a_mask_keeps_the_dream_where_it_is_white(toy: Network) -> None:
    images = clips.pan(6, SIZE, speed=(4.0, 0.0)).frames
    for image, source in zip(shown(images, toy, mask=left()), images, strict=True):
        alike(image[RIGHT], source[RIGHT])
        assert (image[LEFT] - source[LEFT]).abs().mean() > 0.01


def test_a_film_may_be_the_mask_and_its_last_frame_stays(toy: Network) -> None:
    images, mask = clips.static(4, SIZE).frames, left()
    found = shown(images, toy, mask=iter([mask, 1 - mask]))
    alike(found[0][RIGHT], images[0][RIGHT])
    for image in found[1:]:
        alike(image[LEFT], images[0][LEFT])
        assert (image[RIGHT] - images[0][RIGHT]).abs().mean() > 0.001


def test_a_film_goes_on_after_its_mask_is_over(toy: Network) -> None:
    images = clips.static(3, SIZE).frames
    found = whole(images, toy, mask=iter([left()]))
    state = found[1].state()
    (rest,) = shown(images, toy, mask=iter([]), state=state, first=2)
    assert found[2].image is not None
    assert torch.equal(rest, found[2].image)


def test_a_grey_mask_counts_once_and_not_once_a_frame(toy: Network) -> None:
    images = clips.static(6, SIZE).frames
    full, half = (whole(images, toy, mask=torch.full((1, 1, *SIZE), g)) for g in (1.0, 0.5))
    shares = [
        float(h.state().tensor("dream").abs().mean() / f.state().tensor("dream").abs().mean())
        for h, f in zip(half, full, strict=True)
    ]
    assert shares[0] == pytest.approx(0.5, abs=0.1)
    assert shares[-1] > 0.8 * shares[0]


def test_regions_dream_apart_and_the_rest_stays(toy: Network) -> None:
    images = clips.pan(5, SIZE, speed=(4.0, 0.0)).frames
    regions = [Region(left(), parse("first"))]
    found = shown(images, toy, None, regions=regions, rest="stay")
    for image, source in zip(found, images, strict=True):
        alike(image[RIGHT], source[RIGHT])
        assert (image[LEFT] - source[LEFT]).abs().mean() > 0.01
    both = shown(images, toy, "second", regions=regions)
    assert (both[0][RIGHT] - images[0][RIGHT]).abs().mean() > 0.01


def test_what_comes_into_view_has_steps_of_its_own(toy: Network) -> None:
    images = clips.moving_square(2, SIZE, speed=(6.0, 0.0)).frames
    with_them = [step for step in steps(images, toy) if step.frame == 1]
    without = [step for step in steps(images, toy, uncovered_steps=0) if step.frame == 1]
    assert len(with_them) == len(without) + 2 * 2
    still = [step for step in steps([images[0]] * 2, toy) if step.frame == 1]
    assert len(still) == len(without)


# Going on -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flash", [False, True])
def test_a_film_goes_on_to_the_byte(toy: Network, tmp_path: Any, flash: bool) -> None:
    images = clips.moving_square(7, SIZE, speed=(3.0, 1.0)).frames
    images += clips.pan(2, SIZE, seed=5).frames
    if flash:
        images[3] = 0.9 + 0.1 * images[3]
    given: dict[str, Any] = {"precision": "auto", "mask": left() * 0.7, "rate": Fraction(12)}
    found = whole(images, toy, **given)
    assert [step.shot for step in found] == 7 * [0] + 2 * [1]
    for stop in (0, 2, 3, 6, 7):
        found[stop].state().save(tmp_path / "state.safetensors")
        state = State.load(tmp_path / "state.safetensors")
        rest = whole(images, toy, state=state, first=stop + 1, **given)
        assert [step.frame for step in rest] == list(range(stop + 1, len(images)))
        for one, other in zip(found[stop + 1 :], rest, strict=True):
            assert one.image is not None
            assert other.image is not None
            assert torch.equal(one.image, other.image), (stop, one.frame)
            assert one.shot == other.shot


def test_a_state_of_something_else_is_an_error(toy: Network) -> None:
    images = clips.static(2, SIZE).frames
    state = whole(images[:1], toy)[0].state()
    smaller = [image[..., :30] for image in images]
    with pytest.raises(StateError, match="does not fit"):
        whole(smaller, toy, state=state)
    with pytest.raises(StateError, match="another recipe"):
        whole(images, toy, state=State({}))
    early = next(steps(images, toy))
    with pytest.raises(StateError, match="no frame is whole yet"):
        early.state()


def test_a_film_of_nothing_has_no_frames(toy: Network) -> None:
    assert whole([], toy) == []


def test_frames_of_two_sizes_are_an_error(toy: Network) -> None:
    images = [torch.rand(1, 3, 40, 48), torch.rand(1, 3, 40, 50)]
    with pytest.raises(ImageError, match="frame 2 is"):
        whole(images, toy)


def test_settings_may_change_from_frame_to_frame(toy: Network) -> None:
    images = clips.static(3, SIZE).frames
    at = [settings(blend=blend) for blend in (1.0, 0.5, 0.0)]
    found = shown(images, toy, settings_at=lambda frame, time: at[round(time * clips.RATE)])
    assert torch.equal(found[2], images[2])
    assert not torch.equal(found[1], images[1])


def test_the_precision_is_settled_once(toy: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    prepared = Network.prepared

    def counted(self: Network, *given: Any, **named: Any) -> Network:
        if given[1] == "auto":
            asked.append(named.get("sample"))
        return prepared(self, *given, **named)

    monkeypatch.setattr(Network, "prepared", counted)
    images = clips.pan(3, SIZE).frames
    found = whole(images, toy, precision="auto")
    assert len(asked) == 1
    assert asked[0] is images[0]
    assert len({step.state().value("precision") for step in found}) == 1


@pytest.mark.slow
def test_no_more_frames_are_held_than_are_needed(toy: Network) -> None:
    """However long a film is: the frames of before are gone."""
    import gc
    import weakref

    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def frames() -> Iterator[Frame]:
        for t in range(12):
            image = clips.pan(1, (24, 24), seed=3).frames[0].clone()
            alive.append(weakref.ref(image))
            yield Frame(t, t / clips.RATE, image)

    for step in film_frames(frames(), toy, parse("second"), settings(octaves=1)):
        if step.done:
            gc.collect()
            most = max(most, sum(ref() is not None for ref in alive))
    assert len(alive) == 12
    assert most <= 4
    assert loop.RATE == 30
