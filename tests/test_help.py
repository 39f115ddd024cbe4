"""Help is whole on a terminal of 80 columns: no flag nor what it takes is broken across lines."""

from __future__ import annotations

import re
from typing import Any

import pytest

from phosphene.cli import main
from phosphene.recipes.base import recipe_named, recipe_names
from phosphene.recipes.presets import PRESETS

OWN = ("replay", "run", "layers", "networks", "presets", "objectives", "transforms", "plugins")
TAKEN = r"(?:CHOICE|INT|FLOAT|STR|PATH)"


@pytest.mark.parametrize("columns", [80, 100])
@pytest.mark.parametrize("verb", [*recipe_names(), *OWN])
def test_no_flag_is_broken(
    verb: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    for line in text.splitlines():
        if line.startswith("│"):
            assert len(line) <= columns, line
            # What a flag takes stands behind it, and so begins no line.
            assert not re.match(rf"│\W*{TAKEN}\b(?!=)", line), line
    assert "default: False" not in text
    assert "default: ()" not in text
    if verb not in OWN:
        recipe = recipe_named(verb)
        paired = {entry.with_setting for entry in recipe.inputs}
        fields = recipe.settings.model_fields
        extras: dict[str, Any] = {
            n: fields[n].json_schema_extra or {} for n in fields.keys() - paired
        }
        names = [extra.get("flag", name) for name, extra in extras.items()]
        for name in (*names, "output", "recipe", "force"):
            flag = "--" + name.replace("_", "-")
            assert re.search(rf"^│[ *]+{flag}(?![\w-])", text, re.MULTILINE), flag


def test_a_paragraph_of_help_is_filled(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines of a docstring are not lines of the help."""
    main(["replay", "--help"])
    text = re.sub(r"[│\s]+", " ", capsys.readouterr().out)
    assert "where an input lies, if neither beside the file nor in the current folder." in text


def test_a_default_that_goes_by_network_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    by_network = {name for table in PRESETS["phosphene"].by_network.values() for name in table}
    assert by_network
    main(["dream", "--help"])
    text = re.sub(r"[│\s]+", " ", capsys.readouterr().out)
    for name in by_network:
        flag = "--" + name.replace("_", "-")
        assert re.search(rf"{flag} [^\[]*\[default: [\d.]+, or by network\]", text), flag
