"""``profile`` as a user meets it: a table or its data, and one line for bad input."""

import json
import os

import pytest

from mlrpl_bench.tools.profiling import step_costs
from tests.helpers.command import call, in_folder
from tests.helpers.tiny_study import DATASET, EXPLODING, METHOD, write_plugin

TINY = ("--backbone=small", "--image-size=32", "--batch=4", "--classes=6", "--setting=paper", "--steps=1")


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """Call the command with two methods and a data set of the user's own."""
    files = {"set.py": DATASET, "plain.py": METHOD, "other.py": EXPLODING}
    plugins = [f"--plugin={write_plugin(tmp_path / name, text)}" for name, text in files.items()]
    monkeypatch.setattr(step_costs, "MATMUL_SIDE", {"cpu": 128})
    bench = in_folder(monkeypatch, tmp_path)
    return lambda *arguments: bench("profile", "--device=cpu", *plugins, *arguments)


def test_a_table_has_a_row_for_each_method_and_says_where_it_was_measured(profile):
    code, out, _ = profile("plain,explodes", *TINY)
    assert code == 0
    assert [line.split()[1] for line in out.splitlines() if line.startswith("│")] == 2 * ["plain", "explodes"]
    assert "Where a cell's time goes, paper" in out and "82,783 training images" in out
    assert "batch 4, 6 categories, 10 % known" in out and "GFLOP/s" in out


def test_the_data_have_the_same_rows(profile):
    code, out, _ = profile("plain", *TINY, "--json", "--ratio=0.5")
    found = json.loads(out)
    assert code == 0 and found["categories"] == 6 and found["ratio"] == 0.5 and found["failures"] == {}
    (row,) = found["methods"]
    assert sum(row["seconds"].values()) == pytest.approx(row["step_seconds"])


def test_a_data_set_of_the_users_own_is_a_setting_too(profile):
    code, out, _ = profile("plain", "--setting=tiny", "--steps=1", "--json")
    assert code == 0 and json.loads(out)["methods"][0]["seconds"]["reading"] > 0


def test_another_preset_of_the_data_set_is_another_setting(profile, tmp_path):
    two = DATASET.replace("ratios=(0.5, 0.9))", 'ratios=(0.5, 0.9)), presets={"larger": Preset(48, "small", batch=3)}')
    write_plugin(tmp_path / "set.py", two)
    measured = json.loads(profile("plain", "--setting=tiny", "--preset=larger", "--steps=1", "--json").out)
    assert (measured["image_size"], measured["batch"]) == (48, 3)
    found = profile("plain", "--setting=tiny", "--preset=smaller", "--steps=1")
    assert found.code == 2 and "smaller" in found.err and "larger" in found.err


def test_a_table_that_is_kept_stands_in_the_leaderboard(profile, tmp_path):
    code, _, err = profile("plain", "--setting=tiny", "--steps=1", "--save")
    assert code == 0 and "wrote results/tiny/profile.json" in err
    plugins = [f"--plugin={tmp_path / name}" for name in ("set.py", "plain.py")]
    board = ["leaderboard", "--dataset=tiny", "--methods=plain", "--device=cpu", *plugins]
    code = call(*board).code
    page = (tmp_path / "results" / "tiny" / "leaderboard.md").read_text()
    assert code == 0 and "## Cost of a training step, tiny" in page
    (tmp_path / "results" / "tiny" / "profile.json").write_text("{")
    assert call(*board).code == 1
    assert "Cost of a training step" not in (tmp_path / "results" / "tiny" / "leaderboard.md").read_text()


def test_a_method_that_fails_gives_exit_code_1(profile, tmp_path):
    broken = METHOD.replace('"plain"', '"broken"').replace('return {"bce"', 'raise RuntimeError("no luck")\n#')
    plugin = f"--plugin={write_plugin(tmp_path / 'broken.py', broken)}"
    code, out, err = profile("broken,plain", *TINY, plugin)
    assert code == 1 and "failed: broken: RuntimeError: no luck" in err
    assert "│ plain" in out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["plane", *TINY], "no method 'plane'; did you mean 'plain'?"),
        (["plain", *TINY, "--batch=1"], "--batch 1 must be at least 2"),
        (["plain", *TINY, "--backbone=resnet1001"], "no backbone 'resnet1001'"),
        (["plain", *TINY, "--steps=0"], "--steps 0 must be at least 1"),
        (["plain", *TINY, "--classes=0"], "--classes 0 must be at least 1"),
        (["plain", *TINY, "--ratio=0"], "--ratio 0 must be above 0"),
        (["plain", *TINY, "--device=tpu"], "no device 'tpu'"),
        (["plain", *TINY, "--save"], "--save goes with a data set"),
        (["plain", "--setting=papers"], "no setting 'papers'; there are: paper, "),
        (["plain", "--setting=tiny", "--classes=20"], "--classes goes with --setting paper"),
        (["plain", *TINY, "--preset=laptop"], "--preset goes with a data set; name it with --setting"),
        (["plain", *TINY, "--set-data=a=1"], "--set-data goes with a data set; name it with --setting"),
    ],
)
def test_bad_input_is_one_line(profile, arguments, complaint):
    code, out, err = profile(*arguments)
    assert code == 2 and out == ""
    assert err.startswith("error: ") and complaint in err and err.count("\n") == 1


def test_a_table_that_could_not_be_kept_is_refused_before_anything_is_measured(profile, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    monkeypatch.setattr(step_costs, "profile", lambda *_: pytest.fail("it was measured"))
    code, out, err = profile("plain", "--setting=tiny", "--save")
    assert (code, out) == (2, "")
    assert err == "error: --save: results/tiny is read-only; leave --save out, or name another --results-dir\n"
