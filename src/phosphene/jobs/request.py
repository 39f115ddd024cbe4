"""A request: what anyone asks for, as JSON; no torch is needed to read, check or write one.

>>> request = Request(recipe="dream", inputs={"photo": InputFile(path="sky.jpg")},
...                   outputs={"picture": "dream.png"})
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from phosphene.errors import ObjectiveError, RequestError
from phosphene.manifest.hashes import path_hash
from phosphene.manifest.schema import (
    NUMERICS,
    Input,
    Manifest,
    Part,
    Plugin,
    RecipeName,
    Region,
    Side,
    Start,
    check_fit,
    checked_settings,
    format_problem,
    refuse_missing_recipe,
)
from phosphene.objectives.text import Call, expanded, parse_tree, quoted
from phosphene.recipes.base import Output, Recipe, is_recipe, recipe_named
from phosphene.settings import Settings, chain_plugins, is_complete
from phosphene.zoo import named_architecture

FORMAT = 1
LONGEST = 16 * 2**20  # bytes; one is some 2 kB

OutputKind = Literal["picture", "page", "film", "data", "recipe", "octaves"]


@dataclass(frozen=True)
class Result:
    """What a kind of result is: see `Recipe.output`.

    kind: that of its own output. suffix: of its file, where nobody names one. more: the outputs
    that only it has. check: "module:function", `check(path, overwrite=…)` of its file's name, which
    takes the settings `checked`, too. job: "module:class" of what makes and saves it; of_parts: of
    what does so where it is put together of others' results.
    """

    kind: OutputKind
    suffix: str
    check: str
    job: str
    more: tuple[OutputKind, ...] = ()
    checked: tuple[str, ...] = ()
    of_parts: str = ""


RESULTS: dict[Output, Result] = {
    "image": Result(
        "picture",
        ".png",
        "phosphene.image.files:check_output",
        "phosphene.jobs.pictures:PictureJob",
    ),
    "page": Result(
        "page",
        ".png",
        "phosphene.image.files:check_page",
        "phosphene.jobs.pages:PageJob",
        more=("data",),
        of_parts="phosphene.jobs.grids:GridJob",
    ),
    "video": Result(
        "film",
        ".mp4",
        "phosphene.films.formats:check_film_output",
        "phosphene.jobs.films:FilmJob",
        checked=("codec", "crf"),
    ),
}


def _no_nul(path: str) -> str:
    if "\0" in path:
        raise ValueError("a path has no NUL in it")
    return path


Path_ = Annotated[str, AfterValidator(_no_nul)]


class InputFile(Part):
    """A picture that goes in, or a folder: where it lies, and, if it must be that very one, its
    SHA-256; `size` is the longest side in px to which it is resized."""

    path: Path_
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    size: Side | None = None


class Request(Part):
    """Everything that a result depends on, and where it is to lie.

    format: of the request.
    recipe: the name of what is to be made.
    plugins: the code of a user's own that it needs; it is never loaded because a request names it.
    network: a name, as `load_network` takes it.
    objectives, layers: what it is about; where nothing is named, the recipe's own default. Pictures
        in an objective are named by their role.
    start: what a recipe begins with where it needs no photo.
    size: the longest side in px.
    inputs: by role. Paths are relative to the folder of the request's file, once it is saved.
    regions: parts of the picture that have objectives of their own; masks are named by their role.
    settings: by name; what is not given is its default, through that network.
    outputs: where the picture or page, the data, the recipe and the octaves are to lie. `{}` in a
        picture's path stands for one name for each of several. Whether a file may be replaced is
        for the caller to say, and not for a request.
    """

    format: Literal[1] = FORMAT
    recipe: RecipeName
    plugins: tuple[Plugin, ...] = ()
    network: str = "dreamnet"
    objectives: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    start: Start | None = None
    size: Side | None = None
    inputs: dict[str, InputFile] = Field(default_factory=dict)
    regions: tuple[Region, ...] = ()
    settings: dict[str, Any] = Field(default_factory=dict)
    outputs: dict[OutputKind, Path_] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _has_its_recipe(cls, given: Any) -> Any:
        refuse_missing_recipe(given, "the request", RequestError)
        return _with_ranges(given)

    @model_validator(mode="after")
    def _fits(self) -> Request:
        recipe = self.declaration
        given = (self.objectives, self.layers, self.inputs, self.start, self.settings)
        check_fit(recipe, *given, regions=self.regions, complete=False)
        if self.size is not None and not any(entry.resized for entry in recipe.inputs):
            raise ValueError(f"a request of {recipe.name} with a size of its own")
        for entry in recipe.inputs:
            if entry.resized and entry.role in self.inputs and self.inputs[entry.role].size:
                raise ValueError(f"the size of the {entry.role} is the request's own size")
        kinds = output_kinds(recipe)
        for kind in self.outputs:
            if kind not in kinds:
                raise ValueError(f"{recipe.name} gives no {kind}; there are {', '.join(kinds)}")
        return self

    @property
    def declaration(self) -> Recipe:
        """The recipe's declaration."""
        return recipe_named(self.recipe)

    @property
    def main_output(self) -> Path | None:
        """Where the picture or the page is to lie."""
        path = self.outputs.get(main_kind(self.declaration))
        return None if path is None else Path(path)

    def checked_settings(self, loaded: str = "") -> Settings:
        """The settings, complete. RecipeError if this version has no such settings.

        What is not given is the default through that network: by the architecture that its name
        says, or that it has, once it is `loaded`, where the name is that of code. Where all is
        given that has no meaning of its own when it is absent, as of a request that was completed,
        what lacks came later, and is what its absence means in a manifest.
        """
        recipe = self.declaration
        if is_complete(recipe.settings, self.settings):
            return checked_settings(recipe, self.settings)
        architecture = named_architecture(self.network) or loaded
        start = recipe.start_of(self.start, self.inputs)
        return checked_settings(recipe, self.settings, architecture=architecture, start=start)

    def input_paths(self) -> dict[str, Path]:
        """Every file and folder that is read, by role; the file of weights among them."""
        found = {role: Path(entry.path) for role, entry in self.inputs.items()}
        weights, _ = weights_file(self.network)
        if weights is not None:
            # A role may be any file's name, this too.
            name = "weights" if "weights" not in found else "network's weights"
            found[name] = Path(weights).expanduser()
        return found

    def needed_plugins(self) -> tuple[Plugin, ...]:
        """The plugins that registered what it uses, by name: recipe, network, objectives, settings.

        Those that it lists itself are among them as long as they are not loaded. ObjectiveError for
        an objective that cannot be read.
        """
        from phosphene.plugins import find_plugin, plugin_of

        _, network = weights_file(self.network)
        found = [plugin_of("recipe", self.recipe), plugin_of("network", network.partition(":")[0])]
        found += chain_plugins(self.checked_settings())
        subject = self.declaration.subject
        texts = [region.objective for region in self.regions]
        if subject is not None and subject.parsed:
            texts += self.objectives
        for text in texts:
            units = (unit for _, unit in parse_tree(text).terms)
            found += [plugin_of("objective", unit.name) for unit in units if isinstance(unit, Call)]
        listed = [plugin for plugin in self.plugins if find_plugin(plugin.name) is None]
        needed = {p.name: p for p in (*listed, *(Plugin.of(p) for p in found if p is not None))}
        return tuple(needed[name] for name in sorted(needed))

    # Identity -------------------------------------------------------------------------------------

    def key(self, fingerprint: str) -> str:
        """What the result depends on, as one SHA-256: see `identity`."""
        whole = json.dumps(self.identity(fingerprint), sort_keys=True)
        return hashlib.sha256(whole.encode()).hexdigest()

    def identity(self, fingerprint: str, plugins: Iterable[Plugin] | None = None) -> dict[str, Any]:
        """What the result depends on, as JSON: all but the outputs and the paths.

        fingerprint: that of the network's weights. plugins: with which it was or will be made; by
        default those that are loaded now. RequestError if an input has no SHA-256 yet (see
        `pinned`).
        """
        used = self.needed_plugins() if plugins is None else plugins
        unknown = [role for role, entry in self.inputs.items() if entry.sha256 is None]
        if unknown:
            raise RequestError(f"the SHA-256 of {', '.join(unknown)} is not known yet")
        own = {entry.role for entry in self.declaration.inputs}
        subject = self.declaration.subject
        parsed = subject is not None and subject.parsed

        def keyed(text: str) -> str:
            text = parse_tree(text).text if parsed else text
            for role, entry in self.inputs.items():
                if role not in own:  # a picture of an objective, whose name says nothing
                    text = text.replace(quoted(role), quoted(f"{entry.sha256}"))
            return text

        left_out = {"outputs", "inputs", "regions", "network", "settings", "objectives", "plugins"}
        whole = self.model_dump(mode="json", exclude=left_out)
        if self.regions:
            masks = [f"{self.inputs[region.mask].sha256}" for region in self.regions]
            regions = zip(masks, self.regions, strict=True)
            whole["regions"] = [[mask, keyed(region.objective)] for mask, region in regions]
        whole |= {
            "objectives": [keyed(text) for text in self.objectives],
            "weights": fingerprint,
            "numerics": NUMERICS,
            "plugins": [[plugin.name, plugin.sha256] for plugin in used],
            "settings": self._keyed_settings(),
            "inputs": sorted(
                [role if role in own else "", entry.sha256, entry.size or 0]
                for role, entry in self.inputs.items()
            ),
        }
        return json.loads(json.dumps(whole))

    def _keyed_settings(self) -> dict[str, Any]:
        """The settings that a key is of; a later one only where it is not what its absence means.

        So keys stay as they were when a setting is added. Those with "keyed" were there before.
        """

        def unused(name: str, value: Any) -> bool:
            extra = fields[name].json_schema_extra
            if not isinstance(extra, dict) or "absent" not in extra or extra.get("keyed"):
                return False
            return value == extra["absent"]

        fields = self.declaration.settings.model_fields
        whole = self.checked_settings().model_dump(mode="json")
        return {name: value for name, value in whole.items() if not unused(name, value)}

    def pinned(self) -> Request:
        """The same, with the SHA-256 of everything that goes in.

        RequestError if one is not there; ImageError if it cannot be read.
        """
        self.check_inputs()

        def pin(entry: InputFile) -> InputFile:
            if entry.sha256:
                return entry
            return entry.model_copy(update={"sha256": path_hash(Path(entry.path))})

        inputs = {role: pin(entry) for role, entry in self.inputs.items()}
        return self.model_copy(update={"inputs": inputs})

    def check_inputs(self) -> None:
        """RequestError unless every input is there, and is the one that its SHA-256 says."""
        for role, entry in self.inputs.items():
            path = Path(entry.path)
            if not path.exists():
                raise RequestError(f"the request's {role} is not there: no file {entry.path!r}")
            if entry.sha256:
                digest = path_hash(path)
                if digest != entry.sha256:
                    raise RequestError(
                        f"{entry.path!r} is not the request's {role}: its SHA-256 is "
                        f"{digest[:12]}…, that of the request's {entry.sha256[:12]}…"
                    )

    # Files ----------------------------------------------------------------------------------------

    def text(self) -> str:
        """As JSON; `parse` reads it back."""
        optional = ("plugins", "objectives", "layers", "inputs", "regions", "outputs")
        empty = {name for name in optional if not getattr(self, name)}
        whole = self.model_dump(mode="json", exclude_none=True, exclude=empty)
        whole["settings"] = self.settings  # None is a value there
        return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"

    @staticmethod
    def parse(text: str | bytes | dict[str, Any], source: str = "the request") -> Request:
        """The request of a JSON text, or of the object in it.

        RequestError if it is damaged or of a newer format.
        """
        try:
            stated = _validated(_Stated, text)
        except ValidationError as error:
            problem = format_problem(error)
            raise RequestError(f"{source} is no request of phosphene: {problem}") from None
        if stated.format > FORMAT:
            raise RequestError(
                f"{source} is a request of format {stated.format}, this phosphene reads {FORMAT}: "
                "upgrade phosphene"
            )
        try:
            return _validated(Request, text)
        except ValidationError as error:
            raise RequestError(f"{source} is no whole request: {format_problem(error)}") from None

    @staticmethod
    def read(path: str | Path) -> Request:
        """The request of a file; its paths, relative to the file's folder, as they are from here.

        RequestError if it cannot be read or is damaged.
        """
        path = Path(path)
        try:
            with path.open("rb") as stream:
                text = stream.read(LONGEST + 1)
        except OSError as error:
            reason = error.strerror or error
            raise RequestError(f"cannot read the request {str(path)!r}: {reason}") from None
        if len(text) > LONGEST:
            raise RequestError(f"the request {str(path)!r} is longer than {LONGEST >> 20} MiB")
        found = Request.parse(_with_any_paths(text), repr(str(path)))
        return found.moved(lambda inner: os.path.normpath(path.parent / inner))

    def relative_to(self, folder: str | Path) -> Request:
        """The same with paths relative to a folder, as a request is saved there."""
        return self.moved(lambda inner: os.path.relpath(inner, folder))

    def moved(self, renamed: Callable[[str], str]) -> Request:
        """The same with `renamed(path)` for every path in it, that of weights included."""
        inputs = {
            role: entry.model_copy(update={"path": renamed(entry.path)})
            for role, entry in self.inputs.items()
        }
        outputs = {kind: renamed(path) for kind, path in self.outputs.items()}
        network = self.network
        weights, architecture = weights_file(network)
        if weights is not None and not weights.startswith("~"):
            network = f"file:{renamed(weights)}@{architecture}"
        return self.model_copy(update={"inputs": inputs, "outputs": outputs, "network": network})


def request_of(
    manifest: Manifest,
    network: str,
    files: Mapping[str, Path],
    settings: Settings,
    output: Path | None = None,
) -> Request:
    """What a manifest asks for, with the paths of the files that are here, by role."""
    recipe, inputs, size = manifest.declaration, {}, manifest.size
    for role, record in manifest.inputs.items():
        longest = record.size if isinstance(record, Input) else None
        declared = recipe.input(role)
        if declared is not None and declared.resized:
            size, longest = longest, None
        inputs[role] = InputFile(path=str(files[role]), size=longest)
    return Request(
        recipe=manifest.recipe,
        plugins=manifest.plugins,
        network=network,
        objectives=manifest.objectives,
        layers=manifest.layers,
        start=manifest.start,
        size=size,
        inputs=inputs,
        regions=manifest.regions,
        settings=recipe.dump_settings(settings, manifest.regions),
        outputs={main_kind(recipe): str(output)} if output else {},
    )


def weights_file(network: str) -> tuple[str | None, str]:
    """The file of weights that a network's name names, or None; and what is to be loaded."""
    scheme, _, rest = network.partition(":")
    path, at, architecture = rest.rpartition("@")
    return (path, architecture) if scheme == "file" and at else (None, network)


def main_kind(recipe: Recipe) -> OutputKind:
    """The kind of a recipe's own output."""
    return RESULTS[recipe.output].kind


def output_kinds(recipe: Recipe) -> tuple[OutputKind, ...]:
    """The kinds of output that a recipe can have."""
    kinds: list[OutputKind] = [main_kind(recipe), "recipe", *RESULTS[recipe.output].more]
    if recipe.octaves:
        kinds.append("octaves")
    return tuple(kinds)


def picture_roles(paths: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """path -> role, for the pictures of objectives: the file's bare name, numbered where it must.

    taken: roles that a recipe has itself, and those of regions' masks.
    """
    roles: dict[str, str] = {}
    used = set(taken)
    for path in paths:
        bare = Path(path)
        # A name may be no text, and a recipe holds nothing else.
        role, count = bare.name.encode("utf-8", "replace").decode(), 1
        while role in used:
            count += 1
            role = f"{bare.stem}-{count}{bare.suffix}"
        roles[path] = role
        used.add(role)
    return roles


def plain_name(text: str) -> str:
    """A name as a part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-")[-60:] or "page"


class _Stated(BaseModel):
    format: int = Field(ge=1)
    recipe: str


def _with_ranges(given: Any) -> Any:
    """What is to become a request, with an objective for each channel of a range.

    ValueError for a range that is none. What is amiss besides is told when the rest is checked.
    """
    name = given.get("recipe") if isinstance(given, dict) else None
    texts = given.get("objectives") if isinstance(given, dict) else None
    if not isinstance(name, str) or not is_recipe(name) or not isinstance(texts, list | tuple):
        return given
    subject = recipe_named(name).subject
    several = subject is not None and subject.parsed and subject.several
    if not several or not all(isinstance(text, str) for text in texts):
        return given
    try:
        return given | {"objectives": expanded(texts)}
    except ObjectiveError as error:
        raise ValueError(str(error)) from None


_Model = TypeVar("_Model", bound=BaseModel)


def _validated(model: type[_Model], given: str | bytes | dict[str, Any]) -> _Model:
    if isinstance(given, dict):
        return model.model_validate(given)
    return model.model_validate_json(given)


def _with_any_paths(text: bytes) -> bytes | dict[str, Any]:
    """A request's text; where its bytes are no UTF-8, as a path's may be, the object in it."""
    try:
        text.decode()
    except UnicodeDecodeError:
        with suppress(ValueError, RecursionError):
            found = json.loads(text.decode("utf-8", "surrogateescape"))
            return found if isinstance(found, dict) else text
    return text
