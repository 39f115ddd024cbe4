"""timm's networks, with the weights of its own hub or random ones."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import torch

from phosphene.errors import MissingExtraError, NetworkError, WeightsError, one_line, suggest
from phosphene.network import Network
from phosphene.zoo.random_weights import with_random_weights
from phosphene.zoo.schemes import RANDOM


def load(architecture: str, weights: str | None, classes: int | None) -> Network:
    """A network of timm, with the weights of its own hub, or random ones for `classes`."""
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
        module = with_random_weights(build)
    else:
        try:
            with torch.random.fork_rng(devices=[]), _patient_only_online():
                module = build(pretrained=True)
        # Its hub raises what its transport does: requests' errors, httpx's, its own.
        except Exception as error:
            raise WeightsError(
                f"timm could not fetch the weights of {architecture} ({one_line(error)}); "
                f"file:PATH@timm:{architecture} takes a file you have, and --network dreamnet "
                "needs no download"
            ) from error
    config = resolve_model_data_config(module)
    return Network(
        module,
        mean=config["mean"],
        std=config["std"],
        input_size=config["input_size"][-1],
        classes=_class_names(module),
        name=architecture,
        copy=False,
    )


def _class_names(module: Any) -> list[str]:
    """The names of the classes, where these are a part of ImageNet that timm knows."""
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(module)
    names = list(ImageNetInfo(subset).label_descriptions()) if subset else []
    return names if len(names) == module.num_classes else []


@contextmanager
def _patient_only_online() -> Iterator[None]:
    """Within this context timm's hub says nothing of its own, and without a network does not retry.

    It would for half a minute, in ten lines; what lies in its cache is found all the same.
    """
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    hub: Any = importlib.util.find_spec("huggingface_hub")
    constants: Any = hub and importlib.import_module("huggingface_hub.constants")
    offline = constants and not _resolves(constants.ENDPOINT)
    before = getattr(constants, "HF_HUB_OFFLINE", None)
    if offline:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        logger.setLevel(level)
        if offline:
            constants.HF_HUB_OFFLINE = before


def _resolves(address: str) -> bool:
    """Whether the name of a server leads anywhere; a proxy has to find that out itself."""
    host = urlsplit(address).hostname
    if host is None or urllib.request.getproxies():
        return True
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True
