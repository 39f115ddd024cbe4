"""The documentation: what is made of docstrings and links, and the whole site, in a browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

ROOT = Path(__file__).parents[1]
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)

# Hosts that Chromium asks for by itself, on a blank page, too.
CHROMIUMS_OWN = {
    "accounts.google.com",
    "clients2.google.com",
    "optimizationguide-pa.googleapis.com",
    "redirector.gvt1.com",
    "update.googleapis.com",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from a copy of the sources, so that nothing is left in them."""
    for module in ("sphinx", "myst_nb", "furo"):
        pytest.importorskip(module, reason="the group docs is not installed")
    copy = tmp_path_factory.mktemp("tree")
    ignored = shutil.ignore_patterns("_build", "reference", "lessons", "project")
    shutil.copytree(ROOT / "docs", copy / "docs", ignore=ignored)
    for name in ("benchmarks/results", "lessons"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name)
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, copy / name)
    target = copy / "html"
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", copy / "docs", target],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


class Page(HTMLParser):
    """What a page asks for by itself, where its links go, and the anchors that it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        self.asked += [found[name] for name in ("src", "srcset", "data", "poster") if name in found]
        if tag == "link":
            self.asked.append(found.get("href", ""))
        elif tag == "a":
            self.links.append(found.get("href", ""))


def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


@pytest.mark.slow
def test_no_page_asks_for_anything_from_another_host(site: Path) -> None:
    remote = re.compile(r"^\s*(https?:)?//")
    found = pages(site)
    assert len(found) > 50
    for path, page in found.items():
        assert [asked for asked in page.asked if remote.match(asked)] == [], path
        style = re.findall(r"<style.*?</style>", path.read_text(encoding="utf-8"), re.DOTALL)
        assert not any("://" in text for text in style), path
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"@import[^;]*//|url\(\s*['\"]?(https?:)?//", text), path


@pytest.mark.slow
def test_every_link_within_the_site_has_its_page_and_its_anchor(site: Path) -> None:
    found, broken, count = pages(site), [], 0
    for path, page in found.items():
        for link in page.links:
            if re.match(r"\w+:", link):
                continue
            count += 1
            inner, anchor = urldefrag(link)
            target = (path.parent / unquote(inner)).resolve() if inner else path
            known = found.get(target)
            if not target.is_file() or (anchor and known and unquote(anchor) not in known.anchors):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert count > 1000
    assert broken == []


@pytest.mark.slow
def test_the_reference_has_every_public_name_setting_and_verb(site: Path) -> None:
    import phosphene
    from phosphene.objectives import OBJECTIVES
    from phosphene.recipes.base import recipe_named, recipe_names

    def text(name: str) -> str:
        return (site / "reference" / name).read_text(encoding="utf-8")

    public = text("api/index.html")
    for name in phosphene.PUBLIC:  # pyright: ignore[reportAttributeAccessIssue]
        assert f"phosphene.{name}<" in public, name
    for recipe in recipe_names():
        page = Page(site / "reference" / "recipes" / f"{recipe}.html")
        words = text(f"recipes/{recipe}.html")
        for setting in recipe_named(recipe).settings.model_fields:
            assert f'<span class="pre">{setting}</span>' in words, (recipe, setting)
        assert any(anchor.startswith("phosphene.") for anchor in page.anchors), recipe
    anchors = Page(site / "reference" / "objectives.html").anchors
    assert {name.replace("_", "-") for name in OBJECTIVES} <= anchors


def browsed(address: str, folder: Path) -> tuple[str, set[str]]:
    """The page as a browser has it once its scripts have run, and the hosts that were asked for.

    No name is looked up: what asks for one is noted, and gets nothing.
    """
    log = folder / "net.json"
    done = subprocess.run(
        [
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu",
            "--disable-background-networking", "--disable-component-update", "--no-first-run",
            "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder}/profile",
            "--virtual-time-budget=8000", f"--log-net-log={log}", "--dump-dom", address,
        ],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    asked = re.findall(r'"url":"(?:https?|wss?)://([^/"]*)', log.read_text(encoding="utf-8"))
    return done.stdout, set(asked)


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here")
def test_search_works_from_the_disk_and_nothing_leaves_the_machine(
    site: Path, tmp_path: Path
) -> None:
    found, asked = browsed(f"{site.as_uri()}/search.html?q=jitter", tmp_path)
    assert re.search(r"found \d+ pages? matching", found)
    assert "recipes/dream.html" in found
    assert asked <= CHROMIUMS_OWN
    index, asked = browsed(f"{site.as_uri()}/index.html", tmp_path)
    assert "See what a neural network sees." in index
    assert 'data-theme="auto"' in index  # its scripts have run
    assert asked <= CHROMIUMS_OWN
