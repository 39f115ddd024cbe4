"""Whether an image is evaluated whole or in tiles, and how large these are, for a budget of memory.

torch is not imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from phosphene.errors import SettingsError
from phosphene.evaluation.geometry import Size
from phosphene.runtime import memory
from phosphene.runtime.allocator import RETAINED
from phosphene.runtime.memory import GIB, format_bytes, parse_memory

if TYPE_CHECKING:
    import torch

# A processor gets no faster by holding more than this at a time; above it, tiles.
CPU_WORKING_SET = GIB
# How many times the work of the whole the tiles may be, to stay within so many times that.
TRADE_OFFS = ((1.2, 1), (1.5, 2))
LITTLE_WORK = TRADE_OFFS[0][0]
# The share of what is free that is left alone, for others and for what cannot be foreseen.
HEADROOM = 0.1


class Tiling(Protocol):
    """How large the tiles of an image become: an `ExactTiling`, a `BlendedTiling`."""

    @property
    def smallest(self) -> int:
        """The smallest tile, px."""
        ...

    def pixels(self, size: Size, tile: int) -> tuple[int, int]:
        """px of the largest tile of an image of `size` (H, W), and of all together."""
        ...


@dataclass(frozen=True)
class Budget:
    """Memory, in bytes.

    Attributes:
        limit: what may be held altogether.
        used: what is held already.
        reserved: what else will be held, while there are a gradient's activations.
        between: what else will be held between two gradients, in place of the activations.
        given: the limit is the user's, not the machine's.
    """

    limit: int
    used: int
    reserved: int = 0
    between: int = 0
    given: bool = False

    @property
    def free(self) -> int:
        """What a gradient may take."""
        return int((self.limit - self.used) * (1 - HEADROOM)) - self.reserved

    def limit_for(self, need: float) -> int:
        """The least limit with which a gradient that takes `need` would fit."""
        return math.ceil((need + self.reserved) / (1 - HEADROOM)) + self.used


def budget_of(
    device: str | torch.device, limit: str | None = None, *, reserved: int = 0, between: int = 0
) -> Budget:
    """What may be used on a device: the machine's own limits and `limit` ("4G"), if given.

    Raises:
        SettingsError: for a limit that is no amount of memory.
    """
    used = memory.used_memory(device)
    there = used + memory.available_memory(device)
    if limit is None or there <= parse_memory(limit):
        return Budget(there, used, reserved, between)
    return Budget(parse_memory(limit), used, reserved, between, given=True)


@dataclass(frozen=True)
class Plan:
    """Whether to cut an image: `tile` px, or None for whole; and why."""

    tile: int | None
    reason: str


@dataclass(frozen=True)
class _Choice:
    """One way to evaluate an image: its work, in that of the whole, bytes, and the tiles' side."""

    work: float
    taken: int
    tile: int | None


def plan(
    size: Size,
    bytes_per_pixel: Callable[[int], float],
    budget: Budget,
    tiling: Callable[[], Tiling | str],
    *,
    working_set: int | None = None,
    retained: int = 0,
) -> Plan:
    """Choose whole or tiles for an image of `size` (H, W), and how large the tiles are.

    Of the choices that fit, the one with the least work is taken that is within `working_set` and
    1.2 times the work of the whole, or else within twice the working set and 1.5 times the work. If
    there is none, it is that with the least memory of at most 1.2 times the work, or else the one
    with the least work.

    Args:
        size: (H, W), px.
        bytes_per_pixel: bytes that a gradient takes, all images of the batch together, for each px
            of an image of so many px.
        budget: what may be taken.
        tiling: asked only where the whole is too much; a text says why there can be no tiles.
        working_set: bytes above which tiles are better though the whole would fit.
        retained: bytes of freed memory that the allocator may hold on to, no more than were freed.

    Raises:
        SettingsError: with the least memory that works, where not even the smallest tile fits.
    """
    height, width = size
    what = f"{width}×{height} px"
    working_set = budget.free if working_set is None else min(working_set, budget.free)

    def takes(pixels: int) -> int:
        return with_retained(bytes_per_pixel(pixels) * pixels, retained)

    def fits(taken: int) -> bool:
        return max(taken, budget.between) <= budget.free

    whole = takes(height * width)
    share = f"of {format_bytes(max(budget.free, 0))} free"
    if whole <= working_set and fits(whole):
        return Plan(None, f"{what} whole: {format_bytes(whole)} {share}")
    found = tiling()
    if isinstance(found, str):
        if fits(whole):
            return Plan(None, f"{what} whole: {format_bytes(whole)} {share}; {found}")
        raise SettingsError(f"{_too_little(what, whole, budget)}; {found}")
    choices = [_Choice(1.0, whole, None)]
    for tile in _tile_sides(max(size), found.smallest):
        largest, together = found.pixels(size, tile)
        choices.append(_Choice(together / (height * width), takes(largest), tile))
    fitting = [choice for choice in choices if fits(choice.taken)]
    if not fitting:
        least = min(choice.taken for choice in choices)
        raise SettingsError(f"{_too_little(what, least, budget)}, even in the smallest tiles")
    best = _best(fitting, working_set)
    taken = f"{format_bytes(best.taken)} {share}"
    if best.tile is None:
        return Plan(None, f"{what} whole: {taken}; smaller tiles are more work")
    return Plan(
        best.tile,
        f"{what} in tiles of {best.tile} px: {taken}, {best.work - 1:.0%} more work than whole, "
        f"which takes {format_bytes(whole)}",
    )


def _best(fitting: list[_Choice], working_set: int) -> _Choice:
    """What `plan` says is taken of the choices that fit; of two alike the first one."""

    def work_then_memory(choice: _Choice) -> tuple[float, int]:
        return choice.work, choice.taken

    for most_work, times in TRADE_OFFS:
        within = [c for c in fitting if c.work <= most_work and c.taken <= times * working_set]
        if within:
            return min(within, key=work_then_memory)
    little_work = [choice for choice in fitting if choice.work <= LITTLE_WORK]
    if little_work:
        return min(little_work, key=lambda choice: choice.taken)
    return min(fitting, key=work_then_memory)


def with_retained(tensors: float, retained: int = RETAINED) -> int:
    """Bytes that tensors take together with what the allocator holds on to between them."""
    return math.ceil(tensors + min(tensors, retained))


def _tile_sides(longest: int, smallest: int) -> list[int]:
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
    least = budget.limit_for(max(need, budget.between))
    if least >= GIB:  # as the text rounds it, it must still be enough
        least = math.ceil(least / GIB * 10) / 10 * GIB
    limit = format_bytes(budget.limit)
    return f"memory: {what} take {format_bytes(least)} at least, {limit} are {there}"
