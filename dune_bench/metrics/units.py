"""Units of metrics, and the few conversions between them that make sense."""

from __future__ import annotations

from enum import StrEnum

from dune_bench.errors import UsageError


class Unit(StrEnum):
    """Units a metric may have.  The value is the text that cards and reports write."""

    METRE = "m"
    MILLIMETRE = "mm"
    DEGREE = "deg"
    PERCENT = "%"
    PIXEL = "px"
    ONE = "1"

    @classmethod
    def parse(cls, text: str) -> Unit:
        """The unit a card names.  Raises UsageError naming those there are."""
        try:
            return cls(text)
        except ValueError as error:
            known = ", ".join(unit.value for unit in cls)
            raise UsageError(f"unknown unit {text!r}: use one of {known}") from error


_FACTORS = {
    (Unit.METRE, Unit.MILLIMETRE): 1000.0,
    (Unit.MILLIMETRE, Unit.METRE): 0.001,
    (Unit.ONE, Unit.PERCENT): 100.0,
    (Unit.PERCENT, Unit.ONE): 0.01,
}


def convert(value: float, source: Unit, target: Unit) -> float:
    """`value` in another unit.  Raises UsageError where no factor exists (metres to degrees)."""
    if source == target:
        return value
    if (source, target) not in _FACTORS:
        raise UsageError(f"{source.value} cannot be converted to {target.value}")
    return value * _FACTORS[source, target]
