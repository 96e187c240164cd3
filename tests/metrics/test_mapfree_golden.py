"""`mapfree-compat` against what the official program answered."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from dune_bench.metrics.mapfree import RelocScore, score_reloc
from tests.metrics.mapfree_data import GOLDEN

SIMD = np.show_config(mode="dicts")["SIMD Extensions"]["found"]


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    result: dict[str, Any] = json.loads((GOLDEN / "expected.json").read_text())
    return result


@pytest.fixture(scope="module")
def score() -> RelocScore:
    return score_reloc(GOLDEN / "submission.zip", GOLDEN / "val", "mapfree-compat")


def scene(score: RelocScore, name: str) -> dict[str, Any]:
    assert score.per_scene is not None
    return {k: v for k, v in dataclasses.asdict(score.per_scene[name]).items() if v is not None}


@pytest.mark.skipif(
    not {"X86_V4", "AVX512_SKX"} & set(SIMD),
    reason="the golden values hold the last digit of NumPy's AVX-512 arcsin and of fused matrix products",
)
def test_every_number_equals_the_official_program_to_the_bit(
    score: RelocScore, expected: dict[str, Any]
) -> None:
    assert score.metrics == expected["aggregate"]
    assert {name: scene(score, name) for name in score.scenes} == expected["per_scene"]


def test_official_numbers_hold_on_any_machine(score: RelocScore, expected: dict[str, Any]) -> None:
    assert list(score.metrics) == list(expected["aggregate"])
    for name, value in expected["aggregate"].items():
        if "Median" in name:
            assert score.metrics[name] == pytest.approx(value, rel=1e-12)
        else:
            assert score.metrics[name] == value
    for name, values in expected["per_scene"].items():
        got = scene(score, name)
        assert got.keys() == values.keys()
        assert got["failures"] == values["failures"]
        for key in got.keys() - {"failures"}:
            np.testing.assert_allclose(got[key], values[key], rtol=1e-12)
        if "trans_err" in got:
            assert got["trans_err"] == values["trans_err"]
            assert got["confidence"] == values["confidence"]


def test_strict_differs_only_where_it_mends(score: RelocScore, expected: dict[str, Any]) -> None:
    """Same hits, but the missing scene counts 12 frames and not 60: 48 frames instead of 96."""
    strict = score_reloc(GOLDEN / "submission.zip", GOLDEN / "val", "strict")
    assert strict.frames is not None
    assert len(strict.frames.scene) == 48
    official = expected["aggregate"]
    assert strict.metrics["precision@25cm_5deg"] == pytest.approx(
        100 * official["Precision @ Pose Error < (25.0cm, 5deg)"] * 96 / 48
    )
    assert strict.metrics["answered"] == pytest.approx(100 * official["Estimates for % of frames"] * 96 / 48)
    assert strict.metrics["auc@25cm_5deg"] == pytest.approx(
        official["AUC @ Pose Error < (25.0cm, 5deg)"] * 2, rel=1e-6
    )
    for name in score.scenes[:3]:
        rows = strict.frames.answered & (strict.frames.scene == score.scenes.index(name))
        values = expected["per_scene"][name]
        np.testing.assert_allclose(strict.frames.trans_m[rows], values["trans_err"], rtol=1e-9)
        np.testing.assert_allclose(strict.frames.rot_deg[rows], values["rot_err"], rtol=1e-9)
