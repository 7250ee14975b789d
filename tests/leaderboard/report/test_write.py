"""The files of a leaderboard; that they hold what is shown is tested with the API."""

import errno

import pytest

from mlrpl_bench.leaderboard.report import write
from mlrpl_bench.utils.errors import UserError


class Table:
    """Says of each form only its name."""

    to_csv = staticmethod(lambda: "csv")
    to_markdown = staticmethod(lambda: "markdown")
    to_latex = staticmethod(lambda: "latex")
    tidy_csv = staticmethod(lambda: "tidy")


def test_tables_of_another_setting_end_in_its_name():
    assert write.table_files(Table(), "-val") == {
        "leaderboard-val.csv": "csv",
        "leaderboard-val.md": "markdown",
        "leaderboard-val.tex": "latex",
        "measurements-val.csv": "tidy",
    }


def test_a_file_is_written_with_its_folder(tmp_path):
    assert write.write_file(tmp_path / "deeper" / "a.csv", "x").read_text() == "x"


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.ENOSPC, "make room"), (errno.EACCES, "name another folder with --out")]
)
def test_a_file_that_cannot_be_written_is_named_with_what_to_do(tmp_path, monkeypatch, number, advice):
    def refuse(path, content):
        raise OSError(number, "no")

    monkeypatch.setattr(write, "write_atomically", refuse)
    with pytest.raises(UserError, match=advice) as refusal:
        write.write_file(tmp_path / "a.csv", "x")
    assert str(tmp_path / "a.csv") in str(refusal.value)
