"""Fitting the probe: heads on the grid, bodies as rows, tokens to regress them from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dune_bench.data.base import Lazy
from dune_bench.data.samples import HumanSample
from dune_bench.errors import TaskError
from dune_bench.probes.base import FeatureSource, Head, ProbeContext
from dune_bench.probes.grids import TokenGrid
from dune_bench.probes.hmr_bodies import BodyRows, View
from dune_bench.probes.hmr_heads import (
    Heads,
    Hits,
    Tokens,
    best_threshold,
    detection_targets,
    find_heads,
    heads_of,
    peaks,
    token_centres,
)
from dune_bench.probes.hmr_people import people_of
from dune_bench.probes.hmr_protocol import HmrRidge
from dune_bench.probes.hmr_regressor import HINTS, inputs_of
from dune_bench.probes.hmr_ridge import Choice, DualRidge, Inputs, fit_dual_ridge
from dune_bench.probes.parallel import own_threads
from dune_bench.probes.solvers_path import LogisticFit, fit_logistic
from dune_bench.probes.stream import PatchRows, grid_of, image_ids, room_folds

OFFSET = "offset"


@dataclass(frozen=True)
class ImageTruth:
    """Everyone in one image.  rows: float64 (n, width), bodies of all heads, in the heads' order."""

    heads: Heads
    rows: Tensor
    view: View


@dataclass(frozen=True)
class Examples:
    """One row per person to learn from.  x: float64 (n, D).  y: (n, width + 2), bodies and the head's
    offset from the token's centre in tokens (x, y).  image: int64 (n,).  hits: of every image, by the
    detector that did not see its room."""

    x: Tensor
    y: Tensor
    image: Tensor
    hits: list[Hits]


def fit_people(
    features: FeatureSource, samples: Lazy[Any], bodies: BodyRows, protocol: HmrRidge, ctx: ProbeContext
) -> Head:
    """The head (see `Regressor`).  Raises TaskError naming a sample that cannot be used, or if there is
    nobody to learn from, features are not finite, or no solution."""
    grid = grid_of(features)
    ctx.progress.update(0.0, 1.0, "reading people")
    truth = truths(samples, grid, bodies, protocol)
    folds = room_folds(samples.groups, protocol.folds)
    rows = PatchRows(features, image_ids(samples), ctx.chunk_bytes, ctx.device)
    detector = fit_logistic(
        rows,
        detection_targets([t.heads for t in truth], grid),
        torch.from_numpy(np.repeat(folds, grid.tokens)),
        protocol.detection.settings(),
        lambda share, note: ctx.progress.update(0.1 + 0.7 * share, 1.0, f"heads, {note}"),
    )
    ctx.progress.update(0.8, 1.0, "bodies")
    found = examples(features, image_ids(samples), truth, (detector, folds), protocol, ctx)
    threshold, f1 = best_threshold(found.hits, sum(int(t.heads.counts.sum()) for t in truth))
    with own_threads(rows):
        ridge = fit_dual_ridge(
            Inputs(found.x, protocol.regression.blocks(features.dim, HINTS)),
            found.y,
            torch.from_numpy(folds)[found.image],
            {**bodies.groups, OFFSET: slice(bodies.width, bodies.width + 2)},
            protocol.regression.lambda_per_n,
            protocol.regression.weights(),
        )
    ctx.progress.update(1.0, 1.0, "fitted")
    choices = {**_of_detector(detector, protocol, threshold, f1), "people": len(found.x)}
    choices["bodies"] = {name: _of_body(choice) for name, choice in ridge.chosen.items()}
    return Head(_tensors(detector, threshold, ridge), choices)


def truths(
    samples: Lazy[HumanSample], grid: TokenGrid, bodies: BodyRows, protocol: HmrRidge
) -> list[ImageTruth]:
    """Truth of every image.  Raises TaskError naming a sample that cannot be used."""
    found = []
    for sample in samples:
        people = people_of(sample, protocol.min_visible)
        view = View.of(sample.K, sample.image.size, grid.image_size)
        rows = bodies.encode(people.people, people.heads, view, f"sample {sample.id}")
        found.append(ImageTruth(heads_of(people, sample.image.size, grid), rows, view))
    return found


def examples(
    features: FeatureSource,
    ids: Sequence[str],
    truth: Sequence[ImageTruth],
    detector: tuple[LogisticFit, NDArray[np.int64]],
    protocol: HmrRidge,
    ctx: ProbeContext,
) -> Examples:
    """People who count, at the token where a detector that did not see their room finds them (so that the
    regression learns from tokens like those of the test), else at their head's own token.  Somebody
    neither found nor the nearest in the token is left out.

    detector: the fit and the fold of each image.
    """
    grid = grid_of(features)
    x, y, image, hits = [], [], [], []
    for images, batch in features.batches(ids, ctx.chunk_bytes):
        for index, patch in zip(range(images.start, images.stop), batch.patch.cpu(), strict=True):
            at = truth[index]
            tokens, scores = peaks(fold_scores(detector[0], int(detector[1][index]), patch), -np.inf)
            hits.append(find_heads(tokens, scores, at.heads, protocol.detection.reach_tokens))
            chosen, who = _tokens_of(tokens, hits[-1], at.heads)
            if who:
                x.append(inputs_of(patch, chosen, at.view, grid, protocol))
                offset = torch.from_numpy(at.heads.at[who] - token_centres(chosen))
                y.append(torch.cat((at.rows[who], offset), 1))
                image += [index] * len(who)
    return Examples(torch.cat(x), torch.cat(y), torch.tensor(image), hits)


def _tokens_of(tokens: Tokens, found: Hits, heads: Heads) -> tuple[Tokens, list[int]]:
    """The token of each person to learn from, and who that is."""
    chosen, who = [], []
    by_person = {int(person): i for i, person in enumerate(found.hit) if person >= 0}
    for person in np.flatnonzero(heads.counts).tolist():
        if person in by_person:
            chosen.append(tokens[by_person[person]])
        elif heads.owns[person]:
            chosen.append(heads.tokens[person])
        else:
            continue
        who.append(person)
    return np.array(chosen, dtype=np.int64).reshape(-1, 2), who


def fold_scores(detector: LogisticFit, fold: int, patch: Tensor) -> NDArray[np.float64]:
    """(h, w) log-odds of a head by the fit without that fold.  patch: (C, h, w)."""
    weight = detector.fold_weights[fold, 1] - detector.fold_weights[fold, 0]
    bias = detector.fold_biases[fold, 1] - detector.fold_biases[fold, 0]
    scores = (patch.permute(1, 2, 0).double() - detector.mean) @ weight + bias
    if not bool(scores.isfinite().all()):
        raise TaskError("the features are not finite: the encoder returned NaN or infinity")
    return np.asarray(scores.numpy())


def _tensors(detector: LogisticFit, threshold: float, ridge: DualRidge) -> dict[str, Tensor]:
    tensors = {
        "detector_weight": detector.weight[1] - detector.weight[0],
        "detector_mean": detector.mean,
        "detector_bias": (detector.bias[1] - detector.bias[0])[None],
        "threshold": torch.tensor([threshold], dtype=torch.float64),
        "body_mean": ridge.mean,
        "body_bias": ridge.bias,
    }
    # By far the largest one; single precision moves a body by micrometres.
    return tensors | {"body_weight": ridge.weight.float()}


def _of_detector(detector: LogisticFit, protocol: HmrRidge, threshold: float, f1: float) -> dict[str, Any]:
    chosen, grid = detector.tried[detector.chosen], protocol.detection.lambda_per_n
    return {
        "lambda_per_n": chosen,
        "lambda_at_grid_end": chosen in (max(grid), min(grid)),
        "lambdas_tried": list(detector.tried),
        "held_out_cross_entropy": list(detector.held_out),
        "held_out_f1": 100.0 * f1,
        "threshold_log_odds": threshold,
        "converged": True,
        "iterations": detector.iterations,
        "passes_over_data": detector.passes,
    }


def _of_body(choice: Choice) -> dict[str, Any]:
    """held_out_share: squared error on held-out rooms over that of the training rooms' mean body."""
    share = choice.error / choice.spread if choice.spread > 0 else None
    weights = list(choice.weights)
    return {"lambda_per_n": choice.lambda_per_n, "kind_weights": weights, "held_out_share": share}
