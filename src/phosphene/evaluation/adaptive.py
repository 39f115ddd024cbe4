"""Whole or in tiles, as memory allows at each size: planned, and smaller where it runs out."""

from __future__ import annotations

import gc
import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from torch import Tensor

from phosphene import image as images
from phosphene.errors import NetworkError, SettingsError
from phosphene.evaluation import plan as planning
from phosphene.evaluation.blend import BlendedTiling, blended, blended_tiling
from phosphene.evaluation.cost import bytes_per_pixel
from phosphene.evaluation.geometry import ExactTiling, Size, round_up
from phosphene.evaluation.reach import InexactError
from phosphene.evaluation.rolled import RolledEvaluate, Shift, rolled
from phosphene.evaluation.several import Objectives, joint
from phosphene.evaluation.tiles import exact_tiling, tile_by_tile, tiling_and_core
from phosphene.evaluation.whole import each, whole
from phosphene.network import Network
from phosphene.objectives import Objective
from phosphene.runtime import allocator, bands, pooling
from phosphene.runtime.device import free_unused
from phosphene.runtime.memory import format_bytes, out_of_memory
from phosphene.runtime.options import Options

logger = logging.getLogger("phosphene")

Tile = int | Literal["auto", "off", "approximate"]
Cut = dict[str, list[Any]]

# Bytes for each px that no gradient is expected to take; below it nothing need be measured.
BYTES_PER_PIXEL_BOUND = 2048


class AdaptiveEvaluation:
    """Evaluates a bound objective whole or in tiles, as memory allows at each of some sizes.

    `evaluation(image, shift)` -> score and gradient, as a `RolledEvaluate`; of several objectives
    they are stacked. Where memory runs out in spite of the plan, tiles are halved and the same
    image is evaluated again.
    """

    def __init__(
        self,
        network: Network,
        objective: Objectives,
        sizes: Sequence[Size],
        *,
        batch: int = 1,
        tile: Tile = "auto",
        memory: str | None = None,
        buffers: int = 0,
        between: int = 0,
        cut: Cut | None = None,
    ) -> None:
        """Plan for all sizes, the largest first.

        Args:
            network: as prepared.
            objective: bound to it; or several, evaluated in one pass.
            sizes: those (H, W) that will come; they are planned now, so that an objective that
                cannot be tiled and a limit that is too low are errors before any work is done.
            batch: images at a time.
            tile: auto; off for always whole; px, the side of a core; approximate: as auto, and
                where tiles cannot be exact they are blended.
            memory: the most to use, such as "4G"; by default what the machine has.
            buffers: how many images of the full size, `batch` at a time, there will be besides,
                with the activations of a gradient, which is one of them.
            between: how many there will be when there are no activations.
            cut: how an evaluation cut these sizes that this one goes on from: see `cut`.

        Raises:
            SettingsError: InexactError where tiles are needed and are not the whole; with the least
                memory that works where it is too little.
        """
        self._network, self._objective, self._tile = network, objective, tile
        # All alike: a library that is there for one size costs the others nothing.
        large = batch * max(map(math.prod, sizes), default=0) >= pooling.NUMBA_PIXELS
        self._fast = Options(numba_pooling=large)
        self._saving = Options(numba_pooling=large, memory_efficient=True)
        self._planner = _Planner(
            network,
            objective,
            fast=self._fast,
            saving=self._saving,
            batch=batch,
            tile=tile,
            memory=memory,
            buffers=buffers,
            between=between,
        )
        self._evaluators: dict[tuple[int | None, Options], RolledEvaluate] = {}
        self._cores: dict[int, tuple[ExactTiling, int]] = {}
        self._halved: dict[Size, int] = {}  # px of tiles, at sizes where memory ran out
        if cut is not None:
            self._planner.take([((h, w), side) for h, w, side in cut["planned"]])
            self._halved = {(h, w): side for h, w, side in cut["halved"]}
        self._done: Counter[Size] = Counter()  # evaluations
        for size in sorted(sizes, key=math.prod, reverse=True):
            self._evaluator(self._planner.tile(size), self._fast)
            self._planner.resident_limit(size)  # before there is more than what stays

    def tile(self, size: Size) -> int | None:
        """px, the side of the tiles in which images of `size` (H, W) are evaluated now.

        As planned, or smaller where memory has run out; None for whole. Exact tiles are cores,
        rounded up to the network's period.
        """
        side = self._side(size)
        if side is None:
            return None
        tiling = self._planner.tiling()
        return round_up(side, tiling.smallest) if isinstance(tiling, ExactTiling) else side

    def cut(self) -> Cut:
        """How each size is cut: (H, W, px of the tiles or None), as planned, and where memory ran
        out since; JSON can hold it. Rounding depends on it."""
        return {
            "planned": [[*size, side] for size, side in self._planner.planned().items()],
            "halved": [[*size, side] for size, side in self._halved.items()],
        }

    def __call__(self, image: Tensor, shift: Shift = (0, 0)) -> tuple[Tensor, Tensor]:
        """Score `(N,)` and gradient `(N, 3, H, W)` of an image rolled by (down, right) px.

        Of several objectives scores `(K, N)` and gradients `(K, N, 3, H, W)`.

        Raises:
            SettingsError: where memory runs out and tiles cannot help.
        """
        size = images.size_of(image)
        while True:
            side = self._side(size)
            try:
                return self._attempt(image, shift, side)
            except (RuntimeError, MemoryError, NetworkError) as error:
                if not out_of_memory(error):
                    raise
                message = (str(error).splitlines() or [type(error).__name__])[0]
            # Only here is the error gone, and what its traceback held.
            gc.collect()
            free_unused(self._network.device)
            captures = self._network.captures
            if captures is not None and captures.let_go():
                continue  # which may have been what there was too much of
            self._halved[size] = self._smaller(size, side, message)

    def _side(self, size: Size) -> int | None:
        # Where a smaller image was too much, a larger one is.
        known = [s for other, s in self._halved.items() if math.prod(other) <= math.prod(size)]
        planned = self._planner.tile(size)
        return min([*known, planned or max(size)]) if known else planned

    def _attempt(self, image: Tensor, shift: Shift, side: int | None) -> tuple[Tensor, Tensor]:
        size = images.size_of(image)
        saving = size in self._halved or not self._planner.fits_easily(size)
        limit, image_bytes = self._planner.resident_limit(size)
        # The second time weights are laid out; tiles are many already.
        warm = self._done[size] >= (2 if side is None else 1)
        with allocator.limit_resident(limit, warm=warm):
            evaluate = self._evaluator(side, self._saving if saving else self._fast)
            found = evaluate(image, shift)
        self._done[size] += 1
        if limit is not None and image_bytes > allocator.RETAINED:
            # The caller's images are so large that what activations left behind would add up.
            allocator.trim()
        return found

    def _evaluator(self, side: int | None, options: Options) -> RolledEvaluate:
        key = (side, options)
        if key not in self._evaluators:
            self._evaluators[key] = self._new_evaluator(side, options)
        return self._evaluators[key]

    def _new_evaluator(self, side: int | None, options: Options) -> RolledEvaluate:
        network, objective = self._network, self._objective
        if side is None:
            if isinstance(objective, Objective):
                return rolled(whole(network, objective, options=options))
            return rolled(each(network, objective, options=options))
        if isinstance(self._planner.tiling(), BlendedTiling):
            return blended(network, objective, side, options=options)
        if side not in self._cores:  # once, since it is logged
            self._cores[side] = tiling_and_core(network, objective, side, options=self._fast)
        return tile_by_tile(network, objective, *self._cores[side], options)

    def _smaller(self, size: Size, side: int | None, message: str) -> int:
        """px of the next smaller tiles; SettingsError where there are none."""
        here = f"memory ran out at {size[1]}×{size[0]} px"
        lack = MemoryError(message)  # so that whoever catches it knows that it is one
        if self._tile == "off":
            raise SettingsError(f"{here}, whole; tile=auto cuts it ({message})") from lack
        tiling = self._planner.tiling()
        if isinstance(tiling, str):
            raise SettingsError(f"{here}; {tiling} ({message})") from lack
        before = side or max(size)
        if before <= tiling.smallest:
            raise SettingsError(f"{here}, even in tiles of {before} px ({message})") from lack
        after = max(round_up(before // 2, tiling.smallest), tiling.smallest)
        after = after if after < before else tiling.smallest
        logger.warning("%s: going on in tiles of %d px", here, after)
        return after


class _Planner:
    """Plans how each size is evaluated and how much memory that takes; every answer is cached."""

    def __init__(
        self,
        network: Network,
        objective: Objectives,
        *,
        fast: Options,
        saving: Options,
        batch: int,
        tile: Tile,
        memory: str | None,
        buffers: int,
        between: int,
    ) -> None:
        self._network, self._objective = network, objective
        self._joint = joint(objective)
        self._fast, self._saving = fast, saving
        self._batch, self._tile, self._memory = batch, tile, memory
        self._buffers, self._between = buffers, between
        self._tiling: ExactTiling | BlendedTiling | str | None = None
        self._easily: dict[Size, str | None] = {}
        self._tiles: dict[Size, int | None] = {}
        self._limits: dict[Size, tuple[int | None, int]] = {}

    def tiling(self) -> ExactTiling | BlendedTiling | str:
        """How images are cut, or why they cannot be."""
        if self._tiling is None:
            self._tiling = self._find_tiling()
        return self._tiling

    def _find_tiling(self) -> ExactTiling | BlendedTiling | str:
        try:
            return exact_tiling(self._network, self._joint, options=self._fast)
        except InexactError as error:
            if self._tile == "approximate" and not self._joint.positional:
                return blended_tiling(self._network, self._joint)
            return str(error)

    def tile(self, size: Size) -> int | None:
        """px of the tiles that are planned for images of a size, or None for whole; logged."""
        if size not in self._tiles:
            plan = self._plan(size)
            logger.info("%s", plan.reason)
            self._tiles[size] = plan.tile
        return self._tiles[size]

    def planned(self) -> dict[Size, int | None]:
        """What `tile` has answered so far."""
        return dict(self._tiles)

    def take(self, tiles: Iterable[tuple[Size, int | None]]) -> None:
        """Plan these so, whatever memory there is now."""
        self._tiles.update(tiles)

    def _plan(self, size: Size) -> planning.Plan:
        what, tile = f"{size[1]}×{size[0]} px", self._tile
        if tile == "off":
            return planning.Plan(None, f"{what} whole: tiles are off")
        if isinstance(tile, int) and max(size) <= tile:
            return planning.Plan(None, f"{what} whole: no larger than a tile")
        if isinstance(tile, int):
            return planning.Plan(tile, f"{what} in tiles of {tile} px, as asked for")
        if reason := self.fits_easily(size):
            return planning.Plan(None, f"{what} whole: {reason}")
        # Measuring keeps some memory itself: what is there is asked for after it.
        self._bytes_per_pixel(math.prod(size))
        budget, working_set = self._budget(size)
        return planning.plan(
            size,
            self._bytes_per_pixel,
            budget,
            self.tiling,
            working_set=working_set,
            retained=allocator.RETAINED if self._network.device.type == "cpu" else 0,
        )

    def fits_easily(self, size: Size) -> str | None:
        """How little a whole image takes, if that is so little that nothing need be saved."""
        if size not in self._easily:
            self._easily[size] = self._find_how_little(size)
        return self._easily[size]

    def _find_how_little(self, size: Size) -> str | None:
        if self._memory is not None:
            return None
        budget, working_set = self._budget(size)
        most = min(budget.free, working_set or budget.free)
        pixels = math.prod(size)
        taken = BYTES_PER_PIXEL_BOUND * pixels * self._batch
        if taken > most:
            # Not by a margin that holds for anything: measured, with room for as much again.
            measured = bytes_per_pixel(self._network, self._objective, options=self._fast)
            taken = math.ceil(measured * pixels * self._batch)
            most = min(most, budget.free // 2)
        if taken > most:
            return None
        return f"at most {format_bytes(taken)} of {format_bytes(budget.free)} free"

    def resident_limit(self, size: Size) -> tuple[int | None, int]:
        """Bytes that may be resident in this process, if that is a question; those of its images.

        None where the images are on another device, or fit easily.
        """
        if size not in self._limits:
            self._limits[size] = self._find_limit(size)
        return self._limits[size]

    def _find_limit(self, size: Size) -> tuple[int | None, int]:
        if self._network.device.type != "cpu" or self.fits_easily(size):
            return None, 0
        side, tiling = self.tile(size), self.tiling()
        pixels = math.prod(size)
        if side is not None and not isinstance(tiling, str):
            pixels, _ = tiling.pixels(size, side)
        taken = planning.with_retained(self._bytes_per_pixel(pixels) * pixels)
        budget, _ = self._budget(size)
        # What is put aside for other times gives the heap room meanwhile.
        room = max(taken, min(taken + budget.between, budget.free))
        limit = budget.used + budget.reserved + room
        # A limit that was given is there to be used.
        given = int(budget.limit * (1 - planning.HEADROOM)) if budget.given else 0
        return max(limit, given), budget.reserved + budget.between

    def _budget(self, size: Size) -> tuple[planning.Budget, int | None]:
        """What may be taken now, and above what tiles are better though the whole would fit."""
        itemsize = 8 if self._network.precision == "fp64" else 4
        image = len(self._network.scale) * itemsize * size[0] * size[1] * self._batch
        budget = planning.budget_of(
            self._network.device,
            self._memory,
            reserved=self._buffers * image,
            between=max(0, self._between - self._buffers) * image,
        )
        on_cpu = self._network.device.type == "cpu"
        return budget, planning.CPU_WORKING_SET if on_cpu else None

    def _bytes_per_pixel(self, pixels: int) -> float:
        """Bytes that a gradient of an image of so many px takes, for each of them.

        That of no smaller one takes more altogether: tiles at the border are smaller than others.
        """
        network, objective, options = self._network, self._objective, self._saving
        if pixels < bands.BAND_PIXELS:
            return bytes_per_pixel(network, objective, options=options) * self._batch
        banded, plain = (
            bytes_per_pixel(network, objective, options=options, banded=b) for b in (True, False)
        )
        return max(banded, plain * (bands.BAND_PIXELS - 1) / pixels) * self._batch
