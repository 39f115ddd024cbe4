"""From pictures in [0, 1] to the values that a module was trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from phosphene.errors import NetworkError, SettingsError
from phosphene.image.tensor import luma
from phosphene.runtime import fused
from phosphene.runtime.device import layout_of


class Preprocessing:
    """Image `(N, C, H, W)` in [0, 1] -> (image - shift) / scale, a number a channel each.

    Args:
        shift: What is taken from each channel.
        scale: What each channel is divided by then.
    """

    def __init__(self, shift: Sequence[float], scale: Sequence[float]) -> None:
        self.shift, self.scale = tuple(shift), tuple(scale)
        self._constants: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    @classmethod
    def of(
        cls, mean: Sequence[float], std: Sequence[float], input_range: tuple[float, float]
    ) -> Preprocessing:
        """That of a module which takes values of such a mean and standard deviation.

        input_range: what black and white are before `mean` and `std`.
        """
        if len(mean) != len(std) or not all(s > 0 for s in std):
            raise SettingsError(
                f"mean {tuple(mean)} and std {tuple(std)}: one number > 0 a channel"
            )
        low, high = input_range
        # image in [0, 1] -> (image - shift) / scale, in one go
        return cls([(m - low) / (high - low) for m in mean], [s / (high - low) for s in std])

    def __call__(self, image: Tensor, dtype: torch.dtype) -> Tensor:
        """The values, in a type, laid out as suits the device.

        A network of one channel is shown the luma of a picture in colour, Rec. 601 as Pillow's "L".
        """
        if image.ndim == 4 and image.shape[1] == 3 and len(self.scale) == 1:
            image = luma(image)
        if image.ndim != 4 or image.shape[1] != len(self.scale):
            shape = tuple(image.shape)
            raise NetworkError(f"an image is (N, {len(self.scale)}, H, W), this one is {shape}")
        key = (image.dtype, image.device)
        if key not in self._constants:
            self._constants[key] = (
                image.new_tensor(self.shift).view(1, -1, 1, 1),
                image.new_tensor(self.scale).view(1, -1, 1, 1),
            )
        shift, scale = self._constants[key]
        if fused.takes(image):
            return fused.preprocessed(image, shift, scale, dtype)
        layout = layout_of(image.device)
        return ((image - shift) / scale).to(dtype).contiguous(memory_format=layout)
