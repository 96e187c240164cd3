"""The teachers' tables as a section of the HTML page: the content of `teachers.md`, and no script."""

from __future__ import annotations

from collections.abc import Sequence

from dune_bench.report.html_table import bullets, name, safe
from dune_bench.report.teachers import StudentTable
from dune_bench.report.teachers_text import (
    ELSEWHERE,
    HEADER,
    LEGEND,
    cells,
    left_out_lines,
    published_line,
    rank_lines,
    references,
)

LINK = ' <a href="#teachers">Students and teachers</a>'
"""For the page's list of sections."""
_BEST = " (best)"


def section(tables: Sequence[StudentTable]) -> str:
    """One section with a part for each student; nothing at all without tables."""
    if not tables:
        return ""
    parts = "\n".join(_student(place, table) for place, table in enumerate(tables))
    return (
        '<section id="teachers" aria-labelledby="teachers-title">\n'
        '<h2 id="teachers-title">Students and their teachers</h2>\n'
        f"<p>{safe(LEGEND)}</p>\n{parts}\n</section>\n\n"
    )


def _student(place: int, table: StudentTable) -> str:
    title = f"teachers-{place}"
    head = "".join(f'<th scope="col">{safe(text)}</th>' for text in HEADER)
    rows = "\n".join(_row(line) for row in table.rows for line in cells(row))
    parts = [
        f'<h3 id="{title}">{name(table.label)}</h3>',
        *(f"<p>{safe(note)}</p>" for note in table.notes),
        f'<div class="scroll" role="region" aria-labelledby="{title}" tabindex="0">\n<table class="prose">\n'
        f'<caption class="sr">{safe(table.label)} against its teachers, task by task</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</div>",
        *(f"<p>{safe(line)}</p>" for line in rank_lines(table)),
    ]
    if lines := left_out_lines(table):
        parts += ["<h4>Left out</h4>", f"<ul>\n{bullets(lines)}\n</ul>"]
    if found := list(references(table)):
        parts += ["<h4>Published elsewhere</h4>", f"<p>{safe(ELSEWHERE)}</p>"]
    for source, published in found:
        parts.append(f"<p>{safe(source)}</p>\n<ul>\n{bullets(map(published_line, published))}\n</ul>")
    return "\n".join(parts)


def _row(line: Sequence[str]) -> str:
    task, own, teacher, *rest = line
    best = teacher.endswith(_BEST)
    who = name(teacher.removesuffix(_BEST))
    values = "".join(f"<td>{safe(text)}</td>" for text in rest)
    return (
        f'<tr><th scope="row">{safe(task)}</th><td>{safe(own)}</td>'
        f"<td>{f'<b>{who}</b> (best)' if best else who}</td>{values}</tr>"
    )
