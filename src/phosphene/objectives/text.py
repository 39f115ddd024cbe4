"""Text → tree: `2*mixed4b + mixed4d:42,17 - 0.1*tv()`, read without a network, torch or numpy.

A text is parsed by a small grammar and never evaluated. A bare name is a layer, `name:42,17` are
channels of it, `logits:dumbbell` is a class of the layer that gives the logits, and `name(…)` is an
objective of that name, with numbers, names, quoted strings and lists of them as arguments. Weights
stand on either side of `*`, and parentheses nest. A name that holds more than letters, digits, `_`,
`.` and `/` goes in quotes, single or double; a quote within is doubled. So does one that is a
number, as layers of a `Sequential` are called, unless a colon follows or it is all of the text.

The tree is one flat sum of weighted terms. `phosphene.objectives.build` makes an `Objective` of it.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from phosphene import calls
from phosphene.calls import BARE_NAME as BARE_NAME
from phosphene.calls import KEYWORDS as KEYWORDS
from phosphene.calls import Call as Call
from phosphene.calls import PlacedError as PlacedError
from phosphene.calls import Value as Value
from phosphene.calls import call_of, number_of
from phosphene.calls import items_text as items_text
from phosphene.calls import name_text as name_text
from phosphene.calls import quoted as quoted
from phosphene.calls import unquoted as unquoted
from phosphene.calls import value_text as value_text
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
     | call
     | "(" sum ")"
name: NAME | STRING | NUMERIC
"""
    + calls.GRAMMAR
    # A name that begins with a digit and is no number, or is one that a colon follows.
    + r"NUMERIC.2: /(?!NUM(?![\w.]))\d+(?:\.\w+)+|\d+(?:\.\w+)*(?=\s*:)/"
    + "\n"
).replace("NUM(", r"(?:\d+\.?\d*)(?:[eE][+-]?\d+)?(")

MOST_CHANNELS = 1024
"""The most channels of a range such as `mixed4c:1-4`."""
MOST_EXPANDED = 65_536
"""The most objectives that texts with ranges among them make."""

_NAME = rf"{BARE_NAME}|\d+(?:\.\w+)*|\"(?:[^\"]|\"\")*\"|'(?:[^']|'')*'"
_RANGE = re.compile(rf"\s*(?P<head>-?(?:{_NAME}):)(?P<first>\d{{1,9}})-(?P<last>\d{{1,9}})\s*")


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


def reweighted(
    terms: tuple[tuple[float, T], ...], weights: Mapping[int, float]
) -> tuple[tuple[float, T], ...]:
    """A flat sum with other weights, by the number of their term, from 1; a sign is part of one.

    Raises:
        ObjectiveError: a weight that is not finite, or of a term that is not there.
    """
    for number in weights:
        if not 1 <= number <= len(terms):
            valid = "weight1" + (f" to weight{len(terms)}" if len(terms) > 1 else " alone")
            raise ObjectiveError(
                f"there is no weight{number}: {_shown(sum_text((w, t.text) for w, t in terms))} "
                f"has {valid}"
            )
    changed = (
        (weights.get(number, weight), ((1.0, term),))
        for number, (weight, term) in enumerate(terms, 1)
    )
    return flat_terms(changed)


def _shown(text: str) -> str:
    return text if len(text) <= 120 else text[:120] + "…"


# Writing


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
    if not text.strip():
        raise ObjectiveError(
            "the objective is empty; expected a text such as 2*mixed4b + mixed4d:42"
        )
    if found := _RANGE.fullmatch(text):
        head, first = found["head"], int(found["first"])
        raise ObjectiveError(
            f"{text.strip()} is several objectives, channels {first} to {found['last']}, and one "
            f"is expected; {head}{first},{first + 1} and so on is the mean of channels"
        )
    result = calls.parsed(_parser(), text, "objective", ObjectiveError)
    if isinstance(result, _Weight):
        if re.fullmatch(r"\d+(?:\.\d+)?", text.strip()):
            return Tree(((1.0, Whole(text.strip())),), text)
        raise ObjectiveError(located(text, result.position, str(_lonely(result))))
    return Tree(result, text)


def expanded(texts: Iterable[str]) -> tuple[str, ...]:
    """Texts, of which each may be of a range of channels: `mixed4c:1-4` is four, one a channel.

    >>> expanded(["mixed4c:1-3", "conv1"])
    ('mixed4c:1', 'mixed4c:2', 'mixed4c:3', 'conv1')

    Raises:
        ObjectiveError: a range that ends before it begins, or has more than `MOST_CHANNELS`; more
            than `MOST_EXPANDED` texts in all.
    """
    found: list[str] = []
    for text in texts:
        found += _channels_of(text)
        if len(found) > MOST_EXPANDED:
            raise ObjectiveError(f"ranges of channels make {MOST_EXPANDED} objectives at most")
    return tuple(found)


def _channels_of(text: str) -> Iterator[str]:
    found = _RANGE.fullmatch(text)
    if found is None:
        yield text
        return
    first, last = int(found["first"]), int(found["last"])
    if not 0 <= last - first < MOST_CHANNELS:
        raise ObjectiveError(
            f"{text.strip()}: channels {first} to {last}; a range such as 1-4 goes up, and has "
            f"{MOST_CHANNELS} channels at most"
        )
    yield from (f"{found['head']}{number}" for number in range(first, last + 1))


def negate(text: str) -> str:
    """The text of minus an objective's text.

    >>> negate("2*mixed4b - tv()")
    '-2*mixed4b + tv()'

    Raises:
        ObjectiveError: as `parse_tree`.
    """
    return Tree(flat_terms([(-1.0, parse_tree(text).terms)])).text


def with_weights(objective: Tree | str, weights: Mapping[int, float]) -> Tree:
    """An objective with other weights, by the number of their term, from 1.

    >>> with_weights("2*mixed4b - tv()", {2: -0.5}).text
    '2*mixed4b - 0.5*tv()'

    The terms are those of the flat sum that the text comes to: `2*(a + b)` has two of weight 2.

    Raises:
        ObjectiveError: as `parse_tree`; and for a weight that is not finite, or of no term.
    """
    tree = parse_tree(objective) if isinstance(objective, str) else objective
    return Tree(reweighted(tree.terms, weights))


@dataclass(frozen=True)
class _Weight:
    """A number where an objective may stand."""

    value: float
    position: int


_Terms = tuple[tuple[float, Unit], ...]


@functools.cache
def _parser() -> Lark:
    import lark

    class Build(calls.Rules, lark.Transformer):
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
            return _Weight(float(number_of(tokens[0])), tokens[0].start_pos or 0)

        def name(self, tokens: list[Token]) -> str:
            return unquoted(tokens[0]) if tokens[0].type == "STRING" else str(tokens[0])

        def whole(self, names: list[str]) -> _Terms:
            return ((1.0, Whole(names[0])),)

        def picked(self, parts: list[Any]) -> _Terms:
            name, *indices = parts
            for index in indices:
                if not isinstance(number_of(index), int):
                    raise PlacedError(index.start_pos, f"a channel is a whole number, not {index}")
            return ((1.0, Channels(name, tuple(map(int, indices)))),)

        def named(self, parts: list[str]) -> _Terms:
            return ((1.0, Class(*parts)),)

        def call(self, parts: list[Any]) -> _Terms:
            return ((1.0, call_of(parts[0], parts[1:])),)

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


def _lonely(weight: _Weight) -> PlacedError:
    return PlacedError(
        weight.position,
        f"the number {weight.value:g} stands alone; a number weighs an objective, as in "
        "2*mixed4b, and a layer that is called so goes in quotes",
    )


def located(text: str, position: int | None, what: str) -> str:
    """The message that `what` is wrong with an objective's text at a position."""
    return calls.located("objective", text, position, what)
