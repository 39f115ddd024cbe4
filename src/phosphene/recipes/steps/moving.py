"""What a film's loop is given: frames, and settings that change with time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from phosphene.films.keys import Keys, split_weights, weight_bounds
from phosphene.image import luma
from phosphene.objectives import Objective
from phosphene.recipes.base import Arguments
from phosphene.recipes.steps.frames import FrameStep
from phosphene.settings import animatable, with_values

Timing = tuple[Fraction | None, Fraction | None]


@dataclass(frozen=True)
class Keyed:
    """What keyframes change: settings and weights at a frame, by its number and time in s."""

    settings: Any
    keys: Keys | None
    timing: Timing
    origin: Fraction = Fraction(0)  # s, the time of the first frame, from which keys count

    def settings_at(self, frame: int, time: Fraction) -> Any:
        """The settings of a frame."""
        values, _ = self._values(time)
        return with_values(self.settings, values, time=time) if values else self.settings

    def objective_at(self, frame: int, time: Fraction, objective: Objective) -> Objective:
        """An objective with the weights that its terms have in a frame.

        SettingsError if all are 0, so that nothing is left to dream.
        """
        _, weights = self._values(time)
        count = len(_terms(objective))
        own = {number: weight for number, weight in weights.items() if number <= count}
        return objective.with_weights(own) if own else objective

    def _values(self, time: Fraction) -> tuple[dict[str, float], dict[int, float]]:
        if self.keys is None:
            return {}, {}
        rate, duration = self.timing
        return split_weights(self.keys.at(time - self.origin, rate=rate, duration=duration))


def zoom_timing(arguments: Arguments) -> Timing:
    """Frames a second and the length of a zoom, s."""
    s = arguments.settings
    rate = Fraction(s.fps)
    return rate, s.frames * max(1, len(arguments.objectives)) / rate


def film_timing(arguments: Arguments) -> Timing:
    """Frames a second and the length of a film, s, as far as its file says."""
    film = arguments.films["film"]
    return film.rate, film.duration


def zoom_steps(arguments: Arguments) -> Iterator[FrameStep]:
    """A zoom's steps: see `phosphene.zoom`. What is wrong is said at once."""
    from phosphene.recipes.steps.zoom import zoom_frames

    keyed = keyed_by(arguments, zoom_timing(arguments))
    return zoom_frames(
        arguments.images["photo"],
        arguments.network,
        arguments.objectives,
        arguments.settings,
        settings_at=keyed.settings_at,
        objective_at=keyed.objective_at,
        state=arguments.state,
    )


def film_steps(arguments: Arguments) -> Iterator[FrameStep]:
    """A film's steps: see `phosphene.film`. What is wrong is said at once."""
    from phosphene.recipes.steps.film import film_frames

    film, state, settings = arguments.films["film"], arguments.state, arguments.settings
    first = arguments.first_frame if state is None else state.value("number") + 1
    mask: Any = arguments.images.get("mask")
    if mask is None and "mask" in arguments.films:
        frames = arguments.films["mask"].frames(first)
        mask = (luma(frame.image) for frame in frames)
    dreams = not arguments.regions or settings.rest == "dream"
    keyed = keyed_by(arguments, film_timing(arguments), film.start)
    return film_frames(
        film.frames(first),
        arguments.network,
        arguments.objectives[0] if dreams else None,
        settings,
        mask=mask,
        regions=arguments.regions,
        frames=film.count,
        first=first,
        settings_at=keyed.settings_at,
        objective_at=keyed.objective_at,
        state=state,
    )


def keyed_by(arguments: Arguments, timing: Timing, origin: Fraction = Fraction(0)) -> Keyed:
    """What a film's keyframes say; `origin` is the time of its first frame, s.

    SettingsError for a key of what cannot change, or whose values are out of bounds at some time.
    """
    settings = arguments.settings
    if not settings.keyframes:
        return Keyed(settings, None, timing, origin)
    keys, (rate, duration) = Keys(settings.keyframes), timing
    most = max((len(_terms(goal)) for goal in arguments.objectives), default=0)
    keys.check(animatable(type(settings)) | weight_bounds(most), rate=rate, duration=duration)
    return Keyed(settings, keys, timing, origin)


def _terms(goal: Objective) -> Sequence[Any]:
    return goal.terms or (goal,)
