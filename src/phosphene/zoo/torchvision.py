"""torchvision's classifiers, with any of their published weights or random ones."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from phosphene.errors import NetworkError, WeightsError, one_line, suggest
from phosphene.network import Network
from phosphene.zoo import download, files
from phosphene.zoo.aliases import layer_aliases
from phosphene.zoo.random_weights import with_random_weights
from phosphene.zoo.registry import NetworkInfo
from phosphene.zoo.schemes import RANDOM

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum


@functools.cache
def classifiers() -> tuple[str, ...]:
    """The names of torchvision's classifiers."""
    from torchvision import models

    return tuple(models.list_models(module=models))


def load(architecture: str, weights: str | None, classes: int | None) -> Network:
    """A classifier with published weights, by default the best; or random ones for `classes`."""
    member = _weights_member(architecture, weights)
    categories = member.meta.get("categories") or ()
    if weights == RANDOM:
        module = _random_module(architecture, member, classes)
        categories = categories if classes in (None, len(categories)) else ()
    else:
        module = _trained_module(architecture, member)
    transforms = member.transforms()
    return Network(
        module,
        mean=transforms.mean,
        std=transforms.std,
        input_size=transforms.crop_size[0],
        classes=categories,
        aliases=layer_aliases(architecture, module),
        name=architecture,
        copy=False,
    )


def is_whole(architecture: str, weights: str | None) -> bool:
    """Whether these weights are whole on this machine. NetworkError if there are none such."""
    return download.is_whole(download.file_name(_weights_member(architecture, weights).url))


def _weights_member(architecture: str, weights: str | None) -> Any:
    """The member of torchvision's weights enum that is meant; of random weights the default one."""
    from torchvision import models

    if architecture not in classifiers():
        other = architecture in models.list_models()
        why = (
            " is no classifier but a detector, segmenter or the like" if other else " is not there"
        )
        raise NetworkError(f"torchvision:{architecture}{why}{suggest(architecture, classifiers())}")
    choices = models.get_model_weights(architecture)
    names = [member.name for member in choices]
    if weights not in (None, RANDOM, "DEFAULT", *names):
        raise NetworkError(
            f"{architecture} has no weights {weights!r}; there are {', '.join([*names, RANDOM])}"
        )
    return choices["DEFAULT" if weights in (None, RANDOM) else weights]


def _random_module(architecture: str, member: WeightsEnum, classes: int | None) -> nn.Module:
    from torchvision import models

    settings = _builder_settings(architecture, member)
    if classes is not None:
        settings["num_classes"] = classes
    build = functools.partial(models.get_model, architecture, weights=None, **settings)
    return with_random_weights(build)


def _trained_module(architecture: str, member: WeightsEnum) -> nn.Module:
    from torchvision import models

    path = download.weights_file(member.url, architecture)
    state = files.read_state(path)
    try:
        with torch.random.fork_rng(devices=[]):
            return models.get_model(architecture, weights=_Fetched(member, state))
    except RuntimeError as error:
        raise WeightsError(f"{path} does not fit {architecture}: {one_line(error)}") from None


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


def _builder_settings(architecture: str, member: WeightsEnum) -> dict[str, Any]:
    """What torchvision's builders set when they are given weights, less the auxiliary heads."""
    if architecture in ("googlenet", "inception_v3"):
        return {"transform_input": True, "aux_logits": False, "init_weights": False}
    if architecture.startswith("vgg"):
        return {"init_weights": False}
    if architecture.startswith("vit_"):
        return {"image_size": member.meta["min_size"][0]}
    return {}


def listing() -> list[NetworkInfo]:
    """Every classifier with each of its published weights."""
    from torchvision import models

    found = []
    for architecture in classifiers():
        choices = models.get_model_weights(architecture)
        default: Any = choices["DEFAULT"]
        for member in choices:
            name = f"torchvision:{architecture}"
            found.append(
                NetworkInfo(
                    name if member is default else f"{name}:{member.name}",
                    f"{member.meta['num_params'] / 1e6:.1f} million weights",
                    "cached" if download.is_cached(download.file_name(member.url)) else "to fetch",
                    round(member.meta["_file_size"] * 2**20),
                    member.meta.get("license", "BSD-3-Clause"),
                    member.url,
                )
            )
    return found
