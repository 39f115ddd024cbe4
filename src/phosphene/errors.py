"""What can go wrong, for a caller to catch.

    PhospheneError
    ├── ImageError            a picture that cannot be read or written
    │   ├── FilmError         a film that cannot
    │   └── InTheWayError     a file is where one is to be written
    ├── NetworkError
    │   ├── UnknownLayerError
    │   ├── InputTooSmallError
    │   └── WeightsError      not found, damaged, of the wrong shapes, or refused
    ├── ObjectiveError        an objective, or its text, that makes no sense
    ├── SettingsError         a setting out of bounds
    ├── NonFiniteError        the ascent left the numbers; carries the last good picture
    ├── RecipeError           a recipe that is not there, or cannot be replayed
    ├── RequestError          a request that is damaged, or asks for what it may not
    ├── StateError            what a loop is to go on from does not fit, or is damaged
    ├── PluginError           a plugin that is not there, or fails
    └── MissingExtraError     an optional package is not installed

Each message is one line: what was given, what was expected, the valid choices.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class PhospheneError(Exception):
    """Anything that phosphene reports to its user."""


class ImageError(PhospheneError):
    """A picture cannot be read or written."""


class FilmError(ImageError):
    """A film cannot be read or written."""


class InTheWayError(ImageError):
    """A file is where one is to be written, and may not be replaced."""


class NetworkError(PhospheneError):
    """A network cannot be found, loaded or run."""


class UnknownLayerError(NetworkError):
    """The network has no layer of that name."""

    def __init__(self, name: str, network: str, layers: Iterable[str]) -> None:
        super().__init__(f"{network} has no layer {name!r}{suggest(name, layers)}")
        self.name = name


class InputTooSmallError(NetworkError):
    """The picture is smaller than the network can take. `least` is in px, a side."""

    def __init__(self, message: str, least: int | None = None) -> None:
        super().__init__(message)
        self.least = least


class WeightsError(NetworkError):
    """Weights are not there, damaged, of the wrong shapes, or not safe to load."""


class ObjectiveError(PhospheneError):
    """An objective, or its text, makes no sense for this network."""


class SettingsError(PhospheneError):
    """A setting is out of its bounds."""


class NonFiniteError(PhospheneError):
    """Score or gradient became infinite or not a number.

    `image` is the last picture before it, `(N, 3, H, W)`, or None if there was none.
    """

    def __init__(self, message: str, image: Tensor | None = None) -> None:
        super().__init__(message)
        self.image = image


class RecipeError(PhospheneError):
    """A recipe is missing, of a newer version, or cannot be replayed."""


class RequestError(PhospheneError):
    """A request is damaged, of a newer version, or asks for what it may not have by itself."""


class StateError(PhospheneError):
    """The state that a loop is to go on from is damaged, or that of something else."""


class PluginError(PhospheneError):
    """A plugin is not there, fails, or registers a name that is taken."""


class MissingExtraError(PhospheneError):
    """An optional package is needed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f'{feature} needs an extra: pip install "phosphene[{extra}]"')


class DeadUnitWarning(UserWarning):
    """After all steps a unit has given no gradient: its picture is grey."""


class PluginWarning(UserWarning):
    """An installed plugin failed, and is left out."""


def suggest(name: str, choices: Iterable[str], *, most: int = 5) -> str:
    """The end of a message about an unknown `name`: the closest choices, or the first few.

    >>> suggest("mixed4x", ["mixed4a", "mixed4b", "conv1"])
    '; the closest are mixed4b, mixed4a'
    """
    choices = list(choices)
    # Case-blind, since a wrong case is the commonest slip.
    lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(name.lower(), lower, n=most, cutoff=0.5)
    if close:
        return "; the closest are " + ", ".join(lower[match] for match in close)
    if not choices:
        return ""
    shown = ", ".join(choices[:most])
    more = f" and {len(choices) - most} more" if len(choices) > most else ""
    return f"; there are {shown}{more}"


def one_line(error: object, most: int = 200) -> str:
    r"""What another library says of an error, in one line of at most so many letters.

    >>> one_line(ValueError("no such\nthing"))
    'no such thing'
    """
    line = " ".join(str(error).split())
    return line if len(line) <= most else line[: most - 3] + "…"
