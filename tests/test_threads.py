"""How threads wait for each other, in real processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.cpu_only("its threads")

WAITS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")

CODE = f"""
import os, sys
from phosphene import cli
cli.main(["--version"])
assert "torch" not in sys.modules  # it reads them once
print(*[os.environ.get(name) for name in {WAITS}])
"""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "passive 1000 None"),
        ({"OMP_WAIT_POLICY": "active"}, "active None None"),
        ({"GOMP_SPINCOUNT": "7"}, "None 7 None"),
        ({"KMP_BLOCKTIME": "200"}, "None None 200"),
    ],
)
def test_the_command_line_has_threads_sleep_unless_its_user_says_how(
    given: dict[str, str], expected: str
) -> None:
    bare = {name: value for name, value in os.environ.items() if name not in WAITS}
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=bare | given, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == expected


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="libgomp says it there")
def test_openmp_has_understood_it() -> None:
    code = "from phosphene import cli; cli.main(['--version']); import torch"
    bare = {name: value for name, value in os.environ.items() if name not in WAITS}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=bare | {"OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
    )
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("another OpenMP")
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
    assert "GOMP_SPINCOUNT = '1000'" in done.stderr
