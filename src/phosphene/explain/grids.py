"""`grid`: pictures of one recipe, one or two things of which change from cell to cell."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from phosphene import __version__
from phosphene import image as images
from phosphene.cache import cache_folder
from phosphene.errors import NonFiniteError, SettingsError
from phosphene.explain.grid_page import PageCell, cell_side, cells_page, wrapped_columns
from phosphene.explain.kept import in_levels, load_kept, store_kept
from phosphene.explain.pages import Page, ShownPage
from phosphene.image.tensor import fit
from phosphene.network import Network
from phosphene.objectives import Objective
from phosphene.recipes.arguments import network_of, picture_of
from phosphene.recipes.axes import check_name
from phosphene.recipes.base import Arguments, PartToDraw, Recipe, recipe_named
from phosphene.recipes.function import public_function
from phosphene.recipes.grid import GridSettings, Parts, heads

# A change in how cells come out, with the same settings, is a new number here.
CACHE_FORMAT = 1
START = (640, 427)  # px, of a start that no photo gives a size to, as of a request


@dataclass(frozen=True)
class DrawnCell:
    """A finished cell.

    picture: `(3, h, w)` in [0, 1], in steps of 1/255; None where nothing could be drawn.
    said: what is to be known of it, such as that the unit is dead; else "".
    precision: of the network that drew it.
    """

    picture: Tensor | None = field(repr=False)
    said: str = ""
    precision: str = "fp32"


@dataclass(frozen=True)
class Grid(ShownPage):
    """Pictures of a recipe, row by row.

    network: its name, or those of several.
    columns, rows: what stands over, and beside, each; empty where nothing changes that way.
    cells: row by row; None for what is not drawn yet.
    """

    network: str
    recipe: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    cells: tuple[DrawnCell | None, ...] = field(repr=False)
    settings: GridSettings = field(repr=False)
    version: str = __version__

    page_scale: ClassVar[float] = 1.0

    @property
    def subject(self) -> tuple[str, ...]:
        """Nothing: what it is about stands in the request's axes."""
        return ()

    def layout(self) -> Page:
        """Its page: a table with heads, or, of one row or column, a row that is wrapped."""
        s, labels = self.settings, self.columns or self.rows
        table = bool(self.columns and self.rows)
        captions = itertools.repeat("") if table else labels
        cells = [_page_cell(cell, text) for cell, text in zip(self.cells, captions, strict=False)]
        longest = max(
            (max(images.size_of(cell.picture)) for cell in cells if cell.picture is not None),
            default=0,
        )
        if table:
            columns = len(self.columns)
        else:
            side = cell_side(longest, 1) if s.cell == "auto" else s.cell
            columns = wrapped_columns(len(cells), side) if s.columns == "auto" else s.columns
        columns = min(columns, max(1, len(cells)))
        return cells_page(
            f"{self.network} · {self.recipe}",
            " · ".join(text.replace("=", " ", 1).replace("_", " ") for text in s.set),
            cells,
            columns=columns,
            cell=None if s.cell == "auto" else s.cell,
            column_heads=self.columns if table else (),
            row_heads=self.rows if table else (),
            footer=f"phosphene {self.version} · {len(cells)} pictures, seed {s.seed}",
        )

    def data(self) -> dict[str, Any]:
        """All but the pictures, as JSON can hold it."""
        return {
            "phosphene": self.version,
            "network": self.network,
            "recipe": self.recipe,
            "settings": self.settings.model_dump(mode="json"),
            "columns": list(self.columns),
            "rows": list(self.rows),
        }


def _page_cell(cell: DrawnCell | None, caption: str) -> PageCell:
    if cell is None:
        return PageCell(caption=caption, said="not drawn")
    if cell.said and cell.picture is not None:
        return PageCell(cell.picture, caption=" · ".join(filter(None, (caption, cell.said))))
    return PageCell(cell.picture, caption, cell.said)


@dataclass(frozen=True)
class GridStep:
    """A step on the way to a grid.

    drawn: the cells that are done by now, by their place; so many were `cached` before.
    step: of the recipe that draws the cells, None where all were cached.
    network: the one that it runs on.
    """

    drawn: Mapping[int, DrawnCell] = field(repr=False)
    total: int
    cached: int
    step: Any = field(repr=False)
    network: Network = field(repr=False)
    whole: Grid = field(repr=False)

    @property
    def share(self) -> float:
        """How much of all is done, 0 to 1."""
        return min(1.0, (len(self.drawn) + (self.step.share if self.step else 0)) / self.total)

    @property
    def text(self) -> str:
        """What is being done, in a few words."""
        text = f"{len(self.drawn)}/{self.total} cells"
        return f"{text}  {self.step.text}" if self.step else text

    @property
    def milestone(self) -> bool:
        """Whether a cell is done."""
        return self.step is None

    @property
    def stored(self) -> str:
        """What an interruption leaves."""
        return f"{len(self.drawn)} of {self.total} cells are done and kept"

    @property
    def remarks(self) -> list[tuple[str, bool]]:
        """What to know of the whole, each with whether it is a detail."""
        if not self.cached:
            return []
        return [(f"{self.cached} of {self.total} cells were kept from before", True)]

    def grid(self) -> Grid:
        """The grid of what is drawn so far."""
        cells = tuple(self.drawn.get(k) for k in range(self.total))
        return Grid(**{**vars(self.whole), "cells": cells})


def grid_steps(arguments: Arguments) -> Iterator[GridStep]:
    """A grid's steps: see `phosphene.grid`. What is done when one stops is stored."""
    s, network = arguments.settings, arguments.network
    parts = s.parts(network)
    drawn = arguments.parts or _parts_to_draw(arguments, parts)
    columns, rows = heads(s.across_of(network)), heads(s.rows())
    names = [value for axis in parts.axes for value in axis.values.get("network", ())]
    through = ", ".join(names) or network.name
    whole = Grid(through, parts.recipe, tuple(columns), tuple(rows), (), s)
    return _steps(drawn, whole, arguments)


def _steps(parts: Sequence[PartToDraw], whole: Grid, arguments: Arguments) -> Iterator[GridStep]:
    done: dict[int, DrawnCell] = {}
    by_key: dict[str, DrawnCell] = {}
    net, told = None, 0
    for place, part in enumerate(parts):
        if arguments.cache and part.key is not None and (found := _kept(part.key)) is not None:
            by_key[part.key] = done[place] = found
    cached = len(done)
    for place, part in enumerate(parts):
        if place in done:
            continue
        if part.key is not None and part.key in by_key:  # the same once more
            done[place] = by_key[part.key]
            continue
        last = error = None
        try:
            for last in part.steps():
                net = getattr(last, "network", arguments.network)
                yield GridStep(dict(done), len(parts), cached, last, net, whole)
        except NonFiniteError as caught:
            error = caught
        cell = done[place] = _drawn(last, error)
        if part.key is not None:
            by_key[part.key] = cell
            if arguments.cache:
                _keep(part.key, cell)
        told = len(done)
        yield GridStep(dict(done), len(parts), cached, None, net or arguments.network, whole)
    if told == len(parts):
        return
    if net is None:  # such a one as drew them
        precision = next(iter(done.values())).precision
        net = arguments.network.prepared(arguments.settings.device, precision)
    yield GridStep(dict(done), len(parts), cached, None, net, whole)


def _drawn(step: Any, error: NonFiniteError | None) -> DrawnCell:
    """What became of a cell, of its last step."""
    precision = getattr(getattr(step, "network", None), "precision", "fp32")
    if error is not None:
        picture = None if error.image is None else in_levels(images.grid(error.image.cpu())[0])
        return DrawnCell(picture, "not finite", precision)
    dead = getattr(step, "dead", None)
    if dead is not None and bool(dead.all()):
        return DrawnCell(None, "dead", precision)
    return DrawnCell(in_levels(images.grid(step.picture().float().cpu())[0]), "", precision)


# What is kept -------------------------------------------------------------------------------------


def _place(key: str) -> Path:
    return cache_folder() / "grids" / key[:2] / f"{key[:40]}.png"


def _kept(key: str) -> DrawnCell | None:
    found = load_kept(_place(key), [CACHE_FORMAT, key])
    if found is None:
        return None
    picture, note = found
    return DrawnCell(picture, precision=str(note.get("precision", "fp32")))


def _keep(key: str, cell: DrawnCell) -> None:
    if cell.picture is not None and not cell.said:
        store_kept(_place(key), [CACHE_FORMAT, key], cell.picture, {"precision": cell.precision})


# Without files ------------------------------------------------------------------------------------


def check_subject(
    recipe: Recipe,
    network: Network,
    settings: Any,
    objectives: Sequence[Objective],
    layers: Sequence[str],
) -> None:
    """See that a network has what a picture is to be about, given or by default.

    UnknownLayerError, ObjectiveError, SettingsError for what is not there.
    """
    given = Arguments(network, settings, objectives=tuple(objectives), layers=tuple(layers))
    whole = recipe.completed(given)
    for goal in whole.objectives:
        goal.bound(network)
    for name in whole.layers:
        network.resolve(name)


def _parts_to_draw(arguments: Arguments, parts: Parts) -> tuple[PartToDraw, ...]:
    """The cells as calls of the recipe's public function, checked; they are not stored."""
    recipe, function = recipe_named(parts.recipe), public_function(parts.recipe)
    networks: dict[str, Network] = {}
    pictures: dict[str, Any] = {}
    for name in (name for axis in parts.axes for name in axis.values):
        check_name(recipe, name)
    found = []
    for points in itertools.product(*(axis.points() for axis in parts.axes)):
        given: dict[str, Any] = {"network": arguments.network, **parts.settings}
        if "photo" in arguments.images:
            _set_picture(recipe, given, "photo", arguments.images["photo"])
        for name, value in ((n, v) for point in points for n, v in point.items()):
            if name == "network":
                if value not in networks:
                    networks[value] = network_of(value)
                given[name] = networks[value]
            elif recipe.input(name) is not None:
                if value not in pictures:
                    pictures[value] = picture_of(value)
                _set_picture(recipe, given, name, pictures[value])
            else:
                given[_keyword(recipe, name)] = None if value == "none" else value
        start = given.pop("start", None) if recipe.starts else None
        longest = int(given.pop("size", 0)) if recipe.sized else 0
        begun = _draw_start(recipe, given, start, longest)
        ready = function.arguments(**given)
        recipe.check_photo(begun, vars(ready.settings))
        check_subject(recipe, ready.network, ready.settings, ready.objectives, ready.layers)
        found.append(PartToDraw(lambda ready=ready: recipe.run(ready)))
    return tuple(found)


def _set_picture(recipe: Recipe, given: dict[str, Any], role: str, picture: Any) -> None:
    entry = recipe.input(role)
    if entry is None:
        raise SettingsError(f"{recipe.name} takes no {role}, and there is one")
    given[entry.argument] = picture


def _keyword(recipe: Recipe, name: str) -> str:
    """The keyword of the recipe's public function. SettingsError if there is none."""
    subject = recipe.subject
    if subject is not None and subject.parsed and name == "layer":
        return subject.name
    return name


def _draw_start(
    recipe: Recipe, given: dict[str, Any], start: str | None, longest: int
) -> str | None:
    """Draw what a recipe begins with where there is no photo, and say what that is.

    The photo, if there is one, is resized: its longest side is so many px then, unless that is 0.
    """
    entry = next((entry for entry in recipe.inputs if entry.resized), None)
    if entry is None:
        return None
    if entry.argument in given and start in (None, "photo"):
        photo = given[entry.argument]
        if longest:
            to = fit(images.size_of(photo), longest)
            given[entry.argument] = images.resize(photo.float(), to).clamp(0, 1)
    elif recipe.starts:
        width, height = START
        if longest:
            width, height = longest, max(1, round(longest * height / width))
        kind: Any = start or recipe.starts[0]
        seed = int(given.get("seed", 0))
        given[entry.argument] = images.start_picture(kind, (height, width), seed)
        return kind
    return None
