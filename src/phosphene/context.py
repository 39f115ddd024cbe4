"""What holds for everything that is called inside a `with` block, in this thread alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def inside(variable: ContextVar[T], value: T) -> Iterator[None]:
    """Inside, `variable` is `value`; afterwards it is what it was."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)
