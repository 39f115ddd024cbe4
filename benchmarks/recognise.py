"""Are the pictures of a class recognised by a network that had no part in drawing them?

    python -m benchmarks.recognise [--draws dreamnet] [--parameterization fourier] [--classes 35]

Every class of a bundled network is drawn by `visualize` as it comes, and the other bundled network
names the picture. The judge is shown it twice: at the size that it was trained at, to which the
picture is brought by `phosphene.image.resize` (bicubic, without aliasing), and as it was drawn; the
networks end in a mean over positions and take either. One of them was trained from the other, so
that this says little: `training/judge.py` asks any network. Pictures are kept, in steps of 1/255,
in a folder per network and settings, so a run that was stopped goes on; if the code of `visualize`
has changed, begin with `--fresh`. After `training/recognise.py`, which does the same by bare
ascent.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import report
from phosphene import image as images
from phosphene import load_network
from phosphene.network import Network
from phosphene.recipes.visualize import VisualizeSettings, visualize

FOLDER = report.ROOT / "runs" / "recognise"
# Who draws -> who judges.
JUDGES = {"dreamnet-robust": "dreamnet", "dreamnet": "dreamnet-robust"}
WANTED = {"dreamnet-robust": "95 %", "dreamnet": "80 %"}
PARAMETERIZATIONS = ("fourier", "pixels", "maco")
BATCH = 16


@dataclass(frozen=True)
class Verdict:
    """What the judge made of some classes' pictures: shares in [0, 1], and its five best names."""

    top1: float
    top5: float
    named: Mapping[int, tuple[int, ...]]


def some(classes: int, count: int | None) -> list[int]:
    """`count` classes spread evenly over all of them; all without `count`.

    >>> some(140, 4)
    [0, 35, 70, 105]
    """
    count = classes if count is None else min(count, classes)
    return [k * classes // count for k in range(count)]


def shelf(network: Network, settings: Mapping[str, Any], folder: Path = FOLDER) -> Path:
    """Where the pictures of a network and its settings are kept."""
    full = VisualizeSettings(**settings).model_dump(exclude={"device"})
    key = json.dumps([network.fingerprint, full], sort_keys=True)
    digest = hashlib.sha256(key.encode()).hexdigest()[:8]
    return folder / f"{network.name}-{full['parameterization']}-{digest}"


def kept(place: Path, classes: Sequence[int]) -> dict[int, Path]:
    """The pictures that are there, by class."""
    files = {k: place / f"{k:03d}.png" for k in classes}
    return {k: file for k, file in files.items() if file.exists()}


def draw(
    network: Network,
    classes: Sequence[int],
    settings: Mapping[str, Any],
    place: Path,
    *,
    batch: int = BATCH,
) -> Iterator[int]:
    """Draw what is not there yet, `batch` at a time; yields how many classes are done."""
    place.mkdir(parents=True, exist_ok=True)
    done = kept(place, classes)
    missing = [k for k in classes if k not in done]
    for begin in range(0, len(missing), batch):
        part = missing[begin : begin + batch]
        goals = [f"logits:{k}" for k in part]
        for k, picture in zip(part, visualize(network, goals, **settings), strict=True):
            images.save_image(picture[None], place / f"{k:03d}.png", overwrite=True)
        yield len(classes) - len(missing) + begin + len(part)


@torch.no_grad()
def judged(judge: Network, pictures: Mapping[int, Tensor], side: int | None = None) -> Verdict:
    """What `judge` names pictures `(1, 3, H, W)`, brought to `side` px or as they are."""
    named: dict[int, tuple[int, ...]] = {}
    layer = judge.logits_layer
    for k, picture in pictures.items():
        size = images.size_of(picture) if side is None else (side, side)
        seen = images.resize(picture, size).clamp(0, 1)
        logits = judge.activations(seen, [layer])[layer][0]
        named[k] = tuple(logits.topk(min(5, len(logits))).indices.tolist())
    count = max(1, len(named))
    return Verdict(
        sum(k == names[0] for k, names in named.items()) / count,
        sum(k in names for k, names in named.items()) / count,
        named,
    )


def table(
    networks: Mapping[str, Network],
    draws: Sequence[str],
    parameterizations: Sequence[str],
    classes: int | None,
    settings: Mapping[str, Any],
    folder: Path = FOLDER,
) -> report.Table:
    """What is known from the pictures that are there."""
    rows, notes = [], []
    for name in draws:
        artist, judge = networks[name], networks[JUDGES[name]]
        for kind in parameterizations:
            place = shelf(artist, {**settings, "parameterization": kind}, folder)
            files = kept(place, some(len(artist.classes), classes))
            if not files:
                continue
            pictures = {k: images.load_image(file) for k, file in files.items()}
            small, own = judged(judge, pictures, judge.input_size), judged(judge, pictures)
            shares = [f"{100 * s:.0f} %" for v in (small, own) for s in (v.top1, v.top5)]
            count = f"{len(files)} of {len(artist.classes)}"
            wanted = f"≥ {WANTED[name]}" if kind == "fourier" else ""
            rows.append((f"{name} → {judge.name}, {kind}", count, *shares, wanted))
            failed = [_failure(artist, k, own.named[k]) for k in files if k not in own.named[k]]
            if failed and kind == "fourier":
                notes.append(f"{name}, as drawn, not in the first five: {', '.join(failed)}.")
    side = next(iter(networks.values())).input_size
    header = ("drawn → named", "classes", f"top-1 at {side} px", f"top-5 at {side} px")
    header += ("top-1 as drawn", "top-5 as drawn", "top-5 wanted")
    return report.Table("Classes that the other network recognises", header, tuple(rows), (*notes,))


def _failure(network: Network, k: int, named: Sequence[int]) -> str:
    return f"{network.classes[k]} ({network.classes[named[0]]})"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recognise",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--draws", choices=tuple(JUDGES), help="the network that draws (both)")
    parser.add_argument("--parameterization", choices=PARAMETERIZATIONS, help="(all of them)")
    parser.add_argument("--classes", type=int, metavar="N", help="N of them, spread evenly (all)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of visualize"
    )
    parser.add_argument("--batch", type=int, default=BATCH, help=f"classes at a time ({BATCH})")
    parser.add_argument("--threads", type=int, help="of torch (its own choice)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the pictures")
    parser.add_argument("--fresh", action="store_true", help="draw again what is there")
    parser.add_argument("--judge-only", action="store_true", help="of the pictures that are there")
    parser.add_argument("--out", type=Path, help="folder for recognise.md (printed alone)")
    given = parser.parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    networks = {name: load_network(name) for name in JUDGES}
    settings = dict(setting(text) for text in given.set)
    draws = [given.draws] if given.draws else list(JUDGES)
    kinds = [given.parameterization] if given.parameterization else list(PARAMETERIZATIONS)
    for kind in kinds if not given.judge_only else ():
        for name in draws:
            full = {**settings, "parameterization": kind}
            _drawn(networks[name], full, given)
            report.say(str(table(networks, [name], [kind], given.classes, settings, given.folder)))
    found = table(networks, draws, kinds, given.classes, settings, given.folder)
    print(found)
    if given.out:
        report.write("recognise", [found], given.out, report.machine(1))


def _drawn(network: Network, settings: Mapping[str, Any], given: argparse.Namespace) -> None:
    place = shelf(network, settings, given.folder)
    classes = some(len(network.classes), given.classes)
    if given.fresh:
        for file in kept(place, classes).values():
            file.unlink()
    begin = time.perf_counter()
    for done in draw(network, classes, settings, place, batch=given.batch):
        passed = time.perf_counter() - begin
        report.say(f"{place.name}: {done} of {len(classes)} classes, {passed:.0f} s")


def setting(text: str) -> tuple[str, Any]:
    """`size=96` → ("size", 96)."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


if __name__ == "__main__":
    main()
