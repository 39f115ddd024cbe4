"""What is not alike on all devices, where there is none but a processor.

TF32 is emulated, by rounding what is multiplied to 10 bits; devices are faked in their own words.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from phosphene.cli.replay import format_comparison
from phosphene.errors import NetworkError
from phosphene.evaluation import adaptive, cost
from phosphene.evaluation.reach import InexactError
from phosphene.evaluation.tiles import exact_tiling
from phosphene.evaluation.whole import whole
from phosphene.explain.responses import receptive_box
from phosphene.jobs.compare import Comparison
from phosphene.manifest import capture
from phosphene.manifest.schema import Machine
from phosphene.network import Network, pick_device, precision
from phosphene.network.extract import GraphExtractor, HookExtractor, ProgramExtractor
from phosphene.objectives.build import parse
from phosphene.parameterization import opacity
from phosphene.recipes.base import recipe_named, recipe_names
from phosphene.runtime import device as devices
from phosphene.runtime import lowering, memory, pooling
from tests import on

CUDA = torch.device("cuda", 0)


class Rounding(TorchDispatchMode):
    """Convolutions multiply 10 bits, as TF32 does, as long as cuDNN may."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(func)
        if "convolution" in name and tf32_allowed():
            # The picture or the gradient, and the weights; what a gradient is laid out like is not.
            args = [tf32(a) if isinstance(a, Tensor) and a.ndim == 4 else a for a in args]
        return func(*args, **(kwargs or {}))


def tf32_allowed() -> bool:
    owner, name, _ = devices._precisions()[0]
    return getattr(owner, name) in (True, "tf32")


def tf32(values: Tensor) -> Tensor:
    """The nearest numbers of 10 bits after the point.

    >>> tf32(torch.tensor([1 + 2**-10, 1 + 2**-12]))
    tensor([1.0010, 1.0000])
    """
    bits = values.contiguous().view(torch.int32)
    rounded = ((bits + 0x1000) & ~0x1FFF).view(torch.float32)
    return rounded.as_strided(rounded.shape, rounded.stride()).clone(
        memory_format=torch.preserve_format
    )


@pytest.fixture
def tf32_card(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The processor as a card that rounds to TF32 as it comes, and has no programs."""
    monkeypatch.setattr(devices, "is_cuda", lambda device: True)
    monkeypatch.setattr(lowering, "available", lambda: False)
    with Rounding():
        yield


def normalised(depth: int = 6, width: int = 16) -> nn.Sequential:
    """Convolutions with a BatchNorm each that scales channels quite unalike."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for number in range(depth):
            norm = nn.BatchNorm2d(width)
            norm.running_mean = torch.randn(width) * 0.3
            norm.running_var = torch.rand(width) + 0.1
            norm.weight = nn.Parameter(torch.rand(width) + 0.5)
            norm.bias = nn.Parameter(torch.randn(width) * 0.2)
            before = width if number else 3
            layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), norm, nn.ReLU()]
        return nn.Sequential(*layers)


def network(module: nn.Module | None = None, **given: Any) -> Network:
    return Network(module or normalised(), input_size=32, name="normalised", **given)


def extractor_of(prepared: Network, layer: str) -> Any:
    with torch.no_grad():
        prepared.activations(torch.rand(1, 3, 32, 32), [layer])
    (found,) = prepared._extractors.values()
    return found


# --- float32 is float32 ----------------------------------------------------------------------


def settings() -> tuple[Any, ...]:
    cudnn = torch.backends.cudnn
    precisions = [getattr(owner, name) for owner, name, _ in devices._precisions()]
    return *precisions, cudnn.deterministic, cudnn.benchmark


EXACT = (*(value for _, _, value in devices._precisions()), True, False)


def test_on_cuda_float32_is_float32_and_what_was_set_comes_back() -> None:
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):
        before = settings()
        assert before[2:] == (False, True)
        with devices.exact(CUDA):
            assert settings() == EXACT
            with devices.exact(CUDA):
                pass
            assert settings() == EXACT
        assert settings() == before
        with devices.exact(torch.device("cpu")):
            assert settings() == before


def test_the_last_thread_puts_back_what_the_first_one_found() -> None:
    before, inside, leave = settings(), threading.Event(), threading.Event()

    def other() -> None:
        with devices.exact(CUDA):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with devices.exact(CUDA):
        thread.start()
        assert inside.wait(10)
    assert settings() == EXACT
    leave.set()
    thread.join()
    assert settings() == before


def test_an_error_puts_back_what_was_set() -> None:
    before = settings()
    with pytest.raises(KeyError), devices.exact(CUDA):
        raise KeyError
    assert settings() == before


@pytest.mark.usefixtures("tf32_card")
def test_rounding_to_tf32_reaches_neither_scores_nor_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = torch.rand(1, 3, 40, 36, generator=torch.Generator().manual_seed(0))
    plain, goal = network().prepared("cpu", "fp32"), parse("17")
    exact = network().prepared("cpu", "fp64")
    _, expected = whole(exact, goal.bound(exact))(image.double())

    def turned() -> float:
        _, found = whole(plain, goal.bound(plain))(image)
        return float((found - expected).norm() / expected.norm())

    assert turned() < 1e-5
    monkeypatch.setattr(devices, "is_cuda", lambda device: False)
    assert turned() > 1e-4  # so the emulation rounds, where it may


@pytest.mark.usefixtures("tf32_card")
def test_tiles_are_checked_without_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    goal = parse("17")
    plain = network().prepared("cpu", "fp32")
    exact_tiling(plain, goal.bound(plain))
    monkeypatch.setattr(devices, "is_cuda", lambda device: False)
    rounding = network().prepared("cpu", "fp32")
    with pytest.raises(InexactError, match="differ from the whole"):
        exact_tiling(rounding, goal.bound(rounding))


# --- folded once -----------------------------------------------------------------------------


@pytest.mark.parametrize("programs", [True, False])
def test_normalisation_is_folded_before_weights_are_rounded(
    programs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not programs:
        monkeypatch.setattr(lowering, "available", lambda: False)
    source = network()
    found = extractor_of(source.prepared("cpu", "bf16"), "17")
    assert isinstance(found, ProgramExtractor if programs else GraphExtractor)
    graph: Any = getattr(found, "graph", found)
    (cut,) = graph.parts
    assert source._traced is not None
    folded = source._traced.cut(["17"]).state_dict()
    assert folded.keys() == cut.state_dict().keys()
    for name, weight in cut.state_dict().items():
        assert weight.dtype == torch.bfloat16
        assert torch.equal(weight, folded[name].to(torch.bfloat16)), name


def test_folding_first_keeps_the_gradient_nearer() -> None:
    """As the difference of what was rounded once and of what was rounded twice."""
    image = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    source, goal = network(normalised(12, 24)), parse("35")
    exact = source.prepared("cpu", "fp64")
    _, expected = whole(exact, goal.bound(exact))(image.double())

    def cosine(prepared: Network) -> float:
        _, got = whole(prepared, goal.bound(prepared))(image)
        return float(torch.cosine_similarity(got.double().flatten(), expected.flatten(), dim=0))

    twice = network(source.prepared("cpu", "bf16").module).prepared("cpu", "bf16")
    assert cosine(source.prepared("cpu", "bf16")) > cosine(twice)


def test_a_prepared_network_is_prepared_anew_from_what_it_was_given_as() -> None:
    source = network()
    rounded = source.prepared("cpu", "bf16")
    again = rounded.prepared("cpu", "fp32")
    assert torch.equal(next(again.module.parameters()), next(source.module.parameters()))


class OfItsType(nn.Module):
    """Asks a weight for its type: when it is run, or so that a trace takes it for granted."""

    def __init__(self, granted: bool) -> None:
        super().__init__()
        self.first, self.granted = nn.Conv2d(3, 4, 3), granted

    def forward(self, x: Tensor) -> Tensor:
        weight = next(self.parameters()) if self.granted else self.first.weight
        return self.first(x.to(weight.dtype))


@pytest.mark.parametrize("granted", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_module_may_ask_for_its_own_type(granted: bool, precision: str) -> None:
    found = extractor_of(network(OfItsType(granted)).prepared("cpu", precision), "first")
    assert not isinstance(found, HookExtractor)


# --- lack of memory --------------------------------------------------------------------------

LACKS = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.65 GiB",
    "HIP out of memory. Tried to allocate 20.00 MiB",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "GET was unable to find an engine to execute this computation",
    "FIND was unable to find an engine to execute this computation after trying 3 plans",
    "Unable to find a valid cuDNN algorithm to run convolution",
    "MPS backend out of memory (MPS allocated: 9.05 GB, other allocations: 1.2 MB)",
    "Invalid buffer size: 14.24 GiB",
    "Failed to allocate private MTLBuffer for size 17179869184",
    "Error: command buffer exited with error status. Insufficient Memory (00000008:"
    "kIOGPUCommandBufferCallbackErrorOutOfMemory)",
)  # fmt: skip


@pytest.mark.parametrize("said", LACKS)
def test_a_lack_of_memory_is_known_by_what_libraries_say(said: str) -> None:
    assert memory.out_of_memory(RuntimeError(said))
    error = NetworkError("it failed")
    error.__cause__ = RuntimeError(said)
    assert memory.out_of_memory(error)


@pytest.mark.parametrize(
    "said",
    [
        "cuDNN error: CUDNN_STATUS_BAD_PARAM",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "CUDA error: device-side assert triggered",
        "The operator 'aten::kthvalue' is not currently implemented for the MPS device",
    ],
)
def test_another_error_is_no_lack_of_memory(said: str) -> None:
    assert not memory.out_of_memory(RuntimeError(said))


class Scarce(nn.Module):
    """A network whose card is full from a certain pass on."""

    def __init__(self, fine: int, said: str) -> None:
        super().__init__()
        self.first, self.fine, self.said = nn.Conv2d(3, 4, 3), fine, said

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, torch.fx.Proxy):
            return self.first(x)
        self.fine -= 1
        if self.fine < 0:
            raise RuntimeError(self.said)
        return self.first(x)


@pytest.mark.parametrize("said", LACKS[:6:5])
def test_a_lack_of_memory_is_no_reason_for_the_slow_path(said: str) -> None:
    scarce = network(Scarce(1, said), copy=False)  # enough to find layers
    assert list(scarce.layers) == ["first"]
    with pytest.raises(RuntimeError) as raised:
        scarce.activations(torch.rand(1, 3, 32, 32), ["first"])
    assert memory.out_of_memory(raised.value)
    assert not scarce._extractors
    scarce.module.fine = 10**9  # pyright: ignore[reportArgumentType]
    assert not isinstance(extractor_of(scarce, "first"), HookExtractor)


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_what_is_freed_goes_back_to_the_accelerator(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append("cuda"))
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: emptied.append("mps"))
    assert adaptive.free_unused is devices.free_unused
    adaptive.free_unused(torch.device("cpu"))
    assert not emptied
    adaptive.free_unused(torch.device(kind))
    assert emptied == [kind]


def test_what_convolutions_work_in_counts_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {"now": 1000, "most": 10**9}

    def run() -> None:
        _ = torch.ones(10) + 1  # 80 bytes
        held["most"] = 1500

    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda device: held.update(most=held["now"])
    )
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: held["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: held["most"])
    assert cost.peak_bytes(run, CUDA) == 500
    assert cost.peak_bytes(run, "cpu") == 80


# --- NaN goes by itself ----------------------------------------------------------------------


class Watched(nn.Module):
    """Notes which libraries convolutions may use, whenever it is shown NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.seen: list[tuple[bool, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        if bool(x.isnan().any()):
            cudnn: Any = torch.backends.cudnn.enabled
            mkldnn: Any = torch.backends.mkldnn.enabled
            self.seen.append((cudnn, mkldnn))
        return self.first(x)


@pytest.mark.parametrize("what", ["tiles", "page"])
def test_nan_goes_through_plain_convolutions(what: str) -> None:
    watched = Watched()
    net = network(watched, copy=False)
    before = torch.backends.cudnn.enabled, torch.backends.mkldnn.enabled
    if what == "tiles":
        exact_tiling(net, parse("first").bound(net))
    else:
        assert receptive_box(net, "first", (9, 9), (4, 4)) == (3, 3, 6, 6)
    assert set(watched.seen) == {(False, False)}
    assert (torch.backends.cudnn.enabled, torch.backends.mkldnn.enabled) == before


# --- names, layouts, what is missing ---------------------------------------------------------


def test_cuda_and_its_number_are_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "best_device", on.best_device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    named = ["cuda", "cuda:1", "auto", torch.device("cuda"), torch.device("cuda:1")]
    assert {pick_device(name) for name in named} == {torch.device("cuda:1")}
    assert pick_device("cuda:0") == CUDA
    assert pick_device(torch.device("cpu", 0)) == torch.device("cpu")


def test_maps_lie_channels_last_but_on_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    last, first = torch.channels_last, torch.contiguous_format
    found = {kind: devices.layout_of(torch.device(kind)) for kind in ("cpu", "cuda", "mps")}
    assert found == {"cpu": last, "cuda": last, "mps": first}
    image = torch.rand(1, 3, 8, 8).contiguous(memory_format=last)
    for layout in (last, first):
        monkeypatch.setattr("phosphene.network.preprocessing.layout_of", lambda _, x=layout: x)
        monkeypatch.setattr("phosphene.network.precision.layout_of", lambda _, x=layout: x)
        prepared = network().prepared("cpu", "fp32")
        assert prepared.preprocess(image).is_contiguous(memory_format=layout)
        assert prepared.module.get_parameter("3.weight").is_contiguous(memory_format=layout)


class Elsewhere:
    """A tensor that says it is on MPS, and moves for the asking."""

    def __init__(self, values: Tensor) -> None:
        self.device, self.values = torch.device("mps"), values

    def cpu(self) -> Tensor:
        return self.values


def test_what_mps_has_not_is_done_on_the_processor() -> None:
    there: list[Any] = []

    def function(a: Any, b: Any) -> Any:
        there.extend((a, b))

        class Result:
            def to(self, device: torch.device) -> str:
                return f"back on {device}"

        return Result()

    a, b = torch.ones(1), torch.zeros(1)
    given: Any = (Elsewhere(a), Elsewhere(b))
    assert devices.on_processor_where_missing(function, *given) == "back on mps"
    assert there[0] is a
    assert there[1] is b
    assert devices.on_processor_where_missing(torch.add, a, b).item() == 1


@pytest.mark.parametrize("name", ["kthvalue", "grid_sample", "interpolate"])
def test_these_are_asked_for_by_way_of_the_processor(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from phosphene import parameterization, transforms

    asked: list[str] = []

    def by_way(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        asked.append(name)
        return function(*tensors)

    for module in (parameterization, transforms):
        monkeypatch.setattr(module, "on_processor_where_missing", by_way)
    image, draw = torch.rand(1, 3, 12, 12), torch.Generator().manual_seed(0)
    run: dict[str, Callable[[], object]] = {
        "kthvalue": lambda: opacity(image),
        "grid_sample": lambda: transforms.rotate(10, 0.5)(image, draw),
        "interpolate": lambda: transforms.scale(0.5, 0.6)(image, draw),
    }
    run[name]()
    assert asked == [name]


# --- pooling ---------------------------------------------------------------------------------


class Counting(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_an_accelerator_pools_in_few_operations_where_memory_is_to_be_saved() -> None:
    window = [3, 3], [2, 2], [1, 1], [1, 1], False
    x = torch.empty(2, 64, 512, 512, device="meta").contiguous(memory_format=torch.channels_last)
    with Counting() as forward:
        output, indices = pooling.max_pool_int16(x, *window)
    assert indices.dtype == torch.int32
    with Counting() as backward:
        found = pooling.max_pool_backward(output, x.shape, indices, window)
    assert found.shape == x.shape
    assert forward.count <= 2
    assert backward.count <= 3


# --- what is written down --------------------------------------------------------------------


def test_a_manifest_names_the_card_and_what_it_rounded_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 PCIe")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 90100)
    there = network().prepared("cpu", "fp32")
    assert (
        capture.machine(there)
        .model_dump(exclude_none=True)
        .keys()
        .isdisjoint({"card", "cudnn", "tf32"})
    )
    there.device = CUDA
    found = capture.machine(there)
    assert (found.device, found.instructions) == ("cuda", "sm_90")
    assert (found.card, found.cudnn, found.tf32) == ("NVIDIA H100 PCIe", 90100, False)
    assert Machine.model_validate_json(found.model_dump_json()) == found
    assert devices.uses_tf32(CUDA)  # outside, as PyTorch comes


class FarFromZero(nn.Module):
    """Lives on small differences of large numbers, which bfloat16 cannot hold."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.last = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.last((self.first(x) + 2920) - 2900)


def test_a_network_that_strays_in_a_precision_is_cut_all_the_same() -> None:
    prepared = network(FarFromZero()).prepared("cpu", "bf16")
    assert not isinstance(extractor_of(prepared, "last"), HookExtractor)
    assert "_traced" not in vars(prepared)  # as it was folded, and not anew
    (answer,) = prepared.activations(torch.rand(1, 3, 32, 32), ["last"]).values()
    assert float((answer - 20).abs().max()) > 2


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_replay_says_that_drawings_come_out_alike_on_cuda(device: str) -> None:
    def manifest(resampled: bool) -> Any:
        return SimpleNamespace(
            declaration=SimpleNamespace(resampled=resampled, caches=False),
            result=SimpleNamespace(width=4, height=3),
            machine=SimpleNamespace(device=device),
        )

    found = Comparison(False, False, 9, 2.0, ())
    for resampled in (True, False):
        told = format_comparison(Path("a.png"), found, *(manifest(resampled) for _ in range(2)))
        assert told.startswith("a.png: different by at most 9 of 255 levels")
        assert ("alike" in told) == (resampled and device == "cuda")


def test_what_turns_pictures_declares_it() -> None:
    turning = {
        name for name in recipe_names() if "transforms" in recipe_named(name).settings.model_fields
    }
    assert turning
    assert all(recipe_named(name).resampled for name in turning)
