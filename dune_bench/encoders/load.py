"""From a card to a running encoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from filelock import FileLock

from dune_bench.encoders.adapter import Adapter
from dune_bench.encoders.base import Encoder, Precision
from dune_bench.encoders.checkpoint import State, tensor_digest
from dune_bench.encoders.copies import keep_copy, read_copy
from dune_bench.encoders.download import Progress
from dune_bench.encoders.weights import locate, weights_dir
from dune_bench.errors import UnavailableError, UsageError
from dune_bench.registry.cards import EncoderCard
from dune_bench.registry.lookup import load_registry
from dune_bench.registry.paths import CACHE_VARIABLE

if TYPE_CHECKING:
    from dune_bench.registry.lookup import Registry

_PRECISIONS: dict[str, Precision] = {
    "float32": "float32",
    "fp32": "float32",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
}


def load_encoder(
    card: EncoderCard,
    *,
    weights: str = "auto",
    device: str = "auto",
    dtype: str = "float32",
    cache: Path | None = None,
    offline: bool = False,
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> Encoder:
    """The encoder of a card, with weights, on a device.

    weights: `auto` (cache, then the card's sources in order), `random` (explicit; `Encoder.weights`
    says so and results are branded), or a path.  device: auto, cpu, cuda[:N], ….  dtype: float32 or
    bfloat16.  cache: folder (default `cache_root()`).  offline: no download.
    Raises UsageError (bad name, option or arch), UnavailableError (weights or device are not here),
    TaskError (a damaged checkpoint or one of another architecture).
    """
    where, precision = pick_device(device), pick_dtype(dtype)
    adapter = (registry or load_registry()).adapter(card.kind)
    if not adapter.needs_weights:
        # A file's network is the user's: to call it random would be a lie.
        if weights not in ("auto", "random") or (weights == "random" and card.kind == "file"):
            raise UsageError(f"encoder {card.id} takes no weights file: leave --weights out")
        encoder = cast(Encoder, adapter.from_card(card, None))
    elif weights == "random":
        encoder = adapter.from_card(card, None)
        encoder.weights = "random"
    elif weights == "auto":
        encoder = adapter.from_card(card, _released(card, adapter, cache, offline, progress))
    else:
        encoder = adapter.from_card(card, _from_path(Path(weights).expanduser(), adapter))
        encoder.weights = "file"
    _finish(card, encoder)
    return encoder.to(where, precision)


def _finish(card: EncoderCard, encoder: Encoder) -> None:
    if encoder.weights_digest is None and encoder.module is not None and card.kind != "file":
        encoder.weights_digest = tensor_digest(encoder.module.state_dict())
    # A card that names no views has the field's default, and leaves the choice to the adapter.
    if "views" in card.model_fields_set and "default" in card.views:
        encoder.default_view = card.views["default"]


def pick_device(device: str) -> torch.device:
    """`auto` is CUDA if there is any, else the CPU.  Raises UsageError, UnavailableError."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"unknown device {device!r}: use auto, cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UnavailableError(
            f"device {device!r} is not here ({torch.cuda.device_count()} CUDA devices): use --device cpu"
        )
    return chosen


def pick_dtype(dtype: str) -> Precision:
    """Raises UsageError for anything but float32 (fp32) and bfloat16 (bf16)."""
    if dtype not in _PRECISIONS:
        raise UsageError(f"unknown dtype {dtype!r}: use float32 (fp32) or bfloat16 (bf16)")
    return _PRECISIONS[dtype]


def _from_path(path: Path, adapter: type[Adapter]) -> State:
    if not path.is_file():
        raise UnavailableError(f"--weights {path}: no such file")
    return adapter.read(path)


def _released(
    card: EncoderCard, adapter: type[Adapter], cache: Path | None, offline: bool, progress: Progress | None
) -> State:
    """Tensors of the released weights, from the safetensors copy in the cache if it is there."""
    card = card.model_copy(update={"weights": adapter.sources(card)})
    if not card.weights:
        raise UnavailableError(
            f"the card of encoder {card.id} names no weights: pass --weights PATH or random"
        )
    folder = weights_dir(card, cache)
    # Without the lock first: a finished cache may be read-only.
    if (copied := read_copy(card, folder)) is not None:
        return copied
    with _sole_user(folder) if any(source.url for source in card.weights) else nullcontext():
        if (copied := read_copy(card, folder)) is not None:
            return copied
        found = locate(card, cache=cache, offline=offline, progress=progress)
        state = adapter.read(found.path)
        if found.source.url and found.path.suffix != ".safetensors":
            keep_copy(card, state, found, folder)
        return state


@contextmanager
def _sole_user(folder: Path) -> Iterator[None]:
    """Two processes neither fetch twice nor read what the other one is about to replace."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire()
    except OSError as error:
        raise UnavailableError(
            f"cannot write the cache {folder} ({error.strerror or error}): "
            f"set {CACHE_VARIABLE} to another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()
