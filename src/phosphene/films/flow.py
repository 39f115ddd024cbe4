"""What moves between two frames, and what was hidden before: optical flow, warping, occlusion.

`motion(before, now)` says for each pixel of a frame where it was in the frame before, and whether
it was seen there. Flow is OpenCV's DIS (Kroeger et al. 2016, "Fast Optical Flow using Dense Inverse
Search"), whose edges lie some px beside those of things: so each pixel then takes the flow of a
neighbour where that explains it better, as PatchMatch does (Barnes et al. 2009). OpenCV does
nothing else here, and decodes nothing.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phosphene.errors import ImageError, MissingExtraError

Array = np.ndarray[Any, Any]

# Sundaram et al. 2010, "Dense Point Trajectories by GPU-accelerated Large Displacement Optical
# Flow": how far flow there and back may miss, as a share of both, and px² besides.
CONSISTENT_SHARE, CONSISTENT = 0.01, 0.5
COVERED = 0.5  # of a pixel, by what came to lie on it from the frame before
DIFFERENT = 0.06  # mean of the colours' difference, black to white 1, over 3 × 3 px
MASK_SIGMA = 0.8  # px
REACHES = (4, 2)  # px, how far neighbours are whose flow is tried
KEPT = 0.9  # a neighbour's flow must leave less than so much of the difference
LEAST_SIDE = 32  # px, of what DIS looks at
STILL = 0.02  # px²: flow that changes by no more between neighbours has no edges
MOST_GAIN = 4.0  # of exposure, between two frames
GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Motion:
    """How a frame comes of the one before.

    backward: `(1, 2, H, W)`, px: where what is seen at a pixel was in the frame before, less where
        it is, (right, down).
    seen: `(1, 1, H, W)` bool, whether it was seen there.
    """

    backward: Tensor
    seen: Tensor

    @property
    def uncovered(self) -> float:
        """The share of the frame that was not seen in the frame before."""
        return 1 - float(self.seen.float().mean())

    def mask(self) -> Tensor:
        """`seen` with soft edges, `(1, 1, H, W)` in [0, 1]; 0 where nothing was seen."""
        cv2 = opencv()
        seen = self.seen[0, 0].float().contiguous().numpy()
        soft = cv2.GaussianBlur(seen, (0, 0), MASK_SIGMA, borderType=cv2.BORDER_REPLICATE)
        # Blurred inwards: what is carried to where nothing was seen is of another thing.
        return torch.from_numpy(soft * seen)[None, None]


def opencv() -> Any:
    """OpenCV. MissingExtraError if it is not installed."""
    try:
        import cv2  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtraError("Optical flow", "film") from None
    return cv2


def motion(before: Tensor, now: Tensor) -> Motion:
    """The motion between two frames `(1, 3, H, W)` in [0, 1], on the CPU.

    Backward flow is computed as such: forward flow negated lies where things were, not where they
    are. A pixel counts as seen if flow there and back agree, something of the frame before came to
    lie on it, it was within the frame, and it looks alike. A change of exposure between the frames,
    as in a fade, is taken out first.

    Raises:
        ImageError: frames of another shape, or of two sizes.
        MissingExtraError: OpenCV is not installed.
    """
    for frame in (before, now):
        if frame.ndim != 4 or frame.shape[:2] != (1, 3) or frame.shape != now.shape:
            shapes = f"{tuple(before.shape)} and {tuple(now.shape)}"
            raise ImageError(f"motion is between two frames (1, 3, H, W) of one size, not {shapes}")
    first, second = _pixels(_exposed_as(before, now)), _pixels(now)
    backward, forward = _flow(second, first), _flow(first, second)
    if max(_steepest(backward), _steepest(forward)) > STILL:
        backward = _refined(backward, first, second)
        forward = _refined(forward, second, first)
    seen = _seen(backward, forward, first, second)
    flow = torch.from_numpy(backward.transpose(2, 0, 1).copy())[None]
    return Motion(flow, torch.from_numpy(seen)[None, None])


def warp(picture: Tensor, backward: Tensor) -> Tensor:
    """The picture as `backward` has it moved: `(1, C, H, W)` -> the same, C from 1 to 4.

    W(X)(p) = X(p + b(p)), by Lanczos over 8 × 8 px: of twenty warps in a row it leaves most of the
    fine detail, where bilinear leaves almost none. Reflected beyond the frame. It may overshoot.
    """
    cv2 = opencv()
    array = picture[0].permute(1, 2, 0).contiguous().numpy()
    flow = backward[0].permute(1, 2, 0).contiguous().numpy()
    moved = _remapped(array, flow, cv2.INTER_LANCZOS4).reshape(array.shape)
    return torch.from_numpy(moved).permute(2, 0, 1)[None].contiguous()


# Before it ----------------------------------------------------------------------------------------


def _exposed_as(before: Tensor, now: Tensor) -> Tensor:
    """`before` with the mean and deviation of each colour of `now`, where both have some."""
    spread, wanted = (f.std((2, 3), correction=0, keepdim=True) for f in (before, now))
    gain = torch.where(spread > 0.5 / 255, wanted / spread.clamp_min(1e-6), 1.0)
    gain = gain.clamp(1 / MOST_GAIN, MOST_GAIN)
    centred = before - before.mean((2, 3), keepdim=True)
    return centred * gain + now.mean((2, 3), keepdim=True)


def _pixels(frame: Tensor) -> Array:
    """`(H, W, 3)` uint8."""
    levels = (frame[0].clamp(0, 1) * 255).round().to(torch.uint8)
    return levels.permute(1, 2, 0).contiguous().numpy()


# Flow: arrays (H, W, 2), float32, px --------------------------------------------------------------


def _flow(first: Array, second: Array) -> Array:
    """Where each pixel of `first` is in `second`, less where it is."""
    cv2 = opencv()
    height, width = first.shape[:2]
    below, right = max(LEAST_SIDE - height, 0), max(LEAST_SIDE - width, 0)
    grey = []
    for frame in (first, second):
        one = np.round(frame @ np.array(GREY, np.float32)).astype(np.uint8)
        grey.append(cv2.copyMakeBorder(one, 0, below, 0, right, cv2.BORDER_REPLICATE))
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return np.ascontiguousarray(dis.calc(*grey, None)[:height, :width])


def _places(flow: Array) -> Array:
    """Where the flow leads, `(H, W, 2)`, px."""
    height, width = flow.shape[:2]
    places = flow.copy()
    places[..., 0] += np.arange(width, dtype=np.float32)
    places[..., 1] += np.arange(height, dtype=np.float32)[:, None]
    return places


def _remapped(array: Array, flow: Array, how: int) -> Array:
    cv2 = opencv()
    return cv2.remap(array, _places(flow), None, how, borderMode=cv2.BORDER_REFLECT_101)


def _steepest(flow: Array) -> float:
    """The largest change of the flow between neighbours, px²."""
    down, across = (np.diff(flow, axis=axis) for axis in (0, 1))
    return max(float(np.square(change).max(initial=0)) for change in (down, across))


def _difference(flow: Array, source: Array, target: Array) -> Array:
    """What the flow leaves unexplained, over 3 × 3 px: the colours' sum, `(H, W)` float32."""
    cv2 = opencv()
    left = cv2.absdiff(_remapped(source, flow, cv2.INTER_LINEAR), target)
    total = cv2.transform(left, np.ones((1, 3), np.float32))
    return cv2.blur(total, (3, 3), borderType=cv2.BORDER_REPLICATE).astype(np.float32)


def _refined(flow: Array, source: Array, target: Array) -> Array:
    """The flow with that of neighbours where it explains a pixel of `target` better."""
    cv2 = opencv()
    height, width = flow.shape[:2]
    refined, least = flow.copy(), KEPT * _difference(flow, source, target)
    for reach in REACHES:
        around = cv2.copyMakeBorder(refined, *[reach] * 4, cv2.BORDER_REPLICATE)
        for down, right in itertools.product((0, reach, 2 * reach), repeat=2):
            tried = np.ascontiguousarray(around[down : down + height, right : right + width])
            left = _difference(tried, source, target)
            better = (left < least).astype(np.uint8)
            cv2.copyTo(tried, better, refined)
            cv2.copyTo(left, better, least)
    return refined


# What was seen: arrays (H, W) ---------------------------------------------------------------------


def _seen(backward: Array, forward: Array, first: Array, second: Array) -> Array:
    cv2 = opencv()
    height, width = backward.shape[:2]
    back = _remapped(forward, backward, cv2.INTER_LINEAR)
    missed = np.square(backward + back).sum(2)
    both = np.square(backward).sum(2) + np.square(back).sum(2)
    places = _places(backward)
    # Pixels are squares around their centres.
    inside = (places > -0.5).all(2) & (places < (width - 0.5, height - 0.5)).all(2)
    alike = _difference(backward, first, second) <= DIFFERENT * 255 * 3
    consistent = missed <= CONSISTENT_SHARE * both + CONSISTENT
    return consistent & inside & alike & (_covered(forward) >= COVERED)


def _covered(forward: Array) -> Array:
    """How much of what the forward flow moves comes to lie on each pixel, bilinearly."""
    height, width = forward.shape[:2]
    places = _places(forward)
    corner = np.floor(places)
    part = places - corner
    x, y = corner[..., 0].astype(np.int64), corner[..., 1].astype(np.int64)
    total = np.zeros(height * width + 1)  # the last for what leaves the frame
    for down in (0, 1):
        for right in (0, 1):
            share = np.abs(1 - right - part[..., 0]) * np.abs(1 - down - part[..., 1])
            within = (x + right >= 0) & (x + right < width) & (y + down >= 0) & (y + down < height)
            index = np.where(within, (y + down) * width + x + right, height * width)
            total += np.bincount(index.ravel(), share.ravel(), total.size)
    return total[:-1].reshape(height, width)
