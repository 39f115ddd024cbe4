"""Architectures with seeded random weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn


def with_random_weights(build: Callable[[], nn.Module]) -> nn.Module:
    """A module with seeded weights that keep a signal's size from layer to layer.

    He et al., "Delving deep into rectifiers", 2015. The caller's own random state stays as it is.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                inputs = layer.weight[0].numel()
                layer.weight.normal_(0, math.sqrt(2 / inputs), generator=generator)
                if layer.bias is not None:
                    layer.bias.zero_()
    return module
