"""Numbers and names as every table prints them: unit, arrow, interval, brand."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dune_bench.results.schema import Metric, Result, TaskInfo

DECIMALS = {"%": 1, "m": 3, "mm": 1, "deg": 2, "px": 1, "1": 3}
"""Digits after the point by unit; other units get four significant digits."""

UNDEFINED = "undefined"
NO_SPREAD = "‡"
NO_SPREAD_MEANS = (
    "no interval can be given: the value is the same whichever rooms or groups are drawn, so resampling "
    "them does not show how far off it may be; that is not certainty"
)
FAILED_MEANS = "so many samples got no answer; the metric counts them as its task says, never as perfect"
_MARKDOWN = re.compile(r"([\\`*|~\[\]])")
_EDGE_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def number(value: float | None, unit: str) -> str:
    """A value without its unit; None, a metric that this split does not define, says so."""
    if value is None:
        return UNDEFINED
    return f"{value:.{DECIMALS[unit]}f}" if unit in DECIMALS else f"{value:.4g}"


def with_interval(metric: Metric) -> str:
    """`45.1 [43.0, 47.2]`; see `interval`."""
    text = f"{number(metric.value, metric.unit)} {interval(metric)}".rstrip()
    if metric.n_failed:
        text += f" ({metric.n_failed} failed)"
    return text


def interval(metric: Metric) -> str:
    """`[43.0, 47.2]`; NO_SPREAD for an interval of no width; nothing where there is none."""
    if metric.value is None or metric.ci95 is None:
        return ""
    low, high = metric.ci95
    if low == high:
        return NO_SPREAD
    return f"[{number(low, metric.unit)}, {number(high, metric.unit)}]"


def has_no_spread(metrics: Iterable[Metric]) -> bool:
    """Whether the sign NO_SPREAD stands beside any of them."""
    return any(interval(metric) == NO_SPREAD for metric in metrics)


def heading(metric: Metric) -> str:
    """`miou (%) ↑`; a metric of unit 1 has no unit to print."""
    unit = "" if metric.unit == "1" else f" ({metric.unit})"
    return f"{metric.id}{unit} {'↑' if metric.higher_is_better else '↓'}"


def qualifiers(task: TaskInfo) -> list[str]:
    """What sets a column apart from the task as its card has it: overrides, limit."""
    found = [f"{name}={value}" for name, value in sorted(task.overrides.items()) if name != "limit"]
    if task.limited is not None:
        found.append(f"limit {task.limited}")
    return found


def column_name(task: TaskInfo) -> str:
    """The task's id with its qualifiers: `semseg/minirooms/convex@1 (limit 8)`."""
    extra = qualifiers(task)
    return f"{task.id} ({', '.join(extra)})" if extra else task.id


def overlaps(result: Result) -> bool:
    """Whether the encoder was trained on the data of the task, as far as its card says."""
    dataset = task_dataset(result.task)
    return any(dataset == name.partition("@")[0].lower() for name in result.encoder.trained_on)


def task_dataset(task: TaskInfo) -> str:
    """The dataset's name without its version, in lower case."""
    return task.dataset.partition("@")[0].lower()


def one_line(text: str) -> str:
    """Any text as one line without control characters."""
    return _CONTROL.sub(" ", text).strip()


def escape(text: str) -> str:
    """Any text as one line of Markdown that shows exactly it, also inside a table cell."""
    text = one_line(text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _EDGE_UNDERSCORE.sub(r"\\_", _MARKDOWN.sub(r"\\\1", text))
