"""What one frame of a film is, and what a film's file says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Frame:
    """One frame of a film."""

    index: int
    """From 0, among those that are read."""
    time: Fraction
    """When it is shown, in seconds, exactly as the source says; a source may start beyond 0."""
    image: Tensor
    """`(1, 3, H, W)` float32 sRGB in [0, 1]."""
    duration: Fraction | None = None
    """How long it is shown, in seconds; None where nothing says so."""
    time_base: Fraction | None = None
    """What the source counts time in, in seconds: `time` is a multiple of it."""

    def _repr_jpeg_(self) -> bytes:
        """The picture, for a notebook."""
        from phosphene.image.shown import as_jpeg

        return as_jpeg(self.image)


@dataclass(frozen=True)
class FilmInfo:
    """What a film's file says of itself, as it is shown: upright, with square pixels."""

    width: int
    """px of a frame as it is shown."""
    height: int
    rate: Fraction | None
    """Frames a second, such as 30000/1001; their mean where it varies; None if nothing says so."""
    time_base: Fraction
    """What time is counted in, in seconds."""
    count: int | None
    """How many frames there are; None if only decoding would tell."""
    duration: Fraction | None
    """In seconds, from the first frame's time to the end of the last; None if nothing says so."""
    codec: str
    """Of the pictures, as FFmpeg calls it: `h264`, `vp9`, `gif`; `pictures` of a folder."""
    audio: tuple[str, ...]
    """A line for each track of sound, such as `aac, 48000 Hz, stereo, deu`."""
    notes: tuple[str, ...]
    """What a user should know: what is left out, what was changed."""
    start: Fraction = Fraction(0)
    """The time at which the file begins, in seconds; `begin` and `end` count from it."""
