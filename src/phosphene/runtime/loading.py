"""Numba's kernels, loaded by a thread beside a job that pools enough for them to be worth it.

To load them takes the better part of a second, and to compile them, once on a machine, some ten. So
small jobs go without, and in others PyTorch pools until they are there: to the same bytes, so that
nothing depends on when that is.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable

# Values that a process has pooled from which on loading the kernels is worth it. PyTorch takes 1 to
# 6 ns longer for each, so it has lost by then a good part of what loading takes.
ENOUGH_VALUES = 100 * 10**6
# s that a process waits at its end without a word.
SILENT_SECONDS = 1.0

log = logging.getLogger("phosphene")


class Background:
    """Something that a thread loads once it is worth it.

    Args:
        load: loads it; given whether to stop, which it asks now and then. True where it is there.
        enough: how much work it is worth it from.
    """

    def __init__(self, load: Callable[[Callable[[], bool]], bool], enough: float) -> None:
        self.enough = enough
        self._load, self._work = load, 0
        self._ready, self._stop, self._done = (threading.Event() for _ in range(3))
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    def is_ready(self, work: int) -> bool:
        """Whether it is there for so much more work; begins to load it where that is worth it.

        Never in a process that was forked since: its threads stayed with its parent.
        """
        if self._ready.is_set():
            return True
        if self._thread is None:
            self._work += work
            if self._work >= self.enough and os.getpid() == self._process:
                self._begin()
        return False

    def is_loading(self) -> bool:
        """Whether this is the thread that loads it."""
        return threading.current_thread() is self._thread

    def _begin(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            # It ends with the process, which waits for no more than what is being compiled: a
            # compiler that goes on while the process comes down would end it with a crash.
            self._thread = threading.Thread(target=self._run, name="phosphene-load", daemon=True)
            atexit.register(self._end)
            self._thread.start()

    def _run(self) -> None:
        try:
            if self._load(self._stop.is_set):
                self._ready.set()
        finally:
            self._done.set()

    def _end(self) -> None:
        self._stop.set()
        if self._thread is None or os.getpid() != self._process:
            return
        while not self._done.is_set():
            try:
                self._wait()
            except KeyboardInterrupt:
                log.info("still waiting: a compiler that is cut off would crash")

    def _wait(self) -> None:
        """Not by `Thread.join`: once it was interrupted, Python 3.12 takes the thread for ended."""
        if not self._done.wait(SILENT_SECONDS):
            log.info("waiting for the compiler to come to the end of a kernel")
            self._done.wait()
