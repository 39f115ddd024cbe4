"""Whether what is faster and smaller is as good: bfloat16 and tiles against float32 and whole."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from benchmarks import report
from phosphene import image, load_network
from phosphene.evaluation.tiles import exact_tiling
from phosphene.evaluation.tiles import tiled as tiles_of
from phosphene.evaluation.whole import whole
from phosphene.network import Network
from phosphene.objectives import parse
from phosphene.recipes.dream import dream
from phosphene.recipes.presets import preset

# (precision, in tiles)
WAYS = (("fp32", False), ("bf16", False), ("fp32", True), ("bf16", True))
NETWORKS = ("dreamnet", "dreamnet-robust")
PICTURE = report.ROOT / "docs" / "images" / "fast_and_tiled.jpg"
MOST_BYTES = 400_000


def tables(
    *,
    networks: Sequence[str] = NETWORKS,
    photo: Tensor | None = None,
    tile: int = 128,
    octaves: int | None = None,
    steps: int = 10,
    copies: int = 8,
    device: str = "cpu",
    picture: Path | None = PICTURE,
) -> list[report.Table]:
    """A table a network: scores and seams of four dreams of a photograph; draws them, too.

    The score is what the finished dream has in float32, whole. The seams are looked for in dreams
    without jitter, whose tiles lie in the same places at every step: of the photograph and of
    copies, rolled each by as much again, since the borders of one picture are few.
    """
    photo = photograph() if photo is None else photo
    found, shown = [], []
    for name in networks:
        network = load_network(name)
        goal = parse(preset("phosphene").objective_for(name)).bound(network)
        evaluate = whole(network.prepared(device, "fp32"), goal)
        dreams: dict[tuple[str, bool], Tensor] = {}
        still: dict[tuple[str, bool], list[Tensor]] = {}
        rolled = [
            photo.roll([copy * side // copies for side in photo.shape[-2:]], (-2, -1))
            for copy in range(copies)
        ]
        for precision, tiled in WAYS:
            report.say(f"{name}, {precision}, {tiled=}")
            settings: dict[str, Any] = {
                "steps": steps,
                "precision": precision,
                "tile": tile if tiled else "off",
                "device": device,
                **({} if octaves is None else {"octaves": octaves}),
            }
            dreams[precision, tiled] = dream(photo, network, **settings)
            still[precision, tiled] = [
                dream(copy, network, **settings, jitter=0) for copy in rolled
            ]
        before = float(evaluate(photo.to(device))[0].mean())
        reference = float(evaluate(dreams["fp32", False].to(device))[0].mean())
        borders = _borders(network, goal, photo, tile, device)
        rows = []
        for precision, tiled in WAYS:
            score = float(evaluate(dreams[precision, tiled].to(device))[0].mean())
            pair = still[precision, tiled], still[precision, False]
            seams = seam(*pair, borders)
            chance = [seam(*pair, _moved(borders, px)) for px in range(8, max(tile - 7, 9), 8)]
            prepared = network.prepared(device, precision)
            slopes = [
                way(photo.to(device))[1].cpu()
                for way in (tiles_of(prepared, goal, tile), whole(prepared, goal))
            ]
            rows.append(
                (
                    f"{precision}, {f'tiles of {tile} px' if tiled else 'whole'}",
                    f"{score:.4g}",
                    f"{score / reference:.3f}",
                    f"{seams:.3f}" if tiled else "",
                    f"{min(chance):.3f}–{max(chance):.3f}" if tiled else "",
                    f"{seam(slopes[:1], slopes[1:], borders):.4f}" if tiled else "",
                )
            )
        objective = preset("phosphene").objective_for(name)
        notes = (
            f"the photograph itself scores {before:.4g}.",
            "seam: gradient energy across the tiles' borders over that elsewhere, the larger of "
            "rows and columns, over the same of the whole picture in this precision; in dreams "
            f"without jitter, where it would show most, the mean of {copies}: of the photograph "
            "and of rolled copies. Where no border is: the same with the borders moved by 8 px, 16 "
            "and so on, which is what chance makes of it. In one gradient: of the photograph, "
            "before rounding has grown into other details.",
        )
        header = (
            "run",
            "score",
            "of fp32, whole",
            "largest seam",
            "where no border is",
            "in one gradient",
        )
        found.append(report.Table(f"{name}, {objective}", header, tuple(rows), notes))
        shown.append([dreams[way] for way in WAYS])
    if picture is not None:
        draw(shown, [f"{p}, {'tiles' if t else 'whole'}" for p, t in WAYS], picture)
    return found


def photograph() -> Tensor:
    """A real photograph, 600×400: scikit-image's cup of coffee."""
    from skimage import data

    return torch.from_numpy(data.coffee().copy()).permute(2, 0, 1)[None].float() / 255


Borders = tuple[list[int], list[int]]


def _borders(
    network: Network, goal: spec.Objective, photo: Tensor, tile: int, device: str
) -> Borders:
    """Where cores begin, rows and columns, at the last octave."""
    tiling = exact_tiling(network.prepared(device, "fp32"), goal)
    rows, columns = (
        [begin for (begin, _), _ in axis.cuts(side, tile)][1:]
        for axis, side in zip(tiling.axes, image.size_of(photo), strict=True)
    )
    return rows, columns


def _moved(borders: Borders, px: int) -> Borders:
    rows, columns = ([line - px for line in lines] for lines in borders)
    return rows, columns


def seam(dreamt: Sequence[Tensor], reference: Sequence[Tensor], borders: Borders) -> float:
    """How much more gradient energy `dreamt` have on borders than `reference`, 1 for no more.

    Of each the energy on the borders over that elsewhere; rows or columns, whichever is more.
    """
    ratios = []
    for axis, lines in ((-2, borders[0]), (-1, borders[1])):
        if lines:
            ours, theirs = (
                statistics.mean(_on_lines(picture, axis, lines) for picture in pictures)
                for pictures in (dreamt, reference)
            )
            ratios.append(ours / theirs)
    return max(ratios)


def _on_lines(picture: Tensor, axis: int, lines: Iterable[int]) -> float:
    """Mean squared difference across each of the `lines` over that across all others."""
    energy = picture.double().diff(dim=axis).square().movedim(axis, 0).flatten(1).mean(1)
    on = torch.zeros(len(energy), dtype=torch.bool)
    on[[line - 1 for line in lines]] = True
    return float(energy[on].mean() / energy[~on].mean())


def draw(rows: Sequence[Sequence[Tensor]], names: Sequence[str], path: Path) -> None:
    """Dreams side by side, a row a network, as large as `MOST_BYTES` allow."""
    width = 440
    while True:
        sheet = _sheet(rows, names, width)
        sheet.save(path, optimize=True, quality=88)
        if path.stat().st_size <= MOST_BYTES:
            return
        width -= 20


def _sheet(rows: Sequence[Sequence[Tensor]], names: Sequence[str], width: int) -> Image.Image:
    height = round(width * rows[0][0].shape[-2] / rows[0][0].shape[-1])
    band = 22
    sheet = Image.new("RGB", (width * len(names), height * len(rows) + band), (18, 18, 22))
    for column, name in enumerate(names):
        pen = ImageDraw.Draw(sheet)
        pen.text((width * column + 6, 3), name, (235, 235, 235), ImageFont.load_default(13))
        for row, pictures in enumerate(rows):
            small = image.resize(pictures[column], (height, width)).clamp(0, 1)
            sheet.paste(
                Image.fromarray(image.to_uint8(small)), (width * column, band + height * row)
            )
    return sheet
