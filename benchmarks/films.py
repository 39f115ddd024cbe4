"""How steady films are, what is found in them, and what the loop costs beside its dreams.

On clips that are drawn, so that their motion is known and none is estimated. The error of a film is
that of Lai et al. 2018, "Learning Blind Video Temporal Consistency": the mean square of what
differs from the frame before, moved as the film moves, where it was seen there; less that of the
source. Blur would win by it, so the objective's score stands beside it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import report
from phosphene import image, load_network, parse
from phosphene.films import flow
from phosphene.films.cuts import Lookahead, change
from phosphene.films.frames import Frame
from phosphene.network import Network
from phosphene.recipes.dream import DreamSettings, dream
from phosphene.recipes.steps.film import film_frames
from tests import clips

LAYER, OCTAVES = "mixed4c", 3
FILM: dict[str, Any] = {
    "steps": 3,
    "first_steps": 10,
    "uncovered_steps": 4,
    "decay": 0.8,
    "calm": 0.8,
    "flow": "dis",
    "cut_difference": 0.08,
    "cut_seen": 0.35,
}
ALONE = 10  # steps of a frame that is dreamt alone
HALF = (10, 7, 5, 4, 3)  # of one that is blended with half of the last dream: most that is allowed
SPEEDS = ((2.3, 0.7), (4.0, 1.5), (7.0, 3.0))  # px a frame, of what uncovers things
LENGTHS = (300, 3000)  # frames, whose memory is compared


def tables(
    repeats: int = 5,
    *,
    size: tuple[int, int] = (144, 256),
    small: tuple[int, int] = (48, 64),
    frames: int = 16,
    still: int = 40,
    long: int = 1000,
    lengths: Sequence[int] = LENGTHS,
    device: str = "cpu",
) -> list[report.Table]:
    """All of it; `small` is the size of what is still, long or only counted."""
    network = load_network()
    return [
        steadiness(network, size, small, frames, still, device),
        findings(size),
        drift(network, small, long, device),
        costs(network, size, repeats, lengths, device),
    ]


def settings(device: str = "cpu", **given: Any) -> SimpleNamespace:
    """Those of a film, in float32."""
    exact: dict[str, Any] = {"octaves": OCTAVES, "device": device, "precision": "fp32"}
    known = DreamSettings(**exact).model_dump()
    return SimpleNamespace(**(known | FILM | given))


def of(images: Sequence[Tensor]) -> Iterator[Frame]:
    """A clip's frames, one after the other."""
    return (Frame(t, t / clips.RATE, frame) for t, frame in enumerate(images))


# Steadiness ---------------------------------------------------------------------------------------


def steadiness(
    network: Network,
    size: tuple[int, int],
    small: tuple[int, int],
    frames: int,
    still: int,
    device: str,
) -> report.Table:
    """A film against each frame alone, and against half of the last dream blended in."""
    clip = clips.moving_square(frames, size)
    score = scorer(network, device)
    ours, alone = filmed(network, clip.frames, device), each(network, clip.frames, ALONE, device)
    error, steady = warping_error(alone, clip), warping_error(ours, clip)
    rows = [
        (
            "warping error ÷ each frame alone",
            f"{steady / error:.3f}",
            "≤ 0.25",
            f"{score(ours) / score(alone):.2f} of its",
            "≥ 0.9",
        )
    ]
    for steps in HALF:  # the strongest that scores no more than ours
        half = each(network, clip.frames, steps, device, blend=0.5)
        share = score(ours) / score(half)
        if share >= 1:
            ratio = steady / warping_error(half, clip)
            name = f"… ÷ half of the last dream, {steps} steps"
            rows.append((name, f"{ratio:.3f}", "≤ 0.6", f"{share:.2f} of its", "≥ 1"))
            break
    standing = filmed(network, clips.static(still, small).frames, device)
    moved = [mean_change(*pair) for pair in zip(standing[-10:], standing[-9:], strict=False)]
    rows.append(
        (
            f"a still picture after {still - 10} frames: change a frame",
            f"{255 * sum(moved) / len(moved):.2f} / 255",
            "≤ 1 / 255",
            f"{score(standing[-1:]) / score(standing[:1]):.2f} of the first's",
            "≥ 0.8",
        )
    )
    header = (f"{LAYER}, {OCTAVES} octaves", "error", "wanted", "score", "wanted")
    return report.Table("How steady a film is", header, tuple(rows))


def filmed(network: Network, images: Sequence[Tensor], device: str, **given: Any) -> list[Tensor]:
    """The frames of a film."""
    steps = film_frames(of(images), network, parse(LAYER), settings(device, **given))
    return [step.picture() for step in steps if step.done]


def each(
    network: Network, images: Sequence[Tensor], steps: int, device: str, *, blend: float = 0.0
) -> list[Tensor]:
    """Frames dreamt one by one, each after so much of the last one's dream is blended in."""
    given = {"octaves": OCTAVES, "steps": steps, "device": device, "precision": "fp32"}
    found: list[Tensor] = []
    for frame in images:
        start = torch.lerp(frame, found[-1], blend) if found else frame
        found.append(dream(start, network, LAYER, **given))
    return found


def scorer(network: Network, device: str) -> Callable[[Sequence[Tensor]], float]:
    """Pictures -> the mean of what the objective says of them, in float32."""
    exact = network.prepared(device, "fp32")
    goal = parse(LAYER).bound(exact)

    @torch.no_grad()
    def score(pictures: Sequence[Tensor]) -> float:
        found = [goal(exact.activations(p.to(device), goal.layers)) for p in pictures]
        return float(torch.stack(found).mean())

    return score


def warping_error(film: Sequence[Tensor], clip: clips.Clip) -> float:
    """The mean over frames of a film, made of the clip, less that of the clip itself."""
    return _warping_error(film, clip) - _warping_error(clip.frames, clip)


def _warping_error(film: Sequence[Tensor], clip: clips.Clip) -> float:
    errors = []
    for t in range(1, len(film)):
        left = film[t] - flow.warp(film[t - 1], clip.motion[t])
        seen = ~clip.covered[t]
        errors.append(float(left.square().mean(1, keepdim=True)[seen].mean()))
    return sum(errors) / len(errors)


def mean_change(one: Tensor, other: Tensor) -> float:
    """The mean of what differs, black to white 1."""
    return float((one - other).abs().mean())


# What is found ------------------------------------------------------------------------------------


def findings(size: tuple[int, int]) -> report.Table:
    """What a moving square uncovers, and the cuts of a film with fades and a flash."""
    exact, near = uncovered(size, 0), uncovered(size, 1)
    counted = cuts_found(clips.cuts())
    rows = (
        ("uncovered parts, to a pixel: recall", f"{near[0]:.3f}", "≥ 0.95"),
        ("… precision", f"{near[1]:.3f}", "≥ 0.6"),
        ("… exactly: recall", f"{exact[0]:.3f}", ""),
        ("… precision", f"{exact[1]:.3f}", ""),
        ("20 cuts, two fades and a flash: F1", f"{counted:.3f}", "≥ 0.95"),
    )
    speeds = ", ".join(f"({across}, {down})" for across, down in SPEEDS)
    return report.Table(
        "What is found in a film",
        (f"{size[1]}×{size[0]}", "found", "wanted"),
        rows,
        (f"squares that move by {speeds} px a frame, three textures each.",),
    )


def uncovered(size: tuple[int, int], near: int) -> tuple[float, float]:
    """Recall and precision, where `near` px beside it counts as found."""
    hits = wanted = right = found = 0
    for speed in SPEEDS:
        for seed in (0, 10, 20):
            clip = clips.moving_square(3, size, speed=speed, seed=seed)
            truth = clip.covered[2]
            hidden = ~flow.motion(*clip.frames[1:3]).seen
            hits += int((truth & _wider(hidden, near)).sum())
            wanted += int(truth.sum())
            right += int((hidden & _wider(truth, near)).sum())
            found += int(hidden.sum())
    return hits / wanted, right / found


def _wider(mask: Tensor, by: int) -> Tensor:
    wide = torch.nn.functional.max_pool2d(mask.float(), 2 * by + 1, stride=1, padding=by)
    return wide > 0


def cuts_found(clip: clips.Clip) -> float:
    """F1 of the cuts that are found."""
    ahead = Lookahead(of(clip.frames))
    before, found = next(ahead).image, set()
    for frame in ahead:
        kind = change(before, frame, ahead, FILM["cut_difference"])
        if kind == "cut":
            found.add(frame.index)
        if kind != "flash":
            before = frame.image
    return 2 * len(found & set(clip.cuts)) / (len(found) + len(clip.cuts))


# Drift --------------------------------------------------------------------------------------------


def drift(network: Network, size: tuple[int, int], long: int, device: str) -> report.Table:
    """Luma and saturation of a long film, beside the source's own: the last tenth of it against the
    second."""
    clip = clips.moving_square(long, size, speed=(0.9, 0.4))
    score, tenth = scorer(network, device), long // 10
    told = []
    goal = settings(device, octaves=2)
    for step in film_frames(of(clip.frames), network, parse(LAYER), goal):
        if step.done:
            shown, source = step.picture(), clip.frames[step.frame]
            lighter = luma(shown) - luma(source)
            told.append((lighter, saturation(shown) / saturation(source), score([shown])))
    early, late = (np.mean(told[k * tenth : (k + 1) * tenth], axis=0) for k in (1, 9))
    rows = (
        ("mean luma", f"{255 * (late[0] - early[0]):+.2f} / 255", "± 1 / 255"),
        ("saturation", f"{100 * (late[1] / early[1] - 1):+.1f} %", "± 3 %"),
        ("score", f"{late[2] / early[2]:.2f} of the early one", ""),
    )
    header = (f"{long} frames, {size[1]}×{size[0]}", "last tenth against the second", "wanted")
    return report.Table("Whether a long film drifts", header, rows)


def luma(picture: Tensor) -> float:
    """The mean, black to white 1."""
    return float(image.luma(picture).mean())


def saturation(picture: Tensor) -> float:
    """The mean of the largest less the smallest colour."""
    return float((picture.amax(1) - picture.amin(1)).mean())


# Cost ---------------------------------------------------------------------------------------------


def costs(
    network: Network,
    size: tuple[int, int],
    repeats: int,
    lengths: Sequence[int],
    device: str,
) -> report.Table:
    """A frame against the same dream alone, in turns; and memory of two lengths.

    By the processor's time, of all threads: what else runs on the machine hardly changes it. On
    CUDA by the card's.
    """
    clip = clips.pan(repeats + 3, size, speed=(0.4, 0.0))
    loop = film_frames(of(clip.frames), network, parse(LAYER), settings(device))
    turns = iter(clip.frames)
    given = {"octaves": OCTAVES, "steps": FILM["steps"], "device": device, "precision": "fp32"}

    def film() -> Tensor:
        return next(step for step in loop if step.done).picture()

    def alone() -> Tensor:
        *_, last = dream.steps(next(turns), network, LAYER, **given)
        return last.picture()

    runs = {"film": film, "alone": alone}
    for run in 2 * list(runs.values()):  # the first frame has more steps
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.process_time()
            taken = report.seconds(run, device)
            used = time.process_time() - start
            times[name].append(taken if device.startswith("cuda") else used)
    shares = [a / f for a, f in zip(times["alone"], times["film"], strict=True)]
    peaks = [peak_memory(length) for length in lengths]
    rows = (
        ("a frame of a film", report.spread([1000 * t for t in times["film"]], "ms"), ""),
        ("its dream alone", report.spread([1000 * t for t in times["alone"]], "ms"), ""),
        ("frames a second, of the dream's alone", report.spread(shares, "×"), "≥ 0.85 ×"),
        (
            f"memory of {lengths[-1]} frames ÷ that of {lengths[0]}",
            f"{peaks[-1] / peaks[0]:.3f}",
            "≤ 1.05",
        ),
    )
    return report.Table("What the loop costs", (f"{size[1]}×{size[0]}", "measured", "wanted"), rows)


def peak_memory(length: int) -> int:
    """The most that a process holds that films so many frames of 64 px, KiB; a small network."""
    code = f"from benchmarks.films import _film_of; _film_of({length})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=report.environment(), cwd=report.ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"a film of {length} frames: exit {done.returncode}\n{done.stderr}")
    return int(done.stdout)


def _film_of(length: int) -> None:
    import resource

    from tests.toy_network import net

    drawn = clips.moving_square(20, (64, 64)).frames
    frames = (Frame(t, Fraction(t, 25), drawn[t % 20].clone()) for t in range(length))
    goal = settings(octaves=1, steps=1, first_steps=1, uncovered_steps=1)
    for _ in film_frames(frames, net(), parse("second"), goal):
        pass
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
