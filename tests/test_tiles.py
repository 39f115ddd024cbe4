"""Exact tiles give the score and the gradient of the whole."""

from __future__ import annotations

import itertools
import logging
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from phosphene import objectives as obj
from phosphene.errors import InputTooSmallError, SettingsError
from phosphene.evaluation import tiles
from phosphene.evaluation.geometry import Axis, ExactTiling
from phosphene.evaluation.reach import InexactError
from phosphene.evaluation.tiles import exact_tiling, tile_by_tile, tiled, verify
from phosphene.evaluation.whole import whole
from phosphene.network import Network
from phosphene.objectives import Objective
from phosphene.zoo.dreamnet import DreamNet
from tests.tiling_networks import (
    NETWORKS,
    OBJECTIVES,
    PADDED,
    assert_alike,
    picture,
    seeded,
    stack,
)


def largest(network: Network, goal: Objective, tile: int, size: tuple[int, int]) -> int:
    return exact_tiling(network, goal).pixels(size, tile)[0]


# Tiles are the whole


@pytest.mark.parametrize("name", OBJECTIVES)
def test_score_and_gradient_are_those_of_the_whole_for_every_sum(name):
    goal = OBJECTIVES[name].bound(PADDED)
    image = picture(61, 83, batch=2)
    expected = whole(PADDED, goal)(image)
    assert float(expected[1].abs().max()) > 0
    for tile in (8, 24, 32):
        if name != "image":
            assert largest(PADDED, goal, tile, (61, 83)) < 61 * 83  # it is really cut
        assert_alike(tiled(PADDED, goal, tile)(image), expected)


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 75), width=st.integers(1, 75), tile=st.integers(1, 90))
def test_any_size_and_any_tile_are_the_whole(name, height, width, tile):
    network, layer = NETWORKS[name]
    goal = obj.layer(layer).bound(network)
    least = network.least_size([layer])
    image = picture(max(height, least), max(width, least), seed=height)
    assert_alike(tiled(network, goal, tile)(image), whole(network, goal)(image))


@pytest.mark.parametrize("size", [(1, 200), (200, 1), (1, 1), (5, 3), (7, 131), (97, 89)])
def test_pictures_one_px_wide_and_smaller_than_the_stride(size):
    network = NETWORKS["narrow"][0]
    goal = (obj.layer("eight") + obj.layer("two") - obj.tv()).bound(network)
    image = picture(*size)
    assert_alike(tiled(network, goal, 16)(image), whole(network, goal)(image))


def test_a_picture_too_small_for_the_network_is_told_as_when_whole():
    with pytest.raises(InputTooSmallError, match=r"at least 2 px a side for eight; .* is 9×1"):
        tiled(PADDED, obj.layer("eight").bound(PADDED), 16)(picture(1, 9))


def test_dreamnet_to_1e_4_in_float32_and_without_a_seam():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(DreamNet(), name="dreamnet", copy=False)
    goal = (obj.layer("mixed4c") + 0.5 * obj.layer("mixed3b")).bound(network)
    tiling = exact_tiling(network, goal)
    # By hand: of 150 px that a position sees, what is not below it, up to whole periods of 8.
    assert [(axis.period, axis.before, axis.after) for axis in tiling.axes] == [(8, 80, 72)] * 2
    image = picture(187, 251, dtype=torch.float32)
    expected = whole(network, goal)(image)
    got = tiled(network, goal, 64)(image)
    assert_alike(got, expected, 1e-4)
    assert seam(got[1], tiling, (187, 251), 64) == pytest.approx(
        seam(expected[1], tiling, (187, 251), 64), rel=1e-3
    )


def seam(gradient: Tensor, tiling: ExactTiling, size: tuple[int, int], tile: int) -> float:
    """The gradient's energy on both sides of the cores' borders, over that elsewhere."""
    at = torch.zeros(size, dtype=torch.bool)
    for ((top, _), _), ((left, _), _) in tiling.boxes(size, tile):
        at[max(top - 1, 0) : top + 1] |= top > 0
        at[:, max(left - 1, 0) : left + 1] |= left > 0
    energy = gradient.square().mean((0, 1))
    return float(energy[at].mean() / energy[~at].mean())


def test_a_halo_that_is_too_narrow_shows_in_the_gradient_and_is_found_out():
    goal = obj.layer("eight").bound(PADDED)
    tiling = exact_tiling(PADDED, goal)
    narrow = ExactTiling(
        tuple(  # pyright: ignore[reportArgumentType]
            Axis(a.period, a.before - a.period, a.after, a.least, a.strides) for a in tiling.axes
        )
    )
    image = picture(64, 64)
    _, expected = whole(PADDED, goal)(image)
    _, got = tile_by_tile(PADDED, goal, narrow, 16)(image)
    assert float((got - expected).norm() / expected.norm()) > 1e-3
    with pytest.raises(InexactError, match=r"differ from the whole by \d"):
        verify(PADDED, goal, narrow)


@given(side=st.integers(1, 300), tile=st.integers(1, 320), layer=st.sampled_from(["two", "eight"]))
@settings(deadline=None)
def test_every_px_has_one_core_and_every_position_one_owner(side, tile, layer):
    axis = exact_tiling(PADDED, (obj.layer("two") + obj.layer("eight")).bound(PADDED)).axes[0]
    cuts = axis.cuts(side, tile)
    cores = [core for core, _ in cuts]
    assert [px for core in cores for px in range(*core)] == list(range(side))
    count = math.ceil(side / int(axis.strides[layer]))
    owned = [p for core in cores for p in range(*axis.owned(layer, core, side, count))]
    assert owned == list(range(count))
    for (begin, end), (first, last) in cuts:
        assert 0 <= first <= begin < end <= last <= side
        assert first % axis.period == 0
        assert (side - last) % axis.period == 0


def test_strides_and_halos_by_hand():
    axis = exact_tiling(PADDED, obj.layer("four").bound(PADDED)).axes[0]
    # conv 6/2 pad 2 sees px 2q-2 … 2q+3; pool 3/2 pad 1 4p-4 … 4p+5; conv 5 4p-12 … 4p+13.
    assert (axis.period, axis.before, axis.after) == (4, 12, 12)
    assert axis.strides["four"] == 4
    axis = exact_tiling(PADDED, obj.tv().bound(PADDED)).axes[0]
    assert (axis.period, axis.before, axis.after) == (1, 0, 1)
    rows, columns = exact_tiling(
        NETWORKS["unpadded"][0], obj.layer("conv").bound(NETWORKS["unpadded"][0])
    ).axes
    # Three rows and 2·4 + 3 columns, all of them at the position and after it.
    assert (rows.before, rows.after) == (0, 2)
    assert (columns.before, columns.after) == (0, 10)


def test_a_tile_that_is_no_multiple_of_the_stride_is_rounded_and_that_is_said(caplog):
    caplog.set_level(logging.INFO, "phosphene")
    tiled(PADDED, obj.layer("eight").bound(PADDED), 20)
    assert "tile: 24 px instead of 20, a multiple of 8" in caplog.text
    with pytest.raises(SettingsError, match="tile: 0 px; a tile has at least 1 px"):
        tiled(PADDED, obj.layer("eight").bound(PADDED), 0)


# What is no sum over positions


class Excited(nn.Module):
    """Squeeze and excite: each position hangs on the mean of all."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.gate = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))


class BatchNormalised(nn.Module):
    """Statistics of what it gets, even in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(self.conv(x), None, None, training=True)


class Attention(nn.Module):
    def __init__(self, fixed: bool = False) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.places = nn.Parameter(torch.randn(1, 144, 8)) if fixed else None

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).mT
        if self.places is not None:
            tokens = tokens + self.places
        return self.attend(tokens, tokens, tokens)[0]


class Gated(nn.Module):
    """No NaN passes a comparison; numbers do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return torch.where(x > 0, x, torch.zeros_like(x)) * 1.0


@pytest.mark.parametrize(
    ("module", "layer", "why"),
    [
        (stack(conv=nn.Conv2d(3, 4, 3), norm=nn.GroupNorm(2, 4)), "norm", "sees the whole"),
        (stack(conv=nn.Conv2d(3, 4, 3), norm=nn.InstanceNorm2d(4)), "norm", "sees the whole"),
        (stack(all=Excited(), end=nn.Identity()), "end", "sees the whole"),
        (stack(all=BatchNormalised(), end=nn.Identity()), "end", "sees the whole"),
        (Attention(), "attend", "no map"),
        (Attention(fixed=True), "attend", "sizes only"),
        (stack(conv=nn.Conv2d(3, 4, 3), pool=nn.AdaptiveAvgPool2d(4)), "pool", "does not grow"),
    ],
)
def test_a_network_that_sees_everything_is_refused(module, layer, why):
    network = seeded(module, "fp32")
    with pytest.raises(InexactError, match=f"{why}.*tile=approximate"):
        tiled(network, obj.layer(layer).bound(network), 16)


@pytest.mark.parametrize(
    ("goal", "why"),
    [
        (obj.style("four", picture(32, 32)), "style.* is no sum"),
        (obj.layer("four") + obj.style("four", picture(32, 32)), "style.* is no sum"),
        (obj.content("four", picture(32, 32)), "content.* compares"),
    ],
)
def test_an_objective_that_is_no_sum_is_refused_by_its_name(goal, why):
    with pytest.raises(InexactError, match=why):
        tiled(PADDED, goal.bound(PADDED), 16)


def test_what_lets_no_nan_pass_is_still_seen():
    network = seeded(stack(gate=Gated(), end=nn.Conv2d(4, 4, 3, padding=1)))
    axis = exact_tiling(network, obj.layer("end").bound(network)).axes[0]
    # Three px, but nobody knows the period of such a network: it is taken to be larger.
    assert (axis.before, axis.after) == (axis.period, axis.period) == (32, 32)


def test_a_density_that_is_none_is_found_out_and_the_answer_is_kept(monkeypatch):
    def density(activations):
        a = activations["four"][:, 0]
        return {"four": a / a.shape[1]}  # hangs on the map's size

    goal = Objective(("four",), lambda a: density(a)["four"].mean((1, 2)), "odd", density=density)
    with pytest.raises(InexactError, match="differ from the whole"):
        tiled(PADDED, goal, 16)
    monkeypatch.setattr(tiles, "verify", lambda *_, **__: pytest.fail("tried again"))
    with pytest.raises(InexactError, match="differ from the whole"):
        tiled(PADDED, goal, 16)


def test_sizes_and_tiles_side_by_side_never_share_a_picture():
    """Evaluators keep nothing of one picture for the next."""
    goal = OBJECTIVES["roots"].bound(PADDED)
    evaluate = tiled(PADDED, goal, 24)
    images = [picture(50, 61), picture(61, 50), picture(50, 61, seed=2)]
    for one, other in itertools.pairwise([*images, *images]):
        assert_alike(evaluate(one), whole(PADDED, goal)(one))
        assert_alike(evaluate(other), whole(PADDED, goal)(other))
