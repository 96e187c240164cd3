"""Batches of images: a function of the picks in any process, with broken images listed and replaced."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dune_bench.distill.augment import Augmentation, augmented, evaluation_view
from dune_bench.distill.batch import DistillBatch
from dune_bench.distill.broken import FILE, BrokenImage, BrokenImages
from dune_bench.distill.data import IN_A_ROW, DistillData
from dune_bench.distill.groups import DataGroup
from dune_bench.distill.mixing import parse_mix, pick_order
from dune_bench.distill.sources import ImageFolder
from dune_bench.engine.data import MicroBatch, Pick, loader
from dune_bench.engine.processes import Processes
from dune_bench.engine.recipe import Recipe
from dune_bench.errors import TaskError, UnavailableError, UsageError
from tests.distill.pictures import colour, fill, picture, png, textured

CPU = Processes(0, 1, torch.device("cpu"))


def group(name: str, *folders: Path) -> DataGroup:
    return DataGroup(name, tuple(ImageFolder(folder) for folder in folders))


def three_groups(tmp_path: Path) -> tuple[DataGroup, ...]:
    """Sizes 5, 3 + 2 and 1: images 0 … 10 have the colours 0 … 10."""
    return (
        group("a", fill(tmp_path / "a", 5)),
        group("b", fill(tmp_path / "b1", 3, first=5), fill(tmp_path / "b2", 2, first=8)),
        group("c", fill(tmp_path / "c", 1, first=10)),
    )


def recipe(workers: int, steps: int = 4) -> Recipe:
    return Recipe(steps=steps, batch_size=6, lr=1e-3, workers=workers)


def batches(data: DistillData, workers: int, steps: int = 4, first: int = 0) -> list[DistillBatch]:
    order = pick_order(parse_mix("teacher_balanced"), data.lengths, 3)
    found = []
    for micro in loader(data, order, recipe(workers, steps), CPU, first):
        if not isinstance(micro, MicroBatch):
            raise micro
        found.append(micro.content)
    return found


def equal(a: DistillBatch, b: DistillBatch) -> bool:
    return all(torch.equal(getattr(a, key), getattr(b, key)) for key in ("images", "groups", "seeds"))


def test_an_image_is_the_one_of_its_number_and_group(tmp_path: Path) -> None:
    data = DistillData(three_groups(tmp_path), 8, None)
    assert (len(data), data.lengths) == (11, {"a": 5, "b": 5, "c": 1})
    batch = data.batch([Pick(number, number) for number in range(11)])
    assert batch.images.shape == (11, 3, 8, 8)
    assert batch.images.dtype == torch.float32
    for number in range(11):
        wanted = torch.tensor(colour(number)).float() / 255
        torch.testing.assert_close(batch.images[number, :, 4, 4], wanted, rtol=0, atol=1e-6)
    assert batch.groups.tolist() == [0] * 5 + [1] * 5 + [2]
    assert data.describe([Pick(7, 0), Pick(8, 0)]) == ["b/b1: 02.png", "b/b2: 00.png"]
    for index in (-1, 11):
        with pytest.raises(IndexError):
            data.image(index)
    assert data.batch([]).images.shape == (0, 3, 8, 8)


def test_a_batch_is_a_function_of_the_picks(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.png").write_bytes(png(textured(number)))
    data = DistillData([group("t", folder)], 24, Augmentation())
    picks = [Pick(number, 1000 + number) for number in range(4)]
    whole = data.batch(picks)
    single = [data.batch([pick]) for pick in reversed(picks)][::-1]
    for number, one in enumerate(single):
        assert torch.equal(one.images[0], whole.images[number])
        assert one.seeds[0] == whole.seeds[number]
    # Another seed is another crop, and the loss has seeds of its own.
    assert not torch.equal(data.batch([Pick(0, 1)]).images, data.batch([Pick(0, 2)]).images)
    drawn = {1000 + number for number in range(4)}
    assert len({*whole.seeds.tolist(), *drawn}) == 8
    assert all(
        not torch.equal(augmented(textured(n), 24, Augmentation(), int(whole.seeds[n])), whole.images[n])
        for n in range(4)
    )


def test_loader_processes_give_the_same_batches_and_so_does_a_resume(tmp_path: Path) -> None:
    data = DistillData(three_groups(tmp_path), 8, Augmentation())
    here, there = batches(data, 0), batches(data, 2)
    assert len(here) == len(there) == 4
    assert all(equal(a, b) for a, b in zip(here, there, strict=True))
    assert all(equal(a, b) for a, b in zip(here[2:], batches(data, 1, first=2), strict=True))
    assert {tuple(sorted(batch.groups.tolist())) for batch in here} == {(0, 0, 1, 1, 2, 2)}


def spoil(folder: Path, *numbers: int) -> None:
    for number in numbers:
        (folder / f"{number:02d}.png").write_bytes(b"this is no image")


def test_a_broken_image_is_replaced_by_the_next_readable_one_and_listed_once(tmp_path: Path) -> None:
    groups = three_groups(tmp_path)
    spoil(tmp_path / "b1", 1, 2)
    file = tmp_path / "run" / FILE
    data = DistillData(groups, 8, None, BrokenImages(file, 11, 0.5))
    batch = data.batch([Pick(6, 0), Pick(7, 0), Pick(6, 0), Pick(0, 0)])
    # Round within the source, so the group stays the same.
    assert [round(255 * float(image[0, 0, 0])) for image in batch.images] == [5, 5, 5, 0]
    assert batch.groups.tolist() == [1, 1, 1, 0]
    lines = file.read_text().splitlines()
    assert [line.split("\t")[:2] for line in lines] == [["b/b1", "01.png"], ["b/b1", "02.png"]]
    assert lines[0].split("\t")[2].startswith("not an image")
    note = f"2 of 11 images could not be read (18 %) and were replaced: see {file}"
    assert data.broken.note() == note
    assert data.describe([Pick(6, 0), Pick(5, 0)]) == [
        *("b/b1: 01.png (unreadable; the next one instead)", "b/b1: 00.png")
    ]


def test_the_list_is_one_over_loader_processes_and_changes_no_batch(tmp_path: Path) -> None:
    groups = three_groups(tmp_path)
    spoil(tmp_path / "a", 0, 2, 3)
    spoil(tmp_path / "b2", 1)
    file = tmp_path / FILE
    fresh = batches(DistillData(groups, 8, Augmentation(), BrokenImages(None, 11, 0.5)), 0)
    first = DistillData(groups, 8, Augmentation(), BrokenImages(file, 11, 0.5))
    assert all(equal(a, b) for a, b in zip(fresh, batches(first, 2), strict=True))
    lines = sorted(line.split("\t")[1] for line in file.read_text().splitlines())
    assert lines == ["00.png", "01.png", "02.png", "03.png"]
    # The training process, which read nothing itself, knows of them; so does a resumed one.
    assert first.broken.note() is not None
    assert first.broken.note() == BrokenImages(file, 11, 0.5).note()
    assert all(
        equal(a, b)
        for a, b in zip(
            fresh,
            batches(DistillData(groups, 8, Augmentation(), BrokenImages(file, 11, 0.5)), 2),
            strict=True,
        )
    )
    assert len(file.read_text().splitlines()) == 4


def _report(file: Path, names: Sequence[str], gate: Any) -> None:
    broken = BrokenImages(file, 10_000, 1.0)
    gate.wait()
    for name in names:
        broken.report(BrokenImage("g/s", name, "spoilt"))


def test_processes_that_find_the_same_images_at_once_list_each_once(tmp_path: Path) -> None:
    file = tmp_path / FILE
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(4)
    shares = [[f"{number}.png" for number in range(start, start + 40)] for start in (0, 10, 20, 30)]
    processes = [context.Process(target=_report, args=(file, share, gate)) for share in shares]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    listed = [line.split("\t")[1] for line in file.read_text().splitlines()]
    assert len(listed) == len(set(listed)) == 70


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_broken_images_stop_and_are_named(tmp_path: Path, workers: int) -> None:
    groups = three_groups(tmp_path)
    spoil(tmp_path / "a", 0, 1, 2)
    data = DistillData(groups, 8, None, BrokenImages(tmp_path / FILE, 11, 0.2))
    with pytest.raises(TaskError, match=r"3 of 11 images cannot be read, more than 20 %: a/a: 0") as caught:
        batches(data, workers)
    assert "mend the data" in str(caught.value)
    assert "\n" not in str(caught.value)
    # Going on without mending anything does not help.
    again = DistillData(groups, 8, None, BrokenImages(tmp_path / FILE, 11, 0.2))
    with pytest.raises(TaskError, match="3 of 11 images"):
        batches(again, workers)


def test_one_percent_is_the_default_share() -> None:
    broken = BrokenImages(None, 300)
    for number in range(3):
        broken.report(BrokenImage("s", str(number), "spoilt"))
    assert broken.note() == "3 of 300 images could not be read (1 %) and were replaced"
    with pytest.raises(
        TaskError, match=r"4 of 300 images cannot be read, more than 1 %: s: 0 .spoilt.; s: 1"
    ):
        broken.report(BrokenImage("s", "3", "spoilt"))


def test_no_broken_image_is_no_note_and_no_file(tmp_path: Path) -> None:
    data = DistillData(three_groups(tmp_path), 8, None, BrokenImages(tmp_path / FILE, 11))
    data.batch([Pick(0, 0)])
    assert data.broken.note() is None
    assert not (tmp_path / FILE).exists()


def test_a_source_of_which_nothing_can_be_read_stops(tmp_path: Path) -> None:
    groups = three_groups(tmp_path)
    spoil(tmp_path / "b2", 0, 1)
    data = DistillData(groups, 8, None, BrokenImages(None, 11, 0.9))
    with pytest.raises(TaskError, match=r"b/b2: no image of it can be read: b/b2: 01\.png \(not an image"):
        data.image(9)


def test_a_disk_that_is_gone_stops_long_before_the_share_is_reached(tmp_path: Path) -> None:
    folder = fill(tmp_path / "big", IN_A_ROW + 5)
    data = DistillData([group("g", folder)], 8, None, BrokenImages(None, 10**6))
    for file in list(folder.iterdir()):
        file.unlink()
    with pytest.raises(TaskError, match=f"none of {IN_A_ROW} images in a row.*is the disk there"):
        data.image(0)


def test_a_list_that_a_killed_process_left_half_written_is_mended(tmp_path: Path) -> None:
    file = tmp_path / FILE
    file.write_bytes(b"s\tone.png\tspoilt\ns\ttwo.pn")
    broken = BrokenImages(file, 100, 0.5)
    assert [b.image for b in broken.found()] == ["one.png"]
    broken.report(BrokenImage("s", "two.png", "spoilt"))
    broken.report(BrokenImage("s", "odd\tname\n.png", "with\ttabs"))
    assert file.read_bytes() == (
        b"s\tone.png\tspoilt\ns\ttwo.png\tspoilt\ns\todd\\tname\\n.png\twith\\ttabs\n"
    )
    broken.report(BrokenImage("s", "odd\tname\n.png", "with\ttabs"))
    assert len(file.read_bytes().splitlines()) == 3


def test_a_list_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(TaskError, match=r"cannot list the unreadable image s: x \(spoilt\): "):
        BrokenImages(tmp_path / "file" / FILE, 10, 0.5).report(BrokenImage("s", "x", "spoilt"))


class _Gone:
    """A source whose shard is not there: no image is broken, the data are missing."""

    name = "gone"

    def __len__(self) -> int:
        return 3

    def describe(self, index: int) -> str:
        return str(index)

    def read(self, index: int) -> Any:
        raise UnavailableError("shard.zip: no such shard")


def test_missing_data_are_not_taken_for_a_broken_image() -> None:
    data = DistillData([DataGroup("g", (_Gone(),))], 8, None, BrokenImages(None, 3, 0.9))
    with pytest.raises(UnavailableError, match="no such shard"):
        data.image(0)
    assert data.broken.found() == ()


def test_groups_without_images_are_refused() -> None:
    with pytest.raises(UsageError, match="the group 'g' has no image"):
        DistillData([DataGroup("g", ())], 8, None)
    with pytest.raises(UsageError, match="there is no group"):
        DistillData([], 8, None)


def test_evaluation_does_not_augment(tmp_path: Path) -> None:
    data = DistillData(three_groups(tmp_path), 8, None)
    first, second = data.batch([Pick(3, 1)]), data.batch([Pick(3, 2)])
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.images[0], evaluation_view(picture(3), 8))
    assert np.array_equal(data.image(3), picture(3))
