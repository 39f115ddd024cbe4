"""What a step asks of an accelerator, counted on PyTorch's `meta` device, which computes nothing.

It stands in for one that computes beside the processor: each number that is read from it would
stall it, and each tensor that is copied to it would have to come from pinned memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from phosphene import gradients, transforms
from phosphene.engine import CHECK_EVERY, Ascent, ascend
from phosphene.network import Network
from phosphene.network import network as network_module
from phosphene.parameterization import Pixels
from phosphene.recipes.accentuate import accentuate
from phosphene.recipes.caricature import caricature
from phosphene.recipes.dream import dream
from phosphene.recipes.invert import invert
from phosphene.recipes.style import style
from phosphene.recipes.visualize import visualize
from phosphene.runtime import device as devices
from tests import toy_network

META = torch.device("meta")
STEPS = CHECK_EVERY + 3


class Accelerator(TorchDispatchMode):
    """Counts what is read and what is copied. What is asked is true, and numbers are 0.

    `numbers`: what they are instead, one after the other.
    """

    def __init__(self, *numbers: float) -> None:
        super().__init__()
        self.reads, self.operations = 0, 0
        self.uploads: list[tuple[int, ...]] = []
        self.numbers = [*numbers]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        first = args[0] if args and isinstance(args[0], Tensor) else None
        there = first is not None and first.device == META
        self.operations += there
        if first is not None and there and func is torch.ops.aten._local_scalar_dense.default:
            self.reads += 1
            if first.dtype == torch.bool:
                return True
            return self.numbers.pop(0) if self.numbers else 0
        if first is not None and func is torch.ops.aten._to_copy.default:
            to = kwargs.get("device") or first.device
            if there and to != META:
                self.reads += 1
                return torch.zeros(first.shape, dtype=kwargs.get("dtype") or first.dtype)
            if not there and to == META:
                self.uploads.append(tuple(first.shape))
        return func(*args, **kwargs)


@pytest.fixture
def meta(monkeypatch: pytest.MonkeyPatch) -> Iterator[Accelerator]:
    """Everything that is prepared goes there, unless it is asked for on the processor."""
    pick = network_module.pick_device
    monkeypatch.setattr(
        network_module, "pick_device", lambda name: pick("cpu") if name == "cpu" else META
    )
    # What has no numbers cannot be compared.
    monkeypatch.setattr("phosphene.network.extract.TOLERANCE", float("inf"))
    with Accelerator() as found:
        yield found


PHOTO = torch.rand(1, 3, 40, 36, generator=torch.Generator().manual_seed(0))
MASK = torch.ones(1, 1, 40, 36)
DRAWN: dict[str, Any] = {"size": 32, "steps": STEPS, "precision": "fp32"}
MADE: dict[str, Any] = {
    "dream": lambda net: dream.steps(
        PHOTO, net, "second", mask=MASK, octaves=1, steps=STEPS, smooth=0.5, laplacian=3,
        natural=0.5, stop_above=1e9, precision="fp32"
    ),
    "visualize": lambda net: visualize.steps(net, ["second:1", "logits:2"], **DRAWN),
    "pixels": lambda net: visualize.steps(
        net, "second:1", parameterization="pixels", transforms="robust, noise(0.1)", **DRAWN
    ),
    "maco": lambda net: visualize.steps(
        net, "second:1", parameterization="maco", transforms="crops(3)", **DRAWN
    ),
    "caricature": lambda net: caricature.steps(PHOTO, net, "second", **DRAWN),
    "invert": lambda net: invert.steps(PHOTO, net, "second", **DRAWN),
    "accentuate": lambda net: accentuate.steps(PHOTO, net, "second:3", **DRAWN),
    "style": lambda net: style.steps(PHOTO, PHOTO, net, **DRAWN),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_a_settled_step_waits_for_nothing(name: str, meta: Accelerator) -> None:
    """And copies nothing but what it drew by chance: small, or as large as the picture."""
    net = toy_network.net()
    stalls, uploads = [], []
    for step in MADE[name](net):
        assert step.image.device == META
        stalls.append(meta.reads)
        uploads.append([shape for shape in meta.uploads if shape != (2, 3)])  # of a turn
        meta.reads, meta.uploads = 0, []
    assert len(stalls) == STEPS
    looked_at = {*range(0, STEPS, CHECK_EVERY), STEPS - 1}
    assert [index for index, reads in enumerate(stalls) if reads and index not in looked_at] == []
    by_chance = name in ("pixels", "maco")
    assert all(len(shapes) <= by_chance for shapes in uploads[1:]), uploads[1]


def test_an_ascent_that_may_stop_looks_at_every_tenth_score_there() -> None:
    pixels = Pixels(torch.zeros(1, 3, 4, 4)).to(META)
    with Accelerator(0, 0, 9):
        steps = list(
            ascend(
                pixels,
                lambda image: (image.new_zeros(1), torch.zeros_like(image)),
                Ascent(pixels.parameters(), 0.1),
                steps=4 * CHECK_EVERY,
                generator=torch.Generator(),
                stop_above=5,
            )
        )
    assert (steps[-1].index, steps[-1].last) == (2 * CHECK_EVERY, True)


def test_numbers_that_are_drawn_come_from_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a copy from other memory PyTorch waits for the end."""
    told: list[Any] = []

    class Pinned:
        def to(self, *given: Any, **named: Any) -> Tensor:
            told.append((given, named))
            return torch.zeros(2)

    monkeypatch.setattr(Tensor, "pin_memory", lambda values: Pinned())
    devices.uploaded(torch.ones(2), torch.device("cpu"))
    assert not told
    devices.uploaded(torch.ones(2), torch.device("cuda:0"), torch.float64)
    assert told == [((torch.device("cuda:0"),), {"non_blocking": True})]


def test_a_blur_reads_no_numbers(meta: Accelerator) -> None:
    found = gradients.blur(torch.empty(1, 3, 16, 16, device=META), 2.0)
    assert found.shape == (1, 3, 16, 16)
    assert (meta.reads, meta.uploads) == (0, [])


def test_what_stays_alike_is_copied_once(meta: Accelerator) -> None:
    g = torch.empty(1, 3, 16, 16, device=META)
    for make in (lambda: gradients.natural(0.5), lambda: gradients.mask(torch.ones(1, 1, 16, 16))):
        transform = make()
        meta.uploads = []
        for _ in range(3):
            transform(g)
        assert len(meta.uploads) == 1
    rotate = transforms.rotate(10, "border")
    meta.uploads = []
    rotate(g, torch.Generator().manual_seed(0))
    assert meta.uploads == [(2, 3)]


class OnTheProcessor(TorchDispatchMode):
    """Notes the pictures that a convolution on the processor is shown, by their shape."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[tuple[int, ...]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if "conv" in str(func) and args[0].device.type == "cpu":
            self.shown.append(tuple(args[0].shape))
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("meta")
@pytest.mark.filterwarnings("ignore:bfloat16 strays")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "auto"])
def test_on_the_processor_only_small_probes_are_run(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For what layers there are, and twice to check the cut; whatever precisions are tried."""
    monkeypatch.setattr("phosphene.network.precision.has_fast_bf16", lambda device: True)
    monkeypatch.setattr("phosphene.network.extract.BF16_TOLERANCE", float("inf"))
    net, photo = toy_network.net(), torch.rand(1, 3, 100, 90)
    once = [(1, channels, net.input_size, net.input_size) for channels in (3, 6)]
    with OnTheProcessor() as seen:
        for _ in dream.steps(photo, net, "second", octaves=2, steps=2, precision=precision):
            pass
        assert seen.shown == 3 * once
        seen.shown.clear()
        for _ in dream.steps(photo, net, "second", octaves=2, steps=2, precision=precision):
            pass
        assert seen.shown == []


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(3, 2)
        self.second = nn.Conv2d(8, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.pool(self.relu(self.first(x))))


def test_a_limit_to_memory_costs_an_accelerator_few_operations(meta: Accelerator) -> None:
    """Pooling is not done some rows at a time there, which saves memory."""
    net = Network(Pooled(), input_size=32, name="pooled")
    photo = torch.rand(1, 3, 300, 450)
    counts = []
    for memory in (None, "8G"):
        how: dict[str, Any] = {"octaves": 1, "steps": 2, "memory": memory, "precision": "fp32"}
        first, second = dream.steps(photo, net, "second", **how), []
        for _ in first:
            second.append(meta.operations)
            meta.operations = 0
        counts.append(second[-1])
    plain, saving = counts
    assert plain < saving + 10 < plain + 20
