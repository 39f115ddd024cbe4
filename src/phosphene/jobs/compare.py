"""Whether a replay came out as what it replays."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from phosphene import image as images

if TYPE_CHECKING:
    from phosphene.manifest.schema import Manifest


@dataclass(frozen=True)
class Comparison:
    """What came out of a replay.

    same: the picture computed now is the recipe's, by the hash of its 8-bit pixels.
    unchanged: the file holds that picture, as its format keeps it; None for a bare recipe.
    most, mean: the differences between the picture and the file's, in 8-bit levels; None if sizes
        differ or there is no file.
    differing: what else is not as it was, one short text each.
    count, frames: of a film, how many frames were compared, and which are others, from 0.
    """

    same: bool
    unchanged: bool | None
    most: int | None
    mean: float | None
    differing: tuple[str, ...]
    count: int | None = None
    frames: tuple[int, ...] = ()


def compare(
    old: Manifest, new: Manifest, picture: Tensor, alpha: Tensor | None, path: str | Path | None
) -> Comparison:
    """Compare a replay with its recipe, and with the pixels of the file at `path`, if it is one."""
    unchanged = most = mean = None
    if path is not None:
        # Encoded as the file was, alpha and all, since what a format keeps depends on it.
        with tempfile.TemporaryDirectory(prefix="phosphene-") as folder:
            copy = images.save_image(
                picture, Path(folder) / f"again{Path(path).suffix}", alpha=alpha
            )
            again, there = _levels(copy), _levels(path)
        if there.shape == again.shape:
            apart = abs(there - again)
            if not apart[..., 3].any():
                apart = apart[..., :3]
            most, mean = int(apart.max()), float(apart.mean())
        unchanged = most == 0
    return Comparison(
        same=new.result == old.result,
        unchanged=unchanged,
        most=most,
        mean=mean,
        differing=differing(old, new),
    )


def _levels(path: str | Path) -> np.ndarray:
    """The colours and the alpha of a file, `(H, W, 4)`, 0 to 255."""
    pixels, alpha, _ = images.read_image(path)
    colours = images.to_uint8(pixels)
    alphas = np.full((*colours.shape[:2], 1), 255, np.uint8)
    if alpha is not None:
        alphas = (alpha[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return np.concatenate([colours, alphas], axis=2).astype(np.int16)


def differing(old: Manifest, new: Manifest) -> tuple[str, ...]:
    """What else is not as it was, one short text each."""
    found: list[str] = []
    if old.network.fingerprint != new.network.fingerprint:
        found.append(f"weights {old.network.fingerprint[:12]}… -> {new.network.fingerprint[:12]}…")
    for role, was in old.inputs.items():
        now = new.inputs.get(role)
        if now and now.sha256 != was.sha256:
            found.append(f"{role} {was.sha256[:12]}… -> {now.sha256[:12]}…")
    was_used, is_used = ({p.name: p.text for p in m.plugins} for m in (old, new))
    for name in dict.fromkeys([*was_used, *is_used]):
        if was_used.get(name) != is_used.get(name):
            was, now = was_used.get(name, "none"), is_used.get(name, "none")
            found.append(f"plugin {name} {was} -> {now}")
    if old.numerics != new.numerics:
        found.append(f"numerics {old.numerics} -> {new.numerics}")
    if old.plan and new.plan and old.plan != new.plan:
        found.append(f"tiles {_format_plan(old.plan)} -> {_format_plan(new.plan)}")
    before, after = _made_with(old), _made_with(new)
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            found.append(f"{name} {before.get(name, 'none')} -> {after.get(name, 'none')}")
    return tuple(found)


def _made_with(manifest: Manifest) -> dict[str, Any]:
    machine = manifest.machine.model_dump(exclude_none=True)
    return {"phosphene": manifest.phosphene, **manifest.versions, **machine}


def _format_plan(plan: tuple[int | None, ...]) -> str:
    sides = dict.fromkeys("whole" if side is None else f"{side} px" for side in plan)
    return "/".join(sides)


def compare_page(
    old: Manifest, new: Manifest, page: Any, picture: Tensor, file: Path
) -> Comparison:
    """Compare a page, whose pixels are `picture`, with its recipe and with the file's own."""
    from phosphene.explain import layout
    from phosphene.manifest.capture import result_of

    if old.phosphene != page.version:
        # It stands on the page: what is compared has that of the recipe.
        page = replace(page, version=old.phosphene[:LONGEST_VERSION])
        picture = layout.pixels(page)
        new = new.model_copy(update={"result": result_of(picture)})
    found = compare(old, new, picture, None, picture_at(file))
    if file.suffix.lower() != ".svg":
        return found
    there = file.read_text("utf-8", "replace")
    unchanged, most, mean = layout.compare_svg(layout.svg(page), there)
    return replace(found, unchanged=unchanged, most=most, mean=mean)


LONGEST_VERSION = 40  # characters of a stranger's recipe that are put on a page


def picture_at(file: Path) -> Path | None:
    """The file, if its suffix is that of a picture."""
    return file if file.suffix.lower() in images.SUFFIXES else None
