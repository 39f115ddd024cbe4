"""Frames into a film's file, which appears whole or not at all."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from phosphene.errors import FilmError, ImageError, SettingsError
from phosphene.films.formats import (
    ENCODERS,
    check_film_output,
    codec_of,
    demuxer_of,
    encoder_options,
    muxer_of,
)
from phosphene.films.frames import FilmInfo, Frame
from phosphene.films.messages import pair, seconds
from phosphene.films.process import Child, check_extra
from phosphene.films.read import Time, exact_rate, exact_time
from phosphene.image.files import appearing_whole
from phosphene.image.metadata import checked_recipe

_PATIENCE = 1200.0  # s; a slow encoder looks ahead many frames before it takes another
# 1/5,760,000 s: what 24, 25, 30 and 60 frames a second, these over 1.001, thousandths, 90 kHz and
# MP4's usual time bases are multiples of.
_FINE = 5_760_000
_MOST = 2**31 - 1  # MP4 counts no finer
_TICKS = {"gif": 100, "webp": 1000, "matroska": 1000, "webm": 1000}  # a second has, in a container


def write_film(
    path: str | Path,
    frames: Iterable[Frame] | Iterable[Tensor],
    *,
    rate: Time | None = None,
    codec: str | None = None,
    crf: int | None = None,
    audio_from: str | Path | None = None,
    begin: Time | None = None,
    end: Time | None = None,
    metadata: str | None = None,
    time_base: Fraction | None = None,
    overwrite: bool = False,
) -> FilmInfo:
    """Write frames, one after another, into a film; only the newest is in memory.

    The suffix tells the container: .mp4, .m4v, .mov, .mkv, .webm, .gif or .webp. Frames keep their
    own times, exactly where the container can (MP4, MOV; MKV and WebM keep thousandths of a
    second, a GIF hundredths). Colours are BT.709, tagged so. The same frames give the same bytes.

    Args:
        path: of the film, which appears whole or not at all.
        frames: `Frame`s, or images `(1, 3, H, W)` or `(3, H, W)` in [0, 1] with a `rate`; values
            beyond are clamped. A side that is odd is padded by a pixel where the codec needs it.
        rate: frames a second; of `Frame`s it replaces their times.
        codec: h264, hevc, av1, vp9, ffv1 (lossless, 12 bits), prores, gif or webp; by default what
            the suffix holds as a rule: H.264, VP9, GIF, WebP.
        crf: quality, 0 the best; 16 by default of H.264, each codec has its own scale.
        audio_from: a film whose sound is copied, packet for packet.
        begin, end: where `audio_from` is cut, in seconds from its start, as `read_film` cuts
            pictures. With `begin` the film's times start at 0.
        metadata: text, such as a recipe, that `film_text` finds again.
        time_base: what times are counted in, in seconds; by default the frames' own.
        overwrite: whether a file at `path` may be replaced.

    Returns:
        What the file then says, with notes on what was changed or left out.

    Raises:
        FilmError: see `check_film_output`; also no frames, frames of several sizes, times that do
            not rise, values that are not finite, a full disk.
        MissingExtraError: PyAV is not installed.
    """
    check_extra("writing films")
    path = check_film_output(path, codec=codec, crf=crf, overwrite=overwrite)
    codec = codec_of(path, codec)
    if audio_from is not None and not Path(audio_from).is_dir():
        demuxer_of(audio_from)
    stamped = _stamped(frames, None if rate is None else exact_rate(rate))
    ahead = list(itertools.islice(stamped, 2))
    if not ahead:
        raise FilmError(f"cannot write {str(path)!r}: there are no frames")
    plan = _Plan(path, codec, ahead, time_base, shifted=begin is not None)
    task = {
        "task": "write",
        "options": encoder_options(codec, crf),
        "audio_from": _sound_of(audio_from),
        "audio_shown": str(audio_from),
        "begin": pair(exact_time(begin, "begin")),
        "end": pair(exact_time(end, "end")),
        "text": None if metadata is None else checked_recipe(metadata),
        **plan.task(),
    }
    try:
        with (
            appearing_whole(path, overwrite=overwrite) as scratch,
            Child({**task, "path": str(scratch)}, f"write {str(path)!r}", _PATIENCE) as child,
        ):
            for frame in itertools.chain(ahead, stamped):
                child.send(*plan.message(frame))
            child.send({"end": plan.count})
            said, _ = child.receive()
    except ImageError as error:
        raise error if isinstance(error, FilmError) else FilmError(str(error)) from error
    return plan.info(said)


def _sound_of(film: str | Path | None) -> str | None:
    """A folder of pictures has no sound."""
    return None if film is None or Path(film).is_dir() else str(Path(film).resolve())


def _stamped(frames: Iterable[Any], rate: Fraction | None) -> Iterator[Frame]:
    """Frames with times: their own, or by the rate."""
    for index, each in enumerate(frames):
        if rate is not None:
            image = each.image if isinstance(each, Frame) else each
            yield Frame(index, index / rate, image, 1 / rate, 1 / rate)
        elif isinstance(each, Frame):
            yield each
        else:
            raise SettingsError("images without times need a rate, in frames a second")


class _Plan:
    """How frames become what the encoder takes, and what was met on the way."""

    def __init__(
        self,
        path: Path,
        codec: str,
        ahead: list[Frame],
        time_base: Fraction | None,
        *,
        shifted: bool,
    ) -> None:
        self._path, self._codec, self._encoder = path, codec, ENCODERS[codec]
        self._first = self._last = ahead[0]
        self._shift = ahead[0].time if shifted else Fraction(0)
        self._step = _step(ahead)
        self._base = _time_base(ahead, time_base)
        self._image_shape = tuple(ahead[0].image.shape[-2:])
        self.count = 0
        self._tick = -1
        ticks = _TICKS.get(muxer_of(path))
        self._rounded = ticks is not None and (self._base * ticks).denominator != 1
        if muxer_of(path) in ("gif", "webp"):
            self._base = Fraction(1, ticks or 1)
        if len(self._image_shape) != 2 or 0 in self._image_shape:
            raise FilmError(f"frame 0 is {tuple(ahead[0].image.shape)}; (1, 3, H, W) was expected")

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) that is encoded."""
        H, W = self._image_shape
        even = 2 if self._encoder.subsampled else 1
        return W + W % even, H + H % even

    def task(self) -> dict[str, Any]:
        """What the encoder has to know."""
        return {
            "shown": str(self._path),
            "muxer": muxer_of(self._path),
            "codec": self._codec,
            "size": self.size,
            "rate": pair((1 / self._step).limit_denominator(100_000)),
            "time_base": pair(self._base),
            "shift": pair(self._shift),
        }

    def message(self, frame: Frame) -> tuple[dict[str, Any], memoryview]:
        """A frame, as it is sent."""
        levels = self._levels(frame)
        exact = (frame.time - self._shift) / self._base
        tick = round(exact)
        if exact.denominator != 1 and not self._rounded:
            raise FilmError(
                f"frame {self.count} is at {frame.time} s, no multiple of {self._base} s; "
                "give a time_base"
            )
        if tick <= self._tick or tick < 0:
            raise FilmError(
                f"frame {self.count} is at {seconds(frame.time)}, not after the one before it"
                + (f"; {self._codec} counts in {self._base} s" if self._rounded else "")
            )
        self._tick, self._last = tick, frame
        self.count += 1
        length = frame.duration if frame.duration is not None else self._step
        return {"pts": tick, "duration": max(1, round(length / self._base))}, levels

    def _levels(self, frame: Frame) -> memoryview:
        """The image as planes of green, blue, red in whole numbers, padded to even sides."""
        image, given = frame.image, tuple(frame.image.shape)
        if image.ndim not in (3, 4) or given[-3] != 3 or (image.ndim == 4 and given[0] != 1):
            raise FilmError(f"frame {self.count} is {given}; (1, 3, H, W) was expected")
        if given[-2:] != self._image_shape:
            H, W = self._image_shape
            raise FilmError(
                f"frame {self.count} is {given[-1]}x{given[-2]} px, those before it {W}x{H}; "
                "frames of a film are of one size"
            )
        values = image.detach().reshape(given[-3:]).float().cpu().numpy()
        if not np.isfinite([values.min(), values.max()]).all():  # either is NaN where any value is
            raise FilmError(f"frame {self.count} holds values that are infinite or not a number")
        white, kind = _white(self._encoder.depth, self._encoder.pixels)
        (h, w), (W, H) = given[-2:], self.size
        planes, level = np.empty((3, H, W), kind), np.empty((h, w), np.float32)
        for plane, channel in zip(planes, (1, 2, 0), strict=True):
            np.multiply(values[channel], np.float32(white), out=level)
            np.rint(level, out=level)
            plane[:h, :w] = np.clip(level, 0, white, out=level)
            plane[:h, w:] = plane[:h, w - 1 : w]
            plane[h:] = plane[h - 1]
        return planes.data.cast("B")

    def info(self, said: dict[str, Any]) -> FilmInfo:
        """What came of it."""
        last = self._last.duration if self._last.duration is not None else self._step
        notes = list(said["notes"])
        H, W = self._image_shape
        if self.size != (W, H):
            notes.insert(
                0, f"padded {W}x{H} -> {self.size[0]}x{self.size[1]}, as {self._codec} needs"
            )
        ticks = _TICKS.get(muxer_of(self._path))
        if self._rounded and ticks:
            notes.append(f"times are rounded to {1000 // ticks} ms, as the container counts")
        length = self._last.time - self._first.time + last
        return FilmInfo(
            *self.size,
            (self.count / length).limit_denominator(100_000) if length else None,
            self._base,
            self.count,
            length,
            self._codec,
            tuple(said["audio"]),
            tuple(notes),
            self._first.time - self._shift,
        )


def _white(depth: int, pixels: str) -> tuple[int, type[np.generic]]:
    """The value of white in what is sent, and its type."""
    if depth == 8:
        return 255, np.uint8
    if pixels.startswith("gbrp"):
        return 2**depth - 1, np.uint16
    # FFmpeg's scaler takes 255 · 2^(n − 8) for white between deep RGB and YUV.
    return 255 << 6, np.uint16


def _step(ahead: list[Frame]) -> Fraction:
    """The time from one frame to the next, by the first two."""
    if len(ahead) > 1 and ahead[1].time > ahead[0].time:
        return ahead[1].time - ahead[0].time
    return ahead[0].duration or Fraction(1, 30)


def _time_base(ahead: list[Frame], given: Fraction | None) -> Fraction:
    """What times are counted in: as given, else the frames' own, else something fine enough."""
    if given is not None:
        if given <= 0 or given.denominator > _MOST:
            raise SettingsError(f"time_base is {given}; seconds, down to 1/{_MOST}, were expected")
        return Fraction(given)
    bases = [frame.time_base for frame in ahead if frame.time_base]
    if len(bases) == len(ahead):
        return bases[0]
    own = math.lcm(*(frame.time.denominator for frame in ahead))
    both = math.lcm(own, _FINE)
    return Fraction(1, both if both <= _MOST else own)
