"""Requests that a recipe is put together of: from its own request to theirs, without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from phosphene.errors import SettingsError
from phosphene.jobs.expand import expand
from phosphene.jobs.request import InputFile, Request, picture_roles, weights_file
from phosphene.manifest.schema import format_problem
from phosphene.objectives.text import parse_tree
from phosphene.recipes.axes import ABOUT, Axis
from phosphene.recipes.base import recipe_named

MOST_PARTS = 400


def parts_of(
    request: Request, settings: Any, network: Any = None, *, first: bool = False
) -> list[Request]:
    """The requests that a request is put together of, in order; only the `first` one, if so asked.

    network: what some axes are known by, such as all of its layers; without it they are left out.

    SettingsError for what these cannot be.
    """
    base, axes = _base_of(request, settings, network)
    if first:
        axes = [Axis({name: given[:1] for name, given in axis.values.items()}) for axis in axes]
    found = [_with_named(part, request) for part in expand(base, axes)]
    subject = base.declaration.subject
    for part in found:
        if subject and subject.default is None and not (part.objectives or part.layers):
            raise SettingsError(
                f"{base.recipe} needs {subject.name}, and none is named: across, down or "
                f'--set "{subject.name}=…" says which'
            )
    return found


def check_parts(request: Request, settings: Any) -> None:
    """See that there is what the axes name, as far as it is known without a network.

    Each axis by itself, and no more of it than is begun unasked: all are made before one is drawn.

    SettingsError for an axis of what there is not, or a value that cannot be; ObjectiveError for an
    objective that cannot be read.
    """
    base, axes = _base_of(request, settings, None)
    subject = base.declaration.subject
    for axis in axes:
        short = Axis({name: given[:MOST_PARTS] for name, given in axis.values.items()})
        for part in expand(base, [short]):
            if subject is not None and subject.parsed:
                for text in part.objectives:
                    parse_tree(text)


def count_parts(settings: Any, network: Any) -> int:
    """How many there are."""
    return math.prod(len(axis) for axis in settings.parts(network).axes)


def with_inputs(request: Request, settings: Any) -> Request:
    """The request with the pictures of its axes, named by their paths, as inputs by role."""
    recipe = recipe_named(settings.parts().recipe)
    roles = {entry.role for entry in recipe.inputs}
    parsed = recipe.subject is not None and recipe.subject.parsed
    paths: dict[str, None] = {}

    def note(name: str, value: str) -> str:
        if name in roles:
            paths[value] = None
        elif parsed and name in ABOUT and "(" in value:
            from phosphene.objectives import picture_paths  # which takes torch

            paths.update(dict.fromkeys(picture_paths(parse_tree(value))))
        return value

    settings.renamed(note)
    if not paths:
        return request
    named = picture_roles(paths, {entry.role for entry in request.declaration.inputs})

    def rename(name: str, value: str) -> str:
        if name in roles:
            return named[value]
        if parsed and name in ABOUT and "(" in value:
            from phosphene.objectives import with_pictures

            return with_pictures(value, named)
        return value

    inputs = {**request.inputs, **{role: InputFile(path=path) for path, role in named.items()}}
    own = settings.renamed(rename).model_dump(mode="json")
    changed = {name: own[name] for name in request.settings}
    return request.model_copy(update={"inputs": inputs, "settings": changed})


def _base_of(request: Request, settings: Any, network: Any) -> tuple[Request, list[Axis]]:
    """What all parts have in common, and the axes, their pictures as inputs."""
    parts = settings.parts(network)
    _refuse_files_of_weights(parts.axes)
    recipe = recipe_named(parts.recipe)
    own = {entry.role for entry in request.declaration.inputs}
    given = {role: entry for role, entry in request.inputs.items() if role in own}
    for role in given:
        if recipe.input(role) is None:
            raise SettingsError(f"{recipe.name} takes no {role}, and there is one")
    common = dict(parts.settings)
    if request.size is not None and not recipe.sized:
        common["size"] = request.size
    roles = {entry.role for entry in recipe.inputs}
    axes = [
        Axis({n: _inputs(request, v) if n in roles else v for n, v in axis.values.items()})
        for axis in parts.axes
    ]
    inputs = {**given, **_firsts(axes, roles, given)}
    try:
        base = Request(
            recipe=recipe.name,
            plugins=request.plugins,
            network=request.network,
            size=request.size if recipe.sized else None,
            inputs=inputs,
            settings=common,
        )
    except ValidationError as error:
        raise SettingsError(format_problem(error)) from None
    return base, axes


def _refuse_files_of_weights(axes: Sequence[Axis]) -> None:
    """SettingsError for a network that is a file, whose path would stand in every recipe."""
    for name in (name for axis in axes for name in axis.values.get("network", ())):
        if weights_file(name)[0] is not None:
            raise SettingsError(
                f"the network {name!r} is a file; an axis takes networks by name, --network a file"
            )


def _firsts(axes: Sequence[Axis], roles: set[str], given: Any) -> dict[str, InputFile]:
    """Of an input that an axis gives the first, so that the base is whole by itself."""
    return {
        name: values[0]
        for axis in axes
        for name, values in axis.values.items()
        if name in roles and name not in given
    }


def _inputs(request: Request, roles: Sequence[str]) -> list[InputFile]:
    if missing := [role for role in roles if role not in request.inputs]:
        raise SettingsError(
            f"an axis names the picture {missing[0]!r}, the request's inputs do not"
        )
    return [request.inputs[role] for role in roles]


def _with_named(part: Request, request: Request) -> Request:
    """A part with the pictures that its objectives name, which are inputs of the whole."""
    subject = part.declaration.subject
    if subject is None or not subject.parsed or not any("(" in text for text in part.objectives):
        return part
    from phosphene.objectives import picture_paths

    names = [role for text in part.objectives for role in picture_paths(parse_tree(text))]
    inputs = dict(part.inputs)
    for role, entry in zip(names, _inputs(request, names), strict=True):
        inputs[role] = entry
    return part.model_copy(update={"inputs": inputs})
