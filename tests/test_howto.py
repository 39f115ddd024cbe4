"""The commands and the Python of the how-to pages, run as they stand there, page by page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from phosphene.image import draw_sky, save_image
from phosphene.recipes.base import is_recipe

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*(DOCS / "howto").glob("*.md"), DOCS / "index.md", DOCS / "tiles.md"])
NAMES = [page.relative_to(DOCS).as_posix() for page in PAGES]
# A block of commands, of Python, or of a file that the page has one put there.
BLOCK = re.compile(
    r"^```(?P<kind>sh|python|\{code-block\} python\n:caption: (?P<file>\S+)\n)\n?(?P<text>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
# Verbs that are no recipe's.
OTHERS = ("replay", "run", "frames", "layers", "networks", "presets", "objectives", "transforms")


def blocks(page: Path) -> list[tuple[str, str]]:
    """Of a page, in order: its kind ("sh", "python", or a file's name) and its text."""
    text = page.read_text(encoding="utf-8")
    return [(m["file"] or m["kind"], m["text"]) for m in BLOCK.finditer(text)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with what the pages speak of: photographs, a mask, a film."""
    save_image(draw_sky(120, 160, seed=1), tmp_path / "photo.jpg")
    save_image(draw_sky(96, 128, seed=2), tmp_path / "flower.jpg")
    mask = torch.zeros(1, 3, 120, 160)
    mask[..., :60, :] = 1
    save_image(mask, tmp_path / "mask.png")
    (tmp_path / "photos").mkdir()
    for number in range(3):
        save_image(draw_sky(64, 64, seed=number), tmp_path / "photos" / f"{number}.jpg")
    return tmp_path


def film(path: Path) -> None:
    """Twelve frames of a sky that drifts."""
    from phosphene.films import write_film

    sky = draw_sky(72, 128, seed=3)
    write_film(path, (sky.roll(2 * number, -1) for number in range(12)), rate=24)


def run(script: Path, folder: Path, kind: str) -> subprocess.CompletedProcess[str]:
    """The script, by bash or by Python, with `phosphene` being that of this tree."""
    phosphene = folder / ".bin" / "phosphene"
    if not phosphene.exists():
        phosphene.parent.mkdir()
        phosphene.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m phosphene "$@"\n')
        phosphene.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{phosphene.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(folder))),
        "PHOSPHENE_CACHE": str(folder / ".cache"),
        "OMP_NUM_THREADS": "1",
        "PHOSPHENE_WEIGHTS_MIRROR": str(folder / "nowhere"),
    }
    program = ["bash", "--norc", "-eu"] if kind == "sh" else [sys.executable]
    return subprocess.run(
        [*program, str(script)],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
def test_a_page_runs_as_it_stands(name: str, folder: Path) -> None:
    found = blocks(DOCS / name)
    if "walk.mp4" in "".join(text for _, text in found):
        pytest.importorskip("av")
        film(folder / "walk.mp4")
    before = set(folder.iterdir())
    scripts = {"sh": "", "python": ""}
    for kind, text in found:
        if kind in scripts:
            scripts[kind] += text
        else:
            (folder / kind).write_text(text, encoding="utf-8")
    for kind, text in scripts.items():
        script = folder / f".page.{kind}"
        script.write_text(text, encoding="utf-8")
        done = run(script, folder, kind) if text else None
        assert done is None or done.returncode == 0, f"{name}: {done.stderr}"
    made = {path.name for path in set(folder.iterdir()) - before if path.suffix != ".py"}
    wanted = re.findall(r"(?:-o |--plot-keys )(\S+\.\w+)", scripts["sh"])
    assert set(wanted) <= made


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_short_and_its_commands_are_ours(name: str) -> None:
    text = (DOCS / name).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    for kind, block in blocks(DOCS / name):
        if kind != "sh":
            continue
        joined = block.replace("\\\n", " ")
        for line in joined.splitlines():
            if line.startswith("export "):
                continue
            words = line.split()
            assert words[0] == "phosphene", line
            assert words[1].startswith("--") or words[1] in OTHERS or is_recipe(words[1]), line


def test_no_block_is_of_an_unknown_kind() -> None:
    """So that nothing that looks like a command is left out by accident."""
    for page in PAGES:
        opened = re.findall(r"^```(\S.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        kinds = {kind for kind in opened if not kind.startswith(("{code-block}", "{toctree}"))}
        assert kinds <= {"sh", "python", "console", "text"}, page
