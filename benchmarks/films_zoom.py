"""A long zoom: whether its colours, its detail and what it dreams stay; and frames a second."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor

from benchmarks import report
from phosphene import load_network, parse
from phosphene.films.drift import lab_statistics
from phosphene.image import luma, start_picture
from phosphene.network import Network
from phosphene.recipes.dream import DreamSettings, dream
from phosphene.recipes.steps.frames import FrameStep
from phosphene.recipes.steps.zoom import zoom_frames
from phosphene.recipes.zoom import ZOOM
from phosphene.settings import Settings

LAYER = "mixed4c"
LONG, SIZE = 3000, (64, 96)
REFERENCE = 100  # the frame that later ones are compared with
WINDOW = 20  # frames, over which a figure is a mean: single ones go up and down
SPEED_SIZE, SPEED_FRAMES = (360, 640), 4


class Figures(NamedTuple):
    """Of a frame: its score, mean squared gradient, clipped px (%), Lab means."""

    score: float
    sharpness: float
    clipped: float
    lightness: float
    a: float
    b: float


def figures(image: Tensor, score: float = 0.0) -> Figures:
    """Of a picture `(1, 3, H, W)`. A px is clipped where one of its channels is 0 or 1."""
    light = luma(image)
    energy = light.diff(dim=-1).square().mean() + light.diff(dim=-2).square().mean()
    clipped = ((image <= 0) | (image >= 1)).any(1).float().mean()
    mean = lab_statistics(image).mean.flatten().tolist()
    return Figures(score, float(energy), 100 * float(clipped), *mean)


def tables(
    repeats: int = 5,
    *,
    frames: int = LONG,
    size: tuple[int, int] = SIZE,
    starts: tuple[str, ...] = ("sky", "noise"),
    device: str = "cpu",
    network: Network | None = None,
    layer: str = LAYER,
) -> list[report.Table]:
    """A table for a long film, held to its start and to an early frame; and one of speed."""
    net = network or load_network("dreamnet")
    rows = []
    for start in starts:
        for name, changed in (
            ("as is", {}),
            ("no pull", {"pull": 0.0}),
            ("no noise", {"noise": 0.0}),
        ):
            long = _long(net, layer, start, frames, size, device, changed)
            rows.append((f"{start}, {name}", *long))
    header = ("start", "L*", "a*", "b*", "clipped px", "sharpness", "score")
    title = f"{frames} frames of {size[1]}×{size[0]}, {layer}"
    notes = (
        f"Each is the farthest that means over {WINDOW} frames get after frame {REFERENCE}: L*, a* "
        "and b* from the start's, in % of 100; clipped px the most of them; sharpness and score "
        f"over those about frame {REFERENCE}, the least and the most.",
    )
    drift = report.Table(title, header, tuple(rows), notes)
    return [drift, _speed(net, layer, device, repeats)]


def _settings(net: Network, **given: Any) -> Settings:
    """What `phosphene zoom` is set to through that network, but for what is given."""
    return ZOOM.checked_settings(given, net.name)


def _zoom(
    net: Network, layer: str, start: Tensor, device: str, **changed: Any
) -> Iterator[FrameStep]:
    settings = _settings(net, device=device, fade=0, **changed)
    steps = zoom_frames(start, net, [parse(layer)], settings)
    return (step for step in steps if step.done)


def _long(
    net: Network,
    layer: str,
    kind: Any,
    frames: int,
    size: tuple[int, int],
    device: str,
    changed: dict[str, Any],
) -> tuple[str, ...]:
    start = start_picture(kind, size)
    found = [
        figures(step.picture(), float(step.score))
        for step in _zoom(net, layer, start, device, frames=frames, **changed)
    ]
    means = [_mean(found[k : k + WINDOW]) for k in range(0, len(found) - WINDOW + 1, WINDOW)]
    place = min(REFERENCE // WINDOW, len(means) - 1)
    first, then, later = figures(start), means[place], means[place:]
    apart = [max(abs(one[k] - first[k]) for one in later) for k in (3, 4, 5)]
    clipped = max(one.clipped for one in later)
    ratios = [
        f"{min(one[k] / then[k] for one in later):.2f}–{max(one[k] / then[k] for one in later):.2f}"
        for k in (1, 0)
    ]
    return (*(f"{value:.1f} %" for value in apart), f"{clipped:.1f} %", *ratios)


def _mean(found: list[Figures]) -> Figures:
    return Figures(*(statistics.fmean(column) for column in zip(*found, strict=True)))


def _speed(net: Network, layer: str, device: str, repeats: int) -> report.Table:
    """Frames a second, against the same steps by `dream` on its own, in turns."""
    height, width = SPEED_SIZE
    start = start_picture("sky", SPEED_SIZE)
    film = _zoom(net, layer, start, device, frames=(repeats + 1) * SPEED_FRAMES)
    ours = _settings(net, device=device)
    alike = {k: v for k, v in ours.model_dump().items() if k in DreamSettings.model_fields}
    alone, within = [], []
    for turn in range(repeats + 1):
        begun = time.perf_counter()
        for step in itertools.islice(film, SPEED_FRAMES):
            start = step.picture()
        between = time.perf_counter()
        for _ in range(SPEED_FRAMES):
            dream(start, net, layer, **alike)
        if turn:  # the first one traces the network
            within.append((between - begun) / SPEED_FRAMES)
            alone.append((time.perf_counter() - between) / SPEED_FRAMES)
    ratio = statistics.median(a / w for a, w in zip(alone, within, strict=True))
    row = (
        f"{width}×{height}, {layer}",
        f"{1 / statistics.median(within):.2f}",
        f"{1 / statistics.median(alone):.2f}",
        f"{ratio:.2f}",
    )
    header = ("frames a second", "zoom", "dreams alone", "of that")
    return report.Table("How fast a zoom is", header, (row,))
