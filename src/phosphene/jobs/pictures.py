"""Jobs whose result is a picture, or several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from phosphene import image as images
from phosphene.errors import ImageError, NonFiniteError, RequestError, StateError
from phosphene.jobs import outputs
from phosphene.jobs.checkpoint import Checkpoint
from phosphene.jobs.compare import compare, picture_at
from phosphene.jobs.events import Compared, Ended, Event, Note, Preview, Progress, Saved
from phosphene.jobs.job import Job, Outcome, undisturbed
from phosphene.manifest import capture
from phosphene.manifest import schema as m
from phosphene.runtime.memory import out_of_memory


@dataclass
class PictureJob(Job):
    """A job of a recipe for images: see `Job`."""

    @property
    def octave_folder(self) -> Path | None:
        """Where the picture of each octave is to lie, if these are asked for."""
        folder = self.request.outputs.get("octaves")
        return None if folder is None else Path(folder)

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
        folder = self.octave_folder
        if folder is None:
            return True
        output = self.targets[0].path
        manifest = checkpoint.own_manifest(output)
        count = 0 if manifest is None else len(manifest.plan)
        files = [outputs.octave_file(folder, output, k + 1) for k in range(count)]
        return bool(files) and all(map(checkpoint.is_own, files))

    # Running --------------------------------------------------------------------------------------

    def begin(self) -> Iterator[Event]:
        """Make the folder of the octaves, where these are saved."""
        if self.octave_folder is not None:
            outputs.make_folder(self.octave_folder)
            yield from self._octaves_before(self.octave_folder)

    def steps(self) -> Iterator[Any]:
        """The recipe's steps, from where the checkpoint is to where a replay ends."""
        ended, arguments = self.until, self.arguments
        if self.checkpoint is not None:
            # Passed on and let go: it holds pictures.
            arguments = replace(arguments, state=self.checkpoint.state)
            self.checkpoint.state = None
        steps = self.recipe.run(arguments)
        del arguments
        stops = ended is not None and ended.why != "not finite"
        for step in steps:
            yield step
            if stops and ended and (step.octave + 1, step.index + 1) == (ended.octave, ended.step):
                return

    def tell(self, step: Any) -> Iterator[Event]:
        """How far it is, the picture so far, and the files that are written on the way."""
        octave = getattr(step, "octave", 0)
        del self.plan[octave:]
        self.plan.append(getattr(step, "tile", None))
        yield Progress(step)
        yield Preview(step.picture)
        if step.last and self.octave_folder is not None:
            yield self._try_to_save_octave(step, self.octave_folder)
        yield from self._save_checkpoint(step)

    def _save_checkpoint(self, step: Any) -> Iterator[Event]:
        """Save where the job is, if it is time."""
        if self.checkpoint is not None and self.checkpoint.due(step.last):
            problem = self.checkpoint.try_to_save(step.state(), self.plan)
            if problem:
                yield Note(problem)

    def _octaves_before(self, folder: Path) -> Iterator[Event]:
        """Tell which octaves' pictures are missing that a run before this one was to save."""
        if self.checkpoint is None:
            return
        output = self.targets[0].path
        done = range(1, len(self.plan))  # the octave that is gone on with is still to be saved
        missing = [k for k in done if not outputs.octave_file(folder, output, k).exists()]
        if missing:
            numbers = ", ".join(map(str, missing))
            yield Note(f"note: done before, and not saved: the picture of octave {numbers}")

    def outcome(self, step: Any) -> Outcome:
        """The last step's picture."""
        return Outcome(step, picture=step.picture())

    def partial(self, step: Any, why: Any, error: BaseException) -> Outcome:
        """The picture so far."""
        if step is None:
            return super().partial(step, why, error)
        ended = m.Ended(why=why, octave=step.octave + 1, step=step.index + 1)
        if self.checkpoint is not None and why == "interrupted":
            with suppress(StateError):  # past, so that what was saved before is the newest
                self.checkpoint.try_to_save(step.state(), self.plan)
        return Outcome(step, picture=step.picture(), ended=ended, error=error)

    def rescued(self, step: Any, error: Exception) -> Outcome | None:
        """The last good picture, where the ascent left the numbers or memory ran out."""
        if isinstance(error, NonFiniteError):
            if error.image is None:
                return None
            return replace(self.partial(step, "not finite", error), picture=error.image)
        if step is None or not out_of_memory(error):
            return None
        return self.partial(step, "out of memory", error)

    # Saving ---------------------------------------------------------------------------------------

    def save(self, outcome: Outcome) -> tuple[list[Saved], list[Note]]:
        """Write the pictures, each with its manifest inside."""
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

            path = self.saved_beside(target.path, save, moved)
            saved.append(Saved("picture", path))
            saved += self.save_recipe(target, manifest, moved)
        notes = [Note(f"note: {dead} no gradient: dead, and left grey")] if dead else []
        return saved, moved + (notes if outcome.error is None else [])

    def _try_to_save_octave(self, step: Any, folder: Path) -> Saved | Note:
        """The octave's file, or what kept it from being written: that ends no dream."""
        try:
            return self._save_octave(step, folder)
        except ImageError as error:
            return Note(f"note: octave {step.octave + 1} is not saved: {error}")

    def _save_octave(self, step: Any, folder: Path) -> Saved:
        output = self.targets[0].path
        ended = m.Ended(why="octave", octave=step.octave + 1, step=step.index + 1)
        picture, alpha, manifest = self.recorded(Outcome(step, step.picture(), ended=ended))
        path = outputs.octave_file(folder, output, step.octave + 1)
        text = manifest.text()
        over = self.may_replace(path)
        images.save_image(picture, path, alpha=alpha, recipe=text, overwrite=over)
        return Saved("octaves", path)

    def compared(
        self, outcome: Outcome, old: m.Manifest, file: Path, output: Path | None
    ) -> tuple[list[Event], m.Manifest]:
        """Compare the picture with that of the manifest and with the file's pixels."""
        picture, alpha, new = self.recorded(outcome)
        events: list[Event] = []
        if output:
            with undisturbed():
                images.save_image(
                    picture, output, alpha=alpha, recipe=new.text(), overwrite=self.force
                )
            events.append(Saved("picture", output))
        events.append(Compared(compare(old, new, picture, alpha, picture_at(file))))
        return events, new

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
        manifest = self.manifest(
            outcome, self.arguments.settings, self.subject(), capture.result_of(picture), part
        )
        return picture, alpha, manifest

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

    def nothing_text(self) -> str:
        """What is said where an interruption leaves no picture."""
        if self.checkpoint is not None and self.checkpoint.path.exists():
            return "interrupted; the same command goes on from the checkpoint"
        return "interrupted before the first step, nothing was written"

    def end(self, outcome: Outcome) -> Ended:
        """The last event, which tells of units that are dead."""
        dead, all_dead = self._dead_units(outcome)
        if all_dead and outcome.error is None:
            count = outcome.step.steps
            steps = f"{count} step{'s' if count > 1 else ''}"
            return Ended("dead", f"{dead} no gradient in {steps}: dead; nothing was written")
        return super().end(outcome)

    def _dead_units(self, outcome: Outcome) -> tuple[str, bool]:
        """Which units are dead, such as `mixed4c:7 gives`, and whether all are."""
        dead = getattr(outcome.step, "dead", None)
        if dead is None or not bool(dead.any()):
            return "", False
        texts = list(self.subject())
        rows = len(dead) // len(texts) if texts else 1
        found = [t for k, t in enumerate(texts) if bool(dead[k * rows : (k + 1) * rows].all())]
        if len(found) > 4:
            text = f"{', '.join(found[:4])} and {len(found) - 4} more give"
        else:
            text = f"{' and '.join(found) or 'the objective'} give{'s' if len(found) < 2 else ''}"
        return text, bool(dead.all())
