"""The commands for authors of methods, where `test_app` does not call them."""

import json

import pytest

from mlrpl_bench.tools.conformance import permuted_labels
from tests.helpers.command import call
from tests.helpers.tiny_study import DATASET, METHOD, write_plugin


def test_every_check_has_its_line(tmp_path):
    code, out, _ = call("test-method", "plain", f"--plugin={write_plugin(tmp_path / 'mine.py', METHOD)}")
    lines = out.strip().split("\n")
    assert code == 0 and len(lines) > 10 and all(line.startswith("ok    ") for line in lines)


def test_a_check_that_fails_is_exit_code_1(tmp_path):
    broken = METHOD.replace("partial_bce(", "0 * partial_bce(")
    code, out, _ = call("test-method", "plain", f"--plugin={write_plugin(tmp_path / 'mine.py', broken)}")
    assert code == 1 and "FAILED" in out


@pytest.mark.parametrize("problem", [None, "the loss is nan"])
def test_the_checks_as_json(problem, monkeypatch):
    found = [("one check", None), ("another check", problem)]
    monkeypatch.setattr("mlrpl_bench.tools.conformance.checks.run", lambda entry: found)
    code, out, _ = call("test-method", "sarb", "--json")
    assert code == (problem is not None)
    assert json.loads(out) == {
        "method": "sarb",
        "holds": problem is None,
        "checks": [
            {"check": "one check", "problem": None, "same_fault": []},
            {"check": "another check", "problem": problem, "same_fault": []},
        ],
    }


@pytest.mark.parametrize("problem", [None, "its scores change"])
def test_permuted_labels_are_a_line_like_those_of_the_other_checks(problem, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(permuted_labels, "check", lambda *arguments: asked.append(arguments) or problem)
    plugin = write_plugin(tmp_path / "set.py", DATASET)
    options = ("--dataset=tiny", f"--data-root={tmp_path}", f"--plugin={plugin}")
    code, out, _ = call("test-method", "sarb", "--permuted-labels", *options)
    assert code == (problem is not None)
    assert out.startswith("ok      the scores do not depend" if problem is None else "FAILED  the scores do not depend")
    assert out.rstrip().endswith("files of tiny" if problem is None else "files of tiny: its scores change")
    assert (asked[0][0].name, asked[0][1].name, asked[0][2].data_root) == ("sarb", "tiny", tmp_path)


def test_permuted_labels_need_a_data_set():
    code, _, err = call("test-method", "sarb", "--permuted-labels")
    assert code == 2 and "--dataset NAME" in err
