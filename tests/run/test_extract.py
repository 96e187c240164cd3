from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dune_bench.data.samples import DepthSample, ImageRef
from dune_bench.encoders.base import Encoder
from dune_bench.errors import TaskError
from dune_bench.registry.cards import InputPolicy
from dune_bench.run.cache import FeatureCache
from dune_bench.run.extract import Extracted, Extractor, ImageSet
from dune_bench.run.features import CHUNK_IMAGES
from dune_bench.run.forward import Forwarder, is_out_of_memory, measure
from dune_bench.run.inputs import AHEAD, prefetched, read_image, resize_image, to_batch
from tests.run.fakes import SIDE, Blocks, ToyEncoder
from tests.run.recorder import Recorder

POLICY = InputPolicy(resolution=16)


def refs(split: str = "test", count: int = 48) -> tuple[ImageRef, ...]:
    samples = Blocks("blocks@1").samples(DepthSample, split)
    return tuple(samples.images(i)[0] for i in range(count))


def extract(
    root: Path,
    images: Sequence[ImageRef],
    encoder: Encoder | None = None,
    views: tuple[str, ...] = ("norm",),
    batch: int = 8,
    policy: InputPolicy = POLICY,
    **options: Any,
) -> Extracted:
    ui = options.pop("ui", Recorder())
    extractor = Extractor(encoder or ToyEncoder(), FeatureCache(root, ui.warning), ui, batch, **options)
    return extractor.run(ImageSet("test", tuple(images), views, policy))


def values(found: Extracted, images: Sequence[ImageRef], view: str = "norm") -> np.ndarray:
    source = found.features[view]
    return np.stack([source.one(image.id).patch[0].numpy() for image in images])


def test_cached_features_are_those_of_a_direct_forward(tmp_path: Path) -> None:
    images = refs()
    direct = ToyEncoder().encode(to_batch([read_image(image, POLICY) for image in images]))["norm"]
    found = extract(tmp_path, images)
    np.testing.assert_array_equal(values(found, images), direct.patch.numpy())
    assert direct.cls is not None
    cls = found.features["norm"].one(images[5].id).cls
    assert cls is not None
    torch.testing.assert_close(cls[0], direct.cls[5], rtol=0, atol=0)


@pytest.mark.parametrize("batch", [1, 4, 16, 100])
def test_batch_size_changes_no_chunk(tmp_path: Path, batch: int) -> None:
    extract(tmp_path / "a", refs(), batch=8)
    extract(tmp_path / "b", refs(), batch=batch)
    a, b = ([p.relative_to(root) for p in sorted(root.rglob("*.features"))] for root in _roots(tmp_path))
    assert a == b
    assert len(a) == 2
    for name in a:
        np.testing.assert_array_equal(
            np.frombuffer((tmp_path / "a" / name).read_bytes()[48:], np.uint8),
            np.frombuffer((tmp_path / "b" / name).read_bytes()[48:], np.uint8),
        )


def _roots(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "a", tmp_path / "b"


def test_batches_never_cross_a_chunk(tmp_path: Path) -> None:
    encoder = ToyEncoder()
    extract(tmp_path, refs(), encoder, batch=20)
    assert encoder.forwards == [1, 20, 12, 16]


def test_interrupted_extraction_goes_on_at_the_next_chunk_bit_for_bit(tmp_path: Path) -> None:
    whole, broken = tmp_path / "a", tmp_path / "b"
    extract(whole, refs())
    Blocks.corrupt = refs()[CHUNK_IMAGES + 3].id
    with pytest.raises(TaskError, match="damaged image"):
        extract(broken, refs())
    Blocks.corrupt = None
    Blocks.decoded.clear()
    extract(broken, refs())
    assert len(Blocks.decoded) == 48 - CHUNK_IMAGES
    files = {path.name: path.read_bytes() for path in whole.rglob("*.features")}
    assert files == {path.name: path.read_bytes() for path in broken.rglob("*.features")}
    assert not list(broken.rglob(".writing-*"))


def test_new_view_does_not_forward_the_images_of_old_views_twice(tmp_path: Path) -> None:
    extract(tmp_path, refs(), views=("norm",))
    encoder = ToyEncoder()
    found = extract(tmp_path, refs(), encoder, views=("norm",))
    assert (found.forwarded, found.latency_ms, encoder.forwards) == (0, None, [1])
    assert extract(tmp_path, refs(), views=("norm", "raw")).forwarded == 48


def test_same_picture_under_two_ids_is_forwarded_once(tmp_path: Path) -> None:
    image = refs(count=1)[0]
    twin = ImageRef("twin", image.digest, image.size, image.read)
    found = extract(tmp_path, (image, twin))
    assert found.forwarded == 1
    np.testing.assert_array_equal(*values(found, (image, twin)))


def test_batches_cover_the_ids_in_order_within_the_byte_budget(tmp_path: Path) -> None:
    images = refs()
    source = extract(tmp_path, images).features["norm"]
    ids = [image.id for image in images][::-1]
    one = source.one(ids[0]).patch.numel() * 4 + 4 * 6
    covered = []
    for part, features in source.batches(ids, 5 * one):
        assert len(features.patch) <= 5
        assert features.patch.permute(0, 2, 3, 1).is_contiguous()
        covered += ids[part]
        np.testing.assert_array_equal(features.patch[0], source.one(ids[part.start]).patch[0])
    assert covered == ids
    assert [len(f.patch) for _, f in source.batches(ids[:3], 0)] == [1, 1, 1]


def test_whole_chunk_is_handed_out_without_a_copy(tmp_path: Path) -> None:
    images = refs()
    source = extract(tmp_path, images).features["norm"]
    first = next(iter(source.batches([image.id for image in images], 2**30)))[1].patch
    again = next(iter(source.batches([image.id for image in images], 2**30)))[1].patch
    assert first.data_ptr() == again.data_ptr()


def test_unknown_image_is_named(tmp_path: Path) -> None:
    source = extract(tmp_path, refs()).features["norm"]
    with pytest.raises(TaskError, match="no features of image 'other'"):
        source.one("other")


def test_identity_that_hides_a_change_is_found_out(tmp_path: Path) -> None:
    """Cached features of 6 channels must not pass for an encoder that gives 12."""

    class Wider(ToyEncoder):
        def _forward(self, normalised: Tensor, views: Sequence[str]) -> Any:
            found = super()._forward(normalised, views)
            return {view: (torch.cat([p, p], 1), None) for view, (p, _) in found.items()}

    extract(tmp_path, refs())
    with pytest.raises(TaskError, match="another shape than those it gives now"):
        extract(tmp_path, refs(), Wider())
    assert extract(tmp_path, refs(), Wider(), fresh=True).features["norm"].dim == 12


def test_sizes_that_differ_without_a_resolution_are_refused(tmp_path: Path) -> None:
    image = refs(count=1)[0]
    other = ImageRef("other", "d", (SIDE, SIDE + 8), image.read)
    with pytest.raises(TaskError, match="2 sizes"):
        extract(tmp_path, (image, other), policy=InputPolicy(resize="none"))


def test_image_that_is_not_as_its_index_says_is_refused() -> None:
    image = refs(count=1)[0]
    with pytest.raises(
        TaskError, match=r"decoded to uint8 \(32, 32, 3\), its index says uint8 \(32, 40, 3\)"
    ):
        read_image(ImageRef("x", "d", (SIDE, SIDE + 8), image.read), POLICY)


def test_size_that_is_no_multiple_of_the_patch_is_padded_and_says_so(tmp_path: Path) -> None:
    source = extract(tmp_path, refs(count=2), policy=InputPolicy(resolution=21)).features["norm"]
    assert (source.grid, source.image_size, source.padding) == ((3, 3), (21, 21), (1, 1, 2, 2))


def test_out_of_memory_halves_the_batch_and_goes_on(tmp_path: Path) -> None:
    ui = Recorder()
    images = refs()
    found = extract(tmp_path / "a", images, ToyEncoder(broken="oom"), batch=16, ui=ui)
    whole = extract(tmp_path / "b", images)
    np.testing.assert_array_equal(values(found, images), values(whole, images))
    assert found.batch_size == 2
    assert [w.rpartition(" ")[2] for w in ui.warnings] == ["8", "4", "2"]


def test_out_of_memory_with_one_image_is_one_clear_line() -> None:
    class Hungry(ToyEncoder):
        def _forward(self, normalised: Tensor, views: Sequence[str]) -> Any:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 TB")

    with pytest.raises(TaskError, match="out of memory with a single image on cpu: use --resolution"):
        Forwarder(Hungry(), 4, Recorder().warning)(torch.rand(4, 3, 16, 16), ["norm"])


def test_other_runtime_errors_are_not_taken_for_lack_of_memory() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("size mismatch"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_cost_counts_a_multiply_add_as_two_and_attention_too() -> None:
    class Attention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Conv2d(3, 8, 8, 8, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            q = self.embed(x).flatten(2).transpose(1, 2)[:, None]
            return torch.nn.functional.scaled_dot_product_attention(q, q, q)[:, 0]

    encoder = Encoder.from_module(Attention(), 8)
    cost, layout = measure(encoder, (16, 16), "norm")
    tokens, dim = 4, 8
    assert cost.flops == 2 * tokens * dim * 3 * 64 + 2 * 2 * tokens * tokens * dim
    assert cost.parameters == 8 * 3 * 64
    assert (layout.dim, layout.grid, layout.has_cls) == (8, (2, 2), False)


def test_prefetch_keeps_the_order_and_bounds_what_waits() -> None:
    images = refs()
    stream = prefetched(images, POLICY)
    first = next(stream)
    assert len(Blocks.decoded) <= AHEAD + 2
    np.testing.assert_array_equal(first, read_image(images[0], POLICY))
    for image, pixels in zip(images[1:], stream, strict=True):
        np.testing.assert_array_equal(pixels, read_image(image, POLICY))


def test_resize_is_antialiased_and_leaves_the_right_size_alone() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert abs(int(resize_image(stripes, (16, 16))[8, 8, 0]) - 128) <= 2
    assert resize_image(stripes, (64, 64)) is stripes
    assert resize_image(stripes, (10, 20)).shape == (10, 20, 3)


def test_pixels_reach_the_encoder_in_zero_to_one() -> None:
    batch = to_batch([np.full((2, 2, 3), 255, np.uint8), np.zeros((2, 2, 3), np.uint8)])
    assert batch.dtype == torch.float32
    assert (float(batch[0].min()), float(batch[1].max())) == (1.0, 0.0)
