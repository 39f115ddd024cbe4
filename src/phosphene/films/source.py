"""What frames come from: a file, or whatever gives them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phosphene.errors import FilmError
from phosphene.films.frames import FilmInfo, Frame
from phosphene.films.times import parse_time

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class FilmSource:
    """A film, or a part of it.

    path: of a file, or a folder of pictures; None for frames of elsewhere. begin, end: s from its
    start, None for its own. size: the longest side, px, to which frames are resized.
    given: frames of elsewhere, which are read once.
    """

    path: Path | None = None
    begin: Fraction | None = None
    end: Fraction | None = None
    size: int | None = None
    given: Iterable[Frame | Tensor] = field(default=(), repr=False)

    @staticmethod
    def of_file(
        path: str | Path,
        *,
        begin: str | None = None,
        end: str | None = None,
        size: int | None = None,
    ) -> FilmSource:
        """A file's frames from `begin` to `end`, such as `10s`, `300f` or `50%`.

        FilmError, SettingsError for a file or times that are none.
        """
        from phosphene.films.read import film_info

        info = film_info(path)

        def seconds(text: str | None) -> Fraction | None:
            if text is None:
                return None
            return parse_time(text, rate=info.rate, duration=info.duration)

        found = FilmSource(Path(path), seconds(begin), seconds(end), size)
        found.__dict__["info"] = info  # which is found out once
        return found

    @cached_property
    def info(self) -> FilmInfo | None:
        """What the file says of itself; None of frames of elsewhere."""
        from phosphene.films.read import film_info

        return None if self.path is None else film_info(self.path)

    @property
    def count(self) -> int | None:
        """How many frames there are, as far as the file says; None if only reading would tell."""
        info = self.info
        if info is None:
            return len(self.given) if isinstance(self.given, list | tuple) else None
        if self.begin is None and self.end is None:
            return info.count
        length = self.duration
        return None if length is None or info.rate is None else max(1, round(length * info.rate))

    @property
    def duration(self) -> Fraction | None:
        """In seconds, of the part; None if nothing says so."""
        if self.info is None or self.info.duration is None:
            return None
        end = self.info.duration if self.end is None else min(self.end, self.info.duration)
        return max(Fraction(0), end - (self.begin or 0))

    @property
    def rate(self) -> Fraction | None:
        """Frames a second, if the file says so."""
        return None if self.info is None else self.info.rate

    @property
    def start(self) -> Fraction:
        """The time of the first frame, s, as far as the file says."""
        return Fraction(0) if self.info is None else self.info.start + (self.begin or 0)

    def frames(self, first: int = 0) -> Iterator[Frame]:
        """The frames from number `first` on, counted from 0 in this part."""
        if self.path is None:
            frames: Iterator[Frame] = map(_as_frame, itertools.count(), self.given)
        else:
            from phosphene.films.read import read_film

            frames = read_film(self.path, begin=self.begin, end=self.end, size=self.size)
        return itertools.islice(frames, first, None)


def _as_frame(index: int, given: Any) -> Frame:
    """A frame itself; or a picture as one, 1/30 s after the one before."""
    if isinstance(given, Frame):
        return given
    if getattr(given, "ndim", None) == 3:
        given = given[None]
    if getattr(given, "ndim", None) != 4 or len(given) != 1:
        raise FilmError(
            f"frame {index + 1} is {type(given).__name__}; a Frame or a tensor (1, 3, H, W) was "
            "expected"
        )
    base = Fraction(1, 30)
    return Frame(index, index * base, given, base, base)
