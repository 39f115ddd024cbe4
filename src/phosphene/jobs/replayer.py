"""`replay`: make again what a manifest says, and see whether it is the same.

A manifest may come from a stranger. Replaying one reads pictures by their bare name from the
folders that the caller names, and imports no code that the manifest alone names.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from phosphene.errors import NonFiniteError, RecipeError, SettingsError, suggest
from phosphene.jobs import outputs
from phosphene.jobs.events import Ended, Event, Note
from phosphene.jobs.job import Job, Outcome, uninterrupted
from phosphene.jobs.request import request_of, weights_file
from phosphene.jobs.runner import prepare
from phosphene.manifest.capture import folder_of
from phosphene.manifest.hashes import file_hash
from phosphene.manifest.schema import Folder, Input, Manifest, refuse_missing
from phosphene.network import pick_device
from phosphene.zoo import names_code, starts_download

if TYPE_CHECKING:
    from phosphene.settings import Settings


def replay(
    file: str | Path,
    *,
    inputs: Mapping[str, Path] | None = None,
    network: str | None = None,
    anyway: bool = False,
    output: Path | None = None,
    force: bool = False,
    frames: tuple[int, int] | None = None,
    large: bool = False,
) -> Generator[Event, None, None]:
    """Make again what a file's manifest says: events, of which `Compared` tells whether it is it.

    Args:
        file: a picture or page that phosphene made, or the JSON of its manifest.
        inputs: role -> path, for what lies neither beside the file nor in the current folder.
        network: a name to take instead of the manifest's, which may then be code or be fetched.
        anyway: take inputs though they are not the manifest's by their SHA-256.
        output: where what is made is written; without it, it is only compared.
        force: a file that is there may be replaced; never the one that is replayed.
        frames: of a film, the first and the last that are wanted, counted from 0; it is made from
            the beginning of the shot of the first.
        large: work far beyond what is usual may be begun, too.

    Raises:
        RecipeError: for a manifest that is missing, damaged or of a newer version, and for inputs
            that are not there, or plugins that are not loaded.
    """
    yield from Replay.prepared(
        file,
        inputs=inputs,
        network=network,
        anyway=anyway,
        output=output,
        force=force,
        frames=frames,
        large=large,
    ).events()


@dataclass
class Replay:
    """A replay, checked and loaded: `events()` runs it; `new` is then its manifest."""

    file: Path
    old: Manifest
    job: Job
    output: Path | None = None
    new: Manifest | None = field(default=None)

    @staticmethod
    def prepared(
        file: str | Path,
        *,
        inputs: Mapping[str, Path] | None = None,
        network: str | None = None,
        anyway: bool = False,
        output: Path | None = None,
        force: bool = False,
        frames: tuple[int, int] | None = None,
        large: bool = False,
    ) -> Replay:
        """See `replay`."""
        file = Path(file)
        manifest = Manifest.read(file)
        if manifest.result is None:
            raise RecipeError(f"the recipe in {str(file)!r} is of nothing that was finished")
        refuse_missing(manifest.plugins, "the recipe", RecipeError)
        folders = [file.parent, Path.cwd()]
        files = find_inputs(manifest, folders, inputs, anyway=anyway)
        if output:
            outputs.refuse_inputs([("output", output)], {"picture to replay": file, **files})
        name = network or find_network(manifest, folders)
        settings = replay_settings(manifest)
        # Sums are split by threads, and rounded with the split.
        on_cpu = getattr(settings, "device", None) == "cpu"
        if on_cpu and manifest.machine.threads <= (os.cpu_count() or 1):
            torch.set_num_threads(manifest.machine.threads)
        request = request_of(manifest, name, files, settings, output)
        job = prepare(request, force=force, allow=(name,), cache=False, large=large, recorded=True)
        job.until, job.part = manifest.ended, manifest.part
        if frames is not None:
            job.limit(*_shot_of(manifest, frames))
        job.notes = [*_differences(manifest, job, files), *job.notes]
        return Replay(file, manifest, job, output)

    def events(self) -> Generator[Event, None, None]:
        """Run, save, compare, and tell."""
        outcome: Outcome = yield from self.job.computed()
        if isinstance(outcome.error, KeyboardInterrupt):
            yield Ended("interrupted", "interrupted, nothing was written", outcome.error)
            return
        as_then = self.old.ended and self.old.ended.why == "not finite"
        if outcome.error and not (isinstance(outcome.error, NonFiniteError) and as_then):
            raise outcome.error
        outcome = replace(outcome, ended=outcome.ended or self.old.ended)
        found, self.new = self.job.compared(outcome, self.old, self.file, self.output)
        yield from uninterrupted([*found, Ended("done")])


def _shot_of(manifest: Manifest, frames: tuple[int, int]) -> tuple[int, int]:
    """The frames that have to be made for these: from the first one's shot on.

    RecipeError if the recipe is of no film, or of one without them.
    """
    film = manifest.film
    if film is None:
        raise RecipeError("the recipe is of no film, and has no frames")
    first, last = frames
    if last >= len(film.frames):
        raise RecipeError(f"the film has {len(film.frames)} frames, and no frame {last + 1}")
    return max((shot for shot in film.shots if shot <= first), default=0), last


def replay_settings(manifest: Manifest) -> Settings:
    """The settings of a replay: the manifest's precision and tiles, its device if that is here."""
    found = manifest.checked_settings()
    changes: dict[str, Any] = {"precision": manifest.machine.precision}
    try:
        pick_device(manifest.machine.device)
        changes["device"] = manifest.machine.device
    except SettingsError:
        changes["device"] = "auto"
    tiles = {side for side in manifest.plan if side is not None}
    if len(tiles) == 1 and getattr(found, "tile", None) == "auto":
        changes["tile"] = tiles.pop()
    known = {name: value for name, value in changes.items() if name in type(found).model_fields}
    return found.model_copy(update=known)


def _differences(manifest: Manifest, job: Job, files: Mapping[str, Path]) -> Iterator[Note]:
    fingerprint, old = job.arguments.network.fingerprint, manifest.network.fingerprint
    if fingerprint != old:
        yield Note(
            f"the weights of {job.request.network} are not the recipe's: {fingerprint[:12]}… "
            f"instead of {old[:12]}…"
        )
    for role, path in files.items():
        was, now = manifest.inputs[role], job.loaded.records.get(role)
        if now is None or now.sha256 == was.sha256:
            continue
        if isinstance(was, Folder):
            yield Note(f"{str(path)!r} is taken, though its pictures are others")
        else:
            yield Note(f"{str(path)!r} is taken as {role}, though it is another picture")


# What is found ------------------------------------------------------------------------------------


def find_inputs(
    manifest: Manifest,
    folders: Sequence[Path],
    given: Mapping[str, Path] | None = None,
    *,
    anyway: bool = False,
) -> dict[str, Path]:
    """role -> file, for every input: as `given`, or by its name in one of `folders`.

    RecipeError if one is not there, or is another than the recipe's by its SHA-256; `anyway` takes
    it then.
    """
    given = dict(given or {})
    wanted = manifest.inputs
    for role in given:
        if role not in wanted:
            raise RecipeError(
                f"the recipe has no input {role!r}{suggest(role, wanted)}"
                if wanted
                else f"the recipe has no inputs, so none is called {role!r}"
            )
    return {
        role: _found(role, used, folders, given.get(role), anyway) for role, used in wanted.items()
    }


def _found(
    role: str, used: Input | Folder, folders: Sequence[Path], given: Path | None, anyway: bool
) -> Path:
    places = [given] if given else list(dict.fromkeys(folder / used.name for folder in folders))
    kind, what = ("folder", "folder of pictures") if isinstance(used, Folder) else ("file", role)
    others: list[tuple[Path, str]] = []
    for place in places:
        if given or (place.is_dir() if kind == "folder" else place.is_file()):
            digest = folder_of(place).sha256 if kind == "folder" else file_hash(place)
            if digest == used.sha256:
                return place
            others.append((place, digest))
    if not others:
        where = " or ".join(dict.fromkeys(repr(str(folder)) for folder in folders))
        raise RecipeError(
            f"{used.name!r}, the recipe's {what}, is not in {where}: "
            f"say where it is with --input {role}=PATH"
        )
    place, digest = others[0]
    if anyway:
        return place
    raise RecipeError(
        f"{str(place)!r} is not the recipe's {what}: its SHA-256 is {digest[:12]}…, that of the "
        f"recipe's {used.name!r} {used.sha256[:12]}…; --input {role}=PATH names another {kind}, "
        "--anyway takes this one"
    )


def find_network(manifest: Manifest, folders: Sequence[Path]) -> str:
    """The name by which `load_network` finds the recipe's network.

    RecipeError for one that is code: a recipe, which may be a stranger's, does not run any.
    """
    name = manifest.network.name
    path, runs = weights_file(name)
    if path is not None:
        bare = Path(path).name
        place = next((f / bare for f in folders if bare and (f / bare).is_file()), None)
        if place is None:
            where = " or ".join(dict.fromkeys(repr(str(folder)) for folder in folders))
            raise RecipeError(
                f"the recipe's weights {bare!r} are not in {where}: "
                f"say where with --network file:PATH@{runs}"
            )
        name = f"file:{place}@{runs}"
    if names_code(runs):
        raise RecipeError(
            f"the recipe's network {name!r} may be code, which a recipe does not start by itself: "
            f"allow it with --network {name}"
        )
    if starts_download(name):
        raise RecipeError(
            f"the weights of the recipe's network {name!r} may have to be fetched, and a recipe "
            f"starts no download by itself: allow it with --network {name}"
        )
    return name
