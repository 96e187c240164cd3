"""Damaged shards: whatever byte is wrong, the answer is a known error or the true content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dune_bench.data.minirooms.dataset import MiniRooms
from dune_bench.data.samples import DepthSample, HumanSample, SegSample
from dune_bench.errors import BenchError
from tests.data.minirooms_fixture import write_tiny_minirooms

NAME = "minirooms@1"
Content = tuple[bytes, bytes, bytes, str]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("small")
    write_tiny_minirooms(root, 1, 1, 1, size=32)
    return root


def content(root: Path) -> Content:
    """Everything a test sample gives."""
    data = MiniRooms(NAME, root)
    seg = data.samples(SegSample, "test")[0]
    depth = data.samples(DepthSample, "test")[0]
    human = data.samples(HumanSample, "test")[0]
    assert isinstance(seg, SegSample)
    assert isinstance(depth, DepthSample)
    assert isinstance(human, HumanSample)
    people = repr([(p.id, p.keypoints_2d.tolist(), p.visible.tolist()) for p in human.people])
    return seg.image.read().tobytes(), seg.labels.tobytes(), depth.depth.tobytes(), people


def content_or_error(root: Path) -> Content | str:
    """What is read, or the known error's text.  Any other exception is a bug and passes through."""
    try:
        return content(root)
    except BenchError as error:
        return str(error)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_flipped_byte_never_gives_other_content(small: Path, where: float, flip: int) -> None:
    shard = small / "test.zip"
    whole = shard.read_bytes()
    true = content(small)
    damaged = bytearray(whole)
    damaged[int(where * len(whole))] ^= flip
    try:
        shard.write_bytes(damaged)
        found = content_or_error(small)
    finally:
        shard.write_bytes(whole)
    assert found == true or (isinstance(found, str) and str(shard) in found and "\n" not in found)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keep=st.floats(0, 1, exclude_max=True))
def test_truncated_shard_is_refused_at_once(small: Path, keep: float) -> None:
    shard = small / "test.zip"
    whole = shard.read_bytes()
    try:
        shard.write_bytes(whole[: int(keep * len(whole))])
        with pytest.raises(BenchError, match="get the shard again"):
            content(small)
        assert MiniRooms(NAME, small).verify()
    finally:
        shard.write_bytes(whole)


def test_contents_are_the_same_at_every_reading(small: Path) -> None:
    assert content(small) == content(small)
    assert np.frombuffer(content(small)[2], np.float32).min() > 0
