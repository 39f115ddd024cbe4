"""How soon a picture of a unit is good, against torch-lucent; and what a sheet costs.

    pip install --target FOLDER --no-deps torch-lucent==0.1.8 kornia==0.4.1 decorator
    pip install --target FOLDER 'ipython<9'
    python -m benchmarks.visualize --lucent FOLDER

What is compared is the *held-out* score: the unit's mean over positions, averaged over 32 views of
the picture, moved and scaled by chances that neither tool has drawn. Both draw the same unit of the
same network, one picture of 128 px, with the settings that they come with. lucent is measured

- with care: no view is resized to 224 px, and the weights are frozen. This is what the target is
  set against. The network's own normalisation takes the place of lucent's;
- as it comes: each view is brought to 224 px, and gradients of the weights are computed. What the
  unit answers to is then drawn smaller than it is, so its score is for information.

Each call of lucent gets a fresh copy of the network, since it leaves its hooks behind.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import math
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import report
from phosphene import load_network, transforms
from phosphene.network import Network
from phosphene.recipes.sheet import sheet
from phosphene.recipes.visualize import visualize
from phosphene.runtime.allocator import keep_freed

UNITS = ("mixed4c:42", "mixed5a:100", "logits:5")
SIDE = 128
VIEWS = 32
RIVAL_STEPS = 512
# After how many steps we look, besides every 32.
EARLY = (4, 8, 12, 16, 24)


@dataclass(frozen=True)
class Look:
    """A picture `(1, 3, H, W)` on the way, after so many steps and seconds.

    `work` is the processor's time, s, of all threads: what else runs hardly changes it.
    """

    steps: int
    seconds: float
    work: float
    picture: Tensor


Draw = Callable[[Network, str, int], list[Look]]


def views(count: int = VIEWS, seed: int = 20251) -> Callable[[Tensor], list[Tensor]]:
    """Moved and scaled copies of a picture: 0.8 to 1.2 times its size, cut to 7/8 of a side.

    Nothing but the picture is in them: no padding, no corner.
    """

    def seen(picture: Tensor) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        cut = min(picture.shape[-2:]) // 8
        move = transforms.compose(transforms.scale(0.8, 1.2), transforms.jitter(cut, wrap=False))
        return [move(picture, generator) for _ in range(count)]

    return seen


@torch.no_grad()
def held_out(network: Network, unit: str, picture: Tensor, count: int = VIEWS) -> float:
    """The unit's mean over positions and over views that nothing was drawn with."""
    layer, channel = unit.rsplit(":", 1)
    layer = network.logits_layer if layer == "logits" else layer
    answers = [
        network.activations(view, [layer])[layer][0, int(channel)].mean()
        for view in views(count)(picture.clamp(0, 1))
    ]
    return float(torch.stack(answers).mean())


# The two ------------------------------------------------------------------------------------------


def ours(network: Network, unit: str, steps: int) -> list[Look]:
    """`visualize` as it comes; the clock runs from the call, and stands while it is looked."""
    looks, clock = [], _Clock()
    for step in visualize.steps(network, unit, size=SIDE, steps=steps, device="cpu"):
        done = step.index + 1
        if done in EARLY or done % 32 == 0 or step.last:
            seconds, work = clock.read()
            looks.append(Look(done, seconds, work, step.picture()))
            clock.leave_out(seconds, work)
    return looks


class _Clock:
    """Seconds since it was made, of the wall and of the processor."""

    def __init__(self) -> None:
        self.begin = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self.begin[0], time.process_time() - self.begin[1]

    def leave_out(self, seconds: float, work: float) -> None:
        """Let it stand again as it did when it was read."""
        self.begin = time.perf_counter() - seconds, time.process_time() - work


def lucent(network: Network, unit: str, steps: int, *, as_it_comes: bool = False) -> list[Look]:
    """`render_vis` of torch-lucent with its defaults; the clock runs from the call to its end."""
    from lucent.optvis import objectives, param, render, transform  # pyright: ignore

    layer, channel = unit.rsplit(":", 1)
    module = copy.deepcopy(network.module).float()
    module.requires_grad_(as_it_comes)

    def image() -> Any:
        return param.image(SIDE)

    chain = [*transform.standard_transforms, network.preprocess]
    clock = _Clock()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (picture,) = render.render_vis(
            module,
            objectives.channel(layer, int(channel)),
            image,
            transforms=chain,
            thresholds=(steps,),
            preprocess=False,
            progress=False,
            show_image=False,
            # What its transforms make of SIDE px, so that nothing is resized once more.
            fixed_image_size=None if as_it_comes else SIDE + 2 * 12,
        )
    return [Look(steps, *clock.read(), torch.from_numpy(picture.copy()).permute(0, 3, 1, 2))]


# Tables -------------------------------------------------------------------------------------------


def reached(looks: Sequence[Look], scores: Sequence[float], wanted: float) -> Look | None:
    """The first look from which on the score is `wanted` or more; None if the last one is less."""
    found = None
    for look, score in zip(reversed(looks), reversed(scores), strict=True):
        if score < wanted:
            break
        found = look
    return found


def race(
    network: Network,
    units: Sequence[str],
    rival: Draw,
    *,
    repeats: int = 3,
    steps: int = 256,
    rival_steps: int = RIVAL_STEPS,
    more: Draw | None = None,
    count: int = VIEWS,
) -> report.Table:
    """Ours and the rival's, A B A B …; times and scores are medians."""
    # Tracing, choosing a precision and the first allocations are paid once a process.
    ours(network, units[0], 2)
    rival(network, units[0], 2)
    rows = []
    for unit in units:
        races = []
        for k in range(repeats):
            torch.manual_seed(k)
            _seed_numpy(k)
            theirs = rival(network, unit, rival_steps)[-1]
            wanted = held_out(network, unit, theirs.picture, count)
            looks = ours(network, unit, steps)
            scores = [held_out(network, unit, look.picture, count) for look in looks]
            there = reached(looks, scores, wanted)
            races.append((theirs, wanted, there, looks[-1], scores[-1]))
            report.say(
                f"{unit}: lucent {wanted:.3g} in {theirs.seconds:.2f} s ({theirs.work:.2f} s of "
                "work); ours "
                + (f"there in {there.seconds:.2f} s ({there.work:.2f} s)" if there else "less")
                + f", at the end {scores[-1]:.3g} in {looks[-1].seconds:.2f} s"
            )
        rows.append(_row(f"{network.name}, {unit}", races))
        if more is not None:
            torch.manual_seed(0)
            _seed_numpy(0)
            look = more(network, unit, rival_steps)[-1]
            score = held_out(network, unit, look.picture, count)
            rows.append(
                (
                    f"{network.name}, {unit}, lucent as it comes",
                    f"{score:.3g}",
                    f"{look.seconds:.3g} s (once)",
                    *[""] * 6,
                )
            )
            more = None
    header = (
        "unit",
        f"lucent's score, {rival_steps} steps",
        "its time",
        "ours: that score after",
        "steps",
        "share of its time (wanted ≤ 0.5)",
        "share of its work",
        f"our score, {steps} steps",
        "our time",
    )
    notes = (
        f"score: held out, the mean over {count} views, {SIDE} px; ours: "
        f"{_precision(network, units[0])}.",
        "work: the processor's time of all threads, which what else runs hardly changes.",
        "ours is there at the first look from which on the score is never less; the looks are "
        f"after {', '.join(map(str, EARLY))} steps and every 32.",
        "no compiler, no warm-up in the times: both were run for two steps before.",
    )
    return report.Table("Held-out score against time", header, tuple(rows), notes)


def _row(name: str, races: Sequence[tuple[Look, float, Look | None, Look, float]]) -> tuple:
    theirs, wanted, there, ends, final = zip(*races, strict=True)
    found = [look for look in there if look]
    steps = f"{min(k.steps for k in found)}–{max(k.steps for k in found)}" if found else ""
    soon = [look.seconds if look else math.inf for look in there]
    share = [a / b.seconds for a, b in zip(soon, theirs, strict=True)]
    work = [a.work / b.work if a else math.inf for a, b in zip(there, theirs, strict=True)]
    return (
        name,
        f"{report.median(wanted):.3g}",
        report.spread([look.seconds for look in theirs]),
        report.spread(soon) if found else "not reached",
        steps,
        f"{report.median(share):.2f}",
        f"{report.median(work):.2f}",
        f"{report.median(final):.3g}",
        report.spread([look.seconds for look in ends]),
    )


def sheets(
    network: Network, layer: str, *, channels: int = 64, steps: int = 96, repeats: int = 3
) -> report.Table:
    """A sheet against so many pictures of its cells, drawn one by one with the same settings."""
    how: dict[str, Any] = {"size": SIDE, "steps": steps, "transforms": "robust"}
    how |= {"learning_rate": 0.05, "device": "cpu"}

    def one(channel: int) -> None:
        visualize(network, f"{layer}:{channel}", **how)

    def all_() -> None:
        sheet(network, layer, range(channels), keep=False, **how)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        visualize(network, f"{layer}:0", **how | {"steps": 2})
        sheet(network, layer, range(min(channels, 16)), keep=False, **how | {"steps": 2})
        single: list[tuple[float, float]] = []
        whole: list[tuple[float, float]] = []
        for k in range(repeats):
            for channel in range(3 * k, 3 * k + 3):
                clock = _Clock()
                one(channel % channels)
                single.append(clock.read())
            clock = _Clock()
            all_()
            whole.append(clock.read())
            report.say(f"one {single[-3:]}, sheet {whole[-1]}")
    (one_time, one_work), (time_, work) = (list(zip(*k, strict=True)) for k in (single, whole))
    rows = (
        ("one picture", report.spread(one_time), report.spread(one_work), *[""] * 3),
        (
            f"sheet of {channels}",
            report.spread(time_),
            report.spread(work),
            f"{channels} × {report.median(time_) / channels / report.median(one_time):.2f}",
            f"{channels} × {report.median(work) / channels / report.median(one_work):.2f}",
            f"≤ {channels} × 0.6",
        ),
    )
    header = ("run", "time", "work", "time of one picture", "work of one picture", "wanted")
    what = f"{network.name}, {layer}, {SIDE} px, {steps} steps"
    note = f"ours: {_precision(network, f'{layer}:0')}."
    return report.Table(f"A sheet: {what}", header, rows, (note,))


def _precision(network: Network, unit: str) -> str:
    """What `precision="auto"` takes for a unit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        step = next(visualize.steps(network, unit, size=SIDE, steps=1, device="cpu"))
    return f"{step.network.precision}, {torch.get_num_threads()} threads"


def _seed_numpy(seed: int) -> None:
    """lucent's transforms draw from NumPy's global state."""
    import numpy as np

    np.random.seed(seed)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.visualize",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="race, sheet (both)")
    parser.add_argument("--lucent", type=Path, metavar="FOLDER", help="where it was installed to")
    parser.add_argument("--network", default="dreamnet")
    parser.add_argument("--units", nargs="+", default=UNITS, metavar="LAYER:CHANNEL")
    parser.add_argument("--steps", type=int, default=256, help="of ours (256)")
    parser.add_argument("--as-it-comes", action="store_true", help="also lucent without our care")
    parser.add_argument("--layer", default="mixed4c", help="of the sheet (mixed4c)")
    parser.add_argument("--sheet-steps", type=int, default=96, help="of the sheet's cells (96)")
    parser.add_argument("--channels", type=int, default=64, help="of the sheet (64)")
    parser.add_argument("--repeats", type=int, default=3, help="medians of so many (3)")
    parser.add_argument("--threads", type=int, help="of torch (its own choice)")
    parser.add_argument("--out", type=Path, help="folder for visualize.md (printed alone)")
    given = parser.parse_args(arguments)
    if unknown := set(given.sections) - {"race", "sheet"}:
        parser.error(f"no section {', '.join(unknown)}; there are race, sheet")
    if given.threads:
        torch.set_num_threads(given.threads)
    if given.lucent:
        # Behind everything else, so that it brings no other version of what is there.
        sys.path.append(str(given.lucent))
    keep_freed()  # as the command line does
    network = load_network(given.network)
    tables = []
    if "race" in (given.sections or ["race"]):
        try:
            importlib.import_module("lucent.optvis.render")
        except ImportError as error:
            parser.error(f"torch-lucent cannot be imported ({error}); see --help for how it can")
        more = _as_it_comes if given.as_it_comes else None
        how = {"repeats": given.repeats, "steps": given.steps, "more": more}
        tables.append(race(network, given.units, lucent, **how))
        print(tables[-1])
    if "sheet" in (given.sections or ["sheet"]):
        how = {"steps": given.sheet_steps, "repeats": given.repeats}
        how |= {"channels": given.channels}
        tables.append(sheets(network, given.layer, **how))
        print(tables[-1])
    if given.out:
        report.write("visualize", tables, given.out, report.machine(given.repeats))


def _as_it_comes(network: Network, unit: str, steps: int) -> list[Look]:
    return lucent(network, unit, steps, as_it_comes=True)


if __name__ == "__main__":
    main()
