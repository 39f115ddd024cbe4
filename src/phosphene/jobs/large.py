"""How much work a request asks for, before anything is loaded or begun.

A request or a recipe may be a stranger's. What it asks for within its settings' bounds can still
take days, so what is far beyond the usual is for whoever runs it to allow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from phosphene.errors import RequestError
from phosphene.image.files import open_image
from phosphene.jobs.inputs import SKY
from phosphene.jobs.request import Request

MOST_WORK = 2_000_000_000
"""px times steps that are usual at most: a dream of 100 megapixels has 1,000 million."""

DRAWN = 256  # px a side, of what is drawn from noise where its size is left to the recipe


def refuse_large(request: Request, settings: Any) -> None:
    """RequestError if a request asks for far more work than is usual.

    Work is px times steps, of the size that is asked for: what octaves add, and how many channels
    a page has, is not counted.
    """
    width, height = picture_size(request, settings)
    steps = getattr(settings, "steps", 1)
    several = max(1, len(request.objectives) + len(request.layers)) * getattr(settings, "batch", 1)
    work = width * height * steps * (several if request.declaration.several else 1)
    if work > MOST_WORK:
        raise RequestError(
            f"this asks for {steps} steps of {width}×{height} px"
            + (f" for each of {several} pictures" if several > 1 else "")
            + f", {work / MOST_WORK:.3g} times the most that is begun unasked: allow it with "
            "--large"
        )


def picture_size(request: Request, settings: Any) -> tuple[int, int]:
    """Width and height, px, of what is worked on; of pictures by their headers alone."""
    size = request.size
    if size is None and isinstance(own := getattr(settings, "size", None), int):
        return own, own
    photo = _photo(request)
    if photo is not None and any(entry.resized for entry in request.declaration.inputs):
        with open_image(photo) as file:
            width, height = file.size
    elif request.declaration.starts:
        width, height = SKY
    else:
        return size or DRAWN, size or DRAWN
    scale = size / max(width, height) if size else 1
    return max(1, round(width * scale)), max(1, round(height * scale))


def _photo(request: Request) -> Path | None:
    """The picture that it begins with, if it begins with one."""
    for entry in request.declaration.inputs:
        if entry.required and entry.role in request.inputs:
            return Path(request.inputs[entry.role].path)
    return None
