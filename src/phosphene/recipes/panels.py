"""Show what each part of a dream does to a photo, panel by panel.

How they are drawn is in `phosphene.explain.panels`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from phosphene.errors import suggest
from phosphene.recipes.base import ImageInput, Recipe, register
from phosphene.recipes.dream import (
    OBJECTIVE,
    DreamSettings,
    OctaveSettings,
    StartSettings,
    network_defaults,
    own_network,
)
from phosphene.recipes.function import RecipeFunction
from phosphene.recipes.sheet import PAGE

# What the four published panels switch on, one after the other.
PUBLISHED = ("octaves", "jitter")


def _off(name: str) -> Any:
    """What a setting of a dream is where it is switched off. KeyError if it cannot be."""
    extra = OctaveSettings.model_fields[name].json_schema_extra
    return (extra if isinstance(extra, dict) else {})["off"]


def _refines(name: str) -> bool:
    extra = OctaveSettings.model_fields[name].json_schema_extra
    return isinstance(extra, dict) and "off" in extra and name not in PUBLISHED


REFINEMENTS = tuple(name for name in OctaveSettings.model_fields if _refines(name))
"""What further panels can switch on."""


def _read_names(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    names = [part.strip() for part in given.split(",")]
    if not all(names):
        raise ValueError(f"expected names, such as {','.join(REFINEMENTS[:2])}")
    return names


class PanelsSettings(StartSettings, OctaveSettings):
    """Every setting of panels: of the last one those of a dream, and of the page."""

    add: Annotated[tuple[str, ...], BeforeValidator(_read_names)] = Field(
        (),
        description=f"Further panels, in order, each with one more of {', '.join(REFINEMENTS)}; "
        "what is not added is switched off in all panels",
        json_schema_extra={"group": "what", "shown": "none"},
    )
    inset: str | None = Field(
        None,
        description="X,Y,SIZE: enlarge a square of each panel, its upper left corner at X,Y, in px "
        "of the picture as it is dreamt",
        json_schema_extra={"group": "what"},
    )
    columns: Literal["auto"] | Annotated[int, Field(ge=1, le=100)] = Field(
        "auto", description="Panels in a row."
    )
    cell: Literal["auto"] | Annotated[int, Field(ge=32, le=4096)] = Field(
        "auto", description="Longest side of a panel on the page, px."
    )

    @field_validator("add")
    @classmethod
    def _are_refinements(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(name.replace("-", "_") for name in given)
        for name in names:
            if name not in REFINEMENTS:
                there = suggest(name, REFINEMENTS, most=len(REFINEMENTS))
                raise ValueError(f"{name!r} cannot be added{there}")
            if names.count(name) > 1:
                raise ValueError(f"{name!r} is added twice")
        return names

    @field_validator("inset")
    @classmethod
    def _is_a_square(cls, given: str | None) -> str | None:
        if given is None:
            return None
        found = re.fullmatch(r"\s*(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*([1-9]\d{0,5})\s*", given)
        if found is None:
            raise ValueError("expected X,Y,SIZE in px, such as 120,80,64")
        return ",".join(str(int(part)) for part in found.groups())

    @model_validator(mode="after")
    def _are_on(self) -> PanelsSettings:
        for name in self.add:
            if _added(self, name) == _off(name):
                flag = "--" + name.replace("_", "-")
                raise ValueError(
                    f"add: {name} is off in the preset {self.preset}; say how much, {flag} VALUE"
                )
        return self

    @property
    def square(self) -> tuple[int, int, int] | None:
        """Left, top and side of the inset, px."""
        if self.inset is None:
            return None
        left, top, side = map(int, self.inset.split(","))
        return left, top, side

    @property
    def drawings(self) -> int:
        """How many dreams it takes, at most."""
        return 1 + len(PUBLISHED) + len(self.add)

    def panels(self) -> list[tuple[str, DreamSettings]]:
        """Each dream with its label: what is switched on goes on in those after it."""
        whole = {name: getattr(self, name) for name in OctaveSettings.model_fields}
        dreamt = whole | {name: _off(name) for name in (*PUBLISHED, *REFINEMENTS)}
        found = [("normalised gradient", DreamSettings(**dreamt))]
        for name in (*PUBLISHED, *self.add):
            dreamt[name] = _added(self, name)
            label = f"+ {name.replace('_', ' ')}"
            if name in self.add and not isinstance(dreamt[name], bool):
                label += f" {dreamt[name]}"
            found.append((label, DreamSettings(**dreamt)))
        return found


def _added(settings: OctaveSettings, name: str) -> Any:
    """A setting as it is where it is switched on."""
    return True if isinstance(_off(name), bool) else getattr(settings, name)


PANELS = register(
    Recipe(
        name="panels",
        settings=PanelsSettings,
        network_defaults=network_defaults,
        own_network=own_network,
        steps="phosphene.explain.panels:panels_steps",
        result_type="phosphene.explain.panels:Panels",
        step_type="phosphene.explain.panels:PanelStep",
        result=lambda step: step.panels(),
        output="page",
        subject=OBJECTIVE,
        inputs=(
            ImageInput(
                "photo",
                "A JPEG, PNG, WebP, TIFF, BMP or GIF.",
                required=True,
                positional=True,
                resized=True,
            ),
            ImageInput("mask", "A picture: dream where it is white.", kind="mask"),
        ),
        starts=("sky", "noise"),
        output_name="{photo}-panels",
        output_shown="PHOTO-panels.png, or panels.png",
        output_help=PAGE,
        noun="page",
        heading="What to show",
        about="The published four: the original, the normalised gradient only, with octaves, and "
        "with jitter; the same seed and steps in each.",
        examples=(
            "panels sky.jpg",
            "panels sky.jpg --add smooth,laplacian,natural --inset 120,80,64",
            "panels sky.jpg --preset google2015 --objective mixed4c -o panels.svg",
        ),
    )
)

panels = RecipeFunction(
    PANELS,
    """
    Show what each part of a dream does: `Panels`, as `page` makes a picture of them.

    The original; the normalised gradient only; with octaves; with jitter. The four are those of the
    article on DeepDream in PyTorch (github.com/augustwester/deepdream).

    Args:
        photo: `(1, 3, H, W)` in [0, 1].
        network: through which it is looked at, or its name.
        objective: an `Objective` or its text; by default the preset's for this network.
        mask: `(1, 1, H, W)` in [0, 1], dream where it is 1.
        add: names of settings that refine a dream, such as `["smooth", "laplacian"]`: a further
            panel switches on each, at the value that it has here.
        inset: "X,Y,SIZE" in px of the photo: that square of each panel, enlarged.
        **settings: those of `PanelsSettings`, by name: a dream's, and of the page.

    Returns:
        `Panels`; `panels.steps(…)` gives a `PanelStep` for each step on the way.

    Raises:
        ImageError: for a photo that is none. SettingsError: for a square outside of it.

    >>> panels = phosphene.panels(photo, net, "mixed4c", add=["smooth"], octaves=1, steps=1)
    >>> phosphene.page(panels).save("panels.png")
    """,
)
