"""How photographs excite a layer's channels, and where in them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from phosphene import image as images
from phosphene.errors import ImageError, NetworkError, ObjectiveError
from phosphene.evaluation.reach import following_nan
from phosphene.image.files import READABLE_SUFFIXES as READABLE_SUFFIXES
from phosphene.image.files import find_pictures as find_pictures
from phosphene.network import Network
from phosphene.objectives import IMAGE, cells, token_grid
from phosphene.runtime.device import PLAIN_CONVOLUTIONS
from phosphene.runtime.options import DEFAULT, PLAIN_MODULES, Options

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Response:
    """What a photograph does to a unit.

    mean: over all positions of the layer.
    peak: at the strongest position.
    view_size: (H, W) at which the network was shown the photograph.
    position: (y, x) of the strongest position in cells of the layer's map.
    centre: (x, y) of it, and
    box: its receptive field (left, top, right, bottom), the right and lower ends not within; both
        in px of the photograph at `view_size`.

    The last three are None where a layer has no positions, or where all of them answer alike.
    """

    name: str
    path: Path
    mean: float
    peak: float
    view_size: tuple[int, int]
    position: tuple[int, int] | None = None
    centre: tuple[float, float] | None = None
    box: Box | None = None


@dataclass(frozen=True)
class Skipped:
    """A file that is no readable picture, and why."""

    path: Path
    why: str


def respond(
    network: Network,
    layer: str,
    channel: int,
    paths: Sequence[Path],
    *,
    size: int | Literal["auto"] = "auto",
    root: Path | None = None,
) -> Iterator[Response | Skipped]:
    """Show a network each of some picture files, and yield how a channel answers, one by one.

    layer: its own name. size: the shorter side in px at which a picture is shown, all of it and in
    its own shape; auto is the network's `input_size`. No picture becomes smaller than the layer
    needs, and a network of one size alone is shown that size. root: a folder that names are
    relative to.
    """

    # Rows go by y alone, and columns by x: few of them serve all photographs of one size.
    @functools.cache
    def span(view: tuple[int, int], axis: int, at: int, middle: int) -> tuple[int, int]:
        place = (at, middle) if axis == 0 else (middle, at)
        return _visible_span(network, layer, view, place, axis)

    def box(view: tuple[int, int], h: int, w: int, y: int, x: int) -> Box:
        (top, bottom), (left, right) = span(view, 0, y, w // 2), span(view, 1, x, h // 2)
        return left, top, right, bottom

    for path in paths:
        try:
            photo = images.load_image(path)
        except ImageError as error:
            yield Skipped(path, str(error))
            continue
        answers, view = _answers(network, layer, photo, size)
        map_ = answers[0, ..., channel]
        name = path.relative_to(root).as_posix() if root else path.name
        mean, peak = float(map_.mean()), float(map_.max())
        if map_.numel() == 1 or peak == float(map_.min()):
            yield Response(name, path, mean, peak, view)
            continue
        h, w = map_.shape
        y, x = divmod(int(map_.flatten().argmax()), w)
        yield Response(
            name,
            path,
            mean,
            peak,
            view,
            position=(y, x),
            centre=((x + 0.5) * view[1] / w, (y + 0.5) * view[0] / h),
            box=box(view, h, w, y, x),
        )


def mean_responses(
    network: Network,
    layer: str,
    picture: Tensor,
    size: int | Literal["auto"] | None = None,
) -> Tensor:
    """Each channel's mean over positions, `(C,)` on the CPU, for a picture `(1, 3, H, W)`.

    size: as in `respond`; None shows the picture as it is.
    """
    map_, _ = _answers(network, layer, picture, size)
    return map_[0].flatten(0, 1).mean(0).cpu()


def _answers(
    network: Network, layer: str, picture: Tensor, size: int | Literal["auto"] | None
) -> tuple[Tensor, tuple[int, int]]:
    """What a layer answers to a picture, `(1, h, w, C)`, and the size (H, W) it was shown at."""
    known = network.input_size
    H, W = images.size_of(picture)
    view = (H, W)
    if size is not None:
        side = max(known if size == "auto" else size, network.least_size([layer]))
        scale = side / min(H, W)
        view = (max(side, round(H * scale)), max(side, round(W * scale)))
    try:
        return layer_map(network, layer, _resized(picture, view)), view
    except NetworkError:
        if view == (known, known):
            raise
    # A network of one size alone is shown all of the picture in that size.
    return layer_map(network, layer, _resized(picture, (known, known))), (known, known)


def _resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    if images.size_of(picture) == size:
        return picture
    return images.resize(picture, size).clamp(0, 1)


def layer_map(network: Network, layer: str, picture: Tensor, options: Options = DEFAULT) -> Tensor:
    """What a layer answers at each place over a picture: `(N, h, w, C)`, without a gradient.

    Tokens that are no grid come as a row of places, `(N, 1, T, C)`.
    """
    picture = picture.to(network.device)
    with torch.no_grad():
        found = network.activations(picture, [layer], options=options)
    if found[layer].ndim == 3:
        # Tokens that are no grid have an order, but no places.
        with suppress(ObjectiveError):
            return token_grid({**found, IMAGE: picture}, layer)
    return cells(found, layer)


def receptive_box(
    network: Network, layer: str, size: tuple[int, int], position: tuple[int, int]
) -> Box:
    """What a position (y, x) of a layer sees of a picture of `size` (H, W): left, top, right,
    bottom in px, the right and lower ends not within.

    Found by trial, so that it is right for any network: an answer is not a number if and only if
    some px that it depends on is not. Each end is where that begins, by bisection.
    """
    top, bottom = _visible_span(network, layer, size, position, 0)
    left, right = _visible_span(network, layer, size, position, 1)
    return left, top, right, bottom


def _visible_span(
    network: Network, layer: str, size: tuple[int, int], position: tuple[int, int], axis: int
) -> tuple[int, int]:
    """The first of the rows (axis 0) or columns (1) that a position sees, and that after the last.

    The picture is spoilt from its beginning on, and from its end on, to where the answer is, too.
    """
    length, (y, x) = size[axis], position

    asked = following_nan(network)

    def spoils(*parts: slice) -> list[bool]:
        pictures = torch.full((len(parts), 3, *size), 0.5, device=asked.device)
        for picture, part in zip(pictures, parts, strict=True):
            picture.transpose(1, 1 + axis)[:, part] = torch.nan
        with PLAIN_CONVOLUTIONS:
            map_ = layer_map(asked, layer, pictures, PLAIN_MODULES)
        return map_[:, y, x].isnan().any(-1).tolist()

    if not spoils(slice(None))[0]:
        return 0, length  # something on the way makes numbers of anything
    # From either end: so many px are enough to spoil it, and so many are not.
    enough, too_few = [length, length], [0, 0]
    while any(e - f > 1 for e, f in zip(enough, too_few, strict=True)):
        tried = [(e + f) // 2 for e, f in zip(enough, too_few, strict=True)]
        answers = spoils(slice(0, tried[0]), slice(length - tried[1], length))
        for end, (count, answer) in enumerate(zip(tried, answers, strict=True)):
            (enough if answer else too_few)[end] = count
    return enough[0] - 1, length - enough[1] + 1
