"""Drawings of single units, many at once, each kept so that it is drawn only once.

A cell does not depend on what is drawn beside it: every picture of a batch begins with the noise of
the same seed and is moved by the same chances, as if it were alone. So cells that are kept can be
put together in any way, and a run that was killed goes on from the cells that it finished.
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
from phosphene.errors import ImageError
from phosphene.explain.responses import strengths
from phosphene.explain.sheet_settings import drawing
from phosphene.network import Layer, Network
from phosphene.objectives import Objective
from phosphene.recipes.visualize import LEARNING_RATES, VisualizeStep, auto_size, visualize
from phosphene.recipes.visualize_settings import VisualizeSettings

SettingsT = TypeVar("SettingsT", bound=VisualizeSettings)

# A change in how cells come out, with the same settings, is a new number here.
FORMAT = 1
# Cells of more px than these in all are drawn in smaller batches: about 1 GB for a large network.
MOST_PIXELS = 16 * 160 * 160
LEAST = 64  # px, the longest side that a picture is drawn at
# Times visualize's own learning rate: 96 such steps draw what 256 of its own do.
FAST = 2
# s; what a killed process was writing is left behind under a name of its own.
LEFT_BEHIND = 3600


@dataclass(frozen=True)
class Cell:
    """A unit to draw: a channel of a layer, which has its own name, and not an alias, here.

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
class Drawing:
    """A drawn cell: image `(3, h, w)` in steps of 1/255, grey if the unit is dead.

    `response` is the unit's mean over positions when the network is shown the image as it is;
    `precision` that of the network that drew it.
    """

    image: Tensor = field(repr=False)
    response: float
    dead: bool
    precision: str


@dataclass(frozen=True)
class CellStep:
    """A step on the way through many cells.

    `drawn` are those that are done, of `total`; `found` of them were there already. `batch` is
    drawn now: `image` `(N, 3, h, w)` is after step `index` of `steps`, both counted from 0.
    `network` is the one that draws, device and precision settled; where all cells were there
    already, one such as drew them.
    """

    drawn: Mapping[Cell, Drawing] = field(repr=False)
    total: int
    found: int
    batch: tuple[Cell, ...]
    index: int
    steps: int
    image: Tensor | None = field(repr=False)
    last: bool
    network: Network = field(repr=False)

    @property
    def share(self) -> float:
        """How much of all is done, 0 to 1."""
        begun = 0 if self.batch and self.batch[0] in self.drawn else len(self.batch)
        return (len(self.drawn) + begun * (self.index + 1) / max(1, self.steps)) / self.total


def settled(network: Network, layer: Layer, s: SettingsT) -> SettingsT:
    """The settings with what is auto settled for one layer, as it looks best in few steps.

    A layer that sees less than half of what `visualize` would draw is drawn at twice what it sees,
    `LEAST` px at least, so that what it answers to is large enough to be seen, and is moved gently:
    it would answer to the grey that robust moves bring in more than to anything in the picture.
    """
    given: dict[str, object] = {}
    sees = layer.receptive_field
    enough = None if sees is None else max(LEAST, 2 * sees, network.least_size([layer.name]))
    small = enough is not None and enough < auto_size(network.input_size)
    if s.size == "auto" and small:
        given["size"] = enough
    if s.transforms == "auto" and small and s.parameterization != "maco":
        given["transforms"] = "gentle"
    if s.learning_rate == "auto" and s.parameterization == "fourier":
        given["learning_rate"] = FAST * LEARNING_RATES["fourier"]
    return s.model_copy(update=given)


def draw(
    network: Network,
    cells: Sequence[Cell],
    settings: VisualizeSettings,
    *,
    keep: bool = True,
) -> Iterator[CellStep]:
    """Draw cells, `settings.batch` at a time, and yield each step; the last one has them all.

    keep: whether finished cells are kept in, and taken from, `cache_folder()`.
    """
    one = drawing(settings)
    shelf = _shelf(network, one) if keep else None
    wanted = list(dict.fromkeys(cells))
    drawn: dict[Cell, Drawing] = {}
    if shelf:
        for cell in wanted:
            kept = _taken(shelf, cell)
            if kept is not None:
                drawn[cell] = kept
    left = [cell for cell in wanted if cell not in drawn]
    found, at_once = len(drawn), _at_once(network, settings)
    if not left:
        # Not what `auto` comes to, which takes trying.
        precision = next((kept.precision for kept in drawn.values()), one.precision)
        net = network.prepared(one.device, precision)
        yield CellStep(dict(drawn), len(wanted), found, (), 0, 0, None, True, net)
        return
    for start in range(0, len(left), at_once):
        batch = tuple(left[start : start + at_once])
        steps = visualize.steps(network, [cell.objective() for cell in batch], **one.model_dump())
        step: VisualizeStep | None = None
        while (step := _next(steps, first=start == 0)) is not None:
            if step.last:
                finished = _finished(network, batch, step, one)
                for cell, result in finished.items():
                    drawn[cell] = result
                    if shelf and not _put(shelf, cell, result):
                        shelf = None
            yield CellStep(
                dict(drawn),
                len(wanted),
                found,
                batch,
                step.index,
                step.steps,
                step.image,
                step.last and len(drawn) == len(wanted),
                step.network,
            )


def _at_once(network: Network, s: VisualizeSettings) -> int:
    side = auto_size(network.input_size) if s.size == "auto" else s.size
    area = side * side * min(s.aspect, 1 / s.aspect)
    return max(1, min(s.batch, int(MOST_PIXELS / area)))


def _next(steps: Iterator[VisualizeStep], *, first: bool) -> VisualizeStep | None:
    """The next step, without what would be said of each batch anew, or is told by the sheet."""
    with warnings.catch_warnings():
        if first:
            warnings.filterwarnings("ignore", message=".*no gradient")
        else:
            warnings.simplefilter("ignore")
        return next(steps, None)


def _finished(
    network: Network, batch: Sequence[Cell], step: VisualizeStep, s: VisualizeSettings
) -> dict[Cell, Drawing]:
    # As it is kept: a cell is the same whether it was drawn now or long ago.
    pictures = (step.picture() * 255).round().to(torch.uint8).float().div_(255)
    net = network.prepared(s.device, "fp32")
    finished = {}
    for cell, image, dead in zip(batch, pictures, step.dead.tolist(), strict=True):
        response = float(strengths(net, cell.layer, image[None])[cell.channel])
        finished[cell] = Drawing(image, response, dead, step.network.precision)
    return finished


def how(s: VisualizeSettings, cells: Tensor) -> str:
    """How drawings were made, in a few words."""
    tall, wide = images.size_of(cells)
    return f"{s.parameterization}, {wide}×{tall} px, {s.steps} steps, seed {s.seed}"


# What is kept -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shelf:
    """Where the cells of one network lie, and what all of them depend on."""

    folder: Path
    depends: dict[str, Any]


def _shelf(network: Network, s: VisualizeSettings) -> _Shelf:
    # Two networks with the same weights may still compute different things with them.
    structure = re.sub(r" at 0x[0-9a-f]+", "", repr(network.module))
    depends = {
        "cell": FORMAT,
        "phosphene": __version__,
        "weights": network.fingerprint,
        "structure": hashlib.sha256(structure.encode()).hexdigest(),
        "preprocessing": [list(network.shift), list(network.scale), network.input_size],
        # Not the device, whose rounding is all that it changes.
        "settings": s.model_dump(mode="json", exclude={"device", "batch"}),
    }
    name = re.sub(r"[^\w.-]+", "_", network.name)[:40]
    folder = cache_folder() / "cells" / f"{name}-{network.fingerprint[:12]}"
    with suppress(OSError):
        for stray in folder.glob("*/.phosphene-*.tmp"):
            if time.time() - stray.stat().st_mtime > LEFT_BEHIND:
                stray.unlink()
    return _Shelf(folder, depends)


def _place(shelf: _Shelf, cell: Cell) -> tuple[Path, dict[str, Any]]:
    """The file of a cell, and all that its pixels depend on."""
    key = shelf.depends | vars(cell)
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    layer = re.sub(r"[^\w.-]+", "_", cell.layer)[:60]
    sign = "-" if cell.negative else ""
    return shelf.folder / layer / f"{sign}{cell.channel}-{digest[:20]}.png", key


def _put(shelf: _Shelf, cell: Cell, result: Drawing) -> bool:
    """Keep a cell; False, after a warning, if it cannot be."""
    path, key = _place(shelf, cell)
    # The pixels' own hash, since a file may be damaged where no decoder notices.
    note = {
        "key": key,
        "pixels": _hash(result.image),
        "response": result.response,
        "dead": result.dead,
        "precision": result.precision,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        images.save_image(result.image, path, recipe=json.dumps(note))
    except (OSError, ImageError) as error:
        warnings.warn(f"cells are not kept for the next time: {error}", stacklevel=3)
        return False
    return True


def _taken(shelf: _Shelf, cell: Cell) -> Drawing | None:
    """A cell that was kept; None if there is none, or not a whole one, or of something else."""
    path, key = _place(shelf, cell)
    if not path.is_file():
        return None
    try:
        note = json.loads(images.read_recipe(path) or "")
        image = images.load_image(path)[0]
        if note["key"] != key or note["pixels"] != _hash(image):
            return None
        precision = str(note["precision"])
        return Drawing(image, float(note["response"]), bool(note["dead"]), precision)
    except (ImageError, ValueError, KeyError, TypeError):
        return None


def _hash(image: Tensor) -> str:
    return hashlib.sha256(images.to_uint8(image).tobytes()).hexdigest()
