"""A worker with other code or other libraries refuses to train, and names its machine."""

import platform

import pytest

from mlrpl_bench.launchers import same_code
from mlrpl_bench.records.provenance import versions
from tests.helpers.tiny_study import refusal


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A checkout with a package, a method and a data set."""
    for name in ("mlrpl_bench/one.py", "mlrpl_bench/inner/two.py", "methods/m.py", "datasets/d.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {name}")
    monkeypatch.setattr(same_code, "PACKAGE", tmp_path / "mlrpl_bench")
    return tmp_path


@pytest.mark.parametrize("name", ["mlrpl_bench/inner/two.py", "methods/m.py", "datasets/d.py"])
def test_a_change_of_any_file_is_seen(package, name):
    before = same_code.digest()
    same_code.refuse_other(before, versions(), ())
    (package / name).write_text("# changed")
    line = refusal(lambda: same_code.refuse_other(before, versions(), ()))
    assert line.startswith(f"the code on {platform.node()} is not the code that the command was given with (digest ")


def test_where_the_package_lies_and_whether_it_is_installed_does_not_matter(package):
    before = same_code.digest()
    for folder in ("methods", "datasets"):
        (package / folder).rename(package / "mlrpl_bench" / folder)
    assert same_code.digest() == before


def test_a_users_file_counts_and_one_that_is_missing_is_named(package):
    mine = package / "mine.py"
    mine.write_text("# mine")
    assert same_code.digest([mine]) != same_code.digest()
    mine.unlink()
    assert f"{mine} cannot be read on {platform.node()}" in refusal(lambda: same_code.digest([mine]))


def test_another_version_of_a_library_is_named_and_another_build_is_not_refused(package):
    here = versions()
    same_code.refuse_other(same_code.digest(), {**here, "torch": f"{here['torch'].split('+')[0]}+other"}, ())
    line = refusal(lambda: same_code.refuse_other(same_code.digest(), {**here, "torch": "0.1"}, ()))
    assert line.startswith(f"{platform.node()} has torch {here['torch']} and the command was given with 0.1")
