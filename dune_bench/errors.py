"""Errors that end in one clear line and a documented exit code.

Every message says what is wrong, where, and what to do about it.  Anything that is not one of these
is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class ExitCode(IntEnum):
    """Exit codes of every verb.  In a mixed run usage > failed > unavailable > ok decides."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNAVAILABLE = 3


_PRECEDENCE = (ExitCode.USAGE, ExitCode.FAILED, ExitCode.UNAVAILABLE, ExitCode.OK)


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """The exit code of a mixed run: 2 > 1 > 3 > 0."""
    return min(codes, key=_PRECEDENCE.index, default=ExitCode.OK)


class BenchError(Exception):
    """A known error: the CLI prints its text on one line and exits with `exit_code`."""

    exit_code: ExitCode = ExitCode.FAILED


class UsageError(BenchError):
    """The request itself is wrong: an unknown name, a bad card, an impossible option."""

    exit_code = ExitCode.USAGE


class UnavailableError(BenchError):
    """Something needed is not on this machine and cannot be had now: weights, data, an extra."""

    exit_code = ExitCode.UNAVAILABLE


class TaskError(BenchError):
    """One (encoder, task) failed: NaN features, a damaged checkpoint, no solution."""

    exit_code = ExitCode.FAILED


def first_problem(error: ValidationError, whole: str) -> str:
    """`field: what is wrong` of the first problem that pydantic found.  whole: what to call the field where
    the content as a whole is wrong."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or whole}: {plain_problem(first['msg'])}"


def plain_problem(message: str) -> str:
    """pydantic's message without the words it puts before those of our own validators."""
    return message.removeprefix("Value error, ")
