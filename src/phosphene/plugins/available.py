"""Plugins that can be had without being named: of `PHOSPHENE_PLUGINS`, and of installed packages.

They are loaded where something is looked for that is not there, or all is to be listed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from phosphene.plugins import registry

VARIABLE = "PHOSPHENE_PLUGINS"
"""The environment variable: files and modules, with the separator of PATH between."""

ENTRY_POINTS = "phosphene.plugins"
"""The group of entry points by which an installed package names its module."""

_named: str | None = None  # what the variable was when it was last looked at
_looked_for_installed = False


def load_available() -> None:
    """Load what `PHOSPHENE_PLUGINS` names, and installed plugins, once.

    An installed one that fails is told of by a `PluginWarning`: nobody named it just now.

    Raises:
        PluginError: one that `PHOSPHENE_PLUGINS` names fails.
    """
    global _named, _looked_for_installed
    if registry.is_loading():
        return
    named = os.environ.get(VARIABLE)
    if named and named != _named:
        from phosphene.plugins.loading import load_plugins

        load_plugins(named.split(os.pathsep), way=VARIABLE)
        _named = named
    if not _looked_for_installed:
        if any(ENTRY_POINTS.encode() in text for text in _entry_point_files()):
            from phosphene.plugins.loading import load_installed

            load_installed()
        _looked_for_installed = True


def _entry_point_files() -> Iterator[bytes]:
    """What the distributions that can be imported say of their entry points.

    `importlib.metadata` takes a fifth of `phosphene --help` to import alone; this a hundredth.
    """
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except NotADirectoryError:  # an archive, which cannot be told from outside
            yield ENTRY_POINTS.encode()
            continue
        except OSError:
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                try:
                    with open(os.path.join(folder, name, "entry_points.txt"), "rb") as stream:
                        yield stream.read()
                except OSError:
                    continue
