"""The figures of a long zoom are what they say, and the tables can be made."""

from __future__ import annotations

import pytest
import torch

from benchmarks import films_zoom
from tests.test_benchmarks import number, parsed
from tests.toy_network import net


def test_figures_of_a_picture_made_by_hand() -> None:
    image = torch.full((1, 3, 4, 4), 0.5)
    image[..., 0, 0] = torch.tensor([0.0, 0.5, 0.5])  # one channel is enough
    image[..., 3, 3] = 1
    found = films_zoom.figures(image, 2.5)
    assert found.score == 2.5
    assert found.clipped == pytest.approx(100 * 2 / 16)
    steps = 2 * (0.299 * 0.5) ** 2 + 2 * 0.5**2  # each px has two neighbours
    assert found.sharpness == pytest.approx(steps / 12, rel=1e-5)
    grey = films_zoom.figures(torch.full((1, 3, 4, 4), 0.5))
    assert (grey.lightness, grey.a, grey.b) == pytest.approx((53.39, 0, 0), abs=1e-2)
    assert grey.sharpness == grey.clipped == 0


def test_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(films_zoom, "SPEED_SIZE", (24, 32))
    monkeypatch.setattr(films_zoom, "WINDOW", 2)
    drift, speed = films_zoom.tables(
        1, frames=6, size=(24, 32), starts=("sky",), network=net(), layer="second"
    )
    rows = parsed(drift)
    assert [row["start"] for row in rows] == ["sky, as is", "sky, no pull", "sky, no noise"]
    assert all(number(row["L*"]) < 100 for row in rows)
    assert rows[0] != rows[1] != rows[2]
    (row,) = parsed(speed)
    assert number(row["zoom"]) > 0
    assert number(row["of that"]) > 0
