"""Titled tables, printed as aligned text or as markdown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """A table with a title; all rows are as long as the header."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def text(self) -> str:
        """Columns padded to their widest cell."""
        table = (self.header, *self.rows)
        widths = [max(len(row[k]) for row in table) for k in range(len(self.header))]
        lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in table)
        return "\n".join([f"[{self.title}]", *(line.rstrip() for line in lines)])

    def markdown(self) -> str:
        """A heading of the third level and a table."""
        rule = "|---" * len(self.header) + "|"
        lines = [f"| {' | '.join(row)} |" for row in self.rows]
        return "\n".join([f"### {self.title}", "", f"| {' | '.join(self.header)} |", rule, *lines])


def spread(values: list[float], digits: int = 2) -> str:
    """`least … median … greatest`, or a dash if there is none."""
    if not values:
        return "–"
    ordered = sorted(values)
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return " … ".join(f"{value:.{digits}f}" for value in (ordered[0], median, ordered[-1]))


def histogram(values: list[float], edges: tuple[float, ...]) -> list[int]:
    """Counts of values in [edge, next edge); below the first and from the last on are counted too:
    one more than edges."""
    counts = [0] * (len(edges) + 1)
    for value in values:
        counts[sum(value >= edge for edge in edges)] += 1
    return counts
