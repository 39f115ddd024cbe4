"""Keyframes: settings that change while a film runs.

    zoom = 0s: 1.2; 4s: 2.0 ease; end: 1.5
    turn = 10*sin(2*pi*p)

A key names a setting and gives values at times. In between, a value travels to the next one in a
straight line, unless that one says how it is reached: `hold` (only when its time comes), `ease`
(starting and arriving slowly), `in` (starting slowly), `out` (arriving slowly). Before the first
and after the last time the nearest value holds. A value is a number or an expression, which runs on
between its times.

Nothing here needs torch or numpy, and texts are parsed, never evaluated by Python.
"""

from __future__ import annotations

import functools
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from phosphene import calls
from phosphene.calls import PlacedError
from phosphene.errors import SettingsError, suggest
from phosphene.films import expressions
from phosphene.films.expressions import Expression, Part
from phosphene.films.times import CLOCK, EXAMPLES, START, UNITS, Time, frame_times, read_time
from phosphene.films.times import parse_time as parse_time

if TYPE_CHECKING:
    from lark import Lark, Token

MOST_FRAMES = 4_000
"""The most times of one key."""

EXAMPLE = '"zoom = 0s: 1.2; 4s: 2.0 ease; end: 1.5"'

EASINGS: Mapping[str, Callable[[float], float]] = {
    "linear": lambda u: u,
    "hold": lambda u: 0.0,
    "ease": lambda u: u * u * (3 - 2 * u),
    "in": lambda u: u * u,
    "out": lambda u: u * (2 - u),
}
"""How a key's value is reached: the share of the time, [0, 1), to the share of the way."""

WEIGHT = re.compile(r"weight([1-9][0-9]{0,3})")
"""The name of the weight of an objective's term, counted from 1."""

GRAMMAR = (
    rf"""
key: KEY "=" (frames | sum)
frames: frame (";" frame)* ";"?
frame: time ":" sum EASING?
time: TIME | NUMBER
EASING: /[A-Za-z_]+/
KEY: /[A-Za-z_][A-Za-z0-9_-]*/
TIME.2: /{CLOCK}|{UNITS}|end(?!\w)/
"""
    + expressions.GRAMMAR
)
_SYMBOLS = {
    "KEY": "the name of a setting",
    "TIME": f"a time ({EXAMPLES})",
    "EASING": "an easing",
    **expressions.SYMBOLS,
    "SEMICOLON": '";"',
}


# The tree


@dataclass(frozen=True)
class KeyFrame:
    """A value at a time, and how it is reached from the one before: a name of `EASINGS`."""

    time: Time
    value: Expression
    easing: str = "linear"

    @property
    def text(self) -> str:
        easing = "" if self.easing == "linear" else f" {self.easing}"
        return f"{self.time.text}: {self.value.text}{easing}"


@dataclass(frozen=True)
class Key:
    """A setting's name and its values in time, at least one."""

    name: str
    frames: tuple[KeyFrame, ...]

    @property
    def text(self) -> str:
        """The text in canonical form, which reads back as this key."""
        return f"{self.name} = {'; '.join(frame.text for frame in self.frames)}"


# Reading


def parse_key(text: str) -> Key:
    """The key of a text. Whether there is a setting of its name, `Keys.check` says.

    >>> parse_key("zoom = 0s: 1.20; 0:04: 2 ease; end: 3/2").text
    'zoom = 0s: 1.2; 4s: 2 ease; end: 3/2'

    A value without a time holds for all of the film. The hyphens of a flag are underscores.

    Raises:
        SettingsError: in one line, with the place and what was expected there.
    """
    if not text.strip():
        raise SettingsError(f"the key is empty; expected a text such as {EXAMPLE}")
    count = text.count(";")
    if count > MOST_FRAMES:
        shown = " ".join(text[:40].split())
        raise SettingsError(
            f"the key {shown!r}… has {count} semicolons; {MOST_FRAMES} are the most"
        )
    for part in text.split(";"):
        expressions.check_length(part)
    return calls.parsed(_parser(), text, "key", SettingsError, _SYMBOLS)


@functools.cache
def _parser() -> Lark:
    import lark

    class Build(expressions.Rules, lark.Transformer):
        """What each rule of the grammar makes."""

        def key(self, parts: list[Any]) -> Key:
            name, value = str(parts[0]).replace("-", "_"), parts[1]
            if isinstance(value, Part):
                return Key(name, (KeyFrame(START, Expression(value.nodes)),))
            return Key(name, value)

        def frames(self, frames: list[tuple[KeyFrame, Token | None]]) -> tuple[KeyFrame, ...]:
            easing = frames[0][1]
            if easing is not None:
                what = f"{easing} says how a value is reached, and nothing comes before the first"
                raise PlacedError(easing.start_pos, what)
            return tuple(frame for frame, _ in frames)

        def frame(self, parts: list[Any]) -> tuple[KeyFrame, Token | None]:
            time, value, *easing = parts
            if easing and easing[0] not in EASINGS:
                what = f"{str(easing[0])!r} is no easing; expected one of {', '.join(EASINGS)}"
                raise PlacedError(easing[0].start_pos, what)
            frame = KeyFrame(time, Expression(value.nodes), *map(str, easing))
            return frame, (easing[0] if easing else None)

        def time(self, tokens: list[Token]) -> Time:
            return _time_of(tokens[0])

    return lark.Lark(
        GRAMMAR, parser="lalr", start="key", transformer=Build(), maybe_placeholders=False
    )


def _time_of(token: Token) -> Time:
    """The time of a token. PlacedError for a number without a unit, and for what is no time."""
    if token.type == "NUMBER":
        number = token[:20]
        what = f"a time has a unit: {number}s, {number}f (frames) or {number}%"
        raise PlacedError(token.start_pos, what)
    try:
        return read_time(str(token))
    except ValueError as error:
        raise PlacedError(token.start_pos, str(error)) from None


# What may be keyed


@dataclass(frozen=True)
class Bounds:
    """The bounds of a setting: at least, more than, at most, less than; and whether it is whole."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    whole: bool = False

    def holds(self, value: float) -> bool:
        """Whether a finite value is within the bounds, rounded if it is to be whole."""
        value = self.settled(value)
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def settled(self, value: float) -> float:
        """The value as the setting takes it: halves go up where it is whole."""
        return math.floor(value + 0.5) if self.whole else value

    @property
    def text(self) -> str:
        """Such as `more than 1 and at most 10`."""
        limits = (
            ("at least", self.least),
            ("more than", self.above),
            ("at most", self.most),
            ("less than", self.below),
        )
        return " and ".join(f"{what} {limit:g}" for what, limit in limits if limit is not None)


def weight_bounds(terms: int) -> dict[str, Bounds]:
    """The names of an objective's weights, `weight1` …, which may be any number."""
    return {f"weight{number}": Bounds() for number in range(1, terms + 1)}


def split_weights(values: Mapping[str, float]) -> tuple[dict[str, float], dict[int, float]]:
    """Keyed values as those of settings, and the weights of terms by their number from 1."""
    found = {name: WEIGHT.fullmatch(name) for name in values}
    settings = {name: value for name, value in values.items() if not found[name]}
    weights = {int(match[1]): values[name] for name, match in found.items() if match}
    return settings, weights


# Values in time


class Keys:
    """All keys of a film: what each keyed setting is at a time.

    >>> keys = Keys(["zoom = 0s: 1; 4s: 2", "turn = 10*p"])
    >>> keys.at(Fraction(1), rate=Fraction(30), duration=Fraction(10))
    {'zoom': 1.25, 'turn': 1.0}

    Raises:
        SettingsError: a text that is no key, or two keys of one name.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.keys = tuple(parse_key(text) for text in texts)
        seen: set[str] = set()
        for key in self.keys:
            if key.name in seen:
                raise SettingsError(
                    f"{key.name} has two keys; expected one, with all its times: {EXAMPLE}"
                )
            seen.add(key.name)
        self._curves: tuple[Any, tuple[Curve, ...]] = (None, ())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(key.name for key in self.keys)

    @property
    def texts(self) -> tuple[str, ...]:
        """The keys in canonical form."""
        return tuple(key.text for key in self.keys)

    def curves(self, *, rate: Fraction | None, duration: Fraction | None) -> tuple[Curve, ...]:
        """Each key on a film: see `at`."""
        film = (rate, duration)
        if self._curves[0] != film:
            self._curves = film, tuple(Curve.of(key, rate, duration) for key in self.keys)
        return self._curves[1]

    def at(
        self, time: Fraction, *, rate: Fraction | None, duration: Fraction | None
    ) -> dict[str, float]:
        """The value of each key, by name, finite.

        Args:
            time: since the film's first frame, s.
            rate: frames a second; None where it is not known, or not constant.
            duration: of the film, s, the last frame's own time included; None where not known.

        Raises:
            SettingsError: an expression gives no finite number at that time; times are not in
                order, or need what is not known.
        """
        curves = self.curves(rate=rate, duration=duration)
        return {curve.key.name: curve.at(time) for curve in curves}

    def check(
        self,
        animatable: Mapping[str, Bounds],
        *,
        rate: Fraction | None,
        duration: Fraction | None,
    ) -> None:
        """SettingsError unless every frame of a film has values that its settings can take.

        Args:
            animatable: what may be keyed, and its bounds: of `phosphene.settings.animatable` and
                `weight_bounds`.
            rate, duration: as in `at`. Without them only the values at the keys' own times are
                looked at.
        """
        for key in self.keys:
            if key.name not in animatable:
                raise SettingsError(_unknown(key.name, animatable))
        for curve in self.curves(rate=rate, duration=duration):
            curve.check_end()
            bounds = animatable[curve.key.name]
            for time in curve.frame_times():
                value = curve.at(time)
                if not bounds.holds(value):
                    raise SettingsError(
                        f"{curve.key.name} is {value:g} at {_seconds_text(time)}; expected "
                        f"{bounds.text}"
                    )


def _unknown(name: str, animatable: Mapping[str, Bounds]) -> str:
    close = suggest(name, animatable)
    return (
        f"{name!r} cannot be keyed{close if 'closest' in close else ''}; "
        f"what can is {', '.join(animatable) or 'nothing here'}"
    )


def _seconds_text(time: Fraction) -> str:
    return f"{float(time):.6g} s"


def _time_text(key: Key, times: tuple[Fraction, ...], index: int) -> str:
    """A time of a key as it was written, and in s where that is something else."""
    time = key.frames[index].time
    return time.text if time.unit == "s" else f"{time.text} ({_seconds_text(times[index])})"


@dataclass(frozen=True)
class Curve:
    """A key on a film of a rate and a duration: values at times in s.

    times: of the key's frames, s, each later than the one before.
    """

    key: Key
    times: tuple[Fraction, ...]
    rate: Fraction | None
    duration: Fraction | None

    @classmethod
    def of(cls, key: Key, rate: Fraction | None, duration: Fraction | None) -> Curve:
        """SettingsError for times that are not in order, and for what is needed and not known."""
        try:
            times = tuple(f.time.seconds(rate=rate, duration=duration) for f in key.frames)
        except SettingsError as error:
            raise SettingsError(f"the key of {key.name}: {error}") from None
        for index in range(1, len(times)):
            if times[index] <= times[index - 1]:
                early, late = (_time_text(key, times, i) for i in (index, index - 1))
                raise SettingsError(
                    f"the key of {key.name}: {early} stands after {late}; expected each time "
                    "later than the one before, and hold for a jump"
                )
        curve = cls(key, times, rate, duration)
        curve._check_names()
        return curve

    def at(self, time: Fraction) -> float:
        """The value at a time, s. SettingsError if it is not finite."""
        moment = self._moment(time)
        frames = self.key.frames
        index = bisect_right(self.times, time) - 1
        value = self._value(max(index, 0), moment)
        if not 0 <= index < len(frames) - 1:
            return value
        span = self.times[index + 1] - self.times[index]
        share = EASINGS[frames[index + 1].easing](float((time - self.times[index]) / span))
        # What comes next is not asked for before it counts: it may have no value yet.
        if not share:
            return value
        value += share * (self._value(index + 1, moment) - value)
        if not math.isfinite(value):
            raise SettingsError(
                f"the key of {self.key.name}: its value is too large at {_seconds_text(time)}"
            )
        return value

    def frame_times(self) -> Iterator[Fraction]:
        """Every frame's time, s; of a film of unknown length, or rate, those of the key."""
        if self.rate and self.duration is not None:
            return frame_times(self.rate, self.duration)
        return iter(self.times)

    def check_end(self) -> None:
        """SettingsError for a time after the end."""
        if self.duration is not None and self.times[-1] > self.duration:
            late = next(i for i, time in enumerate(self.times) if time > self.duration)
            raise SettingsError(
                f"the key of {self.key.name}: {_time_text(self.key, self.times, late)} is after "
                f"the end of the film, {_seconds_text(self.duration)}"
            )

    def _check_names(self) -> None:
        """SettingsError for an expression that needs what is not known of the film."""
        lacks = {
            name: why
            for name, known, why in (
                ("f", self.rate, "the film has no constant frame rate; expected t, in seconds"),
                ("p", self.duration, "the length of the film is not known; expected t, in seconds"),
            )
            if not known
        }
        for frame in self.key.frames if lacks else ():
            for name in sorted(frame.value.names & lacks.keys()):
                raise SettingsError(
                    f"the key of {self.key.name}: {_shortened(frame.value.text)} needs {name}, and "
                    f"{lacks[name]}"
                )

    def _moment(self, time: Fraction) -> dict[str, float]:
        rate, duration = self.rate, self.duration
        return {
            "t": float(time),
            "f": float(time * rate) if rate else 0.0,
            "p": float(time / duration) if duration else 0.0,
        }

    def _value(self, index: int, moment: Mapping[str, float]) -> float:
        expression = self.key.frames[index].value
        try:
            return expression.value(moment)
        except ArithmeticError as error:
            text, step = _shortened(expression.text), str(error)
            because = "" if step == text.replace(" ", "") else f", since {step} is none"
            raise SettingsError(
                f"the key of {self.key.name}: {text} gives no finite number at "
                f"{moment['t']:.6g} s{because}"
            ) from None


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"
