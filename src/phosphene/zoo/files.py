"""`file:PATH@NETWORK`: weights of your own, read without running what lies in the file."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from phosphene.errors import NetworkError, WeightsError, one_line
from phosphene.network import Network
from phosphene.zoo import schemes
from phosphene.zoo.schemes import FILE_SYNTAX, RANDOM


def load(path_text: str, architecture: str, weights: str | None) -> Network:
    """`file:PATH@NETWORK`: that network, with the weights of the file.

    Preprocessing is the network's own, and the names of its classes if there are as many.
    """
    name = f"file:{path_text}" + (f"@{architecture}" if architecture else "")
    if weights is not None:
        raise NetworkError(f"{name} is weights already, weights={weights!r} is too much")
    if not (path_text and architecture):
        raise NetworkError(
            f"{name} does not say which network the weights are for: write {FILE_SYNTAX}"
        )
    if architecture.startswith("file:"):
        raise NetworkError(f"{architecture} is weights, not a network: write {FILE_SYNTAX}")
    path = Path(path_text).expanduser()
    if not path.is_file():
        raise WeightsError(f"no file {path}; the network is what stands behind the last '@'")
    state = _unwrapped(read_state(path), path)
    network = _architecture(architecture, None)
    count = _head_size(network.module, state)
    if count is not None:
        network = _architecture(architecture, count)
    # A copy, since code of one's own may have given a network that is still in use there.
    loaded = Network(
        network.module,
        mean=network.shift,
        std=network.scale,
        input_size=network.input_size,
        classes=network.classes,
        aliases=network.aliases,
        name=path.stem,
    )
    _load_state(loaded.module, state, path, architecture)
    return loaded


def _architecture(name: str, classes: int | None) -> Network:
    """The network that the weights are for, with random ones of its own where it can be had so."""
    scheme = schemes.scheme_of(name)
    random = scheme is not None and scheme.takes_random(name)
    return schemes.load(name, RANDOM if random else None, classes)


def _head_size(module: nn.Module, state: Mapping[str, Tensor]) -> int | None:
    """How many classes the weights have, if not as many as the module: its last layer tells."""
    own = module.state_dict()
    head = next((key for key in reversed(own) if key.endswith(".weight")), None)
    if head is None or head not in state or state[head].shape[:1] == own[head].shape[:1]:
        return None
    return len(state[head]) if state[head].shape[1:] == own[head].shape[1:] else None


def read_state(path: Path) -> dict[str, Any]:
    """A file of tensors: safetensors, or what torch reads without running anything."""
    try:
        if path.suffix == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                return load_file(path)
            except SafetensorError as error:
                raise WeightsError(f"{path} is damaged: {one_line(error)}") from None
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is refused: it holds more than tensors and could run code when read; save the "
            f"state dict alone, torch.save(model.state_dict(), …) ({_reason(error)})"
        ) from None
    # A damaged archive shows itself in many ways.
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, OSError) as error:
        raise WeightsError(f"{path} is no file of weights: {one_line(error)}") from None
    if not isinstance(found, dict):
        raise WeightsError(f"{path} holds a {type(found).__name__}, not a state dict")
    return found


def _unwrapped(state: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The weights alone, of a checkpoint with more in it or of a wrapped module."""
    for key in ("state_dict", "model_state_dict", "model_state", "model"):
        if isinstance(state.get(key), dict):
            state = state[key]
            break
    weights = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if not weights or len(weights) < len(state):
        rest = [str(key) for key in state if key not in weights]
        raise WeightsError(f"{path} is no state dict: {_few(rest) or 'nothing in it'}")
    for prefix in ("module.", "_orig_mod."):  # DataParallel's, torch.compile's
        if all(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def _load_state(module: nn.Module, state: dict[str, Tensor], path: Path, architecture: str) -> None:
    """Load weights that are all there and of the right shapes; else WeightsError."""
    own = module.state_dict()
    # Heads that only training uses.
    auxiliary = re.compile(r"(aux1|aux2|AuxLogits)\.")
    state = {key: v for key, v in state.items() if key in own or not auxiliary.match(key)}
    shapes = [
        f"{key} is {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    problems = {
        "of other shapes": shapes,
        "missing": [
            key for key in own if key not in state and not key.endswith("num_batches_tracked")
        ],
        "unknown": [key for key in state if key not in own],
    }
    misfits = [f"{len(keys)} {what}: {_few(keys)}" for what, keys in problems.items() if keys]
    if misfits:
        raise WeightsError(f"{path} does not fit {architecture}: {'; '.join(misfits)}")
    module.load_state_dict(state, strict=False)


def _few(names: list[str], most: int = 4) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _reason(error: Exception) -> str:
    """What torch says about a file it will not read, less its advice to read it all the same."""
    found = re.search(r"WeightsUnpickler error: ([^.]+\.?[^.\s]*)", str(error))
    return one_line(found.group(1)) if found else type(error).__name__
