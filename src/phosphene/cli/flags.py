"""Flags from a settings model: what an option is, is written there and nowhere else."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from cyclopts import Group, Parameter, Token, convert
from pydantic.fields import FieldInfo

from phosphene.settings import Settings

Verb = TypeVar("Verb", bound=Callable[..., int])


def with_settings(
    model: type[Settings], group: Group, *, leading: tuple[str, ...] = ()
) -> Callable[[Verb], Verb]:
    """Give a verb that takes `**settings` a flag for every field of `model`.

    Only flags that are given arrive in `settings`: what is not given is the preset's to say.
    Bounds are told in the help and checked by the model. Fields of `leading` are listed first.
    """

    def decorate(verb: Verb) -> Verb:
        signature = inspect.signature(verb, eval_str=True)
        parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        fields = model.model_fields
        for name in (*leading, *(name for name in fields if name not in leading)):
            parameters.append(_flag(name, fields[name], group))

        def called(*args: Any, **kwargs: Any) -> int:
            given = {k: v for k, v in kwargs.items() if k not in fields or v is not None}
            return verb(*args, **given)

        called.__doc__, called.__name__ = verb.__doc__, verb.__name__
        called.__signature__ = signature.replace(parameters=parameters)  # pyright: ignore[reportFunctionMemberAccess]
        called.__annotations__ = {p.name: p.annotation for p in parameters}
        return called  # pyright: ignore[reportReturnType]

    return decorate


def _flag(name: str, field: FieldInfo, group: Group) -> inspect.Parameter:
    bounds, plain = _bounds(field), _plain(field.annotation)
    described = (field.description or "").rstrip(".")
    shown = {"True": "yes", "False": "no", "None": "none"}.get(str(field.default))
    shown = shown or str(field.default)
    flag = Parameter(
        name="--" + name.replace("_", "-"),
        help=f"{described}; {bounds}." if bounds else f"{described}.",
        show_default=lambda _: shown,
        negative_none=(),
        allow_leading_hyphen=True,  # so that a negative number is told its bounds
        group=group,
        converter=_converted if int in (plain, *get_args(plain)) else None,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[plain | None, flag],
    )


def _plain(annotation: Any) -> Any:
    """A field's type without the bounds in it."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [_plain(part) for part in get_args(annotation)]
        return Union[tuple(parts)]  # noqa: UP007
    return annotation


def _converted(kind: Any, tokens: Sequence[Token]) -> Any:
    """As cyclopts converts, which would take 1.5 for the integer 2."""
    value = convert(kind, tokens)
    if type(value) is int and any("." in t.value and float(t.value) != value for t in tokens):
        raise ValueError(f"{tokens[0].value} is no whole number")
    return value


def _bounds(field: FieldInfo) -> str:
    """Such as `1 to 40`, `above 0`, or nothing."""
    found: dict[str, Any] = {}
    for constraint in (*field.metadata, *_constraints(field.annotation)):
        for key in ("ge", "gt", "le", "lt"):
            if (value := getattr(constraint, key, None)) is not None:
                found[key] = value
    low = found.get("ge", found.get("gt"))
    # Where only the machine's integers end, nobody needs to know.
    high = found.get("le", found.get("lt") if found.get("lt", 0) < 2**31 else None)
    above = "above " if "gt" in found else ""
    if low is not None and high is not None and high < 1e5:
        return f"{above}{low:g} to {high:g}"
    if low is not None:
        return f"{above}{low:g}" if above else f"{low:g} or more"
    return f"at most {high:g}" if high is not None else ""


def _constraints(annotation: Any) -> Iterator[Any]:
    for part in get_args(annotation):
        if get_origin(annotation) is Literal:
            return
        if get_origin(annotation) is Annotated and part is not get_args(annotation)[0]:
            yield from getattr(part, "metadata", [part])
        else:
            yield from _constraints(part)
