"""What is installed from a wheel and from a source archive, in an environment of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

import phosphene

ROOT = Path(__file__).parents[1]
VERSION = phosphene.__version__
# Where the libraries lie that phosphene needs, and what builds it.
LIBRARIES = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
# Python 3.11.4 and later ask how far an archive is trusted.
SAFELY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def test_the_version_is_one() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", citation, re.MULTILINE) == [VERSION]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dynamic = ["version"]' in project
    assert not re.search(r'^version = "', project, re.MULTILINE)


def test_the_citation_is_of_the_format() -> None:
    """The fields that version 1.2.0 of the format requires, and no others than it knows."""
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    fields = dict(re.findall(r"^([a-z-]+): ?(.*)$", text, re.MULTILINE))
    assert {"cff-version", "message", "title", "authors"} <= fields.keys()
    known = {"cff-version", "message", "title", "authors", "abstract", "type", "version", "license"}
    assert fields.keys() <= known | {"keywords", "url", "repository-code", "date-released"}
    assert fields["cff-version"] == "1.2.0"
    assert fields["license"] == "Apache-2.0"


def run(*words: object, cwd: Path, **environment: str) -> str:
    """What a process prints. It sees nothing of this tree."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive of this tree."""
    pytest.importorskip("hatchling", reason="the group test is not installed anew")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=ROOT)
    return folder


def wheel_of(folder: Path) -> Path:
    return folder / f"phosphene-{VERSION}-py3-none-any.whl"


def installed(folder: Path, what: Path) -> Path:
    """The folder of commands of a new environment that has `what`, and sees our libraries."""
    venv.create(folder, with_pip=True)
    commands = folder / ("Scripts" if os.name == "nt" else "bin")
    run(
        commands / "python", "-m", "pip", "install", "--no-deps", "--no-build-isolation",
        "--no-index", "--ignore-installed", "--quiet", what,
        cwd=folder, PYTHONPATH=os.pathsep.join(LIBRARIES),
    )  # fmt: skip
    site = run(
        commands / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))",
        cwd=folder,
    )  # fmt: skip
    # Only folders: what lies in ours as `.pth` files, such as this tree itself, is not seen.
    Path(site.strip(), "libraries.pth").write_text("\n".join(LIBRARIES) + "\n")
    return commands


def try_out(commands: Path, folder: Path) -> None:
    """What a user does first, in an empty folder."""
    folder.mkdir()
    where = run(
        commands / "python", "-c", "import phosphene; print(phosphene.__file__)", cwd=folder
    )
    assert Path(where.strip()).is_relative_to(commands.parent)
    cache = {"PHOSPHENE_CACHE": str(folder.parent / "cache")}
    phosphene = commands / "phosphene"
    assert run(phosphene, "--version", cwd=folder) == f"phosphene {VERSION}\n"
    assert "dreamnet-robust" in run(phosphene, "networks", cwd=folder, **cache)
    words = "dream --start sky --size 64 --steps 1 -o dream.png"
    assert run(phosphene, *words.split(), cwd=folder, **cache) == "dream.png\n"
    assert (folder / "dream.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_wheel_works_away_from_the_source(built: Path, tmp_path: Path) -> None:
    names = set(zipfile.ZipFile(wheel_of(built)).namelist())
    source = ROOT / "src"
    package = source / "phosphene"
    wanted = {
        path.relative_to(source).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    lessons = (path.name for path in (ROOT / "lessons").glob("*") if path.is_file())
    wanted |= {f"phosphene/data/lessons/{name}" for name in lessons}
    assert {"phosphene/py.typed", "phosphene/__init__.pyi"} < wanted
    wanted |= {f"phosphene/data/lessons/{path.name}" for path in (ROOT / "lessons").glob("*.*")}
    assert any(name.startswith("phosphene/data/") for name in wanted)
    assert wanted == {name for name in names if ".dist-info/" not in name}
    try_out(installed(tmp_path / "environment", wheel_of(built)), tmp_path / "empty")


@pytest.mark.slow
def test_the_source_archive_is_whole_and_builds_the_same(built: Path, tmp_path: Path) -> None:
    with tarfile.open(built / f"phosphene-{VERSION}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        archive.extractall(tmp_path, **SAFELY)
    wanted = ("README.md", "LICENSE", "CITATION.cff", "Makefile", "docs/conf.py", "scripts/check")
    assert set(wanted) | {"tests/conftest.py", "training/__init__.py"} <= names
    left = ("docs/_build/", "docs/reference/", "docs/lessons/", "docs/project/", ".venv", "runs/")
    assert not any(name.startswith(left) for name in names)
    tree = tmp_path / f"phosphene-{VERSION}"
    run(
        sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist", cwd=tree
    )
    assert wheel_of(tmp_path / "dist").read_bytes() == wheel_of(built).read_bytes()


@pytest.mark.slow
def test_it_installs_from_the_source(built: Path, tmp_path: Path) -> None:
    """As `pip install .` in a clone does."""
    with tarfile.open(built / f"phosphene-{VERSION}.tar.gz") as archive:
        archive.extractall(tmp_path, **SAFELY)
    commands = installed(tmp_path / "environment", tmp_path / f"phosphene-{VERSION}")
    try_out(commands, tmp_path / "empty")
