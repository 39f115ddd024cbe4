"""Measure a network on the validation pictures: clean, and under an l2 attack.

    python -m training.evaluate runs/plain/checkpoint.pt --data tiny-imagenet-140 \\
        --out runs/plain/evaluation.json

The attack is projected gradient ascent on the loss (Madry et al. 2018) from a random start, with
steps of 2.5 ε / steps; radii are for 64 px pictures with values in [0, 1]. Accuracy is computed in
float32; the attack's gradients in bfloat16, as in training.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training import data, models
from training.train import attack, preprocess

EPSILONS = (0.25, 0.5, 1.0)
BATCH = 250


@torch.no_grad()
def hits(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[int, int]:
    """How many labels are the network's first guess, and how many among its first five."""
    logits = model(preprocess(images))
    guesses = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    return int(guesses[:, 0].sum()), int(guesses.any(1).sum())


def measure(
    model: nn.Module,
    pictures: data.Pictures,
    *,
    epsilon: float = 0.0,
    steps: int = 10,
    seed: int = 0,
    device: torch.device,
) -> dict[str, float]:
    """`top1` and `top5` as fractions, of clean pictures or, with `epsilon`, of attacked ones."""
    generator = torch.Generator().manual_seed(seed)
    first = five = 0
    for images, labels in zip(
        pictures.images.split(BATCH), pictures.labels.split(BATCH), strict=True
    ):
        images, labels = data.normalised(images, device), labels.to(device)
        if epsilon:
            images = attack(
                model,
                images,
                labels,
                epsilon,
                steps=steps,
                size=2.5 * epsilon / steps,
                generator=generator,
            )
        right, near = hits(model, images, labels)
        first, five = first + right, five + near
    return {
        "epsilon": epsilon,
        "top1": round(first / len(pictures), 4),
        "top5": round(five / len(pictures), 4),
    }


def evaluate(
    trained: models.Trained,
    pictures: data.Pictures,
    *,
    epsilons: Sequence[float] = EPSILONS,
    steps: int = 10,
    seed: int = 0,
    device: torch.device,
) -> dict[str, Any]:
    """The figures of one network, ready for JSON."""
    rows = []
    for epsilon in (0.0, *epsilons):
        rows.append(
            measure(trained.model, pictures, epsilon=epsilon, steps=steps, seed=seed, device=device)
        )
        print(rows[-1], flush=True)
    return {
        "network": trained.name,
        "pictures": len(pictures),
        "attack": {"norm": "l2", "steps": steps, "seed": seed},
        "accuracy": rows,
    }


def table(figures: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    lines = [f"| {figures['network']}, ℓ2 ε | top-1 | top-5 |", "|---|---|---|"]
    for row in figures["accuracy"]:
        radius = f"{row['epsilon']:g}" if row["epsilon"] else "0 (clean)"
        lines.append(f"| {radius} | {row['top1']:.1%} | {row['top5']:.1%} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", type=Path, help="checkpoint.pt or NAME.safetensors")
    parser.add_argument("--data", type=Path, required=True, help="folder of training.fetch")
    parser.add_argument("--out", type=Path, required=True, help="NAME.json; NAME.md lies beside")
    parser.add_argument("--epsilons", type=float, nargs="*", default=EPSILONS, help="l2 radii")
    parser.add_argument("--steps", type=int, default=10, help="of the attack")
    parser.add_argument("--pictures", type=int, default=0, help="use only so many (0: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the attack's start")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    device = torch.device(given.device)
    pictures = data.load(given.data, "val")
    if given.pictures:
        pictures = pictures.subset(given.pictures)
    figures = evaluate(
        models.load(given.network, device),
        pictures,
        epsilons=given.epsilons,
        steps=given.steps,
        seed=given.seed,
        device=device,
    )
    given.out.write_text(json.dumps(figures, indent=1) + "\n")
    given.out.with_suffix(".md").write_text(table(figures))
    print(table(figures), end="")


if __name__ == "__main__":
    main()
