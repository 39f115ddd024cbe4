"""Chains: `robust, mirror(0.5)`, registered things by name with their arguments, in order.

Read without torch, and never evaluated: the grammar is that of an objective's calls.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from phosphene import calls
from phosphene.calls import Call, located, signature_text
from phosphene.errors import SettingsError, suggest

if TYPE_CHECKING:
    from lark import Lark

    from phosphene.plugins import Registry

T = TypeVar("T")

GRAMMAR = (
    r"""
chain: item ("," item)* ","?
?item: NAME -> bare
     | call
"""
    + calls.GRAMMAR
)


def parse_chain(text: str, kind: str) -> tuple[Call, ...]:
    """The calls of a chain; a bare name is a call without arguments.

    kind: what they are, for messages: "transform".

    >>> [call.text for call in parse_chain("robust,mirror(.5)", "transform")]
    ['robust()', 'mirror(0.5)']

    Raises:
        SettingsError: in one line, with the place and what was expected there.
    """
    if not text.strip():
        raise SettingsError(f"there is no {kind} in the text; expected such as name, name(2)")
    if re.fullmatch(r"\s*[A-Za-z_]\w*\s*", text):  # most are, and need no parser
        return (Call(text.strip()),)
    return calls.parsed(_parser(), text, f"{kind}s", SettingsError)


def chain_text(chain: Iterable[Call]) -> str:
    """A chain in canonical form: `robust, mirror(0.5)`."""
    return ", ".join(call.text if call.arguments or call.keywords else call.name for call in chain)


def build_chain(text: str, registry: Registry[Callable[..., T]], **offered: object) -> list[T]:
    """What the registered functions that a chain names give for its arguments, in order.

    offered: what a function is given, too, that has a parameter of that name.

    Raises:
        SettingsError: there is none of a name, or it does not take the arguments.
    """
    chain = parse_chain(text, registry.kind)
    return [_built(call, text, registry, offered) for call in chain]


def _built(
    call: Call, text: str, registry: Registry[Callable[..., T]], offered: Mapping[str, object]
) -> T:
    def wrong(what: object) -> SettingsError:
        return SettingsError(located(f"{registry.kind}s", text, call.position, str(what)))

    if not registry.known(call.name):
        raise wrong(f"there is no {registry.kind} {call.name!r}{suggest(call.name, registry)}")
    function = registry[call.name]
    signature = signature_text(call.name, function, left_out=registry.offered)
    try:
        named = inspect.signature(function)
        if taken := [name for name, _ in call.keywords if name in registry.offered]:
            raise SettingsError(f"{taken[0]} is not for a text to give")
        named.bind(*call.arguments, **dict(call.keywords))
        more = {name: value for name, value in offered.items() if name in named.parameters}
        made = function(*call.arguments, **{**more, **dict(call.keywords)})
    except SettingsError as error:
        raise wrong(error) from error
    except (TypeError, ValueError) as error:
        raise wrong(f"{error}; it is {signature}") from error
    if not callable(made):
        raise wrong(f"{signature} gave a {type(made).__name__}, and no {registry.kind}")
    return made


@functools.cache
def _parser() -> Lark:
    import lark

    class Build(calls.Rules, lark.Transformer):
        """What each rule of the grammar makes."""

        def chain(self, parts: list[Any]) -> tuple[Call, ...]:
            return tuple(parts)

        def bare(self, names: list[Any]) -> Call:
            return Call(str(names[0]), position=names[0].start_pos or 0)

    return lark.Lark(
        GRAMMAR, parser="lalr", start="chain", transformer=Build(), maybe_placeholders=False
    )
