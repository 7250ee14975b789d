"""Commands that train nothing delete nothing, and read each record no more often than they must."""

import sys

import pytest

from mlrpl_bench.cli import app
from mlrpl_bench.records import record
from mlrpl_bench.records.leases.lease import Owner
from tests.helpers.tiny_study import DATASET, METHOD, contents, write_plugin

CELLS = ("plain", "--dataset=tiny", "--ratios=0.5,0.9", "--epochs=1", "--device=cpu")
TABLE = ("--methods=plain", *CELLS[1:])


@pytest.fixture
def bench(tmp_path, monkeypatch, capsys):
    """Runs a command in a folder of its own; what it printed."""
    plugins = [
        f"--plugin={write_plugin(tmp_path / name, text)}"
        for name, text in {"tiny_set.py": DATASET, "plain.py": METHOD}.items()
    ]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))

    def bench(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["bench.py", *arguments, *plugins])
        with pytest.raises(SystemExit) as end:
            app.main()
        printed = capsys.readouterr()
        assert not end.value.code, printed.err
        return printed.out

    return bench


@pytest.fixture
def results(bench, tmp_path):
    """Two finished cells, in whose folders lies what a process leaves that is killed just after the record."""
    bench("run", *CELLS)
    folders = list((tmp_path / "results" / "tiny" / "plain").iterdir())
    for folder in folders:
        (folder / "checkpoint.pt").write_bytes(b"of no use any more")
        Owner().take(folder)
    assert len(folders) == 2
    return tmp_path / "results"


@pytest.mark.parametrize("arguments", [("run", *CELLS, "--dry-run"), ("leaderboard", *TABLE, "--dry-run")])
def test_a_dry_run_changes_nothing(bench, results, arguments):
    before = contents(results)
    bench(*arguments)
    assert contents(results) == before


def test_a_table_without_training_deletes_nothing_and_training_does(bench, results):
    before = contents(results)
    bench("leaderboard", *TABLE, "--no-train")
    after = contents(results)
    assert {name: after.get(name) for name in before} == before
    bench("run", *CELLS)
    left = [name for name in contents(results) if "checkpoint" in name or "claim" in name]
    assert left == []


@pytest.mark.parametrize(("arguments", "times"), [(("run", *CELLS, "--dry-run"), 1), (("run", *CELLS), 2)])
def test_a_record_is_read_to_know_what_is_missing_and_once_more_for_the_table(
    bench, results, monkeypatch, arguments, times
):
    opened, read = [], record.read_json
    monkeypatch.setattr(record, "read_json", lambda path: opened.append(path.resolve()) or read(path))
    bench(*arguments)
    of_records = [path for path in opened if path.name == "record.json"]
    assert {of_records.count(path) for path in results.glob("tiny/plain/*/record.json")} == {times}
