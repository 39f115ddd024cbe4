"""The programs of CUDA on the processor: what cuDNN would do in one call is stood in for."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from phosphene import Network, load_network
from phosphene import objectives as obj
from phosphene.engine import CHECK_EVERY
from phosphene.evaluation.whole import whole
from phosphene.network import extract
from phosphene.network import network as network_module
from phosphene.network.extract import GraphExtractor, ProgramExtractor
from phosphene.recipes.dream import dream
from phosphene.runtime import convolutions, graph, lowering
from phosphene.runtime import device as devices
from phosphene.runtime.bands import Banded, banded
from phosphene.runtime.convolutions import CuDNN, Geometry, Library, OneDNN
from phosphene.runtime.lowering import library_for, lower
from phosphene.runtime.operations import UnfitError
from phosphene.runtime.options import DEFAULT, MEMORY_EFFICIENT, Options
from tests import toy_network
from tests.launches import Launches
from tests.test_accelerator import META, Accelerator
from tests.test_program import Classifier, Forked, Gated, compared


class Fused:
    """`torch.cudnn_convolution_relu`, as far as the processor can do it; counts its calls.

    fails: what is done first.
    """

    def __init__(self, fails: Callable[[], object] = lambda: None) -> None:
        self.fails, self.calls = fails, 0

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any) -> Tensor:
        self.calls += 1
        self.fails()
        assert bias is not None  # of none it makes zeros, in a kernel more
        assert x.dtype == weight.dtype == bias.dtype
        with _disable_current_modes():  # one call, for whoever counts
            return torch.conv2d(x, weight, bias, *geometry).relu_()


def held_to_autograd(
    module: nn.Module,
    layers: tuple[str, ...],
    size: tuple[int, int],
    *,
    channels: int = 3,
    options: Options = DEFAULT,
    in_bands: bool = False,
) -> Fused:
    """Answers and gradient of the program of a module, in float64, are those of the module."""
    fused = Fused()

    def lowered(cut: fx.GraphModule) -> Any:
        program = lower(cut, CuDNN(fused))
        if not in_bands:
            return program
        found = banded(program)
        assert isinstance(found, Banded)
        return found

    module = module.double()
    compared(module, layers, size, channels=channels, options=options, lowered=lowered)
    return fused


# --- answers and gradients -------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.sampled_from([1, 1, 2, 4]),
    bias=st.booleans(),
    size=st.tuples(st.integers(11, 18), st.integers(11, 18)),
)
def test_a_convolutions_gradient_is_autograds(
    kernel: Any, stride: Any, padding: Any, dilation: Any, groups: int, bias: bool, size: Any
) -> None:
    """Depthwise too, of which cuDNN is not asked: four groups of four channels."""
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups, bias)
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), conv, nn.ReLU(), nn.Conv2d(8, 3, 1))
    fused = held_to_autograd(module, ("4",), size)
    assert fused.calls == 2 * (2 if groups == 1 else 1)  # with a gradient, and without


@pytest.mark.parametrize(
    ("make", "layers", "size"),
    [
        (Forked, ("tail",), (17, 21)),
        (Forked, ("d", "grouped", "b", "act"), (17, 21)),
        (lambda: nn.Sequential(Forked(), nn.ReLU()), ("1", "0.c"), (17, 21)),
        (Gated, ("last",), (21, 26)),
        (Gated, ("pool", "second_relu", "last"), (21, 26)),
        (Classifier, ("7",), (16, 19)),
        (lambda: toy_network.net().module, ("second", "logits"), (20, 24)),
    ],
)
@pytest.mark.parametrize("options", [DEFAULT, MEMORY_EFFICIENT])
def test_branches_gates_and_sums(make: Any, layers: Any, size: Any, options: Options) -> None:
    assert held_to_autograd(make(), layers, size, options=options).calls


@pytest.mark.parametrize(
    ("name", "layers", "size"),
    [
        ("googlenet", ("inception4a", "inception3b.branch2.1.conv"), (64, 72)),
        ("resnet18", ("layer3", "layer1.0.relu"), (64, 48)),
        ("mobilenet_v2", ("features.5",), (48, 48)),
        ("squeezenet1_1", ("features.7", "features.6.expand3x3"), (64, 64)),
    ],
)
def test_published_architectures(name: str, layers: tuple[str, ...], size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    held_to_autograd(getattr(torchvision.models, name)(weights=None, **options), layers, size)


@pytest.mark.parametrize("in_bands", [False, True])
def test_the_bundled_network(in_bands: bool) -> None:
    options = Options(memory_efficient=True, bands="always") if in_bands else DEFAULT
    module = load_network().module
    held_to_autograd(module, ("mixed4a",), (96, 80), options=options, in_bands=in_bands)


def test_convolutions_alike_share_a_gradient_and_lone_ones_are_cudnns() -> None:
    module = Forked().eval().requires_grad_(False)
    program = lower(graph.trace(module).cut(("tail",)), CuDNN(Fused()))
    groups = {group.indices for group in program.parallel.values()}
    assert [len(indices) for indices in groups] == [2]  # a and b
    kinds = {type(instruction.operation).__name__ for instruction in program.instructions}
    assert "PooledConvolution" not in kinds  # its pooling is not done by rows there


# --- what cuDNN refuses ----------------------------------------------------------------------


@pytest.fixture
def on_card(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fused], Network]:
    """The bundled network, run as on a card that does convolution and ReLU in such a way."""

    def prepared(fused: Fused) -> Network:
        monkeypatch.setattr(extract, "library_for", lambda device: CuDNN(fused))
        return load_network().prepared("cpu", "fp32")

    return prepared


IMAGE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def extractors(network: Network) -> set[type]:
    return {type(found) for found in network._extractors.values()}


def evaluated(network: Network) -> tuple[Tensor, Tensor]:
    network._extractors.clear()
    return whole(network, obj.layer("mixed3b").bound(network))(IMAGE)


def raising(error: Exception) -> Callable[[], object]:
    def fails() -> None:
        raise error

    return fails


def test_what_answers_as_the_module_does_is_taken(on_card: Callable[[Fused], Network]) -> None:
    fused = Fused()
    network = on_card(fused)
    evaluated(network)
    assert extractors(network) == {ProgramExtractor}
    assert fused.calls > 10


def test_what_is_refused_goes_apart_from_its_relu(
    on_card: Callable[[Fused], Network], caplog: pytest.LogCaptureFixture
) -> None:
    """cuDNN's words are those of a lack of memory; each convolution asks it once."""
    expected = evaluated(load_network().prepared("cpu", "fp32"))
    # PyTorch's own words, as of a lack of memory.
    fused = Fused(raising(RuntimeError("GET was unable to find an engine to execute this")))
    network = on_card(fused)
    with caplog.at_level(logging.DEBUG, "phosphene"):
        found = evaluated(network)
        calls = fused.calls
        whole(network, obj.layer("mixed3b").bound(network))(IMAGE)
    assert extractors(network) == {ProgramExtractor}
    said = [r for r in caplog.records if "apart from its ReLU" in r.message]
    assert len(said) == calls == fused.calls > 10
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_what_answers_wrongly_is_not_taken(
    on_card: Callable[[Fused], Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = evaluated(load_network().prepared("cpu", "fp32"))
    fused = Fused()
    network = on_card(fused)
    real = Fused.__call__
    monkeypatch.setattr(Fused, "__call__", lambda self, *given: real(self, *given) * 1.01)
    found = evaluated(network)
    assert extractors(network) == {GraphExtractor}
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_a_lack_of_memory_is_told() -> None:
    x, weight = torch.zeros(1, 2, 4, 4), torch.zeros(3, 2, 1, 1)
    lack = Fused(raising(torch.OutOfMemoryError("CUDA out of memory")))
    convolver = CuDNN(lack).convolver(weight, None, Geometry(), relu=True)
    for calls in (1, 2):  # and it is tried again
        with pytest.raises(torch.OutOfMemoryError):
            convolver.forward(x)
        assert lack.calls == calls


def test_a_lack_of_memory_in_other_words_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.zeros(1, 2, 4, 4), torch.zeros(3, 2, 1, 1)
    lack = Fused(raising(RuntimeError("unable to find an engine")))
    convolver = CuDNN(lack).convolver(weight, None, Geometry(), relu=True)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "conv2d", lambda *given: lack.fails())
        with pytest.raises(RuntimeError, match="unable to find an engine"):
            convolver.forward(x)
    lack.fails = lambda: None
    assert convolver.forward(x).shape == (1, 3, 4, 4)
    assert lack.calls == 2


def test_a_thread_may_give_up_the_one_call_while_another_begins_it() -> None:
    fused = Fused()
    convolver: Any = CuDNN(fused).convolver(torch.zeros(3, 2, 1, 1), None, Geometry(), relu=True)

    def given_up(x: Tensor) -> bool:
        convolver.convolution_relu = None
        return True

    convolver._may_fuse = given_up
    assert convolver.forward(torch.zeros(1, 2, 4, 4)).shape == (1, 3, 4, 4)
    assert fused.calls == 1


def test_plain_convolutions_ask_no_cudnn() -> None:
    fused = Fused()
    weight = torch.zeros(3, 2, 1, 1)
    convolver = CuDNN(fused).convolver(weight, None, Geometry(), relu=True)
    with devices.PLAIN_CONVOLUTIONS:
        convolver.forward(torch.zeros(1, 2, 4, 4))
    assert fused.calls == 0


def test_maps_too_large_for_32_bits_are_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted on either side of the convolution."""
    fused = Fused()
    x = torch.zeros(1, 2, 6, 6)  # 72 values
    for channels, most, calls in ((2, 72, 0), (2, 73, 1), (9, 144, 1), (9, 145, 2)):
        monkeypatch.setattr(convolutions, "MOST_VALUES", most)
        weight = torch.zeros(channels, 2, 3, 3)  # of 9 channels 144 values
        CuDNN(fused).convolver(weight, None, Geometry(), relu=True).forward(x)
        assert fused.calls == calls


def test_maps_that_are_too_small_are_refused_in_pytorchs_words() -> None:
    """Which rounds -1 / 2 to 0 where it makes room for the answer."""
    fused = Fused()
    convolver = CuDNN(fused).convolver(torch.zeros(1, 1, 3, 3), None, Geometry((2, 2)), relu=True)
    for size in ((2, 5), (5, 2)):
        with pytest.raises(RuntimeError, match="Kernel size"):
            convolver.forward(torch.zeros(1, 1, *size))
    assert fused.calls == 0


def test_each_device_has_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(library_for(torch.device("cuda:0")), CuDNN)
    monkeypatch.setattr(CuDNN, "is_available", staticmethod(lambda: False))
    monkeypatch.setattr(lowering, "available", lambda: False)
    for device in ("cuda", "cpu", "mps", "meta"):
        with pytest.raises(UnfitError, match=device):
            library_for(torch.device(device))


# --- how it is run ---------------------------------------------------------------------------


def test_forward_and_backward_are_exact(
    on_card: Callable[[Fused], Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No TF32, no race between algorithms, and those that are deterministic, as long as it runs."""
    seen: Counter[tuple[str, Any]] = Counter()

    def flags() -> tuple[Any, ...]:
        cudnn = torch.backends.cudnn
        precisions = [getattr(owner, name) == value for owner, name, value in devices._precisions()]
        return *precisions, cudnn.deterministic, cudnn.benchmark

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            if "convolution" in str(func):
                seen[str(func), flags()] += 1
            return func(*args, **(kwargs or {}))

    fused = Fused(lambda: seen.update([("relu", flags())]))
    monkeypatch.setattr(devices, "is_cuda", lambda device: True)
    network = on_card(fused)
    assert flags() != (True, True, True, False)
    with Watching():
        evaluated(network)
    ours = {name: those for name, those in seen if name != "aten.convolution.default"}
    assert ours.keys() == {"relu", "aten.convolution_backward.default"}
    assert set(ours.values()) == {(True, True, True, False)}


def test_a_settled_step_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pick = network_module.pick_device
    monkeypatch.setattr(
        network_module, "pick_device", lambda name: pick("cpu") if name == "cpu" else META
    )
    monkeypatch.setattr(extract, "TOLERANCE", float("inf"))
    fused, real = Fused(), lowering.library_for
    monkeypatch.setattr(extract, "library_for", lambda d: CuDNN(fused) if d == META else real(d))
    photo = torch.rand(1, 3, 80, 64, generator=torch.Generator().manual_seed(0))
    reads = []
    with Accelerator() as counted:
        net, calls = load_network(), 0
        for step in dream.steps(photo, net, "mixed4a", octaves=1, steps=9, precision="fp32"):
            reads.append(counted.reads)
            counted.reads = 0
            assert step.image.device == META
            assert fused.calls > calls
            calls = fused.calls
    looked_at = {*range(0, 9, CHECK_EVERY), 8}
    assert [index for index, count in enumerate(reads) if count and index not in looked_at] == []


def launches(network: Network, layer: str, fused: Fused | None) -> int:
    evaluate = whole(network, obj.layer(layer).bound(network))
    image = torch.rand(1, 3, 64, 64)
    evaluate(image)  # settled
    before = fused.calls if fused else 0
    with Launches() as counted:
        evaluate(image)
    return counted.found.total() + (fused.calls - before if fused else 0)


def googlenet() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = torchvision.models.googlenet(weights=None, aux_logits=False, init_weights=False)
    return Network(module, input_size=64, name="googlenet", copy=False)


@pytest.mark.parametrize(("make", "layer"), [(load_network, "mixed4c"), (googlenet, "inception4c")])
def test_a_gradient_starts_less_than_by_the_graph(
    make: Callable[[], Network], layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(device: torch.device) -> CuDNN:
        raise UnfitError("none")

    monkeypatch.setattr(extract, "library_for", without)
    network = make().prepared("cpu", "fp32")
    network._extractors.clear()
    plain = launches(network, layer, None)
    assert extractors(network) == {GraphExtractor}
    network._extractors.clear()
    fused = Fused()
    monkeypatch.setattr(extract, "library_for", lambda device: CuDNN(fused))
    ours = launches(network, layer, fused)
    assert extractors(network) == {ProgramExtractor}
    assert ours < 0.6 * plain


@pytest.mark.parametrize("asked", [("a",), ("b",), ("a", "b")])
@pytest.mark.parametrize("library", [CuDNN(Fused()), OneDNN()])
def test_siblings_that_nobody_asks_for_leave_no_rubbish(
    asked: tuple[str, ...], library: Library
) -> None:
    module = Forked().eval().requires_grad_(False)
    program = lower(graph.trace(module).cut(("a", "b")), library)
    assert max(len(group.indices) for group in program.parallel.values()) == 2
    image = torch.rand(1, 3, 12, 12).requires_grad_()
    answers = program(image)
    before = module.stem(image).relu()
    score = torch.stack([answers[name].square().sum() for name in asked]).sum()
    other = torch.stack([getattr(module, name)(before).square().sum() for name in asked]).sum()
    torch.testing.assert_close(
        torch.autograd.grad(score, image)[0], torch.autograd.grad(other, image)[0]
    )
