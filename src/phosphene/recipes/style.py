"""Draw the things of a photo in the textures of a painting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from phosphene.recipes.base import Arguments, ImageInput, Recipe, register
from phosphene.recipes.function import RecipeFunction
from phosphene.recipes.visualize import MOVED, AscentSettings
from phosphene.settings import Transforms

if TYPE_CHECKING:
    from torch import Tensor

    from phosphene.network import Network
    from phosphene.objectives import Objective
    from phosphene.recipes.steps.visualize import VisualizeStep

MOST_AUTO = 512  # px, the longest side of a result for which no size is asked


class StyleSettings(AscentSettings):
    """Every setting of a style transfer."""

    style_weight: float = Field(
        1.0, ge=0, le=1e4, description="Of the style, where the content's is 1."
    )
    tv: float = Field(0.5, ge=0, le=1e4, description="Weight against roughness.")
    style_layers: tuple[str, ...] = Field(
        (), description="Whose textures are taken; by default one of each size of map."
    )
    content_layer: str = Field("auto", description="Whose things stay in their places.")
    transforms: Transforms = Field("gentle", description=f"{MOVED}.")


def style_steps(arguments: Arguments) -> Iterator[VisualizeStep]:
    """A style transfer's steps: see `phosphene.style`."""
    from phosphene import image as images
    from phosphene.errors import ObjectiveError
    from phosphene.recipes.steps import stages
    from phosphene.recipes.steps import visualize as loop

    network, s = arguments.network, arguments.settings
    photo, painting = arguments.images["photo"], arguments.images["painting"]
    content = stages.middle(network) if s.content_layer == "auto" else s.content_layer
    size = style_size(s, photo)
    photo = images.resize(photo, size).clamp(0, 1)
    painting = loop.shown_to(network, [content], painting, max(images.size_of(painting)))
    shown = loop.shown_to(network, [content], photo, max(style_size(s, photo)))
    goal = loop.relative_content(network, content, shown)
    layers = s.style_layers or stages.stages(network)
    for layer in layers:
        shape = network.layers[network.resolve(layer)].shape
        if len(shape) == 1:
            raise ObjectiveError(
                f"{layer} gives a vector of {shape[0]} channels; a texture is of a layer that "
                f"gives maps or tokens, such as {stages.stages(network)[0]}"
            )
    for layer in layers if s.style_weight else ():
        goal += s.style_weight / len(layers) * _relative_style(network, layer, painting)
    return loop.ascend_objectives(network, [goal], s, start=photo, state=arguments.state)


def style_size(s: StyleSettings, photo: Tensor) -> tuple[int, int]:
    """The size (H, W) at which a photo is drawn: auto is its own, up to `MOST_AUTO` px."""
    from phosphene import image as images

    size = images.size_of(photo)
    return images.fit(size, min(MOST_AUTO, max(size)) if s.size == "auto" else s.size)


def painting_size(s: StyleSettings, pictures: Mapping[str, Tensor]) -> int:
    """The longest side, px, of a painting of which none is asked: the result's."""
    return max(style_size(s, pictures["photo"]))


def _relative_style(network: Network, layer: str, painting: Tensor) -> Objective:
    import torch

    from phosphene import objectives as obj

    with torch.no_grad():
        a = obj.cells(network.activations(painting.to(network.device), [layer]), layer)
        size = float(obj.gram(a.cpu().double()).square().mean())
        return 1 / max(size, 1e-24) * obj.style(layer, painting)


STYLE = register(
    Recipe(
        name="style",
        settings=StyleSettings,
        resampled=True,
        steps=style_steps,
        step_type="phosphene.recipes.steps.visualize:VisualizeStep",
        inputs=(
            ImageInput(
                "photo",
                "A JPEG, PNG, WebP, TIFF, BMP or GIF. Transparency is kept.",
                required=True,
                positional=True,
                alpha=True,
            ),
            ImageInput(
                "painting",
                "Another one, whose textures are taken.",
                required=True,
                positional=True,
                own_size="Longest side in px to which the painting is resized: its textures grow "
                "with it.",
                default_size=painting_size,
            ),
        ),
        several=True,
        resumes=True,
        output_name="{photo}-style",
        output_shown="PHOTO-style.png",
        examples=(
            "style lion.jpg flowers.jpg",
            "style lion.jpg flowers.jpg --style-weight 3 --painting-size 256",
        ),
    )
)

style = RecipeFunction(
    STYLE,
    """
    The photo's content in the painting's style: `(N, 3, H, W)` in [0, 1].

    Args:
        photo: `(1, 3, H, W)` in [0, 1], what the picture starts from and whose things stay.
        painting: `(1, 3, H, W)` in [0, 1], of any size: what gives the textures, at its own scale.
        network: through which both are looked at.
        **settings: those of `StyleSettings`, by name. Each layer's share is relative to the squared
            size of what it is compared with, so that weights mean the same for every network.

    Gatys, Ecker and Bethge 2015, "A Neural Algorithm of Artistic Style"; on the frequencies instead
    of the pixels after Mordvintsev et al. 2018, "Differentiable Image Parameterizations".
    """,
)
