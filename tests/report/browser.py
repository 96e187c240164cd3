"""A headless Chromium for tests of the HTML page, as a person's browser would open the file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]


def browser_file() -> str:
    """The browser: $DUNE_BENCH_BROWSER, which must then be there (CI sets it), or one on the path."""
    named = os.environ.get("DUNE_BENCH_BROWSER")
    if named is not None:
        assert shutil.which(named), f"DUNE_BENCH_BROWSER={named!r} is no program"
        return named
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser on this machine (looked for {', '.join(NAMES)})")
    return found


@contextmanager
def open_browser() -> Iterator[Browser]:
    program = browser_file()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Seen:
    """What a page said and asked for while it was open."""

    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def listen(self, page: Page) -> None:
        page.on("console", lambda message: self.console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.console.append(f"error: {error}"))
        page.on("request", lambda request: self.requests.append(request.url))

    def check(self, file: Path) -> None:
        """No complaint, and no request but for the file itself and what is in it."""
        assert self.console == []
        assert [url for url in self.requests if url != file.as_uri() and not url.startswith("data:")] == []
