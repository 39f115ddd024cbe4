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
import inspect
import math
import numbers
import operator
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, ParamSpec, Protocol, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene.errors import ObjectiveError, suggest

IMAGE = "@image"
"""The layer name that stands for the picture itself, `(N, 3, H, W)` in [0, 1]."""

LOGITS = "@logits"
"""The layer name that stands for whichever layer gives the network's logits."""

Activations = Mapping[str, Tensor]
Norm = Literal["mean_square", "mean", "sum", "l2", "half_sum_square"]
GuideBy = Literal["match", "distance", "dot"]
Picture = Tensor | str | os.PathLike[str]

P = ParamSpec("P")


class LayerInfo(Protocol):
    """What an objective wants to know of a layer; `shape` leaves the batch out."""

    @property
    def kind(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def channels(self) -> int | None: ...


class Seer(Protocol):
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
    text: what `phosphene.spec.parse` reads back as this objective; `objective` fills it in.
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
    """

    layers: tuple[str, ...]
    score: Callable[[Activations], Tensor] = field(repr=False)
    text: str = "<unnamed>"
    bind: Callable[[Seer], Objective] | None = field(default=None, repr=False)
    density: Callable[[Activations], Mapping[str, Tensor]] | None = field(default=None, repr=False)
    positional: bool = False
    terms: tuple[tuple[float, Objective], ...] = field(default=(), repr=False)
    total: Total | None = field(default=None, repr=False)
    comparison: Comparison | None = field(default=None, repr=False)

    def bound(self, network: Seer) -> Objective:
        """This objective, ready to score for `network`: its layers are real names.

        Raises UnknownLayerError, and ObjectiveError for what the network lacks: a channel, a
        class. ImageError if a reference picture cannot be read.
        """
        if self.terms:
            return combine((weight, term.bound(network)) for weight, term in self.terms)
        if self.bind:
            return replace(self.bind(network).bound(network), text=self.text)
        return _renamed(self, {name: _real_name(name, network) for name in self.layers})

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

    It has a density if all terms have one and is positional if any term is. Raises ObjectiveError
    for a weight that is not finite, or if there is no term.
    """
    terms = tuple(
        (float(weight) * own, term)
        for weight, whole in terms
        for own, term in (whole.terms or ((1.0, whole),))
    )
    if not terms:
        raise ObjectiveError("a sum of objectives needs at least one")
    for weight, term in terms:
        if not math.isfinite(weight):
            raise ObjectiveError(f"the weight of {term.text} must be finite, got {weight}")

    def score(activations: Activations) -> Tensor:
        return functools.reduce(
            operator.add, (weight * term(activations) for weight, term in terms)
        )

    def density(activations: Activations) -> Mapping[str, Tensor]:
        return _merged(
            (name, weight * cells)
            for weight, term in terms
            if term.density
            for name, cells in term.density(activations).items()
        )

    return Objective(
        layers=tuple(dict.fromkeys(name for _, term in terms for name in term.layers)),
        score=score,
        text=_sum_text(terms),
        density=density if all(term.density for _, term in terms) else None,
        positional=any(term.positional for _, term in terms),
        terms=terms,
    )


# The registry, and the text of what is in it


OBJECTIVES: dict[str, Callable[..., Objective]] = {}
"""Every objective that a text can name."""


def objective(function: Callable[P, Objective]) -> Callable[P, Objective]:
    """Register a function that makes an objective, so that texts can name it.

    The objective's text is written from the call, unless the function gives one. Raises
    ObjectiveError if another function has the name already.
    """
    name = function.__name__
    signature = inspect.signature(function)

    @functools.wraps(function)
    def made(*args: P.args, **kwargs: P.kwargs) -> Objective:
        result = function(*args, **kwargs)
        if result.text != "<unnamed>":
            return result
        return replace(result, text=_call_text(name, signature.bind(*args, **kwargs)))

    held = OBJECTIVES.get(name)
    # The same function again is a notebook cell that is run again.
    if held and (held.__module__, held.__qualname__) != (made.__module__, made.__qualname__):
        raise ObjectiveError(f"there is an objective {name!r} already, from {held.__module__}")
    OBJECTIVES[name] = made
    return made


BARE_NAME = r"@?[A-Za-z_]\w*(?:[./]\w+)*"
"""A name that a text may hold without quotes: `features.30`, `inception_4c/output`."""

KEYWORDS: Mapping[str, bool | None] = {"true": True, "false": False, "none": None}
"""Words that are values, not names, as arguments in a text."""


def quoted(string: str) -> str:
    """`string` as a text holds it: in double quotes, one within doubled.

    Backslashes stand for themselves, for the sake of paths on Windows.
    """
    return '"' + string.replace('"', '""') + '"'


def _name_text(name: str) -> str:
    bare = re.fullmatch(BARE_NAME, name) and name.lower() not in KEYWORDS
    return name if bare else quoted(name)


def _call_text(name: str, call: inspect.BoundArguments) -> str:
    parts: list[str] = []
    for parameter in call.signature.parameters.values():
        if parameter.name not in call.arguments:
            continue
        value = call.arguments[parameter.name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            parts += [value_text(item) for item in value]
        elif parameter.kind is parameter.VAR_KEYWORD:
            parts += [f"{key}={value_text(item)}" for key, item in value.items()]
        elif parameter.default is not parameter.empty or parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.default is not value and value_text(parameter.default) != (
                written := value_text(value)
            ):
                parts.append(f"{parameter.name}={written}")
        elif not parts and isinstance(value, str):
            # Nearly always the layer.
            parts.append(_name_text(value))
        else:
            parts.append(value_text(value))
    return f"{name}({', '.join(parts)})"


def value_text(value: object) -> str:
    """An argument as a text holds it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, os.PathLike):
        return quoted(str(value))
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real):
        return repr(float(value))
    if isinstance(value, (Tensor, np.ndarray)) and value.ndim == 1:
        # By way of str, float32 is at its shortest: 0.1 and not 0.10000000149011612.
        value = [float(str(item)) for item in torch.as_tensor(value).detach().cpu().float().numpy()]
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(value_text(item) for item in value)}]"
    # Not for a parser to read: a picture in memory has no text.
    return "<image>" if isinstance(value, Tensor) else f"<{type(value).__name__}>"


def _sum_text(terms: Sequence[tuple[float, Objective]]) -> str:
    text = ""
    for weight, term in terms:
        size = abs(weight)
        times = "" if size == 1 else f"{_number_text(size)}*"
        sign = (" - " if weight < 0 else " + ") if text else ("-" if weight < 0 else "")
        text += f"{sign}{times}{term.text}"
    return text


def _number_text(number: float) -> str:
    return str(int(number)) if number.is_integer() and number < 1e15 else repr(number)


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
    bind: Callable[[Seer], Objective] | None = None,
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


def _merged(pairs: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    merged: dict[str, Tensor] = {}
    for name, tensor in pairs:
        merged[name] = merged[name] + tensor if name in merged else tensor
    return merged


def _real_name(name: str, network: Seer) -> str:
    if name == IMAGE:
        return IMAGE
    if name == LOGITS:
        name = network.logits_layer
    return network.resolve(name)


def _renamed(source: Objective, real: Mapping[str, str]) -> Objective:
    """`source` reading its layers under their real names."""
    if all(own == name for own, name in real.items()):
        return source
    measure, beside = source.density, source.comparison

    def own(activations: Activations) -> Activations:
        return {name: activations[actual] for name, actual in real.items()}

    def density(activations: Activations) -> Mapping[str, Tensor]:
        found = measure(own(activations)) if measure else {}
        return _merged((real[name], tensor) for name, tensor in found.items())

    return replace(
        source,
        layers=tuple(dict.fromkeys(real.values())),
        score=lambda activations: source.score(own(activations)),
        density=density if measure else None,
        total=source.total and replace(source.total, layer=real[source.total.layer]),
        comparison=beside and replace(beside, score=lambda a, b: beside.score(own(a), own(b))),
    )


def _check_choice(what: str, given: str, choices: Sequence[str]) -> None:
    if given not in choices:
        raise ObjectiveError(f"{what} must be one of {', '.join(choices)}, got {given!r}")


def _whole(what: str, number: object) -> int:
    try:
        whole = operator.index(number)  # pyright: ignore[reportArgumentType]
    except TypeError:
        raise ObjectiveError(f"{what} must be a whole number, got {number!r}") from None
    if whole < 0:
        raise ObjectiveError(f"{what} must be at least 0, got {whole}")
    return whole


def _check_channels(name: str, indices: Iterable[int], count: int | None) -> None:
    for index in indices:
        if count is not None and index >= count:
            raise ObjectiveError(
                f"{name} has {count} channels, 0 to {count - 1}; there is no channel {index}"
            )


def _channel_count(name: str, network: Seer) -> int | None:
    if name == IMAGE:
        return 3
    info: LayerInfo = network.layers[_real_name(name, network)]
    return info.channels


# More of what a layer sees


@objective
def layer(name: str, *, norm: Norm = "mean_square", margin: int = 0) -> Objective:
    """All of a layer, whatever it sees: DeepDream's own objective.

    norm, over channels and positions of the activations a:
        mean_square: mean a²
        mean: mean a
        sum: Σ a
        l2: √(Σ a²), the L2 norm
        half_sum_square: ½ Σ a², whose gradient is a itself (Google's notebook of 2015,
            https://github.com/google/deepdream)
    margin: cells next to the map's border that count as 0. `margin=2` with mean_square is the
        Keras example's loss, which sums a² over the map less its border and divides by the whole
        map's element count (https://keras.io/examples/generative/deep_dream/). There a map of 4
        cells a side or fewer has nothing left; here the margin shrinks to leave one cell at least.

    mean_square and mean without margin have a density, all others a total.
    """
    _check_choice("norm", norm, get_args(Norm))
    margin = _whole("margin", margin)
    if margin == 0 and norm == "mean_square":
        whole = per_position(name, lambda a: a.square().mean(-1))
        return replace(whole, text=_name_text(name))
    if margin == 0 and norm == "mean":
        return per_position(name, lambda a: a.mean(-1))

    def score(activations: Activations) -> Tensor:
        a = cells(activations, name)
        count = a[0].numel()
        if margin:
            if activations[name].ndim != 4:
                raise ObjectiveError(f"{name} gives no map (N, C, H, W), so it has no margin")
            height, width = a.shape[1:3]
            dy, dx = min(margin, (height - 1) // 2), min(margin, (width - 1) // 2)
            a = a[:, dy : height - dy, dx : width - dx]
        a = a.flatten(1)
        if norm == "sum":
            return a.sum(1)
        if norm == "mean":
            return a.sum(1) / count
        if norm == "l2":
            return torch.linalg.vector_norm(a, dim=1)
        return a.square().sum(1) / (2 if norm == "half_sum_square" else count)

    quantities: dict[Norm, Callable[[Tensor], Tensor]] = {
        "mean_square": lambda a: a.square().mean(-1),
        "mean": lambda a: a.mean(-1),
        "sum": lambda a: a.sum(-1),
        "l2": lambda a: a.square().sum(-1),
        "half_sum_square": lambda a: a.square().sum(-1) / 2,
    }
    mean = norm in ("mean", "mean_square")
    total = Total(name, quantities[norm], margin, mean=mean, root=norm == "l2")
    return Objective((name,), score, total=total)


@objective
def channel(layer: str, index: int) -> Objective:
    """The mean of one channel over all positions; `layer:index` in a text.

    Raises ObjectiveError, when bound, for a channel that the layer does not have.
    """
    return channels(layer, index)


@objective
def channels(layer: str, *indices: int) -> Objective:
    """The mean of some channels over all positions; `layer:index,index` in a text.

    Raises ObjectiveError if there is no index and, when bound, for a channel that the layer does
    not have.
    """
    chosen = [_whole("channel", index) for index in indices]
    if not chosen:
        raise ObjectiveError(f"channels({_name_text(layer)}) needs at least one channel")

    def quantity(a: Tensor) -> Tensor:
        _check_channels(layer, chosen, a.shape[-1])
        return sum((a[..., index] for index in chosen[1:]), a[..., chosen[0]]) / len(chosen)

    plain = per_position(layer, quantity)

    def bind(network: Seer) -> Objective:
        _check_channels(layer, chosen, _channel_count(layer, network))
        return plain

    return replace(plain, text=f"{_name_text(layer)}:{','.join(map(str, chosen))}", bind=bind)


@objective
def interpolate(layer: str, index: int, to_layer: str, to_index: int) -> Objective:
    """From one channel to another across the batch: (1 − t)·first + t·second, means over positions.

    t of picture n of N is n / (N − 1), from 0 to 1; of a single picture it is ½. lucid's
    `channel_interpolate`. Raises ObjectiveError, when bound, for a channel that is not there.
    """
    ends = ((layer, _whole("channel", index)), (to_layer, _whole("channel", to_index)))

    def density(activations: Activations) -> Mapping[str, Tensor]:
        count, device = len(activations[layer]), activations[layer].device
        t = torch.linspace(0, 1, count, device=device)[:, None, None] if count > 1 else 0.5
        pairs = []
        for (name, channel), share in zip(ends, (1 - t, t), strict=True):
            a = cells(activations, name)
            _check_channels(name, [channel], a.shape[-1])
            pairs.append((name, a[..., channel] * share))
        return _merged(pairs)

    def score(activations: Activations) -> Tensor:
        return functools.reduce(
            operator.add, (values.mean((1, 2)) for values in density(activations).values())
        )

    plain = Objective(tuple(dict.fromkeys((layer, to_layer))), score, density=density)

    def bind(network: Seer) -> Objective:
        for name, channel in ends:
            _check_channels(name, [channel], _channel_count(name, network))
        return plain

    return replace(plain, bind=bind)


@objective
def diversity(layer: str) -> Objective:
    """How unlike the pictures of a batch are, as textures: minus the mean cosine to the others.

    The cosine is that of two pictures' Gram matrices, C×C; the mean is over the other pictures. 0
    is most diverse and −1 says that all are alike. Add it, with a weight, to see several faces of
    one unit; a picture alone scores 0. Olah et al. 2017, "Feature Visualization".
    """

    def score(activations: Activations) -> Tensor:
        grams = F.normalize(_gram(cells(activations, layer)).flatten(1), dim=1)
        # Each picture with all others, itself left out; a picture alone keeps its gradient of 0.
        alike = grams @ grams.T
        return -(alike.sum(1) - alike.diagonal()) / max(1, len(grams) - 1)

    return Objective((layer,), score)


@objective
def neuron(layer: str, index: int, y: int | None = None, x: int | None = None) -> Objective:
    """One channel at one position; the centre of the map (H // 2, W // 2) unless given.

    y, x: in cells of the layer's map, from the top and from the left. Of tokens, those of a grid
        over the picture, see `token_grid`; x alone is the token's number. A vector takes neither.
    ObjectiveError for a place or a channel that is not there.
    """
    chosen = _whole("channel", index)
    row = None if y is None else _whole("y", y)
    column = None if x is None else _whole("x", x)
    by_number = row is None and column is not None
    placed = (row, column) != (None, None)

    def check_axes(axes: int) -> None:
        if axes == 2 and placed:
            raise ObjectiveError(f"{layer} gives a vector: a neuron there takes no y and x")

    def score(activations: Activations) -> Tensor:
        check_axes(activations[layer].ndim)
        if activations[layer].ndim == 3 and not by_number:
            a = token_grid(activations, layer)
        else:
            a = cells(activations, layer)
        _check_channels(layer, [chosen], a.shape[-1])
        height, width = a.shape[1:3]
        at_y = height // 2 if row is None else row
        at_x = width // 2 if column is None else column
        if at_y >= height or at_x >= width:
            raise ObjectiveError(
                f"neuron at y={at_y}, x={at_x} is outside of {layer}'s "
                f"{height}×{width} (H×W) positions for this picture"
            )
        return a[:, at_y, at_x, chosen]

    def bind(network: Seer) -> Objective:
        _check_channels(layer, [chosen], _channel_count(layer, network))
        if layer == IMAGE:
            return Objective((layer,), score, positional=placed)
        info: LayerInfo = network.layers[_real_name(layer, network)]
        check_axes(len(info.shape) + 1)
        # How tokens lie over the picture depends on its shape.
        needs = (layer, IMAGE) if len(info.shape) == 2 and not by_number else (layer,)
        return Objective(needs, score, positional=placed)

    return Objective((layer,), score, bind=bind, positional=placed)


@objective
def direction(
    layer: str, vector: Sequence[float] | np.ndarray | Tensor, *, cossim_pow: float = 0.0
) -> Objective:
    """The mean over positions of the dot product with a vector in channel space.

    vector: one number a channel.
    cossim_pow: multiplies each dot product by max(0.1, cosine)^cossim_pow, which favours
        activations that point along the vector over merely large ones (lucid's `direction`).
    """
    try:
        given = torch.as_tensor(vector, dtype=torch.float32).detach().clone()
    except (TypeError, ValueError, RuntimeError):
        raise ObjectiveError(f"the direction must be a list of numbers, got {vector!r}") from None
    if given.ndim != 1 or not len(given) or not bool(given.isfinite().all()):
        raise ObjectiveError(
            f"the direction must be finite numbers, one a channel, got the shape "
            f"{tuple(given.shape)}"
        )
    _check_power(cossim_pow)

    # Once per device: a graph that is being captured may not copy from the host.
    @functools.lru_cache(maxsize=4)
    def on(device: torch.device, dtype: torch.dtype) -> Tensor:
        return given.to(device, dtype)

    def check(count: int | None) -> None:
        if count is not None and count != len(given):
            raise ObjectiveError(
                f"{layer} has {count} channels, the direction has {len(given)} numbers"
            )

    def quantity(a: Tensor) -> Tensor:
        check(a.shape[-1])
        toward = on(a.device, a.dtype)
        dot = a @ toward
        if cossim_pow == 0:
            return dot
        return dot * _cosine(a, toward, dot) ** cossim_pow

    plain = per_position(layer, quantity)

    def bind(network: Seer) -> Objective:
        check(_channel_count(layer, network))
        return plain

    return replace(plain, bind=bind)


@objective
def logit(which: int | str) -> Objective:
    """The score of one class before the softmax, by number or by name.

    Names match whatever their case: in full, as one of several in "tabby, tabby cat", or by whole
    words of them. Raises ObjectiveError, when bound, for a name that no class or several classes
    have, which it lists, and for a number that is too large.
    """
    index = which if isinstance(which, str) else _whole("the class", which)

    def picked(index: int) -> Objective:
        return Objective(
            (LOGITS,), lambda activations: cells(activations, LOGITS)[..., index].mean((1, 2))
        )

    def bind(network: Seer) -> Objective:
        found = _class_index(index, network) if isinstance(index, str) else index
        count = _channel_count(LOGITS, network)
        if count is not None and found >= count:
            raise ObjectiveError(
                f"{network.name} has {count} classes, 0 to {count - 1}; there is no class {found}"
            )
        return picked(found)

    plain = _unbound("logit", (LOGITS,)) if isinstance(index, str) else picked(index)
    return replace(plain, bind=bind)


# Likeness to another picture


@objective
def guide(layer: str, image: Picture, by: GuideBy = "match") -> Objective:
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
    _check_choice("by", by, get_args(GuideBy))
    if by == "distance":
        return _likeness("guide", layer, image)
    given = _checked(image)

    def bind(network: Seer) -> Objective:
        features = _features(given, layer, network)

        @functools.lru_cache(maxsize=4)
        def pool(device: torch.device, dtype: torch.dtype) -> Tensor:
            found = features(device, dtype, None).flatten(0, 2)
            return found.mean(0, keepdim=True) if by == "dot" else found

        def quantity(a: Tensor) -> Tensor:
            return (a * _best_match(a, pool(a.device, a.dtype))).sum(-1)

        return per_position(layer, quantity)

    return _unbound("guide", (layer,), bind)


@objective
def content(layer: str, image: Picture) -> Objective:
    """Minus the mean squared distance to a picture's activations, place by place.

    image: `(1, 3, H, W)` in [0, 1], or the path of a picture. It is resized to the size of the
    picture that is scored. Gatys, Ecker and Bethge 2015 (https://arxiv.org/abs/1508.06576), who
    take half the sum instead of the mean.
    """
    return _likeness("content", layer, image)


@objective
def caricature(layer: str, image: Picture, *, cossim_pow: float = 1.0) -> Objective:
    """More of what a layer sees in a picture, place by place, and the stronger the more.

    The mean over positions of a·r × max(0.1, cos(a, r))^cossim_pow, where r is the picture's own
    activation at that place: the longer along r the better, and a power above 0 keeps it from
    being long in other directions too. image: `(1, 3, H, W)` in [0, 1], or the path of a picture;
    it is resized to the size of the picture that is scored. After lucid's `dot_compare`.
    """
    _check_power(cossim_pow)

    def quantity(a: Tensor, wanted: Tensor) -> Tensor:
        dot = (a * wanted).sum(-1)
        return dot if cossim_pow == 0 else dot * _cosine(a, wanted, dot) ** cossim_pow

    return _likeness("caricature", layer, image, quantity)


@objective
def style(layer: str, image: Picture) -> Objective:
    """Minus the mean squared difference to a picture's Gram matrix: its texture, at any place.

    The Gram matrix, C×C, is the mean over positions of a·aᵀ, so that pictures of any two sizes
    compare; for two of one size this is 4 times the layer's loss of Gatys, Ecker and Bethge 2015
    (https://arxiv.org/abs/1508.06576). image: `(1, 3, H, W)` in [0, 1], or the path of a picture.
    """
    given = _checked(image)

    def bind(network: Seer) -> Objective:
        features = _features(given, layer, network)

        @functools.lru_cache(maxsize=4)
        def target(device: torch.device, dtype: torch.dtype) -> Tensor:
            return _gram(features(device, dtype, None))

        def score(activations: Activations) -> Tensor:
            gram = _gram(cells(activations, layer))
            wanted = target(gram.device, gram.dtype)
            _check_batch("style", wanted, gram)
            return -(gram - wanted).square().mean((1, 2))

        return Objective((layer,), score)

    return _unbound("style", (layer,), bind)


# The picture itself


@objective
def tv() -> Objective:
    """The picture's total variation, its roughness: subtract it for a smoother picture.

    The mean over pixels and channels of |right neighbour − pixel| + |lower neighbour − pixel|,
    where a neighbour beyond the edge differs by 0. At least 0. Rudin, Osher and Fatemi 1992, in the
    anisotropic form.
    """

    def quantity(a: Tensor) -> Tensor:
        right = (a[:, :, 1:] - a[:, :, :-1]).abs().mean(-1)
        down = (a[:, 1:] - a[:, :-1]).abs().mean(-1)
        return F.pad(right, (0, 1)) + F.pad(down, (0, 0, 0, 1))

    return replace(per_position(IMAGE, quantity), text="tv()")


OBJECTIVES["total_variation"] = tv


@objective
def l2() -> Objective:
    """The picture's mean squared distance from mid-grey, 0.5: subtract it for less contrast."""
    return per_position(IMAGE, lambda a: (a - 0.5).square().mean(-1))


def _unbound(
    name: str, layers: tuple[str, ...], bind: Callable[[Seer], Objective] | None = None
) -> Objective:
    """An objective that cannot score before it knows the network."""

    def score(activations: Activations) -> Tensor:
        raise ObjectiveError(f"{name} needs the network: call bound(network) first")

    return Objective(layers, score, bind=bind)


def _checked(image: Picture) -> Picture:
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


def _loaded(image: Picture) -> Tensor:
    from phosphene.image import load_image

    return image if isinstance(image, Tensor) else load_image(Path(image))


def _features(
    image: Picture, name: str, network: Seer
) -> Callable[[torch.device, torch.dtype, tuple[int, int] | None], Tensor]:
    """The cells of a reference picture, at a size or at its own, computed when first asked for."""
    from phosphene.image import resize

    picture = _loaded(image)
    real = _real_name(name, network)

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


def _likeness(
    name: str,
    layer: str,
    image: Picture,
    quantity: Callable[[Tensor, Tensor], Tensor] = lambda a, r: -(a - r).square().mean(-1),
) -> Objective:
    """The mean over positions of a quantity of the picture's and the reference's cells there.

    quantity: two of `(N, H, W, C) -> (N, H, W)`; the second may have an N of 1.
    """
    given = _checked(image)

    def bind(network: Seer) -> Objective:
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

    return replace(_unbound(name, (IMAGE, layer), bind), positional=True)


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


def _check_power(cossim_pow: float) -> None:
    if not (math.isfinite(cossim_pow) and cossim_pow >= 0):
        raise ObjectiveError(f"cossim_pow must be at least 0, got {cossim_pow}")


def _cosine(a: Tensor, b: Tensor, dot: Tensor) -> Tensor:
    """The cosine of vectors along the last axis, given their dot product; at least 0.1."""
    lengths = torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1)
    return (dot / (lengths + 1e-12)).clamp_min(0.1)


def _gram(a: Tensor) -> Tensor:
    vectors = a.flatten(1, 2)
    return vectors.mT @ vectors / vectors.shape[1]


def _class_index(name: str, network: Seer) -> int:
    if not network.classes:
        raise ObjectiveError(f"{network.name} has no class names; give the number, logit(281)")

    def plain(text: str) -> str:
        return " ".join(text.casefold().replace("_", " ").split())

    wanted = plain(name)
    classes = [plain(entry) for entry in network.classes]
    tests: list[Callable[[str], bool]] = [
        lambda entry: entry == wanted,
        lambda entry: wanted in map(str.strip, entry.split(",")),
        lambda entry: (
            bool(wanted) and re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", entry) is not None
        ),
    ]
    for test in tests:
        found = [index for index, entry in enumerate(classes) if test(entry)]
        if len(found) == 1:
            return found[0]
        if found:
            shown = ", ".join(f"{index} {network.classes[index]!r}" for index in found[:8])
            more = f" and {len(found) - 8} more" if len(found) > 8 else ""
            raise ObjectiveError(f"{name!r} fits several classes of {network.name}: {shown}{more}")
    raise ObjectiveError(f"{network.name} has no class {name!r}{suggest(name, network.classes)}")
