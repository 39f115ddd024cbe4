"""How much memory the gradient of an objective takes, measured."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from phosphene.evaluation.several import Objectives, each_of, gradient_of, joint, options_for
from phosphene.network import Network
from phosphene.runtime import bands
from phosphene.runtime.memory import peak_of
from phosphene.runtime.options import MEMORY_EFFICIENT, Options

_MEASURED: weakref.WeakKeyDictionary[Network, dict[Any, float]] = weakref.WeakKeyDictionary()


def bytes_per_pixel(
    network: Network,
    objective: Objectives,
    *,
    options: Options = MEMORY_EFFICIENT,
    banded: bool = False,
) -> float:
    """Bytes that the gradient of a bound objective takes at most, for each px of the picture.

    Measured once, on noise of 256 px a side or what the network needs: every tensor that lives at
    the same time as others, weights and the picture aside. On CUDA what convolutions work in, too.

    Args:
        network: What the objective is bound to.
        objective: A bound objective; or several, of one pass forward.
        options: How the network will be run.
        banded: Of pictures that are so large that a program goes over them in bands
            (`bands.BAND_PIXELS`); the noise is then as long as these.
    """
    # What is measured is not to depend on when Numba is there; PyTorch's pooling takes the most.
    options = replace(options_for(objective, options), numba_beside=False)
    if banded:
        options = replace(options, bands="always")
    measured = _MEASURED.setdefault(network, {})
    layers = joint(objective).layers
    key = (layers, *(goal.text for goal in each_of(objective)), options)
    if key not in measured:
        least = network.least_size(layers)
        # Many times the least, or what convolutions without padding cut off would count.
        side = -(-max(4 * least, 256) // 32) * 32
        # As long as the shortest that is cut into bands, or what is around these would count.
        long = max(side, math.isqrt(bands.BAND_PIXELS)) if banded else side
        dtype = torch.float64 if network.precision == "fp64" else torch.float32
        shape = (1, len(network.scale), long, side)
        image = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
        image = image.to(network.device).requires_grad_()

        def gradient(rows: int, columns: int) -> None:
            crop = image[..., :rows, :columns]
            with torch.enable_grad():
                answers = network.activations(crop, layers, options=options)
                scores = [goal.score(answers) for goal in each_of(objective)]
            for k, score in enumerate(scores, 1):
                if score.requires_grad:
                    gradient_of(score, crop, keep=k < len(scores))

        gradient(least, least)  # builds what stays
        measured[key] = peak_bytes(lambda: gradient(long, side), network.device) / (long * side)
    return measured[key]


def peak_bytes(run: Callable[[], object], device: str | torch.device = "cpu") -> int:
    """Bytes of the tensors that `run` makes and holds, when they are most.

    On CUDA what its allocator gave out, if that was more.
    """
    count = _LiveBytes()

    def counted() -> None:
        with count:
            run()

    allocated = peak_of(counted, device)
    return max(count.peak, allocated)


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that live, of those that were made within."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.storages: dict[int, weakref.ref[Any]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # To skip it PyTorch would import it: seconds, and 150 MiB of the memory that is measured.
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        inputs = {
            part.untyped_storage()._cdata
            for part in tree_leaves((args, kwargs))
            if isinstance(part, Tensor) and not part.is_mkldnn
        }
        result = func(*args, **(kwargs or {}))
        for part in tree_leaves(result):
            # A weight laid out for oneDNN has no storage to be seen, and stays.
            if isinstance(part, Tensor) and not part.is_mkldnn:
                storage = part.untyped_storage()
                key, size = storage._cdata, storage.nbytes()
                # What comes in and is not known was there before.
                if key not in self.storages and key not in inputs:
                    self.storages[key] = weakref.ref(
                        storage, lambda _, k=key, n=size: self._freed(k, n)
                    )
                    self.live += size
                    self.peak = max(self.peak, self.live)
        return result

    def _freed(self, key: int, size: int) -> None:
        if self.storages.pop(key, None) is not None:
            self.live -= size
