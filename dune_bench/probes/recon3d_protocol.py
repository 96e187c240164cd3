"""Constants of the protocols of `recon3d`; docs/tasks/recon3d.md explains each."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from dune_bench.probes.base import ProtocolConstants
from dune_bench.probes.pair_matches import MatchConstants
from dune_bench.probes.pair_poses import PoseConstants
from dune_bench.probes.two_view_matching import DescriptorMatchConstants
from dune_bench.probes.two_view_protocol import DecoderTraining


class Recon3dConstants(ProtocolConstants):
    """What all protocols share: how a pair is scored.

    points_per_side: pixels of each view that are scored, per side.  clip_m: longest distance, and that of
    a point without prediction.
    """

    points_per_side: int = Field(ge=2)
    clip_m: float = Field(gt=0)
    covisible_edges: tuple[int, ...] = Field(min_length=2)
    """Percent, ascending; a bin holds its lower edge, the last one also its upper."""

    @field_validator("covisible_edges")
    @classmethod
    def _ascending(cls, edges: tuple[int, ...]) -> tuple[int, ...]:
        if list(edges) != sorted(set(edges)) or edges[0] < 0 or edges[-1] > 100:
            raise ValueError("write the edges in ascending order, in percent from 0 to 100")
        return edges


class Recon3dMatchDepth(Recon3dConstants):
    """`match-depth`: nothing learned but the upstream depth head."""

    matching: MatchConstants
    pose: PoseConstants


class Recon3dTwoView(Recon3dConstants):
    """What the protocols with a two-view decoder share.

    matching, pose: the relative pose, by PnP of view 1's points at matched descriptors.  points: which
    are scored.  `decoder`: those that the decoder gives of the pair, both in camera 1, without any
    knowledge of the cameras.  `calibrated`: the pair goes through the decoder in both orders; of each view
    the depth counts that it has as the first, along the rays of its known camera, and the pose joins them.
    """

    matching: DescriptorMatchConstants
    pose: PoseConstants
    points: Literal["decoder", "calibrated"]


class Recon3dTrained(Recon3dTwoView):
    """`mast3r-mini`, `mast3r`: the decoder is trained here, on the frozen encoder."""

    training: DecoderTraining


class Recon3dPretrained(Recon3dTwoView):
    """`pretrained`: the decoder that was released with the encoder."""
