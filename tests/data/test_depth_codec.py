"""The depth members: what the codec must not lose, and what it must refuse."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dune_bench.data.minirooms.depth_codec import decode_depth, encode_depth


def _plane(size: int, slope: float, near: float) -> np.ndarray:
    column = np.arange(size) / size
    return (1.0 / (1.0 / near - slope * column[None, :] + 0 * column[:, None])).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.35, 2.0), st.floats(4.0, 14.0))
def test_error_is_not_above_the_promise(seed: int, near: float, far: float) -> None:
    rng = np.random.default_rng(seed)
    depth = rng.uniform(near, far, (17, 23)).astype(np.float32)
    error = np.abs(decode_depth(encode_depth(depth)) - depth)
    assert error[depth < 5].max(initial=0) < 1e-3
    assert error[depth <= 10].max(initial=0) < 3e-3


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_missing_depth_does_not_become_a_distance(bad: float) -> None:
    depth = np.full((5, 6), 2.0, np.float32)
    depth[2, 3] = bad
    decoded = decode_depth(encode_depth(depth))
    assert decoded[2, 3] == 0
    assert np.abs(np.delete(decoded.ravel(), 2 * 6 + 3) - 2).max() < 1e-4


def test_all_missing_does_not_fail() -> None:
    assert not decode_depth(encode_depth(np.zeros((4, 4), np.float32))).any()


def test_planes_do_not_take_more_than_two_bits_a_pixel() -> None:
    data = encode_depth(_plane(224, 0.4, 1.5))
    assert len(data) < 224 * 224 / 4


def test_too_near_point_is_not_stored_coarsely() -> None:
    depth = np.full((4, 4), 8.0, np.float32)
    depth[0, 0] = 0.05
    with pytest.raises(ValueError, match="too near"):
        encode_depth(depth)


def test_damage_is_not_decoded() -> None:
    data = encode_depth(_plane(32, 0.2, 2.0))
    for broken, text in [
        (data[:10], "shorter"),
        (b"XXXX" + data[4:], "magic"),
        (data[:-9], "codes"),
        (data[:24] + b"\x00" + data[25:], "damaged"),
        (struct.pack("<4sHHdd", b"MRD1", 0, 9, 0.1, 1e-5) + data[24:], "size"),
        (struct.pack("<4sHHdd", b"MRD1", 32, 32, float("nan"), 1e-5) + data[24:], "scale"),
    ]:
        with pytest.raises(ValueError, match=text):
            decode_depth(broken)


def test_a_bomb_is_not_inflated() -> None:
    bomb = struct.pack("<4sHHdd", b"MRD1", 8, 8, 0.1, 1e-5) + zlib.compress(bytes(10_000_000), 9)
    with pytest.raises(ValueError, match="codes"):
        decode_depth(bomb)


def test_wrong_shape_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="expected"):
        encode_depth(np.zeros((2, 3, 4), np.float32))
