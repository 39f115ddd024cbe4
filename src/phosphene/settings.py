"""Settings models: one place where an option is named, described, bounded and checked."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from phosphene.chain import build_chain, chain_text, parse_chain
from phosphene.errors import SettingsError, suggest

if TYPE_CHECKING:
    from phosphene.plugins import LoadedPlugin


class Settings(BaseModel):
    """The base of every recipe's settings: frozen, strict about names and about NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class ChainOf:
    """Reads a setting that names registered things in order: `robust, mirror(0.5)`.

    Only how it is written is checked with the settings, without torch; whether there is something
    of each name, once torch is there (`check_chains`).

    kind, registry: what they are, and "module:NAME" of their registry.
    alone: values that are no names.
    """

    kind: str
    registry: str
    alone: tuple[str, ...] = ()

    def __call__(self, text: str) -> str:
        """The text in canonical form. ValueError for one that is none."""
        if text in self.alone:
            return text
        try:
            chain = parse_chain(text, self.kind)
        except SettingsError as error:
            raise ValueError(str(error)) from None
        if several := [call.name for call in chain if call.name in self.alone]:
            raise ValueError(f"{several[0]} stands alone, and not in {text!r}")
        return chain_text(chain)

    def built(self, text: str) -> list[Callable[..., Any]]:
        """What is of those names. SettingsError if one is not there, or takes other arguments."""
        module, _, name = self.registry.partition(":")
        registry = getattr(importlib.import_module(module), name)
        return [] if text in self.alone else build_chain(text, registry)

    def plugins(self, text: str) -> list[LoadedPlugin]:
        """The plugins that registered something of the names."""
        from phosphene.plugins import plugin_of

        chain = () if text in self.alone else parse_chain(text, self.kind)
        found = (plugin_of(self.kind, call.name) for call in chain)
        return [plugin for plugin in found if plugin is not None]


Transforms = Annotated[
    str,
    AfterValidator(ChainOf("transform", "phosphene.transforms:TRANSFORMS", alone=("auto",))),
    Field(examples=["auto", "robust", "gentle", "crops", "none", "robust, jitter(8)"]),
]
"""Transforms by name, or auto."""

GradientTransforms = Annotated[
    str,
    AfterValidator(ChainOf("gradient transform", "phosphene.gradients:GRADIENTS", alone=("",))),
    Field(examples=["", "smooth(2), laplacian(3)"]),
]
"""Gradient transforms by name; the empty text is none."""


def chains_of(settings: Settings) -> Iterator[tuple[ChainOf, str]]:
    """The chains among the settings, each with its text."""
    for name, field in type(settings).model_fields.items():
        for part in field.metadata:
            if isinstance(part, AfterValidator) and isinstance(part.func, ChainOf):
                yield part.func, getattr(settings, name)


def check_chains(settings: Settings) -> None:
    """SettingsError unless there is something of each name in a chain, with such arguments."""
    for chain, text in chains_of(settings):
        chain.built(text)


def chain_plugins(settings: Settings) -> list[LoadedPlugin]:
    """The plugins that registered what the settings name."""
    return [plugin for chain, text in chains_of(settings) for plugin in chain.plugins(text)]


SettingsT = TypeVar("SettingsT", bound=Settings)


def checked(model: type[SettingsT], given: dict[str, Any]) -> SettingsT:
    """`model(**given)`, or a `SettingsError` of one line."""
    for name in given:
        if name not in model.model_fields:
            raise SettingsError(f"no setting {name!r}{suggest(name, model.model_fields)}")
    try:
        return model(**given)
    except ValidationError as error:
        raise SettingsError("; ".join(_problems(error))) from None


def _problems(error: ValidationError) -> list[str]:
    """What is wrong, a setting at a time; what each of several types expects is joined by "or"."""
    found: dict[tuple[str, str], list[str]] = {}
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"][:1]).replace("_", " ")
        # Pydantic's own wording starts with a capital; ours follows a colon.
        message = problem["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        given = f" (given: {_shown(problem['input'])})" if where else ""
        found.setdefault((where, given), []).append(message)
    shared = "input should be "
    texts = []
    for (where, given), messages in found.items():
        first, *others = dict.fromkeys(messages)
        joined = " or ".join([first, *(other.removeprefix(shared) for other in others)])
        texts.append(f"{where}: {joined}{given}" if where else joined)
    return texts


def _shown(value: object, most: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"
