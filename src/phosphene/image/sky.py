"""A sky to start from: clouds over a horizon, from a seed."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene.errors import SettingsError
from phosphene.image.tensor import resize

_TILE = 512  # px a side of the noises that everything below is made of
_PERIOD = 6.0  # the clouds repeat after so many heights of the frame


def draw_sky(height: int, width: int, seed: int = 0) -> Tensor:
    """Draw fair-weather clouds over a horizon: a picture to dream on that is nobody's photograph.

    `(1, 3, height, width)` float32 sRGB in [0, 1], on CPU. The same seed is the same sky at every
    size: the frame's height is its unit and its middle stays, so a wider frame shows more of it.

    Each cloud is a heap of lobes on a flat base, its outline and relief from noise of round puffs
    (Worley, "A cellular texture basis function", 1996) bent by smooth noise. It is lit by how much
    less cloud there is a little nearer to the sun (Quilez, "Clouds", 2013), and fades into haze
    with distance.

    Raises:
        SettingsError: sides below 1 or a negative seed.
    """
    if min(height, width) < 1 or seed < 0:
        raise SettingsError(
            f"a sky of {width}x{height} px with seed {seed}: sides are 1 or more, seeds 0 or more"
        )
    # Small skies are drawn large and shrunk, or their noise would alias.
    finer = min(-(-256 // height), math.isqrt(250_000 // (height * width)) or 1)
    H, W = height * finer, width * finer
    rng = np.random.default_rng(seed)
    smooth, puffs = _smooth_noise(rng), _puff_noise(rng)
    up = (1 - (torch.arange(H) + 0.5) / H).view(H, 1)  # 0 at the horizon, 1 at the upper edge
    along = ((torch.arange(W) + 0.5 - W / 2) / H).view(1, W)  # 0 in the middle

    zenith, blue, horizon = _rgb(0.13, 0.33, 0.66), _rgb(0.36, 0.58, 0.84), _rgb(0.80, 0.87, 0.92)
    sky = zenith + (blue - zenith) * torch.exp(-2.2 * up) + (horizon - blue) * torch.exp(-7 * up)
    sky = sky.expand(3, H, W).clone()
    sun = rng.uniform(-0.8, 0.8)
    glow = torch.exp(-1.5 * (along - sun) ** 2 - 3 * (up - 1.1) ** 2)
    sky += 0.16 * glow * _rgb(1, 0.95, 0.85)
    _draw_cirrus(sky, up, along, smooth, rng)

    amount = rng.uniform(0.75, 1.15)
    nearness = np.sort(rng.random(int(rng.integers(60, 84))) ** 1.9)  # far ones first, and most
    for near in nearness.tolist():
        _draw_cumulus(
            sky, up, along, smooth, puffs, rng, near, amount, math.copysign(1, sun), horizon
        )
    sky += (horizon - sky) * 0.55 * torch.exp(-16 * up)
    return resize(sky[None], (height, width)).clamp(0, 1)


def _draw_cirrus(
    sky: Tensor, up: Tensor, along: Tensor, smooth: Tensor, rng: np.random.Generator
) -> None:
    """Thin streaks high up, in the perspective of a flat layer."""
    a, b, c, d = rng.random(4).tolist()
    distance = 1 / (up + 0.25)
    bend = _noise(smooth, along * distance * 0.12 + a, distance * 0.12 + b)
    streaks = _noise(smooth, along * distance * 0.22 + 0.05 * bend + c, distance * 0.8 + d)
    veil = 0.38 * _smoothstep(0.3, 2.6, streaks + 0.5 * bend) * _smoothstep(0.15, 0.6, up)
    sky += (_rgb(0.95, 0.97, 1) - sky) * veil


def _draw_cumulus(
    sky: Tensor,
    up: Tensor,
    along: Tensor,
    smooth: Tensor,
    puffs: Tensor,
    rng: np.random.Generator,
    near: float,
    amount: float,
    sunward: float,
    horizon: Tensor,
) -> None:
    """One cloud over `sky`, in place. `near` is 0 at the horizon, 1 overhead."""
    # All of its chance first, so that clouds out of frame do not change those within.
    base = 0.015 + 0.64 * near**1.2
    unit = (0.035 + 0.30 * near**1.1) * amount * rng.uniform(0.55, 1.35)
    middle = rng.uniform(-_PERIOD / 2, _PERIOD / 2)
    flatness = rng.uniform(0.6, 1)
    lobes = [
        (rng.normal() * 0.75, rng.uniform(0.35, 0.95), rng.uniform(0.3, 1.05) * flatness)
        for _ in range(int(rng.integers(4, 8)))
    ]
    a, b, c, d, e, f, g, h = rng.random(8).tolist()

    # x and y in the cloud's own units, y from its base; only the part of the frame that it is in.
    y = (up - base) / unit
    x = (torch.remainder(along - middle + _PERIOD / 2, _PERIOD) - _PERIOD / 2) / unit
    rows = ((y > -0.35) & (y < 1.75)).flatten().nonzero().flatten().tolist()
    columns = (x.abs() < 3.3).flatten().nonzero().flatten().tolist()
    if not rows or not columns:
        return
    window = (slice(None), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    x, y = torch.broadcast_tensors(x[:, window[2]], y[window[1]])

    broad = _noise(smooth, x * 0.09 + a, y * 0.09 + b)
    finer = _noise(smooth, x * 0.21 + c, y * 0.21 + d)
    bent_x, bent_y = x + 0.11 * broad + 0.03 * finer, y + 0.08 * finer
    heap = torch.zeros_like(x)
    for at, half_width, tall in lobes:
        tall *= max(0.35, 1.25 - 0.4 * abs(at))
        lobe = 1 - ((bent_x - at) / half_width) ** 2 - ((bent_y - 0.14) / tall) ** 2
        heap += torch.exp(4 * lobe.clamp_min(-2))
    heap = heap.log() / 4  # a soft maximum: lobes melt into each other

    px, py = bent_x * 0.115 + e, bent_y * 0.125 + f
    large, medium = _noise(puffs, px, py), _noise(puffs, px * 2.3 + 0.37, py * 2.3)
    small = _noise(puffs, px * 5.7, py * 5.7)
    relief = 0.55 * large + 0.30 * medium + 0.15 * small - 0.6
    fray = _noise(smooth, x * 0.6 + g, y * 0.6 + h)
    depth = 0.62 * heap + 2.1 * relief + 0.07 * fray
    floor = y + 0.16 + 0.05 * finer + 0.3 * (large - 0.6)

    rise = _smoothstep(-0.1, 1.0, y + 0.5 * relief + 0.08 * sunward * x)
    sx, sy = px + 0.0176 * sunward, py + 0.022
    facing = 0.9 * (large - _noise(puffs, sx, sy))
    facing += 0.55 * (medium - _noise(puffs, sx * 2.3 + 0.37, sy * 2.3))
    thin = 1 - _smoothstep(0, 0.9, depth)
    light = 0.02 + 0.6 * rise + 1.9 * facing * (0.45 + 0.55 * rise)
    light += 0.26 * thin * (0.4 + 0.6 * rise) + 0.5 * relief
    light = light.clamp(0, 1)
    light = light * (1.75 - 0.75 * light)
    shadow, lit = _rgb(0.47, 0.545, 0.665), _rgb(1, 0.99, 0.965)
    colour = shadow + (lit - shadow) * light.clamp(0, 1)

    haze = 0.72 * math.exp(-4.2 * near)
    colour += (0.99 * horizon - colour) * haze
    cover = _smoothstep(0, 1, depth / (0.46 - 0.16 * rise)) * _smoothstep(-0.05, 0.34, floor)
    sky[window] += (colour - sky[window]) * cover * (1 - 0.35 * haze)


def _rgb(red: float, green: float, blue: float) -> Tensor:
    return torch.tensor([red, green, blue]).view(3, 1, 1)


def _smoothstep(low: float, high: float, x: Tensor) -> Tensor:
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _noise(tile: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """`tile` at `(x, y)`, in units of the tile, which repeats without end."""
    x, y = torch.broadcast_tensors(x, y)
    at = torch.stack([x - x.floor(), y - y.floor()], -1) * 2 - 1
    return F.grid_sample(tile, at[None], align_corners=True)[0, 0]


def _as_tile(array: np.ndarray) -> Tensor:
    """With its first row and column again at the end, which is where it repeats."""
    return F.pad(torch.from_numpy(array.astype(np.float32))[None, None], (0, 1, 0, 1), "circular")


def _smooth_noise(rng: np.random.Generator) -> Tensor:
    """Noise with a 1/f^1.9 amplitude spectrum, mean 0 and deviation 1, that tiles."""
    frequency = np.hypot(
        np.fft.rfftfreq(_TILE, 1 / _TILE), np.fft.fftfreq(_TILE, 1 / _TILE)[:, None]
    )
    frequency[0, 0] = np.inf
    amplitude = frequency**-1.9 * np.exp(-((frequency / 110) ** 2))
    phase = np.exp(2j * np.pi * rng.random(amplitude.shape))
    noise = np.fft.irfft2(amplitude * phase, s=(_TILE, _TILE))
    return _as_tile(noise / noise.std())


def _puff_noise(rng: np.random.Generator) -> Tensor:
    """Round puffs on round puffs, 0 to 1, that tile: three octaves of one minus squared distance
    to the nearest of scattered points."""
    total = np.zeros((_TILE, _TILE))
    for cells, weight in ((8, 4), (16, 2), (32, 1)):
        cell = _TILE // cells
        reach = cell * 3 // 2
        # Each point reaches its surroundings on a wider canvas; what overhangs is folded back.
        margin = 2 * reach
        canvas = np.full((_TILE + 2 * margin,) * 2, 1.2, np.float32)
        span = np.arange(-reach, reach, dtype=np.float32)
        points = (np.indices((cells, cells)) + rng.random((2, cells, cells))) * cell + margin
        for y, x in points.reshape(2, -1).T.tolist():
            row, column = int(y), int(x)
            squared = ((span + row - y) / cell)[:, None] ** 2 + ((span + column - x) / cell) ** 2
            patch = canvas[row - reach : row + reach, column - reach : column + reach]
            np.minimum(patch, squared, out=patch)
        for _ in range(2):
            canvas[margin : 2 * margin] = np.minimum(
                canvas[margin : 2 * margin], canvas[_TILE + margin :]
            )
            canvas[_TILE : _TILE + margin] = np.minimum(
                canvas[_TILE : _TILE + margin], canvas[:margin]
            )
            canvas = canvas.T
        nearest = canvas[margin : margin + _TILE, margin : margin + _TILE]
        puff = 1 - nearest / 1.2
        total += weight * puff * (1.6 - 0.6 * puff)
    return _as_tile(total / 7)
