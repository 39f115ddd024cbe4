"""`phosphene lessons`: the notebooks that come with phosphene, into a folder of one's own."""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from phosphene.cli.exits import DONE, to_stdout
from phosphene.errors import InTheWayError, PhospheneError
from phosphene.image.files import write_atomically

PACKAGE = Path(__file__).parents[1]
# In a wheel they are data of the package; in a clone they lie at its root.
PLACES = (PACKAGE / "data" / "lessons", PACKAGE.parents[1] / "lessons")
# Not jupytext.toml, which keeps both the same for whoever changes a lesson: what readers write into
# a notebook leaves its script as it came.
SUFFIXES = (".ipynb", ".py")


def verb(
    folder: Path = Path("lessons"),
    /,
    *,
    force: Annotated[bool, Parameter(negative=())] = False,
    quiet: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Write the lessons into a folder: notebooks that show how all this works.

    Parameters
    ----------
    folder
        Where to; it is made if it is not there.
    force
        Replace lessons that are there, with what you have written into them.
    quiet
        Say nothing but errors.
    """
    from phosphene.cli.reporter import Reporter
    from phosphene.jobs.outputs import make_folder

    lessons = found_lessons()
    _check(folder, [lesson.name for lesson in lessons], force)
    make_folder(folder)
    for lesson in lessons:
        write_atomically(folder / lesson.name, lesson.read_bytes(), overwrite=force)
    reporter = Reporter(quiet=quiet)
    notebooks = sum(lesson.suffix == ".ipynb" for lesson in lessons)
    reporter.note(f"{notebooks} notebooks, and each as a Python script")
    install = "" if find_spec("jupyterlab") else 'pip install "phosphene[notebook]", then '
    reporter.note(f"to open them: {install}jupyter lab {shlex.quote(str(folder))}")
    to_stdout(str(folder))
    return DONE


def found_lessons() -> list[Path]:
    """The lessons' files, in order."""
    for place in PLACES:
        found = sorted(path for path in place.glob("*") if path.suffix in SUFFIXES)
        if found:
            return found
    raise PhospheneError("this installation has no lessons; those of a wheel and a clone have them")


def _check(folder: Path, names: list[str], force: bool) -> None:
    """InTheWayError, before anything is written, for a lesson that may be somebody's own by now."""
    if folder.exists() and not folder.is_dir():
        raise InTheWayError(f"{str(folder)!r} is a file; a folder for the lessons was expected")
    there = [name for name in names if (folder / name).exists()]
    if there and not force:
        raise InTheWayError(
            f"{str(folder / there[0])!r} is there already: another folder, or --force to replace "
            "what you may have written into it"
        )
