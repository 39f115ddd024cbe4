"""The fast form of a network: traced, cut after the layers asked for, BatchNorm folded.

A cut may begin at layers whose activations are given; in stages it ends at one layer after the
other, so that a gradient can be had between them.

Everything here works on `torch.fx` graphs and may fail for a module that cannot be traced (control
flow that depends on values, say); `Network` then runs the module itself under hooks.
"""

from __future__ import annotations

import copy
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


def with_first(output: object, tensor: torch.Tensor) -> Any:
    """An output whose first tensor is another one; the output itself stays as it is.

    >>> with_first(("a", torch.zeros(2), [torch.zeros(1)]), torch.ones(1))
    ('a', tensor([1.]), [tensor([0.])])
    """
    if isinstance(output, torch.Tensor):
        return tensor
    parts: Iterable[tuple[Any, object]] = ()
    if isinstance(output, Mapping):
        parts = output.items()
    elif isinstance(output, (tuple, list)):
        parts = enumerate(output)
    elif is_dataclass(output):
        parts = ((part.name, getattr(output, part.name)) for part in fields(output))
    for key, part in parts:
        if first_of(part, torch.Tensor) is not None:
            return _with_part(output, key, with_first(part, tensor))
    raise TypeError(f"no tensor in {type(output).__name__}")


def _with_part(output: Any, key: Any, part: object) -> Any:
    if isinstance(output, tuple):
        parts = (*output[:key], part, *output[key + 1 :])
        # A named tuple is made of its parts one by one, PyTorch's own of them together.
        make: Any = getattr(output, "_make", type(output))
        return make(parts)
    changed: Any = copy.copy(output)
    if isinstance(output, (Mapping, list)):
        changed[key] = part
    else:
        object.__setattr__(changed, key, part)  # a dataclass, which may be frozen
    return changed


# What a cut graph calls the picture that goes in; no layer has that name.
PICTURE = "@picture"


def inputs_of(cut: fx.GraphModule) -> tuple[str, ...]:
    """What a cut graph takes, in order: `PICTURE`, layers that are given, values of a stage."""
    return tuple(node.meta["input"] for node in cut.graph.nodes if node.op == "placeholder")


def outputs_of(cut: fx.GraphModule) -> dict[str, fx.Node]:
    """The node of each thing that a cut graph gives."""
    (end,) = (node for node in cut.graph.nodes if node.op == "output")
    return end.args[0]


def _placeholder(graph: fx.Graph, name: str) -> fx.Node:
    """A placeholder for what `inputs_of` calls by a name, which need not be one of Python's."""
    node = graph.placeholder(f"input_{len(graph.nodes)}")
    node.meta["input"] = name
    return node


def _ancestors(ends: Iterable[fx.Node]) -> set[fx.Node]:
    """Some nodes, and all that they come of."""
    found, more = {*ends}, [*ends]
    while more:
        new = {*more.pop().all_input_nodes} - found
        found |= new
        more += new
    return found


def _erase_unneeded(graph: fx.Graph) -> None:
    """Erase what the output does not come of, such as checks of a picture that is not looked at."""
    (end,) = (node for node in graph.nodes if node.op == "output")
    needed = _ancestors([end])
    for node in reversed(list(graph.nodes)):
        if node not in needed:
            graph.erase_node(node)


@dataclass(frozen=True)
class Traced:
    """A traced module: its graph, and the node that holds each layer's output.

    Layers come in the order in which they were done; `ends` has the last node that was there when
    each of them was.
    """

    module: nn.Module
    graph: fx.Graph
    outputs: dict[str, fx.Node]
    ends: dict[str, fx.Node]

    def cut(self, layers: Sequence[str], given: Sequence[str] = ()) -> fx.GraphModule:
        """A module that runs only what `layers` need and gives `{layer: activation}`.

        It takes what `inputs_of` says: the picture, and those of `given` that something comes of;
        without the picture if that is not needed.
        """
        cut = fx.GraphModule(self.module, self._copied(layers, given))
        cut.graph.eliminate_dead_code()
        if given:
            _erase_unneeded(cut.graph)
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

    def _copied(self, layers: Sequence[str], given: Sequence[str]) -> fx.Graph:
        """The graph as far as `layers`; what is done after one of `given` takes what is given.

        A layer may give the very value of one inside it: that one, and what was done with the value
        before the outer layer was, see nothing of what is given for the outer one.
        """
        graph, found = fx.Graph(), dict[str, fx.Node]()
        picture = _placeholder(graph, PICTURE)
        placeholders = {layer: _placeholder(graph, layer) for layer in given}
        copies: dict[fx.Node, fx.Node] = {}
        nodes = iter(self.graph.nodes)
        for layer, result in self.outputs.items():
            while self.ends[layer] not in copies:
                node = next(nodes)
                is_picture = node.op == "placeholder"
                copies[node] = picture if is_picture else graph.node_copy(node, copies.__getitem__)
            if layer in placeholders:
                copies[result] = placeholders[layer]
            if layer in layers:
                found[layer] = copies[result]
        graph.output({layer: found[layer] for layer in layers})
        return graph


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
        self.ends: dict[str, fx.Node] = {}
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
            layer = self.path_of_module(m)
            self.outputs.pop(layer, None)  # of several calls the last counts, for the order too
            self.outputs[layer] = proxy.node
            self.ends[layer] = next(iter(reversed(self.graph.nodes)))
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
            for layer, end in tracer.ends.items():
                if end is extra:
                    tracer.ends[layer] = inputs[0]
    for node in reversed(list(graph.nodes)):
        if node.op == "output":
            graph.erase_node(node)
    return Traced(module, graph, tracer.outputs, tracer.ends)


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
    pictures = (n for n in nodes if n.op == "placeholder" and n.meta["input"] == PICTURE)
    looks = (n for n in nodes if n.op == "call_module" and type(modules[n.target]) is nn.Conv2d)
    picture, first = next(pictures, None), next(looks, None)
    if picture is None or first is None or not isinstance(last := first.args[0], fx.Node):
        return
    before = _ancestors([last])
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
        if found.dtype != probe.dtype:  # of a weight's
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
    captured = {*outputs_of(cut).values()}
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


# Stages -------------------------------------------------------------------------------------------


def stages(cut: fx.GraphModule) -> list[fx.GraphModule]:
    """A cut graph in parts, one after the other: each ends with one of the layers.

    What a part takes (`inputs_of`) was given, or by an earlier part; what it gives is called as
    `name_of` says. So between the parts is every layer that another one comes of, to be looked at,
    and to take the gradient with respect to it.
    """
    captured = {*outputs_of(cut).values()}
    needed = _ancestors(captured)
    nodes = [node for node in cut.graph.nodes if node in needed]
    done = {node for node in nodes if node.op == "placeholder"}
    found = []
    for end in nodes:
        if end in captured - done:
            new = _ancestors([end]) - done
            # Weights are not handed on: each part has those that it takes.
            done |= {node for node in new if node.op != "get_attr"}
            handed_on = captured | {node for node in new & done if {*node.users} & needed - new}
            found.append(_stage(cut, [node for node in nodes if node in new], handed_on))
    return found


def _stage(cut: fx.GraphModule, part: Sequence[fx.Node], handed_on: set[fx.Node]) -> fx.GraphModule:
    graph, inside = fx.Graph(), {*part}
    taken = dict.fromkeys(i for node in part for i in node.all_input_nodes if i not in inside)
    copies = {node: _placeholder(graph, name_of(node)) for node in taken}
    for node in part:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output({name_of(node): copies[node] for node in part if node in handed_on})
    return fx.GraphModule(cut, graph)


def name_of(node: fx.Node) -> str:
    """What the stages of a graph call the value of a node; an input as `inputs_of` does."""
    return node.meta["input"] if node.op == "placeholder" else f"%{node.name}"
