"""Downloads are fetched once and kept as safetensors."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from pathlib import Path

import pytest
import torch

from dune_bench.encoders.load import load_encoder
from dune_bench.encoders.weights import locate_released, weights_dir
from dune_bench.errors import UnavailableError
from tests.encoders.conftest import Server
from tests.encoders.released import save_released
from tests.encoders.test_dune import file_state
from tests.encoders.test_weights import card


def test_released_weights_are_fetched_once_and_kept_as_safetensors(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.body = save_released(tmp_path / "made.pth", file_state()).read_bytes()
    digest = hashlib.sha256(server.body).hexdigest()
    with caplog.at_level(logging.WARNING):
        first = load_encoder(card(server.url, sha256=digest), cache=tmp_path / "cache")
    assert "licence: NAVER non-commercial (https://example.org/L)" in caplog.text
    second = load_encoder(card(server.url, sha256=digest), cache=tmp_path / "cache", offline=True)
    assert len(server.seen) == 1
    assert first.identity() == second.identity()
    assert (first.weights, second.weights) == ("released", "released")
    folder = weights_dir(card(server.url), tmp_path / "cache")
    record = json.loads((folder / "dune.safetensors.json").read_text())
    assert (record["sha256"], record["size"]) == (digest, len(server.body))
    assert (record["source"], record["licence"]) == (server.url, "NAVER non-commercial")
    assert (folder / "dune.safetensors").is_file()


def test_copy_of_another_version_is_not_used(server: Server, tmp_path: Path) -> None:
    server.body = save_released(tmp_path / "made.pth", file_state()).read_bytes()
    first = load_encoder(card(server.url), cache=tmp_path)
    changed = file_state() | {"encoder.norm.bias": torch.ones(24)}
    server.body = save_released(tmp_path / "made.pth", changed).read_bytes()
    assert load_encoder(card(server.url), cache=tmp_path).weights_digest == first.weights_digest
    digest = hashlib.sha256(server.body).hexdigest()
    assert (
        load_encoder(card(server.url, sha256=digest), cache=tmp_path).weights_digest != first.weights_digest
    )


def test_download_that_also_holds_the_decoder_is_not_fetched_twice(server: Server, tmp_path: Path) -> None:
    server.body = save_released(tmp_path / "made.pth", file_state()).read_bytes()
    plain = card(server.url)
    both = plain.model_copy(update={"decoders": plain.weights})
    first = load_encoder(both, cache=tmp_path)
    found = locate_released(both, "decoders", cache=tmp_path, offline=True)
    assert found.path == weights_dir(both, tmp_path) / "dune.pth"
    assert found.path.read_bytes() == server.body
    assert load_encoder(both, cache=tmp_path, offline=True).identity() == first.identity()
    assert len(server.seen) == 1


def test_damaged_copy_is_made_anew(server: Server, tmp_path: Path) -> None:
    server.body = save_released(tmp_path / "made.pth", file_state()).read_bytes()
    first = load_encoder(card(server.url), cache=tmp_path)
    copy = weights_dir(card(server.url), tmp_path) / "dune.safetensors"
    copy.write_bytes(copy.read_bytes()[:1000])
    assert load_encoder(card(server.url), cache=tmp_path).weights_digest == first.weights_digest


def test_full_disk_keeps_the_download_and_says_so(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dune_bench.encoders.copies.save_file", full)
    server.body = save_released(tmp_path / "made.pth", file_state()).read_bytes()
    first = load_encoder(card(server.url), cache=tmp_path)
    assert "No space left on device" in caplog.text
    folder = weights_dir(card(server.url), tmp_path)
    assert (folder / "dune.pth").read_bytes() == server.body
    assert not list(folder.glob("*.part"))
    assert load_encoder(card(server.url), cache=tmp_path, offline=True).identity() == first.identity()


def test_two_runs_at_once_load_the_same_weights(server: Server, tmp_path: Path) -> None:
    server.body = save_released(tmp_path / "made.pth", file_state()).read_bytes()
    digests: list[str | None] = []
    threads = [
        threading.Thread(
            target=lambda: digests.append(load_encoder(card(server.url), cache=tmp_path).weights_digest)
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 3
    assert len(set(digests)) == 1
    assert server.seen == [None]


def test_unwritable_cache_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="set DUNE_BENCH_CACHE to another folder"):
        load_encoder(card("http://127.0.0.1:9/dune.pth"), cache=tmp_path / "file")
