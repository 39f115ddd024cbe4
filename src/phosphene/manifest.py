"""What ran, on which inputs, and whether it comes out the same again.

A `Manifest` is the recipe that lies inside every picture: settings, objective, the hashes of inputs
and weights, the versions that computed it. It holds no time, place, user or path, so that the same
dream is the same file, and a file can be given away. `RECIPES` says of each recipe's name what its
settings are and how it is run, `PAGES` of those that give a page of pictures and words.

A recipe may come from a stranger. Reading one runs nothing; replaying one reads pictures by their
bare name from the folders that the caller names, and imports no code that the recipe alone names.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from torch import Tensor

from phosphene import __version__, spec
from phosphene import image as images
from phosphene.errors import ImageError, RecipeError, SettingsError, suggest
from phosphene.explain.responses import find_pictures
from phosphene.explain.sheet_settings import SheetSettings
from phosphene.explain.unit_settings import UnitSettings
from phosphene.network import Network, pick_device
from phosphene.objectives import OBJECTIVES, Objective, quoted
from phosphene.recipes.accentuate import AccentuateSettings, accentuate
from phosphene.recipes.caricature import CaricatureSettings, caricature
from phosphene.recipes.dream import DreamSettings, DreamStep, dream
from phosphene.recipes.invert import InvertSettings, invert
from phosphene.recipes.starts import start_picture
from phosphene.recipes.style import StyleSettings, style
from phosphene.recipes.visualize import VisualizeSettings, VisualizeStep, visualize
from phosphene.recipes.visualize_grid import grid
from phosphene.settings import Settings, checked
from phosphene.zoo import names_code

if TYPE_CHECKING:
    from phosphene.explain.sheets import SheetStep
    from phosphene.explain.units import CardStep

FORMAT = 1
LONGEST = 16 * 2**20  # bytes of a recipe; one is some 2 kB

Start = Literal["photo", "noise", "sky"]
Sha256 = Field(pattern="[0-9a-f]{64}")

# A step of any recipe. `picture()` is the result so far, `(N, 3, H, W)` in [0, 1].
AnyStep = DreamStep | VisualizeStep


# --- the recipes -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    """What a recipe is to make: the one form in which all of them are asked for.

    pictures: by role (photo, mask, painting), `(1, 3, H, W)`, a mask `(1, 1, H, W)`, in [0, 1].
    """

    network: Network
    settings: Settings
    objectives: tuple[Objective, ...] = ()
    layers: tuple[str, ...] = ()
    pictures: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """How a recipe is run. `needs` are the roles and parts of a manifest that it cannot do without.

    `several`: each step holds a batch, which `arranged` lays out as one picture. `alpha`: the
    photo's transparency is kept.
    """

    settings: type[Settings]
    steps: Callable[[Order], Iterator[Any]]
    needs: tuple[str, ...]
    several: bool = True
    alpha: bool = False


def _dream(order: Order) -> Iterator[DreamStep]:
    photo, mask = order.pictures["photo"], order.pictures.get("mask")
    given = order.settings.model_dump()
    return dream.steps(photo, order.network, order.objectives[0], mask=mask, **given)


def _visualize(order: Order) -> Iterator[VisualizeStep]:
    start, given = order.pictures.get("photo"), order.settings.model_dump()
    return visualize.steps(order.network, order.objectives, start=start, **given)


def _caricature(order: Order) -> Iterator[VisualizeStep]:
    photo, given = order.pictures["photo"], order.settings.model_dump()
    return caricature.steps(photo, order.network, order.layers, **given)


def _invert(order: Order) -> Iterator[VisualizeStep]:
    photo, given = order.pictures["photo"], order.settings.model_dump()
    return invert.steps(photo, order.network, order.layers, **given)


def _accentuate(order: Order) -> Iterator[VisualizeStep]:
    photo, given = order.pictures["photo"], order.settings.model_dump()
    return accentuate.steps(photo, order.network, order.objectives[0], **given)


def _style(order: Order) -> Iterator[VisualizeStep]:
    photo, painting = order.pictures["photo"], order.pictures["painting"]
    return style.steps(photo, painting, order.network, **order.settings.model_dump())


RECIPES: dict[str, Recipe] = {
    "dream": Recipe(DreamSettings, _dream, ("objective",), several=False, alpha=True),
    "visualize": Recipe(VisualizeSettings, _visualize, ("objective",)),
    "caricature": Recipe(CaricatureSettings, _caricature, ("photo", "layers")),
    "invert": Recipe(InvertSettings, _invert, ("photo", "layers")),
    "accentuate": Recipe(AccentuateSettings, _accentuate, ("photo", "objective"), alpha=True),
    "style": Recipe(StyleSettings, _style, ("photo", "painting"), alpha=True),
}


@dataclass(frozen=True)
class Page:
    """What a page's recipe holds: `needs` as a `Recipe` has them, and parts that are its `own`."""

    settings: type[Settings]
    needs: tuple[str, ...]
    own: tuple[str, ...]


PAGES: dict[str, Page] = {
    "sheet": Page(SheetSettings, ("layers",), ("channels", "top")),
    "unit": Page(UnitSettings, ("objective",), ("folder",)),
}


def _kind(recipe: str) -> Recipe | Page:
    return RECIPES.get(recipe) or PAGES[recipe]


# --- the manifest ----------------------------------------------------------------------------


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NetworkUsed(_Part):
    """`name` as `load_network` takes it, of a file without its folder; SHA-256 of the weights."""

    name: str
    fingerprint: str = Sha256


def _bare(name: str) -> str:
    if name in ("", ".", "..") or re.search(r"[/\\\0]", name):
        raise ValueError("not the bare name of a file or a folder")
    return name


BareName = Annotated[str, AfterValidator(_bare)]


class Input(_Part):
    """A picture that went in: its file's bare name and SHA-256, and the px at which it was used.

    `size` is the longest side that was asked for, if one was.
    """

    name: BareName
    sha256: str = Sha256
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    size: int | None = Field(default=None, ge=1)


class Folder(_Part):
    """Pictures that went in together: their folder's bare name, their count, and one SHA-256.

    It is over their names within the folder and their own SHA-256: see `folder_of`.
    """

    name: BareName
    count: int = Field(ge=1)
    sha256: str = Sha256


class Result(_Part):
    """The picture as it was computed: px, and the SHA-256 of its 8-bit RGB, before encoding."""

    width: int = Field(ge=1)
    height: int = Field(ge=1)
    sha256: str = Sha256


class Machine(_Part):
    """What computed it, in the terms that rounding depends on."""

    device: str
    precision: Literal["fp32", "bf16", "fp64"]
    threads: int = Field(ge=1)
    architecture: str
    instructions: str


class Ended(_Part):
    """The last step of what is not whole; both count from 1, and what has no octaves has one."""

    why: Literal["octave", "interrupted", "not finite", "out of memory"]
    octave: int = Field(ge=1)
    step: int = Field(ge=1)


class Manifest(_Part):
    """All that is needed to compute a picture again. `settings` are complete, the seed included.

    `objective` is a text, or several, each of which has pictures of its own; `layers` are those of
    a recipe that takes layers instead. `inputs` are by role: photo, mask, painting, and the
    pictures of the objective, whose text names them by their role. `part` says that the file holds
    one picture of several, counted from 1; without it, it holds all. `ended` is there if the
    picture is not whole. A sheet's `channels` are all where none are named, or the `top` of those
    that its photo excites; `folder` is that of the pictures that a unit was shown. `transparent`:
    MaCo's mask is the picture's alpha.
    """

    format: int = FORMAT
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

    @field_validator("recipe")
    @classmethod
    def _known(cls, recipe: str) -> str:
        if recipe not in RECIPES and recipe not in PAGES:
            names = ", ".join([*RECIPES, *PAGES])
            raise ValueError(f"no recipe {recipe!r}; there are {names}")
        return recipe

    @model_validator(mode="after")
    def _complete(self) -> Manifest:
        kind = _kind(self.recipe)
        for need in kind.needs:
            if need not in self.inputs and not getattr(self, need, None):
                raise ValueError(f"a recipe of {self.recipe} that names no {need}")
        if self.recipe in ("dream", "accentuate", "unit") and len(self.objectives) != 1:
            raise ValueError(f"a recipe of {self.recipe} with {len(self.objectives)} objectives")
        if self.recipe == "sheet" and len(self.layers) != 1:
            raise ValueError(f"a recipe of {self.recipe} with {len(self.layers)} layers")
        own = kind.own if isinstance(kind, Page) else ()
        for name in ("channels", "top", "folder"):
            if name not in own and getattr(self, name):
                raise ValueError(f"a recipe of {self.recipe} that names a {name}")
        if self.transparent and self.recipe != "visualize":
            raise ValueError(f"a recipe of {self.recipe} that is transparent")
        if self.channels and self.top:
            raise ValueError("channels are named, and the top of them")
        if isinstance(kind, Page) and set(self.inputs) != ({"photo"} if self.top else set()):
            raise ValueError(f"a recipe of {self.recipe} with inputs {', '.join(self.inputs)}")
        return self

    @field_validator("result")
    @classmethod
    def _sane(cls, result: Result) -> Result:
        if result.width * result.height > images.PIXEL_LIMIT:
            raise ValueError(f"over the limit of {images.PIXEL_LIMIT / 1e6:g} megapixels")
        return result

    def text(self, *, indent: int | None = None) -> str:
        """As JSON, the same for the same manifest; `parse` reads it back."""
        left_out = ("objective", "layers", "channels", "transparent")
        empty = {name for name in left_out if not getattr(self, name)}
        return self.model_dump_json(indent=indent, exclude_none=True, exclude=empty)

    @property
    def objectives(self) -> tuple[str, ...]:
        """The texts, be there one or several."""
        return (self.objective,) if isinstance(self.objective, str) else self.objective

    def checked_settings(self) -> Settings:
        """The settings, checked. RecipeError if this version has no such settings."""
        try:
            return checked(_kind(self.recipe).settings, self.settings)
        except SettingsError as error:
            raise RecipeError(f"the recipe's settings do not hold here: {error}") from None

    @staticmethod
    def parse(text: str | bytes, source: str = "the recipe") -> Manifest:
        """The manifest of a JSON text. RecipeError if it is damaged or of a newer version."""
        try:
            found = _Stated.model_validate_json(text)
        except ValidationError as error:
            raise RecipeError(f"{source} holds no recipe of phosphene: {_told(error)}") from None
        if found.format > FORMAT:
            raise _newer(source, found.phosphene)
        try:
            return Manifest.model_validate_json(text)
        except ValidationError as error:
            if _numbers(found.phosphene) > _numbers(__version__):
                raise _newer(source, found.phosphene) from None
            raise RecipeError(f"the recipe in {source} is damaged: {_told(error)}") from None

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
            text = images.read_recipe(path)
            if text is None:
                raise RecipeError(
                    f"{str(path)!r} carries no recipe: it was not made by phosphene, or another "
                    "program has saved it since"
                )
        if len(text) >= LONGEST:
            raise RecipeError(f"the recipe in {str(path)!r} is longer than {LONGEST >> 20} MiB")
        return Manifest.parse(_of_data(text), repr(str(path)))


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


def _told(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]


# --- what ran --------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """The versions that a result may depend on; what is not installed is left out."""
    found = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for name in ("torchvision", "numpy", "pillow", "numba"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine(network: Network) -> Machine:
    """What a network runs on. `network` is one that `prepared` gave."""
    kind = network.device.type
    if kind == "cuda":
        major, minor = torch.cuda.get_device_capability(network.device)
        instructions = f"sm_{major}{minor}"
    else:
        instructions = torch.backends.cpu.get_cpu_capability()
    return Machine(
        device=kind,
        precision=network.precision,  # pyright: ignore[reportArgumentType]
        threads=torch.get_num_threads(),
        architecture=platform.machine().lower(),
        instructions=instructions,
    )


def result_of(picture: Tensor) -> Result:
    """Size and hash of an image `(1, 3, H, W)` in [0, 1]."""
    pixels = images.to_uint8(picture)
    height, width = pixels.shape[:2]
    return Result(width=width, height=height, sha256=hashlib.sha256(pixels.tobytes()).hexdigest())


def input_of(path: str | Path, used: tuple[int, int], size: int | None = None) -> Input:
    """The record of a picture file that was used at `used` (H, W). ImageError if unreadable."""
    path, (height, width) = Path(path), used
    return Input(name=path.name, sha256=file_hash(path), width=width, height=height, size=size)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes. ImageError if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ImageError(f"cannot read {str(path)!r}: {error.strerror or error}") from error


def folder_of(path: str | Path) -> Folder:
    """The record of a folder of pictures. ImageError if there is none, or none in it."""
    path, whole = Path(path), hashlib.sha256()
    files = find_pictures(path)
    for file in files:
        whole.update(os.fsencode(file.relative_to(path).as_posix()) + b"\0")
        # What cannot be read is left out of a page, which says so.
        with suppress(ImageError):
            whole.update(file_hash(file).encode() if file.is_file() else b"")
        whole.update(b"\n")
    bare = os.path.basename(os.path.abspath(path)).encode("utf-8", "replace").decode()
    return Folder(name=bare or "pictures", count=len(files), sha256=whole.hexdigest())


def network_name(name: str) -> str:
    """The name of a network without the folder that its weights lie in."""
    scheme, _, rest = name.partition(":")
    if scheme != "file":
        return name
    path, at, architecture = rest.rpartition("@")
    return f"file:{Path(path).name}{at}{architecture}"


# --- the pictures of an objective ------------------------------------------------------------

_STRING = r'"(?:[^"]|"")*"' + "|" + r"'(?:[^']|'')*'"


def pictures_of(objective: Objective) -> list[str]:
    """The paths of the pictures that an objective's text names, each once, in their order."""
    found: dict[str, None] = {}
    for _, term in objective.terms or ((1.0, objective),):
        call = re.fullmatch(r"(\w+)\((.*)\)", term.text, re.DOTALL)
        if call is None or call[1] not in OBJECTIVES:
            continue
        parameters = inspect.signature(OBJECTIVES[call[1]]).parameters
        takes = [name for name, p in parameters.items() if _is_picture(p.annotation)]
        order = list(parameters)
        pieces = re.findall(rf"(?:{_STRING}|\[[^\]]*\]|[^,\"'\[])+", call[2])
        for position, piece in enumerate(pieces):
            keyword = re.match(r"\s*([A-Za-z_]\w*)=", piece)
            name = keyword[1] if keyword else order[min(position, len(order) - 1)]
            value = piece[keyword.end() if keyword else 0 :].strip()
            if name in takes and re.fullmatch(_STRING, value):
                found[_unquoted(value)] = None
    return list(found)


def with_pictures(text: str, names: Mapping[str, str]) -> str:
    """An objective's text with its pictures renamed."""

    def renamed(match: re.Match[str]) -> str:
        name = _unquoted(match[0])
        return quoted(names[name]) if name in names else match[0]

    return re.sub(_STRING, renamed, text)


def picture_roles(
    paths: Sequence[str], taken: Sequence[str] = ("photo", "mask", "painting")
) -> dict[str, str]:
    """path -> role: the file's bare name, numbered where two files have the same."""
    roles: dict[str, str] = {}
    for path in paths:
        bare = Path(path)
        role, count = bare.name, 1
        while role in roles.values() or role in taken:
            count += 1
            role = f"{bare.stem}-{count}{bare.suffix}"
        roles[path] = role
    return roles


def _is_picture(annotation: Any) -> bool:
    return str(annotation).endswith("Picture") or annotation == (Tensor | str | os.PathLike[str])


def _unquoted(token: str) -> str:
    return token[1:-1].replace(token[0] * 2, token[0])


# --- replay ----------------------------------------------------------------------------------


def find_inputs(
    manifest: Manifest,
    folders: Sequence[Path],
    given: Mapping[str, Path] | None = None,
    *,
    anyway: bool = False,
) -> dict[str, Path]:
    """role -> file, for every input: as `given`, or by its name in one of `folders`.

    A unit's folder of pictures has the role `pictures`.

    RecipeError if one is not there, or is another than the recipe's by its SHA-256; `anyway` takes
    it then.
    """
    given = dict(given or {})
    wanted: dict[str, Input | Folder] = {**manifest.inputs}
    if manifest.folder:
        wanted["pictures"] = manifest.folder
    for role in given:
        if role not in wanted:
            raise RecipeError(
                f"the recipe has no input {role!r}{suggest(role, wanted)}"
                if wanted
                else f"the recipe has no inputs, so none is called {role!r}"
            )
    return {
        role: _found(role, used, folders, given.get(role), anyway) for role, used in wanted.items()
    }


def _found(
    role: str, used: Input | Folder, folders: Sequence[Path], given: Path | None, anyway: bool
) -> Path:
    places = [given] if given else list(dict.fromkeys(folder / used.name for folder in folders))
    kind, what = ("folder", "folder of pictures") if isinstance(used, Folder) else ("file", role)
    others: list[tuple[Path, str]] = []
    for place in places:
        if given or (place.is_dir() if kind == "folder" else place.is_file()):
            digest = folder_of(place).sha256 if kind == "folder" else file_hash(place)
            if digest == used.sha256:
                return place
            others.append((place, digest))
    if not others:
        where = " or ".join(dict.fromkeys(repr(str(folder)) for folder in folders))
        raise RecipeError(
            f"{used.name!r}, the recipe's {what}, is not in {where}: "
            f"say where it is with --input {role}=PATH"
        )
    place, digest = others[0]
    if anyway:
        return place
    raise RecipeError(
        f"{str(place)!r} is not the recipe's {what}: its SHA-256 is {digest[:12]}…, that of the "
        f"recipe's {used.name!r} {used.sha256[:12]}…; --input {role}=PATH names another {kind}, "
        "--anyway takes this one"
    )


def find_network(manifest: Manifest, folders: Sequence[Path]) -> str:
    """The name by which `load_network` finds the recipe's network.

    RecipeError for one that is code: a recipe, which may be a stranger's, does not run any.
    """
    name = manifest.network.name
    scheme, _, rest = name.partition(":")
    runs = name
    if scheme == "file":
        path, _, runs = rest.rpartition("@")
        bare = Path(path).name
        place = next((f / bare for f in folders if bare and (f / bare).is_file()), None)
        if place is None:
            where = " or ".join(dict.fromkeys(repr(str(folder)) for folder in folders))
            raise RecipeError(
                f"the recipe's weights {bare!r} are not in {where}: "
                f"say where with --network file:PATH@{runs}"
            )
        name = f"file:{place}@{runs}"
    if names_code(runs):
        raise RecipeError(
            f"the recipe's network {name!r} may be code, which a recipe does not start by itself: "
            f"allow it with --network {name}"
        )
    return name


def ordered(manifest: Manifest, network: Network, files: Mapping[str, Path]) -> Order:
    """What a recipe asks for, on the machine that is here.

    network: see `find_network`. files: role -> file, see `find_inputs`; no other file is read.
    """
    return Order(
        network,
        replay_settings(manifest),
        replayed_objectives(manifest, files),
        manifest.layers,
        _started(manifest, files),
    )


def replay(manifest: Manifest, order: Order) -> Iterator[AnyStep]:
    """Make again what a recipe says, up to where it ended: a generator of steps.

    order: see `ordered`.

    NonFiniteError if the ascent leaves the numbers, as it did if `manifest.ended` says so.
    """
    ended = manifest.ended
    for step in RECIPES[manifest.recipe].steps(order):
        yield step
        at = (step.octave + 1, step.index + 1)
        if ended and ended.why != "not finite" and at == (ended.octave, ended.step):
            return


def sheet_steps(manifest: Manifest, order: Order) -> Iterator[SheetStep]:
    """Make a sheet again, every cell anew: what is kept from before would prove nothing.

    order: see `ordered`.
    """
    from phosphene.explain.sheets import sheet

    chosen = {"photo": order.pictures.get("photo"), "top": manifest.top, "keep": False}
    given = chosen | order.settings.model_dump()
    return sheet.steps(order.network, order.layers[0], manifest.channels or None, **given)


def card_steps(order: Order, folder: Path | None = None) -> Iterator[CardStep]:
    """Make a unit's card again, every drawing anew.

    order: see `ordered`. folder: that of the pictures, if the recipe has one: see `find_inputs`.
    """
    from phosphene.explain.units import unit_card

    given = {"pictures": folder, "keep": False, **order.settings.model_dump()}
    return unit_card.steps(order.network, order.objectives[0].text, **given)


def replay_settings(manifest: Manifest) -> Settings:
    """The settings of a replay: the recipe's precision, and its device if that is here."""
    given = {**manifest.checked_settings().model_dump(), "precision": manifest.machine.precision}
    try:
        pick_device(manifest.machine.device)
        given["device"] = manifest.machine.device
    except SettingsError:
        given["device"] = "auto"
    return checked(_kind(manifest.recipe).settings, given)


def _started(manifest: Manifest, files: Mapping[str, Path]) -> dict[str, Tensor]:
    """The pictures by role that a recipe's run is given: what it begins with, mask, painting."""
    found: dict[str, Tensor] = {}
    for role in ("photo", "painting"):
        if role in files:
            found[role] = images.load_image(files[role], size=manifest.inputs[role].size)
    if "photo" not in found and manifest.start == "photo":
        raise RecipeError("the recipe starts from a photo and names none")
    if "photo" not in found and manifest.recipe == "dream":
        size = (manifest.result.height, manifest.result.width)
        seed = manifest.settings.get("seed", 0)
        assert manifest.start != "photo"
        found["photo"] = start_picture(manifest.start, size, seed)
    if "mask" in files:
        found["mask"], _ = images.load_mask(files["mask"], images.size_of(found["photo"]))
    return found


def alpha_of(manifest: Manifest, files: Mapping[str, Path]) -> Tensor | None:
    """The transparency that a recipe's result keeps of its photo, at the photo's size."""
    kind = RECIPES.get(manifest.recipe)
    if "photo" not in files or kind is None or not kind.alpha:
        return None
    return images.read_image(files["photo"], size=manifest.inputs["photo"].size).alpha


def replayed_objectives(manifest: Manifest, files: Mapping[str, Path]) -> tuple[Objective, ...]:
    """A recipe's objectives, their pictures those of `files`; no other file is read."""
    found = []
    for text in manifest.objectives:
        named = pictures_of(spec.parse(text))
        for name in named:
            if name not in files:
                raise RecipeError(
                    f"the recipe's objective names the picture {name!r}, its inputs do not"
                )
        found.append(spec.parse(with_pictures(text, {name: str(files[name]) for name in named})))
    return tuple(found)


def arranged(manifest: Manifest, pictures: Tensor, *, blank: float = 1.0) -> Tensor:
    """What a file holds of a result `(N, C, H, W)`: its part, or all of it as one picture.

    A row for each objective or layer with its batch; where there is one of either, near a square.
    blank: what lies between pictures.
    """
    if not RECIPES[manifest.recipe].several:
        return pictures
    if manifest.part is not None:
        if manifest.part > len(pictures):
            raise RecipeError(
                f"the recipe is of picture {manifest.part}, and there are {len(pictures)}"
            )
        return pictures[manifest.part - 1 : manifest.part]
    batch = manifest.settings.get("batch", 1)
    rows = len(pictures) // batch
    return grid(pictures, columns=batch if rows > 1 and batch > 1 else None, blank=blank)


@dataclass(frozen=True)
class Comparison:
    """What came out of a replay.

    same: the picture computed now is the recipe's, by the hash of its 8-bit pixels.
    unchanged: the file holds that picture, as its format keeps it; None for a bare recipe.
    most, mean: the differences between the picture and the file's, in 8-bit levels; None if sizes
        differ or there is no file.
    differing: what else is not as it was, one short text each.
    """

    same: bool
    unchanged: bool | None
    most: int | None
    mean: float | None
    differing: tuple[str, ...]


def compare(
    old: Manifest, new: Manifest, picture: Tensor, alpha: Tensor | None, path: str | Path | None
) -> Comparison:
    """Compare a replay with its recipe, and with the pixels of the file at `path`, if it is one."""
    unchanged = most = mean = None
    if path is not None:
        # Encoded as the file was, alpha and all, since what a format keeps depends on it.
        with tempfile.TemporaryDirectory(prefix="phosphene-") as folder:
            copy = images.save_image(
                picture, Path(folder) / f"again{Path(path).suffix}", alpha=alpha
            )
            again, there = _levels(copy), _levels(path)
        if there.shape == again.shape:
            apart = abs(there - again)
            if not apart[..., 3].any():
                apart = apart[..., :3]
            most, mean = int(apart.max()), float(apart.mean())
        unchanged = most == 0
    return Comparison(
        same=new.result == old.result,
        unchanged=unchanged,
        most=most,
        mean=mean,
        differing=_differing(old, new),
    )


def _levels(path: str | Path) -> np.ndarray:
    """The colours and the alpha of a file, `(H, W, 4)`, 0 to 255."""
    pixels, alpha, _ = images.read_image(path)
    colours = images.to_uint8(pixels)
    alphas = np.full((*colours.shape[:2], 1), 255, np.uint8)
    if alpha is not None:
        alphas = (alpha[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return np.concatenate([colours, alphas], axis=2).astype(np.int16)


def _differing(old: Manifest, new: Manifest) -> tuple[str, ...]:
    told = []
    if old.network.fingerprint != new.network.fingerprint:
        told.append(f"weights {old.network.fingerprint[:12]}… -> {new.network.fingerprint[:12]}…")
    for role, was in old.inputs.items():
        now = new.inputs.get(role)
        if now and now.sha256 != was.sha256:
            told.append(f"{role} {was.sha256[:12]}… -> {now.sha256[:12]}…")
    if old.folder and new.folder and old.folder.sha256 != new.folder.sha256:
        told.append(f"pictures {old.folder.sha256[:12]}… -> {new.folder.sha256[:12]}…")
    before = {"phosphene": old.phosphene, **old.versions, **old.machine.model_dump()}
    after = {"phosphene": new.phosphene, **new.versions, **new.machine.model_dump()}
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            told.append(f"{name} {before.get(name, 'none')} -> {after.get(name, 'none')}")
    return tuple(told)
