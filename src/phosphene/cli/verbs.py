"""A verb for every recipe, derived from its declaration: arguments, flags, help, the request."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

from cyclopts import Group, Parameter

from phosphene.cli.flags import setting_flag
from phosphene.cli.plugins import Plugins
from phosphene.cli.running import (
    CHECKPOINT,
    CHECKPOINT_EVERY,
    OUT,
    Events,
    FilmOptions,
    Force,
    make,
)
from phosphene.errors import SettingsError
from phosphene.image.files import LONGEST_SIDE
from phosphene.jobs.request import InputFile, OutputKind, Request, main_kind, output_kinds
from phosphene.manifest.schema import Region
from phosphene.objectives.text import expanded
from phosphene.recipes.base import ImageInput, Recipe, recipe_named
from phosphene.recipes.presets import is_of_a_file
from phosphene.zoo import named_architecture

POSITIONAL, KEYWORD = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.KEYWORD_ONLY
PRESETS = "How (what is not given is the preset's, or what stands here)"


@Parameter(name="*")
@dataclass(frozen=True)
class OutputOptions:
    """What is written and told besides the result."""

    recipe: Annotated[Path | None, Parameter(group=OUT)] = None
    """A JSON file for the recipe, too."""
    save_request: Annotated[Path | None, Parameter(group=OUT)] = None
    """A JSON file for what is asked for, which phosphene run takes."""
    dry_run: Annotated[bool, Parameter(group=OUT, negative=(), show_default=False)] = False
    """Check everything, and save the request, but make nothing."""
    events: Events = None
    """A file to which everything that happens is added, as lines of JSON."""
    force: Force = False
    """Replace files that are there. Never an input."""
    quiet: Annotated[bool, Parameter(group=OUT, negative=(), show_default=False)] = False
    """Say nothing but errors."""
    verbose: Annotated[bool, Parameter(group=OUT, negative=(), show_default=False)] = False
    """Say what is done with what."""


def verb_of(name: str) -> Callable[..., int]:
    """The verb of a recipe: a function whose signature has what its declaration says."""
    recipe = recipe_named(name)
    return _Signature(recipe).function()


class _Signature:
    """Builds a verb's parameters, in the order in which its help lists them."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.what = Group(recipe.heading, sort_key=1)
        preset = "preset" in recipe.settings.model_fields
        self.how = Group(PRESETS if preset else "How", sort_key=2)
        self.parameters: list[inspect.Parameter] = []

    def function(self) -> Callable[..., int]:
        """The verb."""
        recipe = self.recipe
        self._positional()
        self._flags()
        self._settings()
        self._outputs()

        def verb(*args: Any, **given: Any) -> int:
            bound = verb.__signature__.bind(*args, **given)  # pyright: ignore[reportFunctionMemberAccess]
            bound.apply_defaults()
            return _called(recipe, bound.arguments)

        verb.__name__ = recipe.name
        verb.__doc__ = f"{recipe.summary}\n\n{recipe.about}".strip()
        verb.__signature__ = inspect.Signature(self.parameters, return_annotation=int)  # pyright: ignore[reportFunctionMemberAccess]
        verb.__annotations__ = {p.name: p.annotation for p in self.parameters}
        return verb

    def _add(
        self, key: str, annotation: Any, default: Any = inspect.Parameter.empty,
        kind: Any = KEYWORD, group: Group | None = None, **options: Any,
    ) -> None:  # fmt: skip
        shown = options.pop("shown", None)
        if shown is not None:
            options["show_default"] = lambda _: shown
        flag = Parameter(group=group or self.what, **options)
        self.parameters.append(
            inspect.Parameter(key, kind, default=default, annotation=Annotated[annotation, flag])
        )

    def _positional(self) -> None:
        recipe, subject = self.recipe, self.recipe.subject
        if recipe.network_positional:
            self._add("network", str, kind=POSITIONAL, help=NETWORK)
        for entry in recipe.inputs:
            if entry.positional and entry.required and not recipe.starts:
                self._add(entry.role, Path, kind=POSITIONAL, help=entry.help)
            elif entry.positional:
                self._add(entry.role, Path | None, None, kind=POSITIONAL, help=entry.help)
        if subject is not None and subject.positional:
            if subject.several:
                many = inspect.Parameter.VAR_POSITIONAL
                self._add(subject.name, str, kind=many, help=subject.help)
            else:
                self._add(subject.name, str, kind=POSITIONAL, help=subject.help)

    def _flags(self) -> None:
        recipe, subject = self.recipe, self.recipe.subject
        if not recipe.network_positional and recipe.own_network is not None:
            shown = f"{DEFAULT_NETWORK}, or the preset's"
            self._add("network", str | None, None, help=NETWORK, shown=shown)
        elif not recipe.network_positional:
            self._add("network", str, DEFAULT_NETWORK, help=NETWORK)
        if subject is not None and not subject.positional:
            kind = list[str] | None if subject.several else str | None
            shown = subject.shown_default
            self._add(subject.name, kind, None, help=subject.help, shown=shown, negative=())
        if subject is not None and subject.list_flag:
            text = "The same for whole layers, apart by commas, such as mixed3a,mixed4c."
            self._add(subject.list_flag, str | None, None, help=text)
        for shorthand in recipe.shorthands:
            name, text = shorthand.name, shorthand.help
            if shorthand.takes == "flag":
                self._add(name, bool, False, help=text, negative=(), show_default=False)
            else:
                self._add(name, Path | None, None, help=text)
        if recipe.regions:
            self._add("region", list[str] | None, None, help=REGION, negative=())
        for entry in recipe.inputs:
            if not entry.positional:
                self._input_flag(entry)
            if entry.own_size is not None:
                self._add(f"{entry.role}_size", int | None, None, help=entry.own_size,
                          allow_leading_hyphen=True, shown="the result's")  # fmt: skip
        if recipe.starts:
            choices = ("photo", *reversed(recipe.starts))
            shown = f"photo, or {recipe.starts[0]} without one"
            start: Any = Optional[Literal[choices]]  # noqa: UP045  # pyright: ignore
            self._add("start", start, None, help="What to begin with.", shown=shown)
        if recipe.sized:
            drawn = ", a noise or sky drawn so large" if recipe.starts else ""
            role = next(entry.role for entry in recipe.inputs if entry.resized)
            size = f"Longest side in px: the {role} is resized to it{drawn}."
            self._add("size", int | None, None, help=size, allow_leading_hyphen=True)

    def _input_flag(self, entry: ImageInput) -> None:
        kind = tuple[int, Path] | None if entry.with_setting else Path | None
        more: dict[str, Any] = {} if entry.flag is None else {"name": entry.flag}
        shown = entry.shown_default
        self._add(entry.role, kind, None, help=entry.help, shown=shown, negative=(), **more)

    def _settings(self) -> None:
        recipe = self.recipe
        paired = {entry.with_setting for entry in recipe.inputs}
        fields = recipe.settings.model_fields
        for name in sorted(fields, key=lambda name: name != "preset"):
            if name not in paired:
                groups = {"what": self.what, "output": OUT}
                self.parameters.append(setting_flag(name, fields[name], self.how, groups))

    def _outputs(self) -> None:
        recipe = self.recipe
        self._add("output", Path | None, None, group=OUT, name=["--output", "-o"],
                  help=recipe.output_help, shown=recipe.output_shown)  # fmt: skip
        if "data" in output_kinds(recipe):
            text = "A JSON file for what is on the page but the pictures, with the recipe."
            self._add("data", Path | None, None, group=OUT, help=text)
        if recipe.octaves:
            text = "A folder for the dream so far at the end of each octave."
            self._add("save_octaves", Path | None, None, group=OUT, help=text)
        if recipe.output == "video":
            keyed = "keyframes" in recipe.settings.model_fields
            for name, (kind, text) in FILM_FLAGS.items():
                if keyed or name != "plot_keys":
                    self._add(name, kind | None, None, group=OUT, help=text, negative=())
        if recipe.parts:
            text = "Begin it though it makes more than 400 pictures, or takes uncommonly long."
            self._add("large", bool, False, group=OUT, help=text, negative=(), show_default=False)
        if recipe.caches:
            text = "Keep what is drawn in the cache folder, and take from there what is kept."
            self._add("keep", bool, True, group=OUT, help=text)
        if recipe.resumes:
            self._add("checkpoint", Path | None, None, group=OUT, help=CHECKPOINT)
            self._add("checkpoint_every", float | None, None, group=OUT, help=CHECKPOINT_EVERY,
                      shown="60", allow_leading_hyphen=True)  # fmt: skip
        self.parameters.append(
            inspect.Parameter("options", KEYWORD, default=OutputOptions(), annotation=OutputOptions)
        )
        self.parameters.append(inspect.Parameter("plugin", KEYWORD, default=(), annotation=Plugins))


DEFAULT_NETWORK = "dreamnet"
NETWORK = "A name: see phosphene networks."
REGION = (
    "MASK=OBJECTIVE, as in sky.png=mixed5a: where the picture MASK is white, this is dreamt. May "
    "be given several times; where masks overlap, regions share. An objective that goes by places "
    "turns the jitter off for all."
)


# Of recipes for films: what is no setting.
FILM_FLAGS: dict[str, tuple[Any, str]] = {
    "keep_frames": (bool, "Keep the frames, as PNG, in FILM.work/frames."),
    "preview": (
        bool,
        "Make one frame and two small seconds, and tell how long all of it will take.",
    ),
    "plot_keys": (Path, "Draw the curves of all --key, .png or .svg, and make nothing else."),
    "like": (Path, "A picture or film of phosphene's: its settings, objective and network."),
}

# A call ------------------------------------------------------------------------------------------


def _called(recipe: Recipe, given: dict[str, Any]) -> int:
    options: OutputOptions = given["options"]
    from phosphene.cli.reporter import Reporter

    request = request_from(recipe, given)
    shorthands = {s.name: _value(given[s.name]) for s in recipe.shorthands}
    return make(
        request,
        Reporter(quiet=options.quiet, verbose=options.verbose),
        force=options.force,
        allow=_networks(recipe, request, given["network"]),
        large=given.get("large", True),
        cache=given.get("keep", True),
        shorthands=shorthands,
        save_request=options.save_request,
        dry_run=options.dry_run,
        journal=options.events,
        checkpoint=given.get("checkpoint"),
        checkpoint_every=given.get("checkpoint_every"),
        film=film_options(recipe, given),
    )


def _networks(recipe: Recipe, request: Request, named: str | None) -> tuple[str, ...]:
    """The networks that were named on the command line: whoever names code there wants it.

    That of a preset's file, which may be a stranger's, is not among them.
    """
    first = (named,) if named else ()
    if not recipe.parts:
        return first
    settings: Any = request.checked_settings()
    axes = settings.parts().axes
    return (*first, *(value for axis in axes for value in axis.values.get("network", ())))


def film_options(recipe: Recipe, given: dict[str, Any]) -> FilmOptions | None:
    """What a recipe for films was told besides its settings; None of any other."""
    if recipe.output != "video":
        return None
    return FilmOptions(
        keep_frames=bool(given["keep_frames"]),
        preview=bool(given["preview"]),
        plot_keys=given.get("plot_keys"),
    )


def _value(given: Any) -> Any:
    return str(given) if isinstance(given, Path) else given


def request_from(recipe: Recipe, given: dict[str, Any]) -> Request:
    """The request of a command line's arguments, by name."""
    options: OutputOptions = given["options"]
    if given.get("like") is not None:
        given = like(recipe, given, given["like"])
    settings = {n: v for n in recipe.settings.model_fields if (v := given.get(n)) is not None}
    inputs: dict[str, InputFile] = {}
    for entry in recipe.inputs:
        value = given[entry.role]
        if value is None:
            continue
        if entry.with_setting:
            settings[entry.with_setting], value = value
        size = given.get(f"{entry.role}_size")
        _check_size(f"{entry.role} size", size)
        inputs[entry.role] = InputFile(path=str(value), size=size)
    network = given["network"] or _own_network(recipe, settings)
    architecture = named_architecture(network)
    start = _start(recipe, inputs, given.get("start"))
    model = recipe.checked_settings(settings, architecture, start)
    subject = recipe.subject
    named = given.get(subject.name) if subject else None
    texts = (named,) if isinstance(named, str) else tuple(named or ())
    if subject and subject.parsed and subject.several:
        texts = expanded(texts)
    if subject and subject.list_flag:
        texts += split_layers(subject.list_flag, given.get(subject.list_flag))
    if subject and not texts and subject.default is None:
        raise SettingsError(subject.missing or f"no {subject.name} is named")
    _check_size("size", given.get("size") if recipe.sized else None)
    paths: dict[OutputKind, Path | None] = {
        main_kind(recipe): given["output"],
        "data": given.get("data"),
        "recipe": options.recipe,
        "octaves": given.get("save_octaves"),
    }
    regions: list[Region] = []
    for number, text in enumerate(given.get("region") or (), 1):
        mask, objective = split_region(text)
        regions.append(Region(mask=f"region-{number}", objective=objective))
        inputs[f"region-{number}"] = InputFile(path=mask)
    layers = subject is not None and subject.field == "layers"
    recipe.check_regions(regions, vars(model))
    chosen = recipe.dump_settings(model, regions)
    if not architecture:  # code says its own once it is loaded, and then what is not given
        chosen = {name: chosen.get(name, value) for name, value in settings.items()}
    request = Request(
        recipe=recipe.name,
        network=network,
        layers=texts if layers else (),
        objectives=texts if subject and not layers and not subject.parsed else (),
        start=start,
        size=given.get("size") if recipe.sized else None,
        inputs=inputs,
        regions=tuple(regions),
        settings=chosen,
        outputs={kind: str(path) for kind, path in paths.items() if path},
    )
    if recipe.parts:
        from phosphene.jobs.parts import check_parts, with_inputs

        request = with_inputs(request, model)
        check_parts(request, request.checked_settings())
    if subject and subject.parsed and (texts or regions):
        from phosphene.jobs.runner import named_by_role

        request = named_by_role(request, texts, [region.objective for region in regions])
    return request


def like(recipe: Recipe, given: dict[str, Any], file: Path) -> dict[str, Any]:
    """The arguments with what they lack taken from a file's manifest: settings but those that go
    with one recipe alone, the objective, and the network where none is named.

    RecipeError for a file without a manifest.
    """
    from phosphene.manifest.schema import Manifest
    from phosphene.objectives import with_pictures

    manifest, found = Manifest.read(file), dict(given)
    for name, field in recipe.settings.model_fields.items():
        extra = field.json_schema_extra
        alike = not isinstance(extra, dict) or extra.get("alike", True)
        if is_of_a_file(manifest.settings.get(name)):
            continue  # a preset that may not be here; what it said is among the settings
        if found.get(name) is None and name in manifest.settings and alike:
            found[name] = manifest.settings[name]
    subject = recipe.subject
    if subject and subject.parsed and manifest.objectives and not found.get(subject.name):
        paths = {role: str(file.parent / part.name) for role, part in manifest.inputs.items()}
        texts = [with_pictures(text, paths) for text in manifest.objectives]
        found[subject.name] = texts if subject.several else texts[0]
    if found["network"] in (None, DEFAULT_NETWORK):
        found["network"] = manifest.network.name
    return found


def _own_network(recipe: Recipe, settings: dict[str, Any]) -> str:
    """The network of who names none."""
    found = recipe.own_network(settings) if recipe.own_network else None
    return found or DEFAULT_NETWORK


def split_layers(flag: str, text: str | None) -> tuple[str, ...]:
    """The names of "mixed3a, mixed4c". SettingsError if one is empty."""
    names = tuple(part.strip() for part in text.split(",")) if text is not None else ()
    if not all(names):
        raise SettingsError(f"--{flag} {text!r}: expected names, such as mixed3a,mixed4c")
    return names


def split_region(text: str) -> tuple[str, str]:
    """The mask and the objective of MASK=OBJECTIVE.

    Both may hold a "=": the mask is the longest file that is there, or else what stands before the
    first one. SettingsError for what has not both.
    """
    parts = text.split("=")
    splits = [("=".join(parts[:k]), "=".join(parts[k:])) for k in range(1, len(parts))]
    there = [split for split in splits if os.path.isfile(split[0])]
    mask, objective = there[-1] if there else splits[0] if splits else ("", "")
    if not mask.strip() or not objective.strip():
        raise SettingsError(f"--region {text!r}: expected MASK=OBJECTIVE, such as sky.png=mixed5a")
    return mask, objective


def _check_size(what: str, size: int | None) -> None:
    if size is not None and size < 1:
        raise SettingsError(f"{what} is {size}; the longest side must be 1 px or more")
    if size is not None and size > LONGEST_SIDE:
        raise SettingsError(f"{what} is beyond {LONGEST_SIDE} px, the longest side of any picture")


def _start(recipe: Recipe, inputs: dict[str, InputFile], start: Any) -> Any:
    if not recipe.starts:
        return None
    role = next(entry.role for entry in recipe.inputs if entry.required)
    photo = inputs.get(role)
    if start is None:
        return "photo" if photo else recipe.starts[0]
    if start == "photo" and photo is None:
        raise SettingsError(f"--start photo needs a photo: phosphene {recipe.name} {role.upper()}")
    if start != "photo" and photo is not None:
        raise SettingsError(f"--start {start} needs no photo, but there is {photo.path!r}")
    return start


def __getattr__(name: str) -> Callable[..., int]:
    # The command line names a verb as `phosphene.cli.verbs:recipe-NAME`; it is built when called.
    if not name.startswith("recipe-"):
        raise AttributeError(name)
    return verb_of(name.removeprefix("recipe-"))
