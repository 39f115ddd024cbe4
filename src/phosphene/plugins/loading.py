"""Loading plugins: files and modules by name, of `PHOSPHENE_PLUGINS`, and of installed packages.

A plugin is loaded because its user says so, on the command line, in Python, by the environment
variable, or by installing a package with an entry point; never because a request or a recipe names
it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from phosphene.errors import PhospheneError, PluginError, PluginWarning, one_line
from phosphene.plugins import registry
from phosphene.plugins.available import ENTRY_POINTS, load_available

PREFIX = "phosphene_plugin_"  # of a file's module, so that it hides no other


@dataclass(frozen=True)
class LoadedPlugin:
    """A plugin that is loaded.

    name: by which manifests and requests know it: its module's, or of a file its name without .py.
    module: its name in `sys.modules`.
    version: `__version__` of the module, or that of its distribution.
    sha256: of the file as it was loaded; of a package, of its .py files.
    files: all of them.
    way: how it came to be loaded, such as "--plugin".
    """

    name: str
    module: str
    version: str | None
    sha256: str | None
    files: tuple[Path, ...] = field(repr=False)
    way: str

    @property
    def registered(self) -> dict[str, list[str]]:
        """What it registered: kind -> names."""
        return registry.registered_by(self.module)


_lock = threading.RLock()
_loaded: dict[str, LoadedPlugin] = {}
_failed: dict[str, str] = {}


def load_plugin(source: str | os.PathLike[str], *, way: str = "load_plugin") -> LoadedPlugin:
    """Load a plugin: run its module, which registers what it brings. Once, however often called.

    Args:
        source: `FILE.py`, a path; or `package.module`, installed or in the current folder.
        way: how it came to be loaded, for `phosphene plugins`.

    Raises:
        PluginError: it is not there, it fails, or it registers a name that is taken; nothing that
            it had registered by then stays. Or another plugin has its name.

    >>> phosphene.load_plugin("glow.py").registered
    {'recipe': ['glow']}
    """
    text = os.fspath(source)
    with _lock:
        if text.endswith(".py") or isinstance(source, os.PathLike) or os.sep in text:
            return _load_file(Path(text).expanduser(), way)
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", text):
            raise PluginError(f"no plugin {text!r}: expected FILE.py or package.module")
        return _load_module(text, way)


def loaded_plugins() -> list[LoadedPlugin]:
    """Every plugin that is loaded, in the order in which they were."""
    return list(_loaded.values())


def failed_plugins() -> dict[str, str]:
    """Installed plugins that could not be loaded: name -> why."""
    return dict(_failed)


def find_plugin(name: str) -> LoadedPlugin | None:
    """The plugin by which a manifest or a request knows that name, if it is loaded or available."""

    def found() -> LoadedPlugin | None:
        return next((plugin for plugin in _loaded.values() if plugin.name == name), None)

    if found() is None:
        load_available()
    return found()


def plugin_of(kind: str, name: str) -> LoadedPlugin | None:
    """The plugin that registered something of a kind, such as ("transform", "mirror"), if any."""
    if not registry.is_registered(kind, name):
        load_available()
    owner = registry.owner_of(kind, name)
    return None if owner is None else _loaded.get(owner)


def plugin_files() -> dict[str, Path]:
    """Every file of a plugin's code, by what it is called in a message."""
    found: dict[str, Path] = {}
    for plugin in _loaded.values():
        for file in plugin.files:
            label = f"plugin {plugin.name}" + (f"'s {file.name}" if plugin.files[1:] else "")
            found[label if label not in found else f"{label} ({file.parent})"] = file
    return found


def load_plugins(sources: Iterable[str], *, way: str) -> None:
    """Load several; see `load_plugin`."""
    with _lock:
        for source in filter(None, sources):
            load_plugin(source, way=way)


def load_installed() -> None:
    """Load the plugins of installed packages; one that fails is told of by a `PluginWarning`."""
    from importlib import metadata

    with _lock:
        for point in sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda p: p.name):
            _load_installed(point)


# Files and modules --------------------------------------------------------------------------------


def _load_file(path: Path, way: str) -> LoadedPlugin:
    if path.suffix != ".py" or not path.stem.isprintable():
        raise PluginError(f"no plugin {str(path)!r}: a plugin's file has a plain name, with .py")
    try:
        source, real = path.read_bytes(), path.resolve()
    except OSError as error:
        raise PluginError(f"no plugin {str(path)!r}: {error.strerror or error}") from None
    module_name = PREFIX + re.sub(r"\W", "_", path.stem)
    if held := _loaded.get(module_name):
        if held.files != (real,):
            raise PluginError(_two_of_a_name(held, path))
        return held
    _refuse_name(path.stem, path)
    spec = importlib.util.spec_from_file_location(module_name, real)
    assert spec is not None

    def run() -> ModuleType:
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        # What is run is what is hashed, and no compiled file is left beside it.
        exec(compile(source, str(real), "exec", dont_inherit=True), vars(module))
        return module

    module = _ran(run, module_name, str(path), real)
    digest = _sha256(source)
    return _noted(path.stem, module_name, _stated_version(module), digest, (real,), way)


def _load_module(name: str, way: str, version: str | None = None) -> LoadedPlugin:
    if held := _loaded.get(name):
        return held
    _refuse_name(name, name)
    importable_from_here()
    module = _ran(lambda: _imported(name), name, name, None)
    version = _stated_version(module) or version or _distributed_version(name)
    files, digest = _code_of(module)
    return _noted(name, name, version, digest, files, way)


def _imported(name: str) -> ModuleType:
    module = importlib.import_module(name)
    if module.__file__ is None:  # any folder passes as a package
        raise ImportError("it is a folder without an __init__.py")
    return module


def _noted(
    name: str,
    module: str,
    version: str | None,
    sha256: str | None,
    files: tuple[Path, ...],
    way: str,
) -> LoadedPlugin:
    _loaded[module] = LoadedPlugin(name, module, version, sha256, files, way)
    return _loaded[module]


def _ran(run: Callable[[], ModuleType], module: str, label: str, file: Path | None) -> ModuleType:
    """The module that `run` gives; PluginError, and nothing of it stays, if it fails."""
    before = set(sys.modules)
    try:
        with registry.registering(module):
            return run()
    except BaseException as error:
        for each in set(sys.modules) - before:
            if registry.within(each, module):
                del sys.modules[each]
        if isinstance(error, (Exception, SystemExit)):
            raise PluginError(_why(error, module, label, file)) from error
        raise


def _why(error: BaseException, module: str, label: str, file: Path | None) -> str:
    """What is wrong with a plugin, in one line."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if file is None and missing and registry.within(module, missing):
        return (
            f"no plugin {label!r}: no module {missing!r}, installed or in {os.getcwd()!r}; "
            "a file is named with its .py"
        )
    message = one_line(error)
    if not isinstance(error, PhospheneError):
        message = f"{type(error).__name__}: {message}"
    beside = file is not None and missing and (file.parent / f"{missing}.py").exists()
    if beside or (isinstance(error, ImportError) and "relative import" in message):
        message += (
            "; a plugin's file imports no neighbour: make a package of them, and name that, "
            "--plugin package.module"
        )
    line = error.lineno if isinstance(error, SyntaxError) else _line(error, file)
    return f"the plugin {label!r} failed{f' in line {line}' if line else ''}: {message}"


def _line(error: BaseException, file: Path | None) -> int | None:
    """The line of the plugin's file where it failed."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((f.lineno for f in reversed(frames) if f.filename == str(file)), None)


def _refuse_name(name: str, source: str | Path) -> None:
    if held := next((plugin for plugin in _loaded.values() if plugin.name == name), None):
        raise PluginError(_two_of_a_name(held, source))


def _two_of_a_name(held: LoadedPlugin, source: str | Path) -> str:
    there = str(held.files[0]) if held.files else held.module
    return (
        f"the plugin {str(source)!r} has the name of {there!r}, which is loaded: a recipe could "
        "not tell them apart; rename one"
    )


def importable_from_here() -> None:
    """Let modules in the current folder be imported, as `python -m` does."""
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)  # last, so that nothing there hides an installed package


# Versions and hashes ------------------------------------------------------------------------------


def _stated_version(module: ModuleType) -> str | None:
    version = getattr(module, "__version__", None)
    text = one_line("" if version is None else version, most=100)
    return text if text.isprintable() and text else None


def _distributed_version(name: str) -> str | None:
    from importlib import metadata

    top = name.partition(".")[0]
    try:
        return metadata.version(top)
    except metadata.PackageNotFoundError:
        distributions = metadata.packages_distributions().get(top)
        return metadata.version(distributions[0]) if distributions else None


def _code_of(module: ModuleType) -> tuple[tuple[Path, ...], str | None]:
    """The files of a module, or of all of its package, and their SHA-256, if they can be read."""
    folders = [Path(folder) for folder in getattr(module, "__path__", ())]
    try:
        if not folders:
            file = Path(module.__file__ or "").resolve()
            return (file,), _sha256(file.read_bytes())
        found = [(f.relative_to(top), f) for top in folders for f in sorted(top.rglob("*.py"))]
        lines = (f"{name.as_posix()}\0{_sha256(f.read_bytes())}\n" for name, f in found)
        digest = _sha256("".join(lines).encode("utf-8", "surrogateescape"))
    except OSError:  # in an archive, say
        return (), None
    return tuple(file.resolve() for _, file in found), digest


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


# Installed packages -------------------------------------------------------------------------------


def _load_installed(point: Any) -> None:
    try:
        if point.attr:
            raise PluginError(
                f"the installed plugin {point.name!r} is {point.value!r}; a module was expected, "
                f"{point.module!r}"
            )
        version = None if point.dist is None else point.dist.version
        _load_module(point.module, "installed", version)
    except PluginError as error:
        _failed[point.name] = str(error)
        warnings.warn(str(error), PluginWarning, stacklevel=2)
