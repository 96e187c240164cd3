"""`--with-teachers` runs what the cards name, and says what it cannot."""

from __future__ import annotations

import pytest

from dune_bench.errors import UsageError
from dune_bench.registry.cards import EncoderCard
from dune_bench.registry.lookup import Registry
from dune_bench.run.teachers import with_teachers


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    for name, teachers in {"pupil": ("a", "gone"), "other": ("a", "pupil"), "a": ()}.items():
        made.add_encoder(EncoderCard(id=name, kind="pixels", teachers=teachers), "test")
    return made


def test_teachers_follow_their_students_once(registry: Registry) -> None:
    assert with_teachers(["pupil", "other"], "auto", registry)[0] == ("pupil", "other", "a")


def test_teacher_without_card_is_named(registry: Registry) -> None:
    assert with_teachers(["pupil"], "auto", registry) == (("pupil", "a"), ("gone",))


def test_encoder_without_teachers_is_refused(registry: Registry) -> None:
    with pytest.raises(UsageError, match="names no teachers"):
        with_teachers(["a"], "auto", registry)


@pytest.mark.parametrize("weights", ["random", "file.pth"])
def test_weights_of_the_student_are_not_put_into_its_teachers(registry: Registry, weights: str) -> None:
    with pytest.raises(UsageError, match="goes with --weights auto"):
        with_teachers(["pupil"], weights, registry)
