"""Draw the pictures of README.md and docs/: `python docs/make_pictures.py [NAME …]`.

The photographs are scikit-learn's sample images; docs/images/README.md has credits and licences.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import Tensor

import phosphene as ph
from phosphene.explain.key_page import key_page
from phosphene.explain.pages import as_image
from phosphene.films.frames import Frame
from phosphene.films.keys import Keys
from phosphene.image import resize, start_picture, to_uint8
from phosphene.recipes.presets import PRESETS

HERE = Path(__file__).parent / "images"
PICTURES: dict[str, Callable[[], Tensor]] = {}


def picture(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
    PICTURES[function.__name__] = function
    return function


def sample(name: str) -> Tensor:
    """One of scikit-learn's photographs, 640×427."""
    from sklearn.datasets import load_sample_image

    pixels = np.array(load_sample_image(name))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def sky(height: int = 427, width: int = 640) -> Tensor:
    return ph.draw_sky(height, width, seed=0)


def labelled(image: Tensor, text: str) -> Tensor:
    """The picture with a line of text in a dark strip below it."""
    canvas = Image.new("RGB", (image.shape[-1], image.shape[-2] + 28), (18, 18, 22))
    canvas.paste(Image.fromarray(to_uint8(image)), (0, 0))
    ImageDraw.Draw(canvas).text(
        (8, image.shape[-2] + 4), text, (235, 235, 235), ImageFont.load_default(16)
    )
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1)[None].float() / 255


def grid(rows: list[list[Tensor]]) -> Tensor:
    return torch.cat([torch.cat(row, 3) for row in rows], 2)


def smaller(image: Tensor, width: int = 480) -> Tensor:
    height = round(image.shape[-2] * width / image.shape[-1])
    return resize(image, (height, width)).clamp(0, 1)


@picture
def hero() -> Tensor:
    return ph.dream(sample("china.jpg"), ph.load_network())


@picture
def sky_before_after() -> Tensor:
    photo = sky()
    return torch.cat([smaller(photo), smaller(ph.dream(photo, ph.load_network()))], 3)


# What a dream was before: the gradient hardly smoothed, of any colour, and of another size.
BEFORE = {"natural": 0, "laplacian": 0, "smooth": 0.5, "smallest_octave": 2}


@picture
def looks() -> Tensor:
    """The same pictures by the first defaults, and by those of now."""
    china, flower = smaller(sample("china.jpg"), 400), smaller(sample("flower.jpg"), 400)
    rows = []
    for name, photo, first in (
        ("dreamnet", china, "mixed5a"),
        ("dreamnet", sky(267, 400), "mixed5a"),
        ("dreamnet-robust", flower, "mixed5a + mixed5b"),
    ):
        net = ph.load_network(name)
        before, now = ph.dream(photo, net, first, **BEFORE), ph.dream(photo, net)
        rows.append([labelled(before, f"{name}, before"), labelled(now, f"{name}, now")])
    return grid(rows)


@picture
def all_looks() -> Tensor:
    """The same photograph by every look, through the network that it brings."""
    photo = smaller(sample("china.jpg"), 400)
    cells = [labelled(photo, "the photograph")]
    for name, look in PRESETS.items():
        if not look.published and name != "phosphene":
            cells.append(labelled(ph.dream(photo, look.network, preset=name), name))
    whole = grid([cells[at : at + 3] for at in range(0, len(cells), 3)])
    return smaller(whole, 800)


@picture
def strengths() -> Tensor:
    """The same sky by the default, from a hint to a fever."""
    net, photo = ph.load_network(), smaller(sky(), 300)
    return grid(
        [
            [
                labelled(ph.dream(photo, net, strength=strength), f"--strength {strength}")
                for strength in (0.2, 0.5, 1, 2, 3)
            ]
        ]
    )


@picture
def natural_noise() -> Tensor:
    """Noise, dreamt by what was the default, and by what is now."""
    net, size = ph.load_network(), (320, 480)
    before = ph.dream(start_picture("noise", size), net)
    now = PRESETS["phosphene"].settings_for("dreamnet", "noise")
    after = ph.dream(start_picture("natural noise", size), net, **now)
    return grid([[labelled(before, "white noise, before"), labelled(after, "natural noise, now")]])


@picture
def layers() -> Tensor:
    """From edges to animals: the same photograph, six depths."""
    net, photo = ph.load_network(), smaller(sample("flower.jpg"))
    cells = [
        labelled(ph.dream(photo, net, name, step_size=0.007), name)
        for name in ("conv2", "mixed3b", "mixed4a", "mixed4c", "mixed4d", "mixed5a")
    ]
    return grid([cells[:3], cells[3:]])


@picture
def guided() -> Tensor:
    net, photo, guide = ph.load_network(), smaller(sky()), smaller(sample("flower.jpg"))
    wish = ph.objectives.guide("mixed4c", guide)
    return grid([[guide, ph.dream(photo, net, wish)]])


@picture
def robust() -> Tensor:
    photo = smaller(sample("china.jpg"))
    net = ph.load_network("dreamnet-robust")
    return grid([[photo, ph.dream(photo, net)]])


# Outlines of what is in china.jpg, px; a few px away from temple and trees, as edges are soft.
SKY = [
    (-9, -9), (649, -9), (649, 148), (614, 134), (596, 138), (584, 158), (572, 178), (566, 196),
    (554, 205), (331, 206), (323, 190), (333, 184), (334, 168), (300, 159), (299, 139), (322, 128),
    (322, 117), (272, 96), (224, 68), (219, 50), (216, 30), (205, 25), (194, 30), (192, 52),
    (186, 64), (140, 93), (93, 104), (91, 128), (116, 138), (116, 159), (80, 166), (80, 187),
    (93, 193), (93, 205), (78, 206), (48, 190), (24, 183), (10, 170), (9, 148), (-9, 142),
]  # fmt: skip
LAKE_RIGHT = [
    (332, 237), (395, 239), (425, 243), (500, 243), (508, 232), (490, 224), (540, 220), (549, 250),
    (553, 279), (538, 272), (516, 283), (494, 288), (468, 293), (438, 299), (408, 318), (382, 328),
    (354, 316), (352, 303), (345, 299), (344, 272), (355, 260), (354, 248), (334, 242),
]  # fmt: skip
LAKE_LEFT = [
    (-9, 281), (58, 279), (77, 286), (77, 308), (68, 318), (40, 318), (22, 308), (-9, 292),
]  # fmt: skip


def drawn_mask(*outlines: list[tuple[int, int]], soft: float = 3.0) -> Tensor:
    """White within the outlines, `(1, 1, 427, 640)`, the edge soft by so many px."""
    large = Image.new("L", (4 * 640, 4 * 427))
    for outline in outlines:
        ImageDraw.Draw(large).polygon([(4 * x, 4 * y) for x, y in outline], fill=255)
    small = large.filter(ImageFilter.GaussianBlur(4 * soft)).resize(
        (640, 427), Image.Resampling.BOX
    )
    return torch.from_numpy(np.array(small))[None, None].float() / 255


@picture
def regions() -> Tensor:
    """Dogs in the sky, eyes in the lake, and a temple that is left alone."""
    net, photo = ph.load_network("dreamnet-robust"), sample("china.jpg")
    sky, lake = drawn_mask(SKY), drawn_mask(LAKE_RIGHT, LAKE_LEFT)
    painted = photo
    for mask, colour in ((sky, (1.0, 0.72, 0.2)), (lake, (0.1, 0.5, 1.0))):
        painted = torch.lerp(painted, torch.tensor(colour).view(1, 3, 1, 1), 0.6 * mask)
    wishes = [(sky, 'logit("golden retriever")'), (lake, "mixed5a:7")]
    dreamt = ph.dream(photo, net, regions=wishes, rest="stay", octaves=4, steps=14)
    return grid([[smaller(painted), smaller(dreamt)]])


@picture
def classes() -> Tensor:
    photo, net = smaller(sky()), ph.load_network("dreamnet-robust")
    return grid(
        [
            [
                labelled(ph.dream(photo, net, f'logit("{name}")', octaves=2, steps=30), name)
                for name in ("king penguin", "monarch", "jellyfish")
            ]
        ]
    )


@picture
def presets() -> Tensor:
    """The four published algorithms and our own, on the bundled network."""
    net, photo = ph.load_network(), smaller(sample("china.jpg"))
    names = ("google2015", "inception", "keras", "torchvision", "phosphene")
    cells = [labelled(photo, "the photograph")]
    cells += [labelled(ph.dream(photo, net, preset=name), name) for name in names]
    return grid([cells[:3], cells[3:]])


@picture
def four_panels() -> Tensor:
    """What each part of the algorithm does: original, normalised, + octaves, + jitter."""
    panels = ph.panels(smaller(sky()), ph.load_network(), columns=2, cell=480)
    return paper(ph.page(panels))


DEPTHS = {
    "conv2": (1, 2, 3, 6, 8, 10),
    "mixed3a": (0, 2, 3, 5, 8, 10),
    "mixed3b": (0, 1, 3, 6, 8, 9),
    "mixed4a": (1, 2, 3, 7, 10, 11),
    "mixed4c": (0, 5, 6, 7, 8, 9),
    "mixed5a": (1, 2, 3, 6, 7, 10),
    "mixed5b": (2, 3, 6, 9, 10, 11),
}


@picture
def depths() -> Tensor:
    """From edges to dogs: six channels of each layer, drawn from noise."""
    net, rows = ph.load_network(), []
    for layer, channels in DEPTHS.items():
        cells = ph.sheet(net, layer, range(12)).cells[list(channels)]
        row = [resize(cell[None], (128, 128)).clamp(0, 1) for cell in cells]
        rows.append(
            [
                labelled(cell, f"{layer}:{channel}")
                for cell, channel in zip(row, channels, strict=True)
            ]
        )
    return grid(rows)


@picture
def sheet() -> Tensor:
    return paper(ph.page(ph.sheet(ph.load_network(), "mixed4c", range(12), columns=6)))


@picture
def card() -> Tensor:
    """The dumbbell, from four sides."""
    return paper(ph.page(ph.unit_card(ph.load_network("dreamnet-robust"), "logits:dumbbell")), 1104)


def paper(page: Image.Image, width: int | None = None) -> Tensor:
    if width:
        page = page.resize((width, round(page.height * width / page.width)), Image.Resampling.BOX)
    return torch.from_numpy(np.array(page.convert("RGB"))).permute(2, 0, 1)[None].float() / 255


@picture
def octaves() -> Tensor:
    """The octaves of a sky: before, after, and what goes up."""
    photo = smaller(sky(), 320)
    return paper(ph.page(ph.octaves(photo, ph.load_network(), "mixed5a", octaves=4)), 960)


@picture
def story() -> Tensor:
    """The dumbbell of dreamnet-robust, and what else is in it."""
    return paper(ph.page(ph.story(ph.load_network("dreamnet-robust"), "dumbbell")), 900)


@picture
def watch() -> Tensor:
    """Four moments of a film of activations."""
    photo, settings = smaller(sky(), 320), {"octaves": 4, "channels": 9, "height": 240}
    frames = [f.image for f in ph.watch(photo, ph.load_network(), "mixed4c", **settings)]
    return grid([[frames[0], frames[9]], [frames[19], frames[-1]]])


@picture
def keyframes() -> Tensor:
    """Easings, a jump and an expression, as --plot-keys draws them."""
    keys = Keys(
        [
            "zoom = 0s: 1.2; 4s: 2 ease; end: 1.5",
            "turn = 8*sin(2*pi*p)",
            "step_size = 0s: 0.02; 3s: 0.006 out; 6s: 0.02 hold; 8s: 0.012 in",
        ]
    )
    return paper(as_image(key_page(keys, rate=Fraction(30), duration=Fraction(10)), 1.5))


@picture
def four_recipes() -> Tensor:
    """A photograph; what a layer holds of it; that exaggerated; in the textures of another."""
    net, photo = ph.load_network(), smaller(sample("china.jpg"), 320)
    painting = smaller(sample("flower.jpg"), 320)
    cells = {
        "the photograph": photo,
        "invert mixed4a": ph.invert(photo, net, "mixed4a"),
        "caricature mixed4c": ph.caricature(photo, net, "mixed4c"),
        "style of a flower": ph.style(photo, painting, net),
    }
    shown = [labelled(resize(image, (212, 320)), name) for name, image in cells.items()]
    return grid([shown[:2], shown[2:]])


ZOOMED = ("mixed3a", "mixed4a", "mixed4c", "mixed5a")


def zoomed(each: int, width: int) -> Iterator[Frame]:
    """A zoom into the drawn sky, from edges to animals."""
    photo = sky(width * 2 // 3, width)
    return ph.zoom(photo, ph.load_network(), ZOOMED, frames=each, fade=each // 3, fps=15)


def moved(count: int = 12, width: int = 320, height: int = 214) -> Iterator[Tensor]:
    """A flower that goes over a temple, 7 px a frame."""
    ground = smaller(sample("china.jpg"), width)[..., :height, :]
    flower = smaller(sample("flower.jpg"), 260)[..., 20:150, 60:190]
    y, x = torch.meshgrid(torch.linspace(-1, 1, 130), torch.linspace(-1, 1, 130), indexing="ij")
    disc = ((1 - (x**2 + y**2).sqrt()) * 30).clamp(0, 1)
    for k in range(count):
        frame, left = ground.clone(), 20 + 7 * k
        part = frame[..., 40:170, left : left + 130]
        part += disc * (flower - part)
        yield frame


@picture
def film_parts() -> Tensor:
    """A frame, its flow as colours, the mask, and the dream difference that is carried."""
    from phosphene.films.flow import motion, warp

    sources = list(moved())
    dreams = [frame.image for frame in ph.film(sources, ph.load_network())]
    before, now = sources[-2], sources[-1]
    found = motion(before, now)
    x, y = found.backward[0]
    strong = (x**2 + y**2).sqrt()
    hue = torch.stack([x, -0.5 * x + 0.87 * y, -0.5 * x - 0.87 * y])
    flow = (0.5 + 0.5 * hue / strong.max().clamp(min=1e-6))[None].clamp(0, 1)
    carried = 0.5 + warp(dreams[-2] - before, found.backward)
    cells = {
        "frame": now,
        "flow to the frame before": flow,
        "mask: what was there": found.mask().expand(-1, 3, -1, -1),
        "what is carried": carried.clamp(0, 1),
    }
    shown = [labelled(image, name) for name, image in cells.items()]
    return grid([shown[:2], shown[2:]])


def zoom_film() -> Path:
    """The README's film: an animated WebP of at most 3 MB."""
    path = HERE / "zoom_film.webp"
    ph.write_film(path, zoomed(30, 240), overwrite=True)
    return path


FILMS = {"zoom_film": zoom_film}


def main() -> None:
    HERE.mkdir(exist_ok=True)
    for name in sys.argv[1:] or (*PICTURES, *FILMS):
        if name in FILMS:
            print(FILMS[name]())
            continue
        pixels = Image.fromarray(to_uint8(PICTURES[name]()))
        pixels.save(HERE / f"{name}.jpg", quality=88)
        print(HERE / f"{name}.jpg")


if __name__ == "__main__":
    main()
