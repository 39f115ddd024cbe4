"""Ask a network what it sees in a picture, and show more of it.

The loop is in `steps/dream.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from phosphene.errors import SettingsError
from phosphene.image.files import LONGEST_SIDE
from phosphene.recipes.base import ImageInput, Recipe, Shorthand, Subject, register
from phosphene.recipes.function import RecipeFunction
from phosphene.recipes.presets import PRESETS, is_of_a_file, preset
from phosphene.runtime.memory import parse_memory
from phosphene.settings import GradientTransforms, Settings, is_complete

# As in gradients.py and pyramid.py, which import torch; a test holds them equal.
Normalisation = Literal["mean", "std", "norm", "rms", "none"]
Rounding = Literal["round", "floor", "chain", "chain_floor"]
Resampling = Literal["antialias", "bilinear", "corners", "nearest"]
EPSILON = 1e-20
TileSide = Annotated[int, Field(ge=1, le=LONGEST_SIDE)]
MOST_OCTAVES = 40
FAINTEST, STRONGEST = 0.2, 3.0

Fraction = Annotated[float, Field(ge=0, le=1)]


class OctaveSettings(Settings):
    """The settings of an ascent on octaves. A preset fills in what is not given.

    What refines the plain ascent says, by "off" in its `json_schema_extra`, what it is without it.
    """

    # Settings that `strength` multiplies: what is done, in small steps and large ones.
    dialled: ClassVar[tuple[str, ...]] = ("steps",)

    preset: str = Field(
        "phosphene",
        description=f"One of {', '.join(PRESETS)}; or a FILE.toml: see phosphene presets.",
    )
    strength: float | None = Field(
        None,
        ge=FAINTEST,
        le=STRONGEST,
        exclude=True,  # what it becomes is recorded, steps and step_size
        description="From a hint to a fever, in steps and their size: those of the preset are 1.",
        json_schema_extra={"absent": None, "shown": "1"},
    )
    octaves: Literal["auto"] | Annotated[int, Field(ge=1, le=MOST_OCTAVES)] = Field(
        "auto",
        description="Sizes to dream at; auto follows the picture's size.",
        json_schema_extra={"off": 1},
    )
    octave_scale: float = Field(
        1.4,
        gt=1,
        le=10,
        description="Each octave is so many times the one before.",
        json_schema_extra={"animatable": True},
    )
    smallest_octave: float = Field(
        0.75,
        gt=0,
        le=100,
        description="Shorter side of auto's smallest octave, where 1 is that of the pictures that "
        "the network was trained on.",
        json_schema_extra={"absent": 2.0, "shown": "0.75, or by network"},
    )
    steps: int = Field(10, ge=1, le=100_000, description="Ascent steps in each octave.")
    step_size: float = Field(
        0.012,
        gt=0,
        le=100,
        description="Step, where black to white is 1, of the normalised gradient.",
        json_schema_extra={"animatable": True},
    )
    jitter: Annotated[int, Field(ge=0, le=LONGEST_SIDE)] | Literal["half"] = Field(
        32,
        description="Largest random shift of each step, px, or half the picture.",
        json_schema_extra={"off": 0},
    )
    gradient: Normalisation = Field(
        "rms", description="Divide the gradient by its mean size, std, l2 norm or rms."
    )
    epsilon: float = Field(EPSILON, gt=0, le=1, description="Least divisor of the gradient.")
    smooth: float = Field(
        1.0,
        ge=0,
        le=100,
        description="Gaussian blur of the gradient, sigma in px.",
        json_schema_extra={"animatable": True, "shown": "1.0, or by network", "off": 0.0},
    )
    laplacian: int = Field(
        4,
        ge=0,
        le=10,
        description="Octave bands of the gradient brought to equal strength.",
        json_schema_extra={"off": 0},
    )
    gradient_transforms: GradientTransforms = Field(
        "",
        description="Further changes of the gradient before it is divided, in order, such as "
        '"smooth(2), laplacian(3)": see phosphene transforms.',
        json_schema_extra={"absent": "", "shown": "none"},
    )
    natural: Fraction = Field(
        0.5,
        description="How far colours of the gradient go together as in nature; 1 is almost grey.",
        json_schema_extra={"animatable": True, "absent": 0.0, "off": 0.0},
    )
    clip: float | None = Field(
        None,
        gt=0,
        description="Cut the normalised gradient beyond this.",
        json_schema_extra={"off": None},
    )
    stop_above: float | None = Field(
        None,
        description="End an octave once the score is above this; a GPU is asked every tenth step.",
    )
    clamp: Literal["off", "steps", "always"] = Field(
        "steps",
        description="Keep values in [0, 1]: after every step; or when detail is added, too.",
    )
    values: Literal["image", "network"] = Field(
        "image", description="Units of a step: the image's, or the network's normalised ones."
    )
    value_limit: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Cut values beyond this, in the same units, after every step.",
        json_schema_extra={"absent": None},
    )
    octave_rounding: Rounding = Field("round", description="How octave sizes are rounded.")
    resampling: Resampling = Field("antialias", description="How pictures travel between octaves.")
    detail: Literal["before", "after"] = Field(
        "before", description="Put the photograph's own detail back before or after an ascent."
    )
    keep_colors: bool = Field(
        False,
        description="Keep the photograph's colours.",
        json_schema_extra={"needs_photo": True, "off": False},
    )
    blend: Fraction = Field(
        1.0,
        description="Share of the dream in the result; 0 is the photo.",
        json_schema_extra={"animatable": True},
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Of every random choice.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    precision: Literal["auto", "fp32", "bf16", "fp64"] = Field(
        "auto", description="auto takes bf16 where it is fast and its gradient agrees."
    )
    tile: Literal["auto", "off", "approximate"] | TileSide = Field(
        "auto",
        description="Tiles, where the picture is more than memory takes, or of so many px a side; "
        "approximate where they cannot be exact.",
    )
    memory: str | None = Field(
        None, description="Most memory to use, such as 4G; what the machine has unless given."
    )

    @field_validator("memory")
    @classmethod
    def _is_an_amount(cls, given: str | None) -> str | None:
        if given is not None:
            try:
                parse_memory(given)
            except SettingsError as error:
                raise ValueError(str(error).removeprefix("memory: ")) from None
        return given

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        name = given.get("preset", "phosphene")
        if is_of_a_file(name) and is_complete(cls, given):
            return cls.settled(dict(given))  # a replay needs no file
        try:
            given = {**cls.of_preset(name), **given, "preset": preset(name).name}
        except SettingsError as error:
            raise ValueError(str(error)) from None
        return cls.settled(given)

    @model_validator(mode="after")
    def _become(self) -> OctaveSettings:
        """`strength` as what it is: steps times their size are as many times as much.

        Both grow: more steps alone would not show, as what is there saturates; larger ones alone
        would not join.
        """
        strength = self.strength
        if strength is None:
            return self
        whole = {name: getattr(self, name) for name in self.dialled}
        found = {name: n and max(1, round(n * strength**0.6)) for name, n in whole.items()}
        size = self.step_size * strength * self.steps / found["steps"]
        for name, value in {**found, "step_size": size, "strength": None}.items():
            object.__setattr__(self, name, value)  # frozen for everybody else
        return self

    @classmethod
    def settled(cls, given: dict[str, Any]) -> dict[str, Any]:
        """What is given, once the preset has filled it in. ValueError for what does not fit."""
        return given

    @classmethod
    def of_preset(cls, name: str) -> dict[str, Any]:
        """What a preset fills in. SettingsError if there is none of that name."""
        return preset(name).settings


class RegionSettings(Settings):
    """What can be said of painted regions."""

    rest: Literal["dream", "stay"] = Field(
        "dream",
        description="What becomes of the picture outside the regions: it dreams the objective, or "
        "stays as it is.",
        json_schema_extra={"absent": "dream", "of_regions_alone": True, "group": "what"},
    )


class StartSettings(Settings):
    """What can be said of a start where there is no photograph."""

    start_noise: Literal["white", "natural"] = Field(
        "white",
        description="Of --start noise: each value by itself, or with the spectrum and the colours "
        "of nature.",
        json_schema_extra={"absent": "white", "group": "what", "shown": "the preset's"},
    )


class DreamSettings(StartSettings, RegionSettings, OctaveSettings):
    """Every setting of a dream."""


def network_defaults(
    given: Mapping[str, Any], architecture: str, start: str | None = None
) -> dict[str, Any]:
    """What the preset says of settings that are not given, through such a network."""
    try:
        return preset(given.get("preset", "phosphene")).settings_for(architecture, start)
    except SettingsError:
        return {}  # the model tells what is wrong with it


def own_network(given: Mapping[str, Any]) -> str | None:
    """The network of a look, which was made for it; a published preset leaves what is there."""
    try:
        found = preset(given.get("preset", "phosphene"))
    except SettingsError:
        return None
    return None if found.published else found.network


# Of every recipe that dreams by a preset.
OBJECTIVE = Subject(
    "objective",
    'What to dream, such as "2*mixed4b + mixed4d:42": see phosphene layers and objectives.',
    default="phosphene.recipes.steps.dream:preset_objective",
    shown_default="the preset's",
    default_told="phosphene.recipes.steps.dream:what_is_chosen",
)

DREAM = register(
    Recipe(
        name="dream",
        settings=DreamSettings,
        network_defaults=network_defaults,
        own_network=own_network,
        steps="phosphene.recipes.steps.dream:dream_steps",
        step_type="phosphene.recipes.steps.dream:DreamStep",
        subject=OBJECTIVE,
        inputs=(
            ImageInput(
                "photo",
                "A JPEG, PNG, WebP, TIFF, BMP or GIF. Transparency is kept.",
                required=True,
                positional=True,
                alpha=True,
                resized=True,
            ),
            ImageInput(
                "mask",
                "A picture: dream where it is white. Of another shape, it is resized.",
                kind="mask",
            ),
        ),
        shorthands=(
            Shorthand(
                "guide",
                "A picture: each whole layer of the objective, given or the preset's, becomes "
                "guide(layer, PICTURE), with its weight; channels and penalties stay, and so do "
                "the objectives of regions. For more say, write "
                'guide(mixed4c, "flowers.jpg", by=dot) in the objective itself.',
                takes="picture",
                apply="phosphene.recipes.steps.dream:guided",
            ),
        ),
        regions=True,
        starts=("sky", "noise"),
        octaves=True,
        advice="phosphene.recipes.steps.dream:advice",
        resumes=True,
        output_name="{photo}-dream",
        output_shown="PHOTO-dream.png, or dream.png",
        noun="dream",
        heading="What to dream",
        examples=(
            "dream sky.jpg",
            'dream sky.jpg -o out.webp --objective "2*mixed4b + mixed4d:42"',
            "dream sky.jpg --guide flowers.jpg --mask sky-only.png --keep-colors",
            "dream lake.jpg --region sky.png=mixed5a:14 --region water.png=mixed4c --rest stay",
            "dream sky.jpg --preset calm --strength 1.5",
            "dream sky.jpg --preset google2015 --network googlenet",
            "dream --start noise --size 512 -o noise.png",
        ),
    )
)

dream = RecipeFunction(
    DREAM,
    """
    Dream a picture: `(N, 3, H, W)` in [0, 1] -> the same shape, on the CPU.

    Args:
        photo: `(N, 3, H, W)` in [0, 1]; or the path of a picture, or one that Pillow has opened,
            as wherever a picture goes in.
        network: through which it is looked at, or its name.
        objective: an `Objective`, or its text ("2*mixed4b + mixed4d:42"); by default the preset's
            for this network.
        mask: `(1, 1, H, W)` in [0, 1], dream where it is 1; or `(N, 1, H, W)`, one a picture. That
            of a file is resized to the photo's size.
        regions: pairs of such a mask and an `Objective`, or its text: what is dreamt there. Each
            objective's gradient is smoothed and normalised within its mask; masks that overlap
            share. What they leave dreams `objective`, or stays with `rest="stay"`, which needs no
            objective. `mask` multiplies all of it. An objective that goes by places turns the
            jitter off for all.
        **settings: those of `DreamSettings`, by name.

    Returns:
        The dream; `dream.steps(…)` gives a `DreamStep` for each step on the way to it.

    Raises:
        ImageError: for a photo or a mask that is none, and a region's mask that is black.
        SettingsError: for a wrong setting, such as `rest="stay"` without regions.

    >>> net = phosphene.load_network()
    >>> picture = phosphene.dream(phosphene.load_image("sky.jpg"), net, "mixed4c", octaves=2)
    >>> parts = [(sky, "mixed5a"), (lake, "mixed4c")]
    >>> picture = phosphene.dream(photo, net, regions=parts, rest="stay")
    """,
)
