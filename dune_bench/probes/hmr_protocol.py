"""Constants of the protocols of `hmr`: what all share, and `ridge`; docs/tasks/hmr.md explains each."""

from __future__ import annotations

from itertools import product
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from dune_bench.metrics.human_errors import ERRORS
from dune_bench.probes.base import ProtocolConstants
from dune_bench.probes.hmr_layout import Anchor
from dune_bench.probes.hmr_ridge import Weights
from dune_bench.probes.hmr_windows import Window
from dune_bench.probes.linear import Lambdas
from dune_bench.probes.solvers_path import LogisticSettings

Positive = Annotated[float, Field(gt=0)]


class Detection(ProtocolConstants):
    """The head detector: logistic regression of one token, its λ path, and the search for peaks."""

    target: Literal["token_of_head"]
    peaks: Literal["3x3_maximum"]
    reach_tokens: Positive
    lambda_per_n: Lambdas
    bias_lambda_per_n: Positive
    patience: int = Field(ge=1)
    fold_tolerance: Positive
    tolerance: Positive
    max_iterations: int = Field(ge=1)

    def settings(self) -> LogisticSettings:
        """As the solver takes them."""
        return LogisticSettings(
            lambdas=self.lambda_per_n,
            bias_lambda=self.bias_lambda_per_n,
            tolerance=self.tolerance,
            fold_tolerance=self.fold_tolerance,
            patience=self.patience,
            max_iterations=self.max_iterations,
        )


class Regression(ProtocolConstants):
    """The regression from the head's token and windows around it.

    windows: kind -> its windows, (left, top, right, bottom) in parts of the image's side relative to the
    head token's centre.  kind_weights: what a kind may weigh beside the token, which weighs 1.
    """

    windows: dict[str, tuple[Window, ...]]
    kind_weights: tuple[Annotated[float, Field(ge=0)], ...] = Field(min_length=1)
    lambda_per_n: Lambdas

    @field_validator("windows")
    @classmethod
    def _not_empty(cls, windows: dict[str, tuple[Window, ...]]) -> dict[str, tuple[Window, ...]]:
        for kind, boxes in windows.items():
            if not boxes:
                raise ValueError(f"windows of kind {kind!r}: give at least one")
            for left, top, right, bottom in boxes:
                if left >= right or top >= bottom:
                    raise ValueError(f"window ({left}, {top}, {right}, {bottom}) of kind {kind!r} is empty")
        return windows

    def all_windows(self) -> list[Window]:
        """The windows of all kinds, in their order."""
        return [window for boxes in self.windows.values() for window in boxes]

    def blocks(self, dim: int, hints: int) -> tuple[tuple[int, int], ...]:
        """(channels, kind) of token, windows and camera hints; the hints are of the token's kind."""
        windows = [(dim, 1 + k) for k, boxes in enumerate(self.windows.values()) for _ in boxes]
        return ((dim, 0), *windows, (hints, 0))

    def weights(self) -> list[Weights]:
        """Every combination to try, small weights first."""
        return [(1.0, *w) for w in product(sorted(self.kind_weights), repeat=len(self.windows))]


class HmrConstants(ProtocolConstants):
    """Who counts, and how predictions are scored.

    head: the point that is detected and that places the body.  Whoever counts is decided by the middle
    between the ears, whatever `head` says.
    """

    body_model: str
    head: Anchor
    min_visible: float = Field(ge=0, le=1)
    min_depth_m: Positive
    max_depth_m: Positive
    matching: Literal["strict"]
    min_iou: float = Field(gt=0, lt=1)
    penalties: dict[str, Positive]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_depth_m >= self.max_depth_m:
            raise ValueError("min_depth_m must be below max_depth_m")
        if set(self.penalties) != set(ERRORS):
            raise ValueError(f"penalties: one for each of {', '.join(ERRORS)}")
        return self


class HmrRidge(HmrConstants):
    """Constants of `hmr/*/ridge`."""

    head: Literal["between_ears"]
    folds: int = Field(ge=2)
    detection: Detection
    regression: Regression
