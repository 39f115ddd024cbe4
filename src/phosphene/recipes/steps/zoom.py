"""The loop of `zoom`: each frame is a dream of the last one, seen a little closer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from phosphene import image as images
from phosphene.errors import ImageError, ObjectiveError, SettingsError, StateError
from phosphene.evaluation.several import joint
from phosphene.films.affine import Affine, warp
from phosphene.films.drift import LabStatistics, band_noise, colours_to_keep, pulled
from phosphene.network import Network
from phosphene.objectives import Objective
from phosphene.recipes.base import Arguments, Region
from phosphene.recipes.steps.dream import DreamStep, dream_steps, preset_objective
from phosphene.recipes.steps.frames import FrameStep
from phosphene.state import State

RATE = 30  # frames a second, at which `pull`, `source_pull` and `noise` are what they say
LOOP_SECONDS = 1  # in which the end of a loop goes over into its beginning
ROUNDING = 1e-3  # of 255: what float32 may lack of a whole level of 8 bits

SettingsAt = Callable[[int, Fraction], Any]
ObjectiveAt = Callable[[int, Fraction, Objective], Objective]


@dataclass(frozen=True)
class Timetable:
    """Which frames there are, when, and what is dreamt in each.

    rate: frames a second. each: frames of each of `count` objectives, one after the other. fade:
    how many of these the last objective fades out in. lead: frames before the first that is shown;
    a loop comes back to that one.
    """

    rate: Fraction
    each: int
    count: int
    fade: int = 0
    lead: int = 0

    @property
    def shown(self) -> int:
        """Frames of the film."""
        return self.each * self.count

    @property
    def dreamt(self) -> int:
        """Frames altogether, numbered from 0: those shown begin with number `lead`."""
        return self.lead + self.shown

    def frame(self, number: int) -> int:
        """The frame that is shown then; before the first, those of the end of the loop."""
        return (number - self.lead) % self.shown

    def time(self, frame: int) -> Fraction:
        """When a frame is shown, s."""
        return frame / self.rate

    def shares(self, frame: int) -> dict[int, float]:
        """Which objectives a frame dreams, by their place, and how much: 1 altogether.

        >>> Timetable(Fraction(30), each=10, count=2, fade=3).shares(10)
        {1: 0.25, 0: 0.75}
        """
        which, since = divmod(frame, self.each)
        if since >= self.fade or self.count == 1 or (which == 0 and not self.lead):
            return {which: 1.0}
        share = (since + 1) / (self.fade + 1)
        return {which: share, (which - 1) % self.count: 1 - share}


def timetable(settings: Any, count: int) -> Timetable:
    """That of a film of so many objectives. SettingsError for what cannot be."""
    rate = _rate(settings.fps)
    if not 0 <= settings.fade <= settings.frames:
        raise SettingsError(
            f"a fade of {settings.fade} frames: 0 to {settings.frames} were expected, the frames "
            "of an objective"
        )
    shown = settings.frames * count
    lead = min(round(LOOP_SECONDS * rate), shown // 2) if settings.loop else 0
    return Timetable(rate, settings.frames, count, settings.fade, lead)


def _rate(fps: Any) -> Fraction:
    """Frames a second, exactly where that can be said: 30, "30000/1001", 23.976."""
    try:
        rate = Fraction(str(fps)) if isinstance(fps, float) else Fraction(fps)
    except (ValueError, TypeError, ZeroDivisionError):
        rate = Fraction(0)
    if rate <= 0:
        raise SettingsError(f"fps is {fps}; a number above 0 or such as 30000/1001 was expected")
    return rate


def preset_objectives(arguments: Arguments) -> list[str]:
    """The text of what a zoom's preset dreams through that network."""
    return preset_objective(arguments)


def zoom_frames(
    start: Tensor,
    network: Network,
    objectives: Sequence[Objective],
    settings: Any,
    *,
    settings_at: SettingsAt | None = None,
    objective_at: ObjectiveAt | None = None,
    state: State | None = None,
) -> Iterator[FrameStep]:
    """The steps of a zoom: into a picture, through one objective after the other.

    D₀ = dream(start), then Dₜ = dream(Xₜ) of Xₜ = affine(Dₜ₋₁), drift pulled back and fine noise
    added: all in float32 (in float64 with precision fp64), nothing rounded between frames. What is
    shown is Dₜ.

    Args:
        start: `(1, 3, H, W)` in [0, 1].
        network: as for `dream`; device and precision are settled once, for all frames.
        objectives: each is dreamt for `settings.frames` frames; the next one fades in over
            `settings.fade`.
        settings: those of a dream, of each frame, and of the zoom.
        settings_at: (frame, time) -> the settings of a frame, where some change; which frames
            there are (`fps`, `frames`, `fade`, `loop`) and where they are computed (`device`,
            `precision`) is settled by `settings`.
        objective_at: (frame, time, objective) -> what is dreamt in its place, where weights change.
        state: that of a frame to go on behind; the frames that follow are the same to the bit.

    Raises:
        ImageError: a start that is no single picture.
        ObjectiveError: no objective.
        SettingsError: for rates and times that cannot be.
        StateError: a state that is not one of this film.
    """
    if not isinstance(start, Tensor) or start.ndim != 4 or start.shape[:2] != (1, 3):
        shape = tuple(start.shape) if isinstance(start, Tensor) else type(start).__name__
        raise ImageError(f"a zoom starts from one picture (1, 3, H, W); this is {shape}")
    if not objectives:
        raise ObjectiveError("a zoom needs an objective, such as mixed4c, or several")
    table = timetable(settings, len(objectives))
    at: SettingsAt = settings_at or (lambda frame, time: settings)
    goal_at: ObjectiveAt = objective_at or (lambda frame, time, objective: objective)
    return _frames(start, network, objectives, settings, (at, goal_at), table, state)


@dataclass(frozen=True)
class _Carried:
    """What a frame leaves for the next.

    number: of the frame. dream: its dream. home: of a loop, the dream of the first frame that is
    shown, once it is there. tile: px, the side of the tiles in which all frames are evaluated.
    """

    number: int
    dream: Tensor
    home: Tensor | None = None
    tile: int | None = None

    def state(self, precision: str) -> State:
        tensors = {"dream": self.dream} | ({} if self.home is None else {"home": self.home})
        return State(tensors, {"number": self.number, "tile": self.tile, "precision": precision})

    @classmethod
    def of(cls, state: State, start: Tensor, table: Timetable) -> _Carried:
        """StateError if the state does not fit."""
        dream, number = state.tensor("dream"), state.value("number")
        home = state.tensor("home") if 0 < table.lead <= number else None
        for tensor in (dream, home):
            if tensor is not None and (tensor.shape, tensor.dtype) != (start.shape, start.dtype):
                raise StateError(
                    f"the state does not fit: it is of frames {tensor.dtype} "
                    f"{tuple(tensor.shape)}, expected {start.dtype} {tuple(start.shape)}"
                )
        if number >= table.dreamt:
            raise StateError(f"the state is of frame {number + 1}, and there are {table.dreamt}")
        home = None if home is None else home.to(start.device)
        return cls(number, dream.to(start.device), home, state.value("tile"))


def _frames(
    start: Tensor,
    network: Network,
    objectives: Sequence[Objective],
    settings: Any,
    at: tuple[SettingsAt, ObjectiveAt],
    table: Timetable,
    state: State | None,
) -> Iterator[FrameStep]:
    precision = settings.precision if state is None else state.value("precision")
    layers = joint([objective.bound(network) for objective in objectives]).layers
    net = network.prepared(settings.device, precision, layers=layers, sample=start)
    start = start.to(net.device, torch.float64 if net.precision == "fp64" else torch.float32)
    goals = [objective.bound(net) for objective in objectives]
    zoom = _Zoom(start, net, goals, table, *at, colours_to_keep(start))
    carried = None if state is None else _Carried.of(state, start, table)
    for number in range(0 if carried is None else carried.number + 1, table.dreamt):
        steps = zoom.dream(number, carried)
        for step in steps:
            if step.last and step.octave == step.octaves - 1:
                carried = zoom.carried(number, step, carried)
                yield zoom.whole(number, step, carried)
            else:
                yield zoom.part(number, step)


@dataclass(frozen=True)
class _Zoom:
    """What stays the same for all frames of a zoom."""

    start: Tensor
    network: Network
    objectives: Sequence[Objective]
    table: Timetable
    settings_at: SettingsAt
    objective_at: ObjectiveAt
    colours: LabStatistics

    def settings(self, number: int) -> Any:
        frame = self.table.frame(number)
        return self.settings_at(frame, self.table.time(frame))

    def objective(self, number: int, which: int) -> Objective:
        frame = self.table.frame(number)
        return self.objective_at(frame, self.table.time(frame), self.objectives[which])

    def dream(self, number: int, carried: _Carried | None) -> Iterator[DreamStep]:
        """The steps of one frame's dream."""
        s = self.settings(number)
        tile = carried.tile if carried and carried.tile and s.tile == "auto" else s.tile
        net = self.network
        changed = {"device": str(net.device), "precision": net.precision, "tile": tile}
        shares = self.table.shares(self.table.frame(number))
        goals, regions = [self.objective(number, k) for k in shares], ()
        if len(shares) > 1:
            changed["rest"] = "stay"
            blank = self.start.new_ones(1, 1, *images.size_of(self.start))
            regions = tuple(
                Region(blank * share, goal)
                for share, goal in zip(shares.values(), goals, strict=True)
            )
            goals = []
        return dream_steps(
            Arguments(
                network=net,
                settings=_with(s, **changed),
                objectives=tuple(goals),
                images={"photo": self._before(number, carried, s)},
                regions=regions,
            )
        )

    def _before(self, number: int, carried: _Carried | None, s: Any) -> Tensor:
        """What a frame begins with, X."""
        if carried is None:
            start = _to_eight_bits(self.start) if s.eight_bits else self.start
            return self._moved(start, s) if s.zoom_first else start
        image = self._moved(carried.dream, s)
        frames = float(RATE / self.table.rate)  # so many of 1/30 s
        image = pulled(image, self.colours, 1 - (1 - s.pull) ** frames)
        if s.source_pull:
            image = torch.lerp(image, self.start, 1 - (1 - s.source_pull) ** frames)
        if s.noise:
            size = images.size_of(image)
            noise = band_noise(size, seed=s.seed, frame=number, like=image)
            image = torch.add(image, noise, alpha=s.noise * frames**0.5)
        left = self.table.dreamt - number
        if carried.home is not None and left <= self.table.lead:
            image = torch.lerp(image, self._seen_before(carried.home, number), 1 / left)
        return image.clamp(0, 1)

    def _moved(self, image: Tensor, s: Any) -> Tensor:
        return warp(image, self._affine(s), s.warp)

    def _affine(self, s: Any) -> Affine:
        seconds = float(1 / self.table.rate)
        return Affine.over(seconds, zoom=s.zoom, turn=s.turn, center=tuple(s.center))

    def _seen_before(self, home: Tensor, number: int) -> Tensor:
        """The first shown frame as it would be in a frame from which the zoom leads to it."""
        s = self.settings(number)
        factor, degrees = 1.0, 0.0
        for later in range(number + 1, self.table.dreamt + 1):
            step = self._affine(self.settings(later))
            factor, degrees = factor * step.factor, degrees + step.degrees
        return warp(home, Affine(factor, degrees, tuple(s.center)).inverse)

    def carried(self, number: int, step: DreamStep, before: _Carried | None) -> _Carried:
        """What a frame that is dreamt leaves for the next."""
        s = self.settings(number)
        # What is shown is float32 and on the CPU; without changes the dream itself goes on.
        changed = s.keep_colors or s.blend < 1
        dream = step.picture().to(self.start) if changed else step.image.clamp(0, 1)
        if s.eight_bits:
            dream = _to_eight_bits(dream)
        home = before.home if before else None
        if self.table.lead and number == self.table.lead:
            home = dream
        tile = before.tile if before else step.tile
        return _Carried(number, dream, home, tile)

    def whole(self, number: int, step: DreamStep, carried: _Carried) -> FrameStep:
        """The step that ends a frame; those before a loop are not shown."""
        if number < self.table.lead:
            return self.part(number, step)
        frame = self.table.frame(number)
        return FrameStep(
            frame=frame,
            frames=self.table.shown,
            time=self.table.time(frame),
            shot=0,
            dream=step,
            done=True,
            image=carried.dream.float().cpu(),
            state=lambda: carried.state(self.network.precision),
        )

    def part(self, number: int, step: DreamStep) -> FrameStep:
        """A step on the way to a frame; those before a loop are on the way to the first one."""
        before, work = min(number, self.table.lead), step.work
        if number <= self.table.lead:
            work = (before + work) / (self.table.lead + 1)
        frame = max(number - self.table.lead, 0)
        return FrameStep(
            frame=frame,
            frames=self.table.shown,
            time=self.table.time(frame),
            shot=0,
            dream=step,
            done=False,
            image=None,
            state=_no_state,
            work=work,
        )


def _no_state() -> State:
    raise StateError("a film goes on behind a whole frame: ask for the state when one is done")


def _with(settings: Any, **changed: Any) -> Any:
    """The same settings with some changed, whatever they are made of."""
    if hasattr(settings, "model_copy"):
        return settings.model_copy(update=changed)
    return SimpleNamespace(**{**vars(settings), **changed})


def _to_eight_bits(image: Tensor) -> Tensor:
    """Cut off to 256 levels, as torchvision's `ToPILImage` does, whose pixels are bytes."""
    return (image * 255 + ROUNDING).floor().clamp(0, 255) / 255
