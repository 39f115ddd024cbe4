"""The text that a film carries, such as its recipe. Nothing here needs torch."""

from __future__ import annotations

from pathlib import Path

from phosphene.errors import FilmError, ImageError
from phosphene.films.blocks import gif_comments
from phosphene.films.formats import ANIMATED_WEBP, demuxer_of
from phosphene.films.process import Child, check_extra
from phosphene.image.metadata import read_recipe

#: What our text begins with where a film's comment holds it: anybody's may lie there.
MARK = "phosphene recipe: "


def film_text(path: str | Path) -> str | None:
    """The text that `write_film` put into a film as its `metadata`; None if there is none.

    Of MP4, MOV, MKV, WebM and GIF it lies in the comment, of WebP in its XMP.

    Raises:
        FilmError: no file, or none that is a film.
        MissingExtraError: PyAV is not installed; a GIF and a WebP do not need it.
    """
    demuxer, text = demuxer_of(path), None
    if demuxer == "gif":
        found = (each.decode("utf-8", "replace") for each in gif_comments(path))
        text = next((each for each in found if each.startswith(MARK)), None)
    elif demuxer == ANIMATED_WEBP:
        try:
            return read_recipe(path)
        except ImageError as error:
            raise FilmError(str(error)) from error
    else:
        check_extra("what lies in films")
        task = {"task": "text", "path": str(path), "shown": str(path)}
        with Child(task, f"read {str(path)!r}") as child:
            text = child.receive()[0]["text"]
    return text.removeprefix(MARK) if text is not None and text.startswith(MARK) else None
