"""What is refused of an objective's arguments, with a message that says what was expected."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence

from phosphene.errors import ObjectiveError
from phosphene.objectives.algebra import LayerInfo, NetworkLike, real_name
from phosphene.objectives.text import IMAGE


def check_choice(what: str, given: str, choices: Sequence[str]) -> None:
    if given not in choices:
        raise ObjectiveError(f"{what} must be one of {', '.join(choices)}, got {given!r}")


def whole_number(what: str, number: object) -> int:
    try:
        whole = operator.index(number)  # pyright: ignore[reportArgumentType]
    except TypeError:
        raise ObjectiveError(f"{what} must be a whole number, got {number!r}") from None
    if whole < 0:
        raise ObjectiveError(f"{what} must be at least 0, got {whole}")
    return whole


def check_channels(name: str, indices: Iterable[int], count: int | None) -> None:
    for index in indices:
        if count is not None and index >= count:
            raise ObjectiveError(
                f"{name} has {count} channels, 0 to {count - 1}; there is no channel {index}"
            )


def channel_count(name: str, network: NetworkLike) -> int | None:
    if name == IMAGE:
        return 3
    info: LayerInfo = network.layers[real_name(name, network)]
    return info.channels


def check_power(cossim_pow: float) -> None:
    if not (math.isfinite(cossim_pow) and cossim_pow >= 0):
        raise ObjectiveError(f"cossim_pow must be at least 0, got {cossim_pow}")
