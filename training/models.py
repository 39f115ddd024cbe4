"""A trained network from a checkpoint or an exported file, folded for inference."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from phosphene.zoo.dreamnet import ConvReLU, DreamNet


@dataclass(frozen=True)
class Trained:
    """`model` in float32, in eval mode, without BatchNorm; `classes` in the order of its logits."""

    name: str
    model: DreamNet
    classes: list[dict[str, str]]


def checkpoint(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


def unfolded(state: dict[str, Any]) -> DreamNet:
    """The averaged network of a checkpoint's contents as it was trained, in eval mode."""
    model = DreamNet(len(state["classes"]), batch_norm=True)
    model.load_state_dict(state["averaged"])
    return model.eval()


def folded(model: DreamNet) -> DreamNet:
    """The same function with each BatchNorm folded into its convolution.

    Folded in float64, so that rounding to float32 happens once.
    """
    exact = copy.deepcopy(model).double().eval()
    result = DreamNet(model.logits.out_features)
    result.logits.load_state_dict(model.logits.state_dict())
    for name, block in exact.named_modules():
        if isinstance(block, ConvReLU):
            conv, bn = block.get_submodule("conv"), block.get_submodule("bn")
            if not isinstance(conv, nn.Conv2d) or not isinstance(bn, nn.BatchNorm2d):
                raise TypeError(f"{name} is {type(conv).__name__} and {type(bn).__name__}")
            fused = fuse_conv_bn_eval(conv, bn)
            result.get_submodule(f"{name}.conv").load_state_dict(fused.state_dict())
    return result.eval()


def load(path: Path, device: torch.device | str = "cpu") -> Trained:
    """Read a checkpoint of `training.train` or a `.safetensors` of `training.export`."""
    if path.suffix == ".safetensors":
        card = json.loads(path.with_suffix(".json").read_text())
        model = DreamNet(len(card["classes"])).eval()
        model.load_state_dict(load_file(path))
        name, classes = path.stem, card["classes"]
    else:
        state = checkpoint(path)
        model, classes = folded(unfolded(state)), state["classes"]
        name = path.parent.name if path.stem == "checkpoint" else path.stem
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model = model.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return Trained(name, model, classes)
