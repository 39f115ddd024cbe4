"""What the command line does with its process, which is nobody else's: how it begins and ends.

A program that calls phosphene has a process of its own, and none of this is done there.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def importing_without_collections() -> Iterator[None]:
    """Within this context no garbage is looked for until `collect_garbage`.

    PyTorch and Numba make a million things that stay, among which the collector would look for
    garbage over and over: a fifth of the time that it takes to import them.
    """
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        (gc.enable if collected else gc.disable)()


def collect_garbage() -> None:
    """Look for garbage from now on, but not among what is there already."""
    gc.freeze()
    gc.enable()


def leave(code: int) -> int:
    """End the process at once, once all that is to be done at its end is done.

    To take the interpreter down with PyTorch in it, piece by piece, takes half a second, and the
    system takes back all the same things. Without PyTorch, and for a debugger or a profiler, which
    have to tell yet, this returns the code.
    """
    if "torch" not in sys.modules or _is_watched():
        return code
    # As the interpreter does it: threads that are not daemons, what is registered, the streams.
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or none
            stream.flush()
    os._exit(code)


def _is_watched() -> bool:
    """Whether a debugger or a profiler is there; from Python 3.12 on they may be `monitoring`."""
    monitoring = getattr(sys, "monitoring", None)
    tools = map(monitoring.get_tool, range(6)) if monitoring else ()
    return bool(sys.gettrace() or sys.getprofile() or any(tools))
