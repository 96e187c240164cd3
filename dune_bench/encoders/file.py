"""An encoder from the user's own Python file: `--encoder path/to/file.py[:attribute]`.

The file is executed: the user named it to be.  Nothing else in this package runs code from data.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from torch import nn

from dune_bench.encoders.adapter import Adapter, parse_arch, untouched_rng
from dune_bench.encoders.base import IMAGENET_MEAN, IMAGENET_STD, Encoder
from dune_bench.encoders.checkpoint import State, file_sha256, tensor_digest
from dune_bench.encoders.module import ModuleEncoder
from dune_bench.errors import BenchError, UsageError
from dune_bench.registry.cards import Card, EncoderCard
from dune_bench.registry.suggest import did_you_mean

_RAISED = (ImportError, SyntaxError, NameError, AttributeError, TypeError, ValueError, LookupError, OSError)


class FileArch(Card):
    """path: of the file.  attribute: the name in it."""

    path: str
    attribute: str = "encoder"


class FileEncoder(Adapter):
    """The attribute is one of

    - an `Encoder` (made with `Encoder.from_module`, or a class of your own);
    - an `nn.Module` or a function of the normalised batch, with the constants `PATCH_SIZE` and, unless
      ImageNet's, `MEAN` and `STD` beside it;
    - a function without arguments that returns one of these (`def encoder(): …`).

    Features are cached under the digest of the module's tensors and of the file's text.  Code that the
    file imports from elsewhere is not part of it: change the file, or set `FINGERPRINT`, when that
    changes.  An encoder that is no `nn.Module` inside is not cached unless it brings a fingerprint.
    """

    needs_weights = False

    @classmethod
    def from_card(cls, card: EncoderCard, state: State | None) -> Encoder:
        arch = parse_arch(card, FileArch)
        path = Path(arch.path)
        with untouched_rng():
            module = run_file(path)
            found = _called(_attribute(module, arch.attribute, path), path)
            encoder = found if isinstance(found, Encoder) else _wrapped(found, module, card.id, path)
        encoder.id, encoder.weights = card.id, "file"
        if encoder.weights_digest is None and encoder.module is not None:
            encoder.weights_digest = _digest(encoder.module, path)
        return encoder


class _Uncached(SourceFileLoader):
    """Compiles the file as it is now.  Python's bytecode cache goes by the second of its last change and by
    its size: a number changed at once would run as it was."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def run_file(path: Path) -> ModuleType:
    """Executes a Python file as a module of its own.  Raises UsageError with the line that failed."""
    if not path.is_file():
        raise UsageError(f"encoder file {path} does not exist")
    name = f"dune_bench_file_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    loader = _Uncached(name, str(path))
    spec = ModuleSpec(name, loader, origin=str(path))
    spec.has_location = True
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _guarded(lambda: loader.exec_module(module), path)
    return module


def _guarded(call: Callable[[], Any], path: Path) -> Any:
    try:
        return call()
    except BenchError:
        raise
    except _RAISED as error:
        raise UsageError(
            f"encoder file {path}: {_place(error, path)}{type(error).__name__}: {error}"
        ) from error


def _place(error: BaseException, path: Path) -> str:
    """`line N: `, the last line of the file itself in the traceback."""
    lines, trace = [], error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f"line {lines[-1]}: " if lines else ""


def _attribute(module: ModuleType, attribute: str, path: Path) -> Any:
    if not hasattr(module, attribute):
        public = [name for name in vars(module) if not name.startswith("_")]
        raise UsageError(
            f"encoder file {path}: nothing is called {attribute!r}{did_you_mean(attribute, public)}"
        )
    return getattr(module, attribute)


def _called(found: Any, path: Path) -> Any:
    """The result of a factory (a function without required arguments), or the thing itself."""
    if isinstance(found, (Encoder, nn.Module)) or not callable(found):
        return found
    parameters = _guarded(lambda: inspect.signature(found), path).parameters.values()
    required = [
        p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    return found if required else _guarded(found, path)


def _wrapped(found: Any, module: ModuleType, id: str, path: Path) -> ModuleEncoder:
    if not callable(found):
        raise UsageError(
            f"encoder file {path}: found a {type(found).__name__}, expected an Encoder, an nn.Module, "
            "or a function that returns one"
        )
    patch_size = getattr(module, "PATCH_SIZE", None)
    if not isinstance(patch_size, int):
        raise UsageError(f"encoder file {path}: set PATCH_SIZE = <pixels per token> beside the module")
    return ModuleEncoder(
        found,
        patch_size,
        id=id,
        mean=tuple(getattr(module, "MEAN", IMAGENET_MEAN)),
        std=tuple(getattr(module, "STD", IMAGENET_STD)),
        fingerprint=getattr(module, "FINGERPRINT", None),
    )


def _digest(network: nn.Module, path: Path) -> str:
    """sha256 (hex) over the module's tensors and the file's bytes."""
    return hashlib.sha256(f"{tensor_digest(network.state_dict())}\0{file_sha256(path)}".encode()).hexdigest()
