"""`phosphene dream`."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from phosphene.cli import DONE, FAILED, INTERRUPTED, complain, explained, ran_out_of_memory
from phosphene.cli.flags import with_settings
from phosphene.cli.progress import Voice, to_stdout, watched
from phosphene.errors import ImageError, NonFiniteError, ObjectiveError, SettingsError
from phosphene.recipes.dream_settings import DreamSettings
from phosphene.recipes.presets import preset
from phosphene.settings import checked

if TYPE_CHECKING:
    from torch import Tensor

    from phosphene.manifest import Ended, Input, Machine, Manifest, Start
    from phosphene.network import Network
    from phosphene.objectives import Objective
    from phosphene.recipes.dream import DreamStep

SKY = (640, 427)  # px, of a start that no photo gives a size to

WHAT = Group("What to dream", sort_key=1)
HOW = Group("How (what is not given is the preset's, or what stands here)", sort_key=2)
OUT = Group("Output", sort_key=3)


@with_settings(DreamSettings, HOW, leading=("preset",))
def verb(
    photo: Annotated[Path | None, Parameter(group=WHAT)] = None,
    /,
    *,
    network: Annotated[str, Parameter(group=WHAT)] = "dreamnet",
    objective: Annotated[
        str | None, Parameter(group=WHAT, show_default=lambda _: "the preset's")
    ] = None,
    guide: Annotated[Path | None, Parameter(group=WHAT)] = None,
    mask: Annotated[Path | None, Parameter(group=WHAT)] = None,
    start: Annotated[
        Literal["photo", "noise", "sky"] | None,
        Parameter(group=WHAT, show_default=lambda _: "photo, or sky without one"),
    ] = None,
    size: Annotated[int | None, Parameter(group=WHAT, allow_leading_hyphen=True)] = None,
    output: Annotated[
        Path | None,
        Parameter(
            name=["--output", "-o"],
            group=OUT,
            show_default=lambda _: "PHOTO-dream.png, or dream.png",
        ),
    ] = None,
    save_octaves: Annotated[Path | None, Parameter(group=OUT)] = None,
    recipe: Annotated[Path | None, Parameter(group=OUT)] = None,
    force: Annotated[bool, Parameter(group=OUT, negative=())] = False,
    quiet: Annotated[bool, Parameter(group=OUT, negative=())] = False,
    verbose: Annotated[bool, Parameter(group=OUT, negative=())] = False,
    **settings: Any,
) -> int:
    """Ask a network what it sees in a picture, and show more of it.

    Parameters
    ----------
    photo
        A JPEG, PNG, WebP, TIFF, BMP or GIF. Transparency is kept.
    network
        A name: see phosphene networks.
    objective
        What to dream, such as "2*mixed4b + mixed4d:42": see phosphene layers and objectives.
    guide
        A picture: each whole layer of the objective, given or the preset's, becomes
        guide(layer, PICTURE), with its weight; channels and penalties stay. For more say, write
        guide(mixed4c, "flowers.jpg", by=dot) in the objective itself.
    mask
        A picture: dream where it is white. Of another shape, it is resized.
    start
        What to begin with.
    size
        Longest side in px: the photo is resized to it, a noise or sky drawn so large.
    output
        .png, .jpg, .webp or .tif; the recipe lies inside.
    save_octaves
        A folder for the dream so far at the end of each octave.
    recipe
        A JSON file for the recipe, too.
    force
        Replace files that are there. Never an input.
    quiet
        Say nothing but errors.
    verbose
        Say what is done with what.
    """
    chosen = checked(DreamSettings, settings)
    kind = _start(photo, start)
    if size is not None and size < 1:
        raise SettingsError(f"size is {size}; the longest side must be 1 px or more")
    voice = Voice(quiet=quiet, verbose=verbose)
    from phosphene import image as images

    if photo and not photo.is_file():
        images.read_image(photo)  # tells what is wrong, before anything else is
    output = output or (photo.with_name(f"{photo.stem}-dream.png") if photo else Path("dream.png"))
    if photo:
        refuse_same(output, photo, "photo")
    check_new(output, force)
    images.check_output(output, overwrite=force)
    _check_side_file(recipe, output, force)
    with voice.hearing_warnings():
        job = _prepare(photo, kind, size, network, objective, guide, mask, output, chosen, voice)
        if save_octaves:
            save_octaves = _octave_folder(save_octaves, output, force)
        return run(job, output, voice, recipe=recipe, save_octaves=save_octaves, force=force)


@dataclass(frozen=True)
class Job:
    """A dream, ready to begin, and its recipe, in which only result and end are still to be told.

    The recipe is complete before the first step, so that no dream is lost to it after the last.
    """

    photo: Tensor
    alpha: Tensor | None
    mask: Tensor | None
    network: Network
    objective: Objective
    settings: DreamSettings
    recipe: Manifest

    def recorded(self, picture: Tensor, ended: Ended | None = None) -> Manifest:
        """The recipe of a `picture` that came of this."""
        from phosphene.manifest import result_of

        return self.recipe.model_copy(update={"result": result_of(picture), "ended": ended})


def _start(photo: Path | None, start: Start | None) -> Start:
    if start is None:
        return "photo" if photo else "sky"
    if start == "photo" and photo is None:
        raise SettingsError("--start photo needs a photo: phosphene dream PHOTO")
    if start != "photo" and photo is not None:
        raise SettingsError(f"--start {start} needs no photo, but there is {str(photo)!r}")
    return start


def refuse_same(output: Path, given: Path, role: str) -> None:
    # By what they are, not by their names: links and case-blind disks.
    if output.exists() and given.exists() and os.path.samefile(output, given):
        raise SettingsError(
            f"the output {str(output)!r} is the {role} itself, which is never replaced (the recipe "
            "could not be replayed without it): choose another name with -o"
        )


def _check_side_file(path: Path | None, output: Path, force: bool) -> None:
    if path is None:
        return
    if path.is_dir():
        raise ImageError(f"{str(path)!r} is a folder; a file for the recipe was expected")
    if not path.parent.is_dir():
        raise ImageError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}")
    if os.path.abspath(path) == os.path.abspath(output):
        raise SettingsError(f"the recipe and the picture are both to be {str(path)!r}")
    check_new(path, force)


def check_new(path: Path, force: bool) -> None:
    """ImageError if a file is in the way and may not be replaced."""
    if os.path.lexists(path) and not path.is_dir() and not force:
        raise ImageError(f"{str(path)!r} is already there: another name, or --force to replace it")


def _octave_folder(folder: Path, output: Path, force: bool) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"cannot make the folder {str(folder)!r}: {error.strerror}") from None
    for there in sorted(folder.iterdir()):
        if there.name.startswith(f"{output.stem}-octave"):
            check_new(there, force)
    return folder


def _prepare(
    photo: Path | None,
    start: Start,
    size: int | None,
    network_name: str,
    objective: str | None,
    guide: Path | None,
    mask: Path | None,
    output: Path,
    settings: DreamSettings,
    voice: Voice,
) -> Job:
    from phosphene import __version__
    from phosphene import image as images
    from phosphene import manifest as m
    from phosphene.recipes.dream import objective_of
    from phosphene.recipes.starts import start_picture
    from phosphene.zoo import load_network

    inputs: dict[str, Input] = {}
    alpha = opacity = None
    if photo:
        picture = images.read_image(photo, size=size)
        pixels, alpha = picture.pixels, picture.alpha
        for note in picture.notes:
            voice.note(f"{photo}: {note}")
        inputs["photo"] = m.input_of(photo, images.size_of(pixels), size)
    else:
        width, height = SKY
        if size:
            width, height = size, max(1, round(size * SKY[1] / SKY[0]))
        assert start != "photo"
        pixels = start_picture(start, (height, width), settings.seed)
    if mask:
        refuse_same(output, mask, "mask")
        opacity, notes = images.load_mask(mask, images.size_of(pixels))
        for note in notes:
            voice.note(f"{mask}: {note}")
        inputs["mask"] = m.input_of(mask, images.size_of(pixels))
    net = load_network(network_name)
    meant = preset(settings.preset).network
    if meant not in (net.name, "dreamnet") and network_name == "dreamnet":
        voice.note(f"the preset {settings.preset} was published with --network {meant}")
    goal = objective_of(objective, net, settings)
    if guide:
        goal = guided(goal, guide)
    roles = m.picture_roles(m.pictures_of(goal))
    for path, role in roles.items():
        refuse_same(output, Path(path), "guide")
        inputs[role] = m.input_of(path, images.size_of(images.load_image(path)))
    text = m.with_pictures(goal.text, roles)
    used = m.NetworkUsed(name=m.network_name(network_name), fingerprint=net.fingerprint)
    recipe = m.Manifest(
        phosphene=__version__,
        network=used,
        objective=text,
        start=start,
        settings=settings.model_dump(mode="json"),
        inputs=inputs,
        result=m.result_of(pixels),
        versions=m.versions(),
        machine=machine_of(net, goal, settings, pixels),
    )
    H, W = images.size_of(pixels)
    voice.detail(f"{net.name}: {goal.text} on {W}×{H} px, seed {settings.seed}")
    if alpha is not None and output.suffix.lower() in (".jpg", ".jpeg"):
        voice.note("JPEG has no transparency: the result is laid over white")
    return Job(pixels, alpha, opacity, net, goal, settings, recipe)


def machine_of(
    network: Network, objective: Objective, settings: DreamSettings, photo: Tensor
) -> Machine:
    """What the dream will run on, precision `auto` settled; the dream itself then finds the same.

    ObjectiveError, and whatever else `bound` raises, for an objective that the network cannot have.
    """
    from phosphene.manifest import machine

    layers = objective.bound(network).layers
    prepared = network.prepared(settings.device, settings.precision, layers=layers, sample=photo)
    return machine(prepared)


def guided(objective: Objective, picture: Path) -> Objective:
    """The objective with each whole layer replaced by `guide(layer, picture)`, weights kept."""
    from phosphene.objectives import combine, guide

    terms = objective.terms or ((1.0, objective),)
    whole = [_is_whole_layer(term) for _, term in terms]
    if not any(whole):
        raise ObjectiveError(
            f"--guide takes the place of whole layers, of which {objective.text!r} has none; "
            'expected such as "mixed4c"'
        )
    if not picture.is_file():
        from phosphene.image import read_image

        read_image(picture)  # tells what is wrong
    return combine(
        (weight, guide(term.layers[0], str(picture)) if plain else term)
        for (weight, term), plain in zip(terms, whole, strict=True)
    )


def _is_whole_layer(term: Objective) -> bool:
    if len(term.layers) != 1:
        return False
    name = term.layers[0]
    return term.text in (name, f'"{name}"') or term.text.startswith("layer(")


# --- running ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What came of the steps: the picture, and if it is not the whole dream, why and when."""

    picture: Tensor | None
    ended: Ended | None = None
    error: BaseException | None = None


def run(
    job: Job,
    output: Path,
    voice: Voice,
    *,
    recipe: Path | None = None,
    save_octaves: Path | None = None,
    force: bool = False,
) -> int:
    """Dream, write, tell. Returns the exit code."""
    from phosphene import image as images
    from phosphene.recipes.dream import dream

    steps: Iterable[DreamStep] = dream.steps(
        job.photo, job.network, job.objective, mask=job.mask, **job.settings.model_dump()
    )
    steps = watched(steps, voice, job.settings.octave_scale)
    if save_octaves:
        steps = _saving(steps, job, save_octaves, output)
    outcome = consumed(steps)
    if outcome.picture is None:
        if isinstance(outcome.error, KeyboardInterrupt):
            complain("interrupted before the first step, nothing was written")
            return INTERRUPTED
        assert outcome.error is not None
        raise outcome.error
    with undisturbed():
        record = job.recorded(outcome.picture, outcome.ended)
        images.save_image(
            outcome.picture, output, alpha=job.alpha, recipe=record.text(), overwrite=force
        )
        if recipe:
            text = record.text(indent=2) + "\n"
            images.write_atomically(recipe, text.encode(), overwrite=force)
    if outcome.error is None:
        if not voice.quiet:
            to_stdout(str(output))
        return DONE
    ended, error = outcome.ended, outcome.error
    where = f"; the dream so far is in {str(output)!r}"
    if isinstance(error, KeyboardInterrupt):
        assert ended is not None
        complain(f"interrupted in octave {ended.octave}, after step {ended.step}{where}")
        return INTERRUPTED
    complain(explained(error) + where)
    return FAILED


def consumed(steps: Iterable[DreamStep]) -> Outcome:
    """Take all steps. An interruption, or an ascent that fails on its way, keeps what there is."""
    from phosphene.manifest import Ended

    last: DreamStep | None = None
    try:
        for step in steps:
            last = step
    except KeyboardInterrupt as error:
        with undisturbed():
            if last is None:
                return Outcome(None, None, error)
            ended = Ended(why="interrupted", octave=last.octave + 1, step=last.index + 1)
            return Outcome(last.picture(), ended, error)
    except NonFiniteError as error:
        at = (last.octave + 1, last.index + 1) if last else (1, 1)
        return Outcome(error.image, Ended(why="not finite", octave=at[0], step=at[1]), error)
    except (RuntimeError, MemoryError, Exception) as error:
        if last is None or not ran_out_of_memory(error):
            raise
        ended = Ended(why="out of memory", octave=last.octave + 1, step=last.index + 1)
        return Outcome(last.picture(), ended, error)
    assert last is not None
    return Outcome(last.picture())


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


def _saving(
    steps: Iterable[DreamStep], job: Job, folder: Path, output: Path
) -> Iterator[DreamStep]:
    from phosphene import image as images
    from phosphene.manifest import Ended

    for step in steps:
        if step.last:
            picture = step.picture()
            ended = Ended(why="octave", octave=step.octave + 1, step=step.index + 1)
            images.save_image(
                picture,
                folder / f"{output.stem}-octave{step.octave + 1}{output.suffix}",
                alpha=job.alpha,
                recipe=job.recorded(picture, ended).text(),
            )
        yield step
