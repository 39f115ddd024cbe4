"""(c) Peak memory against the size of the picture, whole and in tiles, and the time for each px."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks import report

SIZES = (512, 1024, 2048, 4096)
HUGE = 8192
MEMORY = "6G"
PRECISIONS = ("fp32", "bf16")
MIB = 2**20


def tables(
    repeats: int = 5,
    *,
    sizes: Sequence[int] = SIZES,
    precisions: Sequence[str] = PRECISIONS,
    network: str = "dreamnet",
    huge: bool = False,
    device: str = "cpu",
) -> list[report.Table]:
    """A table: each run a process of its own, one octave of a few steps, and its picture.

    Before and after each of another size there is one of the least, since machines are slower at
    times.
    """
    least = min(sizes)
    runs = [(side, how) for side in sizes for how in ({"tile": "off"}, {"tile": "auto"})]
    if huge:
        runs += [(HUGE, {"tile": "auto"}), (HUGE, {"tile": "auto", "memory": MEMORY})]
    rows = []
    for side, how in runs:
        for precision in precisions:
            # Memory is the same whatever their number. The first two steps are not timed: in them
            # what stays is built and laid out.
            steps = 2 + (repeats if side < 4096 else 3 if side < HUGE else 2)
            how = {**how, "precision": precision, "device": device}
            short = {**how, "steps": 2 + repeats, "tile": "off"}
            short.pop("memory", None)
            around = [measured(least, network, **short)] if side > least else []
            found = measured(side, network, steps=steps, **how)
            around += [measured(least, network, **short)] if side > least else []
            a_px = report.median(found["steps"][2:]) / side**2
            those = [seconds / least**2 for run in around for seconds in run["steps"][2:]]
            text = f"{side}², {precision}, tile {how['tile']}"
            if "memory" in how:
                text += f", memory {how['memory']}"
            rows.append(
                (
                    text,
                    found["tile"],
                    f"{found['peak'] / MIB:,.0f} MiB",
                    f"{(found['peak'] - found['before']) / MIB:,.0f} MiB",
                    f"{(found['peak'] - found['before']) / side**2:.0f}",
                    f"{1e9 * a_px:.0f} ns",
                    f"{a_px / report.median(those):.2f}" if those else "",
                )
            )
            report.say(f"  {' | '.join(rows[-1])}")
    return [
        report.Table(
            f"Memory: {network}'s default dream, one octave",
            (
                "picture",
                "taken",
                "peak",
                "of it the dream's",
                "bytes a px",
                "a step, a px",
                f"× {least}²",
            ),
            tuple(rows),
            (
                "peak: the most that the process ever held (its resident set), Python, PyTorch and "
                "the network included; on CUDA what PyTorch ever held of the card. The dream's: "
                "above what it held before it.",
                "a step's time for each px: the median of those after the second.",
                f"× {least}²: over that of {least}², whole, right before and after; the median of "
                "both together.",
            ),
        )
    ]


def measured(side: int, network: str, **settings: Any) -> dict[str, Any]:
    """One dream in a process of its own: bytes `before` and at `peak`, seconds of its `steps`."""
    job = json.dumps({"side": side, "network": network, "settings": settings})
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", job],
        env=report.environment(),
        cwd=report.ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{side}², {settings}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def most_held(device: str = "cpu") -> int:
    """Bytes that this process held at its most. Not of its parent, which `ru_maxrss` starts at.

    On CUDA those of the card that PyTorch held.
    """
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_reserved(device)
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _child(job: dict[str, Any]) -> dict[str, Any]:
    from phosphene import load_network
    from phosphene.recipes.dream import dream
    from phosphene.runtime.allocator import keep_freed

    keep_freed()  # as the command line does
    network = load_network(job["network"])
    photo = report.sky(job["side"])
    device = job["settings"].get("device", "cpu")
    if device.startswith("cuda"):
        network.prepared(device, job["settings"]["precision"])
    before, times, last = most_held(device), [], None
    found: list[Any] = []
    with report.plans() as told:
        steps = dream.steps(photo, network, octaves=1, **job["settings"])
        while True:
            seconds = report.seconds(lambda: found.append(next(steps, None)), device)
            if (step := found.pop()) is None:
                break
            times.append(seconds)
            last = step
            del step
        assert last is not None
        last.picture()
    return {
        "before": before,
        "peak": most_held(device),
        "steps": times,
        "tile": report.tile_in(told),
        "score": float(last.score.mean()),
    }


if __name__ == "__main__":
    print(json.dumps(_child(json.loads(sys.argv[1]))))
