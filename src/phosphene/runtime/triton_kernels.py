"""What PyTorch does in many kernels of its own, in one each, by Triton.

Imported by `fused` alone, and only where there is a CUDA card. Sizes are no constants, so that an
octave compiles nothing: each kernel is compiled once for each pair of types.
"""

# Triton is not there everywhere, and what it makes of a function has another type.
# pyright: reportMissingImports=false, reportIndexIssue=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false

import math

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024  # values of one program


def preprocess(image: Tensor, shift: Tensor, scale: Tensor, into: Tensor) -> None:
    """(image - shift) / scale, from `(N, C, H, W)` to the type of `into`, channels last."""
    grid, sizes = _positions(image)
    _preprocess[grid](image, shift, scale, into, *sizes, CHANNELS=image.shape[1], BLOCK=BLOCK)


def preprocess_backward(grad: Tensor, scale: Tensor, into: Tensor) -> None:
    """grad / scale, from channels last to `(N, C, H, W)` in the type of `into`."""
    grid, sizes = _positions(grad)
    _preprocess_backward[grid](grad, scale, into, *sizes, CHANNELS=grad.shape[1], BLOCK=BLOCK)


def blur_along(planes: Tensor, axis: int, sigma: float, radius: int, into: Tensor) -> None:
    """A Gaussian along an axis of planes, edges repeated."""
    exponent = -1 / (2 * sigma**2)
    share = 1 / sum(math.exp(exponent * tap**2) for tap in range(-radius, radius + 1))
    grid = (triton.cdiv(planes.numel(), BLOCK),)
    sizes = planes.numel(), planes.shape[axis], planes.stride(axis)
    _blur_along[grid](planes, into, *sizes, radius, exponent, share, BLOCK=BLOCK)


def _positions(maps: Tensor) -> tuple[tuple[int], tuple[int, int]]:
    """The grid for all positions of maps, and how many there are, altogether and of each map."""
    pixels = maps.shape[2] * maps.shape[3]
    count = maps.shape[0] * pixels
    return (triton.cdiv(count, BLOCK),), (count, pixels)


@triton.jit(do_not_specialize=["count", "pixels"])
def _preprocess(
    image, shift, scale, into, count, pixels, CHANNELS: tl.constexpr, BLOCK: tl.constexpr
):
    here = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = here < count
    first = here // pixels * (pixels * CHANNELS) + here % pixels
    for channel in tl.static_range(CHANNELS):
        value = tl.load(image + first + channel * pixels, mask=inside)
        # As PyTorch divides: Triton's own division is off by some last bits.
        done = tl.math.div_rn(value - tl.load(shift + channel), tl.load(scale + channel))
        tl.store(into + here * CHANNELS + channel, done.to(into.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["count", "pixels"])
def _preprocess_backward(
    grad, scale, into, count, pixels, CHANNELS: tl.constexpr, BLOCK: tl.constexpr
):
    here = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = here < count
    first = here // pixels * (pixels * CHANNELS) + here % pixels
    for channel in tl.static_range(CHANNELS):
        value = tl.load(grad + here * CHANNELS + channel, mask=inside).to(tl.float32)
        done = tl.math.div_rn(value, tl.load(scale + channel))
        tl.store(into + first + channel * pixels, done, mask=inside)


@triton.jit(do_not_specialize=["count", "length", "apart", "radius"])
def _blur_along(planes, into, count, length, apart, radius, exponent, share, BLOCK: tl.constexpr):
    here = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = here < count
    place = here // apart % length
    total = tl.full((BLOCK,), 0, tl.float32)
    for tap in range(-radius, radius + 1):
        beside = tl.minimum(tl.maximum(place + tap, 0), length - 1)
        value = tl.load(planes + here + (beside - place) * apart, mask=inside)
        total += value * (share * tl.exp(exponent * (tap * tap)))
    tl.store(into + here, total, mask=inside)
