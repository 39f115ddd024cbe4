"""SHA-256 of what goes in."""

from __future__ import annotations

import hashlib
from pathlib import Path

from phosphene.errors import ImageError


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes. ImageError if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ImageError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
