"""Settings models: one place where an option is named, described, bounded and checked."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from phosphene.errors import SettingsError, suggest


class Settings(BaseModel):
    """The base of every recipe's settings: frozen, strict about names and about NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


SettingsT = TypeVar("SettingsT", bound=Settings)


def checked(model: type[SettingsT], given: dict[str, Any]) -> SettingsT:
    """`model(**given)`, or a `SettingsError` of one line."""
    for name in given:
        if name not in model.model_fields:
            raise SettingsError(f"no setting {name!r}{suggest(name, model.model_fields)}")
    try:
        return model(**given)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            where = ".".join(str(part) for part in problem["loc"][:1]).replace("_", " ")
            # Pydantic's own wording starts with a capital; ours follows a colon.
            message = problem["msg"].removeprefix("Value error, ")
            message = message[:1].lower() + message[1:]
            given_text = f" (given: {problem['input']!r})" if where else ""
            problems.append(f"{where}: {message}{given_text}" if where else message)
        raise SettingsError("; ".join(dict.fromkeys(problems))) from None
