"""Where dune-bench keeps what it can make again: the one place that knows the cache folder.

Weights, features and small facts live in subfolders of `cache_root()`.  Everything in it may be
deleted at any time; results never live here.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "DUNE_BENCH_CACHE"


def cache_root() -> Path:
    """The cache folder: `$DUNE_BENCH_CACHE`, else the platform's own.  Not created here."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("dune-bench"))


def weights_cache() -> Path:
    """Checkpoints as downloaded or converted."""
    return cache_root() / "weights"


def features_cache() -> Path:
    """Features of images, see `run/cache.py`."""
    return cache_root() / "features"


def identity_cache() -> Path:
    """What an encoder's files were found to be, see `run/identity.py`."""
    return cache_root() / "identity"


def places_cache() -> Path:
    """Where the user's own and licensed files are, see `registry/places.py`."""
    return cache_root() / "places"


def digests_cache() -> Path:
    """Digests of the user's own files, see `data/digests.py`."""
    return cache_root() / "digests"
