"""`unit_card`: what a unit draws, and which photographs excite it most and least."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from phosphene import __version__
from phosphene import image as images
from phosphene import objectives as obj
from phosphene.errors import ImageError, ObjectiveError, PhospheneError, UnknownLayerError
from phosphene.explain import pages
from phosphene.explain.cells import Cell, Drawing, draw, how, settled
from phosphene.explain.layers import about, check_channel, class_of, layer_of
from phosphene.explain.pages import (
    ACCENT,
    FAINT,
    INK,
    QUIET,
    Item,
    Lines,
    Page,
    Picture,
    Ring,
    Text,
    fitted,
)
from phosphene.explain.responses import Response, Skipped, find_pictures, respond
from phosphene.network import Layer, Network
from phosphene.recipes.base import Arguments
from phosphene.recipes.unit import UnitSettings

WIDTH, MARGIN, GAP = 920.0, 32.0, 12.0
PLOT = 130.0  # px, the height of the curve
# A card's letters and lines are drawn for a fine screen, so many px to one of the page.
CARD_SCALE = 2.0


@dataclass(frozen=True)
class Drawn:
    """One drawing of a unit: image `(3, h, w)` in [0, 1], grey if the unit is dead.

    `response` is the unit's mean over positions when the network is shown the image.
    """

    image: Tensor = field(repr=False)
    seed: int
    negative: bool
    response: float
    dead: bool


@dataclass(frozen=True)
class Card:
    """A unit, four ways.

    drawn: what it answers to most, once a seed, and, last, what it answers to least.
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
    drawn: tuple[Drawn, ...]
    responses: tuple[Response, ...] = field(repr=False)
    skipped: tuple[Skipped, ...]
    settings: UnitSettings = field(repr=False)
    version: str = __version__

    @property
    def unit(self) -> str:
        """The unit, as an objective's text has it."""
        return obj.channel(self.layer, self.channel).text

    @property
    def subject(self) -> tuple[str, ...]:
        """What it is about, as a manifest names it."""
        return (self.unit,)

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
        """All but the pictures, as JSON can hold it; places are in px of the photo as `seen`."""
        return {
            "phosphene": self.version,
            "network": {"name": self.network, "fingerprint": self.fingerprint},
            "unit": self.unit,
            "layer": self.layer,
            "channel": self.channel,
            "class": self.name,
            "settings": self.settings.model_dump(mode="json"),
            "drawn": [
                {"seed": d.seed, "negative": d.negative, "response": d.response, "dead": d.dead}
                for d in self.drawn
            ],
            "pictures": [_told(response) for response in self.responses],
            "skipped": [{"file": str(s.path), "why": s.why} for s in self.skipped],
        }


def _told(r: Response) -> dict[str, Any]:
    return {
        "file": r.name,
        "mean": r.mean,
        "peak": r.peak,
        "seen": {"height": r.seen[0], "width": r.seen[1]},
        "position": None if r.position is None else dict(zip("yx", r.position, strict=True)),
        "centre": None if r.centre is None else dict(zip("xy", r.centre, strict=True)),
        "box": None
        if r.box is None
        else dict(zip(("left", "top", "right", "bottom"), r.box, strict=True)),
    }


@dataclass(frozen=True)
class CardStep:
    """A step on the way to a card, `share` of 0 to 1 done; the last one has the `card`.

    `doing` is `draw` or `look`, at photographs; `image` `(N, 3, h, w)` is what is being drawn, and
    `network` the one that draws it, device and precision settled.
    """

    doing: str
    share: float
    skipped: Skipped | None = None
    image: Tensor | None = field(default=None, repr=False)
    card: Card | None = None
    network: Network | None = field(default=None, repr=False)

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
        if self.card is None or not any(drawn.dead for drawn in self.card.drawn):
            return []
        dead = f"{self.card.unit} gave no gradient: where it is dead, nothing is drawn"
        return [(dead, False)]


def unit_steps(arguments: Arguments) -> Iterator[CardStep]:
    """A card's steps: see `phosphene.unit_card`. Drawings that are done are stored."""
    network, s = arguments.network, arguments.settings
    assert arguments.unit is not None
    layer, channel = find_unit(network, arguments.unit)
    s = settled(network, layer, s)
    root, paths = _listed(arguments.folders.get("pictures"))
    return _card(network, layer, channel, root, paths, s, arguments.cache)


def _card(
    network: Network,
    layer: Layer,
    channel: int,
    root: Path | None,
    paths: Sequence[Path],
    s: UnitSettings,
    keep: bool,
) -> Iterator[CardStep]:
    # Photographs first: they are quick, and a folder of none that can be read is told at once.
    # About what a share of the whole takes: a photograph as much as one step of one drawing.
    drawing_work = (s.seeds + 1) * s.steps
    whole = drawing_work + len(paths)
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
        yield CardStep("look", count / whole, left_out)
    if paths and not responses:
        raise ImageError(
            f"none of {len(paths)} pictures can be read; of the first: {skipped[0].why}"
        )
    responses.sort(key=lambda r: -(r.mean if s.rank == "mean" else r.peak))  # stable
    drawn: list[Drawn] = []
    draws: Network | None = None
    done = len(paths)
    for k in range(s.seeds):
        seed = s.model_copy(update={"seed": s.seed + k})
        cells = [Cell(layer.name, channel)]
        if k == 0:
            cells.append(Cell(layer.name, channel, negative=True))
        found: Mapping[Cell, Drawing] = {}
        for step in draw(network, cells, seed, keep=keep):
            found, draws = step.drawn, step.network
            share = (done + step.share * len(cells) * s.steps) / whole
            yield CardStep("draw", share, image=step.image, network=draws)
        done += len(cells) * s.steps
        drawn += [
            Drawn(one.image, s.seed + k, cell.negative, one.response, one.dead)
            for cell, one in found.items()
        ]
    drawn.sort(key=lambda d: (d.negative, d.seed))
    card = Card(
        network.name,
        network.fingerprint,
        layer.name,
        channel,
        class_of(network, layer, channel),
        about(layer),
        tuple(drawn),
        tuple(responses),
        tuple(skipped),
        s,
    )
    yield CardStep("draw", 1.0, card=card, network=draws)


def _listed(
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
        name, which = _unquoted(name.strip()), which.strip()
        if not colon:
            return _class_unit(network, unit)
        layer = layer_of(network, name)
        if not which.isdecimal():
            if len(layer.shape) == 1 and layer.channels == len(network.classes):
                return layer, _class_index(network, which)
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


def _unquoted(name: str) -> str:
    """A layer's name, which may stand in quotes as it does in an objective's text."""
    quote = name[:1]
    if len(name) > 1 and quote in "\"'" and name.endswith(quote):
        return name[1:-1].replace(quote * 2, quote)
    return name


def _class_unit(network: Network, name: str) -> tuple[Layer, int]:
    """The class of that name; a layer's name alone is told what it lacks."""
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
        return layer_of(network, "logits"), _class_index(network, name)
    except PhospheneError as error:
        raise ObjectiveError(
            f"unit {name!r}: LAYER:CHANNEL or the name of a class was expected ({error})"
        ) from None


def _class_index(network: Network, name: str) -> int:
    goal = obj.logit(name).bound(network)
    # Of all vectors that stand for one class, the one to which the objective answers.
    count = len(network.classes)
    return int(goal({goal.layers[0]: torch.eye(count)}).argmax())


# The page -----------------------------------------------------------------------------------------


def card_page(card: Card) -> Page:
    """A card laid out: drawings, the photographs of both ends, and how strongly each fires."""
    breadth = WIDTH - 2 * MARGIN
    items: list[Item] = []
    y = MARGIN + 16
    heading = f"{card.network} · {card.unit}" + (f" · {card.name}" if card.name else "")
    items.append(Text(MARGIN, y, fitted(heading, breadth, 22), 22))
    y += 20
    items.append(Text(MARGIN, y, fitted(f"one of {card.about}", breadth, 12), 12, QUIET))
    y += 30
    drawings, height = _drawings(card, breadth)
    items += pages.moved(drawings, MARGIN, y)
    y += height
    if card.responses:
        for name, row in (("excite it most", card.most), ("excite it least", card.least)):
            if not row:
                continue
            y += 14
            items.append(Text(MARGIN, y + 14, f"Pictures that {name}", 14))
            y += 24
            photos, height = _photos(card, row, breadth)
            items += pages.moved(photos, MARGIN, y)
            y += height
        y += 14
        measure = {"mean": "mean over positions", "peak": "strongest position"}
        count = len(card.responses)
        told = f"How strongly each of {count} pictures excites it"
        items.append(Text(MARGIN, y + 14, told, 14))
        offset = pages.width_of(told, 14) + 10
        by = f"{measure[card.settings.rank]}, sorted"
        items.append(Text(MARGIN + offset, y + 14, by, 11, QUIET))
        y += 28
        items += pages.moved(_plot(card, breadth), MARGIN, y)
        y += PLOT + 22
    y += 16
    foot = f"phosphene {card.version} · {how(card.settings, card.drawn[0].image)}"
    if card.settings.seeds > 1:
        foot += " and on"
    foot += f" · weights {card.fingerprint[:12]}"
    if card.skipped:
        count = len(card.skipped)
        foot += f" · {count} unreadable file{'s' * (count > 1)} left out"
    items.append(Text(MARGIN, y, fitted(foot, breadth), 11, QUIET))
    return Page(WIDTH, y + MARGIN - 10, tuple(items), heading)


def _value(r: Response, card: Card) -> float:
    return r.mean if card.settings.rank == "mean" else r.peak


def _drawings(card: Card, breadth: float) -> tuple[list[Item], float]:
    items: list[Item] = []
    tall, wide = images.size_of(pages.trimmed(card.drawn[0].image))
    columns = max(4, min(len(card.drawn), 6))
    room = (breadth - (columns - 1) * GAP) / columns
    scale = min(room / wide, 1.4 * room / tall)
    width, height = wide * scale, tall * scale
    for i, drawn in enumerate(card.drawn):
        x, y = i % columns * (room + GAP), i // columns * (height + 26)
        told = "negative" if drawn.negative else f"seed {drawn.seed}"
        if drawn.dead:
            items.append(pages.rectangle(x, y, width, height, fill=FAINT))
            items.append(Text(x + width / 2, y + height / 2 + 4, "dead", 12, QUIET, "middle"))
        else:
            items.append(Picture(x, y, width, height, pages.trimmed(drawn.image)))
            items.append(
                Text(x + width, y + height + 15, f"{drawn.response:.3g}", 11, QUIET, "end")
            )
        items.append(Text(x, y + height + 15, told, 11))
    return items, -(-len(card.drawn) // columns) * (height + 26)


def _photos(card: Card, row: Sequence[Response], breadth: float) -> tuple[list[Item], float]:
    items: list[Item] = []
    columns = max(6, min(len(row), 8))
    side = (breadth - (columns - 1) * GAP) / columns
    y = 0.0
    for start in range(0, len(row), columns):
        line = row[start : start + columns]
        photos = [images.load_image(response.path) for response in line]
        frames = [pages.contained(photo, side, side) for photo in photos]
        tallest = max(height for _, _, _, height in frames)
        for i, (response, photo, frame) in enumerate(zip(line, photos, frames, strict=True)):
            x = i * (side + GAP)
            left, _, width, height = frame
            size = (max(1, round(CARD_SCALE * height)), max(1, round(CARD_SCALE * width)))
            small = images.resize(photo, size).clamp(0, 1)
            left, top = x + left, y + tallest - height
            items.append(Picture(left, top, width, height, small[0]))
            if response.position is not None:
                items += _where(response, left, top, width, height)
            told = f"{_value(response, card):.3g}"
            room = side - pages.width_of(told) - 6
            name = fitted(Path(response.name).name, room)
            items.append(Text(x, y + tallest + 15, name, 11, INK))
            items.append(Text(x + side, y + tallest + 15, told, 11, QUIET, "end"))
        y += tallest + 26
    return items, y


def _where(r: Response, x: float, y: float, width: float, height: float) -> list[Item]:
    assert r.box is not None
    assert r.centre is not None
    down, along = height / r.seen[0], width / r.seen[1]
    left, top, right, bottom = r.box
    items: list[Item] = []
    if (left, top, right, bottom) != (0, 0, r.seen[1], r.seen[0]):
        place = (x + left * along, y + top * down, (right - left) * along, (bottom - top) * down)
        # Light around dark, to be seen on any photograph.
        items.append(pages.rectangle(*place, colour="#ffffff", line=3))
        items.append(pages.rectangle(*place, colour=ACCENT, line=1.5))
    centre = (x + r.centre[0] * along, y + r.centre[1] * down)
    items.append(Ring(*centre, 3.5, "#ffffff", 3.5))
    items.append(Ring(*centre, 3.5, ACCENT, 1.8))
    return items


def _plot(card: Card, breadth: float) -> list[Item]:
    """The responses from the strongest to the weakest, as a line over their ranks."""
    values = [_value(r, card) for r in card.responses]
    low, high = min(0.0, *values), max(0.0, *values)
    if high == low:
        high = low + 1
    ticks = _ticks(low, high)
    gutter = max(pages.width_of(_figure(t)) for t in ticks) + 8
    width = breadth - gutter

    def place(rank: float, value: float) -> tuple[float, float]:
        across = (rank + 0.5) / len(values)
        return gutter + across * width, PLOT * (1 - (value - low) / (high - low))

    items: list[Item] = []
    for tick in ticks:
        _, y = place(0, tick)
        colour = QUIET if tick == 0 else FAINT
        items.append(Lines(((gutter, y), (breadth, y)), colour, 1))
        items.append(Text(gutter - 8, y + 4, _figure(tick), 11, QUIET, "end"))
    points = [place(i, value) for i, value in enumerate(values)]
    ends = [place(-0.5, values[0]), *points, place(len(values) - 0.5, values[-1])]
    floor = place(0, 0.0)[1]
    under = ((ends[0][0], floor), *ends, (ends[-1][0], floor))
    items.append(Lines(under, None, 0, "#fbe3ea"))
    items.append(Lines(tuple(ends), ACCENT, 1.8))
    items.append(Text(gutter, PLOT + 16, "1", 11, QUIET))
    items.append(Text(breadth, PLOT + 16, str(len(values)), 11, QUIET, "end"))
    return items


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers within a range, zero among them."""
    rough = (high - low) / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _figure(value: float) -> str:
    return f"{value:.3g}"
