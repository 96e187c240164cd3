"""The result of one encoder on one task: a JSON file, with per-sample statistics in an `.npz` beside it.

Facts and their provenance, never edited.  `schema` numbers the layout; older files are migrated on
reading, newer ones refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dune_bench.errors import TaskError, first_problem

SCHEMA = 1

Status = Literal["ok", "failed", "unavailable"]
Json = None | bool | int | float | str | list[Any] | dict[str, Any]


class Part(BaseModel):
    """Base: frozen, unknown keys and non-finite numbers are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Metric(Part):
    """One number.  value is None where the metric is undefined on this split; ci95 is None where
    there are too few groups for an interval.  n counts samples scored, n_failed those that failed."""

    id: str
    value: float | None
    unit: str
    higher_is_better: bool
    primary: bool = False
    margin: float | None = None
    ci95: tuple[float, float] | None = None
    n: int
    n_failed: int = 0


class BreakdownResult(Part):
    """A metric per key (per-class IoU …); None where undefined."""

    metric: str
    by: str
    values: dict[str, float | None]


class EncoderInfo(Part):
    """What was evaluated.  weights: `released`, `random`, `file`, … ; anything but the card's own
    weights is shown beside the name in every report.  digest: sha256 over the loaded tensors."""

    id: str
    weights: str
    digest: str | None
    adapter: str
    view: str
    card_fingerprint: str
    trained_on: tuple[str, ...] = ()
    teachers: tuple[str, ...] = ()


class TaskInfo(Part):
    """What it was evaluated on.  Two results share a column only if all of this is equal."""

    id: str
    probe: str
    dataset: str
    protocol: str
    protocol_fingerprint: str
    input: dict[str, Json]
    overrides: dict[str, Json] = Field(default_factory=dict)
    dataset_fingerprints: dict[str, str] = Field(default_factory=dict)
    split_sizes: dict[str, int] = Field(default_factory=dict)
    groups: dict[str, int] = Field(default_factory=dict)
    limited: int | None = None
    """The `--limit` in force, or None."""
    score_version: int
    upstream: dict[str, str] = Field(default_factory=dict)
    """Role -> head key of a required task."""


class Provenance(Part):
    """Where and when.  commit is None outside a checkout."""

    dune_bench: str
    commit: str | None
    dirty: bool | None
    python: str
    torch: str
    platform: str
    device: str
    threads: int
    started: str
    """UTC, ISO 8601."""
    argv: tuple[str, ...] = ()


class Timings(Part):
    """Seconds by phase, and the peak resident memory of the process in bytes."""

    seconds: dict[str, float] = Field(default_factory=dict)
    peak_memory_bytes: int | None = None


class Cost(Part):
    """What one image costs at the task's input.  FLOPs counts a multiply-add as two."""

    parameters: int | None = None
    flops: float | None = None
    latency_ms: float | None = None
    """Median milliseconds per image over the extraction's batches, if images were forwarded."""
    batch_size: int | None = None


class SampleStats(Part):
    """The `.npz` beside the JSON: its file name, sha256 and number of rows."""

    file: str
    sha256: str
    rows: int


class Result(Part):
    """One (encoder, task)."""

    schema_version: int = Field(default=SCHEMA, alias="schema")
    key: str
    """Identity of everything that moves the numbers."""
    status: Status
    error: str | None = None
    encoder: EncoderInfo
    task: TaskInfo
    metrics: tuple[Metric, ...] = ()
    breakdowns: tuple[BreakdownResult, ...] = ()
    choices: dict[str, Json] = Field(default_factory=dict)
    """What the solver chose: λ, iterations, convergence."""
    seeds: tuple[int, ...] = ()
    provenance: Provenance
    timings: Timings = Field(default_factory=Timings)
    cost: Cost = Field(default_factory=Cost)
    samples: SampleStats | None = None

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    @model_validator(mode="after")
    def _consistent(self) -> Result:
        if self.status == "ok" and not self.metrics:
            raise ValueError("a result with status ok has metrics")
        if self.status != "ok" and not self.error:
            raise ValueError(f"a result with status {self.status} says why in `error`")
        return self

    @property
    def primary(self) -> Metric | None:
        return next((metric for metric in self.metrics if metric.primary), None)

    @property
    def label(self) -> str:
        """The encoder's name as every report prints it: `dune_vitb [random weights]`.  An encoder
        that needs no weights (`none`) has its plain name."""
        return encoder_label(self.encoder.id, self.encoder.weights)


def encoder_label(id: str, weights: str) -> str:
    """See `Result.label`."""
    return id if weights in ("released", "none") else f"{id} [{weights} weights]"


Migration = Callable[[dict[str, Any]], dict[str, Any]]
MIGRATIONS: Mapping[int, Migration] = {}
"""From schema n to n + 1.  Empty until the first change."""


def parse_result(raw: Any, where: str, migrations: Mapping[int, Migration] = MIGRATIONS) -> Result:
    """A result from JSON data of this or an older schema.  Raises TaskError naming file and field."""
    version = raw.get("schema") if isinstance(raw, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise TaskError(f"{where}: not a dune-bench result (no integer `schema`)")
    if version > SCHEMA:
        raise TaskError(f"{where}: schema {version} is newer than this dune-bench ({SCHEMA}): upgrade")
    while version < SCHEMA:
        if version not in migrations:
            raise TaskError(f"{where}: no migration from schema {version}: run the task again")
        raw = migrations[version](dict(raw))
        version += 1
    try:
        return Result.model_validate(raw)
    except ValidationError as error:
        raise TaskError(f"{where}: not a valid result: {first_problem(error, 'result')}") from error


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a result file."""
    return Result.model_json_schema(by_alias=True)


def finite_or_none(value: float) -> float | None:
    """NaN marks an undefined metric in arrays; files say null."""
    return float(value) if math.isfinite(value) else None
