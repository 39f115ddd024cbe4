"""Small films that are drawn here, with the truth about them: motion, what comes into view, cuts.

Textures are sums of waves, which have a value at any place: a part that moves by a fraction of a
pixel is drawn there, and resampled nowhere. All is seeded, on the CPU, and the same every time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

Size = tuple[int, int]  # (H, W)
SIZE: Size = (72, 96)
RATE = Fraction(25)


@dataclass(frozen=True)
class Clip:
    """A film and the truth about it.

    frames: each `(1, 3, H, W)` float32 in [0, 1].
    motion: per frame `(1, 2, H, W)`, px: where what is seen at a pixel was in the frame before,
        less where it is, (right, down). Zeros in the first.
    covered: per frame `(1, 1, H, W)` bool: what is seen there was hidden, or outside, before. All
        of the first.
    cuts: the frames that begin another shot, the first frame not among them.
    rate: frames a second.
    """

    frames: list[Tensor]
    motion: list[Tensor]
    covered: list[Tensor]
    cuts: tuple[int, ...] = ()
    rate: Fraction = RATE


class Texture:
    """A coloured pattern without end: `texture(x, y)`, px, `(W,)` and `(H,)` -> `(1, 3, H, W)`.

    As in photographs, coarse waves are the stronger; edges come of bending the sums towards two
    values. Waves are no shorter than `finest` px.
    """

    def __init__(
        self, seed: int, *, finest: float = 5, coarsest: float = 90, waves: int = 60
    ) -> None:
        draw = torch.Generator().manual_seed(seed)
        lengths = finest * (coarsest / finest) ** torch.rand(waves, generator=draw).double()
        angles = 2 * math.pi * torch.rand(waves, generator=draw).double()
        self.across = 2 * math.pi * angles.cos() / lengths
        self.down = 2 * math.pi * angles.sin() / lengths
        self.phases = 2 * math.pi * torch.rand(waves, generator=draw).double()
        shades = torch.randn(3, waves, generator=draw).double()
        grey = torch.randn(1, waves, generator=draw).double()
        strengths = (0.3 * shades + grey) * lengths
        self.strengths = strengths / strengths.square().sum(1, keepdim=True).div(2).sqrt()
        self.base = 0.35 + 0.3 * torch.rand(3, generator=draw).double()

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        # cos(ax + by) = cos ax · cos by − sin ax · sin by: products of rows and columns.
        across = x[None] * self.across[:, None]
        down = y[None] * self.down[:, None] + self.phases[:, None]
        sums = torch.einsum("cw,wh,wx->chx", self.strengths, down.cos(), across.cos())
        sums -= torch.einsum("cw,wh,wx->chx", self.strengths, down.sin(), across.sin())
        return (self.base[:, None, None] + 0.25 * torch.tanh(1.2 * sums)).clamp(0, 1)[None].float()


def axes(size: Size) -> tuple[Tensor, Tensor]:
    """x of every column and y of every row, px, `(W,)` and `(H,)` float64."""
    return torch.arange(size[1]).double(), torch.arange(size[0]).double()


def places(size: Size) -> tuple[Tensor, Tensor]:
    """x and y of every pixel's centre, px, `(H, W)` float64 each."""
    x, y = axes(size)
    return x.expand(size), y[:, None].expand(size)


def outside(motion: Tensor) -> Tensor:
    """Where `motion` `(1, 2, H, W)` points out of the frame, `(1, 1, H, W)` bool.

    Pixels are squares around their centres, so a frame goes from -0.5 to W - 0.5.
    """
    height, width = motion.shape[-2:]
    x, y = places((height, width))
    x, y = x + motion[0, 0], y + motion[0, 1]
    return ((x < -0.5) | (x > width - 0.5) | (y < -0.5) | (y > height - 0.5))[None, None]


def static(count: int = 10, size: Size = SIZE, *, seed: int = 0) -> Clip:
    """Nothing moves."""
    return pan(count, size, speed=(0.0, 0.0), seed=seed)


def pan(
    count: int = 10, size: Size = SIZE, *, speed: tuple[float, float] = (1.3, 0.4), seed: int = 0
) -> Clip:
    """A texture that moves as a whole, `speed` px a frame, (right, down)."""
    texture, (x, y) = Texture(seed), axes(size)
    still = torch.zeros(1, 2, *size)
    moving = still - torch.tensor(speed).reshape(1, 2, 1, 1)
    frames = [texture(x - t * speed[0], y - t * speed[1]) for t in range(count)]
    first = torch.ones(1, 1, *size, dtype=torch.bool)
    covered = [first] + [outside(moving)] * (count - 1)
    return Clip(frames, [still] + [moving] * (count - 1), covered)


def moving_square(
    count: int = 10,
    size: Size = SIZE,
    *,
    side: float | None = None,
    speed: tuple[float, float] = (2.3, 0.7),
    background: tuple[float, float] = (0.0, 0.0),
    seed: int = 0,
) -> Clip:
    """A textured square, moving by `speed`, over a texture that moves by `background`, px a frame.

    Its side is by default two fifths of the frame's height; it turns back at the frame's borders.
    """
    side = side or 0.4 * size[0]
    behind, front = Texture(seed), Texture(seed + 1)
    (columns, rows), (x, y) = axes(size), places(size)
    lefts = _bounced(0.1 * size[1], speed[0], size[1] - side, count)
    tops = _bounced(0.2 * size[0], speed[1], size[0] - side, count)
    frames, motions, covered = [], [], []
    for t in range(count):
        before = max(t - 1, 0)
        share = _square(x - lefts[t], y - tops[t], side)
        back = behind(columns - t * background[0], rows - t * background[1])
        moved = front(columns - lefts[t], rows - tops[t])
        frames.append(torch.lerp(back, moved, share.float()))
        on = share > 0.5
        dx = torch.where(on, lefts[before] - lefts[t], (before - t) * background[0])
        dy = torch.where(on, tops[before] - tops[t], (before - t) * background[1])
        motion = torch.stack([dx, dy])[None].float()
        was_under = _square(x + dx - lefts[before], y + dy - tops[before], side) > 0.5
        hidden = (~on & was_under)[None, None] | outside(motion)
        motions.append(motion)
        covered.append(hidden if t else torch.ones_like(hidden))
    return Clip(frames, motions, covered)


def _square(x: Tensor, y: Tensor, side: float) -> Tensor:
    """How much of each pixel a square from 0 to `side` covers, in [0, 1]."""

    def along(z: Tensor) -> Tensor:
        return (torch.minimum(z, side - z) + 0.5).clamp(0, 1)

    return along(x) * along(y)


def _bounced(start: float, speed: float, most: float, count: int) -> list[float]:
    """`count` places from `start` on, `speed` apart, that turn back at 0 and at `most`."""
    found = []
    for t in range(count):
        place = (start + speed * t) % (2 * most)
        found.append(min(place, 2 * most - place))
    return found


def cuts(size: Size = SIZE, *, shot: int = 20, seed: int = 0) -> Clip:
    """Twenty cuts, two fades and a flash; `shot` frames, moving slowly, between two of them.

    The fades, ten frames each, are no cuts: one picture goes over into the next, and one goes to
    black, out of which comes another. Nor is the flash, two frames of almost white within a shot.
    """
    scenes = [_scene(seed + number, size) for number in range(23)]
    frames: list[Tensor] = []
    starts: list[int] = []
    scene = 0
    for event in range(23):
        if event in (6, 14):
            frames += _faded(scenes[scene : scene + 2], shot, through_black=event == 14)
            scene += 1
        elif event == 10:
            flash = [scenes[scene](t - shot) for t in range(shot)]
            flash[8:10] = [0.9 + 0.1 * frame for frame in flash[8:10]]
            frames += flash
        else:
            frames += [scenes[scene](t) for t in range(shot)]
            scene += 1
            starts.append(len(frames))
    frames += [scenes[scene](t) for t in range(shot)]
    still = torch.zeros(1, 2, *size)
    nowhere = torch.zeros(1, 1, *size, dtype=torch.bool)
    return Clip(frames, [still] * len(frames), [nowhere] * len(frames), tuple(starts))


def _scene(seed: int, size: Size) -> Callable[[float], Tensor]:
    texture, (x, y) = Texture(1000 + 7 * seed), axes(size)
    draw = torch.Generator().manual_seed(seed)
    across, down = (torch.rand(2, generator=draw).double() - 0.5).tolist()
    return lambda t: texture(x - 2 * across * t, y - 2 * down * t)


def _faded(
    scenes: Sequence[Callable[[float], Tensor]], shot: int, *, through_black: bool
) -> list[Tensor]:
    """The first scene for `shot` frames, of which the last ten go over into the second."""
    frames = [scenes[0](t) for t in range(shot - 10)]
    for t in range(10):
        share = (t + 1) / 10
        first, second = scenes[0](shot - 10 + t), scenes[1](t - 10)
        if through_black:
            frames.append(first * max(0.0, 1 - 2 * share) + second * max(0.0, 2 * share - 1))
        else:
            frames.append(torch.lerp(first, second, share))
    return frames
