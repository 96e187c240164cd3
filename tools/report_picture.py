"""The picture of the HTML report in its documentation: on a desk, light, and on a phone, dark.

    python tools/report_picture.py runs/leaderboard.html docs/report.png

Needs Chromium and Playwright (dependency group `test`).
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

DESK = {"viewport": {"width": 1060, "height": 1000}, "color_scheme": "light"}
PHONE = {"viewport": {"width": 375, "height": 1000}, "color_scheme": "dark", "is_mobile": True}
GAP = 24


def shot(browser: Browser, file: Path, options: dict[str, object], section: str) -> Image.Image:
    """The window when a section has been scrolled to its top."""
    page = browser.new_context(**options).new_page()  # type: ignore[arg-type]
    page.goto(file.absolute().as_uri())
    page.evaluate("(id) => document.getElementById(id).scrollIntoView()", section)
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        shots = [shot(browser, options.page, DESK, "overview"), shot(browser, options.page, PHONE, "task")]
        browser.close()
    sheet = Image.new("RGB", (sum(s.width for s in shots) + GAP, max(s.height for s in shots)), "white")
    x = 0
    for image in shots:
        sheet.paste(image, (x, 0))
        x += image.width + GAP
    sheet.save(options.out, optimize=True)


if __name__ == "__main__":
    main()
