"""What moves, what comes into view, and where shots end: on clips whose truth is known."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from phosphene.errors import ImageError, MissingExtraError
from phosphene.films import flow
from phosphene.films.cuts import FLASH, Lookahead, change, difference
from phosphene.films.frames import Frame
from tests import clips

cv2 = pytest.importorskip("cv2")

SIZE = (120, 160)


def frames(images: list[Tensor], rate: Fraction = clips.RATE) -> list[Frame]:
    return [Frame(t, t / rate, image) for t, image in enumerate(images)]


# The clips themselves -----------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [clips.pan(3, SIZE), clips.moving_square(3, SIZE)])
def test_a_clip_moves_as_it_says(clip: clips.Clip) -> None:
    before, now, motion = clip.frames[1], clip.frames[2], clip.motion[2][0].double().numpy()
    down, right = np.mgrid[0 : SIZE[0], 0 : SIZE[1]].astype(float)
    places = [down + motion[1], right + motion[0]]
    moved = np.stack(
        [ndimage.map_coordinates(c.numpy(), places, mode="nearest") for c in before[0]]
    )
    left = np.abs(moved - now[0].numpy()).max(0)
    covered = clip.covered[2][0, 0].numpy()
    # A square's own edge is half of it, half of what lies behind.
    assert np.quantile(left[~covered], 0.95) < 0.01
    assert np.median(left[covered]) > 0.01


def test_clips_are_the_same_each_time() -> None:
    first, second = clips.cuts(shot=12), clips.cuts(shot=12)
    assert len(first.cuts) == 20
    assert all(map(torch.equal, first.frames, second.frames))
    assert not torch.equal(first.frames[0], clips.cuts(shot=12, seed=1).frames[0])


# Flow ---------------------------------------------------------------------------------------------


def test_flow_finds_a_pan() -> None:
    clip = clips.pan(2, SIZE, speed=(3.4, -1.2))
    found = flow.motion(*clip.frames)
    assert found.backward.shape == (1, 2, *SIZE)
    error = (found.backward - clip.motion[1]).square().sum(1).sqrt()
    assert error[~clip.covered[1][0]].mean() < 0.1
    assert not found.seen[clip.covered[1]].any()
    assert found.seen[~clip.covered[1]].float().mean() > 0.97


def test_nothing_moves_in_the_same_frame_twice() -> None:
    (frame,) = clips.static(1, SIZE).frames
    found = flow.motion(frame, frame)
    assert found.backward.abs().max() < 0.05
    assert found.uncovered == 0
    assert torch.equal(found.mask(), torch.ones(1, 1, *SIZE))


def test_a_fade_is_no_motion() -> None:
    (frame,) = clips.static(1, SIZE).frames
    found = flow.motion(frame, 0.6 * frame)
    assert found.backward.square().sum(1).sqrt().mean() < 0.1
    assert found.uncovered < 0.01


def test_what_a_moving_square_uncovers_is_found() -> None:
    """To a pixel: where a square ends between two, both are half of it."""
    hits = wanted = right = found = 0
    for speed in ((2.3, 0.7), (4.0, 1.5), (7.0, 3.0)):
        for seed in (0, 10):
            clip = clips.moving_square(3, SIZE, speed=speed, seed=seed)
            truth = clip.covered[2][0, 0].numpy()
            hidden = ~flow.motion(*clip.frames[1:3]).seen[0, 0].numpy()
            hits += (truth & _wider(hidden)).sum()
            wanted += truth.sum()
            right += (hidden & _wider(truth)).sum()
            found += hidden.sum()
    assert hits / wanted >= 0.95
    assert right / found >= 0.6


def _wider(mask: np.ndarray) -> np.ndarray:
    return ndimage.binary_dilation(mask, np.ones((3, 3), bool))


def test_flow_keeps_to_the_edges_of_things() -> None:
    clip = clips.moving_square(3, SIZE, speed=(4.0, 1.5))
    found = flow.motion(*clip.frames[1:3])
    error = (found.backward - clip.motion[2]).square().sum(1, keepdim=True).sqrt()
    moving = clip.motion[2].abs().sum(1, keepdim=True) > 0
    assert error[moving].mean() < 0.5
    assert error[~moving & ~clip.covered[2]].mean() < 0.1


def test_warping_by_whole_pixels_moves_them() -> None:
    picture = torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(0)) - 0.5
    backward = torch.tensor([3.0, -2.0]).reshape(1, 2, 1, 1).expand(1, 2, 20, 30)
    moved = flow.warp(picture, backward)
    assert torch.equal(moved[..., 2:, :-3], picture[..., :-2, 3:])
    assert flow.warp(picture[:, :1], backward).shape == (1, 1, 20, 30)


def test_warping_keeps_detail() -> None:
    """Twenty times half a pixel there and back: bilinear would leave next to nothing."""
    texture = clips.Texture(0, finest=3, coarsest=8)
    picture = texture(*clips.axes((64, 64))) - 0.5
    half = torch.full((1, 2, 64, 64), 0.5)
    moved = picture
    for turn in range(20):
        moved = flow.warp(moved, half if turn % 2 else -half)
    inner = (..., slice(16, -16), slice(16, -16))
    kept = moved[inner].square().mean() / picture[inner].square().mean()
    assert 0.7 < kept < 1.2


def test_the_mask_is_soft_inside_and_nothing_outside() -> None:
    seen = torch.ones(1, 1, 9, 9, dtype=torch.bool)
    seen[..., 5:] = False
    mask = flow.Motion(torch.zeros(1, 2, 9, 9), seen).mask()
    assert (mask[..., 5:] == 0).all()
    assert (mask[..., 4] < 0.9).all()
    assert (mask[..., 0] > 0.99).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (31, 200)])
def test_frames_of_any_size(size: tuple[int, int]) -> None:
    frame = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    found = flow.motion(frame, frame)
    assert flow.warp(frame, found.backward).shape == frame.shape
    assert found.mask().shape == (1, 1, *size)


def test_flow_does_not_hang_on_threads() -> None:
    clip = clips.moving_square(2, SIZE)
    before = cv2.getNumThreads()
    found = []
    try:
        for count in (1, 2):
            cv2.setNumThreads(count)
            motion = flow.motion(*clip.frames)
            found.append((motion, flow.warp(clip.frames[0], motion.backward)))
    finally:
        cv2.setNumThreads(before)
    (one, moved), (two, again) = found
    assert torch.equal(one.backward, two.backward)
    assert torch.equal(one.seen, two.seen)
    assert torch.equal(moved, again)


def test_frames_of_two_sizes_are_an_error() -> None:
    with pytest.raises(ImageError, match=r"two frames \(1, 3, H, W\) of one size"):
        flow.motion(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 9))


def test_without_opencv_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r"pip install .phosphene\[film\]"):
        flow.motion(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))


# Cuts ---------------------------------------------------------------------------------------------


def changes(images: list[Tensor], threshold: float = 0.08) -> list[str]:
    """What each frame but the first is to the last that was no flash."""
    ahead = Lookahead(iter(frames(images)))
    before, found = next(ahead).image, []
    for frame in ahead:
        found.append(change(before, frame, ahead, threshold))
        if found[-1] != "flash":
            before = frame.image
    return found


@pytest.mark.parametrize("seed", [0, 100])
def test_cuts_are_found_and_fades_and_flashes_are_none(seed: int) -> None:
    clip = clips.cuts(shot=14, seed=seed)
    found = changes(clip.frames)
    cuts = {t for t, what in enumerate(found, 1) if what == "cut"}
    right = len(cuts & set(clip.cuts))
    assert 2 * right / (len(cuts) + len(clip.cuts)) >= 0.95
    assert found.count("flash") == 2


def test_a_fade_out_of_black_is_no_cut() -> None:
    (frame,) = clips.static(1).frames
    assert changes([frame * share for share in (0.0, 0.1, 0.2, 0.35, 0.5)]) == ["same"] * 4
    assert changes([frame * 0, frame]) == ["cut"]


def test_a_flash_is_over_soon() -> None:
    (frame,) = clips.static(1).frames
    white = torch.ones_like(frame)
    short = int(FLASH * clips.RATE)
    assert changes([frame] + short * [white] + [frame]) == ["flash"] * short + ["same"]
    longer = changes([frame] + (short + 1) * [white] + [frame])
    assert longer == ["cut"] + ["same"] * short + ["cut"]


def test_hue_counts_as_far_as_it_is_seen() -> None:
    def of(red: float, green: float, blue: float) -> Tensor:
        return torch.tensor([red, green, blue]).float().reshape(1, 3, 1, 1).expand(1, 3, 4, 4)

    assert difference(of(1, 0, 0), of(1, 0, 0)) == 0
    # A third of a turn is two thirds of the half turn that is the most.
    assert difference(of(1, 0, 0), of(0, 1, 0)) == pytest.approx(2 / 9)
    assert difference(of(0, 1, 1), of(1, 0, 0)) == pytest.approx(1 / 3)
    assert difference(of(1, 0, 0.02), of(1, 0.02, 0)) < 2 / 255
    assert difference(of(0, 0, 0), of(1, 1, 1)) == pytest.approx(1 / 3)
    assert difference(of(0, 0, 0), of(0.01, 0, 0)) == pytest.approx(2 / 3 * 0.01)


def test_frames_are_looked_ahead_for_no_further_than_needed() -> None:
    read: list[int] = []

    def source() -> Any:
        for frame in frames(clips.static(20, (8, 8)).frames):
            read.append(frame.index)
            yield frame

    ahead = Lookahead(source())
    assert next(ahead).index == 0
    assert [f.index for f in ahead.ahead(Fraction(3, 25))] == [1, 2, 3]
    assert read == [0, 1, 2, 3, 4]
    assert [f.index for f in ahead.ahead(Fraction(1, 25))] == [1]
    assert [f.index for f in ahead] == list(range(1, 20))
