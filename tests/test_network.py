"""Networks: layers, activations by both paths, sizes, speed, and nothing left behind."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from phosphene import zoo
from phosphene.errors import InputTooSmallError, NetworkError, SettingsError, UnknownLayerError
from phosphene.evaluation.whole import whole
from phosphene.network import Layer, Network, precision
from phosphene.network.extract import HookExtractor
from phosphene.objectives import IMAGE, Objective
from phosphene.runtime import graph
from phosphene.runtime.graph import PICTURE
from tests.on import DEVICE


class Then(nn.Module):
    """Modules `a`, `b`, `c` … in a row, as a class of its own: a value decides in `forward`.

    `traceable` leaves that decision out, so that the graph path is taken.
    """

    def __init__(self, *modules: nn.Module, traceable: bool = True) -> None:
        super().__init__()
        for letter, module in zip("abcdefgh", modules, strict=False):
            self.add_module(letter, module)
        self.traceable = traceable

    def forward(self, x: Tensor) -> Tensor:
        for module in self.children():
            x = module(x)
            if not self.traceable and float(x.detach().sum()) == 12345.0:
                x = -x
        return x


def seeded(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().eval()


def small(module: nn.Module, side: int = 16, **given: object) -> Network:
    return Network(module, input_size=side, **given)  # pyright: ignore[reportArgumentType]


def picture(side: int = 16, *, count: int = 1, seed: int = 1) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def hooks(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def googlenet() -> Network:
    return zoo.load_network("googlenet:random")


BOTH = pytest.mark.parametrize("traceable", [True, False], ids=["graph", "hooks"])


def hooked(network: Network, values: Tensor, *layers: str) -> dict[str, Tensor]:
    """By the module itself under hooks, whatever the network would take."""
    return network._hooks(layers)({PICTURE: values})


def assert_path(network: Network, traceable: bool, layers: tuple[str, ...]) -> None:
    """The path that a test is about is the one that is taken."""
    assert isinstance(network._extractor(layers), HookExtractor) is not traceable


# Layers -------------------------------------------------------------------------------------------


def test_layers_come_in_the_order_in_which_they_are_done() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(4, 5)
            self.unused = nn.Conv2d(3, 3, 1)
            self.block = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.block(x).mean((2, 3)))

    network = small(Odd(), 8)
    assert network.layers == {
        "block.0": Layer("block.0", "Conv2d", (4, 4, 4), 1, 2, 3),
        "block.1": Layer("block.1", "ReLU", (4, 4, 4), 1, 2, 3),
        "block": Layer("block", "Sequential", (4, 4, 4), 1, 2, 3),
        "last": Layer("last", "Linear", (5,), 1, None, None),
    }
    assert list(network.layers) == ["block.0", "block.1", "block", "last"]
    assert network.layers_at((16, 24))["block"].shape == (4, 8, 12)
    assert network.logits_layer == "last"
    assert network.layers["block"].channels == 4


def test_channels_are_the_first_axis_of_maps_and_the_last_of_tokens() -> None:
    assert Layer("x", "", (7, 4, 5)).channels == 7
    assert Layer("x", "", (50, 7)).channels == 7
    assert Layer("x", "", (7,)).channels == 7
    assert Layer("x", "", ()).channels is None


class Twice(nn.Module):
    """`conv` used three times; ReLU shared and in place."""

    def __init__(self, traceable: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.end = nn.Conv2d(3, 2, 1)
        self.traceable = traceable

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.relu(self.conv(x))
            if not self.traceable and float(x.sum()) < -1:
                break
        return self.end(x)


@BOTH
def test_of_several_calls_the_last_counts(traceable: bool) -> None:
    module = seeded(lambda: Twice(traceable))
    network = small(module)
    assert_path(network, traceable, ("conv",))
    assert network.layers["conv"].calls == 3
    assert list(network.layers) == ["conv", "relu", "end"]
    x = picture()
    conv = module.get_submodule("conv")
    expected = conv(conv(conv(x).relu()).relu())
    found = network.activations(x, ["conv", "relu"])
    close(found["conv"], expected)
    close(found["relu"], expected.relu())
    assert (expected < 0).any()


@dataclass
class Answer:
    note: str
    map: Tensor


class Wrapped(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.conv, self.kind = nn.Conv2d(3, 4, 3), kind

    def forward(self, x: Tensor) -> object:
        y = self.conv(x)
        return {"tuple": (None, (y, y.mean())), "dict": {"n": 3, "y": y}, "data": Answer("", y)}[
            self.kind
        ]


class Unwrapping(nn.Module):
    def __init__(self, kind: str, traceable: bool) -> None:
        super().__init__()
        self.inner, self.relu = Wrapped(kind), nn.ReLU(inplace=True)
        self.end = nn.Conv2d(4, 2, 1)
        self.kind, self.traceable = kind, traceable

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        y = {"tuple": lambda: y[1][0], "dict": lambda: y["y"], "data": lambda: y.map}[self.kind]()
        if not self.traceable and float(y.detach().sum()) == 12345.0:
            return y
        return self.end(self.relu(y))


@BOTH
@pytest.mark.parametrize("kind", ["tuple", "dict", "data"])
def test_outputs_that_hold_a_tensor(kind: str, traceable: bool) -> None:
    """And the ReLU in place that follows does not spoil what was captured."""
    module = seeded(lambda: Unwrapping(kind, traceable))
    network = small(module)
    assert_path(network, traceable, ("inner", "end"))
    expected = module.get_submodule("inner.conv")(picture())
    assert (expected < -0.01).any()
    found = network.activations(picture(), ["inner", "end"])
    close(found["inner"], expected)
    close(found["end"], module(picture()))


def test_attention_is_a_layer_by_both_paths() -> None:
    """A layer of torch's own that gives a tuple."""

    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, 8, 4, 4)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.norm = nn.LayerNorm(8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.patch(x).flatten(2).transpose(1, 2)
            return self.norm(self.attention(x, x, x)[0])

    network = small(seeded(Attending))
    assert network._traced is not None
    assert network.layers["attention"].shape == (16, 8)
    image = picture()
    expected = hooked(network, network.preprocess(image), "attention")["attention"]
    assert_path(network, True, ("attention",))
    close(network.activations(image, ["attention"])["attention"], expected)
    assert network.layers["patch"].stride == 4
    assert network.layers["attention"].stride is None


def test_unknown_layers_and_aliases(toy: Network) -> None:
    network = Network(toy.module, input_size=16, aliases={"deep": "third", "gone": "nowhere"})
    assert network.resolve("deep") == "third"
    assert network.resolve("third") == "third"
    assert network.resolve(IMAGE) == IMAGE
    image = picture()
    found = network.activations(image, ["deep", "third", IMAGE])
    assert list(found) == ["deep", "third", IMAGE]
    assert torch.equal(found["deep"], found["third"])
    assert found[IMAGE] is image
    with pytest.raises(UnknownLayerError, match="no layer 'thrid'; the closest are third"):
        network.activations(image, ["thrid"])
    with pytest.raises(UnknownLayerError):
        network.resolve("gone")
    assert network.activations(image, [IMAGE]) == {IMAGE: image}


def test_the_logits_are_the_last_vector_with_as_many_channels_as_classes(toy: Network) -> None:
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5),
            nn.Linear(5, 2),
        )  # fmt: skip

    assert small(build()).logits_layer == "4"
    assert small(build(), classes=list("abcde")).logits_layer == "3"
    with pytest.raises(NetworkError, match="no layer that gives class scores"):
        _ = small(build(), classes=["a"] * 3).logits_layer
    with pytest.raises(NetworkError, match="no layer that gives class scores"):
        _ = toy.logits_layer


def test_modules_that_are_no_networks() -> None:
    with pytest.raises(NetworkError, match=r"torch\.nn\.Module, not int"):
        Network(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(NetworkError, match="no submodule of it was run"):
        _ = small(nn.Conv2d(3, 3, 1)).layers
    with pytest.raises(SettingsError, match="one number > 0 a channel"):
        Network(nn.Identity(), std=(1, 0, 1))
    with pytest.raises(SettingsError, match="one number > 0 a channel"):
        Network(nn.Identity(), mean=(1, 0))
    broken = small(nn.Sequential(nn.Linear(5, 5)), name="broken")
    with pytest.raises(NetworkError, match=r"broken failed on a picture of 16×16: .*shapes"):
        _ = broken.layers
    assert hooks(broken.module) == 0


# No further than needed, and nothing left behind --------------------------------------------------


class Counting(nn.Module):
    """Counts its calls; raises when it is armed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.calls, self.armed = 0, False

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.armed:
            raise AssertionError("reached")
        return self.conv(x)


@BOTH
def test_what_lies_behind_the_target_is_never_reached(traceable: bool) -> None:
    network = small(Then(nn.Conv2d(3, 4, 3), nn.ReLU(), Counting(), nn.ReLU(), traceable=traceable))
    assert_path(network, traceable, ("b",))
    later = network.module.get_submodule("c")
    assert isinstance(later, Counting)
    network.activations(picture(), ["b"])
    later.armed, later.calls = True, 0
    for _ in range(3):
        network.activations(picture(), ["a", "b"])
    assert later.calls == 0
    if not traceable:
        with pytest.raises(NetworkError, match="reached"):
            network.activations(picture(), ["d"])
        assert later.calls > 0


class Prepared(nn.Module):
    """Something done to the picture before a convolution looks at it."""

    def __init__(self, prepare: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.prepare = prepare
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.prepare(x))


def by_channel(x: Tensor) -> Tensor:
    return torch.cat([x[:, i : i + 1] * (i + 2) - 0.5 * i for i in range(3)], 1)


FOLDED: list[tuple[Callable[[Tensor], Tensor], bool]] = [
    (by_channel, True),
    (lambda x: 2 * (x / 255 - 0.5), True),
    (lambda x: (x * 2).clamp(-100, 100), False),
    (lambda x: (x + 1).relu(), False),
    (lambda x: (x * 2).flip(1), False),
    (lambda x: (x * 2).roll(1, 3), False),
    (lambda x: x - x.mean((2, 3), keepdim=True), False),
    (lambda x: 2 * x[..., 1:] - 1, False),
    (lambda x: x.detach() * 2 + 1, False),
    (lambda x: 2 * x - x.detach() + 1, False),
    (lambda x: x * 2, False),  # one operation, which stays
]


@pytest.mark.parametrize(("prepare", "folded"), FOLDED)
def test_what_is_done_to_channels_beforehand_is_one_operation(
    prepare: Callable[[Tensor], Tensor], folded: bool
) -> None:
    network = small(Prepared(prepare))
    assert network._traced is not None
    cut = network._traced.cut(["conv"])
    assert hasattr(cut, "preprocessing") is folded
    if folded:
        assert [node.op for node in cut.graph.nodes] == [
            "placeholder",
            *["call_module"] * 2,
            "output",
        ]
    x = picture()
    for layout in (torch.contiguous_format, torch.channels_last):
        leaf = x.contiguous(memory_format=layout).requires_grad_()
        found = cut(leaf)["conv"]
        close(found, network.module(x))
        if found.requires_grad:
            (slope,) = torch.autograd.grad(found.square().sum(), leaf)
            (expected,) = torch.autograd.grad(network.module(leaf).square().sum(), leaf)
            close(slope, expected)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_what_is_folded_lies_where_the_weights_lie(kind: torch.dtype) -> None:
    module = Prepared(by_channel).to("meta", kind)
    folded = graph.trace(module).cut(["conv"]).get_submodule("preprocessing")
    assert {(b.device.type, b.dtype) for b in folded.buffers()} == {("meta", kind)}


@pytest.mark.parametrize("before", [False, True])
def test_what_something_else_sees_beforehand_is_not_folded(before: bool) -> None:
    class Skipping(Prepared):
        def forward(self, x: Tensor) -> Tensor:
            y = self.prepare(x)
            return self.conv(y) + (x if before else y)[:, :1, 1:-1, 1:-1]

    network = small(Then(Skipping(by_channel), nn.ReLU()))
    assert network._traced is not None
    cut = network._traced.cut(["b"])
    assert hasattr(cut, "preprocessing") is not before
    close(cut(picture())["b"], network.module(picture()))


def test_the_graph_holds_no_more_than_the_target_needs(googlenet: Network) -> None:
    assert googlenet._traced is not None
    cut = googlenet._traced.cut(["inception3a"])
    left = {name.split(".")[0] for name, _ in cut.named_modules() if name}
    # Of the two normalisations the second is folded into one operation.
    looks = {"conv1", "maxpool1", "conv2", "conv3", "maxpool2", "inception3a"}
    assert left == {"preprocessing", *looks}
    # Its BatchNorms are folded away.
    assert not [m for m in cut.modules() if isinstance(m, nn.BatchNorm2d)]


@BOTH
def test_no_hook_stays(traceable: bool) -> None:
    network = small(Then(nn.Conv2d(3, 4, 3), Counting(), nn.ReLU(), traceable=traceable))
    for layers in (["a"], ["a", "c"], ["c"]):
        network.activations(picture(), layers)
        assert hooks(network.module) == 0
    later = network.module.get_submodule("b")
    assert isinstance(later, Counting)
    later.armed = True
    with pytest.raises(AssertionError, match="reached"):
        hooked(network, picture(), "c")
    assert hooks(network.module) == 0


def test_a_module_that_swallows_errors_does_not_swallow_the_stop() -> None:
    class Swallowing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.end = nn.Conv2d(3, 4, 3), Counting()

        def forward(self, x: Tensor) -> Tensor:
            try:
                x = self.inner(x)
            except Exception:
                x = x[:, :1].repeat(1, 4, 1, 1)
            if float(x.detach().sum()) == 12345.0:
                return x
            return self.end(x)

    network = small(Swallowing())
    _ = network.layers
    end = network.module.get_submodule("end")
    assert isinstance(end, Counting)
    end.calls = 0
    network.activations(picture(), ["inner"])
    assert end.calls == 0


@BOTH
def test_what_follows_in_place_does_not_spoil_a_capture(traceable: bool) -> None:
    """Also where it adds in place, by an operator or a method."""

    class Adding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            y = self.b(x)
            y += 1
            y = F.relu(y, True)
            x = self.relu(x)
            if not traceable and float(x.detach().sum()) == 12345.0:
                return x
            return x.add_(y)

    module = seeded(Adding)
    network = small(module)
    a = module.get_submodule("a")(picture())
    b = module.get_submodule("b")(a)
    assert (a < -0.01).any()
    for layers in (["a"], ["b"], ["a", "b"], ["a", "b", "relu"]):
        found = network.activations(picture(), layers)
        for layer, expected in {"a": a, "b": b}.items():
            if layer in layers:
                close(found[layer], expected)
    close(network.activations(picture(), ["a", "relu"])["relu"], a.relu())


@BOTH
def test_gradients_are_those_of_the_plain_module(traceable: bool) -> None:
    module = seeded(
        lambda: Then(
            nn.Conv2d(3, 6, 3, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 4, 3),
            nn.ReLU(inplace=True),
            traceable=traceable,
        )
    )
    norm = module.get_submodule("b")
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    network = small(module, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    assert_path(network, traceable, ("f",))
    x = picture().requires_grad_()
    (got,) = torch.autograd.grad(network.activations(x, ["f"])["f"].square().sum(), x)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.4])
    plain = module((x - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1))
    (expected,) = torch.autograd.grad(plain.square().sum(), x)
    assert expected.abs().max() > 0
    close(got, expected)


def test_the_callers_module_stays_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)).double()
    module.train()
    before = copy.deepcopy(module.state_dict())
    network = small(module)
    network.activations(picture(), ["2"])
    assert all(part.training for part in module.modules())
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert module[0].weight.dtype == torch.float64
    assert hooks(module) == 0
    assert not any(part.training for part in network.module.modules())
    assert not any(parameter.requires_grad for parameter in network.module.parameters())
    module(picture().double()).sum().backward()
    assert module[0].weight.grad is not None


def test_a_module_may_be_taken_over() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3))
    network = Network(module, copy=False)
    assert network.module is module
    assert not module.training

    class Sealed(nn.Sequential):
        def __deepcopy__(self, memo: object) -> Sealed:
            raise RuntimeError("sealed")

    with pytest.raises(NetworkError, match=r"Sealed cannot be copied \(sealed\).*copy=False"):
        Network(Sealed())
    Network(Sealed(), copy=False)


def test_a_network_that_decides_by_value_runs_under_hooks() -> None:
    class Deciding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bright, self.dark = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.bright(x) if float(x.mean()) >= 0 else self.dark(x)

    network = small(Deciding(), mean=(0.5, 0.5, 0.5))
    assert network._traced is None
    light, dark = torch.full((1, 3, 16, 16), 0.9), torch.full((1, 3, 16, 16), 0.1)
    assert network.activations(light, ["bright"])["bright"].shape == (1, 4, 16, 16)
    with pytest.raises(NetworkError, match="did not run bright for this picture"):
        network.activations(dark, ["bright"])
    assert hooks(network.module) == 0


# An independent oracle ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        (
            "resnet18",
            ["relu", "layer1.0.conv1", "layer1", "layer2.0.downsample", "layer3", "layer4", "fc"],
        ),
        ("googlenet", ["conv1", "inception3a.branch2", "inception4c", "inception5b", "fc"]),
    ],
)
def test_activations_are_those_of_torchvisions_extractor(
    googlenet: Network, name: str, layers: Sequence[str]
) -> None:
    network = googlenet if name == "googlenet" else zoo.load_network(f"{name}:random")
    x = picture(64)
    nodes = {layer: layer for layer in layers}
    extractor = create_feature_extractor(copy.deepcopy(network.module), nodes)
    with torch.no_grad():
        expected = extractor(network.preprocess(x))
        for found in (
            network.activations(x, layers),
            hooked(network, network.preprocess(x), *layers),
        ):
            for layer in layers:
                close(found[layer] / expected[layer].std(), expected[layer] / expected[layer].std())


def test_folding_batch_norm_changes_nothing() -> None:
    module = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
        )
    )
    for norm in (module.get_submodule("1"), module.get_submodule("4")):
        assert isinstance(norm, nn.BatchNorm2d)
        for value, low, high in (
            (norm.running_mean, -1, 1), (norm.running_var, 0.1, 3),
            (norm.weight.data, -2, 2), (norm.bias.data, -1, 1),
        ):  # fmt: skip
            assert value is not None
            value.uniform_(low, high, generator=torch.Generator().manual_seed(3))
    network = small(module)
    assert network._traced is not None
    cut = network._traced.cut(["5"])
    assert not [m for m in cut.modules() if isinstance(m, nn.BatchNorm2d)]
    expected = module(picture(count=2))
    close(network.activations(picture(count=2), ["5"])["5"], expected)
    # A convolution that is asked for itself stays unfolded.
    close(network.activations(picture(), ["3"])["3"], module[:4](picture()))  # pyright: ignore[reportIndexIssue]


def test_a_convolution_shared_by_two_batch_norms_is_not_spoilt() -> None:
    """Folding would change it for both; the answer must still be the module's."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.one, self.other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.other(self.conv(self.one(self.conv(x))))

    module = seeded(Shared)
    for norm in (module.get_submodule("one"), module.get_submodule("other")):
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_var is not None
        norm.running_var.fill_(0.3)
    close(small(module).activations(picture(), ["other"])["other"], module(picture()))


# Preprocessing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (0.0, 0.5, 1.0)),
        ({"mean": (0.5,) * 3, "std": (0.25,) * 3}, (-2.0, 0.0, 2.0)),
        ({"mean": (100.0,) * 3, "input_range": (0, 255)}, (-100.0, 27.5, 155.0)),
        ({"input_range": (-1, 1)}, (-1.0, 0.0, 1.0)),
        ({"mean": (0.5,) * 3, "std": (2.0,) * 3, "input_range": (-1, 1)}, (-0.75, -0.25, 0.25)),
    ],
)
def test_preprocessing_is_applied_once(
    given: dict[str, object], expected: tuple[float, ...]
) -> None:
    network = small(nn.Sequential(nn.Identity()), 2, **given)
    for value, answer in zip((0.0, 0.5, 1.0), expected, strict=True):
        image = torch.full((1, 3, 2, 2), value)
        found = network.activations(image, ["0"])["0"]
        torch.testing.assert_close(found, torch.full((1, 3, 2, 2), answer), rtol=0, atol=1e-5)


def test_each_channel_has_its_own_mean_and_std() -> None:
    network = small(nn.Sequential(nn.Identity()), 1, mean=(0.0, 0.25, 0.5), std=(1.0, 0.5, 0.25))
    values = network.activations(torch.full((1, 3, 1, 1), 0.5), ["0"])["0"].flatten().tolist()
    assert values == [0.5, 0.5, 0.0]


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (1, 4, 8, 8)])
def test_what_is_no_image_is_told(toy: Network, shape: tuple[int, ...]) -> None:
    with pytest.raises(NetworkError, match=r"an image is \(N, 3, H, W\), this one is"):
        toy.activations(torch.rand(shape), ["first"])


def test_a_grey_network_takes_grey_pictures() -> None:
    network = Network(nn.Sequential(nn.Conv2d(1, 2, 1)), mean=(0.0,), std=(1.0,), input_size=8)
    assert network.activations(torch.rand(1, 1, 8, 8), ["0"])["0"].shape == (1, 2, 8, 8)


# Sizes --------------------------------------------------------------------------------------------


@BOTH
def test_too_small_a_picture_is_told_the_least_size(traceable: bool) -> None:
    # 15 -> conv 5: 11 -> pool 2: 5 -> conv 5: 1
    network = small(
        Then(nn.Conv2d(3, 4, 5), nn.MaxPool2d(2), nn.Conv2d(4, 4, 5), traceable=traceable), 32
    )
    assert_path(network, traceable, ("c",))
    least = 14  # 14 -> 10 -> 5 -> 1
    assert network.least_size(["c"]) == least
    assert network.least_size(["a"]) == 5
    assert network.least_size(["a", "c"]) == least
    assert network.least_size([IMAGE]) == 1
    assert network.activations(picture(least), ["c"])["c"].shape[-2:] == (1, 1)
    with pytest.raises(InputTooSmallError, match="at least 14 px a side for c; this one is 13×13"):
        network.activations(picture(least - 1), ["c"])
    with pytest.raises(InputTooSmallError) as caught:
        network.activations(torch.rand(1, 3, 13, 40), ["c"])
    assert caught.value.least == least
    assert "40×13" in str(caught.value)
    network.activations(picture(5), ["a"])
    assert hooks(network.module) == 0


def test_a_network_of_one_size_says_so() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 4, 4)

        def forward(self, x: Tensor) -> Tensor:
            torch._assert(x.shape[2] == 16, f"Wrong height! Expected 16 but got {x.shape[2]}!")
            return self.conv(x)

    network = small(Fixed(), name="fixed")
    assert network._traced is not None
    with pytest.raises(InputTooSmallError, match="at least 16 px"):
        network.activations(picture(8), ["conv"])
    message = "fixed failed on a picture of 20×20: Wrong height! Expected 16 but got 20!"
    with pytest.raises(NetworkError, match=message):
        network.activations(picture(20), ["conv"])


def sight(network: Network, layer: str, across: int, along: int, axis: int) -> tuple[int, int]:
    """Field and stride by brute force: which rows of the picture make a middle position NaN."""
    exact = network.prepared("cpu", "fp64")  # plain convolutions, that spread NaN no further

    def seen(position: int | None, rows: slice) -> tuple[bool, int]:
        size = (along, across) if axis == 0 else (across, along)
        image = torch.zeros(1, 3, *size, dtype=torch.float64)
        image.movedim(2 + axis, 0)[rows] = torch.nan
        with torch.no_grad():
            answer = exact.activations(image, [layer])[layer]
        lines = answer.movedim(2 + axis, 0).flatten(1).isnan().any(1)
        middle = len(lines) // 2 if position is None else position
        return bool(lines[middle]), middle

    def ends(position: int) -> tuple[int, int]:
        low, high = 0, along  # the first row that is seen: NaN above it stays unseen
        while low < high:
            half = (low + high) // 2
            low, high = (low, half) if seen(position, slice(0, half + 1))[0] else (half + 1, high)
        first = low
        low, high = 0, along
        while low < high:
            half = (low + high) // 2
            low, high = (half + 1, high) if seen(position, slice(half, along))[0] else (low, half)
        return first, low - 1

    middle = seen(None, slice(0, 0))[1]
    (first, last), (following, _) = ends(middle), ends(middle + 1)
    return last - first + 1, following - first


@pytest.mark.parametrize("axis", [0, 1])
def test_receptive_fields_are_what_brute_force_finds(axis: int) -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 6, 2, 2)
            self.pool = nn.MaxPool2d(3, 2, 1)
            self.wide = nn.Conv2d(4, 4, 3, padding=2, dilation=2)
            # Even, so not centred on the other branch.
            self.even = nn.Conv2d(4, 4, 2)
            self.across = nn.Conv2d(8, 4, (1, 7), padding="same")
            self.down = nn.Conv2d(4, 4, (7, 1), padding=(3, 0))
            self.end = nn.AvgPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.pool(F.relu(self.stem(x)))
            x = F.max_pool2d(x, 3, 1, padding=1)
            x = torch.cat([self.wide(x), self.even(F.avg_pool2d(x, 2, stride=1, padding=1))], 1)
            return self.end(self.down(self.across(x)).relu())

    module = seeded(Branches)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(0.01)
    network = small(module, 64)
    for layer in ("stem", "pool", "wide", "even", "down", "end"):
        told = network.layers[layer]
        assert (told.receptive_field, told.stride) == sight(network, layer, 32, 192, axis), layer


@pytest.mark.parametrize(
    ("layer", "field", "stride"),
    # By hand, from the architecture: 7, +2*2, +2*4, +2*4, then +2*8 a block, and so on.
    [("conv1", 7, 2), ("maxpool1", 11, 4), ("conv3", 19, 4), ("maxpool2", 27, 8),
     ("inception3a", 43, 8), ("inception3b", 59, 8), ("maxpool3", 75, 16), ("inception4c", 171, 16),
     ("maxpool4", 251, 32), ("inception5b", 379, 32), ("avgpool", None, None),
     ("fc", None, None)],
)  # fmt: skip
def test_receptive_fields_of_googlenet(
    googlenet: Network, layer: str, field: int | None, stride: int | None
) -> None:
    found = googlenet.layers[layer]
    assert (found.receptive_field, found.stride) == (field, stride)


def test_googlenets_field_is_what_brute_force_finds(googlenet: Network) -> None:
    assert sight(googlenet, "inception3b", 16, 192, 0) == (59, 8)


def test_a_field_is_not_guessed() -> None:
    """Behind an upsampling, or a pooling to one place, nobody can tell."""

    def geometry(*modules: nn.Module) -> tuple[int | None, int | None]:
        last = list(small(nn.Sequential(*modules)).layers.values())[-1]
        return last.stride, last.receptive_field

    conv = nn.Conv2d(3, 3, 3)
    assert geometry(conv, nn.ReLU()) == (1, 3)
    assert geometry(conv, nn.Upsample(scale_factor=2), nn.Conv2d(3, 3, 3)) == (None, None)
    assert geometry(nn.ConvTranspose2d(3, 3, 2, 2)) == (None, None)
    assert geometry(conv, nn.AdaptiveAvgPool2d(1)) == (None, None)
    assert geometry(nn.Conv2d(3, 3, (1, 7)), nn.Conv2d(3, 3, (7, 1))) == (1, 7)
    assert geometry(nn.MaxPool2d(3), nn.AvgPool2d((2, 2))) == (6, 6)


def test_squeezing_keeps_the_stride() -> None:
    """Each position sees the whole picture through the gate, but stands where it stood."""

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool = nn.Conv2d(3, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1)
            self.end = nn.Conv2d(4, 4, 3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return self.end(x * torch.sigmoid(self.pool(x)))

    found = small(Gated()).layers["end"]
    assert (found.stride, found.receptive_field) == (4, None)


# Devices and precisions ---------------------------------------------------------------------------


def test_devices_and_precisions_that_are_not_there(toy: Network) -> None:
    with pytest.raises(SettingsError, match="no device 'gpu'; there are auto, cpu, cuda"):
        toy.prepared("gpu")
    with pytest.raises(SettingsError, match="no precision 'fp16'"):
        toy.prepared("cpu", "fp16")
    with pytest.raises(SettingsError, match="--device cpu always is"):
        toy.prepared("meta")
    if not torch.cuda.is_available():
        with pytest.raises(SettingsError, match="device 'cuda' is not on this machine"):
            toy.prepared("cuda")
    else:
        with pytest.raises(SettingsError, match="device 'cuda:99' is not on this machine"):
            toy.prepared("cuda:99")
    assert precision.pick_device("cpu") == torch.device("cpu")
    assert precision.pick_device("auto").type == DEVICE.partition(":")[0]


def test_a_prepared_network_is_kept(toy: Network) -> None:
    ready = toy.prepared("cpu", "fp32")
    assert toy.prepared("cpu", "fp32") is ready
    assert ready.prepared("cpu", "fp32") is ready
    assert ready.fingerprint == toy.fingerprint == toy.prepared("cpu", "bf16").fingerprint
    close(ready.activations(picture(), ["third"])["third"],
          toy.activations(picture(), ["third"])["third"])  # fmt: skip
    assert next(toy.module.parameters()).dtype == torch.float32
    assert next(toy.prepared("cpu", "bf16").module.parameters()).dtype == torch.bfloat16
    assert toy.prepared("cpu", "bf16").layers == toy.layers


def test_float64_is_exact(toy: Network) -> None:
    exact = toy.prepared("cpu", "fp64")
    image = picture().double()
    found = exact.activations(image, ["third"])["third"]
    assert found.dtype == torch.float64
    module = copy.deepcopy(toy.module).double()
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1)
                 for v in ((0.48, 0.46, 0.4), (0.23, 0.22, 0.23)))  # fmt: skip
    expected = module((image - mean) / std)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    rounded = toy.activations(picture(), ["third"])["third"].double()
    assert 1e-12 < float((rounded - expected).abs().max()) < 1e-4


def cosine(one: Tensor, other: Tensor) -> float:
    return float(F.cosine_similarity(one.flatten().float(), other.flatten().float(), dim=0))


def test_bfloat16_is_taken_where_it_agrees(toy: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_fast_bf16", lambda device: True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = toy.prepared("cpu", "auto", layers=["third"], sample=picture(32))
    assert fast.precision == "bf16"
    gradients = []
    for network in (toy, fast):
        image = picture().requires_grad_()
        answer = network.activations(image, ["third"])["third"]
        assert answer.dtype == torch.float32
        gradients.append(torch.autograd.grad(answer.square().mean(), image)[0])
    assert cosine(*gradients) > precision.CLOSE_COSINE
    assert not torch.equal(*gradients)


def test_bfloat16_that_strays_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that lives on small differences of large numbers, which bfloat16 cannot hold."""

    class Straying(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return (self.conv(x) + 2900) - 2900

    monkeypatch.setattr(precision, "has_fast_bf16", lambda device: True)
    network = small(seeded(lambda: Then(Straying())))
    with pytest.warns(UserWarning, match=r"strays on a \(cosine .*: using float32") as told:
        ready = network.prepared("cpu", "auto", layers=["a", IMAGE], sample=picture(32))
    assert ready.precision == "fp32"
    assert told[0].filename == __file__
    with warnings.catch_warnings():  # told once
        warnings.simplefilter("error")
        again = network.prepared("cpu", "auto", layers=["a"], sample=picture(32))
    assert again is ready


@pytest.mark.parametrize(
    ("faster", "noise", "close"),
    [
        (0.99, 1.0, True),  # turns it little, whatever noise does
        (0.97, 1.0, False),
        (0.97, 0.99, False),
        (0.971, 0.98, True),  # turned by .029, noise by .02: at most one and a half times that
        (0.969, 0.98, False),
        (0.7, 0.5, True),
        (0.55, 0.1, False),  # noise is no excuse for anything
    ],
)
def test_when_a_faster_precision_may_be_taken(faster: float, noise: float, close: bool) -> None:
    assert precision.Agreement(faster, noise).close is close


def test_parts_of_pictures_are_where_they_are_said_to_be() -> None:
    image = torch.arange(2 * 3 * 40 * 60.0).reshape(2, 3, 40, 60)
    crops = precision.crops_of(image, 16)
    assert crops.shape == (3, 3, 16, 16)
    assert torch.equal(crops[0], image[0, :, 12:28, 22:38])
    assert torch.equal(crops[1], image[1, :, 5:21, 35:51])
    assert torch.equal(crops[2], image[0, :, 19:35, 9:25])
    assert torch.equal(precision.crops_of(image[:1, :, :20, :20], 16)[0], image[0, :, 2:18, 2:18])
    assert len(precision.crops_of(image[:1, :, :20, :20], 16)) == 1
    assert precision.crops_of(image, 50).shape == (2, 3, 40, 50)
    assert len(precision.crops_of(image.repeat(5, 1, 1, 1), 16)) == precision.MOST_CROPS


def test_noise_turns_a_gradient_as_a_plain_loop_says(toy: Network) -> None:
    crops = precision.crops_of(picture(32), 16)
    found = precision.agreement(toy, toy, ["third"], crops)
    assert found is not None
    assert found.faster == pytest.approx(1, abs=1e-6)
    drawn = torch.rand(crops.shape, generator=torch.Generator().manual_seed(0)) - 0.5
    gradients = []
    for images in (crops, crops + drawn / 255):
        images = images.clone().requires_grad_()
        toy.activations(images, ["third"])["third"].square().mean().backward()
        gradients.append(images.grad)
    assert found.noise == pytest.approx(cosine(*gradients), abs=1e-6)
    assert found.noise < 1


def test_the_precision_does_not_hang_on_what_was_dreamt_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One picture may take bfloat16 and the next one float32, in whatever order they come."""
    asked: list[float] = []

    def agreement(reference: object, faster: object, layers: object, crops: Tensor) -> object:
        asked.append(float(crops.mean()))
        return precision.Agreement(1.0 if crops.mean() > 0.5 else 0.0, 1.0)

    monkeypatch.setattr(precision, "has_fast_bf16", lambda device: True)
    monkeypatch.setattr(precision, "agreement", agreement)
    light, dark = torch.full((1, 3, 32, 32), 0.9), torch.full((1, 3, 32, 32), 0.1)
    for order in ((light, dark), (dark, light)):
        network = small(seeded(lambda: Then(nn.Conv2d(3, 4, 3))))
        layer = next(iter(network.layers))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for sample in (*order, *order):
                ready = network.prepared("cpu", "auto", layers=[layer], sample=sample)
                assert ready.precision == ("bf16" if sample is light else "fp32")
    assert len(asked) == 4  # each picture once a network


def test_auto_is_float32_where_bfloat16_is_slow(
    toy: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_fast_bf16", lambda device: False)
    assert toy.prepared("cpu", "auto", layers=["third"], sample=picture()).precision == "fp32"


def test_a_layer_without_a_gradient_is_told() -> None:
    class Choosing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.argmax(1, keepdim=True)

    network = small(Then(nn.Conv2d(3, 4, 3), Choosing()))
    assert network.activations(picture(), ["b"])["b"].dtype == torch.float32
    objective = Objective(("b",), lambda found: found["b"].mean((1, 2, 3)), "b")
    with pytest.raises(NetworkError, match="gives no gradient from b to the picture"):
        whole(network, objective)(picture())


# Identity -----------------------------------------------------------------------------------------


def test_the_fingerprint_is_that_of_the_weights() -> None:
    def build() -> nn.Module:
        return seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))

    module = build()
    assert small(module).fingerprint == small(build(), mean=(0.5,) * 3).fingerprint
    with torch.no_grad():
        module.get_parameter("0.bias")[0] += 1e-6
    assert small(module).fingerprint != small(build()).fingerprint
    buffer = build()
    norm = buffer.get_submodule("1")
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    norm.running_mean += 1
    assert small(buffer).fingerprint != small(build()).fingerprint


def test_it_says_what_it_is(toy: Network) -> None:
    found = repr(toy)
    assert found.startswith("Network('toy': colour pictures of ")
    assert found.endswith(" 5 layers, 1,972 weights, fp32 on cpu)")
    module = nn.Sequential(nn.Conv2d(1, 2, 3))
    grey = Network(module, mean=[0.5], std=[0.25], input_size=28, classes=("a", "b"))
    assert repr(grey) == (
        "Network('Sequential': grey pictures of 28 px as -2…2, 1 layers, 2 classes, 20 weights, "
        "fp32 on cpu)"
    )
