"""What is said twice is said alike: checks, stages, versions of Python, types."""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_a_commit_is_checked_as_all_is() -> None:
    lines = (ROOT / "scripts" / "check").read_text("utf-8").splitlines()
    checks = [line.removesuffix(" .") for line in lines if not re.match(r"#|set|cd|PATH", line)]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    called = re.findall(r"entry: \.venv/bin/(.*)", hooks)
    assert [each.removesuffix(" --force-exclude") for each in called] == checks
    assert re.findall(r"name: (.*)", hooks) == checks


def test_the_package_says_that_it_has_types() -> None:
    assert resources.files("phosphene").joinpath("py.typed").is_file()


def test_the_oldest_python_is_the_one_checked_for() -> None:
    named = PROJECT["project"]["classifiers"]
    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(named))
    assert versions == ["3.11", "3.12", "3.13"]
    assert PROJECT["project"]["requires-python"] == f">={versions[0]}"
    assert PROJECT["tool"]["pyright"]["pythonVersion"] == versions[0]
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + versions[0].replace(".", "")


def test_what_one_stage_leaves_out_the_other_runs() -> None:
    assert '-m "not slow"' in (ROOT / "scripts" / "test").read_text("utf-8")
    assert re.search(r"-m slow$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    stages = re.findall(r"^make (\S+)", (ROOT / ".ci" / "run").read_text("utf-8"), re.MULTILINE)
    assert stages[:2] == ["test", "test-slow"]
