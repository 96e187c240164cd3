"""Which encoders have a colour of their own: the same on the page and in the plots."""

from __future__ import annotations

from collections import defaultdict

from dune_bench.report.board import Board, encoder_identity

MOST_SHOWN = 6


def shown_encoders(board: Board) -> list[str]:
    """Identities of the encoders with a colour of their own: those of the most columns, and among
    equals those that stand higher in them on average.  A choice for a picture, not a ranking."""
    places: dict[str, list[float]] = defaultdict(list)
    for column in board.columns:
        for place, entry in enumerate(column.entries):
            places[encoder_identity(entry.result)].append(place / len(column.entries))
    order = sorted(places, key=lambda e: (-len(places[e]), sum(places[e]) / len(places[e]), board.labels[e]))
    return order[:MOST_SHOWN]
