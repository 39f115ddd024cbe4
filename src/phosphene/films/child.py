"""The process that knows FFmpeg, from within: its bounds, and its way to talk.

It gets a task on its standard input (see `messages`), does it, and answers on its standard output.
It is told nothing else, reads the film and writes the file that the task names, and ends as soon as
nobody listens. It never imports torch.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from phosphene.errors import PhospheneError, one_line
from phosphene.films.messages import packed, unpacked

MEMORY = 4 * 2**30
"""Bytes of addresses that decoding may take."""

FRAME_SECONDS = 60
"""Seconds of computing that a single frame may take to decode."""

ENCODING_SECONDS = 1200
"""The same for a frame that is encoded; the work is our own and may be slow."""


class Channel:
    """The two pipes. Whatever FFmpeg prints cannot get among the messages."""

    def __init__(self) -> None:
        self._in = io.BufferedReader(io.FileIO(os.dup(0), "rb"), 2**20)
        self._out = io.FileIO(os.dup(1), "wb")
        os.dup2(2, 1)

    def send(self, header: Mapping[str, Any], *chunks: bytes | memoryview) -> None:
        for piece in packed(header, *chunks):
            rest = memoryview(piece).cast("B")
            while rest:
                rest = rest[self._out.write(rest) or 0 :]

    def receive(self) -> tuple[dict[str, Any], bytearray]:
        """EOFError if the other side is gone."""
        return unpacked(self._read)

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        if self._in.readinto(data) < size:
            raise EOFError
        return data


def limit(*, memory: int | None) -> None:
    """Bound this process: addresses, no core file. Ctrl-C is for who listens to decide."""
    with suppress(ValueError, OSError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.name != "posix":
        return
    import resource

    for what, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_AS, memory)):
        if most is not None:
            with suppress(ValueError, OSError):  # macOS has no bound of addresses
                resource.setrlimit(what, (most, resource.getrlimit(what)[1]))


def grant(seconds: int) -> None:
    """Let this process compute so much longer, from now; after that it ends with SIGXCPU."""
    if os.name != "posix":
        return
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime) + 2 + seconds  # whole ones, and one to begin
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _work(channel: Channel, task: Mapping[str, Any]) -> None:
    if task["task"] == "write":
        from phosphene.films.encode import write

        limit(memory=None)
        grant(ENCODING_SECONDS)
        write(channel, task)
        return
    from phosphene.films import decode

    limit(memory=MEMORY)
    grant(FRAME_SECONDS)
    {"info": decode.info, "frames": decode.frames, "text": decode.text}[task["task"]](channel, task)


def main() -> None:
    """Do the task that comes first."""
    channel = Channel()
    task: dict[str, Any] = {}
    try:
        task, _ = channel.receive()
        _work(channel, task)
    except (EOFError, BrokenPipeError):  # nobody listens
        sys.exit(1)
    except PhospheneError as error:
        channel.send({"error": str(error)})
    except MemoryError:
        channel.send({"error": f"{_doing(task)}: it takes more than {MEMORY >> 30} GB of memory"})
    except Exception as error:  # FFmpeg's errors, and whatever a damaged film makes of PyAV
        channel.send({"error": f"{_doing(task)}: {one_line(error) or type(error).__name__}"})
    sys.stdout.flush()
    os._exit(0)  # FFmpeg's threads and PyAV's objects may end as they like


def _doing(task: Mapping[str, Any]) -> str:
    return f"cannot {'write' if task.get('task') == 'write' else 'read'} {task.get('shown')!r}"
