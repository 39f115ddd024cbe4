"""`pytest --device`: where the tests run, and the device that is emulated."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from phosphene.network import precision
from tests import card, conftest, on

ROOT = Path(__file__).parent.parent
emulated = pytest.mark.skipif(on.DEVICE != card.NAME, reason="of --device emulated")


class Config:
    """What a run of pytest was asked for."""

    def __init__(self, device: str) -> None:
        self.device = device

    def getoption(self, name: str) -> str:
        assert name == "--device"
        return self.device


class Item:
    """A test with a mark, or without any."""

    def __init__(self, *marks: pytest.Mark) -> None:
        self.marks = marks
        self.added: list[pytest.MarkDecorator] = []

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return next((mark for mark in self.marks if mark.name == name), None)

    def add_marker(self, mark: pytest.MarkDecorator) -> None:
        self.added.append(mark)


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("cuda", "device 'cuda' is not on this machine"),
        ("cuda:7", "device 'cuda:7' is not on this machine"),
        ("gpu", "no device 'gpu'; there are auto, cpu, cuda"),
    ],
)
def test_a_device_that_is_not_there_ends_the_tests_at_once(
    device: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(on, "DEVICE", "as it was")
    config: Any = Config(device)
    with pytest.raises(pytest.UsageError) as caught:
        conftest.pytest_configure(config)
    assert told in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert on.DEVICE == "as it was"


def test_auto_is_where_the_tests_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on, "DEVICE", "as it was")
    monkeypatch.setattr(precision, "best_device", lambda: "as it was")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    config: Any = Config("cuda:1")
    conftest.pytest_configure(config)
    assert on.DEVICE == "cuda:1"
    assert precision.pick_device("auto") == torch.device("cuda:1")


def test_what_is_of_the_processor_is_left_out_elsewhere() -> None:
    for device, skipped in (("cpu", 0), ("cuda", 1)):
        items: Any = [Item(), Item(pytest.mark.cpu_only("a program").mark)]
        config: Any = Config(device)
        conftest.pytest_collection_modifyitems(config, items)
        assert [len(item.added) for item in items] == [0, skipped]
    (mark,) = items[1].added
    assert mark.mark.kwargs["reason"] == "of the processor: a program"


@pytest.mark.slow
def test_a_run_that_cannot_be_ends_with_a_line_and_dreams_do_not_mix_devices() -> None:
    def run(*given: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *given]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    refused = run("tests", "--device", "cuda:99")
    assert refused.returncode == pytest.ExitCode.USAGE_ERROR
    assert refused.stderr.strip() == (
        "ERROR: device 'cuda:99' is not on this machine; --device cpu always is"
    )
    files = [f"tests/test_{name}.py" for name in ("card", "dream", "regions", "visualize")]
    done = run(*files, "--device", card.NAME, "-m", "not slow")
    assert done.returncode == 0, done.stdout[-3000:]


# The device that is emulated -------------------------------------------------------------------


@emulated
def test_its_tensors_do_not_mix_with_others() -> None:
    there, here = torch.ones(3, device=card.NAME), torch.ones(3)
    assert there.device.type == card.NAME
    for wrong in (lambda: there + here, lambda: torch.cat([here, there]), lambda: there.add_(here)):
        with pytest.raises(RuntimeError, match="on the same device"):
            wrong()
    with pytest.raises(TypeError, match=r"use Tensor.cpu\(\) first"):
        there.numpy()
    # As on a card, numbers may, and copies go either way.
    assert (there * torch.tensor(2.0) + 1).tolist() == [3, 3, 3]
    there.copy_(2 * here)
    assert here.copy_(there).tolist() == [2, 2, 2]


@emulated
def test_its_numbers_are_the_processors() -> None:
    chance = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 2, 3))
    image = torch.rand(1, 3, 16, 16, generator=chance)

    def gradient(device: str) -> torch.Tensor:
        x = image.to(device).requires_grad_()
        (found,) = torch.autograd.grad(module.to(device)(x).square().sum(), x)
        spectrum = torch.fft.rfft2(found)
        return torch.fft.irfft2(spectrum * spectrum.conj(), s=(16, 16)).cpu()

    assert torch.equal(gradient(card.NAME), gradient("cpu"))


@emulated
def test_what_works_in_place_does() -> None:
    there = torch.zeros(2, 3, device=card.NAME)
    view = there[0]
    assert view.add_(1) is view
    there[1, 2] = 5
    assert there.tolist() == [[1, 1, 1], [0, 0, 5]]
    weight = nn.Parameter(there)
    weight.data = torch.full((2, 3), 7.0, device=card.NAME)
    assert weight.tolist() == [[7, 7, 7]] * 2
