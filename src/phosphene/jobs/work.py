"""The folder of a film that is being made: its frames, and what a later run goes on from.

    OUT.mp4.work/
        request.json           what was asked for, and its identity
        frames/000001.png      each frame, 8 bits, lossless
        frames.jsonl           a line for each: its time, shot and hash
        state-0.safetensors    what the next frame needs, of the last two that are whole
        state-1.safetensors
        latest.png             the newest frame, for whoever watches

A frame counts once its state is written, which is the last that is: so a process may be killed at
any moment, and what it was at is done again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from phosphene import image as images
from phosphene.errors import ImageError, StateError
from phosphene.films.frames import Frame
from phosphene.image.files import write_atomically
from phosphene.jobs.checkpoint import difference
from phosphene.recipes.steps.frames import FrameStep
from phosphene.state import State

DIGITS = 6
# Of PNG, of a frame's bytes: what is dreamt is hardly smaller than as it is in memory.
COMPRESSED = 0.8
QUICK = 1  # zlib's level; others take longer than a step does, for 3 % less


@dataclass(frozen=True)
class FrameRecord:
    """What is known of a frame that is whole.

    time, duration, time_base: s, as fractions. shot: counted from 0. hash: of its 8-bit RGB.
    """

    index: int
    time: str
    duration: str | None
    time_base: str | None
    shot: int
    hash: str

    @staticmethod
    def of(step: FrameStep, pixels: bytes) -> FrameRecord:
        """That of the frame that a step ends."""

        def text(time: Fraction | None) -> str | None:
            return None if time is None else str(time)

        return FrameRecord(
            step.frame,
            str(step.time),
            text(step.duration),
            text(step.time_base),
            step.shot,
            frame_hash(pixels),
        )


def frame_hash(pixels: bytes) -> str:
    """The first half of the SHA-256 of a frame's 8-bit RGB, row by row: 32 hex digits."""
    return hashlib.sha256(pixels).hexdigest()[:32]


@dataclass
class WorkFolder:
    """The folder `path` of the film of a request, whose identity is that of `Request.identity`.

    records: of the frames that are whole. state: what the next one needs, of a run before.
    """

    path: Path
    identity: Mapping[str, Any]
    records: list[FrameRecord] = field(default_factory=list)
    state: State | None = None

    @staticmethod
    def beside(output: Path) -> Path:
        """Where the folder of a film lies."""
        return output.with_name(f"{output.name}.work")

    @staticmethod
    def opened(path: Path, identity: Mapping[str, Any]) -> WorkFolder:
        """The folder, with what lies in it. StateError if that is of another film, or damaged."""
        found = WorkFolder(path, identity)
        if not path.exists():
            return found
        try:
            theirs = json.loads((path / "request.json").read_bytes())["identity"]
        except (OSError, ValueError, KeyError, TypeError):
            if path.is_dir() and not any(path.iterdir()):
                return found
            raise StateError(
                f"{str(path)!r} is in the way, and no folder of a film's work: move it away"
            ) from None
        if theirs != identity:
            what = difference(theirs if isinstance(theirs, dict) else {}, identity)
            raise StateError(
                f"{str(path)!r} holds the work of another film: {what}; name another output, or "
                "remove that folder"
            )
        found._read_states()
        return found

    def _read_states(self) -> None:
        newest = None
        for number in (0, 1):
            with suppress(StateError):  # which was not there, or being written
                state, about = State.read(self._state_file(number))
                if newest is None or about["frames"] > newest[1]:
                    newest = state, about["frames"]
        if newest is None:
            return
        records = self._read_records()[: newest[1]]
        if len(records) < newest[1]:
            raise StateError(f"{str(self.path)!r} is damaged: its frames.jsonl lacks frames")
        missing = [r.index for r in records if not self.frame_file(r.index).is_file()]
        if missing:
            raise StateError(f"{str(self.path)!r} is damaged: frame {missing[0] + 1} is not there")
        self.state, self.records = newest[0], records

    def _read_records(self) -> list[FrameRecord]:
        found = []
        with suppress(OSError, ValueError, TypeError):  # the last line may not be whole
            for line in (self.path / "frames.jsonl").read_text().splitlines():
                found.append(FrameRecord(**json.loads(line)))
        return found

    # Writing --------------------------------------------------------------------------------------

    def begin(self, request: str) -> None:
        """Make the folder, with a request as JSON. ImageError if it cannot be made."""
        try:
            (self.path / "frames").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImageError(f"cannot make {str(self.path)!r}: {error.strerror}") from None
        whole = {"identity": dict(self.identity), "request": json.loads(request)}
        write_atomically(self.path / "request.json", json.dumps(whole, indent=1).encode())
        # What was begun and not finished goes.
        lines = "".join(f"{json.dumps(asdict(record))}\n" for record in self.records)
        write_atomically(self.path / "frames.jsonl", lines.encode())

    def add(self, step: FrameStep) -> None:
        """Keep the frame that a step ends, and what the next one needs. ImageError if it cannot."""
        assert step.image is not None
        pixels = images.to_uint8(step.image)
        record = FrameRecord.of(step, pixels.tobytes())
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "PNG", compress_level=QUICK)
        write_atomically(self.frame_file(step.frame), data.getvalue())
        self._append(f"{json.dumps(asdict(record))}\n")
        count = len(self.records) + 1
        step.state().save(self._state_file(count % 2), {"frames": count})
        self.records.append(record)
        with suppress(OSError, ImageError):  # which nothing depends on
            write_atomically(self.path / "latest.png", data.getvalue())

    def _append(self, line: str) -> None:
        path = self.path / "frames.jsonl"
        try:
            with path.open("a") as stream:
                stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise ImageError(f"cannot write {str(path)!r}: {error.strerror}") from None

    def frames(self) -> Iterator[Frame]:
        """The frames that are whole, as they were kept. ImageError if one was changed since."""

        def fraction(text: str | None) -> Fraction | None:
            return None if text is None else Fraction(text)

        for record in self.records:
            path = self.frame_file(record.index)
            image: Tensor = images.load_image(path)
            if frame_hash(images.to_uint8(image).tobytes()) != record.hash:
                raise ImageError(f"{str(path)!r} is not the frame that was made: it was changed")
            yield Frame(
                record.index,
                Fraction(record.time),
                image,
                fraction(record.duration),
                fraction(record.time_base),
            )

    def remove(self, *, keep_frames: bool = False) -> None:
        """Remove the folder; or all of it but the frames."""
        if not keep_frames:
            shutil.rmtree(self.path, ignore_errors=True)
            return
        for path in self.path.iterdir():
            if path.name != "frames":
                path.unlink(missing_ok=True)

    def remove_if_empty(self) -> None:
        """Remove the folder if no frame of it is whole."""
        if not self.records:
            shutil.rmtree(self.path, ignore_errors=True)

    def check_disk(self, frames: int | None, pixels: int) -> str:
        """How much disk all frames take, in words. ImageError if that is not there."""
        from phosphene.runtime.memory import format_bytes

        if frames is None:
            return ""
        needed = int((frames - len(self.records)) * pixels * 3 * COMPRESSED) + 8 * pixels * 12
        free = shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise ImageError(
                f"the frames of this film take about {format_bytes(needed)} of disk, and "
                f"{format_bytes(free)} are free beside {str(self.path)!r}"
            )
        return f"{frames} frames: about {format_bytes(needed)} of disk while it is made"

    def frame_file(self, index: int) -> Path:
        """Where a frame, counted from 0, lies."""
        return self.path / "frames" / f"{index + 1:0{DIGITS}}.png"

    def _state_file(self, number: int) -> Path:
        return self.path / f"state-{number}.safetensors"
