"""Draw the pictures of docs/figures.md: `python docs/make_figures.py [NAME …]`.

Each is what a command gives that stands in the document, made smaller.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import phosphene as ph
from phosphene.cli import main as phosphene

HERE = Path(__file__).parent / "images"
WIDEST = 1000  # px
FIGURES = {
    "panels": "phosphene panels sky.jpg --add smooth,laplacian,natural --inset 96,0,64",
    "grid": 'phosphene grid sky.jpg --across "objective=mixed3a; mixed4c; mixed5a" '
    '--down "steps=5; 10; 20"',
    "sweep": "phosphene grid sky.jpg --layers all",
    "guides": 'phosphene grid sky.jpg --across \'objective=mixed4c; guide(mixed4c, "flower.jpg"); '
    'guide(mixed4c, "flower.jpg", by=distance)\'',
    "noise": 'phosphene grid --across "objective=mixed3b; mixed4c; mixed5a" '
    "--set start=noise --size 320",
    "weights": 'phosphene grid sky.jpg --across "objective=mixed3b; mixed4d; 2*mixed3b + mixed4d; '
    'mixed3b + 2*mixed4d" --set preset=keras',
    "detail": 'phosphene grid sky.jpg --across "detail=before; after" --set preset=keras',
    "channels": "phosphene grid --of visualize --random-channels 12 --layer mixed4c",
    "hybrids": 'phosphene grid --of visualize --across "objective=mixed4c:9; mixed4c:5; '
    'mixed4c:9 + mixed4c:5" --cell 192',
}


def photographs() -> None:
    """What the commands begin with: a drawn sky, and a flower (see images/README.md)."""
    from sklearn.datasets import load_sample_image

    ph.save_image(ph.draw_sky(214, 320, seed=0), "sky.jpg")
    flower = Image.fromarray(np.array(load_sample_image("flower.jpg")))
    flower.resize((320, 214), Image.Resampling.LANCZOS).save("flower.jpg", quality=95)


def draw(name: str) -> Path:
    words = shlex.split(FIGURES[name])[1:]
    page = f"{name}.png"
    if code := phosphene([*words, "-o", page, "--force", "--quiet"]):
        raise SystemExit(code)
    picture = Image.open(page).convert("RGB")
    if picture.width > WIDEST:
        size = (WIDEST, round(picture.height * WIDEST / picture.width))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    file = HERE / f"{name}.jpg"
    picture.save(file, quality=85)
    return file


def main() -> None:
    names = sys.argv[1:] or list(FIGURES)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        photographs()
        for name in names:
            print(draw(name), flush=True)


if __name__ == "__main__":
    main()
