"""The judge of class pictures counts what it says, on networks whose answers are known."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from benchmarks import recognise
from phosphene.errors import NetworkError
from phosphene.network import Network
from training import judge

COLOURS = ("Red", "green", "blue")


def by_colour(classes: tuple[str, ...] = COLOURS, *, vector: bool = False) -> Network:
    """Class k's score is the mean of colour k less the others', as a pooled map or as a vector."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        map=nn.Conv2d(3, len(classes), 1, bias=False), pool=nn.AdaptiveAvgPool2d(1)
    )
    if vector:
        layers["logits"] = nn.Flatten()
    module = nn.Sequential(layers)
    first: Any = module.get_submodule("map")
    first.weight.data.zero_()
    first.weight.data[:3, :, 0, 0] = 2 * torch.eye(3) - 1
    return Network(module, input_size=32, classes=classes, name="by colour")


def painted(*colour: float, side: int = 16) -> Tensor:
    return (
        torch.tensor(colour, dtype=torch.float32)
        .view(1, 3, 1, 1)
        .expand(1, 3, side, side)
        .contiguous()
    )


@pytest.mark.parametrize(("hits", "count"), [(0, 5), (5, 5), (98, 140), (1, 2)])
def test_the_interval_holds_the_shares_that_a_score_test_allows(hits: int, count: int) -> None:
    low, high = judge.wilson(hits, count)
    oracle = stats.binomtest(hits, count).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((oracle.low, oracle.high), abs=1e-4)


@pytest.mark.parametrize("vector", [True, False])
def test_a_picture_is_named(vector: bool) -> None:
    network = by_colour(vector=vector)
    picture = painted(0.2, 0.9, 0.5)
    scores = judge.class_scores(network, torch.cat([picture, painted(1, 0, 0)]))
    expected = torch.tensor([[-1.2, 0.2, -0.6], [1, -1, -1]])
    torch.testing.assert_close(scores, expected)
    total = sum(math.exp(score) for score in (-1.2, 0.2, -0.6))
    for number, rank in ((0, 2), (1, 0), (2, 1)):
        naming = judge.named(network, picture, number, 32)
        assert naming.rank == rank
        score = float(expected[0, number])
        assert naming.log_probability == pytest.approx(score - math.log(total), abs=1e-5)
        assert naming.names == ("green", "blue", "Red")


def test_the_judge_sees_pictures_at_the_side_that_is_asked_for() -> None:
    network = by_colour()
    seen: list[int] = []
    plain = network.activations

    def spied(image: Tensor, layers: list[str]) -> dict[str, Tensor]:
        seen.append(image.shape[-1])
        return plain(image, layers)

    network.activations = spied  # pyright: ignore
    judge.named(network, painted(1, 0, 0), 0, 48)
    assert seen == [48]


def test_a_network_without_a_layer_of_its_classes_is_refused() -> None:
    network = by_colour()
    network.classes = ("a", "b")
    with pytest.raises(NetworkError, match="no layer with its 2 classes"):
        judge.class_scores(network, painted(1, 0, 0))


def test_classes_are_matched_by_name() -> None:
    drawn, known = ("red", "cyan", "blue"), ("blue", "turquoise", "Red", "grey", "Grey")
    assert judge.matched(drawn, known) == {0: 2, 2: 0}
    assert judge.matched(drawn, known, {"cyan": "turquoise"}) == {0: 2, 1: 1, 2: 0}
    with pytest.raises(ValueError, match=r"no class 'cyna'.*cyan"):
        judge.matched(drawn, known, {"cyna": "turquoise"})
    with pytest.raises(ValueError, match="no class 'turquois'"):
        judge.matched(drawn, known, {"cyan": "turquois"})
    with pytest.raises(ValueError, match="'grey' is the name of 2"):
        judge.matched(("grey",), known)


def test_a_subset_and_the_rest_are_all_classes() -> None:
    network = by_colour(tuple(f"c{k}" for k in range(10)))
    some, rest = judge.chosen(network, 3), judge.chosen(network, 3, rest=True)
    assert some == [0, 3, 6]
    assert sorted(some + rest) == list(range(10))
    assert judge.chosen(network, None) == list(range(10))
    assert judge.chosen(network, 3, only=["c7", "c2"]) == [7, 2]
    with pytest.raises(ValueError, match="no class 'c77'"):
        judge.chosen(network, None, only=["c77"])


def test_a_summary_counts() -> None:
    namings = [judge.Naming(rank, -rank, ("x",)) for rank in (0, 0, 4, 5)]
    text = judge.summary(namings)
    assert text.startswith("4 classes: top-1 0.500 [")
    assert "top-5 0.750 [" in text
    assert text.endswith("mean log-probability -2.25")


def test_what_is_drawn_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    networks = {
        "artist": by_colour(("red", "green", "blue", "unheard of"), vector=True),
        "judge": by_colour(),
    }
    monkeypatch.setattr(judge, "load_network", networks.__getitem__)
    drawn: list[str] = []
    plain = recognise.visualize

    def counted(network: Network, goals: list[str], **settings: Any) -> Tensor:
        drawn.extend(goals)
        return plain(network, goals, **settings)

    monkeypatch.setattr(recognise, "visualize", counted)
    words = ["artist", "judge", "--folder", str(tmp_path / "pictures"), "--batch", "1"]
    words += ["--set", "size=32", "--set", "steps=24", "--set", "decorrelate=false"]
    judge.main([*words, "--count", "2", "--out", str(tmp_path / "two.json")])
    # 0 and 2 of four, and what the judge has no class for is neither of them.
    assert drawn == ["logits:0", "logits:2"]
    judge.main([*words, "--out", str(tmp_path / "all.json")])
    assert drawn == ["logits:0", "logits:2", "logits:1"]
    said = capsys.readouterr().out
    assert "by colour has no class unheard of: left out" in said
    assert "2 classes: top-1 1.000 [0.342, 1.000]" in said
    assert "3 classes: top-1 1.000 [0.438, 1.000]" in said
    figures = json.loads((tmp_path / "all.json").read_text("utf-8"))
    assert figures["ranks"] == {"red": 0, "green": 0, "blue": 0}
    assert figures["classes"]["red"][0] == "red"  # its own name, not the judge's
    assert figures["settings"] == {"size": 32, "steps": 24, "decorrelate": False}
    assert (tmp_path / "all.png").exists()
    judge.main([*words, "--only", "green", "--fresh"])
    assert drawn[3:] == ["logits:1"]


def test_the_rest_of_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        judge.parse(["a", "b", "--rest"])
    assert "how many is that?" in capsys.readouterr().err
