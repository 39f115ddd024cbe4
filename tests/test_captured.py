"""What is captured of a network, and of dreams: the same pictures to the byte.

There is no card here: `tests.graphs` has the semantics of CUDA's graphs, numbers frozen and all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

from phosphene import gradients, objectives
from phosphene.evaluation.whole import each, shared, whole
from phosphene.films.frames import Frame
from phosphene.network import Network
from phosphene.objectives import Objective, channel, guide, layer
from phosphene.recipes.dream import dream
from phosphene.recipes.film import FilmSettings
from phosphene.recipes.steps.film import film_frames
from phosphene.recipes.visualize import visualize
from phosphene.runtime import capture
from phosphene.runtime.capture import Captures
from phosphene.runtime.options import MEMORY_EFFICIENT, PLAIN_MODULES, Options
from tests import toy_network
from tests.graphs import net, pictures, recorded


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third evaluation is captured."""
    monkeypatch.setattr(capture, "PAYS_AFTER", 2)


# Evaluations of a network ----------------------------------------------------------------------


GOALS: dict[str, Callable[[], Objective]] = {
    "layer": lambda: layer("second"),
    "sum": lambda: channel("second", 1) - 0.1 * objectives.tv() + 2 * layer("first"),
    "guide": lambda: guide("second", next(pictures(1, 16, 16)).float()),
    "content": lambda: objectives.content("second", next(pictures(1, 16, 16)).float()),
}


@pytest.mark.usefixtures("early")
@pytest.mark.parametrize("name", GOALS)
@pytest.mark.parametrize("many", [False, True])
def test_an_evaluation_is_that_of_autograd_to_the_byte(name: str, many: bool) -> None:
    network = net()
    goal = GOALS[name]().bound(network)
    goals = [goal, layer("first").bound(network)]

    def made() -> Any:
        return each(network, goals) if many else whole(network, goal)

    plain = made()
    backend = recorded(network)
    evaluate = made()
    for x in pictures(7):
        for a, b in zip(evaluate(x), plain(x), strict=True):
            assert torch.equal(a, b)
    assert (backend.captured, backend.replayed) == (1, 4)


@pytest.mark.usefixtures("early")
@pytest.mark.parametrize(
    "options", [MEMORY_EFFICIENT, PLAIN_MODULES, Options(captured=False)], ids=str
)
def test_where_memory_is_saved_or_operations_looked_at_nothing_is_captured(
    options: Options,
) -> None:
    network = net()
    backend = recorded(network)
    evaluate = whole(network, layer("second").bound(network), options=options)
    for x in pictures(5):
        evaluate(x)
    assert backend.captured == 0


@pytest.mark.usefixtures("early")
def test_an_objective_of_ones_own_is_captured_where_it_says_so() -> None:
    network = net()
    backend = recorded(network)
    weight = [1.0]
    own = Objective(("second",), lambda a: weight[0] * a["second"].mean((1, 2, 3)))
    for goal in (own, own + layer("first")):
        evaluate = whole(network, goal.bound(network))
        for number, x in enumerate(pictures(6)):
            weight[0] = float(number > 3)
            score, _ = evaluate(x)
            expected = goal.bound(network)(network.activations(x, ["first", "second"]))
            assert torch.equal(score, expected)
    assert backend.captured == 0
    evaluate = whole(network, replace(own, pure=True).bound(network))
    for x in pictures(6):
        evaluate(x)
    assert backend.captured == 1


@pytest.mark.usefixtures("early")
def test_what_is_done_to_a_reference_is_done_anew_each_time() -> None:
    network = net()
    backend = recorded(network)
    goal = GOALS["content"]().bound(network)
    for x in pictures(6):
        shared(network, [goal], transform_reference=lambda _, x=x: x.flip(-1))(x)
    assert backend.captured == 0


@pytest.mark.usefixtures("early")
def test_preprocessing_that_is_set_anew_is_seen() -> None:
    network = net()
    recorded(network)
    goal = layer("second").bound(network)
    evaluate = whole(network, goal)
    (x,) = pictures(1)
    before, *_ = [evaluate(x)[0] for _ in range(5)]
    network.shift = (0.1, 0.2, 0.3)
    after, _ = evaluate(x)
    assert torch.equal(after, whole(network, goal, options=Options(captured=False))(x)[0])
    assert not torch.equal(after, before)


def test_what_is_bound_stays_as_it_is() -> None:
    """By which a film's frames know what was captured of the first."""
    network = net()
    for made in GOALS.values():
        goal = made().bound(network)
        assert goal.bound(network) is goal
        assert goal.pure


def test_only_a_card_captures() -> None:
    network = toy_network.net()
    assert network.captures is None
    network.device = torch.device("cuda:0")  # nothing is asked of it before something is captured
    del network.captures
    assert isinstance(network.captures, Captures)


# Dreams ----------------------------------------------------------------------------------------

STEPS = 9
DREAM: dict[str, Any] = {
    "octaves": 2, "steps": STEPS, "jitter": 4, "natural": 0.5, "smooth": 0.5, "clip": 2.0,
    "laplacian": 0, "gradient": "mean", "device": "cpu", "precision": "fp64",
}  # fmt: skip


@pytest.mark.usefixtures("early")
def test_a_dream_is_the_same_to_the_byte(photo: Tensor) -> None:
    """Its jitter is another at each step: numbers of Python's, which lie outside."""
    network = net()
    expected = dream(photo, network, "second", **DREAM)
    backend = recorded(network)
    assert torch.equal(dream(photo, network, "second", **DREAM), expected)
    # The evaluation and the gradient's way, in two octaves.
    assert (backend.captured, backend.replayed) == (4, 4 * (STEPS - 3))


@pytest.mark.usefixtures("early")
@pytest.mark.parametrize("by", ["std", "norm", "rms"])
def test_the_way_of_a_gradient_through_bands_is_captured(
    by: str, photo: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients, "_norm", gradients._scaled_norm)  # as on a card
    network, how = net(), {**DREAM, "laplacian": 3, "gradient": by}
    expected = dream(photo, network, "second", **how)
    backend = recorded(network)
    assert torch.equal(dream(photo, network, "second", **how), expected)
    assert backend.captured == 4


@pytest.mark.usefixtures("early")
def test_a_dream_can_do_without(photo: Tensor) -> None:
    network = net()
    backend = recorded(network)
    network.captures = None
    dream(photo, network, "second", **DREAM)
    assert (backend.warmed, backend.tried) == (0, 0)


@pytest.mark.usefixtures("early")
def test_a_dream_in_tiles_does_without(photo: Tensor) -> None:
    """It is cut for want of memory, of which a graph would keep some for good."""
    network = net()
    backend = recorded(network)
    dream(photo, network, "second", tile=16, **DREAM)
    assert (backend.warmed, backend.tried) == (0, 0)


@pytest.mark.usefixtures("early")
def test_a_masked_dream_is_the_same_to_the_byte(photo: Tensor) -> None:
    network, mask = net(), torch.linspace(0, 1, 40).expand(1, 1, 48, 40)
    expected = dream(photo, network, "second", mask=mask, **DREAM)
    backend = recorded(network)
    assert torch.equal(dream(photo, network, "second", mask=mask, **DREAM), expected)
    assert backend.captured == 4


@pytest.mark.usefixtures("early")
def test_gradients_that_are_changed_by_ones_own_code_are_not_captured(photo: Tensor) -> None:
    def shaken(by: float = 0.1) -> gradients.GradientTransform:
        return lambda g: g + by * torch.rand(())

    name = "shaken"
    gradients.GRADIENTS.add(name, shaken)
    try:
        assert gradients.built_in("smooth(2), clip")
        assert not gradients.built_in("clip, shaken")
        network = net()
        backend = recorded(network)
        dream(photo, network, "second", gradient_transforms=name, **DREAM)
        assert backend.captured == 2  # the evaluations
    finally:
        del gradients.GRADIENTS[name]


def frames(count: int) -> Iterator[Frame]:
    for number, image in enumerate(pictures(count, 40, 48, seed=3)):
        yield Frame(number, Fraction(number, 30), image.float())


def filmed(network: Network, count: int) -> list[Tensor]:
    dreamt = {name: value for name, value in DREAM.items() if name != "steps"}
    settings = FilmSettings(**dreamt, steps=2, first_steps=2, flow="off")
    steps = film_frames(frames(count), network, 2 * layer("second") - objectives.tv(), settings)
    return [step.image for step in steps if step.done and step.image is not None]


def test_the_frames_of_a_film_share_their_captures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "PAYS_AFTER", 5)
    network = net()
    expected = filmed(network, 6)
    backend = recorded(network)
    found = filmed(network, 6)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    # Six frames of two steps: 12 evaluations a size, of which five and the captured one are run.
    assert (backend.captured, backend.replayed) == (4, 4 * 6)


@pytest.mark.usefixtures("early")
@pytest.mark.parametrize(("transforms", "captured"), [("none", True), ("robust", False)])
def test_a_drawing_is_the_same_to_the_byte(transforms: str, captured: bool) -> None:
    """Of transforms that change its size few shapes come often."""
    drawn: dict[str, Any] = {"size": 24, "steps": 8, "precision": "fp64", "device": "cpu"}
    network = net()
    expected = visualize(network, "first", transforms=transforms, **drawn)
    backend = recorded(network)
    assert torch.equal(visualize(network, "first", transforms=transforms, **drawn), expected)
    assert not captured or backend.replayed == 8 - 3


@pytest.mark.usefixtures("early")
def test_threads_get_what_each_would_get_alone(photo: Tensor) -> None:
    network = net()
    layers = ["first", "second", "first:1", "second"]
    expected = [dream(photo, network, each, **DREAM) for each in layers]
    backend = recorded(network)
    found: dict[int, Tensor] = {}

    def dreams(number: int) -> None:
        found[number] = dream(photo, network, layers[number], **DREAM)

    threads = [threading.Thread(target=dreams, args=(number,)) for number in range(len(layers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[k], one) for k, one in enumerate(expected))
    assert backend.captured >= 2 * len(layers)
