"""Score and gradient of a picture: what the engine's `evaluate` is made of."""

from __future__ import annotations

import torch
from torch import Tensor

from phosphene.engine import Evaluate
from phosphene.errors import NetworkError
from phosphene.network import Network
from phosphene.objectives import Objective


def whole(network: Network, objective: Objective) -> Evaluate:
    """Evaluate a bound objective on the whole picture at once.

    Image `(N, 3, H, W)` -> score `(N,)` and d score / d image, both float32 (or as the image).
    """

    def evaluate(image: Tensor) -> tuple[Tensor, Tensor]:
        image = image.detach().requires_grad_()
        score = objective.score(network.activations(image, objective.layers))
        if not score.requires_grad:
            raise NetworkError(
                f"{network.name} gives no gradient from {', '.join(objective.layers)} to the "
                "picture: the layer's output is whole numbers, or was computed without gradients"
            )
        (slope,) = torch.autograd.grad(score.sum(), image)
        return score.detach(), slope

    return evaluate
