"""The text of `phosphene/__init__.pyi`: what editors and type checkers know of the public names.

The public functions of recipes are made of their declarations when they are imported, which no
editor sees; here every setting stands in their signatures.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Mapping

import phosphene
from phosphene.recipes.function import RecipeFunction

HEAD = '''"""phosphene: see what a neural network sees."""

# Made from the recipes' declarations by scripts/make_stubs.

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from PIL.Image import Image
from torch import Tensor

'''


def stub_text() -> str:
    """The whole file."""
    functions: dict[str, RecipeFunction] = {}
    imports = [
        "from phosphene import jobs as jobs",
        "from phosphene import objectives as objectives",
    ]
    for name, module in phosphene.PUBLIC.items():  # pyright: ignore[reportAttributeAccessIssue]
        value = getattr(phosphene, name)
        if isinstance(value, RecipeFunction):
            functions[name] = value
        else:
            imports.append(f"from {module} import {name} as {name}")
    for function in functions.values():
        recipe = function.recipe
        for kind in (recipe.result_type, recipe.step_type):
            module, _, name = kind.partition(":")
            if module != "torch":
                imports.append(f"from {module} import {name}")
    parts = [HEAD, "\n".join(sorted(dict.fromkeys(imports))), "\n\n__version__: str\n"]
    parts += [_function(name, function) for name, function in functions.items()]
    names = sorted(phosphene.__all__)
    parts.append("\n__all__ = [\n" + "".join(f'    "{name}",\n' for name in names) + "]\n")
    return "".join(parts)


def _function(name: str, function: RecipeFunction) -> str:
    recipe = function.recipe
    result, step = (kind.partition(":")[2] for kind in (recipe.result_type, recipe.step_type))
    if recipe.output == "video":  # one after the other
        result = f"Iterator[{result}]"
    parameters = _parameters(function.__signature__.parameters)
    doc = textwrap.indent(f'"""{function.__doc__}\n"""', " " * 8)
    return (
        f"\nclass _{name}:\n"
        f"    def __call__(\n        self,\n{parameters}    ) -> {result}:\n{doc}\n"
        f"    def steps(\n        self,\n{parameters}    ) -> Iterator[{step}]:\n"
        '        """The same as a generator of steps; stop whenever you like."""\n'
        f"\n{name}: _{name}\n"
    )


def _parameters(parameters: Mapping[str, inspect.Parameter]) -> str:
    lines, starred = [], False
    for parameter in parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            lines.append("*,")
            starred = True
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        lines.append(f"{parameter.name}: {parameter.annotation}{default},")
    return textwrap.indent("\n".join(lines) + "\n", " " * 8)
