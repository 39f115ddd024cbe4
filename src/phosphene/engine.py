"""The one ascent loop.

`ascend` is a generator: whoever consumes its steps draws a progress bar, keeps film frames, shows
a live picture, or stops. It knows nothing of networks; `evaluate` tells it score and gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from phosphene.errors import NonFiniteError, StateError
from phosphene.state import State, optimiser_tensors, restore_module, restore_optimiser

Evaluate = Callable[[Tensor], tuple[Tensor, Tensor]]
Transform = Callable[[Tensor, torch.Generator], Tensor]

# Reading a number back from an accelerator stalls it, so there the check is made now and then.
CHECK_EVERY = 10


@dataclass(frozen=True)
class Step:
    """One step of an ascent.

    `octave` of `octaves` and `index` of `steps` count from 0. `score` `(N,)` is that of the image
    before the step, `image` `(N, 3, H, W)` the one after it; both stay on the device until read.
    `last` says that this ascent ends here, because of its number of steps or of its score.
    `scores` `(K, N)` are those of K objectives that are evaluated apart, of which `score` is then
    the sum; else None. `state()` is what the ascent needs to go on from here; it may be asked for
    until the next step is, since an optimiser works in place.
    """

    octave: int
    octaves: int
    index: int
    steps: int
    score: Tensor
    image: Tensor
    last: bool
    state: Callable[[], State] = field(repr=False)
    scores: Tensor | None = field(default=None, kw_only=True)

    @property
    def text(self) -> str:
        """The step in a few words; reading the score stalls an accelerator."""
        count, _, height, width = self.image.shape
        several = f"{count} of " if count > 1 else ""
        return (
            f"step {self.index + 1}/{self.steps}  {several}{width}×{height}  "
            f"score {float(self.score.mean()):.4g}"
        )

    @property
    def share(self) -> float:
        """How much of all work is done, 0 to 1, where octaves are alike."""
        part = 1.0 if self.last else (self.index + 1) / self.steps
        return (self.octave + part) / self.octaves

    @property
    def milestone(self) -> bool:
        """Whether this ascent ends here."""
        return self.last

    def picture(self) -> Tensor:
        """The image as a result, `(N, 3, H, W)` in [0, 1] on the CPU."""
        return self.image.clamp(0, 1).float().cpu()

    def _repr_jpeg_(self) -> bytes:
        """The picture, for a notebook."""
        from phosphene.image.shown import as_jpeg

        return as_jpeg(self.picture())


class Ascent:
    """Plain gradient ascent: `p + lr * gradient`, within ±`limit` if there is one.

    Into a new tensor: the old one stays as it was, so a step's image needs no copy. Not a
    `torch.optim.Optimizer`, since the first one made imports torch's compiler, which takes as long
    as torch itself.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, *, limit: float | None = None) -> None:
        self.params, self.lr, self.limit = list(params), lr, limit

    @torch.no_grad()
    def step(self) -> None:
        """Take one step along each parameter's `grad`."""
        for p in self.params:
            if p.grad is not None:
                p.data = torch.add(p.data, p.grad, alpha=self.lr)
                if self.limit is not None:
                    p.data.clamp_(-self.limit, self.limit)


def ascend(
    parameterization: nn.Module,
    evaluate: Evaluate,
    optimiser: Ascent | torch.optim.Optimizer,
    *,
    steps: int,
    generator: torch.Generator,
    transform: Transform | None = None,
    gradient: Callable[[Tensor], Tensor] | None = None,
    clamp: bool = False,
    stop_above: float | None = None,
    octave: int = 0,
    octaves: int = 1,
    state: State | None = None,
) -> Iterator[Step]:
    """Raise the score of `parameterization()` for `steps` steps, yielding each.

    evaluate: image `(N, 3, H, W)` -> (score `(N,)`, d score / d image). How is its own affair. Of
        K objectives apart: (scores `(K, N)`, gradients `(K, N, 3, H, W)`).
    optimiser: over the parameterization's parameters; it must ascend (`Ascent`, or one of
        `torch.optim` with `maximize=True`).
    transform: image -> image, inside the differentiated path.
    gradient: applied to the gradient of each parameter; it makes one of several.
    clamp: after each step, keep the image in [0, 1] (`parameterization.clamp_()`).
    stop_above: end, without taking the step, once the mean score is above this; that step is
        yielded with the image as it was. On an accelerator, which a look at the score stalls, it is
        looked at every tenth step.
    state: that of a step to go on from, as this ascent gave it; of its last step, which is then
        yielded again.

    Raises `StateError` for a state that does not fit, and `NonFiniteError`, with the last good
    image, when score or gradient leave the numbers.
    """
    parameters = [p for p in parameterization.parameters() if p.requires_grad]
    copies = not isinstance(optimiser, Ascent)
    good: Tensor | None = None
    current: int | None = None  # the step that is done, while no other is being done

    def stepped(index: int, score: Tensor, scores: Tensor | None, last: bool) -> Step:
        with torch.no_grad():
            image = parameterization()
            image = image.clone() if copies else image.detach()
        drawn = generator.get_state()
        # Plain ascent leaves the old tensors as they were, so these cost nothing.
        held = None if copies else parameterization.state_dict()

        def state() -> State:
            if held is None and current != index:
                raise StateError("this step is past: its state can be had until the next one")
            named = {"score": score, "scores": scores, "good": good, "generator": drawn}
            tensors = held or _cloned(parameterization.state_dict())
            return _state(tensors, optimiser, named).with_(index=index, last=last)

        place = octave, octaves, index, steps
        return Step(*place, score, image, last, state, scores=scores)

    first = 0
    if state is not None:
        first = state.value("index") + 1
        good, score, scores = _restored(state, parameterization, optimiser, generator)
        if state.value("last"):
            current = first - 1
            assert score is not None
            yield stepped(first - 1, score, scores, True)
            return
        state = None  # its pictures are the parameterization's by now
    for index in range(first, steps):
        current = None
        with torch.enable_grad():  # whoever consumes the steps may have turned it off
            image = parameterization()
            transformed = image if transform is None else transform(image, generator)
            # Fast networks make 0 of what is not a number, so nobody else would tell.
            if index == 0 and not _finite(transformed.detach(), ()):
                raise _lost("picture", octave, index, good)
            score, scores, grads = _evaluated(evaluate, transformed, parameters)
        # A large picture's memory is for the next step, not for what this one leaves behind.
        del transformed
        looked_at = index % CHECK_EVERY == 0 or index == steps - 1 or score.device.type == "cpu"
        if looked_at:
            if not _finite(score, grads):
                what = "score" if not _finite(score, ()) else "gradient"
                raise _lost(what, octave, index, good)
            good = image.detach().clone() if copies else image.detach()
        del image
        stop = stop_above is not None and looked_at and float(score.mean()) > stop_above
        if not stop:
            _move(optimiser, parameters, grads, gradient)
            if clamp:
                parameterization.clamp_()  # pyright: ignore[reportCallIssue]
        last, current = stop or index == steps - 1, index
        yield stepped(index, score, scores, last)
        if last:
            good = None  # a step that is kept keeps no picture but its own
            return


def _evaluated(
    evaluate: Evaluate, transformed: Tensor, parameters: list[nn.Parameter]
) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    """The score, those of several objectives apart, and the gradient of each parameter."""
    found, grad = evaluate(transformed.detach())
    score, scores = (found, None) if found.ndim == 1 else (found.sum(0), found)
    if len(parameters) == 1 and transformed is parameters[0]:
        return score, scores, [grad]
    several = scores is not None
    grads = torch.autograd.grad(transformed, parameters, grad, is_grads_batched=several)
    return score, scores, list(grads)


def _move(
    optimiser: Ascent | torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    grads: list[Tensor],
    gradient: Callable[[Tensor], Tensor] | None,
) -> None:
    """Take a step; `grads` is used up."""
    for parameter in reversed(parameters):
        grad = grads.pop()
        parameter.grad = grad if gradient is None else gradient(grad)
        del grad
    optimiser.step()
    for parameter in parameters:
        parameter.grad = None


def _cloned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _state(
    image: Mapping[str, Tensor],
    optimiser: Ascent | torch.optim.Optimizer,
    named: Mapping[str, Tensor | None],
) -> State:
    """The state of an ascent whose parameterization has the tensors `image`."""
    tensors = {name: tensor for name, tensor in named.items() if tensor is not None}
    tensors |= {f"image.{name}": tensor for name, tensor in image.items()}
    if isinstance(optimiser, torch.optim.Optimizer):
        gathered = _cloned(optimiser_tensors(optimiser))
        tensors |= {f"optimiser.{name}": tensor for name, tensor in gathered.items()}
    return State(tensors)


def _restored(
    state: State,
    parameterization: nn.Module,
    optimiser: Ascent | torch.optim.Optimizer,
    generator: torch.Generator,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Put everything back as `_state` found it; the last good image, the score and the scores."""
    restore_module(parameterization, state.part("image"))
    if isinstance(optimiser, torch.optim.Optimizer):
        restore_optimiser(optimiser, state.part("optimiser"))
    generator.set_state(state.tensor("generator"))
    device = next(parameterization.parameters()).device
    good, score, scores = (
        state.tensors[name].to(device) if name in state.tensors else None
        for name in ("good", "score", "scores")
    )
    return good, score, scores


def _lost(what: str, octave: int, index: int, good: Tensor | None) -> NonFiniteError:
    return NonFiniteError(
        f"the {what} is no longer a finite number, in octave {octave + 1}, step {index + 1}; "
        "a smaller step size or precision fp32 may help",
        good,
    )


def _finite(score: Tensor, grads: Iterable[Tensor]) -> bool:
    # A sum is finite only if all its terms are, or infinite ones would have to cancel to a number.
    total = score.sum()
    for grad in grads:
        total = total + torch.linalg.vector_norm(grad, 1)
    return bool(torch.isfinite(total))
