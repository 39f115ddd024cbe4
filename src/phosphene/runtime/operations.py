"""The operations of a program: what each gives, and its gradient, written out.

What autograd would do for any module is done here for a frozen one: convolution and ReLU are one
call, the gradient of a convolution is a convolution with the weights turned round, parallel
convolutions of one map give theirs in one call, and nothing is saved that only a weight's gradient
would need. What has no form of its own here goes through autograd, operation by operation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene.runtime import pooling
from phosphene.runtime.autograd import MemoryEfficientAutograd
from phosphene.runtime.convolutions import Convolver, Geometry, Library, Pair
from phosphene.runtime.options import Options
from phosphene.runtime.pooling import LAST, max_pool, max_pool_backward

# Bytes of a map above which it is pooled some rows at a time; fewer at a time take longer.
ROWWISE_BYTES = 64 * 2**20


class UnfitError(Exception):
    """The graph holds something that no program can be made of; the module itself still runs."""


class Gradient(NamedTuple):
    """A gradient on its way back, and whether it may be written over."""

    value: Tensor
    writable: bool


class Window(NamedTuple):
    """What a position of a result sees of each input along a side, and how they lie there.

    extent: positions from the first to the last. ceil_mode: the number of windows is rounded up.
    """

    extent: int = 1
    stride: int = 1
    padding: int = 0
    ceil_mode: bool = False


class Operation(Protocol):
    """One operation: `backward` gives a gradient for each input of `forward`.

    What `forward` gives besides its output is `saved` for `backward`, which is given the output
    only where `needs_output` says so.
    """

    # gated: bool, of some: the gradient stops where the output is not above 0.

    def window(self, axis: int) -> Window | None:
        """Along the rows (0) or columns (1); None where a result is no map of such windows."""
        ...

    def forward(
        self, inputs: Sequence[Tensor], options: Options, save: bool
    ) -> tuple[Tensor, Any]: ...

    def backward(self, grad: Gradient, output: Tensor | None, saved: Any) -> Sequence[Gradient]: ...


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution, with the ReLU after it if nothing else sees what is between them."""

    weight: Tensor
    bias: Tensor | None
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    library: Library
    relu: bool = False
    gated: bool = False

    @property
    def parallel_key(self) -> object:
        """Alike for convolutions whose gradients can be had in one; None where in none."""
        if self.stride != (1, 1) or self.dilation != (1, 1) or self.groups != 1:
            return None
        kernel = tuple(self.weight.shape[2:])
        if any(p >= k for p, k in zip(self.padding, kernel, strict=True)):
            return None
        return kernel, self.padding

    def window(self, axis: int) -> Window:
        extent = self.dilation[axis] * (self.weight.shape[2 + axis] - 1) + 1
        return Window(extent, self.stride[axis], self.padding[axis])

    def forward(self, inputs: Sequence[Tensor], options: Options, save: bool) -> tuple[Tensor, Any]:
        (x,) = inputs
        return self.convolver.forward(x), x.shape

    def backward(self, grad: Gradient, output: Tensor | None, saved: Any) -> Sequence[Gradient]:
        passed = gate_gradient(grad, output).value
        return [Gradient(self.convolver.input_gradient(passed, saved), True)]

    @functools.cached_property
    def convolver(self) -> Convolver:
        geometry = Geometry(self.stride, self.padding, self.dilation, self.groups)
        return self.library.convolver(self.weight, self.bias, geometry, relu=self.relu)


@dataclass(frozen=True, eq=False)
class ParallelConvolutions:
    """Stride-1 convolutions of one map, whose gradients to it come of one call."""

    members: tuple[Convolution, ...]

    @functools.cached_property
    def transposed(self) -> Tensor:
        """The weights of a convolution that goes the other way."""
        weight = torch.cat([member.weight for member in self.members])
        return weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=LAST)

    @functools.cached_property
    def convolver(self) -> Convolver:
        first = self.members[0]
        down, right = (
            k - 1 - p for k, p in zip(first.weight.shape[2:], first.padding, strict=True)
        )
        return first.library.convolver(self.transposed, None, Geometry(padding=(down, right)))

    def backward(self, grads: Tensor, onto: Gradient | None) -> Gradient:
        """grads: those before the ReLUs, one after the other along the channels; onto: added."""
        if onto is not None and onto.writable:
            return Gradient(self.convolver.forward_onto(grads, onto.value), True)
        value = self.convolver.forward(grads)
        return Gradient(value if onto is None else value.add_(onto.value), True)


@dataclass(frozen=True, eq=False)
class ReLU:
    gated: bool = False

    def window(self, axis: int) -> Window:
        return Window()

    def forward(self, inputs: Sequence[Tensor], options: Options, save: bool) -> tuple[Tensor, Any]:
        return inputs[0].relu(), None

    def backward(self, grad: Gradient, output: Tensor | None, saved: Any) -> Sequence[Gradient]:
        return [gate_gradient(grad, output)]


@dataclass(frozen=True, eq=False)
class MaxPool:
    arguments: tuple[Any, ...]  # `pooling.PoolWindow`
    nonnegative: bool = False  # what it is given is nowhere below 0
    gated: bool = False

    def window(self, axis: int) -> Window:
        kernel, stride, padding, dilation, ceil_mode = self.arguments
        extent = dilation[axis] * (kernel[axis] - 1) + 1
        return Window(extent, stride[axis], padding[axis], ceil_mode)

    def forward(self, inputs: Sequence[Tensor], options: Options, save: bool) -> tuple[Tensor, Any]:
        (x,) = inputs
        output, indices = max_pool(
            x,
            self.arguments,
            numba=options.numba_pooling,
            compact=save and options.memory_efficient,
            nonnegative=self.nonnegative,
            gated=self.gated,
            beside=options.numba_beside,
        )
        return output, (x.shape, indices)

    def backward(self, grad: Gradient, output: Tensor | None, saved: Any) -> Sequence[Gradient]:
        shape, indices = saved
        grad = gate_gradient(grad, output)
        return [Gradient(max_pool_backward(grad.value, shape, indices, self.arguments), True)]


@dataclass(frozen=True, eq=False)
class PooledConvolution:
    """A max-pooling that only a 1×1 convolution sees, where maps are large some rows at a time.

    Then neither what is pooled nor its gradient, each as large as the input, is there as a whole.
    """

    pool: MaxPool
    convolution: Convolution
    gated: bool = False

    @property
    def relu(self) -> bool:
        return self.convolution.relu

    def window(self, axis: int) -> Window:
        return self.pool.window(axis)

    def forward(self, inputs: Sequence[Tensor], options: Options, save: bool) -> tuple[Tensor, Any]:
        (x,) = inputs
        if not self._by_rows(x, options, save):
            between, saved = self.pool.forward(inputs, options, save)
            output, _ = self.convolution.forward([between], options, save)
            return output, saved
        indices = pooling.empty_indices(x, self.pool.arguments)
        output: Tensor | None = None
        for n, rows in self._bands(indices):
            between = pooling.max_pool_rows(x[n], indices[n], self.pool.arguments, rows)
            part, _ = self.convolution.forward([between], options, save)
            if len(part) == len(x) and part.shape[2:] == indices.shape[2:]:
                return part, (x.shape, indices)
            if output is None:
                shape = (len(x), part.shape[1], *indices.shape[2:])
                output = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=LAST)
            output[n, :, slice(*rows)] = part
        assert output is not None
        return output, (x.shape, indices)

    def backward(
        self, grad: Gradient, output: Tensor | None, saved: Any, onto: Gradient | None = None
    ) -> Sequence[Gradient]:
        """onto: the gradient that its input has of others already, to which this one is added."""
        grad = gate_gradient(grad, output)
        shape, indices = saved
        if indices.dtype != torch.uint8:
            between = self._transposed.backward(grad.value, None)
            (found,) = self.pool.backward(between, None, saved)
            return [found if onto is None else add_gradients(onto, found)]
        if onto is None:
            total = torch.empty(shape, dtype=grad.value.dtype, memory_format=LAST)
        else:
            laid = onto.value.contiguous(memory_format=LAST)
            shared = laid is onto.value and not onto.writable
            total = laid.clone(memory_format=LAST) if shared else laid
        for n, rows in self._bands(total):
            first, last = pooling.windows_reaching(rows, indices.shape[2], self.pool.arguments)
            between = self._transposed.backward(grad.value[n, :, first:last], None).value
            pooling.max_pool_backward_rows(
                between, indices[n], total[n], self.pool.arguments, rows, onto=onto is not None
            )
        return [Gradient(total, True)]

    @functools.cached_property
    def _transposed(self) -> ParallelConvolutions:
        return ParallelConvolutions((self.convolution,))

    def _by_rows(self, x: Tensor, options: Options, save: bool) -> bool:
        return pooling.numba_takes(
            x,
            self.pool.arguments,
            wait=options.numba_pooling,
            nonnegative=self.pool.nonnegative,
            # As `max_pool` has it: other gradients come of compact indices.
            beside=options.numba_beside and not (save and options.memory_efficient),
        )

    def _bands(self, map_: Tensor) -> Iterator[tuple[slice, tuple[int, int]]]:
        """Pictures, and rows of each, of a map of this size; all at once if that is little."""
        count, channels, height, width = map_.shape
        row = channels * width * self.convolution.weight.itemsize
        if row * height * count <= ROWWISE_BYTES:
            yield slice(None), (0, height)
            return
        some = max(ROWWISE_BYTES // row, 1)
        for n in range(count):
            for first in range(0, height, some):
                yield slice(n, n + 1), (first, min(first + some, height))


@dataclass(frozen=True, eq=False)
class AveragePool:
    """One of an odd kernel that keeps the size, padding counted: it is its own gradient."""

    kernel: list[int]

    def window(self, axis: int) -> Window:
        return Window(self.kernel[axis], 1, self.kernel[axis] // 2)

    def forward(self, inputs: Sequence[Tensor], options: Options, save: bool) -> tuple[Tensor, Any]:
        return self._averaged(inputs[0]), None

    def backward(self, grad: Gradient, output: Tensor | None, saved: Any) -> Sequence[Gradient]:
        return [Gradient(self._averaged(grad.value), True)]

    def _averaged(self, values: Tensor) -> Tensor:
        return F.avg_pool2d(values, self.kernel, 1, [side // 2 for side in self.kernel])


@dataclass(frozen=True, eq=False)
class Concatenation:
    gated: bool = False

    def window(self, axis: int) -> Window:
        return Window()

    def forward(self, inputs: Sequence[Tensor], options: Options, save: bool) -> tuple[Tensor, Any]:
        return torch.cat(list(inputs), 1), [x.shape[1] for x in inputs]

    def backward(self, grad: Gradient, output: Tensor | None, saved: Any) -> Sequence[Gradient]:
        grad = gate_gradient(grad, output)
        return [Gradient(part, grad.writable) for part in grad.value.split(saved, 1)]


@dataclass(frozen=True, eq=False)
class Sum:
    def window(self, axis: int) -> None:
        return None  # one of the two may be spread over the other

    def forward(self, inputs: Sequence[Tensor], options: Options, save: bool) -> tuple[Tensor, Any]:
        return inputs[0] + inputs[1], [x.shape for x in inputs]

    def backward(self, grad: Gradient, output: Tensor | None, saved: Any) -> Sequence[Gradient]:
        # Both get the same tensor, so that neither may write over it.
        return [Gradient(grad.value.sum_to_size(shape), False) for shape in saved]


@dataclass(frozen=True, eq=False)
class Identity:
    """What does nothing in evaluation mode."""

    def window(self, axis: int) -> Window:
        return Window()

    def forward(self, inputs: Sequence[Tensor], options: Options, save: bool) -> tuple[Tensor, Any]:
        return inputs[0], None

    def backward(self, grad: Gradient, output: Tensor | None, saved: Any) -> Sequence[Gradient]:
        return [grad]


@dataclass(frozen=True, eq=False)
class AutogradOperation:
    """Any operation of tensors that gives one tensor, by way of autograd."""

    call: Callable[[Sequence[Tensor]], Any]
    pointwise: bool = False  # each position by itself

    def window(self, axis: int) -> Window | None:
        return Window() if self.pointwise else None

    def forward(self, inputs: Sequence[Tensor], options: Options, save: bool) -> tuple[Tensor, Any]:
        if not save:
            return self._called(inputs), None
        with (
            torch.enable_grad(),
            MemoryEfficientAutograd() if options.memory_efficient else nullcontext(),
        ):
            leaves = [x.detach().requires_grad_() for x in inputs]
            output = self._called(leaves)
        if not output.requires_grad:
            raise UnfitError("an operation without a gradient")
        several = options.backward_passes > 1
        again = several or (options.linked and not options.memory_efficient)
        return output.detach(), (leaves, output, again)

    def backward(self, grad: Gradient, output: Tensor | None, saved: Any) -> Sequence[Gradient]:
        leaves, result, again = saved
        # A graph that is kept goes with `saved`.
        found = torch.autograd.grad(
            result, leaves, grad.value, retain_graph=again, allow_unused=True
        )
        return [
            Gradient(torch.zeros_like(x) if g is None else g, False)
            for x, g in zip(leaves, found, strict=True)
        ]

    def _called(self, inputs: Sequence[Tensor]) -> Tensor:
        output = self.call(inputs)
        if not isinstance(output, Tensor) or not output.is_floating_point():
            raise UnfitError("an operation that gives no tensor of real numbers")
        return output


def gate_gradient(grad: Gradient, gate: Tensor | None, into: Tensor | None = None) -> Gradient:
    """A gradient, made 0 where the output of a ReLU, or the mask of it, is 0; written to `into`."""
    if gate is None:
        return grad if into is None else Gradient(into.copy_(grad.value), True)
    if into is None:
        layout = LAST if grad.value.ndim == 4 else torch.contiguous_format  # of vectors and tokens
        into = grad.value if grad.writable else torch.empty_like(grad.value, memory_format=layout)
    if gate.dtype == torch.bool:
        # Several times as fast as torch.where, and as a product of floats and bools.
        return Gradient(torch.mul(grad.value, gate.view(torch.uint8), out=into), True)
    torch.ops.aten.threshold_backward.grad_input(grad.value, gate, 0, grad_input=into)
    return Gradient(into, True)


def add_gradients(one: Gradient, other: Gradient) -> Gradient:
    """Their sum, in one of them if that may be."""
    if one.writable:
        return Gradient(one.value.add_(other.value), True)
    if other.writable:
        return Gradient(other.value.add_(one.value), True)
    return Gradient(one.value + other.value, True)


def needs_output(operation: object, saved: Any) -> bool:
    """Whether `backward` asks where the output is above 0; indices of one byte say it."""
    if isinstance(operation, MaxPool) and saved[1].dtype == torch.uint8:
        return False
    return getattr(operation, "gated", False)
