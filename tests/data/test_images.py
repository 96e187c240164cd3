"""Images as people have them; each bad one is one clear line."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from dune_bench.data import images
from dune_bench.data.images import decode_image, read_size
from dune_bench.errors import TaskError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png(array: NDArray[Any], mode: str | None = None) -> bytes:
    return encoded(Image.fromarray(array) if mode is None else Image.fromarray(array).convert(mode))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bare_png(width: int, height: int, rows: bytes = b"") -> bytes:
    """A PNG that claims any size."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_rgb_comes_back_exactly_and_contiguous() -> None:
    pixels = decode_image(png(RGB), "a")
    np.testing.assert_array_equal(pixels, RGB)
    assert (pixels.dtype, pixels.flags.c_contiguous) == (np.uint8, True)


def test_alpha_is_composited_on_white_not_dropped() -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = (0, 128, 255)  # what is below full transparency must not show
    pixels = decode_image(png(rgba), "a")
    np.testing.assert_array_equal(pixels[0, :, 0], [255, 127, 0])


def test_transparent_palette_entry_is_white() -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    pixels = decode_image(encoded(image, transparency=0), "a")
    np.testing.assert_array_equal(pixels, [[[255, 255, 255], [200, 100, 50]]])


def test_grey_with_alpha_is_composited_too() -> None:
    grey = np.array([[[0, 0], [40, 255]]], np.uint8)
    pixels = decode_image(encoded(Image.fromarray(grey, "LA")), "a")
    np.testing.assert_array_equal(pixels, [[[255] * 3, [40] * 3]])


def test_grey_is_replicated() -> None:
    grey = RGB[..., 0]
    np.testing.assert_array_equal(decode_image(png(grey), "a"), np.repeat(grey[..., None], 3, -1))


def test_sixteen_bits_are_scaled_not_clipped_at_255() -> None:
    values = np.array([[0, 128, 255, 257, 32768, 65279, 65535]], np.uint16)
    pixels = decode_image(png(values), "a")
    np.testing.assert_array_equal(pixels[0, :, 0], np.rint(values[0] / 257))


@given(st.integers(0, 65535))
def test_sixteen_bit_scale_is_rounding_for_every_value(value: int) -> None:
    pixels = decode_image(png(np.full((1, 1), value, np.uint16)), "a")
    assert int(pixels[0, 0, 0]) == round(value / 257)


def test_black_and_white_bitmap_spans_the_range() -> None:
    pixels = decode_image(encoded(Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")), "a")
    np.testing.assert_array_equal(pixels[0, :, 0], [0, 255])


def test_cmyk_jpeg_is_converted() -> None:
    image = Image.new("RGB", (16, 16), (200, 30, 40)).convert("CMYK")
    pixels = decode_image(encoded(image, "JPEG", quality=95), "a")
    assert np.abs(pixels.astype(int) - [200, 30, 40]).max() <= 12


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    pixels = decode_image(encoded(Image.fromarray(RGB), exif=exif), "a")
    np.testing.assert_array_equal(pixels, np.rot90(RGB, -1))


def test_floating_point_pixels_are_refused_not_guessed() -> None:
    with pytest.raises(TaskError, match=r"room/3\.tif: floating-point pixels"):
        decode_image(encoded(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), "room/3.tif")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "file is empty"),
        (b"not an image", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "not an image"),
        (bare_png(0, 0), "image"),
        (bare_png(4, 4), "damaged image"),
        (bare_png(50_000, 50_000), "pixels"),
        (bare_png(11_000, 10_000), "not decoded"),
    ],
)
def test_bad_file_is_one_clear_line(data: bytes, words: str) -> None:
    with pytest.raises(TaskError) as caught:
        decode_image(data, "shard.zip: room/3.jpg")
    text = str(caught.value)
    assert text.startswith("shard.zip: room/3.jpg: ")
    assert words in text
    assert "\n" not in text
    assert caught.value.exit_code == 1


def test_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: Image.Image) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(images, "MAX_PIXELS", 30)
    data = png(RGB)
    monkeypatch.setattr(Image.Image, "load", load)
    with pytest.raises(TaskError, match=r"7x5 pixels are more than 30"):
        decode_image(data, "a")


@settings(max_examples=150, deadline=None)
@given(data=st.data(), format=st.sampled_from(["PNG", "JPEG"]))
def test_damage_is_an_error_or_an_image_never_a_crash(data: st.DataObject, format: str) -> None:
    whole = encoded(Image.fromarray(np.repeat(np.repeat(RGB, 4, 0), 4, 1)), format)
    cut = data.draw(st.integers(0, len(whole)))
    damaged = bytearray(whole[:cut])
    for position in data.draw(st.lists(st.integers(0, max(cut - 1, 0)), max_size=3)):
        if damaged:
            damaged[position] ^= data.draw(st.integers(1, 255))
    try:
        outcome: Any = decode_image(bytes(damaged), "a")
    except TaskError as error:
        outcome = error
    good = isinstance(outcome, np.ndarray) and outcome.ndim == 3 and outcome.shape[2] == 3
    assert good or "\n" not in str(outcome)


def test_cut_off_jpeg_is_not_an_image_with_a_grey_rest() -> None:
    whole = encoded(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)), "JPEG")
    with pytest.raises(TaskError, match="damaged image"):
        decode_image(whole[: len(whole) // 2], "a")


def test_size_from_the_header_is_that_of_the_decoded_image() -> None:
    for kind in ("PNG", "JPEG", "WEBP", "TIFF"):
        for orientation in (1, 3, 6, 8):
            exif = Image.Exif()
            exif[0x0112] = orientation
            data = encoded(Image.fromarray(RGB), kind, exif=exif)
            assert read_size(data, "a") == decode_image(data, "a").shape[:2], (kind, orientation)


def test_size_is_read_without_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise AssertionError("decoded")

    data = {kind: encoded(Image.fromarray(RGB), kind) for kind in ("PNG", "JPEG")}
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    for encoding in data.values():
        assert read_size(encoding, "a") == (5, 7)


def test_size_of_what_is_no_image_is_one_line() -> None:
    for data, message in ((b"", "empty"), (b"GIF", "not an image"), (bare_png(10**5, 10**5), "not decoded")):
        with pytest.raises(TaskError, match=message):
            read_size(data, "a")
