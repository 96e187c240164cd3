"""The human head of Multi-HMR's Anny release through whole runs: one file, its backbone and its head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from dune_bench.encoders.vit import VisionTransformer, VitConfig
from dune_bench.errors import ExitCode
from dune_bench.registry.paths import features_cache, weights_cache
from dune_bench.run.execute import execute
from dune_bench.run.request import Outcome, RunRequest
from tests.data.minirooms_fixture import write_tiny_minirooms
from tests.encoders.released import rule_tensor
from tests.models.released_anny import options, released_state, save

ARCH = {"width": 24, "depth": 1, "heads": 2, "patch": 14, "table": 5}
TASK = "hmr/minirooms/pretrained@1"
FILE = "multi.pt"


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rooms")
    write_tiny_minirooms(root, rooms_train=1, rooms_test=2, views=2, size=56)
    return root


@pytest.fixture
def include(tmp_path: Path) -> Path:
    """Cards: encoders out of that file, with and without its head."""
    folder = tmp_path / "include"
    (folder / "encoders").mkdir(parents=True)
    source = {"url": f"http://127.0.0.1:9/{FILE}", "size": "1 MB", "licence": "of the tests"}
    bare = {"id": "bare", "kind": "multihmr", "arch": ARCH, "weights": [source]}
    for card in (bare, bare | {"id": "tiny", "human_heads": [source]}):
        (folder / "encoders" / f"{card['id']}.yaml").write_text(yaml.safe_dump(card))
    return folder


def whole_state(seed: int = 0) -> dict[str, Tensor]:
    """Backbone and head as in the release, for 48 × 48 tokens."""
    vit = VisionTransformer(VitConfig.model_validate(ARCH))
    backbone = {f"encoder.backbone.{n}": rule_tensor(n, tuple(p.shape)) for n, p in vit.named_parameters()}
    head = released_state(seed, e=24, side=48)
    head["encoder.mlp_det.2.bias"] = torch.tensor([-2.0])
    return backbone | head


def run(rooms: Path, include: Path, encoder: str = "tiny", **changes: Any) -> Outcome:
    """With that file in the cache."""
    state = changes.pop("state", None) or whole_state()
    save(weights_cache() / encoder / FILE, state, options(img_size=672, **changes.pop("args", {})))
    request = RunRequest(encoders=(encoder,), tasks=TASK, data=rooms, include=(include,), **changes)
    (outcome,) = execute(request).outcomes
    return outcome


def values(outcome: Outcome) -> dict[str, float]:
    assert outcome.code is ExitCode.OK, outcome.result.error
    return {m.id: m.value for m in outcome.result.metrics if m.value is not None}


def test_released_head_runs_repeats_and_its_file_decides_the_result(rooms: Path, include: Path) -> None:
    first = run(rooms, include)
    assert first.result.choices["file"] == FILE
    assert first.result.choices["anny_head"]["grid"] == [48, 48]
    assert first.result.choices["differs_from_formulas"] == []
    assert values(first).keys() >= {"pve_mm@miss350mm", "recall", "precision"}
    assert run(rooms, include).reused
    assert not list(Path("runs").glob("heads/*/*")), "a second copy of a head"
    again = run(rooms, include, fresh=True)
    assert not again.reused
    assert values(again) == values(first)
    second = run(rooms, include, state=whole_state(seed=1))
    assert not second.reused
    assert second.result.key != first.result.key
    assert second.result.choices["sha256"] != first.result.choices["sha256"]


def test_encoder_without_a_head_is_told_what_to_do(rooms: Path, include: Path) -> None:
    outcome = run(rooms, include, "bare")
    assert outcome.code is ExitCode.UNAVAILABLE
    assert "no human head was released with encoder bare: train one" in str(outcome.result.error)


def test_head_at_another_resolution_is_a_mistake_of_the_request(rooms: Path, include: Path) -> None:
    outcome = run(rooms, include, resolution=336)
    assert (outcome.code, outcome.written) == (ExitCode.USAGE, False)
    assert "a head for 48×48 tokens (672 px), not for 24×24" in str(outcome.result.error)
    assert not list(features_cache().glob("*/*")), "features of no use"


def test_head_that_places_another_bone_is_a_mistake_of_the_request(rooms: Path, include: Path) -> None:
    outcome = run(rooms, include, args={"person_center": "neck01"})
    assert outcome.code is ExitCode.USAGE
    assert "args.person_center is 'neck01'" in str(outcome.result.error)


def test_file_of_something_else_costs_no_features(rooms: Path, include: Path) -> None:
    backbone = {name: t for name, t in whole_state().items() if name.startswith("encoder.backbone.")}
    outcome = run(rooms, include, state=backbone)
    assert outcome.code is ExitCode.USAGE
    assert "no tensor of a Multi-HMR head in it" in str(outcome.result.error)
    assert not list(features_cache().glob("*/*")), "features of no use"
