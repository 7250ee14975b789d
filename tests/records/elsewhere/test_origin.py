"""Where a record comes from is kept beside it, and what cannot be read claims the least."""

import json

import pytest

from mlrpl_bench.records.elsewhere.origin import ORIGIN, OWN, UNKNOWN, Origin, read_origin, write_origin


def test_a_record_without_the_file_is_own(tmp_path):
    assert read_origin(tmp_path) == OWN and OWN.status == "own" == OWN.to_text()


@pytest.mark.parametrize(
    ("origin", "status", "text"),
    [
        (Origin("p"), "submitted", "submitted"),
        (Origin("p", "jane"), "signed", "submitted, signed by jane"),
        (Origin("p", "jane", "same"), "re-measured", "submitted, signed by jane, re-measured here: same"),
    ],
)
def test_an_origin_is_read_back_and_the_strongest_is_its_status(tmp_path, origin, status, text):
    write_origin(tmp_path, origin)
    assert read_origin(tmp_path) == origin
    assert (origin.status, origin.to_text()) == (status, text)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b'{"pack": 3}',
        b'{"pack": ""}',
        b'{"other": 1}',
        json.dumps({"pack": "p", "signed_by": "a\nb"}).encode(),
    ],
)
def test_a_damaged_file_counts_as_submitted_by_nobody_knows_whom(tmp_path, content):
    (tmp_path / ORIGIN).write_bytes(content)
    assert read_origin(tmp_path) == UNKNOWN and UNKNOWN.status == "submitted"
