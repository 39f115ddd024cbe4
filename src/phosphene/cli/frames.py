"""`phosphene frames`: a film as pictures, and pictures as a film."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from phosphene.cli.exits import DONE, complain, interrupted, to_stdout
from phosphene.cli.process import collect_garbage
from phosphene.errors import FilmError, SettingsError

if TYPE_CHECKING:
    from phosphene.cli.reporter import Reporter
    from phosphene.films.frames import Frame


def verb(
    source: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    begin: str | None = None,
    end: str | None = None,
    size: int | None = None,
    fps: str | None = None,
    audio: Path | None = None,
    codec: str | None = None,
    crf: int | None = None,
    force: Annotated[bool, Parameter(negative=())] = False,
    quiet: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """A film as pictures, or pictures as a film.

    Parameters
    ----------
    source
        A film; or a folder of pictures, in the order of the numbers in their names.
    output
        A folder for the pictures, PNG; or the film, .mp4, .mkv, .webm, .mov, .gif or .webp.
    begin
        Where to begin: 10s, 0:10, 300f (frames) or 50%.
    end
        Where to end, likewise.
    size
        Longest side in px.
    fps
        Of pictures: frames a second, such as 24 or 30000/1001.
    audio
        A film whose sound the new one has.
    codec
        How the film is encoded: h264, hevc, av1, vp9, ffv1, ….
    crf
        Quality of the encoding; less is better and larger.
    force
        Replace files that are there.
    quiet
        Say nothing but errors.
    """
    from phosphene.cli.reporter import Reporter

    reporter = Reporter(quiet=quiet)
    with reporter.hearing_warnings():
        try:
            if source.is_dir():
                _to_film(source, output, reporter, begin, end, size, fps, force,
                         codec=codec, crf=crf, audio_from=audio)  # fmt: skip
            else:
                _refuse_for_pictures(fps=fps, audio=audio, codec=codec, crf=crf)
                _to_pictures(source, output, reporter, begin, end, size, force)
        except KeyboardInterrupt as error:
            complain("interrupted")
            return interrupted(error)
    to_stdout(str(output))
    return DONE


def _refuse_for_pictures(**given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            raise SettingsError(f"--{name} goes with a folder of pictures that becomes a film")


def _to_pictures(
    source: Path, folder: Path, reporter: Reporter, begin: Any, end: Any, size: Any, force: bool
) -> None:
    from phosphene.films.source import FilmSource
    from phosphene.image import save_image
    from phosphene.jobs.outputs import make_folder

    film = FilmSource.of_file(source, begin=begin, end=end, size=size)
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise FilmError(
            f"the folder {str(folder)!r} is not empty: another one, or --force to add to it"
        )
    make_folder(folder)
    for note in film.info.notes if film.info else ():
        reporter.note(f"{source}: {note}")
    for frame in _told(film.frames(), film.count, reporter):
        save_image(frame.image, folder / f"{frame.index + 1:06}.png", overwrite=force)


def _to_film(
    source: Path, output: Path, reporter: Reporter, begin: Any, end: Any, size: Any, fps: Any,
    force: bool, **encoding: Any,
) -> None:  # fmt: skip
    from fractions import Fraction

    from phosphene.films.formats import check_film_output
    from phosphene.films.read import film_info, read_film
    from phosphene.films.times import parse_time
    from phosphene.films.write import write_film
    from phosphene.recipes.moving import read_rate

    try:
        rate = None if fps is None else Fraction(read_rate(fps))
    except ValueError as error:
        raise SettingsError(f"--fps {fps!r}: {error}") from None
    check_film_output(output, codec=encoding["codec"], crf=encoding["crf"], overwrite=force)
    info = film_info(source, rate=rate)

    def seconds(text: str | None) -> Fraction | None:
        return None if text is None else parse_time(text, rate=info.rate, duration=info.duration)

    for note in info.notes:
        reporter.note(f"{source}: {note}")
    frames = read_film(source, begin=seconds(begin), end=seconds(end), size=size, rate=rate)
    write_film(output, _told(frames, info.count, reporter), overwrite=force, **encoding)


def _told(frames: Iterator[Frame], count: int | None, reporter: Reporter) -> Iterator[Frame]:
    """The frames, with a bar that moves where there is a terminal for one."""
    collect_garbage()  # all that they need is imported
    if not reporter.live or reporter.quiet:
        yield from frames
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=reporter.console, transient=True) as bar:
        task = bar.add_task("frames", total=count)
        for frame in frames:
            yield frame
            bar.advance(task)
