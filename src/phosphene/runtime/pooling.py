"""Max-pooling and its gradient, in as few bytes and as quickly as can be had here.

`max_pool` gives, besides the maxima, their indices, whose type says how they count and which
gradient understands them: uint8 the taps of a window (`kernels`, with Numba), int16 from where each
window begins (`max_pool_int16`), and more bytes the positions of the map, as PyTorch has them.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene.runtime.loading import ENOUGH_VALUES, Background

LAST = torch.channels_last
# Indices of maxima that are as nothing beside a map.
INDICES_AT_A_TIME = 2**17
# px of all pictures from which on Numba is waited for; with less, it is taken once it is there.
NUMBA_PIXELS = 300_000
# Values of a map of which each core should have so many.
VALUES_PER_CORE = 2**15
# s; what takes longer is logged.
SLOW_SECONDS = 1.0

# Kernel, stride, padding, dilation of both axes, and `ceil_mode`.
PoolWindow = Sequence[Any]
Span = tuple[int, int]

log = logging.getLogger("phosphene.pooling")


def max_pool(
    x: Tensor,
    window: PoolWindow,
    *,
    numba: bool = False,
    compact: bool = False,
    nonnegative: bool = False,
    gated: bool = False,
    beside: bool = True,
) -> tuple[Tensor, Tensor]:
    """The maxima of windows of `x` `(N, C, H, W)`, and their indices.

    Args:
        x: A map.
        window: Kernel, stride, padding, dilation and `ceil_mode`.
        numba: By Numba, if it takes such maps: wait for it. Otherwise by Numba once it is there.
        compact: Keep the indices in few bytes, even if that takes longer; by Numba only where that
            is waited for.
        nonnegative: No value is below 0.
        gated: No gradient is to pass where a maximum is not above 0; only indices of type uint8
            note that, for others it is the caller's to do.
        beside: Without `numba`, by Numba all the same once it was loaded beside the job.

    Maxima and gradient are the same to the bit, whoever finds them; but for the gradient of
    `compact` indices, which PyTorch adds up some rows at a time. So when Numba came up is not to
    be seen in any result.
    """
    beside = beside and not compact
    if numba_takes(x, window, wait=numba, nonnegative=nonnegative, beside=beside):
        return _max_pool_numba(x, window, gated)
    if compact:
        return max_pool_int16(x, *window)
    return torch.ops.aten.max_pool2d_with_indices(x, *window)


def max_pool_backward(
    grad_output: Tensor, shape: torch.Size, indices: Tensor, window: PoolWindow
) -> Tensor:
    """The gradient of a max-pooling of a map of `shape`; `indices` as `max_pool` has them."""
    if indices.dtype == torch.uint8:
        return _backward_numba(grad_output, shape, indices, window)
    if indices.dtype == torch.int16:
        return _backward_int16(grad_output, shape, indices, window)
    like = torch.empty(
        shape,
        dtype=grad_output.dtype,
        device=grad_output.device,
        memory_format=memory_format_of(grad_output),
    )
    backward = torch.ops.aten.max_pool2d_with_indices_backward
    return backward(grad_output, like, *window, indices.long())


def memory_format_of(map_: Tensor) -> torch.memory_format:
    return LAST if map_.is_contiguous(memory_format=LAST) else torch.contiguous_format


# By Numba -----------------------------------------------------------------------------------------


@functools.cache
def kernels() -> Any:
    """`kernels`, or None without Numba."""
    try:
        return importlib.import_module("phosphene.runtime.kernels")
    except ImportError:
        log.info('max-pooling is several times as fast with Numba: pip install "phosphene[fast]"')
    except Exception as error:  # no place to keep what is compiled, or a Numba that cannot
        log.info("max-pooling without Numba, which fails: %s", error)
    return None


def _load(stopped: Callable[[], bool]) -> bool:
    """Load all kernels and have them compiled, by running each once."""
    if kernels() is None:
        return False
    window = [3, 3], [2, 2], [0, 0], [1, 1], False
    side = math.isqrt(VALUES_PER_CORE // 8)
    # Several cores share a map that is large enough; one of one row has one.
    for dtype, rows in itertools.product((torch.float32, torch.bfloat16), (3, side)):
        x = torch.zeros((1, 64, rows, side), dtype=dtype).contiguous(memory_format=LAST)
        y, indices = _max_pool_numba(x, window, False)
        if stopped():
            return False
        _backward_numba(y, x.shape, indices, window)
        if stopped():
            return False
    return True


loading = Background(_load, ENOUGH_VALUES)


def numba_takes(
    x: Tensor,
    window: PoolWindow,
    *,
    wait: bool = False,
    nonnegative: bool = False,
    beside: bool = True,
) -> bool:
    """Whether Numba is here and takes such maps; waits for it, or has it loaded `beside`."""
    # The bits of bfloat16 stand in the order of the numbers where none of them is below 0.
    if not (nonnegative or x.dtype != torch.bfloat16) or not _fits_numba(x, window):
        return False
    if wait:
        return kernels() is not None
    return beside and loading.is_ready(x.numel())


def _fits_numba(x: Tensor, window: PoolWindow) -> bool:
    kernel, _, _, dilation, _ = window
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.ndim == 4
        and list(dilation) == [1, 1]
        and kernel[0] * kernel[1] <= torch.iinfo(torch.uint8).max
        and x.is_contiguous(memory_format=LAST)
        and sys.byteorder == "little"
    )


def _max_pool_numba(x: Tensor, window: PoolWindow, gated: bool) -> tuple[Tensor, Tensor]:
    indices = empty_indices(x, window)
    return max_pool_rows(x, indices, window, (0, indices.shape[2]), gated=gated), indices


def _backward_numba(
    grad_output: Tensor, shape: torch.Size, indices: Tensor, window: PoolWindow
) -> Tensor:
    gradient = torch.empty(shape, dtype=grad_output.dtype, memory_format=LAST)
    max_pool_backward_rows(grad_output, indices, gradient, window, (0, shape[2]))
    return gradient


# Some rows at a time, of one picture or all rows of many; where `numba_takes` says so.


def empty_indices(x: Tensor, window: PoolWindow) -> Tensor:
    """Where the indices of the maxima of `x` go, uint8."""
    kernel, stride, padding, _, ceil_mode = window
    rows, columns = (
        output_side(*given, ceil_mode=ceil_mode)
        for given in zip(x.shape[2:], kernel, stride, padding, strict=True)
    )
    return torch.empty((*x.shape[:2], rows, columns), dtype=torch.uint8, memory_format=LAST)


def max_pool_rows(
    x: Tensor, indices: Tensor, window: PoolWindow, rows: Span, *, gated: bool = False
) -> Tensor:
    """The maxima of rows (first, last + 1) of windows; their indices go there in `indices`."""
    kernel, stride, padding, *_ = window
    first, last = rows
    top = first * stride[0] - padding[0]
    begin, end = max(0, top), (last - 1) * stride[0] - padding[0] + kernel[0]
    if last == indices.shape[2]:
        end = x.shape[2]  # many pictures stay in one piece
    x, indices = x[:, :, begin:end], indices[:, :, first:last]
    y = torch.empty(indices.shape, dtype=x.dtype, memory_format=LAST)
    edges = begin - top, padding[1]
    bits = torch.float32 if x.dtype == torch.float32 else torch.int16
    given = _flat(x, bits), _flat(y, bits), _flat(indices)
    geometry = _sides(x), _sides(y), (*kernel, *stride, *edges)
    _run("pool", (*given, *geometry, gated), len(y) * y.shape[2], y.numel())
    return y


def windows_reaching(rows: Span, count: int, window: PoolWindow) -> Span:
    """The rows of windows, of `count`, which reach into rows (first, last + 1) of the map."""
    (kernel, _), (stride, _), (padding, _), *_ = window
    first, last = rows
    return (
        max(0, (first + padding - kernel + stride) // stride),
        min(count, (last - 1 + padding) // stride + 1),
    )


def max_pool_backward_rows(
    grad_output: Tensor,
    indices: Tensor,
    gradient: Tensor,
    window: PoolWindow,
    rows: Span,
    *,
    onto: bool = False,
) -> None:
    """Rows (first, last + 1) of a map's gradient, from that of the `windows_reaching` them.

    onto: they are added to what is there, each sum rounded before.
    """
    kernel, stride, padding, *_ = window
    first, last = rows
    begin, end = windows_reaching(rows, indices.shape[2], window)
    indices, gradient = indices[:, :, begin:end], gradient[:, :, first:last]
    edges = first + padding[0] - begin * stride[0], padding[1]
    given, apart = _spaced(grad_output)
    bits = torch.float32 if grad_output.dtype == torch.float32 else torch.uint16
    arrays = given.view(bits).numpy(), apart, _flat(indices), _flat(gradient, bits)
    geometry = _sides(gradient), _sides(indices), (*kernel, *stride, *edges)
    _run(
        "pool_backward",
        (*arrays, *geometry, onto),
        len(gradient) * gradient.shape[2],
        gradient.numel(),
    )


def _sides(map_: Tensor) -> tuple[int, int, int]:
    _, channels, height, width = map_.shape
    return height, width, channels


def output_side(side: int, kernel: int, stride: int, padding: int, *, ceil_mode: bool) -> int:
    """How many windows lie along a side, as PyTorch counts.

    >>> output_side(112, 3, 2, 0, ceil_mode=True), output_side(112, 3, 2, 0, ceil_mode=False)
    (56, 55)
    """
    room = side + 2 * padding - kernel
    count = (-(-room // stride) if ceil_mode else room // stride) + 1
    # No window begins in the padding at the end.
    return count - (ceil_mode and (count - 1) * stride >= side + padding)


def _flat(map_: Tensor, bits: torch.dtype | None = None) -> Any:
    """A map, channels last, as an array of one axis that shares its memory."""
    line = map_.detach().permute(0, 2, 3, 1).reshape(-1)
    return (line if bits is None else line.view(bits)).numpy()


def _spaced(map_: Tensor) -> tuple[Tensor, int]:
    """A map, or a part of the channels of one, as one axis; and from one position to the next."""
    n, channels, height, width = map_.shape
    apart = map_.stride(3) if width > 1 else map_.stride(2) if height > 1 else channels
    strides = (height * width * apart, 1, width * apart, apart)
    fits = all(
        size == 1 or have == want
        for size, have, want in zip(map_.shape, map_.stride(), strides, strict=True)
    )
    if not fits or apart < channels:
        map_, apart = map_.contiguous(memory_format=LAST), channels
    length = (n * height * width - 1) * apart + channels
    return map_.detach().as_strided((length,), (1,), map_.storage_offset()), apart


def _run(name: str, given: tuple[Any, ...], rows: int, work: int) -> None:
    """Run a kernel on as many cores as PyTorch would use."""
    shares = max(1, min(torch.get_num_threads(), rows, work // VALUES_PER_CORE))
    begun = time.perf_counter()
    kernels().run_shared(name, given, rows, shares)
    took = time.perf_counter() - begun
    if (name, given[0].dtype) not in _STARTED:
        _STARTED.add((name, given[0].dtype))
        waited = took > SLOW_SECONDS and not loading.is_loading()
        if waited and kernels().was_compiled(name):
            log.warning("a part of max-pooling is compiled, once on a machine: %.1f s", took)


_STARTED: set[tuple[str, Any]] = set()


# In two bytes -------------------------------------------------------------------------------------


def max_pool_int16(x: Tensor, *window: Any) -> tuple[Tensor, Tensor]:
    """`aten.max_pool2d_with_indices`, the indices of the maxima in 2 bytes for 8, if they fit.

    Indices then count from where each window begins. `window` is that of both axes. On an
    accelerator they take 4: rows by rows there would be thousands of short operations.
    """
    if x.device.type != "cpu":
        output, indices = torch.ops.aten.max_pool2d_with_indices(x, *window)
        return output, indices.int()
    kernel, stride, padding, dilation, ceil_mode = window
    forward = torch.ops.aten.max_pool2d_with_indices
    height, width = x.shape[2:]
    reach = (kernel[0] - 1) * dilation[0] + 1
    farthest = (reach - 1) * width + (kernel[1] - 1) * dilation[1]
    if farthest > torch.iinfo(torch.int16).max:
        output, indices = forward(x, *window)
        return output, indices.int()
    # Indices take as much as two maps in full length: some rows of windows at a time.
    rows = output_side(height, reach, stride[0], padding[0], ceil_mode=ceil_mode)
    of_rows = kernel, stride, [0, padding[1]], dilation
    some = max(1, INDICES_AT_A_TIME // max(x[:, :, :1].numel(), 1))
    found: tuple[Tensor, Tensor] | None = None
    for start in range(0, rows, some):
        end = min(start + some, rows)
        first, last = start * stride[0] - padding[0], (end - 1) * stride[0] - padding[0] + reach
        part = x[:, :, max(first, 0) : min(last, height)]
        if first < 0 or last > height:
            beyond = (0, 0, max(-first, 0), max(last - height, 0))
            part = F.pad(part, beyond, value=-torch.inf)
        output, indices = forward(part, *of_rows, ceil_mode)
        indices = indices.sub_(_window_origins(indices, width, of_rows)).to(torch.int16)
        if start == 0 and end == rows:
            return output, indices
        if found is None:
            size = (*output.shape[:2], rows, output.shape[3])
            layout = memory_format_of(x)
            found = (
                torch.empty(size, dtype=x.dtype, device=x.device, memory_format=layout),
                torch.empty(size, dtype=torch.int16, device=x.device, memory_format=layout),
            )
        for whole, piece in zip(found, (output, indices), strict=True):
            whole[:, :, start:end] = piece
    assert found is not None
    return found


def _backward_int16(
    grad_output: Tensor, shape: torch.Size, indices: Tensor, window: PoolWindow
) -> Tensor:
    empty = functools.partial(
        torch.empty,
        dtype=grad_output.dtype,
        device=grad_output.device,
        memory_format=memory_format_of(grad_output),
    )
    backward = torch.ops.aten.max_pool2d_with_indices_backward
    # Some rows of windows at a time, as there. Their rows of the map may begin before it and end
    # behind it.
    kernel, stride, padding, dilation, ceil_mode = window
    reach = (kernel[0] - 1) * dilation[0] + 1
    total = empty(shape).zero_()
    some = max(1, INDICES_AT_A_TIME // max(indices[:, :, :1].numel(), 1))
    for start in range(0, indices.shape[2], some):
        rows = grad_output[:, :, start : start + some]
        count = rows.shape[2]
        of_rows = kernel, stride, [0, padding[1]], dilation
        here = indices[:, :, start : start + some]
        like = empty((*shape[:2], (count - 1) * stride[0] + reach, shape[3]))
        found = backward(
            rows,
            like,
            *of_rows,
            ceil_mode,
            here.long().add_(_window_origins(here, shape[3], of_rows)),
        )
        first = start * stride[0] - padding[0]
        top, bottom = max(first, 0), min(first + like.shape[2], shape[2])
        total[:, :, top:bottom] += found[:, :, top - first : bottom - first]
    return total


def _window_origins(indices: Tensor, width: int, window: Sequence[Any]) -> Tensor:
    """The position in a map of that width at which each window begins, `(H, W)`."""
    _, stride, padding, *_ = window
    rows, columns = (
        torch.arange(side, device=indices.device) * step - before
        for side, step, before in zip(indices.shape[-2:], stride, padding, strict=True)
    )
    return rows[:, None] * width + columns
