"""Pictures for training: read, kept decoded in memory, augmented a batch at a time."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

SIDE = 64


@dataclass(frozen=True)
class Pictures:
    """`images` uint8 `(N, 3, 64, 64)` sRGB, `labels` int64 `(N,)`, an index into `classes`."""

    images: Tensor
    labels: Tensor
    classes: list[dict[str, str]]

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, count: int, seed: int = 0) -> Pictures:
        """`count` pictures drawn without replacement."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:count]
        return Pictures(self.images[order], self.labels[order], self.classes)


def load(folder: Path, split: str) -> Pictures:
    """Read `split` ("train" or "val") of a folder that `python -m training.fetch` made.

    `SPLIT.npz` holds `jpeg` (uint8, all files joined), `offsets` (int64, n + 1) and `labels`;
    `classes.json` the classes in label order, each with `wnid` and `name`.
    """
    archive = folder / f"{split}.npz"
    if not archive.exists():
        raise FileNotFoundError(f"{archive} is missing; python -m training.fetch makes it")
    with np.load(archive) as parts:
        joined, offsets, labels = parts["jpeg"], parts["offsets"], parts["labels"]
    images = np.empty((len(labels), SIDE, SIDE, 3), np.uint8)
    for i in range(len(labels)):
        with Image.open(io.BytesIO(joined[offsets[i] : offsets[i + 1]].tobytes())) as picture:
            images[i] = np.asarray(picture.convert("RGB"))
    classes = json.loads((folder / "classes.json").read_text())
    return Pictures(
        torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels).long(), classes
    )


def normalised(images: Tensor, device: torch.device) -> Tensor:
    """uint8 `(N, 3, H, W)` -> float32 in [0, 1] on `device`, channels last."""
    return images.to(device).float().div_(255).contiguous(memory_format=torch.channels_last)


def augment(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Random crop, flip, slight rotation and colour: `(N, 3, S, S)` -> `(N, 3, side, side)`.

    One affine sampling a picture, so a batch costs one call. Values stay in [0, 1].
    """
    n, device = len(images), images.device

    def uniform(low: float, high: float) -> Tensor:
        return (torch.rand(n, generator=generator) * (high - low) + low).to(device)

    area, aspect = uniform(0.3, 1.0), uniform(-0.25, 0.25).exp()
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    flip = uniform(-1, 1).sign()
    angle = uniform(-1, 1).pow(3) * math.radians(15)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack(
        [
            torch.stack([flip * width * cos, -height * sin, uniform(-1, 1) * (1 - width)], 1),
            torch.stack([flip * width * sin, height * cos, uniform(-1, 1) * (1 - height)], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [n, 3, side, side], align_corners=False)
    out = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)

    def each(values: Tensor) -> Tensor:
        return values.view(n, 1, 1, 1)

    grey = out.mean(1, keepdim=True)
    out = torch.lerp(grey, out, each(uniform(0.6, 1.4)))
    middle = out.mean((1, 2, 3), keepdim=True)
    out = torch.lerp(middle, out, each(uniform(0.7, 1.3))) + each(uniform(-0.12, 0.12))
    return out.clamp_(0, 1).contiguous(memory_format=torch.channels_last)


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices of one epoch in random order, full batches only."""
    order = torch.randperm(count, generator=generator)
    for start in range(0, count - size + 1, size):
        yield order[start : start + size]
