"""CroCo's image encoder as DUSt3R and MASt3R use it: a ViT with rotary positions and no class token.

Parameter names are those of the released files.  Source: croco `models/{croco,blocks}.py` as restated
in PROTOCOLS §3.1 and §12.
"""

from __future__ import annotations

from collections.abc import Collection

from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator
from torch import Tensor, nn

from dune_bench.models.rope import rotary_table
from dune_bench.models.rope_blocks import NORM_EPS, EncoderBlock


class CrocoConfig(BaseModel):
    """Shape of the encoder; the defaults are those of the released MASt3R (ViT-L/16).  patch: pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: PositiveInt = 1024
    depth: PositiveInt = 24
    heads: PositiveInt = 16
    patch: PositiveInt = 16

    @model_validator(mode="after")
    def _rotary(self) -> CrocoConfig:
        if self.width % (4 * self.heads):
            raise ValueError(
                f"width {self.width} does not give each of {self.heads} heads a multiple of 4 channels"
            )
        return self


class PatchEmbed(nn.Module):
    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w)."""
        return self.proj(images)  # type: ignore[no-any-return]


class CrocoEncoder(nn.Module):
    """Tokens stand for patches in row-major order."""

    def __init__(self, config: CrocoConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config.width, config.patch)
        self.enc_blocks = nn.ModuleList(EncoderBlock(config.width, config.heads) for _ in range(config.depth))
        self.enc_norm = nn.LayerNorm(config.width, eps=NORM_EPS)

    def forward(self, images: Tensor, layers: Collection[int]) -> dict[int, Tensor]:
        """Tokens (B, h·w, C) after each asked block, without `enc_norm`.

        images: (B, 3, H, W) in [-1, 1], multiples of the patch.  Blocks count from 1; those after the
        last asked one are not run.
        """
        patches = self.patch_embed(images)
        channels = self.config.width // self.config.heads
        positions = rotary_table((patches.shape[-2], patches.shape[-1]), channels, images.device)
        x = patches.flatten(2).transpose(1, 2)
        outputs: dict[int, Tensor] = {}
        for number, block in enumerate(self.enc_blocks[: max(layers)], start=1):
            x = block(x, positions)
            if number in layers:
                outputs[number] = x
        return outputs
