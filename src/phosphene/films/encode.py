"""Writing a film, in the process that knows FFmpeg: frames encoded, sound copied, text added."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.container.core import Flags
from av.error import FFmpegError
from av.filter import Graph
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from phosphene.errors import FilmError, one_line
from phosphene.films.blocks import add_gif_comment, add_webp_xmp
from phosphene.films.child import ENCODING_SECONDS, Channel, grant
from phosphene.films.decode import describe_audio, open_film, start_of
from phosphene.films.formats import ENCODERS, Encoder
from phosphene.films.messages import fraction
from phosphene.films.text import MARK
from phosphene.image.metadata import xmp_packet

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# As in `decode`: exact rounding. It costs little, planes to planes.
_SCALING = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)
_THREADS = 4  # never the machine's number: x264's bytes depend on it
# ITU-T H.273: primaries, transfer, matrix.
_BT709, _SRGB, _RGB = 1, 13, 0
_OVERLAP = Fraction(2)  # s before a cut from where sound is looked for
# A palette for each frame. Of the dithers, the one that bands least: seen from afar its error is
# 1.9 levels on a photograph, that of ordered ones 2.3.
_PALETTES = (
    ("palettegen", "stats_mode=single:reserve_transparent=0"),
    ("paletteuse", "new=1:dither=sierra2_4a"),
)


def write(channel: Channel, task: Mapping[str, Any]) -> None:
    """Encode the frames that come, one a message, up to one that says `end`; answer what came of
    it."""
    try:
        with _Writer(task) as writer:
            while True:
                said, planes = channel.receive()
                grant(ENCODING_SECONDS)
                if "end" in said:
                    break
                writer.add(said, planes)
            writer.finish()
    except FFmpegError as error:
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))
        reason = "the disk is full" if full else one_line(error.strerror or error)
        raise FilmError(f"cannot write {task['shown']!r}: {reason}") from error
    _add_text(task)
    channel.send({"audio": writer.sound.described, "notes": writer.sound.notes})


def _add_text(task: Mapping[str, Any]) -> None:
    """The film's text, where its container's muxer cannot put it."""
    text = task["text"]
    if text is not None and task["muxer"] == "gif":
        add_gif_comment(task["path"], (MARK + text).encode())
    if text is not None and task["muxer"] == "webp":
        add_webp_xmp(task["path"], xmp_packet(text))


class _Writer:
    """A film that is being written: a context, which closes the file."""

    def __init__(self, task: Mapping[str, Any]) -> None:
        self.encoder = ENCODERS[task["codec"]]
        self._size = tuple(task["size"])
        base = fraction(task["time_base"])
        assert base is not None
        self._base = base
        self._scaler = VideoReformatter()
        self._palettes: Graph | None = None
        self._output = _output(task, base)
        self._stream = _video_stream(self._output, self.encoder, task, base)
        self.sound = _Sound(task, self._output)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._output.close()

    def add(self, said: Mapping[str, Any], planes: bytearray) -> None:
        """A frame: planes of green, blue and red."""
        for frame in self._prepared(self._frame(planes), said):
            frame.pts, frame.time_base = said["pts"], self._base
            frame.duration = said["duration"]
            self._mux(self._stream.encode(frame))

    def finish(self) -> None:
        self._mux(self._stream.encode(None))
        for packet in self.sound.before(None):
            self._output.mux_one(packet)

    def _mux(self, packets: list[Packet[VideoStream]]) -> None:
        """Packets of pictures, each after the sound that comes before it."""
        for packet in packets:
            if packet.dts is not None:
                for sound in self.sound.before(packet.dts * packet.time_base):
                    self._output.mux_one(sound)
            self._output.mux_one(packet)

    def _frame(self, planes: bytearray) -> VideoFrame:
        width, height = self._size
        deep = self.encoder.depth > 8
        if not deep:
            pixels = "gbrp"
        else:
            pixels = self.encoder.pixels if self.encoder.pixels.startswith("gbrp") else "gbrp14le"
        frame = av.VideoFrame(width, height, pixels)
        values = np.frombuffer(planes, np.uint8).reshape(3, height, -1)
        for plane, rows in zip(frame.planes, values, strict=True):
            _fill(plane, rows)
        frame.color_range = ColorRange.JPEG
        return frame

    def _prepared(self, frame: VideoFrame, said: Mapping[str, Any]) -> Iterator[VideoFrame]:
        """The frame in the encoder's own pixels."""
        if self.encoder.pixels == "pal8":
            yield self._paletted(self._converted(frame, "bgra"), said)
        elif self.encoder.pixels.startswith("gbrp"):
            yield frame
        else:
            yield self._converted(frame, self.encoder.pixels)

    def _converted(self, frame: VideoFrame, pixels: str) -> VideoFrame:
        yuv = pixels.startswith("yuv")
        converted = self._scaler.reformat(
            frame,
            format=pixels,
            dst_colorspace=Colorspace.ITU709 if yuv else None,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG if yuv else ColorRange.JPEG,
            interpolation=_SCALING,
            threads=1,
        )
        converted.color_primaries = _BT709
        converted.color_trc = _BT709 if yuv else _SRGB
        return converted

    def _paletted(self, frame: VideoFrame, said: Mapping[str, Any]) -> VideoFrame:
        if self._palettes is None:
            self._palettes = _palette_graph(frame, self._base)
        frame.pts, frame.time_base = said["pts"], self._base
        self._palettes.vpush(frame)
        return self._palettes.vpull()


def _fill(plane: Any, rows: np.ndarray) -> None:
    """Put pixels into a plane, whose rows are padded."""
    height, width = rows.shape
    padded = np.frombuffer(plane, np.uint8)[: plane.line_size * height]
    padded.reshape(height, -1)[:, :width] = rows


def _palette_graph(frame: VideoFrame, base: Fraction) -> Graph:
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=base
    )
    split, sink = graph.add("split"), graph.add("buffersink")
    palette, use = (graph.add(name, options) for name, options in _PALETTES)
    source.link_to(split)
    split.link_to(palette, 0, 0)
    split.link_to(use, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph


def _output(task: Mapping[str, Any], base: Fraction) -> OutputContainer:
    """The file, its muxer, and what stands in its head."""
    options: dict[str, str] = {}
    if task["muxer"] in ("mp4", "mov"):
        # Else a film that starts beyond 0 would start at a whole thousandth of a second.
        options = {"movflags": "+faststart", "movie_timescale": str(base.denominator)}
    if task["muxer"] == "mov":  # QuickTime's own place for text ends at 64 kB
        options["movflags"] += "+use_metadata_tags"
    if task["muxer"] == "webp":
        options = {"loop": "0"}
    output = av.open(f"file:{task['path']}", "w", format=task["muxer"], container_options=options)
    output.flags |= Flags.bitexact.value  # no random numbers, no date
    if task["text"] is not None and task["muxer"] not in ("gif", "webp"):
        output.metadata["comment"] = MARK + task["text"]
    return output


def _video_stream(
    output: OutputContainer, encoder: Encoder, task: Mapping[str, Any], base: Fraction
) -> VideoStream:
    try:
        stream: Any = output.add_stream(encoder.name, rate=fraction(task["rate"]))
    except UnknownCodecError:
        raise FilmError(
            f"cannot write {task['shown']!r}: this PyAV has no encoder {encoder.name}"
        ) from None
    stream.width, stream.height = task["size"]
    stream.pix_fmt = encoder.pixels
    context = stream.codec_context
    context.time_base = base
    context.options = dict(task["options"])
    context.thread_count, context.thread_type = _THREADS, "FRAME"
    if encoder.name == "ffv1":
        context.thread_type = "SLICE"
    if encoder.name == "libx265":
        context.codec_tag = "hvc1"  # what players by Apple ask for
    yuv = encoder.pixels.startswith("yuv")
    context.color_range = ColorRange.MPEG if yuv else ColorRange.JPEG
    context.color_primaries = _BT709
    context.color_trc = _BT709 if yuv else _SRGB
    context.colorspace = _BT709 if yuv else _RGB
    return stream


class _Sound:
    """The tracks of sound of another film, whose packets are copied as they are.

    Where the film is cut, packets that begin between the cuts are taken, and all times are
    less by where the pictures begin.
    """

    def __init__(self, task: Mapping[str, Any], output: OutputContainer) -> None:
        self.described: list[str] = []
        self.notes: list[str] = []
        self._waiting: Packet[Any] | None = None
        self._packets: Iterator[Packet[Any]] = iter(())
        if task["audio_from"] is None:
            return
        self._source = open_film({"path": task["audio_from"], "shown": task["audio_shown"]})
        self._shift = fraction(task["shift"]) or Fraction(0)
        self._begin, self._end = fraction(task["begin"]), fraction(task["end"])
        self._tracks = self._added(output, task)
        if self._tracks:
            self._packets = self._copied()
            self._waiting = next(self._packets, None)

    def _added(self, output: OutputContainer, task: Mapping[str, Any]) -> dict[int, Any]:
        tracks: dict[int, Any] = {}
        for number, stream in enumerate(self._source.streams.audio, 1):
            described = describe_audio(stream)
            try:
                track = output.add_stream_from_template(stream)
            except ValueError:
                kind = task["muxer"].upper()
                self.notes.append(f"sound {number} ({described}) left out: {kind} cannot hold it")
                continue
            track.metadata.update(stream.metadata)
            track.disposition = stream.disposition
            self.described.append(described)
            tracks[stream.index] = track
        return tracks

    def _copied(self) -> Iterator[Packet[Any]]:
        container, start = self._source, start_of(self._source)
        if self._begin:
            container.seek(int((self._shift - _OVERLAP) * av.time_base), backward=True)
        stop = None if self._end is None else start + self._end
        streams = tuple(container.streams[index] for index in self._tracks)
        for packet in container.demux(streams):
            if packet.pts is None or not packet.size:
                continue
            time = packet.pts * packet.time_base
            if stop is not None and time >= stop:
                if time >= stop + _OVERLAP:
                    return
                continue
            if self._begin and time < self._shift:
                continue
            back = round(self._shift / packet.time_base)
            packet.pts -= back
            packet.dts = packet.pts if packet.dts is None else packet.dts - back
            packet.stream = self._tracks[packet.stream_index]
            yield packet

    def before(self, time: Fraction | None) -> Iterator[Packet[Any]]:
        """The packets that begin before a time of the film that is written; None, all the rest."""
        while (packet := self._waiting) is not None:
            assert packet.pts is not None
            if time is not None and packet.pts * packet.time_base > time:
                return
            self._waiting = next(self._packets, None)
            yield packet
