"""What single units see: sheets of a layer's channels, and the card of one unit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phosphene.explain.layout import page as page
    from phosphene.explain.sheets import sheet as sheet
    from phosphene.explain.units import unit_card as unit_card

_PUBLIC = {"page": "layout", "sheet": "sheets", "unit_card": "units"}

__all__ = ["page", "sheet", "unit_card"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: the settings beside them are read without torch.
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
