"""Small seeded networks for `--network tests.toy_network:net`."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from phosphene.network import Network

CLASSES = ("cat", "dog", "tabby cat")


def net() -> Network:
    """Three layers with a name each, and three classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(
            OrderedDict(
                first=nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU()),
                second=nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU()),
                pool=nn.AdaptiveAvgPool2d(1),
                flat=nn.Flatten(),
                logits=nn.Linear(8, len(CLASSES)),
            )
        )
    return Network(module, input_size=32, classes=CLASSES, name="toy", mean=(0.5,) * 3)


def hostile() -> Network:
    """A layer whose name would clear a terminal, and set its title."""
    module = nn.Sequential(OrderedDict({"fir\x1b[2J\x1b]0;st\x07": nn.Conv2d(3, 4, 3)}))
    return Network(module, input_size=32, name="bad\x9bname\u202e")


def wide() -> Network:
    """Maps that take a hundred times the memory of the picture, and little work."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            first=nn.Conv2d(3, 160, 1), relu=nn.ReLU(), second=nn.Conv2d(160, 6, 3, padding=1)
        )
    return Network(nn.Sequential(layers), input_size=32, name="wide", mean=(0.5,) * 3)


class _Growth(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return torch.exp(100 * (image.mean(1, keepdim=True) - 0.5))


def explosive() -> Network:
    """The square of its answer is beyond float32 once the picture is light."""
    return Network(nn.Sequential(OrderedDict(growth=_Growth())), input_size=32, name="explosive")


class _OfTheBatch(nn.Module):
    """Statistics of what it gets, even in evaluation."""

    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.batch_norm(image, None, None, training=True)


def of_the_batch() -> Network:
    """What it answers at a place hangs on all of the picture."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            first=nn.Conv2d(3, 6, 3, padding=1), norm=_OfTheBatch(), second=nn.Conv2d(6, 6, 3)
        )
    return Network(nn.Sequential(layers), input_size=32, name="of_the_batch", mean=(0.5,) * 3)


def sleeping() -> Network:
    """Its first channel gives nothing and no gradient at a grey start, and wakes once helped."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = nn.Conv2d(3, 4, 3)
        layers: OrderedDict[str, nn.Module] = OrderedDict(first=first, relu=nn.ReLU())
    first.weight.data[0] = torch.tensor([1.0, -1.0, 0.0]).view(3, 1, 1)  # red less green
    assert first.bias is not None
    first.bias.data[0] = -0.4
    return Network(nn.Sequential(layers), input_size=32, name="sleeping", mean=(0.5,) * 3)
