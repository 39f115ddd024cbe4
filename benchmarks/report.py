"""What every section needs: the machine in words, interleaved times, Markdown tables."""

from __future__ import annotations

import logging
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

import phosphene

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
GIB = 2**30

# Instruction sets that decide how fast a convolution is, by their names in /proc/cpuinfo.
TELLING = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX512-BF16",
    "amx_bf16": "AMX-BF16",
    "asimd": "NEON",
    "sve": "SVE",
    "bf16": "BF16",
}


# Tables -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A table in Markdown: the first column is text, the others are numbers as they are shown."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"### {self.title}", "", _row(self.header)]
        lines.append(_row(["---", *["---:"] * (len(self.header) - 1)]))
        lines += [_row(row) for row in self.rows]
        if self.notes:
            lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write(section: str, tables: Sequence[Table], folder: Path, head: str) -> Path:
    """Write a section's tables below the description of the machine; gives the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{section}.md"
    body = "\n\n".join(str(table) for table in tables)
    path.write_text(f"## {section}\n\n{head}\n\n{body}\n", encoding="utf-8")
    return path


# The machine --------------------------------------------------------------------------------------


def machine(repeats: int) -> str:
    """The machine in general terms, and what ran on it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [_processor(), f"{cores} cores, of which {torch.get_num_threads()} used"]
    with suppress(ValueError, OSError, AttributeError):
        ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        parts.append(f"{ram / GIB:.0f} GiB of memory")
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    parts.append(platform.system())
    day = datetime.now(UTC).date().isoformat()
    return (
        f"{'; '.join(parts)}. Python {platform.python_version()}, PyTorch {torch.__version__}, "
        f"phosphene {phosphene.__version__}. {day}, {repeats} repeats."
    )


def _processor() -> str:
    fields: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    name = fields.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in fields:
        name += f" (family {fields['cpu family']}, model {fields.get('model', '?')})"
    sets = [told for flag, told in TELLING.items() if flag in flags]
    return f"{re.sub(r'[(]R[)]|[(]TM[)]', '', name)}, {', '.join(sets) or platform.machine()}"


# Times --------------------------------------------------------------------------------------------


def seconds(run: Callable[[], object], device: str = "cpu") -> float:
    """How long `run` takes; on CUDA between two events, all work of it included."""
    if device.startswith("cuda"):
        with torch.cuda.device(device):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            begin.record()
            run()
            end.record()
            torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1000
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def interleaved(
    runs: Mapping[str, Callable[[], object]], repeats: int, device: str = "cpu"
) -> dict[str, list[float]]:
    """Times of each run, A B A B …, so that what slows the machine down slows all of them."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(seconds(run, device))
            say(f"  {name}: {times[name][-1]:.3f} s")
    return times


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def spread(values: Sequence[float], unit: str = "s") -> str:
    """A median, and the least and most."""
    few, mid, most = (_short(v) for v in (min(values), median(values), max(values)))
    return f"{mid} {unit} ({few}–{most})"


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def say(text: str) -> None:
    """Progress, to stderr; results go to stdout."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def plans() -> Iterator[list[str]]:
    """Collects how phosphene says that it takes pictures: whole, or in which tiles."""
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())
    logger = logging.getLogger("phosphene")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield told
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def tile_in(told: Sequence[str]) -> str:
    """The tiles of a plan in few words."""
    found = [match for line in told if (match := re.search(r"in tiles of (\d+) px", line))]
    return f"{found[-1][1]} px" if found else "whole"


def sky(side: int) -> torch.Tensor:
    """A drawn picture `(1, 3, side, side)`; large ones are a small one, many times."""
    part = phosphene.draw_sky(min(side, 512), min(side, 512))
    return part.repeat(1, 1, *[-(-side // 512)] * 2)[..., :side, :side]


def environment() -> dict[str, str]:
    """For child processes, so that they find phosphene and this package from any folder."""
    source = Path(phosphene.__file__).parent.parent
    paths = [str(source), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
