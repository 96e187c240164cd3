"""From the student's tokens to a teacher's: one projector per teacher, of three kinds.

Source: PROTOCOLS §6.2 (naver/dune for `tp`; UNIC, as described there, for `sp` and `lp`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from dune_bench.encoders.dune import TransformerProjector
from dune_bench.encoders.vit import LayerScale
from dune_bench.registry.cards import Card


@dataclass(frozen=True)
class StudentShape:
    """The student's encoder.  width: channels.  depth: blocks."""

    width: int
    depth: int
    heads: int


class Projector(nn.Module, ABC):
    """What a student says to one teacher.  layers: blocks (from 1) whose tokens it reads, ascending."""

    layers: tuple[int, ...]

    @abstractmethod
    def forward(self, layers: Mapping[int, Tensor]) -> Tensor:
        """Raw tokens (B, 1 + N, C) after each of `layers`, class token first, without registers and final
        norm, to tokens (B, 1 + N, C_T) in the teacher's normalised space."""


class TransformerTokens(Projector):
    """`tp`, DUNE's: the projector of `encoders.dune` on the last block, under its names in released files."""

    def __init__(self, shape: StudentShape, out: int, blocks: int) -> None:
        super().__init__()
        self.layers = (shape.depth,)
        released = TransformerProjector(shape.width, shape.heads, blocks, out)
        self.blocks, self.linear = released.blocks, released.linear

    def forward(self, layers: Mapping[int, Tensor]) -> Tensor:
        tokens = layers[self.layers[0]]
        for block in self.blocks:
            tokens = block(tokens)
        return self.linear(tokens)  # type: ignore[no-any-return]


class MlpTokens(Projector):
    """`sp`: two layers with GELU between them on each token of the last block."""

    def __init__(self, shape: StudentShape, out: int, hidden: int) -> None:
        super().__init__()
        self.layers = (shape.depth,)
        self.fc1 = nn.Linear(shape.width, hidden)
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, layers: Mapping[int, Tensor]) -> Tensor:
        return self.fc2(F.gelu(self.fc1(layers[self.layers[0]])))  # type: ignore[no-any-return]


class AdaptMlp(nn.Module):
    """LayerNorm, down, ReLU, up: AdaptFormer's branch (arXiv 2205.13535).  Its factor is left to `up`, which
    starts at 0 there and in `fresh_projector`."""

    def __init__(self, width: int, out: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.down = nn.Linear(width, hidden)
        self.up = nn.Linear(hidden, out)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.up(F.relu(self.down(self.norm(tokens))))  # type: ignore[no-any-return]


class Ladder(nn.Module):
    """Sum of a branch on every block and an MLP on the last."""

    def __init__(self, shape: StudentShape, out: int, hidden: int, branch_hidden: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(AdaptMlp(shape.width, out, branch_hidden) for _ in range(shape.depth))
        self.last = MlpTokens(shape, out, hidden)

    def forward(self, layers: Mapping[int, Tensor]) -> Tensor:
        tokens = self.last(layers)
        for number, branch in enumerate(self.branches, start=1):
            tokens = tokens + branch(layers[number])
        return tokens  # type: ignore[no-any-return]


class LadderTokens(Projector):
    """`lp`, UNIC's: a ladder for the patches and, if the class token is taught, one of its own for it.

    If it is not taught it goes through the patches' ladder: no parameter is without a gradient.
    """

    def __init__(self, shape: StudentShape, out: int, has_cls: bool, hidden: int, branch_hidden: int) -> None:
        super().__init__()
        self.layers = tuple(range(1, shape.depth + 1))
        kinds = ("cls", "patch") if has_cls else ("patch",)
        self.heads = nn.ModuleDict({kind: Ladder(shape, out, hidden, branch_hidden) for kind in kinds})

    def forward(self, layers: Mapping[int, Tensor]) -> Tensor:
        if "cls" not in self.heads:
            return self.heads["patch"](layers)  # type: ignore[no-any-return]
        cls = self.heads["cls"]({number: layers[number][:, :1] for number in self.layers})
        patch = self.heads["patch"]({number: layers[number][:, 1:] for number in self.layers})
        return torch.cat([cls, patch], 1)


class TransformerConfig(Card):
    """blocks: transformer blocks before the linear layer."""

    kind: Literal["tp"] = "tp"
    blocks: PositiveInt = 1

    def build(self, shape: StudentShape, out: int, has_cls: bool) -> Projector:
        del has_cls  # all tokens go through the same layers
        return TransformerTokens(shape, out, self.blocks)


class MlpConfig(Card):
    """hidden: None is 4 · width of the encoder (what DUNE's ablation had is not known)."""

    kind: Literal["sp"] = "sp"
    hidden: PositiveInt | None = None

    def build(self, shape: StudentShape, out: int, has_cls: bool) -> Projector:
        del has_cls
        return MlpTokens(shape, out, self.hidden or 4 * shape.width)


class LadderConfig(Card):
    """hidden: of the MLP on the last block.  branch_hidden: of the branch on each block."""

    kind: Literal["lp"] = "lp"
    hidden: PositiveInt = 3072
    branch_hidden: PositiveInt = 768

    def build(self, shape: StudentShape, out: int, has_cls: bool) -> Projector:
        return LadderTokens(shape, out, has_cls, self.hidden, self.branch_hidden)


ProjectorConfig = Annotated[TransformerConfig | MlpConfig | LadderConfig, Field(discriminator="kind")]
"""The kinds that a recipe may name, each with its own options."""


def fresh_projector(
    config: ProjectorConfig, shape: StudentShape, out: int, has_cls: bool, generator: torch.Generator
) -> Projector:
    """A projector to be trained, on the CPU; its values follow from `generator` alone (see `initialise`).

    out: the teacher's channels.  has_cls: whether its class token is taught.
    """
    # Constructors of layers would draw from the global RNG; what they draw is overwritten anyway.
    with torch.device("meta"):
        projector = config.build(shape, out, has_cls)
    projector.to_empty(device="cpu")
    initialise(projector, generator)
    return projector


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """First values of the layers in a student, in place: linear weights normal with deviation 0.02, cut at
    ±2 as DINOv2's are; biases 0; norms identity; LayerScale 1e-4; an `AdaptMlp` adds nothing yet."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.LayerNorm):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, LayerScale):
            nn.init.constant_(layer.gamma, 1e-4)
    for layer in module.modules():
        if isinstance(layer, AdaptMlp):
            nn.init.zeros_(layer.up.weight)
