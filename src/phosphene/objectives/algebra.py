"""What to see more of: an objective turns activations into one number per picture, to be maximised.

An objective is declared before any network is there: it names the layers it needs and says how
their activations score. Objectives add, and numbers weigh them; nothing else is primitive:

>>> (2 * layer("mixed4b") + channel("mixed4d", 42) - 0.1 * tv()).text
'2*mixed4b + mixed4d:42 - 0.1*tv()'

The sign. Each objective gives the quantity it is named after, and more of it scores higher.
`tv` and `l2` measure roughness and contrast, which are mostly unwanted: subtract them. `content`,
`style` and `guide(…, by="distance")` are named after a likeness: they give minus the distance, at
most 0, so adding them draws the picture closer. `diversity` is at most 0, too: minus a likeness.

The shapes. `cells` lays maps `(N, C, H, W)`, tokens `(N, T, C)` and vectors `(N, C)` out alike as
`(N, H, W, C)`; tokens are one row of T positions and a vector is a single position. Scores are
computed in float32 or wider, whatever the network's precision.

The contract follows lucid's `objectives.py` (https://github.com/tensorflow/lucid).
"""

from __future__ import annotations

import functools
import numbers
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from phosphene.errors import ObjectiveError
from phosphene.objectives.text import IMAGE, LOGITS, flat_terms, reweighted, sum_text

Activations = Mapping[str, Tensor]


class LayerInfo(Protocol):
    """What an objective wants to know of a layer; `shape` leaves the batch out."""

    @property
    def kind(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def channels(self) -> int | None: ...


class NetworkLike(Protocol):
    """What `Objective.bound` is given; `phosphene.network.Network` is one."""

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> Sequence[str]: ...

    # Any, since pyright takes no cached_property for a property of the same type.

    @property
    def layers(self) -> Any: ...  # Mapping[str, LayerInfo]

    @property
    def logits_layer(self) -> Any: ...  # str

    def resolve(self, name: str) -> str: ...

    def activations(self, image: Tensor, layers: Sequence[str]) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Total:
    """A score that is a sum over the positions of one layer's map, which tiles can add up.

    quantity: `(N, H, W, C) -> (N, H, W)`; each value depends on its own position alone.
    margin: positions next to the map's border that count as 0; it shrinks to leave one at least.
    mean: the sum is divided by the number of positions of the whole map, its margin included.
    root: the score is the square root of the sum.
    """

    layer: str
    quantity: Callable[[Tensor], Tensor] = field(repr=False)
    margin: int = 0
    mean: bool = False
    root: bool = False


@dataclass(frozen=True)
class Comparison:
    """A score that sets a picture beside a reference, place by place.

    picture: the reference, `(1 or N, 3, H, W)`, at its own size.
    score: (activations of the picture, activations of the reference seen alike) -> `(N,)`.
    """

    picture: Tensor
    score: Callable[[Activations, Activations], Tensor] = field(repr=False)


@dataclass(frozen=True)
class Objective:
    """What to maximise, and what it needs.

    layers: what `score` reads; `IMAGE` is the picture, `LOGITS` the network's logits.
    score: `{layer: activation} -> (N,)`, always maximised.
    text: what `phosphene.objectives.parse` reads back as this objective; `objective` fills it in.
    bind: settles what needs a network (class names, reference pictures) and returns the objective
        that then scores; see `bound`, which also resolves the names of its layers.
    density: `{layer: activation} -> {layer: (N, H, W)}`, whose means over positions, summed over
        the layers, are the score. Each value depends on its own position alone (`tv`: and on the
        next ones), not on the map's size, which is what makes tiles exact. None where the score is
        no such mean, or is positional.
    positional: the score is of given places, or compares the picture with a reference place by
        place, so that a picture that is shifted, turned or cut into tiles no longer means the same.
    terms: the weighted objectives of which this is the sum; empty if it is none.
    total: the score as a sum over positions, where it is one and has no density.
    comparison: of a positional objective that is bound, what lets the reference be moved along with
        the picture.
    pure: the score hangs on the activations and on nothing else that changes, so that on CUDA it
        may be captured: no number of Python's that is another the next time, no chance. All that
        are built in are so; of your own say it yourself.
    """

    layers: tuple[str, ...]
    score: Callable[[Activations], Tensor] = field(repr=False)
    text: str = "<unnamed>"
    bind: Callable[[NetworkLike], Objective] | None = field(default=None, repr=False)
    density: Callable[[Activations], Mapping[str, Tensor]] | None = field(default=None, repr=False)
    positional: bool = False
    terms: tuple[tuple[float, Objective], ...] = field(default=(), repr=False)
    total: Total | None = field(default=None, repr=False)
    comparison: Comparison | None = field(default=None, repr=False)
    pure: bool = field(default=False, repr=False)

    def bound(self, network: NetworkLike) -> Objective:
        """This objective, ready to score for `network`: its layers are real names.

        Raises UnknownLayerError, and ObjectiveError for what the network lacks: a channel, a
        class. ImageError if a reference picture cannot be read.
        """
        if self.terms:
            bound = [(weight, term.bound(network)) for weight, term in self.terms]
            # The same again where nothing was left to settle, by which captures know it.
            alike = all(a is b for (_, a), (_, b) in zip(self.terms, bound, strict=True))
            return self if alike else combine(bound)
        if self.bind:
            bound = self.bind(network).bound(network)
            return replace(bound, text=self.text, pure=self.pure or bound.pure)
        return _renamed(self, {name: real_name(name, network) for name in self.layers})

    def with_weights(self, weights: Mapping[int, float]) -> Objective:
        """This objective with other weights, by the number of their term, from 1.

        One that is bound stays so, reference pictures and all: weights may change in a film.

        Raises ObjectiveError for a weight that is not finite, or of a term that is not there.
        """
        return combine(reweighted(self.terms or ((1.0, self),), weights))

    def __call__(self, activations: Activations) -> Tensor:
        """The score of each picture, `(N,)`."""
        missing = [name for name in self.layers if name not in activations]
        if missing:
            raise ObjectiveError(
                f"{self.text} needs the activations of {', '.join(missing)}, got "
                f"{', '.join(activations) or 'none'}; has it been bound to the network?"
            )
        score = self.score(activations)
        if score.ndim != 1:
            raise ObjectiveError(
                f"{self.text} must score each picture with one number, (N,), "
                f"got the shape {tuple(score.shape)}"
            )
        return score

    def __add__(self, other: Objective) -> Objective:
        if not isinstance(other, Objective):
            return NotImplemented
        return combine([(1.0, self), (1.0, other)])

    def __radd__(self, other: int) -> Objective:
        # sum() starts from 0.
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __mul__(self, weight: float) -> Objective:
        if not isinstance(weight, numbers.Real):
            return NotImplemented
        return combine([(float(weight), self)])

    __rmul__ = __mul__

    def __neg__(self) -> Objective:
        return -1.0 * self

    def __sub__(self, other: Objective) -> Objective:
        return self + -other if isinstance(other, Objective) else NotImplemented


def combine(terms: Iterable[tuple[float, Objective]]) -> Objective:
    """The weighted sum of objectives, `Σ weight × objective`; what `+` and `*` make.

    A sum of sums is one flat sum, so its text needs no parentheses.

    It has a density if all terms have one and is positional if any term is.

    Raises:
        ObjectiveError: a weight that is not finite, or no term.
    """
    terms = flat_terms((weight, whole.terms or ((1.0, whole),)) for weight, whole in terms)

    def score(activations: Activations) -> Tensor:
        return functools.reduce(
            operator.add, (weight * term(activations) for weight, term in terms)
        )

    def density(activations: Activations) -> Mapping[str, Tensor]:
        return merged(
            (name, weight * cells)
            for weight, term in terms
            if term.density
            for name, cells in term.density(activations).items()
        )

    return Objective(
        layers=tuple(dict.fromkeys(name for _, term in terms for name in term.layers)),
        score=score,
        text=sum_text((weight, term.text) for weight, term in terms),
        density=density if all(term.density for _, term in terms) else None,
        positional=any(term.positional for _, term in terms),
        terms=terms,
        pure=all(term.pure for _, term in terms),
    )


def unbound(
    name: str, layers: tuple[str, ...], bind: Callable[[NetworkLike], Objective] | None = None
) -> Objective:
    """An objective that cannot score before it knows the network."""

    def score(activations: Activations) -> Tensor:
        raise ObjectiveError(f"{name} needs the network: call bound(network) first")

    return Objective(layers, score, bind=bind)


def _renamed(source: Objective, real: Mapping[str, str]) -> Objective:
    """`source` reading its layers under their real names."""
    if all(own == name for own, name in real.items()):
        return source
    measure, beside = source.density, source.comparison

    def own(activations: Activations) -> Activations:
        return {name: activations[actual] for name, actual in real.items()}

    def density(activations: Activations) -> Mapping[str, Tensor]:
        found = measure(own(activations)) if measure else {}
        return merged((real[name], tensor) for name, tensor in found.items())

    return replace(
        source,
        layers=tuple(dict.fromkeys(real.values())),
        score=lambda activations: source.score(own(activations)),
        density=density if measure else None,
        total=source.total and replace(source.total, layer=real[source.total.layer]),
        comparison=beside and replace(beside, score=lambda a, b: beside.score(own(a), own(b))),
    )


def real_name(name: str, network: NetworkLike) -> str:
    if name == IMAGE:
        return IMAGE
    if name == LOGITS:
        name = network.logits_layer
    return network.resolve(name)


def merged(pairs: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    merged: dict[str, Tensor] = {}
    for name, tensor in pairs:
        merged[name] = merged[name] + tensor if name in merged else tensor
    return merged


# Activations


def cells(activations: Activations, name: str) -> Tensor:
    """The activations of a layer as `(N, H, W, C)`: one vector at each position.

    Tokens `(N, T, C)` become `(N, 1, T, C)` and vectors `(N, C)` become `(N, 1, 1, C)`. Raises
    ObjectiveError for any other number of axes.
    """
    activation = activations[name]
    if activation.dtype not in (torch.float32, torch.float64):
        activation = activation.float()
    if activation.ndim == 4:
        return activation.permute(0, 2, 3, 1)
    if activation.ndim == 3:
        return activation[:, None]
    if activation.ndim == 2:
        return activation[:, None, None]
    raise ObjectiveError(
        f"{name} gives the shape {tuple(activation.shape)}, expected maps (N, C, H, W), "
        "tokens (N, T, C) or vectors (N, C)"
    )


MOST_EXTRA_TOKENS = 5  # a class token and four registers (Darcet et al. 2023)


def token_grid(activations: Activations, name: str) -> Tensor:
    """The tokens `(N, T, C)` of a layer where they lie in the picture: `(N, h, w, C)`.

    The grid has the shape of the picture, the activation `IMAGE`. The extra tokens that it leaves
    over, of the class for example, stand before it, up to five, and are left out. ObjectiveError if
    no grid fits.
    """
    tokens = cells(activations, name)[:, 0]
    picture = activations.get(IMAGE)
    aspect = 1.0 if picture is None else picture.shape[-1] / picture.shape[-2]
    for extra in range(min(MOST_EXTRA_TOKENS + 1, tokens.shape[1])):
        count = tokens.shape[1] - extra
        height, width = round((count / aspect) ** 0.5), round((count * aspect) ** 0.5)
        if height * width == count:
            return tokens[:, extra:].unflatten(1, (height, width))
    raise ObjectiveError(
        f"{name} gives {tokens.shape[1]} tokens, which are no grid over this picture: "
        "a neuron there needs x alone, the token's number"
    )


def per_position(
    name: str,
    quantity: Callable[[Tensor], Tensor],
    bind: Callable[[NetworkLike], Objective] | None = None,
) -> Objective:
    """The mean over positions of a quantity, `(N, H, W, C) -> (N, H, W)`, with its density."""

    def density(activations: Activations) -> Mapping[str, Tensor]:
        return {name: quantity(cells(activations, name))}

    return Objective(
        layers=(name,),
        score=lambda activations: quantity(cells(activations, name)).mean((1, 2)),
        density=density,
        bind=bind,
    )


def gram(vectors: Tensor) -> Tensor:
    """The Gram matrix of cells, `(N, H, W, C) -> (N, C, C)`: the mean over positions of a·aᵀ."""
    flat = vectors.flatten(1, 2)
    return flat.mT @ flat / flat.shape[1]


def cosine(a: Tensor, b: Tensor, dot: Tensor) -> Tensor:
    """The cosine of vectors along the last axis, given their dot product; at least 0.1."""
    lengths = torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1)
    return (dot / (lengths + 1e-12)).clamp_min(0.1)
