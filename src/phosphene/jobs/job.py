"""`prepare` and `run`: a request checked, loaded, run and saved, as events.

>>> for event in run(request):
...     if isinstance(event, Saved):
...         print(event.path)
"""

from __future__ import annotations

import signal
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from phosphene import __version__
from phosphene import image as images
from phosphene.errors import ImageError, NonFiniteError, RequestError
from phosphene.jobs import outputs
from phosphene.jobs.events import Ended, Event, Note, Preview, Progress, Saved, Started
from phosphene.jobs.inputs import Loaded, arguments_of, check_readable, load_inputs
from phosphene.jobs.outputs import Target
from phosphene.jobs.request import (
    InputFile,
    Request,
    main_kind,
    picture_roles,
    weights_file,
)
from phosphene.manifest import capture
from phosphene.manifest import schema as m
from phosphene.objectives import parse, parse_tree, picture_paths, with_pictures
from phosphene.recipes.base import Arguments, Recipe, imported
from phosphene.runtime.memory import out_of_memory
from phosphene.zoo import load_network, names_code, network_label

if TYPE_CHECKING:
    from phosphene.network import Network
    from phosphene.objectives import Objective


@dataclass(frozen=True)
class Outcome:
    """What came of the steps: the result, and if it is not whole, why and when.

    picture: `(N, 3, H, W)` of a recipe for images. page: of one for pages. step: the last one.
    """

    step: Any = None
    picture: Tensor | None = None
    page: Any = None
    ended: m.Ended | None = None
    error: BaseException | None = None


@dataclass
class Job:
    """A request that is checked and loaded: `events()` runs it.

    request: complete: what was the recipe's to choose is chosen. force: files may be replaced.
    until: end after this step, as a replay of what was interrupted does.
    part: of a replay: the one picture of several that is compared.
    """

    request: Request
    arguments: Arguments
    loaded: Loaded
    targets: list[Target] = field(default_factory=list)
    force: bool = False
    until: m.Ended | None = None
    part: int | None = None
    notes: list[Note] = field(default_factory=list)
    plan: list[int | None] = field(default_factory=list)

    @property
    def recipe(self) -> Recipe:
        """The recipe's declaration."""
        return self.request.declaration

    # Running --------------------------------------------------------------------------------------

    def events(self) -> Generator[Event, None, None]:
        """Run, save, and tell: see `phosphene.jobs.events`.

        A KeyboardInterrupt, here or thrown into the generator, ends it early and saves what there
        is; so do an ascent that leaves the numbers and a lack of memory after the first step.
        """
        outcome = yield from self.computed()
        if outcome.picture is None and outcome.page is None:
            yield self._nothing(outcome)
            return
        with undisturbed():
            saved, notes = self._save(outcome)
        yield from notes
        yield from saved
        yield self._end(outcome)

    def computed(self) -> Generator[Event, None, Outcome]:
        """Run without saving, but for octaves; returns the `Outcome`, which `yield from` gives."""
        yield from self.notes
        yield Started(self.recipe.name, self.arguments.network.name)
        step: Any = None
        if "octaves" in self.request.outputs:
            outputs.make_folder(Path(self.request.outputs["octaves"]))
        try:
            for step in self._steps():
                yield from self._told(step)
        except KeyboardInterrupt as error:
            with undisturbed():
                return self._partial(step, "interrupted", error)
        except NonFiniteError as error:
            if error.image is None:
                raise
            outcome = self._partial(step, "not finite", error)
            return replace(outcome, picture=error.image)
        except Exception as error:
            if step is None or self.recipe.output != "image" or not out_of_memory(error):
                raise
            return self._partial(step, "out of memory", error)
        return self._outcome(step)

    def _steps(self) -> Iterator[Any]:
        ended = self.until
        for step in self.recipe.run(self.arguments):
            yield step
            stops = ended is not None and ended.why != "not finite"
            if stops and ended and (step.octave + 1, step.index + 1) == (ended.octave, ended.step):
                return

    def _told(self, step: Any) -> Iterator[Event]:
        if self.recipe.output == "image":
            octave = getattr(step, "octave", 0)
            del self.plan[octave:]
            self.plan.append(getattr(step, "tile", None))
        for note in getattr(step, "notes", ()):
            yield Note(note)
        yield Progress(step, cumulative=self.recipe.output == "page")
        if self.recipe.output == "image":
            yield Preview(step.picture)
            if step.last and "octaves" in self.request.outputs:
                yield self._save_octave(step)

    def _outcome(self, step: Any) -> Outcome:
        if self.recipe.output == "page":
            return Outcome(step, page=self.recipe.result(step))
        return Outcome(step, picture=step.picture())

    def _partial(self, step: Any, why: Any, error: BaseException) -> Outcome:
        if step is None or self.recipe.output == "page":
            return Outcome(step, ended=m.Ended(why=why, octave=1, step=1), error=error)
        ended = m.Ended(why=why, octave=step.octave + 1, step=step.index + 1)
        return Outcome(step, picture=step.picture(), ended=ended, error=error)

    # Saving ---------------------------------------------------------------------------------------

    def _save(self, outcome: Outcome) -> tuple[list[Saved], list[Note]]:
        if self.recipe.output == "page":
            return self._save_page(outcome)
        dead, all_dead = self._dead_units(outcome)
        if all_dead and outcome.error is None:
            return [], []
        saved = []
        for target in self.targets:
            picture, alpha, manifest = self.recorded(outcome, target.part)
            text = manifest.text()
            images.save_image(picture, target.path, alpha=alpha, recipe=text, overwrite=self.force)
            saved.append(Saved("picture", target.path))
            saved += self._save_recipe(target, manifest)
        notes = [Note(f"note: {dead} no gradient: dead, and left grey")] if dead else []
        return saved, notes if outcome.error is None else []

    def _save_page(self, outcome: Outcome) -> tuple[list[Saved], list[Note]]:
        from phosphene.explain.layout import save_page

        notes = [Note(text, detail) for text, detail in getattr(outcome.step, "remarks", ())]
        files = [("page", target.path) for target in self.targets]
        if data := self.request.outputs.get("data"):
            files.append(("data", Path(data)))
        manifest, text = None, None
        try:
            _, manifest = self.page_recorded(outcome)
            text = manifest.text()
        except ImageError as error:  # too large as a picture, and it may be none
            pixels = any(path.suffix.lower() in images.SUFFIXES for _, path in files)
            if pixels or any(target.recipe for target in self.targets):
                raise
            notes.append(Note(f"the recipe is left out: {error}"))
        saved = []
        for kind, path in files:
            save_page(outcome.page, path, recipe=text)
            saved.append(Saved(kind, path))
        for target in self.targets if manifest else ():
            saved += self._save_recipe(target, manifest)
        return saved, notes

    def _save_recipe(self, target: Target, manifest: m.Manifest | None) -> list[Saved]:
        if target.recipe is None or manifest is None:
            return []
        text = manifest.text(indent=2) + "\n"
        images.write_atomically(target.recipe, text.encode(), overwrite=self.force)
        return [Saved("recipe", target.recipe)]

    def _save_octave(self, step: Any) -> Saved:
        folder, output = Path(self.request.outputs["octaves"]), self.targets[0].path
        ended = m.Ended(why="octave", octave=step.octave + 1, step=step.index + 1)
        picture, alpha, manifest = self.recorded(Outcome(step, step.picture(), ended=ended))
        path = outputs.octave_file(folder, output, step.octave + 1)
        images.save_image(picture, path, alpha=alpha, recipe=manifest.text())
        return Saved("octaves", path)

    # The manifest ---------------------------------------------------------------------------------

    def recorded(
        self, outcome: Outcome, part: int | None = None
    ) -> tuple[Tensor, Tensor | None, m.Manifest]:
        """A file's picture `(1, 3, H, W)` of the result, its alpha, and its manifest."""
        assert outcome.picture is not None
        part = self.part if part is None else part
        picture = self._arranged(outcome.picture, part)
        alpha = self._opacity(picture)
        if getattr(self.arguments.settings, "transparent", False) and outcome.step is not None:
            mask = outcome.step.transparency()
            alpha = None if mask is None else self._arranged(mask, part, blank=0.0)
        manifest = self._manifest(outcome, self.arguments.settings, self._subject(), picture, part)
        return picture, alpha, manifest

    def page_recorded(self, outcome: Outcome) -> tuple[Tensor, m.Manifest]:
        """A page's pixels `(1, 3, H, W)`, and its manifest: settings as they were resolved."""
        from phosphene.explain.layout import pixels

        page, picture = outcome.page, pixels(outcome.page)
        manifest = self._manifest(outcome, page.settings, page.subject, picture, None)
        return picture, manifest

    def _manifest(
        self,
        outcome: Outcome,
        settings: Any,
        subject: Sequence[str],
        picture: Tensor,
        part: int | None,
    ) -> m.Manifest:
        request = self.request
        network = getattr(outcome.step, "network", self.arguments.network)
        layers = self.recipe.subject is not None and self.recipe.subject.field == "layers"
        return m.Manifest(
            phosphene=__version__,
            recipe=self.recipe.name,
            plugins=request.plugins,
            network=m.NetworkUsed(
                name=network_label(request.network), fingerprint=network.fingerprint
            ),
            start=request.start,
            size=request.size,
            inputs=self.loaded.records,
            settings=settings.model_dump(mode="json"),
            result=capture.result_of(picture),
            part=part,
            plan=tuple(self.plan),
            versions=capture.versions(),
            machine=capture.machine(network),
            ended=outcome.ended,
            objectives=() if layers else tuple(subject),
            layers=tuple(subject) if layers else (),
        )

    def _subject(self) -> Sequence[str]:
        subject = self.recipe.subject
        return () if subject is None else getattr(self.request, subject.field)

    def _arranged(self, pictures: Tensor, part: int | None, *, blank: float = 1.0) -> Tensor:
        """What a file holds of a result `(N, C, H, W)`: its part, or all of it as one picture.

        A row for each objective or layer with its batch; where there is one of either, near a
        square. blank: what lies between pictures.
        """
        if not self.recipe.several:
            return pictures
        if part is not None:
            if part > len(pictures):
                raise RequestError(
                    f"the recipe is of picture {part}, and there are {len(pictures)}"
                )
            return pictures[part - 1 : part]
        batch = self.arguments.settings.batch
        rows = len(pictures) // batch
        return images.grid(pictures, columns=batch if rows > 1 and batch > 1 else None, blank=blank)

    def _opacity(self, picture: Tensor) -> Tensor | None:
        """The photo's alpha, at a picture's size; of several pictures in one there is none."""
        size, alpha = images.size_of(picture), self.loaded.alpha
        if alpha is None or images.size_of(alpha) == size:
            return alpha
        height, width = images.size_of(alpha)
        rounding = max(*size, height, width)
        if abs(height * size[1] - width * size[0]) > rounding:
            return None
        return images.resize(alpha, size).clamp(0, 1)

    # The end --------------------------------------------------------------------------------------

    def _nothing(self, outcome: Outcome) -> Ended:
        """The end of what gave nothing to save; an error that is no interruption is raised."""
        if not isinstance(outcome.error, KeyboardInterrupt):
            assert outcome.error is not None
            raise outcome.error
        stored = getattr(outcome.step, "stored", None) if self.arguments.cache else None
        if stored:
            text = f"interrupted: {stored}; the same command goes on from there"
        elif self.recipe.output == "image":
            text = "interrupted before the first step, nothing was written"
        else:
            text = "interrupted, nothing was written"
        return Ended("interrupted", text, outcome.error)

    def _end(self, outcome: Outcome) -> Ended:
        dead, all_dead = self._dead_units(outcome)
        if all_dead and outcome.error is None:
            count = outcome.step.steps
            steps = f"{count} step{'s' if count > 1 else ''}"
            return Ended("dead", f"{dead} no gradient in {steps}: dead; nothing was written")
        if outcome.ended is None:
            return Ended("done")
        ended = outcome.ended
        assert ended.why != "octave"
        return Ended(ended.why, "", outcome.error, ended.octave, ended.step)

    def _dead_units(self, outcome: Outcome) -> tuple[str, bool]:
        """Which units are dead, such as `mixed4c:7 gives`, and whether all are."""
        dead = getattr(outcome.step, "dead", None)
        if dead is None or not bool(dead.any()):
            return "", False
        texts = list(self._subject())
        rows = len(dead) // len(texts) if texts else 1
        found = [t for k, t in enumerate(texts) if bool(dead[k * rows : (k + 1) * rows].all())]
        if len(found) > 4:
            text = f"{', '.join(found[:4])} and {len(found) - 4} more give"
        else:
            text = f"{' and '.join(found) or 'the objective'} give{'s' if len(found) < 2 else ''}"
        return text, bool(dead.all())


# Preparing ----------------------------------------------------------------------------------------


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
) -> Job:
    """Check a request and load what it names; nothing is computed or written yet.

    Args:
        force: files that are there may be replaced; an input never is.
        allow: names of networks that are code, which may be imported. A request, which may be a
            stranger's, does not start any by itself.
        network: to use instead of loading the one that the request names.
        cache: whether finished parts are stored in the cache folder, and taken from there.
        name_output: name the output by the recipe's template, where the request names none.
        shorthands: values of the recipe's `Shorthand`s by name, applied to its objectives.

    Raises:
        RequestError: for what is not there, is another than it should be, or needs code.
        ImageError, SettingsError: for what cannot be read or written.
    """
    recipe, settings = request.declaration, request.checked_settings()
    _refuse_code(request, allow)
    check_readable(request)
    shorthands = {name: value for name, value in (shorthands or {}).items() if value}
    named = bool(request.objectives or request.layers) or recipe.subject is None
    targets: list[Target] = []
    if named:  # what can be refused is refused before a network is loaded
        request = _shortened(request, shorthands)
        check_readable(request)
        request, targets = _with_targets(request, settings, force, name_output)
    net = network or load_network(request.network)
    loaded = load_inputs(request, settings)
    arguments = arguments_of(request, net, settings, loaded, cache=cache)
    if not named:
        texts = tuple(goal.text for goal in arguments.objectives)
        update = {"objectives": texts, "layers": arguments.layers}
        request = _shortened(request.model_copy(update=update), shorthands)
        arguments = arguments_of(request, net, settings, loaded, cache=cache)
        request, targets = _with_targets(request, settings, force, name_output)
    start = request.start
    if recipe.starts and start is None:
        start = "photo" if _has_photo(request) else recipe.starts[0]
    complete = {"settings": settings.model_dump(mode="json"), "start": start}
    request = request.model_copy(update=complete).pinned()
    job = Job(request, arguments, loaded, targets, force)
    job.notes = _notes(job)
    return job


def _has_photo(request: Request) -> bool:
    """Whether it begins with a picture that went in."""
    return any(e.required and e.role in request.inputs for e in request.declaration.inputs)


def _refuse_code(request: Request, allow: Collection[str]) -> None:
    if request.plugins:
        names = ", ".join(plugin.name for plugin in request.plugins)
        raise RequestError(
            f"the request needs the plugins {names}: they are code, which a request does not start "
            "by itself, and this version of phosphene loads none"
        )
    _, architecture = weights_file(request.network)
    if request.network not in allow and names_code(architecture):
        raise RequestError(
            f"the request's network {request.network!r} may be code, which a request does not "
            f"start by itself: allow it with --network {request.network}"
        )


def _with_targets(
    request: Request, settings: Any, force: bool, name_output: bool
) -> tuple[Request, list[Target]]:
    """The request with its output named, and the files, seen to be writable."""
    recipe = request.declaration
    if name_output and request.main_output is None:
        named = {main_kind(recipe): str(outputs.default_output(request)), **request.outputs}
        request = request.model_copy(update={"outputs": named})
    texts = [*request.objectives, *request.layers] or [request.recipe]
    names = outputs.picture_names(texts, getattr(settings, "batch", 1) if recipe.several else 1)
    targets = outputs.targets_of(request, names)
    outputs.check_outputs(request, targets, force=force)
    return request, targets


def _shortened(request: Request, shorthands: Mapping[str, Any]) -> Request:
    """The request with its objectives changed by shorthands, in canonical text, by role."""
    recipe = request.declaration
    if not request.objectives or (recipe.subject and not recipe.subject.parsed):
        return request
    paths = {role: entry.path for role, entry in request.inputs.items()}
    for role in (role for text in request.objectives for role in picture_paths(parse_tree(text))):
        if role not in paths:  # no other file is read
            raise RequestError(
                f"the recipe's objective names the picture {role!r}, its inputs do not"
            )
    goals: Sequence[Objective] = [parse(with_pictures(text, paths)) for text in request.objectives]
    for shorthand in recipe.shorthands:
        if shorthand.name in shorthands:
            goals = imported(shorthand.apply)(goals, shorthands[shorthand.name])
    return named_by_role(request, [goal.text for goal in goals])


def named_by_role(request: Request, texts: Sequence[str]) -> Request:
    """The request with these objectives, whose pictures are named by paths: they become inputs."""
    own = {entry.role for entry in request.declaration.inputs}
    found = dict.fromkeys(path for text in texts for path in picture_paths(parse_tree(text)))
    roles = picture_roles(found, own)
    inputs = {role: entry for role, entry in request.inputs.items() if role in own}
    known = {entry.path: entry for entry in request.inputs.values()}
    for path, role in roles.items():
        inputs[role] = known.get(path) or InputFile(path=path)
    objectives = tuple(with_pictures(text, roles) for text in texts)
    return request.model_copy(update={"objectives": objectives, "inputs": inputs})


def _notes(job: Job) -> list[Note]:
    recipe, arguments, loaded = job.recipe, job.arguments, job.loaded
    notes = [Note(text) for text in loaded.notes]
    if recipe.advice:
        notes += [Note(text) for text in imported(recipe.advice)(arguments)]
    notes.append(Note(repr(arguments.network), detail=True))
    seed = getattr(arguments.settings, "seed", None)
    for text in (*job.request.objectives, *job.request.layers):
        notes.append(Note(f"{recipe.name} {text}, seed {seed}", detail=True))
    transparent = loaded.alpha is not None or getattr(arguments.settings, "transparent", False)
    jpeg = any(target.path.suffix.lower() in (".jpg", ".jpeg") for target in job.targets)
    if transparent and jpeg:
        notes.append(Note("JPEG has no transparency: the result is laid over white"))
    return notes


@contextmanager
def undisturbed() -> Iterator[None]:
    """A second Ctrl-C waits until what is being written is written."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not in the main thread, where no Ctrl-C arrives
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
