"""Names -> networks: each scheme, its preprocessing and aliases, files and downloads gone wrong."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import threading
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision import models

from phosphene import zoo
from phosphene.errors import MissingExtraError, NetworkError, WeightsError
from phosphene.network import Network
from phosphene.zoo import (
    aliases,
    bundled,
    download,
    files,
    load_network,
    registry,
    schemes,
    torchvision,
)
from phosphene.zoo.dreamnet import MEAN, STD, DreamNet
from tests import toy_network

SQUEEZENET = models.SqueezeNet1_1_Weights.IMAGENET1K_V1


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and no way to a server."""
    monkeypatch.setenv("PHOSPHENE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("PHOSPHENE_WEIGHTS_MIRROR", "http://127.0.0.1:9")  # discard: nobody listens
    monkeypatch.setattr(torch.hub, "_hub_dir", None)


@dataclass
class Site:
    """A server of its own folder. `cut` sends only so many bytes of what it announces."""

    folder: Path
    address: str = ""
    asked: list[str] = field(default_factory=list)
    cut: int | None = None
    wait: threading.Event | None = None


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    served = Site(tmp_path / "site")
    served.folder.mkdir()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            file = served.folder / self.path.rsplit("/", 1)[1]
            if not file.is_file():
                self.send_error(404)
                return
            if served.wait:
                served.wait.wait(5)
            blob = file.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(blob)))
            self.end_headers()
            self.wfile.write(blob[: served.cut])

        def log_message(self, format: str, *args: Any) -> None:
            pass  # nothing on the tests' stderr

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    served.address = f"http://127.0.0.1:{server.server_port}/models"
    monkeypatch.setenv("PHOSPHENE_WEIGHTS_MIRROR", served.address)
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def squeezenet() -> nn.Module:
    torch.manual_seed(7)
    return models.squeezenet1_1().eval()


@pytest.fixture
def published(
    site: Site, squeezenet: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> tuple[Site, Path]:
    """Random weights on the server, under the name that torchvision believes are its own."""
    plain = site.folder / "plain.pth"
    torch.save(squeezenet.state_dict(), plain)
    digest = hashlib.sha256(plain.read_bytes()).hexdigest()
    file = plain.rename(site.folder / f"squeezenet1_1-{digest[:8]}.pth")
    monkeypatch.setattr(SQUEEZENET.value, "url", f"https://download.pytorch.org/models/{file.name}")
    return site, file


def cached(file: Path) -> Path:
    return zoo.cache_folder() / "weights" / file.name


def raised(kind: type[Exception], name: str, **given: Any) -> str:
    """The message, which is one line."""
    with pytest.raises(kind) as caught:
        load_network(name, **given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Bundled ------------------------------------------------------------------------------------------


def test_dreamnet_is_the_default_and_computes_what_its_weights_say() -> None:
    network = load_network()
    folder = bundled.DATA
    card = json.loads((folder / "dreamnet.json").read_text())
    plain = DreamNet(len(card["classes"])).eval()
    plain.load_state_dict(load_file(folder / "dreamnet.safetensors"))
    image = torch.rand(2, 3, 64, 72)
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    expected = plain((image - mean) / std)
    torch.testing.assert_close(
        network.activations(image, ["logits"])["logits"], expected, rtol=1e-4, atol=1e-4
    )
    assert (network.name, network.input_size) == ("dreamnet", 64)
    assert network.classes == tuple(entry["name"] for entry in card["classes"])
    assert network.layers["logits"].channels == len(network.classes)
    assert network.aliases == {}
    assert not any(p.requires_grad or p.is_meta for p in network.module.parameters())
    assert load_network("dreamnet").fingerprint == network.fingerprint


def test_damaged_bundled_weights_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for suffix in ("json", "safetensors"):
        shutil.copy(bundled.DATA / f"dreamnet.{suffix}", tmp_path)
    file = tmp_path / "dreamnet.safetensors"
    monkeypatch.setattr(bundled, "DATA", tmp_path)
    load_network("dreamnet")
    blob = bytearray(file.read_bytes())
    blob[-1] ^= 1
    file.write_bytes(blob)
    assert "damaged" in raised(WeightsError, "dreamnet")
    file.unlink()
    assert "not in this installation" in raised(WeightsError, "dreamnet")
    assert "dreamnet" not in [info.name for info in zoo.listing()]


def test_loading_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    load_network("dreamnet")
    load_network("squeezenet1_1:random")
    assert torch.equal(torch.rand(4), expected)


# The registry and its listing ---------------------------------------------------------------------


def test_a_newcomer_registers_a_network(request: pytest.FixtureRequest) -> None:
    for registered in (registry.NETWORKS, registry.MODEL_CARDS):
        request.addfinalizer(lambda registered=registered: registered.pop("tiny", None))

    @zoo.register_network(
        "tiny", about="one convolution", licence="MIT", source="here", size_bytes=12
    )
    def tiny() -> Network:
        return Network(nn.Sequential(nn.Conv2d(3, 4, 3)), input_size=8, name="tiny")

    assert load_network("tiny").name == "tiny"
    info = zoo.NetworkInfo("tiny", "one convolution", "bundled", 12, "MIT", "here")
    assert zoo.listing()[-1] == info
    assert "no choice of weights" in raised(NetworkError, "tiny", weights="random")
    assert "tiny" in raised(NetworkError, "tinny")
    with pytest.raises(FrozenInstanceError):
        info.name = "other"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(NetworkError, match="no ':'"):
        zoo.register_network("a:b")
    with pytest.raises(NetworkError, match="there is a network 'vgg16' already, from phosphene"):
        zoo.register_network("vgg16")(tiny)
    assert registry.MODEL_CARDS["vgg16"].source == "torchvision"


def test_the_listing_agrees_with_torchvision() -> None:
    """What it says without importing torchvision is what torchvision says."""
    plain = {info.name: info for info in zoo.listing()}
    assert next(iter(plain)) == "dreamnet"
    weights = bundled.weights_path("dreamnet")
    assert plain["dreamnet"].weights == "bundled"
    assert plain["dreamnet"].size_bytes == weights.stat().st_size
    every = {info.name: info for info in zoo.listing(all=True)}
    assert len(every) > len(plain) + 80
    for name in ("googlenet", "inception_v3", "vgg16", "resnet50"):
        member: Any = models.get_model_weights(name)["DEFAULT"]
        assert registry.MODEL_CARDS[name].file == member.url.rsplit("/", 1)[1]
        assert plain[name].size_bytes == every[f"torchvision:{name}"].size_bytes
        assert plain[name].weights == "to fetch"
    assert "torchvision:vgg16:IMAGENET1K_FEATURES" in every
    assert "SWAG" in every["torchvision:vit_b_16:IMAGENET1K_SWAG_E2E_V1"].licence


def test_a_fetched_network_is_listed_as_cached() -> None:
    folder = zoo.cache_folder() / "weights"
    folder.mkdir(parents=True)
    (folder / "googlenet-1378be20.pth").touch()
    status = {info.name: info.weights for info in zoo.listing()}
    assert (status["googlenet"], status["vgg16"]) == ("cached", "to fetch")


def test_the_cache_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert zoo.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("PHOSPHENE_CACHE")
    assert zoo.cache_folder().name.lower() in ("phosphene", "cache")
    assert zoo.cache_folder().is_absolute()


def test_neither_torchvision_nor_timm_comes_with_the_zoo() -> None:
    code = (
        "import sys; from phosphene import zoo; zoo.listing(); zoo.load_network('dreamnet'); "
        "print([m for m in ('torchvision', 'timm', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_a_name_means_is_answered_without_torch() -> None:
    code = (
        "import sys; from phosphene.zoo import name_forms, names_code, network_label\n"
        "for name in ('dreamnet', 'dreamnet:random', 'googlenet:random', 'timm:a', "
        "'torchvision:vgg16', 'file:a/b.pth@timm:a', 'file:a/b.pth@a.b:c', 'a.b:c'):\n"
        "    print(names_code(name), network_label(name))\n"
        "name_forms()\n"
        "print([m for m in ('torch', 'numpy', 'torchvision', 'timm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "False dreamnet", "False dreamnet:random", "False googlenet:random", "False timm:a",
        "False torchvision:vgg16", "False file:b.pth@timm:a", "True file:b.pth@a.b:c",
        "True a.b:c", "[]",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("resnet18", False),
        ("resnet18:random", False),
        ("mine:build", True),
        ("file:a.pth@mine:build", True),
        ("file:a.pth@resnet18:random", False),
        ("file:a.pth", False),
        ("file:a.pth@file:b.pth", False),
        ("file:a.pth@file:b.pth@mine:build", True),
        ("file:", False),
        ("nothing", False),
        ("", False),
    ],
)
def test_names_that_run_code(name: str, code: bool) -> None:
    assert zoo.names_code(name) is code


def test_a_scheme_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading, replay's safety, labels, the listing and the choices follow from the table."""
    net = Network(nn.Conv2d(3, 4, 3), input_size=8, name="one")
    info = zoo.NetworkInfo("made:one", "one convolution", "bundled", None, "MIT", "here")
    made = schemes.Scheme(
        lambda name, weights, classes: net,
        prefix="made",
        form="made:NAME",
        choices=lambda: ["made:one"],
        listing=lambda everything: [info],
        label=str.upper,
        runs_code=lambda name: name == "made:code",
    )
    monkeypatch.setattr(schemes, "SCHEMES", (*schemes.SCHEMES, made))
    assert load_network("made:one") is net
    assert not zoo.names_code("made:one")
    assert zoo.names_code("made:code")
    assert zoo.network_label("made:one") == "MADE:ONE"
    assert zoo.listing()[-1] is info
    message = raised(NetworkError, "mad:one@")
    assert "made:one" in message
    assert message.endswith("and made:NAME")


def test_a_file_is_named_without_its_folder() -> None:
    assert zoo.network_label("file:/home/me/w@1.pt@resnet18") == "file:w@1.pt@resnet18"
    for name in ("resnet18", "vgg16:IMAGENET1K_V1", "a.b:c", "nothing", ""):
        assert zoo.network_label(name) == name


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("dreamnett", "the closest are dreamnet"),
        ("GoogLeNet", "the closest are googlenet"),
        ("inceptionv3", "inception_v3"),
        ("torchvision:resnet5", "resnet50"),
        ("torchvision:fcn_resnet50", "no classifier but a detector, segmenter or the like"),
        ("torchvision:fasterrcnn_resnet50_fpn", "resnet"),
        ("torchvision:vgg16:IMAGENET", "IMAGENET1K_V1, IMAGENET1K_FEATURES, random"),
        ("googlenet:FOO", "no weights 'FOO'"),
        ("dreamnet:FOO", "no weights 'FOO'"),
        ("timm:resnett18", "the closest are"),
        ("file:mine.pth", "file:PATH@NETWORK"),
        ("file:@resnet18", "file:PATH@NETWORK"),
        ("file:a.pth@file:b.pth@resnet18", "is not there|no file"),
        ("mine.safetensors", "file:PATH@NETWORK"),
        ("", "dreamnet"),
        ("a:b:c", "torchvision:NAME"),
    ],
)
def test_unknown_names_get_the_choices(name: str, choices: str) -> None:
    message = raised(NetworkError, name)
    assert any(part in message for part in choices.split("|")), message


def test_weights_are_said_once() -> None:
    assert "too much" in raised(NetworkError, "googlenet:random", weights="random")
    assert "too much" in raised(NetworkError, "json:dumps", weights="random")
    assert "too much" in raised(NetworkError, "file:x.pth@resnet18", weights="random")


# torchvision --------------------------------------------------------------------------------------


def test_random_weights_are_the_same_each_time_and_keep_the_signal() -> None:
    one, other = (
        load_network("squeezenet1_1:random"),
        load_network("squeezenet1_1", weights=zoo.RANDOM),
    )
    assert one.fingerprint == other.fingerprint
    assert one.name == "squeezenet1_1"
    last = list(one.layers)[-1]
    spread = one.activations(torch.rand(1, 3, 64, 64), [last])[last].std()
    assert 1e-2 < float(spread) < 1e2


@pytest.mark.parametrize(
    ("name", "size", "mean", "std", "classes"),
    [
        ("googlenet:random", 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1000),
        ("inception_v3:random", 299, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1000),
    ],
)
def test_preprocessing_and_classes_come_with_the_weights(
    name: str, size: int, mean: tuple[float, ...], std: tuple[float, ...], classes: int
) -> None:
    network = load_network(name)
    assert (network.name, network.input_size) == (name.removesuffix(":random"), size)
    assert network.shift == pytest.approx(mean)
    assert network.scale == pytest.approx(std)
    assert len(network.classes) == classes
    assert network.classes[281] == "tabby"
    assert network.module.transform_input is True
    assert set(network.aliases.values()) <= set(network.layers)


def test_the_vgg_features_take_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """VGG16's IMAGENET1K_FEATURES was trained on 0..255 values less a mean, not over a std."""
    torch.manual_seed(0)
    layers = models.vgg.make_layers([8, 8, "M", 8, 8, "M"])
    small = models.VGG(layers, init_weights=False)
    member = models.VGG16_Weights.IMAGENET1K_FEATURES
    monkeypatch.setattr(download, "weights_file", lambda url, network: tmp_path / url)
    monkeypatch.setattr(files, "read_state", lambda path: {})
    monkeypatch.setattr(models, "get_model", lambda *_, **__: small)
    network = load_network("vgg16:IMAGENET1K_FEATURES")
    image = torch.rand(1, 3, 4, 4)
    mean = torch.tensor(member.transforms().mean).view(1, 3, 1, 1)
    torch.testing.assert_close(network.preprocess(image), 255 * (image - mean))
    assert network.classes == ()
    assert network.name == "vgg16"
    assert network.aliases == {
        "conv1_1": "features.0", "relu1_1": "features.1", "conv1_2": "features.2",
        "relu1_2": "features.3", "pool1": "features.4", "conv2_1": "features.5",
        "relu2_1": "features.6", "conv2_2": "features.7", "relu2_2": "features.8",
        "pool2": "features.9",
    }  # fmt: skip


def test_vgg16_names_are_those_of_the_paper() -> None:
    """Of the real one, built without its 138 million weights."""
    with torch.device("meta"):
        full, normed = models.vgg16(init_weights=False), models.vgg16_bn(init_weights=False)
    names = aliases.layer_aliases("vgg16", full)
    assert names["relu4_3"] == "features.22"  # as neural style's readers know it
    assert names["conv5_3"] == "features.28"
    assert names["relu5_3"] == "features.29"
    assert names["pool5"] == "features.30"
    assert len(names) == 13 + 13 + 5
    assert aliases.layer_aliases("vgg16_bn", normed)["relu4_3"] == "features.32"


def test_keras_and_caffe_names_reach_the_same_maps() -> None:
    inception = aliases.layer_aliases("inception_v3", nn.Module())
    assert inception["mixed0"] == "Mixed_5b"
    assert inception["mixed3"] == "Mixed_6a"
    assert inception["mixed7"] == "Mixed_6e"
    assert inception["mixed10"] == "Mixed_7c"
    assert len(inception) == 11
    network = load_network("googlenet:random")
    # Channels of each, from the paper's table 1.
    for name, channels in {
        "conv1/7x7_s2": 64, "conv2/3x3_reduce": 64, "conv2/3x3": 192, "pool2/3x3_s2": 192,
        "inception_3a/output": 256, "inception_4c/output": 512, "inception_4c/1x1": 128,
        "inception_4c/3x3_reduce": 128, "inception_4c/3x3": 256, "inception_4c/5x5_reduce": 24,
        "inception_4c/pool_proj": 64, "inception_5b/output": 1024, "loss3/classifier": 1000,
    }.items():  # fmt: skip
        assert network.layers[network.resolve(name)].channels == channels, name


@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "densenet121"])
def test_weights_are_treated_as_torchvision_treats_them(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its own loader, with the same file in its cache, is the oracle."""
    member: Any = models.get_model_weights(name)["DEFAULT"]
    network = load_network(f"{name}:random")  # without auxiliary heads
    state = network.module.state_dict()
    if name in ("googlenet", "inception_v3"):
        settings = {"aux_logits": True, "init_weights": False, "transform_input": True}
        state = models.get_model(name, weights=None, **settings).state_dict() | state
    if name == "densenet121":  # its file has keys of long ago
        state = {re.sub(r"(norm|relu|conv)([12])\.", r"\1.\2.", k): v for k, v in state.items()}
        state = {key: v for key, v in state.items() if not key.endswith("num_batches_tracked")}
        assert "features.denseblock1.denselayer1.norm.1.weight" in state
    file = Path(torch.hub.get_dir()) / "checkpoints" / member.url.rsplit("/", 1)[1]
    file.parent.mkdir(parents=True)
    torch.save(state, file)
    monkeypatch.setattr(download, "_sha256", lambda path: path.stem.rsplit("-", 1)[1])
    expected, got = models.get_model(name, weights=member).eval(), load_network(name)
    assert [key for key, _ in got.module.named_modules()] == [
        k for k, _ in expected.named_modules()
    ]
    assert got.fingerprint == Network(expected).fingerprint
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(got.module(image), expected(image))


def test_every_kind_of_torchvision_builder_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings that stand for a weights enum are those its own builder takes."""
    for name in ("googlenet", "inception_v3", "vgg11", "vit_b_16", "densenet121", "mnasnet0_5"):
        for member in models.get_model_weights(name):
            with torch.device("meta"):
                made = models.get_model(
                    name, weights=None, **torchvision._builder_settings(name, member)
                )
            assert isinstance(made, nn.Module)


# Downloads ----------------------------------------------------------------------------------------


def test_weights_are_fetched_checked_and_fetched_once(
    published: tuple[Site, Path], squeezenet: nn.Module
) -> None:
    site, file = published
    network = load_network("torchvision:squeezenet1_1")
    assert network.fingerprint == Network(squeezenet).fingerprint
    assert network.classes == tuple(SQUEEZENET.meta["categories"])
    image = torch.rand(1, 3, 64, 64)
    expected = squeezenet(network.preprocess(image))
    last = "classifier.3"  # average pooling; forward() flattens it
    got = network.activations(image, [last])[last].flatten(1)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert load_network("squeezenet1_1:IMAGENET1K_V1").fingerprint == network.fingerprint
    assert site.asked == [f"/models/{file.name}"]
    assert sorted(os.listdir(cached(file).parent)) == [download.PINS, file.name]
    listed = {info.name: info for info in zoo.listing(all=True)}
    assert listed["torchvision:squeezenet1_1"].weights == "cached"


@pytest.mark.parametrize("folder", ["plain folder", "file address"])
def test_a_mirror_may_be_a_folder(
    folder: str, published: tuple[Site, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, file = published
    place = str(site.folder) if folder == "plain folder" else site.folder.as_uri()
    monkeypatch.setenv("PHOSPHENE_WEIGHTS_MIRROR", place)
    load_network("squeezenet1_1")
    assert cached(file).is_file()
    assert site.asked == []


def test_torchs_own_cache_is_used(published: tuple[Site, Path], tmp_path: Path) -> None:
    site, file = published
    hub = tmp_path / "torch" / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    shutil.copy(file, hub)
    load_network("squeezenet1_1")
    assert site.asked == []
    (hub / file.name).write_bytes(b"something else of that name")
    load_network("squeezenet1_1")
    assert len(site.asked) == 1
    assert (hub / file.name).read_bytes() == b"something else of that name"


def test_a_wrong_hash_leaves_nothing(published: tuple[Site, Path]) -> None:
    _, file = published
    blob = file.read_bytes()
    file.write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))
    message = raised(WeightsError, "squeezenet1_1")
    assert "wrong hash" in message
    assert os.listdir(cached(file).parent) == []
    file.write_bytes(blob)
    load_network("squeezenet1_1")


def test_a_broken_off_transfer_leaves_nothing(published: tuple[Site, Path]) -> None:
    site, file = published
    site.cut = 1000
    message = raised(WeightsError, "squeezenet1_1")
    assert f"broke off after 1000 of {file.stat().st_size} bytes" in message
    assert os.listdir(cached(file).parent) == []


def test_an_interrupt_leaves_nothing(
    published: tuple[Site, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, file = published

    def interrupt(*_: object) -> None:
        assert os.listdir(cached(file).parent) != []
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load_network("squeezenet1_1")
    assert os.listdir(cached(file).parent) == []


def test_what_a_killed_download_left_is_cleared_away(published: tuple[Site, Path]) -> None:
    _, file = published
    folder = cached(file).parent
    folder.mkdir(parents=True)
    old, new = folder / "old.pth.1.part", folder / "new.pth.2.part"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    load_network("squeezenet1_1")
    assert set(os.listdir(folder)) == {"new.pth.2.part", file.name, download.PINS}


def test_a_missing_file_says_where_to_put_it(published: tuple[Site, Path]) -> None:
    site, file = published
    file.unlink()
    message = raised(WeightsError, "squeezenet1_1")
    for part in ("Not Found", f"{site.address}/{file.name}", str(cached(file).parent),
                 "--network dreamnet"):  # fmt: skip
        assert part in message
    assert os.listdir(cached(file).parent) == []


def test_without_a_network_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    message = raised(WeightsError, "googlenet")
    for part in ("googlenet-1378be20.pth", "127.0.0.1:9", str(zoo.cache_folder() / "weights"),
                 "PHOSPHENE_WEIGHTS_MIRROR", "--network dreamnet needs no download"):  # fmt: skip
        assert part in message
    monkeypatch.setenv("PHOSPHENE_WEIGHTS_MIRROR", "ftp://example.org")
    assert "neither http(s) nor a file" in raised(WeightsError, "googlenet")


def test_a_damaged_file_in_the_cache_is_replaced_or_named(published: tuple[Site, Path]) -> None:
    _, file = published
    cached(file).parent.mkdir(parents=True)
    cached(file).write_bytes(b"not weights")
    hidden = file.rename(file.with_suffix(".away"))
    message = raised(WeightsError, "squeezenet1_1")
    assert f"{cached(file)} is damaged" in message
    assert cached(file).read_bytes() == b"not weights"
    hidden.rename(file)
    load_network("squeezenet1_1")
    assert cached(file).read_bytes() == file.read_bytes()


def test_loads_at_once_fetch_once(published: tuple[Site, Path]) -> None:
    site, file = published
    site.wait = threading.Event()
    found: list[str] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(str(download.weights_file(SQUEEZENET.url, "squeezenet1_1")))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    site.wait.set()
    for thread in threads:
        thread.join()
    assert found == [str(cached(file))] * 4
    assert len(site.asked) == 1


def test_processes_at_once_do_not_disturb_each_other(published: tuple[Site, Path]) -> None:
    """Each writes a name of its own, so a file under the final name is always whole."""
    site, file = published
    target = cached(file)
    prefix = file.stem.rsplit("-", 1)[1]
    url = f"{site.address}/{file.name}"
    threads = [
        threading.Thread(target=download.download, args=(url, target, prefix)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(site.asked) == 4
    assert sorted(os.listdir(target.parent)) == [download.PINS, file.name]
    assert target.read_bytes() == file.read_bytes()


def test_weights_that_do_not_fit_are_named(
    published: tuple[Site, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, file = published
    torch.save({"features.0.weight": torch.zeros(1)}, file)
    monkeypatch.setattr(download, "weights_file", lambda *_: file)
    assert "does not fit squeezenet1_1" in raised(WeightsError, "squeezenet1_1")


# Files --------------------------------------------------------------------------------------------


def saved(state: object, path: Path) -> str:
    torch.save(state, path)
    return f"file:{path}@squeezenet1_1"


def test_weights_of_a_file(tmp_path: Path, squeezenet: nn.Module) -> None:
    expected, state = Network(squeezenet).fingerprint, squeezenet.state_dict()
    plain = load_network(saved(state, tmp_path / "mine.pth"))
    assert plain.fingerprint == expected
    assert plain.name == "mine"
    assert plain.input_size == 224
    assert plain.classes[281] == "tabby"
    assert plain.scale == pytest.approx((0.229, 0.224, 0.225))
    parallel = {f"module.{key}": value for key, value in state.items()}
    assert load_network(saved(parallel, tmp_path / "p.pth")).fingerprint == expected
    checkpoint = {"epoch": 3, "state_dict": OrderedDict(parallel), "best": 0.5}
    assert load_network(saved(checkpoint, tmp_path / "c.ckpt")).fingerprint == expected
    safe = tmp_path / "with@sign.safetensors"
    save_file(state, safe)
    assert load_network(f"file:{safe}@torchvision:squeezenet1_1").fingerprint == expected


def test_a_file_with_other_classes(tmp_path: Path) -> None:
    """The commonest network of one's own: a known one, its last layer trained anew."""
    torch.manual_seed(0)
    fine = models.squeezenet1_1(num_classes=7)
    torch.save(fine.state_dict(), tmp_path / "seven.pth")
    network = load_network(f"file:{tmp_path / 'seven.pth'}@squeezenet1_1")
    assert network.fingerprint == Network(fine).fingerprint
    assert network.classes == ()
    dream = DreamNet(5)
    torch.save(dream.state_dict(), tmp_path / "five.pth")
    network = load_network(f"file:{tmp_path / 'five.pth'}@dreamnet")
    assert network.fingerprint == Network(dream).fingerprint
    assert (network.layers["logits"].channels, network.input_size) == (5, 64)


@pytest.mark.parametrize("architecture", ["dreamnet:random", "squeezenet1_1:random"])
def test_an_architecture_may_say_that_its_own_weights_are_random(
    architecture: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    own = DreamNet(5) if architecture == "dreamnet:random" else models.squeezenet1_1(num_classes=5)
    torch.save(own.state_dict(), tmp_path / "five.pth")
    network = load_network(f"file:{tmp_path / 'five.pth'}@{architecture}")
    assert network.fingerprint == Network(own).fingerprint


def test_auxiliary_heads_of_a_file_are_left_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = models.googlenet(init_weights=False, aux_logits=True, num_classes=3)
    # The heads' own number of classes must not be taken for the network's.
    torch.save(whole.state_dict(), tmp_path / "aux.pth")
    network = load_network(f"file:{tmp_path / 'aux.pth'}@googlenet")
    whole.aux1 = whole.aux2 = None
    assert network.fingerprint == Network(whole).fingerprint


def test_files_that_do_not_fit(tmp_path: Path, squeezenet: nn.Module) -> None:
    state = dict(squeezenet.state_dict())
    del state["features.3.squeeze.weight"]
    state["features.0.weight"] = torch.zeros(64, 3, 5, 5)
    state["extra.weight"] = torch.zeros(1)
    message = raised(WeightsError, saved(state, tmp_path / "a.pth"))
    for part in ("features.0.weight is (64, 3, 5, 5), not (64, 3, 3, 3)",
                 "1 missing: features.3.squeeze.weight", "1 unknown: extra.weight"):  # fmt: skip
        assert part in message
    message = raised(
        WeightsError, saved(models.shufflenet_v2_x0_5().state_dict(), tmp_path / "b.pth")
    )
    assert " more" in message
    assert len(message) < 900
    assert "not a state dict" in raised(WeightsError, saved([1, 2], tmp_path / "c.pth"))
    assert "no state dict: epoch" in raised(WeightsError, saved({"epoch": 1}, tmp_path / "d.pth"))
    assert "nothing in it" in raised(WeightsError, saved({}, tmp_path / "e.pth"))


def odd_states() -> dict[str, tuple[dict[Any, Any], str]]:
    """State dicts of the toy network with something wrong, and what is to be said of it."""
    state = toy_network.net().module.state_dict()
    head, small = "logits.weight", torch.zeros(1)
    many = {head: small.expand(2_000_000, 8), "logits.bias": small.expand(2_000_000)}
    return {
        "claims": (state | many, "logits.weight claims 64000000 bytes and has 4"),
        "lone head": ({head: torch.zeros(50_000, 8)}, "missing: first.0.weight"),
        "number as key": ({**state, 0: small}, "no state dict: 0"),
        "no class": (state | {head: torch.zeros(0, 8), "logits.bias": torch.zeros(0)}, "no class"),
        "sparse": (state | {head: state[head].to_sparse()}, "logits.weight is sparse"),
        "meta": (state | {head: state[head].to("meta")}, "logits.weight has a shape and no values"),
        "bool": (state | {head: state[head] > 0}, "logits.weight is torch.bool, not floating"),
        "int8": (state | {head: state[head].to(torch.int8)}, "is torch.int8, not floating"),
        "complex": (state | {head: state[head] + 0j}, "is torch.complex64, not floating numbers"),
    }


@pytest.mark.parametrize("which", odd_states())
def test_files_that_are_no_plain_weights(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, told = odd_states()[which]
    torch.save(state, tmp_path / "odd.pth")

    def build(name: str, weights: str | None, classes: int | None) -> Network:
        assert classes is None, "built at the size that the file claims"
        return toy_network.net()

    monkeypatch.setattr(schemes, "load", build)
    with pytest.raises(WeightsError) as caught:
        files.load(str(tmp_path / "odd.pth"), "tests.toy_network:net", None)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_halves_and_doubles_are_weights(tmp_path: Path) -> None:
    state = toy_network.net().module.state_dict()
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        torch.save({key: value.to(dtype) for key, value in state.items()}, tmp_path / "x.pth")
        load_network(f"file:{tmp_path / 'x.pth'}@tests.toy_network:net")


def test_an_archive_that_unpacks_to_more_than_it_is(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2_000_000)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    message = raised(WeightsError, f"file:{tmp_path / 'packed.pth'}@tests.toy_network:net")
    assert re.search(r"claims 80\d{5} bytes of weights and has", message)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_legacy_weights_are_told_in_a_line(tmp_path: Path) -> None:
    path, draw = tmp_path / "old.pth", random.Random(0)
    state = toy_network.net().module.state_dict()
    torch.save(state, path, _use_new_zipfile_serialization=False)
    blob = path.read_bytes()
    told: list[str] = []
    for _ in range(150):
        damaged = bytearray(blob)
        for _ in range(3):
            damaged[draw.randrange(min(len(blob), 1500))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            files.read_state(path)
        except WeightsError as error:
            told.append(str(error))
    assert len(told) > 50
    assert not any("\n" in message for message in told)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


def test_a_pickle_that_would_run_code_is_refused(
    tmp_path: Path, squeezenet: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bomb = {**squeezenet.state_dict(), "bomb": Bomb()}
    message = raised(WeightsError, saved(bomb, tmp_path / "bomb.pth"))
    assert "refused" in message
    assert "state_dict" in message
    assert "weights_only" not in message  # torch advises to switch the check off
    assert "refused" in raised(WeightsError, saved(squeezenet, tmp_path / "whole.pth"))
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Bomb(), protocol=2))
    raised(WeightsError, f"file:{tmp_path / 'plain.pkl'}@squeezenet1_1")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_damaged_files(suffix: str, tmp_path: Path, squeezenet: nn.Module) -> None:
    path = tmp_path / f"x.{suffix}"
    if suffix == "pth":
        torch.save(squeezenet.state_dict(), path)
    else:
        save_file(squeezenet.state_dict(), path)
    blob = path.read_bytes()
    for damaged in (blob[:5000], b"", b"<html>404</html>" * 99):
        path.write_bytes(damaged)
        message = raised(WeightsError, f"file:{path}@squeezenet1_1")
        assert str(path) in message
    assert "no file" in raised(WeightsError, f"file:{path}.none@squeezenet1_1")


# Your own code ------------------------------------------------------------------------------------

SCRIPT = """
import torch
from torch import nn
import phosphene as ph

def module():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())

def stated():
    return ph.Network(module(), mean=(0.5,) * 3, std=(0.5,) * 3, input_size=32, name="mine")

class Group:
    made = staticmethod(stated)

ready = module()
kept = stated()
number = 3

def wrong():
    return 3

def broken():
    raise ValueError("no such\\nthing")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    (tmp_path / "own_networks.py").write_text(SCRIPT)
    (tmp_path / "own_broken.py").write_text("import no_such_module_at_all\n")
    (tmp_path / "own_raising.py").write_text("raise RuntimeError('on import')\n")
    yield "own_networks"
    sys.modules.pop("own_networks", None)


def test_code_in_the_current_folder(own: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = load_network(f"{own}:stated")
        assert load_network(f"{own}:Group.made").name == "mine"
    assert (network.name, network.input_size) == ("mine", 32)
    image = torch.full((1, 3, 8, 8), 0.75)
    assert torch.equal(network.preprocess(image), torch.full((1, 3, 8, 8), 0.5))


@pytest.mark.parametrize("name", ["module", "ready"])
def test_a_bare_module_gets_values_as_they_are_and_says_so(own: str, name: str) -> None:
    with pytest.warns(UserWarning, match="states no preprocessing") as caught:
        network = load_network(f"{own}:{name}")
    assert caught[0].filename == __file__
    image = torch.rand(1, 3, 8, 8)
    assert torch.equal(network.preprocess(image), image)
    if name == "ready":  # the module in the file stays trainable
        ready = sys.modules[own].ready
        assert all(parameter.requires_grad for parameter in ready.parameters())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("own_networks:moduel", "the closest are module"),
        ("own_networks:number", "not a network or a function"),
        ("own_networks:wrong", "gave a int"),
        ("own_networks:broken", "failed: ValueError: no such thing"),
        ("own_networks:Group.mode", "made"),
        ("own_absent:build", "no module 'own_absent'"),
        ("own_broken:build", "importing own_broken failed: No module named 'no_such_module"),
        ("own_raising:build", "importing own_raising failed: RuntimeError: on import"),
    ],
)
def test_code_that_gives_no_network(own: str, name: str, expected: str) -> None:
    assert expected in raised(NetworkError, name)


def test_weights_of_a_file_for_code_of_ones_own(own: str, tmp_path: Path) -> None:
    weights = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    torch.save(weights.state_dict(), tmp_path / "own.pth")
    network = load_network(f"file:own.pth@{own}:stated")
    assert network.fingerprint == Network(weights).fingerprint
    assert (network.name, network.input_size) == ("own", 32)
    kept = load_network(f"{own}:kept")
    before = kept.fingerprint
    assert load_network(f"file:own.pth@{own}:kept").fingerprint == network.fingerprint
    assert Network(kept.module).fingerprint == before
    torch.save(nn.Sequential(nn.Conv2d(3, 5, 3)).state_dict(), tmp_path / "own.pth")
    assert "0.weight is (5, 3, 3, 3), not (4, 3, 3, 3)" in raised(
        WeightsError, f"file:own.pth@{own}:stated"
    )


# timm ---------------------------------------------------------------------------------------------


def test_timm_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert 'pip install "phosphene[timm]"' in raised(MissingExtraError, "timm:resnet18")


def test_timm_networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    network = load_network("timm:resnet10t.c3_in1k:random")
    config = timm.get_pretrained_cfg("resnet10t.c3_in1k")
    assert network.name == "resnet10t.c3_in1k"
    assert network.input_size == config.input_size[-1]
    assert network.shift == pytest.approx(config.mean)
    assert network.scale == pytest.approx(config.std)

    def no_hub(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route\nto the hub")

    import timm.models._builder as builder

    monkeypatch.setattr(builder, "load_state_dict_from_hf", no_hub)
    message = raised(WeightsError, "timm:resnet10t.c3_in1k")
    assert "no route to the hub" in message
    assert "--network dreamnet" in message
    torch.save(network.module.state_dict(), tmp_path / "t.pth")
    again = load_network(f"file:{tmp_path / 't.pth'}@timm:resnet10t.c3_in1k")
    assert again.fingerprint == network.fingerprint
