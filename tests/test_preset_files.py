"""Presets as files: those that come with phosphene, and a user's own."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from phosphene import image as images
from phosphene.cli import main
from phosphene.errors import SettingsError
from phosphene.image import draw_sky, save_image
from phosphene.jobs import Request
from phosphene.manifest.schema import Manifest
from phosphene.recipes.base import recipe_named, recipe_names
from phosphene.recipes.dream import DREAM, dream
from phosphene.recipes.film import FILM
from phosphene.recipes.presets import FOLDER, PRESETS, is_of_a_file, preset, read_preset
from phosphene.recipes.zoom import ZOOM

OWN = """
about = "Mine."
network = "dreamnet-robust"
[objectives]
"dreamnet*" = "mixed3a"
[settings]
steps = 2
octaves = 1
step_size = 0.02
clip = "unset"
[by_network.dreamnet-robust]
steps = 3
[starts.noise]
steps = 4
"""
LOOKS = [name for name, found in PRESETS.items() if not found.published]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(OWN)
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "sky.png"
    save_image(draw_sky(48, 64), path)
    return path


def settings_of(name: str, network: str = "dreamnet", start: str = "photo", **given: Any) -> Any:
    return DREAM.checked_settings({"preset": name, **given}, network, start)


# Those that come with phosphene -------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_each_says_what_it_is_and_only_what_is_a_setting(name: str) -> None:
    found = PRESETS[name]
    assert found.source
    assert found.about
    assert found.objectives
    for network in ("dreamnet", "dreamnet-robust"):
        for start in ("photo", "noise", "sky"):
            stated = found.settings_for(network, start)
            assert stated.items() <= settings_of(name, network, start).model_dump().items()


@pytest.mark.parametrize("name", LOOKS)
def test_a_look_is_of_a_network_that_comes_with_phosphene(name: str) -> None:
    assert PRESETS[name].network in ("dreamnet", "dreamnet-robust")
    assert PRESETS[name].names(PRESETS[name].network)


def test_none_is_the_default_under_another_name() -> None:
    ways = {
        (found.objective_for(found.network), found.network, str(found.settings_for(found.network)))
        for found in PRESETS.values()
    }
    assert len(ways) == len(PRESETS)


# A user's own -------------------------------------------------------------------------------------


def test_a_file_is_a_preset(own: Path) -> None:
    found = read_preset(own)
    assert found.name.startswith("mine@")
    assert is_of_a_file(found.name)
    assert found.settings == {"steps": 2, "octaves": 1, "step_size": 0.02, "clip": None}
    assert found.objective_for("dreamnet") == "mixed3a"
    steps = [settings_of(str(own), *way).steps for way in (("dreamnet",), ("dreamnet-robust",))]
    assert steps == [2, 3]
    assert settings_of(str(own), "dreamnet-robust", "noise").steps == 4
    assert settings_of(str(own), steps=7).steps == 7


def test_what_is_made_with_a_file_says_which_one_and_replays_without_it(
    own: Path, photo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = photo.with_name("out.png")
    assert main(["dream", str(photo), "--preset", str(own), "-o", str(out)]) == 0
    manifest = Manifest.read(out)
    assert manifest.settings["preset"] == read_preset(own).name
    assert manifest.settings["steps"] == 3
    assert manifest.objectives == ("mixed3a",)
    assert manifest.network.name == "dreamnet-robust"
    assert str(own.parent) not in manifest.text()
    own.unlink()
    monkeypatch.setattr("phosphene.recipes.presets._OWN", {})
    assert main(["replay", str(out)]) == 0
    assert "pixel for pixel" in capsys.readouterr().out


def test_a_saved_request_needs_no_file(
    own: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, out = photo.with_name("job.json"), photo.with_name("out.png")
    asked = ["dream", str(photo), "--preset", str(own), "-o", str(out)]
    assert main([*asked, "--save-request", str(saved), "--dry-run"]) == 0
    own.unlink()
    monkeypatch.setattr("phosphene.recipes.presets._OWN", {})
    assert main(["run", str(saved)]) == 0
    assert Manifest.read(out).settings["steps"] == 3


def test_another_dream_is_made_like_one_of_a_file_that_is_not_here(
    own: Path, photo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out, saved = photo.with_name("out.png"), photo.with_name("job.json")
    assert main(["dream", str(photo), "--preset", str(own), "-o", str(out)]) == 0
    own.unlink()
    monkeypatch.setattr("phosphene.recipes.presets._OWN", {})
    asked = ["zoom", str(photo), "--like", str(out), "-o", str(tmp_path / "zoom.gif")]
    assert main([*asked, "--save-request", str(saved), "--dry-run"]) == 0
    found = Request.read(saved)
    assert (found.network, found.objectives) == ("dreamnet-robust", ("mixed3a",))
    assert (found.settings["preset"], found.settings["step_size"]) == ("phosphene", 0.02)


def test_a_preset_of_a_folder_is_known_by_its_name(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(FOLDER, str(own.parent))
    assert settings_of("mine").steps == 2
    name = read_preset(own).name
    assert preset(name).name == name
    assert main(["presets"]) == 0
    assert "mine" in capsys.readouterr().out
    own.write_text(OWN + "\n# Another one.\n")
    monkeypatch.setattr("phosphene.recipes.presets._OWN", {})
    with pytest.raises(SettingsError, match=f"the preset '{name}' is of a file mine.toml"):
        preset(name)


def test_nothing_built_in_is_replaced(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own.rename(own.with_name("keras.toml"))
    monkeypatch.setenv(FOLDER, str(own.parent))
    assert preset("keras") is PRESETS["keras"]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (("steps = 2", "stepz = 2"), "no setting 'stepz'; the closest are steps"),
        (("steps = 2", "steps = -2"), "steps: input should be greater than or equal to 1"),
        (("steps = 4", "steps = 'x'"), "steps: input should be a valid integer"),
        (("steps = 2", "steps ="), "is no preset: Invalid value (at line 7"),
        (("about", "abuot"), "is no preset: there is no 'abuot' in one; the closest are about"),
        (('about = "Mine."', "about = 3"), "about is 3; a text was expected"),
        (("[settings]", "[objectives.settings]"), "the objective of settings is {"),
        (('"dreamnet*" = "mixed3a"', ""), "a table [objectives] was expected"),
        (("[starts.noise]\nsteps = 4", "[starts]\nsteps = 4"), "starts.steps is 4; a table"),
    ],
)
def test_a_damaged_file_is_told_in_a_line(
    own: Path, damage: tuple[str, str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert damage[0] in OWN
    own.write_text(OWN.replace(*damage, 1))
    assert main(["dream", "--preset", str(own), "-o", str(own.with_name("out.png"))]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert "mine.toml" in said
    assert said.count("\n") == 1
    assert not own.with_name("out.png").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--preset", "kers"), "no preset 'kers'; the closest are keras"),
        (("--preset", "nowhere/mine.toml"), "cannot read the preset 'nowhere/mine.toml'"),
        (("--strength", "9"), "strength: input should be less than or equal to 3 (given: 9"),
        (("--strength", "0"), "strength: input should be greater than or equal to 0.2"),
    ],
)
def test_what_there_is_not_is_told(
    given: tuple[str, ...], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.png"
    assert main(["dream", *given, "-o", str(out)]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1
    assert not out.exists()


def test_a_binary_and_a_folder_are_no_presets(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(SettingsError, match=r"bytes.toml' is no preset: .*utf-8"):
        preset(str(tmp_path / "bytes.toml"))
    with pytest.raises(SettingsError, match=r"cannot read the preset .*folder.toml"):
        preset(str(tmp_path / "folder.toml"))


# Through which network ----------------------------------------------------------------------------


def asked_for(given: list[str], tmp_path: Path) -> Request:
    saved = tmp_path / "job.json"
    asked = ["dream", *given, "-o", str(tmp_path / "out.png")]
    assert main([*asked, "--size", "64", "--save-request", str(saved), "--dry-run", "--force"]) == 0
    return Request.read(saved)


def test_a_look_brings_its_network_and_a_published_preset_leaves_what_is_there(
    own: Path, tmp_path: Path
) -> None:
    assert asked_for(["--preset", str(own)], tmp_path).network == "dreamnet-robust"
    named = ["--preset", str(own), "--network", "dreamnet"]
    assert asked_for(named, tmp_path).network == "dreamnet"
    assert asked_for(["--preset", "google2015"], tmp_path).network == "dreamnet"
    assert asked_for([], tmp_path).network == "dreamnet"


def test_a_file_starts_no_code(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own.write_text(OWN.replace("dreamnet-robust", "tests.command:nothing", 1))
    assert main(["dream", "--preset", str(own), "-o", str(own.with_name("out.png"))]) != 0
    assert "may be code, which a request does not start by itself" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sheet_draws_a_photo_by_each_through_the_network_that_it_brings(
    photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOSPHENE_CACHE", str(photo.with_name("cache")))
    for name in PRESETS.keys() - {"phosphene", "woodcut", "google2015"}:
        monkeypatch.delitem(PRESETS, name)
    out = photo.with_name("sheet.png")
    assert main(["presets", "--sheet", str(photo), "--size", "64", "-o", str(out)]) == 0
    made = Manifest.read(out)
    assert made.settings["across"] == {
        "preset": ["phosphene", "woodcut", "google2015"],
        "network": ["dreamnet", "dreamnet-robust", "dreamnet"],
    }
    assert main(["presets", "--sheet", str(photo), "--size", "64", "-o", str(out)]) == 1


@pytest.mark.parametrize("given", [0.5, "0.5"])
def test_an_axis_may_be_of_strengths(given: Any) -> None:
    found = settings_of("phosphene", strength=given, steps="20")
    assert (found.steps, found.strength) == (13, None)


# Strength -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [DREAM, FILM, ZOOM], ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("name", ["phosphene", "google2015"])
def test_steps_times_their_size_are_as_many_times_as_much(recipe: Any, name: str) -> None:
    plain: Any = recipe.checked_settings({"preset": name}, "dreamnet")
    steps = []
    for strength in (0.2, 0.5, 1.0, 1.7, 3.0):
        found: Any = recipe.checked_settings({"preset": name, "strength": strength}, "dreamnet")
        steps.append(found.steps)
        assert found.steps * found.step_size == pytest.approx(
            strength * plain.steps * plain.step_size
        )
        assert found.strength is None
        same = {"steps", "step_size", "first_steps", "uncovered_steps", "fade"}
        assert found.model_dump(exclude=same) == plain.model_dump(exclude=same)
    assert steps == sorted(steps)
    assert steps[2] == plain.steps


@pytest.mark.parametrize("name", LOOKS)
def test_a_frame_has_few_steps_whatever_the_look(name: str) -> None:
    network = PRESETS[name].network
    look: Any = settings_of(name, network)
    for recipe in (FILM, ZOOM):
        frame: Any = recipe.checked_settings({"preset": name}, network)
        assert frame.steps == 3
        stated = PRESETS[name].settings.keys() & {"smooth", "natural", "octave_scale"}
        assert all(getattr(frame, key) == getattr(look, key) for key in stated)


def test_every_frame_of_a_film_is_dreamt_as_strongly() -> None:
    faint: Any = FILM.checked_settings({"strength": 0.3}, "dreamnet")
    strong: Any = FILM.checked_settings({"strength": 3}, "dreamnet")
    assert faint.first_steps < 10 < strong.first_steps
    assert faint.uncovered_steps < 4 < strong.uncovered_steps
    none: Any = FILM.checked_settings({"strength": 3, "uncovered_steps": 0}, "dreamnet")
    assert none.uncovered_steps == 0


def test_strength_is_recorded_as_what_it_became(photo: Path) -> None:
    out = photo.with_name("out.png")
    asked = ["dream", str(photo), "--octaves", "1", "--strength", "0.3", "-o", str(out)]
    assert main(asked) == 0
    found = Manifest.read(out).settings
    assert "strength" not in found
    assert (found["steps"], found["step_size"]) == (5, pytest.approx(0.0072))
    assert main(["replay", str(out)]) == 0


def test_a_request_that_says_it_is_one_of_those_steps() -> None:
    def request(**settings: Any) -> Request:
        return Request(recipe="dream", start="sky", settings=settings, objectives=("mixed4c",))

    strong, plain = request(strength=3), request(steps=19, step_size=0.012 * 3 * 10 / 19)
    assert strong.key("") == plain.key("") != request().key("")
    assert json.loads(strong.text())["settings"] == {"strength": 3}


@pytest.mark.slow
def test_the_picture_changes_the_more_the_stronger() -> None:
    photo = draw_sky(64, 80)
    changes = [
        float((dream(photo, "dreamnet", strength=s, octaves=1) - photo).square().mean().sqrt())
        for s in (0.2, 0.5, 1.0, 1.7, 3.0)
    ]
    assert all(b > 1.15 * a for a, b in itertools.pairwise(changes)), changes


# Noise --------------------------------------------------------------------------------------------


def test_natural_noise_has_the_colours_and_the_spectrum_of_nature() -> None:
    noise = images.start_picture("natural noise", (192, 192), 3)
    assert torch.equal(noise, images.start_picture("natural noise", (192, 192), 3))
    power = torch.fft.fft2(noise - noise.mean((2, 3), keepdim=True)).abs().square().mean((0, 1))
    down = torch.fft.fftfreq(192)
    radius = (down[:, None].square() + down.square()).sqrt()
    low = power[(radius > 0.02) & (radius < 0.04)].mean()
    high = power[(radius > 0.2) & (radius < 0.4)].mean()
    assert low > 500 * high
    colours = torch.corrcoef(noise.flatten(2)[0])
    white = torch.corrcoef(images.start_picture("noise", (192, 192), 3).flatten(2)[0])
    assert colours[0, 1] > 0.6
    assert colours[1, 2] > 0.6
    assert white[0, 1].abs() < 0.1
    assert 0.05 < noise.std() < 0.3


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 1), (5, 4)])
def test_natural_noise_of_any_size_is_a_picture(size: tuple[int, int]) -> None:
    noise = images.start_picture("natural noise", size)
    assert noise.shape == (1, 3, *size)
    assert noise.isfinite().all()
    assert noise.min() >= 0
    assert noise.max() <= 1


def test_a_dream_of_noise_has_settings_of_its_own_and_a_published_one_has_not(
    tmp_path: Path,
) -> None:
    def noise_of(*given: str) -> Any:
        return asked_for(list(given), tmp_path).settings["start_noise"]

    assert noise_of("--start", "noise") == "natural"
    assert noise_of("--start", "noise", "--start-noise", "white") == "white"
    assert noise_of("--start", "noise", "--preset", "google2015") == "white"
    assert noise_of("--start", "sky") == "white"


def test_an_older_recipe_of_noise_begins_with_what_it_did(tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    asked = [
        "dream",
        "--start",
        "noise",
        "--start-noise",
        "white",
        "--size",
        "64",
        "--octaves",
        "1",
    ]
    assert main([*asked, "--blend", "0", "-o", str(out)]) == 0
    written = images.to_uint8(images.load_image(out))
    white = images.start_picture("noise", (43, 64), 0)
    assert (written == images.to_uint8(white)).all()
    older = Manifest.read(out).model_dump(mode="json")
    del older["settings"]["start_noise"]
    recipe = tmp_path / "older.json"
    recipe.write_text(json.dumps(older))
    again: Any = Manifest.read(recipe).checked_settings()
    assert again.start_noise == "white"


@pytest.mark.parametrize("name", recipe_names())
def test_whatever_starts_from_noise_takes_what_presets_say_of_it(name: str) -> None:
    recipe = recipe_named(name)
    for start in recipe.starts:
        recipe.checked_settings({}, "dreamnet", start)
