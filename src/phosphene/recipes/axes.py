"""Axes: names of what changes, each with its values, and how they are written.

>>> parse_axis("steps=5; 10; 20").values
{'steps': ('5', '10', '20')}
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from phosphene.errors import SettingsError, suggest
from phosphene.objectives.text import expanded
from phosphene.recipes.base import Recipe

MOST_VALUES = 10_000  # of one axis
ABOUT = ("objective", "layer")  # names for what a picture is about, where a layer is an objective

_NAMED = re.compile(r"\s*([A-Za-z][\w-]*)\s*=(.*)", re.DOTALL)
_NEXT = re.compile(r"\s&\s(?=\s*[A-Za-z][\w-]*\s*=)")
_RANGE = re.compile(r"(\d{1,9})\s*[-–]\s*(\d{1,9})")


class Axis:
    """One thing that changes, or several that change together.

    values: by name, as many of each.
    """

    def __init__(self, values: Mapping[str, Sequence[Any]]) -> None:
        """SettingsError for no values, an empty one, or names with different numbers of values."""
        self.values = {name: tuple(given) for name, given in values.items()}
        if not self.values:
            raise SettingsError("an axis has a name and values, such as steps=5; 10")
        for name, given in self.values.items():
            if not given:
                raise SettingsError(f"{name}: there are no values; expected such as {name}=1; 2")
            if any(isinstance(value, str) and not value.strip() for value in given):
                raise SettingsError(f"{name}: value {_empty(given)} of {len(given)} is empty")
        counts = {name: len(given) for name, given in self.values.items()}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise SettingsError(
                f"names that change together have as many values each; here are {told}"
            )

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    def points(self) -> list[dict[str, Any]]:
        """What each place along it changes, by name."""
        names = list(self.values)
        return [
            dict(zip(names, point, strict=True))
            for point in zip(*self.values.values(), strict=True)
        ]


def _empty(given: Sequence[Any]) -> int:
    blank = (k for k, v in enumerate(given, 1) if isinstance(v, str) and not v.strip())
    return next(blank)


def parse_axis(text: str) -> Axis:
    """The axis of "NAME=VALUE; VALUE", or, changing together, of "a=1; 2 & b=3; 4".

    0-9 is a value for each number, and mixed4c:0-9 an objective for each channel. SettingsError for
    what is none; ObjectiveError for such a range that goes backwards.
    """
    values: dict[str, tuple[str, ...]] = {}
    for part in _NEXT.split(text):
        found = _NAMED.fullmatch(part)
        if found is None:
            raise SettingsError(
                f"{part.strip()!r}: expected NAME=VALUE; VALUE, such as steps=5; 10"
            )
        name = found[1].replace("-", "_")
        if name in values:
            raise SettingsError(f"{name} is named twice in {text!r}")
        values[name] = _of_channels(name, [v for each in _split(found[2]) for v in _spread(each)])
    return Axis(values)


def axis_of(given: Any) -> Axis:
    """The axis of a text, or of names with their values.

    What is not text becomes what it is written as. SettingsError for anything else.
    """
    if isinstance(given, Axis):
        return given
    if isinstance(given, str):
        return parse_axis(given)
    if not isinstance(given, Mapping):
        raise SettingsError(
            f"an axis is a text, or names with values, such as {{'steps': [5, 10]}}; this is "
            f"{type(given).__name__}"
        )
    values = {}
    for name, several in given.items():
        alone = isinstance(several, str) or not isinstance(several, (Sequence, range))
        texts = [as_text(value) for value in ([several] if alone else several)]
        values[str(name).replace("-", "_")] = _of_channels(str(name), texts)
    return Axis(values)


# Names --------------------------------------------------------------------------------------------


def axis_names(recipe: Recipe) -> list[str]:
    """The names that an axis over requests of a recipe may have."""
    names = [] if recipe.subject is None else [*subject_names(recipe)]
    names += ["network", *(entry.role for entry in recipe.inputs)]
    names += ["start"] if recipe.starts else []
    names += ["size"] if recipe.sized else []
    return list(dict.fromkeys([*names, *recipe.settings.model_fields]))


def subject_names(recipe: Recipe) -> tuple[str, ...]:
    """What it is about has two names where a layer is an objective, too."""
    subject = recipe.subject
    if subject is None:
        return ()
    return ABOUT if subject.parsed else (subject.name,)


def check_name(recipe: Recipe, name: str) -> None:
    """SettingsError, with the closest names, for what a recipe does not have."""
    names = axis_names(recipe)
    if name.replace("-", "_") not in names:
        raise SettingsError(f"{recipe.name} has no {name!r} to vary{suggest(name, names)}")


# Values -------------------------------------------------------------------------------------------


def as_text(value: Any) -> str:
    """A value as it is written on a command line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = getattr(value, "text", value)  # of an objective
    return text if isinstance(text, str) else str(text)


def _split(text: str) -> list[str]:
    """The values between the semicolons that stand in no quotes."""
    found, quote = [""], ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        if letter == ";" and not quote:
            found.append("")
        else:
            found[-1] += letter
    return [part.strip() for part in found]


def _of_channels(name: str, values: Sequence[str]) -> tuple[str, ...]:
    """The values, of which each may be of a range of channels."""
    return expanded(values) if name in ABOUT else tuple(values)


def _spread(value: str) -> list[str]:
    """Each number of a range such as 0-9; anything else is itself."""
    found = _RANGE.fullmatch(value)
    if found is None:
        return [value]
    first, last = int(found[1]), int(found[2])
    if last < first:
        raise SettingsError(f"{value} goes backwards; a range such as 0-9 was expected")
    if last - first >= MOST_VALUES:
        raise SettingsError(f"{value} has {last - first + 1} values, {MOST_VALUES} at most")
    return [str(number) for number in range(first, last + 1)]
