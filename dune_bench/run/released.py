"""What was released with an encoder beside it: the file, found once a run, and the hash of it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from dune_bench.encoders.checkpoint import file_sha256
from dune_bench.encoders.weights import ReleasedPart, locate_released
from dune_bench.errors import TaskError, UnavailableError
from dune_bench.probes.base import ReleasedFile
from dune_bench.registry.cards import EncoderCard, fingerprint
from dune_bench.registry.paths import identity_cache
from dune_bench.results.store import write_atomic
from dune_bench.run.identity import stamp
from dune_bench.run.request import RunRequest


class Released:
    """Called with what is wanted, gives the file; raises UnavailableError, without a second try once it is
    known."""

    def __init__(self, card: EncoderCard, request: RunRequest) -> None:
        self._card, self._request = card, request
        self._found: dict[ReleasedPart, ReleasedFile | UnavailableError] = {}

    def __call__(self, part: ReleasedPart) -> ReleasedFile:
        if part not in self._found:
            self._found[part] = self._find(part)
        found = self._found[part]
        if isinstance(found, UnavailableError):
            raise found
        return found

    def _find(self, part: ReleasedPart) -> ReleasedFile | UnavailableError:
        try:
            path = locate_released(self._card, part, offline=self._request.offline).path
        except UnavailableError as error:
            return error
        return ReleasedFile(path, remembered_sha256(path, verify=self._request.verify))


def remembered_sha256(path: Path, *, verify: bool = False) -> str:
    """sha256 (hex) of a large file, remembered as long as the file is untouched, unless `verify`."""
    state = stamp(path)
    memory = identity_cache() / f"{fingerprint(['sha256', state])}.json"
    if not verify:
        try:
            return str(json.loads(memory.read_text(encoding="utf-8"))["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # a cache: whatever is wrong with it, the file itself can say the same
    digest = file_sha256(path)
    with suppress(TaskError):  # only speed is lost
        write_atomic(memory, json.dumps({"sha256": digest}).encode())
    return digest
