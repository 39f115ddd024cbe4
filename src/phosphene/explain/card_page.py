"""The page of a unit's card."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from phosphene import image as images
from phosphene.explain.cells import describe_settings
from phosphene.explain.pages import (
    ACCENT,
    FAINT,
    INK,
    QUIET,
    ImageItem,
    Item,
    Lines,
    Page,
    Ring,
    Text,
    fit_inside,
    format_number,
    rectangle,
    text_width,
    translated,
    truncate_text,
    without_rim,
)
from phosphene.explain.responses import Response
from phosphene.explain.units import Card

WIDTH, MARGIN, GAP = 920.0, 32.0, 12.0
PLOT = 130.0  # px, the height of the curve


def card_page(card: Card) -> Page:
    """A card laid out: what the unit answers to, the photographs of both ends, and their curve."""
    breadth = WIDTH - 2 * MARGIN
    items: list[Item] = []
    y = MARGIN + 16
    heading = f"{card.network} · {card.unit}" + (f" · {card.name}" if card.name else "")
    items.append(Text(MARGIN, y, truncate_text(heading, breadth, 22), 22))
    y += 20
    items.append(Text(MARGIN, y, truncate_text(f"one of {card.about}", breadth, 12), 12, QUIET))
    y += 30
    cells, height = _visualizations(card, breadth)
    items += translated(cells, MARGIN, y)
    y += height
    if card.responses:
        for name, row in (("excite it most", card.most), ("excite it least", card.least)):
            if not row:
                continue
            y += 14
            items.append(Text(MARGIN, y + 14, f"Pictures that {name}", 14))
            y += 24
            photos, height = _photos(card, row, breadth)
            items += translated(photos, MARGIN, y)
            y += height
        y += 14
        measure = {"mean": "mean over positions", "peak": "strongest position"}
        count = len(card.responses)
        title = f"How strongly each of {count} pictures excites it"
        items.append(Text(MARGIN, y + 14, title, 14))
        offset = text_width(title, 14) + 10
        by = f"{measure[card.settings.rank]}, sorted"
        items.append(Text(MARGIN + offset, y + 14, by, 11, QUIET))
        y += 28
        items += translated(_plot(card, breadth), MARGIN, y)
        y += PLOT + 22
    y += 16
    items.append(Text(MARGIN, y, truncate_text(_footer(card), breadth), 11, QUIET))
    return Page(WIDTH, y + MARGIN - 10, tuple(items), heading)


def _footer(card: Card) -> str:
    settings = describe_settings(card.settings, card.visualizations[0].image)
    text = f"phosphene {card.version} · {settings}"
    if card.settings.seeds > 1:
        text += " and on"
    text += f" · weights {card.fingerprint[:12]}"
    if card.skipped:
        count = len(card.skipped)
        text += f" · {count} unreadable file{'s' * (count > 1)} left out"
    return text


def _value(r: Response, card: Card) -> float:
    return r.mean if card.settings.rank == "mean" else r.peak


def _visualizations(card: Card, breadth: float) -> tuple[list[Item], float]:
    items: list[Item] = []
    tall, wide = images.size_of(without_rim(card.visualizations[0].image))
    columns = max(4, min(len(card.visualizations), 6))
    room = (breadth - (columns - 1) * GAP) / columns
    scale = min(room / wide, 1.4 * room / tall)
    width, height = wide * scale, tall * scale
    for i, one in enumerate(card.visualizations):
        x, y = i % columns * (room + GAP), i // columns * (height + 26)
        label = "negative" if one.negative else f"seed {one.seed}"
        if one.dead:
            items.append(rectangle(x, y, width, height, fill=FAINT))
            items.append(Text(x + width / 2, y + height / 2 + 4, "dead", 12, QUIET, "middle"))
        else:
            items.append(ImageItem(x, y, width, height, without_rim(one.image)))
            items.append(
                Text(x + width, y + height + 15, format_number(one.response), 11, QUIET, "end")
            )
        items.append(Text(x, y + height + 15, label, 11))
    return items, -(-len(card.visualizations) // columns) * (height + 26)


def _photos(card: Card, row: Sequence[Response], breadth: float) -> tuple[list[Item], float]:
    items: list[Item] = []
    columns = max(6, min(len(row), 8))
    side = (breadth - (columns - 1) * GAP) / columns
    y = 0.0
    for start in range(0, len(row), columns):
        line = row[start : start + columns]
        photos = [images.load_image(response.path) for response in line]
        frames = [fit_inside(photo, side, side) for photo in photos]
        tallest = max(height for _, _, _, height in frames)
        for i, (response, photo, frame) in enumerate(zip(line, photos, frames, strict=True)):
            x = i * (side + GAP)
            left, _, width, height = frame
            size = (max(1, round(Card.page_scale * height)), max(1, round(Card.page_scale * width)))
            small = images.resize(photo, size).clamp(0, 1)
            left, top = x + left, y + tallest - height
            items.append(ImageItem(left, top, width, height, small[0]))
            if response.position is not None:
                items += _mark_position(response, left, top, width, height)
            number = format_number(_value(response, card))
            room = side - text_width(number) - 6
            name = truncate_text(Path(response.name).name, room)
            items.append(Text(x, y + tallest + 15, name, 11, INK))
            items.append(Text(x + side, y + tallest + 15, number, 11, QUIET, "end"))
        y += tallest + 26
    return items, y


def _mark_position(r: Response, x: float, y: float, width: float, height: float) -> list[Item]:
    assert r.box is not None
    assert r.centre is not None
    down, along = height / r.view_size[0], width / r.view_size[1]
    left, top, right, bottom = r.box
    items: list[Item] = []
    if (left, top, right, bottom) != (0, 0, r.view_size[1], r.view_size[0]):
        place = (x + left * along, y + top * down, (right - left) * along, (bottom - top) * down)
        # Light around dark, to be seen on any photograph.
        items.append(rectangle(*place, colour="#ffffff", line=3))
        items.append(rectangle(*place, colour=ACCENT, line=1.5))
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
    gutter = max(text_width(format_number(t)) for t in ticks) + 8
    width = breadth - gutter

    def place(rank: float, value: float) -> tuple[float, float]:
        across = (rank + 0.5) / len(values)
        return gutter + across * width, PLOT * (1 - (value - low) / (high - low))

    items: list[Item] = []
    for tick in ticks:
        _, y = place(0, tick)
        colour = QUIET if tick == 0 else FAINT
        items.append(Lines(((gutter, y), (breadth, y)), colour, 1))
        items.append(Text(gutter - 8, y + 4, format_number(tick), 11, QUIET, "end"))
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
