"""(a) The published dreams: phosphene's presets against the plain loops that they reproduce."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from benchmarks import plain, report
from phosphene import draw_sky, load_network
from phosphene.network import Network
from phosphene.recipes.dream import dream
from phosphene.recipes.presets import preset

Size = tuple[int, int]


@dataclass(frozen=True)
class Job:
    """A preset on its network, at a size (H, W); `targets`: at least and aimed at, by precision."""

    preset: str
    size: Size
    octaves: int
    steps: int
    targets: dict[str, str]


# The latter two small enough that no run takes more than half a minute.
JOBS = (
    Job("google2015", (575, 1024), 4, 10, {"fp32": "2.6 (4)", "bf16": "4.5 (7)"}),
    Job("keras", (216, 384), 3, 20, {"bf16": "4 (8)"}),
    Job("torchvision", (108, 192), 3, 20, {"bf16": "4 (8)"}),
)


def tables(
    repeats: int = 5, *, jobs: Sequence[Job] = JOBS, device: str = "cpu"
) -> list[report.Table]:
    """A table a job: seconds and how many times as fast as either plain loop."""
    return [_table(job, repeats, device) for job in jobs]


def _table(job: Job, repeats: int, device: str) -> report.Table:
    network = load_network(preset(job.preset).network, weights="random")
    photo = draw_sky(*job.size)
    pixels = photo[0].permute(1, 2, 0).contiguous().numpy()
    how = {"octaves": job.octaves, "steps": job.steps}
    loop = plain.LOOPS[job.preset]
    as_it_comes = loop(network.module, device, frozen=False, **how)
    careful = loop(network.module, device, frozen=True, **how)
    # Weights of their own, so that nothing of phosphene's is in the plain loops' way.
    network.module = copy.deepcopy(network.module)

    def ours(precision: str) -> Callable[[slice], int]:
        def run(part: slice) -> int:
            settings = {"preset": job.preset, "stop_above": None, "device": device, **how}
            steps = 0
            for step in dream.steps(
                photo[..., part, part], network, precision=precision, **settings
            ):
                steps += 1
                if steps == job.octaves * job.steps:
                    step.picture()
            return steps

        return run

    ways: dict[str, Callable[[slice], object]] = {
        "plain": lambda part: len(as_it_comes(pixels[part, part]).scores),
        "fp32": ours("fp32"),
        "careful": lambda part: len(careful(pixels[part, part]).scores),
        "bf16": ours("bf16"),
    }
    height, width = job.size
    report.say(f"{job.preset}, {width}×{height}")
    # A smaller picture first, so that everything is built; much smaller ones Inception refuses.
    part = slice(None, 7 * min(job.size) // 10)
    counts = {name: run(part) for name, run in ways.items()}
    if set(counts.values()) != {job.octaves * job.steps}:
        raise RuntimeError(f"not all runs took {job.octaves * job.steps} steps: {counts}")
    runs = {name: lambda run=run: run(slice(None)) for name, run in ways.items()}
    times = report.interleaved(runs, repeats, device)
    middle = {name: report.median(found) for name, found in times.items()}
    names = {
        "plain": "plain loop",
        "careful": "plain loop, careful",
        "fp32": "phosphene, fp32",
        "bf16": "phosphene, bf16",
    }
    rows = [
        (
            names[name],
            report.spread(times[name]),
            f"{middle['plain'] / middle[name]:.2f}",
            f"{middle['careful'] / middle[name]:.2f}",
            job.targets.get(name, ""),
        )
        for name in names
    ]
    what = f"{width}×{height}, {job.octaves} octaves × {job.steps} steps"
    return report.Table(
        f"{job.preset}: {network.name}, {what}",
        ("run", "time", "× plain", "× careful", "wanted (aim)"),
        tuple(rows),
        (f"precision auto: {_auto(network, job, photo, device)}",),
    )


def _auto(network: Network, job: Job, photo: torch.Tensor, device: str) -> str:
    """What `precision="auto"` takes for this job, and what it says about it."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        from phosphene import parse

        goal = parse(preset(job.preset).objective_for(network.name)).bound(network)
        chosen = network.prepared(device, "auto", layers=goal.layers, sample=photo)
    return "; ".join([chosen.precision, *(str(w.message) for w in told)])
