"""Draw what a layer sees in a photo, larger than life."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from phosphene.recipes.base import Arguments, ImageInput, Recipe, Subject, register
from phosphene.recipes.function import RecipeFunction
from phosphene.recipes.visualize import SEVERAL, PhotoAscentSettings

if TYPE_CHECKING:
    from phosphene.recipes.steps.visualize import VisualizeStep


class CaricatureSettings(PhotoAscentSettings):
    """Every setting of a caricature."""

    power: float = Field(
        1.0, ge=0, le=10, description="Of the cosine: higher is nearer to the photo, less strong."
    )


def caricature_steps(arguments: Arguments) -> Iterator[VisualizeStep]:
    """A caricature's steps: see `phosphene.caricature`."""
    from phosphene import objectives as obj
    from phosphene.recipes.steps.visualize import ascend_objectives, shaped_like, shown_to

    network, layers = arguments.network, arguments.layers
    settings = shaped_like(arguments.images["photo"], arguments.settings)
    photo = shown_to(network, layers, arguments.images["photo"], settings.size)
    goals = [obj.caricature(name, photo, cossim_pow=settings.power) for name in layers]
    return ascend_objectives(network, goals, settings, state=arguments.state)


CARICATURE = register(
    Recipe(
        name="caricature",
        settings=CaricatureSettings,
        resampled=True,
        steps=caricature_steps,
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
        output_name="{photo}-caricature",
        output_shown="PHOTO-caricature.png",
        output_help=SEVERAL + "layer.",
        examples=("caricature lion.jpg", "caricature lion.jpg --layer mixed3b --layer mixed4d"),
    )
)

caricature = RecipeFunction(
    CARICATURE,
    """
    Draw from noise what a layer sees in a photo, exaggerated: `(N, 3, H, W)` in [0, 1].

    Args:
        photo: `(1, 3, H, W)` in [0, 1]; its aspect ratio is kept.
        network: whose layer it is.
        layer: a layer's name, or several, each of which gets a picture; by default one of things.
        **settings: those of `CaricatureSettings`, by name. See `objectives.caricature`.
    """,
)
