"""Devices and precisions: which there are, a module in them, and whether a faster one agrees."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from phosphene.errors import SettingsError
from phosphene.runtime.options import DEFAULT, Options

# fp64 is slow; it is there to compare with, since ascent through ReLU amplifies rounding.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}
Precision = Literal["auto", "fp32", "bf16", "fp64"]
PRECISIONS = ("auto", *DTYPES)
# A faster precision is taken only while its gradient points this nearly the same way.
LEAST_COSINE = 0.98


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """A device that is there: `auto` prefers CUDA, then MPS, then the processor.

    Raises:
        SettingsError: There is no such device, or it is not on this machine.
    """
    if isinstance(device, torch.device):
        return device
    if device == "auto":
        if torch.cuda.is_available():
            device = "cuda"
        else:
            device = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        picked = torch.device(device)
    except RuntimeError:
        raise SettingsError(
            f"no device {device!r}; there are auto, cpu, cuda, cuda:N and mps"
        ) from None
    there = {
        "cpu": lambda: True,
        "cuda": lambda: (picked.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available,
    }
    if picked.type not in there or not there[picked.type]():
        raise SettingsError(f"device {device!r} is not on this machine; --device cpu always is")
    return picked


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively, not by way of float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, check, lambda: False)() for check in checks)
    return False


def converted(module: nn.Module, device: torch.device, precision: str) -> nn.Module:
    """A copy of a module on a device and in a precision, its weights laid out channels last.

    Raises:
        SettingsError: The device cannot do that precision.
    """
    module = copy.deepcopy(module)
    try:
        return module.to(device, DTYPES[precision], memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    except TypeError as error:  # MPS has no float64
        raise SettingsError(
            f"{device} cannot do precision {precision} ({' '.join(str(error).split())}); "
            "fp32 it can"
        ) from error


class _Answers(Protocol):
    """What `gradient_cosine` compares; `Network` is one."""

    device: torch.device

    def activations(
        self, image: Tensor, layers: Sequence[str], *, options: Options
    ) -> dict[str, Tensor]: ...


def gradient_cosine(
    reference: _Answers, faster: _Answers, layers: Sequence[str], sample: Tensor, side: int
) -> float | None:
    """The cosine between the gradients of two networks: of the energy of `layers`.

    Args:
        reference: In float32.
        faster: On the same device, in a faster precision.
        layers: Whose mean squares are added up.
        sample: A picture `(1, 3, H, W)`.
        side: px of its middle that are compared.

    Returns:
        The cosine; None where the layers give no gradient.
    """
    height, width = sample.shape[-2:]
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    crop = sample[:1, :, top : top + side, left : left + side].detach()
    gradients = []
    for network in (reference, faster):
        image = crop.to(faster.device, torch.float32).clone().requires_grad_()
        answers = network.activations(image, layers, options=DEFAULT.unlinked())
        energy = sum(a.square().mean() for a in answers.values())
        assert isinstance(energy, Tensor)
        if not energy.requires_grad:
            return None
        gradients.append(torch.autograd.grad(energy, image)[0].flatten())
    return float(torch.nn.functional.cosine_similarity(*gradients, dim=0))
