# pyright: reportArgumentType=false, reportOptionalCall=false
# since wrong arguments are tried on purpose
from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from phosphene import objectives as obj
from phosphene.errors import ObjectiveError, UnknownLayerError
from phosphene.image import resize
from phosphene.network import Network
from phosphene.objectives import IMAGE, Objective, parse


def ascends(goal: Objective, activation: Tensor, name: str = "a") -> None:
    a = activation.clone().double().requires_grad_()
    before = goal({name: a})
    (slope,) = torch.autograd.grad(before.sum(), a)
    assert slope.abs().max() > 0
    assert (goal({name: a.detach() + 1e-4 * slope}) > before).all()


# Diversity


def test_diversity_is_minus_the_mean_cosine_of_gram_matrices() -> None:
    a = np.random.default_rng(0).normal(size=(3, 4, 5, 6))
    grams = [x.reshape(4, -1) @ x.reshape(4, -1).T for x in a]
    expected = []
    for i, g in enumerate(grams):
        others = [np.sum(g * h) / np.linalg.norm(g) / np.linalg.norm(h) for h in grams]
        expected.append(-(sum(others) - others[i]) / 2)
    score = obj.diversity("a")({"a": torch.from_numpy(a)})
    np.testing.assert_allclose(score.numpy(), expected, rtol=1e-6)


def test_alike_is_minus_one_and_unlike_is_zero() -> None:
    same = torch.rand(1, 3, 4, 4).expand(4, -1, -1, -1)
    torch.testing.assert_close(obj.diversity("a")({"a": same}), -torch.ones(4))
    # The same texture elsewhere is no diversity.
    torch.testing.assert_close(
        obj.diversity("a")({"a": torch.cat([same[:1], same[:1].roll((1, 2), (2, 3))])}),
        -torch.ones(2),
    )
    apart = torch.eye(3).view(3, 3, 1, 1).expand(3, 3, 2, 2)  # each picture a channel of its own
    torch.testing.assert_close(obj.diversity("a")({"a": apart}), torch.zeros(3))


def test_more_diversity_is_up() -> None:
    ascends(obj.diversity("a"), torch.rand(3, 4, 5, 5, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_one_picture_or_a_dead_layer_gives_no_push_and_no_nan(fill: float) -> None:
    for n in (1, 3) if fill == 0 else (1,):
        a = torch.full((n, 2, 3, 3), fill, requires_grad=True)
        score = obj.diversity("a")({"a": a})
        assert torch.equal(score, torch.zeros(n))
        score.sum().backward()
        assert a.grad is not None
        assert torch.equal(a.grad, torch.zeros_like(a))


# Between units


def test_interpolate_goes_from_one_to_the_other() -> None:
    a = torch.rand(5, 3, 4, 4, dtype=torch.float64)
    b = torch.rand(5, 2, 2, 2, dtype=torch.float64)
    score = obj.interpolate("a", 0, "b", 1)({"a": a, "b": b})
    for n, t in enumerate((0, 0.25, 0.5, 0.75, 1)):
        expected = (1 - t) * a[n, 0].mean() + t * b[n, 1].mean()
        torch.testing.assert_close(score[n], expected)
    (alone,) = obj.interpolate("a", 0, "b", 1)({"a": a[:1], "b": b[:1]})
    torch.testing.assert_close(alone, (a[0, 0].mean() + b[0, 1].mean()) / 2)


def test_interpolate_within_a_layer_has_a_density(toy: Network) -> None:
    goal = obj.interpolate("third", 1, "third", 3).bound(toy)
    assert goal.layers == ("third",)
    activations = toy.activations(torch.rand(3, 3, 8, 10), ["third"])
    density = goal.density(activations)
    torch.testing.assert_close(density["third"].mean((1, 2)), goal(activations))
    assert density["third"].shape == (3, 4, 5)
    ascends(obj.interpolate("a", 1, "a", 0), torch.rand(2, 2, 3, 3))


def test_interpolate_knows_its_channels(toy: Network) -> None:
    with pytest.raises(ObjectiveError, match=r"second has 12 channels, 0 to 11; .* no channel 12"):
        obj.interpolate("first", 0, "second", 12).bound(toy)
    with pytest.raises(UnknownLayerError):
        obj.interpolate("first", 0, "secnod", 0).bound(toy)
    with pytest.raises(ObjectiveError, match="channel must be at least 0"):
        obj.interpolate("first", -1, "second", 0)


def test_the_negative_of_a_unit_is_minus_its_score() -> None:
    a = torch.rand(2, 3, 4, 4) - 0.5
    torch.testing.assert_close((-obj.channel("a", 1))({"a": a}), -obj.channel("a", 1)({"a": a}))
    ascends(-obj.channel("a", 1), a)
    assert parse("-a:1").text == (-obj.channel("a", 1)).text == "-a:1"


@pytest.mark.parametrize(
    "text",
    [
        "diversity(mixed4a)",
        "interpolate(mixed4a, 3, mixed4b, 5)",
        'caricature(mixed4a, "photo.jpg", cossim_pow=2.0)',
        "mixed4a:3 + 0.5*diversity(mixed4a)",
    ],
)
def test_texts_read_back(text: str) -> None:
    assert parse(parse(text).text).text == parse(text).text
    assert parse(text).text.replace(", cossim_pow=2.0", "") in (
        text.replace(", cossim_pow=2.0", ""),
        text.replace("mixed4b", '"mixed4b"').replace(", cossim_pow=2.0", ""),
    )


# Beside a photograph


class Twin:
    """A network whose only layer is the picture's first two channels."""

    name, classes, logits_layer = "twin", (), "a"

    def __init__(self) -> None:
        self.layers = {"a": type("I", (), {"kind": "X", "shape": (2, 2, 2), "channels": 2})()}

    def resolve(self, name: str) -> str:
        return name

    def activations(self, image: Tensor, layers) -> dict[str, Tensor]:
        return {name: image if name == IMAGE else image[:, :2] for name in layers}


def test_a_caricature_is_the_dot_times_the_cosine() -> None:
    photo = torch.tensor([[[[3.0, 1.0]], [[4.0, 0.0]], [[0.0, 0.0]]]]) / 10
    image = torch.tensor([[[[4.0, 0.0]], [[3.0, 5.0]], [[0.0, 0.0]]]]) / 10
    # dots .24 and 0, cosines .24 / .25 and 0, which counts as .1
    for power, expected in ((0, 0.24), (1, 0.24 * 0.96), (2, 0.24 * 0.96**2)):
        goal = obj.caricature("a", photo, cossim_pow=power).bound(Twin())
        value = goal({"a": image[:, :2], IMAGE: image})
        assert value.item() == pytest.approx(expected / 2)
    with pytest.raises(ObjectiveError, match="cossim_pow must be at least 0"):
        obj.caricature("a", photo, cossim_pow=-1)


def test_a_stronger_photo_is_a_better_caricature(toy: Network, photo: Tensor) -> None:
    goal = obj.caricature("second", photo).bound(toy)
    at = [toy.activations(p, goal.layers) for p in (photo, 1 - photo)]
    a = at[0]["second"]
    like, other = (goal(x) for x in at)
    assert like > other
    assert goal({**at[0], "second": 2 * a}).item() == pytest.approx(2 * like.item(), rel=1e-5)
    assert like.item() == pytest.approx(a.square().sum(1).mean().item(), rel=1e-5)


@pytest.mark.parametrize("make", [obj.caricature, obj.content])
def test_a_reference_can_be_moved_along(make, toy: Network, photo: Tensor) -> None:
    goal = make("second", photo).bound(toy)
    assert goal.comparison is not None
    assert torch.equal(goal.comparison.picture, photo)
    image = torch.rand_like(photo)
    activations = toy.activations(image, goal.layers)
    beside = toy.activations(photo, goal.layers)
    torch.testing.assert_close(goal.comparison.score(activations, beside), goal(activations))
    # A picture that shows the photo, moved, is none beside the photo in its old place.
    moved = toy.activations(photo.roll(7, 3), goal.layers)
    best = goal.comparison.score(moved, moved)
    assert goal.comparison.score(moved, beside) < best


def test_the_reference_has_the_size_of_the_picture(toy: Network, photo: Tensor) -> None:
    small = resize(photo, (24, 20)).clamp(0, 1)
    goal = obj.caricature("second", photo).bound(toy)
    seen = toy.activations(small, goal.layers)
    expected = obj.caricature("second", small).bound(toy)(seen)
    torch.testing.assert_close(goal(seen), expected)


# Tokens


def test_tokens_lie_where_they_are_in_the_picture() -> None:
    # Of a picture twice as wide as high: a class token, then 2 rows of 4.
    tokens = torch.arange(9.0).view(1, 9, 1) * torch.tensor([1.0, -1.0])
    picture = torch.zeros(1, 3, 32, 64)
    grid = obj.token_grid({"t": tokens, IMAGE: picture}, "t")
    assert grid[0, :, :, 0].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    goal = obj.neuron("t", 1, y=1, x=2)
    assert goal({"t": tokens, IMAGE: picture}).item() == -7
    assert obj.neuron("t", 0)({"t": tokens, IMAGE: picture}).item() == 7  # row 1, column 2
    assert obj.neuron("t", 0, x=0)({"t": tokens, IMAGE: picture}).item() == 0  # by its number


@pytest.mark.parametrize(("count", "extra"), [(196, 0), (197, 1), (198, 2), (261, 5), (1, 0)])
def test_extra_tokens_come_first(count: int, extra: int) -> None:
    tokens = torch.arange(float(count)).view(1, count, 1)
    grid = obj.token_grid({"t": tokens}, "t")
    side = int((count - extra) ** 0.5)
    assert grid.shape == (1, side, side, 1)
    assert grid[0, 0, 0, 0] == extra


def test_tokens_that_are_no_grid() -> None:
    tokens = torch.zeros(1, 23, 1)  # 23 to 18 are no squares
    with pytest.raises(ObjectiveError, match=r"t gives 23 tokens, which are no grid .* needs x"):
        obj.neuron("t", 0, y=0, x=0)({"t": tokens})
    with pytest.raises(ObjectiveError, match="no channel 5"):
        obj.neuron("t", 5, x=3)({"t": tokens})
