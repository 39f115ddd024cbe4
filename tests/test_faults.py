"""Every call by which a file is written fails once: the old file or the new one is there, whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from phosphene import jobs
from phosphene import state as states
from phosphene.errors import ImageError
from phosphene.image import read_image, read_recipe, save_image, write_atomically
from phosphene.image.files import check_folder
from phosphene.jobs import Request
from phosphene.network import Network
from phosphene.state import State

CALLS = ("open", "close", "fsync", "replace", "link", "rename")


class Faults:
    """Counts the calls that write; one of them, `due`, fails as a full or a broken disk does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.due, self.number = 0, -1, errno.EIO
        self.armed = False
        for name in CALLS:
            monkeypatch.setattr(os, name, self.failing(name, getattr(os, name)))
        opened = Path.open

        def open_(path: Path, mode: str = "r", *more: Any, **options: Any) -> Any:
            stream = opened(path, mode, *more, **options)
            return Failing(stream, self) if mode == "wb" and path.suffix == ".tmp" else stream

        monkeypatch.setattr(Path, "open", open_)
        monkeypatch.setattr(states, "save_file", self.failing("save_file", states.save_file))

    def failing(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **options: Any) -> Any:
            if name == "close":
                call(*given)  # which frees the number, whatever it says
            self.strike()
            return None if name == "close" else call(*given, **options)

        return run

    def strike(self) -> None:
        if not self.armed:
            return
        self.count += 1
        if self.count - 1 == self.due:
            raise OSError(self.number, os.strerror(self.number))

    def each(self, work: Callable[[], Any], check: Callable[[ImageError | None], None]) -> int:
        """Work once for each call that it makes, which fails; the number of these."""
        calls, due = 1, -1  # and first without any fault
        while due < calls:
            for number in (errno.ENOSPC, errno.EIO):
                self.count, self.due, self.number, self.armed = 0, due, number, True
                error = None
                try:
                    work()
                except ImageError as caught:
                    error = caught
                self.armed = False
                if due < 0:
                    calls = self.count
                    assert error is None
                check(error)
            due += 1
        return calls


class Failing:
    """A stream of which a write may fail, half done."""

    def __init__(self, stream: Any, faults: Faults) -> None:
        self.stream, self.faults = stream, faults

    def __enter__(self) -> Failing:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def fileno(self) -> int:
        return self.stream.fileno()

    def write(self, data: bytes) -> int:
        try:
            self.faults.strike()
        except OSError:
            self.stream.write(data[: len(data) // 2])
            raise
        return self.stream.write(data)


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(monkeypatch)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("there", [True, False])
def test_a_picture(there: bool, tmp_path: Path, faults: Faults) -> None:
    path, old, new = tmp_path / "a.png", torch.zeros(3, 9, 9), torch.ones(3, 9, 9)

    def write() -> None:
        path.unlink(missing_ok=True)
        if there:
            faults.armed = False
            save_image(old, path, recipe="{}")
            faults.armed = True
        save_image(new, path, recipe="[]", overwrite=there)

    def check(error: ImageError | None) -> None:
        assert error is None or "\n" not in str(error)
        assert names(tmp_path) in (["a.png"], [] if error and not there else ["a.png"])
        if path.exists():
            whole = (float(read_image(path).pixels.mean()), read_recipe(path))
            assert whole in ([(0.0, "{}"), (1.0, "[]")] if error else [(1.0, "[]")])

    assert faults.each(write, check) >= 6


def test_a_recipe(tmp_path: Path, faults: Faults) -> None:
    path = tmp_path / "a.json"

    def write() -> None:
        faults.armed = False
        path.write_text("old")
        faults.armed = True
        write_atomically(path, b"new")

    def check(error: ImageError | None) -> None:
        assert names(tmp_path) == ["a.json"]
        assert path.read_text() in (("old", "new") if error else ("new",))

    assert faults.each(write, check) >= 6


def test_a_folder_that_is_tried(tmp_path: Path, faults: Faults) -> None:
    faults.each(lambda: check_folder(tmp_path / "a"), lambda _: None)
    assert names(tmp_path) == []


def test_a_state(tmp_path: Path, faults: Faults) -> None:
    path = tmp_path / "a.state"
    old, new = (State({"x": torch.full((4,), k)}, {"k": k}) for k in (1.0, 2.0))

    def write() -> None:
        faults.armed = False
        old.save(path)
        faults.armed = True
        new.save(path)

    def check(error: ImageError | None) -> None:
        assert names(tmp_path) == ["a.state"]
        assert State.load(path).values["k"] in ((1.0, 2.0) if error else (2.0,))

    assert faults.each(write, check) >= 5


@pytest.mark.slow
def test_a_dream_with_all_that_it_writes(tmp_path: Path, toy: Network, faults: Faults) -> None:
    """Picture, recipe, octaves and checkpoint: what is there is whole, and an octave costs none."""

    def write() -> None:
        for path in sorted(tmp_path.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        outputs = {"picture": "out.png", "recipe": "out.json", "octaves": "octaves"}
        request = Request(
            recipe="dream", start="noise", size=24, objectives=("second",),
            settings={"steps": 1, "octaves": 2, "device": "cpu", "precision": "fp32"},
            outputs={kind: str(tmp_path / name) for kind, name in outputs.items()},  # pyright: ignore
        )  # fmt: skip
        job = jobs.prepare(request, network=toy, checkpoint=tmp_path / "c", checkpoint_every=0)
        list(job.events())

    def check(error: ImageError | None) -> None:
        for path in tmp_path.rglob("*"):
            assert not path.name.endswith(".tmp"), path
            if path.suffix == ".png":
                assert read_image(path).pixels.shape[-1] == 24
                assert read_recipe(path)
            elif path.name == "c":
                State.load(path)
        assert error is not None or (tmp_path / "out.png").exists()

    assert faults.each(write, check) > 20
