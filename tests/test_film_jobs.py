"""Films as jobs: kept frame by frame, gone on with after a kill, and replayed."""

from __future__ import annotations

import io
import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import phosphene as ph
from phosphene import jobs
from phosphene.cli import main
from phosphene.errors import ImageError, RequestError, SettingsError, StateError
from phosphene.image import to_uint8
from phosphene.jobs.work import WorkFolder, frame_hash
from phosphene.manifest import Manifest
from tests.command import run, start
from tests.on import DEVICE

pytest.importorskip("av")

NET = "tests.toy_network:net"
QUICK = {"octaves": 2, "steps": 2, "precision": "fp32", "device": DEVICE}
FLAGS = ("--network", NET, "--octaves", "2", "--steps", "2", "--precision", "fp32")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    ph.save_image(ph.draw_sky(32, 48, seed=1), "sky.png")
    return tmp_path


def zoom(**more: Any) -> jobs.Request:
    settings = {**QUICK, "frames": 6, "fade": 2, **more.pop("settings", {})}
    given: dict[str, Any] = {
        "recipe": "zoom",
        "network": NET,
        "objectives": ("second", "first"),
        "inputs": {"photo": jobs.InputFile(path="sky.png")},
        "settings": settings,
        "outputs": {"film": "zoom.mp4"},
    }
    return jobs.Request(**(given | more))


def moving(count: int = 8, rate: str = "30000/1001") -> Path:
    """A film of a square that moves over a texture."""
    from fractions import Fraction

    generator = torch.Generator().manual_seed(3)
    ground = torch.rand(1, 3, 32, 48, generator=generator)
    frames = []
    for k in range(count):
        frame = ground.clone()
        frame[..., 8:20, 4 + 2 * k : 16 + 2 * k] = 0.9
        frames.append(frame)
    ph.write_film("in.mp4", frames, rate=Fraction(rate))
    return Path("in.mp4")


def film(**more: Any) -> jobs.Request:
    given: dict[str, Any] = {
        "recipe": "film",
        "network": NET,
        "objectives": ("second",),
        "inputs": {"film": jobs.InputFile(path="in.mp4")},
        "settings": {**QUICK, **more.pop("settings", {})},
        "outputs": {"film": "out.mp4"},
    }
    return jobs.Request(**(given | more))


def stopped_after(job: jobs.Job, frames: int) -> list[Any]:
    """Run a job until so many frames are whole, and stop it as Ctrl-C does; all its events."""
    events, found = job.events(), []
    while True:
        try:
            event = next(events)
        except StopIteration:
            return found
        found.append(event)
        if sum(isinstance(e, jobs.Preview) for e in found) == frames:
            found.append(events.throw(KeyboardInterrupt()))
            return [*found, *events]


def run_whole(request: jobs.Request) -> Manifest:
    events = list(jobs.run(request, allow=(NET,)))
    assert events[-1].json()["why"] == "done", events[-1]
    assert request.main_output is not None
    return Manifest.read(request.main_output)


# --- a zoom ----------------------------------------------------------------------------------


def test_a_zoom_is_a_film_with_its_recipe_inside_that_replays(
    capsys: pytest.CaptureFixture[str],
) -> None:
    layers = ("--layers", "second,first")
    code = main(["zoom", "sky.png", *FLAGS, *layers, "--frames", "4", "-o", "zoom.mp4"])
    done = capsys.readouterr()
    assert code == 0, done.err
    assert done.out == "zoom.mp4\n"
    assert "frame 8/8" in done.err
    assert not Path("zoom.mp4.work").exists()
    manifest = Manifest.read("zoom.mp4")
    assert manifest.recipe == "zoom"
    assert manifest.objectives == ("second", "first")
    assert manifest.film is not None
    assert len(manifest.film.frames) == 8
    info = ph.film_info("zoom.mp4")
    assert (info.count, info.width, info.height, info.rate) == (8, 48, 32, 30)
    assert main(["replay", "--network", NET, "zoom.mp4"]) == 0
    assert "the same, 8 frames" in capsys.readouterr().out
    assert main(["replay", "--network", NET, "zoom.mp4", "--frames", "3-5"]) == 0
    assert "the same, 5 frames" in capsys.readouterr().out
    assert main(["replay", "--network", NET, "zoom.mp4", "--frames", "3-50"]) == 1
    assert "8 frames" in capsys.readouterr().err


def test_a_replay_says_which_frames_are_others(capsys: pytest.CaptureFixture[str]) -> None:
    manifest = run_whole(zoom(outputs={"film": "zoom.mp4", "recipe": "zoom.json"}))
    assert manifest.film is not None
    whole = json.loads(Path("zoom.json").read_text())
    whole["film"]["frames"][3] = "0" * 32
    Path("zoom.json").write_text(json.dumps(whole))
    assert main(["replay", "--network", NET, "zoom.json"]) == 3
    assert "different in 1 of 12 frames, the first is 4" in capsys.readouterr().out


def test_the_function_gives_the_frames_of_the_command() -> None:
    manifest = run_whole(zoom())
    assert manifest.film is not None
    net = ph.load_network(NET)
    frames = ph.zoom("sky.png", net, ["second", "first"], frames=6, fade=2, **QUICK)
    found = [frame_hash(to_uint8(frame.image).tobytes()) for frame in frames]
    assert tuple(found) == manifest.film.frames


def test_steps_tell_frame_time_and_the_dream_within() -> None:
    steps = list(ph.zoom.steps("sky.png", ph.load_network(NET), "second", frames=2, **QUICK))
    assert [step.frame for step in steps] == [0] * 4 + [1] * 4
    assert [step.done for step in steps] == ([False] * 3 + [True]) * 2
    assert steps[-1].time * 30 == 1
    shares = [step.share for step in steps]
    assert shares == sorted(shares)
    assert shares[-1] == 1


# --- stop and go on --------------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 5, 11])
def test_what_was_stopped_goes_on_and_gives_the_same_bytes(after: int) -> None:
    run_whole(zoom(outputs={"film": "whole.mp4"}))
    events = stopped_after(jobs.prepare(zoom(), allow=(NET,)), after)
    assert events[-1].json()["why"] == "interrupted"
    assert f"after frame {after}, " in events[-1].json()["text"]
    assert not Path("zoom.mp4").exists()
    assert sorted(p.name for p in Path("zoom.mp4.work").iterdir())[:2] == ["frames", "frames.jsonl"]
    rest = list(jobs.run(zoom(), allow=(NET,)))
    made = [e for e in rest if isinstance(e, jobs.Preview)]
    assert len(made) == 12 - after
    assert Path("zoom.mp4").read_bytes() == Path("whole.mp4").read_bytes()
    assert not Path("zoom.mp4.work").exists()


def test_what_was_killed_before_it_was_encoded_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    run_whole(zoom(outputs={"film": "whole.mp4"}))
    with monkeypatch.context() as patch:
        patch.setattr("phosphene.jobs.films.write_film", _killed)
        events = list(jobs.run(zoom(), allow=(NET,)))
    assert events[-1].json()["why"] == "interrupted"
    events = list(jobs.run(zoom(), allow=(NET,)))
    assert not [event for event in events if isinstance(event, jobs.Preview)]
    assert Path("zoom.mp4").read_bytes() == Path("whole.mp4").read_bytes()


def _killed(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_a_film_of_other_settings_is_refused_and_nothing_is_lost() -> None:
    stopped_after(jobs.prepare(zoom(), allow=(NET,)), 3)
    before = sorted(Path("zoom.mp4.work/frames").iterdir())
    with pytest.raises(StateError, match="work of another film: its setting step_size is"):
        list(jobs.run(zoom(settings={"step_size": 0.1}), allow=(NET,)))
    assert sorted(Path("zoom.mp4.work/frames").iterdir()) == before
    Path("zoom.mp4.work/request.json").write_text("{}")
    with pytest.raises(StateError, match="in the way"):
        list(jobs.run(zoom(), allow=(NET,)))


def test_how_it_is_encoded_is_checked_first_and_may_change(
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ("zoom", "sky.png", *FLAGS, "--objective", "second", "--frames", "3")
    for words, told in (
        (("--codec", "h265", "-o", "a.mp4"), "h265"),
        (("--crf", "20", "-o", "a.gif"), "crf"),
        (("--codec", "h264", "-o", "a.webm"), "h264"),
    ):
        assert main([*flags, *words]) in (1, 2)
        assert told in capsys.readouterr().err
        assert [path.name for path in Path().iterdir()] == ["sky.png"]
    stopped_after(jobs.prepare(zoom(), allow=(NET,)), 3)
    events = list(jobs.run(zoom(settings={"crf": 30}), allow=(NET,)))
    assert len([event for event in events if isinstance(event, jobs.Preview)]) == 9


def test_a_half_written_frame_is_made_again() -> None:
    run_whole(zoom(outputs={"film": "whole.mp4"}))
    stopped_after(jobs.prepare(zoom(), allow=(NET,)), 5)
    folder = Path("zoom.mp4.work")
    newest = max(folder.glob("state-*"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:100])  # killed while the fifth frame was kept
    with (folder / "frames.jsonl").open("a") as stream:
        stream.write('{"index": 5, "ti')
    assert len(WorkFolder.opened(folder, _identity()).records) == 4
    list(jobs.run(zoom(), allow=(NET,)))
    assert Path("zoom.mp4").read_bytes() == Path("whole.mp4").read_bytes()


def _identity() -> Any:
    return json.loads(Path("zoom.mp4.work/request.json").read_text())["identity"]


def test_a_frame_that_was_changed_is_not_encoded() -> None:
    stopped_after(jobs.prepare(zoom(), allow=(NET,)), 5)
    Image.new("RGB", (48, 32)).save("zoom.mp4.work/frames/000002.png")
    with pytest.raises(ImageError, match=r"000002.png' is not the frame"):
        list(jobs.run(zoom(), allow=(NET,)))
    assert not Path("zoom.mp4").exists()


def test_a_full_disk_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    run_whole(zoom(outputs={"film": "whole.mp4"}))
    written = WorkFolder.add

    def full(self: WorkFolder, step: Any) -> Any:
        if step.frame == 4:
            raise ImageError("cannot write 'x': No space left on device")
        return written(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(WorkFolder, "add", full)
        with pytest.raises(ImageError, match="No space left"):
            list(jobs.run(zoom(), allow=(NET,)))
    assert len(list(Path("zoom.mp4.work/frames").iterdir())) == 4
    list(jobs.run(zoom(), allow=(NET,)))
    assert Path("zoom.mp4").read_bytes() == Path("whole.mp4").read_bytes()


def test_more_disk_than_there_is_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    with pytest.raises(ImageError, match="are free beside"):
        list(jobs.run(zoom(), allow=(NET,)))
    assert not Path("zoom.mp4.work").exists()


def test_frames_are_kept_where_that_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    flags = (*FLAGS, "--objective", "second", "--frames", "3", "--keep-frames")
    assert main(["zoom", "sky.png", *flags, "-o", "z.mp4"]) == 0
    assert [p.name for p in Path("z.mp4.work").iterdir()] == ["frames"]
    frames = sorted(Path("z.mp4.work/frames").iterdir())
    assert [p.name for p in frames] == ["000001.png", "000002.png", "000003.png"]
    hashes = [frame_hash(Image.open(p).convert("RGB").tobytes()) for p in frames]
    manifest = Manifest.read("z.mp4")
    assert manifest.film is not None
    assert tuple(hashes) == manifest.film.frames


@pytest.mark.slow
def test_twenty_kills_at_random_moments() -> None:
    """Each loses the frame that was being made, at most, and the bytes are as ever."""
    rng, kills, started = random.Random(5), 0, time.monotonic()
    words = ("zoom", "sky.png", *FLAGS, "--objective", "second", "--objective", "first",
             "--frames", "6", "--fade", "2", "-o")  # fmt: skip
    assert run(*words, "whole.mp4", cwd=Path.cwd()).code == 0
    command = (*words, "zoom.mp4")
    manifest = Manifest.read("whole.mp4")
    while kills < 20 and time.monotonic() - started < 200:
        shutil.rmtree("zoom.mp4.work", ignore_errors=True)
        Path("zoom.mp4").unlink(missing_ok=True)
        while not Path("zoom.mp4").exists() and kills < 100:
            before = _frames_kept()
            running = start(*command, cwd=Path.cwd())
            while _frames_kept() <= before and not _ended():  # one frame further, at least
                assert running.process.is_alive(), running.err
                time.sleep(0.002)
            time.sleep(rng.random() * 0.05)
            running.process.kill()
            running.process.join()
            kills += 1
            assert _ended() or _frames_kept() >= before
        found = Manifest.read("zoom.mp4")
        assert found.film == manifest.film
    assert kills >= 20
    assert Path("zoom.mp4").read_bytes() == Path("whole.mp4").read_bytes()


def _frames_kept() -> int:
    return len(list(Path("zoom.mp4.work/frames").glob("*.png")))


def _ended() -> bool:
    return Path("zoom.mp4").exists()


# --- a film ----------------------------------------------------------------------------------


def test_a_film_keeps_its_times() -> None:
    pytest.importorskip("cv2")
    source = moving()
    run_whole(film())
    before, after = ph.film_info(source), ph.film_info("out.mp4")
    assert (after.rate, after.count, after.time_base) == (
        before.rate,
        before.count,
        before.time_base,
    )
    times = [[frame.time for frame in ph.read_film(path)] for path in (source, "out.mp4")]
    assert times[0] == times[1]


@pytest.mark.slow
def test_a_film_goes_on_where_it_was_stopped() -> None:
    pytest.importorskip("cv2")
    moving()
    run_whole(film(outputs={"film": "whole.mp4"}))
    stopped_after(jobs.prepare(film(), allow=(NET,)), 3)
    list(jobs.run(film(), allow=(NET,)))
    assert Path("out.mp4").read_bytes() == Path("whole.mp4").read_bytes()


def test_a_part_of_a_film_and_a_smaller_one() -> None:
    pytest.importorskip("cv2")
    moving()
    manifest = run_whole(film(size=32, settings={"begin": "2f", "end": "5f"}))
    assert manifest.film is not None
    assert len(manifest.film.frames) == 3
    info = ph.film_info("out.mp4")
    assert (info.width, info.count) == (32, 3)


def test_a_film_that_changes_meanwhile_is_not_encoded() -> None:
    pytest.importorskip("cv2")
    source = moving()
    job = jobs.prepare(film(), allow=(NET,))
    events = job.events()
    for event in events:
        if isinstance(event, jobs.Preview):
            break
    source.write_bytes(source.read_bytes() + b"\0")
    with pytest.raises(RequestError, match="is not the request's film"):
        list(events)
    assert not Path("out.mp4").exists()


def test_a_film_is_refused_before_anything_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.mp4").write_bytes(b"")
    Path("text.mp4").write_text("#EXTM3U\nhttp://example.org/a.ts\n")
    for source, *words in (
        ("none.mp4", "none.mp4"),
        ("sky.png", "sky.png"),
        ("empty.mp4", "empty.mp4"),
        ("text.mp4", "text.mp4"),
        ("http://example.org/a.mp4", "http://example.org/a.mp4"),
        ("concat:in.mp4|in.mp4", "concat:"),
    ):
        assert main(["film", source, *FLAGS, "-o", "out.mp4"]) in (1, 2)
        error = capsys.readouterr().err.strip()
        assert all(word in error for word in words), error
        assert error.startswith("phosphene: ")
        assert "\n" not in error, error
    assert sorted(p.name for p in Path().iterdir()) == ["empty.mp4", "sky.png", "text.mp4"]


@pytest.mark.slow
def test_a_mask_may_be_a_film() -> None:
    pytest.importorskip("cv2")
    source = moving()
    masks = [torch.zeros(1, 3, 32, 48) for _ in range(8)]
    for mask in masks:
        mask[..., 24:] = 1
    ph.write_film("mask.mp4", masks, rate=30)
    run_whole(film(inputs={
        "film": jobs.InputFile(path="in.mp4"), "mask": jobs.InputFile(path="mask.mp4"),
    }, outputs={"film": "out.mkv"}, settings={"codec": "ffv1"}))  # fmt: skip
    for was, now in zip(ph.read_film(source), ph.read_film("out.mkv"), strict=True):
        change = (now.image - was.image).abs().mean((0, 1, 2))
        assert float(change[:16].max()) < 0.02  # encoded anew, and no more
        assert float(change[30:].mean()) > 0.005


# --- besides ---------------------------------------------------------------------------------


def test_a_still_gives_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    still = ("dream", "sky.png", *FLAGS, "--objective", "second", "--step-size", "0.03")
    assert main([*still, "-o", "still.png"]) == 0
    assert main(["zoom", "sky.png", "--like", "still.png", "--network", NET, "--frames", "2",
                 "--fade", "0", "--device", "cpu", "-o", "z.mp4"]) == 0  # fmt: skip
    manifest = Manifest.read("z.mp4")
    assert manifest.objectives == ("second",)
    assert manifest.settings["step_size"] == 0.03
    assert manifest.settings["octaves"] == 2
    assert manifest.settings["steps"] == 3  # a film's own


@pytest.mark.slow
def test_a_preview_makes_a_frame_and_a_small_film(capsys: pytest.CaptureFixture[str]) -> None:
    flags = (*FLAGS, "--objective", "second", "--frames", "90", "--preview")
    assert main(["zoom", "sky.png", *flags, "-o", "z.mp4"]) == 0
    done = capsys.readouterr()
    assert done.out == "z-preview.png\nz-preview.mp4\n"
    assert "all 90 frames will take about" in done.err
    assert ph.film_info("z-preview.mp4").count == 60
    assert not Path("z.mp4").exists()
    assert not Path("z-preview.mp4.work").exists()


def test_keyframes_change_settings_and_are_checked_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = (*FLAGS, "--objective", "second", "--frames", "5", "-o", "z.mp4")
    assert main(["zoom", "sky.png", *flags, "--key", "blend = 0f: 0; end: 1"]) == 0
    first = next(iter(ph.read_film("z.mp4")))
    assert float((first.image - ph.load_image("sky.png")).abs().mean()) < 0.02
    for key, *words in (
        ("zoom = 4s: 1; 2s: 2", "2s stands after 4s"),
        ("zooom = 1", "'zooom' cannot be keyed", "zoom"),
        ("zoom = 1/0", "no finite number"),
        ("blend = 2", "blend is 2"),
    ):
        capsys.readouterr()
        assert main(["zoom", "sky.png", *flags, "--force", "--key", key]) == 2
        error = capsys.readouterr().err
        assert all(word in error for word in words), error
    plotted = [*flags, "--force", "--key", "zoom = 0s: 1; end: 2", "--plot-keys", "keys.png"]
    assert main(["zoom", "sky.png", *plotted]) == 0
    assert Image.open(io.BytesIO(Path("keys.png").read_bytes())).size[0] > 200


def test_weights_may_be_keyed() -> None:
    net = ph.load_network(NET)

    def frames(objective: str, *keys: str) -> list[torch.Tensor]:
        found = ph.zoom("sky.png", net, objective, frames=4, keyframes=keys, **QUICK)
        return [frame.image for frame in found]

    keyed = frames("2*second + first", "weight1 = 0f: 0; 2f: 3 hold")
    alone, later = frames("first"), frames("3*second + first")
    assert torch.equal(keyed[0], alone[0])
    assert torch.equal(keyed[1], alone[1])
    assert not torch.equal(keyed[2], alone[2])
    assert not torch.equal(keyed[2], later[2])  # what came before was another
    with pytest.raises(SettingsError, match="weight3"):
        frames("2*second + first", "weight3 = 1")


def test_a_film_has_regions_and_the_rest_stays() -> None:
    pytest.importorskip("cv2")
    source = [frame.image for frame in ph.read_film(moving(3))]
    mask = torch.zeros(1, 1, 32, 48)
    mask[..., 30:] = 1
    found = ph.film(source, ph.load_network(NET), regions=[(mask, "second")], rest="stay", **QUICK)
    for was, now in zip(source, found, strict=True):
        change = (now.image - was).abs().amax((0, 1, 2))
        assert float(change[:20].max()) == 0
        assert float(change[34:].min()) > 0


def test_a_film_as_pictures_and_back(capsys: pytest.CaptureFixture[str]) -> None:
    source = moving()
    assert main(["frames", str(source), "-o", "pictures"]) == 0
    assert len(list(Path("pictures").iterdir())) == 8
    assert main(["frames", "pictures", "-o", "back.mkv", "--fps", "30000/1001",
                 "--codec", "ffv1"]) == 0  # fmt: skip
    for was, now in zip(ph.read_film(source), ph.read_film("back.mkv"), strict=True):
        assert float((was.image - now.image).abs().max()) < 0.02
    assert main(["frames", str(source), "-o", "pictures"]) == 1
    assert "not empty" in capsys.readouterr().err


def test_a_request_of_a_film_that_cannot_be() -> None:
    with pytest.raises(SettingsError, match="seconds are"):
        ph.zoom("sky.png", ph.load_network(NET), "second", seconds=2, frames=3)
    with pytest.raises(SettingsError, match=r"1\.5/s or 1\.05/f"):
        ph.zoom("sky.png", ph.load_network(NET), "second", zoom="fast")  # pyright: ignore[reportArgumentType]


def test_a_film_without_a_name_lies_beside_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cv2")
    moving()
    flags = (*FLAGS, "--objective", "second", "--size", "24", "--end", "2f")
    assert main(["film", "in.mp4", *flags]) == 0, capsys.readouterr().err
    assert main(["film", "in.mp4", *flags]) == 0
    assert capsys.readouterr().out == "in-dream.mp4\nin-dream-2.mp4\n"
    info = ph.film_info("in-dream.mp4")
    assert (info.width, info.height, info.count) == (24, 16, 2)
