"""The published algorithms, and our own default, as settings of `dream`.

Each of the four is held, in the tests, to a plain transcription of its published loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from phosphene.errors import SettingsError, suggest

T = TypeVar("T")


@dataclass(frozen=True)
class Preset:
    """Settings under a name, and what is dreamt through which network.

    Networks are named by their architecture, or by a pattern as `fnmatch` takes it; the first that
    fits counts.

    network: the one that it was made with.
    objectives: what is dreamt, by network.
    settings: for all networks. by_network: for some, before those.
    chooses: through a network that `objectives` does not name a layer is chosen, by its maps.
    """

    name: str
    source: str
    about: str
    network: str
    objectives: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)
    by_network: dict[str, dict[str, Any]] = field(default_factory=dict)
    chooses: bool = False

    def objective_for(self, network: str) -> str:
        """The objective on a network of that architecture; SettingsError if it names none."""
        found = _fitting(self.objectives, network)
        if found is None:
            raise SettingsError(
                f"the preset {self.name!r} names no layers of {network}; say what to dream with an "
                f"objective, or take one of {', '.join(self.objectives)}"
            )
        return found

    def names(self, network: str) -> bool:
        """Whether it says what to dream through a network of that architecture."""
        return _fitting(self.objectives, network) is not None

    def settings_for(self, network: str) -> dict[str, Any]:
        """The settings through a network of that architecture."""
        return {**self.settings, **(_fitting(self.by_network, network) or {})}


def _fitting(table: Mapping[str, T], network: str) -> T | None:
    return next((found for pattern, found in table.items() if fnmatchcase(network, pattern)), None)


_PHOSPHENE = Preset(
    "phosphene",
    "phosphene",
    "Our own: octaves by the picture's size, even steps in colours that go together as in nature.",
    "dreamnet",
    {
        "dreamnet": "mixed5a",
        "dreamnet-robust": "mixed4d + mixed5a",
        "googlenet": "inception4c",
        "inception_v3": "Mixed_5d + Mixed_6a",
        "vgg16": "features.25",
        "squeezenet1_1": "features.10",
        "resnet*": "layer3",
        "resnext*": "layer3",
        "wide_resnet*": "layer3",
    },
    by_network={
        # Trained at 64 px, they see nothing whole in a picture as small as that. What the robust
        # one answers to has sharp edges of its own.
        "dreamnet": {"smallest_octave": 2.0},
        "dreamnet-robust": {"smallest_octave": 2.0, "smooth": 1.5},
    },
    chooses=True,
)

# All that a picture hangs on: a published loop says it, and leaves nothing to our own defaults.
_PUBLISHED: dict[str, Any] = {
    "epsilon": 1e-20,
    "smooth": 0.0,
    "laplacian": 0,
    "gradient_transforms": "",
    "natural": 0.0,
    "clip": None,
    "stop_above": None,
    "values": "image",
    "value_limit": None,
    "detail": "before",
}

_GOOGLE = Preset(
    "google2015",
    "Mordvintsev, Olah and Tyka, 'Inceptionism' and the notebook dream.ipynb, Google 2015",
    "GoogLeNet's inception_4c/output; half the sum of squares; gradient over its mean size; "
    "4 octaves × 1.4 × 10 steps of 1.5 on 0–255 values; jitter 32; clipped after each step. The "
    "notebook divides by mean |g| without an epsilon; here a vanished gradient stays zero. Its "
    "resizing leaves a black last row at some sizes; here it does not.",
    "googlenet",
    {
        "googlenet": "layer(inception4c, norm=half_sum_square)",
        "dreamnet": "layer(mixed4c, norm=half_sum_square)",
        "dreamnet-robust": "layer(mixed4c, norm=half_sum_square)",
    },
    {
        **_PUBLISHED,
        "octaves": 4,
        "octave_scale": 1.4,
        "octave_rounding": "chain",
        "resampling": "corners",
        "steps": 10,
        "step_size": 1.5 / 255,
        "jitter": 32,
        "gradient": "mean",
        "clamp": "steps",
    },
)

_INCEPTION = Preset(
    "inception",
    "the PyTorch article on Inception-v3 (github.com/augustwester/deepdream)",
    "Any mix of layers and channels, summed activations (the article says L2 norm, its code sums: "
    "here it sums); zero mean and unit deviation of the gradient; 3 octaves × 1.25 × 100 steps of "
    ".01 on normalised values; jitter of up to half the picture; clipped to black and white "
    "whenever it changes, as its code does and its text does not say.",
    "inception_v3",
    {
        "inception_v3": "layer(Mixed_6b, norm=sum)",
        "dreamnet": "layer(mixed4d, norm=sum)",
        "dreamnet-robust": "layer(mixed4d, norm=sum)",
    },
    {
        **_PUBLISHED,
        "octaves": 3,
        "octave_scale": 1.25,
        "octave_rounding": "floor",
        "resampling": "bilinear",
        "steps": 100,
        "step_size": 0.01,
        "values": "network",
        "jitter": "half",
        "gradient": "std",
        "epsilon": 1e-8,
        "clamp": "always",
    },
)

_KERAS = Preset(
    "keras",
    "the Keras article on Inception-v3, after Chollet, Deep Learning with Python, 2017, 8.2",
    "Weighted layers, the outermost two cells of each map left out (none where a map is too small "
    "for that: the article's slice would be empty); gradient over its mean size; 3 octaves × 1.4 × "
    "20 steps of .01 on values in [-1, 1], stopped before the step once the loss is above 10; the "
    "detail lost by shrinking is put back after each ascent, where the text has it before.",
    "inception_v3",
    {
        "inception_v3": "0.2*layer(mixed2, margin=2) + 3*layer(mixed3, margin=2) "
        "+ 2*layer(mixed4, margin=2) + 1.5*layer(mixed5, margin=2)",
        "dreamnet": "0.2*layer(mixed3b, margin=2) + 3*layer(mixed4a, margin=2) "
        "+ 2*layer(mixed4b, margin=2) + 1.5*layer(mixed4d, margin=2)",
        "dreamnet-robust": "0.2*layer(mixed3b, margin=2) + 3*layer(mixed4a, margin=2) "
        "+ 2*layer(mixed4b, margin=2) + 1.5*layer(mixed4d, margin=2)",
    },
    {
        **_PUBLISHED,
        "octaves": 3,
        "octave_scale": 1.4,
        "octave_rounding": "floor",
        "resampling": "bilinear",
        "steps": 20,
        "step_size": 0.01 / 2,
        "jitter": 0,
        "gradient": "mean",
        "epsilon": 2 * 1e-7,  # the article's 1e-7 is of the gradient on [-1, 1], half of ours
        "stop_above": 10.0,
        "detail": "after",
        "clamp": "off",
    },
)

_TORCHVISION = Preset(
    "torchvision",
    "the torchvision article on VGG16",
    "L2 norm of features.30; gradient over its l2 norm; 3 octaves × 1.4, each by nearest pixels "
    "from the one before, × 20 steps of .1 on normalised values, cut to -3 … 3 after each. That "
    "moves a single value so little that it barely dreams (as published). The article squashes "
    "every picture to 224²: here it keeps its shape. Its other two functions are this preset with "
    "--octaves 1 and the objective LAYER:CHANNEL, or guide(LAYER, PICTURE, by=distance).",
    "vgg16",
    {
        "vgg16": "layer(features.30, norm=l2)",
        "dreamnet": "layer(mixed5b, norm=l2)",
        "dreamnet-robust": "layer(mixed5b, norm=l2)",
    },
    {
        **_PUBLISHED,
        "octaves": 3,
        "octave_scale": 1.4,
        "octave_rounding": "chain_floor",
        "resampling": "nearest",
        "steps": 20,
        "step_size": 0.1,
        "values": "network",
        "value_limit": 3.0,
        "jitter": 0,
        "gradient": "norm",
        "clamp": "off",
    },
)

PRESETS: dict[str, Preset] = {
    preset.name: preset for preset in (_PHOSPHENE, _GOOGLE, _INCEPTION, _KERAS, _TORCHVISION)
}


def preset(name: str) -> Preset:
    """The preset of that name; `SettingsError` with the closest ones."""
    known = isinstance(name, str)
    if not known or name not in PRESETS:
        raise SettingsError(f"no preset {name!r}{suggest(name if known else '', PRESETS)}")
    return PRESETS[name]
