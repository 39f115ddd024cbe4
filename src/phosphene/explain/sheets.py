"""`sheet`: every channel of a layer on one page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from phosphene import __version__
from phosphene.errors import NetworkError, ObjectiveError, SettingsError
from phosphene.explain.cells import Cell, CellStep, RenderedCell, render_cells, resolve_settings
from phosphene.explain.layers import check_channel, describe_layer, label_of, layer_of
from phosphene.explain.pages import Page, ShownPage
from phosphene.explain.responses import mean_responses
from phosphene.network import Layer, Network
from phosphene.recipes.base import Arguments
from phosphene.recipes.sheet import SheetSettings


@dataclass(frozen=True)
class Group:
    """Some cells of a sheet that belong together, next to each other: `strong`, say."""

    name: str
    channels: tuple[int, ...]


@dataclass(frozen=True)
class Sheet(ShownPage):
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

    page_scale: ClassVar[float] = 1.0  # cells are shown px by px

    @property
    def subject(self) -> tuple[str, ...]:
        """What it is about, as a manifest names it: the layer, by its own name."""
        return (self.layer,)

    def layout(self) -> Page:
        """Its page: a heading, the photograph if there is one, and the cells in rows."""
        from phosphene.explain.sheet_page import sheet_page

        return sheet_page(self)

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

    selection: _Selection = field(repr=False)

    def sheet(self) -> Sheet:
        """The sheet of what is rendered so far; NetworkError if that is nothing."""
        return self.selection.sheet(self.rendered)

    @property
    def stored(self) -> str:
        """What an interruption leaves."""
        return f"{len(self.rendered)} of {self.total} cells are done and kept"

    @property
    def remarks(self) -> list[tuple[str, bool]]:
        """What to know of the whole, each with whether it is a detail."""
        found: list[tuple[str, bool]] = []
        if self.cached:
            found.append((f"{self.cached} of {self.total} cells were kept from before", True))
        sheet = self.sheet()
        dead = [str(c) for c, no in zip(sheet.channels, sheet.dead, strict=True) if no]
        if dead:
            more = f" and {len(dead) - 12} more" if len(dead) > 12 else ""
            shown = ", ".join(dead[:12]) + more
            found.append((f"dead: {shown} of {len(sheet.channels)} channels", False))
        return found


@dataclass(frozen=True)
class _Selection:
    """The channels that a sheet is to show: a sheet before its cells are rendered."""

    network: Network
    layer: Layer
    groups: tuple[Group, ...]
    channels: tuple[int, ...]
    strengths: Tensor | None
    photo: Tensor | None
    settings: SheetSettings

    def sheet(self, rendered: Mapping[Cell, RenderedCell]) -> Sheet:
        there = [c for c in self.channels if Cell(self.layer.name, c) in rendered]
        if not there:
            raise NetworkError(f"no cell of {self.layer.name} is drawn yet")
        cells = [rendered[Cell(self.layer.name, c)] for c in there]
        groups = [
            Group(group.name, tuple(c for c in group.channels if c in there))
            for group in self.groups
        ]
        return Sheet(
            self.network.name,
            self.layer.name,
            describe_layer(self.layer),
            tuple(there),
            tuple(label_of(self.network, self.layer, c) for c in there),
            torch.stack([cell.image for cell in cells]),
            tuple(cell.dead for cell in cells),
            tuple(cell.response for cell in cells),
            self.settings,
            tuple(group for group in groups if group.channels),
            () if self.strengths is None else tuple(self.strengths[list(there)].tolist()),
            self.photo,
        )


def sheet_steps(arguments: Arguments) -> Iterator[SheetStep]:
    """A sheet's steps: see `phosphene.sheet`. What is done when one stops is stored."""
    network = arguments.network
    layer = layer_of(network, arguments.layers[0])
    settings = resolve_settings(network, layer, arguments.settings)
    selection = _select(network, layer, arguments.images.get("photo"), settings)
    wanted = [Cell(layer.name, channel) for channel in selection.channels]
    steps = render_cells(network, wanted, settings, use_cache=arguments.cache)
    return (SheetStep(**vars(step), selection=selection) for step in steps)


def _select(
    network: Network, layer: Layer, photo: Tensor | None, settings: SheetSettings
) -> _Selection:
    count, top = layer.channels or 0, settings.top
    if (photo is None) != (top is None):
        given, missing = ("photo", "top") if top is None else ("top", "photo")
        raise SettingsError(f"{given} is given without {missing}: the two go together")
    if photo is None or top is None:
        channels = _checked_channels(settings.channels, layer)
        return _Selection(network, layer, (), tuple(channels), None, None, settings)
    if not 1 <= 3 * top <= count:
        raise SettingsError(
            f"top is {top}; {layer.name} has {count} channels, so three groups of 1 to "
            f"{count // 3} were expected"
        )

    net = network.prepared(settings.device, "fp32")
    answers = mean_responses(net, layer.name, photo, settings.picture_size)
    order = answers.argsort(descending=True, stable=True).tolist()
    middle = (count - top) // 2
    groups = (
        Group("strong", tuple(order[:top])),
        Group("average", tuple(order[middle : middle + top])),
        Group("weak", tuple(order[-top:])),
    )
    chosen = tuple(channel for group in groups for channel in group.channels)
    return _Selection(network, layer, groups, chosen, answers, photo, settings)


def _checked_channels(channels: Sequence[int] | None, layer: Layer) -> list[int]:
    count = layer.channels or 0
    if channels is None:
        return list(range(count))
    picked = list(dict.fromkeys(channels))
    if not picked:
        raise ObjectiveError("there are no channels in the list")
    for channel in picked:
        check_channel(layer, channel)
    return picked
