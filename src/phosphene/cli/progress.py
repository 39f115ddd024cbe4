"""What a user is told while a picture is made. All of it on stderr."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from phosphene.manifest import AnyStep

SHOW_EVERY = 0.1  # s; reading a score stalls an accelerator


class Voice:
    """Says things: `note` unless quiet, `detail` only if verbose."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        from rich.console import Console

        self.quiet, self.verbose = quiet, verbose and not quiet
        self.console: Console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)

    def note(self, text: str) -> None:
        if not self.quiet:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def detail(self, text: str) -> None:
        if self.verbose:
            self.note(text)

    @contextmanager
    def hearing_warnings(self) -> Iterator[None]:
        """Warnings, and what the package logs, become notes of one line; plans are details."""

        said: set[str] = set()

        def show(message: Warning | str, category: type[Warning], *_: Any) -> None:
            text = f"note: {' '.join(str(message).split())}"
            ours = issubclass(category, UserWarning)
            if text not in said:  # a card draws four times over
                (self.note if ours else self.detail)(text)
            said.add(text)

        logger, handler = logging.getLogger("phosphene"), _Told(self)
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            with warnings.catch_warnings():
                warnings.showwarning = show
                yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)


class _Told(logging.Handler):
    def __init__(self, voice: Voice) -> None:
        super().__init__()
        self.voice = voice

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING:
            self.voice.detail(record.getMessage())
        else:
            self.voice.note(f"note: {record.getMessage()}")


def watched(steps: Iterable[AnyStep], voice: Voice, scale: float | None) -> Iterator[AnyStep]:
    """The same steps, told of as they pass: live on a terminal, else a line for each octave.

    `scale` is that between octaves, by which the pixels to come are guessed; None if there is no
    talk of octaves.
    """
    if voice.quiet:
        yield from steps
    elif voice.console.is_terminal and not voice.console.is_dumb_terminal:
        yield from _live(steps, voice, scale)
    else:
        start = time.monotonic()
        for step in steps:
            if step.last:
                voice.note(f"{_where(step, scale)}  {time.monotonic() - start:.1f} s")
            yield step


def _where(step: AnyStep, scale: float | None) -> str:
    count, _, height, width = step.image.shape
    octave = "" if scale is None else f"octave {step.octave + 1}/{step.octaves}  "
    several = f"{count} of " if count > 1 else ""
    return (
        f"{octave}step {step.index + 1}/{step.steps}  {several}{width}×{height}  "
        f"score {float(step.score.mean()):.4g}"
    )


def _live(steps: Iterable[AnyStep], voice: Voice, scale: float | None) -> Iterator[AnyStep]:
    from rich.progress import BarColumn, Progress, TextColumn

    clock = _Clock(scale or 1.0)
    columns = (BarColumn(bar_width=20), TextColumn("{task.description}"))
    with Progress(*columns, console=voice.console, transient=True) as progress:
        task = progress.add_task("looking at the network …", total=None)
        shown = 0.0
        for step in steps:
            clock.tick(step)
            now = time.monotonic()
            if now - shown >= SHOW_EVERY or step.last:
                shown = now
                told = f"{_where(step, scale)}  {clock.told()}"
                progress.update(task, description=told, total=1.0, completed=clock.share)
            if step.last:
                progress.console.print(
                    f"{_where(step, scale)}  {clock.elapsed:.1f} s", highlight=False, markup=False
                )
            yield step


class _Clock:
    """Time left, by pixels: the last octave alone is about half of all work."""

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.elapsed = self.first = 0.0
        self.share = self.first_share = 0.0
        self.started = time.monotonic()

    def tick(self, step: AnyStep) -> None:
        self.elapsed = time.monotonic() - self.started
        # Of each octave's pixels, where the one at hand has 1.
        work = [self.scale ** (2 * (k - step.octave)) for k in range(step.octaves)]
        done = sum(work[: step.octave]) + work[step.octave] * (step.index + 1) / step.steps
        if step.last:
            done = sum(work[: step.octave + 1])
        self.share = done / sum(work)
        if not self.first:  # the first step also finds out about the network: it tells nothing
            self.first, self.first_share = self.elapsed, self.share

    def told(self) -> str:
        if self.share >= 1:
            return ""
        gained = self.share - self.first_share
        if gained <= 0:
            return "…"
        left = (self.elapsed - self.first) / gained * (1 - self.share)
        minutes, seconds = divmod(round(left), 60)
        hours, minutes = divmod(minutes, 60)
        return (
            f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left"
        )


def to_stdout(text: str) -> None:
    """A result."""
    print(text, file=sys.stdout, flush=True)
