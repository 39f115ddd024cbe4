"""Calls in a text, `guide(mixed4c, "flowers.jpg", by=dot)`: how one is written and read.

The part that the grammars of objectives and of chains share. A text is parsed and never evaluated:
arguments are numbers, names, quoted strings, true, false, none, and lists of them.
"""

from __future__ import annotations

import inspect
import math
import numbers
import os
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from phosphene.errors import PhospheneError

if TYPE_CHECKING:
    from lark import Lark, Token

BARE_NAME = r"@?[A-Za-z_]\w*(?:[./]\w+)*"
"""A name that a text may hold without quotes: `features.30`, `inception_4c/output`."""

LONGEST, DEEPEST, OPERATORS = 250_000, 50, 4_000
"""The most characters of a text, brackets within one another, and +, - and * outside of lists.

A direction of 8192 channels, each number with all of its digits, has 190,000 characters.
"""

# A quoted string, or what nests and what joins.
_MARKS = re.compile(r""""(?:[^"]|"")*"|'(?:[^']|'')*'|[()\[\]+*-]""")

KEYWORDS: Mapping[str, bool | None] = {"true": True, "false": False, "none": None}
"""Words that are values, not names, as arguments in a text."""

# `Rules` has what is made of these.
GRAMMAR = (
    r"""
call: NAME "(" [argument ("," argument)* ","?] ")"
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


@dataclass(frozen=True)
class Call:
    """A registered function with its arguments: `guide(mixed4c, "flowers.jpg", by="dot")`.

    position: where it begins in the source, for messages.
    """

    name: str
    arguments: tuple[Value, ...] = ()
    keywords: tuple[tuple[str, Value], ...] = ()
    position: int = field(default=0, compare=False)

    @property
    def text(self) -> str:
        return call_text(self.name, self.arguments, self.keywords)


# Writing ------------------------------------------------------------------------------------------


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


def signature_text(
    name: str,
    function: Callable[..., Any],
    written: Callable[[object], str] = value_text,
    left_out: Container[str] = (),
) -> str:
    """A function as a text calls it: `layer(name, norm="mean_square", margin=0)`."""
    parts = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in left_out:
            continue
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        given = "" if parameter.default is parameter.empty else f"={written(parameter.default)}"
        parts.append(f"{star}{parameter.name}{given}")
    return f"{name}({', '.join(parts)})"


# Reading ------------------------------------------------------------------------------------------


class PlacedError(Exception):
    """Something wrong, at a place in the text if known, on its way to become a user's error."""

    def __init__(self, position: int | None, message: str) -> None:
        super().__init__(message)
        self.position = position


class Rules:
    """What each rule of `GRAMMAR` makes: a part of a lark transformer."""

    def call(self, parts: list[Any]) -> Any:
        return call_of(parts[0], parts[1:])

    def argument(self, values: list[Any]) -> tuple[None, Value]:
        return None, values[0]

    def keyword(self, parts: list[Any]) -> tuple[Token, Value]:
        return parts[0], parts[1]

    def number(self, tokens: list[Token]) -> int | float:
        return number_of(tokens[0])

    def negative(self, tokens: list[Token]) -> int | float:
        return -number_of(tokens[0])

    def word(self, tokens: list[Token]) -> str | bool | None:
        return KEYWORDS.get(tokens[0].lower(), str(tokens[0]))

    def string(self, tokens: list[Token]) -> str:
        return unquoted(tokens[0])

    def items(self, values: list[Value]) -> tuple[Value, ...]:
        return tuple(values)


def call_of(name: Token, arguments: list[tuple[Token | None, Value]]) -> Call:
    """The call of a name and its arguments. PlacedError if one is given twice or out of order."""
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


def number_of(token: Token) -> int | float:
    """The number of a token. PlacedError if it is not finite."""
    if token.isdecimal() and len(token) < 18:
        return int(token)
    number = float(token)
    if not math.isfinite(number):
        raise PlacedError(token.start_pos, f"{token[:20]} is too large a number")
    return number


def parsed(
    parser: Lark,
    text: str,
    kind: str,
    error: type[PhospheneError],
    symbols: Mapping[str, str] = SYMBOLS,
) -> Any:
    """What a parser makes of a text of a kind ("objective").

    symbols: what the parser's symbols are called in a message, in the order of a list of them.

    Raises:
        The `error`: in one line, with the place and what was expected there.
    """
    from lark.exceptions import UnexpectedCharacters, UnexpectedToken

    try:
        _check_size(text)
        return parser.parse(text)
    except PlacedError as fault:
        raise error(located(kind, text, fault.position, str(fault))) from fault.__cause__
    except UnexpectedCharacters as fault:
        place = fault.pos_in_stream
        found = text[place]
        what = "this quote is not closed" if found in "\"'" else f"{found!r} means nothing here"
        raise error(located(kind, text, place, what)) from None
    except UnexpectedToken as fault:
        place = len(text) if fault.token.type == "$END" else fault.token.start_pos or 0
        expected = [shown for symbol, shown in symbols.items() if symbol in fault.accepts]
        # Nothing can follow a whole text only when a parenthesis closes that none opened.
        what = f"expected {_either(expected)}" if expected else 'there is no "(" to this ")"'
        raise error(located(kind, text, place, what)) from None


def _check_size(text: str) -> None:
    """PlacedError for a text that would take long to read, and what is made of it, in vain."""
    if len(text) > LONGEST:
        raise PlacedError(LONGEST, f"it has {len(text)} characters; {LONGEST} are the most")
    depth = lists = operators = 0
    for mark in _MARKS.finditer(text):
        sign = mark[0]
        if sign in "([":
            depth, lists = depth + 1, lists + (sign == "[")
            if depth > DEEPEST:
                raise PlacedError(mark.start(), f"brackets nest {DEEPEST} deep at most")
        elif sign in ")]":
            depth, lists = depth - 1, lists - (sign == "]")
        elif sign in "+-*" and not lists:  # and not the signs of numbers in a list
            operators += 1
            if operators > OPERATORS:
                raise PlacedError(mark.start(), f"{OPERATORS} of +, - and * are the most")


def located(kind: str, text: str, position: int | None, what: str) -> str:
    """The message that `what` is wrong with a text of a kind at a position."""

    def line(part: str) -> str:
        return " ".join(part.split())

    if position is None:
        return f"cannot read the {kind} {line(text)!r}: {what}"
    start, end = max(0, position - 60), position + 60
    shown = "…" * (start > 0) + text[start:end] + "…" * (end < len(text))
    near = line(text[position : position + 12])
    place = f"at character {position + 1}, near {near!r}" if near else "at the end"
    return f"cannot read the {kind} {line(shown)!r} {place}: {what}"


def _either(choices: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(choices[:-1]), choices[-1]]))
