"""`file:PATH@NETWORK`: weights of your own, read without running what lies in the file."""

from __future__ import annotations

import pickle
import re
import zipfile
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
    _refuse_weights(architecture)
    path = Path(path_text)
    try:
        path = path.expanduser()
        there = path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, nobody's home
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(f"cannot read the weights {str(path)!r}: {reason}") from None
    if not there:
        raise WeightsError(f"no file {path}; the network is what stands behind the last '@'")
    state = _unwrapped(read_state(path), path)
    network = _architecture(architecture, None)
    state = _without_auxiliary(network.module, state)
    count = _head_size(network.module, state)
    # Before it is built anew: a file may claim any number of classes.
    _check_fit(network.module, state, path, architecture, count)
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
        architecture=network.architecture,
    )
    _check_fit(loaded.module, state, path, architecture)
    loaded.module.load_state_dict(state, strict=False)
    return loaded


def _refuse_weights(architecture: str) -> None:
    """NetworkError for a network that is named with weights: they would be fetched for nothing."""
    scheme = schemes.scheme_of(architecture)
    head, _, weights = architecture.rpartition(":")
    if scheme is None or scheme.runs_code(architecture) or scheme.takes_random(architecture):
        return
    if head and weights != RANDOM:
        raise NetworkError(
            f"{architecture} names weights, and the file holds them: write file:PATH@{head}"
        )


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
        _check_archive(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is refused: it holds more than tensors and could run code when read; save the "
            f"state dict alone, torch.save(model.state_dict(), …) ({_reason(error)})"
        ) from None
    except WeightsError:
        raise
    except Exception as error:  # a damaged archive shows itself in nearly any way
        reason = one_line(error) or type(error).__name__
        raise WeightsError(f"{path} is no file of weights: {reason}") from None
    if not isinstance(found, dict):
        raise WeightsError(f"{path} holds a {type(found).__name__}, not a state dict")
    return found


def _unwrapped(state: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The weights alone, of a checkpoint with more in it or of a wrapped module."""
    for key in ("state_dict", "model_state_dict", "model_state", "model"):
        if isinstance(state.get(key), dict):
            state = state[key]
            break
    weights = {k: v for k, v in state.items() if isinstance(v, Tensor) and isinstance(k, str)}
    if not weights or len(weights) < len(state):
        rest = [str(key) for key in state if key not in weights]
        raise WeightsError(f"{path} is no state dict: {_few(rest) or 'nothing in it'}")
    if odd := [f"{key} {what}" for key, value in weights.items() if (what := _oddity(value))]:
        raise WeightsError(f"{path} holds no plain weights: {_few(odd)}")
    for prefix in ("module.", "_orig_mod."):  # DataParallel's, torch.compile's
        if all(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def _oddity(tensor: Tensor) -> str | None:
    """What is wrong with a tensor that is no plain array in memory, all of it in the file."""
    if tensor.is_meta:
        return "has a shape and no values"
    if tensor.layout != torch.strided or tensor.is_quantized:
        return f"is {'quantised' if tensor.is_quantized else 'sparse'}"
    claimed, held = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
    return f"claims {claimed} bytes and has {held}" if held < claimed else None


def _check_archive(path: Path) -> None:
    """WeightsError for an archive that is much smaller than what it says is in it."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        claimed = sum(entry.file_size for entry in archive.infolist())
    held = path.stat().st_size
    if claimed > 4 * held + 2**20:  # torch packs nothing
        raise WeightsError(f"{path} claims {claimed} bytes of weights and has {held}")


def _without_auxiliary(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without those of heads that only training uses."""
    own, auxiliary = module.state_dict(), re.compile(r"(aux1|aux2|AuxLogits)\.")
    return {key: v for key, v in state.items() if key in own or not auxiliary.match(key)}


def _check_fit(
    module: nn.Module,
    state: Mapping[str, Tensor],
    path: Path,
    architecture: str,
    classes: int | None = None,
) -> None:
    """WeightsError unless the weights are all there, of the right shapes and kinds of numbers.

    classes: how many the module is to have; what has a row for each class may be that long.
    """
    own = module.state_dict()
    head = next((key for key in reversed(own) if key.endswith(".weight")), "")

    def fits(key: str) -> bool:
        ours, theirs = own[key].shape, state[key].shape
        if theirs == ours or classes is None:
            return theirs == ours
        return ours[:1] == own[head].shape[:1] and theirs == (classes, *ours[1:])

    both = [key for key in own if key in state]
    kinds = {key: (_kind(state[key]), _kind(own[key])) for key in both}
    problems = {
        "of other shapes": [
            f"{key} is {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
            for key in both
            if not fits(key)
        ],
        "of other numbers": [
            f"{key} is {state[key].dtype}, not {wanted}"
            for key, (given, wanted) in kinds.items()
            if given != wanted
        ],
        "missing": [
            key for key in own if key not in state and not key.endswith("num_batches_tracked")
        ],
        "unknown": [key for key in state if key not in own],
    }
    misfits = [f"{len(keys)} {what}: {_few(keys)}" for what, keys in problems.items() if keys]
    if classes == 0:
        misfits.append(f"{head} is of no class at all")
    if misfits:
        raise WeightsError(f"{path} does not fit {architecture}: {'; '.join(misfits)}")


def _kind(tensor: Tensor) -> str:
    """Which numbers a tensor holds: those of one kind differ in their precision alone."""
    if tensor.dtype == torch.bool:
        return "true and false"
    if tensor.is_floating_point():
        return "floating numbers"
    return "complex numbers" if tensor.is_complex() else "whole numbers"


def _few(names: list[str], most: int = 4) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _reason(error: Exception) -> str:
    """What torch says about a file it will not read, less its advice to read it all the same."""
    found = re.search(r"WeightsUnpickler error: ([^.]+\.?[^.\s]*)", str(error))
    return one_line(found.group(1)) if found else type(error).__name__
