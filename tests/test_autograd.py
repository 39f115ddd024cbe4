from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene import objectives as obj
from phosphene.evaluation.cost import bytes_per_pixel, peak_bytes
from phosphene.evaluation.whole import whole
from phosphene.network import Network
from phosphene.runtime import pooling
from phosphene.runtime.autograd import MemoryEfficientAutograd
from phosphene.runtime.options import MEMORY_EFFICIENT, Options
from phosphene.zoo.dreamnet import DreamNet


def seeded(module: nn.Module) -> Network:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) / parameter[0].numel() ** 0.5)
    return Network(module, input_size=32, copy=False)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp64"])
def test_of_a_small_picture_score_and_gradient_are_the_same_bit_for_bit(precision):
    network = seeded(DreamNet()).prepared("cpu", precision)
    goal = obj.layer("mixed4a").bound(network)
    dtype = torch.float64 if precision == "fp64" else torch.float32
    image = torch.rand(2, 3, 45, 62, generator=torch.Generator().manual_seed(0), dtype=dtype)
    expected = whole(network, goal)(image)
    got = whole(network, goal, options=MEMORY_EFFICIENT)(image)
    assert float(expected[1].abs().max()) > 0
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "options",
    [
        ((2, 2), (2, 2), (0, 0), (1, 1), False),
        ((3, 3), (2, 2), (1, 1), (1, 1), False),
        ((3, 3), (2, 2), (1, 1), (1, 1), True),
        ((3, 2), (1, 1), (1, 1), (1, 1), False),
        ((3, 3), (1, 2), (1, 0), (2, 3), True),
        ((2, 3), (3, 5), (1, 1), (1, 1), True),
    ],
)
@pytest.mark.parametrize("size", [(9, 8), (31, 7), (7, 23)])
def test_pooling_some_rows_at_a_time_is_pooling(monkeypatch, layout, options, size):
    x = torch.randn(2, 5, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x.contiguous(memory_format=layout).requires_grad_()
    plain: Any = F.max_pool2d
    result = plain(x, *options)
    gradient = torch.randn(result.shape, dtype=x.dtype).contiguous(memory_format=layout)
    (expected,) = torch.autograd.grad(result, x, gradient)
    count = x[:, :, :1].numel()
    for rows in (1, 2, 5, 100):
        monkeypatch.setattr(pooling, "INDICES_AT_A_TIME", rows * count)
        maxima, indices = pooling.max_pool_int16(x.detach(), *options)
        assert torch.equal(maxima, result)
        assert indices.dtype == torch.int16
        found = pooling.max_pool_backward(gradient, x.shape, indices, options)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        for map_ in (maxima, indices, found):
            assert map_.is_contiguous(memory_format=layout)


def test_places_too_far_apart_for_two_bytes_take_four():
    x = torch.rand(1, 1, 4, 20_000).requires_grad_()
    options = ((3, 3), (1, 1), (1, 1), (1, 1), False)
    maxima, indices = pooling.max_pool_int16(x.detach(), *options)
    assert indices.dtype == torch.int32
    (expected,) = torch.autograd.grad(F.max_pool2d(x, 3, 1, 1).sum(), x)
    found = pooling.max_pool_backward(torch.ones_like(maxima), x.shape, indices, options)
    assert torch.equal(found, expected)


def functions(x: Tensor, weight: Tensor) -> list[Tensor]:
    """Every way to call them: by keyword, of one side, without a batch, in place."""
    return [
        F.conv2d(x, weight, stride=2, padding=(1, 0)),
        F.conv2d(x, weight, None, 1, "same", 2),
        F.conv2d(input=x, weight=weight[:, :1], groups=2),
        torch.conv2d(x, weight, torch.ones(4, dtype=x.dtype), [1, 2]),
        F.conv2d(x[0], weight),
        F.relu(x),
        F.relu(x * 2, inplace=True),
        torch.relu(x),
        (x * 3).relu_(),
        torch.relu_(x - 0.1),
        F.max_pool2d(x, 2),
        F.max_pool2d(x, [3, 2], 2, padding=1, ceil_mode=True),
        F.max_pool2d(x, 3, stride=1, padding=1, dilation=1),
        F.max_pool2d(x, 2, return_indices=True)[0],
        F.max_pool2d(x[0], 2),
        torch.max_pool2d(x, (2, 2)),
        nn.MaxPool2d(3, 2, 1)(x),
    ]


def test_every_way_to_call_an_operation_gives_its_own_answer_and_gradient():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 2, 9, 8, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.randn(4, 2, 3, 3, generator=generator, dtype=torch.float64)
    plain = functions_of(x, weight)
    with MemoryEfficientAutograd():
        ours = functions_of(x, weight)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def functions_of(x: Tensor, weight: Tensor) -> list[Tensor]:
    found = []
    for result in functions(x, weight):
        steps = torch.arange(result.numel(), dtype=x.dtype).view(result.shape)
        (gradient,) = torch.autograd.grad((result * steps).sum(), x)
        found += [result.detach(), gradient]
    return found


def test_weights_that_learn_still_get_their_gradient():
    x = torch.randn(1, 3, 8, 8, requires_grad=True)
    conv = nn.Conv2d(3, 4, 3)
    with MemoryEfficientAutograd():
        conv(x).square().sum().backward()
    assert conv.weight.grad is not None
    assert conv.bias is not None
    assert float(conv.weight.grad.abs().sum()) > 0
    assert float(conv.bias.grad.abs().sum()) > 0  # pyright: ignore


def test_it_keeps_less_and_no_more_than_is_counted_by_hand():
    x = torch.rand(1, 4, 16, 16, requires_grad=True)
    layers = nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU(), nn.MaxPool2d(2)).requires_grad_(False)
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    def run() -> int:
        saved.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            layers(x)
        return sum(saved.values())

    weights = 8 * 4 * 4
    # Its input, the ReLU's output, which is the pool's input, and 8 bytes for each place.
    assert run() == x.numel() * 4 + weights + 8 * 256 * 4 + 8 * 64 * 8
    with MemoryEfficientAutograd():
        assert run() == weights + 8 * 256 + 8 * 64 * 2


def test_the_peak_counts_what_lives_at_the_same_time():
    x = torch.zeros(1000)

    def run() -> Tensor:
        a = x + 1  # 4000 bytes
        b = a * 2  # 8000
        del a
        c = b.view(10, 100) + 1  # 8000: a view holds nothing of its own
        del b
        c.add_(1)
        return c.double()  # 12000

    assert peak_bytes(run) == 12000
    assert peak_bytes(lambda: x.view(-1)[:5]) == 0


def test_measuring_leaves_the_compiler_alone():
    # torch._dynamo takes seconds to import, and 150 MiB.
    code = """
import sys, torch
from phosphene.evaluation.cost import peak_bytes
assert peak_bytes(lambda: torch.ones(10) + 1) == 80
assert "torch._dynamo" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_bytes_per_pixel_by_hand_and_of_the_whole_batch():
    # One convolution 1×1, its ReLU in place, the mean of squares.
    module = nn.Sequential()
    module.add_module("conv", nn.Conv2d(3, 8, 1))
    module.add_module("relu", nn.ReLU(inplace=True))
    network = seeded(module)
    found = bytes_per_pixel(network, obj.layer("relu").bound(network))
    # At least the map in float32 and its signs, and its gradient.
    assert 8 * 4 + 8 + 8 * 4 <= found <= 4 * 8 * 4 + 8 + 4 * 12
    double = network.prepared("cpu", "fp64")
    assert bytes_per_pixel(double, obj.layer("relu").bound(double)) > 1.7 * found


def test_a_program_keeps_no_more_than_the_operations_one_by_one():
    network = seeded(DreamNet()).prepared("cpu", "fp32")
    goal = obj.layer("mixed4c").bound(network)
    image = torch.rand(1, 3, 256, 256).requires_grad_()

    def held(plain: bool) -> int:
        options = Options(memory_efficient=True, plain_modules=plain)

        def run() -> None:
            score = goal.score(network.activations(image, goal.layers, options=options))
            torch.autograd.grad(score.sum(), image)

        run()  # what is built once
        return peak_bytes(run)

    program, plain = held(False), held(True)
    assert program <= 1.25 * plain
    assert program < 340 * 256**2


def test_each_operation_is_a_chance_to_give_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """For networks that no program can be made of."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)).requires_grad_(False)
    chances: list[int] = []
    monkeypatch.setattr("phosphene.runtime.autograd.trim_to_limit", lambda: chances.append(1))
    image = torch.rand(1, 3, 16, 16).requires_grad_()
    with MemoryEfficientAutograd():
        answer = module(image).sum()
        before = len(chances)
        answer.backward()
    assert before >= 3
    assert len(chances) >= before + 2
