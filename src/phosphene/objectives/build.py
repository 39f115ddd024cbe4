"""Tree → `Objective`, through the registered functions; and the pictures that a tree names.

Importing this registers the built-in objectives.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace

from phosphene.calls import signature_text
from phosphene.errors import ObjectiveError, suggest
from phosphene.objectives import reference as reference  # registers
from phosphene.objectives.algebra import NetworkLike, Objective, combine
from phosphene.objectives.registry import OBJECTIVES as OBJECTIVES
from phosphene.objectives.registry import argument_text, picture_parameters
from phosphene.objectives.registry import objective as objective
from phosphene.objectives.text import (
    Call,
    Channels,
    Class,
    Tree,
    Unit,
    Value,
    Whole,
    located,
    parse_tree,
    quoted,
)
from phosphene.objectives.units import channels, layer, logit


def parse(text: str) -> Objective:
    """The objective that a text describes; its own `text` is the same in canonical form.

    >>> parse("mixed4d:42 * 2 - .5 * (tv() + mixed4b)").text
    '2*mixed4d:42 - 0.5*tv() - 0.5*mixed4b'

    Whether the network has the layers is known when the objective is bound to it.

    Raises:
        ObjectiveError: in one line, with the place and what was expected there.
    """
    return build(parse_tree(text))


def build(tree: Tree) -> Objective:
    """The objective that a tree describes.

    Raises:
        ObjectiveError: no objective of a name, or arguments that it does not take.
    """
    terms = [(weight, _built(unit, tree)) for weight, unit in tree.terms]
    if len(terms) == 1 and terms[0][0] == 1:
        return terms[0][1]
    return combine(terms)


def _built(unit: Unit, tree: Tree) -> Objective:
    match unit:
        case Whole():
            return layer(unit.layer)
        case Channels():
            return channels(unit.layer, *unit.indices)
        case Class():
            return _class_of(unit.layer, unit.name)
        case Call():
            return _called(unit, tree)


def _class_of(name: str, which: str) -> Objective:
    """The channel of a class, by its name, of the layer that gives the logits."""
    score = logit(which)

    def bind(network: NetworkLike) -> Objective:
        real = network.resolve(name)
        if real != network.logits_layer:
            count = network.layers[real].channels
            raise ObjectiveError(
                f"{name}:{which}: only {network.logits_layer} of {network.name} has classes by "
                f"name; {name} has channels by number" + (f", 0 to {count - 1}" if count else "")
            )
        return score

    return replace(score, layers=(name,), text=Class(name, which).text, bind=bind)


def _called(call: Call, tree: Tree) -> Objective:
    function, arguments = _bound(call, tree)
    try:
        return function(*arguments.args, **arguments.kwargs)
    except ObjectiveError as error:
        raise _at(call, tree, str(error)) from error
    except (TypeError, ValueError) as error:
        raise _at(call, tree, f"{error}; it is {_signature_text(call.name)}") from error


def _bound(call: Call, tree: Tree) -> tuple[Callable[..., Objective], inspect.BoundArguments]:
    """The function that a call names, and its arguments by parameter; a list is a list again."""
    if not OBJECTIVES.known(call.name):
        message = f"there is no objective {call.name!r}{suggest(call.name, OBJECTIVES)}"
        raise _at(call, tree, message)
    function = OBJECTIVES[call.name]
    given = [_thawed(value) for value in call.arguments]
    named = {name: _thawed(value) for name, value in call.keywords}
    try:
        return function, inspect.signature(function).bind(*given, **named)
    except TypeError as error:
        raise _at(call, tree, f"{error}; it is {_signature_text(call.name)}") from error


def _thawed(value: Value) -> object:
    return [_thawed(item) for item in value] if isinstance(value, tuple) else value


def _at(call: Call, tree: Tree, message: str) -> ObjectiveError:
    if tree.source:
        return ObjectiveError(located(tree.source, call.position, message))
    return ObjectiveError(located(tree.text, None, message))


# The pictures that a text names


def picture_paths(objective: Objective | Tree) -> list[str]:
    """The paths of the pictures that an objective's text names, each once, in their order.

    What no text can say, such as a picture in memory, names none.

    Raises:
        ObjectiveError: of a tree: no objective of a name, or arguments that it does not take.
    """
    found: dict[str, None] = {}

    def noted(path: str) -> str:
        found[path] = None
        return path

    if isinstance(objective, Tree):
        _pictures_mapped(objective, noted)
        return list(found)
    for _, term in objective.terms or ((1.0, objective),):
        try:
            _pictures_mapped(parse_tree(term.text), noted)
        except ObjectiveError:
            continue
    return list(found)


def with_pictures(objective: Tree | str, names: Mapping[str, str]) -> str:
    """An objective's text with its pictures renamed; all else stays.

    Args:
        names: old path -> new; a picture that is not among them keeps its name.

    Raises:
        ObjectiveError: the text cannot be read and holds one of the names.
    """
    if not isinstance(objective, Tree):
        try:
            objective = parse_tree(objective)
        except ObjectiveError:
            # An objective that was made by hand may call itself anything.
            if any(name in objective or quoted(name) in objective for name in names):
                raise
            return objective
    return _pictures_mapped(objective, lambda path: names.get(path, path)).text


def _pictures_mapped(tree: Tree, change: Callable[[str], str]) -> Tree:
    """`tree` with each path of a picture changed."""
    terms = (
        (weight, _call_mapped(unit, tree, change) if isinstance(unit, Call) else unit)
        for weight, unit in tree.terms
    )
    return Tree(tuple(terms))


def _call_mapped(call: Call, tree: Tree, change: Callable[[str], str]) -> Call:
    function, _ = _bound(call, tree)
    pictures = picture_parameters(function)

    def changed(value: Value) -> Value:
        if isinstance(value, tuple):
            return tuple(map(changed, value))
        return change(value) if isinstance(value, str) else value

    parameters = inspect.signature(function).parameters.values()
    order = [p.name for p in parameters if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)]
    others = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
    own = {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
    # More arguments than parameters are all of the last, *names.
    places = [order[min(index, len(order) - 1)] for index in range(len(call.arguments))]
    arguments = (
        changed(value) if place in pictures else value
        for place, value in zip(places, call.arguments, strict=True)
    )
    keywords = (
        (name, changed(value) if (name if name in own else others) in pictures else value)
        for name, value in call.keywords
    )
    return replace(call, arguments=tuple(arguments), keywords=tuple(keywords))


# What there is


def describe() -> list[tuple[str, str, str]]:
    """Each registered objective: its name, its signature, and one line on what it is."""
    return [
        (name, _signature_text(name), (inspect.getdoc(function) or "").partition("\n")[0])
        for name, function in OBJECTIVES.items()
    ]


def _signature_text(name: str) -> str:
    return signature_text(name, OBJECTIVES[name], argument_text)
