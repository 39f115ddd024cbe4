"""`phosphene replay`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from phosphene.cli.exits import DIFFERENT, DONE, complain, interrupted, to_stdout
from phosphene.cli.plugins import Plugins
from phosphene.errors import SettingsError
from phosphene.jobs.events import Compared

if TYPE_CHECKING:
    from phosphene.jobs.compare import Comparison
    from phosphene.manifest import Manifest


# In one line each: help would break a docstring's lines where its source does.
INPUT = (
    "ROLE=PATH, as in photo=sky.jpg, or pictures=FOLDER of a unit: where an input lies, if neither "
    "beside the file nor in the current folder. May be given several times."
)
NETWORK = (
    "To take instead of the recipe's: for a recipe whose network is code, is to be fetched, or is "
    "a file elsewhere."
)


def verb(
    file: Path,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    input: Annotated[list[str] | None, Parameter(negative=(), help=INPUT)] = None,
    network: Annotated[str | None, Parameter(help=NETWORK)] = None,
    anyway: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    large: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    frames: str | None = None,
    force: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    quiet: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    verbose: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    plugin: Plugins = (),
) -> int:
    """Make again what a picture's recipe says, and say whether it is the same.

    Exits with 0 if it is the same, pixel for pixel, and with 3 if not.

    Parameters
    ----------
    file
        A picture or page that phosphene made, or the JSON file of its recipe.
    output
        Where to write what is made; without it, it is only compared.
    anyway
        Take inputs though they are not the recipe's by their SHA-256.
    frames
        Of a film: only these, such as 31-60, counted from 1. It begins where their shot does.
    large
        Begin it though it takes far more work than is usual.
    force
        Replace a file that is there. Never the one replayed.
    quiet
        Say nothing but errors.
    verbose
        Say what is done with what.
    """
    from phosphene.cli.reporter import Reporter
    from phosphene.jobs.replayer import Replay

    reporter = Reporter(quiet=quiet, verbose=verbose)
    with reporter.hearing_warnings():
        try:
            replay = Replay.prepared(
                file,
                inputs=named_inputs(input or []),
                network=network,
                anyway=anyway,
                output=output,
                force=force,
                frames=frame_range(frames),
                large=large,
            )
        except KeyboardInterrupt as error:
            complain("interrupted, nothing was written")
            return interrupted(error)
        events, ended = reporter.follow(replay.events())
    if ended.why == "interrupted":
        complain(ended.text)
        return interrupted(ended.error)
    (found,) = [event.comparison for event in events if isinstance(event, Compared)]
    assert replay.new is not None
    if not quiet:
        to_stdout(format_comparison(file, found, replay.old, replay.new))
        if output:
            to_stdout(str(output))
    return DONE if found.same and found.unchanged is not False else DIFFERENT


def frame_range(text: str | None) -> tuple[int, int] | None:
    """The first and the last of "31-60", counted from 0. SettingsError for another text."""
    if text is None:
        return None
    first, dash, last = text.partition("-")
    try:
        found = int(first) - 1, int(last if dash else first) - 1
    except ValueError:
        found = -1, -1
    if not 0 <= found[0] <= found[1]:
        raise SettingsError(f"--frames {text!r}: expected numbers from 1 on, such as 31-60")
    return found


def named_inputs(inputs: list[str]) -> dict[str, Path]:
    """role -> path, of texts such as photo=sky.jpg."""
    named = {}
    for text in inputs:
        role, equals, path = text.partition("=")
        if not (role and equals and path):
            raise SettingsError(f"--input {text!r}: expected ROLE=PATH, such as photo=sky.jpg")
        named[role] = Path(path)
    return named


def format_comparison(file: Path, found: Comparison, old: Manifest, new: Manifest) -> str:
    """What a comparison found, in a line."""
    if found.count is not None:
        return _format_frames(file, found)
    apart = ""
    if found.most is not None:
        apart = f" by at most {found.most} of 255 levels, {found.mean:.3g} on average"
    if found.same and found.unchanged is not False:
        return f"{file}: the same, pixel for pixel"
    if found.same and file.suffix.lower() == ".svg":
        return (
            f"{file}: comes out as its recipe says, but the file itself differs: it was changed or "
            "saved anew after it was written"
        )
    if found.same:
        return (
            f"{file}: comes out as its recipe says, but the file's own pixels differ{apart}: they "
            "were changed or encoded anew after they were written"
        )
    was, now = old.result, new.result
    assert was is not None
    assert now is not None
    if (was.width, was.height) != (now.width, now.height):
        apart = f" in size: {now.width}×{now.height} px instead of {was.width}×{was.height}"
    elif found.most == 0 and file.suffix.lower() != ".svg":
        apart = ", but not once encoded: the file's own pixels are the same"
    elif found.unchanged is None:
        apart = " (there is no picture beside the recipe to say by how much)"
    why = "; ".join(found.differing)
    because = f"; other than then: {why}" if why else "; versions and machine are as they were"
    if not why and old.declaration.caches:
        because += (
            ", but cells that another page had kept may have been drawn in other batches, and so "
            "rounded otherwise"
        )
    if old.declaration.resampled and new.machine.device == "cuda":
        because += (
            ", but CUDA adds the gradients of turned and resized pictures up in any order: there "
            "drawings come out alike, by 4 to 12 levels on average, and not the same"
        )
    return f"{file}: different{apart}{because}"


def _format_frames(file: Path, found: Comparison) -> str:
    """What a comparison of films found, in a line."""
    frames = f"{found.count} frame{'s' if found.count != 1 else ''}"
    if found.same:
        return f"{file}: the same, {frames}, pixel for pixel before encoding"
    why = "; ".join(found.differing)
    because = f"; other than then: {why}" if why else "; versions and machine are as they were"
    if not found.frames:
        return f"{file}: different: {frames} instead of as many as the film has{because}"
    first = found.frames[0] + 1
    return f"{file}: different in {len(found.frames)} of {frames}, the first is {first}{because}"
