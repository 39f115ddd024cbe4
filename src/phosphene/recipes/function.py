"""The public function of a recipe: `dream(photo, network, …)` and `dream.steps(…)`, as declared."""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BeforeValidator

from phosphene.errors import SettingsError, suggest
from phosphene.objectives.text import expanded
from phosphene.recipes.arguments import (
    FILM,
    PICTURE,
    architecture_of,
    film_of,
    is_film_file,
    mask_of,
    network_of,
    picture_of,
)
from phosphene.recipes.base import Arguments, Recipe, Region, recipe_named

if TYPE_CHECKING:
    from phosphene.films.frames import Frame
    from phosphene.network import Network

# The public keywords of what is no setting: painted regions; whether finished parts are stored, and
# taken from there; and a step's state to go on from.
REGIONS, CACHE, STATE = "regions", "keep", "state"


class RecipeFunction:
    """A recipe as a function: called, it gives the result; `steps` gives its steps, live.

    Arguments in this order: the pictures that must go in, the network, what it is about; by keyword
    the pictures that may go in, and the recipe's settings.
    """

    def __new__(cls, recipe: Recipe, doc: str | None = None) -> RecipeFunction:
        # A class of its own, since `help` shows the class of what is no function.
        text = inspect.cleandoc(doc or recipe.summary)
        own = {"__doc__": text, "__module__": recipe.settings.__module__}
        for name in ("__call__", "steps"):
            own[name] = _signed(getattr(RecipeFunction, name), recipe)
        return object.__new__(type(recipe.name, (cls,), own))

    def __init__(self, recipe: Recipe, doc: str | None = None) -> None:
        self.recipe = recipe
        self.settings = recipe.settings
        self.__name__ = self.__qualname__ = recipe.name
        self.__module__ = recipe.settings.__module__
        self.__signature__ = signature(recipe)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The result, after all steps."""
        steps = self.steps(*args, **kwargs)
        if self.recipe.output == "video":
            return _frames(steps)
        return self.recipe.result(deque(steps, maxlen=1).pop())

    def steps(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """The same as a generator of steps; stop whenever you like."""
        for name in kwargs:
            if name not in self.__signature__.parameters:
                choices = suggest(name, self.__signature__.parameters)
                raise SettingsError(f"no setting {name!r}{choices}")
        try:
            given = self.__signature__.bind(*args, **kwargs).arguments
        except TypeError as error:
            wanted = ", ".join(list(self.__signature__.parameters)[:4])
            raise TypeError(f"{self.__name__}({wanted}, …): {error}") from None
        return self.recipe.run(self._arguments(given))

    def __repr__(self) -> str:
        return f"<recipe {self.recipe.name}{self.__signature__}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return public_function, (self.recipe.name,)

    def arguments(self, **given: Any) -> Arguments:
        """Those of the steps, of the function's own by name: loaded and checked."""
        return self._arguments(given)

    def _arguments(self, given: dict[str, Any]) -> Arguments:
        recipe, subject = self.recipe, self.recipe.subject
        fields = recipe.settings.model_fields
        own = {name: value for name, value in given.items() if name in fields}
        settings = recipe.checked_settings(own, architecture_of(given["network"]))
        network = network_of(given["network"])
        settings = recipe.checked_settings(own, _architecture(given["network"], network))
        images, films, folders = _pictures(recipe, given, settings)
        more: dict[str, Any] = {}
        named = None if subject is None else given.get(subject.name)
        if subject is not None and named is None and subject.default is None:
            raise SettingsError(f"{self.__name__}: no {subject.name} is named")
        if subject is not None and named is not None:
            if isinstance(named, (list, tuple)) and not named:
                raise SettingsError(
                    f"there is no {subject.name} in the list; each of them gets a picture"
                )
            if subject.of_unit:
                more["unit"] = named
            elif subject.field == "layers":
                more["layers"] = (named,) if isinstance(named, str) else tuple(named)
            else:
                more["objectives"] = _objectives(named, several=subject.several)
        if given.get(REGIONS) is not None:
            more["regions"] = _regions(given[REGIONS], next(iter(images.values()), None))
        more |= {"cache": bool(given.get(CACHE, True)), "state": given.get(STATE)}
        return recipe.completed(
            Arguments(network, settings, images=images, films=films, folders=folders, **more)
        )


def _architecture(given: Any, network: Network) -> str:
    """By the name that was given, or where that is of code, by what it says once it is loaded."""
    return architecture_of(given) or network.architecture


def _pictures(
    recipe: Recipe, given: dict[str, Any], settings: Any
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The images, the films and the folders that go in, by role; a mask comes after what it is a
    mask of."""
    images: dict[str, Any] = {}
    films: dict[str, Any] = {}
    folders: dict[str, Any] = {}
    for entry in recipe.inputs:
        value = given.get(entry.argument)
        if value is None and not entry.required:  # the recipe says what is wrong with None
            continue
        if entry.kind == "folder":
            folders[entry.role] = value
        elif entry.kind == "video" or (entry.or_film and is_film_file(value)):
            films[entry.role] = film_of(value, settings)
        elif entry.kind == "mask":
            images[entry.role] = mask_of(value, next(iter(images.values()), None))
        else:
            images[entry.role] = picture_of(value)
    return images, films, folders


def _frames(steps: Iterator[Any]) -> Iterator[Frame]:
    """The frames of a film, each when it is asked for."""
    from phosphene.films.frames import Frame

    for step in steps:
        if step.done:
            yield Frame(step.frame, step.time, step.image, step.duration, step.time_base)


def _objectives(named: Any, *, several: bool = False) -> tuple[Any, ...]:
    """Each an `Objective`: itself, or that of its text.

    several: there may be several, and so a text may be of a range of channels.
    """
    from phosphene.objectives import Objective, parse

    found: list[Any] = []
    for one in [named] if isinstance(named, (str, Objective)) else list(named):
        texts = expanded([one]) if several and isinstance(one, str) else [one]
        found += [parse(text) if isinstance(text, str) else text for text in texts]
    return tuple(found)


def _regions(named: Any, photo: Any) -> tuple[Region, ...]:
    """Of pairs (mask, objective or its text). SettingsError for what is no pair.

    photo: what a mask that is a file is brought to the size of.
    """
    if isinstance(named, (str, bytes)) or not isinstance(named, Iterable):
        named = [named]
    from phosphene.objectives import Objective

    found = []
    for number, pair in enumerate(named, 1):
        fits = isinstance(pair, (tuple, list)) and len(pair) == 2
        if not fits or not isinstance(pair[1], (str, Objective)):
            given = type(pair).__name__
            if isinstance(pair, (tuple, list)):
                given = f"({', '.join(type(part).__name__ for part in pair)})"
            raise SettingsError(
                f"region {number} is {given}; expected a pair of a mask and an objective, such as "
                '(sky, "mixed4c")'
            )
        mask, objective = pair
        found.append(Region(mask_of(mask, photo), *_objectives(objective)))
    return tuple(found)


def signature(recipe: Recipe) -> inspect.Signature:
    """The signature of a recipe's public function, every setting in it by name."""
    positional, keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    empty = inspect.Parameter.empty
    parameters: list[inspect.Parameter] = []

    def add(name: str, kind: Any, annotation: Any, default: Any = empty) -> None:
        parameters.append(inspect.Parameter(name, kind, annotation=annotation, default=default))

    for entry in recipe.inputs:
        if entry.required:
            add(entry.argument, positional, FILM if entry.kind == "video" else PICTURE)
        elif entry.leading:
            add(entry.argument, positional, f"{PICTURE} | None")
    add("network", positional, "Network | str")
    if recipe.subject is not None:
        kinds = {
            "objective": "Objective | str",
            "objectives": "Objective | str | Sequence[Objective | str]",
            "layer": "str",
            "layers": "str | Sequence[str]",
            "unit": "str | tuple[str, int]",
            "class": "str | int",
        }
        optional = recipe.subject.default is not None
        annotation = kinds[recipe.subject.kind] + (" | None" if optional else "")
        add(recipe.subject.name, positional, annotation, None if optional else empty)
    fields = recipe.settings.model_fields
    for name in recipe.positional_settings:
        add(name, positional, type_text(fields[name].annotation), fields[name].default)
    for entry in recipe.inputs:
        if not entry.required and not entry.leading:
            annotation = (
                "str | Path | Sequence[str | Path] | None"
                if entry.kind == "folder"
                else f"{PICTURE} | None"
            )
            add(entry.argument, keyword, annotation, None)
    if recipe.regions:
        add(REGIONS, keyword, f"Sequence[tuple[{PICTURE}, Objective | str]] | None", None)
    if recipe.caches and not recipe.parts:  # parts are stored by their requests' keys
        add(CACHE, keyword, "bool", True)
    if recipe.resumes:
        add(STATE, keyword, "State | None", None)
    for name, entry in fields.items():
        if name not in recipe.positional_settings and not of_files_alone(entry):
            add(name, keyword, _setting_type(entry), entry.default)
    return inspect.Signature(parameters)


def _signed(function: Any, recipe: Recipe) -> Any:
    """The method under the recipe's signature, for `help`."""

    @functools.wraps(function)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return function(self, *args, **kwargs)

    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    given = signature(recipe)
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [own.replace(kind=positional), *given.parameters.values()]
    method.__signature__ = given.replace(parameters=parameters)  # pyright: ignore[reportAttributeAccessIssue]
    return method


def public_function(name: str) -> RecipeFunction:
    """The function of a recipe by its name, as a pickle names it."""
    module = sys.modules[recipe_named(name).settings.__module__]
    return next(
        value
        for value in vars(module).values()
        if isinstance(value, RecipeFunction) and value.recipe.name == name
    )


def _setting_type(field: Any) -> str:
    """A setting's type as source; that of one which is read before it is checked may be a text."""
    read = any(isinstance(part, BeforeValidator) for part in field.metadata)
    text = type_text(field.annotation)
    return f"{text} | str" if read and text != "str" else text


def type_text(annotation: Any) -> str:
    """A setting's type as source, without its bounds: `Literal['auto'] | int`."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        # What is read before it is checked may be a text.
        read = any(isinstance(part, BeforeValidator) for part in parts[1:])
        return type_text(parts[0]) + (" | str" if read else "")
    if origin in (Union, types.UnionType):
        return " | ".join(dict.fromkeys(type_text(part) for part in parts))
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, parts))}]"
    if origin is dict:
        return f"Mapping[{', '.join(map(type_text, parts))}]"
    if origin is tuple and len(parts) == 2 and parts[1] is ...:
        return f"Sequence[{type_text(parts[0])}]"
    if origin is tuple:
        return f"tuple[{', '.join(map(type_text, parts))}]"
    if annotation is types.NoneType:
        return "None"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def of_files_alone(field: Any) -> bool:
    """Whether a setting changes what a file holds and not the result itself."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("of_files_alone"))
