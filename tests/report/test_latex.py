"""LaTeX that compiles whatever the names are, and shows exactly them.

There is no TeX here: pylatexenc, which knows nothing of our escapes, parses the tables and reads them aloud.
"""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pylatexenc.latex2text import LatexNodes2Text, MacroTextSpec, get_default_latex_context_db
from pylatexenc.latexwalker import LatexEnvironmentNode, LatexNode, LatexSpecialsNode, LatexWalker
from pylatexenc.latexwalker import get_default_latex_context_db as get_default_syntax

from dune_bench.report.latex import latex_escape, leaderboard_latex
from dune_bench.report.write import read_board
from tests.report.factory import make_result, metric, task_info, write_results

SPECIAL = re.compile(r"(?<!\\)[$&#_%{}~^]")


@given(st.text(alphabet="ab\\{}$&#_%^~<>|[]\n\x00 é", max_size=30))
def test_no_special_character_survives(text: str) -> None:
    # Commands of the escape itself are taken away; what is left must be plain.
    plain = re.sub(r"\\(textbackslash|text\w+)\{\}|\{[\[\]]?\}", "", latex_escape(text))
    assert not SPECIAL.search(plain)
    assert "\n" not in plain
    assert not re.search(r"\\[a-zA-Z]", plain)


SYNTAX = get_default_syntax()
"""Made once: it is the slow part."""


def parsed(page: str) -> list[LatexNode]:
    """Raises for an unknown environment's end, a brace without its partner, an open formula."""
    walker = LatexWalker(page, latex_context=SYNTAX, tolerant_parsing=False)
    nodes: list[LatexNode] = walker.get_latex_nodes()[0]
    return nodes


@functools.cache
def reader() -> LatexNodes2Text:
    """The added names are of LaTeX's own text symbols (textcomp, T1)."""
    symbols = {"textless": "<", "textgreater": ">", "textbar": "|", "textquotedbl": '"'}
    symbols |= {"textasciicircum": "^", "textasciigrave": "`", "blacktriangle": "▲", "blacktriangledown": "▼"}
    known = get_default_latex_context_db()
    specs = [MacroTextSpec(name, simplify_repl=letter) for name, letter in symbols.items()]
    known.add_context_category("text symbols", macros=specs, prepend=True)
    return LatexNodes2Text(known, math_mode="text", strict_latex_spaces=True)


def read_aloud(page: str) -> str:
    """What is printed, as text."""
    text: str = reader().nodelist_to_text(parsed(page))
    return text


@pytest.mark.parametrize(
    "name",
    [
        "a--b",
        "---",
        "it''s ,,low``",
        "!`",
        "x\\\\[1em]",
        "\\end{tabular}",
        "$\\input{/etc/passwd}$",
        "100%&#",
        '"`"',
        "}{",
        "a_b^c~d",
        "<b>|</b>",
        "ViT-S/14 ▲▼×†λ é",
    ],
)
def test_hostile_name_is_printed_as_it_is(name: str) -> None:
    assert read_aloud(latex_escape(name)) == name


@given(st.text(alphabet="ab\\{}$&#_%^~<>|[]-',`\"!?é", max_size=30))
def test_whatever_the_name_it_is_printed_as_it_is(text: str) -> None:
    assert read_aloud(latex_escape(text)) == text


@pytest.mark.parametrize("name", ["\\end{tabular}", "a & b \\\\ c", "{", "}", "$x", "50% off", "\\"])
def test_hostile_encoder_leaves_every_environment_whole(tmp_path: Path, name: str) -> None:
    write_results(
        tmp_path, make_result(name), make_result("plain"), make_result("bad", status="failed", error=name)
    )
    page = leaderboard_latex(read_board(tmp_path))
    assert name in read_aloud(page)
    environments = [node for node in parsed(page) if isinstance(node, LatexEnvironmentNode)]
    assert [node.environmentname for node in environments] == ["table", "itemize"]
    (tabular,) = (node for node in environments[0].nodelist if isinstance(node, LatexEnvironmentNode))
    cells = [node for node in tabular.nodelist if isinstance(node, LatexSpecialsNode)]
    assert [node.specials_chars for node in cells] == ["&"] * 3  # a header and two rows of two cells


def test_table_has_booktabs_rules_and_as_many_cells_as_columns(tmp_path: Path) -> None:
    second = metric(12.0, id="x_y", primary=False)
    write_results(tmp_path, make_result("a & b_c", metrics=(metric(), second)), make_result("plain"))
    page = leaderboard_latex(read_board(tmp_path))
    assert page.count(r"\toprule") == page.count(r"\midrule") == page.count(r"\bottomrule") == 1
    assert r"a \& b\_c" in page
    rows = [line for line in page.splitlines() if line.endswith(r" \\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {2}
    assert r"\begin{tabular}{lrr}" in page


def test_all_tasks_stand_in_one_table_and_none_is_wider_than_a_page(tmp_path: Path) -> None:
    many = tuple(metric(float(i), id=f"m_{i}", primary=i == 0) for i in range(9))
    results = [
        make_result(encoder, task=task_info(task), metrics=many)
        for encoder in ("a", "b")
        for task in ("semseg/toy/convex@1", "depth/toy/convex@1")
    ]
    write_results(tmp_path, *results[:3])
    page = leaderboard_latex(read_board(tmp_path))
    first = page.partition(r"\end{table}")[0]
    assert r"encoder & depth: m\_0 (\%) $\uparrow$ & semseg: m\_0 (\%) $\uparrow$ \\" in first
    assert r"b & -- &" in first  # not measured
    assert max(line.count("&") for line in page.splitlines()) == 3  # nine values are three tables of three
    assert page.count(r"\begin{table}") == 1 + 2 * 3
    assert page.count("Part 3 of 3.") == 2


def test_failures_are_listed(tmp_path: Path) -> None:
    write_results(tmp_path, make_result("good"), make_result("bad", status="failed", error="100% NaN"))
    assert r"\item bad" in leaderboard_latex(read_board(tmp_path))


def test_tables_and_merging_need_no_torch() -> None:
    code = (
        "import sys, dune_bench.report.write, dune_bench.report.teachers, dune_bench.report.merge, "
        "dune_bench.report.reference; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
