"""`phosphene replay`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from phosphene.cli import DIFFERENT, DONE, INTERRUPTED, complain
from phosphene.cli.common import Job, check_new, consumed, refuse_inputs, undisturbed, weights_of
from phosphene.cli.dreaming import machine_of
from phosphene.cli.explaining import drawn_card, drawn_sheet
from phosphene.cli.progress import Voice, to_stdout, watched
from phosphene.errors import NonFiniteError, SettingsError

LONGEST_VERSION = 40  # characters of a stranger's recipe that are put on a page

if TYPE_CHECKING:
    from torch import Tensor

    from phosphene.explain.sheets import Sheet
    from phosphene.explain.units import Card
    from phosphene.manifest import Comparison, Manifest


def verb(
    file: Path,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    input: Annotated[list[str] | None, Parameter(negative=())] = None,
    network: str | None = None,
    anyway: Annotated[bool, Parameter(negative=())] = False,
    force: Annotated[bool, Parameter(negative=())] = False,
    quiet: Annotated[bool, Parameter(negative=())] = False,
    verbose: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Make again what a picture's recipe says, and say whether it is the same.

    Exits with 0 if it is the same, pixel for pixel, and with 3 if not.

    Parameters
    ----------
    file
        A picture or page that phosphene made, or the JSON file of its recipe.
    output
        Where to write what is made; without it, it is only compared.
    input
        ROLE=PATH, as in photo=sky.jpg, or pictures=FOLDER of a unit: where an input lies, if
        neither beside the file nor in the current folder. May be given several times.
    network
        To take instead of the recipe's: for a recipe whose network is code, or a file elsewhere.
    anyway
        Take inputs though they are not the recipe's by their SHA-256.
    force
        Replace a file that is there. Never the one replayed.
    quiet
        Say nothing but errors.
    verbose
        Say what is done with what.
    """
    from phosphene import manifest as m

    voice = Voice(quiet=quiet, verbose=verbose)
    recipe = m.Manifest.read(file)
    folders = [file.parent, Path.cwd()]
    files = m.find_inputs(recipe, folders, _named(input or []), anyway=anyway)
    if output:
        refuse_inputs({"output": output}, {"picture to replay": file})
        _check_output(output, recipe, files, force)
    with voice.hearing_warnings():
        name = network or m.find_network(recipe, folders)
        if output:
            refuse_inputs({"output": output}, weights_of(name))
        job = _job(recipe, name, files, voice)
        again = (_page if recipe.recipe in m.PAGES else _picture)(job, recipe, files, voice)
    if again is None:
        complain("interrupted, nothing was written")
        return INTERRUPTED
    if output:
        with undisturbed():
            again.save(output, force)
    found = again.compared(recipe, file)
    if not quiet:
        to_stdout(told(file, found, recipe, again.record))
        if output:
            to_stdout(str(output))
    return DONE if found.same and found.unchanged is not False else DIFFERENT


def _check_output(output: Path, recipe: Manifest, files: Mapping[str, Path], force: bool) -> None:
    from phosphene import image as images
    from phosphene import manifest as m
    from phosphene.explain.layout import check_page
    from phosphene.explain.responses import find_pictures

    for role, path in files.items():
        for each in find_pictures(path) if path.is_dir() else [path]:
            refuse_inputs({"output": output}, {role: each})
    check_new(output, force)
    if recipe.recipe in m.PAGES:
        check_page(output, overwrite=force)
    else:
        images.check_output(output, overwrite=force)


# --- what is made again ----------------------------------------------------------------------


@dataclass(frozen=True)
class _PictureAgain:
    """A picture that was made again, and its recipe as of now."""

    picture: Tensor
    alpha: Tensor | None
    record: Manifest

    def save(self, output: Path, force: bool) -> None:
        from phosphene import image as images

        text = self.record.text()
        images.save_image(self.picture, output, alpha=self.alpha, recipe=text, overwrite=force)

    def compared(self, recipe: Manifest, file: Path) -> Comparison:
        from phosphene import manifest as m

        return m.compare(recipe, self.record, self.picture, self.alpha, _picture_at(file))


def _picture(
    job: Job, recipe: Manifest, files: Mapping[str, Path], voice: Voice
) -> _PictureAgain | None:
    """None if it was interrupted."""
    from phosphene import manifest as m

    scale = getattr(job.order.settings, "octave_scale", None)
    outcome = consumed(watched(m.replay(recipe, job.order), voice, scale))
    if isinstance(outcome.error, KeyboardInterrupt):
        return None
    as_told = recipe.ended and recipe.ended.why == "not finite"
    if outcome.error and not (isinstance(outcome.error, NonFiniteError) and as_told):
        raise outcome.error
    outcome = replace(outcome, ended=outcome.ended or recipe.ended)
    assert outcome.picture is not None
    return _PictureAgain(*job.recorded(outcome.picture, outcome))


@dataclass(frozen=True)
class _PageAgain:
    """A page that was made again, and its recipe as of now."""

    shown: Sheet | Card
    picture: Tensor
    record: Manifest

    def save(self, output: Path, force: bool) -> None:
        from phosphene.explain.layout import save_page

        save_page(self.shown, output, recipe=self.record.text(), overwrite=force)

    def compared(self, recipe: Manifest, file: Path) -> Comparison:
        from phosphene import manifest as m
        from phosphene.explain import layout

        shown, picture, record = self.shown, self.picture, self.record
        if recipe.phosphene != shown.version:
            # It stands on the page: what is compared has that of the recipe.
            shown = replace(shown, version=recipe.phosphene[:LONGEST_VERSION])
            picture = layout.pixels(shown)
            record = record.model_copy(update={"result": m.result_of(picture)})
        found = m.compare(recipe, record, picture, None, _picture_at(file))
        if file.suffix.lower() != ".svg":
            return found
        there = file.read_text("utf-8", "replace")
        unchanged, most, mean = layout.svg_apart(layout.svg(shown), there)
        return replace(found, unchanged=unchanged, most=most, mean=mean)


def _page(job: Job, recipe: Manifest, files: Mapping[str, Path], voice: Voice) -> _PageAgain | None:
    """None if it was interrupted."""
    from phosphene import manifest as m
    from phosphene.explain.layout import pixels

    if recipe.recipe == "sheet":
        step, finished = drawn_sheet(m.sheet_steps(recipe, job.order), voice)
        shown = step.sheet() if step and finished else None
    else:
        step, finished = drawn_card(m.card_steps(job.order, files.get("pictures")), voice)
        shown = step.card if step and finished else None
    if not finished:
        return None
    assert step is not None
    assert step.network is not None
    assert shown is not None
    picture = pixels(shown)
    parts = {"machine": m.machine(step.network), "result": m.result_of(picture)}
    return _PageAgain(shown, picture, job.recipe.model_copy(update=parts))


def _picture_at(file: Path) -> Path | None:
    from phosphene import image as images

    return file if file.suffix.lower() in images.SUFFIXES else None


def _named(inputs: list[str]) -> dict[str, Path]:
    named = {}
    for text in inputs:
        role, equals, path = text.partition("=")
        if not (role and equals and path):
            raise SettingsError(f"--input {text!r}: expected ROLE=PATH, such as photo=sky.jpg")
        named[role] = Path(path)
    return named


def _job(recipe: Manifest, name: str, files: dict[str, Path], voice: Voice) -> Job:
    import torch

    from phosphene import __version__
    from phosphene import image as images
    from phosphene import manifest as m
    from phosphene.zoo import load_network

    net = load_network(name)
    order = m.ordered(recipe, net, files)
    # Sums are split by threads, and rounded with the split.
    on_cpu = getattr(order.settings, "device", None) == "cpu"
    if on_cpu and recipe.machine.threads <= (os.cpu_count() or 1):
        torch.set_num_threads(recipe.machine.threads)
    if net.fingerprint != recipe.network.fingerprint:
        voice.note(
            f"the weights of {name} are not the recipe's: {net.fingerprint[:12]}… instead of "
            f"{recipe.network.fingerprint[:12]}…"
        )
    inputs = dict(recipe.inputs)
    folder = recipe.folder and m.folder_of(files["pictures"])
    if folder and recipe.folder and folder.sha256 != recipe.folder.sha256:
        voice.note(f"{str(files['pictures'])!r} is taken, though its pictures are others")
    for role, path in files.items():
        was = recipe.inputs.get(role)
        if was and m.file_hash(path) != was.sha256:
            voice.note(f"{str(path)!r} is taken as {role}, though it is another picture")
            seen = order.pictures.get(role)
            size = (was.height, was.width) if seen is None else images.size_of(seen)
            inputs[role] = m.input_of(path, size, was.size)
    new = recipe.model_copy(
        update={
            "phosphene": __version__,
            "network": m.NetworkUsed(name=m.network_name(name), fingerprint=net.fingerprint),
            "inputs": inputs,
            "folder": folder,
            "versions": m.versions(),
            "machine": machine_of(order) if recipe.recipe == "dream" else m.machine(net),
        }
    )
    return Job(order, new, m.alpha_of(recipe, files))


def told(file: Path, found: Comparison, old: Manifest, new: Manifest) -> str:
    """What a comparison found, in a line."""
    from phosphene.manifest import PAGES

    apart = ""
    if found.most is not None:
        apart = f" by at most {found.most} of 255 levels, {found.mean:.3g} on average"
    if found.same and found.unchanged is not False:
        return f"{file}: the same, pixel for pixel"
    if found.same and file.suffix.lower() == ".svg":
        return (
            f"{file}: comes out as its recipe says, but the file itself differs: it was changed or "
            "saved anew after it was written"
        )
    if found.same:
        return (
            f"{file}: comes out as its recipe says, but the file's own pixels differ{apart}: they "
            "were changed or encoded anew after they were written"
        )
    if (old.result.width, old.result.height) != (new.result.width, new.result.height):
        apart = (
            f" in size: {new.result.width}×{new.result.height} px instead of "
            f"{old.result.width}×{old.result.height}"
        )
    elif found.most == 0 and file.suffix.lower() != ".svg":
        apart = ", but not once encoded: the file's own pixels are the same"
    elif found.unchanged is None:
        apart = " (there is no picture beside the recipe to say by how much)"
    why = "; ".join(found.differing)
    because = f"; other than then: {why}" if why else "; versions and machine are as they were"
    if not why and old.recipe in PAGES:
        because += (
            ", but cells that another page had kept may have been drawn in other batches, and so "
            "rounded otherwise"
        )
    return f"{file}: different{apart}{because}"
