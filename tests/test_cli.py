"""The command line, as processes: see `command.py`."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import resource
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from phosphene import gradients, pyramid
from phosphene import image as images
from phosphene.cli import listing, main
from phosphene.cli.exits import plain
from phosphene.cli.flags import bounds_text
from phosphene.cli.reporter import Estimate
from phosphene.image import start_picture
from phosphene.jobs import InputFile, Note, Request, Saved, prepare
from phosphene.jobs.job import undisturbed
from phosphene.manifest import Manifest
from phosphene.objectives import parse, quoted
from phosphene.recipes import dream as declared
from phosphene.recipes.dream import DreamSettings
from phosphene.recipes.steps.dream import guided
from tests import command
from tests.command import Done, run

TOY = ("--network", "tests.toy_network:net")
REPLAY = ("replay", *TOY)
DEFAULTS = {
    "--network": TOY[1],
    "--objective": "second",
    "--steps": "1",
    "--octaves": "1",
    "--device": "cpu",
    "--precision": "fp32",
}


def picture(path: Path, size: tuple[int, int] = (24, 40), mode: str = "RGB", seed: int = 0) -> Path:
    """A picture of smooth noise, H × W px."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 6, len(mode)), dtype=np.uint8)
    Image.fromarray(coarse, mode=mode).resize((size[1], size[0]), Image.Resampling.BICUBIC).save(
        path
    )
    return path


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture(tmp_path_factory.mktemp("photos") / "sky.png")


def tiny(*words: object) -> tuple[object, ...]:
    """`dream` with those words, and small where they do not say otherwise."""
    more = [part for flag in DEFAULTS.items() if flag[0] not in words for part in flag]
    return ("dream", *words, *more)


def failed(done: Done, *words: str, code: int = 1) -> None:
    """One line on stderr that holds the words, and that code."""
    lines = done.err.strip().splitlines()
    assert done.code == code, done
    assert lines, done
    assert lines[-1].startswith("phosphene: "), done
    assert "Traceback" not in done.err
    for word in words:
        assert word in lines[-1], done.err
    assert not done.out


# --- the command itself ----------------------------------------------------------------------


def test_the_installed_command_is_there_and_so_is_the_module() -> None:
    script = Path(sys.executable).with_name("phosphene")
    commands = [[sys.executable, "-m", "phosphene"], *([[str(script)]] if script.exists() else [])]
    for words in commands:
        done = subprocess.run([*words, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == "phosphene 0.1.0\n"


def test_help_imports_no_torch() -> None:
    code = """
import sys
from phosphene.cli import main
for verb in ([], ["dream"], ["replay"], ["layers"], ["networks"], ["presets"], ["objectives"]):
    assert main([*verb, "--help"]) == 0
heavy = {"torch", "numpy", "PIL", "torchvision", "lark"} & set(sys.modules)
assert not heavy, heavy
main(["dream", "--octaves", "0"])
main(["drem"])
main(["presets"])
assert "torch" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    for verb in ("dream", "replay", "layers", "networks", "presets", "objectives"):
        assert f"phosphene {verb}" in done.stdout  # an example


def test_every_setting_is_a_flag_with_its_default_and_bounds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    main(["dream", "--help"])
    shown = capsys.readouterr().out
    for name, field in DreamSettings.model_fields.items():
        line = next(x for x in shown.splitlines() if f"--{name.replace('_', '-')} " in x)
        assert (field.description or "").rstrip(".") in line
        told = {True: "yes", False: "no", None: "none", "": "none"}.get(
            field.default, field.default
        )  # pyright: ignore[reportArgumentType, reportCallIssue]
        if field.default in (0, 1) and not isinstance(field.default, bool):
            told = field.default
        extra = field.json_schema_extra
        told = extra.get("shown", told) if isinstance(extra, dict) else told
        assert f"[default: {told}]" in line, line
    assert bounds_text(DreamSettings.model_fields["octaves"]) == "1 to 40"
    assert bounds_text(DreamSettings.model_fields["steps"]) == "1 or more"
    assert bounds_text(DreamSettings.model_fields["step_size"]) == "above 0 to 100"
    assert bounds_text(DreamSettings.model_fields["seed"]) == "0 or more"
    assert bounds_text(DreamSettings.model_fields["blend"]) == "0 to 1"
    assert bounds_text(DreamSettings.model_fields["gradient"]) == ""


def test_the_settings_name_what_the_code_has() -> None:
    assert get_args(declared.Normalisation) == get_args(gradients.Normalisation)
    assert get_args(declared.Rounding) == get_args(pyramid.Rounding)
    assert get_args(declared.Resampling) == get_args(pyramid.Resampling)
    assert declared.EPSILON == gradients.EPSILON
    assert declared.MOST_OCTAVES == pyramid.MOST_OCTAVES


# --- dream -----------------------------------------------------------------------------------


def test_a_dream_says_where_it_lies_and_is_the_same_twice(sky: Path, tmp_path: Path) -> None:
    photo = tmp_path / "sky.png"
    photo.write_bytes(sky.read_bytes())
    first = run(*tiny(photo), cwd=tmp_path)
    assert (first.code, first.out) == (0, f"{tmp_path}/sky-dream.png\n"), first
    assert "octave 1/1  step 1/1  40×24  score" in first.err
    second = run(*tiny(photo, "-o", "again.png", "--quiet"), cwd=tmp_path)
    assert second == Done(0, "", "")
    data = (tmp_path / "sky-dream.png").read_bytes()
    assert data == (tmp_path / "again.png").read_bytes()
    assert str(tmp_path).encode() not in data
    assert not np.array_equal(
        np.asarray(Image.open(photo)), np.asarray(Image.open(photo.with_name("again.png")))
    )
    # What is there is not replaced, unless that is said; an input never is.
    failed(run(*tiny(photo, "-o", "again.png"), cwd=tmp_path), "already there", "--force")
    # Where nobody named it, the next one has a number.
    assert run(*tiny(photo, "--seed", "2"), cwd=tmp_path).out.endswith("/sky-dream-2.png\n")
    assert (tmp_path / "sky-dream.png").read_bytes() == data
    done = run(*tiny(photo, "--save-request", "job.json", "--dry-run"), cwd=tmp_path)
    assert f"checked, and not made: {tmp_path}/sky-dream-3.png" in done.err
    assert json.loads((tmp_path / "job.json").read_text())["outputs"] == {
        "picture": "sky-dream-3.png"
    }
    assert run("run", "job.json", *TOY, cwd=tmp_path).out == "sky-dream-3.png\n"
    failed(run("run", "job.json", *TOY, cwd=tmp_path), "sky-dream-3.png", "already there")
    (tmp_path / "sky-dream-2.png").unlink()
    assert run(*tiny(photo, "--quiet"), cwd=tmp_path).code == 0
    assert Manifest.read(tmp_path / "sky-dream-2.png").settings["seed"] == 0
    assert run(*tiny(photo, "--force", "--seed", "1"), cwd=tmp_path).code == 0
    assert data != (tmp_path / "sky-dream.png").read_bytes()
    os.link(photo, tmp_path / "link.png")
    for out in ("sky.png", "link.png"):
        done = run(*tiny(photo, "-o", out, "--force"), cwd=tmp_path)
        failed(done, out, "never replaced", code=2)
    done = run(*tiny(photo, "--mask", "link.png", "-o", "link.png", "--force"), cwd=tmp_path)
    failed(done, "never replaced", code=2)
    assert photo.read_bytes() == sky.read_bytes()


@pytest.mark.parametrize("link", ["itself", "symlink", "hard link"])
@pytest.mark.parametrize(
    "words",
    [
        ("dream", "sky.png", "--recipe", "LINK"),
        ("dream", "sky.png", "-o", "LINK"),
        ("dream", "sky.png", "--mask", "other.png", "--recipe", "OTHER"),
        ("dream", "sky.png", "--guide", "other.png", "-o", "OTHER"),
        ("dream", "--objective", "guide(second, 'other.png')", "--recipe", "OTHER"),
        (
            "dream",
            "octaves/a-octave1.png",
            "--objective",
            "second",
            "-o",
            "a.png",
            "--save-octaves",
            "octaves",
        ),
        ("visualize", "second:1", "--start", "sky.png", "--recipe", "LINK"),
        ("caricature", "sky.png", "--layer", "second", "-o", "LINK"),
        ("invert", "sky.png", "--layer", "second", "--recipe", "LINK"),
        ("accentuate", "sky.png", "second:1", "--recipe", "LINK"),
        ("style", "sky.png", "other.png", "--recipe", "OTHER"),
        ("unit", "tests.toy_network:network", "second:1", "--pictures", ".", "--data", "LINK"),
        ("unit", "tests.toy_network:network", "second:1", "--pictures", ".", "--recipe", "LINK"),
        ("sheet", "tests.toy_network:network", "second", "--top", "1", "sky.png", "-o", "LINK"),
        ("dream", "sky.png", "--network", "file:weights.pth@dreamnet", "--recipe", "weights.pth"),
    ],
)
def test_nothing_that_is_read_is_written(
    words: tuple[str, ...], link: str, sky: Path, tmp_path: Path
) -> None:
    octaves = tmp_path / "octaves"
    octaves.mkdir()
    files = [tmp_path / "sky.png", tmp_path / "other.png", octaves / "a-octave1.png"]
    for file in files:
        file.write_bytes(sky.read_bytes())
    (tmp_path / "weights.pth").write_bytes(b"weights")
    suffix = ".json" if "--data" in words else ".png"
    for name in ("sky", "other"):
        there, target = tmp_path / f"{name}.png", tmp_path / f"{name}-link{suffix}"
        if link == "symlink":
            target.symlink_to(there)
        elif link == "hard link":
            os.link(there, target)
    if link == "itself" and "--data" in words:
        pytest.skip("a picture is no .json")
    named = {
        "LINK": "sky.png" if link == "itself" else f"sky-link{suffix}",
        "OTHER": "other.png" if link == "itself" else f"other-link{suffix}",
    }
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    toy = TOY if words[0] not in ("unit", "sheet") and "--network" not in words else ()
    steps = ("--steps", "1", "--force")
    done = run(*(named.get(word, word) for word in words), *toy, *steps, cwd=tmp_path)
    failed(done, "never replaced", code=2)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_only_given_flags_take_the_place_of_the_presets(tmp_path: Path) -> None:
    words = ("dream", *TOY, "--objective", "second", "--size", "24", "--octaves", "1")
    done = run(*words, "--preset", "keras", "--steps", "2", "--no-keep-colors", cwd=tmp_path)
    assert done.code == 0, done
    settings = Manifest.read(tmp_path / "dream.png").settings
    expected = DreamSettings(preset="keras", steps=2, octaves=1)  # pyright: ignore[reportCallIssue]
    assert settings == expected.model_dump(mode="json", exclude={"rest"})  # of no regions
    assert (settings["step_size"], settings["detail"]) == (0.005, "after")


@pytest.mark.parametrize(("kind", "size"), [("sky", (427, 640)), ("noise", (43, 64))])
def test_a_dream_without_a_photo(kind: str, size: tuple[int, int], tmp_path: Path) -> None:
    given = () if kind == "sky" else ("--start", kind, "--size", "64")
    done = run(*tiny(*given, "--blend", "0", "--seed", "3"), cwd=tmp_path)
    assert (done.code, done.out) == (0, "dream.png\n"), done
    drawn = images.to_uint8(start_picture("natural noise" if kind == "noise" else "sky", size, 3))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "dream.png")), drawn)


def test_starts_that_make_no_sense(sky: Path, tmp_path: Path) -> None:
    failed(run("dream", "--start", "photo", cwd=tmp_path), "needs a photo", code=2)
    failed(run("dream", sky, "--start", "sky", cwd=tmp_path), "needs no photo", code=2)
    failed(run("dream", "--size", "0", cwd=tmp_path), "size is 0", code=2)
    failed(run(*tiny("--size", "100000"), cwd=tmp_path), "300 megapixels", code=2)


def test_channel_zero_is_channel_zero(sky: Path, tmp_path: Path) -> None:
    results = {}
    for goal in ("second", "second:0", "second:1"):
        out = tmp_path / f"{goal.replace(':', '')}.png"
        words = tiny(sky, "--objective", goal, "-o", out)
        assert run(*words, cwd=tmp_path).code == 0
        manifest = Manifest.read(out)
        assert manifest.objectives == (parse(goal).text,)
        assert manifest.result is not None
        results[goal] = manifest.result.sha256
    assert len(set(results.values())) == 3


def test_a_guide_takes_the_place_of_whole_layers(sky: Path, tmp_path: Path) -> None:
    flowers = picture(tmp_path / "my flowers.png", (30, 30), seed=1)
    goal = "2*second + first:1 - 0.5*layer(first, norm=l2) - tv()"
    assert (
        guided([parse(goal)], str(flowers))[0].text
        == f'2*guide(second, "{flowers}") + first:1 - 0.5*guide(first, "{flowers}") - tv()'
    )
    words = ("dream", sky, *TOY, "--steps", "1", "--octaves", "1", "-o", "out.png", "--guide")
    done = run(*words, flowers, "--objective", goal, cwd=tmp_path)
    assert done.code == 0, done
    manifest = Manifest.read(tmp_path / "out.png")
    assert 'guide(second, "my flowers.png")' in manifest.objectives[0]
    assert set(manifest.inputs) == {"photo", "my flowers.png"}
    assert manifest.inputs["my flowers.png"].model_dump()["width"] == 30
    assert str(tmp_path).encode() not in (tmp_path / "out.png").read_bytes()
    failed(run(*words, flowers, "--objective", "second:3", "--force", cwd=tmp_path), "whole layers")
    failed(run(*words, "nope.png", "--objective", "second", "--force", cwd=tmp_path), "no file")
    keras = ("--force", "--preset", "keras")
    failed(run(*words, flowers, *keras, cwd=tmp_path), "names no layers of toy", code=2)
    done = run(*words, flowers, "--force", cwd=tmp_path)
    assert done.code == 0, done
    assert "knows no layers of toy; chosen: second" in done.err
    assert Manifest.read(tmp_path / "out.png").objectives == ('guide(second, "my flowers.png")',)


def test_a_mask_of_another_shape_is_resized_and_that_is_said(sky: Path, tmp_path: Path) -> None:
    mask = np.zeros((10, 30), np.uint8)
    mask[:, 15:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    done = run(*tiny(sky, "--mask", "mask.png", "-o", "out.png", "--smooth", "0"), cwd=tmp_path)
    assert "mask resized 30x10 -> 40x24, its proportions changed" in done.err
    before, after = np.asarray(Image.open(sky)), np.asarray(Image.open(tmp_path / "out.png"))
    assert np.array_equal(before[:, :17], after[:, :17])
    assert not np.array_equal(before[:, 23:], after[:, 23:])
    assert run(*REPLAY, "out.png", "--input", f"photo={sky}", cwd=tmp_path).code == 0


def test_transparency_is_kept_and_every_format_replays(tmp_path: Path) -> None:
    photo = picture(tmp_path / "glass.png", mode="RGBA")
    alpha = np.asarray(Image.open(photo))[..., 3]
    for suffix in ("png", "jpg", "webp", "tif"):
        done = run(*tiny(photo, "-o", f"out.{suffix}"), cwd=tmp_path)
        assert done.code == 0, done
        assert ("laid over white" in done.err) == (suffix == "jpg")
        if suffix != "jpg":
            assert np.array_equal(np.asarray(Image.open(tmp_path / f"out.{suffix}"))[..., 3], alpha)
        done = run(*REPLAY, f"out.{suffix}", cwd=tmp_path)
        assert (done.code, done.out) == (0, f"out.{suffix}: the same, pixel for pixel\n"), done


def test_each_octave_is_saved_and_replays(sky: Path, tmp_path: Path) -> None:
    words = tiny(sky, "--octaves", "3", "--steps", "2", "-o", "out.png")
    done = run(*words, "--save-octaves", "a/b", "--recipe", "out.json", cwd=tmp_path)
    assert done.code == 0, done
    assert [line.split("  ")[:3] for line in done.err.splitlines()] == [
        ["octave 1/3", "step 2/2", "20×12"],
        ["octave 2/3", "step 2/2", "29×17"],
        ["octave 3/3", "step 2/2", "40×24"],
    ]
    saved = sorted((tmp_path / "a/b").iterdir())
    assert [path.name for path in saved] == [f"out-octave{k}.png" for k in (1, 2, 3)]
    shown = [np.asarray(Image.open(path)) for path in (*saved, tmp_path / "out.png")]
    assert np.array_equal(shown[2], shown[3])
    assert not np.array_equal(shown[1], shown[2])
    second = run(*REPLAY, saved[1], "--input", f"photo={sky}", cwd=tmp_path)
    assert second.code == 0, second
    assert "octave 3" not in second.err
    # The recipe beside it is the one inside, and replays as well.
    assert Manifest.read(tmp_path / "out.json") == Manifest.read(tmp_path / "out.png")
    bare = run(*REPLAY, "out.json", "--input", f"photo={sky}", "-o", "again.png", cwd=tmp_path)
    assert bare.code == 0, bare
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "out.png").read_bytes()
    (tmp_path / "out.png").unlink()
    failed(run(*words, "--save-octaves", "a/b", cwd=tmp_path), "out-octave1.png", "already there")
    failed(run(*words, "--recipe", "out.json", cwd=tmp_path), "out.json", "already there")
    failed(run(*words, "--recipe", "no/out.json", cwd=tmp_path), "no folder")
    failed(run(*words, "--save-octaves", "out.json", cwd=tmp_path), "out.json")
    assert not (tmp_path / "out.png").exists()


def test_a_terminal_sees_it_live(sky: Path, tmp_path: Path) -> None:
    words = ("dream", sky, *TOY, "--objective", "second", "--octaves", "2", "--steps", "300")
    done = run(*words, "-o", "out.png", cwd=tmp_path, terminal=True)
    assert done.code == 0, done
    assert "left" in done.err
    assert "━" in done.err
    assert "octave 2/2  step 300/300  40×24" in done.err


def test_time_left_goes_by_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    estimate = Estimate()

    def at(time: float, share: float) -> str:
        now[0] = time
        estimate.advance(share)
        return estimate.text

    # Of ten parts of work, the small octave has two and the large one eight.
    assert at(100, 0.1) == "…"  # the first step tells nothing
    assert at(101, 0.2) == "0:08 left"
    assert at(1101, 0.6) == "13:21 left"
    assert at(100_000, 1.0) == ""


# --- what goes wrong -------------------------------------------------------------------------


def test_pictures_that_cannot_be_read(sky: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    picture(tmp_path / "whole.jpg", (200, 200))
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:900])
    for name, word in [
        ("whle.jpg", "the closest are whole.jpg"),
        (".", "is a folder"),
        ("empty.png", "is empty"),
        ("text.png", "is not a picture"),
        ("cut.jpg", "cut.jpg"),
    ]:
        failed(run(*tiny(name, "-o", "out.png"), cwd=tmp_path), word)
    assert not (tmp_path / "out.png").exists()


def test_a_decompression_bomb_is_refused_before_memory_is_spent(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(10**6), 9)
    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )
    # Address space: torch alone reserves some; the picture would be 10.8 GB.
    limits = [(resource.RLIMIT_AS, 10 * 10**9)]
    done = run(*tiny("bomb.png"), cwd=tmp_path, limits=limits)
    failed(done, "60000x60000", "300 megapixels")


@pytest.mark.parametrize(
    ("words", "told", "code"),
    [
        (("--network", "dreamnt"), "the closest are dreamnet", 1),
        (("--network", "tests.toy_network:nett"), "the closest are net", 1),
        (("--objective", "secnd"), "toy has no layer 'secnd'; the closest are second", 1),
        (("--objective", "second:8"), "second has 8 channels, 0 to 7; there is no channel 8", 1),
        (("--objective", "logit(cta)"), "the closest are cat", 1),
        (("--objective", "gide(second)"), "the closest are guide", 1),
        (("--objective", "second +"), "at the end", 1),
        (("--objective", ""), "the objective is empty", 1),
        (("--preset", "google"), "the closest are google2015", 2),
        (("--octaves", "0"), "octaves", 2),
        (("--octaves", "-1"), "octaves", 2),
        (("--octaves", "many"), 'unable to convert "many" into auto|int', 2),
        (("--steps", "0"), "steps: input should be greater than or equal to 1 (given: 0)", 2),
        (("--step-size", "nan"), "step size: input should be a finite number", 2),
        (("--step-size", "-0.1"), "step size", 2),
        (("--stop-above", "inf"), "stop above", 2),
        (("--blend", "1.5"), "blend", 2),
        (("--gradient", "meen"), 'Did you mean "mean"?', 2),
        (("--stepz", "3"), "Did you mean --steps?", 2),
        (("--device", "cuda:99"), "not on this machine", 2),
        (("--device", "gpu"), "there are auto, cpu, cuda", 2),
        (("other.png",), "'other.png' is one argument too many", 2),
    ],
)
def test_mistakes_are_told_in_a_line(
    words: tuple[str, ...], told: str, code: int, sky: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    failed(run(*tiny(sky, "-o", "out.png", *words), cwd=tmp_path), told, code=code)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_places_that_cannot_be_written_to(sky: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    cases = [
        ("out.gif", "unknown suffix '.gif'"),
        ("out", "no suffix"),
        ("no/such/out.png", "there is no folder 'no/such'"),
        ("file/out.png", "there is no folder 'file'"),
        ("folder.png", "is a folder"),
    ]
    if Path("/proc/version").exists():  # none can write there, not even root
        cases.append(("/proc/out.png", "cannot write '/proc/out.png'"))
    for out, told in cases:
        failed(run(*tiny(sky, "-o", out), cwd=tmp_path), told)


def test_no_such_verb(tmp_path: Path) -> None:
    failed(run("drem", cwd=tmp_path), 'Did you mean "dream"?', code=2)
    done = run("dream", "no.png", "--debug", cwd=tmp_path)
    assert done.code == 1
    assert "Traceback" in done.err


def test_a_full_disk_leaves_nothing_behind(sky: Path, tmp_path: Path) -> None:
    words = tiny(sky, "--size", "200", "-o", "out.png")
    done = run(*words, cwd=tmp_path, limits=[(resource.RLIMIT_FSIZE, 8192)])
    failed(done, "cannot write 'out.png'")
    assert not list(tmp_path.iterdir())


def shell(redirections: str, *words: object, cwd: Path) -> Done:
    """A command as a shell starts it, its streams redirected as they say."""
    quoted = shlex.join([sys.executable, "-m", "phosphene", *map(str, words)])
    done = subprocess.run(
        ["bash", "-c", f"{quoted} {redirections}"], cwd=cwd, capture_output=True, text=True
    )
    return Done(done.returncode, done.stdout, done.stderr)


needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")


@needs_full
@pytest.mark.parametrize("lost", ["full", "closed", "pipe"])
def test_a_dream_outlasts_stderr(lost: str, sky: Path, tmp_path: Path) -> None:
    words = tiny(sky, "-o", "out.png", "--steps", "3", "--save-octaves", "octaves")
    done = run(*words, cwd=tmp_path, lost={"err": lost})
    assert done == Done(0, "out.png\n", ""), done
    Image.open(tmp_path / "out.png").load()


@needs_full
@pytest.mark.parametrize("lost", ["full", "closed"])
def test_a_dream_outlasts_stdout(lost: str, sky: Path, tmp_path: Path) -> None:
    done = run(*tiny(sky, "-o", "out.png"), cwd=tmp_path, lost={"out": lost})
    failed(done, "cannot write to stdout", "out.png")
    assert done.err.count("phosphene: ") == 1, done
    Image.open(tmp_path / "out.png").load()


@needs_full
@pytest.mark.parametrize(("lost", "verb"), [(">/dev/full", "presets"), (">&- <&-", "networks")])
def test_lists_that_cannot_be_written(lost: str, verb: str, tmp_path: Path) -> None:
    done = shell(lost, verb, cwd=tmp_path)
    failed(done, "cannot write to stdout")
    assert len(done.err.splitlines()) == 1, done


@needs_full
@pytest.mark.parametrize("lost", ["2>/dev/full", "2>&- <&-"])
def test_errors_that_cannot_be_told_are_no_results(lost: str, tmp_path: Path) -> None:
    assert shell(lost, "drem", cwd=tmp_path) == Done(2, "", "")


@needs_full
def test_a_dream_outlasts_its_events(sky: Path, tmp_path: Path) -> None:
    done = run(*tiny(sky, "-o", "out.png", "--events", "/dev/full"), cwd=tmp_path)
    assert done.code == 0, done
    assert done.err.count("misses events: No space left") == 1
    assert (tmp_path / "out.png").exists()


def test_a_dream_outlasts_its_octaves(sky: Path, tmp_path: Path) -> None:
    request = Request(
        recipe="dream",
        network=TOY[1],
        objectives=("second",),
        inputs={"photo": InputFile(path=str(sky))},
        settings={"octaves": 3, "octave_scale": 1.2, "steps": 1, "device": "cpu"},
        outputs={"picture": str(tmp_path / "out.png"), "octaves": str(tmp_path / "octaves")},
    )
    notes, saved = [], []
    for event in prepare(request, allow=[TOY[1]]).events():
        if isinstance(event, Saved):
            saved.append(event.path.name)
            if event.path.name == "out-octave1.png":
                shutil.rmtree(tmp_path / "octaves")
        elif isinstance(event, Note):
            notes.append(event.text)
    assert saved == ["out-octave1.png", "out.png"]
    assert [text for text in notes if "octave" in text and "no folder" in text] == notes[-2:]
    assert notes[-2].startswith("note: octave 2 is not saved: cannot write")


def test_too_little_memory_is_told(sky: Path, tmp_path: Path) -> None:
    words = tiny(sky, "--size", "9000", "-o", "out.png")
    # As much as torch reserves, and half of the 0.6 GB that the picture alone takes; asked of a new
    # process, since what this one has reserved hangs on the tests before.
    code = "import torch; print(open('/proc/self/statm').read().split()[0])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    reserved = int(told.stdout) * resource.getpagesize()
    done = run(*words, cwd=tmp_path, limits=[(resource.RLIMIT_AS, reserved + 3 * 10**8)])
    failed(done, "out of memory", "--size")
    assert not list(tmp_path.iterdir())


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_weights_that_do_not_fit_or_would_run_code(sky: Path, tmp_path: Path) -> None:
    toy = TOY[1]
    save_file({"first.0.weight": torch.zeros(5, 3, 3, 3)}, tmp_path / "wrong.safetensors")
    done = run(
        *tiny(sky, "-o", "out.png", "--network", f"file:wrong.safetensors@{toy}"), cwd=tmp_path
    )
    failed(done, "wrong.safetensors does not fit")
    trap = tmp_path / "ran"
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"first.0.weight": _Evil(trap)}))
    torch.save({"first.0.weight": _Evil(trap)}, tmp_path / "evil2.pt")
    for name in ("evil.pt", "evil2.pt"):
        words = tiny(sky, "-o", "out.png", "--network", f"file:{name}@{toy}")
        failed(run(*words, cwd=tmp_path), name)
    assert not trap.exists()


@pytest.mark.slow
def test_ctrl_c_keeps_the_dream_so_far(sky: Path, tmp_path: Path) -> None:
    words = ("dream", sky, *TOY, "--objective", "second", "--octaves", "2", "--octave-scale", "3")
    running = command.start(*words, "--steps", "1500", "-o", "out.png", cwd=tmp_path)
    running.wait_for(lambda: "octave 1/2" in running.err)
    running.interrupt()
    done = running.done()
    assert done.code == 130, done
    assert not done.out
    manifest = Manifest.read(tmp_path / "out.png")
    assert manifest.ended
    assert manifest.ended.why == "interrupted"
    assert 1 <= manifest.ended.step <= 1500
    assert manifest.ended.octave in (1, 2)
    told = f"interrupted in octave {manifest.ended.octave}, after step {manifest.ended.step}"
    assert told in done.err.splitlines()[-1]
    assert Image.open(tmp_path / "out.png").size == (40, 24)
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
    again = run(*REPLAY, "out.png", "--input", f"photo={sky}", cwd=tmp_path)
    assert again.code == 0, again


def test_a_second_ctrl_c_waits_for_the_file() -> None:
    # Whoever runs this in the background has the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with undisturbed():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_before_the_first_step(monkeypatch: pytest.MonkeyPatch, sky: Path, tmp_path: Path,
                                      capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("phosphene.jobs.runner.load_network", interrupted)
    assert main(["dream", str(sky), "-o", "out.png"]) == 130
    assert "nothing was written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_ascent_that_leaves_the_numbers_keeps_the_last_good_picture(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), (128, 128, 128)).save(tmp_path / "grey.png")
    words = ("dream", "grey.png", "--network", "tests.toy_network:explosive", "--objective")
    more = (
        "growth",
        "--precision",
        "fp32",
        "--step-size",
        "0.1",
        "--octaves",
        "1",
        "--gradient",
        "mean",
    )
    done = run(*words, *more, "-o", "out.png", cwd=tmp_path)
    failed(done, "no longer a finite number", "the dream so far is in 'out.png'")
    manifest = Manifest.read(tmp_path / "out.png")
    assert manifest.ended
    assert manifest.ended.why == "not finite"
    shown = np.asarray(Image.open(tmp_path / "out.png"))
    assert shown.min() > 128  # it was on its way
    again = run("replay", "out.png", "--network", "tests.toy_network:explosive", cwd=tmp_path)
    assert again.code == 0, again


def test_warnings_become_notes(sky: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 4, 3))\n"
    )
    words = ("dream", sky, "--network", "plain:net", "--objective", '"0"', "--octaves", "1")
    done = run(*words, "-o", "out.png", cwd=tmp_path)
    assert done.code == 0, done
    notes = [line for line in done.err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1
    assert "states no preprocessing" in notes[0]
    assert "Warning" not in done.err
    assert run(*words, "-o", "quiet.png", "--quiet", cwd=tmp_path) == Done(0, "", "")


# --- replay ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dreamt(sky: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a photo, a guide and a dream of both."""
    folder = tmp_path_factory.mktemp("dreamt")
    (folder / "sky.png").write_bytes(sky.read_bytes())
    picture(folder / "guide.png", seed=2)
    goal = 'second + guide(first, "guide.png")'
    done = run(*tiny("sky.png", "--objective", goal, "-o", "dream.png"), cwd=folder)
    assert done.code == 0, done
    return folder


def test_inputs_are_found_by_name_and_known_by_hash(dreamt: Path, tmp_path: Path) -> None:
    assert run(*REPLAY, dreamt / "dream.png", cwd=tmp_path).code == 0  # beside the file
    here = tmp_path / "dream.png"
    here.write_bytes((dreamt / "dream.png").read_bytes())
    assert run(*REPLAY, here, cwd=dreamt).code == 0  # in the current folder
    failed(run(*REPLAY, here, cwd=tmp_path), "'sky.png', the recipe's photo", "--input photo=PATH")
    words = (*REPLAY, here, "--input", f"photo={dreamt / 'sky.png'}")
    failed(run(*words, cwd=tmp_path), "'guide.png'", "--input guide.png=PATH")
    words = (*words, "--input", f"guide.png={dreamt / 'guide.png'}")
    assert run(*words, cwd=tmp_path).code == 0
    failed(run(*words, "--input", f"foto={here}", cwd=tmp_path), "the closest are photo")
    failed(run(*words, "--input", "photo", cwd=tmp_path), "expected ROLE=PATH", code=2)
    failed(run(*words, "-o", here, "--force", cwd=tmp_path), "never replaced", code=2)
    failed(run(*words, "-o", dreamt / "sky.png", "--force", cwd=tmp_path), "never", code=2)
    # Another picture of that name.
    other = picture(tmp_path / "sky.png", seed=5)
    guide = ("--input", f"guide.png={dreamt / 'guide.png'}")
    failed(run(*REPLAY, here, *guide, cwd=tmp_path), "is not the recipe's photo", "--anyway")
    done = run(*REPLAY, here, *guide, "--anyway", "-o", "other.png", cwd=tmp_path)
    assert done.code == 3, done
    assert "different by at most" in done.out
    assert "photo " in done.out
    now = Manifest.read(tmp_path / "other.png").inputs["photo"].sha256
    assert now == hashlib.sha256(other.read_bytes()).hexdigest()


def test_what_differs_is_told(dreamt: Path, tmp_path: Path) -> None:
    manifest = Manifest.read(dreamt / "dream.png")
    pixels = images.load_image(dreamt / "dream.png")
    inputs = [f"--input={role}={dreamt / used.name}" for role, used in manifest.inputs.items()]

    def replayed(changed: Manifest, image: torch.Tensor, name: str) -> Done:
        images.save_image(image, tmp_path / name, recipe=changed.text())
        return run(*REPLAY, name, *inputs, cwd=tmp_path)

    # The file's pixels were changed after it was written.
    bright = pixels.clone()
    bright[:, :, 0, 0] = (bright[:, :, 0, 0] + 0.5) % 1
    done = replayed(manifest, bright, "changed.png")
    assert done.code == 3
    assert "comes out as its recipe says, but the file's own pixels differ" in done.out
    # The recipe says another result, another torch and another processor.
    assert manifest.result is not None
    old = manifest.model_copy(
        update={
            "result": manifest.result.model_copy(update={"sha256": "0" * 64}),
            "versions": {**manifest.versions, "torch": "1.0"},
            "machine": manifest.machine.model_copy(update={"architecture": "riscv"}),
        }
    )
    done = replayed(old, pixels, "old.png")
    assert done.code == 3
    assert "old.png: different" in done.out
    assert "torch 1.0 -> " in done.out
    assert "architecture riscv -> " in done.out
    # Other weights: said, and the result is another.
    weights = old.network.model_copy(update={"fingerprint": "0" * 64})
    done = replayed(old.model_copy(update={"network": weights}), pixels, "weights.png")
    assert done.code == 3
    assert "are not the recipe's" in done.err
    assert "weights 000000000000… ->" in done.out


def test_recipes_that_cannot_be_replayed(dreamt: Path, sky: Path, tmp_path: Path) -> None:
    manifest = json.loads(Manifest.read(dreamt / "dream.png").text())
    cases = {
        "none": (None, "carries no recipe"),
        "newer": (manifest | {"format": 3, "phosphene": "7.1"}, "was made by phosphene 7.1"),
        "damaged": (manifest | {"result": 3}, "is damaged: result"),
        "climbing": (
            manifest | {"inputs": {"photo": {**manifest["inputs"]["photo"], "name": "../sky.png"}}},
            "not the bare name",
        ),
        "settings": (
            manifest | {"settings": {**manifest["settings"], "octaves": 0}},
            "the recipe's settings do not hold here",
        ),
        "smuggled": (
            manifest | {"objectives": ['guide(first, "/etc/x.png")']},
            "its inputs do not",
        ),
    }
    for name, (recipe, told) in cases.items():
        path = tmp_path / f"{name}.png"
        text = None if recipe is None else json.dumps(recipe)
        images.save_image(torch.zeros(1, 3, 8, 8), path, recipe=text)
        inputs = [f"--input=photo={sky}", f"--input=guide.png={dreamt / 'guide.png'}"]
        failed(run(*REPLAY, path, *inputs, cwd=tmp_path), told)
    (tmp_path / "half.json").write_text(json.dumps(manifest)[:-20])
    failed(run("replay", "half.json", cwd=tmp_path), "holds no recipe")
    failed(run("replay", "no.png", cwd=tmp_path), "there is no file")


def test_a_recipe_starts_no_code_by_itself(dreamt: Path, tmp_path: Path) -> None:
    done = run("replay", dreamt / "dream.png", cwd=tmp_path)
    failed(done, "may be code", f"--network {TOY[1]}")


# --- listings --------------------------------------------------------------------------------


def test_layers(tmp_path: Path) -> None:
    done = run("layers", TOY[1], cwd=tmp_path)
    lines = [line.split() for line in done.out.splitlines()[2:]]
    assert not done.err
    assert lines == [
        ["first", "Sequential", "6", "1", "3", "32×32"],
        ["first.0", "Conv2d", "6", "1", "3", "32×32"],
        ["first.1", "ReLU", "6", "1", "3", "32×32"],
        ["second", "Sequential", "8", "2", "5", "16×16"],
        ["second.0", "Conv2d", "8", "2", "5", "16×16"],
        ["second.1", "ReLU", "8", "2", "5", "16×16"],
        ["pool", "AdaptiveAvgPool2d", "8", "all", "1×1"],
        ["flat", "Flatten", "8", "all"],
        ["logits", "Linear", "3", "all"],
    ]
    done = run("layers", TOY[1], "--size", "20x30", "--depth", "1", "--json", cwd=tmp_path)
    found = json.loads(done.out)
    assert [layer["layer"] for layer in found] == ["first", "second", "pool", "flat", "logits"]
    assert found[1] == {
        "layer": "second",
        "kind": "Sequential",
        "channels": 8,
        "stride": 2,
        "receptive_field": 5,
        "shape": [8, 10, 15],
        "calls": 1,
    }
    failed(run("layers", TOY[1], "--size", "20,30", cwd=tmp_path), "expected HxW", code=2)
    failed(run("layers", "vgg17", cwd=tmp_path), "vgg16")


def test_the_tree_has_parents_first() -> None:
    assert listing.in_tree_order(["a.x", "a.y.z", "a", "b", "c.d"]) == [
        "a", "a.x", "a.y", "a.y.z", "b", "c", "c.d",
    ]  # fmt: skip


def test_listings(capsys: pytest.CaptureFixture[str]) -> None:
    from phosphene.recipes.presets import PRESETS
    from phosphene.zoo import NETWORKS

    assert main(["networks"]) == 0
    shown = capsys.readouterr().out
    assert {line.split()[0] for line in shown.splitlines()[2:]} <= set(NETWORKS)
    assert "dreamnet" in shown
    assert main(["presets"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in PRESETS)
    assert main(["objectives"]) == 0
    assert 'layer(name, norm="mean_square", margin=0)' in capsys.readouterr().out


def test_what_is_printed_is_plain(
    sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plain("a\x00\x1b[0m\r\x7f\x85\u2028\u202e b\tc\nd é×…") == (
        r"a\x00\x1b[0m\r\x7f\x85\u2028\u202e b" + "\tc\nd é×…"
    )
    assert plain("a\nb", lines=False) == r"a\nb"
    monkeypatch.chdir(tmp_path)
    net, name = "tests.toy_network:hostile", "fir\x1b[2J\x1b]0;st\x07"
    made = ("-o", "out.png", "--steps", "1", "--octaves", "1", "--device", "cpu", "--verbose")
    for words in [
        ("layers", net),
        ("layers", net, "--json"),
        ("dream", str(sky), "--network", net, "--objective", "no"),
        ("dream", str(sky), "--network", net, "--objective", "no", "--debug"),
        ("dream", str(sky), "--network", net, "--objective", quoted(name), *made),
        ("replay", "out.png", "--network", net),
        ("dream", "no\x1b[2J.png"),
        ("dream", str(sky), f"--{name}"),
        (name,),
    ]:
        main(words)
        told = capsys.readouterr()
        for text in (told.out, told.err):
            assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text), (words, text)
        assert "x1b" in told.out + told.err or "u001b" in told.out or words[0] == "replay", words


def test_a_path_goes_to_a_program_as_it_is(sky: Path, tmp_path: Path) -> None:
    done = run(*tiny(sky, "-o", "o\x1but.png"), cwd=tmp_path)
    assert done.out == "o\x1but.png\n"
    assert Path(tmp_path, done.out.rstrip("\n")).exists()
