"""What is loaded beside a job: when, by whom, and how a process ends meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from phosphene.runtime.loading import Background

pytestmark = pytest.mark.cpu_only("what is loaded for Numba")


def test_it_is_loaded_once_and_only_where_it_is_worth_it() -> None:
    begun, go = threading.Semaphore(0), threading.Event()
    by: list[bool] = []

    def load(_: Callable[[], bool]) -> bool:
        by.append(background.is_loading())
        begun.release()
        return go.wait(20)

    background = Background(load, enough=10)
    assert not any(background.is_ready(3) for _ in range(3))  # 9
    assert not begun.acquire(blocking=False)
    assert not background.is_ready(1)
    assert begun.acquire(timeout=20)
    assert not background.is_ready(1000)  # nobody waits
    go.set()
    for thread in threading.enumerate():
        if thread.name == "phosphene-load":
            thread.join(20)
    assert background.is_ready(0)
    assert by == [True]
    assert not background.is_loading()


def test_what_cannot_be_loaded_is_not_tried_again() -> None:
    tries: list[int] = []
    background = Background(lambda _: bool(tries.append(1)), enough=1)
    for _ in range(3):
        assert not background.is_ready(1)
        for thread in threading.enumerate():
            if thread.name == "phosphene-load":
                thread.join(20)
    assert tries == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks there")
def test_a_forked_process_loads_nothing() -> None:
    background = Background(lambda _: True, enough=1)
    child = os.fork()
    if not child:
        ready = background.is_ready(5)
        begun = any(thread.name == "phosphene-load" for thread in threading.enumerate())
        os._exit(1 if ready or begun else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


ENDS = """
import threading, time
from phosphene.runtime.loading import Background
told = threading.Event()
def load(stopped):
    told.set()
    while not stopped():
        time.sleep(0.01)
    print("stopped", flush=True)
Background(load, enough=1).is_ready(1)
told.wait()
print("ends", flush=True)
"""


def test_a_process_that_ends_stops_it_and_waits_for_that() -> None:
    done = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ends\nstopped\n", "")


WAITS = """
import logging, signal, sys, threading, time
from phosphene.runtime import loading
logging.basicConfig(level="INFO", stream=sys.stdout, format="%(name)s: %(message)s")
loading.SILENT_SECONDS = 0.05
signal.signal(signal.SIGINT, signal.default_int_handler)  # a runner may ignore it
begun = threading.Event()
def load(stopped):
    begun.set()
    while not stopped():
        time.sleep(0.01)
    time.sleep(0.4)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    time.sleep(0.2)
    print("compiled", flush=True)
loading.Background(load, enough=1).is_ready(1)
begun.wait()
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads there")
def test_a_process_that_waits_long_at_its_end_says_so_and_is_not_cut_off() -> None:
    done = subprocess.run([sys.executable, "-c", WAITS], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    first, second, *_, last = done.stdout.splitlines()
    assert first == "phosphene: waiting for the compiler to come to the end of a kernel"
    assert second == "phosphene: still waiting: a compiler that is cut off would crash"
    assert last == "compiled"


POOLS = """
import threading, torch
from phosphene.runtime import pooling
pooling.loading.enough = 5000
x = torch.rand(1, 16, 16, 16).contiguous(memory_format=torch.channels_last)
window = [3, 3], [2, 2], [0, 0], [1, 1], False
kinds = []
for _ in range(3):
    kinds.append(pooling.max_pool(x, window)[1].dtype)
    for thread in threading.enumerate():
        if thread.name == "phosphene-load":
            thread.join()
print(kinds)
"""


def test_a_process_that_pools_much_has_numba_from_then_on() -> None:
    pytest.importorskip("numba")
    done = subprocess.run([sys.executable, "-c", POOLS], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout == "[torch.int64, torch.int64, torch.uint8]\n"
