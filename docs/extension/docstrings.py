"""A docstring of the house as reStructuredText.

Docstrings are written to be read where they stand: fields as `name: what it is` with a hanging
indent, tables and trees indented by four. Sphinx would take the first for definitions and the
second for quotations; here they become lists and literal blocks. Google's sections are Napoleon's
work; of properties it would take all before a colon for their type, so it is not asked of them.
"""

from __future__ import annotations

import itertools
import re
import textwrap

from sphinx.ext.napoleon import Config, GoogleDocstring

# `photo: …`, `inputs, regions: …`, `norm, over channels:`, where an entry begins.
NAME = r"\*{0,2}[A-Za-z_]\w*"
ENTRY = re.compile(rf"({NAME}(?:, {NAME})*)((?:, [^:`]*)?):(?: +(\S.*)|$)")
NAPOLEON = Config(napoleon_use_rtype=False)
MARKUP = (">>>", ":", "..", "- ", "* ", "=")
# A span of code, and what follows it; or a bar, which would begin a substitution.
INLINE = re.compile(r"(?<![`:])`([^`]+)`(?!`)(?=(\w?))|(?<!\\)\|")


def rendered(lines: list[str], what: str = "function") -> list[str]:
    """The lines of a docstring of something of that kind, as autodoc calls it."""
    if what in ("attribute", "property", "data"):
        return converted(lines)
    return converted(GoogleDocstring(lines, NAPOLEON, what=what).lines())


def converted(lines: list[str]) -> list[str]:
    """The same without Google's sections: hanging entries as lists, tables as they stand."""
    found: list[str] = []
    inside = False  # a directive, a field or a list, whose indented blocks are its own
    for position, block in enumerate(_blocks(lines)):
        if block[0].startswith(" ") and not inside:
            found += ["::", "", *block]
        elif block[0].startswith(">>>"):
            inside = False
            found += block
        elif block[0].startswith((" ", *MARKUP)):
            inside = True
            found += _inline(block)
        else:
            inside = False
            found += _inline(_entries(block) if position > 0 and _is_list(block) else block)
        found.append("")
    return found[:-1]


def _inline(block: list[str]) -> list[str]:
    """The lines with spans of code and bars as reStructuredText has them."""

    def marked(match: re.Match[str]) -> str:
        if match[1] is None:
            return "\\|"
        return f"``{match[1].strip()}``" + ("\\ " if match[2] else "")

    return INLINE.sub(marked, "\n".join(block)).split("\n")


def _blocks(lines: list[str]) -> list[list[str]]:
    blocks: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            blocks[-1].append(line.rstrip())
        elif blocks[-1]:
            blocks.append([])
    return [block for block in blocks if block]


def _is_list(block: list[str]) -> bool:
    """Whether a paragraph begins with an entry, and no line that does not hang goes on with one."""
    loose = (
        not line.startswith(" ") and not ENTRY.match(line) and not before.endswith((".", ")"))
        for before, line in itertools.pairwise(block)
    )
    return bool(ENTRY.match(block[0])) and not any(loose)


def _entries(block: list[str]) -> list[str]:
    """A bullet for each entry; a sentence that follows them is a paragraph of its own."""
    found: list[str] = []
    rest = list(block)
    while rest:
        match = ENTRY.match(rest[0])
        end = next((k for k in range(1, len(rest)) if not rest[k].startswith(" ")), len(rest))
        hanging = textwrap.dedent("\n".join(rest[1:end])).splitlines()
        if match is None:
            return [*found, "", *rest]
        names = ", ".join(f"`{name}`" for name in match[1].split(", "))
        item = [f"{names}{match[2]}: {match[3] or ''}".rstrip()]
        nested = match[3] is None and hanging and ENTRY.match(hanging[0])
        item += ["", *_entries(hanging), ""] if nested else hanging
        found += ["- " + item[0], *(f"  {line}".rstrip() for line in item[1:])]
        rest = rest[end:]
    return found
