"""This module makes names of files that every file system tells apart from names that may hold any character."""

from __future__ import annotations

import hashlib
import re

LONGEST = 60
KEY = 12
"""A page's name has this many characters of its cell's key; of ten thousand cells two share them once in five
million.
"""


def file_name(name: str) -> str:
    """Return a name for a file: the name itself where that is plain, else a part of it with a hash.

    Capital letters are not plain, because some file systems take ``A.html`` and ``a.html`` for one file.

    >>> file_name("sarb"), file_name("sarb_sam"), file_name("SARB")
    ('sarb', 'sarb_sam', 'sarb-91f71e')
    """
    if re.fullmatch(r"[a-z0-9_]{1,60}", name):
        return name
    slug = re.sub(r"[^a-z0-9_]+", "-", name.lower())[:LONGEST].strip("-")
    return f"{slug or 'name'}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:6]}"


def record_page(key: str) -> str:
    """Return the path of a record's page on the site."""
    return f"records/{key[:KEY]}.html"


def method_page(method: str) -> str:
    """Return the path of a method's page on the site."""
    return f"methods/{file_name(method)}.html"


def board_page(slug: str) -> str:
    """Return the path of a leaderboard's page on the site."""
    return f"boards/{slug}.html"


def row_data(slug: str, label: str) -> str:
    """Return what the data of a row of a leaderboard is called, which is also its path below ``data/``."""
    return f"{slug}/{file_name(label)}"
