"""Any `nn.Module` as something to look through: its preprocessing, its layers, its activations."""

from __future__ import annotations

import copy
import functools
import hashlib
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from phosphene import bands, fused, graph
from phosphene.errors import (
    InputTooSmallError,
    NetworkError,
    PhospheneError,
    SettingsError,
    UnknownLayerError,
    suggest,
)
from phosphene.objectives import IMAGE

# fp64 is slow; it is there to compare with, since ascent through ReLU amplifies rounding.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}
Precision = Literal["auto", "fp32", "bf16", "fp64"]
PRECISIONS = ("auto", *DTYPES)
LUMA = (0.299, 0.587, 0.114)
# A faster precision is kept only while its gradient points this nearly the same way.
LEAST_COSINE = 0.98


@dataclass(frozen=True)
class Layer:
    """One layer, as found by running the network once.

    `shape` leaves the batch out: `(C, H, W)`, `(T, C)` or `(C,)`. `stride` and `receptive_field`
    are in px of the picture; None where a position sees everything, or where it cannot be told.
    `calls` counts how often one forward pass uses the module; of several outputs the last counts.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    calls: int = 1
    stride: int | None = None
    receptive_field: int | None = None

    @property
    def channels(self) -> int | None:
        """How many channels there are: first axis of maps and vectors, last of tokens."""
        if not self.shape:
            return None
        return self.shape[-1] if len(self.shape) == 2 else self.shape[0]


class _ReachedError(BaseException):
    """Ends a forward pass early. Not an Exception, so that no module swallows it."""


class Network:
    """A frozen network in evaluation mode, with the preprocessing that it was trained with.

    module: takes `(N, 3, H, W)` and returns anything that holds a tensor. A copy is kept, so the
        caller's own module stays trainable; `copy=False` takes it over instead.
    mean, std: of the values that the module takes, a number a channel.
    input_range: what black and white are before `mean` and `std`: (0, 1), or (0, 255), or (-1, 1).
    input_size: px, the side of the pictures that it was trained on; the scale it knows.
    classes: names in the order of the logits.
    aliases: other names of layers.
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
        copy: bool = True,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise NetworkError(f"a network is a torch.nn.Module, not {type(module).__name__}")
        if len(mean) != len(std) or not all(s > 0 for s in std):
            raise SettingsError(
                f"mean {tuple(mean)} and std {tuple(std)}: one number > 0 a channel"
            )
        self.module = (_copied(module) if copy else module).float().eval()
        self.module.requires_grad_(False)
        self.name = name or type(module).__name__
        self.input_size = input_size
        self.classes = tuple(classes)
        self.aliases = dict(aliases or {})
        low, high = input_range
        # image in [0, 1] -> (image - shift) / scale, in one go
        self.scale = tuple(s / (high - low) for s in std)
        self.shift = tuple((m - low) / (high - low) for m in mean)
        self.device = next((p.device for p in self.module.parameters()), torch.device("cpu"))
        self.precision: str = "fp32"
        self._extractors: dict[tuple[str, ...], Callable[[Tensor], dict[str, Tensor]]] = {}
        self._prepared: dict[tuple[str, str], Network] = {}
        self._constants: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

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

    # Layers ---------------------------------------------------------------------------------------

    @functools.cached_property
    def layers(self) -> dict[str, Layer]:
        """Every layer that a forward pass uses, by name, in the order in which they are done."""
        with graph.LOCK:
            return self.layers_at((self.input_size, self.input_size))

    def layers_at(self, size: tuple[int, int]) -> dict[str, Layer]:
        """The layers with the shapes that a picture of `size` (H, W) gives them."""
        shapes: dict[str, tuple[int, ...]] = {}
        calls: dict[str, int] = {}

        def note(name: str, output: object) -> None:
            found = graph.first_of(output, Tensor)
            if found is not None:
                shapes.pop(name, None)  # of several calls the last counts, for the order too
                shapes[name] = tuple(found.shape[1:])
                calls[name] = calls.get(name, 0) + 1

        names = [name for name, _ in self.module.named_modules() if name]
        try:
            with torch.no_grad(), self._hooked(names, note):
                self.module(self._blank(size))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a module's own, of any kind
            raise NetworkError(self._failure(size, error)) from error
        if not shapes:
            raise NetworkError(f"{self.name} has no layers: no submodule of it was run")
        kinds = {name: type(module).__name__ for name, module in self.module.named_modules()}
        views = self._geometry
        return {
            name: Layer(
                name,
                kinds[name],
                shape,
                calls[name],
                views[name].stride if name in views else None,
                views[name].field if name in views else None,
            )
            for name, shape in shapes.items()
        }

    @functools.cached_property
    def logits_layer(self) -> str:
        """The layer that gives the class scores: the last one that gives a vector."""
        vectors = [layer for layer in self.layers.values() if len(layer.shape) == 1]
        fitting = [v for v in vectors if len(self.classes) in (0, v.channels)]
        if not fitting:
            raise NetworkError(f"{self.name} has no layer that gives class scores")
        return fitting[-1].name

    def resolve(self, name: str) -> str:
        """A layer's own name for a name or alias; `UnknownLayerError` with the closest ones."""
        if name in self.layers or name == IMAGE:
            return name
        if self.aliases.get(name) in self.layers:
            return self.aliases[name]
        raise UnknownLayerError(name, self.name, [*self.layers, *self.aliases])

    # Activations ----------------------------------------------------------------------------------

    def activations(self, image: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """What `layers` answer to an image `(N, 3, H, W)` in [0, 1], as float32 (or as the image).

        Runs no further than the deepest of them. Differentiable with respect to the image.
        `InputTooSmallError` names the least size where the picture is smaller than that.
        """
        names = tuple(dict.fromkeys(self.resolve(layer) for layer in layers))
        found: dict[str, Tensor] = {IMAGE: image} if IMAGE in names else {}
        wanted = tuple(name for name in names if name != IMAGE)
        if wanted:
            values = self.preprocess(image)
            try:
                answers = self._extractor(wanted)(values)
            except (PhospheneError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # a module's own, of any kind
                raise self._explained(error, values, wanted) from error
            for name, answer in answers.items():
                found[name] = answer.to(image.dtype)
        return {layer: found[self.resolve(layer)] for layer in layers}

    def preprocess(self, image: Tensor) -> Tensor:
        """[0, 1] -> the values, precision and memory layout that the module takes.

        A network of one channel is shown the luma of a picture in colour, Rec. 601 as Pillow's "L".
        """
        if image.ndim == 4 and image.shape[1] == 3 and len(self.scale) == 1:
            red, green, blue = image.split(1, 1)
            image = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
        if image.ndim != 4 or image.shape[1] != len(self.scale):
            shape = tuple(image.shape)
            raise NetworkError(f"an image is (N, {len(self.scale)}, H, W), this one is {shape}")
        key = (image.dtype, image.device)
        if key not in self._constants:
            self._constants[key] = (
                image.new_tensor(self.shift).view(1, -1, 1, 1),
                image.new_tensor(self.scale).view(1, -1, 1, 1),
            )
        shift, scale = self._constants[key]
        values = ((image - shift) / scale).to(DTYPES[self.precision])
        return values.contiguous(memory_format=torch.channels_last)

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
                        answers = extractor(self._blank((side, side)))
                except Exception:
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
        """This network on a device and in a precision, kept for the next time.

        `auto` takes bfloat16 where the processor multiplies it natively and the gradient of
        `layers` on a `sample` image stays within cosine 0.98 of float32's; the notice says so
        otherwise.
        """
        target = pick_device(device)
        if precision not in PRECISIONS:
            raise SettingsError(f"no precision {precision!r}{suggest(precision, PRECISIONS)}")
        with graph.LOCK:
            return self._prepared_for(target, precision, layers, sample)

    def _prepared_for(
        self, target: torch.device, precision: str, layers: Sequence[str], sample: Tensor | None
    ) -> Network:
        if precision == "auto":
            precision = "fp32"
            if has_fast_bf16(target):
                faster = self.prepared(target, "bf16")
                if sample is None or self._agrees(faster, layers, sample):
                    return faster
        key = (str(target), precision)
        if key not in self._prepared:
            if (self.device, self.precision) == (target, precision) and self._laid_out:
                return self
            other = copy.copy(self)
            module = copy.deepcopy(self.module)
            try:
                other.module = module.to(
                    target, DTYPES[precision], memory_format=torch.channels_last
                )  # pyright: ignore[reportCallIssue]
            except TypeError as error:  # MPS has no float64
                raise SettingsError(
                    f"{target} cannot do precision {precision} ({' '.join(str(error).split())}); "
                    "fp32 it can"
                ) from error
            other.device, other.precision = target, precision
            other._laid_out, other._source = True, self._source or self
            other._extractors, other._constants, other._prepared = {}, {}, {}
            for cached in ("_traced", "_geometry"):
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
        side = max(self.input_size, self.least_size(names), 32)
        key = (names, str(faster.device))
        if key not in self._agreed:
            reference = self.prepared(faster.device, "fp32")
            height, width = sample.shape[-2:]
            top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
            crop = sample[:1, :, top : top + side, left : left + side].detach()
            gradients = []
            for network in (reference, faster):
                image = crop.to(faster.device, torch.float32).clone().requires_grad_()
                energy = sum(a.square().mean() for a in network.activations(image, names).values())
                assert isinstance(energy, Tensor)
                if not energy.requires_grad:
                    return True  # nothing to compare; whoever wants a gradient is told
                gradients.append(torch.autograd.grad(energy, image)[0].flatten())
            cosine = float(torch.nn.functional.cosine_similarity(*gradients, dim=0))
            self._agreed[key] = cosine >= LEAST_COSINE
            if not self._agreed[key]:
                warnings.warn(
                    f"bfloat16 strays on {', '.join(names)} (cosine {cosine:.3f}, "
                    f"least {LEAST_COSINE}): using float32",
                    stacklevel=3,
                )
        return self._agreed[key]

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

    @functools.cached_property
    def _least(self) -> dict[tuple[str, ...], int]:
        return {}

    @functools.cached_property
    def _agreed(self) -> dict[tuple[tuple[str, ...], str], bool]:
        return {}

    _laid_out: bool = False
    # The network as it was given, before any change of device or precision.
    _source: Network | None = None

    @functools.cached_property
    def _traced(self) -> graph.Traced | None:
        try:
            return graph.trace(self.module)
        except Exception:
            # Tracing runs the module's own code with stand-ins, and that may raise anything; the
            # module itself still runs.
            return None

    @functools.cached_property
    def _geometry(self) -> dict[str, graph.Geometry]:
        return {} if self._traced is None else graph.geometry(self._traced)

    def _blank(self, size: tuple[int, int]) -> Tensor:
        shape = (1, len(self.scale), *size)
        return torch.zeros(shape, dtype=DTYPES[self.precision], device=self.device)

    def _extractor(self, layers: tuple[str, ...]) -> Callable[[Tensor], dict[str, Tensor]]:
        if layers not in self._extractors:
            with graph.LOCK:
                if layers not in self._extractors:
                    cut = self._cut(layers)
                    self._extractors[layers] = cut or functools.partial(self._stop_at, layers)
        return self._extractors[layers]

    def _cut(self, layers: tuple[str, ...]) -> Callable[[Tensor], dict[str, Tensor]] | None:
        """The pruned graph, if there is one and it answers as the module does."""
        traced = self._traced
        if traced is None or any(layer not in traced.outputs for layer in layers):
            return None
        try:
            cut = traced.cut(layers)
            cut = cut.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
            noise = torch.Generator().manual_seed(0)
            blank = self._blank((self.input_size, self.input_size))
            probe = torch.randn(blank.shape, generator=noise).to(blank)

            with torch.no_grad():
                expected = self._stop_at(layers, probe)
        except Exception:
            return None

        def plain(values: Tensor) -> dict[str, Tensor]:
            return {name: graph.first_of(found, Tensor) for name, found in cut(values).items()}

        program = self._program(cut)
        if program is not None and self._same(program, expected, probe):

            def run(values: Tensor) -> dict[str, Tensor]:
                if fused.stepped_aside():
                    return plain(values)
                try:
                    return program(values)
                except fused.UnfitError:  # found only where a gradient is asked for
                    return plain(values)

            return run
        return plain if self._same(plain, expected, probe) else None

    def _program(self, cut: fx.GraphModule) -> fused.Program | bands.Banded | None:
        if self.device.type != "cpu" or self.precision == "fp64":
            return None
        try:
            return bands.banded(fused.program(cut))
        except fused.UnfitError:
            return None

    def _same(
        self,
        run: Callable[[Tensor], dict[str, Tensor]],
        expected: Mapping[str, Tensor],
        probe: Tensor,
    ) -> bool:
        """Whether a faster way answers a probe as the module itself did."""
        try:
            with torch.no_grad():
                got = run(probe)
        except Exception:
            return False
        tolerance = 0.05 if self.precision == "bf16" else 1e-3
        for layer, answer in expected.items():
            reference = answer.float()
            if got[layer].shape != reference.shape:
                return False
            error = (got[layer].float() - reference).norm() / reference.norm().clamp_min(1e-12)
            if not float(error) <= tolerance:
                return False
        return True

    def _stop_at(self, layers: tuple[str, ...], values: Tensor) -> dict[str, Tensor]:
        """Run the module itself under hooks and stop when the last of `layers` has answered."""
        found: dict[str, Tensor] = {}
        left = {layer: self.layers[layer].calls for layer in layers}

        def note(name: str, output: object) -> None:
            answer = graph.first_of(output, Tensor)
            if answer is None:
                return
            found[name] = answer
            left[name] -= 1
            if all(count <= 0 for count in left.values()):
                raise _ReachedError
            found[name] = answer.clone()  # what follows may work in place

        with self._hooked(layers, note), suppress(_ReachedError):
            self.module(values)
        missing = [layer for layer in layers if layer not in found]
        if missing:
            raise NetworkError(f"{self.name} did not run {', '.join(missing)} for this picture")
        return found

    @contextmanager
    def _hooked(self, layers: Sequence[str], note: Callable[[str, object], Any]) -> Iterator[None]:
        handles, thread = [], threading.get_ident()
        try:
            for name in layers:
                module = self.module.get_submodule(name)

                def hook(_m: nn.Module, _i: object, output: object, name: str = name) -> Any:
                    # Another thread may run the same module for reasons of its own.
                    return note(name, output) if threading.get_ident() == thread else None

                handles.append(module.register_forward_hook(hook))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _explained(self, error: Exception, values: Tensor, layers: tuple[str, ...]) -> Exception:
        """The error of a forward pass in the user's terms."""
        least, (height, width) = self.least_size(layers), values.shape[-2:]
        if min(height, width) < least:
            return InputTooSmallError(
                f"{self.name} needs pictures of at least {least} px a side for "
                f"{', '.join(layers)}; this one is {width}×{height}",
                least,
            )
        try:
            with torch.no_grad():
                self._stop_at(layers, values)
        except Exception as plain:
            error = plain  # the module's own message; that of a traced one speaks of proxies
        return NetworkError(self._failure((height, width), error))

    def _failure(self, size: tuple[int, int], error: Exception) -> str:
        told = " ".join(str(error).split())
        return f"{self.name} failed on a picture of {size[1]}×{size[0]}: {told}"


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """A device that is there: `auto` prefers CUDA, then MPS, then the processor."""
    if isinstance(device, torch.device):
        return device
    if device == "auto":
        if torch.cuda.is_available():
            device = "cuda"
        else:
            device = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        picked = torch.device(device)
    except RuntimeError:
        raise SettingsError(
            f"no device {device!r}; there are auto, cpu, cuda, cuda:N and mps"
        ) from None
    there = {
        "cpu": lambda: True,
        "cuda": lambda: (picked.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available,
    }
    if picked.type not in there or not there[picked.type]():
        raise SettingsError(f"device {device!r} is not on this machine; --device cpu always is")
    return picked


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively, not by way of float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, check, lambda: False)() for check in checks)
    return False


def _copied(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module)
    except Exception as error:
        raise NetworkError(
            f"{type(module).__name__} cannot be copied ({error}); Network(…, copy=False) takes "
            "the module itself, frozen"
        ) from error
