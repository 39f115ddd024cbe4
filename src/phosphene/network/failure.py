"""What a module failed on, in the user's terms."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from phosphene.runtime.graph import PICTURE


def failure(name: str, values: Mapping[str, Tensor], error: Exception) -> str:
    """The module's own message, and what it was given: pictures `(N, C, H, W)`, activations."""
    message = " ".join(str(error).split())
    shown = " and ".join(
        f"a picture of {value.shape[3]}×{value.shape[2]}"
        if called == PICTURE
        else f"{called} given as {tuple(value.shape)}"
        for called, value in values.items()
    )
    return f"{name} failed on {shown}: {message}"
