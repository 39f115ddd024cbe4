"""Dream a film: the dream follows what moves, and the film's own time and sound stay.

The loop is in `steps/film.py`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from phosphene.recipes.base import ImageInput, Recipe, Shorthand, Subject, register
from phosphene.recipes.dream import RegionSettings, own_network
from phosphene.recipes.function import RecipeFunction
from phosphene.recipes.moving import FILES, FrameSettings, Share, network_defaults


class FilmSettings(RegionSettings, FrameSettings):
    """Every setting of a dreamt film: of each frame those of a dream, and how it is carried on."""

    dialled = (*FrameSettings.dialled, "first_steps", "uncovered_steps")

    begin: str | None = Field(
        None, description="Where to begin: 10s, 0:10, 300f (frames) or 50%.",
        json_schema_extra={"shown": "the film's begin"},
    )  # fmt: skip
    end: str | None = Field(
        None, description="Where to end, likewise.", json_schema_extra={"shown": "the film's end"}
    )
    flow: Literal["dis", "off"] = Field(
        "dis",
        description="How the dream is carried from frame to frame: along the optical flow, or not "
        "moved.",
    )
    decay: Share = Field(
        0.8,
        description="How much of the dream is left after 1/30 s.",
        json_schema_extra={"animatable": True},
    )
    calm: Share = Field(
        0.8,
        description="How much of what was carried stays as it is in 1/30 s, whatever is dreamt.",
        json_schema_extra={"animatable": True},
    )
    cut_difference: float = Field(
        0.08, ge=0, le=1, description="A change of colours that may be a cut; black to white is 1."
    )
    cut_seen: Share = Field(
        0.35, description="A cut, if less than this share of a frame was there in the last one."
    )
    first_steps: int = Field(
        10, ge=1, le=100_000, description="Steps in each octave of the first frame of a shot."
    )
    uncovered_steps: int = Field(
        4,
        ge=0,
        le=100_000,
        description="Steps more where things that were hidden have come into sight.",
    )


FILM = register(
    Recipe(
        name="film",
        settings=FilmSettings,
        network_defaults=network_defaults(FilmSettings),
        own_network=own_network,
        steps="phosphene.recipes.steps.moving:film_steps",
        result_type="phosphene.films.frames:Frame",
        step_type="phosphene.recipes.steps.frames:FrameStep",
        output="video",
        timing="phosphene.recipes.steps.moving:film_timing",
        subject=Subject(
            "objective",
            'What to dream, such as "2*mixed4b + mixed4d:42": see phosphene layers and objectives.',
            default="phosphene.recipes.steps.dream:preset_objective",
            shown_default="the preset's",
        ),
        inputs=(
            ImageInput(
                "film",
                "An MP4, MOV, MKV, WebM, AVI or GIF, or a folder of pictures.",
                kind="video",
                required=True,
                positional=True,
                resized=True,
            ),
            ImageInput(
                "mask",
                "A picture or a film: dream where it is white. Of another shape, it is resized.",
                kind="mask",
                or_film=True,
            ),
        ),
        shorthands=(
            Shorthand(
                "guide",
                "A picture: each whole layer of the objective, given or the preset's, becomes "
                "guide(layer, PICTURE), with its weight.",
                takes="picture",
                apply="phosphene.recipes.steps.dream:guided",
            ),
        ),
        regions=True,
        output_name="{photo}-dream",
        output_shown="FILM-dream.mp4",
        output_help=FILES,
        noun="film",
        heading="What to dream",
        examples=(
            "film walk.mp4",
            "film walk.mp4 -o out.mp4 --begin 10s --end 20s --size 640 --objective mixed4c",
            "film walk.mp4 --preview",
            "film walk.mp4 --like dream.png",
        ),
    )
)

film = RecipeFunction(
    FILM,
    """
    Dream a film: its frames, dreamt, one after the other.

    Args:
        film: the path of a film or of a folder of pictures; or its frames: an iterable of `Frame`,
            as `read_film` gives them, or of tensors `(1, 3, H, W)`.
        network: through which it is looked at, or its name.
        objective: an `Objective` or its text; by default the preset's for this network.
        mask: `(1, 1, H, W)` in [0, 1], dream where it is 1; or the path of a picture or a film.
        regions: pairs of a mask and an `Objective`, as in `dream`.
        **settings: those of `FilmSettings`, by name.

    Returns:
        An iterator of `Frame` with the source's own times, which `phosphene.write_film` takes; each
        is computed when it is asked for. `film.steps(…)` gives a `FrameStep` for each step.

    >>> frames = phosphene.film("walk.mp4", net, "mixed4c", end="0.1s")
    >>> info = phosphene.write_film("dream.mp4", frames, audio_from="walk.mp4")
    """,
)
