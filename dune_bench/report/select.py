"""Which results a name means: one checkpoint of one encoder, task by task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dune_bench.errors import UnavailableError, UsageError
from dune_bench.registry.folders import id_of_place
from dune_bench.registry.suggest import did_you_mean
from dune_bench.report.board import column_identity
from dune_bench.results.schema import EncoderInfo, Result
from dune_bench.results.store import Refused

Found = tuple[Path, Result]


class UnknownNameError(UsageError):
    """A runs folder has results, but none of that encoder or checkpoint."""


@dataclass(frozen=True)
class Checkpoint:
    """The results of one encoder with one set of weights.

    results: with status ok.  gone: failed, unavailable or of other weights, none of which a newer
    result of this checkpoint makes up for; each with the reason that it does not count.
    notes: what a reader should know about the choice.
    """

    label: str
    encoder: EncoderInfo
    results: tuple[Found, ...]
    gone: tuple[tuple[Result, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[Result, ...]:
        """Those that count and those that do not."""
        return (*(result for _, result in self.results), *(result for result, _ in self.gone))


def choose(found: Sequence[Found], name: str, runs: Path, refused: Sequence[Refused] = ()) -> Checkpoint:
    """The checkpoint that `NAME` or `NAME@DIGEST` means.

    NAME: an encoder's id, its label as reports print it (`dune_vitb [random weights]`), or the Python
    file it was run from.  DIGEST: the first digits of the digest of its weights.  Without one it is
    the newest checkpoint of that name; weights asked to be random stand for an id only if there are no
    others.
    A task whose newest attempt failed does not fall back on an older result: that would be of the
    checkpoint before.
    Raises UnavailableError for a folder without results, UnknownNameError for a name or digest that it does
    not have, UsageError if several digests begin so.
    """
    own = _named(found, name.partition("@")[0], runs, refused)
    good = [item for item in own if item[1].status == "ok"]
    checkpoints = _by_weights(good)
    wanted = name.partition("@")[2]
    if wanted:
        hits = [key for key in checkpoints if (key[1] or "").startswith(wanted)]
        if not hits:
            known = ", ".join(sorted({(key[1] or "none")[:7] for key in checkpoints})) or "none is ok"
            raise UnknownNameError(f"{runs}: no result of {name}: the digests are {known}")
        if len(hits) > 1:
            raise UsageError(f"{name}: {len(hits)} digests begin so: give more digits")
        return _checkpoint(checkpoints[hits[0]], (), ())
    if not good:
        result = max((result for _, result in own), key=_started)
        gone = tuple((r, f"{r.status}: {r.error}") for _, r in own)
        return Checkpoint(result.label, result.encoder, (), gone)
    newest = max(checkpoints.values(), key=lambda items: max(_started(result) for _, result in items))
    notes: tuple[str, ...] = ()
    if len(checkpoints) > 1:
        digests = ", ".join((key[1] or "none")[:7] for key in checkpoints if checkpoints[key] is not newest)
        digest = (newest[0][1].encoder.digest or "none")[:7]
        notes = (f"{name}: the newest of {len(checkpoints)} checkpoints is taken, {digest} (not {digests})",)
    return _checkpoint(newest, own, notes)


def _named(found: Sequence[Found], name: str, runs: Path, refused: Sequence[Refused]) -> list[Found]:
    name = id_of_place(name)
    if not found and not refused:
        raise UnavailableError(
            f"no results in {runs}: run `dune-bench run --runs {runs}` first, or name another --runs"
        )
    exact = [item for item in found if item[1].label == name]
    own = exact or [item for item in found if item[1].encoder.id == name]
    real = [item for item in own if item[1].encoder.weights != "random"]
    if not own:
        names = sorted({result.encoder.id for _, result in found})
        text = f"no results of {name!r} in {runs}{did_you_mean(name, names)}"
        if refused:  # one of them may be what is meant
            raise UnavailableError(f"{text}; {len(refused)} files cannot be read: {refused[0].reason}")
        raise UnknownNameError(text)
    if exact:
        # A failed attempt may not know how its weights would have come: it has the plain label.
        random = exact[0][1].encoder.weights == "random"
        same = [item for item in found if item[1].encoder.id == exact[0][1].encoder.id]
        return [item for item in same if (item[1].encoder.weights == "random") == random]
    return real or own


def _by_weights(found: Iterable[Found]) -> dict[tuple[str, str | None, str, str], list[Found]]:
    groups: dict[tuple[str, str | None, str, str], list[Found]] = {}
    for path, result in found:
        encoder = result.encoder
        key = (encoder.weights, encoder.digest, encoder.adapter, encoder.card_fingerprint)
        groups.setdefault(key, []).append((path, result))
    return groups


def _checkpoint(items: Sequence[Found], own: Sequence[Found], notes: tuple[str, ...]) -> Checkpoint:
    """own: all results of the name, also failed ones and those of other weights."""
    newest_of = _newest([*own, *items], _attempt)
    kept: list[Found] = []
    gone: list[tuple[Result, str]] = []
    # A copied file is no second result.
    for path, result in _newest(items, lambda result: column_identity(result.task)).values():
        last = newest_of[_attempt(result)][1]
        if last.status == "ok":
            kept.append((path, result))
        else:
            gone.append((last, f"the newest attempt {last.status}: {last.error}"))
    have = {_attempt(result) for _, result in items}
    digest = (items[0][1].encoder.digest or "none")[:7]
    for attempt, (_, result) in newest_of.items():
        if attempt not in have and result.status == "ok":
            gone.append((result, f"measured with other weights or another card only, not with {digest}"))
        elif attempt not in have:
            gone.append((result, f"{result.status}: {result.error}"))
    latest = max((result for _, result in items), key=_started)
    return Checkpoint(latest.label, latest.encoder, tuple(kept), tuple(gone), notes)


def _attempt(result: Result) -> str:
    """What was asked for, as far as a result without data and weights knows it."""
    return repr((result.task.id, sorted(result.task.overrides.items()), result.task.limited))


def _newest(found: Iterable[Found], key: Callable[[Result], str]) -> dict[str, Found]:
    latest: dict[str, Found] = {}
    for path, result in found:
        known = latest.get(key(result))
        if known is None or (_started(result), str(path)) >= (_started(known[1]), str(known[0])):
            latest[key(result)] = (path, result)
    return latest


def _started(result: Result) -> str:
    return result.provenance.started
