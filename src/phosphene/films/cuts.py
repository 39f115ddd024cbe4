"""Where a shot ends and another begins.

A cut is where a frame differs much from the one before: in hue, saturation and value, as in
PySceneDetect's content detector (Castellano). Two things that it trips over are no cuts here: a
fade, since colours near black count for as little as is seen of them; and a flash, since a few
frames are looked ahead for the picture that was there before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

from phosphene import image as images
from phosphene.films.frames import Frame

Change = Literal["same", "flash", "cut"]

COMPARED = 128  # px, the longest side of what is compared
FLASH = Fraction(15, 100)  # s, within which the picture of before must be back
BACK = 0.5  # of the threshold, that it may differ by then


class Lookahead(Iterator[Frame]):
    """Frames one after the other, of which some may be seen before it is their turn."""

    def __init__(self, frames: Iterator[Frame]) -> None:
        self._frames, self._seen = iter(frames), deque[Frame]()

    def __next__(self) -> Frame:
        return self._seen.popleft() if self._seen else next(self._frames)

    def ahead(self, until: Fraction) -> Iterator[Frame]:
        """Those to come with a time, s, up to `until`; one more is held, and no other."""
        number = 0
        while True:
            if number == len(self._seen):
                frame = next(self._frames, None)
                if frame is None:
                    return
                self._seen.append(frame)
            if self._seen[number].time > until:
                return
            yield self._seen[number]
            number += 1


def change(before: Tensor, frame: Frame, frames: Lookahead, threshold: float) -> Change:
    """What a frame is to one before it, `(1, 3, H, W)` in [0, 1].

    Args:
        before: the last frame that was no flash.
        frames: those that come after `frame`; they are looked into only where it differs.
        threshold: a `difference` above it is a cut, or a flash; 0.08 is a good one.
    """
    if difference(before, frame.image) <= threshold:
        return "same"
    for later in frames.ahead(frame.time + FLASH):
        if difference(before, later.image) <= BACK * threshold:
            return "flash"
    return "cut"


def difference(first: Tensor, second: Tensor) -> float:
    """How much two frames `(1, 3, H, W)` in [0, 1] differ, black to white 1/3: the mean over pixels
    of the mean of the differences of hue, chroma and value.

    Chroma, which is saturation times value, and hue as far as both have chroma: so neither jumps
    where a picture comes out of black.
    """
    size = images.size_of(first)
    if max(size) > COMPARED:
        size = images.fit(size, COMPARED)
    (h1, c1, v1), (h2, c2, v2) = (_hcv(images.resize(f, size)) for f in (first, second))
    turn = (h1 - h2).abs()
    turn = 2 * torch.minimum(turn, 1 - turn) * torch.minimum(c1, c2)
    total = turn.mean() + (c1 - c2).abs().mean() + (v1 - v2).abs().mean()
    return float(total) / 3


def _hcv(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue from 0 to 1, chroma and value, `(1, H, W)` each."""
    image = image.clamp(0, 1)
    red, green, blue = image.unbind(1)
    value = image.amax(1)
    chroma = value - image.amin(1)
    divisor = chroma.clamp_min(1e-6)
    by_green = torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4)
    sixths = torch.where(value == red, ((green - blue) / divisor) % 6, by_green)
    return sixths / 6, chroma, value
