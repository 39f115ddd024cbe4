"""Any `nn.Module` as something to look through: its preprocessing, its layers, its activations."""

from __future__ import annotations

import copy
import functools
import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from phosphene.errors import (
    InputTooSmallError,
    NetworkError,
    PhospheneError,
    SettingsError,
    UnknownLayerError,
    suggest,
)
from phosphene.network import precision as precisions
from phosphene.network.extract import Extractor, HookExtractor, choose_extractor
from phosphene.network.failure import failure
from phosphene.network.given import as_taken, by_layer, check_batch
from phosphene.network.layers import Layer, find_layers, find_logits
from phosphene.network.precision import DTYPES, PRECISIONS, pick_device
from phosphene.network.preprocessing import Preprocessing
from phosphene.objectives import IMAGE
from phosphene.runtime.capture import Captures, CudaGraphs
from phosphene.runtime.device import exact, is_cuda
from phosphene.runtime.geometry import Geometry, geometry
from phosphene.runtime.graph import LOCK, PICTURE, Traced, trace
from phosphene.runtime.memory import out_of_memory
from phosphene.runtime.options import DEFAULT, Options
from phosphene.runtime.program import needs_gradient

# Layers that are asked for, those that are given, and whether a gradient leads from one to another.
_Asked = tuple[tuple[str, ...], tuple[str, ...], bool]
# How many extractors that begin at given layers, or lead from one to another, are kept for the next
# time: each has weights of its own.
MOST_EXTRACTORS = 8

COMPARED = 128  # px, the side of a picture's parts on which precisions are compared


class Network:
    """A frozen network in evaluation mode, with the preprocessing that it was trained with.

    Args:
        module: Takes `(N, 3, H, W)` and returns anything that holds a tensor. A copy is made, so
            the caller's own module stays trainable; `copy=False` takes it over instead.
        mean: Of the values that the module takes, a number a channel.
        std: Of the same.
        input_range: What black and white are before `mean` and `std`: (0, 1), or (0, 255), or
            (-1, 1).
        input_size: px, the side of the pictures that it was trained on; the scale it knows.
        classes: Names in the order of the logits.
        aliases: Other names of layers.
        name: What it is called; by default as the module's class.
        architecture: What it is built as, by which presets know it; by default its name.
        copy: Whether to copy the module.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        input_range: tuple[float, float] = (0.0, 1.0),
        input_size: int = 224,
        classes: Sequence[str] = (),
        aliases: Mapping[str, str] | None = None,
        name: str | None = None,
        architecture: str | None = None,
        copy: bool = True,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise NetworkError(f"a network is a torch.nn.Module, not {type(module).__name__}")
        self._preprocessing = Preprocessing.of(mean, std, input_range)
        self.module = (precisions.copied(module) if copy else module).float().eval()
        self.module.requires_grad_(False)
        self.name = name or type(module).__name__
        self.architecture = architecture or self.name
        self.input_size = input_size
        self.classes = tuple(classes)
        self.aliases = dict(aliases or {})
        self.device = next((p.device for p in self.module.parameters()), torch.device("cpu"))
        self.precision: str = "fp32"
        self._extractors: dict[_Asked, Extractor] = {}
        self._prepared: dict[tuple[str, str], Network] = {}
        # On every device and in every precision alike.
        self._least: dict[tuple[str, ...], int] = {}
        self._agreed: dict[tuple[tuple[str, ...], str, str], bool] = {}

    def __repr__(self) -> str:
        """What was found, in one line: pictures, preprocessing, layers, classes, weights."""
        kinds = {1: "grey", 3: "colour"}
        channels = kinds.get(len(self.scale), f"{len(self.scale)}-channel")
        values = " ".join(
            f"{low:.3g}…{high:.3g}"
            for low, high in dict.fromkeys(
                ((0 - m) / s, (1 - m) / s) for m, s in zip(self.shift, self.scale, strict=True)
            )
        )
        classes = f"{len(self.classes)} classes, " if self.classes else ""
        return (
            f"Network({self.name!r}: {channels} pictures of {self.input_size} px as {values}, "
            f"{len(self.layers)} layers, {classes}"
            f"{sum(p.numel() for p in self.module.parameters()):,} weights, "
            f"{self.precision} on {self.device})"
        )

    @property
    def shift(self) -> tuple[float, ...]:
        """What is taken from each channel of a picture in [0, 1]: (image - shift) / scale."""
        return self._preprocessing.shift

    @shift.setter
    def shift(self, values: Sequence[float]) -> None:
        self._preprocessing = Preprocessing(values, self.scale)

    @property
    def scale(self) -> tuple[float, ...]:
        """What each channel of a picture is divided by, once `shift` is taken from it."""
        return self._preprocessing.scale

    @scale.setter
    def scale(self, values: Sequence[float]) -> None:
        self._preprocessing = Preprocessing(self.shift, values)

    # Layers ---------------------------------------------------------------------------------------

    @functools.cached_property
    def layers(self) -> dict[str, Layer]:
        """Every layer that a forward pass uses, by name, in the order in which they are done."""
        with LOCK:
            return self.layers_at((self.input_size, self.input_size))

    def layers_at(self, size: tuple[int, int]) -> dict[str, Layer]:
        """The layers with the shapes that a picture of `size` (H, W) gives them."""
        blank = self._blank(size)
        try:
            found = find_layers(self.module, blank, lambda: self._geometry)
        except Exception as error:  # a module's own, of any kind
            if out_of_memory(error):
                raise
            raise NetworkError(failure(self.name, {PICTURE: blank}, error)) from error
        if not found:
            raise NetworkError(f"{self.name} has no layers: no submodule of it was run")
        return found

    @functools.cached_property
    def logits_layer(self) -> str:
        """The layer that gives the class scores; `logits` names it too, where no other layer does.

        The last one that gives a number for each class: as a vector or, in a fully convolutional
        classifier such as SqueezeNet, as a map of one position, or of several that are averaged.
        """
        found = find_logits(self.layers.values(), len(self.classes))
        if found is None:
            raise NetworkError(f"{self.name} has no layer that gives class scores")
        return found.name

    def resolve(self, name: str) -> str:
        """A layer's own name for a name or alias; `UnknownLayerError` with the closest ones."""
        if name in self.layers or name == IMAGE:
            return name
        if self.aliases.get(name) in self.layers:
            return self.aliases[name]
        if name == "logits":
            return self.logits_layer
        raise UnknownLayerError(name, self.name, [*self.layers, *self.aliases])

    # Activations ----------------------------------------------------------------------------------

    def activations(
        self,
        image: Tensor | None,
        layers: Sequence[str],
        *,
        given: Mapping[str, Tensor] | None = None,
        options: Options = DEFAULT,
    ) -> dict[str, Tensor]:
        """What some layers answer to an image, or to activations that are given for others.

        Runs no further than the deepest of them, and nothing that only `given` layers would need.
        (A module that cannot be traced is run from its beginning, and what it gives for these
        layers is replaced; no gradient goes into that.) Gradients can be had with respect to the
        image, to what is given and, where one of these requires one, to any activation that another
        one comes of:

            image.requires_grad_()
            found = network.activations(image, ["mixed4c", "logits"])
            (gradient,) = torch.autograd.grad(found["logits"][:, 9].sum(), found["mixed4c"])

            less = found["mixed4c"].detach().clone()
            less[:, 3] = 0  # the scores without a channel
            network.activations(None, ["logits"], given={"mixed4c": less})

        Args:
            image: `(N, 3, H, W)` in [0, 1]. Where all layers come of what is given alone, it may be
                None, or of another N.
            layers: Names or aliases. One that is given as well is returned as it was given.
            given: Activations by layer, to go on from in place of the network's own: maps
                `(N, C, H, W)`, tokens `(N, T, C)` or vectors `(N, C)` as these are, with whatever
                H and W or T the layers after it take. They are left as they are. Of a layer that is
                used several times they stand for its last answer, the one that is returned for it.
            options: How the network is run; see `phosphene.runtime.options`.

        Returns:
            The activations by layer as it was named, in the type of the image, or without one in
            that of what is given: float32, as a rule, whatever the network's precision.

        Raises:
            InputTooSmallError: The picture is too small; it names the least size.
            UnknownLayerError: There is no such layer; it names the closest ones.
            NetworkError: Something is given that the layer could not give, or of another N, or that
                none of `layers` comes of; an image is needed and there is none; or the module
                failed, with its own message.
        """
        names = tuple(dict.fromkeys(self.resolve(layer) for layer in layers))
        known = by_layer(given, self.resolve, self.layers, self.device) if given else {}
        found = {name: known[name] for name in names if name in known}
        if IMAGE in names:
            found[IMAGE] = self._required(image, (IMAGE,), known)
        wanted = tuple(name for name in names if name not in found)
        linked = options.linked and len(wanted) > 1 and needs_gradient([image, *known.values()])
        extractor = self._extractor(wanted, tuple(known), linked=linked) if wanted else None
        used = {*names, *(extractor.inputs if extractor else ())}
        if unused := [name for name in known if name not in used]:
            raise NetworkError(
                f"what is given for {', '.join(unused)} is in vain: nothing that is asked for "
                f"({', '.join(names)}) comes of it"
            )
        if extractor:
            found |= self._answers(extractor, image, known, wanted, options)
        return {layer: found[self.resolve(layer)] for layer in layers}

    def _answers(
        self,
        extractor: Extractor,
        image: Tensor | None,
        given: Mapping[str, Tensor],
        wanted: tuple[str, ...],
        options: Options,
    ) -> dict[str, Tensor]:
        """The activations of layers that are not given themselves."""
        values: dict[str, Tensor] = {}
        for name in extractor.inputs:
            if name == PICTURE:
                values[name] = self.preprocess(self._required(image, wanted, given))
            else:
                values[name] = as_taken(given[name], DTYPES[self.precision])
        if given:
            check_batch(values)
        types = [value.dtype for value in (given.values() if image is None else [image])]
        try:
            with exact(self.device):
                return extractor(values, options, functools.reduce(torch.promote_types, types))
        except PhospheneError:
            raise
        except Exception as error:  # a module's own, of any kind
            if out_of_memory(error):  # that it is looked into needs some
                raise
            raise self._explained(error, values, wanted) from error

    def _required(
        self, image: Tensor | None, layers: Sequence[str], given: Iterable[str]
    ) -> Tensor:
        if image is None:
            named = ", ".join(given)
            besides = f" ({named} given is not enough)" if named else ""
            raise NetworkError(f"{self.name} needs an image for {', '.join(layers)}{besides}")
        return image

    def preprocess(self, image: Tensor) -> Tensor:
        """[0, 1] -> the values, precision and memory layout that the module takes.

        A network of one channel is shown the luma of a picture in colour, Rec. 601 as Pillow's "L".
        """
        return self._preprocessing(image, DTYPES[self.precision])

    def least_size(self, layers: Sequence[str]) -> int:
        """The smallest square picture, in px, from which all of `layers` give something."""
        names = tuple(dict.fromkeys(self.resolve(layer) for layer in layers if layer != IMAGE))
        if not names:
            return 1
        if names not in self._least:
            extractor = self._extractor(names)

            def works(side: int) -> bool:
                try:
                    with torch.no_grad():
                        answers = extractor({PICTURE: self._blank((side, side))})
                except Exception as error:  # a module's own, of any kind
                    if out_of_memory(error):
                        raise
                    return False
                return all(a.numel() for a in answers.values())

            low, high = 0, max(self.input_size, 1)
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if works(middle) else (middle, high)
            self._least[names] = high
        return self._least[names]

    # Speed ----------------------------------------------------------------------------------------

    def prepared(
        self,
        device: str | torch.device = "auto",
        precision: str = "auto",
        *,
        layers: Sequence[str] = (),
        sample: Tensor | None = None,
    ) -> Network:
        """This network on a device and in a precision, cached for the next time.

        `auto` takes bfloat16 where the processor multiplies it natively and, on parts of the
        `sample` images, turns the gradient of `layers` little, or hardly further than half a grey
        level of noise in them does; the notice says so otherwise.
        """
        target = pick_device(device)
        if precision not in PRECISIONS:
            raise SettingsError(f"no precision {precision!r}{suggest(precision, PRECISIONS)}")
        with LOCK:
            return self._prepared_for(target, precision, layers, sample)

    def _prepared_for(
        self, target: torch.device, precision: str, layers: Sequence[str], sample: Tensor | None
    ) -> Network:
        if precision == "auto":
            precision = "fp32"
            if precisions.has_fast_bf16(target):
                faster = self.prepared(target, "bf16")
                if sample is None or self._agrees(faster, layers, sample):
                    return faster
        if (self.device, self.precision) == (target, precision) and self._is_prepared:
            return self
        key = (str(target), precision)
        if key not in self._prepared:
            other = copy.copy(self)
            # Not from what is rounded already.
            source = self._source or self
            other.module = precisions.converted(source.module, target, precision)
            other.device, other.precision = target, precision
            other._is_prepared, other._source = True, source
            other._extractors, other._prepared, other._last = {}, {}, None
            for cached in ("_traced", "_geometry", "captures"):
                other.__dict__.pop(cached, None)
            other.__dict__["layers"] = self.layers
            other.__dict__["_geometry"] = self._geometry
            self._prepared[key] = other
        return self._prepared[key]

    def _agrees(self, faster: Network, layers: Sequence[str], sample: Tensor) -> bool:
        """Whether the faster network's gradient points where this one's does."""
        names = tuple(self.resolve(layer) for layer in layers if layer != IMAGE)
        if not names:
            return True
        reference = self.prepared(faster.device, "fp32")  # not on the processor
        least = reference.least_size(names)
        if min(sample.shape[-2:]) < least:
            return False  # nothing to compare; the ascent says so, with the picture's own size
        side = max(min(self.input_size, COMPARED), least, 32)
        crops = precisions.crops_of(sample, side)
        # By the picture, so that no choice hangs on what was dreamt before.
        digest = hashlib.sha256(crops.cpu().contiguous().numpy()).hexdigest()  # pyright: ignore[reportArgumentType]
        key = (names, str(faster.device), digest)
        if key not in self._agreed:
            found = precisions.agreement(reference, faster, names, crops)
            self._agreed[key] = found is None or found.close  # nothing to compare
            if found is not None and not found.close:
                warnings.warn(
                    f"bfloat16 strays on {', '.join(names)} (cosine {found.faster:.3f}, "
                    f"{found.noise:.3f} for half a grey level of noise): using float32",
                    stacklevel=4,
                )
        return self._agreed[key]

    @functools.cached_property
    def captures(self) -> Captures | None:
        """What is captured of evaluations of this network, on CUDA; elsewhere None."""
        return Captures(CudaGraphs(self.device)) if is_cuda(self.device) else None

    # Identity -------------------------------------------------------------------------------------

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names, shapes and values of all weights, in full precision."""
        if self._source is not None:
            return self._source.fingerprint
        digest = hashlib.sha256()
        for name, value in sorted(self.module.state_dict().items()):
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(raw.numpy())
        return digest.hexdigest()

    # Inside ---------------------------------------------------------------------------------------

    _is_prepared: bool = False
    # The network as it was given, before any change of device or precision.
    _source: Network | None = None
    # What was checked last for another device or precision.
    _last: tuple[tuple[tuple[str, ...], tuple[str, ...]], HookExtractor] | None = None

    @property
    def _reference(self) -> Network:
        """This network on the processor, as it was before any rounding, or in float64 if it is."""
        source = self._source or self
        wanted = "fp64" if self.precision == "fp64" else "fp32"
        if (source.device.type, source.precision) == ("cpu", wanted):
            return source  # which is traced once for all that are prepared of it
        if (self.device.type, self.precision) == ("cpu", wanted):
            return self
        return source.prepared("cpu", wanted)

    @functools.cached_property
    def _traced(self) -> Traced | None:
        try:
            return trace(self.module)
        except Exception as error:
            if out_of_memory(error):
                raise
            # Tracing runs the module's own code with stand-ins, and that may raise anything; the
            # module itself still runs.
            return None

    @functools.cached_property
    def _geometry(self) -> dict[str, Geometry]:
        return {} if self._traced is None else geometry(self._traced)

    def _blank(self, size: tuple[int, int]) -> Tensor:
        shape = (1, len(self.scale), *size)
        return torch.zeros(shape, dtype=DTYPES[self.precision], device=self.device)

    def _extractor(
        self, layers: tuple[str, ...], given: tuple[str, ...] = (), *, linked: bool = False
    ) -> Extractor:
        asked = layers, given, linked
        found = self._extractors.get(asked)
        if found is None:
            with LOCK:
                found = self._extractors.get(asked)
                if found is None:
                    found = self._chosen(layers, given, linked=linked)
                    self._extractors[asked] = found
                    # Or a sweep over all layers would keep the weights once for each.
                    several = [key for key in self._extractors if key[1] or key[2]]
                    for key in several[:-MOST_EXTRACTORS]:
                        del self._extractors[key]
        return found

    def _chosen(
        self, layers: tuple[str, ...], given: tuple[str, ...], *, linked: bool
    ) -> Extractor:
        hooks, reference = self._hooks(layers, given), self._reference
        if reference is not self:
            exacter = reference._exacter(layers, given)
            traced = reference._traced
            found = choose_extractor(hooks, traced, linked=linked, reference=exacter)
            if found is not hooks:
                return found
            # A module that asks for its own type or device is right only as it is traced there.
        return choose_extractor(hooks, self._traced, linked=linked)

    def _exacter(self, layers: tuple[str, ...], given: tuple[str, ...]) -> HookExtractor:
        """Hooks that know what was checked with them; the last ones, as it keeps weights."""
        if self._last is None or self._last[0] != (layers, given):
            self._last = (layers, given), self._hooks(layers, given)
        return self._last[1]

    def _hooks(self, layers: tuple[str, ...], given: tuple[str, ...] = ()) -> HookExtractor:
        blank = self._blank((self.input_size, self.input_size))
        return HookExtractor(self.module, layers, self.layers, self.name, blank, given)

    def _explained(
        self, error: Exception, values: Mapping[str, Tensor], layers: tuple[str, ...]
    ) -> Exception:
        """The error of a forward pass in the user's terms."""
        given = tuple(name for name in values if name != PICTURE)
        if not given:
            least, (height, width) = self.least_size(layers), values[PICTURE].shape[-2:]
            if min(height, width) < least:
                return InputTooSmallError(
                    f"{self.name} needs pictures of at least {least} px a side for "
                    f"{', '.join(layers)}; this one is {width}×{height}",
                    least,
                )
        try:
            with torch.no_grad():
                self._hooks(layers, given)(values)
        except Exception as plain:
            error = plain  # the module's own message; that of a traced one speaks of proxies
        return NetworkError(failure(self.name, values, error))
