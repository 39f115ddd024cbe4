"""`unit_card`: what a unit draws, and which photographs excite it most and least."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from phosphene import __version__
from phosphene import objectives as obj
from phosphene.errors import ImageError, ObjectiveError, PhospheneError, UnknownLayerError
from phosphene.explain.cells import Cell, RenderedCell, render_cells, resolve_settings
from phosphene.explain.layers import (
    check_channel,
    class_of,
    describe_layer,
    has_classes,
    layer_of,
)
from phosphene.explain.pages import Page, ShownPage
from phosphene.explain.responses import Response, Skipped, find_pictures, respond
from phosphene.network import Layer, Network
from phosphene.objectives.text import unquoted
from phosphene.recipes.base import Arguments
from phosphene.recipes.unit import UnitSettings


@dataclass(frozen=True)
class Visualization:
    """A unit rendered from one seed.

    image: `(3, h, w)` in [0, 1], grey if the unit is dead.
    negative: whether it is what the unit answers to least.
    response: the unit's mean over positions when the network is shown the image.
    """

    image: Tensor = field(repr=False)
    seed: int
    negative: bool
    response: float
    dead: bool


@dataclass(frozen=True)
class Card(ShownPage):
    """A unit, four ways.

    visualizations: what it answers to most, once a seed, and, last, what it answers to least.
    responses: of every photograph, the strongest first by `settings.rank`; of equal ones in the
        order of their names. `most` and `least` are its ends, the very least last.
    skipped: files that could not be read, and why.
    version: of phosphene, as its page names it.
    """

    network: str
    fingerprint: str
    layer: str
    channel: int
    name: str | None
    about: str
    visualizations: tuple[Visualization, ...]
    responses: tuple[Response, ...] = field(repr=False)
    skipped: tuple[Skipped, ...]
    settings: UnitSettings = field(repr=False)
    version: str = __version__
    page_scale: ClassVar[float] = 2.0  # letters and lines are drawn for a fine screen

    @property
    def unit(self) -> str:
        """The unit, as an objective's text has it."""
        return obj.channel(self.layer, self.channel).text

    @property
    def subject(self) -> tuple[str, ...]:
        """What it is about, as a manifest names it."""
        return (self.unit,)

    def layout(self) -> Page:
        """Its page: the drawings, the photographs of both ends, and their curve."""
        from phosphene.explain.card_page import card_page

        return card_page(self)

    @property
    def most(self) -> tuple[Response, ...]:
        """The photographs that excite the unit most."""
        return self.responses[: self.settings.shown]

    @property
    def least(self) -> tuple[Response, ...]:
        """Those that excite it least, none of `most` among them."""
        rest = self.responses[self.settings.shown :]
        return rest[-self.settings.shown :]

    def data(self) -> dict[str, Any]:
        """All but the pictures, as JSON can hold it; places are in px at a photo's `view_size`."""
        return {
            "phosphene": self.version,
            "network": {"name": self.network, "fingerprint": self.fingerprint},
            "unit": self.unit,
            "layer": self.layer,
            "channel": self.channel,
            "class": self.name,
            "settings": self.settings.model_dump(mode="json"),
            "drawn": [
                {"seed": v.seed, "negative": v.negative, "response": v.response, "dead": v.dead}
                for v in self.visualizations
            ],
            "pictures": [_response_data(response) for response in self.responses],
            "skipped": [{"file": str(s.path), "why": s.why} for s in self.skipped],
        }


def _response_data(r: Response) -> dict[str, Any]:
    return {
        "file": r.name,
        "mean": r.mean,
        "peak": r.peak,
        "seen": dict(zip(("height", "width"), r.view_size, strict=True)),
        "position": None if r.position is None else dict(zip("yx", r.position, strict=True)),
        "centre": None if r.centre is None else dict(zip("xy", r.centre, strict=True)),
        "box": None
        if r.box is None
        else dict(zip(("left", "top", "right", "bottom"), r.box, strict=True)),
    }


@dataclass(frozen=True)
class CardStep:
    """A step on the way to a card, `share` of 0 to 1 done; the last one has the `card`.

    phase: `photos`, while they are shown to the network, or `cells`, while those are rendered.
    skipped: the photograph of this step, if it could not be read.
    image: `(N, 3, h, w)`, what is being rendered.
    network: the one that renders it, on its device and in its precision.
    """

    phase: Literal["photos", "cells"]
    share: float
    skipped: Skipped | None = None
    image: Tensor | None = field(default=None, repr=False)
    card: Card | None = None
    network: Network | None = field(default=None, repr=False)

    @property
    def text(self) -> str:
        """What is being done, in a few words."""
        if self.card is not None:
            return "drawn"
        return "looking at pictures" if self.phase == "photos" else "drawing"

    @property
    def milestone(self) -> bool:
        """Whether the card is done, which is worth a line by itself."""
        return self.card is not None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know now: a file that was skipped."""
        return () if self.skipped is None else (f"skipped: {self.skipped.why}",)

    @property
    def stored(self) -> str:
        """What an interruption leaves."""
        return "finished drawings are kept"

    @property
    def remarks(self) -> list[tuple[str, bool]]:
        """What to know of the whole, each with whether it is a detail."""
        if self.card is None or not any(cell.dead for cell in self.card.visualizations):
            return []
        dead = f"{self.card.unit} gave no gradient: where it is dead, nothing is drawn"
        return [(dead, False)]


def unit_steps(arguments: Arguments) -> Iterator[CardStep]:
    """A card's steps: see `phosphene.unit_card`. Drawings that are done are stored."""
    network = arguments.network
    assert isinstance(arguments.unit, str | tuple)
    layer, channel = find_unit(network, arguments.unit)
    settings = resolve_settings(network, layer, arguments.settings)
    root, paths = _picture_paths(arguments.folders.get("pictures"))
    return _card_steps(network, layer, channel, root, paths, settings, arguments.cache)


def _card_steps(
    network: Network,
    layer: Layer,
    channel: int,
    root: Path | None,
    paths: Sequence[Path],
    s: UnitSettings,
    use_cache: bool,
) -> Iterator[CardStep]:
    # Photographs first: they are quick, and a folder of none that can be read is an error at once.
    # About what a share of the whole takes: a photograph as much as one step of one drawing.
    rendering_work = (s.seeds + 1) * s.steps
    whole = rendering_work + len(paths)
    responses: list[Response] = []
    skipped: list[Skipped] = []
    net = network.prepared(s.device, "fp32")
    answers = respond(net, layer.name, channel, paths, size=s.picture_size, root=root)
    for count, answer in enumerate(answers, 1):
        left_out = answer if isinstance(answer, Skipped) else None
        if isinstance(answer, Response):
            responses.append(answer)
        else:
            skipped.append(answer)
        yield CardStep("photos", count / whole, left_out)
    if paths and not responses:
        raise ImageError(
            f"none of {len(paths)} pictures can be read; of the first: {skipped[0].why}"
        )
    responses.sort(key=lambda r: -(r.mean if s.rank == "mean" else r.peak))  # stable
    visualizations: list[Visualization] = []
    renders: Network | None = None
    done = len(paths)
    for k in range(s.seeds):
        seed = s.model_copy(update={"seed": s.seed + k})
        cells = [Cell(layer.name, channel)]
        if k == 0:
            cells.append(Cell(layer.name, channel, negative=True))
        rendered: Mapping[Cell, RenderedCell] = {}
        for step in render_cells(network, cells, seed, use_cache=use_cache):
            rendered, renders = step.rendered, step.network
            share = (done + step.share * len(cells) * s.steps) / whole
            yield CardStep("cells", share, image=step.image, network=renders)
        done += len(cells) * s.steps
        visualizations += [
            Visualization(one.image, s.seed + k, cell.negative, one.response, one.dead)
            for cell, one in rendered.items()
        ]
    visualizations.sort(key=lambda v: (v.negative, v.seed))
    card = Card(
        network.name,
        network.fingerprint,
        layer.name,
        channel,
        class_of(network, layer, channel),
        describe_layer(layer),
        tuple(visualizations),
        tuple(responses),
        tuple(skipped),
        s,
    )
    yield CardStep("cells", 1.0, card=card, network=renders)


def _picture_paths(
    pictures: str | Path | Sequence[str | Path] | None,
) -> tuple[Path | None, list[Path]]:
    if pictures is None:
        return None, []
    if isinstance(pictures, (str, Path)):
        return Path(pictures), find_pictures(pictures)
    paths = [Path(picture) for picture in pictures]
    if not paths:
        raise ImageError("there are no pictures in the list")
    return None, paths


def find_unit(network: Network, unit: str | tuple[str, int]) -> tuple[Layer, int]:
    """The layer and the channel that are meant; ObjectiveError or UnknownLayerError if none is."""
    if isinstance(unit, str):
        name, colon, which = unit.rpartition(":")
        name, which = unquoted(name.strip()), which.strip()
        if not colon:
            return _class_unit(network, unit)
        layer = layer_of(network, name)
        if not which.isdecimal():
            if has_classes(network, layer):
                return layer, class_index(network, which)
            raise ObjectiveError(
                f"unit {unit!r}: a channel is a number, {layer.name} has {layer.channels}, "
                f"0 to {(layer.channels or 0) - 1}"
            )
        channel = int(which)
    else:
        name, channel = unit
        layer = layer_of(network, name)
    check_channel(layer, channel)
    return layer, channel


def _class_unit(network: Network, name: str) -> tuple[Layer, int]:
    """The class of that name; of a layer's name alone the error says what it lacks."""
    try:
        layer = layer_of(network, name)
    except UnknownLayerError:
        layer = None
    if layer is not None:
        raise ObjectiveError(
            f"{name!r} is a layer; a unit is LAYER:CHANNEL, such as {name}:0 to "
            f"{name}:{(layer.channels or 1) - 1}"
        )
    try:
        return layer_of(network, "logits"), class_index(network, name)
    except PhospheneError as error:
        raise ObjectiveError(
            f"unit {name!r}: LAYER:CHANNEL or the name of a class was expected ({error})"
        ) from None


def class_index(network: Network, name: str) -> int:
    """The number of a class, by its name; ObjectiveError, with the closest, if none is."""
    goal = obj.logit(name).bound(network)
    # Of all vectors that stand for one class, the one to which the objective answers.
    count = len(network.classes)
    return int(goal({goal.layers[0]: torch.eye(count)}).argmax())
