"""The bundled networks: `dreamnet` and `dreamnet-robust`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import load as tensors_of

from phosphene.errors import NetworkError, WeightsError
from phosphene.network import Network
from phosphene.zoo.dreamnet import DreamNet
from phosphene.zoo.random_weights import with_random_weights
from phosphene.zoo.schemes import RANDOM

DATA = Path(__file__).parents[1] / "data"


def weights_path(name: str) -> Path:
    """Where the weights lie, unless an installation was made without them."""
    return DATA / f"{name}.safetensors"


def load(name: str, weights: str | None, classes: int | None) -> Network:
    """A bundled network, by its file's hash the very one; `classes` counts with random weights."""
    if weights not in (None, RANDOM):
        raise NetworkError(f"{name} has no weights {weights!r}; there are its own, and {RANDOM}")
    file, card_file = weights_path(name), DATA / f"{name}.json"
    try:
        card = json.loads(card_file.read_text(encoding="utf-8"))
        blob = b"" if weights == RANDOM else file.read_bytes()
    except FileNotFoundError as error:
        raise WeightsError(f"{name} is not in this installation: no {error.filename}") from None
    names = [entry["name"] for entry in card["classes"]]
    if weights == RANDOM:
        module = with_random_weights(lambda: DreamNet(classes or len(names)))
    else:
        if hashlib.sha256(blob).hexdigest() != card["sha256"]:
            raise WeightsError(f"{file} is damaged: its SHA-256 is not that of {card_file.name}")
        with torch.device("meta"):  # no time for an initialisation that is thrown away
            module = DreamNet(len(names))
        state = {key: value.float() for key, value in tensors_of(blob).items()}
        module.load_state_dict(state, assign=True)
    return Network(
        module,
        mean=card["mean"],
        std=card["std"],
        input_size=card["trained_at"],
        classes=names if classes in (None, len(names)) else (),
        name=name,
        copy=False,
    )
