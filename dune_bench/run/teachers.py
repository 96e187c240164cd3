"""The teachers of the encoders to be run."""

from __future__ import annotations

from collections.abc import Sequence

from dune_bench.errors import UsageError
from dune_bench.registry.lookup import Registry


def with_teachers(
    encoders: Sequence[str], weights: str, registry: Registry
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The encoders followed by the teachers that their cards name, each once; and the teachers that have
    no card here and so cannot be run.

    Raises UsageError if no card names a teacher, and for weights other than `auto`: random weights are no
    teacher, and a file of weights is of one encoder.
    """
    if weights != "auto":
        raise UsageError(f"--with-teachers goes with --weights auto, not {weights}: run the student alone")
    named = [name for encoder in encoders for name in registry.encoder(encoder).teachers]
    teachers = tuple(dict.fromkeys(named))
    if not teachers:
        raise UsageError(f"--with-teachers: the card of {', '.join(encoders)} names no teachers")
    known = [name for name in teachers if name in registry.encoders]
    absent = tuple(name for name in teachers if name not in registry.encoders)
    return tuple(dict.fromkeys([*encoders, *known])), absent
