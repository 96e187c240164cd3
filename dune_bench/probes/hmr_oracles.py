"""What parts of the way from tokens to bodies cost by themselves, and what no picture at all gives.

An oracle knows the truth but for what is taken from it: the place of the head within its token, the
orientation, the pose, the shape, the distance.  What is taken is replaced by what the training split
says on average.  No features are needed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from dune_bench.data.base import Lazy
from dune_bench.data.samples import HumanSample
from dune_bench.errors import TaskError, UsageError
from dune_bench.probes.base import Head
from dune_bench.probes.grids import TokenGrid
from dune_bench.probes.hmr_bodies import GROUPS, BodyRows
from dune_bench.probes.hmr_fit import truths
from dune_bench.probes.hmr_heads import network_pixels, token_centres
from dune_bench.probes.hmr_prediction import PeoplePrediction, nobody, place
from dune_bench.probes.hmr_protocol import HmrRidge


def mean_row(samples: Lazy[HumanSample], grid: TokenGrid, bodies: BodyRows, protocol: HmrRidge) -> Tensor:
    """(width,) the average over the people who count.  Raises TaskError if nobody does."""
    rows = torch.cat([t.rows[t.heads.counts] for t in truths(samples, grid, bodies, protocol)])
    if not len(rows):
        raise TaskError("no image shows a person who counts: there is no mean body")
    return rows.mean(0)


def oracle(
    samples: Lazy[HumanSample],
    grid: TokenGrid,
    bodies: BodyRows,
    protocol: HmrRidge,
    *,
    unknown: Collection[str] = (),
    mean: Tensor | None = None,
    one_per_token: bool = True,
    offset_known: bool = True,
) -> Iterator[PeoplePrediction]:
    """Everyone who counts, in the samples' order.

    unknown: of GROUPS, replaced by `mean` (of `mean_row`).  one_per_token: the farther of two heads in
    one token is lost, as any detector on this grid loses it.  offset_known: heads are where they are;
    else in the middle of their tokens.  Raises UsageError for another group or no mean.
    """
    if set(unknown) - set(GROUPS) or (unknown and mean is None):
        raise UsageError(f"an oracle may lack {', '.join(GROUPS)}, and needs the mean row then")
    limits = protocol.min_depth_m, protocol.max_depth_m
    for truth in truths(samples, grid, bodies, protocol):
        kept = truth.heads.counts & (truth.heads.owns if one_per_token else True)
        if not kept.any():
            yield nobody(bodies.model)
            continue
        rows = truth.rows[kept].clone()
        for group in unknown:
            assert mean is not None
            rows[:, bodies.groups[group]] = mean[bodies.groups[group]]
        at = truth.heads.at[kept] if offset_known else token_centres(truth.heads.tokens[kept])
        posed = bodies.decode(rows, network_pixels(at, grid), truth.view, limits)
        yield place(bodies, posed, -posed.heads[:, 2])


def mean_bodies(head: Head) -> Head:
    """The same detector, with the training split's mean body in the middle of every token it finds."""
    tensors = {**head.tensors, "body_weight": torch.zeros_like(head.tensors["body_weight"])}
    return replace(head, tensors=tensors)
