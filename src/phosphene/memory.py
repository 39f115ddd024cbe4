"""How much memory there is, how much a gradient takes, and so how large the tiles may be.

torch is imported where it is needed: the command line reads sizes of memory before it is there.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from phosphene.context import inside
from phosphene.errors import SettingsError

if TYPE_CHECKING:
    import torch

Size = tuple[int, int]

MIB, GIB = 2**20, 2**30
# A processor gets no faster by holding more than this at a time; above it, tiles.
COMFORT = GIB
# How many times the work of the whole tiles may be, to stay within so many times that comfort.
BARGAINS = ((1.2, 1), (1.5, 2))
MOST_WORK = BARGAINS[0][0]
# The share of what is free that is left alone, for others and for what cannot be foreseen.
SPARE = 0.1
# What an allocator holds on to of what was freed, on a processor: about so much, at any size.
RETAINED = 256 * MIB


# What a program settles for its own process. A library leaves such things alone, and its users have
# MALLOC_TRIM_THRESHOLD_, MALLOC_MMAP_THRESHOLD_ and THP_MEM_ALLOC_ENABLE.


def large_pages() -> None:
    """Have PyTorch ask for pages of 2 MiB, if it has not allocated anything yet (Linux).

    Memory that is handed out blank then takes a fraction of the time.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def keep_freed() -> None:
    """Have this process keep what it frees for what it needs next, where that can be had (glibc).

    Otherwise every step gives its maps back to the system and is handed blank pages anew, which
    takes up to a half of its time. Between maps of many sizes, glibc keeps more than twice as much
    as was ever needed at once; `held_to` sets a limit to that.
    """
    global _keeps
    _keeps = True
    _mallopt({_MMAP_THRESHOLD: GIB, _TRIM_THRESHOLD: 2**31 - 1})


def return_freed() -> None:
    """Have this process give what it frees back at once, where that can be had (glibc).

    Its addresses, too, so that a limit to these is for what is used. It is slow.
    """
    global _keeps
    _keeps = False
    _mallopt({_MMAP_THRESHOLD: MIB})


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_keeps = False


def _mallopt(options: dict[int, int]) -> None:
    libc = _glibc()
    with suppress(AttributeError):
        for option, value in options.items():
            libc.mallopt(option, value)


def _glibc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    with suppress(OSError, AttributeError):
        return ctypes.CDLL("libc.so.6")
    return None


@dataclass
class _Limit:
    bytes: int
    settled: bool


_limit: ContextVar[_Limit | None] = ContextVar("limit", default=None)


def held_to(limit: int | None, *, settled: bool = True) -> AbstractContextManager[None]:
    """Inside, `relieve` sees to it that this process holds about `limit` bytes, not more.

    settled: what runs inside has run before, and leaves nothing behind that it did not leave then.
    """
    return inside(_limit, None if limit is None else _Limit(limit, settled))


@contextmanager
def maps_in_heap() -> Iterator[None]:
    """Inside, maps share the heap; afterwards, if the process is held to something, what is large
    lies apart from it.

    The heap is then for the maps of a network alone, which come and go alike with every step.
    Between these lie neither pictures nor the thousands of small things that a first run leaves
    behind, such as a library's notes on each convolution, since maps are apart as well as long as
    what runs here is not settled. Otherwise the heap would become twice as large.

    The process stays so: what is large and comes from elsewhere has the heap again after
    `keep_freed`.
    """
    if not _keeps:
        yield
        return
    limit = _limit.get()
    _mallopt({_MMAP_THRESHOLD: GIB if limit is None or limit.settled else MIB})
    try:
        yield
    finally:
        if limit is not None:
            _mallopt({_MMAP_THRESHOLD: MIB})


def give_back() -> None:
    """Give back what was freed, if this process keeps that, where that can be had (glibc)."""
    if _keeps:
        with suppress(AttributeError):
            _glibc().malloc_trim(0)


def relieve() -> None:
    """Give back what was freed, if this process keeps that and holds more than it is held to.

    To be called often where maps come and go.
    """
    limit = _limit.get()
    if limit is None or not _keeps or used_memory("cpu") <= limit.bytes:
        return
    give_back()
    # What is left is in use, so if it is more than was thought, it is no use to try again at once.
    left = used_memory("cpu")
    if left > limit.bytes:
        limit.bytes = left + RETAINED // 2


# What is there ------------------------------------------------------------------------------------

_UNITS = {"k": 2**10, "m": MIB, "g": GIB, "t": 2**40}


def parse_memory(text: str) -> int:
    """An amount of memory, in bytes; units are binary and needed.

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


def in_words(amount: float) -> str:
    """Bytes for people: "3.2 GiB", "640 MiB"."""
    return f"{amount / GIB:.1f} GiB" if amount >= GIB else f"{math.ceil(amount / MIB)} MiB"


def available_memory(device: str | torch.device = "cpu", *, root: Path = Path("/")) -> int:
    """Bytes that this process may still take on a device.

    On a processor the least of what the machine has free, what the control groups (v1 and v2)
    leave it and what `ulimit -v` and `-d` do. `root` is where /proc and /sys are looked for.
    """
    kind = str(device).partition(":")[0]
    if kind == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        # What torch holds and does not use is free as well.
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + held
    if kind == "mps":
        import torch

        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    amounts = [_machine(root), *_control_groups(root), *_limits(root)]
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
                    yield from _left(
                        group, limits, _number(group / "memory.current"), "inactive_file"
                    )
        elif "memory" in controllers.split(","):
            for group in _upward(mount / "memory", path):
                limits = [_number(group / "memory.limit_in_bytes")]
                used = _number(group / "memory.usage_in_bytes")
                yield from _left(group, limits, used, "total_inactive_file")


def _upward(base: Path, path: str) -> Iterator[Path]:
    """A group's folder and those above it; in a container some of them are out of sight."""
    parts = [part for part in path.split("/") if part and part != ".."]
    for length in range(len(parts), -1, -1):
        yield base.joinpath(*parts[:length])


def _left(
    group: Path, limits: list[int | None], used: int | None, reclaimable: str
) -> Iterator[int]:
    told = [limit for limit in limits if limit is not None]
    if not told or used is None:
        return
    # Files that were read count as used, and are dropped when memory is needed.
    with suppress(OSError, ValueError):
        for line in (group / "memory.stat").read_text().splitlines():
            if line.split()[:1] == [reclaimable]:
                used -= int(line.split()[1])
    yield min(told) - max(used, 0)


def _number(file: Path) -> int | None:
    with suppress(OSError, ValueError):
        return int(file.read_text())  # "max" is no limit, and no number
    return None


def _limits(root: Path) -> Iterator[int]:
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
    return any(True for _ in _limits(Path("/")))


def _windows_available() -> int:
    import ctypes

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
    import ctypes

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


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it comes from, is a lack of memory on any device."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # an error can be its own cause
        seen.add(id(error))
        if isinstance(error, MemoryError):
            return True
        # torch has a class of its own for accelerators alone, and that is a RuntimeError, too.
        if isinstance(error, RuntimeError) and _LACK.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


_LACK = re.compile(
    r"out of memory|can't allocate memory|not enough memory|std::bad_alloc|ALLOC_FAILED"
    r"|could not create a memory|could not create a primitive(?! desc)",
    re.IGNORECASE,
)


# The plan -----------------------------------------------------------------------------------------


class Tiles(Protocol):
    """How large the tiles of a picture become; `phosphene.tiling.Cut` is one."""

    @property
    def smallest(self) -> int:
        """The smallest tile, px."""
        ...

    def pixels(self, size: Size, tile: int) -> tuple[int, int]:
        """px of the largest tile of a picture of `size` (H, W), and of all together."""
        ...


@dataclass(frozen=True)
class Budget:
    """Memory, in bytes: what may be held altogether, what is held, what else will be.

    reserved, instead: what else, with a gradient's maps and at other times in their place.
    given: the limit is the user's, not the machine's.
    """

    limit: int
    used: int
    reserved: int = 0
    instead: int = 0
    given: bool = False

    @property
    def free(self) -> int:
        """What a gradient may take."""
        return int((self.limit - self.used) * (1 - SPARE)) - self.reserved

    def least(self, need: float) -> int:
        """The limit with which a gradient that takes `need` would fit."""
        return math.ceil((need + self.reserved) / (1 - SPARE)) + self.used


def budget_of(
    device: str | torch.device, memory: str | None = None, *, reserved: int = 0, instead: int = 0
) -> Budget:
    """What may be used on a device: the machine's own limits and `memory` ("4G"), if given."""
    used = used_memory(device)
    there = used + available_memory(device)
    if memory is None or there <= parse_memory(memory):
        return Budget(there, used, reserved, instead)
    return Budget(parse_memory(memory), used, reserved, instead, given=True)


@dataclass(frozen=True)
class Plan:
    """Whether to cut a picture: `tile` px, or None for whole; and why."""

    tile: int | None
    reason: str


def plan(
    size: Size,
    need: Callable[[int], float],
    budget: Budget,
    tiles: Callable[[], Tiles | str],
    *,
    comfort: int | None = None,
    retained: int = 0,
) -> Plan:
    """Choose whole or tiles for a picture of `size` (H, W), and how large the tiles are.

    need: bytes that a gradient takes, all pictures of the batch together, for each px of one of so
        many px.
    tiles: asked only where the whole is too much; a text says why there can be no tiles.
    comfort: bytes above which tiles are better though the whole would fit.
    retained: bytes of freed memory that the allocator may hold on to, no more than were freed.

    Of the choices that fit, the one with the least work is taken that is within `comfort` and 1.2
    times the work of the whole, or else within twice the comfort and 1.5 times the work. If there
    is none, it is that with the least memory of at most 1.2 times the work, or else the one with
    the least work.

    Raises SettingsError, with the least memory that works, where not even the smallest tile fits.
    """
    height, width = size
    what = f"{width}×{height} px"
    comfort = budget.free if comfort is None else min(comfort, budget.free)

    def takes(pixels: int) -> int:
        return with_retained(need(pixels) * pixels, retained)

    def fits(taken: int) -> bool:
        return max(taken, budget.instead) <= budget.free

    whole = takes(height * width)
    share = f"of {in_words(max(budget.free, 0))} free"
    if whole <= comfort and fits(whole):
        return Plan(None, f"{what} whole: {in_words(whole)} {share}")
    cut = tiles()
    if isinstance(cut, str):
        if fits(whole):
            return Plan(None, f"{what} whole: {in_words(whole)} {share}; {cut}")
        raise SettingsError(f"{_too_little(what, whole, budget)}; {cut}")
    # (work, bytes, tile); the whole is a choice, too.
    choices: list[tuple[float, int, int | None]] = [(1.0, whole, None)]
    for tile in _sides(max(size), cut.smallest):
        largest, together = cut.pixels(size, tile)
        choices.append((together / (height * width), takes(largest), tile))
    fitting = [choice for choice in choices if fits(choice[1])]
    if not fitting:
        least = min(taken for _, taken, _ in choices)
        raise SettingsError(f"{_too_little(what, least, budget)}, even in the smallest tiles")
    for most_work, comforts in BARGAINS:
        cosy = [c for c in fitting if c[0] <= most_work and c[1] <= comforts * comfort]
        if cosy:
            work, taken, tile = min(cosy, key=lambda choice: choice[:2])
            break
    else:
        thrifty = [choice for choice in fitting if choice[0] <= MOST_WORK]
        by_memory = min(thrifty, key=lambda choice: choice[1], default=None)
        work, taken, tile = by_memory or min(fitting, key=lambda choice: choice[:2])
    if tile is None:
        return Plan(None, f"{what} whole: {in_words(taken)} {share}; smaller tiles are more work")
    return Plan(
        tile,
        f"{what} in tiles of {tile} px: {in_words(taken)} {share}, {work - 1:.0%} more work than "
        f"whole, which takes {in_words(whole)}",
    )


def with_retained(tensors: float, retained: int = RETAINED) -> int:
    """Bytes that tensors take together with what the allocator holds on to between them."""
    return math.ceil(tensors + min(tensors, retained))


def _sides(longest: int, smallest: int) -> list[int]:
    """The sides of tiles that cut a length into 2, 3 … alike, down to the smallest."""
    sides: list[int] = []
    count = 2
    while not sides or sides[-1] > smallest:
        side = -(-longest // count)
        side = max(-(-side // smallest) * smallest, smallest)
        if not sides or side < sides[-1]:
            sides.append(side)
        # The next count that makes them smaller.
        count = max(count + 1, -(-longest // max(side - smallest, 1)))
    return sides


def _too_little(what: str, need: float, budget: Budget) -> str:
    there = "given" if budget.given else "there"
    least = budget.least(max(need, budget.instead))
    if least >= GIB:  # as the words round it, it must still be enough
        least = math.ceil(least / GIB * 10) / 10 * GIB
    return f"memory: {what} take {in_words(least)} at least, {in_words(budget.limit)} are {there}"
