"""A human head released with its encoder, as a head of the probe: with SMPL-X's bodies or with anny's."""

from __future__ import annotations

from typing import Any

from dune_bench.encoders.checkpoint import read_with_args
from dune_bench.errors import UnavailableError, UsageError
from dune_bench.models.anny_head import AnnyHead
from dune_bench.models.anny_head_files import is_anny_release, read_anny_head
from dune_bench.models.body_models import BodyModel
from dune_bench.models.human_files import read_human_head
from dune_bench.models.human_head import HumanHead
from dune_bench.probes.base import FeatureSource, Head, ProbeContext
from dune_bench.probes.hmr_layout import SmplxLayout, layout_facts
from dune_bench.probes.hmr_learned_fit import ANNY_CONFIG, CONFIG, LAYOUT

TASKS = {"anny": "hmr/minirooms/pretrained@1", "smplx": "hmr/smplx-people/pretrained@1"}
"""Where the released heads are asked about bodies of their own model."""


def read_released_head(features: FeatureSource, model: BodyModel, ctx: ProbeContext) -> Head:
    """The head in the file that `ctx.released` gives; features: of any images.

    The names of its tensors tell which release it is.  choices: also the file and its hash; of the Anny
    release, too, which stored buffers are not what their formulas say.  Raises UnavailableError if the file
    is not here, TaskError if it is damaged, UsageError if its bodies are not the protocol's, and what
    `read_human_head` and `read_anny_head` raise for a file of something else, of another encoder or token
    grid.
    """
    if ctx.released is None:
        raise UnavailableError("nobody can tell which human head was released with this encoder")
    file = ctx.released()
    where = str(file.path)
    state, args = read_with_args(file.path)
    network: HumanHead | AnnyHead
    choices: dict[str, Any]
    if is_anny_release(state):
        _require_model("anny", model, where)
        found = read_anny_head(state, args, where, grid=features.grid, encoder_dim=features.dim)
        network = found.head
        choices = {
            ANNY_CONFIG: network.config.model_dump(mode="json"),
            "differs_from_formulas": list(found.differing),
        }
    else:
        network = read_human_head(state, where, grid=features.grid, encoder_dim=features.dim)
        _require_model("smplx", model, where)
        choices = {
            CONFIG: network.config.model_dump(mode="json"),
            LAYOUT: layout_facts(SmplxLayout(model))[1],
        }
    choices |= {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "file": file.path.name,
        "sha256": file.sha256,
    }
    return Head(dict(network.state_dict()), choices)


def _require_model(name: str, model: BodyModel, where: str) -> None:
    if model.name != name:
        raise UsageError(
            f"{where}: a human head for the body model {name}, the protocol names {model.name}: "
            f"use {TASKS[name]}"
        )
