"""What the documents show, run as it stands there."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from phosphene.cli import main
from phosphene.image import load_image, save_image
from phosphene.image.metadata import read_recipe
from phosphene.objectives import OBJECTIVES
from phosphene.recipes import base
from phosphene.transforms import TRANSFORMS
from tests import command, toy_network

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
    for block in blocks("CONTRIBUTING.md")[:3]:
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
    assert len(blocks("CONTRIBUTING.md")) == 4
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


def commands(name: str, file: str) -> list[list[str]]:
    """The command lines of a document that load a plugin's file."""
    text = (ROOT / name).read_text(encoding="utf-8")
    lines = re.findall(rf"^phosphene (.*--plugin {file}.*)$", text, re.MULTILINE)
    return [shlex.split(line) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "block", "file", "count"),
    [("CONTRIBUTING.md", -1, "shimmer.py", 4), ("docs/plugins.md", 0, "calm.py", 3)],
)
def test_the_plugins_and_their_commands(
    name: str, block: int, file: str, count: int, tmp_path: Path
) -> None:
    (tmp_path / file).write_text(blocks(name)[block], encoding="utf-8")
    photo = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    save_image(photo, tmp_path / "sky.jpg")
    found = commands(name, file)
    assert len(found) == count
    for number, words in enumerate(found):
        if "--help" in words:
            done = command.run(*words, cwd=tmp_path)
            assert "Make a photo shimmer" in done.out
            continue
        # As it stands there, but for what takes long.
        less = {"dream": ("--octaves", "1"), "visualize": ("--size", "32")}.get(words[0], ())
        output = tmp_path / f"{number}.png"
        done = command.run(*words, *less, "--steps", "2", "-o", output, cwd=tmp_path)
        assert (done.code, done.out) == (0, f"{output}\n"), done.err
        stem = file.removesuffix(".py")
        assert [p["name"] for p in json.loads(read_recipe(output) or "")["plugins"]] == [stem]
        done = command.run("replay", output, cwd=tmp_path)
        assert f"needs the plugin {stem}" in done.err
        done = command.run("replay", output, "--plugin", file, cwd=tmp_path)
        assert done.code == 0, done.out + done.err


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


def test_the_figures_are_those_of_their_document() -> None:
    text = (ROOT / "docs/figures.md").read_text(encoding="utf-8")
    figures = runpy.run_path(str(ROOT / "docs/make_figures.py"))["FIGURES"]
    for name, line in figures.items():
        assert line in text
        assert f"(images/{name}.jpg)" in text
    rows = re.findall(r"^\|.*\| `phosphene .*` \| \[.*\]\((.*)\) \|$", text, re.MULTILINE)
    assert len(rows) >= 12
    assert all((ROOT / "docs" / row).exists() for row in rows if not row.startswith("#"))
