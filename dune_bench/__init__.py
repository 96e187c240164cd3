"""dune-bench: benchmark and evaluation suite for universal vision encoders.

The names below are the stable Python API; they are loaded when first used, so that
`import dune_bench` imports no torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dune_bench.api import compare, gate, load_encoder, register_encoder, results, run

__version__ = "0.1.0"
__all__ = ["__version__", "compare", "gate", "load_encoder", "register_encoder", "results", "run"]

_API = ("compare", "gate", "load_encoder", "register_encoder", "results", "run")


def _of_the_api(name: str) -> Any:
    return getattr(importlib.import_module("dune_bench.api"), name)


class _CallablePart(ModuleType):
    """A part of the package whose name is also a function of the API: `run` and `results`.

    Python binds an imported submodule in its parent, so `dune_bench.run` would stop being the function
    as soon as anything imports `dune_bench.run.…`.  Called, such a part is the function.
    """

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.__wrapped__(*arguments, **options)

    @property
    def __wrapped__(self) -> Any:
        """The function; `inspect.signature` and documentation tools look here."""
        return _of_the_api(self.__name__.rpartition(".")[2])


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        if name in _API and type(value) is ModuleType:
            value.__class__ = _CallablePart
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _API:
        return _of_the_api(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
