"""Registries: named things of one kind, each with the plugin that registered it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from phosphene.errors import PhospheneError

T = TypeVar("T")

# kind -> its registry, of those whose module is imported: nothing is registered in another.
_registries: dict[str, Registry[Any]] = {}
# The module of the plugin that is being loaded, in this thread.
_loading: ContextVar[str | None] = ContextVar("loading", default=None)
# The modules of the plugins that are loaded.
_modules: set[str] = set()


def home_of(value: Any) -> tuple[str, str]:
    """Where a function or class is defined: its module, and its name there."""
    value = getattr(value, "func", value)  # of a functools.partial
    return getattr(value, "__module__", None) or "", getattr(value, "__qualname__", "")


class Registry(dict[str, T]):
    """Named things of one kind, which plugins can add to; nothing that is there is replaced.

    Args:
        kind: what they are, for messages: "transform".
        error: what is raised for a name that is taken.
        home: where one is defined, as `home_of` says of a function; the same place again, such as
            that of a notebook cell that is run again, may take its own name.
        offered: parameters that are the program's to give, and not a text's.
    """

    def __init__(
        self,
        kind: str,
        error: type[PhospheneError],
        home: Callable[[T], tuple[str, str]] = home_of,
        offered: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.kind, self.error, self.home, self.offered = kind, error, home, offered
        self._owners: dict[str, str] = {}
        _registries[kind] = self

    def add(self, name: str, value: T) -> None:
        """Register `value` by its name; it is remembered which plugin is being loaded.

        Raises:
            The registry's `error`: something else has the name.
        """
        home = self.home(value)
        if name in self and self.home(self[name]) != home:
            raise self.error(self.taken(name, self.home(self[name])[0]))
        self[name] = value
        self._owners.pop(name, None)
        owner = _owner(home[0])
        if owner is not None:
            self._owners[name] = owner

    def taken(self, name: str, module: str) -> str:
        """That something of `module` has the name already."""
        article = "an" if self.kind[0] in "aeiou" else "a"
        return f"there is {article} {self.kind} {name!r} already, from {module}"

    def known(self, name: str) -> bool:
        """Whether there is one of that name; plugins that can be had without asking are loaded."""
        if name not in self:
            from phosphene.plugins.available import load_available

            load_available()
        return name in self

    def owner(self, name: str) -> str | None:
        """The module of the plugin that registered a name; None of a built-in one."""
        return self._owners.get(name) if name in self else None

    def names_of(self, module: str) -> list[str]:
        """What the plugin of that module registered."""
        return [name for name in self if self._owners.get(name) == module]


def _owner(module: str) -> str | None:
    # A built-in module may be imported for the first time by a plugin.
    if within(module, "phosphene"):
        return None
    return _loading.get() or next((each for each in _modules if within(module, each)), None)


def within(module: str, package: str) -> bool:
    """Whether a module is another one or lies in it."""
    return module == package or module.startswith(f"{package}.")


def owner_of(kind: str, name: str) -> str | None:
    """The module of the plugin that registered something of a kind; None of what is built in."""
    registry = _registries.get(kind)
    return None if registry is None else registry.owner(name)


def is_registered(kind: str, name: str) -> bool:
    """Whether something of a kind is registered by now."""
    return name in _registries.get(kind, ())


def registered_by(module: str) -> dict[str, list[str]]:
    """What the plugin of that module registered: kind -> names."""
    found = {kind: registry.names_of(module) for kind, registry in _registries.items()}
    return {kind: names for kind, names in found.items() if names}


@contextmanager
def registering(module: str) -> Iterator[None]:
    """What is registered within belongs to the plugin of that module; nothing does if it fails."""
    token = _loading.set(module)
    try:
        yield
    except BaseException:
        forget(module)
        raise
    finally:
        _loading.reset(token)
    _modules.add(module)
    # What a module registered that was imported before it was loaded as a plugin.
    for registry in _registries.values():
        for name, value in registry.items():
            if within(registry.home(value)[0], module):
                registry._owners[name] = module


def forget(module: str) -> None:
    """Take back what the plugin of that module registered."""
    for registry in _registries.values():
        for name in registry.names_of(module):
            del registry[name]
    _modules.discard(module)


def is_loading() -> bool:
    """Whether a plugin is being loaded, in this thread."""
    return _loading.get() is not None
