"""The objectives that a text can name, and which of their arguments are pictures.

A function that makes an objective is registered by `objective`. A parameter that takes a picture is
annotated as `PictureRef`, by which a recipe knows the files that went in:

    @objective
    def like(layer: str, image: PictureRef) -> Objective: ...
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, ParamSpec

import numpy as np
import torch
from torch import Tensor

from phosphene.errors import ObjectiveError
from phosphene.objectives.algebra import Objective
from phosphene.objectives.text import items_text, name_text, value_text
from phosphene.plugins import Registry
from phosphene.plugins.registry import home_of, within

P = ParamSpec("P")


class _PictureMark:
    """What marks a picture in an annotation, found by identity."""

    def __repr__(self) -> str:
        return "a picture"


_PICTURE = _PictureMark()

PictureRef = Annotated[Tensor | str | os.PathLike[str], _PICTURE]
"""A picture that an objective takes: `(N, 3, H, W)` in [0, 1], or the path of a file."""

OBJECTIVES: Registry[Callable[..., Objective]] = Registry("objective", ObjectiveError)
"""Every objective that a text can name; `phosphene.objectives.OBJECTIVES` has the built-in ones."""


def objective(function: Callable[P, Objective]) -> Callable[P, Objective]:
    """Register a function that makes an objective, so that texts can name it.

    The objective's text is written from the call, unless the function gives one.

    Raises:
        ObjectiveError: another function has the name already, or a parameter takes a path without
            being a `PictureRef`. When called: the text that it gives does not name a picture.
    """
    name = function.__name__
    signature = inspect.signature(function)
    pictures = picture_parameters(function)

    @functools.wraps(function)
    def made(*args: P.args, **kwargs: P.kwargs) -> Objective:
        result = function(*args, **kwargs)
        if within(home_of(function)[0], "phosphene"):
            result = replace(result, pure=True)
        call = signature.bind(*args, **kwargs)
        if result.text == "<unnamed>":
            return replace(result, text=_call_text(name, call))
        for path in paths_in(call, pictures):
            _check_named(name, path, result)
        return result

    OBJECTIVES.add(name, made)
    return made


def _check_named(name: str, path: str, result: Objective) -> None:
    from phosphene.objectives.build import picture_paths

    if path not in picture_paths(result):
        raise ObjectiveError(
            f"{name} was given the picture {path!r}, which its text {result.text!r} does not name: "
            "leave the text out, and it is written from the call"
        )


# Which parameters are pictures


@functools.lru_cache(maxsize=1024)
def picture_parameters(function: Callable[..., Objective]) -> frozenset[str]:
    """The names of a function's parameters that are annotated as `PictureRef`, or hold some.

    Raises:
        ObjectiveError: a parameter takes a tensor or a string, or a `Path`, and is no `PictureRef`:
            the path would stand in every recipe as it is, its folders included.
    """
    function = inspect.unwrap(function)
    found = set()
    for name in inspect.signature(function).parameters:
        hint = _hint(function, name)
        if isinstance(hint, str) and not _takes_path(hint):
            raise ObjectiveError(
                f"{function.__name__}: the annotation {hint!r} of {name!r} names what is not there "
                "where the function is defined, so nobody can tell whether it is a picture"
            )
        if _is_picture(hint):
            found.add(name)
        elif _takes_path(hint):
            raise ObjectiveError(
                f"{function.__name__}: the parameter {name!r} takes a path; a picture is annotated "
                "as phosphene.objectives.PictureRef, imported where the function is defined, so "
                "that a recipe holds its bare name alone"
            )
    return frozenset(found)


def _hint(function: Callable[..., Objective], name: str) -> Any:
    """A parameter's annotation; as it is written where it names what is not there."""
    annotation = inspect.get_annotations(function).get(name)
    # Of one parameter at a time, so that an unknown name hides no other's.
    alone = types.SimpleNamespace(__annotations__={name: annotation})
    try:
        hints = typing.get_type_hints(alone, function.__globals__, include_extras=True)
    except Exception:  # evaluating what stands there can raise anything
        return annotation
    return hints[name]


def _is_picture(hint: Any) -> bool:
    if any(mark is _PICTURE for mark in getattr(hint, "__metadata__", ())):
        return True
    return any(_is_picture(part) for part in typing.get_args(hint))


def _takes_path(hint: Any) -> bool:
    """Whether an annotation is of files: a tensor or a string, or anything like a path."""
    if isinstance(hint, str):  # what it names is not there: the words have to do
        words = set(re.findall(r"\w+", hint))
        return bool(words & {"PictureRef", "Path", "PathLike"}) or {"Tensor", "str"} <= words
    parts = typing.get_args(hint)
    kinds = [typing.get_origin(part) or part for part in (hint, *parts)]
    classes: list[Any] = [kind for kind in kinds if isinstance(kind, type)]
    if any(issubclass(kind, os.PathLike) for kind in classes):  # pyright: ignore[reportGeneralTypeIssues]
        return True
    if any(issubclass(kind, Tensor) for kind in classes) and str in classes:
        return True
    return any(_takes_path(part) for part in parts if not isinstance(part, str))


def paths_in(call: inspect.BoundArguments, pictures: frozenset[str]) -> Iterator[str]:
    """The paths among a call's pictures, in their order."""

    def strings(value: object) -> Iterator[str]:
        if isinstance(value, (str, os.PathLike)):
            yield str(value)
        elif isinstance(value, (list, tuple)):
            for item in value:
                yield from strings(item)
        elif isinstance(value, Mapping):
            yield from strings(list(value.values()))

    for name in call.signature.parameters:
        if name in pictures and name in call.arguments:
            yield from strings(call.arguments[name])


# The text of a call


def _call_text(name: str, call: inspect.BoundArguments) -> str:
    parts: list[str] = []
    for parameter in call.signature.parameters.values():
        if parameter.name not in call.arguments:
            continue
        value = call.arguments[parameter.name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            for item in value:
                parts.append(_positional_text(item, first=not parts))
        elif parameter.kind is parameter.VAR_KEYWORD:
            parts += [f"{key}={argument_text(item)}" for key, item in value.items()]
        elif parameter.default is not parameter.empty or parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.default is not value and argument_text(parameter.default) != (
                written := argument_text(value)
            ):
                parts.append(f"{parameter.name}={written}")
        else:
            parts.append(_positional_text(value, first=not parts))
    return f"{name}({', '.join(parts)})"


def _positional_text(value: object, *, first: bool) -> str:
    # The first is nearly always the layer.
    return name_text(value) if first and isinstance(value, str) else argument_text(value)


def argument_text(value: object) -> str:
    """An argument as a text holds it, tensors too: a vector is a list, a picture `<image>`."""
    if isinstance(value, (Tensor, np.ndarray)) and value.ndim == 1:
        # By way of str, float32 is at its shortest: 0.1 and not 0.10000000149011612.
        value = [float(str(item)) for item in torch.as_tensor(value).detach().cpu().float().numpy()]
    if isinstance(value, Tensor):
        return "<image>"  # not for a parser to read: a picture in memory has no text
    if isinstance(value, (list, tuple)):
        return items_text(map(argument_text, value))
    return value_text(value)
