"""Objectives: what to see more of, as sums of weighted terms, in Python and as texts.

    algebra    `Objective`, how objectives add, and how activations are laid out
    text       the grammar: a text to a tree and back; needs no torch
    registry   which objectives a text can name, and which of their arguments are pictures
    units      layers, channels, neurons, directions, classes, and the picture itself
    reference  likeness to another picture
    build      a tree to an `Objective`, and the pictures that it names

`text` imports neither torch nor numpy: a name is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phosphene.lazy import lazy_names

if TYPE_CHECKING:
    from phosphene.objectives.algebra import Activations as Activations
    from phosphene.objectives.algebra import Comparison as Comparison
    from phosphene.objectives.algebra import LayerInfo as LayerInfo
    from phosphene.objectives.algebra import NetworkLike as NetworkLike
    from phosphene.objectives.algebra import Objective as Objective
    from phosphene.objectives.algebra import Total as Total
    from phosphene.objectives.algebra import cells as cells
    from phosphene.objectives.algebra import combine as combine
    from phosphene.objectives.algebra import gram as gram
    from phosphene.objectives.algebra import per_position as per_position
    from phosphene.objectives.algebra import token_grid as token_grid
    from phosphene.objectives.build import OBJECTIVES as OBJECTIVES
    from phosphene.objectives.build import describe as describe
    from phosphene.objectives.build import objective as objective
    from phosphene.objectives.build import parse as parse
    from phosphene.objectives.build import picture_paths as picture_paths
    from phosphene.objectives.build import with_pictures as with_pictures
    from phosphene.objectives.reference import GuideBy as GuideBy
    from phosphene.objectives.reference import caricature as caricature
    from phosphene.objectives.reference import content as content
    from phosphene.objectives.reference import guide as guide
    from phosphene.objectives.reference import style as style
    from phosphene.objectives.registry import PictureRef as PictureRef
    from phosphene.objectives.text import IMAGE as IMAGE
    from phosphene.objectives.text import LOGITS as LOGITS
    from phosphene.objectives.text import Tree as Tree
    from phosphene.objectives.text import negate as negate
    from phosphene.objectives.text import parse_tree as parse_tree
    from phosphene.objectives.text import quoted as quoted
    from phosphene.objectives.text import unquoted as unquoted
    from phosphene.objectives.text import with_weights as with_weights
    from phosphene.objectives.units import Norm as Norm
    from phosphene.objectives.units import channel as channel
    from phosphene.objectives.units import channels as channels
    from phosphene.objectives.units import direction as direction
    from phosphene.objectives.units import diversity as diversity
    from phosphene.objectives.units import interpolate as interpolate
    from phosphene.objectives.units import l2 as l2
    from phosphene.objectives.units import layer as layer
    from phosphene.objectives.units import logit as logit
    from phosphene.objectives.units import neuron as neuron
    from phosphene.objectives.units import tv as tv

_HOMES = {
    name: f"phosphene.objectives.{module}"
    for module, names in {
        "algebra": (
            "Activations", "Comparison", "LayerInfo", "NetworkLike", "Objective", "Total", "cells",
            "combine", "gram", "per_position", "token_grid",
        ),
        # The registry by way of `build`, which knows the built-in objectives: whoever registers
        # one must not take the name of one of them.
        "build": (
            "OBJECTIVES", "describe", "objective", "parse", "picture_paths", "with_pictures",
        ),
        "reference": ("GuideBy", "caricature", "content", "guide", "style"),
        "registry": ("PictureRef",),
        "text": (
            "IMAGE", "LOGITS", "Tree", "negate", "parse_tree", "quoted", "unquoted", "with_weights",
        ),
        "units": (
            "Norm", "channel", "channels", "direction", "diversity", "interpolate", "l2", "layer",
            "logit", "neuron", "tv",
        ),
    }.items()
    for name in names
}  # fmt: skip

__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
