"""Pages that lie elsewhere in the repository, taken into the site with their links."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)#\s]+)(#[^)\s]*)?(?=\))")


def taken_in() -> dict[str, str]:
    """Where each page lies in the repository -> where it lies in the site, both from the root."""
    found = {
        "CONTRIBUTING.md": "docs/project/contributing.md",
        "CHANGELOG.md": "docs/project/changelog.md",
    }
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.md")):
        found[f"benchmarks/results/{path.name}"] = f"docs/project/figures/{path.name}"
    for path in sorted((ROOT / "lessons").glob("*.ipynb")):
        page = f"docs/lessons/{path.name}"
        found |= {f"lessons/{path.name}": page, f"lessons/{path.stem}.py": page}
    found["lessons"] = "docs/lessons/index.md"
    if (ROOT / "benchmarks" / "results").is_dir():
        found["benchmarks/results"] = "docs/project/figures/index.md"
    return found


def moved_links(text: str, source: str, target: str, pages: Mapping[str, str]) -> str:
    """A page's text with its links as they are from `target`, a path from the root as `source` is.

    pages: of `taken_in`. A link to a file of the repository that is no page of the site is left
    out, and its text stays.
    """

    def moved(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        path = pages.get(path, path)
        return os.path.relpath(path, posixpath.dirname(target)) + (match[2] or "")

    text = LINK.sub(moved, text)
    outside = re.compile(r"(?<!!)\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(?:#[^)\s]*)?\)")

    def kept(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(target), match[2]))
        return match[0] if path.startswith("docs/") else match[1]

    return outside.sub(kept, text)
