"""Programs of graphs: which operations stand for which nodes, and how they hang together."""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from phosphene.runtime.convolutions import CuDNN, Library, OneDNN, Pair
from phosphene.runtime.graph import outputs_of
from phosphene.runtime.operations import (
    AutogradOperation,
    AveragePool,
    Concatenation,
    Convolution,
    Identity,
    MaxPool,
    Operation,
    ParallelConvolutions,
    PooledConvolution,
    ReLU,
    Sum,
    UnfitError,
)
from phosphene.runtime.pooling import LAST
from phosphene.runtime.program import Instruction, ParallelGroup, Program

# An operation, the nodes that it takes from, and the one whose value it gives.
Lowered = tuple[Operation, tuple[fx.Node, ...], fx.Node]


def available() -> bool:
    """Whether this build of PyTorch has what programs for the processor are lowered of."""
    return OneDNN.is_available()


def library_for(device: torch.device) -> Library:
    """What convolves on a device.

    Raises:
        UnfitError: There is nothing that programs are lowered of.
    """
    if device.type == "cpu" and available():
        return OneDNN()
    if device.type == "cuda" and CuDNN.is_available():
        return CuDNN()
    raise UnfitError(f"PyTorch without oneDNN or cuDNN for {device.type}")


def lower(cut: fx.GraphModule, library: Library | None = None) -> Program:
    """The program of a folded graph that gives `{layer: activation}`, of all that the graph takes.

    Args:
        cut: Its weights are in float32 or bfloat16, on the device of the library.
        library: What convolves; the processor's if none is named.

    Raises:
        UnfitError: There is none.
    """
    if library is None:
        library = library_for(torch.device("cpu"))
    modules: dict[str, nn.Module] = dict(cut.named_modules())
    nodes = list(cut.graph.nodes)
    outputs = outputs_of(cut)
    captured = set(outputs.values())
    constants: dict[fx.Node, Any] = {}
    taken = [node for node in nodes if node.op == "placeholder"]
    values = [*taken]  # and all results
    lowered: list[Lowered] = []
    done_by_convolution: dict[fx.Node, fx.Node] = {}  # a ReLU -> the convolution that does it
    for node in nodes:
        if node.op in ("output", "placeholder"):
            continue
        if node.op == "get_attr":
            constants[node] = operator.attrgetter(str(node.target))(cut)
        elif node in done_by_convolution:
            continue
        else:
            operation, inputs = _operation(node, modules, constants, library)
            result = node
            after = _relu_after(node, modules)
            if isinstance(operation, Convolution) and after and node not in captured:
                operation = replace(operation, relu=True)
                done_by_convolution[after] = node
                result = after
            if any(i not in values for i in inputs):
                raise UnfitError(f"{node} works on something besides what is taken")
            position = len(lowered)
            if library.by_rows and lowered and _joins(lowered[-1], operation, inputs, captured):
                pool: Any
                pool, inputs, _ = lowered.pop()
                values.pop()
                operation = PooledConvolution(pool, operation)
                # First of what sees that map, so that its gradient can be added to theirs.
                position = max(0, values.index(inputs[0]) + 1 - len(taken))
            lowered.insert(position, (operation, inputs, result))
            values.insert(len(taken) + position, result)
    for operation, *_ in lowered:
        last = operation.convolution if isinstance(operation, PooledConvolution) else operation
        if isinstance(last, Convolution) and not last.weight.isfinite().all():
            raise UnfitError("weights that are not finite, of which a fused ReLU would make 0")
    numbers = {node: number for number, node in enumerate(values)}
    if not lowered or any(node not in numbers for node in captured):
        raise UnfitError("a layer that does not depend on what is taken")
    wanted = {layer: numbers[node] for layer, node in outputs.items()}
    return _link(lowered, numbers, wanted, len(taken), lone=library.turned_round)


def _joins(
    before: Lowered,
    operation: Operation,
    inputs: tuple[fx.Node, ...],
    captured: set[fx.Node],
) -> bool:
    """Whether an operation and the one before it are a `PooledConvolution`."""
    pool, _, between = before
    return (
        isinstance(pool, MaxPool)
        and isinstance(operation, Convolution)
        and inputs == (between,)
        and len(between.users) == 1
        and between not in captured
        and pool.arguments[1] == [1, 1]
        and operation.weight.shape[2:] == (1, 1)
        and operation.stride == (1, 1)
        and operation.padding == (0, 0)
        and operation.groups == 1
    )


def _link(
    lowered: list[Lowered],
    numbers: dict[fx.Node, int],
    outputs: dict[str, int],
    taken: int,
    *,
    lone: bool,
) -> Program:
    """lone: a convolution that is alike no other is a group of its own."""
    uses: dict[int, list[int]] = {}
    for index, (_, inputs, _) in enumerate(lowered):
        for node in inputs:
            uses.setdefault(numbers[node], []).append(index)
    wanted = set(outputs.values())
    instructions = []
    for index, operation in enumerate(_resolved(lowered, numbers, uses, wanted, taken)):
        _, inputs, result = lowered[index]
        takes = tuple(numbers[node] for node in inputs)
        last_uses = tuple(
            n for n in dict.fromkeys(takes) if uses[n][-1] == index and n not in wanted
        )
        if numbers[result] not in uses and numbers[result] not in wanted:
            raise UnfitError("an operation that nothing uses")
        instructions.append(Instruction(operation, takes, numbers[result], last_uses))
    alike: dict[object, list[int]] = {}
    for index, instruction in enumerate(instructions):
        if isinstance(instruction.operation, Convolution):
            key = instruction.operation.parallel_key
            if key is not None:
                alike.setdefault((instruction.inputs[0], key), []).append(index)
    parallel: dict[int, ParallelGroup] = {}
    for indices in alike.values():
        if len(indices) == 1 and not lone:
            continue
        members = tuple(instructions[index].operation for index in indices)
        starts, channels = [], 0
        for member in members:
            starts.append(channels)
            channels += len(member.weight)
        group = ParallelGroup(ParallelConvolutions(members), tuple(indices), tuple(starts))
        parallel.update(dict.fromkeys(indices, group))
    return Program(tuple(instructions), outputs, parallel, taken)


def _resolved(
    lowered: Sequence[Lowered],
    numbers: dict[fx.Node, int],
    uses: dict[int, list[int]],
    wanted: set[int],
    taken: int,
) -> list[Any]:
    """The operations, which now know what they are given and who sees to the gradients of ReLUs.

    What is nowhere below 0 comes of ReLUs, and where it is 0 none of them lets a gradient pass. So
    a ReLU that only a concatenation or a max-pooling sees leaves its part to that, which does it
    for all in one go, or for as many values as windows. Of what is taken nothing is known.
    """
    operations: list[Any] = []
    nonnegative: set[int] = set()
    for index, (found, inputs, result) in enumerate(lowered):
        operation: Any = found
        given = [numbers[node] for node in inputs]
        if isinstance(operation, PooledConvolution) and nonnegative.issuperset(given):
            operation = replace(operation, pool=replace(operation.pool, nonnegative=True))
        if isinstance(operation, ReLU) or getattr(operation, "relu", False):
            operation = replace(operation, gated=True)
            nonnegative.add(numbers[result])
        elif nonnegative.issuperset(given):
            if isinstance(operation, MaxPool):
                operation = replace(operation, nonnegative=True)
            if isinstance(operation, (MaxPool, Concatenation)):
                for number in given:
                    before = operations[number - taken]
                    alone = uses[number] == [index] and number not in wanted
                    if alone and getattr(before, "gated", False):
                        operations[number - taken] = replace(before, gated=False)
                        operation = replace(operation, gated=True)
            if isinstance(operation, (MaxPool, AveragePool, Concatenation, Identity, Sum)):
                nonnegative.add(numbers[result])
        operations.append(operation)
    return operations


def _is_relu(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return type(modules[str(node.target)]) is nn.ReLU
    if node.op == "call_function":
        return node.target in (F.relu, F.relu_, torch.relu, torch.relu_)
    return node.op == "call_method" and node.target in ("relu", "relu_")


def _relu_after(node: fx.Node, modules: dict[str, nn.Module]) -> fx.Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 and _is_relu(users[0], modules) else None


def _operation(
    node: fx.Node,
    modules: dict[str, nn.Module],
    constants: dict[fx.Node, Any],
    library: Library,
) -> tuple[Any, tuple[fx.Node, ...]]:
    """The operation of a node, and the nodes that it takes from."""
    module = modules[str(node.target)] if node.op == "call_module" else None
    one = tuple(node.all_input_nodes)
    if len(one) == 1 and one[0] not in constants:
        if _is_plain_convolution(module):
            return _convolution(module, library), one
        if _is_relu(node, modules):
            return ReLU(), one
        if (arguments := _max_pool_arguments(node, module)) is not None:
            return MaxPool(arguments), one
        if (kernel := _average_kernel(node, module)) is not None:
            return AveragePool(kernel), one
        if isinstance(module, (nn.Identity, nn.Dropout, nn.Dropout2d)):
            return Identity(), one
        if node.target is F.dropout and not node.kwargs.get("training", True):
            return Identity(), one
    if node.target is torch.cat and not set(one) & set(constants):
        parts, axis = node.args[0], node.kwargs.get("dim", (*node.args, 0, 0)[1])
        if isinstance(parts, (tuple, list)) and axis == 1:
            return Concatenation(), tuple(parts)  # pyright: ignore[reportReturnType]
    adds = node.target in (operator.add, operator.iadd, torch.add) and not node.kwargs
    if adds and all(isinstance(a, fx.Node) and a not in constants for a in node.args):
        return Sum(), tuple(node.args)  # pyright: ignore[reportReturnType]
    return _by_autograd(node, module, constants)


def _is_plain_convolution(module: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    return (
        type(module) is nn.Conv2d
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _convolution(module: nn.Conv2d, library: Library) -> Convolution:
    def pair(value: Any) -> Pair:
        return (value, value) if isinstance(value, int) else (value[0], value[1])

    return Convolution(
        module.weight.detach().contiguous(memory_format=LAST),
        None if module.bias is None else module.bias.detach(),
        pair(module.stride),
        pair(module.padding),
        pair(module.dilation),
        module.groups,
        library,
    )


def _max_pool_arguments(node: fx.Node, module: nn.Module | None) -> tuple[Any, ...] | None:
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    if type(module) is nn.MaxPool2d:
        if module.return_indices:
            return None
        given = {name: getattr(module, name) for name in names}
    elif node.target in (F.max_pool2d, torch.max_pool2d):
        if len(node.args) > 6 or node.kwargs.get("return_indices"):
            return None
        # fx sees the function that decides whether to return indices, with all of its arguments.
        given = dict(zip(names, node.args[1:], strict=False))
        given |= {k: v for k, v in node.kwargs.items() if k in names}
    else:
        return None

    kernel = _pair(given["kernel_size"])
    stride = given.get("stride") or kernel
    return (
        kernel,
        _pair(stride),
        _pair(given.get("padding", 0)),
        _pair(given.get("dilation", 1)),
        bool(given.get("ceil_mode", False)),
    )


def _average_kernel(node: fx.Node, module: nn.Module | None) -> list[int] | None:
    """The kernel of an average-pooling that `AveragePool` does."""
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
    if type(module) is nn.AvgPool2d:
        given = {name: getattr(module, name) for name in (*names, "divisor_override")}
    elif node.target is F.avg_pool2d and len(node.args) <= 6:
        given = dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)
    else:
        return None
    kernel = _pair(given["kernel_size"])
    same = (
        _pair(given.get("stride") or kernel) == [1, 1]
        and all(side % 2 for side in kernel)
        and _pair(given.get("padding", 0)) == [side // 2 for side in kernel]
        and given.get("count_include_pad", True)
        and given.get("divisor_override") is None
    )
    return kernel if same else None


def _pair(value: Any) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * 2 if len(values) == 1 else values


def _by_autograd(
    node: fx.Node, module: nn.Module | None, constants: dict[fx.Node, Any]
) -> tuple[AutogradOperation, tuple[fx.Node, ...]]:
    inputs = tuple(i for i in node.all_input_nodes if i not in constants)
    if not inputs:
        raise UnfitError(f"{node} does not depend on what is taken")
    target: Any = node.target
    called = target if node.op == "call_method" else getattr(target, "__name__", "")
    if called.endswith("_") and not called.endswith("__"):
        raise UnfitError(f"{node} works in place on a value that others may want as it was")
    if getattr(module, "inplace", False):
        module = copy.copy(module)
        module.inplace = False  # pyright: ignore

    def call(values: Sequence[Tensor]) -> Any:
        here = constants | dict(zip(inputs, values, strict=True))
        args = map_arg(node.args, lambda n: here[n])
        kwargs = map_arg(node.kwargs, lambda n: here[n])
        if module is not None:
            return module(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        return target(*args, **kwargs)

    return AutogradOperation(call, getattr(module, "pointwise", False) is True), inputs
