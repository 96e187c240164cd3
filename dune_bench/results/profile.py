"""The profile of an encoder: what one image costs at a resolution; JSON in `profiles/` of a runs folder.

All fields but `timings` and `provenance` are the same on every machine.  Imports no torch.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from dune_bench.errors import TaskError, first_problem
from dune_bench.results.schema import Part, Provenance
from dune_bench.results.store import Refused, safe_name, write_atomic

PROFILE_SCHEMA = 1


class BatchTiming(Part):
    """Forwards with `batch_size` images.  Milliseconds are of the whole batch, over `forwards` repeats."""

    batch_size: int
    forwards: int
    p50_ms: float
    p95_ms: float
    images_per_s: float
    """Batch size over p50."""


class ProfileTimings(Part):
    """What differs from machine to machine.

    peak_memory_bytes: at batch 1; on a CPU the peak resident memory of the whole process (program,
    weights and their loading included), on CUDA what torch allocated.  out_of_memory_at: the batch size
    at which memory ran out, None if it did not.
    """

    batches: tuple[BatchTiming, ...]
    peak_memory_bytes: int
    out_of_memory_at: int | None = None

    @property
    def single(self) -> BatchTiming:
        """At batch 1."""
        return self.batches[0]

    @property
    def best(self) -> BatchTiming:
        """Of the highest throughput."""
        return max(self.batches, key=lambda batch: batch.images_per_s)


class Profile(Part):
    """One encoder, one view, one input size (square, pixels).  flops: of one image, a multiply-add counts as
    two, matrix products and convolutions only.  tokens: grid (rows, columns).  dim: channels of the view.
    parameters and flops are None for a network that is no torch module."""

    profile: int = PROFILE_SCHEMA
    encoder: str
    weights: str
    digest: str | None
    adapter: str
    view: str
    resolution: int
    dtype: str
    parameters: int | None
    flops: float | None
    tokens: tuple[int, int]
    dim: int
    timings: ProfileTimings
    provenance: Provenance

    @property
    def label(self) -> str:
        """The encoder's name as reports print it."""
        plain = self.weights in ("released", "none")
        return self.encoder + ("" if plain else f" [{self.weights} weights]")


def write_profile(profile: Profile, runs: Path) -> Path:
    """Writes it below a runs folder; an older one of the same encoder, view, size, dtype, weights and
    device is replaced.  Raises TaskError."""
    digest = (profile.digest or profile.weights)[:12]
    device = profile.provenance.device
    name = f"{profile.view}.{profile.resolution}.{profile.dtype}.{device}.{digest}"
    path = Path(runs) / "profiles" / safe_name(profile.encoder) / f"{safe_name(name)}.json"
    write_atomic(path, to_json(profile).encode())
    return path


def to_json(profile: Profile) -> str:
    return json.dumps(profile.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"


def read_profiles(runs: Path) -> tuple[list[Profile], list[Refused]]:
    """All profiles below a runs folder in the order of their paths, and the files refused."""
    good: list[Profile] = []
    refused: list[Refused] = []
    for path in sorted((Path(runs) / "profiles").glob("*/*.json")):
        try:
            good.append(read_profile(path))
        except TaskError as error:
            refused.append(Refused(path, str(error)))
    return good, refused


def read_profile(path: Path) -> Profile:
    """One file.  Raises TaskError naming it."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise TaskError(f"{path}: not readable as JSON: {error}") from error
    version = raw.get("profile") if isinstance(raw, dict) else None
    if version != PROFILE_SCHEMA:
        raise TaskError(f"{path}: not a profile of schema {PROFILE_SCHEMA}: run `dune-bench profile` again")
    try:
        found = Profile.model_validate(raw)
    except ValidationError as error:
        raise TaskError(f"{path}: not a valid profile: {first_problem(error, 'profile')}") from error
    if not found.timings.batches or found.timings.single.batch_size != 1:
        raise TaskError(f"{path}: a profile begins with batch size 1: run `dune-bench profile` again")
    return found
