"""Published numbers keep their provenance and never meet what they do not compare with."""

from __future__ import annotations

from pathlib import Path

import pytest

from dune_bench.errors import UsageError
from dune_bench.registry.lookup import load_registry
from dune_bench.report.reference import load_published, published, tables_of

HEADER = "encoder,model,arch,resolution,probe,task,dataset,metric,value,higher_is_better,provenance,source\n"
DO_NOT_COMPARE = [
    ("mapfree", 94.7, 93.3),
    ("semseg", 68.2, 56.0),
    ("semseg", 45.6, 40.9),
    ("hmr", 56.0, 58.6),
    ("depth", 0.358, 0.333),
    ("", 0.374, 2.9707),
]


def test_shipped_rows_are_valid_and_name_known_probes() -> None:
    rows = published()
    assert len(rows) > 500
    assert {row.probe for row in rows} - {None} <= set(load_registry().probes)


def test_an_encoder_id_without_card_is_a_teacher_that_has_none() -> None:
    registry = load_registry()
    teachers = {name for card in registry.encoders.values() for name in card.teachers}
    assert {row.encoder for row in published()} - {None} <= set(registry.encoders) | teachers


@pytest.mark.parametrize(("task", "first", "second"), DO_NOT_COMPARE)
def test_numbers_that_look_alike_never_share_a_table(task: str, first: float, second: float) -> None:
    rows = [row for row in published() if task in ("", row.task)]
    of_first = {row.table for row in rows if row.value == first}
    of_second = {row.table for row in rows if row.value == second}
    assert of_first
    assert not of_first & of_second


def test_a_table_has_one_source_and_one_direction() -> None:
    for rows in tables_of(published(), {r.encoder for r in published()} - {None}, {"semseg", "hmr"}).values():  # type: ignore[arg-type]
        assert len({(row.source, row.provenance, row.higher_is_better) for row in rows}) == 1


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("a,A,,,semseg,semseg,ADE20K,mIoU,nan,true,primary,x", "value"),
        ("a,A,,,semseg,semseg,ADE20K,mIoU,,true,primary,x", "value"),
        ("a,A,,,semseg,semseg,ADE20K,mIoU,1,true,hearsay,x", "provenance"),
        ("a,A,,,semseg,semseg,ADE20K,mIoU,1,true,primary,", "source"),
        ("a,A,,,semseg,semseg,ADE20K,mIoU,1,true,primary,x,y", "row|columns|keys|None"),
    ],
)
def test_bad_row_is_refused_with_its_line(tmp_path: Path, line: str, named: str) -> None:
    path = tmp_path / "published.csv"
    path.write_text(HEADER + line + "\n", encoding="utf-8")
    with pytest.raises(UsageError, match=rf"published.csv:2: .*({named})"):
        load_published(path)


def test_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the published numbers"):
        load_published(tmp_path / "none.csv")
