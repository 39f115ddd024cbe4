"""`accentuate`: a photograph changed as little as may be, so that a unit fires more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from phosphene import image as images
from phosphene import objectives as obj
from phosphene import spec
from phosphene.network import Network
from phosphene.objectives import IMAGE, Objective
from phosphene.recipes.invert import relative, size_of
from phosphene.recipes.stages import early
from phosphene.recipes.visualize import VisualizeStep, auto_size, drawn, fit, last, shown
from phosphene.recipes.visualize_settings import AccentuateSettings as AccentuateSettings
from phosphene.settings import checked


class _Accentuate:
    """`accentuate(photo, network, objective, **settings)`; `accentuate.steps(…)`, live."""

    settings = AccentuateSettings

    def __call__(
        self, photo: Tensor, network: Network, objective: Objective | str, **settings: Any
    ) -> Tensor:
        """Show in a photo what excites a unit there: `(N, 3, H, W)` in [0, 1].

        photo: `(1, 3, H, W)` in [0, 1]; it is what the picture starts from and is held to.
        objective: a unit, an `Objective` or its text. Both it and the leash, the distance in an
            earlier layer's features, are in units of how strongly their layers fire for the photo.
        settings: those of `AccentuateSettings`, by name.
        Hamblin et al. 2024, "Feature Accentuation: Revealing 'What' Features Respond to in Natural
        Images".
        """
        return last(self.steps(photo, network, objective, **settings))

    def steps(
        self, photo: Tensor, network: Network, objective: Objective | str, **settings: Any
    ) -> Iterator[VisualizeStep]:
        """The same as a generator of `VisualizeStep`."""
        s = checked(AccentuateSettings, settings)
        side = auto_size(network.input_size) if s.size == "auto" else s.size
        photo = images.resize(photo, fit(photo, side)).clamp(0, 1)
        unit = spec.parse(objective) if isinstance(objective, str) else objective
        layers = [layer for layer in unit.bound(network).layers if layer != IMAGE]
        leash = s.leash_layer if s.leash_layer != "auto" else early(network, layers)
        seen = shown(network, [leash, *layers], photo, side)
        strength = max((size_of(network, layer, seen) for layer in layers), default=1.0)
        goal = [(1 / strength, unit)]
        if s.leash:
            goal.append((1.0, relative(network, leash, seen, s.leash)))
        return drawn(network, obj.combine(goal), s, start=photo)


accentuate = _Accentuate()
