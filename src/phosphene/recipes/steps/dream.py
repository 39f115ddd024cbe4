"""The loop of `dream`: octave by octave, each an ascent."""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from phosphene import image as images
from phosphene import pyramid, transforms
from phosphene.engine import Ascent, Evaluate, Step, ascend
from phosphene.errors import (
    ImageError,
    InputTooSmallError,
    NonFiniteError,
    ObjectiveError,
    StateError,
)
from phosphene.evaluation.adaptive import AdaptiveEvaluation
from phosphene.evaluation.rolled import RolledEvaluate
from phosphene.evaluation.several import Objectives, each_of, joint
from phosphene.network import Network
from phosphene.objectives import Objective, combine, guide, layer, parse
from phosphene.parameterization import Pixels
from phosphene.pyramid import Size
from phosphene.recipes.base import Arguments, Region
from phosphene.recipes.dream import DreamSettings, OctaveSettings
from phosphene.recipes.presets import Preset, is_of_a_file, preset
from phosphene.recipes.steps.dream_gradient import captured, gradient_of
from phosphene.recipes.steps.stages import dreamable
from phosphene.state import State

# Pictures of full size that a dream holds besides the photograph: while a gradient is found (the
# picture, that before it, and the gradient or what is rolled), and between two and at its end.
BUFFERS, BETWEEN = 3, 4


@dataclass(frozen=True)
class DreamStep(Step):
    """A step of a dream. `image` has its octave's size; `picture()` is the dream so far, whole.

    `network` is the one that it runs on, device and precision settled; `tile` the side of the tiles
    in which the octave was evaluated, px, None for whole; `work`, by px, is done of all. `base` is
    the photograph at the octave's size, in the ascent's own dtype and on its device.
    `region_scores` `(R, N)` are those of the regions, in their order, None without any; `score` is
    the sum of them and, unless the rest stays, of the main objective's.
    """

    finish: Callable[[Tensor], Tensor]
    network: Network
    tile: int | None
    work: float
    base: Tensor
    region_scores: Tensor | None = None

    @property
    def share(self) -> float:
        """How much of all work is done, 0 to 1: the last octave alone is about half of it."""
        return self.work

    @property
    def text(self) -> str:
        """The step in a few words."""
        text = f"octave {self.octave + 1}/{self.octaves}  {super().text}"
        if self.region_scores is None:
            return text
        apart = ", ".join(f"{score:.4g}" for score in self.region_scores.mean(1).tolist())
        return f"{text}  regions {apart}"

    def picture(self) -> Tensor:
        """The result, `(N, 3, H, W)` at full size, as if the dream ended here."""
        return self.finish(self.image)


def dream_steps(arguments: Arguments) -> Iterator[DreamStep]:
    """A dream's steps: see `phosphene.dream`. What is wrong with the pictures is said at once."""
    photo, mask = arguments.images["photo"], arguments.images.get("mask")
    _check(photo, mask, arguments.regions)
    s = arguments.settings
    goals: Objectives = [region.objective for region in arguments.regions]
    if not goals:
        goals = arguments.objectives[0]
    elif s.rest == "dream":
        goals.append(arguments.objectives[0])
    masks = [region.mask for region in arguments.regions]
    return _steps(photo, arguments.network, goals, mask, masks, s, arguments.state)


def _check(photo: Tensor, mask: Tensor | None, regions: Sequence[Region]) -> None:
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
    if mask is not None:
        _check_mask(mask, "a mask", len(photo), channels=(1, 3))
    for number, region in enumerate(regions, 1):
        what = f"the mask of region {number}"
        _check_mask(region.mask, what, len(photo), channels=(1,))
        if not region.mask.is_floating_point():
            raise ImageError(
                f"{what} is of floating numbers in [0, 1]; this one is {_described(region.mask)}"
            )
        if not bool((region.mask > 0).any()):
            raise ImageError(f"{what} is black everywhere: a region of nothing")


def _check_mask(mask: Any, what: str, count: int, *, channels: Sequence[int]) -> None:
    if not isinstance(mask, Tensor) or mask.ndim != 4 or 0 in mask.shape:
        raise ImageError(f"{what} is a tensor (1, 1, H, W) in [0, 1]; this is {_described(mask)}")
    if mask.shape[0] not in (1, count) or mask.shape[1] not in channels:
        raise ImageError(
            f"{what} for {count} picture{'s' if count > 1 else ''} is (1, 1, H, W) or "
            f"({count}, 1, H, W); this one is {_described(mask)}"
        )


def _described(thing: Any) -> str:
    """Such as `torch.uint8 (1, 3, 40, 30)`, `numpy.ndarray uint8 (40, 30, 3)` or `str`."""
    kind = type(thing)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    if not hasattr(thing, "dtype") or not hasattr(thing, "shape"):
        return name
    words = f"{thing.dtype} {tuple(thing.shape)}"
    return words if isinstance(thing, Tensor) else f"{name} {words}"


@dataclass(frozen=True)
class _Dream:
    """What all octaves of a dream have in common.

    photo: of full size, on the network's device. goal: all that is dreamt, bound. masks: those of
    regions.
    """

    photo: Tensor
    net: Network
    goal: Objective
    sizes: Sequence[Size]
    evaluate: AdaptiveEvaluation
    generator: torch.Generator
    mask: Tensor | None
    masks: Sequence[Tensor]
    s: DreamSettings

    def ascent(
        self, image: Tensor, octave: int, base: Tensor, state: State | None
    ) -> Iterator[Step]:
        """The steps of an octave, from `image` on, or from where the state is."""
        s, net = self.s, self.net
        units = {"scale": net.scale, "shift": net.shift} if s.values == "network" else {}
        pixels = Pixels(image, **units).to(net.device)
        gradient = gradient_of(self.mask, self.masks, base, s)
        # In tiles memory is short, and a graph keeps its own.
        if self.evaluate.tile(self.sizes[octave]) is None:
            gradient = captured(net, gradient, s)
        return ascend(
            pixels,
            _jittered(self.evaluate, self.sizes[octave], self.goal, s, self.generator),
            Ascent(pixels.parameters(), s.step_size, limit=s.value_limit),
            steps=s.steps,
            generator=self.generator,
            gradient=gradient,
            clamp=s.clamp != "off",
            stop_above=s.stop_above,
            octave=octave,
            octaves=len(self.sizes),
            state=state,
        )

    def step(self, step: Step, image: Tensor, base: Tensor) -> DreamStep:
        """A step of an octave's ascent as one of the dream, which has this image."""
        own = {"image": image, "state": functools.partial(self._state, step.state, step.octave)}
        return DreamStep(
            **{**vars(step), **own},
            finish=functools.partial(self.finished, base),
            network=self.net,
            tile=self.evaluate.tile(self.sizes[step.octave]),
            work=_work(step, self.sizes),
            base=base,
            region_scores=None if step.scores is None else step.scores[: len(self.masks)],
        )

    def finished(self, base: Tensor, image: Tensor) -> Tensor:
        """The picture to show of an octave's image."""
        return _finished(self.photo, base, image, self.s)

    def _state(self, inner: Callable[[], State], octave: int) -> State:
        return inner().with_(octave=octave, precision=self.net.precision, cut=self.evaluate.cut())


def _steps(
    photo: Tensor,
    network: Network,
    goals: Objectives,
    mask: Tensor | None,
    masks: Sequence[Tensor],
    s: DreamSettings,
    state: State | None = None,
) -> Iterator[DreamStep]:
    layers = joint(_bound(goals, network)).layers
    precision = s.precision if state is None else state.value("precision")
    net = network.prepared(s.device, precision, layers=layers, sample=photo)
    photo = photo.to(net.device, torch.float64 if s.precision == "fp64" else torch.float32)
    goals = _bound(goals, net)
    goal = joint(goals)
    sizes = _sizes(images.size_of(photo), net, goal, s)
    chain = s.octave_rounding in pyramid.CHAINED
    how = {"resampling": s.resampling, "chain": chain, "scale": s.octave_scale}
    bases = deque(pyramid.bases(photo, sizes, **how))
    evaluate = _evaluation(net, goals, sizes, len(photo), mask, masks, s, state)
    first, finished = _octave_of(state, sizes)
    generator = torch.Generator().manual_seed(s.seed)
    dream = _Dream(photo, net, goal, sizes, evaluate, generator, mask, masks, s)
    resize = pyramid.RESAMPLERS[s.resampling]
    image = before = bases[0]
    # A picture of full size may be a good part of memory: none is held for longer than it is used.
    for octave in range(len(sizes)):
        base = bases.popleft()
        if octave < first:
            before = base
            continue
        if state is not None:
            image = base  # the ascent has the state's own
        elif octave:
            image = enlarged(image, before, base, s)
        lost = base - resize(before, sizes[octave]) if s.detail == "after" else None
        before = base
        ascent = dream.ascent(image, octave, base, state)
        state = None  # whose pictures are the ascent's by now
        try:
            for step in ascent:
                image = step.image if lost is None or not step.last else step.image + lost
                if finished:  # this step was given before
                    finished = False
                    continue
                # No name of its own, which would hold on to the picture.
                yield dream.step(step, image, base)
        except NonFiniteError as error:
            # Before an octave's first step the picture is that of the octave before it.
            good = image if error.image is None and octave else error.image
            error.image = None if good is None else dream.finished(base, good)
            raise
        del ascent


def _evaluation(
    net: Network,
    goals: Objectives,
    sizes: Sequence[Size],
    batch: int,
    mask: Tensor | None,
    masks: Sequence[Tensor],
    s: DreamSettings,
    state: State | None,
) -> AdaptiveEvaluation:
    """How the octaves' pictures are evaluated, beside what a dream holds meanwhile."""
    more = (s.detail == "after") + (mask is not None)  # what was lost; the mask at this size
    if masks:
        more += _more_pictures(len(each_of(goals)))
    return AdaptiveEvaluation(
        net,
        goals,
        sizes,
        batch=batch,
        tile=s.tile,
        memory=s.memory,
        buffers=BUFFERS + more,
        # The sum of what is transformed; a band, beside what it is added to.
        between=BETWEEN + more + bool(masks) + bool(s.laplacian),
        cut=None if state is None else state.value("cut"),
    )


def _octave_of(state: State | None, sizes: Sequence[Size]) -> tuple[int, bool]:
    """The octave to begin in, and whether it is finished and others come. StateError if it is not
    there."""
    if state is None:
        return 0, False
    octave = state.value("octave")
    if octave >= len(sizes):
        raise StateError(f"the state is of octave {octave + 1}, and there are {len(sizes)}")
    return octave, state.value("last") and octave + 1 < len(sizes)


def enlarged(image: Tensor, before: Tensor, base: Tensor, s: OctaveSettings) -> Tensor:
    """An octave's dream at the size of the next; the photograph is `before` there, `base` here."""
    resize, size = pyramid.RESAMPLERS[s.resampling], images.size_of(base)
    again = s.detail == "before"
    image = resize(image - before, size).add_(base) if again else resize(image, size)
    return image.clamp(0, 1) if s.clamp == "always" else image


def preset_objective(arguments: Arguments) -> list[str]:
    """The text of what a dream's preset dreams through that network, or a layer that is chosen."""
    chosen, network = preset(arguments.settings.preset), arguments.network
    if chosen.chooses and not _knows(chosen, network):
        return [layer(dreamable(network)).text]
    return [chosen.objective_for(network.architecture)]


def _knows(chosen: Preset, network: Network) -> bool:
    """Whether a preset names what to dream through a network, and it has such layers."""
    if not chosen.names(network.architecture):
        return False
    goal = parse(chosen.objective_for(network.architecture))
    return all(name in network.layers or name in network.aliases for name in goal.layers)


def what_is_chosen(arguments: Arguments) -> list[str]:
    """Which layer was chosen, of a network for which the preset names none."""
    chosen, network = preset(arguments.settings.preset), arguments.network
    if not chosen.chooses or _knows(chosen, network):
        return []
    found = network.layers[dreamable(network)]
    stride = f", of stride {found.stride}" if found.stride else ""
    return [
        f"the preset {chosen.name} knows no layers of {network.name}; chosen: "
        f"{found.name}{stride}: --objective names others"
    ]


def advice(arguments: Arguments) -> list[str]:
    """That a preset was published with another network, where nobody chose one.

    And that an objective that is named is not dreamt, where the rest of the picture stays.
    """
    name, network = arguments.settings.preset, arguments.network.name
    found: list[str] = []
    # That of a file that is not here, which a replay needs not, says nothing.
    meant = None if is_of_a_file(name) else preset(name)
    if meant and network == "dreamnet" and meant.network != network:
        how = "published" if meant.published else "made"
        found.append(f"the preset {name} was {how} with --network {meant.network}")
    if arguments.settings.rest == "stay" and arguments.objectives:
        found.append(f"the rest stays: {arguments.objectives[0].text} is not dreamt")
    return found


def guided(objectives: Sequence[Objective], picture: str) -> list[Objective]:
    """Each objective with its whole layers replaced by `guide(layer, picture)`, weights kept.

    ObjectiveError for one without any.
    """
    return [_guided(goal, picture) for goal in objectives]


def _guided(objective: Objective, picture: str) -> Objective:
    terms = objective.terms or ((1.0, objective),)
    whole_layers = [_is_whole_layer(term) for _, term in terms]
    if not any(whole_layers):
        raise ObjectiveError(
            f"--guide takes the place of whole layers, of which {objective.text!r} has none; "
            'expected such as "mixed4c"'
        )
    return combine(
        (weight, guide(term.layers[0], picture) if plain else term)
        for (weight, term), plain in zip(terms, whole_layers, strict=True)
    )


def _is_whole_layer(term: Objective) -> bool:
    if len(term.layers) != 1:
        return False
    name = term.layers[0]
    return term.text in (name, f'"{name}"') or term.text.startswith("layer(")


def _bound(goals: Objectives, network: Network) -> Objectives:
    if isinstance(goals, Objective):
        return goals.bound(network)
    return [goal.bound(network) for goal in goals]


def _more_pictures(count: int) -> int:
    """How many pictures of full size more there are where `count` gradients are blended.

    All of them, beside the one that is being found; their weights, and these smoothed, which are a
    third of a picture each.
    """
    return count + math.ceil(2 * count / 3)


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
        known = round(s.smallest_octave * net.input_size)
        octaves = pyramid.octave_count(size, known=known, scale=s.octave_scale)
    return pyramid.octave_sizes(
        size, octaves, s.octave_scale, rounding=s.octave_rounding, least=least
    )


def _work(step: Step, sizes: Sequence[Size]) -> float:
    """How much of all work is done, by px."""
    work = [height * width for height, width in sizes]
    part = 1.0 if step.last else (step.index + 1) / step.steps
    return (sum(work[: step.octave]) + work[step.octave] * part) / sum(work)


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


@torch.no_grad()
def _finished(photo: Tensor, base: Tensor, image: Tensor, s: DreamSettings) -> Tensor:
    """The picture to show: full size, in range, with the photograph's share and colours."""
    if image.shape[-2:] != photo.shape[-2:]:
        image = images.resize(image - base, images.size_of(photo)).add_(photo).clamp_(0, 1)
    else:
        image = image.clamp(0, 1)
    if s.keep_colors:
        # Only the luma moves: Y of the dream, I and Q of the photograph.
        luma = images.luma(image.sub_(photo))
        image = torch.add(photo, luma, out=image)
    if s.blend < 1:
        image = torch.lerp(photo, image, s.blend, out=image)
    return image.clamp_(0, 1).float().cpu()
