"""How large a drawing is, and how it is framed: as a whole thing, or in detail."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from phosphene import image as images
from phosphene import objectives as obj
from phosphene.errors import InputTooSmallError, NetworkError, SettingsError
from phosphene.network import Network
from phosphene.objectives import Objective
from phosphene.recipes.visualize import AscentSettings

# px a side: below that the spectrum that MaCo keeps is of too few frequencies to make anything.
MACO_LEAST = 32
# px of a picture as large as the network knows. Adam moves frequencies that the network hardly sees
# as far as all others, and would cover everything with a grid of single px.
LOW_PASS = 0.47
# A whole is seen in so many views at once, whose sides are these times the size that the network
# knows; the picture is as large as leaves room for two things or three.
VIEWS, VIEW_SIDES, WHOLE_SIZE = 4, (0.9, 1.35), 1.5


def takes_any_size(network: Network, layers: Sequence[str]) -> bool:
    """Whether it does, found by trying one that is far off and a multiple of nothing."""
    side = (network.input_size * 3 // 2) | 1
    try:
        with torch.no_grad():
            network.activations(torch.zeros(1, 3, side, side, device=network.device), layers)
    except NetworkError:
        return False
    return True


def drawn_size(
    network: Network,
    layers: Sequence[str],
    s: AscentSettings,
    start: Tensor | None,
    fixed: bool,
) -> tuple[int, int]:
    side, aspect = s.size, s.aspect
    if start is not None:
        height, width = images.size_of(start)
        side, aspect = max(height, width) if side == "auto" else side, width / height
    elif side == "auto":
        known = network.input_size
        side = known if fixed else auto_size(known, whole=is_whole(network, layers, s))
    size = (max(1, round(side / max(aspect, 1))), max(1, round(side * min(aspect, 1))))
    least = 1 if fixed else network.least_size(layers)
    if s.parameterization == "maco" and min(size) < MACO_LEAST:
        raise SettingsError(
            f"maco draws pictures of {MACO_LEAST} px a side or more, this one is to be "
            f"{size[1]}×{size[0]}; fourier and pixels draw smaller ones"
        )
    if min(size) < least:
        raise InputTooSmallError(
            f"{network.name} needs pictures of at least {least} px a side for "
            f"{', '.join(layers)}; this one is to be {size[1]}×{size[0]}",
            least,
        )
    return size


def auto_size(known: int, *, whole: bool = False) -> int:
    """The side, px, of a picture for a network that knows pictures of `known` px a side.

    whole: of what is framed as a whole.
    """
    return max(known, min(round((WHOLE_SIZE if whole else 2) * known), 160))


def is_whole(network: Network, layers: Sequence[str], s: AscentSettings) -> bool:
    """Whether what answers at those layers is drawn as a whole, where there is room for it."""
    if s.framing != "auto":
        return s.framing == "whole"
    shapes = [network.layers[name].shape for name in layers if name != obj.IMAGE]
    return bool(shapes) and all(math.prod(shape[1:]) == 1 for shape in shapes)


def framed(
    network: Network,
    layers: Sequence[str],
    s: AscentSettings,
    size: tuple[int, int],
    start: Tensor | None,
) -> AscentSettings:
    """The settings with framing and low pass, where they are auto."""
    framing, low_pass = s.framing, s.low_pass
    if framing == "auto":
        room = start is None and max(size) > network.input_size
        framing = "whole" if room and is_whole(network, layers, s) else "detail"
    if low_pass == "auto":
        low_pass = LOW_PASS * max(size) / network.input_size if framing == "whole" else 0.0
    return s.model_copy(update={"framing": framing, "low_pass": low_pass})


def views(net: Network, goals: Sequence[Objective], size: tuple[int, int]) -> str:
    """The views of a whole in a picture of `size`: never so small that the network sees nothing."""
    least = net.least_size([layer for goal in goals for layer in goal.layers])
    low, high = (min(1.0, times * net.input_size / max(size)) for times in VIEW_SIDES)
    high = min(1.0, max(high, (least + 0.5) / min(size)))
    return f"crops({VIEWS}, {low:.6g}, {high:.6g})"
