"""Dreams and classes as figures: activations beside a dream, its octaves, a class's story."""

# pyright: reportArgumentType=false, reportCallIssue=false
# since wrong arguments are tried on purpose
from __future__ import annotations

import itertools
import json
import math
from collections import OrderedDict
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import phosphene as ph
from phosphene import image as images
from phosphene import jobs, pyramid
from phosphene.cli import main
from phosphene.errors import ImageError, NetworkError, ObjectiveError, SettingsError
from phosphene.explain import story as stories
from phosphene.explain.cells import RenderedCell
from phosphene.explain.contours import outlines
from phosphene.explain.layers import layer_of
from phosphene.explain.octave_page import octave_page
from phosphene.explain.octaves import Octave, Pyramid
from phosphene.explain.pages import ImageItem, Lines, Text
from phosphene.explain.palettes import PALETTES, coloured
from phosphene.explain.story_page import percent, story_page
from phosphene.explain.watch_page import grid_of
from phosphene.explain.watching import Found, Survey, WatchStep, chosen_channels, watchable
from phosphene.manifest import Manifest
from phosphene.network import Network
from phosphene.recipes.octaves import OctavesSettings
from phosphene.recipes.story import StorySettings
from phosphene.recipes.watch import Palette, WatchSettings
from phosphene.settings import checked
from tests import toy_network
from tests.on import DEVICE

NET = "tests.toy_network:net"
DREAM: dict[str, Any] = {
    "octaves": 2,
    "octave_scale": 1.5,
    "steps": 3,
    "jitter": 4,
    "device": DEVICE,
    "precision": "fp32",
}
FLAGS = ("--network", NET, "--octaves", 2, "--steps", 2, "--device", "cpu", "--precision", "fp32")
DRAWN: dict[str, Any] = {"size": 24, "steps": 3, "device": DEVICE, "precision": "fp32"}


@pytest.fixture(autouse=True)
def here(workplace: Path) -> Path:
    return workplace


def sky(height: int = 40, width: int = 60) -> Tensor:
    return ph.draw_sky(height, width, seed=1)


def call(*words: object) -> int:
    return main([str(word) for word in words])


def refused(capsys: pytest.CaptureFixture[str], told: str, *words: object) -> None:
    before = sorted(Path().iterdir())
    assert call(*words) in (1, 2)
    said = capsys.readouterr()
    assert said.out == ""
    line = said.err.strip().splitlines()[-1]
    assert line.startswith("phosphene: ")
    assert told in line
    assert sorted(Path().iterdir()) == before


# --- octaves ---------------------------------------------------------------------------------


def test_octaves_are_those_of_the_dream() -> None:
    photo, net = sky(), toy_network.net()
    found = ph.octaves(photo, net, "second", **DREAM | {"octaves": 3})
    assert [octave.size for octave in found.octaves] == [(18, 27), (27, 40), (40, 60)]
    assert torch.equal(found.octaves[-1].after, ph.dream(photo, net, "second", octaves=3,
                       **{k: v for k, v in DREAM.items() if k != "octaves"}))  # fmt: skip
    bases = pyramid.bases(photo, [octave.size for octave in found.octaves])
    assert torch.equal(found.octaves[0].before, bases[0])
    for lower, octave, base in zip([None, *found.octaves], found.octaves, bases, strict=False):
        torch.testing.assert_close(octave.carried, octave.after - base)
        assert float(octave.carried.abs().max()) > 0.01
        if lower is not None:
            expected = (base + images.resize(lower.carried, octave.size)).clamp(0, 1)
            torch.testing.assert_close(octave.before, expected)
    assert [len(octave.scores) for octave in found.octaves] == [3, 3, 3]


def made(octaves: list[tuple[int, int]], carried: float = 0.0, **given: Any) -> Pyramid:
    """Octaves of those sizes, all grey."""

    def octave(number: int, size: tuple[int, int]) -> Octave:
        grey = torch.full((1, 3, *size), 0.5)
        return Octave(number, size, 1, grey, grey, torch.full_like(grey, carried), (1.0,))

    parts = tuple(octave(k, size) for k, size in enumerate(octaves, 1))
    return Pyramid("toy", "second", parts, checked(OctavesSettings, given))


def test_a_page_of_octaves_is_true_to_scale() -> None:
    sizes = [(51, 77), (71, 107), (100, 150)]
    page = octave_page(made(sizes, cell=300))
    pictures = [item for item in page.items if isinstance(item, ImageItem)]
    assert [(item.height, item.width) for item in pictures] == [
        (2 * h, 2 * w) for h, w in sizes
    ] * 3
    words = [item.text for item in page.items if isinstance(item, Text)]
    for number, (height, width) in enumerate(sizes, 1):
        assert words.count(f"octave {number}") == words.count(f"{width}×{height} px") == 3
    for first, second in itertools.pairwise(pictures):  # none lies over another
        assert second.x >= first.x + first.width or second.y > first.y
    assert all(item.x + item.width <= page.width for item in pictures)


@pytest.mark.parametrize(
    ("carried", "given", "shown"),
    [(0.0, {}, 0.5), (0.1, {}, 0.9), (-0.1, {"amplify": 2}, 0.3), (0.3, {}, 1.0)],
)
def test_what_goes_up_is_amplified_about_grey(
    carried: float, given: dict[str, Any], shown: float
) -> None:
    pictures = [i for i in octave_page(made([(40, 60)], carried, **given)).items
                if isinstance(i, ImageItem)]  # fmt: skip
    assert float(pictures[-1].image.min()) == pytest.approx(shown)
    assert float(pictures[-1].image.max()) == pytest.approx(shown)
    told = [i.text for i in octave_page(made([(40, 60)], **given)).items if isinstance(i, Text)]
    assert any(f"times {given.get('amplify', 4)}" in text for text in told)


def test_octaves_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    ph.save_image(sky(), "sky.png")
    guide = f'guide(second, "{Path("sky.png").absolute()}")'
    for words, name in (
        (("sky.png", "--objective", guide, "-o", "a.json"), "a.json"),
        (("--start", "noise", "--size", 48, "--objective", "second:1", "-o", "b.png"), "b.png"),
    ):
        assert call("octaves", *words, *FLAGS) == 0
        assert call("replay", "--network", NET, name) == 0
        assert f"{name}: the same, pixel for pixel" in capsys.readouterr().out
    text = Path("a.json").read_text()
    assert str(Path().absolute()) not in text
    data = json.loads(text)
    assert [(o["height"], o["width"]) for o in data["octaves"]] == [(29, 43), (40, 60)]
    assert data["objective"] == 'guide(second, "sky.png")'
    assert Manifest.read("b.png").objectives == ("second:1",)
    refused(capsys, "no layer 'secnd'", "octaves", "sky.png", "--objective", "secnd", *FLAGS)
    with pytest.raises(ImageError, match="of one picture"):
        ph.octaves(torch.rand(2, 3, 24, 24), toy_network.net(), "second", **DREAM)


# --- watch -----------------------------------------------------------------------------------


def watched(layer: str = "second", **given: Any) -> list[WatchStep]:
    return list(ph.watch.steps(sky(), toy_network.net(), layer, **DREAM | given))


def test_each_step_is_a_frame_and_the_film_is_gone_through_once_before() -> None:
    steps = watched()
    assert [step.finding for step in steps] == [True] * 6 + [False] * 6
    frames = [step for step in steps if step.done]
    assert [step.frame for step in frames] == list(range(6))
    assert [step.time for step in frames] == [Fraction(k, 10) for k in range(6)]
    assert {step.frames for step in frames} == {6}
    shares = [step.share for step in steps]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len({step.image.shape for step in frames if step.image is not None}) == 1
    assert all(side % 2 == 0 for side in frames[0].picture().shape[-2:])


@pytest.mark.parametrize(("every", "taken"), [(1, [1, 2, 3, 4, 5, 6]), (2, [2, 4, 6]), (4, [4, 6])])
def test_every_so_many_steps_and_the_last(every: int, taken: list[int]) -> None:
    frames = [step for step in watched(every=every) if step.done]
    assert [3 * step.dream.octave + step.dream.index + 1 for step in frames] == taken
    assert [step.frame for step in frames] == list(range(len(taken)))


def test_channels_and_limits_are_those_of_the_whole_run() -> None:
    """By an independent look at the same dream."""
    net, frames = toy_network.net(), [step for step in watched(channels=3) if step.done]
    means, highs = [], []
    for step in ph.dream.steps(sky(), net, "second", **DREAM):
        maps = net.activations(step.image.cpu(), ["second"])["second"].detach()[0]
        means.append(maps.mean((1, 2)))
        highs.append(maps.flatten(1).quantile(0.99, dim=1))
    order = torch.stack(means).mean(0).argsort(descending=True)[:3].tolist()
    found = frames[-1].state().value("found")
    assert list(found["channels"]) == order
    assert found["high"] == pytest.approx(float(torch.stack(highs).amax(0)[order].max()))
    assert (found["low"], found["frames"]) == (0, 6)


def test_a_survey_is_over_all_frames() -> None:
    survey = Survey(3)
    for values in ([5.0, 1.0, 0.0], [0.0, 2.0, -1.0], [0.0, 2.5, 0.5]):
        survey.add(torch.tensor(values)[:, None, None].expand(3, 2, 4))
    # Means of 5/3, 5.5/3 and less; only what is shown sets the limits.
    assert survey.found(2) == Found((1, 0), 0.0, 5.0, 3)
    assert survey.found((2,)) == Found((2,), -1.0, 0.5, 3)
    assert survey.found("all") == Found((0, 1, 2), -1.0, 5.0, 3)


def test_a_frame_has_the_picture_and_the_maps() -> None:
    """Of maps of 4 px a place, on a picture that is shown as large as it is."""
    conv = nn.Conv2d(3, 2, 4, stride=4)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, 0], conv.weight[1, 2] = 1 / 16, 1 / 16  # the mean red and blue
        nn.init.zeros_(conv.bias)
    net = Network(nn.Sequential(OrderedDict(blocks=conv)), input_size=16)
    photo = torch.zeros(1, 3, 160, 160)
    photo[:, 0, :80], photo[:, 2, :, :80] = 0.5, 0.25
    still = {"octaves": 1, "steps": 1, "step_size": 1e-9, "height": 160, "natural": 0}
    (step,) = [
        step for step in ph.watch.steps(photo, net, "blocks", channels=[1, 0], **still) if step.done
    ]
    frame = step.picture()
    assert float((frame[..., 50:210, 20:180] - photo).abs().max()) <= 0.5 / 255 + 1e-6
    grid = grid_of(2, 1.0, 160)
    left = 20 + 160 + 28
    for k, (channel, high) in enumerate([(2, 0.25), (0, 0.5)]):
        x, y = left + k % grid.columns * grid.step[0], 50 + k // grid.columns * grid.step[1]
        cell = frame[0, :, y + 1 : y + grid.height - 1, x + 1 : x + grid.width - 1]
        size = (grid.height, grid.width)
        places = nn.functional.interpolate(photo[:, channel : channel + 1, ::4, ::4], size)
        expected = 1 - places[0, 0, 1:-1, 1:-1] / 0.5  # limits of both: 0 to .5, darker is higher
        assert float((cell - expected).abs().max()) <= 1 / 255
        assert float(1 - cell.min()) == pytest.approx(high / 0.5, abs=0.003)


def test_which_channels() -> None:
    strengths = torch.tensor([0.1, 0.7, 0.3, 0.7])
    assert chosen_channels(strengths, 3) == (1, 3, 2)
    assert chosen_channels(strengths, 99) == (1, 3, 2, 0)
    assert chosen_channels(strengths, "all") == (0, 1, 2, 3)
    assert chosen_channels(strengths, (2, 0, 2)) == (2, 0)
    for given, read in [("5", 5), (5, 5), ("5-5", (5,)), ("0-2,9", (0, 1, 2, 9)), (" all", "all")]:
        assert checked(WatchSettings, {"channels": given}).channels == read
    for wrong in ("0", "", "x", "3-1", -2, []):
        with pytest.raises(SettingsError, match="channels"):
            checked(WatchSettings, {"channels": wrong})


@pytest.mark.parametrize("count", [1, 2, 5, 16, 64, 65, 400])
@pytest.mark.parametrize("aspect", [0.4, 1.0, 1.5, 4.0])
def test_maps_fit_beside_the_picture(count: int, aspect: float) -> None:
    grid = grid_of(count, aspect, 400)
    height, width = grid.size(count)
    assert height <= 400 + grid.label
    assert width <= 1.6 * 400
    assert grid.width / grid.height == pytest.approx(aspect, rel=0.25)
    assert grid.width * grid.height * count > 0.2 * 400 * 400


def test_palettes_are_the_known_ones() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    assert set(PALETTES) == set(get_args(Palette))
    values = torch.linspace(0, 1, 101)[None]
    assert torch.allclose(coloured(values, "grey")[:, 0], (1 - values).expand(3, -1))
    for name in set(PALETTES) - {"grey"}:
        known = matplotlib.colormaps[name].resampled(4096)(values[0].numpy())[:, :3]
        assert np.abs(coloured(values, name)[:, 0].T.numpy() - known).max() < 8 / 255, name
    assert coloured(torch.rand(5, 2, 7), "magma").shape == (5, 3, 2, 7)
    beyond = coloured(torch.tensor([[-3.0, 7.0]]), "grey")[0, 0]
    assert beyond.tolist() == [1, 0]


class Tokens(nn.Module):
    """Tokens of patches of 4 px: so many of them as are said besides."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.embed, self.block, self.extra = nn.Conv2d(3, 5, 4, stride=4), nn.Linear(5, 5), extra
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).mT
        tokens = torch.cat([tokens.new_zeros(len(x), self.extra, 5), tokens], 1)
        return self.head(self.block(tokens).mean(1))


def test_layers_without_places_are_refused() -> None:
    toy = toy_network.net()
    with pytest.raises(ObjectiveError, match=r"logits gives one vector of 3.*first.*second"):
        ph.watch(sky(), toy, "logits", **DREAM)
    with pytest.raises(ObjectiveError, match="pool gives one vector of 8"):
        watchable(toy, "pool")
    with pytest.raises(ObjectiveError, match="there is no channel 8"):
        ph.watch(sky(), toy, "second", channels="0-8")
    with pytest.raises(SettingsError, match="without pictures"):
        ph.watch(sky(), toy, "second", objective='guide(second, "/etc/secret.png")')
    with pytest.raises(ImageError, match="one picture"):
        ph.watch(torch.rand(2, 3, 24, 24), toy, "second")
    torch.manual_seed(0)
    photo = torch.rand(1, 3, 16, 16)
    with pytest.raises(ObjectiveError, match="23 tokens, which are no grid over a picture"):
        ph.watch(photo, Network(Tokens(7), input_size=16), "block")
    net = Network(Tokens(1), input_size=16)
    small = {"octaves": 1, "steps": 1, "height": 160, "channels": "all"}
    assert len(list(ph.watch(photo, net, "block", **small))) == 1


def test_a_film_is_stopped_goes_on_and_is_made_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("av")
    ph.save_image(sky(), "sky.png")
    flags = ("--network", NET, "--octaves", 2, "--steps", 4, "--device", "cpu", "--every", 2)
    words = ("watch", "sky.png", "second", *flags, "--channels", 4, "--height", 160)
    assert call(*words, "--palette", "viridis", "-o", "whole.gif") == 0
    with Image.open("whole.gif") as film:
        assert (getattr(film, "n_frames", 0), film.info["duration"]) == (4, 100)
    manifest = Manifest.read("whole.gif")
    assert (manifest.recipe, manifest.layers, manifest.objectives) == ("watch", ("second",), ())
    assert call("replay", "--network", NET, "whole.gif") == 0
    assert "the same, 4 frames" in capsys.readouterr().out

    request = jobs.Request(
        recipe="watch",
        network=NET,
        layers=("second",),
        inputs={"photo": jobs.InputFile(path="sky.png")},
        settings=manifest.settings,
        outputs={"film": "halves.gif"},
    )
    job = jobs.prepare(request, allow=(NET,))
    events, shown = job.events(), 0
    while shown < 3:
        shown += isinstance(next(events), jobs.Preview)
    ended = [events.throw(KeyboardInterrupt()), *events][-1]
    assert "after frame 3" in ended.json()["text"]
    rest = list(jobs.run(request, allow=(NET,)))
    assert sum(isinstance(event, jobs.Preview) for event in rest) == 1
    assert Path("halves.gif").read_bytes() == Path("whole.gif").read_bytes()

    for wrong, told in [
        (("logits",), "logits gives one vector"),
        (("second", "--channels", "x"), "channels: 'x': expected numbers"),
        (("second", "--objective", "second +"), "cannot read the objective"),
        (("second", "--objective", 'guide(second, "a.png")'), "without pictures"),
        (("second", "--palette", "jet"), "jet"),
    ]:
        refused(capsys, told, "watch", "sky.png", *wrong, *FLAGS, "-o", "b.gif")
    assert call("watch", "--help") == 0
    assert "--plot-keys" not in capsys.readouterr().out


# --- outlines --------------------------------------------------------------------------------


def area(line: list[tuple[float, float]]) -> float:
    """That within a closed line; below 0 where it goes the other way round."""
    pairs = itertools.pairwise(line)
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairs) / 2


def test_an_outline_of_one_peak_is_exact() -> None:
    map_ = torch.zeros(3, 3)
    map_[1, 1] = 4.0
    (line,) = outlines(map_, 1.0)
    assert line[0] == line[-1]
    assert sorted(line[1:]) == [(0.75, 1.5), (1.5, 0.75), (1.5, 2.25), (2.25, 1.5)]


def test_outlines_end_at_the_edge_and_leave_out_holes() -> None:
    (line,) = outlines(torch.ones(4, 6), 0.5)
    assert abs(area(line)) == pytest.approx(24 - 4 * 0.125)  # corners are cut
    assert {min(p) for p in zip(*line, strict=True)} == {0.0}
    ring = torch.ones(9, 9)
    ring[3:6, 3:6] = 0
    around, hole = sorted(outlines(ring, 0.5), key=lambda line: -abs(area(line)))
    assert area(around) * area(hole) < 0
    assert outlines(torch.zeros(4, 4), 0.5) == []


def test_outlines_are_those_of_another_implementation() -> None:
    measure = pytest.importorskip("skimage.measure")
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij")
    map_ = torch.exp(-((x - 15) ** 2 + (y - 18) ** 2) / 60)
    map_ += 0.8 * torch.exp(-((x - 36) ** 2 / 40 + (y - 22) ** 2 / 90))
    ours, theirs = outlines(map_, 0.3), measure.find_contours(map_.double().numpy(), 0.3)
    assert len(ours) == len(theirs) == 2

    def points(lines: Any) -> np.ndarray:
        return np.array(sorted({(round(a, 6), round(b, 6)) for line in lines for a, b in line}))

    np.testing.assert_allclose(
        points(ours), points([[(x + 0.5, y + 0.5) for y, x in line] for line in theirs]), atol=1e-5
    )


# --- story -----------------------------------------------------------------------------------


def linear() -> Network:
    """Two classes: three times the mean red, and the mean blue."""
    conv = nn.Conv2d(3, 2, 1, bias=False)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, 0], conv.weight[1, 2] = 3.0, 1.0
    layers = OrderedDict(conv=conv, pool=nn.AdaptiveAvgPool2d(1), logits=nn.Flatten())
    return Network(nn.Sequential(layers), input_size=32, classes=("red", "blue"), name="linear")


def test_what_raises_a_score_is_found_where_it_is() -> None:
    net = linear()
    image = torch.zeros(3, 32, 32)
    image[0, :, :16] = 1.0  # half of it is red, the other half black
    push = stories.push_of(net, layer_of(net, "logits"), image, 0, share=0.6)
    assert float(push.map[:, :12].min()) > 0
    assert float(push.map[:, 20:].max()) < 0
    assert push.share == pytest.approx(0.5)
    assert push.score == pytest.approx(1.5)
    assert push.covered == pytest.approx(0.75)  # that half grey
    # By chance half of both halves is grey: as much is won as is lost.
    assert push.by_chance == pytest.approx(1.5, abs=0.15)
    (line,) = push.lines
    assert max(x for x, _ in line) == pytest.approx(16, abs=0.5)
    few = stories.push_of(net, layer_of(net, "logits"), image, 0, share=0.1)
    assert few.share <= 0.1


def test_a_story_tells_what_the_network_sees(here: Path) -> None:
    net = toy_network.net()
    found = ph.story(net, "dog", seeds=2, shown=2, **DRAWN)
    assert (found.name, found.index, found.subject) == ("dog", 1, ("dog",))
    assert [drawing.seed for drawing in found.drawings] == [0, 1]
    for drawing in found.drawings:
        shown = images.resize(drawing.image[None], (32, 32))
        expected = net.activations(shown, ["logits"])["logits"][0].detach().softmax(0)
        order = expected.argsort(descending=True)[:2].tolist()
        assert [index for index, _ in drawing.chances] == order
        for index, chance in drawing.chances:
            assert chance == pytest.approx(float(expected[index]), rel=1e-4)
        assert drawing.own is not None
        assert drawing.own.index == 1
        assert drawing.second is not None
        assert drawing.second.index == next(index for index in order if index != 1)
        assert drawing.own.share <= 0.15 + 1 / 24
    assert json.loads(json.dumps(found.data()))["drawings"][1]["own"]["class"] == 1
    page = story_page(found)
    pictures = [item for item in page.items if isinstance(item, ImageItem)]
    assert len(pictures) == 2 * 3
    bars = [i for i in page.items if isinstance(i, Lines) and len(i.points) == 2]
    widths = [i.points[1][0] - i.points[0][0] for i in bars]
    chances = [chance for d in found.drawings for _, chance in d.chances]
    assert widths[1::2] == pytest.approx([max(1.0, 200 * chance) for chance in chances])
    assert list((here / "cache" / "cells").rglob("*.png"))
    dead = replace(found.drawings[0], dead=True, chances=(), own=None, second=None)
    words = [i.text for i in story_page(replace(found, drawings=(dead,))).items
             if isinstance(i, Text)]  # fmt: skip
    assert "dead" in words


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_second_class_is_the_most_probable_other(index: int) -> None:
    net = toy_network.net()
    image = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0))
    cell, s = RenderedCell(image, 0.0, False, "fp32"), checked(StorySettings, {"shown": 2})
    found = stories.drawing_of(net, layer_of(net, "logits"), index, cell, 0, s)
    shown = images.resize(image[None], (32, 32))
    scores = net.activations(shown, ["logits"])["logits"][0].tolist()
    others = [other for other in range(3) if other != index]
    assert found.second is not None
    assert found.second.index == max(others, key=scores.__getitem__)
    assert found.second.score == pytest.approx(scores[found.second.index], rel=1e-4)


def test_which_class() -> None:
    net = toy_network.net()
    assert [stories.find_class(net, w) for w in ("Dog", "1", 1, "tabby", " 2 ")] == [1, 1, 1, 2, 2]
    with pytest.raises(ObjectiveError, match="no class 'dgo'; the closest are dog"):
        ph.story(net, "dgo")
    with pytest.raises(ObjectiveError, match=r"3 classes, 0 to 2; there is no class 3"):
        ph.story(net, 3)
    nameless = Network(toy_network.net().module, input_size=32, name="nameless")
    assert stories.find_class(nameless, 2) == 2
    assert stories.class_name(nameless, 2) == "class 2"
    with pytest.raises(ObjectiveError, match="nameless has no class names"):
        ph.story(nameless, "dog")
    with pytest.raises(NetworkError, match="no layer that gives class scores"):
        ph.story(Network(nn.Sequential(nn.Conv2d(3, 4, 3)), name="maps"), 0)


def test_how_probabilities_are_written() -> None:
    values = {0.99961: "99.96 %", 0.5: "50 %", 0.0123: "1.2 %", 2.23e-4: "0.022 %", 1: "100 %"}
    assert {chance: percent(chance) for chance in values} == values
    assert percent(1e-7) == "< 0.001 %"


@pytest.fixture
def twins() -> Network:
    net = toy_network.net()
    net.classes = ("crane", "crane", "dog")
    return net


def test_a_class_is_named_so_that_it_is_found_again(twins: Network) -> None:
    assert ph.story(twins, 1, seeds=1, **DRAWN).subject == ("1",)
    assert ph.story(twins, 2, seeds=1, **DRAWN).subject == ("dog",)


def test_a_story_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--network", NET, "--size", 24, "--steps", 3, "--seeds", 1, "--device", "cpu")
    assert call("story", "tabby cat", *flags) == 0
    assert capsys.readouterr().out == "story-tabby-cat.png\n"
    manifest = Manifest.read("story-tabby-cat.png")
    assert (manifest.recipe, manifest.objectives) == ("story", ("tabby cat",))
    assert call("replay", "--network", NET, "story-tabby-cat.png") == 0
    assert "the same, pixel for pixel" in capsys.readouterr().out
    refused(capsys, "no class 'dgo'; the closest are dog", "story", "dgo", *flags)
    refused(capsys, "outlined", "story", "dog", "--outlined", 1.5, *flags)
    assert math.isfinite(manifest.settings["outlined"])
