"""The lessons: script and notebook say the same, show something, and run."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from phosphene.cli import lessons as command
from phosphene.cli import main

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "lessons").glob("*.py"))
NAMES = [path.stem for path in SCRIPTS]
MOST = 1_000_000  # bytes of a notebook
SECONDS = 90  # that a lesson may take, on two cores


def notebook(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "lessons" / f"{name}.ipynb").read_text(encoding="utf-8"))


def cells_of_script(name: str) -> list[tuple[str, str]]:
    """(kind, text) of each cell of a script in jupytext's percent format."""
    text = (ROOT / "lessons" / f"{name}.py").read_text(encoding="utf-8")
    cells = []
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        kind = "markdown" if "[markdown]" in head else "code"
        if kind == "markdown":
            body = re.sub(r"^# ?", "", body, flags=re.MULTILINE)
        cells.append((kind, body.strip()))
    return cells


def shown(cell: Any) -> list[set[str]]:
    """The kinds of what a cell shows; a page is a PNG or a JPEG, as it turns out smaller."""
    outputs = (output.get("data", {}) for output in cell.get("outputs", []))
    return [{kind.replace("/png", "/jpeg") for kind in data} for data in outputs if data]


def test_there_are_six() -> None:
    assert [name[:2] for name in NAMES] == ["01", "02", "03", "04", "05", "06"]
    assert {p.stem for p in (ROOT / "lessons").glob("*.ipynb")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_script_and_notebook_are_a_pair(name: str) -> None:
    found = [(c["cell_type"], "".join(c["source"]).strip()) for c in notebook(name)["cells"]]
    assert found == cells_of_script(name), "scripts/make_lessons makes the notebook anew"


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_shows_and_is_small(name: str) -> None:
    path = ROOT / "lessons" / f"{name}.ipynb"
    assert path.stat().st_size < MOST
    code = [cell for cell in notebook(name)["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert kinds.count("image/jpeg") >= 5
    assert all(cell["execution_count"] for cell in code)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_tells_nothing_of_a_machine(name: str) -> None:
    path = ROOT / "lessons" / f"{name}.ipynb"
    words = re.sub(r"[A-Za-z0-9+/=]{200,}", "", path.read_text(encoding="utf-8"))  # pictures
    assert not re.search(r"/(home|root|tmp|work|usr|Users)/|[A-Z]:\\\\", words)
    assert '"execution": {' not in words
    assert set(notebook(name)["metadata"]) == {"kernelspec", "language_info"}
    assert notebook(name)["metadata"]["language_info"] == {"name": "python"}


@pytest.mark.parametrize("name", NAMES)
def test_a_lesson_has_its_parts(name: str) -> None:
    """A goal, something to think about, exercises, each with an answer that is folded and runs."""
    cells = notebook(name)["cells"]
    words = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    assert len(re.findall(r"^\*\*Goal:\*\*", words, re.MULTILINE)) == 1
    assert len(re.findall(r"^\*\*Think:\*\*", words, re.MULTILINE)) >= 1
    exercises = len(re.findall(r"^\*\*\d\.\*\*", words, re.MULTILINE))
    answers = [c for c in cells if "hide-cell" in c["metadata"].get("tags", [])]
    assert exercises == len(answers) >= 3
    for cell in answers:
        assert cell["metadata"]["jupyter"] == {"outputs_hidden": True, "source_hidden": True}
        ast.parse("".join(cell["source"]))


def test_the_command_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "my lessons"
    assert main(["lessons", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{folder}\n"
    assert "6 notebooks" in err
    assert f"jupyter lab '{folder}'" in err
    for name in NAMES:
        for suffix in (".py", ".ipynb"):
            ours = (ROOT / "lessons" / f"{name}{suffix}").read_bytes()
            assert (folder / f"{name}{suffix}").read_bytes() == ours


def test_the_command_replaces_nothing_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / f"{NAMES[2]}.ipynb"
    mine.write_text("my own answers")
    assert main(["lessons", str(tmp_path)]) == 1
    assert "--force" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [mine.name]
    assert mine.read_text() == "my own answers"
    assert main(["lessons", str(tmp_path), "--force", "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert mine.read_text() != "my own answers"
    assert main(["lessons", str(mine)]) == 1
    assert "is a file" in capsys.readouterr().err


def test_the_command_says_how_to_get_jupyter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    main(["lessons", str(tmp_path)])
    assert 'pip install "phosphene[notebook]", then jupyter lab ' in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(5 * SECONDS)
@pytest.mark.parametrize("name", NAMES)
def test_a_lesson_runs(name: str) -> None:
    for needed in ("jupytext", "nbclient", "ipykernel"):
        pytest.importorskip(needed, reason="the group lessons is not installed")
    path = str(ROOT / "scripts" / "make_lessons")
    loader = importlib.machinery.SourceFileLoader("make_lessons", path)
    spec = importlib.util.spec_from_loader("make_lessons", loader)
    assert spec is not None
    maker = importlib.util.module_from_spec(spec)
    loader.exec_module(maker)
    made = maker.executed(ROOT / "lessons" / f"{name}.py", timeout=3 * SECONDS)
    kept = notebook(name)
    for cell, other in zip(made.cells, kept["cells"], strict=True):
        assert shown(cell) == shown(other)
