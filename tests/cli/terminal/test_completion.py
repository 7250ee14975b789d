"""What a shell is told when somebody presses the tabulator key."""

import os
import subprocess
import sys

import pytest

from mlrpl_bench.cli.terminal import completion, names
from tests.helpers.command import call
from tests.helpers.places import BENCH
from tests.helpers.processes import work_in_imports_of_torch
from tests.helpers.tiny_study import METHOD, write_plugin

ASK = "import sys; sys.argv[0] = 'mlrpl-bench'; from mlrpl_bench.cli.app import main; main()"


@pytest.fixture
def press(monkeypatch):
    """Press the key after some words, as bash passes it on; returns the suggestions."""

    def press(*words):
        monkeypatch.setenv(completion.VARIABLE, "complete_bash")
        monkeypatch.setenv("COMP_WORDS", "\n".join(["mlrpl-bench", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        code, out, err = call(program="mlrpl-bench")
        assert (code, err) == (0, "")
        return out.split()

    return press


@pytest.mark.parametrize(
    ("words", "suggested"),
    [
        (("lea",), ["leaderboard"]),
        (("run", "sarb"), ["sarb", "sarb_sam"]),
        (("compare", "sarb", "gcn"), ["gcn_ml"]),
        (("leaderboard", "--methods", "sarb,gcn"), ["sarb,gcn_ml"]),
        (("leaderboard", "--methods", "pap"), ["paper"]),
        (("leaderboard", "--methods", "sarb,pap"), []),
        (("tune", "gcn"), ["gcn_ml"]),
        (("run", "ssgrl+cf"), ["ssgrl+cft"]),
        (("leaderboard", "--methods", "sarb,ssgrl+cf"), ["sarb,ssgrl+cft"]),
        (("leaderboard", "--dataset", "coco"), ["coco", "coco_json"]),
        (("data", "check", "voc"), ["voc2007"]),
        (("profile", "sarb", "--setting", "p"), ["paper"]),
        (("leaderboard", "--dataset", "coco", "--preset", ""), ["paper", "laptop"]),
        (("leaderboard", "--preset", ""), ["paper", "laptop"]),
        (("leaderboard", "--dataset", "scenes", "--preset", ""), []),
        (("run", "sarb", "--launcher", ""), ["local", "print", "ray", "submitit"]),
        (("run", "sarb", "--image-backend", "f"), ["fast"]),
        (("run", "sarb", "--evaluate-on", ""), ["test", "val"]),
        (("run", "sarb", "--checkpoint"), ["--checkpoint-every"]),
        (("list", ""), ["methods", "datasets", "cells"]),
        (("run", "sarb", "--epochs", ""), []),
    ],
    ids=" ".join,
)
def test_names_and_choices_are_suggested(press, words, suggested):
    assert press(*words) == suggested


def test_a_method_that_is_named_already_is_not_suggested_again(press):
    found = press("leaderboard", "--methods", "sarb,sa")
    assert found == ["sarb,sarb_sam"]


def test_a_plug_ins_method_is_suggested_where_the_plug_in_is_given(press, tmp_path):
    mine = write_plugin(tmp_path / "mine.py", f"{METHOD}\nraise SystemExit(3)")
    assert press("run", "--plugin", str(mine), "plai") == ["plain"]
    assert press("run", "plai") == []
    assert press("run", "--plugin", str(tmp_path / "missing.py"), "gcn") == ["gcn_ml"]


def test_an_answer_takes_a_fraction_of_a_second_and_runs_no_method(tmp_path):
    code = ASK.replace(
        "; main()", "\ntry: main()\nfinally: print(sorted({'torch', 'numpy', 'rich'} & set(sys.modules)))"
    )
    asked = {completion.VARIABLE: "complete_bash", "COMP_WORDS": "mlrpl-bench run gcn", "COMP_CWORD": "2"}
    environment = {**os.environ, **asked}

    def answer():
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=BENCH.parent, env=environment, capture_output=True, text=True
        )
        assert done.stdout.split("\n")[:2] == ["gcn_ml", "[]"], done.stderr

    assert work_in_imports_of_torch(answer) < 0.8  # about 0.25, and more than 1 with torch


def test_the_script_for_a_shell_is_printed_for_the_installed_command(monkeypatch):
    monkeypatch.setattr("typer._completion_shared._get_shell_name", lambda: "bash", raising=False)
    monkeypatch.setattr("typer.completion._get_shell_name", lambda: "bash", raising=False)
    code, out, err = call("--show-completion", program="mlrpl-bench")
    assert (code, err) == (0, "")
    assert completion.VARIABLE in out and out.rstrip().endswith("mlrpl-bench")


@pytest.mark.parametrize("option", completion.FLAGS)
def test_for_the_script_of_a_checkout_it_is_refused_with_what_to_do(option):
    code, out, err = call(option)
    assert (code, out) == (2, "")
    assert (
        err
        == f"error: a shell completes commands, not python scripts; pip install -e . here, then mlrpl-bench {option}\n"
    )


def test_a_group_and_names_are_the_same_everywhere():
    assert not set(completion.GROUPS) & set(names.methods())
