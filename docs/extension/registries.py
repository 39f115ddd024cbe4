"""What has a name: objectives, transforms, presets and networks, from their registries."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from phosphene.calls import signature_text
from phosphene.gradients import GRADIENTS
from phosphene.objectives import OBJECTIVES, describe
from phosphene.recipes.presets import PRESETS
from phosphene.transforms import TRANSFORMS
from phosphene.zoo import listing

from .docstrings import rendered
from .tables import code, rest, table


def registry_pages() -> dict[str, str]:
    """By the page's path."""
    return {
        "objectives.md": _objectives(),
        "transforms.md": _transforms(),
        "networks.md": _networks(),
    }


def _objectives() -> str:
    parts = [
        "# Objectives, as registered\n",
        "Every name that an objective's text may use, with its arguments, its formula and where it "
        "comes from. A picture is always changed so that the score rises. [How texts are "
        "read](../objectives.md), with examples of each.\n",
    ]
    for name, shown, _ in describe():
        parts.append(_described(name, shown, OBJECTIVES[name]))
    return "\n".join(parts)


def _transforms() -> str:
    parts = [
        "# Transforms\n",
        "Several go in order, as texts: `robust, jitter(8)`. Those of a picture are taken by "
        "`--transforms`, those of a gradient by `--gradient-transforms`.\n",
    ]
    kinds: tuple[tuple[str, Any], ...] = (
        ("Of the picture, by chance, before each step", TRANSFORMS),
        ("Of the gradient, before it is divided by its size", GRADIENTS),
    )
    for heading, registry in kinds:
        parts.append(f"## {heading}\n")
        for name, function in registry.items():
            shown = signature_text(name, function, left_out=registry.offered)
            parts.append(_described(name, shown, function, level=3))
    return "\n".join(parts)


def _described(name: str, shown: str, function: Any, *, level: int = 2) -> str:
    doc = rendered((inspect.getdoc(function) or "").splitlines())
    heading = f"{'#' * level} {name}\n"
    return f"{heading}\n{code(shown)}\n\n{rest(chr(10).join(doc))}"


def _networks() -> str:
    rows = [
        (code(info.name), _size(info.size_bytes), info.licence, info.about, info.source)
        for info in listing(all=True)
    ]
    text = (
        "# Networks and presets\n\n## Networks that have a name\n\n"
        "Also `timm:NAME`, `file:PATH@NETWORK` and `package.module:function`: see [your own "
        "network](../howto/network.md).\n\n"
        + table(("network", "MB", "licence", "about", "source"), rows)
        + "\n## Presets\n\nEach is a set of settings of a [dream](recipes/dream.md), and an "
        "objective for each network that it knows. `--preset NAME`, or `preset=` in Python.\n"
    )
    for preset in PRESETS.values():
        text += f"\n### {preset.name}\n\n{preset.about} {_sentence(preset.source)}\n\n"
        text += table(("setting", "value"), _values(preset.settings)) if preset.settings else ""
        text += "\n" + table(("network", "objective"), _values(preset.objectives))
    return text


def _values(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(code(name), code(str(value))) for name, value in values.items()]


def _sentence(text: str) -> str:
    return text if not text or text.endswith(".") else f"{text}."


def _size(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.1f}"
