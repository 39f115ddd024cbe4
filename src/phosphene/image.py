"""Pictures in and out: read, write, resize, and the recipe that a file carries.

An image is a float32 tensor `(N, 3, H, W)`, sRGB, in [0, 1]. No class wraps it; `Picture` is only
what one file holds. Reading turns whatever a file is (greyscale, palette, CMYK, another colour
space, a camera held sideways) into that; writing puts down pixels, alpha, the fact that they are
sRGB, and the recipe, and nothing else: no place, no camera.
"""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import math
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile, PngInfo
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile
from torch import Tensor

from phosphene.errors import ImageError, SettingsError, suggest

#: The most pixels that are read or made. Float32 RGB of that size is 3.6 GB.
PIXEL_LIMIT = 300_000_000

#: What can be written, by suffix.
SUFFIXES = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}

# A dream's finest structure is saturated colour, which 4:2:0 would smear; WebP has no other.
_SETTINGS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95, "method": 4, "exact": True},
    "TIFF": {"compression": "tiff_deflate"},
}
_LONGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383}  # px; what libjpeg and the WebP format allow


class Picture(NamedTuple):
    """What a file holds."""

    pixels: Tensor
    """`(1, 3, H, W)` float32 sRGB in [0, 1]."""
    alpha: Tensor | None
    """`(1, 1, H, W)` float32 in [0, 1], 1 is opaque; None if the file has none."""
    notes: tuple[str, ...]
    """What a user should know, such as "first of 12 frames"."""


# --- reading ---------------------------------------------------------------------------------


def read_image(source: str | Path, *, size: int | None = None) -> Picture:
    """Read a JPEG, PNG, WebP, TIFF, BMP or GIF of any mode.

    `size` is the longest side in px to shrink or enlarge to; the shape is kept. Orientation (EXIF)
    is applied, colours are brought to sRGB (ICC), greyscale becomes three equal channels and keeps
    16 bits; of several frames the first is taken. Alpha comes apart from the pixels, which keep
    the colours that it hides.

    Raises ImageError for what cannot be read, and for more than `PIXEL_LIMIT` pixels, by the
    header alone. SettingsError for a `size` below 1.
    """
    if size is not None and size < 1:
        raise SettingsError(f"size is {size}; the longest side must be 1 px or more")
    path = Path(source)
    notes: list[str] = []
    with _opened(path) as file:
        _refuse_bomb(path, *file.size)
        frames = _frame_count(file)
        if frames > 1:
            unit = "pages" if file.format == "TIFF" else "frames"
            notes.append(f"first of {frames} {unit}")
        file.load()
        if file.mode.startswith("I") or file.mode == "F":
            colour, alpha = _read_deep(file, notes)
        else:
            colour, alpha = _read_eight_bit(file, notes)
        orientation = _orientation(file, notes)
        pixels = _to_tensor(_upright(colour, orientation))
        opacity = None if alpha is None else _to_tensor(_upright(alpha, orientation)[..., None])
    if pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1).contiguous()

    H, W = size_of(pixels)
    if size is not None and size != max(H, W):
        to = _fit(H, W, size)
        if math.prod(to) > PIXEL_LIMIT:
            raise ImageError(
                f"{str(path)!r} at {to[1]}x{to[0]} px is over the limit of "
                f"{PIXEL_LIMIT / 1e6:g} megapixels; give a smaller size"
            )
        pixels, opacity = _resize_seen(pixels, opacity, to)
        notes.append(f"resized {W}x{H} -> {to[1]}x{to[0]}")
    return Picture(pixels, opacity, tuple(notes))


def load_image(source: str | Path, size: int | None = None) -> Tensor:
    """The pixels of a file, `(1, 3, H, W)` float32 sRGB in [0, 1]: `read_image(...).pixels`."""
    return read_image(source, size=size).pixels


def load_mask(source: str | Path, size: tuple[int, int]) -> tuple[Tensor, tuple[str, ...]]:
    """The luminance of a picture as a mask `(1, 1, H, W)` in [0, 1], resized to `size` `(H, W)`.

    White is 1. What is transparent counts as black. Luminance is Rec. 709 luma of the sRGB values,
    so a grey of value v masks by exactly v. The notes say what was changed. Raises ImageError.
    """
    pixels, alpha, notes = read_image(source)
    weights = pixels.new_tensor([0.2126, 0.7152, 0.0722]).view(1, 3, 1, 1)
    mask = (pixels * weights).sum(1, keepdim=True)
    if alpha is not None:
        mask = mask * alpha
    (H, W), (h, w) = size, size_of(mask)
    if (h, w) != (H, W):
        stretched = abs(math.log(w * H / (h * W))) > 0.02  # more than rounding a side explains
        notes += (
            f"mask resized {w}x{h} -> {W}x{H}" + (", its proportions changed" if stretched else ""),
        )
        mask = resize(mask, (H, W))
    mask = mask.clamp(0, 1)
    if not mask.any():
        notes += ("the mask is black everywhere",)
    return mask, notes


# By their first bytes and not by the suffix, which lies. Opened by class: Image.open would run
# any of Pillow's forty decoders, and hold to a pixel limit that is global to the process.
_DECODERS: tuple[tuple[re.Pattern[bytes], type[ImageFile]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), JpegImageFile),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), WebPImageFile),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImageFile),
    (re.compile(rb"BM"), BmpImageFile),
    (re.compile(rb"GIF8[79]a"), GifImageFile),
)


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile]:
    """The open file, its header read; whatever goes wrong inside becomes one ImageError."""
    try:
        if path.is_dir():
            raise ImageError(f"{str(path)!r} is a folder; a picture file was expected")
        if not path.exists():
            raise ImageError(f"there is no file {str(path)!r}{_near(path)}")
        if not path.is_file():
            raise ImageError(f"{str(path)!r} is not a regular file; a picture file was expected")
        with path.open("rb") as stream:
            head = stream.read(16)
            stream.seek(0)
            if not head:
                raise ImageError(f"{str(path)!r} is empty")
            decoder = next((cls for magic, cls in _DECODERS if magic.match(head)), None)
            if decoder is None:
                raise ImageError(
                    f"{str(path)!r} is not a picture that can be read (it begins with {head!r}); "
                    "JPEG, PNG, WebP, TIFF, BMP and GIF can"
                )
            with decoder(stream) as file:
                yield file
    except ImageError:
        raise
    except Exception as error:  # decoders raise nearly anything on damaged files
        reason = error.strerror if isinstance(error, OSError) else None
        reason = " ".join((reason or str(error) or type(error).__name__).split())
        raise ImageError(f"cannot read {str(path)!r}: {reason}") from error


def _near(path: Path) -> str:
    """The pictures in the folder whose names come closest, for a message."""
    folder = path.parent
    if not folder.is_dir():
        return f"; there is no folder {str(folder)!r} either"
    known = {*SUFFIXES, ".bmp", ".gif"}
    with os.scandir(folder) as entries:
        # A few thousand will do: comparing names is slow, and this is only a message.
        names = [entry.name for entry in itertools.islice(entries, 4000)]
    return suggest(path.name, sorted(n for n in names if Path(n).suffix.lower() in known))


def _refuse_bomb(path: Path, width: int, height: int) -> None:
    if width * height > PIXEL_LIMIT:
        raise ImageError(
            f"{str(path)!r} says it is {width}x{height} px; "
            f"the limit is {PIXEL_LIMIT / 1e6:g} megapixels"
        )


def _frame_count(file: ImageFile) -> int:
    try:
        return getattr(file, "n_frames", 1)
    except Exception:  # a broken chain of frames does not spoil the first
        file.seek(0)
        return 1


def _read_eight_bit(file: Image.Image, notes: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Colour `(H, W, 3)` and alpha `(H, W)`, both uint8, of any mode with 8 bits or fewer."""
    alpha = None
    grey = file.mode in ("1", "L", "LA", "La")
    if file.mode in ("CMYK", "LAB"):
        colour: Image.Image = file
    elif file.has_transparency_data:
        # La has no way to RGBA of its own.
        rgba = (file.convert("LA") if file.mode == "La" else file).convert("RGBA")
        alpha = np.asarray(rgba.getchannel("A"))
        colour = Image.merge("RGB", rgba.split()[:3])  # and not convert, which may blend
    else:
        colour = file.convert("RGB")
    if data := file.info.get("icc_profile"):
        colour = _to_srgb(colour, data, grey, notes)
    if colour.mode == "CMYK":
        notes.append("converted from CMYK, without a colour profile")
        colour = colour.convert("RGB")
    elif colour.mode == "LAB":
        notes.append("converted from CIELAB")
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        colour = _transformed(colour, ImageCms.buildTransform(lab, srgb, "LAB", "RGB"))
    return np.asarray(colour), alpha


def _to_srgb(colour: Image.Image, data: bytes, grey: bool, notes: list[str]) -> Image.Image:
    """`colour` (RGB, CMYK or LAB) by its ICC profile in sRGB; as it was where that cannot be."""
    with _noting_damage(notes):
        profile, space, name = _profile(data)
        if space == "GRAY" and grey:
            source = colour.getchannel(0)
        elif {"RGB": "RGB", "CMYK": "CMYK", "Lab": "LAB"}.get(space) == colour.mode:
            source = colour
        else:
            notes.append(f"ICC profile {name!r} ignored: it is for {space} pictures")
            return colour
        transform = _transform(profile, source.mode)
        if not _changes_nothing(transform, source.mode):
            converted = _transformed(source, transform)
            was = "CMYK, by " if colour.mode == "CMYK" else ""
            notes.append(f"converted from {was}ICC profile {name!r}")
            return converted
    return colour


def _deep_to_srgb(grey: np.ndarray, data: bytes, notes: list[str]) -> np.ndarray:
    """16-bit `grey` in [0, 1] by its ICC profile in sRGB, no less deep."""
    with _noting_damage(notes):
        profile, space, name = _profile(data)
        if space == "RGB" and _changes_nothing(_transform(profile, "RGB"), "RGB"):
            return grey
        if space != "GRAY":
            notes.append(f"ICC profile {name!r} ignored: it is for {space} pictures")
            return grey
        # LittleCMS gives 8-bit sRGB. Where its steps from k to k + 1 lie among 65536 inputs, the
        # curve is at k + 1/2: enough to draw it through.
        ramp = Image.fromarray(np.arange(65536, dtype=np.uint16)[None])
        levels = np.asarray(_transformed(ramp, _transform(profile, "I;16")))[0, :, 0].astype(float)
        steps = np.flatnonzero(np.diff(levels))
        inputs = [0, *(steps + 0.5), 65535]
        outputs = [levels[0], *(levels[steps] + levels[steps + 1]) / 2, levels[-1]]
        curved = np.interp(grey * 65535, inputs, outputs) / 255
        if np.abs(curved - grey).max() > 2 / 255:
            notes.append(f"converted from ICC profile {name!r}")
            return curved.astype(np.float32)
    return grey


@contextmanager
def _noting_damage(notes: list[str]) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # LittleCMS's errors, and the parser's before it
        reason = " ".join(str(error).split())
        notes.append(f"ICC profile ignored, it is damaged: {reason}")


def _profile(data: bytes) -> tuple[ImageCms.ImageCmsProfile, str, str]:
    """The profile, the colour space it is for, and its name."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
    name = " ".join(ImageCms.getProfileDescription(profile).split())
    space: str = profile.profile.xcolor_space  # pyright: ignore[reportAttributeAccessIssue]
    return profile, space.strip(), name or "unnamed"


def _transform(profile: ImageCms.ImageCmsProfile, mode: str) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(
        profile,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        # As browsers and Photoshop do; without it CMYK's black comes out grey.
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def _transformed(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    out = ImageCms.applyTransform(image, transform)
    if out is None:  # only an in-place transform gives None
        raise ValueError("the transform gave no picture")
    return out


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether the profile is sRGB itself, whatever its name, to within the rounding of tables.

    An sRGB picture then comes through bit for bit.
    """
    if mode == "L":
        greys = np.arange(256, dtype=np.uint8)[None]
        image, expected = Image.fromarray(greys), greys[..., None]
    elif mode == "RGB":
        levels = np.linspace(0, 255, 18).astype(np.uint8)
        expected = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
        image = Image.fromarray(expected)
    else:
        return False
    got = np.asarray(_transformed(image, transform))
    return int(np.abs(got.astype(int) - expected).max()) <= 2


def _read_deep(file: ImageFile, notes: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Greyscale `(H, W, 1)` and alpha `(H, W)`, float32, of 16-bit, 32-bit and float files."""
    values = np.asarray(file)
    alpha = None
    profile = file.info.get("icc_profile")
    if file.mode.startswith("I;16"):
        # 12-bit TIFF comes in this mode too; and in TIFF 0 may be white, which Pillow leaves so.
        tags = file.tag_v2 if isinstance(file, TiffImageFile) else {}
        peak = 2 ** int(np.max(tags.get(258, 16))) - 1
        transparent = file.info.get("transparency")
        if isinstance(transparent, int):
            alpha = (values != transparent).astype(np.float32)
        grey = values.astype(np.float32) / peak
        if tags.get(262) == 0:
            grey = 1 - grey
        if profile:
            grey = _deep_to_srgb(grey, profile, notes)
        return grey[..., None], alpha
    if file.mode == "F":
        finite = np.isfinite(values)
        if not finite.any():
            raise ValueError("it holds no finite value")
        if not finite.all():
            notes.append(f"{int((~finite).sum())} values that are not finite read as the least")
            values = np.where(finite, values, values[finite].min())
        grey = _within(values, 1, notes)
    else:
        grey = _within(values, 65535, notes)
    if profile:
        notes.append("ICC profile ignored: the picture is deeper than 16 bits")
    return grey[..., None], alpha


def _within(values: np.ndarray, most: int, notes: list[str]) -> np.ndarray:
    """`values` in [0, most] to [0, 1]; where some lie beyond, from their own least and greatest."""
    low, high = values.min().item(), values.max().item()
    if low < 0 or high > most:
        notes.append(f"values {low:g} to {high:g} stretched from black to white")
    else:
        low, high = 0, most
    return ((values.astype(np.float64) - low) / ((high - low) or 1)).astype(np.float32)


def _orientation(file: Image.Image, notes: list[str]) -> int:
    try:
        return int(file.getexif().get(0x0112, 1))
    except Exception:  # its parser raises nearly anything on damaged blocks
        notes.append("EXIF ignored, it is damaged: the picture may lie on its side")
        return 1


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """`(H, W, …)` as EXIF 2.3's tag Orientation (1 to 8) wants it shown; other values: as it is."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    return array[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def _to_tensor(array: np.ndarray) -> Tensor:
    """`(H, W, C)` uint8 or float32 to `(1, C, H, W)` float32 in [0, 1]."""
    tensor = torch.from_numpy(np.array(array)).permute(2, 0, 1)[None]
    if tensor.dtype == torch.uint8:
        return tensor.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    return tensor.contiguous()


def _fit(H: int, W: int, longest: int) -> tuple[int, int]:
    scale = longest / max(H, W)
    return max(1, round(H * scale)), max(1, round(W * scale))


def _resize_seen(
    pixels: Tensor, alpha: Tensor | None, size: tuple[int, int]
) -> tuple[Tensor, Tensor | None]:
    """Resize colours by how much of them is seen, so that hidden ones do not bleed into edges."""
    resized = resize(pixels, size)
    if alpha is None:
        return resized.clamp_(0, 1), None
    seen = resize(alpha, size).clamp_(0, 1)
    weighted = resize(pixels * alpha, size) / seen.clamp_min(1 / 255)
    return torch.where(seen > 1 / 255, weighted, resized).clamp_(0, 1), seen


# --- resizing --------------------------------------------------------------------------------


def size_of(image: Tensor) -> tuple[int, int]:
    """`(H, W)` of an image `(…, H, W)`."""
    return image.shape[-2], image.shape[-1]


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize `(N, C, H, W)`, of any floating dtype and device, to `size` `(H, W)`.

    Antialiased bicubic (Catmull-Rom, as in Pillow). Bilinear would leave creases at every source
    pixel of an enlargement, and an ascent takes up creases as if they were structure. Bicubic may
    overshoot at edges, and nothing is clamped: so it is linear, and the detail that an octave lost
    can be found by subtraction. Differentiable. The same tensor comes back if the size is equal.

    Raises ImageError for another shape or dtype, or a side below 1.
    """
    if image.ndim != 4 or not image.is_floating_point():
        raise ImageError(
            f"resize takes a floating tensor (N, C, H, W); "
            f"this is {str(image.dtype).removeprefix('torch.')} {tuple(image.shape)}"
        )
    if min(*size, *size_of(image)) < 1:
        raise ImageError(f"cannot resize {size_of(image)} to {tuple(size)}; each side is 1 or more")
    if tuple(size) == size_of(image):
        return image
    # Half precision has no kernel on CPU, and Apple's GPU none in every version of torch.
    work = image if image.dtype == torch.float64 else image.float()
    if image.device.type not in ("cpu", "cuda"):
        work = work.cpu()
    if image.device.type == "cuda":
        # Its filter must fit in shared memory, which a shrink by some forty times overruns.
        for between in _stages(size_of(image), size, 16):
            work = _bicubic(work, between)
    return _bicubic(work, size).to(image)


def _bicubic(image: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(image, list(size), mode="bicubic", align_corners=False, antialias=True)


def _stages(have: tuple[int, int], want: tuple[int, int], most: int) -> list[tuple[int, int]]:
    """The sizes on the way from `have` to `want` where no step shrinks more than `most` times."""
    stages: list[tuple[int, int]] = []
    while any(h > most * w for h, w in zip(have, want, strict=True)):
        have = (max(want[0], -(-have[0] // most)), max(want[1], -(-have[1] // most)))
        stages.append(have)
    return stages


# --- writing ---------------------------------------------------------------------------------


def to_uint8(image: Tensor) -> np.ndarray:
    """`(1, 3, H, W)` or `(3, H, W)` in [0, 1] to `(H, W, 3)` uint8: rounded, clamped.

    Raises ImageError for another shape or dtype, and for values that are not finite.
    """
    return _bytes_of(image, 3, "image")


def _bytes_of(image: Tensor, channels: int, what: str) -> np.ndarray:
    given = f"{str(image.dtype).removeprefix('torch.')} {tuple(image.shape)}"
    shaped = image[0] if image.ndim == 4 and image.shape[0] == 1 else image
    if shaped.ndim != 3 or shaped.shape[0] != channels or not image.is_floating_point():
        raise ImageError(
            f"the {what} is {given}; one floating (1, {channels}, H, W) or ({channels}, H, W) "
            "was expected"
        )
    if shaped.numel() == 0:
        raise ImageError(f"the {what} is {given}; each side must be 1 px or more")
    shaped = shaped.detach()
    bad = int((~shaped.isfinite()).sum())
    if bad:
        raise ImageError(f"the {what} holds {bad} values that are infinite or not a number")
    # Float32 first: bfloat16 cannot count to 255 in single steps.
    levels = (shaped.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return levels.permute(1, 2, 0).cpu().contiguous().numpy()


def encoded_like(image: Tensor, path: Path) -> np.ndarray:
    """The `(H, W, 3)` uint8 pixels that a reader gets back once `image` is saved at `path`.

    Nothing is written. Raises ImageError as `save_image` does.
    """
    kind = _format_of(Path(path))
    pixels = to_uint8(image)
    if kind not in ("JPEG", "WEBP"):
        return pixels
    data = io.BytesIO(_encode(pixels, None, None, kind))
    decoder = JpegImageFile if kind == "JPEG" else WebPImageFile
    with decoder(data) as file:
        return np.asarray(file.convert("RGB"))


def save_image(
    image: Tensor,
    path: str | Path,
    *,
    alpha: Tensor | None = None,
    recipe: str | None = None,
    overwrite: bool = True,
) -> Path:
    """Write `image`, `(1, 3, H, W)` or `(3, H, W)` in [0, 1], as PNG, JPEG, WebP or TIFF.

    The suffix tells which. Values beyond [0, 1] are clamped; 8 bits a channel. `alpha` is
    `(1, 1, H, W)` or `(1, H, W)` in [0, 1]; JPEG has none, so there the picture is laid over white,
    as on paper. `recipe` is text that `read_recipe` finds again. The file appears whole or not at
    all. Returns its path.

    Raises ImageError: see `check_output`; also values that are not finite, a picture too large for
    the format, a full disk.
    """
    path = check_output(path, overwrite=overwrite)
    pixels = to_uint8(image)
    opacity = None if alpha is None else _bytes_of(alpha, 1, "alpha")
    if opacity is not None and opacity.shape[:2] != pixels.shape[:2]:
        raise ImageError(
            f"alpha is {opacity.shape[1]}x{opacity.shape[0]} px, "
            f"the image {pixels.shape[1]}x{pixels.shape[0]}; they must be equal"
        )
    write_atomically(path, _encode(pixels, opacity, recipe, _format_of(path)), overwrite=overwrite)
    return path


def check_output(path: str | Path, *, overwrite: bool) -> Path:
    """See before any computing that `save_image` can write at `path`; returns it.

    Raises ImageError unless the suffix is known, the folder is there and can be written to, and no
    file is in the way (or `overwrite` allows to replace it).
    """
    path = Path(path)
    _format_of(path)
    with _writing(path):
        if path.is_dir():
            raise ImageError(f"{str(path)!r} is a folder; a file name was expected")
        if not path.parent.is_dir():
            raise ImageError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}")
        if not overwrite and os.path.lexists(path):
            raise _in_the_way(path)
        # Trying is the only sure way: permission bits say nothing of read-only or network disks.
        scratch, handle = _scratch_file(path.parent)
        os.close(handle)
        scratch.unlink()
    return path


def write_atomically(path: Path, data: bytes, *, overwrite: bool = True) -> None:
    """Write `data` so that `path` holds all of it or what was there before.

    A link stays a link: what it points at is replaced. Raises ImageError if it cannot be written,
    or if a file is there and `overwrite` is off; nothing is left behind then.
    """
    path = Path(path)
    with _writing(path):
        target = Path(os.path.realpath(path)) if overwrite else path
        scratch, handle = _scratch_file(target.parent)  # same folder: a rename cannot cross disks
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            if overwrite:
                os.replace(scratch, target)
            else:
                _place_new(scratch, target)
        finally:
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


def _in_the_way(path: Path) -> ImageError:
    return ImageError(f"{str(path)!r} is already there; choose another name or allow to overwrite")


def _scratch_file(folder: Path) -> tuple[Path, int]:
    """A new file, open for writing. Not `mkstemp`: its files stay closed to other users."""
    path = folder / f".phosphene-{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return path, os.open(path, flags, 0o666)


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


def _format_of(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        given = f"has the unknown suffix {path.suffix!r}" if suffix else "has no suffix"
        raise ImageError(f"{str(path)!r} {given}; pictures are written as {', '.join(SUFFIXES)}")
    return SUFFIXES[suffix]


def _encode(pixels: np.ndarray, alpha: np.ndarray | None, recipe: str | None, kind: str) -> bytes:
    """The bytes of a file. `pixels` `(H, W, 3)`, `alpha` `(H, W, 1)`, uint8."""
    H, W = pixels.shape[:2]
    longest = _LONGEST_SIDE.get(kind)
    if longest and max(H, W) > longest:
        raise ImageError(
            f"{W}x{H} px is too large for {kind}, which allows {longest} px a side; "
            "PNG and TIFF allow more"
        )
    if alpha is not None and kind == "JPEG":
        part = alpha.astype(np.float32) / 255
        pixels = (pixels * part + 255 * (1 - part)).round().astype(np.uint8)
    elif alpha is not None:
        pixels = np.concatenate([pixels, alpha], axis=2)

    settings = dict(_SETTINGS[kind])
    recipe = None if recipe is None else _legal(recipe)
    if kind == "PNG":
        settings["pnginfo"] = chunks = PngInfo()
        chunks.add(b"sRGB", b"\0")
        if recipe is not None:
            chunks.add_itxt("phosphene", recipe)
    else:
        settings["icc_profile"] = _srgb_profile()
    if recipe is not None and kind == "WEBP":
        settings["xmp"] = _packet(_own_rdf(recipe))
    if recipe is not None and kind == "TIFF":
        settings["tiffinfo"] = {700: _packet(_own_rdf(recipe))}
    out = io.BytesIO()
    try:
        Image.fromarray(pixels).save(out, format=kind, **settings)
    except (OSError, ValueError, MemoryError) as error:
        raise ImageError(f"cannot encode {W}x{H} px as {kind}: {error}") from error
    data = out.getvalue()
    if recipe is not None and kind == "JPEG":
        # Pillow hands what is extra to libjpeg in one block, which its buffer may not take. After
        # the start (2 bytes) and the JFIF segment (18), which must come first.
        data = data[:20] + _jpeg_segments(recipe) + data[20:]
    return data


def _srgb_profile() -> bytes:
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    # LittleCMS stamps the hour into the header; the same picture shall give the same bytes.
    data[24:36] = b"\x07\xd0\0\x01\0\x01\0\0\0\0\0\0"
    return bytes(data)


# --- the recipe ------------------------------------------------------------------------------

# Adobe's XMP Specification, parts 1 (the packet) and 3 (where each format keeps it).
_NAMESPACE = "urn:phosphene:1.0/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_XMP_NOTE = "http://ns.adobe.com/xmp/note/"
_APP1_MAIN = b"http://ns.adobe.com/xap/1.0/\0"
_APP1_MORE = b"http://ns.adobe.com/xmp/extension/\0"
_APP1_MOST = 65_533  # bytes: a segment's length is 16 bits and counts its own two


def read_recipe(path: str | Path) -> str | None:
    """The recipe that `save_image` put into a PNG, JPEG, WebP or TIFF; None if there is none.

    In an SVG it is found where `recipe_element` stands. Raises ImageError if the file cannot be
    read.
    """
    drawing = _svg(Path(path))
    if drawing is not None:
        return _recipe_in(drawing)
    with _opened(Path(path)) as file:
        found = file.info.get("phosphene")
        if found is None:
            for packet in _xmp_packets(file):
                found = found or _recipe_in(packet)
        if found is None and isinstance(file, PngImageFile):
            # Some tools move text behind the pixels when they write a PNG anew.
            _refuse_bomb(Path(path), *file.size)
            found = file.text.get("phosphene")
        return None if found is None else str(found)


def _legal(recipe: str) -> str:
    # XML has no way to write these, not even escaped; JSON never holds them bare.
    if re.search("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", recipe):
        raise ImageError("the recipe holds control characters; JSON text was expected")
    return recipe


def recipe_element(recipe: str) -> str:
    """The recipe as an element of XML. ImageError for text that XML cannot hold."""
    text = escape(_legal(recipe), {"\r": "&#13;"})
    return f'<phosphene:recipe xmlns:phosphene="{_NAMESPACE}">{text}</phosphene:recipe>'


def _own_rdf(recipe: str) -> str:
    return _rdf(recipe_element(recipe))


def _jpeg_segments(recipe: str) -> bytes:
    """The recipe as APP1 segments; one, unless it is longer than a segment can be."""
    rdf = _own_rdf(recipe)
    packet = _packet(rdf)
    if len(_APP1_MAIN) + len(packet) <= _APP1_MOST:
        return _app1(_APP1_MAIN + packet)
    # The packet only points at an extension, which lies in several segments.
    extension = rdf.encode()
    guid = hashlib.md5(extension, usedforsecurity=False).hexdigest().upper()
    pointer = f'<note:HasExtendedXMP xmlns:note="{_XMP_NOTE}">{guid}</note:HasExtendedXMP>'
    segments = [_app1(_APP1_MAIN + _packet(_rdf(pointer)))]
    head = _APP1_MORE + guid.encode() + len(extension).to_bytes(4, "big")
    step = _APP1_MOST - len(head) - 4
    for start in range(0, len(extension), step):
        piece = extension[start : start + step]
        segments.append(_app1(head + start.to_bytes(4, "big") + piece))
    return b"".join(segments)


def _rdf(properties: str) -> str:
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}">'
        f'<rdf:Description rdf:about="">{properties}</rdf:Description></rdf:RDF></x:xmpmeta>'
    )


def _packet(rdf: str) -> bytes:
    head = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    return f'{head}{rdf}<?xpacket end="r"?>'.encode()


def _app1(payload: bytes) -> bytes:
    return b"\xff\xe1" + (len(payload) + 2).to_bytes(2, "big") + payload


def _xmp_packets(file: ImageFile) -> Iterator[bytes]:
    packet = file.info.get("xmp")
    if isinstance(packet, str):
        packet = packet.encode()
    if packet:
        yield bytes(packet)
    if isinstance(file, JpegImageFile):
        # The extension's pieces may lie in any order: after its name each has 32 characters that
        # say of which packet, 4 bytes the whole length, 4 bytes where it begins.
        start = len(_APP1_MORE)
        pieces: dict[bytes, list[bytes]] = {}
        for _, data in file.applist:
            if data.startswith(_APP1_MORE):
                pieces.setdefault(data[start : start + 36], []).append(data[start + 36 :])
        for parts in pieces.values():
            yield b"".join(part[4:] for part in sorted(parts))


def _svg(path: Path) -> bytes | None:
    """All of an SVG file, or of other XML; None of any other."""
    with suppress(OSError):
        if path.is_file():
            with path.open("rb") as stream:
                head = stream.read(64)
                if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<svg", b"<?xml", b"<!--")):
                    return head + stream.read()
    return None


def _recipe_in(packet: bytes) -> str | None:
    if b"<!DOCTYPE" in packet:  # has no business in XMP, but could define entities without end
        return None
    tag = f"{{{_NAMESPACE}}}recipe"
    with suppress(ElementTree.ParseError, ValueError):
        for element in ElementTree.fromstring(packet.rstrip(b"\0 \r\n")).iter():
            if element.tag == tag:
                return element.text or ""
            if tag in element.attrib:  # the other form RDF allows, which other tools rewrite to
                return element.attrib[tag]
    return None


# --- a sky to start from ---------------------------------------------------------------------

_TILE = 512  # px a side of the noises that everything below is made of
_PERIOD = 6.0  # the clouds repeat after so many heights of the frame


def draw_sky(height: int, width: int, seed: int = 0) -> Tensor:
    """Draw fair-weather clouds over a horizon: a picture to dream on that is nobody's photograph.

    `(1, 3, height, width)` float32 sRGB in [0, 1], on CPU. The same seed is the same sky at every
    size: the frame's height is its unit and its middle stays, so a wider frame shows more of it.

    Each cloud is a heap of lobes on a flat base, its outline and relief from noise of round puffs
    (Worley, "A cellular texture basis function", 1996) bent by smooth noise. It is lit by how much
    less cloud there is a little nearer to the sun (Quilez, "Clouds", 2013), and fades into haze
    with distance. Raises SettingsError for sides below 1 or a negative seed.
    """
    if min(height, width) < 1 or seed < 0:
        raise SettingsError(
            f"a sky of {width}x{height} px with seed {seed}: sides are 1 or more, seeds 0 or more"
        )
    # Small skies are drawn large and shrunk, or their noise would alias.
    finer = min(-(-256 // height), math.isqrt(250_000 // (height * width)) or 1)
    H, W = height * finer, width * finer
    rng = np.random.default_rng(seed)
    smooth, puffs = _smooth_noise(rng), _puff_noise(rng)
    up = (1 - (torch.arange(H) + 0.5) / H).view(H, 1)  # 0 at the horizon, 1 at the upper edge
    along = ((torch.arange(W) + 0.5 - W / 2) / H).view(1, W)  # 0 in the middle

    zenith, blue, horizon = _rgb(0.13, 0.33, 0.66), _rgb(0.36, 0.58, 0.84), _rgb(0.80, 0.87, 0.92)
    sky = zenith + (blue - zenith) * torch.exp(-2.2 * up) + (horizon - blue) * torch.exp(-7 * up)
    sky = sky.expand(3, H, W).clone()
    sun = rng.uniform(-0.8, 0.8)
    glow = torch.exp(-1.5 * (along - sun) ** 2 - 3 * (up - 1.1) ** 2)
    sky += 0.16 * glow * _rgb(1, 0.95, 0.85)
    _draw_cirrus(sky, up, along, smooth, rng)

    amount = rng.uniform(0.75, 1.15)
    nearness = np.sort(rng.random(int(rng.integers(60, 84))) ** 1.9)  # far ones first, and most
    for near in nearness.tolist():
        _draw_cumulus(
            sky, up, along, smooth, puffs, rng, near, amount, math.copysign(1, sun), horizon
        )
    sky += (horizon - sky) * 0.55 * torch.exp(-16 * up)
    return resize(sky[None], (height, width)).clamp(0, 1)


def _draw_cirrus(
    sky: Tensor, up: Tensor, along: Tensor, smooth: Tensor, rng: np.random.Generator
) -> None:
    """Thin streaks high up, in the perspective of a flat layer."""
    a, b, c, d = rng.random(4).tolist()
    distance = 1 / (up + 0.25)
    bend = _noise(smooth, along * distance * 0.12 + a, distance * 0.12 + b)
    streaks = _noise(smooth, along * distance * 0.22 + 0.05 * bend + c, distance * 0.8 + d)
    veil = 0.38 * _smoothstep(0.3, 2.6, streaks + 0.5 * bend) * _smoothstep(0.15, 0.6, up)
    sky += (_rgb(0.95, 0.97, 1) - sky) * veil


def _draw_cumulus(
    sky: Tensor,
    up: Tensor,
    along: Tensor,
    smooth: Tensor,
    puffs: Tensor,
    rng: np.random.Generator,
    near: float,
    amount: float,
    sunward: float,
    horizon: Tensor,
) -> None:
    """One cloud over `sky`, in place. `near` is 0 at the horizon, 1 overhead."""
    # All of its chance first, so that clouds out of frame do not change those within.
    base = 0.015 + 0.64 * near**1.2
    unit = (0.035 + 0.30 * near**1.1) * amount * rng.uniform(0.55, 1.35)
    middle = rng.uniform(-_PERIOD / 2, _PERIOD / 2)
    flatness = rng.uniform(0.6, 1)
    lobes = [
        (rng.normal() * 0.75, rng.uniform(0.35, 0.95), rng.uniform(0.3, 1.05) * flatness)
        for _ in range(int(rng.integers(4, 8)))
    ]
    a, b, c, d, e, f, g, h = rng.random(8).tolist()

    # x and y in the cloud's own units, y from its base; only the part of the frame that it is in.
    y = (up - base) / unit
    x = (torch.remainder(along - middle + _PERIOD / 2, _PERIOD) - _PERIOD / 2) / unit
    rows = ((y > -0.35) & (y < 1.75)).flatten().nonzero().flatten().tolist()
    columns = (x.abs() < 3.3).flatten().nonzero().flatten().tolist()
    if not rows or not columns:
        return
    window = (slice(None), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    x, y = torch.broadcast_tensors(x[:, window[2]], y[window[1]])

    broad = _noise(smooth, x * 0.09 + a, y * 0.09 + b)
    finer = _noise(smooth, x * 0.21 + c, y * 0.21 + d)
    bent_x, bent_y = x + 0.11 * broad + 0.03 * finer, y + 0.08 * finer
    heap = torch.zeros_like(x)
    for at, half_width, tall in lobes:
        tall *= max(0.35, 1.25 - 0.4 * abs(at))
        lobe = 1 - ((bent_x - at) / half_width) ** 2 - ((bent_y - 0.14) / tall) ** 2
        heap += torch.exp(4 * lobe.clamp_min(-2))
    heap = heap.log() / 4  # a soft maximum: lobes melt into each other

    px, py = bent_x * 0.115 + e, bent_y * 0.125 + f
    large, medium = _noise(puffs, px, py), _noise(puffs, px * 2.3 + 0.37, py * 2.3)
    small = _noise(puffs, px * 5.7, py * 5.7)
    relief = 0.55 * large + 0.30 * medium + 0.15 * small - 0.6
    fray = _noise(smooth, x * 0.6 + g, y * 0.6 + h)
    depth = 0.62 * heap + 2.1 * relief + 0.07 * fray
    floor = y + 0.16 + 0.05 * finer + 0.3 * (large - 0.6)

    rise = _smoothstep(-0.1, 1.0, y + 0.5 * relief + 0.08 * sunward * x)
    sx, sy = px + 0.0176 * sunward, py + 0.022
    facing = 0.9 * (large - _noise(puffs, sx, sy))
    facing += 0.55 * (medium - _noise(puffs, sx * 2.3 + 0.37, sy * 2.3))
    thin = 1 - _smoothstep(0, 0.9, depth)
    light = 0.02 + 0.6 * rise + 1.9 * facing * (0.45 + 0.55 * rise)
    light += 0.26 * thin * (0.4 + 0.6 * rise) + 0.5 * relief
    light = light.clamp(0, 1)
    light = light * (1.75 - 0.75 * light)
    shadow, lit = _rgb(0.47, 0.545, 0.665), _rgb(1, 0.99, 0.965)
    colour = shadow + (lit - shadow) * light.clamp(0, 1)

    haze = 0.72 * math.exp(-4.2 * near)
    colour += (0.99 * horizon - colour) * haze
    cover = _smoothstep(0, 1, depth / (0.46 - 0.16 * rise)) * _smoothstep(-0.05, 0.34, floor)
    sky[window] += (colour - sky[window]) * cover * (1 - 0.35 * haze)


def _rgb(red: float, green: float, blue: float) -> Tensor:
    return torch.tensor([red, green, blue]).view(3, 1, 1)


def _smoothstep(low: float, high: float, x: Tensor) -> Tensor:
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _noise(tile: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """`tile` at `(x, y)`, in units of the tile, which repeats without end."""
    x, y = torch.broadcast_tensors(x, y)
    at = torch.stack([x - x.floor(), y - y.floor()], -1) * 2 - 1
    return F.grid_sample(tile, at[None], align_corners=True)[0, 0]


def _as_tile(array: np.ndarray) -> Tensor:
    """With its first row and column again at the end, which is where it repeats."""
    return F.pad(torch.from_numpy(array.astype(np.float32))[None, None], (0, 1, 0, 1), "circular")


def _smooth_noise(rng: np.random.Generator) -> Tensor:
    """Noise with a 1/f^1.9 amplitude spectrum, mean 0 and deviation 1, that tiles."""
    frequency = np.hypot(
        np.fft.rfftfreq(_TILE, 1 / _TILE), np.fft.fftfreq(_TILE, 1 / _TILE)[:, None]
    )
    frequency[0, 0] = np.inf
    amplitude = frequency**-1.9 * np.exp(-((frequency / 110) ** 2))
    phase = np.exp(2j * np.pi * rng.random(amplitude.shape))
    noise = np.fft.irfft2(amplitude * phase, s=(_TILE, _TILE))
    return _as_tile(noise / noise.std())


def _puff_noise(rng: np.random.Generator) -> Tensor:
    """Round puffs on round puffs, 0 to 1, that tile: three octaves of one minus squared distance
    to the nearest of scattered points."""
    total = np.zeros((_TILE, _TILE))
    for cells, weight in ((8, 4), (16, 2), (32, 1)):
        cell = _TILE // cells
        reach = cell * 3 // 2
        # Each point reaches its surroundings on a wider canvas; what overhangs is folded back.
        margin = 2 * reach
        canvas = np.full((_TILE + 2 * margin,) * 2, 1.2, np.float32)
        span = np.arange(-reach, reach, dtype=np.float32)
        points = (np.indices((cells, cells)) + rng.random((2, cells, cells))) * cell + margin
        for y, x in points.reshape(2, -1).T.tolist():
            row, column = int(y), int(x)
            squared = ((span + row - y) / cell)[:, None] ** 2 + ((span + column - x) / cell) ** 2
            patch = canvas[row - reach : row + reach, column - reach : column + reach]
            np.minimum(patch, squared, out=patch)
        for _ in range(2):
            canvas[margin : 2 * margin] = np.minimum(
                canvas[margin : 2 * margin], canvas[_TILE + margin :]
            )
            canvas[_TILE : _TILE + margin] = np.minimum(
                canvas[_TILE : _TILE + margin], canvas[:margin]
            )
            canvas = canvas.T
        nearest = canvas[margin : margin + _TILE, margin : margin + _TILE]
        puff = 1 - nearest / 1.2
        total += weight * puff * (1.6 - 0.6 * puff)
    return _as_tile(total / 7)
