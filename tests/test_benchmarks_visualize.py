"""The benchmarks of visualisation run, and what they count is what they say."""

from __future__ import annotations

import copy
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import recognise, report, visualize
from phosphene import image as images
from phosphene.network import Network
from tests import toy_network

TINY: dict[str, Any] = {"size": 32, "steps": 2, "device": "cpu", "precision": "fp32"}


def shares(table: report.Table, row: int = 0) -> dict[str, str]:
    return dict(zip(table.header, table.rows[row], strict=True))


# Recognised ---------------------------------------------------------------------------------------


def by_colour() -> Network:
    """Seven classes whose logits are 1 to 7 times the mean of red, green, blue, red … of a map."""
    module = nn.Sequential(
        OrderedDict(
            map=nn.Conv2d(3, 7, 1, bias=False),
            pool=nn.AdaptiveAvgPool2d(1),
            logits=nn.Flatten(),
        )
    )
    first: Any = module.get_submodule("map")
    first.weight.data.zero_()
    for k in range(7):
        first.weight.data[k, k % 3] = k + 1
    return Network(module, input_size=8, classes=[f"c{k}" for k in range(7)], name="by colour")


def test_what_a_judge_names_is_counted() -> None:
    def only(channel: int, side: int = 16) -> Tensor:
        picture = torch.zeros(1, 3, side, side)
        picture[:, channel] = 1
        return picture

    # Red is named 7, 4, 1 and then, at 0, any two others: 6 (red, first), 0 (red, third) and
    # green's 4 (first); no blue is ever there for class 3.
    pictures = {6: only(0), 0: only(0), 4: only(1), 3: only(2)}
    judge = by_colour()
    for side in (None, judge.input_size):
        verdict = recognise.judged(judge, pictures, side)
        assert verdict.named[6][:3] == (6, 3, 0)
        assert verdict.named[4][:2] == (4, 1)
        assert verdict.top1 == 2 / 4
        assert len(verdict.named[3]) == 5
        assert verdict.top5 == (3 + (3 in verdict.named[3])) / 4


def test_the_judge_is_shown_its_own_size_without_aliasing() -> None:
    judge = by_colour()
    seen: list[tuple[int, int]] = []
    plain = judge.activations
    judge.activations = lambda image, layers: (  # pyright: ignore
        seen.append(images.size_of(image)),  # pyright: ignore
        plain(image, layers),
    )[1]
    fine = torch.zeros(1, 3, 16, 16)
    fine[..., ::2] = 1  # a grating that taking every second px would make white or black
    recognise.judged(judge, {0: fine}, 8)
    recognise.judged(judge, {0: fine})
    assert seen == [(8, 8), (16, 16)]
    small = images.resize(fine, (8, 8))[..., 2:-2]
    torch.testing.assert_close(small, torch.full_like(small, 0.5), atol=0.02, rtol=0)


def test_what_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    plain = recognise.visualize

    def counted(network: Network, goals: list[str], **settings: Any) -> Tensor:
        drawn.extend(goals)
        return plain(network, goals, **settings)

    monkeypatch.setattr(recognise, "visualize", counted)
    net = toy_network.net()
    place = recognise.shelf(net, TINY, tmp_path)
    for done in recognise.draw(net, [0, 1, 2], TINY, place, batch=2):
        assert done == 2
        break  # stopped here
    first = {k: file.read_bytes() for k, file in recognise.kept(place, [0, 1, 2]).items()}
    assert list(first) == [0, 1]
    assert list(recognise.draw(net, [0, 1, 2], TINY, place, batch=2)) == [3]
    assert drawn == ["logits:0", "logits:1", "logits:2"]
    files = recognise.kept(place, [0, 1, 2])
    assert list(files) == [0, 1, 2]
    assert all(files[k].read_bytes() == data for k, data in first.items())
    alone = plain(net, "logits:2", **TINY)
    torch.testing.assert_close(images.load_image(files[2]), alone, atol=1.5 / 255, rtol=0)
    # Other settings or weights are another folder; the device is not.
    assert recognise.shelf(net, TINY | {"steps": 3}, tmp_path) != place
    assert recognise.shelf(net, TINY | {"device": "auto"}, tmp_path) == place
    module = copy.deepcopy(net.module)
    for p in module.parameters():
        p.data.add_(1)
    other = Network(module, input_size=32, classes=toy_network.CLASSES, name="toy")
    assert recognise.shelf(other, TINY, tmp_path) != place


def test_classes_spread_evenly() -> None:
    assert recognise.some(140, None) == list(range(140))
    assert recognise.some(140, 35) == list(range(0, 140, 4))
    assert recognise.some(3, 9) == [0, 1, 2]


def test_the_table_says_what_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    given = ["--draws", "dreamnet", "--parameterization", "fourier", "--classes", "2"]
    given += ["--folder", str(folder), "--set", "steps=1", "--set", "size=32"]
    recognise.main([*given, "--out", str(tmp_path)])
    text = (tmp_path / "recognise.md").read_text()
    assert "| dreamnet → dreamnet-robust, fourier | 2 of 140 |" in text
    assert len(list(folder.glob("dreamnet-fourier-*/*.png"))) == 2


# Soon good ----------------------------------------------------------------------------------------


def test_views_hold_nothing_but_the_picture() -> None:
    flat = torch.full((1, 3, 40, 40), 0.25)
    seen = visualize.views(8)(flat)
    assert len(seen) == 8
    assert all(torch.allclose(view, torch.full_like(view, 0.25)) for view in seen)
    sides = {tuple(view.shape[-2:]) for view in seen}
    assert len(sides) > 1
    assert all(0.8 * 40 - 6 <= side <= 1.2 * 40 - 4 for pair in sides for side in pair)
    noise = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    again = zip(visualize.views(8)(noise), visualize.views(8)(noise), strict=True)
    assert all(torch.equal(a, b) for a, b in again)


def test_a_held_out_score_is_the_mean_of_the_unit() -> None:
    picture = torch.full((1, 3, 32, 32), 0.5)
    assert visualize.held_out(by_colour(), "map:4", picture, 3) == pytest.approx(2.5, abs=1e-5)
    assert visualize.held_out(by_colour(), "logits:1", picture, 3) == pytest.approx(1, abs=1e-5)


def test_a_score_is_reached_where_it_stays() -> None:
    looks = [visualize.Look(k, 0.1 * k, 0.2 * k, torch.zeros(0)) for k in range(4)]
    assert visualize.reached(looks, [1, 3, 1, 3], 2) is looks[3]
    assert visualize.reached(looks, [1, 3, 2, 3], 2) is looks[1]
    assert visualize.reached(looks, [2, 2, 2, 2], 2) is looks[0]
    assert visualize.reached(looks, [3, 3, 3, 1], 2) is None


@pytest.mark.parametrize(("better", "there"), [(False, True), (True, False)])
def test_a_race(better: bool, there: bool, toy: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visualize, "SIDE", 24)
    best = visualize.ours(toy, "third:1", 40)[-1].picture

    def rival(network: Network, unit: str, steps: int) -> list[visualize.Look]:
        return [visualize.Look(steps, 2.0, 1.0, best if better else torch.full_like(best, 0.5))]

    how: dict[str, Any] = {"repeats": 2, "steps": 8, "rival_steps": 16, "count": 4}
    table = visualize.race(toy, ["third:1"], rival, more=rival, **how)
    assert len(table.rows) == 2
    found = shares(table)
    assert found["its time"] == "2 s (2–2)"
    assert (found["steps"] != "") == there
    assert found["ours: that score after"].endswith(")") == there
    assert (found["share of its work"] != "inf") == there


def test_looks_are_in_order_and_do_not_count_themselves(toy: Network) -> None:
    clock = visualize._Clock()
    seconds, work = clock.read()
    sum(range(300_000))
    clock.leave_out(seconds, work)
    assert clock.read()[0] < seconds + 0.01
    looks = visualize.ours(toy, "third:1", 13)
    assert [look.steps for look in looks] == [4, 8, 12, 13]
    assert [look.seconds for look in looks] == sorted(look.seconds for look in looks)


def test_a_sheet_against_single_pictures(toy: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visualize, "SIDE", 24)
    table = visualize.sheets(toy, "third", channels=6, steps=2, repeats=1)
    assert [row[0] for row in table.rows] == ["one picture", "sheet of 6"]
    assert shares(table, 1)["work of one picture"].startswith("6 × ")
