"""Max-pooling by Numba, compiled once on a machine: several times as fast as PyTorch's own.

PyTorch's gradient of one picture's pooling runs on one core, value by value, and notes each index
in eight bytes. Here a row of channels is one loop, which the compiler makes one of vectors, and an
index is the tap of its window, in one byte. The gradient is gathered: each px of the map asks the
windows that it is in, so that cores need not wait for each other.

Maps lie flat, channels last. Of bfloat16, which Numba does not know, there are the bits: a float is
these and 16 zeros.
"""

# Numba compiles what it can type; its decorators and arrays have no types of their own.
# pyright: reportUntypedFunctionDecorator=false, reportMissingTypeStubs=false, reportCallIssue=false
from __future__ import annotations

import functools
import importlib
import os
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, get_num_threads, njit, prange, set_num_threads, types
from numba.extending import intrinsic, overload

compiled: Any = njit(nogil=True, cache=True, boundscheck=False)
shared: Any = njit(nogil=True, cache=True, boundscheck=False, parallel=True)

PROCESS = os.getpid()

NOTHING = np.float32(0)
NO_INDEX = np.uint8(255)
HALF = np.uint32(16)


@intrinsic
def get(_: Any, array: Any, index: Any) -> Any:
    """`array[index]`; nothing counts from the end, so that a loop becomes one of vectors."""

    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, given[0]).data
        return builder.load(builder.gep(data, [given[1]]))

    return array.dtype(array, types.intp), code


@intrinsic
def put(_: Any, array: Any, index: Any, value: Any) -> Any:
    """`array[index] = value`."""

    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, given[0]).data
        builder.store(given[2], builder.gep(data, [given[1]]))
        return context.get_dummy_value()

    return types.void(array, types.intp, array.dtype), code


@intrinsic
def number_of(_: Any, bits: Any) -> Any:
    """The float32 of 32 bits."""

    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.bitcast(given[0], ir.FloatType())

    return types.float32(types.uint32), code


@intrinsic
def bits_of(_: Any, number: Any) -> Any:
    """The 32 bits of a float32."""

    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.bitcast(given[0], ir.IntType(32))

    return types.uint32(types.float32), code


def number(value):
    """A value as float32; of bfloat16 it is given the bits."""
    raise NotImplementedError


def like(other, value):
    """A float32 as another value is; as bfloat16 the bits of the nearest, of two the even one."""
    raise NotImplementedError


@overload(number)
def _number(value):
    if isinstance(value, types.Float):
        return lambda value: value
    return lambda value: number_of(np.uint32(value) << HALF)


@overload(like)
def _like(other, value):
    if isinstance(other, types.Float):
        return lambda other, value: value

    def rounded(other, value):
        bits = bits_of(value)
        return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> HALF) & np.uint32(1))) >> HALF)

    return rounded


@compiled
def pool(x, y, indices, shape, result, window, gated, first, last):
    """Rows `first` to `last` of windows, of all pictures, one after the other.

    x, y: the map and what comes of it, floats, or int16, the bits of bfloat16 that is nowhere
        negative: they stand in the order of the numbers. Of equal ones the first is taken, and a
        float that is no number.
    indices: the tap of each maximum, row by row of the window. shape, result: (H, W, C) of a
    picture. window: kernel, stride, padding, of each axis. gated: a maximum that is not above 0
    has no index.
    """
    height, width, channels = shape
    rows, columns, _ = result
    down, right, step_down, step_right, above, before = window
    for row in range(first, last):
        picture = row // rows
        i = row - picture * rows
        top = i * step_down - above
        for j in range(columns):
            left = j * step_right - before
            to = (row * columns + j) * channels
            begun = False
            for a in range(max(0, -top), min(down, height - top)):
                for b in range(max(0, -left), min(right, width - left)):
                    at = ((picture * height + top + a) * width + left + b) * channels
                    tap = np.uint8(a * right + b)
                    if begun:
                        for c in range(channels):
                            value, best_yet = get(x, at + c), get(y, to + c)
                            more = (value > best_yet) | (value != value)
                            put(y, to + c, value if more else best_yet)
                            put(indices, to + c, tap if more else get(indices, to + c))
                    else:
                        begun = True
                        for c in range(channels):
                            put(y, to + c, get(x, at + c))
                            put(indices, to + c, tap)
            if gated:
                for c in range(channels):
                    off = get(y, to + c) <= 0
                    put(indices, to + c, NO_INDEX if off else get(indices, to + c))


@compiled
def ends(width, columns, kernel, step, before):
    """Of each px of a row of the map the first window that it is in, and that after the last."""
    nears, fars = np.empty(width, np.int64), np.empty(width, np.int64)
    for x in range(width):
        nears[x] = max(0, (x + before - kernel + step) // step)
        fars[x] = min(columns, (x + before) // step + 1)
    return nears, fars


@compiled
def routed(grad_output, indices, at, index, tap):
    """A channel's share of a window's gradient: all, if its maximum is that tap, or none."""
    return number(get(grad_output, at)) if get(indices, index) == tap else NOTHING


@compiled
def added(grad_output, total, value):
    """A sum as `grad_output` has its numbers: PyTorch rounds after each summand, so this does."""
    return number(like(get(grad_output, 0), total + value))


@compiled
def pool_backward(grad_output, apart, indices, gradient, shape, result, window, onto, first, last):
    """Rows `first` to `last` of the map's gradient, from that of the windows.

    grad_output, gradient: float32, or uint16, the bits of bfloat16. Sums are of windows row by
    row, each rounded, as PyTorch adds them up. apart: from a window's first channel in
    `grad_output` to the next one's. onto: the sum is added to what is in `gradient`.
    """
    height, width, channels = shape
    rows, columns, _ = result
    down, right, step_down, step_right, above, before = window
    nears, fars = ends(width, columns, right, step_right, before)
    total = np.empty(channels, np.float32)
    for row in range(first, last):
        picture = row // height
        y = row - picture * height + above
        up, low = max(0, (y - down + step_down) // step_down), min(rows, y // step_down + 1)
        for x in range(width):
            to = (row * width + x) * channels
            begun = False
            for i in range(up, low):
                j = nears[x]
                while j < fars[x]:
                    # As many windows of a row as there are at once, up to three.
                    many = min(3, fars[x] - j)
                    window = (picture * rows + i) * columns + j
                    tap = (y - i * step_down) * right + x + before - j * step_right
                    g0, p0, t0 = window * apart, window * channels, np.uint8(tap)
                    g1, p1, t1 = g0 + apart, p0 + channels, np.uint8(tap - step_right)
                    g2, p2, t2 = g1 + apart, p1 + channels, np.uint8(tap - 2 * step_right)
                    if many == 1:
                        for c in range(channels):
                            one = routed(grad_output, indices, g0 + c, p0 + c, t0)
                            so_far = get(total, c) if begun else NOTHING
                            put(total, c, added(grad_output, so_far, one))
                    elif many == 2:
                        for c in range(channels):
                            one = routed(grad_output, indices, g0 + c, p0 + c, t0)
                            two = routed(grad_output, indices, g1 + c, p1 + c, t1)
                            so_far = get(total, c) if begun else NOTHING
                            so_far = added(grad_output, so_far, one)
                            put(total, c, added(grad_output, so_far, two))
                    else:
                        for c in range(channels):
                            one = routed(grad_output, indices, g0 + c, p0 + c, t0)
                            two = routed(grad_output, indices, g1 + c, p1 + c, t1)
                            three = routed(grad_output, indices, g2 + c, p2 + c, t2)
                            so_far = get(total, c) if begun else NOTHING
                            so_far = added(grad_output, so_far, one)
                            so_far = added(grad_output, so_far, two)
                            put(total, c, added(grad_output, so_far, three))
                    begun = True
                    j += many
            for c in range(channels):
                there = get(gradient, to + c)
                found = like(there, get(total, c) if begun else NOTHING)
                if onto:
                    found = like(there, number(there) + number(found))
                put(gradient, to + c, found)


# On several cores: each a share of the rows. Threads of our own would have to wait for a core on
# which OpenMP still looks out for work; Numba's, by OpenMP as well, begin at once.


@shared
def pool_shared(x, y, indices, shape, result, window, gated, rows, shares):
    for k in prange(shares):
        first, last = rows * k // shares, rows * (k + 1) // shares
        pool(x, y, indices, shape, result, window, gated, first, last)


@shared
def pool_backward_shared(
    grad_output, apart, indices, gradient, shape, result, window, onto, rows, shares
):
    for k in prange(shares):
        first, last = rows * k // shares, rows * (k + 1) // shares
        pool_backward(
            grad_output, apart, indices, gradient, shape, result, window, onto, first, last
        )


def run_shared(name: str, given: tuple[Any, ...], rows: int, shares: int) -> None:
    """Run a kernel on all rows, on so many cores, if they can be had here."""
    if shares == 1 or not _several():
        globals()[name](*given, 0, rows)
        return
    before = get_num_threads()
    set_num_threads(min(shares, config.NUMBA_NUM_THREADS))  # pyright: ignore
    try:
        globals()[f"{name}_shared"](*given, rows, shares)
    finally:
        set_num_threads(before)


def was_compiled(name: str) -> bool:
    """Whether a kernel was compiled by this process, and not found from before."""
    ours = globals()[name], globals()[f"{name}_shared"]
    return any(kernel.stats.cache_misses for kernel in ours)


@functools.cache
def _openmp() -> bool:
    # Numba's last resort ends the process if two of its threads ask at once.
    try:
        importlib.import_module("numba.np.ufunc.omppool")
    except ImportError:
        return False
    return True


def _several() -> bool:
    # A process that was forked has none of its parent's cores, and OpenMP would end it.
    return _openmp() and os.getpid() == PROCESS
