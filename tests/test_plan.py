"""Budgets of memory, and whether to evaluate whole or in tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phosphene.errors import SettingsError
from phosphene.evaluation import plan as planning
from phosphene.evaluation.plan import Budget, Plan, budget_of, plan
from phosphene.runtime import memory
from phosphene.runtime.memory import GIB, MIB, parse_memory

# The budget


def test_a_budget_is_the_machines_or_the_users_if_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "used_memory", lambda _: GIB)
    monkeypatch.setattr(memory, "available_memory", lambda _: 3 * GIB)
    both: dict[str, Any] = {"reserved": 7, "between": 5}
    assert budget_of("cpu", **both) == Budget(4 * GIB, GIB, 7, 5, given=False)
    assert budget_of("cpu", "2G", **both) == Budget(2 * GIB, GIB, 7, 5, given=True)
    # What the machine has not cannot be given.
    assert budget_of("cpu", "4G") == budget_of("cpu", "9G") == Budget(4 * GIB, GIB)
    with pytest.raises(SettingsError, match="is no amount"):
        budget_of("cpu", "lots")


def test_a_tenth_of_what_is_free_is_left_alone_and_buffers_are_put_aside() -> None:
    assert Budget(1000, 0).free == 900
    assert Budget(1000, 200).free == 720
    assert Budget(1000, 200, reserved=20).free == 700
    assert Budget(1000, 1200).free < 0
    assert Budget(1000, 200, reserved=20).limit_for(700) == 1000


@given(
    limit=st.integers(0, 10**12),
    used=st.integers(0, 10**11),
    reserved=st.integers(0, 10**10),
    need=st.integers(0, 10**11),
)
def test_with_the_least_limit_it_fits_and_with_less_it_does_not(
    limit: int, used: int, reserved: int, need: int
) -> None:
    least = Budget(limit, used, reserved).limit_for(need)
    assert Budget(least, used, reserved).free >= need - 1
    assert Budget(least - 3, used, reserved).free < need


# The plan


@dataclass
class Tiles:
    """Two sizes of tiles for 1000 × 1000 px: px of the largest, and of all together."""

    smallest: int = 250
    halves: tuple[int, int] = (300_000, 1_100_000)
    quarters: tuple[int, int] = (100_000, 1_600_000)

    def pixels(self, size: tuple[int, int], tile: int) -> tuple[int, int]:
        assert size == (1000, 1000)
        return {500: self.halves, 250: self.quarters}[tile]


def planned(
    free: int,
    working_set: int | None = None,
    tiles: Tiles | str = Tiles(),  # noqa: B008
    **given: Any,
) -> Plan:
    """For 10 bytes a px: 10 MB for the whole, 3 MB in halves, 1 MB in quarters."""
    budget = given.pop("budget", None) or Budget(math.ceil(free / 0.9), 0)
    return plan((1000, 1000), lambda _: 10, budget, lambda: tiles, working_set=working_set, **given)


@pytest.mark.parametrize(
    ("free", "working_set", "tile"),
    [
        (10_000_000, None, None),  # the whole fits
        (10_000_000, 10_000_000, None),
        (9_999_990, None, 500),  # it does not by a few bytes
        (3_000_001, None, 500),
        (2_999_990, None, 250),  # 1.6 times the work, and nothing else fits
        (1_000_001, None, 250),
        (90_000_000, 9_999_999, 500),  # fits, but smaller is as fast
        (90_000_000, 3_000_000, 500),
        (90_000_000, 1_500_000, 500),  # within twice the working set
        (90_000_000, 1_000_000, 500),  # quarters are too much work
        (90_000_000, 1, 500),  # least memory of those that are little work
        (9_000_000, 90_000_000, 500),  # no working set beyond what is free
    ],
)
def test_whole_or_halves_or_quarters(free: int, working_set: int | None, tile: int | None) -> None:
    assert planned(free, working_set).tile == tile


def test_more_work_is_taken_on_only_to_stay_near_the_working_set() -> None:
    dear = Tiles(halves=(300_000, 1_400_000))
    assert planned(90_000_000, 3_000_000, dear).tile == 500
    assert planned(90_000_000, 1_500_000, dear).tile == 500
    assert planned(90_000_000, 1_400_000, dear).tile is None  # neither is worth it
    dearer = Tiles(halves=(300_000, 1_510_000))
    assert planned(90_000_000, 3_000_000, dearer).tile is None
    assert planned(9_000_000, 3_000_000, dearer).tile == 500  # the whole does not fit
    # Both halves and quarters are little work: the least of it is taken, not the least memory.
    cheap = Tiles(quarters=(100_000, 1_150_000))
    assert planned(90_000_000, 3_000_000, cheap).tile == 500
    assert planned(90_000_000, 2_000_000, cheap).tile == 250


def test_tiles_are_not_asked_for_where_the_whole_will_do() -> None:
    enough = Budget(10**9, 0)
    chosen = plan((10, 20), lambda _: 10, enough, lambda: pytest.fail("asked"), working_set=2000)
    assert chosen == Plan(None, "20×10 px whole: 1 MiB of 859 MiB free")


def test_the_reason_says_what_and_why() -> None:
    chosen = planned(9_000_000)
    assert chosen.reason == (
        "1000×1000 px in tiles of 500 px: 3 MiB of 9 MiB free, 10% more work than whole, which "
        "takes 10 MiB"
    )
    chosen = planned(90_000_000, 1, Tiles(halves=(300_000, 1_300_000)))
    assert chosen.reason == "1000×1000 px whole: 10 MiB of 86 MiB free; smaller tiles are more work"


def test_where_no_tiles_can_be_the_whole_is_taken_if_it_fits() -> None:
    chosen = planned(10_000_001, 1000, "it is no sum")
    assert chosen.tile is None
    assert chosen.reason.endswith("; it is no sum")
    with pytest.raises(SettingsError, match=r"1000×1000 px take 11 MiB at least, .*; it is no sum"):
        planned(9_000_000, 1000, "it is no sum")


def test_too_little_for_the_smallest_tile_names_the_least_that_works() -> None:
    budget = Budget(500 * MIB, 499 * MIB, given=True)
    with pytest.raises(SettingsError) as caught:
        planned(0, budget=budget)
    # 1 MB over nine tenths, and what is held.
    least = math.ceil(1_000_000 / 0.9) + 499 * MIB
    assert str(caught.value) == (
        "memory: 1000×1000 px take 501 MiB at least, 500 MiB are given, even in the smallest tiles"
    )
    assert planned(0, budget=Budget(least + 2, 499 * MIB)).tile == 250
    with pytest.raises(SettingsError, match="500 MiB are there"):
        planned(0, budget=Budget(500 * MIB, 499 * MIB))
    with pytest.raises(SettingsError, match="501 MiB at least"):  # more is held than is allowed
        planned(0, budget=Budget(400 * MIB, 499 * MIB))


@pytest.mark.parametrize("used", [3 * MIB, 499 * MIB, 1023 * MIB, 1240 * MIB, 7 * GIB])
def test_the_least_as_it_is_told_is_enough(used: int) -> None:
    with pytest.raises(SettingsError) as caught:
        planned(0, budget=Budget(used, used, given=True))
    told = str(caught.value).split(" take ")[1].split(" at least")[0]
    planned(0, budget=Budget(parse_memory(told), used))


def test_buffers_and_what_the_allocator_retains_count() -> None:
    free = Budget(math.ceil(10_500_000 / 0.9), 0)
    assert planned(0, budget=free).tile is None
    buffers = Budget(math.ceil(10_500_000 / 0.9), 0, reserved=600_000)
    assert planned(0, budget=buffers).tile == 500
    assert planned(0, budget=free, retained=600_000).tile == 500
    # What is there in place of the maps need fit only without them.
    assert planned(0, budget=replace(free, between=10_500_000)).tile is None
    for tiles in (Tiles(), "no tiles"):
        with pytest.raises(SettingsError, match=r"take 22 MiB at least, 12 MiB are there"):
            planned(0, tiles=tiles, budget=replace(free, between=20_000_000))
    # No more than was freed: 1 MB of quarters retain 1 MB at most.
    assert planned(2_000_001, retained=10**9).tile == 250
    with pytest.raises(SettingsError):
        planned(1_999_980, retained=10**9)


@given(longest=st.integers(1, 20_000), smallest=st.sampled_from([1, 4, 8, 16, 32, 48]))
def test_sides_fall_to_the_smallest_and_are_multiples_of_it(longest: int, smallest: int) -> None:
    sides = planning._tile_sides(longest, smallest)  # pyright: ignore[reportPrivateUsage]
    assert sides == sorted(set(sides), reverse=True)
    assert all(side % smallest == 0 for side in sides)
    assert sides[-1] == smallest
    assert sides[0] >= longest / 2
    # None is left out that cuts the length into fewer pieces than the next.
    counts = [math.ceil(longest / side) for side in sides]
    assert counts == sorted(counts)


@given(
    size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    need=st.floats(1, 5000),
    limit=st.integers(MIB, 64 * GIB),
    working_set=st.none() | st.integers(1, 4 * GIB),
    halo=st.integers(0, 300),
)
def test_a_plan_always_fits_or_is_refused(
    size: tuple[int, int], need: float, limit: int, working_set: int | None, halo: int
) -> None:
    class Square:
        smallest = 16

        def pixels(self, size: tuple[int, int], tile: int) -> tuple[int, int]:
            sides = [[min(tile + 2 * halo, side)] * math.ceil(side / tile) for side in size]
            return max(sides[0]) * max(sides[1]), sum(sides[0]) * sum(sides[1])

    budget = Budget(limit, 0)
    square = Square()
    try:
        chosen = plan(size, lambda _: need, budget, lambda: square, working_set=working_set)
    except SettingsError as error:
        assert need * square.pixels(size, 16)[0] > budget.free
        assert "in the smallest tiles" in str(error)  # noqa: PT017
        return
    pixels = math.prod(size) if chosen.tile is None else square.pixels(size, chosen.tile)[0]
    assert need * pixels <= budget.free + 1
