"""The process that decodes and encodes, as seen from here.

A film may be a stranger's, and FFmpeg is a million lines of C: so it runs in a process of its own,
with bounds of memory and of time for each frame (see `child`), which is killed where it stays
silent, and whose end is an error like any other. Neither torch nor PyAV is needed here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import IO, Any, Self

from phosphene.errors import FilmError, MissingExtraError, one_line
from phosphene.films.messages import packed, unpacked

PATIENCE = 60.0
"""Seconds after which a process that says nothing, and takes nothing, is given up."""

# Not `-m`: the modules shall be this process's own, wherever it has them from. Nor
# `multiprocessing`, which would import the user's script anew.
_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from phosphene.films.child import main; main()"
)
_PIPE = 2**20  # bytes; a frame goes through in fewer turns


def check_extra(feature: str) -> None:
    """MissingExtraError unless PyAV is installed; it is not imported."""
    if importlib.util.find_spec("av") is None:
        raise MissingExtraError(feature, "film")


class Child:
    """A process that works on one film: a context, which ends it.

    Args:
        task: what it is to do, the first message that it gets.
        doing: what cannot be done if it fails, such as `read 'a.mp4'`.
        patience: seconds without a sign of life after which it is killed.

    Its methods raise FilmError, with what the process says, or with how it ended.
    """

    def __init__(self, task: Mapping[str, Any], doing: str, patience: float = PATIENCE) -> None:
        self._doing, self._patience = doing, patience
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            pipesize=_PIPE,
            start_new_session=os.name == "posix",  # Ctrl-C is for this process to decide upon
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        if os.name == "posix":
            os.set_blocking(self._to.fileno(), False)
        self.send(task)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        for pipe in (self._to, self._from):
            with suppress(OSError):
                pipe.close()
        self._process.wait()
        self._errors.close()

    def send(self, header: Mapping[str, Any], *chunks: bytes | memoryview) -> None:
        """Send a message."""
        try:
            for piece in packed(header, *chunks):
                rest = memoryview(piece).cast("B")
                while rest:
                    self._wait(writing=True)
                    rest = rest[self._to.write(rest) or 0 :]
        except (BrokenPipeError, ConnectionError):
            while True:  # what it has said before it ended; an error, or raises how it ended
                self.receive()

    def receive(self) -> tuple[dict[str, Any], bytearray]:
        """The next message. FilmError if it is one of an error."""
        try:
            header, data = unpacked(self._read)
        except (EOFError, ValueError, KeyError):
            raise self._ended() from None
        if "error" in header:
            raise FilmError(header["error"])
        return header, data

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        rest = memoryview(data)
        while rest:
            self._wait(writing=False)
            got = self._from.readinto(rest)  # pyright: ignore[reportAttributeAccessIssue]
            if not got:
                raise EOFError
            rest = rest[got:]
        return data

    def _wait(self, *, writing: bool) -> None:
        """Until a pipe is ready; FilmError after the patience is over."""
        if os.name != "posix":  # elsewhere pipes cannot be waited for
            return
        poll = select.poll()  # unlike select, it takes any number of open files
        if writing:
            poll.register(self._to, select.POLLOUT)
        else:
            poll.register(self._from, select.POLLIN)
        if not poll.poll(self._patience * 1000):
            self._process.kill()
            raise FilmError(f"cannot {self._doing}: nothing happened for {self._patience:g} s")

    def _ended(self) -> FilmError:
        """How a process ended that was to say more."""
        self._process.kill()
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read()[-4000:].decode("utf-8", "replace").strip().splitlines()
        if code == -getattr(signal, "SIGXCPU", 0):
            reason = "a single frame takes too long to compute"
        elif code < 0:
            reason = f"FFmpeg's process ended with {signal.Signals(-code).name}"
        else:
            reason = one_line(said[-1] if said else f"FFmpeg's process ended with {code}")
        return FilmError(f"cannot {self._doing}: {reason}")
