"""What a two-view decoder is trained on: points and descriptors, each weighted by its own confidence
(PROTOCOLS §3.3; §12, MASt3R losses).

The losses are sums with their counts, never means: a mean over one process's pixels cannot be averaged
over processes.  Everything is computed in float32, also under autocast: a similarity is divided by a
temperature of 0.05.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from dune_bench.models.two_view_output import ViewOutput

Outputs = tuple[ViewOutput, ViewOutput]
_TINY = 1e-8


@dataclass(frozen=True)
class ViewTarget:
    """Truth of one view of each pair, at the size of the output map.

    points: (B, H, W, 3) in the **world** frame; any value where not valid.  valid, sky: bool (B, H, W),
    the pixel has a point; the pixel is known to be sky (valid has precedence).  cells: int64 (B, n, 2),
    cells (x, y) of the map, one end of the pair's correspondences.
    """

    points: Tensor
    valid: Tensor
    sky: Tensor
    cells: Tensor


@dataclass(frozen=True)
class PairTargets:
    """Truth of a batch of pairs.

    T_world_cam1: (B, 4, 4), points of camera 1 to the world.  metric: bool (B,), the points are in
    metres; others are known up to scale.  matched: bool (B, n), which correspondences are true; those
    that are not serve as negatives.
    """

    view1: ViewTarget
    view2: ViewTarget
    T_world_cam1: Tensor
    metric: Tensor
    matched: Tensor


@dataclass(frozen=True)
class Pooled:
    """A sum over all pixels or matches of a batch, and how many they are (both scalars); 0 and 0 if none."""

    total: Tensor
    count: Tensor


@dataclass(frozen=True)
class ConfidentRegression:
    """Distance of predicted from true points in camera 1's frame (Regr3D, L21, `?avg_dis`).

    Per pixel C · d − alpha · log C with confidence C and distance d.  Distances of a metric pair are in
    units of the truth's mean distance from camera 1, over both views; those of another pair compare
    prediction and truth each in units of its own.  A sky pixel has the distance `sky_distance`.
    """

    alpha: float = 0.2
    sky_distance: float = 2.0

    def __call__(self, outputs: Outputs, targets: PairTargets) -> tuple[Pooled, Pooled]:
        """The loss of view 1 and of view 2; the published one is the sum of the two means."""
        views = (targets.view1, targets.view2)
        with _full_precision(targets.metric.device):
            true = [_where_valid(_to_camera(view.points, targets.T_world_cam1), view) for view in views]
            # Cut before anything else: what lies under the mask, NaN too, must not reach a gradient.
            predicted = [
                _where_valid(output.points.float(), view) for output, view in zip(outputs, views, strict=True)
            ]
            count = views[0].valid.sum((1, 2)) + views[1].valid.sum((1, 2))
            true_scale, own = _mean_distance(true, count), _mean_distance(predicted, count)
            scale = torch.where(targets.metric[:, None, None, None], true_scale, own)
            distances = [
                (p / scale - t / true_scale).norm(dim=-1) for p, t in zip(predicted, true, strict=True)
            ]
        first, second = (
            self._view(distance, output.confidence, view)
            for distance, output, view in zip(distances, outputs, views, strict=True)
        )
        return first, second

    def _view(self, distance: Tensor, confidence: Tensor, view: ViewTarget) -> Pooled:
        counted = view.valid | view.sky
        distance = torch.where(view.valid, distance, self.sky_distance)
        return _weighted(distance[counted], confidence[counted].float(), self.alpha)


@dataclass(frozen=True)
class ConfidentMatching:
    """Contrast of the descriptors of true correspondences with all others of the pair (InfoNCE, `proper`).

    Per true correspondence C · l − alpha · log C, where l is the cross-entropy of finding its end in view
    2 among all n ends there plus that of finding its end in view 1, and C the mean of the two descriptor
    confidences.  A probability below 1e-8 counts as 1e-8, without gradient.
    """

    temperature: float = 0.05
    alpha: float = 10.0

    def __call__(self, outputs: Outputs, targets: PairTargets) -> Pooled:
        """The loss over all true correspondences of the batch.  Memory: B · n² floats."""
        ends = tuple(zip(outputs, (targets.view1.cells, targets.view2.cells), strict=True))
        with _full_precision(targets.matched.device):
            first, second = (_at(output.descriptors, cells).float() for output, cells in ends)
            similarity = first @ second.mT / self.temperature
            true = similarity.diagonal(dim1=-2, dim2=-1)
            floor = torch.tensor(_TINY).log().item()
            logs = [(true - similarity.logsumexp(axis)).clamp_min(floor) for axis in (-1, -2)]
            confidences = [_at(output.descriptor_confidence, cells).float() for output, cells in ends]
        loss, confidence = -(logs[0] + logs[1]), (confidences[0] + confidences[1]) / 2
        return _weighted(loss[targets.matched], confidence[targets.matched], self.alpha)


def _weighted(loss: Tensor, confidence: Tensor, alpha: float) -> Pooled:
    """Sum of confidence · loss − alpha · log confidence over (m,) items."""
    total = (confidence * loss - alpha * confidence.log()).sum()
    return Pooled(total, torch.tensor(len(loss), device=loss.device))


def _where_valid(points: Tensor, view: ViewTarget) -> Tensor:
    """Points (B, H, W, 3), 0 where the view has no truth."""
    return torch.where(view.valid[..., None], points, 0.0)


def _to_camera(points: Tensor, T_world_cam: Tensor) -> Tensor:
    """World points (B, H, W, 3) in the frame of cameras (B, 4, 4)."""
    T = torch.linalg.inv(T_world_cam)
    moved: Tensor = points.flatten(1, 2) @ T[:, :3, :3].mT + T[:, None, :3, 3]
    return moved.reshape(points.shape)


def _mean_distance(points: list[Tensor], count: Tensor) -> Tensor:
    """(B, 1, 1, 1) mean norm of the points of both views (B, H, W, 3), of which `count` (B,) are not 0."""
    total = torch.stack([view.norm(dim=-1).sum((1, 2)) for view in points]).sum(0)
    mean: Tensor = total / count.clamp_min(1)
    return mean.clamp_min(_TINY)[:, None, None, None]


def _at(maps: Tensor, cells: Tensor) -> Tensor:
    """(B, n, ...) values of maps (B, H, W, ...) at cells (B, n, 2), (x, y), of the same pair."""
    pair = torch.arange(len(maps), device=maps.device)[:, None]
    values: Tensor = maps[pair, cells[..., 1], cells[..., 0]]
    return values


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    with torch.autocast(device.type, enabled=False):
        yield
