from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dune_bench.errors import TaskError
from dune_bench.metrics.human_errors import ERRORS
from dune_bench.metrics.human_matching import Matching, detection_scores_compat
from dune_bench.metrics.human_statistics import (
    PENALTIES,
    failed_image,
    image_statistics,
    penalised_id,
    pooled_metrics,
)


def matching(matched: int, misses: int, false_positives: int) -> Matching:
    pairs = tuple((i, i) for i in range(matched))
    wrong = tuple(range(matched, matched + false_positives))
    return Matching(pairs, wrong, tuple(range(matched, matched + misses)))


def errors_of(value: float) -> dict[str, float]:
    return dict.fromkeys(ERRORS, value)


def stacked(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


Image = tuple[Matching, list[dict[str, float]]]


def images(seed: int, count: int) -> list[Image]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        m = matching(*rng.integers(0, 4, 3))
        errors = [{name: rng.uniform(0, 2 * PENALTIES[name]) for name in ERRORS} for _ in m.matches]
        made.append((m, errors))
    return made


def by_people(chosen: list[Image]) -> dict[str, float]:
    """The metrics from one flat list of people, as if all images were one."""
    flat = [e for _, errors in chosen for e in errors]
    misses = sum(len(m.misses) for m, _ in chosen)
    wrong = sum(len(m.false_positives) for m, _ in chosen)
    n, nan = len(flat), float("nan")
    out = {
        "precision": 100 * n / (n + wrong) if n + wrong else nan,
        "recall": 100 * n / (n + misses) if n + misses else nan,
        "f1": 100 * 2 * n / (2 * n + wrong + misses) if n + wrong + misses else nan,
    }
    for name in ERRORS:
        cap = PENALTIES[name]
        all_people = [min(e[name], cap) for e in flat] + [cap] * misses
        out[name] = sum(e[name] for e in flat) / n if n else nan
        out[penalised_id(name, cap)] = sum(all_people) / len(all_people) if all_people else nan
    return out


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_pooling_equals_one_flat_list_of_people(seed: int, count: int) -> None:
    """Also under bootstrap weights: an image drawn twice is two images."""
    made = images(seed, count)
    weights = np.random.default_rng(seed).integers(0, 3, (4, count))
    weights[0] = 1
    stats = stacked([image_statistics(m, e) for m, e in made])
    pooled = pooled_metrics(stats, weights.astype(np.float64))
    for r, row in enumerate(weights):
        expected = by_people([image for image, w in zip(made, row, strict=True) for _ in range(w)])
        assert pooled.keys() == expected.keys()
        for name, value in expected.items():
            assert pooled[name][r] == pytest.approx(value, abs=1e-9, nan_ok=True), name


def test_mean_over_people_is_not_a_mean_over_images() -> None:
    crowd = image_statistics(matching(3, 0, 0), [errors_of(10.0)] * 3)
    single = image_statistics(matching(1, 0, 0), [errors_of(50.0)])
    pooled = pooled_metrics(stacked([crowd, single]), np.ones((1, 2)))
    assert pooled["pve_mm"][0] == pytest.approx(20.0)


def test_a_detector_of_easy_people_does_not_win() -> None:
    """It leads on matched people and trails on the penalised metric."""
    easy = pooled_metrics(stacked([image_statistics(matching(1, 3, 0), [errors_of(40.0)])]), np.ones((1, 1)))
    brave_errors = [errors_of(40.0), *[errors_of(90.0)] * 3]
    brave = pooled_metrics(stacked([image_statistics(matching(4, 0, 0), brave_errors)]), np.ones((1, 1)))
    assert easy["pve_mm"][0] < brave["pve_mm"][0]
    assert easy["pve_mm@miss350mm"][0] == pytest.approx((40 + 3 * 350) / 4)
    assert brave["pve_mm@miss350mm"][0] == pytest.approx((40 + 3 * 90) / 4)


def test_dropping_a_bad_match_never_pays() -> None:
    bad = image_statistics(matching(1, 0, 0), [errors_of(5000.0)])
    dropped = image_statistics(matching(0, 1, 0), [])
    weights = np.ones((1, 1))
    kept = pooled_metrics(stacked([bad]), weights)
    gone = pooled_metrics(stacked([dropped]), weights)
    for name in ERRORS:
        key = penalised_id(name, PENALTIES[name])
        assert kept[key][0] == gone[key][0] == PENALTIES[name]


def test_nobody_matched_is_nan_not_zero_error() -> None:
    stats = stacked([failed_image(2), failed_image(0)])
    pooled = pooled_metrics(stats, np.array([[1.0, 1.0], [0.0, 1.0]]))
    assert np.isnan(pooled["pve_mm"]).all()
    assert np.isnan(pooled["precision"]).all()
    assert pooled["recall"][0] == 0
    assert np.isnan(pooled["recall"][1])
    assert pooled["pve_mm@miss350mm"][0] == 350
    assert np.isnan(pooled["pve_mm@miss350mm"][1])


def test_every_image_has_the_same_keys_shapes_and_types() -> None:
    rows = [failed_image(0), failed_image(3), image_statistics(matching(2, 1, 4), [errors_of(1.0)] * 2)]
    for row in rows[1:]:
        assert [(k, v.shape, v.dtype) for k, v in row.items()] == [
            (k, v.shape, v.dtype) for k, v in rows[0].items()
        ]


def test_scores_agree_with_the_published_form_up_to_its_rounding() -> None:
    stats = stacked([image_statistics(matching(967, 33, 41), [errors_of(1.0)] * 967)])
    pooled = pooled_metrics(stats, np.ones((1, 1)))
    published = detection_scores_compat(1000, 33, 41)
    for name, value in zip(("precision", "recall", "f1"), published, strict=True):
        assert abs(pooled[name][0] - value) <= 0.5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_bad_error_is_refused_not_pooled(bad: float) -> None:
    for name in ERRORS:
        with pytest.raises(TaskError, match=f"{name} of a matched person"):
            image_statistics(matching(1, 0, 0), [errors_of(3.0) | {name: bad}])


def test_errors_must_be_one_per_match() -> None:
    with pytest.raises(TaskError, match="1 errors for 2 matched"):
        image_statistics(matching(2, 0, 0), [errors_of(1.0)])


def test_metric_ids_say_penalty_and_unit() -> None:
    assert penalised_id("pa_pve_mm", 150.0) == "pa_pve_mm@miss150mm"
    assert penalised_id("depth_error_m", 2.0) == "depth_error_m@miss2m"
