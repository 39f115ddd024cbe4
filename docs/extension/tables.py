"""Parts of Markdown pages: tables, literal blocks, and directives in reStructuredText."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def code(text: str) -> str:
    """Text in the type of code; nothing for none."""
    ticks = "``" if "`" in text else "`"
    return f"{ticks}{text}{ticks}" if text else ""


def literal(text: str, language: str = "text") -> str:
    """A block as it stands."""
    return f"`````{language}\n{text.rstrip()}\n`````\n"


def rest(text: str) -> str:
    """A part of a Markdown page that is reStructuredText."""
    return f"`````{{eval-rst}}\n{text.rstrip()}\n`````\n"


def toctree(pages: Iterable[str], *, hidden: bool = True, glob: bool = False) -> str:
    """The pages below this one."""
    options = ":hidden:\n" * hidden + ":glob:\n" * glob + ":maxdepth: 1\n"
    return "```{toctree}\n" + options + "\n" + "\n".join(pages) + "\n```\n"
