"""The settings of a unit's card; help and forms need no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from phosphene.explain.sheet_settings import (
    LEARNING_RATE,
    PICTURE_SIZE,
    STEPS,
    TRANSFORMS,
    PictureSize,
)
from phosphene.recipes.visualize_settings import Positive, VisualizeSettings


class UnitSettings(VisualizeSettings):
    """Every setting of a unit's card: of its drawings those of `visualize`, and of the rest."""

    steps: int = Field(STEPS, ge=1, le=100_000, description="Steps of the optimiser.")
    learning_rate: Literal["auto"] | Positive = Field("auto", description=LEARNING_RATE)
    transforms: Literal["auto", "robust", "gentle", "crops", "none"] = Field(
        "auto", description=TRANSFORMS
    )
    batch: int = Field(16, ge=1, le=4096, description="Pictures drawn at once, at most.")
    seeds: int = Field(3, ge=1, le=12, description="Drawings, each from a seed of its own.")
    shown: int = Field(6, ge=1, le=48, description="Photographs of each kind, most and least.")
    rank: Literal["mean", "peak"] = Field(
        "mean",
        description="What a photograph is ranked by: the unit's mean over positions, or its "
        "strongest one.",
    )
    picture_size: PictureSize = Field("auto", description=PICTURE_SIZE)
