"""The configuration string that released MASt3R files carry, read as data.

The original program evaluates it as Python.  Here it is parsed, and only a call with literal keywords is
understood.
"""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Mapping

from dune_bench.errors import UsageError

Value = str | int | float | bool | None | tuple["Value", ...]
LONGEST = 4096
"""Characters; the released strings have some 400."""


def parse_model_string(text: str, where: str) -> tuple[str, dict[str, Value]]:
    """`Name(key=value, …)` to the name and its keywords.

    Values: strings, numbers, True, False, None, inf, -inf, tuples and lists of these (both as tuples).
    where: names the file in errors.  Raises UsageError naming the first piece that is anything else.
    """
    if len(text) > LONGEST:
        raise UsageError(f"{where}: a model string of {len(text)} characters, at most {LONGEST} are read")
    try:
        with warnings.catch_warnings():
            # About odd escapes in strings; whether the text is understood says enough.
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise _refused(call, where)
        for argument in call.args:
            raise _refused(argument, where)
        options: dict[str, Value] = {}
        for keyword in call.keywords:
            if keyword.arg is None or keyword.arg in options:
                raise _refused(keyword.value, where)
            options[keyword.arg] = _literal(keyword.value, where)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        # Null bytes, unclosed or too deeply nested brackets.
        raise UsageError(f"{where}: the model string is no call with keywords: {shown(text)}") from error
    return call.func.id, options


def _literal(node: ast.expr, where: str) -> Value:
    match node:
        case ast.Constant(value=str() | int() | float() | None as value):
            return value
        case ast.Name(id="inf"):
            return math.inf
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            number = _literal(operand, where)
            if isinstance(number, (int, float)) and not isinstance(number, bool):
                return -number
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            return tuple(_literal(element, where) for element in elements)
    raise _refused(node, where)


def _refused(node: ast.expr, where: str) -> UsageError:
    return UsageError(
        f"{where}: the model string holds {shown(ast.unparse(node))}, only a call with literal keywords is "
        "read, nothing of it was executed: get the file again from a source you trust"
    )


def shown(text: str, most: int = 60) -> str:
    """A stranger's text on one short line."""
    return ascii(text if len(text) <= most else text[:most] + " ...")


def take(options: Mapping[str, Value], key: str, largest: int, where: str) -> int:
    """A whole number from 1 to `largest` of the options.  Raises UsageError."""
    value = options.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
        raise UsageError(
            f"{where}: {key} of the model string is {shown(repr(value))}, not a number from 1 to {largest}"
        )
    return value
