"""Zoom into a picture without end and dream each frame, from one layer to the next.

The loop is in `steps/zoom.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from phosphene.recipes.base import ImageInput, Recipe, Subject, register
from phosphene.recipes.dream import own_network
from phosphene.recipes.function import RecipeFunction
from phosphene.recipes.moving import (
    FILES,
    FrameRate,
    FrameSettings,
    Share,
    degrees_per_second,
    network_defaults,
    per_second,
    read_rate,
)

MOST_FRAMES = 1_000_000
FPS, FRAMES, FADE = "30", 150, 30
READS: dict[str, Callable[[str, Fraction], float]] = {
    "zoom": per_second,
    "turn": degrees_per_second,
}

# What the two published zooms say besides what they say of a dream.
OF_PRESETS: dict[str, dict[str, Any]] = {
    # The PyTorch article's zoom_dream: 1 % cut off at each side, 8 bits a frame, one octave.
    "inception": {
        "zoom": f"{1 / 0.98}/f",
        "warp": "crop",
        "eight_bits": True,
        "zoom_first": True,
        "octaves": 1,
        "steps": 50,
        "frames": 50,
    },
    # Google's notebook: 5 % a frame, by scipy's affine_transform of order 1.
    "google2015": {"zoom": f"{1 / 0.95}/f", "warp": "linear", "frames": 100},
}
# What neither of them has.
_PLAIN: dict[str, Any] = {"pull": 0.0, "source_pull": 0.0, "noise": 0.0, "fade": 0, "turn": 0.0}


def _read_center(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    try:
        x, y = (float(part) for part in given.split(","))
    except ValueError:
        raise ValueError("expected two shares of the picture, such as .5,.5") from None
    return x, y


def _same(given: Any) -> Any:
    return given


Center = Annotated[tuple[Share, Share], BeforeValidator(_read_center)]
# Read as a text where there is a rate, which a text "a frame" needs.
Factor = Annotated[float, Field(gt=0.01, lt=100), BeforeValidator(_same)]
Degrees = Annotated[float, Field(ge=-3600, le=3600), BeforeValidator(_same)]


class ZoomSettings(FrameSettings):
    """Every setting of a zoom: of each frame those of a dream, and of the journey."""

    # Small steps, each frame being dreamt on ninety times while things grow by half; and no equal
    # strength for coarse bands, which turns the colours of thousands of frames.
    step_size: float = Field(
        0.008,
        gt=0,
        le=100,
        description="Step, where black to white is 1, of the normalised gradient.",
        json_schema_extra={"animatable": True},
    )
    smooth: float = Field(
        0.5,
        ge=0,
        le=100,
        description="Gaussian blur of the gradient, sigma in px.",
        json_schema_extra={"animatable": True},
    )
    laplacian: int = Field(
        0, ge=0, le=10, description="Octave bands of the gradient brought to equal strength."
    )

    zoom: Factor = Field(
        1.5,
        description="How much larger things get in a second, such as 1.5/s; or in a frame, 1.05/f.",
        json_schema_extra={"animatable": True},
    )
    turn: Degrees = Field(
        0.0,
        description="Degrees by which the picture turns, counter-clockwise, such as 10/s or .5/f.",
        json_schema_extra={"animatable": True},
    )
    center: Center = Field(
        (0.5, 0.5),
        description="What the zoom goes to: shares of width and height, such as .5,.5.",
        json_schema_extra={"animatable": ["x", "y"], "shown": ".5,.5"},
    )
    frames: int = Field(
        FRAMES, ge=1, le=MOST_FRAMES, description="Frames of each objective, one after the other."
    )
    seconds: float | None = Field(
        None, gt=0, le=100_000, description="Seconds of each objective, instead of frames."
    )
    fade: int = Field(
        FADE,
        ge=0,
        le=MOST_FRAMES,
        description="Frames in which an objective goes over to the next.",
        json_schema_extra={"shown": "30, or a fifth of the frames"},
    )
    fps: FrameRate = Field(FPS, description="Frames a second, such as 30 or 30000/1001.")
    loop: bool = Field(False, description="The end goes over into the beginning.")
    pull: Share = Field(
        0.1,
        description="How far, in 1/30 s, colours are pulled back to those of the start: their mean "
        "and deviation in Lab.",
        json_schema_extra={"animatable": True},
    )
    source_pull: Share = Field(
        0.0,
        description="How far, in 1/30 s, the picture is pulled back to the start itself.",
        json_schema_extra={"animatable": True},
    )
    noise: Share = Field(
        0.008,
        description="Fine noise that is added to each frame, for new forms to grow from; black to "
        "white is 1.",
        json_schema_extra={"animatable": True},
    )
    warp: Literal["lanczos", "linear", "crop"] = Field(
        "lanczos",
        description="How a frame is sampled anew: crop is Pillow's crop and resize, in 8 bits.",
    )
    zoom_first: bool = Field(False, description="The first frame is a step of the zoom already.")
    eight_bits: bool = Field(False, description="Cut each frame off to 8 bits before the next.")

    @classmethod
    def settled(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Texts of rates as numbers a second, and seconds as frames."""
        try:
            fps = Fraction(str(read_rate(given.get("fps", FPS))))
        except ValueError:
            return given  # which is told by the field itself
        for name, read in READS.items():
            if isinstance(value := given.get(name), str):
                try:
                    given[name] = read(value, fps)
                except ValueError as error:
                    raise ValueError(f"{name} {value!r}: {error}") from None
        seconds = given.get("seconds")
        if isinstance(seconds, int | float) and seconds > 0:
            frames = max(1, round(seconds * fps))
            if given.get("frames", frames) != frames:
                raise ValueError(
                    f"{seconds:g} seconds are {frames} frames, and not {given['frames']}: either "
                    "says how long each objective is dreamt"
                )
            given["frames"] = frames
        if isinstance(frames := given.get("frames", FRAMES), int):
            given.setdefault("fade", min(FADE, frames // 5))
        return given

    @classmethod
    def of_preset(cls, name: str) -> dict[str, Any]:
        """What a preset fills in: its dream, and its zoom if it was published with one."""
        more = OF_PRESETS.get(name)
        return super().of_preset(name) | ({} if more is None else {**_PLAIN, **more})


ZOOM = register(
    Recipe(
        name="zoom",
        settings=ZoomSettings,
        network_defaults=network_defaults(ZoomSettings),
        own_network=own_network,
        steps="phosphene.recipes.steps.moving:zoom_steps",
        result_type="phosphene.films.frames:Frame",
        step_type="phosphene.recipes.steps.frames:FrameStep",
        output="video",
        timing="phosphene.recipes.steps.moving:zoom_timing",
        subject=Subject(
            "objectives",
            "What to dream; given several times, one after the other: see phosphene objectives.",
            list_flag="layers",
            default="phosphene.recipes.steps.zoom:preset_objectives",
            shown_default="the preset's",
        ),
        inputs=(
            ImageInput(
                "photo",
                "A picture to begin with.",
                required=True,
                positional=True,
                resized=True,
            ),
        ),
        starts=("noise", "sky"),
        output_name="{photo}-zoom",
        output_shown="PHOTO-zoom.mp4, or zoom.mp4",
        output_help=FILES,
        noun="film",
        heading="What to dream",
        examples=(
            "zoom -o zoom.mp4",
            "zoom sky.jpg --layers mixed3a,mixed4a,mixed4c,mixed5a --seconds 5 --turn 10/s",
            "zoom --size 320 --loop -o endless.mp4",
            'zoom sky.jpg --key "zoom = 0s: 1.2; 4s: 2.0 ease"',
        ),
    )
)

zoom = RecipeFunction(
    ZOOM,
    """
    Zoom into a picture and dream each frame: the frames, one after the other.

    Args:
        photo: `(1, 3, H, W)` in [0, 1], or the path of a picture: what to begin with.
        network: through which it is looked at, or its name.
        objective: an `Objective` or its text, or several, each of which is dreamt for `frames`
            frames; by default the preset's for this network.
        **settings: those of `ZoomSettings`, by name.

    Returns:
        An iterator of `Frame`, which `phosphene.write_film` takes; each is computed when it is
        asked for. `zoom.steps(…)` gives a `FrameStep` for each step on the way.

    >>> frames = phosphene.zoom("sky.jpg", net, ["mixed3a", "mixed4c"], seconds=0.1)
    >>> info = phosphene.write_film("zoom.mp4", frames)
    """,
)
