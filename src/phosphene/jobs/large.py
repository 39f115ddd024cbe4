"""How much work a request asks for, before anything is loaded or begun.

A request or a recipe may be a stranger's. What it asks for within its settings' bounds can still
take days, so what is far beyond the usual is for whoever runs it to allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phosphene.errors import RequestError
from phosphene.image.files import open_image
from phosphene.jobs.inputs import SKY
from phosphene.jobs.request import Request
from phosphene.recipes.dream import MOST_OCTAVES

if TYPE_CHECKING:
    from phosphene.films.frames import FilmInfo

MOST_WORK = 4_000_000_000
"""px times steps that are usual at most: a dream of 100 megapixels has 2,000 million."""

OF_A_FILM = 20  # times the work of a picture: 20 minutes of 640×360 at 3 steps have two thirds

USUAL_SPEED = 1_000_000  # px times steps a second, of the bundled network on two cores

DRAWN = 256  # px a side, of what is drawn from noise where its size is left to the recipe


def refuse_large(request: Request, settings: Any) -> None:
    """RequestError if a request asks for far more work than is usual.

    Work is px times steps, over all octaves and over the channels that a page names. How many
    channels a whole layer has, the network alone knows: they are not counted.
    """
    width, height = picture_size(request, settings)
    steps = getattr(settings, "steps", 1)
    count, what, most = _pictures(request, settings)
    work = work_of(request, settings)
    if work > most:
        raise RequestError(
            f"this asks for {steps} steps of {width}×{height} px{_octaves_text(settings)}"
            + (f" for each of {count} {what}" if count > 1 else "")
            + f", {work / most:.3g} times the most that is begun unasked: allow it with --large"
        )


def work_of(request: Request, settings: Any) -> float:
    """How much work a request asks for: px times steps."""
    width, height = picture_size(request, settings)
    count, _, _ = _pictures(request, settings)
    return width * height * _areas_of_octaves(settings) * getattr(settings, "steps", 1) * count


def refuse_large_parts(requests: Sequence[Request], count: int, most: int) -> None:
    """RequestError if what is put together of so many parts is far more work than is usual.

    requests: the parts, or some of them where `count` is more than `most`.
    """
    works = [work_of(request, request.checked_settings()) for request in requests]
    work = sum(works) / len(works) * count
    if count > most or work > MOST_WORK:
        why = f", of which {most} are begun unasked" if count > most else ""
        raise RequestError(
            f"this asks for {count} pictures{why}, roughly {_duration(work / USUAL_SPEED)} through "
            "dreamnet on two cores: allow it with --large"
        )


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(1, seconds):.0f} s"


def _areas_of_octaves(settings: Any) -> float:
    """What all octaves have together, where the picture is 1; of as many as auto takes at most."""
    octaves, scale = getattr(settings, "octaves", 1), getattr(settings, "octave_scale", 1.0)
    count = MOST_OCTAVES if octaves == "auto" else octaves
    keyed = any("octave_scale" in text for text in getattr(settings, "keyframes", ()))
    if keyed and octaves != "auto":
        scale = 1.0  # it may come as near to that
    return sum(scale ** (-2 * k) for k in range(count))


def _octaves_text(settings: Any) -> str:
    octaves = getattr(settings, "octaves", 1)
    return f" in each of {octaves} octaves" if octaves not in (1, "auto") else ""


def _drawings(settings: Any) -> int:
    """How many drawings a page names: its own count, channels, three groups of them, or seeds."""
    if hasattr(settings, "drawings"):
        return settings.drawings
    if getattr(settings, "channels", None):
        return len(settings.channels)
    if getattr(settings, "top", None):
        return 3 * settings.top
    return getattr(settings, "seeds", 0) + 1  # a unit is drawn once with its sign turned, too


def _pictures(request: Request, settings: Any) -> tuple[int, str, int]:
    """How many pictures or frames are worked on, what they are, and the most work for all."""
    recipe = request.declaration
    subjects = max(1, len(request.objectives) + len(request.layers))
    if recipe.output == "video":
        film = _film(request)
        frames = subjects * getattr(settings, "frames", 1) if film is None else film.count or 1
        return frames, "frames", MOST_WORK * OF_A_FILM
    if recipe.output == "page":
        return subjects * _drawings(settings), "drawings", MOST_WORK
    count = subjects * getattr(settings, "batch", 1) if recipe.several else 1
    return count, "pictures", MOST_WORK


def picture_size(request: Request, settings: Any) -> tuple[int, int]:
    """Width and height, px, of what is worked on; of pictures by their headers alone."""
    size = request.size
    if size is None and isinstance(own := getattr(settings, "size", None), int):
        return own, own
    film, photo = _film(request), _photo(request)
    if film is not None:
        width, height = film.width, film.height
    elif photo is not None and any(entry.resized for entry in request.declaration.inputs):
        with open_image(photo) as file:
            width, height = file.size
    elif request.declaration.starts:
        width, height = SKY
    else:
        return size or DRAWN, size or DRAWN
    scale = size / max(width, height) if size else 1
    return max(1, round(width * scale)), max(1, round(height * scale))


def _film(request: Request) -> FilmInfo | None:
    """What the film says of itself that it goes through, if there is one."""
    for entry in request.declaration.inputs:
        if entry.kind == "video" and entry.role in request.inputs:
            from phosphene.films import film_info

            return film_info(request.inputs[entry.role].path)
    return None


def _photo(request: Request) -> Path | None:
    """The picture that it begins with, if it begins with one."""
    for entry in request.declaration.inputs:
        if entry.required and entry.role in request.inputs:
            return Path(request.inputs[entry.role].path)
    return None
