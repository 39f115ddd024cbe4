"""timm's networks, with the weights of its own hub or random ones."""

from __future__ import annotations

import functools
from typing import Any

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
            with torch.random.fork_rng(devices=[]):
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
        name=architecture,
        copy=False,
    )
