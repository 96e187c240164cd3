"""`cache`: what is damaged is named, what is pruned is really gone, and nothing else."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from dune_bench.run.chunks import ChunkWriter, Layout, verify_checksum
from tests.cli.conftest import Command

LAYOUT = Layout(dim=4, grid=(2, 2), image_size=(28, 28), padding=(0, 0, 0, 0), has_cls=False)


def write_features(key: str, days_old: float = 0.0) -> Path:
    """One sound entry of the feature cache, last used some days ago."""
    folder = Path("cache/features") / key[:2] / key
    with ChunkWriter(folder, ["image"], LAYOUT) as writer:
        writer.add(np.ones((1, 2, 2, 4), np.float32), None)
        writer.commit()
    os.utime(folder, (time.time() - days_old * 86_400,) * 2)
    return next(folder.glob("*.features"))


def write_weights(name: str) -> Path:
    path = Path("cache/weights") / name / "x.safetensors"
    path.parent.mkdir(parents=True)
    save_file({"w": np.ones(3, np.float32)}, path)
    return path


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_ls_names_entries_and_the_budget(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUNE_BENCH_CACHE_BYTES", "3 GB")
    write_features("aa11")
    write_weights("vit")
    answer = command("cache", "ls")
    assert answer.code == 0
    assert "aa11" in answer.out
    assert "vit" in answer.out
    assert "of at most 3.0 GB" in answer.out


def test_an_empty_cache_is_no_error(command: Command) -> None:
    assert [command("cache", verb).code for verb in ("ls", "verify", "prune")] == [0, 0, 0]


def test_verify_passes_what_is_sound(command: Command) -> None:
    write_features("aa11")
    write_weights("vit")
    assert command("cache", "verify").out == "cache: ok\n"


def test_damaged_features_are_found_and_only_they_are_pruned(command: Command) -> None:
    good, bad = write_features("aa11"), write_features("bb22")
    damage(bad)
    answer = command("cache", "verify")
    assert answer.code == 1
    assert str(bad) in answer.error
    assert command("cache", "prune").code == 0
    assert (good.exists(), bad.exists()) == (True, False)
    assert command("cache", "verify").code == 0


def test_truncated_weights_are_found_and_pruned(command: Command) -> None:
    path = write_weights("vit")
    path.write_bytes(path.read_bytes()[:-4])
    assert str(path) in command("cache", "verify").error
    command("cache", "prune")
    assert not path.exists()


def test_prune_by_age_spares_the_young(command: Command) -> None:
    old, young = write_features("aa11", days_old=40), write_features("bb22", days_old=1)
    answer = command("cache", "prune", "--older-than", "30")
    assert (old.exists(), young.exists()) == (False, True)
    assert str(old.parent) in answer.out


def test_prune_keeps_within_the_budget_oldest_first(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, young = write_features("aa11", days_old=2), write_features("bb22", days_old=1)
    monkeypatch.setenv("DUNE_BENCH_CACHE_BYTES", str(young.stat().st_size + 10))
    command("cache", "prune")
    assert (old.exists(), young.exists()) == (False, True)


def test_prune_all_spares_weights_unless_asked(command: Command) -> None:
    features, weights = write_features("aa11"), write_weights("vit")
    command("cache", "prune", "--all")
    assert (features.exists(), weights.exists()) == (False, True)
    command("cache", "prune", "--weights")
    assert not weights.exists()


def test_results_are_never_pruned(command: Command) -> None:
    result = Path("runs/results/x/y.json")
    result.parent.mkdir(parents=True)
    result.write_text("{}")
    command("cache", "prune", "--all", "--weights")
    assert result.exists()


@pytest.mark.parametrize(
    "verb", [("verify",), ("prune",), ("prune", "--all"), ("prune", "--older-than", "0")]
)
def test_what_a_run_is_writing_is_neither_damaged_nor_pruned(command: Command, verb: tuple[str, ...]) -> None:
    idle, folder = write_features("bb22"), Path("cache/features/aa/aa11")
    with ChunkWriter(folder, ["image"], LAYOUT) as writer:
        # As earlier releases named it, too: with the ending of a finished chunk.
        old_style = folder / f".writing-{socket.gethostname()}-{os.getpid()}-0f.features"
        old_style.write_bytes(b"half")
        answer = command("cache", *verb)
        assert (answer.code, answer.err) == (0, "")
        assert old_style.exists()
        writer.add(np.ones((1, 2, 2, 4), np.float32), None)
        written = writer.commit()
    assert verify_checksum(written.path) is None
    assert idle.exists() == (len(verb) == 1)


def test_unreadable_budget_is_refused_before_anything_is_pruned(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = write_features("bb22")
    damage(bad)
    monkeypatch.setenv("DUNE_BENCH_CACHE_BYTES", "lots")
    answer = command("cache", "prune", "--all")
    assert answer.code == 2
    assert "DUNE_BENCH_CACHE_BYTES=lots" in answer.error
    assert bad.exists()
