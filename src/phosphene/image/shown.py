"""Pictures as a notebook holds them: small files, since they are kept in it with its text."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from phosphene.image.tensor import fit, grid, resize, size_of, to_uint8

QUALITY = 85  # of a JPEG
FILM_QUALITY = 60  # of a film's frames, which pass quickly
STILLS, STRIP = 5, 720  # frames that stand for a film where none can be shown; px, all of them
MOST_PNG = 200_000  # bytes; a page that needs more is full of pictures

Bundle = tuple[dict[str, str], dict[str, Any]]


def as_jpeg(image: Tensor) -> bytes:
    """`(N, 3, H, W)` or `(3, H, W)` in [0, 1] as the bytes of a JPEG; several lie in a grid."""
    batch = image if image.ndim == 4 else image[None]
    return _encoded(Image.fromarray(to_uint8(grid(batch))), "JPEG", quality=QUALITY)


def page_bundle(picture: Image.Image, width: int) -> Bundle:
    """A page with letters as IPython's `_repr_mimebundle_` gives it, shown `width` px wide.

    PNG, or where that is large, JPEG.
    """
    data, kind = _encoded(picture, "PNG", optimize=True), "image/png"
    if len(data) > MOST_PNG:
        data = _encoded(picture, "JPEG", quality=QUALITY)
        kind = "image/jpeg"
    return {kind: b64encode(data).decode()}, {kind: {"width": width}}


def film_bundle(pictures: Sequence[Tensor], seconds: float) -> Bundle:
    """Pictures `(1, 3, H, W)` as a film that begins anew when it ends, `seconds` a frame.

    An animated WebP within HTML, since a GIF has 256 colours and is several times as large; some of
    the frames in a row where HTML is not shown.
    """
    frames = [Image.fromarray(to_uint8(picture)) for picture in pictures]
    data = _encoded(
        frames[0],
        "WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=round(1000 * seconds),
        loop=0,
        quality=FILM_QUALITY,
    )
    source = f"data:image/webp;base64,{b64encode(data).decode()}"
    shown = [pictures[round(i * (len(pictures) - 1) / (STILLS - 1))] for i in range(STILLS)]
    strip = grid(torch.cat(shown), columns=STILLS)
    if strip.shape[-1] > STRIP:
        strip = resize(strip, fit(size_of(strip), STRIP))
    html = f'<img alt="a film of {len(frames)} frames" src="{source}">'
    return {"text/html": html, "image/jpeg": b64encode(as_jpeg(strip)).decode()}, {}


def _encoded(picture: Image.Image, kind: str, **settings: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, format=kind, **settings)
    return out.getvalue()
