"""(d) How long the command takes to start, and (e) the default dream of a photograph."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import report
from benchmarks.steps import convolution_flops
from phosphene import draw_sky, image, load_network
from phosphene.recipes.dream import dream


def start_tables(repeats: int = 5, *, device: str = "cpu") -> list[report.Table]:
    """Processes, from their start to their end."""
    with tempfile.TemporaryDirectory() as folder:
        image.save_image(draw_sky(64, 64), Path(folder, "tiny.png"))
        one_step = ["dream", "tiny.png", "-o", "out.png", "--force", "--device", device]
        one_step += ["--octaves", "1", "--steps", "1"]
        runs = {
            "python -c pass": _process(folder, "-c", "pass"),
            "python -c 'import torch'": _process(folder, "-c", "import torch"),
            "python -c 'import phosphene'": _process(folder, "-c", "import phosphene"),
            "phosphene --help": _process(folder, "-m", "phosphene", "--help"),
            "phosphene dream, 64×64, one step": _process(folder, "-m", "phosphene", *one_step),
        }
        _warmed(runs)
        times = report.interleaved(runs, repeats)
    rows = [(name, report.spread(found)) for name, found in times.items()]
    return [report.Table("Start-up", ("process", "time"), tuple(rows))]


def default_tables(
    repeats: int = 5, *, size: tuple[int, int] = (427, 640), side: int = 512, device: str = "cpu"
) -> list[report.Table]:
    """The command as it is given without options; and one step to mixed5b in float32."""
    network = load_network()
    with tempfile.TemporaryDirectory() as folder:
        image.save_image(_photograph(size), Path(folder, "photo.jpg"))
        command = ["dream", "photo.jpg", "-o", "out.png", "--force", "--device", device]
        settings = {"octaves": 1, "steps": repeats + 2, "device": device, "precision": "fp32"}
        steps = dream.steps(report.sky(side), network, "mixed5b", **settings)
        next(steps)
        what = f"phosphene dream, {size[1]}×{size[0]}"
        runs: dict[str, Callable[[], object]] = {
            what: _process(folder, "-m", "phosphene", *command),
            f"{what}, fp32": _process(folder, "-m", "phosphene", *command, "--precision", "fp32"),
            f"one step, {side}×{side}, mixed5b, fp32": lambda: next(steps),
        }
        _warmed(runs)
        times = report.interleaved(runs, repeats, device)
    rows = [(name, report.spread(found)) for name, found in times.items()]
    flops = convolution_flops(network, ["mixed5b"], (side, side))
    step = report.median(times[f"one step, {side}×{side}, mixed5b, fp32"])
    return [
        report.Table(
            "dreamnet's default job",
            ("run", "time"),
            tuple(rows),
            (
                "the command: from the start of the process to its end, the picture read and "
                "written.",
                f"the step: {flops / 1e9:.1f} GFLOP of convolutions, {flops / step / 1e9:.0f} "
                "GFLOP/s all in all.",
            ),
        )
    ]


def _photograph(size: tuple[int, int]) -> torch.Tensor:
    try:
        from sklearn.datasets import load_sample_image
    except ImportError:
        return draw_sky(*size)
    pixels = torch.from_numpy(load_sample_image("china.jpg").copy())
    return image.resize(pixels.permute(2, 0, 1)[None].float() / 255, size).clamp(0, 1)


def _process(folder: str, *arguments: str) -> Callable[[], object]:
    def run() -> None:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=report.environment(),
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")

    return run


def _warmed(runs: dict[str, Callable[[], object]]) -> None:
    """Once each, so that files are in memory and bytecode is written."""
    for run in runs.values():
        run()
