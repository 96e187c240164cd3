"""Losses of the human head: hand-computed, against loops, and what must not be counted."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dune_bench.models.human_bodies import PeopleMeshes
from dune_bench.models.human_head import HumanHeadConfig, HumanOutput
from dune_bench.models.human_losses import (
    LossWeights,
    PeopleTruth,
    WeightedSum,
    head_cells,
    human_losses,
)

CLEAN = HumanHeadConfig(encoder_dim=4, patch=10, grid=(4, 4), rotations=2, betas=3, expressions=0)
COMPAT = CLEAN.model_copy(update={"compat": True})
CELLS = torch.tensor([[0, 1, 2], [1, 3, 0]])
K = torch.tensor([[[50.0, 0.0, 20.0], [0.0, 60.0, 20.0], [0.0, 0.0, 1.0]]]).expand(2, 3, 3)
REFERENCE_FOCAL = 40 / (2 * math.tan(math.pi / 6))


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def prediction(seed: int = 1) -> HumanOutput:
    return HumanOutput(
        cells=CELLS,
        offset=random(2, 2, seed=seed),
        loc=random(2, 2, seed=seed + 1),
        rotmat=random(2, 2, 3, 3, seed=seed + 2),
        betas=random(2, 3, seed=seed + 3),
        expression=torch.zeros(2, 0),
        dist_raw=random(2, seed=seed + 4),
        dist=random(2, seed=seed + 5).exp(),
        translation=random(2, 3, seed=seed + 6),
    )


def meshes(seed: int, joints: int = 5, vertices: int | None = 7) -> PeopleMeshes:
    place = torch.tensor([0.0, 0.0, 4.0])
    points = None if vertices is None else random(2, vertices, 3, seed=seed + 2) + place
    return PeopleMeshes(random(2, 3, seed=seed) + place, random(2, joints, 3, seed=seed + 1) + place, points)


def truth(seed: int = 50) -> PeopleTruth:
    return PeopleTruth(
        cells=CELLS,
        offset=random(2, 2, seed=seed),
        rotmat=random(2, 2, 3, 3, seed=seed + 1),
        betas=random(2, 3, seed=seed + 2),
        head=random(2, 3, seed=seed + 3) + torch.tensor([0.0, 0.0, 5.0]),
        meshes=meshes(seed + 4),
        ignored=torch.zeros(2, 4, 4, dtype=torch.bool),
    )


def losses(config: HumanHeadConfig = CLEAN, **changes: object) -> dict[str, WeightedSum]:
    values = {
        "logits": random(2, 4, 4, seed=9),
        "output": prediction(),
        "meshes": meshes(20),
        "truth": truth(),
        "weights": LossWeights(),
        **changes,
    }
    return human_losses(K=K, config=config, **values)  # type: ignore[arg-type]


def value(term: WeightedSum) -> float:
    return float(term.total / term.count)


def test_weights_are_the_published_ones() -> None:
    terms = losses()
    weights = {name: term.weight for name, term in terms.items()}
    assert weights == {
        "detection": 10,
        "offset": 1,
        "rotmat": 0.1,
        "betas": 1,
        "distance": 1,
        "translation": 1,
        "joints3d": 100,
        "vertices3d": 100,
        "joints2d": 1,
        "vertices2d": 1,
    }


def test_terms_are_the_means_of_loops() -> None:
    own, true, terms = prediction(), truth(), losses()
    for name in ("offset", "betas"):
        apart = (getattr(own, name) - getattr(true, name)).abs()
        assert value(terms[name]) == pytest.approx(float(apart.mean()), rel=1e-6)
    apart = (own.rotmat - true.rotmat).abs()
    assert value(terms["rotmat"]) == pytest.approx(float(apart.reshape(2, -1).sum(1).mean()), rel=1e-6)
    assert value(terms["translation"]) == pytest.approx(float((own.translation - true.head).abs().mean()))
    for name in ("joints", "vertices"):
        points, truths = getattr(meshes(20), name), getattr(true.meshes, name)
        total, count = 0.0, 0
        flat, inside = 0.0, 0
        for i in range(2):
            for p, t in zip(points[i].tolist(), truths[i].tolist(), strict=True):
                centred = (
                    np.array(p) - meshes(20).pelvis[i].numpy() - np.array(t) + true.meshes.pelvis[i].numpy()
                )
                total, count = total + float(np.abs(centred).sum()), count + 3
                pixel = [f * q[a] / q[2] + 20.0 for q in (p, t) for a, f in ((0, 50.0), (1, 60.0))]
                if t[2] > 0 and p[2] > 0.01 and 0 <= pixel[2] < 40 and 0 <= pixel[3] < 40:
                    flat += abs(pixel[0] - pixel[2]) + abs(pixel[1] - pixel[3])
                    inside += 2
        assert value(terms[f"{name}3d"]) == pytest.approx(total / count, rel=1e-5)
        assert 0 < inside < 2 * points.shape[0] * points.shape[1], "the case must have points outside"
        assert int(terms[f"{name}2d"].count) == inside
        assert value(terms[f"{name}2d"]) == pytest.approx(flat / inside, rel=1e-4)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-8, 8), min_size=32, max_size=32), st.booleans())
def test_detection_is_the_focal_loss_of_loops(numbers: list[float], compat: bool) -> None:
    logits = torch.tensor(numbers, dtype=torch.float64).reshape(2, 4, 4)
    ignored = torch.zeros(2, 4, 4, dtype=torch.bool)
    ignored[0, 0, 0] = ignored[1, 3, 1] = True
    term = losses(COMPAT if compat else CLEAN, logits=logits, truth=replace(truth(), ignored=ignored))
    total = 0.0
    for cell in np.ndindex(2, 4, 4):
        p = 1 / (1 + math.exp(-float(logits[cell])))
        if list(cell) in CELLS.tolist():
            total -= (1 - p) ** 2 * math.log(p)
        elif not ignored[cell]:
            total -= p**2 * math.log(1 - p)
    assert float(term["detection"].total) == pytest.approx(total, rel=1e-6)
    assert int(term["detection"].count) == 2


def test_confidently_wrong_token_still_learns_in_the_clean_mode() -> None:
    for config, learns in ((CLEAN, True), (COMPAT, False)):
        logits = torch.zeros(2, 4, 4)
        logits[0, 0, 0] = 15.0
        logits.requires_grad_()
        losses(config, logits=logits)["detection"].total.backward()
        assert logits.grad is not None
        assert bool(logits.grad[0, 0, 0] > 0.5) == learns


def test_clean_mode_supervises_the_heads_depth_and_compat_the_pelvis() -> None:
    own, true = prediction(), truth()
    head, pelvis = true.head[:, 2], true.meshes.pelvis[:, 2]
    ratio = math.sqrt(50 * 60) / REFERENCE_FOCAL
    clean = (own.dist_raw - (head / ratio).log()).abs().mean()
    assert value(losses(CLEAN)["distance"]) == pytest.approx(float(clean), rel=1e-5)
    released = (own.dist_raw - pelvis.log() / (50 / REFERENCE_FOCAL)).abs().mean()
    assert value(losses(COMPAT)["distance"]) == pytest.approx(float(released), rel=1e-5)


def test_terms_have_the_same_names_at_every_step() -> None:
    everything = losses()
    early = losses(with_2d=False)
    bare = losses(meshes=None)
    joints_only = losses(meshes=meshes(20, vertices=None))
    assert list(everything) == list(early) == list(bare) == list(joints_only)
    for terms, off in (
        (early, {"joints2d", "vertices2d"}),
        (bare, {"joints3d", "vertices3d", "joints2d", "vertices2d"}),
        (joints_only, {"vertices3d", "vertices2d"}),
    ):
        assert {name for name, term in terms.items() if term.count == 0} == off
        assert all(float(terms[name].total) == 0 for name in off)


def test_weight_of_zero_leaves_a_term_out() -> None:
    assert list(losses(weights=LossWeights(vertices3d=0, vertices2d=0))) == [
        *("detection", "offset", "rotmat", "betas", "distance", "translation", "joints3d", "joints2d"),
    ]


def test_points_behind_the_camera_have_no_pixel() -> None:
    behind = meshes(20)
    behind.joints[:, 0, 2] = -1.0
    behind.joints.requires_grad_()
    term = losses(meshes=behind)["joints2d"]
    term.total.backward()
    assert behind.joints.grad is not None
    assert bool(behind.joints.grad.isfinite().all())
    assert float(behind.joints.grad[:, 0].abs().max()) == 0


def test_batch_of_nobody_counts_nobody() -> None:
    def none(x: Tensor) -> Tensor:
        return x[:0]

    own, true = prediction(), truth()
    output = HumanOutput(**{name: none(x) for name, x in vars(own).items()})
    empty = PeopleMeshes(*(none(x) for x in vars(meshes(20)).values()))
    people = {name: none(getattr(true, name)) for name in ("cells", "offset", "rotmat", "betas", "head")}
    terms = losses(output=output, meshes=empty, truth=replace(true, **people, meshes=empty))
    assert all(int(term.count) == 0 for term in terms.values())
    assert {name for name, term in terms.items() if float(term.total) != 0} == {"detection"}


def test_later_person_in_a_token_is_dropped_only_as_released() -> None:
    """Two heads in token (0, 1), the nearer one second; a third next door."""
    pixels = torch.tensor([[12.0, 3.0], [18.0, 6.0], [25.0, 5.0]])
    depth = torch.tensor([5.0, 2.0, 3.0])
    assert head_cells(pixels, depth, COMPAT).kept.tolist() == [0, 2]
    found = head_cells(pixels, depth, CLEAN)
    assert found.kept.tolist() == [1, 2]
    assert found.cells.tolist() == [[0, 1], [0, 2]]
    assert torch.allclose(found.offset, torch.tensor([[0.3, 0.1], [0.0, 0.0]]), atol=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(-30, 70), st.floats(-30, 70), st.floats(-2, 9)), max_size=12))
def test_offsets_lead_back_to_the_heads(heads: list[tuple[float, float, float]]) -> None:
    rows = torch.tensor(heads, dtype=torch.float64).reshape(-1, 3)
    found = head_cells(rows[:, :2], rows[:, 2], CLEAN)
    back = (found.cells.flip(-1) + 0.5 + found.offset) * CLEAN.patch
    assert torch.allclose(back, rows[found.kept, :2], atol=1e-9)
    assert ((found.offset >= -0.5) & (found.offset < 0.5 + 1e-9)).all()
    assert len(set(map(tuple, found.cells.tolist()))) == len(found.kept)
    for x, y, z in rows[~torch.isin(torch.arange(len(rows)), found.kept)].tolist():
        usable = 0 <= x < 40 and 0 <= y < 40 and z > 0
        nearer = [
            float(rows[i, 2])
            for i, cell in zip(found.kept.tolist(), found.cells.tolist(), strict=True)
            if cell == [int(y / 10), int(x / 10)]
        ]
        assert not usable or (nearer and nearer[0] <= z)


def test_head_that_is_not_finite_has_no_token() -> None:
    pixels = torch.tensor([[math.nan, 3.0], [math.inf, 1.0], [5.0, 5.0]])
    assert head_cells(pixels, torch.tensor([1.0, 1.0, math.nan]), CLEAN).kept.tolist() == []
