"""A small human head on posed bodies: it learns, is stored, is the same again, and says what stopped it."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dune_bench.errors import TaskError
from dune_bench.probes.base import Head, ProbeContext, SilentProgress
from dune_bench.probes.hmr import HmrProbe
from dune_bench.probes.hmr_learned_fit import fit_human_head, stored_human_head
from dune_bench.probes.hmr_prediction import PeoplePrediction
from dune_bench.registry.cards import TaskCard, load_card
from dune_bench.run.artifacts import HeadStore
from dune_bench.run.probing import score_all
from tests.probes.fake_features import FakeFeatures
from tests.probes.hmr_training import CARD, STEPS, fitted, protocol, world
from tests.probes.hmr_world import lazy, model, person, sample, someone, upright

CTX = ProbeContext()
SHORT = {"steps": 6, "warmup_steps": 2}


@cache
def trained_in() -> tuple[Head, list[dict[str, float]]]:
    """The head, and the terms of the loss by step."""
    with tempfile.TemporaryDirectory() as folder:
        head = fitted(Path(folder))
        lines = (Path(folder) / "log.jsonl").read_text("utf-8").splitlines()
    return head, [json.loads(line)["terms"] for line in lines]


def trained() -> Head:
    return trained_in()[0]


def said(head: Head, features: FakeFeatures | None = None) -> list[PeoplePrediction]:
    samples, own = world()
    return list(HmrProbe(protocol()).predict(features or own, lazy(samples), head, {}, CTX))


def metrics(found: list[PeoplePrediction]) -> dict[str, float]:
    samples, _ = world()
    probe = HmrProbe(protocol())
    stats = score_all(probe, found, samples, SilentProgress())
    return {k: float(v[0]) for k, v in probe.reduce(stats, np.ones((1, len(samples)))).items()}


def equal(one: Head, other: Head) -> bool:
    assert one.tensors.keys() == other.tensors.keys()
    return all(torch.equal(value, other.tensors[name]) for name, value in one.tensors.items())


def test_what_the_features_say_of_people_is_learned() -> None:
    head, lines = trained_in()
    assert len(lines) == STEPS == head.choices["steps"]
    for term in ("detection", "offset", "rotmat", "distance", "translation", "joints3d", "vertices3d"):
        values = [line[term] for line in lines]
        assert np.mean(values[-8:]) < np.mean(values[:8]), term
    assert "joints2d" not in lines[0], "a term of weight 0 is left out"
    found, early = metrics(said(head)), metrics(said(fitted(recipe=SHORT)))
    assert found["f1"] > 95.0
    assert found["pve_mm@miss350mm"] < 0.8 * early["pve_mm@miss350mm"]
    assert found["depth_error_m"] < 0.3
    assert head.choices["people"] == 18


def test_card_metrics_are_those_that_the_probe_returns() -> None:
    assert set(metrics(said(trained()))) >= {m.id for m in load_card(CARD, TaskCard).metrics}


def test_predictions_are_ordered_and_their_poses_are_those_of_their_bodies() -> None:
    for found in said(trained()):
        assert (np.diff(found.scores) <= 0).all()
        again = model()({k: v.float() for k, v in found.parameters.items()})
        moved = again.moved(torch.from_numpy(found.T_cam_body).float())
        assert torch.allclose(moved.vertices, found.bodies.vertices, atol=1e-4)
        assert np.allclose(found.pelvis, found.bodies.joints[:, model().root].numpy(), atol=1e-6)


def test_asking_a_head_does_not_switch_gradients_off_for_the_next_fit() -> None:
    samples, features = world()
    asked = HmrProbe(protocol()).predict(features, lazy(samples), trained(), {}, CTX)
    next(asked)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_a_stored_head_says_the_same(tmp_path: Path) -> None:
    store = HeadStore(tmp_path, pytest.fail)
    store.write("ab" * 8, trained(), {})
    found = store.find("ab" * 8)
    assert found is not None
    assert found.choices == trained().choices
    for one, other in zip(said(trained()), said(found), strict=True):
        assert torch.equal(one.bodies.vertices, other.bodies.vertices)


def test_the_seed_alone_decides_the_head() -> None:
    torch.manual_seed(0)
    one = fitted(seed=3, recipe=SHORT)
    torch.manual_seed(1)
    assert equal(one, fitted(seed=3, recipe=SHORT))
    assert not equal(one, fitted(seed=4, recipe=SHORT))


class _Interrupting:
    def __init__(self, step: int) -> None:
        self._step = step

    def update(self, done: float, total: float, note: str = "") -> None:
        if note.startswith("loss") and done >= self._step:
            raise KeyboardInterrupt


def test_an_interrupted_training_goes_on_to_the_same_head(tmp_path: Path) -> None:
    recipe = {"steps": 14, "checkpoint_every": 5}
    calm = fitted(tmp_path / "calm", recipe=recipe)
    samples, features = world()
    for step in (1, 7):
        folder = tmp_path / str(step)
        ctx = ProbeContext(training=folder, progress=_Interrupting(step), rng=np.random.default_rng(0))
        with pytest.raises(KeyboardInterrupt):
            fit_human_head(features, lazy(samples), model(), protocol(recipe=recipe), ctx)
        assert equal(fitted(folder, recipe=recipe), calm)


def test_an_image_whose_features_are_not_finite_has_not_nobody_in_it() -> None:
    samples, features = world()
    broken = FakeFeatures({**features.maps, "i2": features.maps["i2"] * torch.nan}, (336, 336))
    found = said(trained(), broken)
    assert [bool(f.failed) for f in found] == [name == "i2" for name in (s.id for s in samples)]


def test_a_training_image_whose_features_are_not_finite_is_named() -> None:
    _, features = world()
    broken = FakeFeatures({**features.maps, "i2": features.maps["i2"] * torch.nan}, (336, 336))
    with pytest.raises(TaskError, match="image i2: its features are not finite"):
        fitted(features=broken, recipe=SHORT)
    # Without statistics of the tokens the loss says so.
    with pytest.raises(TaskError, match=r"training stopped at step 1: .*detection.* not finite; samples i"):
        fitted(features=broken, recipe=SHORT | {"batch_size": 9}, shape={"standardised": False})


def test_a_rate_that_blows_up_says_so() -> None:
    with pytest.raises(TaskError, match=r"training stopped at step \d+: .*not finite; samples i"):
        fitted(recipe={"lr": 1e30, "clip_norm": None})


def test_features_of_another_encoder_are_one_line() -> None:
    _, features = world()
    narrow = FakeFeatures({name: x[:7] for name, x in features.maps.items()}, (336, 336))
    with pytest.raises(TaskError, match=r"tokens have shape .*another encoder or input size") as caught:
        said(trained(), narrow)
    assert "\n" not in str(caught.value)


def test_a_damaged_head_is_one_line() -> None:
    torn = {name: value for name, value in trained().tensors.items() if name != "transformer.embed.weight"}
    with pytest.raises(TaskError, match=r"the stored human head is damaged: .*embed") as caught:
        stored_human_head(Head(torn, trained().choices), model())
    assert "\n" not in str(caught.value)


def test_nobody_to_learn_from_is_one_line() -> None:
    empty = [sample(f"i{i}", []) for i in range(3)]
    features = FakeFeatures({s.id: torch.zeros(4, 24, 24) for s in empty}, (336, 336))
    with pytest.raises(TaskError, match="no image shows a person who must be found"):
        fit_human_head(features, lazy(empty), model(), protocol(), CTX)


def test_a_batch_in_which_nobody_stands_is_learned_from() -> None:
    rng = np.random.default_rng(0)
    samples = [sample(f"i{i}", []) for i in range(5)]
    samples.append(sample("j", [person("p", upright(0, 3, 0), someone(rng))]))
    maps = {
        s.id: torch.randn(6, 24, 24, generator=torch.Generator().manual_seed(i))
        for i, s in enumerate(samples)
    }
    recipe: dict[str, Any] = {"steps": 8, "batch_size": 1, "warmup_steps": 1}
    head = fit_human_head(
        FakeFeatures(maps, (336, 336)), lazy(samples), model(), protocol(recipe=recipe), CTX
    )
    assert head.choices["steps"] == 8
    assert all(bool(value.isfinite().all()) for value in head.tensors.values())


def test_other_distances_do_not_follow_from_another_focal_length() -> None:
    """With a longer lens the same tokens mean somebody farther away, in proportion."""
    samples, features = world()
    longer = [replace(s, K=s.K * np.array([[2.0, 1, 1], [1, 2.0, 1], [1, 1, 1]])) for s in samples]
    probe, head = HmrProbe(protocol()), trained()
    network, _ = stored_human_head(head, model())
    tokens = features.one("i0").patch
    cells, _ = network.find(network.detect(tokens), 0.3)
    K = torch.tensor([[300.0, 0, 168], [0, 300.0, 168], [0, 0, 1]])[None]
    zoomed = K * torch.tensor([[2.0, 1, 1], [1, 2.0, 1], [1, 1, 1]])
    one, two = (network.regress(tokens, k, cells) for k in (K, zoomed))
    ratio = (two.dist / one.dist) / ((two.dist_raw - one.dist_raw).exp())
    assert torch.allclose(ratio, torch.full_like(ratio, 2.0), rtol=1e-4)
    assert len(list(probe.predict(features, lazy(longer), head, {}, CTX))) == len(samples)
