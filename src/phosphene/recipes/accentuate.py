"""Show in a photo what excites a unit there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from phosphene.recipes.base import Arguments, ImageInput, Recipe, Subject, register
from phosphene.recipes.function import RecipeFunction
from phosphene.recipes.visualize import AscentSettings

if TYPE_CHECKING:
    from phosphene.recipes.steps.visualize import VisualizeStep


class AccentuateSettings(AscentSettings):
    """Every setting of an accentuation."""

    leash: float = Field(
        10.0, ge=0, le=1e4, description="How strongly the picture is held to the photo."
    )
    leash_layer: str = Field(
        "auto", description="The earlier layer that holds it; auto is one of fine, local features."
    )
    steps: int = Field(100, ge=1, le=100_000, description="Steps of the optimiser.")


def accentuate_steps(arguments: Arguments) -> Iterator[VisualizeStep]:
    """An accentuation's steps: see `phosphene.accentuate`."""
    from phosphene import image as images
    from phosphene import objectives as obj
    from phosphene.recipes.steps import framing, stages
    from phosphene.recipes.steps import visualize as loop

    network, unit, s = arguments.network, arguments.objectives[0], arguments.settings
    photo = arguments.images["photo"]
    side = framing.auto_size(network.input_size) if s.size == "auto" else s.size
    photo = images.resize(photo, images.fit(images.size_of(photo), side)).clamp(0, 1)
    layers = [layer for layer in unit.bound(network).layers if layer != obj.IMAGE]
    leash = s.leash_layer if s.leash_layer != "auto" else stages.early(network, layers)
    shown = loop.shown_to(network, [leash, *layers], photo, side)
    strength = max((loop.rms_activation(network, layer, shown) for layer in layers), default=1.0)
    goal = [(1 / strength, unit)]
    if s.leash:
        goal.append((1.0, loop.relative_content(network, leash, shown, s.leash)))
    state = arguments.state
    return loop.ascend_objectives(network, [obj.combine(goal)], s, start=photo, state=state)


ACCENTUATE = register(
    Recipe(
        name="accentuate",
        settings=AccentuateSettings,
        resampled=True,
        steps=accentuate_steps,
        step_type="phosphene.recipes.steps.visualize:VisualizeStep",
        subject=Subject(
            "objective",
            "The unit, such as mixed4c:12 or logits:dumbbell: see phosphene layers and objectives.",
            positional=True,
        ),
        inputs=(
            ImageInput(
                "photo",
                "A JPEG, PNG, WebP, TIFF, BMP or GIF. Transparency is kept.",
                required=True,
                positional=True,
                alpha=True,
            ),
        ),
        several=True,
        resumes=True,
        output_name="{photo}-accentuate",
        output_shown="PHOTO-accentuate.png",
        about="It is changed no more than that takes.",
        examples=(
            "accentuate lion.jpg mixed4c:12",
            "accentuate lion.jpg logits:lion --network dreamnet-robust --leash 2",
        ),
    )
)

accentuate = RecipeFunction(
    ACCENTUATE,
    """
    Show in a photo what excites a unit there: `(N, 3, H, W)` in [0, 1].

    Args:
        photo: `(1, 3, H, W)` in [0, 1]; it is what the picture starts from and is held to.
        network: whose unit it is.
        objective: a unit, an `Objective` or its text. Both it and the leash, the distance in an
            earlier layer's features, are in units of how strongly their layers fire for the photo.
        **settings: those of `AccentuateSettings`, by name.

    Hamblin et al. 2024, "Feature Accentuation: Revealing 'What' Features Respond to in Natural
    Images".
    """,
)
