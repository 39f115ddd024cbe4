"""The four published DeepDream loops, written out plainly, for the presets to be held against.

Nothing of phosphene is used here, on purpose: NumPy, SciPy and torch, one function a publication,
each as short and literal as the code that it follows. They run in the photograph's own precision:
float64 to compare with, float32, as they were published, to be timed.

Every loop takes

- `photo`, `(H, W, 3)` float64 or float32, sRGB in [0, 1];
- `gradient_of`, what `seen_by` builds: `x -> (score, gradient)`, `x` in the loop's own units;
- `shifts`, where the publication jitters: one `(dy, dx)` in px for each step, through all octaves;

and returns a `Dream`. A loop that never clips returns values outside [0, 1] as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.ndimage as nd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).reshape(1, 3, 1, 1)
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64).reshape(1, 3, 1, 1)
CAFFE_MEAN = (122.0, 116.0, 104.0)  # R, G, B, on 0–255

Shifts = Iterable[tuple[int, int]]
GradientOf = Callable[[Tensor], tuple[float, Tensor]]


class Dream(NamedTuple):
    image: np.ndarray  # (H, W, 3), where [0, 1] is black to white
    octaves: list[np.ndarray]  # what each octave ended with, the smallest first
    scores: list[float]  # the score before each step


# --- what is seen, and the four objectives ---------------------------------------------------


def seen_by(
    module: nn.Module,
    layers: Sequence[str],
    score: Callable[[Mapping[str, Tensor]], Tensor],
    to_input: Callable[[Tensor], Tensor] = lambda x: x,
) -> GradientOf:
    """`x (1, 3, H, W) -> (score, d score / d x)`, with one forward hook a layer.

    `to_input` turns the loop's units into what the module was trained on, where they differ.
    """

    def gradient_of(x: Tensor) -> tuple[float, Tensor]:
        seen: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[..., None]:
            return lambda module, inputs, output: seen.update({name: output})

        hooks = [module.get_submodule(n).register_forward_hook(keep(n)) for n in layers]
        x = x.detach().clone().requires_grad_(True)
        module(to_input(x))
        for hook in hooks:
            hook.remove()
        value = score(seen)
        value.backward()
        assert x.grad is not None
        return value.item(), x.grad

    return gradient_of


def half_sum_of_squares(seen: Mapping[str, Tensor]) -> Tensor:
    """½ Σ a²: its gradient at the layer is the activation itself."""
    return torch.stack([0.5 * (a * a).sum() for a in seen.values()]).sum()


def sum_of_activations(seen: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([a.sum() for a in seen.values()]).sum()


def l2_norm(seen: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([(a * a).sum().sqrt() for a in seen.values()]).sum()


def borderless_squares(coefficients: Mapping[str, float]) -> Callable[..., Tensor]:
    """Σ over layers of coefficient × Σ a², two border cells cut, ÷ the whole map's elements."""

    def score(seen: Mapping[str, Tensor]) -> Tensor:
        loss = torch.zeros((), dtype=next(iter(seen.values())).dtype)
        for name, coefficient in coefficients.items():
            a = seen[name]
            loss = loss + coefficient * (a[:, :, 2:-2, 2:-2] ** 2).sum() / a.numel()
        return loss

    return score


# --- units ------------------------------------------------------------------------------------


def planes(photo: np.ndarray, dtype: np.dtype | type = np.float64) -> Tensor:
    return torch.from_numpy(np.array(photo, dtype)).permute(2, 0, 1)[None]


def picture(x: Tensor) -> np.ndarray:
    return x[0].permute(1, 2, 0).cpu().numpy().copy()


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


# --- the four loops ---------------------------------------------------------------------------


def google2015(
    photo: np.ndarray,
    gradient_of: GradientOf,
    shifts: Shifts,
    *,
    step: float = 1.5,
    octaves: int = 4,
    scale: float = 1.4,
    steps: int = 10,
    mean: Sequence[float] = CAFFE_MEAN,
) -> Dream:
    """Google's notebook of 2015 (github.com/google/deepdream, dream.ipynb).

    `x` is on 0–255 less the mean colour. The objective there is `half_sum_of_squares` of
    `inception_4c/output`; the shifts are drawn from -32 … 32, both ends included, on both axes.

    `nd.zoom` leaves a last row or column of zeros at a few sizes, where its rounding falls off the
    edge (56 → 40 is one). Choose pictures where it does not.
    """
    shifts = iter(shifts)
    bias = np.reshape(np.asarray(mean, photo.dtype), (3, 1, 1))
    bases = [255 * np.moveaxis(photo, 2, 0) - bias]
    for _ in range(octaves - 1):
        bases.append(np.asarray(nd.zoom(bases[-1], (1, 1.0 / scale, 1.0 / scale), order=1)))

    ends, scores = [], []
    detail = np.zeros_like(bases[-1])
    for octave, base in enumerate(bases[::-1]):
        if octave > 0:
            (h, w), (h1, w1) = base.shape[-2:], detail.shape[-2:]
            detail = nd.zoom(detail, (1, 1.0 * h / h1, 1.0 * w / w1), order=1)
        src = base + detail
        for _ in range(steps):
            dy, dx = next(shifts)
            src = np.roll(np.roll(src, dx, -1), dy, -2)
            score, gradient = gradient_of(torch.from_numpy(src)[None])
            g = gradient[0].numpy()
            src = src + step / np.abs(g).mean() * g
            src = np.roll(np.roll(src, -dx, -1), -dy, -2)
            src = np.clip(src, -bias, 255 - bias)
            scores.append(score)
        detail = src - base
        ends.append(np.moveaxis(src + bias, 0, 2) / 255)
    return Dream(ends[-1], ends, scores)


def inception(
    photo: np.ndarray,
    gradient_of: GradientOf,
    shifts: Shifts,
    *,
    step: float = 0.01,
    octaves: int = 3,
    scale: float = 1.25,
    steps: int = 100,
) -> Dream:
    """Feature Visualization Using DeepDream, 2021 (github.com/augustwester/deepdream).

    `x` is normalised by ImageNet's mean and deviation. The objective of the code is
    `sum_of_activations` (the article's text says L2 norm); the shifts are drawn from
    -H // 2 … H // 2 - 1, and likewise for W. What the article leaves out and its code does: black
    and white are never passed, neither after a step nor when the detail is added.
    """
    shifts = iter(shifts)
    x = planes(photo, photo.dtype)
    mean, std = IMAGENET_MEAN.to(x), IMAGENET_STD.to(x)
    original = (x - mean) / std
    h, w = original.shape[-2:]
    pyramid = [resize(original, (int(h / scale**k), int(w / scale**k))) for k in range(octaves)]
    black, white = (0 - mean) / std, (1 - mean) / std

    ends, scores = [], []
    detail = None
    for octave in pyramid[::-1]:
        dream = octave
        if detail is not None:
            dream = (octave + resize(detail, octave.shape[-2:])).clamp(black, white)
        for _ in range(steps):
            dy, dx = next(shifts)
            dream = torch.roll(dream, (dy, dx), (2, 3))
            score, g = gradient_of(dream)
            g = (g - g.mean()) / (g.std() + 1e-8)
            dream = (dream + step * g).clamp(black, white)
            dream = torch.roll(dream, (-dy, -dx), (2, 3))
            scores.append(score)
        detail = dream - octave
        ends.append(picture(dream * std + mean))
    return Dream(ends[-1], ends, scores)


def keras(
    photo: np.ndarray,
    gradient_of: GradientOf,
    *,
    step: float = 0.01,
    octaves: int = 3,
    scale: float = 1.4,
    steps: int = 20,
    max_loss: float | None = 15.0,
    last_step: bool = False,
) -> Dream:
    """Chollet's Deep Dream for Keras (Deep Learning with Python, section 8.2; keras.io).

    `x` is in [-1, 1]. The objective is `borderless_squares`, with mixed2 .2, mixed3 3, mixed4 2,
    mixed5 1.5 in the book. The two publications differ twice. Resizing: keras.io's is followed
    (bilinear, half-pixel centres; the book's is `nd.zoom`). A loss above `max_loss`: the book
    breaks off before that step is taken, keras.io after it (`last_step`). Both inject the lost
    detail after the ascent though they say before; at the smallest octave there is none.
    """
    original = planes(photo, photo.dtype) * 2 - 1
    h, w = original.shape[-2:]
    shapes = [(int(h / scale**k), int(w / scale**k)) for k in range(octaves)][::-1]
    shrunk = resize(original, shapes[0])

    ends, scores = [], []
    img = original
    for shape in shapes:
        img = resize(img, shape)
        for _ in range(steps):
            loss, g = gradient_of(img)
            scores.append(loss)
            if max_loss is not None and loss > max_loss and not last_step:
                break
            img = img + step * g / max(g.abs().mean().item(), 1e-7)
            if max_loss is not None and loss > max_loss:
                break
        lost_detail = resize(original, shape) - resize(shrunk, shape)
        img = img + lost_detail
        shrunk = resize(original, shape)
        ends.append(picture((img + 1) / 2))
    return Dream(ends[-1], ends, scores)


def torchvision_vgg(
    photo: np.ndarray,
    gradient_of: GradientOf,
    *,
    step: float = 0.1,
    octaves: int = 3,
    scale: float = 1.4,
    steps: int = 20,
) -> Dream:
    """DeepDream with torchvision's VGG16, in the article's own arithmetic.

    `x` is normalised by ImageNet's mean and deviation; the objective is `l2_norm` of `features.30`.
    `F.interpolate` takes its default mode, nearest, both ways: down by a factor, each octave from
    the one before, and up by size. After each step every value is clamped to -3 … 3. The article
    squashes every picture to 224 × 224 first; here it keeps its size and its shape. With one octave
    and another objective the same class visualises a channel, and dreams by a guide.
    """
    x = planes(photo, photo.dtype)
    mean, std = IMAGENET_MEAN.to(x), IMAGENET_STD.to(x)
    pyramid = [(x - mean) / std]
    for _ in range(octaves - 1):
        pyramid.append(F.interpolate(pyramid[-1], scale_factor=1 / scale))

    ends, scores = [], []
    detail = torch.zeros_like(pyramid[-1])
    for base in reversed(pyramid):
        if detail.shape != base.shape:
            detail = F.interpolate(detail, size=base.shape[-2:])
        dream = base + detail
        for _ in range(steps):
            score, g = gradient_of(dream)
            dream = torch.clamp(dream + step * g / g.norm(), -3, 3)
            scores.append(score)
        detail = dream - base
        ends.append(picture(dream * std + mean))
    return Dream(ends[-1], ends, scores)


def mean_of_channel(channel: int) -> Callable[..., Tensor]:
    """What the torchvision article's channel visualisation maximises."""
    return lambda seen: torch.stack([a[:, channel].mean() for a in seen.values()]).sum()


def minus_distance_to(features: Mapping[str, Tensor]) -> Callable[..., Tensor]:
    """What the torchvision article's guided dream maximises, features of the guide given."""
    return lambda seen: torch.stack(
        [-((a - features[name]) ** 2).mean() for name, a in seen.items()]
    ).sum()
