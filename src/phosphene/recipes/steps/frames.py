"""What a step of a recipe for films is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from torch import Tensor

from phosphene.state import State

TOLD_EVERY = 10  # frames, where there is no bar that moves


@dataclass(frozen=True)
class FrameStep:
    """A step of a film: a step of the dream of one frame, or the end of that frame.

    `frame` of `frames` counts from 0; `frames` is None where a source does not say how many it has.
    `time` is the frame's own, s. `shot` counts from 0: at a cut the dream starts anew. `dream` is
    the step within the frame, a `DreamStep`. `done`: the frame is whole, and `image`
    `(1, 3, H, W)`, float32 in [0, 1] on the CPU, is what is shown of it; None before. `state()` is
    what is needed to go on with the next frame; it may be asked for when a frame is done, until the
    next step is. `work`: how much of the frame is done, 0 to 1. `duration` and `time_base`, s: how
    long the frame is shown, and what its time is counted in, where a source says so.
    """

    frame: int
    frames: int | None
    time: Fraction
    shot: int
    dream: Any
    done: bool
    image: Tensor | None
    state: Callable[[], State] = field(repr=False)
    work: float = 1.0
    duration: Fraction | None = None
    time_base: Fraction | None = None

    @property
    def share(self) -> float:
        """How much of all work is done, 0 to 1; of a film of unknown length 0."""
        if not self.frames:
            return 0.0
        return min(1.0, (self.frame + (1.0 if self.done else self.work)) / self.frames)

    @property
    def text(self) -> str:
        """The step in a few words."""
        count = f"/{self.frames}" if self.frames else ""
        minutes, seconds = divmod(float(self.time), 60)
        text = f"frame {self.frame + 1}{count}  {int(minutes)}:{seconds:05.2f}"
        if self.shot:
            text += f"  shot {self.shot + 1}"
        return f"{text}  score {float(self.score.mean()):.4g}"

    @property
    def milestone(self) -> bool:
        """Whether it is worth a line of its own: every tenth frame, and the last."""
        number = self.frame + 1
        return self.done and (number % TOLD_EVERY == 0 or number == self.frames)

    @property
    def score(self) -> Tensor:
        """`(1,)`, that of the frame before the dream's step."""
        return self.dream.score

    @property
    def network(self) -> Any:
        """The one that it runs on, device and precision settled."""
        return self.dream.network

    @property
    def tile(self) -> int | None:
        """The side of the tiles in which the frame was evaluated, px, None for whole."""
        return self.dream.tile

    def picture(self) -> Tensor:
        """The frame so far, `(1, 3, H, W)` in [0, 1] on the CPU."""
        return self.dream.picture() if self.image is None else self.image

    def _repr_jpeg_(self) -> bytes:
        """The picture, for a notebook."""
        from phosphene.image.shown import as_jpeg

        return as_jpeg(self.picture())
