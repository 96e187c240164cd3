"""Photographs become samples without truth, whatever kind of file they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dune_bench.data.samples import DepthSample, HumanSample, PairSample, RelocScene, SegSample, images_of
from dune_bench.errors import UsageError
from dune_bench.run.panel_photo import LONGEST_SIDE, NEEDS, open_photographs


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize("kind", list(NEEDS))
def test_every_kind_of_sample_without_truth(kind: type, photo: Path) -> None:
    photographs = open_photographs([photo, photo, photo], 60)
    samples = photographs.samples(kind)
    counts = {PairSample: 2, RelocScene: 1}
    assert len(samples) == counts.get(kind, 3)
    for i, sample in enumerate(samples):
        assert isinstance(sample, kind)
        assert images_of(sample) == samples.images(i)  # type: ignore[arg-type]
    first = samples[0]
    if isinstance(first, SegSample):
        assert (first.labels == 255).all()
    if isinstance(first, DepthSample):
        assert np.isnan(first.depth).all()
    if isinstance(first, HumanSample):
        assert first.people == ()
    if isinstance(first, PairSample):
        assert np.isnan(first.view1.T_cam_world).all()


def test_one_file_twice_has_two_names_and_one_content(photo: Path) -> None:
    one, other = open_photographs([photo, photo], 60).images
    assert (one.id, other.id) == ("photo.jpg", "photo.jpg (2)")
    assert one.digest == other.digest


def test_field_of_view_is_the_horizontal_one(photo: Path) -> None:
    photographs = open_photographs([photo], 90)
    K = photographs.K((40, 60))
    np.testing.assert_allclose(K, [[30, 0, 30], [0, 30, 20], [0, 0, 1]])


def test_phones_orientation_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    Image.new("RGB", (60, 40)).save(path, exif=exif)
    (image,) = open_photographs([path], 60).images
    assert image.size == image.read().shape[:2] == (60, 40)


def test_large_photograph_is_shrunk_in_shape(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("L", (2 * LONGEST_SIDE, 300)).save(path)
    (image,) = open_photographs([path], 60).images
    assert image.size == (150, LONGEST_SIDE)
    assert image.read().shape == (150, LONGEST_SIDE, 3)


def test_reading_cannot_change_the_photograph(photo: Path) -> None:
    (image,) = open_photographs([photo], 60).images
    first = image.read()
    first[:] = 0
    assert image.read().any()


@pytest.mark.parametrize("kind", [PairSample, RelocScene])
def test_pairs_of_one_photograph_are_refused(kind: type, photo: Path) -> None:
    with pytest.raises(UsageError, match="needs 2 images: give --image twice"):
        open_photographs([photo], 60).samples(kind)


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe0 cut off"])
def test_bad_file_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"^--image .*bad\.jpg") as caught:
        open_photographs([path], 60)
    assert "\n" not in str(caught.value)


def test_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--image .*gone\.jpg: cannot be read"):
        open_photographs([tmp_path / "gone.jpg"], 60)


@pytest.mark.parametrize("fov", [0.0, -60.0, 180.0, float("nan")])
def test_impossible_field_of_view_is_refused(photo: Path, fov: float) -> None:
    with pytest.raises(UsageError, match="--fov"):
        open_photographs([photo], fov)
