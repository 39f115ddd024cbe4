"""What goes through the pipes between this process and the one that knows FFmpeg.

A message is the length of a header, 4 bytes, big-endian; the header, JSON; and as many raw bytes as
its `bytes` says. Times are written as two integers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

#: The most bytes of a header: it may hold a film's text, and no film says much more of itself.
HEADER_LIMIT = 2**26


def packed(header: Mapping[str, Any], *chunks: bytes | memoryview) -> Iterator[bytes | memoryview]:
    """The pieces of a message, to be written one after another."""
    size = sum(memoryview(chunk).nbytes for chunk in chunks)
    data = json.dumps({**header, "bytes": size}).encode()
    yield len(data).to_bytes(4, "big") + data
    yield from chunks


def unpacked(read: Callable[[int], bytearray]) -> tuple[dict[str, Any], bytearray]:
    """A message: its header, and its raw bytes. `read(n)` gives n bytes, or raises EOFError."""
    length = int.from_bytes(read(4), "big")
    if length > HEADER_LIMIT:
        raise EOFError
    header = json.loads(read(length))
    return header, read(header["bytes"])


def pair(value: Fraction | None) -> list[int] | None:
    """A time as JSON has it."""
    return None if value is None else [value.numerator, value.denominator]


def fraction(value: list[int] | None) -> Fraction | None:
    """A time again."""
    return None if value is None else Fraction(*value)


def seconds(value: Fraction) -> str:
    """A time in a message to a user: to a thousandth."""
    return f"{float(value):.3f}".rstrip("0").rstrip(".") + " s"
