"""Command lines whose results must not change, and how far two results are apart.

Each `Case` is `phosphene …` in a folder that `draw_inputs` has filled; its results go into a folder
of its own, written OUT in the words. `scripts/same_pictures` runs all of them with two source
trees. Those that are `kept` were run once, and lie in `tests/data/before` (`write_kept`).

    python -m tests.before FOLDER    runs the kept ones anew into FOLDER

Nothing here imports phosphene: the tree to be run is another's choice.
"""

from __future__ import annotations

import base64
import io
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

DATA = Path(__file__).parent / "data" / "before"
INPUTS, MACHINE = "inputs", "machine.json"
SUFFIXES = (".png", ".jpg", ".webp", ".tif", ".svg", ".json")


@dataclass(frozen=True)
class Case:
    """A command line.

    alone: takes a process of its own, since what it does hangs on what the process did before.
    interrupt: the beginning of a line on stderr after which it gets a SIGINT.
    threads: of torch. code: the exit code. says: a part of its last line on stderr.
    replay: what a replay is told besides the file.
    kept: there is a result from before in `DATA`.
    """

    name: str
    words: str
    alone: bool = False
    interrupt: str = ""
    threads: int = 1
    code: int = 0
    says: str = ""
    replay: str = ""
    kept: bool = False

    def arguments(self, out: Path) -> list[str]:
        """The words, OUT replaced by a folder."""
        return [word.replace("OUT", str(out)) for word in shlex.split(self.words)]


SMALL = "--octaves 2 --steps 3"
DRAWN = "--size 48 --steps 8"
DREAM = f"dream photo.png {SMALL}"


def _cases() -> Iterator[Case]:
    """All of them, dreams first."""
    yield Case("plain", f"{DREAM} -o OUT/o.png", kept=True)
    yield Case("defaults", "dream photo.png -o OUT/o.png")
    for preset in ("google2015", "inception", "keras", "torchvision"):
        few = "" if preset == "keras" else "--steps 4"
        kept = preset in ("google2015", "torchvision")
        yield Case(preset, f"dream photo.png --preset {preset} {few} -o OUT/o.png", kept=kept)
    yield Case("robust", f"{DREAM} --network dreamnet-robust -o OUT/o.webp", kept=True)
    yield Case(
        "googlenet",
        f"{DREAM} --preset google2015 --network googlenet:random -o OUT/o.png",
    )
    yield Case(
        "own weights",
        f'{DREAM} --network file:weights.safetensors@squeezenet1_1 --objective "features.7" '
        "-o OUT/o.png",
    )
    yield Case(
        "code",
        f"{DREAM} --network toy:net --objective second -o OUT/o.png",
        replay="--network toy:net",
    )
    yield Case(
        "transformer",
        "dream square.png --octaves 1 --steps 2 --network timm:vit_tiny_patch16_224:random "
        "--objective blocks.2 -o OUT/o.png",
    )
    yield Case(
        "mix",
        f'{DREAM} --objective "2*mixed4b + mixed4d:42,17 - 0.1*tv() + 0.5*layer(mixed3b, margin=2)"'
        " -o OUT/o.png",
    )
    yield Case(
        "forms",
        f'{DREAM} --objective "neuron(mixed4d, 42) + interpolate(mixed4c, 1, mixed5a, 7) '
        '+ 3*logit(\\"king penguin\\") + layer(mixed4b, norm=l2) - l2()" -o OUT/o.png',
    )
    yield Case(
        "mask and colours",
        f"{DREAM} --mask mask.png --keep-colors --blend 0.7 -o OUT/o.png",
        kept=True,
    )
    yield Case("guide", f"{DREAM} --guide guide.png -o OUT/o.png", kept=True)
    for by in ("dot", "distance", "match"):
        goal = f'guide(mixed4b, \\"guide.png\\", by={by}) + 0.1*mixed4b'
        yield Case(f"guide {by}", f'{DREAM} --objective "{goal}" -o OUT/o.png')
    yield Case(
        "likenesses",
        f'{DREAM} --objective "content(mixed4a, \\"photo.png\\") + 100*style(conv2, '
        '\\"painting.jpg\\") + caricature(mixed4c, \\"photo.png\\")" -o OUT/o.png',
    )
    yield Case("tiles", "dream wide.png --octaves 2 --steps 2 --tile 64 -o OUT/o.png", kept=True)
    yield Case(
        "tiles and mask",
        'dream wide.png --octaves 2 --steps 2 --tile 96 --mask mask.png --objective "mixed4b + '
        'guide(mixed3b, \\"guide.png\\")" -o OUT/o.png',
    )
    # Its normalisation sees the whole picture, so that tiles of it are blended. So much memory
    # leaves 100 MiB free, 150 in a replay: of 30 to 220 MiB come the same tiles, of 128 px.
    yield Case(
        "tiles approximate",
        "dream --start sky --size 480 --octaves 1 --steps 1 --tile approximate --memory 900M "
        "--network toy:normalised --objective second -o OUT/o.png",
        alone=True,
        replay="--network toy:normalised",
    )
    # Over a megapixel, its first layers go over it in bands.
    yield Case(
        "bands",
        "dream --start sky --size 1280 --octaves 1 --steps 1 --memory 64G --objective conv2 "
        "-o OUT/o.png",
        alone=True,
    )
    yield Case("memory", "dream wide.png --octaves 2 --steps 2 --memory 64G -o OUT/o.png")
    for precision in ("fp64", "bf16", "fp32"):
        kept = precision != "fp32"
        yield Case(precision, f"{DREAM} --precision {precision} -o OUT/o.png", kept=kept)
    yield Case("two threads", "dream square.png --octaves 1 --steps 2 -o OUT/o.png", threads=2)
    yield Case("noise", f"dream --start noise --size 80 {SMALL} --seed 5 -o OUT/o.png")
    yield Case("sky", f"dream --start sky --size 90 {SMALL} -o OUT/o.png", kept=True)
    yield Case(
        "size", f"dream wide.png --size 72 {SMALL} -o OUT/o.jpg --recipe OUT/o.json", kept=True
    )
    yield Case("octaves", "dream photo.png --octaves 3 --steps 2 --save-octaves OUT -o OUT/o.png")
    yield Case("cut out", f"dream cutout.png {SMALL} -o OUT/o.png", kept=True)
    yield Case("cut out, jpeg", f"dream cutout.png {SMALL} -o OUT/o.jpg")
    yield Case(
        "gradient",
        f"{DREAM} --laplacian 3 --clip 2 --smooth 1 --gradient norm --step-size 0.3 "
        "--octave-scale 1.6 -o OUT/o.tif",
    )
    yield Case("interrupted", 'dream photo.png --octaves 3 --steps 150 -o OUT/o.png', alone=True,
               interrupt="octave 1/3", code=130)  # fmt: skip
    yield Case("interrupted tiles", 'dream wide.png --octaves 2 --steps 16 --tile 96 '
               '-o OUT/o.png', alone=True, interrupt="octave 1/2", code=130)  # fmt: skip

    yield Case("channel", f"visualize mixed4c:12 {DRAWN} -o OUT/o.png", kept=True)
    yield Case("negative", f"visualize logits:dumbbell --negative {DRAWN} -o OUT/o.png")
    several = 'visualize mixed4c:1 mixed4c:2 "mixed4c:1 + mixed4c:2"'
    yield Case("several", f"{several} {DRAWN} -o OUT/o.png")
    yield Case("several, files", f'{several} {DRAWN} --batch 2 -o "OUT/{{}}.png" '
               '--recipe "OUT/{}.json"')  # fmt: skip
    yield Case(
        "diverse",
        f'visualize "logits:dumbbell + 2*diversity(mixed4b)" --batch 3 {DRAWN} -o OUT/o.png',
    )
    yield Case(
        "pixels",
        f"visualize mixed4c:3 --parameterization pixels --transforms robust --tv 0.2 --l2 0.1 "
        f"{DRAWN} -o OUT/o.png",
    )
    yield Case(
        "maco",
        f"visualize mixed4c:3 --parameterization maco --transparent {DRAWN} -o OUT/o.png",
        kept=True,
    )
    for transforms in ("gentle", "crops", "none"):
        yield Case(
            f"transforms {transforms}",
            f"visualize mixed4b:7 --transforms {transforms} {DRAWN} -o OUT/o.png",
        )
    yield Case(
        "nadam",
        f"visualize mixed4b:7 --optimiser nadam --learning-rate 0.03 --no-decorrelate --decay 0.5 "
        f"--aspect 1.5 --seed 3 {DRAWN} -o OUT/o.png",
    )
    yield Case("from a photo", f"visualize mixed4b:7 --start photo.png {DRAWN} -o OUT/o.png")
    yield Case("drawn in fp64", f"visualize mixed4b:7 --precision fp64 {DRAWN} -o OUT/o.png")
    dead = "--network file:dead.safetensors@dreamnet"
    yield Case("dead unit", f"visualize mixed4b.one:5 mixed4b.one:7 {dead} {DRAWN} -o OUT/o.png")
    yield Case(
        "all dead", f"visualize mixed4b.one:5 {dead} {DRAWN} -o OUT/o.png", code=1, says="dead"
    )
    yield Case("caricature", f"caricature photo.png {DRAWN} -o OUT/o.png")
    yield Case(
        "caricatures",
        f'caricature photo.png --layer mixed3b --layer mixed4b --power 2 {DRAWN} -o "OUT/{{}}.png"',
    )
    yield Case(
        "invert",
        f"invert photo.png --layer mixed3b {DRAWN} -o OUT/o.png",
        kept=True,
    )
    yield Case("inversions", f"invert photo.png --layer conv2 --layer mixed4b {DRAWN} -o OUT/o.png")
    yield Case("accentuate", f"accentuate cutout.png mixed4c:12 --leash 2 {DRAWN} -o OUT/o.png")
    yield Case("style", f"style photo.png painting.jpg {DRAWN} -o OUT/o.png")
    yield Case(
        "style by layers",
        f"style cutout.png painting.jpg --style-weight 3 --painting-size 40 "
        f"--style-layers conv2 --style-layers mixed3b --content-layer mixed4a {DRAWN} -o OUT/o.png",
    )

    page = "--no-keep --size 32 --steps 6"
    yield Case("sheet", f"sheet dreamnet mixed4c --channels 0-5 {page} -o OUT/o.png")
    yield Case(
        "sheet as svg",
        f"sheet dreamnet mixed4c --channels 0,3,40 {page} -o OUT/o.svg --data OUT/o.json",
        kept=True,
    )
    yield Case("sheet of a photo", f"sheet dreamnet mixed4c --top 2 photo.png {page} -o OUT/o.png")
    yield Case("sheet with a dead one", f"sheet file:dead.safetensors@dreamnet mixed4b.one "
               f"--channels 4-6 {page} -o OUT/o.png")  # fmt: skip
    unit = "--no-keep --pictures folder --seeds 2 --shown 2 --size 32 --steps 6"
    yield Case("unit", f"unit dreamnet mixed4c:42 {unit} -o OUT/o.png")
    yield Case(
        "unit as svg",
        f"unit dreamnet-robust logits:dumbbell {unit} --rank peak -o OUT/o.svg "
        "--data OUT/o.json --recipe OUT/r.json",
    )
    yield Case("unit alone", "unit dreamnet mixed5a:3 --no-keep --seeds 1 --size 32 --steps 6 "
               "-o OUT/o.json")  # fmt: skip


CASES = tuple(_cases())


# --- inputs ----------------------------------------------------------------------------------


def draw_inputs(folder: Path) -> None:
    """Draw what the cases read into a folder, the same bytes each time with the same libraries."""
    folder.mkdir(parents=True, exist_ok=True)
    _picture(1, 96, 72).save(folder / "photo.png")
    _picture(2, 200, 144).save(folder / "wide.png")
    _picture(6, 224, 224).save(folder / "square.png")
    _picture(3, 72, 72).save(folder / "guide.png")
    _picture(4, 80, 64).save(folder / "painting.jpg", quality=90)
    rows, columns = np.indices((72, 96))
    disc = np.hypot(rows - 36, columns - 40)
    mask = np.clip((34 - disc) * 24, 0, 255).astype(np.uint8)
    Image.fromarray(mask).save(folder / "mask.png")
    cut = _picture(5, 96, 72)
    cut.putalpha(Image.fromarray(np.clip((30 - disc) * 16, 0, 255).astype(np.uint8)))
    cut.save(folder / "cutout.png")
    (folder / "folder" / "more").mkdir(parents=True, exist_ok=True)
    for n in range(6):
        place = folder / "folder" / ("more" if n > 3 else "")
        _picture(10 + n, 64 + 8 * n, 72).save(place / f"{n}.png")


def draw_networks(folder: Path, source: Path) -> None:
    """Weights and code for the cases that need them; dreamnet's lie somewhere under `source`."""
    import torch
    import torchvision
    from safetensors.torch import load_file, save_file

    (bundled,) = source.rglob("dreamnet.safetensors")
    state = load_file(bundled)
    state["mixed4b.one.conv.weight"][5] = 0
    state["mixed4b.one.conv.bias"][5] = -1
    save_file(state, folder / "dead.safetensors")
    torch.manual_seed(0)
    random = torchvision.models.squeezenet1_1(weights=None)
    save_file(random.state_dict(), folder / "weights.safetensors")
    (folder / "toy.py").write_text(TOY, encoding="utf-8")


TOY = '''"""Networks as code."""

import torch
from torch import nn

from phosphene import Network


class Normalised(nn.Module):
    def forward(self, image):
        return nn.functional.batch_norm(image, None, None, training=True)


def made(channels, between):
    torch.manual_seed(0)
    module = nn.Sequential()
    module.add_module("first", nn.Conv2d(3, channels, 3, padding=1))
    module.add_module("between", between)
    module.add_module("second", nn.Conv2d(channels, 12, 3, stride=2, padding=1))
    return Network(module, mean=(0.5,) * 3, std=(0.25,) * 3, input_size=32, name="toy")


def net():
    return made(8, nn.ReLU())


def normalised():
    return made(96, Normalised())
'''


def _picture(seed: int, width: int, height: int) -> Image.Image:
    """Coloured clouds, a few hard edges, and a little noise.

    Flat areas would leave the choice of a max-pooling to the last bit, and so to the processor.
    """
    generator = np.random.default_rng(seed)
    clouds = generator.integers(40, 216, (5, 6, 3), dtype=np.uint8)
    picture = Image.fromarray(clouds).resize((width, height), Image.Resampling.BICUBIC)
    for _ in range(4):
        x, y = (int(generator.integers(0, side - 16)) for side in (width, height))
        box = (x, y, x + int(generator.integers(8, 40)), y + int(generator.integers(8, 40)))
        picture.paste(tuple(int(c) for c in generator.integers(0, 256, 3)), box)
    pixels = np.asarray(picture) + generator.integers(-2, 3, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


# --- comparing -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Apart:
    """How far two results are apart: in 8-bit levels at most and on average, or in words."""

    most: int = 0
    mean: float = 0.0
    words: str = ""

    @property
    def same(self) -> bool:
        return not (self.most or self.words)

    def __str__(self) -> str:
        if self.words:
            return self.words
        return "same" if self.same else f"{self.most} levels at most, {self.mean:.3g} on average"


def apart(ours: Path, theirs: Path) -> Apart:
    """Two files: decoded pixels and alpha; of SVG and JSON all that they say but the recipe."""
    if ours.suffix == ".json":
        found = [_data(path) for path in (ours, theirs)]
        return Apart() if found[0] == found[1] else Apart(words="other data")
    if ours.suffix == ".svg":
        texts, pictures = zip(*(_svg(path) for path in (ours, theirs)), strict=True)
        if texts[0] != texts[1] or len(pictures[0]) != len(pictures[1]):
            return Apart(words="other words")
        parts = [_levels_apart(a, b) for a, b in zip(*pictures, strict=True)]
        return max(parts, key=lambda part: (part.words, part.most), default=Apart())
    return _levels_apart(levels(ours.read_bytes()), levels(theirs.read_bytes()))


def levels(encoded: bytes) -> np.ndarray:
    """A picture's levels, `(H, W, 4)`."""
    with Image.open(io.BytesIO(encoded)) as picture:
        return np.asarray(picture.convert("RGBA")).astype(int)


def _levels_apart(ours: np.ndarray, theirs: np.ndarray) -> Apart:
    if ours.shape != theirs.shape:
        shapes = ("×".join(map(str, a.shape[1::-1])) for a in (ours, theirs))
        return Apart(words=" instead of ".join(shapes) + " px")
    difference = abs(ours - theirs)
    return Apart(int(difference.max()), float(difference.mean()))


def _data(path: Path) -> Any:
    """What a JSON file says but the recipe: that of a bare recipe is nothing but its result."""
    found = json.loads(path.read_text("utf-8"))
    if "format" in found:
        return found["result"]
    return {key: value for key, value in found.items() if key != "recipe"}


_EMBEDDED = re.compile(r"data:image/[a-z]+;base64,([A-Za-z0-9+/=]*)")


def _svg(path: Path) -> tuple[str, list[np.ndarray]]:
    text = re.sub(r"<metadata>.*?</metadata>\n?", "", path.read_text("utf-8"), flags=re.DOTALL)
    pictures = [levels(base64.b64decode(found)) for found in _EMBEDDED.findall(text)]
    return _EMBEDDED.sub("", text), pictures


# --- the kept ones ---------------------------------------------------------------------------


def kept_files(folder: Path = DATA) -> list[Path]:
    """The results that lie there, without the inputs."""
    return sorted(
        path for path in folder.iterdir() if path.suffix in SUFFIXES and path.name != MACHINE
    )


def machine() -> dict[str, str]:
    """What rounding depends on, in more words than a recipe has."""
    import torch

    processor = platform.processor()
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        lines = re.findall(r"^(?:cpu family|model|model name)\s*: (.*)", text, re.MULTILINE)
        processor = ", ".join(lines[:3]) or processor
    return {
        "processor": processor,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        **{name: metadata.version(name) for name in ("torch", "numpy", "pillow")},
    }


def write_kept(folder: Path) -> None:
    """Run the kept cases with the phosphene that is on the path, into a folder, inputs beside."""
    draw_inputs(folder / INPUTS)
    kept = [case for case in CASES if case.kept]
    for path in sorted((folder / INPUTS).rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
        elif not any(path.name in case.words for case in kept):
            path.unlink()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for case in kept:
        out = folder / case.name.replace(" ", "-")
        words = [word.replace("OUT/o", str(out)) for word in shlex.split(case.words)]
        if "--precision" not in words:  # bfloat16 would be taken where it is fast
            words += ["--precision", "fp32"]
        command = [sys.executable, "-m", "phosphene", *words, "--force"]
        subprocess.run(command, cwd=folder / INPUTS, env=environment, check=True)
    (folder / MACHINE).write_text(json.dumps(machine(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_kept(Path(sys.argv[1]).absolute())
