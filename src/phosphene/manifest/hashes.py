"""SHA-256 of what goes in."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from phosphene.errors import ImageError
from phosphene.image.files import find_pictures


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes. ImageError if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ImageError(f"cannot read {str(path)!r}: {error.strerror or error}") from error


def folder_hash(path: str | Path) -> tuple[str, int]:
    """One SHA-256 of a folder of pictures, and their count: of their names and their own SHA-256.

    ImageError if there is no such folder, or no picture in it.
    """
    path, whole = Path(path), hashlib.sha256()
    files = find_pictures(path)
    for file in files:
        whole.update(os.fsencode(file.relative_to(path).as_posix()) + b"\0")
        # What cannot be read is left out of a page, which says so.
        with suppress(ImageError):
            whole.update(file_hash(file).encode() if file.is_file() else b"")
        whole.update(b"\n")
    return whole.hexdigest(), len(files)


def path_hash(path: Path) -> str:
    """SHA-256 of a file, or of a folder of pictures."""
    return folder_hash(path)[0] if path.is_dir() else file_hash(path)
