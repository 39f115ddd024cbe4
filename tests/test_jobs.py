"""Requests, and the jobs that run them. What is made is `test_cli.py`'s and the recipes' own."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
import weakref
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from phosphene import jobs
from phosphene.cli.reporter import Reporter
from phosphene.errors import ImageError, ObjectiveError, RequestError, SettingsError
from phosphene.jobs import Ended, InputFile, Note, Preview, Progress, Request, Saved, Started
from phosphene.manifest import Manifest
from tests import command
from tests.command import Say
from tests.on import DEVICE
from tests.photos import small_photo

NET = "tests.toy_network:net"
FAST: dict[str, Any] = {"steps": 2, "device": DEVICE, "precision": "fp32"}
FLAGS = ("--steps", 2, "--device", "cpu", "--precision", "fp32")
SMALL = ("--size", 24)
VERBS: dict[str, tuple[object, ...]] = {
    "dream": ("photo.png", "--objective", "second + guide(first, 'other.png')", "--octaves", 2),
    "visualize": ("second:3", "second:1", *SMALL),
    "caricature": ("photo.png", "--layer", "first", "--layer", "second", *SMALL),
    "invert": ("photo.png", *SMALL),
    "accentuate": ("photo.png", "second:3", *SMALL),
    "style": ("photo.png", "other.png", "--painting-size", 20, *SMALL),
    "sheet": ("second", "--channels", "0-1", *SMALL),
    "unit": ("second:3", "--pictures", "pictures", "--seeds", 1, *SMALL),
}


@pytest.fixture(autouse=True)
def here(workplace: Path) -> Path:
    small_photo(workplace / "photo.png", 0)
    small_photo(workplace / "other.png", 1)
    (workplace / "pictures").mkdir()
    for seed in (2, 3):
        small_photo(workplace / "pictures" / f"{seed}.png", seed)
    return workplace


def words_of(verb: str) -> tuple[object, ...]:
    network = (NET,) if verb in ("sheet", "unit") else ()
    flag = () if network else ("--network", NET)
    return (verb, *network, *VERBS[verb], *FLAGS, *flag)


def pixels(name: str | Path) -> np.ndarray:
    return np.asarray(Image.open(name).convert("RGB"))


def dream(**changes: Any) -> Request:
    given: dict[str, Any] = {
        "recipe": "dream",
        "network": NET,
        "objectives": ("second",),
        "inputs": {"photo": InputFile(path="photo.png")},
        "settings": {**FAST, "octaves": 2},
        "outputs": {"picture": "out.png"},
    }
    return Request(**(given | changes))


def refused(done: command.Done, *words: str, code: int = 1) -> None:
    assert (done.code, done.out) == (code, ""), done
    line = done.err.strip().splitlines()[-1]
    assert line.startswith("phosphene: ")
    assert all(word in line for word in words), line


# --- saved and run ---------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_a_saved_request_gives_what_the_verb_gave(verb: str, say: Say, here: Path) -> None:
    done = say(*words_of(verb), "-o", "a.png", "--save-request", "job.json")
    assert done.code == 0, done
    request = Request.read("job.json")
    assert request.recipe == verb
    text = Path("job.json").read_text()
    assert str(here) not in text
    # Complete: it does not hang on any default. Of regions nothing is said where there are none.
    assert request.settings == request.declaration.dump_settings(request.checked_settings(), ())
    assert request.objectives or request.layers or verb == "style"
    # From elsewhere, with all that it names moved along.
    shutil.copytree(here, here / "moved", ignore=shutil.ignore_patterns("a.png", "cache"))
    Path("elsewhere").mkdir()
    os.chdir("elsewhere")
    done = say("run", "../moved/job.json", "--network", NET)
    assert done.code == 0, done
    assert np.array_equal(pixels("../moved/a.png"), pixels(here / "a.png"))
    old, new = Manifest.read(here / "a.png"), Manifest.read("../moved/a.png")
    assert old == new
    refused(say("run", "../moved/job.json", "--network", NET), "a.png", "already there")
    assert say("run", "../moved/job.json", "--network", NET, "--force").code == 0


def test_a_dry_run_saves_and_checks_and_makes_nothing(say: Say) -> None:
    done = say(*words_of("dream"), "--save-request", "job.json", "--dry-run")
    assert (done.code, done.out) == (0, ""), done
    assert "checked, and not made: photo-dream.png" in done.err
    assert not Path("photo-dream.png").exists()
    refused(say(*words_of("dream"), "--save-request", "job.json", "--dry-run"), "already there")
    Image.new("RGB", (2, 2)).save("photo-dream.png")
    done = say(*words_of("dream"), "--dry-run")
    assert "checked, and not made: photo-dream-2.png" in done.err
    Path("photo-dream.png").unlink()
    assert say("run", "job.json", "--network", NET, "--dry-run").code == 0
    refused(say(*words_of("dream"), "--mask", "none.png", "--dry-run"), "there is no file")
    for words in (("--save-request", "photo.png"), ("-o", "x.json", "--save-request", "x.json")):
        assert say(*words_of("dream"), *words, "--force", "--dry-run").code in (1, 2)
    assert pixels("photo.png").shape == (24, 32, 3)


def test_a_request_is_json_and_reads_back() -> None:
    request = dream(size=20, start="photo").relative_to(".")
    assert Request.parse(request.text()) == request
    assert json.loads(request.text())["format"] == 1
    file = Request(**json.loads(dream(network=f"file:w.pt@{NET}").text()))
    moved = file.moved(lambda path: f"x/{path}")
    assert moved.network == f"file:x/w.pt@{NET}"
    assert (moved.inputs["photo"].path, moved.outputs["picture"]) == ("x/photo.png", "x/out.png")
    assert set(file.input_paths()) == {"photo", "weights"}


def test_the_key_is_of_what_a_result_depends_on(here: Path) -> None:
    weights = "0" * 64
    with pytest.raises(RequestError, match="photo is not known yet"):
        dream().key(weights)
    key = dream().pinned().key(weights)
    shutil.copy("photo.png", "copy.png")
    copy = {"photo": InputFile(path="copy.png")}
    assert dream(outputs={"picture": "b.jpg"}).pinned().key(weights) == key
    assert dream(inputs=copy).pinned().key(weights) == key
    # Defaults are settings, too.
    assert dream(settings={**FAST, "octaves": 2, "seed": 0}).pinned().key(weights) == key
    others = [
        dream(settings={**FAST, "octaves": 2, "seed": 1}),
        dream(objectives=("first",)),
        dream(size=20),
        dream(inputs={"photo": InputFile(path="other.png")}),
    ]
    keys = {other.pinned().key(weights) for other in others} | {dream().pinned().key("1" * 64)}
    assert len(keys) == len(others) + 1
    assert key not in keys


# --- events ----------------------------------------------------------------------------------


def test_a_job_tells_what_it_does() -> None:
    octaves = {"picture": "out.png", "recipe": "out.json", "octaves": "octaves"}
    events = list(jobs.run(dream(outputs=octaves), allow=(NET,)))
    kinds = [type(event) for event in events if not isinstance(event, Note)]
    assert kinds[0] is Started
    assert kinds.count(Progress) == kinds.count(Preview) == 4
    progress = [event for event in events if isinstance(event, Progress)]
    assert [event.milestone for event in progress] == [False, True, False, True]
    shares = [event.share for event in progress]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    saved = [(event.kind, str(event.path)) for event in events if isinstance(event, Saved)]
    assert saved == [
        ("octaves", "octaves/out-octave1.png"),
        ("octaves", "octaves/out-octave2.png"),
        ("picture", "out.png"),
        ("recipe", "out.json"),
    ]
    assert events[-1] == Ended("done")
    for event in events:
        json.dumps(event.json())
    preview = [event for event in events if isinstance(event, Preview)][-1]
    assert preview.picture().shape == (1, 3, 24, 32)
    manifest = Manifest.read("out.png")
    assert manifest.plan == (None, None)
    digest = hashlib.sha256(pixels("out.png").tobytes()).hexdigest()
    assert manifest.result is not None
    assert manifest.result.sha256 == digest


def test_an_interruption_saves_what_there_is() -> None:
    events: Generator[Any, None, None] = jobs.run(dream(), allow=(NET,))
    for event in events:
        if isinstance(event, Progress) and event.share > 0.5:
            break
    rest = [events.throw(KeyboardInterrupt()), *events]
    assert [type(event) for event in rest] == [Saved, Ended]
    ended = Manifest.read("out.png").ended
    assert ended is not None
    assert (ended.why, ended.octave, ended.step) == ("interrupted", 2, 1)
    assert (rest[-1].why, rest[-1].octave, rest[-1].step) == ("interrupted", 2, 1)


@pytest.mark.slow
def test_a_follower_holds_no_picture_of_a_step_that_is_past() -> None:
    alive: list[weakref.ref[Any]] = []
    counts: list[int] = []

    def watched(events: Generator[Any, None, None]) -> Generator[Any, None, None]:
        for event in events:
            if isinstance(event, Progress):
                gc.collect()
                counts.append(sum(ref() is not None for ref in alive))
                alive.append(weakref.ref(event.step.image))
            yield event

    events = jobs.run(dream(settings={**FAST, "octaves": 2, "steps": 6}), allow=(NET,))
    found, ended = Reporter(quiet=True).follow(watched(events))
    assert ended.why == "done"
    assert not any(isinstance(event, (Preview, Progress)) for event in found)
    assert len(counts) == 12
    assert max(counts) <= 2, counts


def test_a_job_that_nobody_finishes_saves_nothing() -> None:
    events = jobs.run(dream(), allow=(NET,))
    for event in events:
        if isinstance(event, Progress):
            break
    events.close()
    assert not Path("out.png").exists()


def test_what_is_not_done_has_no_result() -> None:
    job = jobs.prepare(dream(), allow=(NET,))
    assert not Path("out.png").exists()
    assert job.request.inputs["photo"].sha256 is not None
    assert job.request.start == "photo"


# --- what is refused -------------------------------------------------------------------------


def test_requests_that_are_none(say: Say) -> None:
    good = json.loads(dream().text())
    for changes, *words in [
        ({"format": 2}, "is a request of format 2, this phosphene reads 1: upgrade"),
        ({"format": 0}, "is no request of phosphene: format"),
        ({"more": 1}, "is no whole request: more"),
        ({"recipe": "dreem"}, "no recipe 'dreem'; the closest are dream"),
        ({"settings": {"octaves": 0}}, "octaves"),
        ({"settings": {"octave": 1}}, "no setting 'octave'; the closest are octave"),
        ({"outputs": {"data": "a.json"}}, "dream gives no data; there are picture, recipe, oct"),
        ({"outputs": {"film": "a.mp4"}}, "dream gives no film; there are picture, recipe, octaves"),
        ({"outputs": {"sound": "a.wav"}}, "is no whole request: outputs.sound"),
        ({"layers": ["first"]}, "a recipe of dream that names layers"),
        ({"objectives": ["first", "second"]}, "with 2 objectives"),
        ({"recipe": "style", "objectives": []}, "a recipe of style that names no painting"),
        ({"start": "dusk"}, "is no whole request: start"),
        ({"inputs": {"photo": {"path": "photo.png", "sha256": "1"}}}, "inputs.photo.sha256"),
    ]:
        Path("job.json").write_text(json.dumps(good | changes))
        done = say("run", "job.json", "--network", NET)
        refused(done, *words, code=done.code or 1)
    for text in ("", "{", "[]", "null", '{"format": 1}', good["recipe"]):
        Path("job.json").write_text(text)
        refused(say("run", "job.json"), "is no request of phosphene")
    refused(say("run", "none.json"), "cannot read the request 'none.json'")


def test_inputs_that_are_gone_or_others(say: Say) -> None:
    request = dream().pinned()
    Path("job.json").write_text(request.text())
    shutil.copy("other.png", "photo.png")
    words = ("is not the request's photo", request.inputs["photo"].sha256 or "")
    refused(say("run", "job.json", "--network", NET), words[0], words[1][:12])
    Path("photo.png").unlink()
    refused(say("run", "job.json", "--network", NET), "there is no file")
    Path("job.json").write_text(dream(objectives=("guide(second, 'x.png')",)).text())
    refused(say("run", "job.json", "--network", NET), "there is no file")
    small_photo(Path("photo.png"), 0)
    refused(say("run", "job.json", "--network", NET), "names the picture 'x.png', its inputs do")


def test_outputs_that_may_not_be_written(say: Say, here: Path) -> None:
    os.link("photo.png", "link.png")
    Path("soft.png").symlink_to(here / "photo.png")
    Path("there.png").write_bytes(b"here first")
    before = {path: path.read_bytes() for path in here.iterdir() if path.is_file()}
    for outputs, message in [
        ({"picture": "photo.png"}, "never replaced"),
        ({"picture": "link.png"}, "never replaced"),
        ({"picture": "soft.png"}, "never replaced"),
        ({"picture": "out.png", "recipe": "photo.png"}, "never replaced"),
        ({"picture": "out.png", "recipe": "out.png"}, "both to be 'out.png'"),
        ({"picture": "out.png", "recipe": "./pictures/../out.png"}, "both to be"),
    ]:
        for force in (True, False):
            error = pytest.raises((SettingsError, ImageError))
            with error as raised:
                list(jobs.run(dream(outputs=outputs), allow=(NET,), force=force))
            assert message in str(raised.value) or not force
    with pytest.raises(ImageError, match="already there"):
        jobs.prepare(dream(outputs={"picture": "there.png"}), allow=(NET,))
    for outputs in ({"picture": "none/out.png"}, {"picture": "out.txt"}, {"picture": "pictures"}):
        with pytest.raises(ImageError):
            jobs.prepare(dream(outputs=outputs), allow=(NET,), force=True)
    after = {path: path.read_bytes() for path in here.iterdir() if path.is_file()}
    assert after == before


def test_a_strangers_request_starts_no_code(say: Say) -> None:
    Path("job.json").write_text(dream(network="evil:net").text())
    Path("evil.py").write_text("open('ran', 'w').close()\n")
    refused(say("run", "job.json"), "'evil:net' may be code", "--network evil:net")
    Path("job.json").write_text(dream(network="file:photo.png@evil:net").text())
    refused(say("run", "job.json"), "may be code")
    plugin = {"plugins": [{"name": "evil"}]}
    Path("job.json").write_text(json.dumps(json.loads(dream().text()) | plugin))
    told = ("the request needs the plugin evil, which is not loaded", "add --plugin evil.py")
    refused(say("run", "job.json", "--network", NET), *told)
    assert not Path("ran").exists()


def test_what_a_recipe_lacks(say: Say) -> None:
    bare = Request(recipe="visualize", network=NET, outputs={"picture": "out.png"})
    with pytest.raises(SettingsError, match="nothing to draw"):
        jobs.prepare(bare, allow=(NET,))
    wrong = dream(objectives=("second +",))
    with pytest.raises(ObjectiveError):
        jobs.prepare(wrong, allow=(NET,))


def test_a_unit_that_is_not_named(say: Say) -> None:
    Path("job.json").write_text('{"format": 1, "recipe": "unit", "network": "%s"}' % NET)  # noqa: UP031
    refused(say("run", "job.json", "--network", NET), "unit needs a unit", code=2)


def test_the_request_is_neither_read_nor_written_over(say: Say) -> None:
    before = Path("other.png").read_bytes()
    words = ("dream", "photo.png", "--network", NET, "--objective", "second", *FLAGS, "--force")
    for more in (
        ("--guide", "other.png", "--save-request", "other.png"),
        ("--recipe", "a.json", "--save-request", "a.json"),
        ("--save-octaves", "o", "--save-request", "o/out-octave1.png"),
        ("--save-octaves", "o", "--recipe", "o/out-octave12.png"),
    ):
        Path("o").mkdir(exist_ok=True)
        done = say(*words, "-o", "out.png", *more)
        assert (done.code, done.out) == (2, ""), done
        assert "never replaced" in done.err or "both to be" in done.err
    assert Path("other.png").read_bytes() == before
    done = say("sheet", NET, "second", *FLAGS, *SMALL, "-o", "s.png", "--data", "d.json",
               "--save-request", "d.json")  # fmt: skip
    assert (done.code, "both to be 'd.json'" in done.err) == (2, True), done
    Path("job.json").write_text(dream(outputs={"picture": "x.png", "recipe": "job.json"}).text())
    refused(say("run", "job.json", "--network", NET, "--force"), "is the request itself", code=2)
    # Nor is the code of a network.
    Path("mine.py").write_text("from tests.toy_network import net\n")
    words = ("dream", "photo.png", "--network", "mine:net", "--objective", "second", *FLAGS)
    refused(say(*words, "-o", "x.png", "--recipe", "mine.py", "--force"), "never", code=2)
    assert "import net" in Path("mine.py").read_text()


def test_what_a_request_says_is_not_passed_over(say: Say) -> None:
    photo = InputFile(path="photo.png")
    for request, words in [
        (dream(inputs={"photo": photo, "zork": photo}), "names its input 'zork'"),
        (dream(outputs={"recipe": "a.json"}), None),
        (dream(inputs={"photo": InputFile(path="p" * 300 + ".png")}), "File name too long"),
        (dream(outputs={"picture": "out.png", "recipe": "p" * 300}), "File name too long"),
    ]:
        Path("job.json").write_text(request.text())
        done = say("run", "job.json", "--network", NET)
        if words:
            refused(done, words)
    with pytest.raises(RequestError, match="names recipe and no picture, beside"):
        jobs.prepare(dream(outputs={"recipe": "b.json"}), allow=(NET,))
    with pytest.raises(ValueError, match="the size of the photo is the request's own size"):
        dream(inputs={"photo": InputFile(path="photo.png", size=20)})
    with pytest.raises(ValueError, match="no NUL"):
        dream(outputs={"picture": "a\0.png"})
    unit = Request(recipe="unit", network=NET, objectives=("second:3",),
                   inputs={"pictures": InputFile(path="pictures", sha256="0" * 64)})  # fmt: skip
    with pytest.raises(RequestError, match="is not the request's pictures"):
        jobs.prepare(unit, allow=(NET,))
    inputs = {"pictures": InputFile(path="pictures")}
    assert unit.model_copy(update={"inputs": inputs}).pinned().key("0" * 64)


def test_a_range_of_channels_is_as_many_objectives() -> None:
    asked = {"format": 1, "recipe": "visualize", "objectives": ["second:1-3", "first"]}
    request = Request.parse(json.dumps(asked))
    assert request.objectives == ("second:1", "second:2", "second:3", "first")
    assert Request(recipe="visualize", objectives=("second:1-3", "first")) == request
    for texts in (["second:3-1"], ["second:0-1023"] * 65, [3]):
        with pytest.raises(RequestError, match=r"channels|objectives"):
            Request.parse(json.dumps(asked | {"objectives": texts}))


def test_a_request_without_a_start_begins_as_the_command_does() -> None:
    request = dream(inputs={}, size=20, settings={**FAST, "octaves": 1})
    job = jobs.prepare(request, allow=(NET,))
    assert job.request.start == "sky"
    assert job.arguments.images["photo"].shape == (1, 3, 13, 20)


@pytest.mark.parametrize("start", ["sky", "noise", None])
def test_the_colours_of_no_photo_are_not_kept(start: Any, say: Say) -> None:
    settings = {**FAST, "octaves": 1, "keep_colors": True}
    request = dream(inputs={}, start=start, size=20, settings=settings)
    told = f"--keep-colors needs a photograph, and --start {start or 'sky'} has none"
    with pytest.raises(SettingsError, match=told):
        jobs.prepare(request, allow=(NET,))
    assert jobs.prepare(dream(settings=settings), allow=(NET,)).steps()
    # What was made before that was said replays as it was.
    list(jobs.prepare(request, allow=(NET,), recorded=True).events())
    assert say("replay", "out.png", "--network", NET).out == "out.png: the same, pixel for pixel\n"


def test_who_is_interrupted_while_told_of_files_has_them() -> None:
    events = jobs.run(dream(), allow=(NET,))
    for event in events:
        if isinstance(event, Saved):
            break
    assert isinstance(events.throw(KeyboardInterrupt()), Ended)
    assert Path("out.png").exists()


def test_a_key_does_not_go_by_the_names_of_pictures() -> None:
    shutil.copy("other.png", "renamed.png")
    keys = {
        dream(
            objectives=(f"guide(second, '{name}')",),
            inputs={"photo": InputFile(path="photo.png"), name: InputFile(path=name)},
        ).pinned().key("0" * 64)
        for name in ("other.png", "renamed.png")
    }  # fmt: skip
    assert len(keys) == 1


def test_a_page_that_says_it_ended_early_is_whole(say: Say) -> None:
    words = ("sheet", NET, "second", "--channels", "0-1", *FLAGS, *SMALL)
    assert say(*words, "-o", "a.png", "--recipe", "a.json").code == 0
    ended = {"ended": {"why": "interrupted", "octave": 1, "step": 1}}
    Path("b.json").write_text(json.dumps(json.loads(Path("a.json").read_text()) | ended))
    done = say("replay", "b.json", "--network", NET)
    assert (done.code, "the same" in done.out) == (0, True), done
