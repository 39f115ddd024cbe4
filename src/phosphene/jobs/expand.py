"""`expand`: from one request and some axes to a request for each combination of their values.

Grids, sweeps and batches are made of it. It is pure, and needs no torch.

>>> base = Request(recipe="dream", inputs={"photo": InputFile(path="sky.jpg")})
>>> requests = expand(base, [("steps", 5, 10), ("preset", "phosphene", "keras")])
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic import ValidationError

from phosphene.errors import PhospheneError, SettingsError
from phosphene.jobs.request import InputFile, Request
from phosphene.manifest.schema import format_problem
from phosphene.recipes.axes import Axis, check_name, subject_names
from phosphene.recipes.base import Recipe
from phosphene.zoo import named_architecture


def expand(base: Request, axes: Iterable[Axis | Sequence[Any]]) -> list[Request]:
    """A request for each combination of the axes' values, the last axis changing fastest.

    Args:
        base: what all have in common; settings that it does not name are left to the preset.
        axes: each an `Axis`, or a name and its values: `("steps", 5, 10)`. A name is `objective`
            or `layer`, `network`, `preset`, `start`, `size`, the role of an input, whose values are
            paths or `InputFile`s, or any setting of the recipe. Numbers may be given as text. An
            axis of several names changes these together. A later axis overrules an earlier one.

    Raises:
        SettingsError: a name that the recipe does not have, with the closest ones; no values, or an
            empty one; a value that its settings do not take.
    """
    found = [axis if isinstance(axis, Axis) else Axis({axis[0]: axis[1:]}) for axis in axes]
    for axis in found:
        for name in axis.values:
            check_name(base.declaration, name)
    return [
        _changed(base, {name: value for point in points for name, value in point.items()})
        for points in itertools.product(*(axis.points() for axis in found))
    ]


def _changed(base: Request, changes: Mapping[str, Any]) -> Request:
    """The base with other values, checked."""
    recipe, subject = base.declaration, base.declaration.subject
    update: dict[str, Any] = {}
    inputs, settings = dict(base.inputs), dict(base.settings)
    given: list[str] = []
    for written, value in changes.items():
        name = written.replace("-", "_")
        if subject is not None and name in subject_names(recipe):
            update[subject.field] = (value,)
        elif name == "network" or (name == "start" and recipe.starts):
            update[name] = value
            if name == "start":
                _drop_photo(recipe, inputs, value)
        elif recipe.input(name) is not None:
            inputs[name] = value if isinstance(value, InputFile) else InputFile(path=str(value))
        elif name == "size" and recipe.sized:
            update[name] = value
        else:
            settings[name] = _of_text(recipe, name, value)
            given.append(name)
    network = update.get("network", base.network)
    checked = recipe.checked_settings(settings, named_architecture(network))
    dumped = checked.model_dump(mode="json")
    settings |= {name: dumped.get(name, settings[name]) for name in given}
    whole = base.model_dump() | update | {"inputs": inputs, "settings": settings}
    whole["inputs"] = {role: entry.model_dump() for role, entry in inputs.items()}
    try:
        return Request.model_validate(whole)
    except ValidationError as error:
        told = ", ".join(f"{name} {_shown(value)}" for name, value in changes.items())
        raise SettingsError(f"with {told}: {format_problem(error)}") from None
    except PhospheneError as error:
        raise SettingsError(str(error)) from None


def _shown(value: Any) -> str:
    return value.path if isinstance(value, InputFile) else str(value)


def _drop_photo(recipe: Recipe, inputs: dict[str, InputFile], start: str) -> None:
    """A start that is drawn takes the place of the photo."""
    if start != "photo":
        for entry in recipe.inputs:
            if entry.required:
                inputs.pop(entry.role, None)


def _of_text(recipe: Recipe, name: str, value: Any) -> Any:
    """A setting's value; "none" is None where it may be."""
    annotation = recipe.settings.model_fields[name].annotation
    optional = type(None) in get_args(annotation)
    return None if value == "none" and optional else value
