"""Names of networks, and what they load.

    dreamnet                          bundled, like dreamnet-robust: nothing to download
    googlenet, inception_v3, vgg16    torchvision's; so is every other name of its classifiers
    torchvision:vgg16:IMAGENET1K_FEATURES     the same, with weights that are not the default ones
    timm:convnext_tiny.fb_in22k       timm's, with the extra of that name
    file:mine.safetensors@resnet18    your own weights for an architecture that has a name
    package.module:function           your own code: a Network or an nn.Module, or what gives one

`:random` behind a name of an architecture gives seeded random weights: `googlenet:random`.

Downloads are checked against the hash that their file name publishes and kept in
`cache_folder() / "weights"`; `PHOSPHENE_WEIGHTS_MIRROR` (an address or a folder) takes the place of
torchvision's server. Weights are never read as a pickle that could run code.
"""

from __future__ import annotations

import functools
import hashlib
import http.client
import importlib
import inspect
import json
import math
import os
import pickle
import re
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import platformdirs
import torch
from torch import Tensor, nn

from phosphene.dreamnet import DreamNet
from phosphene.errors import MissingExtraError, NetworkError, WeightsError, suggest
from phosphene.network import Network

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

Loader = TypeVar("Loader", bound=Callable[..., Network])
RANDOM = "random"
FILE_SYNTAX = "file:PATH@NETWORK, for example file:mine.safetensors@torchvision:resnet18"

# name -> what loads it
NETWORKS: dict[str, Callable[..., Network]] = {}
_CARDS: dict[str, _Card] = {}
_DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class _Card:
    about: str
    licence: str
    source: str
    size_bytes: int | None
    file: str | None


@dataclass(frozen=True)
class NetworkInfo:
    """One line of the listing. `size_bytes` is that of the weights' file, None if unknown."""

    name: str
    about: str
    weights: Literal["bundled", "cached", "to fetch"]
    size_bytes: int | None
    licence: str
    source: str


def register_network(
    name: str,
    *,
    about: str = "",
    licence: str = "",
    source: str = "",
    size_bytes: int | None = None,
    file: str | None = None,
) -> Callable[[Loader], Loader]:
    """Register a function that gives a `Network`, by a name for `load_network` and `--network`.

    The function takes nothing, or `weights`, where there is a choice. `file` is the name of the
    weights' file in the cache, for networks that fetch theirs.

    >>> @register_network("mine", about="trained on my own pictures", licence="MIT")
    ... def mine() -> Network:
    ...     return Network(build(), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    """

    if not name or re.search(r"[:@\s]", name):
        raise NetworkError(f"a network's name has no ':', '@' or blank: {name!r}")

    def register(loader: Loader) -> Loader:
        NETWORKS[name] = loader
        _CARDS[name] = _Card(about, licence, source, size_bytes, file)
        return loader

    return register


def load_network(name: str = "dreamnet", *, weights: str | None = None) -> Network:
    """The network of that name, see the top of this file.

    weights: of several, the one (`IMAGENET1K_V1`, as torchvision calls them), or `random`. The same
        can stand behind a colon at the end of the name.

    A name `package.module:function` imports that module, from the current folder too, and calls the
    function: it runs code that you name. No other name does.

    Raises `NetworkError` for a name that is not known, `WeightsError` for weights that cannot be
    had, are damaged or do not fit, `MissingExtraError` for `timm:` without timm.
    """
    return _load(name, weights, None)


def listing(*, all: bool = False) -> list[NetworkInfo]:
    """The networks that have a name of their own; `all` adds every classifier of torchvision.

    Looks at the files that are there, not into them. Only `all` imports torchvision.
    """
    found = []
    for name, card in _CARDS.items():
        bundled = _DATA / f"{name}.safetensors"
        size, status = card.size_bytes, "bundled"
        if name in _BUNDLED:
            if not bundled.is_file():
                continue
            size = bundled.stat().st_size
        elif card.file is not None:
            status = "cached" if _found(card.file) else "to fetch"
        found.append(NetworkInfo(name, card.about, status, size, card.licence, card.source))
    return found + _torchvision_listing() if all else found


def cache_folder() -> Path:
    """Where downloads are kept: `$PHOSPHENE_CACHE`, or the user's cache folder."""
    given = os.environ.get("PHOSPHENE_CACHE")
    folder = given or platformdirs.user_cache_dir("phosphene", appauthor=False)
    return Path(folder).expanduser()


# Names --------------------------------------------------------------------------------------------


def _load(name: str, weights: str | None, classes: int | None) -> Network:
    """`load_network`; `classes` is how many of them the weights have, if it is known."""
    schemes = {"torchvision": _torchvision, "timm": _timm}
    head, colon, rest = name.partition(":")
    if name in NETWORKS:
        return _registered(name, weights, classes)
    if colon and head == "file":
        return _file(rest, weights)
    if colon and head in schemes:
        return schemes[head](*_parted(name, rest, weights), classes)
    if colon and head in NETWORKS:
        return _registered(*_parted(name, name, weights), classes)
    if re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", name) and names_code(name):
        if weights is not None:
            raise NetworkError(f"{name} brings weights of its own, weights={weights!r} is too much")
        return _from_code(head, rest)
    if _classifier(head):
        return _torchvision(*_parted(name, name, weights), classes)
    if name.endswith((".safetensors", ".pth", ".pt", ".ckpt", ".bin")):
        raise NetworkError(f"{name!r} is a file; weights of your own are {FILE_SYNTAX}")
    choices = [*NETWORKS, *_torchvision_names()]
    raise NetworkError(
        f"no network {name!r}{suggest(name, choices)}; also torchvision:NAME, timm:NAME, "
        "file:PATH@NETWORK and package.module:function"
    )


def names_code(name: str) -> bool:
    """Whether a name would have to be a `package.module:function`, which `load_network` runs.

    Of names with a colon, those of `NETWORKS`, torchvision and timm are known not to be.
    """
    head, colon, _ = name.partition(":")
    known = name in NETWORKS or head in (*NETWORKS, "file", "torchvision", "timm")
    return bool(colon) and not known and not _classifier(head)


def _parted(name: str, rest: str, weights: str | None) -> tuple[str, str | None]:
    """Architecture and weights of `ARCHITECTURE[:WEIGHTS]`."""
    head, _, tail = rest.rpartition(":")
    if not head:
        return rest, weights
    if weights is not None:
        raise NetworkError(f"{name} names its weights already, weights={weights!r} is too much")
    return head, tail


def _registered(name: str, weights: str | None, classes: int | None) -> Network:
    loader = NETWORKS[name]
    given = {"weights": weights, "classes": classes}
    given = {key: value for key, value in given.items() if value is not None}
    takes = inspect.signature(loader).parameters
    if "classes" in given and "classes" not in takes:
        del given["classes"]
    if "weights" in given and "weights" not in takes:
        raise NetworkError(f"{name} has no choice of weights; there is no {weights!r}")
    return loader(**given)


# Bundled ------------------------------------------------------------------------------------------

_BUNDLED = ("dreamnet", "dreamnet-robust")


def _dreamnet(name: str, weights: str | None, classes: int | None) -> Network:
    if weights not in (None, RANDOM):
        raise NetworkError(f"{name} has no weights {weights!r}; there are its own, and {RANDOM}")
    file, card_file = _DATA / f"{name}.safetensors", _DATA / f"{name}.json"
    try:
        card = json.loads(card_file.read_text(encoding="utf-8"))
        blob = b"" if weights == RANDOM else file.read_bytes()
    except FileNotFoundError as error:
        raise WeightsError(f"{name} is not in this installation: no {error.filename}") from None
    names = [entry["name"] for entry in card["classes"]]
    if weights == RANDOM:
        module = _random(lambda: DreamNet(classes or len(names)))
    else:
        if hashlib.sha256(blob).hexdigest() != card["sha256"]:
            raise WeightsError(f"{file} is damaged: its SHA-256 is not that of {card_file.name}")
        from safetensors.torch import load

        with torch.device("meta"):  # no time for an initialisation that is thrown away
            module = DreamNet(len(names))
        state = {key: value.float() for key, value in load(blob).items()}
        module.load_state_dict(state, assign=True)
    return Network(
        module,
        mean=card["mean"],
        std=card["std"],
        input_size=card["trained_at"],
        classes=names if classes in (None, len(names)) else (),
        name=name,
        copy=False,
    )


@register_network(
    "dreamnet",
    about="a small GoogLeNet, trained to be dreamt with",
    licence="Apache-2.0",
    source="docs/dreamnet.md",
)
def dreamnet(*, weights: str | None = None, classes: int | None = None) -> Network:
    """The bundled network."""
    return _dreamnet("dreamnet", weights, classes)


@register_network(
    "dreamnet-robust",
    about="dreamnet, trained on perturbed pictures: calmer and larger shapes",
    licence="Apache-2.0",
    source="docs/dreamnet.md",
)
def dreamnet_robust(*, weights: str | None = None, classes: int | None = None) -> Network:
    """The bundled network, trained on adversarially perturbed pictures."""
    return _dreamnet("dreamnet-robust", weights, classes)


# torchvision --------------------------------------------------------------------------------------


def _short(name: str, about: str, file: str, mebibytes: float) -> None:
    """A torchvision network in the listing, under its own name."""

    @register_network(
        name,
        about=about,
        licence="BSD-3-Clause",
        source="torchvision",
        size_bytes=round(mebibytes * 2**20),
        file=file,
    )
    def load(*, weights: str | None = None, classes: int | None = None) -> Network:
        return _torchvision(name, weights, classes)


_short(
    "googlenet", "GoogLeNet, the network of the dreams of 2015", "googlenet-1378be20.pth", 49.731
)
_short(
    "inception_v3",
    "Inception-v3, with Keras' layer names as aliases",
    "inception_v3_google-0cc3c7bd.pth",
    103.903,
)
_short("vgg16", "VGG16", "vgg16-397923af.pth", 527.796)
_short("resnet50", "ResNet-50", "resnet50-11ad3fa6.pth", 97.79)


@functools.cache
def _torchvision_names() -> tuple[str, ...]:
    """The classifiers of torchvision."""
    from torchvision import models

    return tuple(models.list_models(module=models))


def _classifier(name: str) -> bool:
    """Whether torchvision has it; imports torchvision only for what could be one of its names."""
    return re.fullmatch(r"[a-z0-9_]+", name) is not None and name in _torchvision_names()


def _torchvision(architecture: str, weights: str | None, classes: int | None) -> Network:
    from torchvision import models

    if architecture not in _torchvision_names():
        other = architecture in models.list_models()
        why = (
            " is no classifier but a detector, segmenter or the like" if other else " is not there"
        )
        raise NetworkError(
            f"torchvision:{architecture}{why}{suggest(architecture, _torchvision_names())}"
        )
    choices = models.get_model_weights(architecture)
    names = [member.name for member in choices]
    if weights not in (None, RANDOM, "DEFAULT", *names):
        raise NetworkError(
            f"{architecture} has no weights {weights!r}; there are {', '.join([*names, RANDOM])}"
        )
    default: Any = choices["DEFAULT"]
    member: Any = default if weights in (None, RANDOM, "DEFAULT") else choices[weights or ""]
    categories = member.meta.get("categories") or ()
    if weights == RANDOM:
        settings = _settings(architecture, member)
        if classes is not None:
            settings["num_classes"] = classes
            categories = categories if classes == len(categories) else ()
        build = functools.partial(models.get_model, architecture, weights=None, **settings)
        module = _random(build)
    else:
        path = _weights_file(member.url, architecture)
        state = _read_state(path)
        try:
            with torch.random.fork_rng(devices=[]):
                module = models.get_model(architecture, weights=_Fetched(member, state))
        except RuntimeError as error:
            raise WeightsError(f"{path} does not fit {architecture}: {_one_line(error)}") from None
    transforms = member.transforms()
    return Network(
        module,
        mean=transforms.mean,
        std=transforms.std,
        input_size=transforms.crop_size[0],
        classes=categories,
        aliases=_aliases(architecture, module),
        name=architecture,
        copy=False,
    )


class _Fetched:
    """A member of a torchvision weights enum whose state dict has been read already.

    Torchvision's builders do more with weights than load them (GoogLeNet's input transform and
    auxiliary heads, DenseNet's old keys). They are given this, so that they do it, on a file that
    has been fetched and checked here.
    """

    def __init__(self, member: WeightsEnum, state: Mapping[str, Tensor]) -> None:
        self._member, self._state = member, state

    @property
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        return type(self._member)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._member, name)

    def get_state_dict(self, *_: Any, **__: Any) -> Mapping[str, Tensor]:
        return self._state


def _settings(architecture: str, member: WeightsEnum) -> dict[str, Any]:
    """What torchvision's builders set when they are given weights, less the auxiliary heads."""
    if architecture in ("googlenet", "inception_v3"):
        return {"transform_input": True, "aux_logits": False, "init_weights": False}
    if architecture.startswith("vgg"):
        return {"init_weights": False}
    if architecture.startswith("vit_"):
        return {"image_size": member.meta["min_size"][0]}
    return {}


def _torchvision_listing() -> list[NetworkInfo]:
    from torchvision import models

    found = []
    for architecture in _torchvision_names():
        choices = models.get_model_weights(architecture)
        default: Any = choices["DEFAULT"]
        for member in choices:
            name = f"torchvision:{architecture}"
            found.append(
                NetworkInfo(
                    name if member is default else f"{name}:{member.name}",
                    f"{member.meta['num_params'] / 1e6:.1f} million weights",
                    "cached" if _found(_file_name(member.url)) else "to fetch",
                    round(member.meta["_file_size"] * 2**20),
                    member.meta.get("license", "BSD-3-Clause"),
                    member.url,
                )
            )
    return found


# Other names of layers ----------------------------------------------------------------------------

_KERAS = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
# Left out, since torchvision's differ: the 5x5 branches (3x3 there) and pool4 (2x2 there).
_CAFFE_STEM = {
    "conv1/7x7_s2": "conv1",
    "pool1/3x3_s2": "maxpool1",
    "conv2/3x3_reduce": "conv2",
    "conv2/3x3": "conv3",
    "pool2/3x3_s2": "maxpool2",
    "pool3/3x3_s2": "maxpool3",
    "pool5/7x7_s1": "avgpool",
    "loss3/classifier": "fc",
}
_CAFFE_BLOCK = {
    "output": "",
    "1x1": ".branch1",
    "3x3_reduce": ".branch2.0",
    "3x3": ".branch2.1",
    "5x5_reduce": ".branch3.0",
    "pool": ".branch4.0",
    "pool_proj": ".branch4.1",
}


def _aliases(architecture: str, module: nn.Module) -> dict[str, str]:
    """Names that others use for the same layers: Keras, Caffe, the VGG paper's readers."""
    if architecture == "inception_v3":
        return {f"mixed{i}": f"Mixed_{block}" for i, block in enumerate(_KERAS)}
    if architecture == "googlenet":
        aliases = dict(_CAFFE_STEM)
        for block in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
            for caffe, ours in _CAFFE_BLOCK.items():
                aliases[f"inception_{block}/{caffe}"] = f"inception{block}{ours}"
        return aliases
    if architecture.startswith("vgg"):
        return _vgg_aliases(module.get_submodule("features"))
    return {}


def _vgg_aliases(features: nn.Module) -> dict[str, str]:
    """`conv4_3`, `relu4_3`, `pool4`: block, and place within the block."""
    aliases, block, place = {}, 1, 0
    for name, layer in features.named_children():
        if isinstance(layer, nn.Conv2d):
            place += 1
            aliases[f"conv{block}_{place}"] = f"features.{name}"
        elif isinstance(layer, nn.ReLU):
            aliases[f"relu{block}_{place}"] = f"features.{name}"
        elif isinstance(layer, nn.MaxPool2d):
            aliases[f"pool{block}"] = f"features.{name}"
            block, place = block + 1, 0
    return aliases


# timm ---------------------------------------------------------------------------------------------


def _timm(architecture: str, weights: str | None, classes: int | None) -> Network:
    """A network of timm, with the weights of its own hub."""
    try:
        import timm
        from timm.data.config import resolve_model_data_config
    except ImportError:
        raise MissingExtraError("timm networks", "timm") from None
    if weights not in (None, RANDOM):
        raise NetworkError(
            f"timm:{architecture} has no weights {weights!r}; the name says them, "
            f"timm:{architecture}.TAG, or {RANDOM}"
        )
    if not timm.is_model(architecture):
        known = timm.list_models(pretrained="." in architecture)
        raise NetworkError(f"timm has no {architecture!r}{suggest(architecture, known)}")
    settings: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    build = functools.partial(timm.create_model, architecture, **settings)
    if weights == RANDOM:
        module = _random(build)
    else:
        try:
            with torch.random.fork_rng(devices=[]):
                module = build(pretrained=True)
        # Its hub raises what its transport does: requests' errors, httpx's, its own.
        except Exception as error:
            raise WeightsError(
                f"timm could not fetch the weights of {architecture} ({_one_line(error)}); "
                f"file:PATH@timm:{architecture} takes a file you have, and --network dreamnet "
                "needs no download"
            ) from error
    config = resolve_model_data_config(module)
    return Network(
        module,
        mean=config["mean"],
        std=config["std"],
        input_size=config["input_size"][-1],
        name=architecture,
        copy=False,
    )


# Files --------------------------------------------------------------------------------------------


def _file(rest: str, weights: str | None) -> Network:
    """`PATH@NETWORK`: that network, with the weights of the file.

    Preprocessing is the network's own, and the names of its classes if there are as many.
    """
    if weights is not None:
        raise NetworkError(f"file:{rest} is weights already, weights={weights!r} is too much")
    path_text, at, architecture = rest.rpartition("@")
    if not (path_text and at and architecture):
        raise NetworkError(f"file:{rest} does not say which network the weights are for: write "
                           f"{FILE_SYNTAX}")  # fmt: skip
    if architecture.startswith("file:"):
        raise NetworkError(f"{architecture} is weights, not a network: write {FILE_SYNTAX}")
    path = Path(path_text).expanduser()
    if not path.is_file():
        raise WeightsError(f"no file {path}; the network is what stands behind the last '@'")
    state = _unwrapped(_read_state(path), path)
    network = _architecture(architecture, None)
    count = _head_size(network.module, state)
    if count is not None:
        network = _architecture(architecture, count)
    # A copy, since code of one's own may have given a network that it keeps.
    loaded = Network(
        network.module,
        mean=network.shift,
        std=network.scale,
        input_size=network.input_size,
        classes=network.classes,
        aliases=network.aliases,
        name=path.stem,
    )
    _fit(loaded.module, state, path, architecture)
    return loaded


def _architecture(name: str, classes: int | None) -> Network:
    head, _, rest = name.partition(":")
    known = head in ("torchvision", "timm") or head in NETWORKS or not rest
    if not known:
        return _load(name, None, None)
    takes = name not in NETWORKS or "weights" in inspect.signature(NETWORKS[name]).parameters
    return _load(name, RANDOM if takes else None, classes)


def _head_size(module: nn.Module, state: Mapping[str, Tensor]) -> int | None:
    """How many classes the weights have, if not as many as the module: its last layer tells."""
    own = module.state_dict()
    head = next((key for key in reversed(own) if key.endswith(".weight")), None)
    if head is None or head not in state or state[head].shape[:1] == own[head].shape[:1]:
        return None
    return len(state[head]) if state[head].shape[1:] == own[head].shape[1:] else None


def _read_state(path: Path) -> dict[str, Any]:
    """A file of tensors: safetensors, or what torch reads without running anything."""
    try:
        if path.suffix == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                return load_file(path)
            except SafetensorError as error:
                raise WeightsError(f"{path} is damaged: {_one_line(error)}") from None
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is refused: it holds more than tensors and could run code when read; save the "
            f"state dict alone, torch.save(model.state_dict(), …) ({_reason(error)})"
        ) from None
    # A damaged archive shows itself in many ways.
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, OSError) as error:
        raise WeightsError(f"{path} is no file of weights: {_one_line(error)}") from None
    if not isinstance(found, dict):
        raise WeightsError(f"{path} holds a {type(found).__name__}, not a state dict")
    return found


def _unwrapped(state: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The weights alone, of a checkpoint with more in it or of a wrapped module."""
    for key in ("state_dict", "model_state_dict", "model_state", "model"):
        if isinstance(state.get(key), dict):
            state = state[key]
            break
    weights = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if not weights or len(weights) < len(state):
        rest = [str(key) for key in state if key not in weights]
        raise WeightsError(f"{path} is no state dict: {_few(rest) or 'nothing in it'}")
    for prefix in ("module.", "_orig_mod."):  # DataParallel's, torch.compile's
        if all(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def _fit(module: nn.Module, state: dict[str, Tensor], path: Path, architecture: str) -> None:
    own = module.state_dict()
    # Heads that only training uses.
    auxiliary = re.compile(r"(aux1|aux2|AuxLogits)\.")
    state = {key: v for key, v in state.items() if key in own or not auxiliary.match(key)}
    shapes = [
        f"{key} is {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    problems = {
        "of other shapes": shapes,
        "missing": [
            key for key in own if key not in state and not key.endswith("num_batches_tracked")
        ],
        "unknown": [key for key in state if key not in own],
    }
    told = [f"{len(keys)} {what}: {_few(keys)}" for what, keys in problems.items() if keys]
    if told:
        raise WeightsError(f"{path} does not fit {architecture}: {'; '.join(told)}")
    module.load_state_dict(state, strict=False)


# Your own code ------------------------------------------------------------------------------------


def _from_code(module_name: str, attribute: str) -> Network:
    """`module:attribute`: a `Network` or `nn.Module`, or what gives one. Runs that code."""
    name = f"{module_name}:{attribute}"
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)  # last, so that nothing there hides an installed package
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            message = f"no network {name!r}: no module {error.name!r}, installed or in {folder}"
            raise NetworkError(f"{message}{suggest(module_name, NETWORKS)}") from None
        raise NetworkError(f"{name}: importing {module_name} failed: {error}") from error
    except Exception as error:
        raise NetworkError(
            f"{name}: importing {module_name} failed: {type(error).__name__}: {_one_line(error)}"
        ) from error
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            there = [public for public in dir(found) if not public.startswith("_")]
            raise NetworkError(
                f"{module_name} has no {attribute!r}{suggest(part, there)}"
            ) from None
    made = found
    if not isinstance(found, (nn.Module, Network)):
        if not callable(found):
            raise NetworkError(f"{name} is a {type(found).__name__}, not a network or a function")
        try:
            made = found()
        except Exception as error:
            raise NetworkError(
                f"{name}() failed: {type(error).__name__}: {_one_line(error)}"
            ) from error
    if isinstance(made, Network):
        return made
    if not isinstance(made, nn.Module):
        raise NetworkError(
            f"{name}() gave a {type(made).__name__}, not a torch.nn.Module or phosphene.Network"
        )
    warnings.warn(
        f"{name} states no preprocessing: the module is given values in [0, 1]; to state it, give "
        "a phosphene.Network(module, mean=…, std=…)",
        stacklevel=4,
    )
    return Network(made, name=attribute, copy=made is found)


# Random weights -----------------------------------------------------------------------------------


def _random(build: Callable[[], nn.Module]) -> nn.Module:
    """A module with seeded weights that keep a signal's size from layer to layer.

    He et al., "Delving deep into rectifiers", 2015. The caller's own random state stays as it is.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                inputs = layer.weight[0].numel()
                layer.weight.normal_(0, math.sqrt(2 / inputs), generator=generator)
                if layer.bias is not None:
                    layer.bias.zero_()
    return module


# Downloads ----------------------------------------------------------------------------------------

_LOCKS: dict[str, threading.Lock] = {}
_TIMEOUT = 30  # seconds without a byte
_STALE = 24 * 3600  # seconds until what a killed download left is cleared away


def _file_name(url: str) -> str:
    return url.rsplit("/", 1)[1]


def _places(file: str) -> tuple[Path, Path]:
    """Our own cache, and torch's, where torchvision may have put it before."""
    return cache_folder() / "weights" / file, Path(torch.hub.get_dir()) / "checkpoints" / file


def _found(file: str) -> bool:
    return any(path.is_file() for path in _places(file))


def _weights_file(url: str, network: str) -> Path:
    """The file of that address, from a cache or fetched; its hash is right."""
    file = _file_name(url)
    match = re.search(r"-([0-9a-f]{8,64})\.", file)
    if match is None:
        raise WeightsError(f"{url} publishes no hash in its name, so it is not fetched")
    prefix = match.group(1)
    # Two threads that want the same file: the second finds what the first has fetched. Two
    # processes both fetch it, each under a name of its own.
    with _LOCKS.setdefault(file, threading.Lock()):
        damaged = ""
        for path in _places(file):
            if path.is_file():
                digest = _sha256(path)
                if digest.startswith(prefix):
                    return path
                damaged = f"; {path} is damaged, its SHA-256 starts with {digest[:8]}"
        target = _places(file)[0]
        address = _mirrored(url)
        try:
            _download(address, target, prefix)
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise WeightsError(
                f"the weights of {network} could not be fetched from {address} "
                f"({_one_line(reason)}{damaged}); put {file} into {target.parent}, or name a copy "
                "of the site in PHOSPHENE_WEIGHTS_MIRROR; --network dreamnet needs no download"
            ) from error
        return target


def _mirrored(url: str) -> str:
    mirror = os.environ.get("PHOSPHENE_WEIGHTS_MIRROR")
    if not mirror:
        return url
    if "://" not in mirror:
        mirror = Path(mirror).expanduser().resolve().as_uri()
    return f"{mirror.rstrip('/')}/{_file_name(url)}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(url: str, target: Path, prefix: str) -> None:
    """Fetch into `target`, which is whole and of the right hash, or not there."""
    if not url.startswith(("https://", "http://", "file://")):
        raise ValueError(f"{url} is neither http(s) nor a file")
    target.parent.mkdir(parents=True, exist_ok=True)
    for part in target.parent.glob("*.part"):
        if time.time() - part.stat().st_mtime > _STALE:
            part.unlink(missing_ok=True)
    part = target.with_name(f"{target.name}.{uuid.uuid4().hex}.part")
    request = urllib.request.Request(url, headers={"User-Agent": "phosphene"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer, part.open("wb") as file:
            length = int(answer.headers.get("Content-Length") or 0)
            digest, done = hashlib.sha256(), 0
            with _progress(target.name, length) as advance:
                while block := answer.read(1 << 18):
                    file.write(block)
                    digest.update(block)
                    done += len(block)
                    advance(len(block))
        if done < length:
            raise OSError(f"it broke off after {done} of {length} bytes")
        if not digest.hexdigest().startswith(prefix):
            raise OSError(
                f"wrong hash: its SHA-256 starts with {digest.hexdigest()[:8]}, not {prefix}"
            )
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _progress(name: str, length: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr for what takes over a second."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=Console(stderr=True))
    task = bar.add_task(name, total=length or None)
    start, shown = time.monotonic(), False

    def advance(count: int) -> None:
        nonlocal shown
        bar.advance(task, count)
        if not shown and time.monotonic() - start > 1:
            bar.start()
            shown = True

    try:
        yield advance
    finally:
        if shown:
            bar.stop()


# Words --------------------------------------------------------------------------------------------


def _few(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _one_line(error: object) -> str:
    line = " ".join(str(error).split())
    return line if len(line) <= 200 else line[:197] + "…"


def _reason(error: Exception) -> str:
    """What torch says about a file it will not read, less its advice to read it all the same."""
    found = re.search(r"WeightsUnpickler error: ([^.]+\.?[^.\s]*)", str(error))
    return _one_line(found.group(1)) if found else type(error).__name__
