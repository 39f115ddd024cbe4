"""Films: frames in and out, and what carries a dream from one frame to the next.

    frames    `Frame` and `FilmInfo`: what one frame and one file are
    formats   which files are read and written, by their first bytes and by suffix
    read      frames of a file or of a folder of pictures, one at a time
    write     frames into a file, which appears whole
    text      the text that a film carries
    process   the process that decodes and encodes, as seen from here
    child     the same from within: `decode` (with `convert`, `webp`) and `encode` are its work
    messages  what goes through the pipes between the two
    blocks    the outermost structure of files, as far as it is needed
    keys      settings that change while a film runs; `expressions` and `times` are their parts
    source    what a recipe's frames come from
    affine    one affine a frame: the camera of a zoom
    drift     what keeps a long zoom as light, colourful and detailed as it began

FFmpeg, by PyAV, is loaded in that other process and never in this one: a hostile file can bring
down no more than it, and its FFmpeg meets no other. Neither `frames`, `formats`, `text`, `process`
nor the child needs torch, nor do keys. A name is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phosphene.lazy import lazy_names

if TYPE_CHECKING:
    from phosphene.films.formats import check_film_output as check_film_output
    from phosphene.films.frames import FilmInfo as FilmInfo
    from phosphene.films.frames import Frame as Frame
    from phosphene.films.read import film_info as film_info
    from phosphene.films.read import read_film as read_film
    from phosphene.films.text import film_text as film_text
    from phosphene.films.write import write_film as write_film

_HOMES = {
    name: f"phosphene.films.{module}"
    for module, names in {
        "formats": ("check_film_output",),
        "frames": ("FilmInfo", "Frame"),
        "read": ("film_info", "read_film"),
        "text": ("film_text",),
        "write": ("write_film",),
    }.items()
    for name in names
}

__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
