"""DUNE's features equal those of the original program, from a file in the official layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dune_bench.encoders.base import Encoder, Features
from dune_bench.encoders.dune import FILE_TEACHERS
from dune_bench.encoders.load import load_encoder
from dune_bench.registry.cards import EncoderCard, load_card
from dune_bench.registry.lookup import cards_root
from tests.encoders.released import golden_image, golden_values, rule_state, save_released

CARDS = {"small": "dune_vits", "base": "dune_vitb"}
SIZES = {"small": [(224, 224), (448, 448), (490, 644)], "base": [(224, 224), (336, 336)]}
TOLERANCE_STD = 1e-4


def dune_card(size: str) -> EncoderCard:
    return load_card(cards_root() / "encoders" / f"{CARDS[size]}.yaml", EncoderCard)


@pytest.fixture(scope="module", params=["small", "base"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Encoder]:
    path = tmp_path_factory.mktemp("dune") / f"dune_{request.param}.pth"
    save_released(path, rule_state(request.param))
    encoder = load_encoder(dune_card(request.param), weights=str(path))
    path.unlink()
    return request.param, encoder


def file_view(view: str) -> str:
    """Our view's name in the golden file."""
    kind, _, teacher = view.partition(":")
    canonical = {ours: theirs for theirs, ours in FILE_TEACHERS.items()}
    return f"proj:{canonical[teacher]}" if kind == "proj" else view


def deviation(features: Features, golden: dict[str, np.ndarray], key: str) -> float:
    """Largest difference from the golden values, in their std per channel."""
    assert features.cls is not None
    tokens = torch.cat([features.cls[0][None], features.patch[0].flatten(1).T]).numpy()
    std = golden[f"{key}/std"]
    worst = [
        np.abs(tokens[golden[f"{key}/tokens"], :16] - golden[f"{key}/values"]) / std[:16],
        np.abs(tokens[:, :64].mean(0) - golden[f"{key}/mean"]) / std,
        np.abs(tokens[:, :64].std(0, ddof=1) - std) / std,
    ]
    return max(float(part.max()) for part in worst)


def test_features_do_not_drift_from_the_original_program(loaded: tuple[str, Encoder]) -> None:
    size, encoder = loaded
    golden = golden_values(size)
    views = ("raw", "norm", *(f"proj:{teacher}" for teacher in encoder.teachers))
    assert len(views) == 5
    for index, (height, width) in enumerate(SIZES[size]):
        features = encoder.encode(golden_image(1000 + index, (height, width)), views)
        for view in views:
            worst = deviation(features[view], golden, f"{height}x{width}/{file_view(view)}")
            print(f"parity {CARDS[size]} {height}x{width} {view}: {worst:.2e} std")
            assert worst <= TOLERANCE_STD
    assert {f"{h}x{w}" for h, w in SIZES[size]} == {key.split("/")[0] for key in golden}


def test_a_parameter_is_not_forgotten(loaded: tuple[str, Encoder]) -> None:
    size, encoder = loaded
    assert encoder.module is not None
    counts = {
        name: sum(p.numel() for p in part.parameters()) for name, part in encoder.module.named_children()
    }
    expected = {"base": (86_318_592, 7_876_864), "small": (21_925_632, 2_169_472)}[size]
    assert (counts["encoder"], counts["projectors"]) == (expected[0], 3 * expected[1])


def test_golden_values_tell_position_rules_apart(tmp_path: Path) -> None:
    """What the parity above rests on: with the register models' rule it would fail."""
    path = save_released(tmp_path / "small.pth", rule_state("small"))
    card = dune_card("small")
    other = card.model_copy(update={"arch": card.arch | {"position": "dinov2reg"}})
    features = load_encoder(other, weights=str(path)).encode(golden_image(1000, (224, 224)), ["raw"])["raw"]
    assert deviation(features, golden_values("small"), "224x224/raw") > 100 * TOLERANCE_STD
