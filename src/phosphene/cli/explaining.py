"""`phosphene unit` and `sheet`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from cyclopts import Group, Parameter

from phosphene.cli import DONE, INTERRUPTED, complain
from phosphene.cli.common import (
    OUT,
    Telling,
    check_side_file,
    read_picture,
    recipe_of,
    refuse_inputs,
    same_file,
    undisturbed,
    weights_of,
)
from phosphene.cli.flags import with_settings
from phosphene.cli.progress import SHOW_EVERY, Voice, to_stdout
from phosphene.errors import ImageError, SettingsError
from phosphene.explain.sheet_settings import SheetSettings, parse_channels
from phosphene.explain.unit_settings import UnitSettings
from phosphene.settings import checked

if TYPE_CHECKING:
    from phosphene.explain.cells import CellStep
    from phosphene.explain.sheets import Sheet, SheetStep
    from phosphene.explain.units import Card, CardStep
    from phosphene.manifest import Manifest

WHAT = Group("What to draw", sort_key=1)
HOW = Group("How", sort_key=2)

Data = Annotated[Path | None, Parameter(group=OUT)]
Keep = Annotated[bool, Parameter(group=OUT)]
StepT = TypeVar("StepT")


def _output(default: str) -> Parameter:
    return Parameter(name=["--output", "-o"], group=OUT, show_default=lambda _: default)


@with_settings(SheetSettings, HOW)
def sheet(
    network: Annotated[str, Parameter(group=WHAT)],
    layer: Annotated[str, Parameter(group=WHAT)],
    /,
    *,
    channels: Annotated[str | None, Parameter(group=WHAT, show_default=lambda _: "all")] = None,
    top: Annotated[tuple[int, Path] | None, Parameter(group=WHAT, negative=())] = None,
    output: Annotated[Path | None, _output("NETWORK-LAYER.png")] = None,
    data: Data = None,
    keep: Keep = True,
    telling: Telling = Telling(),  # noqa: B008
    **settings: Any,
) -> int:
    """Draw every channel of a layer on one page.

    What is drawn is kept, each cell by itself: a sheet that was interrupted goes on where it was,
    and a second look comes at once.

    Parameters
    ----------
    network
        A name: see phosphene networks.
    layer
        Its name: see phosphene layers.
    channels
        Numbers and ranges, such as 0-63,70.
    top
        A number N and a photo: instead, three groups of N channels, by their means over positions
        when the network is shown the photo: strong are the greatest, weak the least, and average
        those in the middle of the order.
    output
        .png, .jpg, .webp, .tif or .svg; the recipe lies inside.
    data
        A JSON file for what is on the page but the pictures, with the recipe.
    keep
        Keep drawn cells in the cache folder, and take from there what is kept.
    """
    chosen = checked(SheetSettings, settings)
    picked = None if channels is None else parse_channels(channels)
    if picked is not None and top is not None:
        raise SettingsError("--channels and --top: either chooses the channels, not both")
    voice = telling.voice()
    output = output or Path(f"{_plain(network)}-{_plain(layer)}.png")
    from phosphene import manifest as m
    from phosphene.explain.sheets import sheet as draw
    from phosphene.zoo import load_network

    files = _writable(output, data, telling, [top[1]] if top else [], network)
    with voice.hearing_warnings():
        photo, inputs = None, {}
        if top:
            picture, inputs["photo"] = read_picture(top[1], voice)
            photo = picture.pixels
        net = load_network(network)
        steps = draw.steps(
            net,
            layer,
            picked,
            photo=photo,
            top=top[0] if top else None,
            keep=keep,
            **chosen.model_dump(),
        )
        step, finished = drawn_sheet(steps, voice)
        if not finished:
            return _interrupted(step, keep)
        assert step is not None
        result = step.sheet()
        if step.found:
            voice.detail(f"{step.found} of {step.total} cells were kept from before")
        dead = [c for c, is_dead in zip(result.channels, result.dead, strict=True) if is_dead]
        if dead:
            voice.note(f"dead: {_listed(dead)} of {len(result.channels)} channels")
        recipe = recipe_of(
            "sheet",
            network,
            m.Order(net, result.settings, layers=(result.layer,)),
            machine=m.machine(step.network),
            inputs=inputs,
            channels=result.channels if picked is not None else (),
            top=top[0] if top else None,
        )
        return _written(result, recipe, files, telling, voice)


@with_settings(UnitSettings, HOW)
def unit(
    network: Annotated[str, Parameter(group=WHAT)],
    unit: Annotated[str, Parameter(group=WHAT)],
    /,
    *,
    pictures: Annotated[Path | None, Parameter(group=WHAT)] = None,
    output: Annotated[Path | None, _output("NETWORK-UNIT.png")] = None,
    data: Data = None,
    keep: Keep = True,
    telling: Telling = Telling(),  # noqa: B008
    **settings: Any,
) -> int:
    """Draw the card of a unit: what it draws, and which photos excite it most and least.

    A box around a photo's strongest position is what that position sees, and a ring its centre;
    where there is no box it sees all of the photo.

    Parameters
    ----------
    network
        A name: see phosphene networks.
    unit
        LAYER:CHANNEL, such as mixed4c:42; of the class scores also logits:dumbbell, or dumbbell.
    pictures
        A folder of photos; it is looked through with all its folders.
    output
        .png, .jpg, .webp, .tif or .svg; or .json, of all but the pictures. The recipe lies inside.
    data
        A JSON file, besides the page.
    keep
        Keep drawings in the cache folder, and take from there what is kept.
    """
    chosen = checked(UnitSettings, settings)
    voice = telling.voice()
    output = output or Path(f"{_plain(network)}-{_plain(unit)}.png")
    from phosphene import manifest as m
    from phosphene.explain.responses import find_pictures
    from phosphene.explain.units import unit_card
    from phosphene.zoo import load_network

    photos = find_pictures(pictures) if pictures else []
    files = _writable(output, data, telling, photos, network)
    with voice.hearing_warnings():
        net = load_network(network)
        folder = m.folder_of(pictures) if pictures else None
        steps = unit_card.steps(net, unit, pictures=pictures, keep=keep, **chosen.model_dump())
        step, finished = drawn_card(steps, voice)
        if not finished:
            kept = "; finished drawings are kept" if keep else ""
            complain(f"interrupted, nothing was written{kept}")
            return INTERRUPTED
        assert step is not None
        assert step.card is not None
        assert step.network is not None
        if any(drawn.dead for drawn in step.card.drawn):
            voice.note(f"{step.card.unit} gave no gradient: where it is dead, nothing is drawn")
        recipe = recipe_of(
            "unit",
            network,
            m.Order(net, step.card.settings),
            machine=m.machine(step.network),
            texts=[step.card.unit],
            inputs={},
            folder=folder,
        )
        return _written(step.card, recipe, files, telling, voice)


# --- files -----------------------------------------------------------------------------------


def _plain(name: str) -> str:
    """A name as a part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-")[-60:] or "page"


def _writable(
    output: Path, data: Path | None, telling: Telling, inputs: Sequence[Path], network: str
) -> tuple[Path, ...]:
    """The files to write, seen to be writable before anything is computed; then the recipe's."""
    from phosphene.explain.layout import check_page

    if data is not None and data.suffix.lower() != ".json":
        raise SettingsError(f"--data {str(data)!r}: a file that ends in .json was expected")
    if data is not None and same_file(data, output):
        raise SettingsError(f"the data and the page are both to be {str(output)!r}")
    files = (output,) if data is None else (output, data)
    outputs = {"output": output, "data": data, "recipe": telling.recipe}
    refuse_inputs(
        {what: path for what, path in outputs.items() if path},
        {f"input {path.name}": path for path in inputs} | weights_of(network),
    )
    for file in files:
        check_page(file, overwrite=telling.force)
        if telling.recipe:
            check_side_file(telling.recipe, file, telling.force)
    return files


def _written(
    result: Sheet | Card, recipe: Manifest, files: Sequence[Path], telling: Telling, voice: Voice
) -> int:
    from phosphene import image as images
    from phosphene.explain.layout import pixels, save_page
    from phosphene.manifest import result_of

    text = None
    try:
        recipe = recipe.model_copy(update={"result": result_of(pixels(result))})
        text = recipe.text()
    except ImageError as error:  # too large as a picture, and it may be none
        if telling.recipe or any(file.suffix.lower() in images.SUFFIXES for file in files):
            raise
        voice.note(f"the recipe is left out: {error}")
    with undisturbed():
        for file in files:
            save_page(result, file, recipe=text)
            if not voice.quiet:
                to_stdout(str(file))
        if telling.recipe:
            images.write_atomically(telling.recipe, (recipe.text(indent=2) + "\n").encode())
    return DONE


def _interrupted(step: CellStep | None, keep: bool) -> int:
    if step is None or not keep:
        complain("interrupted, nothing was written")
    else:
        complain(
            f"interrupted: {len(step.drawn)} of {step.total} cells are done and kept; the same "
            "command goes on from there"
        )
    return INTERRUPTED


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:12]))
    return f"{shown} and {len(numbers) - 12} more" if len(numbers) > 12 else shown


# --- progress --------------------------------------------------------------------------------


def drawn_sheet(steps: Iterable[SheetStep], voice: Voice) -> tuple[SheetStep | None, bool]:
    """The last of a sheet's steps, told of as they pass, and whether they were not interrupted."""
    return _taken(_watched(steps, voice, _cells_told))


def drawn_card(steps: Iterable[CardStep], voice: Voice) -> tuple[CardStep | None, bool]:
    """The last of a card's steps, told of as they pass, and whether they were not interrupted."""
    return _taken(_watched(_saying(steps, voice), voice, _card_told))


def _taken(steps: Iterable[StepT]) -> tuple[StepT | None, bool]:
    """The last of the steps, and whether they were not interrupted."""
    step: StepT | None = None
    try:
        for step in steps:  # noqa: B007
            pass
    except KeyboardInterrupt:
        return step, False
    return step, True


def _cells_told(step: CellStep) -> tuple[str, float, bool]:
    """What is said of a step; how much is done; whether it is worth a line by itself."""
    told = f"{len(step.drawn)}/{step.total} cells"
    if not step.last:
        told += f"  step {step.index + 1}/{step.steps} of {len(step.batch)} at once"
    return told, step.share, step.index + 1 >= step.steps


def _card_told(step: CardStep) -> tuple[str, float, bool]:
    doing = {"look": "looking at pictures", "draw": "drawing"}[step.doing]
    return (doing if step.card is None else "drawn"), step.share, step.card is not None


def _saying(steps: Iterable[CardStep], voice: Voice) -> Iterator[CardStep]:
    for step in steps:
        if step.skipped is not None:
            voice.note(f"skipped: {step.skipped.why}")
        yield step


def _watched(
    steps: Iterable[StepT], voice: Voice, telling: Callable[[StepT], tuple[str, float, bool]]
) -> Iterator[StepT]:
    """The same steps, told of as they pass: live on a terminal, else a line now and then."""
    begun = time.monotonic()
    if voice.quiet:
        yield from steps
    elif not voice.console.is_terminal or voice.console.is_dumb_terminal:
        for step in steps:
            told, _, whole = telling(step)
            if whole:
                voice.note(f"{told}  {time.monotonic() - begun:.1f} s")
            yield step
    else:
        yield from _live(steps, voice, telling)


def _live(
    steps: Iterable[StepT], voice: Voice, telling: Callable[[StepT], tuple[str, float, bool]]
) -> Iterator[StepT]:
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(bar_width=20), TextColumn("{task.description}"))
    begun = time.monotonic()
    with Progress(*columns, console=voice.console, transient=True) as progress:
        task = progress.add_task("looking at the network …", total=None)
        shown, first, told = 0.0, None, ""
        for step in steps:
            told, share, _ = telling(step)
            now = time.monotonic()
            # What was there already took no time: the rest is judged by what came after it.
            first = first or (now, share)
            if now - shown >= SHOW_EVERY:
                shown = now
                left = _left(now - first[0], share - first[1], 1 - share)
                progress.update(task, description=f"{told}{left}", total=1.0, completed=share)
            yield step
    voice.note(f"{told}  {time.monotonic() - begun:.1f} s")


def _left(took: float, done: float, rest: float) -> str:
    if done <= 0 or rest <= 0:
        return ""
    minutes, seconds = divmod(round(took / done * rest), 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    return f"  {clock} left"
