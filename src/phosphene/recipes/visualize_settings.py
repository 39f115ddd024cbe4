"""The settings of `visualize` and of what shares its loop; help and forms need no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from phosphene.settings import Settings

LEAST_SIZE = 16  # px, a side: below that a spectrum has too few frequencies to draw with
MOST_SIZE = 4096

Positive = Annotated[float, Field(gt=0, le=100)]


class VisualizeSettings(Settings):
    """Every setting of a visualisation: what the optimiser turns, and how long."""

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
    transforms: Literal["auto", "robust", "gentle", "crops", "none"] = Field(
        "auto",
        description="How the picture is moved before the network sees it; auto is crops for maco, "
        "robust for the others.",
    )
    decorrelate: bool = Field(True, description="Turn nature's colour axes, not R, G and B.")
    decay: float = Field(
        1.0, ge=0, le=4, description="Fourier: frequencies are divided by f to this power."
    )
    tv: float = Field(0.0, ge=0, le=1e4, description="Weight against roughness.")
    l2: float = Field(0.0, ge=0, le=1e4, description="Weight against contrast.")
    seed: int = Field(0, ge=0, lt=2**63, description="Of every random choice.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    precision: Literal["auto", "fp32", "bf16", "fp64"] = Field(
        "auto", description="auto takes bf16 where it is fast and its gradient agrees."
    )


class _OfAPhoto(VisualizeSettings):
    """Of what is drawn from noise, after a photo."""

    aspect: Literal["auto"] | Annotated[float, Field(ge=0.05, le=20)] = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        "auto", description="Width over height; auto is the photo's."
    )


class CaricatureSettings(_OfAPhoto):
    """Every setting of a caricature."""

    power: float = Field(
        1.0, ge=0, le=10, description="Of the cosine: higher is nearer to the photo, less strong."
    )


class InvertSettings(_OfAPhoto):
    """Every setting of an inversion."""

    tv: float = Field(0.1, ge=0, le=1e4, description="Weight against roughness.")


class AccentuateSettings(VisualizeSettings):
    """Every setting of an accentuation."""

    leash: float = Field(
        10.0, ge=0, le=1e4, description="How strongly the picture is held to the photo."
    )
    leash_layer: str = Field(
        "auto", description="The earlier layer that holds it; auto is one of fine, local features."
    )
    steps: int = Field(100, ge=1, le=100_000, description="Steps of the optimiser.")


class StyleSettings(VisualizeSettings):
    """Every setting of a style transfer."""

    style_weight: float = Field(
        1.0, ge=0, le=1e4, description="Of the style, where the content's is 1."
    )
    tv: float = Field(0.5, ge=0, le=1e4, description="Weight against roughness.")
    style_layers: tuple[str, ...] = Field(
        (), description="Whose textures are taken; by default one of each size of map."
    )
    content_layer: str = Field("auto", description="Whose things stay in their places.")
    transforms: Literal["auto", "robust", "gentle", "crops", "none"] = Field(
        "gentle", description="How the picture is moved before the network sees it."
    )
