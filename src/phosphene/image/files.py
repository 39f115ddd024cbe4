"""The files that pictures lie in: which can be read and written, and how one appears whole.

Nothing here needs torch or numpy, so that an output can be checked before either is loaded.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import importlib
import itertools
import mmap
import os
import platform
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from phosphene.errors import ImageError, InTheWayError, suggest
from phosphene.runtime.memory import available_memory, format_bytes

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

#: The most pixels that are read or made. Float32 RGB of that size is 3.6 GB.
PIXEL_LIMIT = 300_000_000

#: px, beyond the side of any picture: more is a mistake, and no number to reckon with.
LONGEST_SIDE = 1_000_000

#: What can be written, by suffix.
SUFFIXES = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}

#: What can be read, by suffix.
READABLE_SUFFIXES = {*SUFFIXES, ".bmp", ".gif"}
# Of sheets and cards.
PAGE_SUFFIXES = (*SUFFIXES, ".svg", ".json")

#: Seconds after which a scratch file is left over, if it cannot be asked whether its process lives.
STRAY_AGE = 24 * 3600

# The name that `_scratch_file` gives, and the one that it gave before.
_SCRATCH = re.compile(
    r"\.phosphene-(?:(?P<processes>[0-9a-f]{8})-(?P<process>\d{1,10})-)?[0-9a-f]{16}\.tmp"
)

#: The most scans and blocks of EXIF of a JPEG. Ten scans are common, and one block.
SCANS, EXIF_BLOCKS = 100, 64

#: The most pages of a file that are counted.
PAGES = 500

#: Bytes that reading takes for each pixel: Pillow's own, 8-bit RGB, and float32.
BYTES_PER_PIXEL = 4 + 3 + 12

_limit_lock = threading.Lock()
_readers, _pillow_limit = 0, None  # how many files are being read; what they are to restore

# By their first bytes and not by the suffix, which lies. Opened by class: Image.open would run
# any of Pillow's forty decoders, and hold to a pixel limit that is global to the process.
_DECODERS: tuple[tuple[re.Pattern[bytes], str, str], ...] = (
    (re.compile(rb"\xff\xd8\xff"), "PIL.JpegImagePlugin", "JpegImageFile"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "PIL.PngImagePlugin", "PngImageFile"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "PIL.WebPImagePlugin", "WebPImageFile"),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), "PIL.TiffImagePlugin", "TiffImageFile"),
    (re.compile(rb"BM"), "PIL.BmpImagePlugin", "BmpImageFile"),
    (re.compile(rb"GIF8[79]a"), "PIL.GifImagePlugin", "GifImageFile"),
)


# As a path reads it, "//" is "/".
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(//?)[^/]")


def refuse_address(text: str) -> None:
    """ImageError if a text is a URL, where the path of a file was expected."""
    found = _ADDRESS.match(text)
    if found is None or os.path.lexists(text) or os.path.lexists(f"{found[1]}:"):
        return
    whole = text if found[2] == "//" else text.replace(":/", "://", 1)
    raise ImageError(f"{whole!r} is a URL, which is not read: fetch it first, and name the file")


@contextmanager
def open_image(path: Path) -> Iterator[ImageFile]:
    """The open file, its header read; whatever goes wrong inside becomes one ImageError.

    Raises:
        ImageError: no such file, or none that is a picture of a known format.
    """
    with reading(path):
        if path.is_dir():
            raise ImageError(f"{str(path)!r} is a folder; a picture file was expected")
        if not path.exists():
            refuse_address(str(path))
            raise ImageError(f"there is no file {str(path)!r}{_near(path)}")
        if not path.is_file():
            raise ImageError(f"{str(path)!r} is not a regular file; a picture file was expected")
        with path.open("rb") as stream:
            head = stream.read(16)
            stream.seek(0)
            if not head:
                raise ImageError(f"{str(path)!r} is empty")
            decoder = _decoder(head)
            if decoder is None:
                raise ImageError(
                    f"{str(path)!r} is not a picture that can be read (it begins with {head!r}); "
                    "JPEG, PNG, WebP, TIFF, BMP and GIF can"
                )
            if decoder.__name__ == "JpegImageFile":
                _check_jpeg(stream)
            with _own_pixel_limit(), decoder(stream) as file:
                yield file


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong inside, where a picture is read, becomes one ImageError."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:  # decoders raise nearly anything on damaged files
        reason = error.strerror if isinstance(error, OSError) else None
        reason = " ".join((reason or str(error) or type(error).__name__).split())
        raise ImageError(f"cannot read {str(path)!r}: {reason}") from error


@contextmanager
def _own_pixel_limit() -> Iterator[None]:
    """Pillow's limit for TIFF and WebP, which is global, at `PIXEL_LIMIT` while a file is read.

    What we write must be read; `check_pixels` refuses what is over our own.
    """
    global _readers, _pillow_limit
    from PIL import Image

    with _limit_lock:
        if not _readers:
            _pillow_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, PIXEL_LIMIT
        _readers += 1
    try:
        yield
    finally:
        with _limit_lock:
            _readers -= 1
            if not _readers:
                Image.MAX_IMAGE_PIXELS = _pillow_limit


def _check_jpeg(stream: BinaryIO) -> None:
    """ValueError for a JPEG that takes long to decode in vain; the stream is left as it was.

    Pillow joins blocks of EXIF one by one, libjpeg decodes a picture anew for each scan.
    """
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at, blocks = 2, 0
        while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
            if data[at + 1] in (0x01, 0xFF, *range(0xD0, 0xD8)):  # without a length, or padding
                at += 1 if data[at + 1] == 0xFF else 2
                continue
            blocks += data[at + 1] == 0xE1 and data[at + 4 : at + 8] == b"Exif"
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if blocks > EXIF_BLOCKS:
            raise ValueError(f"it has {blocks} blocks of EXIF; {EXIF_BLOCKS} are the most")
        # Within what a scan holds, no byte of 0xFF is followed by that of a marker.
        for _ in range(SCANS + 1):
            at = data.find(b"\xff\xda", at) + 2
            if at < 2:
                return
    raise ValueError(f"it has more than {SCANS} scans, which are the most")


def count_gif_frames(stream: BinaryIO, most: int) -> int:
    """How many pictures a GIF has, `most` at most; the stream is left as it was.

    Pillow would read each of them; a file of some MB can have a million.
    """
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:

        def table(flags: int) -> int:
            return 3 << ((flags & 7) + 1) if flags & 0x80 else 0

        at, count = 13 + table(data[10]), 0
        while at + 10 < len(data) and count < most:
            if data[at] == 0x2C:
                count += 1
                at += 11 + table(data[at + 9])
            elif data[at] == 0x21:
                at += 2
            else:
                break
            while at < len(data) and data[at]:  # blocks of data, each after its length
                at += data[at] + 1
            at += 1
    return max(1, count)


def _decoder(head: bytes) -> type[ImageFile] | None:
    """Pillow's reader of a file that begins with `head`."""
    for magic, module, name in _DECODERS:
        if magic.match(head):
            return getattr(importlib.import_module(module), name)
    return None


def _near(path: Path) -> str:
    """The pictures in the folder whose names come closest, for a message."""
    folder = path.parent
    if not folder.is_dir():
        return f"; there is no folder {str(folder)!r} either"
    with os.scandir(folder) as entries:
        # A few thousand will do: comparing names is slow, and this is only a message.
        names = [entry.name for entry in itertools.islice(entries, 4000)]
    return suggest(
        path.name, sorted(n for n in names if Path(n).suffix.lower() in READABLE_SUFFIXES)
    )


def find_pictures(folder: str | Path) -> list[Path]:
    """The picture files of a folder and its folders, by name; hidden ones are left out.

    ImageError if there is no such folder, or no picture in it.
    """
    folder = Path(folder)
    if not folder.exists():
        raise ImageError(f"there is no folder {str(folder)!r}")
    if not folder.is_dir():
        raise ImageError(f"{str(folder)!r} is a file; a folder of pictures was expected")
    found: list[Path] = []
    for where, within, files in os.walk(folder):
        within[:] = sorted(name for name in within if not name.startswith("."))
        found += [
            Path(where, name)
            for name in files
            if Path(name).suffix.lower() in READABLE_SUFFIXES and not name.startswith(".")
        ]
    if not found:
        raise ImageError(
            f"there are no pictures in {str(folder)!r}; files that end in "
            f"{', '.join(sorted(READABLE_SUFFIXES))} were expected"
        )
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def check_pixels(path: Path, width: int, height: int) -> None:
    """Refuse a file whose header says more px than `PIXEL_LIMIT`, or than memory holds.

    With ImageError.
    """
    if width * height > PIXEL_LIMIT:
        raise ImageError(
            f"{str(path)!r} says it is {width}x{height} px; "
            f"the limit is {PIXEL_LIMIT / 1e6:g} megapixels"
        )
    needed, free = width * height * BYTES_PER_PIXEL, available_memory()
    if needed > free:
        raise ImageError(
            f"{str(path)!r} says it is {width}x{height} px, which take {format_bytes(needed)} of "
            f"memory; {format_bytes(free)} are there"
        )


def check_output(path: str | Path, *, overwrite: bool) -> Path:
    """See before any computing that `save_image` can write at `path`; returns it.

    Raises:
        ImageError: unless the suffix is known, the folder is there and can be written to, and no
            file is in the way (or `overwrite` allows to replace it).
    """
    path = Path(path)
    format_of(path)
    return check_place(path, overwrite=overwrite)


def check_place(path: Path, *, overwrite: bool) -> Path:
    """As `check_output`, for a file of any suffix."""
    with _writing(path):
        if path.is_dir():
            raise ImageError(f"{str(path)!r} is a folder; a file name was expected")
        if not path.parent.is_dir():
            raise ImageError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}")
        if not overwrite and os.path.lexists(path):
            raise _in_the_way(path)
    check_folder(path)
    return path


def check_page(path: Path, *, overwrite: bool) -> None:
    """ImageError unless `explain.layout.save_page` can write there: see `check_output`."""
    if path.suffix.lower() not in PAGE_SUFFIXES:
        given = f"has the unknown suffix {path.suffix!r}" if path.suffix else "has no suffix"
        raise ImageError(f"{str(path)!r} {given}; pages are written as {', '.join(PAGE_SUFFIXES)}")
    # What is checked besides is the same for all kinds of file.
    probe = path if path.suffix.lower() in SUFFIXES else path.with_suffix(".png")
    check_output(probe, overwrite=True)
    if path.is_dir():
        raise ImageError(f"{str(path)!r} is a folder; a file name was expected")
    if not overwrite and path.exists():
        raise ImageError(f"{str(path)!r} is already there; choose another name")


def check_folder(path: Path) -> None:
    """ImageError unless a file can be made beside `path`, which is tried: permission bits say
    nothing of read-only or network disks."""
    with _writing(path):
        scratch, handle = _scratch_file(path.parent)
        try:
            os.close(handle)
        finally:
            scratch.unlink()


def write_atomically(path: Path, data: bytes, *, overwrite: bool = True) -> None:
    """Write `data` so that `path` holds all of it or what was there before.

    A link stays a link: what it points at is replaced.

    Raises:
        ImageError: it cannot be written, or a file is there and `overwrite` is off; nothing is left
            behind then.
    """
    with appearing_whole(path, overwrite=overwrite) as scratch, scratch.open("wb") as stream:
        stream.write(data)


@contextmanager
def appearing_whole(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """A file beside `path`, empty, for the caller to write; after that it is what `path` holds.

    If the caller raises, `path` holds what was there before. See `write_atomically`.
    """
    path = Path(path)
    with _writing(path):
        target = Path(os.path.realpath(path)) if overwrite else path
        scratch, handle = _scratch_file(target.parent)  # same folder: a rename cannot cross disks
        try:
            os.close(handle)
            yield scratch
            with scratch.open("rb+") as stream:
                os.fsync(stream.fileno())
            if overwrite:
                os.replace(scratch, target)
            else:
                _place_new(scratch, target)
            _sync_folder(target.parent)
        finally:
            with suppress(OSError):  # what is placed is placed, and what failed has said why
                scratch.unlink(missing_ok=True)


def _place_new(scratch: Path, target: Path) -> None:
    try:
        os.link(scratch, target)  # unlike a rename, fails if something is there
        return
    except FileExistsError:
        raise _in_the_way(target) from None
    except OSError:
        pass  # FAT and some network disks have no links
    if os.path.lexists(target):
        raise _in_the_way(target)
    os.rename(scratch, target)


def _in_the_way(path: Path) -> InTheWayError:
    return InTheWayError(
        f"{str(path)!r} is already there; choose another name or allow to overwrite"
    )


def _sync_folder(folder: Path) -> None:
    """Have the new name outlast a power cut; the bytes of the file do already."""
    with suppress(OSError):  # Windows opens no folder, some network disks sync none
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _scratch_file(folder: Path) -> tuple[Path, int]:
    """A new file, open for writing. Not `mkstemp`: its files stay closed to other users.

    Those that killed processes have left in the folder go.
    """
    remove_strays(folder)
    path = folder / f".phosphene-{_processes()}-{os.getpid()}-{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return path, os.open(path, flags, 0o666)


def remove_strays(folder: Path) -> None:
    """Remove the scratch files of processes that are dead, and never one of a living process.

    Whether a process lives can be asked on its own machine alone: what others have left goes after
    `STRAY_AGE`.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for name in [entry.name for entry in entries]:
            if found := _SCRATCH.fullmatch(name):
                with suppress(OSError):  # another process may remove the same
                    path = folder / name
                    if _is_stray(path, found["processes"], found["process"]):
                        path.unlink()


def _is_stray(path: Path, processes: str | None, process: str | None) -> bool:
    if process and processes == _processes() and os.name == "posix":
        return not _lives(int(process))
    return time.time() - path.stat().st_mtime > STRAY_AGE


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)  # asks; on Windows it would kill
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True


@functools.cache
def _processes() -> str:
    """Which machine numbers this process: its name, its start and, in a container, the space."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:8]


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
            reason = "the disk is full"
        else:
            reason = error.strerror or str(error)
        raise ImageError(f"cannot write {str(path)!r}: {reason}") from error


def format_of(path: Path) -> str:
    """The format, as Pillow calls it, that a suffix asks for; ImageError for any other suffix."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        given = f"has the unknown suffix {path.suffix!r}" if suffix else "has no suffix"
        raise ImageError(f"{str(path)!r} {given}; pictures are written as {', '.join(SUFFIXES)}")
    return SUFFIXES[suffix]
