"""Which image stands where: shares of the groups, and that a position alone decides."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dune_bench.distill.mixing import Mix, parse_mix, pick_order
from dune_bench.engine.data import PickOrder
from dune_bench.errors import UsageError

PAPER = {"dinov2": 18_492_301, "mast3r": 1_748_561, "multihmr": 476_610}
SMALL = {"a": 7, "b": 3, "c": 1, "d": 12}


def group_of(index: int, lengths: dict[str, int]) -> str:
    """Plain restatement of the numbering."""
    for name, length in lengths.items():
        if index < length:
            return name
        index -= length
    raise AssertionError(index)


def groups_at(order: PickOrder, positions: range, lengths: dict[str, int]) -> list[str]:
    return [group_of(order(position).index, lengths) for position in positions]


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    seed=st.integers(0, 2**40),
    start=st.integers(0, 500),
)
def test_balanced_groups_have_equal_shares_of_any_stretch(lengths: list[int], seed: int, start: int) -> None:
    named = {f"g{i}": length for i, length in enumerate(lengths)}
    order = pick_order(Mix("teacher_balanced"), named, seed)
    counts = Counter(groups_at(order, range(start, start + 64), named))
    shares = [counts[name] for name in named]
    assert max(shares) - min(shares) <= 1


@given(seed=st.integers(0, 2**40), cycles=st.integers(1, 3))
def test_small_groups_cycle_through_all_their_images(seed: int, cycles: int) -> None:
    order = pick_order(Mix("teacher_balanced"), SMALL, seed)
    start = 0
    for number, length in enumerate(SMALL.values()):
        own = [order(number + len(SMALL) * turn).index - start for turn in range(cycles * length)]
        for cycle in range(cycles):
            assert sorted(own[cycle * length : (cycle + 1) * length]) == list(range(length))
        start += length


def test_cycles_of_a_group_are_not_in_one_order() -> None:
    order = pick_order(Mix("teacher_balanced"), {"a": 30, "b": 30}, 3)
    a = [order(2 * turn).index for turn in range(60)]
    b = [order(2 * turn + 1).index - 30 for turn in range(60)]
    assert a[:30] != a[30:]
    assert a != b
    again = [pick_order(Mix("teacher_balanced"), {"a": 30, "b": 30}, 4)(2 * turn).index for turn in range(30)]
    assert a[:30] != again


def test_truncated_batches_are_43_43_42_as_published() -> None:
    lengths = {"dinov2": 1000, "mast3r": 50, "multihmr": 20}
    order = pick_order(Mix("teacher_balanced"), lengths, 0, batch=128)
    for batch in range(3):
        names = groups_at(order, range(128 * batch, 128 * batch + 128), lengths)
        assert Counter(names) == {"dinov2": 43, "mast3r": 43, "multihmr": 42}
    # What is dropped is not given to the next batch: turn 43 of the last group follows turn 41.
    plain = pick_order(Mix("teacher_balanced"), lengths, 0)
    assert order(128 + 2).index == plain(3 * 43 + 2).index
    assert order(125).index == plain(125).index
    with pytest.raises(UsageError, match="a truncated batch of 2 image"):
        pick_order(Mix("teacher_balanced"), lengths, 0, batch=2)


@pytest.mark.parametrize(
    ("mix", "batch"),
    [
        (Mix("teacher_balanced"), None),
        (Mix("teacher_balanced", ("d", "a")), 5),
        (Mix("proportional"), None),
        (Mix("proportional", ("b", "d")), None),
    ],
)
def test_a_position_alone_decides(mix: Mix, batch: int | None) -> None:
    order = pick_order(mix, SMALL, 11, batch)
    picks = [order(position) for position in range(100)]
    # A resumed training asks for the middle first.
    fresh = pick_order(mix, SMALL, 11, batch)
    assert [fresh(position) for position in reversed(range(100))] == picks[::-1]
    assert fresh(57) == pick_order(mix, SMALL, 11, batch)(57) == picks[57]
    assert len({pick.seed for pick in picks}) == 100
    assert picks != [pick_order(mix, SMALL, 12, batch)(position) for position in range(100)]


@given(seed=st.integers(0, 2**40))
def test_proportional_shows_every_image_once_an_epoch(seed: int) -> None:
    order = pick_order(Mix("proportional"), SMALL, seed)
    for epoch in range(2):
        indices = [order(23 * epoch + place).index for place in range(23)]
        assert sorted(indices) == list(range(23))
    some = pick_order(parse_mix("d,b"), SMALL, seed)
    assert sorted(some(place).index for place in range(15)) == [7, 8, 9, *range(11, 23)]


def test_only_one_group_is_only_that_group() -> None:
    order = pick_order(parse_mix("only:b"), SMALL, 5)
    assert Counter(order(place).index for place in range(6)) == {7: 2, 8: 2, 9: 2}


def test_the_sets_of_the_paper_can_be_mixed() -> None:
    order = pick_order(Mix("teacher_balanced"), PAPER, 0)
    counts = Counter(groups_at(order, range(10_000_000, 10_000_300), PAPER))
    assert counts == {"dinov2": 100, "mast3r": 100, "multihmr": 100}


@pytest.mark.parametrize(
    ("text", "mix"),
    [
        ("teacher_balanced", Mix("teacher_balanced")),
        ("proportional", Mix("proportional")),
        ("teacher_balanced: a, b", Mix("teacher_balanced", ("a", "b"))),
        ("proportional:a", Mix("proportional", ("a",))),
        ("only: a", Mix("proportional", ("a",))),
        ("a,b", Mix("proportional", ("a", "b"))),
        ("a", Mix("proportional", ("a",))),
    ],
)
def test_what_a_recipe_says_of_the_mix(text: str, mix: Mix) -> None:
    assert parse_mix(text) == mix


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a group without a name"),
        ("a,,b", "a group without a name"),
        ("only:", "a group without a name"),
        ("only:a,b", "`only:` takes one group"),
        ("a,a", "a group stands twice"),
        ("teacher_balance:a", "did you mean teacher_balanced"),
    ],
)
def test_a_mix_that_says_nothing_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_mix(text)


def test_unknown_and_empty_groups_are_refused() -> None:
    with pytest.raises(UsageError, match=r"no group 'dinov'.*did you mean dinov2"):
        pick_order(parse_mix("only:dinov"), PAPER, 0)
    with pytest.raises(UsageError, match="the group 'b' has no image"):
        pick_order(Mix("teacher_balanced"), {"a": 1, "b": 0}, 0)
    with pytest.raises(UsageError, match="there is no group"):
        pick_order(Mix("proportional"), {}, 0)
    # An empty group that is not mixed in does not matter.
    assert pick_order(parse_mix("only:c"), {"a": 0, "c": 1}, 0)(5).index == 0
