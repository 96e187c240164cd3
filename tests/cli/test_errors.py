"""Wrong requests: one clear line, the documented exit code, no traceback; a bug keeps its own."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import typer

from dune_bench.cli import main as cli
from dune_bench.errors import ExitCode, TaskError, UnavailableError, UsageError, worst
from tests.cli.conftest import Command

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("show Dune_vitB_papr", "unknown name 'Dune_vitB_papr' (did you mean dune_vitb_paper"),
        ("show minirooms@7", "did you mean minirooms@1"),
        ("prepare minroms", "unknown dataset 'minroms' (did you mean minirooms@1, minirooms-people@1?)"),
        ("list --include gone", "--include gone: no such folder"),
        ("report --format htm", "unknown format 'htm'"),
        ("report --format ,", "--format is empty"),
        ("run --encoder ,", "--encoder is empty"),
        ("run --tasks ,", "--tasks is empty"),
        ("run --seeds 1,x", "--seeds 1,x: seeds are whole numbers"),
        ("run --seeds 1,1", "a seed stands twice"),
        ("run --seeds -1", "--seeds -1"),
        ("run --batch-size 0", "write auto or a number from 1"),
        ("run --batch-size lots", "write auto or a number from 1"),
        ("profile dune_vitB", "did you mean dune_vitb"),
        ("profile pixels --batch-sizes 0", "--batch-sizes 0: write auto or numbers from 1"),
        ("profile pixels --view layer:99", "has no view 'layer:99'"),
        ("export pixels --out pixels.pt2", "a file of format onnx ends in .onnx"),
        ("analyze cost dune_vitB", "did you mean dune_vitb"),
        ("analyze cost pixels --against pixls", "did you mean pixels"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_2(command: Command, arguments: str, reason: str) -> None:
    answer = command(*arguments.split())
    assert answer.code == 2
    assert reason in answer.error
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    "arguments",
    [
        "rum",
        "list encodrs",
        "run --no-such-option",
        "run --limit 0",
        "run --limit few",
        "run --dtype fp16",
        "run --offline=maybe",
        "run positional",
        "show",
        "prepare",
        "cache empty",
        "profile",
        "profile pixels --repeats 2",
        "export pixels --format tflite",
        "analyze costs",
        "cache prune --older-than -1",
    ],
)
def test_what_the_parser_refuses_is_exit_2(command: Command, arguments: str) -> None:
    answer = command(*arguments.split())
    assert answer.code == 2
    assert "Error" in answer.err
    assert "Traceback" not in answer.err


def test_unknown_key_in_a_card_names_file_key_and_nearest(command: Command, tmp_path: Path) -> None:
    card = tmp_path / ".dune_bench" / "encoders" / "mine.yaml"
    card.parent.mkdir(parents=True)
    card.write_text("id: mine\nkind: pixels\nresolutoin: 3\n")
    answer = command("list")
    assert answer.code == 2
    assert "mine.yaml: unknown key 'resolutoin' (did you mean resolution" in answer.error


def test_nothing_to_report_is_exit_3_and_names_the_next_step(command: Command) -> None:
    answer = command("report")
    assert answer.code == 3
    assert "dune-bench run" in answer.error


@pytest.mark.parametrize("kind", [UsageError, UnavailableError, TaskError])
def test_known_errors_are_one_line_with_their_exit_code(
    command: Command, monkeypatch: pytest.MonkeyPatch, kind: type[UsageError]
) -> None:
    def fail(*_: object) -> None:
        raise kind("first\n  second")

    monkeypatch.setattr("dune_bench.registry.lookup.load_registry", fail)
    answer = command("list")
    assert answer.error == "error: first second"
    assert answer.code == kind.exit_code


def test_a_bug_keeps_its_traceback_and_exits_1(tmp_path: Path) -> None:
    code = (
        "import dune_bench.registry.lookup as lookup, sys\n"
        "def bug(*_): return 1 / 0\n"
        "lookup.load_registry = bug\n"
        "sys.argv = ['dune-bench', 'list']\n"
        "from dune_bench.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert "Traceback" in done.stderr


def test_ctrl_c_exits_130_and_says_how_to_go_on(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dune_bench.registry.lookup.load_registry", stop)
    answer = command("list")
    assert answer.code == 130
    assert "the same command resumes" in answer.err
    assert "Traceback" not in answer.err


def test_a_warning_is_one_line_without_a_place_in_the_code(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def warn(*_: object) -> None:
        warnings.warn("plug-in 'x' is broken\nand left out", UserWarning, stacklevel=1)
        raise typer.Exit

    monkeypatch.setattr("dune_bench.registry.lookup.load_registry", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        answer = command("list")
    assert answer.err == "warning: plug-in 'x' is broken and left out\n"


def test_exit_codes_of_a_mixed_run_follow_their_order() -> None:
    ok, failed, usage, unavailable = ExitCode.OK, ExitCode.FAILED, ExitCode.USAGE, ExitCode.UNAVAILABLE
    assert worst([ok, unavailable, failed, usage]) is usage
    assert worst([ok, unavailable, failed]) is failed
    assert worst([ok, unavailable]) is unavailable
    assert worst([ok]) is worst([]) is ok


def test_every_verb_is_there_and_none_is_a_stub() -> None:
    names = {command.name for command in cli.app.registered_commands}
    groups = {group.name for group in cli.app.registered_groups}
    assert names | groups == {
        *("run", "list", "show", "prepare", "report", "panel", "compare", "gate", "score-reloc"),
        *("doctor", "cache", "profile", "export", "analyze", "distill", "cache-teachers"),
    }
