"""The renderer and the denoiser: loaded when first asked for, with a clear word if they are missing."""

from __future__ import annotations

import ctypes.util
import importlib
import os
from functools import cache
from typing import Any

from dune_bench.errors import UnavailableError

_VARIANT = "llvm_ad_rgb"
_TESTED_LLVM = ("LLVM-15", "LLVM-14", "LLVM-16", "LLVM-17")


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UnavailableError(
            f"{name} is not installed; get the generator's dependency group: pip install --group minirooms"
        ) from error


@cache
def mitsuba() -> Any:
    """The mitsuba module with its variant set.  Raises UnavailableError if it is not installed.

    mitsuba 3.6.4 is tested with LLVM 14 and 15; another library can be named in DRJIT_LIBLLVM_PATH.
    OMP_NUM_THREADS bounds its threads too.
    """
    if "DRJIT_LIBLLVM_PATH" not in os.environ:
        found = next((path for name in _TESTED_LLVM if (path := ctypes.util.find_library(name))), None)
        if found is not None:
            os.environ["DRJIT_LIBLLVM_PATH"] = found
    module = _module("mitsuba")
    module.set_variant(_VARIANT)
    if threads := os.environ.get("OMP_NUM_THREADS"):
        _module("drjit").set_thread_count(int(threads))  # it has a pool of its own
    return module


@cache
def denoiser() -> Any:
    """The pyoidn module.  Raises UnavailableError if it is not installed."""
    return _module("pyoidn")
