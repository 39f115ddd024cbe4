"""Reading a film, in the process that knows FFmpeg: what it says of itself, and its frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
from av.error import FFmpegError
from av.stream import Disposition

from phosphene.errors import FilmError, one_line
from phosphene.films.blocks import declared_size
from phosphene.films.child import FRAME_SECONDS, Channel, grant
from phosphene.films.convert import Conversion
from phosphene.films.formats import ANIMATED_WEBP, FRAME_LIMIT, demuxer_of
from phosphene.films.messages import fraction, pair, seconds
from phosphene.films.webp import webp_frames

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_HDR = {16: "PQ", 18: "HLG"}  # transfer characteristics, as ITU-T H.273 numbers them
_COUNTABLE = 2**28  # bytes of a file whose frames are counted where its header does not say
_STILL = {"gif", "apng"}  # what holds a picture as well as a film
_COVER = Disposition.attached_pic
_DAMAGE = "explode+crccheck"  # else decoders paint over what they cannot read


# --- what is said ----------------------------------------------------------------------------


def info(channel: Channel, task: Mapping[str, Any]) -> None:
    """Answer with what the film says of itself."""
    source = _opened(task)
    said = source.info()
    if isinstance(source, Source) and source.demuxer in _STILL and source.counted() == 1:
        raise source.picture()
    if said["count"] is None and (count := source.counted()) is not None:
        said["count"] = count
        if (rate := fraction(said["rate"])) and said["duration"]:  # guessed, as of MPEG-PS
            said["duration"] = pair(max(Fraction(*said["duration"]), (count - 1) / rate))
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
    with open_film(task) as container:
        said = {key.lower(): value for key, value in container.metadata.items()}
    channel.send({"text": said.get("comment")})


def _opened(task: Mapping[str, Any]) -> Source | AnimatedWebp:
    if demuxer_of(task["path"]) == ANIMATED_WEBP:
        return AnimatedWebp(task)
    return Source(task)


# --- files that FFmpeg reads -----------------------------------------------------------------


def open_film(task: Mapping[str, Any]) -> InputContainer:
    """The file at `task["path"]`, by the one demuxer that its first bytes ask for. FilmError."""
    path, demuxer = task["path"], demuxer_of(task["path"])
    check_whole(path, demuxer)
    options = {
        "protocol_whitelist": "file",
        "max_pixels": str(FRAME_LIMIT),
        "err_detect": _DAMAGE,
        "max_streams": "100",
    }
    try:
        return av.open(f"file:{path}", format=demuxer, options=options, metadata_errors="replace")
    except FFmpegError as error:
        reason = f"it is damaged or cut short ({_said(error)})"
        raise FilmError(f"cannot read {task['shown']!r}: {reason}") from error


def _said(error: FFmpegError) -> str:
    return one_line(error.strerror or error)


def start_of(container: InputContainer) -> Fraction:
    """The time at which the first of a film's pictures and sounds begins."""
    starts = [
        each.start_time * each.time_base
        for each in (*container.streams.video, *container.streams.audio)
        if each.start_time is not None and each.time_base and not each.disposition & _COVER
    ]
    return min(starts, default=Fraction(0))


def check_whole(path: str, demuxer: str) -> None:
    """FilmError if the file is shorter than it says. FFmpeg reads such a file up to where it ends,
    as if that were the end of the film."""
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

    def __post_init__(self) -> None:
        self.shown = self.task["shown"]
        self.demuxer = demuxer_of(self.task["path"])
        self._open()
        self._check_index()
        self.begin = fraction(self.task.get("begin")) or Fraction(0)
        self.end = fraction(self.task.get("end"))
        self.start = start_of(self.container)
        self._decoded = self._from_begin()
        self.first = self._first()
        self.plan = Conversion.of(self.first, self.stream, self.task.get("size"))

    def _open(self) -> None:
        self.container = open_film(self.task)
        self.stream = self._stream()
        context = self.stream.codec_context
        if context is None:
            raise FilmError(f"cannot read {self.shown!r}: FFmpeg has no decoder for its pictures")
        self._check_size(context.width, context.height)
        context.options = {"max_pixels": str(FRAME_LIMIT), "err_detect": _DAMAGE}
        context.thread_count, context.thread_type = 2, "SLICE"

    def _stream(self) -> VideoStream:
        found = [each for each in self.container.streams.video if not each.disposition & _COVER]
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
        far, so it is tried from further back, and at last all is decoded.
        """
        wanted = self.start + self.begin
        decoded, first = iter(()), None
        for back in (0, 10) if self.begin else ():
            decoded = self._from(wanted - back)
            with suppress(FilmError):  # of a seek into the middle of nothing
                first = next(decoded, None)
            if first is not None and first[0] <= wanted:
                break
        else:
            if self.begin:
                self._open()
            decoded = self._from(None)
            first = next(decoded, None)
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
        """Decoded frames. Damage is an error, but where a film is joined in the middle, as by a
        seek or by a recording, pictures may refer to what lies before: these are passed over."""
        joined: Fraction | None = None
        failed: FFmpegError | None = None
        for packet in self._packets():
            at = packet.pts * (packet.time_base or self.base) if packet.pts is not None else None
            try:
                decoded = packet.decode()
            except FFmpegError as error:
                if joined is not None and (at is None or at >= joined):
                    raise self._damaged(error, joined if at is None else at) from error
                failed = error
                continue
            for frame in decoded:
                if joined is None:
                    if frame.is_corrupt:
                        continue
                    joined = (frame.pts or 0) * (frame.time_base or self.base)
                yield frame
        if joined is None and failed is not None:
            raise FilmError(
                f"{self.shown!r} holds no frames that can be decoded ({_said(failed)}; "
                f"the limit is {FRAME_LIMIT / 1e6:.0f} megapixels a frame)"
            )

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        try:
            yield from self.container.demux(self.stream)
        except FFmpegError as error:
            raise self._damaged(error, None) from error

    def _damaged(self, error: FFmpegError, at: Fraction | None) -> FilmError:
        where = "" if at is None else f" near {seconds(at - self.start)}"
        return FilmError(f"cannot read {self.shown!r}: it is damaged{where} ({_said(error)})")

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
        for stream in self.container.streams:
            kind = "cover" if stream.disposition & _COVER else stream.type
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
        with open_film(self.task) as container:
            stream = container.streams[self.stream.index]
            return sum(1 for packet in container.demux(stream) if packet.size)

    def picture(self) -> FilmError:
        """What to say of a GIF or PNG of one frame, which makes no film."""
        kind = self.demuxer.removeprefix("a").upper()
        return FilmError(f"{self.shown!r} is a picture ({kind}); a film was expected")

    def frames(self) -> Iterator[tuple[dict[str, Any], list[memoryview]]]:
        """Each frame: what is said of it, and its planes."""
        assert self.one is not None
        held: tuple[Fraction, VideoFrame] | None = self.one
        many = self.demuxer not in _STILL
        while held is not None:
            time, frame = held
            if self.end is not None and time >= self.start + self.end:
                return
            if not many:
                following = next(self._decoded, None)
                if following is None:
                    raise self.picture()
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
