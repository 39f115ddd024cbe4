"""Which recipes there are, by name.

Nothing here needs torch or pydantic, and a built-in recipe is imported only by whoever asks for it
by its name: `phosphene --help` lists them all.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import pkgutil
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phosphene.errors import RecipeError, suggest
from phosphene.plugins.registry import Registry

if TYPE_CHECKING:
    from phosphene.recipes.base import Recipe

# Files of this folder that declare no recipe.
_HELPERS = {"arguments", "axes", "base", "function", "moving", "presets", "registry", "stubs"}
RECIPES: Registry[Recipe] = Registry(
    "recipe", RecipeError, home=lambda recipe: (recipe.settings.__module__, "")
)
"""Every recipe that was imported; of the built-in ones only those that were asked for."""


def register(recipe: Recipe) -> Recipe:
    """Make a recipe known by its name: to the command line, requests and replay.

    RecipeError if another file has declared one of that name, or it is no name for a verb.
    """
    name, module = recipe.name, recipe.settings.__module__
    if not re.fullmatch(r"[A-Za-z][\w-]*", name):
        raise RecipeError(f"a recipe's name is letters, digits, _ and -, a letter first: {name!r}")
    home = f"phosphene.recipes.{name}"
    if name in _built_in() and module != home:  # it may not be imported yet
        raise RecipeError(RECIPES.taken(name, home))
    if not recipe.summary:
        doc = importlib.import_module(module).__doc__
        object.__setattr__(recipe, "summary", _first_line(doc))
    RECIPES.add(name, recipe)
    return recipe


def unregister(name: str) -> None:
    """Forget a recipe of one's own, as a test does that declared it."""
    RECIPES.pop(name, None)


def recipe_names() -> list[str]:
    """The names of all recipes, the built-in ones first; none is imported for it."""
    return list(dict.fromkeys([*_built_in(), *RECIPES]))


def recipe_summary(name: str) -> str:
    """A recipe's summary; a built-in one is not imported for it."""
    if name in RECIPES:
        return RECIPES[name].summary
    return _built_in_summary(name)


@functools.cache
def _built_in_summary(name: str) -> str:
    # The file's first line, which takes a tenth of what its compiled code takes to read; importing
    # it would import pydantic, too.
    try:
        with open(Path(__file__).with_name(f"{name}.py"), encoding="utf-8") as stream:
            line = stream.readline().strip()
    except OSError:  # only compiled, or in an archive
        line = ""
    if line.startswith('"""'):
        return line.removeprefix('"""').removesuffix('"""')
    loader: Any = getattr(importlib.util.find_spec(f"phosphene.recipes.{name}"), "loader", None)
    code = loader.get_code(f"phosphene.recipes.{name}")
    doc = code.co_consts[0] if code and code.co_consts else None
    return _first_line(doc if isinstance(doc, str) else None)


def recipe_named(name: str) -> Recipe:
    """The recipe of that name. RecipeError, with the closest ones, if there is none."""
    if not is_recipe(name):
        raise RecipeError(f"no recipe {name!r}{suggest(name, recipe_names(), most=10)}")
    if name not in RECIPES:
        importlib.import_module(f"phosphene.recipes.{name}")
    return RECIPES[name]


def is_recipe(name: str) -> bool:
    """Whether there is a recipe of that name; a built-in one is not imported for it."""
    return name in RECIPES or name in _built_in() or RECIPES.known(name)


def _built_in() -> list[str]:
    folder = str(Path(__file__).parent)
    return [
        module.name
        for module in pkgutil.iter_modules([folder])
        if not module.ispkg and module.name not in _HELPERS
    ]


def _first_line(doc: str | None) -> str:
    return (doc or "").strip().partition("\n")[0]
