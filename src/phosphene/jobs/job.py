"""A job: a request that is checked and loaded, run and saved, as events."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phosphene import __version__
from phosphene import image as images
from phosphene.errors import (
    ImageError,
    InTheWayError,
    NonFiniteError,
    RequestError,
    StateError,
)
from phosphene.jobs import outputs
from phosphene.jobs.checkpoint import Checkpoint
from phosphene.jobs.events import Ended, Event, Note, Preview, Progress, Saved, Started
from phosphene.jobs.inputs import Loaded
from phosphene.jobs.outputs import Target
from phosphene.jobs.request import (
    Request,
)
from phosphene.manifest import capture
from phosphene.manifest import schema as m
from phosphene.recipes.base import Arguments, Recipe
from phosphene.runtime.memory import out_of_memory
from phosphene.zoo import network_label

if TYPE_CHECKING:
    from torch import Tensor

# Signals that ask a process to end; Windows has no SIGHUP.
ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
CLAIMS = 100  # names that are tried for a result where another process takes one after the other


@dataclass(frozen=True)
class Outcome:
    """What came of the steps: the result, and if it is not whole, why and when.

    picture: `(N, 3, H, W)` of a recipe for images. page: of one for pages. step: the last one.
    """

    step: Any = None
    picture: Tensor | None = None
    page: Any = None
    ended: m.Ended | None = None
    error: BaseException | None = None


@dataclass
class Job:
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

    @property
    def whole(self) -> bool:
        """Whether all results are there and whole, as a run before has left them."""
        checkpoint = self.checkpoint
        if checkpoint is None or not self.targets or self.force:
            return False
        files = [path for t in self.targets for path in (t.path, t.recipe) if path is not None]
        return all(map(checkpoint.is_whole, files)) and self._has_octaves(checkpoint)

    def _has_octaves(self, checkpoint: Checkpoint) -> bool:
        """Whether the picture of each octave is there, if these are asked for."""
        if "octaves" not in self.request.outputs:
            return True
        folder, output = Path(self.request.outputs["octaves"]), self.targets[0].path
        manifest = checkpoint.own_manifest(output)
        count = 0 if manifest is None else len(manifest.plan)
        files = [outputs.octave_file(folder, output, k + 1) for k in range(count)]
        return bool(files) and all(map(checkpoint.is_own, files))

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
        if outcome.picture is None and outcome.page is None:
            yield self._nothing(outcome)
            return
        with undisturbed():
            saved, notes = self._save(outcome)
            if self.checkpoint is not None and outcome.ended is None:
                self.checkpoint.remove()
        yield from uninterrupted([*notes, *saved, self._end(outcome)])

    def computed(self) -> Generator[Event, None, Outcome]:
        """Run without saving, but for octaves; returns the `Outcome`, which `yield from` gives."""
        yield from self.notes
        yield Started(self.recipe.name, self.arguments.network.name)
        step: Any = None
        if "octaves" in self.request.outputs:
            outputs.make_folder(Path(self.request.outputs["octaves"]))
            yield from self._octaves_before()
        try:
            for step in self._steps():
                yield from self._events_of(step)
                yield from self._save_checkpoint(step)
        except KeyboardInterrupt as error:
            with undisturbed():
                return self._partial(step, "interrupted", error)
        except NonFiniteError as error:
            if error.image is None:
                raise
            outcome = self._partial(step, "not finite", error)
            return replace(outcome, picture=error.image)
        except Exception as error:
            if step is None or self.recipe.output != "image" or not out_of_memory(error):
                raise
            return self._partial(step, "out of memory", error)
        return self._outcome(step)

    def _steps(self) -> Iterator[Any]:
        ended, arguments = self.until, self.arguments
        if self.checkpoint is not None:
            # Passed on and let go: it holds pictures.
            arguments = replace(arguments, state=self.checkpoint.state)
            self.checkpoint.state = None
        steps = self.recipe.run(arguments)
        del arguments
        for step in steps:
            yield step
            stops = ended is not None and ended.why != "not finite"
            if self.recipe.output != "image":
                continue
            if stops and ended and (step.octave + 1, step.index + 1) == (ended.octave, ended.step):
                return

    def _events_of(self, step: Any) -> Iterator[Event]:
        if self.recipe.output == "image":
            octave = getattr(step, "octave", 0)
            del self.plan[octave:]
            self.plan.append(getattr(step, "tile", None))
        for note in getattr(step, "notes", ()):
            yield Note(note)
        yield Progress(step, cumulative=self.recipe.output == "page")
        if self.recipe.output == "image":
            yield Preview(step.picture)
            if step.last and "octaves" in self.request.outputs:
                yield self._try_to_save_octave(step)

    def _save_checkpoint(self, step: Any) -> Iterator[Event]:
        """Save where the job is, if it is time."""
        if self.checkpoint is not None and self.checkpoint.due(step.last):
            problem = self.checkpoint.try_to_save(step.state(), self.plan)
            if problem:
                yield Note(problem)

    def _octaves_before(self) -> Iterator[Event]:
        """Tell which octaves' pictures are missing that a run before this one was to save."""
        if self.checkpoint is None:
            return
        folder, output = Path(self.request.outputs["octaves"]), self.targets[0].path
        done = range(1, len(self.plan))  # the octave that is gone on with is still to be saved
        missing = [k for k in done if not outputs.octave_file(folder, output, k).exists()]
        if missing:
            numbers = ", ".join(map(str, missing))
            yield Note(f"note: done before, and not saved: the picture of octave {numbers}")

    def _report_whole(self) -> Iterator[Event]:
        """Tell that nothing is left to do."""
        assert self.checkpoint is not None
        self.checkpoint.remove()
        yield Note(f"already whole: {', '.join(str(target.path) for target in self.targets)}")
        yield from (Saved("picture", target.path) for target in self.targets)
        yield Ended("done")

    def _outcome(self, step: Any) -> Outcome:
        if self.recipe.output == "page":
            return Outcome(step, page=self.recipe.result(step))
        return Outcome(step, picture=step.picture())

    def _partial(self, step: Any, why: Any, error: BaseException) -> Outcome:
        if step is None or self.recipe.output == "page":
            return Outcome(step, ended=m.Ended(why=why, octave=1, step=1), error=error)
        ended = m.Ended(why=why, octave=step.octave + 1, step=step.index + 1)
        if self.checkpoint is not None and why == "interrupted":
            with suppress(StateError):  # past, so that what was saved before is the newest
                self.checkpoint.try_to_save(step.state(), self.plan)
        return Outcome(step, picture=step.picture(), ended=ended, error=error)

    # Saving ---------------------------------------------------------------------------------------

    def _save(self, outcome: Outcome) -> tuple[list[Saved], list[Note]]:
        if self.recipe.output == "page":
            return self._save_page(outcome)
        dead, all_dead = self._dead_units(outcome)
        if all_dead and outcome.error is None:
            return [], []
        saved: list[Saved] = []
        moved: list[Note] = []
        for target in self.targets:
            picture, alpha, manifest = self.recorded(outcome, target.part)
            text = manifest.text()

            def save(path: Path) -> None:
                over = self.may_replace(path)
                images.save_image(picture, path, alpha=alpha, recipe=text, overwrite=over)  # noqa: B023

            path = self._saved_beside(target.path, save, moved)
            saved.append(Saved("picture", path))
            saved += self._save_recipe(target, manifest)
        notes = [Note(f"note: {dead} no gradient: dead, and left grey")] if dead else []
        return saved, moved + (notes if outcome.error is None else [])

    def _saved_beside(self, path: Path, save: Callable[[Path], None], notes: list[Note]) -> Path:
        """Save what is made, and say where it lies.

        It was seen before that nothing is in the way. What has come there since is another's, and
        is left; the result, which may have taken hours, lies beside it under the next free number.
        """
        free = path
        for _ in range(CLAIMS):
            try:
                save(free)
            except InTheWayError:
                free = outputs.free_output(self.default or path)
                continue
            if free != path and self.default is None:
                notes.append(Note(f"note: {str(path)!r} is there by now: saved as {str(free)!r}"))
            return free
        save(free)
        return free

    def _save_page(self, outcome: Outcome) -> tuple[list[Saved], list[Note]]:
        from phosphene.explain.layout import save_page

        notes = [Note(text, detail) for text, detail in getattr(outcome.step, "remarks", ())]
        files = [("page", target.path) for target in self.targets]
        if data := self.request.outputs.get("data"):
            files.append(("data", Path(data)))
        manifest, text = None, None
        try:
            _, manifest = self.page_recorded(outcome)
            text = manifest.text()
        except ImageError as error:  # too large as a picture, and it may be none
            pixels = any(path.suffix.lower() in images.SUFFIXES for _, path in files)
            if pixels or any(target.recipe for target in self.targets):
                raise
            notes.append(Note(f"the recipe is left out: {error}"))
        saved = []

        def save(path: Path) -> None:
            save_page(outcome.page, path, recipe=text, overwrite=self.force)

        for kind, path in files:
            saved.append(Saved(kind, self._saved_beside(path, save, notes)))
        for target in self.targets if manifest else ():
            saved += self._save_recipe(target, manifest)
        return saved, notes

    def _save_recipe(self, target: Target, manifest: m.Manifest | None) -> list[Saved]:
        if target.recipe is None or manifest is None:
            return []
        text = manifest.text(indent=2) + "\n"
        over = self.may_replace(target.recipe)
        images.write_atomically(target.recipe, text.encode(), overwrite=over)
        return [Saved("recipe", target.recipe)]

    def _try_to_save_octave(self, step: Any) -> Saved | Note:
        """The octave's file, or what kept it from being written: that ends no dream."""
        try:
            return self._save_octave(step)
        except ImageError as error:
            return Note(f"note: octave {step.octave + 1} is not saved: {error}")

    def _save_octave(self, step: Any) -> Saved:
        folder, output = Path(self.request.outputs["octaves"]), self.targets[0].path
        ended = m.Ended(why="octave", octave=step.octave + 1, step=step.index + 1)
        picture, alpha, manifest = self.recorded(Outcome(step, step.picture(), ended=ended))
        path = outputs.octave_file(folder, output, step.octave + 1)
        text = manifest.text()
        over = self.may_replace(path)
        images.save_image(picture, path, alpha=alpha, recipe=text, overwrite=over)
        return Saved("octaves", path)

    # The manifest ---------------------------------------------------------------------------------

    def recorded(
        self, outcome: Outcome, part: int | None = None
    ) -> tuple[Tensor, Tensor | None, m.Manifest]:
        """A file's picture `(1, 3, H, W)` of the result, its alpha, and its manifest."""
        assert outcome.picture is not None
        part = self.part if part is None else part
        picture = self._arranged(outcome.picture, part)
        alpha = self._opacity(picture)
        if getattr(self.arguments.settings, "transparent", False) and outcome.step is not None:
            mask = outcome.step.transparency()
            alpha = None if mask is None else self._arranged(mask, part, blank=0.0)
        manifest = self._manifest(outcome, self.arguments.settings, self._subject(), picture, part)
        return picture, alpha, manifest

    def page_recorded(self, outcome: Outcome) -> tuple[Tensor, m.Manifest]:
        """A page's pixels `(1, 3, H, W)`, and its manifest: settings as they were resolved."""
        from phosphene.explain.layout import pixels

        page, picture = outcome.page, pixels(outcome.page)
        manifest = self._manifest(outcome, page.settings, page.subject, picture, None)
        return picture, manifest

    def _manifest(
        self,
        outcome: Outcome,
        settings: Any,
        subject: Sequence[str],
        picture: Tensor,
        part: int | None,
    ) -> m.Manifest:
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
            result=capture.result_of(picture),
            part=part,
            plan=tuple(self.plan),
            versions=capture.versions(),
            machine=capture.machine(network),
            ended=outcome.ended,
            objectives=() if layers else tuple(subject),
            layers=tuple(subject) if layers else (),
        )

    def _subject(self) -> Sequence[str]:
        subject = self.recipe.subject
        return () if subject is None else getattr(self.request, subject.field)

    def _arranged(self, pictures: Tensor, part: int | None, *, blank: float = 1.0) -> Tensor:
        """What a file holds of a result `(N, C, H, W)`: its part, or all of it as one picture.

        A row for each objective or layer with its batch; where there is one of either, near a
        square. blank: what lies between pictures.
        """
        if not self.recipe.several:
            return pictures
        if part is not None:
            if part > len(pictures):
                raise RequestError(
                    f"the recipe is of picture {part}, and there are {len(pictures)}"
                )
            return pictures[part - 1 : part]
        batch = getattr(self.arguments.settings, "batch", 1)
        rows = len(pictures) // batch
        return images.grid(pictures, columns=batch if rows > 1 and batch > 1 else None, blank=blank)

    def _opacity(self, picture: Tensor) -> Tensor | None:
        """The photo's alpha, at a picture's size; of several pictures in one there is none."""
        size, alpha = images.size_of(picture), self.loaded.alpha
        if alpha is None or images.size_of(alpha) == size:
            return alpha
        height, width = images.size_of(alpha)
        rounding = max(*size, height, width)
        if abs(height * size[1] - width * size[0]) > rounding:
            return None
        return images.resize(alpha, size).clamp(0, 1)

    # The end --------------------------------------------------------------------------------------

    def _nothing(self, outcome: Outcome) -> Ended:
        """The end of what gave nothing to save; an error that is no interruption is raised."""
        if not isinstance(outcome.error, KeyboardInterrupt):
            assert outcome.error is not None
            raise outcome.error
        stored = getattr(outcome.step, "stored", None) if self.arguments.cache else None
        if self.checkpoint is not None and self.checkpoint.path.exists():
            text = "interrupted; the same command goes on from the checkpoint"
        elif stored:
            text = f"interrupted: {stored}; the same command goes on from there"
        elif self.recipe.output == "image":
            text = "interrupted before the first step, nothing was written"
        else:
            text = "interrupted, nothing was written"
        return Ended("interrupted", text, outcome.error)

    def _end(self, outcome: Outcome) -> Ended:
        dead, all_dead = self._dead_units(outcome)
        if all_dead and outcome.error is None:
            count = outcome.step.steps
            steps = f"{count} step{'s' if count > 1 else ''}"
            return Ended("dead", f"{dead} no gradient in {steps}: dead; nothing was written")
        if outcome.ended is None:
            return Ended("done")
        ended = outcome.ended
        assert ended.why != "octave"
        return Ended(ended.why, "", outcome.error, ended.octave, ended.step)

    def _dead_units(self, outcome: Outcome) -> tuple[str, bool]:
        """Which units are dead, such as `mixed4c:7 gives`, and whether all are."""
        dead = getattr(outcome.step, "dead", None)
        if dead is None or not bool(dead.any()):
            return "", False
        texts = list(self._subject())
        rows = len(dead) // len(texts) if texts else 1
        found = [t for k, t in enumerate(texts) if bool(dead[k * rows : (k + 1) * rows].all())]
        if len(found) > 4:
            text = f"{', '.join(found[:4])} and {len(found) - 4} more give"
        else:
            text = f"{' and '.join(found) or 'the objective'} give{'s' if len(found) < 2 else ''}"
        return text, bool(dead.all())


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
