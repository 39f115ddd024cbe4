"""`page`: a sheet or a card as a picture, and either as a file."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from phosphene import image as images
from phosphene.errors import ImageError
from phosphene.explain import pages
from phosphene.explain.sheets import Sheet, sheet_page
from phosphene.explain.units import CARD_SCALE, Card, card_page

SUFFIXES = (*images.SUFFIXES, ".svg", ".json")


def page(shown: Sheet | Card) -> Image.Image:
    """A sheet or a card as one picture."""
    return pages.as_image(_laid_out(shown), _scale(shown))


def svg(shown: Sheet | Card) -> str:
    """A sheet or a card as one SVG file, which holds its pictures and needs nothing else."""
    return pages.as_svg(_laid_out(shown))


def check_page(path: Path, *, overwrite: bool) -> None:
    """ImageError unless `save_page` can write there: see `image.check_output`."""
    if path.suffix.lower() not in SUFFIXES:
        given = f"has the unknown suffix {path.suffix!r}" if path.suffix else "has no suffix"
        raise ImageError(f"{str(path)!r} {given}; pages are written as {', '.join(SUFFIXES)}")
    # What is checked besides is the same for all kinds of file.
    probe = path if path.suffix.lower() in images.SUFFIXES else path.with_suffix(".png")
    images.check_output(probe, overwrite=True)
    if path.is_dir():
        raise ImageError(f"{str(path)!r} is a folder; a file name was expected")
    if not overwrite and path.exists():
        raise ImageError(f"{str(path)!r} is already there; choose another name")


def save_page(shown: Sheet | Card, path: Path, *, overwrite: bool = True) -> None:
    """Write a page as its suffix says: a picture, an SVG, or, all but the pictures, JSON."""
    suffix = path.suffix.lower()
    if suffix == ".json":
        text = json.dumps(shown.data(), indent=1, ensure_ascii=False) + "\n"
        images.write_atomically(path, text.encode("utf-8", "replace"), overwrite=overwrite)
    elif suffix == ".svg":
        images.write_atomically(path, svg(shown).encode(), overwrite=overwrite)
    else:
        drawn = pages.as_tensor(_laid_out(shown), _scale(shown))
        images.save_image(drawn, path, overwrite=overwrite)


def _laid_out(shown: Sheet | Card) -> pages.Page:
    return sheet_page(shown) if isinstance(shown, Sheet) else card_page(shown)


def _scale(shown: Sheet | Card) -> float:
    # A sheet's cells are shown px by px.
    return 1.0 if isinstance(shown, Sheet) else CARD_SCALE
