"""Code of a user's own: modules that register objectives, transforms, networks and recipes.

    registry   `Registry`: named things of one kind, and which plugin registered each
    available  what can be had without being named: `PHOSPHENE_PLUGINS` and installed packages
    loading    `load_plugin`

None needs torch, nor anything else of phosphene but its errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phosphene.lazy import lazy_names

if TYPE_CHECKING:
    from phosphene.plugins.available import load_available as load_available
    from phosphene.plugins.loading import LoadedPlugin as LoadedPlugin
    from phosphene.plugins.loading import failed_plugins as failed_plugins
    from phosphene.plugins.loading import find_plugin as find_plugin
    from phosphene.plugins.loading import importable_from_here as importable_from_here
    from phosphene.plugins.loading import load_plugin as load_plugin
    from phosphene.plugins.loading import loaded_plugins as loaded_plugins
    from phosphene.plugins.loading import plugin_files as plugin_files
    from phosphene.plugins.loading import plugin_of as plugin_of
    from phosphene.plugins.registry import Registry as Registry

_HOMES = {
    name: f"phosphene.plugins.{module}"
    for module, names in {
        "available": ("load_available",),
        "loading": (
            "LoadedPlugin", "failed_plugins", "find_plugin", "importable_from_here", "load_plugin",
            "loaded_plugins", "plugin_files", "plugin_of",
        ),
        "registry": ("Registry",),
    }.items()
    for name in names
}  # fmt: skip

__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]

# `phosphene --help` asks what is available, and loads nothing where there is nothing.
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
