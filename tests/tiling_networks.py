"""Small networks, objectives and images that are evaluated whole and in tiles."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene import objectives as obj
from phosphene.network import Network


def seeded(module: nn.Module, precision: str = "fp64", **settings) -> Network:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) / math.sqrt(parameter[0].numel()))
    network = Network(module, input_size=48, copy=False, **settings)
    return network.prepared("cpu", precision)


def stack(**layers: nn.Module) -> nn.Sequential:
    module = nn.Sequential()
    for name, layer in layers.items():
        module.add_module(name, layer)
    return module


def padded() -> nn.Module:
    """Strides 2, 4 and 8, the kernels that DreamNet has."""
    return stack(
        two=nn.Conv2d(3, 4, 6, 2, 2),
        relu=nn.ReLU(inplace=True),
        pool=nn.MaxPool2d(3, 2, 1),
        four=nn.Conv2d(4, 5, 5, 1, 2),
        relu4=nn.ReLU(),
        pool8=nn.MaxPool2d(3, 2, 1),
        eight=nn.Conv2d(5, 6, 3, 1, 1),
    )


def unpadded() -> nn.Module:
    """As Inception-v3 begins, and odd strides; maps are smaller than picture over stride."""
    return stack(
        two=nn.Conv2d(3, 4, 3, 2),
        relu=nn.ReLU(),
        conv=nn.Conv2d(4, 4, (1, 5)),
        six=nn.AvgPool2d(3, 3, ceil_mode=True),
        last=nn.Conv2d(4, 5, (3, 1), padding=(1, 0)),
    )


class SamePadded(nn.Module):
    """Pads by the length of its input, as TensorFlow does: more on the right, at times none."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, 2)
        self.second = nn.Conv2d(4, 5, 5, 2)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.first, self.second):
            sides = []
            for side, kernel in zip(x.shape[:1:-1], conv.kernel_size, strict=True):
                more = max((math.ceil(side / 2) - 1) * 2 + kernel - side, 0)
                sides += [more // 2, more - more // 2]
            x = conv(F.pad(x, sides)).relu()
        return x


def decoder() -> nn.Module:
    """Down by 4 and up again by 2, with a dilated kernel of holes."""
    return stack(
        down=nn.Conv2d(3, 4, 4, 4),
        dilated=nn.Conv2d(4, 4, 3, padding=4, dilation=4),
        up=nn.Upsample(scale_factor=2, mode="bilinear"),
        last=nn.Conv2d(4, 5, 3, padding=1),
    )


def narrow() -> nn.Module:
    """Something to see even in a single px."""
    return stack(
        two=nn.Conv2d(3, 4, 3, 2, 1),
        relu=nn.ReLU(),
        pool=nn.MaxPool2d(3, 2, 1),
        eight=nn.Conv2d(4, 5, 5, 2, 2),
    )


NETWORKS = {
    "narrow": (seeded(narrow()), "eight"),
    "padded": (seeded(padded()), "eight"),
    "unpadded": (seeded(unpadded()), "last"),
    "same": (seeded(SamePadded()), "second"),
    "decoder": (seeded(decoder()), "last"),
}
PADDED = NETWORKS["padded"][0]
MIXED = 0.3 * obj.layer("two", norm="mean") + 2 * obj.layer("four") + obj.channel("eight", 3)
OBJECTIVES = {
    "layer": obj.layer("eight"),
    "layers": MIXED,
    "direction": obj.direction("eight", [1, -1, 0.5, 2, 0, 1], cossim_pow=1),
    "tv": obj.layer("four") - 0.2 * obj.tv() + obj.l2(),
    "image": obj.tv(),
    "sum": obj.layer("eight", norm="sum"),
    "half": obj.layer("four", norm="half_sum_square") - obj.layer("eight"),
    "l2": obj.layer("eight", norm="l2"),
    "roots": obj.layer("eight", norm="l2") - 2 * obj.layer("two", norm="l2") + obj.layer("four"),
    "margin": obj.layer("four", margin=2) + 3 * obj.layer("eight", norm="sum", margin=1),
}


def picture(height: int, width: int, batch: int = 1, seed: int = 0, dtype=torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 3, height, width, generator=generator, dtype=dtype)


def assert_alike(one, other, tolerance: float = 1e-9) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert float((a - b).norm()) <= tolerance * float(b.norm())
