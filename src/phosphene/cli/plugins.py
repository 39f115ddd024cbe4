"""`--plugin`, as every verb's help shows it."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Group, Parameter

# `main` takes it out of the command line, since a plugin may bring the verb: this is for help.
Plugins = Annotated[
    tuple[str, ...],
    Parameter(
        name="--plugin",
        group=Group("Code of your own", sort_key=4),
        negative=(),
        show_default=False,
        help="FILE.py or package.module: registers objectives, transforms, networks or recipes. "
        "May be given several times.",
    ),
]
