"""A released human head as a head: what the file says, and what is refused in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dune_bench.data.base import Lazy
from dune_bench.errors import BenchError, TaskError, UnavailableError, UsageError
from dune_bench.models.body_models import BodyModel
from dune_bench.models.body_smplx import read_smplx
from dune_bench.models.human_files import read_human_head, released_name
from dune_bench.models.human_head import HumanHead, HumanHeadConfig, MeanPerson, new_head
from dune_bench.probes.base import ProbeContext, ReleasedFile
from dune_bench.probes.hmr import HmrProbe
from dune_bench.probes.hmr_layout import SmplxLayout
from dune_bench.probes.hmr_learned_fit import stored_human_head
from dune_bench.probes.hmr_released import read_released_head
from dune_bench.registry.lookup import load_registry
from dune_bench.run.probing import make_probe
from tests.models.released_anny import save as save_anny
from tests.models.synthetic_smplx import synthetic_arrays, write
from tests.probes.fake_features import FakeFeatures
from tests.probes.hmr_world import lazy, sample
from tests.probes.hmr_world import model as anny

DIM, GRID = 12, (4, 4)


@pytest.fixture(scope="module")
def smplx(tmp_path_factory: pytest.TempPathFactory) -> BodyModel:
    folder = tmp_path_factory.mktemp("smplx")
    return read_smplx(
        write(folder / "SMPLX_NEUTRAL.npz", synthetic_arrays(np.random.default_rng(0))), torch.float32
    )


def small_head() -> HumanHead:
    config = HumanHeadConfig(
        encoder_dim=DIM, patch=14, grid=GRID, width=32, depth=2, heads=8, head_dim=4, mlp=16, compat=True
    )
    mean = MeanPerson(torch.eye(3).expand(53, 3, 3), torch.zeros(10), 0.9, torch.zeros(10))
    head = new_head(config, mean, torch.Generator().manual_seed(0))
    # Everybody is somebody else, and somebody stands somewhere.
    with torch.no_grad():
        for decoder in head.decoders.values():
            decoder.weight.mul_(10)
        head.detection[-1].bias.fill_(1.0)
    return head.eval()


def released_state() -> dict[str, Tensor]:
    state = {released_name(name): value.clone() for name, value in small_head().state_dict().items()}
    state["x_attention_head.init_betas_kid"] = torch.zeros(1, 11)
    return {**state, "backbone.encoder.norm.weight": torch.ones(DIM)}


def saved(path: Path, state: dict[str, Tensor] | None = None) -> Path:
    torch.save({"model_state_dict": released_state() if state is None else state, "epoch": 3}, path)
    return path


def features(dim: int = DIM, grid: tuple[int, int] = GRID) -> FakeFeatures:
    tokens = torch.randn(dim, *grid, generator=torch.Generator().manual_seed(1))
    return FakeFeatures({"a": tokens}, image_size=(grid[0] * 14, grid[1] * 14))


def given(path: Path) -> ProbeContext:
    return ProbeContext(released=lambda: ReleasedFile(path, "abc"))


def refused(
    model: BodyModel, ctx: ProbeContext, error: type[BenchError], source: FakeFeatures | None = None
) -> str:
    with pytest.raises(error) as caught:
        read_released_head(source or features(), model, ctx)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_head_is_that_of_the_file(tmp_path: Path, smplx: BodyModel) -> None:
    head = read_released_head(features(), smplx, given(saved(tmp_path / "hmr.pt")))
    assert {name: head.choices[name] for name in ("file", "sha256")} == {"file": "hmr.pt", "sha256": "abc"}
    network, layout = stored_human_head(head, smplx)
    assert isinstance(layout, SmplxLayout)
    assert isinstance(network, HumanHead)
    own = read_human_head(released_state(), "f")
    tokens, K = features().one("a").patch, torch.tensor([[[60.0, 0, 28], [0, 60.0, 28], [0, 0, 1]]])
    cells = torch.tensor([[0, 1, 2], [0, 3, 0]])
    with torch.no_grad():
        one, two = network.regress(tokens, K, cells), own.regress(tokens, K, cells)
    assert torch.equal(one.translation, two.translation)
    assert torch.equal(one.rotmat, two.rotmat)


def test_only_the_protocol_without_training_reads_what_was_released() -> None:
    registry = load_registry()
    found = {name: make_probe(card, registry) for name, card in registry.tasks.items() if card.probe == "hmr"}
    assert {name for name, probe in found.items() if probe.reads_released} == {
        "hmr/minirooms/pretrained@1",
        "hmr/smplx-people/pretrained@1",
    }
    assert all(probe.released_part == "human_heads" for probe in found.values())


def test_a_file_that_is_not_here_is_not_an_untrained_head(smplx: BodyModel) -> None:
    def missing() -> ReleasedFile:
        raise UnavailableError("not on this machine")

    assert "not on this machine" in refused(smplx, ProbeContext(released=missing), UnavailableError)
    assert "nobody can tell which human head" in refused(smplx, ProbeContext(), UnavailableError)


def test_another_body_encoder_or_grid_is_one_line(tmp_path: Path, smplx: BodyModel) -> None:
    ctx = given(saved(tmp_path / "hmr.pt"))
    assert "human head for the body model smplx, the protocol names anny" in refused(anny(), ctx, UsageError)
    other = given(save_anny(tmp_path / "anny.pt"))
    text = refused(smplx, other, UsageError)
    assert "anny.pt: a human head for the body model anny, the protocol names smplx" in text
    assert "tokens of 12 channels, the encoder gives 7" in refused(smplx, ctx, UsageError, features(7))
    assert "a head for 4×4 tokens (56 px), not for 5×5" in refused(
        smplx, ctx, UsageError, features(grid=(5, 5))
    )


def test_a_file_of_something_else_is_one_line(tmp_path: Path, smplx: BodyModel) -> None:
    state = {name: t for name, t in released_state().items() if name.startswith("backbone")}
    text = refused(smplx, given(saved(tmp_path / "dino.pt", state)), UsageError)
    assert "no tensor of a Multi-HMR head in it" in text
    (tmp_path / "text.pt").write_text("not a checkpoint", encoding="utf-8")
    assert "no torch checkpoint" in refused(smplx, given(tmp_path / "text.pt"), TaskError)
    short = released_state()
    del short["mlp_offset.0.weight"]
    assert "missing mlp_offset.0.weight" in refused(smplx, given(saved(tmp_path / "s.pt", short)), UsageError)


def test_its_people_can_be_scored(tmp_path: Path, smplx: BodyModel) -> None:
    """Whole: tokens to bodies whose head joints lie where the head says."""
    registry = load_registry()
    probe = make_probe(registry.task("hmr/smplx-people/pretrained@1"), registry)
    assert isinstance(probe, HmrProbe)
    probe.__dict__["model"] = smplx  # the licensed file is nowhere recorded here
    head = probe.fit(features(), Lazy([]), {}, given(saved(tmp_path / "hmr.pt")))
    K = np.array([[60.0, 0.0, 28.0], [0.0, 60.0, 28.0], [0.0, 0.0, 1.0]])
    one = replace(sample("a", [], size=(56, 56)), K=K)
    (found,) = probe.predict(features(), lazy([one]), head, {}, ProbeContext())
    assert len(found) >= 1
    assert not found.failed
    network, _ = stored_human_head(head, smplx)
    with torch.no_grad():
        cells, scores = network.find(network.detect(features().one("a").patch), 0.2)
        expected = network.regress(
            features().one("a").patch,
            torch.from_numpy(K).float()[None],
            cells[scores.argsort(descending=True, stable=True)],
        )
    heads = found.bodies.joints[:, smplx.head]
    inside = (expected.dist > probe.protocol.min_depth_m) & (expected.dist < probe.protocol.max_depth_m)
    assert bool(inside.any())
    assert torch.allclose(heads[inside], expected.translation[inside], atol=1e-4)
