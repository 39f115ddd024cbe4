"""Triton's kernels, run by its interpreter on the processor, against PyTorch's own operations."""

from __future__ import annotations

import importlib
import logging
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene import gradients
from phosphene.network.preprocessing import Preprocessing
from phosphene.runtime import fused
from phosphene.runtime.capture import _Watch
from tests.launches import Launches

NAME = "phosphene.runtime.triton_kernels"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Counted:
    """The kernels, which note what was run."""

    def __init__(self, kernels: Any) -> None:
        self.kernels, self.ran = kernels, []

    def __getattr__(self, name: str) -> Any:
        self.ran.append(name)
        return getattr(self.kernels, name)


@pytest.fixture(scope="module")
def interpreted() -> Iterator[Any]:
    pytest.importorskip("triton", reason="Triton comes with PyTorch for CUDA alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")  # read as kernels are made
        patch.delitem(sys.modules, NAME, raising=False)
        found = importlib.import_module(NAME)
    yield found
    sys.modules.pop(NAME, None)


@pytest.fixture
def counted(interpreted: Any, monkeypatch: pytest.MonkeyPatch) -> Counted:
    """The processor as a device that has them."""
    found = Counted(interpreted)
    monkeypatch.setattr(fused, "kernels", lambda: found)
    monkeypatch.setattr(fused, "_runs_on", lambda device: True)
    monkeypatch.setattr(fused, "_FAILED", set())
    return found


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# --- preprocessing ---------------------------------------------------------------------------

SHAPES = [(1, 3, 7, 5), (2, 3, 33, 41), (3, 1, 9, 16), (1, 3, 1, 1), (2, 4, 32, 32)]


def as_interpreted(values: Tensor, dtype: torch.dtype) -> Tensor:
    """float32 in another type. To bfloat16 the interpreter cuts bits off, where a card rounds."""
    if dtype != torch.bfloat16:
        return values.to(dtype)
    return (values.view(torch.int32) & -(2**16)).view(torch.float32).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_preprocessing_is_pytorchs_to_the_bit(
    shape: tuple[int, ...], dtype: torch.dtype, counted: Counted
) -> None:
    channels = shape[1]
    shift, scale = noise(channels, seed=1), noise(channels, seed=2) + 0.1
    image = noise(*shape).requires_grad_()
    other = image.detach().clone().requires_grad_()
    found = fused.preprocessed(image, shift, scale, dtype)
    by = shift.view(-1, 1, 1), scale.view(-1, 1, 1)
    exact = (other - by[0]) / by[1]
    expected = exact.to(dtype).contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, as_interpreted(exact.detach(), dtype))
    assert found.is_contiguous(memory_format=torch.channels_last)
    grad = (noise(*shape, seed=3) - 0.5).to(dtype)
    for laid in (grad, grad.contiguous(memory_format=torch.channels_last)):
        ours = torch.autograd.grad(found, image, laid, retain_graph=True)[0]
        (theirs,) = torch.autograd.grad(expected, other, laid, retain_graph=True)
        assert torch.equal(ours, theirs)
        assert ours.dtype == torch.float32
        assert ours.is_contiguous()
    assert counted.ran == ["preprocess", *2 * ["preprocess_backward"]]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_networks_preprocessing_takes_it(channels: int, counted: Counted) -> None:
    """A network of one channel sees luma."""
    preprocessing = Preprocessing.of(MEAN[:channels], STD[:channels], (0, 1))
    image = noise(2, 3, 12, 10)
    found = preprocessing(image, torch.bfloat16)
    assert counted.ran == ["preprocess"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "_runs_on", lambda device: False)
        expected = preprocessing(image, torch.bfloat16)
    assert counted.ran == ["preprocess"]
    exact = expected.float()
    assert float((found.float() - exact).abs().max() / exact.abs().max()) < 2**-7
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("image", "ran"),
    [
        (noise(1, 3, 8, 8).double(), []),
        (noise(0, 3, 8, 8), []),
        (noise(2, 3, 8, 8).contiguous(memory_format=torch.channels_last), ["preprocess"]),
        (noise(1, 3, 8, 8).expand(2, -1, -1, -1), ["preprocess"]),
        (noise(1, 3, 8, 9)[..., 1:], ["preprocess"]),
    ],
)
def test_other_types_are_pytorchs_and_other_layouts_are_not(
    image: Tensor, ran: list[str], counted: Counted
) -> None:
    found = Preprocessing.of(MEAN, STD, (0, 1))(image, torch.float32)
    mean, std = (image.new_tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    assert torch.equal(found, ((image - mean) / std).float())
    assert counted.ran == ran


# --- blurs -----------------------------------------------------------------------------------


def blurred_in_float64(image: Tensor, sigma: float) -> Tensor:
    """A convolution with the outer product of both axes' weights, of an image padded first."""
    radius = -int(-3 * sigma // 1)
    taps = torch.exp(-(torch.arange(-radius, radius + 1).double() ** 2) / (2 * sigma**2))
    weights = torch.outer(taps, taps) / taps.sum() ** 2
    padded = F.pad(image.double(), 4 * [radius], mode="replicate")
    return F.conv2d(padded.flatten(0, 1)[:, None], weights[None, None]).view(image.shape)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5, 11.0])
@pytest.mark.parametrize("shape", [(1, 3, 23, 31), (2, 3, 5, 64), (3, 1, 1, 9), (1, 1, 40, 40)])
def test_a_blur_is_a_convolution(
    shape: tuple[int, ...], sigma: float, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wider than the picture, too, and of one channel at a time."""
    image = noise(*shape)
    expected = blurred_in_float64(image, sigma)
    for some in (gradients.AT_A_TIME, 1):
        monkeypatch.setattr(gradients, "AT_A_TIME", some)
        counted.ran = []
        found = gradients.blur(image, sigma)
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
        assert set(counted.ran) == {"blur_along"}
        assert len(counted.ran) == (2 if some > 1 else 2 * shape[0] * shape[1])


def test_a_blur_of_what_lies_otherwise(counted: Counted) -> None:
    image = noise(2, 3, 17, 12)
    for laid in (
        image.contiguous(memory_format=torch.channels_last),
        image[:1].contiguous(memory_format=torch.channels_last).expand(2, -1, -1, -1),
        image.mT.contiguous().mT,
        image.double(),
    ):
        expected = blurred_in_float64(laid, 1.5)
        found = gradients.blur(laid, 1.5)
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
    assert counted.ran == 6 * ["blur_along"]  # float64 is PyTorch's


def test_a_constant_stays_one(counted: Counted) -> None:
    found = gradients.blur(torch.full((1, 3, 9, 9), 0.7), 2.0)
    torch.testing.assert_close(found, torch.full((1, 3, 9, 9), 0.7), rtol=1e-6, atol=0)


class Starting:
    """Kernels that only count: a call is one."""

    def __init__(self) -> None:
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        def starts(*given: Any) -> None:
            self.calls += 1

        return starts


@pytest.mark.parametrize(
    ("chain", "blurs"),
    [
        (lambda: gradients.smooth(1.0), 1),
        (
            lambda: gradients.compose(
                gradients.natural(0.5),
                gradients.laplacian(4),
                gradients.smooth(1.0),
                gradients.normalise("mean"),
            ),
            5,
        ),
    ],
)
def test_a_blur_is_two_kernels(chain: Any, blurs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted where nothing is computed, so that no choice hangs on numbers."""
    g = torch.empty(1, 3, 64, 80, device="meta")
    with Launches("meta") as plain:
        chain()(g)
    kernels = Starting()
    monkeypatch.setattr(fused, "kernels", lambda: kernels)
    monkeypatch.setattr(fused, "_runs_on", lambda device: True)
    with Launches("meta") as ours:
        chain()(g)
    assert kernels.calls == 2 * blurs
    assert plain.found.total() - ours.found.total() == 16 * blurs


# --- for cards -------------------------------------------------------------------------------

# The types of what each is given, in order, and its constants.
SOURCES: list[tuple[str, tuple[str, ...], dict[str, int]]] = [
    ("_preprocess", ("*fp32", "*fp32", "*fp32", "*bf16", "i32", "i32"), {"CHANNELS": 3}),
    ("_preprocess_backward", ("*bf16", "*fp32", "*fp32", "i32", "i32"), {"CHANNELS": 3}),
    ("_blur_along", ("*fp32", "*fp32", "i32", "i32", "i32", "i32", "fp32", "fp32"), {}),
]


@pytest.mark.parametrize(("name", "types", "constants"), SOURCES)
@pytest.mark.parametrize("capability", [80, 90])
def test_they_compile_for_cards(
    name: str,
    types: tuple[str, ...],
    constants: dict[str, int],
    capability: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which needs none; sizes are arguments, so that an octave compiles nothing."""
    triton = pytest.importorskip("triton", "3.3", reason="Triton comes with PyTorch for CUDA alone")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    path = Path(fused.__file__).with_name("triton_kernels.py")
    kernels: Any = SimpleNamespace(**runpy.run_path(str(path)))
    function = getattr(kernels, name)
    fixed = constants | {"BLOCK": kernels.BLOCK}
    source = triton.compiler.ASTSource(
        function,
        dict(zip(function.arg_names, types, strict=False)) | dict.fromkeys(fixed, "constexpr"),
        constexprs={(function.arg_names.index(key),): value for key, value in fixed.items()},
    )
    target = importlib.import_module("triton.backends.compiler").GPUTarget("cuda", capability, 32)
    found = triton.compile(source, target=target)
    assert found.asm["cubin"]
    # Divided as PyTorch does; of a Gaussian there are exponentials.
    assert ("ex2.approx" if name == "_blur_along" else "div.rn.f32") in found.asm["ptx"]


# --- without ---------------------------------------------------------------------------------


class Broken:
    """Kernels that do not compile."""

    def __init__(self, error: Exception) -> None:
        self.error, self.calls = error, 0

    def __getattr__(self, name: str) -> Any:
        def fails(*given: Any) -> None:
            self.calls += 1
            raise self.error

        return fails


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Broken:
    found = Broken(RuntimeError("PTX of another version"))
    monkeypatch.setattr(fused, "kernels", lambda: found)
    monkeypatch.setattr(fused, "_runs_on", lambda device: True)
    monkeypatch.setattr(fused, "_FAILED", set())
    return found


def test_what_does_not_compile_is_pytorchs_from_then_on(
    broken: Broken, caplog: pytest.LogCaptureFixture
) -> None:
    image = noise(1, 3, 12, 10)

    def made() -> tuple[Tensor, Tensor, Tensor]:
        leaf = image.clone().requires_grad_()
        values = Preprocessing.of(MEAN, STD, (0, 1))(leaf, torch.bfloat16)
        (grad,) = torch.autograd.grad(values.sum(), leaf)
        return gradients.blur(image, 1.0), values, grad

    with caplog.at_level(logging.DEBUG, "phosphene"):
        made()
        blurred, values, grad = made()
    expected = blurred_in_float64(image, 1.0)
    torch.testing.assert_close(blurred.double(), expected, rtol=1e-6, atol=1e-6)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    assert torch.equal(values, ((image - mean) / std).bfloat16())
    assert values.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(grad, (1 / std).expand_as(image[0])[None])
    assert broken.calls == 3
    said = [r.message for r in caplog.records if "without Triton" in r.message]
    assert len(said) == 3
    assert all("PTX of another version" in message for message in said)


def test_a_lack_of_memory_is_told(broken: Broken) -> None:
    broken.error = torch.OutOfMemoryError("CUDA out of memory")
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            gradients.blur(noise(1, 3, 8, 8), 1.0)
    assert broken.calls == 2


def test_a_capture_that_is_broken_off_says_nothing_of_a_kernel(
    broken: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(fused, "_is_capturing", lambda device: True)
        with pytest.raises(RuntimeError, match="PTX"):
            gradients.blur(noise(1, 3, 8, 8), 1.0)
    gradients.blur(noise(1, 3, 8, 8), 1.0)
    assert broken.calls == 2


def test_what_a_kernel_reads_is_seen_by_a_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or other preprocessing of the network would take numbers away that a graph reads."""
    ran = []
    found = SimpleNamespace(
        preprocess=lambda *given: ran.append(given),
        preprocess_backward=lambda *given: ran.append(given),
        blur_along=lambda *given: ran.append(given),
    )
    monkeypatch.setattr(fused, "kernels", lambda: found)
    monkeypatch.setattr(fused, "_runs_on", lambda device: True)
    preprocessing, image = Preprocessing.of(MEAN, STD, (0, 1)), noise(1, 3, 8, 8)
    with torch.enable_grad(), _Watch(image.device) as watch:
        leaf = image.requires_grad_()
        values = preprocessing(leaf, torch.float32)
    ((shift, scale),) = preprocessing._constants.values()
    storages = [one.untyped_storage()._cdata for one in (image, shift, scale)]
    assert len(ran) == 1
    # They were made within; the second time they were there, as in a capture.
    with torch.enable_grad(), _Watch(image.device) as watch:
        values = preprocessing(leaf, torch.float32)
    assert {*storages} <= watch.held.keys()
    with _Watch(image.device) as watch:
        torch.autograd.grad(values.sum(), leaf)
    assert storages[2] in watch.held
    plane = noise(1, 1, 8, 8)
    with _Watch(image.device) as watch:
        fused.blurred_along(plane, 2, 1.0, 3, torch.empty_like(plane))
    assert plane.untyped_storage()._cdata in watch.held
    assert [len(given) for given in ran] == [4, 4, 3, 5]


def test_without_triton_there_are_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fused, "_runs_on", lambda device: True)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    fused.kernels.cache_clear()
    try:
        with caplog.at_level(logging.DEBUG, "phosphene"):
            for _ in range(2):
                assert not fused.takes(noise(1, 3, 8, 8))
        assert [r.message for r in caplog.records if "without Triton" in r.message] == [
            caplog.records[0].message
        ]
    finally:
        fused.kernels.cache_clear()


def test_kernels_start_on_the_card_that_has_the_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    class Device:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def __enter__(self) -> None:
            told.append(self.device)

        def __exit__(self, *_: object) -> None:
            told.append("left")

    there = torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "device", Device)
    kernels = SimpleNamespace(preprocess=lambda: told.append("run"))
    monkeypatch.setattr(fused, "kernels", lambda: kernels)
    assert fused._ran("preprocess", SimpleNamespace(device=there))  # pyright: ignore[reportArgumentType]
    assert told == [there, "run", "left"]


def test_a_processors_dream_imports_no_triton() -> None:
    code = """
import sys
import phosphene, torch
from tests import toy_network
phosphene.dream(torch.rand(1, 3, 32, 32), toy_network.net(), "second", octaves=1, steps=2)
assert "phosphene.runtime.fused" in sys.modules
print([name for name in sys.modules if "triton" in name and name.split(".")[0] != "torch"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
