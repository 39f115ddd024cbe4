"""The first dreams of a process, several at once.

Each in a fresh process: what a network is found to be is found once, and only then can threads be
in each other's way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

DREAMS = """
import hashlib, json, sys, threading
import torch
import phosphene as ph
from tests.on import DEVICE
from torch import nn

THREADS = 4
torch.set_num_threads(1)
photo = torch.rand(1, 3, 72, 96, generator=torch.Generator().manual_seed(0))
SETTINGS = dict(octaves=2, steps=2, precision="fp32", device=DEVICE)


class Untraceable(nn.Module):
    # Control flow by values: no trace, so that it runs as it is, under hooks.
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        for number, weight in enumerate(self.parameters()):
            generator = torch.Generator().manual_seed(number)
            weight.data.normal_(0, 0.2, generator=generator)

    def forward(self, x):
        x = self.first(x).relu()
        return self.second(x) if float(x.detach().sum()) > -1 else x


def untraceable():
    return ph.Network(Untraceable(), name="untraceable")


def of(case):
    if case == "one":
        net = ph.load_network()
        return [(net, "mixed4c")] * THREADS
    if case == "layers":
        net = ph.load_network()
        return [(net, layer) for layer in ("mixed4c", "mixed3b", "mixed5a", "mixed4a")]
    if case == "several":
        names = ("dreamnet", "dreamnet-robust", "squeezenet1_1:random", "dreamnet")
        nets = [ph.load_network(name) for name in names]
        return list(zip(nets, ("mixed4c", "mixed4c", "features.7", "mixed3b")))
    if case == "hooks":
        net = untraceable()
        return [(net, "second"), (net, "first"), (net, "second"), (ph.load_network(), "mixed3b")]


def dream(job):
    net, layer = job
    return hashlib.sha256(ph.dream(photo, net, layer, **SETTINGS).numpy().tobytes()).hexdigest()


def together(jobs):
    found, start = [None] * len(jobs), threading.Barrier(len(jobs))

    def work(k):
        torch.set_num_threads(1)
        start.wait()
        try:
            found[k] = dream(jobs[k])
        except BaseException as error:
            found[k] = f"{type(error).__name__}: {error}"

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


case = sys.argv[1]
cold = together(of(case))  # before anything is known
print(json.dumps([cold, [dream(job) for job in of(case)]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("case", ["one", "layers", "several", "hooks"])
def test_first_dreams_in_parallel_threads_are_those_of_one_thread(case: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DREAMS, case],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    together, alone = json.loads(done.stdout.splitlines()[-1])
    assert together == alone
