"""Fills a block of a page with the output of a command, so that no number is typed by hand.

    COMMAND | python -m tools.page PAGE.md BLOCK

A block is what stands between `<!-- begin: BLOCK -->` and `<!-- end: BLOCK -->`, each on its own line.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dune_bench.errors import BenchError, UsageError


def filled(page: str, block: str, content: str) -> str:
    """The page with new content in a block.  Raises UsageError unless both marks stand in it, once and
    in order, and there is content."""
    begin, end = f"<!-- begin: {block} -->\n", f"<!-- end: {block} -->\n"
    if not content.strip():
        raise UsageError(f"nothing to put into block {block!r}: did the command fail?")
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise UsageError(f"the page must have {begin.strip()!r} and {end.strip()!r} once, in this order")
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n{content.strip()}\n\n{end}{rest.partition(end)[2]}"


def main(argv: list[str] | None = None) -> int:
    """Reads the content from standard input; a known error is one line and its exit code."""
    parser = argparse.ArgumentParser(description="Fill a block of a page from standard input.")
    parser.add_argument("page", type=Path)
    parser.add_argument("block")
    options = parser.parse_args(argv)
    try:
        text = filled(options.page.read_text(encoding="utf-8"), options.block, sys.stdin.read())
    except BenchError as error:
        print(f"error: {options.page}: {error}", file=sys.stderr)
        return int(error.exit_code)
    options.page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
