"""The loop of `film`: what was dreamt travels with what it was dreamt on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from phosphene import image as images
from phosphene.errors import ImageError, StateError
from phosphene.evaluation.several import joint
from phosphene.films.cuts import Change, Lookahead, change
from phosphene.films.flow import motion, warp
from phosphene.films.frames import Frame
from phosphene.network import Network
from phosphene.objectives import Objective
from phosphene.recipes.base import Arguments, Region
from phosphene.recipes.steps.dream import DreamStep, dream_steps
from phosphene.recipes.steps.frames import FrameStep
from phosphene.state import State

RATE = 30  # frames a second, at which `decay` is what a frame keeps
APART = Fraction(1, 2)  # s, at least, between two cuts
UNCOVERED = 0.005  # the share of a frame that is worth steps of its own
FULL = 0.25  # of a mask, from which on all is carried

SettingsAt = Callable[[int, Fraction], Any]
ObjectiveAt = Callable[[int, Fraction, Objective], Objective]
Masks = Tensor | Iterator[Tensor]


def film_frames(
    source: Iterator[Frame],
    network: Network,
    objective: Objective | None,
    settings: Any,
    *,
    mask: Masks | None = None,
    regions: Sequence[Region] = (),
    frames: int | None = None,
    first: int = 0,
    settings_at: SettingsAt | None = None,
    objective_at: ObjectiveAt | None = None,
    state: State | None = None,
) -> Iterator[FrameStep]:
    """The steps of a film: each frame dreams on from what the last one dreamt.

    Of a frame F and its dream D the difference Δ = D - F is carried to the next frame along the
    motion of the film: Xₜ = clamp(Fₜ + ρ · M · W(Δₜ₋₁)), Dₜ = dream(Xₜ), where W is the warp, M
    what was seen in the frame before (see `film.flow`), and ρ = decay^(30 · s between the two). So
    the source is never resampled, and Δ stays bounded. Then Δₜ = lerp(Dₜ - Fₜ, W(Δₜ₋₁), κ · M), of
    which κ = calm^(30 · s): where Δ comes to rest is the same for any κ, and what steps of one size
    do around there is smaller by 1 - κ. What is shown is F + blend · Δ; all of Δ is carried. The
    chance of the jitter is the same for each frame: another would flicker.

    The first frame of a shot is dreamt by `first_steps`; the others by `steps`, what comes into
    view by `uncovered_steps` more. At a cut nothing is carried.

    Args:
        source: frames of one size, in order; from a state on, those after the state's.
        network: as for `dream`; device and precision are settled once, for all frames.
        objective: what is dreamt; None where regions are all that dreams.
        settings: those of a dream, of each frame, and of the film.
        mask: `(1, 1, H, W)` in [0, 1], dream where it is 1; or one for each frame, as they come,
            of which the last stays.
        regions: parts of each frame with objectives of their own.
        frames: how many there are, from the very first on, where that is known.
        first: the number of the first frame of the source, counted from 0.
        settings_at: (frame, time) -> the settings of a frame, where some change.
        objective_at: (frame, time, objective) -> what is dreamt in its place, where weights change.
        state: that of a frame to go on behind; the frames that follow are the same to the bit.

    Raises:
        ImageError: frames of another shape or size, or a mask that is none.
        MissingExtraError: OpenCV is not installed, and `flow` is not off.
        StateError: a state that is not one of this film.
    """
    ahead = Lookahead(iter(source))
    opening = next(ahead.ahead(Fraction(2**62)), None)
    if opening is None:
        return
    carried = None if state is None else _Carried.of(state, opening.image)
    precision = settings.precision if carried is None else carried.precision
    goals = [region.objective for region in regions] + ([] if objective is None else [objective])
    layers = joint([goal.bound(network) for goal in goals]).layers
    net = network.prepared(settings.device, precision, layers=layers, sample=opening.image)
    film = _Film(
        net,
        None if objective is None else objective.bound(net),
        tuple(Region(region.mask, region.objective.bound(net)) for region in regions),
        frames,
        first,
    )
    masks = iter([mask] if isinstance(mask, Tensor) else mask or ())
    number, here = film.number(carried), None
    shown = None if carried is None else carried.mask
    for frame in ahead:
        _check(frame, opening)
        shown = next(masks, shown)
        here = None if shown is None else _sized(shown, frame.image)
        s = settings if settings_at is None else settings_at(number, frame.time)
        begun = replace(film.begun(frame, ahead, carried, here, s), mask=shown)
        now = film
        if objective_at is not None and film.objective is not None:
            goal = objective_at(number, frame.time, film.objective)
            now = replace(film, objective=goal)
        carried = yield from now.dream(begun, carried, here, s)
        number += 1


def _check(frame: Frame, first: Frame) -> None:
    shape, wanted = tuple(frame.image.shape), tuple(first.image.shape)
    if len(shape) != 4 or shape[:2] != (1, 3) or shape != wanted:
        raise ImageError(
            f"frame {frame.index + 1} is {shape}; all frames of a film are one picture "
            f"(1, 3, H, W) of one size, here {wanted}"
        )


def _sized(mask: Tensor, image: Tensor) -> Tensor:
    return images.resize(mask.to(image), images.size_of(image)).clamp(0, 1)


@dataclass(frozen=True)
class _Carried:
    """What a frame leaves for the next.

    number, time: of the frame. shot: its number, which began at the time `since`. source: the frame
    that the dream lies on, the last that was no flash, `(1, 3, H, W)`. dream: its Δ, of that shape.
    tile: px, the side of the tiles in which all frames are evaluated. mask: the last that there
    was, which stays where a film of masks is over.
    """

    number: int
    time: Fraction
    shot: int
    since: Fraction
    source: Tensor
    dream: Tensor
    tile: int | None
    precision: str
    mask: Tensor | None = None

    def state(self) -> State:
        values = {
            "number": self.number,
            "time": str(self.time),
            "shot": self.shot,
            "since": str(self.since),
            "tile": self.tile,
            "precision": self.precision,
        }
        tensors = {"source": self.source, "dream": self.dream}
        return State(tensors | ({} if self.mask is None else {"mask": self.mask}), values)

    @classmethod
    def of(cls, state: State, image: Tensor) -> _Carried:
        """StateError if the state is not one of a film with frames such as `image`."""
        for name in ("source", "dream"):
            found = state.tensor(name)
            if (found.shape, found.dtype) != (image.shape, torch.float32):
                raise StateError(
                    f"the state does not fit: it is of frames {found.dtype} {tuple(found.shape)}, "
                    f"expected torch.float32 {tuple(image.shape)}"
                )
        return cls(
            state.value("number"),
            Fraction(state.value("time")),
            state.value("shot"),
            Fraction(state.value("since")),
            state.tensor("source"),
            state.tensor("dream"),
            state.value("tile"),
            state.value("precision"),
            state.tensors.get("mask"),
        )


@dataclass(frozen=True)
class _Begun:
    """How a frame begins.

    shot, since: as in `_Carried`. start: X, `(1, 3, H, W)`. anew: nothing was carried. kept: how
    much of the last Δ stays in this one, `(1, 1, H, W)`, and that. uncovered: `(1, 1, H, W)` in
    [0, 1], what came into view, where it is worth steps of its own. flash: the dream that was
    carried here goes on behind it. mask: that of the frame, as given.
    """

    frame: Frame
    shot: int
    since: Fraction
    start: Tensor
    anew: bool = False
    kept: tuple[Tensor, Tensor] | None = None
    uncovered: Tensor | None = None
    flash: bool = False
    mask: Tensor | None = None


@dataclass(frozen=True)
class _Film:
    """What stays the same for all frames of a film; the network as prepared, objectives bound."""

    network: Network
    objective: Objective | None
    regions: tuple[Region, ...]
    frames: int | None
    first: int = 0

    def number(self, carried: _Carried | None) -> int:
        """That of the frame after what is carried."""
        return self.first if carried is None else carried.number + 1

    def begun(
        self, frame: Frame, ahead: Lookahead, carried: _Carried | None, mask: Tensor | None, s: Any
    ) -> _Begun:
        """What a frame begins with: the last one's dream, or nothing."""
        if carried is None:
            return _Begun(frame, 0, frame.time, frame.image, anew=True)
        kind = change(carried.source, frame, ahead, s.cut_difference)
        moved = _moved(carried, frame, kind, s)
        if moved is None:
            # Too soon after a cut for another one; nothing is carried all the same.
            cut = frame.time - carried.since >= APART
            shot, since = carried.shot + cut, frame.time if cut else carried.since
            return _Begun(frame, shot, since, frame.image, anew=True)
        delta, seen = moved
        part = seen * self._where(mask, frame.image, s)
        delta = part * delta
        passed = RATE * max(float(frame.time - carried.time), 0.0)
        start = torch.add(frame.image, delta, alpha=s.decay**passed).clamp_(0, 1)
        calm = s.calm**passed if s.calm else 0.0
        return _Begun(
            frame,
            carried.shot,
            carried.since,
            start,
            kept=(calm * part, calm * delta),
            uncovered=1 - seen if 1 - float(seen.mean()) > UNCOVERED else None,
            flash=kind == "flash",
        )

    def _where(self, mask: Tensor | None, image: Tensor, s: Any) -> Tensor | float:
        """How much of what is carried stays: none where nothing is dreamt, all where much is.

        Not the mask itself, which would count once a frame, and again the next.
        """
        where: Tensor | float = 1.0
        if mask is not None:
            where = (mask / FULL).clamp(max=1)
        if self.regions and s.rest == "stay":
            total = torch.stack([_sized(region.mask, image) for region in self.regions]).sum(0)
            where = where * (total / FULL).clamp(max=1)
        return where

    def dream(
        self, begun: _Begun, carried: _Carried | None, mask: Tensor | None, s: Any
    ) -> Generator[FrameStep, None, _Carried]:
        """The steps of one frame; gives what it leaves for the next."""
        plans = [(s.first_steps if begun.anew else s.steps, mask)]
        if begun.uncovered is not None and s.uncovered_steps:
            new = begun.uncovered if mask is None else begun.uncovered * mask
            plans.insert(0, (s.uncovered_steps, new))
        number = self.number(carried)
        part = FrameStep(
            number,
            self.frames,
            begun.frame.time,
            begun.shot,
            None,
            False,
            None,
            _state(carried),
            duration=begun.frame.duration,
            time_base=begun.frame.time_base,
        )
        total, done, image = sum(steps for steps, _ in plans), 0, begun.start
        step = None
        for steps, within in plans:
            for step in self._steps(image, within, steps, carried, s):
                last = steps + done == total and step.last and step.octave == step.octaves - 1
                if not last:
                    yield replace(part, dream=step, work=(done + steps * step.work) / total)
            assert step is not None
            image, done = step.picture(), done + steps
        assert step is not None
        delta = _delta(begun, image, s)
        shown = torch.add(begun.frame.image, delta, alpha=s.blend).clamp_(0, 1)
        left = _left(begun, carried, delta, number, step)
        yield replace(part, dream=step, done=True, image=shown, state=left.state)
        return left

    def _steps(
        self, image: Tensor, mask: Tensor | None, steps: int, carried: _Carried | None, s: Any
    ) -> Iterator[DreamStep]:
        """A dream of a frame: all of it, and none of what the film makes of it in the end."""
        tile = carried.tile if carried and carried.tile and s.tile == "auto" else s.tile
        own = {
            "steps": steps,
            "device": str(self.network.device),
            "precision": self.network.precision,
            "tile": tile,
            "blend": 1.0,
            "keep_colors": False,
        }
        return dream_steps(
            Arguments(
                network=self.network,
                settings=SimpleNamespace(**{**vars(s), **own}),
                objectives=() if self.objective is None else (self.objective,),
                images={"photo": image} | ({} if mask is None else {"mask": mask}),
                regions=self.regions,
            )
        )


def _moved(carried: _Carried, frame: Frame, kind: Change, s: Any) -> tuple[Tensor, Tensor] | None:
    """What was dreamt, where it is now, and what of the frame was seen before, `(1, 1, H, W)`.

    None where nothing is left of it.
    """
    if kind == "cut":
        return None
    if kind == "flash" or s.flow == "off":
        return carried.dream, torch.ones_like(frame.image[:, :1])
    found = motion(carried.source, frame.image)
    if 1 - found.uncovered < s.cut_seen:
        return None
    return warp(carried.dream, found.backward), found.mask()


def _delta(begun: _Begun, image: Tensor, s: Any) -> Tensor:
    """What was dreamt, Δ, `(1, 3, H, W)`: its luma alone where colours are kept."""
    delta = image - begun.frame.image
    if s.keep_colors:
        delta = images.luma(delta).expand_as(delta)
    if begun.kept is not None:
        part, kept = begun.kept
        delta = (1 - part) * delta + kept
    return delta.contiguous()


def _left(
    begun: _Begun, carried: _Carried | None, delta: Tensor, number: int, step: DreamStep
) -> _Carried:
    source = begun.frame.image
    if begun.flash:
        # White has no room for a dream: what was there before is still there behind it.
        assert carried is not None
        source, delta = carried.source, carried.dream
    return _Carried(
        number,
        begun.frame.time,
        begun.shot,
        begun.since,
        source,
        delta,
        step.tile,
        step.network.precision,
        begun.mask,
    )


def _state(carried: _Carried | None) -> Callable[[], State]:
    def state() -> State:
        if carried is None:
            raise StateError("no frame is whole yet")
        return carried.state()

    return state
