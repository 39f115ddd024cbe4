"""Turn a checkpoint into a bundled network: `NAME.safetensors` and `NAME.json`.

    python -m training.export runs/plain/checkpoint.pt dreamnet \\
        --figures runs/plain/evaluation.json runs/plain/recognised.json

The weights are the averaged ones, BatchNorm folded into the convolutions, in float16: what
`phosphene.zoo.dreamnet.DreamNet()` loads. The same checkpoint gives the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from phosphene.zoo.dreamnet import MEAN, SMALLEST_INPUT, STD, DreamNet
from training import data, models

DATA = Path(__file__).parents[1] / "src" / "phosphene" / "data"
LARGEST = 6_000_000
NOTES = {
    "conv1": "edges and spots of colour",
    "conv2": "lines, gratings, corners of two colours",
    "mixed3a": "fine grain, curves, crossings",
    "mixed3b": "textures and small arcs",
    "mixed4a": "patterns: scales, fur, brick, rings",
    "mixed4b": "larger patterns, first eyes and arches",
    "mixed4c": "parts of things: eyes, windows, petals",
    "mixed4d": "parts put together: heads, colonnades, wheels",
    "mixed5a": "things: animals, buildings, vehicles",
    "mixed5b": "things in their scenes, one class near another",
    "logits": "the classes, a vector",
}


@torch.no_grad()
def difference(one: nn.Module, other: nn.Module, *, count: int = 16, seed: int = 0) -> float:
    """Largest difference of two networks' logits on random input.

    In units of how far the logits move from picture to picture: what they always are is no signal.
    """
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, data.SIDE, data.SIDE, generator=generator)
    images *= torch.linspace(0.2, 2, count).view(-1, 1, 1, 1)
    expected = one(images)
    return float((expected - other(images)).abs().max() / (expected - expected.mean(0)).abs().max())


def half(model: nn.Module) -> dict[str, Tensor]:
    """The state dict in float16; refuses weights that float16 cannot hold."""
    state = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    for name, value in state.items():
        if not value.isfinite().all():
            raise ValueError(f"{name} has weights that are not finite in float16")
    return state


@torch.no_grad()
def layers(model: DreamNet) -> list[dict[str, Any]]:
    """The layers to dream with, in order: name, stride in px (0: a vector), channels, note."""
    side = data.SIDE
    x, found = torch.zeros(1, 3, side, side), []
    for name, module in model.named_children():
        x = module(x.flatten(1) if name == "logits" else x)
        if name in NOTES:
            stride = side // x.shape[-1] if x.ndim == 4 else 0
            found.append(
                {"name": name, "stride": stride, "channels": x.shape[1], "note": NOTES[name]}
            )
    return found


def export(
    checkpoint: Path,
    name: str,
    out: Path,
    *,
    description: str = "",
    figures: dict[str, Any] | None = None,
) -> dict[str, float]:
    """Write `out/NAME.safetensors` and `out/NAME.json`; returns the differences measured.

    `folded` compares with the network as trained, `float16` with what a user will load.
    """
    state = models.checkpoint(checkpoint)
    trained = models.unfolded(state)
    folded = models.folded(trained)
    weights = half(folded)
    loaded = DreamNet(len(state["classes"])).eval()
    loaded.load_state_dict(weights)
    differences = {"folded": difference(trained, folded), "float16": difference(trained, loaded)}
    # No metadata: safetensors does not keep its order, and the bytes must be the same each time.
    blob = save(weights)
    if len(blob) > LARGEST:
        raise ValueError(f"{name} takes {len(blob)} bytes; the limit is {LARGEST}")
    card = {
        "name": name,
        "description": description,
        "architecture": "phosphene.zoo.dreamnet.DreamNet",
        "license": "Apache-2.0",
        "sha256": hashlib.sha256(blob).hexdigest(),
        "mean": MEAN,
        "std": STD,
        "smallest_input": SMALLEST_INPUT,
        "trained_at": data.SIDE,
        "layers": layers(folded),
        "training": {
            "data": "140 classes of Tiny-ImageNet, see docs/dreamnet.md",
            "epochs_done": state["epoch"],
            "settings": state["settings"],
        },
        "figures": figures or {},
        "classes": state["classes"],
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.safetensors").write_bytes(blob)
    (out / f"{name}.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    return differences


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("name", help="of the network, and of its files")
    parser.add_argument("--out", type=Path, default=DATA, help="folder (default %(default)s)")
    parser.add_argument("--description", default="", help="one line for users")
    parser.add_argument("--figures", type=Path, nargs="*", default=[], help="JSON to carry along")
    given = parser.parse_args()
    figures = {path.stem: json.loads(path.read_text()) for path in given.figures}
    differences = export(
        given.checkpoint, given.name, given.out, description=given.description, figures=figures
    )
    for what, value in differences.items():
        print(f"{what}: logits differ by at most {value:.2e} of their range over random pictures")
    size = (given.out / f"{given.name}.safetensors").stat().st_size
    print(f"{given.out / given.name}.safetensors: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
