"""One file over HTTP: resumable, checked, never half there."""

from __future__ import annotations

import hashlib
import logging
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from filelock import FileLock

from dune_bench.errors import UnavailableError

logger = logging.getLogger(__name__)

CHUNK = 1 << 20
TIMEOUT_S = 30.0
SIZE_TOLERANCE = 0.1
"""Cards state sizes to two or three digits; a file further off than this is another file."""


class Progress(Protocol):
    """Receives the course of one download, in bytes."""

    def start(self, name: str, total: int | None, done: int) -> None: ...

    def advance(self, done: int) -> None: ...


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Gets `url` into `target`, continuing `target.part` of an earlier attempt.

    size: bytes as the card states them, to `SIZE_TOLERANCE`.  sha256: exact, hex.  The file appears
    under its name only when complete.  Two processes do not load the same file twice.
    Raises UnavailableError (one line: what failed; the part is kept unless it is wrong).
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise UnavailableError(f"{url}: only http and https are downloaded")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not target.is_file():
                part = target.with_name(target.name + ".part")
                _fetch(url, part, progress)
                _verify(url, part, size, sha256)
                part.replace(target)
                _validator(part).unlink(missing_ok=True)
    except urllib.error.HTTPError as error:
        error.close()
        raise UnavailableError(f"{url}: the server answers {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise UnavailableError(f"{url}: no connection ({_reason(error)})") from error
    except (HTTPException, TimeoutError, ConnectionError) as error:
        what = f"{type(error).__name__} {error}".strip()
        raise UnavailableError(f"{url}: the connection broke ({what}); next time it resumes") from error
    except OSError as error:
        raise UnavailableError(f"{url}: cannot write {target} ({error.strerror or error})") from error


def _fetch(url: str, part: Path, progress: Progress | None) -> None:
    done = part.stat().st_size if part.is_file() else 0
    response = _open(url, part, done)
    with response:
        if response.status != 206:
            done = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else done + int(length)
        tag = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if tag:
            _validator(part).write_text(tag, encoding="latin-1")
        if progress:
            progress.start(part.stem, total, done)
        with part.open("ab" if done else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                if progress:
                    progress.advance(len(chunk))
    if total is not None and done != total:
        raise UnavailableError(f"{url}: connection broke at {done} of {total} bytes; next time it resumes")


def _open(url: str, part: Path, done: int) -> HTTPResponse:
    """The response to a request for all bytes, or for those from `done` on if they are of the same
    file still (If-Range)."""
    tag = _validator(part)
    headers = {"User-Agent": "dune-bench"}
    if done and tag.is_file():
        headers |= {"Range": f"bytes={done}-", "If-Range": tag.read_text(encoding="latin-1")}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 (the scheme is checked)
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code != 416 or not done:
            raise
        # Nothing is left to send: a complete part whose renaming was interrupted, or a stale one.
        error.close()
        part.unlink()
        return _open(url, part, 0)
    return response


def _verify(url: str, part: Path, size: int | None, sha256: str | None) -> None:
    problem = ""
    got = part.stat().st_size
    if sha256 is not None:
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != sha256.lower():
            problem = f"its sha256 is {digest}, the card says {sha256}"
    elif size is not None and abs(got - size) > SIZE_TOLERANCE * size:
        problem = f"it has {got} bytes, the card says {size}"
    if problem:
        part.unlink()
        _validator(part).unlink(missing_ok=True)
        raise UnavailableError(f"{url}: not the file the card means ({problem}): removed")


def _reason(error: urllib.error.URLError) -> str:
    inner = error.reason
    return inner.strerror or str(inner) if isinstance(inner, OSError) else str(inner)


def _validator(part: Path) -> Path:
    return part.with_name(part.name + ".tag")
