"""Published numbers with their provenance: shown beside measured ones, never in a column with them."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from dune_bench.errors import UsageError, first_problem
from dune_bench.registry.lookup import cards_root

FILE = Path("reports") / "reference" / "published.csv"
Provenance = Literal["primary", "secondary", "third-party-remeasure", "memory-unverified"]
Table = tuple[str, str, str, str, str]


class PublishedRow(BaseModel):
    """One published number.

    encoder: id of the card, or None where there is none or where the checkpoint is not clear.  probe: of
    the tasks here that ask the same question, or None.  value: in the unit that `metric` names; AUCs are
    × 100, RMSE in metres.  provenance: how far it was checked, see `reports/reference/README.md`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    encoder: str | None
    model: str = Field(min_length=1)
    arch: str | None
    resolution: str | None
    probe: str | None
    task: str = Field(min_length=1)
    dataset: str = Field(min_length=1)
    metric: str = Field(min_length=1)
    value: float
    higher_is_better: bool
    provenance: Provenance
    source: str = Field(min_length=1)

    @field_validator("encoder", "arch", "resolution", "probe", mode="before")
    @classmethod
    def _empty_is_unknown(cls, value: object) -> object:
        return None if value == "" else value

    @property
    def table(self) -> Table:
        """What two rows must share to stand in one table.  The source is part of it: who measured, and
        how, differs between sources even where task, dataset and metric have the same names."""
        return (self.task, self.dataset, self.metric, self.provenance, self.source)


def load_published(path: Path) -> tuple[PublishedRow, ...]:
    """The rows of a file.  Raises UsageError naming file, line and field."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot read the published numbers: {error}") from error
    reader = csv.DictReader(text.splitlines())
    rows = []
    for raw in reader:
        try:
            rows.append(PublishedRow.model_validate(raw))
        except (ValidationError, TypeError) as error:
            raise UsageError(f"{path}:{reader.line_num}: {_reason(error)}") from error
    return tuple(rows)


def _reason(error: ValidationError | TypeError) -> str:
    if isinstance(error, TypeError):
        return "more values than columns"
    return first_problem(error, "row")


@cache
def published() -> tuple[PublishedRow, ...]:
    """The rows that come with the package."""
    return load_published(cards_root() / FILE)


def tables_of(
    rows: Iterable[PublishedRow], encoders: Iterable[str], probes: Iterable[str]
) -> dict[Table, tuple[PublishedRow, ...]]:
    """The rows of some encoders and probes, apart by everything that keeps them from comparing."""
    wanted, asked = set(encoders), set(probes)
    found: dict[Table, list[PublishedRow]] = {}
    for row in rows:
        if row.encoder in wanted and row.probe in asked:
            found.setdefault(row.table, []).append(row)
    return {table: tuple(found[table]) for table in sorted(found)}
