"""LaTeX that compiles whatever the names are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dune_bench.report.latex import latex_escape, leaderboard_latex
from dune_bench.report.write import read_board
from tests.report.factory import make_result, metric, write_results

SPECIAL = re.compile(r"(?<!\\)[$&#_%{}~^]")


@given(st.text(alphabet="ab\\{}$&#_%^~<>|[]\n\x00 é", max_size=30))
def test_no_special_character_survives(text: str) -> None:
    # Commands of the escape itself are taken away; what is left must be plain.
    plain = re.sub(r"\\(textbackslash|text\w+)\{\}|\{\[\}|\{\]\}", "", latex_escape(text))
    assert not SPECIAL.search(plain)
    assert "\n" not in plain
    assert not re.search(r"\\[a-zA-Z]", plain)


def test_table_has_booktabs_rules_and_as_many_cells_as_columns(tmp_path: Path) -> None:
    second = metric(12.0, id="x_y", primary=False)
    write_results(tmp_path, make_result("a & b_c", metrics=(metric(), second)), make_result("plain"))
    page = leaderboard_latex(read_board(tmp_path))
    assert page.count(r"\toprule") == page.count(r"\midrule") == page.count(r"\bottomrule") == 1
    assert r"a \& b\_c" in page
    rows = [line for line in page.splitlines() if line.endswith(r" \\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {2}
    assert r"\begin{tabular}{lrr}" in page


def test_failures_are_listed(tmp_path: Path) -> None:
    write_results(tmp_path, make_result("good"), make_result("bad", status="failed", error="100% NaN"))
    assert r"\item bad" in leaderboard_latex(read_board(tmp_path))


def test_tables_and_merging_need_no_torch() -> None:
    code = (
        "import sys, dune_bench.report.write, dune_bench.report.teachers, dune_bench.report.merge, "
        "dune_bench.report.reference; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
