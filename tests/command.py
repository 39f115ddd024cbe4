"""The real command in a process of its own, forked from one that has imported torch already.

Starting Python and torch anew for each of a hundred commands would take minutes.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "phosphene.cli.replay",
        "phosphene.jobs.replayer",
        "phosphene.zoo.bundled",
        "rich.progress",
        "lark",
        "torch.fx.experimental.symbolic_shapes",
        "safetensors.torch",
    ]
)


@dataclass(frozen=True)
class Done:
    """What a command left: exit code, stdout and stderr."""

    code: int
    out: str
    err: str


Say = Callable[..., Done]  # the words of a command -> what it left


@dataclass
class Running:
    """A command at work."""

    process: ForkServerProcess
    folder: Path = field(default_factory=Path)

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text(encoding="utf-8", errors="replace")

    def wait_for(self, condition: Callable[[], bool], seconds: float = 100) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert self.process.is_alive(), f"ended early: {self.err}"
            assert time.monotonic() < until, f"nothing happened: {self.err}"
            time.sleep(0.005)

    def interrupt(self, number: int = signal.SIGINT) -> None:
        assert self.process.pid
        os.kill(self.process.pid, number)

    def done(self, seconds: float = 200) -> Done:
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"still running: {self.err}")
        out = (self.folder / "out").read_text(encoding="utf-8")
        return Done(self.process.exitcode, out, self.err)


def start(
    *arguments: object,
    cwd: Path,
    limits: Sequence[tuple[int, int]] = (),
    terminal: bool = False,
    lost: Mapping[str, str] | None = None,
) -> Running:
    """Start `phosphene ARGUMENTS` in the folder `cwd`.

    limits: such as `(resource.RLIMIT_FSIZE, 4096)`. terminal: stderr is a terminal.
    lost: streams ("out", "err") that take nothing: "full", "closed" or a "pipe" nobody reads.
    """
    folder = Path(tempfile.mkdtemp(prefix="phosphene-"))
    for name in ("out", "err"):
        (folder / name).touch()
    words = [str(argument) for argument in arguments]
    given = (words, cwd, folder, tuple(limits), terminal, dict(lost or {}))
    process = _CONTEXT.Process(target=_child, args=given)
    process.start()
    return Running(process, folder)


def run(
    *arguments: object,
    cwd: Path,
    limits: Sequence[tuple[int, int]] = (),
    terminal: bool = False,
    lost: Mapping[str, str] | None = None,
) -> Done:
    """Run `phosphene ARGUMENTS` to its end; see `start`."""
    return start(*arguments, cwd=cwd, limits=limits, terminal=terminal, lost=lost).done()


def addresses() -> int:
    """Bytes of addresses that such a process holds as it begins, as `ulimit -v` counts them."""
    there, here = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_tell_addresses, args=(here,))
    process.start()
    pages = there.recv()
    process.join()
    return pages * resource.getpagesize()


def _tell_addresses(here: Connection) -> None:
    here.send(int(Path("/proc/self/statm").read_text().split()[0]))


def _child(
    words: list[str],
    cwd: Path,
    folder: Path,
    limits: tuple[tuple[int, int], ...],
    terminal: bool,
    lost: dict[str, str],
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):  # which nohup and some runners ignore
        signal.signal(number, signal.SIG_DFL)
    for number, name in ((1, "out"), (2, "err")):
        handle = os.open(folder / name, os.O_WRONLY | os.O_APPEND)
        if lost.get(name) == "full":
            handle = os.open("/dev/full", os.O_WRONLY)
        elif lost.get(name) == "pipe":
            nobody, handle = os.pipe()
            os.close(nobody)
        os.dup2(handle, number)
    # Those of a forked process are its parent's, with its buffers.
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    for number, name in ((1, "stdout"), (2, "stderr")):
        if lost.get(name.removeprefix("std")) == "closed":  # as Python begins then
            os.close(number)
            setattr(sys, name, None)
    if terminal:
        os.environ.update(TERM="xterm", TTY_COMPATIBLE="1", COLUMNS="100")
    for which, most in limits:
        resource.setrlimit(which, (most, most))
    os.chdir(cwd)
    sys.argv = ["phosphene", *words]
    runpy.run_module("phosphene", run_name="__main__", alter_sys=False)
