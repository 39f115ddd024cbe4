"""The recipe that a picture carries: text put into PNG, JPEG, WebP, TIFF and SVG, and read again.

Nothing here needs torch or numpy, so that a recipe can be read without either.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from phosphene.errors import ImageError
from phosphene.image.files import check_pixels, open_image

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

# Adobe's XMP Specification, parts 1 (the packet) and 3 (where each format keeps it).
_NAMESPACE = "urn:phosphene:1.0/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_XMP_NOTE = "http://ns.adobe.com/xmp/note/"
_APP1_MAIN = b"http://ns.adobe.com/xap/1.0/\0"
_APP1_MORE = b"http://ns.adobe.com/xmp/extension/\0"
_APP1_MOST = 65_533  # bytes: a segment's length is 16 bits and counts its own two

PNG_KEY = "phosphene"
"""The keyword of the PNG text chunk that holds the recipe."""


def read_recipe(path: str | Path) -> str | None:
    """The recipe that `save_image` put into a PNG, JPEG, WebP or TIFF; None if there is none.

    In an SVG it is found where `recipe_element` stands.

    Raises:
        ImageError: the file cannot be read.
    """
    from PIL.PngImagePlugin import PngImageFile

    drawing = _svg(Path(path))
    if drawing is not None:
        return _recipe_in(drawing)
    with open_image(Path(path)) as file:
        found = file.info.get(PNG_KEY)
        if found is None:
            for packet in _xmp_packets(file):
                found = found or _recipe_in(packet)
        if found is None and isinstance(file, PngImageFile):
            # Some tools move text behind the pixels when they write a PNG anew.
            check_pixels(Path(path), *file.size)
            found = file.text.get(PNG_KEY)
        return None if found is None else str(found)


def checked_recipe(recipe: str) -> str:
    """The recipe, unless XML cannot hold it: then ImageError."""
    # XML has no way to write these, not even escaped; JSON never holds them bare.
    if re.search("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", recipe):
        raise ImageError("the recipe holds control characters; JSON text was expected")
    return recipe


def recipe_element(recipe: str) -> str:
    """The recipe as an element of XML. ImageError for text that XML cannot hold."""
    text = escape(checked_recipe(recipe), {"\r": "&#13;"})
    return f'<phosphene:recipe xmlns:phosphene="{_NAMESPACE}">{text}</phosphene:recipe>'


def xmp_packet(recipe: str) -> bytes:
    """The recipe as a packet of XMP, as WebP and TIFF hold one."""
    return _packet(_rdf(recipe_element(recipe)))


def with_jpeg_segments(data: bytes, recipe: str) -> bytes:
    """A JPEG file that Pillow wrote, with the recipe in it.

    Pillow hands what is extra to libjpeg in one block, which its buffer may not take.
    """
    # After the start (2 bytes) and the JFIF segment (18), which must come first.
    return data[:20] + _jpeg_segments(recipe) + data[20:]


def _jpeg_segments(recipe: str) -> bytes:
    """The recipe as APP1 segments; one, unless it is longer than a segment can be."""
    rdf = _rdf(recipe_element(recipe))
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
    from PIL.JpegImagePlugin import JpegImageFile

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
