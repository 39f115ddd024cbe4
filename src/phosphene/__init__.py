"""phosphene: see what a neural network sees.

>>> import phosphene as ph
>>> net = ph.load_network()
>>> ph.save_image(ph.dream(ph.load_image("sky.jpg"), net, "mixed4c"), "dream.png")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phosphene import objectives as objectives
    from phosphene.errors import PhospheneError as PhospheneError
    from phosphene.explain.layout import page as page
    from phosphene.gradients import gradient as gradient
    from phosphene.image import draw_sky as draw_sky
    from phosphene.image import load_image as load_image
    from phosphene.image import save_image as save_image
    from phosphene.network import Network as Network
    from phosphene.objectives import Objective as Objective
    from phosphene.objectives import objective as objective
    from phosphene.recipes.accentuate import accentuate as accentuate
    from phosphene.recipes.caricature import caricature as caricature
    from phosphene.recipes.dream import dream as dream
    from phosphene.recipes.invert import invert as invert
    from phosphene.recipes.sheet import sheet as sheet
    from phosphene.recipes.style import style as style
    from phosphene.recipes.unit import unit_card as unit_card
    from phosphene.recipes.visualize import visualize as visualize
    from phosphene.spec import parse as parse
    from phosphene.transforms import transform as transform
    from phosphene.zoo import load_network as load_network
    from phosphene.zoo import register_network as register_network

__version__ = "0.1.0"

# name -> module that has it; imported when asked for, so that `--help` and errors come at once.
_PUBLIC = {
    "Network": "phosphene.network",
    "Objective": "phosphene.objectives",
    "PhospheneError": "phosphene.errors",
    "accentuate": "phosphene.recipes.accentuate",
    "caricature": "phosphene.recipes.caricature",
    "draw_sky": "phosphene.image",
    "dream": "phosphene.recipes.dream",
    "gradient": "phosphene.gradients",
    "invert": "phosphene.recipes.invert",
    "load_image": "phosphene.image",
    "load_network": "phosphene.zoo",
    "objective": "phosphene.objectives",
    "page": "phosphene.explain.layout",
    "parse": "phosphene.spec",
    "register_network": "phosphene.zoo",
    "save_image": "phosphene.image",
    "sheet": "phosphene.recipes.sheet",
    "style": "phosphene.recipes.style",
    "transform": "phosphene.transforms",
    "unit_card": "phosphene.recipes.unit",
    "visualize": "phosphene.recipes.visualize",
}

__all__ = ["__version__", "objectives", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name == "objectives":
        return importlib.import_module("phosphene.objectives")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'phosphene' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
