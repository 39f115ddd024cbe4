"""Max-pooling by Numba against PyTorch's own, and without either."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from phosphene import load_network
from phosphene import objectives as obj
from phosphene.evaluation.cost import bytes_per_pixel
from phosphene.network import Network
from phosphene.runtime import graph, operations, pooling
from phosphene.runtime.lowering import lower
from phosphene.runtime.operations import MaxPool, PooledConvolution
from phosphene.runtime.options import Options
from phosphene.runtime.pooling import LAST, max_pool, max_pool_backward

pytestmark = pytest.mark.cpu_only("pooling by Numba")

DTYPES = (torch.float32, torch.bfloat16)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba for the smallest pictures, and on several cores."""
    for name in ("NUMBA_PIXELS", "VALUES_PER_CORE"):
        monkeypatch.setattr(pooling, name, 1)
    assert pooling.kernels() is not None


def laid(values: Tensor, dtype: torch.dtype) -> Tensor:
    return values.to(dtype).contiguous(memory_format=LAST)


def window_of(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int] = (0, 0),
    *,
    up: bool = False,
) -> Any:
    return list(kernel), list(stride), list(padding), [1, 1], up


def expected(x: Tensor, grad: Tensor, window: Any) -> tuple[Tensor, Tensor]:
    """By autograd, in float64."""
    leaf = x.double().requires_grad_()
    found = F.max_pool2d(leaf, *window)
    (gradient,) = torch.autograd.grad(found, leaf, grad.double())
    return found.detach(), gradient


def agrees(x: Tensor, window: Any, *, nonnegative: bool = False) -> None:
    """Maxima exactly; the gradient as float64 has it, rounded."""
    found, indices = max_pool(x, window, numba=True, nonnegative=nonnegative)
    assert indices.dtype == torch.uint8
    generator = torch.Generator().manual_seed(1)
    grad = laid(torch.randn(found.shape, generator=generator), x.dtype)
    maxima, gradient = expected(x, grad, window)
    assert torch.equal(found.double(), maxima)
    got = max_pool_backward(grad, x.shape, indices, window)
    assert got.dtype == x.dtype
    assert got.is_contiguous(memory_format=LAST)
    # Of sums a few cancel; those of bfloat16 are rounded after each summand.
    error, away = (1e-6, 2e-6) if x.dtype == torch.float32 else (2**-6, 0.1)
    torch.testing.assert_close(got.double(), gradient, rtol=error, atol=away)


SHAPES = [
    ((3, 3), (2, 2), (0, 0), True),
    ((3, 3), (1, 1), (1, 1), False),
    ((3, 3), (2, 2), (1, 1), False),
    ((2, 2), (2, 2), (0, 0), False),
    ((2, 2), (2, 2), (0, 0), True),
    ((5, 4), (3, 1), (2, 2), True),
    ((1, 7), (2, 3), (0, 3), False),
    ((3, 3), (4, 5), (0, 0), True),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kernel", "stride", "padding", "up"), SHAPES)
@pytest.mark.parametrize("size", [(1, 64, 9, 12), (2, 5, 14, 7), (1, 1, 8, 8), (3, 33, 5, 31)])
def test_it_is_what_autograd_finds(
    dtype: torch.dtype, kernel: Any, stride: Any, padding: Any, up: bool, size: Any
) -> None:
    window = window_of(kernel, stride, padding, up=up)
    x = laid(torch.randn(size, generator=torch.Generator().manual_seed(0)), dtype)
    if dtype == torch.float32:
        agrees(x, window)
        return
    # bfloat16 has so few numbers that they meet; then which is the first is a rule, tested below.
    order = torch.randperm(x.numel(), generator=torch.Generator().manual_seed(2))
    agrees(laid((order % 251).view(size), dtype), window, nonnegative=True)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_shape(data: st.DataObject) -> None:
    kernel = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    stride = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    padding = data.draw(st.tuples(*(st.integers(0, k // 2) for k in kernel)))
    sides = [
        data.draw(st.integers(max(1, k - 2 * p), 13)) for k, p in zip(kernel, padding, strict=True)
    ]
    size = (data.draw(st.integers(1, 2)), data.draw(st.integers(1, 20)), *sides)
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    x = laid(torch.randn(size, generator=generator), torch.float32)
    agrees(x, window_of(kernel, stride, padding, up=data.draw(st.booleans())))


@pytest.mark.parametrize("dtype", DTYPES)
def test_of_equal_ones_the_first_is_taken(dtype: torch.dtype) -> None:
    """As PyTorch does: row by row of a window."""
    x = laid(
        torch.randint(0, 3, (2, 40, 17, 18), generator=torch.Generator().manual_seed(0)), dtype
    )
    window = window_of((3, 3), (2, 2), (1, 1))
    found, indices = max_pool(x, window, numba=True, nonnegative=True)
    maxima, positions = torch.ops.aten.max_pool2d_with_indices(x, *window)
    assert torch.equal(found, maxima)
    rows, columns = (torch.arange(side) * 2 - 1 for side in (found.shape[2], found.shape[3]))
    ours = (rows[:, None] + indices.long() // 3) * 18 + columns + indices.long() % 3
    assert torch.equal(ours, positions)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kernel", "stride", "padding", "up"), SHAPES)
def test_gated_no_gradient_goes_where_nothing_is_above_zero(
    dtype: torch.dtype, kernel: Any, stride: Any, padding: Any, up: bool
) -> None:
    window = window_of(kernel, stride, padding, up=up)
    generator = torch.Generator().manual_seed(0)
    x = laid((torch.randn(2, 40, 13, 14, generator=generator) - 1.5).relu(), dtype)
    x[0, :, 3, 4] = -0.0
    found, indices = max_pool(x, window, numba=True, nonnegative=True, gated=True)
    plain, free = max_pool(x, window, numba=True, nonnegative=True)
    assert torch.equal(found, plain)
    assert 0.05 < float((found == 0).float().mean()) < 1
    assert torch.equal(indices == 255, found == 0)
    assert torch.equal(indices[found > 0], free[found > 0])
    grad = laid(torch.randn(found.shape, generator=generator), dtype)
    got = max_pool_backward(grad, x.shape, indices, window)
    expected = max_pool_backward(grad * (found > 0), x.shape, free, window)
    assert torch.equal(got, expected)
    x[0, 0, 0, 0] = torch.nan  # is no number below 0 either
    found, indices = max_pool(x.float(), window, numba=True, nonnegative=True, gated=True)
    assert int((indices[found.isnan()] == 255).sum()) == 0


def test_bfloat16_below_zero_is_pytorchs_and_zeros_have_signs() -> None:
    x = laid(torch.tensor([[-3.0, -1.5], [-0.0, 0.0]]).view(1, 1, 2, 2), torch.bfloat16)
    window = window_of((1, 2), (1, 2))
    found, indices = max_pool(x, window, numba=True)
    assert indices.dtype == torch.int64
    assert found.flatten().tolist() == [-1.5, 0.0]
    # What is called nonnegative may hold a −0, which is less than 0 to it.
    found, indices = max_pool(x[:, :, 1:], window, numba=True, nonnegative=True)
    assert (found.item(), indices.item()) == (0, 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_number_stays_none(dtype: torch.dtype) -> None:
    x = laid(torch.randn(1, 3, 6, 6), dtype)
    x[0, 1, 2, 3] = torch.nan
    window = window_of((3, 3), (3, 3))
    found, _ = max_pool(x, window, numba=True)
    assert found.isnan().sum() == 1
    assert found[0, 1, 0, 1].isnan()
    x = torch.full_like(x, -torch.inf)
    assert torch.equal(
        max_pool(x, window, numba=True)[0], torch.full((1, 3, 2, 2), -torch.inf, dtype=dtype)
    )


def test_sums_of_bfloat16_are_rounded_after_each_summand_to_even() -> None:
    """One px is the maximum of four windows: 1 + 2⁻⁷ is a number, 1 + 2⁻⁸ is none and becomes 1."""
    x = laid(torch.zeros(1, 2, 5, 5), torch.bfloat16)
    x[:, :, 2, 2] = 1
    window = window_of((3, 3), (2, 2))
    _, indices = max_pool(x, window, numba=True, nonnegative=True)
    assert indices.dtype == torch.uint8
    grad = torch.tensor([[1, 2**-8], [2**-8, 0]]).expand(1, 2, 2, 2)
    found = max_pool_backward(laid(grad, torch.bfloat16), x.shape, indices, window)
    assert found[0, :, 2, 2].tolist() == [1] * 2
    grad = torch.tensor([[2**-8, 2**-8], [1, 0]]).expand(1, 2, 2, 2)
    found = max_pool_backward(laid(grad, torch.bfloat16), x.shape, indices, window)
    assert found[0, :, 2, 2].tolist() == [1 + 2**-7] * 2
    grad = torch.tensor([[1 + 2**-7, 2**-8], [0, 0]]).expand(1, 2, 2, 2)
    found = max_pool_backward(laid(grad, torch.bfloat16), x.shape, indices, window)
    assert found[0, :, 2, 2].tolist() == [1 + 2**-6] * 2
    assert float(found.abs().sum()) == 2 * (1 + 2**-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "size", [(1, 6, 4, 5), (2, 6, 4, 5), (1, 6, 1, 5), (1, 6, 4, 1), (2, 6, 1, 1)]
)
def test_a_slope_that_is_a_part_of_the_channels(dtype: torch.dtype, size: Any) -> None:
    """As a concatenation gives it, without a copy."""
    window = window_of((3, 3), (1, 1), (1, 1))
    x = laid(torch.rand(size), dtype)
    _, indices = max_pool(x, window, numba=True, nonnegative=True)
    assert indices.dtype == torch.uint8
    n, c, h, w = size
    whole = laid(torch.randn(n, 3 * c, h, w), dtype)
    part = whole[:, c : 2 * c]
    expected = max_pool_backward(laid(part, dtype).clone(), x.shape, indices, window)
    assert torch.equal(max_pool_backward(part, x.shape, indices, window), expected)
    plain = part.contiguous(memory_format=torch.contiguous_format)
    assert torch.equal(max_pool_backward(plain, x.shape, indices, window), expected)
    row = laid(torch.randn(1, c, h, w), dtype).expand(n, c, h, w)
    same = max_pool_backward(row.contiguous(memory_format=LAST), x.shape, indices, window)
    assert torch.equal(max_pool_backward(row, x.shape, indices, window), same)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_any_number_of_cores_gives_the_same(threads: int) -> None:
    window = window_of((3, 3), (2, 2), (1, 1))
    x = laid(torch.randn(2, 8, 11, 13), torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            found, indices = max_pool(x, window, numba=True)
            grad = laid(torch.ones_like(found), torch.float32)
            results.append((found, indices, max_pool_backward(grad, x.shape, indices, window)))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(1, 3, 8, 8, dtype=torch.float64).contiguous(memory_format=LAST),
        torch.randn(1, 3, 8, 8).half().contiguous(memory_format=LAST),
        torch.randn(1, 3, 8, 8),
        torch.randn(3, 8, 8),
    ],
    ids=["float64", "float16", "channels first", "without a batch"],
)
def test_what_numba_does_not_take_pytorch_does(x: Tensor) -> None:
    window = window_of((3, 3), (2, 2))
    found, indices = max_pool(x, window, numba=True)
    assert indices.dtype == torch.int64
    assert torch.equal(found, F.max_pool2d(x, *window))
    dilated = ([3, 3], [1, 1], [0, 0], [2, 2], False)
    _, indices = max_pool(laid(torch.randn(1, 3, 8, 8), torch.float32), dilated, numba=True)
    assert indices.dtype == torch.int64


def test_only_large_pictures_wait_for_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    net = load_network("dreamnet").prepared("cpu", "fp32")
    image = torch.rand(2, 3, 32, 48)
    net.activations(image, ["mixed4c"])
    wanted: list[bool] = []

    def noted(x: Tensor, window: Any, *, numba: bool, **_: Any) -> Any:
        wanted.append(numba)
        return torch.ops.aten.max_pool2d_with_indices(x, *window)

    monkeypatch.setattr(operations, "max_pool", noted)
    monkeypatch.setattr(pooling, "numba_takes", lambda *_, **__: False)
    for enough in (image[:, 0].numel(), image[:, 0].numel() + 1):
        monkeypatch.setattr(pooling, "NUMBA_PIXELS", enough)
        net.activations(image.requires_grad_(), ["mixed4c"])
    half = len(wanted) // 2
    assert half >= 3
    assert wanted == [True] * half + [False] * half


def test_without_numba_it_is_said_once_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "phosphene.runtime.kernels", None)
    pooling.kernels.cache_clear()
    caplog.set_level("INFO", "phosphene")
    try:
        for compact, kind in ((False, torch.int64), (True, torch.int16)):
            x = laid(torch.randn(1, 3, 8, 8), torch.float32)
            assert (
                max_pool(x, window_of((3, 3), (2, 2)), numba=True, compact=compact)[1].dtype == kind
            )
    finally:
        pooling.kernels.cache_clear()
    (line,) = caplog.messages
    assert 'pip install "phosphene[fast]"' in line


@pytest.mark.slow
def test_a_numba_that_fails_is_no_reason_to_fail(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    code = (
        "import logging, sys, torch\n"
        "logging.basicConfig(level='INFO')\n"
        "import numba\n"
        "def njit(**_): raise RuntimeError('cannot cache: no place for it')\n"
        "numba.njit = njit\n"
        "from phosphene.runtime import pooling\n"
        "x = torch.randn(1, 8, 256, 256).contiguous(memory_format=torch.channels_last)\n"
        "print(pooling.max_pool(x, ([2, 2], [2, 2], [0, 0], [1, 1], False), numba=True)[1].dtype)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "torch.int64\n"), done
    assert "cannot cache: no place for it" in done.stderr


# Some rows at a time


@given(
    size=st.tuples(st.integers(3, 17), st.integers(3, 9)),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    some=st.integers(1, 6),
    dtype=st.sampled_from(DTYPES),
    onto=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_rows_are_those_of_the_whole(
    size: tuple[int, int], kernel: int, stride: int, some: int, dtype: torch.dtype, onto: bool
) -> None:
    least = min(stride, kernel)
    window = window_of((kernel, kernel), (least, least), (kernel // 2, kernel // 2))
    generator = torch.Generator().manual_seed(size[0])
    x = laid(torch.rand(1, 5, *size, generator=generator), dtype)
    whole, marks = max_pool(x, window, numba=True, nonnegative=True)
    indices = pooling.empty_indices(x, window)
    bands = [(k, min(k + some, whole.shape[2])) for k in range(0, whole.shape[2], some)]
    parts = [pooling.max_pool_rows(x, indices, window, rows) for rows in bands]
    assert torch.equal(torch.cat(parts, 2), whole)
    assert torch.equal(indices, marks)

    grad = laid(torch.randn(whole.shape, generator=generator), dtype)
    before = laid(torch.randn(x.shape, generator=generator), dtype)
    gradient = before.clone(memory_format=LAST)
    for first in range(0, size[0], some):
        rows = first, min(first + some, size[0])
        begin, end = pooling.windows_reaching(rows, whole.shape[2], window)
        part = grad[:, :, begin:end]
        pooling.max_pool_backward_rows(part, indices, gradient, window, rows, onto=onto)
    found = max_pool_backward(grad, x.shape, marks, window)
    assert torch.equal(gradient, before + found if onto else found)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_pooling_that_only_a_convolution_sees_goes_by_rows(
    count: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load_network("dreamnet").prepared("cpu", precision)
    image = torch.rand(count, 3, 67, 59, generator=torch.Generator().manual_seed(0))
    grads, rows = [], []
    real = pooling.max_pool_backward_rows
    monkeypatch.setattr(
        pooling, "max_pool_backward_rows", lambda *a, **k: rows.append(a[4]) or real(*a, **k)
    )
    for most in (2**30, 2000):
        monkeypatch.setattr(operations, "ROWWISE_BYTES", most)
        leaf = image.clone().requires_grad_()
        rows.clear()
        answer = network.activations(leaf, ["mixed4a"])["mixed4a"].float()
        grads.append(torch.autograd.grad(answer.square().sum(), leaf)[0])
    assert len(set(rows)) > 8  # of 17 rows and of 9
    close = 1e-5 if precision == "fp32" else 0.02
    assert (grads[1] - grads[0]).norm() < close * grads[0].norm()


def test_a_gradient_that_comes_from_elsewhere_is_not_written_over() -> None:
    """Of a layer that is asked for and also seen by a pooling before a 1×1 convolution."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, 1, 1), nn.Conv2d(4, 5, 1)).eval()
    program = lower(graph.trace(module.requires_grad_(False)).cut(["0", "2"]))
    assert isinstance(program.instructions[-1].operation, PooledConvolution)
    x = laid(torch.randn(1, 3, 12, 10), torch.float32).requires_grad_()
    answers = program(x, options=Options(numba_pooling=True))
    grads = [laid(torch.randn(answer.shape), torch.float32) for answer in answers.values()]
    before = [grad.clone() for grad in grads]
    (found,) = torch.autograd.grad([*answers.values()], x, grads)
    assert all(torch.equal(a, b) for a, b in zip(grads, before, strict=True))
    first = module[0](x)
    (expected,) = torch.autograd.grad([first, module[1:](first)], x, before)
    torch.testing.assert_close(found, expected)


# In programs


def pools(network: Network, layer: str) -> list[MaxPool]:
    traced = graph.trace(network.module)
    assert traced is not None
    found = [one.operation for one in lower(traced.cut([layer])).instructions]
    found = [o.pool if isinstance(o, PooledConvolution) else o for o in found]
    return [operation for operation in found if isinstance(operation, MaxPool)]


def test_a_program_knows_what_is_nowhere_below_zero() -> None:
    found = pools(load_network("dreamnet").prepared("cpu", "fp32"), "mixed5b")
    assert len(found) >= 4
    assert all(pool.nonnegative for pool in found)

    class Raw(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3)
            self.second = nn.Conv2d(4, 4, 1)
            self.end = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.max_pool2d(x, 3, 1, 1)
            x = F.max_pool2d(self.first(x), 2)
            x = F.max_pool2d(torch.cat([x, x.relu()], 1)[:, :4] + 0, 2)
            return self.end(F.max_pool2d(self.second(x).relu(), 2))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(Raw(), input_size=32, name="raw", copy=False).prepared("cpu", "fp32")
    assert [pool.nonnegative for pool in pools(network, "end")] == [False, False, False, True]


def once_loaded(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    """Numba has been loaded beside the job, or not yet."""
    monkeypatch.setattr(pooling.loading, "is_ready", lambda work: there)


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kernel", "stride", "padding", "up"), SHAPES)
def test_numba_and_pytorch_agree_to_the_bit(
    dtype: torch.dtype,
    kernel: Any,
    stride: Any,
    padding: Any,
    up: bool,
    compact: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So a job may begin with one and go on with the other."""
    window = window_of(kernel, stride, padding, up=up)
    generator = torch.Generator().manual_seed(0)
    x = laid(torch.randn(2, 40, 13, 14, generator=generator).relu(), dtype)
    both = []
    for there in (True, False):
        once_loaded(monkeypatch, there)
        both.append(max_pool(x, window, compact=compact, nonnegative=True))
    ours, theirs = both
    # Compact ones are added up in another order, so PyTorch has them all.
    kinds = (torch.int16, torch.int16) if compact else (torch.uint8, torch.int64)
    assert (ours[1].dtype, theirs[1].dtype) == kinds
    assert torch.equal(ours[0], theirs[0])
    grad = laid(torch.randn(ours[0].shape, generator=generator), dtype)
    one, other = (max_pool_backward(grad, x.shape, found[1], window) for found in (ours, theirs))
    assert one.dtype == other.dtype
    assert torch.equal(one, other)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("most", [2**30, 2000])
def test_a_dream_comes_out_as_without_numba(
    precision: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "ROWWISE_BYTES", most)
    net = load_network("dreamnet").prepared("cpu", precision)
    photo = torch.rand(1, 3, 96, 120, generator=torch.Generator().manual_seed(0))

    def grad() -> Tensor:
        image = photo.clone().requires_grad_()
        score = net.activations(image, ["mixed5b"])["mixed5b"].float().square().mean()
        return torch.autograd.grad(score, image)[0]

    grad()  # weights are laid out once a size comes again
    ours = grad()
    monkeypatch.setattr(pooling, "kernels", lambda: None)
    assert torch.equal(ours, grad())


@pytest.mark.parametrize("memory_efficient", [False, True])
def test_a_gradient_does_not_depend_on_when_numba_was_there(
    memory_efficient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooling, "NUMBA_PIXELS", 10**6)
    module = nn.Sequential(nn.Conv2d(3, 64, 1), nn.MaxPool2d(3, 1, 1), nn.Conv2d(64, 5, 1)).eval()
    program = lower(graph.trace(module.requires_grad_(False)).cut(["2"]))
    assert isinstance(program.instructions[-1].operation, PooledConvolution)
    options = Options(memory_efficient=memory_efficient)
    generator = torch.Generator().manual_seed(0)
    x = laid(torch.randn(1, 3, 64, 96, generator=generator), torch.float32).requires_grad_()
    weight = torch.randn(1, 5, 64, 96, generator=generator)
    grads = []
    for there in (False, True):
        once_loaded(monkeypatch, there)
        (answer,) = program(x, options=options).values()
        grads.append(torch.autograd.grad((answer * weight).sum(), x)[0])
    assert torch.equal(*grads)


@pytest.mark.parametrize("memory_efficient", [False, True])
def test_bytes_that_are_measured_do_not_depend_on_when_numba_was_there(
    memory_efficient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooling, "NUMBA_PIXELS", 10**6)
    module = nn.Sequential(nn.Conv2d(3, 8, 1), nn.MaxPool2d(3, 1, 1), nn.Conv2d(8, 5, 1)).eval()
    goal, measured = obj.layer("2"), []
    for there in (False, True):
        once_loaded(monkeypatch, there)
        network = Network(module, input_size=32, name="pools").prepared("cpu", "fp32")
        options = Options(memory_efficient=memory_efficient)
        measured.append(bytes_per_pixel(network, goal.bound(network), options=options))
    assert measured[0] == measured[1]


def test_what_takes_long_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pooling, "SLOW_SECONDS", -1.0)
    monkeypatch.setattr(pooling, "_STARTED", set())
    monkeypatch.setattr(pooling.kernels(), "was_compiled", lambda name: name == "pool")
    x = laid(torch.randn(1, 3, 8, 8), torch.float32)
    for _ in range(2):
        max_pool(x, window_of((3, 3), (2, 2)), numba=True)
    (record,) = caplog.records
    assert record.name == "phosphene.pooling"
    assert "compiled, once on a machine" in record.message


FORKS = """
import os, torch
from phosphene.runtime import pooling
x = torch.randn(1, 64, 64, 64).contiguous(memory_format=torch.channels_last)
def run():
    y, indices = pooling.max_pool(x, ([2, 2], [2, 2], [0, 0], [1, 1], False), numba=True)
    assert indices.dtype == torch.uint8
    return y
torch.set_num_threads(2)
before = run()
child = os.fork()
if not child:
    torch.set_num_threads(1)
    os._exit(0 if torch.equal(run(), before) else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks there")
def test_a_forked_process_goes_on_by_itself() -> None:
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "0\n"), done


def test_several_python_threads_at_once() -> None:
    x = laid(torch.randn(1, 16, 40, 40), torch.float32)
    window = window_of((3, 3), (1, 1), (1, 1))
    expected = F.max_pool2d(x, 3, 1, 1)
    with ThreadPoolExecutor(4) as threads:
        jobs = [threads.submit(max_pool, x, window, numba=True) for _ in range(64)]
        assert all(torch.equal(job.result()[0], expected) for job in jobs)
