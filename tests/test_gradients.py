from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.ndimage as nd
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from phosphene import gradients as G
from phosphene.errors import SettingsError
from phosphene.evaluation.cost import peak_bytes
from phosphene.natural import natural_statistics


def row(*values: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """One picture of one channel and one row."""
    return torch.tensor(values, dtype=dtype).view(1, 1, 1, -1)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rms(g: Tensor) -> float:
    return float(g.double().square().mean().sqrt())


NORMALISATIONS = ("mean", "std", "norm", "rms")
# What has a scale of its own, and what takes the gradient's.
SCALING = {
    "mean": lambda: G.normalise("mean"),
    "std": lambda: G.normalise("std"),
    "norm": lambda: G.normalise("norm"),
    "rms": lambda: G.normalise("rms"),
    "laplacian": lambda: G.laplacian(3),
}
EVERY = SCALING | {
    "none": lambda: G.normalise("none"),
    "smooth": lambda: G.smooth(1.3),
    "clip": lambda: G.clip(0.5),
    "mask": lambda: G.mask(torch.linspace(0, 1, 12).view(1, 1, 1, 12)),
    "composed": lambda: G.compose(G.smooth(0.5), G.laplacian(2), G.normalise("rms"), G.clip(2)),
}


@pytest.fixture(params=EVERY)
def transform(request: pytest.FixtureRequest) -> G.GradientTransform:
    return EVERY[request.param]()


@pytest.fixture(params=SCALING)
def scaling(request: pytest.FixtureRequest) -> G.GradientTransform:
    return SCALING[request.param]()


# Normalising


@pytest.mark.parametrize(
    ("by", "given", "expected"),
    [
        ("mean", (3, -4, 0, 0), (12 / 7, -16 / 7, 0, 0)),
        ("norm", (3, -4, 0, 0), (0.6, -0.8, 0, 0)),
        ("rms", (3, -4, 0, 0), (1.2, -1.6, 0, 0)),
        # mean 2, squared deviations 9 + 1 + 1 + 1 over 3: a sample deviation of 2
        ("std", (5, 1, 1, 1), (1.5, -0.5, -0.5, -0.5)),
        ("none", (3, -4, 0, 0), (3, -4, 0, 0)),
    ],
)
def test_normalise_divides_by_what_it_says(by: Any, given: Any, expected: Any) -> None:
    torch.testing.assert_close(G.normalise(by)(row(*given)), row(*expected))


def test_the_divisor_is_of_all_channels_together() -> None:
    # Each channel by itself would lose what colour the gradient has.
    g = torch.tensor([6.0, 2.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 4, 5)
    expected = torch.tensor([2.0, 2 / 3, 1 / 3]).view(1, 3, 1, 1).expand(1, 3, 4, 5)
    torch.testing.assert_close(G.normalise("mean")(g), expected)


def test_a_small_gradient_is_divided_by_epsilon_instead() -> None:
    g = row(1e-9, -1e-9)
    torch.testing.assert_close(G.normalise("mean", epsilon=1e-7)(g), row(1e-2, -1e-2))
    torch.testing.assert_close(G.normalise("mean", epsilon=1e-10)(g), row(1, -1))


def test_an_unknown_normalisation_is_named_with_the_closest() -> None:
    with pytest.raises(SettingsError, match=r"no normalisation 'norms'.*norm"):
        G.normalise("norms")  # pyright: ignore[reportArgumentType]


# What holds for every transform


def test_shape_dtype_and_the_given_tensor_stay(transform: G.GradientTransform) -> None:
    for dtype in (torch.float32, torch.float64):
        g = noise(2, 3, 11, 12, dtype=dtype)
        before = g.clone()
        out = transform(g)
        assert (out.shape, out.dtype) == (g.shape, dtype)
        assert out.isfinite().all()
        assert torch.equal(g, before)


def test_pictures_of_a_batch_do_not_see_each_other(transform: G.GradientTransform) -> None:
    strengths = torch.tensor([1e-9, 1.0, 1e5, 0.0]).view(-1, 1, 1, 1)
    batch = noise(4, 3, 10, 12) * strengths
    for alone, together in zip(batch.split(1), transform(batch).split(1), strict=True):
        expected = transform(alone)
        atol = 1e-5 * float(expected.abs().max())
        torch.testing.assert_close(together, expected, rtol=1e-5, atol=atol)


def test_no_gradient_stays_none(transform: G.GradientTransform) -> None:
    assert torch.equal(transform(torch.zeros(2, 3, 16, 12)), torch.zeros(2, 3, 16, 12))


@pytest.mark.parametrize("strength", [1e-18, 1e-12, 1e-3, 1e12, 1e17])
def test_strength_does_not_matter(scaling: G.GradientTransform, strength: float) -> None:
    g = noise(1, 3, 16, 12)
    torch.testing.assert_close(scaling(g * strength), scaling(g), rtol=1e-4, atol=1e-5)
    assert rms(scaling(g)) > 0.01


@pytest.mark.parametrize("by", ["mean", "norm", "rms"])
@pytest.mark.parametrize("size", [(1, 1), (1, 7)])
def test_a_picture_of_one_row_is_normalised_too(by: Any, size: tuple[int, int]) -> None:
    assert G.normalise(by)(torch.full((1, 1, *size), -2.0)).lt(0).all()


# Blur


@pytest.mark.parametrize("sigma", [0.3, 0.5, 1.0, 2.5])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 7), (13, 8)])
def test_blur_is_scipys(sigma: float, size: tuple[int, int]) -> None:
    image = noise(2, 3, *size, dtype=torch.float64)
    sigmas, radius = (0, 0, sigma, sigma), math.ceil(3 * sigma)
    expected = nd.gaussian_filter(
        image.numpy(), sigmas, mode="nearest", radius=(0, 0, radius, radius)
    )
    np.testing.assert_allclose(G.blur(image, sigma), expected, rtol=1e-10, atol=1e-12)
    # Cut at 3 sigma, it is near the Gaussian that is cut much farther out.
    wide = nd.gaussian_filter(image.numpy(), sigmas, mode="nearest", truncate=8)
    np.testing.assert_allclose(G.blur(image, sigma), wide, atol=0.02)
    torch.testing.assert_close(G.smooth(sigma)(image), G.blur(image, sigma), rtol=0, atol=0)


def test_blur_leaves_a_constant() -> None:
    torch.testing.assert_close(
        G.blur(torch.full((1, 3, 9, 6), 0.3), 2.0), torch.full((1, 3, 9, 6), 0.3)
    )


def test_a_blur_holds_two_planes_besides_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(G, "AT_A_TIME", 1)
    image = noise(1, 3, 128, 128)
    plane = image[0, 0].nbytes
    assert peak_bytes(lambda: G.blur(image, 1.0)) < 5.3 * plane  # which are padded


def test_no_blur_is_the_image_itself() -> None:
    image = noise(1, 3, 5, 4)
    assert G.blur(image, 0) is image
    # As narrow as it gets: still the image, and no number left behind.
    for sigma in (1e-3, 1e-30, 1e-300):
        torch.testing.assert_close(G.blur(image, sigma), image)


# Laplacian


def cloud(falls: float, side: int = 128) -> Tensor:
    """Noise whose amplitude falls as 1 / frequency to the power of `falls`."""
    spectrum = torch.fft.rfft2(noise(1, 3, side, side)) / frequency(side).clamp_min(1e-9) ** falls
    spectrum[..., 0, 0] = 0
    return torch.fft.irfft2(spectrum)


def frequency(side: int) -> Tensor:
    """Of each entry of rfft2, in cycles per px."""
    return torch.hypot(torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None])


def octave_strengths(g: Tensor) -> list[float]:
    """How strong each octave of frequencies is, from 1/64 to 1/2 cycles per px."""
    f = frequency(g.shape[-1])
    power = torch.fft.rfft2(g).abs().square().mean((0, 1))
    return [
        float(power[(f > low) & (f <= 2 * low)].sum().sqrt())
        for low in 0.5 ** torch.arange(6, 1, -1)
    ]


@pytest.mark.parametrize("by", ["mean", "std", "norm", "rms"])
@pytest.mark.parametrize("size", [1e-16, 1e-14, 1.0, 1e15, 1e19, 1e22, 1e30])
def test_squares_may_leave_float32_but_not_the_result(by: Any, size: float) -> None:
    g = noise(2, 3, 40, 50)
    g[1] *= 1e-3
    expected = G.normalise(by)(g)
    torch.testing.assert_close(G.normalise(by)(g * size), expected, rtol=1e-4, atol=1e-6)
    both = torch.cat([g[:1] * size, g[:1]])  # each picture by itself
    torch.testing.assert_close(G.normalise(by)(both)[1], expected[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [1e-37, 1e-23, 1.0, 1e19, 1e35])
def test_norms_by_float64_are_numbers_wherever_they_fit(size: float) -> None:
    """As CUDA has them; a picture of zeros has none."""
    g = torch.stack([noise(3, 20, 17) * size, torch.zeros(3, 20, 17)])
    expected = g.double().square().sum((1, 2, 3), keepdim=True).sqrt().float()
    assert torch.equal(G._norm_by_float64(g), expected)
    torch.testing.assert_close(G._norm(g), expected, rtol=1e-5, atol=0)


def test_a_huge_gradient_has_its_bands_brought_to_equal_strength() -> None:
    g = noise(1, 3, 40, 50)
    torch.testing.assert_close(G.laplacian(3)(g * 1e22), G.laplacian(3)(g), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("falls", "spread"), [(0, 1.5), (1, 2), (2, 4)])
def test_laplacian_brings_all_frequencies_to_equal_strength(falls: float, spread: float) -> None:
    g = cloud(falls)
    given, brought = octave_strengths(g), octave_strengths(G.laplacian(4)(g))
    assert max(brought) / min(brought) < spread
    # A fall of 1 is equal strengths already; the others differ by 2 from octave to octave.
    assert falls == 1 or max(given) / min(given) > 10
    # Without bands it is one scale for all.
    plain = octave_strengths(G.laplacian(0)(g))
    torch.testing.assert_close(plain, [s / rms(g) for s in given], rtol=1e-3, atol=0)


def test_laplacian_raises_faint_detail_where_it_is() -> None:
    checks = (torch.arange(64)[:, None] + torch.arange(64)) % 2 * 2.0 - 1
    left = torch.arange(64) < 32
    x = torch.linspace(-1, 1, 64)
    out = G.laplacian(3)((x + 0.05 * checks * left).expand(1, 3, 64, 64))[0, 0]
    detail = out - G.blur(out[None, None], 2.0)[0, 0]
    agree = (detail * checks)[4:-4]
    assert agree[:, 4:28].min() > 0.5
    # Further right is the edge of the picture, where the ramp ends.
    assert agree[:, 36:50].abs().max() < 0.1


@pytest.mark.parametrize("size", [(37, 53), (64, 64), (5, 4)])
@pytest.mark.parametrize("value", [0.3, -1e-9, 7e5])
def test_laplacian_finds_no_detail_in_a_constant(size: tuple[int, int], value: float) -> None:
    # Rounding leaves something in each band, which must not be raised to the strength of detail.
    out = G.laplacian(4)(torch.full((1, 3, *size), value))
    expected = torch.full((1, 3, *size), math.copysign(1.0, value))
    torch.testing.assert_close(out, expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 3), (50, 3)])
def test_laplacian_of_what_is_too_small_to_split_is_normalised(size: tuple[int, int]) -> None:
    g = noise(2, 3, *size)
    torch.testing.assert_close(G.laplacian(4)(g), G.normalise("rms")(g))


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (9, 31), (31, 64)])
def test_laplacian_splits_odd_sizes(size: tuple[int, int]) -> None:
    g = noise(1, 3, *size)
    out = G.laplacian(6)(g)
    assert out.shape == g.shape
    assert out.isfinite().all()
    assert torch.nn.functional.cosine_similarity(out.flatten(), g.flatten(), dim=0) > 0.4


# Clip, mask, compose, registry


def test_clip_cuts_both_ways() -> None:
    out = G.clip(1.5)(row(-2, -1.5, 0.2, 1.6))
    assert torch.equal(out, row(-1.5, -1.5, 0.2, 1.5))


def test_mask_weighs_each_place() -> None:
    g = noise(2, 3, 2, 2)
    one = torch.tensor([[0.0, 0.25], [0.5, 1.0]]).view(1, 1, 2, 2)
    expected = g.clone()
    expected[..., 0, 0] = 0
    expected[..., 0, 1] *= 0.25
    expected[..., 1, 0] *= 0.5
    assert torch.equal(G.mask(one)(g), expected)
    # One for each picture, and of any dtype.
    each = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)]).double()
    out = G.mask(each)(g)
    assert out.dtype == g.dtype
    assert torch.equal(out, torch.stack([torch.zeros(3, 2, 2), g[1]]))


def test_compose_goes_from_left_to_right() -> None:
    g = row(4, -1, 0, -3)
    normalised_first = G.compose(G.normalise("mean"), G.clip(1))
    clipped_first = G.compose(G.clip(1), G.normalise("mean"))
    assert torch.equal(normalised_first(g), row(1, -0.5, 0, -1))
    torch.testing.assert_close(clipped_first(g), row(4 / 3, -4 / 3, 0, -4 / 3))
    assert G.compose()(g) is g


def test_every_maker_is_registered_under_its_name() -> None:
    assert set(G.GRADIENTS) == {"normalise", "smooth", "laplacian", "natural", "clip", "none"}
    assert all(G.GRADIENTS[name] is getattr(G, name) for name in G.GRADIENTS)

    @G.gradient
    def flip() -> Callable[[Tensor], Tensor]:
        return lambda g: -g

    try:
        assert G.GRADIENTS["flip"] is flip
        assert torch.equal(flip()(row(1, -2)), row(-1, 2))

        def clip() -> Callable[[Tensor], Tensor]:
            return flip()

        with pytest.raises(SettingsError, match="there is a gradient transform 'clip' already"):
            G.gradient(clip)
        assert G.GRADIENTS["clip"] is G.clip
    finally:
        del G.GRADIENTS["flip"]


# Natural colours


def test_natural_colours_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    covariance = torch.tensor([[4.0, 2, 0], [2, 4, 0], [0, 0, 1]]).double()  # mean diagonal 3
    nature = natural_statistics()._replace(covariance=covariance)
    monkeypatch.setattr(G, "natural_statistics", lambda: nature)
    g = torch.tensor([1.0, 0, 3]).view(1, 3, 1, 1)
    whole, half = (G.natural(share)(g).flatten() for share in (1, 0.5))
    torch.testing.assert_close(whole, torch.tensor([4 / 3, 2 / 3, 1]))
    torch.testing.assert_close(half, torch.tensor([7 / 6, 1 / 3, 2]))
    assert torch.equal(G.natural(0)(g), g)


def test_natural_colours_ascend_and_lose_their_fringes() -> None:
    g = noise(2, 3, 9, 7, dtype=torch.float64)
    for share in (0.25, 0.5, 1):
        mixed = G.natural(share)(g)
        assert float((mixed * g).sum()) > 0  # a metric: never downhill
    # Grey stays grey or nearly, and what no photograph has shrinks beside it.
    grey = torch.ones(1, 3, 1, 1)
    magenta = torch.tensor([1.0, -1, 1]).view(1, 3, 1, 1)
    loud, faint = (float(G.natural(0.5)(v).norm() / v.norm()) for v in (grey, magenta))
    assert loud > 1.5
    assert faint < 0.8


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_of_natural_colours_is_from_0_to_1(share: float) -> None:
    with pytest.raises(SettingsError, match="from 0 to 1"):
        G.natural(share)


# Within a weight


WEIGHTED: dict[str, Callable[..., G.GradientTransform]] = {
    **{by: lambda weight=None, by=by: G.normalise(by, weight=weight) for by in NORMALISATIONS},
    "smooth": lambda weight=None: G.smooth(1.3, weight=weight),
    "laplacian": lambda weight=None: G.laplacian(3, weight=weight),
}


@pytest.fixture(params=WEIGHTED)
def weighted(request: pytest.FixtureRequest) -> Callable[..., G.GradientTransform]:
    return WEIGHTED[request.param]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        # of 4, -2 and half of 100: (4 + 2 + 50) / 2.5
        ("mean", (4 / 22.4, -2 / 22.4, 100 / 22.4, 7 / 22.4)),
        ("rms", [x / math.sqrt((16 + 4 + 5000) / 2.5) for x in (4, -2, 100, 7)]),
        # the same, times the root of the four values that there are
        ("norm", [x / math.sqrt((16 + 4 + 5000) / 2.5) / 2 for x in (4, -2, 100, 7)]),
        # mean (4 - 2 + 50) / 2.5 = 20.8; squares 16.8², 22.8² and half of 79.2²; a sample's 4 / 3
        (
            "std",
            [
                (x - 20.8) / math.sqrt((16.8**2 + 22.8**2 + 79.2**2 / 2) / 2.5 * 4 / 3)
                for x in (4, -2, 100, 7)
            ],
        ),
    ],
)
def test_a_weight_counts_each_px_by_as_much(by: Any, expected: Any) -> None:
    weight = row(1, 1, 0.5, 0)
    out = G.normalise(by, weight=weight)(row(4, -2, 100, 7))
    torch.testing.assert_close(out, row(*expected))


def test_a_gradient_is_smoothed_from_within_its_weight_alone() -> None:
    # SciPy's own blur of the one and of the other.
    g, weight = noise(1, 2, 15, 17, dtype=torch.float64), torch.rand(1, 1, 15, 17).double()
    weight[..., 9:] = 0

    def blurred(x: Tensor) -> np.ndarray:
        return nd.gaussian_filter(x.numpy(), (0, 0, 1.3, 1.3), mode="nearest", radius=4)

    expected = blurred(g * weight) / np.maximum(blurred(weight), 1e-20)
    out = G.smooth(1.3, weight=weight)(g)
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-9, atol=1e-12)
    # Half a constant stays it up to the edge, where a plain blur would fall.
    half = (weight > 0).double()
    torch.testing.assert_close(
        G.smooth(1.3, weight=half)(half.expand(1, 2, -1, -1))[..., :9], half.new_ones(1, 2, 15, 9)
    )
    assert float(G.smooth(1.3)(half)[0, 0, 7, 8]) < 0.7


@pytest.mark.parametrize("size", [(1, 1), (13, 18), (32, 30)])
@pytest.mark.parametrize("value", [1.0, 0.5, 3.0])
def test_a_weight_that_is_the_same_everywhere_is_none(
    weighted: Callable[..., G.GradientTransform], size: tuple[int, int], value: float
) -> None:
    g = noise(2, 3, *size, dtype=torch.float64)
    out = weighted(torch.full((1, 1, *size), value, dtype=torch.float64))(g)
    torch.testing.assert_close(out, weighted()(g), rtol=1e-12, atol=1e-12)


@settings(max_examples=30)
@given(
    edge=st.integers(1, 22), seed=st.integers(0, 99), size=st.tuples(st.integers(9, 30),
    st.just(23)), loud=st.sampled_from([0.0, 1e-6, 1e12]),
)  # fmt: skip
@pytest.mark.parametrize("name", WEIGHTED)
def test_nothing_comes_in_from_where_the_weight_is_0(
    name: str, edge: int, seed: int, size: tuple[int, int], loud: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    g = torch.randn(1, 3, *size, generator=generator)
    weight = torch.rand(1, 1, *size, generator=generator)
    weight[..., edge:] = 0
    other = g.clone()
    other[..., edge:] = loud * torch.randn(1, 3, size[0], size[1] - edge, generator=generator)
    transform = WEIGHTED[name](weight)
    assert torch.equal(transform(other)[..., :edge], transform(g)[..., :edge])


def test_laplacian_goes_on_beyond_the_edge_of_its_weight() -> None:
    # Three strengths of one ripple: each is brought to the same, up to its edge.
    x = torch.arange(64.0)
    ripple = torch.sin(x)[None, :].expand(64, 64)
    left = (x < 30).float().view(1, 1, 1, 64).expand(1, 1, 64, 64)
    strong = torch.where(x < 30, 1.0, 50.0) * ripple
    out = G.laplacian(3, weight=left)(strong.expand(1, 3, 64, 64))[..., :30]
    alone = G.laplacian(3, weight=left)(ripple.expand(1, 3, 64, 64))[..., :30]
    assert torch.equal(out, alone)
    assert 0.5 < rms(out[..., 26:]) / rms(out[..., :26]) < 2


# Several as one


@st.composite
def masks_of(draw: st.DrawFn) -> list[Tensor]:
    seed, count = draw(st.integers(0, 2**16)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        batch = draw(st.sampled_from([1, 2]))
        mask = torch.rand(batch, 1, 3, 5, generator=generator)
        kind = draw(st.sampled_from(["soft", "hard", "grey", "none"]))
        found.append(
            {"soft": mask, "hard": mask.round(), "grey": mask * 0.1, "none": mask * 0}[kind]
        )
    return found


@given(masks=masks_of(), rest=st.booleans())
def test_shares_are_a_partition(masks: list[Tensor], rest: bool) -> None:
    found = G.shares(masks, rest=rest)
    batch = max(map(len, masks))
    assert found.shape == (len(masks) + rest, batch, 1, 3, 5)
    assert found.min() >= 0
    assert found.max() <= 1
    total = found.sum(0)
    if rest:
        torch.testing.assert_close(total, torch.ones_like(total))
    covered = sum(masks, torch.zeros(batch, 1, 3, 5))
    for share, mask in zip(found, masks, strict=False):
        assert bool((share <= mask + 1e-6).all())  # no more than is painted
        assert torch.equal((share > 0).expand(batch, 1, 3, 5), (mask > 0).expand(batch, 1, 3, 5))
        alone = (covered <= 1).expand_as(share)
        assert torch.equal(share[alone], mask.expand_as(share)[alone])
    # Where there is more than enough, all of it is shared out in proportion.
    full = covered > 1
    torch.testing.assert_close(found[: len(masks)].sum(0)[full], torch.ones(int(full.sum())))
    a, b = found[0], found[len(masks) - 1]
    torch.testing.assert_close(a * masks[-1], b * masks[0])


def test_blend_by_hand() -> None:
    weights = torch.stack([row(1, 0.5, 0), row(0, 0.25, 1)])
    twice, halved = (lambda g: 2 * g), (lambda g: g / 2)
    several = torch.stack([row(3, 4, 5), row(6, 8, 10)])
    expected = row(3 * 2, 4 * 2 * 0.5 + 8 / 2 * 0.25, 10 / 2)
    assert torch.equal(G.blend(weights, [twice, halved])(several), expected)
    # What is outside of a weight is not even looked at.
    several[0, ..., 2] = 3e38
    assert torch.equal(G.blend(weights, [G.normalise("rms"), halved])(several)[..., 2:], row(5))


def test_a_weight_of_nothing_gives_nothing() -> None:
    weights = torch.stack([torch.zeros(1, 1, 16, 16), torch.ones(1, 1, 16, 16)])
    chains = [
        G.compose(G.smooth(1, weight=w), G.laplacian(2, weight=w), G.normalise("std", weight=w))
        for w in weights
    ]
    several = 1e15 * noise(2, 1, 3, 16, 16)
    torch.testing.assert_close(G.blend(weights, chains)(several), chains[1](several[1]))


def test_what_is_dead_within_its_weight_is_nothing_however_loud_it_is_elsewhere() -> None:
    left = torch.zeros(1, 1, 16, 16)
    left[..., :8] = 1
    loud = (1 - left).expand(1, 3, 16, 16)
    chain = G.compose(G.laplacian(2, weight=left), G.normalise("rms", weight=left))
    assert torch.equal(G.blend(left[None], [chain])(loud[None]), torch.zeros(1, 3, 16, 16))
