"""The Python reference: the public names of the package, and of the modules behind them."""

from __future__ import annotations

import importlib
import inspect

import phosphene
from phosphene.recipes.function import RecipeFunction

from .docstrings import converted
from .tables import toctree

# Modules that are documented, with the title of the page of each, and what of it is public where it
# does not say so itself.
MODULES: dict[str, tuple[str, tuple[str, ...]]] = {
    "phosphene.objectives": ("Objectives", ()),
    "phosphene.network": ("Networks", ("Network", "Layer", "pick_device", "has_fast_bf16")),
    "phosphene.zoo": (
        "Networks by name",
        ("load_network", "listing", "register_network", "NetworkInfo", "cache_folder"),
    ),
    "phosphene.image": (
        "Pictures",
        ("load_image", "load_mask", "read_image", "DecodedImage", "save_image", "read_recipe",
         "draw_sky", "resize", "luma"),
    ),
    "phosphene.films": (
        "Films", ("film_info", "read_film", "write_film", "FilmInfo", "Frame", "film_text"),
    ),
    "phosphene.jobs": ("Jobs: requests, events, replay", ()),
    "phosphene.transforms": ("Transforms of pictures", ("transform", "compose")),
    "phosphene.gradients": ("Transforms of gradients", ("gradient", "compose", "shares", "blend")),
    "phosphene.engine": ("The ascent", ("ascend", "Ascent", "Step")),
    "phosphene.state": ("Where a loop is", ("State",)),
    "phosphene.parameterization": (
        "What is optimised", ("Pixels", "Fourier", "MaCo", "natural_magnitude"),
    ),
    "phosphene.pyramid": ("Octaves", ("octave_count", "octave_sizes", "bases")),
    "phosphene.explain.layout": ("Pages", ("page", "pixels", "svg", "save_page")),
    "phosphene.recipes.base": (
        "Declaring recipes", ("Recipe", "Subject", "ImageInput", "Arguments", "Region", "register"),
    ),
    "phosphene.plugins": ("Plugins", ("load_plugin", "loaded_plugins", "LoadedPlugin", "Registry")),
    "phosphene.errors": ("Errors", ()),
}  # fmt: skip


def api_pages() -> dict[str, str]:
    """By the page's path."""
    pages = {"api/index.md": _index()}
    for module, (title, names) in documented().items():
        pages[f"api/{_file(module)}.rst"] = _module_page(module, title, names)
    return pages


def documented() -> dict[str, tuple[str, tuple[str, ...]]]:
    """`MODULES`, and a page for each other module that a public name comes from."""
    found = dict(MODULES)
    for name, module in phosphene.PUBLIC.items():
        if isinstance(getattr(phosphene, name), RecipeFunction) or _home(name):
            continue
        _, names = found.get(module, ("", ()))
        found[module] = (module.removeprefix("phosphene."), (*names, name))
    return found


def _file(module: str) -> str:
    return module.removeprefix("phosphene.").replace(".", "_")


def _index() -> str:
    """Every public name, with where it is described and its first line."""
    from .tables import table

    rows = []
    for name in sorted(phosphene.PUBLIC, key=str.lower):
        value = getattr(phosphene, name)
        if isinstance(value, RecipeFunction):
            where = f"../recipes/{value.recipe.name}.md"
        else:
            where = f"{_file(_home(name) or phosphene.PUBLIC[name])}.rst"
        first = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
        rows.append((f"[`phosphene.{name}`]({where})", first))
    return (
        "# In Python\n\n`import phosphene` imports nothing heavy; each name is imported when it is "
        "first asked for. An image is a float32 tensor `(N, 3, H, W)`, sRGB, in [0, 1].\n\n"
        + table(("name", "what it is"), rows)
        + "\n## The modules behind them\n\n"
        + toctree((_file(module) for module in documented()), hidden=False)
    )


def _home(name: str) -> str | None:
    """The module of `MODULES` that has a public name, if one has."""
    value = getattr(phosphene, name)
    for module, (_, names) in MODULES.items():
        if name not in _names(module, names):
            continue
        if getattr(importlib.import_module(module), name) is value:
            return module
    return None


def _names(module: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """What a page of a module describes, in order: those names, or all that it says are public."""
    loaded = importlib.import_module(module)
    if names:
        return names
    if hasattr(loaded, "__all__"):
        return tuple(loaded.__all__)
    return tuple(
        name for name, value in vars(loaded).items()
        if inspect.isclass(value) and value.__module__ == module and not name.startswith("_")
    )  # fmt: skip


def _module_page(module: str, title: str, names: tuple[str, ...]) -> str:
    loaded = importlib.import_module(module)
    about = converted((inspect.getdoc(loaded) or "").splitlines())
    parts = [title, "=" * len(title), "", f".. py:module:: {module}", "", *about, ""]
    for name in _names(module, names):
        parts += _member(module, name, getattr(loaded, name))
    return "\n".join(parts) + "\n"


def _member(module: str, name: str, value: object) -> list[str]:
    full = f"{module}.{name}"
    if inspect.isclass(value):
        bare = issubclass(value, BaseException)
        more = [] if bare else ["   :members:", "   :undoc-members:", "   :member-order: bysource"]
        return [f".. autoclass:: {full}", *more, ""]
    if inspect.isroutine(value):
        return [f".. autofunction:: {full}", ""]
    return [f".. autodata:: {full}", "   :no-value:", ""]
