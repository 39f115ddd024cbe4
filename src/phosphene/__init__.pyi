"""phosphene: see what a neural network sees."""

# Made from the recipes' declarations by scripts/make_stubs.

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from PIL.Image import Image
from torch import Tensor

from phosphene import jobs as jobs
from phosphene import objectives as objectives
from phosphene.errors import PhospheneError as PhospheneError
from phosphene.explain.grids import Grid
from phosphene.explain.grids import GridStep
from phosphene.explain.layout import page as page
from phosphene.explain.octaves import Pyramid
from phosphene.explain.octaves import PyramidStep
from phosphene.explain.panels import PanelStep
from phosphene.explain.panels import Panels
from phosphene.explain.sheets import Sheet
from phosphene.explain.sheets import SheetStep
from phosphene.explain.story import Story
from phosphene.explain.story import StoryStep
from phosphene.explain.units import Card
from phosphene.explain.units import CardStep
from phosphene.explain.watching import WatchStep
from phosphene.films import film_info as film_info
from phosphene.films import read_film as read_film
from phosphene.films import write_film as write_film
from phosphene.films.frames import Frame
from phosphene.gradients import gradient as gradient
from phosphene.image import draw_sky as draw_sky
from phosphene.image import load_image as load_image
from phosphene.image import save_image as save_image
from phosphene.network import Network as Network
from phosphene.notebook import show as show
from phosphene.objectives import Objective as Objective
from phosphene.objectives import objective as objective
from phosphene.objectives import parse as parse
from phosphene.plugins import load_plugin as load_plugin
from phosphene.recipes.steps.dream import DreamStep
from phosphene.recipes.steps.frames import FrameStep
from phosphene.recipes.steps.visualize import VisualizeStep
from phosphene.state import State as State
from phosphene.transforms import transform as transform
from phosphene.zoo import load_network as load_network
from phosphene.zoo import register_network as register_network

__version__: str

class _accentuate:
    def __call__(
        self,
        photo: Tensor | str | Path | Image,
        network: Network | str,
        objective: Objective | str,
        *,
        state: State | None = None,
        size: Literal['auto'] | int = 'auto',
        aspect: float = 1.0,
        batch: int = 1,
        steps: int = 100,
        learning_rate: Literal['auto'] | float = 'auto',
        optimiser: Literal['adam', 'nadam'] = 'adam',
        parameterization: Literal['fourier', 'pixels', 'maco'] = 'fourier',
        transforms: str = 'auto',
        framing: Literal['auto', 'whole', 'detail'] = 'auto',
        decorrelate: bool = True,
        decay: float = 1.0,
        low_pass: Literal['auto'] | float = 'auto',
        tv: float = 0.0,
        l2: float = 0.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
        leash: float = 10.0,
        leash_layer: str = 'auto',
    ) -> Tensor:
        """Show in a photo what excites a unit there: `(N, 3, H, W)` in [0, 1].

        Args:
            photo: `(1, 3, H, W)` in [0, 1]; it is what the picture starts from and is held to.
            network: whose unit it is.
            objective: a unit, an `Objective` or its text. Both it and the leash, the distance in an
                earlier layer's features, are in units of how strongly their layers fire for the photo.
            **settings: those of `AccentuateSettings`, by name.

        Hamblin et al. 2024, "Feature Accentuation: Revealing 'What' Features Respond to in Natural
        Images".
        """
    def steps(
        self,
        photo: Tensor | str | Path | Image,
        network: Network | str,
        objective: Objective | str,
        *,
        state: State | None = None,
        size: Literal['auto'] | int = 'auto',
        aspect: float = 1.0,
        batch: int = 1,
        steps: int = 100,
        learning_rate: Literal['auto'] | float = 'auto',
        optimiser: Literal['adam', 'nadam'] = 'adam',
        parameterization: Literal['fourier', 'pixels', 'maco'] = 'fourier',
        transforms: str = 'auto',
        framing: Literal['auto', 'whole', 'detail'] = 'auto',
        decorrelate: bool = True,
        decay: float = 1.0,
        low_pass: Literal['auto'] | float = 'auto',
        tv: float = 0.0,
        l2: float = 0.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
        leash: float = 10.0,
        leash_layer: str = 'auto',
    ) -> Iterator[VisualizeStep]:
        """The same as a generator of steps; stop whenever you like."""

accentuate: _accentuate

class _caricature:
    def __call__(
        self,
        photo: Tensor | str | Path | Image,
        network: Network | str,
        layer: str | Sequence[str] | None = None,
        *,
        state: State | None = None,
        size: Literal['auto'] | int = 'auto',
        aspect: Literal['auto'] | float = 'auto',
        batch: int = 1,
        steps: int = 256,
        learning_rate: Literal['auto'] | float = 'auto',
        optimiser: Literal['adam', 'nadam'] = 'adam',
        parameterization: Literal['fourier', 'pixels', 'maco'] = 'fourier',
        transforms: str = 'auto',
        framing: Literal['auto', 'whole', 'detail'] = 'auto',
        decorrelate: bool = True,
        decay: float = 1.0,
        low_pass: Literal['auto'] | float = 'auto',
        tv: float = 0.0,
        l2: float = 0.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
        power: float = 1.0,
    ) -> Tensor:
        """Draw from noise what a layer sees in a photo, exaggerated: `(N, 3, H, W)` in [0, 1].

        Args:
            photo: `(1, 3, H, W)` in [0, 1]; its aspect ratio is kept.
            network: whose layer it is.
            layer: a layer's name, or several, each of which gets a picture; by default one of things.
            **settings: those of `CaricatureSettings`, by name. See `objectives.caricature`.
        """
    def steps(
        self,
        photo: Tensor | str | Path | Image,
        network: Network | str,
        layer: str | Sequence[str] | None = None,
        *,
        state: State | None = None,
        size: Literal['auto'] | int = 'auto',
        aspect: Literal['auto'] | float = 'auto',
        batch: int = 1,
        steps: int = 256,
        learning_rate: Literal['auto'] | float = 'auto',
        optimiser: Literal['adam', 'nadam'] = 'adam',
        parameterization: Literal['fourier', 'pixels', 'maco'] = 'fourier',
        transforms: str = 'auto',
        framing: Literal['auto', 'whole', 'detail'] = 'auto',
        decorrelate: bool = True,
        decay: float = 1.0,
        low_pass: Literal['auto'] | float = 'auto',
        tv: float = 0.0,
        l2: float = 0.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
        power: float = 1.0,
    ) -> Iterator[VisualizeStep]:
        """The same as a generator of steps; stop whenever you like."""

caricature: _caricature

class _dream:
    def __call__(
        self,
        photo: Tensor | str | Path | Image,
        network: Network | str,
        objective: Objective | str | None = None,
        *,
        mask: Tensor | str | Path | Image | None = None,
        regions: Sequence[tuple[Tensor | str | Path | Image, Objective | str]] | None = None,
        state: State | None = None,
        preset: str = 'phosphene',
        strength: float | None = None,
        octaves: Literal['auto'] | int = 'auto',
        octave_scale: float = 1.4,
        smallest_octave: float = 0.75,
        steps: int = 10,
        step_size: float = 0.012,
        jitter: int | Literal['half'] = 32,
        gradient: Literal['mean', 'std', 'norm', 'rms', 'none'] = 'rms',
        epsilon: float = 1e-20,
        smooth: float = 1.0,
        laplacian: int = 4,
        gradient_transforms: str = '',
        natural: float = 0.5,
        clip: float | None = None,
        stop_above: float | None = None,
        clamp: Literal['off', 'steps', 'always'] = 'steps',
        values: Literal['image', 'network'] = 'image',
        value_limit: float | None = None,
        octave_rounding: Literal['round', 'floor', 'chain', 'chain_floor'] = 'round',
        resampling: Literal['antialias', 'bilinear', 'corners', 'nearest'] = 'antialias',
        detail: Literal['before', 'after'] = 'before',
        keep_colors: bool = False,
        blend: float = 1.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
        tile: Literal['auto', 'off', 'approximate'] | int = 'auto',
        memory: str | None = None,
        rest: Literal['dream', 'stay'] = 'dream',
        start_noise: Literal['white', 'natural'] = 'white',
    ) -> Tensor:
        """Dream a picture: `(N, 3, H, W)` in [0, 1] -> the same shape, on the CPU.

        Args:
            photo: `(N, 3, H, W)` in [0, 1]; or the path of a picture, or one that Pillow has opened,
                as wherever a picture goes in.
            network: through which it is looked at, or its name.
            objective: an `Objective`, or its text ("2*mixed4b + mixed4d:42"); by default the preset's
                for this network.
            mask: `(1, 1, H, W)` in [0, 1], dream where it is 1; or `(N, 1, H, W)`, one a picture. That
                of a file is resized to the photo's size.
            regions: pairs of such a mask and an `Objective`, or its text: what is dreamt there. Each
                objective's gradient is smoothed and normalised within its mask; masks that overlap
                share. What they leave dreams `objective`, or stays with `rest="stay"`, which needs no
                objective. `mask` multiplies all of it. An objective that goes by places turns the
                jitter off for all.
            **settings: those of `DreamSettings`, by name.

        Returns:
            The dream; `dream.steps(…)` gives a `DreamStep` for each step on the way to it.

        Raises:
            ImageError: for a photo or a mask that is none, and a region's mask that is black.
            SettingsError: for a wrong setting, such as `rest="stay"` without regions.

        >>> net = phosphene.load_network()
        >>> picture = phosphene.dream(phosphene.load_image("sky.jpg"), net, "mixed4c", octaves=2)
        >>> parts = [(sky, "mixed5a"), (lake, "mixed4c")]
        >>> picture = phosphene.dream(photo, net, regions=parts, rest="stay")
        """
    def steps(
        self,
        photo: Tensor | str | Path | Image,
        network: Network | str,
        objective: Objective | str | None = None,
        *,
        mask: Tensor | str | Path | Image | None = None,
        regions: Sequence[tuple[Tensor | str | Path | Image, Objective | str]] | None = None,
        state: State | None = None,
        preset: str = 'phosphene',
        strength: float | None = None,
        octaves: Literal['auto'] | int = 'auto',
        octave_scale: float = 1.4,
        smallest_octave: float = 0.75,
        steps: int = 10,
        step_size: float = 0.012,
        jitter: int | Literal['half'] = 32,
        gradient: Literal['mean', 'std', 'norm', 'rms', 'none'] = 'rms',
        epsilon: float = 1e-20,
        smooth: float = 1.0,
        laplacian: int = 4,
        gradient_transforms: str = '',
        natural: float = 0.5,
        clip: float | None = None,
        stop_above: float | None = None,
        clamp: Literal['off', 'steps', 'always'] = 'steps',
        values: Literal['image', 'network'] = 'image',
        value_limit: float | None = None,
        octave_rounding: Literal['round', 'floor', 'chain', 'chain_floor'] = 'round',
        resampling: Literal['antialias', 'bilinear', 'corners', 'nearest'] = 'antialias',
        detail: Literal['before', 'after'] = 'before',
        keep_colors: bool = False,
        blend: float = 1.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
        tile: Literal['auto', 'off', 'approximate'] | int = 'auto',
        memory: str | None = None,
        rest: Literal['dream', 'stay'] = 'dream',
        start_noise: Literal['white', 'natural'] = 'white',
    ) -> Iterator[DreamStep]:
        """The same as a generator of steps; stop whenever you like."""

dream: _dream

class _film:
    def __call__(
        self,
        film: str | Path | Iterable[Frame | Tensor],
        network: Network | str,
        objective: Objective | str | None = None,
        *,
        mask: Tensor | str | Path | Image | None = None,
        regions: Sequence[tuple[Tensor | str | Path | Image, Objective | str]] | None = None,
        preset: str = 'phosphene',
        strength: float | None = None,
        octaves: Literal['auto'] | int = 'auto',
        octave_scale: float = 1.4,
        smallest_octave: float = 0.75,
        steps: int = 3,
        step_size: float = 0.012,
        jitter: int | Literal['half'] = 32,
        gradient: Literal['mean', 'std', 'norm', 'rms', 'none'] = 'rms',
        epsilon: float = 1e-20,
        smooth: float = 1.0,
        laplacian: int = 4,
        gradient_transforms: str = '',
        natural: float = 0.5,
        clip: float | None = None,
        stop_above: float | None = None,
        clamp: Literal['off', 'steps', 'always'] = 'steps',
        values: Literal['image', 'network'] = 'image',
        value_limit: float | None = None,
        octave_rounding: Literal['round', 'floor', 'chain', 'chain_floor'] = 'round',
        resampling: Literal['antialias', 'bilinear', 'corners', 'nearest'] = 'antialias',
        detail: Literal['before', 'after'] = 'before',
        keep_colors: bool = False,
        blend: float = 1.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
        tile: Literal['auto', 'off', 'approximate'] | int = 'auto',
        memory: str | None = None,
        keyframes: Sequence[str] = (),
        rest: Literal['dream', 'stay'] = 'dream',
        begin: str | None = None,
        end: str | None = None,
        flow: Literal['dis', 'off'] = 'dis',
        decay: float = 0.8,
        calm: float = 0.8,
        cut_difference: float = 0.08,
        cut_seen: float = 0.35,
        first_steps: int = 10,
        uncovered_steps: int = 4,
    ) -> Iterator[Frame]:
        """Dream a film: its frames, dreamt, one after the other.

        Args:
            film: the path of a film or of a folder of pictures; or its frames: an iterable of `Frame`,
                as `read_film` gives them, or of tensors `(1, 3, H, W)`.
            network: through which it is looked at, or its name.
            objective: an `Objective` or its text; by default the preset's for this network.
            mask: `(1, 1, H, W)` in [0, 1], dream where it is 1; or the path of a picture or a film.
            regions: pairs of a mask and an `Objective`, as in `dream`.
            **settings: those of `FilmSettings`, by name.

        Returns:
            An iterator of `Frame` with the source's own times, which `phosphene.write_film` takes; each
            is computed when it is asked for. `film.steps(…)` gives a `FrameStep` for each step.

        >>> frames = phosphene.film("walk.mp4", net, "mixed4c", end="0.1s")
        >>> info = phosphene.write_film("dream.mp4", frames, audio_from="walk.mp4")
        """
    def steps(
        self,
        film: str | Path | Iterable[Frame | Tensor],
        network: Network | str,
        objective: Objective | str | None = None,
        *,
        mask: Tensor | str | Path | Image | None = None,
        regions: Sequence[tuple[Tensor | str | Path | Image, Objective | str]] | None = None,
        preset: str = 'phosphene',
        strength: float | None = None,
        octaves: Literal['auto'] | int = 'auto',
        octave_scale: float = 1.4,
        smallest_octave: float = 0.75,
        steps: int = 3,
        step_size: float = 0.012,
        jitter: int | Literal['half'] = 32,
        gradient: Literal['mean', 'std', 'norm', 'rms', 'none'] = 'rms',
        epsilon: float = 1e-20,
        smooth: float = 1.0,
        laplacian: int = 4,
        gradient_transforms: str = '',
        natural: float = 0.5,
        clip: float | None = None,
        stop_above: float | None = None,
        clamp: Literal['off', 'steps', 'always'] = 'steps',
        values: Literal['image', 'network'] = 'image',
        value_limit: float | None = None,
        octave_rounding: Literal['round', 'floor', 'chain', 'chain_floor'] = 'round',
        resampling: Literal['antialias', 'bilinear', 'corners', 'nearest'] = 'antialias',
        detail: Literal['before', 'after'] = 'before',
        keep_colors: bool = False,
        blend: float = 1.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
        tile: Literal['auto', 'off', 'approximate'] | int = 'auto',
        memory: str | None = None,
        keyframes: Sequence[str] = (),
        rest: Literal['dream', 'stay'] = 'dream',
        begin: str | None = None,
        end: str | None = None,
        flow: Literal['dis', 'off'] = 'dis',
        decay: float = 0.8,
        calm: float = 0.8,
        cut_difference: float = 0.08,
        cut_seen: float = 0.35,
        first_steps: int = 10,
        uncovered_steps: int = 4,
    ) -> Iterator[FrameStep]:
        """The same as a generator of steps; stop whenever you like."""

film: _film

class _grid:
    def __call__(
        self,
        photo: Tensor | str | Path | Image | None,
        network: Network | str,
        *,
        of: str = 'dream',
        across: Mapping[str, Sequence[Any]] | None | str = None,
        down: Mapping[str, Sequence[Any]] | None | str = None,
        layers: Sequence[str] | str = (),
        random_channels: int | None = None,
        layer: str | None = None,
        set: Sequence[str] = (),
        columns: Literal['auto'] | int = 'auto',
        cell: Literal['auto'] | int = 'auto',
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
    ) -> Grid:
        """Set any one or two things of a recipe against each other: a `Grid`.

        Args:
            photo: `(1, 3, H, W)` in [0, 1], of recipes that take one; or None.
            network: through which it is looked at, or its name.
            of: the recipe that draws the cells, by name: any that gives a picture.
            across, down: names with their values, such as `{"steps": [5, 10]}`, or "steps=5; 10": what
                changes from column to column, and from row to row. Several names change together.
            layers: instead of `across`, names of layers, or "all".
            random_channels, layer: instead of `across`, so many channels of a layer, by `seed`.
            set: texts such as "steps=10": what all cells have in common.
            **settings: those of `GridSettings`, by name.

        Returns:
            A `Grid`; `grid.steps(…)` gives a `GridStep` for each step on the way. Cells are kept for
            the next time where requests draw them, as on the command line, and not here.

        Raises:
            SettingsError: for a setting that the recipe does not have, or a value that it does not
                take; ObjectiveError, UnknownLayerError: for what is not there. All before the first
                cell is drawn.

        >>> axes = {"across": {"objective": ["mixed3a", "mixed4c"]}, "down": "steps=1; 2"}
        >>> phosphene.page(phosphene.grid(photo, net, **axes, set=["octaves=1"])).save("grid.png")
        """
    def steps(
        self,
        photo: Tensor | str | Path | Image | None,
        network: Network | str,
        *,
        of: str = 'dream',
        across: Mapping[str, Sequence[Any]] | None | str = None,
        down: Mapping[str, Sequence[Any]] | None | str = None,
        layers: Sequence[str] | str = (),
        random_channels: int | None = None,
        layer: str | None = None,
        set: Sequence[str] = (),
        columns: Literal['auto'] | int = 'auto',
        cell: Literal['auto'] | int = 'auto',
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
    ) -> Iterator[GridStep]:
        """The same as a generator of steps; stop whenever you like."""

grid: _grid

class _invert:
    def __call__(
        self,
        photo: Tensor | str | Path | Image,
        network: Network | str,
        layer: str | Sequence[str] | None = None,
        *,
        state: State | None = None,
        size: Literal['auto'] | int = 'auto',
        aspect: Literal['auto'] | float = 'auto',
        batch: int = 1,
        steps: int = 256,
        learning_rate: Literal['auto'] | float = 'auto',
        optimiser: Literal['adam', 'nadam'] = 'adam',
        parameterization: Literal['fourier', 'pixels', 'maco'] = 'fourier',
        transforms: str = 'auto',
        framing: Literal['auto', 'whole', 'detail'] = 'auto',
        decorrelate: bool = True,
        decay: float = 1.0,
        low_pass: Literal['auto'] | float = 'auto',
        tv: float = 0.1,
        l2: float = 0.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
    ) -> Tensor:
        """Draw from noise a picture with a photo's activations: `(N, 3, H, W)` in [0, 1].

        Args:
            photo: `(1, 3, H, W)` in [0, 1]; its aspect ratio is kept.
            network: whose layer it is.
            layer: a layer's name, or several, each of which gets a picture; by default one of things.
            **settings: those of `InvertSettings`, by name.

        The score is minus the squared distance, relative to the photo's own activations: −1 for nothing
        in common, 0 for the same. Mahendran and Vedaldi 2015, "Understanding Deep Image Representations
        by Inverting Them".
        """
    def steps(
        self,
        photo: Tensor | str | Path | Image,
        network: Network | str,
        layer: str | Sequence[str] | None = None,
        *,
        state: State | None = None,
        size: Literal['auto'] | int = 'auto',
        aspect: Literal['auto'] | float = 'auto',
        batch: int = 1,
        steps: int = 256,
        learning_rate: Literal['auto'] | float = 'auto',
        optimiser: Literal['adam', 'nadam'] = 'adam',
        parameterization: Literal['fourier', 'pixels', 'maco'] = 'fourier',
        transforms: str = 'auto',
        framing: Literal['auto', 'whole', 'detail'] = 'auto',
        decorrelate: bool = True,
        decay: float = 1.0,
        low_pass: Literal['auto'] | float = 'auto',
        tv: float = 0.1,
        l2: float = 0.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
    ) -> Iterator[VisualizeStep]:
        """The same as a generator of steps; stop whenever you like."""

invert: _invert

class _octaves:
    def __call__(
        self,
        photo: Tensor | str | Path | Image,
        network: Network | str,
        objective: Objective | str | None = None,
        *,
        preset: str = 'phosphene',
        strength: float | None = None,
        octaves: Literal['auto'] | int = 'auto',
        octave_scale: float = 1.4,
        smallest_octave: float = 0.75,
        steps: int = 10,
        step_size: float = 0.012,
        jitter: int | Literal['half'] = 32,
        gradient: Literal['mean', 'std', 'norm', 'rms', 'none'] = 'rms',
        epsilon: float = 1e-20,
        smooth: float = 1.0,
        laplacian: int = 4,
        gradient_transforms: str = '',
        natural: float = 0.5,
        clip: float | None = None,
        stop_above: float | None = None,
        clamp: Literal['off', 'steps', 'always'] = 'steps',
        values: Literal['image', 'network'] = 'image',
        value_limit: float | None = None,
        octave_rounding: Literal['round', 'floor', 'chain', 'chain_floor'] = 'round',
        resampling: Literal['antialias', 'bilinear', 'corners', 'nearest'] = 'antialias',
        detail: Literal['before', 'after'] = 'before',
        keep_colors: bool = False,
        blend: float = 1.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
        tile: Literal['auto', 'off', 'approximate'] | int = 'auto',
        memory: str | None = None,
        start_noise: Literal['white', 'natural'] = 'white',
        amplify: float = 4.0,
        cell: Literal['auto'] | int = 'auto',
    ) -> Pyramid:
        """Dream a picture and keep what each octave does: a `Pyramid`.

        In an octave the picture begins as the photograph at that size with what was dreamt so far added
        to it. It takes its steps, and the photograph is taken away again: what is left goes up to the
        next octave, enlarged (Google's notebook of 2015, https://github.com/google/deepdream).

        Args:
            photo: `(1, 3, H, W)` in [0, 1], or the path of a picture.
            network: through which it is looked at, or its name.
            objective: an `Objective` or its text; by default the preset's for this network.
            **settings: those of `OctavesSettings`, by name: those of a dream, and of the page.

        Returns:
            A `Pyramid`; `page(pyramid)` is it as a picture, and `octaves.steps(…)` gives a
            `PyramidStep` for each step of the dream.

        Raises:
            ImageError: for what is not one picture; and what `dream` raises.

        >>> pyramid = phosphene.octaves("sky.jpg", net, "mixed4c", octaves=2)
        >>> phosphene.page(pyramid).save("pyramid.png")
        """
    def steps(
        self,
        photo: Tensor | str | Path | Image,
        network: Network | str,
        objective: Objective | str | None = None,
        *,
        preset: str = 'phosphene',
        strength: float | None = None,
        octaves: Literal['auto'] | int = 'auto',
        octave_scale: float = 1.4,
        smallest_octave: float = 0.75,
        steps: int = 10,
        step_size: float = 0.012,
        jitter: int | Literal['half'] = 32,
        gradient: Literal['mean', 'std', 'norm', 'rms', 'none'] = 'rms',
        epsilon: float = 1e-20,
        smooth: float = 1.0,
        laplacian: int = 4,
        gradient_transforms: str = '',
        natural: float = 0.5,
        clip: float | None = None,
        stop_above: float | None = None,
        clamp: Literal['off', 'steps', 'always'] = 'steps',
        values: Literal['image', 'network'] = 'image',
        value_limit: float | None = None,
        octave_rounding: Literal['round', 'floor', 'chain', 'chain_floor'] = 'round',
        resampling: Literal['antialias', 'bilinear', 'corners', 'nearest'] = 'antialias',
        detail: Literal['before', 'after'] = 'before',
        keep_colors: bool = False,
        blend: float = 1.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
        tile: Literal['auto', 'off', 'approximate'] | int = 'auto',
        memory: str | None = None,
        start_noise: Literal['white', 'natural'] = 'white',
        amplify: float = 4.0,
        cell: Literal['auto'] | int = 'auto',
    ) -> Iterator[PyramidStep]:
        """The same as a generator of steps; stop whenever you like."""

octaves: _octaves

class _panels:
    def __call__(
        self,
        photo: Tensor | str | Path | Image,
        network: Network | str,
        objective: Objective | str | None = None,
        *,
        mask: Tensor | str | Path | Image | None = None,
        preset: str = 'phosphene',
        strength: float | None = None,
        octaves: Literal['auto'] | int = 'auto',
        octave_scale: float = 1.4,
        smallest_octave: float = 0.75,
        steps: int = 10,
        step_size: float = 0.012,
        jitter: int | Literal['half'] = 32,
        gradient: Literal['mean', 'std', 'norm', 'rms', 'none'] = 'rms',
        epsilon: float = 1e-20,
        smooth: float = 1.0,
        laplacian: int = 4,
        gradient_transforms: str = '',
        natural: float = 0.5,
        clip: float | None = None,
        stop_above: float | None = None,
        clamp: Literal['off', 'steps', 'always'] = 'steps',
        values: Literal['image', 'network'] = 'image',
        value_limit: float | None = None,
        octave_rounding: Literal['round', 'floor', 'chain', 'chain_floor'] = 'round',
        resampling: Literal['antialias', 'bilinear', 'corners', 'nearest'] = 'antialias',
        detail: Literal['before', 'after'] = 'before',
        keep_colors: bool = False,
        blend: float = 1.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
        tile: Literal['auto', 'off', 'approximate'] | int = 'auto',
        memory: str | None = None,
        start_noise: Literal['white', 'natural'] = 'white',
        add: Sequence[str] | str = (),
        inset: str | None = None,
        columns: Literal['auto'] | int = 'auto',
        cell: Literal['auto'] | int = 'auto',
    ) -> Panels:
        """Show what each part of a dream does: `Panels`, as `page` makes a picture of them.

        The original; the normalised gradient only; with octaves; with jitter. The four are those of the
        article on DeepDream in PyTorch (github.com/augustwester/deepdream).

        Args:
            photo: `(1, 3, H, W)` in [0, 1].
            network: through which it is looked at, or its name.
            objective: an `Objective` or its text; by default the preset's for this network.
            mask: `(1, 1, H, W)` in [0, 1], dream where it is 1.
            add: names of settings that refine a dream, such as `["smooth", "laplacian"]`: a further
                panel switches on each, at the value that it has here.
            inset: "X,Y,SIZE" in px of the photo: that square of each panel, enlarged.
            **settings: those of `PanelsSettings`, by name: a dream's, and of the page.

        Returns:
            `Panels`; `panels.steps(…)` gives a `PanelStep` for each step on the way.

        Raises:
            ImageError: for a photo that is none. SettingsError: for a square outside of it.

        >>> panels = phosphene.panels(photo, net, "mixed4c", add=["smooth"], octaves=1, steps=1)
        >>> phosphene.page(panels).save("panels.png")
        """
    def steps(
        self,
        photo: Tensor | str | Path | Image,
        network: Network | str,
        objective: Objective | str | None = None,
        *,
        mask: Tensor | str | Path | Image | None = None,
        preset: str = 'phosphene',
        strength: float | None = None,
        octaves: Literal['auto'] | int = 'auto',
        octave_scale: float = 1.4,
        smallest_octave: float = 0.75,
        steps: int = 10,
        step_size: float = 0.012,
        jitter: int | Literal['half'] = 32,
        gradient: Literal['mean', 'std', 'norm', 'rms', 'none'] = 'rms',
        epsilon: float = 1e-20,
        smooth: float = 1.0,
        laplacian: int = 4,
        gradient_transforms: str = '',
        natural: float = 0.5,
        clip: float | None = None,
        stop_above: float | None = None,
        clamp: Literal['off', 'steps', 'always'] = 'steps',
        values: Literal['image', 'network'] = 'image',
        value_limit: float | None = None,
        octave_rounding: Literal['round', 'floor', 'chain', 'chain_floor'] = 'round',
        resampling: Literal['antialias', 'bilinear', 'corners', 'nearest'] = 'antialias',
        detail: Literal['before', 'after'] = 'before',
        keep_colors: bool = False,
        blend: float = 1.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
        tile: Literal['auto', 'off', 'approximate'] | int = 'auto',
        memory: str | None = None,
        start_noise: Literal['white', 'natural'] = 'white',
        add: Sequence[str] | str = (),
        inset: str | None = None,
        columns: Literal['auto'] | int = 'auto',
        cell: Literal['auto'] | int = 'auto',
    ) -> Iterator[PanelStep]:
        """The same as a generator of steps; stop whenever you like."""

panels: _panels

class _sheet:
    def __call__(
        self,
        network: Network | str,
        layer: str,
        channels: Sequence[int] | str | None = None,
        *,
        photo: Tensor | str | Path | Image | None = None,
        keep: bool = True,
        size: Literal['auto'] | int = 'auto',
        aspect: float = 1.0,
        batch: int = 16,
        steps: int = 96,
        learning_rate: Literal['auto'] | float = 'auto',
        optimiser: Literal['adam', 'nadam'] = 'adam',
        parameterization: Literal['fourier', 'pixels', 'maco'] = 'fourier',
        transforms: str = 'auto',
        framing: Literal['auto', 'whole', 'detail'] = 'auto',
        decorrelate: bool = True,
        decay: float = 1.0,
        low_pass: Literal['auto'] | float = 'auto',
        tv: float = 0.0,
        l2: float = 0.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
        columns: Literal['auto'] | int = 'auto',
        cell: Literal['auto'] | int = 'auto',
        picture_size: Literal['auto'] | int = 'auto',
        top: int | None = None,
    ) -> Sheet:
        """Draw the channels of a layer, all or some, each as `visualize` does alone: a `Sheet`.

        Args:
            network: whose layer it is.
            layer: its name.
            channels: which, as numbers or as "0-63,70"; all of them by default.
            photo, top: instead, those that a photograph `(1, 3, H, W)` excites, in three groups of
                `top`: by their means over positions `strong` are the greatest, greatest first, `weak`
                the least, ending with the very least, and `average` those in the middle of the order.
                Of equal ones the lower number comes first.
            keep: whether drawn cells are stored in the cache folder, and taken from there.
            **settings: those of `SheetSettings`, by name. A layer that sees less than half of what
                `visualize` would draw is drawn smaller, and moved less.

        Returns:
            A `Sheet`; `page(sheet)` is it as a picture, and `sheet.steps(…)` gives a `SheetStep` for
            each step; what is done when you stop is stored.

        Raises:
            ObjectiveError: for channels that are not there; and what `visualize` raises.

        >>> sheet = phosphene.sheet(net, "mixed4c", "0-3", size=32, steps=2)
        >>> phosphene.page(sheet).save("mixed4c.png")
        """
    def steps(
        self,
        network: Network | str,
        layer: str,
        channels: Sequence[int] | str | None = None,
        *,
        photo: Tensor | str | Path | Image | None = None,
        keep: bool = True,
        size: Literal['auto'] | int = 'auto',
        aspect: float = 1.0,
        batch: int = 16,
        steps: int = 96,
        learning_rate: Literal['auto'] | float = 'auto',
        optimiser: Literal['adam', 'nadam'] = 'adam',
        parameterization: Literal['fourier', 'pixels', 'maco'] = 'fourier',
        transforms: str = 'auto',
        framing: Literal['auto', 'whole', 'detail'] = 'auto',
        decorrelate: bool = True,
        decay: float = 1.0,
        low_pass: Literal['auto'] | float = 'auto',
        tv: float = 0.0,
        l2: float = 0.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
        columns: Literal['auto'] | int = 'auto',
        cell: Literal['auto'] | int = 'auto',
        picture_size: Literal['auto'] | int = 'auto',
        top: int | None = None,
    ) -> Iterator[SheetStep]:
        """The same as a generator of steps; stop whenever you like."""

sheet: _sheet

class _story:
    def __call__(
        self,
        network: Network | str,
        class_name: str | int,
        *,
        keep: bool = True,
        size: Literal['auto'] | int = 'auto',
        aspect: float = 1.0,
        batch: int = 16,
        steps: int = 96,
        learning_rate: Literal['auto'] | float = 'auto',
        optimiser: Literal['adam', 'nadam'] = 'adam',
        parameterization: Literal['fourier', 'pixels', 'maco'] = 'fourier',
        transforms: str = 'auto',
        framing: Literal['auto', 'whole', 'detail'] = 'auto',
        decorrelate: bool = True,
        decay: float = 1.0,
        low_pass: Literal['auto'] | float = 'auto',
        tv: float = 0.0,
        l2: float = 0.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
        seeds: int = 4,
        shown: int = 5,
        outlined: float = 0.15,
    ) -> Story:
        """Draw a class from noise, with what else the network sees in its drawings: a `Story`.

        What is outlined raises a score S: the drawing's contrast to mid-grey times dS/dx, where S is
        the class's logit (Simonyan, Vedaldi and Zisserman 2013, "Deep Inside Convolutional Networks",
        for the gradient; Shrikumar et al. 2016 for its product with the picture), summed over colours,
        blurred by 5 % of the picture's side; of that the highest `outlined` share, where it is above 0.
        To first order it says what the score would lose were the place grey. What it does lose when
        all of it is, `Push.covered` tells, and `Push.by_chance` what as much grey elsewhere costs.

        Args:
            network: whose class it is, or its name.
            class_name: the class by its name, "dumbbell", or by its number.
            keep: whether drawings are stored in the cache folder, and taken from there.
            **settings: those of `StorySettings`, by name.

        Returns:
            A `Story`; `page(story)` is it as a picture, and `story.steps(…)` gives a `StoryStep` for
            each step; drawings that are done when you stop are stored.

        Raises:
            ObjectiveError: for a class that is not there, with the closest ones; for a name where the
                network has none.
            NetworkError: for a network without class scores; and what `visualize` raises.

        >>> story = phosphene.story(net, "dumbbell", seeds=1, size=64, steps=2)
        >>> phosphene.page(story).save("dumbbell.png")
        """
    def steps(
        self,
        network: Network | str,
        class_name: str | int,
        *,
        keep: bool = True,
        size: Literal['auto'] | int = 'auto',
        aspect: float = 1.0,
        batch: int = 16,
        steps: int = 96,
        learning_rate: Literal['auto'] | float = 'auto',
        optimiser: Literal['adam', 'nadam'] = 'adam',
        parameterization: Literal['fourier', 'pixels', 'maco'] = 'fourier',
        transforms: str = 'auto',
        framing: Literal['auto', 'whole', 'detail'] = 'auto',
        decorrelate: bool = True,
        decay: float = 1.0,
        low_pass: Literal['auto'] | float = 'auto',
        tv: float = 0.0,
        l2: float = 0.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
        seeds: int = 4,
        shown: int = 5,
        outlined: float = 0.15,
    ) -> Iterator[StoryStep]:
        """The same as a generator of steps; stop whenever you like."""

story: _story

class _style:
    def __call__(
        self,
        photo: Tensor | str | Path | Image,
        painting: Tensor | str | Path | Image,
        network: Network | str,
        *,
        state: State | None = None,
        size: Literal['auto'] | int = 'auto',
        aspect: float = 1.0,
        batch: int = 1,
        steps: int = 256,
        learning_rate: Literal['auto'] | float = 'auto',
        optimiser: Literal['adam', 'nadam'] = 'adam',
        parameterization: Literal['fourier', 'pixels', 'maco'] = 'fourier',
        transforms: str = 'gentle',
        framing: Literal['auto', 'whole', 'detail'] = 'auto',
        decorrelate: bool = True,
        decay: float = 1.0,
        low_pass: Literal['auto'] | float = 'auto',
        tv: float = 0.5,
        l2: float = 0.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
        style_weight: float = 1.0,
        style_layers: Sequence[str] = (),
        content_layer: str = 'auto',
    ) -> Tensor:
        """The photo's content in the painting's style: `(N, 3, H, W)` in [0, 1].

        Args:
            photo: `(1, 3, H, W)` in [0, 1], what the picture starts from and whose things stay.
            painting: `(1, 3, H, W)` in [0, 1], of any size: what gives the textures, at its own scale.
            network: through which both are looked at.
            **settings: those of `StyleSettings`, by name. Each layer's share is relative to the squared
                size of what it is compared with, so that weights mean the same for every network.

        Gatys, Ecker and Bethge 2015, "A Neural Algorithm of Artistic Style"; on the frequencies instead
        of the pixels after Mordvintsev et al. 2018, "Differentiable Image Parameterizations".
        """
    def steps(
        self,
        photo: Tensor | str | Path | Image,
        painting: Tensor | str | Path | Image,
        network: Network | str,
        *,
        state: State | None = None,
        size: Literal['auto'] | int = 'auto',
        aspect: float = 1.0,
        batch: int = 1,
        steps: int = 256,
        learning_rate: Literal['auto'] | float = 'auto',
        optimiser: Literal['adam', 'nadam'] = 'adam',
        parameterization: Literal['fourier', 'pixels', 'maco'] = 'fourier',
        transforms: str = 'gentle',
        framing: Literal['auto', 'whole', 'detail'] = 'auto',
        decorrelate: bool = True,
        decay: float = 1.0,
        low_pass: Literal['auto'] | float = 'auto',
        tv: float = 0.5,
        l2: float = 0.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
        style_weight: float = 1.0,
        style_layers: Sequence[str] = (),
        content_layer: str = 'auto',
    ) -> Iterator[VisualizeStep]:
        """The same as a generator of steps; stop whenever you like."""

style: _style

class _unit_card:
    def __call__(
        self,
        network: Network | str,
        unit: str | tuple[str, int],
        *,
        pictures: str | Path | Sequence[str | Path] | None = None,
        keep: bool = True,
        size: Literal['auto'] | int = 'auto',
        aspect: float = 1.0,
        batch: int = 16,
        steps: int = 96,
        learning_rate: Literal['auto'] | float = 'auto',
        optimiser: Literal['adam', 'nadam'] = 'adam',
        parameterization: Literal['fourier', 'pixels', 'maco'] = 'fourier',
        transforms: str = 'auto',
        framing: Literal['auto', 'whole', 'detail'] = 'auto',
        decorrelate: bool = True,
        decay: float = 1.0,
        low_pass: Literal['auto'] | float = 'auto',
        tv: float = 0.0,
        l2: float = 0.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
        seeds: int = 3,
        shown: int = 6,
        rank: Literal['mean', 'peak'] = 'mean',
        picture_size: Literal['auto'] | int = 'auto',
    ) -> Card:
        """Look at one unit from four sides: a `Card`.

        Args:
            network: whose unit it is.
            unit: "mixed4c:42" or ("mixed4c", 42), the layer in quotes where an objective wants them;
                of the class scores also the class, "dalmatian" or "logits:dalmatian".
            pictures: a folder, looked through with all its folders, or files. The photographs of it
                that excite the unit most and least are told, with the place in them that does so most,
                and how strongly each of them does. Without it the card has the drawings alone.
            keep: whether drawings are stored in the cache folder, and taken from there.
            **settings: those of `UnitSettings`, by name.

        Returns:
            A `Card`; `page(card)` is it as a picture, and `unit_card.steps(…)` gives a `CardStep` for
            each step; drawings that are done when you stop are stored.

        Raises:
            UnknownLayerError, ObjectiveError: for a unit that is not there.
            ImageError: for a folder without a readable picture; and what `visualize` raises.

        >>> card = phosphene.unit_card(net, "mixed4c:42", pictures="photos", size=32, steps=2)
        >>> phosphene.page(card).save("card.png")
        """
    def steps(
        self,
        network: Network | str,
        unit: str | tuple[str, int],
        *,
        pictures: str | Path | Sequence[str | Path] | None = None,
        keep: bool = True,
        size: Literal['auto'] | int = 'auto',
        aspect: float = 1.0,
        batch: int = 16,
        steps: int = 96,
        learning_rate: Literal['auto'] | float = 'auto',
        optimiser: Literal['adam', 'nadam'] = 'adam',
        parameterization: Literal['fourier', 'pixels', 'maco'] = 'fourier',
        transforms: str = 'auto',
        framing: Literal['auto', 'whole', 'detail'] = 'auto',
        decorrelate: bool = True,
        decay: float = 1.0,
        low_pass: Literal['auto'] | float = 'auto',
        tv: float = 0.0,
        l2: float = 0.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
        seeds: int = 3,
        shown: int = 6,
        rank: Literal['mean', 'peak'] = 'mean',
        picture_size: Literal['auto'] | int = 'auto',
    ) -> Iterator[CardStep]:
        """The same as a generator of steps; stop whenever you like."""

unit_card: _unit_card

class _visualize:
    def __call__(
        self,
        network: Network | str,
        objective: Objective | str | Sequence[Objective | str],
        *,
        start: Tensor | str | Path | Image | None = None,
        state: State | None = None,
        size: Literal['auto'] | int = 'auto',
        aspect: float = 1.0,
        batch: int = 1,
        steps: int = 256,
        learning_rate: Literal['auto'] | float = 'auto',
        optimiser: Literal['adam', 'nadam'] = 'adam',
        parameterization: Literal['fourier', 'pixels', 'maco'] = 'fourier',
        transforms: str = 'auto',
        framing: Literal['auto', 'whole', 'detail'] = 'auto',
        decorrelate: bool = True,
        decay: float = 1.0,
        low_pass: Literal['auto'] | float = 'auto',
        tv: float = 0.0,
        l2: float = 0.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
    ) -> Tensor:
        """Draw what raises an objective: `(N, 3, H, W)` in [0, 1], on the CPU.

        Args:
            network: whose units are drawn.
            objective: an `Objective` or its text; or a list of them, each of which gets a picture, all
                in one batch. With `batch=B` each of K objectives gets B pictures from B starts: N is
                K · B, an objective's pictures next to each other. A picture comes out as it would
                alone, but for rounding (and for `diversity` and `interpolate`, which are of a batch).
            start: a photograph `(1 or N, 3, H, W)` to start from instead of noise.
            **settings: those of `VisualizeSettings`, by name.

        Returns:
            The pictures; `visualize.steps(…)` gives a `VisualizeStep` for each step on the way.

        Raises:
            ObjectiveError: for an objective that makes no sense for this network.
            InputTooSmallError: for pictures smaller than the network takes.
            NetworkError: if no gradient can reach the picture.

        A unit that gives no gradient is told of in a warning, and helped over the first steps; if it
        stays dead, its picture is grey.

        >>> net = phosphene.load_network()
        >>> picture = phosphene.visualize(net, "mixed4d:42", size=64, steps=8)
        >>> several = [f"mixed4d:{i}" for i in range(4)]
        >>> phosphene.visualize(net, several, size=64, steps=2).shape
        torch.Size([4, 3, 64, 64])
        """
    def steps(
        self,
        network: Network | str,
        objective: Objective | str | Sequence[Objective | str],
        *,
        start: Tensor | str | Path | Image | None = None,
        state: State | None = None,
        size: Literal['auto'] | int = 'auto',
        aspect: float = 1.0,
        batch: int = 1,
        steps: int = 256,
        learning_rate: Literal['auto'] | float = 'auto',
        optimiser: Literal['adam', 'nadam'] = 'adam',
        parameterization: Literal['fourier', 'pixels', 'maco'] = 'fourier',
        transforms: str = 'auto',
        framing: Literal['auto', 'whole', 'detail'] = 'auto',
        decorrelate: bool = True,
        decay: float = 1.0,
        low_pass: Literal['auto'] | float = 'auto',
        tv: float = 0.0,
        l2: float = 0.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
    ) -> Iterator[VisualizeStep]:
        """The same as a generator of steps; stop whenever you like."""

visualize: _visualize

class _watch:
    def __call__(
        self,
        photo: Tensor | str | Path | Image,
        network: Network | str,
        layer: str,
        *,
        preset: str = 'phosphene',
        strength: float | None = None,
        octaves: Literal['auto'] | int = 'auto',
        octave_scale: float = 1.4,
        smallest_octave: float = 0.75,
        steps: int = 10,
        step_size: float = 0.012,
        jitter: int | Literal['half'] = 32,
        gradient: Literal['mean', 'std', 'norm', 'rms', 'none'] = 'rms',
        epsilon: float = 1e-20,
        smooth: float = 1.0,
        laplacian: int = 4,
        gradient_transforms: str = '',
        natural: float = 0.5,
        clip: float | None = None,
        stop_above: float | None = None,
        clamp: Literal['off', 'steps', 'always'] = 'steps',
        values: Literal['image', 'network'] = 'image',
        value_limit: float | None = None,
        octave_rounding: Literal['round', 'floor', 'chain', 'chain_floor'] = 'round',
        resampling: Literal['antialias', 'bilinear', 'corners', 'nearest'] = 'antialias',
        detail: Literal['before', 'after'] = 'before',
        keep_colors: bool = False,
        blend: float = 1.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
        tile: Literal['auto', 'off', 'approximate'] | int = 'auto',
        memory: str | None = None,
        objective: str = '',
        channels: int | Literal['all'] | Sequence[int] | str = 16,
        every: int = 1,
        palette: Literal['grey', 'viridis', 'magma', 'inferno'] = 'grey',
        height: int = 400,
        fps: str = '10',
    ) -> Iterator[Frame]:
        """Dream a picture and watch a layer: frames with the picture and its activations side by side.

        Each map is of one channel, its places where they lie in the picture, at the resolution that
        the layer has in that octave. Colours go from the least activation, or 0, to the highest of the
        channels' 99th percentiles, over the whole film.

        Args:
            photo: `(1, 3, H, W)` in [0, 1], or the path of a picture.
            network: through which it is looked at, or its name.
            layer: the layer that is watched: of maps, or of tokens that are a grid over the picture.
            **settings: those of `WatchSettings`, by name: those of a dream; `objective`, what is
                dreamt, by default the layer; `channels`, a number of the strongest by their mean over
                the whole film, or which, or "all".

        Returns:
            An iterator of `Frame`, which `phosphene.write_film` takes; each is computed when it is
            asked for, the first one after a whole dream. `watch.steps(…)` gives a `WatchStep` for each
            step on the way.

        Raises:
            ObjectiveError: for a layer without places, such as one of class scores, or channels that
                are not there; and what `dream` raises.

        >>> frames = phosphene.watch("sky.jpg", net, "mixed4c", channels=9, steps=2)
        >>> info = phosphene.write_film("watch.gif", frames)
        """
    def steps(
        self,
        photo: Tensor | str | Path | Image,
        network: Network | str,
        layer: str,
        *,
        preset: str = 'phosphene',
        strength: float | None = None,
        octaves: Literal['auto'] | int = 'auto',
        octave_scale: float = 1.4,
        smallest_octave: float = 0.75,
        steps: int = 10,
        step_size: float = 0.012,
        jitter: int | Literal['half'] = 32,
        gradient: Literal['mean', 'std', 'norm', 'rms', 'none'] = 'rms',
        epsilon: float = 1e-20,
        smooth: float = 1.0,
        laplacian: int = 4,
        gradient_transforms: str = '',
        natural: float = 0.5,
        clip: float | None = None,
        stop_above: float | None = None,
        clamp: Literal['off', 'steps', 'always'] = 'steps',
        values: Literal['image', 'network'] = 'image',
        value_limit: float | None = None,
        octave_rounding: Literal['round', 'floor', 'chain', 'chain_floor'] = 'round',
        resampling: Literal['antialias', 'bilinear', 'corners', 'nearest'] = 'antialias',
        detail: Literal['before', 'after'] = 'before',
        keep_colors: bool = False,
        blend: float = 1.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
        tile: Literal['auto', 'off', 'approximate'] | int = 'auto',
        memory: str | None = None,
        objective: str = '',
        channels: int | Literal['all'] | Sequence[int] | str = 16,
        every: int = 1,
        palette: Literal['grey', 'viridis', 'magma', 'inferno'] = 'grey',
        height: int = 400,
        fps: str = '10',
    ) -> Iterator[WatchStep]:
        """The same as a generator of steps; stop whenever you like."""

watch: _watch

class _zoom:
    def __call__(
        self,
        photo: Tensor | str | Path | Image,
        network: Network | str,
        objective: Objective | str | Sequence[Objective | str] | None = None,
        *,
        preset: str = 'phosphene',
        strength: float | None = None,
        octaves: Literal['auto'] | int = 'auto',
        octave_scale: float = 1.4,
        smallest_octave: float = 0.75,
        steps: int = 3,
        step_size: float = 0.008,
        jitter: int | Literal['half'] = 32,
        gradient: Literal['mean', 'std', 'norm', 'rms', 'none'] = 'rms',
        epsilon: float = 1e-20,
        smooth: float = 0.5,
        laplacian: int = 0,
        gradient_transforms: str = '',
        natural: float = 0.5,
        clip: float | None = None,
        stop_above: float | None = None,
        clamp: Literal['off', 'steps', 'always'] = 'steps',
        values: Literal['image', 'network'] = 'image',
        value_limit: float | None = None,
        octave_rounding: Literal['round', 'floor', 'chain', 'chain_floor'] = 'round',
        resampling: Literal['antialias', 'bilinear', 'corners', 'nearest'] = 'antialias',
        detail: Literal['before', 'after'] = 'before',
        keep_colors: bool = False,
        blend: float = 1.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
        tile: Literal['auto', 'off', 'approximate'] | int = 'auto',
        memory: str | None = None,
        keyframes: Sequence[str] = (),
        zoom: float | str = 1.5,
        turn: float | str = 0.0,
        center: tuple[float, float] | str = (0.5, 0.5),
        frames: int = 150,
        seconds: float | None = None,
        fade: int = 30,
        fps: str = '30',
        loop: bool = False,
        pull: float = 0.1,
        source_pull: float = 0.0,
        noise: float = 0.008,
        warp: Literal['lanczos', 'linear', 'crop'] = 'lanczos',
        zoom_first: bool = False,
        eight_bits: bool = False,
    ) -> Iterator[Frame]:
        """Zoom into a picture and dream each frame: the frames, one after the other.

        Args:
            photo: `(1, 3, H, W)` in [0, 1], or the path of a picture: what to begin with.
            network: through which it is looked at, or its name.
            objective: an `Objective` or its text, or several, each of which is dreamt for `frames`
                frames; by default the preset's for this network.
            **settings: those of `ZoomSettings`, by name.

        Returns:
            An iterator of `Frame`, which `phosphene.write_film` takes; each is computed when it is
            asked for. `zoom.steps(…)` gives a `FrameStep` for each step on the way.

        >>> frames = phosphene.zoom("sky.jpg", net, ["mixed3a", "mixed4c"], seconds=0.1)
        >>> info = phosphene.write_film("zoom.mp4", frames)
        """
    def steps(
        self,
        photo: Tensor | str | Path | Image,
        network: Network | str,
        objective: Objective | str | Sequence[Objective | str] | None = None,
        *,
        preset: str = 'phosphene',
        strength: float | None = None,
        octaves: Literal['auto'] | int = 'auto',
        octave_scale: float = 1.4,
        smallest_octave: float = 0.75,
        steps: int = 3,
        step_size: float = 0.008,
        jitter: int | Literal['half'] = 32,
        gradient: Literal['mean', 'std', 'norm', 'rms', 'none'] = 'rms',
        epsilon: float = 1e-20,
        smooth: float = 0.5,
        laplacian: int = 0,
        gradient_transforms: str = '',
        natural: float = 0.5,
        clip: float | None = None,
        stop_above: float | None = None,
        clamp: Literal['off', 'steps', 'always'] = 'steps',
        values: Literal['image', 'network'] = 'image',
        value_limit: float | None = None,
        octave_rounding: Literal['round', 'floor', 'chain', 'chain_floor'] = 'round',
        resampling: Literal['antialias', 'bilinear', 'corners', 'nearest'] = 'antialias',
        detail: Literal['before', 'after'] = 'before',
        keep_colors: bool = False,
        blend: float = 1.0,
        seed: int = 0,
        device: str = 'auto',
        precision: Literal['auto', 'fp32', 'bf16', 'fp64'] = 'auto',
        tile: Literal['auto', 'off', 'approximate'] | int = 'auto',
        memory: str | None = None,
        keyframes: Sequence[str] = (),
        zoom: float | str = 1.5,
        turn: float | str = 0.0,
        center: tuple[float, float] | str = (0.5, 0.5),
        frames: int = 150,
        seconds: float | None = None,
        fade: int = 30,
        fps: str = '30',
        loop: bool = False,
        pull: float = 0.1,
        source_pull: float = 0.0,
        noise: float = 0.008,
        warp: Literal['lanczos', 'linear', 'crop'] = 'lanczos',
        zoom_first: bool = False,
        eight_bits: bool = False,
    ) -> Iterator[FrameStep]:
        """The same as a generator of steps; stop whenever you like."""

zoom: _zoom

__all__ = [
    "Network",
    "Objective",
    "PhospheneError",
    "State",
    "__version__",
    "accentuate",
    "caricature",
    "draw_sky",
    "dream",
    "film",
    "film_info",
    "gradient",
    "grid",
    "invert",
    "jobs",
    "load_image",
    "load_network",
    "load_plugin",
    "objective",
    "objectives",
    "octaves",
    "page",
    "panels",
    "parse",
    "read_film",
    "register_network",
    "save_image",
    "sheet",
    "show",
    "story",
    "style",
    "transform",
    "unit_card",
    "visualize",
    "watch",
    "write_film",
    "zoom",
]
