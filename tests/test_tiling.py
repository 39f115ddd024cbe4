from __future__ import annotations

import itertools
import logging
import math
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from phosphene import memory as planner
from phosphene import objectives as obj
from phosphene import tiling
from phosphene.dreamnet import DreamNet
from phosphene.errors import InputTooSmallError, NetworkError, SettingsError
from phosphene.evaluation import whole
from phosphene.evaluation.cost import bytes_per_pixel
from phosphene.network import Network
from phosphene.objectives import Objective
from phosphene.runtime.options import DEFAULT, Options
from phosphene.tiling import InexactError, blended, cut_of, fitted, tiled


def seeded(module: nn.Module, precision: str = "fp64", **settings) -> Network:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) / math.sqrt(parameter[0].numel()))
    network = Network(module, input_size=48, copy=False, **settings)
    return network.prepared("cpu", precision)


def stack(**layers: nn.Module) -> nn.Sequential:
    module = nn.Sequential()
    for name, layer in layers.items():
        module.add_module(name, layer)
    return module


def padded() -> nn.Module:
    """Strides 2, 4 and 8, the kernels that DreamNet has."""
    return stack(
        two=nn.Conv2d(3, 4, 6, 2, 2),
        relu=nn.ReLU(inplace=True),
        pool=nn.MaxPool2d(3, 2, 1),
        four=nn.Conv2d(4, 5, 5, 1, 2),
        relu4=nn.ReLU(),
        pool8=nn.MaxPool2d(3, 2, 1),
        eight=nn.Conv2d(5, 6, 3, 1, 1),
    )


def unpadded() -> nn.Module:
    """As Inception-v3 begins, and odd strides; maps are smaller than picture over stride."""
    return stack(
        two=nn.Conv2d(3, 4, 3, 2),
        relu=nn.ReLU(),
        conv=nn.Conv2d(4, 4, (1, 5)),
        six=nn.AvgPool2d(3, 3, ceil_mode=True),
        last=nn.Conv2d(4, 5, (3, 1), padding=(1, 0)),
    )


class SamePadded(nn.Module):
    """Pads by the length of its input, as TensorFlow does: more on the right, at times none."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, 2)
        self.second = nn.Conv2d(4, 5, 5, 2)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.first, self.second):
            sides = []
            for side, kernel in zip(x.shape[:1:-1], conv.kernel_size, strict=True):
                more = max((math.ceil(side / 2) - 1) * 2 + kernel - side, 0)
                sides += [more // 2, more - more // 2]
            x = conv(F.pad(x, sides)).relu()
        return x


def decoder() -> nn.Module:
    """Down by 4 and up again by 2, with a dilated kernel of holes."""
    return stack(
        down=nn.Conv2d(3, 4, 4, 4),
        dilated=nn.Conv2d(4, 4, 3, padding=4, dilation=4),
        up=nn.Upsample(scale_factor=2, mode="bilinear"),
        last=nn.Conv2d(4, 5, 3, padding=1),
    )


def narrow() -> nn.Module:
    """Something to see even in a single px."""
    return stack(
        two=nn.Conv2d(3, 4, 3, 2, 1),
        relu=nn.ReLU(),
        pool=nn.MaxPool2d(3, 2, 1),
        eight=nn.Conv2d(4, 5, 5, 2, 2),
    )


NETWORKS = {
    "narrow": (seeded(narrow()), "eight"),
    "padded": (seeded(padded()), "eight"),
    "unpadded": (seeded(unpadded()), "last"),
    "same": (seeded(SamePadded()), "second"),
    "decoder": (seeded(decoder()), "last"),
}
PADDED = NETWORKS["padded"][0]
MIXED = 0.3 * obj.layer("two", norm="mean") + 2 * obj.layer("four") + obj.channel("eight", 3)
OBJECTIVES = {
    "layer": obj.layer("eight"),
    "layers": MIXED,
    "direction": obj.direction("eight", [1, -1, 0.5, 2, 0, 1], cossim_pow=1),
    "tv": obj.layer("four") - 0.2 * obj.tv() + obj.l2(),
    "image": obj.tv(),
    "sum": obj.layer("eight", norm="sum"),
    "half": obj.layer("four", norm="half_sum_square") - obj.layer("eight"),
    "l2": obj.layer("eight", norm="l2"),
    "roots": obj.layer("eight", norm="l2") - 2 * obj.layer("two", norm="l2") + obj.layer("four"),
    "margin": obj.layer("four", margin=2) + 3 * obj.layer("eight", norm="sum", margin=1),
}


def picture(height: int, width: int, batch: int = 1, seed: int = 0, dtype=torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 3, height, width, generator=generator, dtype=dtype)


def assert_alike(one, other, tolerance: float = 1e-9) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert float((a - b).norm()) <= tolerance * float(b.norm())


def largest(network: Network, goal: Objective, tile: int, size: tuple[int, int]) -> int:
    return cut_of(network, goal).pixels(size, tile)[0]


# Tiles are the whole


@pytest.mark.parametrize("name", OBJECTIVES)
def test_score_and_gradient_are_those_of_the_whole_for_every_sum(name):
    goal = OBJECTIVES[name].bound(PADDED)
    image = picture(61, 83, batch=2)
    expected = whole(PADDED, goal)(image)
    assert float(expected[1].abs().max()) > 0
    for tile in (8, 24, 32):
        if name != "image":
            assert largest(PADDED, goal, tile, (61, 83)) < 61 * 83  # it is really cut
        assert_alike(tiled(PADDED, goal, tile)(image), expected)


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 75), width=st.integers(1, 75), tile=st.integers(1, 90))
def test_any_size_and_any_tile_are_the_whole(name, height, width, tile):
    network, layer = NETWORKS[name]
    goal = obj.layer(layer).bound(network)
    least = network.least_size([layer])
    image = picture(max(height, least), max(width, least), seed=height)
    assert_alike(tiled(network, goal, tile)(image), whole(network, goal)(image))


@pytest.mark.parametrize("size", [(1, 200), (200, 1), (1, 1), (5, 3), (7, 131), (97, 89)])
def test_pictures_one_px_wide_and_smaller_than_the_stride(size):
    network = NETWORKS["narrow"][0]
    goal = (obj.layer("eight") + obj.layer("two") - obj.tv()).bound(network)
    image = picture(*size)
    assert_alike(tiled(network, goal, 16)(image), whole(network, goal)(image))


def test_a_picture_too_small_for_the_network_is_told_as_when_whole():
    with pytest.raises(InputTooSmallError, match=r"at least 2 px a side for eight; .* is 9×1"):
        tiled(PADDED, obj.layer("eight").bound(PADDED), 16)(picture(1, 9))


def test_dreamnet_to_1e_4_in_float32_and_without_a_seam():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(DreamNet(), name="dreamnet", copy=False)
    goal = (obj.layer("mixed4c") + 0.5 * obj.layer("mixed3b")).bound(network)
    cut = cut_of(network, goal)
    # By hand: of 150 px that a position sees, what is not below it, up to whole periods of 8.
    assert [(axis.period, axis.before, axis.after) for axis in cut.axes] == [(8, 80, 72)] * 2
    image = picture(187, 251, dtype=torch.float32)
    expected = whole(network, goal)(image)
    got = tiled(network, goal, 64)(image)
    assert_alike(got, expected, 1e-4)
    assert seam(got[1], cut, (187, 251), 64) == pytest.approx(
        seam(expected[1], cut, (187, 251), 64), rel=1e-3
    )


def seam(gradient: Tensor, cut: tiling.Cut, size: tuple[int, int], tile: int) -> float:
    """The gradient's energy on both sides of the cores' borders, over that elsewhere."""
    at = torch.zeros(size, dtype=torch.bool)
    for ((top, _), _), ((left, _), _) in cut.tiles(size, tile):
        at[max(top - 1, 0) : top + 1] |= top > 0
        at[:, max(left - 1, 0) : left + 1] |= left > 0
    energy = gradient.square().mean((0, 1))
    return float(energy[at].mean() / energy[~at].mean())


def test_a_halo_that_is_too_narrow_shows_in_the_gradient_and_is_found_out():
    goal = obj.layer("eight").bound(PADDED)
    cut = cut_of(PADDED, goal)
    narrow = tiling.Cut(
        tuple(  # pyright: ignore[reportArgumentType]
            tiling.Axis(a.period, a.before - a.period, a.after, a.least, a.strides)
            for a in cut.axes
        )
    )
    image = picture(64, 64)
    _, expected = whole(PADDED, goal)(image)
    _, got = tiling._evaluator(PADDED, goal, narrow, 16, DEFAULT)(image)
    assert float((got - expected).norm() / expected.norm()) > 1e-3
    with pytest.raises(InexactError, match=r"differ from the whole by \d"):
        tiling._try_out(PADDED, goal, narrow, DEFAULT)


@given(side=st.integers(1, 300), tile=st.integers(1, 320), layer=st.sampled_from(["two", "eight"]))
@settings(deadline=None)
def test_every_px_has_one_core_and_every_position_one_owner(side, tile, layer):
    axis = cut_of(PADDED, (obj.layer("two") + obj.layer("eight")).bound(PADDED)).axes[0]
    cuts = axis.cuts(side, tile)
    cores = [core for core, _ in cuts]
    assert [px for core in cores for px in range(*core)] == list(range(side))
    count = math.ceil(side / int(axis.strides[layer]))
    owned = [p for core in cores for p in range(*axis.owned(layer, core, side, count))]
    assert owned == list(range(count))
    for (begin, end), (first, last) in cuts:
        assert 0 <= first <= begin < end <= last <= side
        assert first % axis.period == 0
        assert (side - last) % axis.period == 0


def test_strides_and_halos_by_hand():
    axis = cut_of(PADDED, obj.layer("four").bound(PADDED)).axes[0]
    # conv 6/2 pad 2 sees px 2q-2 … 2q+3; pool 3/2 pad 1 4p-4 … 4p+5; conv 5 4p-12 … 4p+13.
    assert (axis.period, axis.before, axis.after) == (4, 12, 12)
    assert axis.strides["four"] == 4
    axis = cut_of(PADDED, obj.tv().bound(PADDED)).axes[0]
    assert (axis.period, axis.before, axis.after) == (1, 0, 1)
    rows, columns = cut_of(
        NETWORKS["unpadded"][0], obj.layer("conv").bound(NETWORKS["unpadded"][0])
    ).axes
    # Three rows and 2·4 + 3 columns, all of them at the position and after it.
    assert (rows.before, rows.after) == (0, 2)
    assert (columns.before, columns.after) == (0, 10)


def test_a_tile_that_is_no_multiple_of_the_stride_is_rounded_and_that_is_said(caplog):
    caplog.set_level(logging.INFO, "phosphene")
    tiled(PADDED, obj.layer("eight").bound(PADDED), 20)
    assert "tile: 24 px instead of 20, a multiple of 8" in caplog.text
    with pytest.raises(SettingsError, match="tile: 0 px; a tile has at least 1 px"):
        tiled(PADDED, obj.layer("eight").bound(PADDED), 0)


# What is no sum over positions


class Excited(nn.Module):
    """Squeeze and excite: each position hangs on the mean of all."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.gate = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))


class BatchNormalised(nn.Module):
    """Statistics of what it gets, even in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(self.conv(x), None, None, training=True)


class Attention(nn.Module):
    def __init__(self, fixed: bool = False) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.places = nn.Parameter(torch.randn(1, 144, 8)) if fixed else None

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).mT
        if self.places is not None:
            tokens = tokens + self.places
        return self.attend(tokens, tokens, tokens)[0]


class Gated(nn.Module):
    """No NaN passes a comparison; numbers do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return torch.where(x > 0, x, torch.zeros_like(x)) * 1.0


@pytest.mark.parametrize(
    ("module", "layer", "why"),
    [
        (stack(conv=nn.Conv2d(3, 4, 3), norm=nn.GroupNorm(2, 4)), "norm", "sees the whole"),
        (stack(conv=nn.Conv2d(3, 4, 3), norm=nn.InstanceNorm2d(4)), "norm", "sees the whole"),
        (stack(all=Excited(), end=nn.Identity()), "end", "sees the whole"),
        (stack(all=BatchNormalised(), end=nn.Identity()), "end", "sees the whole"),
        (Attention(), "attend", "no map"),
        (Attention(fixed=True), "attend", "sizes only"),
        (stack(conv=nn.Conv2d(3, 4, 3), pool=nn.AdaptiveAvgPool2d(4)), "pool", "does not grow"),
    ],
)
def test_a_network_that_sees_everything_is_refused(module, layer, why):
    network = seeded(module, "fp32")
    with pytest.raises(InexactError, match=f"{why}.*tile=approximate"):
        tiled(network, obj.layer(layer).bound(network), 16)


@pytest.mark.parametrize(
    ("goal", "why"),
    [
        (obj.style("four", picture(32, 32)), "style.* is no sum"),
        (obj.layer("four") + obj.style("four", picture(32, 32)), "style.* is no sum"),
        (obj.content("four", picture(32, 32)), "content.* compares"),
    ],
)
def test_an_objective_that_is_no_sum_is_refused_by_its_name(goal, why):
    with pytest.raises(InexactError, match=why):
        tiled(PADDED, goal.bound(PADDED), 16)


def test_what_lets_no_nan_pass_is_still_seen():
    network = seeded(stack(gate=Gated(), end=nn.Conv2d(4, 4, 3, padding=1)))
    axis = cut_of(network, obj.layer("end").bound(network)).axes[0]
    # Three px, but nobody knows the period of such a network: it is taken to be larger.
    assert (axis.before, axis.after) == (axis.period, axis.period) == (32, 32)


def test_a_density_that_is_none_is_found_out_and_the_answer_is_kept(monkeypatch):
    def density(activations):
        a = activations["four"][:, 0]
        return {"four": a / a.shape[1]}  # hangs on the map's size

    goal = Objective(("four",), lambda a: density(a)["four"].mean((1, 2)), "odd", density=density)
    with pytest.raises(InexactError, match="differ from the whole"):
        tiled(PADDED, goal, 16)
    monkeypatch.setattr(tiling, "_try_out", lambda *_: pytest.fail("tried again"))
    with pytest.raises(InexactError, match="differ from the whole"):
        tiled(PADDED, goal, 16)


# Blended tiles


def test_one_blended_tile_is_the_whole():
    goal = obj.style("four", picture(32, 32, seed=5)).bound(PADDED)
    image = picture(41, 37, batch=2)
    assert_alike(blended(PADDED, goal, 64)(image), whole(PADDED, goal)(image))


def test_blended_tiles_of_a_sum_are_near_the_whole():
    goal = obj.layer("eight").bound(PADDED)
    image = picture(160, 131)
    score, slope = blended(PADDED, goal, 96)(image)
    expected = whole(PADDED, goal)(image)
    torch.testing.assert_close(score, expected[0], rtol=0.05, atol=0)
    assert float(F.cosine_similarity(slope.flatten(), expected[1].flatten(), dim=0)) > 0.9
    torch.testing.assert_close(slope.norm(), expected[1].norm(), rtol=0.1, atol=0)


@given(side=st.integers(1, 200), tile=st.integers(1, 220))
@settings(deadline=None)
def test_blended_tiles_are_of_one_size_cover_all_and_weigh_1(side, tile):
    spans = tiling.Blend(5).spans(side, tile)
    assert len({last - first for first, last in spans}) == 1
    total = torch.zeros(side, dtype=torch.float64)
    for ramp, (first, last) in zip(tiling._ramps(spans, total), spans, strict=True):
        assert bool((ramp > 0).all())
        total[first:last] += ramp
    torch.testing.assert_close(total, torch.ones_like(total))


def test_what_goes_by_places_cannot_be_blended():
    goal = (obj.layer("four") + obj.content("four", picture(32, 32))).bound(PADDED)
    with pytest.raises(SettingsError, match=r"content.*cannot be seen in tiles"):
        blended(PADDED, goal, 32)


# As memory allows


class Limited(nn.Module):
    """A network on a machine that has memory for so many px of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.pixels, self.error = padded(), 10**9, Exception()
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.shape[-2] * x.shape[-1])
        if self.seen[-1] > self.pixels:
            raise self.error
        return self.inner(x)


def limited(pixels: int, error: Exception) -> tuple[Network, Limited]:
    network = seeded(Limited())
    assert isinstance(network.module, Limited)
    network.module.pixels, network.module.error = pixels, error
    return network, network.module


LACKS = [
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 67108864 bytes"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
]


@pytest.mark.parametrize("error", LACKS, ids=["linux", "windows", "cuda", "python"])
def test_memory_that_runs_out_halves_the_tiles_and_loses_nothing(error, caplog):
    free = seeded(Limited())
    goal = obj.layer("inner.eight")
    image = picture(300, 341)
    expected = whole(free, goal.bound(free))(image)

    scarce, module = limited(200 * 200, error)
    bound = goal.bound(scarce)
    evaluate = fitted(scarce, bound, [(300, 341)])
    assert_alike(evaluate(image), expected)
    # A quarter of the picture and its halo are still too much.
    told = "memory ran out at 341×300 px: going on in tiles of {} px"
    assert [r.message for r in caplog.records] == [told.format(192), told.format(96)]
    caplog.clear()
    module.seen.clear()
    assert_alike(evaluate(image), expected)
    larger = picture(310, 350)
    assert_alike(evaluate(larger), whole(free, goal.bound(free))(larger))
    assert max(module.seen) <= 200 * 200  # it has been learnt
    assert not caplog.records


def test_memory_that_tiles_cannot_save_is_said():
    scarce, module = limited(200 * 200, MemoryError())
    image = picture(300, 341)
    goal = obj.layer("inner.eight").bound(scarce)
    gram = obj.style("inner.eight", picture(16, 16)).bound(scarce)
    with pytest.raises(SettingsError, match="ran out at 341×300 px, whole; tile=auto"):
        fitted(scarce, goal, [], tile="off")(image)
    with pytest.raises(SettingsError, match=r"ran out at .* is no sum.*tile=approximate"):
        fitted(scarce, gram, [])(image)
    blend = fitted(scarce, gram, [], tile="approximate")
    assert blend(image)[1].shape == image.shape
    fitted(scarce, goal, [])(image)
    module.pixels = 30 * 30
    with pytest.raises(SettingsError, match="ran out at 341×300 px, even in tiles of 32 px"):
        fitted(scarce, goal, [])(image)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    broken, _ = limited(200 * 200, RuntimeError("the sizes of tensors must match"))
    goal = obj.layer("inner.eight").bound(broken)
    with pytest.raises(NetworkError, match="must match"):
        fitted(broken, goal, [])(picture(300, 341))


def test_a_tile_in_px_is_taken_and_smaller_pictures_are_whole(monkeypatch):
    goal = obj.layer("eight").bound(PADDED)
    calls: list[tuple[int, ...]] = []

    def noted(image: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(tuple(image.shape[-2:]))
        return whole(PADDED, goal)(image)

    monkeypatch.setattr(tiling, "whole", lambda *_, **__: noted)
    evaluate = fitted(PADDED, goal, [(64, 64), (200, 90)], tile=64)
    for size in ((64, 64), (200, 90)):
        image = picture(*size)
        assert_alike(evaluate(image), whole(PADDED, goal)(image))
    assert calls == [(64, 64)]
    style = obj.style("four", picture(32, 32)).bound(PADDED)
    with pytest.raises(InexactError):
        fitted(PADDED, style, [(64, 64), (200, 90)], tile=64)


def test_little_memory_means_tiles_and_the_plan_is_logged(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "phosphene")
    monkeypatch.setattr(tiling.planner, "used_memory", lambda _: 0)
    goal = obj.layer("eight").bound(PADDED)
    size = (300, 411)
    need = tiling.bytes_per_pixel(PADDED, goal) * math.prod(size)
    little = f"{int(need / 1024)}K"  # what an allocator retains does not fit in, too

    def never(image: Tensor) -> Any:
        pytest.fail("whole")

    with monkeypatch.context() as patched:
        patched.setattr(tiling, "whole", lambda *_, **__: never)
        evaluate = fitted(PADDED, goal, [size], memory=little)
    image = picture(*size)
    assert_alike(evaluate(image), whole(PADDED, goal)(image))
    assert "411×300 px in tiles of" in caplog.text
    plenty = f"{int(need * 4 / 1024)}K"
    caplog.clear()
    fitted(PADDED, goal, [size], memory=plenty)(image)
    assert "411×300 px whole" in caplog.text
    with pytest.raises(SettingsError, match=r"memory: 411×300 px take \d+ MiB at least, 1 MiB"):
        fitted(PADDED, goal, [size], memory="100K")
    style = obj.style("four", picture(32, 32)).bound(PADDED)
    with pytest.raises(SettingsError, match=r"no sum over the positions.*tile=approximate"):
        fitted(PADDED, style, [size], memory=little)
    monkeypatch.setattr(tiling, "whole", lambda *_, **__: never)
    blend = fitted(PADDED, style, [size], memory=little, tile="approximate")
    assert blend(image)[1].shape == image.shape


def test_what_fits_easily_is_measured_and_nothing_of_it_is_saved(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "phosphene")
    goal = obj.layer("eight").bound(PADDED)
    saved: list[bool] = []

    real = Network.activations

    def noted(network: Network, *given: Any, options: Options = DEFAULT) -> Any:
        saved.append(options.memory_efficient)
        return real(network, *given, options=options)

    monkeypatch.setattr(tiling, "ENOUGH", 2**40)  # so that it is measured
    size = (96, 128)
    taken = math.ceil(bytes_per_pixel(PADDED, goal, options=DEFAULT) * math.prod(size))

    def run(limit: int, **more: Any) -> list[bool]:
        saved.clear()
        limited = planner.Budget(math.ceil(limit / (1 - planner.SPARE)), 0)
        monkeypatch.setattr(tiling.planner, "budget_of", lambda *_, **__: limited)
        evaluate = fitted(PADDED, goal, [size], **more)
        with monkeypatch.context() as patched:
            patched.setattr(Network, "activations", noted)
            evaluate(picture(*size))
        return sorted({*saved})

    assert run(2 * taken + 2) == [False]
    assert f"128×96 px whole: at most {planner.in_words(taken)} of" in caplog.text
    assert True in run(2 * taken - 2)
    assert True in run(2 * taken + 2, memory="4G")  # a limit is for saving
    monkeypatch.setattr(tiling.planner, "COMFORT", taken - 1)
    assert True in run(10 * taken)


@pytest.mark.parametrize(("tile", "settled"), [("off", 2), (96, 1)])
def test_what_has_run_is_settled_and_each_tile_has_the_heap(tile, settled, monkeypatch):
    """The weights are laid out the second time; that is the second tile already."""
    goal = obj.layer("eight").bound(PADDED)
    size = (200, 150)
    told: list[bool] = []
    entered: list[int] = []
    real_held, real_heap = planner.held_to, planner.maps_in_heap

    @contextmanager
    def heap():
        entered[-1] += 1
        with real_heap():
            yield

    def held(most, *, settled):
        told.append(settled)
        entered.append(0)
        return real_held(most, settled=settled)

    monkeypatch.setattr(tiling.planner, "held_to", held)
    monkeypatch.setattr(tiling.planner, "maps_in_heap", heap)
    evaluate = fitted(PADDED, goal, [size], tile=tile)
    for _ in range(4):
        evaluate(picture(*size))
    assert told == [number >= settled for number in range(4)]
    tiles = 1 if tile == "off" else len(cut_of(PADDED, goal).tiles(size, 96))
    assert entered == [tiles] * 4


def test_pictures_that_bands_go_over_are_planned_as_such(monkeypatch):
    goal = obj.layer("eight").bound(PADDED)
    asked: list[bool] = []

    def noted(*_: Any, banded: bool = False, **__: Any) -> float:
        asked.append(banded)
        return 1e3

    monkeypatch.setattr(tiling, "bytes_per_pixel", noted)
    monkeypatch.setattr(tiling, "ENOUGH", 2**40)
    monkeypatch.setattr(tiling.bands, "BAND_PIXELS", 300 * 411)
    for size, banded in ((300, 411), True), ((300, 410), False):
        asked.clear()
        fitted(PADDED, goal, [size], memory="4G")
        assert set(asked) == {banded, False}
    asked.clear()
    fitted(PADDED, goal, [(300, 411)], memory="900M", tile=96)
    assert set(asked) == {False}  # the tiles are smaller


def test_no_smaller_tile_takes_more_than_is_planned(monkeypatch):
    """Those at the border are smaller, and may be too small for bands."""
    goal = obj.layer("eight").bound(PADDED)
    size, enough = (300, 411), 200 * 411
    bytes_for = {True: 600.0, False: 1000.0}
    monkeypatch.setattr(tiling, "bytes_per_pixel", lambda *_, banded=False, **__: bytes_for[banded])
    monkeypatch.setattr(tiling.bands, "BAND_PIXELS", enough)
    asked: list[Any] = []
    real = planner.plan
    monkeypatch.setattr(
        tiling.planner,
        "plan",
        lambda size, need, *a, **k: asked.append(need) or real(size, need, *a, **k),
    )
    fitted(PADDED, goal, [size], memory="4G", batch=2)
    (need,) = asked
    taken = [need(pixels) * pixels for pixels in range(enough - 500, 2 * enough, 97)]
    assert taken == sorted(taken)
    assert need(enough - 1) == 2000
    assert need(2 * enough) == 1200


@pytest.mark.parametrize(
    ("given", "pixels"),
    [({"tile": "off"}, 300 * 411), ({"tile": 96}, None), ({"memory": "1G"}, 300 * 411), ({}, 0)],
)
def test_what_is_saved_is_held_to_what_was_planned(given, pixels, monkeypatch):
    """Bytes: what was there, the caller's pictures, the gradient's maps of the largest tile, and as
    much for what is kept between them, which of so few is as much again."""
    goal = obj.layer("eight").bound(PADDED)
    size = (300, 411)
    if pixels is None:
        pixels, _ = cut_of(PADDED, goal).pixels(size, 96)
    held: list[int | None] = []
    real = planner.held_to
    monkeypatch.setattr(
        tiling.planner, "held_to", lambda most, **k: held.append(most) or real(most, **k)
    )
    monkeypatch.setattr(tiling.planner, "used_memory", lambda _: 700_000_000)
    monkeypatch.setattr(tiling.planner, "available_memory", lambda *_: 2**34)
    if given:
        monkeypatch.setattr(tiling, "ENOUGH", 2**40)
        monkeypatch.setattr(tiling.planner, "COMFORT", 2**20)
    if "memory" not in given:
        given = {**given, "buffers": 2, "between": 3}  # there is room for all at once
    fitted(PADDED, goal, [size], **given)(picture(*size))
    reserved = given.get("between", 0) * 3 * 8 * math.prod(size)
    need = math.ceil(2 * bytes_per_pixel(PADDED, goal) * pixels)
    expected = 700_000_000 + reserved + need
    if "memory" in given:
        expected = int(2**30 * (1 - planner.SPARE))  # given to be used
        assert expected > 700_000_000 + need
    assert held == [expected if pixels else None]
    # The caller's pictures are so large that nothing may be left behind.
    if reserved:
        given_back: list[bool] = []
        monkeypatch.setattr(tiling.planner, "give_back", lambda: given_back.append(True))
        for retained in (reserved, reserved - 1):
            assert not given_back
            monkeypatch.setattr(tiling.planner, "RETAINED", retained)
            fitted(PADDED, goal, [size], **given)(picture(*size))
        assert given_back == ([True] if held[0] else [])


def test_maps_lie_where_pictures_do_at_other_times(monkeypatch):
    """What is needed between gradients only is no reason for smaller tiles, nor for more memory."""
    goal = obj.layer("eight").bound(PADDED)
    size = (300, 411)
    picture_bytes = 3 * 8 * math.prod(size)
    taken = planner.with_retained(bytes_per_pixel(PADDED, goal) * math.prod(size))
    monkeypatch.setattr(tiling.planner, "used_memory", lambda _: 0)
    monkeypatch.setattr(tiling.planner, "available_memory", lambda *_: 2**34)
    monkeypatch.setattr(tiling, "ENOUGH", 2**40)
    monkeypatch.setattr(tiling.planner, "COMFORT", 2**20)
    held: list[int] = []
    real = planner.held_to
    monkeypatch.setattr(
        tiling.planner, "held_to", lambda most, **k: held.append(most) or real(most, **k)
    )

    def run(free: int, **given: Any) -> None:
        machine = planner.Budget(math.ceil(free / (1 - planner.SPARE)), 0)

        def budget(*_: Any, **counts: int) -> planner.Budget:
            return replace(machine, **counts)

        monkeypatch.setattr(tiling.planner, "budget_of", budget)
        fitted(PADDED, goal, [size], tile="off", **given)(picture(*size))

    run(picture_bytes + taken, buffers=1, between=4)
    run(picture_bytes + taken + 1000, buffers=1, between=4)
    run(100 * taken, buffers=1, between=4)
    run(100 * taken, buffers=4, between=1)
    fits, more, *plenty = (most - picture_bytes - taken for most in held)
    assert fits in (0, 1)
    assert more - fits == 1000
    assert plenty == [3 * picture_bytes] * 2


def test_all_sizes_of_a_dream_pool_alike(monkeypatch):
    goal = obj.layer("eight").bound(PADDED)
    numba: list[bool] = []

    def noted(*given: Any, options: Options) -> Any:
        def evaluate(image: Tensor) -> tuple[Tensor, Tensor]:
            numba.append(options.numba_pooling)
            return whole(*given, options=options)(image)

        return evaluate

    monkeypatch.setattr(tiling, "whole", noted)

    small, large = (64, 64), (80, 90)
    monkeypatch.setattr(tiling.pooling, "NUMBA_PIXELS", 2 * math.prod(large))
    for sizes, batch, expected in (
        ([small, large], 2, True),
        ([small, large], 1, False),
        ([small], 2, False),
        ([], 1, False),
    ):
        numba.clear()
        fitted(PADDED, goal, sizes, batch=batch)(picture(*small))
        assert numba == [expected]


# Dreams


@pytest.mark.parametrize(("precision", "rel", "away"), [("fp64", 1e-6, 1e-6), ("fp32", 0.02, 0.02)])
def test_a_dream_in_tiles_is_the_dream(precision, rel, away):
    from phosphene import dream

    network = seeded(padded(), "fp32")
    photo = picture(96, 117, dtype=torch.float32) / 2 + 0.25
    given = {"octaves": 2, "steps": 3, "jitter": 9, "precision": precision, "device": "cpu"}
    runs = []
    for tile in ("off", 24):
        steps = list(dream.steps(photo, network, "eight + 0.5*four - 0.1*tv()", tile=tile, **given))
        runs.append((steps[-1].picture(), torch.stack([step.score for step in steps])))
    (one, scores), (other, other_scores) = runs
    assert len(scores) == 6
    torch.testing.assert_close(other_scores, scores, rtol=rel, atol=0)
    assert float((one - other).abs().max()) < away
    assert float((one - photo).abs().max()) > 0.01


def test_sizes_and_tiles_side_by_side_never_share_a_picture():
    """Evaluators keep nothing of one picture for the next."""
    goal = OBJECTIVES["roots"].bound(PADDED)
    evaluate = tiled(PADDED, goal, 24)
    images = [picture(50, 61), picture(61, 50), picture(50, 61, seed=2)]
    for one, other in itertools.pairwise([*images, *images]):
        assert_alike(evaluate(one), whole(PADDED, goal)(one))
        assert_alike(evaluate(other), whole(PADDED, goal)(other))
