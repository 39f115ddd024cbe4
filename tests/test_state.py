"""Going on from a step's state: the same to the bit as if nobody had stopped."""

import json

import pytest
import torch

import phosphene as ph
from phosphene.engine import Ascent, ascend
from phosphene.errors import ImageError, NonFiniteError, StateError
from phosphene.evaluation.adaptive import AdaptiveEvaluation
from phosphene.parameterization import Fourier, MaCo, Pixels
from phosphene.state import State, optimiser_tensors, restore_module, restore_optimiser
from tests import toy_network


def written(state: State, tmp_path) -> State:
    """The state as another process reads it."""
    path = tmp_path / "state.safetensors"
    state.save(path)
    return State.load(path)


@pytest.fixture(scope="module")
def net():
    return ph.load_network()


@pytest.fixture(scope="module")
def photo():
    return ph.draw_sky(72, 96, seed=3)


def resumed_everywhere(steps, tmp_path, every: int = 1) -> None:
    """Whatever step's state a run goes on from, it goes through the same steps to the same end."""
    whole = [(s.octave, s.index, s.picture(), s.score) for s in steps(None)]
    states = [s.state() for s in steps(None)]
    for k in range(0, len(whole), every):
        rest = list(steps(written(states[k], tmp_path)))
        last = k == len(whole) - 1
        expected = whole[k:] if last else whole[k + 1 :]
        assert [(s.octave, s.index) for s in rest] == [(o, i) for o, i, *_ in expected]
        for step, (_, _, picture, score) in zip(rest, expected, strict=True):
            assert torch.equal(step.picture(), picture)
            assert torch.equal(step.score, score)


# Dreams -------------------------------------------------------------------------------------------


DREAMS = {
    "plain": {},
    "fp64": {"precision": "fp64"},
    "after": {"preset": "keras", "octaves": 3, "step_size": 0.01},
    "network units": {"preset": "torchvision", "octaves": 3, "steps": 2},
    "tiles": {"tile": 48, "octaves": 3},
    "stopped": {"stop_above": 0.4, "octaves": 3},
    "chain": {"octave_rounding": "chain", "clamp": "always", "resampling": "bilinear"},
}


@pytest.mark.parametrize("settings", DREAMS.values(), ids=DREAMS)
def test_a_dream_goes_on_from_any_step(net, photo, settings, tmp_path):
    given = {"octaves": 3, "steps": 2, "precision": "fp32"} | settings
    resumed_everywhere(
        lambda state: ph.dream.steps(photo, net, "mixed4a", state=state, **given), tmp_path
    )


def test_a_dream_with_a_mask_goes_on(net, photo, tmp_path):
    mask = torch.linspace(0, 1, 96).expand(1, 1, 72, 96)
    resumed_everywhere(
        lambda state: ph.dream.steps(
            photo, net, "mixed4a", mask=mask, state=state, octaves=2, steps=2
        ),
        tmp_path,
    )


def test_the_public_function_goes_on_too(net, photo, tmp_path):
    whole = ph.dream(photo, net, "mixed4a", octaves=2, steps=2)
    steps = ph.dream.steps(photo, net, "mixed4a", octaves=2, steps=2)
    state = written(next(steps).state(), tmp_path)
    assert torch.equal(ph.dream(photo, net, "mixed4a", octaves=2, steps=2, state=state), whole)


def test_tiles_stay_as_memory_made_them(net):
    """A run that goes on cuts as the one before was made to, and not as is planned now."""
    goal = ph.parse("mixed4a").bound(net)
    sizes = [(64, 64), (96, 128)]
    before = AdaptiveEvaluation(net, goal, sizes)
    assert [before.tile(size) for size in sizes] == [None, None]
    before._halved[96, 128] = 64
    cut = json.loads(json.dumps(before.cut()))
    after = AdaptiveEvaluation(net, goal, sizes, tile="off", cut=cut)
    assert [after.tile(size) for size in sizes] == [before.tile(size) for size in sizes]
    assert after.tile((96, 128)) == 64
    planned = {"planned": [[64, 64, 32], [96, 128, 48]], "halved": []}
    assert AdaptiveEvaluation(net, goal, sizes, cut=planned).tile((64, 64)) == 32


def test_a_state_of_a_dream_that_is_past_is_still_that_of_its_step(net, photo, tmp_path):
    """Plain ascent changes nothing in place, so Ctrl-C in the middle of a step loses nothing."""
    kept = list(ph.dream.steps(photo, net, "mixed4a", octaves=2, steps=3))
    picture = ph.dream(
        photo, net, "mixed4a", octaves=2, steps=3, state=written(kept[1].state(), tmp_path)
    )
    assert torch.equal(picture, kept[-1].picture())


# Drawings -----------------------------------------------------------------------------------------


DRAWINGS = {
    "fourier": {"objective": "mixed4a:3"},
    "several": {"objective": ["mixed4a:3", "mixed3a:1"], "batch": 2},
    "maco, nadam": {"objective": "mixed4a:3", "parameterization": "maco", "optimiser": "nadam"},
    "maco": {"objective": "mixed4a:3", "parameterization": "maco"},
    "pixels, fp64": {
        "objective": "mixed4a:3",
        "parameterization": "pixels",
        "precision": "fp64",
        "optimiser": "nadam",
    },
}


@pytest.mark.parametrize("settings", DRAWINGS.values(), ids=DRAWINGS)
def test_a_drawing_goes_on_from_any_step(net, settings, tmp_path):
    given = {"steps": 5, "size": 48, "precision": "fp32"} | settings
    resumed_everywhere(lambda state: ph.visualize.steps(net, state=state, **given), tmp_path)


def test_where_the_network_cared_goes_on_too(net, tmp_path):
    given = {"steps": 4, "size": 48, "parameterization": "maco"}
    *_, whole = ph.visualize.steps(net, "mixed4a:3", **given)
    steps = ph.visualize.steps(net, "mixed4a:3", **given)
    next(steps)
    state = written(next(steps).state(), tmp_path)
    *_, rest = ph.visualize.steps(net, "mixed4a:3", state=state, **given)
    now, then = rest.transparency(), whole.transparency()
    assert now is not None
    assert then is not None
    assert torch.equal(now, then)


@pytest.mark.filterwarnings("ignore:relu.0 gives no gradient at the start")
def test_a_unit_that_was_helped_goes_on(tmp_path):
    net, seen = toy_network.sleeping(), []

    def steps(state):
        given = {"steps": 24, "size": 16, "precision": "fp32"}
        for step in ph.visualize.steps(net, ["relu:0", "relu:1"], state=state, **given):
            if state is None:
                seen.append(step.dead.tolist())
            yield step

    resumed_everywhere(steps, tmp_path, every=3)
    assert seen[0] == [True, False]  # helped over its first steps
    assert seen[-1] == [False, False]


def test_a_state_of_a_drawing_can_be_had_until_the_next_step(net):
    steps = ph.visualize.steps(net, "mixed4a:3", steps=3, size=32)
    first = next(steps)
    first.state()
    next(steps)
    with pytest.raises(StateError, match="past"):
        first.state()


@pytest.mark.slow
def test_recipes_built_on_drawings_go_on(net, photo, tmp_path):
    for recipe, given in (
        (ph.caricature, {"photo": photo, "layer": "mixed4a"}),
        (ph.invert, {"photo": photo, "layer": "mixed4a"}),
        (ph.accentuate, {"photo": photo, "objective": "mixed4a:3"}),
        (ph.style, {"photo": photo, "painting": photo.flip(-1)}),
    ):
        resumed_everywhere(
            lambda state, recipe=recipe, given=given: recipe.steps(
                network=net, steps=3, size=48, state=state, **given
            ),
            tmp_path,
        )


# The engine ---------------------------------------------------------------------------------------


def test_the_last_good_picture_goes_on_too():
    """If the first step after going on leaves the numbers, the picture is the same one as then."""

    def ascent(state):
        pixels = Pixels(torch.full((1, 3, 2, 2), 0.5))

        def evaluate(image):
            score = image.sum().reshape(1)
            return (score if float(image.max()) < 0.75 else score / 0), torch.ones_like(image)

        return ascend(
            pixels,
            evaluate,
            Ascent(pixels.parameters(), 0.125),
            steps=9,
            generator=torch.Generator(),
            state=state,
        )

    def lost(state):
        states = []
        with pytest.raises(NonFiniteError) as error:
            states.extend(step.state() for step in ascent(state))
        assert error.value.image is not None
        return states, error.value.image

    states, image = lost(None)
    assert len(states) == 2
    assert torch.equal(image, torch.full((1, 3, 2, 2), 0.625))
    again, same = lost(states[-1])
    assert not again
    assert torch.equal(same, image)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.NAdam])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_optimiser_comes_back_with_its_own_dtypes(kind, dtype):
    def optimiser(value):
        return kind([torch.nn.Parameter(value.clone())], 0.1, maximize=True)

    def stepped(one, count):
        (parameter,) = one.param_groups[0]["params"]
        for k in range(count):
            parameter.grad = torch.sin(parameter.detach() * (k + 1))
            one.step()
        return parameter.detach()

    start = torch.linspace(-1, 1, 7, dtype=dtype)
    one = optimiser(start)
    stepped(one, 3)
    middle = one.param_groups[0]["params"][0].detach()
    other = optimiser(middle)
    tensors = {name: tensor.clone() for name, tensor in optimiser_tensors(one).items()}
    restore_optimiser(other, tensors)
    assert {k: v.dtype for k, v in optimiser_tensors(other).items()} == {
        k: v.dtype for k, v in tensors.items()
    }
    assert torch.equal(stepped(one, 3), stepped(other, 3))


@pytest.mark.parametrize("of", [Fourier, MaCo])
def test_a_parameterization_comes_back(of, tmp_path):
    one = of((33, 32), generator=torch.Generator().manual_seed(1))
    one().square().sum().backward()
    tensors = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    other = of((33, 32), generator=torch.Generator().manual_seed(2))
    assert not torch.equal(one(), other())
    restore_module(other, tensors)
    assert torch.equal(one(), other())


# Files --------------------------------------------------------------------------------------------


def test_a_file_gives_back_every_dtype_and_value(tmp_path):
    tensors = {
        "a.b": torch.linspace(0, 1, 5, dtype=torch.float64),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(3.5),
        "bytes": torch.Generator().get_state(),
        "view": torch.arange(12.0).reshape(3, 4).T,
        "part": torch.arange(12.0)[3:7],
        "nothing": torch.zeros(0, 3),
    }
    values = {"octave": 3, "last": False, "cut": {"planned": [[1, 2, None]]}, "é": None}
    state = State(tensors, values)
    state.save(tmp_path / "x", {"key": "k"})
    found, about = State.read(tmp_path / "x")
    assert about == {"key": "k"}
    assert found.values == values
    assert set(found.tensors) == set(tensors)
    for name, tensor in tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)
    assert found.part("a").keys() == {"b"}
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_two_names_of_one_tensor_are_saved_as_two(tmp_path):
    same = torch.ones(3)
    State({"a": same, "b": same}).save(tmp_path / "x")
    assert set(State.load(tmp_path / "x").tensors) == {"a", "b"}


def test_a_damaged_file_is_said_to_be(tmp_path):
    path = tmp_path / "x"
    State({"a": torch.arange(100.0)}).save(path)
    whole = path.read_bytes()
    for damaged in (
        b"",
        b"not a state at all",
        whole[:-1],
        whole[: len(whole) // 2],
        whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:],
        b"\xff" * 8 + whole[8:],
        whole + b"more",
    ):
        path.write_bytes(damaged)
        with pytest.raises(StateError) as error:
            State.load(path)
        assert "\n" not in str(error.value)
        assert repr(str(path)) in str(error.value)
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(StateError, match=r"is not there|is a folder"):
            State.load(missing)


def test_a_newer_file_is_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr("phosphene.state.FORMAT", 2)
    State({}).save(tmp_path / "x")
    monkeypatch.undo()
    with pytest.raises(StateError, match="newer"):
        State.load(tmp_path / "x")


def test_a_file_that_cannot_be_written_leaves_what_was_there(tmp_path):
    with pytest.raises(ImageError, match="cannot write"):
        State({}).save(tmp_path / "nowhere" / "x")


def test_a_state_of_something_else_is_refused(net, photo):
    state = next(ph.dream.steps(photo, net, "mixed4a", octaves=2, steps=2)).state()
    with pytest.raises(StateError, match="does not fit"):
        ph.dream(photo[..., :90], net, "mixed4a", octaves=2, steps=2, state=state)
    with pytest.raises(StateError):
        ph.visualize(net, "mixed4a:3", steps=2, size=32, state=state)
    with pytest.raises(StateError, match="of octave 2, and there are 1"):
        ph.dream(photo, net, "mixed4a", octaves=1, steps=2, state=state.with_(octave=1))
