"""`caricature`: what a layer sees in a photograph, drawn larger than life."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from phosphene import image as images
from phosphene import objectives as obj
from phosphene.network import Network
from phosphene.recipes.visualize import VisualizeStep, drawn, last, shown
from phosphene.recipes.visualize_settings import CaricatureSettings as CaricatureSettings
from phosphene.settings import checked


class _Caricature:
    """`caricature(photo, network, layer, **settings)`; `caricature.steps(…)` is the same, live."""

    settings = CaricatureSettings

    def __call__(
        self, photo: Tensor, network: Network, layer: str | Sequence[str], **settings: Any
    ) -> Tensor:
        """Draw from noise what a layer sees in a photo, exaggerated: `(N, 3, H, W)` in [0, 1].

        photo: `(1, 3, H, W)` in [0, 1]; its aspect ratio is kept.
        layer: a layer's name, or several, each of which gets a picture.
        settings: those of `CaricatureSettings`, by name. See `objectives.caricature`.
        """
        return last(self.steps(photo, network, layer, **settings))

    def steps(
        self, photo: Tensor, network: Network, layer: str | Sequence[str], **settings: Any
    ) -> Iterator[VisualizeStep]:
        """The same as a generator of `VisualizeStep`."""
        chosen = checked(CaricatureSettings, like(photo, settings))
        layers = [layer] if isinstance(layer, str) else layer
        photo = shown(network, layers, photo, chosen.size)
        goals = [obj.caricature(name, photo, cossim_pow=chosen.power) for name in layers]
        return drawn(network, goals, chosen)


def like(photo: Tensor, settings: dict[str, Any]) -> dict[str, Any]:
    """`settings` with the photo's aspect ratio, unless they have one."""
    if settings.get("aspect", "auto") != "auto":
        return settings
    height, width = images.size_of(photo)
    return settings | {"aspect": min(max(width / height, 0.05), 20)}


caricature = _Caricature()
