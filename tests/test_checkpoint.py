"""Going on after a kill: the same bytes as if nothing had happened, and little done twice."""

import itertools
import json
import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest
import torch

import phosphene as ph
from phosphene import jobs
from phosphene.cli.signals import Terminated, ending_signals
from phosphene.errors import ImageError, SettingsError, StateError
from phosphene.jobs.checkpoint import Checkpoint
from phosphene.manifest.schema import Manifest
from phosphene.state import State
from tests.command import Running, run, start

BRIEF = ("dream", "sky.png", "--octaves", 3, "--precision", "fp32")
DREAM = (*BRIEF, "--steps", 3)


@pytest.fixture
def folder(tmp_path):
    ph.save_image(ph.draw_sky(80, 120, seed=1), tmp_path / "sky.png")
    return tmp_path


def request(folder: Path, **more) -> jobs.Request:
    given = {
        "recipe": "dream",
        "objectives": ("mixed4a",),
        "inputs": {"photo": jobs.InputFile(path=str(folder / "sky.png"))},
        "settings": {"octaves": 3, "steps": 3, "precision": "fp32"},
        "outputs": {"picture": str(folder / "dream.png")},
    }
    return jobs.Request(**(given | more))  # pyright: ignore[reportArgumentType]


def steps_of(events) -> list[tuple[int, int]]:
    progress = (e.json() for e in events if isinstance(e, jobs.Progress))
    return [(e["octave"], e["step"]) for e in progress]


def stopped_after(job: jobs.Job, count: int, error: type[BaseException] = KeyboardInterrupt):
    """Run a job for so many steps, and stop it as Ctrl-C does; all its events."""
    events, found, done = job.events(), [], 0
    while True:
        try:
            event = next(events)
        except StopIteration:
            return found
        found.append(event)
        done += isinstance(event, jobs.Preview)
        if done == count:
            done = -100
            found.append(events.throw(error()))


# In this process ----------------------------------------------------------------------------------


def test_the_same_request_goes_on_and_gives_the_same_bytes(folder):
    whole = list(jobs.run(request(folder, outputs={"picture": str(folder / "whole.png")})))
    file = folder / "c"
    events = stopped_after(jobs.prepare(request(folder), checkpoint=file), 5)
    assert events[-1].json() == {
        "event": "ended",
        "why": "interrupted",
        "text": "",
        "octave": 2,
        "step": 2,
    }
    partial = Manifest.read(folder / "dream.png")
    assert partial.ended is not None
    assert file.exists()
    rest = list(jobs.run(request(folder), checkpoint=file))
    assert steps_of(rest) == steps_of(whole)[5:]
    assert (folder / "dream.png").read_bytes() == (folder / "whole.png").read_bytes()
    assert not file.exists()


def test_a_result_that_is_whole_means_done(folder):
    list(jobs.run(request(folder), checkpoint=folder / "c"))
    before = (folder / "dream.png").stat()
    again = list(jobs.run(request(folder), checkpoint=folder / "c"))
    assert steps_of(again) == []
    assert [e.path for e in again if isinstance(e, jobs.Saved)] == [folder / "dream.png"]
    assert again[-1].json()["why"] == "done"
    assert (folder / "dream.png").stat().st_mtime_ns == before.st_mtime_ns


def test_a_checkpoint_beside_a_whole_result_is_removed(folder):
    """As a kill leaves it between the last write and its end."""
    file = folder / "c"
    stopped_after(jobs.prepare(request(folder), checkpoint=file), 4)
    kept = file.read_bytes()
    list(jobs.run(request(folder), checkpoint=file))
    file.write_bytes(kept)
    assert steps_of(jobs.run(request(folder), checkpoint=file)) == []
    assert not file.exists()


def test_a_result_of_another_request_is_in_the_way(folder):
    list(jobs.run(request(folder)))
    before = (folder / "dream.png").read_bytes()
    for other in (
        {"settings": {"octaves": 3, "steps": 2, "precision": "fp32"}},
        {"objectives": ("mixed4b",)},
    ):
        with pytest.raises(ImageError, match="already there"):
            jobs.prepare(request(folder, **other), checkpoint=folder / "c")
    ph.save_image(torch.zeros(1, 3, 8, 8), folder / "dream.png")
    with pytest.raises(ImageError, match="already there"):
        jobs.prepare(request(folder), checkpoint=folder / "c")
    (folder / "dream.png").write_bytes(before)
    with pytest.raises(ImageError, match="already there"):
        jobs.prepare(request(folder))  # nobody said that it may go on
    assert not (folder / "c").exists()
    assert (folder / "dream.png").read_bytes() == before


def changed(folder: Path, what: str) -> jobs.Request:
    if what == "photo":
        ph.save_image(ph.draw_sky(80, 120, seed=2), folder / "sky.png")
        return request(folder)
    settings = {"octaves": 3, "steps": 3, "precision": "fp32"}
    return {
        "seed": lambda: request(folder, settings=settings | {"seed": 7}),
        "objective": lambda: request(folder, objectives=("mixed4b",)),
        "weights": lambda: request(folder, network="dreamnet-robust"),
        "recipe": lambda: request(folder, recipe="caricature", objectives=(), settings={}),
    }[what]()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("seed", "its setting seed is '0', here it is '7'"),
        ("objective", "its objective is 'mixed4a', here it is 'mixed4b'"),
        ("weights", "its network's weights' SHA-256 is"),
        ("photo", "its pictures' SHA-256 is"),
        ("recipe", "its recipe is 'dream', here it is 'caricature'"),
    ],
)
def test_the_checkpoint_of_another_request_is_left_alone(folder, what, words):
    file = folder / "c"
    stopped_after(jobs.prepare(request(folder), checkpoint=file), 4)
    (folder / "dream.png").unlink()
    before = file.read_bytes()
    with pytest.raises(StateError) as error:
        jobs.prepare(changed(folder, what), checkpoint=file)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert file.read_bytes() == before
    assert not (folder / "dream.png").exists()


def test_what_is_no_checkpoint_is_left_alone(folder):
    file = folder / "c"
    for held in (b"", b"my own notes", ph.save_image(torch.zeros(1, 3, 4, 4), folder / "x.png")):
        file.write_bytes(held if isinstance(held, bytes) else Path(held).read_bytes())
        before = file.read_bytes()
        with pytest.raises(StateError, match="no state of phosphene, or damaged"):
            jobs.prepare(request(folder), checkpoint=file)
        assert file.read_bytes() == before
    State({}).save(file)
    with pytest.raises(StateError, match="of something else"):
        jobs.prepare(request(folder), checkpoint=file)


def test_a_checkpoint_is_no_other_file_of_the_request(folder):
    for taken in (folder / "sky.png", folder / "dream.png"):
        before = taken.read_bytes() if taken.exists() else None
        with pytest.raises((SettingsError, StateError)):
            jobs.prepare(request(folder), checkpoint=taken)
        assert (taken.read_bytes() if taken.exists() else None) == before
    os.link(folder / "sky.png", folder / "c")
    with pytest.raises(SettingsError, match=r"the checkpoint .* is the photo itself"):
        jobs.prepare(request(folder), checkpoint=folder / "c")
    with pytest.raises(ImageError, match="no folder"):
        jobs.prepare(request(folder), checkpoint=folder / "nowhere" / "c")


@pytest.mark.parametrize("every", [-1.0, float("nan"), float("inf")])
def test_a_time_between_checkpoints_is_a_number_of_seconds(folder, every):
    with pytest.raises(SettingsError, match="0 or more"):
        jobs.prepare(request(folder), checkpoint=folder / "c", checkpoint_every=every)


def test_a_recipe_without_steps_to_go_on_from_has_no_checkpoint(folder):
    page = jobs.Request(recipe="sheet", layers=("mixed3a",))
    with pytest.raises(SettingsError, match=r"sheet has no checkpoint; these have: .*dream"):
        jobs.prepare(page, checkpoint=folder / "c")


def test_it_is_written_at_each_octaves_end_and_now_and_then(folder, monkeypatch):
    saved = []

    def save(self, state, plan):
        saved.append((state.value("octave") + 1, state.value("index") + 1, list(plan)))
        real(self, state, plan)

    real = Checkpoint.save
    monkeypatch.setattr(Checkpoint, "save", save)
    for every, expected in (
        (1e6, [(1, 3), (2, 3), (3, 3)]),
        (0, [(octave, step) for octave in (1, 2, 3) for step in (1, 2, 3)]),
    ):
        saved.clear()
        list(jobs.run(request(folder), checkpoint=folder / "c", checkpoint_every=every, force=True))
        assert [s[:2] for s in saved] == expected
        assert [len(s[2]) for s in saved] == [octave for octave, _ in expected]
        (folder / "dream.png").unlink()


def test_a_disk_that_is_full_ends_no_dream(folder, monkeypatch):
    def full(*_):
        raise ImageError("cannot write 'c': the disk is full")

    monkeypatch.setattr(State, "save", full)
    events = list(jobs.run(request(folder), checkpoint=folder / "c", checkpoint_every=0))
    notes = [e.text for e in events if isinstance(e, jobs.Note) and not e.detail]
    assert notes == ["note: no checkpoint: cannot write 'c': the disk is full"]
    assert (folder / "dream.png").exists()


@pytest.mark.slow
def test_the_plan_of_octaves_before_is_in_the_manifest(folder):
    given = {"settings": {"octaves": 3, "steps": 2, "precision": "fp32", "tile": 64}}
    outputs = {"picture": str(folder / "whole.png")}
    list(jobs.run(request(folder, **given, outputs=outputs)))
    stopped_after(jobs.prepare(request(folder, **given), checkpoint=folder / "c"), 5)
    list(jobs.run(request(folder, **given), checkpoint=folder / "c"))
    assert len(set(Manifest.read(folder / "dream.png").plan)) > 1
    assert (folder / "dream.png").read_bytes() == (folder / "whole.png").read_bytes()


def test_octaves_that_are_there_already_are_the_same_again(folder):
    outputs = {"picture": str(folder / "dream.png"), "octaves": str(folder / "octaves")}
    file = folder / "c"
    stopped_after(jobs.prepare(request(folder, outputs=outputs), checkpoint=file), 5)
    first = {p.name: p.read_bytes() for p in (folder / "octaves").iterdir()}
    # As a kill leaves it after an octave's picture and before its checkpoint.
    list(jobs.run(request(folder, outputs=outputs), checkpoint=file))
    there = {p.name: p.read_bytes() for p in (folder / "octaves").iterdir()}
    assert len(there) == 3
    assert first.items() <= there.items()
    replaced = list(jobs.run(request(folder, outputs=outputs), checkpoint=file))
    assert steps_of(replaced) == []


def test_several_pictures_a_file_each_go_on(folder):
    given = {
        "recipe": "visualize",
        "inputs": {},
        "objectives": ("mixed3a:1", "mixed3a:2"),
        "settings": {"steps": 6, "size": 40, "precision": "fp32"},
    }
    list(jobs.run(request(folder, **given, outputs={"picture": str(folder / "whole-{}.png")})))
    outputs = {"picture": str(folder / "part-{}.png")}
    file = folder / "c"
    job = jobs.prepare(request(folder, **given, outputs=outputs), checkpoint=file)
    stopped_after(job, 3)
    assert steps_of(jobs.run(request(folder, **given, outputs=outputs), checkpoint=file)) == [
        (1, 4),
        (1, 5),
        (1, 6),
    ]
    # One of them lost: made again, the other one as it is.
    for name in ("mixed3a-1", "mixed3a-2"):
        whole, part = (folder / f"{kind}-{name}.png" for kind in ("whole", "part"))
        assert whole.read_bytes() == part.read_bytes()
    (folder / "part-mixed3a-2.png").unlink()
    list(jobs.run(request(folder, **given, outputs=outputs), checkpoint=file))
    assert len(list(folder.glob("part-*.png"))) == 2


@pytest.mark.slow
def test_a_painting_of_its_own_size_goes_on(folder):
    """Its size is the recipe's to choose, and stands in what a checkpoint is known by."""
    given = {
        "recipe": "style",
        "objectives": (),
        "inputs": {
            "photo": jobs.InputFile(path=str(folder / "sky.png")),
            "painting": jobs.InputFile(path=str(folder / "sky.png")),
        },
        "settings": {"steps": 4, "size": 48, "precision": "fp32"},
    }
    file = folder / "c"
    stopped_after(jobs.prepare(request(folder, **given), checkpoint=file), 2)
    assert len(steps_of(jobs.run(request(folder, **given), checkpoint=file))) == 2
    assert steps_of(jobs.run(request(folder, **given), checkpoint=file)) == []


def test_the_octave_of_a_replay_is_not_taken_for_the_dream(folder):
    """The picture of an octave is of this request, and not its result."""
    outputs = {"picture": str(folder / "dream.png"), "octaves": str(folder / "octaves")}
    list(jobs.run(request(folder, outputs=outputs)))
    octave = next((folder / "octaves").glob("*octave2*"))
    octave.replace(folder / "dream.png")
    job = jobs.prepare(request(folder), checkpoint=folder / "c")
    assert not job.whole


# The real command ---------------------------------------------------------------------------------


def journal(path: Path) -> list[dict]:
    lines = path.read_text().splitlines() if path.exists() else []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:  # cut off by the kill
            continue
    return found


def progress(path: Path) -> list[tuple[int, int]]:
    return [(e["octave"], e["step"]) for e in journal(path) if e["event"] == "progress"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_keeps_the_dream_so_far_and_the_checkpoint(folder, number, code):
    log = folder / "log"
    words = (*BRIEF, "--steps", 200, "--checkpoint", "c", "--events", log)
    running = start(*words, cwd=folder)
    running.wait_for(lambda: len(progress(log)) > 2)
    running.interrupt(number)
    done = running.done()
    assert done.code == code
    assert "the dream so far is in 'sky-dream.png', and the same command goes on" in done.err
    ended = Manifest.read(folder / "sky-dream.png").ended
    assert ended is not None
    assert ended.why == "interrupted"
    state, _ = State.read(folder / "c")
    assert (state.value("octave") + 1, state.value("index") + 1) == (ended.octave, ended.step)
    assert journal(log)[-1]["why"] == "interrupted"


def test_a_signal_that_is_ignored_stays_ignored():
    """As nohup has it: a dream outlives its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with pytest.raises(Terminated) as raised, ending_signals():
            signal.raise_signal(signal.SIGHUP)
        assert raised.value.number == signal.SIGHUP
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_same_command_says_that_all_is_done(folder):
    words = (*DREAM, "--checkpoint", "c")
    assert run(*words, cwd=folder).code == 0
    again = run(*words, cwd=folder)
    assert (again.code, again.out, again.err) == (
        0,
        "sky-dream.png\n",
        "already whole: sky-dream.png\n",
    )
    other = run(*words, "--seed", 3, cwd=folder)
    assert (other.code, other.out) == (0, "sky-dream-2.png\n")
    # Each finds its own, also where the other one is gone.
    assert run(*words, cwd=folder).err == "already whole: sky-dream.png\n"
    (folder / "sky-dream.png").unlink()
    again = run(*words, "--seed", 3, cwd=folder)
    assert again.err == "already whole: sky-dream-2.png\n"
    named = run(*words, "--seed", 4, "-o", "sky-dream-2.png", cwd=folder)
    assert named.code == 1
    assert "already there" in named.err


def test_the_same_command_goes_on_to_the_name_that_it_had(folder):
    words = (*BRIEF, "--steps", 4000, "--seed", 6, "--checkpoint", "c", "--checkpoint-every", 0)
    assert run(*DREAM, "--seed", 5, cwd=folder).out == "sky-dream.png\n"
    first = start(*words, cwd=folder)
    first.wait_for(lambda: (folder / "c").exists())
    first.interrupt()
    assert "'sky-dream-2.png'" in first.done().err
    saved = (folder / "c").read_bytes()
    second = start(*words, cwd=folder)
    second.wait_for(lambda: (folder / "c").read_bytes() != saved)
    second.interrupt()
    assert "'sky-dream-2.png'" in second.done().err
    assert not (folder / "sky-dream-3.png").exists()


def test_wrong_flags_are_said_in_one_line(folder):
    for words, problem in (
        (("--checkpoint-every", 5), "--checkpoint FILE says where"),
        (("--checkpoint", "c", "--checkpoint-every", -1), "0 or more"),
        (("--checkpoint", "."), "is a folder"),
        (("--events", "nowhere/log"), "no folder"),
        (("--events", "sky.png"), "holds no events"),
    ):
        done = run(*DREAM, *words, cwd=folder)
        assert done.code in (1, 2), words
        assert problem in done.err
        assert done.err.count("\n") == 1
        assert sorted(p.name for p in folder.iterdir()) == ["sky.png"]


def test_a_saved_request_goes_on_too(folder):
    run(*DREAM, "--save-request", "job.json", "--dry-run", cwd=folder)
    words = ("run", "job.json", "--checkpoint", "c")
    running = start(*words, "--events", "log", "--checkpoint-every", 0, cwd=folder)
    running.wait_for(lambda: (folder / "c").exists())
    running.process.kill()
    running.process.join()
    assert run(*words, cwd=folder).code == 0
    assert run(*DREAM, "-o", "whole.png", cwd=folder).code == 0
    assert (folder / "sky-dream.png").read_bytes() == (folder / "whole.png").read_bytes()


# With what else there is --------------------------------------------------------------------------

PLUGIN = """
from phosphene.objectives import Objective, cells, objective

@objective
def evenly(layer: str) -> Objective:
    return Objective((layer,), lambda a: {sign} * cells(a, layer).flatten(1).mean(1))
"""


def plugin_words(folder: Path, sign: int) -> tuple[object, ...]:
    (folder / "plug.py").write_text(PLUGIN.format(sign=sign))
    mask = torch.zeros(1, 3, 80, 120)
    mask[..., :60] = 1
    ph.save_image(mask, folder / "left.png")
    more = ("--region", "left.png=evenly(mixed4a)", "--rest", "stay", "--plugin", "plug.py")
    return (*DREAM, *more, "--checkpoint", "c", "--checkpoint-every", 0)


@pytest.mark.slow
def test_a_plugin_of_a_region_is_in_the_recipe_and_in_what_a_checkpoint_is_of(folder):
    words = plugin_words(folder, 1)
    running = start(*words, "--events", "log", cwd=folder)
    running.wait_for(lambda: (folder / "c").exists())
    running.process.kill()
    running.process.join()
    plugin_words(folder, -1)
    changed = run(*words, cwd=folder)
    assert changed.code == 1
    assert "is the checkpoint of something else: its plugins is" in changed.err
    plugin_words(folder, 1)
    assert run(*words, cwd=folder).code == 0
    assert [plugin.name for plugin in Manifest.read(folder / "sky-dream.png").plugins] == ["plug"]
    assert "needs the plugin plug" in run("replay", "sky-dream.png", cwd=folder).err
    assert run("replay", "sky-dream.png", "--plugin", "plug.py", cwd=folder).code == 0
    # And a result of another version of it is not this request's.
    before = (folder / "sky-dream.png").read_bytes()
    plugin_words(folder, -1)
    assert run(*words, cwd=folder).out == "sky-dream-2.png\n"
    assert (folder / "sky-dream.png").read_bytes() == before


@pytest.mark.slow
def test_regions_go_on_after_a_kill(folder):
    mask = torch.zeros(1, 3, 80, 120)
    mask[..., :60] = 1
    ph.save_image(mask, folder / "left.png")
    words = (*DREAM, "--region", "left.png=mixed4a:3", "--tile", 64)
    assert run(*words, "-o", "whole.png", cwd=folder).code == 0
    more = ("--checkpoint", "c", "--checkpoint-every", 0)
    running = start(*words, *more, cwd=folder)
    running.wait_for(lambda: (folder / "c").exists())
    running.process.kill()
    running.process.join()
    assert run(*words, *more, cwd=folder).code == 0
    assert (folder / "sky-dream.png").read_bytes() == (folder / "whole.png").read_bytes()


def test_octaves_that_are_asked_for_later_are_made(folder):
    list(jobs.run(request(folder), checkpoint=folder / "c"))
    outputs = {"picture": str(folder / "dream.png"), "octaves": str(folder / "octaves")}
    list(jobs.run(request(folder, outputs=outputs), checkpoint=folder / "c"))
    assert len(list((folder / "octaves").iterdir())) == 3
    assert steps_of(jobs.run(request(folder, outputs=outputs), checkpoint=folder / "c")) == []
    next((folder / "octaves").iterdir()).unlink()
    list(jobs.run(request(folder, outputs=outputs), checkpoint=folder / "c"))
    assert len(list((folder / "octaves").iterdir())) == 3


def test_octaves_that_were_not_saved_are_told(folder):
    file = folder / "c"
    stopped_after(jobs.prepare(request(folder), checkpoint=file), 7)
    outputs = {"picture": str(folder / "dream.png"), "octaves": str(folder / "octaves")}
    events = list(jobs.run(request(folder, outputs=outputs), checkpoint=file))
    notes = [e.text for e in events if isinstance(e, jobs.Note) and not e.detail]
    assert notes == ["note: done before, and not saved: the picture of octave 1, 2"]


def test_force_makes_it_again(folder):
    list(jobs.run(request(folder), checkpoint=folder / "c"))
    again = list(jobs.run(request(folder), checkpoint=folder / "c", force=True))
    assert len(steps_of(again)) == 9


def test_a_link_to_a_checkpoint_stays_a_link(folder):
    (folder / "c").symlink_to(folder / "elsewhere")
    stopped_after(jobs.prepare(request(folder), checkpoint=folder / "c"), 4)
    assert (folder / "c").is_symlink()
    assert (folder / "elsewhere").is_file()
    list(jobs.run(request(folder), checkpoint=folder / "c"))
    assert not (folder / "elsewhere").exists()


def test_events_are_added_to_events_alone(folder):
    (folder / "notes.txt").write_text("my own\n")
    (folder / "list.json").write_text("[1]\n")
    for name in ("notes.txt", "list.json", "sky.png"):
        before = (folder / name).read_bytes()
        done = run(*DREAM, "--events", name, "-o", "x.png", cwd=folder)
        assert done.code in (1, 2)
        assert done.err.count("\n") == 1
        assert (folder / name).read_bytes() == before
    for _ in range(2):
        assert run(*DREAM, "--events", "log", "-o", "x.png", "--force", cwd=folder).code == 0
    assert sum(e["event"] == "ended" for e in journal(folder / "log")) == 2


def test_a_disk_that_takes_no_more_events_ends_no_dream(folder):
    limits = ((resource.RLIMIT_FSIZE, 200_000),)
    line = json.dumps({"event": "note", "text": "x" * 1000}) + "\n"
    (folder / "log").write_text(line * (200_000 // len(line)))
    done = run(*DREAM, "--events", "log", cwd=folder, limits=limits)
    assert done.code == 0, done.err
    assert done.err.count("misses events") == 1
    assert (folder / "sky-dream.png").exists()


def test_a_device_is_no_file_to_keep_a_checkpoint_in(folder):
    done = run(*DREAM, "--checkpoint", "/dev/null", cwd=folder)
    assert done.code == 1
    assert "no regular file" in done.err


# Kills --------------------------------------------------------------------------------------------

CASES = {
    "dream": (*BRIEF, "--steps", 12, "--size", 240),
    "tiles": (*BRIEF, "--steps", 8, "--size", 240, "--tile", 96),
    "mask": (*BRIEF, "--steps", 12, "--size", 240, "--mask", "mask.png", "--laplacian", 2),
    "fp64": (*BRIEF[:4], "--steps", 8, "--size", 200, "--precision", "fp64"),
    "fourier": ("visualize", "mixed4a:3", "--size", 96, "--steps", 120, "--precision", "fp32"),
    "maco": (
        "visualize", "mixed4a:3", "--size", 96, "--steps", 80, "--parameterization", "maco",
        "--transparent", "--precision", "fp32",
    ),
    "dead": (
        "visualize", "relu:0", "relu:1", "--network", "tests.toy_network:sleeping", "--size", 96,
        "--steps", 300,
    ),
    "nadam": (
        "visualize", "mixed4a:3", "--size", 96, "--steps", 120, "--optimiser", "nadam",
        "--precision", "fp64",
    ),
}  # fmt: skip


def killed(running: Running, after: float, log: Path) -> None:
    """Kill a command so many seconds after its first step, wherever it is then."""
    before = len(progress(log))
    running.wait_for(lambda: len(progress(log)) > before or not running.process.is_alive())
    time.sleep(after)
    running.process.kill()
    running.process.join()


def check_kills(folder: Path, name: str, kills: int, seed: int) -> None:
    """A command that is killed again and again ends with the bytes of one that is not."""
    words, every = CASES[name], 0.2
    chance = random.Random(seed)
    if not (folder / "mask.png").exists():
        ramp = torch.linspace(0, 1, 120).expand(1, 3, 80, 120)
        ph.save_image(ramp, folder / "mask.png")
    whole = folder / f"{name}-whole.png"
    if not whole.exists():
        assert run(*words, "-o", whole, "--events", folder / f"{name}.log", cwd=folder).code == 0
    expected = progress(folder / f"{name}.log")
    times = [e["time"] for e in journal(folder / f"{name}.log") if e["event"] == "progress"]
    lasts = times[-1] - times[0]
    file, log = folder / f"{name}-{seed}.png", folder / f"{name}-{seed}.log"
    more = ("-o", file, "--checkpoint", f"{name}-{seed}.c", "--checkpoint-every", every)
    for _ in range(kills):
        running = start(*words, *more, "--events", log, cwd=folder)
        killed(running, chance.uniform(0, 0.8 * lasts / kills), log)
    assert run(*words, *more, "--events", log, cwd=folder).code == 0
    assert file.read_bytes() == whole.read_bytes()
    assert not (folder / f"{name}-{seed}.c").exists()
    check_repeats(log, expected, every)


def check_repeats(log: Path, expected: list[tuple[int, int]], every: float) -> None:
    """No step is left out, and those done twice took little longer than the time in between.

    A run's own clock: the time from its first repeated step's end before the kill to the kill.
    """
    runs: list[list[dict]] = []
    for event in journal(log):
        if event["event"] == "started":
            runs.append([])
        elif event["event"] == "progress":
            runs[-1].append(event)
    runs = [run for run in runs if run]
    order = {place: k for k, place in enumerate(expected)}
    for before, after in itertools.pairwise(runs):
        first = order[after[0]["octave"], after[0]["step"]]
        done = [(order[e["octave"], e["step"]], e["time"]) for e in before]
        assert first <= done[-1][0] + 1  # nothing is left out
        again = [t for k, t in done if k >= first]
        if again and done[0][0] < first:
            start_of_first = max(t for k, t in done if k < first)
            longest = max(b[1] - a[1] for a, b in itertools.pairwise(done))
            # What is in between, and the step that was under way when it was over.
            assert again[-1] - start_of_first <= every + longest + 0.1
    assert (runs[-1][-1]["octave"], runs[-1][-1]["step"]) == expected[-1]


@pytest.mark.slow
def test_killed_and_killed_again(folder):
    check_kills(folder, "maco", kills=2, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", [11, 12])
def test_killed_at_thirty_moments(folder, name, seed):
    check_kills(folder, name, kills=2, seed=seed)
