"""The page of a class's story."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

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
    Text,
    rectangle,
    text_width,
    translated,
    truncate_text,
)
from phosphene.explain.story import Drawing, Push, Story

MARGIN, GAP = 32.0, 22.0
SIDE = 200.0  # px, the longest side of a drawing on the page
COLUMNS = 4
BAR = 19.0  # px, from one class to the next
LABEL = 44.0  # px, below a drawing with outlines
PALE = 0.35  # how far towards white a drawing goes on which lines are drawn


def story_page(story: Story) -> Page:
    """A story laid out: a column for each drawing, with its classes and what raises them."""
    tall, wide = images.size_of(story.drawings[0].image)
    scale = SIDE / max(tall, wide)
    size = wide * scale, tall * scale
    columns = min(COLUMNS, len(story.drawings))
    breadth = max(columns * (size[0] + GAP) - GAP, 620.0)
    items: list[Item] = []
    y = MARGIN + 16
    heading = f"{story.network} · {story.name}"
    items.append(Text(MARGIN, y, truncate_text(heading, breadth, 22), 22))
    y += 2
    for line in _about(story):
        y += 18
        items.append(Text(MARGIN, y, truncate_text(line, breadth, 12), 12, QUIET))
    y += 22
    for first in range(0, len(story.drawings), columns):
        block, height = _block(story, story.drawings[first : first + columns], size, breadth)
        items += translated(block, MARGIN, y)
        y += height
    items.append(Text(MARGIN, y, truncate_text(_footer(story), breadth), 11, QUIET))
    return Page(breadth + 2 * MARGIN, y + MARGIN - 10, tuple(items), heading)


def _about(story: Story) -> tuple[str, str]:
    height, width = story.view
    count = len(story.drawings)
    times = {1: "once", 2: "twice", 3: "three times"}.get(count, f"{count} times")
    return (
        f"Drawn from noise {times}. A network's idea of a class includes what always comes with "
        f"it: what else does it see",
        f"in its own drawing, shown at {width}×{height} px, and where?",
    )


def _block(
    story: Story, drawings: Sequence[Drawing], size: tuple[float, float], breadth: float
) -> tuple[list[Item], float]:
    """Some drawings, a column each, and how high they are together."""
    width, height = size
    items: list[Item] = []

    def row(y: float, cells: Iterable[Sequence[Item]]) -> None:
        for k, cell in enumerate(cells):
            items.extend(translated(cell, k * (width + GAP), y))

    row(0.0, (_drawn(story, drawing, width, height) for drawing in drawings))
    y = height + 34 + BAR * story.settings.shown
    about = "outlined: contrast to grey times gradient, the highest part"
    for title, pushes in (
        (f"What raises {story.name}", [d.own for d in drawings]),
        ("What raises the most probable other class", [d.second for d in drawings]),
    ):
        title = truncate_text(title, 0.6 * breadth, 14)
        items.append(Text(0, y + 14, title, 14))
        offset = text_width(title, 14) + 10
        items.append(Text(offset, y + 14, truncate_text(about, breadth - offset), 11, QUIET))
        about = ""
        y += 24
        row(y, (_outlined(story, d, p, size) for d, p in zip(drawings, pushes, strict=True)))
        y += height + LABEL
    return items, y + 12


def _drawn(story: Story, drawing: Drawing, width: float, height: float) -> list[Item]:
    """A drawing, and the classes that are seen in it."""
    seed = Text(0, height + 15, f"seed {drawing.seed}", 11, QUIET)
    if drawing.dead:
        return [
            rectangle(0, 0, width, height, fill=FAINT),
            Text(width / 2, height / 2 + 4, "dead", 12, QUIET, "middle"),
            seed,
        ]
    items: list[Item] = [ImageItem(0, 0, width, height, drawing.image), seed]
    y = height + 28
    for index, chance in drawing.chances:
        items += translated(_bar(story, index, chance, width), 0, y)
        y += BAR
    return items


def _bar(story: Story, index: int, chance: float, width: float) -> list[Item]:
    """A class, as long a line as it is probable, and how probable that is."""
    own = index == story.index
    number = percent(chance)
    room = width - text_width(number) - 8
    return [
        Lines(((0, 14), (width, 14)), FAINT, 3),
        Lines(((0, 14), (max(1.0, width * chance), 14)), ACCENT if own else QUIET, 3),
        Text(0, 9, truncate_text(story.names[index], room), 11, INK),
        Text(width, 9, number, 11, QUIET, "end"),
    ]


def _outlined(
    story: Story, drawing: Drawing, push: Push | None, size: tuple[float, float]
) -> list[Item]:
    """A drawing with lines around what raises a class, and what that is worth; of none, nothing."""
    if push is None:
        return []
    width, height = size
    scale = height / images.size_of(drawing.image)[0]
    pale = drawing.image.lerp(torch.ones_like(drawing.image), PALE)
    items: list[Item] = [ImageItem(0, 0, width, height, pale)]
    for line in push.lines:
        points = tuple((x * scale, y * scale) for x, y in line)
        # Light around dark, to be seen on any drawing.
        items += [Lines(points, "#ffffff", 3.0), Lines(points, ACCENT, 1.5)]
    score = f"score {push.score:.1f}"
    told = f"grey there {push.covered:.1f}, grey elsewhere {push.by_chance:.1f}"
    name = truncate_text(story.names[push.index], width - text_width(score) - 8)
    return [
        *items,
        Text(0, height + 15, name, 11, INK),
        Text(width, height + 15, score, 11, QUIET, "end"),
        Text(0, height + 30, truncate_text(told, width), 11, QUIET),
    ]


def percent(chance: float) -> str:
    """A probability as pages write it, in per cent.

    >>> [percent(chance) for chance in (0.99961, 0.231, 0.0123, 0.000223, 1e-7)]
    ['99.96 %', '23 %', '1.2 %', '0.022 %', '< 0.001 %']
    """
    value = 100 * chance
    if value < 0.001:
        return "< 0.001 %"
    return f"{value:.4g} %" if value >= 99 else f"{value:.2g} %"


def _footer(story: Story) -> str:
    s = story.settings
    settings = describe_settings(s, story.drawings[0].image)
    more = " and on" if s.seeds > 1 else ""
    return (
        f"phosphene {story.version} · {settings}{more} · outlined: {100 * s.outlined:g} % "
        "of a drawing at most"
    )
