"""The GitHub action: what it pins and trusts, and that its steps do what they say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.report.paired_runs import NEW, depth, write

ROOT = Path(__file__).parents[1]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
SCRIPTS = {step["name"]: step["run"] for step in STEPS if "run" in step}
PROGRAM = f"""#!/bin/sh
echo "dune-bench $*" >> calls.log
[ "$1" = run ] && exit "${{RUN_CODE:-0}}"
PYTHONPATH='{ROOT}' exec '{sys.executable}' -m dune_bench "$@"
"""


def test_other_peoples_actions_are_pinned_to_a_commit() -> None:
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", name) for name in used), used


def test_metadata_is_as_github_wants_it() -> None:
    """Its own check happens on their machines only; keys: docs.github.com, Metadata syntax for actions."""
    assert set(ACTION) <= {"name", "author", "description", "inputs", "outputs", "runs", "branding"}
    assert all(isinstance(ACTION[key], str) and ACTION[key] for key in ("name", "description"))
    assert set(ACTION["runs"]) == {"using", "steps"}
    assert ACTION["runs"]["using"] == "composite"
    for name, content in ACTION["inputs"].items():
        assert re.fullmatch(r"[A-Za-z_][\w-]*", name)
        assert set(content) <= {"description", "required", "default"}, name
        assert content["description"]
        assert (content.get("required") is True) != isinstance(content.get("default"), str), name
    for content in STEPS:
        known = {"name", "id", "if", "env", "uses", "with", "run", "shell", "working-directory"}
        assert set(content) <= known
        assert ("run" in content) != ("uses" in content)
        assert ("run" in content) == ("shell" in content)
    ids = [content["id"] for content in STEPS if "id" in content]
    assert len(set(ids)) == len(ids)
    for name, content in ACTION["outputs"].items():
        assert set(content) == {"description", "value"}
        found = re.fullmatch(r"\$\{\{ steps\.([\w-]+)\.outputs\.([\w-]+) \}\}", content["value"])
        assert found is not None, name
        assert found[1] in ids, name
        assert f"{found[2]}=" in SCRIPTS["Gate"], name


def test_documented_workflow_may_only_read_and_pins_what_it_uses() -> None:
    page = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")
    section = page.partition("\n## On GitHub\n")[2].partition("\n## ")[0]
    (text,) = re.findall(r"^```yaml\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    # YAML 1.1 takes the key `on` for a truth value.
    workflow: dict[Any, Any] = yaml.safe_load(text)
    assert workflow[True] == "pull_request"
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    assert "permissions" not in job
    used = [content["uses"] for content in job["steps"]]
    own = "OWNER/dune-bench@COMMIT"
    assert used.count(own) == 1
    assert all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", name) for name in used if name != own), used
    assert all(f"`{word}`" in section for word in ("OWNER", "COMMIT"))
    checkout, gate, upload = job["steps"]
    assert checkout["with"]["persist-credentials"] is False
    required = {name for name, content in ACTION["inputs"].items() if content.get("required")}
    assert required <= set(gate["with"]) <= set(ACTION["inputs"])
    (output,) = re.findall(rf"steps\.{gate['id']}\.outputs\.([\w-]+)", upload["with"]["path"])
    assert output in ACTION["outputs"]


def test_no_input_is_pasted_into_a_script() -> None:
    """An encoder called `$(rm -rf …)` is a word, not a command."""
    for name, script in SCRIPTS.items():
        assert "${{" not in script, name
        assert script.startswith("set -euo pipefail\n"), name


def test_every_input_is_used_and_none_is_a_secret() -> None:
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    assert all(f"${{{{ inputs.{name} }}}}" in text for name in ACTION["inputs"])
    assert "secrets." not in text
    assert "GITHUB_TOKEN" not in text


def step(name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a step's script as the runner would, with `dune-bench` of this checkout on the path."""
    program = Path("bin/dune-bench")
    program.parent.mkdir(exist_ok=True)
    program.write_text(PROGRAM, encoding="utf-8")
    program.chmod(0o755)
    files = {name: str(Path(name).resolve()) for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")}
    inputs = {"ENCODER": "vit", "BASELINE": "base.json", "TASKS": "all", "OPTIONS": "", "INCLUDE": ""}
    path = f"{program.parent.resolve()}{os.pathsep}{os.environ['PATH']}"
    runner = {"PATH": path, "RUNNER_TEMP": str(Path().resolve()), "RUNS": "runs"}
    return subprocess.run(
        [shutil.which("bash") or "bash", "-c", SCRIPTS[name]],
        env=os.environ | files | inputs | runner | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("worse", "code"), [(0.0, 0), (0.2, 1)])
def test_the_gate_step_ends_with_the_verdict_and_a_summary(worse: float, code: int) -> None:
    import dune_bench

    write(Path("runs"), depth(weights_digest="one"))
    dune_bench.gate("vit", "base.json", update=True)
    write(Path("runs"), depth(worse=worse, weights_digest="two", started=NEW))
    done = step("Gate")
    assert done.returncode == code, done.stderr
    assert "vit: " + ("regressed" if code else "passed") in Path("GITHUB_STEP_SUMMARY").read_text()
    outputs = dict(line.split("=", 1) for line in Path("GITHUB_OUTPUT").read_text().splitlines())
    assert outputs["exit-code"] == str(code)
    assert {path.name for path in Path(outputs["folder"]).iterdir()} == {"gate.md", "gate.xml", "gate.json"}


def test_without_a_baseline_the_gate_step_fails_and_says_so() -> None:
    write(Path("runs"), depth())
    done = step("Gate")
    assert done.returncode == 3
    assert "no verdict, exit code 3" in Path("GITHUB_STEP_SUMMARY").read_text()


@pytest.mark.parametrize(("code", "ends"), [(0, 0), (1, 0), (3, 0), (2, 2), (130, 130)])
def test_the_run_step_leaves_failed_tasks_to_the_gate_and_nothing_else(code: int, ends: int) -> None:
    done = step(
        "Run", RUN_CODE=str(code), ENCODER="a b; touch owned", OPTIONS="--limit 8", INCLUDE="my cards"
    )
    assert done.returncode == ends, done.stderr
    call = Path("calls.log").read_text()
    assert (
        call
        == "dune-bench run --encoder a b; touch owned --tasks all --runs runs --limit 8 --include my cards\n"
    )
    assert not Path("owned").exists()
