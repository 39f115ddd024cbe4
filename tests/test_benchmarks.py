"""The benchmarks run, count what they say they count, and write what can be read."""

from __future__ import annotations

import contextlib
import platform
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import command, jobs, memory, plain, quality, regions, report, skilled, steps
from phosphene import draw_sky, load_network, parse
from phosphene.network import Network


def parsed(table: report.Table) -> list[dict[str, str]]:
    """The rows of a table as they are read back from its Markdown."""
    lines = [line for line in str(table).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert {len(row) for row in cells} == {len(table.header)}
    assert set("".join(cells[1])) <= set("-:")
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def number(text: str) -> float:
    found = re.match(r"[\d.,]+(e[+-]\d+)?", text)
    assert found, text
    return float(found[0].replace(",", ""))


# What is counted ----------------------------------------------------------------------------------


class Stem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 6, 3, stride=2, groups=2)
        self.above = nn.Conv2d(6, 50, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.above(self.second(self.first(x).relu()))


def test_flops_are_those_of_the_convolutions_up_to_the_layer() -> None:
    network = Network(Stem(), input_size=32)
    height, width = 20, 31
    first = 8 * height * width * 3 * 9
    second = 6 * 9 * 15 * (8 // 2) * 9  # 20 -> 9, 31 -> 15, without padding
    above = 50 * 5 * 11 * 6 * 25
    # A multiply-add is two, and the gradient of the input takes as many as the answer.
    assert steps.convolution_flops(network, ["first"], (height, width)) == 4 * first
    assert steps.convolution_flops(network, ["second"], (height, width)) == 4 * (first + second)
    whole = steps.convolution_flops(network, ["first", "above"], (height, width))
    assert whole == 4 * (first + second + above)


def test_the_machines_speed_is_that_of_its_best_convolution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([9.0, 2.0, 4.0, 8.0, 1.0, 3.0])
    monkeypatch.setattr(report, "seconds", lambda run, device: next(clock))
    best = steps.convolution_speed("fp32", shapes=((4, 8, 3), (2, 8, 5)))
    assert best == max(2 * 4 * 4 * 9 * 64 / 2.0, 2 * 2 * 2 * 25 * 64 / 1.0)


def test_runs_take_turns_and_the_median_is_told() -> None:
    turns: list[str] = []
    runs = {name: lambda name=name: turns.append(name) for name in "AB"}
    times = report.interleaved(runs, 3)
    assert turns == ["A", "B"] * 3
    assert all(len(found) == 3 and min(found) >= 0 for found in times.values())
    assert report.spread([3.0, 1.0, 250.0]) == "3 s (1–250)"


def test_a_seam_is_energy_on_the_borders_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    smooth = torch.rand(1, 3, 40, 60, generator=generator)
    borders = ([16, 32], [16, 32, 48])
    assert quality.seam([smooth], [smooth], borders) == 1
    cut = smooth.clone()
    cut[..., 32:] += 1
    assert quality.seam([cut], [smooth], borders) > 1.5
    elsewhere = smooth.clone()
    elsewhere[..., 33:] += 1
    assert quality.seam([elsewhere], [smooth], borders) < 1.01
    # Of several pictures the mean, not the largest.
    both = quality.seam([cut, smooth], [smooth, smooth], borders)
    assert both == pytest.approx((1 + quality.seam([cut], [smooth], borders)) / 2)
    # By hand: columns 0 0 1 1 1 3 differ by 0 1 0 0 2, borders at 2.
    columns = torch.tensor([0.0, 0, 1, 1, 1, 3]).expand(1, 3, 2, 6)
    assert quality._on_lines(columns, -1, [2]) == pytest.approx(1 / (4 / 4))
    assert quality._on_lines(columns, -1, [5]) == pytest.approx(4 / (1 / 4))


def test_the_careful_loop_is_the_plain_one() -> None:
    module = load_network("googlenet", weights="random").module
    pixels = draw_sky(64, 72)[0].permute(1, 2, 0).contiguous().numpy()
    loops = [
        plain.google2015(module, "cpu", frozen=frozen, octaves=1, steps=2)
        for frozen in (False, True)
    ]
    one, other = (loop(pixels) for loop in loops)
    assert one.image.dtype == np.float32
    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-4)
    assert np.abs(one.image - pixels).max() > 1e-3
    assert not any(parameter.requires_grad for parameter in module.parameters())


# Each section, in small ---------------------------------------------------------------------------


def test_jobs() -> None:
    job = replace(jobs.JOBS[0], size=(64, 72), octaves=1, steps=1)
    (table,) = jobs.tables(1, jobs=[job])
    rows = parsed(table)
    assert [row["run"].split(",")[0] for row in rows] == ["plain loop"] * 2 + ["phosphene"] * 2
    assert all(number(row[ratio]) > 0 for row in rows for ratio in ("× plain", "× careful"))
    assert number(rows[0]["× plain"]) == number(rows[1]["× careful"]) == 1
    assert table.notes[0].startswith(("precision auto: fp32", "precision auto: bf16"))


def test_steps() -> None:
    (table,) = steps.tables(1, sizes=(64,), dreams=steps.DREAMS[:1], shapes=((16, 16, 3),))
    rows = parsed(table)
    assert [row["dreamnet, mixed5b"] for row in rows] == ["64², fp32", "64², bf16"]
    for row in rows:
        assert number(row["share of the roofline"]) >= 0
        assert row["convolutions"] == "0.568 GFLOP"  # four times 142 million multiply-adds
        assert number(row["machine"]) > 0
        assert row["picture"] == "whole"


def test_regions() -> None:
    assert [mask[0, 0, 0].tolist() for mask in regions.strips(2, 5)] == [
        [1, 1, 1, 0, 0],
        [0, 0, 0, 1, 1],
    ]
    (table,) = regions.tables(1, side=64, counts=(1, 2), dreams=regions.DREAMS[:1])
    rows = parsed(table)
    names = ["forward", "backward", "no regions", "1 region", "2 regions"]
    assert [row["64², fp32"] for row in rows] == names
    forward, backward = (number(row["time"]) for row in rows[:2])
    for count, row in enumerate(rows[3:], 1):
        passes = forward + count * backward
        assert number(row["forward + backwards"]) == pytest.approx(passes, rel=0.05, abs=1)
        assert number(row["of that"]) == pytest.approx(number(row["time"]) / passes, rel=0.05)


@pytest.mark.slow
def test_films() -> None:
    pytest.importorskip("cv2")
    from benchmarks import films

    given: dict[str, Any] = {"frames": 4, "still": 12, "long": 20, "lengths": (20, 60)}
    steady, found, drift, costs = films.tables(1, size=(48, 64), small=(48, 64), **given)
    rows = {row["mixed4c, 3 octaves"]: row for row in parsed(steady)}
    alone = rows["warping error ÷ each frame alone"]
    assert number(alone["error"]) <= 0.25
    assert number(alone["score"]) >= 0.9
    assert any("half of the last dream" in name for name in rows)
    assert number(parsed(found)[-1]["found"]) >= 0.95
    assert len(parsed(drift)) == 3
    assert number(parsed(costs)[-1]["measured"]) <= 1.05


@pytest.mark.slow
def test_memory() -> None:
    (table,) = memory.tables(1, sizes=(64,), precisions=("fp32",))
    rows = parsed(table)
    assert [row["picture"] for row in rows] == ["64², fp32, tile off", "64², fp32, tile auto"]
    for row in rows:
        assert number(row["peak"]) > number(row["of it the dream's"]) >= 0
        assert row["taken"] == "whole"
        assert row["× 64²"] == ""


def test_a_px_is_compared_with_one_of_a_small_picture_then(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []

    def measured(side: int, network: str, *, steps: int, **_: object) -> dict[str, object]:
        ran.append(side)
        # From the third on the machine is half as fast.
        took = {64: 1.0, 128: 6.0}[side] * (1 if len(ran) <= 2 else 2)
        return {"steps": [100.0, 50.0] + [took] * (steps - 2), "peak": 2, "before": 1, "tile": "-"}

    monkeypatch.setattr(memory, "measured", measured)
    (table,) = memory.tables(3, sizes=(64, 128), precisions=("fp32",))
    assert ran == [64, 64, *(64, 128, 64) * 2]
    assert [row["× 64²"] for row in parsed(table)] == ["", "", "1.50", "1.50"]


@pytest.mark.slow
def test_tiles_are_told() -> None:
    found = memory.measured(96, "dreamnet", steps=1, precision="fp32", memory="100T")
    assert found["tile"] == "whole"
    assert report.tile_in(["9×9 px in tiles of 64 px: 1 MiB of 2 MiB free"]) == "64 px"


@pytest.mark.slow
def test_start_and_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_warmed", lambda runs: None)
    (start,) = command.start_tables(1)
    assert all(number(row["time"]) > 0 for row in parsed(start))
    (default,) = command.default_tables(1, size=(64, 80), side=64)
    assert [row["run"] for row in parsed(default)] == [
        "phosphene dream, 80×64",
        "phosphene dream, 80×64, fp32",
        "one step, 64×64, mixed5b, fp32",
    ]


@pytest.mark.slow
def test_quality(tmp_path: Path) -> None:
    (table,) = quality.tables(
        networks=["dreamnet"],
        photo=draw_sky(72, 80),
        tile=64,
        octaves=1,
        steps=1,
        copies=2,
        picture=tmp_path / "sheet.png",
    )
    rows = parsed(table)
    assert len(rows) == 4
    assert number(rows[0]["of fp32, whole"]) == 1
    assert all(0.9 < number(row["of fp32, whole"]) < 1.1 for row in rows)
    assert all(0.9 < number(row["largest seam"]) < 1.1 for row in rows[2:])
    assert 0 < (tmp_path / "sheet.png").stat().st_size <= quality.MOST_BYTES


def test_results_name_the_machine_and_neither_host_nor_folder(tmp_path: Path) -> None:
    table = report.Table("Title", ("run", "time"), (("a", "1 s"),), ("a note",))
    path = report.write("section", [table], tmp_path, report.machine(5))
    text = path.read_text(encoding="utf-8")
    assert parsed(table) == [{"run": "a", "time": "1 s"}]
    assert "### Title" in text
    assert "- a note" in text
    assert f"PyTorch {torch.__version__}" in text
    assert platform.node() not in text
    assert str(report.ROOT) not in text


def test_the_skilled_loop_has_the_gradient_of_autograd() -> None:
    network = load_network("resnet18", weights="random")  # whose BatchNorm is folded
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    goal = parse("layer(layer2, norm=half_sum_square)").bound(network)
    x = image.clone().requires_grad_(True)
    (wanted,) = torch.autograd.grad(goal(network.activations(x, goal.layers)).sum(), x)
    found = skilled.gradient_of(network, "layer2", "fp32")(image)
    assert torch.nn.functional.cosine_similarity(wanted.flatten(), found.flatten(), 0) > 0.99999


def test_on_a_card_the_skilled_loop_is_captured_for_each_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a stand-in for CUDA's graphs, which count."""
    told: list[str] = []

    class Stand:
        def __init__(self, *_: object) -> None: ...
        def wait_stream(self, _: object) -> None: ...
        def replay(self) -> None:
            told.append("replay")

    @contextlib.contextmanager
    def graph(_: object) -> Iterator[None]:
        told.append("capture")
        yield

    for name, value in {
        "Stream": Stand, "CUDAGraph": Stand, "graph": graph, "current_stream": Stand,
        "stream": lambda _: contextlib.nullcontext(),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    calls: list[torch.Size] = []

    def gradient(x: torch.Tensor) -> torch.Tensor:
        calls.append(x.shape)
        return 2 * x

    run = skilled.captured(gradient)
    for side in (4, 6, 4, 6):
        run(torch.ones(1, 3, side, side))
    assert told == ["capture", "replay"] * 2 + ["replay"] * 2
    assert len(calls) == 2 * 4  # three to warm up
    assert skilled.ways_of("cuda:1") == (*skilled.ways_of("cpu"), "captured")
    network = load_network("resnet18", weights="random")
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(skilled, "captured", lambda function: function)
    exact, half = (
        skilled.gradient_of(network, "layer2", way)(image).flatten() for way in ("fp32", "captured")
    )
    assert torch.nn.functional.cosine_similarity(exact, half, 0) > 0.9


def test_the_skilled_table_compares_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skilled, "STEPS", 1)
    monkeypatch.setattr(skilled, "OCTAVES", 2)
    (table,) = skilled.tables(
        1, dreams=[("dreamnet", None, "mixed3a")], size=(64, 64), ways=("fp32", "autocast")
    )
    assert [row[0] for row in table.rows][:2] == ["skilled, fp32", "skilled, autocast"]
    scores = [float(row[-1]) for row in table.rows]
    assert all(0.5 < score < 2 for score in scores)
    assert skilled.read_dream("file:a=b@net=features.10") == ("file:a=b@net", None, "features.10")
