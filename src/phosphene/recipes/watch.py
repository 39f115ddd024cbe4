"""Watch a layer's activations change while a picture is dreamt: a film of both.

The loop is in `phosphene.explain.watching`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from phosphene.errors import ObjectiveError, SettingsError
from phosphene.objectives.text import Call, parse_tree
from phosphene.plugins import LoadedPlugin
from phosphene.recipes.base import ImageInput, Recipe, Subject, register
from phosphene.recipes.dream import OctaveSettings, network_defaults, own_network
from phosphene.recipes.function import RecipeFunction
from phosphene.recipes.moving import FILES, Codec, Crf, FrameRate
from phosphene.recipes.sheet import parse_channels
from phosphene.settings import ChainOf

STRONGEST = 16
Palette = Literal["grey", "viridis", "magma", "inferno"]  # as in explain/palettes.py


@dataclass(frozen=True)
class ObjectiveOf(ChainOf):
    """Reads a setting that is an objective's text, which names no pictures.

    How it is written is checked with the settings, without torch; its names are, once torch is
    there.
    """

    def __call__(self, text: str) -> str:
        """The text in canonical form. ValueError for one that is none."""
        try:
            return text if text in self.alone else parse_tree(text).text
        except ObjectiveError as error:
            raise ValueError(str(error)) from None

    def built(self, text: str) -> list[Any]:
        """The objective. ObjectiveError if it cannot be; SettingsError if it names a picture."""
        from phosphene.objectives import parse, picture_paths

        if text in self.alone:
            return []
        if picture_paths(parse_tree(text)):
            raise SettingsError(f"objective {text}: one without pictures was expected")
        return [parse(text)]

    def plugins(self, text: str) -> list[LoadedPlugin]:
        """The plugins that registered something that it names."""
        from phosphene.plugins import plugin_of

        units = () if text in self.alone else (unit for _, unit in parse_tree(text).terms)
        found = (plugin_of("objective", unit.name) for unit in units if isinstance(unit, Call))
        return [plugin for plugin in found if plugin is not None]


def _read_channels(given: Any) -> Any:
    """A number of the strongest, "all", or the numbers of a text such as "0-7,12"."""
    if not isinstance(given, str) or given.strip() == "all":
        return given.strip() if isinstance(given, str) else given
    if given.strip().isdecimal():
        return int(given)
    try:
        return parse_channels(given)
    except SettingsError as error:
        told = str(error).removeprefix("channels ")
        raise ValueError(f"{told}; or a number of the strongest, or all") from None


def _some(channels: Any) -> Any:
    if channels in (0, ()) or (isinstance(channels, int) and channels < 0):
        raise ValueError("one channel or more was expected")
    return channels


Channels = Annotated[
    int | Literal["all"] | tuple[int, ...], BeforeValidator(_read_channels), AfterValidator(_some)
]


class WatchSettings(OctaveSettings):
    """Every setting of a film of activations: those of a dream, and of what is shown."""

    objective: Annotated[
        str, AfterValidator(ObjectiveOf("objective", "phosphene.objectives:parse", alone=("",)))
    ] = Field(
        "",
        description='What is dreamt, without pictures, such as "mixed4c:7 - 0.1*tv()"; the layer '
        "itself if nothing is named.",
        json_schema_extra={"group": "what", "shown": "the layer"},
    )
    channels: Channels = Field(
        STRONGEST,
        description="So many of the strongest, by their mean over the whole film; or numbers and "
        "ranges, such as 0-7,12; or all.",
        json_schema_extra={"group": "what"},
    )
    every: int = Field(1, ge=1, le=100_000, description="Steps from one frame to the next.")
    palette: Palette = Field(
        "grey", description="Colours of the activations; in grey, darker is higher."
    )
    height: int = Field(
        400, ge=160, le=2160, description="Height of picture and activations in the film, px."
    )
    fps: FrameRate = Field("10", description="Frames a second, such as 10 or 30000/1001.")
    codec: Codec = None
    crf: Crf = None


WATCH = register(
    Recipe(
        name="watch",
        settings=WatchSettings,
        network_defaults=network_defaults,
        own_network=own_network,
        steps="phosphene.explain.watching:watch_steps",
        result_type="phosphene.films.frames:Frame",
        step_type="phosphene.explain.watching:WatchStep",
        output="video",
        timing="phosphene.explain.watching:watch_timing",
        subject=Subject("layer", "Its name: see phosphene layers.", positional=True),
        inputs=(
            ImageInput(
                "photo",
                "A picture to dream on.",
                required=True,
                positional=True,
                resized=True,
            ),
        ),
        output_name="{photo}-{layer}",
        output_shown="PHOTO-LAYER.mp4",
        output_help=FILES,
        noun="film",
        heading="What to watch",
        about="The picture lies at the left, the layer's channels at the right, a frame for each "
        "step. It is dreamt twice: first to find the strongest channels and the limits of their "
        "colours, which hold for the whole film.",
        examples=(
            "watch sky.jpg mixed4c",
            "watch sky.jpg mixed4c -o watch.gif --size 320 --channels 9 --every 2",
            "watch sky.jpg mixed3b --objective mixed5a --channels all --palette magma",
        ),
    )
)

watch = RecipeFunction(
    WATCH,
    """
    Dream a picture and watch a layer: frames with the picture and its activations side by side.

    Each map is of one channel, its places where they lie in the picture, at the resolution that
    the layer has in that octave. Colours go from the least activation, or 0, to the highest of the
    channels' 99th percentiles, over the whole film.

    Args:
        photo: `(1, 3, H, W)` in [0, 1], or the path of a picture.
        network: through which it is looked at, or its name.
        layer: the layer that is watched: of maps, or of tokens that are a grid over the picture.
        **settings: those of `WatchSettings`, by name: those of a dream; `objective`, what is
            dreamt, by default the layer; `channels`, a number of the strongest by their mean over
            the whole film, or which, or "all".

    Returns:
        An iterator of `Frame`, which `phosphene.write_film` takes; each is computed when it is
        asked for, the first one after a whole dream. `watch.steps(…)` gives a `WatchStep` for each
        step on the way.

    Raises:
        ObjectiveError: for a layer without places, such as one of class scores, or channels that
            are not there; and what `dream` raises.

    >>> frames = phosphene.watch("sky.jpg", net, "mixed4c", channels=9, steps=2)
    >>> info = phosphene.write_film("watch.gif", frames)
    """,
)
