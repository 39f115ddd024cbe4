"""Measures, prints Markdown, and writes it to benchmarks/results."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import (
    command,
    films,
    films_zoom,
    jobs,
    memory,
    quality,
    regions,
    report,
    skilled,
    steps,
)
from phosphene.runtime.allocator import keep_freed


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--repeats", type=int, default=5, help="medians of so many (5)")
    parser.add_argument("--huge", action="store_true", help="also 8192² with --memory 6G (minutes)")
    parser.add_argument("--largest", type=int, default=4096, help="px, of steps and memory (4096)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="folder of the results")
    parser.add_argument(
        "--dream", action="append", type=skilled.read_dream, metavar="NETWORK=LAYER",
        help="of skilled: such as file:x.safetensors@squeezenet1_1=features.10",
    )  # fmt: skip
    given = parser.parse_args()
    if unknown := set(given.sections) - set(SECTIONS):
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    if given.repeats < 1:
        parser.error("--repeats: 1 at least")
    keep_freed()  # as the command line does
    for name in given.sections or SECTIONS:
        report.say(f"{name} …")
        tables = SECTIONS[name](given)
        suffix = "" if given.device == "cpu" else f"-{torch.device(given.device).type}"
        path = report.write(name + suffix, tables, given.out, report.machine(given.repeats))
        print(path.read_text(encoding="utf-8"))


SECTIONS: dict[str, Callable[[argparse.Namespace], list[report.Table]]] = {
    **{
        f"jobs-{job.preset}": lambda given, job=job: jobs.tables(
            given.repeats, jobs=[job], device=given.device
        )
        for job in jobs.JOBS
    },
    "steps": lambda given: steps.tables(
        given.repeats,
        sizes=[side for side in steps.SIZES if side <= given.largest],
        device=given.device,
    ),
    "regions": lambda given: regions.tables(given.repeats, device=given.device),
    "films": lambda given: films.tables(given.repeats, device=given.device),
    "films-zoom": lambda given: films_zoom.tables(given.repeats, device=given.device),
    "skilled": lambda given: skilled.tables(
        given.repeats, dreams=given.dream or skilled.DREAMS, device=given.device
    ),
    "memory": lambda given: memory.tables(
        given.repeats,
        sizes=[side for side in memory.SIZES if side <= given.largest],
        huge=given.huge,
        device=given.device,
    ),
    "start": lambda given: command.start_tables(given.repeats, device=given.device),
    "default": lambda given: command.default_tables(given.repeats, device=given.device),
    "quality": lambda given: quality.tables(device=given.device),
}


if __name__ == "__main__":
    main()
