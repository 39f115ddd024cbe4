"""The page of labelled cells of one size, in rows: panels and grids alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from phosphene import image as images
from phosphene.explain.pages import (
    ACCENT,
    FAINT,
    INK,
    QUIET,
    ImageItem,
    Item,
    Page,
    Text,
    rectangle,
    text_width,
    truncate_text,
)

LEAST_CELL, MOST_CELL = 96, 288  # px, the longest side of a cell where nobody says
BREADTH = 1180  # px, that cells keep within where nobody says how many stand in a row
LEAST_BREADTH = 340.0  # px, for the heading
MARGIN, GAP = 20.0, 8.0
# A page as wide as a phone, 390 px, is read as it is; of a wider one the letters grow with it.
LETTERS = (12.0, 22.0, 0.019)  # px at least and at most, and of the page's breadth


@dataclass(frozen=True)
class PageCell:
    """A picture with its caption.

    picture: `(3, h, w)` in [0, 1]; None for a cell that has none, of which `said` tells.
    frame: left, top, width and height of a part of it, shares of the picture; `cut`, `(3, h, w)`,
        is that part, shown enlarged below.
    """

    picture: Tensor | None = field(default=None, repr=False)
    caption: str = ""
    said: str = ""
    frame: tuple[float, float, float, float] | None = None
    cut: Tensor | None = field(default=None, repr=False)


def cell_side(longest: int, columns: int) -> int:
    """The longest side of a cell, px, of pictures whose longest is `longest`, if nobody says."""
    room = (BREADTH + GAP) / columns - GAP
    return round(max(LEAST_CELL, min(longest, MOST_CELL, room)))


def wrapped_columns(count: int, side: float) -> int:
    """How many of `count` cells of that side stand in a row, the rows as even as can be.

    >>> wrapped_columns(10, 288)
    4
    """
    most = max(1, int((BREADTH + GAP) // (side + GAP)))
    return math.ceil(count / math.ceil(count / most))


def cells_page(
    heading: str,
    about: str,
    cells: Sequence[PageCell],
    *,
    columns: int,
    cell: int | None = None,
    column_heads: Sequence[str] = (),
    row_heads: Sequence[str] = (),
    footer: str = "",
) -> Page:
    """A heading and the cells, in rows of `columns`, each in the middle of a box of one size.

    Args:
        cells: row by row.
        cell: the longest side of a picture on the page, px.
        column_heads, row_heads: words over each column, and beside each row.
    """
    boxes = [images.size_of(c.picture) for c in cells if c.picture is not None]
    longest = max((max(box) for box in boxes), default=LEAST_CELL)
    side = cell or cell_side(longest, columns)
    shown = [(w * side / max(h, w), h * side / max(h, w)) for h, w in boxes] or [(side, side)]
    width, height = (round(max(box[k] for box in shown)) for k in (0, 1))
    grid_breadth = columns * (width + GAP) - GAP
    letters = _letters(grid_breadth + 2 * MARGIN)
    beside = _breadth_beside(row_heads, width, letters)
    breadth = max(beside + grid_breadth, LEAST_BREADTH)
    left = MARGIN + beside
    items, y = _heading(heading, about, breadth, letters)
    if column_heads:
        y += letters
        items += _column_heads(column_heads, left, y, width, letters)
        y += 0.7 * letters
    for row in range(math.ceil(len(cells) / columns)):
        of_row = cells[row * columns : (row + 1) * columns]
        if row_heads:
            text = truncate_text(row_heads[row], beside - 2 * GAP, letters)
            items.append(Text(MARGIN, y + height / 2 + letters / 3, text, letters))
        for k, each in enumerate(of_row):
            items += _cell(each, left + k * (width + GAP), y, width, height, side, letters)
        y = _below(y, of_row, width, height, letters)
    y += 0.5 * letters
    if footer:
        small = max(11.0, 0.8 * letters)
        y += small
        items.append(Text(MARGIN, y, truncate_text(footer, breadth, small), small, QUIET))
    return Page(breadth + 2 * MARGIN, y + MARGIN, tuple(items), heading)


def _breadth_beside(row_heads: Sequence[str], width: float, letters: float) -> float:
    """What the words beside the rows take, of cells so wide."""
    if not row_heads:
        return 0.0
    widest = max(text_width(head, letters) for head in row_heads)
    return min(widest, max(1.25 * width, 6 * letters)) + 2 * GAP


def _heading(heading: str, about: str, breadth: float, letters: float) -> tuple[list[Item], float]:
    """The lines at the top, and where what is below them begins."""
    items: list[Item] = []
    y = MARGIN
    for text, size, colour in ((heading, 1.5 * letters, INK), (about, letters, QUIET)):
        if text:
            y += 1.25 * size
            items.append(Text(MARGIN, y, truncate_text(text, breadth, size), size, colour))
    return items, y + 1.2 * letters


def _column_heads(
    heads: Sequence[str], left: float, y: float, width: float, letters: float
) -> Iterator[Item]:
    for k, head in enumerate(heads):
        middle = left + k * (width + GAP) + width / 2
        yield Text(middle, y, truncate_text(head, width, letters), letters, anchor="middle")


def _below(y: float, row: Sequence[PageCell], width: float, height: float, letters: float) -> float:
    """Where the next row begins, below cells, what is cut out of them, and captions."""
    y += height + GAP
    if any(each.cut is not None for each in row):
        y += width + GAP
    if any(each.caption for each in row):
        y += 1.4 * letters + GAP
    return y


def _letters(breadth: float) -> float:
    least, most, share = LETTERS
    return round(min(most, max(least, share * breadth)))


def _cell(
    cell: PageCell, x: float, y: float, width: float, height: float, side: float, letters: float
) -> list[Item]:
    items: list[Item] = []
    if cell.picture is None:
        items.append(rectangle(x, y, width, height, fill=FAINT))
        place = (x + width / 2, y + height / 2 + letters / 3)
        said = truncate_text(cell.said, width - 8, letters)
        items.append(Text(*place, said, letters, QUIET, "middle"))
    else:
        tall, wide = images.size_of(cell.picture)
        w, h = round(wide * side / max(tall, wide)), round(tall * side / max(tall, wide))
        at, top = x + (width - w) // 2, y + (height - h) // 2
        items.append(ImageItem(at, top, w, h, cell.picture))
        if cell.frame is not None:
            a, b, c, d = cell.frame
            frame = (at + a * w, top + b * h, c * w, d * h)
            items.append(rectangle(*frame, colour="#ffffff", line=3))
            items.append(rectangle(*frame, colour=ACCENT, line=1.5))
    y += height
    if cell.cut is not None:
        enlarged = images.resize(cell.cut[None], (round(width), round(width))).clamp(0, 1)[0]
        items.append(ImageItem(x, y + GAP, width, width, enlarged))
        items.append(rectangle(x + 0.75, y + GAP + 0.75, width - 1.5, width - 1.5,
                               colour=ACCENT, line=1.5))  # fmt: skip
        y += width + GAP
    if cell.caption:
        text = truncate_text(cell.caption, width, letters)
        items.append(Text(x, y + 1.15 * letters, text, letters))
    return items
