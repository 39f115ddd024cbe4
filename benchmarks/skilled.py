"""Against what a skilled user writes in an afternoon: frozen, cut, folded, channels_last, bfloat16.

On CUDA also with weights of bfloat16 and each size captured in a graph.

Google's loop (octaves, jitter, normalised gradient) in PyTorch on one network each, as a good
engineer would write it today, without a line of phosphene's.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.optimization import fuse
from torchvision.models.feature_extraction import create_feature_extractor

from benchmarks import report
from phosphene import draw_sky, load_network, parse
from phosphene.evaluation.whole import whole
from phosphene.network import Network
from phosphene.recipes.dream import dream

SIZE, OCTAVES, STEPS, SCALE, JITTER, STEP = (575, 1024), 4, 10, 1.4, 32, 1.5 / 255
# Network, weights, layer.
DREAMS = (("dreamnet", None, "mixed5a"), ("googlenet", "random", "inception4c"))
WAYS = ("fp32", "autocast", "compiled")
CUDA_WAYS = (*WAYS, "captured")  # channels_last, bfloat16, a graph for each size


def read_dream(text: str) -> tuple[str, str | None, str]:
    """Network, weights and layer of NETWORK=LAYER."""
    network, _, layer = text.rpartition("=")
    return network, None, layer


def ways_of(device: str) -> tuple[str, ...]:
    return CUDA_WAYS if device.startswith("cuda") else WAYS


def gradient_of(
    network: Network, layer: str, way: str, device: str = "cpu"
) -> Callable[[Tensor], Tensor]:
    """The gradient of half the sum of a layer's squares at an image `(1, 3, H, W)` in [0, 1]."""
    module = copy.deepcopy(network.module).float().eval().requires_grad_(False)
    cut = create_feature_extractor(fuse(module), [network.resolve(layer)])
    # Once and for all, where autocast rounds each weight at each step.
    dtype = torch.bfloat16 if way == "captured" else torch.float32
    cut = cut.to(device=device, dtype=dtype).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    scale, shift = (
        torch.tensor(v, device=device).reshape(1, 3, 1, 1) for v in (network.scale, network.shift)
    )

    def score(x: Tensor) -> Tensor:
        (found,) = cut(((x - shift) / scale).to(dtype)).values()
        return found.float().square().sum() / 2

    run = torch.compile(score) if way == "compiled" else score
    kind = torch.device(device).type

    def gradient(image: Tensor) -> Tensor:
        x = image.detach().contiguous(memory_format=torch.channels_last).requires_grad_(True)
        half = way in ("autocast", "compiled")
        with torch.autocast(kind, torch.bfloat16) if half else nullcontext():
            value = run(x)
        (found,) = torch.autograd.grad(value, x)
        return found

    return captured(gradient) if way == "captured" else gradient


def captured(gradient: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same, in a CUDA graph for each size, as PyTorch's notes on CUDA graphs have it."""
    graphs: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    def capture(image: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        given, side = image.clone(), torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), torch.enable_grad():
            for _ in range(3):
                gradient(given)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph), torch.enable_grad():
            found = gradient(given)
        return graph, given, found

    def replayed(image: Tensor) -> Tensor:
        if image.shape not in graphs:
            graphs[image.shape] = capture(image)
        graph, given, found = graphs[image.shape]
        given.copy_(image)
        graph.replay()
        return found

    return replayed


@torch.no_grad()
def dreamt(photo: Tensor, gradient: Callable[[Tensor], Tensor], seed: int = 0) -> Tensor:
    """Google's loop: the picture that comes of `photo`, `(1, 3, H, W)` in [0, 1]."""
    height, width = photo.shape[-2:]
    sizes = [(round(height / SCALE**k), round(width / SCALE**k)) for k in reversed(range(OCTAVES))]
    generator, detail = torch.Generator().manual_seed(seed), None
    image = photo
    for size in sizes:
        base = F.interpolate(photo, size=size, mode="bilinear", antialias=True)
        if detail is not None:
            detail = F.interpolate(detail, size=size, mode="bilinear")
        image = base if detail is None else base + detail
        for _ in range(STEPS):
            dy, dx = torch.randint(-JITTER, JITTER + 1, (2,), generator=generator).tolist()
            with torch.enable_grad():
                found = gradient(image.roll((dy, dx), (2, 3)))
            found = found.roll((-dy, -dx), (2, 3))
            image = (image + STEP * found / found.abs().mean()).clamp(0, 1)
        detail = image - base
    return image


def tables(
    repeats: int = 5,
    *,
    dreams: Sequence[tuple[str, str | None, str]] = DREAMS,
    size: tuple[int, int] = SIZE,
    ways: tuple[str, ...] | None = None,
    device: str = "cpu",
) -> list[report.Table]:
    """A table a network: seconds of a whole dream, and how its final score compares."""
    ways = ways_of(device) if ways is None else ways
    return [_table(*one, repeats, size, ways, device) for one in dreams]


def _table(
    name: str,
    weights: str | None,
    layer: str,
    repeats: int,
    size: tuple[int, int],
    ways: tuple[str, ...],
    device: str,
) -> report.Table:
    network = load_network(name, weights=weights)
    photo, goal = draw_sky(*size), parse(f"layer({layer}, norm=half_sum_square)")
    runs: dict[str, Callable[[], Tensor]] = {}
    compile_time = math.nan
    for way in ways:
        gradient, there = gradient_of(network, layer, way, device), photo.to(device)
        runs[f"skilled, {way}"] = lambda g=gradient, there=there: dreamt(there, g).cpu()
    for precision in ("fp32", "bf16", "auto"):
        runs[f"phosphene, {precision}"] = lambda precision=precision: dream(
            photo, network, goal, preset="google2015", octaves=OCTAVES, steps=STEPS,
            precision=precision, device=device,
        )  # fmt: skip
    pictures: dict[str, Tensor] = {}
    first: dict[str, float] = {}
    for what, run in runs.items():  # all is built, and compiled for each size

        def once(what: str = what, run: Callable[[], Tensor] = run) -> None:
            pictures[what] = run()

        first[what] = report.seconds(once, device)
        report.say(f"  {what}: first {first[what]:.1f} s")
    times = report.interleaved(runs, repeats, device)
    middle = {what: report.median(found) for what, found in times.items()}
    if "skilled, compiled" in runs:
        compile_time = first["skilled, compiled"] - middle["skilled, compiled"]
    judge = whole(network, goal.bound(network))
    scores = {what: float(judge(picture)[0]) for what, picture in pictures.items()}
    rows = [
        (
            what,
            report.spread(times[what]),
            *(f"{middle[f'skilled, {way}'] / middle[what]:.2f}" for way in ways),
            f"{scores[what] / scores['phosphene, fp32']:.3f}",
        )
        for what in runs
    ]
    note = "" if math.isnan(compile_time) else f"compiling took {compile_time:.0f} s, not counted"
    height, width = size
    return report.Table(
        f"{name} to {layer}, {width}×{height}, {OCTAVES} octaves × {STEPS} steps",
        ("run", "time", *(f"× skilled, {way}" for way in ways), "final score, of fp32's"),
        tuple(rows),
        (note,) if note else (),
    )
