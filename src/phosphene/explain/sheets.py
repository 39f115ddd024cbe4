"""`sheet`: every channel of a layer on one page."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from phosphene import __version__
from phosphene.errors import NetworkError, ObjectiveError, SettingsError
from phosphene.explain.cells import Cell, CellStep, RenderedCell, render_cells, resolve_settings
from phosphene.explain.layers import check_channel, describe_layer, label_of, layer_of
from phosphene.explain.responses import mean_responses
from phosphene.explain.sheet_settings import SheetSettings as SheetSettings
from phosphene.explain.sheet_settings import parse_channels
from phosphene.network import Layer, Network
from phosphene.settings import checked


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

    selection: _Selection = field(repr=False)

    def sheet(self) -> Sheet:
        """The sheet of what is rendered so far; NetworkError if that is nothing."""
        return self.selection.sheet(self.rendered)


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
            `visualize` would draw is drawn smaller, and moved less: see `resolve_settings`.

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
        chosen = resolve_settings(network, found, chosen)
        selection = _select(network, found, channels, photo, top, chosen)
        wanted = [Cell(found.name, channel) for channel in selection.channels]
        for step in render_cells(network, wanted, chosen, use_cache=keep):
            yield SheetStep(**vars(step), selection=selection)


sheet = _SheetVerb()


def _select(
    network: Network,
    layer: Layer,
    channels: Sequence[int] | str | None,
    photo: Tensor | None,
    top: int | None,
    settings: SheetSettings,
) -> _Selection:
    count = layer.channels or 0
    if (photo is None) != (top is None):
        given, missing = ("photo", "top") if top is None else ("top", "photo")
        raise SettingsError(f"{given} is given without {missing}: the two go together")
    if photo is None or top is None:
        picked = _checked_channels(channels, layer)
        return _Selection(network, layer, (), tuple(picked), None, None, settings)
    if channels is not None:
        raise SettingsError("channels and top are both given: either chooses the channels")
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


def _checked_channels(channels: Sequence[int] | str | None, layer: Layer) -> list[int]:
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
