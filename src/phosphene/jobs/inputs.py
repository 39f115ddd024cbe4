"""What a request names, loaded: pictures, objectives, and the records of what went in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phosphene import image as images
from phosphene.errors import ImageError, RequestError, SettingsError
from phosphene.films.formats import demuxer_of
from phosphene.image.files import READABLE_SUFFIXES, check_pixels, find_pictures, open_image
from phosphene.jobs.request import Request
from phosphene.manifest import capture
from phosphene.objectives.text import parse_tree
from phosphene.recipes.base import Arguments, ImageInput, Recipe, Region, imported
from phosphene.runtime.memory import format_bytes, parse_memory

if TYPE_CHECKING:
    from torch import Tensor

    from phosphene.films.source import FilmSource
    from phosphene.manifest.schema import Folder, Input
    from phosphene.network import Network
    from phosphene.objectives import Objective

BYTES_PER_PIXEL = 2 * 12  # of a picture and its gradient, float32
SKY = (640, 427)  # px, of a start that no photo gives a size to


@dataclass
class Loaded:
    """What was loaded: arguments of the recipe's steps, and the records of what went in.

    first: of each film the first frame. masks: those of regions, by role. alpha: the transparency
    that the result keeps. notes: what a user should know of the pictures.
    """

    images: dict[str, Tensor] = field(default_factory=dict)
    films: dict[str, FilmSource] = field(default_factory=dict)
    first: dict[str, Tensor] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)
    records: dict[str, Input | Folder] = field(default_factory=dict)
    alpha: Tensor | None = None
    notes: list[str] = field(default_factory=list)


def check_readable(request: Request) -> None:
    """See that every file that goes in is there, and is the one that is meant, before it is used.

    ImageError or RequestError if not.
    """
    for role, entry in request.inputs.items():
        path = Path(entry.path)
        declared = request.declaration.input(role)
        if declared is not None and declared.kind == "folder":
            find_pictures(path)
        elif declared is not None and _is_film(declared, path):
            _check_film(path)
        else:
            check_pictures([path])
    request.check_inputs()


def check_pictures(paths: Iterable[Path]) -> None:
    """ImageError for what is no picture, or too large a one, by its header."""
    for path in paths:
        with open_image(path) as file:
            check_pixels(path, *file.size)


def check_memory(request: Request, settings: Any) -> None:
    """SettingsError where a limit to memory is too low for a picture and its gradient alone."""
    given = getattr(settings, "memory", None)
    if given is None:
        return
    for entry in request.declaration.inputs:
        if entry.kind != "image" or entry.default_size or entry.role not in request.inputs:
            continue
        path, longest = Path(request.inputs[entry.role].path), request.inputs[entry.role].size
        with open_image(path) as file:
            width, height = file.size
        longest = request.size if entry.resized else longest
        share = 1 if longest is None else longest / max(width, height)
        needed = int(width * height * share**2) * BYTES_PER_PIXEL
        if needed > parse_memory(given):
            raise SettingsError(
                f"memory: {given} is too little for {width * share:.0f}×{height * share:.0f} px: "
                f"the picture and its gradient alone take {format_bytes(needed)}"
            )


def check_photo(request: Request, settings: Any) -> None:
    """SettingsError for a setting that is of the photograph, where there is none."""
    recipe = request.declaration
    recipe.check_photo(recipe.start_of(request.start, request.inputs), vars(settings))


def load_inputs(request: Request, settings: Any) -> Loaded:
    """Load the pictures of a request, or draw what it begins with instead."""
    recipe, loaded = request.declaration, Loaded()
    _draw_start(request, recipe, settings, loaded)
    for entry in recipe.inputs:
        given = request.inputs.get(entry.role)
        if given is not None:
            _load_input(entry, Path(given.path), request, settings, loaded)
    for region in request.regions:
        _load_region_mask(region.mask, Path(request.inputs[region.mask].path), loaded)
    if recipe.parts:
        _record_of_parts(request, loaded)
    return loaded


def _record_of_parts(request: Request, loaded: Loaded) -> None:
    """Write down the pictures that a recipe's parts are of; each is loaded where it is used."""
    for role, entry in request.inputs.items():
        if role not in loaded.records:
            with open_image(Path(entry.path)) as file:
                width, height = file.size
            loaded.records[role] = capture.input_of(entry.path, (height, width), entry.size)


def _draw_start(request: Request, recipe: Recipe, settings: Any, loaded: Loaded) -> None:
    role = next((entry.role for entry in recipe.inputs if entry.required), None)
    if not recipe.starts or role is None or role in request.inputs:
        return
    kind = request.start or recipe.starts[0]
    if kind not in recipe.starts:
        raise RequestError(f"a {recipe.name} that starts from a {kind} needs one, and names none")
    width, height = SKY
    if request.size:
        width, height = request.size, max(1, round(request.size * SKY[1] / SKY[0]))
    if kind == "noise" and getattr(settings, "start_noise", "white") == "natural":
        kind = "natural noise"
    loaded.images[role] = images.start_picture(kind, (height, width), settings.seed)  # pyright: ignore[reportArgumentType]


def _load_input(
    entry: ImageInput, path: Path, request: Request, settings: Any, loaded: Loaded
) -> None:
    role = entry.role
    if entry.kind == "folder":
        loaded.folders[role], loaded.records[role] = path, capture.folder_of(path)
        return
    if _is_film(entry, path):
        notes = _load_film(entry, path, request, settings, loaded)
    elif entry.kind == "mask":
        loaded.images[role], notes = _load_mask(role, path, loaded)
    else:
        longest = request.size if entry.resized else request.inputs[role].size
        if longest is None and entry.default_size:
            longest = imported(entry.default_size)(settings, loaded.images)
        picture = images.read_image(path, size=longest)
        loaded.images[role], notes = picture.pixels, picture.notes
        loaded.records[role] = capture.input_of(path, images.size_of(picture.pixels), longest)
        if entry.alpha:
            loaded.alpha = picture.alpha
    loaded.notes += [f"{path}: {note}" for note in notes]


def _is_film(entry: ImageInput, path: Path) -> bool:
    still = path.suffix.lower() in READABLE_SUFFIXES and not path.is_dir()
    return entry.kind == "video" or (entry.or_film and not still)


def _check_film(path: Path) -> None:
    """ImageError for what is no film, by its first bytes, nor a folder of pictures."""
    if path.is_dir():
        find_pictures(path)
    else:
        demuxer_of(path)


def _load_film(
    entry: ImageInput, path: Path, request: Request, settings: Any, loaded: Loaded
) -> tuple[str, ...]:
    """What is to be noted of a film, which is read frame by frame later on."""
    from phosphene.films.source import FilmSource

    longest = request.size if entry.resized else None
    film = FilmSource.of_file(path, begin=settings.begin, end=settings.end, size=longest)
    first = next(film.frames())
    loaded.films[entry.role], loaded.first[entry.role] = film, first.image
    if path.is_dir():
        loaded.records[entry.role] = capture.folder_of(path)
    else:
        size = images.size_of(first.image)
        loaded.records[entry.role] = capture.input_of(path, size, longest)
    return () if film.info is None else film.info.notes


def _load_mask(role: str, path: Path, loaded: Loaded) -> tuple[Tensor, tuple[str, ...]]:
    """A mask and what is to be noted, of the size of the picture, which is loaded before it."""
    size = images.size_of(next(iter({**loaded.first, **loaded.images}.values())))
    found = images.load_mask(path, size)
    loaded.records[role] = capture.input_of(path, size)
    return found


def _load_region_mask(role: str, path: Path, loaded: Loaded) -> None:
    if role in loaded.masks:  # of several regions
        return
    mask, notes = _load_mask(role, path, loaded)
    if not mask.any():
        raise ImageError(
            f"the mask {str(path)!r} is black everywhere: a region of nothing; white is where its "
            "objective is dreamt"
        )
    loaded.masks[role] = mask
    loaded.notes += [f"{path}: {note}" for note in notes]


def load_objectives(
    request: Request, texts: Iterable[str], loaded: Loaded
) -> tuple[Objective, ...]:
    """A request's objectives, their pictures those of its inputs; no other file is read."""
    from phosphene.objectives import parse, picture_paths, with_pictures

    found = []
    for text in texts:
        paths = {}
        for role in picture_paths(parse_tree(text)):
            if role not in request.inputs:
                raise RequestError(
                    f"the recipe's objective names the picture {role!r}, its inputs do not"
                )
            path = Path(request.inputs[role].path)
            paths[role] = str(path)
            if role not in loaded.records:
                size = images.size_of(images.load_image(path))
                loaded.records[role] = capture.input_of(path, size)
        found.append(parse(with_pictures(text, paths)))
    return tuple(found)


def arguments_of(
    request: Request, network: Network, settings: Any, loaded: Loaded, *, cache: bool
) -> Arguments:
    """The arguments of a recipe's steps; what is not named is the recipe's default."""
    recipe = request.declaration
    subject = recipe.subject
    about_unit = subject is not None and subject.of_unit
    unit = request.objectives[0] if about_unit and request.objectives else None
    objectives: tuple[Any, ...] = ()
    if not about_unit:
        objectives = load_objectives(request, request.objectives, loaded)
    parts = load_objectives(request, [region.objective for region in request.regions], loaded)
    regions = tuple(
        Region(loaded.masks[region.mask], objective)
        for region, objective in zip(request.regions, parts, strict=True)
    )
    return recipe.completed(
        Arguments(
            network,
            settings,
            objectives=objectives,
            layers=request.layers,
            unit=unit,
            images=loaded.images,
            films=loaded.films,
            folders=loaded.folders,
            regions=regions,
            cache=cache,
        )
    )
