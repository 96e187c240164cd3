"""What the learned protocols of `recon3d` declare: decoder, data, loss, training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationError, model_validator

from dune_bench.engine.recipe import Recipe
from dune_bench.models.two_view_decoder import DecoderConfig
from dune_bench.models.two_view_losses import ConfidentMatching, ConfidentRegression
from dune_bench.probes.base import ProtocolConstants
from dune_bench.probes.two_view_pairs import PairConstants


class DecoderShape(ProtocolConstants):
    """The decoder; what the encoder decides (its channels, its patch) is left out.  See `DecoderConfig`."""

    width: int = Field(ge=1)
    depth: int = Field(ge=1)
    heads: int = Field(ge=1)
    mlp_ratio: int = Field(ge=1)
    head: Literal["dpt", "linear"]
    merge: int = Field(ge=1)
    cells: int | None = Field(ge=1)
    descriptor_dim: int = Field(ge=1)
    descriptor_hidden: int | None = Field(ge=1)
    standardised: bool
    input_norm: bool
    token_path: bool

    @model_validator(mode="after")
    def _possible(self) -> DecoderShape:
        # Whatever the encoder: what is impossible is said when the card is read.
        try:
            self.of(1, 1)
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error
        return self

    def of(self, dim: int, patch: int) -> DecoderConfig:
        """For an encoder with `dim` channels and tokens of `patch` pixels."""
        return DecoderConfig(encoder_dim=dim, patch=patch, **self.model_dump())


class LossConstants(ProtocolConstants):
    """PROTOCOLS §3.3.  point_alpha, match_alpha: of the confidences.  match_weight: of the matching
    loss beside the two of the points."""

    point_alpha: float = Field(gt=0)
    match_alpha: float = Field(gt=0)
    match_weight: float = Field(ge=0)
    temperature: float = Field(gt=0)

    @property
    def points(self) -> ConfidentRegression:
        return ConfidentRegression(self.point_alpha)

    @property
    def matching(self) -> ConfidentMatching:
        return ConfidentMatching(self.temperature, self.match_alpha)


class DecoderTraining(ProtocolConstants):
    """All that decides the weights of a decoder trained here."""

    decoder: DecoderShape
    pairs: PairConstants
    loss: LossConstants
    recipe: Recipe
