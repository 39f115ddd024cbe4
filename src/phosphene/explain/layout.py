"""`page`: a sheet, a card or a figure as a picture, and each as a file."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from phosphene import image as images
from phosphene.explain import pages
from phosphene.explain.pages import PageContent
from phosphene.image.files import check_page as check_page


def page(content: PageContent) -> Image.Image:
    """What a recipe for pages gave, such as a sheet or a card, as one picture."""
    return pages.as_image(content.layout(), content.page_scale)


def pixels(content: PageContent) -> Tensor:
    """The same picture as a tensor, `(1, 3, H, W)` in [0, 1]."""
    return pages.as_tensor(content.layout(), content.page_scale)


def svg(content: PageContent, recipe: str | None = None) -> str:
    """What a recipe for pages gave as one SVG file, with its pictures inside.

    recipe: text to lie inside, in its `<metadata>`.
    """
    return pages.as_svg(content.layout(), recipe)


def save_page(
    content: PageContent, path: Path, *, recipe: str | None = None, overwrite: bool = True
) -> None:
    """Write a page as its suffix says: a picture, an SVG, or, all but the pictures, JSON.

    recipe: JSON text to lie inside, in JSON under the key "recipe".
    """
    suffix = path.suffix.lower()
    if suffix == ".json":
        data = content.data() | ({} if recipe is None else {"recipe": json.loads(recipe)})
        text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
        images.write_atomically(path, text.encode("utf-8", "replace"), overwrite=overwrite)
    elif suffix == ".svg":
        images.write_atomically(path, svg(content, recipe).encode(), overwrite=overwrite)
    else:
        images.save_image(pixels(content), path, recipe=recipe, overwrite=overwrite)


_METADATA = re.compile(r"<metadata>.*?</metadata>\n", re.DOTALL)
_PNG = re.compile(r'(?<= href="data:image/png;base64,)[A-Za-z0-9+/=]*(?=")')


def compare_svg(one: str, other: str) -> tuple[bool, int | None, float | None]:
    """Compare two SVG pages but for their recipes.

    Whether they show the same; and how far their pictures are apart, in 8-bit levels, at most and
    on average: None unless they are as many, of the same sizes.
    """
    texts = [_METADATA.sub("", text, count=1) for text in (one, other)]
    if texts[0] == texts[1]:
        return True, 0, 0.0
    ours, theirs = ([_decoded(found) for found in _PNG.findall(text)] for text in texts)
    if len(ours) != len(theirs):
        return False, None, None
    apart = []
    for a, b in zip(ours, theirs, strict=True):
        if a is None or b is None or a.shape != b.shape:
            return False, None, None
        apart.append(abs(a - b).ravel())
    levels = np.concatenate(apart) if apart else np.zeros(1)
    most, words = int(levels.max()), [_PNG.sub("", text) for text in texts]
    return most == 0 and words[0] == words[1], most, float(levels.mean())


def _decoded(png: str) -> np.ndarray | None:
    """A picture of an SVG, `(H, W, 3)`; None if it is damaged, or none of ours."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(png)), formats=("PNG",)) as picture:
            return np.asarray(picture.convert("RGB")).astype(int)
    except Exception:  # decoders raise nearly anything
        return None
