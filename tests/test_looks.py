"""What a dream is by default, through which network, and what an older file's silence means."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from phosphene.cli import main
from phosphene.errors import NetworkError, RecipeError
from phosphene.image import draw_sky, save_image
from phosphene.jobs import InputFile, Request, prepare
from phosphene.manifest.schema import checked_settings
from phosphene.network import Network
from phosphene.objectives import parse
from phosphene.recipes.dream import DREAM, DreamSettings, dream
from phosphene.recipes.presets import PRESETS, Preset
from phosphene.recipes.steps.stages import dreamable
from phosphene.zoo import load_network, named_architecture
from tests.on import DEVICE

# What a published loop does not say: where it is computed, and what is done with the result.
NOT_OF_THE_LOOP = {
    *(
        "preset",
        "strength",
        "start_noise",
        "smallest_octave",
        "rest",
        "keep_colors",
        "blend",
        "seed",
    ),
    *("device", "precision", "tile", "memory"),
}
OLD = {"natural": 0.0, "smallest_octave": 2.0, "gradient_transforms": "", "value_limit": None}


# Presets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in PRESETS if PRESETS[name].published])
def test_a_published_loop_leaves_nothing_to_our_own_defaults(name: str) -> None:
    assert PRESETS[name].settings.keys() == DreamSettings.model_fields.keys() - NOT_OF_THE_LOOP
    assert not PRESETS[name].by_network


@pytest.mark.parametrize("network", ["dreamnet", "dreamnet-robust"])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_names_layers_that_the_bundled_networks_have(name: str, network: str) -> None:
    goal = parse(PRESETS[name].objective_for(network)).bound(load_network(network))
    assert goal.layers


@pytest.mark.parametrize("name", PRESETS)
def test_what_a_preset_says_by_network_are_settings(name: str) -> None:
    for pattern, settings in PRESETS[name].by_network.items():
        found = DREAM.checked_settings({"preset": name}, pattern.replace("*", ""))
        assert settings.items() <= found.model_dump().items()


@pytest.fixture
def by_network(monkeypatch: pytest.MonkeyPatch) -> Preset:
    """A preset that says something of some networks."""
    preset = Preset(
        "mine",
        "",
        "",
        "vgg16",
        {"vgg1?": "features.5"},
        {"steps": 3, "clip": 2.0},
        {"vgg*": {"steps": 7}, "*": {"clip": 4.0}},
    )
    monkeypatch.setitem(PRESETS, "mine", preset)
    return preset


def test_settings_by_network_stand_between_the_presets_and_those_given(by_network: Preset) -> None:
    def found(given: dict[str, Any], network: str) -> tuple[int, float | None]:
        settings: Any = DREAM.checked_settings({"preset": "mine", **given}, network)
        return settings.steps, settings.clip

    assert found({}, "vgg16") == (7, 2.0)  # the first pattern that fits, alone
    assert found({}, "resnet18") == (3, 4.0)
    assert found({"steps": 2}, "vgg16") == (2, 2.0)
    assert by_network.objective_for("vgg19") == "features.5"
    assert (by_network.names("vgg11"), by_network.names("vgg11_bn")) == (True, False)


def test_a_request_has_the_settings_of_its_network_and_a_function_too(by_network: Preset) -> None:
    def asked(network: str, **settings: Any) -> Any:
        given = {"preset": "mine", **settings}
        return Request(recipe="dream", network=network, settings=given).checked_settings()

    assert asked("file:a.pth@torchvision:vgg16").steps == 7
    assert asked("timm:vgg11.tv_in1k").steps == 7
    assert asked("resnet18").steps == 3
    assert asked("vgg16", steps=2).steps == 2
    net = Network(nn.Sequential(nn.Conv2d(3, 4, 3)), name="mine", architecture="vgg16")
    first = next(iter(dream.steps(draw_sky(40, 48), net, '"0"', preset="mine", octaves=1)))
    assert first.steps == 7


def test_a_command_line_has_the_settings_of_its_network(tmp_path: Path) -> None:
    save_image(draw_sky(40, 48), tmp_path / "photo.png")

    def asked(network: str, *more: str) -> dict[str, Any]:
        photo, job = str(tmp_path / "photo.png"), tmp_path / "job.json"
        words = ["dream", photo, "--network", network, *more, "-o", str(tmp_path / "o.png")]
        assert main([*words, "--dry-run", "--save-request", str(job), "--force"]) == 0
        return json.loads(job.read_text())["settings"]

    ours = PRESETS["phosphene"].by_network["dreamnet-robust"]
    plain = DreamSettings.model_validate({})
    assert ours["smooth"] != plain.smooth
    assert asked("dreamnet-robust")["smooth"] == ours["smooth"]
    assert asked("dreamnet-robust", "--smooth", "0.5")["smooth"] == 0.5
    assert asked("dreamnet")["smooth"] == plain.smooth


CODE = """
import torch
from phosphene import Network

def robust():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
    return Network(module, name="mine", architecture="vgg16", input_size=16)
"""


def test_code_has_the_settings_of_its_architecture_by_whichever_way_it_is_named(
    by_network: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "looks_code.py").write_text(CODE)
    save_image(draw_sky(40, 48), tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name, given = "looks_code:robust", {"preset": by_network.name, "octaves": 1}
    first = next(iter(dream.steps(draw_sky(40, 48), name, '"0"', **given)))
    assert first.steps == 7
    words = ["dream", "photo.png", "--network", name, "--objective", '"0"', "--preset", "mine"]
    for more, steps in ([], 7), (["--steps", "2"], 2):
        assert main([*words, *more, "--dry-run", "--save-request", "job.json", "--force"]) == 0
        assert json.loads((tmp_path / "job.json").read_text())["settings"]["steps"] == steps


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("dreamnet-robust", "dreamnet-robust"),
        ("squeezenet1_1:random", "squeezenet1_1"),
        ("torchvision:squeezenet1_1:random", "squeezenet1_1"),
        ("timm:resnet18:random", "resnet18"),
        ("file:mine.safetensors@squeezenet1_1", "squeezenet1_1"),
    ],
)
def test_a_name_tells_the_architecture_that_the_network_has(
    name: str, architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if name.startswith("file:"):
        state = load_network("squeezenet1_1:random").module.state_dict()
        save_file(state, "mine.safetensors")
    assert named_architecture(name) == architecture
    assert load_network(name).architecture == architecture


def test_of_code_no_architecture_is_told() -> None:
    assert named_architecture("mine:vgg16") == ""
    assert named_architecture("file:a.pth@mine:vgg16") == ""
    known = "import sys; from phosphene.zoo import named_architecture as n; n('vgg16:random')"
    code = f"{known}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# What is not said ---------------------------------------------------------------------------------


def test_what_an_older_recipe_does_not_say_is_what_it_was() -> None:
    whole = DreamSettings.model_validate({}).model_dump(mode="json")
    older = {name: value for name, value in whole.items() if name not in {*OLD, "rest"}}
    assert whole["natural"] > 0
    assert checked_settings(DREAM, older).model_dump() == {**whole, **OLD}
    # A request that was completed by an older version is one of those; what asks for less is not.
    complete = Request(recipe="dream", settings=older)
    assert complete.checked_settings().model_dump() == {**whole, **OLD}
    asked = Request(recipe="dream", settings={name: older[name] for name in ("steps", "seed")})
    by_default = DREAM.checked_settings({}, "dreamnet")  # the network that a request has
    assert asked.checked_settings() == by_default
    with pytest.raises(RecipeError, match="natural"):
        Request(recipe="dream", settings={"natural": 2}).checked_settings()


def test_a_key_is_as_it_was_where_later_settings_change_nothing() -> None:
    whole = DreamSettings.model_validate({}).model_dump(mode="json")
    plain = Request(recipe="dream", settings={**whole, **OLD}).identity("0")
    assert not plain["settings"].keys() & {*OLD, "rest"}
    now = Request(recipe="dream", settings=whole).identity("0")
    assert {"natural", "smallest_octave"} <= now["settings"].keys()


# Any network --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer", "side"),
    [
        ("resnet18", "layer3", 64),
        ("vgg11", "features.19", 64),
        ("squeezenet1_0", "features", 64),
        ("mnasnet0_5", "layers.11", 64),
        ("timm:convnext_tiny", "stages.2", 64),
        pytest.param("convnext_tiny", "features.5", 64, marks=pytest.mark.slow),
        pytest.param("vit_b_16", "encoder.layers.encoder_layer_6", 224, marks=pytest.mark.slow),
        ("timm:vit_tiny_patch16_224", "blocks.6", 224),
    ],
)
def test_through_any_network_a_layer_is_chosen(name: str, layer: str, side: int) -> None:
    net = load_network(f"{name}:random")
    assert dreamable(net) == layer
    photo = draw_sky(side, side, seed=1)
    found = dream(photo, net, octaves=1, steps=1, device=DEVICE, precision="fp32")
    assert torch.isfinite(found).all()
    assert (found - photo).abs().max() > 1e-3
    named = dream(photo, net, layer, octaves=1, steps=1, device=DEVICE, precision="fp32")
    assert torch.equal(found, named)


class Scores(nn.Module):
    """Vectors alone."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Flatten()
        self.linear = nn.Linear(3 * 8 * 8, 4)

    def forward(self, image: Tensor) -> Tensor:
        return self.linear(self.flat(image))


def test_a_network_of_vectors_is_refused() -> None:
    net = Network(Scores(), input_size=8, name="scores")
    with pytest.raises(NetworkError, match="scores has no layer of maps or tokens to choose; name"):
        dream(draw_sky(8, 8), net)


def test_maps_of_class_scores_are_taken_last() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1))
    net.append(nn.Flatten())
    assert dreamable(Network(net, input_size=64)) == "0"
    only = nn.Sequential(nn.Conv2d(3, 5, 3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert dreamable(Network(only, input_size=64)) == "0"


def test_a_stage_is_taken_and_not_what_the_next_one_begins_with() -> None:
    """A bottleneck's first convolution has the maps of the stage before."""
    parts = {"stage": nn.Conv2d(3, 8, 3, 4, 1), "next": nn.Sequential(nn.Conv2d(8, 16, 1))}
    net = nn.Sequential()
    for name, part in parts.items():
        net.add_module(name, part)
    parts["next"].append(nn.Conv2d(16, 16, 3, 4, 1))
    assert dreamable(Network(net, input_size=56)) == "stage"


def test_whoever_asks_is_told_what_was_chosen(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    save_image(draw_sky(40, 48), photo)

    def notes(network: str, objectives: tuple[str, ...] = ()) -> list[str]:
        request = Request(
            recipe="dream",
            network=network,
            objectives=objectives,
            inputs={"photo": InputFile(path=str(photo))},
            outputs={"picture": str(tmp_path / "dream.png")},
        )
        return [note.text for note in prepare(request).notes if not note.detail]

    (told,) = notes("mnasnet0_5:random")
    assert "knows no layers of mnasnet0_5; chosen: layers.11, of stride 16: --objective" in told
    assert notes("mnasnet0_5:random", ("layers.11",)) == []
    assert notes("resnet18:random") == []
    assert notes("dreamnet") == []
