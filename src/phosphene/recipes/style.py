"""`style`: the things of one picture in the textures of another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from phosphene import image as images
from phosphene import objectives as obj
from phosphene.errors import ObjectiveError
from phosphene.network import Network
from phosphene.recipes.invert import relative
from phosphene.recipes.stages import middle, stages
from phosphene.recipes.visualize import VisualizeStep, drawn, fit, last, shown
from phosphene.recipes.visualize_settings import StyleSettings as StyleSettings
from phosphene.recipes.visualize_settings import VisualizeSettings
from phosphene.settings import checked

MOST_AUTO = 512  # px, the longest side of a result for which no size is asked


class _Style:
    """`style(photo, painting, network, **settings)`; `style.steps(…)` is the same, live."""

    settings = StyleSettings

    def __call__(
        self, photo: Tensor, painting: Tensor, network: Network, **settings: Any
    ) -> Tensor:
        """The photo's content in the painting's style: `(N, 3, H, W)` in [0, 1].

        photo: `(1, 3, H, W)` in [0, 1], what the picture starts from and whose things stay.
        painting: `(1, 3, H, W)` in [0, 1], of any size: what gives the textures, at its own scale.
        settings: those of `StyleSettings`, by name. Each layer's share is relative to the squared
        size of what it is compared with, so that weights mean the same for every network.
        Gatys, Ecker and Bethge 2015, "A Neural Algorithm of Artistic Style"; on the frequencies
        instead of the pixels after Mordvintsev et al. 2018, "Differentiable Image
        Parameterizations".
        """
        return last(self.steps(photo, painting, network, **settings))

    def steps(
        self, photo: Tensor, painting: Tensor, network: Network, **settings: Any
    ) -> Iterator[VisualizeStep]:
        """The same as a generator of `VisualizeStep`."""
        s = checked(StyleSettings, settings)
        content = middle(network) if s.content_layer == "auto" else s.content_layer
        photo = images.resize(photo, style_size(s, photo)).clamp(0, 1)
        painting = shown(network, [content], painting, max(images.size_of(painting)))
        goal = relative(
            network, content, shown(network, [content], photo, max(style_size(s, photo)))
        )
        layers = s.style_layers or stages(network)
        for layer in layers:
            shape = network.layers[network.resolve(layer)].shape
            if len(shape) == 1:
                raise ObjectiveError(
                    f"{layer} gives a vector of {shape[0]} channels; a texture is of a layer that "
                    f"gives maps or tokens, such as {stages(network)[0]}"
                )
        for layer in layers if s.style_weight else ():
            goal += s.style_weight / len(layers) * _relative_style(network, layer, painting)
        return drawn(network, goal, s, start=photo)


def style_size(s: VisualizeSettings, photo: Tensor) -> tuple[int, int]:
    """The size (H, W) at which a photo is drawn: auto is its own, up to `MOST_AUTO` px."""
    longest = max(images.size_of(photo))
    return fit(photo, min(MOST_AUTO, longest) if s.size == "auto" else s.size)


@torch.no_grad()
def _relative_style(network: Network, layer: str, painting: Tensor) -> obj.Objective:
    a = obj.cells(network.activations(painting.to(network.device), [layer]), layer)
    vectors = a.flatten(1, 2).double()
    gram = vectors.mT @ vectors / vectors.shape[1]
    return 1 / max(float(gram.square().mean()), 1e-24) * obj.style(layer, painting)


style = _Style()
