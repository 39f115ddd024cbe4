"""The schemes by which a network is named, in one table.

What loads a name, whether that would run code, what the listing shows and which choices an error
offers all follow from `SCHEMES`; a new kind of name is one entry there. The table needs no torch:
it comes when a network is loaded, and torchvision when a bare name could be one of its classifiers.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from phosphene.errors import NetworkError, suggest
from phosphene.zoo.registry import MODEL_CARDS, NETWORKS, NetworkInfo, register_network

if TYPE_CHECKING:
    from phosphene.network import Network

# The weights that every architecture with a name has.
RANDOM = "random"
FILE_SYNTAX = "file:PATH@NETWORK, for example file:mine.safetensors@torchvision:resnet18"


@dataclass(frozen=True)
class Scheme:
    """One way to name networks.

    load: from a name, the weights that were asked for besides, and how many classes they have if
        that is known.
    prefix: what stands before a colon, of a scheme that has one; else `claims` tells whether a name
        is of this scheme. The first scheme that claims a name has it.
    form: how its names look, for a message.
    choices: names that an unknown one may have meant.
    listing: what there is; given True, all of it.
    label: the name as a recipe keeps it.
    runs_code: whether loading that name runs code that the name chooses.
    takes_random: whether that name can be loaded with random weights, which take no download.
    fetches: whether loading that name may start a download.
    """

    load: Callable[[str, str | None, int | None], Network]
    prefix: str | None = None
    claims: Callable[[str], bool] = lambda name: False
    form: str | None = None
    choices: Callable[[], Iterable[str]] = tuple
    listing: Callable[[bool], Iterable[NetworkInfo]] = lambda everything: ()
    label: Callable[[str], str] = lambda name: name
    runs_code: Callable[[str], bool] = lambda name: False
    takes_random: Callable[[str], bool] = lambda name: True
    fetches: Callable[[str], bool] = lambda name: False


def scheme_of(name: str) -> Scheme | None:
    """The scheme of a name; None if it is of none."""
    head, colon, _ = name.partition(":")
    if colon:
        for scheme in SCHEMES:
            if head == scheme.prefix:
                return scheme
    return next((scheme for scheme in SCHEMES if scheme.claims(name)), None)


def load_network(name: str = "dreamnet", *, weights: str | None = None) -> Network:
    """The network of that name, see `phosphene.zoo`.

    A name `package.module:function` imports that module, from the current folder too, and calls the
    function: it runs code that you name. No other name does.

    Args:
        name: Such as "dreamnet", "googlenet", "timm:convnext_tiny.fb_in22k".
        weights: Of several, the one (`IMAGENET1K_V1`, as torchvision calls them), or `random`. The
            same can stand behind a colon at the end of the name.

    Raises:
        NetworkError: For a name that is not known.
        WeightsError: For weights that cannot be had, are damaged or do not fit.
        MissingExtraError: For `timm:` without timm.
    """
    return load(name, weights, None)


def load(name: str, weights: str | None, classes: int | None) -> Network:
    """`load_network`; `classes` is how many of them the weights have, if it is known."""
    scheme = scheme_of(name)
    if scheme is None:
        raise unknown_network(name)
    return scheme.load(name, weights, classes)


def names_code(name: str) -> bool:
    """Whether loading a name would run code that it chooses, as `package.module:function` does.

    So does a file of weights for such a network. Of other names with a colon, those that are
    registered, torchvision's and timm's are known not to.
    """
    if ":" not in name:
        return False
    scheme = scheme_of(name)
    return scheme is not None and scheme.runs_code(name)


def starts_download(name: str) -> bool:
    """Whether loading a name may fetch weights: timm's, or what is not whole on this machine."""
    scheme = scheme_of(name)
    return scheme is not None and scheme.fetches(name)


def network_label(name: str) -> str:
    """A network's name as recipes keep it: without the folder that its weights lie in."""
    scheme = scheme_of(name)
    return name if scheme is None else scheme.label(name)


def named_architecture(name: str) -> str:
    """The architecture that a network's name says: resnet18 of "file:a.pth@torchvision:resnet18".

    Without loading it; "" for code, which says its own.
    """
    _, _, name = name.rpartition("@") if name.startswith("file:") else ("", "", name)
    if names_code(name):
        return ""
    head, _, rest = name.partition(":")
    return rest.partition(":")[0] if head in ("torchvision", "timm") else head


def listing(*, all: bool = False) -> list[NetworkInfo]:
    """The networks that have a name of their own; `all` adds every classifier of torchvision.

    Looks at the files that are there, not into them. Only `all` imports torchvision.
    """
    return [info for scheme in SCHEMES for info in scheme.listing(all)]


def name_forms() -> tuple[str, ...]:
    """The forms of names with a scheme: "torchvision:NAME" and so on."""
    return tuple(scheme.form for scheme in SCHEMES if scheme.form is not None)


def unknown_network(name: str) -> NetworkError:
    """The error for a name that is of no scheme, with the choices."""
    if name.endswith((".safetensors", ".pth", ".pt", ".ckpt", ".bin")):
        return NetworkError(f"{name!r} is a file; weights of your own are {FILE_SYNTAX}")
    choices = [choice for scheme in SCHEMES for choice in scheme.choices()]
    *forms, last = name_forms()
    return NetworkError(
        f"no network {name!r}{suggest(name, choices)}; also {', '.join(forms)} and {last}"
    )


def split_weights(name: str, rest: str, weights: str | None) -> tuple[str, str | None]:
    """Architecture and weights of `ARCHITECTURE[:WEIGHTS]`, which is the `rest` of a name."""
    head, _, tail = rest.rpartition(":")
    if not head:
        return rest, weights
    if weights is not None:
        raise NetworkError(f"{name} names its weights already, weights={weights!r} is too much")
    return head, tail


# Registered names: the bundled networks, torchvision's best known, and what others register ------

_BUNDLED = {
    "dreamnet": "a small GoogLeNet, trained to be dreamt with",
    "dreamnet-robust": "dreamnet, trained on perturbed pictures: calmer and larger shapes",
}
# name -> what it is; its weights' file and its MiB, stated so that nothing imports torchvision.
_TORCHVISION = {
    "googlenet": (
        "GoogLeNet, the network of the dreams of 2015", "googlenet-1378be20.pth", 49.731
    ),
    "inception_v3": (
        "Inception-v3, with Keras' layer names as aliases",
        "inception_v3_google-0cc3c7bd.pth",
        103.903,
    ),
    "vgg16": ("VGG16", "vgg16-397923af.pth", 527.796),
    "resnet50": ("ResNet-50", "resnet50-11ad3fa6.pth", 97.79),
}  # fmt: skip


def _load_bundled(name: str, *, weights: str | None = None, classes: int | None = None) -> Network:
    from phosphene.zoo import bundled

    return bundled.load(name, weights, classes)


def _load_architecture(
    name: str, *, weights: str | None = None, classes: int | None = None
) -> Network:
    from phosphene.zoo import torchvision

    return torchvision.load(name, weights, classes)


for _name, _about in _BUNDLED.items():
    register_network(_name, about=_about, licence="Apache-2.0", source="docs/dreamnet.md")(
        functools.partial(_load_bundled, _name)
    )
for _name, (_about, _file, _mebibytes) in _TORCHVISION.items():
    register_network(
        _name,
        about=_about,
        licence="BSD-3-Clause",
        source="torchvision",
        size_bytes=round(_mebibytes * 2**20),
        file=_file,
    )(functools.partial(_load_architecture, _name))


def _takes(name: str, parameter: str) -> bool:
    return parameter in inspect.signature(NETWORKS[name]).parameters


def _load_registered(name: str, weights: str | None, classes: int | None) -> Network:
    if name not in NETWORKS:
        name, weights = split_weights(name, name, weights)
    if name not in NETWORKS:  # a name with two colons
        raise unknown_network(name)
    given: dict[str, str | int] = {}
    if weights is not None:
        if not _takes(name, "weights"):
            raise NetworkError(f"{name} has no choice of weights; there is no {weights!r}")
        given["weights"] = weights
    if classes is not None and _takes(name, "classes"):
        given["classes"] = classes
    return NETWORKS[name](**given)


def _fetches_registered(name: str) -> bool:
    head, _, weights = name.partition(":")
    if weights and weights != RANDOM and head in _TORCHVISION:
        return _fetches_torchvision(name)
    file = MODEL_CARDS[head].file if head in MODEL_CARDS else None
    if file is None or weights == RANDOM:
        return False
    from phosphene.zoo import download  # which imports torch

    return not download.is_whole(file)


def _list_registered(_: bool) -> Iterable[NetworkInfo]:
    from phosphene.zoo import bundled, download

    for name in NETWORKS:
        card = MODEL_CARDS[name]
        size, status = card.size_bytes, "bundled"
        if name in _BUNDLED:
            if not bundled.weights_path(name).is_file():
                continue
            size = bundled.weights_path(name).stat().st_size
        elif card.file is not None:
            status = "cached" if download.is_cached(card.file) else "to fetch"
        yield NetworkInfo(name, card.about, status, size, card.licence, card.source)


# torchvision and timm -----------------------------------------------------------------------------


def _classifiers() -> tuple[str, ...]:
    from phosphene.zoo import torchvision

    return torchvision.classifiers()


def _is_classifier(name: str) -> bool:
    """Whether it is a bare name of torchvision's, with weights or without.

    Imports torchvision only for what could be one.
    """
    head = name.partition(":")[0]
    return re.fullmatch(r"[a-z0-9_]+", head) is not None and head in _classifiers()


def _load_torchvision(name: str, weights: str | None, classes: int | None) -> Network:
    rest = name.removeprefix("torchvision:")
    architecture, weights = split_weights(name, rest, weights)
    return _load_architecture(architecture, weights=weights, classes=classes)


def _fetches_torchvision(name: str) -> bool:
    from phosphene.zoo import torchvision

    architecture, weights = split_weights(name, name.removeprefix("torchvision:"), None)
    return weights != RANDOM and not torchvision.is_whole(architecture, weights)


def _list_torchvision(everything: bool) -> Iterable[NetworkInfo]:
    if not everything:
        return []
    from phosphene.zoo import torchvision

    return torchvision.listing()


def _load_timm(name: str, weights: str | None, classes: int | None) -> Network:
    from phosphene.zoo import timm

    architecture, weights = split_weights(name, name.removeprefix("timm:"), weights)
    return timm.load(architecture, weights, classes)


# Files and code -----------------------------------------------------------------------------------


def _load_file(name: str, weights: str | None, _: int | None) -> Network:
    from phosphene.zoo import files

    return files.load(*_file_parts(name), weights)


def _file_parts(name: str) -> tuple[str, str]:
    """Path and network of `file:PATH@NETWORK`; the last @ parts them, and "" is what lacks."""
    path, at, network = name.removeprefix("file:").rpartition("@")
    return (path, network) if at else (network, "")


def _file_label(name: str) -> str:
    path, network = _file_parts(name)
    return f"file:{Path(path).name}{'@' if network else ''}{network}"


def _fetches_for_file(name: str) -> bool:
    """Whether the network that a file's weights are for brings its own, which are to be fetched."""
    _, network = _file_parts(name)
    scheme = scheme_of(network)
    return scheme is not None and not scheme.takes_random(network) and scheme.fetches(network)


def _load_code(name: str, weights: str | None, _: int | None) -> Network:
    from phosphene.zoo import code

    if not re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", name):
        raise unknown_network(name)
    if weights is not None:
        raise NetworkError(f"{name} brings weights of its own, weights={weights!r} is too much")
    return code.load(*name.split(":"))


SCHEMES = (
    Scheme(
        _load_registered,
        claims=lambda name: NETWORKS.known(name.partition(":")[0]),
        choices=lambda: NETWORKS,
        listing=_list_registered,
        takes_random=lambda name: name in NETWORKS and _takes(name, "weights"),
        fetches=_fetches_registered,
    ),
    Scheme(
        _load_torchvision,
        prefix="torchvision",
        form="torchvision:NAME",
        claims=_is_classifier,
        choices=_classifiers,
        listing=_list_torchvision,
        takes_random=lambda name: ":" not in name.removeprefix("torchvision:"),
        fetches=_fetches_torchvision,
    ),
    Scheme(
        _load_timm,
        prefix="timm",
        form="timm:NAME",
        takes_random=lambda name: ":" not in name.removeprefix("timm:"),
        # Its hub is asked even where its cache has them, and may send newer ones.
        fetches=lambda name: not name.endswith(f":{RANDOM}"),
    ),
    Scheme(
        _load_file,
        prefix="file",
        form="file:PATH@NETWORK",
        label=_file_label,
        runs_code=lambda name: names_code(_file_parts(name)[1]),
        fetches=_fetches_for_file,
    ),
    # Whatever else has a colon: it is code, or an error.
    Scheme(
        _load_code,
        claims=lambda name: ":" in name,
        form="package.module:function",
        runs_code=lambda name: True,
        takes_random=lambda name: False,
    ),
)
