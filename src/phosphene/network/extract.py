"""Activations of some layers of a module: under hooks, from its graph, or by a program.

The module itself under hooks is always right; a graph cut after the layers does less, and a program
(on the processor) is faster still. Which it is to be is decided once for some layers, and a faster
one is taken only if it answers as the module does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Protocol

import torch
from torch import Tensor, fx, nn

from phosphene.errors import NetworkError
from phosphene.network.layers import Layer, forward_hooks
from phosphene.runtime.autograd import MemoryEfficientAutograd
from phosphene.runtime.bands import Banded, banded
from phosphene.runtime.graph import Traced, first_of
from phosphene.runtime.lowering import lower
from phosphene.runtime.operations import UnfitError
from phosphene.runtime.options import DEFAULT, Options
from phosphene.runtime.program import Program

# How far a faster extractor's answers may be from the module's, relative to their length.
TOLERANCE = 1e-3
BF16_TOLERANCE = 0.05


class Extractor(Protocol):
    """Preprocessed values `(N, C, H, W)` -> `{layer: activation}`, differentiable."""

    def __call__(self, values: Tensor, options: Options = DEFAULT) -> dict[str, Tensor]: ...


class HookExtractor:
    """Runs the module itself under hooks, and stops when the last of the layers has answered."""

    def __init__(
        self, module: nn.Module, layers: Sequence[str], known: Mapping[str, Layer], name: str
    ) -> None:
        self.module, self.name = module, name
        self.calls = {layer: known[layer].calls for layer in layers}

    def __call__(self, values: Tensor, options: Options = DEFAULT) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        left = dict(self.calls)

        def note(name: str, output: object) -> None:
            answer = first_of(output, Tensor)
            if answer is None:
                return
            found[name] = answer
            left[name] -= 1
            if all(count <= 0 for count in left.values()):
                raise _ReachedError
            found[name] = answer.clone()  # what follows may work in place

        with (
            _autograd(options),
            forward_hooks(self.module, tuple(self.calls), note),
            suppress(_ReachedError),
        ):
            self.module(values)
        missing = [layer for layer in self.calls if layer not in found]
        if missing:
            raise NetworkError(f"{self.name} did not run {', '.join(missing)} for this picture")
        return found


class _ReachedError(BaseException):
    """Ends a forward pass early. Not an Exception, so that no module swallows it."""


class GraphExtractor:
    """Runs the network's graph, cut after the layers, operation by operation."""

    def __init__(self, cut: fx.GraphModule) -> None:
        self.cut = cut

    def __call__(self, values: Tensor, options: Options = DEFAULT) -> dict[str, Tensor]:
        with _autograd(options):
            return {name: first_of(found, Tensor) for name, found in self.cut(values).items()}


class ProgramExtractor:
    """Runs the cut graph's program; the graph where no program serves."""

    def __init__(self, program: Program | Banded, graph: GraphExtractor) -> None:
        self.program, self.graph = program, graph

    def __call__(self, values: Tensor, options: Options = DEFAULT) -> dict[str, Tensor]:
        if options.plain_modules:
            return self.graph(values, options)
        try:
            return self.program(values, options)
        except UnfitError:  # found only where a gradient is asked for
            return self.graph(values, options)


def _autograd(options: Options) -> AbstractContextManager[object]:
    """What PyTorch's own operations save, as the options have it; programs see to that."""
    return MemoryEfficientAutograd() if options.memory_efficient else nullcontext()


def choose_extractor(hooks: HookExtractor, traced: Traced | None, blank: Tensor) -> Extractor:
    """The fastest extractor of the layers of `hooks` that answers as the module does.

    Args:
        hooks: Runs the module itself.
        traced: The module, traced; None where it cannot be.
        blank: A picture `(1, C, H, W)` on the network's device, in its precision.
    """
    layers = tuple(hooks.calls)
    if traced is None or any(layer not in traced.outputs for layer in layers):
        return hooks
    try:
        cut = traced.cut(layers)
        cut = cut.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        noise = torch.Generator().manual_seed(0)
        probe = torch.randn(blank.shape, generator=noise).to(blank)
        with torch.no_grad():
            expected = hooks(probe)
    except Exception:  # a module's own, of any kind
        return hooks
    graph = GraphExtractor(cut)
    program = _program_of(cut, probe)
    if program is not None and _agrees(program, expected, probe):
        return ProgramExtractor(program, graph)
    return graph if _agrees(graph, expected, probe) else hooks


def _program_of(cut: fx.GraphModule, values: Tensor) -> Program | Banded | None:
    """The program that takes such values, if there is one."""
    if values.device.type != "cpu" or values.dtype == torch.float64:
        return None
    try:
        return banded(lower(cut))
    except UnfitError:
        return None


def _agrees(
    run: Callable[[Tensor], dict[str, Tensor]], expected: Mapping[str, Tensor], probe: Tensor
) -> bool:
    """Whether an extractor answers a probe as the module itself did."""
    try:
        with torch.no_grad():
            found = run(probe)
    except Exception:
        return False
    tolerance = BF16_TOLERANCE if probe.dtype == torch.bfloat16 else TOLERANCE
    for layer, answer in expected.items():
        reference = answer.float()
        if found[layer].shape != reference.shape:
            return False
        error = (found[layer].float() - reference).norm() / reference.norm().clamp_min(1e-12)
        if not float(error) <= tolerance:
            return False
    return True
