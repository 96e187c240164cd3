"""Influence of teachers on tasks: signs, and no claim beyond its interval."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dune_bench.cli.main import app
from dune_bench.distill.interference import BlockCosine, DomainLoss
from dune_bench.errors import UsageError
from dune_bench.registry.lookup import load_registry
from dune_bench.report.analysis_interference import (
    HELPS,
    HURTS,
    UNTOLD,
    Influence,
    Interference,
    cosines_csv,
    influence_csv,
    influences_of,
    losses_csv,
    sentence,
    sentences,
    to_markdown,
    write_interference,
)
from dune_bench.report.plot_interference import cosines_png, influence_png, losses_png
from tests.report.paired_runs import depth, segmentation, write

HOSTILE = "a|b $x_1$ <i>\N{SNOWMAN}" + "y" * 90
WITHOUT = {"mast3r": "no_mast3r", "dinov2": "no_dinov2"}
LOSSES = [
    DomainLoss("s", teacher, domain, domain == "rooms", 4, value, 0.01, value / 2, None)
    for teacher, domain, value in [("t", "rooms", 0.25), ("t", "own", 0.5), ("u", "rooms", 0.75)]
]
COSINES = [
    BlockCosine("s", "t", "u", block, 4, value, 0.01)
    for block, value in [("all", -0.2), ("embed", 0.5), ("1", -0.5), ("2", -0.02)]
]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """mast3r lowers the depth error by 0.15 m and costs mIoU; without dinov2 depth is the same but for noise,
    and mIoU lower."""
    write(
        tmp_path,
        depth("full", noise=1),
        segmentation("full", 0.80),
        depth("no_mast3r", 0.15, noise=3),
        segmentation("no_mast3r", 0.86),
        depth("no_dinov2", 0.0, noise=2),
        segmentation("no_dinov2", 0.70),
    )
    return tmp_path


def found_in(runs: Path, **without: str) -> tuple[Influence, ...]:
    return influences_of("full", without or WITHOUT, runs, load_registry())[0]


def cell(found: tuple[Influence, ...], teacher: str, probe: str) -> Influence:
    return next(i for i in found if i.teacher == teacher and i.comparison.task.probe == probe)


def test_signs_respect_which_way_is_better(runs: Path) -> None:
    found = found_in(runs)
    error, accuracy = cell(found, "mast3r", "depth"), cell(found, "mast3r", "semseg")
    assert error.outcome == HELPS  # an error: lower with the teacher
    assert error.comparison.difference.value == pytest.approx(-0.15, abs=0.01)
    assert error.gain == pytest.approx(0.15, abs=0.01)
    assert accuracy.outcome == HURTS
    assert accuracy.gain == accuracy.comparison.difference.value < 0
    assert error.score is not None
    assert accuracy.score is not None
    assert accuracy.score < 0 < error.score
    assert cell(found, "dinov2", "semseg").outcome == HELPS


def test_interval_with_zero_inside_is_not_claimed(runs: Path) -> None:
    found = found_in(runs)
    unclear = cell(found, "dinov2", "depth")
    assert unclear.comparison.difference.ci95 is not None
    low, high = unclear.comparison.difference.ci95
    assert low <= 0 <= high
    assert unclear.outcome == UNTOLD
    text = sentence("dinov2", found)
    claimed, _, untold = text.partition("cannot be told for")
    assert "helps semseg" in claimed
    assert "depth" not in claimed
    assert "hurts depth" not in text
    assert "depth" in untold
    assert "95 % interval [" in untold


def test_sentence_says_what_helps_and_hurts_with_its_uncertainty(runs: Path) -> None:
    text = sentence("mast3r", found_in(runs))
    assert text.startswith("mast3r helps depth")
    assert " and hurts semseg" in text
    assert text.count("95 % interval [") == 2
    assert "cannot be told" not in text
    assert len(sentences(found_in(runs))) == 2


def test_teacher_without_any_told_influence_gets_no_claim(runs: Path) -> None:
    (only,) = [i for i in found_in(runs) if i.outcome == UNTOLD]
    assert sentence("dinov2", [only]).startswith(
        "dinov2: no influence on a task can be told. Cannot be told for"
    )


def test_many_cells_are_adjusted_together(runs: Path) -> None:
    """Holm over teachers too: p-values of one comparison alone are not larger."""
    together, alone = found_in(runs), found_in(runs, dinov2="no_dinov2")
    for one in alone:
        other = cell(together, "dinov2", one.comparison.task.probe)
        assert other.comparison.difference.p_value == one.comparison.difference.p_value
        assert (other.comparison.p_holm or 0) >= (one.comparison.p_holm or 0)


def test_few_groups_have_no_interval_and_no_claim(tmp_path: Path) -> None:
    write(tmp_path, depth("full", groups=4), depth("no_t", 0.5, groups=4))
    (one,) = found_in(tmp_path, t="no_t")
    assert one.comparison.difference.ci95 is None
    assert (one.outcome, one.score) == (UNTOLD, None)
    assert "none (4 groups)" in sentence("t", [one])
    assert influence_png([one])


def test_effect_lost_in_holm_is_not_claimed(runs: Path) -> None:
    helps = cell(found_in(runs), "mast3r", "depth")
    weak = replace(helps, comparison=replace(helps.comparison, p_holm=0.2))
    assert weak.outcome == UNTOLD
    assert "not after Holm's correction" in sentence("mast3r", [weak])


def test_what_cannot_be_compared_is_noted(runs: Path) -> None:
    write(runs, depth("no_multihmr", 0.1))
    found, notes = influences_of("full", {"multihmr": "no_multihmr"}, runs, load_registry())
    assert [i.comparison.task.probe for i in found] == ["depth"]
    assert any(note.startswith("without multihmr: semseg") for note in notes)
    with pytest.raises(UsageError, match="no results of 'nobody'"):
        influences_of("full", {"multihmr": "nobody"}, runs, load_registry())


def test_tables_have_every_number(runs: Path) -> None:
    found = found_in(runs)
    rows = list(csv.DictReader(io.StringIO(influence_csv(found))))
    assert [row["outcome"] for row in rows] == [i.outcome for i in found]
    row = next(r for r in rows if r["teacher"] == "mast3r" and r["metric"] == "rmse_m")
    assert float(row["with"]) - float(row["without"]) == pytest.approx(float(row["difference"]))
    assert float(row["gain"]) == -float(row["difference"])
    (first, *_) = csv.DictReader(io.StringIO(losses_csv(LOSSES)))
    assert (first["one_minus_cos"], first["smooth_l1"], first["smooth_l1_se"]) == ("0.25", "0.125", "")
    (first, *_) = csv.DictReader(io.StringIO(cosines_csv(COSINES)))
    assert (first["block"], first["cosine"]) == ("all", "-0.2")


def test_page_names_blocks_in_conflict_only_beyond_doubt() -> None:
    text = to_markdown(Interference(tuple(LOSSES), tuple(COSINES)))
    assert "| t | own\\* | 4 | 0.500 ± 0.010 | 0.250 |" in text
    assert "t and u: -0.200 ± 0.010 on the whole encoder; against each other on 1" in text
    once = [replace(c, batches=1, se=None) for c in COSINES]
    text = to_markdown(Interference(tuple(LOSSES), tuple(once)))
    assert "on no block against each other for certain" in text


def test_hostile_name_breaks_no_table_and_no_picture(runs: Path) -> None:
    influences = [replace(i, teacher=HOSTILE) for i in found_in(runs)]
    losses = [replace(r, student=HOSTILE, teacher=HOSTILE + r.teacher, domain=HOSTILE) for r in LOSSES]
    cosines = [replace(c, student=HOSTILE, first=HOSTILE) for c in COSINES]
    text = to_markdown(Interference(tuple(losses), tuple(cosines), tuple(influences), HOSTILE, (HOSTILE,)))
    assert "<i>" not in text
    rows = [line.replace(r"\|", "") for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {10, 6, 3}
    assert losses_png(losses)
    assert cosines_png(cosines)
    assert influence_png(influences)


def test_pictures_say_the_same_each_time_and_colour_what_is_told(runs: Path) -> None:
    found = found_in(runs)
    assert influence_png(found) == influence_png(found)
    pixels = np.asarray(Image.open(io.BytesIO(influence_png(found))).convert("RGB")).reshape(-1, 3)
    blue, orange = (0, 114, 178), (196, 78, 0)
    assert (pixels == blue).all(1).sum() > 1000
    assert (pixels == orange).all(1).sum() > 1000
    untold = [i for i in found if i.outcome == UNTOLD]
    pixels = np.asarray(Image.open(io.BytesIO(influence_png(untold))).convert("RGB")).reshape(-1, 3)
    assert not (pixels == blue).all(1).any()


def test_files_are_written(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    files = write_interference(Interference(tuple(LOSSES), tuple(COSINES), found_in(runs), "full"), out)
    assert {path.name for path in files} == {
        "interference.md",
        "losses.csv", "losses.png",
        "gradients.csv", "gradients.png",
        "influence.csv", "influence.png",
    }  # fmt: skip
    assert all(path.stat().st_size for path in files)


def test_command_on_results_alone(runs: Path, tmp_path: Path) -> None:
    arguments = ["analyze", "interference", "--full", "full", "--without", "mast3r=no_mast3r"]
    done = CliRunner().invoke(app, [*arguments, "--runs", str(runs), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "- mast3r helps depth" in done.output
    assert (tmp_path / "out" / "influence.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "name a student's folder"),
        (["--full", "full"], "--full goes with --without"),
        (["x", "--without", "mast3r"], "--without mast3r: expected TEACHER=ENCODER"),
        (["x", "--images", "=y"], "--images =y: expected GROUP=DIR"),
        (["--full", "a", "--without", "t=b", "--without", "t=c"], "t stands twice"),
        (["x", "--tasks", "depth"], "--tasks goes with --without"),
        (["nowhere"], "nowhere: no such folder"),
    ],
)
def test_command_refuses_in_one_line(arguments: list[str], problem: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["analyze", "interference", *arguments, "--runs", str(tmp_path)])
    assert done.exit_code == 2
    assert problem in done.output
    assert len(done.output.strip().splitlines()) == 1


def test_the_same_results_are_refused_with_the_names_to_type(runs: Path) -> None:
    with pytest.raises(UsageError, match=r"by NAME@DIGEST, there are full@\w{7}"):
        influences_of("full", {"mast3r": "full"}, runs, load_registry())


def test_an_unknown_teacher_is_not_taken_for_a_missing_result(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("teachers: [{name: pixels}, {name: random_vits14}]")
    asked = ["analyze", "interference", "--full", str(tmp_path), "--without", "pixel=nowhere"]
    done = CliRunner().invoke(app, [*asked, "--runs", str(tmp_path)])
    assert done.exit_code == 2
    assert "has no teacher 'pixel' (did you mean pixels?)" in done.output


def test_a_place_without_a_finished_training_is_told_before_any_work(tmp_path: Path) -> None:
    for place, said in ((tmp_path / "none", "no such folder"), (tmp_path, "holds no finished training")):
        done = CliRunner().invoke(app, ["analyze", "interference", str(place), "--runs", str(tmp_path)])
        assert done.exit_code == 2
        assert said in done.output
