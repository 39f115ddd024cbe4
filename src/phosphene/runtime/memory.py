"""How much memory there is, how much this process holds, and whether an error is a lack of it.

torch is imported where it is needed: the command line reads amounts of memory before it is there.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from phosphene.errors import SettingsError

if TYPE_CHECKING:
    import torch

MIB, GIB = 2**20, 2**30

# Amounts ------------------------------------------------------------------------------------------

_UNITS = {"k": 2**10, "m": MIB, "g": GIB, "t": 2**40}


def parse_memory(text: str) -> int:
    """An amount of memory, in bytes; units are binary and needed.

    Raises:
        SettingsError: for what is no number with a unit, and for nothing at all.

    >>> parse_memory("1.5G")
    1610612736
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt])(?:i?b)?\s*", text.lower())
    if not found:
        raise SettingsError(
            f"memory: {text!r} is no amount; a number and a unit, such as 512M or 4G, is"
        )
    amount = int(float(found[1]) * _UNITS[found[2]])
    if amount < 1:
        raise SettingsError(f"memory: {text!r} is nothing at all")
    return amount


def format_bytes(amount: float) -> str:
    """Bytes for people: "3.2 GiB", "640 MiB"."""
    return f"{amount / GIB:.1f} GiB" if amount >= GIB else f"{math.ceil(amount / MIB)} MiB"


# What there is ------------------------------------------------------------------------------------


def available_memory(device: str | torch.device = "cpu", *, root: Path = Path("/")) -> int:
    """Bytes that this process may still take on a device.

    On a processor the least of what the machine has free, what the control groups (v1 and v2)
    leave it and what `ulimit -v` and `-d` do. `root` is where /proc and /sys are looked for.
    """
    kind = str(device).partition(":")[0]
    if kind == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        # What torch reserves and does not use is free as well.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + unused
    if kind == "mps":
        import torch

        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    amounts = [_machine(root), *_control_groups(root), *_resource_limits(root)]
    return max(0, min(amounts))


def used_memory(device: str | torch.device = "cpu", *, root: Path = Path("/")) -> int:
    """Bytes that this process holds on a device now."""
    kind = str(device).partition(":")[0]
    if kind == "cuda":
        import torch

        return torch.cuda.memory_allocated(device)
    if kind == "mps":
        import torch

        return torch.mps.driver_allocated_memory()
    with suppress(OSError, ValueError, IndexError):
        return int((root / "proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if sys.platform == "win32":
        return _windows_resident()
    with suppress(ImportError, OSError):
        import resource

        # The most it has held so far, in bytes on macOS: no less than what it holds.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 0


def peak_of(run: Callable[[], object], device: str | torch.device) -> int:
    """Bytes that `run` takes on a CUDA card at most, libraries' workspaces included; elsewhere 0.

    Those are nobody's tensors: only the allocator sees them.
    """
    if str(device).partition(":")[0] != "cuda":
        run()
        return 0
    import torch

    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    return torch.cuda.max_memory_allocated(device) - before


def _machine(root: Path) -> int:
    """What the machine has free, or can free at once."""
    with suppress(OSError, ValueError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return _windows_available()
    with suppress(OSError, ValueError, AttributeError):
        # macOS tells only how much there is: half of it is a cautious guess.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return 4 * GIB


def _control_groups(root: Path) -> Iterator[int]:
    """What each group that this process is in, and each above it, leaves it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            # Beside version 1 the second version lies in a folder of its own.
            for base in (mount, mount / "unified"):
                for group in _upward(base, path):
                    limits = [_number(group / name) for name in ("memory.max", "memory.high")]
                    used = _number(group / "memory.current")
                    yield from _left_by_group(group, limits, used, "inactive_file")
        elif "memory" in controllers.split(","):
            for group in _upward(mount / "memory", path):
                limits = [_number(group / "memory.limit_in_bytes")]
                used = _number(group / "memory.usage_in_bytes")
                yield from _left_by_group(group, limits, used, "total_inactive_file")


def _upward(base: Path, path: str) -> Iterator[Path]:
    """A group's folder and those above it; in a container some of them are out of sight."""
    parts = [part for part in path.split("/") if part and part != ".."]
    for length in range(len(parts), -1, -1):
        yield base.joinpath(*parts[:length])


def _left_by_group(
    group: Path, limits: list[int | None], used: int | None, reclaimable: str
) -> Iterator[int]:
    known = [limit for limit in limits if limit is not None]
    if not known or used is None:
        return
    # Files that were read count as used, and are dropped when memory is needed.
    with suppress(OSError, ValueError):
        for line in (group / "memory.stat").read_text().splitlines():
            if line.split()[:1] == [reclaimable]:
                used -= int(line.split()[1])
    yield min(known) - max(used, 0)


def _number(file: Path) -> int | None:
    with suppress(OSError, ValueError):
        return int(file.read_text())  # "max" is no limit, and no number
    return None


def _resource_limits(root: Path) -> Iterator[int]:
    """What `ulimit -v` (all addresses) and `ulimit -d` (data) leave."""
    try:
        import resource

        pages = [int(field) for field in (root / "proc/self/statm").read_text().split()]
        page = os.sysconf("SC_PAGE_SIZE")
    except (ImportError, OSError, ValueError):
        return
    for limit, held in ((resource.RLIMIT_AS, pages[0]), (resource.RLIMIT_DATA, pages[5])):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            yield soft - held * page


def addresses_limited() -> bool:
    """Whether there is a `ulimit -v` or `-d`, for which what is kept counts as what is used."""
    return any(True for _ in _resource_limits(Path("/")))


def _windows_available() -> int:
    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *(
                (name, ctypes.c_ulonglong)
                for name in ("all", "free", "page", "free_page", "virtual", "free_virtual", "more")
            ),
        )

    status = Status()
    status.length = ctypes.sizeof(Status)
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # pyright: ignore
    return int(status.free)


def _windows_resident() -> int:
    class Counters(ctypes.Structure):
        _fields_ = (
            ("size", ctypes.c_ulong),
            ("faults", ctypes.c_ulong),
            *((name, ctypes.c_size_t) for name in ("peak", "resident", *"abcdef")),
        )

    counters = Counters()
    counters.size = ctypes.sizeof(Counters)
    kernel = ctypes.windll.kernel32  # pyright: ignore[reportAttributeAccessIssue]
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(kernel.GetCurrentProcess())
    kernel.K32GetProcessMemoryInfo(handle, ctypes.byref(counters), counters.size)
    return int(counters.resident)


# A lack of it -------------------------------------------------------------------------------------


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it comes from, is a lack of memory on any device."""
    visited: set[int] = set()
    while error is not None and id(error) not in visited:  # an error can be its own cause
        visited.add(id(error))
        if isinstance(error, MemoryError):
            return True
        # torch has a class of its own for accelerators alone, and that is a RuntimeError, too.
        if isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)):
            return True
        if isinstance(error, (ImportError, OSError)) and _NOT_LOADED.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


# What the loader says of a library that memory does not hold.
_NOT_LOADED = re.compile(
    r"failed to map segment|cannot allocate memory|cannot map zero-fill|cannot create shared object"
    r"|cannot apply additional memory protection",
    re.IGNORECASE,
)
# Where cuDNN found no room to convolve it says that it found no way; MPS speaks of buffers.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|not enough memory|std::bad_alloc|ALLOC_FAILED"
    r"|ALLOCATION_FAILED|unable to find an engine|unable to find a valid cuDNN algorithm"
    r"|invalid buffer size|failed to allocate|insufficient memory|OutOfMemory"
    r"|could not create a memory|could not create a primitive(?! desc)",
    re.IGNORECASE,
)
