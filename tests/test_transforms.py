"""Transforms: exact values on tiny images, their gradients, their ranges, their seeds."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from phosphene import transforms as T
from phosphene.errors import SettingsError

# Odd, prime and 1 px wide.
sides = st.sampled_from([1, 2, 3, 5, 7, 8, 13, 16, 17, 31])
seeds = st.integers(0, 2**31)

# One setting of each, that works on any image of 32 px or more.
EACH = {
    "jitter": T.jitter(3),
    "jitter without wrap": T.jitter(3, wrap=False),
    "pad": T.pad(2),
    "pad, reflect": T.pad(2, "reflect"),
    "rotate": T.rotate(20),
    "rotate, grey": T.rotate(20, 0.5),
    "scale": T.scale(0.6, 1.4),
    "random_crop": T.random_crop((7, 9)),
    "noise": T.noise(0.1),
    "robust": T.robust(),
    "compose": T.compose(T.pad(4), T.jitter(4)),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ramp(height: int, width: int, n: int = 1) -> Tensor:
    """Every value different, exact in float32."""
    return torch.arange(n * 3 * height * width, dtype=torch.float32).reshape(n, 3, height, width)


def rolled_by(image: Tensor, out: Tensor) -> tuple[int, int]:
    """Where pixel (0, 0) of a ramp went."""
    row, column = (out[0, 0] == image[0, 0, 0, 0]).nonzero()[0].tolist()
    return row, column


# --- jitter ---------------------------------------------------------------------------------------


def test_jitter_is_a_roll_of_every_channel_alike():
    image = ramp(5, 7, n=2)
    out = T.jitter(2)(image, seeded(3))
    down, right = rolled_by(image, out)
    assert (down, right) != (0, 0)
    # NumPy's roll, and indices written out, as oracles.
    assert np.array_equal(out.numpy(), np.roll(image.numpy(), (down, right), (2, 3)))
    for row in range(5):
        for column in range(7):
            source = image[:, :, (row - down) % 5, (column - right) % 7]
            assert torch.equal(out[:, :, row, column], source)


def test_jitter_is_undone_by_its_gradient():
    image = ramp(5, 7).requires_grad_()
    weight = torch.rand(1, 3, 5, 7, generator=seeded(9))
    out = T.jitter(4)(image, seeded(1))
    down, right = rolled_by(image, out)
    (out * weight).sum().backward()
    assert (down, right) != (0, 0)
    assert torch.equal(image.grad, weight.roll((-down, -right), (2, 3)))  # pyright: ignore


@pytest.mark.parametrize("pixels", [1, 2, 5])
def test_jitter_reaches_both_ends_of_its_range_evenly_and_independently(pixels: int):
    # 3 channels, so a range that came from their number would show; more rows than columns.
    image, shift, generator = ramp(29, 23), T.jitter(pixels), seeded()
    counts = np.zeros((2 * pixels + 1, 2 * pixels + 1), int)
    draws = 20 * counts.size
    for _ in range(draws):
        down, right = rolled_by(image, shift(image, generator))
        down, right = (down + 14) % 29 - 14, (right + 11) % 23 - 11
        counts[down + pixels, right + pixels] += 1  # an index outside would raise or wrap
    assert counts.sum() == draws
    assert counts.min() > 0
    # χ² of an even draw: mean k, deviation √(2k).
    expected, k = draws / counts.size, counts.size - 1
    assert ((counts - expected) ** 2 / expected).sum() < k + 5 * math.sqrt(2 * k)


def test_jitter_by_a_pair_bounds_each_axis_apart():
    image, shift, generator = ramp(29, 23), T.jitter((2, 1)), seeded()
    seen = {rolled_by(image, shift(image, generator)) for _ in range(200)}
    assert seen == {(y % 29, x % 23) for y in range(-2, 3) for x in range(-1, 2)}
    only_across = T.jitter((0, 3))
    for _ in range(20):
        assert rolled_by(image, only_across(image, generator))[0] == 0
    cut = T.jitter((0, 3), wrap=False)(image, generator)
    assert cut.shape == (1, 3, 29, 20)
    assert T.jitter((0, 0))(image, generator) is image


@settings(max_examples=40, deadline=None)
@given(sides, sides, st.integers(0, 40), seeds)
def test_jitter_only_moves_pixels(height: int, width: int, pixels: int, seed: int):
    image = ramp(height, width)
    out = T.jitter(pixels)(image, seeded(seed))
    assert out.shape == image.shape
    assert torch.equal(out.flatten(2).sort().values, image.flatten(2))


def test_jitter_of_nothing_is_the_image_itself():
    image = ramp(3, 4)
    for wrap in (True, False):
        assert T.jitter(0, wrap=wrap)(image, seeded()) is image


def test_jitter_without_wrap_cuts_windows_at_every_place():
    image, cut, generator = ramp(6, 9), T.jitter(2, wrap=False), seeded()
    places = set()
    for _ in range(200):
        out = cut(image, generator)
        assert out.shape == (1, 3, 4, 7)
        top, left = divmod(int(out[0, 0, 0, 0]), 9)
        assert torch.equal(out, image[..., top : top + 4, left : left + 7])
        places.add((top, left))
    assert places == {(top, left) for top in range(3) for left in range(3)}


# --- pad, crop ------------------------------------------------------------------------------------


def test_pad_adds_the_tone_on_all_four_sides():
    out = T.pad(2, 0.25)(torch.ones(1, 3, 1, 2), seeded())
    assert out.shape == (1, 3, 5, 6)
    border = torch.full((5, 6), 0.25)
    border[2, 2:4] = 1
    assert torch.equal(out[0], border.expand(3, 5, 6))


@pytest.mark.parametrize(
    ("mode", "row"),
    [
        ("reflect", [3, 2, 1, 2, 3, 2, 1]),
        ("replicate", [1, 1, 1, 2, 3, 3, 3]),
        ("circular", [2, 3, 1, 2, 3, 1, 2]),
    ],
)
def test_pad_modes(mode: T.Mode, row: list[int]):
    image = torch.tensor([1.0, 2, 3]).expand(1, 3, 4, 3)
    out = T.pad(2, mode)(image, seeded())
    assert out.shape == (1, 3, 8, 7)
    assert out[0, 0, 0].tolist() == row


@pytest.mark.parametrize("size", [(3, 5), 3, (1, 1), (6, 9)])
def test_random_crop_is_a_window_of_the_image(size: int | tuple[int, int]):
    image = ramp(6, 9, n=2)
    height, width = (size, size) if isinstance(size, int) else size
    for seed in range(20):
        out = T.random_crop(size)(image, seeded(seed))
        assert out.shape == (2, 3, height, width)
        top, left = divmod(int(out[0, 0, 0, 0]), 9)
        assert torch.equal(out, image[..., top : top + height, left : left + width])


# --- rotate ---------------------------------------------------------------------------------------


def smooth(height: int, width: int) -> Tensor:
    generator = np.random.default_rng(0)
    noise = generator.random((1, 3, height, width))
    return torch.from_numpy(scipy.ndimage.gaussian_filter(noise, (0, 0, 2, 2)))


@pytest.mark.parametrize("shape", [(24, 24), (24, 40), (41, 23)])
def test_rotate_is_a_true_rotation_on_any_aspect_ratio(shape: tuple[int, int]):
    image = smooth(*shape)
    angle = -30 + 60 * torch.rand((), generator=seeded(5), dtype=torch.float64).item()
    assert abs(angle) > 5
    out = T.rotate(30, 0.5)(image, seeded(5))
    expected = scipy.ndimage.rotate(
        image.numpy(), angle, (2, 3), reshape=False, order=1, mode="grid-constant", cval=0.5
    )
    backwards = scipy.ndimage.rotate(
        image.numpy(), -angle, (2, 3), reshape=False, order=1, mode="grid-constant", cval=0.5
    )
    # Either sense will do, since the angles are symmetric.
    errors = [np.abs(out.numpy() - other).max() for other in (expected, backwards)]
    assert min(errors) < 1e-9


def test_rotate_leaves_no_black_corners():
    white = torch.ones(1, 3, 30, 50)
    for fill in ("reflection", "border", 1.0):
        out = T.rotate(45, fill)(white, seeded(2))
        assert torch.allclose(out, white)
    grey = T.rotate(45, 0.5)(white, seeded(2))
    assert grey.min() == 0.5
    assert grey[0, 0, 15, 25] == 1


def test_rotate_draws_evenly_from_its_range():
    # The slope of a turned ramp is the tangent of the angle.
    y, x = torch.meshgrid(torch.arange(33.0), torch.arange(33.0), indexing="ij")
    image = (x + 0 * y).expand(1, 3, 33, 33)
    turn, generator, angles = T.rotate(10), seeded(), []
    for _ in range(400):
        out = turn(image, generator)[0, 0]
        across, down = out[16, 17] - out[16, 15], out[17, 16] - out[15, 16]
        angles.append(math.degrees(math.atan2(float(down), float(across))))
    assert -10 <= min(angles) < -9.5
    assert 9.5 < max(angles) <= 10.001
    assert abs(np.mean(angles)) < 1
    assert np.std(angles) == pytest.approx(20 / math.sqrt(12), rel=0.08)


# --- scale ----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.floats(0.2, 2), st.floats(1, 2), seeds)
def test_scale_keeps_the_aspect_ratio_and_its_range(
    height: int, width: int, low: float, more: float, seed: int
):
    high = low * more
    out = T.scale(low, high)(torch.full((2, 3, height, width), 0.25), seeded(seed))
    assert out.shape[:2] == (2, 3)
    for new, old in zip(out.shape[-2:], (height, width), strict=True):
        assert max(1, round(old * low)) <= new <= max(1, round(old * high))
    factor = low + (high - low) * torch.rand((), generator=seeded(seed), dtype=torch.float64).item()
    assert out.shape[-2:] == (max(1, round(height * factor)), max(1, round(width * factor)))
    assert torch.allclose(out, torch.full_like(out, 0.25))


def test_scale_to_half_is_the_mean_and_sees_every_pixel():
    image = torch.rand(1, 3, 8, 12, generator=seeded()).requires_grad_()
    out = T.scale(0.25, 0.25)(image, seeded())
    assert out.shape == (1, 3, 2, 3)
    out.sum().backward()
    assert image.grad is not None
    assert image.grad.min() > 0  # plain bilinear sampling would skip three pixels of four


def test_scale_by_one_is_the_image_itself():
    image = ramp(5, 3)
    assert T.scale(1, 1)(image, seeded()) is image


# --- crops, noise ---------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 40), st.integers(4, 40), st.floats(0.1, 1), st.floats(0, 1), seeds)
def test_crops_lie_inside_and_in_range(height: int, width: int, a: float, b: float, seed: int):
    low, high = min(a, 0.1 + 0.9 * b), max(a, 0.1 + 0.9 * b)
    y = torch.arange(height, dtype=torch.float64)[:, None].expand(height, width)
    x = torch.arange(width, dtype=torch.float64).expand(height, width)
    image = torch.stack((y, x, torch.ones_like(x)))[None]
    out = T.crops(3, low, high, size=(9, 11), noise=0)(image, seeded(seed))
    assert out.shape == (3, 3, 9, 11)
    assert torch.allclose(out[:, 2], torch.ones(3, 9, 11, dtype=torch.float64))
    for channel, side in ((0, height), (1, width)):
        span = out[:, channel].flatten(1)
        assert span.min() >= -1e-9
        assert span.max() <= side - 1 + 1e-9
        # Resampled, a window of n px spans at most n - 1 steps of a ramp.
        assert (span.amax(1) - span.amin(1) <= max(1, round(side * high)) - 1 + 1e-9).all()


def test_crops_reach_every_corner_and_only_their_sizes():
    image = ramp(20, 30)
    taken, generator = T.crops(400, 0.2, 0.4, size=1, noise=0), seeded()
    sizes, corners = set(), set()
    whole = T._window

    def spy(image: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
        out = whole(image, height, width, generator)
        top, left = divmod(int(out[0, 0, 0, 0]), 30)
        sizes.add((height, width))
        corners.update({(top, left), (top + height - 1, left + width - 1)})
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(T, "_window", spy)
        taken(image, generator)
    assert {h for h, _ in sizes} == {4, 5, 6, 7, 8}
    assert {w for _, w in sizes} == {6, 7, 8, 9, 10, 11, 12}
    assert {y for y, _ in corners} == set(range(20))
    assert {x for _, x in corners} == set(range(30))


def test_crops_are_ordered_by_image():
    image = torch.stack([torch.full((3, 8, 8), 0.1), torch.full((3, 8, 8), 0.9)])
    out = T.crops(4, 0.5, 0.5, noise=0)(image, seeded())
    assert out.shape == (8, 3, 4, 4)
    assert torch.allclose(out[:4], torch.tensor(0.1))
    assert torch.allclose(out[4:], torch.tensor(0.9))
    same = ramp(8, 8).expand(2, 3, 8, 8)
    first, second = T.crops(3, 0.5, 0.9, noise=0)(same, seeded()).unflatten(0, (2, 3))
    assert torch.equal(first, second)


def test_noise_has_its_deviation_and_passes_the_gradient():
    image = torch.full((1, 3, 64, 48), 0.5).requires_grad_()
    out = T.noise(0.2)(image, seeded())
    added = (out - image).detach()
    assert added.mean().abs() < 0.01
    assert added.std().item() == pytest.approx(0.2, rel=0.05)
    out.sum().backward()
    assert torch.equal(image.grad, torch.ones_like(image))  # pyright: ignore
    assert T.noise(0)(image, seeded()) is image


def test_noise_is_the_same_for_all_of_a_batch():
    out = T.noise(0.2)(torch.full((3, 3, 8, 8), 0.5), seeded())
    assert torch.equal(out, out[:1].expand_as(out))
    alone = T.noise(0.2)(torch.full((1, 3, 8, 8), 0.5), seeded())
    assert torch.equal(alone, out[:1])
    cut = T.crops(2, 0.5, 0.5, noise=0.2)(torch.zeros(2, 3, 8, 8), seeded())
    assert torch.equal(cut, cut[:1].expand_as(cut))
    assert cut.std().item() == pytest.approx(0.2, rel=0.3)


# --- all ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EACH)
def test_one_seed_one_result_and_the_global_generator_is_left_alone(name: str):
    image = torch.rand(2, 3, 33, 47, generator=seeded(7))
    outs = []
    for other in (0, 1):
        before = torch.manual_seed(other).get_state()
        outs.append(EACH[name](image, seeded(11)))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(outs[0], outs[1])


@pytest.mark.parametrize("name", [name for name in EACH if name not in ("pad", "pad, reflect")])
def test_seeds_differ_and_a_generator_moves_on(name: str):
    image = torch.rand(1, 3, 33, 47, generator=seeded(7))
    generator = seeded(3)
    outs = [EACH[name](image, generator) for _ in range(6)]
    assert any(a.shape != outs[0].shape or not torch.equal(a, outs[0]) for a in outs[1:])


@pytest.mark.parametrize("name", EACH)
def test_batch_channels_dtype_and_the_image_itself_are_kept(name: str):
    image = torch.rand(2, 3, 33, 47, generator=seeded(7))
    double, kept = image.double(), image.clone()
    out = EACH[name](image, seeded(5))
    assert torch.equal(image, kept)
    assert out.shape[:2] == (2, 3)
    assert out.dtype == torch.float32
    # Both images of a batch are treated alike, whatever is drawn, but for noise.
    if name != "noise":
        twins = EACH[name](image[:1].expand(2, -1, -1, -1), seeded(5))
        assert torch.equal(twins[0], twins[1])
    wide = EACH[name](double, seeded(5))
    assert wide.dtype == torch.float64
    assert torch.allclose(wide.float(), out, atol=2e-4)  # rotation's grid rounds in float32


@pytest.mark.parametrize("name", EACH)
def test_gradients_are_true(name: str):
    image = torch.rand(1, 3, 10, 12, generator=seeded(2), dtype=torch.float64)
    image = image[:, :1].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: EACH[name](x, seeded(4)), image, fast_mode=True)


@settings(max_examples=25, deadline=None)
@given(sides, sides, seeds)
def test_robust_takes_any_size(height: int, width: int, seed: int):
    out = T.robust()(torch.full((1, 3, height, width), 0.5), seeded(seed))
    for new, old in zip(out.shape[-2:], (height, width), strict=True):
        assert round((old + 16) * 0.9) - 4 <= new <= round((old + 16) * 1.1) - 4
    assert torch.allclose(out, torch.full_like(out, 0.5), atol=1e-5)


def test_compose_goes_from_left_to_right():
    image = torch.zeros(1, 3, 2, 2)
    out = T.compose(T.pad(1, 0.0), T.pad(1, 1.0))(image, seeded())
    assert out[0, 0, 0].tolist() == [1] * 6
    assert out[0, 0, 1].tolist() == [1, 0, 0, 0, 0, 1]
    assert T.compose()(image, seeded()) is image


def test_newcomers_register_as_the_built_ins_do(monkeypatch: pytest.MonkeyPatch):
    built_in = ["jitter", "pad", "rotate", "scale", "random_crop", "crops", "noise", "none",
                "robust", "gentle"]  # fmt: skip
    assert list(T.TRANSFORMS) == built_in
    assert all(T.TRANSFORMS[name] is getattr(T, name) for name in built_in)

    @T.transform
    def upside_down() -> T.Transform:
        return lambda image, generator: image.flip(-2)

    try:
        out = T.TRANSFORMS["upside_down"]()(ramp(2, 2), seeded())
        assert out[0, 0].tolist() == [[2, 3], [0, 1]]
        T.transform(upside_down)  # a notebook cell that is run again

        def jitter() -> T.Transform:
            return T.none()

        with pytest.raises(SettingsError, match="a transform 'jitter' already, from phosphene"):
            T.transform(jitter)
        assert T.TRANSFORMS["jitter"] is T.jitter
    finally:
        del T.TRANSFORMS["upside_down"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: T.jitter(-1), "jitter is -1 px; it must be 0 or more"),
        (lambda: T.jitter((3, -2)), "jitter is -2 px"),
        (lambda: T.pad(-2), "pad is -2 px"),
        (lambda: T.pad(2, "mirror"), "'mirror'; a number, or reflect, replicate, circular"),  # pyright: ignore
        (lambda: T.rotate(-5), "rotate is -5 degrees"),
        (lambda: T.rotate(5, "black"), "'black'; a number, or reflection, border"),  # pyright: ignore
        (lambda: T.rotate(math.nan), "rotate is nan degrees"),
        (lambda: T.scale(0, 1), "scale is from 0 to 1"),
        (lambda: T.scale(1.1, 0.9), "0 < low ≤ high"),
        (lambda: T.scale(1, math.inf), "scale is from 1 to inf"),
        (lambda: T.random_crop((4, 0)), "random_crop is 0 px a side"),
        (lambda: T.crops(0), "crops is 0 parts"),
        (lambda: T.crops(2, 0.5, 1.5), "low ≤ high ≤ 1"),
        (lambda: T.noise(-0.1), "noise is -0.1 deviation"),
    ],
)
def test_settings_out_of_bounds_are_refused(make, words: str):
    with pytest.raises(SettingsError) as error:
        make()
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (T.jitter(4, wrap=False), "cuts 4 px, and the image has 4×9"),
        (T.pad(4, "reflect"), "needs an image of 5 px a side, got 4×9"),
        (T.pad(5, "circular"), "needs an image of 5 px a side, got 4×9"),
        (T.random_crop((5, 3)), "cuts 5×3 px, and the image has 4×9"),
    ],
)
def test_images_too_small_are_refused(transform: T.Transform, words: str):
    with pytest.raises(SettingsError, match=words):
        transform(ramp(4, 9), seeded())


def test_importing_transforms_loads_no_torchvision():
    code = "import sys, phosphene.transforms; print('torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
