"""What is made when the documentation is built: the reference, and pages that lie elsewhere.

    docstrings  a docstring of the house as reStructuredText
    recipes     a page for each recipe and verb      formats  requests and recipes
    registries  objectives, transforms, networks     api      the Python reference
    links       pages from elsewhere in the repository, with their links
    tables      parts of pages                       formulas  as MathML

It is written into `docs/reference`, `docs/project` and `docs/lessons`, which git ignores.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from . import formulas
from .docstrings import rendered
from .links import DOCS, ROOT, moved_links, taken_in
from .tables import toctree

SHORT = 28  # characters of code that stay on one line

REFERENCE = """# Reference

Made from the code, when this page was.

- [Recipes](recipes/index.md): every setting with its default, its bounds and what it is
- [The command line](verbs/index.md): every verb, with the help that the terminal shows
- [In Python](api/index.md): every public name
- [Objectives](objectives.md), [transforms](transforms.md), [networks and presets](networks.md)
- The formats of [requests](formats/request.md) and of [recipes](formats/recipe.md)

"""


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx calls this."""
    app.connect("builder-inited", write_pages)
    app.connect("doctree-read", _keep_short_code_together)
    app.connect("source-read", _links_to_pages_elsewhere)
    formulas.setup(app)
    app.connect("autodoc-process-docstring", _as_restructured_text)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def write_pages(app: Sphinx) -> None:
    """Everything that is made for a build; what did not change keeps its time."""
    from .api import api_pages
    from .formats import format_pages
    from .recipes import recipe_pages, verb_pages
    from .registries import registry_pages

    pages = recipe_pages() | verb_pages() | registry_pages() | format_pages()
    pages |= api_pages()
    pages["index.md"] = REFERENCE + toctree(
        ["recipes/index", "verbs/index", "api/index", "objectives", "transforms", "networks",
         "formats/request", "formats/recipe"]
    )  # fmt: skip
    _write(DOCS / "reference", {name: text.encode() for name, text in pages.items()})
    _write(DOCS / "project", _project())
    _write(DOCS / "lessons", _lessons())


def _project() -> dict[str, bytes]:
    """Pages that lie elsewhere in the repository."""
    pages = taken_in()
    found: dict[str, bytes] = {}
    for source, target in pages.items():
        if source.endswith(".md") and target.startswith("docs/project/"):
            text = moved_links((ROOT / source).read_text(encoding="utf-8"), source, target, pages)
            if target.startswith("docs/project/figures/"):  # they begin with a heading of level 2
                text = "\n".join(
                    line[1:] if line.startswith("##") else line for line in text.splitlines()
                )
            found[target.removeprefix("docs/project/")] = text.encode()
    names = sorted(Path(name).stem for name in found if name.startswith("figures/"))
    found["figures/index.md"] = (
        "# Figures, as measured\n\n" + toctree(names, hidden=False)
    ).encode()
    return found


def _lessons() -> dict[str, bytes]:
    """The notebooks as they were saved, and a list of them; none are run."""
    notebooks = sorted((ROOT / "lessons").glob("*.ipynb"))
    found = {path.name: _notebook(path) for path in notebooks}
    for path in sorted((ROOT / "lessons").rglob("*")):
        if path.suffix in (".png", ".jpg", ".webp", ".svg"):
            found[path.relative_to(ROOT / "lessons").as_posix()] = path.read_bytes()
    listed = toctree((path.stem for path in notebooks), hidden=False) if notebooks else ""
    text = "# Lessons\n\nNotebooks, with what they draw. They run without a network or a GPU.\n\n"
    found["index.md"] = (text + (listed or "There are none yet.\n")).encode()
    return found


def _notebook(path: Path) -> bytes:
    """A notebook with its links as they are from where it goes."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            text = "".join(cell["source"])
            here, there = f"lessons/{path.name}", f"docs/lessons/{path.name}"
            cell["source"] = moved_links(text, here, there, taken_in())
    return json.dumps(notebook, ensure_ascii=False).encode()


def _write(folder: Path, pages: dict[str, bytes]) -> None:
    """The pages into the folder, and nothing else."""
    kept = {folder / name for name in pages}
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path not in kept:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            shutil.rmtree(path)
    for name, content in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_bytes() != content:
            path.write_bytes(content)


def _links_to_pages_elsewhere(app: Sphinx, name: str, source: list[str]) -> None:
    """A page that lies in docs may link to one that does not."""
    path = app.env.doc2path(name, base=False)
    if str(path).endswith(".md") and not str(path).startswith(("reference/", "project/")):
        here = f"docs/{path}"
        source[0] = moved_links(source[0], here, here, taken_in())


def _keep_short_code_together(app: Sphinx, doctree: nodes.document) -> None:
    """A flag is not broken after its hyphens; what is longer may be, on a narrow screen."""
    for literal in doctree.findall(nodes.literal):
        if len(literal.astext()) <= SHORT:
            literal["classes"].append("short")


def _as_restructured_text(
    app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    lines[:] = rendered(lines, what)
