"""Programs and Triton's kernels on a CUDA card; elsewhere all of it is skipped.

`pytest tests/test_cuda_fused.py` on a machine that has one.
"""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from phosphene import Network, gradients
from phosphene.evaluation.whole import whole
from phosphene.network.extract import ProgramExtractor
from phosphene.network.preprocessing import Preprocessing
from phosphene.objectives.build import parse
from phosphene.runtime import fused
from phosphene.runtime.convolutions import CuDNN, Geometry
from phosphene.runtime.device import exact
from phosphene.runtime.options import MEMORY_EFFICIENT, PLAIN_MODULES
from phosphene.zoo import load_network

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA card"),
    pytest.mark.slow,
]

CUDA = torch.device("cuda")
LAST = torch.channels_last


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).to(CUDA)


# --- programs --------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_program_is_what_runs(precision: str, caplog: pytest.LogCaptureFixture) -> None:
    """And cuDNN refuses nothing of the bundled network."""
    network = load_network().prepared("cuda", precision)
    network._extractors.clear()
    with caplog.at_level(logging.DEBUG, "phosphene"):
        network.activations(noise(1, 3, 160, 200), ["mixed4c"])
    assert {type(found) for found in network._extractors.values()} == {ProgramExtractor}
    assert [r.message for r in caplog.records if "apart from its ReLU" in r.message] == []


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.999999), ("bf16", 0.99)])
@pytest.mark.parametrize("options", [None, MEMORY_EFFICIENT])
def test_its_gradient_is_that_of_the_graph(precision: str, least: float, options: Any) -> None:
    network = load_network().prepared("cuda", precision)
    goal = parse("mixed4c").bound(network)
    image = noise(2, 3, 160, 200)
    given = {} if options is None else {"options": options}
    _, ours = whole(network, goal, **given)(image)
    _, theirs = whole(network, goal, options=PLAIN_MODULES)(image)
    cosine = torch.cosine_similarity(ours.flatten(1), theirs.flatten(1))
    assert float(cosine.min()) > least


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("channels", "kernel", "geometry"),
    [
        ((3, 32), 7, Geometry((2, 2), (3, 3))),
        ((32, 48), 1, Geometry()),
        ((32, 40), 3, Geometry(padding=(1, 1))),
        ((24, 17), 5, Geometry((2, 1), (0, 2), (1, 2))),
    ],
)
def test_convolution_bias_and_relu_in_one_call(
    channels: tuple[int, int], kernel: int, geometry: Geometry, dtype: torch.dtype
) -> None:
    """Close to float64, the same again, and whatever lies where the answer goes: its summand of
    weight 0 is the answer itself, before it is there."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(*channels[::-1], kernel, kernel, generator=generator)
    weight /= weight[0].numel() ** 0.5
    bias = torch.randn(channels[1], generator=generator)
    x = torch.randn(2, channels[0], 61, 67, generator=generator)
    there = [value.to(CUDA, dtype) for value in (x, weight, bias)]
    for value in there[:2]:
        value.data = value.contiguous(memory_format=LAST)
    exacter = [value.double() for value in there]
    expected = torch.conv2d(exacter[0], exacter[1], exacter[2], *geometry).relu()
    convolver = CuDNN().convolver(there[1], there[2], geometry, relu=True)
    found = []
    with exact(CUDA):
        for _ in range(3):
            spoilt = [torch.full_like(expected, torch.nan, dtype=dtype) for _ in range(8)]
            del spoilt  # freed, and next to be handed out
            found.append(convolver.forward(there[0]))
    away = float((found[0].double() - expected).norm() / expected.norm())
    assert away < (1e-2 if dtype == torch.bfloat16 else 2e-6)  # of TF32 it would be 2e-4
    assert all(torch.equal(again, found[0]) for again in found)
    assert convolver.convolution_relu is not None  # pyright: ignore[reportAttributeAccessIssue]


def test_a_gradient_comes_out_again_to_the_byte() -> None:
    network = load_network().prepared("cuda", "fp32")
    evaluate = whole(network, parse("mixed4c").bound(network))
    image = noise(1, 3, 300, 260)
    score, gradient = evaluate(image)
    for _ in range(5):
        again = evaluate(image)
        assert torch.equal(again[0], score)
        assert torch.equal(again[1], gradient)


# --- Triton ----------------------------------------------------------------------------------


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="PyTorch for CUDA without Triton")
    monkeypatch.setattr(fused, "_FAILED", set())


@pytest.mark.usefixtures("triton")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 3, 7, 5), (2, 3, 333, 411), (2, 1, 64, 64)])
def test_preprocessing_is_pytorchs_to_the_bit(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    mean, std = (0.485, 0.456, 0.406)[: shape[1]], (0.229, 0.224, 0.225)[: shape[1]]
    image, other = noise(*shape).requires_grad_(), noise(*shape).requires_grad_()
    found = Preprocessing.of(mean, std, (0, 1))(image, dtype)
    shift, scale = (image.new_tensor(values).view(-1, 1, 1) for values in (mean, std))
    expected = ((other - shift) / scale).to(dtype).contiguous(memory_format=LAST)
    assert torch.equal(found, expected)
    grad = (noise(*shape, seed=3) - 0.5).to(dtype).contiguous(memory_format=LAST)
    (ours,) = torch.autograd.grad(found, image, grad)
    (theirs,) = torch.autograd.grad(expected, other, grad)
    assert torch.equal(ours, theirs)
    assert not fused._FAILED


@pytest.mark.usefixtures("triton")
@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5, 11.0])
@pytest.mark.parametrize("shape", [(1, 3, 23, 31), (2, 3, 640, 427), (1, 1, 5, 2000)])
def test_a_blur_is_that_of_float64_on_the_processor(shape: tuple[int, ...], sigma: float) -> None:
    image = noise(*shape)
    expected = gradients.blur(image.cpu().double(), sigma)
    for laid in (image, image.contiguous(memory_format=LAST)):
        found = gradients.blur(laid, sigma).cpu().double()
        torch.testing.assert_close(found, expected, rtol=2e-6, atol=2e-6)
    assert not fused._FAILED


@pytest.mark.usefixtures("triton")
def test_another_size_compiles_nothing() -> None:
    kernel = fused.kernels()._blur_along
    gradients.blur(noise(1, 3, 64, 64), 1.0)
    before = [len(cache[0]) for cache in kernel.device_caches.values()]
    for height, width in ((65, 31), (1, 16), (128, 48), (427, 640)):
        gradients.blur(noise(1, 3, height, width), 1.0 + height)
    assert [len(cache[0]) for cache in kernel.device_caches.values()] == before


@pytest.mark.usefixtures("triton")
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one card")
def test_kernels_run_where_the_picture_is() -> None:
    image = noise(1, 3, 40, 50).to("cuda:1")
    expected = gradients.blur(image.cpu().double(), 1.0)
    found = gradients.blur(image, 1.0)
    assert found.device == image.device
    torch.testing.assert_close(found.cpu().double(), expected, rtol=2e-6, atol=2e-6)


def test_networks_that_cudnn_cannot_do_run_all_the_same() -> None:
    """Depthwise, dilated and without a bias."""
    torch.manual_seed(0)
    module = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, groups=8), nn.ReLU()),
        *(nn.Conv2d(8, 12, 3, dilation=2, groups=2), nn.ReLU()),
    )
    network = Network(module, input_size=48).prepared("cuda", "fp32")
    exacter = Network(module, input_size=48).prepared("cpu", "fp64")
    image = noise(2, 3, 48, 52)
    _, found = whole(network, parse("5").bound(network))(image)
    _, expected = whole(exacter, parse("5").bound(exacter))(image.cpu().double())
    away = (found.cpu().double() - expected).norm() / expected.norm()
    assert float(away) < 1e-5
