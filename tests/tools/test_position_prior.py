"""The position-only baseline of MiniRooms."""

from __future__ import annotations

import numpy as np
import pytest

from dune_bench.data.minirooms.dataset import MiniRooms
from dune_bench.data.samples import SegSample
from tests.data.minirooms_fixture import write_tiny_minirooms
from tools.minirooms.position_prior import class_maps, mean_iou, position_guess


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MiniRooms:
    root = tmp_path_factory.mktemp("position")
    write_tiny_minirooms(root, 2, 2, 2, size=32)
    return MiniRooms("minirooms@1", root)


def test_mean_iou_is_that_of_a_count_by_hand(data: MiniRooms) -> None:
    guess = np.zeros((32, 32), np.int64)
    guess[16:] = 1
    labels = np.stack([s.labels for s in data.samples(SegSample, "test") if isinstance(s, SegSample)])
    values = []
    for k in range(len(data.classes)):
        truth, said = labels == k, np.broadcast_to(guess == k, labels.shape)
        if (truth | said).any():
            values.append((truth & said).sum() / (truth | said).sum())
    assert mean_iou(data, "test", guess) == pytest.approx(np.mean(values))


def test_guess_is_the_most_frequent_class_of_the_training_rooms_only(data: MiniRooms) -> None:
    maps = class_maps(data, "train")
    np.testing.assert_allclose(maps.sum(axis=0), 1.0)
    labels = np.stack([s.labels for s in data.samples(SegSample, "train") if isinstance(s, SegSample)])
    guess = position_guess(maps, sigma=1e-6)
    for i, j in ((0, 0), (31, 16), (16, 16)):
        counts = np.bincount(labels[:, i, j], minlength=len(data.classes))
        assert counts[guess[i, j]] == counts.max()
