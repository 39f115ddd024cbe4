"""`package.module:function`: a network from code that the user names."""

from __future__ import annotations

import importlib
import os
import warnings
from typing import Any

from torch import nn

from phosphene.errors import NetworkError, one_line, suggest
from phosphene.network import Network
from phosphene.plugins import importable_from_here
from phosphene.zoo.registry import NETWORKS


def load(module_name: str, attribute: str) -> Network:
    """`module:attribute`: a `Network` or `nn.Module`, or what gives one. Runs that code."""
    name = f"{module_name}:{attribute}"
    found = _import(name, module_name)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            there = [public for public in dir(found) if not public.startswith("_")]
            raise NetworkError(
                f"{module_name} has no {attribute!r}{suggest(part, there)}"
            ) from None
    made = found
    if not isinstance(found, (nn.Module, Network)):
        if not callable(found):
            raise NetworkError(f"{name} is a {type(found).__name__}, not a network or a function")
        try:
            made = found()
        except Exception as error:
            raise NetworkError(
                f"{name}() failed: {type(error).__name__}: {one_line(error)}"
            ) from error
    if isinstance(made, Network):
        return made
    if not isinstance(made, nn.Module):
        raise NetworkError(
            f"{name}() gave a {type(made).__name__}, not a torch.nn.Module or phosphene.Network"
        )
    warnings.warn(
        f"{name} states no preprocessing: the module is given values in [0, 1]; to state it, give "
        "a phosphene.Network(module, mean=…, std=…)",
        stacklevel=5,  # who called load_network
    )
    return Network(made, name=attribute, copy=made is found)


def _import(name: str, module_name: str) -> Any:
    """The module, which may lie in the current folder."""
    importable_from_here()
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            message = (
                f"no network {name!r}: no module {error.name!r}, installed or in {os.getcwd()}"
            )
            raise NetworkError(f"{message}{suggest(module_name, NETWORKS)}") from None
        raise NetworkError(f"{name}: importing {module_name} failed: {error}") from error
    except Exception as error:
        raise NetworkError(
            f"{name}: importing {module_name} failed: {type(error).__name__}: {one_line(error)}"
        ) from error
