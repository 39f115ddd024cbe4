"""Code of a user's own: modules that register objectives, transforms, networks and recipes.

    registry   `Registry`: named things of one kind, and which plugin registered each
    loading    `load_plugin`, and the plugins of `PHOSPHENE_PLUGINS` and of installed packages

Neither needs torch, nor anything else of phosphene but its errors.
"""

from __future__ import annotations

from phosphene.plugins.loading import (
    ENTRY_POINTS,
    VARIABLE,
    LoadedPlugin,
    failed_plugins,
    find_plugin,
    importable_from_here,
    load_available,
    load_plugin,
    loaded_plugins,
    plugin_files,
    plugin_of,
)
from phosphene.plugins.registry import Registry

__all__ = [
    "ENTRY_POINTS",
    "VARIABLE",
    "LoadedPlugin",
    "Registry",
    "failed_plugins",
    "find_plugin",
    "importable_from_here",
    "load_available",
    "load_plugin",
    "loaded_plugins",
    "plugin_files",
    "plugin_of",
]
