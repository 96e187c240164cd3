from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dune_bench.data.samples import DepthSample
from dune_bench.errors import TaskError
from dune_bench.probes.base import ProbeContext
from dune_bench.probes.depth import DepthConvex, DepthPrediction, DepthProbe
from dune_bench.probes.grids import TokenGrid
from dune_bench.registry.cards import TaskCard, load_card
from tests.probes.fake_features import FakeFeatures, depth_sample, lazy

CARD = Path(__file__).parents[2] / "tasks" / "depth_minirooms.yaml"
CTX = ProbeContext()


def probe(**changes: object) -> DepthProbe:
    return DepthProbe(DepthConvex.model_validate({**load_card(CARD, TaskCard).protocol, **changes}))


def scenes(count: int = 12, seed: int = 0) -> tuple[FakeFeatures, list[DepthSample]]:
    """Log-depth that is linear in five of seven features, constant in each of 4 × 4 patches."""
    rng = np.random.default_rng(seed)
    weight = np.array([0.3, -0.2, 0.1, 0.4, -0.1, 0.0, 0.0])
    maps, samples = {}, []
    for i in range(count):
        x = rng.normal(size=(7, 4, 4)) + 2.0
        depth = np.exp(np.tensordot(weight, x, 1))
        maps[f"i{i}"] = torch.from_numpy(x).float()
        samples.append(
            depth_sample(f"i{i}", np.kron(depth, np.ones((4, 4))).astype(np.float32), f"room{i // 2}")
        )
    return FakeFeatures(maps, (56, 56)), samples


def prediction(log_depth: float, low: float = 0.05, high: float = 50.0) -> DepthPrediction:
    return DepthPrediction(np.full((4, 4), log_depth, np.float32), TokenGrid((4, 4), (56, 56)), low, high)


def test_linear_log_depth_is_not_missed() -> None:
    features, samples = scenes()
    head = probe(lambda_per_n=(1e-9,)).fit(features, lazy(samples), {}, CTX)
    test_features, test_samples = scenes(seed=1)
    for p, sample in zip(
        probe().predict(test_features, lazy(test_samples), head, {}, CTX), test_samples, strict=True
    ):
        assert np.allclose(p.log_depth, np.log(sample.depth[::4, ::4]), atol=1e-4)


def test_card_metrics_are_those_that_the_probe_returns() -> None:
    sample = depth_sample("a", np.full((8, 8), 2.0, np.float32))
    stats = {k: v[None] for k, v in probe().score(prediction(0.0), sample).items()}
    metrics = probe().reduce(stats, np.ones((1, 1)))
    assert set(metrics) == {m.id for m in load_card(CARD, TaskCard).metrics}


def test_errors_are_those_computed_by_hand() -> None:
    depth = np.full((8, 8), 2.0, np.float32)
    depth[:, 4:] = 4.0
    stats = probe().score(prediction(np.log(3.0)), depth_sample("a", depth))
    assert float(stats["rmse_m"]) == pytest.approx(1.0, abs=1e-6)
    assert float(stats["abs_rel"]) == pytest.approx((0.5 + 0.25) / 2, abs=1e-6)
    assert float(stats["delta1"]) == 0.0
    assert float(stats["rmse_log"]) == pytest.approx(
        np.sqrt((np.log(1.5) ** 2 + np.log(0.75) ** 2) / 2), abs=1e-6
    )
    assert int(stats["valid_px"]) == 64


def test_wrong_scale_is_not_forgiven_without_alignment() -> None:
    sample = depth_sample("a", np.full((8, 8), 2.0, np.float32))
    stats = probe().score(prediction(np.log(4.0)), sample)
    assert float(stats["rmse_m"]) == pytest.approx(2.0, abs=1e-5)
    assert float(stats["rmse_m@aligned"]) == pytest.approx(0.0, abs=1e-6)
    assert float(stats["delta1@aligned"]) == 100.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_depth_is_not_zero_error(bad: float) -> None:
    broken = prediction(0.0)
    broken.log_depth[2, 1] = bad
    with pytest.raises(TaskError, match="sample kitchen_3: the predicted depth is not finite"):
        probe().score(broken, depth_sample("kitchen_3", np.ones((8, 8), np.float32)))


@pytest.mark.parametrize("invalid", [0.0, -1.0, np.nan, np.inf, 1e3, 1e-4])
def test_invalid_truth_is_not_scored(invalid: float) -> None:
    depth = np.full((8, 8), 2.0, np.float32)
    depth[0] = invalid
    stats = probe().score(prediction(np.log(2.0)), depth_sample("a", depth))
    assert int(stats["valid_px"]) == 56
    assert float(stats["rmse_m"]) == pytest.approx(0.0, abs=1e-6)


def test_image_without_truth_is_left_out_and_counted() -> None:
    p = probe()
    rows = [
        p.score(prediction(np.log(3.0)), depth_sample("a", np.full((8, 8), 2.0, np.float32))),
        p.score(prediction(np.log(3.0)), depth_sample("b", np.zeros((8, 8), np.float32))),
    ]
    stats = {k: np.stack([row[k] for row in rows]) for k in rows[0]}
    assert np.isnan(stats["rmse_m"][1])
    assert stats["valid_px"].tolist() == [64, 0]
    metrics = p.reduce(stats, np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]))
    assert metrics["rmse_m"][:2] == pytest.approx([1.0, 1.0], abs=1e-6)
    assert np.isnan(metrics["rmse_m"][2])


def test_patches_without_truth_do_not_move_the_fit() -> None:
    features, samples = scenes()
    for sample in samples:
        sample.depth[:4, :4] = 0.0
    a = probe().fit(features, lazy(samples), {}, CTX)
    for m in features.maps.values():
        m[:, 0, 0] = 40.0
    b = probe().fit(features, lazy(samples), {}, CTX)
    assert torch.allclose(a.tensors["weight"], b.tensors["weight"], atol=1e-9)


def test_fit_does_not_depend_on_the_chunk_budget() -> None:
    features, samples = scenes()
    a, b = (
        probe().fit(features, lazy(samples), {}, replace(CTX, chunk_bytes=size)).tensors
        for size in (1, 2**20)
    )
    assert all(torch.allclose(a[k], b[k], rtol=1e-9, atol=1e-12) for k in a)


def test_streamed_fit_never_holds_all_features() -> None:
    features, samples = scenes(count=40)
    budget = 4 * features.image_bytes
    probe().fit(features, lazy(samples), {}, replace(CTX, chunk_bytes=budget))
    # Each thread works on one block while the next is read; here a batch makes one small block.
    assert features.most_alive <= (torch.get_num_threads() + 3) * budget
    assert features.most_alive < 40 * features.image_bytes


def test_prediction_leaves_the_valid_range_nowhere() -> None:
    assert prediction(99.0).depth((8, 8)).max() == pytest.approx(50.0)
    assert prediction(-99.0).depth((8, 8)).min() == pytest.approx(0.05)


def test_range_upside_down_is_refused() -> None:
    with pytest.raises(ValueError, match="min_depth_m must be below"):
        probe(min_depth_m=60.0)


def test_descending_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="ascending"):
        probe(lambda_per_n=(1.0, 0.1))
