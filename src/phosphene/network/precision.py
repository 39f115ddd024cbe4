"""Devices and precisions: which there are, a module in them, and whether a faster one agrees."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.errors import NetworkError, SettingsError
from phosphene.runtime.device import canonical, exact, layout_of
from phosphene.runtime.options import DEFAULT, Options

# fp64 is slow; it is there to compare with, since ascent through ReLU amplifies rounding.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}
Precision = Literal["auto", "fp32", "bf16", "fp64"]
PRECISIONS = ("auto", *DTYPES)
# A faster precision is taken while its gradient points this nearly the same way as float32's; or
# turns from it no further than so many times what invisible noise in the picture does, and not far.
CLOSE_COSINE = 0.98
NOISE_MARGIN = 1.5
LEAST_COSINE = 0.6
MOST_CROPS = 4


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """A device that is there: `auto` prefers CUDA, then MPS, then the processor.

    Raises:
        SettingsError: There is no such device, or it is not on this machine.
    """
    if isinstance(device, torch.device):
        return canonical(device)
    if device == "auto":
        device = best_device()
    try:
        picked = torch.device(device)
        if ":" in device and str(picked) != device:  # torch keeps a byte of the number
            raise RuntimeError
    except RuntimeError:
        raise SettingsError(
            f"no device {device!r}; there are auto, cpu, cuda, cuda:N and mps"
        ) from None
    if not is_there(picked):
        raise SettingsError(f"device {device!r} is not on this machine; --device cpu always is")
    return canonical(picked)


def best_device() -> str:
    """What `auto` takes."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def is_there(device: torch.device) -> bool:
    """Whether a device is on this machine."""
    there = {
        "cpu": lambda: True,
        "cuda": lambda: 0 <= (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available,
    }
    return device.type in there and there[device.type]()


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively, not by way of float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, check, lambda: False)() for check in checks)
    return False


def copied(module: nn.Module) -> nn.Module:
    """A copy of a module.

    Raises:
        NetworkError: It cannot be copied.
    """
    try:
        return copy.deepcopy(module)
    except Exception as error:
        raise NetworkError(
            f"{type(module).__name__} cannot be copied ({error}); Network(…, copy=False) takes "
            "the module itself, frozen"
        ) from error


def converted(module: nn.Module, device: torch.device, precision: str) -> nn.Module:
    """A copy of a module on a device and in a precision, its weights laid out for that.

    Raises:
        SettingsError: The device cannot do that precision.
    """
    module = copy.deepcopy(module)
    try:
        return module.to(device, DTYPES[precision], memory_format=layout_of(device))  # pyright: ignore[reportCallIssue]
    except TypeError as error:  # MPS has no float64
        raise SettingsError(
            f"{device} cannot do precision {precision} ({' '.join(str(error).split())}); "
            "fp32 it can"
        ) from error


class _Answers(Protocol):
    """What `agreement` compares; `Network` is one."""

    device: torch.device

    def activations(
        self, image: Tensor, layers: Sequence[str], *, options: Options
    ) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Agreement:
    """How far a gradient turns, as cosines with that of float32.

    faster: that of the faster precision. noise: that of float32 on pictures with half a grey level
    of noise, which nobody can see.
    """

    faster: float
    noise: float

    @property
    def close(self) -> bool:
        """Whether the faster precision may be taken: it turns the gradient little, or hardly more
        than such noise does, and not far."""
        if self.faster >= CLOSE_COSINE:
            return True
        return self.faster >= LEAST_COSINE and 1 - self.faster <= NOISE_MARGIN * (1 - self.noise)


def crops_of(pictures: Tensor, side: int) -> Tensor:
    """Parts of pictures `(N, 3, H, W)` that represent them: `(K, 3, side, side)` or smaller.

    The middle and, where there is room for more, the middles of two quarters; of several pictures
    in turns.
    """
    height, width = pictures.shape[-2:]
    places = [(0.5, 0.5)]
    if height * width >= 4 * side * side:
        places += [(0.2, 0.8), (0.8, 0.2)]
    crops = []
    for index in range(max(len(places), min(len(pictures), MOST_CROPS))):
        down, right = places[index % len(places)]
        top = round(max(0, height - side) * down)
        left = round(max(0, width - side) * right)
        picture = pictures[index % len(pictures)]
        crops.append(picture[:, top : top + side, left : left + side])
    return torch.stack(crops).detach()


def agreement(
    reference: _Answers, faster: _Answers, layers: Sequence[str], crops: Tensor
) -> Agreement | None:
    """How far a faster precision turns the gradient of the energy of `layers`.

    Args:
        reference: In float32.
        faster: On the same device, in a faster precision.
        layers: Whose mean squares are added up.
        crops: Pictures `(K, 3, H, W)` in [0, 1]; where a gradient is larger it weighs more.

    Returns:
        The cosines; None where the layers give no gradient.
    """
    crops = crops.to(faster.device, torch.float32)
    drawn = torch.rand(crops.shape, generator=torch.Generator().manual_seed(0))
    noisy = crops + (drawn.to(crops) - 0.5) / 255
    exact = _gradient(reference, torch.cat([crops, noisy]), layers)
    if exact is None:
        return None
    quick = _gradient(faster, crops, layers)
    assert quick is not None
    (plain, disturbed), quick = exact.flatten().chunk(2), quick.flatten()
    return Agreement(*(float(F.cosine_similarity(plain, g, dim=0)) for g in (quick, disturbed)))


def _gradient(network: _Answers, images: Tensor, layers: Sequence[str]) -> Tensor | None:
    images = images.clone().requires_grad_()
    answers = network.activations(images, layers, options=DEFAULT.unlinked())
    energy = sum(a.square().mean() for a in answers.values())
    assert isinstance(energy, Tensor)
    if not energy.requires_grad:
        return None
    with exact(images.device):
        return torch.autograd.grad(energy, images)[0]
