"""The paper's data sets, and what a recipe says of its images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dune_bench.distill.groups import GROUPS, PAPER_DATASETS, DataGroup, DataSection, open_groups
from dune_bench.distill.sources import ImageFolder
from dune_bench.errors import BenchError, UnavailableError, UsageError
from dune_bench.registry.cards import parse_card
from tests.distill.pictures import fill, picture, png, tar


def section(**values: Any) -> DataSection:
    return parse_card(values, DataSection, "recipe.yaml")


def folder(path: object, **more: Any) -> dict[str, Any]:
    return {"kind": "folder", "path": str(path), **more}


def test_counts_of_the_19_datasets_add_up_to_the_published_totals() -> None:
    assert len(PAPER_DATASETS) == 19
    totals = {group: sum(d.images for d in PAPER_DATASETS.values() if d.group == group) for group in GROUPS}
    assert totals == {"dinov2": 18_492_301, "mast3r": 1_748_561, "multihmr": 476_610}
    assert sum(totals.values()) == 20_717_472
    # The two in which table and loader differ: both count as complete.
    differing = {d.name: d.expected for d in PAPER_DATASETS.values() if d.loader_images is not None}
    assert differing == {"habitat": (284_968, 284_965), "bedlam": (353_118, 353_116)}
    assert PAPER_DATASETS["agora"].expected == (14_314,)


def test_all_kinds_of_sources_open_relative_to_the_base(tmp_path: Path) -> None:
    fill(tmp_path / "a", 2)
    (tmp_path / "list.txt").write_text("00.png\n")
    tar(tmp_path / "t" / "0.tar", {"x.png": png(picture(1))})
    data = section(
        groups={
            "generic": {"sources": [folder("a", expected=2)]},
            "mixed": {
                "sources": [
                    {"kind": "list", "path": "list.txt", "root": "a", "name": "some"},
                    {"kind": "tar", "shards": ["t/{0..0}.tar"], "index": "i", "suffixes": [".png"]},
                    folder(tmp_path / "a"),
                    {"kind": "minirooms"},
                ]
            },
        }
    )
    generic, mixed = open_groups(data.groups, tmp_path)
    assert (generic.name, len(generic)) == ("generic", 2)
    assert [source.name for source in mixed.sources] == ["some", "t", "a", "minirooms@1"]
    assert len(mixed) == 1 + 1 + 2 + 420
    places = [mixed.locate(i) for i in (0, 1, 2, 3, 4, 423)]
    assert [(s.name, i) for s, i in places] == [
        *(("some", 0), ("t", 0), ("a", 0), ("a", 1), ("minirooms@1", 0), ("minirooms@1", 419))
    ]
    for index in (-1, 424):
        with pytest.raises(IndexError):
            mixed.locate(index)
    assert (tmp_path / "i").is_dir()
    assert len(DataGroup("none", ())) == 0


def test_an_incomplete_dataset_of_the_paper_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "a", 2)
    data = section(groups={"multihmr": {"sources": [folder("a", dataset="bedlam")]}})
    with pytest.raises(UsageError, match="bedlam: 2 images found, 353,118 or 353,116 expected"):
        open_groups(data.groups, tmp_path)
    # A part of it is fine if that is said.
    data = section(groups={"multihmr": {"sources": [folder("a", dataset="bedlam", expected=2)]}})
    assert open_groups(data.groups, tmp_path)[0].sources[0].name == "bedlam"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"groups": {}}, "groups: "),
        ({"groups": {"a": {"sources": []}}}, r"groups\.a\.sources: "),
        ({"groups": {"a": {"sources": [{"kind": "zip", "path": "x"}]}}}, "zip"),
        ({"groups": {"a": {"sources": [folder("x", pth="y")]}}}, "unknown key .*pth"),
        ({"groups": {"a b": {"sources": [folder("x")]}}}, "'a b' is no name for a group"),
        ({"groups": {"only": {"sources": [folder("x")]}}}, "'only' is no name for a group"),
        ({"groups": {"a": {"sources": [folder("x", dataset="bedlm")]}}}, "did you mean bedlam"),
        (
            {"groups": {"dinov2": {"sources": [folder("x", dataset="habitat")]}}},
            "'habitat' is of the group 'mast3r', not 'dinov2'",
        ),
        ({"groups": {"a": {"sources": [folder("x")]}}, "mix": "only:b"}, "mix: no group 'b'"),
        ({"groups": {"a": {"sources": [folder("x")]}}, "mix": "ballanced:a"}, "unknown way to mix"),
        ({"groups": {"a": {"sources": [folder("x")]}}, "mix": "a", "truncated": True}, "truncated: only"),
        ({"groups": {"a": {"sources": [folder("x")]}}, "max_broken": 1.0}, "max_broken"),
        ({"groups": {"a": {"sources": [folder("x", expected=0)]}}}, "expected"),
        ({"groups": {"a": {"sources": [folder("x")]}}, "augmentation": {"blur_kernel": 4}}, "4 is even"),
        (
            {"groups": {"a": {"sources": [{"kind": "minirooms", "split": "test", "unlabelled": "x"}]}}},
            "unlabelled renders are training images",
        ),
    ],
)
def test_a_wrong_section_is_one_clear_line(values: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text) as caught:
        section(**values)
    assert str(caught.value).startswith("recipe.yaml: ")
    assert "\n" not in str(caught.value)


def test_the_test_split_is_not_trained_on_but_may_be_held_out(tmp_path: Path) -> None:
    groups = section(groups={"a": {"sources": [{"kind": "minirooms", "split": "test"}]}}).groups
    with pytest.raises(UsageError, match="the test split of minirooms@1 is not to be trained on"):
        open_groups(groups, tmp_path)
    assert len(open_groups(groups, tmp_path, training=False)[0]) == 180


@pytest.mark.parametrize(
    ("sources", "error", "text"),
    [
        ([folder("nowhere")], UnavailableError, "nowhere: no such folder"),
        ([folder("empty")], UsageError, "no image"),
        ([folder("a"), folder("b/a")], UsageError, "two sources are called 'a': give one a `name`"),
        ([folder("a", expected=3)], UsageError, "a: 2 images found, 3 expected"),
    ],
)
def test_data_that_are_not_there_stop_before_training(
    tmp_path: Path, sources: list[dict[str, Any]], error: type[BenchError], text: str
) -> None:
    fill(tmp_path / "a", 2)
    fill(tmp_path / "b" / "a", 2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=text):
        open_groups(section(groups={"g": {"sources": sources}}).groups, tmp_path)


def test_group_of_sources_is_what_they_hold(tmp_path: Path) -> None:
    one, two = ImageFolder(fill(tmp_path / "1", 2)), ImageFolder(fill(tmp_path / "2", 3))
    group = DataGroup("g", (one, two))
    assert (len(group), group.locate(1), group.locate(2)) == (5, (one, 1), (two, 0))
