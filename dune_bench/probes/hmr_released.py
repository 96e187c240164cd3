"""A human head released with its encoder, as a head of the probe."""

from __future__ import annotations

from dune_bench.encoders.checkpoint import read_checkpoint
from dune_bench.errors import UnavailableError, UsageError
from dune_bench.models.body_models import BodyModel
from dune_bench.models.human_files import read_human_head
from dune_bench.probes.base import FeatureSource, Head, ProbeContext
from dune_bench.probes.hmr_layout import SmplxLayout, layout_facts
from dune_bench.probes.hmr_learned_fit import CONFIG, LAYOUT


def read_released_head(features: FeatureSource, model: BodyModel, ctx: ProbeContext) -> Head:
    """The head in the file that `ctx.released` gives; features: of any images.

    choices: also the file and its hash.  Raises UnavailableError if the file is not here, TaskError if it
    is damaged, and what `read_human_head` raises for a file of something else, of another body model,
    encoder or token grid.
    """
    if model.name != "smplx":
        raise UsageError(
            f"released human heads are for the body model smplx, the protocol names {model.name}"
        )
    if ctx.released is None:
        raise UnavailableError("nobody can tell which human head was released with this encoder")
    file = ctx.released()
    state = read_checkpoint(file.path)
    head = read_human_head(state, str(file.path), grid=features.grid, encoder_dim=features.dim)
    _, facts = layout_facts(SmplxLayout(model))
    choices = {
        CONFIG: head.config.model_dump(mode="json"),
        LAYOUT: facts,
        "parameters": sum(parameter.numel() for parameter in head.parameters()),
        "file": file.path.name,
        "sha256": file.sha256,
    }
    return Head(dict(head.state_dict()), choices)
