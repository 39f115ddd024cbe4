"""`dream`: ask a network what it sees in a picture, and show more of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from phosphene import gradients, pyramid, spec, transforms
from phosphene import image as images
from phosphene.engine import Ascent, Step, ascend
from phosphene.errors import InputTooSmallError, NonFiniteError, SettingsError
from phosphene.evaluation import whole
from phosphene.network import Network
from phosphene.objectives import Objective
from phosphene.parameterization import Pixels
from phosphene.pyramid import Size
from phosphene.recipes.presets import PRESETS, preset
from phosphene.settings import Settings, checked

Fraction = Annotated[float, Field(ge=0, le=1)]
Luma = (0.299, 0.587, 0.114)


class DreamSettings(Settings):
    """Every setting of a dream. A preset fills in what is not given."""

    preset: str = Field("phosphene", description=f"One of {', '.join(PRESETS)}.")
    octaves: Literal["auto"] | Annotated[int, Field(ge=1, le=pyramid.MOST_OCTAVES)] = Field(
        "auto", description="Sizes to dream at; auto follows the picture's size."
    )
    octave_scale: float = Field(
        1.4, gt=1, le=10, description="Each octave is so many times the one before."
    )
    steps: int = Field(10, ge=1, le=100_000, description="Ascent steps in each octave.")
    step_size: float = Field(
        0.012,
        gt=0,
        le=100,
        description="Step, where black to white is 1, of the normalised gradient.",
    )
    jitter: Annotated[int, Field(ge=0)] | Literal["half"] = Field(
        32, description="Largest random shift of each step, px, or half the picture."
    )
    gradient: gradients.Normalisation = Field(
        "rms", description="Divide the gradient by its mean size, std, l2 norm or rms."
    )
    epsilon: float = Field(
        gradients.EPSILON, gt=0, le=1, description="Least divisor of the gradient."
    )
    smooth: float = Field(
        0.5, ge=0, le=100, description="Gaussian blur of the gradient, sigma in px."
    )
    laplacian: int = Field(
        0, ge=0, le=10, description="Octave bands of the gradient brought to equal strength."
    )
    clip: float | None = Field(None, gt=0, description="Cut the normalised gradient beyond this.")
    stop_above: float | None = Field(
        None, description="End an octave once the score is above this."
    )
    clamp: Literal["off", "steps", "always"] = Field(
        "steps", description="Keep values in [0, 1]: after every step; or when detail is added, too."
    )
    values: Literal["image", "network"] = Field(
        "image", description="Units of a step: the image's, or the network's normalised ones."
    )
    octave_rounding: pyramid.Rounding = Field("round", description="How octave sizes are rounded.")
    resampling: pyramid.Resampling = Field(
        "antialias", description="How pictures travel between octaves."
    )
    detail: Literal["before", "after"] = Field(
        "before", description="Put the photograph's own detail back before or after an ascent."
    )
    keep_colors: bool = Field(False, description="Keep the photograph's colours.")
    blend: Fraction = Field(1.0, description="Share of the dream in the result; 0 is the photo.")
    seed: int = Field(0, ge=0, lt=2**63, description="Of every random choice.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    precision: Literal["auto", "fp32", "bf16", "fp64"] = Field(
        "auto", description="auto takes bf16 where it is fast and its gradient agrees."
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        try:
            chosen = preset(given.get("preset", "phosphene"))
        except SettingsError as error:
            raise ValueError(str(error)) from None
        return {**chosen.settings, **given}


@dataclass(frozen=True)
class DreamStep(Step):
    """A step of a dream. `image` has its octave's size; `picture()` is the dream so far, whole."""

    finish: Callable[[Tensor], Tensor]

    def picture(self) -> Tensor:
        """The result, `(N, 3, H, W)` at full size, as if the dream ended here."""
        return self.finish(self.image)


class _Dream:
    """`dream(photo, network, objective, **settings)`; `dream.steps(…)` is the same, live."""

    settings = DreamSettings

    def __call__(
        self,
        photo: Tensor,
        network: Network,
        objective: Objective | str | None = None,
        *,
        mask: Tensor | None = None,
        **settings: Any,
    ) -> Tensor:
        """Dream a picture: `(N, 3, H, W)` in [0, 1] -> the same shape, on the CPU.

        objective: an `Objective`, or its text ("2*mixed4b + mixed4d:42"); by default the preset's
            for this network.
        mask: `(1, 1, H, W)` in [0, 1], dream where it is 1.
        settings: those of `DreamSettings`, by name.

        >>> net = phosphene.load_network()
        >>> phosphene.dream(phosphene.load_image("sky.jpg"), net, "mixed4c", octaves=5)
        """
        steps = self.steps(photo, network, objective, mask=mask, **settings)
        return deque(steps, maxlen=1).pop().picture()

    def steps(
        self,
        photo: Tensor,
        network: Network,
        objective: Objective | str | None = None,
        *,
        mask: Tensor | None = None,
        **settings: Any,
    ) -> Iterator[DreamStep]:
        """The same dream as a generator of `DreamStep`; stop whenever you like."""
        chosen = checked(DreamSettings, settings)
        return _steps(photo, network, objective, mask, chosen)


dream = _Dream()


def _steps(
    photo: Tensor,
    network: Network,
    objective: Objective | str | None,
    mask: Tensor | None,
    s: DreamSettings,
) -> Iterator[DreamStep]:
    goal = objective_of(objective, network, s)
    layers = goal.bound(network).layers
    net = network.prepared(s.device, s.precision, layers=layers, sample=photo)
    photo = photo.to(net.device, torch.float64 if s.precision == "fp64" else torch.float32)
    goal = goal.bound(net)
    size = images.size_of(photo)
    sizes = _sizes(size, net, goal, s)
    resize = pyramid.RESAMPLERS[s.resampling]
    bases = pyramid.bases(photo, sizes, resampling=s.resampling, chain=s.octave_rounding == "chain")
    evaluate = whole(net, goal)
    generator = torch.Generator().manual_seed(s.seed)
    image = bases[0]

    for octave, base in enumerate(bases):
        if octave:
            before = bases[octave - 1]
            if s.detail == "before":
                image = base + resize(image - before, sizes[octave])
            else:
                image = resize(image, sizes[octave])
            if s.clamp == "always":
                image = image.clamp(0, 1)
        else:
            before = base
        lost = base - resize(before, sizes[octave]) if s.detail == "after" else None

        def finish(image: Tensor, base: Tensor = base) -> Tensor:
            return _finished(photo, base, image, s)

        units = {"scale": net.scale, "shift": net.shift} if s.values == "network" else {}
        pixels = Pixels(image, **units).to(net.device)
        ascent = ascend(
            pixels,
            evaluate,
            Ascent(pixels.parameters(), s.step_size),
            steps=s.steps,
            generator=generator,
            transform=_jitter(sizes[octave], goal, s),
            gradient=_gradient(mask, base, s),
            clamp=s.clamp != "off",
            stop_above=s.stop_above,
            octave=octave,
            octaves=len(sizes),
        )
        try:
            for step in ascent:
                image = step.image if lost is None or not step.last else step.image + lost
                yield DreamStep(**{**vars(step), "image": image, "finish": finish})
        except NonFiniteError as error:
            if error.image is not None:
                error.image = finish(error.image)
            raise


def objective_of(
    objective: Objective | str | None, network: Network, settings: DreamSettings
) -> Objective:
    """What is to be dreamt: the objective itself, its text parsed, or the preset's."""
    if objective is None:
        objective = preset(settings.preset).objective_for(network.name)
    return spec.parse(objective) if isinstance(objective, str) else objective


def _sizes(size: Size, net: Network, goal: Objective, s: DreamSettings) -> list[Size]:
    least = net.least_size(goal.layers)
    if min(size) < least:
        raise InputTooSmallError(
            f"{net.name} needs pictures of at least {least} px a side for "
            f"{', '.join(goal.layers)}; this one is {size[1]}×{size[0]}: a larger size enlarges it",
            least,
        )
    octaves = s.octaves
    if octaves == "auto":
        octaves = pyramid.octave_count(size, known=2 * net.input_size, scale=s.octave_scale)
    return pyramid.octave_sizes(
        size, octaves, s.octave_scale, rounding=s.octave_rounding, least=least
    )


def _jitter(size: Size, goal: Objective, s: DreamSettings) -> transforms.Transform | None:
    height, width = size
    if s.jitter == "half":
        return transforms.jitter((height // 2, width // 2))
    if s.jitter == 0 or goal.positional:
        return None
    return transforms.jitter(s.jitter)


def _gradient(mask: Tensor | None, base: Tensor, s: DreamSettings) -> gradients.GradientTransform:
    chain: list[gradients.GradientTransform] = []
    if s.smooth:
        chain.append(gradients.smooth(s.smooth))
    if s.laplacian:
        chain.append(gradients.laplacian(s.laplacian))
    chain.append(gradients.normalise(s.gradient, epsilon=s.epsilon))
    if s.clip is not None:
        chain.append(gradients.clip(s.clip))
    if mask is not None:
        where = images.resize(mask.to(base), images.size_of(base)).clamp(0, 1)
        chain.append(gradients.mask(where))
    return gradients.compose(*chain)


@torch.no_grad()
def _finished(photo: Tensor, base: Tensor, image: Tensor, s: DreamSettings) -> Tensor:
    """The picture to show: full size, in range, with the photograph's share and colours."""
    if image.shape[-2:] != photo.shape[-2:]:
        image = photo + images.resize(image - base, images.size_of(photo))
    image = image.clamp(0, 1)
    if s.keep_colors:
        # Only the luma moves: Y of the dream, I and Q of the photograph.
        weights = image.new_tensor(Luma).view(1, 3, 1, 1)
        image = photo + ((image - photo) * weights).sum(1, keepdim=True)
    if s.blend < 1:
        image = torch.lerp(photo, image, s.blend)
    return image.clamp(0, 1).float().cpu()
