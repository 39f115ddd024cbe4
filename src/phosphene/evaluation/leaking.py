"""ReLUs that leak a gradient where none would pass, for units that an image leaves dead."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def leaking_relus() -> AbstractContextManager[object]:
    """Inside, the gradient leaks through ReLUs that would let none of it pass.

    Networks are to be run with `Options(plain_modules=True)`: of what is fused it sees nothing.

    Forward nothing changes. Where of one image nothing gets through a ReLU, what would raise its
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
        (gradient,) = gradients
        passes, below = ctx.saved_tensors
        usual = gradient * passes
        leaked = gradient * ~(below & (gradient < 0))
        through = usual.flatten(1).abs().amax(1) > 0
        return torch.where(through.view(-1, *[1] * (gradient.ndim - 1)), usual, leaked), None
