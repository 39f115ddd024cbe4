"""What is not alike on all devices: how float32 is rounded, layouts, what is missing, freed memory.

Settings of PyTorch's that count for the whole process are set by the first thread that needs them
and put back by the last one, whatever they were.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def canonical(device: torch.device) -> torch.device:
    """One name for one device: `cuda` is the CUDA device in use, and only CUDA's have numbers."""
    if device.type != "cuda":
        return torch.device(device.type)
    if device.index is not None:
        return device
    return torch.device("cuda", torch.cuda.current_device() if torch.cuda.is_available() else 0)


def layout_of(device: torch.device) -> torch.memory_format:
    """How maps and weights lie best. MPS lays channels last out anew before each operation."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def uploaded(values: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Values of the processor's on a device, without waiting for what runs there (CUDA).

    From memory that is not pinned PyTorch copies only once the device is idle.
    """
    if values.device.type == "cpu" and device.type == "cuda":
        return values.to(dtype).pin_memory().to(device, non_blocking=True)
    return values.to(device, dtype)


def resident(values: Tensor) -> Callable[[Tensor], Tensor]:
    """`values` on the device and in the type of the tensor that is given: copied there once.

    >>> resident(torch.ones(2))(torch.zeros(1, dtype=torch.float64))
    tensor([1., 1.], dtype=torch.float64)
    """

    @functools.lru_cache(maxsize=4)
    def at(device: torch.device, dtype: torch.dtype) -> Tensor:
        return values.to(device, dtype)

    return lambda like: at(like.device, like.dtype)


def on_processor_where_missing(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """`function(*tensors)`; by way of the processor on MPS, which has not all operations.

    Neither float64, nor the k-th value, nor the gradients of sampling at any place and of resizing
    without aliasing. The gradient goes the same way back.
    """
    device = tensors[0].device
    if device.type != "mps":
        return function(*tensors)
    return function(*(tensor.cpu() for tensor in tensors)).to(device)


def free_unused(device: torch.device) -> None:
    """Give freed memory that PyTorch keeps for later back to an accelerator."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


# Settings of the process --------------------------------------------------------------------------


class Switch:
    """Settings that are made inside a `with`: by the first thread in it, undone by the last.

    Args:
        turn_on: Makes them, and returns what undoes that.
    """

    def __init__(self, turn_on: Callable[[], Callable[[], None]]) -> None:
        self._turn_on, self._lock, self._inside = turn_on, threading.Lock(), 0
        self._turn_off: Callable[[], None] | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._turn_off = self._turn_on()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._turn_off is not None:
                self._turn_off()


def _set(settings: list[tuple[Any, str, Any]]) -> Callable[[], None]:
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in settings]
    for owner, name, value in settings:
        setattr(owner, name, value)

    def undo() -> None:
        for owner, name, value in reversed(before):
            setattr(owner, name, value)

    return undo


def _precisions() -> list[tuple[Any, str, Any]]:
    """What decides on TF32, and how it is turned off."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    conv = getattr(cudnn, "conv", None)
    if conv is None:  # PyTorch before 2.9
        return [(cudnn, "allow_tf32", False), (matmul, "allow_tf32", False)]
    return [(conv, "fp32_precision", "ieee"), (matmul, "fp32_precision", "ieee")]


def _exact() -> Callable[[], None]:
    cudnn = torch.backends.cudnn
    return _set([*_precisions(), (cudnn, "deterministic", True), (cudnn, "benchmark", False)])


def _plain() -> Callable[[], None]:
    libraries = torch.backends.mkldnn, torch.backends.cudnn
    return _set([(library, "enabled", False) for library in libraries])


_EXACT = Switch(_exact)


def exact(device: torch.device) -> AbstractContextManager[None]:
    """Inside, float32 is float32 on CUDA, and the same input gives the same bytes on one card.

    PyTorch as it comes rounds to TF32 for convolutions, whose mantissa has 10 bits; who wants speed
    at such a price has bfloat16. cuDNN's algorithms are those that are deterministic, and are not
    chosen by a race.
    """
    return _EXACT if is_cuda(device) else nullcontext()


def is_cuda(device: torch.device) -> bool:
    return device.type == "cuda"


def uses_tf32(device: torch.device) -> bool:
    """Whether convolutions on a device round to TF32, as they are run now."""
    if not is_cuda(device):
        return False
    owner, name, _ = _precisions()[0]
    return getattr(owner, name) in (True, "tf32")


PLAIN_CONVOLUTIONS = Switch(_plain)
"""Inside, convolutions go position by position: by Winograd or Fourier, NaN reaches neighbours."""
