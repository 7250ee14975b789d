"""``tune`` on the command line: what it prints, its exit codes, and what it refuses."""

import json

import pytest

from mlrpl_bench.cli.commands.tune import rate_numbers, values_by_name
from tests.helpers import command
from tests.helpers.tiny_study import refusal

SETTING = ("--dataset=tiny", "--epochs=1", "--device=cpu")


@pytest.fixture
def call(world, monkeypatch):
    return command.in_folder(monkeypatch, world.folder, *SETTING, *world.plugins)


def test_it_plans_tunes_and_the_leaderboard_uses_it(call, world):
    planned = call("tune", "plain,partial_bce", "--rates=0.3,1", "--dry-run", "--json")
    assert (planned.code, json.loads(planned.out)["cells"]) == (0, 4)
    tuned = call("tune", "plain,partial_bce", "--rates=0.3,1")
    assert tuned.code == 0 and "tuned-epochs=1.json" in tuned.err
    assert "plain[lr=0.3]" in tuned.out and "by 2 trials at 50 % known, seed 0" in tuned.out
    again = call("tune", "plain,partial_bce", "--rates=0.3,1", "--json")
    assert set(json.loads(again.out)["methods"]) == {"plain", "partial_bce"} and "training" not in again.err
    table = call("leaderboard", "--tuned", "--ratios=0.5", "--methods=plain")
    assert table.code == 0 and "plain (tuned)" in table.out
    first = world.results / "tiny" / "tuned-epochs=1.json"
    content = json.loads(first.read_text())
    content["methods"]["plain"]["values"]["lr"] = 0.3
    first.write_text(json.dumps(content))
    changed = call("leaderboard", "--tuned", "--ratios=0.5", "--methods=plain")
    assert "plain (tuned) is plain[lr=0.3]" in changed.out  # and is not remembered from before
    row = call("run", "plain", "--tuned-file", first, "--ratios=0.5")
    assert row.code == 0 and "plain (tuned)" in row.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tune", "plain", "--rates="], "--rates has no value"),
        (["tune", "plain", "--rates=1,x"], "'x' is no number"),
        (["tune", "plain", "--rates=0"], "0 must be above 0"),
        (["tune", "plain", "--rates=-1"], "-1 must be above 0"),
        (["tune", "plain", "--rates=nan"], "nan must be above 0"),
        (["tune", "plain", "--rates=1e9"], "lr=1000000000.0 is not valid"),
        (["tune", "plain", "--set-values", "alpha=1"], "plain has no hyper-parameter 'alpha'"),
        (["tune", "plain", "--set-values", "alpha"], "write it as name=value"),
        (["tune", "plain", "--set-values", "alpha="], "--set-values alpha= has no value"),
        (["tune", "nothing"], "no method 'nothing'"),
        (["tune", ""], "no method ''"),
        (["leaderboard", "--tuned-file", "none.json"], "there is no none.json; tune first"),
        (["run", "plain", "--set", "lr=0"], "lr=0 is not valid"),
    ],
)
def test_bad_input_is_one_line_with_code_2(call, arguments, words):
    answer = call(*arguments)
    assert answer.code == 2 and words in answer.err and answer.out == ""
    assert [line for line in answer.err.splitlines() if line.startswith("error:")] == [answer.err.splitlines()[-1]]


def test_lists_are_read():
    assert rate_numbers("0.3, 1,3") == (0.3, 1, 3)
    assert values_by_name(["alpha=0.3, 0.5", "start=5"]) == {"alpha": ["0.3", "0.5"], "start": ["5"]}
    assert "names alpha twice" in refusal(lambda: values_by_name(["alpha=1", "alpha=2"]))
