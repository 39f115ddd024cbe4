from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phosphene import objectives as obj
from phosphene.chain import parse_chain
from phosphene.errors import ObjectiveError, SettingsError
from phosphene.objectives import (
    IMAGE,
    LOGITS,
    Objective,
    PictureRef,
    Tree,
    describe,
    negate,
    parse,
    parse_tree,
    picture_paths,
    quoted,
    unquoted,
    with_pictures,
)
from phosphene.objectives.build import build
from phosphene.objectives.text import Call, Channels, Class, Whole
from tests import toy_network

DOCS = Path(__file__).parents[1] / "docs" / "objectives.md"
LAYERS = ("mixed4b", "features.30", "inception_4c/output", "blocks.3.mlp.fc1", "odd name", "7", "_")


def activations() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    return {
        **{name: random(2, 4, 3, 5) for name in LAYERS},
        IMAGE: random(2, 3, 6, 7),
        LOGITS: random(2, 4),
    }


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("mixed4b", obj.layer("mixed4b")),
        ("features.30", obj.layer("features.30")),
        ("inception_4c/output", obj.layer("inception_4c/output")),
        ("blocks.3.mlp.fc1:0", obj.channel("blocks.3.mlp.fc1", 0)),
        ('"odd name":3', obj.channel("odd name", 3)),
        ("'7'", obj.layer("7")),
        ("_", obj.layer("_")),
        ("@image", obj.layer(IMAGE)),
        ("mixed4b:2,0", obj.channels("mixed4b", 2, 0)),
        ("2*mixed4b:2*3", 6 * obj.channel("mixed4b", 2)),
        ("mixed4b : 2 , 0 * .5", 0.5 * obj.channels("mixed4b", 2, 0)),
        ("-mixed4b", -obj.layer("mixed4b")),
        ("+mixed4b - -features.30", obj.layer("mixed4b") + obj.layer("features.30")),
        ("-2*-3*mixed4b", 6 * obj.layer("mixed4b")),
        ("mixed4b-_", obj.layer("mixed4b") - obj.layer("_")),
        ("1e-2*mixed4b + 2.5E1*_", 0.01 * obj.layer("mixed4b") + 25 * obj.layer("_")),
        ("0.5*(mixed4b + _:1)", 0.5 * obj.layer("mixed4b") + 0.5 * obj.channel("_", 1)),
        ("mixed4b - 2*(_ - tv())*3", obj.layer("mixed4b") - 6 * obj.layer("_") + 6 * obj.tv()),
        ("(2)*((_))", 2 * obj.layer("_")),
        (
            "2*mixed4b + features.30:1,2 - 0.1*tv()",
            2 * obj.layer("mixed4b") + obj.channels("features.30", 1, 2) - 0.1 * obj.tv(),
        ),
        ("\n mixed4b\n  + tv( )\n", obj.layer("mixed4b") + obj.tv()),
        ("layer(mixed4b, norm=l2)", obj.layer("mixed4b", norm="l2")),
        ("layer('odd name', margin=1, norm='sum',)", obj.layer("odd name", norm="sum", margin=1)),
        ("layer(name=_)", obj.layer("_")),
        ("channels(_, 1, 2)", obj.channels("_", 1, 2)),
        ("neuron(mixed4b, 3, x=0, y=2)", obj.neuron("mixed4b", 3, 2, 0)),
        ("neuron(mixed4b, 3, None, x=+4)", obj.neuron("mixed4b", 3, x=4)),
        ("direction(_, [1, -0.5, 2e-1, +0])", obj.direction("_", [1, -0.5, 0.2, 0])),
        ("direction(_, [1,0,0,1,], cossim_pow=2)", obj.direction("_", [1, 0, 0, 1], cossim_pow=2)),
        ("logit(3)", obj.logit(3)),
        ("total_variation() - l2()", obj.tv() - obj.l2()),
    ],
)
def test_texts(text: str, same: Objective) -> None:
    found = parse(text)
    assert found.text == same.text
    assert found.layers == same.layers
    torch.testing.assert_close(found(activations()), same(activations()))


def test_pictures_and_classes_in_texts() -> None:
    for text in (
        'guide(mixed4c, "flowers.jpg")',
        'guide(mixed4c, "C:\\new\\flowers.jpg", by="dot")',
        'style(mixed4c, "a ""quoted"" name.png")',
        'content("odd name", "it\'s.png")',
        'logit("tabby cat")',
        "logit(goldfish)",
        'guide(@image, "föhn, (2) + 3*tv().png", by="distance")',
    ):
        assert parse(text).text == text
    assert parse("guide(a, 'say ''x''.png')").text == "guide(a, \"say 'x'.png\")"
    assert parse("style(a, b.png)").text == 'style(a, "b.png")'


NAMES = st.sampled_from(LAYERS)
NUMBERS = st.integers(0, 3)
TERMS = st.one_of(
    st.builds(obj.layer, NAMES),
    st.builds(
        lambda name, norm, margin: obj.layer(name, norm=norm, margin=margin),
        NAMES,
        st.sampled_from(["mean_square", "mean", "sum", "l2", "half_sum_square"]),
        st.integers(0, 2),
    ),
    st.builds(obj.channel, NAMES, NUMBERS),
    st.builds(lambda name, some: obj.channels(name, *some), NAMES, st.lists(NUMBERS, min_size=1)),
    st.builds(
        obj.neuron, NAMES, NUMBERS, st.none() | st.integers(0, 2), st.none() | st.integers(0, 4)
    ),
    st.builds(
        lambda name, vector, power: obj.direction(name, vector, cossim_pow=power),
        NAMES,
        st.lists(st.floats(-9, 9, width=32), min_size=4, max_size=4)
        | st.just(torch.tensor([0.1, -1e-9, 3, 1e9])),
        st.sampled_from([0, 1.5]),
    ),
    st.builds(obj.logit, NUMBERS),
    st.builds(obj.tv),
    st.builds(obj.l2),
)
WEIGHTS = st.floats(-1e20, 1e20, allow_subnormal=False) | st.integers(-9, 9)
SUMS = st.recursive(
    TERMS,
    lambda inner: st.one_of(
        st.builds(lambda a, b: a + b, inner, inner),
        st.builds(lambda a, b: a - b, inner, inner),
        st.builds(lambda w, a: w * a, WEIGHTS, inner),
        st.builds(lambda a: -a, inner),
    ),
    max_leaves=8,
)


@given(SUMS)
@settings(max_examples=150, deadline=None)
def test_texts_read_back_as_the_same(objective: Objective) -> None:
    again = parse(objective.text)
    assert again.text == objective.text
    assert again.layers == objective.layers
    assert [weight for weight, _ in again.terms or ((1.0, again),)] == [
        weight for weight, _ in objective.terms or ((1.0, objective),)
    ]
    torch.testing.assert_close(again(activations()), objective(activations()), rtol=1e-12, atol=0)


@given(SUMS)
@settings(max_examples=150, deadline=None)
def test_a_tree_says_what_its_objective_says(objective: Objective) -> None:
    tree = parse_tree(objective.text)
    assert tree.text == objective.text
    assert build(tree).text == objective.text
    assert parse_tree(tree.text) == tree
    assert negate(objective.text) == (-parse(objective.text)).text
    assert parse_tree(negate(negate(objective.text))) == tree


def test_a_tree_holds_what_was_written() -> None:
    tree = parse_tree("2*(a:1,2 - guide('x y', p.png, by=dot)*3) + logits:\"tabby cat\"")
    assert tree == Tree(
        (
            (2.0, Channels("a", (1, 2))),
            (-6.0, Call("guide", ("x y", "p.png"), (("by", "dot"),))),
            (1.0, Class("logits", "tabby cat")),
        )
    )
    assert hash(tree) == hash(parse_tree(tree.text))
    assert tree.text == '2*a:1,2 - 6*guide("x y", "p.png", by="dot") + logits:"tabby cat"'
    # Only the functions know that these are defaults, and what a layer is.
    assert parse_tree("layer(a, margin=0)").text == "layer(a, margin=0)"
    assert parse("layer(a, margin=0)").text == "a"


def test_a_tree_without_a_source_says_what_is_wrong_with_it() -> None:
    for unit, message in (
        (Call("guid", ("a",)), r"objective 'guid\(a\)': there is no objective 'guid'"),
        (Call("tv", (3,)), r"objective 'tv\(3\)': too many positional"),
    ):
        with pytest.raises(ObjectiveError, match=message):
            build(Tree(((1.0, unit),)))
        with pytest.raises(ObjectiveError, match=message):
            picture_paths(Tree(((1.0, unit),)))


def test_negating() -> None:
    assert negate("2*a - .5*(tv() - b:3)") == "-2*a + 0.5*tv() - 0.5*b:3"
    assert negate("-a") == "a"
    with pytest.raises(ObjectiveError, match=r"at the end: expected a name"):
        negate("2*")


@pytest.mark.parametrize(
    ("given", "string"),
    [
        ('"a ""b"""', 'a "b"'),
        ("'a ''b'''", "a 'b'"),
        ("a", "a"),
        ("", ""),
        ('"', '"'),
        ("'a\"", "'a\""),
    ],
)
def test_quotes_are_taken_off(given: str, string: str) -> None:
    assert unquoted(given) == string
    assert unquoted(quoted(given)) == given


@given(st.text() | st.text("ab:*+-(),.=[]\"' 12e@/"))
@settings(max_examples=200, deadline=None)
def test_any_text_is_an_objective_or_an_error_in_one_line(text: str) -> None:
    try:
        found = parse(text)
    except ObjectiveError as error:
        said = str(error)
    else:
        said = found.text
        assert parse(said).text == said
    assert len(said.splitlines()) <= 1 or '"' in said  # a quoted name may hold anything


@given(st.text(min_size=1))
@settings(max_examples=100, deadline=None)
def test_any_name_reads_back(name: str) -> None:
    assert parse(obj.layer(name).text).layers == (name,)
    assert parse(obj.channel(name, 7).text).text == obj.channel(name, 7).text
    goal = obj.content("a", name) + obj.logit(name)
    assert parse(goal.text).text == goal.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the objective is empty; expected a text such as 2*mixed4b + mixed4d:42"),
        (" \n", "the objective is empty"),
        ("2*", 'at the end: expected a name, a quoted name, a number, "(", "+" or "-"'),
        ("a + * b", "at character 5, near '* b': expected a name, a quoted name, a number"),
        ("tv(", 'at the end: expected a name, a quoted name, a number, ")", "[", "+" or "-"'),
        ("(a", 'at the end: expected ")"'),
        ("a + b)", 'at character 6, near \')\': there is no "(" to this ")"'),
        ("a b", 'at character 3, near \'b\': expected "(", "+", "-", "*", ":" or the end'),
        ("a ? b", "at character 3, near '? b': '?' means nothing here"),
        ("a + 'b", 'at character 5, near "\'b": this quote is not closed'),
        ("-3", "near '3': the number -3 stands alone; a number weighs an objective"),
        ("a + 2*3", "at character 5, near '2*3': the number 6 stands alone"),
        ("c + a*b", "cannot read the objective 'c + a*b': a times b: only a number can weigh"),
        ("1e999*a", "at character 1, near '1e999*a': 1e999 is too large a number"),
        ("1e300*1e300*a", "the weight of a must be finite, got inf"),
        ("a:", "at the end: expected a name, a quoted name or a number"),
        ("a:-1", "at character 3, near '-1': expected a name, a quoted name or a number"),
        ("a:1,2.5", "at character 5, near '2.5': a channel is a whole number, not 2.5"),
        ("a:" + "9" * 5000, "is too large a number"),
        (
            "a + guid(b)",
            "at character 5, near 'guid(b)': there is no objective 'guid'; the closest",
        ),
        (
            "guide(a)",
            "missing a required argument: 'image'; it is guide(layer, image, by=\"match\")",
        ),
        ("tv(3)", "too many positional arguments; it is tv()"),
        ("layer(a, nrom=l2)", 'it is layer(name, norm="mean_square", margin=0)'),
        ("layer(a, norm=l3)", "norm must be one of mean_square, mean, sum, l2, half_sum_square"),
        ("layer(norm=l2, a)", "layer: arguments without a name come first"),
        ("2*layer(a, margin=1, margin=2)", "at character 22, near 'margin=2)': layer: margin is"),
        ("channel(a, b)", "channel must be a whole number, got 'b'"),
        ("layer(3)", "layer"),
        ("direction(a, [1, [2]])", "the direction must be"),
        ("direction(a, 1", 'at the end: expected ")" or ","'),
        ("direction(a, [1], cossim_pow=big)", "it is direction(layer, vector, cossim_pow=0.0)"),
        ("style(a, 3)", "a reference picture must be a tensor or a path, got int"),
        ("x" * 300 + " ? " + "y" * 300, "at character 302"),
    ],
)
def test_errors(text: str, message: str) -> None:
    with pytest.raises(ObjectiveError) as error:
        parse(text)
    said = str(error.value)
    assert message in said
    assert "\n" not in said
    assert len(said) < 400
    assert not text.strip() or len(text) > 100 or f"{text!r}" in said or "finite" in said


def test_deep_parentheses() -> None:
    assert parse("(" * 50 + "a" + ")" * 50).text == "a"
    assert len(parse(" + ".join(f"{i}*a:{i}" for i in range(1500))).terms) == 1500


def test_own_objectives_are_found_by_name() -> None:
    @obj.objective
    def peak(layer: str, power: float = 1, *, on: bool = False) -> Objective:
        """The largest activation."""
        return Objective((layer,), lambda a: a[layer].flatten(1).amax(1) ** power)

    try:
        assert parse("2*peak(a, power=2, on=true)").text == "2*peak(a, power=2, on=true)"
        assert parse("peak(a, 2, on=False)").text == "peak(a, power=2)"
        assert ("peak", "peak(layer, power=1, on=false)", "The largest activation.") in describe()
    finally:
        del obj.OBJECTIVES["peak"]
    with pytest.raises(ObjectiveError, match="there is no objective 'peak'"):
        parse("peak(a)")


def test_describe() -> None:
    rows = {name: (signature, line) for name, signature, line in describe()}
    assert set(rows) == set(obj.OBJECTIVES)
    assert rows["tv"][0] == "tv()"
    assert rows["neuron"][0] == "neuron(layer, index, y=none, x=none)"
    assert rows["channels"][0] == "channels(layer, *indices)"
    assert all(line.endswith(".") for _, line in rows.values())


def loaded(code: str, *names: str) -> str:
    """Which of `names` a fresh process has imported after `code`."""
    code = f"import sys; {code}; print([name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_is_light() -> None:
    code = "from phosphene.objectives import parse"
    assert loaded(code, "torchvision", "lark", "PIL") == "[]"


def test_texts_are_read_without_torch() -> None:
    code = (
        "import phosphene.objectives.text as text; "
        "tree = text.parse_tree('2*guide(a, b.png) - a:1'); "
        "assert tree.text == '2*guide(a, \"b.png\") - a:1'; "
        "from phosphene.objectives import IMAGE, negate, quoted; assert negate('a') == '-a'"
    )
    assert loaded(code, "torch", "numpy") == "[]"


@pytest.mark.slow
def test_the_objectives_are_there_when_first_asked_for() -> None:
    for code in (
        "from phosphene.objectives import OBJECTIVES",
        "import phosphene; OBJECTIVES = phosphene.objectives.OBJECTIVES",
        "from phosphene.objectives.build import OBJECTIVES",
    ):
        assert loaded(f"{code}; assert len(OBJECTIVES) == {len(obj.OBJECTIVES)}") == "[]"
    own = (
        "from phosphene.objectives import Objective, objective\n"
        "@objective\n"
        "def tv() -> Objective: ..."
    )
    with pytest.raises(subprocess.CalledProcessError) as error:
        loaded(f"exec({own!r})")
    message = "there is an objective 'tv' already, from phosphene.objectives.units"
    assert message in error.value.stderr


# The page on objectives


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOCS.read_text("utf-8"), re.S | re.M)


def test_the_texts_of_the_page_are_canonical() -> None:
    lines = [line for block in blocks("text") for line in block.splitlines()]
    assert len(lines) > 15
    for line in lines:
        assert parse(line).text == line
    for name in obj.OBJECTIVES:
        assert f"`{name}" in DOCS.read_text("utf-8")


def test_the_python_of_the_page_runs() -> None:
    known = dict(obj.OBJECTIVES)
    space: dict[str, object] = {"flowers": torch.rand(1, 3, 8, 8)}
    try:
        for block in blocks("python"):
            exec(compile(block, str(DOCS), "exec"), space)
        own = set(obj.OBJECTIVES) - set(known)
        assert own
        for name in own:
            goal = parse(f"2*{name}(a)")
            (low, high) = goal(
                {"a": torch.stack([torch.zeros(2, 3, 3), torch.eye(3).expand(2, 3, 3)])}
            )
            assert high > low
    finally:
        obj.OBJECTIVES.clear()
        obj.OBJECTIVES.update(known)


def test_a_class_by_its_name_behind_the_layer_of_the_logits() -> None:
    net = toy_network.net()
    activations = {"logits": torch.tensor([[1.0, 2.0, 3.0]])}
    for text, value in (("logits:dog", 2.0), ("logits:'tabby cat'", 3.0), ("logits:Tabby_cat", 3)):
        goal = parse(text)
        assert parse(goal.text).text == goal.text
        assert goal.bound(net).layers == ("logits",)
        assert float(goal.bound(net)(activations)) == value
    with pytest.raises(ObjectiveError, match=r"only logits of toy has classes.*second has.*0 to 7"):
        parse("second:dog").bound(net)
    with pytest.raises(ObjectiveError, match="toy has no class 'dgo'; the closest are dog"):
        parse("logits:dgo").bound(net)


# The pictures that a text names


def test_pictures_are_found_wherever_an_objective_takes_one() -> None:
    text = (
        'guide(second, "a, b.png", by="dot") + 2*style("first", image="c]\\d.png") '
        '- content(first, "a, b.png") + guide(second, "say ""hi"".png") + "second" + first:0'
    )
    assert picture_paths(parse(text)) == ["a, b.png", "c]\\d.png", 'say "hi".png']
    assert picture_paths(parse('logit("tabby cat") + direction(first, [1, 2]) - tv()')) == []
    assert picture_paths(parse("second")) == []


@settings(deadline=None)
@given(st.text(min_size=1), st.text(min_size=1))
def test_any_name_of_a_picture_can_be_told_and_replaced(old: str, new: str) -> None:
    objective = parse(f"2*second + guide(second, {quoted(old)}) - style(first, {quoted(old)})")
    assert picture_paths(objective) == [old]
    renamed = parse(with_pictures(objective.text, {old: new}))
    assert picture_paths(renamed) == [new]
    assert with_pictures(renamed.text, {new: old}) == objective.text


@pytest.fixture
def registry() -> Iterator[None]:
    known = dict(obj.OBJECTIVES)
    yield
    obj.OBJECTIVES.clear()
    obj.OBJECTIVES.update(known)


def scoring(layer: str) -> Objective:
    return Objective((layer,), lambda a: a[layer].flatten(1).mean(1))


OtherName = PictureRef


@pytest.mark.usefixtures("registry")
def test_pictures_are_known_by_their_type_and_not_by_its_spelling() -> None:
    @obj.objective
    def like(image: OtherName, layer: str = "a") -> Objective:
        return scoring(layer)

    @obj.objective
    def between(layer: str, *images: PictureRef, other: PictureRef | None = None) -> Objective:
        return scoring(layer)

    @obj.objective
    def all_of(images: list[PictureRef], **more: Annotated[str, "Picture"]) -> Objective:
        return scoring("a")

    goal = parse(
        "like(b/p.png, q.png) + 2*between(r.png, 's/t.png', u, other='v w.png') "
        "+ all_of([x, 'y.png', x], z='z.png') - like(image='b/p.png')"
    )
    paths = ["b/p.png", "s/t.png", "u", "v w.png", "x", "y.png"]
    assert picture_paths(goal) == picture_paths(parse_tree(goal.text)) == paths
    bare = {path: f"n{k}.png" for k, path in enumerate(paths)}
    assert with_pictures(goal.text, bare) == (
        'like(n0.png, layer="q.png") + 2*between(r.png, "n1.png", "n2.png", other="n3.png") '
        '+ all_of(["n4.png", "n5.png", "n4.png"], z="z.png") - like(n0.png)'
    )
    assert with_pictures(parse_tree(goal.text), bare) == with_pictures(goal.text, bare)
    # A layer that is called as a picture stays.
    assert with_pictures('guide("p", "p") + "p"', {"p": "q"}) == 'guide(p, "q") + p'


@pytest.mark.usefixtures("registry")
def test_a_path_that_no_recipe_would_know_of_is_refused() -> None:
    def tensor_or_path(layer: str, image: torch.Tensor | str) -> Objective:
        return scoring(layer)

    def optional(
        layer: str, image: torch.Tensor | str | os.PathLike[str] | None = None
    ) -> Objective:
        return scoring(layer)

    def path(layer: str, image: Path) -> Objective:
        return scoring(layer)

    def several(layer: str, images: list[str | Path]) -> Objective:
        return scoring(layer)

    def unknown(layer: str, image: Missing.Tensor | str) -> Objective:  # noqa: F821 # pyright: ignore
        return scoring(layer)

    for function in (tensor_or_path, optional, path, several, unknown):
        with pytest.raises(ObjectiveError, match=rf"{function.__name__}: the parameter 'images?'"):
            obj.objective(function)  # pyright: ignore[reportArgumentType]
        assert function.__name__ not in obj.OBJECTIVES
        obj.OBJECTIVES[function.__name__] = function  # nor by the back door
        with pytest.raises(ObjectiveError, match=r"annotated as phosphene.objectives.PictureRef"):
            with_pictures(f'{function.__name__}(a, "b/c.png")', {"b/c.png": "c.png"})

    @obj.objective
    def vector(layer: str, by: torch.Tensor | list[float], how: str = "x") -> Objective:
        return scoring(layer)

    assert picture_paths(parse('vector(a, [1, 2], how="y.png")')) == []
    Hidden = PictureRef
    with pytest.raises(ObjectiveError, match="'Hidden' of 'image' names what is not there"):

        @obj.objective
        def hiding(layer: str, image: Hidden) -> Objective:
            return scoring(layer)


@pytest.mark.usefixtures("registry")
def test_a_text_of_its_own_names_the_pictures() -> None:
    @obj.objective
    def hidden(layer: str, image: PictureRef) -> Objective:
        return replace(scoring(layer), text=f"hidden of {image}")

    @obj.objective
    def twice(layer: str, image: PictureRef) -> Objective:
        return 2 * obj.guide(layer, image)

    with pytest.raises(ObjectiveError, match=r"given the picture 'b/c.png', which its text"):
        parse('hidden(a, "b/c.png")')
    assert picture_paths(parse('3*twice(a, "b/c.png")')) == ["b/c.png"]
    # What cannot be read names no picture; nothing of it can be renamed either.
    own = replace(scoring("a"), text="the mean of (a")
    assert picture_paths(own) == []
    assert with_pictures(own.text, {"b.png": "c.png"}) == own.text
    assert picture_paths(obj.guide("a", torch.zeros(1, 3, 4, 4))) == []
    with pytest.raises(ObjectiveError, match="cannot read the objective"):
        with_pictures('guide(a, "b.png") + the mean of a', {"b.png": "c.png"})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("(a+" * 5_000 + "a" + ")" * 5_000, "at character 151, near '(a+(a+(a+(a+': brackets nest"),
        ("(" * 100_000, "brackets nest 50 deep at most"),
        (f"f({'[' * 5_000}{']' * 5_000})", "brackets nest 50 deep at most"),
        ("-" * 20_000 + "a", "4000 of +, - and * are the most"),
        ("(a" + "+a" * 2_500 + ")" + "*2" * 2_500, "4000 of +, - and * are the most"),
        ("a:" + "1," * 200_000 + "1", "it has 400003 characters; 250000 are the most"),
        (f"tv({'x' * 300_000})", "are the most"),
    ],
)
@pytest.mark.parametrize("read", [parse_tree, lambda text: parse_chain(text, "transform")])
def test_texts_that_would_take_long_are_refused_in_a_line(
    read: Callable[[str], object], text: str, told: str
) -> None:
    with pytest.raises((ObjectiveError, SettingsError)) as caught:
        read(text)
    message = str(caught.value)
    assert told in message
    assert "\n" not in message
    assert len(message) < 400


def test_what_is_long_and_makes_sense_is_read() -> None:
    numbers = [-(0.1 + k / 7) for k in range(8192)]
    listed = ", ".join(map(repr, numbers))
    call = parse_tree(f"direction(a, [{listed}])").terms[0][1]
    assert isinstance(call, Call)
    assert call.arguments[1] == tuple(numbers)
    marks = '((+-*[["' * 300  # within quotes they are letters
    quoted = marks.replace('"', '""')
    assert parse_tree(f'"{quoted}"').terms == ((1.0, Whole(marks)),)
    assert len(parse_tree("+".join(["a"] * 4_001)).terms) == 4_001
