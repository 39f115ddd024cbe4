"""One affine a frame: exact where nothing moves, and the same journey at every frame rate."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.ndimage as nd
import torch
from torch import Tensor

from phosphene.errors import ImageError, SettingsError
from phosphene.films.affine import Affine, warp

MIDDLE = (0.5, 0.5)


def soft(height: int = 61, width: int = 83, seed: int = 0, sigma: float = 3) -> Tensor:
    """Blobs without detail that sampling could lose, `(1, 3, H, W)` float64 in [0, 1]."""
    noise = np.random.default_rng(seed).random((3, height, width))
    blobs = nd.gaussian_filter(noise, (0, sigma, sigma), mode="reflect")
    return torch.from_numpy((blobs - blobs.min()) / (blobs.max() - blobs.min()))[None]


def over(seconds: float, zoom: float = 1.5, turn: float = 0.0, center=MIDDLE) -> Affine:
    return Affine.over(seconds, zoom=zoom, turn=turn, center=center)


def weights_at(position: float) -> dict[int, Any]:
    """Six taps of a windowed sinc, sum 1, mean the position itself; a twentieth of linear."""
    nearest = math.floor(position)
    taps = {
        k: np.sinc(k - position) * np.sinc((k - position) / 3)
        for k in range(nearest - 2, nearest + 4)
    }
    total = sum(taps.values())
    taps = {k: weight / total for k, weight in taps.items()}
    lacking = position - sum(k * weight for k, weight in taps.items())
    taps[nearest] -= lacking
    taps[nearest + 1] += lacking
    linear = {nearest: nearest + 1 - position, nearest + 1: position - nearest}
    return {k: 0.95 * weight + 0.05 * linear.get(k, 0) for k, weight in taps.items()}


def sampled(picture: np.ndarray, y: float, x: float) -> float:
    """A pixel of `(H, W)` at an index between others, tap by tap; the edge is a mirror."""
    wide = np.pad(picture, 8, mode="symmetric")
    return sum(
        down * across * wide[row + 8, column + 8]
        for row, down in weights_at(y).items()
        for column, across in weights_at(x).items()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("how", ["lanczos", "linear", "crop"])
def test_what_does_not_move_is_the_same_to_the_bit(how, dtype: torch.dtype) -> None:
    image = torch.rand(2, 3, 7, 9, dtype=dtype)
    assert torch.equal(warp(image, Affine(), how), image)
    assert torch.equal(warp(image, Affine(1, 360), how), image)


@pytest.mark.parametrize("degrees", [0.0, 17.0])
@pytest.mark.parametrize("factor", [1.1, 2.0])
def test_lanczos_is_the_sum_of_its_taps(factor: float, degrees: float) -> None:
    picture = np.random.default_rng(3).random((9, 12))
    image = torch.from_numpy(picture).expand(1, 3, 9, 12)
    got = warp(image, Affine(factor, degrees, (0.3, 0.6)))[0, 0].numpy()
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    cy, cx = 9 * 0.6 - 0.5, 12 * 0.3 - 0.5
    for row in range(9):
        for column in range(12):
            dy, dx = row - cy, column - cx
            y = cy + (dx * sine + dy * cosine) / factor
            x = cx + (dx * cosine - dy * sine) / factor
            assert got[row, column] == pytest.approx(sampled(picture, y, x), abs=1e-12)


def test_a_zoom_by_two_of_four_pixels_between_two() -> None:
    # About the middle of four, the new px lie a quarter px beside the old ones.
    image = torch.tensor([0.0, 0.0, 1.0, 1.0]).view(1, 1, 1, 4)
    row = warp(image, Affine(2.0), "linear")
    assert row.flatten().tolist() == [0.0, 0.5, 1.0, 1.0]  # about index 2, as the notebook's
    row = warp(image, Affine(2.0)).flatten()
    assert float(row[1] + row[2]) == pytest.approx(1, abs=1e-6)
    assert float(row[0]) == pytest.approx(sampled(image[0, 0].numpy(), 0, 0.75), abs=1e-6)


def test_a_quarter_turn_is_counter_clockwise() -> None:
    image = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    assert torch.allclose(warp(image, Affine(1, 90)), image.rot90(1, (2, 3)), atol=1e-12)


@pytest.mark.parametrize("turn", [0.0, 20.0])
def test_small_steps_go_as_far_as_a_large_one_at_every_rate(turn: float) -> None:
    image, reached = soft(), {}
    for rate in (1, 12, 24, 60):
        moved = image
        for _ in range(rate):
            moved = warp(moved, over(1 / rate, turn=turn))
        reached[rate] = moved[..., 12:-12, 12:-12]
    for rate in (12, 24, 60):
        apart = (reached[rate] - reached[1]).abs()
        print(f"{rate} frames a second: {apart.mean():.1e}, at most {apart.max():.1e} apart")
        assert apart.mean() < 0.005
        assert apart.max() < 0.025
    assert float((reached[1] - image[..., 12:-12, 12:-12]).abs().max()) > 0.2


@pytest.mark.parametrize("center", [MIDDLE, (0.25, 0.75)])
def test_the_centre_stays(center: tuple[float, float]) -> None:
    image = torch.zeros(1, 1, 80, 120, dtype=torch.float64)
    x, y = 120 * center[0], 80 * center[1]
    rows, columns = torch.arange(80) + 0.5, torch.arange(120) + 0.5
    image[0, 0] = torch.exp(-((rows[:, None] - y) ** 2 + (columns - x) ** 2) / 18)
    for _ in range(20):
        image = warp(image, over(1 / 30, turn=15, center=center))
    total = image.sum()
    assert float((image[0, 0].sum(1) * rows).sum() / total) == pytest.approx(y, abs=1e-3)
    assert float((image[0, 0].sum(0) * columns).sum() / total) == pytest.approx(x, abs=1e-3)


@pytest.mark.parametrize("degrees", [0.0, 0.5])
@pytest.mark.parametrize(("wavelength", "least"), [(4, 0.7), (5, 0.9), (8, 0.9), (20, 0.95)])
def test_detail_survives_twenty_warps_and_does_not_grow(
    wavelength: int, least: float, degrees: float
) -> None:
    """There and back: the energy of waves, which between two px they would lose."""
    wave = 0.5 + 0.5 * torch.sin(torch.arange(96) * (2 * math.pi / wavelength) + 0.4)
    image = wave.expand(1, 1, 96, 96).clone()
    there = Affine(1.0137, degrees)

    def energy(how) -> float:
        moved = image
        for _ in range(10):
            moved = warp(warp(moved, there, how), there.inverse, how)
        return float(moved[..., 16:-16, 16:-16].var() / image[..., 16:-16, 16:-16].var())

    print(f"lanczos {energy('lanczos'):.2f}, linear {energy('linear'):.2f}")
    assert least < energy("lanczos") < 1.1
    assert energy("linear") < 0.9 * energy("lanczos")


def test_constant_pictures_stay_constant() -> None:
    image = torch.full((1, 3, 20, 30), 0.3, dtype=torch.float64)
    for affine in (Affine(1.7), Affine(0.4), Affine(1.1, 33, (0.0, 1.0))):
        assert torch.allclose(warp(image, affine), image, atol=1e-14)


def test_ramps_stay_ramps() -> None:
    ramp = torch.arange(40, dtype=torch.float64).expand(1, 1, 30, 40)
    for affine in (Affine(1.3), Affine(1.1, 25), Affine(0.8)):
        inner = warp(ramp, affine)[..., 8:-8, 8:-8]
        for axis in (-1, -2):
            assert float(inner.diff(dim=axis).std()) < 1e-12
        steps = inner.diff(dim=-1).mean()
        turned = math.cos(math.radians(affine.degrees)) / affine.factor
        assert float(steps) == pytest.approx(turned, abs=1e-12)


def test_beyond_the_edge_lies_its_mirror_image() -> None:
    image = soft()
    doubled = torch.cat([image.flip(2), image, image.flip(2)], 2)
    doubled = torch.cat([doubled.flip(3), doubled, doubled.flip(3)], 3)
    got = warp(image, Affine(0.6, 11))
    expected = warp(doubled, Affine(0.6, 11))[..., 61:122, 83:166]
    assert torch.allclose(got, expected, atol=1e-12)


def test_float32_is_float64_rounded_and_the_threads_do_not_matter() -> None:
    image = soft()
    for affine in (Affine(1.02), Affine(1.02, 3)):
        single = warp(image.float(), affine)
        assert single.dtype == torch.float32
        assert float((single - warp(image, affine)).abs().max()) < 2e-6
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1 if threads > 1 else 2)
            assert torch.equal(warp(image.float(), affine), single)
        finally:
            torch.set_num_threads(threads)


def test_linear_is_what_the_notebook_calls() -> None:
    image, s = soft(), 0.05
    frame = image[0].permute(1, 2, 0).numpy()
    h, w = frame.shape[:2]
    offset: Any = [h * s / 2, w * s / 2, 0]
    expected = nd.affine_transform(frame, [1 - s, 1 - s, 1], offset, order=1)
    got = warp(image, Affine(1 / (1 - s)), "linear")[0].permute(1, 2, 0).numpy()
    assert np.abs(got - expected).max() < 1e-12


@pytest.mark.parametrize(
    ("affine", "how", "words"),
    [
        (Affine(1.1, 3), "crop", "does not turn"),
        (Affine(0.9), "crop", "zooms in"),
        (Affine(1.1), "cubic", "no warp 'cubic'"),
    ],
)
def test_what_a_warp_cannot_do(affine: Affine, how, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        warp(torch.rand(1, 3, 8, 8), affine, how)


def test_an_affine_of_nothing_and_a_picture_that_is_none() -> None:
    for factor, degrees in ((0.0, 0.0), (-1.0, 0.0), (math.inf, 0.0), (1.0, math.nan)):
        with pytest.raises(SettingsError, match="finite numbers"):
            Affine(factor, degrees)
    with pytest.raises(ImageError, match=r"uint8 \(1, 3, 4, 4\)"):
        warp(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), Affine(1.1))
