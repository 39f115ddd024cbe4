"""The formats of requests and recipes, from the models that check them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from pydantic import BaseModel

from phosphene.cli import main
from phosphene.jobs.request import Request
from phosphene.manifest.schema import Manifest

from .recipes import kind_text
from .tables import code, literal, table

Model = type[BaseModel]


def format_pages() -> dict[str, str]:
    """By the page's path: requests and recipes, each with its fields, an example, its schema."""
    with _worked_example() as folder:
        request = (folder / "job.json").read_text(encoding="utf-8")
        manifest = (folder / "sky.json").read_text(encoding="utf-8")
    return {
        "formats/request.md": _page(
            "The format of requests",
            "A request is JSON that says what is to be made: `--save-request` writes one, "
            "`phosphene run` runs it, and in Python it is `phosphene.jobs.Request`. It is read and "
            "checked without PyTorch.",
            Request,
            request,
        ),
        "formats/recipe.md": _page(
            "The format of recipes",
            "The recipe, or manifest, lies inside every picture, page and film: a request without "
            "paths, and what came of it. `phosphene replay` computes it again. `--recipe` writes "
            "it to a file of its own, too.",
            Manifest,
            manifest,
        ),
    }


@contextlib.contextmanager
def _worked_example() -> Iterator[Path]:
    """A folder with the request and the recipe of a small dream, made now."""
    words = "dream --start sky --size 64 --steps 1 -o sky.png --recipe sky.json"
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        with contextlib.redirect_stdout(io.StringIO()):
            code = main([*words.split(), "--save-request", "job.json", "--quiet"])
        if code:
            raise RuntimeError(f"phosphene {words} gave {code}")
        os.remove("sky.png")
        yield Path(folder)


def _page(title: str, about: str, model: Model, example: str) -> str:
    parts = [f"# {title}\n", about, ""]
    models = list(_models(model))
    for position, each in enumerate(models):
        if position:
            parts.append(f"## {each.__name__}\n")
        described, fields = described_fields(each)
        if described and position:
            parts.append(described + "\n")
        parts.append(":::{rst-class} stacked\n:::\n")
        head = ("field", "default", "takes", *(("what it is",) if fields else ()))
        parts.append(table(head, (row[: len(head)] for row in _rows(each, fields))))
    parts += ["## An example\n", literal(example, "json"), "## As a JSON schema\n"]
    parts.append(literal(json.dumps(model.model_json_schema(), indent=1), "json"))
    return "\n".join(parts) + "\n"


def _models(model: Model) -> Iterator[Model]:
    """The model and those that its fields hold, each once."""
    found = {model: None}
    queue = [model]
    while queue:
        for field in queue.pop(0).model_fields.values():
            for part in _parts(field.annotation):
                if isinstance(part, type) and issubclass(part, BaseModel) and part not in found:
                    found[part] = None
                    queue.append(part)
    yield from found


def _parts(annotation: object) -> Iterator[object]:
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part)


def _rows(model: Model, described: dict[str, str]) -> Iterator[tuple[str, str, str, str]]:
    for name, field in model.model_fields.items():
        factory = field.default_factory
        default = "required" if field.is_required() else "none" if factory else repr(field.default)
        default = {"()": "none", "{}": "none", "None": "none"}.get(default, default)
        shown = default if default in ("required", "none") else code(default)
        yield code(name), shown, code(kind_text(field.annotation)), described.get(name, "")


def described_fields(model: Model) -> tuple[str, dict[str, str]]:
    """What a model's docstring says of it, and of its fields: `inputs, size: …`.

    >>> class Film(BaseModel):
    ...     '''A film.
    ...
    ...     width, height: in px,
    ...         both even.
    ...     '''
    >>> described_fields(Film)
    ('A film.', {'width': 'in px, both even.', 'height': 'in px, both even.'})
    """
    about, _, rest = (model.__doc__ or "").partition("\n\n")
    fields: dict[str, str] = {}
    entry = re.compile(r"^ {4}(\w+(?:, \w+)*): (.*(?:\n {5,}.*)*)", re.MULTILINE)
    for match in entry.finditer(rest):
        for name in match[1].split(", "):
            fields[name] = " ".join(match[2].split())
    return " ".join(about.split()), fields
