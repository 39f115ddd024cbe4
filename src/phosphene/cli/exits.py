"""Exit codes, the one line on stderr that an error is, and the streams that all is told on."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from phosphene.cli.signals import Terminated
from phosphene.errors import PhospheneError, SettingsError, one_line
from phosphene.runtime.memory import out_of_memory

DONE, FAILED, MISUSED, DIFFERENT, INTERRUPTED = 0, 1, 2, 3, 130


def complain(message: str) -> None:
    """One line on stderr, if anyone is there to read it: a closed terminal is no reason to fail."""
    if sys.stderr is None:  # print would take stdout
        return
    with suppress(OSError):
        print(plain(f"phosphene: {message}", lines=False), file=sys.stderr)


def interrupted(error: BaseException | None) -> int:
    """The exit code of what was ended from outside: 128 and the signal's number."""
    return 128 + error.number if isinstance(error, Terminated) else INTERRUPTED


# Controls but for tab and newline, separators of lines, and what turns the direction of writing.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def plain(text: str, *, lines: bool = True) -> str:
    r"""Text of which a terminal does nothing but show it, whatever file its names come from.

    >>> print(plain("layer \x1b[2J"))
    layer \x1b[2J

    lines: whether it may have several.
    """
    text = _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return text if lines else text.replace("\n", "\\n")


def to_stdout(text: str, *, as_is: bool = False) -> None:
    """A result.

    PhospheneError, which says what was to be told, if it cannot be written; BrokenPipeError if
    whoever read it has seen enough. as_is: the text is plain already, or for no terminal.
    """
    try:
        print(text if as_is else plain(text), file=sys.stdout, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        forget_stdout()
        raise PhospheneError(
            f"cannot write to stdout: {error.strerror}; it was to say {one_line(text, 100)!r}"
        ) from error


def forget_stdout() -> None:
    """What could not be written is not tried again as the interpreter ends, with a traceback."""
    with suppress(OSError, ValueError):  # no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class _Lossy(io.FileIO):
    """A file that drops what cannot be written."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


@contextmanager
def forgiving_streams() -> Iterator[None]:
    """Within this context stderr that is full, closed or broken loses words, and nothing else.

    Stdout that is closed is a stream that cannot be written. A closed stream's number is held, so
    that no file that is opened later gets it, and with it what a library tells.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")  # noqa: SIM115
    before = sys.stderr
    try:
        own = before is None or before.fileno() == 2
    except (OSError, ValueError):  # of whoever runs the command line within a program
        own = False
    if not own:
        yield
        return
    encoding = getattr(before, "encoding", None) or "utf-8"
    raw = io.BufferedWriter(_Lossy(2, "w", closefd=False))
    sys.stderr = io.TextIOWrapper(raw, encoding, errors="replace", line_buffering=True)
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stderr = before


def explained(error: BaseException) -> str:
    """An error as one line for a user."""
    # A setting that leads there has its own words for it.
    if out_of_memory(error) and not isinstance(error, SettingsError):
        return "out of memory; a smaller --size needs less, and --device cpu has often more"
    message = " ".join(str(error).split())
    if isinstance(error, PhospheneError):
        return message
    kind = type(error).__name__
    return (
        f"unexpected {kind}: {message or 'no message'}; --debug shows where, and is worth a report"
    )
