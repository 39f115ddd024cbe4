from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.ndimage as nd
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from phosphene import image as images
from phosphene import pyramid as P
from phosphene.errors import SettingsError

ROUNDINGS = ("round", "floor", "chain", "chain_floor")
sides = st.integers(1, 3000)
scales = st.floats(1.01, 4)


def noise(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


# Sizes


@pytest.mark.parametrize(
    ("rounding", "expected"),
    [
        # 101 / 1.4 = 72.14, / 1.96 = 51.53; 61 / 1.4 = 43.57, / 1.96 = 31.12
        ("round", [(52, 31), (72, 44), (101, 61)]),
        ("floor", [(51, 31), (72, 43), (101, 61)]),
        # 72 / 1.4 = 51.43; 44 / 1.4 = 31.43
        ("chain", [(51, 31), (72, 44), (101, 61)]),
        # 72 / 1.4 = 51.43; 43 / 1.4 = 30.71
        ("chain_floor", [(51, 30), (72, 43), (101, 61)]),
    ],
)
def test_sizes_by_each_rounding(rounding: P.Rounding, expected: list[P.Size]) -> None:
    assert P.octave_sizes((101, 61), 3, 1.4, rounding=rounding) == expected
    # Height stays height.
    turned = [(width, height) for height, width in expected]
    assert P.octave_sizes((61, 101), 3, 1.4, rounding=rounding) == turned


@pytest.mark.parametrize(
    ("size", "octaves", "scale", "expected"),
    [
        ((480, 640), 1, 1.4, [(480, 640)]),
        ((400, 1000), 3, 2.0, [(100, 250), (200, 500), (400, 1000)]),
        # 3 / 1.4² = 1.53 rounds to 2 as 3 / 1.4 = 2.14 does: the same size is not dreamt twice.
        ((3, 3), 4, 1.4, [(1, 1), (2, 2), (3, 3)]),
        # A long side that still shrinks is another size, though the short one stays.
        ((2, 9), 2, 1.2, [(2, 8), (2, 9)]),
        ((1, 1), 40, 1.4, [(1, 1)]),
        ((1, 100), 40, 3.0, [(1, 100)]),
    ],
)
def test_sizes_of_small_and_narrow_pictures(
    size: P.Size, octaves: int, scale: float, expected: list[P.Size]
) -> None:
    assert P.octave_sizes(size, octaves, scale) == expected


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_an_octave_too_small_for_the_network_is_left_out(rounding: P.Rounding) -> None:
    # 50, 35.7, 25.5 and 18.2 px, however they are rounded (17.9 where each is cut off)
    whole = P.octave_sizes((100, 50), 4, 1.4, rounding=rounding)
    assert len(whole) == 4
    for least, left in ((17, 4), (20, 3), (30, 2), (50, 1), (51, 1), (10_000, 1)):
        sizes = P.octave_sizes((100, 50), 4, 1.4, rounding=rounding, least=least)
        assert sizes == whole[-left:]


@given(sides, sides, st.integers(1, P.MOST_OCTAVES), scales, st.sampled_from(ROUNDINGS), sides)
def test_sizes_ascend_to_the_full_one(
    height: int, width: int, octaves: int, scale: float, rounding: P.Rounding, least: int
) -> None:
    sizes = P.octave_sizes((height, width), octaves, scale, rounding=rounding, least=least)
    assert sizes[-1] == (height, width)
    assert 1 <= len(sizes) <= octaves
    assert len(set(sizes)) == len(sizes)
    for lower, upper in itertools.pairwise(sizes):
        assert lower[0] <= upper[0]
        assert lower[1] <= upper[1]
        assert min(lower) >= least


@given(sides, sides, st.integers(1, 8), scales, st.sampled_from(["round", "floor"]))
def test_sizes_keep_the_proportions(
    height: int, width: int, octaves: int, scale: float, rounding: P.Rounding
) -> None:
    down, up = (0.5, 0.5) if rounding == "round" else (0, 1)
    for h, w in P.octave_sizes((height, width), octaves, scale, rounding=rounding):
        # There is one factor that both sides are the full ones times, to within the rounding.
        least = max((h - down) / height, (w - down) / width)
        most = min((h + up) / height, (w + up) / width)
        assert least <= most + 1e-12


@given(sides, sides, st.floats(1.05, 3))
def test_chained_sizes_are_those_of_repeated_zooming(height: int, width: int, scale: float) -> None:
    # As the notebook of 2015 shrinks: scipy.ndimage.zoom of the octave above.
    sizes = P.octave_sizes((height, width), 5, scale, rounding="chain")[::-1]
    # A size that does not shrink any more is dreamt once.
    for upper, lower in itertools.pairwise(sizes):
        column, line = np.zeros(upper[0]), np.zeros(upper[1])
        zoomed = [nd.zoom(side, 1 / scale, order=0).shape[0] for side in (column, line)]
        assert tuple(zoomed) == lower


@pytest.mark.parametrize("octaves", [0, -1, P.MOST_OCTAVES + 1])
def test_the_number_of_octaves_has_bounds(octaves: int) -> None:
    with pytest.raises(SettingsError, match=rf"octaves: {octaves} is not between 1 and 40"):
        P.octave_sizes((100, 100), octaves, 1.4)


@pytest.mark.parametrize("scale", [1.0, 0.5, -2.0, float("nan")])
def test_octaves_must_grow(scale: float) -> None:
    with pytest.raises(SettingsError, match="not above 1"):
        P.octave_sizes((100, 100), 3, scale)


# How many


def test_a_picture_ten_times_as_large_has_seven_octaves_more() -> None:
    # 1.4^7 = 10.5
    assert P.octave_count((600, 900), known=448, scale=1.4) == 2
    assert P.octave_count((9000, 6000), known=448, scale=1.4) == 9


def test_one_octave_is_the_least_and_forty_the_most() -> None:
    assert P.octave_count((10, 2000), known=448, scale=1.4) == 1
    assert P.octave_count((448, 448), known=448, scale=1.4) == 1
    assert P.octave_count((6000, 9000), known=448, scale=1.01) == P.MOST_OCTAVES


@given(st.integers(1, 20_000), st.integers(0, 5000), st.integers(32, 1000), st.floats(1.1, 3))
def test_the_smallest_octave_is_about_as_large_as_what_is_known(
    side: int, more: int, known: int, scale: float
) -> None:
    count = P.octave_count((side, side + more), known=known, scale=scale)
    assert count == P.octave_count((side + more, side), known=known, scale=scale)
    assert count <= P.octave_count((side + more, side + more), known=known, scale=scale)
    smallest = side / scale ** (count - 1)
    if count > 1:
        assert known / math.sqrt(scale) * 0.999 <= smallest
    if count < P.MOST_OCTAVES:
        assert smallest <= known * math.sqrt(scale) * 1.001


# Between them


@pytest.mark.parametrize(
    ("size", "to"), [((9, 14), (13, 20)), ((20, 13), (14, 9)), ((7, 7), (2, 31)), ((2, 3), (5, 4))]
)
def test_corners_is_scipys_zoom(size: P.Size, to: P.Size) -> None:
    image = noise(1, 3, *size)
    factors = [new / old for new, old in zip(to, size, strict=True)]
    # By default it reads black beyond the last row, which rounding may put a hair outside.
    zoomed = nd.zoom(image.numpy(), (1, 1, *factors), order=1, mode="nearest")
    expected = np.asarray(zoomed)
    got = P.RESAMPLERS["corners"](image, to)
    assert tuple(got.shape) == expected.shape == (1, 3, *to)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_where_each_resampler_puts_the_pixels() -> None:
    image = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    got = {name: resize(image, (1, 4)).flatten() for name, resize in P.RESAMPLERS.items()}
    torch.testing.assert_close(got["corners"], torch.tensor([0, 1 / 3, 2 / 3, 1]))
    torch.testing.assert_close(got["bilinear"], torch.tensor([0, 0.25, 0.75, 1]))
    torch.testing.assert_close(got["nearest"], torch.tensor([0.0, 0, 1, 1]))
    torch.testing.assert_close(got["antialias"], images.resize(image, (1, 4)).flatten())
    assert set(got) == {"antialias", "bilinear", "corners", "nearest"}


@pytest.mark.parametrize("name", P.RESAMPLERS)
def test_a_resampler_leaves_what_has_the_size_already(name: P.Resampling) -> None:
    image = noise(1, 3, 6, 5, dtype=torch.float32)
    assert P.RESAMPLERS[name](image, (6, 5)) is image
    constant = torch.full((2, 3, 9, 7), 0.25, dtype=torch.float32)
    torch.testing.assert_close(
        P.RESAMPLERS[name](constant, (4, 12)), torch.full((2, 3, 4, 12), 0.25)
    )


@pytest.mark.parametrize("name", P.RESAMPLERS)
def test_bases_are_the_photograph_at_each_size(name: P.Resampling) -> None:
    photo = noise(2, 3, 20, 15)
    resize = P.RESAMPLERS[name]
    sizes = [(8, 6), (13, 10), (20, 15)]
    direct = P.bases(photo, sizes, resampling=name)
    chained = P.bases(photo, sizes, resampling=name, chain=True)
    for bases in (direct, chained):
        assert [tuple(base.shape[-2:]) for base in bases] == sizes
        assert bases[-1] is photo
        assert torch.equal(bases[1], resize(photo, (13, 10)).clamp(0, 1))
    assert torch.equal(direct[0], resize(photo, (8, 6)).clamp(0, 1))
    assert torch.equal(chained[0], resize(chained[1], (8, 6)).clamp(0, 1))
    assert not torch.allclose(direct[0], chained[0], atol=1e-3)
    assert P.bases(photo, [(20, 15)])[0] is photo


def test_bases_stay_in_range_where_bicubic_overshoots() -> None:
    photo = torch.zeros(1, 3, 24, 24)
    photo[..., 12:] = 1
    shrunk = images.resize(photo, (17, 17))
    assert shrunk.min() < -0.01
    assert shrunk.max() > 1.01
    (base, _) = P.bases(photo, [(17, 17), (24, 24)])
    assert torch.equal(base, shrunk.clamp(0, 1))


@given(sides, sides, st.integers(1, 5), scales)
def test_chained_nearest_octaves_are_those_of_interpolate(
    height: int, width: int, octaves: int, scale: float
) -> None:
    sizes = P.octave_sizes((height, width), octaves, scale, rounding="chain_floor")
    photo = noise(1, 1, height, width, dtype=torch.float32)
    got = P.bases(photo, sizes, resampling="nearest", chain=True, scale=scale)
    expected = [photo]
    for _ in sizes[1:]:
        expected.append(F.interpolate(expected[-1], scale_factor=1 / scale))
    for ours, theirs in zip(got, reversed(expected), strict=True):
        assert torch.equal(ours, theirs)
