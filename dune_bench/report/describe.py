"""What the cards say of the encoders, data and heads of a board.  Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from dune_bench.errors import UsageError
from dune_bench.registry.lookup import Registry
from dune_bench.report.board import Board, Column, Descriptions, encoder_identity
from dune_bench.report.conditions import splits
from dune_bench.results.schema import EncoderInfo


def described(board: Board, registry: Registry) -> Board:
    """The board with the descriptions that the registry has.  A card that changed since, or is not
    here, describes nothing: the results alone then say what they know."""
    results = {encoder_identity(e.result): e.result for c in board.columns for e in c.entries}
    encoders = {identity: _encoder(result.encoder, registry) for identity, result in results.items()}
    datasets = {name: _dataset(name, registry) for name in sorted({c.task.dataset for c in board.columns})}
    heads = {column.identity: _heads(column, board, registry) for column in board.columns}
    return replace(
        board,
        descriptions=Descriptions(
            encoders={identity: text for identity, text in encoders.items() if text},
            datasets={name: text for name, text in datasets.items() if text},
            heads={identity: texts for identity, texts in heads.items() if texts},
        ),
    )


def _encoder(info: EncoderInfo, registry: Registry) -> str:
    card = registry.encoders.get(info.id)
    if card is None or card.fingerprint() != info.card_fingerprint:
        return ""
    return card.description


def _dataset(name: str, registry: Registry) -> str:
    try:
        return str(getattr(registry.dataset(name), "description", ""))
    except UsageError:
        return ""  # data of a plug-in that is not installed here


def _heads(column: Column, board: Board, registry: Registry) -> tuple[str, ...]:
    """Where the heads come from that a task builds on, one text each."""
    card = registry.tasks.get(column.task.id)
    if card is None or card.protocol_fingerprint() != column.task.protocol_fingerprint:
        return ()
    return tuple(
        f"a {role.replace('_', ' ')} fitted by {task}{_fitted_on(task, column, board, registry)}"
        for role, task in card.requires.items()
    )


def _fitted_on(task: str, user: Column, board: Board, registry: Registry) -> str:
    """The training data of a task on the data of the column that builds on it, if the board has it."""
    same = [c for c in board.columns if c.task.id == task and c.task.dataset == user.task.dataset]
    card = registry.tasks.get(task)
    training = {splits(c, card.dataset.fit) for c in same if card and card.dataset.fit} - {""}
    return f" ({training.pop()})" if len(training) == 1 else ""
