"""The published loops as anyone would write them today: what phosphene's speed is held against.

The loops are those of `tests/oracles.py`, in float32, on torchvision's models as they come.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from tests import oracles

Run = Callable[[np.ndarray], oracles.Dream]

KERAS = {"Mixed_5d": 0.2, "Mixed_6a": 3.0, "Mixed_6b": 2.0, "Mixed_6c": 1.5}
# Of 0–255 less Caffe's mean, of [-1, 1]: to what torchvision's models take.
MEAN, STD = oracles.IMAGENET_MEAN.float(), oracles.IMAGENET_STD.float()
CAFFE = torch.tensor(oracles.CAFFE_MEAN).reshape(1, 3, 1, 1)


def google2015(module: nn.Module, device: str, *, frozen: bool, octaves: int, steps: int) -> Run:
    """Google's notebook on GoogLeNet: hook on inception4c, ½ Σ a², NumPy's roll, SciPy's zoom."""
    gradient_of = _seen(
        module,
        ["inception4c"],
        oracles.half_sum_of_squares,
        lambda x: ((x + CAFFE.to(x)) / 255 - MEAN.to(x)) / STD.to(x),
        device,
        frozen,
    )
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(-32, 33, (octaves * steps, 2), generator=generator)
    shifts = [(int(dy), int(dx)) for dy, dx in drawn]
    return lambda photo: oracles.google2015(
        photo, gradient_of, shifts, octaves=octaves, steps=steps
    )


def keras(module: nn.Module, device: str, *, frozen: bool, octaves: int, steps: int) -> Run:
    """The Keras article on Inception-v3: mixed2 to mixed5, which are never above a loss here."""
    gradient_of = _seen(
        module,
        list(KERAS),
        oracles.borderless_squares(KERAS),
        lambda x: ((x + 1) / 2 - MEAN.to(x)) / STD.to(x),
        device,
        frozen,
    )
    return lambda photo: oracles.keras(
        photo, gradient_of, octaves=octaves, steps=steps, max_loss=None
    )


def torchvision(module: nn.Module, device: str, *, frozen: bool, octaves: int, steps: int) -> Run:
    """The article on torchvision's VGG16: the l2 norm of features.30."""
    gradient_of = _seen(module, ["features.30"], oracles.l2_norm, lambda x: x, device, frozen)
    return lambda photo: oracles.torchvision_vgg(photo, gradient_of, octaves=octaves, steps=steps)


LOOPS: dict[str, Callable[..., Run]] = {
    "google2015": google2015,
    "keras": keras,
    "torchvision": torchvision,
}


def _seen(
    module: nn.Module,
    layers: list[str],
    score: Callable[[Mapping[str, Tensor]], Tensor],
    to_input: Callable[[Tensor], Tensor],
    device: str,
    frozen: bool,
) -> oracles.GradientOf:
    """As it comes: all of the forward pass, and gradients of the weights beside the picture's.

    frozen: what a careful author would do: no gradient of weights, nothing above the deepest layer.
    """
    module = copy.deepcopy(module).to(device)
    if not frozen:
        module.requires_grad_(True)
        return oracles.seen_by(module, layers, score, lambda x: to_input(x.to(device)))
    seen_by = create_feature_extractor(module.requires_grad_(False), layers)

    def gradient_of(x: Tensor) -> tuple[float, Tensor]:
        x = x.detach().clone().requires_grad_(True)
        value = score(seen_by(to_input(x.to(device))))
        value.backward()
        assert x.grad is not None
        return value.item(), x.grad

    return gradient_of
