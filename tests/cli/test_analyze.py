"""`dune-bench analyze cost` as its user meets it."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Command
from tests.report.test_analysis_cost import profile


def test_cost_of_the_teachers_of_the_card(command: Command) -> None:
    for name in ("dune_vitb", "dinov2reg_vitl14", "mast3r_vitl16", "multihmr_vitl14_672"):
        profile(Path("runs"), name, 10.0)
    answer = command("analyze", "cost", "dune_vitb")
    assert answer.code == 0, answer.err
    assert "| sum / universal | 3.00 | 3.00 | 3.00 | – | 3.00 |" in answer.out


def test_unmeasured_specialist_is_exit_3_and_the_rest_is_shown(command: Command) -> None:
    profile(Path("runs"), "dune_vitb", 10.0)
    answer = command("analyze", "cost", "dune_vitb", "--against", "pixels,dinov2_vits14")
    assert answer.code == 3
    assert "| dune_vitb | 0.0 |" in answer.out
    assert "pixels, dinov2_vits14: run dune-bench profile NAME" in answer.error


def test_encoder_without_teachers_is_told_to_name_some(command: Command) -> None:
    answer = command("analyze", "cost", "pixels")
    assert answer.code == 3
    assert "--against" in answer.error
