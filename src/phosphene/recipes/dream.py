"""`dream`: ask a network what it sees in a picture, and show more of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from phosphene import gradients, pyramid, spec, transforms
from phosphene import image as images
from phosphene.engine import Ascent, Evaluate, Step, ascend
from phosphene.errors import ImageError, InputTooSmallError, NonFiniteError
from phosphene.evaluation.adaptive import AdaptiveEvaluation
from phosphene.evaluation.rolled import RolledEvaluate
from phosphene.network import Network
from phosphene.objectives import Objective
from phosphene.parameterization import Pixels
from phosphene.pyramid import Size
from phosphene.recipes.dream_settings import DreamSettings as DreamSettings
from phosphene.recipes.presets import preset
from phosphene.settings import checked

Luma = (0.299, 0.587, 0.114)
# Pictures of full size that a dream holds besides the photograph: while a gradient is found (the
# picture, that before it, and the gradient or what is rolled), and between two and at its end.
BUFFERS, BETWEEN = 3, 4


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
        mask: `(1, 1, H, W)` in [0, 1], dream where it is 1; or `(N, 1, H, W)`, one a picture.
        settings: those of `DreamSettings`, by name.

        Raises ImageError for a photo or a mask that is none, SettingsError for a wrong setting.

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
        _check(photo, mask)
        return _steps(photo, network, objective, mask, chosen)


dream = _Dream()


def _check(photo: Tensor, mask: Tensor | None) -> None:
    given = _described(photo)
    if not isinstance(photo, Tensor) or photo.ndim != 4 or photo.shape[1] != 3 or 0 in photo.shape:
        raise ImageError(
            f"a photo is a tensor (N, 3, H, W) of float32 in [0, 1], as load_image gives it; this "
            f"is {given}"
        )
    if not photo.is_floating_point():
        raise ImageError(
            f"a photo is of floating numbers in [0, 1]; this one is {given}: photo.float() / 255 "
            "if it holds bytes"
        )
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.ndim != 4 or 0 in mask.shape:
        raise ImageError(f"a mask is a tensor (1, 1, H, W) in [0, 1]; this is {_described(mask)}")
    if mask.shape[0] not in (1, len(photo)) or mask.shape[1] not in (1, 3):
        raise ImageError(
            f"a mask for {len(photo)} picture{'s' if len(photo) > 1 else ''} is (1, 1, H, W) or "
            f"({len(photo)}, 1, H, W); this one is {_described(mask)}"
        )


def _described(thing: Any) -> str:
    """Such as `torch.uint8 (1, 3, 40, 30)`, `numpy.ndarray uint8 (40, 30, 3)` or `str`."""
    kind = type(thing)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    if not hasattr(thing, "dtype") or not hasattr(thing, "shape"):
        return name
    words = f"{thing.dtype} {tuple(thing.shape)}"
    return words if isinstance(thing, Tensor) else f"{name} {words}"


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
    chain = s.octave_rounding == "chain"
    bases = deque(pyramid.bases(photo, sizes, resampling=s.resampling, chain=chain))
    more = (s.detail == "after") + (mask is not None)  # what was lost; the mask at this size
    evaluate = AdaptiveEvaluation(
        net,
        goal,
        sizes,
        batch=len(photo),
        tile=s.tile,
        memory=s.memory,
        buffers=BUFFERS + more,
        between=BETWEEN + more,
    )
    generator = torch.Generator().manual_seed(s.seed)
    image = before = bases[0]

    # A picture of full size may be a good part of memory: none is held for longer than it is used.
    for octave in range(len(sizes)):
        base = bases.popleft()
        if octave:
            if s.detail == "before":
                image = resize(image - before, sizes[octave]).add_(base)
            else:
                image = resize(image, sizes[octave])
            if s.clamp == "always":
                image = image.clamp(0, 1)
        lost = base - resize(before, sizes[octave]) if s.detail == "after" else None
        before = base

        def finish(image: Tensor, base: Tensor = base) -> Tensor:
            return _finished(photo, base, image, s)

        units = {"scale": net.scale, "shift": net.shift} if s.values == "network" else {}
        pixels = Pixels(image, **units).to(net.device)
        ascent = ascend(
            pixels,
            _jittered(evaluate, sizes[octave], goal, s, generator),
            Ascent(pixels.parameters(), s.step_size),
            steps=s.steps,
            generator=generator,
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
            # Before an octave's first step the picture is that of the octave before it.
            good = image if error.image is None and octave else error.image
            error.image = None if good is None else finish(good)
            raise
        del pixels, ascent


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


def _jittered(
    evaluate: RolledEvaluate,
    size: Size,
    goal: Objective,
    s: DreamSettings,
    generator: torch.Generator,
) -> Evaluate:
    """Evaluate the picture rolled by chance, which needs no rolled copy of it."""
    if s.jitter == 0 or goal.positional:
        return evaluate
    half = (size[0] // 2, size[1] // 2)
    most = half if s.jitter == "half" else (s.jitter, s.jitter)
    return lambda image: evaluate(image, transforms.draw_shift(most, generator))


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
        image = images.resize(image - base, images.size_of(photo)).add_(photo).clamp_(0, 1)
    else:
        image = image.clamp(0, 1)
    if s.keep_colors:
        # Only the luma moves: Y of the dream, I and Q of the photograph.
        weights = image.new_tensor(Luma).view(1, 3, 1, 1)
        luma = image.sub_(photo).mul_(weights).sum(1, keepdim=True)
        image = torch.add(photo, luma, out=image)
    if s.blend < 1:
        image = torch.lerp(photo, image, s.blend, out=image)
    return image.clamp_(0, 1).float().cpu()
