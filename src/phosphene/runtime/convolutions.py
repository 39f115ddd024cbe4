"""Convolutions of frozen weights, as a library of the device does them: oneDNN or cuDNN.

What differs between devices in a program lies here: which call does a convolution with its ReLU,
which gives its gradient, and how weights are laid out for them.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene.runtime.autograd import convolution_input_gradient
from phosphene.runtime.pooling import LAST, output_side

Pair = tuple[int, int]

# A strided convolution of so few channels has a slow gradient of its own: that of the picture.
STEM_CHANNELS = 4
# Values of a map from which on a position in it is no number of 32 bits.
MOST_VALUES = 2**31

log = logging.getLogger("phosphene")


class Geometry(NamedTuple):
    """Of a convolution."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1


class Convolver(Protocol):
    """A convolution of frozen weights, ready for maps `(N, C, H, W)` of any size, channels last."""

    def forward(self, x: Tensor) -> Tensor:
        """The convolution, with its bias, and its ReLU if it has one."""
        ...

    def forward_onto(self, x: Tensor, total: Tensor) -> Tensor:
        """`total` plus the convolution, which has no ReLU; `total` may be used up."""
        ...

    def input_gradient(self, grad: Tensor, shape: torch.Size) -> Tensor:
        """The gradient of an input of `shape`, from that before the ReLU."""
        ...


class Library(Protocol):
    """What makes convolvers.

    turned_round: a convolution with the weights turned round gives the gradient of one convolution
        faster than the library's own; that of several of one map it always gives.
    by_rows: a pooling before a 1×1 convolution can go some rows at a time.
    in_parts: an operation takes no longer where what it writes is a part of a map's channels.
    """

    turned_round: bool
    by_rows: bool
    in_parts: bool

    def convolver(
        self, weight: Tensor, bias: Tensor | None, geometry: Geometry, *, relu: bool = False
    ) -> Convolver: ...


# oneDNN, on the processor -------------------------------------------------------------------------


class OneDNN:
    """Convolution and ReLU in one call, weights laid out for the size of the map."""

    turned_round, by_rows, in_parts = True, True, False

    @staticmethod
    def is_available() -> bool:
        """Whether this build of PyTorch has what is called here."""
        return torch.backends.mkldnn.is_available() and all(
            hasattr(torch.ops.mkldnn, name)
            for name in (
                "_convolution_pointwise",
                "_convolution_pointwise_",
                "_reorder_convolution_weight",
            )
        )

    def convolver(
        self, weight: Tensor, bias: Tensor | None, geometry: Geometry, *, relu: bool = False
    ) -> Convolver:
        return _OneDNNConvolver(weight, bias, geometry, relu)


class PrepackedWeight:
    """A convolution's weight as oneDNN wants it for the size of map that came twice in a row.

    The layout changes with the size of the picture, and a wrong one costs more than laying weights
    out by the way.
    """

    def __init__(self, weight: Tensor, geometry: Geometry) -> None:
        stride, padding, dilation, groups = geometry
        self.weight, self.arguments = weight, (padding, stride, dilation, groups)
        # In one piece, as threads may share it: the size, and the weight once it came again.
        self.cached: tuple[torch.Size | None, Tensor | None] = (None, None)

    def for_size(self, size: torch.Size) -> Tensor:
        cached, packed = self.cached
        if size != cached:
            self.cached = (size, None)
            return self.weight
        if packed is None:
            reorder: Any = torch.ops.mkldnn._reorder_convolution_weight
            packed = reorder(self.weight, *self.arguments, list(size))
            self.cached = (size, packed)
        return packed


class _OneDNNConvolver:
    def __init__(self, weight: Tensor, bias: Tensor | None, geometry: Geometry, relu: bool) -> None:
        self.weight, self.bias, self.geometry = weight, bias, geometry
        self.after = "relu" if relu else "none"
        self.prepacked = PrepackedWeight(weight, geometry)

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._convolution_pointwise(*self._given(x), self.after, [], "")

    def forward_onto(self, x: Tensor, total: Tensor) -> Tensor:
        if not total.is_contiguous(memory_format=LAST):
            return self.forward(x).add_(total)
        add: Any = torch.ops.mkldnn._convolution_pointwise_.binary
        return add(total, *self._given(x), "add", 1.0, None, [], None)

    def _given(self, x: Tensor) -> tuple[Any, ...]:
        stride, padding, dilation, groups = self.geometry
        weight = self.prepacked.for_size(x.shape)
        return x, weight, self.bias, padding, stride, dilation, groups

    def input_gradient(self, grad: Tensor, shape: torch.Size) -> Tensor:
        if self.geometry.stride[0] > 1 and self._is_stem:
            return self._stem_gradient(grad, shape)
        return convolution_input_gradient(grad, shape, LAST, self.weight, *self.geometry)

    @property
    def _is_stem(self) -> bool:
        stride, padding, dilation, groups = self.geometry
        return (
            self.weight.shape[1] <= STEM_CHANNELS
            and groups == 1
            and dilation == (1, 1)
            and len({*stride}) == len({*padding}) == len({*self.weight.shape[2:]}) == 1
        )

    def _stem_gradient(self, grad: Tensor, shape: torch.Size) -> Tensor:
        """The gradient with respect to a picture under stride: a convolution gives all px of a
        stride's square as channels, and a shuffle lays them out."""
        step = self.geometry.stride[0]
        weight, first, last = self._shuffle_weight
        height, width = (-(-side // step) for side in shape[-2:])
        # One padding for both ends, enough for either; what is too much in front is left out.
        before = -first
        pad = [
            max(before, side - 1 + last - (given - 1), 0)
            for side, given in zip((height, width), grad.shape[-2:], strict=True)
        ]
        squares = torch.ops.mkldnn._convolution_pointwise(
            grad, weight, None, pad, [1, 1], [1, 1], 1, "none", [], ""
        )
        down, right = pad[0] - before, pad[1] - before
        squares = squares[..., down : down + height, right : right + width]
        return F.pixel_shuffle(squares, step)[..., : shape[-2], : shape[-1]]

    @functools.cached_property
    def _shuffle_weight(self) -> tuple[Tensor, int, int]:
        """Weights from outputs i + u, u from `first` to `last`, to the px of square i."""
        step, padding = self.geometry.stride[0], self.geometry.padding[0]
        kernel = self.weight.shape[2]
        # Output i takes px step * i - padding + k; so px step * i + a takes outputs i + u with
        # k = a + padding - step * u.
        first = -((kernel - 1 - padding) // step)
        last = (step - 1 + padding) // step
        span = last - first + 1
        taps = [
            (a, u - first, a + padding - step * u)
            for a in range(step)
            for u in range(first, last + 1)
            if 0 <= a + padding - step * u < kernel
        ]
        found = self.weight.new_zeros(
            self.weight.shape[1], step, step, len(self.weight), span, span
        )
        for a, u, k in taps:
            for b, v, m in taps:
                found[:, a, b, :, u, v] = self.weight[:, :, k, m].T
        return found.flatten(0, 2).contiguous(memory_format=LAST), first, last


# cuDNN, on CUDA -----------------------------------------------------------------------------------


class CuDNN:
    """Convolution, bias and ReLU in one call, where cuDNN has that.

    `torch.cudnn_convolution_relu` looks at what the process allows (TF32, no race between
    algorithms: `device.exact`) but for one thing: it never asks for algorithms that are
    deterministic. Forward ones are so, by NVIDIA's list of those that are not ("Odds and Ends",
    Reproducibility); gradients are PyTorch's own call, which does ask.

    Args:
        convolution_relu: What does it, with its arguments.
    """

    turned_round, by_rows, in_parts = False, False, True

    def __init__(self, convolution_relu: Callable[..., Tensor] | None = None) -> None:
        self.convolution_relu = convolution_relu or torch.cudnn_convolution_relu

    @staticmethod
    def is_available() -> bool:
        """Whether this build of PyTorch has it."""
        return torch.backends.cudnn.is_available()

    def convolver(
        self, weight: Tensor, bias: Tensor | None, geometry: Geometry, *, relu: bool = False
    ) -> Convolver:
        return _CuDNNConvolver(weight, bias, geometry, self.convolution_relu if relu else None)


class _CuDNNConvolver:
    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        geometry: Geometry,
        convolution_relu: Callable[..., Tensor] | None,
    ) -> None:
        self.weight, self.bias, self.geometry = weight, bias, geometry
        self.convolution_relu, self.has_relu = convolution_relu, convolution_relu is not None
        if convolution_relu and bias is None:
            self.bias = weight.new_zeros(len(weight))  # it would make some for each call

    def forward(self, x: Tensor) -> Tensor:
        refusal: RuntimeError | None = None
        convolution_relu = self.convolution_relu  # which another thread may give up meanwhile
        if convolution_relu and self._may_fuse(x):
            try:
                return convolution_relu(x, self.weight, self.bias, *self.geometry)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                # Of a lack of memory cuDNN may say the same: then there is none for what follows.
                refusal = error
        output = torch.conv2d(x, self.weight, self.bias, *self.geometry)
        if refusal:
            self.convolution_relu = None
            log.debug("a convolution of %s apart from its ReLU: %s", [*self.weight.shape], refusal)
        return output.relu_() if self.has_relu else output

    def _may_fuse(self, x: Tensor) -> bool:
        """Whether PyTorch, too, would take cuDNN for it: of groups it has kernels of its own, with
        large maps it knows what cuDNN cannot do, and maps that are too small it refuses in words
        of its own."""
        stride, padding, dilation, groups = self.geometry
        height, width = (
            output_side(side, d * (kernel - 1) + 1, s, p, ceil_mode=False)
            for side, kernel, s, p, d in zip(
                x.shape[2:], self.weight.shape[2:], stride, padding, dilation, strict=True
            )
        )
        values = len(x) * len(self.weight) * height * width
        return (
            groups == 1
            and torch.backends.cudnn.enabled
            and min(height, width) > 0
            and max(x.numel(), values) < MOST_VALUES
        )

    def forward_onto(self, x: Tensor, total: Tensor) -> Tensor:
        return total.add_(self.forward(x))

    def input_gradient(self, grad: Tensor, shape: torch.Size) -> Tensor:
        return convolution_input_gradient(grad, shape, LAST, self.weight, *self.geometry)
