"""The verdict of a gate as a table, Markdown (a CI summary), JUnit XML and JSON."""

from __future__ import annotations

import json
import re
from typing import Any
from xml.etree import ElementTree

from dune_bench.report.format import column_name, escape, heading, number
from dune_bench.report.grid import aligned, fine, markdown_table
from dune_bench.results.gate import Check, Gate

FORMAT = 1
HEADER = ("task", "metric", "baseline", "now", "drop", "tolerance", "finds drops of", "verdict")
_NOTE = (
    "Drop: positive is worse.  Tolerance: the larger of the card's margin and k standard errors of the "
    "paired difference, k for at most 5 % false alarms over all tasks.  `finds drops of`: a true drop that "
    "this data shows at least 9 times in 10; underpowered if that is more than twice the margin."
)
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def table(gate: Gate) -> str:
    """For a terminal."""
    parts = [_title(gate), _against(gate), aligned(HEADER, [_row(check) for check in gate.checks])]
    if reasons := [f"{column_name(c.task)}: {c.reason}" for c in gate.checks if c.reason]:
        parts.append("\n".join(" ".join(reason.split()) for reason in reasons))
    return "\n\n".join(parts) + "\n"


def markdown(gate: Gate) -> str:
    """For a CI summary or a comment."""
    parts = [
        f"## {_MARK[gate.verdict]} {escape(_title(gate))}",
        escape(_against(gate)),
        markdown_table(HEADER, [_row(check) for check in gate.checks]),
    ]
    lines = [f"- {escape(column_name(c.task))}: {escape(c.reason)}" for c in gate.checks if c.reason]
    lines += [f"- {escape(notice)}" for notice in gate.notices]
    if lines:
        parts.append("\n".join(lines))
    parts.append(f"<sub>{_NOTE}</sub>")
    return "\n\n".join(parts) + "\n"


def junit(gate: Gate) -> str:
    """JUnit XML: a test case a task; a regression is a failure, what is not comparable an error."""
    suite = ElementTree.Element(
        "testsuite",
        name=_xml(f"dune-bench gate {gate.label}"),
        tests=str(len(gate.checks)),
        failures=str(gate.count("regressed")),
        errors=str(gate.count("not comparable")),
        skipped="0",
        timestamp=gate.measured,
    )
    for check in gate.checks:
        case = ElementTree.SubElement(
            suite, "testcase", classname=_xml(gate.label), name=_xml(column_name(check.task))
        )
        if check.verdict == "regressed":
            ElementTree.SubElement(case, "failure", message=_xml(sentence(check)), type="regressed")
        elif check.verdict == "not comparable":
            ElementTree.SubElement(case, "error", message=_xml(sentence(check)), type="not comparable")
        else:
            said = f"{sentence(check)}; {gate.remark}" if gate.remark else sentence(check)
            ElementTree.SubElement(case, "system-out").text = _xml(said)
    ElementTree.SubElement(suite, "system-out").text = _xml(_title(gate))
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def json_text(gate: Gate) -> str:
    """Everything, numbers in full."""
    made = gate.baseline
    content = {
        "gate": FORMAT,
        "verdict": gate.verdict,
        "title": _title(gate),
        "stale": gate.stale,
        "exit_code": int(gate.exit_code),
        "encoder": {
            "label": gate.label,
            "id": gate.encoder.id,
            "digest": gate.encoder.digest,
        },
        "baseline": {
            "label": made.label,
            "digest": made.encoder.digest,
            "written": made.written,
            "commit": made.commit,
            "dirty": made.dirty,
        },
        "tasks": [_check(check) for check in gate.checks],
        "notices": list(gate.notices),
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


_MARK = {"passed": "✅", "regressed": "❌", "not comparable": "⚠️"}


def sentence(check: Check) -> str:
    """One task's verdict in one line."""
    if check.metric is None or check.reason is not None:
        return f"{check.verdict}: {check.reason}"
    unit = check.metric.unit
    return (
        f"{check.verdict}: {heading(check.metric)} was {number(check.before, unit)}, is "
        f"{number(check.after, unit)}; drop {fine(check.drop, unit, signed=True)}, "
        f"tolerance {fine(check.tolerance, unit)}{', underpowered' if check.underpowered else ''}"
    )


def _title(gate: Gate) -> str:
    counts = [f"{gate.count(v)} {v}" for v in ("regressed", "not comparable") if gate.count(v)]
    detail = f" ({', '.join(counts)} of {len(gate.checks)})" if counts else ""
    return f"{gate.label}: {gate.verdict}{detail}{': ' if gate.remark else ''}{gate.remark}"


def _against(gate: Gate) -> str:
    made = gate.baseline
    commit = f", commit {made.commit[:7]}{' with changes' if made.dirty else ''}" if made.commit else ""
    now, before = ((encoder.digest or "none")[:7] for encoder in (gate.encoder, made.encoder))
    return f"weights {now} against {made.label}, weights {before}, of {made.written[:10]}{commit}"


def _row(check: Check) -> list[str]:
    hollow = check.verdict == "ok" and check.underpowered
    verdict = check.verdict + (" (underpowered)" if hollow else "")
    if check.metric is None:
        return [column_name(check.task), "–", "–", "–", "–", "–", "–", verdict]
    unit = check.metric.unit
    if check.reason is not None:
        before = number(check.metric.value, unit)
        return [column_name(check.task), heading(check.metric), before, "–", "–", "–", "–", verdict]
    return [
        column_name(check.task),
        heading(check.metric),
        number(check.before, unit),
        number(check.after, unit),
        fine(check.drop, unit, signed=True),
        fine(check.tolerance, unit),
        fine(check.detectable, unit),
        verdict,
    ]


def _check(check: Check) -> dict[str, Any]:
    metric = check.metric
    return {
        "task": check.task.id,
        "column": column_name(check.task),
        "metric": metric and metric.id,
        "unit": metric and metric.unit,
        "higher_is_better": metric and metric.higher_is_better,
        "verdict": check.verdict,
        "reason": check.reason,
        "before": check.before,
        "after": check.after,
        "drop": check.drop,
        "se": check.se,
        "k": check.factor,
        "margin": check.margin,
        "tolerance": check.tolerance,
        "detectable_drop": check.detectable,
        "underpowered": check.underpowered,
        "groups": check.groups,
    }


def _xml(text: str) -> str:
    """Text without the characters that XML cannot hold, on one line."""
    return " ".join(_NOT_XML.sub(" ", text).split())
