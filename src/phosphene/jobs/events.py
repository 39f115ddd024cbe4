"""What a running job tells: each event also as JSON; pictures stay in the process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from phosphene.jobs.compare import Comparison

Why = Literal["done", "interrupted", "not finite", "out of memory", "dead"]


@dataclass(frozen=True)
class Started:
    """All is loaded and checked, and the first step comes next."""

    recipe: str
    network: str

    def json(self) -> dict[str, Any]:
        """The event as JSON can hold it."""
        return {"event": "started", "recipe": self.recipe, "network": self.network}


@dataclass(frozen=True)
class Note:
    """Something that a user should know; `detail` if only one who wants to know everything."""

    text: str
    detail: bool = False

    def json(self) -> dict[str, Any]:
        """The event as JSON can hold it."""
        return {"event": "note", "text": self.text, "detail": self.detail}


@dataclass(frozen=True)
class Progress:
    """A step is done.

    share: of all the work, 0 to 1. milestone: worth a line of its own. cumulative: each text says
    all that the ones before it said. more: what the step does not know, such as how fast it goes.
    `text` and `score` are read from the step when asked for,
    since reading them stalls an accelerator.
    """

    step: Any = field(repr=False)
    cumulative: bool = False
    more: str = ""

    @property
    def share(self) -> float:
        """How much of all the work is done, 0 to 1."""
        return self.step.share

    @property
    def text(self) -> str:
        """What was done, in a few words."""
        return f"{self.step.text}  {self.more}" if self.more else self.step.text

    @property
    def milestone(self) -> bool:
        """Whether it is worth a line of its own."""
        return self.step.milestone

    @property
    def score(self) -> float | None:
        """The mean of the pictures' scores, where there are any."""
        score = getattr(self.step, "score", None)
        return None if score is None else float(score.mean())

    def json(self) -> dict[str, Any]:
        """The event as JSON can hold it."""
        found = {
            "event": "progress",
            "share": round(self.share, 4),
            "text": self.text,
            "score": self.score,
        }
        # Counted from 1, as for people.
        where = {"octave": getattr(self.step, "octave", None),
                 "step": getattr(self.step, "index", None),
                 "frame": getattr(self.step, "frame", None)}  # fmt: skip
        return found | {name: k + 1 for name, k in where.items() if k is not None}


@dataclass(frozen=True)
class Preview:
    """The result so far can be had: `picture()`, `(N, 3, H, W)` in [0, 1] on the CPU."""

    picture: Callable[[], Tensor] = field(repr=False)

    def json(self) -> dict[str, Any]:
        """The event as JSON can hold it: that there is one."""
        return {"event": "preview"}


@dataclass(frozen=True)
class Saved:
    """A file is written, whole: a picture, page, data, recipe or the picture of an octave."""

    kind: str
    path: Path

    def json(self) -> dict[str, Any]:
        """The event as JSON can hold it."""
        return {"event": "saved", "kind": self.kind, "path": str(self.path)}


@dataclass(frozen=True)
class Compared:
    """A replay is compared with what it replays: see `phosphene.jobs.compare.Comparison`."""

    comparison: Comparison

    def json(self) -> dict[str, Any]:
        """The event as JSON can hold it."""
        return {"event": "compared", **vars(self.comparison)}


@dataclass(frozen=True)
class Ended:
    """The last event.

    why: done; or why it ended early, with what there was until then saved if there was anything.
    text: that in a few words, where there is more to say. error: what was raised, if anything was.
    octave, step: where it ended early, counted from 1.
    """

    why: Why
    text: str = ""
    error: BaseException | None = field(default=None, repr=False)
    octave: int | None = None
    step: int | None = None

    def json(self) -> dict[str, Any]:
        """The event as JSON can hold it."""
        whole: dict[str, Any] = {"event": "ended", "why": self.why, "text": self.text}
        return whole | {k: v for k, v in (("octave", self.octave), ("step", self.step)) if v}


Event = Started | Note | Progress | Preview | Saved | Compared | Ended
