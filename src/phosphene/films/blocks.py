"""The outermost structure of GIF, RIFF (WebP, AVI) and Matroska files, as far as it is needed.

Namely to tell whether a file is whole, and to put a text into a GIF or a WebP and find it again.
The GIF89a specification, the WebP container's, and RFC 8794 (EBML) say what is read here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from phosphene.errors import FilmError

_GIF_COMMENT = b"\x21\xfe"
_GIF_TRAILER = 0x3B
_XMP_FLAG = 0x04  # of VP8X's first byte
_SEGMENT = b"\x18\x53\x80\x67"  # Matroska's outermost element after the header


def declared_size(path: str | Path, demuxer: str) -> int | None:
    """How many bytes a file says it has; None if it does not say, or cannot be followed.

    A GIF says it by its blocks: one that ends among them has a byte more than there is.
    """
    with Path(path).open("rb") as stream:
        if demuxer in ("avi", "webp"):
            head = stream.read(8)
            return 8 + int.from_bytes(head[4:8], "little")
        if demuxer == "matroska":
            return _matroska_size(stream)
        if demuxer == "gif":
            size = os.fstat(stream.fileno()).st_size
            try:
                for _ in gif_blocks(stream):
                    pass
            except EOFError:
                return size + 1
    return None


def _matroska_size(stream: BinaryIO) -> int | None:
    stream.read(4)
    header = _vint(stream)
    if header is None:
        return None
    stream.seek(header, os.SEEK_CUR)
    if stream.read(4) != _SEGMENT:
        return None
    size = _vint(stream)
    return None if size is None else stream.tell() + size


def _vint(stream: BinaryIO) -> int | None:
    """EBML's length: as many further bytes as zeros lead; all ones for one that is unknown."""
    first = stream.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0x7F >> more)]) + stream.read(more), "big")
    return None if value == (1 << 7 * (more + 1)) - 1 else value


# --- GIF -------------------------------------------------------------------------------------


def gif_blocks(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """The blocks of a GIF: how each begins (two bytes), and where its sub-blocks do.

    EOFError if the file ends before its trailer. The sub-blocks may be read before the next block
    is asked for.
    """
    stream.seek(10)
    flags = _exactly(stream, 3)[0]
    _skip_colours(stream, flags)
    while True:
        kind = _exactly(stream, 1)
        if kind[0] == _GIF_TRAILER:
            return
        if kind == b"\x21":
            kind += _exactly(stream, 1)
        elif kind == b"\x2c":
            _skip_colours(stream, _exactly(stream, 9)[8])
            _exactly(stream, 1)
        else:
            raise EOFError
        at = stream.tell()
        yield kind, at
        stream.seek(at)
        while size := _exactly(stream, 1)[0]:
            stream.seek(size, os.SEEK_CUR)


def _skip_colours(stream: BinaryIO, flags: int) -> None:
    if flags & 0x80:
        stream.seek(3 << (flags & 7) + 1, os.SEEK_CUR)


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def gif_comments(path: str | Path) -> Iterator[bytes]:
    """The comments in a GIF."""
    with Path(path).open("rb") as stream:
        try:
            for kind, at in gif_blocks(stream):
                if kind == _GIF_COMMENT:
                    stream.seek(at)
                    parts: list[bytes] = []
                    while size := _exactly(stream, 1)[0]:
                        parts.append(_exactly(stream, size))
                    yield b"".join(parts)
        except EOFError:
            return


def add_gif_comment(path: str | Path, text: bytes) -> None:
    """Put a comment at the end of a GIF, before its trailer."""
    with Path(path).open("rb+") as stream:
        stream.seek(-1, os.SEEK_END)
        if stream.read(1)[0] != _GIF_TRAILER:
            raise FilmError("the GIF that was encoded has no end")
        stream.seek(-1, os.SEEK_END)
        stream.write(_GIF_COMMENT)
        for at in range(0, len(text), 255):
            part = text[at : at + 255]
            stream.write(bytes([len(part)]) + part)
        stream.write(bytes([0, _GIF_TRAILER]))


# --- RIFF ------------------------------------------------------------------------------------


def riff_chunks(stream: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """The chunks of a RIFF file: name, where its content begins, and its length."""
    at = 12
    while True:
        stream.seek(at)
        head = stream.read(8)
        if len(head) < 8:
            return
        size = int.from_bytes(head[4:], "little")
        yield head[:4], at + 8, size
        at += 8 + size + size % 2


def webp_durations(path: str | Path) -> list[int]:
    """How long each frame of an animated WebP is shown, in ms; none if it is no animation."""
    found: list[int] = []
    with Path(path).open("rb") as stream:
        for name, at, _ in riff_chunks(stream):
            if name == b"ANMF":
                stream.seek(at + 12)
                found.append(int.from_bytes(stream.read(3), "little"))
    return found


def add_webp_xmp(path: str | Path, packet: bytes) -> None:
    """Put a packet of XMP at the end of an animated WebP."""
    with Path(path).open("rb+") as stream:
        name, at, _ = next(riff_chunks(stream), (b"", 0, 0))
        if name != b"VP8X":
            raise FilmError("the WebP that was encoded is no animation")
        stream.seek(at)
        flags = stream.read(1)[0]
        stream.seek(at)
        stream.write(bytes([flags | _XMP_FLAG]))
        stream.seek(0, os.SEEK_END)
        stream.write(
            b"XMP " + len(packet).to_bytes(4, "little") + packet + b"\0" * (len(packet) % 2)
        )
        size = stream.tell() - 8
        stream.seek(4)
        stream.write(size.to_bytes(4, "little"))
