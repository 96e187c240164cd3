"""Where the user said that something lies which does not ship: licensed files, data of their own.

`dune-bench prepare NAME --root DIR` writes one small file a name into `places_cache()`; nothing is copied.
As all of the cache it may be deleted: what needs the place then says to prepare it again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dune_bench.errors import TaskError
from dune_bench.registry.paths import places_cache


@dataclass(frozen=True)
class Place:
    """root: absolute.  sha256: what was there when it was recorded, by a name of its own."""

    root: Path
    sha256: Mapping[str, str]


def recorded_place(name: str) -> Place | None:
    """The place recorded under that name, which may have gone since; None if there is none."""
    try:
        content = json.loads(_file(name).read_text(encoding="utf-8"))
        digests = {str(key): str(value) for key, value in content["sha256"].items()}
        return Place(Path(str(content["root"])), digests)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # A damaged record says as little as none.
        return None


def record_place(name: str, root: Path, sha256: Mapping[str, str]) -> Place:
    """Remembers a folder for later commands.  Raises TaskError if the cache cannot be written."""
    place, file = Place(root.absolute(), dict(sha256)), _file(name)
    text = json.dumps({"root": str(place.root), "sha256": place.sha256}, indent=1)
    # Another process may read at any time: it sees the old record or the new one.
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text + "\n", encoding="utf-8")
        draft.replace(file)
    except OSError as error:
        raise TaskError(
            f"cannot record {root} in {file}: {error.strerror or error}: set DUNE_BENCH_CACHE to a "
            "folder that can be written"
        ) from error
    return place


def _file(name: str) -> Path:
    return places_cache() / f"{name}.json"
