from __future__ import annotations

import os
from pathlib import Path

import pytest

from dune_bench.encoders.load import load_encoder
from dune_bench.registry.cards import EncoderCard
from dune_bench.registry.lookup import Registry
from dune_bench.registry.paths import identity_cache
from dune_bench.run import identity
from dune_bench.run.identity import facts_of, pinned, recall, remember
from tests.run.fakes import ToyEncoder, fake_registry

PIXELS = EncoderCard(id="pixels", kind="pixels", views={"default": "raw"})
FILE = ({"file": "w.bin", "licence": "none"},)


def remembered(card: EncoderCard, registry: Registry | None = None, weights: str = "auto") -> None:
    remember(card, weights, ToyEncoder(card.id), registry or fake_registry())


def test_what_is_recalled_is_what_the_encoder_says() -> None:
    encoder = load_encoder(PIXELS)
    remember(PIXELS, "auto", encoder, fake_registry())
    assert recall(PIXELS, "auto") == facts_of(encoder)


def test_nothing_is_recalled_for_another_card_or_other_weights() -> None:
    remembered(PIXELS)
    assert recall(PIXELS.model_copy(update={"arch": {"patch": 7}}), "auto") is None
    assert recall(PIXELS, "random") is None


@pytest.mark.parametrize("change", ["content", "touch", "replace", "remove"])
def test_changed_weights_file_is_not_taken_for_the_old_one(change: str) -> None:
    card = EncoderCard(id="pixels", kind="pixels", weights=FILE)
    file = Path("w.bin")
    file.write_bytes(b"old")
    remembered(card)
    assert recall(card, "auto") is not None
    stat = file.stat()
    if change == "content":
        file.write_bytes(b"new")
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    elif change == "touch":
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    elif change == "replace":
        Path("other").write_bytes(b"new")
        os.utime("other", ns=(stat.st_atime_ns, stat.st_mtime_ns))
        Path("other").replace(file)
    else:
        file.unlink()
    assert recall(card, "auto") is None


def test_weights_given_by_path_are_watched_too() -> None:
    file = Path("mine.pth")
    file.write_bytes(b"old")
    remembered(PIXELS, weights="mine.pth")
    assert recall(PIXELS, "mine.pth") is not None
    file.write_bytes(b"newer")
    assert recall(PIXELS, "mine.pth") is None


def test_other_library_version_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    remembered(PIXELS)
    monkeypatch.setattr(identity, "version", lambda name: "0.0")
    assert recall(PIXELS, "auto") is None


def test_encoder_that_cannot_be_watched_is_not_remembered() -> None:
    registry = fake_registry()
    registry.adapters["foreign"] = "plugin:Adapter"
    remembered(EncoderCard(id="a", kind="file", arch={"path": "a.py"}), registry)
    remembered(EncoderCard(id="a", kind="foreign"), registry)
    remembered(EncoderCard(id="timm:vit_tiny", kind="timm", arch={"name": "vit_tiny_patch16_224"}), registry)
    remember(PIXELS, "auto", ToyEncoder(digest=None), registry)
    assert not list(identity_cache().glob("*"))


def test_damaged_memory_is_no_memory() -> None:
    remembered(PIXELS)
    (memory,) = identity_cache().glob("*.json")
    for text in ("", "[]", '{"stamps": []}', memory.read_text()[:-9]):
        memory.write_text(text)
        assert recall(PIXELS, "auto") is None


def test_two_folders_of_one_name_are_not_the_same_results(tmp_path: Path) -> None:
    registry = fake_registry()
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "encoder.yaml").write_text(
            "{id: smoke, kind: pixels, weights: [{file: w.bin, licence: none}]}"
        )
        (folder / "w.bin").write_bytes(name.encode())
        encoder = ToyEncoder("smoke")
        encoder.weights_digest = name * 64
        remember(registry.encoder(str(folder)), "auto", encoder, registry)
    assert [pinned(str(tmp_path / name), registry) for name in "ab"] == [
        f"smoke@{'a' * 64}",
        f"smoke@{'b' * 64}",
    ]
    (tmp_path / "a" / "w.bin").write_bytes(b"trained anew")
    assert pinned(str(tmp_path / "a"), registry) == str(tmp_path / "a")
