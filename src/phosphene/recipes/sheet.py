"""Draw every channel of a layer on one page.

How it is drawn is in `phosphene.explain.sheets`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from phosphene.errors import SettingsError
from phosphene.recipes.base import ImageInput, Recipe, Subject, register
from phosphene.recipes.function import RecipeFunction
from phosphene.recipes.visualize import MOVED, AscentSettings, Positive
from phosphene.settings import Transforms

# With twice the learning rate as many steps as give strong colours in every layer of the bundled
# networks; visualize takes 256 to the same end.
STEPS = 96
LEARNING_RATE = "Of the optimiser; auto is twice that of visualize for fourier, else the same."
TRANSFORMS = f"{MOVED}; auto is gentle for layers that see little, else as in visualize."
PictureSize = Literal["auto"] | Annotated[int, Field(ge=1, le=4096)]
PICTURE_SIZE = (
    "Shorter side at which the network is shown a photograph, px; auto is the size that it knows."
)
PAGE = ".png, .jpg, .webp, .tif or .svg; the recipe lies inside."


def parse_channels(text: str) -> list[int]:
    """The numbers of "0-63,70"; SettingsError if it says anything else."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})\s*(?:[-–]\s*(\d{1,9})\s*)?", part)
        if match is None:
            raise SettingsError(f"channels {text!r}: expected numbers and ranges, such as 0-63,70")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise SettingsError(f"channels {text!r}: {first}-{last} goes backwards")
        if last - first > 1_000_000:
            raise SettingsError(f"channels {text!r}: no layer has so many")
        found += range(first, last + 1)
    return found


def _read_channels(given: Any) -> Any:
    try:
        return parse_channels(given) if isinstance(given, str) else given
    except SettingsError as error:
        raise ValueError(str(error).removeprefix("channels ")) from None


Channels = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_read_channels)]


class CellSettings(AscentSettings):
    """Of what is drawn on pages: as `visualize` does, in fewer steps."""

    steps: int = Field(STEPS, ge=1, le=100_000, description="Steps of the optimiser.")
    learning_rate: Literal["auto"] | Positive = Field("auto", description=LEARNING_RATE)
    transforms: Transforms = Field("auto", description=TRANSFORMS)
    batch: int = Field(16, ge=1, le=4096, description="Pictures drawn at once, at most.")


class SheetSettings(CellSettings):
    """Every setting of a sheet: of each cell those of `visualize`, and of the page."""

    columns: Literal["auto"] | Annotated[int, Field(ge=1, le=1000)] = Field(
        "auto", description="Cells in a row."
    )
    cell: Literal["auto"] | Annotated[int, Field(ge=8, le=4096)] = Field(
        "auto", description="Longest side of a cell on the page, px; auto is as drawn."
    )
    picture_size: PictureSize = Field("auto", description=PICTURE_SIZE)
    channels: Channels | None = Field(
        None,
        description="Numbers and ranges, such as 0-63,70.",
        json_schema_extra={"absent": None, "keyed": True, "group": "what", "shown": "all"},
    )
    top: int | None = Field(
        None,
        ge=1,
        description="Three groups of so many channels instead, as a photo excites them.",
        json_schema_extra={"absent": None, "keyed": True},
    )

    @model_validator(mode="after")
    def _chosen_once(self) -> SheetSettings:
        if self.channels is not None and self.top is not None:
            raise ValueError("channels and top: either chooses the channels, not both")
        return self


SHEET = register(
    Recipe(
        name="sheet",
        settings=SheetSettings,
        resampled=True,
        steps="phosphene.explain.sheets:sheet_steps",
        result_type="phosphene.explain.sheets:Sheet",
        step_type="phosphene.explain.sheets:SheetStep",
        result=lambda step: step.sheet(),
        output="page",
        subject=Subject("layer", "Its name: see phosphene layers.", positional=True),
        inputs=(
            ImageInput(
                "photo",
                "A number N and a photo: instead, three groups of N channels, by their means over "
                "positions when the network is shown the photo: strong are the greatest, weak the "
                "least, and average those in the middle of the order.",
                flag="--top",
                with_setting="top",
            ),
        ),
        caches=True,
        network_positional=True,
        positional_settings=("channels",),
        output_name="{network}-{layer}",
        output_shown="NETWORK-LAYER.png",
        output_help=PAGE,
        about="What is drawn is kept, each cell by itself: a sheet that was interrupted goes on "
        "where it was, and a second look comes at once.",
        examples=(
            "sheet dreamnet mixed4c",
            "sheet dreamnet-robust logits --columns 14 -o classes.svg",
            "sheet dreamnet mixed4c --top 8 lion.jpg",
        ),
    )
)

sheet = RecipeFunction(
    SHEET,
    """
    Draw the channels of a layer, all or some, each as `visualize` does alone: a `Sheet`.

    Args:
        network: whose layer it is.
        layer: its name.
        channels: which, as numbers or as "0-63,70"; all of them by default.
        photo, top: instead, those that a photograph `(1, 3, H, W)` excites, in three groups of
            `top`: by their means over positions `strong` are the greatest, greatest first, `weak`
            the least, ending with the very least, and `average` those in the middle of the order.
            Of equal ones the lower number comes first.
        keep: whether drawn cells are stored in the cache folder, and taken from there.
        **settings: those of `SheetSettings`, by name. A layer that sees less than half of what
            `visualize` would draw is drawn smaller, and moved less.

    Returns:
        A `Sheet`; `page(sheet)` is it as a picture, and `sheet.steps(…)` gives a `SheetStep` for
        each step; what is done when you stop is stored.

    Raises:
        ObjectiveError: for channels that are not there; and what `visualize` raises.

    >>> sheet = phosphene.sheet(net, "mixed4c", "0-3", size=32, steps=2)
    >>> phosphene.page(sheet).save("mixed4c.png")
    """,
)
