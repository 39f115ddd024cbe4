"""`watch`: a layer's activations while a picture is dreamt, frame by frame.

The dream is gone through twice, step for step the same: which channels are the strongest and how
high they go is known at its end alone, and a film's frames are drawn one after the other, so that
none but the newest is held.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phosphene import objectives as obj
from phosphene.errors import ImageError, NetworkError, ObjectiveError
from phosphene.explain.layers import check_channel, layer_of
from phosphene.explain.responses import layer_map
from phosphene.explain.watch_page import Board, Moment
from phosphene.network import Layer, Network
from phosphene.objectives import Objective
from phosphene.recipes.base import Arguments
from phosphene.recipes.steps.dream import DreamStep, dream_steps
from phosphene.recipes.steps.frames import FrameStep
from phosphene.recipes.steps.stages import stages
from phosphene.state import State

# Of a map's places, what its colours go up to: a single place would leave the others pale.
QUANTILE = 0.99


@dataclass(frozen=True)
class WatchStep(FrameStep):
    """A step of a film of activations.

    finding: it is one of the first dream, which is gone through to find channels and limits.
    """

    finding: bool = False

    @property
    def share(self) -> float:
        """How much of both dreams is done, 0 to 1."""
        return (self.dream.share + (not self.finding)) / 2

    @property
    def text(self) -> str:
        """The step in a few words."""
        if self.finding:
            return f"finding channels and limits: {self.dream.text}"
        return super().text

    @property
    def milestone(self) -> bool:
        """Whether it is worth a line of its own."""
        return self.dream.milestone if self.finding else super().milestone


@dataclass(frozen=True)
class Found:
    """What holds for a whole film.

    channels: that are shown, in this order. low, high: the activations at both ends of the palette.
    frames: that there will be.
    """

    channels: tuple[int, ...]
    low: float
    high: float
    frames: int

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Found:
        """That of a state."""
        return cls(**{**values, "channels": tuple(values["channels"])})


class Survey:
    """Gathers what `Found` is, from the maps of each frame."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.total, self.highs, self.lows = (torch.zeros(channels) for _ in range(3))

    def add(self, maps: Tensor) -> None:
        """Take the maps `(C, h, w)` of a frame."""
        flat = maps.flatten(1)
        most = np.quantile(flat.numpy(), QUANTILE, axis=1)  # torch's takes 2²⁴ values at most
        self.highs = torch.maximum(self.highs, torch.from_numpy(most).float())
        self.lows = torch.minimum(self.lows, flat.amin(1))
        self.total += flat.mean(1)
        self.count += 1

    def found(self, wanted: int | str | Sequence[int]) -> Found:
        """What holds for the film, with the channels that are wanted."""
        channels = chosen_channels(self.total, wanted)
        some = list(channels)
        return Found(
            channels, float(self.lows[some].min()), float(self.highs[some].max()), self.count
        )


def watch_timing(arguments: Arguments) -> tuple[Fraction | None, Fraction | None]:
    """Frames a second; how many there are only the dream tells."""
    return Fraction(arguments.settings.fps), None


def watch_steps(arguments: Arguments) -> Iterator[WatchStep]:
    """A film's steps: see `phosphene.watch`. What is wrong is said at once."""
    network, s, photo = arguments.network, arguments.settings, arguments.images["photo"]
    layer = watchable(network, arguments.layers[0])
    if not isinstance(s.channels, int | str):
        for channel in s.channels:
            check_channel(layer, channel)
    goal = obj.parse(s.objective) if s.objective else obj.layer(layer.name)
    dreamt = replace(arguments, objectives=(goal,), layers=(), state=None)
    dream_steps(dreamt)  # which sees to it that it is a picture
    if len(photo) != 1:
        raise ImageError(f"one picture (1, 3, H, W) is watched; these are {len(photo)}")
    return _steps(dreamt, layer, goal, arguments.state)


def watchable(network: Network, name: str) -> Layer:
    """A layer with maps, by its name or alias.

    ObjectiveError for one whose answers have no places, which names some that have.
    """
    layer = layer_of(network, name)
    if len(layer.shape) == 3 and layer.shape[1:] != (1, 1):
        return layer
    if len(layer.shape) == 2:
        blank = torch.zeros(1, 3, network.input_size, network.input_size)
        try:
            obj.token_grid({layer.name: torch.zeros(1, *layer.shape), obj.IMAGE: blank}, layer.name)
            return layer
        except ObjectiveError:
            gives = f"{layer.shape[0]} tokens, which are no grid over a picture"
    else:
        gives = f"one vector of {layer.channels} numbers"
    try:
        known = stages(network)
    except NetworkError:
        known = []
    others = f", such as {', '.join(known[-4:])}" if known else ""
    raise ObjectiveError(
        f"{layer.name} gives {gives}, so there are no maps to watch; a layer that gives maps was "
        f"expected{others}"
    )


def _steps(
    arguments: Arguments, layer: Layer, goal: Objective, state: State | None
) -> Iterator[WatchStep]:
    s = arguments.settings
    if state is None:
        found = yield from _finding(arguments, layer)
        number, taken = 0, 0
    else:
        found = Found(
            **{**state.value("found"), "channels": tuple(state.value("found")["channels"])}
        )
        number, taken = state.value("number") + 1, state.value("taken")
        if number >= found.frames:
            return
    board = Board.of(arguments.images["photo"], found.channels, s, arguments.network, layer, goal)
    place = functools.partial(_place, found, Fraction(s.fps))
    for step in dream_steps(replace(arguments, state=state)):
        taken += 1
        if not _is_shown(step, taken, s.every):
            yield WatchStep(**place(number), dream=step, done=False, image=None, state=step.state)
            continue
        maps = maps_of(step.network, layer, step.image)[list(found.channels)]
        moment = Moment(step, maps, found.low, found.high)
        more = {"found": {**vars(found)}, "number": number, "taken": taken}
        yield WatchStep(
            **place(number),
            dream=step,
            done=True,
            image=board.frame(moment),
            state=functools.partial(_state, step, more),
        )
        number += 1


def _finding(arguments: Arguments, layer: Layer) -> Iterator[WatchStep]:
    """Go through the dream once; returns what `Found` is."""
    s, survey = arguments.settings, Survey(layer.channels or 0)
    for taken, step in enumerate(dream_steps(arguments), 1):
        if _is_shown(step, taken, s.every):
            survey.add(maps_of(step.network, layer, step.image))
        place = _place(None, Fraction(s.fps), survey.count)
        yield WatchStep(**place, dream=step, done=False, image=None, state=step.state, finding=True)
    return survey.found(s.channels)


def _state(step: DreamStep, more: dict[str, Any]) -> State:
    return step.state().with_(**more)


def _place(found: Found | None, rate: Fraction, number: int) -> dict[str, Any]:
    """Where a frame is in its film."""
    frames = None if found is None else found.frames
    return {
        "frame": number,
        "frames": frames,
        "time": number / rate,
        "shot": 0,
        "duration": 1 / rate,
        "time_base": 1 / rate,
    }


def _is_shown(step: DreamStep, taken: int, every: int) -> bool:
    """Whether a step, the `taken`th of all, gives a frame: the last one always does."""
    return taken % every == 0 or (step.last and step.octave == step.octaves - 1)


def maps_of(network: Network, layer: Layer, image: Tensor) -> Tensor:
    """A layer's activations over a picture `(1, 3, H, W)`: `(C, h, w)`, float32 on the CPU."""
    return layer_map(network, layer.name, image)[0].permute(2, 0, 1).float().cpu()


def chosen_channels(strengths: Tensor, wanted: int | str | Sequence[int]) -> tuple[int, ...]:
    """Which channels are shown, by their strengths `(C,)`.

    wanted: a number of the strongest, the strongest first, of equal ones the lower number; "all";
        or which.
    """
    if isinstance(wanted, int):
        return tuple(strengths.argsort(descending=True, stable=True)[:wanted].tolist())
    if isinstance(wanted, str):
        return tuple(range(len(strengths)))
    return tuple(dict.fromkeys(wanted))
