"""`sheet`: every channel of a layer on one page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from phosphene import __version__
from phosphene import image as images
from phosphene.errors import NetworkError, ObjectiveError, SettingsError
from phosphene.explain import pages
from phosphene.explain.cells import Cell, CellStep, Drawing, draw, how, settled
from phosphene.explain.layers import about, check_channel, label_of, layer_of
from phosphene.explain.pages import FAINT, INK, QUIET, Item, Page, Picture, Text, fitted
from phosphene.explain.responses import strengths
from phosphene.network import Layer, Network
from phosphene.recipes.base import Arguments
from phosphene.recipes.sheet import SheetSettings

LEAST_SHOWN = 96  # px, the longest side of a cell on the page
MARGIN, GAP, LABEL = 24.0, 6.0, 17.0


@dataclass(frozen=True)
class Group:
    """Some cells of a sheet that belong together, next to each other: `strong`, say."""

    name: str
    channels: tuple[int, ...]


@dataclass(frozen=True)
class Sheet:
    """Drawings of a layer's channels.

    cells: `(K, 3, h, w)` in [0, 1], in steps of 1/255, on the CPU; grey for a dead unit.
    channels, labels, dead, responses: one of each a cell. A label is the channel's number, with the
        name of its class if it has one. `responses` are the unit's means over positions when the
        network is shown the cell.
    groups: where a photograph chose the channels, what they are; `strengths` are then the channels'
        means over positions when the network is shown the `photo` `(1, 3, H, W)`.
    version: of phosphene, as its page names it.
    """

    network: str
    layer: str
    about: str
    channels: tuple[int, ...]
    labels: tuple[str, ...]
    cells: Tensor = field(repr=False)
    dead: tuple[bool, ...] = field(repr=False)
    responses: tuple[float, ...] = field(repr=False)
    settings: SheetSettings = field(repr=False)
    groups: tuple[Group, ...] = ()
    strengths: tuple[float, ...] = field(default=(), repr=False)
    photo: Tensor | None = field(default=None, repr=False)
    version: str = __version__

    @property
    def subject(self) -> tuple[str, ...]:
        """What it is about, as a manifest names it: the layer, by its own name."""
        return (self.layer,)

    def data(self) -> dict[str, Any]:
        """All but the pictures, as JSON can hold it."""
        cells = [
            {"channel": channel, "label": label, "dead": dead, "response": response}
            for channel, label, dead, response in zip(
                self.channels, self.labels, self.dead, self.responses, strict=True
            )
        ]
        for cell, strength in zip(cells, self.strengths, strict=False):
            cell["strength"] = strength
        return {
            "phosphene": self.version,
            "network": self.network,
            "layer": self.layer,
            "settings": self.settings.model_dump(mode="json", exclude={"channels", "top"}),
            "groups": {group.name: list(group.channels) for group in self.groups},
            "cells": cells,
        }


@dataclass(frozen=True)
class SheetStep(CellStep):
    """A step on the way to a sheet: see `CellStep`."""

    frame: _Frame = field(repr=False)

    def sheet(self) -> Sheet:
        """The sheet of what is drawn so far; NetworkError if that is nothing."""
        return self.frame.filled(self.drawn)

    @property
    def stored(self) -> str:
        """What an interruption leaves."""
        return f"{len(self.drawn)} of {self.total} cells are done and kept"

    @property
    def remarks(self) -> list[tuple[str, bool]]:
        """What to know of the whole, each with whether it is a detail."""
        found: list[tuple[str, bool]] = []
        if self.found:
            found.append((f"{self.found} of {self.total} cells were kept from before", True))
        sheet = self.sheet()
        dead = [str(c) for c, no in zip(sheet.channels, sheet.dead, strict=True) if no]
        if dead:
            more = f" and {len(dead) - 12} more" if len(dead) > 12 else ""
            shown = ", ".join(dead[:12]) + more
            found.append((f"dead: {shown} of {len(sheet.channels)} channels", False))
        return found


@dataclass(frozen=True)
class _Frame:
    """A sheet before its cells are drawn."""

    network: Network
    layer: Layer
    groups: tuple[Group, ...]
    channels: tuple[int, ...]
    strengths: Tensor | None
    photo: Tensor | None
    settings: SheetSettings

    def filled(self, drawn: Mapping[Cell, Drawing]) -> Sheet:
        there = [c for c in self.channels if Cell(self.layer.name, c) in drawn]
        if not there:
            raise NetworkError(f"no cell of {self.layer.name} is drawn yet")
        found = [drawn[Cell(self.layer.name, c)] for c in there]
        groups = [
            Group(group.name, tuple(c for c in group.channels if c in there))
            for group in self.groups
        ]
        return Sheet(
            self.network.name,
            self.layer.name,
            about(self.layer),
            tuple(there),
            tuple(label_of(self.network, self.layer, c) for c in there),
            torch.stack([cell.image for cell in found]),
            tuple(cell.dead for cell in found),
            tuple(cell.response for cell in found),
            self.settings,
            tuple(group for group in groups if group.channels),
            () if self.strengths is None else tuple(self.strengths[list(there)].tolist()),
            self.photo,
        )


def sheet_steps(arguments: Arguments) -> Iterator[SheetStep]:
    """A sheet's steps: see `phosphene.sheet`. What is done when one stops is stored."""
    network, s = arguments.network, arguments.settings
    found = layer_of(network, arguments.layers[0])
    s = settled(network, found, s)
    frame = _frame(network, found, arguments.images.get("photo"), s)
    wanted = [Cell(found.name, channel) for channel in frame.channels]
    return _sheet_steps(frame, draw(network, wanted, s, keep=arguments.cache))


def _sheet_steps(frame: _Frame, steps: Iterator[CellStep]) -> Iterator[SheetStep]:
    for step in steps:
        yield SheetStep(**vars(step), frame=frame)


def _frame(network: Network, layer: Layer, photo: Tensor | None, settings: SheetSettings) -> _Frame:
    count, top = layer.channels or 0, settings.top
    if (photo is None) != (top is None):
        given, missing = ("photo", "top") if top is None else ("top", "photo")
        raise SettingsError(f"{given} is given without {missing}: the two go together")
    if photo is None or top is None:
        picked = _picked(settings.channels, layer)
        return _Frame(network, layer, (), tuple(picked), None, None, settings)
    if not 1 <= 3 * top <= count:
        raise SettingsError(
            f"top is {top}; {layer.name} has {count} channels, so three groups of 1 to "
            f"{count // 3} were expected"
        )
    net = network.prepared(settings.device, "fp32")
    answers = strengths(net, layer.name, photo, settings.picture_size)
    order = answers.argsort(descending=True, stable=True).tolist()
    middle = (count - top) // 2
    groups = (
        Group("strong", tuple(order[:top])),
        Group("average", tuple(order[middle : middle + top])),
        Group("weak", tuple(order[-top:])),
    )
    chosen = tuple(channel for group in groups for channel in group.channels)
    return _Frame(network, layer, groups, chosen, answers, photo, settings)


def _picked(channels: Sequence[int] | None, layer: Layer) -> list[int]:
    count = layer.channels or 0
    if channels is None:
        return list(range(count))
    picked = list(dict.fromkeys(channels))
    if not picked:
        raise ObjectiveError("there are no channels in the list")
    for channel in picked:
        check_channel(layer, channel)
    return picked


# The page -----------------------------------------------------------------------------------------


def sheet_page(sheet: Sheet) -> Page:
    """A sheet laid out: a heading, the photograph if there is one, and the cells in rows."""
    s = sheet.settings
    tall, wide = images.size_of(pages.trimmed(sheet.cells))
    longest = max(tall, wide)
    scale = (max(LEAST_SHOWN, longest) if s.cell == "auto" else s.cell) / longest
    height, width = round(tall * scale), round(wide * scale)
    groups = sheet.groups or (Group("", sheet.channels),)
    columns = min(_columns(sheet, width / height), max(len(g.channels) for g in groups))
    step = width + GAP
    breadth = max(columns * step - GAP, 420.0)
    items: list[Item] = []
    y = MARGIN + 16
    items.append(Text(MARGIN, y, fitted(f"{sheet.network} · {sheet.layer}", breadth, 20), 20))
    y += 18
    items.append(Text(MARGIN, y, fitted(sheet.about, breadth), 11, QUIET))
    y += 14
    if sheet.photo is not None:
        _, _, w, h = pages.contained(sheet.photo, min(breadth, 3 * width), 2 * height)
        small = images.resize(sheet.photo.float(), (round(h), round(w))).clamp(0, 1)
        items.append(Picture(MARGIN, y, round(w), round(h), small[0]))
        y += round(h) + GAP
    place = {channel: i for i, channel in enumerate(sheet.channels)}
    for group in groups:
        if group.name:
            y += 22
            items.append(Text(MARGIN, y, group.name, 14))
            y += 8
        for i, channel in enumerate(group.channels):
            x, top = MARGIN + i % columns * step, y + i // columns * (height + LABEL + GAP)
            items += _cell(sheet, place[channel], x, top, width, height)
        y += -(-len(group.channels) // columns) * (height + LABEL + GAP)
    y += 12
    items.append(Text(MARGIN, y, fitted(_foot(sheet), breadth), 11, QUIET))
    title = f"{sheet.network} {sheet.layer}"
    return Page(breadth + 2 * MARGIN, y + MARGIN - 6, tuple(items), title)


def _columns(sheet: Sheet, aspect: float) -> int:
    if sheet.settings.columns != "auto":
        return sheet.settings.columns
    if sheet.groups:
        return 16
    count = len(sheet.channels)
    return count if count <= 8 else max(8, min(40, math.ceil(math.sqrt(count / aspect))))


def _cell(sheet: Sheet, i: int, x: float, y: float, width: float, height: float) -> list[Item]:
    foot = y + height + 12
    items: list[Item]
    if sheet.dead[i]:
        items = [
            pages.rectangle(x, y, width, height, fill=FAINT),
            Text(x + width / 2, y + height / 2 + 4, "dead", 11, QUIET, "middle"),
        ]
    else:
        items = [Picture(x, y, width, height, pages.trimmed(sheet.cells[i]))]
    space = width
    if sheet.strengths:
        told = f"{sheet.strengths[i]:.3g}"
        items.append(Text(x + width, foot, told, 11, QUIET, "end"))
        space -= pages.width_of(told) + 6
    items.append(Text(x, foot, fitted(sheet.labels[i], space), 11, INK))
    return items


def _foot(sheet: Sheet) -> str:
    told = f"phosphene {sheet.version} · {how(sheet.settings, sheet.cells)}"
    dead = sum(sheet.dead)
    if dead:
        told += f" · {dead} of {len(sheet.dead)} dead"
    if sheet.groups:
        told += " · numbers at the right: mean over positions, shown the photograph"
    return told
