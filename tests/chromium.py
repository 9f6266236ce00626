"""Debian's Chromium, headless, driven by Playwright: pages from disk, with everything that they must not do recorded.

Playwright's event loop lives in the thread while a browser is open, where `asyncio.run` then fails: make the pages
first, open the browser afterwards.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SCREENSHOTS = Path(__file__).resolve().parent.parent / "outputs" / "screenshots"
VIEWS = {"wide": (1280, 900, "light"), "dark": (1280, 900, "dark"), "phone": (390, 844, "light")}


@dataclass
class Opened:
    """A page, and what went on behind it."""

    page: "Page"
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_inner_texts()

    def eventually(self, happened: Callable[[], bool]) -> None:
        """Wait up to five seconds; Playwright's own way evaluates text, which the pages forbid."""
        for _ in range(100):
            if happened():
                return
            self.page.wait_for_timeout(50)
        raise AssertionError("it did not happen within five seconds")

    def choose(self, form: str, **values: str) -> None:
        """Set fields of a form by their names, as a user would."""
        for name, value in values.items():
            place = self.page.locator(f"#{form} [name={name}]")
            if place.evaluate("e => e.tagName") == "SELECT":
                place.select_option(value)
            else:
                place.fill(value)


class Chromium:
    """A running browser."""

    def __init__(self, browser: "Browser") -> None:
        self.browser = browser

    def open(self, path: Path, view: str = "wide") -> Opened:
        """Open a page from disk and wait until its script has drawn it."""
        width, height, scheme = VIEWS[view]
        context = self.browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        opened = Opened(context.new_page())
        opened.page.on("console", lambda message: opened.errors.append(f"{message.type}: {message.text}"))
        opened.page.on("pageerror", lambda error: opened.errors.append(str(error)))
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.goto(f"file://{path}")
        opened.page.wait_for_selector("body[data-ready], #failure:not([hidden])", timeout=60_000)
        assert not opened.page.is_visible("#failure"), opened.errors
        return opened

    def picture(self, path: Path, name: str) -> None:
        """A screenshot of the whole page in each view, for people to look at."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        for view in VIEWS:
            opened = self.open(path, view)
            assert opened.page.evaluate("document.documentElement.scrollWidth") <= VIEWS[view][0], "scrolls sideways"
            opened.page.screenshot(path=SCREENSHOTS / f"{name}-{view}.png", full_page=True)
            opened.page.context.close()


@contextmanager
def chromium() -> Iterator[Chromium]:
    """Start the browser; skips where there is none."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if binary is None:
        pytest.skip("Chromium is not installed; on Debian: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with playwright.sync_playwright() as driver:
        # root, as in a container, has no sandbox; /dev/shm is small there
        browser = driver.chromium.launch(
            executable_path=binary, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield Chromium(browser)
        browser.close()
