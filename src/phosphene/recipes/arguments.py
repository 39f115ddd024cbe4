"""What public functions are given, as the steps take it: a name is loaded, a path is read."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

from phosphene.errors import NetworkError

if TYPE_CHECKING:
    from phosphene.network import Network

PICTURE = "Tensor | str | Path | Image"
"""A picture's type as source: a tensor, the path of a file, or what Pillow has opened."""


def network_of(given: Any) -> Network:
    """A network itself, or that of a name.

    NetworkError for a bare module, whose preprocessing nobody knows, and for anything else.
    """
    from torch import nn

    from phosphene.network import Network
    from phosphene.zoo import load_network

    if isinstance(given, Network):
        return given
    if isinstance(given, str):
        return load_network(given)
    name = type(given).__name__
    if isinstance(given, nn.Module):
        raise NetworkError(
            f"{name} is a bare module, and what it was trained on is not known: wrap it, "
            "phosphene.Network(module, mean=…, std=…)"
        )
    raise NetworkError(
        f"the network is {name}; a phosphene.Network or the name of one, such as 'dreamnet', "
        "was expected"
    )


def architecture_of(given: Any) -> str:
    """The architecture of a network, or of what a name names; "" if it cannot be told."""
    from phosphene.zoo import named_architecture

    if isinstance(given, str):
        return named_architecture(given)
    return getattr(given, "architecture", "")


def picture_of(given: Any) -> Any:
    """A picture as a tensor `(1, 3, H, W)`, where it is a path or Pillow's.

    Anything else comes back as it is: the recipe says what is wrong with it. ImageError for a file
    that cannot be read.
    """
    from phosphene.image import load_image

    return load_image(given) if _is_file(given) else given


def mask_of(given: Any, photo: Any) -> Any:
    """A mask as a tensor `(1, 1, H, W)` of the photo's size, where it is a path or Pillow's."""
    from torch import Tensor

    from phosphene.image import load_mask, size_of

    if not _is_file(given) or not isinstance(photo, Tensor):
        return given
    mask, _ = load_mask(given, size_of(photo))
    return mask


def _is_file(given: Any) -> bool:
    from PIL import Image

    return isinstance(given, (str, PathLike, Image.Image))
