"""Parameterizations: round trips, fits, and what each promises to keep."""

from __future__ import annotations

import copy
import io
import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

from phosphene import natural
from phosphene import parameterization as P
from phosphene.errors import ImageError, SettingsError, WeightsError
from phosphene.parameterization import Fourier, MaCo, Pixels

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Odd, prime and 1 px wide.
sides = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 31])
seeds = st.integers(0, 2**31)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_image(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


@pytest.fixture(scope="module", params=["china.jpg", "flower.jpg"])
def photo(request: pytest.FixtureRequest) -> Tensor:
    """A real photograph, `(1, 3, 47, 63)`."""
    picture = torch.from_numpy(load_sample_image(request.param).copy()).permute(2, 0, 1)[None]
    return nn.functional.adaptive_avg_pool2d(picture[..., :420, :630].float() / 255, (47, 63))


def psnr(a: Tensor, b: Tensor) -> float:
    return -10 * math.log10((a - b).square().mean().item())


def fit(parameterization: nn.Module, target: Tensor, steps: int, rate: float = 0.05) -> float:
    optimiser = torch.optim.Adam(parameterization.parameters(), rate)
    for _ in range(steps):
        optimiser.zero_grad()
        (parameterization() - target).square().mean().backward()
        optimiser.step()
    return psnr(parameterization().detach(), target)


# --- Pixels ---------------------------------------------------------------------------------------


def test_pixels_are_the_image_and_not_the_callers():
    image = random_image(2, 3, 5, 7)
    kept = image.clone()
    pixels = Pixels(image)
    assert pixels() is pixels.pixels
    assert [name for name, _ in pixels.named_parameters()] == ["pixels"]
    assert torch.equal(pixels(), kept)
    with torch.no_grad():
        pixels.pixels.add_(1)
    assert torch.equal(image, kept)


def test_pixels_step_in_the_networks_own_values():
    image = torch.full((1, 3, 1, 1), 0.5, dtype=torch.float64)
    pixels = Pixels(image, scale=STD, shift=MEAN)
    normalised = [(0.5 - m) / s for m, s in zip(MEAN, STD, strict=True)]
    assert pixels.pixels.flatten().tolist() == pytest.approx(normalised, abs=1e-15)
    assert torch.allclose(pixels(), image, atol=1e-15)
    # A step of 0.1 there is 0.1 × deviation here, and the gradient is scaled alike.
    with torch.no_grad():
        pixels.pixels.add_(0.1)
    assert (pixels() - 0.5).flatten().tolist() == pytest.approx([0.1 * s for s in STD])
    pixels().sum().backward()
    assert pixels.pixels.grad is not None
    assert pixels.pixels.grad.flatten().tolist() == pytest.approx(list(STD))


def test_pixels_in_bytes():
    pixels = Pixels(torch.full((1, 3, 2, 2), 0.5), scale=1 / 255)
    assert torch.allclose(pixels.pixels, torch.tensor(127.5))


@pytest.mark.parametrize("given_", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("settings_", [{}, {"scale": STD, "shift": MEAN}])
def test_pixels_are_float32_unless_float64(given_: torch.dtype, settings_: dict):
    out = Pixels(random_image(1, 3, 2, 2).to(given_), **settings_)()
    assert out.dtype == (torch.float64 if given_ == torch.float64 else torch.float32)


def test_clamp_is_in_place_and_exact():
    image = torch.tensor([-0.5, 0.0, 0.25, 1.0, 1.5]).expand(1, 3, 1, 5)
    pixels = Pixels(image)
    where = pixels.pixels.data_ptr()
    pixels.clamp_()
    assert pixels.pixels.data_ptr() == where
    assert pixels()[0, 0, 0].tolist() == [0, 0, 0.25, 1, 1]
    pixels.clamp_(0.2, 0.5)
    assert torch.equal(pixels()[0, 0, 0], torch.tensor([0.2, 0.2, 0.25, 0.5, 0.5]))


@settings(max_examples=60, deadline=None)
@given(st.floats(0.003, 4), st.floats(-2, 2), seeds, st.booleans())
def test_clamp_never_leaves_the_range_by_rounding(
    scale: float, shift: float, seed: int, wide: bool
):
    image = 6 * random_image(1, 3, 4, 4, seed=seed) - 3
    pixels = Pixels(image.double() if wide else image, scale=[scale] * 3, shift=shift)
    before = pixels().detach().clone()
    pixels.clamp_()
    out = pixels().detach()
    assert out.min() >= 0
    assert out.max() <= 1
    assert torch.allclose(out, before.clamp(0, 1), atol=2e-6)
    inside = (before > 1e-5) & (before < 1 - 1e-5)
    assert torch.equal(out[inside], before[inside])


def test_pixels_fit_a_photograph(photo: Tensor):
    assert fit(Pixels(torch.full_like(photo, 0.5)), photo, steps=100) > 40


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (torch.zeros(3, 4, 4), r"shape \(3, 4, 4\); it must be \(N, 3, H, W\)"),
        (torch.zeros(1, 4, 4, 4), "it must be"),
        (torch.zeros(1, 3, 0, 4), "it must be"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "uint8; it must be float"),
    ],
)
@pytest.mark.parametrize("make", [Pixels, Fourier.from_image, MaCo.from_image])
def test_what_is_no_image_is_refused(make, image: Tensor, words: str):
    with pytest.raises(ImageError, match=words):
        make(image)


@pytest.mark.parametrize("wrong", [{"scale": 0}, {"scale": [1, -1, 1]}, {"scale": (1, 2)}])
def test_pixels_refuse_units_that_are_none(wrong: dict):
    with pytest.raises(SettingsError, match="scale is"):
        Pixels(torch.zeros(1, 3, 2, 2), **wrong)
    with pytest.raises(SettingsError, match="shift is nan"):
        Pixels(torch.zeros(1, 3, 2, 2), shift=math.nan)


# --- soft_clip ------------------------------------------------------------------------------------


def test_soft_clip_keeps_the_middle_and_is_smooth_and_monotone():
    x = torch.linspace(-3, 4, 70001, dtype=torch.float64, requires_grad=True)
    y = P.soft_clip(x)
    y.sum().backward()
    middle = (x > 1 / 16) & (x < 15 / 16)
    assert torch.equal(y[middle], x[middle])
    assert y.min() >= 0
    assert y.max() <= 1
    slope = torch.diff(y) / torch.diff(x)
    assert slope.min() >= 0
    assert torch.diff(slope).abs().max() < 1e-2  # no kink: the knees' slope changes by 1/16 px
    assert torch.allclose(x.grad[1:-1], (slope[1:] + slope[:-1]) / 2, atol=2e-3)  # pyright: ignore
    assert torch.allclose(y.flip(0)[:1000], 1 - P.soft_clip(1 - x.flip(0)[:1000]))


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1, width=32))
def test_soft_unclip_undoes_it(value: float):
    for dtype, tolerance in ((torch.float32, 3e-7), (torch.float64, 1e-12)):
        image = torch.tensor(value, dtype=dtype)
        back = P.soft_clip(P.soft_unclip(image))
        assert 0 <= back <= 1
        assert (back - image.clamp(1 / 1024, 1 - 1 / 1024)).abs() <= tolerance


# --- the statistics of natural pictures -----------------------------------------------------------


def test_the_bundled_statistics_are_those_of_nature():
    nature = P.natural_statistics()
    assert nature.colour.dtype == nature.spectrum.dtype == torch.float64
    # A square root of the covariance, at its true length.
    assert torch.allclose(nature.axes @ nature.axes.T, nature.covariance, atol=1e-5)
    assert nature.colour.norm(dim=0).max() == pytest.approx(1, abs=1e-6)
    # Light and dark first, in all channels alike.
    luminance = nature.colour[:, 0] / nature.colour[:, 0].norm()
    assert luminance.tolist() == pytest.approx([3**-0.5] * 3, abs=0.05)
    # Low frequencies are the strong ones.
    assert nature.spectrum[0, 1, 0] > 5 * nature.spectrum[0, 16, 0]


def test_missing_statistics_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(natural.resources, "files", lambda package: tmp_path)
    P.natural_statistics.cache_clear()
    try:
        with pytest.raises(WeightsError, match=r"natural\.npz"):
            P.natural_statistics()
        (tmp_path / "data").mkdir()
        np.savez(tmp_path / "data" / "natural.npz", mean=np.zeros(3))
        with pytest.raises(WeightsError, match=r"natural\.npz.*covariance"):
            P.natural_statistics()
    finally:
        P.natural_statistics.cache_clear()


def made_up(monkeypatch: pytest.MonkeyPatch, side: int, power: float) -> None:
    """Statistics whose spectrum is 1 / f ** power exactly, at any mean."""
    f = P._frequencies((side, side))
    spectrum = f.clamp(min=1 / side) ** -power
    spectrum[0, 0] = 1234
    nature = P.natural_statistics()._replace(spectrum=spectrum.expand(3, -1, -1))
    monkeypatch.setattr(P, "natural_statistics", lambda: nature)


@pytest.mark.parametrize("side", [15, 16])
@pytest.mark.parametrize(
    "size", [(16, 16), (15, 15), (31, 17), (5, 64), (200, 150), (1, 9), (9, 1)]
)
def test_one_over_f_stays_one_over_f_at_any_size(
    monkeypatch: pytest.MonkeyPatch, side: int, size: tuple[int, int]
):
    made_up(monkeypatch, side, 1)
    magnitude = P.natural_magnitude(size)
    assert magnitude.shape == (3, size[0], size[1] // 2 + 1)
    f = P._frequencies(size)
    product = (magnitude * f)[:, f > 0]
    assert torch.allclose(product, product[:1, :1].expand_as(product), rtol=1e-9)
    assert magnitude[:, 0, 0].tolist() == [0, 0, 0]
    # Unit variance, by Parseval: of any picture with this magnitude.
    picture = MaCo(size, decorrelate=False, generator=seeded())
    picture.magnitude.copy_(magnitude[None])
    channels = (picture.unclipped() - picture.mean).double()
    assert torch.allclose(channels.square().mean((2, 3)), torch.ones(1, 3).double(), atol=1e-4)


def test_the_measured_spectrum_is_kept_at_its_own_size(monkeypatch: pytest.MonkeyPatch):
    made_up(monkeypatch, 16, 1.7)
    measured = P.natural_statistics().spectrum.clone()
    measured[:, 0, 0] = 0
    magnitude = P.natural_magnitude((16, 16))
    ratio = (magnitude / measured)[:, P._frequencies((16, 16)) > 0]
    assert torch.allclose(ratio, ratio[:1, :1].expand_as(ratio))
    # Half the size in px is the same at the same cycles per px, so a ratio again.
    half = P.natural_magnitude((8, 8))[0, :4, :4]
    ratio = (half / measured[0, ::2, ::2][:4, :4])[P._frequencies((8, 8))[:4, :4] > 0]
    assert torch.allclose(ratio, ratio[:1].expand_as(ratio))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size", [(31, 16), (16, 31), (40, 24)])
def test_height_and_width_of_the_spectrum_are_not_swapped(
    monkeypatch: pytest.MonkeyPatch, axis: int, size: tuple[int, int]
):
    # Stronger towards high frequencies of one axis only, linearly, so that sampling is exact.
    def slant(size: tuple[int, int]) -> Tensor:
        fy, fx = torch.fft.fftfreq(size[0]).abs()[:, None], torch.fft.rfftfreq(size[1])
        return 1 + 3 * (fy if axis == 0 else fx).double().expand(size[0], size[1] // 2 + 1)

    side = 16
    spectrum = slant((side, side)) / P._frequencies((side, side)).clamp(min=1 / side)
    nature = P.natural_statistics()._replace(spectrum=spectrum.expand(3, -1, -1))
    monkeypatch.setattr(P, "natural_statistics", lambda: nature)
    f = P._frequencies(size)
    ratio = (P.natural_magnitude(size)[0] * f / slant(size))[f > 1.5 / side]
    assert torch.allclose(ratio, ratio[:1].expand_as(ratio), rtol=1e-6)


# --- Fourier --------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(sides, sides, st.integers(1, 2), seeds, st.booleans(), st.sampled_from(["soft", "sigmoid"]))
def test_fourier_gives_an_image_back(
    height: int, width: int, n: int, seed: int, decorrelate: bool, squash: P.Squash
):
    image = random_image(n, 3, height, width, seed=seed, dtype=torch.float64)
    kept = image.clone()
    made = Fourier.from_image(image, decorrelate=decorrelate, squash=squash)
    assert made.spectrum.shape == (n, 3, height, width // 2 + 1, 2)
    out = made()
    assert torch.allclose(out, image.clamp(1 / 1024, 1 - 1 / 1024), atol=1e-9)
    assert torch.equal(image, kept)


@settings(max_examples=25, deadline=None)
@given(sides, sides, seeds)
def test_fourier_starts_grey_at_any_size(height: int, width: int, seed: int):
    out = Fourier((height, width), batch=2, generator=seeded(seed))()
    assert out.shape == (2, 3, height, width)
    assert out.dtype == torch.float32
    assert (out - 0.5).abs().max() < 0.05
    assert not torch.equal(out[0], out[1])


@pytest.mark.parametrize("size", [(8, 8), (7, 12), (12, 7)])
def test_fourier_scales_each_frequency_by_one_over_it(size: tuple[int, int]):
    height, width = size
    made = Fourier(size, std=0, decorrelate=False)
    # One cosine of amplitude 1 in one parameter: against the formula of the inverse DFT.
    row, column = 2, 1
    with torch.no_grad():
        made.spectrum[0, 1, row, column, 0] = 0.1
    f = math.hypot(row / height, column / width)
    y, x = torch.arange(height)[:, None], torch.arange(width)
    wave = torch.cos(2 * torch.pi * (row * y / height + column * x / width))
    expected = 2 * 0.1 / f / 4 / math.sqrt(height * width) * wave
    out = made()[0] - 0.5
    assert torch.allclose(out[1], expected / 4, atol=1e-6)
    assert out[[0, 2]].abs().max() == 0
    # The mean goes with the lowest frequency that the longer side has.
    with torch.no_grad():
        made.spectrum.zero_()[0, 0, 0, 0, 0] = 0.1
    expected = 0.1 * max(size) / 4 / math.sqrt(height * width) / 4
    assert torch.allclose(made()[0, 0] - 0.5, torch.tensor(expected), atol=1e-6)


def test_fourier_recorrelates_colours():
    made = Fourier((4, 4), std=0)
    with torch.no_grad():
        made.spectrum[0, 0, 0, 0, 0] = 0.5  # the mean of the first axis
    out = made()[0, :, 0, 0] - 0.5
    first = P.natural_statistics().colour[:, 0].float()
    assert torch.allclose(out, first * 0.5 * 4 / 4 / 4 / 4, atol=1e-6)


def test_soft_and_sigmoid_start_alike_and_soft_reaches_further():
    # Near grey the two agree to second order.
    soft, sigmoid = (Fourier((9, 9), squash=s, generator=seeded())() for s in ("soft", "sigmoid"))
    assert torch.allclose(soft, sigmoid, atol=1e-5)
    far = []
    for squash in ("soft", "sigmoid"):
        made = Fourier((9, 9), std=2, squash=squash, generator=seeded())
        out = made().detach()
        assert 0 <= out.min() < out.max() <= 1
        far.append(out.std())
    assert far[0] > 1.1 * far[1]


@pytest.mark.parametrize("decorrelate", [True, False])
def test_fourier_fits_a_photograph(photo: Tensor, decorrelate: bool):
    size = (photo.shape[-2], photo.shape[-1])
    made = Fourier(size, decorrelate=decorrelate, generator=seeded())
    assert psnr(made().detach(), photo) < 15
    assert fit(made, photo, steps=250) > 30


def test_fourier_decay_moves_strength_between_frequencies():
    rough, fine = (
        torch.fft.rfft2(Fourier((32, 32), decay=d, generator=seeded())() - 0.5).abs().mean((0, 1))
        for d in (0.0, 2.0)
    )
    ratio = (fine / rough).detach()
    assert ratio[1, 1] / ratio[12, 12] == pytest.approx(144, rel=0.3)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (31, 20)])
def test_fourier_without_fine_detail_is_blurred(height: int, width: int):
    plain, blurred = (
        Fourier((height, width), low_pass=sigma, generator=seeded())().detach()
        for sigma in (0.0, 1.5)
    )
    assert 0.1 < float(plain.min()) < float(plain.max()) < 0.9  # nothing is clipped
    spectrum = scipy.ndimage.fourier_gaussian(np.fft.fft2(plain.numpy()), (0, 0, 1.5, 1.5))
    expected = torch.from_numpy(np.fft.ifft2(spectrum).real).double()
    torch.testing.assert_close(blurred.double(), expected, atol=1e-4, rtol=0)


def test_fourier_gives_an_image_back_whatever_is_blurred(photo: Tensor):
    made = Fourier.from_image(photo.double(), low_pass=3.0)
    torch.testing.assert_close(made().detach(), photo.double(), atol=2e-3, rtol=0)


# --- MaCo -----------------------------------------------------------------------------------------


def magnitudes(made: MaCo) -> Tensor:
    """|rfft2| of the picture's own channels, found from the picture alone."""
    values = made.unclipped().detach() - made.mean
    channels = torch.einsum("oc,nchw->nohw", torch.linalg.inv(made.colour), values)
    return torch.fft.rfft2(channels, norm="ortho").abs()


@settings(max_examples=50, deadline=None)
@given(sides, sides, st.integers(1, 2), seeds, st.booleans())
def test_maco_gives_an_image_back(height: int, width: int, n: int, seed: int, decorrelate: bool):
    image = random_image(n, 3, height, width, seed=seed, dtype=torch.float64)
    made = MaCo.from_image(image, decorrelate=decorrelate)
    assert torch.allclose(made(), image.clamp(1 / 1024, 1 - 1 / 1024), atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(sides, sides, seeds, st.booleans(), st.booleans())
def test_maco_keeps_its_magnitude_whatever_the_phase(
    height: int, width: int, seed: int, decorrelate: bool, from_image: bool
):
    if from_image:
        made = MaCo.from_image(random_image(1, 3, height, width), decorrelate=decorrelate)
    else:
        made = MaCo((height, width), batch=2, decorrelate=decorrelate, generator=seeded(1))
    with torch.no_grad():
        made.phase.add_(9 * torch.randn(made.phase.shape, generator=seeded(seed)))
    error = (magnitudes(made) - made.magnitude).abs().max()
    assert error <= 1e-4 * max(1, float(made.magnitude.max()))


@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
@pytest.mark.parametrize("start", ["natural", "image"])
def test_maco_moves_and_keeps_its_magnitude_while_optimised(size: tuple[int, int], start: str):
    image = random_image(1, 3, *size, seed=4)
    made = MaCo.from_image(image) if start == "image" else MaCo(size, generator=seeded())
    before, magnitude = made().detach().clone(), made.magnitude.clone()
    target = random_image(1, 3, *size, seed=5)
    optimiser = torch.optim.NAdam(made.parameters(), 0.3)
    scores = []
    for _ in range(30):
        optimiser.zero_grad()
        score = (made() - target).square().mean()
        score.backward()
        optimiser.step()
        scores.append(score.item())
    assert scores[-1] < 0.9 * scores[0]
    assert (made() - before).abs().max() > 0.1
    assert torch.equal(made.magnitude, magnitude)
    assert (magnitudes(made) - magnitude).abs().max() <= 1e-4 * magnitude.max()


def test_maco_starts_at_a_photograph_and_returns_to_it(photo: Tensor):
    made = MaCo.from_image(photo)
    assert psnr(made().detach(), photo) > 60
    # Shaken to where it is no longer the photograph, optimisation of the phase alone finds back.
    with torch.no_grad():
        made.phase.add_(0.5 * torch.randn(made.phase.shape, generator=seeded()))
    assert psnr(made().detach(), photo) < 25
    assert fit(made, photo, steps=150) > 30


def test_maco_looks_natural():
    made = MaCo((64, 64), batch=8, generator=seeded())
    out = made().detach()
    assert 0 <= out.min() < out.max() <= 1
    nature = P.natural_statistics()
    assert torch.allclose(made.unclipped().mean((0, 2, 3)), nature.mean.float(), atol=1e-4)
    found = torch.cov(made.unclipped().detach().transpose(0, 1).flatten(1))
    assert torch.allclose(found, nature.covariance.float(), atol=0.01)
    assert not torch.equal(out[0], out[1])


def test_phases_that_mean_nothing_get_no_gradient():
    made = MaCo((6, 8), generator=seeded())
    (made() * random_image(1, 3, 6, 8)).sum().backward()
    gradient = made.phase.grad
    assert gradient is not None
    none = (gradient == 0).all(dim=1)[0]
    expected = torch.zeros(6, 5, dtype=torch.bool)
    expected[[0, 0, 3, 3], [0, 4, 0, 4]] = True  # real entries
    expected[4:, [0, 4]] = True  # mirror images of rows 1 and 2
    assert torch.equal(none, expected)


def test_maco_accumulates_the_gradient_of_the_image():
    made = MaCo((6, 5), batch=2, generator=seeded())
    assert torch.equal(made.transparency(), torch.ones(2, 1, 6, 5))
    weights = torch.zeros(2, 3, 6, 5)
    weights[0, :, 1, 2], weights[0, :, 4, 4] = -2.0, 1.0
    weights[1, 0, 0, 0] = 3.0
    # The way of the ascent loop: the gradient is found apart and handed back.
    torch.autograd.grad(made(), list(made.parameters()), weights)
    assert torch.equal(made.accumulated_gradient, weights.abs())
    (made() * weights).sum().backward()
    assert torch.equal(made.accumulated_gradient, 2 * weights.abs())
    with torch.no_grad():
        made()
    seen = made.transparency(percentile=100)
    assert seen.shape == (2, 1, 6, 5)
    assert seen[0, 0, 1, 2] == 1
    assert seen[0, 0, 4, 4] == 0.5
    assert seen[1, 0, 0, 0] == 1
    assert (seen > 0).sum() == 3
    # At the 80th percentile all are 0 here, so the largest counts.
    assert torch.equal(made.transparency(), seen)


def test_transparency_is_relative_to_its_percentile():
    made = MaCo((2, 5), generator=seeded())
    made.accumulated_gradient += torch.arange(1.0, 11).reshape(2, 5)
    assert torch.allclose(
        made.transparency(80)[0, 0].flatten(), (torch.arange(1.0, 11) / 8).clamp(max=1)
    )
    for wrong in (0, -1, 101):
        with pytest.raises(SettingsError, match="percentile is"):
            made.transparency(wrong)


# --- all ------------------------------------------------------------------------------------------

KINDS = [Fourier, MaCo]


@pytest.mark.parametrize("kind", KINDS)
def test_one_seed_one_start_and_the_global_generator_only_without_one(kind):
    before = torch.get_rng_state()
    first, again, other = (kind((5, 7), generator=seeded(s))() for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_turned_is_a_parameter_and_all_is_saved(kind):
    made = kind((5, 7), batch=2, generator=seeded(1))
    assert len(list(made.parameters())) == 1
    file = io.BytesIO()
    torch.save(made.state_dict(), file)
    file.seek(0)
    loaded = kind((5, 7), batch=2, generator=seeded(2))
    loaded.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(loaded(), made())
    assert torch.equal(copy.deepcopy(made)(), made())


@pytest.mark.parametrize("kind", KINDS)
def test_one_image_starts_a_whole_batch(kind):
    image = random_image(1, 3, 5, 7)
    made = kind((5, 7), batch=3, image=image)
    assert torch.allclose(
        made(), image.clamp(1 / 1024, 1 - 1 / 1024).expand(3, -1, -1, -1), atol=1e-5
    )
    with torch.no_grad():
        next(made.parameters())[0] += 1
    assert torch.allclose(made()[1:], made()[1:2].expand(2, -1, -1, -1))
    assert not torch.allclose(made()[0], made()[1])


@pytest.mark.parametrize("kind", KINDS)
def test_float64_stays_and_gradients_are_true(kind):
    made = kind.from_image(random_image(1, 3, 3, 4, dtype=torch.float64))
    assert made().dtype == torch.float64
    name, parameter = next(iter(made.named_parameters()))

    def forward(value: Tensor) -> Tensor:
        return torch.func.functional_call(made, {name: value}, ())

    value = parameter.detach().clone().requires_grad_()
    made._accumulate = lambda gradient: None
    assert torch.autograd.gradcheck(forward, value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"size": (0, 4)}, "size"),
        ({"size": (4, 4), "batch": 0}, "batch 0"),
        ({"size": (4, 5), "image": torch.zeros(1, 3, 5, 4)}, r"\(1, 3, 5, 4\).*\(1, 3, 4, 5\)"),
        ({"size": (4, 4), "batch": 3, "image": torch.zeros(2, 3, 4, 4)}, "size and batch say"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(kind, wrong: dict, words: str):
    with pytest.raises(SettingsError, match=words):
        kind(**wrong)


def test_unknown_squash_is_refused():
    with pytest.raises(SettingsError, match="'tanh'; it must be soft or sigmoid"):
        Fourier((4, 4), squash="tanh")  # pyright: ignore
