"""Max-pooling and its gradient, in as few bytes and as quickly as there is a way here.

`pooled` gives, besides the maxima, their places, whose type says how they count and which gradient
understands them: uint8 the taps of a window (`pooling_kernels`, with Numba), int16 from where each
window begins (`pooled_shortly`), and more bytes the positions of the map, as PyTorch has them.
"""

from __future__ import annotations

import functools
import importlib
import logging
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LAST = torch.channels_last
# Places of maxima that are as nothing beside a map.
PLACES_AT_A_TIME = 2**17
# px of all pictures from which on Numba is worth it: it takes most of a second to be there. It goes
# by nothing else, so that the same dream comes out the same whatever was dreamt before.
ENOUGH = 300_000
# Values of a map of which each core should have so many.
ENOUGH_EACH = 2**15
# s; what takes longer is said.
LONG = 1.0

# Kernel, stride, padding, dilation of both axes, and whether sizes are rounded up.
Options = Sequence[Any]
Span = tuple[int, int]

log = logging.getLogger("phosphene.pooling")


def pooled(
    x: Tensor,
    options: Options,
    *,
    quick: bool = False,
    short: bool = False,
    positive: bool = False,
    gated: bool = False,
) -> tuple[Tensor, Tensor]:
    """The maxima of windows of `x` `(N, C, H, W)`, and their places.

    quick: by Numba, if it is here and takes such maps. short: keep the places in few bytes, even if
    that takes longer. positive: no value is below 0. gated: no gradient is to pass where a maximum
    is not above 0; only places of type uint8 note that, for others it is the caller's to do.
    """
    # The bits of bfloat16 stand in the order of the numbers where none of them is below 0.
    if quick and (positive or x.dtype != torch.bfloat16) and by_numba(x, options):
        return _pooled_by_numba(x, options, gated)
    if short:
        return pooled_shortly(x, *options)
    return torch.ops.aten.max_pool2d_with_indices(x, *options)


def pooling_gradient(slope: Tensor, shape: torch.Size, places: Tensor, options: Options) -> Tensor:
    """The gradient of a max-pooling of a map of `shape`; `places` as `pooled` has them."""
    if places.dtype == torch.uint8:
        return _gradient_by_numba(slope, shape, places, options)
    if places.dtype == torch.int16:
        return _gradient_of_short(slope, shape, places, options)
    like = torch.empty(shape, dtype=slope.dtype, device=slope.device, memory_format=_layout(slope))
    backward = torch.ops.aten.max_pool2d_with_indices_backward
    return backward(slope, like, *options, places.long())


def _layout(map_: Tensor) -> torch.memory_format:
    return LAST if map_.is_contiguous(memory_format=LAST) else torch.contiguous_format


# By Numba -----------------------------------------------------------------------------------------


@functools.cache
def kernels() -> Any:
    """`pooling_kernels`, or None without Numba."""
    try:
        return importlib.import_module("phosphene.pooling_kernels")
    except ImportError:
        log.info('max-pooling is several times as fast with Numba: pip install "phosphene[fast]"')
    except Exception as error:  # no place to keep what is compiled, or a Numba that cannot
        log.info("max-pooling without Numba, which fails: %s", error)
    return None


def by_numba(x: Tensor, options: Options) -> bool:
    """Whether Numba is here and takes such maps."""
    kernel, _, _, dilation, _ = options
    fits = (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.ndim == 4
        and list(dilation) == [1, 1]
        and kernel[0] * kernel[1] <= torch.iinfo(torch.uint8).max
        and x.is_contiguous(memory_format=LAST)
        and sys.byteorder == "little"
    )
    return fits and kernels() is not None


def _pooled_by_numba(x: Tensor, options: Options, gated: bool) -> tuple[Tensor, Tensor]:
    places = empty_places(x, options)
    return pool_rows(x, places, options, (0, places.shape[2]), gated=gated), places


def _gradient_by_numba(
    slope: Tensor, shape: torch.Size, places: Tensor, options: Options
) -> Tensor:
    gradient = torch.empty(shape, dtype=slope.dtype, memory_format=LAST)
    spread_rows(slope, places, gradient, options, (0, shape[2]))
    return gradient


# Some rows at a time, of one picture or all rows of many; where `by_numba` says so.


def empty_places(x: Tensor, options: Options) -> Tensor:
    """Where the places of the maxima of `x` go, uint8."""
    kernel, stride, padding, _, up = options
    rows, columns = (
        result_side(*given, up=up)
        for given in zip(x.shape[2:], kernel, stride, padding, strict=True)
    )
    return torch.empty((*x.shape[:2], rows, columns), dtype=torch.uint8, memory_format=LAST)


def pool_rows(
    x: Tensor, places: Tensor, options: Options, rows: Span, *, gated: bool = False
) -> Tensor:
    """The maxima of rows (first, last + 1) of windows; their places go there in `places`."""
    kernel, stride, padding, *_ = options
    first, last = rows
    top = first * stride[0] - padding[0]
    begin, end = max(0, top), (last - 1) * stride[0] - padding[0] + kernel[0]
    if last == places.shape[2]:
        end = x.shape[2]  # many pictures stay in one piece
    x, places = x[:, :, begin:end], places[:, :, first:last]
    y = torch.empty(places.shape, dtype=x.dtype, memory_format=LAST)
    edges = begin - top, padding[1]
    bits = torch.float32 if x.dtype == torch.float32 else torch.int16
    given = _flat(x, bits), _flat(y, bits), _flat(places)
    geometry = _sides(x), _sides(y), (*kernel, *stride, *edges)
    _run("pool", (*given, *geometry, gated), len(y) * y.shape[2], y.numel())
    return y


def windows_over(rows: Span, count: int, options: Options) -> Span:
    """The rows of windows, of `count`, which reach into rows (first, last + 1) of the map."""
    (kernel, _), (stride, _), (padding, _), *_ = options
    first, last = rows
    return (
        max(0, (first + padding - kernel + stride) // stride),
        min(count, (last - 1 + padding) // stride + 1),
    )


def spread_rows(
    slope: Tensor,
    places: Tensor,
    gradient: Tensor,
    options: Options,
    rows: Span,
    *,
    onto: bool = False,
) -> None:
    """Rows (first, last + 1) of a map's gradient, from that of the `windows_over` them.

    onto: they are added to what is there.
    """
    kernel, stride, padding, *_ = options
    first, last = rows
    begin, end = windows_over(rows, places.shape[2], options)
    places, gradient = places[:, :, begin:end], gradient[:, :, first:last]
    edges = first + padding[0] - begin * stride[0], padding[1]
    given, apart = _spaced(slope)
    bits = torch.float32 if slope.dtype == torch.float32 else torch.uint16
    arrays = given.view(bits).numpy(), apart, _flat(places), _flat(gradient, bits)
    geometry = _sides(gradient), _sides(places), (*kernel, *stride, *edges)
    _run("spread", (*arrays, *geometry, onto), len(gradient) * gradient.shape[2], gradient.numel())


def _sides(map_: Tensor) -> tuple[int, int, int]:
    _, channels, height, width = map_.shape
    return height, width, channels


def result_side(side: int, kernel: int, stride: int, padding: int, *, up: bool) -> int:
    """How many windows lie along a side, as PyTorch counts.

    >>> result_side(112, 3, 2, 0, up=True), result_side(112, 3, 2, 0, up=False)
    (56, 55)
    """
    room = side + 2 * padding - kernel
    count = (-(-room // stride) if up else room // stride) + 1
    # No window begins in the padding at the end.
    return count - (up and (count - 1) * stride >= side + padding)


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
    shares = max(1, min(torch.get_num_threads(), rows, work // ENOUGH_EACH))
    begun = time.perf_counter()
    kernels().share_out(name, given, rows, shares)
    took = time.perf_counter() - begun
    if (name, given[0].dtype) not in _RUN:
        _RUN.add((name, given[0].dtype))
        if took > LONG and kernels().was_compiled(name):
            log.warning("a part of max-pooling is compiled, once on a machine: %.1f s", took)


_RUN: set[tuple[str, Any]] = set()


# In two bytes -------------------------------------------------------------------------------------


def pooled_shortly(x: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    """`aten.max_pool2d_with_indices`, the places of the maxima in 2 bytes for 8, if they fit.

    Places then count from where each window begins. Options are those for both axes.
    """
    kernel, stride, padding, dilation, up = options
    forward = torch.ops.aten.max_pool2d_with_indices
    height, width = x.shape[2:]
    reach = (kernel[0] - 1) * dilation[0] + 1
    farthest = (reach - 1) * width + (kernel[1] - 1) * dilation[1]
    if farthest > torch.iinfo(torch.int16).max:
        output, places = forward(x, *options)
        return output, places.int()
    # Places take as much as two maps in full length: some rows of windows at a time.
    rows = result_side(height, reach, stride[0], padding[0], up=up)
    of_rows = kernel, stride, [0, padding[1]], dilation
    some = max(1, PLACES_AT_A_TIME // max(x[:, :, :1].numel(), 1))
    found: tuple[Tensor, Tensor] | None = None
    for start in range(0, rows, some):
        end = min(start + some, rows)
        first, last = start * stride[0] - padding[0], (end - 1) * stride[0] - padding[0] + reach
        part = x[:, :, max(first, 0) : min(last, height)]
        if first < 0 or last > height:
            beyond = (0, 0, max(-first, 0), max(last - height, 0))
            part = F.pad(part, beyond, value=-torch.inf)
        output, places = forward(part, *of_rows, up)
        places = places.sub_(_corners(places, width, of_rows)).to(torch.int16)
        if start == 0 and end == rows:
            return output, places
        if found is None:
            size = (*output.shape[:2], rows, output.shape[3])
            layout = _layout(x)
            found = (
                torch.empty(size, dtype=x.dtype, device=x.device, memory_format=layout),
                torch.empty(size, dtype=torch.int16, device=x.device, memory_format=layout),
            )
        for whole, piece in zip(found, (output, places), strict=True):
            whole[:, :, start:end] = piece
    assert found is not None
    return found


def _gradient_of_short(
    slope: Tensor, shape: torch.Size, places: Tensor, options: Options
) -> Tensor:
    empty = functools.partial(
        torch.empty,
        dtype=slope.dtype,
        device=slope.device,
        memory_format=_layout(slope),
    )
    backward = torch.ops.aten.max_pool2d_with_indices_backward
    # Some rows of windows at a time, as there. Their rows of the map may begin before it and end
    # behind it.
    kernel, stride, padding, dilation, up = options
    reach = (kernel[0] - 1) * dilation[0] + 1
    total = empty(shape).zero_()
    some = max(1, PLACES_AT_A_TIME // max(places[:, :, :1].numel(), 1))
    for start in range(0, places.shape[2], some):
        rows = slope[:, :, start : start + some]
        count = rows.shape[2]
        of_rows = kernel, stride, [0, padding[1]], dilation
        here = places[:, :, start : start + some]
        like = empty((*shape[:2], (count - 1) * stride[0] + reach, shape[3]))
        found = backward(
            rows, like, *of_rows, up, here.long().add_(_corners(here, shape[3], of_rows))
        )
        first = start * stride[0] - padding[0]
        top, bottom = max(first, 0), min(first + like.shape[2], shape[2])
        total[:, :, top:bottom] += found[:, :, top - first : bottom - first]
    return total


def _corners(places: Tensor, width: int, options: Sequence[Any]) -> Tensor:
    """The place in a map of that width at which each window begins, `(H, W)`."""
    _, stride, padding, *_ = options
    rows, columns = (
        torch.arange(side, device=places.device) * step - before
        for side, step, before in zip(places.shape[-2:], stride, padding, strict=True)
    )
    return rows[:, None] * width + columns
