"""The command line starts at once: no torch, no numpy, no rich before a verb needs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "timm", "pandas", "numpy", "scipy", "rich", "huggingface_hub", "PIL")
ROOT = Path(__file__).parents[2]
CODE = """
import json, sys
sys.argv = ["dune-bench", *json.loads(sys.argv[1])]
from dune_bench.cli.main import main
try:
    main()
except SystemExit as done:
    print("\\0" + json.dumps([done.code or 0, sorted(set(json.loads(%r)) & set(sys.modules))]))
""" % json.dumps(HEAVY)  # noqa: UP031 - braces of the code itself


def start(*arguments: str, **environment: str) -> tuple[str, int, list[str]]:
    """Output, exit code, and which heavy modules were imported."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(arguments)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | environment,
    )
    output, _, facts = done.stdout.rpartition("\0")
    code, heavy = json.loads(facts)
    return output, code, heavy


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("run", "--help"),
        ("profile", "--help"),
        ("export", "--help"),
        ("analyze", "cost", "--help"),
        ("list",),
        ("list", "tasks"),
        ("show", "pixels"),
    ],
    ids=" ".join,
)
def test_no_heavy_import(arguments: tuple[str, ...]) -> None:
    output, code, heavy = start(*arguments)
    assert output.strip()
    assert (code, heavy) == (0, [])


def test_show_of_a_dataset_needs_no_torch() -> None:
    output, code, heavy = start("show", "minirooms@1")
    assert "licence:" in output
    assert code == 0
    assert "torch" not in heavy


@pytest.mark.parametrize("verb", [["list"], ["show", "schema"]], ids=" ".join)
def test_a_reader_that_leaves_early_is_no_error(verb: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)  # before the first line is written: every write meets a closed pipe
    command = [sys.executable, "-m", "dune_bench", *verb]
    try:
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, cwd=ROOT, check=False)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_schema_needs_no_torch() -> None:
    output, code, heavy = start("show", "schema")
    assert json.loads(output)["title"] == "Result"
    assert (code, heavy) == (0, [])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dune-bench run --encoder pix", "pixels"),
        ("dune-bench run --encoder random_vits14,pix", "random_vits14,pixels"),
        ("dune-bench run --suite min", "mini"),
        ("dune-bench prepare mini", "minirooms@1"),
        ("dune-bench show sche", "schema"),
        ("dune-bench rep", "report"),
    ],
)
def test_completion_knows_names_and_imports_nothing_heavy(line: str, expected: str) -> None:
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    output, code, heavy = start(_DUNE_BENCH_COMPLETE="complete_bash", **words)
    assert expected in output.split("\n")
    assert (code, heavy) == (0, [])


def test_import_dune_bench_imports_no_torch() -> None:
    code = f"import sys, dune_bench; print(dir(dune_bench), set({HEAVY}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip().endswith("set()")
