"""What tests share: a seeded network of three layers and a small photograph."""

from __future__ import annotations

import os
from pathlib import Path

# Tensors this small only lose by being shared out between threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Those that are shared out are so beside other processes that test.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import hypothesis
import pytest
import torch
from torch import Tensor, nn

from phosphene.errors import SettingsError
from phosphene.network import Network, precision
from phosphene.runtime import pooling
from tests import card, on
from tests.command import Done, Say

# What a test pools with, and which memory that takes, is not to depend on those before it.
pooling.loading.enough = float("inf")

# How long an example takes says nothing on a busy machine.
hypothesis.settings.register_profile("phosphene", deadline=None)
hypothesis.settings.load_profile("phosphene")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device", default="cpu", metavar="DEVICE",
        help="where the tests run: cpu, cuda, cuda:N, mps, or emulated, a device that is none",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """`auto` is the device that the tests run on; one that is not there ends them at once."""
    wanted = str(config.getoption("--device"))
    if wanted == card.NAME:
        card.there()
        known = precision.is_there
        precision.is_there = lambda device: device.type == card.NAME or known(device)
    try:
        precision.pick_device(wanted)
    except SettingsError as error:
        raise pytest.UsageError(str(error)) from None
    precision.best_device = lambda: wanted
    on.DEVICE = wanted


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("--device")
    if wanted != "cpu":
        for item in items:
            if mark := item.get_closest_marker("cpu_only"):
                item.add_marker(pytest.mark.skip(reason=f"of the processor: {mark.args[0]}"))


@pytest.fixture
def toy() -> Network:
    """Three convolutions, `first`, `second` (stride 2) and `third`, with a ReLU between them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential()
        module.add_module("first", nn.Conv2d(3, 8, 3, padding=1))
        module.add_module("relu1", nn.ReLU())
        module.add_module("second", nn.Conv2d(8, 12, 3, stride=2, padding=1))
        module.add_module("relu2", nn.ReLU())
        module.add_module("third", nn.Conv2d(12, 8, 3, padding=1))
    mean, std = (0.48, 0.46, 0.4), (0.23, 0.22, 0.23)
    return Network(module, mean=mean, std=std, input_size=16, name="toy", copy=False)


@pytest.fixture
def photo() -> Tensor:
    """48 × 40 px of soft noise, in [0.2, 0.8], so that a few small steps meet no clamp."""
    noise = torch.rand(1, 3, 12, 10, generator=torch.Generator().manual_seed(1))
    return nn.functional.interpolate(0.2 + 0.6 * noise, (48, 40), mode="bilinear")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and in it, with a cache of its own; a request may name tests' networks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    monkeypatch.setenv("PHOSPHENE_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """`say(*words)` is `phosphene WORDS` in this process."""

    def said(*words: object) -> Done:
        from phosphene.cli import main

        capsys.readouterr()
        code = main([str(word) for word in words])
        shown = capsys.readouterr()
        return Done(code, shown.out, shown.err)

    return said
