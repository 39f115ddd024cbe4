"""What a recipe holds, what it refuses, and how a replay is compared. Processes: `test_cli.py`."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phosphene.engine import Step
from phosphene.errors import RecipeError
from phosphene.image import save_image, to_uint8
from phosphene.image.start import start_picture
from phosphene.jobs.compare import Comparison, compare
from phosphene.jobs.job import Job
from phosphene.jobs.replayer import find_inputs, find_network, replay_settings, request_of
from phosphene.jobs.request import picture_roles
from phosphene.jobs.runner import prepare
from phosphene.manifest import schema as m
from phosphene.manifest.capture import machine, result_of, versions
from phosphene.manifest.hashes import file_hash
from phosphene.recipes.dream import DreamSettings, dream
from phosphene.zoo import network_label
from tests import toy_network

PHOTO = torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(0))


def manifest_of(picture: torch.Tensor, **changes: Any) -> m.Manifest:
    network = toy_network.net().prepared("cpu", "fp32")
    asked = DreamSettings(octaves=2, steps=3, precision="fp32", device="cpu")  # pyright: ignore[reportCallIssue]
    parts = {
        "phosphene": "0.1.0",
        "network": m.NetworkUsed(name="tests.toy_network:net", fingerprint=network.fingerprint),
        "recipe": "dream",
        "objectives": ("second",),
        "start": "photo",
        "inputs": {"photo": m.Input(name="a.png", sha256="0" * 64, width=30, height=20)},
        "settings": asked.model_dump(mode="json"),
        "result": result_of(picture),
        "versions": versions(),
        "machine": machine(network),
    }
    return m.Manifest(**(parts | changes))


# --- text ------------------------------------------------------------------------------------


def test_a_manifest_reads_back_and_tells_nothing_of_whose_it_is() -> None:
    manifest = manifest_of(PHOTO)
    text = manifest.text()
    assert m.Manifest.parse(text) == manifest
    assert m.Manifest.parse(manifest.text(indent=2)) == manifest
    assert manifest.checked_settings().model_dump()["steps"] == 3
    assert json.loads(text)["format"] == 2
    words = {getpass.getuser(), os.getcwd(), platform.node()} - {"root", "localhost", "vm"}
    assert not [word for word in words if word in text]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format": 3, "phosphene": "3.0"}, "was made by phosphene 3.0, this is 0.1.0: upgrade"),
        ({"extra": 1, "phosphene": "0.2"}, "was made by phosphene 0.2"),
        ({"extra": 1}, "is damaged: extra"),
        ({"format": 0}, "holds no recipe of phosphene: format"),
        ({"recipe": "zooom"}, "is damaged: recipe"),
        ({"ended": {"why": "bored", "octave": 1, "step": 1}}, "is damaged: ended.why"),
        ({"result": {"width": 10**6, "height": 10**6, "sha256": "0" * 64}}, "300 megapixels"),
        ({"result": {"width": 1, "height": 1, "sha256": "no"}}, "is damaged: result.sha256"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], told: str) -> None:
    text = json.dumps(json.loads(manifest_of(PHOTO).text()) | changes)
    with pytest.raises(RecipeError, match=told):
        m.Manifest.parse(text)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"format": "x"}'])
def test_what_is_no_recipe(text: str) -> None:
    with pytest.raises(RecipeError, match="holds no recipe"):
        m.Manifest.parse(text)


@pytest.mark.parametrize("name", ["", "..", "a/b.png", "/a.png", "a\\b.png", "a\0"])
def test_an_input_has_a_bare_name(name: str) -> None:
    with pytest.raises(ValueError, match="bare name"):
        m.Input(name=name, sha256="0" * 64, width=1, height=1)


def test_settings_that_are_no_longer_known() -> None:
    manifest = manifest_of(PHOTO)
    changed = manifest.model_copy(update={"settings": {**manifest.settings, "glow": 1}})
    with pytest.raises(RecipeError, match="no setting 'glow'"):
        changed.checked_settings()


# --- roles ---------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.from_regex(r"[ab]/[xy](-2)?\.(png|jpg)", fullmatch=True), unique=True))
def test_each_picture_has_a_role_of_its_own(paths: list[str]) -> None:
    roles = picture_roles(paths, ())
    assert list(roles) == paths
    assert len(set(roles.values())) == len(paths)
    assert not [role for role in roles.values() if "/" in role]


def test_roles_keep_clear_of_the_photo_and_the_mask() -> None:
    roles = picture_roles(["x/photo", "y/flowers.jpg", "z/flowers.jpg"], ("photo", "mask"))
    assert list(roles.values()) == ["photo-2", "flowers.jpg", "flowers-2.jpg"]


# --- networks --------------------------------------------------------------------------------


def test_a_recipe_names_no_folder_and_starts_no_code(tmp_path: Path) -> None:
    assert network_label("file:/home/me/w.pt@resnet18") == "file:w.pt@resnet18"
    assert network_label("a.b:c") == "a.b:c"

    def found(name: str) -> str:
        manifest = manifest_of(PHOTO)
        network = manifest.network.model_copy(update={"name": name})
        return find_network(manifest.model_copy(update={"network": network}), [tmp_path])

    for name in ("dreamnet", "dreamnet:random", "resnet18:random"):
        assert found(name) == name
    for name in ("resnet18", "torchvision:vgg16:IMAGENET1K_V1"):  # no code, and not here
        with pytest.raises(RecipeError, match=f"starts no download.*--network {name}"):
            found(name)
    for name in ("os:abort", "a.b:c", "file:w.pt@os:abort"):
        (tmp_path / "w.pt").touch()
        with pytest.raises(RecipeError, match=f"may be code.*--network .*{name[-5:]}"):
            found(name)
    assert found("file:w.pt@resnet18") == f"file:{tmp_path / 'w.pt'}@resnet18"
    assert found("file:../../w.pt@resnet18") == f"file:{tmp_path / 'w.pt'}@resnet18"
    with pytest.raises(RecipeError, match="--network file:PATH@resnet18"):
        found("file:v.pt@resnet18")


# --- replay ----------------------------------------------------------------------------------


def test_a_replay_ends_where_the_dream_did(tmp_path: Path) -> None:
    save_image(PHOTO, tmp_path / "a.png")
    photo = m.Input(
        name="a.png", sha256=file_hash(tmp_path / "a.png"), width=30, height=20, size=24
    )

    def replayed(manifest: m.Manifest) -> list[tuple[int, int]]:
        files = find_inputs(manifest, [tmp_path])
        assert files == {"photo": tmp_path / "a.png"}
        job = replaying(manifest, files)
        steps: list[Step] = list(job.steps())
        assert steps[-1].image.shape[-1] <= 24
        return [(step.octave, step.index) for step in steps]

    whole = [(octave, index) for octave in (0, 1) for index in (0, 1, 2)]
    manifest = manifest_of(PHOTO, inputs={"photo": photo})
    assert replayed(manifest) == whole
    for why, expected in [("interrupted", whole[:5]), ("not finite", whole)]:
        ended = m.Ended(why=why, octave=2, step=2)  # pyright: ignore[reportArgumentType]
        assert replayed(manifest.model_copy(update={"ended": ended})) == expected
    with pytest.raises(ValueError, match="names no photo"):
        manifest_of(PHOTO, inputs={})


def replaying(manifest: m.Manifest, files: dict[str, Path]) -> Job:
    request = request_of(manifest, "toy", files, replay_settings(manifest))
    job = prepare(request, network=toy_network.net(), allow=("toy",))
    job.until = manifest.ended
    return job


def test_a_replay_gives_what_the_dream_gave() -> None:
    chosen = {"octaves": 2, "steps": 3, "precision": "fp32", "device": "cpu"}
    sky = start_picture("sky", (20, 30), 0)
    network = toy_network.net()
    picture = dream(sky, network, "second", **chosen)
    manifest = manifest_of(picture, start="sky", inputs={}, size=30)
    *_, last = replaying(manifest, {}).steps()
    assert result_of(last.picture()) == manifest.result


def test_tiles_are_replayed_as_they_were() -> None:
    def tile(*plan: int | None) -> object:
        return replay_settings(manifest_of(PHOTO, plan=plan)).model_dump()["tile"]

    assert [tile(), tile(None, None), tile(None, 64)] == ["auto", "auto", 64]


def test_a_manifest_of_the_first_format_is_the_same_in_the_second() -> None:
    first = {
        "format": 1, "phosphene": "0.1.0", "recipe": "sheet",
        "network": {"name": "dreamnet", "fingerprint": "0" * 64},
        "layers": ["mixed4c"], "channels": [3, 1], "start": "noise", "settings": {"steps": 2},
        "result": {"width": 4, "height": 4, "sha256": "0" * 64}, "versions": {"python": "3.11"},
        "machine": {"device": "cpu", "precision": "fp32", "threads": 1, "architecture": "x86_64",
                    "instructions": "AVX2"},
    }  # fmt: skip

    def read(**changes: Any) -> m.Manifest:
        return m.Manifest.parse(json.dumps(first | changes))

    sheet = read()
    assert (sheet.format, sheet.numerics, sheet.start, sheet.plan) == (2, 1, None, ())
    assert sheet.settings == {"steps": 2, "channels": [3, 1]}
    assert sheet.checked_settings().model_dump()["channels"] == (3, 1)
    photo = {"name": "a.png", "sha256": "1" * 64, "width": 3, "height": 2}
    top = read(channels=[], top=2, inputs={"photo": photo})
    assert top.settings == {"steps": 2, "top": 2}
    folder = {"name": "pictures", "count": 3, "sha256": "2" * 64}
    unit = read(recipe="unit", layers=[], channels=[], objective="mixed4c:3", folder=folder)
    assert unit.objectives == ("mixed4c:3",)
    assert unit.inputs == {"pictures": m.Folder(**folder)}
    chosen = {"parameterization": "maco"}
    masked = read(recipe="visualize", layers=[], channels=[], objective=["a:1", "b:2"],
                  transparent=True, settings=chosen)  # fmt: skip
    assert masked.objectives == ("a:1", "b:2")
    assert masked.settings == {"parameterization": "maco", "transparent": True}
    sky = read(recipe="dream", layers=[], channels=[], objective="mixed4c", start="sky")
    assert (sky.start, sky.size) == ("sky", 4)
    # What made no sense in it makes none now.
    for changes, message in [
        ({"top": 2}, "go together"),
        ({"recipe": "visualize", "objective": "a"}, "that names layers"),
        ({"folder": folder}, "with inputs pictures"),
        ({"start": "dusk"}, "is damaged: start"),
        ({"extra": 1}, "is damaged: extra"),
    ]:
        with pytest.raises(RecipeError, match=message):
            read(**changes)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_a_comparison_counts_levels(suffix: str, tmp_path: Path) -> None:
    picture = torch.full((1, 3, 16, 16), 100 / 255)
    path = tmp_path / f"a.{suffix}"
    save_image(picture, path)
    manifest = manifest_of(picture)
    same = compare(manifest, manifest, picture, None, path)
    assert same == Comparison(True, True, 0, 0.0, ())
    bright = picture + 3 / 255
    other = compare(manifest, manifest_of(bright), bright, None, path)
    assert (other.same, other.unchanged) == (False, False)
    lossless = suffix in ("png", "tif")
    assert other.most == pytest.approx(3, abs=0 if lossless else 1)
    assert other.mean == pytest.approx(3, abs=1e-9 if lossless else 1)
    if lossless:
        bright = picture.clone()
        bright[0, 1, 2, 3] += 8 / 255
        other = compare(manifest, manifest_of(bright), bright, None, path)
        assert (other.most, other.mean) == (8, 8 / (3 * 16 * 16))
    small = compare(manifest, manifest_of(picture[..., 1:]), picture[..., 1:], None, path)
    assert (small.same, small.unchanged, small.most) == (False, False, None)
    assert compare(manifest, manifest, picture, None, None).unchanged is None


def test_a_comparison_tells_what_else_differs() -> None:
    old = manifest_of(PHOTO)
    new = old.model_copy(
        update={
            "phosphene": "0.2.0",
            "versions": {**old.versions, "numpy": "1.0", "new": "1"},
            "machine": old.machine.model_copy(update={"threads": 64, "precision": "bf16"}),
        }
    )
    assert compare(old, new, PHOTO, None, None).differing == (
        "phosphene 0.1.0 -> 0.2.0",
        f"numpy {old.versions['numpy']} -> 1.0",
        "precision fp32 -> bf16",
        f"threads {old.machine.threads} -> 64",
        "new none -> 1",
    )


def test_the_hash_is_that_of_the_eight_bit_pixels() -> None:
    expected = hashlib.sha256(to_uint8(PHOTO).tobytes()).hexdigest()
    assert result_of(PHOTO) == m.Result(width=30, height=20, sha256=expected)
    assert result_of(PHOTO + 1e-7).sha256 == expected
