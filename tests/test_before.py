"""Files that an earlier version made: their recipes are still read, and give the same pictures.

They were made by `python -m tests.before`; `scripts/same_pictures` compares many more, made anew.
"""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phosphene.image import read_recipe
from phosphene.recipes.presets import PRESETS
from tests.before import CASES, DATA, INPUTS, MACHINE, apart, kept_files, machine
from tests.command import run

# Levels on average: how far another processor's rounding, or another torch's, may lead.
FAR = {"fp64": 0.01, "fp32": 2.0, "bf16": 4.0}


@pytest.mark.parametrize("file", kept_files(), ids=lambda file: file.name)
def test_a_file_made_before_comes_out_the_same(file: Path, tmp_path: Path) -> None:
    text = file.read_text("utf-8") if file.suffix == ".json" else read_recipe(file)
    assert text is not None
    found = json.loads(text)
    recipe = found if "format" in found else found["recipe"]  # data of a page hold it
    assert recipe["format"] == 1
    again = tmp_path / f"again{file.suffix if file.suffix != '.json' else '.png'}"
    done = run("replay", file, "-o", again, cwd=DATA / INPUTS)
    if machine() == json.loads((DATA / MACHINE).read_text("utf-8")):
        assert (done.code, done.out.splitlines()[0]) == (0, f"{file}: the same, pixel for pixel")
    else:
        assert done.code in (0, 3), done.err
    if file.suffix == ".json":
        return
    difference = apart(again, file)
    assert not difference.words
    assert difference.mean <= FAR[recipe["machine"]["precision"]]
    assert done.code == 0 or "differ" in done.out


def test_the_cases_are_of_every_kind() -> None:
    assert len(CASES) >= 40
    assert len({case.name for case in CASES}) == len(CASES)
    words = [case.words.split() for case in CASES]
    verbs = {"dream", "visualize", "caricature", "invert", "accentuate", "style", "sheet", "unit"}
    assert {each[0] for each in words} == verbs
    named = {each[each.index("--preset") + 1] for each in words if "--preset" in each}
    assert named == {name for name in PRESETS if PRESETS[name].published}
    kept = {case.name.replace(" ", "-") for case in CASES if case.kept}
    assert {file.stem for file in kept_files()} == kept


# --- the comparison can fail -----------------------------------------------------------------


def encoded(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


GREY = np.full((4, 6, 4), 100, np.uint8)


@pytest.mark.parametrize("channel", [0, 2, 3])
def test_a_level_that_differs_is_seen(channel: int, tmp_path: Path) -> None:
    other = GREY.copy()
    other[1, 2, channel] += 3
    for name, pixels in (("a.png", GREY), ("b.png", other), ("c.png", GREY[:, :3])):
        (tmp_path / name).write_bytes(encoded(pixels))
    assert apart(tmp_path / "a.png", tmp_path / "a.png").same
    found = apart(tmp_path / "b.png", tmp_path / "a.png")
    assert (found.most, found.mean, found.same) == (3, pytest.approx(3 / 96), False)
    assert apart(tmp_path / "c.png", tmp_path / "a.png").words == "3×4 instead of 6×4 px"


def test_a_page_that_differs_is_seen(tmp_path: Path) -> None:
    def page(pixels: np.ndarray, word: str = "42", recipe: str = "old") -> str:
        text = base64.b64encode(encoded(pixels)).decode()
        return (
            f"<svg><metadata>{recipe}</metadata>\n<text>{word}</text>"
            f'<image href="data:image/png;base64,{text}"/></svg>'
        )

    pages = {
        "a": page(GREY),
        "recipe": page(GREY, recipe="new"),
        "word": page(GREY, "43"),
        "picture": page(GREY + np.uint8(1)),
        "count": re.sub("<image.*/>", "", page(GREY)),
    }
    for name, text in pages.items():
        (tmp_path / f"{name}.svg").write_text(text, encoding="utf-8")
    found = {name: apart(tmp_path / f"{name}.svg", tmp_path / "a.svg") for name in pages}
    assert [name for name in pages if found[name].same] == ["a", "recipe"]
    assert found["picture"].most == 1


def test_data_that_differ_are_seen(tmp_path: Path) -> None:
    data = {
        "a": {"cells": [1, 2], "recipe": {"format": 1}},
        "recipe": {"cells": [1, 2], "recipe": {"format": 2}},
        "cells": {"cells": [1, 3], "recipe": {"format": 1}},
        "bare": {"format": 1, "result": "x"},
        "bare, new": {"format": 2, "result": "x"},
        "bare, other": {"format": 2, "result": "y"},
    }
    for name, found in data.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")

    def same(ours: str, theirs: str) -> bool:
        return apart(tmp_path / f"{ours}.json", tmp_path / f"{theirs}.json").same

    assert [name for name in data if same(name, "a")] == ["a", "recipe"]
    assert [name for name in data if same(name, "bare")] == ["bare", "bare, new"]
