"""A cut network as a program: its answer and its gradient, written out.

A `Program` is one `autograd.Function` for all of a network up to the layers asked for, or from
what is given, or from one layer to the next where a gradient between them may be asked for: its
instructions run forward and backward in a row, each value goes as soon as nobody wants it, and
between two of them is a chance to give memory back. `lowering` makes programs of graphs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from phosphene.runtime import pooling
from phosphene.runtime.allocator import trim_to_limit
from phosphene.runtime.operations import (
    Convolution,
    Gradient,
    Operation,
    ParallelConvolutions,
    PooledConvolution,
    add_gradients,
    gate_gradient,
    needs_output,
)
from phosphene.runtime.options import DEFAULT, Options
from phosphene.runtime.pooling import LAST

# What is saved for the gradient, by instruction; an output by −1 − its number.
Saved = dict[int, Any]
# By the number of the value.
Gradients = dict[int, Gradient]


@dataclass(frozen=True)
class Instruction:
    """One operation of a program, on numbered values."""

    operation: Operation | Convolution
    inputs: tuple[int, ...]
    output: int
    last_uses: tuple[int, ...]  # values that no later instruction wants


@dataclass(frozen=True)
class ParallelGroup:
    """`ParallelConvolutions` in a program: where they are, and where each begins along channels."""

    convolutions: ParallelConvolutions
    indices: tuple[int, ...]
    starts: tuple[int, ...]

    @property
    def channels(self) -> int:
        return self.starts[-1] + len(self.convolutions.members[-1].weight)


@dataclass(frozen=True)
class Program:
    """A graph as `program(taken) -> {layer: activation}`, differentiable.

    Values are numbered: first what is taken, which is mostly the picture alone, then what each
    instruction gives.
    """

    instructions: tuple[Instruction, ...]
    outputs: dict[str, int]
    parallel: dict[int, ParallelGroup]  # by instruction
    taken: int = 1

    def __call__(self, *taken: Tensor, options: Options = DEFAULT) -> dict[str, Tensor]:
        return run(self, self.outputs, taken, options)

    def forward(
        self,
        taken: Sequence[Tensor],
        wanted: Sequence[int],
        options: Options,
        saved: Saved | None,
    ) -> tuple[Tensor, ...]:
        """Run; what the gradient needs goes to `saved`, if there is to be one.

        Not the values `wanted`, which `backward` is to be given.
        """
        return self.advance(dict(enumerate(taken)), wanted, options_for(taken, options), saved)

    def advance(
        self,
        known: dict[int, Tensor],
        wanted: Sequence[int],
        options: Options,
        saved: Saved | None,
    ) -> tuple[Tensor, ...]:
        """`forward`, from {0: picture …}; what is in there goes as soon as nobody wants it."""
        save = saved is not None
        for index, instruction in enumerate(self.instructions):
            trim_to_limit()
            inputs = [known[number] for number in instruction.inputs]
            output, more = instruction.operation.forward(inputs, options, save)
            known[instruction.output] = output
            if saved is not None:
                saved[index] = more
                # Those wanted are the caller's: output and graph would hold one another.
                asked = needs_output(instruction.operation, more)
                if asked and instruction.output not in wanted:
                    # Of bfloat16 a mask saves half, but takes a tenth of the time.
                    mask = options.memory_efficient and output.itemsize > 2
                    saved[-1 - instruction.output] = output.bool() if mask else output
            for number in instruction.last_uses:
                del known[number]
        return tuple(known[number] for number in wanted)

    def backward(
        self, gradients: Gradients, saved: Saved, outputs: dict[int, Tensor]
    ) -> list[Tensor | None]:
        """The gradients with respect to what was taken, from those with respect to outputs.

        `saved` is used up.
        """
        gathered: dict[int, Tensor] = {}  # by the first instruction of a parallel group
        for index in reversed(range(len(self.instructions))):
            trim_to_limit()
            self._backward_one(index, gradients, saved, outputs, gathered)
        found = (gradients.pop(number, None) for number in range(self.taken))
        return [None if grad is None else grad.value for grad in found]

    def kept(self, saved: Saved) -> Saved:
        """What `backward` may use up while `saved` stays for another."""
        return dict(saved)

    def _backward_one(
        self,
        index: int,
        gradients: Gradients,
        saved: Saved,
        outputs: dict[int, Tensor],
        gathered: dict[int, Tensor],
    ) -> None:
        """From the gradient of one instruction's output to those of its inputs."""
        # A function of its own, so that no name holds on to a map for longer.
        instruction, group = self.instructions[index], self.parallel.get(index)
        more = saved.pop(index)
        output = saved.pop(-1 - instruction.output, None)
        if output is None and needs_output(instruction.operation, more):
            output = outputs.get(instruction.output)
        if group is not None:
            grad = gradients.pop(instruction.output, None)
            self._gather(group, index, grad, output, more, gathered)
            del grad
            if index == group.indices[0] and index in gathered:
                (number,) = instruction.inputs
                onto = gradients.get(number)
                gradients[number] = group.convolutions.backward(gathered.pop(index), onto)
            return
        grad = gradients.pop(instruction.output, None)
        if grad is None:
            return
        if isinstance(instruction.operation, PooledConvolution):
            onto = gradients.pop(instruction.inputs[0], None)
            found = instruction.operation.backward(grad, output, more, onto)
            del onto
        else:
            found = instruction.operation.backward(grad, output, more)
        del grad, output, more
        for number, part in zip(instruction.inputs, found, strict=True):
            before = number - self.taken
            pooled = before >= 0 and isinstance(
                self.instructions[before].operation, PooledConvolution
            )
            if len(found) > 1 and pooled:
                # Its turn comes after what its input has of others: a copy, so the rest can go.
                part = Gradient(part.value.clone(memory_format=LAST), True)
            _add(gradients, number, part)

    def _gather(
        self,
        group: ParallelGroup,
        index: int,
        grad: Gradient | None,
        output: Tensor | None,
        shape: torch.Size,
        gathered: dict[int, Tensor],
    ) -> None:
        """Put one convolution's gradient before its ReLU beside those of its group."""
        first, position = group.indices[0], group.indices.index(index)
        start, *_ = [*group.starts[position + 1 :], group.channels]  # of those after it
        if grad is None:
            if first in gathered:
                gathered[first][:, group.starts[position] : start].zero_()
            return
        if len(group.indices) == 1:
            gathered[first] = gate_gradient(grad, output).value
            return
        if first not in gathered:
            like, total = grad.value, (shape[0], group.channels, *grad.value.shape[2:])
            gathered[first] = torch.empty(
                total, dtype=like.dtype, device=like.device, memory_format=LAST
            )
            if start < group.channels:  # their turn came, and nobody asks for theirs
                gathered[first][:, start:].zero_()
        part = gathered[first][:, group.starts[position] : start]
        if group.convolutions.members[0].library.in_parts:
            gate_gradient(grad, output, part)
        else:
            part.copy_(gate_gradient(grad, output).value)


def _add(gradients: Gradients, number: int, part: Gradient) -> None:
    before = gradients.get(number)
    gradients[number] = part if before is None else add_gradients(before, part)


class Runnable(Protocol):
    """What `run` can run: `Program`, or something that is made of them."""

    def forward(
        self,
        taken: Sequence[Tensor],
        wanted: Sequence[int],
        options: Options,
        saved: Saved | None,
    ) -> tuple[Tensor, ...]: ...

    def backward(
        self, gradients: Gradients, saved: Saved, outputs: dict[int, Tensor]
    ) -> Sequence[Tensor | None]: ...

    def kept(self, saved: Saved) -> Saved: ...


def options_for(taken: Sequence[Tensor], options: Options) -> Options:
    """The options, with pooling by Numba where maps of what is taken are large."""
    maps = (x for x in taken if x.ndim == 4)
    pixels = max((len(x) * x.shape[2] * x.shape[3] for x in maps), default=0)
    return options.with_numba(pixels >= pooling.NUMBA_PIXELS)


def run(
    program: Runnable, outputs: dict[str, int], taken: Sequence[Tensor], options: Options
) -> dict[str, Tensor]:
    """The outputs of a program by layer, from their numbers; differentiable."""
    wanted = list(dict.fromkeys(outputs.values()))
    if needs_gradient(taken):
        found: Any = _ProgramFunction.apply(program, wanted, options, *taken)
    else:
        found = program.forward(taken, wanted, options, None)
    numbered = dict(zip(wanted, found, strict=True))
    return {layer: numbered[number] for layer, number in outputs.items()}


def needs_gradient(taken: Iterable[object]) -> bool:
    """Whether what comes of some values is to have a gradient."""
    return torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in taken)


class _ProgramFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, program: Runnable, wanted: list[int], options: Options, *taken: Tensor
    ) -> Any:
        saved: Saved = {}
        found = program.forward(taken, wanted, options, saved)
        ctx.set_materialize_grads(False)  # an output that nobody differentiates costs nothing
        ctx.program, ctx.wanted, ctx.saved = program, wanted, saved
        # Of several gradients the last one gives memory back on its way.
        ctx.left = options.backward_passes if options.memory_efficient else None
        ctx.save_for_backward(*found)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        outputs = dict(zip(ctx.wanted, ctx.saved_tensors, strict=True))
        gradients = {
            number: Gradient(grad.contiguous(memory_format=LAST) if grad.ndim == 4 else grad, False)
            for number, grad in zip(ctx.wanted, grads, strict=True)
            if grad is not None
        }
        if ctx.left is not None:
            if ctx.left == 0:
                raise RuntimeError(
                    "the gradient of memory-efficient activations can be taken only as often as "
                    "backward_passes said; compute them again, or without memory_efficient"
                )
            ctx.left -= 1
        saved = ctx.saved
        if ctx.left == 0:
            ctx.saved = None
        else:
            saved = ctx.program.kept(saved)
        return None, None, None, *ctx.program.backward(gradients, saved, outputs)
