"""How this process's threads wait for each other between two shared operations.

A program sets such things for its own process, before torch is there, which reads them once. A
library leaves them alone, and its users have OMP_WAIT_POLICY, GOMP_SPINCOUNT and KMP_BLOCKTIME.

torch is not imported: the command line comes here before it is there.
"""

from __future__ import annotations

import os

# Turns of a loop, some 10 µs: about as long as Python takes from one operation to the next. On two
# cores a dream at 640×427 takes 1.35 times as long with 100 turns as where threads never sleep, and
# 1.10 times with 1,000. Beside one busy process 1,000 take 1.25 times as long as 100.
SPIN_COUNT = 1000

_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def wait_passively() -> None:
    """Have OpenMP's threads sleep while they wait, unless its user has said how they do.

    Otherwise they look out for work for some ms, on cores that others would use. Where there are
    fewer cores than threads that run, one of them is the thread that they wait for: beside other
    processes a step then takes ten times as long and more.
    """
    if any(name in os.environ for name in _SETTINGS):
        return
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)
