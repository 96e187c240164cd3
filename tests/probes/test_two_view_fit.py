"""A tiny decoder on the exact room: it learns, is stored, is the same again, and says what stopped it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dune_bench.errors import TaskError, UsageError
from dune_bench.geometry.cameras import pixel_centres, scale_points
from dune_bench.models.two_view_decoder import DecoderConfig
from dune_bench.models.two_view_output import ViewOutput, cropped_size
from dune_bench.probes import two_view_fit
from dune_bench.probes.base import Head, ProbeContext
from dune_bench.probes.tokens import token_statistics
from dune_bench.probes.two_view_fit import fit_decoder, predict_pairs
from dune_bench.run.artifacts import HeadStore
from tests.probes.fake_features import FakeFeatures
from tests.probes.fake_room import SIZE, lazy_pairs
from tests.probes.two_view_training import GRID, MAP, STEPS, fitted, room, training, waves

CTX = ProbeContext()
SHORT = {"steps": 3}
PADDING = (8, 24, 8, 8)
"""Fills 96 × 128 up to 128 × 144, that is 8 × 9 tokens of 16: 8 does not divide the padding evenly."""


def said(head: Head, features: FakeFeatures | None = None) -> list[dict[str, np.ndarray[Any, Any]]]:
    """The maps of two pairs, as arrays."""
    asked = [("room-0", "room-1"), ("room-2", "room-0")]
    pairs = predict_pairs(features or waves(room()), asked, head, CTX)
    return [{**vars(maps.view1), **{f"{k}2": v for k, v in vars(maps.view2).items()}} for maps in pairs]


def equal(one: Head, other: Head) -> bool:
    assert one.tensors.keys() == other.tensors.keys()
    return all(torch.equal(value, other.tensors[name]) for name, value in one.tensors.items())


def test_every_term_of_the_loss_falls_and_the_maps_come_near_the_truth(tmp_path: Path) -> None:
    head = fitted(folder=tmp_path)
    lines = [json.loads(line)["terms"] for line in (tmp_path / "log.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == STEPS == head.choices["steps"]
    for term in ("points1", "points2", "matching"):
        values = [line[term] for line in lines]
        assert np.mean(values[-5:]) < np.mean(values[:5]), term
    assert head.choices["pairs"] == 6
    assert head.choices["loss"]["points1"] == pytest.approx(lines[-1]["points1"])
    trained, untrained = (said(one)[0]["points"] for one in (head, fitted(recipe={"steps": 1})))
    depth = room()[0].view1.depth
    true = depth[4::8, 4::8]  # at the cells' centres, to half a pixel
    assert trained.shape[:2] == true.shape == MAP
    errors = [np.abs(points[..., 2] - true).mean() for points in (trained, untrained)]
    assert errors[0] < 0.5 * errors[1]


def test_a_stored_head_says_the_same(tmp_path: Path) -> None:
    head = fitted(recipe=SHORT)
    store = HeadStore(tmp_path, pytest.fail)
    store.write("ab" * 8, head, {})
    found = store.find("ab" * 8)
    assert found is not None
    assert found.choices == head.choices
    assert equal(found, head)
    for before, after in zip(said(head), said(found), strict=True):
        assert all(np.array_equal(before[name], after[name]) for name in before)


def test_the_seed_alone_decides_the_head() -> None:
    torch.manual_seed(0)
    one = fitted(seed=3, recipe=SHORT)
    torch.manual_seed(1)
    assert equal(one, fitted(seed=3, recipe=SHORT))
    other = fitted(seed=4, recipe=SHORT)
    moving = [name for name, value in one.tensors.items() if not torch.equal(value, other.tensors[name])]
    assert {"decoder_embed.weight", "downstream_head1.points.weight"} & set(moving)


def test_a_batch_of_pairs_does_not_change_what_is_said_of_one() -> None:
    head, features = fitted(recipe=SHORT), waves(room())
    asked = [(f"room-{i}", f"room-{j}") for i in range(3) for j in range(3)]  # more than go at once
    together = list(predict_pairs(features, asked, head, CTX))
    assert len(together) == 9 > two_view_fit.PAIRS_AT_ONCE
    for pair, maps in zip(asked, together, strict=True):
        (alone,) = predict_pairs(features, [pair], head, CTX)
        assert np.allclose(maps.view2.points, alone.view2.points, atol=1e-4)


def test_tokens_of_another_encoder_are_one_line() -> None:
    head = fitted(recipe=SHORT)
    narrow = FakeFeatures({name: maps[:-3] for name, maps in waves(room()).maps.items()}, SIZE)
    with pytest.raises(TaskError, match=r"reads patch maps \(B, 32, h, w\).*another encoder") as stopped:
        said(head, narrow)
    assert "\n" not in str(stopped.value)


def test_a_damaged_head_is_one_line() -> None:
    head = fitted(recipe=SHORT)
    torn = Head(dict(list(head.tensors.items())[1:]), head.choices)
    with pytest.raises(TaskError, match=r"the stored decoder is damaged: .*Missing key") as stopped:
        said(torn)
    assert "\n" not in str(stopped.value)


def test_cropping_is_exact_where_the_padding_is_whole_cells() -> None:
    rng = torch.Generator().manual_seed(0)
    whole = ViewOutput(*(torch.randn(2, 8, 10, *last, generator=rng) for last in ((3,), (), (5,), ())))
    part = whole.cropped((2 / 10, 1 / 8, 3 / 10, 2 / 8))
    assert torch.allclose(part.points, whole.points[:, 1:6, 2:7], atol=1e-5)
    assert torch.allclose(part.confidence, whole.confidence[:, 1:6, 2:7], atol=1e-5)
    assert torch.allclose(part.descriptor_confidence, whole.descriptor_confidence[:, 1:6, 2:7], atol=1e-5)
    unit = nn.functional.normalize(whole.descriptors[:, 1:6, 2:7], dim=-1)
    assert torch.allclose(part.descriptors, unit, atol=1e-5)
    assert whole.cropped((0.0, 0.0, 0.0, 0.0)) is whole


class Places(nn.Module):
    """Points that are the places (x, y, 0) of the cells, in pixels of the image without its padding."""

    config = DecoderConfig(encoder_dim=1, cells=2)

    def forward(self, tokens1: Tensor, tokens2: Tensor) -> tuple[ViewOutput, ViewOutput]:
        rows, columns = tokens1.shape[-2:]
        size = (2 * rows, 2 * columns)
        places = torch.from_numpy(pixel_centres(size) * 8 - PADDING[:2]).float()
        points = nn.functional.pad(places, (0, 1)).expand(len(tokens1), -1, -1, -1)
        ones = torch.ones(len(tokens1), *size)
        output = ViewOutput(points, ones, torch.ones(*ones.shape, 4) / 2, ones)
        return output, output


def test_maps_of_padded_images_are_not_off_by_the_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells of the cropped map stand evenly over the image alone."""
    features = waves(room(), PADDING)
    assert features.grid == (8, 9)
    monkeypatch.setattr(two_view_fit, "stored_decoder", lambda head: Places())
    (maps,) = predict_pairs(features, [("room-0", "room-1")], Head({}), CTX)
    assert maps.view1.grid == MAP == cropped_size((16, 18), two_view_fit.padding_shares(features))
    expected = scale_points(pixel_centres(MAP), MAP, SIZE)
    for one in (maps.view1, maps.view2):
        assert np.allclose(one.points[..., :2], expected, atol=1e-3)


def test_padded_tokens_are_trained_on_the_truth_of_the_image(tmp_path: Path) -> None:
    features = waves(room(), PADDING)
    trained = said(fitted(features=features), features)[0]["points"]
    assert trained.shape[:2] == MAP
    error = np.abs(trained[..., 2] - room()[0].view1.depth[4::8, 4::8]).mean()
    untrained = said(fitted(features=features, recipe={"steps": 1}), features)[0]["points"]
    assert error < 0.5 * np.abs(untrained[..., 2] - room()[0].view1.depth[4::8, 4::8]).mean()


def test_tokens_that_are_not_square_are_refused() -> None:
    features = FakeFeatures(waves(room()).maps, (SIZE[0], SIZE[1] + 8))
    with pytest.raises(TaskError, match="tokens are not square"):
        fitted(features=features)


def test_a_constant_channel_is_not_blown_up_by_its_rounding() -> None:
    maps = {f"room-{i}": torch.randn(2, *GRID, generator=torch.Generator().manual_seed(i)) for i in range(3)}
    for values in maps.values():
        values[0] = 1000.1
        values[1] = 5.0 + 3.0 * values[1]
    mean, std = token_statistics(FakeFeatures(maps, SIZE), lazy_pairs(room()), CTX)
    every = torch.stack(list(maps.values())).permute(1, 0, 2, 3).flatten(1)
    assert torch.allclose(mean, every.mean(1))
    assert std[0] == 1.0
    assert torch.allclose(std[1], every[1].std(correction=0), rtol=1e-4)


def broken_features() -> FakeFeatures:
    features = waves(room())
    features.maps["room-2"][3, 2, 2] = torch.nan
    return features


def test_features_that_are_not_finite_name_their_image() -> None:
    with pytest.raises(TaskError, match="image room-2: its features are not finite"):
        fitted(features=broken_features())


def test_a_loss_that_is_not_finite_names_the_terms_and_the_pairs(tmp_path: Path) -> None:
    """Without statistics of the tokens only the pairs of the broken view are to blame."""
    with pytest.raises(TaskError, match="points1 and points2 and matching not finite") as stopped:
        fitted(folder=tmp_path, features=broken_features(), decoder={"standardised": False})
    text = str(stopped.value)
    blamed = text.partition("samples ")[2].partition(";")[0].split(", ")
    assert "room-2" in text
    assert len(blamed) == 4, "a batch"
    assert all(pair.count("room-") == 2 for pair in blamed)
    assert "\n" not in text
    assert list(tmp_path.glob("failed-step-*"))


def test_a_rate_that_blows_up_says_so() -> None:
    with pytest.raises(TaskError, match=r"training stopped at step \d+: .*not finite; samples room-"):
        fitted(recipe={"lr": 1e30, "clip_norm": None})


def test_more_correspondences_than_cells_are_one_line() -> None:
    with pytest.raises(UsageError, match="400 correspondences from a map of 192 cells: ask for fewer"):
        fitted(pairs={"correspondences": 400})


def test_an_interrupted_training_goes_on_to_the_same_head(tmp_path: Path) -> None:
    """Before its first checkpoint, between two, and after the last one that was due."""
    calm = fitted(folder=tmp_path / "calm", recipe={"steps": 20})
    for step in (1, 11, 19):
        folder = tmp_path / str(step)
        with pytest.raises(KeyboardInterrupt):
            interrupted(folder, step)
        assert equal(fitted(folder=folder, recipe={"steps": 20}), calm)
        assert log(folder) == log(tmp_path / "calm")


class _Interrupting:
    def __init__(self, step: int) -> None:
        self._step = step

    def update(self, done: float, total: float, note: str = "") -> None:
        if done >= self._step:
            raise KeyboardInterrupt


def interrupted(folder: Path, step: int) -> None:
    samples, ctx = room(), ProbeContext(training=folder, progress=_Interrupting(step))
    fit_decoder(waves(samples), lazy_pairs(samples), training(recipe={"steps": 20}), ctx)


def log(folder: Path) -> list[dict[str, Any]]:
    """Lines without what the clock says."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]
