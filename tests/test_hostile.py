"""Small hostile things: names that are too long or no text, numbers that wrap, files that lie."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from phosphene import jobs
from phosphene.cli import main
from phosphene.cli.exits import explained
from phosphene.cli.reporter import check_journal
from phosphene.errors import ImageError, RequestError, SettingsError, WeightsError
from phosphene.image import read_image, save_image
from phosphene.image.files import PAGES, count_gif_frames
from phosphene.jobs import Note, Request, Saved
from phosphene.jobs.request import OutputKind, picture_roles
from phosphene.network import Network, pick_device
from phosphene.zoo import load_network


def dream(folder: Path, **more: Any) -> Request:
    return Request(
        recipe="dream", start="noise", size=24, objectives=("second",),
        settings={"steps": 1, "octaves": 1, "device": "cpu", "precision": "fp32"},
        outputs={"picture": str(folder / "out.png")}, **more,
    )  # fmt: skip


# Names --------------------------------------------------------------------------------------------


def test_names_that_are_too_long_are_told() -> None:
    long = "x" * 300
    with pytest.raises(WeightsError, match="File name too long"):
        load_network(f"file:{long}@resnet18")
    with pytest.raises(ImageError, match="File name too long"):
        check_journal(Path(long))


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_a_request_with_a_path_that_is_no_text_is_read_again(tmp_path: Path) -> None:
    name = os.fsdecode(b"sk\xffy.png")
    save_image(torch.rand(3, 8, 8), tmp_path / name)
    request = dream(tmp_path).model_copy(
        update={"start": None, "size": None, "inputs": {"photo": {"path": name}}}
    )
    request = Request.model_validate(request.model_dump())
    file = tmp_path / "job.json"
    file.write_bytes(request.text().encode("utf-8", "surrogateescape"))
    assert Request.read(file).input_paths()["photo"].name == name
    file.write_bytes(b'{"format": 1, "recipe": "dr\xffeam"}')
    with pytest.raises(jobs_error()):
        Request.read(file)
    # A recipe holds text: an objective's picture is called by one there.
    (role,) = picture_roles([name], ()).values()
    assert role.encode("utf-8") == b"sk?y.png"


def jobs_error() -> type[Exception]:
    from phosphene.errors import RequestError

    return RequestError


# Numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cuda:999", "cuda:256", "cuda:128", "cpu:300", "mps:999"])
def test_a_devices_number_does_not_wrap(device: str) -> None:
    """torch keeps it in a byte, and cuda:256 was cuda:0."""
    with pytest.raises(SettingsError, match="device"):
        pick_device(device)


def test_a_size_beyond_any_picture_is_refused(tmp_path: Path) -> None:
    save_image(torch.rand(3, 8, 8), tmp_path / "sky.png")
    photo = {"path": str(tmp_path / "sky.png")}
    asked = {"format": 1, "recipe": "dream", "inputs": {"photo": photo}}
    for more in ({"size": 10**400}, {"inputs": {"photo": photo, "mask": photo | {"size": 10**9}}}):
        with pytest.raises(RequestError, match="less than or equal to 1000000"):
            Request.parse(json.dumps(asked | more))
    assert Request.parse(json.dumps(asked | {"size": 10**6})).size == 10**6


def test_a_size_beyond_any_picture_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dream", "--start", "noise", "--size", "9" * 400]) == 2
    assert "size is beyond 1000000 px" in capsys.readouterr().err


# Nothing lost -------------------------------------------------------------------------------------


def files_of(job: jobs.Job, meanwhile: Any) -> list[Path]:
    saved = []
    for event in job.events():
        if isinstance(event, jobs.Progress):
            meanwhile()
        if isinstance(event, Saved):
            saved.append(event.path)
    return saved


def test_a_file_that_came_meanwhile_costs_no_result(
    tmp_path: Path, toy: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.png"
    job = jobs.prepare(dream(tmp_path), network=toy)
    assert files_of(job, lambda: out.write_text("another's")) == [tmp_path / "out-2.png"]
    assert out.read_text() == "another's"
    assert read_image(tmp_path / "out-2.png").pixels.shape[-1] == 24
    # Of two that choose the same numbered name, the second takes the next.
    monkeypatch.chdir(tmp_path)
    request = dream(tmp_path).model_copy(update={"outputs": {}})
    job = jobs.prepare(request, network=toy, name_output=True)
    rival = Path("dream.png")
    assert files_of(job, lambda: rival.write_text("a rival's")) == [Path("dream-2.png")]
    job = jobs.prepare(request, network=toy, name_output=True)
    rival = Path("dream-3.png")
    assert files_of(job, lambda: rival.write_text("a rival's")) == [Path("dream-4.png")]


def test_a_recipe_that_cannot_be_saved_costs_no_picture(
    tmp_path: Path, toy: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outputs: dict[OutputKind, str] = {"picture": "{}.png", "recipe": "recipes/{}.json"}
    small = {"size": 16, "steps": 1, "device": "cpu", "precision": "fp32"}
    request = Request(
        recipe="visualize", objectives=("second:1", "second:2"), settings=small, outputs=outputs
    )
    Path("recipes").mkdir()
    job = jobs.prepare(request, network=toy)
    taken = Path("recipes/second-1.json")
    assert files_of(job, lambda: taken.write_text("another's")) == [
        Path("second-1.png"), Path("recipes/second-1-2.json"),
        Path("second-2.png"), Path("recipes/second-2.json"),
    ]  # fmt: skip
    assert taken.read_text() == "another's"
    job = jobs.prepare(request, network=toy, force=True)
    told = list(job_events_without(job, Path("recipes")))
    assert [event.path.name for event in told if isinstance(event, Saved)] == [
        "second-1.png", "second-2.png",
    ]  # fmt: skip
    notes = [event.text for event in told if isinstance(event, Note)]
    assert sum("is not saved" in note for note in notes) == 2


def job_events_without(job: jobs.Job, folder: Path) -> Iterator[Any]:
    """A job's events; the folder of its recipes goes while it runs."""
    for event in job.events():
        if isinstance(event, jobs.Progress):
            shutil.rmtree(folder, ignore_errors=True)
        yield event


def test_data_that_is_in_the_way_keeps_its_own_name(
    tmp_path: Path, toy: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = {"size": 16, "steps": 1, "channels": (2,), "device": "cpu", "precision": "fp32"}
    request = Request(recipe="sheet", layers=("first",), settings=small, outputs={"data": "d.json"})
    job = jobs.prepare(request, network=toy, name_output=True, cache=False)
    page, data = files_of(job, lambda: Path("d.json").write_text("another's"))
    assert (page.suffix, data) == (".png", Path("d-2.json"))


# Too little memory, and interruptions -------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libtorch.so: failed to map segment from shared object"),
        ImportError("libmkl.so: cannot allocate memory in static TLS block"),
        RuntimeError("std::bad_alloc"),
        MemoryError(),
    ],
)
def test_a_lack_of_memory_is_told_as_one(error: Exception) -> None:
    assert explained(error).startswith("out of memory")
    assert not explained(ImportError("no module named nothing")).startswith("out of memory")


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (KeyboardInterrupt(), 130, "phosphene: interrupted\n"),
        (ImportError("failed to\nmap"), 1, "phosphene: cannot start: failed to map\n"),
    ],
)
def test_what_ends_the_imports_is_told_in_a_line(
    error: BaseException, code: int, told: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    class Finder:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name == "phosphene.cli":
                raise error

    for name in [name for name in sys.modules if name.startswith("phosphene.cli")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("phosphene", run_name="__main__", alter_sys=False)
    assert caught.value.code == code
    assert capsys.readouterr().err == told


def test_the_command_starts_where_its_imports_are_guarded() -> None:
    words = [sys.executable, "-c", "from phosphene.__main__ import main; raise SystemExit(main())"]
    done = subprocess.run([*words, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# Frames -------------------------------------------------------------------------------------------


def gif(frames: int) -> bytes:
    """A GIF of so many frames of one pixel, each with a comment before it."""
    frame = b"!\xfe\x03abc\0" + b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\2\2D\1\0"
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(3) + b"\xff" * 3
    return head + frame * frames + b";"


def test_frames_of_a_gif_are_counted_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.gif"
    for count in (1, 2, 7):
        file.write_bytes(gif(count))
        with file.open("rb") as stream, Image.open(file) as image:
            assert count_gif_frames(stream, 100) == count == image.n_frames  # type: ignore[attr-defined]
    file.write_bytes(gif(300_000))
    # Pillow, which reads every frame to count them, is not asked at all.
    monkeypatch.setattr(GifImageFile, "n_frames", property(lambda _: pytest.fail("all are read")))
    with file.open("rb") as stream:
        assert count_gif_frames(stream, PAGES + 1) == PAGES + 1
    assert f"first of more than {PAGES} frames" in read_image(file).notes
