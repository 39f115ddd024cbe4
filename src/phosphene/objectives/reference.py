"""Objectives of likeness to another picture: guide, content, caricature, style."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from phosphene.errors import ObjectiveError
from phosphene.image.tensor import resize
from phosphene.objectives.algebra import (
    Activations,
    Comparison,
    NetworkLike,
    Objective,
    cells,
    cosine,
    gram,
    per_position,
    real_name,
    unbound,
)
from phosphene.objectives.checks import check_choice, check_power
from phosphene.objectives.registry import PictureRef, objective
from phosphene.objectives.text import IMAGE

GuideBy = Literal["match", "distance", "dot"]


@objective
def guide(layer: str, image: PictureRef, by: GuideBy = "match") -> Objective:
    """What a layer sees in a guide picture: dream it into this one.

    image: `(N, 3, H, W)` in [0, 1], or the path of a picture.
    by:
        match: each position is drawn to the guide's best-matching feature, at any place of the
            guide's: the mean over positions of a·g, where g is the feature of the guide with the
            largest dot product with a. g counts as constant, so the gradient is g itself (Google's
            notebook of 2015, which sums where this takes the mean).
        dot: the mean over positions of a·ḡ, where ḡ is the guide's mean feature.
        distance: minus the mean squared distance to the guide's features place by place, as
            `content`.

    match and dot see the guide at its own size and have a density; distance resizes it to the
    picture's size and is positional.
    """
    check_choice("by", by, get_args(GuideBy))
    if by == "distance":
        return _likeness("guide", layer, image)
    given = _checked(image)

    def bind(network: NetworkLike) -> Objective:
        features = _features(given, layer, network)

        @functools.lru_cache(maxsize=4)
        def pool(device: torch.device, dtype: torch.dtype) -> Tensor:
            found = features(device, dtype, None).flatten(0, 2)
            return found.mean(0, keepdim=True) if by == "dot" else found

        def quantity(a: Tensor) -> Tensor:
            return (a * _best_match(a, pool(a.device, a.dtype))).sum(-1)

        return per_position(layer, quantity)

    return unbound("guide", (layer,), bind)


@objective
def content(layer: str, image: PictureRef) -> Objective:
    """Minus the mean squared distance to a picture's activations, place by place.

    image: `(1, 3, H, W)` in [0, 1], or the path of a picture. It is resized to the size of the
    picture that is scored. Gatys, Ecker and Bethge 2015 (https://arxiv.org/abs/1508.06576), who
    take half the sum instead of the mean.
    """
    return _likeness("content", layer, image)


@objective
def caricature(layer: str, image: PictureRef, *, cossim_pow: float = 1.0) -> Objective:
    """More of what a layer sees in a picture, place by place, and the stronger the more.

    The mean over positions of a·r × max(0.1, cos(a, r))^cossim_pow, where r is the picture's own
    activation at that place: the longer along r the better, and a power above 0 keeps it from
    being long in other directions too. image: `(1, 3, H, W)` in [0, 1], or the path of a picture;
    it is resized to the size of the picture that is scored. After lucid's `dot_compare`.
    """
    check_power(cossim_pow)

    def quantity(a: Tensor, wanted: Tensor) -> Tensor:
        dot = (a * wanted).sum(-1)
        return dot if cossim_pow == 0 else dot * cosine(a, wanted, dot) ** cossim_pow

    return _likeness("caricature", layer, image, quantity)


@objective
def style(layer: str, image: PictureRef) -> Objective:
    """Minus the mean squared difference to a picture's Gram matrix: its texture, at any place.

    The Gram matrix, C×C, is the mean over positions of a·aᵀ, so that pictures of any two sizes
    compare; for two of one size this is 4 times the layer's loss of Gatys, Ecker and Bethge 2015
    (https://arxiv.org/abs/1508.06576). image: `(1, 3, H, W)` in [0, 1], or the path of a picture.
    """
    given = _checked(image)

    def bind(network: NetworkLike) -> Objective:
        features = _features(given, layer, network)

        @functools.lru_cache(maxsize=4)
        def target(device: torch.device, dtype: torch.dtype) -> Tensor:
            return gram(features(device, dtype, None))

        def score(activations: Activations) -> Tensor:
            own = gram(cells(activations, layer))
            wanted = target(own.device, own.dtype)
            _check_batch("style", wanted, own)
            return -(own - wanted).square().mean((1, 2))

        return Objective((layer,), score)

    return unbound("style", (layer,), bind)


def _likeness(
    name: str,
    layer: str,
    image: PictureRef,
    quantity: Callable[[Tensor, Tensor], Tensor] = lambda a, r: -(a - r).square().mean(-1),
) -> Objective:
    """The mean over positions of a quantity of the picture's and the reference's cells there.

    quantity: two of `(N, H, W, C) -> (N, H, W)`; the second may have an N of 1.
    """
    given = _checked(image)

    def bind(network: NetworkLike) -> Objective:
        picture = _loaded(given)
        features = _features(picture, layer, network)

        def measured(a: Tensor, wanted: Tensor) -> Tensor:
            _check_batch(name, wanted, a)
            return quantity(a, wanted).mean((1, 2))

        def score(activations: Activations) -> Tensor:
            picture = activations[IMAGE]
            height, width = picture.shape[-2:]
            wanted = features(picture.device, picture.dtype, (height, width))
            return measured(cells(activations, layer), wanted)

        comparison = Comparison(picture, lambda a, b: measured(cells(a, layer), cells(b, layer)))
        return Objective((IMAGE, layer), score, positional=True, comparison=comparison)

    return replace(unbound(name, (IMAGE, layer), bind), positional=True)


def _checked(image: PictureRef) -> PictureRef:
    if isinstance(image, Tensor):
        if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
            raise ObjectiveError(
                f"a reference picture must be float (N, 3, H, W) in [0, 1], got {image.dtype} "
                f"{tuple(image.shape)}"
            )
        return image.detach()
    if not isinstance(image, (str, os.PathLike)):
        raise ObjectiveError(
            f"a reference picture must be a tensor or a path, got {type(image).__name__}"
        )
    return image


def _loaded(image: PictureRef) -> Tensor:
    from phosphene.image import load_image

    return image if isinstance(image, Tensor) else load_image(Path(image))


def _features(
    image: PictureRef, name: str, network: NetworkLike
) -> Callable[[torch.device, torch.dtype, tuple[int, int] | None], Tensor]:
    """The cells of a reference picture, at a size or at its own, computed when first asked for."""
    picture = _loaded(image)
    real = real_name(name, network)

    # As many as there may be octaves, so that a film does not compute them anew for each frame.
    @functools.lru_cache(maxsize=8)
    def at(device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None) -> Tensor:
        shown = picture.to(device, dtype)
        if size not in (None, tuple(shown.shape[-2:])):
            # Bicubic overshoots, and the network is to see a picture.
            shown = resize(shown, size).clamp(0, 1)
        with torch.no_grad():
            return cells(network.activations(shown, [real]), real)

    return at


def _check_batch(name: str, wanted: Tensor, got: Tensor) -> None:
    if len(wanted) not in (1, len(got)):
        raise ObjectiveError(
            f"{name} compares {len(got)} pictures with one reference or with as many, "
            f"not with {len(wanted)}"
        )


def _best_match(a: Tensor, pool: Tensor) -> Tensor:
    """For each vector of `a`, `(N, H, W, C)`, the one of `pool`, `(K, C)`, with the largest dot."""
    with torch.no_grad():
        vectors = a.reshape(-1, a.shape[-1])
        # In parts, since a large picture has more pairs than fit into memory.
        parts = vectors.split(max(1, 2**24 // len(pool)))
        best = torch.cat([(part @ pool.T).argmax(1) for part in parts])
        return pool[best].reshape(a.shape)
