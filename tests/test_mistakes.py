"""What people type first and get wrong: each is told in a line that says what to type instead."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models

import phosphene
from phosphene.cli import main
from phosphene.errors import (
    ImageError,
    InputTooSmallError,
    NetworkError,
    ObjectiveError,
    SettingsError,
)
from phosphene.explain.layers import class_of
from phosphene.explain.units import find_unit
from phosphene.network import Network
from phosphene.objectives import parse, parse_tree
from phosphene.objectives.text import MOST_CHANNELS, expanded
from phosphene.recipes.base import recipe_named, recipe_names
from phosphene.recipes.dream import DreamSettings
from phosphene.settings import checked
from phosphene.zoo import load_network, timm

Told = Callable[..., str]


@pytest.fixture
def told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Told:
    """What a command that fails says, in its one line, in a folder with a picture `sky.png`."""
    Image.new("RGB", (64, 48), (90, 120, 200)).save(tmp_path / "sky.png")
    monkeypatch.chdir(tmp_path)

    def run(*words: str, code: int) -> str:
        assert main(list(words)) == code
        err = capsys.readouterr().err
        assert err.count("\n") == 1, err
        assert "unexpected" not in err
        assert [path.name for path in tmp_path.iterdir()] == ["sky.png"]
        return err

    return run


# The class scores of any network ------------------------------------------------------------------


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """SqueezeNet from a file: its scores are a map of one position."""
    path = tmp_path_factory.mktemp("weights") / "mine.pth"
    torch.manual_seed(0)
    torch.save(models.squeezenet1_1(weights=None).state_dict(), path)
    return load_network(f"file:{path}@squeezenet1_1")


def test_logits_are_the_class_scores_of_a_convolutional_classifier(squeezenet: Network) -> None:
    assert squeezenet.layers["classifier"].shape == (1000, 1, 1)
    assert squeezenet.logits_layer == "classifier"
    assert squeezenet.resolve("logits") == "classifier"
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    scores = squeezenet.module(squeezenet.preprocess(picture))
    for text in ("logits:251", "logits:dalmatian", "logit(dalmatian)", "logit(251)"):
        goal = parse(text).bound(squeezenet)
        score = goal(squeezenet.activations(picture, goal.layers))
        torch.testing.assert_close(score, scores[:, 251], rtol=1e-4, atol=1e-5)


def test_units_of_a_convolutional_classifier_have_names(squeezenet: Network) -> None:
    for name in ("dalmatian", "logits:dalmatian", "logits:251", "classifier:dalmatian"):
        layer, channel = find_unit(squeezenet, name)
        assert (layer.name, channel) == ("classifier", 251)
    layer = squeezenet.layers["classifier.3"]
    assert class_of(squeezenet, layer, 251) == "dalmatian"
    assert class_of(squeezenet, squeezenet.layers["features.0"], 3) is None


def test_logits_name_the_scores_of_any_classifier(toy: Network) -> None:
    """Before, only networks with a layer of that very name could be asked for them."""
    assert load_network("resnet18:random").resolve("logits") == "fc"
    assert load_network("dreamnet").resolve("logits") == "logits"
    with pytest.raises(NetworkError, match="toy has no layer that gives class scores"):
        toy.resolve("logits")


def test_scores_that_are_averaged_outside_of_any_layer() -> None:
    class Averaged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(x)).mean((2, 3))

    network = Network(Averaged(), classes=list("abcde"), input_size=16)
    assert network.logits_layer == "head"
    picture = torch.rand(1, 3, 16, 16)
    goal = parse("logits:c").bound(network)
    expected = network.module(picture)[:, 2]
    torch.testing.assert_close(goal(network.activations(picture, goal.layers)), expected)


def test_timms_classifiers_have_class_names() -> None:
    pytest.importorskip("timm")
    network = load_network("timm:resnet18:random")
    assert network.classes[251].startswith("dalmatian")
    assert find_unit(network, "logits:dalmatian")[1] == 251


# Settings -----------------------------------------------------------------------------------------


def test_what_several_types_expect_is_one_message(told: Told) -> None:
    assert told("dream", "sky.png", "--octaves", "0", code=2) == (
        "phosphene: octaves: input should be 'auto' or greater than or equal to 1 (given: 0)\n"
    )


@pytest.mark.parametrize("name", recipe_names())
def test_numbers_that_no_machine_holds_are_told(name: str) -> None:
    recipe = recipe_named(name)
    for setting, field in recipe.settings.model_fields.items():
        if setting in ("channels", "top") or "int" not in str(field.annotation):
            continue  # channels are checked against the layer
        with pytest.raises(SettingsError, match="less than") as caught:
            checked(recipe.settings, {setting: 2**64})
        assert str(caught.value).count(str(2**64)) == 1


def test_a_setting_of_the_photograph_needs_one(told: Told) -> None:
    for start in ((), ("--start", "noise")):
        message = told("dream", *start, "--keep-colors", code=2)
        assert "--keep-colors needs a photograph" in message
    checked(DreamSettings, {"keep_colors": True})


def test_a_flag_of_another_verb_leads_to_this_ones(told: Told) -> None:
    message = told("dream", "sky.png", "--layer", "mixed4c", code=2)
    assert "--objective" in message
    assert "--tile" not in message
    assert "--layer" in told("caricature", "sky.png", "--objective", "mixed4c", code=2)
    assert "phosphene visualize mixed4c:12" in told("visualize", "--layer", "mixed4c", code=2)
    assert "Did you mean --steps?" in told("dream", "sky.png", "--stepz", "3", code=2)


# Objectives ---------------------------------------------------------------------------------------


def test_a_range_of_channels_is_an_objective_each() -> None:
    assert expanded(["mixed4c:1-4", "conv1"]) == (
        "mixed4c:1", "mixed4c:2", "mixed4c:3", "mixed4c:4", "conv1"
    )  # fmt: skip
    assert expanded(["-'a b':7-7", "10:0-1"]) == ("-'a b':7", "10:0", "10:1")
    assert expanded(["mixed4c:1 - 2*mixed4d:4"]) == ("mixed4c:1 - 2*mixed4d:4",)
    with pytest.raises(ObjectiveError, match="goes up"):
        expanded(["mixed4c:4-1"])
    with pytest.raises(ObjectiveError, match=f"{MOST_CHANNELS} channels at most"):
        expanded([f"mixed4c:0-{MOST_CHANNELS}"])


def test_a_range_of_channels_where_one_objective_is_expected(told: Told, toy: Network) -> None:
    message = told("dream", "sky.png", "--objective", "mixed4c:1-4", code=1)
    assert "mixed4c:1-4 is several objectives, channels 1 to 4, and one is expected" in message
    pictures = phosphene.visualize(toy, "second:1-3", steps=1, size=16)
    one = phosphene.visualize(toy, ["second:1", "second:2", "second:3"], steps=1, size=16)
    assert torch.equal(pictures, one)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("10", '"10"'),
        ("0.1", '"0.1"'),
        ("10:3", '"10":3'),
        ("0.1:3,4", '"0.1":3,4'),
        ("0.conv1", '"0.conv1"'),
        ("2*10:3 - .5*0.1.2", '2*"10":3 - 0.5*"0.1.2"'),
        ("1.5e3*conv1 - 2.*conv2", "1500*conv1 - 2*conv2"),
        ("1.5e-3*conv1", "0.0015*conv1"),
        ("features.10", "features.10"),
    ],
)
def test_layers_that_are_numbers_need_no_quotes(text: str, canonical: str) -> None:
    assert parse_tree(text).text == canonical
    assert parse_tree(canonical).text == canonical


def test_a_number_in_a_sum_is_still_no_layer() -> None:
    for text in ("2*10", "10 + conv1", "-3"):
        with pytest.raises(ObjectiveError, match="a layer that is called so goes in quotes"):
            parse_tree(text)


# Pictures -----------------------------------------------------------------------------------------


def test_the_size_of_a_picture_that_is_too_thin_is_its_own() -> None:
    thin = torch.full((1, 3, 1, 500), 0.5)
    with pytest.raises(InputTooSmallError, match="this one is 500×1"):
        phosphene.dream(thin, "dreamnet", steps=1, octaves=1)


def test_a_url_is_told_whole(told: Told, tmp_path: Path) -> None:
    url = "https://example.org//skies/a.jpg?size=1"
    for words in (("dream", url), ("dream", "sky.png", f"--mask={url}"), ("replay", url)):
        assert f"{url!r} is a URL, which is not read" in told(*words, code=1)
    with pytest.raises(ImageError, match="is a URL") as caught:
        phosphene.load_image(url)
    assert url in str(caught.value)
    (tmp_path / "https:").mkdir()  # a folder may be called so
    with pytest.raises(ImageError, match="there is no file"):
        phosphene.load_image("https://a.jpg")


def test_weights_by_an_absolute_path_are_no_url(told: Told, tmp_path: Path) -> None:
    name = f"file:{tmp_path}/none.pth@dreamnet"
    for words in (("layers", name), ("dream", "sky.png", f"--network={name}")):
        assert f"no file {tmp_path}/none.pth" in told(*words, code=1)
    assert "is a URL" in told("dream", f"file:{tmp_path}/sky.png", code=1)


# Downloads of timm --------------------------------------------------------------------------------


def test_without_a_network_timm_neither_retries_nor_chatters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    constants: Any = pytest.importorskip("huggingface_hub").constants

    def no_name(*_: Any, **__: Any) -> None:
        raise socket.gaierror("no such name")

    monkeypatch.setattr(timm.urllib.request, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    before = constants.HF_HUB_OFFLINE
    logger = logging.getLogger("huggingface_hub")
    with timm._patient_only_online():
        assert constants.HF_HUB_OFFLINE is True
        assert not logger.isEnabledFor(logging.WARNING)
    assert before == constants.HF_HUB_OFFLINE
    assert logger.isEnabledFor(logging.WARNING)
    monkeypatch.setattr(timm.urllib.request, "getproxies", lambda: {"https": "http://proxy"})
    with timm._patient_only_online():
        assert before == constants.HF_HUB_OFFLINE
