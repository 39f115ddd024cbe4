"""Draw the card of a unit: what it draws, and which photos excite it most and least.

How it is drawn is in `phosphene.explain.units`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from phosphene.recipes.base import ImageInput, Recipe, Subject, register
from phosphene.recipes.function import RecipeFunction
from phosphene.recipes.sheet import PICTURE_SIZE, CellSettings, PictureSize


class UnitSettings(CellSettings):
    """Every setting of a unit's card: of its drawings those of `visualize`, and of the rest."""

    seeds: int = Field(3, ge=1, le=12, description="Drawings, each from a seed of its own.")
    shown: int = Field(6, ge=1, le=48, description="Photographs of each kind, most and least.")
    rank: Literal["mean", "peak"] = Field(
        "mean",
        description="What a photograph is ranked by: the unit's mean over positions, or its "
        "strongest one.",
    )
    picture_size: PictureSize = Field("auto", description=PICTURE_SIZE)


UNIT = register(
    Recipe(
        name="unit",
        settings=UnitSettings,
        resampled=True,
        steps="phosphene.explain.units:unit_steps",
        result_type="phosphene.explain.units:Card",
        step_type="phosphene.explain.units:CardStep",
        result=lambda step: step.card,
        output="page",
        subject=Subject(
            "unit",
            "LAYER:CHANNEL, such as mixed4c:42; of the class scores also logits:dumbbell, or "
            "dumbbell.",
            positional=True,
        ),
        inputs=(
            ImageInput(
                "pictures",
                "A folder of photos; it is looked through with all its folders.",
                kind="folder",
            ),
        ),
        caches=True,
        network_positional=True,
        output_name="{network}-{unit}",
        output_shown="NETWORK-UNIT.png",
        output_help=".png, .jpg, .webp, .tif or .svg; or .json, of all but the pictures. The "
        "recipe lies inside.",
        about="A box around a photo's strongest position is what that position sees, and a ring "
        "its centre; where there is no box it sees all of the photo.",
        examples=(
            "unit dreamnet mixed4c:42 --pictures photos",
            "unit dreamnet-robust dumbbell --pictures photos -o dumbbell.svg --data dumbbell.json",
        ),
    )
)

unit_card = RecipeFunction(
    UNIT,
    """
    Look at one unit from four sides: a `Card`.

    Args:
        network: whose unit it is.
        unit: "mixed4c:42" or ("mixed4c", 42), the layer in quotes where an objective wants them;
            of the class scores also the class, "dalmatian" or "logits:dalmatian".
        pictures: a folder, looked through with all its folders, or files. The photographs of it
            that excite the unit most and least are told, with the place in them that does so most,
            and how strongly each of them does. Without it the card has the drawings alone.
        keep: whether drawings are stored in the cache folder, and taken from there.
        **settings: those of `UnitSettings`, by name.

    Returns:
        A `Card`; `page(card)` is it as a picture, and `unit_card.steps(…)` gives a `CardStep` for
        each step; drawings that are done when you stop are stored.

    Raises:
        UnknownLayerError, ObjectiveError: for a unit that is not there.
        ImageError: for a folder without a readable picture; and what `visualize` raises.

    >>> card = phosphene.unit_card(net, "mixed4c:42", pictures="photos", size=32, steps=2)
    >>> phosphene.page(card).save("card.png")
    """,
)
