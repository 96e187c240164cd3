"""Distillations from beginning to end: updates, resume, evaluation, what stops one."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dune_bench.distill.conflict import FILE as CONFLICT
from dune_bench.distill.data import DistillData
from dune_bench.distill.evaluate import Evaluator
from dune_bench.distill.groups import open_groups
from dune_bench.distill.train import distill, first_student, make_objective, order_of
from dune_bench.encoders.dune_files import read_student
from dune_bench.encoders.load import load_encoder
from dune_bench.engine import checkpoint
from dune_bench.engine.optimizer import default_groups
from dune_bench.engine.processes import Processes
from dune_bench.engine.step import StepContext
from dune_bench.errors import TaskError, UnavailableError, UsageError
from dune_bench.registry.lookup import load_registry
from tests.distill.small import LONG, ToyTeacher, felt, log_of, pictures, recipe, run, teachers

ROOT = Path(__file__).parents[2]
ALONE = Processes(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("pictures"))


def test_updates_equal_adamw_written_out(base: Path, tmp_path: Path) -> None:
    """Three steps: decay on matrices alone, each tensor clipped on its own, schedule with warm-up."""
    numbers = {"steps": 3, "warmup": 0.4, "clip_norm": 0.01}
    run(tmp_path, base, training=numbers)
    made = recipe(training=numbers)
    engine = made.training.engine()
    student = first_student(made, teachers())
    data = DistillData(open_groups(made.data.groups, base), 28, made.data.augmentation)
    objective, order = make_objective(made, teachers(), ("a", "b"), ALONE), order_of(made, data, ALONE)
    decayed = set(default_groups(student, 1.0)[0].names)
    assert {"encoder.pos_embed", "encoder.cls_token", "encoder.register_tokens"} <= decayed
    assert not any(name.endswith(("bias", "gamma", "norm1.weight")) for name in decayed)
    moments: dict[str, list[torch.Tensor]] = {}
    for step, rate in enumerate((0.0, engine.lr, engine.lr * 0.5 + 1e-6 * 0.5)):
        assert engine.learning_rate(step) == pytest.approx(rate)
        batch = data.batch([order(8 * step + place) for place in range(8)])
        student.zero_grad()
        terms = objective(student, batch, StepContext(step, step / 3, torch.Generator()))
        parts = [term for name, term in terms.items() if term.weight]
        (torch.stack([term.total for term in parts]).sum() / float(parts[0].count)).backward()
        for name, parameter in student.named_parameters():
            if not parameter.requires_grad:
                continue
            gradient = parameter.grad.double()
            gradient = gradient * min(1.0, 0.01 / (float(gradient.norm()) + 1e-6))
            first, second = moments.setdefault(name, [torch.zeros_like(gradient) for _ in range(2)])
            first.mul_(0.9).add_(0.1 * gradient)
            second.mul_(0.99).add_(0.01 * gradient.square())
            value = parameter.detach().double() * (1 - rate * (0.03 if name in decayed else 0.0))
            mean, square = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.99 ** (step + 1))
            with torch.no_grad():
                parameter.copy_(value - rate * mean / (square.sqrt() + 1e-15))
    stored = checkpoint.newest(tmp_path)
    assert stored is not None
    worst = max(
        float((stored.model[name] - p.detach())[felt(name, len(p))].abs().max())
        for name, p in student.named_parameters()
        if p.requires_grad
    )
    print(f"largest difference of a weight after 3 steps: {worst:.2g}")
    assert worst < 1e-6
    for name, buffer in student.teacher_norms.named_buffers():
        torch.testing.assert_close(stored.model[f"teacher_norms.{name}"], buffer)


def test_all_teachers_are_learned_from_and_the_folder_is_an_encoder(base: Path, tmp_path: Path) -> None:
    done = run(tmp_path, base, training={"steps": 80, "log_every": 4, "base_lr": 0.3})
    for teacher in teachers():
        first, last = done.change(teacher.name)
        assert last < 0.9 * first, teacher.name
    assert done.broken is None
    encoder = load_encoder(load_registry().encoder(str(tmp_path)), device="cpu")
    assert encoder.id == "small"
    assert set(encoder.teachers) == {"one", "two"}
    stored = checkpoint.newest(tmp_path)
    assert stored is not None
    assert done.checkpoint == tmp_path / "small.pth"
    read = read_student(done.checkpoint)
    assert read.iteration == 80
    for name, value in read.state.items():
        if name in stored.model:
            assert torch.equal(value, stored.model[name]), name
    # What it says through the encoder is what it said in training.
    student = first_student(recipe(), teachers())
    with torch.no_grad():
        for name, value in student.state_dict().items():
            value.copy_(read.state[name])
    images = torch.rand(2, 3, 28, 28)
    said = student(images)["two"].patch.detach()
    seen = encoder.encode(images, ("proj:two",))["proj:two"].patch.flatten(2).transpose(1, 2)
    torch.testing.assert_close(seen, said, rtol=1e-4, atol=1e-5)


def test_kill_9_changes_no_bit(base: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.distill.small"]
    for name in ("killed", "undisturbed"):
        pictures(tmp_path / name / "pictures")
    process = subprocess.Popen([*command, str(tmp_path / "killed")], cwd=ROOT, env=environment)
    log = tmp_path / "killed" / "run" / "log.jsonl"
    deadline = time.monotonic() + 100
    while not log.exists() or log.read_bytes().count(b"\n") < 13:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "run" / "encoder.yaml").exists()
    both = [
        subprocess.Popen([*command, str(tmp_path / name)], cwd=ROOT, env=environment)
        for name in ("killed", "undisturbed")
    ]
    assert [started.wait(200) for started in both] == [0, 0]
    killed, undisturbed = tmp_path / "killed" / "run", tmp_path / "undisturbed" / "run"
    assert len(log_of(killed)) == 40
    assert log_of(killed) == log_of(undisturbed)
    for name in ("step-000040/model.safetensors", "step-000040/optimizer.safetensors"):
        assert (killed / name).read_bytes() == (undisturbed / name).read_bytes()
    ours, theirs = read_student(killed).state, read_student(undisturbed).state
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    stored = checkpoint.newest(killed)
    assert stored is not None
    assert any(name.startswith("ema.") for name in stored.model), LONG


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dropping": {"p": 0.25}}, "identity.recipe.dropping.p: nothing there, 0.25 now"),
        ({"training": {"base_lr": 0.2}}, "recipe.lr"),
        ({"seed": 4}, "identity.first_weights"),
    ],
)
def test_folder_of_another_recipe_is_refused(
    base: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    run(tmp_path, base, training={"steps": 2})
    with pytest.raises(UsageError, match=said) as refused:
        run(tmp_path, base, **{**changes, "training": {"steps": 2, **changes.get("training", {})}})
    assert "holds another training" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_loss_that_is_not_finite_names_teacher_and_image_and_saves_the_state(
    base: Path, tmp_path: Path
) -> None:
    made = recipe()
    data = DistillData(open_groups(made.data.groups, base), 28, made.data.augmentation)
    order = order_of(made, data, ALONE)
    picks = [order(place) for place in range(8)]
    bright = data.batch(picks).images.mean((1, 2, 3))
    limit = float(bright.sort().values[-2:].mean())
    guilty = data.describe([picks[int(bright.argmax())]])[0]
    asked = (teachers()[0], replace(teachers()[1], broken=limit))
    with pytest.raises(TaskError) as stopped:
        distill(made, tmp_path, base=base, device="cpu", teachers=asked)
    text = str(stopped.value)
    assert "loss/two" in text
    assert "loss/one" not in text
    assert f"samples {guilty}; state: {tmp_path / 'failed-step-000000'}" in text
    assert "encoder two: non-finite features" in text
    assert "\n" not in text
    state = json.loads((tmp_path / "failed-step-000000" / "state.json").read_text())
    assert state["notes"]["samples"] == [guilty]


def test_broken_image_is_noted_and_not_hidden(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pictures")
    (folder / "b" / "3.png").write_bytes(b"no image")
    with pytest.raises(TaskError, match=r"1 of 12 images cannot be read, more than 1 %.*b/b: 3.png"):
        run(tmp_path / "refused", folder)
    done = run(tmp_path / "run", folder, data={"max_broken": 0.1})
    assert done.broken is not None
    assert "1 of 12 images could not be read" in done.broken
    assert "3.png" in (tmp_path / "run" / "broken-images.txt").read_text("utf-8")


def test_missing_or_empty_group_is_one_line(base: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, kind in (("nowhere", UnavailableError), ("empty", UsageError)):
        groups = {"a": {"sources": [{"kind": "folder", "path": str(tmp_path / name)}]}}
        with pytest.raises(kind, match=name) as refused:
            run(tmp_path / "out", base, data={"groups": groups})
        assert "\n" not in str(refused.value)
    wanted = {"a": {"sources": [{"kind": "folder", "path": "a", "expected": 6}]}}
    with pytest.raises(UsageError, match="5 images found, 6 expected"):
        run(tmp_path / "out", base, data={"groups": wanted})


def test_class_token_that_a_teacher_has_not_is_refused(base: Path, tmp_path: Path) -> None:
    made = recipe(teachers=[{"name": "pixels", "cls": True}])
    with pytest.raises(UsageError, match=r"teacher pixels: .* no class token to teach"):
        distill(made, tmp_path, base=base, device="cpu")
    assert not (tmp_path / "log.jsonl").exists()


def test_second_stage_learns_on_from_the_first(base: Path, tmp_path: Path) -> None:
    done = run(tmp_path / "first", base, training={"steps": 40, "base_lr": 0.3})
    bigger = {
        "arch": {"width": 12, "depth": 2, "heads": 2, "registers": 1, "table": 3},
        "image_size": 42,
        "init": str(tmp_path / "first"),
    }
    again = run(tmp_path / "second", base, student=bigger, training={"steps": 2, "log_every": 1})
    assert again.change("one")[0] < done.change("one")[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"projectors": {"kind": "sp"}},
        {"projectors": {"kind": "lp", "hidden": 8, "branch_hidden": 4}},
        {"weighting": {"kind": "uncertainty", "robust": 0.3}},
        {"dropping": {"method": "own_data"}},
        {"training": {"accumulate": 2, "dtype": "bfloat16"}},
        {"student": {"arch": None, "timm": "vit_tiny_patch16_224", "image_size": 32}},
    ],
)
def test_every_option_trains(base: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    changes["training"] = {"steps": 2, **changes.get("training", {})}
    done = run(tmp_path, base, **changes)
    assert all(math.isfinite(line.loss or math.nan) for line in done.record.lines)
    assert (tmp_path / "encoder.yaml").is_file()


def test_gradient_conflict_is_logged_and_changes_nothing(base: Path, tmp_path: Path) -> None:
    run(tmp_path / "plain", base)
    run(tmp_path / "logged", base, log={"gradient_conflict_every": 2, "gradient_conflict_images": 4})
    assert log_of(tmp_path / "logged") == log_of(tmp_path / "plain")
    lines = [json.loads(t) for t in (tmp_path / "logged" / CONFLICT).read_text("utf-8").splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 5]
    assert all(-1 <= line["cosines"]["one|two"] <= 1 for line in lines)


class _Recorded(Evaluator):
    """Instead of `run`, a program that looks at what it is given."""

    def command(self, encoder: Path) -> list[str]:
        text = (
            "import os, sys, pathlib; card = pathlib.Path(sys.argv[1], 'encoder.yaml').read_text();"
            "assert 'RANK' not in os.environ; print(card.split('id: ')[1].split()[0]);"
            "sys.exit(int('step000004' in card))"
        )
        return [sys.executable, "-c", text, str(encoder)]


def test_evaluation_goes_on_beside_the_training_and_may_fail(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dune_bench.distill.train.Evaluator", _Recorded)
    run(tmp_path / "plain", base)
    with caplog.at_level(logging.WARNING, "dune_bench"):
        run(tmp_path / "run", base, evaluate={"every": 2})
    assert log_of(tmp_path / "run") == log_of(tmp_path / "plain")
    said = {p.name: p.read_text().strip() for p in (tmp_path / "run" / "eval").iterdir()}
    assert said == {f"run-00000{n}.log": f"small-step00000{n}" for n in (2, 4, 5)}
    assert [r.getMessage() for r in caplog.records] == [
        "evaluation of step 000004 ended with 1: run-000004.log"
    ]


def test_evaluation_within_the_process_is_the_callers(base: Path, tmp_path: Path) -> None:
    seen = []
    made = recipe(evaluate={"every": 5, "mode": "inline", "limit": 3})

    def inline(encoder: Path, asked: Any, results: Path) -> None:
        seen.append(((encoder / "encoder.yaml").is_file(), asked.limit, results))

    distill(made, tmp_path, base=base, device="cpu", teachers=teachers(), inline=inline)
    assert seen == [(True, 3, tmp_path / "eval")]
    command = Evaluator(made, tmp_path).command(Path("x"))
    assert command[1:6] == ["-m", "dune_bench", "run", "--encoder", "x"]
    assert command[-2:] == ["--limit", "3"]


def test_teacher_of_another_kind_is_another_training(base: Path, tmp_path: Path) -> None:
    run(tmp_path, base, training={"steps": 2})
    asked = (teachers()[0], ToyTeacher("two", 9, True, "b"))
    with pytest.raises(UsageError, match="holds another training"):
        distill(recipe(training={"steps": 2}), tmp_path, base=base, device="cpu", teachers=asked)
