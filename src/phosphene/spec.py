"""Text → objective: `2*mixed4b + mixed4d:42,17 - 0.1*tv()`.

A text is parsed by a small grammar against the registered objectives and never evaluated. A bare
name is a layer, `name:42,17` are channels of it, `logits:dumbbell` is a class of the layer that
gives the logits, and `name(…)` is an objective of that name, with numbers, names, quoted strings
and lists of them as arguments. Weights stand on either side of `*`, and parentheses nest. A name
that holds more than letters, digits, `_`, `.` and `/`, or begins with a digit, goes in quotes,
single or double; a quote within is doubled.
"""

from __future__ import annotations

import functools
import inspect
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from phosphene.errors import ObjectiveError, suggest
from phosphene.objectives import (
    BARE_NAME,
    KEYWORDS,
    OBJECTIVES,
    Objective,
    Seer,
    channels,
    combine,
    layer,
    logit,
    value_text,
)

if TYPE_CHECKING:
    from lark import Lark, Token

GRAMMAR = (
    r"""
sum: product (("+" product) | minus)*
minus: "-" product
product: unary ("*" unary)*
?unary: "-" unary -> negated
      | "+" unary
      | atom
?atom: NUMBER -> weight
     | name -> whole
     | name ":" NUMBER ("," NUMBER)* -> picked
     | name ":" name -> named
     | NAME "(" [argument ("," argument)* ","?] ")" -> call
     | "(" sum ")"
name: NAME | STRING

argument: value | NAME "=" value -> keyword
?value: NUMBER -> number
      | "-" NUMBER -> negative
      | "+" NUMBER -> number
      | NAME -> word
      | STRING -> string
      | "[" [value ("," value)* ","?] "]" -> items

STRING: /"(?:[^"]|"")*"|'(?:[^']|'')*'/
NUMBER: /(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?/
%ignore /\s+/
NAME: /"""
    + BARE_NAME.replace("/", r"\/")
    + "/\n"
)

# What the parser's symbols are called in a message, in the order in which they are listed.
SYMBOLS = {
    "NAME": "a name",
    "STRING": "a quoted name",
    "NUMBER": "a number",
    "LPAR": '"("',
    "RPAR": '")"',
    "LSQB": '"["',
    "RSQB": '"]"',
    "PLUS": '"+"',
    "MINUS": '"-"',
    "STAR": '"*"',
    "COLON": '":"',
    "COMMA": '","',
    "EQUAL": '"="',
    "$END": "the end",
}


def parse(text: str) -> Objective:
    """The objective that a text describes; its own `text` is the same in canonical form.

    >>> parse("mixed4d:42 * 2 - .5 * (tv() + mixed4b)").text
    '2*mixed4d:42 - 0.5*tv() - 0.5*mixed4b'

    Raises ObjectiveError, in one line, with the place and what was expected there. Whether the
    network has the layers is known when the objective is bound to it.
    """
    from lark.exceptions import UnexpectedCharacters, UnexpectedToken

    if not text.strip():
        raise ObjectiveError(
            "the objective is empty; expected a text such as 2*mixed4b + mixed4d:42"
        )
    try:
        result: Any = _parser().parse(text)  # not the tree that lark's signature promises
        if isinstance(result, _Weight):
            raise _lonely(result)
        return result
    except _PlacedError as fault:
        raise ObjectiveError(_located(text, fault.position, str(fault))) from fault.__cause__
    except UnexpectedCharacters as error:
        place = error.pos_in_stream
        found = text[place]
        what = "this quote is not closed" if found in "\"'" else f"{found!r} means nothing here"
        raise ObjectiveError(_located(text, place, what)) from None
    except UnexpectedToken as error:
        place = len(text) if error.token.type == "$END" else error.token.start_pos or 0
        expected = [shown for symbol, shown in SYMBOLS.items() if symbol in error.accepts]
        # Nothing can follow a whole objective only when a parenthesis closes that none opened.
        what = f"expected {_either(expected)}" if expected else 'there is no "(" to this ")"'
        raise ObjectiveError(_located(text, place, what)) from None


def describe() -> list[tuple[str, str, str]]:
    """Each registered objective: its name, its signature, and one line on what it is."""
    return [
        (name, _signature_text(name), (inspect.getdoc(function) or "").partition("\n")[0])
        for name, function in OBJECTIVES.items()
    ]


class _PlacedError(Exception):
    """Something wrong, at a place in the text if known, on its way to become an ObjectiveError."""

    def __init__(self, position: int | None, message: str) -> None:
        super().__init__(message)
        self.position = position


@dataclass(frozen=True)
class _Weight:
    """A number where an objective may stand."""

    value: float
    position: int


@functools.cache
def _parser() -> Lark:
    import lark

    class Build(lark.Transformer):
        """What each rule of the grammar makes; the rules are reduced while the text is parsed."""

        def sum(self, parts: list[Objective | _Weight]) -> Objective | _Weight:
            if len(parts) == 1:
                return parts[0]
            for part in parts:
                if isinstance(part, _Weight):
                    raise _lonely(part)
            return combine((1.0, part) for part in parts if isinstance(part, Objective))

        def product(self, factors: list[Objective | _Weight]) -> Objective | _Weight:
            return functools.reduce(_times, factors)

        def negated(self, parts: list[Objective | _Weight]) -> Objective | _Weight:
            part = parts[0]
            return -part if isinstance(part, Objective) else _Weight(-part.value, part.position)

        minus = negated

        def weight(self, tokens: list[Token]) -> _Weight:
            return _Weight(float(_number(tokens[0])), tokens[0].start_pos or 0)

        def name(self, tokens: list[Token]) -> str:
            return _unquoted(tokens[0]) if tokens[0].type == "STRING" else str(tokens[0])

        def whole(self, names: list[str]) -> Objective:
            return layer(names[0])

        def picked(self, parts: list[Any]) -> Objective:
            name, *indices = parts
            for index in indices:
                if not isinstance(_number(index), int):
                    raise _PlacedError(index.start_pos, f"a channel is a whole number, not {index}")
            return channels(name, *map(int, indices))

        def named(self, parts: list[str]) -> Objective:
            return _class_of(*parts)

        def call(self, parts: list[Any]) -> Objective:
            return _called(parts[0], parts[1:])

        def argument(self, values: list[Any]) -> tuple[None, Any]:
            return None, values[0]

        def keyword(self, parts: list[Any]) -> tuple[Token, Any]:
            return parts[0], parts[1]

        def number(self, tokens: list[Token]) -> int | float:
            return _number(tokens[0])

        def negative(self, tokens: list[Token]) -> int | float:
            return -_number(tokens[0])

        def word(self, tokens: list[Token]) -> str | bool | None:
            return KEYWORDS.get(tokens[0].lower(), str(tokens[0]))

        def string(self, tokens: list[Token]) -> str:
            return _unquoted(tokens[0])

        def items(self, values: list[Any]) -> list[Any]:
            return values

    return lark.Lark(
        GRAMMAR, parser="lalr", start="sum", transformer=Build(), maybe_placeholders=False
    )


def _times(a: Objective | _Weight, b: Objective | _Weight) -> Objective | _Weight:
    if isinstance(a, _Weight):
        return _Weight(a.value * b.value, a.position) if isinstance(b, _Weight) else a.value * b
    if isinstance(b, _Weight):
        return b.value * a
    raise _PlacedError(None, f"{a.text} times {b.text}: only a number can weigh an objective")


def _class_of(name: str, which: str) -> Objective:
    """The channel of a class, by its name, of the layer that gives the logits."""
    score = logit(which)

    def bind(network: Seer) -> Objective:
        real = network.resolve(name)
        if real != network.logits_layer:
            count = network.layers[real].channels
            raise ObjectiveError(
                f"{name}:{which}: only {network.logits_layer} of {network.name} has classes by "
                f"name; {name} has channels by number" + (f", 0 to {count - 1}" if count else "")
            )
        return score

    text = f"{layer(name).text}:{layer(which).text}"
    return replace(score, layers=(name,), text=text, bind=bind)


def _called(name: Token, arguments: list[tuple[Token | None, Any]]) -> Objective:
    position = name.start_pos or 0
    if name not in OBJECTIVES:
        raise _PlacedError(
            position, f"there is no objective {str(name)!r}{suggest(name, OBJECTIVES)}"
        )
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for keyword, value in arguments:
        if keyword is None:
            if keywords:
                raise _PlacedError(position, f"{name}: arguments without a name come first")
            positional.append(value)
        elif keyword in keywords:
            raise _PlacedError(keyword.start_pos or 0, f"{name}: {keyword} is given twice")
        else:
            keywords[str(keyword)] = value
    function = OBJECTIVES[name]
    try:
        inspect.signature(function).bind(*positional, **keywords)
        return function(*positional, **keywords)
    except ObjectiveError as error:
        raise _PlacedError(position, str(error)) from error
    except (TypeError, ValueError) as error:
        raise _PlacedError(position, f"{error}; it is {_signature_text(name)}") from error


def _number(token: Token) -> int | float:
    if token.isdecimal() and len(token) < 18:
        return int(token)
    number = float(token)
    if not math.isfinite(number):
        raise _PlacedError(token.start_pos, f"{token[:20]} is too large a number")
    return number


def _unquoted(token: str) -> str:
    quote = token[0]
    return token[1:-1].replace(quote * 2, quote)


def _lonely(weight: _Weight) -> _PlacedError:
    return _PlacedError(
        weight.position,
        f"the number {weight.value:g} stands alone; a number weighs an objective, as in 2*mixed4b",
    )


def _located(text: str, position: int | None, what: str) -> str:
    def line(part: str) -> str:
        return " ".join(part.split())

    if position is None:
        return f"cannot read the objective {line(text)!r}: {what}"
    start, end = max(0, position - 60), position + 60
    shown = "…" * (start > 0) + text[start:end] + "…" * (end < len(text))
    near = line(text[position : position + 12])
    place = f"at character {position + 1}, near {near!r}" if near else "at the end"
    return f"cannot read the objective {line(shown)!r} {place}: {what}"


def _either(choices: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(choices[:-1]), choices[-1]]))


def _signature_text(name: str) -> str:
    """As a text calls it: `layer(name, norm="mean_square", margin=0)`."""
    parts = []
    for parameter in inspect.signature(OBJECTIVES[name]).parameters.values():
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        default = (
            "" if parameter.default is parameter.empty else f"={value_text(parameter.default)}"
        )
        parts.append(f"{star}{parameter.name}{default}")
    return f"{name}({', '.join(parts)})"
