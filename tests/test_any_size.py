"""Dreams of any size, and what goes wrong on the way: as a user meets it."""

from __future__ import annotations

import resource
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from phosphene import parse
from phosphene.cli import main
from phosphene.cli.exits import explained
from phosphene.errors import NetworkError, SettingsError
from phosphene.jobs.inputs import Loaded
from phosphene.jobs.job import Outcome
from phosphene.jobs.pictures import PictureJob
from phosphene.jobs.request import InputFile, Request
from phosphene.network import Network
from phosphene.recipes.base import Arguments
from phosphene.recipes.dream import DreamSettings, dream
from phosphene.recipes.steps.dream import DreamStep
from phosphene.runtime import memory
from tests.command import Done, addresses, run
from tests.on import DEVICE
from tests.toy_network import net

TOY = ("--network", "tests.toy_network:net", "--objective", "second")
QUICK = ("--steps", "1", "--device", "cpu", "--precision", "fp32")
SMALL = ("--octaves", "1", *QUICK)


def photo(height: int, width: int, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return 0.2 + 0.6 * torch.rand(batch, 3, height, width, generator=generator)


def picture(path: Path, height: int, width: int) -> Path:
    pixels = (photo(height, width)[0].permute(1, 2, 0) * 255).byte().numpy()
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture(tmp_path_factory.mktemp("photos") / "sky.png", 90, 140)


def refused(done: Done, *words: str, code: int = 2) -> str:
    """Nothing on stdout, one last line on stderr with those words. Returns that line."""
    line = done.err.strip().splitlines()[-1]
    assert (done.code, done.out) == (code, ""), done
    assert line.startswith("phosphene: "), done
    assert "Traceback" not in done.err
    for word in words:
        assert word in line
    return line


def shown(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


# What is said


Here = Callable[..., Done]


@pytest.fixture
def here(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Here:
    """The command in this process, its output in `tmp_path`."""
    # What it settles for a process of its own would stay in this one.
    for name in ("keep_freed", "return_freed"):
        monkeypatch.setattr(f"phosphene.runtime.allocator.{name}", lambda: None)

    def called(*words: object) -> Done:
        code = main([*map(str, words), "-o", str(tmp_path / "out.png")])
        said = capsys.readouterr()
        return Done(code, str(said.out), str(said.err))

    return called


def test_verbose_tells_the_plan_and_nothing_else_does(sky: Path, here: Here) -> None:
    def told(*words: str) -> list[str]:
        done = here("dream", sky, *TOY, *QUICK, "--octaves", "2", "--force", *words)
        assert done.code == 0, done
        return [line for line in done.err.splitlines() if " whole" in line or "in tiles" in line]

    assert told("--verbose", "--tile", "off") == [
        "140×90 px whole: tiles are off",
        "100×64 px whole: tiles are off",
    ]
    assert told("--verbose", "--tile", "100") == [
        "140×90 px in tiles of 100 px, as asked for",
        "100×64 px whole: no larger than a tile",
    ]
    for words in (["--verbose"], ["--verbose", "--memory", "16G"]):
        lines = told(*words)
        assert [line.partition(": ")[0] for line in lines] == ["140×90 px whole", "100×64 px whole"]
        assert all(line.endswith(" free") for line in lines)
    for words in ([], ["--tile", "32"], ["--memory", "16G"], ["--verbose", "--quiet"]):
        assert told(*words) == []


def test_what_goes_wrong_and_is_made_good_is_noted_once(
    sky: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: object, **__: object) -> Any:
        def evaluate(image: Tensor) -> Any:
            raise MemoryError

        return evaluate

    monkeypatch.setattr("phosphene.evaluation.adaptive.whole", lacking)
    done = here("dream", sky, *TOY, *SMALL)
    assert done.code == 0, done
    notes = [line for line in done.err.splitlines() if "memory" in line]
    assert notes == ["note: memory ran out at 140×90 px: going on in tiles of 70 px"]
    assert here("dream", sky, *TOY, *SMALL, "--force", "--quiet") == Done(0, "", "")
    told = refused(here("dream", sky, *TOY, *SMALL, "--force", "--tile", "off"), code=2)
    assert told == "phosphene: memory ran out at 140×90 px, whole; tile=auto cuts it (MemoryError)"


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("large", [False, True])
def test_large_pictures_under_an_ulimit_give_back_what_is_freed(
    large: bool, limited: bool, sky: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled: list[str] = []
    for name in ("keep_freed", "return_freed"):
        monkeypatch.setattr(
            f"phosphene.runtime.allocator.{name}", lambda name=name: settled.append(name)
        )
    monkeypatch.setattr("phosphene.runtime.memory.addresses_limited", lambda: limited)
    monkeypatch.setattr("phosphene.cli.running.MODEST", 90 * 140 - large)
    assert here("dream", sky, *TOY, *SMALL).code == 0
    assert settled == ["return_freed" if large and limited else "keep_freed"]


def test_a_replay_tells_its_plan_too(sky: Path, here: Here, tmp_path: Path) -> None:
    here("dream", sky, *TOY, *SMALL, "--tile", "32")
    (tmp_path / "out.png").rename(tmp_path / "first.png")
    words = ("replay", tmp_path / "first.png", "--network", TOY[1], "--input", f"photo={sky}")
    done = here(*words, "--verbose")
    assert done.code == 0, done
    assert "140×90 px in tiles of 32 px" in done.err
    assert "in tiles of" not in here(*words, "--force").err


def test_help_tells_of_tiles_and_memory(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    assert main(["dream", "--help"]) == 0
    text = capsys.readouterr().out
    (tile,) = (line for line in text.splitlines() if line.lstrip("│ ").startswith("--tile"))
    assert "or of so many px a side" in tile
    (most,) = (line for line in text.splitlines() if line.lstrip("│ ").startswith("--memory"))
    assert "such as 4G" in most


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--tile", "of"), 'unable to convert "of" into auto|off|approximate|int'),
        (
            ("--tile", "0"),
            "tile: input should be 'auto', 'off' or 'approximate' or greater than or equal to 1 "
            "(given: 0)",
        ),
        (("--tile", "1.5"), "--tile: 1.5 is no whole number"),
        (("--memory", "4"), "memory: '4' is no amount; a number and a unit, such as 512M or 4G"),
        (("--memory", "-4G"), "memory: '-4G' is no amount"),
        (("--memory", "0G"), "memory: '0G' is nothing at all"),
        (("--precision", "fp16"), "precision"),
    ],
)
def test_mistakes_are_told_before_anything_is_done(
    words: tuple[str, ...], told: str, here: Here, tmp_path: Path
) -> None:
    refused(here("dream", "no.png", *words), told)
    assert not list(tmp_path.iterdir())


# Little memory


def test_a_limit_too_small_names_the_least_and_with_it_it_goes(sky: Path, tmp_path: Path) -> None:
    words = ("dream", sky, *TOY, *SMALL, "-o", "out.png", "--size", "300", "--verbose")
    line = refused(
        run(*words, "--memory", "10M", cwd=tmp_path),
        "memory: 300×193 px take ",
        "10 MiB are given, even in the smallest tiles",
    )
    assert not list(tmp_path.iterdir())
    # What a process holds before it begins is not the same twice.
    done = run(*words, "--memory", f"{least_of(line) // memory.MIB + 24}M", cwd=tmp_path)
    assert done.code == 0, done
    assert (tmp_path / "out.png").exists()


def least_of(line: str) -> int:
    least, unit = line.split(" take ")[1].split(" at least")[0].split()
    return memory.parse_memory(least + unit)


def test_the_least_is_exact(sky: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "used_memory", lambda _: 500 * memory.MIB)
    monkeypatch.setattr(memory, "available_memory", lambda _: 64 * memory.GIB)
    words = ("dream", sky, *TOY, *SMALL, "--size", "300", "--verbose", "--memory")
    least = least_of(refused(here(*words, "501M"))) // memory.MIB
    refused(here(*words, f"{least - 1}M"), f" take {least} MiB at least")
    done = here(*words, f"{least}M")
    assert done.code == 0, done
    assert "300×193 px in tiles of" in done.err


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no ulimit -v there")
def test_under_an_ulimit_it_goes_on_in_tiles(sky: Path, tmp_path: Path) -> None:
    words = ("dream", sky, "--network", "tests.toy_network:wide", "--objective", "second", *SMALL)
    words = (*words, "--size", "800", "--verbose")
    whole = run(*words, "-o", "whole.png", cwd=tmp_path)
    assert whole.code == 0, whole
    assert "800×514 px whole" in whole.err
    limit = addresses() + 500 * memory.MIB
    tiled = run(*words, "-o", "tiled.png", cwd=tmp_path, limits=[(resource.RLIMIT_AS, limit)])
    assert tiled.code == 0, tiled
    assert "800×514 px in tiles of" in tiled.err
    assert np.abs(shown(tmp_path / "tiled.png") - shown(tmp_path / "whole.png")).max() <= 1


def test_a_control_groups_limit_means_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A machine of 64 GiB with a group of its own, as the files of Linux tell."""
    files = {
        "proc/meminfo": f"MemAvailable: {64 * memory.MIB} kB",
        "proc/self/statm": "1000 300 20 5 0 400 0",
        "proc/self/cgroup": "0::/job",
        "sys/fs/cgroup/job/memory.current": 300 * memory.MIB,
    }

    def allowed(most: int | str) -> None:
        for name, text in {**files, "sys/fs/cgroup/job/memory.max": most}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{text}\n")

    there, used = memory.available_memory, memory.used_memory
    monkeypatch.setattr(memory, "available_memory", lambda d: there(d, root=tmp_path))
    monkeypatch.setattr(memory, "used_memory", lambda d: used(d, root=tmp_path))
    caplog.set_level("INFO", "phosphene")
    image, network = photo(301, 499), net()
    given: dict[str, Any] = {"octaves": 1, "steps": 2, "device": "cpu", "precision": "fp32"}
    allowed("max")
    expected = dream(image, network, "second", **given)
    assert "499×301 px whole" in caplog.text
    caplog.clear()
    allowed(330 * memory.MIB)
    got = dream(image, network, "second", **given)
    assert "499×301 px in tiles of" in caplog.text
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
    allowed(301 * memory.MIB)
    with pytest.raises(
        SettingsError, match=r"take \d+ MiB at least, \d+ MiB are there, even in the"
    ):
        dream(image, network, "second", **given)


# Memory that runs out half-way

SEEN: list[int] = []
MOST = 33_000  # px; that which looks at the network takes fewer


class Scarce(nn.Module):
    """From a certain pass over a large picture on, its device has memory for small ones alone."""

    def __init__(self, error: Exception, fine: int, most: int = MOST) -> None:
        super().__init__()
        self.inner = net().module
        self.error, self.fine, self.most = error, fine, most

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.shape[-2] * x.shape[-1]
        if pixels > self.most:
            SEEN.append(pixels)
            if len(SEEN) > self.fine:
                raise self.error
        return self.inner(x)


def scarce(error: Exception, fine: int, most: int = MOST) -> Network:
    SEEN.clear()
    return Network(Scarce(error, fine, most), input_size=32, name="scarce", copy=False)


GIVEN: dict[str, Any] = {
    "octaves": 2, "steps": 5, "device": DEVICE, "precision": "fp64", "jitter": 5, "smooth": 0.5
}  # fmt: skip


LACKS = {
    "device": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "python": MemoryError(),
}


@dataclass(frozen=True)
class Undisturbed:
    """A dream with enough memory: its steps, and how many large passes went before each."""

    image: Tensor
    steps: list[DreamStep]
    before: dict[tuple[int, int], int]


@pytest.fixture(scope="module")
def undisturbed() -> Undisturbed:
    image = photo(181, 191)
    made = Undisturbed(image, [], {})
    network = scarce(MemoryError(), 10**9)
    for step in dream.steps(image, network, "inner.second", **GIVEN):
        made.steps.append(step)
        made.before[step.octave, step.index] = len(SEEN) - 1
    return made


@pytest.mark.parametrize(("error", "index"), [("device", 0), ("python", 2), ("device", 4)])
def test_memory_that_runs_out_half_way_costs_nothing(
    error: str, index: int, undisturbed: Undisturbed, caplog: pytest.LogCaptureFixture
) -> None:
    network = scarce(LACKS[error], undisturbed.before[1, index])
    image, expected = undisturbed.image, undisturbed.steps
    got = list(dream.steps(image, network, "inner.second", **GIVEN))
    assert "memory ran out at 191×181 px: going on in tiles of" in caplog.text
    assert [(s.octave, s.index) for s in got] == [(s.octave, s.index) for s in expected]
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one.score, other.score, rtol=1e-6, atol=0)
    assert float((got[-1].picture() - expected[-1].picture()).abs().max()) < 1e-6
    assert float((got[-1].picture() - image).abs().max()) > 0.01


def last_of(events: Generator[Any, None, Outcome]) -> Outcome:
    """What a job came to."""
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


def test_where_tiles_cannot_help_the_dream_so_far_is_kept(undisturbed: Undisturbed) -> None:
    network = scarce(LACKS["device"], undisturbed.before[1, 3])
    image = undisturbed.image
    settings = DreamSettings(tile="off", **GIVEN)
    goal = parse("inner.second")
    arguments = Arguments(network, settings, objectives=(goal,), images={"photo": image})
    request = Request(recipe="dream", objectives=(goal.text,), start="photo",
                      inputs={"photo": InputFile(path="photo.png")})  # fmt: skip
    outcome = last_of(PictureJob(request, arguments, Loaded()).computed())
    assert outcome.ended is not None
    assert (outcome.ended.why, outcome.ended.octave, outcome.ended.step) == ("out of memory", 2, 3)
    assert outcome.picture is not None
    (last,) = (s for s in undisturbed.steps if (s.octave, s.index) == (1, 2))
    torch.testing.assert_close(outcome.picture, last.picture(), rtol=0, atol=1e-6)
    assert outcome.error is not None
    told = explained(outcome.error)
    assert told.startswith("memory ran out at 191×181 px, whole; tile=auto cuts it (CUDA out of")


# Networks that tiles do not suit


def test_a_network_that_goes_by_the_whole_batch(sky: Path, here: Here, tmp_path: Path) -> None:
    words = ("dream", sky, "--network", "tests.toy_network:of_the_batch", "--objective", "second")
    told = refused(here(*words, *SMALL, "--tile", "32"), "tile=approximate blends")
    assert "sees the whole" in told
    assert not list(tmp_path.iterdir())
    assert here(*words, *SMALL).code == 0  # whole, as memory allows
    assert here(*words, *SMALL, "--tile", "approximate", "--force").code == 0


class Strided(nn.Module):
    """A stride of 16 px, and something to see even in one."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 5, 7, stride=16, padding=3)
        self.relu = nn.ReLU()
        self.end = nn.Conv2d(5, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.relu(self.wide(x)))


@pytest.fixture(scope="module")
def strided() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Network(Strided(), input_size=64, name="strided", copy=False)


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 2), (5, 7), (1, 97), (97, 1), (31, 37), (64, 64), (101, 3)]
)
def test_odd_and_prime_sizes_and_strides_larger_than_the_picture(
    size: tuple[int, int], strided: Network
) -> None:
    image = photo(*size, batch=2)
    given: dict[str, Any] = {**GIVEN, "steps": 2, "octave_scale": 1.7}
    whole = dream(image, strided, "end + 0.1*wide", tile="off", **given)
    assert float((whole - image).abs().max()) > 1e-3
    for tile in (1, 24):
        pieced = dream(image, strided, "end + 0.1*wide", tile=tile, **given)
        torch.testing.assert_close(pieced, whole, rtol=0, atol=1e-6)


def test_tiles_larger_than_some_octaves_and_smaller_than_others() -> None:
    image, network = photo(83, 61), net()
    given: dict[str, Any] = {**GIVEN, "octaves": 3, "steps": 1}
    expected = dream(image, network, "second", tile="off", **given)
    for tile in (50, 82):
        got = dream(image, network, "second", tile=tile, **given)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 61), (61, 1), (1, 1)])
def test_the_command_takes_pictures_one_px_wide(
    size: tuple[int, int], here: Here, tmp_path: Path
) -> None:
    thin = picture(tmp_path / "thin.png", *size)
    assert here("dream", thin, *TOY, *SMALL, "--tile", "8").code == 0
    assert shown(tmp_path / "out.png").shape == (*size, 3)


# Precision


def test_a_precision_that_the_device_cannot_do_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def to(module: nn.Module, device: Any, dtype: torch.dtype, **_: Any) -> nn.Module:
        if dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework\n…")
        return module

    monkeypatch.setattr(nn.Module, "to", to)
    network = net()
    with pytest.raises(SettingsError, match=r"cpu cannot do precision fp64 \(Cannot.*fp32 it can"):
        dream(photo(40, 30), network, "second", precision="fp64", device="cpu")


def test_an_operation_that_a_precision_has_not_is_told() -> None:
    class Choosy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            if x.dtype == torch.bfloat16:
                raise RuntimeError("\"choose\" not implemented for 'BFloat16'")
            return self.first(x)

    network = Network(Choosy(), input_size=32, name="choosy")
    with pytest.raises(NetworkError, match="not implemented for 'BFloat16'"):
        dream(photo(40, 36), network, "first", precision="bf16", device=DEVICE)
    assert dream(photo(40, 36), network, "first", precision="fp32", device=DEVICE).shape[-1] == 36
