"""This module keeps links whole between Markdown files and the pages of the site, and finds those that lead nowhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "results/reference/scenes-all-methods.md": "reference-table.md",
    "results/reference/scenes-five-ratios.md": "five-ratios.md",
    "results/reference/coco18-methods.md": "photographs-table.md",
    "results/reference/coco18-two-ratios.md": "photographs-two-ratios.md",
    "results/reference/coco18-three-seeds.md": "photographs-three-seeds.md",
    "results/reference/coco18-tuned.md": "photographs-tuned.md",
}
"""Files of the checkout that lie outside of docs/, and the pages that include them."""


def to_pages(text: str) -> str:
    """Turn a Markdown text's links to files of the checkout into links to the pages of the site.

    >>> to_pages("[so](../README.md#eight-words), [b](../benchmarks/README.md), [c](docs/usage.md), [d](usage.md)")
    '[so](index.md#eight-words), [b](benchmarks.md), [c](usage.md), [d](usage.md)'
    """
    for file, page in OUTSIDE.items():
        text = re.sub(rf"\]\((?:\.\./)?{re.escape(file)}(?=[)#])", f"]({page}", text)
    return re.sub(r"\]\((?:\.\./)?docs/", "](", text)


class _Page(HTMLParser):
    """What a page links to, and what can be linked to in it."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value is not None and tag != "link":
                self.links.append(value)
            elif name in ("id", "name") and value is not None:
                self.anchors.add(value)


def lost_links(folder: Path) -> list[str]:
    """Return the links of a built site that lead to no file of it, or to no anchor, as ``page: link``.

    Links to other hosts are not looked at.
    """
    pages = {path.resolve(): _Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    lost = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            known = target not in pages or not anchor or anchor in pages[target].anchors
            if not target.exists() or not known:
                lost.append(f"{path.relative_to(folder.resolve())}: {link}")
    return lost


def hosts(folder: Path) -> list[str]:
    """Return the other hosts that a built site links to, in alphabetical order."""
    texts = (path.read_text(encoding="utf-8") for path in folder.rglob("*.html"))
    return sorted({urlsplit(link).netloc for text in texts for link in _Page(text).links} - {""})
