"""The page of a film's keyframes: the curve of each keyed setting, below one another."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

from phosphene import image as images
from phosphene.errors import ImageError, SettingsError
from phosphene.explain import pages
from phosphene.explain.pages import (
    FAINT,
    INK,
    QUIET,
    Item,
    Lines,
    Page,
    Ring,
    Text,
    format_number,
    text_width,
    truncate_text,
)
from phosphene.films.keys import Curve, Keys
from phosphene.films.times import frame_times

COLOURS = ("#e0245e", "#1d6fd1", "#1f9d57", "#d97f00", "#7b4fd0", "#0f8f9c", "#8a5a3c", "#4a4a50")
WIDTH, PANEL, HEADING, MARGIN, AXIS = 760.0, 110.0, 30.0, 24.0, 52.0
MOST_POINTS, MOST_RINGS = 1500, 60


def plot_keys(
    keys: Keys,
    path: Path,
    *,
    rate: Fraction | None,
    duration: Fraction | None,
    overwrite: bool = True,
) -> None:
    """Draw the curves of keys into a file: SVG, or a picture of twice the page's measures.

    Args:
        keys: what `Keys.check` has found right.
        path: its suffix says what is written.
        rate: frames a second; None where it is not constant.
        duration: of the film, s.
        overwrite: replace a file that is there.

    Raises:
        ImageError: a suffix that is none of these, or a file that cannot be written.
        SettingsError: a value that is not finite; no keys; a length that is not known.
    """
    suffix = path.suffix.lower()
    if suffix != ".svg" and suffix not in images.SUFFIXES:
        raise ImageError(
            f"{str(path)!r} cannot hold curves; expected one of .svg, {', '.join(images.SUFFIXES)}"
        )
    page = key_page(keys, rate=rate, duration=duration)
    if suffix == ".svg":
        images.write_atomically(path, pages.as_svg(page).encode(), overwrite=overwrite)
    else:
        images.save_image(pages.as_tensor(page, 2), path, overwrite=overwrite)


def key_page(keys: Keys, *, rate: Fraction | None, duration: Fraction | None) -> Page:
    """The curves of keys, one a panel, each with an axis of its own; time runs to the right."""
    if not keys.keys:
        raise SettingsError("there are no keys to draw; expected at least one")
    if not duration:
        raise SettingsError("keys cannot be drawn, since the length of the film is not known")
    curves = keys.curves(rate=rate, duration=duration)
    items: list[Item] = []
    for number, curve in enumerate(curves):
        top = MARGIN + number * (HEADING + PANEL)
        items += _panel(curve, COLOURS[number % len(COLOURS)], top, rate, duration)
    bottom = MARGIN + len(curves) * (HEADING + PANEL)
    items += _time_axis(bottom, duration)
    return Page(WIDTH, bottom + 44, tuple(items), f"Keyframes: {', '.join(keys.names)}")


def _panel(
    curve: Curve, colour: str, top: float, rate: Fraction | None, duration: Fraction
) -> list[Item]:
    """A heading, which is the legend; grid lines with their numbers; the curve; its keys."""
    points = [(time, curve.at(time)) for time in _sampled(rate, duration)]
    marks = [(time, curve.at(time)) for time in curve.times] if len(curve.times) > 1 else []
    values = [value for _, value in points + marks]
    ticks = nice_ticks(min(values), max(values), 3)
    low, high = min(ticks[0], *values), max(ticks[-1], *values)
    name = curve.key.name
    alone = len(curve.times) == 1 and not curve.times[0]
    said = curve.key.text.removeprefix(f"{name} = {'0s: ' if alone else ''}")
    beside = MARGIN + text_width(name, 15) + 10
    items: list[Item] = [
        Text(MARGIN, top + 12, name, 15, colour),
        Text(beside, top + 12, truncate_text(said, WIDTH - MARGIN - beside), 11, QUIET),
    ]

    def place(time: Fraction, value: float) -> tuple[float, float]:
        y = top + HEADING + (PANEL - HEADING) * (1 - (value - low) / (high - low))
        return _across(time, duration), y

    for tick in ticks:
        _, y = place(Fraction(0), tick)
        items.append(Lines(((MARGIN + AXIS, y), (WIDTH - MARGIN, y)), FAINT))
        items.append(Text(MARGIN + AXIS - 8, y + 4, format_number(tick), 11, QUIET, "end"))
    items.append(Lines(tuple(place(*point) for point in points), colour, 2.0))
    if len(marks) <= MOST_RINGS:
        items += [Ring(*place(*mark), 4.0, colour) for mark in marks]
    return items


def _time_axis(y: float, duration: Fraction) -> list[Item]:
    left, right = MARGIN + AXIS, WIDTH - MARGIN
    items: list[Item] = [Lines(((left, y), (right, y)), INK)]
    for tick in nice_ticks(0.0, float(duration), 8):
        x = _across(Fraction(tick), duration)
        if x <= right + 0.5:
            items.append(Lines(((x, y), (x, y + 5)), INK))
            items.append(Text(x, y + 19, f"{tick:.6g} s", 11, QUIET, "middle"))
    return items


def _across(time: Fraction, duration: Fraction) -> float:
    return MARGIN + AXIS + (WIDTH - 2 * MARGIN - AXIS) * float(time / duration)


def _sampled(rate: Fraction | None, duration: Fraction) -> list[Fraction]:
    """The times of all frames and the end, or of so many that lines between them are smooth."""
    if rate and duration * rate <= MOST_POINTS:
        return [*frame_times(rate, duration), duration]
    return [duration * index / MOST_POINTS for index in range(MOST_POINTS + 1)]


def nice_ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers, in even steps of 1, 2 or 5 times a power of ten, from below to above a range.

    >>> nice_ticks(0.13, 1.9, 3)
    [0.0, 1.0, 2.0]
    """
    # A range of nothing, or of no more than rounding, is drawn as a flat line in its middle.
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        margin = 0.5 * abs(low) or 0.5
        low, high = low - margin, high + margin
    rough = high / about - low / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= 0.999 * rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]
