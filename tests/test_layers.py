"""The floors of the package: no import runs upward, and the lower ones need no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dune_bench"


def test_no_import_runs_upward() -> None:
    """The contract in pyproject.toml, checked by import-linter."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No import runs upward KEPT" in done.stdout


def test_every_part_has_its_floor() -> None:
    """A new folder of the package must be placed in the contract, or it escapes it."""
    import tomllib

    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    floors = config["tool"]["importlinter"]["contracts"][0]["layers"]
    placed = {part.strip(" ()") for floor in floors for part in floor.split("|")}
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert folders | modules <= placed


WITHOUT_TORCH = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for folder in ("results", "report", "registry", "cli")
    for path in (PACKAGE / folder).glob("*.py")
)


def test_results_report_registry_and_cli_import_no_torch() -> None:
    assert len(WITHOUT_TORCH) > 10
    code = (
        "import importlib, sys\n"
        f"for name in {WITHOUT_TORCH!r}:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_file_outgrows_a_reader(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
