"""Images: tensors of pixels, the files that hold them, and the recipe that a file carries.

An image is a float32 tensor `(N, 3, H, W)`, sRGB, in [0, 1]. No class wraps it; `DecodedImage` is
only what one file holds.

    tensor    size, resizing, luma, 8-bit pixels, grids
    codec     the pixels of a file, read and written
    files     which files can be read and written, and how one appears whole
    metadata  the recipe inside a file
    sky       clouds to start from
    start     what a picture starts from where there is no photograph

`files` and `metadata` import neither torch nor numpy: a name is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phosphene.lazy import lazy_names

if TYPE_CHECKING:
    from phosphene.image.codec import DecodedImage as DecodedImage
    from phosphene.image.codec import load_image as load_image
    from phosphene.image.codec import load_mask as load_mask
    from phosphene.image.codec import read_image as read_image
    from phosphene.image.codec import save_image as save_image
    from phosphene.image.files import PIXEL_LIMIT as PIXEL_LIMIT
    from phosphene.image.files import SUFFIXES as SUFFIXES
    from phosphene.image.files import check_output as check_output
    from phosphene.image.files import write_atomically as write_atomically
    from phosphene.image.metadata import read_recipe as read_recipe
    from phosphene.image.metadata import recipe_element as recipe_element
    from phosphene.image.sky import draw_sky as draw_sky
    from phosphene.image.start import start_picture as start_picture
    from phosphene.image.tensor import GRID_GAP as GRID_GAP
    from phosphene.image.tensor import REC_601 as REC_601
    from phosphene.image.tensor import REC_709 as REC_709
    from phosphene.image.tensor import fit as fit
    from phosphene.image.tensor import grid as grid
    from phosphene.image.tensor import luma as luma
    from phosphene.image.tensor import resize as resize
    from phosphene.image.tensor import size_of as size_of
    from phosphene.image.tensor import to_uint8 as to_uint8

_HOMES = {
    name: f"phosphene.image.{module}"
    for module, names in {
        "codec": ("DecodedImage", "load_image", "load_mask", "read_image", "save_image"),
        "files": ("PIXEL_LIMIT", "SUFFIXES", "check_output", "write_atomically"),
        "metadata": ("read_recipe", "recipe_element"),
        "sky": ("draw_sky",),
        "start": ("start_picture",),
        "tensor": (
            "GRID_GAP", "REC_601", "REC_709", "fit", "grid", "luma", "resize", "size_of",
            "to_uint8",
        ),
    }.items()
    for name in names
}  # fmt: skip

__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
