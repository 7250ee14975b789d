"""A site can be made from Python, and refusals come before anything is written."""

import pytest

import mlrpl_bench as mb
from tests.helpers.made_up_table import records
from tests.helpers.tiny_study import refusal


def test_a_site_is_made_and_says_what_it_holds(tmp_path):
    records(tmp_path / "results", ["plain"])
    made = mb.site(tmp_path / "results", tmp_path / "site")
    assert (made.boards, made.records, made.problems) == (1, 4, [])
    assert (made.folder / "index.html").is_file()


def test_what_cannot_be_used_is_a_warning(tmp_path):
    (first, *_) = records(tmp_path / "results", ["plain"])
    (first.folder / "record.json").write_text("{")
    with pytest.warns(UserWarning, match=r"not used: .*record\.json is cut short"):
        assert mb.site([tmp_path / "results"], tmp_path / "site").records == 3


def test_nothing_is_read_or_written_where_it_cannot_go(tmp_path):
    (tmp_path / "mine").write_text("mine")
    assert "holds something else than a site" in refusal(lambda: mb.site(tmp_path / "nowhere", tmp_path))
    assert "name" in refusal(lambda: mb.site([], tmp_path / "site"))
    (tmp_path / "empty").mkdir()
    assert "there is nothing to show" in refusal(lambda: mb.site(tmp_path / "empty", tmp_path / "site"))
    assert not (tmp_path / "site").exists()
