from __future__ import annotations

import ctypes
import mmap
import os
import resource
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from phosphene.errors import NetworkError, SettingsError
from phosphene.runtime import memory
from phosphene.runtime.memory import GIB, MIB, parse_memory

# Amounts as text


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


def test_bytes_for_people() -> None:
    expected = {1: "1 MiB", MIB: "1 MiB", MIB + 1: "2 MiB", 640 * MIB: "640 MiB", GIB: "1.0 GiB"}
    assert {amount: memory.format_bytes(amount) for amount in expected} == expected
    assert memory.format_bytes(3.2 * GIB) == "3.2 GiB"


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
from phosphene.runtime.memory import GIB, available_memory
resource.setrlimit(resource.RLIMIT_AS, (GIB, GIB))
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
assert abs(available_memory() - (GIB - held)) < 2**22, available_memory()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_amounts_and_plans_need_no_torch() -> None:
    code = """
import sys
from phosphene.evaluation import plan
from phosphene.runtime import allocator, memory
assert "torch" not in sys.modules
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


@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_a_limit_to_addresses_is_seen(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    limits = {getattr(resource, name): unlimited for name in ("RLIMIT_AS", "RLIMIT_DATA")}
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits[which])
    assert not memory.addresses_limited()
    limits[getattr(resource, limit)] = (8 * GIB, resource.RLIM_INFINITY)
    assert memory.addresses_limited()


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
