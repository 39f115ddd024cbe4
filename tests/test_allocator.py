"""What a process keeps of freed memory, and gives back."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from typing import Any

import pytest

from phosphene.runtime import allocator, memory
from phosphene.runtime.memory import GIB, MIB

pytestmark = pytest.mark.cpu_only("its heap")


def test_keeping_what_is_freed_is_asked_of_glibc_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    class Library:
        def mallopt(self, what: int, amount: int) -> int:
            asked.append((what, amount))
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    monkeypatch.setattr(sys, "platform", "linux")
    allocator.keep_freed()
    allocator.keep_freed()  # twice is as good as once
    assert asked == [(-3, GIB), (-1, 2**31 - 1)] * 2
    asked.clear()
    allocator.return_freed()
    assert asked == [(-3, MIB)]
    asked.clear()
    for other in ("darwin", "win32"):
        monkeypatch.setattr(sys, "platform", other)
        allocator.keep_freed()
        allocator.return_freed()
    assert not asked


@pytest.mark.parametrize("fault", [OSError("no libc.so.6"), AttributeError("no mallopt")])
def test_where_there_is_no_glibc_nothing_happens(
    monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def missing(name: str) -> Any:
        raise fault

    monkeypatch.setattr(ctypes, "CDLL", missing)
    monkeypatch.setattr(sys, "platform", "linux")
    allocator.keep_freed()


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A process that keeps what it frees and holds 500 MiB; the calls to give it back."""
    trimmed: list[int] = []

    class Library:
        def mallopt(self, what: int, amount: int) -> int:
            return 1

        def malloc_trim(self, pad: int) -> int:
            trimmed.append(pad)
            return 1

    monkeypatch.setattr(allocator, "_keeps_freed", False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    monkeypatch.setattr(memory, "used_memory", lambda device: 500 * MIB)
    allocator.keep_freed()
    return trimmed


def test_more_than_a_process_is_held_to_is_given_back(kept: list[int]) -> None:
    allocator.trim_to_limit()
    assert not kept
    with allocator.limit_resident(500 * MIB):
        allocator.trim_to_limit()
        assert not kept
        with allocator.limit_resident(500 * MIB - 1):
            allocator.trim_to_limit()
            assert kept == [0]
            with allocator.limit_resident(None):
                allocator.trim_to_limit()
        allocator.trim_to_limit()
        assert kept == [0]


def test_what_is_in_use_is_not_asked_for_again_and_again(
    kept: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where more is needed than was planned, the limit follows it, and returns for the next one."""
    for _ in range(2):
        monkeypatch.setattr(memory, "used_memory", lambda device: 500 * MIB)
        with allocator.limit_resident(100 * MIB):
            for used, calls in ((500, 1), (628, 1), (629, 2), (640, 2)):
                monkeypatch.setattr(memory, "used_memory", lambda device, n=used: n * MIB)
                allocator.trim_to_limit()
                assert len(kept) == calls
        kept.clear()


def test_a_process_that_keeps_nothing_has_nothing_to_give_back(kept: list[int]) -> None:
    allocator.return_freed()
    with allocator.limit_resident(1):
        allocator.trim_to_limit()
        assert not kept
        allocator.keep_freed()
        allocator.trim_to_limit()
    assert kept == [0]


def test_without_glibc_there_is_nothing_to_give_back(
    kept: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with allocator.limit_resident(1):
        allocator.trim_to_limit()
    assert not kept


def test_what_runs_first_and_pictures_lie_apart_from_the_heap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[int] = []
    monkeypatch.setattr(allocator, "_mallopt", lambda options: said.extend(options.values()))
    monkeypatch.setattr(allocator, "_keeps_freed", False)
    with allocator.limit_resident(1), allocator.activations_in_heap():
        assert not said  # a library leaves its process alone
    monkeypatch.setattr(allocator, "_keeps_freed", True)
    for limit, warm, thresholds in (
        (1, False, [MIB, MIB]),
        (1, True, [GIB, MIB]),
        (None, True, [GIB]),  # a small dream after a large one has the heap again
    ):
        with allocator.limit_resident(limit, warm=warm), allocator.activations_in_heap():
            assert said == thresholds[:1]
        assert said == thresholds
        said.clear()


def test_large_pages_are_asked_for_unless_the_user_has_said_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    allocator.large_pages()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "1"
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    allocator.large_pages()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's alone")
def test_what_is_freed_really_stays_or_goes() -> None:
    code = """
import ctypes, sys
from phosphene.runtime.allocator import keep_freed, limit_resident, return_freed, trim_to_limit
from phosphene.runtime.memory import MIB, used_memory
if sys.argv[1] == "keep":
    keep_freed()
    keep_freed()
elif sys.argv[1] == "return":
    return_freed()
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
before = used_memory()
for size in (30 * MIB, 8 * MIB):  # glibc begins to keep what is smaller than what was freed once
    blocks = [libc.malloc(size) for _ in range(9)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks[:-1]:  # the last one, at the end, holds them there
        libc.free(block)
if sys.argv[1] == "hold":
    keep_freed()
    with limit_resident(before + 60 * MIB):
        trim_to_limit()
print((used_memory() - before) // MIB)
"""
    kept: dict[str, int] = {}
    for word in ("keep", "leave", "return", "hold"):
        done = subprocess.run(
            [sys.executable, "-c", code, word], capture_output=True, text=True, check=True
        )
        kept[word] = int(done.stdout)
    assert 36 <= kept["return"] < 50  # what is held still
    assert 36 <= kept["hold"] < 50
    assert kept["leave"] > 90
    assert kept["keep"] > 250
