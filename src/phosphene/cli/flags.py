"""A flag from a setting: what an option is, is written in its declaration and nowhere else."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from cyclopts import Group, Parameter, Token, convert
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo


def setting_flag(
    name: str, field: FieldInfo, group: Group, groups: Mapping[str, Group]
) -> inspect.Parameter:
    """The flag of a setting. What is not given is None: it is the preset's or the model's to say.

    Bounds are told in the help and checked by the model. groups: by the name that a setting's
    declaration may give, `"group"` in its `json_schema_extra`, where it is listed instead.
    """
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    where = "output" if extra.get("of_files_alone") else extra.get("group")
    group = groups.get(str(where), group)
    plain = _plain(field.annotation)
    if any(isinstance(part, BeforeValidator) for part in field.metadata):
        plain = str  # read by the model, as a text
    bounds = "" if plain == str | None else bounds_text(field)
    described = (field.description or "").rstrip(".")
    shown = {"True": "yes", "False": "no", "None": "none"}.get(str(field.default))
    shown = str(extra.get("shown") or shown or field.default)
    several = plain == tuple[str, ...]  # texts, one each time that it is given
    plain = list[str] if several else plain
    flag = Parameter(
        name="--" + str(extra.get("flag") or name).replace("_", "-"),
        help=f"{described}; {bounds}." if bounds else f"{described}.",
        show_default=False if shown == "()" else lambda _: shown,  # which the text tells
        negative_none=(),
        negative_iterable=(),  # of a list, an empty one: the setting's text has a word for it
        negative=() if several or extra.get("of_files_alone") else None,
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
        if any(isinstance(part, BeforeValidator) for part in get_args(annotation)):
            return str  # read by the model, as a text
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


def bounds_text(field: FieldInfo) -> str:
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
