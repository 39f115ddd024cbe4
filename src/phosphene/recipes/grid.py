"""Set any one or two things of a recipe against each other, on one page.

How its cells are drawn is in `phosphene.explain.grids`; `phosphene.jobs.expand` makes a request for
each of them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, field_validator, model_validator

from phosphene.errors import ObjectiveError, RecipeError, SettingsError, suggest
from phosphene.objectives.text import quoted
from phosphene.recipes.axes import Axis, axis_of
from phosphene.recipes.base import ImageInput, Recipe, recipe_named, recipe_names, register
from phosphene.recipes.function import RecipeFunction
from phosphene.recipes.sheet import PAGE
from phosphene.settings import Settings

ALL = ("all",)
# Whose values are called what they are, without their name.
CALLED = ("objective", "layer", "network", "preset", "photo", "mask", "painting")


class Parts(NamedTuple):
    """What a recipe is put together of: requests of another, which differ along axes.

    recipe: its name. settings: those that all have in common. axes: as `expand` takes them; the
    last two of these are the rows and the columns.
    """

    recipe: str
    settings: Mapping[str, Any]
    axes: tuple[Axis, ...]


def _read_axis(given: Any) -> Any:
    if given is None:
        return None
    try:
        return axis_of(given).values
    except (SettingsError, ObjectiveError) as error:
        raise ValueError(str(error)) from None


def _read_layers(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    names = [part.strip() for part in given.split(",")]
    if not all(names):
        raise ValueError("expected all, or names, such as mixed3a,mixed4c")
    return names


AxisValues = Annotated[dict[str, tuple[Any, ...]] | None, BeforeValidator(_read_axis)]
WHAT: dict[str, Any] = {"group": "what"}


class GridSettings(Settings):
    """Every setting of a grid: what its cells are, and the page."""

    of: str = Field(
        "dream",
        description="The recipe that draws the cells: any that gives a picture.",
        json_schema_extra=WHAT,
    )
    across: AxisValues = Field(
        None,
        description='What changes from column to column, such as "objective=mixed3a; mixed4c": an '
        "objective, a layer, network, preset, photo, start, size or any setting of the recipe. 0-9 "
        'is each of these numbers; "steps=5; 10 & jitter=0; 32" changes both together',
        json_schema_extra={**WHAT, "shown": "nothing"},
    )
    down: AxisValues = Field(
        None,
        description="What changes from row to row, likewise; without it, one row is wrapped",
        json_schema_extra={**WHAT, "shown": "nothing"},
    )
    layers: Annotated[tuple[str, ...], BeforeValidator(_read_layers)] = Field(
        (),
        description="Across: whole layers, such as mixed3a,mixed4c, or all for a sweep over the "
        "network's",
        json_schema_extra={**WHAT, "shown": "none"},
    )
    random_channels: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Across: so many channels of a layer, by chance; with --layer",
        json_schema_extra=WHAT,
    )
    layer: str | None = Field(None, description="Whose channels these are.", json_schema_extra=WHAT)
    set: tuple[str, ...] = Field(
        (),
        description="NAME=VALUE, what all cells have in common, such as steps=20 or "
        "objective=mixed4c. May be given several times",
        json_schema_extra=WHAT,
    )
    columns: Literal["auto"] | Annotated[int, Field(ge=1, le=1000)] = Field(
        "auto", description="Cells in a row, where there is only one to wrap."
    )
    cell: Literal["auto"] | Annotated[int, Field(ge=16, le=4096)] = Field(
        "auto", description="Longest side of a cell on the page, px."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Of every random choice.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    precision: Literal["auto", "fp32", "bf16", "fp64"] = Field(
        "auto", description="auto takes bf16 where it is fast and its gradient agrees."
    )

    @field_validator("of")
    @classmethod
    def _gives_a_picture(cls, given: str) -> str:
        try:
            if recipe_named(given).output == "image":
                return given
        except RecipeError:
            pass
        there = [name for name in recipe_names() if _draws(name)]
        raise ValueError(f"no recipe for pictures{suggest(given, there, most=len(there))}")

    @field_validator("set")
    @classmethod
    def _are_single(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for text in given:
            axis = Axis(_read_axis(text))
            if len(axis) != 1:
                raise ValueError(f"{text!r} has {len(axis)} values; one each was expected")
        return given

    @model_validator(mode="after")
    def _has_one_across(self) -> GridSettings:
        ways = {
            "across": self.across is not None,
            "layers": bool(self.layers),
            "random_channels": self.random_channels is not None,
        }
        named = [name for name, given in ways.items() if given]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)}: one says what changes across")
        if not named and self.down is None:
            raise ValueError('nothing changes: say what, such as across "steps=5; 10; 20"')
        if (self.random_channels is None) != (self.layer is None):
            raise ValueError("random_channels and layer go together: how many, and of which")
        return self

    def parts(self, network: Any = None) -> Parts:
        """What the cells are; without a network, what it alone knows is left out.

        SettingsError for more channels than a layer has; what `network.layer` raises.
        """
        recipe = recipe_named(self.of)
        own = {"seed": self.seed, "device": self.device, "precision": self.precision}
        known = {n: v for n, v in own.items() if n in recipe.settings.model_fields and v != "auto"}
        axes = [Axis(_read_axis(text)) for text in self.set]
        axes += [axis for axis in (self.rows(), self.across_of(network)) if axis is not None]
        return Parts(self.of, known, tuple(axes))

    def rows(self) -> Axis | None:
        """What changes from row to row."""
        return None if self.down is None else Axis(self.down)

    def across_of(self, network: Any = None) -> Axis | None:
        """What changes from column to column, through that network."""
        if self.across is not None:
            return Axis(self.across)
        if self.layers:
            names = self.layers
            if names == ALL:
                if network is None:
                    return None
                from phosphene.recipes.steps.stages import sweep

                names = tuple(sweep(network))
            return Axis({"objective": [_named(name) for name in names]})
        if self.layer is None or network is None:
            return None
        return Axis({"objective": self._channels(network)})

    def _channels(self, network: Any) -> list[str]:
        assert self.layer is not None
        assert self.random_channels is not None
        found = network.layers[network.resolve(self.layer)]
        count = found.channels or 0
        if self.random_channels > count:
            raise SettingsError(
                f"random_channels is {self.random_channels}; {found.name} has {count} channels"
            )
        chosen = sorted(random.Random(self.seed).sample(range(count), self.random_channels))
        return [f"{_named(found.name)}:{channel}" for channel in chosen]

    def renamed(self, rename: Callable[[str, str], str]) -> GridSettings:
        """The same with `rename(name, value)` for every value of an axis."""

        def changed(values: Mapping[str, Any] | None) -> dict[str, tuple[str, ...]] | None:
            if values is None:
                return None
            return {name: tuple(rename(name, v) for v in given) for name, given in values.items()}

        fixed = []
        for text in self.set:
            for name, (value,) in (changed(_read_axis(text)) or {}).items():
                fixed.append(f"{name}={value}")
        update = {"across": changed(self.across), "down": changed(self.down), "set": tuple(fixed)}
        return self.model_copy(update=update)


def _named(layer: str) -> str:
    """A layer's name as an objective."""
    return layer if re.fullmatch(r"[A-Za-z_][\w.]*", layer) else quoted(layer)


def _draws(name: str) -> bool:
    try:
        return recipe_named(name).output == "image"
    except RecipeError:  # one that is being declared
        return False


def heads(axis: Axis | None) -> list[str]:
    """What stands over, or beside, each place along an axis."""
    if axis is None:
        return []
    return [", ".join(_said(point)) for point in axis.points()]


def _said(point: Mapping[str, Any]) -> Iterator[str]:
    for name, value in point.items():
        if name not in CALLED:
            yield f"{name.replace('_', ' ')} {value}"
        elif "/" in value or "\\" in value:
            yield PurePath(value.replace("\\", "/")).name
        else:
            yield value


GRID = register(
    Recipe(
        name="grid",
        settings=GridSettings,
        steps="phosphene.explain.grids:grid_steps",
        result_type="phosphene.explain.grids:Grid",
        step_type="phosphene.explain.grids:GridStep",
        result=lambda step: step.grid(),
        output="page",
        parts=True,
        inputs=(
            ImageInput(
                "photo",
                "A JPEG, PNG, WebP, TIFF, BMP or GIF, of recipes that take one.",
                positional=True,
                resized=True,
                leading=True,
            ),
        ),
        caches=True,
        output_name="{photo}-grid",
        output_shown="PHOTO-grid.png, or grid.png",
        output_help=PAGE,
        noun="page",
        heading="What to compare",
        about="What is drawn is kept, each cell by itself: a grid that was interrupted goes on "
        "where it was, and a second look comes at once.",
        examples=(
            'grid sky.jpg --across "layer=mixed3a; mixed4c" --down "steps=5; 20"',
            "grid sky.jpg --layers all --set steps=20",
            "grid --of visualize --random-channels 12 --layer mixed4c",
            'grid --across "photo=sky.jpg; lake.jpg" --down "preset=keras; inception"',
        ),
    )
)

grid = RecipeFunction(
    GRID,
    """
    Set any one or two things of a recipe against each other: a `Grid`.

    Args:
        photo: `(1, 3, H, W)` in [0, 1], of recipes that take one; or None.
        network: through which it is looked at, or its name.
        of: the recipe that draws the cells, by name: any that gives a picture.
        across, down: names with their values, such as `{"steps": [5, 10]}`, or "steps=5; 10": what
            changes from column to column, and from row to row. Several names change together.
        layers: instead of `across`, names of layers, or "all".
        random_channels, layer: instead of `across`, so many channels of a layer, by `seed`.
        set: texts such as "steps=10": what all cells have in common.
        **settings: those of `GridSettings`, by name.

    Returns:
        A `Grid`; `grid.steps(…)` gives a `GridStep` for each step on the way. Cells are kept for
        the next time where requests draw them, as on the command line, and not here.

    Raises:
        SettingsError: for a setting that the recipe does not have, or a value that it does not
            take; ObjectiveError, UnknownLayerError: for what is not there. All before the first
            cell is drawn.

    >>> axes = {"across": {"objective": ["mixed3a", "mixed4c"]}, "down": "steps=1; 2"}
    >>> phosphene.page(phosphene.grid(photo, net, **axes, set=["octaves=1"])).save("grid.png")
    """,
)
