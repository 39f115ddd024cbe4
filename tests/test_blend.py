"""Blended tiles."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from phosphene import objectives as obj
from phosphene.errors import SettingsError
from phosphene.evaluation import blend
from phosphene.evaluation.blend import BlendedTiling, blended
from phosphene.evaluation.whole import whole
from tests.tiling_networks import (
    PADDED,
    assert_alike,
    picture,
)


def test_one_blended_tile_is_the_whole():
    goal = obj.style("four", picture(32, 32, seed=5)).bound(PADDED)
    image = picture(41, 37, batch=2)
    assert_alike(blended(PADDED, goal, 64)(image), whole(PADDED, goal)(image))


def test_blended_tiles_of_a_sum_are_near_the_whole():
    goal = obj.layer("eight").bound(PADDED)
    image = picture(160, 131)
    score, gradient = blended(PADDED, goal, 96)(image)
    expected = whole(PADDED, goal)(image)
    torch.testing.assert_close(score, expected[0], rtol=0.05, atol=0)
    assert float(F.cosine_similarity(gradient.flatten(), expected[1].flatten(), dim=0)) > 0.9
    torch.testing.assert_close(gradient.norm(), expected[1].norm(), rtol=0.1, atol=0)


@given(side=st.integers(1, 200), tile=st.integers(1, 220))
@settings(deadline=None)
def test_blended_tiles_are_of_one_size_cover_all_and_weigh_1(side, tile):
    spans = BlendedTiling(5).spans(side, tile)
    assert len({last - first for first, last in spans}) == 1
    total = torch.zeros(side, dtype=torch.float64)
    for ramp, (first, last) in zip(blend._weights(spans, total), spans, strict=True):
        assert bool((ramp > 0).all())
        total[first:last] += ramp
    torch.testing.assert_close(total, torch.ones_like(total))


def test_what_goes_by_places_cannot_be_blended():
    goal = (obj.layer("four") + obj.content("four", picture(32, 32))).bound(PADDED)
    with pytest.raises(SettingsError, match=r"content.*cannot be seen in tiles"):
        blended(PADDED, goal, 32)
