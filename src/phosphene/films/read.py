"""Frames of a film, one at a time: of a file, or of a folder of pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phosphene.errors import FilmError, ImageError, SettingsError
from phosphene.films.formats import demuxer_of, pictures_in
from phosphene.films.frames import FilmInfo, Frame
from phosphene.films.messages import fraction, pair, seconds
from phosphene.films.process import Child, check_extra
from phosphene.image.codec import read_image
from phosphene.image.tensor import size_of

Time = float | Fraction

FOLDER_RATE = Fraction(24)
"""Frames a second of a folder of pictures, where none is given."""

_GRAIN = 10**6  # a float stands for the simplest fraction with no more below its line


def film_info(path: str | Path, *, rate: Time | None = None) -> FilmInfo:
    """What a film's file says of itself; of a folder, what its pictures do.

    One frame is decoded, so that it is known that some can be.

    Raises:
        FilmError, MissingExtraError: as `read_film`.
    """
    if Path(path).is_dir():
        return _folder_info(Path(path), pictures_in(path), rate)
    with _child("info", path) as child:
        return _info(child.receive()[0])


def read_film(
    path: str | Path,
    *,
    begin: Time | None = None,
    end: Time | None = None,
    size: int | None = None,
    rate: Time | None = None,
) -> Iterator[Frame]:
    """The frames of a film, one after another; only the newest is in memory.

    Any film that FFmpeg's safe formats hold: MP4, MOV, MKV, WebM, AVI, GIF, animated WebP and PNG,
    MPEG-TS and -PS, Ogg, FLV; or a folder of pictures, in the order of the numbers in their names.
    Frames are upright and of square pixels, colours are converted by the matrix and range that
    the file names, what is transparent lies over white. Times are the file's own, exactly. FFmpeg
    runs in a process of its own, with bounds of memory and of time for each frame.

    Args:
        begin: frames from this time on, in seconds from the film's start; None, from the first.
        end: frames before this time; None, to the last.
        size: the longest side in px to shrink or enlarge to; the shape is kept.
        rate: frames a second of a folder, `FOLDER_RATE` by default; a film has its own.

    Raises, some when the first frame is asked for and some later:
        FilmError: there is no film at `path` (a picture, a playlist, an address, no video track, no
            frames), it is damaged or cut short, HDR, or too large, or `begin` lies behind its end.
        MissingExtraError: PyAV is not installed; a folder does not need it.
        SettingsError: a `size` or a `rate` that is none.
    """
    first, last = exact_time(begin, "begin"), exact_time(end, "end")
    if size is not None and size < 1:
        raise SettingsError(f"size is {size}; the longest side must be 1 px or more")
    if first is not None and last is not None and last <= first:
        raise FilmError(
            f"begin is {seconds(first)} and end {seconds(last)}; begin must come before end"
        )
    if Path(path).is_dir():
        return _folder_frames(Path(path), first or Fraction(0), last, size, rate)
    return _film_frames(path, first, last, size)


def _film_frames(
    path: str | Path, begin: Fraction | None, end: Fraction | None, size: int | None
) -> Iterator[Frame]:
    with _child("frames", path, begin=pair(begin), end=pair(end), size=size) as child:
        info = _info(child.receive()[0])
        index = 0
        while True:
            said, data = child.receive()
            if "end" in said:
                break
            time = fraction(said["time"])
            assert time is not None
            yield Frame(
                index, time, _picture(said, data), fraction(said["duration"]), info.time_base
            )
            index += 1
    if not index:
        raise FilmError(f"{str(path)!r} has no frame from begin to end")


def _child(task: str, path: str | Path, **more: Any) -> Child:
    demuxer_of(path)  # what is no film starts nothing
    check_extra("reading films")
    real = str(Path(path).resolve())
    return Child({"task": task, "path": real, "shown": str(path), **more}, f"read {str(path)!r}")


def _info(said: Mapping[str, Any]) -> FilmInfo:
    base, start = fraction(said["time_base"]), fraction(said["start"])
    assert base is not None
    assert start is not None
    return FilmInfo(
        said["width"],
        said["height"],
        fraction(said["rate"]),
        base,
        said["count"],
        fraction(said["duration"]),
        said["codec"],
        tuple(said["audio"]),
        tuple(said["notes"]),
        start,
    )


def _picture(said: Mapping[str, Any], data: bytearray) -> Tensor:
    """The image `(1, 3, H, W)` in planes of green, blue, red, and alpha if there is any."""
    W, H = said["size"]
    levels = np.frombuffer(data, "<u2" if said["deep"] else np.uint8).reshape(-1, H, W)
    # By numpy: a frame is too small to be worth a meeting of torch's threads.
    image = np.empty((1, 3, H, W), np.float32)
    for channel, plane in enumerate((2, 0, 1)):
        np.divide(levels[plane], np.float32(said["white"]), out=image[0, channel])
    if said["deep"]:
        np.minimum(image, 1, out=image)
    if said["alpha"]:
        alpha = levels[3] / np.float32(said["white"])
        image = np.minimum(image * alpha + (1 - alpha), 1)
    if said["swap"]:
        image = image.swapaxes(-2, -1)
    return torch.from_numpy(np.ascontiguousarray(np.flip(image, said["flip"])))


def exact_time(time: Time | None, name: str) -> Fraction | None:
    """A time as the simplest fraction that a float stands for: .1 is 1/10."""
    if time is None:
        return None
    try:
        exact = time if isinstance(time, Fraction) else Fraction(time).limit_denominator(_GRAIN)
    except (ValueError, OverflowError):  # not a number, infinite
        exact = Fraction(-1)
    if exact < 0:
        raise FilmError(
            f"{name} is {time}; seconds from the film's start, 0 or more, were expected"
        )
    return exact


# --- folders ---------------------------------------------------------------------------------


def exact_rate(rate: Time | None) -> Fraction:
    exact = FOLDER_RATE if rate is None else Fraction(rate).limit_denominator(_GRAIN)
    if exact <= 0:
        raise SettingsError(f"rate is {rate}; frames a second, above 0, were expected")
    return exact


def _folder_info(folder: Path, pictures: list[Path], rate: Time | None) -> FilmInfo:
    try:
        H, W = size_of(read_image(pictures[0]).pixels)
    except ImageError as error:
        raise FilmError(str(error)) from error
    exact = exact_rate(rate)
    notes = () if rate else (f"{exact} frames a second are taken; a folder says none",)
    count = len(pictures)
    return FilmInfo(W, H, exact, 1 / exact, count, count / exact, "pictures", (), notes)


def _folder_frames(
    folder: Path, begin: Fraction, end: Fraction | None, size: int | None, rate: Time | None
) -> Iterator[Frame]:
    pictures, exact = pictures_in(folder), exact_rate(rate)
    if begin >= len(pictures) / exact:
        raise FilmError(
            f"begin is {seconds(begin)}; {str(folder)!r} ends at {seconds(len(pictures) / exact)}"
        )
    first: tuple[int, int] | None = None
    index = 0
    for number, path in enumerate(pictures):
        time = number / exact
        if time < begin:
            continue
        if end is not None and time >= end:
            break
        image = _read_picture(path, size)
        first = first or size_of(image)
        if size_of(image) != first:
            (H, W), (h, w) = first, size_of(image)
            raise FilmError(
                f"{str(path)!r} is {w}x{h} px, the pictures before it {W}x{H}; "
                "those of a film are of one size"
            )
        yield Frame(index, time, image, 1 / exact, 1 / exact)
        index += 1
    if not index:
        raise FilmError(f"{str(folder)!r} has no frame from begin to end")


def _read_picture(path: Path, size: int | None) -> Tensor:
    """A picture's pixels; what is transparent lies over white."""
    try:
        pixels, alpha, _ = read_image(path, size=size)
    except ImageError as error:
        raise FilmError(str(error)) from error
    return pixels if alpha is None else pixels * alpha + (1 - alpha)
