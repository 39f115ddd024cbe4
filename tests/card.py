"""An accelerator that is emulated: the processor, behind a device of its own.

`pytest --device emulated` runs the tests on it. Its numbers are the processor's; but as on a card,
tensors there and here do not mix, and nothing is known of them without asking. It has no streams,
no rounding and no lack of memory of its own: that only a card has.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import (
    _setup_privateuseone_for_python_backend,  # pyright: ignore[reportPrivateUsage]
)

NAME = "emulated"
_kept: list[Any] = []  # the library, whose kernels go with it


class _Module:
    """What PyTorch asks of `torch.emulated`."""

    is_available = staticmethod(lambda: True)
    is_initialized = staticmethod(lambda: True)
    _is_in_bad_fork = staticmethod(lambda: False)
    manual_seed_all = staticmethod(lambda seed: None)
    device_count = staticmethod(lambda: 1)
    current_device = staticmethod(lambda: 0)
    get_rng_state = staticmethod(lambda device=0: torch.zeros(1, dtype=torch.uint8))
    set_rng_state = staticmethod(lambda state, device=0: None)
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16])


def there() -> None:
    """Have the device in this process."""
    if not _kept:
        _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
        library = torch.library.Library("_", "IMPL")
        library.fallback(lambda op, *args, **kwargs: _run(op, args, kwargs), "PrivateUse1")
        # A module's weights are made anew there; `data` holds no other type.
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        _kept.append(library)


class _There(Tensor):
    """A tensor on the device; `here` is what it holds."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> Any:
        return Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls, here.size(), strides=here.stride(), storage_offset=here.storage_offset(),
            dtype=here.dtype, device=torch.device(NAME, 0),
        )  # fmt: skip

    def __init__(self, here: Tensor) -> None:
        self.here = here

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})

    __torch_function__: Any = torch._C._disabled_torch_function_impl

    def __repr__(self, **_: Any) -> str:
        return f"{NAME}: {self.here!r}"

    def new_tensor(self, data: Any, **given: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        given.setdefault("dtype", self.dtype)
        return torch.tensor(data, **given).to(NAME)

    def __format__(self, spec: str) -> str:
        return format(self.item() if self.ndim == 0 else str(self), spec)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError("can't convert an emulated tensor to numpy: use Tensor.cpu() first")
        return self.cpu().numpy()

    @property
    def data(self) -> Any:
        return self.detach()

    @data.setter
    def data(self, value: Any) -> None:
        if self.here.shape != value.here.shape or self.here.dtype != value.here.dtype:
            raise NotImplementedError("data of another shape or type")
        self.here = value.here


_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Do on the processor what is asked of the device."""
    given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    if func not in _COPIES and any(type(one) is not _There and one.ndim for one in given):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found {NAME}:0 and cpu ({func})"
        )
    to = kwargs.get("device")
    off = to is not None and torch.device(to).type != NAME
    if to is not None and not off:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    same = {id(one.here): one for one in given if type(one) is _There}
    args, kwargs = tree_map(lambda x: x.here if type(x) is _There else x, (args, kwargs))
    found = func(*args, **kwargs)
    if off:
        return found

    def there(one: Any) -> Any:
        # What works in place gives the tensor that it was given.
        if not isinstance(one, Tensor):
            return one
        # Bits of `here` that say how to read it are not seen from there.
        return same[id(one)] if id(one) in same else _There(one.resolve_conj().resolve_neg())

    return tree_map(there, found)
