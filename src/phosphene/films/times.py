"""Times in a film as they are written: `10s`, `250f` (frames), `50%`, `1:02.5`, `end`.

A time is exact: seconds are fractions, so that frame 250 at 30000/1001 frames a second is met.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from phosphene.errors import SettingsError

Unit = Literal["s", "f", "%", "end"]

NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
UNITS = rf"{NUMBER}\s*(?:s|f|%)(?!\w)"
CLOCK = r"(?:[0-9]+:)?[0-9]+:[0-9][0-9](?:\.[0-9]+)?"
EXAMPLES = "10s, 250f, 50%, 1:02.5 or end"

LONGEST = 24
"""The most characters of one time; so its number is exact in what `decimal` holds."""


@dataclass(frozen=True)
class Time:
    """A time: `amount` in s, frames or per cent, from the first frame on, or the end.

    The end is when the last frame has been shown: `end`, `100%` and, of 150 frames, `150f`.
    """

    amount: Decimal
    unit: Unit

    @property
    def text(self) -> str:
        if self.unit == "end":
            return "end"
        number = format(self.amount.normalize(), "f")
        return f"{number}{self.unit}"

    def seconds(self, *, rate: Fraction | None, duration: Fraction | None) -> Fraction:
        """The same in s.

        Args:
            rate: frames a second; None where it is not known, or not constant.
            duration: of the film, s; None where it is not known.

        Raises:
            SettingsError: the rate or the duration is needed, and not known.
        """
        if self.unit == "s":
            return Fraction(self.amount)
        if self.unit == "f":
            if not rate:
                raise SettingsError(
                    f"{self.text}: the film has no constant frame rate; give the time in s"
                )
            return Fraction(self.amount) / rate
        if duration is None:
            raise SettingsError(
                f"{self.text}: the length of the film is not known; give the time in s or f"
            )
        return duration if self.unit == "end" else Fraction(self.amount) / 100 * duration


START, END = Time(Decimal(0), "s"), Time(Decimal(0), "end")


def read_time(text: str) -> Time:
    """The time of a text that has a unit or is a clock's. ValueError with what is wrong with it."""
    if len(text) > LONGEST:
        raise ValueError(f"a time has at most {LONGEST} characters")
    if text == "end":
        return END
    if re.fullmatch(CLOCK, text):
        return Time(_clock_seconds(text), "s")
    if not re.fullmatch(UNITS, text):
        raise ValueError(f"expected a time such as {EXAMPLES}")
    amount, unit = Decimal(text[:-1].strip()), text[-1]
    if unit == "%" and amount > 100:
        raise ValueError("100% is the end")
    return Time(amount, "s" if unit == "s" else "f" if unit == "f" else "%")


def _clock_seconds(text: str) -> Decimal:
    *hours, minutes, seconds = text.split(":")
    if Decimal(seconds) >= 60 or (hours and int(minutes) >= 60):
        raise ValueError("seconds, and minutes after hours, are less than 60")
    return (int(hours[0] if hours else 0) * 60 + int(minutes)) * 60 + Decimal(seconds)


def parse_time(text: str, *, rate: Fraction | None, duration: Fraction | None) -> Fraction:
    """The time that a text says, s; a number alone is of seconds.

    >>> parse_time("1:02.5", rate=None, duration=None)
    Fraction(125, 2)
    >>> parse_time("250f", rate=Fraction(30000, 1001), duration=None)
    Fraction(1001, 120)

    Args:
        rate, duration: as in `Time.seconds`. Whether the time is within the film is not looked at.

    Raises:
        SettingsError: it is no time, or needs a rate or a duration that is not known.
    """
    bare = text.strip()
    if re.fullmatch(NUMBER, bare):
        bare += "s"
    try:
        time = read_time(bare)
    except ValueError as error:
        shown = text if len(text) <= 60 else text[:60] + "…"
        raise SettingsError(f"cannot read the time {shown!r}: {error}") from None
    return time.seconds(rate=rate, duration=duration)


def frame_times(rate: Fraction, duration: Fraction) -> Iterator[Fraction]:
    """When each frame of a film of a constant rate begins, s."""
    for index in range(-(-duration * rate // 1)):
        yield index / rate
