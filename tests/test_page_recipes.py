"""Pages carry their recipe, and are made again from it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from phosphene import image as images
from phosphene.errors import RecipeError
from phosphene.explain import cells, layout, pages, sheets
from phosphene.explain.cells import Cell, render_cells
from phosphene.explain.units import find_unit
from phosphene.manifest import Manifest
from phosphene.manifest import schema as m
from phosphene.manifest.capture import folder_of, result_of
from phosphene.manifest.hashes import file_hash
from phosphene.network import Network, precision
from phosphene.objectives import parse, quoted
from phosphene.recipes.base import recipe_named
from phosphene.recipes.sheet import SheetSettings, sheet
from phosphene.recipes.unit import unit_card
from phosphene.settings import checked
from tests import command, toy_network
from tests.command import Say
from tests.photos import small_photo

TOY = "tests.toy_network:net"
FLAGS = ("--size", 24, "--steps", 3, "--device", "cpu", "--precision", "fp64")
TINY: dict[str, Any] = {"size": 24, "steps": 3, "device": "cpu", "precision": "fp64"}
SHEET = ("sheet", TOY, "first", "--channels", "5,2-3", *FLAGS)  # none of them dead
UNIT = ("unit", TOY, "second:3", "--pictures", "pictures", "--seeds", 1, "--shown", 2, *FLAGS)
REPLAY = ("replay", "--network", TOY)


@pytest.fixture(autouse=True)
def here(workplace: Path) -> Path:
    """A folder with a photo and a folder of pictures, one of which is damaged, and in it."""
    small_photo(workplace / "photo.png", 0)
    (workplace / "pictures" / "within").mkdir(parents=True)
    for seed, name in enumerate(["b.png", "a.png", "within/c.png"]):
        small_photo(workplace / "pictures" / name, seed)
    (workplace / "pictures" / "damaged.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    return workplace


def same(done: command.Done, name: str) -> bool:
    return (done.code, done.out.splitlines()[:1]) == (0, [f"{name}: the same, pixel for pixel"])


def refused(done: command.Done, *told: str) -> None:
    assert (done.code, done.out) == (1, ""), done
    line = done.err.strip().splitlines()[-1]
    assert line.startswith("phosphene: ")
    assert all(words in line for words in told), line


# What is written, and made again ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "suffix"),
    [*(("sheet", s) for s in ("png", "jpg", "webp", "tif", "svg", "json")),
     ("unit", "png"), ("unit", "svg"), ("unit", "json")],
)  # fmt: skip
def test_a_page_is_made_again_from_its_recipe(verb: str, suffix: str, say: Say) -> None:
    name = f"page.{suffix}"
    words = {"sheet": SHEET, "unit": UNIT}[verb]
    done = say(*words, "-o", name, "--recipe", "recipe.json")
    assert (done.code, done.out) == (0, f"{name}\n"), done
    manifest = Manifest.read(name)
    assert Manifest.read("recipe.json") == manifest
    assert (manifest.recipe, manifest.network.name) == (verb, TOY)
    assert manifest.machine.precision == "fp64"
    # Complete, and what was auto is as it was settled.
    model = recipe_named(verb).settings
    chosen = {"learning_rate": 0.1, **TINY}
    chosen |= {"seeds": 1, "shown": 2} if verb == "unit" else {"channels": (5, 2, 3)}
    assert manifest.settings == model(**chosen).model_dump(mode="json")
    if verb == "sheet":
        assert (manifest.layers, manifest.objectives) == (("first",), ())
    else:
        assert manifest.objectives == ("second:3",)
        assert manifest.inputs == {"pictures": folder_of("pictures")}
    # The hash is that of the page as pixels, whatever the file is.
    assert say(*words, "-o", "pixels.png").code == 0
    pixels = np.asarray(Image.open("pixels.png"))
    assert manifest.result == m.Result(
        width=pixels.shape[1],
        height=pixels.shape[0],
        sha256=hashlib.sha256(pixels.tobytes()).hexdigest(),
    )
    done = say(*REPLAY, name)
    assert same(done, name), done
    assert ("3/3 cells" if verb == "sheet" else "drawn") in done.err
    assert same(say(*REPLAY, "recipe.json", "-o", f"again.{suffix}"), "recipe.json")
    assert Path(f"again.{suffix}").read_bytes() == Path(name).read_bytes()
    if verb == "sheet":
        done = say(*REPLAY, name, "-o", "other.svg", "--quiet")
        assert (done.code, done.out, done.err) == (0, "", "")


def test_what_is_auto_is_written_as_it_was_settled(say: Say) -> None:
    Path("small_field.py").write_text(
        "from tests.test_page_recipes import named\ndef net():\n    return named('a', 96)\n"
    )
    words = ("--channels", 0, "--steps", 2, "-o", "a.png")
    assert say("sheet", "small_field:net", "a", *words).code == 0
    settings = Manifest.read("a.png").settings
    assert (settings["size"], settings["transforms"]) == (cells.LEAST_SIDE, "gentle")
    assert settings["learning_rate"] == 0.1
    assert same(say("replay", "--network", "small_field:net", "a.png"), "a.png")


def test_a_sheet_of_all_names_no_channels(say: Say) -> None:
    assert say("sheet", TOY, "logits", *FLAGS, "-o", "a.png").code == 0
    manifest = Manifest.read("a.png")
    assert not {"objectives", "inputs"} & set(json.loads(manifest.text()))
    assert (manifest.settings["channels"], manifest.settings["top"]) == (None, None)
    assert same(say(*REPLAY, "a.png"), "a.png")


def test_what_is_cached_proves_nothing(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    assert say(*SHEET, "-o", "a.png").code == 0

    def load(*_: object) -> None:
        raise AssertionError("a replay looked for a cached cell")

    before = {path: path.read_bytes() for path in Path("cache").rglob("*.png")}
    assert len(before) == 3
    monkeypatch.setattr(cells._CellCache, "load", load)
    assert same(say(*REPLAY, "a.png"), "a.png")
    assert {path: path.read_bytes() for path in Path("cache").rglob("*.png")} == before


def test_the_recipe_says_what_drew_it_kept_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_fast_bf16", lambda device: True)
    monkeypatch.setattr(Network, "_agrees", lambda *_: True)
    some = [Cell("second", 0), Cell("second", 1)]
    chosen = checked(SheetSettings, TINY | {"precision": "auto"})
    assert [s.network.precision for s in render_cells(toy_network.net(), some, chosen)] == [
        "bf16"
    ] * 3
    # A second look asks nobody, and says what drew it and not what would.
    monkeypatch.setattr(precision, "has_fast_bf16", lambda device: False)
    monkeypatch.setattr(Network, "_agrees", lambda *_: 1 / 0)
    (step,) = render_cells(toy_network.net(), some, chosen)
    assert (step.cached, step.network.precision, step.network.device.type) == (2, "bf16", "cpu")


def test_a_recipe_is_no_more_than_it_was(say: Say) -> None:
    # Of a dream, as before there were pages.
    words = ("dream", "--start", "noise", "--size", 16, "--octaves", 1, "--steps", 1)
    assert say(*words, "--network", TOY, "--objective", "second", "-o", "a.png").code == 0
    assert list(json.loads(Manifest.read("a.png").text())) == [
        "format", "phosphene", "numerics", "recipe", "network", "objectives", "start", "size",
        "settings", "result", "plan", "versions", "machine",
    ]  # fmt: skip


# What it is made of -------------------------------------------------------------------------------


def test_the_photo_of_a_sheet_is_an_input(say: Say, here: Path) -> None:
    words = ("sheet", TOY, "second", "--top", 2, "photo.png", *FLAGS)
    assert say(*words, "-o", "a.webp").code == 0
    manifest = Manifest.read("a.webp")
    assert (manifest.settings["top"], manifest.settings["channels"]) == (2, None)
    used = manifest.inputs["photo"]
    assert isinstance(used, m.Input)
    assert (used.name, used.width, used.height, used.size) == ("photo.png", 32, 24, None)
    assert same(say(*REPLAY, "a.webp"), "a.webp")
    Path("elsewhere").mkdir()
    shutil.move("photo.png", "elsewhere/sky.png")
    refused(say(*REPLAY, "a.webp"), "'photo.png', the recipe's photo, is not in", "--input photo=")
    where = "photo=elsewhere/sky.png"
    assert same(say(*REPLAY, "a.webp", "--input", where), "a.webp")
    small_photo(here / "photo.png", 7)
    refused(say(*REPLAY, "a.webp"), "is not the recipe's photo", "--anyway")
    done = say(*REPLAY, "a.webp", "--anyway", "-o", "b.png")
    assert done.code == 3, done
    assert f"photo {used.sha256[:12]}… -> {file_hash(here / 'photo.png')[:12]}…" in done.out
    assert "taken as photo, though it is another picture" in done.err
    assert same(say(*REPLAY, "b.png"), "b.png")


def test_a_folder_is_known_by_its_pictures(say: Say, here: Path) -> None:
    assert say(*UNIT, "-o", "a.json").code == 0
    used = Manifest.read("a.json").inputs["pictures"]
    assert isinstance(used, m.Folder)
    assert (used.name, used.count) == ("pictures", 4)
    assert str(here) not in Manifest.read("a.json").text()
    # Beside the file, in the current folder, or where it is said to be.
    Path("other").mkdir()
    shutil.copy("a.json", "other/a.json")
    assert same(say(*REPLAY, "other/a.json"), "other/a.json")
    shutil.move("pictures", "other/pictures")
    assert same(say(*REPLAY, "other/a.json"), "other/a.json")
    told = ("'pictures', the recipe's folder of pictures, is not in", "--input pictures=PATH")
    refused(say(*REPLAY, "a.json"), *told)
    given = ("--input", "pictures=moved")
    shutil.move("other/pictures", "moved")
    assert same(say(*REPLAY, "a.json", *given), "a.json")
    refused(say(*REPLAY, "a.json", "--input", "pictures=none"), "there is no folder 'none'")
    refused(say(*REPLAY, "a.json", "--input", "photo=a.json"), "no input 'photo'")
    done = say(*REPLAY, "a.json", *given, "-o", "moved/b.png", "--force")
    assert (done.code, "never replaced" in done.err) == (2, True), done
    # Another picture in it.
    small_photo(here / "moved" / "within" / "c.png", 9)
    now = folder_of("moved")
    refused(
        say(*REPLAY, "a.json", *given),
        "'moved' is not the recipe's folder of pictures",
        now.sha256[:12],
        "--anyway",
    )
    done = say(*REPLAY, "a.json", *given, "--anyway", "-o", "b.svg")
    assert done.code == 3, done
    assert "its pictures are others" in done.err
    assert f"pictures {used.sha256[:12]}… -> {now.sha256[:12]}…" in done.out
    assert Manifest.read("b.svg").inputs["pictures"] == now
    assert same(say(*REPLAY, "b.svg"), "b.svg")


def test_the_hash_of_a_folder(here: Path) -> None:
    folder = here / "pictures"
    names = ["a.png", "b.png", "damaged.jpg", "within/c.png"]
    rows = [
        f"{name}\0{hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n" for name in names
    ]
    expected = hashlib.sha256("".join(rows).encode()).hexdigest()
    before = folder_of(folder)
    assert before == m.Folder(name="pictures", count=4, sha256=expected)
    # No more than pictures and their names.
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"x")
    os.utime(folder / "a.png", (0, 0))
    assert folder_of("pictures/within/..").sha256 == expected
    os.chdir(folder)
    assert folder_of(".") == before
    for change in (
        lambda: (folder / "a.png").rename(folder / "z.png"),
        lambda: (folder / "within").rename(folder / "without"),
        lambda: shutil.copy(folder / "b.png", folder / "b2.png"),
        lambda: (folder / "b2.png").unlink(),
    ):
        change()
        now = folder_of(folder)
        assert now.sha256 != before.sha256
        before = now


def test_what_is_no_regular_file_is_not_waited_for(here: Path, say: Say) -> None:
    os.mkfifo(here / "pictures" / "pipe.png")
    os.symlink("nowhere", here / "pictures" / "link.png")
    assert folder_of("pictures").count == 6
    assert say(*UNIT, "-o", "a.png").code == 0
    assert same(say(*REPLAY, "a.png"), "a.png")


def test_a_folder_whose_name_is_no_text(here: Path) -> None:
    try:
        folder = here / os.fsdecode(b"\xff")
        shutil.copytree("pictures", folder)
    except OSError:
        pytest.skip("this disk has no such names")
    assert folder_of(folder).name == "?"
    assert folder_of(folder).sha256 == folder_of("pictures").sha256


CHANGED = """
import torch
from tests import toy_network

def net():
    network = toy_network.net()
    with torch.no_grad():
        for values in network.module.parameters():
            values.add_(0.1)
    return toy_network.Network(
        network.module, input_size=32, classes=network.classes, name="toy", mean=(0.5,) * 3
    )
"""


@pytest.mark.parametrize(("verb", "suffix"), [("sheet", "svg"), ("unit", "png")])
def test_other_weights_are_another_page(verb: str, suffix: str, say: Say) -> None:
    name = f"a.{suffix}"
    assert say(*{"sheet": SHEET, "unit": UNIT}[verb], "-o", name).code == 0
    Path("changed_weights.py").write_text(CHANGED)
    refused(say("replay", name), "may be code")
    done = say("replay", name, "--network", "changed_weights:net")
    assert done.code == 3, done
    assert re.match(rf"{name}: different by at most [1-9]\d* of 255 levels", done.out)
    assert "weights " in done.out
    assert "are not the recipe's" in done.err


def test_another_version_is_on_the_page_and_no_other_drawing(say: Say) -> None:
    assert say(*SHEET, "-o", "a.svg").code == 0
    for name in ("old.png", "old.svg"):
        drawn = sheet(toy_network.net(), "first", [5, 2, 3], **TINY)
        old = replace(drawn, version="0.0.9")
        result = result_of(layout.pixels(old))
        manifest = Manifest.read("a.svg")
        assert manifest.result is not None
        assert result.sha256 != manifest.result.sha256
        recipe = manifest.model_copy(update={"phosphene": "0.0.9", "result": result})
        layout.save_page(old, Path(name), recipe=recipe.text())
        done = say(*REPLAY, name, "-o", "new.svg", "--force")
        assert same(done, name), done
        assert "phosphene 0.1.0" in Path("new.svg").read_text()
        assert same(say(*REPLAY, "new.svg"), "new.svg")


# The names of layers ------------------------------------------------------------------------------


def named(name: str, size: int = 16) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(OrderedDict({name: nn.Conv2d(3, 4, 3), "end": nn.ReLU()}))
    return Network(module, input_size=size, name="odd", copy=False)


@settings(max_examples=40)
@given(st.text(min_size=1).filter(lambda name: "." not in name and name not in ("end", "@image")))
def test_a_unit_of_any_layer_is_found_by_its_text(name: str) -> None:
    module = nn.Sequential()
    try:
        module.add_module(name, nn.Conv2d(3, 4, 3))
    except KeyError:  # PyTorch has attributes of that name
        return
    network = Network(module, input_size=16, name="odd", copy=False)
    text = parse(quoted(name) + ":3").text
    found, channel = find_unit(network, text)
    assert (found.name, channel) == (name, 3)
    (objective,) = [parse(text)]
    assert objective.layers == (name,)


def test_a_recipe_with_odd_names(say: Say, here: Path) -> None:
    name = 'a: <b>&"c"]]>'
    code = f"from tests.test_page_recipes import named\ndef net():\n    return named({name!r})\n"
    Path("odd_names.py").write_text(code)
    net = "odd_names:net"
    for suffix in ("png", "svg", "json"):
        unit, rows = f"unit.{suffix}", f"sheet.{suffix}"
        assert say("unit", net, f"{name}:3", *FLAGS, "-o", unit).code == 0
        assert Manifest.read(unit).objectives == ('"a: <b>&""c""]]>":3',)
        assert say("sheet", net, name, *FLAGS, "-o", rows).code == 0
        assert Manifest.read(rows).layers == (name,)
        for page in (unit, rows):
            assert same(say("replay", page, "--network", net), page)


def test_a_card_names_its_unit_as_an_objective_does() -> None:
    assert unit_card(named("odd name"), ("odd name", 2), seeds=1, **TINY).unit == '"odd name":2'
    assert unit_card(toy_network.net(), "dog", seeds=1, **TINY).unit == "logits:1"


# Files --------------------------------------------------------------------------------------------


def test_an_svg_holds_its_recipe_and_an_edited_one_is_told(say: Say) -> None:
    assert say(*SHEET, "-o", "a.svg").code == 0
    text = Path("a.svg").read_text()
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}metadata/{urn:phosphene:1.0/}recipe"
    assert root.findtext(space) == Manifest.read("a.svg").text()

    def replayed(changed: str) -> command.Done:
        Path("b.svg").write_text(changed)
        return say(*REPLAY, "b.svg")

    # A label, a picture, and one less.
    told = "b.svg: comes out as its recipe says, but the file itself differs"
    for edited in (
        text.replace(">5</text>", ">6</text>"),
        text.replace("<image ", "<!-- <image -->", 1),
        re.sub(r"(base64,iVBORw0KGgo)[^\"]*", r"\1", text, count=1),
    ):
        assert edited != text
        done = replayed(edited)
        assert (done.code, done.out.startswith(told)) == (3, True), done
    # Saved anew by a program that keeps the metadata, or that does not.
    ElementTree.register_namespace("", "http://www.w3.org/2000/svg")
    done = replayed(ElementTree.tostring(root, encoding="unicode", xml_declaration=True))
    assert (done.code, done.out.startswith(told)) == (3, True), done
    done = replayed(re.sub("<metadata>.*</metadata>", "", text))
    refused(done, "carries no recipe")
    refused(replayed(text[:-20]), "carries no recipe")
    refused(replayed("<!DOCTYPE svg>" + text), "is not a picture")
    refused(replayed('<?xml version="1.0"?><!DOCTYPE svg>' + text), "carries no recipe")


def test_pictures_of_an_svg_are_compared_as_pixels() -> None:
    drawn = sheet(toy_network.net(), "first", [2, 3], **TINY)
    text = layout.svg(drawn, '{"any": "recipe"}')
    assert layout.compare_svg(layout.svg(drawn), text) == (True, 0, 0.0)
    found = re.findall(r"data:image/png;base64,([^\"]*)", text)
    assert len(found) == 2

    def stored(pixels: np.ndarray) -> str:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG", compress_level=0)
        return text.replace(found[1], base64.b64encode(stream.getvalue()).decode())

    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(found[1]))))
    assert stored(pixels) != text
    assert layout.compare_svg(text, stored(pixels)) == (True, 0, 0.0)
    pixels[3, 4, 1] = (int(pixels[3, 4, 1]) + 7) if pixels[3, 4, 1] < 200 else 0
    before = np.array(Image.open(io.BytesIO(base64.b64decode(found[1])))).astype(int)
    most = int(abs(pixels.astype(int) - before).max())
    expected = (False, most, pytest.approx(most / (2 * pixels.size)))
    assert layout.compare_svg(text, stored(pixels)) == expected
    assert layout.compare_svg(text, stored(pixels[1:])) == (False, None, None)


def test_the_recipe_is_refused_where_it_cannot_be_written(say: Say) -> None:
    done = say(*SHEET, "-o", "a.svg", "--data", "a.json", "--recipe", "a.json")
    assert (done.code, "both to be 'a.json'" in done.err) == (2, True)
    done = say(*UNIT, "-o", "a.svg", "--recipe", "pictures/a.png", "--force")
    assert (done.code, "never replaced" in done.err) == (2, True)
    refused(say(*SHEET, "-o", "a.svg", "--recipe", "none/a.json"), "no folder")
    Path("there.json").touch()
    refused(say(*SHEET, "-o", "a.svg", "--recipe", "there.json"), "already there")
    assert not Path("a.svg").exists()


def test_data_without_a_recipe(say: Say) -> None:
    drawn = sheet(toy_network.net(), "second", [0], **TINY)
    layout.save_page(drawn, Path("a.json"))
    assert "recipe" not in json.loads(Path("a.json").read_text())
    refused(say(*REPLAY, "a.json"), "holds no recipe of phosphene")
    Path("deep.json").write_text('{"recipe":' * 100_000)
    refused(say(*REPLAY, "deep.json"), "holds no recipe of phosphene")


def test_cells_of_other_batches_may_be_why(say: Say) -> None:
    assert say(*SHEET, "-o", "a.json").code == 0
    data = json.loads(Path("a.json").read_text())
    data["recipe"]["result"]["sha256"] = "0" * 64
    Path("a.json").write_text(json.dumps(data))
    done = say(*REPLAY, "a.json")
    assert done.code == 3, done
    assert done.out.startswith("a.json: different (there is no picture beside the recipe")
    assert "versions and machine are as they were, but cells that another page had" in done.out


def test_a_page_too_large_for_pixels(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PIXEL_LIMIT", 1000)
    done = say(*SHEET, "-o", "a.svg")
    assert done.code == 0, done
    assert "the recipe is left out: a page of " in done.err
    refused(say(*REPLAY, "a.svg"), "carries no recipe")
    refused(say(*SHEET, "-o", "b.svg", "--recipe", "b.json"), "over the limit")
    refused(say(*SHEET, "-o", "b.png"), "over the limit")


def test_ctrl_c_writes_nothing(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    assert say(*SHEET, "-o", "a.png").code == 0
    plain = sheets.render_cells

    def interrupted(*args: Any, **kwargs: Any) -> Iterator[Any]:
        yield next(iter(plain(*args, **kwargs)))
        raise KeyboardInterrupt

    monkeypatch.setattr(sheets, "render_cells", interrupted)
    done = say(*REPLAY, "a.png", "-o", "b.png")
    assert (done.code, done.out) == (130, ""), done
    assert done.err.endswith("phosphene: interrupted, nothing was written\n")
    assert not Path("b.png").exists()


# Recipes of strangers -----------------------------------------------------------------------------


def test_what_a_stranger_may_not_ask(say: Say, here: Path) -> None:
    assert say(*SHEET, "-o", "a.json").code == 0
    assert say(*UNIT, "-o", "b.json").code == 0
    rows, unit = (json.loads(Manifest.read(name).text()) for name in ("a.json", "b.json"))
    shutil.copytree("pictures", here / "other" / "pictures")
    photo = {"name": "photo.png", "sha256": "0" * 64, "width": 1, "height": 1}
    folder, settings = unit["inputs"]["pictures"], rows["settings"]
    for recipe, changes, *told in [
        (unit, {"inputs": {"pictures": {**folder, "name": "../pictures"}}}, "is damaged: inputs"),
        (unit, {"inputs": {"pictures": {**folder, "name": ".."}}}, "not the bare name"),
        (unit, {"inputs": {"pictures": {**folder, "name": str(here)}}}, "not the bare name"),
        (unit, {"inputs": {"pictures": {**folder, "count": 0}}}, "is damaged: inputs.pictures"),
        (unit, {"inputs": {"pictures": {**folder, "sha256": "0"}}}, "is damaged: inputs"),
        (unit, {"inputs": {"pictures": {"name": "x"}}}, "is damaged: inputs.pictures"),
        (unit, {"objectives": ['guide(second, "/etc/x.png")']}, "unit 'guide(second, "),
        (unit, {"objectives": ["second:99"]}, "there is no channel 99"),
        (unit, {"objectives": ["second:1", "second:2"]}, "with 2 objectives"),
        (unit, {"objectives": []}, "names no objective"),
        (unit, {"inputs": {"photo": photo}}, "a recipe of unit with inputs photo"),
        (unit, {"channels": [1]}, "is damaged: channels"),
        (rows, {"settings": {**settings, "channels": [0, 99]}}, "there is no channel 99"),
        (rows, {"settings": {**settings, "channels": [-1]}}, "do not hold here: channels"),
        (rows, {"settings": {**settings, "channels": ["x"]}}, "do not hold here: channels"),
        (rows, {"settings": {**settings, "top": 2}}, "top and photo go together"),
        (rows, {"settings": {**settings, "top": 0}}, "do not hold here: top"),
        (rows, {"inputs": {"mask": photo}}, "a recipe of sheet with inputs mask"),
        (rows, {"start": "sky"}, "a recipe of sheet that starts from sky"),
        (rows, {"layers": []}, "names no layers"),
        (rows, {"layers": ["first", "second"]}, "with 2 layers"),
        (rows, {"layers": ["@image"]}, "a layer was expected"),
        (rows, {"inputs": {"pictures": folder}}, "a recipe of sheet with inputs pictures"),
        (rows, {"recipe": "visualize", "objectives": ["second"]}, "that names layers"),
        (rows, {"recipe": "xyzzy"}, "no recipe 'xyzzy'; there are accentuate"),
        (rows, {"settings": {**settings, "steps": 0}}, "settings do not hold here"),
        (rows, {"format": 3, "phosphene": "7.1"}, "was made by phosphene 7.1"),
        (rows, {"plugins": [{"name": "evil"}]}, "the recipe needs the plugin evil, which is not"),
    ]:  # fmt: skip
        changed = json.dumps(recipe | changes)
        Path("other/recipe.json").write_text(changed)
        refused(say(*REPLAY, "other/recipe.json"), *told)
        svg = f'<svg xmlns="http://www.w3.org/2000/svg">{images.recipe_element(changed)}</svg>'
        Path("other/recipe.svg").write_text(svg)
        refused(say(*REPLAY, "other/recipe.svg"), *told)
    for half in (json.dumps(rows)[:-9], "<svg>" + images.recipe_element(json.dumps(rows)[:-9])):
        Path("half.json").write_text(half)
        with pytest.raises(RecipeError):
            Manifest.read("half.json")


def test_a_long_version_is_not_put_on_a_page(say: Say) -> None:
    assert say(*SHEET, "-o", "a.json").code == 0
    recipe = json.loads(Manifest.read("a.json").text()) | {"phosphene": "0." + "1" * 200_000}
    Path("a.json").write_text(json.dumps(recipe))
    done = say(*REPLAY, "a.json")
    assert done.code == 3, done.code
