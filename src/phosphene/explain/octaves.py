"""`octaves`: what each octave of a dream begins with, ends with, and hands on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from phosphene import __version__
from phosphene import image as images
from phosphene.errors import ImageError
from phosphene.explain.pages import Page, ShownPage
from phosphene.network import Network
from phosphene.objectives import picture_paths, with_pictures
from phosphene.objectives.text import parse_tree
from phosphene.recipes.base import Arguments
from phosphene.recipes.octaves import OctavesSettings
from phosphene.recipes.steps.dream import DreamStep, dream_steps, enlarged


@dataclass(frozen=True)
class Octave:
    """One octave of a dream.

    number: counted from 1, the smallest first. size: (H, W) in px. steps: that were taken.
    before, after: `(1, 3, H, W)` in [0, 1] on the CPU: the picture before its steps and after them.
    carried: `(1, 3, H, W)`, `after` less the photograph at this size, as it was computed: in
        [-1, 1], 0 where nothing was dreamt. It goes up to the next octave; of the last one it is
        all that the dream has added.
    scores: `(steps,)`, of the picture before each step.
    """

    number: int
    size: tuple[int, int]
    steps: int
    before: Tensor = field(repr=False)
    after: Tensor = field(repr=False)
    carried: Tensor = field(repr=False)
    scores: tuple[float, ...] = field(repr=False)


@dataclass(frozen=True)
class Pyramid(ShownPage):
    """A dream, octave by octave.

    objective: its text. octaves: the smallest first. version: of phosphene, as its page names it.
    """

    network: str
    objective: str
    octaves: tuple[Octave, ...]
    settings: OctavesSettings = field(repr=False)
    version: str = __version__
    page_scale: ClassVar[float] = 2.0  # letters are drawn for a fine screen

    @property
    def subject(self) -> tuple[str, ...]:
        """What it is about: the objective."""
        return (self.objective,)

    @property
    def title(self) -> str:
        """The objective's text with the names of its pictures' files, and not where they lie."""
        paths = picture_paths(parse_tree(self.objective))
        return with_pictures(self.objective, {path: Path(path).name for path in paths})

    def layout(self) -> Page:
        """Its page: a column for each octave, to one scale."""
        from phosphene.explain.octave_page import octave_page

        return octave_page(self)

    def data(self) -> dict[str, Any]:
        """All but the pictures, as JSON can hold it; `carried` is its root mean square."""
        octaves = [
            {
                "octave": octave.number,
                "height": octave.size[0],
                "width": octave.size[1],
                "scores": list(octave.scores),
                "carried": float(octave.carried.square().mean().sqrt()),
            }
            for octave in self.octaves
        ]
        return {
            "phosphene": self.version,
            "network": self.network,
            "objective": self.title,
            "settings": self.settings.model_dump(mode="json"),
            "octaves": octaves,
        }


@dataclass(frozen=True)
class PyramidStep:
    """A step of the dream; after the last one there is the `pyramid`, None before."""

    dream: DreamStep
    pyramid: Pyramid | None = None

    @property
    def share(self) -> float:
        """How much of all work is done, 0 to 1."""
        return self.dream.share

    @property
    def text(self) -> str:
        """The step in a few words."""
        return self.dream.text

    @property
    def milestone(self) -> bool:
        """Whether an octave ends here."""
        return self.dream.milestone

    @property
    def network(self) -> Network:
        """The one that it runs on, device and precision settled."""
        return self.dream.network


def octave_steps(arguments: Arguments) -> Iterator[PyramidStep]:
    """The steps of a page of octaves: see `phosphene.octaves`. What is wrong is said at once."""
    photo = arguments.images["photo"]
    steps = dream_steps(arguments)  # which sees to it that it is a picture
    if len(photo) != 1:
        raise ImageError(f"octaves are shown of one picture (1, 3, H, W); these are {len(photo)}")
    return _steps(steps, arguments)


def _steps(steps: Iterator[DreamStep], arguments: Arguments) -> Iterator[PyramidStep]:
    s, octaves = arguments.settings, []
    scores: list[float] = []
    last: DreamStep | None = None  # of the octave before
    for step in steps:
        scores.append(float(step.score))
        if not step.last:
            yield PyramidStep(step)
            continue
        octaves.append(_octave(step, last, scores, s))
        last, scores = step, []
        whole = None
        if step.octave == step.octaves - 1:
            goal = arguments.objectives[0].text
            whole = Pyramid(arguments.network.name, goal, tuple(octaves), s)
        yield PyramidStep(step, whole)


def _octave(
    step: DreamStep, last: DreamStep | None, scores: list[float], s: OctavesSettings
) -> Octave:
    """The octave that a step ends; `last` is the step that ended the one before."""
    # As the loop itself begins it.
    before = step.base if last is None else enlarged(last.image, last.base, step.base, s)
    return Octave(
        step.octave + 1,
        images.size_of(step.image),
        len(scores),
        before.clamp(0, 1).float().cpu(),
        step.image.clamp(0, 1).float().cpu(),
        (step.image - step.base).float().cpu(),
        tuple(scores),
    )
