"""(b) One step at several sizes, and how much of the machine's own speed it reaches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import report
from phosphene import load_network, parse
from phosphene.network import DTYPES, Network
from phosphene.recipes.dream import dream
from phosphene.runtime import graph
from phosphene.runtime.device import exact

# What is dreamt: network, weights, the settings of `dream`, the layer.
DREAMS = (
    ("dreamnet", None, "mixed5b", {}),
    ("googlenet", "random", "inception4c", {"preset": "google2015"}),
)
SIZES = (256, 512, 1024, 2048)
PRECISIONS = ("fp32", "bf16")
# Convolutions that fit the cache: channels in and out, px a side, and of the kernel.
CONVOLUTIONS = (
    (64, 96, 3),
    (128, 64, 3),
    (128, 112, 3),
    (256, 48, 3),
    (256, 80, 3),
    (512, 32, 3),
    (128, 64, 5),
    (256, 32, 5),
    (256, 48, 5),
    (256, 48, 7),
)
TARGETS = {"fp32": "0.5 (0.75)", "bf16": "0.45 (0.7)"}


def convolution_flops(network: Network, layers: Sequence[str], size: tuple[int, int]) -> int:
    """FLOPs of the convolutions of one gradient of a picture of `size` (H, W): forward and back.

    A multiply-add is two. Counted on the cut graph; of the gradients only those of the inputs.
    """
    traced = graph.trace(network.module)
    cut = copy.deepcopy(traced.cut([network.resolve(layer) for layer in layers])).to("meta")
    shape = (1, len(network.scale), *size)
    # In float32 whatever the network runs in: meta tensors have no values.
    picture = torch.empty(shape, device="meta", requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        found = list(cut.float()(picture).values())
        torch.autograd.backward(found, [torch.ones_like(map_) for map_ in found])
    counts = counter.get_flop_counts()["Global"]
    return sum(n for operation, n in counts.items() if "convolution" in str(operation))


def convolution_speed(
    precision: str, device: str = "cpu", shapes: Sequence[tuple[int, int, int]] = CONVOLUTIONS
) -> float:
    """FLOP/s of the best of a few convolutions, each the best of three: the machine's own."""
    dtype, batch = DTYPES[precision], 64 if device.startswith("cuda") else 1
    best = 0.0
    for channels, side, kernel in shapes:
        generator = torch.Generator().manual_seed(0)

        def made(*shape: int, generator: torch.Generator = generator) -> Tensor:
            values = torch.randn(shape, generator=generator).to(device, dtype)
            return values.contiguous(memory_format=torch.channels_last)

        x, weight = made(batch, channels, side, side), made(channels, channels, kernel, kernel)
        flops = 2 * x.numel() * channels * kernel**2
        # Of float32 as phosphene has it, which is no TF32.
        with torch.no_grad(), exact(x.device):
            F.conv2d(x, weight, padding="same")
            for _ in range(3):
                time = report.seconds(lambda x=x, w=weight: F.conv2d(x, w, padding="same"), device)
                best = max(best, flops / time)
    return best


def tables(
    repeats: int = 5,
    *,
    sizes: Sequence[int] = SIZES,
    dreams: Sequence[tuple] = DREAMS,
    shapes: Sequence[tuple[int, int, int]] = CONVOLUTIONS,
    device: str = "cpu",
) -> list[report.Table]:
    """A table a network: a step of the engine, everything in it, and its share of the roofline."""
    found = []
    for name, weights, layer, settings in dreams:
        network = load_network(name, weights=weights)
        rows = [
            row
            for side in sizes
            for row in _rows(network, layer, settings, side, repeats, shapes, device)
        ]
        header = (
            f"{name}, {layer}",
            "step",
            "convolutions",
            "machine",
            "share of the roofline",
            "wanted (aim)",
            "picture",
        )
        found.append(report.Table(f"One step: {name} to {layer}", header, tuple(rows)))
    return found


def _rows(
    network: Network,
    layer: str,
    settings: dict,
    side: int,
    repeats: int,
    shapes: Sequence[tuple[int, int, int]],
    device: str,
) -> list[tuple[str, ...]]:
    report.say(f"{network.name}, {side}²")
    photo = report.sky(side)
    goal = parse(layer)
    flops = convolution_flops(network, [layer], (side, side))
    runs: dict[str, Callable[[], object]] = {}
    tiles: dict[str, str] = {}
    for precision in PRECISIONS:
        chosen = {**settings, "octaves": 1, "steps": repeats + 2, "precision": precision}
        steps = dream.steps(photo, network, goal, device=device, **chosen)
        with report.plans() as told:
            next(steps)
        tiles[precision] = report.tile_in(told)
        next(steps)
        runs[precision] = lambda steps=steps: next(steps)
    times: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    speeds: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for _ in range(repeats):
        for precision, run in runs.items():
            speeds[precision].append(convolution_speed(precision, device, shapes))
            times[precision].append(report.seconds(run, device))
    rows = []
    for precision in PRECISIONS:
        shares = [
            flops / speed / time
            for speed, time in zip(speeds[precision], times[precision], strict=True)
        ]
        rows.append(
            (
                f"{side}², {precision}",
                report.spread([1000 * t for t in times[precision]], "ms"),
                f"{flops / 1e9:.3g} GFLOP",
                f"{report.median(speeds[precision]) / 1e9:.0f} GFLOP/s",
                f"{report.median(shares):.2f}",
                TARGETS[precision] if side == 1024 else "",
                tiles[precision],
            )
        )
        report.say(f"  {' | '.join(rows[-1])}")
    return rows
