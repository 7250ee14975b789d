"""What an analysis is written as, and which rows can stand in it together."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from mlrpl_bench.leaderboard.tables.analyses.analysis import Analysis, common, ratio_name
from mlrpl_bench.utils.tables import from_text
from tests.helpers.simulated_cells import cells, without
from tests.helpers.tiny_study import refusal

TABLE = from_text("t", "A title", ["method", "mAP"], [["a|b", "1"]], ["a note"])
MADE = Analysis("cost", pd.DataFrame({"method": ["a|b"], "mAP": [float("nan")]}), [TABLE, TABLE], {"svg": b"<svg>"})


@pytest.fixture(scope="module")
def grid():
    return cells({"a": 1.0, "b": 1.0, "c": 1.0}, count=3)


def test_it_is_written_as_markdown_csv_json_and_figures(tmp_path):
    files = MADE.write(tmp_path / "deep" / "er")
    assert [path.name for path in files] == [
        "analysis-cost.md",
        "analysis-cost.csv",
        "analysis-cost.json",
        "analysis-cost.svg",
    ]
    assert files[0].read_text(encoding="utf-8").count("## A title") == 2
    assert files[1].read_text(encoding="utf-8") == "method,mAP\na|b,\n"
    expected = {"analysis": "cost", "rows": [{"method": "a|b", "mAP": None}], "notes": ["a note"]}
    assert json.loads(files[2].read_text(encoding="utf-8")) == expected
    assert files[3].read_bytes() == b"<svg>"


def test_files_of_another_setting_say_so(tmp_path):
    files = replace(MADE, variant="epochs=2").write(tmp_path)
    assert [path.name for path in files] == [f"analysis-cost-epochs=2.{kind}" for kind in ("md", "csv", "json", "svg")]


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    assert "name another with --out" in refusal(lambda: MADE.write(tmp_path / "file" / "folder"))


def test_rows_stand_together_on_the_seeds_that_all_have(grid):
    found = common(without(grid, "b", 0.5, (1, 1)), ["a", "b", "c"], [0.1, 0.5])
    assert list(found.labels) == ["a", "b", "c"] and list(found.seeds) == [(0, 0), (2, 2)]
    assert found.notes == ["left out, seed 1: b has none at 50 %"] and found.cautions() == []


def test_a_row_without_a_complete_seed_is_left_out_unless_it_is_needed(grid):
    lacking = without(grid, "b", 0.5)
    found = common(lacking, ["a", "b", "c"], [0.1, 0.5])
    assert list(found.labels) == ["a", "c"] and "so left out: b" in found.notes[0]
    assert "b has no records at 50 %" in refusal(lambda: common(lacking, ["a", "b"], [0.1, 0.5], needed=["b"]))


def test_rows_without_a_seed_together_are_refused(grid):
    apart = without(without(grid, "a", 0.1, (0, 0), (1, 1)), "b", 0.1, (2, 2))
    assert "no seed has all of a, b at 10 %" in refusal(lambda: common(apart, ["a", "b"], [0.1]))
    assert "no row has a seed" in refusal(lambda: common({}, ["a"], [0.1]))


def test_averages_are_named_as_in_other_frames():
    assert (ratio_name([0.1]), ratio_name([0.1, 0.5])) == ("0.1", "avg of 2")
