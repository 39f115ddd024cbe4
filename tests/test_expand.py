"""From one request and axes to many requests."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phosphene.errors import PhospheneError, SettingsError
from phosphene.jobs import InputFile, Request, expand
from phosphene.recipes.axes import Axis, axis_of, parse_axis

PHOTO = InputFile(path="sky.jpg")
BASE = Request(recipe="dream", inputs={"photo": PHOTO})


def steps(requests: list[Request]) -> list[object]:
    return [request.settings["steps"] for request in requests]


def test_every_combination_the_last_axis_fastest() -> None:
    found = expand(BASE, [("steps", 5, 10), ("objective", "mixed3a", "mixed4c:1", "logits:cat")])
    named = [(request.settings["steps"], *request.objectives) for request in found]
    assert named == [
        (5, "mixed3a"), (5, "mixed4c:1"), (5, "logits:cat"),
        (10, "mixed3a"), (10, "mixed4c:1"), (10, "logits:cat"),
    ]  # fmt: skip
    assert all(request.inputs["photo"] == PHOTO for request in found)
    assert expand(BASE, []) == [BASE]


def test_a_value_replaces_that_of_the_base_and_leaves_the_rest() -> None:
    base = BASE.model_copy(update={"settings": {"steps": 3, "jitter": 7}, "network": "vgg16"})
    found = expand(base, [("steps", "5", "10")])
    assert [r.settings for r in found] == [{"steps": n, "jitter": 7} for n in (5, 10)]
    assert {r.network for r in found} == {"vgg16"}
    # A preset fills in what the base leaves open, and nothing that it says.
    presets = expand(base, [("preset", "phosphene", "google2015")])
    assert [r.checked_settings().model_dump()["octaves"] for r in presets] == ["auto", 4]
    assert {r.checked_settings().model_dump()["jitter"] for r in presets} == {7}


def test_networks_photos_starts_and_sizes_are_axes_too() -> None:
    assert [r.network for r in expand(BASE, [("network", "vgg16", "dreamnet")])] == [
        "vgg16",
        "dreamnet",
    ]
    lake = InputFile(path="lake.jpg", sha256="0" * 64)
    found = expand(BASE, [("photo", "sea.jpg", lake)])
    assert [r.inputs["photo"] for r in found] == [InputFile(path="sea.jpg"), lake]
    found = expand(BASE, [("start", "photo", "noise")])
    assert [(r.start, set(r.inputs)) for r in found] == [("photo", {"photo"}), ("noise", set())]
    assert [r.size for r in expand(BASE, [("size", "64", 96)])] == [64, 96]
    # Where a recipe has a setting of that name, it is that.
    drawn = Request(recipe="visualize", objectives=("mixed4c:1",))
    assert [r.settings for r in expand(drawn, [("size", 64)])] == [{"size": 64}]
    sheet = Request(recipe="sheet", layers=("mixed3a",))
    assert [r.layers for r in expand(sheet, [("layer", "mixed4c")])] == [("mixed4c",)]


def test_values_that_go_together_change_together() -> None:
    found = expand(BASE, [parse_axis("steps=5; 10 & jitter=0; half"), ("seed", 1, 2)])
    named = [tuple(r.settings[n] for n in ("steps", "jitter", "seed")) for r in found]
    assert named == [(5, 0, 1), (5, 0, 2), (10, "half", 1), (10, "half", 2)]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("seed=0-3", {"seed": ("0", "1", "2", "3")}),
        ("seed=7; 2-3", {"seed": ("7", "2", "3")}),
        ("step-size = 0.1 ;1e-3", {"step_size": ("0.1", "1e-3")}),
        ("objective=mixed4d:42,17; 2*a + b", {"objective": ("mixed4d:42,17", "2*a + b")}),
        ('objective=guide(a, "x;y.jpg"); b', {"objective": ('guide(a, "x;y.jpg")', "b")}),
        ("photo=a & b.jpg; c=d.jpg", {"photo": ("a & b.jpg", "c=d.jpg")}),
        ("objective=a:1-3; b", {"objective": ("a:1", "a:2", "a:3", "b")}),
        ("a=1; 2 & b=3; 4", {"a": ("1", "2"), "b": ("3", "4")}),
    ],
)
def test_how_an_axis_is_written(text: str, values: dict[str, tuple[str, ...]]) -> None:
    assert parse_axis(text).values == values


def test_an_axis_of_python_values() -> None:
    assert axis_of({"clip": [None, 0.5], "keep_colors": [True, False]}).values == {
        "clip": ("none", "0.5"),
        "keep_colors": ("yes", "no"),
    }
    assert axis_of({"seed": range(3)}).values == {"seed": ("0", "1", "2")}
    assert axis_of("seed=0-2").values == axis_of({"seed": range(3)}).values
    found = expand(BASE, [axis_of({"clip": [None, 0.5], "keep_colors": [True, False]})])
    changed = [(r.settings["clip"], r.settings["keep_colors"]) for r in found]
    assert changed == [(None, True), (0.5, False)]


AXES = st.tuples(st.sampled_from(("steps", "jitter", "seed")), st.integers(1, 4))


@settings(max_examples=25, deadline=None)
@given(st.lists(AXES, max_size=3, unique_by=lambda axis: axis[0]))
def test_there_are_as_many_as_the_axes_lengths_multiply_to(axes: list[tuple[str, int]]) -> None:
    found = expand(BASE, [(name, *range(1, count + 1)) for name, count in axes])
    expected = 1
    for _, count in axes:
        expected *= count
    assert len(found) == expected == len({request.text() for request in found})


@pytest.mark.parametrize(
    ("axis", "told"),
    [
        (("stepps", 5), "dream has no 'stepps' to vary; the closest are steps"),
        (("learning_rate", 0.1), "dream has no 'learning_rate' to vary"),
        (("steps", "many"), "steps: input should be a valid integer"),
        (("steps", 0), "steps: input should be greater than or equal to 1"),
        (("preset", "gogle2015"), "no preset 'gogle2015'; the closest are google2015"),
        (("start", "fog"), "start"),
        (("size", "0"), "size"),
    ],
)
def test_what_cannot_be_is_one_line(axis: tuple[object, ...], told: str) -> None:
    with pytest.raises(SettingsError, match=told.replace("(", r"\(")) as caught:
        expand(BASE, [axis])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("steps", "expected NAME=VALUE; VALUE"),
        ("steps=", "steps: value 1 of 1 is empty"),
        ("steps=5;;10", "steps: value 2 of 3 is empty"),
        ("steps=5; 10 & jitter=1", "as many values each; here are steps 2, jitter 1"),
        ("seed=9-0", "9-0 goes backwards"),
        ("seed=0-99999", "99999 has 100000 values|0-99999 has 100000 values"),
    ],
)
def test_an_axis_that_is_none(text: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        parse_axis(text)


def test_no_values_at_all() -> None:
    with pytest.raises(SettingsError, match="there are no values"):
        Axis({"steps": ()})
    with pytest.raises(PhospheneError, match="an axis is a text, or names with values"):
        axis_of(5)


@pytest.mark.slow
def test_expanding_needs_no_torch() -> None:
    code = (
        "import sys; from phosphene.jobs import Request, expand; "
        "expand(Request(recipe='dream', start='sky'), [('steps', 1, 2)]); "
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
