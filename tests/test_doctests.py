"""Examples in docstrings, run as they stand there."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import phosphene
from phosphene import jobs
from phosphene.image import draw_sky, save_image
from phosphene.jobs.request import InputFile, Request
from phosphene.recipes import base
from phosphene.recipes.function import RecipeFunction
from phosphene.zoo.registry import MODEL_CARDS, NETWORKS
from tests import plugins

SOURCE = Path(phosphene.__file__).parents[1]
GLOW = """
from phosphene.engine import Ascent, ascend
from phosphene.recipes.base import Recipe, register
from phosphene.settings import Settings

register(Recipe(name="glow", summary="Glow.", settings=type("S", (Settings,), {}), steps=ascend))
"""


def modules() -> list[str]:
    """Every module with an example in it."""
    return [
        re.sub(r"\.__init__$", "", ".".join(path.relative_to(SOURCE).with_suffix("").parts))
        for path in sorted((SOURCE / "phosphene").rglob("*.py"))
        if re.search(r"^\s*>>> ", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]


# Those that draw or film, through a real network.
SLOW = {"phosphene", "phosphene.jobs", "phosphene.jobs.runner", "phosphene.notebook",
        "phosphene.recipes.steps.stages", "phosphene.state"}  # fmt: skip


def is_slow(name: str) -> bool:
    """A recipe of the package's own, too: its example runs it."""
    return name in SLOW or name.removeprefix("phosphene.recipes.") in base.recipe_names()


FILMS = {f"phosphene.recipes.{name}" for name in ("film", "watch", "zoom")}


def examples(module: ModuleType) -> Iterator[doctest.DocTest]:
    """Those of a module, of what it defines, and of its recipes' functions, which are objects."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    yield from finder.find(module, module.__name__)
    parser = doctest.DocTestParser()
    for name, value in vars(module).items():
        if isinstance(value, RecipeFunction):
            doc = inspect.cleandoc(value.__doc__ or "")
            yield parser.get_doctest(doc, {}, f"{module.__name__}.{name}", module.__file__, 0)


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the examples take for granted, and a folder with the files that they name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PHOSPHENE_CACHE", str(tmp_path / "cache"))
    photo = draw_sky(48, 64)
    for path in ("sky.jpg", "photos/one.jpg", "photos/two.jpg"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        save_image(photo, tmp_path / path)
    (tmp_path / "glow.py").write_text(GLOW, encoding="utf-8")
    request = Request(
        recipe="dream",
        inputs={"photo": InputFile(path="sky.jpg")},
        settings={"octaves": 1, "steps": 1},
        outputs={"picture": "out.png"},
    )
    (tmp_path / "job.json").write_text(request.text(), encoding="utf-8")
    sky = torch.zeros(1, 1, 48, 64)
    sky[..., :24, :] = 1
    with plugins.forgotten():
        yield {
            "phosphene": phosphene, "ph": phosphene, "torch": torch, "nn": nn,
            "Fraction": Fraction, "photo": photo,
            "sky": sky, "lake": 1 - sky, "a": torch.zeros(1), "b": torch.zeros(1),
            "request": request, "Saved": jobs.Saved, "enough": lambda step: True,
            "build": lambda: nn.Conv2d(3, 4, 3), "Network": phosphene.Network,
            "load_network": phosphene.load_network, "layer": phosphene.objectives.layer,
            "channel": phosphene.objectives.channel, "tv": phosphene.objectives.tv,
        }  # fmt: skip
    base.unregister("glow")
    NETWORKS.pop("mine", None)
    MODEL_CARDS.pop("mine", None)


def parameters() -> Iterator[Any]:
    for name in modules():
        yield pytest.param(name, marks=[pytest.mark.slow] if is_slow(name) else [])


@pytest.mark.parametrize("name", list(parameters()))
def test_the_examples_of(name: str, names: dict[str, Any]) -> None:
    if name in FILMS:
        for needed in ("av", "cv2"):
            pytest.importorskip(needed)
        frames = (draw_sky(48, 64).roll(number, -1) for number in range(4))
        phosphene.write_film("walk.mp4", frames, rate=24)
    if is_slow(name):
        names["net"] = phosphene.load_network()
    module = importlib.import_module(name)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    said: list[str] = []
    count = 0
    for test in examples(module):
        test.globs = {**vars(module), **names}
        runner = doctest.DocTestRunner(optionflags=flags, verbose=False)
        runner.run(test, out=said.append)
        count += runner.tries
    assert count > 0
    assert not said, "".join(said)


def test_an_example_that_is_wrong_is_seen() -> None:
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    said: list[str] = []
    assert doctest.DocTestRunner().run(test, out=said.append).failed == 1
    assert said
