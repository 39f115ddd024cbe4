"""Where results lie: the names of files, and the one check over all that a request writes."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from phosphene.errors import ImageError, SettingsError
from phosphene.image.files import check_folder, find_pictures
from phosphene.jobs.request import RESULTS, Request
from phosphene.recipes.base import imported

EACH = "{}"  # in a file's name: one file for each picture
LONGEST_NAME = 60  # characters of a file's name that an objective's text gives


@dataclass(frozen=True)
class Target:
    """A file to write, and which picture it is to hold, counted from 1; None for all of them."""

    path: Path
    recipe: Path | None = None
    part: int | None = None


def targets_of(request: Request, names: Sequence[str]) -> list[Target]:
    """The files of a request's own output: one, or with {} in its path one for each of `names`.

    SettingsError if these do not go with what is asked for beside them.
    """
    output = request.main_output
    if output is None:
        return []
    recipe = request.outputs.get("recipe")
    if EACH not in str(output):
        return [Target(output, Path(recipe) if recipe else None)]
    if recipe and EACH not in recipe:
        raise SettingsError(f"one file a picture is one recipe a picture: --recipe with {EACH}")
    return [
        Target(_filled(str(output), name), _filled(recipe, name) if recipe else None, number)
        for number, name in enumerate(names, 1)
    ]


def _filled(path: str, name: str) -> Path:
    return Path(path.replace(EACH, name))


def check_outputs(
    request: Request,
    targets: Sequence[Target],
    inputs: Mapping[str, Path],
    *,
    written: Mapping[str, Path] | None = None,
    kept: Mapping[str, Path] | None = None,
    may_replace: Callable[[Path], bool],
) -> list[tuple[str, Path]]:
    """See that everything can be written, before anything is computed.

    ImageError for what cannot be written, or is there and may not be replaced;
    SettingsError for what is one of the `inputs`, by whatever name or link, or is to be written
    twice. Returns all that is written, each by what it is called in a message.

    written: what is written besides, such as the request itself. kept: what is written and may be
    there, such as a checkpoint.
    """
    result = RESULTS[request.declaration.output]
    check = imported(result.check)
    how = {name: request.settings.get(name) for name in result.checked}
    outputs: list[tuple[str, Path]] = []
    for target in targets:
        outputs.append(("output", target.path))
        _check_free(target.path, may_replace)
        check(target.path, overwrite=may_replace(target.path), **how)
    if data := request.outputs.get("data"):
        if Path(data).suffix.lower() != ".json":
            raise SettingsError(f"--data {data!r}: a file that ends in .json was expected")
        outputs.append(("data", Path(data)))
        _check_free(Path(data), may_replace)
        check(Path(data), overwrite=may_replace(Path(data)))
    for target in targets:
        if target.recipe:
            outputs.append(("recipe", target.recipe))
            check_side_file(target.recipe, may_replace)
    for what, path in (written or {}).items():
        outputs.append((what, path))
        check_side_file(path, may_replace)
    for what, path in (kept or {}).items():
        outputs.append((what, path))
        if what == "checkpoint" and path.exists() and not (path.is_file() or path.is_dir()):
            raise ImageError(f"{str(path)!r} is no regular file; the name of a file was expected")
        check_side_file(path, lambda _: True)
    octaves = request.outputs.get("octaves")
    if octaves and targets:
        if os.path.lexists(octaves) and not os.path.isdir(octaves):
            raise ImageError(f"cannot make the folder {octaves!r}: a file is there")
        for there in octave_files(Path(octaves), targets[0].path):
            outputs.append(("octave", there))
            _check_free(there, may_replace)
        _refuse_octaves(outputs, Path(octaves), targets[0].path)
    refuse_inputs(outputs, inputs)
    _refuse_twice(outputs)
    return outputs


def _refuse_octaves(outputs: Sequence[tuple[str, Path]], folder: Path, output: Path) -> None:
    """SettingsError if an output has the name that the picture of some octave will have."""
    pattern = re.compile(re.escape(f"{output.stem}-octave") + r"\d+" + re.escape(output.suffix))
    for what, path in outputs:
        beside = os.path.realpath(path.parent) == os.path.realpath(folder)
        if what != "octave" and beside and pattern.fullmatch(path.name):
            raise SettingsError(f"the {what} and an octave are both to be {str(path)!r}")


def octave_files(folder: Path, output: Path) -> list[Path]:
    """The files in a folder that the octaves of a dream may be written to."""
    if not folder.is_dir():
        return []
    prefix = f"{output.stem}-octave"
    return sorted(there for there in folder.iterdir() if there.name.startswith(prefix))


def octave_file(folder: Path, output: Path, octave: int) -> Path:
    """Where the picture of an octave, counted from 1, is written."""
    return folder / f"{output.stem}-octave{octave}{output.suffix}"


def make_folder(folder: Path) -> None:
    """ImageError if it is not there and cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"cannot make the folder {str(folder)!r}: {error.strerror}") from None


def _check_free(path: Path, may_replace: Callable[[Path], bool]) -> None:
    """ImageError if a file is in the way and may not be replaced."""
    if os.path.lexists(path) and not path.is_dir() and not may_replace(path):
        raise ImageError(f"{str(path)!r} is already there: another name, or --force to replace it")


def check_side_file(path: Path, may_replace: Callable[[Path], bool]) -> None:
    """ImageError unless a recipe can be written there."""
    if path.is_dir():
        raise ImageError(f"{str(path)!r} is a folder; the name of a file was expected")
    if not path.parent.is_dir():
        raise ImageError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}")
    _check_free(path, may_replace)
    check_folder(path)


def refuse_inputs(outputs: Iterable[tuple[str, Path]], inputs: Mapping[str, Path]) -> None:
    """SettingsError if an output is one of the inputs, or one of the pictures in a folder of them.

    By what they are, not by their names: links, hard links and case-blind disks.
    """
    there = [(what, path) for what, path in outputs if path.exists()]
    if not there:
        return
    for role, given in inputs.items():
        for file in _files(given):
            for what, output in there:
                if file.exists() and os.path.samefile(output, file):
                    raise SettingsError(
                        f"the {what} {str(output)!r} is the {role} itself, which is never replaced "
                        "(nothing could be made again without it): choose another name"
                    )


def _files(given: Path) -> list[Path]:
    if not given.is_dir():
        return [given]
    return find_pictures(given)


def _refuse_twice(outputs: Sequence[tuple[str, Path]]) -> None:
    """SettingsError if two outputs are one file, be it there or still to be written."""
    known: dict[object, str] = {}
    for what, path in outputs:
        if path.exists():
            stat = path.stat()
            key: object = (stat.st_dev, stat.st_ino)
        else:
            key = os.path.realpath(path)
        if key in known and {known[key], what} != {"octave"}:
            raise SettingsError(f"the {what} and the {known[key]} are both to be {str(path)!r}")
        known[key] = what


# Names --------------------------------------------------------------------------------------------


def picture_names(texts: Sequence[str], batch: int) -> list[str]:
    """A file's name, without its suffix, for each picture; no two alike.

    >>> picture_names(["mixed4c:12", "-logits:dumbbell"], 1)
    ['mixed4c-12', 'logits-dumbbell-negative']
    """
    bare = [file_name(text) for text in texts]
    named: list[str] = []
    for k, name in enumerate(bare):
        unique = name if bare.count(name) == 1 else f"{name}-{k + 1}"
        named += [unique] if batch == 1 else [f"{unique}-{n + 1}" for n in range(batch)]
    return named


def file_name(text: str) -> str:
    """An objective's text as a file's name.

    >>> file_name("2*mixed4b + mixed4d:42,17")
    '2-mixed4b-mixed4d-42-17'
    """
    bare = re.sub(r"[^\w.]+", "-", text).strip("-.")[:LONGEST_NAME].rstrip("-.") or "picture"
    return f"{bare}-negative" if text.startswith("-") else bare


def default_output(request: Request) -> Path:
    """Where a result lies that nobody gave a name: by the recipe's template."""
    from phosphene.jobs.request import plain_name

    recipe = request.declaration
    photo = next((request.inputs[e.role].path for e in recipe.inputs if e.role in request.inputs
                  and e.positional), None)  # fmt: skip
    template = recipe.output_name
    if "{photo}" in template and photo is None:
        template = "{name}"
    if "{objective}" in template and len(request.objectives) != 1:
        template = "{name}"
    subject = (*request.objectives, *request.layers, "")[0]
    return Path(
        template.format(
            photo=str(Path(photo).with_suffix("")) if photo else "",
            objective=file_name(subject),
            layer=plain_name(subject),
            unit=plain_name(subject),
            network=plain_name(request.network),
            name=recipe.name,
        )
        + RESULTS[recipe.output].suffix
    )


def free_output(default: Path, own: Callable[[Path], bool] | None = None) -> Path:
    """A default name, numbered where that is taken: `sky-dream.png`, `sky-dream-2.png`, ….

    own: whether a file is of the very request that is to be named, which finds it again.
    """
    taken = {default: 1} if os.path.lexists(default) else {}
    pattern = re.compile(rf"{re.escape(default.stem)}-([1-9]\d*){re.escape(default.suffix)}")
    if default.parent.is_dir() and os.access(default.parent, os.R_OK):
        for name in os.listdir(default.parent):
            if found := pattern.fullmatch(name):
                taken[default.with_name(name)] = int(found[1])
    for path in sorted(taken, key=taken.__getitem__) if own else ():
        if own and own(path):
            return path
    if default not in taken:
        return default
    number = next(n for n in itertools.count(2) if n not in taken.values())
    return default.with_name(f"{default.stem}-{number}{default.suffix}")
