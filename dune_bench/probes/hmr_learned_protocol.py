"""What the learned protocols of `hmr` declare: the head, its loss, its training, its use."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from dune_bench.engine.recipe import Recipe
from dune_bench.models.human_camera import Grid
from dune_bench.models.human_head import HumanHeadConfig
from dune_bench.models.human_losses import LossWeights
from dune_bench.models.human_windows import Window
from dune_bench.probes.base import ProtocolConstants
from dune_bench.probes.hmr_layout import BodyLayout
from dune_bench.probes.hmr_protocol import HmrConstants


class HeadShape(ProtocolConstants):
    """The head; what encoder and body model decide is left out.  See `HumanHeadConfig`."""

    width: int = Field(ge=1)
    depth: int = Field(ge=1)
    heads: int = Field(ge=1)
    head_dim: int = Field(ge=1)
    mlp: int = Field(ge=1)
    standardised: bool
    viewing_frame: bool
    windows: tuple[Window, ...]
    token_dropout: float = Field(ge=0, lt=1)
    dropout: float = Field(ge=0, lt=1)
    places: bool

    def of(self, encoder_dim: int, patch: int, grid: Grid, layout: BodyLayout) -> HumanHeadConfig:
        """For an encoder's tokens and a body model's numbers."""
        return HumanHeadConfig(
            encoder_dim=encoder_dim,
            patch=patch,
            grid=grid,
            rotations=layout.rotations,
            betas=layout.betas,
            expressions=layout.expressions,
            **self.model_dump(),
        )


class LearningConstants(ProtocolConstants):
    """What is learned from.

    mirrored: every other image, drawn anew each time, is seen in the mirror: its token grid, camera and
    people.  spare_neighbours: the 8 tokens around a head are neither right nor wrong for the detector.
    neighbour_share: part of the people that are regressed from a random neighbour of their head's token,
    as a detector that is one token off will ask for.  points2d_after: share of the training before the
    2-D terms begin.  vertex_step: the loss sees every so many-th vertex.
    """

    mirrored: bool
    spare_neighbours: bool
    neighbour_share: float = Field(ge=0, le=1)
    points2d_after: float = Field(ge=0, le=1)
    vertex_step: int = Field(ge=1)


class HeadTraining(ProtocolConstants):
    """All that decides the weights of a head trained here."""

    shape: HeadShape
    learning: LearningConstants
    loss: LossWeights
    recipe: Recipe


class HmrLearned(HmrConstants):
    """What the protocols with a human head share.  threshold: least score of a head."""

    threshold: float = Field(gt=0, lt=1)


class HmrTrained(HmrLearned):
    """`multihmr-mini`, `multihmr`: the head is trained here, on the frozen encoder."""

    training: HeadTraining

    @model_validator(mode="after")
    def _anchored(self) -> Self:
        if self.head == "between_ears" and self.training.learning.vertex_step > 1:
            raise ValueError("vertex_step above 1 leaves no ears: use head: head_joint")
        return self


class HmrPretrained(HmrLearned):
    """`pretrained`: the head that was released with the encoder."""
