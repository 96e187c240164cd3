from __future__ import annotations

from pathlib import Path

import pytest

from dune_bench.errors import UnavailableError, UsageError
from dune_bench.report.select import Checkpoint, choose
from dune_bench.results.schema import Result
from tests.report.paired_runs import NEW, OLD, depth, digest, failed, segmentation

RUNS = Path("runs")


def pick(name: str, *results: Result) -> Checkpoint:
    return choose([(Path(f"{i}.json"), result) for i, result in enumerate(results)], name, RUNS)


def tasks(found: Checkpoint) -> set[str]:
    return {result.task.probe for _, result in found.results}


def test_a_name_is_its_newest_checkpoint_as_a_whole() -> None:
    old = [f("vit", weights_digest="one", started=OLD)[0] for f in (depth, segmentation)]
    new = depth("vit", weights_digest="two", started=NEW)[0]
    found = pick("vit", *old, new)
    assert found.encoder.digest == digest("two")
    assert tasks(found) == {"depth"}
    (lost, reason), *none = found.gone
    assert not none
    assert lost.task.probe == "semseg"
    assert "other weights" in reason
    assert "newest of 2 checkpoints" in found.notes[0]


def test_a_digest_names_an_older_checkpoint() -> None:
    old, new = (depth("vit", weights_digest=d, started=s)[0] for d, s in (("one", OLD), ("two", NEW)))
    found = pick(f"vit@{digest('one')[:6]}", old, new)
    assert [result for _, result in found.results] == [old]
    assert found.notes == ()


def test_an_unknown_or_short_digest_is_refused() -> None:
    results = [depth("vit", weights_digest=f"w{i}")[0] for i in range(40)]
    firsts = [result.encoder.digest[0] for result in results if result.encoder.digest]
    twice = max(firsts, key=firsts.count)
    with pytest.raises(UsageError, match="give more digits"):
        pick(f"vit@{twice}", *results)
    with pytest.raises(UsageError, match=f"the digests are {digest('w0')[:7]}"):
        pick("vit@xyz", results[0])


def test_a_failed_newest_attempt_does_not_fall_back_on_the_checkpoint_before() -> None:
    """The new checkpoint cannot be loaded: the old one's good numbers must not stand for it."""
    found = pick("vit", depth("vit", started=OLD)[0], failed("vit", started=NEW))
    assert found.results == ()
    assert "NaN features" in found.gone[0][1]


def test_a_failure_that_was_made_up_for_is_gone() -> None:
    found = pick("vit", failed("vit", started=OLD), depth("vit", started=NEW)[0])
    assert tasks(found) == {"depth"}
    assert found.gone == ()


def test_an_encoder_that_only_failed_has_no_results_but_a_reason() -> None:
    found = pick("vit", failed("vit"))
    assert found.results == ()
    assert found.gone[0][1] == "failed: NaN features"


def test_random_weights_never_stand_for_real_ones() -> None:
    real = depth("vit", started=OLD)[0]
    random = depth("vit", weights="random", weights_digest="r", started=NEW)[0]
    assert [result for _, result in pick("vit", real, random).results] == [real]
    assert [result for _, result in pick("vit [random weights]", real, random).results] == [random]
    assert [result for _, result in pick("vit", random).results] == [random]


def test_an_encoder_file_is_named_as_in_its_run() -> None:
    results = [depth(name, weights_digest=name)[0] for name in ("mine", "mine:small")]
    assert pick("some/mine.py", *results).label == "mine"
    assert pick("mine.py:small", *results).label == "mine:small"
    assert pick(f"mine.py@{digest('mine')[:7]}", *results).label == "mine"


def test_a_copied_file_is_one_result() -> None:
    result = depth("vit")[0]
    assert len(pick("vit", result, result).results) == 1


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no results of 'vot' in runs \(did you mean vit"):
        pick("vot", depth("vit")[0])
    with pytest.raises(UnavailableError, match="dune-bench run"):
        pick("vit")
