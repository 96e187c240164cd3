"""The head of Multi-HMR's Anny release against a restatement in loops, and who sees whom."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dune_bench.errors import TaskError
from dune_bench.models.anny_head import AnnyHead, camera_of, sine_table, sixes
from dune_bench.models.anny_head_files import read_anny_head
from dune_bench.models.rotations import rotation_from_6d
from tests.models.anny_head_loops import Loops, gram_schmidt
from tests.models.released_anny import HEADS, E, options, released_state

FIELDS = ("offset", "loc", "rotmat", "phenotypes", "dist_raw", "dist", "translation")
CELLS = [(0, 1, 2), (0, 3, 0), (2, 0, 0), (2, 0, 1), (2, 3, 3)]


@pytest.fixture(scope="module")
def head() -> AnnyHead:
    """In float64: what differs from the loops is not rounding."""
    return read_anny_head(released_state(), options(), "a file").head.double()


def tokens(batch: int = 3, seed: int = 4) -> Tensor:
    return torch.randn(batch, E, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cameras(batch: int = 3) -> Tensor:
    K = torch.tensor([[60.0, 0, 28], [0, 55.0, 26], [0, 0, 1]], dtype=torch.float64).repeat(batch, 1, 1)
    K[:, 0, 0] += torch.arange(batch)
    return K


def test_people_do_not_drift_from_the_formulas(head: AnnyHead) -> None:
    loops = Loops(released_state(), HEADS)
    expected = loops.people(tokens().numpy(), cameras().numpy(), CELLS)
    output = head.regress(tokens(), cameras(), torch.tensor(CELLS))
    for name in FIELDS:
        stacked = np.stack([one[name] for one in expected])
        np.testing.assert_allclose(getattr(output, name).numpy(), stacked, rtol=1e-8, atol=1e-9, err_msg=name)
    assert torch.equal(output.phenotype, output.phenotypes[:, :6])
    # What the comparison rests on: people differ.
    assert output.phenotypes.std(0).min() > 1e-3
    assert output.dist.std() > 0.1


def test_detection_and_field_of_view_do_not_drift_from_the_formulas(head: AnnyHead) -> None:
    loops, images = Loops(released_state(), HEADS), tokens()
    expected = np.stack([loops.scores(one) for one in images.numpy()])
    logits = head.detect(images)
    cells, scores = head.find(logits, 0.3)
    assert cells.tolist() == np.argwhere(expected >= 0.3).tolist()
    np.testing.assert_allclose(scores.numpy(), expected[expected >= 0.3], rtol=1e-12)
    assert 3 <= len(cells) < 16
    summary = torch.randn(2, E, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    fov = head.field_of_view(summary)
    np.testing.assert_allclose(fov.numpy(), [loops.field_of_view(one) for one in summary.numpy()], rtol=1e-12)
    K = camera_of(fov, 56)
    assert K[0, 0, 0].item() == pytest.approx(28 / math.tan(fov[0].item() / 2))
    assert K[1].tolist() == [[K[1, 0, 0].item(), 0, 28], [0, K[1, 0, 0].item(), 28], [0, 0, 1]]


def test_threshold_is_reached_not_exceeded_and_equal_neighbours_both_stay(head: AnnyHead) -> None:
    logits = torch.full((1, 4, 4), -9.0, dtype=torch.float64)
    logits[0, 0, 0] = logits[0, 0, 1] = 1.0
    logits[0, 3, 3] = 0.0
    assert head.find(logits, 0.5)[0].tolist() == [[0, 0, 0], [0, 0, 1], [0, 3, 3]]
    assert head.find(logits, 0.5 + 1e-9)[0].tolist() == [[0, 0, 0], [0, 0, 1]]


def test_smaller_neighbour_is_not_a_second_person(head: AnnyHead) -> None:
    logits = torch.full((1, 4, 4), 5.0, dtype=torch.float64)
    logits[0, 2, 1] = 6.0
    found = head.find(logits, 0.3)[0].tolist()
    assert [0, 2, 1] in found
    assert all(max(abs(r - 2), abs(q - 1)) > 1 for _, r, q in found if (r, q) != (2, 1))


def test_people_of_other_images_are_not_seen(head: AnnyHead) -> None:
    cells = torch.tensor(CELLS)
    whole = head.regress(tokens(), cameras(), cells)
    for image in (0, 2):
        own = (cells[:, 0] == image).nonzero()[:, 0]
        alone = cells[own].clone()
        alone[:, 0] = 0
        output = head.regress(tokens()[image : image + 1], cameras()[image : image + 1], alone)
        for name in FIELDS:
            torch.testing.assert_close(
                getattr(output, name), getattr(whole, name)[own], rtol=1e-9, atol=1e-12
            )


def test_people_of_one_image_see_each_other(head: AnnyHead) -> None:
    both = head.regress(tokens(1), cameras(1), torch.tensor([[0, 1, 2], [0, 3, 0]]))
    alone = head.regress(tokens(1), cameras(1), torch.tensor([[0, 1, 2]]))
    assert (both.phenotypes[0] - alone.phenotypes[0]).abs().max() > 1e-4


def test_order_of_people_decides_nothing(head: AnnyHead) -> None:
    order = [3, 0, 4, 2, 1]
    one = head.regress(tokens(), cameras(), torch.tensor(CELLS))
    two = head.regress(tokens(), cameras(), torch.tensor(CELLS)[order])
    for name in FIELDS:
        torch.testing.assert_close(getattr(two, name), getattr(one, name)[order], rtol=1e-9, atol=1e-12)


def test_camera_places_people_and_changes_nothing_else(head: AnnyHead) -> None:
    K = cameras()
    twice = K.clone()
    twice[:, 0, 0] *= 2
    twice[:, 1, 1] *= 2
    one, two = (head.regress(tokens(), k, torch.tensor(CELLS)) for k in (K, twice))
    torch.testing.assert_close(two.dist, 2 * one.dist)
    for name in ("offset", "loc", "rotmat", "phenotypes", "dist_raw"):
        assert torch.equal(getattr(one, name), getattr(two, name))


def test_nobody_is_no_error(head: AnnyHead) -> None:
    output = head.regress(tokens(), cameras(), torch.zeros(0, 3, dtype=torch.int64))
    assert len(output) == 0
    assert output.rotmat.shape == (0, 163, 3, 3)


def test_a_head_says_the_same_twice() -> None:
    answers = []
    for _ in range(2):
        head = read_anny_head(released_state(), options(), "a file").head
        answers.append(head.regress(tokens().float(), cameras().float(), torch.tensor(CELLS)))
    for name in FIELDS:
        assert torch.equal(getattr(answers[0], name), getattr(answers[1], name))


def test_tokens_of_another_encoder_size_or_camera_are_refused(head: AnnyHead) -> None:
    with pytest.raises(TaskError, match=r"not \(B, 12, 4, 4\)"):
        head.detect(torch.zeros(1, E, 5, 5))
    with pytest.raises(TaskError, match="K has shape"):
        head.regress(tokens(), cameras(2), torch.tensor(CELLS))
    with pytest.raises(TaskError, match="lies outside"):
        head.regress(tokens(), cameras(), torch.tensor([[0, 4, 0]]))


@given(st.lists(st.floats(-2, 2), min_size=6, max_size=6), st.integers(0, 4))
def test_rotation_is_not_read_column_after_column(numbers: list[float], before: int) -> None:
    """Even entries are the first column, odd ones the second."""
    a, b = np.array(numbers[::2]), np.array(numbers[1::2])
    if np.linalg.norm(np.cross(a, b)) < 0.1:
        return
    row = torch.tensor([*[0.5] * 6 * before, *numbers], dtype=torch.float64)
    ours = rotation_from_6d(sixes(row))[before].numpy()
    np.testing.assert_allclose(ours, gram_schmidt(a, b), atol=1e-9)


@given(st.integers(1, 6), st.integers(1, 16), st.data())
def test_table_names_the_column_before_the_row(side: int, quarter: int, data: st.DataObject) -> None:
    r, q = (data.draw(st.integers(0, side - 1)) for _ in range(2))
    k = data.draw(st.integers(0, quarter - 1))
    row = sine_table((side, side), 4 * quarter)[r * side + q]
    omega = 10000 ** (-k / quarter)
    expected = [math.sin(q * omega), math.cos(q * omega), math.sin(r * omega), math.cos(r * omega)]
    assert row[k::quarter].tolist() == pytest.approx(expected, abs=1e-6)
