"""Names of networks, and what they load.

    dreamnet                          bundled, like dreamnet-robust: nothing to download
    googlenet, inception_v3, vgg16    torchvision's; so is every other name of its classifiers
    torchvision:vgg16:IMAGENET1K_FEATURES     the same, with weights that are not the default ones
    timm:convnext_tiny.fb_in22k       timm's, with the extra of that name
    file:mine.safetensors@resnet18    your own weights for an architecture that has a name
    package.module:function           your own code: a Network or an nn.Module, or what gives one

`:random` behind a name of an architecture gives seeded random weights: `googlenet:random`.

Downloads are checked against the hash that their file name publishes, and from the second time on
against the whole hash of the first, and kept in `cache_folder() / "weights"`;
`PHOSPHENE_WEIGHTS_MIRROR` (an address or a folder) takes the place of torchvision's server. Weights
are never read as a pickle that could run code.

What a name means is answered without torch (`schemes`); torch comes when a network is loaded.
"""

from __future__ import annotations

from phosphene.cache import cache_folder
from phosphene.zoo.registry import NETWORKS, NetworkInfo, register_network
from phosphene.zoo.schemes import (
    RANDOM,
    listing,
    load_network,
    name_forms,
    named_architecture,
    names_code,
    network_label,
    starts_download,
)

__all__ = [
    "NETWORKS",
    "RANDOM",
    "NetworkInfo",
    "cache_folder",
    "listing",
    "load_network",
    "name_forms",
    "named_architecture",
    "names_code",
    "network_label",
    "register_network",
    "starts_download",
]
