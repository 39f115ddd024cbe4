"""Programs against autograd through the module itself."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from phosphene import Network, load_network
from phosphene import objectives as obj
from phosphene.evaluation.leaking import leaking_relus
from phosphene.evaluation.whole import whole
from phosphene.runtime import bands, graph, lowering, pooling
from phosphene.runtime import program as programs
from phosphene.runtime.convolutions import PrepackedWeight
from phosphene.runtime.lowering import lower
from phosphene.runtime.operations import AveragePool, UnfitError
from phosphene.runtime.options import DEFAULT, MEMORY_EFFICIENT, PLAIN_MODULES, Options

pytestmark = [
    pytest.mark.skipif(not lowering.available(), reason="PyTorch without oneDNN"),
    pytest.mark.cpu_only("programs"),
]


def compared(
    module: nn.Module,
    layers: tuple[str, ...],
    size: tuple[int, int],
    *,
    channels: int = 3,
    options: Options = DEFAULT,
    lowered: Callable[[fx.GraphModule], Any] = lower,
) -> Any:
    """Answers and gradient of the program of a module, held to autograd through the module.

    In the module's own type. lowered: what makes a program of a graph.
    """
    module = module.eval().requires_grad_(False)
    program = lowered(graph.trace(module).cut(layers))
    generator = torch.Generator().manual_seed(0)
    dtype = next(module.parameters()).dtype
    rtol, atol, least = (1e-10,) * 3 if dtype == torch.float64 else (1e-4, 1e-5, 1e-5)
    image = torch.randn(2, channels, *size, generator=generator, dtype=dtype)
    image = image.contiguous(memory_format=torch.channels_last)
    found: dict[str, Tensor] = {}

    def recording(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda _module, _inputs, out: found.__setitem__(name, out.clone())

    hooks = [module.get_submodule(name).register_forward_hook(recording(name)) for name in layers]
    a, b = image.clone().requires_grad_(), image.clone().requires_grad_()
    module(a)
    for hook in hooks:
        hook.remove()
    weights = {
        name: torch.randn(out.shape, generator=generator, dtype=dtype)
        for name, out in found.items()
    }
    expected = torch.stack([(found[name] * weights[name]).sum() for name in layers]).sum()
    answers = program(b, options=options)
    got = torch.stack([(answers[name] * weights[name]).sum() for name in layers]).sum()
    for name in layers:
        torch.testing.assert_close(answers[name], found[name], rtol=rtol, atol=atol)
    (grad,) = torch.autograd.grad(expected, a)
    (mine,) = torch.autograd.grad(got, b)
    assert float((mine - grad).norm() / grad.norm()) < least  # nor is it none
    with torch.no_grad():
        again = program(image, options=options)
    for name in layers:
        torch.testing.assert_close(again[name], answers[name].detach())
    return program


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.integers(1, 7),
    stride=st.integers(1, 4),
    padding=st.integers(0, 4),
    dilation=st.integers(1, 2),
    channels=st.integers(1, 6),
    size=st.tuples(st.integers(15, 24), st.integers(15, 24)),
)
def test_a_convolutions_gradient_is_autograds(
    kernel: int, stride: int, padding: int, dilation: int, channels: int, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, 5, kernel, stride, padding, dilation)
    compared(nn.Sequential(conv, nn.ReLU(), nn.Conv2d(5, 3, 1)), ("2",), size, channels=channels)


class Forked(nn.Module):
    """One map into many hands: convolutions alike and unlike, pooling, sums, concatenations."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, 1, 1)
        self.a = nn.Conv2d(8, 4, 1)
        self.b = nn.Conv2d(8, 6, 1)
        self.c = nn.Conv2d(8, 8, 3, 1, 1)
        self.d = nn.Conv2d(8, 8, 3, 2, 1)
        self.grouped = nn.Conv2d(8, 8, 3, 1, 1, groups=4)
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.tail = nn.Conv2d(18, 8, 3, 1, 1)
        self.act = nn.ReLU6(inplace=True)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        a, b = self.a(x), F.relu(self.b(x))
        c = self.relu(self.c(x))
        joined = torch.cat([a, b, self.pool(x)], 1)
        y = self.act(self.tail(joined)) + c
        y = y * torch.sigmoid(self.grouped(x))
        return F.max_pool2d(self.drop(y), 3, 2, ceil_mode=True).relu() + self.d(x)[..., :8, :10]


def test_branches_sums_products_and_slices() -> None:
    compared(Forked(), ("tail",), (17, 21))
    compared(Forked(), ("d", "grouped", "b", "act"), (17, 21))
    compared(nn.Sequential(Forked(), nn.ReLU()), ("1", "0.c"), (17, 21))


@pytest.mark.parametrize(
    ("name", "layers", "size"),
    [
        ("googlenet", ("inception4a", "inception3b.branch2.1.conv"), (64, 80)),
        ("vgg11_bn", ("features.15",), (48, 40)),
        ("resnet18", ("layer3", "layer1.0.relu"), (64, 48)),
        ("densenet121", ("features.transition1",), (40, 48)),
        ("squeezenet1_1", ("features.7", "features.6.expand3x3"), (64, 64)),
        ("mobilenet_v2", ("features.5",), (48, 48)),
        ("alexnet", ("features.11",), (80, 96)),
    ],
)
def test_published_architectures(name: str, layers: tuple[str, ...], size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    compared(getattr(torchvision.models, name)(weights=None, **options), layers, size)


class Classifier(nn.Sequential):
    """A ReLU of vectors, as VGG's classifier has."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(
            *(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
            *(nn.Linear(16, 8), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(8, 5)),
        )


@pytest.mark.parametrize("options", [DEFAULT, MEMORY_EFFICIENT])
def test_relus_of_vectors(options: Options) -> None:
    compared(Classifier(), ("7",), (16, 19), options=options)
    compared(Classifier(), ("5", "7"), (16, 19), options=options)


def test_parallel_convolutions_share_one_gradient() -> None:
    program = compared(Forked(), ("tail",), (16, 16))
    assert max(len(group.indices) for group in program.parallel.values()) == 2  # a and b, not c


class Averaged(nn.Module):
    """Means as modules and functions, of every option; `ours` of them are their own gradient."""

    ours = 5

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 6, 1)
        self.means = nn.ModuleList(
            [
                nn.AvgPool2d(3, 1, 1),
                nn.AvgPool2d((5, 1), 1, (2, 0)),
                nn.AvgPool2d(3, 1, 1, count_include_pad=False),
                nn.AvgPool2d(3, 1, 1, divisor_override=4),
                nn.AvgPool2d(2, 1),
                nn.AvgPool2d(3, 2, 1),
                nn.AvgPool2d(3, padding=1, ceil_mode=True),
            ]
        )
        self.last = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = F.avg_pool2d(x, 3, 1, 1)
        x = F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=True)
        x = F.avg_pool2d(x, 3, stride=(1, 1), padding=(1, 1), ceil_mode=True)
        x = F.avg_pool2d(torch.cat([x, x], 1), 3, 2, 1)[:, :6]
        for mean in self.means:
            x = mean(x)
        return self.last(x)


def test_means_that_keep_the_size_are_their_own_gradient() -> None:
    program = compared(Averaged(), ("last",), (33, 38))
    found = [type(instruction.operation) for instruction in program.instructions]
    assert found.count(AveragePool) == Averaged.ours
    compared(Averaged(), ("first", "means.0", "means.1", "last"), (33, 38))


class Gated(nn.Module):
    """ReLUs, mostly off, behind which stand poolings and concatenations, or more than that."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.to_pool = nn.Conv2d(3, 8, 3, padding=1)
        self.one = nn.Conv2d(8, 5, 1)
        self.two = nn.Conv2d(8, 6, 3, padding=1)
        self.three = nn.Conv2d(8, 4, 1)
        self.linear = nn.Conv2d(15, 4, 1)
        self.shared = nn.Conv2d(15, 4, 1)
        self.last = nn.Conv2d(23, 3, 1)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.first_relu, self.second_relu = nn.ReLU(), nn.ReLU()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.bias.data -= 0.4  # pyright: ignore[reportOptionalMemberAccess]

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.first_relu(self.to_pool(x)))  # the pooling sees to it
        same = F.max_pool2d(x, 3, 1, 1)
        parts = [self.one(x).relu(), self.second_relu(self.two(x)), self.three(same).relu()]
        x = F.max_pool2d(torch.cat(parts, 1), 2)  # and here of what the concatenation would
        shared = self.shared(x).relu()
        mixed = torch.cat([self.linear(x), shared, x], 1)  # a part of it is no ReLU's
        return self.last(torch.cat([mixed.relu() - 0.1, shared - 0.1], 1)[:, :23])


@pytest.mark.parametrize("how", ["plain", "memory_efficient", "numba"])
@pytest.mark.parametrize(
    ("layers", "gated"),
    [
        (("last",), ["MaxPool", "MaxPool", "Convolution", "ReLU"]),
        (("first_relu", "last"), ["Convolution", "MaxPool", "Convolution", "ReLU"]),
        (
            ("pool", "second_relu", "last"),
            ["MaxPool", "Convolution", "MaxPool", "Convolution", "ReLU"],
        ),
    ],
)
def test_relus_leave_their_part_to_what_alone_sees_them(
    layers: tuple[str, ...], gated: list[str], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "numba":
        monkeypatch.setattr(pooling, "NUMBA_PIXELS", 1)
    options = MEMORY_EFFICIENT if how == "memory_efficient" else DEFAULT
    program = compared(Gated(), layers, (21, 26), options=options)
    operations = [instruction.operation for instruction in program.instructions]
    found = [operation for operation in operations if getattr(operation, "gated", False)]
    assert [type(operation).__name__ for operation in found] == gated


def test_the_gradient_of_some_layers_alone() -> None:
    """A sibling whose answer nobody scores leaves no rubbish in the others' gradient."""
    torch.manual_seed(0)
    module = Forked().eval().requires_grad_(False)
    program = lower(graph.trace(module).cut(("a", "b")))
    image = torch.rand(1, 3, 12, 12).requires_grad_()
    (mine,) = torch.autograd.grad(program(image)["b"].square().sum(), image)
    answer = module.b(module.stem(image).relu())
    (grad,) = torch.autograd.grad(answer.square().sum(), image)
    torch.testing.assert_close(mine, grad)


def test_ties_go_where_pytorchs_go() -> None:
    """A flat picture: every maximum is a tie, and the first of a window takes all."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)).eval()
    program = lower(graph.trace(module.requires_grad_(False)).cut(("2",)))
    grads = []
    for run in (module, lambda x: program(x)["2"]):
        image = torch.full((1, 3, 13, 13), 0.7).requires_grad_()
        grads.append(torch.autograd.grad(run(image).sum(), image)[0])
    torch.testing.assert_close(*grads)


def test_the_gradient_can_be_taken_twice_and_nothing_stays() -> None:
    program = lower(load_network()._traced.cut(("mixed4a",)))  # pyright: ignore
    image = torch.rand(1, 3, 64, 64).requires_grad_()
    answer = program(image)["mixed4a"]
    first = torch.autograd.grad(answer.sum(), image, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(answer.sum(), image)[0], first)
    gone = weakref.ref(answer.grad_fn)  # pyright: ignore[reportArgumentType]
    gc.disable()
    try:
        del answer, first
        assert gone() is None  # without the collector: output and graph do not hold one another
    finally:
        gc.enable()


def test_saving_memory_changes_nothing_but_memory() -> None:
    program = lower(load_network()._traced.cut(("mixed4a",)))  # pyright: ignore
    grads = []
    for options in (MEMORY_EFFICIENT, DEFAULT):
        image = torch.linspace(0, 1, 3 * 64 * 64).view(1, 3, 64, 64).requires_grad_()
        answer = program(image, options=options)["mixed4a"]
        grads.append(torch.autograd.grad(answer.sum(), image)[0])
    assert torch.equal(*grads)


def test_weights_are_laid_out_once_a_size_comes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever order sizes come in, answers and gradients are those of fresh weights."""
    cut = load_network()._traced.cut(("mixed4a",))  # pyright: ignore[reportOptionalMemberAccess]
    program = lower(cut)
    laid: list[int] = []
    real = PrepackedWeight.for_size

    def noted(self: PrepackedWeight, size: torch.Size) -> Tensor:
        weight = real(self, size)
        laid.append(weight is not self.weight)
        return weight

    monkeypatch.setattr(PrepackedWeight, "for_size", noted)
    expected = []
    for number, side in enumerate((64, 64, 64, 48, 64, 48, 48, 48)):
        image = torch.rand(1, 3, side, 64, generator=torch.Generator().manual_seed(side))
        grads = []
        for run in (program, lower(cut)):
            laid.clear()
            leaf = image.clone().requires_grad_()
            (grad,) = torch.autograd.grad(run(leaf)["mixed4a"].square().sum(), leaf)
            grads.append(grad)
            expected.append((number, run is program, bool(laid) and all(laid), any(laid)))
        assert float((grads[0] - grads[1]).norm() / grads[1].norm()) < 1e-5
    again = {number for number, ours, every, _ in expected if ours and every}
    assert again == {1, 2, 6, 7}
    assert {number for number, ours, _, some in expected if some} == again


def test_before_each_step_there_is_a_chance_to_give_memory_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = lower(load_network()._traced.cut(("mixed4a",)))  # pyright: ignore
    chances: list[int] = []
    monkeypatch.setattr(programs, "trim_to_limit", lambda: chances.append(1))
    image = torch.rand(1, 3, 64, 64).requires_grad_()
    answer = program(image)["mixed4a"].sum()
    assert len(chances) == len(program.instructions)
    answer.backward()
    assert len(chances) == 2 * len(program.instructions)


def test_the_bundled_network_uses_one_and_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    network = load_network().prepared("cpu", "fp32")
    goal = obj.layer("mixed4a").bound(network)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    runs = []
    real = programs.run

    def counted(*given: Any) -> dict[str, Tensor]:
        runs.append(1)
        return real(*given)

    monkeypatch.setattr(programs, "run", counted)
    monkeypatch.setattr(bands, "run", counted)
    score, grad = whole(network, goal)(image)
    assert runs
    runs.clear()
    evaluate = whole(network, goal, options=PLAIN_MODULES)
    plain, plain_grad = evaluate(image)
    with leaking_relus():
        evaluate(image)
    assert not runs
    torch.testing.assert_close(score, plain)
    assert float((grad - plain_grad).norm() / grad.norm()) < 1e-5


def test_what_has_no_gradient_is_left_to_autograd() -> None:
    class Rounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.last = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            hard = (self.conv(x) > 0).float()
            return self.last(hard)

    network = Network(Rounded())
    image = torch.rand(1, 3, 32, 32).requires_grad_()
    assert not network.activations(image, ["last"])["last"].requires_grad


def test_no_program_without_a_picture() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)
            self.split = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            first, second = self.conv(x).chunk(2, 1)
            return self.split(first) + second

    module = Two().eval().requires_grad_(False)
    program = lower(graph.trace(module).cut(("split",)))
    with pytest.raises(UnfitError):
        program(torch.rand(1, 3, 8, 8))
    # The network itself goes on without one.
    assert Network(Two()).activations(torch.rand(1, 3, 8, 8), ["split"])["split"].shape[1] == 1
