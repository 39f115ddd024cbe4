"""What the settings of recipes for films have in common, and how rates are written."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from phosphene.errors import SettingsError
from phosphene.recipes.dream import OctaveSettings
from phosphene.recipes.dream import network_defaults as dream_defaults
from phosphene.recipes.presets import preset
from phosphene.settings import KeyTexts

FASTEST = 1000  # frames a second

Share = Annotated[float, Field(ge=0, le=1)]

FILES = ".mp4, .mkv, .webm, .mov, or .gif or .webp for a short one; the recipe lies inside."
"""What the help says of a film's output."""


def read_rate(given: Any) -> Any:
    """A frame rate as text in canonical form: `30`, `30000/1001`, `23.976`.

    ValueError for what is no rate.
    """
    if isinstance(given, bool) or not isinstance(given, str | int | float | Fraction):
        return given
    try:
        rate = Fraction(str(given).strip())
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= FASTEST:
        raise ValueError(
            f"a rate above 0 and up to {FASTEST} frames a second was expected, such as 30 or "
            "30000/1001"
        )
    return str(rate)


FrameRate = Annotated[str, BeforeValidator(read_rate), Field(examples=["30", "30000/1001"])]
"""Frames a second, as a text that is exact."""


def per_second(text: str, fps: Fraction) -> float:
    """A factor such as `1.5/s`, or `1.05/f` a frame, as that of a second: `1.05 ** fps`.

    ValueError for what is none.
    """
    found = re.fullmatch(r"\s*([0-9.]+(?:e-?\d+)?)\s*(?:/\s*([sf]))?\s*", text)
    try:
        value = float(found[1]) if found else math.nan
        value = value ** float(fps) if found and found[2] == "f" else value
    except (ValueError, OverflowError):
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError("expected a factor a second or a frame, such as 1.5/s or 1.05/f")
    return value


def degrees_per_second(text: str, fps: Fraction) -> float:
    """An angle such as `10/s`, or `.5/f` a frame, as that of a second. ValueError for none."""
    found = re.fullmatch(r"\s*([+-]?[0-9.]+)\s*(?:/\s*([sf]))?\s*", text)
    try:
        value = float(found[1]) if found else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError("expected degrees a second or a frame, such as 10/s or .5/f")
    return value * float(fps) if found and found[2] == "f" else value


Codec = Annotated[
    str | None,
    Field(
        description="How the film is encoded: h264, hevc, av1, vp9, ffv1, and others that PyAV "
        "has; by default by the file's suffix.",
        json_schema_extra={"of_files_alone": True, "absent": None, "shown": "h264"},
    ),
]
"""The codec that a film is written with."""

Crf = Annotated[
    int | None,
    Field(
        ge=0,
        le=63,
        description="Quality of the encoding; less is better and larger.",
        json_schema_extra={"of_files_alone": True, "absent": None, "shown": "16"},
    ),
]
"""The quality that a film is written with."""


class FrameSettings(OctaveSettings):
    """What every recipe for films can be told besides what a dream can."""

    @classmethod
    def of_preset(cls, name: str) -> dict[str, Any]:
        """What a preset fills in. Steps are a frame's, few, unless somebody published them."""
        found = super().of_preset(name)
        published = preset(name).published
        return {k: v for k, v in found.items() if published or k not in cls.dialled}

    steps: int = Field(
        3,
        ge=1,
        le=100_000,
        description="Ascent steps in each octave of a frame.",
        json_schema_extra={"animatable": True, "alike": False},
    )
    keyframes: KeyTexts = Field(
        (),
        description='A setting that changes with time, such as "blend = 0s: 0; 4s: 1 ease". May '
        "be given several times.",
        json_schema_extra={"flag": "key", "shown": "none"},
    )
    codec: Codec = None
    crf: Crf = None


def network_defaults(
    model: type[FrameSettings],
) -> Callable[[Mapping[str, Any], str, str | None], dict[str, Any]]:
    """`Recipe.network_defaults` of a film: a dream's, but for the steps, which are few."""

    def defaults(
        given: Mapping[str, Any], architecture: str, start: str | None = None
    ) -> dict[str, Any]:
        name = given.get("preset", "phosphene")
        try:
            own = model.of_preset(name)
        except SettingsError:
            return {}  # the model tells what is wrong with it
        dreamt, for_all = dream_defaults(given, architecture), preset(name).settings
        by_network = {k: v for k, v in dreamt.items() if k not in for_all or for_all[k] != v}
        return own | {k: v for k, v in by_network.items() if k not in model.dialled}

    return defaults
