"""What a two-view decoder is trained on, against loops over cells and the exact room."""

from __future__ import annotations

import weakref
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
import pytest
import torch

from dune_bench.data.base import Lazy, LazyItem
from dune_bench.data.samples import PairSample, View
from dune_bench.engine.data import Pick
from dune_bench.errors import TaskError
from dune_bench.geometry.poses import pose
from dune_bench.models.two_view_losses import ViewTarget
from dune_bench.probes.two_view_pairs import PairBatch, PairConstants, TwoViewPairs
from tests.probes.fake_room import SIZE, Floats, depth_at, intrinsics, lazy_pairs, turn, view
from tests.probes.two_view_training import MAP, PAIRS, POSES, room, waves

CELLS = MAP[0] * MAP[1]
AWAY = pose(turn(190.0, 5.0), np.array([0.2, 0.1, 0.4]))


def pairs_of(samples: list[PairSample], **changes: Any) -> TwoViewPairs:
    constants = PairConstants.model_validate({**PAIRS, **changes})
    return TwoViewPairs(waves(samples), lazy_pairs(samples), MAP, constants)


def names(pairs: TwoViewPairs) -> list[str]:
    return list(pairs.describe([Pick(i, 0) for i in range(len(pairs))]))


def with_holes(sample: PairSample) -> PairSample:
    """Depth that is missing in three ways where cells of the map have their centres, and one half as
    coarse as the image in view 2."""
    depth = sample.view1.depth.copy()
    depth[0:8, 0:8], depth[40:48, 64:72], depth[88:, 120:] = 0.0, np.nan, -1.0
    coarse = view(sample.view2.id, sample.view2.T_cam_world, (SIZE[0] // 2, SIZE[1] // 2))
    return replace(sample, view1=replace(sample.view1, depth=depth), view2=coarse)


def by_loop(one: View) -> tuple[Floats, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Points of the world at the cells' centres, and whether there is one: cell by cell."""
    points, valid = np.full((*MAP, 3), np.nan), np.zeros(MAP, bool)
    T_world_cam = np.linalg.inv(one.T_cam_world)
    for row in range(MAP[0]):
        for column in range(MAP[1]):
            x, y = (column + 0.5) * SIZE[1] / MAP[1], (row + 0.5) * SIZE[0] / MAP[0]
            height, width = one.depth.shape
            z = one.depth[int(y * height / SIZE[0]), int(x * width / SIZE[1])]
            if np.isfinite(z) and z > 0:
                own = np.array([(x - one.K[0, 2]) / one.K[0, 0] * z, (y - one.K[1, 2]) / one.K[1, 1] * z, z])
                points[row, column] = T_world_cam[:3, :3] @ own + T_world_cam[:3, 3]
                valid[row, column] = True
    return points, valid


def test_targets_are_the_world_at_the_cells_centres() -> None:
    sample = with_holes(room(poses=POSES[:2])[0])
    pairs = pairs_of([sample])
    assert names(pairs) == ["room-0 + room-1", "room-1 + room-0"]
    batch = pairs.batch([Pick(0, 1), Pick(1, 2)])
    expected = [by_loop(sample.view1), by_loop(sample.view2)]
    assert not expected[0][1].all()
    for target, order in ((batch.targets.view1, (0, 1)), (batch.targets.view2, (1, 0))):
        for row, which in enumerate(order):
            points, valid = expected[which]
            assert np.array_equal(target.valid[row].numpy(), valid)
            assert np.allclose(target.points[row].numpy()[valid], points[valid], atol=1e-5)
        assert not target.sky.any()
    cameras = [sample.view1.T_cam_world, sample.view2.T_cam_world]
    assert np.allclose(batch.targets.T_world_cam1.numpy(), np.linalg.inv(cameras), atol=1e-6)
    assert batch.targets.metric.all()


def cell_that_sees(one: View, other: View, cell: int) -> int | None:
    """Of the exact room: the cell of the other view in which the centre of a cell of this view lies."""
    x, y = (cell % MAP[1] + 0.5) * SIZE[1] / MAP[1], (cell // MAP[1] + 0.5) * SIZE[0] / MAP[0]
    z = depth_at(one.T_cam_world, np.array([[x, y]]))[0]
    own = np.linalg.inv(intrinsics()) @ [x * z, y * z, z]
    u, v, depth = intrinsics() @ (other.T_cam_world @ np.linalg.inv(one.T_cam_world) @ [*own, 1.0])[:3]
    column, row = np.floor([u / depth * MAP[1] / SIZE[1], v / depth * MAP[0] / SIZE[0]]).astype(int)
    inside = depth > 0 and 0 <= column < MAP[1] and 0 <= row < MAP[0]
    return int(row * MAP[1] + column) if inside else None


def test_true_correspondences_are_exactly_those_of_the_room() -> None:
    sample = room(poses=POSES[:2])[0]
    expected = {
        (cell, seen)
        for cell in range(CELLS)
        if (seen := cell_that_sees(sample.view1, sample.view2, cell)) is not None
        and cell_that_sees(sample.view2, sample.view1, seen) == cell
    }
    assert 20 < len(expected) < CELLS
    targets = pairs_of([sample], correspondences=CELLS, negative_share=0.0).batch([Pick(0, 3)]).targets
    ends = [cells_of(view)[0] for view in (targets.view1, targets.view2)]
    rows = list(zip(*(end.tolist() for end in ends), targets.matched[0].tolist(), strict=True))
    assert {(first, second) for first, second, true in rows if true} == expected
    assert len(rows) == CELLS


def cells_of(target: ViewTarget) -> torch.Tensor:
    """Row-major cells (B, n)."""
    return target.cells[..., 1] * MAP[1] + target.cells[..., 0]


def test_tokens_are_those_of_the_views_in_their_order() -> None:
    samples = room()
    features, pairs = waves(samples), pairs_of(samples)
    picks = [Pick(i, 0) for i in range(len(pairs))]
    batch = pairs.batch(picks)
    for row, name in enumerate(pairs.describe(picks)):
        first, second = name.split(" + ")
        assert torch.equal(batch.tokens1[row], features.maps[first])
        assert torch.equal(batch.tokens2[row], features.maps[second])


def test_pairs_are_all_ordered_ones_of_a_room_and_none_across_rooms() -> None:
    """The samples name the first view with each other one; the others are paired too."""
    found = names(pairs_of([*room("a"), *room("b", POSES[:2])]))
    assert sorted(found) == sorted(
        [f"a-{i} + a-{j}" for i in range(3) for j in range(3) if i != j] + ["b-0 + b-1", "b-1 + b-0"]
    )


def test_views_that_share_too_little_are_no_pair() -> None:
    samples = room(poses=(*POSES[:2], AWAY))
    assert names(pairs_of(samples)) == ["room-0 + room-1", "room-1 + room-0"]
    assert len(pairs_of(samples, min_covisible=0.0)) == 6
    with pytest.raises(TaskError, match="no pair of training views shares 99% of what it shows"):
        pairs_of(samples, min_covisible=0.99)


def test_a_room_without_overlap_is_an_error_and_no_empty_training() -> None:
    with pytest.raises(TaskError, match="no pair of training views shares 20%") as stopped:
        pairs_of(room(poses=(POSES[0], AWAY)))
    assert "\n" not in str(stopped.value)


@pytest.mark.parametrize(
    ("field", "wrong", "reason"),
    [
        ("T_cam_world", np.diag([1.0, 1.0, 2.0, 1.0]), "T_cam_world"),
        ("K", np.diag([8.0, 8.0, 1.0]) @ intrinsics(), "intrinsics of another size"),
    ],
)
def test_a_view_that_cannot_be_is_named(field: str, wrong: Floats, reason: str) -> None:
    sample = room(poses=POSES[:2])[0]
    with pytest.raises(TaskError, match=f"view room-1: .*{reason}"):
        pairs_of([replace(sample, view2=cast(View, replace(cast(Any, sample.view2), **{field: wrong})))])


def same(one: PairBatch, other: PairBatch) -> bool:
    return all(
        torch.equal(getattr(a, name), getattr(b, name))
        for a, b in (
            (one.targets.view1, other.targets.view1),
            (one.targets.view2, other.targets.view2),
        )
        for name in ("valid", "cells")
    ) and torch.equal(one.targets.matched, other.targets.matched)


def test_the_draw_follows_from_the_picks_seed_alone() -> None:
    samples = room()
    pairs, again = pairs_of(samples), pairs_of(samples)
    torch.manual_seed(0)
    one = pairs.batch([Pick(0, 7)])
    torch.manual_seed(1)
    again.batch([Pick(3, 5)])
    assert same(one, again.batch([Pick(0, 7)]))
    together = pairs.batch([Pick(4, 2), Pick(0, 7)]).targets
    assert torch.equal(together.view1.cells[1], one.targets.view1.cells[0])
    assert torch.equal(together.view2.cells[1], one.targets.view2.cells[0])
    other = pairs.batch([Pick(0, 8)])
    assert not same(one, other)
    assert torch.equal(one.targets.view1.valid, other.targets.view1.valid)


class Memory:
    """Samples made when asked for; how many rooms' depth maps are in memory at once."""

    def __init__(self) -> None:
        self.alive: Counter[str] = Counter()
        self.most_rooms = 0

    def load(self, name: str, index: int) -> PairSample:
        sample = room(name)[index]
        for one in (sample.view1, sample.view2):
            self.alive[name] += 1
            weakref.finalize(one.depth, self._freed, name)
        self.most_rooms = max(self.most_rooms, sum(count > 0 for count in self.alive.values()))
        return sample

    def _freed(self, name: str) -> None:
        self.alive[name] -= 1


def test_truth_of_one_room_at_a_time_is_in_memory() -> None:
    memory = Memory()
    rooms = ("a", "b", "c")
    items = [
        LazyItem(s.id, s.group, (s.view1.image, s.view2.image), partial(memory.load, name, i))
        for name in rooms
        for i, s in enumerate(room(name))
    ]
    features = waves([s for name in rooms for s in room(name)])
    pairs = TwoViewPairs(features, Lazy(items), MAP, PairConstants.model_validate(PAIRS))
    assert len(pairs) == 18
    assert memory.most_rooms == 1
    assert sum(memory.alive.values()) == 0
