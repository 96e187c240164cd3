"""A human head released with its encoder, as a head of the probe: with SMPL-X's bodies or with anny's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dune_bench.encoders.checkpoint import read_with_args
from dune_bench.errors import UnavailableError, UsageError
from dune_bench.models.anny_head import AnnyHead
from dune_bench.models.anny_head_files import ReleasedAnny, is_anny_release, read_anny_head
from dune_bench.models.body_models import BodyModel
from dune_bench.models.human_camera import Grid
from dune_bench.models.human_files import read_human_head
from dune_bench.models.human_head import HumanHead
from dune_bench.probes.base import FeatureSource, Head, ProbeContext
from dune_bench.probes.hmr_layout import SmplxLayout, layout_facts
from dune_bench.probes.hmr_learned_fit import ANNY_CONFIG, CONFIG, LAYOUT

TASKS = {"anny": "hmr/minirooms/pretrained@1", "smplx": "hmr/smplx-people/pretrained@1"}
"""Where the released heads are asked about bodies of their own model."""


def read_released_head(features: FeatureSource, model: BodyModel, ctx: ProbeContext) -> Head:
    """The head in the file that `ctx.released` gives; features: what they look like.

    The names of its tensors tell which release it is.  choices: also the file and its hash; of the Anny
    release, too, which stored buffers are not what their formulas say.  Raises UnavailableError if the file
    is not here, TaskError if it is damaged, UsageError if its bodies are not the protocol's, and what
    `read_human_head` and `read_anny_head` raise for a file of something else, of another encoder or token
    grid.
    """
    if ctx.released is None:
        raise UnavailableError("nobody can tell which human head was released with this encoder")
    file = ctx.released()
    found = read_human_file(file.path, model.name, grid=features.grid, encoder_dim=features.dim)
    choices: dict[str, Any]
    if isinstance(found, ReleasedAnny):
        network: HumanHead | AnnyHead = found.head
        choices = {
            ANNY_CONFIG: found.head.config.model_dump(mode="json"),
            "differs_from_formulas": list(found.differing),
        }
    else:
        network = found
        choices = {
            CONFIG: found.config.model_dump(mode="json"),
            LAYOUT: layout_facts(SmplxLayout(model))[1],
        }
    choices |= {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "file": file.path.name,
        "sha256": file.sha256,
    }
    return Head(dict(network.state_dict()), choices)


def read_human_file(
    path: Path, body_model: str, *, grid: Grid | None = None, encoder_dim: int | None = None
) -> HumanHead | ReleasedAnny:
    """The head in a released file, for bodies of `body_model`.  grid, encoder_dim: what the encoder gives,
    if known.  Raises what `read_released_head` raises for the file."""
    where = str(path)
    state, args = read_with_args(path)
    if is_anny_release(state):
        _require_model("anny", body_model, where)
        return read_anny_head(state, args, where, grid=grid, encoder_dim=encoder_dim)
    network = read_human_head(state, where, grid=grid, encoder_dim=encoder_dim)
    _require_model("smplx", body_model, where)
    return network


def _require_model(name: str, wanted: str, where: str) -> None:
    if wanted != name:
        raise UsageError(
            f"{where}: a human head for the body model {name}, the protocol names {wanted}: use {TASKS[name]}"
        )
