"""`reloc` on a decoder that another task fitted: whose maps answer which query, and a wrong `requires`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dune_bench.errors import TaskError
from dune_bench.probes import two_view_fit
from dune_bench.probes.base import Head, Probe, ProbeContext, Upstream
from dune_bench.probes.recon3d import Recon3dProbe
from dune_bench.probes.recon3d_protocol import Recon3dMatchDepth, Recon3dTrained
from dune_bench.probes.reloc import RelocProbe, ScenePrediction, stack
from dune_bench.registry.cards import TaskCard, load_card
from tests.probes import known_decoder as known
from tests.probes.reloc_scenes import KnownDepth, lazy_scenes

TASKS = Path(__file__).parents[2] / "tasks"
MATCH_DEPTH = "recon3d_minirooms"
every_protocol = pytest.mark.parametrize("name", ["essential", "pnp", "pnp_direct"])


def reloc(name: str) -> RelocProbe:
    card = load_card(TASKS / f"reloc_minirooms_{name}.yaml", TaskCard)
    protocol = card.id.rpartition("/")[2].partition("@")[0]
    return RelocProbe(RelocProbe.protocols[protocol].model_validate(card.protocol))


def recon3d(task: str = "recon3d_minirooms_mast3r_mini") -> Recon3dProbe:
    card = load_card(TASKS / f"{task}.yaml", TaskCard)
    constants = Recon3dMatchDepth if task == MATCH_DEPTH else Recon3dTrained
    return Recon3dProbe(constants.model_validate(card.protocol))


def predicted(name: str, given: Probe[Any] | None, role: str = "decoder") -> list[ScenePrediction]:
    scenes = [known.scene("a"), known.scene("b")]
    features = known.tokens(*scenes)
    upstream = {} if given is None else {role: Upstream(given, Head({}), features)}
    return list(reloc(name).predict(features, lazy_scenes(scenes), Head({}), upstream, ProbeContext()))


@every_protocol
def test_true_maps_answer_every_query_with_its_own_pose(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queries stand on either side of the reference: their answers are not interchangeable."""
    monkeypatch.setattr(two_view_fit, "stored_decoder", lambda head: known.KnownDecoder())
    found = predicted(name, recon3d())
    scenes = [known.scene("a"), known.scene("b")]
    stats = stack(reloc(name).score(p, s) for p, s in zip(found, scenes, strict=True))
    assert stats["answered"].all()
    assert stats["rot_deg"].shape == (2, 2)
    assert stats["rot_deg"].max() < 0.01
    assert stats["trans_m"].max() < 1e-3
    assert (stats["matches"] > 100).all()
    metrics = reloc(name).reduce(stats, np.ones((1, 2)))
    assert metrics["precision@25cm_5deg"] == metrics["answered"] == 100.0


@every_protocol
@pytest.mark.parametrize("given", ["nothing", "another role", "another probe"])
def test_requires_without_a_decoder_is_one_line(name: str, given: str) -> None:
    upstream, role = {
        "nothing": (None, "decoder"),
        "another role": (recon3d(), "depth_head"),
        "another probe": (KnownDepth(), "decoder"),
    }[given]
    with pytest.raises(TaskError, match=r"name a recon3d task in requires\.decoder") as stopped:
        predicted(name, upstream, role)
    assert "\n" not in str(stopped.value)


@every_protocol
def test_a_recon3d_task_without_a_decoder_is_one_line(name: str) -> None:
    with pytest.raises(TaskError, match="this protocol has no decoder: name") as stopped:
        predicted(name, recon3d(MATCH_DEPTH))
    assert "\n" not in str(stopped.value)
