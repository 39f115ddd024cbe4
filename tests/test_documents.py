"""What the documents show, run as it stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from phosphene.cli import main
from phosphene.image import load_image, save_image
from phosphene.objectives import OBJECTIVES
from phosphene.recipes import base
from phosphene.transforms import TRANSFORMS
from tests import toy_network

ROOT = Path(__file__).parents[1]


def blocks(name: str) -> list[str]:
    """The Python of a document."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def contributed() -> Iterator[dict[str, Any]]:
    """What CONTRIBUTING's examples define, registered for as long as the test."""
    before, moves = dict(OBJECTIVES), dict(TRANSFORMS)
    names: dict[str, Any] = {"__name__": "contributed"}
    for block in blocks("CONTRIBUTING.md"):
        exec(block, names)
    yield names
    base.unregister("glow")
    OBJECTIVES.clear()
    OBJECTIVES.update(before)
    TRANSFORMS.clear()
    TRANSFORMS.update(moves)


def test_the_examples_of_contributing(
    contributed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(blocks("CONTRIBUTING.md")) == 3
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT)
    net = toy_network.net()
    photo = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    glowing = contributed["glow"](photo, net, "loudest(second)", steps=2)
    assert glowing.shape == photo.shape
    assert not torch.equal(glowing, photo)
    save_image(photo, tmp_path / "photo.png")
    words = ["glow", "photo.png", "second", "--network", "tests.toy_network:net", "--steps", "1"]
    assert main(words) == 0
    assert main(["replay", "photo-glow.png", "--network", "tests.toy_network:net"]) == 0
    mirrored = contributed["mirror"]()(photo, torch.Generator().manual_seed(1))
    assert torch.equal(mirrored, photo) or torch.equal(mirrored, photo.flip(-1))


def test_the_examples_of_activations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The class of a picture of a dumbbell, where it is seen, and what it takes from a channel."""
    monkeypatch.chdir(tmp_path)
    save_image(load_image(ROOT / "docs" / "images" / "dumbbell.jpg"), "photo.jpg")
    names: dict[str, Any] = {}
    for block in blocks("docs/activations.md"):
        exec(block, names)
    assert names["heat"].shape == (1, 28, 28)
    assert float(names["heat"].max()) > 0
    before, less = (names[name][names["best"]].item() for name in ("scores", "less"))
    assert capsys.readouterr().out.split() == [
        *("dumbbell", str(before), "without", str(names["channel"]), str(less))
    ]
    assert less < 0.97 * before
