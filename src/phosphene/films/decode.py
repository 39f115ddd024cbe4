"""Reading a film, in the process that knows FFmpeg: what it says of itself, and its frames.

Frames leave as planes of green, blue, red (and alpha) in whole numbers. They are converted by
FFmpeg's scaler, with chroma interpolated and rounding exact, for their own matrix and range; its
fast way would be up to one and a half levels too dark in the mean.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from phosphene.errors import FilmError, one_line
from phosphene.films.child import FRAME_SECONDS, Channel, grant
from phosphene.films.formats import ANIMATED_WEBP, FRAME_LIMIT, demuxer_of
from phosphene.films.messages import fraction, pair, seconds
from phosphene.films.webp import webp_frames

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
# ITU-T H.273: of transfer characteristics, and of matrices as FFmpeg's scaler numbers them.
_HDR = {16: "PQ", 18: "HLG"}
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
_WIDE = {9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}
_COUNTABLE = 2**28  # bytes of a file whose frames are counted where its header does not say
_STILL = {"gif", "apng"}  # what holds a picture as well as a film
_ERRORS = 1000  # damaged packets before the first whole frame, as where a broadcast is joined


# --- what is said ----------------------------------------------------------------------------


def info(channel: Channel, task: Mapping[str, Any]) -> None:
    """Answer with what the film says of itself."""
    source = _opened(task)
    said = source.info()
    if said["count"] is None:
        said["count"] = source.counted()
    channel.send(said)


def frames(channel: Channel, task: Mapping[str, Any]) -> None:
    """Answer with what the film says, then with a message a frame, and one at the end."""
    source = _opened(task)
    channel.send(source.info())
    index = 0
    for shown, planes in source.frames():
        channel.send(shown, *planes)
        grant(FRAME_SECONDS)
        index += 1
    channel.send({"end": index})


def text(channel: Channel, task: Mapping[str, Any]) -> None:
    """Answer with the comment of the file; None if it has none."""
    with _container(task) as container:
        said = {key.lower(): value for key, value in container.metadata.items()}
    channel.send({"text": said.get("comment")})


def _opened(task: Mapping[str, Any]) -> Source | AnimatedWebp:
    if demuxer_of(task["path"]) == ANIMATED_WEBP:
        return AnimatedWebp(task)
    return Source(task)


# --- files that FFmpeg reads -----------------------------------------------------------------


def _container(task: Mapping[str, Any]) -> InputContainer:
    path, demuxer = task["path"], demuxer_of(task["path"])
    check_whole(path, demuxer)
    options = {
        "protocol_whitelist": "file",
        "max_pixels": str(FRAME_LIMIT),
        "err_detect": "explode",
        "max_streams": "100",
    }
    try:
        return av.open(f"file:{path}", format=demuxer, options=options, metadata_errors="replace")
    except FFmpegError as error:
        reason = f"it is damaged or cut short ({one_line(error.strerror or error)})"
        raise FilmError(f"cannot read {task['shown']!r}: {reason}") from error


def check_whole(path: str, demuxer: str) -> None:
    """FilmError if the file is shorter than it says. FFmpeg reads such a file up to where it ends,
    as if that were the end of the film."""
    from phosphene.films.blocks import declared_size

    size = Path(path).stat().st_size
    declared = declared_size(path, demuxer)
    if declared is not None and declared > size:
        raise FilmError(f"{path!r} is cut short: {size} of its {declared} bytes are there")


@dataclass
class Source:
    """A film's pictures, from `begin` up to `end`, both in seconds from its start."""

    task: Mapping[str, Any]
    container: InputContainer = field(init=False)
    stream: VideoStream = field(init=False)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.container = _container(self.task)
        self.shown = self.task["shown"]
        self.demuxer = demuxer_of(self.task["path"])
        self.stream = self._stream()
        self._check_index()
        context = self.stream.codec_context
        if context is None:
            raise FilmError(f"cannot read {self.shown!r}: FFmpeg has no decoder for its pictures")
        self._check_size(context.width, context.height)
        context.options = {"max_pixels": str(FRAME_LIMIT), "err_detect": "explode"}
        context.thread_count, context.thread_type = 2, "SLICE"
        self.begin = fraction(self.task.get("begin")) or Fraction(0)
        self.end = fraction(self.task.get("end"))
        self.start = self._start()
        self._decoded = self._from_begin()
        self.first = self._first()
        self.plan = Conversion.of(self.first, self.stream, self.task.get("size"))

    def _stream(self) -> VideoStream:
        covers = Disposition.attached_pic
        found = [each for each in self.container.streams.video if not each.disposition & covers]
        if not found:
            raise FilmError(f"{self.shown!r} has no video track; a film was expected")
        return found[0]

    def _check_index(self) -> None:
        """A file whose index points beyond its end is cut short."""
        size = Path(self.task["path"]).stat().st_size
        last = max((each.pos + each.size for each in self.stream.index_entries), default=0)
        if self.demuxer == "mov" and last > size:
            raise FilmError(f"{self.shown!r} is cut short: {size} of its {last} bytes are there")

    def _check_size(self, width: int, height: int) -> None:
        if width * height > FRAME_LIMIT:
            raise FilmError(
                f"{self.shown!r} says it is {width}x{height} px; "
                f"the limit is {FRAME_LIMIT / 1e6:.0f} megapixels a frame"
            )

    def _start(self) -> Fraction:
        starts = [
            each.start_time * each.time_base
            for each in (*self.container.streams.audio, self.stream)
            if each.start_time is not None and each.time_base
        ]
        return min(starts, default=Fraction(0))

    @property
    def base(self) -> Fraction:
        return self.stream.time_base or Fraction(1, 1000)

    @property
    def rate(self) -> Fraction | None:
        rate = self.stream.average_rate or self.stream.guessed_rate
        return Fraction(rate) if rate else None

    # decoding

    def _from_begin(self) -> Iterator[tuple[Fraction, VideoFrame]]:
        """Times and frames from `begin` on.

        A seek goes to the picture before `begin` that needs no other; in some files it goes too
        far, and is tried from further back.
        """
        wanted = self.start + self.begin
        for back in (Fraction(0), Fraction(10), None) if self.begin else (None,):
            decoded = self._from(None if back is None else wanted - back)
            first = next(decoded, None)
            if first is not None and (first[0] <= wanted or back is None):
                break
        else:
            first, decoded = None, iter(())
        while first is not None:
            if first[0] >= wanted:
                yield first
            first = next(decoded, None)

    def _from(self, time: Fraction | None) -> Iterator[tuple[Fraction, VideoFrame]]:
        """Times and frames, from a picture at or before `time` that needs no other."""
        if time is not None:
            offset = int(max(time, self.start) / self.base)
            with suppress(FFmpegError):
                self.container.seek(offset, stream=self.stream, backward=True)
        last: Fraction | None = None
        for frame in self._pictures():
            grant(FRAME_SECONDS)
            step = 1 / self.rate if self.rate else self.base
            at = frame.pts * (frame.time_base or self.base) if frame.pts is not None else None
            if at is None:
                at = self.start if last is None else last + step
            elif last is not None and at <= last:  # damaged stamps: no two frames at one time
                at = last + self.base
            last = at
            yield at, frame

    def _pictures(self) -> Iterator[VideoFrame]:
        """Decoded frames; damage before the first of them is passed over, later it is an error."""
        started, errors, at = False, 0, Fraction(0)
        try:
            for packet in self.container.demux(self.stream):
                if packet.pts is not None:
                    at = packet.pts * (packet.time_base or self.base)
                try:
                    decoded = packet.decode()
                except FFmpegError:
                    errors += 1
                    if started or errors > _ERRORS:
                        raise
                    continue
                for frame in decoded:
                    if frame.is_corrupt and not started:
                        continue
                    started = True
                    yield frame
        except FFmpegError as error:
            where = f" near {seconds(at - self.start)}" if started else ""
            reason = one_line(error.strerror or error)
            raise FilmError(
                f"cannot read {self.shown!r}: it is damaged{where} ({reason})"
            ) from error

    def _first(self) -> VideoFrame:
        if self.end is not None and self.end <= self.begin:
            raise FilmError(
                f"begin is {seconds(self.begin)} and end {seconds(self.end)}; "
                "begin must come before end"
            )
        self.one = next(self._decoded, None)
        if self.one is None:
            if self.begin and (length := self._length()) is not None:
                raise FilmError(
                    f"begin is {seconds(self.begin)}; {self.shown!r} ends at {seconds(length)}"
                )
            raise FilmError(f"{self.shown!r} holds no frames")
        frame = self.one[1]
        self._check_size(frame.width, frame.height)
        if (curve := _HDR.get(frame.color_trc)) or (
            curve := _HDR.get(self.stream.codec_context.color_trc)
        ):
            raise FilmError(
                f"{self.shown!r} is HDR ({curve}), which is not read; "
                "a version in SDR, BT.709, was expected"
            )
        return frame

    def _length(self) -> Fraction | None:
        """From the start to the end, by the header, or by the frames."""
        if self.stream.duration is not None:
            began = (self.stream.start_time or 0) * self.base - self.start
            return began + self.stream.duration * self.base
        if self.container.duration is not None:
            return Fraction(self.container.duration, av.time_base)
        return None

    # what is told

    def info(self) -> dict[str, Any]:
        width, height = self.plan.upright
        length = self._length()
        if length is not None:
            length -= (self.stream.start_time or 0) * self.base - self.start
        return {
            "width": width,
            "height": height,
            "rate": pair(self.rate),
            "time_base": pair(self.base),
            "count": self.stream.frames or None,
            "duration": pair(length),
            "codec": self.stream.codec_context.codec.canonical_name,
            "audio": [describe_audio(each) for each in self.container.streams.audio],
            "notes": [*self._left_out(), *self.plan.notes],
            "start": pair(self.start),
        }

    def _left_out(self) -> Iterator[str]:
        kinds: dict[str, int] = {}
        covers = Disposition.attached_pic
        for stream in self.container.streams:
            kind = "cover" if stream.disposition & covers else stream.type
            if stream is not self.stream and kind != "audio":
                kinds[kind] = kinds.get(kind, 0) + 1
        names = {"video": "further video track", "subtitle": "subtitle track", "data": "data track"}
        for kind, count in kinds.items():
            name = names.get(kind, kind)
            yield f"{count} {name}{'s' if count > 1 else ''} left out"
        if chapters := len(self.container.chapters()):
            yield f"{chapters} chapter marks left out"

    def counted(self) -> int | None:
        """How many frames there are, by their packets, where the file is not too long for that."""
        if Path(self.task["path"]).stat().st_size > _COUNTABLE:
            return None
        with _container(self.task) as container:
            stream = container.streams[self.stream.index]
            return sum(1 for packet in container.demux(stream) if packet.size)

    def frames(self) -> Iterator[tuple[dict[str, Any], list[memoryview]]]:
        """Each frame: what is said of it, and its planes."""
        assert self.one is not None
        held: tuple[Fraction, VideoFrame] | None = self.one
        many = self.demuxer not in _STILL
        while held is not None:
            time, frame = held
            if self.end is not None and time >= self.start + self.end:
                return
            if not many:  # GIF and PNG hold pictures too: one frame makes no film
                following = next(self._decoded, None)
                if following is None:
                    kind = self.demuxer.removeprefix("a").upper()
                    raise FilmError(f"{self.shown!r} is a picture ({kind}); a film was expected")
                self._decoded, many = _after(following, self._decoded), True
            length = frame.duration * (frame.time_base or self.base) if frame.duration else None
            said = {"time": pair(time), "duration": pair(length), **self.plan.said}
            yield said, self.plan.planes(frame)
            held = next(self._decoded, None)


def _after(
    first: tuple[Fraction, VideoFrame], rest: Iterator[tuple[Fraction, VideoFrame]]
) -> Iterator[tuple[Fraction, VideoFrame]]:
    yield first
    yield from rest


def describe_audio(stream: Any) -> str:
    """A track of sound in a line."""
    context = stream.codec_context
    if context is None:
        return "unknown"
    parts = [context.codec.canonical_name, f"{context.sample_rate} Hz", context.layout.name]
    language = stream.metadata.get("language", "und")
    return ", ".join(parts + ([language] if language != "und" else []))


# --- pixels ----------------------------------------------------------------------------------


@dataclass
class Conversion:
    """How a film's frames become planes of RGB: scaled to square pixels, and turned when shown."""

    size: tuple[int, int]
    """(width, height) before turning."""
    pixels: str
    """FFmpeg's name of the format of the planes."""
    white: int
    matrix: Colorspace | None
    full_range: bool
    swap: bool
    flip: list[int]
    notes: list[str]

    def __post_init__(self) -> None:
        self._scaler = VideoReformatter()

    @classmethod
    def of(cls, frame: VideoFrame, stream: VideoStream, longest: int | None) -> Conversion:
        """From the first frame; `longest` is the longest side to scale to."""
        notes: list[str] = []
        swap, flip = _orientation(frame, notes)
        size = _square(frame, stream, notes)
        if longest is not None and longest != max(size):
            scaled = (max(1, round(side * longest / max(size))) for side in size)
            was, size = size, (next(scaled), next(scaled))
            notes.append(f"resized {was[0]}x{was[1]} -> {size[0]}x{size[1]}")
        rgb = frame.format.is_rgb or frame.format.has_palette
        pixels, white = _planes_of(frame, rgb)
        if frame.interlaced_frame:
            notes.append("interlaced; its two fields are taken as one frame")
        if wide := _WIDE.get(frame.color_primaries):
            notes.append(f"its wide colours ({wide}) are taken as BT.709")
        return cls(
            size,
            pixels,
            white,
            None if rgb else _matrix(frame),
            rgb or frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj"),
            swap,
            flip,
            notes,
        )

    @property
    def upright(self) -> tuple[int, int]:
        """(width, height) as it is shown."""
        return (self.size[1], self.size[0]) if self.swap else self.size

    @property
    def said(self) -> dict[str, Any]:
        """What the other side has to know to make a picture of the planes."""
        return {
            "size": self.size,
            "deep": self.pixels.endswith("le"),
            "white": self.white,
            "alpha": self.pixels.startswith("gbrap"),
            "swap": self.swap,
            "flip": self.flip,
        }

    def planes(self, frame: VideoFrame) -> list[memoryview]:
        """Green, blue, red, and alpha if there is any."""
        converted = self._scaler.reformat(
            frame,
            width=self.size[0],
            height=self.size[1],
            format=self.pixels,
            src_colorspace=self.matrix,
            src_color_range=ColorRange.JPEG if self.full_range else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=_SCALING,
            threads=1,
        )
        return [_rows(plane, self.said["deep"]) for plane in converted.planes]


def _rows(plane: Any, deep: bool) -> memoryview:
    """A plane's pixels, without what pads its rows."""
    width = plane.width * (2 if deep else 1)
    rows = np.frombuffer(plane, np.uint8, plane.line_size * plane.height)
    return np.ascontiguousarray(rows.reshape(plane.height, -1)[:, :width]).data.cast("B")


def _planes_of(frame: VideoFrame, rgb: bool) -> tuple[str, int]:
    """The format of planes that loses nothing, and the value that is white in it."""
    components = frame.format.components
    alpha = frame.format.has_palette or any(each.is_alpha for each in components)
    deepest = 8 if frame.format.has_palette else max(each.bits for each in components)
    start = "gbrap" if alpha else "gbrp"
    if deepest <= 8:
        return start, 255
    if rgb:
        depth = next(each for each in (10, 12, 16) if each >= deepest)
        return f"{start}{depth}le", 2**depth - 1
    # FFmpeg's scaler takes 255 · 2^(n − 8) for white between YUV and deep RGB.
    return f"{start}14le" if not alpha else f"{start}12le", 255 << (4 if alpha else 6)


def _matrix(frame: VideoFrame) -> Colorspace:
    """The matrix from YUV that a frame names, or what players take where it names none."""
    found = _MATRICES.get(frame.colorspace)
    if found is None:
        found = (
            Colorspace.ITU709 if frame.width >= 1280 or frame.height > 576 else Colorspace.ITU601
        )
    return found


def _square(frame: VideoFrame, stream: VideoStream, notes: list[str]) -> tuple[int, int]:
    """(width, height) with square pixels."""
    ratio = stream.sample_aspect_ratio
    if not ratio or ratio == 1 or not Fraction(1, 8) <= ratio <= 8:
        return frame.width, frame.height
    width = max(1, round(frame.width * ratio))
    if width * frame.height > FRAME_LIMIT:
        return frame.width, frame.height
    notes.append(
        f"pixels are {ratio.numerator}:{ratio.denominator}; "
        f"stretched {frame.width}x{frame.height} -> {width}x{frame.height}"
    )
    return width, frame.height


def _orientation(frame: VideoFrame, notes: list[str]) -> tuple[bool, list[int]]:
    """Whether rows and columns change places, and which axes (-2, -1) are flipped after that.

    The display matrix (ISO 14496-12, 8.2.2) brings (x, y) to (a·x + c·y, b·x + d·y).
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return False, []
    values = struct.unpack("=9i", bytes(data)[:36])
    a, b, c, d = (round(values[at] / 65536, 2) for at in (0, 1, 3, 4))
    if {abs(a), abs(d)} == {1} and b == c == 0:
        swap, across, down = False, a, d
    elif {abs(b), abs(c)} == {1} and a == d == 0:
        swap, across, down = True, c, b
    else:
        notes.append("turned by an odd angle, which is left out")
        return False, []
    flip = [axis for axis, sign in ((-2, down), (-1, across)) if sign < 0]
    if swap or flip:
        notes.append("turned upright, as its file says")
    return swap, flip


# --- animated WebP, which Pillow reads -------------------------------------------------------


class AnimatedWebp:
    """An animated WebP's pictures, as a `Source`."""

    def __init__(self, task: Mapping[str, Any]) -> None:
        self.task, self.shown = task, task["shown"]
        check_whole(task["path"], ANIMATED_WEBP)
        self.begin = fraction(task.get("begin")) or Fraction(0)
        self.end = fraction(task.get("end"))
        if self.end is not None and self.end <= self.begin:
            raise FilmError(
                f"begin is {seconds(self.begin)} and end {seconds(self.end)}; "
                "begin must come before end"
            )
        self._animation = webp_frames(task["path"], task.get("size"))

    def info(self) -> dict[str, Any]:
        said = next(self._animation)
        duration = sum(said["durations"], Fraction(0))
        if self.begin >= duration:
            raise FilmError(
                f"begin is {seconds(self.begin)}; {self.shown!r} ends at {seconds(duration)}"
            )
        count = len(said["durations"])
        return {
            "width": said["width"],
            "height": said["height"],
            "rate": pair(count / duration if duration else None),
            "time_base": [1, 1000],
            "count": count,
            "duration": pair(duration),
            "codec": "webp",
            "audio": [],
            "notes": [],
            "start": [0, 1],
        }

    def counted(self) -> int | None:
        return None

    def frames(self) -> Iterator[tuple[dict[str, Any], list[memoryview]]]:
        for said, planes in self._animation:
            time = fraction(said["time"])
            assert time is not None
            if time >= self.begin and (self.end is None or time < self.end):
                yield said, planes
