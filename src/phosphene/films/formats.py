"""Which films are read and written: by their first bytes, and by suffix.

Nothing here needs torch, numpy or PyAV, so that a film can be refused before any of it is loaded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from phosphene.errors import FilmError, ImageError, suggest
from phosphene.image.files import READABLE_SUFFIXES, check_place

FRAME_LIMIT = 2**26
"""The most px of a frame that are read: 8192 × 8192."""

ANIMATED_WEBP = "webp"
"""What `demuxer_of` says of a file that Pillow decodes, since FFmpeg has no demuxer for it."""

READABLE = "MP4, MOV, MKV, WebM, AVI, GIF, WebP, APNG, MPEG-TS, MPEG-PS, Ogg and FLV"

# --- reading ---------------------------------------------------------------------------------

# The demuxer, which is then the only one that is allowed: FFmpeg's own choice would include
# playlists, which name further files and addresses, and three hundred parsers more.
_DEMUXERS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb".{4}(ftyp|moov|mdat|wide|free|skip|pnot)", re.DOTALL), "mov"),
    (re.compile(rb"\x1a\x45\xdf\xa3"), "matroska"),
    (re.compile(rb"RIFF.{4}AVI ", re.DOTALL), "avi"),
    (re.compile(rb"GIF8[79]a"), "gif"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), ANIMATED_WEBP),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "apng"),
    (re.compile(rb"OggS"), "ogg"),
    (re.compile(rb"FLV\x01"), "flv"),
    (re.compile(rb"\0\0\x01\xba"), "mpeg"),
    (re.compile(rb"(?:G.{187}){2}G|.{4}(?:G.{191}){2}G", re.DOTALL), "mpegts"),
)
_PICTURES: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"\xff\xd8\xff"), "JPEG"),
    (re.compile(rb"\x89PNG\r\n\x1a\n(?!.*acTL)", re.DOTALL), "PNG"),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), "TIFF"),
    (re.compile(rb"BM.{4}\0\0\0\0", re.DOTALL), "BMP"),
    (re.compile(rb".{4}ftyp(heic|heix|mif1|avif)", re.DOTALL), "HEIF"),
    (re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<svg", re.DOTALL), "SVG"),
)
_PLAYLIST = re.compile(
    rb"(\xef\xbb\xbf)?\s*(#EXTM3U|ffconcat|\[playlist\]|<asx|<smil|<\?xml.*<(MPD|smil)|"
    rb"\[Reference\]|RTSPtext|v=0\r?\n|#EXT-X-|rtsptext|(file|https?|rtsp|rtmp)[ :])",
    re.DOTALL | re.IGNORECASE,
)
# Two letters and more, for one is a drive.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+)(?:,[^/]*)?:")
_HEAD = 4096  # bytes


def demuxer_of(path: str | Path) -> str:
    """FFmpeg's demuxer for the film at `path`, by its first bytes; nothing else of it is opened.

    Raises:
        FilmError: an address or a protocol of FFmpeg's, no regular file, a playlist, a picture, or
            no film of a known format.
    """
    shown = repr(str(path))
    if (address := _ADDRESS.match(str(path))) and not os.path.lexists(path):
        raise FilmError(f"{shown} is an address ({address[1]}:); a film file was expected")
    head = _head(Path(path), shown)
    for magic, kind in _PICTURES:
        if magic.match(head):
            raise FilmError(f"{shown} is a picture ({kind}); a film was expected")
    if _PLAYLIST.match(head):
        raise FilmError(f"{shown} is a playlist, which names other files; a film file was expected")
    for magic, demuxer in _DEMUXERS:
        if magic.match(head):
            return demuxer
    raise FilmError(
        f"{shown} is not a film that can be read (it begins with {head[:16]!r}); {READABLE} can, "
        "and folders of pictures"
    )


def _head(path: Path, shown: str) -> bytes:
    """The first bytes of a regular file."""
    try:
        if not path.exists():
            raise FilmError(f"there is no file {shown}{_near(path)}")
        if path.is_dir():
            raise FilmError(f"{shown} is a folder; a film file was expected")
        if not path.is_file():
            raise FilmError(f"{shown} is not a regular file; a film file was expected")
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise FilmError(f"cannot read {shown}: {reason}") from error
    if not head:
        raise FilmError(f"{shown} is empty")
    return head


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; there is no folder {str(path.parent)!r} either"
    names = sorted(name for name in os.listdir(path.parent) if Path(name).suffix.lower() in MUXERS)
    return suggest(path.name, names)


def pictures_in(folder: str | Path) -> list[Path]:
    """The pictures of a folder, in the order of the numbers in their names; hidden ones are left.

    `frame2.png` comes before `frame10.png`. FilmError if there is none.
    """
    folder = Path(folder)
    try:
        found = [
            path
            for path in folder.iterdir()
            if path.suffix.lower() in READABLE_SUFFIXES and not path.name.startswith(".")
        ]
    except OSError as error:
        raise FilmError(f"cannot read {str(folder)!r}: {error.strerror}") from error
    if not found:
        raise FilmError(
            f"there are no pictures in {str(folder)!r}; files that end in "
            f"{', '.join(sorted(READABLE_SUFFIXES))} were expected"
        )
    return sorted(found, key=lambda path: _natural(path.name))


def _natural(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    """What orders names as people count: a digit's run by its value, before any letter."""
    parts = [part for part in re.split(r"([0-9]+)", name) if part]
    keys = [
        (False, int(part), "") if part[0] in "0123456789" else (True, 0, part) for part in parts
    ]
    return keys, name


# --- writing ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Encoder:
    """How a codec encodes here."""

    name: str
    """Of FFmpeg's encoder."""
    pixels: str
    """FFmpeg's name of the pixel format."""
    muxers: tuple[str, ...]
    """FFmpeg's names of the containers that may hold it."""
    options: Mapping[str, str] = field(default_factory=dict)
    quality: tuple[str, int, int] | None = None
    """The option that `crf` sets, its default and its most; None where there is no such choice."""
    preset: str | None = None
    """The option that says how thoroughly it looks, and so how long it takes."""

    @property
    def subsampled(self) -> bool:
        """Whether two px share a colour, so that sides must be even."""
        return "420" in self.pixels or "422" in self.pixels

    @property
    def depth(self) -> int:
        """Bits of a channel."""
        found = re.search(r"(\d\d)le$", self.pixels)
        return int(found[1]) if found else 8


#: FFmpeg's muxer, by suffix.
MUXERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".gif": "gif",
    ".webp": "webp",
}

#: How each codec is encoded; all of them give the same bytes for the same frames, which is why none
#: takes as many threads as a machine happens to have.
ENCODERS = {
    "h264": Encoder(
        "libx264",
        "yuv420p",
        ("mp4", "mov", "matroska"),
        quality=("crf", 16, 51),
        preset="slow",
    ),
    "hevc": Encoder(
        "libx265",
        "yuv420p10le",
        ("mp4", "mov", "matroska"),
        # `none` of its pools would leave it one thread; frame threads change its bytes.
        {"x265-params": "pools=4:frame-threads=1:log-level=none"},
        quality=("crf", 18, 51),
        preset="medium",
    ),
    "av1": Encoder(
        "libsvtav1",
        "yuv420p10le",
        ("mp4", "matroska", "webm"),
        {"svtav1-params": "lp=2"},
        quality=("crf", 22, 63),
        preset="6",
    ),
    "vp9": Encoder(
        "libvpx-vp9",
        "yuv420p",
        ("webm", "matroska", "mp4"),
        {"deadline": "good", "cpu-used": "2", "row-mt": "0"},
        quality=("crf", 22, 63),
    ),
    "ffv1": Encoder("ffv1", "gbrp12le", ("matroska",), {"level": "3", "slicecrc": "1"}),
    "prores": Encoder("prores_ks", "yuv422p10le", ("mov", "matroska"), {"profile": "3"}),
    "gif": Encoder("gif", "pal8", ("gif",)),
    "webp": Encoder("libwebp_anim", "bgra", ("webp",), {"quality": "90", "loop": "0"}),
}

#: What a container holds where no codec is named.
_DEFAULTS = {"webm": "vp9", "gif": "gif", "webp": "webp"}


def muxer_of(path: str | Path) -> str:
    """FFmpeg's muxer that a suffix asks for; FilmError for any other suffix."""
    suffix = Path(path).suffix.lower()
    if suffix not in MUXERS:
        given = f"has the unknown suffix {suffix!r}" if suffix else "has no suffix"
        raise FilmError(f"{str(path)!r} {given}; films are written as {', '.join(MUXERS)}")
    return MUXERS[suffix]


def codec_of(path: str | Path, codec: str | None = None) -> str:
    """The codec that a film at `path` is written with: `codec`, or what its suffix holds as a rule.

    That is H.264, VP9 in a WebM. FilmError for an unknown one, and for one that the container
    cannot hold.
    """
    muxer, suffix = muxer_of(path), Path(path).suffix.lower()
    if codec is None:
        return _DEFAULTS.get(muxer, "h264")
    if codec not in ENCODERS:
        raise FilmError(
            f"there is no codec {codec!r}{suggest(codec, ENCODERS, most=len(ENCODERS))}"
        )
    if muxer not in ENCODERS[codec].muxers:
        held = [name for name, encoder in ENCODERS.items() if muxer in encoder.muxers]
        ends = [end for end, each in MUXERS.items() if each in ENCODERS[codec].muxers]
        raise FilmError(
            f"a {suffix} file does not hold {codec}; it holds {', '.join(held)}, "
            f"and {codec} goes into {', '.join(ends)}"
        )
    return codec


def encoder_options(codec: str, crf: int | None) -> dict[str, str]:
    """What FFmpeg's encoder is told. FilmError for a `crf` that the codec does not have."""
    encoder = ENCODERS[codec]
    options = dict(encoder.options)
    if encoder.preset:
        options["preset"] = encoder.preset
    if encoder.quality:
        name, usual, most = encoder.quality
        if not 0 <= (usual if crf is None else crf) <= most:
            raise FilmError(f"crf is {crf}; {codec} takes 0 (largest file) to {most}")
        options[name] = str(usual if crf is None else crf)
    elif crf is not None:
        raise FilmError(f"crf is {crf}; {codec} has no such choice")
    return options


def check_film_output(
    path: str | Path, *, codec: str | None = None, crf: int | None = None, overwrite: bool = False
) -> Path:
    """See before any computing that `write_film` can write at `path`; returns it.

    Raises:
        FilmError: unless the suffix and the codec are known and go together, the folder is there
            and can be written to, and no file is in the way (or `overwrite` allows to replace it).
    """
    encoder_options(codec_of(path, codec), crf)
    try:
        return check_place(Path(path), overwrite=overwrite)
    except ImageError as error:
        raise FilmError(str(error)) from error
