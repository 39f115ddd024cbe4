"""The loop of `visualize`, and of the recipes that are this one with an objective of their own.

`caricature`, `invert`, `accentuate` and `style` begin with noise or a photograph, too, and raise
what they compose of a network's answers to their pictures.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from phosphene import image as images
from phosphene import objectives as obj
from phosphene import transforms
from phosphene.chain import build_chain
from phosphene.engine import Step, ascend
from phosphene.errors import NonFiniteError, SettingsError
from phosphene.evaluation.whole import shared
from phosphene.network import Network
from phosphene.objectives import Objective
from phosphene.parameterization import Fourier, MaCo, Pixels, opacity
from phosphene.recipes.base import Arguments
from phosphene.recipes.steps.dead_units import DeadUnits
from phosphene.recipes.steps.framing import (
    VIEW_SIDES,
    VIEWS,
    auto_size,
    drawn_size,
    framed,
    takes_any_size,
    views,
)
from phosphene.recipes.visualize import AscentSettings
from phosphene.runtime.memory import available_memory, format_bytes
from phosphene.state import State

# What a picture of a dead unit is: flat grey, so that nobody takes its noise for a finding.
GREY = 0.5
LEARNING_RATES = {"fourier": 0.05, "pixels": 0.02, "maco": 0.2}
# px a side of what precisions are compared on, at most: parts of it are, and it takes making.
SAMPLE = 512
# Adam's own 1e-8 is more than some gradients by frequency.
EPSILON = 1e-12


@dataclass(frozen=True)
class VisualizeStep(Step):
    """A step of a visualisation; `score`, `(N,)`, is in the mean over the parts that were seen.

    `dead`, `(N,)` bool: so far no step had a gradient from this picture's unit without help. After
    the last step that unit is dead. `network` is the one that it runs on, device and precision
    settled; `saliency` the gradient that MaCo has accumulated, None of the others.
    """

    dead: Tensor
    saliency: Tensor | None
    network: Network

    def picture(self) -> Tensor:
        """The result, `(N, 3, H, W)` on the CPU, as if it ended here; grey for a dead unit."""
        return _shown(self.image, self.dead)

    def transparency(self) -> Tensor | None:
        """MaCo's mask, `(N, 1, H, W)` in [0, 1], 1 where the network cared; None of the others.

        Of a dead unit it is 1 everywhere.
        """
        if self.saliency is None:
            return None
        alive = ~self.dead.to(self.saliency.device).view(-1, 1, 1, 1)
        return opacity(self.saliency).where(alive, 1.0).float().cpu()


def visualize_steps(arguments: Arguments) -> Iterator[VisualizeStep]:
    """A visualisation's steps: see `phosphene.visualize`."""
    start = arguments.images.get("photo")
    return ascend_objectives(
        arguments.network,
        arguments.objectives,
        arguments.settings,
        start=start,
        state=arguments.state,
    )


def negated(objectives: Sequence[Objective], wanted: bool) -> list[Objective]:
    """What each responds to least, if that is wanted."""
    return [-goal if wanted else goal for goal in objectives]


def ascend_objectives(
    network: Network,
    objectives: Sequence[Objective],
    s: AscentSettings,
    *,
    start: Tensor | None = None,
    state: State | None = None,
) -> Iterator[VisualizeStep]:
    """The loop of this and the other recipes: see `visualize`.

    What auto settles by objective is settled for each, so that one drawn beside another comes out
    as it would alone: those that are framed alike are an ascent, and the ascents go in step.
    """
    goals = _penalised(objectives, s)
    s, groups = _framed_alike(network, goals, s, start)
    if len(groups) == 1:
        yield from _ascend_alike(network, goals, s, start, state)
        return
    ascents = [
        _ascend_alike(
            network,
            [goals[k] for k in group],
            s,
            start,
            None if state is None else state.inner(f"ascent{number}"),
        )
        for number, group in enumerate(groups)
    ]
    yield from _in_step(ascents, _rows(groups, s.batch))


def _framed_alike(
    network: Network, goals: Sequence[Objective], s: AscentSettings, start: Tensor | None
) -> tuple[AscentSettings, list[list[int]]]:
    """The objectives by number, together where auto frames them alike; the settings with a size.

    The size is that of all, as pictures of one batch have one.
    """
    everything = [*range(len(goals))]
    if s.framing != "auto" or start is not None or len(goals) == 1:
        return s, [everything]
    layers = [goal.bound(network).layers for goal in goals]
    all_ = tuple(dict.fromkeys(layer for some in layers for layer in some))
    size = drawn_size(network, all_, s, start, not takes_any_size(network, all_))
    groups: dict[str, list[int]] = {}
    for k, some in enumerate(layers):
        framing = framed(network, some, s, size, start).framing
        groups.setdefault(framing, []).append(k)
    if len(groups) > 1:
        s = s.model_copy(update={"size": max(size)})
    return s, [*groups.values()]


def _rows(groups: Sequence[Sequence[int]], batch: int) -> Tensor:
    """Where the pictures of all groups, in a row, find those of each objective in its order."""
    places = torch.tensor([k for group in groups for k in group]).argsort()
    return (places[:, None] * batch + torch.arange(batch)).flatten()


def _in_step(ascents: Sequence[Iterator[VisualizeStep]], rows: Tensor) -> Iterator[VisualizeStep]:
    """The steps of several ascents, each step of all as one."""
    joined: VisualizeStep | None = None
    while joined is None or not joined.last:
        steps: list[VisualizeStep] = []
        try:
            for ascent in ascents:
                steps.append(next(ascent))
        except NonFiniteError as error:
            if error.image is not None and joined is not None:
                error.image = joined.picture()  # with those of the ascents that are well
            raise
        joined = _joined(steps, rows)
        yield joined


def _joined(steps: Sequence[VisualizeStep], rows: Tensor) -> VisualizeStep:
    def together(name: str) -> Tensor | None:
        parts = [getattr(step, name) for step in steps]
        if any(part is None for part in parts):
            return None
        return torch.cat(parts)[rows.to(parts[0].device)]

    def state() -> State:
        return State.gathered({f"ascent{k}": step.state() for k, step in enumerate(steps)})

    tensors = {name: together(name) for name in ("score", "image", "dead", "saliency")}
    return VisualizeStep(**{**vars(steps[0]), **tensors, "state": state})


def _ascend_alike(
    network: Network,
    goals: Sequence[Objective],
    s: AscentSettings,
    start: Tensor | None,
    state: State | None,
) -> Iterator[VisualizeStep]:
    """One ascent to objectives that are framed alike."""
    given = [goal.text for goal in goals]
    layers = tuple(dict.fromkeys(layer for goal in goals for layer in goal.bound(network).layers))
    fixed = not takes_any_size(network, layers)
    size = drawn_size(network, layers, s, start, fixed)
    sample = _sample(size, start, max(SAMPLE, 2 * network.input_size))
    if fixed:
        sample = images.resize(sample, (network.input_size, network.input_size)).clamp(0, 1)
    precision = s.precision if state is None else state.value("precision")
    net = network.prepared(s.device, precision, layers=layers, sample=sample)
    s = framed(net, layers, s, size, start)
    seen = VIEWS if s.framing == "whole" else 1
    _refuse_too_many(net, layers, size, len(goals) * s.batch, seen)
    bound = [goal.bound(net) for goal in goals]
    generator = torch.Generator().manual_seed(s.seed)
    canvas = _parameterization(s, size, len(goals), start, generator).to(net.device)
    if s.precision == "fp64":
        canvas = canvas.double()
    move = _Repeatable(_transform(net, bound, s, size, fixed))

    @functools.lru_cache(maxsize=8)  # a tensor is its own key; there are few, and one is held
    def placed(photo: Tensor) -> Tensor:
        photo = photo.to(net.device, torch.float64 if s.precision == "fp64" else torch.float32)
        return photo if images.size_of(photo) == size else images.resize(photo, size).clamp(0, 1)

    def transform_reference(photo: Tensor) -> Tensor:
        return move.again(placed(photo))

    count = len(goals) * s.batch
    watch = DeadUnits(
        lambda some, options: shared(
            net, [bound[k] for k in some], transform_reference=transform_reference, options=options
        ),
        [t for t in given for _ in range(s.batch)],
        s.batch,
    )
    if state is not None:
        watch.restore(state)

    def state_of(inner: Callable[[], State]) -> State:
        return inner().with_(watch.tensors(), precision=net.precision, helps=watch.helps)

    ascent = ascend(
        canvas,
        watch.evaluate,
        _optimiser(canvas, s),
        steps=s.steps,
        generator=generator,
        transform=move,
        clamp=s.parameterization == "pixels",
        state=state,
    )

    try:
        for step in ascent:
            score = step.score.reshape(count, -1).mean(1)
            if step.last:
                watch.report(s.steps)
            saliency = canvas.accumulated_gradient if isinstance(canvas, MaCo) else None
            more = {
                "score": score,
                "dead": ~watch.moved,
                "saliency": saliency,
                "network": net,
                "state": functools.partial(state_of, step.state),
            }
            yield VisualizeStep(**{**vars(step), **more})
    except NonFiniteError as error:
        if error.image is not None:
            error.image = _shown(error.image, ~watch.moved)
        raise


def _shown(image: Tensor, dead: Tensor) -> Tensor:
    alive = ~dead.to(image.device).view(-1, 1, 1, 1)  # that of a state is on the processor
    return image.clamp(0, 1).where(alive, GREY).float().cpu()


def _refuse_too_many(
    network: Network, layers: Sequence[str], size: tuple[int, int], count: int, views: int
) -> None:
    """SettingsError for a batch that memory cannot hold: the convolutions' answers, twice."""
    order = list(network.layers)
    end = max((order.index(layer) + 1 for layer in layers if layer in order), default=0)
    values = sum(
        math.prod(network.layers[name].shape)
        for name in order[:end]
        if network.layers[name].kind.startswith("Conv")
    )
    area = size[0] * size[1] / network.input_size**2
    if views > 1:
        area = min(area, VIEW_SIDES[1] ** 2) * views
    need = 2 * count * values * area * (2 if network.precision == "bf16" else 4)
    there = available_memory(network.device)
    if need > there:
        raise SettingsError(
            f"{count} pictures of {size[1]}×{size[0]} px at a time take about "
            f"{format_bytes(need)}, {format_bytes(there)} are there: a smaller batch or size, or "
            "fewer objectives"
        )


def _penalised(objectives: Sequence[Objective], s: AscentSettings) -> list[Objective]:
    if not objectives:
        raise SettingsError("there is no objective in the list; each of them gets a picture")
    penalty = [(-weight, made()) for weight, made in ((s.tv, obj.tv), (s.l2, obj.l2)) if weight]
    return [obj.combine([(1.0, goal), *penalty]) if penalty else goal for goal in objectives]


# A photograph's own activations -------------------------------------------------------------------


SettingsT = TypeVar("SettingsT", bound=AscentSettings)


def shaped_like(photo: Tensor, s: SettingsT) -> SettingsT:
    """The settings with the photo's aspect ratio, unless they have one."""
    if s.aspect != "auto":
        return s
    height, width = images.size_of(photo)
    return s.model_copy(update={"aspect": min(max(width / height, 0.05), 20)})


def relative_content(network: Network, layer: str, photo: Tensor, weight: float = 1.0) -> Objective:
    """`objectives.content`, in units of the photo's own mean squared activation."""
    return weight / rms_activation(network, layer, photo) ** 2 * obj.content(layer, photo)


@torch.no_grad()
def rms_activation(network: Network, layer: str, photo: Tensor) -> float:
    """How strongly a layer fires for a photo: the root of its mean squared activation."""
    activation = network.activations(photo.to(network.device), [layer])[layer]
    return max(float(activation.cpu().double().square().mean().sqrt()), 1e-12)


# The picture --------------------------------------------------------------------------------------


def shown_to(
    network: Network, layers: Sequence[str], photo: Tensor, side: int | Literal["auto"]
) -> Tensor:
    """A photo with a longest side of `side` px, or as the network can take it if that is fixed."""
    if takes_any_size(network, layers):
        longest = auto_size(network.input_size) if side == "auto" else side
        size = images.fit(images.size_of(photo), longest)
    else:
        size = (network.input_size, network.input_size)
    return photo if images.size_of(photo) == size else images.resize(photo, size).clamp(0, 1)


def _sample(size: tuple[int, int], start: Tensor | None, most: int) -> Tensor:
    """A picture to compare precisions on, of `most` px a side at most.

    Near grey, as a start is, nothing could be told.
    """
    if start is not None:
        return start
    height, width = size
    with torch.no_grad():
        small = (min(height, most), min(width, most))
        return MaCo(small, generator=torch.Generator().manual_seed(0))()


def _parameterization(
    s: AscentSettings,
    size: tuple[int, int],
    goals: int,
    start: Tensor | None,
    generator: torch.Generator,
) -> nn.Module:
    if start is not None:
        image = start if images.size_of(start) == size else images.resize(start, size).clamp(0, 1)
        if len(image) not in (1, goals * s.batch):
            raise SettingsError(
                f"{len(image)} pictures to start from; there must be 1 or as many as are drawn, "
                f"{goals * s.batch}"
            )
        return _built(s, size, goals * s.batch, image.float(), generator)
    one = _built(s, size, s.batch, None, generator)
    if goals == 1:
        return one
    # Every objective from the same starts, so that its pictures are those it would have alone.
    all_ = _built(s, size, goals * s.batch, None, torch.Generator())
    there = all_.state_dict()
    all_.load_state_dict(
        {
            name: t if t.shape == there[name].shape else t.repeat(goals, *[1] * (t.ndim - 1))
            for name, t in one.state_dict().items()
        }
    )
    return all_


def _built(
    s: AscentSettings,
    size: tuple[int, int],
    batch: int,
    start: Tensor | None,
    generator: torch.Generator,
) -> nn.Module:
    chances: dict[str, Any] = {"batch": batch, "generator": generator, "image": start}
    if s.parameterization == "fourier":
        low_pass = float(s.low_pass)  # which is settled, see _framed
        return Fourier(size, decay=s.decay, low_pass=low_pass, decorrelate=s.decorrelate, **chances)
    if s.parameterization == "maco":
        return MaCo(size, decorrelate=s.decorrelate, **chances)
    if start is None:
        start = GREY + 0.02 * torch.randn(batch, 3, *size, generator=generator)
    return Pixels(start.clamp(0, 1).expand(batch, -1, -1, -1))


def _optimiser(canvas: nn.Module, s: AscentSettings) -> torch.optim.Optimizer:
    rate = LEARNING_RATES[s.parameterization] if s.learning_rate == "auto" else s.learning_rate
    if s.optimiser == "nadam":
        return torch.optim.NAdam(canvas.parameters(), rate, eps=EPSILON, maximize=True)
    return torch.optim.Adam(canvas.parameters(), rate, eps=EPSILON, maximize=True)


# How it is moved ----------------------------------------------------------------------------------


def _transform(
    net: Network,
    goals: Sequence[Objective],
    s: AscentSettings,
    size: tuple[int, int],
    fixed: bool,
) -> transforms.Transform:
    moves = s.transforms
    if moves == "auto":
        seen = views(net, goals, size) if s.framing == "whole" else "robust"
        moves = "crops" if s.parameterization == "maco" else seen
        terms = [term for goal in goals for _, term in goal.terms or ((1.0, goal),)]
        if any(term.positional and term.comparison is None for term in terms):
            moves = "none"  # a place in the picture is meant
    chain = build_chain(moves, transforms.TRANSFORMS)
    if fixed:
        side = net.input_size
        warnings.warn(
            f"{net.name} takes pictures of {side}×{side} px alone: what it is shown is resized",
            stacklevel=3,
        )
        chain.append(_resized(side))
    return transforms.compose(*chain)


def _resized(side: int) -> transforms.Transform:
    def apply(image: Tensor, generator: torch.Generator) -> Tensor:
        if images.size_of(image) == (side, side):
            return image
        return images.resize(image, (side, side))

    return apply


class _Repeatable:
    """A transform that can be done again, alike, to another picture."""

    def __init__(self, transform: transforms.Transform) -> None:
        self.transform = transform
        self.state: Tensor | None = None

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        self.state = generator.get_state()
        return self.transform(image, generator)

    def again(self, image: Tensor) -> Tensor:
        generator = torch.Generator()
        if self.state is not None:
            generator.set_state(self.state)
        return self.transform(image, generator)
