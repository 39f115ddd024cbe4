"""`phosphene replay`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from phosphene.cli import DIFFERENT, DONE, INTERRUPTED, complain
from phosphene.cli.common import Job, check_new, consumed, refuse_same, undisturbed
from phosphene.cli.dreaming import machine_of
from phosphene.cli.progress import Voice, to_stdout, watched
from phosphene.errors import NonFiniteError, SettingsError

if TYPE_CHECKING:
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
        A picture that phosphene made, or the JSON file of its recipe.
    output
        Where to write what is made; without it, it is only compared.
    input
        ROLE=PATH, as in photo=sky.jpg: where an input lies, if neither beside the file nor in the
        current folder. May be given several times.
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
    from phosphene import image as images
    from phosphene import manifest as m

    voice = Voice(quiet=quiet, verbose=verbose)
    recipe = m.Manifest.read(file)
    folders = [file.parent, Path.cwd()]
    files = m.find_inputs(recipe, folders, _named(input or []), anyway=anyway)
    if output:
        refuse_same(output, file, "picture to replay")
        for role, path in files.items():
            refuse_same(output, path, role)
        check_new(output, force)
        images.check_output(output, overwrite=force)
    with voice.hearing_warnings():
        job = _job(recipe, network or m.find_network(recipe, folders), files, voice)
        scale = getattr(job.order.settings, "octave_scale", None)
        outcome = consumed(watched(m.replay(recipe, job.order), voice, scale))
    if isinstance(outcome.error, KeyboardInterrupt):
        complain("interrupted, nothing was written")
        return INTERRUPTED
    as_told = recipe.ended and recipe.ended.why == "not finite"
    if outcome.error and not (isinstance(outcome.error, NonFiniteError) and as_told):
        raise outcome.error
    outcome = replace(outcome, ended=outcome.ended or recipe.ended)
    assert outcome.picture is not None
    picture, record = job.recorded(outcome.picture, outcome)
    alpha = job.opacity(picture)
    if output:
        with undisturbed():
            images.save_image(picture, output, alpha=alpha, recipe=record.text(), overwrite=force)
    there = file if file.suffix.lower() in images.SUFFIXES else None
    found = m.compare(recipe, record, picture, alpha, there)
    if not quiet:
        to_stdout(told(file, found, recipe, record))
        if output:
            to_stdout(str(output))
    return DONE if found.same and found.unchanged is not False else DIFFERENT


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
    for role, path in files.items():
        was = recipe.inputs[role]
        if m.file_hash(path) != was.sha256:
            voice.note(f"{str(path)!r} is taken as {role}, though it is another picture")
            seen = order.pictures.get(role)
            size = (was.height, was.width) if seen is None else images.size_of(seen)
            inputs[role] = m.input_of(path, size, was.size)
    new = recipe.model_copy(
        update={
            "phosphene": __version__,
            "network": m.NetworkUsed(name=m.network_name(name), fingerprint=net.fingerprint),
            "inputs": inputs,
            "versions": m.versions(),
            "machine": machine_of(order) if recipe.recipe == "dream" else m.machine(net),
        }
    )
    return Job(order, new, m.alpha_of(recipe, files))


def told(file: Path, found: Comparison, old: Manifest, new: Manifest) -> str:
    """What a comparison found, in a line."""
    apart = ""
    if found.most is not None:
        apart = f" by at most {found.most} of 255 levels, {found.mean:.3g} on average"
    if found.same and found.unchanged is not False:
        return f"{file}: the same, pixel for pixel"
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
    elif found.most == 0:
        apart = ", but not once encoded: the file's own pixels are the same"
    elif found.most is None:
        apart = " (there is no picture beside the recipe to say by how much)"
    why = "; ".join(found.differing)
    because = f"; other than then: {why}" if why else "; versions and machine are as they were"
    return f"{file}: different{apart}{because}"
