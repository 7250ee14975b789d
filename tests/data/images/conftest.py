"""A split of made-up photographs for the tests of prepared images."""

import pytest

from mlrpl_bench.data.images import cache_writer
from tests.helpers.photographs import split_of


@pytest.fixture
def split(tmp_path):
    return split_of(tmp_path / "originals")


@pytest.fixture
def pieces_of_two_rows(monkeypatch):
    monkeypatch.setattr(cache_writer, "FILES_PER_PIECE", 2)
