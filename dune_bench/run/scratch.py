"""Where the features and heads of an encoder go: the shared cache, or a folder of this process for
an encoder that cannot be identified."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dune_bench.errors import TaskError
from dune_bench.registry.paths import cache_root, features_cache
from dune_bench.run.artifacts import HeadStore
from dune_bench.run.cache import FeatureCache, create_folder
from dune_bench.run.chunks import process_lives
from dune_bench.run.identity import EncoderFacts
from dune_bench.run.request import RunRequest
from dune_bench.run.ui import RunUI


@dataclass(frozen=True)
class Stores:
    """heads, features: where they are looked for and put.  training: parent of the folders of fits under
    way, each named by the key of its head."""

    heads: HeadStore
    features: FeatureCache
    training: Path


@contextmanager
def open_stores(request: RunRequest, facts: EncoderFacts, ui: RunUI) -> Iterator[Stores]:
    """The stores for an encoder.  Without a digest they vanish with the block: nothing could tell
    later whose features they were."""
    if facts.digest is not None:
        yield _stores(request.runs, features_cache(), ui)
        return
    parent = cache_root() / "scratch"
    create_folder(parent)
    _remove_leftovers(parent)
    prefix = f"{socket.gethostname()}-{os.getpid()}-"
    with tempfile.TemporaryDirectory(dir=parent, prefix=prefix, ignore_cleanup_errors=True) as name:
        yield _stores(Path(name), Path(name) / "features", ui)


@contextmanager
def training_folder(parent: Path, key: str, fresh: bool) -> Iterator[Path]:
    """The folder of one fit.  What an interrupted one left there is gone on with, unless `fresh`; when
    the block ends well the checkpoints are removed, and logs stay.  Raises TaskError if the folder cannot
    be written to, or not be emptied."""
    folder = parent / key[:2] / key
    try:
        if fresh and folder.exists():
            shutil.rmtree(folder)  # or an old training would silently be gone on with
        yield folder
    except OSError as error:
        raise TaskError(
            f"training in {folder} stopped: {error.strerror or error}: make it writable, with room on the "
            "disk, and run again"
        ) from error
    for checkpoint in folder.glob("step-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)


def _stores(home: Path, features: Path, ui: RunUI) -> Stores:
    return Stores(
        HeadStore(home / "heads", ui.warning), FeatureCache(features, ui.warning), home / "training"
    )


def _remove_leftovers(parent: Path) -> None:
    """Folders of processes of this host that no longer live."""
    own = f"{socket.gethostname()}-"
    for folder in parent.glob(f"{own}*"):
        pid = folder.name.removeprefix(own).partition("-")[0]
        if pid.isdecimal() and not process_lives(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)
