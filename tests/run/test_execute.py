"""What a run leaves, and what it does when things go wrong."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dune_bench.errors import ExitCode, TaskError
from dune_bench.registry.cards import DatasetUse, EncoderCard, InputPolicy, MetricSpec
from dune_bench.results.store import ResultStore
from dune_bench.run.execute import execute
from dune_bench.run.features import CHUNK_IMAGES
from dune_bench.run.request import RunRequest, RunSummary
from tests.run.fakes import Blocks, LineProbe, ToyEncoder, fake_registry, line_card
from tests.run.recorder import Recorder

RUNS = Path("runs")


def run(
    *encoders: Any, cards: tuple[Any, ...] = (), ui: Recorder | None = None, **options: Any
) -> RunSummary:
    request = RunRequest(encoders=encoders or (ToyEncoder(),), **options)
    return execute(request, ui or Recorder(), fake_registry(*cards))


def facts(summary: RunSummary) -> list[dict[str, Any]]:
    """Results without what may differ between equal runs."""
    kept = []
    for outcome in summary.outcomes:
        raw = outcome.result.model_dump()
        for name in ("timings", "provenance", "samples"):
            raw.pop(name)
        raw["cost"].pop("latency_ms")
        raw["cost"].pop("batch_size")
        kept.append(raw)
    return kept


def one(summary: RunSummary) -> Any:
    assert len(summary.outcomes) == 1
    return summary.outcomes[0].result


def test_result_holds_the_metrics_that_an_independent_fit_gives() -> None:
    """The whole path against a few lines of numpy on the same features."""
    result = one(run(ToyEncoder()))
    x, y = {}, {}
    for split in ("train", "test"):
        samples = list(Blocks("blocks@1").samples(_depth(), split))
        images = np.stack([_small(sample.image.read()) for sample in samples])
        found = ToyEncoder().encode(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)["norm"]
        x[split] = np.c_[found.patch.double().mean((2, 3)).numpy(), np.ones(len(samples))]
        y[split] = np.array([sample.depth.mean() for sample in samples], np.float64)
    w = np.linalg.solve(x["train"].T @ x["train"] + 1e-3 * np.eye(7), x["train"].T @ y["train"])
    rmse = np.sqrt(np.mean((x["test"] @ w - y["test"]) ** 2))
    assert result.primary.value == pytest.approx(rmse, rel=1e-9)
    assert result.primary.ci95[0] < rmse < result.primary.ci95[1]
    assert (result.primary.n, result.task.split_sizes) == (48, {"train": 24, "test": 48})


def _depth() -> type:
    from dune_bench.data.samples import DepthSample

    return DepthSample


def _small(pixels: Any) -> Any:
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BICUBIC))


def test_nothing_to_do_computes_nothing() -> None:
    first = run("pixels")
    Blocks.decoded.clear()
    LineProbe.fits.clear()
    ui = Recorder()
    second = run("pixels", ui=ui)
    assert [outcome.reused for outcome in second.outcomes] == [True]
    assert (Blocks.decoded, LineProbe.fits, ui.phases) == ([], [], [])
    assert one(second) == one(first)


def test_nothing_to_do_loads_no_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    run("pixels")
    monkeypatch.setattr("dune_bench.run.encoder_run.load_encoder", _never)
    assert run("pixels").outcomes[0].reused


def _never(*args: Any, **options: Any) -> Any:
    raise AssertionError("an encoder was loaded")


def test_fresh_reuses_neither_result_nor_head_nor_features() -> None:
    first = run()
    Blocks.decoded.clear()
    LineProbe.fits.clear()
    second = run(fresh=True)
    assert len(Blocks.decoded) == 72
    assert len(LineProbe.fits) == 1
    assert facts(second) == facts(first)


def test_damaged_result_is_made_anew_from_what_is_still_sound() -> None:
    first = run()
    path = first.outcomes[0].path
    path.with_suffix(".npz").write_bytes(b"zip?")
    Blocks.decoded.clear()
    LineProbe.fits.clear()
    second = run()
    assert not second.outcomes[0].reused
    assert (Blocks.decoded, LineProbe.fits) == ([], [])
    assert facts(second) == facts(first)


def test_damaged_head_is_fitted_again_with_a_warning() -> None:
    first = run()
    head = next(RUNS.rglob("heads/**/*.safetensors"))
    head.write_bytes(head.read_bytes()[:-1])
    first.outcomes[0].path.unlink()
    ui = Recorder()
    assert facts(run(ui=ui)) == facts(first)
    assert any("damaged head" in warning for warning in ui.warnings)


def test_damaged_features_are_computed_again_with_a_warning(tmp_path: Path) -> None:
    first = run()
    for file in (tmp_path / "cache").rglob("*.features"):
        file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    first.outcomes[0].path.unlink()
    next(RUNS.rglob("heads/**/*.json")).unlink()
    ui = Recorder()
    assert facts(run(ui=ui)) == facts(first)
    assert sum("checksum does not match" in warning for warning in ui.warnings) == 3


def test_other_weights_are_not_served_from_the_cache() -> None:
    first = one(run(ToyEncoder(digest="d1")))
    Blocks.decoded.clear()
    second = one(run(ToyEncoder(digest="d2", scale=0.01)))
    assert len(Blocks.decoded) == 72
    assert first.key != second.key
    assert first.primary.value != second.primary.value
    assert len(list(RUNS.glob("results/toy/*.json"))) == 2


def test_encoder_without_a_digest_is_never_reused_and_leaves_no_features(tmp_path: Path) -> None:
    run(ToyEncoder(digest=None))
    Blocks.decoded.clear()
    second = run(ToyEncoder(digest=None, scale=0.01))
    assert len(Blocks.decoded) == 72
    assert not second.outcomes[0].reused
    assert list((tmp_path / "cache").rglob("*.features")) == []
    assert list(RUNS.rglob("heads/**/*.safetensors")) == []


def test_views_of_several_tasks_come_from_one_forward() -> None:
    encoder = ToyEncoder()
    cards = (line_card(1), line_card(2, probe="plane", id="plane/blocks/convex@2"))
    registry = fake_registry(*cards)
    registry.probes["plane"] = registry.probes["line"]
    views = {"default": "norm", "plane": "raw"}
    Path("w.bin").touch()
    card = EncoderCard(id="toy", kind="toy", views=views, weights=({"file": "w.bin", "licence": "none"},))
    registry.add_encoder(card, "test")
    registry.adapters["toy"] = "tests.run.fakes:ToyAdapter"
    made = ToyAdapterProbe(encoder)
    with made:
        summary = execute(RunRequest(encoders=("toy",)), Recorder(), registry)
    assert summary.exit_code is ExitCode.OK
    assert {outcome.result.encoder.view for outcome in summary.outcomes} == {"norm", "raw"}
    batches = [views for views in encoder.views_seen if len(views) == 2]
    assert sum(encoder.forwards) == 72 + 2  # and one measuring forward per view
    assert len(batches) == len(encoder.views_seen) - 2


class ToyAdapterProbe:
    """Makes `ToyAdapter` give a certain encoder for a while."""

    def __init__(self, encoder: ToyEncoder) -> None:
        self.encoder = encoder

    def __enter__(self) -> None:
        from tests.run.fakes import ToyAdapter

        ToyAdapter.made = self.encoder

    def __exit__(self, *_: object) -> None:
        from tests.run.fakes import ToyAdapter

        ToyAdapter.made = None


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("nan", "non-finite features"),
        ("shape", "check patch_size (8)"),
        ("crash", "ValueError: my own bug (at "),
    ],
)
def test_bad_encoder_fails_alone_with_one_line(broken: str, words: str) -> None:
    summary = run(ToyEncoder("bad", broken=broken), ToyEncoder())
    bad, good = (outcome.result for outcome in summary.outcomes)
    assert (bad.status, good.status, summary.exit_code) == ("failed", "ok", ExitCode.FAILED)
    assert bad.error is not None
    assert words in bad.error
    assert "bad" in bad.error
    assert "\n" not in bad.error


def test_unknown_view_is_a_usage_error_of_that_encoder() -> None:
    summary = run(ToyEncoder(), view="layer:9")
    assert summary.exit_code is ExitCode.USAGE
    assert "no view 'layer:9' (it has 2 layers)" in str(one(summary).error)


def test_fail_fast_stops_and_keep_going_does_not() -> None:
    assert len(run(ToyEncoder("bad", broken="nan"), ToyEncoder(), keep_going=False).outcomes) == 1
    assert len(run(ToyEncoder("bad", broken="nan"), ToyEncoder()).outcomes) == 2


def test_failed_task_is_tried_again() -> None:
    Blocks.corrupt = "test3/1"
    first = run()
    assert one(first).error == "test3/1: damaged image (test)"
    Blocks.corrupt = None
    second = run()
    assert one(second).status == "ok"
    assert first.outcomes[0].path == second.outcomes[0].path


def test_failure_does_not_replace_a_good_result_of_the_same_identity() -> None:
    good = run()
    Blocks.corrupt = "test3/1"
    bad = run(fresh=True)
    assert bad.exit_code is ExitCode.FAILED
    assert ResultStore(RUNS).read(good.outcomes[0].path).status == "ok"


def test_failure_of_an_unidentified_encoder_replaces_what_may_be_of_another() -> None:
    good = run(ToyEncoder(digest=None))
    bad = run(ToyEncoder(digest=None, broken="nan"))
    assert good.outcomes[0].path == bad.outcomes[0].path
    assert ResultStore(RUNS).read(good.outcomes[0].path).status == "failed"


def test_missing_encoder_is_unavailable_and_its_result_goes_once_there_is_another() -> None:
    weights = {"file": "w.bin", "licence": "none"}
    card = EncoderCard(id="gone", kind="dune", weights=(weights,))
    registry = fake_registry()
    registry.add_encoder(card, "test")
    summary = execute(RunRequest(encoders=("gone", ToyEncoder())), Recorder(), registry)
    gone, good = (outcome.result for outcome in summary.outcomes)
    assert (gone.status, good.status, summary.exit_code) == ("unavailable", "ok", ExitCode.UNAVAILABLE)
    assert gone.task == good.task  # one column
    registry.adapters["dune"] = "tests.run.fakes:ToyAdapter"
    with ToyAdapterProbe(ToyEncoder("gone")):
        assert execute(RunRequest(encoders=("gone",)), Recorder(), registry).exit_code is ExitCode.UNAVAILABLE
        Path("w.bin").write_bytes(b"weights")
        again = execute(RunRequest(encoders=("gone",)), Recorder(), registry)
    assert again.exit_code is ExitCode.OK
    assert [path.exists() for path in (summary.outcomes[0].path, again.outcomes[0].path)] == [False, True]


def test_missing_data_is_unavailable_not_failed() -> None:
    Blocks.missing = True
    summary = run()
    assert (one(summary).status, summary.exit_code) == ("unavailable", ExitCode.UNAVAILABLE)


def test_verify_finds_changed_data_files() -> None:
    Blocks.problems = ["train.zip: changed", "test.zip: changed"]
    assert run().exit_code is ExitCode.OK
    summary = run(verify=True, fresh=True)
    assert "does not verify: train.zip: changed (and 1 more)" in str(one(summary).error)


def upstream_cards(**upstream: Any) -> tuple[Any, ...]:
    return (
        line_card(2, suites=(), **upstream),
        line_card(1, requires={"base": "line/blocks/convex@2"}),
    )


def test_upstream_head_is_fitted_but_not_reported() -> None:
    summary = run(cards=upstream_cards())
    result = one(summary)
    assert result.task.id == "line/blocks/convex@1"
    assert len(LineProbe.fits) == 2
    assert set(result.task.upstream) == {"base"}
    assert len(list(RUNS.rglob("heads/**/*.json"))) == 2


def test_upstream_head_comes_with_features_at_its_own_input() -> None:
    summary = run(cards=upstream_cards(input=InputPolicy(resolution=24)))
    assert one(summary).status == "ok"
    fit, score = LineProbe.upstream_grids
    images = [len(set(split)) for split in _images_by_split()]
    assert fit == ((3, 3), (images[0], 6))
    assert score == ((3, 3), (images[1], 6))
    # All of it comes from the cache the second time.
    decoded = len(Blocks.decoded)
    assert one(run(cards=upstream_cards(input=InputPolicy(resolution=24)))).status == "ok"
    assert len(Blocks.decoded) == decoded


def _images_by_split() -> list[list[str]]:
    from dune_bench.data.samples import DepthSample

    return [list(Blocks("blocks@1").samples(DepthSample, split).ids) for split in ("train", "test")]


def test_failing_upstream_fails_its_consumer_and_says_so() -> None:
    summary = run(cards=upstream_cards(protocol={"fail": True}))
    assert (one(summary).status, one(summary).error) == (
        "failed",
        "upstream line/blocks/convex@2: no solution (test)",
    )
    assert summary.exit_code is ExitCode.FAILED


def test_consumer_misses_when_its_upstream_changes() -> None:
    first = one(run(cards=upstream_cards()))
    second = one(run(cards=upstream_cards(protocol={"ridge": 0.5})))
    assert first.key != second.key


def test_other_tasks_do_not_move_a_key() -> None:
    alone = one(run(cards=(line_card(1),))).key
    both = run(cards=(line_card(1), line_card(2, protocol={"ridge": 0.5})), runs=Path("other"))
    assert both.outcomes[0].result.key == alone


@pytest.mark.parametrize("change", [{"resolution": 24}, {"view": "raw"}, {"dtype": "bfloat16"}, {"limit": 8}])
def test_override_is_another_result(change: dict[str, Any]) -> None:
    base, other = one(run()), one(run(**change))
    assert base.key != other.key
    shown = {**other.task.overrides, **({"limit": other.task.limited} if other.task.limited else {})}
    assert shown == change


def test_limit_that_leaves_nothing_out_is_the_unlimited_run() -> None:
    key = one(run()).key
    summary = run(limit=1000)
    assert summary.outcomes[0].reused
    assert one(summary).key == key
    assert one(summary).task.limited is None


def test_limit_takes_whole_rooms() -> None:
    result = one(run(limit=9))
    assert result.task.split_sizes == {"train": 12, "test": 12}
    assert result.task.groups == {"train": 3, "test": 3}
    assert result.task.limited == 9
    assert result.primary.ci95 is None


def test_seeds_are_averaged_and_widen_the_interval() -> None:
    card = line_card(seeds=(0, 1, 2), protocol={"noise": 0.01})
    summary = run(cards=(card,))
    result = one(summary)
    singles = [
        one(run(cards=(card,), seeds=(seed,), runs=Path(f"s{seed}"))).primary.value for seed in (0, 1, 2)
    ]
    assert len(set(singles)) == 3
    assert result.primary.value == pytest.approx(np.mean(singles), rel=1e-12)
    assert (result.seeds, set(result.choices)) == ((0, 1, 2), {"seed 0", "seed 1", "seed 2"})
    arrays = ResultStore(RUNS).arrays(
        summary.outcomes[0].path, ResultStore(RUNS).read(summary.outcomes[0].path)
    )
    assert set(arrays) == {"id", "group", "seed0.se", "seed1.se", "seed2.se"}
    width = np.diff(result.primary.ci95)[0]
    assert width > 2 * np.std(singles, ddof=1) / np.sqrt(3)


def test_fit_of_one_task_does_not_move_the_random_numbers_of_another() -> None:
    noisy = {"seeds": (0,), "protocol": {"noise": 0.01}}
    alone = one(run(cards=(line_card(2, **noisy),)))
    both = run(cards=(line_card(1, **noisy), line_card(2, **noisy)), runs=Path("other"))
    assert both.outcomes[1].result.primary.value == alone.primary.value


def test_statistics_name_samples_and_groups() -> None:
    outcome = run().outcomes[0]
    arrays = ResultStore(RUNS).arrays(outcome.path, ResultStore(RUNS).read(outcome.path))
    assert arrays["id"][:2].tolist() == ["test0/0", "test0/1"]
    assert arrays["group"][-1] == "test11"
    assert arrays["se"].shape == (48,)


def test_undefined_metric_is_null_not_zero_and_not_nan() -> None:
    metrics = (
        MetricSpec(id="rmse_m", unit="m", higher_is_better=False, primary=True),
        MetricSpec(id="nothing", unit="1", higher_is_better=True),
    )
    outcome = run(cards=(line_card(metrics=metrics),)).outcomes[0]
    raw = json.loads(outcome.path.read_text())
    assert raw["metrics"][1]["value"] is None
    assert raw["metrics"][1]["ci95"] is None


def test_metric_that_the_probe_does_not_give_is_named() -> None:
    metrics = (MetricSpec(id="rmse_mm", unit="mm", higher_is_better=False, primary=True),)
    error = one(run(cards=(line_card(metrics=metrics),))).error
    assert "gives no metric 'rmse_mm' (it gives mse, nothing, rmse_m)" in error


def test_unknown_split_of_a_card_fails_that_task_only() -> None:
    bad = line_card(2, dataset=DatasetUse(name="blocks@1", fit="train", score="dev"))
    summary = run(cards=(line_card(1), bad))
    assert [outcome.result.status for outcome in summary.outcomes] == ["ok", "failed"]


def test_images_of_several_sizes_without_a_resolution_are_refused() -> None:
    result = one(run(cards=(line_card(input=InputPolicy(resize="none")),)))
    assert result.status == "ok"  # all Blocks are of one size


def test_progress_reaches_its_total_and_outcomes_are_counted() -> None:
    ui = Recorder()
    run(ToyEncoder(), ToyEncoder("other", digest="d3"), ui=ui)
    assert [(done, total) for _, done, total in ui.outcomes] == [(1, 2), (2, 2)]
    last = {title: (done, total) for title, done, total in ui.updates}
    assert all(done == total for done, total in last.values())
    assert any("images to forward" in message and "budget" in message for message in ui.messages)


def test_budget_too_small_fails_before_the_first_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUNE_BENCH_CACHE_BYTES", "1 kB")
    summary = run()
    assert summary.exit_code is ExitCode.FAILED
    assert "DUNE_BENCH_CACHE_BYTES" in str(one(summary).error)
    assert Blocks.decoded == []


def test_result_is_on_disk_before_the_next_encoder_starts() -> None:
    """A crash must lose nothing that is finished."""

    class Killed(BaseException):
        pass

    class Killing(Recorder):
        def outcome(self, outcome: Any, done: int, total: int) -> None:
            if done == 1:
                assert outcome.path.is_file()
                raise Killed

    with pytest.raises(Killed):
        run(ToyEncoder(), ToyEncoder("other", digest="d3"), ui=Killing())
    summary = run(ToyEncoder(), ToyEncoder("other", digest="d3"))
    assert [outcome.reused for outcome in summary.outcomes] == [True, False]


def test_disk_full_while_caching_is_one_line_and_finished_chunks_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = facts(run(runs=Path("undisturbed")))
    shutil.rmtree("cache")
    synced, fsync = [], os.fsync

    def full(handle: int) -> None:
        synced.append(handle)
        if len(synced) > 2:  # the lock's facts and one chunk
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr("dune_bench.run.chunks.os.fsync", full)
        with pytest.raises(TaskError, match="No space left on device"):
            run()  # the disk is too full for the failed result, too
    Blocks.decoded.clear()
    again = run()
    assert facts(again) == whole
    assert len(Blocks.decoded) == 72 - CHUNK_IMAGES
