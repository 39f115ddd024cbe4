"""`phosphene visualize`, `caricature`, `invert`, `accentuate` and `style`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from phosphene.cli.common import (
    EACH,
    OUT,
    Target,
    Telling,
    job_of,
    named_pictures,
    outputs_of,
    read_picture,
    refuse_inputs,
    run,
    targets,
    weights_of,
)
from phosphene.cli.flags import with_settings
from phosphene.errors import SettingsError
from phosphene.recipes.visualize_settings import (
    AccentuateSettings,
    CaricatureSettings,
    InvertSettings,
    StyleSettings,
    VisualizeSettings,
)
from phosphene.settings import checked

if TYPE_CHECKING:
    from torch import Tensor

    from phosphene.manifest import Input
    from phosphene.objectives import Objective

WHAT = Group("What to draw", sort_key=1)
HOW = Group("How", sort_key=2)

LONGEST_NAME = 60  # characters of a file's name that an objective's text gives

Network = Annotated[str, Parameter(group=WHAT)]
Layers = Annotated[
    list[str],
    Parameter(group=WHAT, negative=(), show_default=lambda _: "one of things, not of edges"),
]


def output_flag(default: str) -> Parameter:
    """-o, with what is told of its default."""
    return Parameter(name=["--output", "-o"], group=OUT, show_default=lambda _: default)


@with_settings(VisualizeSettings, HOW)
def visualize(
    *objective: Annotated[str, Parameter(group=WHAT)],
    network: Network = "dreamnet",
    negative: Annotated[bool, Parameter(group=WHAT, negative=(), show_default=False)] = False,
    start: Annotated[Path | None, Parameter(group=WHAT, show_default=lambda _: "noise")] = None,
    output: Annotated[
        Path | None, output_flag("OBJECTIVE.png, or visualize.png of several")
    ] = None,
    transparent: Annotated[bool, Parameter(group=OUT, negative=(), show_default=False)] = False,
    telling: Telling = Telling(),  # noqa: B008
    **settings: Any,
) -> int:
    """Draw what a unit of a network responds to, from noise.

    Parameters
    ----------
    objective
        What to draw, such as mixed4c:12, logits:dumbbell or "mixed4c:12 + mixed4d:3": see
        phosphene layers and objectives. Of several, each gets a picture.
    network
        A name: see phosphene networks.
    negative
        Draw what each objective responds to least: minus it.
    start
        A picture to start from.
    output
        .png, .jpg, .webp or .tif; the recipe lies inside. Several pictures lie side by side in it;
        with {} in its name, such as "{}.png", each gets a file, called after its objective.
    transparent
        Of --parameterization maco: show only where the network cared.
    """
    chosen = checked(VisualizeSettings, settings)
    if not objective:
        raise SettingsError("nothing to draw: phosphene visualize OBJECTIVE, such as mixed4c:12")
    if transparent and chosen.parameterization != "maco":
        raise SettingsError("--transparent needs --parameterization maco, which alone has a mask")
    from phosphene import spec

    goals = [-spec.parse(text) if negative else spec.parse(text) for text in objective]
    if output is None:
        output = Path(f"{file_name(goals[0].text)}.png" if len(goals) == 1 else "visualize.png")
    return _drawn(
        "visualize", chosen, network, output, telling, {"photo": start} if start else {},
        goals=goals, transparent=transparent,
    )  # fmt: skip


@with_settings(CaricatureSettings, HOW)
def caricature(
    photo: Annotated[Path, Parameter(group=WHAT)],
    /,
    *,
    layer: Layers | None = None,
    network: Network = "dreamnet",
    output: Annotated[Path | None, output_flag("PHOTO-caricature.png")] = None,
    telling: Telling = Telling(),  # noqa: B008
    **settings: Any,
) -> int:
    """Draw what a layer sees in a photo, larger than life.

    Parameters
    ----------
    photo
        A JPEG, PNG, WebP, TIFF, BMP or GIF.
    layer
        Its name: see phosphene layers. May be given several times; each gets a picture.
    network
        A name: see phosphene networks.
    output
        .png, .jpg, .webp or .tif; the recipe lies inside. Several pictures lie side by side in it;
        with {} in its name, such as "{}.png", each gets a file, called after its layer.
    """
    chosen = checked(CaricatureSettings, settings)
    output = output or beside(photo, "caricature")
    return _drawn(
        "caricature", chosen, network, output, telling, {"photo": photo}, layers=layer or ()
    )


@with_settings(InvertSettings, HOW)
def invert(
    photo: Annotated[Path, Parameter(group=WHAT)],
    /,
    *,
    layer: Layers | None = None,
    network: Network = "dreamnet",
    output: Annotated[Path | None, output_flag("PHOTO-invert.png")] = None,
    telling: Telling = Telling(),  # noqa: B008
    **settings: Any,
) -> int:
    """Draw what a layer still knows of a photo, from its activations alone.

    Parameters
    ----------
    photo
        A JPEG, PNG, WebP, TIFF, BMP or GIF.
    layer
        Its name: see phosphene layers. May be given several times; each gets a picture.
    network
        A name: see phosphene networks.
    output
        .png, .jpg, .webp or .tif; the recipe lies inside. Several pictures lie side by side in it;
        with {} in its name, such as "{}.png", each gets a file, called after its layer.
    """
    chosen = checked(InvertSettings, settings)
    output = output or beside(photo, "invert")
    return _drawn("invert", chosen, network, output, telling, {"photo": photo}, layers=layer or ())


@with_settings(AccentuateSettings, HOW)
def accentuate(
    photo: Annotated[Path, Parameter(group=WHAT)],
    objective: Annotated[str, Parameter(group=WHAT)],
    /,
    *,
    network: Network = "dreamnet",
    output: Annotated[Path | None, output_flag("PHOTO-accentuate.png")] = None,
    telling: Telling = Telling(),  # noqa: B008
    **settings: Any,
) -> int:
    """Show in a photo what excites a unit there, and change it no more than that takes.

    Parameters
    ----------
    photo
        A JPEG, PNG, WebP, TIFF, BMP or GIF. Transparency is kept.
    objective
        The unit, such as mixed4c:12 or logits:dumbbell: see phosphene layers and objectives.
    network
        A name: see phosphene networks.
    output
        .png, .jpg, .webp or .tif; the recipe lies inside.
    """
    chosen = checked(AccentuateSettings, settings)
    from phosphene import spec

    output = output or beside(photo, "accentuate")
    goals = [spec.parse(objective)]
    return _drawn("accentuate", chosen, network, output, telling, {"photo": photo}, goals=goals)


@with_settings(StyleSettings, HOW)
def style(
    photo: Annotated[Path, Parameter(group=WHAT)],
    painting: Annotated[Path, Parameter(group=WHAT)],
    /,
    *,
    painting_size: Annotated[
        int | None,
        Parameter(group=WHAT, allow_leading_hyphen=True, show_default=lambda _: "the result's"),
    ] = None,
    network: Network = "dreamnet",
    output: Annotated[Path | None, output_flag("PHOTO-style.png")] = None,
    telling: Telling = Telling(),  # noqa: B008
    **settings: Any,
) -> int:
    """Draw the things of a photo in the textures of a painting.

    Parameters
    ----------
    photo
        A JPEG, PNG, WebP, TIFF, BMP or GIF. Transparency is kept.
    painting
        Another one, whose textures are taken.
    painting_size
        Longest side in px to which the painting is resized: its textures grow with it.
    network
        A name: see phosphene networks.
    output
        .png, .jpg, .webp or .tif; the recipe lies inside.
    """
    chosen = checked(StyleSettings, settings)
    if painting_size is not None and painting_size < 1:
        raise SettingsError(f"painting size is {painting_size}; it must be 1 px or more")
    output = output or beside(photo, "style")
    return _drawn(
        "style",
        chosen,
        network,
        output,
        telling,
        {"photo": photo, "painting": painting},
        painting_size=painting_size,
    )


# --- what they share -------------------------------------------------------------------------


def _drawn(
    recipe: str,
    settings: VisualizeSettings,
    network: str,
    output: Path,
    telling: Telling,
    pictures: dict[str, Path],
    *,
    goals: Sequence[Objective] = (),
    layers: Sequence[str] = (),
    painting_size: int | None = None,
    transparent: bool = False,
) -> int:
    """Draw by that recipe and write it: one exit code."""
    from phosphene import image as images
    from phosphene.manifest import RECIPES, Order
    from phosphene.recipes.stages import middle
    from phosphene.recipes.style import style_size
    from phosphene.zoo import load_network

    voice = telling.voice()
    for path in pictures.values():
        if not path.is_file():
            images.read_image(path)  # tells what is wrong, before anything else is
    inputs_named = pictures | weights_of(network)
    files = (
        _files(output, telling, inputs_named, goals, layers, settings.batch)
        if goals or layers or EACH not in str(output)
        else []
    )
    with voice.hearing_warnings():
        net = load_network(network)
        voice.detail(repr(net))
        if "layers" in RECIPES[recipe].needs and not layers:
            layers = [middle(net)]
            voice.detail(f"layer {layers[0]}")
        files = files or _files(output, telling, inputs_named, goals, layers, settings.batch)
        pixels: dict[str, Tensor] = {}
        inputs: dict[str, Input] = {}
        alpha = None
        for role, path in pictures.items():
            size = None
            if role == "painting":
                size = painting_size or max(style_size(settings, pixels["photo"]))
            picture, inputs[role] = read_picture(path, voice, size)
            pixels[role] = picture.pixels
            if role == "photo" and RECIPES[recipe].alpha:
                alpha = picture.alpha
        texts, named = named_pictures(goals, files)
        order = Order(net, settings, tuple(goals), tuple(layers), pixels)
        from_photo = bool(pictures) and "layers" not in RECIPES[recipe].needs
        job = job_of(
            recipe,
            network,
            order,
            start="photo" if from_photo else "noise",
            texts=texts,
            inputs=inputs | named,
            alpha=alpha,
            transparent=transparent,
        )
        for text in [*texts, *layers]:
            voice.detail(f"{recipe} {text}, seed {settings.seed}")
        if (transparent or alpha is not None) and output.suffix.lower() in (".jpg", ".jpeg"):
            voice.note("JPEG has no transparency: the result is laid over white")
        return run(job, files, voice, force=telling.force)


def _files(
    output: Path,
    telling: Telling,
    inputs: dict[str, Path],
    goals: Sequence[Objective],
    layers: Sequence[str],
    batch: int,
) -> list[Target]:
    files = targets(output, telling, picture_names([g.text for g in goals] or layers, batch))
    refuse_inputs(outputs_of(files), inputs)
    return files


def beside(photo: Path, verb: str) -> Path:
    """Where a picture goes that is made from a photo."""
    return photo.with_name(f"{photo.stem}-{verb}.png")


def picture_names(texts: Sequence[str], batch: int) -> list[str]:
    """A file's name, without its suffix, for each picture; no two alike.

    >>> picture_names(["mixed4c:12", "-logits:dumbbell"], 1)
    ['mixed4c-12', 'logits-dumbbell-negative']
    """
    bare = [file_name(text) for text in texts]
    named: list[str] = []
    for k, name in enumerate(bare):
        unique = name if bare.count(name) == 1 else f"{name}-{k + 1}"
        named += [unique] if batch == 1 else [f"{unique}-{n + 1}" for n in range(batch)]
    return named


def file_name(text: str) -> str:
    """An objective's text as a file's name.

    >>> file_name("2*mixed4b + mixed4d:42,17")
    '2-mixed4b-mixed4d-42-17'
    """
    bare = re.sub(r"[^\w.]+", "-", text).strip("-.")[:LONGEST_NAME].rstrip("-.") or "picture"
    return f"{bare}-negative" if text.startswith("-") else bare
