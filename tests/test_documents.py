"""What the documents show, run as it stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from phosphene.cli import main
from phosphene.image import save_image
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
