"""A decoded frame as planes of RGB, in the process that knows FFmpeg.

Planes of green, blue, red (and alpha), in whole numbers. They are made by FFmpeg's scaler, for the
frame's own matrix and range, with chroma interpolated and rounding exact: its fast way would be up
to one and a half levels too dark in the mean.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from phosphene.films.formats import FRAME_LIMIT

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
# As ITU-T H.273 numbers matrices and primaries; the former as FFmpeg's scaler names them.
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
