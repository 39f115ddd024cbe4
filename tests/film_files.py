"""Films for tests, made with PyAV itself and not with the package, and films that are damaged."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

Picture = np.ndarray  # (H, W, 3) uint8


def pictures(count: int, width: int = 64, height: int = 48) -> list[Picture]:
    """Smooth colours that move; each frame's mean is its own."""
    y, x = np.mgrid[:height, :width] / 16
    found: list[Picture] = []
    for index in range(count):
        waves = (np.sin(x + index / 4), np.sin(y - x / 2), np.sin((x + y) / 2 + index / 3))
        values = 0.5 + 0.4 * np.stack(waves, -1)
        found.append((values * 255).round().astype(np.uint8))
    return found


def make_film(
    path: Path,
    frames: Sequence[Picture],
    *,
    times: Sequence[int] | None = None,
    base: Fraction = Fraction(1, 30),
    codec: str = "libx264",
    pixels: str = "yuv420p",
    form: str | None = None,
    tags: dict[str, int] | None = None,
    audio: Sequence[str] = (),
    rotation: float | None = None,
    mirrored: bool = False,
    ratio: Fraction | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    subtitles: bool = False,
) -> Path:
    """A film of `frames` at `times`, counted in `base`; BT.601 unless `tags` say otherwise."""
    import av

    times = range(len(frames)) if times is None else times
    with av.open(str(path), "w", format=form, container_options=container_options or {}) as output:
        stream: Any = output.add_stream(codec, rate=30, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = base
        stream.codec_context.thread_count = 1
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        if ratio is not None:
            stream.codec_context.sample_aspect_ratio = ratio
        if rotation is not None:
            stream.set_display_rotation(rotation, hflip=mirrored)
        tracks: list[Any] = [output.add_stream(each, rate=48000) for each in audio]
        for track, language in zip(tracks, ("deu", "eng"), strict=False):
            track.metadata["language"] = language
        words: Any = output.add_mux_stream("subrip") if subtitles else None
        last = times[-1] * base
        for number, track in enumerate(tracks):
            for packet in _tone(track, float(last) + 0.1, 440 * (number + 1)):
                output.mux(packet)
        for time, picture in zip(times, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if words is not None:
            packet = av.Packet(b"hello")
            packet.stream, packet.pts, packet.dts, packet.duration = words, 0, 0, 1
            packet.time_base = Fraction(1, 1000)
            output.mux(packet)
    return path


def _tone(track: Any, seconds: float, pitch: float) -> Any:
    import av

    size = track.codec_context.frame_size or 1024
    form = track.codec_context.format.name
    kind = {"fltp": np.float32, "s16": np.int16, "s16p": np.int16}[form]
    for start in range(0, int(seconds * 48000), 960 if size == 960 else 1024):
        count = 960 if size == 960 else 1024
        wave = 0.3 * np.sin(2 * np.pi * pitch * np.arange(start, start + count) / 48000)
        scaled = (wave * (32767 if kind is np.int16 else 1)).astype(kind)
        both = np.stack([scaled, scaled]) if form.endswith("p") else scaled.repeat(2)[None]
        frame = av.AudioFrame.from_ndarray(both, format=form, layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        yield from track.encode(frame)
    yield from track.encode(None)


def packets(path: Path, kind: str = "audio") -> list[list[tuple[int, int, int | None, bytes]]]:
    """Of each track of a kind, its packets: pts, dts, duration, bytes."""
    import av

    with av.open(str(path)) as container:
        found: list[list[tuple[int, int, int | None, bytes]]] = []
        for stream in getattr(container.streams, kind):
            container.seek(0)
            found.append(
                [
                    (packet.pts, packet.dts, packet.duration, bytes(packet))
                    for packet in container.demux(stream)
                    if packet.size
                ]
            )
    return found
