"""What cannot be done is refused before torch is imported: in a moment, in little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

# Torch is no module here, so whoever wants it fails with another line.
REFUSED = """
import sys
sys.modules["torch"] = sys.modules["numpy"] = None
from phosphene.cli import main
sys.exit(main(sys.argv[1:]))
"""


def refused(folder: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", REFUSED, *arguments], cwd=folder, capture_output=True, text=True
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (64, 48), "teal").save(tmp_path / "photo.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "there.png").write_bytes(b"mine")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        ("dream photo.png -o there.png", 1, "'there.png' is already there"),
        ("dream photo.png -o photo.png --force", 2, "is the photo itself, which is never replaced"),
        ("dream photo.png -o out.txt", 1, "unknown suffix '.txt'"),
        ("dream photo.png -o no/out.png", 1, "no folder 'no'"),
        ("dream nowhere.png", 1, "there is no file 'nowhere.png'"),
        ("dream empty.png", 1, "'empty.png' is empty"),
        ("dream photo.png -o out.png --guide nowhere.png", 1, "there is no file 'nowhere.png'"),
        ("dream photo.png --memory 70K", 2, "memory: 70K is too little for 64×48 px"),
        ("dream photo.png --size 640 --memory 1M", 2, "memory: 1M is too little for 640×480 px"),
        ("visualize mixed4c:1 -o there.png", 1, "'there.png' is already there"),
        ("sheet dreamnet mixed4c -o there.txt", 1, "unknown suffix '.txt'; pages are written as"),
    ],
)
def test_a_refusal_imports_no_torch(folder: Path, arguments: str, code: int, line: str) -> None:
    found, told = refused(folder, *arguments.split())
    assert (found, told.count("\n")) == (code, 1), told
    assert line in told
    assert sorted(path.name for path in folder.iterdir()) == ["empty.png", "photo.png", "there.png"]
    assert (folder / "there.png").read_bytes() == b"mine"


def test_so_does_a_saved_request(folder: Path) -> None:
    request = {
        "format": 1,
        "recipe": "dream",
        "network": "dreamnet",
        "objectives": ["mixed4c"],
        "inputs": {"photo": {"path": "nowhere.png"}},
        "outputs": {"picture": "out.png"},
    }
    (folder / "job.json").write_text(json.dumps(request))
    code, told = refused(folder, "run", "job.json")
    assert code == 1
    assert "nowhere.png" in told


def test_what_can_be_done_wants_torch(folder: Path) -> None:
    """So the others are refused for what they are."""
    code, told = refused(folder, "dream", "photo.png", "-o", "out.png")
    assert code == 1
    assert "torch" in told
