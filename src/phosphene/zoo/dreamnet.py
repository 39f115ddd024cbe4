"""The architecture of the bundled networks: a small GoogLeNet, made to be dreamt with.

What makes a network dream well is kept (a plain chain of Inception blocks, ReLU, max-pooling:
Szegedy et al., "Going deeper with convolutions", 2015), and what spoils a dream is left out:
skip connections, depthwise convolutions, attention and strided convolutions on odd kernels.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn

# The pictures that the bundled networks were trained on, as the value of a mid-grey image.
MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)
SMALLEST_INPUT = 32


class Widths(NamedTuple):
    """Channels of one mixed block: each branch, with its 1x1 reduction where it has one."""

    one: int
    reduce3: int
    three: int
    reduce5: int
    five: int
    pool: int

    @property
    def out(self) -> int:
        return self.one + self.three + self.five + self.pool


BLOCKS: dict[str, Widths] = {
    "mixed3a": Widths(32, 48, 80, 16, 32, 32),
    "mixed3b": Widths(64, 64, 96, 16, 32, 32),
    "mixed4a": Widths(128, 64, 144, 16, 48, 64),
    "mixed4b": Widths(112, 80, 160, 16, 48, 64),
    "mixed4c": Widths(112, 80, 176, 16, 48, 64),
    "mixed4d": Widths(128, 80, 176, 16, 48, 64),
    "mixed5a": Widths(176, 128, 256, 32, 96, 96),
    "mixed5b": Widths(256, 144, 288, 32, 112, 112),
}
# A max-pooling that halves the map stands before each of these.
POOLED = ("mixed3a", "mixed4a", "mixed5a")


class ConvReLU(nn.Sequential):
    """Convolution, BatchNorm while training (folded into the convolution afterwards), ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, batch_norm: bool
    ) -> None:
        padding = (kernel - stride + 1) // 2
        parts: list[tuple[str, nn.Module]] = [
            ("conv", nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=not batch_norm))
        ]
        if batch_norm:
            parts.append(("bn", nn.BatchNorm2d(outputs)))
        parts.append(("relu", nn.ReLU()))
        super().__init__(OrderedDict(parts))


class Mixed(nn.Module):
    """An Inception block, `(N, inputs, H, W) -> (N, widths.out, H, W)`."""

    def __init__(self, inputs: int, widths: Widths, *, batch_norm: bool) -> None:
        super().__init__()

        def conv(i: int, o: int, k: int) -> ConvReLU:
            return ConvReLU(i, o, k, batch_norm=batch_norm)

        self.one = conv(inputs, widths.one, 1)
        self.three = nn.Sequential(
            conv(inputs, widths.reduce3, 1), conv(widths.reduce3, widths.three, 3)
        )
        self.five = nn.Sequential(
            conv(inputs, widths.reduce5, 1), conv(widths.reduce5, widths.five, 5)
        )
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(inputs, widths.pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


class DreamNet(nn.Module):
    """`(N, 3, H, W)` normalised with `MEAN` and `STD`, H and W from 32 -> `(N, classes)` logits.

    Layers by stride: `conv1`, `conv2` 2; `mixed3a`, `mixed3b` 4; `mixed4a` … `mixed4d` 8;
    `mixed5a`, `mixed5b` 16; `logits` a vector.
    """

    def __init__(self, classes: int = 140, *, batch_norm: bool = False) -> None:
        super().__init__()
        # An even kernel covers every pixel equally often under stride 2, so the gradient has no
        # checkerboard (Odena et al. 2016, "Deconvolution and checkerboard artifacts").
        self.conv1 = ConvReLU(3, 32, 6, 2, batch_norm=batch_norm)
        self.conv2 = ConvReLU(32, 64, 3, batch_norm=batch_norm)
        channels = 64
        for name, widths in BLOCKS.items():
            if name in POOLED:
                self.add_module(name.replace("mixed", "pool")[:-1], nn.MaxPool2d(3, 2, 1))
            self.add_module(name, Mixed(channels, widths, batch_norm=batch_norm))
            channels = widths.out
        self.average = nn.AdaptiveAvgPool2d(1)
        self.logits = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        for name, module in self.named_children():
            if name == "logits":
                x = x.flatten(1)
            x = module(x)
        return x
