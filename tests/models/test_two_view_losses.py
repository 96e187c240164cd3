"""The losses of a two-view decoder against plain loops, and where there is nothing to learn from."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from dune_bench.models.two_view_losses import (
    ConfidentMatching,
    ConfidentRegression,
    Outputs,
    PairTargets,
    Pooled,
    ViewTarget,
)
from dune_bench.models.two_view_output import ViewOutput

ALPHA, SKY, TEMPERATURE, MATCHING_ALPHA = 0.2, 2.0, 0.05, 10.0
HEIGHT, WIDTH, PAIRS, CELLS = 2, 3, 2, 4


def output(g: torch.Generator) -> ViewOutput:
    def normal(*channels: int) -> Tensor:
        return torch.randn((PAIRS, HEIGHT, WIDTH, *channels), generator=g, dtype=torch.float32)

    descriptors = torch.nn.functional.normalize(normal(5), dim=-1)
    leaves = (normal(3), 1 + normal().exp(), descriptors, normal().exp())
    return ViewOutput(*(leaf.requires_grad_(True) for leaf in leaves))


def target(g: torch.Generator, share: float) -> ViewTarget:
    shape = (PAIRS, HEIGHT, WIDTH)
    points = torch.randn((*shape, 3), generator=g) * 2
    valid, sky = (torch.rand(shape, generator=g) < chance for chance in (share, 0.3))
    points[~valid] = torch.nan
    x = torch.randint(WIDTH, (PAIRS, CELLS), generator=g)
    y = torch.randint(HEIGHT, (PAIRS, CELLS), generator=g)
    return ViewTarget(points, valid, sky, torch.stack([x, y], -1))


def case(seed: int, share: float = 0.7, matched: float = 0.6) -> tuple[Outputs, PairTargets]:
    g = torch.Generator().manual_seed(seed)
    pose = torch.eye(4).repeat(PAIRS, 1, 1)
    for k in range(PAIRS):
        pose[k, :3, :3] = torch.from_numpy(Rotation.random(random_state=seed % 1000 + k).as_matrix())
        pose[k, :3, 3] = torch.randn(3, generator=g)
    metric = torch.rand(PAIRS, generator=g) < 0.5
    true = torch.rand((PAIRS, CELLS), generator=g) < matched
    targets = PairTargets(target(g, share), target(g, share), pose, metric, true)
    return (output(g), output(g)), targets


def norm(vector: list[float]) -> float:
    return math.sqrt(sum(v * v for v in vector))


def in_camera(point: list[float], pose: list[list[float]]) -> list[float]:
    moved = [point[i] - pose[i][3] for i in range(3)]
    return [sum(pose[i][j] * moved[i] for i in range(3)) for j in range(3)]


def regression_by_loops(outputs: Outputs, targets: PairTargets) -> list[tuple[float, int]]:
    """Sum and count of each view, pixel by pixel."""
    views = (targets.view1, targets.view2)
    sums = [[0.0, 0], [0.0, 0]]
    for b in range(PAIRS):
        pose = targets.T_world_cam1[b].tolist()
        pixels = [(v, y, x) for v in (0, 1) for y in range(HEIGHT) for x in range(WIDTH)]
        valid = [(v, y, x) for v, y, x in pixels if views[v].valid[b, y, x]]
        true = {(v, y, x): in_camera(views[v].points[b, y, x].tolist(), pose) for v, y, x in valid}
        mine = {(v, y, x): outputs[v].points[b, y, x].tolist() for v, y, x in valid}
        if valid:
            true_scale = sum(map(norm, true.values())) / len(valid)
            own_scale = true_scale if targets.metric[b] else sum(map(norm, mine.values())) / len(valid)
        for v, y, x in pixels:
            if (v, y, x) in true:
                pairs = zip(mine[v, y, x], true[v, y, x], strict=True)
                distance = norm([p / own_scale - t / true_scale for p, t in pairs])
            elif views[v].sky[b, y, x]:
                distance = SKY
            else:
                continue
            confidence = outputs[v].confidence[b, y, x].item()
            sums[v][0] += confidence * distance - ALPHA * math.log(confidence)
            sums[v][1] += 1
    return [(total, int(count)) for total, count in sums]


def matching_by_loops(outputs: Outputs, targets: PairTargets) -> tuple[float, int]:
    total, count = 0.0, 0
    for b in range(PAIRS):
        cells = [view.cells[b].tolist() for view in (targets.view1, targets.view2)]
        ends = [
            [o.descriptors[b, y, x].tolist() for x, y in side] for o, side in zip(outputs, cells, strict=True)
        ]
        weight = [
            [math.exp(sum(p * q for p, q in zip(d1, d2, strict=True)) / TEMPERATURE) for d2 in ends[1]]
            for d1 in ends[0]
        ]
        for i in range(CELLS):
            if not targets.matched[b, i]:
                continue
            row = weight[i][i] / sum(weight[i])
            column = weight[i][i] / sum(weight[k][i] for k in range(CELLS))
            loss = -math.log(max(row, 1e-8)) - math.log(max(column, 1e-8))
            (x1, y1), (x2, y2) = cells[0][i], cells[1][i]
            first, second = (o.descriptor_confidence[b] for o in outputs)
            confidence = (first[y1, x1].item() + second[y2, x2].item()) / 2
            total += confidence * loss - MATCHING_ALPHA * math.log(confidence)
            count += 1
    return total, count


def check(found: Pooled, expected: tuple[float, int]) -> None:
    assert int(found.count) == expected[1]
    assert found.total.item() == pytest.approx(expected[0], rel=1e-4, abs=1e-4)


def gradients(outputs: Outputs) -> list[Tensor]:
    leaves = [leaf for view in outputs for leaf in vars(view).values()]
    return [leaf.grad for leaf in leaves if leaf.grad is not None]


seeds = st.integers(0, 2**31)


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([0.2, 0.7, 1.0]))
def test_regression_is_not_off_a_plain_loop(seed: int, share: float) -> None:
    outputs, targets = case(seed, share)
    for found, expected in zip(
        ConfidentRegression()(outputs, targets), regression_by_loops(outputs, targets), strict=True
    ):
        check(found, expected)


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([0.3, 1.0]))
def test_matching_is_not_off_a_plain_loop(seed: int, matched: float) -> None:
    outputs, targets = case(seed, matched=matched)
    check(ConfidentMatching()(outputs, targets), matching_by_loops(outputs, targets))


def test_batches_without_truth_count_nothing_and_are_not_nan() -> None:
    outputs, targets = case(0, share=0.0, matched=0.0)
    no_sky = [replace(v, sky=torch.zeros_like(v.sky)) for v in (targets.view1, targets.view2)]
    targets = replace(targets, view1=no_sky[0], view2=no_sky[1])
    pooled = (*ConfidentRegression()(outputs, targets), ConfidentMatching()(outputs, targets))
    assert [(p.total.item(), int(p.count)) for p in pooled] == [(0.0, 0)] * 3
    sum(p.total for p in pooled).backward()
    found = gradients(outputs)
    assert len(found) == 8
    assert all((gradient == 0).all() for gradient in found)


@pytest.mark.parametrize("metric", [True, False])
def test_a_pixel_without_truth_cannot_spoil_the_gradient(metric: bool) -> None:
    outputs, targets = case(3, share=0.5)
    targets = replace(targets, metric=torch.full((PAIRS,), metric))
    with torch.no_grad():
        for view, truth in zip(outputs, (targets.view1, targets.view2), strict=True):
            view.points[~truth.valid] = torch.nan
    pooled = ConfidentRegression()(outputs, targets)
    sum(p.total for p in pooled).backward()
    assert all(gradient.isfinite().all() for gradient in gradients(outputs))


def test_only_the_scale_of_pairs_that_are_not_metric_is_forgiven() -> None:
    outputs, targets = case(5)
    for metric, same in ((False, True), (True, False)):
        of = replace(targets, metric=torch.full((PAIRS,), metric))
        larger = tuple(replace(view, points=view.points * 3) for view in outputs)
        plain, scaled = (ConfidentRegression()(o, of)[0].total.item() for o in (outputs, larger))
        assert (plain == pytest.approx(scaled, rel=1e-5)) is same


def test_true_points_are_not_an_error_and_have_a_finite_gradient() -> None:
    outputs, targets = case(7, share=1.0)
    T = torch.linalg.inv(targets.T_world_cam1)[:, None, None]
    exact = [
        replace(
            view,
            points=(T[..., :3, :3] @ truth.points[..., None])[..., 0].add(T[..., :3, 3]).requires_grad_(True),
            confidence=torch.ones_like(view.confidence),
        )
        for view, truth in zip(outputs, (targets.view1, targets.view2), strict=True)
    ]
    pooled = ConfidentRegression()((exact[0], exact[1]), targets)
    assert all(p.total.item() == pytest.approx(0.0, abs=1e-5) for p in pooled)
    sum(p.total for p in pooled).backward()
    assert all(view.points.grad is not None and view.points.grad.isfinite().all() for view in exact)


def test_autocast_does_not_blunt_the_similarities() -> None:
    outputs, targets = case(9)
    plain = ConfidentMatching()(outputs, targets).total.item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ConfidentMatching()(outputs, targets).total.item() == plain


def test_two_parts_of_a_batch_are_not_averaged_but_summed() -> None:
    """What the engine relies on: sums and counts of the parts are those of the whole."""
    outputs, targets = case(11)

    def pair(k: int) -> tuple[Outputs, PairTargets]:
        def cut(item: object) -> dict[str, Tensor]:
            return {name: value[k : k + 1] for name, value in vars(item).items() if isinstance(value, Tensor)}

        first, second = (ViewOutput(**cut(view)) for view in outputs)
        views = {name: ViewTarget(**cut(getattr(targets, name))) for name in ("view1", "view2")}
        return (first, second), PairTargets(**views, **cut(targets))

    for loss in (lambda o, t: ConfidentRegression()(o, t)[1], ConfidentMatching()):
        whole, parts = loss(outputs, targets), [loss(*pair(k)) for k in range(PAIRS)]
        assert sum(int(p.count) for p in parts) == int(whole.count)
        assert sum(p.total.item() for p in parts) == pytest.approx(whole.total.item(), rel=1e-4)
