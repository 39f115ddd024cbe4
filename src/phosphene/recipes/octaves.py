"""Show the octaves of a dream: each before and after its steps, and what goes up to the next.

How it is drawn is in `phosphene.explain.octaves`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from phosphene.recipes.base import ImageInput, Recipe, register
from phosphene.recipes.dream import (
    OBJECTIVE,
    OctaveSettings,
    StartSettings,
    network_defaults,
    own_network,
)
from phosphene.recipes.function import RecipeFunction
from phosphene.recipes.sheet import PAGE

AMPLIFY = 4.0


class OctavesSettings(StartSettings, OctaveSettings):
    """Every setting of a page of octaves: those of a dream, and of the page."""

    amplify: float = Field(
        AMPLIFY, gt=0, le=100, description="How many times what goes up is drawn, about mid-grey."
    )
    cell: Literal["auto"] | Annotated[int, Field(ge=32, le=2048)] = Field(
        "auto", description="Longest side of the largest octave on the page, px."
    )


OCTAVES = register(
    Recipe(
        name="octaves",
        settings=OctavesSettings,
        network_defaults=network_defaults,
        own_network=own_network,
        steps="phosphene.explain.octaves:octave_steps",
        result_type="phosphene.explain.octaves:Pyramid",
        step_type="phosphene.explain.octaves:PyramidStep",
        result=lambda step: step.pyramid,
        output="page",
        subject=OBJECTIVE,
        inputs=(
            ImageInput(
                "photo",
                "A picture to dream on.",
                required=True,
                positional=True,
                resized=True,
            ),
        ),
        starts=("sky", "noise"),
        output_name="{photo}-octaves",
        output_shown="PHOTO-octaves.png, or octaves.png",
        output_help=PAGE,
        noun="page",
        heading="What to dream",
        about="A column for each octave, the smallest first, drawn to one scale: the picture "
        "before the octave's steps and after them, and what goes up to the next.",
        examples=(
            "octaves sky.jpg",
            "octaves sky.jpg --objective mixed4c --octaves 4 --octave-scale 1.6 -o pyramid.svg",
        ),
    )
)

octaves = RecipeFunction(
    OCTAVES,
    """
    Dream a picture and keep what each octave does: a `Pyramid`.

    In an octave the picture begins as the photograph at that size with what was dreamt so far added
    to it. It takes its steps, and the photograph is taken away again: what is left goes up to the
    next octave, enlarged (Google's notebook of 2015, https://github.com/google/deepdream).

    Args:
        photo: `(1, 3, H, W)` in [0, 1], or the path of a picture.
        network: through which it is looked at, or its name.
        objective: an `Objective` or its text; by default the preset's for this network.
        **settings: those of `OctavesSettings`, by name: those of a dream, and of the page.

    Returns:
        A `Pyramid`; `page(pyramid)` is it as a picture, and `octaves.steps(…)` gives a
        `PyramidStep` for each step of the dream.

    Raises:
        ImageError: for what is not one picture; and what `dream` raises.

    >>> pyramid = phosphene.octaves("sky.jpg", net, "mixed4c", octaves=2)
    >>> phosphene.page(pyramid).save("pyramid.png")
    """,
)
