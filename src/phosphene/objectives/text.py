"""Text → tree: `2*mixed4b + mixed4d:42,17 - 0.1*tv()`, read without a network, torch or numpy.

A text is parsed by a small grammar and never evaluated. A bare name is a layer, `name:42,17` are
channels of it, `logits:dumbbell` is a class of the layer that gives the logits, and `name(…)` is an
objective of that name, with numbers, names, quoted strings and lists of them as arguments. Weights
stand on either side of `*`, and parentheses nest. A name that holds more than letters, digits, `_`,
`.` and `/`, or begins with a digit, goes in quotes, single or double; a quote within is doubled.

The tree is one flat sum of weighted terms. `phosphene.objectives.build` makes an `Objective` of it.
"""

from __future__ import annotations

import functools
import math
import numbers
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from phosphene.errors import ObjectiveError

if TYPE_CHECKING:
    from lark import Lark, Token


class Written(Protocol):
    """Something that a text can say."""

    @property
    def text(self) -> str: ...


T = TypeVar("T", bound=Written)

IMAGE = "@image"
"""The layer name that stands for the picture itself, `(N, 3, H, W)` in [0, 1]."""

LOGITS = "@logits"
"""The layer name that stands for whichever layer gives the network's logits."""

BARE_NAME = r"@?[A-Za-z_]\w*(?:[./]\w+)*"
"""A name that a text may hold without quotes: `features.30`, `inception_4c/output`."""

KEYWORDS: Mapping[str, bool | None] = {"true": True, "false": False, "none": None}
"""Words that are values, not names, as arguments in a text."""

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

Value = str | int | float | bool | None | tuple["Value", ...]
"""An argument of a call; a list is a tuple here, so that a tree is frozen through and through."""


# The tree


@dataclass(frozen=True)
class Whole:
    """All of a layer: `mixed4b`."""

    layer: str

    @property
    def text(self) -> str:
        return name_text(self.layer)


@dataclass(frozen=True)
class Channels:
    """Some channels of a layer: `mixed4d:42,17`."""

    layer: str
    indices: tuple[int, ...]

    @property
    def text(self) -> str:
        return f"{name_text(self.layer)}:{','.join(map(str, self.indices))}"


@dataclass(frozen=True)
class Class:
    """A class, by its name, of the layer that gives the logits: `logits:dumbbell`."""

    layer: str
    name: str

    @property
    def text(self) -> str:
        return f"{name_text(self.layer)}:{name_text(self.name)}"


@dataclass(frozen=True)
class Call:
    """A registered objective with its arguments: `guide(mixed4c, "flowers.jpg", by="dot")`.

    position: where it begins in the source, for messages.
    """

    name: str
    arguments: tuple[Value, ...] = ()
    keywords: tuple[tuple[str, Value], ...] = ()
    position: int = field(default=0, compare=False)

    @property
    def text(self) -> str:
        return call_text(self.name, self.arguments, self.keywords)


Unit = Whole | Channels | Class | Call


@dataclass(frozen=True)
class Tree:
    """What a text says: a sum of weighted units.

    terms: the weights and the units, at least one.
    source: the text that it was read from, for messages.
    """

    terms: tuple[tuple[float, Unit], ...]
    source: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        """The text in canonical form: weights multiplied out, quotes only where they must be.

        It is an `Objective`'s own `text` wherever that one was read. What only the signature of a
        registered function can tell (arguments that are defaults, a second name) stays as written.
        """
        return sum_text((weight, unit.text) for weight, unit in self.terms)


def flat_terms(
    parts: Iterable[tuple[float, Iterable[tuple[float, T]]]],
) -> tuple[tuple[float, T], ...]:
    """Weighted sums as one flat sum, which needs no parentheses.

    Raises:
        ObjectiveError: a weight that is not finite, or no term.
    """
    terms = tuple((float(weight) * own, term) for weight, part in parts for own, term in part)
    if not terms:
        raise ObjectiveError("a sum of objectives needs at least one")
    for weight, term in terms:
        if not math.isfinite(weight):
            raise ObjectiveError(f"the weight of {term.text} must be finite, got {weight}")
    return terms


# Writing


def quoted(string: str) -> str:
    """`string` as a text holds it: in double quotes, one within doubled.

    Backslashes stand for themselves, for the sake of paths on Windows.
    """
    return '"' + string.replace('"', '""') + '"'


def unquoted(text: str) -> str:
    """The string that quotes, double or single, stand around; what has none comes back as it is."""
    quote = text[:1]
    if len(text) > 1 and quote in "\"'" and text.endswith(quote):
        return text[1:-1].replace(quote * 2, quote)
    return text


def name_text(name: str) -> str:
    """A name as a text holds it: bare where it can be."""
    bare = re.fullmatch(BARE_NAME, name) and name.lower() not in KEYWORDS
    return name if bare else quoted(name)


def value_text(value: object) -> str:
    """An argument as a text holds it; what no text can say becomes `<its type>`."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, os.PathLike):
        return quoted(str(value))
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real):
        return repr(float(value))
    if isinstance(value, (list, tuple)):
        return items_text(value_text(item) for item in value)
    return f"<{type(value).__name__}>"


def items_text(items: Iterable[str]) -> str:
    return f"[{', '.join(items)}]"


def call_text(name: str, arguments: Sequence[Value], keywords: Iterable[tuple[str, Value]]) -> str:
    parts = [value_text(value) for value in arguments]
    if arguments and isinstance(arguments[0], str):
        parts[0] = name_text(arguments[0])  # nearly always the layer
    parts += [f"{key}={value_text(value)}" for key, value in keywords]
    return f"{name}({', '.join(parts)})"


def sum_text(terms: Iterable[tuple[float, str]]) -> str:
    """A weighted sum of texts."""
    text = ""
    for weight, term in terms:
        size = abs(weight)
        times = "" if size == 1 else f"{_number_text(size)}*"
        sign = (" - " if weight < 0 else " + ") if text else ("-" if weight < 0 else "")
        text += f"{sign}{times}{term}"
    return text


def _number_text(number: float) -> str:
    return str(int(number)) if number.is_integer() and number < 1e15 else repr(number)


# Reading


def parse_tree(text: str) -> Tree:
    """The tree of a text.

    >>> parse_tree("mixed4d:42 * 2 - .5 * (tv() + mixed4b)").text
    '2*mixed4d:42 - 0.5*tv() - 0.5*mixed4b'

    Whether there are objectives of its names is known when it is built, and whether a network has
    its layers when that is bound.

    Raises:
        ObjectiveError: in one line, with the place and what was expected there.
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
        return Tree(result, text)
    except PlacedError as fault:
        raise ObjectiveError(located(text, fault.position, str(fault))) from fault.__cause__
    except UnexpectedCharacters as error:
        place = error.pos_in_stream
        found = text[place]
        what = "this quote is not closed" if found in "\"'" else f"{found!r} means nothing here"
        raise ObjectiveError(located(text, place, what)) from None
    except UnexpectedToken as error:
        place = len(text) if error.token.type == "$END" else error.token.start_pos or 0
        expected = [shown for symbol, shown in SYMBOLS.items() if symbol in error.accepts]
        # Nothing can follow a whole objective only when a parenthesis closes that none opened.
        what = f"expected {_either(expected)}" if expected else 'there is no "(" to this ")"'
        raise ObjectiveError(located(text, place, what)) from None


def negate(text: str) -> str:
    """The text of minus an objective's text.

    >>> negate("2*mixed4b - tv()")
    '-2*mixed4b + tv()'

    Raises:
        ObjectiveError: as `parse_tree`.
    """
    return Tree(flat_terms([(-1.0, parse_tree(text).terms)])).text


class PlacedError(Exception):
    """Something wrong, at a place in the text if known, on its way to become an ObjectiveError."""

    def __init__(self, position: int | None, message: str) -> None:
        super().__init__(message)
        self.position = position


@dataclass(frozen=True)
class _Weight:
    """A number where an objective may stand."""

    value: float
    position: int


_Terms = tuple[tuple[float, Unit], ...]


@functools.cache
def _parser() -> Lark:
    import lark

    class Build(lark.Transformer):
        """What each rule of the grammar makes; the rules are reduced while the text is parsed."""

        def sum(self, parts: list[_Terms | _Weight]) -> _Terms | _Weight:
            if len(parts) == 1:
                return parts[0]
            for part in parts:
                if isinstance(part, _Weight):
                    raise _lonely(part)
            return flat_terms((1.0, part) for part in parts if not isinstance(part, _Weight))

        def product(self, factors: list[_Terms | _Weight]) -> _Terms | _Weight:
            return functools.reduce(_times, factors)

        def negated(self, parts: list[_Terms | _Weight]) -> _Terms | _Weight:
            part = parts[0]
            if isinstance(part, _Weight):
                return _Weight(-part.value, part.position)
            return flat_terms([(-1.0, part)])

        minus = negated

        def weight(self, tokens: list[Token]) -> _Weight:
            return _Weight(float(_number(tokens[0])), tokens[0].start_pos or 0)

        def name(self, tokens: list[Token]) -> str:
            return unquoted(tokens[0]) if tokens[0].type == "STRING" else str(tokens[0])

        def whole(self, names: list[str]) -> _Terms:
            return ((1.0, Whole(names[0])),)

        def picked(self, parts: list[Any]) -> _Terms:
            name, *indices = parts
            for index in indices:
                if not isinstance(_number(index), int):
                    raise PlacedError(index.start_pos, f"a channel is a whole number, not {index}")
            return ((1.0, Channels(name, tuple(map(int, indices)))),)

        def named(self, parts: list[str]) -> _Terms:
            return ((1.0, Class(*parts)),)

        def call(self, parts: list[Any]) -> _Terms:
            return ((1.0, _call(parts[0], parts[1:])),)

        def argument(self, values: list[Any]) -> tuple[None, Value]:
            return None, values[0]

        def keyword(self, parts: list[Any]) -> tuple[Token, Value]:
            return parts[0], parts[1]

        def number(self, tokens: list[Token]) -> int | float:
            return _number(tokens[0])

        def negative(self, tokens: list[Token]) -> int | float:
            return -_number(tokens[0])

        def word(self, tokens: list[Token]) -> str | bool | None:
            return KEYWORDS.get(tokens[0].lower(), str(tokens[0]))

        def string(self, tokens: list[Token]) -> str:
            return unquoted(tokens[0])

        def items(self, values: list[Value]) -> tuple[Value, ...]:
            return tuple(values)

    return lark.Lark(
        GRAMMAR, parser="lalr", start="sum", transformer=Build(), maybe_placeholders=False
    )


def _times(a: _Terms | _Weight, b: _Terms | _Weight) -> _Terms | _Weight:
    if isinstance(a, _Weight):
        if isinstance(b, _Weight):
            return _Weight(a.value * b.value, a.position)
        return flat_terms([(a.value, b)])
    if isinstance(b, _Weight):
        return flat_terms([(b.value, a)])
    raise PlacedError(
        None, f"{Tree(a).text} times {Tree(b).text}: only a number can weigh an objective"
    )


def _call(name: Token, arguments: list[tuple[Token | None, Value]]) -> Call:
    position = name.start_pos or 0
    positional: list[Value] = []
    keywords: dict[str, Value] = {}
    for keyword, value in arguments:
        if keyword is None:
            if keywords:
                raise PlacedError(position, f"{name}: arguments without a name come first")
            positional.append(value)
        elif keyword in keywords:
            raise PlacedError(keyword.start_pos or 0, f"{name}: {keyword} is given twice")
        else:
            keywords[str(keyword)] = value
    return Call(str(name), tuple(positional), tuple(keywords.items()), position)


def _number(token: Token) -> int | float:
    if token.isdecimal() and len(token) < 18:
        return int(token)
    number = float(token)
    if not math.isfinite(number):
        raise PlacedError(token.start_pos, f"{token[:20]} is too large a number")
    return number


def _lonely(weight: _Weight) -> PlacedError:
    return PlacedError(
        weight.position,
        f"the number {weight.value:g} stands alone; a number weighs an objective, as in 2*mixed4b",
    )


def located(text: str, position: int | None, what: str) -> str:
    """The message that `what` is wrong with a text at a position."""

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
