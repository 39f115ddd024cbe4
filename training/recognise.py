"""Draw every class with one network and ask another what it sees: the figure for "recognisable".

    python -m training.recognise runs/robust/checkpoint.pt runs/plain/checkpoint.pt \\
        --out runs/robust/recognised.json

Plain gradient ascent on each class logit from grey noise: a step rolls and scales the picture at
random and moves it by a fixed l2 length along the gradient. No prior, no Fourier image, the same
settings for all classes. The judge, which had no part in drawing, sees the pictures at 64 px.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from training import data, models
from training.train import preprocess, unit


@dataclass(frozen=True)
class Settings:
    """How the pictures are drawn."""

    size: int = 96
    steps: int = 150
    length: float = 4.0
    jitter: int = 8
    smallest: float = 0.5
    largest: float = 1.1
    noise: float = 0.02
    seed: int = 0


HELPS = {
    "size": "px, a side",
    "steps": "of the ascent",
    "length": "l2 length of the first step, values in [0, 1]; it shrinks to nothing linearly",
    "jitter": "px, largest roll a step, each way",
    "smallest": "least random scale",
    "largest": "greatest random scale",
    "noise": "deviation of the first picture around mid-grey",
    "seed": "of noise and transforms",
}


def draw(
    model: nn.Module, targets: Sequence[int], settings: Settings, device: torch.device
) -> Tensor:
    """One picture a target class: `(len(targets), 3, size, size)` in [0, 1].

    Noise depends on seed and class alone, transforms on seed and step, so a class looks the same in
    whatever batch it is drawn.
    """
    size = settings.size
    noise = [
        torch.randn(
            3, size, size, generator=torch.Generator().manual_seed(settings.seed * 9973 + target)
        )
        for target in targets
    ]
    images = (0.5 + settings.noise * torch.stack(noise)).clamp(0, 1).to(device)
    rows = torch.arange(len(targets), device=device)
    columns = torch.tensor(list(targets), device=device)
    moves = torch.Generator().manual_seed(settings.seed)
    for step in range(settings.steps):
        reach = settings.jitter
        down, right = torch.randint(-reach, reach + 1, (2,), generator=moves).tolist()
        fraction = float(torch.rand((), generator=moves))
        scale = settings.smallest + (settings.largest - settings.smallest) * fraction
        side = max(32, round(size * scale))
        images = images.requires_grad_()
        seen = F.interpolate(
            images.roll((down, right), (2, 3)), (side, side), mode="bilinear", antialias=True
        )
        logits = model(preprocess(seen).contiguous(memory_format=torch.channels_last))
        (gradient,) = torch.autograd.grad(logits[rows, columns].sum(), images)
        length = settings.length * (1 - step / settings.steps)
        images = (images.detach() + unit(gradient) * length).clamp_(0, 1)
    return images.detach()


@torch.no_grad()
def named(model: nn.Module, images: Tensor) -> Tensor:
    """The five best classes of each picture, best first: `(N, 5)`, fewer if there are fewer."""
    side = (data.SIDE, data.SIDE)
    small = F.interpolate(images, side, mode="bilinear", antialias=True).clamp(0, 1)
    logits = model(preprocess(small))
    return logits.topk(min(5, logits.shape[1]), dim=1).indices


def sheet(images: Tensor, captions: Sequence[tuple[str, str]], columns: int = 14) -> Image.Image:
    """All pictures in a grid, each with its `(text, colour)` below."""
    size, strip, gap = images.shape[-1], 15, 4
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    page = Image.new("RGB", (columns * (size + gap) + gap, rows * (size + strip) + gap), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for i, (text, colour) in enumerate(captions):
        left, top = gap + i % columns * (size + gap), gap + i // columns * (size + strip)
        pixels = images[i].mul(255).round().byte().permute(1, 2, 0).cpu().numpy()
        page.paste(Image.fromarray(pixels), (left, top))
        while font.getlength(text) > size:
            text = text[:-2].rstrip(" …") + "…"
        pen.text((left, top + size), text, colour, font)
    return page


def recognise(
    artist: models.Trained,
    judge: models.Trained,
    settings: Settings,
    *,
    targets: Sequence[int] | None = None,
    batch: int = 28,
    device: torch.device,
) -> tuple[Tensor, dict[str, Any]]:
    """Draw `targets` (all classes unless given) and count what the judge names.

    Returns the pictures and the figures: `top1` and `top5` as fractions, and for each class what
    the judge saw, best first.
    """
    if [c["wnid"] for c in artist.classes] != [c["wnid"] for c in judge.classes]:
        raise ValueError(f"{artist.name} and {judge.name} were trained on different classes")
    targets = list(range(len(artist.classes)) if targets is None else targets)
    drawn, guesses = [], []
    for start in range(0, len(targets), batch):
        images = draw(artist.model, targets[start : start + batch], settings, device)
        drawn.append(images.cpu())
        guesses += named(judge.model, images).tolist()
        print(f"{len(guesses)} of {len(targets)} classes drawn", flush=True)
    names = [c["name"] for c in artist.classes]
    pairs = list(zip(targets, guesses, strict=True))
    return torch.cat(drawn), {
        "drawn_by": artist.name,
        "named_by": judge.name,
        "settings": dataclasses.asdict(settings),
        "pictures": len(targets),
        "top1": round(sum(t == g[0] for t, g in pairs) / len(pairs), 4),
        "top5": round(sum(t in g for t, g in pairs) / len(pairs), 4),
        "classes": {names[t]: [names[i] for i in g] for t, g in pairs},
    }


def captions(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """Each class's name: green if it was named first, amber among the first five, else red."""
    colours = ["#107010"] + ["#b07000"] * 4
    return [
        (name, colours[seen.index(name)] if name in seen else "#c02020")
        for name, seen in figures["classes"].items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artist", type=Path, help="checkpoint.pt or NAME.safetensors that draws")
    parser.add_argument("judge", type=Path, help="checkpoint.pt or NAME.safetensors that names")
    parser.add_argument("--out", type=Path, required=True, help="NAME.json; NAME.png beside it")
    parser.add_argument("--targets", type=int, nargs="*", help="class indices (default: all)")
    parser.add_argument("--batch", type=int, default=28, help="classes drawn at a time")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for field in dataclasses.fields(Settings):
        text = f"{HELPS[field.name]} (default {field.default})"
        parser.add_argument(
            f"--{field.name}", type=type(field.default), default=field.default, help=text
        )
    given = parser.parse_args()
    device = torch.device(given.device)
    images, figures = recognise(
        models.load(given.artist, device),
        models.load(given.judge, device),
        Settings(**{f.name: getattr(given, f.name) for f in dataclasses.fields(Settings)}),
        targets=given.targets,
        batch=given.batch,
        device=device,
    )
    given.out.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    sheet(images, captions(figures)).save(given.out.with_suffix(".png"))
    print(
        f"{figures['pictures']} pictures by {figures['drawn_by']}, named by {figures['named_by']}: "
        f"top-1 {figures['top1']:.1%}, top-5 {figures['top5']:.1%}"
    )


if __name__ == "__main__":
    main()
