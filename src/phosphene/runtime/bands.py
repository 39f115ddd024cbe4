"""The front of a network over a part of the picture at a time, for the memory's sake.

A network's first maps are the largest, and of most of them the gradient needs little or nothing.
So where memory is to be saved, the front of a program goes over a large picture in bands, each with
the px around it that it sees, and only one band's maps are there at a time. What the front makes of
the bands is put side by side for the rest of the network; backwards, each band gives the gradient
of its own part of that. Both are those of the whole; what lies around the bands is done twice.

Where the front takes most, as in VGG16, a gradient takes less. Where the rest does, as in dreamnet
and GoogLeNet, it takes as much, but of smaller maps, between which an allocator loses less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from phosphene.runtime import pooling
from phosphene.runtime.operations import Gradient, Window, needs_output
from phosphene.runtime.options import DEFAULT, Options
from phosphene.runtime.pooling import LAST
from phosphene.runtime.program import Gradients, Instruction, Program, Saved, options_for, run

Span = tuple[int, int]

# With more of them there is more around them, and the rest of the network takes more than they do.
BAND_COUNT = 4
# px of a picture from which on there are bands: they are then longer than what is around them.
BAND_PIXELS = 2**20
# px along a side that a position of a front's result may see.
MAX_FIELD = 64


class Band(NamedTuple):
    """Along a side: the positions of the front's result that are its own, and the px they see."""

    own: Span
    visible: Span


class _SavedBand(NamedTuple):
    """Of a band, for its gradient: what its run saved, its result's shape, where that is > 0."""

    band: Band
    saved: Saved
    shape: torch.Size
    mask: Tensor | None


@dataclass(frozen=True)
class Banded:
    """A program that goes over large pictures in bands (`Options.memory_efficient`).

    stride: px from one position of the front's result to the next.
    """

    whole: Program
    front: Program
    rest: Program
    stride: int

    def __call__(self, values: Tensor, *, options: Options = DEFAULT) -> dict[str, Tensor]:
        """As a `Program` of a picture."""
        large = values.shape[2] * values.shape[3] >= BAND_PIXELS or options.bands == "always"
        program = self if large and options.memory_efficient else self.whole
        return run(program, self.whole.outputs, [values], options)

    def cut(self, side: int, axis: int) -> list[Band]:
        """The bands along a side of so many px; all see as many, from a multiple of the stride."""
        sides = _lengths(self.front, side, axis)
        count = sides[self._end]
        step = -(-count // BAND_COUNT)
        own = [(first, min(first + step, count)) for first in range(0, count, step)]
        needed = [_needed(self.front, span, sides, axis) for span in own]
        starts = [first // self.stride * self.stride for first, _ in needed]
        length = max(last - start for start, (_, last) in zip(starts, needed, strict=True))
        length = min(length + (side - length) % self.stride, side)
        starts = [min(start, side - length) for start in starts]
        return [Band(a, (b, b + length)) for a, b in zip(own, starts, strict=True)]

    @property
    def _end(self) -> int:
        """The number of the front's result among the values of the whole."""
        return len(self.front.instructions)

    def forward(
        self,
        taken: Sequence[Tensor],
        wanted: Sequence[int],
        options: Options,
        saved: Saved | None,
    ) -> tuple[Tensor, ...]:
        """As `Program.forward`; 0 of `saved` is the picture's shape and the bands, 1 the rest's."""
        (values,) = taken
        bands: list[_SavedBand] | None = None
        rest: Saved | None = None
        if saved is not None:
            bands, rest = [], {}
            saved.update({0: (values.shape, bands), 1: rest})
        options = options_for(taken, options)
        known = {0: self._side_by_side(values, options, bands)}
        return self.rest.advance(known, [n - self._end for n in wanted], options, rest)

    def _side_by_side(
        self, values: Tensor, options: Options, saved: list[_SavedBand] | None
    ) -> Tensor:
        """The front's result."""
        axis = _longer(values.shape)
        bands = self.cut(values.shape[axis], axis - 2)
        result: Tensor | None = None
        for band in bands:
            crop = _along(values, axis, band.visible).contiguous(memory_format=LAST)
            more: Saved | None = None if saved is None else {}
            (found,) = self.front.forward([crop], [self._end], options, more)
            if result is None:
                shape = list(found.shape)
                shape[axis] = bands[-1].own[1]
                result = torch.empty(
                    shape, dtype=found.dtype, device=found.device, memory_format=LAST
                )
            _along(result, axis, band.own).copy_(_along(found, axis, self._own(band)))
            if saved is not None and more is not None:
                last = self.front.instructions[-1].operation
                mask = found > 0 if needs_output(last, more[self._end - 1]) else None
                saved.append(_SavedBand(band, more, found.shape, mask))
            del crop, found  # before the next are there
        assert result is not None
        return result

    def backward(
        self, gradients: Gradients, saved: Saved, outputs: dict[int, Tensor]
    ) -> list[Tensor | None]:
        """As `Program.backward`."""
        (grad,) = self.rest.backward(
            {number - self._end: grad for number, grad in gradients.items()},
            saved.pop(1),
            {number - self._end: output for number, output in outputs.items()},
        )
        shape, bands = saved.pop(0)
        if grad is None:
            return [None]
        axis = _longer(shape)
        total = torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=LAST).zero_()
        while bands:
            self._add(total, grad, axis, bands.pop())
        return [total]

    def kept(self, saved: Saved) -> Saved:
        """As `Program.kept`."""
        shape, bands = saved[0]
        own = [band._replace(saved=self.front.kept(band.saved)) for band in bands]
        return {0: (shape, own), 1: self.rest.kept(saved[1])}

    def _add(self, total: Tensor, grad: Tensor, axis: int, saved: _SavedBand) -> None:
        """Add the gradient of what is a band's own; `grad` is that of the whole result."""
        outputs = {} if saved.mask is None else {self._end: saved.mask}
        gradients = {self._end: Gradient(self._grad_of(saved, grad, axis), True)}
        (found,) = self.front.backward(gradients, saved.saved, outputs)
        if found is not None:
            _along(total, axis, saved.band.visible).add_(found)

    def _grad_of(self, saved: _SavedBand, grad: Tensor, axis: int) -> Tensor:
        """The gradient of a band's result: nothing where that is not its own."""
        part = torch.empty(
            saved.shape, dtype=grad.dtype, device=grad.device, memory_format=LAST
        ).zero_()
        _along(part, axis, self._own(saved.band)).copy_(_along(grad, axis, saved.band.own))
        return part

    def _own(self, band: Band) -> Span:
        """A band's own positions, counted from the first that it has."""
        first = band.visible[0] // self.stride
        return band.own[0] - first, band.own[1] - first


def _longer(shape: torch.Size) -> int:
    """The axis that pictures `(N, C, H, W)` are cut along."""
    return 2 if shape[2] >= shape[3] else 3


def _along(map_: Tensor, axis: int, span: Span) -> Tensor:
    return map_.narrow(axis, span[0], span[1] - span[0])


# Where a front ends -------------------------------------------------------------------------------


def banded(program: Program) -> Program | Banded:
    """The program in bands, if it has a front for that.

    A front ends with an operation that makes maps smaller and whose result is all that the later
    ones see: the last such, of which no position sees more than `MAX_FIELD` px along a side.
    The program takes nothing but pictures.
    """
    uses = {
        number: index
        for index, instruction in enumerate(program.instructions)
        for number in instruction.inputs
    }
    wanted = {*program.outputs.values()}
    strides, fields = {0: 1}, {0: 1}
    end = 0
    for index, instruction in enumerate(program.instructions):
        down, right = (instruction.operation.window(axis) for axis in (0, 1))
        stride, *others = {strides[number] for number in instruction.inputs}
        if (
            instruction.output in wanted
            or others
            or not (down and right)
            or down.stride != right.stride
        ):
            break
        extent = max(down.extent, right.extent)
        strides[instruction.output] = stride * down.stride
        fields[instruction.output] = max(fields[n] for n in instruction.inputs) + stride * (
            extent - 1
        )
        alone = all(uses[number] <= index for number in range(index + 1))
        if alone and down.stride > 1 and fields[instruction.output] <= MAX_FIELD:
            end = index + 1
    if not end:
        return program
    return Banded(program, *_split(program, end), strides[end])


def _split(program: Program, end: int) -> tuple[Program, Program]:
    """The first steps and the others; what the first make at last is the others' picture."""

    def later(numbers: Sequence[int]) -> tuple[int, ...]:
        return tuple(number - end for number in numbers if number >= end)

    instructions = [
        replace(
            instruction,
            inputs=later(instruction.inputs),
            output=instruction.output - end,
            last_uses=later(instruction.last_uses),
        )
        for instruction in program.instructions[end:]
    ]
    parallel = {
        index - end: replace(group, indices=later(group.indices))
        for index, group in program.parallel.items()
        if index >= end
    }
    outputs = {layer: number - end for layer, number in program.outputs.items()}
    front = {index: group for index, group in program.parallel.items() if index < end}
    return (
        Program(program.instructions[:end], {"": end}, front),
        Program(tuple(instructions), outputs, parallel),
    )


def _lengths(front: Program, side: int, axis: int) -> dict[int, int]:
    """How long each value is along an axis, of a picture of so many px."""
    lengths = {0: side}
    for instruction in front.instructions:
        window = _window(instruction, axis)
        given = lengths[instruction.inputs[0]]
        lengths[instruction.output] = pooling.output_side(
            given, window.extent, window.stride, window.padding, ceil_mode=window.ceil_mode
        )
    return lengths


def _needed(front: Program, own: Span, lengths: dict[int, int], axis: int) -> Span:
    """The px of the picture that some positions of the front's result see along an axis."""
    needed = {len(front.instructions): own}
    for instruction in reversed(front.instructions):
        window = _window(instruction, axis)
        first, last = needed[instruction.output]
        begin = max(0, first * window.stride - window.padding)
        end = (last - 1) * window.stride - window.padding + window.extent
        for number in instruction.inputs:
            known = needed.get(number, (begin, end))
            needed[number] = min(begin, known[0]), min(max(end, known[1]), lengths[number])
    return needed[0]


def _window(instruction: Instruction, axis: int) -> Window:
    window = instruction.operation.window(axis)
    assert window is not None
    return window
