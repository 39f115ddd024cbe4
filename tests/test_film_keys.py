"""Keyframes: what is read, the values in between, and every way of getting it wrong."""

from __future__ import annotations

import ast
import math
import re
import subprocess
import sys
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import Field

from phosphene import objectives as obj
from phosphene.errors import ImageError, ObjectiveError, SettingsError
from phosphene.explain import pages
from phosphene.explain.key_page import key_page, nice_ticks, plot_keys
from phosphene.films.expressions import (
    CONSTANTS,
    FUNCTIONS,
    MOST_NODES,
    NAMES,
    OF_SEVERAL,
    Expression,
    Node,
    constant,
    parse_expression,
)
from phosphene.films.keys import (
    EASINGS,
    MOST_FRAMES,
    Bounds,
    Key,
    KeyFrame,
    Keys,
    parse_key,
    parse_time,
    split_weights,
    weight_bounds,
)
from phosphene.films.times import END, START, Time, frame_times
from phosphene.objectives import with_weights
from phosphene.settings import KeyTexts, Settings, animatable, checked, with_values
from tests import toy_network

RATE, LENGTH = Fraction(30), Fraction(10)
NTSC = Fraction(30000, 1001)
FREE = {"zoom": Bounds()}


def at(text: str, time: float | Fraction) -> float:
    """The value of a key on ten seconds at 30 frames a second."""
    return Keys([f"zoom = {text}"]).at(Fraction(time), rate=RATE, duration=LENGTH)["zoom"]


def check(
    *texts: str,
    names: Mapping[str, Bounds] = FREE,
    rate: Fraction | None = RATE,
    duration: Fraction | None = LENGTH,
) -> None:
    Keys(texts).check(names, rate=rate, duration=duration)


def error_of(*texts: str, **film: Any) -> str:
    """What is said of keys that are wrong: one line."""
    with pytest.raises(SettingsError) as caught:
        check(*texts, **film)
    said = str(caught.value)
    assert len(said.splitlines()) == 1
    assert len(said) < 400
    return said


# Times


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("12.5", Fraction(25, 2)),
        (" .5 s ", Fraction(1, 2)),
        ("0.1s", Fraction(1, 10)),
        ("250f", Fraction(250) / NTSC),
        ("30000f", 1001),
        ("50%", 50),
        ("0%", 0),
        ("100%", 100),
        ("33.3%", Fraction(333, 10)),
        ("1:02.5", Fraction(125, 2)),
        ("0:00", 0),
        ("90:00", 5400),
        ("1:02:03.25", Fraction(372325, 100)),
        ("end", 100),
    ],
)
def test_times_are_exact(text: str, seconds: Fraction) -> None:
    assert parse_time(text, rate=NTSC, duration=Fraction(100)) == seconds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot read the time '': expected a time such as 10s, 250f, 50%, 1:02.5 or end"),
        ("-1s", "cannot read the time '-1s': expected a time such as"),
        ("1e3s", "expected a time such as"),
        ("10m", "expected a time such as"),
        ("1:2", "expected a time such as"),
        ("١s", "expected a time such as"),
        ("nan", "expected a time such as"),
        ("1:60", "seconds, and minutes after hours, are less than 60"),
        ("1:60:00", "seconds, and minutes after hours, are less than 60"),
        ("100.5%", "100% is the end"),
        ("9" * 5000, "a time has at most 24 characters"),
    ],
)
def test_what_is_no_time(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)) as caught:
        parse_time(text, rate=NTSC, duration=Fraction(100))
    assert len(str(caught.value)) < 200


def test_what_a_time_needs_to_know() -> None:
    for text in ("50%", "end"):
        with pytest.raises(SettingsError, match=f"{text}: the length of the film is not known"):
            parse_time(text, rate=NTSC, duration=None)
    with pytest.raises(SettingsError, match="10f: the film has no constant frame rate"):
        parse_time("10f", rate=None, duration=Fraction(100))
    assert parse_time("4s", rate=None, duration=None) == 4


def test_the_times_of_frames() -> None:
    assert list(frame_times(Fraction(2), Fraction(2))) == [0, 0.5, 1, 1.5]
    assert list(frame_times(Fraction(2), Fraction(9, 4))) == [0, 0.5, 1, 1.5, 2]
    times = list(frame_times(NTSC, 300 / NTSC))
    assert (len(times), times[-1]) == (300, Fraction(299 * 1001, 30000))


# Values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.5", 1.5),
        ("1e-2 + 2.5E1", 25.01),
        ("2 - 3 - 4", -5),
        ("8/4/2", 1),
        ("2^3^2", 512),
        ("2**3**2", 512),
        ("-2^2", -4),
        ("(-2)^2", 4),
        ("2^-1", 0.5),
        ("2*-3", -6),
        ("--+2", 2),
        ("-t^2*3", -27),
        ("1 + 2*t", 7),
        ("f + p", 90.3),
        ("pi", math.pi),
        ("e", math.e),
        ("sin(pi/2) + cos(0)", 2),
        ("tan(0.5)", math.tan(0.5)),
        ("sqrt(16) + abs(-3) + exp(0) + log(e)", 9),
        ("floor(-1.5)", -2),
        ("min(3, t, 7) + max(1, 2)", 5),
        ("1.6 + .2*sin(2*pi*t)", 1.6 + 0.2 * math.sin(6 * math.pi)),
    ],
)
def test_expressions(text: str, value: float) -> None:
    found = parse_expression(text).value({"t": 3.0, "f": 90.0, "p": 0.3})
    assert found == pytest.approx(value, rel=1e-15)


def node_lists(nodes: st.SearchStrategy[tuple[Node, ...]]) -> st.SearchStrategy[tuple[Node, ...]]:
    """Larger expressions of smaller ones."""
    one = st.sampled_from(["negative", *(name for name in FUNCTIONS if name not in OF_SEVERAL)])
    return (
        st.builds(lambda a, name: (*a, (name, 1)), nodes, one)
        | st.builds(lambda a, b, sign: (*a, *b, (sign, 2)), nodes, nodes, st.sampled_from("+-*/^"))
        | st.builds(
            lambda parts, name: (*(node for part in parts for node in part), (name, len(parts))),
            st.lists(nodes, min_size=2, max_size=3),
            st.sampled_from(OF_SEVERAL),
        )
    )


NUMBERS = st.floats(0, allow_nan=False, allow_infinity=False)
LEAVES = NUMBERS.map(abs).map(lambda number: (number,)) | st.sampled_from(
    [((name, 0),) for name in (*NAMES, *CONSTANTS)]
)
EXPRESSIONS = (
    st.recursive(LEAVES, node_lists, max_leaves=12)
    .filter(lambda nodes: len(nodes) <= MOST_NODES)
    .map(Expression)
)


def python_value(expression: Expression, names: Mapping[str, float]) -> float | None:
    """What Python's own parser and arithmetic make of the text: the oracle. None if not finite."""
    calculated = {name: value for name, value in FUNCTIONS.items() if name not in ("abs", "floor")}
    known = {**calculated, "abs": math.fabs, "floor": math.floor, **CONSTANTS, **names}
    tree = ast.parse(expression.text.replace("^", "**"), mode="eval")

    def value(node: Any) -> float:
        match node:
            case ast.Expression(body=body):
                result = value(body)
            case ast.Constant(value=int() | float() as number):
                result = float(number)
            case ast.Name(id=name):
                result = known[name]
            case ast.UnaryOp(operand=operand):
                result = -value(operand)
            case ast.BinOp(left=left, op=op, right=right):
                a, b = value(left), value(right)
                match op:
                    case ast.Add():
                        result = a + b
                    case ast.Sub():
                        result = a - b
                    case ast.Mult():
                        result = a * b
                    case ast.Div():
                        result = a / b
                    case _:
                        result = a**b
            case ast.Call(func=ast.Name(id=name), args=arguments):
                result = known[name](*map(value, arguments))
            case _:
                raise AssertionError(ast.dump(node))
        if isinstance(result, complex) or not math.isfinite(result):
            raise OverflowError
        return float(result)

    try:
        return value(tree)
    except (ArithmeticError, ValueError):
        return None


@given(EXPRESSIONS, st.floats(0, 100))
@settings(max_examples=300, deadline=None)
def test_expressions_are_what_python_makes_of_them(expression: Expression, t: float) -> None:
    names = {"t": t, "f": 30 * t, "p": t / 100}
    expected = python_value(expression, names)
    if expected is None:
        with pytest.raises(ArithmeticError):
            expression.value(names)
    else:
        assert expression.value(names) == expected


@given(EXPRESSIONS)
@settings(max_examples=300, deadline=None)
def test_expressions_read_back(expression: Expression) -> None:
    assert parse_expression(expression.text) == expression


def test_constants() -> None:
    for value in (0.0, 1.5, -1.5, 1e300):
        assert constant(value).value({}) == value
        assert parse_expression(constant(value).text) == constant(value)


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("1/0", "1/0"),
        ("9**9**9", "9^3.8742e+08"),
        ("1/(t - 2)", "1/0"),
        ("1/(1e308*10)", "1e+308*10"),  # not 0: nothing on the way is infinite either
        ("sqrt(-1)", "sqrt(-1)"),
        ("log(0)", "log(0)"),
        ("exp(1000)", "exp(1000)"),
        ("(-1)^.5", "(-1)^0.5"),
        ("0^-1", "0^-1"),
        ("max(1, 1e308 + 1e308)", "1e+308 + 1e+308"),
        ("-1e308 - 1e308", "-1e+308 - 1e+308"),
    ],
)
def test_what_is_not_finite(text: str, step: str) -> None:
    with pytest.raises(ArithmeticError) as caught:
        parse_expression(text).value({"t": 2.0, "f": 60.0, "p": 0.2})
    assert str(caught.value) == step


# Keys


TIMES = st.one_of(
    st.builds(
        lambda amount, unit: Time(amount, unit),
        st.decimals(0, 10**6, places=4),
        st.sampled_from(["s", "f"]),
    ),
    st.builds(lambda amount: Time(amount, "%"), st.decimals(0, 100, places=2)),
    st.just(END),
)
FRAMES = st.builds(KeyFrame, TIMES, EXPRESSIONS, st.sampled_from(list(EASINGS)))
KEYS = st.builds(
    Key,
    st.sampled_from(["zoom", "step_size", "weight1", "_a1", "end", "hold"]),
    st.builds(
        lambda first, rest: (first, *rest),
        st.builds(KeyFrame, TIMES, EXPRESSIONS),
        st.lists(FRAMES, max_size=4),
    ),
)


@given(KEYS)
@settings(max_examples=200, deadline=None)
def test_keys_read_back(key: Key) -> None:
    assert parse_key(key.text) == key
    assert parse_key(key.text).text == key.text


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("zoom=0s:1.20;4 s:2.0 ease;end:1.5;", "zoom = 0s: 1.2; 4s: 2 ease; end: 1.5"),
        ("\nzoom =\n 0s: 1;\n 4s: 2\n", "zoom = 0s: 1; 4s: 2"),
        ("step-size = 1/2", "step_size = 0s: 1/2"),
        ("zoom = 0:01: 1; 1:00:02.50: 2 hold", "zoom = 1s: 1; 3602.5s: 2 hold"),
        ("zoom = 0f: 1; 250 f: 2 in; 50%: 3 out", "zoom = 0f: 1; 250f: 2 in; 50%: 3 out"),
        ("zoom = 0s: 1; 2s: 3 linear", "zoom = 0s: 1; 2s: 3"),
        ("zoom = 10.00s: t/f", "zoom = 10s: t/f"),
        ("e = e", "e = 0s: e"),
    ],
)
def test_keys_in_canonical_form(text: str, canonical: str) -> None:
    assert parse_key(text).text == canonical
    assert Keys([text]).texts == (canonical,)


def test_a_key_holds_what_was_written() -> None:
    assert parse_key("zoom = 0s: 1.5; 50%: -t hold") == Key(
        "zoom",
        (
            KeyFrame(START, Expression((1.5,))),
            KeyFrame(Time(Decimal(50), "%"), Expression((("t", 0), ("negative", 1))), "hold"),
        ),
    )


def test_values_between_keys() -> None:
    text = "2s: 1; 4s: 3; 6s: 5 hold; 8s: 1 ease; 9s: 3 in; 10s: 1 out"
    known = {
        0: 1, 2: 1, 2.5: 1.5, 3: 2, 4: 3,
        4.5: 3, 5.99: 3, 6: 5,
        6.5: 5 - 4 * (3 / 16 - 1 / 32), 7: 3, 8: 1,
        8.5: 1.5, 9: 3,
        9.5: 1.5, 10: 1, 50: 1,
    }  # fmt: skip
    for time, value in known.items():
        assert at(text, time) == pytest.approx(value, abs=1e-15), time


def test_easings_arrive_at_their_key() -> None:
    """From 0 to 1, without turning back; slow where their names say so."""
    steps = [n / 1000 for n in range(1001)]
    for name, easing in EASINGS.items():
        assert easing(0.0) == 0
        assert easing(1.0) == (0 if name == "hold" else 1)
        values = [easing(u) for u in steps]
        assert values == sorted(values)
    first, last = ({n: EASINGS[n](u) for n in EASINGS} for u in (0.001, 0.999))
    assert first["ease"] < 1e-5
    assert first["in"] < 1e-5
    assert first["out"] > 0.0019
    assert 1 - last["ease"] < 1e-5
    assert 1 - last["out"] < 1e-5
    assert 1 - last["in"] > 0.0019


@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=6, unique=True),
    st.lists(st.integers(-99, 99), min_size=6, max_size=6),
    st.sampled_from(list(EASINGS)),
    st.integers(0, 300),
)
@settings(max_examples=150, deadline=None)
def test_values_stay_between_those_of_their_keys(
    frames: list[int], values: list[int], easing: str, frame: int
) -> None:
    frames.sort()
    parts = [
        f"{f}f: {v}{f' {easing}' if i else ''}"
        for i, (f, v) in enumerate(zip(frames, values, strict=False))
    ]
    value = at("; ".join(parts), frame / RATE)
    pairs = dict(zip(frames, values, strict=False))
    if frame in pairs:
        assert value == pairs[frame]
    before = [pairs[f] for f in frames if f <= frame][-1:]
    after = [pairs[f] for f in frames if f >= frame][:1]
    around = before + after
    assert min(around) - 1e-12 <= value <= max(around) + 1e-12


def test_expressions_run_on_between_keys() -> None:
    assert at("t", 7) == 7
    assert at("2s: t; 4s: 10*t", 1) == 1
    assert at("2s: t; 4s: 10*t", 3) == (3 + 30) / 2
    assert at("2s: t; 4s: 10*t", 5) == 50
    assert at("2s: f; 4s: 0 hold", 3) == 90
    assert at("p", LENGTH) == 1


def test_a_value_is_not_asked_for_before_it_counts() -> None:
    assert at("0s: 1; 2s: sqrt(t - 2) hold", 1) == 1
    assert at("1s: 1; 2s: log(t - 1)", 1) == 1
    with pytest.raises(SettingsError, match=r"log\(t - 1.5\) gives no finite number at 1.5 s"):
        at("1s: 1; 2s: log(t - 1.5)", 1.5)


def test_the_same_key_at_any_rate() -> None:
    keys = Keys(["zoom = 0s: 1; 50%: 2 ease; end: 3", "turn = sin(2*pi*p)"])
    for rate in (Fraction(24), NTSC, Fraction(60)):
        assert keys.at(Fraction(2), rate=rate, duration=LENGTH) == keys.at(
            Fraction(2), rate=RATE, duration=LENGTH
        )
    assert keys.names == ("zoom", "turn")
    assert keys.at(LENGTH, rate=RATE, duration=LENGTH)["zoom"] == 3
    assert keys.at(LENGTH, rate=RATE, duration=2 * LENGTH)["zoom"] == 2  # half of another film


def test_a_film_of_unknown_length_or_rate() -> None:
    keys = Keys(["zoom = 0s: 1; 4s: t"])
    assert keys.at(Fraction(2), rate=None, duration=None) == {"zoom": 1.5}
    check("zoom = 0s: 1; 4s: t", duration=None, rate=None)
    assert "0f: the film has no constant frame rate" in error_of("zoom = 0f: 1", rate=None)
    assert "end: the length of the film is not known" in error_of("zoom = end: 1", duration=None)
    said = error_of("zoom = 1 + p", duration=None)
    assert said == (
        "the key of zoom: 1 + p needs p, and the length of the film is not known; expected t, in "
        "seconds"
    )
    assert "2*f needs f, and the film has no constant frame rate" in error_of(
        "zoom = 2*f", rate=None
    )


# What is wrong with a text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", 'the key is empty; expected a text such as "zoom = 0s: 1.2; 4s: 2.0 ease; end: 1.5"'),
        ("zoom", 'at the end: expected "="'),
        ("zoom =", "at the end: expected a time (10s, 250f, 50%, 1:02.5 or end), a name, a number"),
        ("= 1", "at character 1, near '= 1': expected the name of a setting"),
        ("2zoom = 1", "at character 1, near '2zoom = 1': expected the name of a setting"),
        ("zoom = 0: 1", "at character 8, near '0: 1': a time has a unit: 0s, 0f (frames) or 0%"),
        ("zoom = 0s 1", "at character 11, near '1': expected \":\""),
        ("zoom = 1:20", 'at the end: expected ":"'),
        ("zoom = 0:61: 2", "near '0:61: 2': seconds, and minutes after hours, are less than 60"),
        ("zoom = 120%: 2", "near '120%: 2': 100% is the end"),
        ("zoom = 0s: 1, 2", "at character 13, near ', 2': expected an easing"),
        ("zoom = 0s: 1; 1s: 2 eas", "'eas' is no easing; expected one of linear, hold, ease, in,"),
        ("zoom = 0s: 1 ease", "ease says how a value is reached, and nothing comes before"),
        ("zoom = 1 ease", "near 'ease': expected"),
        ("zoom = 1; 2", "at character 9, near '; 2': expected"),
        ("zoom = 0s: 1;; 1s: 2", "at character 14, near '; 1s: 2': expected a time"),
        ("zoom = 0s: sn(2)", "there is no function 'sn'; the closest are sin"),
        ("zoom = t(2)", "there is no function 't'; the closest are tan"),
        ("zoom = sin", "sin is a function; expected sin(a)"),
        ("zoom = sin()", "near ')': expected a name, a number"),
        ("zoom = sin(1, 2)", "sin takes other arguments: sin(a)"),
        ("zoom = max(1)", "max takes other arguments: max(a, b, …)"),
        ("zoom = q", "there is no name 'q'; there are t, f, p, pi, e"),
        ("zoom = nan", "there is no name 'nan'"),
        ("zoom = inf", "there is no name 'inf'"),
        ("zoom = 2 t", "near 't': expected"),
        ("zoom = t % 2", "near '% 2': '%' means nothing here"),
        ("zoom = 1 // 2", "at character 11, near '/ 2': expected a name, a number"),
        ("zoom = (1", 'at the end: expected ")"'),
        ("zoom = 9e999", "9e999 is too large a number"),
        ("zoom = __import__('os')", "near \"'os')\": this quote is not closed"),
        ("zoom = t.real", "near '.real': '.' means nothing here"),
        ("zoom = [1]", "near '[1]': '[' means nothing here"),
        ("zoom = t if t else 1", "near 'if t else 1': expected"),
        ("zoom = 1 < 2", "near '< 2': '<' means nothing here"),
        ("zoom = (lambda: 1)()", "near ': 1)()': expected"),
    ],
)
def test_what_is_no_key(text: str, said: str) -> None:
    assert said in error_of(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("+".join("1" * 101), "an expression has at most 200 numbers, names, operators"),
        ("^".join("1" * 1900), "an expression has at most 200 numbers"),
        ("max(" + ",".join("1" * 1900) + ")", "an expression has at most 200 numbers"),
        ("-" * 1999 + "1", "an expression has at most 200 numbers"),
        ("(" * 51 + "1" + ")" * 51, "brackets nest 50 deep at most"),
        ("sin(" * 51 + "1" + ")" * 51, "brackets nest 50 deep at most"),
        ("1/" * 100_000 + "1", "has 200008 characters; 4000 are the most"),
        ("9" * 3000, "is too large a number"),
        ("0s: 1; " * (MOST_FRAMES + 1), "has 4001 semicolons; 4000 are the most"),
        ("0s: 1;" + "-1;" * 2, "expected a time"),
        ("0s: " + "+1" * 1500 + ";1s: " + "-1" * 1500 + ";", "at most 200 numbers"),
        ("9" * 30 + "s: 1", "a time has at most 24 characters"),
    ],
)
def test_hostile_texts(text: str, said: str) -> None:
    assert said in error_of(f"zoom = {text}")


def test_as_much_as_may_be() -> None:
    text = "+".join("1" * (MOST_NODES // 2))
    assert len(parse_expression(text).nodes) == MOST_NODES - 1
    assert at(text, 0) == MOST_NODES // 2
    # Signs count as well: 4000 of +, - and * in a text are what a grammar of calls allows.
    many = "; ".join(f"{n}f: {n}" for n in range(MOST_FRAMES))
    keys = Keys([f"zoom = {many}"])
    assert keys.at(Fraction(1001, 10), rate=Fraction(10), duration=None) == {"zoom": 1001.0}


def test_the_work_of_a_value_is_bounded_by_its_nodes() -> None:
    """Nested powers and functions do each node once, and nothing besides."""
    text = "^".join(["t"] * 100)
    asked = 0

    class Names(dict[str, float]):
        def __getitem__(self, name: str) -> float:
            nonlocal asked
            asked += 1
            return super().__getitem__(name)

    assert parse_expression(text).value(Names(t=1.0, f=0.0, p=0.0)) == 1
    assert asked == 100


@given(st.text() | st.text("zom= 0123456789sf%:;.+-*/^()etpinacohldx,\n"))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_key_or_an_error_in_one_line(text: str) -> None:
    for whole in (text, f"zoom = {text}", f"zoom = 0s: {text}"):
        try:
            said = parse_key(whole).text
        except SettingsError as error:
            said = str(error)
        else:
            assert parse_key(said).text == said
        assert len(said.splitlines()) == 1


# What is wrong with keys on a film


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "0s: 1; 5s: 2; 4s: 3",
            "the key of zoom: 4s stands after 5s; expected each time later than the one before, "
            "and hold for a jump",
        ),
        ("0s: 1; 0s: 2", "the key of zoom: 0s stands after 0s; expected each time later"),
        ("50%: 1; 3s: 2", "the key of zoom: 3s stands after 50% (5 s); expected"),
        ("end: 1; 100%: 2", "the key of zoom: 100% (10 s) stands after end (10 s); expected"),
        ("0s: 1; 12s: 2", "the key of zoom: 12s is after the end of the film, 10 s"),
        ("0s: 1; 400f: 2", "the key of zoom: 400f (13.3333 s) is after the end of the film, 10 s"),
        ("1/0", "the key of zoom: 1/0 gives no finite number at 0 s"),
        (
            "9**9**9",
            "the key of zoom: 9^9^9 gives no finite number at 0 s, since 9^3.8742e+08 is none",
        ),
        (
            "1/(t - 2)",
            "the key of zoom: 1/(t - 2) gives no finite number at 2 s, since 1/0 is none",
        ),
        ("sqrt(9.9 - t)", "sqrt(9.9 - t) gives no finite number at 9.93333 s, since sqrt(-0.033"),
        ("0s: -1e308; end: 1e308", "the key of zoom: its value is too large at 0.0333333 s"),
    ],
)
def test_what_a_film_cannot_have(text: str, said: str) -> None:
    assert said in error_of(f"zoom = {text}")


def test_two_keys_of_a_name() -> None:
    said = "step_size has two keys; expected one, with all its times"
    assert said in error_of("step-size = 1", "zoom = 1", "step_size = 2")


def test_names_that_cannot_be_keyed() -> None:
    names = {"zoom": Bounds(), "turn": Bounds(), **weight_bounds(2)}
    assert error_of("zom = 1", names=names) == (
        "'zom' cannot be keyed; the closest are zoom; what can is zoom, turn, weight1, weight2"
    )
    assert error_of("seed = 1", names=names) == (
        "'seed' cannot be keyed; what can is zoom, turn, weight1, weight2"
    )
    assert "'weight3' cannot be keyed; the closest are weight" in error_of(
        "weight3 = 1", names=names
    )
    assert error_of("zoom = 1", names={}) == "'zoom' cannot be keyed; what can is nothing here"


def test_values_out_of_bounds() -> None:
    def said(text: str, **bounds: Any) -> str:
        return error_of(f"zoom = {text}", names={"zoom": Bounds(**bounds)})

    assert said("0s: 1; end: 3", above=0, most=2) == (
        "zoom is 2.00667 at 5.03333 s; expected more than 0 and at most 2"
    )
    assert said("-t", least=0) == "zoom is -0.0333333 at 0.0333333 s; expected at least 0"
    assert said("p", below=0.5) == "zoom is 0.5 at 5 s; expected less than 0.5"
    assert said("t - 1", above=-1) == "zoom is -1 at 0 s; expected more than -1"
    check("zoom = p", names={"zoom": Bounds(least=0, below=1)})  # the last frame begins before 1
    check("zoom = -p/2", names={"zoom": Bounds(least=0, whole=True)})  # rounded to 0


# Settings


class Moving(Settings):
    """Settings of each kind that may be keyed."""

    zoom: float = Field(1.0, gt=0, le=10, json_schema_extra={"animatable": True})
    share: Annotated[float, Field(ge=0, lt=1)] = Field(0.5, json_schema_extra={"animatable": True})
    jitter: Annotated[int, Field(ge=0, le=64)] | Literal["half"] = Field(
        "half", json_schema_extra={"animatable": True}
    )
    clip: float | None = Field(None, gt=0, json_schema_extra={"animatable": True})
    center: tuple[
        Annotated[float, Field(ge=0, le=1)],
        Annotated[float, Field(ge=0, le=1)],
    ] = Field((0.5, 0.5), json_schema_extra={"animatable": ["x", "y"]})
    seed: int = 3
    keys: KeyTexts = ()


def moving(**given: Any) -> Moving:
    return checked(Moving, given)


def test_what_may_be_keyed() -> None:
    assert animatable(Moving) == {
        "zoom": Bounds(above=0, most=10),
        "share": Bounds(least=0, below=1),
        "jitter": Bounds(least=0, most=64, whole=True),
        "clip": Bounds(above=0),
        "center_x": Bounds(least=0, most=1),
        "center_y": Bounds(least=0, most=1),
    }


def test_a_mark_on_what_is_no_number() -> None:
    class Wrong(Settings):
        name: str = Field("a", json_schema_extra={"animatable": True})

    with pytest.raises(TypeError, match="the setting name is marked as animatable, and is no num"):
        animatable(Wrong)


def test_settings_with_other_values() -> None:
    given_settings = moving(seed=7, keys=("zoom = 1",))
    values = {"zoom": 2.0, "jitter": 2.5, "clip": 0.25, "center_y": 0.75, "center_x": 0.25}
    changed = with_values(given_settings, values)
    assert changed == moving(
        zoom=2, jitter=3, clip=0.25, center=(0.25, 0.75), seed=7, keys=("zoom = 1",)
    )
    assert type(changed.jitter) is int
    assert with_values(given_settings, {"center_y": 1.0}).center == (0.5, 1.0)
    assert with_values(given_settings, {}) == given_settings
    assert given_settings.zoom == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"zoom": -1.0}, "at 2.5 s: zoom: input should be greater than 0 (given: -1.0)"),
        ({"center_x": 2.0}, "at 2.5 s: center: input should be less than or equal to 1 (given: 2"),
        ({"zoom": math.nan}, "at 2.5 s: zoom: input should be a finite number"),
        ({"seed": 1.0}, "at 2.5 s: 'seed' is not animatable; there are zoom, share, jitter, clip"),
    ],
)
def test_settings_with_wrong_values(values: dict[str, float], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        with_values(moving(), values, time=Fraction(5, 2))
    assert said in str(caught.value)


def test_bounds_say_what_settings_take() -> None:
    """A value is within the bounds if, and only if, the model takes it."""
    bounds = animatable(Moving)
    for name, values in {
        "zoom": (-1.0, 0.0, 1e-9, 10.0, 10.1),
        "share": (-1e-9, 0.0, 0.999, 1.0),
        "jitter": (-0.6, -0.5, -0.4, 63.7, 64.4, 64.5),
        "center_x": (-0.1, 0.0, 1.0, 1.1),
    }.items():
        for value in values:
            try:
                with_values(moving(), {name: value})
                taken = True
            except SettingsError:
                taken = False
            assert bounds[name].holds(value) == taken, (name, value)


def test_keys_as_a_setting() -> None:
    assert moving(keys=("zoom=0s:1.50;",)).keys == ("zoom = 0s: 1.5",)
    with pytest.raises(SettingsError, match=r"^keys: cannot read the key 'zoom =' at the end"):
        moving(keys=("zoom = ",))


# Weights


def test_weights_among_values() -> None:
    values = {"zoom": 1.5, "weight1": 0.5, "weight12": -2.0, "weight": 1.0, "weight01": 3.0}
    assert split_weights(values) == (
        {"zoom": 1.5, "weight": 1.0, "weight01": 3.0},
        {1: 0.5, 12: -2.0},
    )


def test_other_weights_of_a_text() -> None:
    assert with_weights("2*a - .5*(tv() + b:1)", {2: 0.25, 3: -1}).text == "2*a + 0.25*tv() - b:1"
    assert with_weights("a", {1: 0}).text == "0*a"
    assert with_weights("2*a - b", {}).text == "2*a - b"
    with pytest.raises(ObjectiveError, match=r"no weight3: 2\*a - b has weight1 to weight2"):
        with_weights("2*a - b", {3: 1.0})
    with pytest.raises(ObjectiveError, match="there is no weight0: a has weight1 alone"):
        with_weights("a", {0: 1.0})
    with pytest.raises(ObjectiveError, match="the weight of b must be finite, got nan"):
        with_weights("a + b", {2: math.nan})


def test_other_weights_of_a_bound_objective() -> None:
    net = toy_network.net()
    picture = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    bound = (2 * obj.layer("second") - 0.5 * obj.layer("first")).bound(net)
    found = bound.with_weights({2: 3.0})
    expected = (2 * obj.layer("second") + 3 * obj.layer("first")).bound(net)
    assert found.text == expected.text
    activations = net.activations(picture, list(expected.layers))
    torch.testing.assert_close(found(activations), expected(activations), rtol=0, atol=0)
    assert bound.terms[1][0] == -0.5
    alone = obj.layer("second").bound(net).with_weights({1: 0.5})
    assert alone.text == "0.5*second"
    assert all(term is own for (_, term), (_, own) in zip(found.terms, bound.terms, strict=True))


# Curves


DRAWN = Keys(["zoom = 0s: 1; 5s: 3 hold", "turn = 10*p"])


def test_curves_lie_where_their_values_are() -> None:
    page = key_page(DRAWN, rate=Fraction(2), duration=LENGTH)
    curves = [item for item in page.items if isinstance(item, pages.Lines) and item.width == 2]
    assert len(curves) == 2
    assert len({curve.colour for curve in curves}) == 2
    (left, low), (right, high) = curves[0].points[0], curves[0].points[-1]
    assert len(curves[0].points) == 21  # a frame each, and the end
    for index, (x, y) in enumerate(curves[0].points):
        assert x == pytest.approx(left + (right - left) * index / 20)
        assert y == (low if index < 10 else high)
    assert high < low  # more is higher up
    rings = [item for item in page.items if isinstance(item, pages.Ring)]
    assert [(ring.x, ring.y) for ring in rings] == [
        (left, low),
        (pytest.approx((left + right) / 2), high),
    ]
    slope = [y for _, y in curves[1].points]
    assert slope == sorted(slope, reverse=True)
    words = {item.text: item for item in page.items if isinstance(item, pages.Text)}
    assert words["zoom"].colour == curves[0].colour
    assert {"turn", "10*p", "0s: 1; 5s: 3 hold", "0 s", "10 s"} <= words.keys()
    assert words["1"].y - 4 == pytest.approx(low)


def test_curves_as_files(tmp_path: Path) -> None:
    for name in ("keys.png", "keys.svg"):
        plot_keys(DRAWN, tmp_path / name, rate=RATE, duration=LENGTH)
    svg = (tmp_path / "keys.svg").read_text(encoding="utf-8")
    assert "Keyframes: zoom, turn" in svg
    page = key_page(DRAWN, rate=RATE, duration=LENGTH)
    with Image.open(tmp_path / "keys.png") as picture:
        assert picture.size == (2 * page.width, 2 * page.height)
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or []}
    assert {(0xE0, 0x24, 0x5E), (0x1D, 0x6F, 0xD1), (0xFF, 0xFF, 0xFF)} <= colours


def test_curves_that_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"keys.gif' cannot hold curves; expected one of .svg, .p"):
        plot_keys(DRAWN, tmp_path / "keys.gif", rate=RATE, duration=LENGTH)
    with pytest.raises(SettingsError, match="there are no keys to draw"):
        plot_keys(Keys([]), tmp_path / "keys.png", rate=RATE, duration=LENGTH)
    with pytest.raises(SettingsError, match=r"1/t gives no finite number at 0 s"):
        plot_keys(Keys(["zoom = 1/t"]), tmp_path / "keys.png", rate=RATE, duration=LENGTH)
    with pytest.raises(SettingsError, match="the length of the film is not known"):
        plot_keys(DRAWN, tmp_path / "keys.png", rate=RATE, duration=None)
    assert not list(tmp_path.iterdir())
    for name in ("keys.png", "keys.svg"):
        (tmp_path / name).write_bytes(b"mine")
        with pytest.raises(ImageError, match=rf"{name}' is already there"):
            plot_keys(DRAWN, tmp_path / name, rate=None, duration=LENGTH, overwrite=False)
        assert (tmp_path / name).read_bytes() == b"mine"


@given(
    st.floats(-1e12, 1e12, allow_subnormal=False),
    st.floats(0, 1e12, allow_subnormal=False),
    st.integers(2, 9),
)
@settings(max_examples=200, deadline=None)
def test_ticks_are_few_and_go_around_what_is_drawn(low: float, more: float, about: int) -> None:
    ticks = nice_ticks(low, low + more, about)
    assert 2 <= len(ticks) <= about + 3
    step = ticks[1] - ticks[0]
    assert ticks[0] <= low + 1e-6 * step
    assert ticks[-1] >= low + more - 1e-6 * step


@pytest.mark.slow
def test_a_long_film_and_many_keys_are_drawn_in_few_points() -> None:
    many = "; ".join(f"{n}s: {n % 7}" for n in range(200))
    page = key_page(Keys([f"zoom = {many}"]), rate=Fraction(60), duration=Fraction(3600))
    curves = [item for item in page.items if isinstance(item, pages.Lines) and item.width == 2]
    assert len(curves[0].points) == 1501
    assert not [item for item in page.items if isinstance(item, pages.Ring)]


DOCUMENT = (Path(__file__).parents[1] / "docs" / "keyframes.md").read_text(encoding="utf-8")


def test_the_examples_of_the_document() -> None:
    texts = re.findall(r'--key "(.*?)"', DOCUMENT)
    assert len(texts) == 5
    for text in texts:
        check(text, names={parse_key(text).name: Bounds()})
    expressions = re.findall(r"^- `(.*?)`:", DOCUMENT, re.MULTILINE)
    assert len(expressions) == 4
    pulse, thrice, saw, peak = (f"{each}" for each in expressions)
    assert [at(pulse, Fraction(n, 4)) for n in range(4)] == pytest.approx([1.6, 1.8, 1.6, 1.4])
    assert at(thrice, LENGTH) == pytest.approx(at(thrice, 0), abs=1e-14)
    assert [at(saw, n) for n in (0, 1, 2, 3.5)] == [0, 0.5, 0, 0.75]
    assert [at(peak, n) for n in (4, 4.5, 5, 6)] == [0, 0.5, 1, 0]
    assert error_of("zoom = 1/(t - 2)") in DOCUMENT
    assert error_of("zoom = 0s: 1; end: 3", names={"zoom": Bounds(above=0, most=2)}) in DOCUMENT
    for name in (*EASINGS, *FUNCTIONS, *NAMES, *CONSTANTS):
        assert f"`{name}`" in DOCUMENT
    block = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)[0]
    names: dict[str, Any] = {}
    exec(block, names)
    for line in block.splitlines():
        code, _, said = line.partition("  # ")
        if said:
            assert repr(eval(code, names)) == said.removeprefix("in canonical form: ")


def test_keys_need_neither_torch_nor_a_parser_to_be_there() -> None:
    code = """
import sys
import phosphene.films.keys, phosphene.settings
heavy = {"torch", "numpy", "lark", "PIL"} & set(sys.modules)
assert not heavy, heavy
from phosphene.films.keys import Keys
Keys(["zoom = 0s: 1; 4s: sin(t)"]).at(2, rate=30, duration=10)
heavy = {"torch", "numpy", "PIL"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)
