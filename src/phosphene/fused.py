"""A cut network as a program for the processor: its answer and its gradient, written out.

What autograd would do for any module is done here once, for a frozen one: convolution and ReLU are
one call, the gradient of a convolution is a convolution with the weights turned round, parallel
convolutions of one map give theirs in one call, and nothing is kept that only a weight's gradient
would need. What has no form of its own here goes through autograd, operation by operation.

Weights are laid out as the processor wants them once a size comes a second time: the layout changes
with the size of the picture, and a wrong one costs more than laying them out by the way.
"""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable
from torch.fx.node import map_arg

from phosphene import pooling
from phosphene.context import inside
from phosphene.pooling import LAST, pooled, pooling_gradient
from phosphene.runtime.allocator import trim_to_limit

Pair = tuple[int, int]
# A strided convolution of so few channels has a slow gradient of its own: that of the picture.
FEW_CHANNELS = 4
# Bytes of a map above which it is pooled some rows at a time; fewer at a time take longer.
AT_ONCE = 64 * 2**20

_stepped_aside: ContextVar[bool] = ContextVar("stepped_aside", default=False)
_thrifty: ContextVar[bool] = ContextVar("thrifty", default=False)
# Whether there is so much to do that max-pooling is worth a library of its own.
_quick: ContextVar[bool] = ContextVar("quick", default=False)


class UnfitError(Exception):
    """The graph holds something that no program can be made of; the module itself still runs."""


def aside() -> AbstractContextManager[None]:
    """Inside, networks run as the modules they are: for what looks at single operations."""
    return inside(_stepped_aside, True)


def stepped_aside() -> bool:
    """Whether we are `aside`."""
    return _stepped_aside.get()


def thrift() -> AbstractContextManager[None]:
    """Inside, less is kept for the gradient, which takes a little longer."""
    return inside(_thrifty, True)


def quick(wanted: bool = True) -> AbstractContextManager[None]:
    """Inside, max-pooling is Numba's if it is `wanted`, as it is otherwise of large pictures only.

    So that all pictures of one dream, of which only some are large, are treated alike.
    """
    return inside(_quick, _quick.get() or wanted)


def is_quick() -> bool:
    """Whether we are inside `quick`."""
    return _quick.get()


def is_thrifty() -> bool:
    """Whether we are inside `thrift`."""
    return _thrifty.get()


class Slope(NamedTuple):
    """A gradient on its way, and whether it is ours to write over."""

    value: Tensor
    ours: bool


class Window(NamedTuple):
    """What a position of a result sees of each input along a side, and how they lie there.

    extent: positions from the first to the last; up: whether the number of windows is rounded up.
    """

    extent: int = 1
    stride: int = 1
    padding: int = 0
    up: bool = False


class _Operation(Protocol):
    """One operation: `backward` gives a gradient for each input of `forward`."""

    # gated: bool, of some: the gradient stops where the output is not above 0.

    def window(self, axis: int) -> Window | None:
        """Along the rows (0) or columns (1); None where a result is no map of such windows."""
        ...

    def forward(self, inputs: Sequence[Tensor], keep: bool) -> tuple[Tensor, Any]: ...

    def backward(self, slope: Slope, output: Tensor | None, kept: Any) -> Sequence[Slope]: ...


# Operations ---------------------------------------------------------------------------------------


class _LaidOut:
    """A convolution's weight as oneDNN wants it for the size of map that came twice in a row."""

    def __init__(self, weight: Tensor, *options: Any) -> None:
        self.weight, self.options = weight, options
        # In one piece, as threads may share it: the size, and the weight once it came again.
        self.known: tuple[torch.Size | None, Tensor | None] = (None, None)

    def for_map(self, size: torch.Size) -> Tensor:
        known, laid = self.known
        if size != known:
            self.known = (size, None)
            return self.weight
        if laid is None:
            reorder: Any = torch.ops.mkldnn._reorder_convolution_weight
            laid = reorder(self.weight, *self.options, list(size))
            self.known = (size, laid)
        return laid


@dataclass(frozen=True, eq=False)
class _Convolution:
    """A convolution, with the ReLU after it if nothing else sees what is between them."""

    weight: Tensor
    bias: Tensor | None
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    relu: bool = False
    gated: bool = False

    @property
    def key(self) -> object:
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

    def forward(self, inputs: Sequence[Tensor], keep: bool) -> tuple[Tensor, Any]:
        (x,) = inputs
        output = torch.ops.mkldnn._convolution_pointwise(
            x,
            self.laid_out.for_map(x.shape),
            self.bias,
            self.padding,
            self.stride,
            self.dilation,
            self.groups,
            "relu" if self.relu else "none",
            [],
            "",
        )
        return output, x.shape

    @functools.cached_property
    def laid_out(self) -> _LaidOut:
        options = self.padding, self.stride, self.dilation, self.groups
        return _LaidOut(self.weight, *options)

    def backward(self, slope: Slope, output: Tensor | None, kept: Any) -> Sequence[Slope]:
        passed = _gated(slope, output).value
        if self.stride[0] > 1 and self._of_a_picture:
            return [Slope(self._spread(passed, kept), True)]
        values, _, _ = torch.ops.aten.convolution_backward(
            passed,
            torch.empty(kept, dtype=passed.dtype, memory_format=LAST),
            self.weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            False,
            [0, 0],
            self.groups,
            [True, False, False],
        )
        return [Slope(values, True)]

    @property
    def _of_a_picture(self) -> bool:
        return (
            self.weight.shape[1] <= FEW_CHANNELS
            and self.groups == 1
            and self.dilation == (1, 1)
            and len({*self.stride}) == len({*self.padding}) == len({*self.weight.shape[2:]}) == 1
        )

    def _spread(self, slope: Tensor, shape: torch.Size) -> Tensor:
        """The gradient with respect to a picture under stride: a convolution gives all px of a
        stride's square as channels, and a shuffle lays them out."""
        step = self.stride[0]
        weight, first, last = self._by_square
        height, width = (-(-side // step) for side in shape[-2:])
        # One padding for both ends, enough for either; what is too much in front is left out.
        before = -first
        pad = [
            max(before, side - 1 + last - (given - 1), 0)
            for side, given in zip((height, width), slope.shape[-2:], strict=True)
        ]
        squares = torch.ops.mkldnn._convolution_pointwise(
            slope, weight, None, pad, [1, 1], [1, 1], 1, "none", [], ""
        )
        down, right = pad[0] - before, pad[1] - before
        squares = squares[..., down : down + height, right : right + width]
        return F.pixel_shuffle(squares, step)[..., : shape[-2], : shape[-1]]

    @functools.cached_property
    def _by_square(self) -> tuple[Tensor, int, int]:
        """Weights from outputs i + u, u from `first` to `last`, to the px of square i."""
        step, padding, kernel = self.stride[0], self.padding[0], self.weight.shape[2]
        # Output i takes px step * i - padding + k; so px step * i + a takes outputs i + u with
        # k = a + padding - step * u.
        first = -((kernel - 1 - padding) // step)
        last = (step - 1 + padding) // step
        span = last - first + 1
        taps = [
            (a, u - first, a + padding - step * u)
            for a in range(step)
            for u in range(first, last + 1)
            if 0 <= a + padding - step * u < kernel
        ]
        spread = self.weight.new_zeros(
            self.weight.shape[1], step, step, len(self.weight), span, span
        )
        for a, u, k in taps:
            for b, v, m in taps:
                spread[:, a, b, :, u, v] = self.weight[:, :, k, m].T
        return spread.flatten(0, 2).contiguous(memory_format=LAST), first, last


@dataclass(frozen=True, eq=False)
class _Siblings:
    """Stride-1 convolutions of one map, whose gradients to it come of one call."""

    members: tuple[_Convolution, ...]

    @functools.cached_property
    def turned(self) -> Tensor:
        """The weights of a convolution that goes the other way."""
        weight = torch.cat([member.weight for member in self.members])
        return weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=LAST)

    @functools.cached_property
    def padding(self) -> list[int]:
        first = self.members[0]
        return [k - 1 - p for k, p in zip(first.weight.shape[2:], first.padding, strict=True)]

    @functools.cached_property
    def laid_out(self) -> _LaidOut:
        return _LaidOut(self.turned, self.padding, [1, 1], [1, 1], 1)

    def backward(self, slopes: Tensor, onto: Slope | None) -> Slope:
        """slopes: those before the ReLUs, one after the other along the channels."""
        weight = self.laid_out.for_map(slopes.shape)
        given = slopes, weight, None, self.padding, [1, 1], [1, 1], 1
        if onto is not None and onto.ours and onto.value.is_contiguous(memory_format=LAST):
            add: Any = torch.ops.mkldnn._convolution_pointwise_.binary
            return Slope(add(onto.value, *given, "add", 1.0, None, [], None), True)
        value = torch.ops.mkldnn._convolution_pointwise(*given, "none", [], "")
        return Slope(value if onto is None else value.add_(onto.value), True)


@dataclass(frozen=True, eq=False)
class _ReLU:
    gated: bool = False

    def window(self, axis: int) -> Window:
        return Window()

    def forward(self, inputs: Sequence[Tensor], keep: bool) -> tuple[Tensor, Any]:
        return inputs[0].relu(), None

    def backward(self, slope: Slope, output: Tensor | None, kept: Any) -> Sequence[Slope]:
        return [_gated(slope, output)]


@dataclass(frozen=True, eq=False)
class _MaxPool:
    options: tuple[Any, ...]
    positive: bool = False  # what it is given is nowhere below 0
    gated: bool = False

    def window(self, axis: int) -> Window:
        kernel, stride, padding, dilation, up = self.options
        return Window(dilation[axis] * (kernel[axis] - 1) + 1, stride[axis], padding[axis], up)

    def forward(self, inputs: Sequence[Tensor], keep: bool) -> tuple[Tensor, Any]:
        (x,) = inputs
        output, places = pooled(
            x,
            self.options,
            quick=_quick.get(),
            short=keep and _thrifty.get(),
            positive=self.positive,
            gated=self.gated,
        )
        return output, (x.shape, places)

    def backward(self, slope: Slope, output: Tensor | None, kept: Any) -> Sequence[Slope]:
        shape, places = kept
        slope = _gated(slope, output)
        return [Slope(pooling_gradient(slope.value, shape, places, self.options), True)]


@dataclass(frozen=True, eq=False)
class _PooledConvolution:
    """A max-pooling that only a 1×1 convolution sees, where maps are large some rows at a time.

    Then neither what is pooled nor its gradient, each as large as the input, is there as a whole.
    """

    pool: _MaxPool
    convolution: _Convolution
    gated: bool = False

    @property
    def relu(self) -> bool:
        return self.convolution.relu

    def window(self, axis: int) -> Window:
        return self.pool.window(axis)

    def forward(self, inputs: Sequence[Tensor], keep: bool) -> tuple[Tensor, Any]:
        (x,) = inputs
        if not self._by_rows(x):
            between, kept = self.pool.forward(inputs, keep)
            output, _ = self.convolution.forward([between], keep)
            return output, kept
        places = pooling.empty_places(x, self.pool.options)
        output: Tensor | None = None
        for n, rows in self._bands(places):
            between = pooling.pool_rows(x[n], places[n], self.pool.options, rows)
            part, _ = self.convolution.forward([between], keep)
            if len(part) == len(x) and part.shape[2:] == places.shape[2:]:
                return part, (x.shape, places)
            if output is None:
                shape = (len(x), part.shape[1], *places.shape[2:])
                output = torch.empty(shape, dtype=x.dtype, memory_format=LAST)
            output[n, :, slice(*rows)] = part
        assert output is not None
        return output, (x.shape, places)

    def backward(
        self, slope: Slope, output: Tensor | None, kept: Any, onto: Slope | None = None
    ) -> Sequence[Slope]:
        """onto: the gradient that its siblings have given already, to which this one is added."""
        slope = _gated(slope, output)
        shape, places = kept
        if places.dtype != torch.uint8:
            between = self._turned.backward(slope.value, None)
            (found,) = self.pool.backward(between, None, kept)
            return [found if onto is None else _sum(onto, found)]
        if onto is None:
            gradient = torch.empty(shape, dtype=slope.value.dtype, memory_format=LAST)
        else:
            laid = onto.value.contiguous(memory_format=LAST)
            shared = laid is onto.value and not onto.ours
            gradient = laid.clone(memory_format=LAST) if shared else laid
        for n, rows in self._bands(gradient):
            first, last = pooling.windows_over(rows, places.shape[2], self.pool.options)
            between = self._turned.backward(slope.value[n, :, first:last], None).value
            pooling.spread_rows(
                between, places[n], gradient[n], self.pool.options, rows, onto=onto is not None
            )
        return [Slope(gradient, True)]

    @functools.cached_property
    def _turned(self) -> _Siblings:
        return _Siblings((self.convolution,))

    def _by_rows(self, x: Tensor) -> bool:
        positive = self.pool.positive or x.dtype != torch.bfloat16
        return _quick.get() and positive and pooling.by_numba(x, self.pool.options)

    def _bands(self, map_: Tensor) -> Iterator[tuple[slice, tuple[int, int]]]:
        """Pictures, and rows of each, of a map of this size; all at once if that is little."""
        count, channels, height, width = map_.shape
        row = channels * width * self.convolution.weight.itemsize
        if row * height * count <= AT_ONCE:
            yield slice(None), (0, height)
            return
        some = max(AT_ONCE // row, 1)
        for n in range(count):
            for first in range(0, height, some):
                yield slice(n, n + 1), (first, min(first + some, height))


@dataclass(frozen=True, eq=False)
class _AveragePool:
    """One of an odd kernel that keeps the size, padding counted: it is its own gradient."""

    kernel: list[int]

    def window(self, axis: int) -> Window:
        return Window(self.kernel[axis], 1, self.kernel[axis] // 2)

    def forward(self, inputs: Sequence[Tensor], keep: bool) -> tuple[Tensor, Any]:
        return self._averaged(inputs[0]), None

    def backward(self, slope: Slope, output: Tensor | None, kept: Any) -> Sequence[Slope]:
        return [Slope(self._averaged(slope.value), True)]

    def _averaged(self, values: Tensor) -> Tensor:
        return F.avg_pool2d(values, self.kernel, 1, [side // 2 for side in self.kernel])


@dataclass(frozen=True, eq=False)
class _Concatenation:
    gated: bool = False

    def window(self, axis: int) -> Window:
        return Window()

    def forward(self, inputs: Sequence[Tensor], keep: bool) -> tuple[Tensor, Any]:
        return torch.cat(list(inputs), 1), [x.shape[1] for x in inputs]

    def backward(self, slope: Slope, output: Tensor | None, kept: Any) -> Sequence[Slope]:
        slope = _gated(slope, output)
        return [Slope(part, slope.ours) for part in slope.value.split(kept, 1)]


@dataclass(frozen=True, eq=False)
class _Sum:
    def window(self, axis: int) -> None:
        return None  # one of the two may be spread over the other

    def forward(self, inputs: Sequence[Tensor], keep: bool) -> tuple[Tensor, Any]:
        return inputs[0] + inputs[1], [x.shape for x in inputs]

    def backward(self, slope: Slope, output: Tensor | None, kept: Any) -> Sequence[Slope]:
        # Both get the same tensor, so that neither may write over it.
        return [Slope(slope.value.sum_to_size(shape), False) for shape in kept]


@dataclass(frozen=True, eq=False)
class _Same:
    """What does nothing in evaluation mode."""

    def window(self, axis: int) -> Window:
        return Window()

    def forward(self, inputs: Sequence[Tensor], keep: bool) -> tuple[Tensor, Any]:
        return inputs[0], None

    def backward(self, slope: Slope, output: Tensor | None, kept: Any) -> Sequence[Slope]:
        return [slope]


@dataclass(frozen=True, eq=False)
class _Other:
    """Any operation of tensors that gives one tensor, by way of autograd."""

    call: Callable[[Sequence[Tensor]], Any]
    pointwise: bool = False  # each position by itself

    def window(self, axis: int) -> Window | None:
        return Window() if self.pointwise else None

    def forward(self, inputs: Sequence[Tensor], keep: bool) -> tuple[Tensor, Any]:
        if not keep:
            return self._called(inputs), None
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_() for x in inputs]
            output = self._called(leaves)
        if not output.requires_grad:
            raise UnfitError("an operation without a gradient")
        return output.detach(), (leaves, output)

    def backward(self, slope: Slope, output: Tensor | None, kept: Any) -> Sequence[Slope]:
        leaves, result = kept
        found = torch.autograd.grad(result, leaves, slope.value, allow_unused=True)
        return [
            Slope(torch.zeros_like(x) if g is None else g, False)
            for x, g in zip(leaves, found, strict=True)
        ]

    def _called(self, inputs: Sequence[Tensor]) -> Tensor:
        output = self.call(inputs)
        if not isinstance(output, Tensor) or not output.is_floating_point():
            raise UnfitError("an operation that gives no tensor of real numbers")
        return output


def _gated(slope: Slope, gate: Tensor | None) -> Slope:
    """A slope, made 0 where the output of a ReLU, or the mask of it, is 0."""
    if gate is None:
        return slope
    into = slope.value if slope.ours else torch.empty_like(slope.value, memory_format=LAST)
    if gate.dtype == torch.bool:
        # Several times as fast as torch.where, and as a product of floats and bools.
        return Slope(torch.mul(slope.value, gate.view(torch.uint8), out=into), True)
    torch.ops.aten.threshold_backward.grad_input(slope.value, gate, 0, grad_input=into)
    return Slope(into, True)


def _sum(one: Slope, other: Slope) -> Slope:
    if one.ours:
        return Slope(one.value.add_(other.value), True)
    if other.ours:
        return Slope(other.value.add_(one.value), True)
    return Slope(one.value + other.value, True)


def asks_output(operation: object, kept: Any) -> bool:
    """Whether the gradient asks where the output is above 0; places of one byte tell it."""
    if isinstance(operation, _MaxPool) and kept[1].dtype == torch.uint8:
        return False
    return getattr(operation, "gated", False)


# Programs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    operation: _Operation | _Convolution
    inputs: tuple[int, ...]
    output: int
    last_uses: tuple[int, ...]  # values that no later step wants


@dataclass(frozen=True)
class _Family:
    """A set of `_Siblings` in a program, and where each begins along the channels."""

    siblings: _Siblings
    steps: tuple[int, ...]
    starts: tuple[int, ...]

    @property
    def channels(self) -> int:
        return self.starts[-1] + len(self.siblings.members[-1].weight)


@dataclass(frozen=True)
class Program:
    """A graph of one picture, as steps: `program(values) -> {layer: activation}`, differentiable.

    Values are numbered; the picture is 0.
    """

    steps: tuple[Step, ...]
    outputs: dict[str, int]
    families: dict[int, _Family]  # by step

    def __call__(self, values: Tensor) -> dict[str, Tensor]:
        return run(self, self.outputs, values)

    def forward(
        self, values: Tensor, numbers: Sequence[int], kept: dict[int, Any] | None
    ) -> tuple[Tensor, ...]:
        """Run; what the gradient needs goes to `kept`, by step, and outputs by −1 − value.

        Not those that `numbers` asks for, which `backward` is to be given.
        """
        with quick(len(values) * values.shape[-2] * values.shape[-1] >= pooling.ENOUGH):
            return self.advance({0: values}, numbers, kept)

    def advance(
        self, known: dict[int, Tensor], numbers: Sequence[int], kept: dict[int, Any] | None
    ) -> tuple[Tensor, ...]:
        """`forward`, from {0: picture}; what is in there goes as soon as no step wants it."""
        for index, step in enumerate(self.steps):
            trim_to_limit()
            inputs = [known[number] for number in step.inputs]
            output, more = step.operation.forward(inputs, kept is not None)
            known[step.output] = output
            if kept is not None:
                kept[index] = more
                # Those of `numbers` are the caller's: output and graph would hold one another.
                if asks_output(step.operation, more) and step.output not in numbers:
                    # Of bfloat16 a mask saves half, but takes a tenth of the time.
                    mask = _thrifty.get() and output.itemsize > 2
                    kept[-1 - step.output] = output.bool() if mask else output
            for number in step.last_uses:
                del known[number]
        return tuple(known[number] for number in numbers)

    def backward(
        self, slopes: dict[int, Slope], kept: dict[int, Any], outputs: dict[int, Tensor]
    ) -> Tensor | None:
        """The gradient with respect to the picture, from those with respect to outputs."""
        gathered: dict[int, Tensor] = {}  # by a family's first step
        for index in reversed(range(len(self.steps))):
            trim_to_limit()
            self._step_back(index, slopes, kept, outputs, gathered)
        result = slopes.pop(0, None)
        return None if result is None else result.value

    def _step_back(
        self,
        index: int,
        slopes: dict[int, Slope],
        kept: dict[int, Any],
        outputs: dict[int, Tensor],
        gathered: dict[int, Tensor],
    ) -> None:
        """From the gradient of one step's output to those of its inputs."""
        # A function of its own, so that no name holds on to a map for longer.
        step, family = self.steps[index], self.families.get(index)
        more = kept.pop(index)
        output = kept.pop(-1 - step.output, None)
        if output is None and asks_output(step.operation, more):
            output = outputs.get(step.output)
        if family is not None:
            self._gather(
                family, index, slopes.pop(step.output, None), output, more, slopes, gathered
            )
            if index == family.steps[0] and index in gathered:
                (number,) = step.inputs
                onto = slopes.get(number)
                slopes[number] = family.siblings.backward(gathered.pop(index), onto)
            return
        slope = slopes.pop(step.output, None)
        if slope is None:
            return
        if isinstance(step.operation, _PooledConvolution):
            onto = slopes.pop(step.inputs[0], None)
            found = step.operation.backward(slope, output, more, onto)
            del onto
        else:
            found = step.operation.backward(slope, output, more)
        del slope, output, more
        for number, part in zip(step.inputs, found, strict=True):
            before = self.steps[number - 1].operation if number else None
            if len(found) > 1 and isinstance(before, _PooledConvolution):
                # Its turn comes last of its siblings': a copy, so that the rest can go.
                part = Slope(part.value.clone(memory_format=LAST), True)
            _add(slopes, number, part)

    def _gather(
        self,
        family: _Family,
        index: int,
        slope: Slope | None,
        output: Tensor | None,
        shape: torch.Size,
        slopes: dict[int, Slope],
        gathered: dict[int, Tensor],
    ) -> None:
        """Note one sibling's gradient before its ReLU beside those of the others."""
        first, place = family.steps[0], family.steps.index(index)
        if slope is not None:
            # In one piece, since both take long on a part of the channels, of which it may become.
            passed = _gated(slope, output).value
            if len(family.steps) == 1:
                gathered[first] = passed
            else:
                if first not in gathered:
                    total = (shape[0], family.channels, *slope.value.shape[2:])
                    gathered[first] = torch.empty(
                        total, dtype=slope.value.dtype, memory_format=LAST
                    )
                    if any(self.steps[i].output not in slopes for i in family.steps if i < index):
                        gathered[first].zero_()
                gathered[first].narrow(1, family.starts[place], passed.shape[1]).copy_(passed)


class Runs(Protocol):
    """What `run` can run: `Program`, or something that is made of them."""

    def forward(
        self, values: Tensor, numbers: Sequence[int], kept: dict[int, Any] | None
    ) -> tuple[Tensor, ...]: ...

    def backward(
        self, slopes: dict[int, Slope], kept: dict[int, Any], outputs: dict[int, Tensor]
    ) -> Tensor | None: ...


def run(program: Runs, outputs: dict[str, int], values: Tensor) -> dict[str, Tensor]:
    """The outputs of a program by layer, from their numbers; differentiable."""
    numbers = list(dict.fromkeys(outputs.values()))
    if torch.is_grad_enabled() and values.requires_grad:
        found: Any = _Run.apply(values, program, numbers)
    else:
        found = program.forward(values, numbers, None)
    named = dict(zip(numbers, found, strict=True))
    return {layer: named[number] for layer, number in outputs.items()}


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, program: Runs, numbers: list[int]) -> Any:
        kept: dict[int, Any] = {}
        found = program.forward(values, numbers, kept)
        ctx.program, ctx.numbers, ctx.kept = program, numbers, kept
        ctx.once = _thrifty.get()
        ctx.save_for_backward(*found)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        outputs = dict(zip(ctx.numbers, ctx.saved_tensors, strict=True))
        slopes = {
            number: Slope(grad.contiguous(memory_format=LAST) if grad.ndim == 4 else grad, False)
            for number, grad in zip(ctx.numbers, grads, strict=True)
            if grad is not None
        }
        kept = ctx.kept if ctx.once else dict(ctx.kept)
        return ctx.program.backward(slopes, kept, outputs), None, None


def _add(slopes: dict[int, Slope], number: int, part: Slope) -> None:
    before = slopes.get(number)
    slopes[number] = part if before is None else _sum(before, part)


# From a graph -------------------------------------------------------------------------------------


def available() -> bool:
    """Whether this build of PyTorch has what programs are made of."""
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name)
        for name in (
            "_convolution_pointwise",
            "_convolution_pointwise_",
            "_reorder_convolution_weight",
        )
    )


def program(cut: fx.GraphModule) -> Program:
    """The program of a folded graph that gives `{layer: activation}`; UnfitError if it has none.

    Weights on the processor, in float32 or bfloat16.
    """
    if not available():
        raise UnfitError("PyTorch without oneDNN")
    modules: dict[str, nn.Module] = dict(cut.named_modules())
    nodes = list(cut.graph.nodes)
    (end,) = (node for node in nodes if node.op == "output")
    outputs: dict[str, fx.Node] = end.args[0]
    captured = set(outputs.values())
    constants: dict[fx.Node, Any] = {}
    there: list[fx.Node] = []  # the picture and all results
    made: list[tuple[_Operation, tuple[fx.Node, ...], fx.Node]] = []
    fused: dict[fx.Node, fx.Node] = {}  # a ReLU -> the convolution that does it
    for node in nodes:
        if node.op == "output":
            continue
        if node.op == "placeholder":
            there.append(node)
        elif node.op == "get_attr":
            constants[node] = operator.attrgetter(str(node.target))(cut)
        elif node in fused:
            continue
        else:
            operation, inputs = _operation(node, modules, constants)
            result = node
            after = _relu_after(node, modules)
            if isinstance(operation, _Convolution) and after and node not in captured:
                operation = replace(operation, relu=True)
                fused[after] = node
                result = after
            if any(i not in there for i in inputs):
                raise UnfitError(f"{node} works on something besides the picture")
            place = len(made)
            if made and _joins(made[-1], operation, inputs, captured):
                pool: Any
                pool, inputs, _ = made.pop()
                there.pop()
                operation = _PooledConvolution(pool, operation)
                # First of its siblings, so that its gradient can be added to theirs.
                place = there.index(inputs[0])
            made.insert(place, (operation, inputs, result))
            there.insert(place + 1, result)
    for operation, *_ in made:
        last = operation.convolution if isinstance(operation, _PooledConvolution) else operation
        if isinstance(last, _Convolution) and not last.weight.isfinite().all():
            raise UnfitError("weights that are not finite, of which oneDNN's ReLU would make 0")
    numbers = {node: number for number, node in enumerate(there)}
    if not made or any(node not in numbers for node in captured):
        raise UnfitError("a layer that does not depend on the picture")
    return _linked(made, numbers, {layer: numbers[node] for layer, node in outputs.items()})


def _joins(
    before: tuple[_Operation, tuple[fx.Node, ...], fx.Node],
    operation: _Operation,
    inputs: tuple[fx.Node, ...],
    captured: set[fx.Node],
) -> bool:
    """Whether an operation and the one before it are a `_PooledConvolution`."""
    pool, _, between = before
    return (
        isinstance(pool, _MaxPool)
        and isinstance(operation, _Convolution)
        and inputs == (between,)
        and len(between.users) == 1
        and between not in captured
        and pool.options[1] == [1, 1]
        and operation.weight.shape[2:] == (1, 1)
        and operation.stride == (1, 1)
        and operation.padding == (0, 0)
        and operation.groups == 1
    )


def _linked(
    made: list[tuple[_Operation, tuple[fx.Node, ...], fx.Node]],
    numbers: dict[fx.Node, int],
    outputs: dict[str, int],
) -> Program:
    uses: dict[int, list[int]] = {}
    for index, (_, inputs, _) in enumerate(made):
        for node in inputs:
            uses.setdefault(numbers[node], []).append(index)
    wanted = set(outputs.values())
    steps = []
    for index, operation in enumerate(_settled(made, numbers, uses, wanted)):
        _, inputs, result = made[index]
        mine = tuple(numbers[node] for node in inputs)
        over = tuple(n for n in dict.fromkeys(mine) if uses[n][-1] == index and n not in wanted)
        if numbers[result] not in uses and numbers[result] not in wanted:
            raise UnfitError("a step that nothing uses")
        steps.append(Step(operation, mine, numbers[result], over))
    groups: dict[object, list[int]] = {}
    for index, step in enumerate(steps):
        if isinstance(step.operation, _Convolution) and (key := step.operation.key) is not None:
            groups.setdefault((step.inputs[0], key), []).append(index)
    families = {}
    for group in groups.values():
        members = tuple(steps[index].operation for index in group)
        starts, channels = [], 0
        for member in members:
            starts.append(channels)
            channels += len(member.weight)
        family = _Family(_Siblings(members), tuple(group), tuple(starts))
        families.update(dict.fromkeys(group, family))
    return Program(tuple(steps), outputs, families)


def _settled(
    made: Sequence[tuple[_Operation, tuple[fx.Node, ...], fx.Node]],
    numbers: dict[fx.Node, int],
    uses: dict[int, list[int]],
    wanted: set[int],
) -> list[Any]:
    """The operations, told what they are given, and which of them see to the gradients of ReLUs.

    What is nowhere below 0 comes of ReLUs, and where it is 0 none of them lets a gradient pass. So
    a ReLU that only a concatenation or a max-pooling sees leaves its part to that, which does it
    for all in one go, or for as many values as windows.
    """
    operations: list[Any] = []
    positive: set[int] = set()
    for index, (found, inputs, result) in enumerate(made):
        operation: Any = found
        given = [numbers[node] for node in inputs]
        if isinstance(operation, _PooledConvolution) and positive.issuperset(given):
            operation = replace(operation, pool=replace(operation.pool, positive=True))
        if isinstance(operation, _ReLU) or getattr(operation, "relu", False):
            operation = replace(operation, gated=True)
            positive.add(numbers[result])
        elif positive.issuperset(given):
            if isinstance(operation, _MaxPool):
                operation = replace(operation, positive=True)
            if isinstance(operation, (_MaxPool, _Concatenation)):
                for number in given:
                    before = operations[number - 1]
                    alone = uses[number] == [index] and number not in wanted
                    if alone and getattr(before, "gated", False):
                        operations[number - 1] = replace(before, gated=False)
                        operation = replace(operation, gated=True)
            if isinstance(operation, (_MaxPool, _AveragePool, _Concatenation, _Same, _Sum)):
                positive.add(numbers[result])
        operations.append(operation)
    return operations


def _is_relu(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return type(modules[str(node.target)]) is nn.ReLU
    if node.op == "call_function":
        return node.target in (F.relu, F.relu_, torch.relu, torch.relu_)
    return node.op == "call_method" and node.target in ("relu", "relu_")


def _relu_after(node: fx.Node, modules: dict[str, nn.Module]) -> fx.Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 and _is_relu(users[0], modules) else None


def _operation(
    node: fx.Node, modules: dict[str, nn.Module], constants: dict[fx.Node, Any]
) -> tuple[Any, tuple[fx.Node, ...]]:
    """The operation of a node, and the nodes that it takes from."""
    module = modules[str(node.target)] if node.op == "call_module" else None
    one = tuple(node.all_input_nodes)
    if len(one) == 1 and one[0] not in constants:
        if _is_plain_convolution(module):
            return _convolution(module), one
        if _is_relu(node, modules):
            return _ReLU(), one
        if (options := _pooling(node, module)) is not None:
            return _MaxPool(options), one
        if (kernel := _averaging(node, module)) is not None:
            return _AveragePool(kernel), one
        if isinstance(module, (nn.Identity, nn.Dropout, nn.Dropout2d)):
            return _Same(), one
        if node.target is F.dropout and not node.kwargs.get("training", True):
            return _Same(), one
    if node.target is torch.cat and not set(one) & set(constants):
        parts, axis = node.args[0], node.kwargs.get("dim", (*node.args, 0, 0)[1])
        if isinstance(parts, (tuple, list)) and axis == 1:
            return _Concatenation(), tuple(parts)  # pyright: ignore[reportReturnType]
    adds = node.target in (operator.add, operator.iadd, torch.add) and not node.kwargs
    if adds and all(isinstance(a, fx.Node) and a not in constants for a in node.args):
        return _Sum(), tuple(node.args)  # pyright: ignore[reportReturnType]
    return _other(node, module, constants)


def _is_plain_convolution(module: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    return (
        type(module) is nn.Conv2d
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _convolution(module: nn.Conv2d) -> _Convolution:
    def pair(value: Any) -> Pair:
        return (value, value) if isinstance(value, int) else (value[0], value[1])

    return _Convolution(
        module.weight.detach().contiguous(memory_format=LAST),
        None if module.bias is None else module.bias.detach(),
        pair(module.stride),
        pair(module.padding),
        pair(module.dilation),
        module.groups,
    )


def _pooling(node: fx.Node, module: nn.Module | None) -> tuple[Any, ...] | None:
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    if type(module) is nn.MaxPool2d:
        if module.return_indices:
            return None
        given = {name: getattr(module, name) for name in names}
    elif node.target in (F.max_pool2d, torch.max_pool2d):
        if len(node.args) > 6 or node.kwargs.get("return_indices"):
            return None
        # fx sees the function that decides whether to return places, with all of its arguments.
        given = dict(zip(names, node.args[1:], strict=False))
        given |= {k: v for k, v in node.kwargs.items() if k in names}
    else:
        return None

    kernel = _pair(given["kernel_size"])
    stride = given.get("stride") or kernel
    return (
        kernel,
        _pair(stride),
        _pair(given.get("padding", 0)),
        _pair(given.get("dilation", 1)),
        bool(given.get("ceil_mode", False)),
    )


def _averaging(node: fx.Node, module: nn.Module | None) -> list[int] | None:
    """The kernel, if that is all there is to say."""
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
    if type(module) is nn.AvgPool2d:
        given = {name: getattr(module, name) for name in (*names, "divisor_override")}
    elif node.target is F.avg_pool2d and len(node.args) <= 6:
        given = dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)
    else:
        return None
    kernel = _pair(given["kernel_size"])
    same = (
        _pair(given.get("stride") or kernel) == [1, 1]
        and all(side % 2 for side in kernel)
        and _pair(given.get("padding", 0)) == [side // 2 for side in kernel]
        and given.get("count_include_pad", True)
        and given.get("divisor_override") is None
    )
    return kernel if same else None


def _pair(value: Any) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * 2 if len(values) == 1 else values


def _other(
    node: fx.Node, module: nn.Module | None, constants: dict[fx.Node, Any]
) -> tuple[_Other, tuple[fx.Node, ...]]:
    inputs = tuple(i for i in node.all_input_nodes if i not in constants)
    if not inputs:
        raise UnfitError(f"{node} does not depend on the picture")
    target: Any = node.target
    if getattr(module, "inplace", False):
        module = copy.copy(module)
        module.inplace = False  # pyright: ignore

    def call(values: Sequence[Tensor]) -> Any:
        here = constants | dict(zip(inputs, values, strict=True))
        args = map_arg(node.args, lambda n: here[n])
        kwargs = map_arg(node.kwargs, lambda n: here[n])
        if module is not None:
            return module(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        return target(*args, **kwargs)

    return _Other(call, getattr(module, "pointwise", False) is True), inputs
