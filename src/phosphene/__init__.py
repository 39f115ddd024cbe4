"""phosphene: see what a neural network sees.

>>> import phosphene as ph
>>> net = ph.load_network()
>>> path = ph.save_image(ph.dream(ph.load_image("sky.jpg"), net, "mixed4c"), "dream.png")
"""

from __future__ import annotations

from phosphene.lazy import lazy_names

__version__ = "0.1.0"

# name -> module that has it; imported when asked for, so that `--help` and errors come at once.
# Editors read __init__.pyi, which scripts/make_stubs writes.
PUBLIC = {
    "Network": "phosphene.network",
    "Objective": "phosphene.objectives",
    "PhospheneError": "phosphene.errors",
    "State": "phosphene.state",
    "accentuate": "phosphene.recipes.accentuate",
    "caricature": "phosphene.recipes.caricature",
    "draw_sky": "phosphene.image",
    "dream": "phosphene.recipes.dream",
    "film": "phosphene.recipes.film",
    "film_info": "phosphene.films",
    "gradient": "phosphene.gradients",
    "grid": "phosphene.recipes.grid",
    "invert": "phosphene.recipes.invert",
    "load_image": "phosphene.image",
    "load_network": "phosphene.zoo",
    "load_plugin": "phosphene.plugins",
    "objective": "phosphene.objectives",
    "octaves": "phosphene.recipes.octaves",
    "page": "phosphene.explain.layout",
    "panels": "phosphene.recipes.panels",
    "parse": "phosphene.objectives",
    "read_film": "phosphene.films",
    "register_network": "phosphene.zoo",
    "save_image": "phosphene.image",
    "sheet": "phosphene.recipes.sheet",
    "show": "phosphene.notebook",
    "story": "phosphene.recipes.story",
    "style": "phosphene.recipes.style",
    "transform": "phosphene.transforms",
    "unit_card": "phosphene.recipes.unit",
    "visualize": "phosphene.recipes.visualize",
    "watch": "phosphene.recipes.watch",
    "write_film": "phosphene.films",
    "zoom": "phosphene.recipes.zoom",
}

_MODULES = ("jobs", "objectives")

__all__ = ["__version__", *_MODULES, *PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]


__getattr__, __dir__ = lazy_names(__name__, PUBLIC, submodules=_MODULES)
