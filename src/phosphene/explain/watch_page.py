"""A frame of `watch`: the picture so far, and the maps of a layer's channels beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene import image as images
from phosphene.explain import pages
from phosphene.explain.pages import (
    INK,
    QUIET,
    ImageItem,
    Item,
    Page,
    Text,
    fit_inside,
    format_number,
    text_width,
    truncate_text,
)
from phosphene.explain.palettes import coloured
from phosphene.network import Layer, Network
from phosphene.objectives import Objective
from phosphene.recipes.steps.dream import DreamStep

MARGIN, GAP = 20.0, 28.0
HEAD, FOOT = 30.0, 42.0  # px, for words above and below
MOST_WIDTH = 1.6  # of picture and of maps, times their height
LABELLED = 64  # maps: more of them are drawn without their numbers
RIM = 0.86  # the grey around a map, which may be white
BAR = 120.0  # px, the length of the palette


@dataclass(frozen=True)
class Moment:
    """What a frame shows: a step of the dream, and the maps `(K, h, w)` with both ends of their
    colours."""

    step: DreamStep
    maps: Tensor
    low: float
    high: float


@dataclass(frozen=True)
class Grid:
    """How maps are laid out: in rows of `columns`, each `width`×`height` px, so many px apart."""

    columns: int
    width: int
    height: int
    apart: int
    label: int

    @property
    def step(self) -> tuple[int, int]:
        """From one map to the next: right, down, px."""
        return self.width + self.apart, self.height + self.label + self.apart

    def size(self, count: int) -> tuple[int, int]:
        """(H, W) of `count` maps with their numbers, px."""
        across, down = self.step
        rows = -(-count // self.columns)
        return rows * down - self.apart, min(count, self.columns) * across - self.apart


def grid_of(count: int, aspect: float, height: int) -> Grid:
    """The grid with the largest maps that is no higher than `height` px; aspect: W / H of a map."""
    labelled = count <= LABELLED
    apart, label = (8, 14) if labelled else (2, 0)
    most, found = MOST_WIDTH * height, None
    for columns in range(1, count + 1):
        rows = -(-count // columns)
        high = (height - (rows - 1) * apart - rows * label) / rows
        wide = min(high * aspect, (most - (columns - 1) * apart) / columns)
        sides = max(2, math.floor(wide)), max(2, math.floor(wide / aspect))
        if found is None or sides[0] > found.width:
            found = Grid(columns, *sides, apart, label)
    assert found is not None
    return found


def _about(channels: Sequence[int], wanted: Any) -> str:
    """Which channels are shown, in words."""
    several = f"{len(channels)} channels" if len(channels) > 1 else "1 channel"
    if isinstance(wanted, str):
        return f"all {several}, row by row"
    return f"the strongest {several}" if isinstance(wanted, int) else several


@dataclass(frozen=True)
class Board:
    """What stays the same in all frames of a film.

    titles: above the picture, and above the maps. picture: (width, height) of the picture, px.
    grid: of the maps.
    """

    channels: tuple[int, ...]
    palette: str
    titles: tuple[str, str]
    picture: tuple[int, int]
    grid: Grid

    @classmethod
    def of(
        cls,
        photo: Tensor,
        channels: tuple[int, ...],
        s: Any,
        network: Network,
        layer: Layer,
        goal: Objective,
    ) -> Board:
        """That of a photo `(1, 3, H, W)` and so many channels of a layer."""
        tall, wide = images.size_of(photo)
        _, _, width, height = fit_inside(photo, MOST_WIDTH * s.height, s.height)
        return cls(
            channels,
            s.palette,
            (
                f"{network.name} dreaming {goal.text}",
                f"{layer.name} · {_about(channels, s.channels)}",
            ),
            (max(1, round(width)), max(1, round(height))),
            grid_of(len(channels), wide / tall, s.height),
        )

    def frame(self, moment: Moment) -> Tensor:
        """A frame, `(1, 3, H, W)` in [0, 1]."""
        return pages.as_tensor(self.page(moment))

    def page(self, moment: Moment) -> Page:
        """A frame, laid out."""
        (width, height), (tall, wide) = self.picture, self.grid.size(len(self.channels))
        left = MARGIN + width + GAP
        top = MARGIN + HEAD
        foot = top + max(height, tall) + 18
        wide = max(wide, int(BAR) + 120)
        picture = images.resize(moment.step.picture(), (height, width)).clamp(0, 1)
        items: list[Item] = [
            Text(MARGIN, MARGIN + 14, truncate_text(self.titles[0], width, 15), 15),
            Text(left, MARGIN + 14, truncate_text(self.titles[1], wide, 15), 15),
            ImageItem(MARGIN, top, width, height, picture[0]),
            *self._maps(moment, left, top),
            *self._caption(moment.step, width, foot),
            *self._legend(moment, left, foot),
        ]
        # Even, as most codecs want it.
        breadth = 2 * math.ceil((left + wide + MARGIN) / 2)
        return Page(breadth, 2 * math.ceil((foot + FOOT - 18) / 2), tuple(items), self.titles[1])

    def _maps(self, moment: Moment, left: float, top: float) -> list[Item]:
        grid, count = self.grid, len(self.channels)
        across, down = grid.step
        canvas = torch.ones(3, *grid.size(count))
        cells = self._coloured(moment)
        items: list[Item] = [ImageItem(left, top, canvas.shape[2], canvas.shape[1], canvas)]
        for k, (channel, cell) in enumerate(zip(self.channels, cells, strict=True)):
            x, y = k % grid.columns * across, k // grid.columns * down
            canvas[:, y : y + grid.height, x : x + grid.width] = cell
            if grid.label:
                foot = top + y + grid.height + 11
                items.append(Text(left + x, foot, str(channel), 10, QUIET))
        return items

    def _coloured(self, moment: Moment) -> Tensor:
        """The maps in colours, `(K, 3, H, W)`, as large as they are shown, a rim around each."""
        values = (moment.maps - moment.low) / max(moment.high - moment.low, 1e-12)
        size = (self.grid.height, self.grid.width)
        # Each place of a layer stays one even patch; where there are more of them than px, what
        # lies together is averaged.
        finer = values.shape[-2] > size[0] or values.shape[-1] > size[1]
        mode = "area" if finer else "nearest-exact"
        cells = coloured(F.interpolate(values[:, None], size, mode=mode)[:, 0], self.palette)
        if self.grid.label:
            for line in (cells[..., 0, :], cells[..., -1, :], cells[..., 0], cells[..., -1]):
                line.clamp_(max=RIM)
        return cells

    def _caption(self, step: DreamStep, width: float, foot: float) -> list[Item]:
        tall, wide = images.size_of(step.image)
        score = f"score {format_number(float(step.score.mean()))}"
        text = (
            f"octave {step.octave + 1}/{step.octaves}, {wide}×{tall} px · "
            f"step {step.index + 1}/{step.steps}"
        )
        space = width - text_width(score, 12) - 10
        return [
            Text(MARGIN, foot + 4, truncate_text(text, space, 12), 12, INK),
            Text(MARGIN + width, foot + 4, score, 12, QUIET, "end"),
        ]

    def _legend(self, moment: Moment, left: float, foot: float) -> list[Item]:
        ramp = coloured(torch.linspace(0, 1, int(BAR)).expand(10, -1), self.palette)
        ramp[:, (0, -1)] = ramp[:, (0, -1)].clamp(max=RIM)
        ramp[:, :, (0, -1)] = ramp[:, :, (0, -1)].clamp(max=RIM)
        low = format_number(moment.low)
        x = left + text_width(low, 12) + 8
        return [
            Text(left, foot + 4, low, 12, QUIET),
            ImageItem(x, foot - 6, BAR, 10, ramp),
            Text(x + BAR + 8, foot + 4, f"{format_number(moment.high)} and more", 12, QUIET),
        ]
