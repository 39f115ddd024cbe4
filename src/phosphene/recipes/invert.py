"""`invert`: what a layer still knows of a photograph, drawn from its activations alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from phosphene import objectives as obj
from phosphene.network import Network
from phosphene.objectives import Objective
from phosphene.recipes.caricature import like
from phosphene.recipes.visualize import VisualizeStep, drawn, last, shown
from phosphene.recipes.visualize_settings import InvertSettings as InvertSettings
from phosphene.settings import checked


class _Invert:
    """`invert(photo, network, layer, **settings)`; `invert.steps(…)` is the same, live."""

    settings = InvertSettings

    def __call__(
        self, photo: Tensor, network: Network, layer: str | Sequence[str], **settings: Any
    ) -> Tensor:
        """Draw from noise a picture with a photo's activations: `(N, 3, H, W)` in [0, 1].

        photo: `(1, 3, H, W)` in [0, 1]; its aspect ratio is kept.
        layer: a layer's name, or several, each of which gets a picture.
        settings: those of `InvertSettings`, by name. The score is minus the squared distance,
        relative to the photo's own activations: −1 for nothing in common, 0 for the same.
        Mahendran and Vedaldi 2015, "Understanding Deep Image Representations by Inverting Them".
        """
        return last(self.steps(photo, network, layer, **settings))

    def steps(
        self, photo: Tensor, network: Network, layer: str | Sequence[str], **settings: Any
    ) -> Iterator[VisualizeStep]:
        """The same as a generator of `VisualizeStep`."""
        chosen = checked(InvertSettings, like(photo, settings))
        layers = [layer] if isinstance(layer, str) else layer
        photo = shown(network, layers, photo, chosen.size)
        return drawn(network, [relative(network, name, photo) for name in layers], chosen)


def relative(network: Network, layer: str, photo: Tensor, weight: float = 1.0) -> Objective:
    """`objectives.content`, in units of the photo's own mean squared activation."""
    return weight / size_of(network, layer, photo) ** 2 * obj.content(layer, photo)


@torch.no_grad()
def size_of(network: Network, layer: str, photo: Tensor) -> float:
    """How strongly a layer fires for a photo: the root of its mean squared activation."""
    seen = network.activations(photo.to(network.device), [layer])[layer]
    return max(float(seen.double().square().mean().sqrt()), 1e-12)


invert = _Invert()
