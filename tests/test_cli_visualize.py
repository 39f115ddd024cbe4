"""`visualize`, `caricature`, `invert`, `accentuate`, `style` on the command line, and replay."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from phosphene import image as images
from phosphene.cli import main
from phosphene.errors import RecipeError
from phosphene.image import GRID_GAP, grid
from phosphene.jobs.outputs import file_name, picture_names
from phosphene.jobs.replayer import find_network
from phosphene.manifest import Manifest
from phosphene.recipes.base import recipe_named
from phosphene.recipes.caricature import caricature
from phosphene.recipes.visualize import AscentSettings, visualize
from tests import command, toy_network
from tests.test_cli import picture

NET = ("--network", "tests.toy_network:net")
TINY = {"size": 24, "steps": 3, "device": "cpu", "precision": "fp32"}
FLAGS = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
# Of the toy network: these channels fire, and these two never do.
UNIT, OTHER, DEAD, DEAD_TOO = "second:3", "first:3", "second:5", "second:2"
VERBS = {
    "visualize": (UNIT,),
    "caricature": ("photo.png",),
    "invert": ("photo.png",),
    "accentuate": ("photo.png", UNIT),
    "style": ("photo.png", "painting.png"),
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a photo and a painting, and in it."""
    picture(tmp_path / "photo.png", (24, 32), mode="RGBA")
    picture(tmp_path / "painting.png", (30, 20), seed=1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    return tmp_path


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Any:
    def said(*words: object, net: tuple[str, ...] = NET, tiny: bool = True) -> command.Done:
        capsys.readouterr()
        flags = [w for flag in zip(FLAGS[::2], FLAGS[1::2], strict=True)
                 if flag[0] not in words for w in flag]  # fmt: skip
        more = [*net, *(flags if tiny else ())] if words[0] != "replay" else net
        cut = words.index("--") if "--" in words else len(words)
        code = main([*map(str, words[:cut]), *more, *map(str, words[cut:])])
        shown = capsys.readouterr()
        return command.Done(code, shown.out, shown.err)

    return said


def files() -> set[str]:
    return {path.name for path in Path().iterdir()} - {"photo.png", "painting.png"}


def pixels(name: str) -> np.ndarray:
    return np.asarray(Image.open(name).convert("RGB"))


# --- what is written -------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_writes_what_its_recipe_says(verb: str, say: Any) -> None:
    name = "second-3.png" if verb == "visualize" else f"photo-{verb}.png"
    done = say(verb, *VERBS[verb], "--seed", 2)
    assert (done.code, done.out) == (0, f"{name}\n"), done
    assert files() == {name}
    assert f"step 3/3  24×{24 if verb == 'visualize' else 18}  score" in done.err
    assert "octave" not in done.err
    manifest = Manifest.read(name)
    model = recipe_named(verb).settings
    assert manifest.recipe == verb
    assert manifest.settings == model(**TINY, seed=2).model_dump(mode="json")  # pyright: ignore[reportCallIssue]
    assert manifest.machine.precision == "fp32"
    wants_photo = [word.removesuffix(".png") for word in VERBS[verb] if word.endswith(".png")]
    assert sorted(manifest.inputs) == sorted(wants_photo)
    assert manifest.plan == (None,)
    assert b"tests/" not in Path(name).read_bytes()
    transparent = Image.open(name).mode == "RGBA"
    assert transparent == (verb in ("accentuate", "style"))
    # The same again, and never over what is there.
    again = say(verb, *VERBS[verb], "--seed", 2, "-o", "again.png", "--quiet")
    assert again == command.Done(0, "", "")
    assert Path(name).read_bytes() == Path("again.png").read_bytes()
    done = say(verb, *VERBS[verb], "--seed", 3, "-o", name)
    assert (done.code, done.out) == (1, "")
    assert "already there" in done.err
    done = say("replay", name)
    assert (done.code, done.out) == (0, f"{name}: the same, pixel for pixel\n"), done
    # With other settings it is another picture, and is said to be.
    text = json.loads(manifest.text())
    text["settings"]["learning_rate"] = 0.5
    Path("changed.json").write_text(json.dumps(text))
    done = say("replay", "changed.json", "-o", "changed.png")
    assert done.code == 3, done
    assert "different" in done.out
    assert not np.array_equal(pixels(name), pixels("changed.png"))


def test_it_is_what_the_function_gives(say: Any) -> None:
    assert say("visualize", UNIT, "--negative").code == 0
    expected = visualize(toy_network.net(), f"-{UNIT}", **TINY)
    assert np.array_equal(pixels("second-3-negative.png"), images.to_uint8(expected))
    manifest = Manifest.read("second-3-negative.png")
    assert (manifest.objectives, manifest.part) == ((f"-{UNIT}",), None)
    assert say("visualize", "-o", "minus.png", "--", f"-{UNIT}").code == 0
    assert Path("minus.png").read_bytes() == Path("second-3-negative.png").read_bytes()
    photo = images.load_image("photo.png")
    words = ("caricature", "photo.png", "--layer", "second", "--power", 2, "-o", "c.png")
    assert say(*words).code == 0
    expected = caricature(photo, toy_network.net(), "second", power=2, **TINY)
    assert np.array_equal(pixels("c.png"), images.to_uint8(expected))


def test_a_class_by_its_name(say: Any) -> None:
    assert say("visualize", "logits:dog").code == 0
    assert say("visualize", "logits:1").code == 0
    assert np.array_equal(pixels("logits-dog.png"), pixels("logits-1.png"))


def test_several_pictures_lie_side_by_side_or_apart(say: Any) -> None:
    words = ("visualize", UNIT, OTHER, "--batch", 2)
    assert say(*words).out == "visualize.png\n"
    sheet = pixels("visualize.png")
    side = 2 * 24 + GRID_GAP
    assert sheet.shape == (side, side, 3)
    done = say(*words, "-o", "{}.png", "--recipe", "{}.json")
    names = ["second-3-1.png", "second-3-2.png", "first-3-1.png", "first-3-2.png"]
    assert done.out.splitlines() == names
    for k, name in enumerate(names):
        top, left = k // 2 * (24 + GRID_GAP), k % 2 * (24 + GRID_GAP)
        part = pixels(name)
        assert np.array_equal(part, sheet[top : top + 24, left : left + 24]), name
        manifest = Manifest.read(name)
        assert manifest.part == k + 1
        assert manifest.objectives == (UNIT, OTHER)
        assert Manifest.read(Path(name).with_suffix(".json")) == manifest
    assert len({pixels(name).tobytes() for name in names}) == 4
    for name in ("visualize.png", names[2]):
        assert say("replay", name).code == 0
    done = say(*words, "-o", "{}.png", "--force", "--recipe", "one.json")
    assert (done.code, "one recipe a picture" in done.err) == (2, True)
    # One of the four is in the way: none is written.
    for name in names[:3]:
        Path(name).unlink()
    done = say(*words, "-o", "{}.png")
    assert (done.code, "first-3-2.png" in done.err) == (1, True)
    assert not Path(names[0]).exists()


def test_layers_get_a_picture_each(say: Any) -> None:
    words = ("invert", "photo.png", "--layer", "first", "--layer", "second")
    assert say(*words, "-o", "{}.png").out == "first.png\nsecond.png\n"
    assert Manifest.read("second.png").layers == ("first", "second")
    assert say("replay", "second.png").code == 0
    # Without a name it is one of the network's own.
    assert say("invert", "photo.png", "-o", "{}.webp").code == 0
    (name,) = (n for n in files() if n.endswith(".webp"))
    assert Manifest.read(name).layers == (name.removesuffix(".webp"),)


@pytest.mark.parametrize(
    ("count", "columns", "shape"),
    [
        (1, None, (6, 8)),
        (4, None, (16, 20)),
        (5, None, (16, 32)),
        (6, 6, (6, 68)),
        (3, 2, (16, 20)),
    ],
)
def test_a_grid(count: int, columns: int | None, shape: tuple[int, int]) -> None:
    pictures = torch.arange(count * 3 * 6 * 8).view(count, 3, 6, 8).float() / 1e4
    sheet = grid(pictures, columns=columns)
    assert tuple(sheet.shape[-2:]) == shape
    # Every picture is there once and all else is white.
    assert float(sheet.sum()) == pytest.approx(
        float(pictures.sum()) + 3 * (shape[0] * shape[1] - count * 48)
    )
    assert torch.equal(sheet[0, :, :6, :8], pictures[0])


def test_names_of_files() -> None:
    assert file_name("2*mixed4b + mixed4d:42,17") == "2-mixed4b-mixed4d-42-17"
    assert file_name('style(a, "../../x/y.png")') == "style-a-..-..-x-y.png"
    assert file_name("-a:1") == "a-1-negative"
    assert file_name("***") == "picture"
    assert len(file_name("a" * 500)) == 60
    names = picture_names(["a:1", "a-1", "b"], 2)
    assert names == ["a-1-1-1", "a-1-1-2", "a-1-2-1", "a-1-2-2", "b-1", "b-2"]


def test_a_picture_of_an_objective_is_an_input(say: Any) -> None:
    done = say("visualize", 'style(first, "painting.png")', "-o", "out.png")
    assert done.code == 0, done
    assert set(Manifest.read("out.png").inputs) == {"painting.png"}
    assert say("replay", "out.png").code == 0
    painting = Path("painting.png").read_bytes()
    words = ("visualize", 'style(first, "painting.png")', "-o", "painting.png", "--force")
    assert say(*words).code == 2
    assert say("style", "photo.png", "painting.png", "-o", "painting.png", "--force").code == 2
    assert say("accentuate", "photo.png", UNIT, "-o", "photo.png", "--force").code == 2
    assert Path("painting.png").read_bytes() == painting


def test_a_start_is_an_input_too(say: Any) -> None:
    words = ("visualize", UNIT, "--start", "photo.png", "--steps", 1, "-o", "out.png")
    assert say(*words, "--learning-rate", 0.001).code == 0
    manifest = Manifest.read("out.png")
    assert (manifest.start, set(manifest.inputs)) == (None, {"photo"})
    start = images.resize(images.load_image("photo.png"), (18, 24))
    apart = pixels("out.png").astype(float) / 255 - images.to_uint8(start) / 255
    assert abs(apart).mean() < 0.05
    assert say("replay", "out.png").code == 0


# --- dead units ------------------------------------------------------------------------------


def test_a_dead_unit_is_told_and_not_drawn(say: Any) -> None:
    done = say("visualize", DEAD)
    assert (done.code, done.out) == (1, "")
    told = [line for line in done.err.splitlines() if "dead;" in line]
    assert told == [f"phosphene: {DEAD} gives no gradient in 3 steps: dead; nothing was written"]
    done = say("visualize", DEAD, DEAD_TOO)
    assert (done.code, f"{DEAD} and {DEAD_TOO} give no" in done.err) == (1, True)
    assert files() == set()


def test_among_others_a_dead_unit_is_grey(say: Any) -> None:
    done = say("visualize", UNIT, DEAD)
    assert (done.code, done.out) == (0, "visualize.png\n")
    told = [line for line in done.err.splitlines() if "dead, and" in line]
    assert told == [f"note: {DEAD} gives no gradient: dead, and left grey"]
    assert np.all(pixels("visualize.png")[:, 24 + GRID_GAP :] == 128)
    assert pixels("visualize.png")[:, :24].std() > 1


MACO = ("--parameterization", "maco", "--size", 32)


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "jpg"])
def test_a_mask_is_written_where_it_is_asked_for(suffix: str, say: Any) -> None:
    name = f"masked.{suffix}"
    done = say("visualize", UNIT, *MACO, "--transparent", "-o", name)
    assert done.code == 0, done
    assert Manifest.read(name).settings["transparent"]
    assert say("visualize", UNIT, *MACO, "-o", "plain.png").code == 0
    assert not Manifest.read("plain.png").settings["transparent"]
    assert Manifest.read(name).result == Manifest.read("plain.png").result
    given: dict[str, Any] = TINY | {"size": 32, "parameterization": "maco"}
    *_, step = visualize.steps(toy_network.net(), UNIT, **given)
    mask = step.transparency()
    assert mask is not None
    expected = (mask[0, 0] * 255).round().numpy()
    assert expected.std() > 10
    written = Image.open(name)
    if suffix == "jpg":
        assert written.mode == "RGB"
        assert "laid over white" in done.err
        over = pixels("plain.png") * (expected / 255)[..., None] + (255 - expected[..., None])
        assert abs(pixels(name) - over).mean() < 3
    else:
        assert np.array_equal(np.asarray(written.getchannel("A")), expected)
        assert suffix == "webp" or np.array_equal(pixels(name), pixels("plain.png"))
    assert say("replay", name).out == f"{name}: the same, pixel for pixel\n"
    if suffix != "png":
        return
    # The mask is looked at, too.
    expected[5, 6] = abs(expected[5, 6] - 30)
    text = images.read_recipe(name)
    picture = images.load_image(name)
    alpha = torch.from_numpy(expected)[None, None] / 255
    images.save_image(picture, "edited.png", alpha=alpha, recipe=text)
    done = say("replay", "edited.png")
    assert done.code == 3, done
    assert "the file's own pixels differ by at most 30 of 255 levels" in done.out


def test_masks_lie_side_by_side_as_their_pictures_do(say: Any) -> None:
    dead = "second:0"  # of natural magnitudes, too
    words = ("visualize", UNIT, dead, *MACO, "--transparent")
    assert say(*words, "-o", "a.png").code == 0
    alpha = np.asarray(Image.open("a.png").getchannel("A"))
    assert alpha.shape == (32, 2 * 32 + GRID_GAP)
    assert (alpha[:, 32 : 32 + GRID_GAP] == 0).all()
    assert (alpha[:, 32 + GRID_GAP :] == 255).all()  # grey, and all of it
    assert say(*words, "-o", "{}.png").out == "second-3.png\nsecond-0.png\n"
    alone = np.asarray(Image.open("second-3.png").getchannel("A"))
    assert np.array_equal(alone, alpha[:, :32])
    assert alone.std() > 10
    for name in ("a.png", "second-3.png"):
        assert say("replay", name).out == f"{name}: the same, pixel for pixel\n"


def test_only_maco_has_a_mask(say: Any) -> None:
    done = say("visualize", UNIT, "--transparent")
    assert (done.code, done.out) == (2, "")
    assert "transparent needs parameterization maco" in done.err
    # Nor has what a stranger's recipe says.
    assert say("visualize", UNIT, "-o", "a.png", "--recipe", "a.json").code == 0
    given = json.loads(Path("a.json").read_text())
    given["settings"]["transparent"] = True
    Path("a.json").write_text(json.dumps(given))
    done = say("replay", "a.json", "-o", "b.png")
    assert (done.code, "transparent needs parameterization maco" in done.err) == (1, True)
    settings = given["settings"] | {"parameterization": "maco"}
    Path("a.json").write_text(json.dumps(given | {"recipe": "invert", "settings": settings}))
    done = say("replay", "a.json")
    assert (done.code, "that names objectives" in done.err) == (1, True), done


# --- what goes wrong -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told", "code"),
    [
        (("visualize",), "nothing to draw: phosphene visualize OBJECTIVE", 2),
        (("visualize", "second:8"), "second has 8 channels, 0 to 7; there is no channel 8", 1),
        (("visualize", "logits:ta"), "toy has no class 'ta'", 1),
        (("visualize", "secnd:1"), "the closest are second", 1),
        (("visualize", "-second:1"), 'comes last, after --: -- "-second:1"', 2),
        (("visualize", "neuron(logits, 1, 0, 0)"), "logits gives a vector", 1),
        (("visualize", UNIT, "--size", "20", "--parameterization", "maco"), "32 px a side", 2),
        (("visualize", UNIT, "--size", "8"), "greater than or equal to 16 (given: 8)", 2),
        (("visualize", UNIT, "--batch", "4096", "--size", "4096"), "smaller batch or size", 2),
        (("visualize", UNIT, "--start", "no.png"), "there is no file 'no.png'", 1),
        (("visualize", UNIT, "--device", "cuda:99"), "not on this machine", 2),
        (("visualize", UNIT, "-o", "out.gif"), "unknown suffix '.gif'", 1),
        (("visualize", UNIT, "-o", "no/out.png"), "no folder 'no'", 1),
        (("caricature", "phto.png"), "the closest are photo.png", 1),
        (("caricature", "photo.png", "--layer", "thrd"), "toy has no layer 'thrd'", 1),
        (("accentuate", "photo.png"), "OBJECTIVE", 2),
        (("accentuate", "photo.png", UNIT, "--leash", "-1"), "leash: input should be", 2),
        (("style", "photo.png", "nix.png"), "there is no file 'nix.png'", 1),
        (
            ("style", "photo.png", "painting.png", "--style-layers", "logits"),
            "logits gives a vector of 3 channels",
            1,
        ),
        (("style", "photo.png", "painting.png", "--painting-size", "0"), "painting size is 0", 2),
    ],
)
def test_mistakes_are_told_in_a_line(
    words: tuple[str, ...], told: str, code: int, say: Any
) -> None:
    done = say(*words, tiny="--size" not in words)
    assert (done.code, done.out) == (code, ""), done
    assert done.err.splitlines()[-1].startswith("phosphene: ")
    assert told in done.err.splitlines()[-1], done
    assert files() == set()


def test_a_network_that_gives_no_gradient(say: Any, here: Path) -> None:
    (here / "cut.py").write_text(
        "from torch import nn\n"
        "class Cut(nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x.detach() * 2\n"
        "def net():\n"
        "    return nn.Sequential(Cut(), nn.Conv2d(3, 4, 3))\n"
    )
    words = ["visualize", '"1":0', "--network", "cut:net", "--size", "32", "--steps", "1"]
    done = say(*words, net=(), tiny=False)
    assert done.code == 1
    assert "gives no gradient from 1 to the picture" in done.err.splitlines()[-1]


def test_an_ascent_that_leaves_the_numbers_keeps_the_last_good_picture(say: Any) -> None:
    net = ("--network", "tests.toy_network:explosive")
    words = ("visualize", "growth", "--learning-rate", 1, "--parameterization", "pixels")
    done = say(*words, "--size", 24, "--precision", "fp32", "--device", "cpu", net=net, tiny=False)
    assert done.code == 1, done
    assert "no longer a finite number" in done.err
    assert "the picture so far is in 'growth.png'" in done.err
    manifest = Manifest.read("growth.png")
    assert manifest.ended
    assert manifest.ended.why == "not finite"
    assert say("replay", "growth.png", net=net).code == 0


# --- processes -------------------------------------------------------------------------------


def test_ctrl_c_keeps_the_picture_so_far(here: Path) -> None:
    words = ("visualize", UNIT, OTHER, *NET, *FLAGS[:2], *FLAGS[4:], "--steps", 100_000)
    running = command.start(*words, "-o", "out.png", cwd=here, terminal=True)
    running.wait_for(lambda: "step 2" in running.err)
    running.interrupt()
    done = running.done()
    assert (done.code, done.out) == (130, ""), done
    assert files() == {"out.png"}
    manifest = Manifest.read("out.png")
    assert manifest.ended
    assert manifest.ended.why == "interrupted"
    last = done.err.splitlines()[-1]
    assert f"interrupted after step {manifest.ended.step}; the picture so far is in" in last
    again = command.run("replay", *NET, "out.png", cwd=here)
    assert again.code == 0, again


def test_help_comes_without_torch() -> None:
    code = f"""
import sys
from phosphene.cli import main
for verb in {list(VERBS)}:
    assert main([verb, "--help"]) == 0
assert main(["visualize", "--steps", "0", "a"]) == 2
heavy = {{"torch", "numpy", "PIL", "torchvision", "lark"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    for verb in VERBS:
        assert f"phosphene {verb} " in done.stdout
    for name in AscentSettings.model_fields:
        assert done.stdout.count(f"--{name.replace('_', '-')} ") >= len(VERBS)


# --- recipes ---------------------------------------------------------------------------------


def test_recipes_name_what_they_need(say: Any) -> None:
    assert say("caricature", "photo.png", "--layer", "second").code == 0
    given = json.loads(Manifest.read("photo-caricature.png").text())
    assert "objective" not in given
    for changes, told in [
        ({"layers": []}, "a recipe of caricature that names no layers"),
        ({"inputs": {}}, "names no photo"),
        ({"recipe": "dream", "layers": []}, "a recipe of dream that names no objective"),
        ({"recipe": "dream", "objectives": ["a"]}, "a recipe of dream that names layers"),
        ({"recipe": "nothing"}, "no recipe 'nothing'; there are accentuate, caricature"),
        ({"part": 0}, "is damaged: part"),
    ]:
        Path("recipe.json").write_text(json.dumps(given | changes))
        done = say("replay", "recipe.json")
        assert (done.code, told in done.err) == (1, True), done
    Path("recipe.json").write_text(json.dumps(given | {"part": 2}))
    done = say("replay", "recipe.json")
    assert (done.code, "is of picture 2, and there are 1" in done.err) == (1, True), done


def test_a_recipe_from_before_there_were_others_reads() -> None:
    old = """{"format":1,"phosphene":"0.1.0","recipe":"dream","network":{"name":"dreamnet",
    "fingerprint":"%s"},"objective":"mixed4c","start":"sky","settings":{"steps":2},"inputs":{},
    "result":{"width":4,"height":4,"sha256":"%s"},"versions":{"python":"3.11"},"machine":{
    "device":"cpu","precision":"fp32","threads":1,"architecture":"x86_64","instructions":"AVX2"}}
    """ % ("0" * 64, "0" * 64)  # noqa: UP031
    manifest = Manifest.parse(old)
    assert manifest.objectives == ("mixed4c",)
    assert manifest.checked_settings().model_dump()["steps"] == 2


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("resnet18:IMAGENET1K_V1", "starts no download by itself"),
        ("vgg16:random", ""),
        ("resnet18s:net", "may be code"),
    ],
)
def test_weights_behind_a_colon_are_no_code(name: str, told: str, say: Any) -> None:
    assert say("visualize", UNIT).code == 0
    manifest = Manifest.read("second-3.png")
    used = manifest.network.model_copy(update={"name": name})
    changed = manifest.model_copy(update={"network": used})
    if told:
        with pytest.raises(RecipeError, match=told):
            find_network(changed, [])
    else:
        assert find_network(changed, []) == name


def test_several_pictures_are_counted_on_the_way() -> None:
    steps = visualize.steps(toy_network.net(), [UNIT, OTHER], **TINY)
    assert next(steps).text.startswith("step 1/3  2 of 24×24  score ")
