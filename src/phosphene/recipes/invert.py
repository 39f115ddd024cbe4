"""Draw what a layer still knows of a photo."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from phosphene.recipes.base import Arguments, ImageInput, Recipe, Subject, register
from phosphene.recipes.function import RecipeFunction
from phosphene.recipes.visualize import SEVERAL, PhotoAscentSettings

if TYPE_CHECKING:
    from phosphene.recipes.steps.visualize import VisualizeStep


class InvertSettings(PhotoAscentSettings):
    """Every setting of an inversion."""

    tv: float = Field(0.1, ge=0, le=1e4, description="Weight against roughness.")


def invert_steps(arguments: Arguments) -> Iterator[VisualizeStep]:
    """An inversion's steps: see `phosphene.invert`."""
    from phosphene.recipes.steps.visualize import (
        ascend_objectives,
        relative_content,
        shaped_like,
        shown_to,
    )

    network, layers = arguments.network, arguments.layers
    settings = shaped_like(arguments.images["photo"], arguments.settings)
    photo = shown_to(network, layers, arguments.images["photo"], settings.size)
    goals = [relative_content(network, name, photo) for name in layers]
    return ascend_objectives(network, goals, settings, state=arguments.state)


INVERT = register(
    Recipe(
        name="invert",
        settings=InvertSettings,
        resampled=True,
        steps=invert_steps,
        step_type="phosphene.recipes.steps.visualize:VisualizeStep",
        subject=Subject(
            "layers",
            "Its name: see phosphene layers. May be given several times; each gets a picture.",
            default="phosphene.recipes.steps.stages:middle_layer",
            shown_default="one of things, not of edges",
        ),
        inputs=(
            ImageInput(
                "photo", "A JPEG, PNG, WebP, TIFF, BMP or GIF.", required=True, positional=True
            ),
        ),
        several=True,
        resumes=True,
        output_name="{photo}-invert",
        output_shown="PHOTO-invert.png",
        output_help=SEVERAL + "layer.",
        about="From its activations alone.",
        examples=(
            "invert lion.jpg",
            "invert lion.jpg --layer conv2 --layer mixed4d --layer mixed5b",
        ),
    )
)

invert = RecipeFunction(
    INVERT,
    """
    Draw from noise a picture with a photo's activations: `(N, 3, H, W)` in [0, 1].

    Args:
        photo: `(1, 3, H, W)` in [0, 1]; its aspect ratio is kept.
        network: whose layer it is.
        layer: a layer's name, or several, each of which gets a picture; by default one of things.
        **settings: those of `InvertSettings`, by name.

    The score is minus the squared distance, relative to the photo's own activations: −1 for nothing
    in common, 0 for the same. Mahendran and Vedaldi 2015, "Understanding Deep Image Representations
    by Inverting Them".
    """,
)
