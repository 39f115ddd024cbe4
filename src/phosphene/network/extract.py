"""Activations of some layers of a module: under hooks, from its graph, or by a program.

The module itself under hooks is always right; a graph cut after the layers does less, and a program
(on the processor and on CUDA) is faster still. Which it is to be is decided once for some layers,
and a faster one is taken only if it answers as the module does. The graph is cut, folded and
checked in float32 on the processor, whatever it will run on: what is folded of rounded weights is
rounded twice.

All of them take values by name: `PICTURE` and the layers whose activations are given. On a graph
and in a program nothing is run that only those would need; under hooks the module is run, and what
it gives for them is replaced.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn

from phosphene.errors import NetworkError
from phosphene.network.layers import Layer, forward_hooks
from phosphene.runtime.autograd import MemoryEfficientAutograd
from phosphene.runtime.bands import Banded, banded
from phosphene.runtime.device import exact, layout_of
from phosphene.runtime.graph import (
    PICTURE,
    Traced,
    first_of,
    inputs_of,
    name_of,
    outputs_of,
    stages,
    with_first,
)
from phosphene.runtime.lowering import library_for, lower
from phosphene.runtime.memory import out_of_memory
from phosphene.runtime.operations import UnfitError
from phosphene.runtime.options import DEFAULT, Options
from phosphene.runtime.program import Program, options_for

log = logging.getLogger("phosphene")

# How far a faster extractor's answers may be from the module's, relative to their length.
TOLERANCE = 1e-3
BF16_TOLERANCE = 0.05

# Preprocessed pictures `(N, C, H, W)` as `PICTURE`, and activations of layers that are given.
Values = Mapping[str, Tensor]


class Extractor(Protocol):
    """Values -> `{layer: activation}`, differentiable.

    `inputs` are the values that the activations depend on; others may be left out. They come in the
    type of the network, or in `dtype`: then it is by way of this that one leads to another.
    """

    @property
    def inputs(self) -> Sequence[str]: ...

    def __call__(
        self, values: Values, options: Options = DEFAULT, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]: ...


class HookExtractor:
    """Runs the module itself under hooks, and stops when the last of the layers has answered.

    What is given for a layer takes the place of what its last call gives: that is run in vain, and
    no gradient goes into it. Without a picture the module is shown blank ones.

    Args:
        module: The module.
        layers: Whose activations it gives.
        known: What is known of the module's layers.
        name: What the module is called.
        blank: A picture `(1, C, H, W)` on the module's device, in its precision.
        given: Layers whose activations are given.
    """

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[str],
        known: Mapping[str, Layer],
        name: str,
        blank: Tensor,
        given: Sequence[str] = (),
    ) -> None:
        self.module, self.name, self.blank = module, name, blank
        self.calls = {layer: known[layer].calls for layer in layers}
        self.given = {layer: known[layer].calls for layer in given}
        self.given_shapes = {layer: known[layer].shape for layer in given}
        self.inputs: Sequence[str] = (PICTURE, *given)
        self.needed: Sequence[str] = ()  # of those given, once it is known
        # The graph cut after the layers and what the module answers to a probe, once it is known.
        self.checked: tuple[fx.GraphModule, dict[str, Tensor]] | None = None

    def __call__(
        self, values: Values, options: Options = DEFAULT, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        left = {**self.calls, **self.given}

        def note(name: str, output: object) -> object:
            answer: Tensor | None = first_of(output, Tensor)
            if answer is None:
                return None
            left[name] -= 1
            if name in self.given:
                last = left[name] == 0 and name in values
                return with_first(output, values[name].clone()) if last else None
            shown = found[name] = _as(answer, dtype)
            if all(left[layer] <= 0 for layer in self.calls):
                raise _ReachedError
            if options.linked:
                onward = shown.to(answer.dtype)
                # What follows may work in place.
                return with_first(output, onward.clone() if onward is answer else onward)
            if shown is answer:
                found[name] = answer.clone()
            return None

        with (
            _autograd(options),
            forward_hooks(self.module, tuple(left), note),
            suppress(_ReachedError),
        ):
            self.module(self._picture(values))
        missing = [layer for layer in self.calls if layer not in found]
        missing += [layer for layer in self.needed if left[layer] > 0]
        if missing:
            raise NetworkError(f"{self.name} did not run {', '.join(missing)} for this picture")
        return found

    def _picture(self, values: Values) -> Tensor:
        if PICTURE in values:
            return values[PICTURE]
        count = len(next(iter(values.values())))
        return self.blank.repeat(count, 1, 1, 1)


class _ReachedError(BaseException):
    """Ends a forward pass early. Not an Exception, so that no module swallows it."""


class GraphExtractor:
    """Runs a cut graph, operation by operation: in one, or linked, in stages.

    Args:
        cut: The graph.
        linked: Whether a gradient can be had between layers, in whatever type they come.
    """

    def __init__(self, cut: fx.GraphModule, *, linked: bool = False) -> None:
        self.inputs = inputs_of(cut)
        self.parts = stages(cut) if linked else [cut]
        self.takes = [inputs_of(part) for part in self.parts]
        self.taken = {name for names in self.takes for name in names}
        self.names = {
            layer: name_of(node) if linked else layer for layer, node in outputs_of(cut).items()
        }

    def __call__(
        self, values: Values, options: Options = DEFAULT, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        with _autograd(options):
            return self.through(self.parts, values, dtype)

    def through(
        self,
        parts: Sequence[Callable[..., Mapping[str, Any]]],
        values: Values,
        dtype: torch.dtype | None,
    ) -> dict[str, Tensor]:
        """The activations by way of `parts` that do what those of the graph do."""
        shown: dict[str, Tensor] = {}
        known = self._onward({name: values[name] for name in self.inputs}, shown, dtype)
        for part, takes in zip(parts, self.takes, strict=True):
            known |= self._onward(part(*(known[name] for name in takes)), shown, dtype)
        return {layer: shown[name] for layer, name in self.names.items()}

    def _onward(
        self, found: Mapping[str, Any], shown: dict[str, Tensor], dtype: torch.dtype | None
    ) -> dict[str, Any]:
        """The values to go on with. Those of layers come of what is shown, so gradients do too."""
        onward = {**found}
        for name in {*self.names.values()} & {*found}:
            answer: Tensor = first_of(found[name], Tensor)
            shown[name] = _as(answer, dtype)
            if shown[name] is not answer and name in self.taken:
                onward[name] = with_first(found[name], shown[name].to(answer.dtype))
        return onward


class ProgramExtractor:
    """Runs the programs of a cut graph's parts; the graph where no program serves."""

    def __init__(self, programs: Sequence[Program | Banded], graph: GraphExtractor) -> None:
        self.programs, self.graph, self.inputs = programs, graph, graph.inputs

    def __call__(
        self, values: Values, options: Options = DEFAULT, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        if options.plain_modules:
            return self.graph(values, options, dtype)
        # All parts pool as the first would.
        options = options_for([values[name] for name in self.inputs], options)
        programs = [functools.partial(program, options=options) for program in self.programs]
        try:
            return self.graph.through(programs, values, dtype)
        except UnfitError:  # found only where a gradient is asked for
            return self.graph(values, options, dtype)


def _as(answer: Tensor, dtype: torch.dtype | None) -> Tensor:
    return answer if dtype is None else answer.to(dtype)


def _autograd(options: Options) -> AbstractContextManager[object]:
    """What PyTorch's own operations save, as the options have it; programs see to that."""
    return MemoryEfficientAutograd() if options.memory_efficient else nullcontext()


def choose_extractor(
    hooks: HookExtractor,
    traced: Traced | None,
    *,
    linked: bool = False,
    reference: HookExtractor | None = None,
) -> Extractor:
    """The fastest extractor of the layers of `hooks` that answers as the module does.

    Args:
        hooks: Runs the module itself.
        traced: The module, or that of the reference, traced; None where it cannot be.
        linked: Whether a gradient between the layers will be asked for.
        reference: Runs the same module on the processor, and as precisely as is to be had. What is
            folded and checked there is then moved to where `hooks` are.

    Raises:
        Whatever says that memory ran out; what else goes wrong is a reason for hooks.
    """
    exacter = reference or hooks
    probe = _probe(exacter)
    layers, given = tuple(hooks.calls), tuple(hooks.given)
    try:
        if traced is None or any(layer not in traced.outputs for layer in (*layers, *given)):
            raise UnfitError("layers that are not in the graph")
        cut, expected = (
            _checked(exacter, traced, probe) if reference else _cut(hooks, traced, probe)
        )
        probe = {name: value.to(hooks.blank) for name, value in probe.items()}
        layout: Any = {"memory_format": layout_of(hooks.blank.device)}
        cut = cut.to(hooks.blank.device, hooks.blank.dtype, **layout)
        graph = GraphExtractor(cut, linked=linked)
    except Exception as error:  # a module's own, of any kind
        if out_of_memory(error):
            raise
        log.debug("%s is run layer by layer: %s", hooks.name, error)
        return _settled(hooks, {name: value.to(hooks.blank) for name, value in probe.items()})
    programs = [p for part in graph.parts if (p := _program_of(part, hooks.blank))]
    faster: list[Extractor] = [graph]
    if programs and len(programs) == len(graph.parts):
        faster = [ProgramExtractor(programs, graph), graph]
    for extractor in faster:
        if _agrees(extractor, expected, probe):
            return extractor
    # A network that strays in that precision may do so: as the module itself does there.
    if reference is not None and (there := _answers_of(hooks, probe)):
        for extractor in faster:
            if _agrees(extractor, there, probe):
                return extractor
    log.debug("%s is run layer by layer: its graph answers otherwise", hooks.name)
    return _settled(hooks, probe)


def _cut(
    exacter: HookExtractor, traced: Traced, probe: Values
) -> tuple[fx.GraphModule, dict[str, Tensor]]:
    """The graph cut after the layers of hooks, and what the module answers to a probe."""
    cut = traced.cut(tuple(exacter.calls), tuple(exacter.given))
    with torch.no_grad():
        return cut, exacter(probe)


def _checked(
    exacter: HookExtractor, traced: Traced, probe: Values
) -> tuple[fx.GraphModule, dict[str, Tensor]]:
    """The same, a graph that answers as the module does, to be moved. UnfitError if it does not.

    Found out once, for every precision that is to be tried where it goes.
    """
    if exacter.checked is None:
        cut, expected = _cut(exacter, traced, probe)
        if not _agrees(GraphExtractor(cut), expected, probe):
            raise UnfitError("a graph that answers otherwise than the module")
        exacter.checked = cut, expected
    cut, expected = exacter.checked
    return copy.deepcopy(cut), expected


def _answers_of(hooks: HookExtractor, probe: Values) -> dict[str, Tensor] | None:
    """What the module itself answers where it is, if it does there."""
    try:
        with torch.no_grad(), exact(probe[PICTURE].device):
            return hooks(probe)
    except Exception as error:  # a module's own, of any kind
        if out_of_memory(error):
            raise
        return None


def _probe(hooks: HookExtractor) -> Values:
    """Noise to try extractors on."""
    noise = torch.Generator().manual_seed(0)
    # Two of them show whether what is given is taken for the batch that it is.
    count = 2 if hooks.given else 1
    shapes = {PICTURE: hooks.blank.shape[1:], **hooks.given_shapes}
    return {
        name: torch.randn((count, *shape), generator=noise).to(hooks.blank)
        for name, shape in shapes.items()
    }


def _settled(hooks: HookExtractor, probe: Values) -> HookExtractor:
    """Hooks that know which values their layers depend on, if that can be found out."""
    if hooks.given:
        try:
            hooks.inputs = [name for name in probe if _depends(hooks, probe, name)]
            hooks.needed = [name for name in hooks.inputs if name != PICTURE]
        except Exception as error:  # a module's own, of any kind
            if out_of_memory(error):
                raise
    return hooks


def _depends(hooks: HookExtractor, probe: Values, name: str) -> bool:
    """Whether a gradient leads from the layers to a value, or they change with it."""
    with torch.enable_grad():
        leaf = probe[name].clone().requires_grad_()
        answers = hooks({**probe, name: leaf})
    if any(answer.requires_grad for answer in answers.values()):
        return True
    # Pictures of another size as well: something may be asked for in the size of the picture.
    larger = (*leaf.shape[:2], *(side + 32 for side in leaf.shape[2:]))
    noise = torch.Generator().manual_seed(1)
    for size in (larger, leaf.shape) if name == PICTURE else (leaf.shape,):
        with torch.no_grad(), suppress(Exception):  # a module's own: it may take one size only
            found = hooks({**probe, name: torch.randn(size, generator=noise).to(leaf)})
            if any(not torch.equal(found[layer], answers[layer]) for layer in answers):
                return True
    return False


def _program_of(part: fx.GraphModule, blank: Tensor) -> Program | Banded | None:
    """The program of a graph on the device and in the precision of a picture, if there is one."""
    if blank.dtype == torch.float64:
        return None
    try:
        program = lower(part, library_for(blank.device))
    except UnfitError:
        return None
    return banded(program) if inputs_of(part) == (PICTURE,) else program


def _agrees(extractor: Extractor, expected: Mapping[str, Tensor], probe: Values) -> bool:
    """Whether an extractor answers a probe as the module itself did, wherever that was."""
    try:
        with torch.no_grad(), exact(probe[PICTURE].device):
            found = extractor(probe)
    except Exception as error:  # a module's own, of any kind
        if out_of_memory(error):
            raise
        return False
    tolerance = BF16_TOLERANCE if probe[PICTURE].dtype == torch.bfloat16 else TOLERANCE
    for layer, answer in expected.items():
        reference = answer.float()
        if found[layer].shape != reference.shape:
            return False
        difference = (found[layer].float().to(reference.device) - reference).norm()
        error = difference / reference.norm().clamp_min(1e-12)
        if not float(error) <= tolerance:
            return False
    return True
