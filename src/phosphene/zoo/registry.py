"""Networks that have a name of their own, each with what the listing says of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from phosphene.errors import NetworkError
from phosphene.plugins import Registry

if TYPE_CHECKING:
    from phosphene.network import Network

Loader = TypeVar("Loader", bound="Callable[..., Network]")


@dataclass(frozen=True)
class NetworkInfo:
    """One line of the listing. `size_bytes` is that of the weights' file, None if unknown."""

    name: str
    about: str
    weights: Literal["bundled", "cached", "to fetch"]
    size_bytes: int | None
    licence: str
    source: str


@dataclass(frozen=True)
class ModelCard:
    """What was said of a network when it was registered; `file` is that of its weights."""

    about: str
    licence: str
    source: str
    size_bytes: int | None
    file: str | None


NETWORKS: Registry[Callable[..., Network]] = Registry("network", NetworkError)
"""name -> what loads it."""

MODEL_CARDS: dict[str, ModelCard] = {}


def register_network(
    name: str,
    *,
    about: str = "",
    licence: str = "",
    source: str = "",
    size_bytes: int | None = None,
    file: str | None = None,
) -> Callable[[Loader], Loader]:
    """Register a function that gives a `Network`, by a name for `load_network` and `--network`.

    The function takes nothing, or `weights`, where there is a choice.

    Args:
        name: Without ':', '@' and blanks.
        about: What the listing says of it, in a few words.
        licence: That of the weights.
        source: Where it comes from.
        size_bytes: Of the weights' file.
        file: Name of the weights' file in the cache, for networks that fetch theirs.

    Raises:
        NetworkError: For a name that means something else, or is taken.

    >>> @register_network("mine", about="trained on my own pictures", licence="MIT")
    ... def mine() -> Network:
    ...     return Network(build(), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    """

    if not name or re.search(r"[:@\s]", name):
        raise NetworkError(f"a network's name has no ':', '@' or blank: {name!r}")

    def register(loader: Loader) -> Loader:
        NETWORKS.add(name, loader)
        MODEL_CARDS[name] = ModelCard(about, licence, source, size_bytes, file)
        return loader

    return register
