"""What the files with commands share."""

import sys
from pathlib import Path

import pytest

from mlrpl_bench.cli import options
from mlrpl_bench.data.dataset import NINE_RATIOS
from mlrpl_bench.utils.errors import UserError
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


@pytest.mark.parametrize(
    ("text", "ratios"),
    [
        (None, None),
        ("all", NINE_RATIOS),
        ("0.5", (0.5,)),
        ("0.5,0.1", (0.1, 0.5)),
        (" 0.5 , 1", (0.5, 1.0)),
        ("0.1,0.10,1e-1", (0.1,)),
    ],
)
def test_ratios_are_listed_or_all_or_the_presets(text, ratios):
    assert options.ratio_numbers(text) == ratios


@pytest.mark.parametrize("text", ["0", "1.5", "0.5,-0.1", "nan", "inf", "x", "", "0.5,", "0.1;0.5", "50%"])
def test_ratios_that_are_none_are_refused_in_one_line(text):
    with pytest.raises(UserError, match=r"outside \(0, 1\]|is no number; write 0\.1,0\.5 or all") as refusal:
        options.ratio_numbers(text)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("text", "size"), [("auto", None), ("1", 1), ("12", 12)])
def test_a_group_is_a_number_of_cells_or_as_many_as_fit(text, size):
    assert options.group_size(text) == size


@pytest.mark.parametrize("text", ["0", "-3", "many", "", "1.5", "Auto"])
def test_groups_that_cannot_be_are_refused_in_one_line(text):
    with pytest.raises(UserError, match=r"must be at least 1|is neither auto nor a number of cells") as refusal:
        options.group_size(text)
    assert "\n" not in str(refusal.value)


def test_weights_are_kept_or_not():
    assert (options.keeps_weights("last"), options.keeps_weights("none")) == (True, False)
    with pytest.raises(UserError, match="--keep-weights maybe is not valid; it is last or none"):
        options.keeps_weights("maybe")


@pytest.mark.parametrize(
    ("text", "names"),
    [(None, None), ("all", ("all",)), ("shown, basic", ("shown", "basic")), ("shown,", ("shown", ""))],
)
def test_methods_are_named_in_one_text(text, names):
    assert options.method_names(text) == names


def test_plugins_do_not_depend_on_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert options.plugin_files([Path("a.py")]) == (tmp_path / "a.py",)
    assert options.plugin_files(None) == ()
