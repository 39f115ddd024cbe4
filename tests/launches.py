"""About how many kernels a card would start, counted on the processor."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from phosphene.runtime.graph import first_of

# What only looks at a tensor in another way, or has no values yet.
FREE = (
    *("alias", "as_strided", "detach", "empty", "expand", "lift", "narrow", "new_empty", "permute"),
    *("select", "slice", "split", "squeeze", "t.default", "transpose", "unsqueeze", "view"),
    *("_reshape_alias", "_unsafe_view"),
)


class Launches(TorchDispatchMode):
    """Operations that compute something on a device, by name; the bias of a convolution is one
    more."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        self.device, self.found = device, Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(func).removeprefix("aten.")
        here = first_of(result, Tensor)
        if here is not None and here.device.type == self.device and not name.startswith(FREE):
            self.found[name] += 1
            if name == "convolution.default" and args[2] is not None:
                self.found["bias"] += 1
        return result
