"""The page of a dream's octaves."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from phosphene import image as images
from phosphene.explain.octaves import Octave, Pyramid
from phosphene.explain.pages import (
    INK,
    QUIET,
    ImageItem,
    Item,
    Page,
    Text,
    format_number,
    text_width,
    truncate_text,
)

LARGEST = 340  # px, the longest side of the largest octave on the page
MARGIN, GAP = 32.0, 22.0
LABEL, HEAD = 34.0, 38.0  # px, below a picture and above a row of them


@dataclass(frozen=True)
class _Row:
    """A row of the page: what it is called, what that means, and the picture of an octave."""

    title: str
    about: str
    pictures: tuple[Tensor, ...]


def octave_page(pyramid: Pyramid) -> Page:
    """A pyramid laid out: a column for each octave, drawn to one scale, and three rows."""
    s, octaves = pyramid.settings, pyramid.octaves
    longest = max(octaves[-1].size)
    scale = (LARGEST if s.cell == "auto" else s.cell) / longest
    columns = [_column_width(octave, scale) for octave in octaves]
    breadth = max(sum(columns) + GAP * (len(columns) - 1), 560.0)
    items: list[Item] = []
    y = MARGIN + 16
    heading = f"{pyramid.network} · {pyramid.title}"
    items.append(Text(MARGIN, y, truncate_text(heading, breadth, 22), 22))
    y += 20
    items.append(Text(MARGIN, y, truncate_text(_about(pyramid), breadth, 12), 12, QUIET))
    y += 14
    for row in _rows(pyramid):
        y += HEAD
        items.append(Text(MARGIN, y - 12, row.title, 14))
        offset = text_width(row.title, 14) + 10
        about = truncate_text(row.about, breadth - offset)
        items.append(Text(MARGIN + offset, y - 12, about, 11, QUIET))
        foot, x = y + max(octave.size[0] * scale for octave in octaves), MARGIN
        for octave, picture, width in zip(octaves, row.pictures, columns, strict=True):
            items += _cell(octave, picture, x, foot, scale)
            x += width + GAP
        y = foot + LABEL
    y += 22
    items.append(Text(MARGIN, y, truncate_text(_footer(pyramid), breadth), 11, QUIET))
    return Page(breadth + 2 * MARGIN, y + MARGIN - 10, tuple(items), heading)


def _rows(pyramid: Pyramid) -> list[_Row]:
    octaves, times = pyramid.octaves, pyramid.settings.amplify
    carried = tuple((0.5 + times * octave.carried).clamp(0, 1) for octave in octaves)
    return [
        _Row(
            "Before",
            "the photograph at this size, with what came up from the octave before it",
            tuple(octave.before for octave in octaves),
        ),
        _Row("After", "its steps of ascent", tuple(octave.after for octave in octaves)),
        _Row(
            "What goes up",
            f"after less the photograph, times {times:g}; mid-grey is nothing. Of the last octave: "
            "all that was added",
            carried,
        ),
    ]


def _name(octave: Octave) -> str:
    return f"octave {octave.number}"


def _measure(octave: Octave) -> str:
    return f"{octave.size[1]}×{octave.size[0]} px"


def _column_width(octave: Octave, scale: float) -> float:
    words = max(text_width(_name(octave)), text_width(_measure(octave)))
    return max(octave.size[1] * scale, words)


def _cell(octave: Octave, picture: Tensor, x: float, foot: float, scale: float) -> list[Item]:
    height, width = (side * scale for side in octave.size)
    # No more px than the page shows: an SVG holds each of them.
    most = tuple(max(1, round(Pyramid.page_scale * side)) for side in (height, width))
    if most[0] < octave.size[0]:
        picture = images.resize(picture, (most[0], most[1])).clamp(0, 1)
    return [
        ImageItem(x, foot - height, width, height, picture[0]),
        Text(x, foot + 15, _name(octave), 11, INK),
        Text(x, foot + 29, _measure(octave), 11, QUIET),
    ]


def _about(pyramid: Pyramid) -> str:
    scores = [octave.scores for octave in pyramid.octaves]
    grown = f"{format_number(scores[0][0])} to {format_number(scores[-1][-1])}"
    return (
        f"{len(scores)} octave{'s' * (len(scores) > 1)}, each {pyramid.settings.octave_scale:g} "
        f"times as large as the one before it; score from {grown}"
    )


def _footer(pyramid: Pyramid) -> str:
    s = pyramid.settings
    return (
        f"phosphene {pyramid.version} · preset {s.preset}, {s.steps} steps an octave, "
        f"step size {s.step_size:g}, seed {s.seed}"
    )
