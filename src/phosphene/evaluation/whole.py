"""Score and gradient of a whole image: what the engine's `evaluate` is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from phosphene.engine import Evaluate
from phosphene.evaluation.scores import terms_of
from phosphene.evaluation.several import gradient_of, options_for, require_gradient
from phosphene.network import Network
from phosphene.objectives import Activations, Objective
from phosphene.runtime.capture import Same
from phosphene.runtime.device import exact
from phosphene.runtime.options import DEFAULT, Options


def whole(network: Network, objective: Objective, *, options: Options = DEFAULT) -> Evaluate:
    """Evaluate a bound objective on the whole image at once.

    Image `(N, 3, H, W)` -> score `(N,)` and d score / d image, both float32 (or as the image).

    Args:
        network: as prepared.
        objective: bound to it.
        options: how the network is run.
    """
    return shared(network, [objective], options=options)


def each(
    network: Network, objectives: Sequence[Objective], *, options: Options = DEFAULT
) -> Evaluate:
    """Evaluate several bound objectives on the same image: one pass forward, one backward for each.

    Image `(N, 3, H, W)` -> scores `(K, N)` and their gradients `(K, N, 3, H, W)`, each as `whole`
    gives it.

    Args:
        network: as prepared.
        objectives: K of them, bound to it.
        options: how the network is run.
    """
    layers = tuple(dict.fromkeys(layer for goal in objectives for layer in goal.layers))
    options = options_for(objectives, options)

    def evaluate(image: Tensor) -> tuple[Tensor, Tensor]:
        with exact(network.device), torch.enable_grad():
            image = image.detach().requires_grad_()
            activations = network.activations(image, layers, options=options)
            scores = [goal(activations) for goal in objectives]
        for goal, score in zip(objectives, scores, strict=True):
            require_gradient(score, network, goal.layers)
        del activations
        gradients = torch.empty((len(scores), *image.shape), dtype=image.dtype, device=image.device)
        for k, score in enumerate(scores):
            gradients[k] = gradient_of(score, image, keep=k + 1 < len(scores))
        return torch.stack([score.detach() for score in scores]), gradients

    return _captured(evaluate, network, objectives, options, "each")


def shared(
    network: Network,
    objectives: Sequence[Objective],
    *,
    transform_reference: Callable[[Tensor], Tensor] | None = None,
    options: Options = DEFAULT,
) -> Evaluate:
    """Evaluate several bound objectives in one pass, each on its own equal share of the batch.

    Of K objectives the first scores rows 0 to N / K − 1, and so on; as `whole` for one objective.

    Args:
        network: as prepared.
        objectives: bound to it.
        transform_reference: does to an objective's reference picture what has been done to the
            image, so that what is compared place by place stays in its place.
        options: how the network is run.
    """
    layers = tuple(dict.fromkeys(layer for goal in objectives for layer in goal.layers))
    options = options.unlinked()

    def evaluate(image: Tensor) -> tuple[Tensor, Tensor]:
        with exact(network.device), torch.enable_grad():
            image = image.detach().requires_grad_()
            activations = network.activations(image, layers, options=options)
            parts: list[Activations] = [activations]
            if len(objectives) > 1:
                # One split, since its gradient is one concatenation; a slice's is a map of zeros.
                rows = len(image) // len(objectives)
                split = {layer: a.split(rows) for layer, a in activations.items()}
                parts = [
                    {layer: split[layer][k] for layer in goal.layers}
                    for k, goal in enumerate(objectives)
                ]
            scores = [
                _scored(goal, part, network, transform_reference, options)
                for goal, part in zip(objectives, parts, strict=True)
            ]
            score = torch.cat(scores)
            require_gradient(score, network, layers)
        return score.detach(), gradient_of(score, image, keep=False)

    if transform_reference and any(goal.positional for goal in objectives):
        return evaluate  # what is done to a reference is chosen anew each time
    return _captured(evaluate, network, objectives, options, "shared")


def _captured(
    evaluate: Evaluate,
    network: Network,
    objectives: Sequence[Objective],
    options: Options,
    kind: str,
) -> Evaluate:
    """The same, by what is captured of it on the network: the next picture of a film finds it."""
    captures = network.captures
    # What saves memory has none for that, and what looks at operations would see none.
    plain = not options.captured or options.memory_efficient or options.plain_modules
    if captures is None or plain or not all(goal.pure for goal in objectives):
        return evaluate
    goals = tuple(Same.of(goal) for goal in objectives)

    def replayed(image: Tensor) -> tuple[Tensor, Tensor]:
        # By what may be set anew of a network, too.
        key = (kind, goals, options, network.shift, network.scale)
        score, gradient = captures.run(evaluate, image, key)
        return score, gradient

    return replayed


def _scored(
    goal: Objective,
    activations: Activations,
    network: Network,
    transform_reference: Callable[[Tensor], Tensor] | None,
    options: Options,
) -> Tensor:
    if transform_reference is None or not goal.positional:
        return goal(activations)
    total: Tensor | None = None
    for weight, term in terms_of(goal):
        if term.comparison is None:
            score = term(activations)
        else:
            with torch.no_grad():
                reference = transform_reference(term.comparison.picture)
                target = network.activations(reference, term.layers, options=options)
            rows = len(next(iter(activations.values())))
            if 1 < len(reference) < rows:  # several crops, of each image of the batch
                times = rows // len(reference)
                target = {name: a.repeat(times, *[1] * (a.ndim - 1)) for name, a in target.items()}
            score = term.comparison.score(activations, target)
        total = weight * score if total is None else total + weight * score
    assert total is not None
    return total
