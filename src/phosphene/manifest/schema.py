"""What a manifest holds, and how it is read: format 2, and format 1 as it was.

Reading one runs nothing, imports neither torch nor numpy, and looks at no other file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from phosphene import __version__
from phosphene.errors import FilmError, PhospheneError, RecipeError, SettingsError
from phosphene.image.files import LONGEST_SIDE, PIXEL_LIMIT
from phosphene.recipes.base import Recipe, is_recipe, recipe_named
from phosphene.settings import Settings, absences, checked

if TYPE_CHECKING:
    from phosphene.plugins import LoadedPlugin

FORMAT = 2
# Goes up whenever rounding on purpose becomes other: within one number, on one machine, the same
# request gives the same bytes.
NUMERICS = 3
LONGEST = 16 * 2**20  # bytes of a recipe; one is some 2 kB

Start = Literal["photo", "noise", "sky"]
Sha256 = Field(pattern="^[0-9a-f]{64}$")


class Part(BaseModel):
    """The base of what requests and manifests are made of: frozen, and strict about names."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _known(name: str) -> str:
    try:
        return recipe_named(name).name
    except RecipeError as error:
        raise ValueError(str(error)) from None


RecipeName = Annotated[str, AfterValidator(_known)]
Side = Annotated[int, Field(ge=1, le=LONGEST_SIDE)]


class NetworkUsed(Part):
    """`name` as `load_network` takes it, of a file without its folder; SHA-256 of the weights."""

    name: str
    fingerprint: str = Sha256


def _bare(name: str) -> str:
    if name in ("", ".", "..") or re.search(r"[/\\\0]", name):
        raise ValueError("not the bare name of a file or a folder")
    return name


BareName = Annotated[str, AfterValidator(_bare)]


def _printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError("not a text that can be printed")
    return name


class Plugin(Part):
    """Code of a user's own that a result needed: its module's name, version and SHA-256."""

    name: Annotated[BareName, AfterValidator(_printable)]
    version: Annotated[str, Field(max_length=100), AfterValidator(_printable)] | None = None
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")

    @staticmethod
    def of(loaded: LoadedPlugin) -> Plugin:
        """The record of one that is loaded."""
        return Plugin(name=loaded.name, version=loaded.version, sha256=loaded.sha256)

    @property
    def text(self) -> str:
        """Its version and hash, in a few words."""
        digest = f"SHA-256 {self.sha256[:12]}…" if self.sha256 else "no SHA-256"
        return f"{self.version} ({digest})" if self.version else digest

    def is_other_than(self, asked: Plugin) -> bool:
        """Whether it is not the one that was asked for, as far as that was said."""
        said = ((asked.version, self.version), (asked.sha256, self.sha256))
        return any(was is not None and was != now for was, now in said)

    @property
    def flag(self) -> str:
        """How a command line loads it."""
        import shlex

        if "." in self.name:
            return f"--plugin {shlex.quote(self.name)}"
        return f"--plugin {shlex.quote(self.name + '.py')}"


def refuse_missing(plugins: Iterable[Plugin], what: str, error: type[PhospheneError]) -> None:
    """Raise an error of that type for plugins that are not loaded, nor available without asking.

    what: what needs them, "the request". It loads none itself: it may be a stranger's.
    """
    from phosphene.plugins import find_plugin

    missing = [plugin for plugin in plugins if find_plugin(plugin.name) is None]
    if not missing:
        return
    names, flags = ", ".join(p.name for p in missing), " ".join(p.flag for p in missing)
    one = len(missing) == 1
    raise error(
        f"{what} needs the plugin{'' if one else 's'} {names}, which {'is' if one else 'are'} not "
        f"loaded, and starts no code by itself: if you trust {'it' if one else 'them'}, add {flags}"
    )


def refuse_missing_recipe(given: Any, what: str, error: type[PhospheneError]) -> None:
    """As `refuse_missing`, for the fields of a request or manifest whose recipe is not there."""
    if not isinstance(given, dict) or is_recipe(str(given.get("recipe"))):
        return
    listed = given.get("plugins")
    with suppress(ValidationError):  # which the fields' own check tells of
        plugins = TypeAdapter(tuple[Plugin, ...]).validate_python(listed)
        refuse_missing(plugins, what, error)


class Input(Part):
    """A picture that went in: its file's bare name and SHA-256, and the px at which it was used.

    `size` is the longest side that was asked for, if one was.
    """

    name: BareName
    sha256: str = Sha256
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    size: Side | None = None


class Region(Part):
    """A part of the picture with an objective of its own: the role of its mask, and the text."""

    mask: str
    objective: str


class Folder(Part):
    """Pictures that went in together: their folder's bare name, their count, and one SHA-256.

    It is over their names within the folder and their own SHA-256: see `capture.folder_of`.
    """

    name: BareName
    count: int = Field(ge=1)
    sha256: str = Sha256


class Result(Part):
    """The picture as it was computed: px, and the SHA-256 of its 8-bit RGB, before encoding."""

    width: int = Field(ge=1)
    height: int = Field(ge=1)
    sha256: str = Sha256


FrameHash = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class FilmMade(Part):
    """The frames of a film: half the SHA-256 of the 8-bit RGB of each, before encoding, and the
    first frame of each shot, counted from 0."""

    frames: tuple[FrameHash, ...]
    shots: tuple[Annotated[int, Field(ge=0)], ...] = (0,)


class Machine(Part):
    """What computed it, in the terms that rounding depends on.

    Of a CUDA card also its name, cuDNN's version, and whether convolutions rounded to TF32.
    """

    device: str
    precision: Literal["fp32", "bf16", "fp64"]
    threads: int = Field(ge=1)
    architecture: str
    instructions: str
    card: str | None = None
    cudnn: int | None = None
    tf32: bool | None = None


class Ended(Part):
    """The last step of what is not whole; both count from 1, and what has no octaves has one."""

    why: Literal["octave", "interrupted", "not finite", "out of memory"]
    octave: int = Field(ge=1)
    step: int = Field(ge=1)


class Manifest(Part):
    """All that is needed to compute a picture again. `settings` are complete, the seed included;
    those of regions alone are there where regions are.

    format: of the manifest.
    phosphene: the version that wrote it.
    numerics: goes up whenever rounding on purpose becomes other; within one number, on one machine,
        a replay is compared exactly.
    recipe: the name of what was made.
    plugins: the code of a user's own that it needed.
    network: through which it was looked at.
    objectives: texts; of several each has pictures of its own.
    layers: of a recipe that takes layers instead.
    start: of a recipe that can begin without a photo, with what it began.
    size: the longest side in px, if one was asked for.
    inputs: by role: photo, mask, painting, a folder of pictures, the masks of regions, and the
        pictures of the objectives, whose texts name them by their role.
    regions: parts of the picture that have objectives of their own.
    settings: by name; complete.
    result: None as long as there is none.
    part: the file holds one picture of several, counted from 1; without it, it holds all.
    plan: for each octave the side of the tiles in which it was evaluated, px, None for whole: it
        decides rounding. Empty where it is not known.
    film: of a film, its frames; `result` is then their size and one hash of all.
    versions: of Python and of the libraries that rounding may depend on.
    machine: what computed it.
    ended: there if the result is not whole.
    """

    format: Literal[2] = FORMAT
    phosphene: str
    numerics: int = Field(default=NUMERICS, ge=1)
    recipe: RecipeName
    plugins: tuple[Plugin, ...] = ()
    network: NetworkUsed
    objectives: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    start: Start | None = None
    size: Side | None = None
    inputs: dict[str, Input | Folder] = {}
    regions: tuple[Region, ...] = ()
    settings: dict[str, Any]
    result: Result | None = None
    part: int | None = Field(default=None, ge=1)
    plan: tuple[Annotated[int, Field(ge=1)] | None, ...] = ()
    film: FilmMade | None = None
    versions: dict[str, str]
    machine: Machine
    ended: Ended | None = None

    @field_validator("result")
    @classmethod
    def _sane(cls, result: Result | None) -> Result | None:
        if result and result.width * result.height > PIXEL_LIMIT:
            raise ValueError(f"over the limit of {PIXEL_LIMIT / 1e6:g} megapixels")
        return result

    @model_validator(mode="before")
    @classmethod
    def _has_its_recipe(cls, given: Any) -> Any:
        refuse_missing_recipe(given, "the recipe", RecipeError)
        return given

    @model_validator(mode="after")
    def _fits(self) -> Manifest:
        given = (self.objectives, self.layers, self.inputs, self.start, self.settings)
        check_fit(self.declaration, *given, regions=self.regions)
        return self

    @property
    def declaration(self) -> Recipe:
        """The recipe's declaration."""
        return recipe_named(self.recipe)

    def text(self, *, indent: int | None = None) -> str:
        """As JSON, the same for the same manifest; `parse` reads it back."""
        optional = ("plugins", "objectives", "layers", "inputs", "regions", "plan")
        empty = {name for name in optional if not getattr(self, name)}
        whole = self.model_dump(mode="json", exclude_none=True, exclude=empty)
        whole["settings"] = self.settings  # None is a value there
        if self.plan:
            whole["plan"] = list(self.plan)
        separators = None if indent else (",", ":")
        return json.dumps(whole, indent=indent, ensure_ascii=False, separators=separators)

    def checked_settings(self) -> Settings:
        """The settings, checked; one that came later is what its absence means.

        RecipeError if this version has no such settings.
        """
        return checked_settings(self.declaration, self.settings)

    @staticmethod
    def parse(text: str | bytes, source: str = "the recipe") -> Manifest:
        """The manifest of a JSON text. RecipeError if it is damaged or of a newer version."""
        try:
            stated = _Stated.model_validate_json(text)
        except ValidationError as error:
            raise RecipeError(
                f"{source} holds no recipe of phosphene: {format_problem(error)}"
            ) from None
        if stated.format > FORMAT:
            raise _newer(source, stated.phosphene)
        try:
            if stated.format == 1:
                return _First.model_validate_json(text).upgraded()
            return Manifest.model_validate_json(text)
        except ValidationError as error:
            if _numbers(stated.phosphene) > _numbers(__version__):
                raise _newer(source, stated.phosphene) from None
            raise RecipeError(
                f"the recipe in {source} is damaged: {format_problem(error)}"
            ) from None

    @staticmethod
    def read(path: str | Path) -> Manifest:
        """The manifest inside a picture or a page, or in a JSON file beside one.

        Raises RecipeError if there is none, or it is damaged or of a newer version; ImageError if
        the file cannot be read.
        """
        path = Path(path)
        try:
            with path.open("rb") as stream:
                head = stream.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
                text = head + stream.read(LONGEST) if head.startswith(b"{") else None
        except OSError:
            text = None  # what is wrong with it is better told below
        if text is None:
            text = _text_inside(path)
            if text is None:
                raise RecipeError(
                    f"{str(path)!r} carries no recipe: it was not made by phosphene, or another "
                    "program has saved it since"
                )
        if len(text) >= LONGEST:
            raise RecipeError(f"the recipe in {str(path)!r} is longer than {LONGEST >> 20} MiB")
        return Manifest.parse(_of_data(text), repr(str(path)))


def _text_inside(path: Path) -> str | None:
    """The text that a picture, a page or a film carries. ImageError if it cannot be read."""
    from phosphene.films.formats import demuxer_of
    from phosphene.films.text import film_text
    from phosphene.image.metadata import read_recipe

    try:
        demuxer_of(path)
    except FilmError:
        return read_recipe(path)
    return film_text(path)


def checked_settings(
    recipe: Recipe,
    settings: Mapping[str, Any],
    *,
    architecture: str | None = None,
    start: str | None = None,
) -> Settings:
    """A recipe's settings, checked; RecipeError if this version has no such settings.

    A setting that a later version added says in its declaration, by `"absent"` in its
    `json_schema_extra`, what it means that an older manifest does not have it. Of what somebody
    asks for now, what lacks is the default, through a network of that `architecture`, of what
    begins with such a `start`.
    """
    given = dict(settings)
    try:
        if architecture is not None:
            return recipe.checked_settings(given, architecture, start)
        return checked(recipe.settings, {**absences(recipe.settings), **given})
    except SettingsError as error:
        raise RecipeError(f"the recipe's settings do not hold here: {error}") from None


def check_fit(
    recipe: Recipe,
    objectives: tuple[str, ...],
    layers: tuple[str, ...],
    inputs: Mapping[str, Any],
    start: str | None,
    settings: Mapping[str, Any],
    *,
    regions: tuple[Region, ...] = (),
    complete: bool = True,
) -> None:
    """ValueError unless these are what a recipe takes; `complete`: and all that it needs."""
    name, subject = recipe.name, recipe.subject
    _check_regions(recipe, regions, inputs, settings)
    complete_subject = complete and not recipe.rest_stays(regions, settings)
    for kind, texts in (("objectives", objectives), ("layers", layers)):
        if texts and (subject is None or subject.field != kind):
            raise ValueError(f"a recipe of {name} that names {kind}")
        if len(texts) > 1 and subject and not subject.several:
            raise ValueError(f"a recipe of {name} with {len(texts)} {kind}")
        if complete_subject and subject and subject.field == kind and not texts:
            raise ValueError(f"a recipe of {name} that names no {kind}")
    for entry in recipe.inputs:
        setting = entry.with_setting
        if setting and bool(settings.get(setting)) != (entry.role in inputs):
            raise ValueError(f"a recipe of {name}: {setting} and {entry.role} go together")
        started = bool(recipe.starts) and (start in recipe.starts or (not complete and not start))
        needed = entry.required and not started
        if needed and entry.role not in inputs:
            raise ValueError(f"a recipe of {name} that names no {entry.role}")
        if entry.role in inputs and entry.required and recipe.starts and start in recipe.starts:
            raise ValueError(f"a recipe of {name} that starts from {start} and a {entry.role}")
    if start and start != "photo" and start not in recipe.starts:
        raise ValueError(f"a recipe of {name} that starts from {start}")
    if not recipe.parts and (not (objectives or regions) or (subject and not subject.parsed)):
        known = {entry.role for entry in recipe.inputs}
        if unknown := [role for role in inputs if role not in known]:
            raise ValueError(f"a recipe of {name} with inputs {', '.join(unknown)}")


def _check_regions(
    recipe: Recipe,
    regions: tuple[Region, ...],
    inputs: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> None:
    try:
        recipe.check_regions(regions, settings)
    except SettingsError as error:
        raise ValueError(str(error)) from None
    for region in regions:
        if recipe.input(region.mask) is not None:
            raise ValueError(
                f"the mask of a region is the {region.mask} of {recipe.name} itself; a role of its "
                "own was expected, such as region-1"
            )
        if region.mask not in inputs:
            raise ValueError(f"no input is called {region.mask!r}, the mask of a region")


def _of_data(text: str | bytes) -> str | bytes:
    """The recipe within the data of a page; any other text as it is."""
    with suppress(ValueError, RecursionError):
        found = json.loads(text)
        if isinstance(found, dict) and isinstance(found.get("recipe"), dict):
            return json.dumps(found["recipe"])
    return text


class _Stated(BaseModel):
    """The two fields that every version has."""

    format: int = Field(ge=1)
    phosphene: str


def _newer(source: str, version: str) -> RecipeError:
    return RecipeError(
        f"{source} was made by phosphene {version[:20]}, this is {__version__}: upgrade phosphene"
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version[:20])[:3])


def format_problem(error: ValidationError) -> str:
    """What is wrong first, in one line."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


# Format 1 -----------------------------------------------------------------------------------------


class _First(Part):
    """Format 1, before requests: what settings and inputs are now had fields of their own there."""

    format: Literal[1]
    phosphene: str
    recipe: str = "dream"
    network: NetworkUsed
    objective: str | tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    channels: tuple[Annotated[int, Field(ge=0)], ...] = ()
    top: int | None = Field(default=None, ge=1)
    folder: Folder | None = None
    start: Start
    settings: dict[str, Any]
    inputs: dict[str, Input] = {}
    result: Result
    part: int | None = Field(default=None, ge=1)
    transparent: bool = False
    versions: dict[str, str]
    machine: Machine
    ended: Ended | None = None

    def upgraded(self) -> Manifest:
        """The same in format 2."""
        settings: dict[str, Any] = dict(self.settings)
        inputs: dict[str, Input | Folder] = dict(self.inputs)
        for name, value in (
            ("channels", list(self.channels)),
            ("top", self.top),
            ("transparent", self.transparent),
        ):
            if value:
                settings[name] = value
        if self.folder:
            inputs["pictures"] = self.folder
        try:
            recipe = recipe_named(self.recipe)
            begins = bool(recipe.starts)
        except RecipeError:
            begins = False  # the manifest says that there is no such recipe
        parts = {name: getattr(self, name) for name in _SAME}
        texts = (self.objective,) if isinstance(self.objective, str) else self.objective
        return Manifest(
            **parts,
            numerics=1,
            objectives=texts,
            start=self.start if begins else None,
            size=self.result.width if begins and self.start != "photo" else None,
            settings=settings,
            inputs=inputs,
        )


_SAME = ("phosphene", "recipe", "network", "layers", "result", "part", "versions", "machine",
         "ended")  # fmt: skip
