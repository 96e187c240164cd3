"""Statistics of a pair whose points come without a pose: the same as by depth and pose, and apart from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dune_bench.errors import TaskError
from dune_bench.probes.pair_points import pair_statistics, point_statistics
from tests.probes.fake_room import pair, relative
from tests.probes.two_view_world import depth_maps


def test_points_of_a_pair_are_scored_as_its_depth_and_pose_are() -> None:
    """Maps of depths read 10 and 20 % too far, and both with the true pose: every statistic agrees."""
    sample = pair()
    views = (sample.view1, sample.view2)
    far = [v.depth.astype(np.float64) * f for v, f in zip(views, (1.1, 1.2), strict=True)]
    by_depth = pair_statistics(relative(sample), (lambda _: far[0], lambda _: far[1]), sample, 24, 5.0)
    read = [replace(v, depth=d.astype(np.float32)) for v, d in zip(views, far, strict=True)]
    maps = depth_maps(replace(sample, view1=read[0], view2=read[1]))
    points = (maps.view1.points_at, maps.view2.points_at)
    by_points = point_statistics(relative(sample), points, sample, 24, 5.0)
    assert by_depth.keys() == by_points.keys()
    for name, value in by_depth.items():
        assert float(by_points[name]) == pytest.approx(float(value), rel=1e-4, abs=1e-4), name
    assert float(by_depth["pointmap_m"]) > 0.1


def test_a_pair_without_a_pose_keeps_its_points() -> None:
    sample = pair()
    maps = depth_maps(sample)
    stats = point_statistics(None, (maps.view1.points_at, maps.view2.points_at), sample, 24, 5.0)
    assert stats["failed"]
    assert stats["rot_deg"] == 180.0
    assert stats["pointmap_m"] < 1e-3
    assert stats["coverage"] == 100.0


def test_a_pair_without_points_keeps_its_pose_and_has_no_inlier() -> None:
    sample = pair()
    stats = point_statistics(relative(sample), None, sample, 24, 5.0)
    assert not stats["failed"]
    assert stats["rot_deg"] < 1e-6
    assert stats["pointmap_m"] == stats["chamfer_m"] == 5.0
    assert stats["inliers@25cm"] == stats["coverage"] == 0.0


def test_a_pose_that_cannot_be_names_its_sample() -> None:
    sample = pair()
    for estimate in (np.full((4, 4), np.nan), 2 * np.eye(4)):
        with pytest.raises(TaskError, match="sample pair: estimate"):
            point_statistics(estimate, None, sample, 24, 5.0)
        with pytest.raises(TaskError, match="sample pair: estimate"):
            pair_statistics(estimate, (lambda _: np.ones((4, 4)),) * 2, sample, 24, 5.0)
