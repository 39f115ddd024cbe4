"""A job on the command line: run it, tell of it, and give the exit code."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from phosphene.cli.exits import DONE, FAILED, complain, explained, interrupted, to_stdout
from phosphene.errors import SettingsError
from phosphene.image.files import write_atomically
from phosphene.jobs import Ended, Request, Saved

if TYPE_CHECKING:
    from phosphene.cli.reporter import Reporter
    from phosphene.jobs import Job
    from phosphene.jobs.films import FilmJob

OUT = Group("Output", sort_key=3)
CHECKPOINT = (
    "A file for where it is, so that the same command goes on after a kill. It is written at the "
    "end of each octave and now and then, and removed when the result is whole."
)
CHECKPOINT_EVERY = "Seconds between two checkpoints."
# Results, of which a command prints the names.
PRINTED = ("picture", "page", "film", "data")
# px, of a picture that memory is no question for.
MODEST = 2048**2

Force = Annotated[bool, Parameter(group=OUT, negative=(), show_default=False)]
"""Replace files that are there. Never an input."""

Events = Annotated[Path | None, Parameter(group=OUT)]
"""A file to which everything that happens is added, as lines of JSON."""


@dataclass(frozen=True)
class FilmOptions:
    """What is asked of a film besides its settings.

    keep_frames: its frames stay. preview: a frame and two small seconds instead. plot_keys: the
    file of a picture of its keyframes, instead.
    """

    keep_frames: bool = False
    preview: bool = False
    plot_keys: Path | None = None


def make(
    request: Request,
    reporter: Reporter,
    *,
    force: bool = False,
    allow: Collection[str] = (),
    cache: bool = True,
    large: bool = True,
    shorthands: Mapping[str, Any] | None = None,
    source: Path | None = None,
    save_request: Path | None = None,
    dry_run: bool = False,
    journal: Path | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: float | None = None,
    film: FilmOptions | None = None,
) -> int:
    """Prepare a request, be it of the file `source`, and run it; the exit code.

    What stands on the command line is its user's own, so that `large` work is begun unasked.
    """
    if checkpoint is None and checkpoint_every is not None:
        raise SettingsError("--checkpoint-every says how often; --checkpoint FILE says where")
    if journal is not None:
        from phosphene.cli.reporter import check_journal

        check_journal(journal)
    with reporter.hearing_warnings():
        from phosphene.jobs import prepare

        try:
            job = prepare(
                request,
                force=force,
                allow=allow,
                cache=cache,
                large=large,
                shorthands=shorthands,
                name_output=True,
                read={} if source is None else {"request": source},
                written={} if save_request is None else {"saved request": save_request},
                kept={} if journal is None else {"file of events": journal},
                checkpoint=checkpoint,
                checkpoint_every=checkpoint_every,
            )
        except KeyboardInterrupt as error:
            complain("interrupted, nothing was written")
            return interrupted(error)
        if save_request:
            _save_request(job, save_request, force)
        if film is not None and film.plot_keys is not None:
            from phosphene.jobs.films import plot_keys

            plot_keys(job, film.plot_keys, overwrite=force)
            to_stdout(str(film.plot_keys), as_is=not sys.stdout.isatty())
            return DONE
        if dry_run:
            for target in job.targets:
                reporter.note(f"checked, and not made: {target.path}")
            return DONE
        if film is not None:
            from phosphene.jobs.films import FilmJob

            assert isinstance(job, FilmJob)
            if film.preview:
                return _preview(job, reporter, force)
            job.keep_frames = film.keep_frames
        return run_job(job, reporter, journal)


def _preview(job: FilmJob, reporter: Reporter, force: bool) -> int:
    """Make a film's preview; the exit code."""
    from phosphene.jobs.films import preview

    events, ended = reporter.follow(preview(job, overwrite=force))
    for event in events:
        if isinstance(event, Saved):
            to_stdout(str(event.path), as_is=not sys.stdout.isatty())
    return DONE if ended.why == "done" else interrupted(ended.error)


def run_job(job: Job, reporter: Reporter, journal: Path | None = None) -> int:
    """Run a job that is prepared; the exit code. journal: a file that each event is added to."""
    _settle_allocator(job)
    events, ended = reporter.follow(job.events(), journal)
    saved = [event for event in events if isinstance(event, Saved)]
    if ended.why == "done":
        for event in saved if not reporter.quiet else ():
            if event.kind in PRINTED:
                # Exactly, for a program that reads it.
                to_stdout(str(event.path), as_is=not sys.stdout.isatty())
        return DONE
    complain(_ending(job, ended, [event for event in saved if event.kind == "picture"]))
    return interrupted(ended.error) if ended.why == "interrupted" else FAILED


def _ending(job: Job, ended: Ended, saved: list[Saved]) -> str:
    """How a job ended that did not go to its end, in a line."""
    if not saved:
        return ended.text
    more = f" and {len(saved) - 1} more" if len(saved) > 1 else ""
    where = f"; the {job.recipe.noun} so far is in {str(saved[0].path)!r}{more}"
    if job.checkpoint is not None and job.checkpoint.path.exists():
        where += ", and the same command goes on"
    if ended.why == "interrupted":
        octave = f"in octave {ended.octave}, " if job.recipe.octaves else ""
        return f"interrupted {octave}after step {ended.step}{where}"
    assert ended.error is not None
    return explained(ended.error) + where


def _settle_allocator(job: Job) -> None:
    """What this process does with the memory that it frees, by what is to come."""
    from phosphene.runtime.allocator import keep_freed, return_freed
    from phosphene.runtime.memory import addresses_limited

    pictures = job.arguments.images.values()
    if any(p.shape[-2] * p.shape[-1] > MODEST for p in pictures) and addresses_limited():
        return_freed()
    else:
        keep_freed()


def _save_request(job: Job, path: Path, force: bool) -> None:
    text = job.request.relative_to(path.parent).text()
    write_atomically(path, text.encode("utf-8", "surrogateescape"), overwrite=force)
