"""Panels and grids: what they show, how they go on, and what is refused before a cell is drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import phosphene as ph
from phosphene import image as images
from phosphene import jobs
from phosphene.errors import PhospheneError, SettingsError
from phosphene.explain.grid_page import PageCell, cells_page, wrapped_columns
from phosphene.explain.pages import ImageItem, Lines, Text, as_image
from phosphene.jobs import Request
from phosphene.manifest import Manifest
from phosphene.manifest.hashes import file_hash
from phosphene.recipes.base import recipe_named
from phosphene.recipes.dream import DreamSettings
from phosphene.recipes.grid import GridSettings
from phosphene.recipes.panels import PanelsSettings
from phosphene.recipes.steps.stages import sweep
from phosphene.settings import checked
from tests import command, toy_network
from tests.command import Say
from tests.on import DEVICE
from tests.photos import small_photo

TOY = "tests.toy_network:net"
ON: dict[str, Any] = {"device": DEVICE, "precision": "fp64"}
NETWORK = ("--network", TOY, "--device", "cpu", "--precision", "fp64")
FEW = ("--set", "steps=1", "--set", "octaves=1")
GRID = ("grid", "photo.png", *NETWORK, *FEW)
REPLAY = ("replay", "--network", TOY)


@pytest.fixture(autouse=True)
def here(workplace: Path) -> Path:
    """A folder with two photos, and in it."""
    for seed, name in enumerate(("photo.png", "lake.png")):
        small_photo(workplace / name, seed)
    return workplace


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The arguments of every dream that is begun, as they come."""
    from phosphene.recipes.steps import dream

    begun: list[Any] = []
    whole = dream.dream_steps

    def counted(arguments: Any) -> Any:
        begun.append(arguments)
        return whole(arguments)

    monkeypatch.setattr(dream, "dream_steps", counted)
    return begun


def refused(done: command.Done, *told: str) -> None:
    assert (done.code in (1, 2), done.out) == (True, ""), done
    line = done.err.strip().splitlines()[-1]
    assert line.startswith("phosphene: ")
    assert all(words in line for words in told), line
    assert not Path("out.png").exists()
    assert not list(Path("cache").glob("grids/**/*.png"))


def words(content: Any) -> list[str]:
    return [item.text for item in content.layout().items if isinstance(item, Text)]


# Grids --------------------------------------------------------------------------------------------


def test_each_cell_is_what_its_recipe_draws_alone(say: Say) -> None:
    across, down = "objective=first; second:3", "jitter=0; 2"
    assert say(*GRID, "--across", across, "--down", down, "-o", "out.png", "--seed", 5).code == 0
    photo, net = images.load_image("photo.png"), toy_network.net()
    made = ph.grid(photo, net, across=across, down=down, set=["steps=1", "octaves=1"], seed=5, **ON)
    assert (made.columns, made.rows) == (("first", "second:3"), ("jitter 0", "jitter 2"))
    places = [(jitter, goal) for jitter in (0, 2) for goal in ("first", "second:3")]
    for cell, (jitter, goal) in zip(made.cells, places, strict=True):
        alone = ph.dream(photo, net, goal, jitter=jitter, steps=1, octaves=1, seed=5, **ON)
        assert cell is not None
        assert cell.picture is not None
        assert np.array_equal(images.to_uint8(cell.picture), images.to_uint8(alone[0]))
    # The library's page is the command's, pixel for pixel.
    there, shown = np.asarray(Image.open("out.png").convert("RGB")), np.asarray(ph.page(made))
    assert np.array_equal(there, shown)


def test_a_second_look_draws_nothing_and_equal_cells_are_drawn_once(
    say: Say, drawn: list[Any]
) -> None:
    flags = ("--across", "objective=first; second; first", "-o", "out.png", "--force")
    assert say(*GRID, *flags).code == 0
    assert len(drawn) == 2
    before = Path("out.png").read_bytes()
    done = say(*GRID, *flags, "--verbose")
    assert (done.code, len(drawn)) == (0, 2)
    assert "3 of 3 cells were kept from before" in done.err
    assert Path("out.png").read_bytes() == before
    # Only what changed is drawn, and nothing is taken where nothing is to be kept.
    assert say(*GRID, "--across", "objective=second; second:1", "-o", "other.png").code == 0
    assert len(drawn) == 3
    assert say(*GRID, *flags, "--no-keep").code == 0
    assert len(drawn) == 5


def test_an_interrupted_grid_goes_on(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    from phosphene.recipes.steps import dream

    whole, count = dream.dream_steps, [0]

    def stopped(arguments: Any) -> Any:
        count[0] += 1
        if count[0] == 3:
            raise KeyboardInterrupt
        return whole(arguments)

    monkeypatch.setattr(dream, "dream_steps", stopped)
    flags = ("--across", "seed=0-3", "-o", "out.png")
    done = say(*GRID, *flags)
    assert done.code == 130
    assert "2 of 4 cells are done and kept; the same command goes on from there" in done.err
    assert not Path("out.png").exists()
    assert say(*GRID, *flags).code == 0
    assert count[0] == 3 + 2


@pytest.mark.parametrize("suffix", ["png", "svg", "json"])
def test_a_grid_is_made_again_from_its_recipe(suffix: str, say: Say) -> None:
    name = f"page.{suffix}"
    flags = (
        "--across",
        "photo=photo.png; lake.png",
        "--down",
        'objective=first; guide(first, "lake.png")',
    )
    assert say("grid", *NETWORK, *FEW, *flags, "-o", name).code == 0
    manifest = Manifest.read(name)
    inputs = {role: record.sha256 for role, record in manifest.inputs.items()}
    assert inputs == {p: file_hash(Path(p)) for p in ("photo.png", "lake.png")}
    assert manifest.settings["across"] == {"photo": ["photo.png", "lake.png"]}
    done = say(*REPLAY, name)
    assert (done.code, done.out.splitlines()[:1]) == (0, [f"{name}: the same, pixel for pixel"])
    Path("lake.png").write_bytes(Path("photo.png").read_bytes())
    refused_ = say(*REPLAY, name)
    assert refused_.code == 1
    assert "is not the recipe's lake.png" in refused_.err


def test_a_request_is_saved_and_run(say: Say) -> None:
    flags = ("--across", "photo=photo.png; lake.png", "-o", "out.png")
    assert say("grid", *NETWORK, *FEW, *flags, "--save-request", "ask.json").code == 0
    before = Path("out.png").read_bytes()
    asked = Request.read("ask.json")
    assert set(asked.inputs) == {"photo.png", "lake.png"}
    assert say("run", "ask.json", "--network", TOY, "--force").code == 0
    assert Path("out.png").read_bytes() == before


def test_a_photo_stays_beside_the_pictures_of_an_axis(say: Say) -> None:
    axis = 'objective=first; guide(first, "lake.png")'
    assert say(*GRID, "--across", axis, "-o", "out.png").code == 0
    inputs = {role: used.sha256 for role, used in Manifest.read("out.png").inputs.items()}
    assert inputs == {
        "photo": file_hash(Path("photo.png")),
        "lake.png": file_hash(Path("lake.png")),
    }
    fixed = ["steps=1", "octaves=1"]
    made = ph.grid("photo.png", toy_network.net(), across=axis, set=fixed, **ON)
    there = np.asarray(Image.open("out.png").convert("RGB"))
    assert np.array_equal(there[60:], np.asarray(ph.page(made))[60:])


def test_any_recipe_that_gives_one_picture(say: Say) -> None:
    flags = ("--of", "visualize", "--set", "steps=1", "--size", 24)
    done = say("grid", *NETWORK, *flags, "--layers", "first,second", "-o", "out.png")
    assert done.code == 0, done
    done = say("grid", "photo.png", *NETWORK, "--of", "invert", "--set", "steps=1", "--across",
               "layer=first; second", "-o", "inverted.png")  # fmt: skip
    assert done.code == 0, done
    done = say("grid", *NETWORK, "--of", "sheet", "--across", "seed=1; 2", "-o", "no.png")
    assert "there are accentuate, caricature, dream, invert, style, visualize" in done.err


def test_all_layers_and_channels_by_chance() -> None:
    net = toy_network.net()
    every = checked(GridSettings, {"layers": "all"}).across_of(net)
    assert every is not None
    assert every.values == {"objective": tuple(sweep(net))}
    given = {"random_channels": 4, "layer": "second"}
    chosen = [checked(GridSettings, {**given, "seed": seed}).across_of(net) for seed in (0, 0, 1)]
    named = [axis.values["objective"] for axis in chosen if axis]
    assert named[0] == named[1] != named[2]
    assert len(set(named[0])) == 4
    assert all(text in [f"second:{c}" for c in range(8)] for text in named[0])
    assert sweep(ph.load_network("dreamnet"))[:2] == ["conv1", "conv2"]


def test_networks_are_loaded_once_each(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    from phosphene.jobs import grids

    loaded: list[str] = []
    whole = grids.load_network
    monkeypatch.setattr(grids, "load_network", lambda name: loaded.append(name) or whole(name))
    flags = ("--across", f"network={TOY}; tests.toy_network:wide", "--down", "seed=1; 2")
    done = say(*GRID, *flags, "--set", "objective=first", "-o", "out.png", "--data", "data.json")
    assert done.code == 0, done
    assert loaded == ["tests.toy_network:wide"]
    assert json.loads(Path("data.json").read_text())["network"] == f"{TOY}, tests.toy_network:wide"


BAD = [
    (("--across", "stepps=1; 2"), "dream has no 'stepps' to vary; the closest are steps"),
    (("--across", "learning_rate=1; 2"), "dream has no 'learning_rate' to vary"),
    (("--set", "stepps=1", "--across", "seed=1; 2"), "dream has no 'stepps' to vary"),
    (("--across", "steps=5;;10"), "steps: value 2 of 3 is empty"),
    (("--across", "steps="), "steps: value 1 of 1 is empty"),
    (("--across", "steps=5; many"), "steps: input should be a valid integer"),
    (("--across", "steps=1; 2 & jitter=1"), "steps 2, jitter 1"),
    (
        ("--across", "preset=phosphene; gogle2015"),
        "no preset 'gogle2015'; the closest are google2015",
    ),
    (("--across", "objective=first; logits:cta"), "'cta'"),
    (("--across", "objective=first; thrid"), "'thrid'"),
    (("--layers", "first,thrid"), "'thrid'"),
    (("--across", "objective=first; 2*"), "2*"),
    (("--across", "objective=first:99"), "99"),
    (("--across", "photo=photo.png; none.png"), "none.png"),
    (("--across", "network=dreamnet; dreamnett"), "dreamnett"),
    (("--across", "network=dreamnet; file:a.pth@vgg16"), "is a file; an axis takes networks by"),
    (("--layers", "first", "--across", "seed=1; 2"), "across and layers: one says"),
    ((), "nothing changes"),
    (("--random-channels", "9", "--layer", "second"), "random_channels is 9; second has 8"),
    (("--random-channels", "3"), "random_channels and layer go together"),
    (("--of", "sheet", "--across", "seed=1; 2"), "no recipe for pictures"),
    (
        ("--across", "start=photo; noise", "--set", "keep_colors=true"),
        "--keep-colors needs a photograph, and --start noise has none: phosphene dream PHOTO",
    ),
    (("--across", "seed=0-400"), "this asks for 401 pictures, of which 400 are begun unasked"),
    (("--across", "seed=0-9999", "--down", "steps=1-9999"), "99990000 pictures"),
]


@pytest.mark.parametrize(("flags", "told"), BAD)
def test_bad_input_is_told_before_the_first_cell(
    flags: tuple[str, ...], told: str, say: Say, drawn: list[Any]
) -> None:
    refused(say(*GRID, *flags, "-o", "out.png"), told)
    assert not drawn


def test_sizes_and_starts_against_each_other(say: Say) -> None:
    axes: dict[str, Any] = {"across": "size=16; 24", "down": "start=photo; noise; sky"}
    flags = [word for name, text in axes.items() for word in (f"--{name}", text)]
    assert say(*GRID, *flags, "--set", "objective=first", "-o", "out.png").code == 0
    fixed = ["steps=1", "octaves=1", "objective=first"]
    made = ph.grid(images.load_image("photo.png"), toy_network.net(), set=fixed, **axes, **ON)
    sizes = [
        images.size_of(cell.picture) for cell in made.cells if cell and cell.picture is not None
    ]
    assert sizes == [(12, 16), (18, 24), (11, 16), (16, 24), (11, 16), (16, 24)]
    # What the command has kept is what is drawn without it.
    kept = sorted(Path("cache").glob("grids/**/*.png"))
    levels = {images.to_uint8(images.load_image(path)[0]).tobytes() for path in kept}
    drawn = {
        images.to_uint8(c.picture).tobytes() for c in made.cells if c and c.picture is not None
    }
    assert len(drawn) == 6
    assert len(levels & drawn) >= 4  # a photograph of a file is made smaller before it is 8 bits


def test_a_cell_keeps_the_colours_of_a_photograph_alone() -> None:
    given: dict[str, Any] = {"set": ["steps=1", "octaves=1", "objective=first"], **ON}
    photo, net = images.load_image("photo.png"), toy_network.net()
    assert ph.grid(photo, net, across="keep_colors=false; true", **given).cells
    told = "^--keep-colors needs a photograph, and --start sky has none: "
    for axes in (
        {"across": "keep_colors=false; true"},
        {"across": "keep_colors=true", "down": "start=photo; sky"},
    ):
        with pytest.raises(SettingsError, match=told):
            ph.grid(photo if "down" in axes else None, net, **axes, **given)


def test_a_grid_of_the_colours_of_noise_replays(say: Say) -> None:
    # Made before that was refused.
    settings: dict[str, Any] = {
        "across": "start=noise; sky",
        "set": ["steps=1", "octaves=1", "objective=first", "size=16", "keep_colors=true"],
        **ON,
    }
    request = Request(recipe="grid", network=TOY, settings=settings, outputs={"page": "old.png"})
    with pytest.raises(SettingsError, match="--keep-colors needs a photograph"):
        jobs.prepare(request, allow=(TOY,))
    list(jobs.prepare(request, allow=(TOY,), recorded=True).events())
    done = say(*REPLAY, "old.png")
    assert (done.code, done.out) == (0, "old.png: the same, pixel for pixel\n"), done


def test_many_cells_are_begun_if_that_is_said(say: Say) -> None:
    flags = ("--across", "seed=0-400", "-o", "out.png")
    done = say(*GRID, *flags, "--dry-run")
    refused(done, "roughly", "allow it with --large")
    assert say(*GRID, *flags, "--large", "--dry-run").code == 0


# Panels -------------------------------------------------------------------------------------------


def test_panels_switch_on_one_thing_after_the_other() -> None:
    photo, net = images.load_image("photo.png"), toy_network.net()
    own: dict[str, Any] = {"steps": 2, "octaves": 2, "smooth": 0.7, "seed": 3, **ON}
    made = ph.panels(photo, net, "second", add=["smooth"], **own)
    assert made.labels == (
        "original", "normalised gradient", "+ octaves", "+ jitter", "+ smooth 0.7",
    )  # fmt: skip
    off = {"octaves": 1, "jitter": 0, "smooth": 0.0, "laplacian": 0, "natural": 0.0}
    assert torch.equal(made.pictures[:1], photo)
    for picture, on in zip(
        made.pictures[1:],
        (
            {},
            {"octaves": 2},
            {"octaves": 2, "jitter": 32},
            {"octaves": 2, "jitter": 32, "smooth": 0.7},
        ),
        strict=True,
    ):
        alone = ph.dream(photo, net, "second", **{**own, **off, **on})
        assert torch.equal(picture, alone[0])
    # What all panels share is the preset's and the flags'; nothing but what is off differs.
    settings = [s for _, s in checked(PanelsSettings, {"preset": "google2015"}).panels()]
    last, dream = settings[-1].model_dump(), checked(DreamSettings, {"preset": "google2015"})
    assert last == {**dream.model_dump(), **{n: last[n] for n in last if last[n] != vars(dream)[n]}}
    assert last["jitter"] == 32
    assert {n for n in last if last[n] != vars(dream)[n]} <= {"smooth", "laplacian", "natural"}


def test_an_inset_is_framed_and_enlarged() -> None:
    photo, net = images.load_image("photo.png"), toy_network.net()
    made = ph.panels(photo, net, "second", inset="8,4,16", cell=128, steps=1, octaves=1, **ON)
    items = made.layout().items
    pictures = [item for item in items if isinstance(item, ImageItem)]
    assert len(pictures) == 2 * 4
    panel, cut = pictures[0], pictures[1]
    assert (panel.width, panel.height, cut.width, cut.height) == (128, 96, 128, 128)
    frame = next(item for item in items if isinstance(item, Lines))
    (left, top), (right, bottom) = frame.points[0], frame.points[2]
    assert (left - panel.x, top - panel.y) == (32, 16)  # 8 and 4 px of 32×24, four times as large
    assert (right - left, bottom - top) == (64, 64)
    expected = images.resize(photo[..., 4:20, 8:24], (128, 128)).clamp(0, 1)[0]
    assert torch.equal(cut.image, expected)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--inset", "20,4,16"), "16 px from 20,4 leave the picture, which is 32×24 px"),
        (("--inset", "0,9,16"), "leave the picture"),
        (("--inset", "1,2"), "expected X,Y,SIZE in px"),
        (("--inset", "1,2,0"), "expected X,Y,SIZE in px"),
        (("--add", "smoth"), "'smoth' cannot be added; the closest are smooth"),
        (("--add", "smooth,,natural"), "expected names, such as smooth,laplacian"),
        (("--add", "smooth,smooth"), "added twice"),
        (("--add", "clip"), "clip is off in the preset phosphene; say how much, --clip VALUE"),
        (("--preset", "gogle2015"), "the closest are google2015"),
        (("--objective", "thrid"), "'thrid'"),
    ],
)
def test_panels_that_cannot_be(flags: tuple[str, ...], told: str, say: Say) -> None:
    goal = () if "--objective" in flags else ("--objective", "second")
    words = ("panels", "photo.png", *NETWORK, *goal, "--steps", 1, *flags, "-o", "out.png")
    refused(say(*words), told)


def test_panels_are_made_again_from_their_recipe(say: Say) -> None:
    flags = ("--objective", 'guide(second, "lake.png")', "--add", "natural", "--inset", "2,2,8")
    done = say("panels", "photo.png", *NETWORK, "--steps", 1, *flags, "--data", "page.json")
    assert (done.code, done.out) == (0, "photo-panels.png\npage.json\n"), done
    assert json.loads(Path("page.json").read_text())["panels"][-1] == "+ natural 0.5"
    done = say(*REPLAY, "photo-panels.png")
    assert done.out.startswith("photo-panels.png: the same, pixel for pixel"), done


# The page -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "side", "columns"), [(1, 288, 1), (4, 288, 4), (5, 288, 3), (10, 288, 4), (24, 96, 8)]
)
def test_a_row_wraps_into_even_rows(count: int, side: float, columns: int) -> None:
    assert wrapped_columns(count, side) == columns


@pytest.mark.parametrize("side", [96, 288])
def test_no_words_of_a_page_overlap_or_leave_it(side: int) -> None:
    from phosphene.explain.pages import text_width

    long = "guide(mixed4c, a-picture-of-very-many-words.jpg) + 2*mixed4d:42"
    cells = [PageCell(torch.rand(3, 20 + 9 * (k % 2), 32), f"{k} {long}") for k in range(6)]
    page = cells_page(long * 3, long, cells, columns=3, cell=side, column_heads=[long, "b", long],
                      row_heads=[long, "short"], footer=long * 2)  # fmt: skip
    boxes = []
    for item in page.items:
        if isinstance(item, Text):
            wide = text_width(item.text, item.size)
            left = item.x - (wide / 2 if item.anchor == "middle" else 0)
            boxes.append((left, item.y - 0.75 * item.size, left + wide, item.y + 0.2 * item.size))
            assert item.size >= 11
        elif isinstance(item, ImageItem):
            boxes.append((item.x, item.y, item.x + item.width, item.y + item.height))
    for left, top, right, bottom in boxes:
        assert left >= 0
        assert top >= 0
        assert right <= page.width + 1e-6
        assert bottom <= page.height
    for k, one in enumerate(boxes):
        for other in boxes[k + 1 :]:
            apart = (
                one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
            )
            assert apart, (one, other)
    assert as_image(page).size == (int(-(-page.width // 1)), int(-(-page.height // 1)))


def test_a_cell_without_a_picture_says_so() -> None:
    cells = [PageCell(None, "first:0", "dead"), PageCell(torch.zeros(3, 8, 8), "first:1")]
    page = cells_page("toy", "", cells, columns=2)
    assert "dead" in [item.text for item in page.items if isinstance(item, Text)]


def test_both_are_declared_alone() -> None:
    for name in ("grid", "panels"):
        recipe = recipe_named(name)
        assert recipe.output == "page"
        assert recipe.schema()["settings"]["properties"]
    with pytest.raises(SettingsError, match="nothing changes"):
        checked(GridSettings, {})
    with pytest.raises(PhospheneError, match="dream has no 'stepps'"):
        ph.grid(images.load_image("photo.png"), toy_network.net(), across={"stepps": [1, 2]})
    assert "mixed4c" not in words(ph.panels(images.load_image("photo.png"), toy_network.net(),
                                            "first", steps=1, octaves=1, **ON))  # fmt: skip
