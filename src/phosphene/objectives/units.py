"""Objectives of a network's units and of the picture itself."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene.errors import ObjectiveError, suggest
from phosphene.objectives.algebra import (
    Activations,
    LayerInfo,
    NetworkLike,
    Objective,
    Total,
    cells,
    cosine,
    gram,
    merged,
    per_position,
    real_name,
    token_grid,
    unbound,
)
from phosphene.objectives.checks import (
    channel_count,
    check_channels,
    check_choice,
    check_power,
    whole_number,
)
from phosphene.objectives.registry import OBJECTIVES, objective
from phosphene.objectives.text import IMAGE, LOGITS, name_text

Norm = Literal["mean_square", "mean", "sum", "l2", "half_sum_square"]


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
    check_choice("norm", norm, get_args(Norm))
    margin = whole_number("margin", margin)
    if margin == 0 and norm == "mean_square":
        whole = per_position(name, lambda a: a.square().mean(-1))
        return replace(whole, text=name_text(name))
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
    chosen = [whole_number("channel", index) for index in indices]
    if not chosen:
        raise ObjectiveError(f"channels({name_text(layer)}) needs at least one channel")

    def quantity(a: Tensor) -> Tensor:
        check_channels(layer, chosen, a.shape[-1])
        return sum((a[..., index] for index in chosen[1:]), a[..., chosen[0]]) / len(chosen)

    plain = per_position(layer, quantity)

    def bind(network: NetworkLike) -> Objective:
        check_channels(layer, chosen, channel_count(layer, network))
        return plain

    return replace(plain, text=f"{name_text(layer)}:{','.join(map(str, chosen))}", bind=bind)


@objective
def interpolate(layer: str, index: int, to_layer: str, to_index: int) -> Objective:
    """From one channel to another across the batch: (1 − t)·first + t·second, means over positions.

    t of picture n of N is n / (N − 1), from 0 to 1; of a single picture it is ½. lucid's
    `channel_interpolate`. Raises ObjectiveError, when bound, for a channel that is not there.
    """
    ends = ((layer, whole_number("channel", index)), (to_layer, whole_number("channel", to_index)))

    def density(activations: Activations) -> Mapping[str, Tensor]:
        count, device = len(activations[layer]), activations[layer].device
        t = torch.linspace(0, 1, count, device=device)[:, None, None] if count > 1 else 0.5
        pairs = []
        for (name, channel), share in zip(ends, (1 - t, t), strict=True):
            a = cells(activations, name)
            check_channels(name, [channel], a.shape[-1])
            pairs.append((name, a[..., channel] * share))
        return merged(pairs)

    def score(activations: Activations) -> Tensor:
        return functools.reduce(
            operator.add, (values.mean((1, 2)) for values in density(activations).values())
        )

    plain = Objective(tuple(dict.fromkeys((layer, to_layer))), score, density=density)

    def bind(network: NetworkLike) -> Objective:
        for name, channel in ends:
            check_channels(name, [channel], channel_count(name, network))
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
        grams = F.normalize(gram(cells(activations, layer)).flatten(1), dim=1)
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
    chosen = whole_number("channel", index)
    row = None if y is None else whole_number("y", y)
    column = None if x is None else whole_number("x", x)
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
        check_channels(layer, [chosen], a.shape[-1])
        height, width = a.shape[1:3]
        at_y = height // 2 if row is None else row
        at_x = width // 2 if column is None else column
        if at_y >= height or at_x >= width:
            raise ObjectiveError(
                f"neuron at y={at_y}, x={at_x} is outside of {layer}'s "
                f"{height}×{width} (H×W) positions for this picture"
            )
        return a[:, at_y, at_x, chosen]

    def bind(network: NetworkLike) -> Objective:
        check_channels(layer, [chosen], channel_count(layer, network))
        if layer == IMAGE:
            return Objective((layer,), score, positional=placed)
        info: LayerInfo = network.layers[real_name(layer, network)]
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
    check_power(cossim_pow)

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
        return dot * cosine(a, toward, dot) ** cossim_pow

    plain = per_position(layer, quantity)

    def bind(network: NetworkLike) -> Objective:
        check(channel_count(layer, network))
        return plain

    return replace(plain, bind=bind)


@objective
def logit(which: int | str) -> Objective:
    """The score of one class before the softmax, by number or by name.

    Names match whatever their case: in full, as one of several in "tabby, tabby cat", or by whole
    words of them. Raises ObjectiveError, when bound, for a name that no class or several classes
    have, which it lists, and for a number that is too large.
    """
    index = which if isinstance(which, str) else whole_number("the class", which)

    def picked(index: int) -> Objective:
        return Objective(
            (LOGITS,), lambda activations: cells(activations, LOGITS)[..., index].mean((1, 2))
        )

    def bind(network: NetworkLike) -> Objective:
        found = _class_index(index, network) if isinstance(index, str) else index
        count = channel_count(LOGITS, network)
        if count is not None and found >= count:
            raise ObjectiveError(
                f"{network.name} has {count} classes, 0 to {count - 1}; there is no class {found}"
            )
        return picked(found)

    plain = unbound("logit", (LOGITS,)) if isinstance(index, str) else picked(index)
    return replace(plain, bind=bind)


def _class_index(name: str, network: NetworkLike) -> int:
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
