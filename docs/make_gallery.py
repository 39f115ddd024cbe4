"""Draw the pictures of docs/gallery: `python docs/make_gallery.py [NAME …]`.

Each is one command, which stands beside it in docs/gallery/README.md, written by this script, too.
What is dreamt into is drawn here, or by phosphene: a sky, noise, a coast, hills, a bowl of fruit, a
tower.
"""

from __future__ import annotations

import io
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import phosphene as ph
from phosphene.cli import main
from phosphene.image import metadata, start_picture, to_uint8

HERE = Path(__file__).parent / "gallery"
HEIGHT, WIDTH = 534, 800
MOST = 150_000  # bytes of a picture
STARTS: dict[str, Callable[[], Tensor]] = {}


class Entry(NamedTuple):
    """A picture: its name, a line about it, and what stands after `phosphene dream`."""

    name: str
    about: str
    command: str


GALLERY = (
    Entry("arches", "Arches round a lighthouse", "tower.jpg --preset temples --strength 1.4"),
    Entry("herd", "A herd out of noise", "--start noise --size 800 --preset menagerie"),
    Entry("fever", "Hills with a temperature", "hills.jpg --preset fever"),
    Entry("moonlight", "What the moon does to the sea", "coast.jpg --preset calm --strength 1.5"),
    Entry("lighthouse", "A lighthouse, cut in wood", "tower.jpg --preset woodcut"),
    Entry("thistles", "Butterflies in a sky", "--start sky --size 800 --preset monarchs --seed 3"),
    Entry("wood", "A wood of caps", "hills.jpg --preset mushrooms"),
    Entry("fossils", "Fruit, petrified", "fruit.jpg --preset shells"),
    Entry("bowl", "A bowl that looks back", "fruit.jpg --preset menagerie --strength 1.5"),
    Entry("ruins", "Ruins out of noise", "--start noise --size 800 --preset temples --seed 2"),
    Entry("carnival", "Noise at a carnival", "--start noise --size 800 --preset fever --seed 5"),
    Entry("bubbles", "A sky under water", "--start sky --size 800 --preset calm --seed 2"),
    Entry("tide", "The moon, cut in wood", "coast.jpg --preset woodcut --natural 0.5"),
    Entry("valley", "A valley of bridges", "hills.jpg --preset temples --strength 1.6"),
)


# What is dreamt into ------------------------------------------------------------------------------


def start(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
    STARTS[function.__name__] = function
    return function


def grid() -> tuple[Tensor, Tensor]:
    """Down and across, 0 to 1 and 0 to 1.5."""
    down = torch.linspace(0, 1, HEIGHT)[:, None].expand(HEIGHT, WIDTH)
    across = torch.linspace(0, WIDTH / HEIGHT, WIDTH).expand(HEIGHT, WIDTH)
    return down, across


def colour(*rgb: float) -> Tensor:
    return torch.tensor(rgb).view(3, 1, 1)


def over(picture: Tensor, paint: Tensor, cover: Tensor) -> Tensor:
    """The picture with paint over it where `cover` is 1."""
    return picture + (paint - picture) * cover.clamp(0, 1)


def grain(seed: int, strength: float = 0.05) -> Tensor:
    """What a surface has, for a dream to begin at."""
    noise = start_picture("natural noise", (HEIGHT, WIDTH), seed)[0]
    return strength * (noise - noise.mean((1, 2), keepdim=True)) / noise.std()


def ridge(base: float, height: float, seed: int, rough: float = 1.0) -> Tensor:
    """How far each place lies below a line of hills, in heights of the picture; above it, less than
    nothing."""
    down, _ = grid()
    rng, across = np.random.default_rng(seed), np.linspace(0, 1, WIDTH)
    line = sum(
        rng.normal() * k**-rough * np.sin(2 * np.pi * (k * across + rng.random()))
        for k in range(1, 40)
    )
    return down - base + height * torch.from_numpy(np.asarray(line)).float()


@start
def hills() -> Tensor:
    """Ranges of hills behind each other, in the morning."""
    down, across = grid()
    picture = (
        colour(0.52, 0.66, 0.86) + (colour(0.98, 0.85, 0.68) - colour(0.52, 0.66, 0.86)) * down
    )
    sun = ((across - 1.05).square() + (down - 0.3).square()).sqrt()
    picture = over(picture, colour(1.0, 0.95, 0.8), (0.075 - sun) * 90)
    far, near = colour(0.55, 0.6, 0.75), colour(0.1, 0.22, 0.13)
    for number in range(6):
        share = number / 5
        below = ridge(0.42 + 0.11 * number, 0.035 + 0.01 * number, number + 3)
        paint = far + (near - far) * share + grain(number, 0.02 + 0.05 * share)
        paint = paint + 0.25 * (1 - share) * below.clamp(0, 0.5)
        picture = over(picture, paint, below * 300)
    return picture


@start
def coast() -> Tensor:
    """The moon over the sea, and its light on it."""
    down, across = grid()
    night, dusk = colour(0.05, 0.08, 0.22), colour(0.5, 0.36, 0.5)
    picture = night + (dusk - night) * (down / 0.62).clamp(0, 1).square() + grain(1, 0.03)
    moon = ((across - 0.62).square() + (down - 0.27).square()).sqrt()
    picture = picture + colour(0.5, 0.45, 0.4) * torch.exp(-moon * 5) * 0.8
    picture = over(picture, colour(0.97, 0.94, 0.85) + 2 * grain(2, 0.04), (0.13 - moon) * 100)
    water = colour(0.04, 0.12, 0.22) + grain(3, 0.05)
    depth = (down - 0.62).clamp(min=0)
    waves = torch.sin(60 * torch.log(depth + 0.04) + 5 * torch.sin(14 * across + 40 * depth))
    glitter = torch.exp(-((across - 0.62) / (0.05 + 0.5 * depth)).square()) * (0.5 + 0.5 * waves)
    water = water + colour(0.9, 0.85, 0.7) * glitter + 0.05 * waves
    picture = over(picture, water, (down - 0.62) * 300)
    rocks = ridge(0.86, 0.05, 12) - 0.35 * (across - 0.35).clamp(0, 0.6)
    return over(picture, colour(0.07, 0.06, 0.07) + 1.5 * grain(4), rocks * 200)


@start
def fruit() -> Tensor:
    """Round things in a bowl, lit from the left."""
    down, across = grid()
    wall, table = colour(0.36, 0.26, 0.2), colour(0.5, 0.33, 0.2)
    picture = wall * (1.25 - 0.5 * across) + grain(5, 0.04)
    picture = over(picture, table * (1.2 - 0.3 * across) + grain(6, 0.06), (down - 0.7) * 60)
    shadow = ((across - 0.85) / 0.55).square() + ((down - 0.86) / 0.07).square()
    picture = over(picture, picture * 0.35, 1.4 - shadow)

    def ball(x: float, y: float, r: float, paint: Tensor) -> None:
        nonlocal picture
        dx, dy = (across - x) / r, (down - y) / r
        square = dx.square() + dy.square()
        lit = (-0.55 * dx - 0.6 * dy + 0.58 * (1 - square).clamp(min=0).sqrt()).clamp(0, 1)
        body = paint * (0.18 + 0.95 * lit) + 0.7 * lit**24 + grain(7, 0.03)
        picture = over(picture, body, (1 - square) * r * 160)

    reds, greens = colour(0.8, 0.16, 0.1), colour(0.45, 0.6, 0.15)
    yellows, purples = colour(0.95, 0.7, 0.15), colour(0.35, 0.12, 0.3)
    for x, y, r, paint in (
        (0.56, 0.5, 0.14, yellows), (0.95, 0.5, 0.15, reds), (0.75, 0.38, 0.15, greens),
        (0.73, 0.56, 0.13, reds), (0.42, 0.58, 0.1, purples), (1.1, 0.58, 0.11, yellows),
        (0.9, 0.63, 0.1, purples),
    ):  # fmt: skip
        ball(x, y, r, paint)
    bowl = ((across - 0.76) / 0.46).square() + ((down - 0.6) / 0.27).square()
    rim = (down - 0.6 - 0.1 * (1 - ((across - 0.76) / 0.46).square()).clamp(min=0)) * 120
    glaze = colour(0.3, 0.42, 0.6) * (1.5 - 0.9 * across) + grain(8, 0.04)
    picture = over(picture, glaze, torch.minimum((1 - bowl) * 60, rim))
    foot = 1 - ((across - 0.76) / 0.2) ** 4 - ((down - 0.86) / 0.025) ** 2
    return over(picture, colour(0.25, 0.32, 0.42), foot)


@start
def tower() -> Tensor:
    """A lighthouse on a rock under a drawn sky."""
    down, across = grid()
    picture = ph.draw_sky(HEIGHT, WIDTH, seed=4)[0]
    sea = colour(0.1, 0.32, 0.42) + grain(9, 0.06) + 0.04 * torch.sin(90 * (down - 0.7).sqrt())
    picture = over(picture, sea.nan_to_num(), (down - 0.78) * 300)
    half = 0.05 + 0.035 * (down - 0.2)
    side = (across - 0.5) / half
    stripes = (((down - 0.2) * 9).floor() % 2 == 0).float()
    paint = colour(0.92, 0.9, 0.86) + (colour(0.72, 0.14, 0.1) - colour(0.92, 0.9, 0.86)) * stripes
    paint = paint * (1 - 0.45 * (side.clamp(-1, 1) * 0.5 + 0.5)) + grain(10, 0.03)
    body = torch.minimum(
        (1 - side.abs()) * 20, torch.minimum((down - 0.2) * 300, (0.8 - down) * 300)
    )
    picture = over(picture, paint, body)
    lamp = torch.minimum((0.04 - (across - 0.5).abs()) * 200, (0.045 - (down - 0.16).abs()) * 200)
    picture = over(picture, colour(1.0, 0.9, 0.55), lamp)
    roof = (down - 0.06) * 0.9 - (across - 0.5).abs()
    picture = over(picture, colour(0.3, 0.1, 0.1), torch.minimum(roof * 200, (0.125 - down) * 300))
    rock = ridge(0.8, 0.02, 21, 0.8) - 0.5 * ((across - 0.5).abs() - 0.25).clamp(0, 1)
    return over(picture, colour(0.22, 0.19, 0.17) + 1.8 * grain(11), rock * 150)


# Files --------------------------------------------------------------------------------------------


def save(pixels: np.ndarray, path: Path, recipe: str | None = None) -> None:
    """A JPEG of at most `MOST` bytes, with the recipe inside."""
    for quality in range(90, 40, -4):
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG", quality=quality, optimize=True)
        data = out.getvalue()
        if recipe is not None:
            data = metadata.with_jpeg_segments(data, recipe)
        if len(data) <= MOST:
            break
    path.write_bytes(data)
    print(f"{path.name}: {len(data) // 1000} kB at quality {quality}", flush=True)


def draw_start(name: str) -> None:
    path = HERE / f"{name}.jpg"
    if not path.exists():
        save(to_uint8(STARTS[name]()[None]), path)


def make(entry: Entry) -> None:
    """Run the entry's command in the gallery's folder, and keep what comes of it."""
    words = shlex.split(entry.command)
    if (begin := Path(words[0]).stem) in STARTS:
        draw_start(begin)
        words[0] = str(HERE / words[0])
    with tempfile.TemporaryDirectory() as folder:
        png = Path(folder) / f"{entry.name}.png"
        if main(["dream", *words, "-o", str(png)]):
            raise SystemExit(f"{entry.name} failed")
        recipe = metadata.read_recipe(png)
        save(np.asarray(Image.open(png)), HERE / f"{entry.name}.jpg", recipe)


def page() -> str:
    """docs/gallery/README.md."""
    parts = [HEAD]
    for entry in GALLERY:
        parts.append(
            f"## {entry.about}\n\n![{entry.about}]({entry.name}.jpg)\n\n"
            f"```\nphosphene dream {entry.command}\n```\n"
        )
    return "\n".join(parts)


HEAD = """# Gallery

No photograph went in: each began as noise, as the sky that phosphene draws, or as one of four
pictures that `docs/make_gallery.py` draws and that lie here, too: `hills`, `coast`, `fruit` and
`tower`. Each is one command, to be run in this folder, and carries its recipe:
`phosphene replay arches.jpg` makes it again. The files are JPEGs of some 100 kB, which hold a
little less than what was computed.
"""


def run(names: list[str]) -> None:
    HERE.mkdir(exist_ok=True)
    known = {entry.name: entry for entry in GALLERY}
    for name in names or known:
        if name in STARTS:
            draw_start(name)
        elif name in known:
            make(known[name])
        else:
            raise SystemExit(f"no picture {name!r}: {', '.join([*known, *STARTS])}")
    (HERE / "README.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    torch.set_grad_enabled(True)
    run(sys.argv[1:])
