"""What a dream does to the gradient before each step: see `phosphene.gradients`."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from torch import Tensor

from phosphene import gradients
from phosphene import image as images
from phosphene.chain import build_chain
from phosphene.network import Network
from phosphene.recipes.dream import DreamSettings
from phosphene.runtime.capture import Same


def gradient_of(
    mask: Tensor | None, masks: Sequence[Tensor], base: Tensor, s: DreamSettings
) -> gradients.GradientTransform:
    """What happens to the gradient in an octave, where the photograph is `base`."""

    def here(mask: Tensor) -> Tensor:
        return images.resize(mask.to(base), images.size_of(base)).clamp(0, 1)

    if masks:
        weights = gradients.shares([here(one) for one in masks], rest=s.rest == "dream")
        whole = gradients.blend(weights, [_transformed(s, weight) for weight in weights])
    else:
        whole = _transformed(s)
    return whole if mask is None else gradients.compose(whole, gradients.mask(here(mask)))


def _transformed(s: DreamSettings, weight: Tensor | None = None) -> gradients.GradientTransform:
    """What happens to one objective's gradient, within a weight if there is one."""
    given = s.natural, s.smooth, s.laplacian, s.gradient_transforms, s.gradient, s.epsilon, s.clip
    if weight is None and gradients.built_in(s.gradient_transforms):
        return _kept_chain(*given)
    return _chain(*given, weight)


def _chain(
    natural: float,
    smooth: float,
    laplacian: int,
    more: str | None,
    normalisation: gradients.Normalisation,
    epsilon: float,
    limit: float | None,
    weight: Tensor | None = None,
) -> gradients.GradientTransform:
    chain: list[gradients.GradientTransform] = []
    if natural:
        chain.append(gradients.natural(natural))
    if smooth:
        chain.append(gradients.smooth(smooth, weight=weight))
    if laplacian:
        chain.append(gradients.laplacian(laplacian, weight=weight))
    if more:
        chain += build_chain(more, gradients.GRADIENTS, weight=weight)
    chain.append(gradients.normalise(normalisation, epsilon=epsilon, weight=weight))
    if limit is not None:
        chain.append(gradients.clip(limit))
    return gradients.compose(*chain)


# One for all frames of a film, so that what is captured of it serves them all.
_kept_chain = functools.lru_cache(maxsize=8)(_chain)


def captured(
    net: Network, chain: gradients.GradientTransform, s: DreamSettings
) -> gradients.GradientTransform:
    """The same, captured beside the evaluations: it may be more operations than the network."""
    captures = net.captures
    if captures is None or not gradients.built_in(s.gradient_transforms):
        return chain
    key = "gradient", Same.of(chain)

    def replayed(g: Tensor) -> Tensor:
        (found,) = captures.run(lambda g: (chain(g),), g, key)
        return found

    return replayed
