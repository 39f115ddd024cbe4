"""`phosphene dream`."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from phosphene.cli.common import (
    OUT,
    Job,
    Outcome,
    Target,
    Telling,
    check_new,
    job_of,
    named_pictures,
    outputs_of,
    read_picture,
    refuse_inputs,
    run,
    targets,
    weights_of,
)
from phosphene.cli.flags import with_settings
from phosphene.errors import ImageError, ObjectiveError, SettingsError
from phosphene.recipes.dream_settings import DreamSettings
from phosphene.recipes.presets import preset
from phosphene.settings import checked

if TYPE_CHECKING:
    from phosphene.cli.progress import Voice
    from phosphene.manifest import AnyStep, Input, Machine, Order, Start
    from phosphene.objectives import Objective

SKY = (640, 427)  # px, of a start that no photo gives a size to

WHAT = Group("What to dream", sort_key=1)
HOW = Group("How (what is not given is the preset's, or what stands here)", sort_key=2)


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
    telling: Telling = Telling(),  # noqa: B008
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
    """
    chosen = checked(DreamSettings, settings)
    kind = _start(photo, start)
    if size is not None and size < 1:
        raise SettingsError(f"size is {size}; the longest side must be 1 px or more")
    voice = telling.voice()
    from phosphene import image as images
    from phosphene import manifest as m

    if photo and not photo.is_file():
        images.read_image(photo)  # tells what is wrong, before anything else is
    output = output or (photo.with_name(f"{photo.stem}-dream.png") if photo else Path("dream.png"))
    files = targets(output, telling)
    given = {"photo": photo, "mask": mask, "guide": guide}
    inputs = {role: path for role, path in given.items() if path} | weights_of(network)
    refuse_inputs(outputs_of(files), inputs)
    with voice.hearing_warnings():
        job = _prepare(photo, kind, size, network, objective, guide, mask, files, chosen, voice)
        if not save_octaves:
            return run(job, files, voice, force=telling.force)
        paths = m.pictures_of(job.order.objectives[0])
        folder = _octave_folder(
            save_octaves, output, telling, [*inputs.values(), *map(Path, paths)]
        )
        tapped = functools.partial(_saving, job=job, folder=folder, output=output)
        return run(job, files, voice, force=telling.force, tapped=tapped)


def _start(photo: Path | None, start: Start | None) -> Start:
    if start is None:
        return "photo" if photo else "sky"
    if start == "photo" and photo is None:
        raise SettingsError("--start photo needs a photo: phosphene dream PHOTO")
    if start != "photo" and photo is not None:
        raise SettingsError(f"--start {start} needs no photo, but there is {str(photo)!r}")
    return start


def _octave_folder(folder: Path, output: Path, telling: Telling, inputs: Sequence[Path]) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"cannot make the folder {str(folder)!r}: {error.strerror}") from None
    taken = {"output": output} | ({"recipe": telling.recipe} if telling.recipe else {})
    taken |= {f"input {path.name}": path for path in inputs}
    for there in sorted(folder.iterdir()):
        if there.name.startswith(f"{output.stem}-octave"):
            check_new(there, telling.force)
            refuse_inputs({"octave": there}, taken)
    return folder


def _prepare(
    photo: Path | None,
    start: Start,
    size: int | None,
    network_name: str,
    objective: str | None,
    guide: Path | None,
    mask: Path | None,
    files: Sequence[Target],
    settings: DreamSettings,
    voice: Voice,
) -> Job:
    from phosphene import image as images
    from phosphene import manifest as m
    from phosphene.recipes.dream import objective_of
    from phosphene.recipes.starts import start_picture
    from phosphene.zoo import load_network

    output = files[0].path
    inputs: dict[str, Input] = {}
    alpha = None
    if photo:
        picture, inputs["photo"] = read_picture(photo, voice, size)
        pixels, alpha = picture.pixels, picture.alpha
    else:
        width, height = SKY
        if size:
            width, height = size, max(1, round(size * SKY[1] / SKY[0]))
        assert start != "photo"
        pixels = start_picture(start, (height, width), settings.seed)
    pictures = {"photo": pixels}
    if mask:
        pictures["mask"], notes = images.load_mask(mask, images.size_of(pixels))
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
    texts, named = named_pictures([goal], files)
    order = m.Order(net, settings, (goal,), (), pictures)
    job = job_of(
        "dream",
        network_name,
        order,
        start=start,
        texts=texts,
        inputs=inputs | named,
        alpha=alpha,
        machine=machine_of(order),
    )
    H, W = images.size_of(pixels)
    voice.detail(f"{net.name}: {goal.text} on {W}×{H} px, seed {settings.seed}")
    if alpha is not None and output.suffix.lower() in (".jpg", ".jpeg"):
        voice.note("JPEG has no transparency: the result is laid over white")
    return job


def machine_of(order: Order) -> Machine:
    """What a dream will run on, precision `auto` settled; the dream itself then finds the same.

    ObjectiveError, and whatever else `bound` raises, for an objective that the network cannot have.
    """
    from phosphene.manifest import machine

    network, settings = order.network, order.settings
    assert isinstance(settings, DreamSettings)
    layers = order.objectives[0].bound(network).layers
    photo = order.pictures["photo"]
    return machine(
        network.prepared(settings.device, settings.precision, layers=layers, sample=photo)
    )


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


def _saving(steps: Iterable[AnyStep], job: Job, folder: Path, output: Path) -> Iterator[AnyStep]:
    from phosphene import image as images
    from phosphene.manifest import Ended

    for step in steps:
        if step.last:
            ended = Ended(why="octave", octave=step.octave + 1, step=step.index + 1)
            whole = step.picture()
            picture, alpha, record = job.recorded(whole, Outcome(whole, step, ended))
            images.save_image(
                picture,
                folder / f"{output.stem}-octave{step.octave + 1}{output.suffix}",
                alpha=alpha,
                recipe=record.text(),
            )
        yield step
