"""Statistics of natural pictures: how their colours and frequencies go together.

    python -m training.statistics --data tiny-imagenet-140 --pictures 10000

Writes `natural.npz`, all float32, values sRGB in [0, 1]:

- `mean` (3,): the mean colour.
- `covariance` (3, 3): of R, G, B over all pixels.
- `colour` (3, 3): U √S of the covariance U S Uᵀ, divided by its largest column norm. Columns are
  axes of falling variance (luminance, orange to blue, magenta to green), so `colour @ channels`
  turns decorrelated channels into RGB (Olah et al. 2017, "Feature Visualization").
- `spectrum` (3, H, W // 2 + 1): mean magnitude over pictures of the orthonormal rfft2 of each
  decorrelated channel, scaled to unit variance, as MaCo wants it (Fel et al. 2023, who have one
  for all channels: the mean over axis 0). A Hann window of unit power keeps the picture's border
  from leaking into every frequency. Luminance falls about as 1 / frequency; colour falls faster,
  also because JPEG halves its resolution.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training import data

NATURAL = Path(__file__).parents[1] / "src" / "phosphene" / "data" / "natural.npz"


def covariance(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean colour `(3,)` and covariance `(3, 3)` of uint8 `(N, 3, H, W)`, in [0, 1], float64."""
    total, outer, count = torch.zeros(3).double(), torch.zeros(3, 3).double(), 0
    for part in images.split(500):
        pixels = part.double().div(255).transpose(0, 1).flatten(1)
        total += pixels.sum(1)
        outer += pixels @ pixels.T
        count += pixels.shape[1]
    mean = total / count
    return mean, outer / count - torch.outer(mean, mean)


def colour_axes(covariance: Tensor) -> Tensor:
    """U √S of a covariance: columns of falling variance, each with a positive first entry."""
    variance, axes = torch.linalg.eigh(covariance)
    axes, variance = axes.flip(1), variance.flip(0).clamp_min(0)
    return axes * axes[0].sign() * variance.sqrt()


def spectrum(images: Tensor, mean: Tensor, axes: Tensor) -> Tensor:
    """Mean magnitude `(3, H, W // 2 + 1)` of decorrelated channels of uint8 `(N, 3, H, W)`."""
    height, width = images.shape[-2:]
    window = torch.outer(
        torch.hann_window(height, dtype=torch.float64),
        torch.hann_window(width, dtype=torch.float64),
    )
    window /= window.square().mean().sqrt()
    whiten = torch.linalg.inv(axes)
    total = torch.zeros(3, height, width // 2 + 1, dtype=torch.float64)
    for part in images.split(500):
        centred = part.double().div(255) - mean.view(1, 3, 1, 1)
        channels = torch.einsum("dc,nchw->ndhw", whiten, centred)
        # The window would spread the mean over the lowest frequencies, so it is taken out before
        # and put back afterwards.
        level = (channels * window).mean((2, 3), keepdim=True) / window.mean()
        frequencies = torch.fft.rfft2((channels - level) * window, norm="ortho").abs()
        frequencies[..., 0, 0] = channels.mean((2, 3)).abs() * (height * width) ** 0.5
        total += frequencies.sum(0)
    return total / len(images)


def profile(spectrum: Tensor) -> Tensor:
    """Mean of an rfft2 magnitude `(H, W // 2 + 1)` at each whole radius below Nyquist, from 0."""
    height, half = spectrum.shape
    down = torch.fft.fftfreq(height, 1 / height)
    radius = torch.hypot(down[:, None], torch.arange(half).float()[None]).round().long()
    # All columns but the first and the last stand for two conjugate frequencies.
    weight = torch.full_like(spectrum, 2.0)
    weight[:, 0] = weight[:, -1] = 1
    sums, weights = (
        torch.zeros(int(radius.max()) + 1, dtype=spectrum.dtype).index_add(
            0, radius.flatten(), values.flatten()
        )
        for values in (spectrum * weight, weight)
    )
    return (sums / weights)[: half - 1]


def exponent(spectrum: Tensor, low: int = 3, high: int = 20) -> float:
    """a of magnitude ∝ 1 / frequency^a, fitted to `low` … `high` cycles a picture."""
    levels = profile(spectrum)[low : high + 1]
    frequencies = torch.arange(low, low + len(levels), dtype=levels.dtype)
    slope, _ = np.polyfit(frequencies.log().numpy(), levels.log().numpy(), 1)
    return -float(slope)


def statistics(images: Tensor) -> dict[str, np.ndarray]:
    """The arrays of `natural.npz` from uint8 `(N, 3, H, W)`."""
    mean, matrix = covariance(images)
    axes = colour_axes(matrix)
    arrays = {
        "mean": mean,
        "covariance": matrix,
        "colour": axes / axes.norm(dim=0).max(),
        "spectrum": spectrum(images, mean, axes),
    }
    return {name: values.float().numpy() for name, values in arrays.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of training.fetch")
    parser.add_argument("--out", type=Path, default=NATURAL, help="default %(default)s")
    parser.add_argument("--pictures", type=int, default=10_000, help="so many, drawn (0: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    given = parser.parse_args()
    pictures = data.load(given.data, "train")
    if given.pictures:
        pictures = pictures.subset(given.pictures, given.seed)
    arrays = statistics(pictures.images)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(given.out, **arrays)  # pyright: ignore[reportArgumentType]
    fitted = [exponent(channel) for channel in torch.from_numpy(arrays["spectrum"])]
    with np.printoptions(precision=4, suppress=True):
        print(f"mean {arrays['mean']}\ncolour\n{arrays['colour']}")
    powers = ", ".join(f"{power:.2f}" for power in fitted)
    print(f"{len(pictures)} pictures: magnitude falls as 1 / frequency^a, a = {powers} by channel")


if __name__ == "__main__":
    main()
