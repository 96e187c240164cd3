"""Batches for the human head: cells, offsets, cameras and people agree, mirrored or moved aside or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dune_bench.data.samples import HumanSample
from dune_bench.engine.data import Pick
from dune_bench.models.human_camera import project
from dune_bench.models.human_head import HumanHeadConfig
from dune_bench.probes import hmr_learned_data
from dune_bench.probes.grids import TokenGrid
from dune_bench.probes.hmr_layout import anchor_points, new_layout
from dune_bench.probes.hmr_learned_data import PeopleBatch, PeopleImages, grid_camera
from dune_bench.probes.hmr_people import people_of
from tests.probes.fake_features import FakeFeatures
from tests.probes.hmr_training import protocol, world
from tests.probes.hmr_world import K, lazy, model, person, sample, someone, upright

PICKS = [Pick(i, 100 + i) for i in range(9)]


def images(
    samples: Any = None, features: FakeFeatures | None = None, anchor: Any = "between_ears", **learning: Any
) -> PeopleImages:
    given, own = world()
    samples, features = samples or given, features or own
    training = protocol(learning={"mirrored": False, "neighbour_share": 0.0} | learning).training
    people = [p for s in samples for p in people_of(s, 0.3).people]
    layout = new_layout(model(), people, "people")
    height = features.image_size[0] + features.padding[1] + features.padding[3]
    config = training.shape.of(features.dim, height // features.grid[0], features.grid, layout)
    return PeopleImages(features, lazy(samples), layout, config, training.learning, 0.3, anchor)


def config_of(data: PeopleImages) -> HumanHeadConfig:
    return data._config


def projected(batch: PeopleBatch) -> torch.Tensor:
    """Heads in pixels of the token grid."""
    return project(batch.at, batch.K[batch.cells[:, 0]])


def placed(batch: PeopleBatch, patch: int) -> torch.Tensor:
    """Where cells and offsets say the heads are."""
    return (batch.cells[:, [2, 1]] + 0.5 + batch.offset) * patch


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_head_does_not_lie_beside_its_cell_and_offset(mirrored: bool, share: float) -> None:
    data = images(mirrored=mirrored, neighbour_share=share)
    batch = data.batch(PICKS)
    assert len(batch.cells) == 18
    assert torch.allclose(placed(batch, 14), projected(batch), atol=2e-3)
    moved = (batch.cells != batch.heads).any(-1)
    assert bool(moved.any()) == (share > 0)
    assert int((batch.cells - batch.heads).abs().max()) <= 1
    assert float(batch.offset[~moved].abs().max()) <= 0.5


def test_a_mirrored_picture_is_not_that_of_other_people() -> None:
    """The bodies of the mirrored truth are the mirror images of the bodies, seen by the mirrored camera."""
    plain = images().batch(PICKS)
    data = images(mirrored=True)
    both = data.batch(PICKS)
    flipped = ~torch.isclose(both.at[:, 0], plain.at[:, 0])
    assert 0 < int(flipped.sum()) < len(flipped)
    expected = plain.at * torch.where(flipped[:, None], torch.tensor([-1.0, 1.0, 1.0]), torch.ones(3))
    assert torch.allclose(both.at, expected)
    turned = sorted(set(both.cells[flipped, 0].tolist()))
    for image in range(9):
        tokens = plain.tokens[image].flip(-1) if image in turned else plain.tokens[image]
        assert torch.equal(both.tokens[image], tokens)
        assert torch.equal(
            both.ignored[image], plain.ignored[image].flip(-1) if image in turned else plain.ignored[image]
        )


def test_the_camera_of_a_padded_grid_is_not_that_of_the_image() -> None:
    grid = TokenGrid((24, 24), (448, 448), (7, 11, 9, 5))
    camera = grid_camera(K, (448, 448), grid)
    assert camera[:2, 2].tolist() == [224 + 7, 224 + 11]
    halved = grid_camera(K, (448, 448), TokenGrid((24, 24), (224, 224), (7, 11, 9, 5)))
    assert halved[:2, 2].tolist() == [112 + 7, 112 + 11]
    assert K[0, 2] == 224, "the sample's own camera is left alone"


def test_heads_on_a_padded_grid_keep_their_tokens() -> None:
    _, own = world()
    padded = {name: torch.nn.functional.pad(x, (1, 2, 1, 2)) for name, x in own.maps.items()}
    features = FakeFeatures(padded, own.image_size, (14, 14, 28, 28))
    plain, wide = images().batch(PICKS), images(features=features).batch(PICKS)
    assert torch.equal(wide.cells[:, 1:], plain.cells[:, 1:] + 1)
    assert torch.allclose(wide.offset, plain.offset, atol=1e-4)
    assert torch.allclose(placed(wide, 14), projected(wide), atol=2e-3)


def test_people_who_need_not_be_found_are_neither_heads_nor_background() -> None:
    rng = np.random.default_rng(1)
    near = person("near", upright(-0.6, 3.0, 0.2), someone(rng))
    hidden = person("hidden", upright(0.7, 3.2, 0.1), someone(rng))
    hidden = type(hidden)(**{**vars(hidden), "visible_fraction": 0.1})
    one = sample("a", [near, hidden])
    features = FakeFeatures({"a": torch.zeros(5, 24, 24)}, (336, 336))
    for spare, count in ((True, 8 + 9), (False, 1)):
        batch = images([one], features, spare_neighbours=spare).batch([Pick(0, 1)])
        assert len(batch.heads) == 1
        assert int(batch.ignored.sum()) == count
        assert not bool(batch.ignored[batch.heads.unbind(-1)].any())


def test_the_head_joint_is_not_the_middle_between_the_ears() -> None:
    ears, joint = images().batch(PICKS), images(anchor="head_joint").batch(PICKS)
    apart = (ears.at - joint.at).norm(dim=-1)
    assert float(apart.min()) > 0.02
    data = images(anchor="head_joint")
    bodies = data._layout.posed(ears.people, ears.at, "between_ears").bodies
    assert torch.allclose(anchor_points(model(), bodies, "head_joint"), joint.at, atol=1e-5)
    assert torch.allclose(placed(joint, 14), projected(joint), atol=2e-3)


def test_two_people_are_not_asked_for_at_one_token() -> None:
    rng = np.random.default_rng(3)
    close = [person(f"p{i}", upright(-0.28 + 0.08 * i, 3.0 + 0.01 * i, 0.0), someone(rng)) for i in range(8)]
    one: HumanSample = sample("a", close)
    features = FakeFeatures({"a": torch.zeros(5, 24, 24)}, (336, 336))
    data = images([one], features, neighbour_share=1.0)
    for seed in range(20):
        cells = data.batch([Pick(0, seed)]).cells
        assert len(cells) > 3
        assert len(cells.unique(dim=0)) == len(cells)


def test_a_batch_is_a_function_of_its_picks() -> None:
    data = images(mirrored=True, neighbour_share=0.5)
    one = data.batch(PICKS)
    data.batch([Pick(3, 9)])
    again = data.batch(PICKS)
    for name in ("tokens", "K", "heads", "cells", "offset", "at", "ignored"):
        assert torch.equal(getattr(one, name), getattr(again, name)), name
    assert torch.equal(one.people.rotmat, again.people.rotmat)
    other = data.batch([Pick(p.index, p.seed + 1) for p in PICKS])
    assert not torch.equal(one.cells, other.cells)
    assert data.describe(PICKS[:2]) == ["i0", "i1"]


@pytest.mark.parametrize("remembered", [3, 20_000])
def test_a_batch_does_not_depend_on_those_before(monkeypatch: pytest.MonkeyPatch, remembered: int) -> None:
    """To the last bit, or a resumed training would differ: bodies posed with others round otherwise."""
    monkeypatch.setattr(hmr_learned_data, "BLOCK", 2)
    monkeypatch.setattr(hmr_learned_data, "REMEMBERED", remembered)
    first, resumed = images(anchor="head_joint"), images(anchor="head_joint")
    for picks in (PICKS[:1], PICKS[4:8], PICKS[2:4]):
        first.batch(picks)
    for name in ("heads", "cells", "offset", "at", "ignored"):
        one, other = (getattr(data.batch(PICKS[3:9]), name) for data in (first, resumed))
        assert torch.equal(one, other), name


def test_people_who_were_read_ahead_are_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hmr_learned_data, "BLOCK", 2)
    ahead, as_asked = images(anchor="head_joint"), images(anchor="head_joint")
    ahead.read_ahead()
    monkeypatch.setattr(ahead, "_read", lambda indices: pytest.fail(f"{indices} read again"))
    assert torch.equal(ahead.batch(PICKS).at, as_asked.batch(PICKS).at)


def test_an_image_without_people_is_background_alone() -> None:
    features = FakeFeatures({"a": torch.zeros(5, 24, 24), "b": torch.zeros(5, 24, 24)}, (336, 336))
    rng = np.random.default_rng(0)
    both = [sample("a", []), sample("b", [person("p", upright(0, 3.0, 0.0), someone(rng))])]
    batch = images(both, features).batch([Pick(0, 1)])
    assert batch.cells.shape == (0, 3)
    assert batch.people.rotmat.shape[0] == 0
    assert not bool(batch.ignored.any())
