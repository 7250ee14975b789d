"""A record says which code, versions and machine its number comes from."""

import json
import platform
import subprocess

import pytest
import torch

import mlrpl_bench
from mlrpl_bench.records.provenance import PACKAGES, git_state, provenance


def git(folder, *arguments):
    who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    done = subprocess.run(["git", "-C", folder, *who, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A repository with a package, a method beside it, and a text."""
    (tmp_path / "package").mkdir()
    (tmp_path / "methods").mkdir()
    for name in ("package/__init__.py", "methods/mine.py", "README.md"):
        (tmp_path / name).write_text("# first\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_versions_device_and_threads_are_plain_data():
    facts = provenance(torch.device("cpu"))
    assert facts["mlrpl_bench"] == mlrpl_bench.__version__
    assert facts["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert set(facts["versions"]) == {"python", *PACKAGES}
    assert facts["device"].endswith("CPU")
    assert facts["node"] == platform.node()
    assert facts["threads"] == torch.get_num_threads()
    assert facts["deterministic"] is False
    assert json.loads(json.dumps(facts)) == facts


def test_a_clean_checkout_is_its_commit(checkout):
    commit = git(checkout, "rev-parse", "HEAD")
    assert git_state(checkout / "package") == {"commit": commit, "changed": False}


@pytest.mark.parametrize("name", ["package/__init__.py", "methods/mine.py"])
@pytest.mark.parametrize("staged", [False, True])
def test_a_changed_python_file_anywhere_in_the_checkout_is_told(checkout, name, staged):
    (checkout / name).write_text("# second\n")
    if staged:
        git(checkout, "add", name)
    assert git_state(checkout / "package")["changed"] is True


def test_what_no_code_is_does_not_count_as_a_change(checkout):
    (checkout / "README.md").write_text("second\n")
    (checkout / "draft.py").write_text("# not tracked\n")
    assert git_state(checkout / "package")["changed"] is False


def test_outside_a_checkout_there_is_no_commit(tmp_path):
    (tmp_path / "__init__.py").write_text("")
    assert git_state(tmp_path) is None


def test_a_package_installed_inside_somebody_elses_repository_has_not_their_commit(checkout):
    site = checkout / ".venv" / "mlrpl_bench"
    site.mkdir(parents=True)
    (site / "__init__.py").write_text("")
    assert git_state(site) is None


def test_a_machine_without_git_has_no_commit(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_state(checkout / "package") is None
