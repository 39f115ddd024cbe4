"""The settings of `dream`, apart from it: help and a form need them, and need no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from phosphene.errors import SettingsError
from phosphene.recipes.presets import PRESETS, preset
from phosphene.runtime.memory import parse_memory
from phosphene.settings import Settings

# As in gradients.py and pyramid.py, which import torch; a test holds them equal.
Normalisation = Literal["mean", "std", "norm", "rms", "none"]
Rounding = Literal["round", "floor", "chain"]
Resampling = Literal["antialias", "bilinear", "corners"]
EPSILON = 1e-20
MOST_OCTAVES = 40

Fraction = Annotated[float, Field(ge=0, le=1)]


class DreamSettings(Settings):
    """Every setting of a dream. A preset fills in what is not given."""

    preset: str = Field("phosphene", description=f"One of {', '.join(PRESETS)}.")
    octaves: Literal["auto"] | Annotated[int, Field(ge=1, le=MOST_OCTAVES)] = Field(
        "auto", description="Sizes to dream at; auto follows the picture's size."
    )
    octave_scale: float = Field(
        1.4, gt=1, le=10, description="Each octave is so many times the one before."
    )
    steps: int = Field(10, ge=1, le=100_000, description="Ascent steps in each octave.")
    step_size: float = Field(
        0.012,
        gt=0,
        le=100,
        description="Step, where black to white is 1, of the normalised gradient.",
    )
    jitter: Annotated[int, Field(ge=0)] | Literal["half"] = Field(
        32, description="Largest random shift of each step, px, or half the picture."
    )
    gradient: Normalisation = Field(
        "rms", description="Divide the gradient by its mean size, std, l2 norm or rms."
    )
    epsilon: float = Field(EPSILON, gt=0, le=1, description="Least divisor of the gradient.")
    smooth: float = Field(
        0.5, ge=0, le=100, description="Gaussian blur of the gradient, sigma in px."
    )
    laplacian: int = Field(
        0, ge=0, le=10, description="Octave bands of the gradient brought to equal strength."
    )
    clip: float | None = Field(None, gt=0, description="Cut the normalised gradient beyond this.")
    stop_above: float | None = Field(
        None, description="End an octave once the score is above this."
    )
    clamp: Literal["off", "steps", "always"] = Field(
        "steps",
        description="Keep values in [0, 1]: after every step; or when detail is added, too.",
    )
    values: Literal["image", "network"] = Field(
        "image", description="Units of a step: the image's, or the network's normalised ones."
    )
    octave_rounding: Rounding = Field("round", description="How octave sizes are rounded.")
    resampling: Resampling = Field("antialias", description="How pictures travel between octaves.")
    detail: Literal["before", "after"] = Field(
        "before", description="Put the photograph's own detail back before or after an ascent."
    )
    keep_colors: bool = Field(False, description="Keep the photograph's colours.")
    blend: Fraction = Field(1.0, description="Share of the dream in the result; 0 is the photo.")
    seed: int = Field(0, ge=0, lt=2**63, description="Of every random choice.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    precision: Literal["auto", "fp32", "bf16", "fp64"] = Field(
        "auto", description="auto takes bf16 where it is fast and its gradient agrees."
    )
    tile: Literal["auto", "off", "approximate"] | Annotated[int, Field(ge=1)] = Field(
        "auto",
        description="Tiles, where the picture is more than memory takes, or of so many px a side; "
        "approximate where they cannot be exact.",
    )
    memory: str | None = Field(
        None, description="Most memory to use, such as 4G; what the machine has unless given."
    )

    @field_validator("memory")
    @classmethod
    def _is_an_amount(cls, given: str | None) -> str | None:
        if given is not None:
            try:
                parse_memory(given)
            except SettingsError as error:
                raise ValueError(str(error).removeprefix("memory: ")) from None
        return given

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        try:
            chosen = preset(given.get("preset", "phosphene"))
        except SettingsError as error:
            raise ValueError(str(error)) from None
        return {**chosen.settings, **given}
