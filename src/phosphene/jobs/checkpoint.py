"""Going on after a kill: where a job is, in a file, and which files are its own already."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phosphene.errors import ImageError, PhospheneError, StateError
from phosphene.jobs.request import InputFile, Request, request_of
from phosphene.manifest.schema import NUMERICS, Input, Manifest
from phosphene.settings import Settings

if TYPE_CHECKING:
    from phosphene.state import State

EVERY = 60.0  # s


@dataclass
class Checkpoint:
    """A job's state in a file, which a later run of the same request goes on from.

    path: of the file. every: s, between one and the next, besides those at the end of an octave.
    identity: what the result depends on, as `Request.identity` says it.
    state, plan: what the file held; the steps are to go on from there.
    """

    path: Path
    every: float
    identity: dict[str, Any]
    state: State | None = None
    plan: tuple[int | None, ...] = ()
    saved: float = field(default_factory=time.monotonic)
    broken: bool = False  # it could not be written, which was said

    @staticmethod
    def opened(path: Path, every: float, request: Request, fingerprint: str) -> Checkpoint:
        """That of a request which is complete, with what its file holds, if it is there.

        StateError if that is damaged, or of another request.
        """
        from phosphene.state import State

        identity = request.identity(fingerprint)
        path = Path(os.path.realpath(path))  # what a link points at is written, and removed
        if not path.exists():
            return Checkpoint(path, every, identity)
        state, about = State.read(path)
        theirs = about.get("identity")
        if not isinstance(theirs, dict) or theirs != identity:
            what = _difference(theirs if isinstance(theirs, dict) else {}, identity)
            raise StateError(
                f"{str(path)!r} is the checkpoint of something else: {what}; "
                "name another file, or remove that one"
            )
        return Checkpoint(path, every, identity, state, tuple(about["plan"]))

    def due(self, last: bool) -> bool:
        """Whether it is time to save: at the end of an octave, and every so many seconds."""
        return last or time.monotonic() - self.saved >= self.every

    def save(self, state: State, plan: list[int | None]) -> None:
        """Write the file anew, whole. ImageError if it cannot be written."""
        state.save(self.path, {"identity": self.identity, "plan": plan})
        self.saved = time.monotonic()

    def try_to_save(self, state: State, plan: list[int | None]) -> str | None:
        """Write the file; what kept it from it, said once: a full disk ends no dream."""
        try:
            self.save(state, plan)
        except ImageError as error:
            self.saved = time.monotonic()
            if not self.broken:
                self.broken = True
                return f"note: no checkpoint: {error}"
        return None

    def remove(self) -> None:
        """Remove the file: all that it is for is done."""
        self.path.unlink(missing_ok=True)

    def is_own(self, path: Path) -> bool:
        """Whether a file is a result of this very request, be it whole or a part of the way."""
        return self.own_manifest(path) is not None

    def is_whole(self, path: Path) -> bool:
        """Whether a file is a result of this very request, and whole."""
        manifest = self.own_manifest(path)
        return manifest is not None and manifest.ended is None and manifest.result is not None

    def own_manifest(self, path: Path) -> Manifest | None:
        """The manifest of a file, if it is one of this request."""
        try:
            manifest = Manifest.read(path)
            same = manifest.numerics == NUMERICS and identity_of(manifest) == self.identity
        except (PhospheneError, OSError, ValueError):
            return None
        return manifest if same else None


def recipe_of(path: Path) -> str | None:
    """The recipe by which a file was made, if it says so."""
    try:
        return Manifest.read(path).recipe
    except (PhospheneError, OSError, ValueError):
        return None


def identity_of(manifest: Manifest) -> dict[str, Any]:
    """What the result of a manifest depended on, as `Request.identity` says it."""
    files = {role: Path(record.name) for role, record in manifest.inputs.items()}
    settings: Settings = manifest.checked_settings()
    request = request_of(manifest, manifest.network.name, files, settings)
    pinned = {
        role: entry.model_copy(update={"sha256": manifest.inputs[role].sha256})
        for role, entry in request.inputs.items()
    }
    request = request.model_copy(update={"inputs": pinned})
    return request.identity(manifest.network.fingerprint, manifest.plugins)


def with_sizes(
    request: Request, inputs: Mapping[str, InputFile], records: Mapping[str, Any]
) -> dict[str, InputFile]:
    """Inputs with the SHA-256 and the longest side with which they were loaded."""
    found = {}
    for role, entry in inputs.items():
        record, declared = records[role], request.declaration.input(role)
        update: dict[str, Any] = {"sha256": record.sha256}
        if isinstance(record, Input) and not (declared and declared.resized):
            update["size"] = record.size
        found[role] = entry.model_copy(update=update)
    return found


def _difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """What differs first, in a few words."""
    for what, before, now in _differences(theirs, ours):
        return f"its {what} is {_short(before)}, here it is {_short(now)}"
    return "it says nothing of its request"


def _differences(
    theirs: Mapping[str, Any], ours: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    words = {"weights": "network's weights' SHA-256", "objectives": "objective", "layers": "layer"}
    for name in ("recipe", "weights", *ours):
        before, now = theirs.get(name), ours[name]
        if before == now or name in ("settings", "inputs"):
            continue
        yield words.get(name, name), before, now
    before, now = theirs.get("settings") or {}, ours["settings"]
    for name, value in now.items():
        if before.get(name) != value:
            yield f"setting {name}", before.get(name), value
    if theirs.get("inputs") != ours["inputs"]:
        before, now = (
            "/".join(str(part[1])[:12] for part in of or ())
            for of in (theirs.get("inputs"), ours["inputs"])
        )
        yield "pictures' SHA-256", before, now


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return repr(text if len(text) <= 60 else text[:57] + "…")
