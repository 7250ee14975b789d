"""The command says what it wrote and where, and names what it could not use."""

import sys

import pytest

from mlrpl_bench.cli import app
from tests.helpers.made_up_site import edit
from tests.helpers.made_up_table import records


@pytest.fixture
def bench(tmp_path, monkeypatch, capsys):
    """Runs the command; exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def bench(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bench.py", "site", *arguments])
        with pytest.raises(SystemExit) as end:
            app.main()
        return (end.value.code or 0, *capsys.readouterr())

    return bench


def test_it_says_what_it_wrote(bench, tmp_path):
    records(tmp_path / "results", ["plain"])
    code, out, err = bench("results")
    assert (code, out.partition(",")[0]) == (0, "7 pages: 1 leaderboard")
    assert err.endswith("open site/index.html\n") and (tmp_path / "site" / "index.html").is_file()


def test_folders_that_disagree_are_named_and_the_exit_code_says_so(bench, tmp_path):
    records(tmp_path / "a", ["plain"])
    there = records(tmp_path / "b", ["plain"])
    edit(there[0].folder, lambda content: content["metrics"].update(mAP=0.125))
    code, out, err = bench("a", "b")
    assert code == 1 and "3 records" in out
    lines = [line for line in err.splitlines() if line.startswith("not used: ")]
    assert len(lines) == 1 and "are of one cell and disagree; move the wrong one away" in lines[0]


def test_bad_input_is_one_line(bench, tmp_path):
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "a.tex").write_text("mine")
    records(tmp_path / "results", ["plain"])
    for arguments in (("nowhere",), ("paper",), ("results", "--out", "paper"), ()):
        code, out, err = bench(*arguments)
        assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1
