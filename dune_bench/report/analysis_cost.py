"""One universal encoder against the sum of its specialists.  Imports no torch."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dune_bench.errors import UnavailableError
from dune_bench.results.profile import Profile, read_profiles
from dune_bench.results.schema import Result
from dune_bench.results.store import Refused, ResultStore

QUANTITIES: Mapping[str, tuple[str, float]] = {
    "parameters": ("parameters (M)", 1e6),
    "flops": ("FLOPs (G)", 1e9),
    "latency_p50_ms": ("p50 (ms)", 1.0),
    "latency_p95_ms": ("p95 (ms)", 1.0),
    "peak_memory_bytes": ("memory (MiB)", 2.0**20),
}
"""Field -> heading and the unit it is divided by."""


@dataclass(frozen=True)
class CostRow:
    """What one image costs.  None: not known.  Latencies at batch 1."""

    name: str
    parameters: float | None = None
    flops: float | None = None
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    peak_memory_bytes: float | None = None

    def value(self, quantity: str) -> float | None:
        found: float | None = getattr(self, quantity)
        return found


@dataclass(frozen=True)
class CostAnalysis:
    """universal: one forward.  specialists: one forward each.  total: their sum, a quantity of which is
    None if a part is unknown (p95 always: percentiles do not add up).  ratio: total over universal.
    conditions: what all rows share.  missing: specialists without a profile under these conditions.
    refused: files that could not be read."""

    universal: CostRow
    specialists: tuple[CostRow, ...]
    total: CostRow
    ratio: CostRow
    conditions: str
    missing: tuple[str, ...]
    refused: tuple[Refused, ...] = ()

    @property
    def rows(self) -> tuple[CostRow, ...]:
        return (self.universal, *self.specialists, self.total)


def analyse_cost(
    encoder: str, specialists: Sequence[str], runs: Path, resolution: int | None = None
) -> CostAnalysis:
    """resolution: pixels; None for that of the encoder's newest profile.
    Raises UnavailableError if the encoder has no profile, or there is nothing to hold it against."""
    if not specialists:
        raise UnavailableError(
            f"the card of encoder {encoder} names no teachers: name specialists with --against A,B"
        )
    profiles, refused = read_profiles(runs)
    own = _newest(profiles, lambda p: p.encoder == encoder and resolution in (None, p.resolution))
    if own is None:
        at = f" at {resolution} px" if resolution else ""
        option = f" --resolution {resolution}" if resolution else ""
        raise UnavailableError(
            f"{runs} holds no profile of {encoder}{at}: "
            f"run dune-bench profile {encoder}{option} --runs {runs}"
        )
    results, bad = ResultStore(runs).load()
    rows = tuple(_specialist(name, own, profiles, [r for _, r in results]) for name in specialists)
    total = CostRow("sum of specialists", **{key: _sum(rows, key) for key in QUANTITIES})
    universal = _of_profile(own)
    ratio = CostRow("sum / universal", **{key: _over(total, universal, key) for key in QUANTITIES})
    return CostAnalysis(
        universal,
        rows,
        total,
        ratio,
        f"{own.resolution} px, {own.dtype}, {own.provenance.device}, "
        f"{own.provenance.threads} threads, batch 1",
        tuple(row.name for row in rows if row.latency_p50_ms is None),
        (*refused, *bad),
    )


def _newest(profiles: Sequence[Profile], fits: Callable[[Profile], bool]) -> Profile | None:
    return max(filter(fits, profiles), key=lambda p: p.provenance.started, default=None)


def _conditions(profile: Profile) -> tuple[object, ...]:
    where = profile.provenance
    return (profile.resolution, profile.dtype, where.device, where.threads, where.platform)


def _specialist(name: str, own: Profile, profiles: Sequence[Profile], results: Sequence[Result]) -> CostRow:
    found = _newest(profiles, lambda p: p.encoder == name and _conditions(p) == _conditions(own))
    if found is not None:
        return _of_profile(found)
    for result in results:
        known = result.encoder.id == name and result.task.input.get("resolution") == own.resolution
        if known and result.cost.flops is not None:
            return CostRow(name, parameters=result.cost.parameters, flops=result.cost.flops)
    return CostRow(name)


def _of_profile(profile: Profile) -> CostRow:
    return CostRow(
        profile.encoder,  # random weights cost the same: the brand would say nothing here
        profile.parameters,
        profile.flops,
        profile.timings.single.p50_ms,
        profile.timings.single.p95_ms,
        profile.timings.peak_memory_bytes,
    )


def _sum(rows: Sequence[CostRow], quantity: str) -> float | None:
    values = [row.value(quantity) for row in rows]
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) and quantity != "latency_p95_ms" else None


def _over(total: CostRow, universal: CostRow, quantity: str) -> float | None:
    part, whole = total.value(quantity), universal.value(quantity)
    return part / whole if part is not None and whole else None


def to_markdown(analysis: CostAnalysis) -> str:
    headings = [heading for heading, _ in QUANTITIES.values()]
    lines = [f"| {' | '.join(['encoder', *headings])} |", "|---|" + "---:|" * len(headings)]
    for row in analysis.rows:
        cells = [_cell(row.value(key), unit, 1) for key, (_, unit) in QUANTITIES.items()]
        lines.append(f"| {' | '.join([row.name.replace('|', chr(92) + '|'), *cells])} |")
    ratios = [_cell(analysis.ratio.value(key), 1, 2) for key in QUANTITIES]
    lines.append(f"| {' | '.join([analysis.ratio.name, *ratios])} |")
    return "\n".join([*lines, "", f"One image: {analysis.conditions}."]) + "\n"


def _cell(value: float | None, unit: float, digits: int) -> str:
    return "–" if value is None else f"{value / unit:.{digits}f}"


def to_csv(analysis: CostAnalysis) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["encoder", *QUANTITIES])
    for row in (*analysis.rows, analysis.ratio):
        writer.writerow([row.name, *("" if (v := row.value(key)) is None else v for key in QUANTITIES)])
    return text.getvalue()


def to_json(analysis: CostAnalysis) -> str:
    content = {key: value for key, value in asdict(analysis).items() if key != "refused"}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


FORMATS: Mapping[str, Callable[[CostAnalysis], str]] = {"md": to_markdown, "csv": to_csv, "json": to_json}
