"""A two-view decoder released with its encoder, as a head."""

from __future__ import annotations

from pathlib import Path

from dune_bench.encoders.checkpoint import load_torch
from dune_bench.errors import UnavailableError
from dune_bench.models.two_view_files import read_decoder
from dune_bench.probes.base import FeatureSource, Head, ProbeContext
from dune_bench.probes.tokens import token_pixels
from dune_bench.probes.two_view_fit import CONFIG


def read_released(features: FeatureSource, ctx: ProbeContext) -> Head:
    """The decoder in the file that `ctx.released` gives; features: what they look like.

    Head tensors: the decoder's state.  choices: also the file, its hash and the encoder it says it was
    trained on.  Raises UnavailableError if the file is not here, TaskError if it is damaged, and what
    `read_decoder` raises for a file of something else or of another encoder.
    """
    if ctx.released is None:
        raise UnavailableError("nobody can tell which decoder was released with this encoder")
    file = ctx.released()
    content = load_torch(file.path)
    found = read_decoder(content, str(file.path), encoder_dim=features.dim, patch=token_pixels(features))
    choices = {
        CONFIG: found.decoder.config.model_dump(mode="json"),
        "parameters": sum(parameter.numel() for parameter in found.decoder.parameters()),
        "file": file.path.name,
        "sha256": file.sha256,
        "backbone": found.backbone,
    }
    return Head(dict(found.decoder.state_dict()), choices)


def check_released_file(path: Path) -> None:
    """Raises what `read_released` raises for a file that holds no decoder, whatever the encoder."""
    read_decoder(load_torch(path), str(path))
