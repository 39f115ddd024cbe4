"""Settings models: one place where an option is named, described, bounded and checked."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from phosphene.chain import build_chain, chain_text, parse_chain
from phosphene.errors import SettingsError, suggest
from phosphene.films.keys import Bounds, Keys

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


def absences(model: type[Settings]) -> dict[str, Any]:
    """Of the settings that a later version added, what it means that one is not there."""
    found = {}
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and "absent" in extra:
            found[name] = extra["absent"]
    return found


def is_complete(model: type[Settings], given: Mapping[str, Any]) -> bool:
    """Whether all settings are given that every version has."""
    return given.keys() >= model.model_fields.keys() - absences(model).keys()


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


# Settings that may change while a film runs


def _canonical_keys(texts: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return Keys(texts).texts
    except SettingsError as error:
        raise ValueError(str(error)) from None


KeyTexts = Annotated[
    tuple[str, ...],
    AfterValidator(_canonical_keys),
    Field(examples=[(), ("zoom = 0s: 1.2; 4s: 2 ease; end: 1.5",)]),
]
"""Keyframes, a text for each setting that is keyed, in canonical form."""


def animatable(model: type[Settings]) -> dict[str, Bounds]:
    """The settings that keyframes may change, by name, with their bounds.

    A setting is marked by `json_schema_extra={"animatable": True}`; one of several numbers, such as
    a point, by the names of its parts: `center` with `["x", "y"]` is keyed as `center_x` and
    `center_y`. What may be a word instead of a number is keyed as a number.
    """
    return {part.name: part.bounds for part in _animatable_parts(model)}


def with_values(
    settings: SettingsT, values: Mapping[str, float], *, time: Fraction | None = None
) -> SettingsT:
    """Settings with other values, checked; a whole number is rounded, halves up.

    Args:
        values: by the names of `animatable`.
        time: at which they are taken, s, for the message.

    Raises:
        SettingsError: a value out of its bounds, or of what is not animatable.
    """
    where = "" if time is None else f"at {float(time):.6g} s: "
    parts = {part.name: part for part in _animatable_parts(type(settings))}
    changed: dict[str, Any] = {}
    for name, value in values.items():
        if name not in parts:
            raise SettingsError(f"{where}{name!r} is not animatable{suggest(name, parts)}")
        part = parts[name]
        settled = part.bounds.settled(value)
        if part.place is None:
            changed[part.setting] = settled
        else:
            several = list(changed.get(part.setting, getattr(settings, part.setting)))
            several[part.place] = settled
            changed[part.setting] = tuple(several)
    # Not dict(settings), which a setting named `keys` would break.
    given = {name: getattr(settings, name) for name in type(settings).model_fields}
    try:
        return checked(type(settings), {**given, **changed})
    except SettingsError as error:
        raise SettingsError(f"{where}{error}") from None


class _Part(NamedTuple):
    """A number that may change: the setting that it is, or its place in one of several."""

    name: str
    setting: str
    place: int | None
    bounds: Bounds


def _animatable_parts(model: type[Settings]) -> Iterator[_Part]:
    for setting, field in model.model_fields.items():
        extra = field.json_schema_extra
        marked = extra.get("animatable") if isinstance(extra, dict) else None
        if marked is True:
            bounds = _bounds(setting, field.annotation, field.metadata)
            yield _Part(setting, setting, None, bounds)
        elif isinstance(marked, (list, tuple)):
            kinds = zip(marked, get_args(field.annotation), strict=True)
            for place, (part, kind) in enumerate(kinds):
                yield _Part(f"{setting}_{part}", setting, place, _bounds(setting, kind, ()))


def _bounds(setting: str, annotation: Any, metadata: Iterable[Any]) -> Bounds:
    """The bounds of the number that an annotation allows. TypeError if it allows none."""
    found = _number(annotation, metadata)
    if found is None:
        raise TypeError(f"the setting {setting} is marked as animatable, and is no number")
    kind, limits = found
    return Bounds(*(limits.get(name) for name in ("ge", "gt", "le", "lt")), whole=kind is int)


def _number(annotation: Any, metadata: Iterable[Any]) -> tuple[type, dict[str, Any]] | None:
    """int or float, and its limits; the first of the kinds that an annotation allows."""
    if annotation in (int, float):
        limits: dict[str, Any] = {}
        for part in metadata:
            for each in part.metadata if isinstance(part, FieldInfo) else (part,):
                for limit in ("ge", "gt", "le", "lt"):
                    if getattr(each, limit, None) is not None:
                        limits[limit] = getattr(each, limit)
        return annotation, limits
    if hasattr(annotation, "__metadata__"):
        return _number(annotation.__origin__, (*metadata, *annotation.__metadata__))
    found = (_number(kind, metadata) for kind in get_args(annotation))
    return next((each for each in found if each is not None), None)
