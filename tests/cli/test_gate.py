"""`dune-bench gate` as its user and a CI job meet it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.cli.conftest import Command
from tests.report.paired_runs import NEW, OLD, depth, digest, failed, segmentation, task_of, write

RUNS, BASELINE = Path("runs"), Path("base/vit.json")
GATE = ("gate", "vit", "--baseline", str(BASELINE))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def before(command: Command) -> None:
    """A baseline of depth and segmentation, and an empty runs folder again."""
    write(RUNS, depth(weights_digest="one"), segmentation(weights_digest="one"))
    assert command(*GATE, "--update").code == 0
    shutil.rmtree(RUNS)


def new(*found: Any) -> None:
    write(RUNS, *found)


def after(**changes: Any) -> dict[str, Any]:
    return {"weights_digest": "two", "started": NEW, **changes}


@pytest.mark.usefixtures("before")
def test_an_equal_checkpoint_passes(command: Command) -> None:
    new(depth(noise=1, **after()), segmentation(**after()))
    answer = command(*GATE)
    assert answer.code == 0, answer.err
    assert answer.out.startswith("vit: passed\n")
    assert answer.out.count(" ok") == 2


@pytest.mark.usefixtures("before")
def test_a_drop_fails_and_every_output_says_so(command: Command) -> None:
    new(depth(worse=0.1, noise=1, **after()), segmentation(**after()))
    Path("out").mkdir()
    outputs = {name: Path(f"out/gate.{name}") for name in ("markdown", "junit", "json")}
    answer = command(*GATE, *(word for name, path in outputs.items() for word in (f"--{name}", str(path))))
    assert answer.code == 1
    assert "vit: regressed (1 regressed of 2)" in answer.out
    assert "❌ vit: regressed" in outputs["markdown"].read_text()
    found = json.loads(outputs["json"].read_text())
    assert (found["verdict"], found["exit_code"]) == ("regressed", 1)
    bad, good = found["tasks"]
    assert (bad["verdict"], good["verdict"]) == ("regressed", "ok")
    assert bad["drop"] == pytest.approx(0.1, abs=0.01)
    assert bad["drop"] > bad["tolerance"] >= bad["margin"] == 0.02
    assert found["encoder"]["digest"] == digest("two")
    assert found["baseline"]["digest"] == digest("one")
    suite = ElementTree.parse(outputs["junit"]).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    failures = [case.get("name") for case in suite if case.find("failure") is not None]
    assert failures == [task_of("depth")]


@pytest.mark.usefixtures("before")
def test_an_improvement_passes_with_a_notice(command: Command) -> None:
    new(depth(worse=-0.1, noise=1, **after()), segmentation(**after()))
    answer = command(*GATE)
    assert answer.code == 0
    assert "improved: --update makes this the new baseline" in answer.err


def _missing() -> None:
    new(depth(**after()))


def _limited() -> None:
    new(depth(**after()), segmentation(**after(task_changes={"limited": 8})))


def _failed() -> None:
    new(depth(**after()), failed(probe="semseg", started=NEW, weights_digest="two"))


def _only_older_weights() -> None:
    new(depth(**after()), segmentation(weights_digest="one", started=OLD))


def _other_protocol() -> None:
    new(depth(**after()), segmentation(**after(task_changes={"protocol_fingerprint": digest("other")})))


def _other_data() -> None:
    new(depth(**after()), segmentation(**after(task_changes={"dataset_fingerprints": {"test": "x"}})))


def _other_input() -> None:
    new(depth(**after()), segmentation(**after(task_changes={"overrides": {"resolution": 224}})))


def _other_scoring() -> None:
    new(depth(**after()), segmentation(**after(task_changes={"score_version": 2})))


def _random() -> None:
    changes = after(weights="random")
    new(depth(**changes), segmentation(**changes))


def _undefined() -> None:
    new(depth(**after()), segmentation(**after(metric={"value": None})))


def _absent_metric() -> None:
    new(depth(**after()), segmentation(**after(metric={"primary": False})))


def _edited_statistics() -> None:
    new(depth(**after()))
    (path,) = write(RUNS, segmentation(**after()))
    path.with_suffix(".npz").write_bytes(b"x")


def _edited_value() -> None:
    new(depth(**after()))
    (path,) = write(RUNS, segmentation(**after()))
    path.write_text(re.sub(r'"value": [0-9.]+', '"value": 99.0', path.read_text()))


def _nan() -> None:
    new(depth(**after()))
    (path,) = write(RUNS, segmentation(**after()))
    path.write_text(re.sub(r'"value": [0-9.]+', '"value": NaN', path.read_text()))


def _truncated() -> None:
    new(depth(**after()))
    (path,) = write(RUNS, segmentation(**after()))
    path.write_bytes(path.read_bytes()[:300])


def _newer_schema() -> None:
    new(depth(**after()))
    (path,) = write(RUNS, segmentation(**after()))
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 99'))


MEASURED_OTHERWISE = (_other_protocol, _other_data, _other_scoring, _random)
"""Good results, only not of the baseline's kind: a new baseline may be made of them."""


@pytest.mark.usefixtures("before")
@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (_missing, "not measured"),
        (_limited, "other limit: none and 8"),
        (_failed, "failed: NaN features"),
        (_only_older_weights, "with other weights"),
        (_other_protocol, "other protocol"),
        (_other_data, "other data"),
        (_other_input, "other overrides: resolution none and 224"),
        (_other_scoring, "other version of the scoring code"),
        (_random, "random weights"),
        (_undefined, "miou is undefined"),
        (_absent_metric, "other primary metric"),
        (_edited_statistics, "changed after the run"),
        (_edited_value, "edited, or of another version's scoring"),
        (_nan, "not a valid result"),
        (_truncated, "not readable as JSON"),
        (_newer_schema, "schema 99 is newer"),
    ],
)
def test_what_is_not_comparable_exits_3_with_its_reason(command: Command, prepare: Any, reason: str) -> None:
    prepare()
    answer = command(*GATE, "--json", "gate.json", "--junit", "gate.xml")
    assert answer.code == 3, answer.out + answer.err
    assert reason in answer.out + answer.err
    assert "Traceback" not in answer.err
    verdicts = {task["verdict"] for task in json.loads(Path("gate.json").read_text())["tasks"]}
    assert "not comparable" in verdicts
    assert ElementTree.parse("gate.xml").getroot().get("errors") != "0"
    kept = files(BASELINE.parent)
    written = command(*GATE, "--update").code == 0
    assert written == (prepare in MEASURED_OTHERWISE)
    assert (files(BASELINE.parent) != kept) == written


@pytest.mark.usefixtures("before")
def test_a_regression_is_not_hidden_by_a_missing_task(command: Command) -> None:
    new(depth(worse=0.2, **after()))
    assert command(*GATE).code == 1


def test_a_baseline_of_other_tasks_is_a_line_a_task(command: Command) -> None:
    write(RUNS, depth(id="depth/elsewhere/convex@1"))
    made = files(RUNS)
    answer = command(*GATE, "--update")
    assert answer.code == 3
    assert "no card of task depth/elsewhere/convex@1 here: name its folder with --include" in answer.error
    assert not BASELINE.exists()
    assert files(RUNS) == made


@pytest.mark.usefixtures("before")
@pytest.mark.parametrize(
    ("runs", "reason"),
    [((), "no results in runs"), ((depth("other"),), "no results of 'vit' in runs")],
)
def test_nothing_to_check_is_one_line(command: Command, runs: Any, reason: str) -> None:
    write(RUNS, *runs)
    answer = command(*GATE)
    assert answer.code == (2 if runs else 3)
    assert reason in answer.error


def test_no_baseline_names_the_way_to_one(command: Command) -> None:
    write(RUNS, depth())
    answer = command(*GATE)
    assert answer.code == 3
    assert "base/vit.json: no such baseline: write it with --update" in answer.error


@pytest.mark.usefixtures("before")
def test_a_damaged_baseline_is_never_overwritten(command: Command) -> None:
    new(depth(**after()), segmentation(**after()))
    BASELINE.write_text(BASELINE.read_text().replace('"margin": 1.0', '"margin": 9.0'))
    kept = files(BASELINE.parent)
    for more in ((), ("--update",)):
        answer = command(*GATE, *more)
        assert answer.code == 3
        assert "edited after it was written" in answer.error
    assert files(BASELINE.parent) == kept


@pytest.mark.usefixtures("before")
def test_an_update_accepts_a_drop_and_shows_it(command: Command) -> None:
    new(depth(worse=0.1, noise=1, **after()), segmentation(**after()))
    answer = command(*GATE, "--update")
    assert answer.code == 0
    assert "regressed" in answer.out
    assert "baseline written: base/vit.json" in answer.out
    again = command(*GATE)
    assert again.code == 0
    assert f"weights {digest('two')[:7]}" in again.out
    assert "these are the baseline's own results" in again.err


@pytest.mark.usefixtures("before")
def test_an_update_loses_no_task_in_silence(command: Command) -> None:
    new(depth(**after()))
    kept = files(BASELINE.parent)
    answer = command(*GATE, "--update")
    assert answer.code == 3
    assert "in the old baseline, but there is no good result now" in answer.error
    assert files(BASELINE.parent) == kept
    assert command(*GATE, "--update", "--tasks", "depth").code == 0
    assert len(json.loads(BASELINE.read_text())["results"]) == 2


def test_an_update_takes_whole_results_beside_limited_ones_and_adds_new_tasks(command: Command) -> None:
    write(RUNS, depth(), depth(task_changes={"limited": 8}))
    assert command(*GATE, "--update").code == 0
    write(RUNS, segmentation())
    assert "is not in the baseline and not checked: --update adds it" in command(*GATE).err
    assert command(*GATE, "--update").code == 0
    results = json.loads(BASELINE.read_text())["results"]
    assert [(r["task"]["probe"], r["task"]["limited"]) for r in results] == [
        ("depth", None),
        ("semseg", None),
    ]


@pytest.mark.usefixtures("before")
def test_tasks_narrow_the_gate_to_what_the_baseline_has(command: Command) -> None:
    new(depth(**after()))
    assert command(*GATE, "--tasks", "depth").code == 0
    assert command(*GATE, "--tasks", "depth/*").code == 0
    answer = command(*GATE, "--tasks", "dept")
    assert answer.code == 2
    assert "the baseline has none of them" in answer.error


def test_names_with_markup_control_characters_or_separators_break_no_output(command: Command) -> None:
    name = "a|b/<script>\x07\n../c"
    write(RUNS, depth(name, weights_digest="one"))
    call = ("gate", name, "--baseline", str(BASELINE))
    assert command(*call, "--update").code == 0
    outputs = ("--markdown", "gate.md", "--junit", "gate.xml", "--json", "gate.json")
    answer = command(*call, *outputs)
    assert answer.code == 0, answer.err
    assert ElementTree.parse("gate.xml").getroot()[0].get("classname") == "a|b/<script> ../c"
    page = Path("gate.md").read_text()
    assert "<script>" not in page
    assert len({line.count(" | ") for line in page.splitlines() if line.startswith("|")}) == 1
    assert json.loads(Path("gate.json").read_text())["encoder"]["id"] == name
    assert not list(Path().glob("c*"))


@pytest.mark.parametrize("option", ["--markdown", "--junit", "--json"])
def test_a_bad_output_path_is_not_a_regression(command: Command, option: str) -> None:
    write(RUNS, depth())
    assert command(*GATE, "--update").code == 0
    Path("dir.json").mkdir()
    for path, reason in (
        ("dir.json", "is a folder, name a file"),
        ("none/x.json", "there is no folder none"),
    ):
        answer = command(*GATE, option, path)
        assert answer.code == 2
        assert f"{option} {path}: {reason}" in answer.error
    assert not Path("none").exists()


def _verdicts(command: Command) -> list[str]:
    """The verdict as each output has it."""
    answer = command(*GATE, "--markdown", "gate.md", "--junit", "gate.xml", "--json", "gate.json")
    assert answer.code == 0
    said = ElementTree.parse("gate.xml").getroot().findtext("system-out")
    page = Path("gate.md").read_text().splitlines()[0].removeprefix("## ✅ ").replace("\\", "")
    return [answer.out.splitlines()[0], page, str(said), json.loads(Path("gate.json").read_text())["title"]]


@pytest.mark.usefixtures("before")
def test_a_pass_on_stale_results_says_that_nothing_was_measured(command: Command) -> None:
    new(depth(weights_digest="one"), segmentation(weights_digest="one"))
    expected = "vit: passed: the same weights as the baseline's, nothing new was measured"
    assert set(_verdicts(command)) == {expected}
    assert json.loads(Path("gate.json").read_text())["stale"] is True


@pytest.mark.usefixtures("before")
def test_a_second_measurement_of_the_same_weights_is_not_called_stale(command: Command) -> None:
    new(depth(weights_digest="one", started=NEW), segmentation(weights_digest="one", started=NEW))
    expected = "vit: passed: the same weights as the baseline's, measured again"
    assert set(_verdicts(command)) == {expected}
    assert ElementTree.parse("gate.xml").getroot().get("timestamp") == NEW
