"""The page of a sheet."""

from __future__ import annotations

import math

from phosphene import image as images
from phosphene.explain.cells import describe_settings
from phosphene.explain.pages import (
    FAINT,
    INK,
    QUIET,
    ImageItem,
    Item,
    Page,
    Text,
    fit_inside,
    format_number,
    rectangle,
    text_width,
    truncate_text,
    without_rim,
)
from phosphene.explain.sheets import Group, Sheet

LEAST_CELL_SIDE = 96  # px, the longest side of a cell on the page
MARGIN, GAP, LABEL = 24.0, 6.0, 17.0


def sheet_page(sheet: Sheet) -> Page:
    """A sheet laid out: a heading, the photograph if there is one, and the cells in rows."""
    s = sheet.settings
    tall, wide = images.size_of(without_rim(sheet.cells))
    longest = max(tall, wide)
    scale = (max(LEAST_CELL_SIDE, longest) if s.cell == "auto" else s.cell) / longest
    height, width = round(tall * scale), round(wide * scale)
    groups = sheet.groups or (Group("", sheet.channels),)
    columns = min(_columns(sheet, width / height), max(len(g.channels) for g in groups))
    step = width + GAP
    breadth = max(columns * step - GAP, 420.0)
    items: list[Item] = []
    y = MARGIN + 16
    items.append(
        Text(MARGIN, y, truncate_text(f"{sheet.network} · {sheet.layer}", breadth, 20), 20)
    )
    y += 18
    items.append(Text(MARGIN, y, truncate_text(sheet.about, breadth), 11, QUIET))
    y += 14
    if sheet.photo is not None:
        _, _, w, h = fit_inside(sheet.photo, min(breadth, 3 * width), 2 * height)
        small = images.resize(sheet.photo.float(), (round(h), round(w))).clamp(0, 1)
        items.append(ImageItem(MARGIN, y, round(w), round(h), small[0]))
        y += round(h) + GAP
    place = {channel: i for i, channel in enumerate(sheet.channels)}
    for group in groups:
        if group.name:
            y += 22
            items.append(Text(MARGIN, y, group.name, 14))
            y += 8
        for i, channel in enumerate(group.channels):
            x, top = MARGIN + i % columns * step, y + i // columns * (height + LABEL + GAP)
            items += _cell_items(sheet, place[channel], x, top, width, height)
        y += -(-len(group.channels) // columns) * (height + LABEL + GAP)
    y += 12
    items.append(Text(MARGIN, y, truncate_text(_footer(sheet), breadth), 11, QUIET))
    title = f"{sheet.network} {sheet.layer}"
    return Page(breadth + 2 * MARGIN, y + MARGIN - 6, tuple(items), title)


def _columns(sheet: Sheet, aspect: float) -> int:
    if sheet.settings.columns != "auto":
        return sheet.settings.columns
    if sheet.groups:
        return 16
    count = len(sheet.channels)
    return count if count <= 8 else max(8, min(40, math.ceil(math.sqrt(count / aspect))))


def _cell_items(
    sheet: Sheet, i: int, x: float, y: float, width: float, height: float
) -> list[Item]:
    foot = y + height + 12
    items: list[Item]
    if sheet.dead[i]:
        items = [
            rectangle(x, y, width, height, fill=FAINT),
            Text(x + width / 2, y + height / 2 + 4, "dead", 11, QUIET, "middle"),
        ]
    else:
        items = [ImageItem(x, y, width, height, without_rim(sheet.cells[i]))]
    space = width
    if sheet.strengths:
        number = format_number(sheet.strengths[i])
        items.append(Text(x + width, foot, number, 11, QUIET, "end"))
        space -= text_width(number) + 6
    items.append(Text(x, foot, truncate_text(sheet.labels[i], space), 11, INK))
    return items


def _footer(sheet: Sheet) -> str:
    text = f"phosphene {sheet.version} · {describe_settings(sheet.settings, sheet.cells)}"
    dead = sum(sheet.dead)
    if dead:
        text += f" · {dead} of {len(sheet.dead)} dead"
    if sheet.groups:
        text += " · numbers at the right: mean over positions, shown the photograph"
    return text
