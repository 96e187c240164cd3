"""The human head of Multi-HMR: who is where on the token grid, and each one's body and distance.

`compat=True` computes what the released models compute, their quirks included (PROTOCOLS §4.2, §9 row 6,
§12); without it rays are (x, y), depth grows with the focal length, and every context token knows its
place.  The head sees a frozen encoder's patch map (B, C, rows, columns), row-major; a person is a *cell*:
(image, row, column) of the token that holds the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, cast

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from dune_bench.errors import TaskError
from dune_bench.models.dropout import Dropout, dropout
from dune_bench.models.human_attention import Layer, PeopleTransformer
from dune_bench.models.human_camera import (
    RAY_CHANNELS,
    back_project,
    depth_of,
    embed_rays,
    focal_ratio,
    from_viewing_frame,
    token_rays,
)
from dune_bench.models.human_slots import in_slots, slots_of
from dune_bench.models.human_windows import Window, window_means
from dune_bench.models.rotations import rotation_from_6d

SCORE_MARGIN = 1e-4
"""Scores are kept this far from 0 and 1."""
PEAK_DISTANCE = 1 / 12
"""Two heads are not looked for nearer than this, in parts of the image's longer side: 2 tokens of 24."""
TABLE_STD = 0.2
PRIOR_LOGIT = -2.19
"""Log-odds of a head in a token before training (0.1, CornerNet's): else all the others' loss comes first."""
RESIDUAL_GAIN = 0.01
"""Xavier gain of the decoders: the first prediction is nearly the mean person."""


class HumanHeadConfig(BaseModel):
    """Shape of a head.

    encoder_dim: channels of the tokens.  patch: pixels of a token's side at network size.  grid: (rows,
    columns) of tokens.  rotations: joints with a rotation, the global one first.  betas: shape numbers;
    expressions: face numbers, 0 for a body without.  The counts' defaults are SMPL-X's in Multi-HMR:
    root, 21 of the body, 15 of each hand, jaw.  standardised: the tokens' channels are centred and scaled
    by the buffers `token_mean` and `token_std`; they are part of the weights.  viewing_frame: the global
    rotation is predicted relative to the ray of the head, not to the optical axis: somebody who faces the
    camera looks the same wherever in the image he stands.  windows: the query also gets the means of the
    tokens in them (`window_means`): where legs are seen from the head need not be learned.  token_dropout:
    of what detector and queries take from the tokens.  dropout: of the transformer's residuals and of the
    detector's hidden units.  places: tokens get the ray's Fourier embedding and learned position terms;
    without, the ray alone, since from few people places are learned by heart.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder_dim: int = Field(ge=1)
    patch: int = Field(ge=1)
    grid: tuple[int, int]
    rotations: int = Field(default=53, ge=1)
    betas: int = Field(default=10, ge=1)
    expressions: int = Field(default=10, ge=0)
    width: int = Field(default=1024, ge=1)
    depth: int = Field(default=2, ge=1)
    heads: int = Field(default=8, ge=1)
    head_dim: int = Field(default=32, ge=1)
    mlp: int = Field(default=1024, ge=1)
    compat: bool = False
    standardised: bool = False
    viewing_frame: bool = False
    windows: tuple[Window, ...] = ()
    token_dropout: float = Field(default=0.0, ge=0, lt=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    places: bool = True

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if min(self.grid) < 1:
            raise ValueError("grid: at least one row and one column")
        if self.compat and (self.standardised or self.viewing_frame or self.windows or not self.places):
            raise ValueError(
                "compat: the released models have places, and no standardised, viewing_frame or windows"
            )
        if self.compat and self.grid[0] != self.grid[1]:
            raise ValueError(
                "grid: the released models see square images only; rectangles need compat: false"
            )
        return self

    @property
    def context_dim(self) -> int:
        """Channels of a token with its ray."""
        return self.encoder_dim + (RAY_CHANNELS if self.places else 3)

    @property
    def camera_numbers(self) -> int:
        """Camera numbers per person; the first is the distance.  The released models have two idle ones."""
        return 3 if self.compat else 1

    def mean_sizes(self) -> dict[str, int]:
        """Numbers of each part of a person, by decoder."""
        sizes = {"pose": 6 * self.rotations, "betas": self.betas, "camera": self.camera_numbers}
        return {**sizes, "expression": self.expressions} if self.expressions else sizes


@dataclass(frozen=True)
class HumanOutput:
    """P people in the order of `cells`.

    cells: int64 (P, 3).  offset: (P, 2) of the head from the token's centre, (dx, dy) in tokens.
    loc: (P, 2) the head in network pixels (x, y).  rotmat: (P, rotations, 3, 3).  betas: (P, betas).
    expression: (P, expressions).  dist_raw: (P,) as predicted; dist: (P,) depth of the head along z,
    metres.  translation: (P, 3) the head in the camera frame, metres.
    """

    cells: Tensor
    offset: Tensor
    loc: Tensor
    rotmat: Tensor
    betas: Tensor
    expression: Tensor
    dist_raw: Tensor
    dist: Tensor
    translation: Tensor

    def __len__(self) -> int:
        return len(self.cells)


class HumanHead(nn.Module):
    """Detection and regression.  `new_head` makes one to train; `human_files` reads the released ones."""

    mean_pose: Tensor
    mean_betas: Tensor
    mean_camera: Tensor
    token_mean: Tensor
    token_std: Tensor

    def __init__(self, config: HumanHeadConfig) -> None:
        """Weights are torch's defaults, the mean person is all zeros: see `new_head`."""
        super().__init__()
        self.config = config
        dim, sizes = config.encoder_dim, config.mean_sizes()
        for name, size in sizes.items():
            self.register_buffer(f"mean_{name}", torch.zeros(1, size))
        if config.standardised:
            self.register_buffer("token_mean", torch.zeros(config.encoder_dim))
            self.register_buffer("token_std", torch.ones(config.encoder_dim))
        self.detection = _token_mlp(dim, 1, config)
        self.offset = _token_mlp(dim, 2, config)
        rows, columns = config.grid
        if config.places:
            self.query_rows, self.query_columns, self.value_rows, self.value_columns = (
                nn.Parameter(torch.zeros(size, config.context_dim)) for size in (rows, columns, rows, columns)
            )
        self.transformer = PeopleTransformer(
            config.context_dim
            + len(config.windows) * config.encoder_dim
            + sizes["pose"]
            + sizes["betas"]
            + sizes["camera"],
            config.context_dim,
            config.width,
            config.depth,
            config.heads,
            config.head_dim,
            config.mlp,
            config.dropout,
        )
        self.decoders = nn.ModuleDict({name: nn.Linear(config.width, size) for name, size in sizes.items()})

    def forward(self, tokens: Tensor, K: Tensor, cells: Tensor) -> tuple[Tensor, HumanOutput]:
        """Both parts at once, as training wants them: `detect` and `regress`."""
        tokens = self._rows_first(tokens)
        return self._detect(tokens), self._regress(tokens, K, cells)

    def detect(self, tokens: Tensor) -> Tensor:
        """(B, rows, columns) log-odds, float32, that a token holds a head.

        Raises TaskError for tokens of another width or grid.
        """
        return self._detect(self._rows_first(tokens))

    def find(self, logits: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        """Cells (P, 3) and scores (P,) of the local maxima whose score reaches the threshold.

        In reading order.  compat: the maxima of 3 × 3 tokens, by clamped scores, so that neighbours at the
        clamp all stay.  Otherwise no larger score may lie within PEAK_DISTANCE: where the tokens around a
        head are neither right nor wrong, one head may have several 3 × 3 maxima.
        """
        config, score = self.config, scores(logits)
        reach = 1 if config.compat else max(1, round(PEAK_DISTANCE * max(config.grid)))
        kept = local_maxima(score if config.compat else logits, reach) & (score >= threshold)
        return kept.nonzero(), score[kept]

    def regress(self, tokens: Tensor, K: Tensor, cells: Tensor) -> HumanOutput:
        """The people at `cells`, int64 (P, 3), in any order; those of one image see each other.

        K: (B, 3, 3) in pixels of the network's image.  Raises TaskError for tokens of another width or
        grid, cells outside it, or K of another batch.
        """
        return self._regress(self._rows_first(tokens), K, cells)

    def _detect(self, tokens: Tensor) -> Tensor:
        """tokens: (B, rows, columns, C)."""
        tokens = dropout(tokens, self.config.token_dropout, self.training)
        return _full(self.detection(tokens)).squeeze(-1)

    def _regress(self, tokens: Tensor, K: Tensor, cells: Tensor) -> HumanOutput:
        """tokens: (B, rows, columns, C)."""
        config = self.config
        check_people(tokens, K, cells)
        K = _full(K)
        image, row, column = cells.unbind(-1)
        features = self._people(tokens, K, cells)
        parts = {
            name: _full(decoder(features)) + _full(getattr(self, f"mean_{name}"))
            for name, decoder in self.decoders.items()
        }
        offset = _full(self.offset(tokens[image, row, column]))
        loc = (torch.stack([column, row], -1) + 0.5 + offset) * config.patch
        raw = parts["camera"][:, 0]
        depth = depth_of(raw, focal_ratio(K, config.grid, config.patch, config.compat)[image], config.compat)
        rays = back_project(loc, K[image])
        rotmat = rotation_from_6d(parts["pose"].reshape(-1, config.rotations, 6))
        return HumanOutput(
            cells=cells,
            offset=offset,
            loc=loc,
            rotmat=from_viewing_frame(rotmat, rays) if config.viewing_frame else rotmat,
            betas=parts["betas"],
            expression=parts.get("expression", raw.new_zeros(len(cells), 0)),
            dist_raw=raw,
            dist=depth,
            translation=rays * depth[:, None],
        )

    def _people(self, tokens: Tensor, K: Tensor, cells: Tensor) -> Tensor:
        """(P, width) features of the people.  tokens: (B, rows, columns, C)."""
        config = self.config
        image, row, column = cells.unbind(-1)
        rays = token_rays(K, config.grid, config.patch, config.compat)
        context = torch.cat([tokens, (embed_rays(rays) if config.places else rays).to(tokens.dtype)], -1)
        query = context[image, row, column]
        if config.places:
            query = query + self.query_rows[row] + self.query_columns[column]
        if config.windows:
            query = torch.cat([query, window_means(tokens, cells, config.windows).flatten(1)], -1)
        query = dropout(query, config.token_dropout, self.training)
        means = [self.mean_pose, self.mean_betas, self.mean_camera]
        query = torch.cat([query, *(mean.expand(len(cells), -1) for mean in means)], -1)
        images, group, slot = slots_of(image, len(tokens))
        queries, real = in_slots(query, len(images), group, slot)
        context = self._placed(context, cells)[images].flatten(1, 2)
        return cast(Tensor, self.transformer(queries, real, context)[group, slot])

    def _placed(self, context: Tensor, cells: Tensor) -> Tensor:
        """The context (B, rows, columns, C) with its position terms; compat: only where people are."""
        if not self.config.places:
            return context
        place = self.value_rows[:, None] + self.value_columns[None]
        if not self.config.compat:
            return context + place
        image, row, column = cells.unbind(-1)
        return context.index_put((image, row, column), context[image, row, column] + place[row, column])

    def _rows_first(self, tokens: Tensor) -> Tensor:
        """(B, rows, columns, C) in the head's dtype."""
        config = self.config
        require_tokens(tokens, config.encoder_dim, config.grid)
        rows_first = tokens.permute(0, 2, 3, 1).to(self.transformer.position.dtype)
        return (rows_first - self.token_mean) / self.token_std if config.standardised else rows_first


@dataclass(frozen=True)
class MeanPerson:
    """What the head's residuals are added to.

    rotmat: (rotations, 3, 3).  betas: (betas,).  dist_raw: as `human_camera.raw_of` gives it.
    expression: (expressions,).
    """

    rotmat: Tensor
    betas: Tensor
    dist_raw: float
    expression: Tensor


def new_head(config: HumanHeadConfig, mean: MeanPerson, generator: torch.Generator) -> HumanHead:
    """A head to train, float32 on the CPU; the same for the same generator state.

    Linear layers: uniform ± 1/√inputs, biases 0; decoders near 0; position tables N(0, 0.2²).  With windows,
    both attentions' last layers are 0.
    """
    # On the meta device first: torch's own initialisation would draw from its global generator.
    with torch.device("meta"):
        head = HumanHead(config)
    head.to_empty(device="cpu")
    pose = torch.cat([mean.rotmat[..., 0], mean.rotmat[..., 1]], -1).flatten()
    camera = torch.zeros(config.camera_numbers)
    camera[0] = mean.dist_raw
    values = {"pose": pose, "betas": mean.betas, "camera": camera, "expression": mean.expression}
    with torch.no_grad():
        for name in config.mean_sizes():
            getattr(head, f"mean_{name}").copy_(values[name].reshape(1, -1))
        if config.standardised:
            head.token_mean.zero_()
            head.token_std.fill_(1.0)
        _initialise(head, generator)
    return head


def _initialise(head: HumanHead, generator: torch.Generator) -> None:
    for module in head.modules():
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            module.weight.uniform_(-bound, bound, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    for decoder in head.decoders.values():
        nn.init.xavier_uniform_(cast(nn.Linear, decoder).weight, RESIDUAL_GAIN, generator)
    if head.config.places:
        for table in (head.query_rows, head.query_columns, head.value_rows, head.value_columns):
            table.normal_(0.0, TABLE_STD, generator=generator)
    if head.config.windows:
        # What they tell comes first; what attention adds is learned from nothing.
        for layer in head.transformer.layers:
            cast(Layer, layer).cross_attention.to_out.weight.zero_()
            cast(Layer, layer).self_attention.to_out.weight.zero_()
    head.transformer.position.zero_()
    cast(nn.Linear, head.detection[-1]).bias.fill_(PRIOR_LOGIT)


def scores(logits: Tensor) -> Tensor:
    """Probability of a head, within [1e-4, 1 − 1e-4]."""
    return logits.sigmoid().clamp(SCORE_MARGIN, 1 - SCORE_MARGIN)


def local_maxima(values: Tensor, reach: int = 1) -> Tensor:
    """bool (B, rows, columns): no larger value at most `reach` rows and columns away.  Equal neighbours both
    stay."""
    return values == F.max_pool2d(values[:, None], 2 * reach + 1, stride=1, padding=reach)[:, 0]


def check_people(tokens: Tensor, K: Tensor, cells: Tensor) -> None:
    """Raises TaskError for cells outside the token grids (B, rows, columns, C), or K of another batch."""
    if tuple(K.shape) != (len(tokens), 3, 3):
        raise TaskError(f"human head: K has shape {tuple(K.shape)}, not ({len(tokens)}, 3, 3)")
    if cells.ndim != 2 or cells.shape[-1] != 3 or cells.dtype != torch.int64:
        raise TaskError(f"human head: cells are {cells.dtype} {tuple(cells.shape)}, not int64 (P, 3)")
    limits = torch.tensor(tokens.shape[:3], device=cells.device)
    if not bool(((cells >= 0) & (cells < limits)).all()):
        raise TaskError("human head: a cell (image, row, column) lies outside the batch's token grids")


def _token_mlp(dim: int, out: int, config: HumanHeadConfig) -> nn.Sequential:
    """Dropout keeps no place of its own in the released files' numbering."""
    hidden = nn.Sequential(nn.ReLU(), Dropout(config.dropout)) if config.dropout else nn.ReLU()
    return nn.Sequential(nn.Linear(dim, dim), hidden, nn.Linear(dim, out))


def require_tokens(tokens: Tensor, dim: int, grid: tuple[int, int]) -> None:
    """Raises TaskError for tokens that are not (B, dim, rows, columns)."""
    if tokens.ndim != 4 or tuple(tokens.shape[1:]) != (dim, *grid):
        raise TaskError(
            f"human head: tokens have shape {tuple(tokens.shape)}, not (B, {dim}, {grid[0]}, {grid[1]}): "
            "another encoder or input size than the head was made for"
        )


def _full(x: Tensor) -> Tensor:
    """At least float32: angles and metres do not survive autocast's short floats."""
    return x if x.dtype == torch.float64 else x.float()
