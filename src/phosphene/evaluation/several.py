"""Several objectives of one image, apart: one pass forward for all, and one backward for each.

What takes an objective here also takes a sequence of K: scores are then `(K, N)`, and gradients
`(K, N, 3, H, W)`, in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from phosphene.errors import NetworkError
from phosphene.network import Network
from phosphene.objectives import Objective, combine
from phosphene.runtime.device import exact
from phosphene.runtime.options import Options

Objectives = Objective | Sequence[Objective]


def each_of(objectives: Objectives) -> tuple[Objective, ...]:
    """Them one by one; of a single objective that one."""
    return (objectives,) if isinstance(objectives, Objective) else tuple(objectives)


def joint(objectives: Objectives) -> Objective:
    """Their sum: what it needs, each finds in it. One objective is itself."""
    if isinstance(objectives, Objective):
        return objectives
    return combine((1.0, objective) for objective in objectives)


def stacked(objectives: Objectives, found: Tensor) -> Tensor:
    """`(K, …)` as it is for several objectives; without the first axis for one."""
    return found[0] if isinstance(objectives, Objective) else found


def options_for(objectives: Objectives, options: Options) -> Options:
    """The same options for as many gradients of one pass, each with respect to the image alone."""
    return replace(options, backward_passes=len(each_of(objectives)), linked=False)


def gradient_of(score: Tensor, image: Tensor, *, keep: bool) -> Tensor:
    """d score `(N,)` / d image; `keep`: what another gradient of this pass needs, stays."""
    with exact(image.device):
        (gradient,) = torch.autograd.grad(score.sum(), image, retain_graph=keep)
    return gradient


def require_gradient(score: Tensor, network: Network, layers: Sequence[str]) -> None:
    """NetworkError if no gradient of a score reaches the image."""
    if not score.requires_grad:
        raise NetworkError(
            f"{network.name} gives no gradient from {', '.join(layers)} to the picture: "
            "the layer's output is whole numbers, or was computed without gradients"
        )
