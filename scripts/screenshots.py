"""Take README's two screenshots of the page that the quick start writes.

    .venv/bin/python scripts/screenshots.py [outputs/quickstart/report.html]

Needs Chromium and Playwright (`bash scripts/setup.sh --extras dev`). The first screenshot shows curves, the second a
prompt with coloured tokens.
"""

import io
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Page

OUT = Path(__file__).resolve().parent / "screenshots"
WIDTH, HEIGHT = 1280, 720
LARGEST = 200_000  # bytes per file


def save(page: "Page", name: str) -> None:
    """Save the visible part of the page, with the number of colours reduced until the file is small enough."""
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    for colours in (256, 128, 64):
        image.quantize(colours).save(OUT / name, optimize=True)
        if (OUT / name).stat().st_size <= LARGEST:
            print(f"{OUT / name}: {(OUT / name).stat().st_size / 1000:.0f} kB")
            return
    sys.exit(f"screenshots: {name} stays above {LARGEST / 1000:.0f} kB")


def main() -> None:
    from playwright.sync_api import sync_playwright

    source = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/quickstart/report.html").resolve()
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    if not source.exists() or binary is None:
        sys.exit(f"screenshots: {'no Chromium here' if source.exists() else f'no page at {source}'}")
    OUT.mkdir(exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=binary, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(f"file://{source}")
        page.wait_for_selector("body[data-ready]")
        page.locator("#curves").evaluate("e => e.scrollIntoView()")
        save(page, "curves.png")
        page.locator("#filters [name=outcome]").select_option("mixed")
        page.locator("#rollouts .browser").evaluate("e => e.scrollIntoView()")
        page.locator("#detail .tokens span.rewarded").first.hover()
        save(page, "tokens.png")
        browser.close()


if __name__ == "__main__":
    main()
