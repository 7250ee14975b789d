"""What the files with commands share."""

import re
import sys
from pathlib import Path

import pytest

from mlrpl_bench.cli import options
from mlrpl_bench.data.dataset import NINE_RATIOS, Preset
from mlrpl_bench.models.registry import load_methods
from mlrpl_bench.training.options import Options
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


PRESET = Preset(32, "small", ratios=(0.2, 0.4))


@pytest.mark.parametrize(
    ("text", "ratios"),
    [
        (None, (0.2, 0.4)),
        ("all", NINE_RATIOS),
        ("0.5", (0.5,)),
        ("0.5,0.1", (0.1, 0.5)),
        (" 0.5 , 1", (0.5, 1.0)),
        ("0.1,0.10,1e-1", (0.1,)),
    ],
)
def test_ratios_are_listed_or_all_or_the_presets(text, ratios):
    assert options.known_ratios(text, PRESET, Options()) == ratios


def test_one_label_an_image_has_one_column_and_a_mask_file_one_ratio():
    assert options.known_ratios(None, PRESET, Options(mask_scheme="single_positive")) == (1.0,)
    assert options.known_ratios("0.3", PRESET, Options(mask_file=Path("mask.npz"))) == (0.3,)
    for text in (None, "all", "0.1,0.5"):
        with pytest.raises(UserError, match="name its known ratio"):
            options.known_ratios(text, PRESET, Options(mask_file=Path("mask.npz")))


@pytest.mark.parametrize("text", ["0", "1.5", "0.5,-0.1", "nan", "inf", "x", "", "0.5,", "0.1;0.5", "50%"])
def test_ratios_that_are_none_are_refused_in_one_line(text):
    with pytest.raises(UserError, match=r"outside \(0, 1\]|is no number; write 0\.1,0\.5 or all") as refusal:
        options.known_ratios(text, PRESET, Options())
    assert "\n" not in str(refusal.value)


def test_a_seed_is_that_of_the_mask_too():
    assert options.seed_pairs(3, None) == [(0, 0), (1, 1), (2, 2)]


def test_the_mask_can_be_held_fixed():
    assert options.seed_pairs(2, 7) == [(0, 7), (1, 7)]


@pytest.mark.parametrize(
    ("count", "mask_seed", "line"),
    [
        (0, None, "--seeds 0 must be at least 1"),
        (1, -1, "--mask-seed -1 must be between 0 and 4294967295"),
        (1, 2**32, "--mask-seed 4294967296 must be between 0 and 4294967295"),
    ],
)
def test_seeds_that_cannot_be_are_refused(count, mask_seed, line):
    with pytest.raises(UserError, match=re.escape(line)):
        options.seed_pairs(count, mask_seed)


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


@pytest.fixture(scope="module")
def methods(tmp_path_factory):
    """Three methods, and none besides."""
    folder = tmp_path_factory.mktemp("methods")
    head, body = METHOD.split('@register_method("plain", paper="https://example.org/plain", differs="shorter")\n')
    names = {"basic": "default=True", "shown": 'published="ROW"', "both": 'default=True, published="B"'}
    lines = "".join(f'@register_method("{name}", {facts})\n' for name, facts in names.items())
    write_plugin(folder / "family.py", head + lines + body)
    return load_methods(folder=folder)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (None, ["basic", "both"]),
        ("all", ["basic", "both", "shown"]),
        ("paper", ["both", "shown"]),
        ("shown", ["shown"]),
        ("shown,basic", ["shown", "basic"]),
        ("shown, basic", ["shown", "basic"]),
        ("shown, shown,shown", ["shown"]),
    ],
)
def test_methods_are_chosen_by_name_or_kind(methods, text, names):
    assert [entry.name for entry in options.chosen_methods(methods, text)] == names


@pytest.mark.parametrize("text", ["", "shown,", "shown,shwn"])
def test_a_method_that_is_not_there_is_refused(methods, text):
    with pytest.raises(UserError, match="no method"):
        options.chosen_methods(methods, text)
