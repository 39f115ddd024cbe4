"""Bands against the program as it is, and what they take."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from phosphene import Network, load_network
from phosphene import objectives as obj
from phosphene.evaluation.cost import bytes_per_pixel, peak_bytes
from phosphene.network import extract
from phosphene.runtime import bands, graph, lowering, pooling
from phosphene.runtime.bands import Banded, banded
from phosphene.runtime.lowering import lower
from phosphene.runtime.options import DEFAULT, MEMORY_EFFICIENT, Options
from phosphene.runtime.program import Program

IN_BANDS = Options(memory_efficient=True, bands="always")

pytestmark = [
    pytest.mark.skipif(not lowering.available(), reason="PyTorch without oneDNN"),
    pytest.mark.cpu_only("programs"),
]


def program_of(module: nn.Module, *layers: str) -> Program | Banded:
    module = module.eval().requires_grad_(False)
    return banded(lower(graph.trace(module).cut(layers)))


def bands_of(module: nn.Module, *layers: str) -> Banded:
    program = program_of(module, *layers)
    assert isinstance(program, Banded)
    return program


def noise(*shape: int, seed: int = 0) -> Tensor:
    image = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return image.contiguous(memory_format=torch.channels_last)


def compared(
    program: Banded,
    image: Tensor,
    tolerance: float = 2e-6,
    *,
    exact: bool = False,
    numba: bool = False,
) -> None:
    """Answers without and with a gradient, and that, in bands and whole."""
    found: list[tuple[dict[str, Tensor], Tensor]] = []
    for options in (MEMORY_EFFICIENT, IN_BANDS):
        options = options.with_numba(numba)
        x = image.clone(memory_format=torch.channels_last).requires_grad_()
        answers = program(x, options=options)
        weighted = [answer * noise(*answer.shape, seed=1) for answer in answers.values()]
        (grad,) = torch.autograd.grad(torch.stack([part.sum() for part in weighted]).sum(), x)
        with torch.no_grad():
            again = program(image, options=options)
        for layer, answer in answers.items():
            assert torch.equal(again[layer], answer)
        found.append((answers, grad))
    (whole, grad), (pieced, mine) = found
    for layer, answer in whole.items():
        close = 0.0 if exact else 1e-5
        torch.testing.assert_close(pieced[layer], answer, rtol=close, atol=close)
    assert float((mine - grad).norm()) <= tolerance * float(grad.norm())


class Forked(nn.Module):
    """What meets again before it becomes smaller, pooled by the way as well."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 5, stride=2, padding=1)
        self.one = nn.Conv2d(8, 6, 3, padding=1)
        self.other = nn.Conv2d(8, 5, 1)
        self.pool = nn.MaxPool2d(3, 1, padding=1)
        self.mean = nn.AvgPool2d(3, 1, padding=1)
        self.small = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.last = nn.Conv2d(19, 7, 3, padding=1)
        self.after = nn.Conv2d(19, 7, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        parts = [self.one(x).relu(), self.other(self.pool(x)).relu(), self.mean(x)]
        x = self.small(torch.cat(parts, 1))
        return self.last(x).relu() + self.after(x)


@settings(max_examples=40, deadline=None)
@given(st.integers(9, 90), st.integers(9, 90), st.integers(1, 2))
def test_bands_are_the_whole_at_any_size(height: int, width: int, count: int) -> None:
    torch.manual_seed(0)
    program = bands_of(Forked(), "last", "after")
    assert program.stride == 4
    compared(program, noise(count, 3, height, width))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(20, 70),
    st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(0, 2)),
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(0, 1), st.booleans()),
    st.integers(1, 2),
)
def test_bands_are_the_whole_whatever_the_windows(side, convolution, pool, dilation) -> None:
    kernel, stride, padding = convolution
    extent, step, edge, up = pool
    if stride * step == 1 or 2 * edge > extent:
        return
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, kernel, stride, padding, dilation),
        nn.ReLU(),
        nn.MaxPool2d(extent, step, edge, ceil_mode=up),
        nn.Conv2d(4, 4, 1),
    )
    compared(bands_of(module, "3"), noise(1, 3, side, side // 2 + 8))
    compared(bands_of(module, "3"), noise(1, 3, side // 2 + 8, side))


@pytest.mark.parametrize(
    "wide",
    [
        nn.AvgPool2d(5, 1, padding=2),
        nn.Sequential(nn.MaxPool2d(5, 1, padding=2), nn.Conv2d(3, 3, 1)),
        nn.Sequential(nn.Conv2d(3, 3, 5, padding=2), nn.Dropout()),
    ],
)
def test_each_operation_sees_as_far_as_it_does(wide: nn.Module) -> None:
    module = nn.Sequential(nn.Conv2d(3, 3, 1), wide, nn.MaxPool2d(2), nn.Conv2d(3, 3, 1))
    program = bands_of(module, "3")
    assert [band.visible for band in program.cut(64, 1)] == [(0, 20), (14, 34), (30, 50), (44, 64)]
    compared(program, noise(1, 3, 64, 20))


@pytest.mark.parametrize(
    ("name", "layer", "steps", "stride"),
    [
        ("googlenet", "inception4a", 6, 8),  # its own preprocessing, then to the third pooling
        ("vgg16", "features.18", 10, 8),
        ("inception_v3", "Mixed_5b", 8, 8),
        ("resnet18", "layer2", 2, 4),
    ],
)
def test_the_fronts_of_networks(name: str, layer: str, steps: int, stride: int) -> None:
    more: dict[str, Any] = {"aux_logits": True, "init_weights": False, "transform_input": True}
    if name in ("vgg16", "resnet18"):
        more = {}
    torch.manual_seed(0)
    program = bands_of(torchvision.models.get_model(name, weights=None, **more), layer)
    assert (len(program.front.instructions), program.stride) == (steps, stride)
    compared(program, noise(1, 3, 203, 96), exact=True)


def test_the_network_that_comes_with_us_in_both_precisions() -> None:
    for precision, tolerance in (("fp32", 2e-6), ("bf16", 2e-2)):
        network = load_network().prepared("cpu", precision)
        program = extract._program_of(network._traced.cut(("mixed5b",)), network._blank((8, 8)))  # pyright: ignore
        assert isinstance(program, Banded)
        assert program.stride == 8
        image = noise(1, 3, 300, 141).to(torch.bfloat16 if precision == "bf16" else torch.float32)
        for numba in (False, True):
            if precision == "fp32" or numba:
                compared(program, image, tolerance, exact=True, numba=numba)


def test_a_band_has_what_it_sees_and_all_are_as_long() -> None:
    """A convolution 3×3 and a pooling 2×2: a position sees 4 px, of which one is around it."""
    conv = nn.Conv2d(3, 4, 3, padding=1)
    program = bands_of(nn.Sequential(conv, nn.MaxPool2d(2), nn.Conv2d(4, 4, 1)), "2")
    assert program.cut(64, 0) == [
        ((0, 8), (0, 20)),
        ((8, 16), (14, 34)),
        ((16, 24), (30, 50)),
        ((24, 32), (44, 64)),
    ]
    # Of 65 px no pooling sees the last, but the convolution does.
    assert [band.visible for band in program.cut(65, 1)] == [(0, 19), (14, 33), (30, 49), (46, 65)]
    assert program.cut(3, 0) == [((0, 1), (0, 3))]


@pytest.mark.parametrize(
    ("module", "layer"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)), "1"),  # nothing becomes smaller
        (nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 4, 1)), "0"),  # it ends where a front would
        (nn.Sequential(nn.Conv2d(3, 4, 70, 2), nn.Conv2d(4, 4, 1)), "1"),  # sees 70 px
        (nn.Sequential(nn.Conv2d(3, 4, 1, (2, 1)), nn.Conv2d(4, 4, 1)), "1"),
        (nn.Sequential(nn.Softmax(3), nn.MaxPool2d(2), nn.Conv2d(3, 4, 1)), "2"),  # sees a row
    ],
)
def test_without_a_front_a_program_stays_what_it_is(module: nn.Module, layer: str) -> None:
    assert isinstance(program_of(module, layer), Program)


def test_what_sees_past_a_front_is_no_part_of_it() -> None:
    class Skipping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.MaxPool2d(2)
            self.conv = nn.Conv2d(3, 3, 3, 2, padding=1)
            self.end = nn.Conv2d(6, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.end(torch.cat([self.pool(x), self.conv(x)], 1))

    assert isinstance(program_of(Skipping(), "end"), Program)


def test_only_large_pictures_of_which_less_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    program = bands_of(nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 2, 1)), "1")
    ran: list[str] = []
    for name, part in (("front", program.front), ("whole", program.whole)):
        real = part.forward
        object.__setattr__(part, "forward", lambda *a, n=name, r=real: ran.append(n) or r(*a))
    monkeypatch.setattr(bands, "BAND_PIXELS", 30 * 20)
    for rows, options, expected in (
        (30, DEFAULT, ["whole"]),
        (30, MEMORY_EFFICIENT, ["front"] * 4),
        (29, MEMORY_EFFICIENT, ["whole"]),
        (20, Options(bands="always"), ["whole"]),
    ):
        ran.clear()
        with torch.no_grad():
            program(noise(1, 3, rows, 20), options=options)
        assert ran == expected
    with torch.no_grad():
        ran.clear()
        program(noise(1, 3, 8, 8), options=IN_BANDS)
        assert ran == ["front"] * 4


def test_the_longer_side_is_cut_and_bands_are_as_quick_as_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = bands_of(nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 2, 1)), "1")
    crops: list[tuple[tuple[int, ...], bool]] = []
    gone: list[bool] = []
    front, rest = program.front.forward, program.rest.advance

    def noted(taken: Sequence[Tensor], wanted: Any, options: Options, saved: Any) -> Any:
        crops.append((tuple(taken[0].shape[2:]), options.numba_pooling))
        return front(taken, wanted, options, saved)

    def advanced(known: dict[int, Tensor], *more: Any) -> Any:
        result = weakref.ref(known[0])
        found = rest(known, *more)
        gone.append(result() is None)
        return found

    object.__setattr__(program.front, "forward", noted)
    object.__setattr__(program.rest, "advance", advanced)
    for shape, enough, expected in (
        ((24, 32), 24 * 32, ((24, 8), True)),
        ((32, 24), 24 * 32 + 1, ((8, 24), False)),
    ):
        monkeypatch.setattr(pooling, "NUMBA_PIXELS", enough)
        with torch.no_grad():
            program(noise(1, 3, *shape), options=IN_BANDS)
        assert crops == [expected] * 4
        crops.clear()
    assert gone == [True] * 2  # nobody holds on to what the bands made while the rest goes on


def test_one_bands_maps_are_there_at_a_time() -> None:
    """A wide map at full size, of which the gradient keeps a byte a value."""
    module = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4))
    module.append(nn.Conv2d(64, 4, 1))
    network = Network(module, input_size=64)
    goal = obj.layer("3").bound(network)
    whole, pieced = (bytes_per_pixel(network, goal, banded=banded) for banded in (False, True))
    assert pieced < 0.5 * whole
    image = torch.rand(1, 3, 512, 128).requires_grad_()

    def run(options: Options) -> None:
        score = goal.score(network.activations(image, goal.layers, options=options))
        torch.autograd.grad(score.sum(), image)

    plain = peak_bytes(lambda: run(MEMORY_EFFICIENT))
    assert peak_bytes(lambda: run(IN_BANDS)) < 0.5 * plain


def test_what_a_large_picture_takes_is_measured_on_a_small_one() -> None:
    network = load_network().prepared("cpu", "fp32")
    goal = obj.layer("mixed4a").bound(network)
    image = torch.rand(1, 3, 1024, 1024).requires_grad_()
    options = Options(memory_efficient=True, numba_pooling=True)

    def run() -> None:
        score = goal.score(network.activations(image, goal.layers, options=options))
        torch.autograd.grad(score.sum(), image)

    measured = bytes_per_pixel(network, goal, options=options, banded=True)
    run()  # what is built once
    taken = peak_bytes(run) / image[0, 0].numel()
    assert 0.99 * taken <= measured <= 1.1 * taken
