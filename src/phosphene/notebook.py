"""`show`: pictures, pages and films in a notebook, and dreams as they come about."""

from __future__ import annotations

import importlib
import sys
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any, TypeGuard

from PIL import Image
from torch import Tensor

from phosphene.errors import SettingsError
from phosphene.explain.pages import (
    INK,
    ImageItem,
    Item,
    Page,
    PageContent,
    Text,
    page_bundle_of,
    truncate_text,
)
from phosphene.films.frames import Frame
from phosphene.image import grid, size_of
from phosphene.image.shown import Bundle, as_jpeg, film_bundle
from phosphene.recipes.arguments import picture_of
from phosphene.recipes.base import recipe_named, recipe_names

PREVIEW_EVERY = 0.5  # s, from one picture of a dream to the next
LEAST_HEIGHT = 160.0  # px, of pictures side by side
WIDTH = 960.0  # px, of a row of them, at most
RATE = 12  # frames a second, of what has no times
GAP, LETTERS, LINE = 10.0, 13.0, 24.0

_told = False


def show(
    *things: Any,
    captions: Sequence[str] = (),
    height: float | None = None,
    rate: float | None = None,
) -> Any:
    """Show pictures, pages, films and running dreams in a notebook.

    Outside of a notebook nothing is drawn, and a line says so once; steps are gone through all the
    same, so a notebook's cells also run as a script.

    Args:
        *things: each a picture `(N, 3, H, W)` or `(3, H, W)` in [0, 1], the path of one, or one
            that Pillow has opened; a step; a `Frame`; what lies on a page, such as a `Sheet`.
            Several pictures lie side by side. Alone there may be a list of frames or pictures,
            which is shown as a film; or an iterator of steps or frames, such as `dream.steps(…)`,
            which is gone through: each picture takes the place of the one before, under a bar.
            Interrupt it (the stop button) to end there. Frames end as a film.
        captions: of the pictures, in their order.
        height: px, of each picture; of several by default that of the tallest, or 160.
        rate: frames a second of a film; by default the frames' own, or 12 of pictures.

    Returns:
        Of an iterator what the recipe gives, as far as it went: the picture, the page's content; of
        frames all of them, in a list. Else None.

    Raises:
        SettingsError: for what cannot be shown, and captions that are not as many as pictures.

    >>> dream = ph.show(ph.dream.steps(photo, net, "mixed4c"))
    >>> ph.show(photo, dream, captions=["before", "after"])
    """
    if not things:
        raise SettingsError("show: nothing is given; a picture, a page or steps were expected")
    if len(things) == 1 and isinstance(things[0], Iterator):
        return _live(things[0], rate)
    display = _notebook()
    bundle = _bundle(things, captions, height, rate)
    if display is None:
        _tell()
    else:
        display.display(bundle[0], metadata=bundle[1], raw=True)
    return None


# One thing or several ----------------------------------------------------------------------------


def _bundle(
    things: Sequence[Any],
    captions: Sequence[str] = (),
    height: float | None = None,
    rate: float | None = None,
) -> Bundle:
    """What is shown of all things, by its MIME type."""
    if isinstance(captions, str):
        captions = [captions]
    only = things[0] if len(things) == 1 else None
    if isinstance(only, (list, tuple)):
        if not only:
            raise SettingsError("show: the list is empty; frames or pictures were expected")
        own = getattr(only[0], "duration", None) or 1 / RATE
        seconds = float(own) if rate is None else 1 / rate
        return film_bundle([_checked(each) for each in only], seconds)
    if captions and len(captions) != len(things):
        raise SettingsError(
            f"show: {len(captions)} captions for {len(things)} pictures; one for each was expected"
        )
    if _is_page(only):
        return page_bundle_of(only.layout())
    pictures = [_checked(each) for each in things]
    if len(pictures) > 1 or captions:
        return page_bundle_of(_row(pictures, captions, height))
    shown = grid(pictures[0])
    data = {"image/jpeg": b64encode(as_jpeg(shown)).decode()}
    return data, {} if height is None else {"image/jpeg": {"height": height}}


def _checked(thing: Any) -> Tensor:
    """A thing as a picture `(N, 3, H, W)`. SettingsError for what is none."""
    found = _picture(thing)
    if found is None:
        raise SettingsError(
            f"show cannot show {_described(thing)}; expected a picture (N, 3, H, W), a step, a "
            "page's content such as a sheet, frames, or an iterator of steps"
        )
    return found


def _picture(thing: Any) -> Tensor | None:
    """The picture of a step, a frame, a page or a file, or itself; None where there is none yet."""
    if isinstance(thing, (str, Path, Image.Image)):
        thing = picture_of(thing)
    if _is_page(thing):
        from phosphene.explain.layout import pixels

        return pixels(thing)
    if hasattr(thing, "picture"):
        thing = thing.picture()
    elif not isinstance(thing, Tensor):
        # Of a step whose result is a page.
        inner = getattr(thing, "dream", None) or getattr(thing, "step", None)
        thing = getattr(thing, "image", None) if inner is None else inner.picture()
    if not isinstance(thing, Tensor) or not thing.is_floating_point():
        return None
    batch = thing if thing.ndim == 4 else thing[None]
    return batch if batch.ndim == 4 and batch.shape[1] == 3 else None


def _is_page(thing: Any) -> TypeGuard[PageContent]:
    return callable(getattr(thing, "layout", None))  # a tensor has one that is no function


def _described(thing: Any) -> str:
    shape = f" {tuple(thing.shape)}" if hasattr(thing, "shape") else ""
    return f"a {type(thing).__name__}{shape}"


def _row(pictures: Sequence[Tensor], captions: Sequence[str], height: float | None) -> Page:
    """Pictures side by side, of one height, with a line under each; a batch lies in a grid."""
    whole = [grid(picture)[0] for picture in pictures]
    sizes = [size_of(picture) for picture in whole]
    tall = height or max(LEAST_HEIGHT, *(float(h) for h, _ in sizes))
    widths = [tall * w / h for h, w in sizes]
    room = WIDTH - GAP * (len(widths) - 1)
    if height is None and (wide := sum(widths)) > room:
        tall, widths = tall * room / wide, [width * room / wide for width in widths]
    items: list[Item] = []
    x = 0.0
    for index, (picture, width) in enumerate(zip(whole, widths, strict=True)):
        items.append(ImageItem(x, 0, width, tall, picture))
        if captions:
            text = truncate_text(captions[index], width, LETTERS)
            items.append(Text(x + width / 2, tall + LETTERS + 4, text, LETTERS, INK, "middle"))
        x += width + GAP
    return Page(x - GAP, tall + (LINE if captions else 0), tuple(items))


# A dream as it comes about -----------------------------------------------------------------------


def _live(steps: Iterator[Any], rate: float | None) -> Any:
    """Go through steps or frames, showing each; what they come to."""
    display = _notebook()
    screen = _Terminal() if display is None else _Cell(display)
    frames: list[Frame] = []
    step = result = None
    try:
        for step in steps:
            if isinstance(step, Frame):
                frames.append(step)
            screen.step(step)
    except KeyboardInterrupt:
        if step is None:
            raise
        screen.stopped = True
    finally:
        if step is not None:
            result = frames if frames else _result(step)
        screen.close(step, result, rate)
    if step is None:
        raise SettingsError("show: there are no steps left; make a new iterator of them")
    return result


def _result(step: Any) -> Any:
    """What the recipe of a step gives of it: a picture, or what lies on a page."""
    kind = f"{type(step).__module__}:{type(step).__qualname__}"
    for recipe in map(recipe_named, recipe_names()):
        if recipe.step_type == kind and recipe.output != "video":
            result = recipe.result(step)
            return _picture(step) if result is None else result  # it was ended before there is one
    return _picture(step)


class _Cell:
    """A notebook's cell: a picture that is replaced, and a bar under it."""

    def __init__(self, display: Any) -> None:
        self.stopped = False
        self.shown = 0.0
        self.bar = display.display({"text/plain": "…"}, raw=True, display_id=True)
        self.picture = display.display({"text/plain": ""}, raw=True, display_id=True)

    def step(self, step: Any) -> None:
        """Show a step, if the last one that was shown is some time ago."""
        now = time.monotonic()
        if now - self.shown < PREVIEW_EVERY:
            return
        self.shown = now
        if (share := getattr(step, "share", None)) is not None:
            html = f'<progress value="{share:.3f}" style="width: 16em"></progress> '
            html += escape(step.text)
            self.bar.update({"text/html": html, "text/plain": step.text}, raw=True)
        if _picture(step) is not None:
            self._draw(step)

    def close(self, step: Any, result: Any, rate: float | None) -> None:
        """Show how it ended."""
        text = f"{len(result)} frames" if isinstance(result, list) else getattr(step, "text", "")
        text += "  stopped" if self.stopped else ""
        self.bar.update({"text/plain": text}, raw=True)
        if result is not None:
            self._draw(result, rate)

    def _draw(self, thing: Any, rate: float | None = None) -> None:
        data, metadata = _bundle([thing], rate=rate)
        self.picture.update(data, metadata=metadata, raw=True)


class _Terminal:
    """A bar, where a terminal is."""

    def __init__(self) -> None:
        self.stopped = False
        self.bar: Any = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (BarColumn(bar_width=20), TextColumn("{task.description}", markup=False))
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self.bar.start()
            self.bar.add_task("…", total=None)

    def step(self, step: Any) -> None:
        """Move the bar."""
        if self.bar is not None and hasattr(step, "share"):
            task = self.bar.tasks[0].id
            self.bar.update(task, description=step.text, total=1.0, completed=step.share)

    def close(self, step: Any, result: Any, rate: float | None) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()
        _tell()


def _notebook() -> Any:
    """`IPython.display`, if this runs in a notebook; else None."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    return importlib.import_module("IPython.display")


def _tell() -> None:
    """Say once that nothing is drawn here, and what to do instead."""
    global _told
    if not _told:
        _told = True
        print(
            "show draws in a notebook, and this is none: save_image(picture, FILE) writes a "
            "picture, page(content).save(FILE) a page, write_film(FILE, frames) a film",
            file=sys.stderr,
        )
