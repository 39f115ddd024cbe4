"""How the command line begins and ends its process."""

from __future__ import annotations

import gc
import subprocess
import sys
from typing import Any

import pytest

from phosphene.cli.frames import _told
from phosphene.cli.process import collect_garbage, importing_without_collections, leave
from phosphene.cli.reporter import Reporter

ENDING = """
import atexit, sys, threading, time
from phosphene.cli.process import leave
{before}
def late():
    time.sleep(0.2)
    print("thread", flush=True)
threading.Thread(target=late).start()
atexit.register(lambda: print("atexit"))
sys.stdout.write("written ")
code = leave(3)
print("went on")
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("sys.modules['torch'] = None", "written thread\natexit\n"),
        ("", "written went on\nthread\natexit\n"),
        (
            "sys.modules['torch'] = None; sys.setprofile(lambda *given: None)",
            "written went on\nthread\natexit\n",
        ),
        pytest.param(
            "sys.modules['torch'] = None; sys.monitoring.use_tool_id(1, 'coverage')",
            "written went on\nthread\natexit\n",
            marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="of Python 3.12"),
        ),
    ],
)
def test_a_process_ends_at_once_but_loses_nothing(before: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDING.format(before=before)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, said, "")


def test_the_interpreter_is_not_taken_down_piece_by_piece() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "class Told:\n    def __del__(self): print('taken down', flush=True)\n"
        "told = Told()\n"
        "from phosphene.cli.process import leave\n"
    )
    for end, said in (("leave(0)", ""), ("", "taken down\n")):
        done = subprocess.run([sys.executable, "-c", code + end], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, said), done.stderr


def test_nothing_is_collected_until_it_is_asked_for() -> None:
    assert gc.isenabled()
    with importing_without_collections():
        assert not gc.isenabled()
        collect_garbage()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_frames_of_a_film_are_collected_on_their_way() -> None:
    with importing_without_collections():
        given: Any = range(2)
        told = _told(iter(given), 2, Reporter(quiet=True))
        assert list(zip(told, (gc.isenabled() for _ in given), strict=True)) == [
            (0, True),
            (1, True),
        ]


def test_a_program_that_collects_nothing_is_left_so() -> None:
    gc.disable()
    try:
        with importing_without_collections():
            collect_garbage()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_program_without_torch_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    assert leave(2) == 2
