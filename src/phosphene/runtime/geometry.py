"""Strides and receptive fields of a traced network's layers, by arithmetic along its graph.

Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks", 2019.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import fx, nn

from phosphene.runtime.graph import Traced


@dataclass(frozen=True)
class Geometry:
    """How a layer looks at the picture: px from one position to the next, px that one sees.

    None where a position sees the whole picture, or where nobody can tell.
    """

    stride: int | None
    field: int | None


_POINTWISE_MODULES = (
    nn.ReLU,
    nn.ReLU6,
    nn.SiLU,
    nn.GELU,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Sigmoid,
    nn.LeakyReLU,
    nn.ELU,
    nn.Dropout,
    nn.Dropout2d,
    nn.Identity,
    nn.BatchNorm2d,
    nn.LocalResponseNorm,
)
_POINTWISE_FUNCTIONS = {
    operator.add,
    operator.mul,
    operator.sub,
    operator.truediv,
    operator.iadd,
    operator.imul,
    operator.getitem,
    getattr,
    torch.cat,
    torch.add,
    torch.mul,
    torch.unsqueeze,
    torch.relu,
    F.relu,
    F.relu6,
    F.dropout,
    F.silu,
    F.hardswish,
}
_POINTWISE_METHODS = {"add", "add_", "mul", "mul_", "sub", "div", "relu", "relu_", "sigmoid",
                      "clamp", "contiguous", "clone", "float", "to"}  # fmt: skip
# What they are given after the image, in order.
_POOLS = {
    F.max_pool2d: ("kernel_size", "stride", "padding", "dilation"),
    torch.max_pool2d: ("kernel_size", "stride", "padding", "dilation"),
    F.avg_pool2d: ("kernel_size", "stride", "padding"),
}
_WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


class _View(NamedTuple):
    """What position i of a layer sees in one direction: px from `stride * i - left` to `+ right`.

    The two ends apart, since branches with even kernels are not centred on one another.
    """

    stride: int
    left: int | None
    right: int | None

    def through(self, kernel: int, step: int, padding: int, dilation: int) -> _View:
        """What a position sees after a sliding window over this."""
        if self.left is None or self.right is None:
            return _View(self.stride * step, None, None)
        reach = (kernel - 1) * dilation
        return _View(
            self.stride * step,
            self.left + padding * self.stride,
            self.right + (reach - padding) * self.stride,
        )


def _merged(views: list[_View | None]) -> _View | None:
    """What a position sees that takes from all of these; None is the whole picture."""
    known = [view for view in views if view is not None]
    if not known:
        return None
    stride = max(view.stride for view in known)
    lefts, rights = [s.left for s in known], [s.right for s in known]
    if len(known) < len(views) or None in lefts or None in rights:
        return _View(stride, None, None)
    return _View(
        stride, max(v for v in lefts if v is not None), max(v for v in rights if v is not None)
    )


def _window(node: fx.Node, module: nn.Module | None) -> dict[str, Any] | None:
    """Kernel, stride, padding and dilation of a sliding window, as they were given."""
    if isinstance(module, _WINDOWS):
        return {
            name: getattr(module, name, None)
            for name in ("kernel_size", "stride", "padding", "dilation")
        }
    if node.op == "call_function" and node.target in _POOLS:
        return dict(zip(_POOLS[node.target], node.args[1:], strict=False)) | node.kwargs
    return None


def _through_window(view: _View, window: Mapping[str, Any], axis: int) -> _View | None:
    def along(name: str, default: int) -> Any:
        value = window.get(name)
        if isinstance(value, (tuple, list)):
            value = value[axis if len(value) > 1 else 0] if value else None
        return default if value is None else value

    kernel, dilation = along("kernel_size", 0), along("dilation", 1)
    step, padding = along("stride", kernel), along("padding", 0)
    if padding in ("same", "valid"):
        padding = (kernel - 1) * dilation // 2 if padding == "same" else 0
    if not all(isinstance(value, int) for value in (kernel, step, padding, dilation)):
        return None  # computed from the picture
    return view.through(kernel, step, padding, dilation)


def geometry(traced: Traced) -> dict[str, Geometry]:
    """Stride and receptive field of every layer, by arithmetic along the graph.

    Of two directions that differ, the larger.
    """
    modules = dict(traced.module.named_modules())
    # One view a direction; None where a position sees the whole picture or nobody can tell.
    known: dict[fx.Node, tuple[_View | None, ...]] = {}
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            known[node] = (_View(1, 0, 0), _View(1, 0, 0))
            continue
        before = [known[i] for i in node.all_input_nodes if i in known]
        if not before:
            continue
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        window = _window(node, module)
        pointwise = (
            isinstance(module, _POINTWISE_MODULES)
            or (node.op == "call_function" and node.target in _POINTWISE_FUNCTIONS)
            or (node.op == "call_method" and node.target in _POINTWISE_METHODS)
        )
        views: list[_View | None] = []
        for axis in (0, 1):
            view = _merged([pair[axis] for pair in before])
            if view is not None and window is not None:
                view = _through_window(view, window, axis)
            elif not pointwise:
                view = None
            views.append(view)
        known[node] = tuple(views)
    return {
        layer: _geometry(known[node]) for layer, node in traced.outputs.items() if node in known
    }


def _geometry(views: tuple[_View | None, ...]) -> Geometry:
    strides = [None if view is None else view.stride for view in views]
    fields = [
        None if s is None or s.left is None or s.right is None else s.left + s.right + 1
        for s in views
    ]
    return Geometry(
        None if None in strides else max(s for s in strides if s is not None),
        None if None in fields else max(f for f in fields if f is not None),
    )
