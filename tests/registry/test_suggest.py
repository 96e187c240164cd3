"""The nearest valid names."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from dune_bench.registry.suggest import did_you_mean


def test_a_typing_slip_finds_the_name() -> None:
    assert did_you_mean("dune_vitB", ["dune_vitb", "pixels"]) == " (did you mean dune_vitb?)"


def test_nothing_near_lists_what_is_known() -> None:
    assert did_you_mean("zzz", ["pixels", "dune_vitb"]) == " (known: dune_vitb, pixels)"


def test_a_long_list_is_cut_and_says_so() -> None:
    names = [f"encoder_number_{i:02d}" for i in range(30)]
    text = did_you_mean("zzz", names)
    assert "encoder_number_11, …" in text
    assert "encoder_number_12" not in text


def test_no_known_names_promise_nothing() -> None:
    assert did_you_mean("x", []) == ""


@given(st.text(), st.lists(st.text(min_size=1), unique=True))
@example("û", ["Û"])
def test_an_exact_name_is_always_offered(name: str, others: list[str]) -> None:
    if name:
        assert name in did_you_mean(name, {*others, name})
