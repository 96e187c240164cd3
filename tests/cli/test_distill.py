"""`dune-bench distill`: what it prints, refuses and leaves."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from dune_bench.cli.main import app
from tests.distill.small import content, pictures


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["distill", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_recipe_of_ones_own_trains_and_goes_on(tmp_path: Path) -> None:
    pictures(tmp_path / "pictures")
    raw = content(teachers=[{"name": "pixels"}], training={"steps": 4})
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw))
    asked = (str(path), "--out", str(tmp_path / "out"), "--data", str(tmp_path / "pictures"))
    code, out, err = invoke(*asked, "training.base_lr=0.05")
    assert (code, err) == (0, "")
    assert "pixels  loss " in out
    assert "time: data " in out
    assert f"next         dune-bench run --encoder {tmp_path / 'out'}" in out
    assert (tmp_path / "out" / "encoder.yaml").is_file()
    code, again, _ = invoke(*asked, "training.base_lr=0.05")
    assert (code, again) == (0, out)
    code, _, err = invoke(*asked)
    assert code == 2
    assert "holds another training: recipe.lr" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("smok",), "no recipe 'smok' (did you mean smoke"),
        (("missing/mine.yaml",), "recipe missing/mine.yaml: no such file"),
        (("mine.yaml",), "recipe mine.yaml: no such file"),
        (("smoke", "training.stepz=3"), "unknown key 'training.stepz'"),
        (("smoke", "teachers.0.name=nothing_such"), "nothing_such"),
        (("smoke", "--unlabelled", "nowhere_at_all"), "nowhere_at_all: no such folder of unlabelled renders"),
        (("dune_vitb14_336",), "imagenet19k: no such folder of images"),
        (("smoke", "--stored", "nowhere"), "nowhere: no finished store of teacher tokens"),
    ],
)
def test_wrong_request_is_one_line(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = invoke(*arguments)
    assert code in (2, 3)
    assert said in err
    assert err.count("\n") == 1
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.slow
def test_smoke_is_done_in_a_minute_and_lowers_every_loss(tmp_path: Path) -> None:
    started = time.monotonic()
    code, out, _ = invoke("smoke", "--out", str(tmp_path / "smoke"), "--offline")
    took = time.monotonic() - started
    assert code == 0
    for teacher in ("efficientnet_lite0", "random_vits14", "pixels"):
        line = next(line for line in out.splitlines() if line.startswith(teacher))
        first, last = (float(word) for word in line.split()[-3::2])
        assert last < 0.95 * first, line
    print(f"smoke took {took:.0f} s")
    result = CliRunner().invoke(
        app,
        [
            *("run", "--encoder", str(tmp_path / "smoke"), "--tasks", "semseg", "--limit", "8"),
            *("--runs", str(tmp_path / "runs")),
        ],
    )
    assert result.exit_code == 0, result.stderr
    assert "smoke" in result.stdout


def test_an_early_interrupt_promises_no_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dune_bench.distill.train.distill", stop)
    asked = ("smoke", "training.steps=7", "training.checkpoint_every=5", "--out", str(tmp_path))
    code, _, err = invoke(*asked)
    assert code == 130
    assert "interrupted: nothing is saved before step 5" in err
    assert "resumes" not in err
    (tmp_path / "step-000005").mkdir()
    assert "the same command resumes" in invoke(*asked)[2]
