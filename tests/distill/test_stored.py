"""Stored teacher tokens: the same as from live teachers, the same bytes after a kill, and nothing else."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from dune_bench.distill.batch import DistillBatch, Tokens
from dune_bench.distill.data import DistillData
from dune_bench.distill.groups import open_groups
from dune_bench.distill.mixing import parse_mix, pick_order
from dune_bench.distill.store_writer import StoreOptions, Written, write_store
from dune_bench.distill.stored import StoredData, open_store
from dune_bench.distill.stored_format import (
    MANIFEST,
    SHARDS,
    TeacherEntry,
    decide,
    packed,
    read_manifest,
    storing_error,
    unpacked,
)
from dune_bench.distill.teachers import TeacherSpec
from dune_bench.distill.train import first_student, make_objective
from dune_bench.engine.data import MicroBatch, Pick, loader
from dune_bench.engine.processes import Processes
from dune_bench.engine.recipe import Recipe
from dune_bench.engine.step import StepContext
from dune_bench.errors import TaskError, UnavailableError, UsageError
from dune_bench.registry.cards import EncoderCard, WeightSource
from dune_bench.registry.lookup import Registry
from tests.distill.pictures import png, textured
from tests.distill.small import PATCH, SIZE, ToyTeacher, pictures, recipe

CPU = Processes(0, 1, torch.device("cpu"))
OPTIONS = StoreOptions(crops=2, shard_images=5, batch=4)


@dataclass(frozen=True)
class Known(ToyTeacher):
    """A toy teacher with a digest, that can be killed after some calls."""

    digest: str | None = "abcdef0123"
    calls: int | None = None

    @property
    def encoder(self) -> Any:
        return SimpleNamespace(weights_digest=self.digest)

    def identity(self) -> dict[str, Any]:
        return {"encoder": {"weights_digest": self.digest}, "cls": self.has_cls}

    def tokens(self, images: Tensor, student_patch: int) -> Tokens:
        if self.calls is not None:
            object.__setattr__(self, "calls", self.calls - 1)
            if self.calls < 0:
                raise KeyboardInterrupt
        return super().tokens(images, student_patch)


ONE, TWO = Known("one", 6, True, "a"), Known("two", 9, False, "b")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("pictures"))


def registry() -> Registry:
    found = Registry()
    source = WeightSource(file="one.safetensors", licence="CC-BY-4.0")
    found.add_encoder(EncoderCard(id="one", kind="pixels", weights=(source,)), "test")
    found.add_encoder(EncoderCard(id="two", kind="pixels"), "test")
    return found


def write(
    folder: Path,
    base: Path,
    options: StoreOptions = OPTIONS,
    teachers: Sequence[Known] = (ONE, TWO),
    **changes: Any,
) -> Written:
    return write_store(
        recipe(**changes), folder, options, base=base, device="cpu", teachers=teachers, registry=registry()
    )  # type: ignore[arg-type]


def images(base: Path) -> DistillData:
    made = recipe()
    return DistillData(open_groups(made.data.groups, base), SIZE, made.data.augmentation)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def opened(folder: Path, base: Path, **changes: Any) -> StoredData:
    made = recipe()
    options: dict[str, Any] = {
        "specs": made.teachers,
        "image_size": SIZE,
        "patch": PATCH,
        "augmentation": made.data.augmentation,
        "images": images(base),
    }
    return open_store(folder, **options | changes)


@pytest.mark.parametrize("kind", ["remade", "stored"])
@pytest.mark.parametrize("tokens", ["float16", "int8"])
def test_stored_tokens_are_those_of_the_crop_that_the_student_sees(
    base: Path, tmp_path: Path, kind: Any, tokens: Any
) -> None:
    write(tmp_path, base, replace(OPTIONS, images=kind, tokens=tokens))
    data = StoredData(tmp_path, images(base) if kind == "remade" else None)
    order = pick_order(parse_mix("teacher_balanced"), data.lengths, 3)
    batch = data.batch([order(position) for position in range(16)])
    assert batch.images.shape == (16, 3, SIZE, SIZE)
    assert batch.groups.tolist() == [0, 1] * 8
    for teacher in (ONE, TWO):
        live, stored = teacher.tokens(batch.images, PATCH), batch.stored[teacher.name]
        # int8: half a level of a token whose largest value is some four deviations.
        atol = float(live.patch.std()) * (0.03 if tokens == "int8" else 1e-3)
        torch.testing.assert_close(stored.patch, live.patch, rtol=1e-3, atol=atol)
        assert (stored.cls is None) == (not teacher.has_cls)
        if live.cls is not None:
            assert stored.cls is not None
            torch.testing.assert_close(stored.cls, live.cls)
    live_crops = images(base).batch([Pick(0, 7), Pick(0, 7)]).images
    assert live_crops.shape[1:] == batch.images.shape[1:]


def test_every_crop_of_an_image_is_seen_and_differs(base: Path, tmp_path: Path) -> None:
    write(tmp_path, base, replace(OPTIONS, crops=3))
    data = StoredData(tmp_path, images(base))
    picks = {data.crop(Pick(4, seed)): Pick(4, seed) for seed in range(40)}
    assert sorted(picks) == [0, 1, 2]
    a, b, c = data.batch([picks[n] for n in range(3)]).images
    assert not torch.equal(a, b)
    assert not torch.equal(b, c)
    assert data.describe([picks[2]]) == ["a/a: 4.png (crop 2)"]


def test_batches_do_not_depend_on_the_loader(base: Path, tmp_path: Path) -> None:
    write(tmp_path, base, replace(OPTIONS, images="stored"))
    data = StoredData(tmp_path)
    order = pick_order(parse_mix("proportional"), data.lengths, 3)
    found: list[list[DistillBatch]] = []
    for workers in (0, 2):
        engine = Recipe(steps=3, batch_size=4, lr=1e-3, workers=workers)
        batches = list(loader(data, order, engine, CPU, 0))
        found.append([b.content for b in batches if isinstance(b, MicroBatch)])
    for alone, other in zip(*found, strict=True):
        assert torch.equal(alone.images, other.images)
        assert torch.equal(alone.stored["two"].patch, other.stored["two"].patch)
    assert len(found[0]) == 3
    assert len(pickle.loads(pickle.dumps(data))) == 12  # loader processes may be spawned


def test_objective_takes_stored_teachers(base: Path, tmp_path: Path) -> None:
    write(tmp_path, base, replace(OPTIONS, tokens="float16"))
    data, made = opened(tmp_path, base), recipe()
    batch = data.batch([Pick(n, n) for n in range(8)])
    assert [t.home for t in data.teachers] == ["a", "b"]
    values = []
    for teachers in (data.teachers, (ONE, TWO)):
        one = batch if teachers == data.teachers else replace(batch, stored={})
        objective = make_objective(made, teachers, ("a", "b"), CPU)
        student = first_student(made, teachers)
        terms = objective(student, one, StepContext(0, 0.0, torch.Generator()))
        values.append([float(term.total.detach()) for term in terms.values()])
    assert values[0] == pytest.approx(values[1], rel=1e-3)
    with pytest.raises(TaskError, match="without its tokens"):
        data.teachers[0].tokens(batch.images, PATCH)


def test_killed_writer_resumes_to_the_same_bytes(base: Path, tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", base)
    assert whole.made == 3
    killed = tmp_path / "killed"
    # In the trial; in the first shard; in the second, twice; in the third.
    for calls in (0, 3, 3, 2, 3):
        with pytest.raises(KeyboardInterrupt):
            write(killed, base, teachers=(ONE, replace(TWO, calls=calls)))
        with pytest.raises(UnavailableError, match="run dune-bench cache-teachers"):
            StoredData(killed, images(base))
    (killed / SHARDS / ".two-000002.safetensors.x1y2").write_bytes(b"of a killed process")
    done = write(killed, base)
    assert done.made == 1
    assert files(killed) == files(tmp_path / "whole")
    assert write(killed, base).made == 0
    assert not list(killed.rglob("*.pkl"))


def test_missing_and_damaged_shards_are_named_and_made_again(base: Path, tmp_path: Path) -> None:
    write(tmp_path, base)
    before = files(tmp_path)
    shard = tmp_path / SHARDS / "one-000001.safetensors"
    shard.unlink()
    with pytest.raises(UnavailableError, match=r"one-000001.safetensors: this shard is missing"):
        StoredData(tmp_path, images(base))
    StoredData(tmp_path, images(base), ["two"])  # whose files are there
    assert write(tmp_path, base).made == 1
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(TaskError, match=r"one-000001.safetensors: damaged \(\d+ bytes of \d+\)"):
        StoredData(tmp_path, images(base))
    assert write(tmp_path, base).made == 1
    flipped = bytearray(before[f"{SHARDS}/two-000002.safetensors"])
    flipped[-1] ^= 1
    (tmp_path / SHARDS / "two-000002.safetensors").write_bytes(flipped)
    assert write(tmp_path, base).made == 0  # its size is right
    assert write(tmp_path, base, replace(OPTIONS, check=True)).made == 1
    assert files(tmp_path) == before


def test_flipped_bit_stops_at_its_row(base: Path, tmp_path: Path) -> None:
    write(tmp_path, base)
    path = tmp_path / SHARDS / "two-000000.safetensors"
    content = load_file(path)
    content["patch"][3, 1, 2] += 1
    save_file(content, path)
    data = StoredData(tmp_path, images(base))
    picks = [Pick(1, seed) for seed in range(8)]
    good = next(pick for pick in picks if data.crop(pick) == 0)
    bad = next(pick for pick in picks if data.crop(pick) == 1)
    data.batch([good])
    with pytest.raises(TaskError, match=r"two-000000.safetensors: row 3 is damaged"):
        data.batch([bad])


def test_header_of_another_file_is_damage(base: Path, tmp_path: Path) -> None:
    write(tmp_path, base)
    path = tmp_path / SHARDS / "one-000000.safetensors"
    path.write_bytes(b"\xff" * path.stat().st_size)
    data = StoredData(tmp_path, images(base))
    with pytest.raises(TaskError, match=r"one-000000.safetensors: damaged"):
        data.batch([Pick(0, 0)])


def test_other_images_in_the_folder_are_not_taken_for_those_stored(base: Path, tmp_path: Path) -> None:
    here = pictures(tmp_path / "here")
    write(tmp_path / "store", here)
    pixels = textured(700, 36, 40)  # as bright as all others on average
    pixels[:12] //= 4
    (here / "b" / "1.png").write_bytes(png(pixels))
    data = StoredData(tmp_path / "store", images(here))
    data.batch([Pick(5, 0)])
    with pytest.raises(TaskError, match="the image here is not the one whose tokens"):
        data.batch([Pick(6, 0)])
    (here / "b" / "6.png").unlink()
    with pytest.raises(UsageError, match="other images: a 5, b 7; here: a 5, b 6"):
        StoredData(tmp_path / "store", images(here))


def test_store_of_something_else_is_refused(base: Path, tmp_path: Path) -> None:
    write(tmp_path, base)
    other = replace(TWO, digest="9999999999")
    for problem, call in {
        "another teacher two \\(weights abcdef0, not 9999999": {"teachers": (ONE, other)},
        "crops 2, not 3": {"options": replace(OPTIONS, crops=3)},
        "int8 tokens of one, not float16": {"options": replace(OPTIONS, tokens="float16")},
        "seed 3, not 4": {"seed": 4},
        "image_size 28, not 42": {"student": {"arch": recipe().student.arch, "image_size": 42}},
    }.items():
        with pytest.raises(UsageError, match=problem):
            write(tmp_path, base, **call)
    with pytest.raises(UsageError, match="2×2 tokens; the student has 56 px and 14 px"):
        opened(tmp_path, base, image_size=56)
    with pytest.raises(UsageError, match="another augmentation"):
        opened(tmp_path, base, augmentation=recipe().data.augmentation.model_copy(update={"flip_p": 0.1}))
    with pytest.raises(UsageError, match="made with another teacher two: weights abcdef0, not 9999999"):
        opened(tmp_path, base, loaded=(other,))
    opened(tmp_path, base, loaded=(ONE, TWO))
    with pytest.raises(UsageError, match=r"holds nothing of teacher 'twoo'.*two"):
        StoredData(tmp_path, images(base), ["twoo"])
    with pytest.raises(UsageError, match="name them in the recipe"):
        StoredData(tmp_path)
    changed = recipe(teachers=[{"name": "one", "view": "raw", "cls": True}, {"name": "two"}])
    with pytest.raises(UsageError, match="stored with view None, not raw"):
        opened(tmp_path, base, specs=changed.teachers)


def test_damaged_manifest_is_one_line(base: Path, tmp_path: Path) -> None:
    write(tmp_path, base)
    path = tmp_path / MANIFEST
    text = path.read_text("utf-8")
    for changed in (
        text[:200],
        text.replace('"format": 1', '"format": 2'),
        text.replace('"b": 7', '"b": 17'),
    ):
        path.write_text(changed, "utf-8")
        with pytest.raises(TaskError, match="manifest") as caught:
            read_manifest(tmp_path)
        assert "\n" not in str(caught.value)


def test_teacher_without_digest_is_not_stored(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="teacher two: its weights have no digest"):
        write(tmp_path, base, teachers=(ONE, replace(TWO, digest=None)))


def test_manifest_says_what_was_measured(base: Path, tmp_path: Path) -> None:
    there = write(tmp_path, base).manifest
    assert (there.grid, there.patch, there.crops, there.groups) == (2, 14, 2, {"a": 5, "b": 7})
    one, two = there.teachers
    assert (one.licence, two.licence) == ("CC-BY-4.0", "not stated")
    assert one.dtype == "int8"
    assert 0 < one.error < 1e-3
    assert [len(shard.ids) for shard in there.shards] == [5, 5, 2]
    assert there.bytes == sum(p.stat().st_size for p in (tmp_path / SHARDS).iterdir())


ENTRY = TeacherEntry(
    name="t",
    spec=TeacherSpec(name="t"),
    identity={},
    licence="",
    width=1,
    has_cls=False,
    dtype="int8",
    error=0.0,
    mean=(),
    std=(),
)


def test_int8_is_within_half_a_level_whatever_the_channels() -> None:
    """By hand: an int8 level is the token's largest standardised value / 127."""
    mean, std = torch.tensor([1000.0, 0.0, -3.0]), torch.tensor([50.0, 1e-2, 1.0])
    patch = mean + std * torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    back = unpacked(packed(Tokens(patch), "int8", mean, std), mean, std).patch
    standard = (patch - mean) / std
    half = standard.abs().amax(-1, keepdim=True) / 254
    assert ((back - patch).abs() / std <= half * 1.01 + 1e-4).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_float16_is_better_than_int8(seed: int, scale: float) -> None:
    patch = scale * torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(seed))
    std, mean = torch.std_mean(patch.flatten(0, 1), 0, correction=0)
    errors = [storing_error(patch, kind, mean, std) for kind in ("float16", "int8")]
    assert errors[0] <= errors[1] + 1e-6
    assert errors[1] < 1e-3


def test_auto_stores_float16_where_int8_loses_too_much_and_int8_beyond_its_range() -> None:
    plain = torch.randn(2, 50, 8, generator=torch.Generator().manual_seed(0))
    assert decide(ENTRY, plain, "auto").dtype == "int8"
    # In every token one channel, each time another, is so large that a level is coarse for all the rest.
    turns = 100 * torch.eye(1200)[None] + torch.randn(1200, 1200, generator=torch.Generator().manual_seed(0))
    found = decide(ENTRY, turns, "auto")
    assert found.dtype == "float16"
    assert found.error < 1e-4 < 1e-3 < decide(ENTRY, turns, "int8").error
    spiky = plain.clone()
    spiky[:, :, 0] *= 0
    spiky[0, 0, 0] = 1e4
    wide = decide(ENTRY, spiky * 100, "auto")
    assert wide.dtype == "int8"
    assert wide.error >= 0
    with pytest.raises(TaskError, match="do not fit float16: store int8"):
        decide(ENTRY, spiky * 100, "float16")
    with pytest.raises(TaskError, match="do not fit float16"):
        packed(Tokens(spiky * 100), "float16", torch.zeros(8), torch.ones(8))
