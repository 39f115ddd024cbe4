"""Completion, as a real bash has it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from phosphene.cli import main
from phosphene.recipes.base import recipe_names


def completed(script: Path, *words: str) -> set[str]:
    """What bash offers for the last word, once it has sourced the script."""
    quoted = " ".join(f"'{word}'" for word in words)
    line = (
        f"source '{script}'; COMP_WORDS=(phosphene {quoted}); COMP_CWORD={len(words)}; "
        '$(complete -p phosphene | sed "s/.*-F //; s/ .*//"); printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", line], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash here")
def test_bash_completes_verbs_and_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("BASH_COMPLETION_USER_DIR", raising=False)
    assert main(["--install-completion", "--shell", "bash"]) == 0
    script = Path(capsys.readouterr().out.partition(": it works")[0])
    assert script.is_relative_to(tmp_path)
    assert str(script) in (tmp_path / ".bashrc").read_text(encoding="utf-8")
    assert set(recipe_names()) | {"replay", "layers"} <= completed(script, "")
    assert completed(script, "dre") == {"dream"}
    assert {"--smooth", "--smallest-octave"} == completed(script, "dream", "--sm")
    assert completed(script, "dream", "--gradient", "") >= {"rms", "std"}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_a_script_can_go_elsewhere(shell: str, tmp_path: Path) -> None:
    assert main(["--install-completion", "--shell", shell, "-o", str(tmp_path / "script")]) == 0
    assert "smallest-octave" in (tmp_path / "script").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["script"]


def test_what_cannot_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    words = ["--install-completion", "--shell", "fish", "-o", str(tmp_path / "file" / "script")]
    assert main(words) == 1
    assert "cannot write the completion: " in capsys.readouterr().err
    assert main(["--install-completion", "--shell", "nosh"]) == 2
    assert '"bash", "zsh", "fish"' in capsys.readouterr().err
