"""What there is: `layers`, `networks`, `objectives`, `transforms`, `plugins`, `presets`."""

from __future__ import annotations

import inspect
import io
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from phosphene.cli.exits import DONE, plain, to_stdout
from phosphene.cli.plugins import Plugins
from phosphene.cli.running import Force
from phosphene.errors import SettingsError
from phosphene.plugins.available import load_available

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from phosphene.network import Layer
    from phosphene.plugins import Registry
    from phosphene.recipes.presets import Preset

UNPIPED = 1000  # columns, where no terminal sets a limit


def layers(
    network: str = "dreamnet",
    /,
    *,
    size: Annotated[str | None, Parameter(show_default=lambda _: "as trained")] = None,
    depth: int | None = None,
    json: Annotated[bool, Parameter(name="--json", negative=(), show_default=False)] = False,
    plugin: Plugins = (),
) -> int:
    """The layers of a network: what can be dreamt.

    Parameters
    ----------
    network
        A name: see phosphene networks.
    size
        HxW, the picture's height and width in px, that the maps' sizes are told for.
    depth
        Leave out layers deeper than so many names with dots between.
    json
        As JSON.
    """
    from phosphene.cli.reporter import Reporter
    from phosphene.zoo import load_network

    if depth is not None and depth < 1:
        raise SettingsError(f"depth is {depth}; 1 or more was expected")
    measures = None if size is None else _size(size)
    with Reporter().hearing_warnings():
        net = load_network(network)
        found = net.layers if measures is None else net.layers_at(measures)
    kept = [n for n in in_tree_order(found) if depth is None or n.count(".") < depth]
    if json:
        _print_json([_as_json(found[name]) for name in kept if name in found])
        return DONE
    rows = []
    for name in kept:
        indent = "  " * name.count(".")
        layer = found.get(name)
        rows.append((indent + name, *(_cells(layer) if layer else [""] * 5)))
    _print_table(("layer", "kind", "channels", "stride", "sees px", "map"), rows, right=(2, 3, 4))
    return DONE


def in_tree_order(names: Any) -> list[str]:
    """Every name and what it lies in, each parent before its children, else in the given order.

    >>> in_tree_order(["a.x", "a.y", "a", "c.z"])
    ['a', 'a.x', 'a.y', 'c', 'c.z']
    """
    children: dict[str, dict[str, None]] = {"": {}}
    for name in names:
        parent = ""
        for part in name.split("."):
            child = f"{parent}.{part}" if parent else part
            children.setdefault(parent, {})[child] = None
            children.setdefault(child, {})
            parent = child
    order: list[str] = []
    left = list(reversed(children[""]))
    while left:
        name = left.pop()
        order.append(name)
        left += reversed(children[name])
    return order


def _cells(layer: Layer) -> tuple[str, ...]:
    shape = layer.shape
    kind = layer.kind + (f" ×{layer.calls}" if layer.calls > 1 else "")
    extent = "×".join(map(str, shape[1:])) if len(shape) == 3 else ""
    if len(shape) == 2:
        extent = f"{shape[0]} tokens"
    return (
        kind,
        "" if layer.channels is None else str(layer.channels),
        "" if layer.stride is None else f"{layer.stride:g}",
        "all" if layer.receptive_field is None else str(layer.receptive_field),
        extent,
    )


def _as_json(layer: Layer) -> dict[str, Any]:
    return {
        "layer": layer.name,
        "kind": layer.kind,
        "channels": layer.channels,
        "stride": layer.stride,
        "receptive_field": layer.receptive_field,
        "shape": list(layer.shape),
        "calls": layer.calls,
    }


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,5})(?:[x×X]([1-9]\d{0,5}))?", text)
    if match is None:
        raise SettingsError(f"size {text!r}: expected HxW in px, such as 427x640, or one side")
    return int(match[1]), int(match[2] or match[1])


def networks(
    *,
    all: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    plugin: Plugins = (),
) -> int:
    """The networks that have a name, and whether their weights are here.

    Parameters
    ----------
    all
        Every classifier of torchvision, too.
    """
    from phosphene.zoo import listing

    load_available()
    rows = [
        (
            info.name,
            info.weights,
            _megabytes(info.size_bytes),
            info.licence,
            info.about,
            info.source,
        )
        for info in listing(all=all)
    ]
    _print_table(("network", "weights", "MB", "licence", "about", "source"), rows, right=(2,))
    if sys.stdout.isatty():
        to_stdout("\nAlso torchvision:NAME, timm:NAME, file:PATH@NETWORK, package.module:function.")
    return DONE


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.1f}"


def presets(
    *,
    sheet: Annotated[Path | None, Parameter(show_default=False)] = None,
    size: Annotated[int, Parameter(allow_leading_hyphen=True)] = 480,
    output: Annotated[
        Path | None, Parameter(name=["--output", "-o"], show_default=lambda _: "PHOTO-grid.png")
    ] = None,
    force: Force = False,
    plugin: Plugins = (),
) -> int:
    """Named settings of a dream: looks, and published algorithms.

    Parameters
    ----------
    sheet
        A photo: draw it by each of them, looks through the network that they bring, on one page.
    size
        The longest side of each picture of the sheet, px.
    output
        The sheet; the recipe lies inside.
    """
    from phosphene.recipes.presets import PRESETS, own_presets, preset

    found = {**PRESETS, **{name: preset(name) for name in own_presets()}}
    if sheet is not None:
        return _sheet(sheet, found, size=size, output=output, force=force)
    rows = [(name, p.about, p.source, p.network) for name, p in found.items()]
    _print_table(("preset", "about", "source", "network"), rows, lines=True)
    return DONE


def _sheet(photo: Path, presets: Mapping[str, Preset], **options: Any) -> int:
    """A photo dreamt by each preset, on one page, as `grid` draws it; the exit code."""
    from phosphene.cli.verbs import DEFAULT_NETWORK, OutputOptions, verb_of

    networks = [DEFAULT_NETWORK if p.published else p.network for p in presets.values()]
    axis = f"preset={'; '.join(presets)} & network={'; '.join(networks)}"
    written = OutputOptions(force=options.pop("force"))
    return verb_of("grid")(photo, across=axis, options=written, **options)


def objectives(*, plugin: Plugins = ()) -> int:
    """What an objective's text may say."""
    from phosphene.objectives import describe

    load_available()
    rows = [(signature, about) for _, signature, about in describe()]
    _print_table(("objective", "about"), rows)
    if sys.stdout.isatty():
        to_stdout(
            '\nAdd and weigh them: "2*mixed4b + mixed4d:42,17 - 0.1*tv()". A bare name is a layer, '
            "name:42 its\nchannel 42, logits:dumbbell a class; phosphene layers lists them."
        )
    return DONE


def transforms(*, plugin: Plugins = ()) -> int:
    """What --transforms and --gradient-transforms may say."""
    from phosphene.calls import signature_text
    from phosphene.gradients import GRADIENTS
    from phosphene.transforms import TRANSFORMS

    def listed(name: str, function: Callable[..., Any], registry: Registry[Any]) -> str:
        return signature_text(name, function, left_out=registry.offered)

    load_available()
    rows = [
        (listed(name, function, registry), of, (inspect.getdoc(function) or "").partition("\n")[0])
        for of, registry in (("picture", TRANSFORMS), ("gradient", GRADIENTS))
        for name, function in registry.items()
    ]
    _print_table(("transform", "of the", "about"), rows)
    if sys.stdout.isatty():
        to_stdout(
            '\nSeveral go in order: --transforms "robust, jitter(8)" of a picture,\n'
            '--gradient-transforms "smooth(2), laplacian(3)" of a gradient.'
        )
    return DONE


def plugins(*, plugin: Plugins = ()) -> int:
    """Code of your own that is loaded, and what it brings."""
    from phosphene.plugins import failed_plugins, loaded_plugins

    load_available()
    rows = [
        (
            found.name,
            found.version or "",
            "" if found.sha256 is None else found.sha256[:12],
            found.way,
            str(found.files[0]) if len(found.files) == 1 else found.module,
            "; ".join(f"{kind} {', '.join(names)}" for kind, names in found.registered.items()),
        )
        for found in loaded_plugins()
    ]
    failed = failed_plugins()
    rows += [(name, "", "", "installed", "", f"failed: {why}") for name, why in failed.items()]
    _print_table(("plugin", "version", "SHA-256", "loaded by", "from", "registers"), rows)
    return DONE


def _print_json(value: Any) -> None:
    to_stdout(json.dumps(value, indent=1))


def _print_table(
    head: tuple[str, ...],
    rows: list[tuple[str, ...]],
    *,
    right: tuple[int, ...] = (),
    lines: bool = False,
) -> None:
    """A table for a terminal; piped, one row a line."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    terminal = console.is_terminal
    if not terminal:
        console.width = UNPIPED
        lines = False
    table = Table(box=box.SIMPLE_HEAD, show_lines=lines, pad_edge=False, header_style="bold")
    for index, name in enumerate(head):
        table.add_column(
            name,
            justify="right" if index in right else "left",
            no_wrap=index == 0 or not terminal,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    console.file = io.StringIO()  # capturing, too, writes to its file, which may take nothing
    with console.capture() as capture:
        console.print(table)
    text = "\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n")
    to_stdout(text, as_is=True)  # a terminal gets its bold heads
