"""The head of Multi-HMR's Anny release as a head of the probe, and what is refused in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dune_bench.data.base import Lazy
from dune_bench.errors import BenchError, TaskError, UsageError
from dune_bench.models.anny_head import AnnyHead
from dune_bench.models.anny_head_files import read_anny_head
from dune_bench.models.body_models import BodyModel
from dune_bench.probes.base import Head, ProbeContext, ReleasedFile
from dune_bench.probes.hmr import HmrProbe
from dune_bench.probes.hmr_layout import AnnyReleaseLayout
from dune_bench.probes.hmr_learned_fit import ANNY_CONFIG, stored_human_head
from dune_bench.probes.hmr_prediction import PeoplePrediction
from dune_bench.probes.hmr_released import read_released_head
from dune_bench.registry.lookup import load_registry
from dune_bench.run.probing import make_probe
from tests.models.released_anny import E, options, released_state, save
from tests.models.toy_body import StickBody
from tests.probes.fake_features import FakeFeatures
from tests.probes.hmr_world import lazy, sample
from tests.probes.hmr_world import model as anny
from tests.probes.test_hmr_released import saved as smplx_file

K = np.array([[60.0, 0.0, 28.0], [0.0, 60.0, 28.0], [0.0, 0.0, 1.0]])


def features(dim: int = E, grid: tuple[int, int] = (4, 4), scale: float = 1.0) -> FakeFeatures:
    tokens = scale * torch.randn(dim, *grid, generator=torch.Generator().manual_seed(1))
    return FakeFeatures({"a": tokens}, image_size=(grid[0] * 14, grid[1] * 14))


def given(path: Path) -> ProbeContext:
    return ProbeContext(released=lambda: ReleasedFile(path, "abc"))


def refused(
    model: BodyModel, path: Path, error: type[BenchError] = UsageError, source: FakeFeatures | None = None
) -> str:
    with pytest.raises(error) as caught:
        read_released_head(source or features(), model, given(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def probe() -> HmrProbe:
    registry = load_registry()
    made = make_probe(registry.task("hmr/minirooms/pretrained@1"), registry)
    assert isinstance(made, HmrProbe)
    return made


def predicted(path: Path, source: FakeFeatures | None = None) -> PeoplePrediction:
    made, source = probe(), source or features()
    head = made.fit(source, Lazy([]), {}, given(path))
    one = replace(sample("a", [], size=(56, 56)), K=K)
    (found,) = made.predict(source, lazy([one]), head, {}, ProbeContext())
    return found


def changed(path: Path, **biases: float | Tensor) -> Path:
    """A file with other biases of some tensors, `_` for each dot."""
    state = released_state()
    for name in state:
        if (value := biases.get(name.replace(".", "_"))) is not None:
            state[name] = torch.as_tensor(value, dtype=torch.float32).expand(state[name].shape).clone()
    return save(path, state)


def test_head_is_that_of_the_file_whatever_its_name(tmp_path: Path) -> None:
    head = read_released_head(features(), anny(), given(save(tmp_path / "multiHMR_672_L.pt")))
    assert head.choices["file"] == "multiHMR_672_L.pt"
    assert head.choices["sha256"] == "abc"
    assert head.choices["differs_from_formulas"] == []
    network, layout = stored_human_head(head, anny())
    assert isinstance(network, AnnyHead)
    assert isinstance(layout, AnnyReleaseLayout)
    own = read_anny_head(released_state(), options(), "f").head.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in network.state_dict().items())
    assert network.config.heads == 2  # of the file's options, in no shape


def test_stored_buffers_that_differ_are_in_the_result(tmp_path: Path) -> None:
    path = changed(tmp_path / "f.pt", encoder_fov_max=3.0)
    head = read_released_head(features(), anny(), given(path))
    assert head.choices["differs_from_formulas"] == ["encoder.fov_max"]


def test_a_head_with_another_body_is_one_line_both_ways(tmp_path: Path) -> None:
    text = refused(StickBody(torch.float32), save(tmp_path / "a.pt"))
    assert "a.pt: a human head for the body model anny, the protocol names stick: use hmr/minirooms/" in text
    text = refused(anny(), smplx_file(tmp_path / "s.pt"))
    assert (
        "s.pt: a human head for the body model smplx, the protocol names anny: use hmr/smplx-people/" in text
    )


def test_a_file_of_another_kind_is_one_line(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pt")
    assert "tokens of 12 channels, the encoder gives 7" in refused(anny(), path, source=features(7))
    assert "a head for 4×4 tokens (56 px), not for 5×5" in refused(anny(), path, source=features(grid=(5, 5)))
    other = save(tmp_path / "o.pt", args=options(person_center="neck01"))
    assert "args.person_center is 'neck01'" in refused(anny(), other)
    torch.save({"model": released_state(), "args": 3}, tmp_path / "n.pt")
    assert "its args are of type int" in refused(anny(), tmp_path / "n.pt", TaskError)


def test_people_stand_where_the_head_says(tmp_path: Path) -> None:
    """Whole: tokens to bodies whose head bones lie on their rays at the distance that the camera gives."""
    found = predicted(save(tmp_path / "hmr.pt"))
    assert len(found) >= 2
    assert not found.failed
    network = read_anny_head(released_state(), options(), "f").head
    tokens = features().one("a").patch
    cells, scores = network.find(network.detect(tokens), 0.3)
    order = scores.argsort(descending=True, stable=True)
    expected = network.regress(tokens, torch.from_numpy(K).float()[None], cells[order])
    inside = (expected.dist > 0.2) & (expected.dist < 20)
    assert inside.all()
    torch.testing.assert_close(found.bodies.joints[:, anny().head], expected.translation, atol=1e-4, rtol=0.0)
    assert torch.equal(found.parameters["phenotype"].float(), expected.phenotype)
    assert (np.diff(found.scores) <= 0).all()
    # The parameters are the bodies.
    with torch.no_grad():
        again = anny()({name: value.float() for name, value in found.parameters.items()})
    moved = again.moved(torch.from_numpy(found.T_cam_body).float())
    torch.testing.assert_close(moved.vertices, found.bodies.vertices, atol=1e-4, rtol=0.0)


def test_predictions_repeat(tmp_path: Path) -> None:
    path = save(tmp_path / "hmr.pt")
    one, two = predicted(path), predicted(path)
    assert torch.equal(one.bodies.vertices, two.bodies.vertices)
    assert np.array_equal(one.scores, two.scores)


def test_certain_heads_have_finite_log_odds(tmp_path: Path) -> None:
    """The release does not clamp its scores, and they may round to 1."""
    found = predicted(changed(tmp_path / "f.pt", encoder_mlp_det_2_bias=80.0))
    assert len(found) == 16
    assert np.isfinite(found.scores).all()


def test_nobody_is_no_failure(tmp_path: Path) -> None:
    found = predicted(changed(tmp_path / "f.pt", encoder_mlp_det_2_bias=-80.0))
    assert len(found) == 0
    assert not found.failed


def test_what_is_no_body_is_a_failed_image(tmp_path: Path) -> None:
    found = predicted(changed(tmp_path / "f.pt", mlp_shape_2_bias=torch.nan))
    assert "not finite" in found.failed
    found = predicted(save(tmp_path / "g.pt"), features(scale=float("nan")))
    assert "features are not finite" in found.failed


def test_a_damaged_stored_head_is_one_line(tmp_path: Path) -> None:
    head = read_released_head(features(), anny(), given(save(tmp_path / "hmr.pt")))
    torn = {name: value for name, value in head.tensors.items() if name != "embed.bias"}
    with pytest.raises(TaskError, match="stored human head is damaged"):
        stored_human_head(Head(torn, {ANNY_CONFIG: head.choices[ANNY_CONFIG]}), anny())
