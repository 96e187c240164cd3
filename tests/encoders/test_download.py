"""Downloads over loopback: resumed, checked, never half there."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from dune_bench.encoders.download import download
from dune_bench.errors import UnavailableError
from tests.encoders.conftest import BODY, Server


def fails(url: str, target: Path, **options: object) -> str:
    with pytest.raises(UnavailableError) as caught:
        download(url, target, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not target.exists()
    return str(caught.value)


def test_broken_download_resumes_where_it_stopped(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "dune.pth"
    server.cut = 700_000
    assert "next time it resumes" in fails(server.url, target)
    server.cut = None
    download(server.url, target, sha256=hashlib.sha256(BODY).hexdigest())
    assert target.read_bytes() == BODY
    assert server.seen == [None, "bytes=700000-"]
    assert {path.name for path in target.parent.iterdir()} <= {"dune.pth", "dune.pth.lock"}


def test_part_of_another_version_is_not_continued(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "dune.pth"
    server.cut = 700_000
    fails(server.url, target)
    server.body, server.tag, server.cut = BODY[::-1], '"two"', None
    download(server.url, target)
    assert target.read_bytes() == BODY[::-1]


def test_server_without_ranges_is_asked_for_everything(server: Server, tmp_path: Path) -> None:
    server.cut = 700_000
    fails(server.url, tmp_path / "dune.pth")
    server.cut, server.ranges = None, False
    download(server.url, tmp_path / "dune.pth")
    assert (tmp_path / "dune.pth").read_bytes() == BODY


def test_complete_part_is_not_an_error(server: Server, tmp_path: Path) -> None:
    (tmp_path / "dune.pth.part").write_bytes(BODY)
    (tmp_path / "dune.pth.part.tag").write_text(server.tag)
    download(server.url, tmp_path / "dune.pth")
    assert (tmp_path / "dune.pth").read_bytes() == BODY


def test_other_file_than_the_cards_is_removed(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "dune.pth"
    assert "the card says 420000000" in fails(server.url, target, size=420_000_000)
    assert "its sha256 is" in fails(server.url, target, sha256="0" * 64)
    assert not target.with_name("dune.pth.part").exists()
    download(server.url, target, size=round(len(BODY) * 1.05))


@pytest.mark.parametrize("status", [403, 404, 500])
def test_answer_of_the_server_is_named(server: Server, tmp_path: Path, status: int) -> None:
    server.status = status
    assert f"the server answers {status}" in fails(server.url, tmp_path / "dune.pth")


def test_refused_connection_and_odd_schemes_are_one_line(server: Server, tmp_path: Path) -> None:
    assert "no connection" in fails("http://127.0.0.1:9/dune.pth", tmp_path / "dune.pth")
    assert "only http" in fails("file:///etc/passwd", tmp_path / "dune.pth")
    (tmp_path / "file").write_text("")
    assert "cannot write" in fails(server.url, tmp_path / "file" / "dune.pth")


def test_full_disk_is_one_line(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dune_bench.encoders.download._fetch", full)
    assert "No space left on device" in fails(server.url, tmp_path / "dune.pth")


def test_progress_counts_every_byte(server: Server, tmp_path: Path) -> None:
    steps: list[int] = []

    class Meter:
        def start(self, name: str, total: int | None, done: int) -> None:
            assert (name, total) == ("dune.pth", len(BODY))
            steps.append(done)

        def advance(self, done: int) -> None:
            steps.append(done)

    download(server.url, tmp_path / "dune.pth", progress=Meter())
    assert sum(steps) == len(BODY)


def test_two_downloads_at_once_fetch_once(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "dune.pth"
    threads = [threading.Thread(target=download, args=(server.url, target)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() == BODY
    assert server.seen == [None]
