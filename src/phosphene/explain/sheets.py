"""`sheet`: every channel of a layer on one page."""

from __future__ import annotations

import math
from collections import deque
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
from phosphene.explain.sheet_settings import SheetSettings as SheetSettings
from phosphene.explain.sheet_settings import parse_channels
from phosphene.network import Layer, Network
from phosphene.settings import checked

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
            "settings": self.settings.model_dump(mode="json"),
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


class _SheetVerb:
    """`sheet(network, layer, **settings)`; `sheet.steps(…)` is the same, live."""

    settings = SheetSettings

    def __call__(
        self,
        network: Network,
        layer: str,
        channels: Sequence[int] | str | None = None,
        *,
        photo: Tensor | None = None,
        top: int | None = None,
        keep: bool = True,
        **settings: Any,
    ) -> Sheet:
        """Draw the channels of a layer, all or some, each as `visualize` does alone.

        channels: which, as numbers or as "0-63,70"; all of them by default.
        photo, top: instead, those that a photograph `(1, 3, H, W)` excites, in three groups of
            `top`: by their means over positions `strong` are the greatest, greatest first, `weak`
            the least, ending with the very least, and `average` those in the middle of the order.
            Of equal ones the lower number comes first.
        keep: whether drawn cells are kept in the cache folder, and taken from there.
        settings: those of `SheetSettings`, by name. A layer that sees less than half of what
            `visualize` would draw is drawn smaller, and moved less: see `settled`.

        Errors: those of `visualize`; `ObjectiveError` for channels that are not there.

        >>> page(sheet(net, "mixed4c", "0-63")).save("mixed4c.png")
        """
        steps = self.steps(network, layer, channels, photo=photo, top=top, keep=keep, **settings)
        return deque(steps, maxlen=1).pop().sheet()

    def steps(
        self,
        network: Network,
        layer: str,
        channels: Sequence[int] | str | None = None,
        *,
        photo: Tensor | None = None,
        top: int | None = None,
        keep: bool = True,
        **settings: Any,
    ) -> Iterator[SheetStep]:
        """The same as a generator of `SheetStep`; what is done when you stop is kept."""
        chosen = checked(SheetSettings, settings)
        found = layer_of(network, layer)
        chosen = settled(network, found, chosen)
        frame = _frame(network, found, channels, photo, top, chosen)
        wanted = [Cell(found.name, channel) for channel in frame.channels]
        for step in draw(network, wanted, chosen, keep=keep):
            yield SheetStep(**vars(step), frame=frame)


sheet = _SheetVerb()


def _frame(
    network: Network,
    layer: Layer,
    channels: Sequence[int] | str | None,
    photo: Tensor | None,
    top: int | None,
    settings: SheetSettings,
) -> _Frame:
    count = layer.channels or 0
    if (photo is None) != (top is None):
        given, missing = ("photo", "top") if top is None else ("top", "photo")
        raise SettingsError(f"{given} is given without {missing}: the two go together")
    if photo is None or top is None:
        picked = _picked(channels, layer)
        return _Frame(network, layer, (), tuple(picked), None, None, settings)
    if channels is not None:
        raise SettingsError("channels and top are both given: either chooses the channels")
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


def _picked(channels: Sequence[int] | str | None, layer: Layer) -> list[int]:
    count = layer.channels or 0
    if channels is None:
        return list(range(count))
    picked = list(
        dict.fromkeys(parse_channels(channels) if isinstance(channels, str) else channels)
    )
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
