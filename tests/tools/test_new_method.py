"""The file for a new method works before it is edited, and never overwrites one."""

import pytest

from mlrpl_bench.models.registry import load_methods
from mlrpl_bench.tools import new_method
from mlrpl_bench.tools.conformance import checks
from mlrpl_bench.utils.errors import UserError

NAMES = ("my_method", "x2", "method", "task")
"""The last two are also names of things that the file imports."""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """As if from a wheel, which holds the methods; beside it lies a folder that is somebody else's."""
    (tmp_path / "site" / "mlrpl_bench" / "methods").mkdir(parents=True)
    (tmp_path / "site" / "methods").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(new_method, "PACKAGE", tmp_path / "site" / "mlrpl_bench")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_written_into_the_present_folder_and_registers_a_method_of_its_name(installed, name):
    path = new_method.write(name).resolve()
    assert path == installed / f"{name}.py"
    assert load_methods([path])[name].path == path


def test_the_written_method_passes_the_checks_that_every_method_must(installed):
    path = new_method.write("my_method").resolve()
    results = list(checks.run(load_methods([path])["my_method"]))
    assert len(results) > 5
    assert [problem for _, problem in results if problem] == []


def test_the_written_method_has_a_hyper_parameter_to_imitate(installed):
    entry = load_methods([new_method.write("my_method").resolve()])["my_method"]
    assert entry.hyperparameters({"weight": "2"}).weight == 2.0


def test_in_a_checkout_the_file_goes_into_its_methods(tmp_path, monkeypatch):
    (tmp_path / "methods").mkdir()
    monkeypatch.setattr(new_method, "PACKAGE", tmp_path / "mlrpl_bench")
    path = new_method.write("my_method")
    assert path == tmp_path / "methods" / "my_method.py"
    assert new_method.plugin_hint(path) == ""


def test_elsewhere_the_file_must_be_named_as_a_plugin(installed):
    assert new_method.plugin_hint(new_method.write("my_method")) == " --plugin my_method.py"


@pytest.mark.parametrize(
    "name", ["", "My", "two words", "2x", "a-b", "a.b", "../up", "class", "_hidden", "none", "true"]
)
def test_a_name_that_cannot_be_a_file_and_a_class_is_refused(installed, name):
    with pytest.raises(UserError, match=r"such as my_method|choose another name") as refusal:
        new_method.write(name)
    assert "\n" not in str(refusal.value)
    assert list(installed.parent.rglob("*.py")) == []


def test_the_name_of_a_registered_method_is_refused_with_its_file(installed):
    name = next(iter(load_methods()))
    with pytest.raises(UserError, match=rf"there is a method '{name}' already, in .*\.py; choose another name"):
        new_method.write(name)
    assert list(installed.iterdir()) == []


def test_a_file_that_is_there_is_kept(installed):
    (installed / "mine.py").write_text("precious")
    with pytest.raises(UserError, match=r"already, in mine\.py"):
        new_method.write("mine")
    assert (installed / "mine.py").read_text() == "precious"
