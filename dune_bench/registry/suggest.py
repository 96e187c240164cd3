"""The nearest valid names, for error messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], most: int = 3) -> str:
    """` (did you mean a, b?)`, or the known names if none is near, or an empty string."""
    names = sorted(known)
    by_lower = {known_name.lower(): known_name for known_name in reversed(names)}
    if name in names:
        by_lower[name.lower()] = name  # of names that differ in case only, the one that was typed
    near = difflib.get_close_matches(name.lower(), by_lower, n=most, cutoff=0.5)
    if near:
        return f" (did you mean {', '.join(by_lower[match] for match in near)}?)"
    return f" (known: {', '.join(names[:12])}{', …' if len(names) > 12 else ''})" if names else ""
