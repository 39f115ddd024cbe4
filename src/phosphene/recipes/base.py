"""What a recipe is: one declaration from which everything about it follows.

A recipe's file names its settings, the pictures that go in, what it is about (an objective, a
layer), what comes out, and the function that makes it. The verb and its help, the public function,
the manifest and its checks, replay, progress and the schema of a form are derived from that; no
other file has to know its name. See "Add a recipe" in CONTRIBUTING.md.

Nothing here needs torch or pydantic. Which recipes there are is the business of `registry`, whose
names are here, too.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from phosphene.errors import ImageError, SettingsError
from phosphene.recipes.registry import RECIPES as RECIPES
from phosphene.recipes.registry import is_recipe as is_recipe
from phosphene.recipes.registry import recipe_named as recipe_named
from phosphene.recipes.registry import recipe_names as recipe_names
from phosphene.recipes.registry import recipe_summary as recipe_summary
from phosphene.recipes.registry import register as register
from phosphene.recipes.registry import unregister as unregister

if TYPE_CHECKING:
    from torch import Tensor

    from phosphene.films.source import FilmSource
    from phosphene.network import Network
    from phosphene.objectives import Objective
    from phosphene.settings import Settings
    from phosphene.state import State

Output = Literal["image", "page", "video"]


class RecipeStep(Protocol):
    """What every step of every recipe tells; parts that only some have are read where they are.

    share: of all the work, 0 to 1, that is done.
    text: what is being done, in a few words.
    milestone: whether that is worth a line of its own.

    A step of a recipe for images is an `engine.Step`, whose `picture()` is the result so far; it
    may have `transparency()`, `(N, 1, H, W)` or None, `dead`, `(N,)` bool, and `tile`, px. Any step
    may have `network`, the one that it runs on, where that is not the one that was given; `notes`,
    what a user should know now; `remarks`, what to know at the end, each with whether it is a
    detail; `stored`, what an interruption leaves.
    """

    @property
    def share(self) -> float: ...

    @property
    def text(self) -> str: ...

    @property
    def milestone(self) -> bool: ...


@dataclass(frozen=True)
class ImageInput:
    """A picture that goes in, a folder of pictures, or a film.

    role: its name in requests and manifests, and that of its argument or flag.
    keyword: its name in the public function, where that is another one.
    positional: on the command line, an argument and no flag.
    flag: of the command line; by default `--ROLE`.
    with_setting: an integer setting that the flag takes before the path, as in `--top 8 lion.jpg`.
    or_film: it may be a film, too, frame for frame.
    alpha: the result keeps its transparency.
    resized: by the request's `size` on loading.
    leading: of the public function an argument before the network, which may be None.
    own_size: has a flag of its own for the longest side to resize it to, `--ROLE-size`, described
        by this text; what it is by default, `default_size(settings, images)` says, px.
    """

    role: str
    help: str
    kind: Literal["image", "mask", "folder", "video"] = "image"
    required: bool = False
    positional: bool = False
    keyword: str | None = None
    flag: str | None = None
    with_setting: str | None = None
    shown_default: str | None = None
    or_film: bool = False
    alpha: bool = False
    resized: bool = False
    leading: bool = False
    own_size: str | None = None
    default_size: str | Callable[[Any, Mapping[str, Tensor]], int] | None = None

    @property
    def argument(self) -> str:
        """Its name as an argument of the public function."""
        return self.keyword or self.role


@dataclass(frozen=True)
class Subject:
    """What a recipe is about.

    kind: objective: one; objectives: one or several, each of which gets a picture; layer, layers
        likewise; unit: a layer's channel, or a class; class: one, by its name or number.
    default: what is taken where none is named, `default(arguments) -> texts`, given what else is
        there; None where one must be.
    default_told: what a user should know of a default that was taken, `default_told(arguments)`.
    """

    kind: Literal["objective", "objectives", "layer", "layers", "unit", "class"]
    help: str
    positional: bool = False
    default: str | Callable[[Arguments], Sequence[str]] | None = None
    shown_default: str | None = None
    default_told: str | Callable[[Arguments], Sequence[str]] | None = None
    missing: str | None = None  # what is said where none is named, and one must be
    list_flag: str | None = None  # of several: a flag that takes names apart by commas

    @property
    def name(self) -> str:
        """Its name as an argument of the public function and a flag."""
        names = {"objectives": "objective", "layers": "layer", "class": "class_name"}
        return names.get(self.kind, self.kind)

    @property
    def several(self) -> bool:
        """Whether there may be more than one."""
        return self.kind in ("objectives", "layers")

    @property
    def parsed(self) -> bool:
        """Whether its texts are objectives, which have a grammar, as all others have none."""
        return self.kind in ("objective", "objectives")

    @property
    def of_unit(self) -> bool:
        """Whether it is `Arguments.unit`: a unit, or a class."""
        return self.kind in ("unit", "class")

    @property
    def field(self) -> Literal["objectives", "layers"]:
        """Where a request and a manifest have it."""
        return "layers" if self.kind in ("layer", "layers") else "objectives"


@dataclass(frozen=True)
class Shorthand:
    """A flag that changes the objectives, and is no more than that: requests hold the result.

    takes: nothing ("flag"), or the path of a picture.
    apply: (objectives, value) -> objectives.
    """

    name: str
    help: str
    takes: Literal["flag", "picture"]
    apply: str | Callable[[Sequence[Objective], Any], Sequence[Objective]]


class Region(NamedTuple):
    """A part of the picture with an objective of its own.

    mask: `(1 or N, 1, H, W)` in [0, 1], 1 where it is.
    """

    mask: Tensor
    objective: Objective


@dataclass(frozen=True)
class PartToDraw:
    """A picture that another recipe draws.

    steps: begins it, and gives its steps. key: of all that it depends on, by which it is stored and
        found again; None where it is not.
    """

    steps: Callable[[], Iterator[Any]]
    key: str | None = None


@dataclass(frozen=True)
class Arguments:
    """What a recipe's steps are given: everything loaded and checked.

    unit: LAYER:CHANNEL or the name of a class, or (layer, channel), of a recipe about a unit; the
        name or the number of a class, of one about a class.
    images: by role, `(1 or N, 3, H, W)` in [0, 1], a mask `(1 or N, 1, H, W)`.
    films: by role, what frames come from.
    folders: by role, the folder, or the files, of pictures.
    regions: parts of the picture that have objectives of their own.
    cache: whether finished parts are stored for the next time, and taken from there.
    state: that of a step to go on from, of a recipe that can.
    first_frame: of a film, where to begin, counted from 0: it begins a shot.
    parts: of a recipe that is put together of others' results, these, in order.
    """

    network: Network
    settings: Any
    objectives: tuple[Objective, ...] = ()
    layers: tuple[str, ...] = ()
    unit: str | int | tuple[str, int] | None = None
    images: Mapping[str, Tensor] = field(default_factory=dict)
    films: Mapping[str, FilmSource] = field(default_factory=dict)
    folders: Mapping[str, Any] = field(default_factory=dict)
    regions: tuple[Region, ...] = ()
    cache: bool = True
    state: State | None = None
    first_frame: int = 0
    parts: tuple[PartToDraw, ...] = ()


Steps = Callable[[Arguments], Iterator[Any]]


@dataclass(frozen=True)
class Recipe:
    """A recipe's declaration.

    summary: one line, by default the first of the docstring of the file that declares it.
    settings: the model; `Settings` of one's own.
    network_defaults: of settings that are not given, what they are through a network and from a
        start, where that is other than the model says: `network_defaults(given, architecture,
        start) -> settings`; start: photo, or one of `starts`, or None of a recipe without any.
    own_network: the name of the network that the settings bring, if nobody names one on the command
        line: `own_network(given) -> name or None`.
    steps: `steps(arguments)` gives the steps; as "module:function" it is imported when run.
    result: what the public function returns, of the last step.
    result_type, step_type: "module:class" of both, for editors and the reference; of a film the
        former is that of each frame.
    output: image: pictures, with the manifest inside; page: what `explain.layout` can lay out;
        video: frames, each of which a step ends (see `recipes/steps/frames.py`).
    several: each step holds a batch, which is laid out as one picture, or one file each.
    starts: what it may begin with where there is no photo, by name; the first is the default.
    regions: takes regions, each a mask with an objective of its own; its setting `rest` says
        whether the rest of the picture follows the subject, "dream", or stays as it is, "stay",
        and needs no subject.
    octaves: works on octaves, so that the picture at the end of each can be saved.
    parts: it is put together of the results of another recipe: its settings say which,
        `settings.parts(network)`, and `settings.renamed(…)` calls the pictures in them otherwise.
    caches: stores finished parts.
    resampled: takes a gradient through turned and resized pictures, which CUDA adds up in any
        order: what it makes there is alike, and not the same, when it is made again.
    resumes: its steps have a `state()`, and `Arguments.state` is one of these to go on from.
    network_positional: on the command line the network is an argument, and no flag.
    positional_settings: settings that the public function takes by position, after the subject.
    output_name: the default name of the output without its suffix, a template of {photo} (its path
        without suffix), {objective}, {layer}, {network} and {name}, that of the recipe.
    output_shown, output_help: what the help says of the default name, and of the output.
    noun, heading: what a result is called, and the heading of the flags that say what to make.
    about: more of its help, after the summary. examples: command lines after `phosphene `.
    timing: of a film: `timing(arguments)` gives frames a second and the length in s, as fractions,
        None for what is not known; keyframes are checked by them.
    advice: what a user should be told before it begins, `advice(arguments) -> texts`.
    """

    name: str
    settings: type[Settings]
    steps: str | Steps
    summary: str = ""
    subject: Subject | None = None
    inputs: tuple[ImageInput, ...] = ()
    output: Output = "image"
    network_defaults: Callable[[Mapping[str, Any], str, str | None], Mapping[str, Any]] | None = (
        None
    )
    own_network: Callable[[Mapping[str, Any]], str | None] | None = None
    several: bool = False
    starts: tuple[str, ...] = ()
    regions: bool = False
    octaves: bool = False
    parts: bool = False
    caches: bool = False
    resampled: bool = False
    resumes: bool = False
    network_positional: bool = False
    positional_settings: tuple[str, ...] = ()
    shorthands: tuple[Shorthand, ...] = ()
    result: Callable[[Any], Any] = field(default=lambda step: step.picture(), repr=False)
    result_type: str = "torch:Tensor"
    step_type: str = "phosphene.engine:Step"
    output_name: str = "{name}"
    output_shown: str | None = None
    output_help: str = ".png, .jpg, .webp or .tif; the recipe lies inside."
    noun: str = "picture"
    heading: str = "What to draw"
    examples: tuple[str, ...] = ()
    about: str = ""
    timing: str | Callable[[Arguments], tuple[Fraction | None, Fraction | None]] = ""
    advice: str | Callable[[Arguments], Sequence[str]] | None = None

    def input(self, role: str) -> ImageInput | None:
        """The input of that role, if it has one."""
        return next((given for given in self.inputs if given.role == role), None)

    def run(self, arguments: Arguments) -> Iterator[Any]:
        """The steps, imported now if they were not before; what settings name is there.

        SettingsError for a setting that names what is not registered; ImageError for a picture or a
        mask with values that are not finite.
        """
        from phosphene.settings import check_chains

        check_chains(arguments.settings)
        for role, picture in arguments.images.items():
            _check_finite(picture, f"the {role}")
        for number, region in enumerate(arguments.regions, 1):
            _check_finite(region.mask, f"the mask of region {number}")
        return imported(self.steps)(arguments)

    def checked_settings(
        self, given: Mapping[str, Any], architecture: str, start: str | None = "photo"
    ) -> Settings:
        """All settings through a network of that architecture, of those that are given.

        start: what is begun with: see `start_of`. SettingsError for what is none.
        """
        from phosphene.settings import checked

        more = self.network_defaults(given, architecture, start) if self.network_defaults else {}
        return checked(self.settings, {**more, **given})

    def start_of(self, named: str | None, inputs: Mapping[str, Any]) -> str | None:
        """What is begun with, of a recipe that can begin without a photo: what is named, or the
        photo, if one goes in, or the first of `starts`."""
        if not self.starts:
            return None
        if named is None and any(e.required and e.role in inputs for e in self.inputs):
            return "photo"
        return named or self.starts[0]

    def completed(self, arguments: Arguments) -> Arguments:
        """The arguments with what the recipe is about by default, if they name nothing.

        SettingsError for settings that go with regions, where there are none.
        """
        self.check_regions(arguments.regions, vars(arguments.settings))
        subject = self.subject
        if subject is None or arguments.unit not in (None, "") or getattr(arguments, subject.field):
            return arguments
        if self.rest_stays(arguments.regions, vars(arguments.settings)):
            return arguments
        if subject.default is None:
            raise SettingsError(
                subject.missing or f"{self.name} needs {_article(subject.name)}, and none is named"
            )
        found = imported(subject.default)(arguments)
        if subject.field == "layers":
            return replace(arguments, layers=tuple(found))
        from phosphene.objectives import parse

        return replace(arguments, objectives=tuple(parse(text) for text in found))

    @property
    def sized(self) -> bool:
        """Whether it has a size of its own, to which what goes in is resized."""
        return any(entry.resized for entry in self.inputs)

    def rest_stays(self, regions: Sequence[Any], settings: Mapping[str, Any]) -> bool:
        """Whether regions are all that changes, so that the subject is not asked for."""
        return bool(regions) and settings.get("rest") == "stay"

    def check_regions(self, regions: Sequence[Any], settings: Mapping[str, Any]) -> None:
        """SettingsError for regions that the recipe takes none of, and settings that need some."""
        if regions and not self.regions:
            raise SettingsError(f"{self.name} takes no regions")
        for name, absent in self._of_regions().items():
            if not regions and settings.get(name, absent) != absent:
                raise SettingsError(
                    f"{name} {settings[name]} goes with regions, and there is none: name one, "
                    "--region MASK=OBJECTIVE or regions=[(mask, objective)]"
                )

    def check_photo(self, start: str | None, settings: Mapping[str, Any]) -> None:
        """SettingsError for a setting that is of the photograph, where there is none.

        start: what is begun with: see `start_of`.
        """
        if start in (None, "photo"):
            return
        for name, entry in self.settings.model_fields.items():
            extra = entry.json_schema_extra
            if settings.get(name) and isinstance(extra, dict) and extra.get("needs_photo"):
                flag = "--" + name.replace("_", "-")
                raise SettingsError(
                    f"{flag} needs a photograph, and --start {start} has none: "
                    f"phosphene {self.name} PHOTO {flag}"
                )

    def dump_settings(self, settings: Settings, regions: Sequence[Any]) -> dict[str, Any]:
        """All settings as JSON holds them, less those that say something of regions alone where
        there are none."""
        left_out = set() if regions else set(self._of_regions())
        return settings.model_dump(mode="json", exclude=left_out)

    def _of_regions(self) -> dict[str, Any]:
        """The settings of regions alone, each with its value without any."""
        found = {}
        for name, entry in self.settings.model_fields.items():
            extra = entry.json_schema_extra
            if isinstance(extra, dict) and extra.get("of_regions_alone"):
                found[name] = extra["absent"]
        return found

    def schema(self) -> dict[str, Any]:
        """What a form asks for: a JSON schema of the settings, inputs, subject and output."""
        return {
            "recipe": self.name,
            "summary": self.summary,
            "output": self.output,
            "subject": None
            if self.subject is None
            else {
                "kind": self.subject.kind,
                "required": self.subject.default is None,
                "description": self.subject.help,
            },
            "inputs": {
                given.role: {
                    "kind": given.kind,
                    "required": given.required,
                    "description": given.help,
                }
                for given in self.inputs
            },
            "regions": self.regions,
            "starts": list(self.starts),
            "settings": self.settings.model_json_schema(),
        }


def _check_finite(picture: Any, what: str) -> None:
    """ImageError if values of a floating tensor are not finite; other things are the recipe's."""
    import torch

    if not isinstance(picture, torch.Tensor) or not picture.is_floating_point():
        return
    if picture.numel() and not all(math.isfinite(end) for end in map(float, picture.aminmax())):
        bad = int((~picture.isfinite()).sum())
        raise ImageError(
            f"{what} holds {bad} value{'s' if bad > 1 else ''} that {'are' if bad > 1 else 'is'} "
            "infinite or not a number; numbers in [0, 1] were expected"
        )


def _article(word: str) -> str:
    return f"{'an' if word[0] in 'aeio' else 'a'} {word}"


def imported(function: str | Callable[..., Any]) -> Callable[..., Any]:
    """A function, or what a "module:function" names."""
    if not isinstance(function, str):
        return function
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)
