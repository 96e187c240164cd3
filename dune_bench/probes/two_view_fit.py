"""A two-view decoder as a head: trained on frozen tokens, stored, and asked about pairs of images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dune_bench.data.base import Lazy
from dune_bench.data.samples import PairSample
from dune_bench.engine.terms import LossTerm
from dune_bench.errors import TaskError
from dune_bench.models.two_view_decoder import DecoderConfig, TwoViewDecoder, empty_decoder, fresh_decoder
from dune_bench.models.two_view_output import Margins, ViewOutput, cropped_size
from dune_bench.probes.base import FeatureSource, Head, ProbeContext
from dune_bench.probes.tokens import token_pixels, token_statistics
from dune_bench.probes.two_view_maps import PairMaps, pair_maps
from dune_bench.probes.two_view_pairs import PairBatch, TwoViewPairs
from dune_bench.probes.two_view_protocol import DecoderTraining
from dune_bench.probes.two_view_terms import two_view_terms

if TYPE_CHECKING:  # the engine is slow to import, and only a fit needs it
    from dune_bench.engine.step import StepContext

CONFIG = "decoder"
"""Where a head's choices say what its decoder looks like."""
PAIRS_AT_ONCE = 8
CELLS_AT_ONCE = 2**18
"""Cells of view 1's maps in a forward: a released decoder takes 0.65 GB for a pair of 448 by 448."""


def fit_decoder(
    features: FeatureSource, samples: Lazy[PairSample], training: DecoderTraining, ctx: ProbeContext
) -> Head:
    """Trains a fresh decoder on the pairs of the samples' views.  Goes on where `ctx.training` stopped.

    Head tensors: the decoder's state.  Raises TaskError if no pair overlaps, or for a loss that is not
    finite (naming the term and the pairs).
    """
    from dune_bench.engine.train import train

    config = training.decoder.of(features.dim, token_pixels(features))
    margins = padding_shares(features)
    size = cropped_size(_map_size(features, config), margins)
    seed = int(ctx.rng.integers(2**31))
    decoder = fresh_decoder(config, torch.Generator().manual_seed(seed))
    if config.standardised:
        mean, std = token_statistics(features, samples, ctx)
        decoder.token_mean.copy_(mean)
        decoder.token_std.copy_(std)
    pairs = TwoViewPairs(features, samples, size, training.pairs)

    def loss(module: nn.Module, batch: PairBatch, context: StepContext) -> Mapping[str, LossTerm]:
        del context  # nothing is drawn in a step
        outputs = _outputs(module, batch.tokens1, batch.tokens2, margins)
        terms = training.loss
        return two_view_terms(outputs, batch.targets, terms.points, terms.matching, terms.match_weight)

    record = train(
        decoder,
        loss,
        pairs,
        training.recipe,
        folder=ctx.training,
        seed=seed,
        device=ctx.device,
        progress=ctx.progress,
        identity={"decoder": config.model_dump(mode="json"), "pairs": len(pairs)},
    )
    last = record.lines[-1]
    choices = {
        CONFIG: config.model_dump(mode="json"),
        "parameters": sum(parameter.numel() for parameter in decoder.parameters()),
        "pairs": len(pairs),
        "steps": record.steps,
        "loss": {"all": last.loss, **last.terms},
    }
    return Head(dict(decoder.cpu().state_dict()), choices)


def predict_pairs(
    features: FeatureSource, pairs: Sequence[tuple[str, str]], head: Head, ctx: ProbeContext
) -> Iterator[PairMaps]:
    """What the head's decoder says of pairs of images, (id of view 1, id of view 2), in their order.

    Raises TaskError if the decoder is of other features.
    """
    decoder = stored_decoder(head).to(ctx.device)
    margins = padding_shares(features)
    height, width = _map_size(features, decoder.config)
    at_once = max(1, min(PAIRS_AT_ONCE, CELLS_AT_ONCE // (height * width)))
    for start in range(0, len(pairs), at_once):
        some = pairs[start : start + at_once]
        with torch.inference_mode():
            tokens1, tokens2 = (
                torch.cat([features.one(image).patch for image in images]).to(ctx.device)
                for images in zip(*some, strict=True)
            )
            outputs = _outputs(decoder, tokens1, tokens2, margins)
        yield from pair_maps(*outputs)


def stored_decoder(head: Head) -> TwoViewDecoder:
    """The decoder of a head, for inference.  Raises TaskError if head and choices disagree."""
    decoder = empty_decoder(DecoderConfig.model_validate(head.choices[CONFIG]))
    try:
        decoder.load_state_dict(head.tensors)
    except RuntimeError as error:
        raise TaskError(f"the stored decoder is damaged: {' '.join(str(error).split())}") from error
    return decoder.eval().requires_grad_(False)


def padding_shares(features: FeatureSource) -> Margins:
    """How much of the token grid lies beyond the image."""
    left, top, right, bottom = features.padding
    height, width = features.image_size[0] + top + bottom, features.image_size[1] + left + right
    return left / width, top / height, right / width, bottom / height


def _map_size(features: FeatureSource, config: DecoderConfig) -> tuple[int, int]:
    return features.grid[0] * config.token_cells, features.grid[1] * config.token_cells


def _outputs(
    decoder: nn.Module, tokens1: Tensor, tokens2: Tensor, margins: Margins
) -> tuple[ViewOutput, ViewOutput]:
    """Maps that cover the images, without padding."""
    first, second = decoder(tokens1, tokens2)
    return first.cropped(margins), second.cropped(margins)
