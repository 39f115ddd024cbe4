"""Does an independent network recognise the class pictures that another one draws?

    python -m training.judge dreamnet-robust file:squeezenet1_1.safetensors@squeezenet1_1
    python -m training.judge dreamnet squeezenet1_1 --count 28 --set size=96 --set steps=128
    python -m training.judge dreamnet squeezenet1_1 --count 28 --rest --set size=96

Artist and judge are any networks that `phosphene.load_network` knows, with names for their classes.
Each class is drawn by `phosphene.visualize` at its defaults but for `--set`, brought to the size
that the judge knows, and named. A class of the artist is the judge's class of the same name, but
for capitals, or what `--names` says; what the judge has no class for is left out, and told.

Pictures are kept by artist, settings and class, so that a run that was stopped goes on, and a
second judge costs little. They are drawn again with `--fresh`, as they must be where the code of
`visualize` has changed. Choose settings by some of the classes (`--count`), and measure them on the
others (`--rest`): what was chosen by a judge flatters it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import recognise
from phosphene import image as images
from phosphene import load_network
from phosphene.errors import NetworkError, suggest
from phosphene.network import Network
from training.recognise import captions, sheet

TOP = 5
SCORE = 1.96  # of a normal distribution, two-sided 95 %


@dataclass(frozen=True)
class Naming:
    """What the judge made of one picture.

    rank: how many classes it held for likelier than the one that was drawn; 0 is top-1.
    log_probability: natural, of the class that was drawn.
    names: its best five, best first.
    """

    rank: int
    log_probability: float
    names: tuple[str, ...]


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share (Wilson 1927), which stays within [0, 1].

    >>> [round(end, 3) for end in wilson(8, 10)]
    [0.49, 0.943]
    """
    share, z = hits / count, SCORE**2 / count
    middle = (share + z / 2) / (1 + z)
    reach = SCORE / (1 + z) * math.sqrt(share * (1 - share) / count + z / (4 * count))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def matched(
    drawn: Sequence[str], known: Sequence[str], names: Mapping[str, str] | None = None
) -> dict[int, int]:
    """The judge's class of each class that is drawn, by number; without those it does not know.

    names: of the artist's classes to the judge's, where they differ. ValueError if it names a class
        that one of them does not have, or a name is that of two classes.
    """
    names = names or {}
    for name, options in [(n, drawn) for n in names] + [(n, known) for n in names.values()]:
        if name not in options:
            raise ValueError(f"no class {name!r}{suggest(name, options)}")
    numbers: dict[str, list[int]] = {}
    for number, name in enumerate(known):
        numbers.setdefault(name.lower(), []).append(number)
    found: dict[int, int] = {}
    for k, name in enumerate(drawn):
        theirs = numbers.get(names.get(name, name).lower(), [])
        if len(theirs) > 1:
            raise ValueError(f"{name!r} is the name of {len(theirs)} of the judge's classes")
        if theirs:
            found[k] = theirs[0]
    return found


def class_scores(network: Network, picture: Tensor) -> Tensor:
    """Its logits for pictures, `(N, classes)`.

    Those of the last layer with a channel a class: a vector, or the mean of a map over positions,
    as networks have it that end in a convolution.
    """
    fitting = [v for v in network.layers.values() if v.channels == len(network.classes)]
    if not fitting:
        raise NetworkError(f"{network.name} has no layer with its {len(network.classes)} classes")
    layer = fitting[-1].name
    answer = network.activations(picture, [layer])[layer]
    return answer if answer.ndim == 2 else answer.flatten(2).mean(2)


@torch.no_grad()
def named(judge: Network, picture: Tensor, number: int, side: int) -> Naming:
    """What `judge` makes of a picture `(1, 3, H, W)` of its class `number`, shown at `side` px."""
    scores = class_scores(judge, images.resize(picture, (side, side)).clamp(0, 1))[0]
    best = scores.topk(min(TOP, len(scores))).indices.tolist()
    return Naming(
        int((scores > scores[number]).sum()),
        float(scores.double().log_softmax(0)[number]),
        tuple(judge.classes[i] for i in best),
    )


def summary(namings: Sequence[Naming]) -> str:
    """Top-1, top-5 with their confidence intervals, and the mean log-probability."""
    parts = []
    for label, most in (("top-1", 1), (f"top-{TOP}", TOP)):
        hits = sum(naming.rank < most for naming in namings)
        low, high = wilson(hits, len(namings))
        parts.append(f"{label} {hits / len(namings):.3f} [{low:.3f}, {high:.3f}]")
    mean = sum(naming.log_probability for naming in namings) / len(namings)
    return f"{len(namings)} classes: {', '.join(parts)}, mean log-probability {mean:.2f}"


def chosen(
    network: Network, count: int | None, *, rest: bool = False, only: Sequence[str] = ()
) -> list[int]:
    """The classes to draw: those named, or `count` spread evenly, or with `rest` all the others."""
    for name in only:
        if name not in network.classes:
            raise ValueError(f"no class {name!r}{suggest(name, network.classes)}")
    if only:
        return [network.classes.index(name) for name in only]
    some = recognise.some(len(network.classes), count)
    if not rest:
        return some
    return sorted({*range(len(network.classes))} - {*some})


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.judge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("artist", help="the network that draws")
    parser.add_argument("judge", help="the network that names")
    parser.add_argument("--only", action="append", default=[], metavar="CLASS", help="this class")
    parser.add_argument("--list", type=Path, metavar="FILE", help="a class a line, instead of all")
    parser.add_argument("--count", type=int, metavar="N", help="N classes, spread evenly (all)")
    parser.add_argument("--rest", action="store_true", help="those that --count leaves out")
    parser.add_argument("--names", type=Path, help="JSON: the artist's class -> the judge's")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of visualize"
    )
    parser.add_argument("--side", type=int, metavar="PX", help="as shown to the judge (its own)")
    parser.add_argument("--batch", type=int, default=recognise.BATCH, help="classes at a time")
    parser.add_argument("--threads", type=int, help="of torch (its own choice)")
    parser.add_argument("--folder", type=Path, default=recognise.FOLDER, help="of the pictures")
    parser.add_argument("--fresh", action="store_true", help="draw again what is there")
    parser.add_argument("--out", type=Path, help="NAME.json with all that was named; NAME.png")
    given = parser.parse_args(arguments)
    if given.rest and given.count is None:
        parser.error("--rest is what --count leaves out; how many is that?")
    return given


def main(arguments: Sequence[str] | None = None) -> None:
    given = parse(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    artist, judge = load_network(given.artist), load_network(given.judge)
    only = given.only + (given.list.read_text("utf-8").splitlines() if given.list else [])
    settings = dict(recognise.setting(text) for text in given.set)
    names = json.loads(given.names.read_text("utf-8")) if given.names else None
    pairs = matched(artist.classes, judge.classes, names)
    wanted = chosen(artist, given.count, rest=given.rest, only=[name for name in only if name])
    classes = [k for k in wanted if k in pairs]
    if unknown := [artist.classes[k] for k in wanted if k not in pairs]:
        print(f"{judge.name} has no class {', '.join(unknown)}: left out")
    if not classes:
        raise SystemExit(f"{judge.name} knows none of the classes that are to be drawn")
    place = recognise.shelf(artist, settings, given.folder)
    if given.fresh:
        for file in recognise.kept(place, classes).values():
            file.unlink()
    for done in recognise.draw(artist, classes, settings, place, batch=given.batch):
        print(f"{place.name}: {done} of {len(classes)} classes", flush=True)
    pictures = {k: images.load_image(place / f"{k:03d}.png") for k in classes}
    side = given.side or judge.input_size
    namings = {k: named(judge, picture, pairs[k], side) for k, picture in pictures.items()}
    print(f"{artist.name} → {judge.name}, {summary([*namings.values()])}")
    if given.out:
        write(given.out, artist, judge, settings, pictures, namings)


def write(
    path: Path,
    artist: Network,
    judge: Network,
    settings: Mapping[str, object],
    pictures: Mapping[int, Tensor],
    namings: Mapping[int, Naming],
) -> None:
    """All that was named, as JSON, and the pictures on a sheet beside it."""
    classes = {artist.classes[k]: naming for k, naming in namings.items()}
    figures = {
        "drawn_by": artist.name,
        "named_by": judge.name,
        "settings": dict(settings),
        "summary": summary([*namings.values()]),
        "ranks": {name: naming.rank for name, naming in classes.items()},
        # The class itself goes by the artist's name for it, wherever the judge put it.
        "classes": {
            name: [name if i == naming.rank else n for i, n in enumerate(naming.names)]
            for name, naming in classes.items()
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page = sheet(torch.cat([*pictures.values()]), captions(figures))
    page.save(path.with_suffix(".png"))


if __name__ == "__main__":
    main()
