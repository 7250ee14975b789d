"""The names that are read from files are those that running the files registers."""

import pytest

from mlrpl_bench.cli.terminal import names
from mlrpl_bench.models.registry import load_datasets, load_methods
from tests.helpers.tiny_study import DATASET, METHOD, write_plugin


def test_every_registered_method_is_found():
    assert names.methods() == list(load_methods())


def test_every_registered_data_set_is_found_with_its_presets():
    registry = load_datasets()
    assert names.datasets() == {name: list(registry[name].presets) for name in registry}


def test_every_step_is_found():
    assert names.steps() == sorted(load_methods().steps)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('for name in ("a", "b"):\n    register_variant(f"{name}_ema", name)', ["a_ema", "b_ema"]),
        (
            'for name in ["a"]:\n    for way in ("x", "y"):\n        register_variant(f"{name}_{way}", name)',
            ["a_x", "a_y"],
        ),
        ('for name in ("a", "b"):\n    register_variant(name, "c")', ["a", "b"]),
        (
            'MINE = {"a": 1, "b": 2}\nfor name, value in MINE.items():\n    register_variant(f"{name}_ema", name)',
            ["a_ema", "b_ema"],
        ),
        ('for name, value in others.items():\n    register_variant(name, "c")', []),
        ('MINE = {"a": "b"}\nfor name in MINE.values():\n    register_variant(name, "c")', []),
        ('for name in others():\n    register_variant(f"{name}_ema", name)', []),
    ],
)
def test_names_that_a_loop_makes_of_texts_are_found(tmp_path, text, found):
    new = set(names.methods([write_plugin(tmp_path / "mine.py", text)])) - set(names.methods())
    assert sorted(new) == found


def test_names_in_the_users_files_are_found_and_the_files_are_not_run(tmp_path):
    mine = write_plugin(tmp_path / "mine.py", f"{METHOD}\n1 / 0")
    tiny = write_plugin(tmp_path / "tiny.py", DATASET)
    assert "plain" in names.methods([mine]) and "plain" not in names.methods()
    assert "tiny" in names.datasets([tiny])


def test_presets_that_the_file_itself_names_are_found(tmp_path):
    text = 'MINE = {"quick": 1, "long": 2}\n@register_dataset("mine", preset=1, presets=MINE)\nclass Mine: ...'
    assert names.datasets([write_plugin(tmp_path / "mine.py", text)])["mine"] == ["quick", "long"]


@pytest.mark.parametrize("text", ["def (", "x = '\0'", "@register_method(NAME)\nclass A: ...", ""])
def test_a_file_without_names_or_that_is_no_python_adds_nothing(tmp_path, text):
    assert names.methods([write_plugin(tmp_path / "odd.py", text)]) == names.methods()
    assert names.methods([tmp_path / "missing.py"]) == names.methods()
