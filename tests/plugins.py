"""Forgetting plugins again: a process that runs tests loads many."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from phosphene.plugins import LoadedPlugin, available, loaded_plugins, loading, registry


def forget(plugin: LoadedPlugin) -> None:
    """Unload it."""
    registry.forget(plugin.module)
    del loading._loaded[plugin.module]
    for name in [name for name in sys.modules if registry.within(name, plugin.module)]:
        del sys.modules[name]


@contextmanager
def forgotten() -> Iterator[None]:
    """What is loaded within is not loaded afterwards, nor is what it registered."""
    before = set(loaded_plugins())
    path = list(sys.path)
    try:
        yield
    finally:
        for plugin in set(loaded_plugins()) - before:
            forget(plugin)
        loading._failed.clear()
        sys.path[:] = path
        available._looked_for_installed, available._named = True, None
