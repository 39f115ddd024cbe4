"""Evaluating an image as if it were rolled by some px, with no rolled copy of it.

A rolled copy would be one more image of full size; crops are taken from where they lie.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from phosphene.engine import Evaluate
from phosphene.evaluation.geometry import Span
from phosphene.runtime import allocator

Shift = tuple[int, int]  # (down, right), px
Place = tuple[Span, Span]  # rows and columns


class RolledEvaluate(Protocol):
    """Score and gradient of an image rolled by (down, right) px, the gradient rolled back again.

    Of several objectives scores `(K, N)` and gradients `(K, N, 3, H, W)`.
    """

    def __call__(self, image: Tensor, shift: Shift = (0, 0)) -> tuple[Tensor, Tensor]: ...


def rolled(whole: Evaluate) -> RolledEvaluate:
    """Evaluate the rolled image at once: here there is a copy of it, if it is rolled at all."""

    def evaluate(image: Tensor, shift: Shift = (0, 0)) -> tuple[Tensor, Tensor]:
        moved = image.roll(shift, (-2, -1)) if any(shift) else image
        with allocator.activations_in_heap():
            score, gradient = whole(moved)
        if not any(shift):
            return score, gradient
        back = (-shift[0], -shift[1])
        if gradient.ndim == image.ndim:
            return score, gradient.roll(back, (-2, -1))
        for one in gradient:  # no second copy of all of them
            one.copy_(one.roll(back, (-2, -1)))
        return score, gradient

    return evaluate


def crop(image: Tensor, place: Place, shift: Shift) -> Tensor:
    """A part of `image.roll(shift, (-2, -1))`: a view, or a copy where it goes over an edge."""
    rows = _pieces(place[0], shift[0], image.shape[-2])
    columns = _pieces(place[1], shift[1], image.shape[-1])
    parts = [[image[..., row, column] for column in columns] for row in rows]
    if len(rows) == len(columns) == 1:
        return parts[0][0]
    return torch.cat([torch.cat(row, -1) for row in parts], -2)


def add_crop(total: Tensor, part: Tensor, place: Place, shift: Shift) -> None:
    """Add to an image, in place, what belongs to a part of it rolled."""
    top = 0
    for row in _pieces(place[0], shift[0], total.shape[-2]):
        left, bottom = 0, top + row.stop - row.start
        for column in _pieces(place[1], shift[1], total.shape[-1]):
            right = left + column.stop - column.start
            total[..., row, column] += part[..., top:bottom, left:right]
            left = right
        top = bottom


def _pieces(span: Span, shift: int, side: int) -> list[slice]:
    """Where a span of a rolled side lies on the side as it is: in one piece or in two."""
    first = (span[0] - shift) % side
    last = first + span[1] - span[0]
    return [slice(first, last)] if last <= side else [slice(first, side), slice(0, last - side)]
