"""Frames of an animated WebP, by Pillow, in the process that decodes: FFmpeg has no demuxer for
it."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from PIL.Image import Resampling
from PIL.WebPImagePlugin import WebPImageFile

from phosphene.errors import FilmError
from phosphene.films.blocks import webp_durations
from phosphene.films.formats import FRAME_LIMIT
from phosphene.films.messages import pair

Message = tuple[dict[str, Any], list[memoryview]]


def webp_frames(path: str, longest: int | None) -> Iterator[Any]:
    """A dictionary of width, height and durations (s); then each frame, as a `Source` does."""
    durations = [Fraction(each, 1000) for each in webp_durations(path)]
    if len(durations) < 2:
        raise FilmError(f"{path!r} is a picture (WEBP); a film was expected")
    with open(path, "rb") as stream, WebPImageFile(stream) as file:
        if file.width * file.height > FRAME_LIMIT:
            raise FilmError(
                f"{path!r} says it is {file.width}x{file.height} px; "
                f"the limit is {FRAME_LIMIT / 1e6:.0f} megapixels a frame"
            )
        size = file.size
        if longest is not None:
            size = tuple(max(1, round(side * longest / max(file.size))) for side in file.size)
        yield {"width": size[0], "height": size[1], "durations": durations}
        time = Fraction(0)
        for index, duration in enumerate(durations):
            file.seek(index)
            yield _frame(file, size, time, duration)
            time += duration


def _frame(file: WebPImageFile, size: tuple[int, ...], time: Fraction, length: Fraction) -> Message:
    picture = file.convert("RGBA")
    if picture.size != size:
        picture = picture.resize((size[0], size[1]), Resampling.BICUBIC)
    planes = np.asarray(picture).transpose(2, 0, 1)[[1, 2, 0, 3]]
    said = {
        "time": pair(time),
        "duration": pair(length),
        "size": size,
        "deep": False,
        "white": 255,
        "alpha": True,
        "swap": False,
        "flip": [],
    }
    return said, [np.ascontiguousarray(plane).data.cast("B") for plane in planes]
