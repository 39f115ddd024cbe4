"""The settings of a unit's card; help and forms need no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from phosphene.explain.sheet_settings import PICTURE_SIZE, PictureSize
from phosphene.recipes.visualize_settings import VisualizeSettings


class UnitSettings(VisualizeSettings):
    """Every setting of a unit's card: of its drawings those of `visualize`, and of the rest."""

    steps: int = Field(128, ge=1, le=100_000, description="Steps of the optimiser.")
    batch: int = Field(16, ge=1, le=4096, description="Pictures drawn at once, at most.")
    seeds: int = Field(3, ge=1, le=12, description="Drawings, each from a seed of its own.")
    shown: int = Field(6, ge=1, le=48, description="Photographs of each kind, most and least.")
    rank: Literal["mean", "peak"] = Field(
        "mean",
        description="What a photograph is ranked by: the unit's mean over positions, or its "
        "strongest one.",
    )
    picture_size: PictureSize = Field("auto", description=PICTURE_SIZE)
