"""What natural pictures have in common: their colours, and how much of each frequency."""

from __future__ import annotations

import functools
from importlib import resources
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from phosphene.errors import WeightsError


class Statistics(NamedTuple):
    """What natural pictures have in common, float64, sRGB in [0, 1]; see training/statistics.py.

    `mean`, `(3,)`, and `covariance`, `(3, 3)`, of R, G, B. `colour`, `(3, 3)`: a square root of the
    covariance, its longest column of length 1, so that `colour @ channels` gives decorrelated
    channels the colours of nature. `spectrum`, `(3, S, S // 2 + 1)`: the mean of
    `|rfft2(norm="ortho")|` of each such channel at unit variance, S × S px.
    """

    mean: Tensor
    covariance: Tensor
    colour: Tensor
    spectrum: Tensor

    @property
    def axes(self) -> Tensor:
        """The square root of the covariance at its true length: unit variance → sRGB contrast."""
        return self.colour * (self.covariance.trace() / self.colour.square().sum()).sqrt()


@functools.cache
def natural_statistics() -> Statistics:
    """Read the bundled statistics, float64 on the CPU. WeightsError if the file is not there."""
    file = resources.files("phosphene") / "data" / "natural.npz"
    try:
        with file.open("rb") as stream, np.load(stream) as arrays:
            parts = {name: torch.from_numpy(arrays[name]).double() for name in Statistics._fields}
    except (OSError, KeyError, ValueError) as error:
        raise WeightsError(f"the statistics of natural pictures, {file}: {error}") from error
    return Statistics(**parts)
