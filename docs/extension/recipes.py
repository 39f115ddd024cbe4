"""A page for each recipe and each other verb, from their declarations."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin
from unittest import mock

import phosphene
from phosphene.cli import app, main
from phosphene.cli.flags import bounds_text
from phosphene.recipes.base import Recipe, recipe_named, recipe_names
from phosphene.recipes.function import RecipeFunction, signature, type_text

from .docstrings import rendered
from .tables import code, literal, rest, table, toctree

# How defaults are told that nobody types.
WORDS = {"None": "none", "()": "none", "''": "none", "True": "yes", "False": "no"}


def recipe_pages() -> dict[str, str]:
    """By the page's path below the reference: one for each recipe, and a list of them."""
    names = recipe_names()
    functions = {
        function.recipe.name: (name, function)
        for name in phosphene.PUBLIC
        if isinstance(function := getattr(phosphene, name), RecipeFunction)
    }
    pages = {
        f"recipes/{name}.md": _recipe_page(recipe_named(name), functions.get(name))
        for name in names
    }
    rows = [(f"[{name}]({name}.md)", recipe_named(name).summary) for name in names]
    pages["recipes/index.md"] = (
        "# Recipes\n\nWhat phosphene makes. Each is one declaration: its verb on the command line, "
        "its function in Python, and its settings with their bounds.\n\n"
        + table(("recipe", "what it does"), rows)
        + "\n"
        + toctree(names)
    )
    return pages


def verb_pages() -> dict[str, str]:
    """The help of the program, and of each verb that is no recipe's."""
    recipes = recipe_names()
    whole = help_of()  # which has the verbs of recipes be known
    verbs = [name for name in app if not name.startswith("-") and name not in recipes]
    pages = {
        f"verbs/{verb}.md": f"# phosphene {verb}\n\n{literal(help_of(verb))}" for verb in verbs
    }
    rows = [(f"[{name}](../recipes/{name}.md)", recipe_named(name).summary) for name in recipes]
    rows += [(f"[{verb}]({verb}.md)", str(app[verb].help)) for verb in verbs]
    pages["verbs/index.md"] = (
        "# The command line\n\nEvery verb, with the help that the terminal shows.\n\n"
        + table(("verb", "what it does"), rows)
        + "\n## phosphene --help\n\n"
        + literal(whole)
        + "\n"
        + toctree(verbs)
    )
    return pages


def help_of(*words: str) -> str:
    """The help as a terminal of 80 columns has it."""
    text = io.StringIO()
    with mock.patch.dict(os.environ, {"COLUMNS": "80"}), contextlib.redirect_stdout(text):
        code = main([*words, "--help"])
    if code:
        raise RuntimeError(f"phosphene {' '.join(words)} --help gave {code}")
    return text.getvalue()


def _recipe_page(recipe: Recipe, public: tuple[str, RecipeFunction] | None) -> str:
    about = " ".join(recipe.about.split())
    parts = [f"# {recipe.name}\n", recipe.summary, about, "## Settings\n"]
    parts += [
        "By keyword in Python, as flags on the command line, by name in requests and recipes. What "
        "may change while a film runs takes [keyframes](../../keyframes.md).\n",
        ":::{rst-class} stacked\n:::\n",
        table(("setting", "default", "takes", "what it is"), settings_rows(recipe)),
    ]
    if public is not None:
        parts += ["## In Python\n", rest(_function(*public))]
    parts += ["## On the command line\n", literal(help_of(recipe.name))]
    return "\n".join(part for part in parts if part) + "\n"


def settings_rows(recipe: Recipe) -> Iterator[tuple[str, str, str, str]]:
    """Each setting: its name, default, what it takes, and what it is."""
    for name, field in recipe.settings.model_fields.items():
        extra: Mapping[str, Any] = (
            field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        )
        shown = str(extra.get("shown") or WORDS.get(repr(field.default), field.default))
        bounds = bounds_text(field)
        described = field.description or ""
        if extra.get("animatable"):
            described += " May change with time."
        takes = code(kind_text(field.annotation)) + (f", {bounds}" if bounds else "")
        yield code(name), code(shown), takes, described


def kind_text(annotation: Any) -> str:
    """What a setting takes, with choices as they are typed.

    >>> kind_text(Literal["auto"] | int | None), kind_text(dict[str, float])
    ('auto | int | none', 'dict[str, float]')
    """
    if get_origin(annotation) is dict:
        return f"dict[{', '.join(map(kind_text, get_args(annotation)))}]"
    text = type_text(annotation).replace("None", "none").replace("typing.", "")
    choices = re.compile(r"Literal\[([^]]*)\]")
    return choices.sub(lambda found: re.sub(r"'|\"", "", found[1]).replace(", ", " | "), text)


def _function(name: str, function: RecipeFunction) -> str:
    """The public function as Sphinx describes one, with every setting in its signature."""
    given = signature(function.recipe)
    result = function.recipe.result_type.partition(":")[2]
    if function.recipe.output == "video":
        result = f"Iterator[{result}]"
    parameters = ", ".join(_parameters(given))
    doc = inspect.cleandoc(function.__doc__ or "")
    doc = doc.replace("**settings: those of ", r"\*\*settings: those above, of ")
    body = "\n".join(f"   {line}".rstrip() for line in rendered(doc.splitlines()))
    return f".. py:function:: {name}({parameters}) -> {result}\n   :module: phosphene\n\n{body}\n"


def _parameters(given: inspect.Signature) -> Iterator[str]:
    starred = False
    for parameter in given.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        yield f"{parameter.name}: {parameter.annotation}{default}"
