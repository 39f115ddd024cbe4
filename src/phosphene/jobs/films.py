"""Jobs whose result is a film: frames that are kept as they come, and encoded at the end."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from torch import Tensor

from phosphene import image as images
from phosphene.errors import PhospheneError, SettingsError
from phosphene.films.frames import Frame
from phosphene.films.write import write_film
from phosphene.jobs.compare import Comparison, differing
from phosphene.jobs.events import Compared, Ended, Event, Note, Preview, Progress, Saved, Started
from phosphene.jobs.job import Job, Outcome, undisturbed, uninterrupted
from phosphene.jobs.outputs import check_side_file
from phosphene.jobs.work import FrameRecord, WorkFolder
from phosphene.manifest import schema as m
from phosphene.network import Network
from phosphene.recipes.base import imported
from phosphene.recipes.function import of_files_alone


@dataclass
class FilmJob(Job):
    """A job of a recipe for films: see `Job`.

    keep_frames: the folder of its work stays, with the frames alone.
    first, last: of a replay: the frames that are made, counted from 0; the first begins a shot.
    """

    keep_frames: bool = False
    first: int = 0
    last: int | None = None
    work: WorkFolder | None = None
    records: list[FrameRecord] = field(default_factory=list)
    started: float = 0.0
    made: int = 0
    precision: str = "auto"  # in which a run before this one has computed

    def limit(self, first: int, last: int) -> None:
        """Make these frames alone, counted from 0; the first begins a shot."""
        self.first, self.last = first, last

    # Running --------------------------------------------------------------------------------------

    def events(self) -> Generator[Event, None, None]:
        """Run, keep each frame, encode, and tell.

        A KeyboardInterrupt ends it early; the same request goes on from the frames that are kept.
        """
        try:
            outcome = yield from self.computed()
            if outcome.error is not None:
                yield self._nothing(outcome)
                return
            yield Note(f"encoding {len(outcome.frames)} frames", detail=True)
            saved, notes = self.save(outcome)
        except KeyboardInterrupt as error:
            yield self._nothing(Outcome(error=error))
            return
        except (PhospheneError, OSError):
            if self.work is not None and self.work.records:
                yield Note(f"the frames so far are kept in {str(self.work.path)!r}: {GOES_ON}")
            elif self.work is not None:
                self.work.remove_if_empty()
            raise
        yield from uninterrupted([*notes, *saved, self.end(outcome)])

    def begin(self) -> Iterator[Event]:
        """Open or make the folder, where something is to be written; tell where it goes on."""
        if not self.targets:
            return
        identity = self.request.identity(self.arguments.network.fingerprint)
        for name, entry in self.recipe.settings.model_fields.items():
            if of_files_alone(entry):  # how it is encoded is no matter of its frames
                identity["settings"].pop(name, None)
        if (self.first, self.last) != (0, None):
            identity["frames"] = [self.first, self.last]
        self.work = WorkFolder.opened(WorkFolder.beside(self.targets[0].path), identity)
        self.records = self.work.records
        if self.records:
            yield Note(
                f"goes on after frame {len(self.records)}, as {str(self.work.path)!r} has it"
            )
        self.work.begin(self.request.relative_to(self.work.path).text())

    def steps(self) -> Iterator[Any]:
        """The recipe's steps, from where the folder is, to where a replay ends."""
        arguments = replace(self.arguments, first_frame=self.first)
        if self.work is not None:
            arguments = replace(arguments, state=self.work.state)
            if self.work.state is not None:
                self.precision = self.work.state.value("precision")
            self.work.state = None
        self.started, self.made = time.monotonic(), 0
        for step in self.recipe.run(arguments):
            yield step
            if step.done and step.frame == self.last:
                return

    def tell(self, step: Any) -> Iterator[Event]:
        """How far it is; a frame that is whole is kept."""
        if not step.done:
            yield Progress(step, more=self._rate())
            return
        if self.work is None:
            pixels = images.to_uint8(step.image).tobytes()
            self.records.append(FrameRecord.of(step, pixels))
        else:
            if not self.made:
                height, width = images.size_of(step.image)
                if told := self.work.check_disk(step.frames, height * width):
                    yield Note(told)
            with undisturbed():
                self.work.add(step)
        self.made += 1
        yield Progress(step, more=self._rate())
        yield Preview(step.picture)

    def _rate(self) -> str:
        """Frames a second, once two are made: the first one takes longer."""
        taken = time.monotonic() - self.started
        return f"{self.made / taken:.2g} frames/s" if self.made > 1 and taken else ""

    def outcome(self, step: Any) -> Outcome:
        """All frames."""
        return Outcome(step, frames=tuple(self.records))

    def partial(self, step: Any, why: Any, error: BaseException) -> Outcome:
        """Nothing to save: the frames are kept, and the same request goes on from them."""
        return Outcome(step, error=error)

    def nothing_text(self) -> str:
        """What is said of a film that is not whole."""
        if self.work is None or not self.work.records:
            if self.work is not None:
                self.work.remove_if_empty()
            return "interrupted before the first frame, nothing was written"
        count = len(self.work.records)
        return f"interrupted after frame {count}, which {str(self.work.path)!r} keeps: {GOES_ON}"

    # Saving ---------------------------------------------------------------------------------------

    def save(self, outcome: Outcome) -> tuple[list[Saved], list[Note]]:
        """Encode the frames, with sound and manifest; then the folder goes."""
        assert self.work is not None
        self.request.check_inputs()  # which may have changed while it ran
        target, manifest = self.targets[0], self._recorded(outcome)
        settings = self.arguments.settings
        more = {}
        source = next(iter(self.arguments.films.values()), None)
        if source is not None and source.path is not None:
            more = {"audio_from": source.path, "begin": source.begin, "end": source.end}
        told = write_film(
            target.path,
            self.work.frames(),
            codec=settings.codec,
            crf=settings.crf,
            metadata=manifest.text(),
            overwrite=self.may_replace(target.path),
            **more,
        )
        notes = [Note(f"{target.path}: {text}") for text in told.notes]
        saved = [Saved("film", target.path), *self.save_recipe(target, manifest, notes)]
        self.work.remove(keep_frames=self.keep_frames)
        if self.keep_frames:
            notes.append(Note(f"the frames are in {str(self.work.path / 'frames')!r}"))
        return saved, notes

    def kept(self) -> Iterator[Frame]:
        """The frames in the folder."""
        return iter(()) if self.work is None else self.work.frames()

    def _recorded(self, outcome: Outcome) -> m.Manifest:
        """The manifest, with a hash of each frame."""
        records = outcome.frames
        hashes = tuple(record.hash for record in records)
        if outcome.step is None:  # a run before this one has made all frames
            s, network = self.arguments.settings, self.arguments.network
            outcome = replace(outcome, step=_Made(network.prepared(s.device, self.precision)))
            height, width = images.size_of(next(self.kept()).image)
        else:
            height, width = images.size_of(outcome.step.picture())
        whole = hashlib.sha256("".join(hashes).encode()).hexdigest()
        shots = tuple(
            record.index
            for before, record in zip((None, *records), records, strict=False)
            if before is None or before.shot != record.shot
        )
        manifest = self.manifest(
            outcome,
            self.arguments.settings,
            self.subject(),
            m.Result(width=width, height=height, sha256=whole),
        )
        return manifest.model_copy(update={"film": m.FilmMade(frames=hashes, shots=shots)})

    def compared(
        self, outcome: Outcome, old: m.Manifest, file: Path, output: Path | None
    ) -> tuple[list[Event], m.Manifest]:
        """Compare each frame with that of the manifest, by its hash."""
        events: list[Event] = []
        new = self._recorded(outcome)
        if output:
            events += self.save(outcome)[0]
        assert old.film is not None
        then = old.film.frames[self.first : None if self.last is None else self.last + 1]
        now = new.film.frames if new.film else ()
        others = [k for k, (a, b) in enumerate(zip(then, now, strict=False)) if a != b]
        found = Comparison(
            same=not others and len(then) == len(now),
            unchanged=None,
            most=None,
            mean=None,
            differing=differing(old, new),
            frames=tuple(self.first + k for k in others),
            count=len(now),
        )
        return [*events, Compared(found)], new


@dataclass(frozen=True)
class _Made:
    """What stands for the last step where a run before this one took it."""

    network: Network


GOES_ON = "the same command goes on from there"


# Instead of all of it -----------------------------------------------------------------------------

PREVIEW_SIDE = 256  # px, the longest side of a preview's film
PREVIEW_SECONDS = 2


def timing(job: Job) -> tuple[Fraction | None, Fraction | None]:
    """Frames a second and the length in s of the film of a job, as far as they are known."""
    return imported(job.recipe.timing)(job.arguments)


def plot_keys(job: Job, path: Path, *, overwrite: bool) -> None:
    """Draw the curves of a job's keyframes. SettingsError if it has none; ImageError if it cannot.

    path: a file that ends in .png or .svg.
    """
    from phosphene.explain.key_page import plot_keys as draw
    from phosphene.recipes.steps.moving import keyed_by

    rate, duration = timing(job)
    keys = keyed_by(job.arguments, (rate, duration)).keys
    if keys is None:
        raise SettingsError("there is no --key, so there are no curves to draw")
    if rate is None or duration is None:
        raise SettingsError("the film does not say how long it is, so there are no curves to draw")
    check_side_file(path, lambda _: overwrite)
    draw(keys, path, rate=rate, duration=duration)


def preview(job: FilmJob, *, overwrite: bool) -> Generator[Event, None, None]:
    """A film's first frame as it will be, two seconds of it in small, and how long all will take.

    The frame lies beside the film as NAME-preview.png, the seconds as NAME-preview with the film's
    own suffix.
    """
    output = job.targets[0].path
    picture = output.with_name(f"{output.stem}-preview.png")
    images.check_output(picture, overwrite=overwrite)
    small = _small(job, output.with_name(f"{output.stem}-preview{output.suffix}"), overwrite)
    yield from job.notes
    made: list[tuple[Tensor, float]] = []  # the first two frames, and when they were
    frames: int | None = None
    started = time.monotonic()
    for step in job.recipe.run(job.arguments):
        yield Progress(step)
        frames = step.frames
        if step.done:
            made.append((step.picture(), time.monotonic() - started))
        if len(made) == 2:
            break
    images.save_image(made[0][0], picture, overwrite=overwrite)
    yield Saved("picture", picture)
    small.notes = []
    for event in small.events():
        if not isinstance(event, Started):
            yield event if not isinstance(event, Ended) else Note(_told(frames, made))
    yield Ended("done")


def _small(job: FilmJob, output: Path, overwrite: bool) -> FilmJob:
    """The job of the first seconds of a film, with small frames."""
    from phosphene.jobs.runner import prepare

    rate, _ = timing(job)
    size = min(PREVIEW_SIDE, job.request.size or PREVIEW_SIDE)
    update = {"size": size, "outputs": {"film": str(output)}}
    request = job.request.model_copy(update=update)
    small = prepare(
        request, force=overwrite, allow=(request.network,), network=job.arguments.network
    )
    assert isinstance(small, FilmJob)
    small.limit(0, max(1, round(PREVIEW_SECONDS * (rate or 30))) - 1)
    return small


def _told(frames: int | None, made: Sequence[tuple[Tensor, float]]) -> str:
    """How long all of a film will take, by its first two frames."""
    first, last = made[0][1], made[-1][1]
    each = last - first if len(made) > 1 else first
    if frames is None:
        return f"a frame takes about {each:.1f} s; how many there are is not known"
    minutes, seconds = divmod(round(first + (frames - 1) * each), 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02}:{seconds:02} hours" if hours else f"{minutes}:{seconds:02} min"
    return f"all {frames} frames will take about {clock}, {each:.1f} s each"
