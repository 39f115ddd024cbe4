"""Score and gradient of a picture: what the engine's `evaluate` is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from phosphene.engine import Evaluate
from phosphene.errors import NetworkError
from phosphene.network import Network
from phosphene.objectives import Activations, Objective
from phosphene.runtime.options import DEFAULT, Options


def whole(network: Network, objective: Objective, *, options: Options = DEFAULT) -> Evaluate:
    """Evaluate a bound objective on the whole picture at once.

    Image `(N, 3, H, W)` -> score `(N,)` and d score / d image, both float32 (or as the image).
    options: how the network is run.
    """
    return shared(network, [objective], options=options)


def shared(
    network: Network,
    objectives: Sequence[Objective],
    *,
    alike: Callable[[Tensor], Tensor] | None = None,
    options: Options = DEFAULT,
) -> Evaluate:
    """Evaluate several bound objectives in one pass, each on its own equal share of the batch.

    Of K objectives the first scores rows 0 to N / K − 1, and so on; as `whole` for one objective.
    alike: does to an objective's reference picture what has been done to the picture, so that
        what is compared place by place stays in its place.
    options: how the network is run.
    """
    layers = tuple(dict.fromkeys(layer for goal in objectives for layer in goal.layers))

    def evaluate(image: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
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
                _scored(goal, part, network, alike, options)
                for goal, part in zip(objectives, parts, strict=True)
            ]
            score = torch.cat(scores)
            if not score.requires_grad:
                raise NetworkError(
                    f"{network.name} gives no gradient from {', '.join(layers)} to the picture: "
                    "the layer's output is whole numbers, or was computed without gradients"
                )
            (gradient,) = torch.autograd.grad(score.sum(), image)
        return score.detach(), gradient

    return evaluate


def _scored(
    goal: Objective,
    activations: Activations,
    network: Network,
    alike: Callable[[Tensor], Tensor] | None,
    options: Options,
) -> Tensor:
    if alike is None or not goal.positional:
        return goal(activations)
    total: Tensor | None = None
    for weight, term in goal.terms or ((1.0, goal),):
        if term.comparison is None:
            score = term(activations)
        else:
            with torch.no_grad():
                reference = alike(term.comparison.picture)
                beside = network.activations(reference, term.layers, options=options)
            rows = len(next(iter(activations.values())))
            if (
                1 < len(reference) < rows
            ):  # several parts of a picture, of each picture of the batch
                beside = {layer: a.repeat(rows // len(reference), *[1] * (a.ndim - 1))
                          for layer, a in beside.items()}  # fmt: skip
            score = term.comparison.score(activations, beside)
        total = weight * score if total is None else total + weight * score
    assert total is not None
    return total


# Dead units ---------------------------------------------------------------------------------------


def leaking_relus() -> AbstractContextManager[object]:
    """Inside, the gradient leaks through ReLUs that would let none of it pass.

    Networks are to be run with `Options(plain_modules=True)`: of what is fused it sees nothing.

    Forward nothing changes. Where of one picture nothing gets through a ReLU, what would raise its
    negative inputs does; what would lower them further does not. It holds for modules and functions
    alike and leaves nothing behind. lucid's `redirected_relu_grad`, after Olah et al. 2017.
    """
    return _Leaking()


class _Leaking(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func not in _RELUS:
            return func(*args, **kwargs)
        top, in_place = _RELUS[func]
        values, *rest = args or (kwargs["input"],)
        if func in (F.hardtanh, F.hardtanh_):  # what nn.ReLU6 calls
            low = rest.pop(0) if rest else kwargs.get("min_val", -1.0)
            top = rest.pop(0) if rest else kwargs.get("max_val", 1.0)
            if low != 0:
                return func(*args, **kwargs)
        in_place = in_place or bool(rest[0] if rest else kwargs.get("inplace", False))
        result = _LeakingRelu.apply(values, top)
        return values.copy_(result) if in_place else result


# The function -> where it ends above, and whether it works in place.
_RELUS: dict[Any, tuple[float | None, bool]] = {
    F.relu: (None, False),
    torch.relu: (None, False),
    Tensor.relu: (None, False),
    F.relu_: (None, True),
    torch.relu_: (None, True),
    Tensor.relu_: (None, True),
    F.relu6: (6.0, False),
    F.hardtanh: (None, False),
    F.hardtanh_: (None, True),
}


class _LeakingRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, top: float | None) -> Tensor:
        # Masks, not the values, which may be overwritten in place.
        passes = values > 0 if top is None else (values > 0) & (values < top)
        ctx.save_for_backward(passes, values < 0)
        return values.clamp(0, top)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (grad,) = gradients
        passes, below = ctx.saved_tensors
        usual = grad * passes
        leaked = grad * ~(below & (grad < 0))
        through = usual.flatten(1).abs().amax(1) > 0
        return torch.where(through.view(-1, *[1] * (grad.ndim - 1)), usual, leaked), None
