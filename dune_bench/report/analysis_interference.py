"""Which teacher is in whose way: losses by teacher and domain, cosines of gradients by block, and which task
a teacher helps, from students trained without it.  Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dune_bench.registry.lookup import Registry
from dune_bench.report.format import column_name, escape, heading
from dune_bench.report.grid import csv_table, fine, interval, markdown_table, p_text
from dune_bench.report.paired import compare_runs
from dune_bench.results.compare import TaskComparison, adjusted
from dune_bench.results.store import write_atomic

if TYPE_CHECKING:
    from dune_bench.distill.interference import BlockCosine, DomainLoss

WHOLE = "all"
"""In place of a block: the whole encoder."""
HELPS, HURTS, UNTOLD = "helps", "hurts", "cannot be told"
_OUTCOMES = {"better": HELPS, "worse": HURTS}
LOSS_NOTE = (
    "Means over images with the teacher's moving statistics, ± standard error over images.  "
    "`*`: not held out, the student was trained on images of this source."
)
COSINE_NOTE = (
    "Mean over batches of the cosine of two teachers' gradients, without dropping or weights, ± standard "
    "error over batches.  Below 0, a step for one is a step against the other; `against each other`: "
    "blocks whose 95 % t-interval lies below 0, each on its own."
)
INFLUENCE_NOTE = (
    "With the teacher minus without it, in the metric's unit, and the 95 % interval of the paired bootstrap "
    "over groups of test images.  A teacher helps or hurts where the interval excludes 0 and p, adjusted for "
    "all cells (Holm), is below 0.05.  Each student was trained once: how much another seed of the training "
    "would change is not in these intervals."
)


@dataclass(frozen=True)
class Influence:
    """A teacher on a task: `comparison.second` is with it, `.first` without."""

    teacher: str
    comparison: TaskComparison

    @property
    def task(self) -> str:
        return column_name(self.comparison.task)

    @property
    def outcome(self) -> str:
        """HELPS, HURTS or UNTOLD."""
        return _OUTCOMES.get(self.comparison.outcome, UNTOLD)

    @property
    def gain(self) -> float:
        """With − without, positive if the teacher makes the metric better."""
        value = self.comparison.difference.value
        return value if self.comparison.metric.higher_is_better else -value

    @property
    def score(self) -> float | None:
        """`gain` in standard errors; None without an interval or spread."""
        error = self.comparison.difference.se
        return self.gain / error if error else None


@dataclass(frozen=True)
class Interference:
    """losses, cosines: of each student.  influences: teacher by teacher.  full: the student that all
    teachers taught, None without influences.  notes: what was left out, a line each."""

    losses: tuple[DomainLoss, ...] = ()
    cosines: tuple[BlockCosine, ...] = ()
    influences: tuple[Influence, ...] = ()
    full: str | None = None
    notes: tuple[str, ...] = ()


def influences_of(
    full: str, without: Mapping[str, str], runs: Path, registry: Registry, tasks: Sequence[str] = ()
) -> tuple[tuple[Influence, ...], tuple[str, ...]]:
    """What each teacher does to each task, and notes on what could not be compared.

    full: the student that all teachers taught.  without: teacher -> the student trained without it; names as
    `compare` takes them.  p-values are adjusted over all teachers and tasks.  Raises as `compare_runs`.
    """
    found: list[tuple[str, TaskComparison]] = []
    notes: list[str] = []
    for teacher, other in without.items():
        comparison = compare_runs(other, full, runs, registry, tasks)
        found += [(teacher, task) for task in comparison.tasks]
        notes += [f"without {teacher}: {entry.task}: {entry.reason}" for entry in comparison.left_out]
        notes += [f"without {teacher}: {note}" for note in comparison.notes]
    together = adjusted([task for _, task in found])
    rows = zip(found, together, strict=True)
    return tuple(Influence(teacher, task) for (teacher, _), task in rows), tuple(dict.fromkeys(notes))


def sentence(teacher: str, influences: Sequence[Influence]) -> str:
    """What one teacher does, with its uncertainty; only what the intervals bear out is claimed."""
    own = [i for i in influences if i.teacher == teacher]
    claims = []
    for outcome in (HELPS, HURTS):
        if found := [i for i in own if i.outcome == outcome]:
            claims.append(f"{outcome} {_listed([_measured(i) for i in found])}")
    text = (
        f"{teacher} {' and '.join(claims)}." if claims else f"{teacher}: no influence on a task can be told."
    )
    if untold := [i for i in own if i.outcome == UNTOLD]:
        lead = "Whether it helps or hurts cannot be told for" if claims else "Cannot be told for"
        text += f" {lead} {_listed([f'{_measured(i)}{_why(i)}' for i in untold])}."
    return text


def sentences(influences: Sequence[Influence]) -> tuple[str, ...]:
    """One for each teacher."""
    return tuple(sentence(t, influences) for t in dict.fromkeys(i.teacher for i in influences))


def to_markdown(analysis: Interference) -> str:
    """A page: what was found, and what the numbers are."""
    parts = ["# Interference between teachers"]
    if analysis.influences:
        parts += [f"## What a teacher does to a task (student {escape(str(analysis.full))})"]
        parts += ["\n".join(f"- {escape(text)}" for text in sentences(analysis.influences))]
        parts += [_influence_table(analysis.influences), INFLUENCE_NOTE]
    for student in dict.fromkeys(loss.student for loss in analysis.losses):
        losses = [loss for loss in analysis.losses if loss.student == student]
        cosines = [cosine for cosine in analysis.cosines if cosine.student == student]
        parts += [f"## Losses by teacher and domain: {escape(student)}", _loss_table(losses), LOSS_NOTE]
        if cosines:
            parts += [f"## Gradients on the encoder: {escape(student)}", _cosine_text(cosines), COSINE_NOTE]
            parts += [_cosine_table(cosines)]
    if analysis.notes:
        parts += ["## Notes", "\n".join(f"- {escape(note)}" for note in analysis.notes)]
    return "\n\n".join(parts) + "\n"


def losses_csv(losses: Sequence[DomainLoss]) -> str:
    header = (
        "student", "teacher", "domain", "held_out", "images", "one_minus_cos", "one_minus_cos_se",
        "smooth_l1", "smooth_l1_se",
    )  # fmt: skip
    rows = [
        [
            r.student,
            r.teacher,
            r.domain,
            r.held_out,
            r.images,
            r.cosine,
            r.cosine_se,
            r.smooth_l1,
            r.smooth_l1_se,
        ]
        for r in losses
    ]
    return csv_table(header, rows)


def cosines_csv(cosines: Sequence[BlockCosine]) -> str:
    header = ("student", "first", "second", "block", "batches", "cosine", "se")
    return csv_table(
        header, [[c.student, c.first, c.second, c.block, c.batches, c.cosine, c.se] for c in cosines]
    )


def influence_csv(influences: Sequence[Influence]) -> str:
    header = (
        "teacher", "task", "metric", "unit", "higher_is_better", "with", "without", "difference", "se",
        "ci_low", "ci_high", "p", "p_holm", "groups", "gain", "outcome",
    )  # fmt: skip
    rows: list[list[object]] = []
    for influence in influences:
        found, metric = influence.comparison.difference, influence.comparison.metric
        low, high = found.ci95 or (None, None)
        rows.append([
            influence.teacher, influence.task, metric.id, metric.unit, metric.higher_is_better,
            influence.comparison.second, influence.comparison.first, found.value, found.se, low, high,
            found.p_value, influence.comparison.p_holm, found.groups, influence.gain, influence.outcome,
        ])  # fmt: skip
    return csv_table(header, rows)


def write_interference(analysis: Interference, out: Path) -> list[Path]:
    """Writes the page, tables and heat maps; returns the files.  Raises TaskError."""
    from dune_bench.report.plot_interference import cosines_png, influence_png, losses_png

    files: dict[str, bytes] = {"interference.md": to_markdown(analysis).encode()}
    if analysis.losses:
        files["losses.csv"] = losses_csv(analysis.losses).encode()
        files["losses.png"] = losses_png(analysis.losses)
    if analysis.cosines:
        files["gradients.csv"] = cosines_csv(analysis.cosines).encode()
        files["gradients.png"] = cosines_png(analysis.cosines)
    if analysis.influences:
        files["influence.csv"] = influence_csv(analysis.influences).encode()
        files["influence.png"] = influence_png(analysis.influences)
    for name, content in files.items():
        write_atomic(out / name, content)
    return [out / name for name in files]


def merged(parts: Sequence[Interference]) -> Interference:
    """Several analyses as one; `full` of the last that has one."""
    whole = Interference()
    for part in parts:
        whole = replace(
            whole,
            losses=whole.losses + part.losses,
            cosines=whole.cosines + part.cosines,
            influences=whole.influences + part.influences,
            full=part.full or whole.full,
            notes=whole.notes + part.notes,
        )
    return whole


def _measured(influence: Influence) -> str:
    """`depth (rmse_m ↓ -0.012 with it, 95 % [-0.02, -0.01])`."""
    unit, found = influence.comparison.metric.unit, influence.comparison.difference
    value = fine(found.value, unit, signed=True)
    inside = f"{heading(influence.comparison.metric)} {value} with it"
    return f"{influence.task} ({inside}, 95 % interval {interval(found, unit)})"


def _why(influence: Influence) -> str:
    return ", not after Holm's correction" if influence.comparison.outcome == "not after Holm" else ""


def _listed(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{'; '.join(texts[:-1])}; and {texts[-1]}"


def _influence_table(influences: Sequence[Influence]) -> str:
    header = (
        "teacher",
        "task",
        "metric",
        "without",
        "with",
        "with − without",
        "95 % interval",
        "p (Holm)",
        "it",
    )
    rows = []
    for influence in influences:
        found, metric = influence.comparison.difference, influence.comparison.metric
        rows.append([
            influence.teacher,
            influence.task,
            heading(metric),
            fine(influence.comparison.first, metric.unit),
            fine(influence.comparison.second, metric.unit),
            fine(found.value, metric.unit, signed=True),
            interval(found, metric.unit),
            p_text(influence.comparison.p_holm, found.p_is_bound),
            influence.outcome,
        ])  # fmt: skip
    return markdown_table(header, rows)


def _loss_table(losses: Sequence[DomainLoss]) -> str:
    rows = [
        [
            loss.teacher,
            loss.domain + ("" if loss.held_out else "*"),
            str(loss.images),
            with_error(loss.cosine, loss.cosine_se),
            with_error(loss.smooth_l1, loss.smooth_l1_se),
        ]
        for loss in losses
    ]
    return markdown_table(("teacher", "domain", "images", "1 − cos ↓", "smooth L1 ↓"), rows)


def _cosine_text(cosines: Sequence[BlockCosine]) -> str:
    """A line for each pair: the whole encoder, and the blocks that are in conflict for certain."""
    lines = []
    for first, second in dict.fromkeys((c.first, c.second) for c in cosines):
        own = [c for c in cosines if (c.first, c.second) == (first, second)]
        whole = next(c for c in own if c.block == WHOLE)
        against = [c for c in own if c.block != WHOLE and _below_zero(c)]
        said = f"{first} and {second}: {with_error(whole.cosine, whole.se)} on the whole encoder"
        names = ", ".join(c.block for c in against)
        said += (
            f"; against each other on {names}" if against else "; on no block against each other for certain"
        )
        lines.append(f"- {escape(said)}")
    return "\n".join(lines)


def _below_zero(cosine: BlockCosine) -> bool:
    """Whether the 95 % t-interval over batches lies below 0."""
    from scipy.stats import t as student_t

    if cosine.se is None:
        return False
    return bool(cosine.cosine + student_t.ppf(0.975, cosine.batches - 1) * cosine.se < 0)


def _cosine_table(cosines: Sequence[BlockCosine]) -> str:
    pairs = list(dict.fromkeys((c.first, c.second) for c in cosines))
    cells = {(c.first, c.second, c.block): with_error(c.cosine, c.se) for c in cosines}
    blocks = list(dict.fromkeys(c.block for c in cosines))
    rows = [[block, *(cells[(*pair, block)] for pair in pairs)] for block in blocks]
    return markdown_table(("block", *(f"{a} · {b}" for a, b in pairs)), rows)


def with_error(value: float, error: float | None) -> str:
    """`0.123 ± 0.004`; the value alone without an error."""
    return f"{value:.3f}" if error is None else f"{value:.3f} ± {error:.3f}"
