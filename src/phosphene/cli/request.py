"""`phosphene run`: a saved request."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from phosphene.cli.plugins import Plugins
from phosphene.cli.running import CHECKPOINT, OUT, Events, Force, make
from phosphene.jobs.request import Request, main_kind

NETWORK = (
    "To take instead of the request's: for a request whose network is code, is to be fetched, or "
    "is a file elsewhere."
)


def verb(
    file: Path,
    /,
    *,
    network: Annotated[str | None, Parameter(help=NETWORK)] = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], group=OUT)] = None,
    checkpoint: Annotated[Path | None, Parameter(group=OUT, help=CHECKPOINT)] = None,
    checkpoint_every: Annotated[
        float | None,
        Parameter(group=OUT, show_default=lambda _: "60", allow_leading_hyphen=True),
    ] = None,
    events: Events = None,
    large: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    dry_run: Annotated[bool, Parameter(group=OUT, negative=(), show_default=False)] = False,
    force: Force = False,
    quiet: Annotated[bool, Parameter(group=OUT, negative=(), show_default=False)] = False,
    verbose: Annotated[bool, Parameter(group=OUT, negative=(), show_default=False)] = False,
    plugin: Plugins = (),
) -> int:
    """Run a saved request.

    It replaces no file, and starts no code, download or uncommonly large work, unless that is
    said here.

    Parameters
    ----------
    file
        JSON, such as --save-request writes; paths in it are relative to its folder.
    output
        Where the result is to lie, instead of where the request says.
    checkpoint_every
        Seconds between two checkpoints.
    events
        A file to which everything that happens is added, as lines of JSON.
    large
        Begin it though it takes far more work than is usual.
    dry_run
        Check everything, but make nothing.
    force
        Replace files that are there. Never an input.
    quiet
        Say nothing but errors.
    verbose
        Say what is done with what.
    """
    from phosphene.cli.reporter import Reporter

    request = Request.read(file)
    changes: dict[str, object] = {}
    if network:
        changes["network"] = network
    if output:
        changes["outputs"] = {**request.outputs, main_kind(request.declaration): str(output)}
    request = request.model_copy(update=changes)
    return make(
        request,
        Reporter(quiet=quiet, verbose=verbose),
        force=force,
        allow=(network,) if network else (),
        large=large,
        source=file,
        dry_run=dry_run,
        journal=events,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
    )
