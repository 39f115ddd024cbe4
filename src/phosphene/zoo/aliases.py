"""Names that others use for the layers of torchvision's networks."""

from __future__ import annotations

from torch import nn

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


def layer_aliases(architecture: str, module: nn.Module) -> dict[str, str]:
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
