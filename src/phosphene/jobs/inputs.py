"""What a request names, loaded: pictures, objectives, and the records of what went in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from phosphene import image as images
from phosphene.errors import ImageError, RequestError
from phosphene.explain.responses import find_pictures
from phosphene.films.formats import demuxer_of
from phosphene.films.source import FilmSource
from phosphene.image.files import READABLE_SUFFIXES
from phosphene.jobs.request import Request
from phosphene.manifest import capture
from phosphene.objectives import parse, parse_tree, picture_paths, with_pictures
from phosphene.recipes.base import Arguments, ImageInput, Recipe, Region, imported

if TYPE_CHECKING:
    from phosphene.manifest.schema import Folder, Input
    from phosphene.network import Network
    from phosphene.objectives import Objective

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
        elif declared is not None and declared.kind == "video":
            demuxer_of(path) if not path.is_dir() else find_pictures(path)
        elif not path.is_file():
            images.read_image(path)  # tells what is wrong
    request.check_inputs()


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
    return loaded


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
    loaded.images[role] = images.start_picture(kind, (height, width), settings.seed)  # pyright: ignore[reportArgumentType]


def _load_input(
    entry: ImageInput, path: Path, request: Request, settings: Any, loaded: Loaded
) -> None:
    role = entry.role
    if entry.kind == "folder":
        loaded.folders[role], loaded.records[role] = path, capture.folder_of(path)
        return
    if entry.kind == "video" or (entry.kind == "mask" and loaded.films and _is_film(path)):
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


def _is_film(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() not in READABLE_SUFFIXES


def _load_film(
    entry: ImageInput, path: Path, request: Request, settings: Any, loaded: Loaded
) -> tuple[str, ...]:
    """What is to be noted of a film, which is read frame by frame later on."""
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
    about_unit = subject is not None and subject.field == "objectives" and not subject.parsed
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
