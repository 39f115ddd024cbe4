"""Pages of pictures, words and lines: described once, rendered as pixels or written as SVG.

Both come from the same measures and the same letters (Aileron, public domain, which Pillow
carries), so that a card in a paper and the one on a screen are the same card.
"""

from __future__ import annotations

import base64
import functools
import io
import itertools
import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, cast
from xml.sax.saxutils import escape, quoteattr

import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.ImageFont import FreeTypeFont
from torch import Tensor

from phosphene.errors import ImageError
from phosphene.image import PIXEL_LIMIT, recipe_element, size_of, to_uint8
from phosphene.image.shown import Bundle, page_bundle

INK, QUIET, FAINT, PAPER, ACCENT = "#1c1c1e", "#74747a", "#ececef", "#ffffff", "#e0245e"
# Lines are drawn so many times larger, and shrunk: Pillow's own have steps.
SUPERSAMPLING = 4
NOTEBOOK_SCALE = 1.5  # px to a page's measure in a notebook, which keeps them
# Letters that Pillow's font lacks, in pixels; SVG keeps the real ones.
SUBSTITUTES = str.maketrans({"×": "x", "−": "-", "–": "-", "—": "-", "ß": "ss", "→": ">", "’": "'"})


@dataclass(frozen=True)
class ImageItem:
    """An image `(3, h, w)` in [0, 1], stretched over a part of the page."""

    x: float
    y: float
    width: float
    height: float
    image: Tensor


@dataclass(frozen=True)
class Text:
    """One line of words; `x` is where it begins, ends or has its middle, `y` its baseline."""

    x: float
    y: float
    text: str
    size: float = 11.0
    colour: str = INK
    anchor: Literal["start", "middle", "end"] = "start"


@dataclass(frozen=True)
class Lines:
    """Straight lines from point to point, closed and filled if a `fill` is given."""

    points: tuple[tuple[float, float], ...]
    colour: str | None = INK
    width: float = 1.0
    fill: str | None = None
    dashed: bool = False


@dataclass(frozen=True)
class Ring:
    """A circle."""

    x: float
    y: float
    radius: float
    colour: str = ACCENT
    width: float = 1.5


Item = ImageItem | Text | Lines | Ring


@dataclass(frozen=True)
class Page:
    """What lies where, px from the upper left corner; what comes later lies on top."""

    width: float
    height: float
    items: tuple[Item, ...] = field(default=(), repr=False)
    title: str = ""


class PageContent(Protocol):
    """What a recipe for pages gives: something that can be laid out.

    page_scale: px of a picture of the page to one of its measures.
    subject: what it is about, as a manifest names it. settings: as they were resolved.
    """

    page_scale: ClassVar[float]

    @property
    def subject(self) -> tuple[str, ...]: ...

    @property
    def settings(self) -> Any: ...

    def layout(self) -> Page:
        """It, laid out."""
        ...

    def data(self) -> dict[str, Any]:
        """All but the pictures, as JSON can hold it."""
        ...


class ShownPage:
    """A page's content that a notebook shows as its page: the base of those of the package."""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Bundle:
        return page_bundle_of(cast(PageContent, self).layout())


def page_bundle_of(page: Page) -> Bundle:
    """A page as a notebook shows it."""
    return page_bundle(as_image(page, NOTEBOOK_SCALE), round(page.width))


def rectangle(
    x: float,
    y: float,
    width: float,
    height: float,
    *,
    colour: str | None = None,
    fill: str | None = None,
    line: float = 1.0,
) -> Lines:
    """Its outline runs along the middle of its line."""
    corners = ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
    return Lines((*corners, corners[0]), colour, line, fill)


# Words --------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=32)
def _font(size: float) -> FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, FreeTypeFont):
        raise ImageError("pages need a Pillow with FreeType, to write their labels")
    return font


@functools.lru_cache(maxsize=4096)
def _has_glyph(letter: str) -> bool:
    def shape(text: str) -> bytes:
        glyph = Image.new("L", (48, 48))
        ImageDraw.Draw(glyph).text((8, 36), text, 255, _font(24), "ls")
        return glyph.tobytes()

    return letter.isspace() or shape(letter) != shape("\uffff")


@functools.lru_cache(maxsize=4096)
def legible(text: str) -> str:
    """The text in letters that Pillow's font has: accents go, and what is foreign becomes "?"."""
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    letters = []
    for letter in text:
        for part in letter.translate(SUBSTITUTES):
            bare = part
            if not _has_glyph(part):
                parts = unicodedata.normalize("NFKD", part)
                bare = "".join(p for p in parts if not unicodedata.combining(p))
            letters.append("".join(p if _has_glyph(p) else "?" for p in bare))
    return "".join(letters)


def text_width(text: str, size: float = 11.0) -> float:
    """How wide a line of words is, px."""
    return _font(size).getlength(legible(text))


def truncate_text(text: str, width: float, size: float = 11.0) -> str:
    """The text, or as much of its beginning and end as fits into a width, with … between."""
    if text_width(text, size) <= width:
        return text
    for length in range(len(text) - 1, 0, -1):
        # The end of a file's name says more than its middle does.
        tail = length // 3
        short = text[: length - tail].rstrip() + "…" + (text[-tail:] if tail else "")
        if text_width(short, size) <= width:
            return short
    return "…"


def format_number(value: float) -> str:
    """A response or a tick as the pages write it: three figures."""
    return f"{value:.3g}"


# As pixels ----------------------------------------------------------------------------------------


def as_image(page: Page, scale: float = 1.0) -> Image.Image:
    """The page as a picture of `scale` times its measures, rounded up to whole px."""
    size = (math.ceil(page.width * scale), math.ceil(page.height * scale))
    if math.prod(size) > PIXEL_LIMIT:
        raise ImageError(
            f"a page of {size[0]}×{size[1]} px is over the limit of {PIXEL_LIMIT / 1e6:g} "
            "megapixels: fewer or smaller cells are needed"
        )
    canvas = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(canvas)
    for item in page.items:
        if isinstance(item, ImageItem):
            left, top = round(item.x * scale), round(item.y * scale)
            to = (round((item.x + item.width) * scale) - left, round(
                (item.y + item.height) * scale) - top)  # fmt: skip
            pixels = Image.fromarray(to_uint8(item.image))
            if pixels.size != to:
                pixels = pixels.resize(to, Image.Resampling.BICUBIC)
            canvas.paste(pixels, (left, top))
        elif isinstance(item, Text):
            place = (item.x * scale, item.y * scale)
            anchor = {"start": "ls", "middle": "ms", "end": "rs"}[item.anchor]
            font = _font(item.size * scale)
            pen.text(place, legible(item.text), item.colour, font, anchor)
        elif isinstance(item, Ring):
            turn = [2 * math.pi * i / 48 for i in range(49)]
            points = tuple(
                (item.x + item.radius * math.cos(t), item.y + item.radius * math.sin(t))
                for t in turn
            )
            _draw_lines(canvas, Lines(points, item.colour, item.width), scale)
        else:
            _draw_lines(canvas, item, scale)
    return canvas


def _draw_lines(canvas: Image.Image, item: Lines, scale: float) -> None:
    edge = item.width + 1
    xs, ys = [x for x, _ in item.points], [y for _, y in item.points]
    left = max(0, math.floor((min(xs) - edge) * scale))
    top = max(0, math.floor((min(ys) - edge) * scale))
    right = min(canvas.width, math.ceil((max(xs) + edge) * scale))
    bottom = min(canvas.height, math.ceil((max(ys) + edge) * scale))
    if right <= left or bottom <= top:
        return
    factor = SUPERSAMPLING * scale
    points = [
        (x * factor - left * SUPERSAMPLING - 0.5, y * factor - top * SUPERSAMPLING - 0.5)
        for x, y in item.points
    ]
    size = ((right - left) * SUPERSAMPLING, (bottom - top) * SUPERSAMPLING)
    for colour, outline in ((item.fill, False), (item.colour, True)):
        if colour is None:
            continue
        cover = Image.new("L", size, 0)
        pen = ImageDraw.Draw(cover)
        if outline:
            strokes = _dashes(points, 4 * factor) if item.dashed else [points]
            for stroke in strokes:
                pen.line(stroke, 255, max(1, round(item.width * factor)), joint="curve")
        else:
            pen.polygon(points, 255)
        cover = cover.resize((right - left, bottom - top), Image.Resampling.BOX)
        canvas.paste(Image.new("RGB", cover.size, colour), (left, top), cover)


def _dashes(
    points: Sequence[tuple[float, float]], length: float
) -> list[list[tuple[float, float]]]:
    dashes = []
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        span = math.hypot(x1 - x0, y1 - y0)
        for i in range(math.ceil(span / length / 2)):
            a, b = 2 * i * length / span, min(1.0, (2 * i + 1) * length / span)
            dashes.append(
                [(x0 + a * (x1 - x0), y0 + a * (y1 - y0)), (x0 + b * (x1 - x0), y0 + b * (y1 - y0))]
            )
    return dashes


def as_tensor(page: Page, scale: float = 1.0) -> Tensor:
    """The page as an image `(1, 3, H, W)` in [0, 1]."""
    image = as_image(page, scale)
    flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    levels = flat.view(image.height, image.width, 3)
    return levels.permute(2, 0, 1)[None].float().div_(255)


# As SVG -------------------------------------------------------------------------------------------


def as_svg(page: Page, recipe: str | None = None) -> str:
    """The page as one SVG file that needs nothing else: pictures and letters lie inside.

    recipe: text that `image.read_recipe` finds again.
    """
    face = base64.b64encode(_font(12.0).font_bytes).decode()
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{page.width:g}" height="{page.height:g}" '
        f'viewBox="0 0 {page.width:g} {page.height:g}">',
        f"<title>{escape(_xml_text(page.title))}</title>",
        *([] if recipe is None else [f"<metadata>{recipe_element(recipe)}</metadata>"]),
        f"<style>@font-face{{font-family:Aileron;src:url(data:font/ttf;base64,{face})}}"
        "text{font-family:Aileron,Helvetica,Arial,sans-serif;white-space:pre}</style>",
        f'<rect width="100%" height="100%" fill="{PAPER}"/>',
        *(_element(item) for item in page.items),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _element(item: Item) -> str:
    if isinstance(item, ImageItem):
        stream = io.BytesIO()
        Image.fromarray(to_uint8(item.image)).save(stream, "PNG", optimize=True)
        data = base64.b64encode(stream.getvalue()).decode()
        return (
            f'<image x="{item.x:g}" y="{item.y:g}" width="{item.width:g}" '
            f'height="{item.height:g}" preserveAspectRatio="none" '
            f'href="data:image/png;base64,{data}"/>'
        )
    if isinstance(item, Text):
        return (
            f'<text x="{item.x:g}" y="{item.y:g}" font-size="{item.size:g}" '
            f'fill="{item.colour}" text-anchor={quoteattr(item.anchor)}>'
            f"{escape(_xml_text(item.text))}</text>"
        )
    if isinstance(item, Ring):
        return (
            f'<circle cx="{item.x:g}" cy="{item.y:g}" r="{item.radius:g}" fill="none" '
            f'stroke="{item.colour}" stroke-width="{item.width:g}"/>'
        )
    points = " ".join(f"{x:.6g},{y:.6g}" for x, y in item.points)
    dash = ' stroke-dasharray="4 4"' if item.dashed else ""
    return (
        f'<polyline points="{points}" fill="{item.fill or "none"}" '
        f'stroke="{item.colour or "none"}" stroke-width="{item.width:g}" '
        f'stroke-linejoin="round"{dash}/>'
    )


def _xml_text(text: str) -> str:
    """Without what XML cannot hold, such as the lone surrogates of a broken file name."""
    return "".join(
        letter if letter.isprintable() and not 0xD800 <= ord(letter) <= 0xDFFF else "?"
        for letter in text
    )


# Grids --------------------------------------------------------------------------------------------


def without_rim(image: Tensor) -> Tensor:
    """A rendered cell `(…, h, w)` without its outermost px.

    There it meets the grey that moving it brings in, and has a rim of its own that means nothing.
    """
    return image[..., 1:-1, 1:-1]


def fit_inside(image: Tensor, width: float, height: float) -> tuple[float, float, float, float]:
    """Where an image `(…, H, W)` lies if it fills a frame, in its middle: x, y, width, height."""
    tall, wide = size_of(image)
    scale = min(width / wide, height / tall)
    w, h = wide * scale, tall * scale
    return (width - w) / 2, (height - h) / 2, w, h


def translated(items: Iterable[Item], x: float, y: float) -> list[Item]:
    """The same items, further right and down."""
    result: list[Item] = []
    for item in items:
        if isinstance(item, Lines):
            points = tuple((px + x, py + y) for px, py in item.points)
            result.append(Lines(points, item.colour, item.width, item.fill, item.dashed))
        else:
            result.append(type(item)(**{**vars(item), "x": item.x + x, "y": item.y + y}))
    return result
