"""Exit codes, and the one line on stderr that an error is."""

from __future__ import annotations

import sys
from contextlib import suppress

from phosphene.cli.signals import Terminated
from phosphene.errors import PhospheneError, SettingsError
from phosphene.runtime.memory import out_of_memory

DONE, FAILED, MISUSED, DIFFERENT, INTERRUPTED = 0, 1, 2, 3, 130


def complain(message: str) -> None:
    """One line on stderr, if anyone is there to read it: a closed terminal is no reason to fail."""
    with suppress(OSError):
        print(f"phosphene: {message}", file=sys.stderr)


def interrupted(error: BaseException | None) -> int:
    """The exit code of what was ended from outside: 128 and the signal's number."""
    return 128 + error.number if isinstance(error, Terminated) else INTERRUPTED


def to_stdout(text: str) -> None:
    """A result."""
    print(text, file=sys.stdout, flush=True)


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
