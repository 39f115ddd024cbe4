"""The settings of a sheet of channels; help and forms need no torch."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field

from phosphene.errors import SettingsError
from phosphene.recipes.visualize_settings import Positive, VisualizeSettings

# With twice the learning rate as many steps as give strong colours in every layer of the bundled
# networks; visualize takes 256 to the same end.
STEPS = 96
LEARNING_RATE = "Of the optimiser; auto is twice that of visualize for fourier, else the same."
TRANSFORMS = (
    "How the picture is moved before the network sees it; auto is gentle for layers that see "
    "little, else as in visualize."
)
PictureSize = Literal["auto"] | Annotated[int, Field(ge=1, le=4096)]
PICTURE_SIZE = (
    "Shorter side at which the network is shown a photograph, px; auto is the size that it knows."
)


class SheetSettings(VisualizeSettings):
    """Every setting of a sheet: of each cell those of `visualize`, and of the page."""

    steps: int = Field(STEPS, ge=1, le=100_000, description="Steps of the optimiser.")
    learning_rate: Literal["auto"] | Positive = Field("auto", description=LEARNING_RATE)
    transforms: Literal["auto", "robust", "gentle", "crops", "none"] = Field(
        "auto", description=TRANSFORMS
    )
    batch: int = Field(16, ge=1, le=4096, description="Cells drawn at once, at most.")
    columns: Literal["auto"] | Annotated[int, Field(ge=1, le=1000)] = Field(
        "auto", description="Cells in a row."
    )
    cell: Literal["auto"] | Annotated[int, Field(ge=8, le=4096)] = Field(
        "auto", description="Longest side of a cell on the page, px; auto is as drawn."
    )
    picture_size: PictureSize = Field("auto", description=PICTURE_SIZE)


def drawing(settings: VisualizeSettings) -> VisualizeSettings:
    """The settings by which `visualize` draws one of its pictures."""
    given: dict[str, Any] = {n: getattr(settings, n) for n in VisualizeSettings.model_fields}
    given["batch"] = 1
    return VisualizeSettings(**given)


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
