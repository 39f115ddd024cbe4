"""On CUDA, what takes PyTorch many kernels in one each, where Triton is there to compile them.

Triton comes with PyTorch's builds for CUDA on Linux. Where it is not there, or fails, PyTorch does
the same. Nothing of it is imported for another device.
"""

from __future__ import annotations

import functools
import importlib
import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from phosphene.runtime.memory import out_of_memory

# Values from which on positions, with those of a last program's that are none, leave 32 bits.
MOST_VALUES = 2**31 - 2**16

log = logging.getLogger("phosphene")


@functools.cache
def kernels() -> Any:
    """`triton_kernels`, or None without Triton."""
    try:
        return importlib.import_module("phosphene.runtime.triton_kernels")
    except Exception as error:  # it looks for a compiler and a driver as it is loaded
        log.debug("preprocessing and blurs without Triton: %s", error)
        return None


def takes(values: Tensor) -> bool:
    """Whether there are kernels for values, once they are contiguous."""
    return (
        _runs_on(values.device)
        and values.dtype == torch.float32
        and 0 < values.numel() < MOST_VALUES
        and kernels() is not None
    )


def _runs_on(device: torch.device) -> bool:
    return device.type == "cuda"


def _ran(name: str, like: Tensor, *given: Any) -> bool:
    """Run a kernel where a tensor lies. False where it fails: PyTorch does it from then on."""
    if name in _FAILED:
        return False
    # A launch is no operation of PyTorch's; by this one, which does nothing, whoever watches those
    # sees what is read. So a CUDA graph holds it.
    seen = [one.detach() if isinstance(one, Tensor) else one for one in given]
    try:
        with _on(like.device):
            getattr(kernels(), name)(*seen)
    except Exception as error:  # of a compiler, of any kind
        if out_of_memory(error) or _is_capturing(like.device):  # which may have been broken off
            raise
        _FAILED.add(name)
        log.debug("%s without Triton, which fails: %s", name, error)
        return False
    return True


_FAILED: set[str] = set()


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Inside, a device is the one in use: Triton starts kernels on that."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _is_capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def blurred_along(planes: Tensor, axis: int, sigma: float, radius: int, into: Tensor) -> bool:
    """Blur `(N, 1, H, W)` along an axis, edges repeated; False where PyTorch has to do it.

    into: contiguous.
    """
    if not takes(planes):
        return False
    return _ran("blur_along", planes, planes.contiguous(), axis, sigma, radius, into)


def preprocessed(image: Tensor, shift: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """(image - shift) / scale in a type, channels last; differentiable once.

    Args:
        image: `(N, C, H, W)`, which `takes` takes; it is laid out anew if it is not contiguous.
        shift: `C` numbers, in the type of the image and where it is.
        scale: The same.
        dtype: Of the values.
    """
    found: Any = _Preprocess.apply(image, shift, scale, dtype)
    return found


class _Preprocess(torch.autograd.Function):
    """Without a roll, though that would be free here: its px are numbers of the processor's, which
    a CUDA graph around an evaluation would keep for good."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, shift: Tensor, scale: Tensor, dtype: torch.dtype) -> Any:
        ctx.save_for_backward(scale)
        layout = torch.channels_last
        into = torch.empty(image.shape, dtype=dtype, device=image.device, memory_format=layout)
        if _ran("preprocess", image, image.contiguous(), shift, scale, into):
            return into
        return into.copy_((image - shift) / scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (scale,) = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        into = torch.empty(grad.shape, dtype=torch.float32, device=grad.device)
        if not _ran("preprocess_backward", grad, grad, scale, into):
            torch.div(grad, scale, out=into)
        return into, None, None, None
