"""Named settings of a dream, each a file: the published algorithms, and looks of our own.

Those that come with phosphene lie in `data/presets`; each of the four published ones is held, in
the tests, to a plain transcription of its published loop. A user's own is a file of the same form,
named by its path, or lies in the folder that `PHOSPHENE_PRESETS` names.
"""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from phosphene.errors import SettingsError, one_line, suggest

T = TypeVar("T")

FOLDER = "PHOSPHENE_PRESETS"  # names a folder with presets of a user's own
SUFFIX = ".toml"
LONGEST = 2**20  # bytes; one is some 1 kB
NOTHING = "unset"  # a setting that is not set, for which TOML has no word
_OWN_NAME = re.compile(r"(.+)@[0-9a-f]{12}")


@dataclass(frozen=True)
class Preset:
    """Settings under a name, and what is dreamt through which network.

    Networks are named by their architecture, or by a pattern as `fnmatch` takes it; the first that
    fits counts.

    network: the one that it was made with.
    objectives: what is dreamt, by network.
    settings: for all networks. by_network: for some, before those.
    starts: where there is no photograph, by what is begun with, before all of these.
    chooses: through a network that `objectives` does not name a layer is chosen, by its maps.
    published: somebody else's algorithm, which is dreamt through whatever network is there; any
        other brings its own where nobody names one.
    """

    name: str
    source: str
    about: str
    network: str
    objectives: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)
    by_network: dict[str, dict[str, Any]] = field(default_factory=dict)
    starts: dict[str, dict[str, Any]] = field(default_factory=dict)
    chooses: bool = False
    published: bool = False

    def objective_for(self, network: str) -> str:
        """The objective on a network of that architecture; SettingsError if it names none."""
        found = _fitting(self.objectives, network)
        if found is None:
            raise SettingsError(
                f"the preset {self.name!r} names no layers of {network}; say what to dream with an "
                f"objective, or take one of {', '.join(self.objectives)}"
            )
        return found

    def names(self, network: str) -> bool:
        """Whether it says what to dream through a network of that architecture."""
        return _fitting(self.objectives, network) is not None

    def settings_for(self, network: str, start: str | None = None) -> dict[str, Any]:
        """The settings through a network of that architecture, of a dream that begins so."""
        by_network, by_start = _fitting(self.by_network, network), self.starts.get(start or "")
        return {**self.settings, **(by_network or {}), **(by_start or {})}


def _fitting(table: Mapping[str, T], network: str) -> T | None:
    return next((found for pattern, found in table.items() if fnmatchcase(network, pattern)), None)


# Files --------------------------------------------------------------------------------------------

_TEXTS = ("source", "about", "network")
_FLAGS = ("chooses", "published")
_TABLES = ("objectives", "settings", "by_network", "starts")


def read_preset(path: Path, name: str | None = None) -> Preset:
    """The preset of a file. SettingsError for one that is none, which names the file.

    name: by default the file's own, and the beginning of its SHA-256: what is made with it says
    with which one, and no path.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(LONGEST + 1)
    except OSError as error:
        reason = error.strerror or error
        raise SettingsError(f"cannot read the preset {str(path)!r}: {reason}") from None
    try:
        if len(content) > LONGEST:
            raise ValueError(f"it is longer than {LONGEST >> 20} MiB")
        given = tomllib.loads(content.decode())
        _check_form(given)
    except (ValueError, RecursionError) as error:  # those of TOML and UTF-8 among them
        raise SettingsError(f"{str(path)!r} is no preset: {one_line(error)}") from None
    if name is None:
        name = f"{path.stem}@{hashlib.sha256(content).hexdigest()[:12]}"
    whole = {"source": "", "about": "", "network": "dreamnet", **given}
    whole["settings"] = _without_nothing(given.get("settings", {}))
    for table in ("by_network", "starts"):
        whole[table] = {key: _without_nothing(one) for key, one in given.get(table, {}).items()}
    return Preset(name, **whole)


def _without_nothing(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: None if value == NOTHING else value for key, value in settings.items()}


def _check_form(given: dict[str, Any]) -> None:
    """ValueError for what is no preset, as it lies in a file; settings are not looked into."""
    known = (*_TEXTS, *_FLAGS, *_TABLES)
    for key, value in given.items():
        if key not in known:
            raise ValueError(f"there is no {key!r} in one{suggest(key, known)}")
        kind = str if key in _TEXTS else bool if key in _FLAGS else dict
        if not isinstance(value, kind):
            named = {str: "a text", bool: "true or false", dict: f"a table, [{key}]"}[kind]
            raise ValueError(f"{key} is {value!r}; {named} was expected")
    for network, text in given.get("objectives", {}).items():
        if not isinstance(text, str):
            raise ValueError(f"the objective of {network} is {text!r}; a text was expected")
    for table in ("by_network", "starts"):
        for key, value in given.get(table, {}).items():
            if not isinstance(value, dict):
                raise ValueError(f"{table}.{key} is {value!r}; a table of settings was expected")
    if not given.get("objectives"):
        raise ValueError("it says nothing of what to dream: a table [objectives] was expected")


def _bundled() -> dict[str, Preset]:
    folder = Path(__file__).parents[1] / "data" / "presets"
    found = [read_preset(path, path.stem) for path in sorted(folder.glob(f"*{SUFFIX}"))]
    # Our own default first, then looks, then what others have published.
    order = {"phosphene": -1}
    found.sort(key=lambda preset: (preset.published, order.get(preset.name, 0), preset.name))
    return {preset.name: preset for preset in found}


PRESETS: dict[str, Preset] = _bundled()
_OWN: dict[str, Preset] = {}  # of files, by name: those that this process has read


# By name ------------------------------------------------------------------------------------------


def preset(name: str) -> Preset:
    """The preset of that name, or of that file; `SettingsError` with the closest ones."""
    if not isinstance(name, str):
        raise SettingsError(f"no preset {name!r}{suggest('', PRESETS)}")
    found = PRESETS.get(name) or _OWN.get(name)
    if found is not None:
        return found
    if name.endswith(SUFFIX) or os.sep in name:
        return _of_file(Path(name).expanduser())
    own = own_presets()
    if name in own:
        return _of_file(own[name])
    if is_of_a_file(name):
        stem = name.rpartition("@")[0]
        if stem in own and (found := _of_file(own[stem])).name == name:
            return found
        raise SettingsError(
            f"the preset {name!r} is of a file {stem}{SUFFIX} that is not here: name it by its "
            f"path, or have it in the folder that {FOLDER} names"
        )
    raise SettingsError(f"no preset {name!r}{suggest(name, [*PRESETS, *own])}")


def own_presets() -> dict[str, Path]:
    """The files in the folder that `PHOSPHENE_PRESETS` names, by name; nothing built in is
    replaced. SettingsError if it is no folder."""
    given = os.environ.get(FOLDER)
    if not given:
        return {}
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise SettingsError(f"{FOLDER} names {given!r}, which is no folder")
    files = sorted(folder.glob(f"*{SUFFIX}"))
    return {file.stem: file for file in files if file.stem not in PRESETS}


def is_of_a_file(name: object) -> bool:
    """Whether it is what a preset of a user's own file is called in what is made with it."""
    return isinstance(name, str) and _OWN_NAME.fullmatch(name) is not None


def _of_file(path: Path) -> Preset:
    """That of a user's own file, checked against the settings of a dream."""
    from phosphene.recipes.dream import DreamSettings
    from phosphene.settings import checked

    found = read_preset(path)
    for settings in (found.settings, *found.by_network.values(), *found.starts.values()):
        try:
            checked(DreamSettings, {**found.settings, **settings, "preset": "phosphene"})
        except SettingsError as error:
            raise SettingsError(f"the preset {str(path)!r}: {error}") from None
    return _OWN.setdefault(found.name, found)
