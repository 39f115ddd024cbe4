"""A recipe is declared once: everything else about it follows."""

from __future__ import annotations

import json
import math
import pickle
import pydoc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from pydantic import Field

import phosphene as ph
from phosphene.cli import main
from phosphene.engine import Ascent, Step, ascend
from phosphene.errors import ImageError, NetworkError, RecipeError, SettingsError
from phosphene.evaluation.whole import whole
from phosphene.jobs import InputFile, Request
from phosphene.manifest import Manifest
from phosphene.parameterization import Pixels
from phosphene.recipes import base
from phosphene.recipes.base import Arguments, ImageInput, Recipe, Subject, recipe_named, register
from phosphene.recipes.function import RecipeFunction, type_text
from phosphene.recipes.stubs import stub_text
from phosphene.recipes.style import style
from phosphene.settings import Settings
from tests import toy_network
from tests.on import DEVICE

NET = ("--network", "tests.toy_network:net")

# --- a recipe of one's own -------------------------------------------------------------------


class GlowSettings(Settings):
    """Every setting of a glow."""

    steps: int = Field(3, ge=1, le=100, description="Steps of the ascent.")
    strength: float = Field(0.1, gt=0, le=1, description="Size of a step.")


def glow_steps(arguments: Arguments) -> Iterator[Step]:
    s, network = arguments.settings, arguments.network
    pixels = Pixels(arguments.images["photo"])
    return ascend(
        pixels,
        whole(network, arguments.objectives[0].bound(network)),
        Ascent(pixels.parameters(), s.strength),
        steps=s.steps,
        generator=torch.Generator(),
    )


GLOW = Recipe(
    name="glow",
    summary="Make a photo glow.",
    settings=GlowSettings,
    steps=glow_steps,
    subject=Subject("objective", "What glows.", positional=True),
    inputs=(ImageInput("photo", "A photo.", required=True, positional=True),),
    output_name="{photo}-glow",
    examples=("glow sky.jpg mixed4c",),
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    Image.effect_noise((32, 24), 80).convert("RGB").save("photo.png")
    register(GLOW)
    yield tmp_path
    base.unregister("glow")


def test_a_declared_recipe_is_a_verb_with_help_progress_recipe_and_replay(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "glow" in shown
    assert "Make a photo glow." in shown
    assert main(["glow", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "PHOTO" in shown
    assert "--strength FLOAT" in shown
    assert "Size of a step; above 0 to 1. [default: 0.1]" in shown
    assert "phosphene glow sky.jpg mixed4c" in shown
    assert main(["glow", "photo.png", "second", *NET, "--strength", "0.3"]) == 0
    done = capsys.readouterr()
    assert done.out == "photo-glow.png\n"
    assert "step 3/3  32×24  score" in done.err
    manifest = Manifest.read("photo-glow.png")
    assert (manifest.recipe, manifest.objectives) == ("glow", ("second",))
    assert manifest.settings["strength"] == 0.3
    assert main(["replay", *NET, "photo-glow.png"]) == 0
    assert "the same, pixel for pixel" in capsys.readouterr().out
    assert main(["glow", "photo.png", "second", *NET, "--strength", "2", "-o", "b.png"]) == 2
    assert "strength" in capsys.readouterr().err
    saved = ["--save-request", "job.json", "-o", "c.png"]
    assert main(["glow", "photo.png", "second", *NET, "--strength", "0.3", *saved]) == 0
    assert Path("c.png").read_bytes() == Path("photo-glow.png").read_bytes()
    assert main(["run", "job.json", *NET, "-o", "d.png"]) == 0
    assert Path("d.png").read_bytes() == Path("c.png").read_bytes()


def test_a_name_is_loaded_and_a_bare_module_refused_by_every_function() -> None:
    photo, quick = torch.rand(1, 3, 24, 32), {"steps": 1, "device": DEVICE, "precision": "fp32"}
    named = ph.dream(photo, "dreamnet", "conv2", octaves=1, **quick)
    assert torch.equal(named, ph.dream(photo, ph.load_network(), "conv2", octaves=1, **quick))
    assert ph.caricature(photo, "dreamnet", size=32, **quick).shape[1] == 3  # its own layer
    bare = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
    calls = [
        lambda net: ph.dream(photo, net),
        lambda net: ph.visualize(net, "first"),
        lambda net: ph.style(photo, photo, net),
        lambda net: ph.invert(photo, net),
        lambda net: ph.sheet(net, "first"),
        lambda net: ph.unit_card(net, "first:0"),
    ]
    for call in calls:
        with pytest.raises(NetworkError, match=r"Sequential is a bare .*Network\(module, mean=…"):
            call(bare)
        with pytest.raises(NetworkError, match=r"the network is int; .*'dreamnet'"):
            call(3)
        with pytest.raises(NetworkError, match=r"dreamnt.*dreamnet"):
            call("dreamnt")


def test_a_picture_is_a_tensor_a_path_or_pillows(here: Path) -> None:
    net, quick = toy_network.net(), {"steps": 1, "device": DEVICE, "precision": "fp32"}
    photo = ph.load_image("photo.png")
    dreamt = ph.dream(photo, net, "second", octaves=1, **quick)
    for given in ("photo.png", here / "photo.png", Image.open("photo.png")):
        assert torch.equal(ph.dream(given, net, "second", octaves=1, **quick), dreamt)  # pyright: ignore[reportArgumentType]
    # A mask of half the size: white on the left.
    half = Image.new("L", (16, 12))
    half.paste(255, (0, 0, 8, 12))
    half.save("half.png")
    for mask in ("half.png", half, Path("half.png")):
        masked = ph.dream("photo.png", net, "second", mask=mask, octaves=1, **quick)
        assert torch.equal(masked[..., 24:], photo[..., 24:])
        torch.testing.assert_close(masked[..., :8], dreamt[..., :8])
        part = ph.dream(
            photo, net, regions=[(mask, "second")], rest="stay", octaves=1, jitter=0, **quick
        )
        assert torch.equal(part[..., 24:], photo[..., 24:])
        assert not torch.equal(part[..., :8], photo[..., :8])
    s = {"size": 16, "device": DEVICE, "precision": "fp32", "steps": 1, "transforms": "none"}
    layers = {"style_layers": ("first",), "content_layer": "second"}
    styled = ph.style("photo.png", Image.open("photo.png"), net, **layers, **s)
    assert torch.equal(styled, ph.style(photo, photo, net, **layers, **s))
    begun = ph.accentuate("photo.png", net, "second:1", **s)
    assert torch.equal(begun, ph.accentuate(photo, net, "second:1", **s))
    with pytest.raises(ImageError, match=r"there is no file 'phto.png'.*photo\.png"):
        ph.dream("phto.png", net, "second")
    with pytest.raises(ImageError, match="photo is a tensor"):
        ph.dream(3, net, "second")  # pyright: ignore[reportArgumentType]


def test_a_declared_recipe_is_a_function() -> None:
    glow = RecipeFunction(GLOW)
    photo = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    result = glow(photo, toy_network.net(), "second", steps=2)
    assert result.shape == photo.shape
    assert not torch.equal(result, photo)
    steps = list(glow.steps(photo, toy_network.net(), "second", steps=2))
    assert torch.equal(steps[-1].picture(), result)
    assert list(glow.__signature__.parameters) == [
        "photo", "network", "objective", "steps", "strength",
    ]  # fmt: skip
    with pytest.raises(SettingsError, match="no setting 'strenght'; the closest are strength"):
        glow(photo, toy_network.net(), "second", strenght=1)
    with pytest.raises(TypeError, match="objective"):
        glow(photo, toy_network.net())


def test_a_declared_recipe_has_a_form() -> None:
    form = GLOW.schema()
    assert json.loads(json.dumps(form)) == form
    assert form["inputs"]["photo"]["required"]
    assert form["settings"]["properties"]["strength"]["exclusiveMinimum"] == 0
    for name in base.recipe_names():
        assert json.dumps(recipe_named(name).schema())


def test_a_taken_name_is_refused() -> None:
    recipe_named("dream")
    with pytest.raises(RecipeError, match="there is a recipe 'dream' already"):
        register(Recipe("dream", GlowSettings, glow_steps))
    register(GLOW)  # the same file again, as in a notebook
    with pytest.raises(RecipeError, match="no recipe 'glowe'; the closest are glow"):
        recipe_named("glowe")


# --- the built-in ones -----------------------------------------------------------------------


def test_the_built_in_recipes() -> None:
    names = ["accentuate", "caricature", "dream", "film", "grid", "invert", "octaves", "panels",
             "sheet", "story", "style", "unit", "visualize", "watch", "zoom"]  # fmt: skip
    assert base.recipe_names() == [*names, "glow"]
    for name in names:
        assert recipe_named(name).name == name
        assert base.recipe_summary(name) == recipe_named(name).summary
        assert recipe_named(name).summary.endswith(".")


def test_summaries_of_what_is_not_imported() -> None:
    code = (
        "import sys, json; from phosphene.recipes.base import recipe_names, recipe_summary; "
        "print(json.dumps([{name: recipe_summary(name) for name in recipe_names()}, "
        "sorted(set(sys.modules) & {'torch', 'numpy', 'pydantic', 'PIL'})]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found, heavy = json.loads(done.stdout)
    assert heavy == []
    assert found == {name: recipe_named(name).summary for name in found}


@pytest.mark.parametrize("module", ["phosphene.manifest.schema", "phosphene.jobs.request"])
def test_what_needs_no_torch(module: str) -> None:
    code = (
        f"import sys, {module}; from phosphene.recipes.base import recipe_named, recipe_names\n"
        "for name in recipe_names(): recipe_named(name).schema()\n"
        "print(sorted(set(sys.modules) & {'torch', 'numpy', 'PIL', 'lark'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_no_recipe_is_named_in_a_condition_elsewhere() -> None:
    source = Path(ph.__file__).parent
    names = [f'"{name}"' for name in base.recipe_names() if name != "glow"]
    for path in source.rglob("*.py"):
        if path.parent.name in ("recipes", "steps"):
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            word = line.strip()
            if word.startswith(("if ", "elif ", "case ", "while ")) or " if " in word:
                assert not any(name in word for name in names), f"{path}: {word}"


def test_the_stub_is_current() -> None:
    stub = Path(ph.__file__).with_suffix(".pyi")
    assert stub.read_text(encoding="utf-8") == stub_text(), "scripts/make_stubs writes it"


def test_public_functions_show_their_settings() -> None:
    parameters = ph.dream.__signature__.parameters  # pyright: ignore[reportAttributeAccessIssue]
    assert list(parameters)[:4] == ["photo", "network", "objective", "mask"]
    assert parameters["octaves"].default == "auto"
    assert parameters["octaves"].annotation == "Literal['auto'] | int"
    assert "transparent" not in ph.visualize.__signature__.parameters  # pyright: ignore
    assert type_text(int | None) == "int | None"


def test_a_request_knows_what_a_recipe_takes() -> None:
    photo = {"photo": InputFile(path="photo.png")}
    with pytest.raises(ValueError, match="glow gives no octaves; there are picture, recipe"):
        Request(recipe="glow", inputs=photo, outputs={"octaves": "here"})
    with pytest.raises(ValueError, match="a recipe of glow that names layers"):
        Request(recipe="glow", inputs=photo, layers=("second",))
    with pytest.raises(ValueError, match="a recipe of glow that names no photo"):
        Request(recipe="glow")


def test_public_functions_pickle_and_have_help() -> None:
    assert pickle.loads(pickle.dumps(ph.dream)) is ph.dream
    assert pickle.loads(pickle.dumps(ph.unit_card)) is ph.unit_card
    shown = pydoc.plain(pydoc.render_doc(ph.dream))
    assert "Dream a picture" in shown
    assert "steps(self, photo" in shown
    assert "octave_scale" in shown


def test_wrong_arguments_of_public_functions() -> None:
    net, photo = toy_network.net(), torch.zeros(1, 3, 32, 32)
    for value in (True, False):
        with pytest.raises(SettingsError, match="no setting 'transparent'"):
            ph.visualize(net, "second:1", transparent=value)  # pyright: ignore[reportCallIssue]
    with pytest.raises(ImageError, match="a photo is a tensor"):
        ph.dream(None, net, "second")  # pyright: ignore[reportArgumentType]
    with pytest.raises(SettingsError, match="there is no layer in the list"):
        ph.invert(photo, net, [])
    with pytest.raises(SettingsError, match="visualize: no objective is named"):
        ph.visualize(net, None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"dream\(photo, network, objective, mask, …\): missing"):
        ph.dream()  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_pictures_and_masks_that_are_not_finite_are_refused_before_anything_is_computed(
    value: float,
) -> None:
    def spoilt(channels: int) -> torch.Tensor:
        picture = torch.full((1, channels, 8, 8), 0.5)
        picture[0, -1, 3, 4] = value
        return picture

    net, bad = toy_network.net(), "holds 1 value that is infinite or"
    photo = torch.full((1, 3, 8, 8), 0.5)
    net.module.register_forward_pre_hook(lambda *_: pytest.fail("the network was run"))
    given = {"objective": "second", "steps": 1}
    for about, call in {
        "the photo": lambda: ph.dream.steps(spoilt(3), net, **given),
        "the mask": lambda: ph.dream.steps(photo, net, mask=spoilt(1), **given),
        "the mask of region 2": lambda: ph.dream.steps(
            photo, net, regions=[(photo[:, :1], "first"), (spoilt(1), "second")], **given
        ),
        "the painting": lambda: style.steps(photo, spoilt(3), net),
    }.items():
        with pytest.raises(ImageError, match=f"^{about} {bad}"):
            call()
