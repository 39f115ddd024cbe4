"""Writing down what ran: hashes of what went in and came out, versions, the machine."""

from __future__ import annotations

import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phosphene import image as images
from phosphene.manifest.hashes import file_hash, folder_hash
from phosphene.manifest.schema import Folder, Input, Machine, Result

if TYPE_CHECKING:
    from torch import Tensor

    from phosphene.network import Network


def versions() -> dict[str, str]:
    """The versions that a result may depend on; what is not installed is left out."""
    import torch

    found = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for name in ("torchvision", "numpy", "pillow", "numba"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine(network: Network) -> Machine:
    """What a network runs on. `network` is one that `prepared` gave."""
    import torch

    from phosphene.runtime.device import exact, uses_tf32

    kind = network.device.type
    card: dict[str, Any] = {}
    if kind == "cuda":
        major, minor = torch.cuda.get_device_capability(network.device)
        instructions = f"sm_{major}{minor}"
        with exact(network.device):
            tf32 = uses_tf32(network.device)
        name, cudnn = torch.cuda.get_device_name(network.device), torch.backends.cudnn.version()
        card = {"card": name, "cudnn": cudnn, "tf32": tf32}
    else:
        instructions = torch.backends.cpu.get_cpu_capability()
    return Machine(
        device=kind,
        precision=network.precision,  # pyright: ignore[reportArgumentType]
        threads=torch.get_num_threads(),
        architecture=platform.machine().lower(),
        instructions=instructions,
        **card,
    )


def result_of(picture: Tensor) -> Result:
    """Size and hash of an image `(1, 3, H, W)` in [0, 1]."""
    pixels = images.to_uint8(picture)
    height, width = pixels.shape[:2]
    return Result(width=width, height=height, sha256=hashlib.sha256(pixels.tobytes()).hexdigest())


def input_of(path: str | Path, used: tuple[int, int], size: int | None = None) -> Input:
    """The record of a picture file that was used at `used` (H, W). ImageError if unreadable."""
    path, (height, width) = Path(path), used
    name = path.name.encode("utf-8", "replace").decode()  # a name may be no text
    return Input(name=name, sha256=file_hash(path), width=width, height=height, size=size)


def folder_of(path: str | Path) -> Folder:
    """The record of a folder of pictures. ImageError if there is none, or none in it."""
    digest, count = folder_hash(path)
    bare = os.path.basename(os.path.abspath(path)).encode("utf-8", "replace").decode()
    return Folder(name=bare or "pictures", count=count, sha256=digest)
