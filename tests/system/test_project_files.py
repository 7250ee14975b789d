"""The files that a forge and a citing author read agree with the package."""

import re
import tomllib

import mlrpl_bench
from mlrpl_bench.data import protocol
from tests.helpers.places import ROOT

WHO = "mlrpl-bench contributors"


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project() -> dict:
    return tomllib.loads(text_of("pyproject.toml"))["project"]


def test_one_version_stands_everywhere():
    cited = re.search(r"^version: (.+)$", text_of("CITATION.cff"), re.MULTILINE)
    assert project()["version"] == mlrpl_bench.__version__ == (cited and cited[1])


def test_the_authors_are_the_contributors():
    assert project()["authors"] == [{"name": WHO}]
    assert f"- name: {WHO}\n" in text_of("CITATION.cff")


def test_the_changelog_begins_with_todays_protocol_version():
    versions = re.findall(r"^## Protocol version (\d+)", text_of("CHANGELOG.md"), re.MULTILINE)
    assert list(map(int, versions)) == list(range(protocol.VERSION, 0, -1))


def test_the_workflow_runs_the_job_that_one_runs_by_hand():
    assert re.search(r"^ +- run: \.ci/run$", text_of(".github/workflows/ci.yml"), re.MULTILINE)
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100


def test_the_hooks_before_a_commit_are_local_and_fetch_nothing():
    hooks = text_of(".pre-commit-config.yaml")
    assert set(re.findall(r"- repo: (.+)", hooks)) == {"local"} and "://" not in hooks
    assert set(re.findall(r"language: (.+)", hooks)) == {"system"}
    assert {entry.split()[0] for entry in re.findall(r"entry: (.+)", hooks)} == {"ruff", "mypy"}
