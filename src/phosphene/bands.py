"""The front of a network over a part of the picture at a time, for the memory's sake.

A network's first maps are the largest, and of most of them the gradient needs little or nothing.
So where less is to be kept, the front of a program goes over a large picture in bands, each with
the px around it that it sees, and only one band's maps are there at a time. What the front makes of
the bands is put side by side for the rest of the network; backwards, each band gives the gradient
of its own part of that. Both are those of the whole; what lies around the bands is done twice.

Where the front takes most, as in VGG16, a gradient takes less. Where the rest does, as in dreamnet
and GoogLeNet, it takes as much, but of smaller maps, between which an allocator loses less.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from phosphene import fused, pooling
from phosphene.context import inside
from phosphene.fused import Program, Slope, Window
from phosphene.pooling import LAST

Span = tuple[int, int]

# With more of them there is more around them, and the rest of the network takes more than they do.
COUNT = 4
# px of a picture from which on there are bands: they are then longer than what is around them.
ENOUGH = 2**20
# px along a side that a position of a front's result may see.
FARTHEST = 64

_always: ContextVar[bool] = ContextVar("always", default=False)


def always() -> AbstractContextManager[None]:
    """Inside, pictures of any size are cut into bands: to measure what large ones take."""
    return inside(_always, True)


class Band(NamedTuple):
    """Along a side: the positions of the front's result that are its own, and the px they see."""

    own: Span
    seen: Span


class _Kept(NamedTuple):
    """Of a band, for its gradient: what its run kept; its result's shape, and where that is > 0."""

    band: Band
    steps: dict[int, Any]
    shape: torch.Size
    above: Tensor | None


@dataclass(frozen=True)
class Banded:
    """A program that goes over large pictures in bands, where less is to be kept (`fused.thrift`).

    stride: px from one position of the front's result to the next.
    """

    whole: Program
    front: Program
    rest: Program
    stride: int

    def __call__(self, values: Tensor) -> dict[str, Tensor]:
        """As a `Program`."""
        large = _always.get() or values.shape[2] * values.shape[3] >= ENOUGH
        program = self if large and fused.is_thrifty() else self.whole
        return fused.run(program, self.whole.outputs, values)

    def cut(self, side: int, axis: int) -> list[Band]:
        """The bands along a side of so many px; all see as many, from a multiple of the stride."""
        sides = _sides(self.front, side, axis)
        count = sides[self._end]
        step = -(-count // COUNT)
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
        return len(self.front.steps)

    def forward(
        self, values: Tensor, numbers: Sequence[int], kept: dict[int, Any] | None
    ) -> tuple[Tensor, ...]:
        """As `Program.forward`; 0 of `kept` is the picture's shape and the bands, 1 the rest's."""
        bands: list[_Kept] | None = None
        rest: dict[int, Any] | None = None
        if kept is not None:
            bands, rest = [], {}
            kept.update({0: (values.shape, bands), 1: rest})
        with fused.quick(len(values) * values[0, 0].numel() >= pooling.ENOUGH):
            known = {0: self._side_by_side(values, bands)}
            return self.rest.advance(known, [n - self._end for n in numbers], rest)

    def _side_by_side(self, values: Tensor, kept: list[_Kept] | None) -> Tensor:
        """The front's result."""
        axis = _longer(values.shape)
        bands = self.cut(values.shape[axis], axis - 2)
        result: Tensor | None = None
        for band in bands:
            seen = _along(values, axis, band.seen).contiguous(memory_format=LAST)
            steps: dict[int, Any] | None = None if kept is None else {}
            (found,) = self.front.forward(seen, [self._end], steps)
            if result is None:
                shape = list(found.shape)
                shape[axis] = bands[-1].own[1]
                result = torch.empty(shape, dtype=found.dtype, memory_format=LAST)
            _along(result, axis, band.own).copy_(_along(found, axis, self._own(band)))
            if kept is not None and steps is not None:
                asked = fused.asks_output(self.front.steps[-1].operation, steps[self._end - 1])
                kept.append(_Kept(band, steps, found.shape, found > 0 if asked else None))
            del seen, found  # before the next are there
        assert result is not None
        return result

    def backward(
        self, slopes: dict[int, Slope], kept: dict[int, Any], outputs: dict[int, Tensor]
    ) -> Tensor | None:
        """As `Program.backward`."""
        slope = self.rest.backward(
            {number - self._end: slope for number, slope in slopes.items()},
            kept.pop(1),
            {number - self._end: output for number, output in outputs.items()},
        )
        shape, bands = kept.pop(0)
        if slope is None:
            return None
        axis = _longer(shape)
        total = torch.empty(shape, dtype=slope.dtype, memory_format=LAST).zero_()
        while bands:
            self._add(total, slope, axis, bands.pop())
        return total

    def _add(self, total: Tensor, slope: Tensor, axis: int, kept: _Kept) -> None:
        """Add the gradient of what is a band's own; `slope` is that of the whole result."""
        outputs = {} if kept.above is None else {self._end: kept.above}
        slopes = {self._end: Slope(self._slope_of(kept, slope, axis), True)}
        found = self.front.backward(slopes, kept.steps, outputs)
        if found is not None:
            _along(total, axis, kept.band.seen).add_(found)

    def _slope_of(self, kept: _Kept, slope: Tensor, axis: int) -> Tensor:
        """The gradient of a band's result: nothing where that is not its own."""
        part = torch.empty(kept.shape, dtype=slope.dtype, memory_format=LAST).zero_()
        _along(part, axis, self._own(kept.band)).copy_(_along(slope, axis, kept.band.own))
        return part

    def _own(self, band: Band) -> Span:
        """A band's own positions, counted from the first that it has."""
        first = band.seen[0] // self.stride
        return band.own[0] - first, band.own[1] - first


def _longer(shape: torch.Size) -> int:
    """The axis that pictures `(N, C, H, W)` are cut along."""
    return 2 if shape[2] >= shape[3] else 3


def _along(map_: Tensor, axis: int, span: Span) -> Tensor:
    return map_.narrow(axis, span[0], span[1] - span[0])


# Where a front ends -------------------------------------------------------------------------------


def banded(program: Program) -> Program | Banded:
    """The program in bands, if it has a front for that.

    A front ends with a step that makes maps smaller and whose result is all that the later steps
    see: the last such, of which no position sees more than `FARTHEST` px along a side.
    """
    uses = {number: index for index, step in enumerate(program.steps) for number in step.inputs}
    wanted = {*program.outputs.values()}
    strides, fields = {0: 1}, {0: 1}
    end = 0
    for index, step in enumerate(program.steps):
        down, right = (step.operation.window(axis) for axis in (0, 1))
        stride, *others = {strides[number] for number in step.inputs}
        if step.output in wanted or others or not (down and right) or down.stride != right.stride:
            break
        extent = max(down.extent, right.extent)
        strides[step.output] = stride * down.stride
        fields[step.output] = max(fields[n] for n in step.inputs) + stride * (extent - 1)
        alone = all(uses[number] <= index for number in range(index + 1))
        if alone and down.stride > 1 and fields[step.output] <= FARTHEST:
            end = index + 1
    if not end:
        return program
    return Banded(program, *_parted(program, end), strides[end])


def _parted(program: Program, end: int) -> tuple[Program, Program]:
    """The first steps and the others; what the first make at last is the others' picture."""

    def later(numbers: Sequence[int]) -> tuple[int, ...]:
        return tuple(number - end for number in numbers if number >= end)

    steps = [
        replace(
            step,
            inputs=later(step.inputs),
            output=step.output - end,
            last_uses=later(step.last_uses),
        )
        for step in program.steps[end:]
    ]
    families = {
        index - end: replace(family, steps=later(family.steps))
        for index, family in program.families.items()
        if index >= end
    }
    outputs = {layer: number - end for layer, number in program.outputs.items()}
    front = {index: family for index, family in program.families.items() if index < end}
    return (
        Program(program.steps[:end], {"": end}, front),
        Program(tuple(steps), outputs, families),
    )


def _sides(front: Program, side: int, axis: int) -> dict[int, int]:
    """How long each value is along an axis, of a picture of so many px."""
    sides = {0: side}
    for step in front.steps:
        window = _window(step, axis)
        given = sides[step.inputs[0]]
        sides[step.output] = pooling.result_side(
            given, window.extent, window.stride, window.padding, up=window.up
        )
    return sides


def _needed(front: Program, own: Span, sides: dict[int, int], axis: int) -> Span:
    """The px of the picture that some positions of the front's result see along an axis."""
    needed = {len(front.steps): own}
    for step in reversed(front.steps):
        window = _window(step, axis)
        first, last = needed[step.output]
        begin = max(0, first * window.stride - window.padding)
        end = (last - 1) * window.stride - window.padding + window.extent
        for number in step.inputs:
            known = needed.get(number, (begin, end))
            needed[number] = min(begin, known[0]), min(max(end, known[1]), sides[number])
    return needed[0]


def _window(step: fused.Step, axis: int) -> Window:
    window = step.operation.window(axis)
    assert window is not None
    return window
