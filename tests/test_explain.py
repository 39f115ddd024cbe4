"""Sheets of channels and cards of units."""

# pyright: reportArgumentType=false
# since wrong arguments are tried on purpose
from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from phosphene import image as images
from phosphene.cli import main
from phosphene.errors import (
    ImageError,
    NetworkError,
    ObjectiveError,
    SettingsError,
    UnknownLayerError,
)
from phosphene.explain import cells as cells_module
from phosphene.explain import pages
from phosphene.explain.card_page import _ticks
from phosphene.explain.cells import Cell, render_cells, resolve_settings
from phosphene.explain.layers import layer_of
from phosphene.explain.layout import check_page, page, save_page, svg
from phosphene.explain.responses import (
    Response,
    Skipped,
    find_pictures,
    mean_responses,
    receptive_box,
    respond,
)
from phosphene.explain.sheet_page import sheet_page
from phosphene.explain.sheets import Sheet
from phosphene.explain.units import find_unit
from phosphene.network import Network
from phosphene.recipes.sheet import SheetSettings, parse_channels, sheet
from phosphene.recipes.unit import unit_card
from phosphene.recipes.visualize import visualize
from phosphene.zoo import load_network
from tests import toy_network
from tests.on import DEVICE

LEVEL = 1 / 255
TINY: dict[str, Any] = {"size": 24, "steps": 4, "device": DEVICE, "precision": "fp32"}
EXACT = TINY | {"precision": "fp64"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("PHOSPHENE_CACHE", str(folder))
    return folder


def cached_cells(folder: Path) -> list[Path]:
    return sorted((folder / "cells").rglob("*.png"))


# A network of which everything is known -----------------------------------------------------------


def colours() -> Network:
    """`blocks`: of each 4 × 4 px the mean red, minus blue, and a channel that is always 0."""
    conv = nn.Conv2d(3, 3, 4, stride=4)
    with torch.no_grad():
        conv.weight.zero_()
        assert conv.bias is not None
        conv.bias.zero_()
        conv.weight[0, 0] = 1 / 16
        conv.weight[1, 2] = -1 / 16
    return Network(
        nn.Sequential(OrderedDict(blocks=conv, relu=nn.ReLU())), input_size=16, name="colours"
    )


def blocks(
    path: Path, reds: dict[tuple[int, int], float], size: tuple[int, int] = (16, 16)
) -> Path:
    """A black picture, H × W px, with red blocks of 4 × 4 px at places (y, x) of the map."""
    pixels = np.zeros((*size, 3), np.uint8)
    for (y, x), red in reds.items():
        pixels[4 * y : 4 * y + 4, 4 * x : 4 * x + 4, 0] = round(255 * red)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures whose order by the mean is b, c/a, e, d and by the peak c/a, b, e, d."""
    root = tmp_path / "pictures"
    blocks(root / "b.png", {(0, 0): 0.6, (1, 1): 0.4, (3, 0): 0.4})
    blocks(root / "c" / "a.png", {(2, 3): 1.0})
    blocks(root / "d.png", {})
    blocks(root / "e.png", {(1, 4): 0.8}, size=(16, 32))
    (root / "damaged.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (root / "notes.txt").write_text("no picture")
    blocks(root / ".hidden.png", {(0, 0): 1.0})
    return root


# Photographs --------------------------------------------------------------------------------------


def test_the_pictures_of_a_folder(folder: Path) -> None:
    found = [path.relative_to(folder).as_posix() for path in find_pictures(folder)]
    assert found == ["b.png", "c/a.png", "d.png", "damaged.jpg", "e.png"]


def test_what_a_photograph_does_to_a_unit_and_where(folder: Path) -> None:
    found = list(respond(colours(), "blocks", 0, find_pictures(folder), root=folder))
    assert [type(f) for f in found].count(Skipped) == 1
    responses = {r.name: r for r in found if isinstance(r, Response)}
    a = responses["c/a.png"]
    assert a.mean == pytest.approx(1 / 16)
    assert a.peak == pytest.approx(1.0)
    assert (a.position, a.box, a.view_size) == ((2, 3), (12, 8, 16, 12), (16, 16))
    assert a.centre == (14.0, 10.0)
    # A wide picture keeps its shape: its map is 4 × 8.
    e = responses["e.png"]
    assert e.mean == pytest.approx(round(255 * 0.8) / 255 / 32)
    assert (e.position, e.box, e.view_size) == ((1, 4), (16, 4, 20, 8), (16, 32))
    # Where all positions answer alike there is no strongest one.
    assert (responses["d.png"].position, responses["d.png"].box) == (None, None)


def test_photographs_are_shown_at_the_size_that_the_network_knows(tmp_path: Path) -> None:
    large = blocks(tmp_path / "large.png", {(0, 1): 1.0}, size=(8, 12))
    Image.open(large).resize((48, 32), Image.Resampling.NEAREST).save(large)
    (shown,) = respond(colours(), "blocks", 0, [large])
    assert isinstance(shown, Response)
    assert shown.view_size == (16, 24)
    (larger,) = respond(colours(), "blocks", 0, [large], size=32)
    assert isinstance(larger, Response)
    assert larger.view_size == (32, 48)


@hypothesis.settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2)), min_size=1, max_size=3
    ),
    st.integers(0, 6),
    st.integers(0, 6),
)
def test_a_box_is_what_the_gradient_reaches(
    windows: list[tuple[int, int, int]], y: int, x: int
) -> None:
    layers = nn.Sequential()
    for i, (kernel, stride, padding) in enumerate(windows):
        conv = nn.Conv2d(3 if i == 0 else 2, 2, kernel, stride, min(padding, kernel // 2))
        nn.init.uniform_(conv.weight, 0.1, 1)  # so that no path cancels another
        layers.add_module(f"conv{i}", conv)
    net = Network(layers, input_size=60)
    name = f"conv{len(windows) - 1}"
    image = torch.rand(1, 3, 56, 60, requires_grad=True)
    map_ = net.activations(image, [name])[name]
    y, x = min(y, map_.shape[2] - 1), min(x, map_.shape[3] - 1)
    (gradient,) = torch.autograd.grad(map_[0, 0, y, x], image)
    rows, columns = (gradient[0].abs().sum((0, axis)).nonzero().flatten() for axis in (2, 1))
    expected = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    assert receptive_box(net, name, (56, 60), (y, x)) == expected


def test_a_box_through_relu_and_pooling_is_the_field(toy: Network) -> None:
    layer = toy.layers["third"]
    assert (layer.stride, layer.receptive_field) == (2, 9)
    left, top, right, bottom = receptive_box(toy, "third", (40, 40), (9, 11))
    assert (right - left, bottom - top) == (9, 9)
    assert (left, top) == (11 * 2 - 4, 9 * 2 - 4)
    assert receptive_box(toy, "third", (40, 40), (0, 0)) == (0, 0, 5, 5)  # ends at the edge


class Patches(nn.Module):
    """A transformer's outside: 16 × 16 px alone, a class token and 4 × 4 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 6, 4, stride=4)
        self.places = nn.Parameter(torch.zeros(1, 17, 6))
        self.block = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).mT
        tokens = torch.cat([self.places[:, :1].expand(len(x), -1, -1), tokens], 1) + self.places
        return self.head(self.block(tokens).mean(1))


def tokens() -> Network:
    module = Patches()
    generator = torch.Generator().manual_seed(0)
    for p in module.parameters():
        p.data.normal_(0, 0.3, generator=generator)
    return Network(module, input_size=16, classes=("a", "b", "c"), name="patches")


def test_a_real_transformer_is_drawn_and_shown_pictures(tmp_path: Path) -> None:
    """timm's smallest ViT, with weights of chance: 14 × 14 tokens and one of the class."""
    pytest.importorskip("timm")
    net = load_network("timm:vit_tiny_patch16_224:random")
    assert net.layers["blocks.1"].shape == (197, 192)
    photo = blocks(tmp_path / "photo.png", {(1, 3): 1.0}, size=(48, 96))
    with pytest.warns(UserWarning, match="takes pictures of 224×224 px alone"):
        card = unit_card(
            net, "blocks.1:5", pictures=tmp_path, steps=1, seeds=1, size=64, keep=False
        )
    assert [d.image.shape for d in card.visualizations] == [(3, 64, 64)] * 2
    (shown,) = card.responses
    assert (shown.path, shown.view_size) == (photo, (224, 224))
    y, x = shown.position or (-1, -1)
    assert 0 <= y < 14
    assert 0 <= x < 14
    with pytest.warns(UserWarning, match="224×224 px alone"):
        found = sheet(net, "blocks.1", [0, 191], steps=1, size=64, keep=False)
    assert found.cells.shape == (2, 3, 64, 64)
    assert float(found.cells.std()) > 0.01


def test_tokens_have_places_too(tmp_path: Path) -> None:
    net = tokens()
    assert receptive_box(net, "block", (16, 16), (1, 2)) == (8, 4, 12, 8)
    # Everything reaches the class scores.
    assert receptive_box(net, "head", (16, 16), (0, 0)) == (0, 0, 16, 16)
    wide = blocks(tmp_path / "wide.png", {(1, 3): 1.0}, size=(16, 32))
    (shown,) = respond(net, "block", 2, [wide])
    assert isinstance(shown, Response)
    assert shown.view_size == (16, 16)  # the one size that it takes
    assert shown.position is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drawn = sheet(net, "block", **TINY | {"size": 16})
    assert drawn.cells.shape == (6, 3, 16, 16)
    assert "tokens" in drawn.about


# Cells --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fourier", "pixels"])
def test_a_cell_is_what_it_is_alone(kind: str, toy: Network) -> None:
    s = EXACT | {"parameterization": kind, "seed": 5}
    together = sheet(toy, "third", batch=8, keep=False, **s)
    pairs = sheet(toy, "third", [6, 1], batch=2, keep=False, **s)
    torch.testing.assert_close(pairs.cells, together.cells[[6, 1]], atol=LEVEL, rtol=0)
    singly = sheet(toy, "third", [2, 5, 6], batch=1, keep=False, **s)
    torch.testing.assert_close(singly.cells, together.cells[[2, 5, 6]], atol=LEVEL, rtol=0)
    settings = resolve_settings(toy, layer_of(toy, "third"), SheetSettings(**s))
    given = s | {"transforms": settings.transforms, "learning_rate": settings.learning_rate}
    for channel in (0, 6):
        alone = visualize(toy, f"third:{channel}", **given)[0]
        torch.testing.assert_close(together.cells[channel], alone, atol=LEVEL, rtol=0)
    assert not torch.equal(together.cells[0], together.cells[6])


def test_cells_are_whole_levels_and_tell_the_response(toy: Network) -> None:
    drawn = sheet(toy, "third", [3], **TINY)
    torch.testing.assert_close(drawn.cells * 255, (drawn.cells * 255).round(), atol=1e-4, rtol=0)
    answer = toy.activations(drawn.cells, ["third"])["third"][0, 3].mean()
    assert drawn.responses == (pytest.approx(float(answer), abs=1e-5),)


def test_a_second_look_draws_nothing(
    toy: Network, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sheet(toy, "third", "0-3", **TINY)
    assert len(cached_cells(cache)) == 4
    drawn: list[int] = []
    steps = cells_module.ascend_objectives

    def counted(network: Network, goals: list[Any], settings: Any) -> Iterator[Any]:
        drawn.append(len(goals))
        return steps(network, goals, settings)

    monkeypatch.setattr(cells_module, "ascend_objectives", counted)
    again = sheet(toy, "third", [3, 2, 1, 0], **TINY)
    assert not drawn
    assert torch.equal(first.cells.flip(0), again.cells)
    assert first.responses == again.responses[::-1]
    sheet(toy, "third", "2-6", batch=2, **TINY)
    assert drawn == [2, 1]  # 4 and 5, then 6
    # What a page looks like does not change a cell, nor does how many are drawn at once.
    sheet(toy, "third", "0-3", columns=2, cell=50, **TINY)
    assert drawn == [2, 1]


@pytest.mark.parametrize(
    "other",
    [{"steps": 5}, {"seed": 1}, {"size": 25}, {"decorrelate": False}, {"transforms": "none"}],
)
def test_other_settings_are_other_cells(other: dict[str, Any], toy: Network, cache: Path) -> None:
    sheet(toy, "third", [0], **TINY)
    sheet(toy, "third", [0], **TINY | other)
    assert len(cached_cells(cache)) == 2


def test_another_network_is_another_cell(cache: Path) -> None:
    sheet(toy_network.net(), "second", [0], **TINY)
    weights, order, means = (toy_network.net() for _ in range(3))
    with torch.no_grad():
        next(weights.module.parameters())[0, 0, 0, 0] += 1e-3
    # The same weights, computing something else.
    order.module.second[1] = nn.Tanh()  # pyright: ignore[reportAttributeAccessIssue, reportIndexIssue]
    means = Network(means.module, mean=(0.4, 0.5, 0.5), input_size=means.input_size)
    for count, net in enumerate((weights, order, means), 2):
        net.name = "toy"
        sheet(net, "second", [0], **TINY)
        assert len(cached_cells(cache)) == count
    # A network that is the same has the same cell, whatever it is called.
    sheet(toy_network.net(), "second", [0], **TINY)
    assert len(cached_cells(cache)) == 4


def damaged(path: Path, damage: str) -> None:
    data = path.read_bytes()
    if damage == "cut off":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "other pixels":
        images.save_image(torch.rand(3, 24, 24), path, recipe=images.read_recipe(path))
    elif damage == "no note":
        images.save_image(images.load_image(path), path)
    else:  # another cell under this one's name
        path.write_bytes(next(p for p in path.parent.iterdir() if p != path).read_bytes())


@pytest.mark.parametrize("damage", ["cut off", "empty", "other pixels", "no note", "another"])
def test_a_damaged_cell_is_drawn_again(damage: str, toy: Network, cache: Path) -> None:
    first = sheet(toy, "third", [0, 1], **EXACT)
    damaged(cached_cells(cache)[0], damage)
    step = list(sheet.steps(toy, "third", [0, 1], **EXACT))[-1]
    assert step.cached == 1
    torch.testing.assert_close(step.sheet().cells, first.cells, atol=LEVEL, rtol=0)
    assert list(sheet.steps(toy, "third", [0, 1], **EXACT))[-1].cached == 2


def test_without_a_cache_it_draws_all_the_same(
    toy: Network, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uncached = sheet(toy, "third", [0, 1, 2], keep=False, **TINY)
    assert not cache.exists()
    cache.write_text("a file in the way")
    with pytest.warns(UserWarning, match="not kept") as caught:
        drawn = sheet(toy, "third", [0, 1, 2], batch=1, **TINY)
    assert len(caught) == 1
    torch.testing.assert_close(drawn.cells, uncached.cells, atol=2 * LEVEL, rtol=0)


def test_what_a_killed_process_left_is_swept_up(toy: Network, cache: Path) -> None:
    sheet(toy, "third", [0], **TINY)
    old, new = (cached_cells(cache)[0].with_name(f".phosphene-{n}.tmp") for n in "ab")
    for stray in (old, new):
        stray.write_bytes(b"half a cell")
    os.utime(old, (time.time() - 1e5,) * 2)
    sheet(toy, "third", [1], **TINY)
    assert not old.exists()
    assert new.exists()  # somebody may be writing it


def test_live_steps(toy: Network) -> None:
    steps = list(sheet.steps(toy, "third", [0, 1, 2], batch=2, **TINY))
    assert [(s.index, len(s.batch), len(s.rendered)) for s in steps] == [
        (0, 2, 0), (1, 2, 0), (2, 2, 0), (3, 2, 2), (0, 1, 2), (1, 1, 2), (2, 1, 2), (3, 1, 3),
    ]  # fmt: skip
    shares = [s.share for s in steps]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert shares[0] == pytest.approx(2 / 4 / 3)
    assert [s.last for s in steps] == [False] * 7 + [True]
    assert [s.milestone for s in steps] == [False, False, False, True] * 2
    assert steps[1].text == "0/3 cells  step 2/4 of 2 at once"
    assert steps[4].text == "2/3 cells  step 1/4 of 1 at once"
    assert steps[-1].text == "3/3 cells"
    with pytest.raises(NetworkError, match="no cell"):
        steps[0].sheet()
    assert steps[3].sheet().channels == (0, 1)
    assert torch.equal(steps[3].sheet().cells, steps[-1].sheet().cells[:2])


def test_stopping_keeps_what_is_done(toy: Network, cache: Path) -> None:
    for step in sheet.steps(toy, "third", batch=2, **TINY):
        if len(step.rendered) == 4:
            break
    assert len(cached_cells(cache)) == 4


def test_large_pictures_are_drawn_fewer_at_once(toy: Network) -> None:
    batch_size = cells_module._batch_size
    assert batch_size(toy, SheetSettings.model_validate({"size": 128})) == 16
    assert batch_size(toy, SheetSettings.model_validate({"size": 128, "batch": 3})) == 3
    assert batch_size(toy, SheetSettings.model_validate({"size": 320})) == 4
    assert batch_size(toy, SheetSettings.model_validate({"size": 320, "aspect": 2})) == 8
    assert batch_size(toy, SheetSettings.model_validate({"size": 4096})) == 1


def test_dead_units_are_named_and_not_drawn(toy: Network, cache: Path) -> None:
    with torch.no_grad():
        toy.module.second.weight[3] = 0  # pyright: ignore[reportAttributeAccessIssue, reportIndexIssue]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a sheet says it itself, once
        drawn = sheet(toy, "relu2", [2, 3, 5], **TINY)
        again = sheet(toy, "relu2", [2, 3, 5], **TINY)
    assert drawn.dead == again.dead == (False, True, False)
    assert torch.all(drawn.cells[1] == drawn.cells[1, 0, 0, 0])
    laid = sheet_page(drawn)
    assert sum(isinstance(item, pages.ImageItem) for item in laid.items) == 2
    assert [i.text for i in laid.items if isinstance(i, pages.Text)].count("dead") == 1
    assert "1 of 3 dead" in svg(drawn)


def test_no_hook_is_left(toy: Network) -> None:
    sheet(toy, "third", [0, 1], **TINY)
    assert not any(m._forward_hooks for m in toy.module.modules())


# Sheets -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "channels"),
    [("3", [3]), ("0-3,7", [0, 1, 2, 3, 7]), (" 5 , 2-2", [5, 2]), ("0-2,1", [0, 1, 2, 1])],
)
def test_channels_in_words(text: str, channels: list[int]) -> None:
    assert parse_channels(text) == channels


@pytest.mark.parametrize("text", ["", "a", "3-", "-3", "5-2", "1;2", "0-9999999", "1.5"])
def test_channels_that_make_no_sense(text: str) -> None:
    with pytest.raises(SettingsError, match="channels"):
        parse_channels(text)


def test_each_channel_once(toy: Network) -> None:
    assert sheet(toy, "third", [4, 1, 4], **TINY).channels == (4, 1)
    assert sheet(toy, "third", **TINY).channels == tuple(range(8))


def test_what_a_photograph_excites() -> None:
    # One position; channel c answers with c if c is even, with −c if it is odd.
    conv = nn.Conv2d(3, 9, 1)
    with torch.no_grad():
        conv.weight.zero_()
        values = torch.tensor([0.0, -1, 2, -3, 4, -5, 6, -7, 0])
        conv.weight[:, 1, 0, 0] = values
        assert conv.bias is not None
        conv.bias.zero_()
    net = Network(nn.Sequential(OrderedDict(conv=conv)), input_size=16)
    photo = torch.full((1, 3, 20, 30), 0.5)
    torch.testing.assert_close(mean_responses(net, "conv", photo), values / 2)
    drawn = sheet(net, "conv", photo=photo, top=2, **TINY)
    # In order: 6 4 2 | 0 8 −1 | −3 −5 −7.
    groups = {group.name: group.channels for group in drawn.groups}
    assert groups == {"strong": (6, 4), "average": (0, 8), "weak": (5, 7)}
    assert drawn.channels == (6, 4, 0, 8, 5, 7)
    assert drawn.strengths == (3, 2, 0, 0, -2.5, -3.5)
    words = [item.text for item in sheet_page(drawn).items if isinstance(item, pages.Text)]
    assert {"strong", "average", "weak", "-2.5"} <= set(words)
    pictures = [item for item in sheet_page(drawn).items if isinstance(item, pages.ImageItem)]
    assert len(pictures) == 5  # the photograph, and no dead channel: 0 and 8
    assert drawn.data()["groups"]["weak"] == [5, 7]


def test_a_class_is_called_by_its_name() -> None:
    net = toy_network.net()
    drawn = sheet(net, "logits", **TINY)
    assert drawn.labels == ("0 cat", "1 dog", "2 tabby cat")
    assert drawn.layer == "logits"
    assert sheet(net, "second", [2], **TINY).labels == ("2",)


def test_layers_that_see_little_are_drawn_small_and_moved_gently() -> None:
    wide = nn.Sequential(OrderedDict(a=nn.Conv2d(3, 4, 5), b=nn.Conv2d(4, 4, 41)))
    net = Network(wide, input_size=64)
    small = resolve_settings(net, layer_of(net, "a"), SheetSettings.model_validate({}))
    assert (small.size, small.transforms, small.learning_rate) == (64, "gentle", 0.1)
    large = resolve_settings(net, layer_of(net, "b"), SheetSettings.model_validate({}))
    assert (large.size, large.transforms, large.learning_rate) == (90, "gentle", 0.1)
    given = SheetSettings.model_validate(
        {"size": 100, "transforms": "robust", "learning_rate": 0.3}
    )
    assert resolve_settings(net, layer_of(net, "a"), given) == given
    deep = Network(nn.Sequential(OrderedDict(b=nn.Conv2d(3, 4, 64))), input_size=64)
    whole = resolve_settings(deep, layer_of(deep, "b"), SheetSettings.model_validate({}))
    assert (whole.size, whole.transforms, whole.learning_rate) == ("auto", "auto", 0.1)
    maco = resolve_settings(
        net, layer_of(net, "a"), SheetSettings.model_validate({"parameterization": "maco"})
    )
    assert (maco.transforms, maco.learning_rate) == ("auto", "auto")


# Pages --------------------------------------------------------------------------------------------


def test_a_page_in_pixels() -> None:
    red, blue = torch.zeros(3, 8, 8), torch.zeros(3, 4, 4)
    red[0], blue[2] = 1, 1
    laid = pages.Page(
        40, 30, (pages.ImageItem(2, 3, 8, 8, red), pages.ImageItem(20, 10, 8, 8, blue),
                 pages.rectangle(12, 3, 6, 5, fill="#00ff00")),
    )  # fmt: skip
    drawn = np.asarray(pages.as_image(laid))
    assert drawn.shape == (30, 40, 3)
    assert (drawn[3:11, 2:10] == (255, 0, 0)).all()
    assert (drawn[10:18, 20:28] == (0, 0, 255)).all()
    assert (drawn[4:7, 13:17] == (0, 255, 0)).all()
    outside = np.ones((30, 40), bool)
    for rows, columns in ((slice(3, 11), slice(2, 10)), (slice(10, 18), slice(20, 28)),
                          (slice(2, 9), slice(11, 19))):  # fmt: skip
        outside[rows, columns] = False
    assert (drawn[outside] == 255).all()
    twice = np.asarray(pages.as_image(laid, 2))
    assert twice.shape == (60, 80, 3)
    assert (twice[6:22, 4:20] == (255, 0, 0)).all()
    tensor = pages.as_tensor(laid)
    assert torch.equal(tensor[0], torch.from_numpy(drawn.copy()).permute(2, 0, 1) / 255)


def test_a_line_in_pixels_is_smooth_and_where_it_is_said() -> None:
    laid = pages.Page(20, 20, (pages.Lines(((2, 10), (18, 10)), "#000000", 2),))
    dark = 255 - np.asarray(pages.as_image(laid).convert("L")).astype(int)
    assert dark[9:11, 4:16].min() > 200  # from 9 to 11, as wide as it is
    assert dark[:8].max() == dark[12:].max() == 0


def test_words() -> None:
    assert pages.legible(
        "mixed4c · 42 × 7 – Blåbær, naïve  日"
    ) == "mixed4c · 42 x 7 - Blabær, naive ?".replace("æ", "?")
    assert pages.text_width("wide") > pages.text_width("i") > 0
    assert pages.truncate_text("short", 100) == "short"
    cut = pages.truncate_text("a-very-long-name-of-a-photograph-0042.jpg", 80)
    assert "…" in cut
    assert cut.startswith("a-")
    assert cut.endswith("g")
    assert pages.text_width(cut) <= 80
    assert pages.truncate_text("anything", 1) == "…"


def test_a_page_as_svg_holds_everything() -> None:
    image = torch.rand(3, 6, 9)
    laid = pages.Page(
        50, 40, (pages.ImageItem(1, 2, 18, 12, image), pages.Text(5, 30, 'a <b> & "ü" 日\x00', 12),
                 pages.Ring(20, 20, 3), pages.rectangle(1, 1, 5, 5, colour="#123456")), "a & b"
    )  # fmt: skip
    text = pages.as_svg(laid)
    root = ElementTree.fromstring(text)
    names = [element.tag.split("}")[1] for element in root]
    assert names == ["title", "style", "rect", "image", "text", "circle", "polyline"]
    found = dict(zip(names, root, strict=True))
    assert found["title"].text == "a & b"
    assert found["text"].text == 'a <b> & "ü" 日?'
    data = base64.b64decode(found["image"].attrib["href"].split(",")[1])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), images.to_uint8(image))
    # Nothing is fetched from anywhere.
    assert not re.search(r"(href|src)=.?https?:", text)


def test_a_page_that_is_too_large(toy: Network) -> None:
    drawn = sheet(toy, "third", cell=4096, columns=8, **TINY)
    assert page(sheet(toy, "third", [0], **TINY)).width < 600
    with pytest.raises(ImageError, match="megapixels"):
        pages.as_image(sheet_page(drawn), 10)


def test_round_numbers() -> None:
    assert _ticks(0, 1) == [0, 0.25, 0.5, 0.75, 1.0]
    assert _ticks(0, 0.6) == pytest.approx([0, 0.2, 0.4, 0.6])
    assert _ticks(-3, 7) == pytest.approx([-2.5, 0, 2.5, 5])
    assert _ticks(0, 1e-7) == pytest.approx([0, 2.5e-8, 5e-8, 7.5e-8, 1e-7])


def test_a_sheet_laid_out(toy: Network) -> None:
    drawn = sheet(toy, "third", columns=3, cell=48, **TINY)
    found = [item for item in sheet_page(drawn).items if isinstance(item, pages.ImageItem)]
    assert len(found) == 8
    assert len({item.x for item in found}) == 3
    assert len({item.y for item in found}) == 3
    assert {(item.width, item.height) for item in found} == {(48, 48)}
    labels = [i for i in sheet_page(drawn).items if isinstance(i, pages.Text)]
    for channel, cell in enumerate(found):
        (label,) = (i for i in labels if i.text == str(channel))
        assert label.x == cell.x
        assert cell.y + cell.height < label.y < cell.y + cell.height + 20
    # Px by px, but for the outermost.
    pixels = np.asarray(page(sheet(toy, "third", [5], cell=22, **TINY)))
    assert any(
        np.array_equal(pixels[y : y + 22, 24:46], images.to_uint8(drawn.cells[5, :, 1:-1, 1:-1]))
        for y in range(pixels.shape[0] - 22)
    )


# Units --------------------------------------------------------------------------------------------


def test_a_card(folder: Path, cache: Path) -> None:
    net = colours()
    card = unit_card(net, "blocks:0", pictures=folder, shown=2, **TINY)
    assert [(d.seed, d.negative) for d in card.visualizations] == [
        (0, False), (1, False), (2, False), (0, True),
    ]  # fmt: skip
    ordered = [r.name for r in card.responses]
    assert ordered == ["b.png", "c/a.png", "e.png", "d.png"]
    assert [r.name for r in card.most] == ordered[:2]
    assert [r.name for r in card.least] == ordered[2:]
    assert [s.path.name for s in card.skipped] == ["damaged.jpg"]
    assert card.visualizations[0].response > card.visualizations[3].response
    # A drawing is the cell of a sheet.
    assert torch.equal(card.visualizations[0].image, sheet(net, "blocks", [0], **TINY).cells[0])
    assert len(cached_cells(cache)) == 4
    peak = unit_card(net, ("blocks", 0), pictures=folder, rank="peak", shown=3, **TINY)
    assert [r.name for r in peak.responses] == ["c/a.png", "e.png", "b.png", "d.png"]
    assert [r.name for r in peak.least] == ["d.png"]  # none twice


def test_live_steps_of_a_card(folder: Path) -> None:
    steps = list(unit_card.steps(colours(), "blocks:0", pictures=folder, seeds=1, **TINY))
    texts = [step.text for step in steps]
    assert texts == ["looking at pictures"] * 5 + ["drawing"] * 4 + ["drawn"]
    assert [step.milestone for step in steps] == [False] * 9 + [True]
    assert [step.skipped is not None for step in steps].count(True) == 1
    shares = [step.share for step in steps]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_the_seeds_of_a_card_are_those_of_visualize(toy: Network) -> None:
    card = unit_card(toy, "third:2", seeds=2, **EXACT | {"seed": 7})
    s = resolve_settings(toy, layer_of(toy, "third"), SheetSettings.model_validate({}))
    given = EXACT | {"learning_rate": s.learning_rate, "transforms": s.transforms}
    for drawn, (goal, seed) in zip(
        card.visualizations, [("third:2", 7), ("third:2", 8), ("-third:2", 7)], strict=True
    ):
        alone = visualize(toy, goal, **given | {"seed": seed})[0]
        torch.testing.assert_close(drawn.image, alone, atol=LEVEL, rtol=0)


def test_equal_pictures_stand_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        blocks(tmp_path / "same" / f"{name}.png", {(1, 1): 0.5})
    card = unit_card(colours(), "blocks:0", pictures=tmp_path / "same", **TINY)
    assert [r.name for r in card.responses] == ["a.png", "b.png", "c.png"]


def test_a_card_as_data(folder: Path) -> None:
    card = unit_card(colours(), "blocks:0", pictures=folder, seeds=1, **TINY)
    data = json.loads(json.dumps(card.data(), allow_nan=False))
    assert data["unit"] == "blocks:0"
    assert data["network"]["name"] == "colours"
    assert len(data["drawn"]) == 2
    by_name = {row["file"]: row for row in data["pictures"]}
    assert by_name["c/a.png"]["box"] == {"left": 12, "top": 8, "right": 16, "bottom": 12}
    assert by_name["c/a.png"]["position"] == {"y": 2, "x": 3}
    assert by_name["c/a.png"]["centre"] == {"x": 14.0, "y": 10.0}
    assert by_name["d.png"]["box"] is None
    assert [Path(row["file"]).name for row in data["skipped"]] == ["damaged.jpg"]


def test_a_card_laid_out(folder: Path) -> None:
    card = unit_card(colours(), "blocks:0", pictures=folder, shown=2, **TINY)
    text = svg(card)
    root = ElementTree.fromstring(text)
    tags = [element.tag.split("}")[1] for element in root]
    assert tags.count("image") == 4 + 4
    # Two rings for each photograph with a strongest position, of which there are three.
    assert tags.count("circle") == 2 * 3
    words = [element.text for element in root if element.tag.endswith("text")]
    assert "colours · blocks:0" in words
    assert {"seed 0", "seed 2", "negative", "b.png", "a.png"} <= set(words)
    assert any("unreadable" in (word or "") for word in words)
    drawn = page(card)
    assert drawn.width == 2 * float(root.attrib["width"])
    alone = unit_card(colours(), "blocks:0", **TINY)
    assert page(alone).height < drawn.height
    assert not alone.most


def test_a_box_lies_where_the_unit_fires(tmp_path: Path) -> None:
    # Red fills the box alone, so just within its line the card is red, and just outside black.
    blocks(tmp_path / "one" / "red.png", {(2, 1): 1.0})
    card = unit_card(colours(), "blocks:0", pictures=tmp_path / "one", **TINY)
    root = ElementTree.fromstring(svg(card))
    photo = [element for element in root if element.tag.endswith("image")][-1].attrib
    line = next(
        element.attrib["points"]
        for element in root
        if element.tag.endswith("polyline") and element.attrib["stroke"] == pages.ACCENT
    )
    xs, ys = zip(*(map(float, point.split(",")) for point in line.split()), strict=True)
    side = float(photo["width"]) / 16
    left, top = float(photo["x"]), float(photo["y"])
    assert (min(xs), max(xs)) == pytest.approx((left + 4 * side, left + 8 * side), abs=0.01)
    assert (min(ys), max(ys)) == pytest.approx((top + 8 * side, top + 12 * side), abs=0.01)


@pytest.mark.parametrize(
    ("unit", "layer", "channel"),
    [
        ("second:3", "second", 3),
        (("second", 0), "second", 0),
        ("logits:1", "logits", 1),
        ("logits:dog", "logits", 1),
        ("dog", "logits", 1),
        ("Tabby Cat", "logits", 2),
        ("second.1:7", "second.1", 7),
    ],
)
def test_units_by_name(unit: Any, layer: str, channel: int) -> None:
    found, index = find_unit(toy_network.net(), unit)
    assert (found.name, index) == (layer, channel)


@pytest.mark.parametrize(
    ("unit", "error", "words"),
    [
        ("second:8", ObjectiveError, "second has 8 channels, 0 to 7"),
        (("second", -1), ObjectiveError, "0 to 7"),
        ("second", ObjectiveError, "LAYER:CHANNEL, such as second:0"),
        ("secnd:1", UnknownLayerError, "second"),
        ("second:red", ObjectiveError, "a channel is a number, second has 8"),
        ("bird", ObjectiveError, "LAYER:CHANNEL or the name of a class"),
        ("logits:bird", ObjectiveError, "no class 'bird'"),
        ("@image:0", ObjectiveError, "the picture itself"),
    ],
)
def test_units_that_are_not_there(unit: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)) as caught:
        find_unit(toy_network.net(), unit)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"channels": [8]}, ObjectiveError, "third has 8 channels, 0 to 7"),
        ({"channels": []}, ObjectiveError, "no channels"),
        ({"top": 2}, SettingsError, "without photo"),
        ({"photo": torch.zeros(1, 3, 16, 16)}, SettingsError, "without top"),
        ({"photo": torch.zeros(1, 3, 16, 16), "top": 3}, SettingsError, "8 channels"),
        ({"photo": torch.zeros(1, 3, 16, 16), "top": 0}, SettingsError, "top: input should be"),
        (
            {"photo": torch.zeros(1, 3, 16, 16), "top": 1, "channels": "1"},
            SettingsError,
            "either chooses",
        ),
        ({"colums": 3}, SettingsError, "columns"),
        ({"columns": 0}, SettingsError, "columns"),
    ],
)
def test_sheets_that_make_no_sense(
    given: dict[str, Any], error: type[Exception], words: str, toy: Network
) -> None:
    with pytest.raises(error, match=words):
        sheet(toy, "third", **TINY | given)


def test_folders_without_pictures(tmp_path: Path) -> None:
    net = colours()
    with pytest.raises(ImageError, match="there is no folder"):
        unit_card(net, "blocks:0", pictures=tmp_path / "nowhere", **TINY)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").write_text("nothing")
    with pytest.raises(ImageError, match="no pictures in"):
        unit_card(net, "blocks:0", pictures=tmp_path / "empty", **TINY)
    with pytest.raises(ImageError, match="a folder of pictures was expected"):
        unit_card(net, "blocks:0", pictures=tmp_path / "empty" / "readme.txt", **TINY)
    (tmp_path / "empty" / "bad.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="none of 1 pictures can be read"):
        unit_card(net, "blocks:0", pictures=tmp_path / "empty", **TINY)


# Files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".svg", ".json"])
def test_a_page_in_a_file(suffix: str, toy: Network, tmp_path: Path) -> None:
    drawn: Sheet = sheet(toy, "third", [0, 1], **TINY)
    path = tmp_path / f"page{suffix}"
    check_page(path, overwrite=False)
    save_page(drawn, path)
    with pytest.raises(ImageError, match="already there"):
        check_page(path, overwrite=False)
    check_page(path, overwrite=True)
    if suffix == ".svg":
        assert ElementTree.fromstring(path.read_text()).tag.endswith("svg")
    elif suffix == ".json":
        assert [c["channel"] for c in json.loads(path.read_text())["cells"]] == [0, 1]
    else:
        assert Image.open(path).size == page(drawn).size


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path / "page.bmp", "unknown suffix"),
        (tmp_path / "page", "no suffix"),
        (tmp_path / "none" / "page.svg", "no folder"),
    ):
        with pytest.raises(ImageError, match=words):
            check_page(path, overwrite=False)
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(ImageError, match="is a folder"):
        check_page(tmp_path / "folder.svg", overwrite=True)


def test_settings_need_no_torch() -> None:
    code = (
        "import sys, phosphene.recipes.sheet, phosphene.recipes.unit, phosphene.cli.verbs; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The command line ---------------------------------------------------------------------------------

TOY = "tests.toy_network:net"
SMALL = ("--size", 24, "--steps", 3, "--device", "cpu", "--precision", "fp64")


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_the_verb_sheet(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.png"
    code, printed, err = run(capsys, "sheet", TOY, "second", "--channels", "0-2", "-o", out, *SMALL)
    assert (code, printed.strip()) == (0, str(out))
    assert "3/3 cells" in err
    assert Image.open(out).width > 200
    assert len(cached_cells(cache)) == 3
    code, _, err = run(capsys, "sheet", TOY, "second", "-o", out, *SMALL)
    assert code == 1
    assert "already there" in err
    code, printed, err = run(
        capsys, "sheet", TOY, "second", "-o", out, "--force", "--quiet", *SMALL, "--no-keep"
    )
    assert (code, printed, err) == (0, "", "")
    assert len(cached_cells(cache)) == 3


def test_the_verb_sheet_by_a_photo(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, data = tmp_path / "out.svg", tmp_path / "out.json"
    code, printed, _ = run(
        capsys, "sheet", TOY, "second", "--top", 2, folder / "b.png", "-o", out, "--data", data,
        *SMALL,
    )  # fmt: skip
    assert code == 0
    assert printed.split() == [str(out), str(data)]
    groups = json.loads(data.read_text())["groups"]
    assert [len(groups[name]) for name in ("strong", "average", "weak")] == [2, 2, 2]
    photo = folder / "b.png"
    code, _, err = run(
        capsys, "sheet", TOY, "second", "--top", 2, photo, "-o", photo, "--force", *SMALL
    )
    assert code == 2
    assert "never replaced" in err


def test_the_verb_unit(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, data = tmp_path / "card.png", tmp_path / "card.json"
    code, printed, err = run(
        capsys, "unit", TOY, "dog", "--pictures", folder, "-o", out, "--data", data, "--seeds", 1,
        *SMALL,
    )  # fmt: skip
    assert code == 0, err
    assert printed.split() == [str(out), str(data)]
    assert "skipped" in err
    assert "damaged.jpg" in err
    found = json.loads(data.read_text())
    assert (found["unit"], found["class"]) == ("logits:1", "dog")
    assert len(found["pictures"]) == 4
    assert Image.open(out).width == 1840


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("unit", TOY, "second:9"), 1, "second has 8 channels, 0 to 7"),
        (("unit", TOY, "second"), 1, "a unit is LAYER:CHANNEL"),
        (("unit", TOY, "second:1", "--pictures", "nowhere"), 1, "no folder"),
        (("unit", TOY, "second:1", "-o", "card.bmp"), 1, "unknown suffix"),
        (("unit", TOY, "second:1", "--data", "card.txt"), 2, ".json was expected"),
        (("unit", TOY, "second:1", "--seeds", 0), 2, "seeds"),
        (("sheet", TOY, "secnd"), 1, "second"),
        (("sheet", TOY, "second", "--channels", "3-"), 2, "such as 0-63,70"),
        (("sheet", TOY, "second", "--channels", "7-9"), 1, "no channel 8"),
        (("sheet", TOY, "second", "--top", 3, "nowhere.jpg"), 1, "no file"),
        (("sheet", TOY, "second", "--size", 4), 2, "size"),
        (("sheet", TOY), 2, "LAYER"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    words: tuple[object, ...],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    monkeypatch.chdir(tmp_path)
    got, out, err = run(capsys, *words)
    assert (got, out) == (code, "")
    (line,) = err.strip().splitlines()
    assert line.startswith("phosphene: ")
    assert message in line
    assert not list(tmp_path.glob("*.png"))


# Interrupted --------------------------------------------------------------------------------------

LONG = ("--size", 24, "--steps", 120, "--batch", 2, "--device", "cpu", "--precision", "fp64")


def begun(cache: Path, out: Path) -> subprocess.Popen[str]:
    """A real process drawing the 8 channels of `second`, once it has kept a cell or two."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "phosphene",
            "sheet",
            TOY,
            "second",
            "-o",
            str(out),
            *map(str, LONG),
        ],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PHOSPHENE_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Whoever runs this in the background has the signal ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    until = time.monotonic() + 100
    while not cached_cells(cache):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.002)
    return process


@pytest.mark.slow
def test_a_killed_sheet_goes_on_without_a_wrong_cell(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "sheet.png"
    process = begun(cache, out)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    done = len(cached_cells(cache))
    assert 0 < done < 8
    assert not out.exists()
    before = {path: path.read_bytes() for path in cached_cells(cache)}
    assert run(capsys, "sheet", TOY, "second", "-o", out, *LONG)[0] == 0
    assert all(path.read_bytes() == data for path, data in before.items())
    assert len(cached_cells(cache)) == 8
    resumed = sheet(toy_network.net(), "second", **dict(zip(
        ("size", "steps", "batch", "device", "precision"), LONG[1::2], strict=True)))  # fmt: skip
    monkeypatch.setenv("PHOSPHENE_CACHE", str(tmp_path / "other"))
    whole = tmp_path / "whole.png"
    assert run(capsys, "sheet", TOY, "second", "-o", whole, *LONG)[0] == 0
    settings = {"size": 24, "steps": 120, "batch": 2, "device": DEVICE, "precision": "fp64"}
    uninterrupted = sheet(toy_network.net(), "second", **settings)
    torch.testing.assert_close(resumed.cells, uninterrupted.cells, atol=LEVEL, rtol=0)
    assert resumed.dead == uninterrupted.dead
    difference = np.asarray(Image.open(out)).astype(int) - np.asarray(Image.open(whole))
    assert abs(difference).max() <= 1


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done(tmp_path: Path, cache: Path) -> None:
    out = tmp_path / "sheet.png"
    process = begun(cache, out)
    process.send_signal(signal.SIGINT)
    printed, err = process.communicate()
    assert process.returncode == 130
    assert not printed
    assert not out.exists()
    done = len(cached_cells(cache))
    assert 0 < done < 8
    match = re.search(r"(\d) of 8 cells are done and kept", err.splitlines()[-1])
    assert match
    assert 0 <= done - int(match[1]) <= 2  # it may come while a batch is put down


def test_cells_of_one_batch_are_drawn_once(toy: Network) -> None:
    twice = [Cell("third", 1), Cell("third", 1), Cell("third", 1, negative=True)]
    step = list(render_cells(toy, twice, SheetSettings(**TINY)))[-1]
    assert step.total == 2
    assert set(step.rendered) == set(twice)
    up, down = step.rendered[twice[0]], step.rendered[twice[2]]
    assert up.response > down.response
