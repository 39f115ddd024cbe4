"""`prepare` and `run`: from a request to a job, and its events.

>>> for event in run(request):
...     if isinstance(event, Saved):
...         print(event.path)
out.png
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phosphene.errors import ImageError, RequestError, SettingsError
from phosphene.jobs import outputs
from phosphene.jobs.checkpoint import EVERY, Checkpoint, recipe_of, with_sizes
from phosphene.jobs.events import Event, Note
from phosphene.jobs.inputs import (
    Loaded,
    arguments_of,
    check_memory,
    check_photo,
    check_pictures,
    check_readable,
    load_inputs,
)
from phosphene.jobs.job import Job
from phosphene.jobs.large import refuse_large
from phosphene.jobs.outputs import Target
from phosphene.jobs.request import (
    RESULTS,
    InputFile,
    Request,
    main_kind,
    picture_roles,
    weights_file,
)
from phosphene.manifest.schema import Plugin, refuse_missing
from phosphene.objectives.text import parse_tree
from phosphene.plugins import find_plugin, plugin_files
from phosphene.recipes.base import Arguments, Recipe, imported, recipe_named, recipe_names
from phosphene.settings import check_chains
from phosphene.zoo import load_network, names_code, starts_download

if TYPE_CHECKING:
    from phosphene.network import Network
    from phosphene.objectives import Objective


def run(request: Request, **options: Any) -> Generator[Event, None, None]:
    """Run a request and save what comes of it: a generator of events. Options: see `prepare`."""
    yield from prepare(request, **options).events()


def prepare(
    request: Request,
    *,
    force: bool = False,
    allow: Collection[str] = (),
    network: Network | None = None,
    cache: bool = True,
    shorthands: Mapping[str, Any] | None = None,
    name_output: bool = False,
    read: Mapping[str, Path] | None = None,
    written: Mapping[str, Path] | None = None,
    kept: Mapping[str, Path] | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: float | None = None,
    large: bool = False,
    recorded: bool = False,
) -> Job:
    """Check a request and load what it names; nothing is computed or written yet.

    Args:
        force: files that are there may be replaced; an input never is.
        allow: names of networks that are code, which may be imported, or are to be fetched, which
            they may be. A request, which may be a stranger's, starts neither by itself.
        large: work far beyond what is usual may be begun, too, such as 100,000 steps.
        recorded: the request is of what was made once: it is taken as it was, though a new one like
            it would be refused.
        network: to use instead of loading the one that the request names.
        cache: whether finished parts are stored in the cache folder, and taken from there.
        name_output: name the output by the recipe's template, where the request names none; the
            name is numbered if a file has it, other than the checkpoint's own, and not `force`.
        read, written: files that are read or written besides, by what they are called: none of the
            former is written, and none of the latter twice.
        kept: what is written besides and may be there, such as a log that is added to.
        checkpoint: a file for where the job is, written at the end of each octave and every
            `checkpoint_every` s, 60 by default, and removed when the result is whole. If it is
            there, the job goes on from it; results of this very request may then be replaced, and
            where all are whole nothing is left to do. Of a recipe that `resumes`.
        shorthands: values of the recipe's `Shorthand`s by name, applied to its objectives.

    Raises:
        RequestError: for what is not there, is another than it should be, or needs code.
        StateError: for a checkpoint that is damaged, or of another request.
        ImageError, SettingsError: for what cannot be read or written, or names what is not there.
    """
    refuse_missing(request.plugins, "the request", RequestError)
    asked, recipe, settings = request.plugins, request.declaration, request.checked_settings()
    if network is None:
        refuse_unasked(request.network, allow)
    shorthands = {name: value for name, value in (shorthands or {}).items() if value}
    every = EVERY if checkpoint_every is None else checkpoint_every
    files = _Files(recipe, force, checkpoint, read or {}, written or {}, kept or {})
    # What can be refused is refused before torch is there, and the rest before a network is.
    _refuse_work(request, settings, large=large, recorded=recorded)
    if checkpoint is not None:
        _check_resumes(recipe, every)
    pictures = _pictures_of(recipe, shorthands)
    several = outputs.EACH in str(request.main_output)  # one name each, by what it is about
    if request.main_output is not None and not several:
        files.targets(request, settings, None, pictures)
    check_chains(settings)
    if named := _names_all(request, settings, shorthands):
        request = _shortened(request, shorthands)
        with _paths_told():
            check_readable(request)  # pictures that objectives name are inputs by now
    names_output = name_output and request.main_output is None
    default = outputs.default_output(request) if names_output else None
    if named or not several:
        files.targets(request, settings, files.free(default), pictures)

    net = network or load_network(request.network)
    request, arguments, loaded, chosen = _loaded(request, net, shorthands, named=named, cache=cache)
    result = RESULTS[recipe.output]
    kind = imported(result.of_parts if recipe.parts else result.job)
    job: Job = kind(request, arguments, loaded, force=force)
    job.prepare_parts(allow=allow, large=large, recorded=recorded)
    if checkpoint is not None:
        found = Checkpoint.opened(checkpoint, every, request, net.fingerprint)
        job.checkpoint, job.plan = found, list(found.plan)
    files.settle(job, arguments.settings, default)
    job.notes = [*_other_plugins(asked), *chosen, *_notes(job)]
    return job


@dataclass(frozen=True)
class _Files:
    """What a job reads and writes besides its request's own, and what it may replace."""

    recipe: Recipe
    force: bool
    checkpoint: Path | None
    read: Mapping[str, Path]
    written: Mapping[str, Path]
    kept: Mapping[str, Path]

    def free(self, default: Path | None, own: Callable[[Path], bool] | None = None) -> Path | None:
        """The default output, numbered if a file has its name that is not its `own`."""
        if default is None or self.force:
            return default
        with _paths_told():
            return outputs.free_output(default, own)

    def targets(
        self,
        request: Request,
        settings: Any,
        default: Path | None,
        more: Mapping[str, Path],
        may_replace: Callable[[Path], bool] | None = None,
    ) -> tuple[Request, list[Target]]:
        """See `_with_targets`; more: what is read besides."""
        kept = dict(self.kept)
        if self.checkpoint is not None:
            kept["checkpoint"] = self.checkpoint
        replaced = may_replace or self._may_replace
        read = {**self.read, **more}
        with _paths_told():
            return _with_targets(request, settings, replaced, default, read, self.written, kept)

    def settle(self, job: Job, settings: Any, default: Path | None) -> None:
        """The targets of a job, with all that is known now: names, and the code of a network."""
        own = None if job.checkpoint is None else job.checkpoint.is_own
        free = self.free(default, own)
        if default is not None and not self.force:
            job.default = default
        code = _code_of(job.request.network)
        found = self.targets(job.request, settings, free, code, job.may_replace)
        job.request, job.targets = found

    def _may_replace(self, path: Path) -> bool:
        # Whether it is of this very request, and not only of the recipe, is seen in `settle`.
        return self.force or (self.checkpoint is not None and recipe_of(path) == self.recipe.name)


def _refuse_work(request: Request, settings: Any, *, large: bool, recorded: bool) -> None:
    """An error for what cannot be read, would take too much, or goes with a photograph alone."""
    with _paths_told():
        check_readable(request)
        if not large and not request.declaration.parts:
            refuse_large(request, settings)
        check_memory(request, settings)
    if not recorded:
        check_photo(request, settings)


def _loaded(
    request: Request, net: Network, shorthands: Mapping[str, Any], *, named: bool, cache: bool
) -> tuple[Request, Arguments, Loaded, list[Note]]:
    """The request, complete, all that goes in, and what to tell of what the recipe chose."""
    settings = request.checked_settings(net.architecture)  # which code says once it is loaded
    loaded = load_inputs(request, settings)
    arguments = arguments_of(request, net, settings, loaded, cache=cache)
    chosen: list[Note] = []
    if not named:
        chosen = _told(arguments, request.declaration)
        request = _shortened(_with_chosen(request, arguments), shorthands)
        arguments = arguments_of(request, net, settings, loaded, cache=cache)
    return _completed(request, settings, loaded), arguments, loaded, chosen


def _pictures_of(recipe: Recipe, shorthands: Mapping[str, Any]) -> dict[str, Path]:
    """The pictures that shorthands name, by their names. ImageError for what is none."""
    takers = [entry.name for entry in recipe.shorthands if entry.takes == "picture"]
    found = {name: Path(shorthands[name]) for name in takers if name in shorthands}
    with _paths_told():
        check_pictures(found.values())
    return found


def _with_chosen(request: Request, arguments: Arguments) -> Request:
    """The request with what the recipe chose to be about."""
    texts = tuple(goal.text for goal in arguments.objectives)
    return request.model_copy(update={"objectives": texts, "layers": arguments.layers})


def _names_all(request: Request, settings: Any, shorthands: Mapping[str, Any]) -> bool:
    """Whether it says what it is about, so that nothing is left for the recipe to choose.

    SettingsError for a shorthand of what is not dreamt.
    """
    recipe = request.declaration
    stays = recipe.rest_stays(request.regions, vars(settings))
    if stays and shorthands:
        raise SettingsError(
            f"--{next(iter(shorthands))} changes the objective of the rest, and the rest stays: "
            "write what you mean in a region's own objective"
        )
    return bool(request.objectives or request.layers) or recipe.subject is None or stays


def _completed(request: Request, settings: Any, loaded: Loaded) -> Request:
    """The request with all that was the recipe's to choose, pinned to what was loaded."""
    recipe = request.declaration
    update = {
        "settings": recipe.dump_settings(settings, request.regions),
        "start": recipe.start_of(request.start, request.inputs),
        "inputs": with_sizes(request, request.inputs, loaded.records),
        "plugins": request.needed_plugins(),
    }
    return request.model_copy(update=update)


def _check_resumes(recipe: Recipe, every: float) -> None:
    """SettingsError if a recipe has no checkpoints, or there can be none so often."""
    if not recipe.resumes:
        able = ", ".join(name for name in recipe_names() if recipe_named(name).resumes)
        raise SettingsError(f"{recipe.name} has no checkpoint; these have: {able}")
    if not 0 <= every < math.inf:
        raise SettingsError(f"a checkpoint every {every} s; 0 or more was expected")


def _code_of(network: str) -> dict[str, Path]:
    """The file of a network that is code, and was imported by now."""
    _, architecture = weights_file(network)
    if not names_code(architecture):
        return {}
    module = sys.modules.get(architecture.partition(":")[0])
    file = getattr(module, "__file__", None)
    return {} if file is None else {"network's code": Path(file)}


@contextmanager
def _paths_told() -> Iterator[None]:
    """What the system says of a path, such as that its name is too long, as one ImageError."""
    try:
        yield
    except OSError as error:
        raise ImageError(f"cannot use {error.filename!r}: {error.strerror or error}") from None


def refuse_unasked(network: str, allow: Collection[str]) -> None:
    """RequestError for a network that is code, or is to be fetched, which nobody has allowed."""
    _, architecture = weights_file(network)
    if network not in allow and names_code(architecture):
        raise RequestError(
            f"the request's network {network!r} may be code, which a request does not "
            f"start by itself: allow it with --network {network}"
        )
    if network not in allow and starts_download(network):
        raise RequestError(
            f"the weights of the request's network {network!r} may have to be fetched, "
            f"and a request starts no download by itself: allow it with --network {network}"
        )


def _other_plugins(asked: Sequence[Plugin]) -> Iterator[Note]:
    """That a plugin is loaded in another version than was asked for."""
    for was in asked:
        loaded = find_plugin(was.name)
        if loaded and (now := Plugin.of(loaded)).is_other_than(was):
            yield Note(
                f"the plugin {was.name} is another than was asked for: {now.text} instead of "
                f"{was.text}"
            )


def _with_targets(
    request: Request,
    settings: Any,
    may_replace: Callable[[Path], bool],
    default: Path | None,
    read: Mapping[str, Path],
    written: Mapping[str, Path],
    kept: Mapping[str, Path],
) -> tuple[Request, list[Target]]:
    """The request, its output `default` if that is given, and the files, seen to be writable."""
    recipe = request.declaration
    if default is not None:
        named = {main_kind(recipe): str(default), **request.outputs}
        request = request.model_copy(update={"outputs": named})
    if request.outputs and request.main_output is None:
        raise RequestError(
            f"the request names {', '.join(request.outputs)} and no {main_kind(recipe)}, beside "
            "which that lies"
        )
    texts = [*request.objectives, *request.layers] or [request.recipe]
    names = outputs.picture_names(texts, getattr(settings, "batch", 1) if recipe.several else 1)
    targets = outputs.targets_of(request, names)
    inputs = {**request.input_paths(), **plugin_files(), **read}
    outputs.check_outputs(
        request, targets, inputs, written=written, kept=kept, may_replace=may_replace
    )
    return request, targets


def _shortened(request: Request, shorthands: Mapping[str, Any]) -> Request:
    """The request with its objectives in canonical text, by role.

    Shorthands change the main ones, and not those of regions.
    """
    from phosphene.objectives import parse, picture_paths, with_pictures

    recipe = request.declaration
    parts = [region.objective for region in request.regions]
    texts = [*request.objectives, *parts]
    if not texts or (recipe.subject and not recipe.subject.parsed):
        return request
    paths = {role: entry.path for role, entry in request.inputs.items()}
    own = own_roles(request)
    named = dict.fromkeys(role for text in texts for role in picture_paths(parse_tree(text)))
    if missing := [role for role in named if role not in paths]:  # no other file is read
        raise RequestError(
            f"the recipe's objective names the picture {missing[0]!r}, its inputs do not"
        )
    if unused := [role for role in paths if role not in {*own, *named}]:
        raise RequestError(f"nothing in the request names its input {unused[0]!r}")
    goals: Sequence[Objective] = [parse(with_pictures(text, paths)) for text in request.objectives]
    for shorthand in recipe.shorthands:
        if shorthand.name in shorthands:
            goals = imported(shorthand.apply)(goals, shorthands[shorthand.name])
    parts = [parse(with_pictures(text, paths)).text for text in parts]
    return named_by_role(request, [goal.text for goal in goals], parts)


def named_by_role(request: Request, texts: Sequence[str], parts: Sequence[str] = ()) -> Request:
    """The request with these objectives, whose pictures are named by paths: they become inputs.

    parts: the objectives of its regions.
    """
    own = own_roles(request)
    every = (*texts, *parts)
    found = dict.fromkeys(path for text in every for path in _pictures_in(text))
    roles = picture_roles(found, own)
    inputs = {role: entry for role, entry in request.inputs.items() if role in own}
    known = {entry.path: entry for entry in request.inputs.values()}
    for path, role in roles.items():
        inputs[role] = known.get(path) or InputFile(path=path)
    regions = tuple(
        region.model_copy(update={"objective": _with_pictures(text, roles)})
        for region, text in zip(request.regions, parts, strict=True)
    )
    objectives = tuple(_with_pictures(text, roles) for text in texts)
    update = {"objectives": objectives, "inputs": inputs, "regions": regions}
    return request.model_copy(update=update)


# Which arguments are pictures is known with torch; what has no call has none.


def _pictures_in(text: str) -> list[str]:
    """The paths of the pictures that an objective's text names."""
    tree = parse_tree(text)
    if "(" not in text:
        return []
    from phosphene.objectives import picture_paths

    return picture_paths(tree)


def _with_pictures(text: str, names: Mapping[str, str]) -> str:
    """An objective's text in canonical form, its pictures renamed."""
    if "(" not in text:
        return parse_tree(text).text
    from phosphene.objectives import with_pictures

    return with_pictures(text, names)


def own_roles(request: Request) -> set[str]:
    """The roles of inputs that are no pictures of objectives: the recipe's, and regions' masks."""
    declared = {entry.role for entry in request.declaration.inputs}
    return declared | {region.mask for region in request.regions}


def _told(arguments: Arguments, recipe: Recipe) -> list[Note]:
    """What a user should know of what the recipe chose to be about."""
    told = recipe.subject and recipe.subject.default_told
    return [Note(text) for text in imported(told)(arguments)] if told else []


def _notes(job: Job) -> list[Note]:
    recipe, arguments, loaded = job.recipe, job.arguments, job.loaded
    notes = [Note(text) for text in loaded.notes]
    if recipe.advice:
        notes += [Note(text) for text in imported(recipe.advice)(arguments)]
    notes.append(Note(repr(arguments.network), detail=True))
    seed = getattr(arguments.settings, "seed", None)
    for text in (*job.request.objectives, *job.request.layers):
        notes.append(Note(f"{recipe.name} {text}, seed {seed}", detail=True))
    for region in job.request.regions:
        notes.append(Note(f"{region.mask}: {region.objective}", detail=True))
    transparent = loaded.alpha is not None or getattr(arguments.settings, "transparent", False)
    jpeg = any(target.path.suffix.lower() in (".jpg", ".jpeg") for target in job.targets)
    if transparent and jpeg:
        notes.append(Note("JPEG has no transparency: the result is laid over white"))
    return notes
