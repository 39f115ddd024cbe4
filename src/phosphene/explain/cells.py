"""Pictures of single units, many rendered at once, each cached so that it is rendered only once.

A cell does not depend on what is rendered beside it: every picture of a batch begins with the noise
of the same seed and is moved by the same chances, as if it were alone. So cached cells can be put
together in any way, and a run that was killed goes on from the cells that it finished.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from phosphene import __version__
from phosphene import image as images
from phosphene import objectives as obj
from phosphene.cache import cache_folder
from phosphene.explain.kept import load_kept, store_kept
from phosphene.explain.responses import mean_responses
from phosphene.network import Layer, Network
from phosphene.objectives import Objective
from phosphene.recipes.steps.framing import auto_size
from phosphene.recipes.steps.visualize import LEARNING_RATES, VisualizeStep, ascend_objectives
from phosphene.recipes.visualize import AscentSettings
from phosphene.settings import chain_plugins

SettingsT = TypeVar("SettingsT", bound=AscentSettings)

# A change in how cells come out, with the same settings, is a new number here.
CACHE_FORMAT = 1
# Cells of more px than these in all are rendered in smaller batches: about 1 GB, if the network is
# a large one.
BATCH_PIXELS = 16 * 160 * 160
LEAST_SIDE = 64  # px, the longest side that a cell is rendered at
# Times visualize's own learning rate: 96 such steps draw what 256 of its own do.
LEARNING_RATE_FACTOR = 2
STALE_SECONDS = 3600  # until what a killed process was writing is cleared away


@dataclass(frozen=True)
class Cell:
    """A unit to render: a channel of a layer, which has its own name, and not an alias, here.

    `negative` is what the unit answers to least.
    """

    layer: str
    channel: int
    negative: bool = False

    def objective(self) -> Objective:
        """What is raised."""
        goal = obj.channel(self.layer, self.channel)
        return -goal if self.negative else goal


@dataclass(frozen=True)
class RenderedCell:
    """A finished cell.

    image: `(3, h, w)` in [0, 1], in steps of 1/255; grey if the unit is dead.
    response: the unit's mean over positions when the network is shown the image as it is.
    dead: whether the unit had no gradient.
    precision: of the network that rendered it.
    """

    image: Tensor = field(repr=False)
    response: float
    dead: bool
    precision: str


@dataclass(frozen=True)
class CellStep:
    """A step on the way through many cells.

    rendered: the cells that are done, of `total`; so many of them were `cached` before.
    batch: the cells that are rendered now: `image` `(N, 3, h, w)` is what they are after step
        `index`, counted from 0, of `steps`.
    last: whether this is the last step of all.
    network: the one that renders, on its device and in its precision; where all cells were cached,
        one such as rendered them.
    """

    rendered: Mapping[Cell, RenderedCell] = field(repr=False)
    total: int
    cached: int
    batch: tuple[Cell, ...]
    index: int
    steps: int
    image: Tensor | None = field(repr=False)
    last: bool
    network: Network = field(repr=False)

    @property
    def share(self) -> float:
        """How much of all is done, 0 to 1."""
        begun = 0 if self.batch and self.batch[0] in self.rendered else len(self.batch)
        return (len(self.rendered) + begun * (self.index + 1) / max(1, self.steps)) / self.total

    @property
    def text(self) -> str:
        """What is being done, in a few words."""
        text = f"{len(self.rendered)}/{self.total} cells"
        if not self.last:
            text += f"  step {self.index + 1}/{self.steps} of {len(self.batch)} at once"
        return text

    @property
    def milestone(self) -> bool:
        """Whether a batch is done, which is worth a line by itself."""
        return self.index + 1 >= self.steps


def resolve_settings(network: Network, layer: Layer, s: SettingsT) -> SettingsT:
    """The settings with what is auto resolved for one layer, as it looks best in few steps.

    A layer that sees less than half of what `visualize` would draw is drawn at twice what it sees,
    `LEAST_SIDE` px at least, so that what it answers to is large enough to be seen, and is moved
    gently: it would answer to the grey that robust moves bring in more than to anything in the
    picture.
    """
    given: dict[str, object] = {}
    sees = layer.receptive_field
    side = None if sees is None else max(LEAST_SIDE, 2 * sees, network.least_size([layer.name]))
    small = side is not None and side < auto_size(network.input_size)
    if s.size == "auto" and small:
        given["size"] = side
    if s.transforms == "auto" and small and s.parameterization != "maco":
        given["transforms"] = "gentle"
    if s.learning_rate == "auto" and s.parameterization == "fourier":
        given["learning_rate"] = LEARNING_RATE_FACTOR * LEARNING_RATES["fourier"]
    return s.model_copy(update=given)


def render_cells(
    network: Network,
    cells: Sequence[Cell],
    settings: AscentSettings,
    *,
    use_cache: bool = True,
) -> Iterator[CellStep]:
    """Render cells, `settings.batch` at a time, and yield each step; the last one has them all.

    use_cache: whether finished cells are stored in, and loaded from, `cache_folder()`.
    """
    one = cell_settings(settings)
    cache = _cell_cache(network, one) if use_cache else None
    wanted = list(dict.fromkeys(cells))
    rendered: dict[Cell, RenderedCell] = {}
    if cache:
        for cell in wanted:
            known = cache.load(cell)
            if known is not None:
                rendered[cell] = known
    missing = [cell for cell in wanted if cell not in rendered]
    cached, batch_size = len(rendered), _batch_size(network, settings)
    if not missing:
        # Not what `auto` comes to, which takes trying.
        precision = next((known.precision for known in rendered.values()), one.precision)
        net = network.prepared(one.device, precision)
        yield CellStep(dict(rendered), len(wanted), cached, (), 0, 0, None, True, net)
        return
    for start in range(0, len(missing), batch_size):
        batch = tuple(missing[start : start + batch_size])
        steps = ascend_objectives(network, [cell.objective() for cell in batch], one)
        step: VisualizeStep | None = None
        while (step := _next_step(steps, first=start == 0)) is not None:
            if step.last:
                for cell, result in _finished(network, batch, step, one).items():
                    rendered[cell] = result
                    if cache and not cache.store(cell, result):
                        cache = None
            yield CellStep(
                dict(rendered),
                len(wanted),
                cached,
                batch,
                step.index,
                step.steps,
                step.image,
                step.last and len(rendered) == len(wanted),
                step.network,
            )


def cell_settings(settings: AscentSettings) -> AscentSettings:
    """The settings by which `visualize` draws one of its pictures."""
    given: dict[str, Any] = {n: getattr(settings, n) for n in AscentSettings.model_fields}
    given["batch"] = 1
    return AscentSettings(**given)


def _batch_size(network: Network, s: AscentSettings) -> int:
    side = auto_size(network.input_size) if s.size == "auto" else s.size
    area = side * side * min(s.aspect, 1 / s.aspect)
    return max(1, min(s.batch, int(BATCH_PIXELS / area)))


def _next_step(steps: Iterator[VisualizeStep], *, first: bool) -> VisualizeStep | None:
    """The next step, without the warnings that each batch would repeat, or that a sheet shows."""
    with warnings.catch_warnings():
        if first:
            warnings.filterwarnings("ignore", message=".*no gradient")
        else:
            warnings.simplefilter("ignore")
        return next(steps, None)


def _finished(
    network: Network, batch: Sequence[Cell], step: VisualizeStep, s: AscentSettings
) -> dict[Cell, RenderedCell]:
    # As it is stored: a cell is the same whether it was rendered now or long ago.
    pictures = (step.picture() * 255).round().to(torch.uint8).float().div_(255)
    net = network.prepared(s.device, "fp32")
    finished = {}
    for cell, image, dead in zip(batch, pictures, step.dead.tolist(), strict=True):
        response = float(mean_responses(net, cell.layer, image[None])[cell.channel])
        finished[cell] = RenderedCell(image, response, dead, step.network.precision)
    return finished


def describe_settings(s: AscentSettings, cells: Tensor) -> str:
    """How cells `(…, h, w)` were rendered, in a few words."""
    tall, wide = images.size_of(cells)
    return f"{s.parameterization}, {wide}×{tall} px, {s.steps} steps, seed {s.seed}"


# The cache ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _CellCache:
    """Where the cells of one network lie; `depends` is what all of them depend on."""

    folder: Path
    depends: dict[str, Any]

    def load(self, cell: Cell) -> RenderedCell | None:
        """A cell; None if there is none, or not a whole one, or of something else."""
        path, key = self._place(cell)
        found = load_kept(path, key)
        if found is None:
            return None
        image, note = found
        try:
            precision = str(note["precision"])
            return RenderedCell(image, float(note["response"]), bool(note["dead"]), precision)
        except (ValueError, KeyError, TypeError):
            return None

    def store(self, cell: Cell, result: RenderedCell) -> bool:
        """Store a cell; False, after a warning, if it cannot be."""
        path, key = self._place(cell)
        note = {"response": result.response, "dead": result.dead, "precision": result.precision}
        return store_kept(path, key, result.image, note)

    def _place(self, cell: Cell) -> tuple[Path, dict[str, Any]]:
        """The file of a cell, and all that its pixels depend on."""
        key = self.depends | vars(cell)
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        layer = re.sub(r"[^\w.-]+", "_", cell.layer)[:60]
        sign = "-" if cell.negative else ""
        return self.folder / layer / f"{sign}{cell.channel}-{digest[:20]}.png", key


def _cell_cache(network: Network, s: AscentSettings) -> _CellCache:
    # Two networks with the same weights may still compute different things with them.
    structure = re.sub(r" at 0x[0-9a-f]+", "", repr(network.module))
    depends = {
        "cell": CACHE_FORMAT,
        "phosphene": __version__,
        "weights": network.fingerprint,
        "structure": hashlib.sha256(structure.encode()).hexdigest(),
        "preprocessing": [list(network.shift), list(network.scale), network.input_size],
        # Not the device, whose rounding is all that it changes.
        "settings": s.model_dump(mode="json", exclude={"device", "batch"}),
    }
    if plugins := chain_plugins(s):
        depends["plugins"] = [[plugin.name, plugin.sha256] for plugin in plugins]
    name = re.sub(r"[^\w.-]+", "_", network.name)[:40]
    folder = cache_folder() / "cells" / f"{name}-{network.fingerprint[:12]}"
    with suppress(OSError):
        for stray in folder.glob("*/.phosphene-*.tmp"):
            if time.time() - stray.stat().st_mtime > STALE_SECONDS:
                stray.unlink()
    return _CellCache(folder, depends)
