"""`phosphene --install-completion`: verbs and flags at the touch of the tab key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from phosphene.cli.exits import DONE, to_stdout
from phosphene.errors import PhospheneError, SettingsError, one_line

Shell = Literal["bash", "zsh", "fish"]


def verb(
    *,
    shell: Annotated[Shell | None, Parameter(show_default=lambda _: "the one in use")] = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
) -> int:
    """Have the shell complete verbs and flags.

    Parameters
    ----------
    shell
        For which. The script goes where it looks for such.
    output
        Write the script there instead, and change nothing else.
    """
    from cyclopts.completion.detect import ShellDetectionError

    from phosphene.cli import app  # which names this function

    try:
        path = app.install_completion(shell=shell, output=output, add_to_startup=output is None)
    except ShellDetectionError:
        raise SettingsError("the shell is not known; name one: --shell bash, zsh or fish") from None
    except ValueError as error:  # PowerShell was found, and its profile was not
        raise SettingsError(f"completion: {one_line(error)}") from None
    except OSError as error:
        reason = error.strerror or error
        raise PhospheneError(f"cannot write the completion: {reason}: {error.filename}") from None
    to_stdout(f"{path}: it works in shells that are opened from now on")
    return DONE
