"""A second device where there is none: tensors on the CPU that behave as if they were on a GPU.

Within `OtherDevice()`, a tensor moved to `GPU` is marked, says that it is there, and marks what is computed
from it; an operation on marked and unmarked tensors fails as it would between devices.  Values are computed
as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")
MARK = "_on_the_gpu"
HOST_ONLY = {Tensor.numpy, Tensor.__array__}
MIXING = {"__getitem__", "__setitem__", "__set__", "copy_", "set_", "_has_compatible_shallow_copy_type"}
"""What torch itself allows between devices (indices on the CPU, copies)."""


class OtherDevice(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if func == Tensor.device.__get__:
            return GPU if marked(args[0]) else func(*args)
        if func == Tensor.is_cuda.__get__:
            return marked(args[0])
        tensors = list(tensors_in((args, named)))
        far = [t for t in tensors if marked(t)]
        if func in HOST_ONLY and far:
            raise TypeError("can't convert a tensor on the GPU to numpy")
        if name == "to" or func is Tensor.cpu:
            return moved(func, args, named)
        there = bool(far)
        if "device" in named and named["device"] is not None:
            there = torch.device(named["device"]).type == GPU.type
            named["device"] = CPU
        elif far and name not in MIXING:
            near = [t for t in tensors if not marked(t) and t.ndim > 0]
            if near:
                raise RuntimeError(
                    f"{name}: tensors on two devices: {[tuple(t.shape) for t in far]} on the GPU, "
                    f"{[tuple(t.shape) for t in near]} on the CPU"
                )
        elif name == "__getitem__":
            there = marked(args[0])
        result = func(*args, **named)
        if func == Tensor.data.__set__:
            mark(args[0], marked(args[1]))
        elif name not in ("__set__", "__setitem__", "copy_"):
            for tensor in tensors_in(result):
                mark(tensor, there)
        return result


def marked(value: Any) -> bool:
    return getattr(value, MARK, False) is True


def mark(tensor: Tensor, there: bool) -> None:
    setattr(tensor, MARK, there)


def moved(func: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Tensor.to and Tensor.cpu: a new tensor, as between real devices, unless it is there already."""
    source = args[0]
    there = marked(source)
    wanted = False if func is Tensor.cpu else there
    for value in [*args[1:], *named.values()]:
        if isinstance(value, Tensor):
            wanted = marked(value)
        elif isinstance(value, str | torch.device):
            wanted = torch.device(value).type == GPU.type
    types = [v for v in [*args[1:], *named.values()] if isinstance(v, torch.dtype)]
    result = source.to(*types) if types else source
    if wanted != there and result is source:
        result = source.view_as(source)
    mark(result, wanted)
    return result


def tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


class _HostGenerator(torch.Generator):
    """A generator of any device, on the CPU."""

    def __new__(cls, device: Any = None) -> _HostGenerator:
        del device
        return super().__new__(cls)


def pretend_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.cuda says that there is one, and what needs a driver does nothing."""
    answers: dict[str, Any] = {"is_available": True, "device_count": 1, "is_bf16_supported": True}
    for name in ("synchronize", "empty_cache", "manual_seed", "set_device"):
        answers[name] = None
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    fork = torch.random.fork_rng
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices=(), **options: fork(devices=(), **options))
    monkeypatch.setattr(torch, "Generator", _HostGenerator)
    monkeypatch.setattr(Tensor, "pin_memory", lambda self, *_: self)
    # Asks the driver for its current stream.
    monkeypatch.setattr(torch.optim.Optimizer, "_accelerator_graph_capture_health_check", lambda self: None)
