"""The numbers of a training: steps, batch, optimiser, schedule, precision: all that moves a weight."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator


class Recipe(BaseModel):
    """AdamW with warm-up and a schedule that is a function of the step alone.

    steps: optimiser steps.  batch_size: samples per step, over all processes and micro-batches.
    accumulate: micro-batches per step on each process.  warmup_start: rate of step 0 as a share of `lr`.
    clip_norm: largest norm of the gradient, of all tensors together (`global`) or of each on its own
    (`per_tensor`); None: no clipping.  dtype: of the forward pass (bfloat16 by autocast; weights and
    optimiser stay float32).  workers: loader processes; 0: data are made in the training process.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: PositiveInt
    batch_size: PositiveInt
    accumulate: PositiveInt = 1
    lr: PositiveFloat
    betas: tuple[float, float] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    weight_decay: float = Field(default=0.01, ge=0)
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    poly_power: PositiveFloat = 1.0
    warmup_steps: int = Field(default=0, ge=0)
    warmup_start: float = Field(default=0.0, ge=0, le=1)
    min_lr: float = Field(default=0.0, ge=0)
    clip_norm: PositiveFloat | None = None
    clip: Literal["global", "per_tensor"] = "global"
    dtype: Literal["float32", "bfloat16"] = "float32"
    checkpoint_every: PositiveInt = 1000
    log_every: PositiveInt = 10
    workers: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate {self.accumulate} does not divide batch_size {self.batch_size}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {self.betas} are not both at least 0 and below 1")
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} leave none of the {self.steps} steps")
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr {self.min_lr} is above lr {self.lr}")
        return self

    def learning_rate(self, step: int) -> float:
        """Rate of step `step` (from 0): linear warm-up from `warmup_start`·lr to lr, then the schedule
        over the remaining steps, from lr at the first of them down towards `min_lr`."""
        if step < self.warmup_steps:
            return self.lr * (self.warmup_start + (1 - self.warmup_start) * step / self.warmup_steps)
        done = (step - self.warmup_steps) / (self.steps - self.warmup_steps)
        match self.schedule:
            case "constant":
                share = 1.0
            case "cosine":
                share = (1 + math.cos(math.pi * done)) / 2
            case "poly":
                share = (1 - done) ** self.poly_power
        return self.min_lr + (self.lr - self.min_lr) * share
