"""What the verbs that make a picture share: see that it can be written, make it, write it, tell."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from phosphene.cli import DONE, FAILED, INTERRUPTED, complain, explained
from phosphene.cli.progress import Voice, to_stdout, watched
from phosphene.errors import ImageError, NonFiniteError, SettingsError
from phosphene.runtime.allocator import keep_freed, return_freed
from phosphene.runtime.memory import addresses_limited, out_of_memory

if TYPE_CHECKING:
    from torch import Tensor

    from phosphene.image import Picture
    from phosphene.manifest import AnyStep, Ended, Input, Machine, Manifest, Order, Start
    from phosphene.objectives import Objective

OUT = Group("Output", sort_key=3)
EACH = "{}"  # in a file's name: one file for each picture


@Parameter(name="*")
@dataclass(frozen=True)
class Telling:
    """What is written and told besides the picture."""

    recipe: Annotated[Path | None, Parameter(group=OUT)] = None
    """A JSON file for the recipe, too."""
    force: Annotated[bool, Parameter(group=OUT, negative=(), show_default=False)] = False
    """Replace files that are there. Never an input."""
    quiet: Annotated[bool, Parameter(group=OUT, negative=(), show_default=False)] = False
    """Say nothing but errors."""
    verbose: Annotated[bool, Parameter(group=OUT, negative=(), show_default=False)] = False
    """Say what is done with what."""

    def voice(self) -> Voice:
        return Voice(quiet=self.quiet, verbose=self.verbose)


# --- before ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A file to write, and which picture it is to hold, counted from 1; None for all of them."""

    path: Path
    recipe: Path | None = None
    part: int | None = None


def targets(output: Path, telling: Telling, names: Sequence[str] = ()) -> list[Target]:
    """The files to write, seen to be writable: `output`, or with {} in it one for each of `names`.

    SettingsError or ImageError if one cannot be written, or is there and may not be replaced.
    """
    from phosphene import image as images

    if EACH not in str(output):
        found = [Target(output, telling.recipe)]
    elif telling.recipe and EACH not in str(telling.recipe):
        raise SettingsError(f"one file a picture is one recipe a picture: --recipe with {EACH}")
    else:
        found = [
            Target(_filled(output, name), telling.recipe and _filled(telling.recipe, name), number)
            for number, name in enumerate(names, 1)
        ]
    for target in found:
        check_new(target.path, telling.force)
        images.check_output(target.path, overwrite=telling.force)
        if target.recipe:
            check_side_file(target.recipe, target.path, telling.force)
    return found


def _filled(path: Path, name: str) -> Path:
    return Path(str(path).replace(EACH, name))


def check_side_file(path: Path, output: Path, force: bool) -> None:
    """ImageError or SettingsError unless a recipe can be written there, beside the output."""
    if path.is_dir():
        raise ImageError(f"{str(path)!r} is a folder; a file for the recipe was expected")
    if not path.parent.is_dir():
        raise ImageError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}")
    if same_file(path, output):
        raise SettingsError(f"the recipe and the picture are both to be {str(path)!r}")
    check_new(path, force)


def check_new(path: Path, force: bool) -> None:
    """ImageError if a file is in the way and may not be replaced."""
    if os.path.lexists(path) and not path.is_dir() and not force:
        raise ImageError(f"{str(path)!r} is already there: another name, or --force to replace it")


def refuse_inputs(outputs: Mapping[str, Path], inputs: Mapping[str, Path]) -> None:
    """SettingsError if an output, by what it is called in a message, is one of the inputs.

    By what they are, not by their names: links, hard links and case-blind disks.
    """
    for what, output in outputs.items():
        for role, given in inputs.items():
            if output.exists() and same_file(output, given):
                raise SettingsError(
                    f"the {what} {str(output)!r} is the {role} itself, which is never replaced "
                    "(nothing could be made again without it): choose another name"
                )


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths are one file, be it there or still to be written."""
    if one.exists() and other.exists():
        return os.path.samefile(one, other)
    return os.path.realpath(one) == os.path.realpath(other)


def outputs_of(files: Iterable[Target]) -> dict[str, Path]:
    """All that these write, by what it is called in a message."""
    found: dict[str, Path] = {}
    for number, file in enumerate(files, 1):
        more = f" {number}" if number > 1 else ""
        found[f"output{more}"] = file.path
        if file.recipe:
            found[f"recipe{more}"] = file.recipe
    return found


def weights_of(network: str) -> dict[str, Path]:
    """The file of weights that a network's name names, if it names one."""
    path, at, _ = network.removeprefix("file:").rpartition("@")
    return {"weights": Path(path).expanduser()} if at and network.startswith("file:") else {}


def read_picture(path: Path, voice: Voice, size: int | None = None) -> tuple[Picture, Input]:
    """A picture that goes in, and its record; what a user should know of it is told."""
    from phosphene import image as images
    from phosphene.manifest import input_of

    picture = images.read_image(path, size=size)
    for note in picture.notes:
        voice.note(f"{path}: {note}")
    return picture, input_of(path, images.size_of(picture.pixels), size)


def named_pictures(
    objectives: Sequence[Objective], files: Iterable[Target]
) -> tuple[list[str], dict[str, Input]]:
    """The texts of objectives with their pictures by role, and those pictures' records."""
    from phosphene import image as images
    from phosphene import manifest as m

    paths = dict.fromkeys(path for goal in objectives for path in m.pictures_of(goal))
    roles = m.picture_roles(list(paths))
    inputs: dict[str, Input] = {}
    for path, role in roles.items():
        refuse_inputs(outputs_of(files), {"guide": Path(path)})
        inputs[role] = m.input_of(path, images.size_of(images.load_image(path)))
    return [m.with_pictures(goal.text, roles) for goal in objectives], inputs


# --- the job ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """What is to be made, and its recipe, in which only the result and its end are still to come.

    The recipe is complete before the last step, so that no picture is lost to it.
    `alpha` is that of the picture it starts from, where the result keeps it.
    """

    order: Order
    recipe: Manifest
    alpha: Tensor | None = None

    def recorded(
        self, pictures: Tensor, outcome: Outcome, part: int | None = None
    ) -> tuple[Tensor, Tensor | None, Manifest]:
        """A file's picture `(1, 3, H, W)` of the result `(N, 3, H, W)`, its alpha, its recipe."""
        from phosphene import manifest as m
        from phosphene.recipes.visualize import VisualizeStep

        changes = {"part": self.recipe.part if part is None else part, "ended": outcome.ended}
        if isinstance(outcome.step, VisualizeStep):
            changes["machine"] = m.machine(outcome.step.network)
        recipe = self.recipe.model_copy(update=changes)
        picture = m.arranged(recipe, pictures)
        alpha = self._opacity(picture)
        if recipe.transparent and isinstance(outcome.step, VisualizeStep):
            mask = outcome.step.transparency()
            alpha = None if mask is None else m.arranged(recipe, mask, blank=0.0)
        return picture, alpha, recipe.model_copy(update={"result": m.result_of(picture)})

    def _opacity(self, picture: Tensor) -> Tensor | None:
        """The photo's alpha, at a picture's size; of several pictures in one there is none."""
        from phosphene import image as images

        size = images.size_of(picture)
        if self.alpha is None or images.size_of(self.alpha) == size:
            return self.alpha
        height, width = images.size_of(self.alpha)
        if abs(height * size[1] - width * size[0]) > max(
            *size, height, width
        ):  # more than rounding
            return None
        return images.resize(self.alpha, size).clamp(0, 1)


def job_of(
    name: str,
    network: str,
    order: Order,
    *,
    start: Start,
    texts: Sequence[str] = (),
    inputs: Mapping[str, Input],
    alpha: Tensor | None = None,
    machine: Machine | None = None,
    **more: Any,
) -> Job:
    """The job of a recipe by its name, for an order: see `recipe_of`.

    machine: what it runs on, where its steps do not tell.
    """
    from phosphene import manifest as m

    more = {"start": start, "texts": texts, "inputs": inputs, **more}
    machine = machine or m.machine(order.network)
    return Job(order, recipe_of(name, network, order, machine=machine, **more), alpha)


def recipe_of(
    name: str,
    network: str,
    order: Order,
    *,
    machine: Machine,
    start: Start = "noise",
    texts: Sequence[str] = (),
    inputs: Mapping[str, Input],
    **more: Any,
) -> Manifest:
    """The manifest of an order, its result still to come.

    network: its name as it was given. texts: those of the objectives, their pictures by role. more:
    other parts of a manifest.
    """
    from phosphene import __version__
    from phosphene import manifest as m

    net = order.network
    return m.Manifest(
        phosphene=__version__,
        recipe=name,
        network=m.NetworkUsed(name=m.network_name(network), fingerprint=net.fingerprint),
        objective=texts[0] if len(texts) == 1 else tuple(texts),
        layers=order.layers,
        start=start,
        settings=order.settings.model_dump(mode="json"),
        inputs=dict(inputs),
        result=m.Result(width=1, height=1, sha256="0" * 64),
        versions=m.versions(),
        machine=machine,
        **more,
    )


# --- running ---------------------------------------------------------------------------------


# px, of a picture that memory is no question for.
MODEST = 2048**2


@dataclass(frozen=True)
class Outcome:
    """What came of the steps: the result, and if it is not whole, why and when."""

    picture: Tensor | None
    step: AnyStep | None = None
    ended: Ended | None = None
    error: BaseException | None = None


def run(
    job: Job,
    files: Sequence[Target],
    voice: Voice,
    *,
    force: bool = False,
    tapped: Callable[[Iterable[AnyStep]], Iterable[AnyStep]] = lambda steps: steps,
) -> int:
    """Make, write, tell. Returns the exit code. `tapped` may look at the steps as they pass."""
    from phosphene import image as images

    large = any(p.shape[-2] * p.shape[-1] > MODEST for p in job.order.pictures.values())
    if large and addresses_limited():
        return_freed()
    else:
        keep_freed()

    outcome = consumed(tapped(watched_job(job, voice)))
    error, ended = outcome.error, outcome.ended
    dead, all_dead = _dead_units(job, outcome)
    if outcome.picture is None:
        if isinstance(error, KeyboardInterrupt):
            complain("interrupted before the first step, nothing was written")
            return INTERRUPTED
        assert error is not None
        raise error
    if all_dead and error is None:
        assert outcome.step is not None
        steps = f"{outcome.step.steps} step{'s' if outcome.step.steps > 1 else ''}"
        complain(f"{dead} no gradient in {steps}: dead; nothing was written")
        return FAILED
    if dead and error is None:
        voice.note(f"note: {dead} no gradient: dead, and left grey")
    with undisturbed():
        for file in files:
            picture, alpha, record = job.recorded(outcome.picture, outcome, file.part)
            images.save_image(
                picture, file.path, alpha=alpha, recipe=record.text(), overwrite=force
            )
            if file.recipe:
                text = record.text(indent=2) + "\n"
                images.write_atomically(file.recipe, text.encode(), overwrite=force)
    if error is None:
        for file in files if not voice.quiet else ():
            to_stdout(str(file.path))
        return DONE
    what = "dream" if job.recipe.recipe == "dream" else "picture"
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    where = f"; the {what} so far is in {str(files[0].path)!r}{more}"
    if isinstance(error, KeyboardInterrupt):
        assert ended is not None
        octave = f"in octave {ended.octave}, " if what == "dream" else ""
        complain(f"interrupted {octave}after step {ended.step}{where}")
        return INTERRUPTED
    complain(explained(error) + where)
    return FAILED


def watched_job(job: Job, voice: Voice) -> Iterator[AnyStep]:
    """A job's steps, told of as they pass."""
    from phosphene.manifest import RECIPES

    steps = RECIPES[job.recipe.recipe].steps(job.order)
    return watched(steps, voice, getattr(job.order.settings, "octave_scale", None))


def consumed(steps: Iterable[AnyStep]) -> Outcome:
    """Take all steps. An interruption, or an ascent that fails on its way, keeps what there is."""
    from phosphene.manifest import Ended
    from phosphene.recipes.visualize import DeadUnitWarning

    last: AnyStep | None = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeadUnitWarning)  # told with what comes of it
            for step in steps:
                last = step
    except KeyboardInterrupt as error:
        with undisturbed():
            if last is None:
                return Outcome(None, error=error)
            ended = Ended(why="interrupted", octave=last.octave + 1, step=last.index + 1)
            return Outcome(last.picture(), last, ended, error)
    except NonFiniteError as error:
        at = (last.octave + 1, last.index + 1) if last else (1, 1)
        ended = Ended(why="not finite", octave=at[0], step=at[1])
        return Outcome(error.image, last, ended, error)
    except (RuntimeError, MemoryError, Exception) as error:
        if last is None or not out_of_memory(error):
            raise
        ended = Ended(why="out of memory", octave=last.octave + 1, step=last.index + 1)
        return Outcome(last.picture(), last, ended, error)
    assert last is not None
    return Outcome(last.picture(), last)


def _dead_units(job: Job, outcome: Outcome) -> tuple[str, bool]:
    """Which units are dead, such as `mixed4c:7 gives`, and whether all are."""
    dead = getattr(outcome.step, "dead", None)
    if dead is None or not bool(dead.any()):
        return "", False
    texts = [goal.text for goal in job.order.objectives] or list(job.order.layers)
    rows = len(dead) // len(texts) if texts else 1
    found = [text for k, text in enumerate(texts) if bool(dead[k * rows : (k + 1) * rows].all())]
    if len(found) > 4:
        told = f"{', '.join(found[:4])} and {len(found) - 4} more give"
    else:
        told = f"{' and '.join(found) or 'the objective'} give{'s' if len(found) < 2 else ''}"
    return told, bool(dead.all())


@contextmanager
def undisturbed() -> Iterator[None]:
    """A second Ctrl-C waits until what is being written is written."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not in the main thread, where no Ctrl-C arrives
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
