"""Names of files are plain, and different names have different files on every file system."""

import re

from mlrpl_bench.tools.site.names import file_name

HOSTILE = [
    "../../etc/passwd",
    "<script>",
    "a b",
    "A",
    "a",
    "ä",
    "",
    ".",
    "con.",
    "x" * 300,
    "x" * 301,
    "a\nb",
    "%2e%2e",
    "-",
]


def test_every_name_has_a_plain_file_of_its_own():
    found = [file_name(name) for name in HOSTILE]
    assert len({name.lower() for name in found}) == len(HOSTILE)
    assert all(re.fullmatch(r"[a-z0-9_][a-z0-9_-]{0,70}", name) for name in found)


def test_a_plain_name_stays():
    assert file_name("sarb_sam2") == "sarb_sam2"
