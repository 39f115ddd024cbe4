"""Lab against other implementations, the pull towards the start, and the noise that it is given."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import lab2rgb, rgb2lab

from phosphene.errors import ImageError
from phosphene.films.drift import (
    SHOULDER,
    LabStatistics,
    band_noise,
    colours_to_keep,
    from_lab,
    lab_statistics,
    pulled,
    to_lab,
)
from phosphene.image import start_picture


def colours(seed: int = 0, side: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, side, side, generator=generator, dtype=torch.float64)


def inner(seed: int = 0) -> torch.Tensor:
    """Colours that no pull takes out of sRGB."""
    return 0.35 + 0.3 * colours(seed)


def test_lab_is_scikit_images() -> None:
    image = colours()
    hwc = image[0].permute(1, 2, 0).numpy()
    lab = to_lab(image)[0].permute(1, 2, 0).numpy()
    assert np.abs(lab - rgb2lab(hwc)).max() < 2e-2  # its white and ours differ in the fifth digit
    back = from_lab(torch.from_numpy(rgb2lab(hwc)).permute(2, 0, 1)[None])
    assert np.abs(back[0].permute(1, 2, 0).numpy() - lab2rgb(rgb2lab(hwc))).max() < 5e-4


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        # http://www.brucelindbloom.com, sRGB, D65
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
        ((1.0, 1.0, 1.0), (100.0, 0.0, 0.0)),
        ((1.0, 0.0, 0.0), (53.24, 80.09, 67.20)),
        ((0.0, 1.0, 0.0), (87.73, -86.18, 83.18)),
        ((0.0, 0.0, 1.0), (32.30, 79.19, -107.86)),
    ],
)
def test_known_colours(rgb: tuple[float, ...], lab: tuple[float, ...]) -> None:
    image = torch.tensor(rgb, dtype=torch.float64).view(1, 3, 1, 1)
    assert to_lab(image).flatten().tolist() == pytest.approx(lab, abs=2e-2)


def test_there_and_back_is_the_same() -> None:
    image = colours()
    assert float((from_lab(to_lab(image)) - image).abs().max()) < 1e-12
    single = image.float()
    assert float((from_lab(to_lab(single)) - single).abs().max()) < 2e-5


def test_greys_have_no_colour() -> None:
    greys = torch.linspace(0, 1, 20, dtype=torch.float64).view(1, 1, 1, 20).expand(1, 3, 1, 20)
    assert float(to_lab(greys)[:, 1:].abs().max()) < 1e-3


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_a_pull_goes_its_share_of_the_way(share: float) -> None:
    image = inner()
    have = lab_statistics(image)
    target = LabStatistics(
        have.mean + torch.tensor([4.0, -3.0, 2.0]).view(1, 3, 1, 1), have.deviation * 0.9
    )
    got = lab_statistics(pulled(image, target, share))
    for name in ("mean", "deviation"):
        before, after, wanted = (getattr(s, name) for s in (have, got, target))
        expected = before + share * (wanted - before)
        assert torch.allclose(after, expected, atol=1e-9)


def test_pulls_lead_to_the_target_and_stay_there() -> None:
    image, target = inner(), lab_statistics(inner(1) * 0.9 + 0.05)
    for _ in range(200):
        image = pulled(image, target, 0.05)
    assert torch.allclose(lab_statistics(image).mean, target.mean, atol=1e-2)
    assert torch.allclose(lab_statistics(image).deviation, target.deviation, rtol=1e-3)


def test_the_colours_of_pixel_noise_are_not_kept() -> None:
    noise = start_picture("noise", (64, 96)).double()
    own, kept = lab_statistics(noise), colours_to_keep(noise)
    assert torch.equal(kept.mean, own.mean)
    assert torch.equal(kept.deviation[:, :1], own.deviation[:, :1])
    assert torch.allclose(kept.deviation[:, 1:], 1.5 * own.deviation[:, :1])
    assert bool((own.deviation[:, 1:] > 2 * own.deviation[:, :1]).all())
    # Colours in large parts are: red and green of the same lightness.
    parts = torch.zeros(1, 3, 64, 64, dtype=torch.float64)
    parts[:, 0, :, :32], parts[:, 1, :, 32:] = 0.8, 0.55
    assert torch.allclose(
        colours_to_keep(parts).deviation, lab_statistics(parts).deviation, rtol=0.1
    )


def test_no_pull_changes_nothing_and_a_flat_picture_stays_flat() -> None:
    image = colours()
    assert pulled(image, lab_statistics(inner()), 0) is image
    flat = torch.full((1, 3, 8, 8), 0.5, dtype=torch.float64)
    assert float(pulled(flat, lab_statistics(image), 0.5).std((2, 3)).max()) < 1e-12


def test_a_pull_leaves_room_at_black_and_white() -> None:
    image = colours()
    image[..., :4, :] = 0
    image[..., 4:8, :] = 1
    got = pulled(image, lab_statistics(image), 1.0)  # towards what it is already
    within = (image > SHOULDER) & (image < 1 - SHOULDER)
    assert float((got - image)[within].abs().max()) < 1e-9
    assert float(got.min()) == pytest.approx(SHOULDER / np.e, abs=1e-6)
    assert float(got.max()) == pytest.approx(1 - SHOULDER / np.e, abs=1e-6)
    steps = torch.linspace(0, 1, 101, dtype=torch.float64).view(1, 1, 1, -1).expand(1, 3, 1, -1)
    assert bool((pulled(steps, lab_statistics(steps), 1.0).diff() > 0).all())  # no two alike


def band(noise: torch.Tensor, low: float, high: float) -> float:
    """Share of the energy at wavelengths of `low` to `high` px."""
    power = torch.fft.rfft2(noise.double()).abs().square()
    rows = torch.fft.fftfreq(noise.shape[-2])[:, None]
    columns = torch.fft.rfftfreq(noise.shape[-1])[None]
    frequency = (rows**2 + columns**2).sqrt()
    within = (frequency > 1 / high) & (frequency <= 1 / low)
    return float(power[..., within].sum() / power.sum())


def test_noise_is_of_its_band_and_its_strength() -> None:
    noise = band_noise((128, 160), seed=0, frame=3, like=torch.zeros(1))
    assert noise.shape == (1, 3, 128, 160)
    assert noise.std((2, 3), correction=0).flatten().tolist() == pytest.approx([1] * 3, abs=1e-5)
    assert float(noise.mean((2, 3)).abs().max()) < 0.05
    white = torch.randn(1, 3, 128, 160, generator=torch.Generator().manual_seed(0))
    print([round(band(n, 3, 16), 2) for n in (noise, white)])
    assert band(noise, 3, 20) > 0.85
    assert band(noise, 32, 1e9) < 0.02
    assert band(white, 3, 20) < 0.5


def test_noise_is_of_its_seed_and_its_frame() -> None:
    like = torch.zeros(1, dtype=torch.float64)
    one = band_noise((20, 30), seed=4, frame=7, like=like)
    assert one.dtype == torch.float64
    assert torch.equal(one, band_noise((20, 30), seed=4, frame=7, like=like))
    for seed, frame in ((4, 8), (5, 7)):
        other = band_noise((20, 30), seed=seed, frame=frame, like=like)
        together = float((one * other).mean())
        assert abs(together) < 0.3
    single = band_noise((1, 1), seed=0, frame=0, like=like)
    assert bool(single.isfinite().all())


def test_what_is_no_picture() -> None:
    with pytest.raises(ImageError, match=r"\(1, 1, 4, 4\)"):
        to_lab(torch.zeros(1, 1, 4, 4))
