"""MASt3R and DUNE-MASt3R equal the original programs, from content in the layout of the released files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dune_bench.encoders.adapter import Adapter
from dune_bench.encoders.base import Encoder
from dune_bench.encoders.dune import DuneEncoder
from dune_bench.encoders.mast3r import Mast3rEncoder
from dune_bench.models.two_view_decoder import TwoViewDecoder
from dune_bench.models.two_view_files import ENCODER_NAMES, read_decoder
from dune_bench.models.two_view_output import ViewOutput
from dune_bench.registry.cards import EncoderCard, load_card
from dune_bench.registry.lookup import cards_root
from tests.encoders.released import GOLDEN, golden_image, rule_state
from tests.models.released_two_view import by_rule, released

ENCODER_TOLERANCE = 1e-4
TOLERANCE_STD = 5e-4
Network = tuple[Encoder, TwoViewDecoder]


def card(name: str) -> EncoderCard:
    return load_card(cards_root() / "encoders" / f"{name}.yaml", EncoderCard)


def from_state(adapter: type[Adapter], name: str, state: dict[str, Tensor]) -> Encoder:
    return adapter.from_card(card(name), state)


def mast3r() -> Network:
    content: dict[str, Any] = released("mast3r", by_rule)
    state = {
        name: content["model"].pop(name) for name in list(content["model"]) if name.startswith(ENCODER_NAMES)
    }
    decoder = read_decoder(content, "mast3r.pth", encoder_dim=1024, patch=16).decoder
    return from_state(Mast3rEncoder, "mast3r_vitl16", state), decoder


def dune_mast3r() -> Network:
    state = {name: tensor for name, tensor in rule_state("small").items() if name.startswith("encoder.")}
    decoder = read_decoder(released("dunemast3r", by_rule), "d.pth", encoder_dim=384, patch=14).decoder
    return from_state(DuneEncoder, "dune_vits", state), decoder


def outputs(first: ViewOutput, second: ViewOutput) -> dict[str, Tensor]:
    """Maps (H, W, …) of the one pair under the golden file's names."""
    names = {"confidence": "conf", "descriptors": "desc", "descriptor_confidence": "desc_conf"}
    views = {"view1": (first, "pts3d"), "view2": (second, "pts3d_in_other_view")}
    return {
        f"{view}/{name}": getattr(output, field)[0]
        for view, (output, points) in views.items()
        for field, name in ({"points": points} | names).items()
    }


def deviation(values: Tensor, golden: dict[str, np.ndarray], key: str) -> float:
    """Largest difference from the golden values, mean and std, in the stored std of each channel."""
    array = values.reshape(*values.shape[:2], -1).double().numpy()
    height, width, channels = array.shape
    rows, columns = [0, height // 3, height // 2, height - 1], [0, width // 4, width // 2, width - 1]
    std = golden[f"{key}/std"]
    worst = [
        np.abs(array[np.ix_(rows, columns)] - golden[f"{key}/values"].reshape(4, 4, channels)) / std,
        np.abs(array.mean((0, 1)) - golden[f"{key}/mean"]) / std,
        np.abs(array.reshape(-1, channels).std(0, ddof=1) - std) / std,
    ]
    return max(float(part.max()) for part in worst)


@pytest.mark.parametrize(
    ("file", "build", "view", "sizes", "seed"),
    [
        pytest.param(
            "dunemast3r_vitsmall", dune_mast3r, "raw", [(140, 196), (154, 210)], 3000, id="dunemast3r"
        ),
        pytest.param(
            "mast3r_vitlarge",
            mast3r,
            "norm",
            [(160, 224), (224, 160), (176, 240)],
            2000,
            id="mast3r",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_network_does_not_drift_from_the_original_program(
    file: str, build: Callable[[], Network], view: str, sizes: list[tuple[int, int]], seed: int
) -> None:
    with np.load(GOLDEN / f"{file}.npz") as archive:
        golden = dict(archive)
    assert {f"{h}x{w}" for h, w in sizes} == {key.split("/")[0] for key in golden}
    encoder, decoder = build()
    for i, size in enumerate(sizes):
        key = f"{size[0]}x{size[1]}"
        images = torch.cat([golden_image(seed + 2 * i + k, size) for k in (0, 1)])
        patch = encoder.encode(images, [view])[view].patch
        tokens = patch[0].flatten(1).T[:, :64].numpy()
        expected = golden[f"{key}/encoder/values"]
        off = np.abs(tokens[golden[f"{key}/encoder/tokens"], :16] - expected).max()
        if (mean := golden.get(f"{key}/encoder/mean")) is not None:
            off = max(off, np.abs(tokens.mean(0) - mean).max())
        assert off <= ENCODER_TOLERANCE
        with torch.inference_mode():
            maps = outputs(*decoder(patch[:1], patch[1:]))
        compared = {name.rpartition("/")[0] for name in golden if name.startswith(f"{key}/view")}
        assert compared == {f"{key}/{name}" for name in maps}
        worst = {name: deviation(values, golden, f"{key}/{name}") for name, values in maps.items()}
        print(f"parity {file} {key}: encoder {off:.1e}, outputs {max(worst.values()):.1e} std")
        assert max(worst.values()) <= TOLERANCE_STD, worst
