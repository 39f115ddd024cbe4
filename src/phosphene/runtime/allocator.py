"""What this process's allocator does with freed memory: keep it, return it, trim it to a limit.

A program sets such things for its own process. A library leaves them alone, and its users have
MALLOC_TRIM_THRESHOLD_, MALLOC_MMAP_THRESHOLD_ and THP_MEM_ALLOC_ENABLE.

torch is not imported: the command line comes here before it is there.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from phosphene.runtime import memory
from phosphene.runtime.memory import GIB, MIB

# What an allocator retains of what was freed, on a processor: about so much, at any size.
RETAINED = 256 * MIB

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_keeps_freed = False


def large_pages() -> None:
    """Have PyTorch ask for pages of 2 MiB, if it has not allocated anything yet (Linux).

    Memory that is handed out blank then takes a fraction of the time.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def keep_freed() -> None:
    """Have this process keep what it frees for what it needs next, where that can be had (glibc).

    Otherwise every step gives its activations back to the system and is handed blank pages anew,
    which takes up to a half of its time. Between activations of many sizes, glibc keeps more than
    twice as much as was ever needed at once; `limit_resident` sets a limit to that.
    """
    global _keeps_freed
    _keeps_freed = True
    _mallopt({_MMAP_THRESHOLD: GIB, _TRIM_THRESHOLD: 2**31 - 1})


def return_freed() -> None:
    """Have this process give what it frees back at once, where that can be had (glibc).

    Its addresses, too, so that a limit to these is for what is used. It is slow.
    """
    global _keeps_freed
    _keeps_freed = False
    _mallopt({_MMAP_THRESHOLD: MIB})


def _mallopt(options: dict[int, int]) -> None:
    libc = _glibc()
    with suppress(AttributeError):
        for option, value in options.items():
            libc.mallopt(option, value)


def _glibc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    with suppress(OSError, AttributeError):
        return ctypes.CDLL("libc.so.6")
    return None


@dataclass
class _Limit:
    bytes: int
    warm: bool


_limit: ContextVar[_Limit | None] = ContextVar("limit", default=None)


@contextmanager
def limit_resident(limit: int | None, *, warm: bool = True) -> Iterator[None]:
    """Inside, `trim_to_limit` sees to it that about `limit` bytes of this process are resident.

    Args:
        limit: bytes, or None for no limit.
        warm: what runs inside has run before, and leaves nothing behind that it did not leave then.
    """
    token = _limit.set(None if limit is None else _Limit(limit, warm))
    try:
        yield
    finally:
        _limit.reset(token)


@contextmanager
def activations_in_heap() -> Iterator[None]:
    """Inside, activations share the heap; afterwards, if there is a limit to what is resident, what
    is large lies apart from it.

    The heap is then for the activations of a network alone, which come and go alike with every
    step. Between these lie neither images nor the thousands of small things that a first run leaves
    behind, such as a library's notes on each convolution, since activations are apart as well as
    long as what runs here is not warm. Otherwise the heap would become twice as large.

    The process stays so: what is large and comes from elsewhere has the heap again after
    `keep_freed`.
    """
    if not _keeps_freed:
        yield
        return
    limit = _limit.get()
    _mallopt({_MMAP_THRESHOLD: GIB if limit is None or limit.warm else MIB})
    try:
        yield
    finally:
        if limit is not None:
            _mallopt({_MMAP_THRESHOLD: MIB})


def trim() -> None:
    """Return what was freed to the system, if this process keeps that (glibc: `malloc_trim`)."""
    if _keeps_freed:
        with suppress(AttributeError):
            _glibc().malloc_trim(0)


def trim_to_limit() -> None:
    """`trim`, if this process keeps what it frees and more is resident than `limit_resident` says.

    To be called often where activations come and go.
    """
    limit = _limit.get()
    if limit is None or not _keeps_freed or memory.used_memory("cpu") <= limit.bytes:
        return
    trim()
    # What is left is in use, so if it is more than was thought, it is no use to try again at once.
    left = memory.used_memory("cpu")
    if left > limit.bytes:
        limit.bytes = left + RETAINED // 2
