"""`story`: a class drawn from noise, what else the network sees in it, and where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from phosphene import __version__
from phosphene import image as images
from phosphene import objectives as obj
from phosphene.explain.cells import Cell, RenderedCell, render_cells, resolve_settings
from phosphene.explain.contours import Point, outlines
from phosphene.explain.layers import layer_of
from phosphene.explain.pages import Page, ShownPage
from phosphene.explain.units import class_index
from phosphene.gradients import blur
from phosphene.network import Layer, Network
from phosphene.objectives import cells
from phosphene.recipes.base import Arguments
from phosphene.recipes.story import StorySettings
from phosphene.runtime.device import exact

GREY = 0.5
BLUR = 0.05  # of the picture's side, the deviation
CHANCES = 16  # places by chance, to which what is outlined is compared


@dataclass(frozen=True)
class Push:
    """What in a drawing raises a class's score: see `phosphene.story`.

    map: `(h, w)`, how much each place does. lines: around the highest of it, (x, y) in px of the
        drawing. share: of the drawing, that is within.
    score: the class's, before the softmax. covered: that with what is within painted grey;
        by_chance: with as much painted grey elsewhere, the mean of `CHANCES` places by chance.
    """

    index: int
    map: Tensor = field(repr=False)
    lines: tuple[tuple[Point, ...], ...] = field(repr=False)
    share: float
    score: float
    covered: float
    by_chance: float


@dataclass(frozen=True)
class Drawing:
    """A class drawn from one seed.

    image: `(3, h, w)` in [0, 1], grey if the unit is dead.
    chances: the most probable classes by number, with their probabilities, the highest first.
    own, second: what raises the class itself, and the most probable other one; None where dead.
    """

    seed: int
    image: Tensor = field(repr=False)
    dead: bool
    chances: tuple[tuple[int, float], ...]
    own: Push | None
    second: Push | None


@dataclass(frozen=True)
class Story(ShownPage):
    """A class, drawn from noise, and what else the network sees in that.

    index, name: of the class. names: of the classes that occur in it, by number.
    view: (H, W) px at which the network is shown the drawings.
    version: of phosphene, as its page names it.
    """

    network: str
    index: int
    name: str
    named: str
    names: dict[int, str] = field(repr=False)
    drawings: tuple[Drawing, ...]
    view: tuple[int, int]
    settings: StorySettings = field(repr=False)
    version: str = __version__
    page_scale: ClassVar[float] = 2.0  # letters and lines are drawn for a fine screen

    @property
    def subject(self) -> tuple[str, ...]:
        """What it is about, as a manifest names it: the class."""
        return (self.named,)

    def layout(self) -> Page:
        """Its page: a column for each drawing."""
        from phosphene.explain.story_page import story_page

        return story_page(self)

    def data(self) -> dict[str, Any]:
        """All but the pictures, as JSON can hold it."""

        def push(found: Push | None) -> dict[str, Any] | None:
            if found is None:
                return None
            numbers = ("share", "score", "covered", "by_chance")
            told = {name: getattr(found, name) for name in numbers}
            return {"class": found.index, "name": self.names[found.index], **told}

        drawings = [
            {
                "seed": drawing.seed,
                "dead": drawing.dead,
                "chances": [
                    {"class": index, "name": self.names[index], "chance": chance}
                    for index, chance in drawing.chances
                ],
                "own": push(drawing.own),
                "second": push(drawing.second),
            }
            for drawing in self.drawings
        ]
        return {
            "phosphene": self.version,
            "network": self.network,
            "class": self.index,
            "name": self.name,
            "shown_at": {"height": self.view[0], "width": self.view[1]},
            "settings": self.settings.model_dump(mode="json"),
            "drawings": drawings,
        }


@dataclass(frozen=True)
class StoryStep:
    """A step on the way to a story, or the story itself, which ends it.

    image: `(N, 3, h, w)`, what is being drawn. network: the one that draws.
    """

    share: float
    text: str
    image: Tensor | None = field(default=None, repr=False)
    story: Story | None = None
    network: Network | None = field(default=None, repr=False)

    @property
    def milestone(self) -> bool:
        """Whether the story is done."""
        return self.story is not None

    @property
    def stored(self) -> str:
        """What an interruption leaves."""
        return "finished drawings are kept"

    @property
    def remarks(self) -> list[tuple[str, bool]]:
        """What to know of the whole, each with whether it is a detail."""
        if self.story is None or not any(drawing.dead for drawing in self.story.drawings):
            return []
        return [(f"{self.story.name} gave no gradient: where it is dead, nothing is drawn", False)]


def story_steps(arguments: Arguments) -> Iterator[StoryStep]:
    """A story's steps: see `phosphene.story`. What is wrong is said at once."""
    network, which = arguments.network, arguments.unit
    assert isinstance(which, str | int)
    index = find_class(network, which)
    layer = layer_of(network, network.logits_layer)
    settings = resolve_settings(network, layer, arguments.settings)
    return _steps(network, layer, index, settings, arguments.cache)


def find_class(network: Network, which: str | int) -> int:
    """The number of a class, by its name or number.

    ObjectiveError, with the closest ones, if there is none; NetworkError for a network without
    class scores.
    """
    if isinstance(which, str) and not which.strip().isdecimal():
        return class_index(network, which)
    obj.logit(int(which)).bound(network)  # which says what is wrong with it
    return int(which)


def _steps(
    network: Network, layer: Layer, index: int, s: StorySettings, use_cache: bool
) -> Iterator[StoryStep]:
    cell, drawn = Cell(layer.name, index), []
    renders: Network | None = None
    for k in range(s.seeds):
        seed = s.model_copy(update={"seed": s.seed + k})
        for step in render_cells(network, [cell], seed, use_cache=use_cache):
            renders = step.network
            share = (k + step.share) / s.seeds
            text = f"drawing {k + 1}/{s.seeds}  step {step.index + 1}/{max(1, step.steps)}"
            yield StoryStep(0.99 * share, text, step.image, network=renders)
            if step.last:
                drawn.append(step.rendered[cell])
    net = network.prepared(s.device, "fp32")
    drawings = tuple(
        drawing_of(net, layer, index, one, s.seed + k, s) for k, one in enumerate(drawn)
    )
    seen = {index} | {each for drawing in drawings for each, _ in drawing.chances}
    names = {each: class_name(network, each) for each in sorted(seen)}
    whole = Story(
        network.name,
        index,
        names[index],
        _manifest_name(network, index),
        names,
        drawings,
        _view(net, drawn[0].image),
        s,
    )
    yield StoryStep(1.0, "drawn", story=whole, network=renders)


def class_name(network: Network, index: int) -> str:
    """A class's name, or what stands for it where classes have none."""
    return network.classes[index] if index < len(network.classes) else f"class {index}"


def _manifest_name(network: Network, index: int) -> str:
    """A class's name, if that is enough to find it again, or its number."""
    if index >= len(network.classes) or network.classes.count(network.classes[index]) > 1:
        return str(index)
    return network.classes[index]


def drawing_of(
    net: Network, layer: Layer, index: int, one: RenderedCell, seed: int, s: StorySettings
) -> Drawing:
    """What a network sees in a drawing of a class, which it is shown as it knows pictures."""
    if one.dead:
        return Drawing(seed, one.image, True, (), None, None)
    chances = probabilities(net, layer, one.image[None])[0]
    top = chances.argsort(descending=True, stable=True)[: s.shown].tolist()
    other = next(each for each in [*top, -1] if each != index)
    own, second = (
        None if each < 0 else push_of(net, layer, one.image, each, s.outlined)
        for each in (index, other)
    )
    told = tuple((each, float(chances[each])) for each in top)
    return Drawing(seed, one.image, False, told, own, second)


# What the network sees ----------------------------------------------------------------------------


def _view(network: Network, image: Tensor) -> tuple[int, int]:
    """The size (H, W) at which a drawing `(3, h, w)` is shown, whose shorter side is known."""
    height, width = images.size_of(image)
    scale = network.input_size / min(height, width)
    return round(height * scale), round(width * scale)


def _scores(network: Network, layer: Layer, image: Tensor) -> Tensor:
    """The class scores `(N, C)` of pictures `(N, 3, h, w)`, shown as large as the network knows."""
    shown = images.resize(image.to(network.device), _view(network, image))
    return cells(network.activations(shown, [layer.name]), layer.name).flatten(1, 2).mean(1)


@torch.no_grad()
def probabilities(network: Network, layer: Layer, image: Tensor) -> Tensor:
    """The probabilities of all classes `(N, C)`, on the CPU, for pictures `(N, 3, h, w)`."""
    return _scores(network, layer, image).cpu().double().softmax(1)


def push_of(network: Network, layer: Layer, image: Tensor, index: int, share: float) -> Push:
    """What in a picture `(3, h, w)` raises a class's score: see `phosphene.story`."""
    pixels = image[None].to(network.device).requires_grad_()
    with torch.enable_grad():
        score = _scores(network, layer, pixels)[0, index]
        with exact(network.device):
            (gradient,) = torch.autograd.grad(score, pixels)
    raising = ((pixels.detach() - GREY) * gradient).sum(1, keepdim=True)
    map_ = _blurred(raising)[0].cpu()
    within, level = highest(map_, share)
    noise = torch.randn(CHANCES, 1, *map_.shape, generator=torch.Generator().manual_seed(0))
    masks = [highest(one, float(within.float().mean()))[0] for one in _blurred(noise)]
    grey = torch.full_like(image, GREY)
    shown = [image, *(torch.where(mask, grey, image) for mask in (within, *masks))]
    with torch.no_grad():
        scores = _scores(network, layer, torch.stack(shown))[:, index].cpu().double()
    lines = tuple(tuple(line) for line in outlines(map_, level))
    numbers = (float(within.float().mean()), float(scores[0]), float(scores[1]))
    return Push(index, map_, lines, *numbers, by_chance=float(scores[2:].mean()))


def _blurred(maps: Tensor) -> Tensor:
    """Maps `(N, 1, h, w)` less their detail, `(N, h, w)`."""
    return blur(maps, BLUR * max(images.size_of(maps)))[:, 0]


def highest(map_: Tensor, share: float) -> tuple[Tensor, float]:
    """Where a map `(h, w)` is highest and above 0: so much of it at most, as bool; and from where.

    >>> highest(torch.tensor([[-1.0, 0.0, 1.0, 3.0]]), 0.25)
    (tensor([[False, False, False,  True]]), 1.5)
    """
    level = max(0.0, float(np.quantile(map_.numpy(), 1 - share)))
    return map_ > level, level
