"""MASt3R's asymmetric two-view decoder on tokens of any frozen encoder.

Parameter names are those of the released files.  Source: dust3r `model.py`, mast3r `model.py` as
restated in PROTOCOLS §3.1, §3.2 and §12; Leroy et al., "Grounding Image Matching in 3D with MASt3R", 2024.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator
from torch import Tensor, nn

from dune_bench.errors import TaskError
from dune_bench.models.rope import rotary_table
from dune_bench.models.rope_blocks import NORM_EPS, DecoderBlock
from dune_bench.models.two_view_heads import POINT_CHANNELS, DptViewHead, LinearViewHead, ViewHead
from dune_bench.models.two_view_output import ViewOutput


class DecoderConfig(BaseModel):
    """Shape of a two-view decoder; the defaults are those of the released MASt3R.

    encoder_dim: channels of the encoder's tokens.  patch: pixels of the encoder's token.  width, depth,
    heads, mlp_ratio: of each of the two decoders.  merge: tokens along each side that enter the decoder as
    one, their channels side by side (1 as released; 2 is four times cheaper).  cells: predictions along
    the side of an encoder's token (None: one a pixel, that is `patch`).  descriptor_hidden: units of the
    local-feature MLP (None: four times its input).  descriptor_floor: the least confidence of a
    descriptor.  dpt_*: see `DptHead`; of no use to the linear head.  standardised: the tokens' channels are
    centred and scaled by the buffers `token_mean` and `token_std` before everything; they are part of
    the weights.  input_norm: then a trained LayerNorm, as in DUNE-MASt3R.  token_path: points and local
    features of both views also get one linear function of the encoder's tokens, interpolated between
    them: what tokens know alone is there from the start, and the decoder learns the rest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder_dim: PositiveInt
    patch: PositiveInt = 16
    width: PositiveInt = 768
    depth: PositiveInt = 12
    heads: PositiveInt = 12
    mlp_ratio: PositiveInt = 4
    head: Literal["dpt", "linear"] = "dpt"
    merge: PositiveInt = 1
    cells: PositiveInt | None = None
    descriptor_dim: PositiveInt = 24
    descriptor_hidden: PositiveInt | None = None
    descriptor_floor: Literal[0, 1] = 0
    dpt_stage_widths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (96, 192, 384, 768)
    dpt_features: PositiveInt = 256
    dpt_last: PositiveInt = 128
    standardised: bool = False
    input_norm: bool = False
    token_path: bool = False

    @model_validator(mode="after")
    def _rotary(self) -> DecoderConfig:
        if self.width % (4 * self.heads):
            raise ValueError(
                f"width {self.width} does not give each of {self.heads} heads a multiple of 4 channels"
            )
        return self

    @property
    def token_cells(self) -> int:
        """Predictions along a token's side."""
        return self.patch if self.cells is None else self.cells

    @property
    def hooks(self) -> tuple[int, int, int, int]:
        """What the heads read: 0 is the encoder's tokens, N the output of block N."""
        return (0, self.depth // 2, 3 * self.depth // 4, self.depth)

    @property
    def merged_dim(self) -> int:
        """Channels of a token that enters the decoder."""
        return self.encoder_dim * self.merge**2

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Channels of what the heads read."""
        return tuple(self.width if hook else self.merged_dim for hook in self.hooks)


class TwoViewDecoder(nn.Module):
    """Two decoders that exchange tokens after every block, and a head for each view."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.token_mean: Tensor
        self.token_std: Tensor
        if config.standardised:
            self.register_buffer("token_mean", torch.zeros(config.encoder_dim))
            self.register_buffer("token_std", torch.ones(config.encoder_dim))
        if config.input_norm:
            self.input_norm = nn.LayerNorm(config.encoder_dim)
        self.decoder_embed = nn.Linear(config.merged_dim, width)
        self.dec_blocks = _blocks(config)
        self.dec_blocks2 = _blocks(config)
        self.dec_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.downstream_head1 = _head(config)
        self.downstream_head2 = _head(config)
        if config.token_path:
            self.token_path = nn.Linear(config.encoder_dim, POINT_CHANNELS + config.descriptor_dim + 1)

    def forward(self, tokens1: Tensor, tokens2: Tensor) -> tuple[ViewOutput, ViewOutput]:
        """Maps of both views from their encoder's patch maps (B, C, h, w), any strides or float dtype.

        The two grids may differ, also in their orientation.  Raises TaskError for maps of another width
        than the decoder's, or of two batch sizes.
        """
        self._check(tokens1, tokens2)
        maps = [self._normed(tokens) for tokens in (tokens1, tokens2)]
        (first, grid1), (second, grid2) = (self._merged(tokens) for tokens in maps)
        # What both views share works on their tokens laid end to end.
        counts = [first.shape[1], second.shape[1]]
        x1, x2 = torch.split(self.decoder_embed(torch.cat([first, second], 1)), counts, 1)
        channels = self.config.width // self.config.heads
        at1, at2 = (rotary_table(grid, channels, x1.device) for grid in (grid1, grid2))
        outputs = [(first, second)]
        for block1, block2 in zip(self.dec_blocks, self.dec_blocks2, strict=True):
            # In lock-step: each view meets the other as the previous block left it.
            x1, x2 = block1(x1, x2, at1, at2), block2(x2, x1, at2, at1)
            outputs.append((x1, x2))
        last1, last2 = torch.split(self.dec_norm(torch.cat([x1, x2], 1)), counts, 1)
        outputs[-1] = (last1, last2)
        stages = [outputs[hook] for hook in self.config.hooks]
        return (
            self._head(self.downstream_head1, [stage[0] for stage in stages], grid1, maps[0]),
            self._head(self.downstream_head2, [stage[1] for stage in stages], grid2, maps[1]),
        )

    def _normed(self, tokens: Tensor) -> Tensor:
        """Patch map (B, C, h, w) to tokens (B, h, w, C) as everything reads them."""
        x = tokens.permute(0, 2, 3, 1).to(self.decoder_embed.weight.dtype)
        if self.config.standardised:
            x = (x - self.token_mean) / self.token_std
        return self.input_norm(x) if self.config.input_norm else x

    def _merged(self, tokens: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens (B, h, w, C) to what enters the decoder, (B, T, C·merge²), and its grid.  A grid that
        `merge` does not divide is filled up at bottom and right with its border."""
        merge = self.config.merge
        if merge > 1:
            x = tokens.permute(0, 3, 1, 2)
            x = F.pad(x, (0, -x.shape[3] % merge, 0, -x.shape[2] % merge), mode="replicate")
            tokens = F.pixel_unshuffle(x, merge).permute(0, 2, 3, 1)
        return tokens.flatten(1, 2), (tokens.shape[1], tokens.shape[2])

    def _head(
        self, head: nn.Module, stages: list[Tensor], grid: tuple[int, int], tokens: Tensor
    ) -> ViewOutput:
        """A view's maps, of the part of the grid that its tokens (B, h, w, C) cover."""
        cells, merge = self.config.token_cells, self.config.merge
        base = None
        if self.config.token_path:
            known = self.token_path(tokens).permute(0, 3, 1, 2).float()
            known = F.interpolate(known, scale_factor=float(cells), mode="bilinear")
            filled = (side * merge * cells for side in grid)
            bottom, right = (full - size for full, size in zip(filled, known.shape[2:], strict=True))
            base = F.pad(known, (0, right, 0, bottom))
        output: ViewOutput = head(stages, grid, base)
        rows, columns = tokens.shape[1] * cells, tokens.shape[2] * cells
        return ViewOutput(*(getattr(output, field.name)[:, :rows, :columns] for field in fields(output)))

    def _check(self, tokens1: Tensor, tokens2: Tensor) -> None:
        expected = self.config.encoder_dim
        for tokens in (tokens1, tokens2):
            if tokens.ndim != 4 or tokens.shape[1] != expected:
                raise TaskError(
                    f"the decoder reads patch maps (B, {expected}, h, w), but the encoder gives "
                    f"{tuple(tokens.shape)}: another encoder or view than the decoder was made for"
                )
        if len(tokens1) != len(tokens2):
            raise TaskError(
                f"the decoder reads pairs: {len(tokens1)} first views, {len(tokens2)} second ones"
            )


def fresh_decoder(config: DecoderConfig, generator: torch.Generator) -> TwoViewDecoder:
    """A decoder to be trained, on the CPU; its values follow from `generator` alone.

    Linear layers: Xavier uniform, no bias; convolutions: uniform within 1/√fan-in; norms and the tokens'
    standardisation: identity.  The second decoder starts as a copy of the first, as in MASt3R; with a
    token path, so does the second head.
    """
    decoder = empty_decoder(config)
    if config.standardised:
        decoder.token_mean.zero_()
        decoder.token_std.fill_(1.0)
    for module in decoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    decoder.dec_blocks2.load_state_dict(decoder.dec_blocks.state_dict())
    if config.token_path:
        # Descriptors of both views agree from the start.
        decoder.downstream_head2.load_state_dict(decoder.downstream_head1.state_dict())
        with torch.no_grad():
            # Descriptors start as a projection of the tokens, which keeps who resembles whom; the rest at 0.
            decoder.token_path.weight[:POINT_CHANNELS] = 0.0
            decoder.token_path.weight[-1] = 0.0
    return decoder


def empty_decoder(config: DecoderConfig) -> TwoViewDecoder:
    """A decoder on the CPU whose values are undefined until a state is loaded: constructors of layers
    would draw from the global RNG, and what they draw is overwritten anyway."""
    with torch.device("meta"):
        decoder = TwoViewDecoder(config)
    return decoder.to_empty(device="cpu")


def _blocks(config: DecoderConfig) -> nn.ModuleList:
    return nn.ModuleList(
        DecoderBlock(config.width, config.heads, config.mlp_ratio) for _ in range(config.depth)
    )


def _head(config: DecoderConfig) -> ViewHead:
    widths = config.stage_widths
    hidden = config.descriptor_hidden or 4 * (widths[0] + widths[-1])
    shape = (widths, config.merge * config.token_cells, config.descriptor_dim, hidden)
    if config.head == "linear":
        head: ViewHead = LinearViewHead(*shape)
    else:
        head = DptViewHead(
            *shape,
            stage_widths=config.dpt_stage_widths,
            features=config.dpt_features,
            last=config.dpt_last,
        )
    head.descriptor_floor = config.descriptor_floor
    return head
