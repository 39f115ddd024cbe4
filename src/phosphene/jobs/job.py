"""A job: a request that is checked and loaded, run and saved, as events.

What is common to all jobs is here; `pictures`, `pages` and `films` hold a class for each kind of
output.
"""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phosphene import __version__
from phosphene import image as images
from phosphene.errors import ImageError, InTheWayError
from phosphene.jobs import outputs
from phosphene.jobs.checkpoint import Checkpoint
from phosphene.jobs.events import Ended, Event, Note, Progress, Saved, Started
from phosphene.jobs.inputs import Loaded
from phosphene.jobs.outputs import Target
from phosphene.jobs.request import Request
from phosphene.manifest import capture
from phosphene.manifest import schema as m
from phosphene.recipes.base import Arguments, Recipe
from phosphene.zoo import network_label

if TYPE_CHECKING:
    from torch import Tensor

# Signals that ask a process to end; Windows has no SIGHUP.
ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
CLAIMS = 100  # names that are tried for a result where another process takes one after the other


@dataclass(frozen=True)
class Outcome:
    """What came of the steps: the result, and if it is not whole, why and when.

    picture: `(N, 3, H, W)` of a recipe for images. page: of one for pages. frames: the records of a
    film's. step: the last one.
    """

    step: Any = None
    picture: Tensor | None = None
    page: Any = None
    frames: tuple[Any, ...] = ()
    ended: m.Ended | None = None
    error: BaseException | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to save."""
        return self.picture is None and self.page is None


@dataclass
class Job(ABC):
    """A request that is checked and loaded: `events()` runs it.

    request: complete: what was the recipe's to choose is chosen. force: files may be replaced.
    until: end after this step, as a replay of what was interrupted does.
    part: of a replay: the one picture of several that is compared.
    default: the name that its output has by default, before any number.
    checkpoint: where it keeps what a later run goes on from.
    """

    request: Request
    arguments: Arguments
    loaded: Loaded
    targets: list[Target] = field(default_factory=list)
    force: bool = False
    until: m.Ended | None = None
    part: int | None = None
    default: Path | None = None
    notes: list[Note] = field(default_factory=list)
    plan: list[int | None] = field(default_factory=list)
    checkpoint: Checkpoint | None = None

    @property
    def recipe(self) -> Recipe:
        """The recipe's declaration."""
        return self.request.declaration

    def may_replace(self, path: Path) -> bool:
        """Whether a file that is there may be replaced: by leave, or as its own of a run before."""
        return self.force or (self.checkpoint is not None and self.checkpoint.is_own(path))

    # What a kind of output says -------------------------------------------------------------------

    @property
    def whole(self) -> bool:
        """Whether all results are there and whole, as a run before has left them."""
        return False

    @abstractmethod
    def outcome(self, step: Any) -> Outcome:
        """What came of all steps, of which this is the last."""

    @abstractmethod
    def save(self, outcome: Outcome) -> tuple[list[Saved], list[Note]]:
        """Write all files; which, and what there is to note."""

    @abstractmethod
    def compared(
        self, outcome: Outcome, old: m.Manifest, file: Path, output: Path | None
    ) -> tuple[list[Event], m.Manifest]:
        """Compare what came out with the manifest and the file that are replayed.

        output: where it is written, too. The events, of which one is `Compared`, and its manifest.
        """

    def prepare_parts(  # noqa: B027
        self, *, allow: Collection[str], large: bool, recorded: bool
    ) -> None:
        """Check and load what it is put together of, if it is: see `prepare`."""

    def begin(self) -> Iterator[Event]:
        """What there is to do and to tell before the first step."""
        yield from ()

    def tell(self, step: Any) -> Iterator[Event]:
        """What there is to do and to tell after a step."""
        yield Progress(step)

    def partial(self, step: Any, why: Any, error: BaseException) -> Outcome:
        """What came of steps that ended early, `step` the last, None before the first."""
        return Outcome(step, ended=m.Ended(why=why, octave=1, step=1), error=error)

    def rescued(self, step: Any, error: Exception) -> Outcome | None:
        """What came of steps that ended in an error, if anything did; None raises it."""
        return None

    def limit(self, first: int, last: int) -> None:
        """Make these frames alone, counted from 0; of a film."""
        raise NotImplementedError(f"{self.recipe.name} has no frames")

    def nothing_text(self) -> str:
        """What is said where an interruption leaves nothing to save."""
        return "interrupted, nothing was written"

    # Running --------------------------------------------------------------------------------------

    def events(self) -> Generator[Event, None, None]:
        """Run, save, and tell: see `phosphene.jobs.events`.

        A KeyboardInterrupt, here or thrown into the generator, ends it early and saves what there
        is; so do an ascent that leaves the numbers and a lack of memory after the first step.
        """
        if self.whole:
            yield from self._report_whole()
            return
        outcome = yield from self.computed()
        if outcome.empty:
            yield self._nothing(outcome)
            return
        with undisturbed():
            saved, notes = self.save(outcome)
            if self.checkpoint is not None and outcome.ended is None:
                self.checkpoint.remove()
        yield from uninterrupted([*notes, *saved, self.end(outcome)])

    def computed(self) -> Generator[Event, None, Outcome]:
        """Run without saving, but for octaves; returns the `Outcome`, which `yield from` gives."""
        yield from self.notes
        yield Started(self.recipe.name, self.arguments.network.name)
        step: Any = None
        yield from self.begin()
        try:
            for step in self.steps():
                yield from (Note(note) for note in getattr(step, "notes", ()))
                yield from self.tell(step)
        except KeyboardInterrupt as error:
            with undisturbed():
                return self.partial(step, "interrupted", error)
        except Exception as error:
            found = self.rescued(step, error)
            if found is None:
                raise
            return found
        return self.outcome(step)

    def steps(self) -> Iterator[Any]:
        """The recipe's steps."""
        return self.recipe.run(self.arguments)

    def _report_whole(self) -> Iterator[Event]:
        """Tell that nothing is left to do."""
        assert self.checkpoint is not None
        self.checkpoint.remove()
        yield Note(f"already whole: {', '.join(str(target.path) for target in self.targets)}")
        yield from (Saved("picture", target.path) for target in self.targets)
        yield Ended("done")

    # Saving ---------------------------------------------------------------------------------------

    def saved_beside(self, path: Path, save: Callable[[Path], None], notes: list[Note]) -> Path:
        """Save what is made, and say where it lies.

        It was seen before that nothing is in the way. What has come there since is another's, and
        is left; the result, which may have taken hours, lies beside it under the next free number.
        """
        main = any(target.path == path for target in self.targets)
        default = self.default if main else None  # of a main output alone, not of its data
        free = path
        for _ in range(CLAIMS):
            try:
                save(free)
            except InTheWayError:
                free = outputs.free_output(default or path)
                continue
            if free != path and default is None:
                notes.append(Note(f"note: {str(path)!r} is there by now: saved as {str(free)!r}"))
            return free
        save(free)
        return free

    def save_recipe(
        self, target: Target, manifest: m.Manifest | None, notes: list[Note]
    ) -> list[Saved]:
        """Save a recipe's own file; what keeps it from that is noted and costs no result.

        It lies inside the result as well.
        """
        if target.recipe is None or manifest is None:
            return []
        data = (manifest.text(indent=2) + "\n").encode()

        def save(path: Path) -> None:
            images.write_atomically(path, data, overwrite=self.may_replace(path))

        try:
            return [Saved("recipe", self.saved_beside(target.recipe, save, notes))]
        except ImageError as error:
            notes.append(Note(f"note: the recipe {str(target.recipe)!r} is not saved: {error}"))
            return []

    def manifest(
        self,
        outcome: Outcome,
        settings: Any,
        subject: Sequence[str],
        result: m.Result,
        part: int | None = None,
    ) -> m.Manifest:
        """What is written down of a picture `(1, 3, H, W)` of the result."""
        request = self.request
        network = getattr(outcome.step, "network", self.arguments.network)
        layers = self.recipe.subject is not None and self.recipe.subject.field == "layers"
        return m.Manifest(
            phosphene=__version__,
            recipe=self.recipe.name,
            plugins=request.plugins,
            network=m.NetworkUsed(
                name=network_label(request.network), fingerprint=network.fingerprint
            ),
            start=request.start,
            size=request.size,
            inputs=self.loaded.records,
            regions=request.regions,
            settings=self.recipe.dump_settings(settings, request.regions),
            result=result,
            part=part,
            plan=tuple(self.plan),
            versions=capture.versions(),
            machine=capture.machine(network),
            ended=outcome.ended,
            objectives=() if layers else tuple(subject),
            layers=tuple(subject) if layers else (),
        )

    def subject(self) -> Sequence[str]:
        """The objectives or layers that it is about."""
        subject = self.recipe.subject
        return () if subject is None else getattr(self.request, subject.field)

    # The end --------------------------------------------------------------------------------------

    def _nothing(self, outcome: Outcome) -> Ended:
        """The end of what gave nothing to save; an error that is no interruption is raised."""
        if not isinstance(outcome.error, KeyboardInterrupt):
            assert outcome.error is not None
            raise outcome.error
        stored = getattr(outcome.step, "stored", None) if self.arguments.cache else None
        if stored:
            text = f"interrupted: {stored}; the same command goes on from there"
        else:
            text = self.nothing_text()
        return Ended("interrupted", text, outcome.error)

    def end(self, outcome: Outcome) -> Ended:
        """The last event of what was saved."""
        if outcome.ended is None:
            return Ended("done")
        ended = outcome.ended
        assert ended.why != "octave"
        return Ended(ended.why, "", outcome.error, ended.octave, ended.step)


def uninterrupted(events: Iterable[Event]) -> Iterator[Event]:
    """Events of what is done: whoever is interrupted while it takes one still gets the rest."""
    for event in events:
        with suppress(KeyboardInterrupt):
            yield event


@contextmanager
def undisturbed() -> Iterator[None]:
    """A second Ctrl-C, and what else ends a process politely, waits until all is written."""
    before: dict[int, Any] = {}
    with suppress(ValueError):  # not in the main thread, where no signal arrives
        for name in ENDING:
            if number := getattr(signal, name, None):
                before[number] = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # of one that Python did not set
                signal.signal(number, handler)
