"""What a page of HTML holds, and a browser to open it.

Test modules import this; it has no tests.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest


class Reader(HTMLParser):
    """Collects ids, links, sources, elements and the policy of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids, self.hrefs, self.sources, self.tags, self.policy = [], [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.hrefs += [found["href"]] if "href" in found else []
        self.sources += [found["src"]] if "src" in found else []
        self.policy += found["content"] if found.get("http-equiv") == "Content-Security-Policy" else ""


def chromium() -> Iterator[Any]:
    """A browser, for a fixture to yield; without one the tests are skipped."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[dev]'")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as running:
        found = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()
