"""A headless Chromium for the tests of pages: a page is opened from its file, and may neither fail nor load anything.

`tests/conftest.py` gives every test the fixture `open_page`. Where no browser is found the test is skipped, and the
report of pytest says so.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:  # imported for every test, and needed by few
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

NAMES = ("chromium", "chromium-browser", "google-chrome")
INSIDE = ("file:", "data:", "blob:", "about:")
"""Where a page may read from: its own file, and what is inside it."""

WIDE, NARROW = 1300, 390
"""Widths in px that pages are looked at: a notebook and a telephone."""


class OpenPage(Protocol):
    """The fixture `open_page`: open a file at a width in px, in the light or the dark scheme; return it loaded."""

    def __call__(self, path: Path, width: int = WIDE, *, dark: bool = False) -> "Page": ...


@dataclass
class PageLog:
    """What a page did that it must not do."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def watch(self, page: "Page") -> None:
        """Note errors, messages of errors, and requests to anywhere from now on."""
        page.on("console", self._message)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._request)

    def _message(self, message: "ConsoleMessage") -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def _request(self, request: "Request") -> None:
        if not request.url.startswith(INSIDE):
            self.requests.append(request.url)


@pytest.fixture(scope="module")
def chromium() -> "Iterator[Browser]":
    """The system's Chromium. It ends with the module: Playwright's event loop must not outlive it."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 -- only these tests pay for its import

    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on PATH; Debian has the package 'chromium'")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: "Browser") -> Iterator[OpenPage]:
    """Open files as pages; after the test, no page may have had an error or asked for anything outside its file."""
    log = PageLog()
    contexts = []

    def opened(path: Path, width: int = WIDE, *, dark: bool = False) -> "Page":
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)  # a busy machine draws a page of 2 MB late
        log.watch(page)
        page.goto(path.resolve().as_uri(), wait_until="load")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert log.errors == []
    assert log.requests == []
