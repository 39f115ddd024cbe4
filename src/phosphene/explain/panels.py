"""`panels`: what each part of a dream does to a photo, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from phosphene import __version__
from phosphene import image as images
from phosphene.errors import ImageError, SettingsError
from phosphene.explain.grid_page import PageCell, cell_side, cells_page, wrapped_columns
from phosphene.explain.pages import Page, ShownPage
from phosphene.network import Network
from phosphene.recipes.base import Arguments
from phosphene.recipes.dream import DreamSettings
from phosphene.recipes.panels import PanelsSettings
from phosphene.recipes.steps.dream import DreamStep, dream_steps


@dataclass(frozen=True)
class Panels(ShownPage):
    """The photo, and dreams of it with one part more each.

    pictures: `(P, 3, H, W)` in [0, 1], on the CPU; the first is the photo. labels: one of each.
    """

    network: str
    objective: str
    labels: tuple[str, ...]
    pictures: Tensor = field(repr=False)
    settings: PanelsSettings = field(repr=False)
    version: str = __version__

    page_scale: ClassVar[float] = 1.0

    @property
    def subject(self) -> tuple[str, ...]:
        """The objective."""
        return (self.objective,)

    def layout(self) -> Page:
        """Its page: the panels with their labels, and what the inset shows of each below it."""
        s, (tall, wide) = self.settings, images.size_of(self.pictures)
        frame = cut = None
        if s.square is not None:
            left, top, side = s.square
            frame = (left / wide, top / tall, side / wide, side / tall)
            cut = self.pictures[..., top : top + side, left : left + side]
        cells = [
            PageCell(picture, label, frame=frame, cut=None if cut is None else cut[k])
            for k, (label, picture) in enumerate(zip(self.labels, self.pictures, strict=True))
        ]
        side = cell_side(max(tall, wide), 1) if s.cell == "auto" else s.cell
        columns = wrapped_columns(len(cells), side) if s.columns == "auto" else s.columns
        return cells_page(
            f"{self.network} · {self.objective}",
            f"{s.steps} steps in each octave, seed {s.seed}, preset {s.preset}",
            cells,
            columns=min(columns, len(cells)),
            cell=side,
            footer=f"phosphene {self.version} · {wide}×{tall} px",
        )

    def data(self) -> dict[str, Any]:
        """All but the pictures, as JSON can hold it."""
        return {
            "phosphene": self.version,
            "network": self.network,
            "objective": self.objective,
            "settings": self.settings.model_dump(mode="json"),
            "panels": list(self.labels),
        }


@dataclass(frozen=True)
class PanelStep:
    """A step on the way to panels.

    step: of the dream of panel `index`, counted from 0, of `count`. done: what is dreamt by now.
    network: the one that it runs on.
    """

    step: DreamStep = field(repr=False)
    index: int
    count: int
    shares: tuple[float, float]
    label: str
    whole: _Whole = field(repr=False)

    @property
    def network(self) -> Network:
        """The one that it runs on."""
        return self.step.network

    @property
    def share(self) -> float:
        """How much of all is done, 0 to 1."""
        begun, own = self.shares
        return min(1.0, begun + own * self.step.share)

    @property
    def text(self) -> str:
        """What is being done, in a few words."""
        return f"panel {self.index + 2}/{self.count + 1} {self.label}  {self.step.text}"

    @property
    def milestone(self) -> bool:
        """Whether a panel is done."""
        return self.step.share >= 1

    def panels(self) -> Panels:
        """The panels, with those that are not done left out."""
        done = [*self.whole.done, self.step.picture()]
        return self.whole.panels(done)


@dataclass
class _Whole:
    """Panels on the way."""

    photo: Tensor
    network: str
    objective: str
    settings: PanelsSettings
    done: list[Tensor]

    def panels(self, done: list[Tensor]) -> Panels:
        labels = ("original", *(label for label, _ in self.settings.panels()))
        pictures = torch.cat([self.photo.float().cpu().clamp(0, 1), *done])
        shown = labels[: len(pictures)]
        return Panels(self.network, self.objective, shown, pictures, self.settings)


def panels_steps(arguments: Arguments) -> Iterator[PanelStep]:
    """The steps of panels: see `phosphene.panels`. What cannot be is said at once."""
    s, photo = arguments.settings, arguments.images["photo"]
    wanted: list[tuple[str, DreamSettings]] = s.panels()
    dreams = [dream_steps(replace(arguments, settings=one)) for _, one in wanted]  # which checks
    if len(photo) != 1:
        raise ImageError(f"panels are of one photo (1, 3, H, W), and not of {len(photo)}")
    height, width = images.size_of(photo)
    if s.square is not None:
        left, top, side = s.square
        if left + side > width or top + side > height:
            raise SettingsError(
                f"inset {s.inset}: {side} px from {left},{top} leave the picture, which is "
                f"{width}×{height} px"
            )
    name, text = arguments.network.name, arguments.objectives[0].text
    whole = _Whole(photo, name, text, s, [])
    return _steps(dreams, [label for label, _ in wanted], whole)


def _steps(
    dreams: list[Iterator[DreamStep]], labels: list[str], whole: _Whole
) -> Iterator[PanelStep]:
    # One octave is about half of a whole dream.
    weights = [1.0, *(2.0 for _ in dreams[1:])]
    for index, (dream, label) in enumerate(zip(dreams, labels, strict=True)):
        begun = sum(weights[:index]) / sum(weights)
        shares = (begun, weights[index] / sum(weights))
        step: DreamStep | None = None
        for step in dream:
            yield PanelStep(step, index, len(dreams), shares, label, replace_done(whole))
        if step is not None:
            whole.done.append(step.picture())


def replace_done(whole: _Whole) -> _Whole:
    """The same, with what is done by now."""
    return replace(whole, done=list(whole.done))
