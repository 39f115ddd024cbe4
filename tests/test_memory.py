from __future__ import annotations

import ctypes
import math
import mmap
import os
import platform
import resource
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from phosphene import memory
from phosphene.errors import NetworkError, SettingsError
from phosphene.memory import GIB, MIB, Budget, Plan, budget_of, parse_memory, plan

# Amounts in words


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1K", 1024),
        ("512M", 2**29),
        ("4G", 2**32),
        ("1T", 2**40),
        ("1.5G", 3 * 2**29),
        ("4g", 2**32),
        ("4GB", 2**32),
        ("4GiB", 2**32),
        ("4gib", 2**32),
        (" 4 G ", 2**32),
        ("0.5k", 512),
        ("007M", 7 * MIB),
        ("1.0009765625K", 1025),
    ],
)
def test_an_amount_is_a_number_and_a_binary_unit(text: str, amount: int) -> None:
    assert parse_memory(text) == amount


@pytest.mark.parametrize(
    "text",
    ["", "4", "G", "-4G", "+4G", "4G5", "1e3M", "4 G G", "1.G", ".5G", "1,5G", "4P", "4Gb b", "inf",
     "nanG", "0x4G", "4\nG G", "٤Gx", "half"],
)  # fmt: skip
def test_what_is_no_amount_is_told_with_what_is_one(text: str) -> None:
    with pytest.raises(
        SettingsError, match="is no amount; a number and a unit, such as 512M or 4G"
    ):
        parse_memory(text)


@pytest.mark.parametrize("text", ["0G", "0.0000001K", "0.0k"])
def test_nothing_is_told(text: str) -> None:
    with pytest.raises(SettingsError, match="is nothing at all"):
        parse_memory(text)


@given(
    whole=st.integers(0, 10**6),
    part=st.none() | st.integers(0, 999),
    unit=st.sampled_from("kKmMgGtT"),
    tail=st.sampled_from(["", "b", "B", "ib", "iB"]),
)
def test_any_number_with_any_unit(whole: int, part: int | None, unit: str, tail: str) -> None:
    number = f"{whole}" if part is None else f"{whole}.{part:03}"
    exact = int(float(number) * 2 ** (10 * (1 + "kmgt".index(unit.lower()))))
    if exact:
        assert parse_memory(f"{number}{unit}{tail}") == exact
        assert parse_memory(f" {number} {unit}{tail} ") == exact


@given(text=st.text(max_size=12))
def test_any_text_is_an_amount_or_told_in_one_line(text: str) -> None:
    try:
        assert parse_memory(text) >= 1
    except SettingsError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_bytes_in_words() -> None:
    told = {1: "1 MiB", MIB: "1 MiB", MIB + 1: "2 MiB", 640 * MIB: "640 MiB", GIB: "1.0 GiB"}
    assert {amount: memory.in_words(amount) for amount in told} == told
    assert memory.in_words(3.2 * GIB) == "3.2 GiB"


# What is there


@dataclass
class Machine:
    """A file system with what Linux tells of memory."""

    root: Path
    limits: dict[int, int] = field(default_factory=dict)

    def write(self, path: str, text: object) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    def available(self) -> int:
        return memory.available_memory("cpu", root=self.root)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """8 GiB available, no group, no limits; this process has 1000 pages, 300 in memory."""
    made = Machine(tmp_path)
    made.write("proc/meminfo", f"MemTotal: 16777216 kB\nMemFree: 5 kB\nMemAvailable: {8 * MIB} kB")
    made.write("proc/self/statm", "1000 300 20 5 0 400 0")
    made.write("proc/self/cgroup", "")

    def limit(which: int) -> tuple[int, int]:
        return made.limits.get(which, resource.RLIM_INFINITY), resource.RLIM_INFINITY

    monkeypatch.setattr(resource, "getrlimit", limit)
    return made


PAGE = os.sysconf("SC_PAGE_SIZE")


def test_what_the_machine_has_and_what_is_used(machine: Machine) -> None:
    assert machine.available() == 8 * GIB
    assert memory.used_memory("cpu", root=machine.root) == 300 * PAGE


def test_a_machine_that_tells_nothing_has_a_cautious_guess(tmp_path: Path) -> None:
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert memory.available_memory("cpu", root=tmp_path) == there // 2
    assert memory.used_memory("cpu", root=tmp_path) > 0
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("nonsense\n")
    assert memory.available_memory("cpu", root=tmp_path) == there // 2


def test_a_group_of_version_2_leaves_its_limit_less_what_it_holds(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/outer/job")
    machine.write("sys/fs/cgroup/outer/job/memory.max", 3 * GIB)
    machine.write("sys/fs/cgroup/outer/job/memory.current", 2 * GIB)
    assert machine.available() == GIB
    # Files that were read are dropped when memory is needed; those in use are not.
    machine.write(
        "sys/fs/cgroup/outer/job/memory.stat",
        f"anon 5\nactive_file {GIB // 8}\ninactive_file {GIB // 2}\ninactive_files 7",
    )
    assert machine.available() == GIB + GIB // 2
    machine.write("sys/fs/cgroup/outer/job/memory.high", 2 * GIB)  # slowed to a crawl above it
    assert machine.available() == GIB // 2
    machine.write("sys/fs/cgroup/outer/memory.max", GIB)  # a group above it may have less
    machine.write("sys/fs/cgroup/outer/memory.current", GIB - MIB)
    assert machine.available() == MIB
    machine.write("sys/fs/cgroup/outer/memory.current", 2 * GIB)  # over it already
    assert machine.available() == 0


def test_a_group_without_a_limit_is_none(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/outer/job")
    for name in ("memory.max", "memory.high"):
        machine.write(f"sys/fs/cgroup/outer/job/{name}", "max")
    machine.write("sys/fs/cgroup/outer/job/memory.current", 7 * GIB)
    assert machine.available() == 8 * GIB
    machine.write("sys/fs/cgroup/outer/job/memory.max", GIB)
    (machine.root / "sys/fs/cgroup/outer/job/memory.current").write_text("?")
    assert machine.available() == 8 * GIB


def test_in_a_container_the_groups_root_is_the_containers_own(machine: Machine) -> None:
    # The path is the host's, which is out of sight; or it leads up and out.
    for path in ("/docker/0123abcd", "/../../system.slice"):
        machine.write("proc/self/cgroup", f"0::{path}")
        machine.write("sys/fs/cgroup/memory.max", 2 * GIB)
        machine.write("sys/fs/cgroup/memory.current", GIB // 2)
        assert machine.available() == GIB + GIB // 2


def test_a_group_of_version_1(machine: Machine) -> None:
    machine.write(
        "proc/self/cgroup", "12:cpu,cpuacct:/elsewhere\n7:hugetlb,memory:/outer/job\n1:name=x:/y:z"
    )
    base = "sys/fs/cgroup/memory/outer/job"
    machine.write(f"{base}/memory.limit_in_bytes", 2 * GIB)
    machine.write(f"{base}/memory.usage_in_bytes", GIB)
    assert machine.available() == GIB
    machine.write(f"{base}/memory.stat", f"inactive_file 1\ntotal_inactive_file {GIB // 4}")
    assert machine.available() == GIB + GIB // 4
    # What stands for no limit is a number, and so large that it limits nothing.
    machine.write(f"{base}/memory.limit_in_bytes", 2**63 - 4096)
    assert machine.available() == 8 * GIB
    machine.write("sys/fs/cgroup/cpu/elsewhere/memory.limit_in_bytes", 1)
    machine.write("sys/fs/cgroup/cpu/elsewhere/memory.usage_in_bytes", 0)
    assert machine.available() == 8 * GIB


def test_both_versions_side_by_side(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "7:memory:/a\n0::/b")
    machine.write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", 3 * GIB)
    machine.write("sys/fs/cgroup/memory/a/memory.usage_in_bytes", 0)
    machine.write("sys/fs/cgroup/unified/b/memory.max", 2 * GIB)
    machine.write("sys/fs/cgroup/unified/b/memory.current", 0)
    assert machine.available() == 2 * GIB


def test_ulimits_leave_what_is_not_held_yet(machine: Machine) -> None:
    machine.limits[resource.RLIMIT_AS] = 2 * GIB
    assert machine.available() == 2 * GIB - 1000 * PAGE
    machine.limits[resource.RLIMIT_DATA] = GIB
    assert machine.available() == GIB - 400 * PAGE
    machine.limits[resource.RLIMIT_DATA] = 4096  # less than is held
    assert machine.available() == 0


def test_a_real_ulimit_of_a_real_process() -> None:
    code = """
import resource
from phosphene.memory import GIB, available_memory
resource.setrlimit(resource.RLIMIT_AS, (GIB, GIB))
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
assert abs(available_memory() - (GIB - held)) < 2**22, available_memory()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_this_process_holds_what_the_system_says() -> None:
    with open("/proc/self/status") as file:
        (line,) = (line for line in file if line.startswith("VmRSS"))
    assert memory.used_memory() == pytest.approx(int(line.split()[1]) * 1024, rel=0.2)
    before = memory.used_memory()
    block = mmap.mmap(-1, 64 * memory.MIB)  # not from the heap, which may have so much left
    ctypes.memset((ctypes.c_char * len(block)).from_buffer(block), 1, len(block))
    assert memory.used_memory() - before == pytest.approx(len(block), rel=0.2)


# The budget


def test_a_budget_is_the_machines_or_the_users_if_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "used_memory", lambda _: GIB)
    monkeypatch.setattr(memory, "available_memory", lambda _: 3 * GIB)
    both = {"reserved": 7, "instead": 5}
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
    assert Budget(1000, 200, reserved=20).least(700) == 1000


@given(
    limit=st.integers(0, 10**12),
    used=st.integers(0, 10**11),
    reserved=st.integers(0, 10**10),
    need=st.integers(0, 10**11),
)
def test_with_the_least_limit_it_fits_and_with_less_it_does_not(
    limit: int, used: int, reserved: int, need: int
) -> None:
    least = Budget(limit, used, reserved).least(need)
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
    comfort: int | None = None,
    tiles: Tiles | str = Tiles(),  # noqa: B008
    **given: Any,
) -> Plan:
    """For 10 bytes a px: 10 MB for the whole, 3 MB in halves, 1 MB in quarters."""
    budget = given.pop("budget", None) or Budget(math.ceil(free / 0.9), 0)
    return plan((1000, 1000), lambda _: 10, budget, lambda: tiles, comfort=comfort, **given)


@pytest.mark.parametrize(
    ("free", "comfort", "tile"),
    [
        (10_000_000, None, None),  # the whole fits
        (10_000_000, 10_000_000, None),
        (9_999_990, None, 500),  # it does not by a few bytes
        (3_000_001, None, 500),
        (2_999_990, None, 250),  # 1.6 times the work, and nothing else fits
        (1_000_001, None, 250),
        (90_000_000, 9_999_999, 500),  # fits, but smaller is as fast
        (90_000_000, 3_000_000, 500),
        (90_000_000, 1_500_000, 500),  # within twice the comfort
        (90_000_000, 1_000_000, 500),  # quarters are too much work
        (90_000_000, 1, 500),  # least memory of those that are little work
        (9_000_000, 90_000_000, 500),  # no comfort beyond what is free
    ],
)
def test_whole_or_halves_or_quarters(free: int, comfort: int | None, tile: int | None) -> None:
    assert planned(free, comfort).tile == tile


def test_more_work_is_taken_on_only_to_stay_near_the_comfort() -> None:
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
    chosen = plan((10, 20), lambda _: 10, enough, lambda: pytest.fail("asked"), comfort=2000)
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
    # What is there instead of the maps need fit only without them.
    assert planned(0, budget=replace(free, instead=10_500_000)).tile is None
    for tiles in (Tiles(), "no tiles"):
        with pytest.raises(SettingsError, match=r"take 22 MiB at least, 12 MiB are there"):
            planned(0, tiles=tiles, budget=replace(free, instead=20_000_000))
    # No more than was freed: 1 MB of quarters retain 1 MB at most.
    assert planned(2_000_001, retained=10**9).tile == 250
    with pytest.raises(SettingsError):
        planned(1_999_980, retained=10**9)


@given(longest=st.integers(1, 20_000), smallest=st.sampled_from([1, 4, 8, 16, 32, 48]))
def test_sides_fall_to_the_smallest_and_are_multiples_of_it(longest: int, smallest: int) -> None:
    sides = memory._sides(longest, smallest)  # pyright: ignore[reportPrivateUsage]
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
    comfort=st.none() | st.integers(1, 4 * GIB),
    halo=st.integers(0, 300),
)
def test_a_plan_always_fits_or_is_refused(
    size: tuple[int, int], need: float, limit: int, comfort: int | None, halo: int
) -> None:
    class Square:
        smallest = 16

        def pixels(self, size: tuple[int, int], tile: int) -> tuple[int, int]:
            sides = [[min(tile + 2 * halo, side)] * math.ceil(side / tile) for side in size]
            return max(sides[0]) * max(sides[1]), sum(sides[0]) * sum(sides[1])

    budget = Budget(limit, 0)
    square = Square()
    try:
        chosen = plan(size, lambda _: need, budget, lambda: square, comfort=comfort)
    except SettingsError as error:
        assert need * square.pixels(size, 16)[0] > budget.free
        assert "in the smallest tiles" in str(error)  # noqa: PT017
        return
    pixels = math.prod(size) if chosen.tile is None else square.pixels(size, chosen.tile)[0]
    assert need * pixels <= budget.free + 1


# What lacks memory


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] can't allocate memory: 9 bytes"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("could not create a memory object"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("could not create a primitive descriptor for a convolution"), False),
        (RuntimeError("the sizes of tensors must match"), False),
        (NetworkError("out of memory, it says, but this is no error of the kind"), False),
        (ValueError("can't allocate memory"), False),
        (KeyboardInterrupt(), False),
        (None, False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_errors(
    error: BaseException | None, lacks: bool
) -> None:
    assert memory.out_of_memory(error) is lacks


def test_a_lack_of_memory_is_seen_behind_other_errors() -> None:
    def raised(explicit: bool) -> BaseException:
        try:
            try:
                raise MemoryError
            except MemoryError as error:
                if explicit:
                    raise NetworkError("it failed") from error
                raise NetworkError("it failed")  # noqa: B904
        except NetworkError as error:
            return error

    assert memory.out_of_memory(raised(True))
    assert memory.out_of_memory(raised(False))
    circle = NetworkError("its own cause")
    circle.__context__ = ValueError()
    circle.__context__.__context__ = circle
    assert not memory.out_of_memory(circle)


def test_torchs_own_lack_of_memory_is_one() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62, dtype=torch.uint8)
    assert memory.out_of_memory(caught.value)


# What is kept


def test_keeping_what_is_freed_is_asked_of_glibc_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    class Library:
        def mallopt(self, what: int, amount: int) -> int:
            asked.append((what, amount))
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    monkeypatch.setattr(sys, "platform", "linux")
    memory.keep_freed()
    memory.keep_freed()  # twice is as good as once
    assert asked == [(-3, GIB), (-1, 2**31 - 1)] * 2
    asked.clear()
    memory.return_freed()
    assert asked == [(-3, MIB)]
    asked.clear()
    for other in ("darwin", "win32"):
        monkeypatch.setattr(sys, "platform", other)
        memory.keep_freed()
        memory.return_freed()
    assert not asked


@pytest.mark.parametrize("fault", [OSError("no libc.so.6"), AttributeError("no mallopt")])
def test_where_there_is_no_glibc_nothing_happens(
    monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def missing(name: str) -> Any:
        raise fault

    monkeypatch.setattr(ctypes, "CDLL", missing)
    monkeypatch.setattr(sys, "platform", "linux")
    memory.keep_freed()


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A process that keeps what it frees and holds 500 MiB; the calls to give it back."""
    trimmed: list[int] = []

    class Library:
        def mallopt(self, what: int, amount: int) -> int:
            return 1

        def malloc_trim(self, pad: int) -> int:
            trimmed.append(pad)
            return 1

    monkeypatch.setattr(memory, "_keeps", False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    monkeypatch.setattr(memory, "used_memory", lambda device: 500 * MIB)
    memory.keep_freed()
    return trimmed


def test_more_than_a_process_is_held_to_is_given_back(kept: list[int]) -> None:
    memory.relieve()
    assert not kept
    with memory.held_to(500 * MIB):
        memory.relieve()
        assert not kept
        with memory.held_to(500 * MIB - 1):
            memory.relieve()
            assert kept == [0]
            with memory.held_to(None):
                memory.relieve()
        memory.relieve()
        assert kept == [0]


def test_what_is_in_use_is_not_asked_for_again_and_again(
    kept: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where more is needed than was planned, the limit follows it, and returns for the next one."""
    for _ in range(2):
        monkeypatch.setattr(memory, "used_memory", lambda device: 500 * MIB)
        with memory.held_to(100 * MIB):
            for used, calls in ((500, 1), (628, 1), (629, 2), (640, 2)):
                monkeypatch.setattr(memory, "used_memory", lambda device, n=used: n * MIB)
                memory.relieve()
                assert len(kept) == calls
        kept.clear()


def test_a_process_that_keeps_nothing_has_nothing_to_give_back(kept: list[int]) -> None:
    memory.return_freed()
    with memory.held_to(1):
        memory.relieve()
        assert not kept
        memory.keep_freed()
        memory.relieve()
    assert kept == [0]


def test_without_glibc_there_is_nothing_to_give_back(
    kept: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with memory.held_to(1):
        memory.relieve()
    assert not kept


def test_what_runs_first_and_pictures_lie_apart_from_the_heap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[int] = []
    monkeypatch.setattr(memory, "_mallopt", lambda options: said.extend(options.values()))
    monkeypatch.setattr(memory, "_keeps", False)
    with memory.held_to(1), memory.maps_in_heap():
        assert not said  # a library leaves its process alone
    monkeypatch.setattr(memory, "_keeps", True)
    for limit, settled, thresholds in (
        (1, False, [MIB, MIB]),
        (1, True, [GIB, MIB]),
        (None, True, [GIB]),  # a small dream after a large one has the heap again
    ):
        with memory.held_to(limit, settled=settled), memory.maps_in_heap():
            assert said == thresholds[:1]
        assert said == thresholds
        said.clear()


def test_large_pages_are_asked_for_unless_the_user_has_said_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    memory.large_pages()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "1"
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    memory.large_pages()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"


@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_a_limit_to_addresses_is_seen(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    limits = {getattr(resource, name): unlimited for name in ("RLIMIT_AS", "RLIMIT_DATA")}
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits[which])
    assert not memory.addresses_limited()
    limits[getattr(resource, limit)] = (8 * GIB, resource.RLIM_INFINITY)
    assert memory.addresses_limited()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's alone")
def test_what_is_freed_really_stays_or_goes() -> None:
    code = """
import ctypes, sys
from phosphene.memory import MIB, held_to, keep_freed, relieve, return_freed, used_memory
if sys.argv[1] == "keep":
    keep_freed()
    keep_freed()
elif sys.argv[1] == "return":
    return_freed()
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
before = used_memory()
for size in (30 * MIB, 8 * MIB):  # glibc begins to keep what is smaller than what was freed once
    blocks = [libc.malloc(size) for _ in range(9)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks[:-1]:  # the last one, at the end, holds them there
        libc.free(block)
if sys.argv[1] == "hold":
    keep_freed()
    with held_to(before + 60 * MIB):
        relieve()
print((used_memory() - before) // MIB)
"""
    kept: dict[str, int] = {}
    for word in ("keep", "leave", "return", "hold"):
        done = subprocess.run(
            [sys.executable, "-c", code, word], capture_output=True, text=True, check=True
        )
        kept[word] = int(done.stdout)
    assert 36 <= kept["return"] < 50  # what is held still
    assert 36 <= kept["hold"] < 50
    assert kept["leave"] > 90
    assert kept["keep"] > 250
