"""Going on from given activations, and gradients between layers, against plain hooks."""

from __future__ import annotations

import collections
import copy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene import objectives as obj
from phosphene import zoo
from phosphene.errors import NetworkError, UnknownLayerError
from phosphene.evaluation.cost import bytes_per_pixel
from phosphene.evaluation.tiles import tiled
from phosphene.evaluation.whole import whole
from phosphene.network import Network
from phosphene.network.extract import GraphExtractor, HookExtractor, ProgramExtractor
from phosphene.network.network import MOST_EXTRACTORS
from phosphene.objectives import IMAGE
from phosphene.runtime import lowering
from phosphene.runtime.graph import PICTURE, with_first
from phosphene.runtime.options import DEFAULT, MEMORY_EFFICIENT, PLAIN_MODULES, Options

TYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.float32}
TOLERANCES = {"fp64": 1e-6, "fp32": 1e-4}


# The oracle ---------------------------------------------------------------------------------------


def first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def calls_of(module: nn.Module, x: Tensor) -> dict[str, int]:
    """How often each layer is called."""
    counts: collections.Counter[str] = collections.Counter()
    with hooked(module, {n: lambda n, o: counts.update([n]) for n, _ in module.named_modules()}):
        module(x)
    return dict(counts)


@contextmanager
def hooked(module: nn.Module, hooks: Mapping[str, Callable[[str, Any], Any]]) -> Iterator[None]:
    def calling(name: str) -> Any:
        return lambda _module, _inputs, output: hooks[name](name, output)

    handles = [
        module.get_submodule(name).register_forward_hook(calling(name)) for name in hooks if name
    ]
    yield
    for handle in handles:
        handle.remove()


def plainly(
    module: nn.Module,
    x: Tensor,
    layers: Sequence[str],
    given: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """What the module itself gives under hooks, the given in place of its layers' last answers."""
    left, given, found = calls_of(module, x.detach()), given or {}, {}

    def note(name: str, output: Any) -> Any:
        left[name] -= 1
        if left[name]:
            return None
        answer = found[name] = given.get(name, first(output))
        # A copy goes on, into which a ReLU may write.
        return (answer.clone(), *output[1:]) if isinstance(output, tuple) else answer.clone()

    with hooked(module, dict.fromkeys((*layers, *given), note)):
        module(x)
    return found


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def picture(side: int = 16, *, count: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, side, side, generator=generator).to(dtype)


def near(got: Tensor, expected: Tensor, tolerance: float) -> None:
    assert got.shape == expected.shape
    error, norm = (float(x.detach().norm()) for x in (got - expected, expected))
    assert error <= tolerance * norm


def held_to_hooks(
    network: Network, module: nn.Module, layer: str, end: str, image: Tensor, tolerance: float
) -> None:
    """A layer that `end` comes of: the gradient between them, and going on from the layer."""
    x = network.preprocess(image).to(image.dtype)
    a, b = x.clone().requires_grad_(), image.clone().requires_grad_()
    expected, found = plainly(module, a, [layer, end]), network.activations(b, [layer, end])
    weights = noise(*expected[end].shape, dtype=image.dtype)
    for name in (layer, end):
        near(found[name], expected[name], tolerance)
    mine = torch.autograd.grad((found[end] * weights).sum(), [found[layer], b])
    plain = torch.autograd.grad((expected[end] * weights).sum(), [expected[layer], a])
    near(mine[0], plain[0], tolerance)
    near(mine[1] * torch.tensor(network.scale).to(image).view(1, -1, 1, 1), plain[1], tolerance)
    start = expected[layer].detach() + 0.1 * noise(*expected[layer].shape, seed=2).to(image)
    c, d = start.clone().requires_grad_(), start.clone().requires_grad_()
    expected = plainly(module, x, [end], {layer: c})[end]
    found = network.activations(image, [end], given={layer: d})[end]
    near(found, expected, tolerance)
    (mine,) = torch.autograd.grad((found * weights).sum(), d)
    (plain,) = torch.autograd.grad((expected * weights).sum(), c)
    near(mine, plain, tolerance)
    assert torch.equal(d, start)  # nothing has worked in place on what was given


# A network with everything in it ------------------------------------------------------------------


class Halves(nn.Module):
    """Gives a map, and its mean by the way."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * 0.5, x.mean((2, 3), keepdim=True)


class Everything(nn.Module):
    """Branches, a shared ReLU in place, a residual sum, pooling, a tuple, attention, a head."""

    def __init__(self, *, traceable: bool = True, attention: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.one = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(inplace=True))
        self.three = nn.Sequential(nn.Conv2d(8, 6, 3, 1, 1), nn.ReLU(inplace=True))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(8, 4, 1), nn.ReLU())
        self.block = Joined(self.one, self.three, self.pool)
        self.down = nn.MaxPool2d(2)
        self.conv = nn.Conv2d(14, 14, 3, 1, 1)
        self.halves = Halves()
        self.tokens = nn.Flatten(2)
        self.attention = nn.MultiheadAttention(14, 2, batch_first=True) if attention else None
        self.head = nn.Linear(14, 5)
        self.gain = nn.Parameter(torch.tensor(0.9))  # used at both ends
        self.traceable = traceable

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.stem(x * self.gain)))
        x = self.down(self.block(x))
        half, mean = self.halves(self.conv(x))
        x = self.relu(half + x) * (mean * self.gain)
        if not self.traceable and float(x.detach().sum()) == 12345.0:
            x = -x
        tokens = self.tokens(x).transpose(1, 2)
        if self.attention is not None:
            mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
            tokens = tokens + mixed
        return self.head(tokens.mean(1))


class Joined(nn.Module):
    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = branches  # a tuple, so that they keep the names that they have

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build().eval()
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.normal_(part.bias, 0, 0.2)
                nn.init.normal_(part.running_mean, 0, 0.2)  # pyright: ignore
        return module


def everything(precision: str = "fp32", **more: Any) -> Network:
    module = seeded(lambda: Everything(**more))
    network = Network(module, input_size=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), name="all")
    return network.prepared("cpu", precision)


PATHS = pytest.mark.parametrize(
    ("precision", "traceable", "kind"),
    [
        pytest.param(
            "fp32",
            True,
            ProgramExtractor,
            marks=pytest.mark.skipif(not lowering.available(), reason="PyTorch without oneDNN"),
        ),
        ("fp64", True, GraphExtractor),
        ("fp64", False, HookExtractor),
        ("fp32", False, HookExtractor),
    ],
    ids=["program", "graph", "hooks", "hooks32"],
)
BOTH = pytest.mark.parametrize("traceable", [True, False], ids=["traced", "hooks"])


@PATHS
@pytest.mark.parametrize("attention", [False, True])
def test_every_layer_on_every_path(
    precision: str, traceable: bool, kind: type, attention: bool
) -> None:
    network = everything(precision, traceable=traceable, attention=attention)
    module = copy.deepcopy(network.module)
    image = picture(dtype=TYPES[precision])
    end = network.logits_layer
    for layer in [layer for layer in network.layers if layer != end]:
        held_to_hooks(network, module, layer, end, image, TOLERANCES[precision])
    if not attention:
        assert {type(extractor) for extractor in network._extractors.values()} == {kind}
    # Of those that were built only the last are kept, each of which holds weights.
    assert len(network._extractors) == MOST_EXTRACTORS
    assert ((end,), (list(network.layers)[-2],), False) in network._extractors


REAL = {
    "dreamnet": ("conv1.conv", "mixed3a", "mixed4b.three.0.relu", "mixed4c", "mixed5a.pool.0"),
    "googlenet:random": ("conv1.bn", "inception3b.branch3.1.conv", "maxpool3", "inception4c"),
    "resnet18:random": ("relu", "layer1.0.relu", "layer2.0.downsample", "layer3.1.bn2", "layer4"),
    "resnet50:random": ("layer1.0.relu", "layer3"),
    "timm:vit_tiny_patch16_224:random": ("patch_embed", "blocks.3.attn.qkv", "blocks.7", "norm"),
}


def real(name: str, chosen: Callable[[list[str]], Sequence[str]]) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    network = zoo.load_network(name).prepared("cpu", "fp64")
    module = copy.deepcopy(network.module)
    image = picture(224 if "vit" in name else 64, count=1, dtype=torch.float64)
    end = network.logits_layer
    for layer in chosen([layer for layer in network.layers if layer != end]):
        held_to_hooks(network, module, layer, end, image, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_layers_of_published_architectures(name: str) -> None:
    real(name, lambda _: REAL[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in REAL if "50" not in name])
@pytest.mark.parametrize("share", range(5))
def test_every_layer_of_published_architectures(name: str, share: int) -> None:
    real(name, lambda layers: layers[share::5])


@pytest.mark.slow
@pytest.mark.skipif(not lowering.available(), reason="PyTorch without oneDNN")
@pytest.mark.parametrize("layer", ["mixed4b", "mixed4a.three.1", "mixed5a.pool.1.conv"])
@pytest.mark.parametrize(
    "options",
    [DEFAULT, MEMORY_EFFICIENT, PLAIN_MODULES, Options(memory_efficient=True, bands="always")],
    ids=["default", "memory_efficient", "plain_modules", "bands"],
)
def test_however_a_network_is_run(layer: str, options: Options) -> None:
    network = zoo.load_network().prepared("cpu", "fp32")
    exact = network.prepared("cpu", "fp64")
    gradients: list[Sequence[Tensor]] = []
    for one, how in ((network, options), (exact, DEFAULT)):
        image = picture(96, dtype=TYPES[one.precision]).requires_grad_()
        found = one.activations(image, [layer, "mixed4c", "logits"], options=how)
        total = (found["logits"] * noise(*found["logits"].shape).to(image)).sum()
        wanted = [found[layer], found["mixed4c"], image]
        gradients.append(torch.autograd.grad(total, wanted))
    for mine, expected in zip(*gradients, strict=True):
        near(mine.double(), expected, 1e-3)


# What is run, and what is not ---------------------------------------------------------------------


def targets(extractor: Any) -> set[str]:
    """The modules that an extractor of a graph or of programs runs."""
    graph = getattr(extractor, "graph", extractor)
    nodes = [node for part in graph.parts for node in part.graph.nodes]
    return {str(node.target) for node in nodes if node.op == "call_module"}


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_nothing_is_run_that_only_given_layers_need(precision: str) -> None:
    network = everything(precision, attention=False)
    given = {"block": noise(2, 14, 16, 16)}
    network.activations(None, ["conv"], given=given)
    extractor = network._extractor(("conv",), ("block",))
    assert list(extractor.inputs) == ["block"]
    assert targets(extractor) == {"down", "conv"}
    # A branch given: the others come of the picture.
    extractor = network._extractor(("down",), ("three",))
    assert list(extractor.inputs) == [PICTURE, "three"]
    assert "three.0" not in targets(extractor)
    assert "one.0" in targets(extractor)
    # All of what a layer comes of.
    extractor = network._extractor(("down",), ("one", "three", "pool"))
    assert list(extractor.inputs) == ["one", "three", "pool"]
    assert targets(extractor) == {"down"}


@pytest.mark.skipif(not lowering.available(), reason="PyTorch without oneDNN")
def test_a_program_of_several_inputs_pools_first_what_others_see_too() -> None:
    network = everything(attention=False)
    assert network._traced is not None
    program = lowering.lower(network._traced.cut(["down"], ["norm", "one"]))
    assert program.taken == 2
    kinds = [type(instruction.operation).__name__ for instruction in program.instructions]
    assert kinds == ["ReLU", "PooledConvolution", "Convolution", "Concatenation", "MaxPool"]
    assert [instruction.output for instruction in program.instructions] == [2, 3, 4, 5, 6]


def test_under_hooks_no_gradient_goes_into_what_is_replaced() -> None:
    network = everything("fp64", traceable=False)
    image = picture(dtype=torch.float64).requires_grad_()
    mine = noise(2, 14, 16, 16, dtype=torch.float64).requires_grad_()
    found = network.activations(image, ["head"], given={"block": mine})["head"]
    with_image, with_given = torch.autograd.grad(found.sum(), [image, mine], allow_unused=True)
    assert with_image is None
    assert float(with_given.abs().sum()) > 0


@BOTH
def test_a_layer_that_gives_what_one_inside_it_gave(traceable: bool) -> None:
    """What is given for the outer one is not seen by the inner one, nor by what is done inside."""

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.aside = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.conv(x)
            return x, self.aside(x)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.end = Inner(), nn.Conv2d(6, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            x, y = self.inner(x)
            if not traceable and float(x.detach().sum()) == 12345.0:
                x = -x
            return self.end(torch.cat([x, y], 1))

    module = seeded(Outer)
    network = Network(module, input_size=8)
    image, mine = picture(8), noise(2, 4, 8, 8)
    layers = ["inner.conv", "inner.aside", "end"]
    expected = plainly(module, image, layers, {"inner": mine})
    found = network.activations(image, layers, given={"inner": mine})
    for layer in layers:
        near(found[layer], expected[layer], 1e-5)
    # The other way round the outer one gives what is given for the inner one.
    expected = plainly(module, image, ["inner", "end"], {"inner.conv": mine})
    found = network.activations(image, ["inner", "end"], given={"inner.conv": mine})
    assert torch.equal(found["inner"], mine)
    near(found["end"], expected["end"], 1e-5)
    assert isinstance(network._extractor(("end",), ("inner",)), HookExtractor) is not traceable


@BOTH
def test_what_works_in_place_by_a_method_answers_as_the_module_does(traceable: bool) -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.side, self.end = (nn.Conv2d(3, 3, 1) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            y = x.add_(1)  # of which `side` sees too
            side = self.side(x)
            if not traceable and float(x.detach().sum()) == 12345.0:
                x = -x
            return self.end(y.sigmoid() + side)

    module = seeded(InPlace)
    network = Network(module, input_size=8)
    image, mine = picture(8), noise(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    before = mine.clone()
    expected = plainly(module, image, ["side", "end"], {"conv": mine})
    for _ in range(2):
        found = network.activations(None, ["side", "end"], given={"conv": mine})
        near(found["side"], expected["side"], 1e-5)
        near(found["end"], expected["end"], 1e-5)
        assert torch.equal(mine, before)
    held_to_hooks(network, module, "side", "end", image, 1e-5)


# What may be given --------------------------------------------------------------------------------


@BOTH
def test_without_an_image(traceable: bool) -> None:
    network = everything("fp64", traceable=traceable)
    image = picture(count=1, dtype=torch.float64)
    found = network.activations(image, ["block", "head"])
    block = found["block"]
    (alone,) = network.activations(None, ["head"], given={"block": block}).values()
    near(alone, found["head"], 1e-12)
    # Of another N than the image, which nothing comes of; and another size.
    many = torch.cat([block, 0 * block, block])
    (three,) = network.activations(image, ["head"], given={"block": many}).values()
    near(three[::2], found["head"].repeat(2, 1), 1e-12)
    assert not torch.allclose(three[1], three[0])
    larger = network.activations(None, ["conv"], given={"block": noise(2, 14, 40, 22)})
    assert larger["conv"].shape == (2, 14, 20, 11)
    assert larger["conv"].dtype == torch.float32  # as what was given
    # One branch of several is not enough.
    needs = r"^all needs an image for head \(three given is not enough\)$"
    with pytest.raises(NetworkError, match=needs):
        network.activations(None, ["head"], given={"three": noise(1, 6, 16, 16)})
    with pytest.raises(NetworkError, match=r"^all needs an image for head$"):
        network.activations(None, ["head"])
    with pytest.raises(NetworkError, match=r"^all needs an image for @image \(block given"):
        network.activations(None, [IMAGE, "head"], given={"block": block})
    (both,) = network.activations(image, ["down"], given={"three": block[:, 4:10]}).values()
    near(both, network.activations(image, ["down"])["down"], 1e-12)
    message = r"^image and given activations need one N; there are 1 in the image and 2 in three$"
    with pytest.raises(NetworkError, match=message):
        network.activations(image, ["down"], given={"three": noise(2, 6, 16, 16)})


def test_what_goes_by_the_pictures_size_needs_the_picture() -> None:
    class Enlarged(nn.Module):
        def __init__(self, *, traceable: bool) -> None:
            super().__init__()
            self.conv, self.end = nn.Conv2d(3, 3, 3, 2), nn.Conv2d(3, 3, 1)
            self.traceable = traceable

        def forward(self, x: Tensor) -> Tensor:
            size = x.shape[2:]
            x = self.conv(x)
            if not self.traceable and float(x.detach().sum()) == 12345.0:
                x = -x
            return self.end(F.interpolate(x, size=size))

    for traceable in (True, False):
        module = seeded(lambda t=traceable: Enlarged(traceable=t))
        network = Network(module, input_size=16)
        with pytest.raises(NetworkError, match="needs an image for end"):
            network.activations(None, ["end"], given={"conv": noise(1, 3, 7, 7)})
        found = network.activations(picture(20), ["end"], given={"conv": noise(2, 3, 7, 7)})
        assert found["end"].shape == (2, 3, 20, 20)


@BOTH
def test_a_layer_that_is_given_is_returned_as_it_was_given(traceable: bool) -> None:
    network = everything(traceable=traceable)
    network.aliases["start"] = "block"
    mine = noise(2, 14, 16, 16).requires_grad_()
    found = network.activations(None, ["start", "block", "head"], given={"start": mine})
    assert found["start"] is found["block"] is mine
    (grad,) = torch.autograd.grad(found["head"].sum(), found["block"])
    assert float(grad.abs().sum()) > 0
    assert network.activations(None, ["block"], given={"block": mine}) == {"block": mine}
    # What nothing else comes of is not in vain if it is asked for.
    found = network.activations(picture(), ["stem", "block"], given={"block": mine})
    assert found["block"] is mine
    image = picture().requires_grad_()
    found = network.activations(image, [IMAGE, "stem"])
    (grad,) = torch.autograd.grad(found["stem"].sum(), found[IMAGE])
    assert grad.shape == image.shape


@BOTH
def test_one_line_says_what_cannot_be_given(traceable: bool) -> None:
    network = everything(traceable=traceable)
    network.aliases["start"] = "block"
    image, fits = picture(), noise(2, 14, 16, 16)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"block": noise(2, 12, 16, 16)}, r"float32 \(2, 12, 16, 16\)$"),
        ({"block": noise(2, 14, 16)}, r"float32 \(2, 14, 16\)$"),
        ({"block": fits.long()}, r"int64 \(2, 14, 16, 16\)$"),
        ({"block": fits.numpy()}, r"is no tensor: ndarray$"),
    ]
    for given, end in wrong:
        start = r"^block gives floats \(N, 14, H, W\); what is given for it is "
        with pytest.raises(NetworkError, match=start + end.removeprefix("is ")):
            network.activations(image, ["head"], given=given)
    others: list[tuple[dict[str, Any], str]] = [
        ({"tokens": noise(2, 13, 64)}, r"^tokens gives floats \(N, T, 64\); .* \(2, 13, 64\)$"),
        ({"head": noise(2, 4)}, r"^head gives floats \(N, 5\); .* \(2, 4\)$"),
        ({"block": fits, "start": fits}, "^block is given twice, as start as well$"),
        ({IMAGE: image}, "^@image is no layer; an image goes in as `image`, not as given$"),
        ({"block": fits.to("meta")}, "^block is given on meta, the network is on cpu$"),
        ({"conv": noise(2, 14, 5, 3)}, r"^all failed on a picture of 16×16 and conv given as \(2,"),
    ]
    for given, message in others:
        if "tokens" not in given:
            with pytest.raises(NetworkError, match=message) as caught:
                network.activations(image, ["halves", "down", "head"], given=given)
            assert "\n" not in str(caught.value)
    with pytest.raises(UnknownLayerError, match="the closest are block"):
        network.activations(image, ["head"], given={"blok": fits})


@BOTH
def test_what_is_given_in_vain_is_named(traceable: bool) -> None:
    network = everything(traceable=traceable)
    for given, unused in (
        ({"conv": noise(2, 14, 8, 8)}, "conv"),  # comes after what is asked for
        ({"block": noise(2, 14, 16, 16), "three": noise(2, 6, 16, 16)}, "three"),  # before another
        ({"relu": noise(2, 14, 8, 8), "head": noise(2, 5)}, "relu, head"),
    ):
        message = rf"^what is given for {unused} is in vain: nothing .* \(down\) comes of it$"
        with pytest.raises(NetworkError, match=message):
            network.activations(picture(), ["down"], given=given)


# Types and gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "fp32", "fp64"])
@BOTH
def test_gradients_have_the_type_of_what_they_are_taken_of(precision: str, traceable: bool) -> None:
    network = everything(precision, traceable=traceable, attention=False)
    exact = everything("fp64", attention=False)
    image = picture()
    block = network.activations(image, ["block"])["block"]
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        mine = block.to(dtype).requires_grad_()
        found = network.activations(image, ["down", "conv", "head"], given={"block": mine})
        assert {value.dtype for value in found.values()} == {torch.float32}  # as the image
        wanted = [mine, found["down"], found["conv"]]
        grads = torch.autograd.grad(found["head"][:, 2].sum(), wanted)
        assert [grad.dtype for grad in grads] == [dtype, torch.float32, torch.float32]
        other = mine.detach().double().requires_grad_()
        seen = exact.activations(None, ["down", "conv", "head"], given={"block": other})
        assert seen["head"].dtype == torch.float64
        wanted = [other, seen["down"], seen["conv"]]
        for got, expected in zip(
            grads, torch.autograd.grad(seen["head"][:, 2].sum(), wanted), strict=True
        ):
            assert float(F.cosine_similarity(got.double().flatten(), expected.flatten(), 0)) > 0.995


@BOTH
def test_without_gradients_nothing_is_linked(traceable: bool) -> None:
    network = everything(traceable=traceable)
    given = {"block": noise(2, 14, 16, 16).requires_grad_()}
    with torch.no_grad():
        found = network.activations(None, ["down", "head"], given=given)
    assert not any(value.requires_grad for value in found.values())
    network.activations(picture(), ["down", "head"])
    assert not any(linked for _, _, linked in network._extractors)


@PATHS
def test_a_gradient_can_be_taken_again(precision: str, traceable: bool, kind: type) -> None:
    network = everything(precision, traceable=traceable, attention=False)
    image = picture(dtype=TYPES[precision]).requires_grad_()
    found = network.activations(image, ["block", "conv", "head"])
    score = found["head"].sum()
    wanted = [found["block"], found["conv"], image]
    once = torch.autograd.grad(score, wanted, retain_graph=True)
    for mine, before in zip(torch.autograd.grad(score, wanted), once, strict=True):
        assert torch.equal(mine, before)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(score, wanted)
    assert isinstance(network._extractor(("block", "conv", "head"), linked=True), kind)
    # From layer to layer: as in one go.
    found = network.activations(image, ["block", "down", "head"])
    (to_down,) = torch.autograd.grad(found["head"].sum(), found["down"])
    (to_block,) = torch.autograd.grad(found["down"], found["block"], to_down, retain_graph=True)
    near(to_block, once[0], 1e-6)
    near(torch.autograd.grad(found["down"], image, to_down)[0], once[2], 1e-6)


@pytest.mark.skipif(not lowering.available(), reason="PyTorch without oneDNN")
def test_a_memory_efficient_gradient_is_taken_once_or_there_is_an_error() -> None:
    network = everything(attention=False)
    image = picture().requires_grad_()
    found = network.activations(image, ["block", "head"], options=MEMORY_EFFICIENT)
    torch.autograd.grad(found["head"].sum(), found["block"], retain_graph=True)
    with pytest.raises(RuntimeError, match="as often as backward_passes"):
        torch.autograd.grad(found["head"].sum(), image)


def test_a_gradient_stops_at_a_zero_only_where_the_network_does() -> None:
    """Of a concatenation of ReLUs: where one gives 0, the scores still depend on it."""

    class Joining(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.end = (nn.Conv2d(n, 1, 1) for n in (1, 1, 2))
            self.relu_a, self.relu_b, self.pool = nn.ReLU(), nn.ReLU(), nn.MaxPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            joined = torch.cat([self.relu_a(self.a(x)), self.relu_b(self.b(x))], 1)
            return self.pool(self.end(joined))

    module = Joining()
    for conv, weight, bias in ((module.a, 1, -9), (module.b, 1, 1), (module.end, 3, 0)):
        nn.init.constant_(conv.weight, weight)
        nn.init.constant_(conv.bias, bias)  # pyright: ignore
    network = Network(module, mean=(0.0,), std=(1.0,), input_size=4).prepared("cpu", "fp32")
    image = torch.rand(1, 1, 4, 4).requires_grad_()
    found = network.activations(image, ["relu_a", "relu_b", "end"])
    assert float(found["relu_a"].detach().max()) == 0
    wanted = [found["relu_a"], found["relu_b"], image]
    to_a, to_b, to_image = torch.autograd.grad(found["end"].sum(), wanted)
    assert torch.equal(to_a, torch.full((1, 1, 4, 4), 3.0))
    assert torch.equal(to_b, torch.full((1, 1, 4, 4), 3.0))
    assert torch.equal(to_image, torch.full((1, 1, 4, 4), 3.0))  # by way of b alone


# Who asks for the picture's gradient alone --------------------------------------------------------


def test_an_evaluation_asks_for_no_gradient_between_layers() -> None:
    network = zoo.load_network().prepared("cpu", "fp32")
    network._extractors.clear()
    objective = obj.parse("2*mixed4b + mixed4d").bound(network)
    image = picture(96, count=1)
    _, gradient = whole(network, objective)(image)
    bytes_per_pixel(network, objective)
    tiled(network, objective, 64)(image)
    assert not any(linked for _, _, linked in network._extractors)
    leaf = image.clone().requires_grad_()
    (linked,) = torch.autograd.grad(
        objective.score(network.activations(leaf, objective.layers)).sum(), leaf
    )
    assert any(linked for _, _, linked in network._extractors)
    near(linked, gradient, 1e-5)


def test_threads_that_ask_at_once_get_what_each_would_get_alone() -> None:
    network = everything(attention=False)
    image, given = picture(), {"block": noise(2, 14, 16, 16)}
    alone = everything(attention=False)
    expected = alone.activations(image, ["conv", "head"], given=given)
    found: list[Any] = []
    start = threading.Barrier(4)

    def ask(k: int) -> None:
        start.wait()
        more = {"block": given["block"].clone().requires_grad_(k % 2 == 0)}
        found.append(network.activations(image, ["conv", "head"], given=more))

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for one in found:
        for layer, answer in expected.items():
            near(one[layer].detach(), answer, 1e-6)
    assert len(network._extractors) == 2


# Outputs with another tensor ----------------------------------------------------------------------


class Pair(collections.namedtuple("Pair", ["name", "value"])):
    pass


@dataclass(frozen=True)
class Answer:
    name: str
    value: Tensor


def test_the_first_tensor_of_an_output_is_replaced_and_nothing_else() -> None:
    old, new, other = torch.zeros(2), torch.ones(2), torch.full((1,), 3.0)
    assert with_first(old, new) is new
    for output in ((old, other), [old, other], ("a", (None, old), other), {"x": 1, "y": [old]}):
        copied = copy.copy(output)
        changed: Any = with_first(output, new)
        assert type(changed) is type(output)
        assert repr(changed) == repr(output).replace("tensor([0., 0.])", "tensor([1., 1.])")
        assert repr(output) == repr(copied)
    pair = with_first(Pair("a", old), new)
    assert isinstance(pair, Pair)
    assert pair.value is new
    answer = with_first(Answer("a", old), new)
    assert answer.name == "a"
    assert answer.value is new
    top = with_first(torch.max(torch.rand(2, 3), 1), new)  # a type of PyTorch's own
    assert top.values is new
    with pytest.raises(TypeError, match="no tensor in dict"):
        with_first({"a": 1}, new)
