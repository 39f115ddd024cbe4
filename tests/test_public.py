from __future__ import annotations

import inspect
import json
import subprocess
import sys
from typing import Any

import pytest

import phosphene as ph

PUBLIC = {
    "Network",
    "Objective",
    "PhospheneError",
    "State",
    "__version__",
    "accentuate",
    "caricature",
    "draw_sky",
    "dream",
    "film",
    "film_info",
    "gradient",
    "grid",
    "invert",
    "jobs",
    "load_image",
    "load_network",
    "load_plugin",
    "objective",
    "objectives",
    "octaves",
    "page",
    "panels",
    "parse",
    "read_film",
    "register_network",
    "save_image",
    "sheet",
    "show",
    "story",
    "style",
    "transform",
    "unit_card",
    "visualize",
    "watch",
    "write_film",
    "zoom",
}


def fresh(code: str) -> Any:
    """What `code` prints, as JSON, in a process that has imported nothing yet."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_public_names() -> None:
    # A name that comes or goes is a decision, so it is written down twice.
    assert set(ph.__all__) == PUBLIC
    assert len(ph.__all__) == len(PUBLIC)


@pytest.fixture(scope="module")
def used() -> dict[str, Any]:
    """What a process has imported that takes each name and a step, and of what type names are."""
    return fresh(
        "import sys, json, phosphene as ph; "
        "kinds = {name: type(getattr(ph, name)).__name__ for name in ph.__all__}; "
        "kinds = {name: type(getattr(ph, name)).__name__ for name in ph.__all__}; "
        "from phosphene.engine import Ascent; Ascent([], 0.1).step(); "
        "print(json.dumps({'kinds': kinds, 'modules': sorted(sys.modules)}))"
    )


def test_importing_it_imports_nothing_heavy() -> None:
    modules = fresh("import sys, json, phosphene; print(json.dumps(sorted(sys.modules)))")
    heavy = {"torch", "torchvision", "timm", "matplotlib", "numpy", "PIL", "pydantic", "lark"}
    assert "phosphene" in modules
    assert heavy & set(modules) == set()


def test_using_it_imports_no_library_of_networks_or_figures(used: dict[str, Any]) -> None:
    assert "torch" in used["modules"]
    # Nor torch's compiler, which an optimiser of torch's own would import.
    heavy = {"torchvision", "timm", "matplotlib", "scipy", "sklearn", "torch._dynamo"}
    assert heavy & set(used["modules"]) == set()


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_name_is_there(name: str) -> None:
    value = getattr(ph, name)
    assert name in dir(ph)
    if name not in ("__version__", "jobs", "objectives"):
        assert callable(value)
        assert inspect.getdoc(value)


def test_the_names_are_what_they_say() -> None:
    from phosphene.network import Network
    from phosphene.recipes.dream import dream

    assert ph.Network is Network
    assert ph.dream is dream
    assert ph.objectives.layer("mixed4c").text == "mixed4c"
    assert ph.parse("2*mixed4c").layers == ("mixed4c",)


def test_star_gives_the_public_names() -> None:
    names: dict[str, Any] = {}
    exec("from phosphene import *", names)
    assert set(names) - {"__builtins__"} == PUBLIC


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'phosphene' has no attribute 'drem'"):
        _ = ph.drem  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ImportError):
        exec("from phosphene import drem")


def test_no_module_takes_the_place_of_a_name(used: dict[str, Any]) -> None:
    assert {name for name, kind in used["kinds"].items() if kind == "module"} == {
        "jobs",
        "objectives",
    }
