"""A step with painted regions, against one pass forward and a backward pass for each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks import report
from phosphene import load_network, parse
from phosphene.evaluation.several import gradient_of
from phosphene.network import Network
from phosphene.recipes.dream import dream

# Network, weights, the layer that every region dreams.
DREAMS = (("dreamnet", None, "mixed5b"), ("googlenet", "random", "inception4c"))
SIDE = 640
COUNTS = (1, 2, 3)
MOST = 1.1  # of a pass forward and a backward one for each


def strips(count: int, side: int) -> list[Tensor]:
    """Masks `(1, 1, side, side)` that cut a picture into upright parts."""
    part = (torch.arange(side) * count // side).expand(1, 1, side, side)
    return [(part == k).float() for k in range(count)]


def tables(
    repeats: int = 5,
    *,
    side: int = SIDE,
    counts: Sequence[int] = COUNTS,
    dreams: Sequence[tuple] = DREAMS,
    device: str = "cpu",
    precision: str = "fp32",
) -> list[report.Table]:
    """A table a network: a plain step, and steps with 1, 2, 3 regions of the same objective.

    What they are compared with is measured beside them, in turns: the network forward, and its
    gradient. Neither has what else a step does: the jitter, the smoothing, the blending, the step.
    """
    found = []
    for name, weights, layer in dreams:
        network = load_network(name, weights=weights)
        rows = _rows(network, layer, side, counts, repeats, device, precision)
        header = (f"{side}², {precision}", "time", "forward + backwards", "of that", "wanted")
        title = f"Painted regions: {name} to {layer}"
        found.append(report.Table(title, header, tuple(rows)))
    return found


def _rows(
    network: Network,
    layer: str,
    side: int,
    counts: Sequence[int],
    repeats: int,
    device: str,
    precision: str,
) -> list[tuple[str, ...]]:
    report.say(f"{network.name}, {side}²")
    photo = report.sky(side)
    settings = {"octaves": 1, "steps": repeats + 2, "precision": precision, "device": device}
    runs: dict[str, Callable[[], object]] = {}
    plain = dream.steps(photo, network, parse(layer), **settings)
    runs["no regions"] = lambda: next(plain)
    for count in counts:
        regions = [(mask, layer) for mask in strips(count, side)]
        steps = dream.steps(photo, network, regions=regions, rest="stay", **settings)
        runs[_named(count)] = lambda steps=steps: next(steps)
    for run in runs.values():  # the first finds out about the network, the second lays weights out
        run(), run()
    forward, backward = _passes(network.prepared(device, precision), layer, photo.to(device))
    forward(), backward(), forward(), backward()
    times = report.interleaved({"forward": forward, "backward": backward, **runs}, repeats, device)
    rows = [
        (name, report.spread([1000 * t for t in times[name]], "ms"), "", "", "")
        for name in ("forward", "backward", "no regions")
    ]
    for count in counts:
        name = _named(count)
        passes = [f + count * b for f, b in zip(times["forward"], times["backward"], strict=True)]
        shares = [t / p for t, p in zip(times[name], passes, strict=True)]
        rows.append(
            (
                name,
                report.spread([1000 * t for t in times[name]], "ms"),
                f"{1000 * report.median(passes):.0f} ms",
                report.spread(shares, "×"),
                f"{MOST} ×",
            )
        )
        report.say(f"  {' | '.join(rows[-1])}")
    return rows


def _named(count: int) -> str:
    return f"{count} region{'s' if count > 1 else ''}"


def _passes(
    network: Network, layer: str, photo: Tensor
) -> tuple[Callable[[], object], Callable[[], object]]:
    """The network forward, and its gradient, each to be called in turn."""
    goal = parse(layer).bound(network)
    kept: list[tuple[Tensor, Tensor]] = []

    def forward() -> None:
        view = photo.clone().requires_grad_()
        with torch.enable_grad():
            kept.append((goal(network.activations(view, goal.layers)), view))

    def backward() -> None:
        score, view = kept.pop()
        gradient_of(score, view, keep=False)

    return forward, backward
