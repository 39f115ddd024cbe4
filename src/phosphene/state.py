"""Where a loop is after a step: all that it needs to go on from there.

>>> for step in phosphene.dream.steps(photo, net):
...     if enough(step):
...         step.state().save("dream.safetensors")
...         break
>>> state = phosphene.State.load("dream.safetensors")
>>> picture = phosphene.dream(photo, net, state=state)
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from phosphene.errors import StateError, one_line
from phosphene.image.files import appearing_whole

FORMAT = 1
HEADER = "phosphene"  # the one entry in a file's metadata


@dataclass(frozen=True)
class State:
    """Where a loop is after a step.

    tensors: by name, on the device and in the dtype that the loop has them.
    values: by name, as JSON can hold them.
    """

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any] = field(default_factory=dict)

    def with_(self, tensors: Mapping[str, Tensor] | None = None, **values: Any) -> State:
        """The same with more in it."""
        return State({**self.tensors, **(tensors or {})}, {**self.values, **values})

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with `prefix.`, without it.

        >>> list(State({"optimiser.0.step": a, "score": b}).part("optimiser"))
        ['0.step']
        """
        start = f"{prefix}."
        return {
            name.removeprefix(start): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(start)
        }

    @staticmethod
    def gathered(states: Mapping[str, State]) -> State:
        """Several states in one; `inner` gives each back by its name."""
        tensors = {f"{k}.{n}": t for k, state in states.items() for n, t in state.tensors.items()}
        return State(tensors, {name: dict(state.values) for name, state in states.items()})

    def inner(self, name: str) -> State:
        """One of the states that were gathered; StateError if it is not there."""
        return State(self.part(name), self.value(name))

    def tensor(self, name: str) -> Tensor:
        """A tensor by name; StateError if it is not there."""
        if name not in self.tensors:
            raise StateError(f"the state has no {name!r}: it is that of another recipe")
        return self.tensors[name]

    def value(self, name: str) -> Any:
        """A value by name; StateError if it is not there."""
        if name not in self.values:
            raise StateError(f"the state has no {name!r}: it is that of another recipe")
        return self.values[name]

    def save(self, path: str | Path, about: Mapping[str, Any] | None = None) -> None:
        """Write a safetensors file, so that `path` holds all of it or what was there before.

        Args:
            path: of the file; what is there is replaced.
            about: more about it that JSON can hold; `read` gives it back.

        Raises:
            ImageError: the file cannot be written.
        """
        tensors = _plain(self.tensors)
        header = {
            "format": FORMAT,
            "sha256": _digest(tensors),
            "values": dict(self.values),
            "about": dict(about or {}),
        }
        with appearing_whole(Path(path)) as scratch:
            mode = scratch.stat().st_mode
            save_file(tensors, scratch, {HEADER: json.dumps(header)})
            scratch.chmod(mode)  # the library's own file is closed to other users

    @staticmethod
    def load(path: str | Path) -> State:
        """The state of a file, on the CPU. StateError if it is none, or damaged."""
        return State.read(path)[0]

    @staticmethod
    def read(path: str | Path) -> tuple[State, dict[str, Any]]:
        """As `load`, with what `save` was told about it."""
        name = repr(str(path))
        try:
            if not os.path.isfile(path):
                what = "is a folder" if os.path.isdir(path) else "is not there"
                raise StateError(f"cannot read the state {name}: it {what}")
            with safe_open(path, "pt") as file:
                header = json.loads((file.metadata() or {})[HEADER])
                if header["format"] > FORMAT:
                    raise StateError(f"{name} is of a newer phosphene: upgrade phosphene")
                # Clones, since the file may be replaced while it is mapped into memory.
                tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
            if _digest(tensors) != header["sha256"]:
                raise StateError(f"the state {name} is damaged: it is not what was written")
            return State(tensors, dict(header["values"])), dict(header["about"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            known = isinstance(error, OSError | SafetensorError)
            reason = one_line(error) if known else "no header of phosphene's"
            raise StateError(f"{name} is no state of phosphene, or damaged: {reason}") from None


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, each in one piece and alone in its memory, which is what a file can hold."""
    found: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.nbytes() != tensor.numel() * tensor.itemsize or storage.data_ptr() in storages:
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        found[name] = tensor
    return found


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())  # pyright: ignore[reportArgumentType]
    return digest.hexdigest()


# Of what a loop is made of ------------------------------------------------------------------------


def restore_module(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a module its parameters and buffers back. StateError if they are not its own."""
    own = module.state_dict()
    for name, there in own.items():
        given = tensors.get(name)
        if given is None or given.shape != there.shape or given.dtype != there.dtype:
            found = "nothing" if given is None else f"{given.dtype} {tuple(given.shape)}"
            raise StateError(
                f"the state does not fit: {name} is {found}, "
                f"expected {there.dtype} {tuple(there.shape)}"
            )
    module.load_state_dict(dict(tensors))


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimiser has gathered, by `parameter.name`."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    return {
        f"{index}.{name}": value
        for index, parameter in enumerate(parameters)
        for name, value in optimiser.state.get(parameter, {}).items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser back what `optimiser_tensors` said.

    Not by `load_state_dict`, which casts single numbers to the parameter's dtype: NAdam's product
    of momenta would come back as another.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        device = parameter.device if value.ndim else torch.device("cpu")
        optimiser.state[parameter][name] = value.to(device, copy=True)
