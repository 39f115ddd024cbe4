"""Code of a user's own: loaded by name alone, told in what it made, and never by a stranger."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import phosphene as ph
from phosphene import jobs, transforms
from phosphene.chain import build_chain
from phosphene.cli import main
from phosphene.errors import PluginError, PluginWarning, RecipeError, RequestError, SettingsError
from phosphene.explain import cells
from phosphene.gradients import GRADIENTS
from phosphene.jobs import InputFile, Request
from phosphene.manifest import Manifest
from phosphene.objectives import OBJECTIVES
from phosphene.plugins import available, failed_plugins, loaded_plugins, loading
from phosphene.recipes.base import RECIPES, is_recipe
from phosphene.recipes.visualize import VisualizeSettings
from phosphene.settings import check_chains, checked
from phosphene.transforms import TRANSFORMS
from phosphene.zoo.registry import NETWORKS
from tests import command, toy_network
from tests.plugins import forget, forgotten

NET = ("--network", "tests.toy_network:net")
FAST = ("--octaves", "1", "--steps", "1", "--precision", "fp32")

OBJECTIVE = '''
from phosphene.objectives import Objective, cells, objective

@objective
def loudest(layer: str) -> Objective:
    """The strongest answer of a layer, anywhere."""
    return Objective((layer,), lambda a: cells(a, layer).flatten(1).amax(1))
'''
TRANSFORM = '''
from phosphene.transforms import transform

@transform
def mirror(p: float = 0.5):
    """Mirrored, by chance."""
    import torch
    def apply(image, generator):
        return image.flip(-1) if torch.rand((), generator=generator) < p else image
    return apply
'''
GRADIENT = '''
from phosphene.gradients import gradient

@gradient
def downhill():
    """The other way."""
    return lambda g: -g
'''
NETWORK = """
from phosphene.zoo import register_network

@register_network("mine", about="my own", licence="MIT", source="here")
def mine():
    from tests import toy_network
    return toy_network.net()
"""
RECIPE = '''
"""Make a photo glow."""
from pydantic import Field
from phosphene.recipes.base import ImageInput, Recipe, Subject, register
from phosphene.recipes.function import RecipeFunction
from phosphene.settings import Settings

class GlowSettings(Settings):
    """Every setting of a glow."""
    steps: int = Field(2, ge=1, le=100, description="Steps of the ascent.")

def glow_steps(arguments):
    import torch
    from phosphene.engine import Ascent, ascend
    from phosphene.evaluation.whole import whole
    from phosphene.parameterization import Pixels
    pixels, network = Pixels(arguments.images["photo"]), arguments.network
    return ascend(pixels, whole(network, arguments.objectives[0].bound(network)),
                  Ascent(pixels.parameters(), 0.1), steps=arguments.settings.steps,
                  generator=torch.Generator(), clamp=True)

GLOW = register(Recipe(
    name="glow", settings=GlowSettings, steps=glow_steps,
    subject=Subject("objective", "What glows.", positional=True),
    inputs=(ImageInput("photo", "A photo.", required=True, positional=True),),
    output_name="{photo}-glow", examples=("glow sky.jpg mixed4c",)))
glow = RecipeFunction(GLOW)
'''
ALL = RECIPE + OBJECTIVE + TRANSFORM + GRADIENT + NETWORK + '\n__version__ = "1.0"\n'


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PHOSPHENE_PLUGINS", raising=False)
    monkeypatch.setenv("PHOSPHENE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(available, "_looked_for_installed", True)
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    Image.effect_noise((32, 24), 80).convert("RGB").save("photo.png")
    with forgotten():
        yield tmp_path


@pytest.fixture
def glow(here: Path) -> Path:
    (here / "glow.py").write_text(ALL)
    return here / "glow.py"


def failed(text: str, name: str = "broken.py") -> str:
    """The line that a plugin of that text fails with; nothing of it stays."""
    registries = (OBJECTIVES, TRANSFORMS, GRADIENTS, NETWORKS, RECIPES)
    before = [dict(registry) for registry in registries]
    modules = set(sys.modules)
    Path(name).write_text(text)
    with pytest.raises(PluginError) as raised:
        ph.load_plugin(name)
    assert [dict(registry) for registry in registries] == before
    assert not [m for m in set(sys.modules) - modules if m.startswith("phosphene_plugin_")]
    line = str(raised.value)
    assert "\n" not in line
    return line


# --- loading ---------------------------------------------------------------------------------


def test_a_file_brings_what_it_registers(glow: Path) -> None:
    plugin = ph.load_plugin("glow.py")
    assert (plugin.name, plugin.module, plugin.version) == ("glow", "phosphene_plugin_glow", "1.0")
    assert plugin.sha256 == hashlib.sha256(glow.read_bytes()).hexdigest()
    assert plugin.files == (glow.resolve(),)
    assert plugin.registered == {
        "objective": ["loudest"],
        "transform": ["mirror"],
        "gradient transform": ["downhill"],
        "network": ["mine"],
        "recipe": ["glow"],
    }
    assert ph.parse("2*loudest(second)").text == "2*loudest(second)"
    assert ph.load_network("mine").name == "toy"
    net, photo = toy_network.net(), torch.rand(1, 3, 24, 32)
    assert ph.visualize(net, "second", size=16, steps=1, transforms="mirror(1)").shape[-1] == 16
    up = ph.dream(photo, net, "second", octaves=1, steps=1, precision="fp32", jitter=0)
    down = ph.dream(
        photo, net, "second", octaves=1, steps=1, precision="fp32", jitter=0,
        gradient_transforms="downhill",
    )  # fmt: skip
    inside = ((up - photo).abs() > 1e-6) & (up < 1) & (up > 0) & (down < 1) & (down > 0)
    assert inside.any()
    torch.testing.assert_close((up - photo)[inside], (photo - down)[inside])


def test_a_mirror_mirrors(glow: Path) -> None:
    ph.load_plugin(glow)
    image = torch.arange(12.0).view(1, 3, 2, 2)
    flipped = image.flip(-1)
    for text, expected in (
        ("mirror(1)", flipped),
        ("mirror(p=0)", image),
        ("mirror(1), mirror(1)", image),
        ("none, mirror(1)", flipped),
    ):
        chain = transforms.compose(*chain_of(text))
        assert torch.equal(chain(image, torch.Generator()), expected)


def chain_of(text: str) -> list[Any]:
    return build_chain(text, TRANSFORMS)


def test_it_is_loaded_once(glow: Path, here: Path) -> None:
    plugin = ph.load_plugin("glow.py")
    glow.write_text("raise RuntimeError")
    (here / "link.py").symlink_to(glow)
    for same in ("./glow.py", glow, str(glow)):
        assert ph.load_plugin(same) is plugin
    assert loaded_plugins().count(plugin) == 1


def test_its_classes_pickle(glow: Path) -> None:
    ph.load_plugin(glow)
    module: Any = sys.modules["phosphene_plugin_glow"]
    settings = module.GlowSettings(steps=3)
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert pickle.loads(pickle.dumps(module.glow)) is module.glow
    assert "phosphene_plugin_glow" not in os.listdir(glow.parent)
    assert not (glow.parent / "__pycache__").exists()


def test_two_files_of_a_name_are_refused(glow: Path, here: Path) -> None:
    ph.load_plugin(glow)
    (here / "other").mkdir()
    (here / "other" / "glow.py").write_text("")
    with pytest.raises(PluginError, match=r"'other/glow.py' has the name of '.*glow.py', which is"):
        ph.load_plugin("other/glow.py")
    with pytest.raises(PluginError, match="'glow' has the name of"):
        ph.load_plugin("glow")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import phosphene\nphosphene.nothing", "failed in line 2: AttributeError: module 'pho"),
        ("def", "failed in line 1: SyntaxError: invalid syntax"),
        (OBJECTIVE + "1/0", "failed in line 8: ZeroDivisionError: division by zero"),
        (ALL + "raise SystemExit(3)", "SystemExit: 3"),
        ("from .helper import x", "package of them, and name that, --plugin package.module"),
        ("import neighbour", "'neighbour'; a plugin's file imports no neighbour: make a package"),
        ("import nowhere_else", "ModuleNotFoundError: No module named 'nowhere_else'"),
        (OBJECTIVE.replace("loudest", "tv"), "there is an objective 'tv' already, from phosphene"),
        (TRANSFORM.replace("mirror", "robust"), "there is a transform 'robust' already"),
        (TRANSFORM.replace("mirror", "auto"), "a transform is not called auto"),
        (GRADIENT.replace("downhill", "clip"), "there is a gradient transform 'clip' already"),
        (ALL.replace('"mine"', '"vgg16"'), "there is a network 'vgg16' already"),
        (ALL.replace('name="glow"', 'name="invert"'), "there is a recipe 'invert' already, from"),
        (ALL.replace('name="glow"', 'name="a b"'), "a recipe's name is letters, digits, _ and -"),
    ],
)
def test_one_that_fails_says_why_and_takes_everything_back(text: str, told: str) -> None:
    Path("neighbour.py").write_text("")
    line = failed(text)
    assert line.startswith("the plugin 'broken.py' failed")
    assert told in line
    Path("broken.py").write_text(OBJECTIVE)  # and then it can be had
    assert ph.load_plugin("broken.py").registered == {"objective": ["loudest"]}


def test_a_name_of_another_plugin_is_taken(glow: Path) -> None:
    ph.load_plugin(glow)
    told = failed(TRANSFORM)
    assert "there is a transform 'mirror' already, from phosphene_plugin_glow" in told
    assert chain_of("mirror(1)")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("nowhere.py", "no plugin 'nowhere.py': No such file"),
        ("photo.png", "no plugin 'photo.png': no module 'photo', installed or in"),
        ("./photo.png", "a plugin's file has a plain name, with .py"),
        ("a\x1b[2J.py", "a plugin's file has a plain name, with .py"),
        ("no.where", "no module 'no', installed or in"),
        ("json.nowhere", "no module 'json.nowhere'"),
        ("a b", "expected FILE.py or package.module"),
        ("", "expected FILE.py or package.module"),
    ],
)
def test_what_is_no_plugin(source: str, told: str) -> None:
    with pytest.raises(PluginError) as raised:
        ph.load_plugin(source)
    assert told in str(raised.value)


@pytest.fixture
def package(here: Path) -> Path:
    folder = here / "my_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("from . import moves, more\n__version__ = '2.1'\n")
    (folder / "moves.py").write_text(TRANSFORM)
    (folder / "more.py").write_text(OBJECTIVE)
    return folder


def test_a_package_is_a_plugin(package: Path) -> None:
    plugin = ph.load_plugin("my_package")
    assert (plugin.name, plugin.version) == ("my_package", "2.1")
    assert plugin.registered == {"objective": ["loudest"], "transform": ["mirror"]}
    names = ("__init__.py", "more.py", "moves.py")
    hashes = [hashlib.sha256((package / name).read_bytes()).hexdigest() for name in names]
    whole = "".join(f"{name}\0{digest}\n" for name, digest in zip(names, hashes, strict=True))
    assert plugin.sha256 == hashlib.sha256(whole.encode()).hexdigest()
    assert {file.name for file in plugin.files} == set(names)


def test_a_package_that_fails_can_be_had_once_it_is_mended(package: Path) -> None:
    (package / "more.py").write_text("1/0")
    with pytest.raises(PluginError, match="'my_package' failed: ZeroDivisionError"):
        ph.load_plugin("my_package")
    assert "mirror" not in TRANSFORMS
    (package / "more.py").write_text(OBJECTIVE + "\n# mended\n")
    assert ph.load_plugin("my_package").registered["transform"] == ["mirror"]


def test_a_module_that_is_imported_already_is_its_plugin_s(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(package.parent)
    __import__("my_package")
    assert TRANSFORMS.owner("mirror") is None
    assert ph.load_plugin("my_package").registered == {
        "objective": ["loudest"],
        "transform": ["mirror"],
    }


# --- without being named ---------------------------------------------------------------------


@pytest.fixture
def installed(here: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def install(module: str = "phosphene_glow", text: str = ALL, value: str | None = None) -> None:
        site = here / "site"
        info = site / f"{module.replace('_', '-')}-3.2.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(text.replace('__version__ = "1.0"', ""))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 3.2\n")
        entry = f"[phosphene.plugins]\nshine = {value or module}\n"
        (info / "entry_points.txt").write_text(entry)
        monkeypatch.syspath_prepend(site)
        monkeypatch.setattr(available, "_looked_for_installed", False)

    return install


def test_an_installed_one_is_loaded_once_something_is_missing(
    installed: Callable[..., None],
) -> None:
    installed()
    ph.parse("tv() + second:1")
    check_chains(checked(VisualizeSettings, {"transforms": "robust"}))
    assert loaded_plugins() == []
    assert ph.parse("loudest(second)").text == "loudest(second)"
    (plugin,) = loaded_plugins()
    assert (plugin.name, plugin.version, plugin.way) == ("phosphene_glow", "3.2", "installed")


@pytest.mark.parametrize(
    "look",
    [
        lambda: is_recipe("glow"),
        lambda: NETWORKS.known("mine"),
        lambda: chain_of("mirror"),
        lambda: check_chains(checked(VisualizeSettings, {"transforms": "mirror"})),
        lambda: ph.load_network("mine"),
    ],
)
def test_whatever_is_missing(look: Callable[[], Any], installed: Callable[..., None]) -> None:
    installed()
    look()
    assert [plugin.name for plugin in loaded_plugins()] == ["phosphene_glow"]


def test_an_installed_one_that_fails_is_left_out(
    installed: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    installed(text="1/0")
    with pytest.warns(PluginWarning, match="'phosphene_glow' failed: ZeroDivisionError"):
        assert not is_recipe("glow")
    assert list(failed_plugins()) == ["shine"]
    available._looked_for_installed = False
    assert main(["plugins"]) == 0
    done = capsys.readouterr()
    assert done.err.startswith("phosphene: note: the plugin 'phosphene_glow' failed")
    assert "shine" in done.out


def test_an_entry_point_is_a_module(installed: Callable[..., None]) -> None:
    installed(value="phosphene_glow:GLOW")
    with pytest.warns(PluginWarning, match="a module was expected, 'phosphene_glow'"):
        assert not is_recipe("glow")


def test_the_variable_names_several(
    glow: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / "__init__.py").write_text("")
    monkeypatch.setenv("PHOSPHENE_PLUGINS", os.pathsep.join([glow.name, "my_package", ""]))
    assert is_recipe("glow")
    ways = [(plugin.name, plugin.way) for plugin in loaded_plugins()]
    assert ways == [("glow", "PHOSPHENE_PLUGINS"), ("my_package", "PHOSPHENE_PLUGINS")]
    monkeypatch.chdir("/")  # a relative path was meant from where it was
    assert not is_recipe("nothing")
    monkeypatch.setenv("PHOSPHENE_PLUGINS", "nowhere.py")
    with pytest.raises(PluginError, match=r"no plugin 'nowhere\.py'"):
        is_recipe("nothing")


def test_a_plugin_that_looks_for_something_loads_none(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "from phosphene.recipes.base import is_recipe\nassert not is_recipe('glow')\n"
    (here / "looks.py").write_text(text + TRANSFORM)
    monkeypatch.setenv("PHOSPHENE_PLUGINS", "looks.py")
    assert chain_of("mirror")
    assert [plugin.name for plugin in loaded_plugins()] == ["looks"]


def test_nothing_installed_imports_nothing() -> None:
    code = (
        "import sys; from phosphene.cli import main; main(['--help'])\n"
        "names = {'importlib.metadata', 'phosphene.plugins.loading', 'torch', 'pydantic', 'lark'}\n"
        "print(sorted(names & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


# --- the command line ------------------------------------------------------------------------


@pytest.mark.usefixtures("glow")
def test_a_plugin_s_recipe_is_a_verb_wherever_the_flag_stands(here: Path) -> None:
    done = command.run("--plugin", "glow.py", "--help", cwd=here)
    assert done.code == 0
    assert "Make a photo glow." in done.out
    done = command.run("glow", "--help", "--plugin=glow.py", cwd=here)
    assert "--steps INT" in done.out
    assert "phosphene glow sky.jpg mixed4c" in done.out
    words = ("glow", "photo.png", "loudest(second)", *NET)
    done = command.run(*words, "--plugin", "glow.py", cwd=here)
    assert (done.code, done.out) == (0, "photo-glow.png\n"), done.err
    done = command.run(*words, "-o", "b.png", cwd=here)
    assert done.code == 2
    assert 'Unknown command "glow"' in done.err
    done = command.run(*words, "-o", "b.png", "--plugin", cwd=here)
    assert (done.code, "--plugin needs a FILE.py" in done.err) == (2, True)
    done = command.run(*words, "-o", "b.png", "--plugin", "nowhere.py", cwd=here)
    assert done.code == 1
    assert done.err == "phosphene: no plugin 'nowhere.py': No such file or directory\n"
    assert not (here / "b.png").exists()


@pytest.mark.slow
def test_the_variable_and_an_installed_package_bring_verbs(
    glow: Path, installed: Callable[..., None], here: Path
) -> None:
    """In processes of their own, that begin with nothing."""
    installed(text=TRANSFORM)
    path = os.pathsep.join([str(here / "site"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "PHOSPHENE_PLUGINS": str(glow)}

    def out(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "phosphene", *words],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout

    glow.write_text(RECIPE)
    assert "Make a photo glow." in out("--help")
    listed = out("plugins")
    assert "PHOSPHENE_PLUGINS" in listed
    assert "recipe glow" in listed
    assert "transform mirror" in listed
    assert "3.2" in listed


@pytest.mark.usefixtures("glow")
def test_listings_show_it(capsys: pytest.CaptureFixture[str]) -> None:
    for verb, told in (
        ("plugins", "recipe glow"),
        ("objectives", "loudest(layer)"),
        ("transforms", "mirror(p=0.5)"),
        ("transforms", "downhill()"),
        ("networks", "my own"),
        ("layers mine", "second"),
    ):
        assert main([*verb.split(), "--plugin", "glow.py"]) == 0
        assert told in capsys.readouterr().out
    assert main(["plugins", "--help"]) == 0
    assert "--plugin" in capsys.readouterr().out


def test_a_traceback_comes_with_debug_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.py").write_text("1/0")
    assert main(["plugins", "--plugin", "broken.py"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["plugins", "--plugin", "broken.py", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_what_stands_after_two_dashes_is_no_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["visualize", *NET, "--", "--plugin", "glow.py"]) == 1
    assert "toy has no layer 'plugin'" in capsys.readouterr().err


def test_a_recipe_with_the_name_of_a_verb_is_no_verb(
    glow: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    glow.write_text(ALL.replace('name="glow"', 'name="replay"'))
    assert main(["replay", "--help", "--plugin", "glow.py"]) == 0
    done = capsys.readouterr()
    assert "Make again what a picture's recipe says" in done.out
    assert done.err == (
        "phosphene: note: the recipe 'replay' is no verb, since there is another one of that name\n"
    )


# --- what is written down --------------------------------------------------------------------


def plugins_in(path: str) -> list[str]:
    return [plugin.name for plugin in Manifest.read(path).plugins]


def test_what_was_needed_is_written_down(glow: Path, here: Path) -> None:
    (here / "other.py").write_text(OBJECTIVE.replace("loudest", "quiet"))
    both = ("--plugin", "glow.py", "--plugin", "other.py", "--force")
    dream = ("dream", "photo.png", "-o", "a.png", *FAST, *both)
    drawn = ("visualize", "second", "--size", "16", "--steps", "1", "-o", "a.png", *both, *NET)
    for words, needed in (
        ((*dream, *NET, "--objective", "second"), []),
        ((*dream, *NET, "--objective", "second + 2*loudest(second)"), ["glow"]),
        ((*dream, *NET, "--objective", "quiet(second) - loudest(second)"), ["glow", "other"]),
        ((*dream, *NET, "--objective", "second", "--gradient-transforms", "downhill"), ["glow"]),
        ((*dream, "--network", "mine", "--objective", "second"), ["glow"]),
        ((*drawn, "--transforms", "mirror, robust"), ["glow"]),
        (drawn, []),
        (("glow", "photo.png", "second", "-o", "a.png", *both, *NET), ["glow"]),
    ):
        assert main([*words]) == 0, words
        assert plugins_in("a.png") == needed, words
    (record,) = Manifest.read("a.png").plugins
    assert record.version == "1.0"
    assert record.sha256 == hashlib.sha256(glow.read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("glow", "photo.png", "second"),
        ("dream", "photo.png", "--objective", "loudest(second)", *FAST),
        ("visualize", "second", "--transforms", "mirror", "--size", "16", "--steps", "1"),
    ],
)
@pytest.mark.usefixtures("glow")
def test_a_stranger_s_recipe_or_request_loads_none(words: tuple[str, ...], here: Path) -> None:
    flag = ("--plugin", "glow.py")
    saved = ("--save-request", "job.json", "-o", "a.png")
    assert command.run(*words, *flag, *saved, *NET, cwd=here).code == 0
    (here / "glow.py").write_text(ALL + "\nopen('ran', 'w').close()\n")
    done = command.run("run", "job.json", *NET, "-o", "b.png", cwd=here)
    told = "needs the plugin glow, which is not loaded, and starts no code by itself: if you trust"
    assert (done.code, done.out) == (1, "")
    assert done.err == f"phosphene: the request {told} it, add --plugin glow.py\n"
    done = command.run("replay", "a.png", *NET, cwd=here)
    assert (done.code, done.out) == (1, "")
    assert done.err == f"phosphene: the recipe {told} it, add --plugin glow.py\n"
    assert not (here / "ran").exists()
    assert not (here / "b.png").exists()
    # What it names is another one by now: told, and it goes on.
    done = command.run("run", "job.json", *NET, "-o", "b.png", *flag, cwd=here)
    assert done.code == 0
    other = "the plugin glow is another than was asked for: 1.0 (SHA-256 "
    assert other in done.err
    assert (here / "ran").exists()
    done = command.run("replay", "a.png", *NET, *flag, cwd=here)
    assert (done.code, other in done.err) == (0, True)


def test_a_replay_that_differs_names_the_plugin(
    glow: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["dream", "photo.png", *NET, *FAST, "--objective", "loudest(second)"]
    assert main([*words, "--plugin", "glow.py"]) == 0
    old = loading._loaded["phosphene_plugin_glow"]
    forget(old)
    glow.write_text(ALL.replace("amax(1))", "amin(1))").replace('"1.0"', '"1.1"'))
    assert main(["replay", "photo-dream.png", *NET, "--plugin", "glow.py"]) == 3
    new = hashlib.sha256(glow.read_bytes()).hexdigest()
    assert (
        f"plugin glow 1.0 (SHA-256 {(old.sha256 or '')[:12]}…) -> 1.1 (SHA-256 {new[:12]}…)"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("asked", [{}, {"version": "1.0"}, {"version": "0.9"}])
def test_a_request_is_told_of_another_version_only(
    asked: dict[str, str], glow: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = {"photo": InputFile(path="photo.png")}
    ph.load_plugin(glow)
    request = Request(recipe="glow", inputs=photo, objectives=("second",), network=NET[1])
    whole = json.loads(request.text()) | {"plugins": [{"name": "glow", **asked}]}
    Path("job.json").write_text(json.dumps(whole))
    assert main(["run", "job.json", *NET, "--plugin", "glow.py", "-o", "a.png"]) == 0
    told = "1.0 (SHA-256 " in (err := capsys.readouterr().err) and "instead of 0.9" in err
    assert told == (asked.get("version") == "0.9")
    assert plugins_in("a.png") == ["glow"]


def test_a_request_whose_recipe_is_not_there_says_what_it_needs(glow: Path) -> None:
    ph.load_plugin(glow)
    photo = {"photo": InputFile(path="photo.png")}
    request = Request(recipe="glow", inputs=photo, objectives=("second",))
    assert [plugin.name for plugin in request.needed_plugins()] == ["glow"]
    request = request.model_copy(update={"plugins": request.needed_plugins()})
    text = request.text()
    assert Request.parse(text) == request
    forget(loading._loaded["phosphene_plugin_glow"])
    with pytest.raises(RequestError, match=r"needs the plugin glow, .* add --plugin glow.py$"):
        Request.parse(text)
    several = json.loads(text) | {"plugins": [{"name": "a.b"}, {"name": "it's"}]}
    with pytest.raises(RequestError, match=r"plugins a\.b, it's, which are not loaded") as raised:
        Request(**several)
    assert "add --plugin a.b --plugin 'it'\"'\"'s.py'" in str(raised.value)
    for version in ("1\x1b[2J", "1" * 200):
        plugin = {"name": "a", "version": version}
        with pytest.raises(RequestError, match="is no whole request"):
            Request.parse(json.dumps(several | {"plugins": [plugin]}))
    for name in ("a/b", "\x1b[2J", ".."):
        with pytest.raises(RequestError, match="is no whole request"):
            Request.parse(json.dumps(several | {"plugins": [{"name": name}]}))


def test_the_key_has_the_plugins_that_are_needed(
    glow: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phosphene.jobs.request.NUMERICS", 1)
    defaults_then = {"natural": 0, "laplacian": 0, "smooth": 0.5, "smallest_octave": 2}

    def key(*objectives: str, **settings: Any) -> str:
        settings = defaults_then | settings
        photo = {"photo": InputFile(path="photo.png", sha256="1" * 64)}
        asked = Request(recipe="dream", inputs=photo, objectives=objectives, settings=settings)
        return asked.key("0" * 64)

    def without() -> list[str]:
        return [key("mixed4a"), key("mixed4a", gradient_transforms="")]

    before = without()
    # As it was before there were plugins, and a setting for gradient transforms.
    assert set(before) == {"d3e1693c7939f01ce511d2888ad5021dce930baedb95b2c0467d130fd9117f0d"}
    ph.load_plugin(glow)
    assert without() == before
    texts = {"objective": "loudest(mixed4a)", "gradient": "downhill"}
    keys = [key(texts["objective"]), key("mixed4a", gradient_transforms="downhill")]
    assert len({*keys, *before}) == 3
    forget(loading._loaded["phosphene_plugin_glow"])
    glow.write_text(ALL + "# another\n")
    ph.load_plugin(glow)
    again = [key(texts["objective"]), key("mixed4a", gradient_transforms="downhill")]
    assert not {*keys} & {*again}
    assert without() == before


@pytest.mark.parametrize(
    ("recipe", "subject", "settings", "expected"),
    [
        ("sheet", {"layers": ("mixed4c",)}, {}, "8adc5d4aa406bf1c06f8971f426086805785d0b9909e6900d4"
         "dda2a28dcfb283"),
        ("visualize", {"objectives": ("mixed4c:1",)}, {"transforms": "gentle"},
         "a84fde346eaa5a112b049dbcd48d0d30f9aecee0493b8debbe15b86df98a6667"),
    ],
)  # fmt: skip
def test_keys_stay_as_they_were(
    recipe: str,
    subject: dict[str, Any],
    settings: dict[str, Any],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("phosphene.jobs.request.NUMERICS", 1)
    settings = {"framing": "detail", "low_pass": 0, **settings}  # what it was, then
    assert Request(recipe=recipe, settings=settings, **subject).key("0" * 64) == expected


def test_cells_of_one_version_are_not_taken_for_another(glow: Path) -> None:
    net, settings = toy_network.net(), {"transforms": "mirror", "size": 16}
    plain = cells._cell_cache(net, checked(VisualizeSettings, {"size": 16}))
    assert "plugins" not in plain.depends
    ph.load_plugin(glow)
    assert cells._cell_cache(net, checked(VisualizeSettings, {"size": 16})).depends == plain.depends
    found = cells._cell_cache(net, checked(VisualizeSettings, settings)).depends
    assert found["plugins"] == [["glow", hashlib.sha256(glow.read_bytes()).hexdigest()]]


def test_nothing_is_written_over_a_plugin(glow: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = glow.read_bytes()
    Path("link.png").hardlink_to(glow)
    words = ["glow", "photo.png", "second", *NET, "--plugin", "glow.py", "--force"]
    for more in (["--recipe", "glow.py"], ["--save-request", "glow.py"], ["-o", "link.png"]):
        assert main([*words, *more]) == 2
        assert "is the plugin glow itself, which is never replaced" in capsys.readouterr().err
    assert glow.read_bytes() == before


# --- chains in settings ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("robust", "robust"),
        (" robust,jitter( 8,wrap = FALSE ), ", "robust, jitter(8, wrap=false)"),
        ("crops(.5e1, size=[9,9])", "crops(5.0, size=[9, 9])"),
        ("pad(2, 'reflect'), a.b/c()", 'pad(2, "reflect"), a.b/c'),
        ("auto", "auto"),
    ],
)
def test_a_chain_has_one_form(given: str, canonical: str) -> None:
    assert checked(VisualizeSettings, {"transforms": given}).transforms == canonical
    assert checked(VisualizeSettings, {"transforms": canonical}).transforms == canonical


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("", "there is no transform in the text"),
        ("robust gentle", "at character 8, near 'gentle': expected"),
        ("robust, auto", "auto stands alone"),
        ("__import__('os').system('x')", "means nothing here"),
        ("2*robust", "expected a name"),
        ("jitter(1, 2", "at the end: expected"),
        ("jitter(wrap=true, 8)", "arguments without a name come first"),
    ],
)
def test_a_chain_that_cannot_be_read(given: str, told: str) -> None:
    with pytest.raises(SettingsError) as raised:
        checked(VisualizeSettings, {"transforms": given})
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            "robust, genle",
            "at character 9, near 'genle': there is no transform 'genle'; the",
        ),
        ("jitter", "missing a required argument: 'pixels'; it is jitter(pixels, wrap=true)"),
        ("jitter(-1)", "jitter is -1 px"),
        ("robust(1)", "too many positional arguments; it is robust()"),
    ],
)
def test_names_are_checked_before_anything_is_computed(given: str, told: str) -> None:
    settings = checked(VisualizeSettings, {"transforms": given})
    with pytest.raises(SettingsError) as raised:
        ph.visualize(toy_network.net(), "second:1", transforms=given)
    assert told in str(raised.value)
    request = Request(recipe="visualize", objectives=("second:1",), network="no such network",
                      settings=settings.model_dump(mode="json"))  # fmt: skip
    with pytest.raises(SettingsError):
        jobs.prepare(request)


def test_a_factory_that_gives_nothing_is_told() -> None:
    Path("empty.py").write_text(TRANSFORM.replace("    return apply\n", ""))
    ph.load_plugin("empty.py")
    with pytest.raises(SettingsError, match=r"mirror\(p=0.5\) gave a NoneType, and no transform"):
        check_chains(checked(VisualizeSettings, {"transforms": "mirror"}))


def test_a_recipe_that_lacks_the_setting_replays(here: Path) -> None:
    words = ("dream", "photo.png", *NET, *FAST, "--objective", "second", "--recipe", "r.json")
    assert main([*words, "-o", "a.png"]) == 0
    recipe = json.loads(Path("r.json").read_text())
    assert recipe["settings"].pop("gradient_transforms") == ""
    Path("r.json").write_text(json.dumps(recipe))
    assert main(["replay", "r.json", *NET]) == 0
    recipe["settings"]["gradient_transforms"] = "smooth("
    damaged = Manifest.parse(json.dumps(recipe))
    with pytest.raises(RecipeError, match="do not hold here: gradient transforms"):
        damaged.checked_settings()
