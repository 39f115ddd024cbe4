"""Names of networks, and what they load.

dreamnet                        bundled, like dreamnet-robust: no download
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import platformdirs
import torch

from phosphene.dreamnet import DreamNet
from phosphene.errors import NetworkError, WeightsError, suggest
from phosphene.network import Network

Loader = TypeVar("Loader", bound=Callable[..., Network])
BUNDLED = Path(__file__).parent / "data"
# name -> what loads it
NETWORKS: dict[str, Callable[..., Network]] = {}
_CARDS: dict[str, NetworkInfo] = {}


@dataclass(frozen=True)
class NetworkInfo:
    """One line of the listing. `size_bytes` is that of the weights' file, None if unknown."""

    name: str
    about: str
    weights: Literal["bundled", "cached", "to fetch"]
    size_bytes: int | None
    licence: str
    source: str


def network(
    name: str,
    *,
    about: str = "",
    licence: str = "",
    source: str = "",
    size_bytes: int | None = None,
) -> Callable[[Loader], Loader]:
    """Register a function that gives a `Network`, by a name for `load_network` and `--network`."""

    def register(loader: Loader) -> Loader:
        NETWORKS[name] = loader
        _CARDS[name] = NetworkInfo(name, about, "bundled", size_bytes, licence, source)
        return loader

    return register


def load_network(name: str = "dreamnet", *, weights: str | None = None) -> Network:
    """The network of that name."""
    if name not in NETWORKS:
        raise NetworkError(f"no network {name!r}{suggest(name, NETWORKS)}")
    return NETWORKS[name]() if weights is None else NETWORKS[name](weights=weights)


def listing() -> list[NetworkInfo]:
    """The networks that have a name of their own."""
    return list(_CARDS.values())


def cache_folder() -> Path:
    """Where downloads are kept: `$PHOSPHENE_CACHE`, or the user's cache folder."""
    given = os.environ.get("PHOSPHENE_CACHE")
    return Path(given) if given else Path(platformdirs.user_cache_dir("phosphene", False))


def _bundled(name: str) -> Network:
    from safetensors.torch import load

    weights, card_file = BUNDLED / f"{name}.safetensors", BUNDLED / f"{name}.json"
    try:
        blob, card = weights.read_bytes(), json.loads(card_file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsError(f"{name} is not in this installation: no {error.filename}") from None
    if hashlib.sha256(blob).hexdigest() != card["sha256"]:
        raise WeightsError(f"{weights} is damaged: its SHA-256 is not the one in {card_file.name}")
    with torch.device("meta"):  # no time lost on an initialisation that is thrown away
        module = DreamNet(len(card["classes"]))
    module.load_state_dict({k: v.float() for k, v in load(blob).items()}, assign=True)
    return Network(
        module,
        mean=card["mean"],
        std=card["std"],
        input_size=card["trained_at"],
        classes=[entry["name"] for entry in card["classes"]],
        name=name,
        copy=False,
    )


@network("dreamnet", about="small GoogLeNet, made to be dreamt with", licence="Apache-2.0")
def dreamnet() -> Network:
    """The bundled network."""
    return _bundled("dreamnet")


@network("dreamnet-robust", about="dreamnet, trained against noise", licence="Apache-2.0")
def dreamnet_robust() -> Network:
    """The bundled network, trained on perturbed pictures."""
    return _bundled("dreamnet-robust")
