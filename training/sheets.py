"""A sheet of dreams for the model card: three pictures by six layers of one network.

    python -m training.sheets runs/plain/checkpoint.pt --out docs/pictures/dreamnet.jpg

A sky that phosphene draws, a building ("china.jpg" by danielbuechele, CC BY 2.0, comes with
scikit-learn) and a cat ("chelsea.png" by Stefan van der Walt, CC0, comes with scikit-image), dreamt
with phosphene's defaults.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import phosphene
from phosphene.image import resize, to_uint8
from phosphene.zoo.dreamnet import MEAN, STD
from training import data, models

LAYERS = ("mixed3b", "mixed4a", "mixed4c", "mixed4d", "mixed5a", "mixed5b")
STRIP, GAP = 18, 4


def photographs(width: int) -> dict[str, Tensor]:
    """The three pictures, `(1, 3, 3/4 width, width)` in [0, 1]."""
    from skimage.data import chelsea
    from sklearn.datasets import load_sample_image

    height = width * 3 // 4
    pictures = {"sky": phosphene.draw_sky(height, width)}
    for name, pixels in (("building", load_sample_image("china.jpg")), ("cat", chelsea())):
        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 255
        tall, wide = image.shape[-2:]
        # The largest 4 : 3 part in the middle.
        crop_tall, crop_wide = min(tall, wide * 3 // 4), min(wide, tall * 4 // 3)
        top, left = (tall - crop_tall) // 2, (wide - crop_wide) // 2
        image = image[..., top : top + crop_tall, left : left + crop_wide]
        pictures[name] = resize(image, (height, width))
    return pictures


def page(rows: Sequence[Sequence[tuple[str, Tensor]]]) -> Image.Image:
    """Rows of captioned pictures `(1, 3, H, W)`, all of one size."""
    height, width = rows[0][0][1].shape[-2:]
    size = (len(rows[0]) * (width + GAP) + GAP, len(rows) * (height + STRIP) + GAP)
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for i, row in enumerate(rows):
        for j, (caption, image) in enumerate(row):
            left, top = GAP + j * (width + GAP), GAP + i * (height + STRIP)
            sheet.paste(Image.fromarray(to_uint8(image).reshape(height, width, 3)), (left, top))
            pen.text((left, top + height), caption, "black", font)
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", type=Path, help="checkpoint.pt or NAME.safetensors")
    parser.add_argument("--out", type=Path, required=True, help="a picture")
    parser.add_argument("--width", type=int, default=320, help="px, of each picture")
    parser.add_argument("--layers", nargs="*", default=LAYERS, help="default: %(default)s")
    given = parser.parse_args()
    trained = models.load(given.network)
    names = [row["name"] for row in trained.classes]
    net = phosphene.Network(
        trained.model, mean=MEAN, std=STD, input_size=data.SIDE, classes=names, name=trained.name
    )
    rows = []
    for name, photo in photographs(given.width).items():
        rows.append([(name, photo)])
        for layer in given.layers:
            rows[-1].append((layer, phosphene.dream(photo, net, layer)))
            print(f"{name}, {layer}", flush=True)
    page(rows).save(given.out, quality=90)


if __name__ == "__main__":
    main()
