"""Draw what a unit of a network responds to, from noise.

The loop, which `caricature`, `invert`, `accentuate` and `style` share, is in `steps/visualize.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from phosphene.recipes.base import ImageInput, Recipe, Shorthand, Subject, register
from phosphene.recipes.function import RecipeFunction
from phosphene.settings import Settings, Transforms

LEAST_SIZE = 16  # px, a side: below that a spectrum has too few frequencies to draw with
MOST_SIZE = 4096

MOVED = (
    "How the picture is moved before the network sees it: robust, gentle, crops, none, or what "
    'phosphene transforms lists, in order, such as "robust, jitter(8)"'
)
Positive = Annotated[float, Field(gt=0, le=100)]


class AscentSettings(Settings):
    """What the optimiser turns, and how long: shared by all recipes that draw from a start."""

    size: Literal["auto"] | Annotated[int, Field(ge=LEAST_SIZE, le=MOST_SIZE)] = Field(
        "auto", description="Longest side, px; auto follows the size that the network knows."
    )
    aspect: float = Field(
        1.0, ge=0.05, le=20, description="Width over height; that of a photo to start from, if any."
    )
    batch: int = Field(1, ge=1, le=4096, description="Pictures of each objective.")
    steps: int = Field(256, ge=1, le=100_000, description="Steps of the optimiser.")
    learning_rate: Literal["auto"] | Positive = Field(
        "auto", description="Of the optimiser; auto goes by the parameterization."
    )
    optimiser: Literal["adam", "nadam"] = Field("adam", description="Which of torch.optim.")
    parameterization: Literal["fourier", "pixels", "maco"] = Field(
        "fourier",
        description="What is turned: the frequencies, the pixels, or the phases under nature's "
        "magnitude (MaCo).",
    )
    transforms: Transforms = Field(
        "auto",
        description=f"{MOVED}; auto is crops for maco and what is framed as a whole, else robust.",
    )
    framing: Literal["auto", "whole", "detail"] = Field(
        "auto",
        description="whole: things as a whole, seen in parts of the picture about as large as the "
        "network knows, without detail finer than it sees; detail: all that is in it. auto is "
        "whole from noise for class scores and what else answers to the whole picture, if that is "
        "larger than the network knows.",
        json_schema_extra={"absent": "detail"},
    )
    decorrelate: bool = Field(True, description="Turn nature's colour axes, not R, G and B.")
    decay: float = Field(
        1.0, ge=0, le=4, description="Fourier: frequencies are divided by f to this power."
    )
    low_pass: Literal["auto"] | Annotated[float, Field(ge=0, le=64)] = Field(
        "auto",
        description="Fourier: detail finer than this fades, px, the deviation of a blur; auto is "
        "0 for detail, for whole 0.47 px of the picture at the size that the network knows.",
        json_schema_extra={"absent": 0.0},
    )
    tv: float = Field(0.0, ge=0, le=1e4, description="Weight against roughness.")
    l2: float = Field(0.0, ge=0, le=1e4, description="Weight against contrast.")
    seed: int = Field(0, ge=0, lt=2**63, description="Of every random choice.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    precision: Literal["auto", "fp32", "bf16", "fp64"] = Field(
        "auto", description="auto takes bf16 where it is fast and its gradient agrees."
    )


class PhotoAscentSettings(AscentSettings):
    """Of what is drawn from noise, after a photo."""

    aspect: Literal["auto"] | Annotated[float, Field(ge=0.05, le=20)] = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        "auto", description="Width over height; auto is the photo's."
    )


class VisualizeSettings(AscentSettings):
    """Every setting of a visualisation."""

    transparent: bool = Field(
        False,
        description="Of --parameterization maco: show only where the network cared.",
        json_schema_extra={"of_files_alone": True, "absent": False, "keyed": True},
    )

    @model_validator(mode="after")
    def _has_a_mask(self) -> VisualizeSettings:
        if self.transparent and self.parameterization != "maco":
            raise ValueError("transparent needs parameterization maco, which alone has a mask")
        return self


SEVERAL = (
    ".png, .jpg, .webp or .tif; the recipe lies inside. Several pictures lie side by side in it; "
    'with {} in its name, such as "{}.png", each gets a file, called after its '
)

VISUALIZE = register(
    Recipe(
        name="visualize",
        settings=VisualizeSettings,
        resampled=True,
        steps="phosphene.recipes.steps.visualize:visualize_steps",
        step_type="phosphene.recipes.steps.visualize:VisualizeStep",
        subject=Subject(
            "objectives",
            'What to draw, such as mixed4c:12, logits:dumbbell or "mixed4c:12 + mixed4d:3": see '
            "phosphene layers and objectives. Of several, each gets a picture.",
            positional=True,
            missing="nothing to draw: phosphene visualize OBJECTIVE, such as mixed4c:12",
        ),
        inputs=(
            ImageInput(
                "photo",
                "A picture to start from.",
                keyword="start",
                flag="--start",
                shown_default="noise",
            ),
        ),
        shorthands=(
            Shorthand(
                "negative",
                "Draw what each objective responds to least: minus it.",
                takes="flag",
                apply="phosphene.recipes.steps.visualize:negated",
            ),
        ),
        several=True,
        resumes=True,
        output_name="{objective}",
        output_shown="OBJECTIVE.png, or visualize.png of several",
        output_help=SEVERAL + "objective.",
        examples=(
            "visualize mixed4c:12",
            "visualize logits:dumbbell --network dreamnet-robust --batch 4",
            "visualize mixed4c:12 --negative",
            'visualize mixed4c:1 mixed4c:2 "mixed4c:1 + mixed4c:2" -o sums.png',
            'visualize mixed4c:1 mixed4c:2 -o "{}.png"',
        ),
    )
)

visualize = RecipeFunction(
    VISUALIZE,
    """
    Draw what raises an objective: `(N, 3, H, W)` in [0, 1], on the CPU.

    Args:
        network: whose units are drawn.
        objective: an `Objective` or its text; or a list of them, each of which gets a picture, all
            in one batch. With `batch=B` each of K objectives gets B pictures from B starts: N is
            K · B, an objective's pictures next to each other. A picture comes out as it would
            alone, but for rounding (and for `diversity` and `interpolate`, which are of a batch).
        start: a photograph `(1 or N, 3, H, W)` to start from instead of noise.
        **settings: those of `VisualizeSettings`, by name.

    Returns:
        The pictures; `visualize.steps(…)` gives a `VisualizeStep` for each step on the way.

    Raises:
        ObjectiveError: for an objective that makes no sense for this network.
        InputTooSmallError: for pictures smaller than the network takes.
        NetworkError: if no gradient can reach the picture.

    A unit that gives no gradient is told of in a warning, and helped over the first steps; if it
    stays dead, its picture is grey.

    >>> net = phosphene.load_network()
    >>> picture = phosphene.visualize(net, "mixed4d:42", size=64, steps=8)
    >>> several = [f"mixed4d:{i}" for i in range(4)]
    >>> phosphene.visualize(net, several, size=64, steps=2).shape
    torch.Size([4, 3, 64, 64])
    """,
)
