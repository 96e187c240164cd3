"""SMPL-X people of a user's own folder through the probe, from the folder to metrics."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from dune_bench.data.base import Lazy
from dune_bench.data.samples import HumanSample
from dune_bench.data.smplx_people import SmplxPeople
from dune_bench.probes.base import ProbeContext, SilentProgress
from dune_bench.probes.grids import TokenGrid
from dune_bench.probes.hmr import HmrProbe
from dune_bench.probes.hmr_fit import truths
from dune_bench.probes.hmr_oracles import mean_bodies, oracle
from dune_bench.registry.cards import TaskCard, load_card, parse_card
from dune_bench.registry.lookup import Registry
from dune_bench.run.probing import make_probe, score_all
from tests.data.smplx_fixture import write_people
from tests.models import synthetic_smplx
from tests.probes.fake_features import FakeFeatures

ROOT = Path(__file__).parents[2]
GRID = TokenGrid((8, 10), (112, 140))


def documented_card() -> TaskCard:
    """The card of the documentation's page."""
    page = (ROOT / "docs" / "data" / "smplx-people.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return parse_card(yaml.safe_load(block), TaskCard, "smplx-people.md")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> SmplxPeople:
    base = tmp_path_factory.mktemp("smplx")
    arrays = synthetic_smplx.synthetic_arrays(np.random.default_rng(7))
    synthetic_smplx.write(base / "SMPLX_NEUTRAL.npz", arrays)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUNE_BENCH_CACHE", str(base / "cache"))
        patch.setenv("DUNE_BENCH_SMPLX", str(base))
        dataset = SmplxPeople(root=write_people(base / "people", {"train": 40, "test": 6}))
        dataset.prepare()
    return dataset


@pytest.fixture(scope="module")
def probe(people: SmplxPeople) -> HmrProbe:
    """With the documented constants and the model that is found without a path."""
    made = make_probe(documented_card(), Registry())
    assert isinstance(made, HmrProbe)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUNE_BENCH_SMPLX", str(people.root.parent))
        assert made.model.name == "smplx"
    return made


def telling(samples: Lazy[Any], probe: HmrProbe) -> FakeFeatures:
    """At the token of a head: 4, the body's orientation and its distance; noise elsewhere."""
    rng, told = np.random.default_rng(1), [*range(6), -1]
    maps: dict[str, torch.Tensor] = {}
    for i, truth in enumerate(truths(samples, GRID, probe.bodies, probe.protocol)):  # type: ignore[arg-type]
        features = torch.from_numpy(rng.normal(0, 0.02, (8, *GRID.grid)))
        for k in np.flatnonzero(truth.heads.counts & truth.heads.owns):
            row, column = truth.heads.tokens[k]
            features[0, row, column] += 4.0
            features[1:, row, column] += truth.rows[k][told]
        maps[samples.images(i)[0].id] = features.float()
    return FakeFeatures(maps, GRID.image_size)


def metrics(probe: HmrProbe, found: Iterable[Any], samples: Lazy[Any]) -> dict[str, float]:
    stats = score_all(probe, found, samples, SilentProgress())
    reduced = probe.reduce(stats, np.ones((1, len(samples))))
    return {name: float(value[0]) for name, value in reduced.items()}


def test_documented_card_is_that_of_minirooms_but_for_data_and_body() -> None:
    ours, theirs = documented_card(), load_card(ROOT / "tasks" / "hmr_minirooms.yaml", TaskCard)
    assert ours.protocol == theirs.protocol | {"body_model": "smplx"}
    assert (ours.input, ours.metrics) == (theirs.input, theirs.metrics)
    assert ours.dataset.name == "smplx-people@1"
    assert ours.suites == ()


def test_true_smplx_bodies_are_not_wrong(people: SmplxPeople, probe: HmrProbe) -> None:
    """Rows and back: pose, place, orientation and head of SMPL-X bodies lose nothing."""
    samples = people.samples(HumanSample, "test")
    assert sum(len(sample.people) for sample in samples) == 6  # type: ignore[union-attr]
    found = metrics(probe, oracle(samples, GRID, probe.bodies, probe.protocol), samples)  # type: ignore[arg-type]
    assert found["f1"] == 100.0
    assert found["recall"] == 100.0
    for name in ("pve_mm", "pa_pve_mm", "mpjpe_mm", "depth_error_m"):
        assert found[name] < 0.1


def test_ridge_learns_smplx_people_of_a_folder(people: SmplxPeople, probe: HmrProbe) -> None:
    train, test = (people.samples(HumanSample, split) for split in ("train", "test"))
    ctx = ProbeContext()
    head = probe.fit(telling(train, probe), train, {}, ctx)
    features = telling(test, probe)
    found = metrics(probe, probe.predict(features, test, head, {}, ctx), test)
    blind = metrics(probe, probe.predict(features, test, mean_bodies(head), {}, ctx), test)
    assert found["recall"] == 100.0
    assert found["precision"] == 100.0
    assert found["pve_mm"] < 0.8 * blind["pve_mm"]
    assert found["depth_error_m"] < 0.7 * blind["depth_error_m"]


def test_up_comes_first_in_the_rows_of_a_model_whose_y_is_up(people: SmplxPeople, probe: HmrProbe) -> None:
    """The first axis of the 6-D form is the one that an upright body keeps whichever way it faces."""
    samples = people.samples(HumanSample, "train")
    rows = torch.cat([t.rows for t in truths(samples, GRID, probe.bodies, probe.protocol)])  # type: ignore[arg-type]
    six = rows[:, probe.bodies.groups["orientation"]]
    assert float(six[:, :3].var(0).sum()) < 0.5 * float(six[:, 3:].var(0).sum())
    assert float(six[:, 1].mean()) < -0.9  # up, in the camera's axes
