"""The fast form of a network: traced, cut after the layers asked for, BatchNorm folded.

Everything here works on `torch.fx` graphs and may fail for a module that cannot be traced (control
flow that depends on values, say); `Network` then runs the module itself under hooks.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse


def first_of(output: object, kind: type) -> Any:
    """The first `kind` (a tensor, a proxy) in an output: tuple, dict and dataclass alike."""
    if isinstance(output, kind):
        return output
    parts: Iterable[object] = ()
    if isinstance(output, Mapping):
        parts = output.values()
    elif isinstance(output, (tuple, list)):
        parts = output
    elif is_dataclass(output):
        parts = (getattr(output, field.name) for field in fields(output))
    return next((found for part in parts if (found := first_of(part, kind)) is not None), None)


@dataclass(frozen=True)
class Traced:
    """A traced module: its graph, and the node that holds each layer's output."""

    module: nn.Module
    graph: fx.Graph
    outputs: dict[str, fx.Node]

    def cut(self, layers: Iterable[str]) -> fx.GraphModule:
        """A module that runs only what `layers` need and gives `{layer: activation}`."""
        graph, copies = fx.Graph(), {}
        graph.graph_copy(self.graph, copies)
        graph.output({layer: copies[self.outputs[layer]] for layer in layers})
        cut = fx.GraphModule(self.module, graph)
        cut.graph.eliminate_dead_code()
        cut.recompile()
        # Copies the weights, so what follows may change modules. A trace of its own, which it would
        # take, would take in what other threads run.
        cut = fuse(cut, no_trace=True)
        assert isinstance(cut, fx.GraphModule)
        _fold_preprocessing(cut)
        _set_in_place(cut)
        cut.delete_all_unused_submodules()
        cut.recompile()
        return cut.eval().requires_grad_(False)


# One trace at a time in a process: torch.fx replaces nn.Module's own methods while it traces, and
# what two traces put back in the wrong order would stay replaced. Whatever is found out about a
# network and kept is found out under it, too, so that threads do not do the same work beside each
# other.
LOCK = threading.RLock()


class _Tracer(fx.Tracer):
    """A tracer that remembers what every module call gave, and leaves other threads' calls alone.

    While it traces, every module of the process that is called anywhere comes by here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.outputs: dict[str, fx.Node] = {}
        self.thread = threading.get_ident()

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self.thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if threading.get_ident() != self.thread:
            return forward(*args, **kwargs)
        output = super().call_module(m, forward, args, kwargs)
        proxy = first_of(output, fx.Proxy)
        if proxy is not None:
            self.outputs[self.path_of_module(m)] = proxy.node  # of several calls the last counts
        return output


def trace(module: nn.Module) -> Traced:
    """Trace a module that takes one image; raises whatever tracing raises."""
    with LOCK:
        tracer = _Tracer()
        graph = tracer.trace(module)
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1:
        # Optional arguments of forward() become constants.
        for extra in inputs[1:]:
            if not extra.args:
                raise TypeError(f"forward() needs more than an image: {extra.target}")
            extra.replace_all_uses_with(extra.args[0])
            graph.erase_node(extra)
    for node in reversed(list(graph.nodes)):
        if node.op == "output":
            graph.erase_node(node)
    return Traced(module, graph, tracer.outputs)


class Affine(nn.Module):
    """x -> scale * x + shift, a number a channel each `(C,)`; x is `(N, C, H, W)`."""

    pointwise = True  # each position by itself

    def __init__(self, scale: torch.Tensor, shift: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale, shift = self.get_buffer("scale"), self.get_buffer("shift")
        width = x.shape[3]
        if x.is_contiguous(memory_format=torch.channels_last):
            # A row at a time: a few channels are too few for vectors.
            rows = x.permute(0, 2, 3, 1).flatten(2)
            done = torch.addcmul(shift.repeat(width), rows, scale.repeat(width))
            return done.unflatten(2, (width, -1)).permute(0, 3, 1, 2)
        return torch.addcmul(shift.view(-1, 1, 1), x, scale.view(-1, 1, 1))


# (H, W) of pictures to try on, and how strong they are: something that cuts off shows in one.
_PROBE_SIZES = ((5, 7), (11, 6))
_PROBE_STRENGTHS = (1e-2, 1e2, 1e6)


def _fold_preprocessing(cut: fx.GraphModule) -> None:
    """One operation for all that a network does to a picture's channels before it looks at them.

    torchvision's GoogLeNet and Inception-v3 take twelve to get from one normalisation to another.
    """
    modules = dict(cut.named_modules())
    nodes = list(cut.graph.nodes)
    (picture,) = (node for node in nodes if node.op == "placeholder")
    looks = (n for n in nodes if n.op == "call_module" and type(modules[n.target]) is nn.Conv2d)
    first = next(looks, None)
    if first is None or not isinstance(last := first.args[0], fx.Node):
        return
    before, more = {last}, [last]
    while more:
        new = {*more.pop().all_input_nodes} - before
        before |= new
        more += new
    used_inside = all({*node.users} <= before for node in before - {last})
    captured = any(node.op == "output" for node in last.users)
    if picture not in before or len(before) < 3 or not used_inside or captured:
        return
    channels: int = modules[first.target].in_channels  # pyright: ignore
    affine = _affine(cut, [node for node in nodes if node in before], channels)
    if affine is not None:
        weight: torch.Tensor = modules[first.target].weight  # pyright: ignore
        cut.add_module("preprocessing", affine.to(weight.device, weight.dtype))
        with cut.graph.inserting_after(last):
            last.replace_all_uses_with(cut.graph.call_module("preprocessing", (picture,)))
        cut.graph.eliminate_dead_code()


@torch.enable_grad()
def _affine(cut: fx.GraphModule, nodes: Sequence[fx.Node], channels: int) -> Affine | None:
    """What nodes do to a picture of so many channels, if that is all they do; tried on noise."""
    noise = torch.Generator().manual_seed(0)
    known: Affine | None = None
    for size in _PROBE_SIZES:
        blank = torch.zeros(1, channels, *size, dtype=torch.float64)
        strong = [s * torch.randn(blank.shape, generator=noise).double() for s in _PROBE_STRENGTHS]
        probe = torch.cat([blank, blank + 1, *strong]).requires_grad_()
        run = fx.Interpreter(cut)
        run.args_iter = iter([probe])
        try:
            for node in nodes:
                run.env[node] = run.run_node(node)
        except Exception:  # a module's own: it may want numbers of its own type
            return None
        found = run.env[nodes[-1]]
        if not isinstance(found, torch.Tensor) or found.shape != probe.shape:
            return None
        if known is None:
            shift = found[0, :, 0, 0].detach()
            known = Affine(found[1, :, 0, 0].detach() - shift, shift)
        expected = known(probe)
        # And it lets the gradient pass.
        if not found.requires_grad or not torch.allclose(found, expected, rtol=1e-9, atol=1e-9):
            return None
        grads = [torch.autograd.grad(y.sum(), probe)[0] for y in (found, expected)]
        if not torch.allclose(*grads, rtol=1e-9, atol=1e-9):
            return None
    return known


_IN_PLACE = {
    operator.iadd: operator.add,
    operator.imul: operator.mul,
    operator.isub: operator.sub,
}
_RELU = (nn.ReLU, nn.ReLU6)


def _set_in_place(cut: fx.GraphModule) -> None:
    """In-place where it saves a copy of a map, out of place where it would spoil a captured one."""
    modules = dict(cut.named_modules())
    (output,) = (node for node in cut.graph.nodes if node.op == "output")
    captured = set(output.all_input_nodes)
    users = {node: len(node.users) for node in cut.graph.nodes}
    allowed: dict[str, bool] = {}
    for node in cut.graph.nodes:
        if node.op == "call_function" and node.target in _IN_PLACE:
            node.target = _IN_PLACE[node.target]
        if "inplace" in node.kwargs:
            node.kwargs = {**node.kwargs, "inplace": False}
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if module is None or not hasattr(module, "inplace"):
            continue
        before = node.args[0] if node.args else None
        mine = (
            isinstance(before, fx.Node)
            and before.op == "call_module"
            and isinstance(modules.get(str(before.target)), (nn.Conv2d, nn.BatchNorm2d))
            and users[before] == 1
            and before not in captured
        )
        # A convolution's backward does not need its output, so ReLU may overwrite it. A module
        # used several times does so only if it may every time.
        may = mine and isinstance(module, _RELU) and allowed.get(str(node.target), True)
        allowed[str(node.target)] = may
        module.inplace = may  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
