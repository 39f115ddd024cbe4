# pyright: reportArgumentType=false
# since wrong arguments are tried on purpose
from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from phosphene import objectives as obj
from phosphene.errors import ImageError, ObjectiveError, UnknownLayerError
from phosphene.image import resize, save_image
from phosphene.objectives import IMAGE, LOGITS, Objective, reference


@dataclasses.dataclass(frozen=True)
class Info:
    kind: str
    shape: tuple[int, ...]

    @property
    def channels(self) -> int:
        return self.shape[-1] if len(self.shape) == 2 else self.shape[0]


class Toy:
    """Three seeded layers, which give maps, tokens and class scores."""

    name = "toy"
    classes: tuple[str, ...] = (
        "tench, Tinca tinca",
        "tabby, tabby cat",
        "Tiger Cat",
        "crane",
        "crane",
    )
    logits_layer = "head.fc"

    def __init__(self) -> None:
        self.aliases = {"first": "body.0", "tokens": "body.tokens", "second": "body.1"}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first = nn.Conv2d(3, 4, 3, padding=1).double()
            self.second = nn.Conv2d(4, 6, 3, stride=2, padding=1).double()
            self.fc = nn.Linear(6, 5).double()
        self.layers = {
            "body.0": Info("Conv2d", (4, 12, 10)),
            "body.1": Info("Conv2d", (6, 6, 5)),
            "body.tokens": Info("Flatten", (30, 6)),
            "head.fc": Info("Linear", (5,)),
        }
        self.seen: list[tuple[int, int]] = []

    def resolve(self, name: str) -> str:
        name = self.aliases.get(name, name)
        if name not in self.layers:
            raise UnknownLayerError(name, self.name, [*self.layers, *self.aliases])
        return name

    def activations(self, image: Tensor, layers) -> dict[str, Tensor]:
        self.seen.append((image.shape[-2], image.shape[-1]))
        first = nn.functional.elu(self.first(image.double()))
        second = nn.functional.elu(self.second(first))
        found = {
            IMAGE: image,
            "body.0": first,
            "body.1": second,
            "body.tokens": second.flatten(2).mT,
            "head.fc": self.fc(second.mean((2, 3))),
        }
        return {name: found[name].to(image.dtype) for name in layers}


@pytest.fixture
def toy() -> Toy:
    return Toy()


def picture(*size: int, seed: int = 1, dtype=torch.float64) -> Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


GUIDE = picture(1, 3, 8, 14, seed=7)

# One of each kind, on layers of each shape.
EXAMPLES: dict[str, Objective] = {
    **{
        f"layer {norm} {margin} {name}": obj.layer(name, norm=norm, margin=margin)
        for norm in ("mean_square", "mean", "sum", "l2", "half_sum_square")
        for margin, name in ((0, "first"), (2, "first"), (0, "tokens"), (0, "head.fc"), (0, IMAGE))
    },
    "channel": obj.channel("first", 0),
    "channel tokens": obj.channel("tokens", 5),
    "channel vector": obj.channel("head.fc", 4),
    "channels": obj.channels("second", 0, 3, 5),
    "neuron": obj.neuron("second", 2),
    "neuron place": obj.neuron("second", 2, y=0, x=4),
    "neuron token": obj.neuron("tokens", 2, x=0),
    "neuron grid": obj.neuron("tokens", 2, y=1),
    "neuron vector": obj.neuron("head.fc", 2),
    "direction": obj.direction("second", [1, -2, 3, 0, 0.5, 1]),
    "direction cosine": obj.direction("tokens", [1, -2, 3, 0, 0.5, 1], cossim_pow=2),
    "logit": obj.logit(0),
    "logit name": obj.logit("tiger cat"),
    "match": obj.guide("second", GUIDE),
    "match tokens": obj.guide("tokens", GUIDE),
    "dot": obj.guide("first", GUIDE, by="dot"),
    "distance": obj.guide("first", GUIDE, by="distance"),
    "content": obj.content("tokens", GUIDE),
    "caricature": obj.caricature("second", GUIDE, cossim_pow=2),
    "style": obj.style("first", GUIDE),
    "tv": obj.tv(),
    "l2": obj.l2(),
}
EXAMPLES["sum"] = 2 * EXAMPLES["channel"] + EXAMPLES["dot"] - 0.5 * obj.tv() + obj.layer("body.0")


def score(objective: Objective, image: Tensor, toy: Toy) -> Tensor:
    bound = objective.bound(toy)
    return bound(toy.activations(image, bound.layers))


# Of all


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_picture_has_its_own_score_and_ascent_raises_it(name: str, toy: Toy) -> None:
    image = picture(2, 3, 12, 10).requires_grad_()
    before = score(EXAMPLES[name], image, toy)
    assert before.shape == (2,)
    alone = torch.cat([score(EXAMPLES[name], one[None], toy) for one in image])
    torch.testing.assert_close(before, alone)
    (gradient,) = torch.autograd.grad(before.sum(), image)
    assert gradient.flatten(1).norm(dim=1).min() > 1e-9
    step = 1e-5 * gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert (score(EXAMPLES[name], image.detach() + step, toy) > before).all()


WITH_DENSITY = {
    "layer mean_square 0 first",
    "layer mean_square 0 tokens",
    "layer mean_square 0 head.fc",
    "layer mean_square 0 @image",
    "layer mean 0 first",
    "layer mean 0 tokens",
    "layer mean 0 head.fc",
    "layer mean 0 @image",
    *("channel", "channel tokens", "channel vector", "channels"),
    *("direction", "direction cosine", "match", "match tokens", "dot", "tv", "l2", "sum"),
}


def test_which_have_a_density_and_which_are_positional(toy: Toy) -> None:
    bound = {name: objective.bound(toy) for name, objective in EXAMPLES.items()}
    assert {name for name, objective in bound.items() if objective.density} == WITH_DENSITY
    assert {name for name, objective in bound.items() if objective.positional} == {
        "distance",
        "content",
        "caricature",
        "neuron place",
        "neuron token",
        "neuron grid",
    }


@pytest.mark.parametrize("name", sorted(WITH_DENSITY))
@settings(max_examples=8, deadline=None)
@given(st.integers(1, 13), st.integers(1, 13), st.integers(1, 3), st.integers(0, 99))
def test_the_density_averages_to_the_score(name: str, h: int, w: int, n: int, seed: int) -> None:
    toy = Toy()
    bound = EXAMPLES[name].bound(toy)
    activations = toy.activations(picture(n, 3, h, w, seed=seed), bound.layers)
    assert bound.density
    density = bound.density(activations)
    assert set(density) <= set(bound.layers)
    for layer, values in density.items():
        positions = {4: activations[layer].shape[2:], 3: (1, activations[layer].shape[1])}
        assert values.shape == (n, *positions.get(activations[layer].ndim, (1, 1)))
    total = sum(values.mean((1, 2)) for values in density.values())
    torch.testing.assert_close(total, bound(activations))


@pytest.mark.parametrize("name", ["layer mean_square 0 first", "channels", "match", "tv", "sum"])
def test_a_part_of_the_map_has_the_same_density(name: str, toy: Toy) -> None:
    bound = EXAMPLES[name].bound(toy)
    whole = toy.activations(picture(1, 3, 12, 10), bound.layers)
    part = {layer: a[:, :, :, 1:5] for layer, a in whole.items()}
    assert bound.density
    for layer, values in bound.density(part).items():
        # The last column's right neighbour is not in the part.
        expected = bound.density(whole)[layer][:, :, 1:5]
        torch.testing.assert_close(values[:, :, :-1], expected[:, :, :-1])


def test_scores_are_float32_or_wider(toy: Toy) -> None:
    huge = torch.full((1, 4, 5, 5), 300.0, dtype=torch.float16)  # its square is beyond float16
    (value,) = obj.layer("a")({"a": huge})
    assert (value.dtype, value.item()) == (torch.float32, 90000.0)
    assert obj.layer("a")({"a": huge.double()}).dtype == torch.float64


# What a layer sees

MAP = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, -1.0], [0.0, 1.0]]]])  # (1, 2, 2, 2)


@pytest.mark.parametrize(
    ("norm", "expected"),
    [("mean_square", 4.0), ("mean", 1.25), ("sum", 10), ("l2", 32**0.5), ("half_sum_square", 16)],
)
def test_layer_norms(norm: obj.Norm, expected: float) -> None:
    tokens, vector = MAP.flatten(2).mT, MAP.reshape(1, 8)
    for shape in (MAP, tokens, vector):
        (value,) = obj.layer("a", norm=norm)({"a": shape})
        assert value.item() == pytest.approx(expected)


def test_the_gradient_of_half_the_sum_of_squares_is_the_activation() -> None:
    a = MAP.clone().requires_grad_()
    obj.layer("a", norm="half_sum_square")({"a": a}).sum().backward()
    assert a.grad is not None
    assert torch.equal(a.grad, MAP)


def test_the_gradient_of_a_dead_layer_is_zero_and_not_nan() -> None:
    a = torch.zeros(1, 2, 3, 3, requires_grad=True)
    goal = obj.layer("a", norm="l2") + obj.direction("a", [1, 2], cossim_pow=2)
    goal({"a": a}).sum().backward()
    assert a.grad is not None
    assert torch.equal(a.grad[:, 0], a.grad[:, 1] / 2)
    assert bool(a.grad.isfinite().all())


@pytest.mark.parametrize(
    ("side", "left"),
    [(6, 2), (5, 1), (4, 2), (3, 1), (2, 2), (1, 1)],  # [2:-2] leaves nothing of 4 and fewer
)
def test_the_margin_is_cut_and_the_whole_map_divides(side: int, left: int) -> None:
    a = torch.full((1, 3, side, 9), 2.0)
    expected = 4 * (left * 5) / (side * 9)
    for objective, value in (
        (obj.layer("a", margin=2), expected),
        (obj.layer("a", norm="mean", margin=2), expected / 2),
        (obj.layer("a", norm="sum", margin=2), left * 5 * 3 * 2),
        (obj.layer("a", norm="half_sum_square", margin=2), left * 5 * 3 * 2),
        (obj.layer("a", norm="l2", margin=2), (left * 5 * 3 * 4) ** 0.5),
    ):
        assert objective({"a": a}).item() == pytest.approx(value)


def test_the_margin_cuts_the_border_and_not_the_middle() -> None:
    a = torch.zeros(1, 1, 7, 7)
    a[0, 0, 2, 4] = 7.0
    assert obj.layer("a", margin=2)({"a": a}).item() == 1
    assert obj.layer("a", margin=3)({"a": a}).item() == 0
    with pytest.raises(ObjectiveError, match="a gives no map"):
        obj.layer("a", margin=1)({"a": a.flatten(1)})


def test_channels_by_number_with_0_the_first() -> None:
    tokens, vector = MAP.flatten(2).mT, MAP.mean((2, 3))
    for a in (MAP, tokens, vector):
        assert obj.channel("a", 0)({"a": a}).item() == 2.5
        assert obj.channel("a", 1)({"a": a}).item() == 0
        assert obj.channels("a", 0, 1)({"a": a}).item() == 1.25
        assert obj.channels("a", 0, 0, 1)({"a": a}).item() == pytest.approx(5 / 3)


def test_neurons() -> None:
    a = torch.arange(2 * 4 * 3.0).view(1, 2, 4, 3)
    assert obj.neuron("a", 1)({"a": a}).item() == a[0, 1, 2, 1]
    assert obj.neuron("a", 1, y=0, x=0)({"a": a}).item() == a[0, 1, 0, 0]
    assert obj.neuron("a", 0, y=3)({"a": a}).item() == a[0, 0, 3, 1]
    assert obj.neuron("a", 0, x=2)({"a": a}).item() == a[0, 0, 2, 2]
    assert obj.neuron("a", 1, x=5)({"a": a.flatten(2).mT}).item() == a[0, 1, 1, 2]
    assert obj.neuron("a", 1)({"a": torch.tensor([[4.0, 5.0]])}).item() == 5


def test_direction() -> None:
    a = torch.tensor([[[[3.0, -1.0]], [[4.0, 0.0]]]])  # (3, 4) and (-1, 0)
    toward = [3, 4]  # dots 25 and -3, cosines 1 and -0.6
    assert obj.direction("a", toward)({"a": a}).item() == pytest.approx(11)
    value = obj.direction("a", toward, cossim_pow=2)({"a": a}).item()
    assert value == pytest.approx((25 * 1 - 3 * 0.1**2) / 2)
    for same in (np.array(toward), torch.tensor(toward), tuple(toward)):
        assert obj.direction("a", same)({"a": a}).item() == pytest.approx(11)


def test_a_direction_along_an_axis_is_a_channel(toy: Toy) -> None:
    image = picture(1, 3, 12, 10)
    along = score(obj.direction("second", [0, 0, 1, 0, 0, 0]), image, toy)
    torch.testing.assert_close(along, score(obj.channel("second", 2), image, toy))


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("Tiger Cat", 2),
        ("tiger_cat", 2),
        ("TABBY", 1),
        ("tabby cat", 1),
        ("tinca", 0),  # a word of "Tinca tinca"
        ("tench, tinca tinca", 0),
        ("tiger", 2),
    ],
)
def test_logits_by_name(name: str, index: int, toy: Toy) -> None:
    image = picture(2, 3, 12, 10)
    expected = toy.activations(image, ["head.fc"])["head.fc"][:, index]
    torch.testing.assert_close(score(obj.logit(name), image, toy), expected)
    torch.testing.assert_close(score(obj.logit(index), image, toy), expected)
    assert obj.logit(name).layers == (LOGITS,)
    assert obj.logit(name).bound(toy).layers == ("head.fc",)


# Likeness


def notebook_guide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The gradient of the notebook of 2015, in loops: (C, P) and (C, K) -> (C, P)."""
    gradient = np.zeros_like(x)
    for p in range(x.shape[1]):
        dots = [sum(x[c, p] * y[c, k] for c in range(len(x))) for k in range(y.shape[1])]
        gradient[:, p] = y[:, int(np.argmax(dots))]
    return gradient


def test_the_gradient_of_a_match_is_the_matched_feature(toy: Toy) -> None:
    bound = obj.guide("second", GUIDE).bound(toy)
    a = toy.activations(picture(1, 3, 12, 10), ["body.1"])["body.1"].detach().requires_grad_()
    value = bound({"body.1": a})
    value.sum().backward()
    guide = toy.activations(GUIDE, ["body.1"])["body.1"]
    matched = notebook_guide(
        a.detach().numpy()[0].reshape(6, 30), guide.numpy(force=True)[0].reshape(6, -1)
    )
    assert a.grad is not None
    np.testing.assert_allclose(a.grad.numpy()[0].reshape(6, 30), matched / 30)
    assert len(np.unique(matched, axis=1).T) > 1
    assert value.item() == pytest.approx(
        (a.detach().numpy()[0].reshape(6, 30) * matched).sum() / 30
    )


def test_matches_in_parts_are_the_same(toy: Toy) -> None:
    # 400 × 44100 pairs are more than one part holds.
    a, pool = picture(1, 20, 20, 2), picture(44100, 2, seed=3)
    expected = pool[(a.view(-1, 2) @ pool.T).argmax(1)].view(a.shape)
    assert torch.equal(reference._best_match(a, pool), expected)


def test_dot_is_the_mean_product_with_the_mean_feature(toy: Toy) -> None:
    image, other = picture(1, 3, 12, 10), picture(1, 3, 8, 14, seed=8)
    seen = toy.activations(image, ["body.0"])["body.0"].mean((2, 3))
    wanted = toy.activations(GUIDE, ["body.0"])["body.0"].mean((2, 3))
    torch.testing.assert_close(score(EXAMPLES["dot"], image, toy), (seen * wanted).sum(1))
    # Several guides are one store of features.
    also = toy.activations(other, ["body.0"])["body.0"].mean((2, 3))
    both = obj.guide("first", torch.cat([GUIDE, other]), "dot")
    torch.testing.assert_close(score(both, image, toy), (seen * (wanted + also) / 2).sum(1))


@pytest.mark.parametrize("make", [obj.content, lambda *a: obj.guide(*a, by="distance")])
@pytest.mark.parametrize("layer", ["first", "tokens", "head.fc", IMAGE])
def test_distances_place_by_place(make, layer: str, toy: Toy) -> None:
    image = picture(2, 3, 12, 10)
    target = resize(GUIDE, (12, 10)).clamp(0, 1)
    name = layer if layer == IMAGE else toy.resolve(layer)
    seen, wanted = (toy.activations(x, [name])[name] for x in (image, target))
    expected = -(seen - wanted).square().flatten(1).mean(1)
    torch.testing.assert_close(score(make(layer, GUIDE), image, toy), expected)
    assert (expected < 0).all()
    assert score(make(layer, image[:1]), image[:1], toy).item() == 0


def test_a_reference_is_seen_once_for_each_size(toy: Toy) -> None:
    bound = (obj.content("first", GUIDE) + obj.style("first", GUIDE)).bound(toy)
    for size in ((12, 10), (6, 5), (12, 10), (8, 14)):
        activations = toy.activations(picture(1, 3, *size), bound.layers)
        toy.seen.clear()
        first = bound(activations)
        assert toy.seen.count(size) <= 1
        toy.seen.clear()
        assert torch.equal(bound(activations), first)
        assert toy.seen == []


def test_style_is_four_times_the_loss_of_gatys(toy: Toy) -> None:
    image, reference = picture(1, 3, 12, 10), picture(1, 3, 12, 10, seed=4)
    grams = []
    for x in (image, reference):
        f = toy.activations(x, ["body.0"])["body.0"][0].reshape(4, 120)
        grams.append(torch.einsum("ik,jk->ij", f, f))
    gatys = (grams[0] - grams[1]).square().sum() / (4 * 4**2 * 120**2)
    torch.testing.assert_close(score(obj.style("first", reference), image, toy)[0], -4 * gatys)


def test_style_does_not_see_places_or_sizes(toy: Toy) -> None:
    goal = obj.style(IMAGE, GUIDE)
    twice = torch.cat([GUIDE, GUIDE.flip(3)], 2)
    assert abs(score(goal, twice, toy).item()) < 1e-12
    assert score(goal, picture(1, 3, 8, 14), toy).item() < -1e-6


def test_a_reference_may_be_a_file(toy: Toy, tmp_path) -> None:
    path = tmp_path / "guide.png"
    exact = (GUIDE * 255).round().float() / 255
    save_image(exact, path)
    image = picture(1, 3, 12, 10, dtype=torch.float32)
    for source in (path, str(path)):
        goal = obj.guide("first", source)
        assert goal.text == f'guide(first, "{path}")'
        torch.testing.assert_close(
            score(goal, image, toy), score(obj.guide("first", exact), image, toy)
        )
    with pytest.raises(ImageError, match="nowhere"):
        obj.style("first", tmp_path / "nowhere.png").bound(toy)


def test_the_features_of_a_reference_do_not_follow_the_gradient(toy: Toy) -> None:
    guide = GUIDE.clone().requires_grad_()
    for by in ("match", "dot", "distance"):
        image = picture(1, 3, 12, 10).requires_grad_()
        bound = obj.guide("first", guide, by).bound(toy)
        for _ in range(2):  # a graph kept with the features would be gone the second time
            bound(toy.activations(image, bound.layers)).sum().backward()
        assert guide.grad is None


# The picture itself


def test_total_variation() -> None:
    image = torch.zeros(1, 3, 2, 3)
    image[0, :, 0, 1] = 0.6
    # Left, right and lower neighbour differ by 0.6, in each channel; six pixels.
    assert obj.tv()({IMAGE: image}).item() == pytest.approx(3 * 0.6 / 6)
    image[0, 1:] = 0
    assert obj.tv()({IMAGE: image}).item() == pytest.approx(3 * 0.6 / 6 / 3)
    assert obj.tv()({IMAGE: torch.full((1, 3, 4, 5), 0.3)}).item() == 0
    assert obj.tv()({IMAGE: torch.rand(1, 3, 1, 1)}).item() == 0
    assert (-0.1 * obj.tv())({IMAGE: image}).item() < 0


def test_l2_is_the_distance_from_mid_grey() -> None:
    image = torch.full((1, 3, 2, 2), 0.5)
    assert obj.l2()({IMAGE: image}).item() == 0
    image[0, 0] = 1.0
    assert obj.l2()({IMAGE: image}).item() == pytest.approx(0.25 / 3)


# Arithmetic

WEIGHTS = st.floats(-1e6, 1e6, allow_subnormal=False)


@given(WEIGHTS, WEIGHTS, WEIGHTS)
@settings(max_examples=40, deadline=None)
def test_sums_and_weights(u: float, v: float, w: float) -> None:
    a, b, c = obj.layer("a"), obj.channel("a", 1), obj.tv()
    activations = {"a": MAP.double(), IMAGE: picture(1, 3, 4, 4)}
    x, y, z = (one(activations).item() for one in (a, b + 1 * a, c))
    total = w * (u * a - (b + a) * v) + -c
    assert total(activations).item() == pytest.approx(w * (u * x - v * y) - z, rel=1e-9, abs=1e-9)
    assert total.layers == ("a", IMAGE)


def test_sum_and_the_texts() -> None:
    a, b = obj.layer("a"), obj.channel("b.1", 0)
    assert sum([a, b, a]).text == "a + b.1:0 + a"  # pyright: ignore[reportAttributeAccessIssue]
    assert (a - b).text == "a - b.1:0"
    assert (-a + 2 * (b - 0.25 * obj.tv())).text == "-a + 2*b.1:0 - 0.5*tv()"
    assert (np.float64(3) * a * 1e-7).text == "3e-07*a"
    assert (0 * a).text == "0*a"
    assert (1 * a).text == "a"
    for name in ("2", "two words", "a-b", "", 'say "x"', "aöü.ß", "a..b", "0.conv", "none"):
        quoted = '"' + name.replace('"', '""') + '"'
        assert obj.layer(name).text == (name if name == "aöü.ß" else quoted)
    assert obj.direction("a", torch.tensor([0.1, -2])).text == "direction(a, [0.1, -2.0])"
    assert obj.neuron("a", 3, 1, x=2).text == "neuron(a, 3, y=1, x=2)"
    assert obj.guide("a", GUIDE, "dot").text == 'guide(a, <image>, by="dot")'
    assert obj.layer("a", norm="mean_square", margin=0).text == "a"


def test_many_terms_do_not_nest(toy: Toy) -> None:
    goal = sum((obj.channel("first", i % 4) * (i + 1) for i in range(600)), obj.tv()).bound(toy)
    assert len(goal.terms) == 601
    assert goal(toy.activations(picture(1, 3, 4, 4), goal.layers)).shape == (1,)


@pytest.mark.parametrize("weight", [float("inf"), float("nan")])
def test_weights_are_finite(weight: float) -> None:
    with pytest.raises(ObjectiveError, match="weight of a must be finite, got"):
        weight * obj.layer("a")  # pyright: ignore[reportUnusedExpression]


def test_what_is_no_objective_does_not_add() -> None:
    a = obj.layer("a")
    for wrong in (lambda: a + 1, lambda: 1 + a, lambda: a - 1, lambda: a * a, lambda: "2" * a):  # pyright: ignore
        with pytest.raises(TypeError):
            wrong()


# Binding


def test_a_sum_is_as_good_as_its_worst_term(toy: Toy) -> None:
    fine, lacking, placed = obj.layer("first"), obj.layer("first", norm="l2"), EXAMPLES["content"]
    assert (2 * fine - obj.tv()).density
    assert (fine + lacking).density is None
    assert not (fine + lacking).positional
    for goal in (2 * placed, fine + placed, (fine - placed).bound(toy)):
        assert goal.positional
        assert goal.density is None


def test_binding_resolves_aliases_and_keeps_the_text(toy: Toy) -> None:
    goal = obj.layer("first") + 2 * obj.channel("body.0", 1) - obj.tv() + obj.logit("tabby")
    bound = goal.bound(toy)
    assert goal.layers == ("first", "body.0", IMAGE, LOGITS)
    assert bound.layers == ("body.0", IMAGE, "head.fc")
    assert bound.text == goal.text
    again = bound.bound(toy)
    activations = toy.activations(picture(2, 3, 12, 10), bound.layers)
    assert torch.equal(again(activations), bound(activations))
    assert (again.layers, again.text) == (bound.layers, bound.text)


def test_an_own_objective_needs_no_bind(toy: Toy) -> None:
    both = Objective(
        ("first", "body.0"),
        lambda a: (a["first"] + a["body.0"]).mean((1, 2, 3)),
        density=lambda a: {name: a[name].mean(1) for name in ("first", "body.0")},
    )
    bound = both.bound(toy)
    activations = toy.activations(picture(2, 3, 12, 10), bound.layers)
    assert bound.layers == ("body.0",)
    assert bound.density
    torch.testing.assert_close(
        bound.density(activations)["body.0"].mean((1, 2)), bound(activations)
    )


def test_the_decorator_registers_and_writes_the_text() -> None:
    def peak(
        layer: str, power: float = 1, *, mode: str | None = None, on: bool = False
    ) -> Objective:
        return Objective((layer,), lambda a: a[layer].flatten(1).amax(1) ** power)

    try:
        registered = obj.objective(peak)
        assert obj.OBJECTIVES["peak"] is registered
        assert registered("a b").text == 'peak("a b")'
        assert registered("a", 2).text == "peak(a, power=2)"
        assert registered("a", 1, mode="x", on=True).text == 'peak(a, mode="x", on=true)'
        assert (2 * registered("a"))({"a": MAP}).item() == 8
        obj.objective(peak)  # a notebook cell that is run again

        def layer() -> Objective:
            return obj.tv()

        with pytest.raises(ObjectiveError, match="an objective 'layer' already"):
            obj.objective(layer)
    finally:
        obj.OBJECTIVES.pop("peak", None)


# Errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: obj.layer("a", norm="l3"), "norm must be one of mean_square, .*got 'l3'"),
        (lambda: obj.layer("a", margin=-1), "margin must be at least 0, got -1"),
        (lambda: obj.layer("a", margin=1.5), "margin must be a whole number, got 1.5"),
        (lambda: obj.channel("a", -1), "channel must be at least 0, got -1"),
        (lambda: obj.channel("a", "x"), "channel must be a whole number, got 'x'"),
        (lambda: obj.channels("a"), r"channels\(a\) needs at least one"),
        (lambda: obj.neuron("a", 0, y=-1), "y must be at least 0, got -1"),
        (lambda: obj.direction("a", [[1.0]]), r"one a channel, got the shape \(1, 1\)"),
        (lambda: obj.direction("a", []), "one a channel"),
        (lambda: obj.direction("a", [float("nan")]), "finite"),
        (lambda: obj.direction("a", "up"), "list of numbers, got 'up'"),
        (lambda: obj.direction("a", [1.0], cossim_pow=-1), "cossim_pow must be at least 0, got -1"),
        (lambda: obj.guide("a", GUIDE, "l2"), "by must be one of match, distance, dot, got 'l2'"),
        (lambda: obj.guide("a", GUIDE[0]), r"float \(N, 3, H, W\).*got torch.float64 \(3, 8, 14\)"),
        (lambda: obj.style("a", GUIDE.byte()), "got torch.uint8"),
        (lambda: obj.content("a", 3), "a tensor or a path, got int"),
        (lambda: obj.combine([]), "at least one"),
    ],
)
def test_what_makes_no_sense_at_once(make, message: str) -> None:
    with pytest.raises(ObjectiveError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        (obj.channel("first", 4), "first has 4 channels, 0 to 3; there is no channel 4"),
        (obj.channels("tokens", 0, 6), "tokens has 6 channels, 0 to 5; there is no channel 6"),
        (obj.channel(IMAGE, 3), "@image has 3 channels"),
        (obj.neuron("second", 9), "second has 6 channels"),
        (obj.neuron("head.fc", 0, y=1, x=1), "head.fc gives a vector"),
        (obj.direction("first", [1, 2]), "first has 4 channels, the direction has 2 numbers"),
        (obj.logit(5), "toy has 5 classes, 0 to 4; there is no class 5"),
        (obj.logit("Crane"), "'Crane' fits several classes of toy: 3 'crane', 4 'crane'"),
        (obj.logit("cat"), "fits several classes of toy: 1 'tabby, tabby cat', 2 'Tiger Cat'"),
        (obj.logit("tigercat"), "no class 'tigercat'; the closest are Tiger Cat"),
        (obj.logit("tig"), "no class 'tig'"),
        (obj.logit(""), "no class ''"),
    ],
)
def test_what_the_network_lacks(goal: Objective, message: str, toy: Toy) -> None:
    for whole in (goal, obj.tv() - 2 * goal):
        with pytest.raises(ObjectiveError, match=message) as error:
            whole.bound(toy)
        assert "\n" not in str(error.value)


def test_more_of_what_the_network_lacks(toy: Toy) -> None:
    with pytest.raises(UnknownLayerError, match="toy has no layer 'frist'; the closest are first"):
        (obj.tv() + obj.layer("frist")).bound(toy)
    toy.classes = ()
    with pytest.raises(ObjectiveError, match="toy has no class names; give the number"):
        obj.logit("tabby").bound(toy)


def test_what_the_activations_lack(toy: Toy) -> None:
    image = picture(1, 3, 12, 10)
    with pytest.raises(ObjectiveError, match=r"y=6, x=2 is outside of .* 6×5 \(H×W\)"):
        score(obj.neuron("second", 0, y=6), image, toy)
    with pytest.raises(ObjectiveError, match="a:2 needs the activations of a, got b; has it been"):
        obj.channel("a", 2)({"b": MAP})
    with pytest.raises(ObjectiveError, match="there is no channel 2"):
        obj.channel("a", 2)({"a": MAP})
    with pytest.raises(ObjectiveError, match=r"a gives the shape \(2,\), expected maps"):
        obj.layer("a")({"a": torch.ones(2)})
    with pytest.raises(ObjectiveError, match=r"number, \(N,\), got the shape \(\)"):
        Objective(("a",), lambda a: a["a"].mean())({"a": MAP})
    for goal in (obj.guide("a", GUIDE), obj.style("a", GUIDE), obj.logit("tabby")):
        with pytest.raises(ObjectiveError, match=r"call bound\(network\) first"):
            goal({"a": MAP, LOGITS: MAP})
    with pytest.raises(ObjectiveError, match="3 pictures with one reference or with as many"):
        score(obj.style("first", GUIDE.expand(2, -1, -1, -1)), picture(3, 3, 4, 4), toy)


def test_every_objective_is_tried() -> None:
    tried = set(itertools.chain(obj.OBJECTIVES)) - {"total_variation"}
    texts = [goal.text for goal in EXAMPLES.values()]
    seen = {text.partition("(")[0] for text in texts} | {"channel", "channels", "layer"}
    seen |= {"diversity", "interpolate"}  # of a batch together, in test_objectives_visualize.py
    assert tried <= seen
    assert obj.OBJECTIVES["total_variation"] is obj.tv
