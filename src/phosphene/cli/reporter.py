"""What a user is told while a job runs. All of it on stderr."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phosphene.cli.exits import plain
from phosphene.cli.process import collect_garbage
from phosphene.errors import DeadUnitWarning, ImageError
from phosphene.jobs.events import Ended, Event, Note, Preview, Progress

if TYPE_CHECKING:
    from collections.abc import Generator

    from rich.console import Console
    from rich.progress import Progress as Bar

SHOW_EVERY = 0.1  # s; reading a score stalls an accelerator


class Reporter:
    """Says things: `note` unless quiet, `detail` only if verbose; `follow` tells of events."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        from rich.console import Console

        self.quiet, self.verbose = quiet, verbose and not quiet
        self.console: Console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """A line for everyone who did not ask for quiet."""
        if not self.quiet:
            self.console.print(
                plain(text, lines=False), highlight=False, markup=False, soft_wrap=True
            )

    def detail(self, text: str) -> None:
        """A line for whoever wants to know everything."""
        if self.verbose:
            self.note(text)

    @property
    def live(self) -> bool:
        """Whether a bar can be shown that moves."""
        return self.console.is_terminal and not self.console.is_dumb_terminal

    @contextmanager
    def hearing_warnings(self) -> Iterator[None]:
        """Warnings, and what the package logs, become notes of one line; plans are details."""
        shown: set[str] = set()

        def show(message: Warning | str, category: type[Warning], *_: Any) -> None:
            text = f"note: {' '.join(str(message).split())}"
            ours = issubclass(category, UserWarning)
            # A card draws four times over; and what is dead is told with what comes of it.
            if text not in shown and not issubclass(category, DeadUnitWarning):
                (self.note if ours else self.detail)(text)
            shown.add(text)

        logger, handler = logging.getLogger("phosphene"), _Handler(self)
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

    def follow(
        self, events: Generator[Event, None, None], journal: Path | None = None
    ) -> tuple[list[Event], Ended]:
        """Take all events and tell of them; returns what was saved or compared, and the last.

        Ctrl-C in here reaches the job, which saves what there is. journal: a file that each event
        is added to, as a line of JSON.
        """
        collect_garbage()
        found: list[Event] = []
        with _Display(self) as display, _journal(journal, self.note) as written:

            def take(event: Event) -> None:
                written(event)
                if isinstance(event, Progress):
                    display.show(event)
                elif isinstance(event, Note):
                    (self.detail if event.detail else self.note)(event.text)
                elif not isinstance(event, Preview):  # which holds a picture
                    found.append(event)

            consume(events, take)
        ended = found[-1]
        assert isinstance(ended, Ended)
        return found, ended


def consume(events: Generator[Event, None, None], take: Callable[[Event], None]) -> None:
    """Give each event to `take`; a KeyboardInterrupt in there is thrown into the generator."""
    interruption: KeyboardInterrupt | None = None
    while True:
        try:
            event = next(events) if interruption is None else events.throw(interruption)
        except StopIteration:
            return
        interruption = None
        try:
            take(event)
        except KeyboardInterrupt as error:
            interruption = error


@contextmanager
def _journal(path: Path | None, note: Callable[[str], None]) -> Iterator[Callable[[Event], None]]:
    """What adds events to a file, each at once, with the time, s since 1970; of None, nothing.

    What cannot be added later on is lost, and not the job; that is noted once.
    """
    if path is None:
        yield lambda event: None
        return
    try:
        stream = path.open("ab", buffering=0)
    except OSError as error:
        raise ImageError(f"cannot write {str(path)!r}: {error.strerror}") from None
    broken = False
    with stream:

        def write(event: Event) -> None:
            nonlocal broken
            line = {"time": round(time.time(), 3), **event.json()}
            text = json.dumps(line, ensure_ascii=False, default=str) + "\n"
            try:
                stream.write(text.encode("utf-8", "replace"))
            except OSError as error:
                if not broken:
                    note(f"note: {str(path)!r} misses events: {error.strerror}")
                broken = True

        yield write


def check_journal(path: Path) -> None:
    """ImageError if a file is there that holds no events: nothing else is added to."""
    try:
        if not path.is_file():
            return  # a pipe, say
    except OSError as error:
        raise ImageError(f"cannot write {str(path)!r}: {error.strerror}") from None
    try:
        with path.open("rb") as stream:
            first = stream.readline(1 << 16)
    except OSError:
        return  # which is told where outputs are checked
    try:
        known = not first or "event" in json.loads(first)
    except (ValueError, TypeError):
        known = False
    if not known:
        raise ImageError(f"{str(path)!r} is there and holds no events: another name")


class _Handler(logging.Handler):
    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self.reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING:
            self.reporter.detail(record.getMessage())
        else:
            self.reporter.note(f"note: {record.getMessage()}")


class _Display:
    """Progress: a bar that moves on a terminal, else a line at each milestone."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self.estimate = Estimate()
        self.bar: Bar | None = None
        self.shown = 0.0
        self.pending: Progress | None = None  # what a cumulative job did last

    def __enter__(self) -> _Display:
        if self.reporter.live and not self.reporter.quiet:
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = (BarColumn(bar_width=20), TextColumn("{task.description}", markup=False))
            self.bar = Bar(*columns, console=self.reporter.console, transient=True)
            self.bar.start()
            self.bar.add_task("looking at the network …", total=None)
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()
            if self.pending is not None and not any(error):
                self._line(self.pending)

    def show(self, event: Progress) -> None:
        """A step is done."""
        now = time.monotonic()
        self.estimate.advance(event.share)
        if self.reporter.quiet:
            return
        if self.bar is None:
            if event.milestone:
                self._line(event)
            return
        if now - self.shown >= SHOW_EVERY or event.milestone:
            self.shown = now
            text = plain(f"{event.text}  {self.estimate.text}", lines=False)
            task = self.bar.tasks[0].id
            self.bar.update(task, description=text, total=1.0, completed=event.share)
        if event.cumulative:
            self.pending = event
        elif event.milestone:
            self._line(event)

    def _line(self, event: Progress) -> None:
        self.reporter.note(f"{event.text}  {self.estimate.elapsed:.1f} s")


class Estimate:
    """Time left, by the share of the work that is done."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.elapsed = self.share = 0.0
        self.first: tuple[float, float] | None = None

    def advance(self, share: float) -> None:
        """So much is done by now."""
        self.elapsed, self.share = time.monotonic() - self.started, share
        if self.first is None:  # the first step also finds out about the network: it tells nothing
            self.first = (self.elapsed, share)

    @property
    def text(self) -> str:
        """Such as `0:12 left`; nothing if nothing is left."""
        if self.share >= 1:
            return ""
        before, share = self.first or (0.0, 0.0)
        gained = self.share - share
        if gained <= 0:
            return "…"
        left = (self.elapsed - before) / gained * (1 - self.share)
        minutes, seconds = divmod(round(left), 60)
        hours, minutes = divmod(minutes, 60)
        clock = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
        return f"{clock} left"
