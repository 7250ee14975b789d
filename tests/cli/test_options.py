"""What the files with commands share."""

import sys

from mlrpl_bench.cli import options
from tests.helpers.tiny_study import METHOD, write_plugin


def test_registries_have_what_a_plugin_defines(tmp_path):
    methods, datasets = options.registries([write_plugin(tmp_path / "mine.py", METHOD)])
    assert "plain" in methods.entries and "ssgrl" in methods.entries
    assert "scenes" in datasets.entries


def test_a_file_that_cannot_be_loaded_is_a_warning(tmp_path, monkeypatch, capsys):
    write_plugin(tmp_path / "broken.py", "1 / 0")
    monkeypatch.setattr("mlrpl_bench.models.registry.bundled_folder", lambda name: tmp_path)
    options.registries(None)
    lines = capsys.readouterr().err.strip().split("\n")
    assert all(line.startswith("warning: ") and "broken.py" in line for line in lines)


def test_the_first_results_folder_is_written_to_and_all_are_read(tmp_path):
    (tmp_path / "b").mkdir()
    store = options.result_store([tmp_path / "a", tmp_path / "b"])
    assert (store.root, store.others) == (tmp_path / "a", (tmp_path / "b",))
    assert str(options.result_store(None).root) == "results"


def test_the_program_is_named_as_it_was_called(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bench.py"])
    assert options.program() == "python bench.py"
    monkeypatch.setattr(sys, "argv", ["/usr/bin/mlrpl-bench"])
    assert options.program() == "mlrpl-bench"
