"""Values that change with time: `1.6 + .2*sin(2*pi*t)`, read by a grammar, never by Python's.

An expression holds numbers, `+ - * /`, powers (`^` or `**`), the names of `NAMES` and `CONSTANTS`,
and the functions of `FUNCTIONS`. It is kept in the order in which it is computed (postfix), so that
nothing here recurses, however a text nests, and the number of its nodes bounds all work.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from phosphene import calls
from phosphene.calls import PlacedError, number_of
from phosphene.errors import SettingsError, suggest

if TYPE_CHECKING:
    from lark import Lark, Token

MOST_NODES, MOST_CHARACTERS = 200, 4_000
"""The most numbers, names, operators and functions of one expression, and letters of its text."""

NAMES: Mapping[str, str] = {
    "t": "seconds since the first frame",
    "f": "frames since the first one",
    "p": "share of the film that is over, from 0 to 1",
}
CONSTANTS: Mapping[str, float] = {"pi": math.pi, "e": math.e}
FUNCTIONS: Mapping[str, Callable[..., float]] = {
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "abs": math.fabs,
    "sqrt": math.sqrt,
    "exp": math.exp,
    "log": math.log,
    "floor": lambda x: float(math.floor(x)),
    "min": lambda *numbers: min(numbers),
    "max": lambda *numbers: max(numbers),
}
OF_SEVERAL = ("min", "max")

# math.pow, not Python's own, which makes complex numbers of roots of negative ones.
_OPERATORS: Mapping[str, Callable[..., float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "^": math.pow,
    "negative": lambda a: -a,
}
_ALL = {**FUNCTIONS, **_OPERATORS}

# How tightly each binds, how tightly its left and right operands have to, and how it is written.
_INFIX = {
    "+": (1, 1, 2, " + "),
    "-": (1, 1, 2, " - "),
    "*": (2, 2, 3, "*"),
    "/": (2, 2, 3, "/"),
    "^": (4, 5, 3, "^"),
}
_NEGATIVE, _ATOM = 3, 5

GRAMMAR = r"""
?sum: product
    | sum "+" product -> plus
    | sum "-" product -> minus
?product: unary
    | product "*" unary -> times
    | product "/" unary -> over
?unary: power
    | "-" unary -> negative
    | "+" unary
?power: atom
    | atom _POWER unary -> raised
?atom: NUMBER -> number
    | NAME -> name
    | NAME "(" sum ("," sum)* ")" -> function
    | "(" sum ")"

_POWER: "**" | "^"
NUMBER: /(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?/
NAME: /[A-Za-z_][A-Za-z0-9_]*/
%ignore /\s+/
"""

# What the parser's symbols are called in a message.
SYMBOLS = {**calls.SYMBOLS, "SLASH": '"/"', "_POWER": '"^"'}

Node = float | tuple[str, int]
"""A number, at least 0; or a name, operator or function, and how many operands it has."""


@dataclass(frozen=True)
class Expression:
    """An expression: its nodes in the order in which they are computed."""

    nodes: tuple[Node, ...]

    @property
    def names(self) -> set[str]:
        """Which of `NAMES` it depends on."""
        return {node[0] for node in self.nodes if isinstance(node, tuple) and node[0] in NAMES}

    @property
    def text(self) -> str:
        """The text in canonical form, which reads back as this expression."""
        stack: list[tuple[str, int]] = []
        for node in self.nodes:
            if not isinstance(node, tuple):
                stack.append((_number_text(node), _ATOM))
                continue
            name, count = node
            operands = [stack.pop() for _ in range(count)][::-1]
            stack.append(_written(name, operands))
        return stack[0][0]

    def value(self, names: Mapping[str, float]) -> float:
        """The value for values of `NAMES`.

        Raises:
            ArithmeticError: with the step that gives no finite number, such as `1/0`.
        """
        stack: list[float] = []
        for node in self.nodes:
            if not isinstance(node, tuple):
                stack.append(node)
                continue
            name, count = node
            if not count:
                stack.append(names[name] if name in NAMES else CONSTANTS[name])
                continue
            operands = stack[-count:]
            del stack[-count:]
            try:
                result = _ALL[name](*operands)
            except (ArithmeticError, ValueError):
                result = math.nan
            if not math.isfinite(result):
                raise ArithmeticError(_step_text(name, operands))
            stack.append(result)
        return stack[0]


def constant(value: float) -> Expression:
    """The expression of a number."""
    return Expression((float(value),) if value >= 0 else (-float(value), ("negative", 1)))


def _number_text(number: float) -> str:
    return str(int(number)) if number.is_integer() and number < 1e15 else repr(number)


def _written(name: str, operands: list[tuple[str, int]]) -> tuple[str, int]:
    """An operation as a text, and how tightly that binds."""

    def operand(index: int, least: int) -> str:
        text, binds = operands[index]
        return text if binds >= least else f"({text})"

    if name in _INFIX:
        binds, left, right, sign = _INFIX[name]
        return f"{operand(0, left)}{sign}{operand(1, right)}", binds
    if name == "negative":
        return f"-{operand(0, _NEGATIVE)}", _NEGATIVE
    if operands:
        return f"{name}({', '.join(text for text, _ in operands)})", _ATOM
    return name, _ATOM


def _step_text(name: str, operands: list[float]) -> str:
    numbers = [(f"{number:g}", _ATOM if number >= 0 else _NEGATIVE) for number in operands]
    return _written(name, numbers)[0]


# Reading


def parse_expression(text: str) -> Expression:
    """The expression of a text.

    >>> parse_expression("1.6+.2*sin(2*pi*t)").text
    '1.6 + 0.2*sin(2*pi*t)'

    Raises:
        SettingsError: in one line, with the place and what was expected there.
    """
    if not text.strip():
        raise SettingsError("the expression is empty; expected such as 1.6 + .2*sin(2*pi*t)")
    check_length(text)
    part: Part = calls.parsed(_parser(), text, "expression", SettingsError, SYMBOLS)
    return Expression(part.nodes)


def check_length(text: str) -> None:
    """SettingsError for the text of a value that is too long to be one."""
    if len(text) > MOST_CHARACTERS:
        shown = " ".join(text[:40].split())
        raise SettingsError(
            f"the value {shown!r}… has {len(text)} characters; {MOST_CHARACTERS} are the most"
        )


class Part(NamedTuple):
    """A part of an expression, and where its text begins."""

    nodes: tuple[Node, ...]
    position: int


class Rules:
    """What each rule of `GRAMMAR` makes: a part of a lark transformer."""

    def plus(self, parts: list[Part]) -> Part:
        return _joined("+", parts)

    def minus(self, parts: list[Part]) -> Part:
        return _joined("-", parts)

    def times(self, parts: list[Part]) -> Part:
        return _joined("*", parts)

    def over(self, parts: list[Part]) -> Part:
        return _joined("/", parts)

    def raised(self, parts: list[Part]) -> Part:
        return _joined("^", parts)

    def negative(self, parts: list[Part]) -> Part:
        return _joined("negative", parts)

    def number(self, tokens: list[Token]) -> Part:
        return Part((float(number_of(tokens[0])),), tokens[0].start_pos or 0)

    def name(self, tokens: list[Token]) -> Part:
        name, position = str(tokens[0]), tokens[0].start_pos or 0
        if name in FUNCTIONS:
            raise PlacedError(position, f"{name} is a function; expected {_call_text(name)}")
        choices = [*NAMES, *CONSTANTS]
        if name not in choices:
            raise PlacedError(position, f"there is no name {name!r}{suggest(name, choices)}")
        return Part(((name, 0),), position)

    def function(self, parts: list[Any]) -> Part:
        name, *operands = parts
        position = name.start_pos or 0
        if name not in FUNCTIONS:
            message = f"there is no function {str(name)!r}{suggest(name, FUNCTIONS, most=10)}"
            raise PlacedError(position, message)
        if (len(operands) < 2) if name in OF_SEVERAL else (len(operands) != 1):
            raise PlacedError(position, f"{name} takes other arguments: {_call_text(name)}")
        return _joined(str(name), operands)._replace(position=position)


def _call_text(name: str) -> str:
    return f"{name}(a, b, …)" if name in OF_SEVERAL else f"{name}(a)"


def _joined(name: str, parts: list[Part]) -> Part:
    position = parts[0].position
    if 1 + sum(len(part.nodes) for part in parts) > MOST_NODES:
        raise PlacedError(
            position,
            f"an expression has at most {MOST_NODES} numbers, names, operators and functions",
        )
    nodes = (node for part in parts for node in part.nodes)
    return Part((*nodes, (name, len(parts))), position)


@functools.cache
def _parser() -> Lark:
    import lark

    class Build(Rules, lark.Transformer):
        """What each rule of the grammar makes."""

    return lark.Lark(
        GRAMMAR, parser="lalr", start="sum", transformer=Build(), maybe_placeholders=False
    )
