"""The methods and datasets are found from a checkout, an editable install and a wheel, beside any other package."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.helpers.places import ROOT

FOLDERS = ("methods", "datasets")
FILES = {f"{folder}/{path.name}" for folder in FOLDERS for path in (ROOT / folder).glob("*.py")}

WHERE = """
import json
import mlrpl_bench
from mlrpl_bench.models.registry import load_datasets, load_methods
registries = load_methods(), load_datasets()
assert not any(registry.failures for registry in registries), [registry.failures for registry in registries]
print(json.dumps([mlrpl_bench.__file__, *sorted({str(file) for r in registries for file in r.files()})]))
"""
"""Prints the file of the package and the files that register methods, steps and datasets."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what is packaged, so that no build/ appears in the real one."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy)
    for name in ("mlrpl_bench", *FOLDERS):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory):
    return packaged("build_wheel", checkout, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A site folder with the wheel unpacked in it, which is all that installing does to import it."""
    return unpacked(wheel, tmp_path_factory.mktemp("site"))


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def packaged(hook: str, checkout: Path, into: Path) -> Path:
    """What an installer without build isolation, and so without network, asks setuptools to make."""
    script = f"import setuptools.build_meta as backend; backend.{hook}({str(into)!r})"
    done = subprocess.run([sys.executable, "-c", script], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (made,) = into.glob("*.whl")
    return made


def unpacked(wheel: Path, into: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(into)
    return into


def printed_by(code: str, *, path: tuple[Path, ...] = (), sites: tuple[Path, ...] = ()) -> list[str]:
    """The JSON list printed by code run in a fresh interpreter in the present folder.

    The interpreter starts without site folders (-S) and gets `path`, then `sites` (whose .pth files count), then this
    one's packages without their .pth files: an editable install of this very project cannot stand in for another.
    """
    packages = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    preamble = (
        f"import site, sys; sys.path[1:1] = {list(map(str, path))!r}\n"
        f"for folder in {list(map(str, sites))!r}: site.addsitedir(folder)\n"
        f"sys.path += {packages!r}\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-S", "-c", preamble + code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def files_in(folder: Path, kinds: tuple[str, ...] = FOLDERS) -> list[str]:
    entries = (file for file in FILES if not Path(file).name.startswith("_"))
    return sorted(str(folder / file) for file in entries if file.split("/")[0] in kinds)


def write_stub(site: Path) -> Path:
    """Somebody else's distribution called ``datasets``."""
    (site / "datasets").mkdir(parents=True)
    (site / "datasets" / "__init__.py").write_text("MADE_BY = 'somebody else'\n")
    (site / "datasets" / "theirs.py").write_text("raise RuntimeError('not ours to load')\n")
    return site


def test_the_wheel_carries_every_method_and_dataset_inside_the_package(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if name.split("/")[1] in FOLDERS} == {f"mlrpl_bench/{file}" for file in FILES}


def test_the_wheel_has_no_other_top_level_name_than_the_packages(wheel):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"mlrpl_bench"}


def test_the_wheel_carries_every_module(wheel):
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mlrpl_bench").rglob("*.py")}
    assert modules <= set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_carries_the_facts(wheel):
    facts = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "mlrpl_bench" / "leaderboard" / "claims" / "facts").iterdir()
    }
    assert facts and facts <= set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_installs_the_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "mlrpl-bench = mlrpl_bench.cli.app:main" in archive.read(name).decode()


def test_an_installed_wheel_finds_its_own_methods_and_datasets(installed, elsewhere):
    package, *found = printed_by(WHERE, sites=(installed,))
    assert package == str(installed / "mlrpl_bench" / "__init__.py")
    assert found == files_in(installed / "mlrpl_bench")


def test_an_editable_install_finds_those_of_the_checkout(checkout, elsewhere):
    (elsewhere / "wheel").mkdir()
    site = unpacked(packaged("build_editable", checkout, elsewhere / "wheel"), elsewhere / "site")
    package, *found = printed_by(WHERE, sites=(site,))
    assert package == str(checkout / "mlrpl_bench" / "__init__.py")
    assert found == files_in(checkout)


def test_a_checkout_on_the_path_finds_its_own(checkout, elsewhere):
    package, *found = printed_by(WHERE, path=(checkout,))
    assert package == str(checkout / "mlrpl_bench" / "__init__.py")
    assert found == files_in(checkout)


BESIDE = """
import json
import datasets
from mlrpl_bench.models.registry import load_datasets
registry = load_datasets()
assert not registry.failures, registry.failures
import datasets as again
print(json.dumps([datasets.MADE_BY, again.MADE_BY, *sorted({str(registry[name].path) for name in registry})]))
"""


def test_beside_another_package_called_datasets_a_wheel_keeps_to_its_own(wheel, elsewhere):
    site = write_stub(unpacked(wheel, elsewhere / "site"))
    made_by, again, *found = printed_by(BESIDE, sites=(site,))
    assert made_by == again == "somebody else"
    assert found == files_in(site / "mlrpl_bench", ("datasets",))


def test_a_checkout_on_the_path_does_not_hide_another_package_called_datasets(checkout, elsewhere):
    made_by, again, *found = printed_by(BESIDE, path=(checkout,), sites=(write_stub(elsewhere / "site"),))
    assert made_by == again == "somebody else"
    assert found == files_in(checkout, ("datasets",))
