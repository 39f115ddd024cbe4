"""Less memory for a gradient, and how much it takes.

PyTorch keeps the input of a convolution for the gradient of its weights, which nobody asks for
here, the output of a ReLU for its sign, and the place of each maximum in eight bytes. Within
`lean()` the same operations keep nothing, one byte a value, and two; the numbers are the same
but for the order of a few sums.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from phosphene import bands
from phosphene.fused import is_quick, thrift
from phosphene.network import Network
from phosphene.objectives import Objective
from phosphene.pooling import pooled, pooling_gradient
from phosphene.runtime.allocator import trim_to_limit

Pair = int | list[int] | tuple[int, ...]


class lean(TorchFunctionMode):  # noqa: N801 - reads as the function that it is used as
    """Within this context convolutions, ReLU and max-pooling keep less for the gradient.

    Results are unchanged, gradients with respect to the picture but for rounding. Operations whose
    weights ask for a gradient are left alone; a gradient cannot be differentiated again.
    """

    def __enter__(self) -> Any:
        self._thrift = thrift()
        self._thrift.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._thrift.__exit__(*error)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        trim_to_limit()
        if (ours := _OURS.get(func)) and torch.is_grad_enabled():
            return ours(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    learning = weight.requires_grad or (bias is not None and bias.requires_grad)
    if learning or not input.requires_grad or isinstance(padding, str) or input.ndim != 4:
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)  # pyright: ignore
    options = [_pair(stride), _pair(padding), _pair(dilation)]
    return _Convolution.apply(input, weight, bias, *options, groups)  # pyright: ignore


def _relu(input: Tensor, inplace: bool = False) -> Tensor:
    if not input.requires_grad:
        return F.relu(input, inplace)
    return _ReLU.apply(input, inplace)  # pyright: ignore[reportReturnType]


def _max_pool2d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    if not input.requires_grad or input.ndim != 4 or return_indices:
        plain: Any = F.max_pool2d
        return plain(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    stride = kernel_size if stride is None or stride == [] else stride
    options = [_pair(kernel_size), _pair(stride), _pair(padding), _pair(dilation)]
    return _MaxPool.apply(input, *options, ceil_mode)  # pyright: ignore[reportReturnType]


_OURS: dict[Any, Callable[..., Tensor]] = {
    torch.conv2d: _conv2d,
    F.relu: _relu,
    torch.relu: _relu,
    torch.relu_: lambda input: _relu(input, True),
    Tensor.relu: _relu,
    Tensor.relu_: lambda input: _relu(input, True),
    F.max_pool2d: _max_pool2d,
    torch.max_pool2d: _max_pool2d,
}


def _pair(value: Pair) -> list[int]:
    pair = [value] if isinstance(value, int) else list(value)
    return pair * 2 if len(pair) == 1 else pair


def _layout(map_: Tensor) -> tuple[torch.Size, dict[str, Any]]:
    """What `torch.empty` needs for a tensor like this one; only its shape will be read."""
    last = map_.is_contiguous(memory_format=torch.channels_last)
    form = torch.channels_last if last else torch.contiguous_format
    return map_.shape, {"dtype": map_.dtype, "device": map_.device, "memory_format": form}


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Any, *options: Any) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.like, ctx.options = _layout(input), options
        return torch.conv2d(input, weight, bias, *options)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        trim_to_limit()
        (weight,) = ctx.saved_tensors
        (shape, like), (stride, padding, dilation, groups) = ctx.like, ctx.options
        (slope, _, _) = torch.ops.aten.convolution_backward(
            grad,
            torch.empty(shape, **like),
            weight,
            None,
            stride,
            padding,
            dilation,
            False,
            [0, 0],
            groups,
            [True, False, False],
        )
        return slope, *[None] * 6


class _ReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, inplace: bool) -> Tensor:
        if inplace:
            ctx.mark_dirty(input)
        output = input.relu_() if inplace else input.relu()
        ctx.save_for_backward(output.bool())
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (positive,) = ctx.saved_tensors
        slope = torch.empty_like(grad)
        # Several times as fast as torch.where, and as a product of floats and bools.
        return torch.mul(grad, positive.view(torch.uint8), out=slope), None


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, *options: Any) -> Tensor:
        output, places = pooled(input, options, short=True)
        ctx.save_for_backward(places)
        ctx.shape, ctx.options = input.shape, options
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (places,) = ctx.saved_tensors
        return pooling_gradient(grad, ctx.shape, places, ctx.options), *[None] * 5


# How much -----------------------------------------------------------------------------------------

_KNOWN: weakref.WeakKeyDictionary[Network, dict[Any, float]] = weakref.WeakKeyDictionary()


def bytes_per_pixel(
    network: Network, objective: Objective, *, saving: bool = True, banded: bool = False
) -> float:
    """Bytes that the gradient of a bound objective takes at most, a px of the picture.

    Measured once, on noise of 256 px a side or what the network needs: every tensor that lives at
    the same time as others, weights and the picture aside. saving: within `lean()`. banded: of
    pictures that are so large that a program goes over them in bands (`bands.ENOUGH`); the noise
    is then as long as these.
    """
    known = _KNOWN.setdefault(network, {})
    key = (objective.layers, objective.text, saving, banded, is_quick())
    if key not in known:
        least = network.least_size(objective.layers)
        # Many times the least, or what convolutions without padding cut off would count.
        side = -(-max(4 * least, 256) // 32) * 32
        # As long as the shortest that is cut into bands, or what is around these would count.
        long = max(side, math.isqrt(bands.ENOUGH)) if banded else side
        dtype = torch.float64 if network.precision == "fp64" else torch.float32
        shape = (1, len(network.scale), long, side)
        image = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
        image = image.to(network.device).requires_grad_()

        def gradient(rows: int, columns: int) -> None:
            seen = image[..., :rows, :columns]
            with torch.enable_grad():
                score = objective.score(network.activations(seen, objective.layers))
            if score.requires_grad:
                torch.autograd.grad(score.sum(), seen)

        with lean() if saving else nullcontext(), bands.always() if banded else nullcontext():
            gradient(least, least)  # builds what stays
            known[key] = most_held(lambda: gradient(long, side)) / (long * side)
    return known[key]


def most_held(run: Callable[[], object]) -> int:
    """Bytes of the tensors that `run` makes and holds, when they are most."""
    with _Count() as count:
        run()
    return count.most


class _Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.held = self.most = 0
        self.seen: dict[int, weakref.ref[Any]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # To skip it PyTorch would import it: seconds, and 150 MiB of the memory that is measured.
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        inputs = {
            part.untyped_storage()._cdata
            for part in tree_leaves((args, kwargs))
            if isinstance(part, Tensor) and not part.is_mkldnn
        }
        result = func(*args, **(kwargs or {}))
        for part in tree_leaves(result):
            # A weight laid out for oneDNN has no storage to be seen, and stays.
            if isinstance(part, Tensor) and not part.is_mkldnn:
                storage = part.untyped_storage()
                key, size = storage._cdata, storage.nbytes()
                # What comes in and is not known was there before.
                if key not in self.seen and key not in inputs:
                    self.seen[key] = weakref.ref(storage, lambda _, k=key, n=size: self._gone(k, n))
                    self.held += size
                    self.most = max(self.most, self.held)
        return result

    def _gone(self, key: int, size: int) -> None:
        if self.seen.pop(key, None) is not None:
            self.held -= size
