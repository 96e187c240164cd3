from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dune_bench.errors import UsageError
from dune_bench.registry.cards import EncoderCard
from dune_bench.run.plan import card_view, make_plan
from dune_bench.run.probing import make_probe
from dune_bench.run.request import RunRequest
from tests.run.fakes import ToyEncoder, fake_registry, line_card


def plan(*cards: Any, **options: Any) -> Any:
    options.setdefault("encoders", ("pixels",))
    return make_plan(RunRequest(**options), fake_registry(*cards))


def test_required_task_comes_first_and_is_not_reported() -> None:
    upstream, downstream = line_card(2, suites=()), line_card(1, requires={"base": "line/blocks/convex@2"})
    nodes = plan(upstream, downstream, tasks="line/blocks/convex@1").tasks
    assert [(node.id, node.reported) for node in nodes] == [
        ("line/blocks/convex@2", False),
        ("line/blocks/convex@1", True),
    ]


def test_circle_of_requirements_does_not_hang() -> None:
    cards = [line_card(i, requires={"r": f"line/blocks/convex@{i % 3 + 1}"}) for i in (1, 2, 3)]
    with pytest.raises(UsageError, match=r"in a circle: .*@1 -> .*@2 -> .*@3 -> .*@1"):
        plan(*cards)


def test_missing_required_task_is_a_usage_error_that_names_card_and_role() -> None:
    with pytest.raises(
        UsageError, match=r"test: requires\.base: unknown task 'line/blocks/convx@2'.*did you mean"
    ):
        plan(line_card(requires={"base": "line/blocks/convx@2"}))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoders": ("pixel",)}, "unknown encoder 'pixel' (did you mean pixels"),
        ({"encoders": ()}, "no encoder"),
        ({"tasks": "lime"}, "no task matches 'lime'"),
        ({"suite": "min"}, "did you mean mini"),
        ({"limit": 0}, "--limit 0"),
        ({"resolution": 0}, "--resolution 0"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"seeds": ()}, "--seeds"),
        ({"seeds": (1, 1)}, "--seeds"),
        ({"dtype": "fp8"}, "--dtype fp8"),
        ({"weights": "nowhere.pth"}, "--weights nowhere.pth: no such file"),
    ],
)
def test_wrong_request_is_refused_before_anything_runs(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan(**options)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


def test_one_weights_file_is_not_given_to_two_encoders(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    file.touch()
    with pytest.raises(UsageError, match="goes with one --encoder"):
        plan(encoders=("pixels", ToyEncoder()), weights=str(file))


def test_two_encoders_of_one_name_are_refused_but_a_repeated_name_is_not() -> None:
    assert len(plan(encoders=("pixels", "pixels")).encoders) == 1
    with pytest.raises(UsageError, match="two encoders are called 'toy'"):
        plan(encoders=(ToyEncoder(), ToyEncoder(digest="d2")))


def test_override_that_changes_nothing_makes_no_column_of_its_own() -> None:
    same = plan(resolution=16, dtype="float32", seeds=(3,)).tasks[0]
    other = plan(resolution=24, dtype="bfloat16").tasks[0]
    assert same.overrides == {}
    assert same.seeds == (None,)
    assert other.overrides == {"resolution": 24, "dtype": "bfloat16"}
    assert (other.policy.resolution, other.policy.dtype) == (24, "bfloat16")


def test_seeds_reach_only_protocols_with_random_fits() -> None:
    node = plan(line_card(seeds=(0, 1, 2)), seeds=(7, 8)).tasks[0]
    assert (node.seeds, node.overrides) == ((7, 8), {"seeds": [7, 8]})
    assert node.upstream_seed(8) == 8
    assert node.upstream_seed(None) == 7


def test_card_without_views_leaves_the_view_to_the_adapter() -> None:
    assert card_view(EncoderCard(id="a", kind="timm"), "depth", "raw") == "raw"
    assert card_view(EncoderCard(id="a", kind="timm", views={"default": "norm"}), "depth", "raw") == "norm"
    assert (
        card_view(EncoderCard(id="a", kind="timm", views={"depth": "layer:3"}), "depth", "raw") == "layer:3"
    )


def test_unknown_protocol_or_constant_is_a_usage_error_naming_the_key() -> None:
    registry = fake_registry()
    with pytest.raises(UsageError, match=r"test: protocol: unknown key 'rigde' \(did you mean ridge"):
        make_probe(line_card(protocol={"rigde": 1.0}), registry)
    card = line_card(id="line/blocks/convx@1")
    with pytest.raises(UsageError, match=r"has no protocol 'convx' \(did you mean convex"):
        make_probe(card, registry)
